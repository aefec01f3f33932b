"""The likely part of a bound is what roundings of mean 0 make of it, rule by rule and in a network.

Each rule with λ = 1 against the deviation of the worst computation of its assumption: errors of one
sample together, those of different samples apart, roundings of random sign and full size. In the
network stochastic rounding makes the assumption true.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reference
from reference.likely import Likely, LikelyArithmetic, likely_factor
from reference.rounding import PRECISIONS, Arithmetic, Bounded, Precision, exact
from tests.reference.test_rounding import a_case, low_precision_step

TRIALS = 4000
U = 2.0**-24


def signs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(TRIALS, *shape))


def likely(values: Any, deviations: Any) -> Likely:
    values = np.asarray(values, dtype=np.float64)
    deviations = np.broadcast_to(np.asarray(deviations, dtype=np.float64), values.shape)
    return Likely(values, deviations, deviations)


def hold(actual: Any, expected: Likely, tight: float = 1.08) -> None:
    """`actual`: the results of the trials; a deviation of so many is known to about 3 %."""
    deviation = np.sqrt(np.mean((actual - expected.value) ** 2, axis=0))
    assert (deviation <= 1.05 * expected.likely).all(), (deviation, expected.likely)
    assert (expected.likely <= tight * deviation).all(), (deviation, expected.likely)


A = LikelyArithmetic("float32", 1.0)
X, Y = np.array([[0.75, -0.5, 0.25], [0.5, 1.0, -2.0]]), np.array([[0.5, 1.5], [-1.0, 0.25]])


@pytest.mark.equation(
    "EQ-BOUND-LIKELY-STORE", "EQ-BOUND-LIKELY-MULTIPLY", "EQ-BOUND-LIKELY-ACTIVATION"
)
def test_one_operation() -> None:
    e, rounding = 1e-4 * signs(2, 1), 1.0 + 1e-4 * signs(2, 2)
    coarse = LikelyArithmetic(Precision("coarse", 1e-4, 1e-4, 0.0, 1e30), 1.0)
    hold(Y * rounding, coarse.store(Y, 0.0))
    # Errors of one sample add up, and those of both factors do.
    a, b = likely(Y, 1e-4), likely(Y + 3.0, 1e-4)
    hold((Y + e) + (Y + 3.0 + e), A.add(a, b))
    hold((Y + e) - (Y + 3.0 - e), A.subtract(a, b))
    same = np.sign(Y * (Y + 3.0))
    hold((Y + e) * (Y + 3.0 + same * e), A.multiply(a, b))
    for name in ("sigmoid", "tanh"):
        a, slope = A.activation(name, likely(Y, 1e-4))
        hold(getattr(reference, name)(Y + e), a)
        assert isinstance(slope, Likely)
        assert (slope.likely > 0.0).all()
    linear, _ = A.activation("linear", likely(Y, 1e-4))
    assert (linear.bound == 1e-4).all()


@pytest.mark.equation("EQ-BOUND-LIKELY-MATMUL", "EQ-BOUND-LIKELY-SAMPLES", "EQ-BOUND-LIKELY-SUM")
def test_sums_within_a_sample_and_over_samples() -> None:
    of_row = 1e-4 * signs(2, 1)
    x = likely(X, 1e-4)
    # Within a sample: the errors have the signs of the factors, as nothing forbids.
    factors = np.array([[1.0], [-2.0], [0.5]])
    hold((X + of_row * np.sign(factors.T)) @ factors, A.matmul(x, exact(factors)))
    hold(np.sum(X + of_row, axis=-1), A.total(x, axis=-1))
    # Over samples: those of a row together, those of different rows apart.
    hold(np.sum(X + of_row, axis=(1, 2)), A.total(x))
    hold(np.sum(X + of_row, axis=1), A.total(x, axis=0))
    y = likely(Y, 1e-4)
    same = np.sign(X[:, :, None] * Y[:, None, :])
    products = (X[:, :, None] + of_row[..., None]) * (Y[:, None, :] + same * of_row[..., None])
    hold(np.sum(products, axis=1), A.matmul_over_samples(x, y))
    # ρ̂ is shared by all samples: nothing of it is likely any more.
    mean = A.mean_over_samples(x)
    assert not isinstance(mean, Likely)
    assert mean.bound == pytest.approx(1e-4 / np.sqrt(2.0), rel=0.01)


@pytest.mark.equation("EQ-BOUND-LIKELY-SUM", "EQ-BOUND-LIKELY-MATMUL", "EQ-BOUND-LIKELY-SAMPLES")
def test_roundings_of_a_sum() -> None:
    """A large term first, so that each partial sum is as large as the sum of all."""
    n, u = 50, 1e-4
    coarse = LikelyArithmetic(Precision("coarse", 1e-12, u, 0.0, 1e30), 1.0)
    terms = np.full(n, 1e-3)
    terms[0] = 1.0
    actual = np.sum(terms) * (1.0 + u * np.sum(signs(n), axis=1, keepdims=True))
    hold(actual, coarse.total(exact(terms[:, None]), axis=0), 1.1)
    actual = actual[..., None]
    hold(actual, coarse.matmul(exact(terms[None]), exact(np.ones((n, 1)))), 1.1)
    hold(actual, coarse.matmul_over_samples(exact(terms[:, None]), exact(np.ones((n, 1)))), 1.1)


def test_what_is_certain_is_not_averaged() -> None:
    """Errors that all samples have in the same direction: as in `Arithmetic`, but for its u."""
    m = 100
    certain = Bounded(np.ones((m, 1)), np.full((m, 1), 1e-3))
    for total in (A.total(certain, axis=0), A.matmul_over_samples(certain, exact(np.ones((m, 1))))):
        assert float(total.bound.item()) == pytest.approx(m * 1e-3, rel=0.01)
    # A stored number and 1/m are such, and so is what is computed of means alone.
    assert not isinstance(A.number(0.1), Likely)
    tf32 = LikelyArithmetic("tf32", 1.0).matmul(exact(np.ones((1, 4))), exact(np.ones((4, 1))))
    assert float((tf32.bound - tf32.likely).item()) == pytest.approx(2.0**-10 * 4.0)
    assert np.isinf(A.multiply(exact([1e30]), exact([1e30])).bound)
    assert float(A.multiply(exact([1e-30]), exact([1e-30])).bound.item()) >= 1e-60


@pytest.mark.equation("EQ-BOUND-LIKELY-FACTOR")
def test_the_factor_is_that_of_the_stated_probability() -> None:
    for numbers, probability in ((1, 0.5), (1000, 1e-9), (10**7, 1e-3)):
        factor = likely_factor(numbers, probability)
        assert 2.0 * numbers * np.exp(-(factor**2) / 2.0) == pytest.approx(probability)
    # Random signs: the tail of the sum of n of them is below what the factor promises.
    tail = np.mean(np.abs(np.sum(signs(100), axis=1)) > likely_factor(1, 0.05) * 10.0)
    assert tail <= 0.05


def worst(step: reference.BoundedStep, actual: dict[str, Any]) -> float:
    cost, gradient = step.cost, step.gradient
    pairs = [
        *((actual[term], getattr(cost, term)) for term in ("reconstruction", "weight_decay")),
        (actual["sparsity"], cost.sparsity),
        *zip(actual["kernels"], gradient.kernels, strict=True),
        *zip(actual["biases"], gradient.biases, strict=True),
    ]
    return max(reference.usage(np.asarray(a, np.float64), e).worst for a, e in pairs)


@pytest.mark.parametrize("order", ["numpy", "sequential"])
@pytest.mark.parametrize("seed", range(5))
def test_a_right_computation_is_inside_and_close(order: str, seed: int) -> None:
    parameters, x, arguments = a_case(seed, np.float32, m=300, n=40, s=20, scale=1.0, rho=0.05)
    exact_x = x.astype(np.float64)
    step = reference.cost_and_gradient_with_bounds(
        parameters, exact_x, false_alarm=1e-9, **arguments
    )
    certain = reference.cost_and_gradient_with_bounds(parameters, exact_x, **arguments)
    actual = low_precision_step(parameters, x, np.float32, order, arguments)
    assert 1e-3 < worst(step, actual) <= 1.0
    for likely_bound, bound in zip(step.gradient.kernels, certain.gradient.kernels, strict=True):
        assert reference.resolution(likely_bound) < reference.resolution(bound)
    np.testing.assert_array_equal(step.cost.total.value, certain.cost.total.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "tanh", "output_activation": "linear", "symmetric": True, "epsilon": 1e-3},
        {"activation": "relu", "epsilon": 1e-2},
        {"from_logits": True},
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_every_network_has_likely_bounds_below_its_bounds(
    arguments: dict[str, Any], tied: bool
) -> None:
    parameters = reference.initialise((12, 7, 12), seed=0, tied=tied)
    x = np.random.default_rng(1).uniform(0.1, 0.9, size=(400, 12)).astype(np.float32)
    x = x.astype(np.float64)
    common: dict[str, Any] = {"rho": 0.3, "beta": 3.0, "weight_decay": 1e-3, **arguments}
    bounds = reference.cost_and_gradient_with_bounds(parameters, x, **common)
    found = reference.cost_and_gradient_with_bounds(parameters, x, false_alarm=1e-9, **common)
    for term in ("reconstruction", "sparsity", "total"):
        smaller, larger = getattr(found.cost, term), getattr(bounds.cost, term)
        assert smaller.value == larger.value
        assert 0.0 < smaller.bound < 1.2 * larger.bound, term
    for smaller, larger in zip(found.gradient.kernels, bounds.gradient.kernels, strict=True):
        assert 0.0 < reference.resolution(smaller) < 1.2 * reference.resolution(larger)


def test_a_probability_is_one() -> None:
    parameters, x, arguments = a_case(0, np.float32, m=2, n=2, s=2, scale=1.0, rho=0.05)
    for wrong in (-1e-9, 1.0, np.nan):
        with pytest.raises(ValueError, match="`false_alarm`"):
            reference.cost_and_gradient_with_bounds(parameters, x, false_alarm=wrong, **arguments)
    assert isinstance(A, Arithmetic)
    assert PRECISIONS["float32"].unit_roundoff == U
