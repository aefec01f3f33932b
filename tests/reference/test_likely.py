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
from reference import rounding
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
    # What is certain of one factor makes it larger for what is likely of the other.
    off = 0.25 * np.sign(Y), 0.25 * np.sign(Y + 3.0)
    moved = (Y + off[0] + e) * (Y + 3.0 + off[1] + same * e)
    a, b = (Likely(v, np.full((2, 2), 0.25 + 1e-4), np.full((2, 2), 1e-4)) for v in (Y, Y + 3.0))
    product = A.multiply(a, b)
    hold(moved - np.mean(moved, axis=0) + product.value, product)
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
    larger = 1.5 * factors
    moved = (X + of_row * np.sign(factors.T)) @ larger
    product = A.matmul(x, Bounded(factors, np.abs(factors) / 2.0))
    hold(moved - X @ larger + product.value, product)
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


@pytest.mark.equation("EQ-BOUND-LIKELY-STORE")
def test_what_is_a_number_of_the_format_is_kept_and_its_neighbour_is_rounded() -> None:
    between = 1.0 + 1.5 * 2.0**-24
    cast = A.cast(exact([0.5, between]))
    stored = A.store(between, 0.0)
    assert isinstance(cast, Likely)
    assert cast.bound.tolist() == [0.0, float(stored.bound)]
    assert cast.likely.tolist() == [0.0, float(stored.likely)]


@pytest.mark.equation("EQ-BOUND-LIKELY-LOG-MEAN")
def test_the_mean_of_logits() -> None:
    of_row = 1e-3 * signs(2, 1)
    fine = LikelyArithmetic("float64", 1.0)
    for z, sign in ((likely(X, 1e-3), 1.0), (likely(X, 1e-3).negative, -1.0)):
        moved = 1.0 / (1.0 + np.exp(-sign * (X + of_row)))
        log_rho_hat, shares = fine.log_mean_sigmoid(z)
        assert not isinstance(log_rho_hat, Likely)
        mean = Likely(log_rho_hat.value, log_rho_hat.bound, log_rho_hat.bound)
        hold(np.log(np.mean(moved, axis=1)), mean)
        # Of a share the likely part is that of its own sample, the certain one that of ρ̂.
        own = np.exp(np.log(moved) - log_rho_hat.value) / 2.0
        assert isinstance(shares, Likely)
        hold(own, shares)
        expected = shares.value * log_rho_hat.bound
        np.testing.assert_allclose(shares.bound - shares.likely, expected, rtol=0.01)


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


@pytest.mark.equation("EQ-BOUND-LIKELY-SUM")
@pytest.mark.parametrize("axis", [0, -1])
def test_a_sum_along_an_axis_has_the_terms_of_that_axis(axis: int) -> None:
    """√n roundoffs of n terms, and not of all that the array has."""
    arithmetic = LikelyArithmetic("float32", 8.0)
    sums = arithmetic.total(exact(np.ones((64, 64))), axis=axis).bound
    alone = arithmetic.total(exact(np.ones(64))).bound
    np.testing.assert_allclose(sums, np.full(64, alone), rtol=1e-12)


def test_what_is_certain_is_not_averaged() -> None:
    """Errors that all samples have in the same direction: as in `Arithmetic`, but for its u."""
    m = 100
    certain = Bounded(np.ones((m, 1)), np.full((m, 1), 1e-3))
    for total in (A.total(certain, axis=0), A.matmul_over_samples(certain, exact(np.ones((m, 1))))):
        assert float(total.bound.item()) == pytest.approx(m * 1e-3, rel=0.01)
    # A stored number and 1/m are such, and so is what is computed of means alone.
    assert not isinstance(A.number(0.1), Likely)
    thirds = A.total(A.divide_by_count(exact(np.ones((m, 1))), 3.0), axis=0)
    assert float((thirds.bound - thirds.likely).item()) == pytest.approx(m / 3.0 * U, rel=0.01)
    tf32 = LikelyArithmetic("tf32", 1.0).matmul(exact(np.ones((1, 4))), exact(np.ones((4, 1))))
    assert float((tf32.bound - tf32.likely).item()) == pytest.approx(2.0**-10 * 4.0)
    certain = LikelyArithmetic("tf32", 1.0).total(exact(np.ones(4)))
    assert float(certain.bound) < 1e-6
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


