"""ρ by unit, ρ and β by layer: a sum of what each unit has alone, with its own target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference

UNITS = st.integers(1, 5)
CASES = UNITS.flatmap(
    lambda units: st.tuples(
        hnp.arrays(np.float64, (4, units), elements=st.floats(0.001, 0.999)),
        hnp.arrays(np.float64, (units,), elements=st.floats(0.01, 0.99)),
    )
)
FORMS: tuple[dict[str, Any], ...] = ({}, {"epsilon": 0.01}, {"symmetric": True, "epsilon": 1e-3})


@pytest.mark.equation("EQ-SPARSITY", "EQ-SPARSITY-SLOPE", "EQ-BOUND-SPARSITY")
@pytest.mark.parametrize("form", FORMS)
@given(CASES)
def test_each_unit_has_its_own_target(
    form: dict[str, Any], case: tuple[np.ndarray, np.ndarray]
) -> None:
    a, rho = case
    alone = [
        reference.kl_sparsity_with_bounds(a[:, [j]], rho[j], 3.0, precision="float64", **form)
        for j in range(len(rho))
    ]
    value, gradient = reference.kl_sparsity_with_bounds(a, rho, 3.0, precision="float64", **form)
    assert np.array_equal(gradient.value, np.hstack([slope.value for _, slope in alone]))
    assert np.array_equal(gradient.bound, np.hstack([slope.bound for _, slope in alone]))
    assert np.array_equal(gradient.value, reference.kl_sparsity_gradient(a, rho, 3.0, **form))
    total = sum(float(term.value) for term, _ in alone)
    assert abs(total - float(value.value)) <= float(value.bound)
    assert reference.sparsity_cost(a, list(rho), 3.0, **form) == float(value.value)


@pytest.mark.equation("EQ-SPARSITY-LOGITS", "EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE")
@given(CASES)
def test_each_unit_has_its_own_target_from_logits(case: tuple[np.ndarray, np.ndarray]) -> None:
    a, rho = case
    z = 20.0 * a - 10.0
    value, gradient = reference.kl_sparsity_with_bounds(
        z, rho, 3.0, from_logits=True, precision="float64"
    )
    columns = [
        3.0 * reference.kl_divergence_from_logits_derivative(rho[j], z[:, [j]])
        for j in range(len(rho))
    ]
    assert np.all(np.abs(gradient.value - np.hstack(columns)) <= gradient.bound)
    alone = sum(
        reference.sparsity_cost_from_logits(z[:, [j]], rho[j], 3.0) for j in range(len(rho))
    )
    assert abs(alone - float(value.value)) <= float(value.bound)
    assert reference.sparsity_cost_from_logits(z, rho, 3.0) == pytest.approx(
        float(value.value), abs=float(value.bound)
    )


@pytest.mark.equation("EQ-KL", "EQ-KL-DERIVATIVE", "EQ-KL-EXTENSION")
@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(0.0, 1.0)), st.floats(0.0, 1.0))
def test_one_number_for_all_is_the_number(rho_hat: np.ndarray, rho: float) -> None:
    for function in (reference.kl_divergence, reference.kl_divergence_derivative):
        assert np.array_equal(function(rho, rho_hat), function([rho, rho], rho_hat))
        ends = function([0.0, 1.0], rho_hat)
        assert np.array_equal(ends[:, 0], function(0.0, rho_hat[:, 0]))
        assert np.array_equal(ends[:, 1], function(1.0, rho_hat[:, 1]))


PARAMETERS = reference.initialise((3, 4, 2, 4, 3), seed=0)
X = np.random.default_rng(0).uniform(0.1, 0.9, size=(5, 3))
BY_LAYER: dict[str, Any] = {
    "rho": [0.1, (0.2, 0.7), np.array([0.3, 0.4, 0.5, 0.6])],
    "beta": (3.0, 0.0, 0.5),
    "weight_decay": 0.01,
}


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-BOUND-COST")
def test_each_layer_has_its_own_target_and_weight() -> None:
    cost = reference.sparse_autoencoder_cost(PARAMETERS, X, **BY_LAYER)
    hidden = reference.forward(PARAMETERS, X).hidden
    assert cost.sparsity == sum(
        reference.sparsity_cost(a, rho, beta)
        for a, rho, beta in zip(hidden, BY_LAYER["rho"], BY_LAYER["beta"], strict=True)
    )
    gradient = reference.sparse_autoencoder_gradient(PARAMETERS, X, **BY_LAYER)
    for from_logits in (False, True):
        step = reference.cost_and_gradient_with_bounds(
            PARAMETERS, X, precision="float64", from_logits=from_logits, **BY_LAYER
        )
        assert abs(float(step.cost.total.value) - cost.total) <= float(step.cost.total.bound)
        for bounded, plain in zip(step.gradient.kernels, gradient.kernels, strict=True):
            assert np.all(np.abs(bounded.value - plain) <= bounded.bound)

    def j(theta: np.ndarray) -> float:
        at = reference.unpack(theta, PARAMETERS)
        return reference.sparse_autoencoder_cost(at, X, **BY_LAYER).total

    numerical = reference.numerical_gradient(j, reference.pack(PARAMETERS))
    # ε²/6 times the third derivative, which is below 30 here, and the rounding of J over ε.
    assert (
        np.max(np.abs(numerical - reference.pack(gradient))) <= 5e-8 + 2.0**-49 * cost.total / 1e-4
    )


@pytest.mark.equation("EQ-COST")
def test_one_number_for_all_layers_is_the_number() -> None:
    for arguments in ({"rho": 0.1, "beta": 3.0}, {"rho": [0.1] * 3, "beta": np.full(3, 3.0)}):
        cost = reference.sparse_autoencoder_cost(PARAMETERS, X, weight_decay=0.0, **arguments)
        gradient = reference.sparse_autoencoder_gradient(
            PARAMETERS, X, weight_decay=0.0, **arguments
        )
        if arguments["rho"] == 0.1:
            expected = cost, reference.pack(gradient)
        assert cost == expected[0]
        assert np.array_equal(reference.pack(gradient), expected[1])


@pytest.mark.equation("EQ-SPARSITY", "EQ-COST", "EQ-GRADIENT")
def test_certified_values() -> None:
    certified = pytest.importorskip("reference.certified")
    a = np.array([[0.2, 0.6, 0.0], [0.4, 0.9, 0.0]])
    rho = [0.05, 0.5, 0.25]
    for form in ({"epsilon": 0.01}, {"epsilon": 0.01, "symmetric": True}):
        exact = certified.sparsity_cost(a, rho, 3.0, **form)
        value, gradient = reference.kl_sparsity_with_bounds(
            a, rho, 3.0, precision="float64", **form
        )
        assert abs(float(exact) - float(value.value)) <= float(value.bound)
        rho_hat = reference.mean_activation(a, symmetric="symmetric" in form)
        arguments = {"symmetric": False, **form}
        slope = certified.sparsity_slope(rho, 3.0, rho_hat, 2, **arguments).astype(float)
        assert np.all(np.abs(slope - gradient.value) <= gradient.bound)
    logits = certified.sparsity_cost_from_logits(20.0 * a, rho, 3.0)
    assert abs(float(logits) - reference.sparsity_cost_from_logits(20.0 * a, rho, 3.0)) < 1e-13
    terms = certified.sparse_autoencoder_cost(PARAMETERS, X, **BY_LAYER)
    step = reference.cost_and_gradient_with_bounds(PARAMETERS, X, precision="float64", **BY_LAYER)
    assert abs(float(terms.total) - float(step.cost.total.value)) <= float(step.cost.total.bound)
    gradients = certified.backpropagate(PARAMETERS, X, **BY_LAYER)
    for of_kernel, bounded in zip(gradients.kernels, step.gradient.kernels, strict=True):
        assert np.all(np.abs(of_kernel.astype(float) - bounded.value) <= bounded.bound)


A = np.full((2, 3), 0.5)
WRONG = (
    ([0.1, 0.2], ValueError, r"one for each of the 3 units. Received an array of shape \(2,\)"),
    ([[0.1, 0.2, 0.3]], ValueError, r"shape \(1, 3\)"),
    ([0.1, 1.5, 0.2], ValueError, r"`rho` must lie in \(0.0, 1.0\). Received rho\[1\]=1.5"),
    ([0.1, 0.2, float("nan")], ValueError, "`rho`"),
    ([0.1, 0.2, "a"], TypeError, "`rho` must be an array of real numbers"),
    ([True, False, True], TypeError, "`rho` must be an array of real numbers"),
    ([0.1, [0.2, 0.3]], TypeError, "`rho` must be an array"),
    ([], ValueError, r"`rho`.*shape \(0,\)"),
)


@pytest.mark.parametrize(("rho", "error", "message"), WRONG)
def test_wrong_targets_by_unit(rho: Any, error: type[Exception], message: str) -> None:
    for call in (
        lambda: reference.sparsity_cost(A, rho, 1.0),
        lambda: reference.kl_divergence_from_logits(rho, A),
        lambda: reference.extended_kl_divergence(rho, A, 0.1),
        lambda: reference.kl_sparsity_with_bounds(A, rho, 1.0),
    ):
        with pytest.raises(error, match=message):
            call()


def test_the_extension_begins_before_every_target() -> None:
    with pytest.raises(ValueError, match=r"`epsilon` must lie in .*here \[0, 0.05\]"):
        reference.sparsity_cost(A, [0.5, 0.05, 0.3], 1.0, epsilon=0.1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"rho": [0.1, 0.2]}, ValueError, "entry for each hidden layer, here 3. Received 2 ent"),
        ({"beta": [1.0]}, ValueError, "`beta` must be a number, or a sequence .* 3. Received 1"),
        ({"beta": [1.0, -1.0, 1.0]}, ValueError, r"`beta` must lie in .* Received beta\[1\]=-1.0"),
        (
            {"beta": [1.0, [1.0], 1.0]},
            TypeError,
            r"`beta` must be a number .* Received beta\[1\]=\[1.0\]",
        ),
        (
            {"rho": [0.1, 0.2, 1.0]},
            ValueError,
            r"`rho` must lie in \(0.0, 1.0\). Received rho\[2\]=1.0",
        ),
        ({"rho": [0.1, [0.2], 0.3]}, ValueError, r"`rho` .* each of the 2 units.* as rho\[1\]"),
        ({"rho": [0.1, [0.2, 2.0], 0.3]}, ValueError, r"`rho` must lie in .* rho\[1\]\[1\]=2.0"),
        ({"rho": "0.1"}, TypeError, "`rho` must be a number"),
        # Also of a layer whose term is off.
        (
            {"rho": [0.3, 0.3, 0.05], "beta": [1.0, 1.0, 0.0], "epsilon": 0.1},
            ValueError,
            r"`epsilon` must lie in .*here \[0, 0.05\]",
        ),
    ],
)
def test_wrong_targets_by_layer(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    for function in (
        reference.sparse_autoencoder_cost,
        reference.backpropagate,
        reference.cost_and_gradient_with_bounds,
    ):
        with pytest.raises(error, match=message):
            function(PARAMETERS, X, **{**BY_LAYER, **changed})


def test_a_sequence_of_one_layer_is_by_layer() -> None:
    parameters = reference.initialise((3, 2, 3), seed=0)
    with pytest.raises(ValueError, match=r"by unit stands inside of it, as in rho=\[\[0.1, 0.2"):
        reference.sparse_autoencoder_cost(parameters, X, rho=[0.1, 0.2], beta=1.0, weight_decay=0.0)
