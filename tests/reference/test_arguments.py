"""Any object as any argument of the oracle: refused by name, or it makes sense (tests/fuzz.py)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import reference
from reference import certified
from tests.fuzz import kinds_of, wrong


def parameters() -> reference.Parameters:
    return reference.initialise((3, 2, 3), seed=0)


X = np.linspace(0.1, 0.9, 12).reshape(4, 3)
CODE = np.linspace(0.2, 0.8, 8).reshape(4, 2)

# What each argument is called everywhere, and a value that is right.
VALID: dict[str, Callable[[], Any]] = {
    "parameters": parameters,
    "like": parameters,
    "vector": lambda: reference.pack(parameters()),
    "theta": lambda: np.array([0.5, 0.25]),
    "function": lambda: lambda theta: float(np.sum(theta)),
    "x": X.copy,
    "y": X.copy,
    "z": X.copy,
    "output": X.copy,
    "weights": X.copy,
    "kernel": X.copy,
    "logits": CODE.copy,
    "activations": CODE.copy,
    "rho_hat": CODE.copy,
    "chunks": lambda: [CODE, CODE],
    "previous": lambda: np.array([0.2, 0.3]),
    "batch_mean": lambda: np.array([0.2, 0.3]),
    "mask": lambda: np.array([True, True, False, True]),
    "momentum": lambda: 0.9,
    "sizes": lambda: (3, 2, 3),
    "seed": lambda: 0,
    "steps": lambda: 2,
    "learning_rate": lambda: 0.25,
    "rho": lambda: 0.1,
    "beta": lambda: 1.0,
    "weight_decay": lambda: 0.01,
    "factor": lambda: 0.01,
    "l1_factor": lambda: 0.01,
    "l2_factor": lambda: 0.01,
    "epsilon": lambda: 1e-3,
    "precision": lambda: "float32",
    "summation": lambda: "any order",
    "false_alarm": lambda: 1e-9,
    "mode": lambda: "rows",
    "activation": lambda: "sigmoid",
    "output_activation": lambda: "sigmoid",
    "symmetric": lambda: False,
    "from_logits": lambda: False,
    "tied": lambda: False,
    "tied_decay": lambda: 1,
    "kernels": lambda: parameters().kernels,
    "biases": lambda: parameters().biases,
    "actual": X.copy,
    "expected": lambda: reference.Bounded(X, X),
}

OF_THE_COST = tuple(
    name
    for name in inspect.signature(reference.sparse_autoencoder_cost).parameters
    if name not in ("parameters", "x")
)

PUBLIC = [
    name
    for name in reference.__all__
    if inspect.isfunction(getattr(reference, name)) and name != "equations"
]


CERTIFIED = [
    label
    for label, formula in certified.CERTIFIED.items()
    if certified.INSTALLED and {*inspect.signature(formula).parameters} <= {*VALID, "arguments"}
]
"""Formulas whose arguments public functions have too."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*PUBLIC, "Parameters", *CERTIFIED])
def test_any_object_as_any_argument(name: str) -> None:
    function = certified.CERTIFIED.get(name) or getattr(reference, name)
    names = [*inspect.signature(function).parameters]
    if "arguments" in names:
        names = [n for n in names if n != "arguments"] + [*OF_THE_COST]
    with np.errstate(all="ignore"):
        kinds = kinds_of(names)
        if function.__name__ in ("kl_divergence", "kl_divergence_derivative"):
            kinds["rho"] = "probability"  # exact at the ends too
        if "weight_decay" in names:  # the cost of a network
            kinds |= {"rho": "rho by layer", "beta": "factor by layer"}
        found = [*wrong(function, lambda: {n: VALID[n]() for n in names}, kinds)]
    assert not found, "\n".join(found)
