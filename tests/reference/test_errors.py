"""Bad input: an error that names the argument, its value and the allowed range, at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from reference.rounding import precision_named

PARAMETERS = reference.initialise((3, 2, 3), seed=0)
X = np.full((4, 3), 0.5)
GOOD: dict[str, Any] = {"rho": 0.1, "beta": 1.0, "weight_decay": 0.1}


def cost(**changed: Any) -> Any:
    return reference.sparse_autoencoder_cost(
        changed.pop("parameters", PARAMETERS), changed.pop("x", X), **{**GOOD, **changed}
    )


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rho": 0.0}, ValueError, r"`rho` must lie in \(0.0, 1.0\). Received 0.0"),
    ({"rho": 1.0}, ValueError, "`rho`"),
    ({"rho": float("nan")}, ValueError, "`rho`"),
    ({"rho": "a"}, TypeError, "`rho` must be a number.*'a'"),
    ({"rho": True}, TypeError, "`rho`"),
    ({"beta": -1.0}, ValueError, r"`beta` must lie in \[0.0, inf\). Received -1.0"),
    ({"beta": float("inf")}, ValueError, "`beta`"),
    ({"weight_decay": -1e-9}, ValueError, "`weight_decay`"),
    ({"epsilon": 0.2}, ValueError, r"`epsilon` must lie in \[0, min\(rho, 1 - rho\)\]"),
    ({"epsilon": -0.1}, ValueError, "`epsilon`"),
    ({"epsilon": 0.5}, ValueError, "`epsilon`"),
    ({"x": np.ones((4, 2))}, ValueError, r"`x` must have shape \(m, 3\).*\(4, 2\)"),
    ({"x": np.ones((0, 3))}, ValueError, "`x`"),
    ({"x": np.ones(3)}, ValueError, "`x` must have 2 dimension"),
    ({"x": np.full((4, 3), np.nan)}, ValueError, "`x` must be finite"),
    ({"x": [["a"] * 3]}, TypeError, "`x` must be an array of real numbers"),
    ({"x": np.ones((4, 3), complex)}, TypeError, "`x`"),
    ({"y": np.ones((4, 2))}, ValueError, "`y` must have the shape"),
    ({"activation": "softmax"}, ValueError, "`activation` must be one of.*'softmax'"),
    ({"output_activation": "elu"}, ValueError, "`output_activation` must be one of.*'elu'"),
    ({"tied_decay": 3}, ValueError, "`tied_decay` must be 1 or 2. Received 3"),
    # The plain divergence is not defined for activations outside [0, 1].
    ({"activation": "linear", "x": np.full((4, 3), 90.0)}, ValueError, r"must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("changed", "kind", "message"), ERRORS)
def test_cost_and_gradient_say_what_is_wrong(
    changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        cost(**changed)
    with pytest.raises(kind, match=message):
        reference.backpropagate(
            PARAMETERS,
            changed.get("x", X),
            **{**GOOD, **{k: v for k, v in changed.items() if k != "x"}},
        )


def test_parameters_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^`kernels\[1\]` must have 2 dimension"):
        reference.Parameters([np.ones((3, 2)), np.ones(2)], [np.zeros(2), np.zeros(2)])
    with pytest.raises(ValueError, match=r"^`biases\[0\]` must have 1 dimension"):
        reference.Parameters([np.ones((3, 2))], [np.zeros((2, 1))])
    with pytest.raises(ValueError, match=r"^`biases\[0\]` must be finite. Received nan"):
        reference.Parameters([np.ones((3, 2))], [np.array([0.0, np.nan])])
    with pytest.raises(TypeError, match=r"^`biases\[0\]` must be an array of real"):
        reference.Parameters([np.ones((3, 2))], [["a", "b"]])
    with pytest.raises(
        ValueError, match=r"^`kernels` must hold at least one matrix. Received none.$"
    ):
        reference.Parameters([], [])
    with pytest.raises(ValueError, match="`biases` must hold one vector for each of the 2 layers"):
        reference.Parameters([np.ones((3, 2)), np.ones((2, 3))], [np.zeros(2)])
    with pytest.raises(ValueError, match="layer 1 must have 2 rows"):
        reference.Parameters([np.ones((3, 2)), np.ones((3, 3))], [np.zeros(2), np.zeros(3)])
    with pytest.raises(ValueError, match=r"`biases\[0\]` must have shape \(2,\)"):
        reference.Parameters([np.ones((3, 2))], [np.zeros(3)])
    with pytest.raises(ValueError, match=r"`kernels\[0\]` must be finite"):
        reference.Parameters([np.full((3, 2), np.inf)], [np.zeros(2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.initialise((3,), 0), "`sizes` must hold at least two"),
        (lambda: reference.initialise((3, 0, 3), 0), "`sizes`"),
        (lambda: reference.initialise((3, 2, 4), 0, tied=True), "`sizes` of a tied network"),
        (lambda: reference.unpack(np.ones(3), PARAMETERS), "`vector` must have 17 elements"),
        (
            lambda: reference.kl_divergence(0.5, [0.5, 1.5]),
            r"`rho_hat` must lie in \[0, 1\].*1.5. "
            "The divergence of the notes is not defined there; `extended_kl_divergence` is.$",
        ),
        (lambda: reference.kl_divergence(1.5, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.kl_divergence_derivative(-0.1, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.kl_divergence_derivative(1.1, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.initialise((3, 2, 2, 3), 0, tied=True), "an odd number of entries"),
        (lambda: reference.mean_activation(np.ones((0, 2))), r"shape \(0, 2\).$"),
        (lambda: reference.mean_activation(np.ones((2, 0))), r"shape \(2, 0\).$"),
        (lambda: reference.kl_divergence_from_logits(0.5, [[np.inf]]), "`logits` must be finite"),
        (lambda: reference.mean_activation(np.ones(3)), "`activations` must have shape"),
        (
            lambda: reference.mean_activation(np.ones((2, 5, 3)), [True]),
            r"^`mask` must have the shape .* last axis, \(2, 5\). Received \(1,\).$",
        ),
        (
            lambda: reference.mean_activation(np.ones((1, 3)), [False]),
            "^`mask` must leave at least one position. Received all false.$",
        ),
        (
            lambda: reference.mean_activation_of_chunks([]),
            "^`chunks` must hold at least one chunk. Received none.$",
        ),
        (lambda: reference.mean_activation_of_chunks([np.ones(3)]), "^`chunks` must have shape"),
        (lambda: reference.reconstruction_cost(np.ones(3), np.ones(3)), "^`y` must have the shape"),
        (lambda: reference.reconstruction_cost(np.ones((0, 2)), np.ones((0, 2))), "^`y` must have"),
        (lambda: reference.maximally_exciting_inputs([[1.0, 0.0]]), "`kernel`.*Unit 1 has none"),
        (
            lambda: reference.mean_activation_of_chunks([np.ones((1, 2)), np.ones((1, 3))]),
            "`chunks` must all have 2 units",
        ),
        (
            lambda: reference.running_average([0.5], [0.5], 1.0),
            r"`momentum` must lie in \[0.0, 1.0\)",
        ),
        (lambda: reference.running_average([0.5], [0.5, 0.5], 0.5), "`previous`"),
        (lambda: reference.orthogonal(np.ones((1, 3))), "`weights` must have at least two rows"),
        (lambda: reference.orthogonal(np.ones((3, 3)), 0.1, "both"), "`mode`"),
        (lambda: reference.maximally_exciting_inputs(np.zeros((2, 1))), "`kernel`.*Unit 0"),
        (lambda: reference.reconstruction_cost(np.ones((1, 2)), np.ones((1, 3))), "`y`"),
        (lambda: precision_named("float8"), "`precision` must be one of.*'float8'"),
        (
            lambda: reference.usage(np.ones(2), reference.Bounded(np.ones(3), np.ones(3))),
            "`actual`",
        ),
    ],
)
def test_value_errors_name_the_argument(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Good arguments of every function, by name; and which of them must be finite, or of one rank.
A = np.array([[0.2, 0.3], [0.4, 0.5]])
CALLS: dict[str, tuple[Any, dict[str, Any], dict[str, int | None]]] = {
    # name: (function, good arguments, {array that must be finite: its rank, or None for any})
    "kl_divergence": (reference.kl_divergence, {"rho": 0.5, "rho_hat": A}, {}),
    "kl_divergence_derivative": (
        reference.kl_divergence_derivative,
        {"rho": 0.5, "rho_hat": A},
        {},
    ),
    "extended_kl_divergence": (
        reference.extended_kl_divergence,
        {"rho": 0.5, "rho_hat": A, "epsilon": 0.1},
        {},
    ),
    "extended_kl_divergence_derivative": (
        reference.extended_kl_divergence_derivative,
        {"rho": 0.5, "rho_hat": A, "epsilon": 0.1},
        {},
    ),
    "kl_divergence_from_logits": (
        reference.kl_divergence_from_logits,
        {"rho": 0.5, "logits": A},
        {"logits": None},
    ),
    "kl_divergence_from_logits_derivative": (
        reference.kl_divergence_from_logits_derivative,
        {"rho": 0.5, "logits": A},
        {"logits": None},
    ),
    "sigmoid": (reference.sigmoid, {"z": A}, {}),
    "sigmoid_derivative": (reference.activations.sigmoid_derivative, {"z": A}, {}),
    "log_sigmoid": (reference.log_sigmoid, {"z": A}, {}),
    "tanh": (reference.tanh, {"z": A}, {}),
    "tanh_derivative": (reference.activations.tanh_derivative, {"z": A}, {}),
    "relu": (reference.relu, {"z": A}, {}),
    "relu_derivative": (reference.activations.relu_derivative, {"z": A}, {}),
    "linear": (reference.linear, {"z": A}, {}),
    "linear_derivative": (reference.activations.linear_derivative, {"z": A}, {}),
    "mean_activation": (reference.mean_activation, {"activations": A}, {"activations": None}),
    "running_average": (
        reference.running_average,
        {"previous": A[0], "batch_mean": A[1], "momentum": 0.5},
        {"previous": 1, "batch_mean": 1},
    ),
    "forward": (reference.forward, {"x": X}, {"x": 2}),
    "maximally_exciting_inputs": (
        reference.maximally_exciting_inputs,
        {"kernel": A},
        {"kernel": 2},
    ),
    "unpack": (reference.unpack, {"vector": reference.pack(PARAMETERS)}, {"vector": 1}),
    "reconstruction_cost": (
        reference.reconstruction_cost,
        {"output": A, "y": A},
        {"output": None, "y": None},
    ),
    "weight_decay_cost": (reference.weight_decay_cost, {"weight_decay": 0.1}, {}),
    "sparsity_cost": (
        reference.sparsity_cost,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
    "sparsity_cost_from_logits": (
        reference.sparsity_cost_from_logits,
        {"logits": A, "rho": 0.5, "beta": 1.0},
        {"logits": None},
    ),
    "sparse_autoencoder_cost": (
        reference.sparse_autoencoder_cost,
        {"x": X, "y": X, **GOOD, "epsilon": 0.01},
        {"x": 2, "y": None},
    ),
    "backpropagate": (
        reference.backpropagate,
        {"x": X, "y": X, **GOOD, "epsilon": 0.01},
        {"x": 2, "y": 2},
    ),
    "numerical_gradient": (reference.numerical_gradient, {"theta": A[0]}, {"theta": 1}),
    "l1": (reference.l1, {"weights": A, "factor": 0.1}, {}),
    "l1_gradient": (reference.l1_gradient, {"weights": A, "factor": 0.1}, {}),
    "l2": (reference.l2, {"weights": A, "factor": 0.1}, {}),
    "l2_gradient": (reference.l2_gradient, {"weights": A, "factor": 0.1}, {}),
    "orthogonal": (reference.orthogonal, {"weights": A, "factor": 0.1}, {"weights": 2}),
    "orthogonal_gradient": (
        reference.orthogonal_gradient,
        {"weights": A, "factor": 0.1},
        {"weights": 2},
    ),
    "kl_sparsity": (
        reference.kl_sparsity,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
    "kl_sparsity_gradient": (
        reference.kl_sparsity_gradient,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
}
FIRST_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "forward": (PARAMETERS,),
    "weight_decay_cost": (PARAMETERS,),
    "sparse_autoencoder_cost": (PARAMETERS,),
    "backpropagate": (PARAMETERS,),
    "numerical_gradient": (lambda theta: 0.0,),
}


def called(name: str, arguments: dict[str, Any]) -> Any:
    function = CALLS[name][0]
    if name == "unpack":
        return function(arguments["vector"], PARAMETERS)
    return function(*FIRST_ARGUMENTS.get(name, ()), **arguments)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_of_every_function_is_checked_by_its_name(name: str) -> None:
    _, good, finite = CALLS[name]
    called(name, good)
    for argument, value in good.items():
        quoted = f"^`{argument}` must"
        with pytest.raises(TypeError, match=quoted):
            called(name, {**good, argument: "word"})
        with pytest.raises(TypeError, match=quoted):
            called(name, {**good, argument: np.asarray(value) * 1j})
        if argument in finite:
            broken = np.array(value)
            broken.flat[-1] = np.inf
            with pytest.raises(ValueError, match=f"{quoted} be finite. Received inf"):
                called(name, {**good, argument: broken})
            if finite[argument] is not None:
                with pytest.raises(ValueError, match=f"{quoted} have {finite[argument]} dimension"):
                    called(name, {**good, argument: np.asarray(value)[None]})
        elif np.ndim(value) == 0:
            with pytest.raises(ValueError, match=quoted):
                called(name, {**good, argument: float("nan")})
