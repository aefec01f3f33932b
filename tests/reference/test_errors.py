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
    with pytest.raises(ValueError, match="`kernels` must hold at least one"):
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
        (lambda: reference.kl_divergence(0.5, [0.5, 1.5]), r"`rho_hat` must lie in \[0, 1\].*1.5"),
        (lambda: reference.kl_divergence(1.5, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.kl_divergence_from_logits(0.5, [[np.inf]]), "`logits` must be finite"),
        (lambda: reference.mean_activation(np.ones(3)), "`activations` must have shape"),
        (lambda: reference.mean_activation(np.ones((2, 3)), [True]), "`mask` must have the shape"),
        (lambda: reference.mean_activation(np.ones((1, 3)), [False]), "`mask` must leave"),
        (lambda: reference.mean_activation_of_chunks([]), "`chunks` must hold at least one"),
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
