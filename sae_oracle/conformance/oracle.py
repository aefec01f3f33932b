"""What the NumPy oracle answers to a vector."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import reference
from reference.estimators import mean_activation_of_chunks
from sae_oracle.conformance.vectors import Vector

_SLOPES = {
    f"EQ-{name}": f"EQ-{name}-DERIVATIVE"
    for name in ("SIGMOID", "TANH", "RELU", "LINEAR", "KL", "KL-EXTENSION", "KL-LOGITS")
} | {f"EQ-{name}": f"EQ-{name}-GRADIENT" for name in ("L1", "L2", "L1L2", "ORTHOGONAL")}


def answers(vector: Vector) -> dict[str, Any]:
    """Return every output of a vector, by its name, as the oracle computes it in float64."""
    given = dict(vector.arguments)
    with np.errstate(all="ignore"):
        if vector.label in _OF_A_LABEL:
            return _OF_A_LABEL[vector.label](given)
        found = {"value": _function(vector.label)(**given)}
        if vector.label in _SLOPES:
            found["gradient"] = _function(_SLOPES[vector.label])(**given)
    return found


def _function(label: str) -> Callable[..., Any]:
    module, _, name = reference.equations()[label].function.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _numbered(**arrays: Any) -> dict[str, Any]:
    return {f"{name}[{i}]": a for name, many in arrays.items() for i, a in enumerate(many)}


def _cost(a: dict[str, Any]) -> dict[str, Any]:
    cost = reference.sparse_autoencoder_cost(**a)
    return {
        "value": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
        "gradient": reference.pack(reference.sparse_autoencoder_gradient(**a)),
    }


def _gradient(a: dict[str, Any]) -> dict[str, Any]:
    gradients = reference.backpropagate(**a)
    return {"value": reference.pack(gradients.parameters), "x": gradients.x}


def _parameters(function: Callable[..., Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(a: dict[str, Any]) -> dict[str, Any]:
        found = function(**a)
        return _numbered(kernels=found.kernels, biases=found.biases)

    return answer


def _forward(a: dict[str, Any]) -> dict[str, Any]:
    found = reference.forward(**a)
    return _numbered(logits=found.logits, activations=found.activations[1:])


def _tied(a: dict[str, Any]) -> dict[str, Any]:
    return _numbered(value=_function("EQ-GRADIENT-TIED")(**a))


def _log_sigmoid(a: dict[str, Any]) -> dict[str, Any]:
    return {"value": reference.log_sigmoid(a["z"]), "gradient": reference.sigmoid(-a["z"])}


def _reconstruction(a: dict[str, Any]) -> dict[str, Any]:
    slope = _function("EQ-DELTA-OUTPUT")(**a, derivative=np.ones_like(a["output"]))
    return {"value": reference.reconstruction_cost(**a), "gradient": slope}


def _decay(a: dict[str, Any]) -> dict[str, Any]:
    parameters = a["parameters"]
    factor = a["weight_decay"] * (a["tied_decay"] if parameters.tied else 1)
    kernels = [factor * kernel.ravel() for kernel in parameters.kernels]
    slope = np.concatenate([*kernels, *(0.0 * bias for bias in parameters.biases)])
    return {"value": reference.weight_decay_cost(**a), "gradient": slope}


def _sparsity(a: dict[str, Any]) -> dict[str, Any]:
    return {
        "value": reference.sparsity_cost(**a),
        "gradient": reference.kl_sparsity_gradient(**a),
    }


def _sparsity_of_logits(a: dict[str, Any]) -> dict[str, Any]:
    slope = reference.kl_divergence_from_logits_derivative(a["rho"], a["logits"])
    return {"value": reference.sparsity_cost_from_logits(**a), "gradient": a["beta"] * slope}


def _numerical(a: dict[str, Any]) -> dict[str, Any]:
    parameters, x, step = (a.pop(name) for name in ("parameters", "x", "step"))

    def cost(theta: Any) -> float:
        moved = reference.unpack(theta, parameters)
        return reference.sparse_autoencoder_cost(moved, x, **a).total

    return {"value": reference.numerical_gradient(cost, reference.pack(parameters), step)}


def _descent(a: dict[str, Any]) -> dict[str, Any]:
    current, x, steps, rate = (
        a.pop(name) for name in ("parameters", "x", "steps", "learning_rate")
    )
    for _ in range(steps):
        slope = reference.pack(reference.sparse_autoencoder_gradient(current, x, **a))
        current = reference.unpack(reference.pack(current) - rate * slope, current)
    return {"value": reference.pack(current)}


_OF_A_LABEL: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "EQ-COST": _cost,
    "EQ-GRADIENT": _gradient,
    "EQ-UNPACK": _parameters(reference.unpack),
    "EQ-INIT": _parameters(reference.initialise),
    "EQ-FORWARD": _forward,
    "EQ-GRADIENT-TIED": _tied,
    "EQ-LOG-SIGMOID": _log_sigmoid,
    "EQ-RECONSTRUCTION": _reconstruction,
    "EQ-DECAY": _decay,
    "EQ-SPARSITY": _sparsity,
    "EQ-SPARSITY-LOGITS": _sparsity_of_logits,
    "EQ-NUMERICAL-GRADIENT": _numerical,
    "EQ-BOUND-DESCENT": _descent,
    "EQ-RHO-HAT-CHUNKS": lambda a: {"value": mean_activation_of_chunks(**a)},
}