def largest_share(cases: int, *, equal_rows: bool) -> float:
    """Of a likely bound, in right float32 computations of random networks in both orders."""
    generator, largest = np.random.default_rng(0), 0.0
    for seed in range(cases):
        parameters, x, arguments = a_case(
            seed,
            np.float32,
            m=int(generator.integers(1, 400)),
            n=int(generator.integers(1, 60)),
            s=int(generator.integers(1, 30)),
            scale=float(generator.choice([0.3, 1.0, 3.0])),
            rho=float(generator.choice([0.01, 0.05, 0.3])),
        )
        if equal_rows:
            x = np.repeat(x[:1], len(x), axis=0)
        step = reference.cost_and_gradient_with_bounds(
            parameters, x.astype(np.float64), false_alarm=1e-9, **arguments
        )
        for order in ("numpy", "sequential"):
            actual = low_precision_step(parameters, x, np.float32, order, arguments)
            largest = max(largest, worst(step, actual))
    return largest


def test_right_computations_are_far_inside() -> None:
    """Also where rows are equal and the assumption is false; docs/bounds.md has more cases."""
    assert 0.01 < largest_share(40, equal_rows=False) < 0.25
    assert largest_share(20, equal_rows=True) <= 1.0


def test_equal_terms_may_be_suspicious_and_are_right() -> None:
    """Their roundings have the same sign for long: inside the bound, outside the likely one."""
    terms = np.full(200704, np.float32(0.1))
    actual = np.add.accumulate(terms)[-1]
    a = exact(terms.astype(np.float64))
    assert reference.usage(actual, Arithmetic("float32").total(a)).worst <= 1.0
    arithmetic = LikelyArithmetic("float32", likely_factor(1, 1e-9))
    assert reference.usage(actual, arithmetic.total(a)).worst > 1.0


@pytest.mark.parametrize("order", ["numpy", "sequential"])
@pytest.mark.parametrize("seed", range(3))
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


def test_what_all_samples_have_in_common_is_off_alike_in_their_sum() -> None:
    """The slope of the sparsity is one bfloat16 number: off once, and not in 400 samples apart."""
    parameters = reference.Parameters(
        [np.zeros((2, 1)), np.zeros((1, 2))], [np.full(1, 0.5), np.zeros(2)]
    )
    step = reference.cost_and_gradient_with_bounds(
        parameters,
        np.full((400, 2), 0.25),
        rho=0.05,
        beta=3.0,
        weight_decay=0.0,
        activation="relu",
        precision="bfloat16",
        false_alarm=1e-9,
    )
    once = likely_factor(10 * (400 * 6 + 4), 1e-9) * PRECISIONS["bfloat16"].unit_roundoff
    # The slope is stored once, and so is the sum of all; that of zero logits is far less.
    assert 2.0 * once < reference.resolution(step.gradient.biases[0]) < 2.4 * once


def test_a_probability_is_one() -> None:
    parameters, x, arguments = a_case(0, np.float32, m=2, n=2, s=2, scale=1.0, rho=0.05)
    for wrong in (-1e-9, 1.0, np.nan):
        with pytest.raises(ValueError, match="`false_alarm`"):
            reference.cost_and_gradient_with_bounds(parameters, x, false_alarm=wrong, **arguments)
    assert isinstance(A, Arithmetic)
    assert PRECISIONS["float32"].unit_roundoff == U


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("false_alarm", [0.0, 1e-9])
@pytest.mark.parametrize("samples", [12, 5], ids=["more samples", "as many samples as units"])
def test_rows_taken_in_blocks_have_the_same_bits(
    samples: int, precision: str, false_alarm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a block alone is flushed, overflows, or cannot be decided."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 5)) * 10.0 ** rng.integers(-50, 4, size=(samples, 1))
    parameters = reference.Parameters(
        rng.normal(size=(3, 5, 5)) * 10.0 ** rng.integers(-2, 2, size=(3, 5, 1)), np.zeros((3, 5))
    )

    def arrays(block: int) -> list[np.ndarray]:
        monkeypatch.setattr(rounding, "BLOCK", block)
        step = reference.cost_and_gradient_with_bounds(
            parameters,
            x,
            rho=0.1,
            beta=3.0,
            weight_decay=0.1,
            epsilon=1e-3,
            activation="tanh",
            symmetric=True,
            precision=precision,
            false_alarm=false_alarm,
        )
        parts = [step.cost.total, *step.gradient.kernels, *step.gradient.biases, step.x]
        return [array for part in parts for array in vars(part).values()]

    at_once, blocks = arrays(2**15), arrays(13)
    assert len(at_once) == len(blocks)
    for a, b in zip(at_once, blocks, strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_is_0_times_what_may_be_infinite_is_not_left_out() -> None:
    unknown = Bounded(np.ones((2, 2)), np.full((2, 2), np.inf))
    for arithmetic in (Arithmetic("float32"), A):
        assert np.isinf(arithmetic.matmul(exact(np.zeros((2, 2))), unknown).bound).all()
        assert np.isinf(arithmetic.matmul(unknown, exact(np.zeros((2, 2)))).bound).all()
