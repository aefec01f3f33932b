"""The oracle's regularizers against mpmath and central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference

matrices = st.tuples(st.integers(2, 5), st.integers(2, 5)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-3.0, 3.0))
)


def mp_orthogonal(matrix: np.ndarray, factor: float, mode: str) -> mpmath.mpf:
    rows = matrix if mode == "rows" else matrix.T
    vectors = [[mpmath.mpf(v) for v in row] for row in rows]
    norms = [mpmath.sqrt(mpmath.fsum(v * v for v in vector)) for vector in vectors]
    k = len(vectors)
    total = mpmath.fsum(
        abs(mpmath.fdot(vectors[i], vectors[j]) / (norms[i] * norms[j]))
        for i in range(k)
        for j in range(i)
    )
    return mpmath.mpf(factor) * total / (mpmath.mpf(k) * (k - 1) / 2)


@pytest.mark.equation("EQ-L1", "EQ-L2", "EQ-L1L2", "EQ-BOUND-L1L2")
@given(matrices, st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_l1_l2_at_fifty_digits(weights: np.ndarray, l1: float, l2: float) -> None:
    entries = [mpmath.mpf(v) for v in weights.ravel()]
    ones, twos = mpmath.fsum(map(abs, entries)), mpmath.fsum(v * v for v in entries)
    for actual, expected, factors in (
        (reference.l1(weights, l1), l1 * ones, (l1, 0.0)),
        (reference.l2(weights, l2), l2 * twos, (0.0, l2)),
        (reference.l1_l2(weights, l1, l2), l1 * ones + l2 * twos, (l1, l2)),
    ):
        bound = reference.l1_l2_with_bounds(weights, *factors, precision="float64")[0].bound
        assert abs(mpmath.mpf(actual) - expected) <= mpmath.mpf(float(bound))


@pytest.mark.equation("EQ-ORTHOGONAL", "EQ-BOUND-ORTHOGONAL")
@given(matrices, st.sampled_from(["rows", "columns"]))
def test_orthogonal_at_fifty_digits(weights: np.ndarray, mode: str) -> None:
    weights = weights + 4.0 * np.eye(*weights.shape) + 0.01  # no vector of length 0
    rows = weights if mode == "rows" else weights.T
    if np.min(np.sum(rows**2, axis=1)) < 1e-12:
        return
    value, _ = reference.orthogonal_with_bounds(weights, 0.5, mode, precision="float64")
    error = abs(
        mpmath.mpf(reference.orthogonal(weights, 0.5, mode)) - mp_orthogonal(weights, 0.5, mode)
    )
    assert error <= mpmath.mpf(float(value.bound))


REGULARIZERS: dict[str, tuple[Callable[[Any], float], Callable[[Any], Any]]] = {
    "l1": (lambda w: reference.l1(w, 0.3), lambda w: reference.l1_gradient(w, 0.3)),
    "l2": (lambda w: reference.l2(w, 0.3), lambda w: reference.l2_gradient(w, 0.3)),
    "l1_l2": (
        lambda w: reference.l1_l2(w, 0.3, 0.2),
        lambda w: reference.l1_l2_gradient(w, 0.3, 0.2),
    ),
    "rows": (
        lambda w: reference.orthogonal(w, 0.3, "rows"),
        lambda w: reference.orthogonal_gradient(w, 0.3, "rows"),
    ),
    "columns": (
        lambda w: reference.orthogonal(w, 0.3, "columns"),
        lambda w: reference.orthogonal_gradient(w, 0.3, "columns"),
    ),
    "kl": (
        lambda w: reference.kl_sparsity(0.5 + w / 8, 0.2, 0.3),
        lambda w: reference.kl_sparsity_gradient(0.5 + w / 8, 0.2, 0.3) / 8,
    ),
    "kl, symmetric": (
        lambda w: reference.kl_sparsity(w / 4, 0.2, 0.3, symmetric=True),
        lambda w: reference.kl_sparsity_gradient(w / 4, 0.2, 0.3, symmetric=True) / 4,
    ),
    "kl, masked": (
        lambda w: reference.kl_sparsity(0.5 + w / 8, 0.2, 0.3, mask=[True, False, True]),
        lambda w: (
            reference.kl_sparsity_gradient(0.5 + w / 8, 0.2, 0.3, mask=[True, False, True]) / 8
        ),
    ),
}


@pytest.mark.equation(
    "EQ-L1-GRADIENT",
    "EQ-L2-GRADIENT",
    "EQ-L1L2-GRADIENT",
    "EQ-ORTHOGONAL-GRADIENT",
    "EQ-SPARSITY-SLOPE",
)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_gradients_by_central_differences(name: str) -> None:
    value, gradient = REGULARIZERS[name]
    weights = np.array([[0.7, -1.1, 0.4, 1.9], [-0.3, 0.8, 1.5, -0.6], [1.2, 0.5, -0.9, 0.2]])

    def flat(theta: np.ndarray) -> float:
        return value(theta.reshape(weights.shape))

    coarse = reference.numerical_gradient(flat, weights.ravel(), 1e-4)
    fine = reference.numerical_gradient(flat, weights.ravel(), 5e-5)
    expected = np.asarray(gradient(weights)).ravel()
    # The truncation error of the finer step is a third of the difference between the two.
    allowed = np.abs(coarse - fine) + 2.0**-53 * 100 * abs(flat(weights.ravel())) / 5e-5
    assert np.all(np.abs(fine - expected) <= allowed)
    assert np.max(np.abs(fine - expected)) < 1e-6


@pytest.mark.equation("EQ-SPARSITY-LOGITS", "EQ-SPARSITY")
@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-8.0, 8.0)))
def test_sparsity_from_logits_is_the_plain_one(logits: np.ndarray) -> None:
    from_logits, _ = reference.kl_sparsity_with_bounds(
        logits, 0.1, 3.0, from_logits=True, precision="float64"
    )
    a = reference.sigmoid(logits)
    plain, _ = reference.kl_sparsity_with_bounds(a, 0.1, 3.0, precision="float64")
    # a itself is rounded: at ρ̂ near 1 that is amplified by up to e⁸.
    amplified = 3.0 * 3 * np.exp(8.0) * 16 * 2.0**-53
    difference = reference.sparsity_cost_from_logits(logits, 0.1, 3.0) - reference.sparsity_cost(
        a, 0.1, 3.0
    )
    assert abs(difference) <= from_logits.bound + plain.bound + amplified


@pytest.mark.equation("EQ-L1-GRADIENT", "EQ-ORTHOGONAL")
def test_edges() -> None:
    assert reference.l1_gradient([0.0], 1.0).tolist() == [0.0]
    # A vector of length 0 is divided by 1e-7, not by 0.
    assert reference.orthogonal([[0.0, 0.0], [1.0, 0.0]], 1.0) == 0.0
    short = [[1e-9, 0.0], [1.0, 0.0]]
    assert abs(reference.orthogonal(short, 1.0) - 1e-2) <= 4 * 2.0**-53
    fine = reference.orthogonal_gradient(short, 1.0)
    assert abs(fine[0, 0] - 1e7) <= 1e7 * 8 * 2.0**-53


@pytest.mark.equation("EQ-L1", "EQ-L2", "EQ-L1L2", "EQ-ORTHOGONAL")
def test_defaults_are_keras_own() -> None:
    w = np.array([[1.0, 2.0], [3.0, -4.0]])
    assert reference.l1(w) == reference.l1(w, 0.01) == 0.1
    assert reference.l2(w) == reference.l2(w, 0.01) == 0.3
    assert reference.l1_gradient(w).tolist() == reference.l1_gradient(w, 0.01).tolist()
    assert reference.l2_gradient(w).tolist() == reference.l2_gradient(w, 0.01).tolist()
    assert reference.l1_l2(w) == 0.0
    assert reference.l1_l2_gradient(w).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert reference.orthogonal(w) == reference.orthogonal(w, 0.01, "rows")
    rows = reference.orthogonal_gradient(w, 0.01, "rows")
    assert reference.orthogonal_gradient(w).tolist() == rows.tolist()


@pytest.mark.equation("EQ-SPARSITY-SLOPE", "EQ-DELTA")
def test_gradients_have_the_shape_of_what_they_are_taken_by() -> None:
    sequence = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 3, 4))
    mask = [[1, 1, 0], [1, 0, 0]]
    gradient = reference.kl_sparsity_gradient(sequence, 0.1, 3.0, mask=mask)
    assert gradient.shape == sequence.shape
    assert np.all((gradient == 0.0) == (np.array(mask) == 0)[:, :, None])
    parameters = reference.initialise((4, 3, 2, 4), seed=0)
    found = reference.backpropagate(parameters, sequence[0], rho=0.1, beta=3.0, weight_decay=0.1)
    assert [delta.shape for delta in found.deltas] == [(3, 3), (3, 2), (3, 4)]
    assert found.x.shape == (3, 4)
    # The bias gradient is the sum of the deltas over samples.
    for delta, bias in zip(found.deltas, found.parameters.biases, strict=True):
        assert np.array_equal(delta.sum(axis=0), bias)
    expected = reference.forward(parameters, sequence[0]).activations
    for a, b in zip(found.forward.activations, expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.equation("EQ-NUMERICAL-GRADIENT")
def test_the_default_step_is_the_notes() -> None:
    """EPSILON = 1e-4: the truncation error of x³ at 0 is ε² exactly."""
    gradient = reference.numerical_gradient(lambda theta: float(theta[0] ** 3), [0.0])
    assert abs(gradient[0] - 1e-8) <= 1e-8 * 8 * 2.0**-53
