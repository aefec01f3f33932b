"""Each rule of error propagation by itself: right computations are inside, and nearly all is used.

For every method of `Arithmetic` the worst right computation that we can build: inputs at the ends
of what their bounds allow, roundings all to the same side, sums one term after the other in which
each addition loses half a unit, underflow flushed to zero, inverses stored first. It must be inside
the bound, and the bound must be at most `FACTOR` times its error: a rule that forgets a term fails
on one side, a rule that allows too much on the other. What no bound can decide must be infinite,
and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import reference
from reference.bounds import _sum_in_any_order, scaled_sum_of_squares
from reference.rounding import PRECISIONS, Arithmetic, Bounded, Precision, exact
from tests.reference.test_rounding import DTYPES

mpmath.mp.dps = 50
FORMATS = [*DTYPES, "tf32"]
# In float64 the oracle rounds as much as the computation that it judges: every u is two.
FACTOR = {name: 2.001 if name == "float64" else 1.001 for name in FORMATS}


def bounded(values: Any, errors: Any) -> Bounded:
    values = np.asarray(values, dtype=np.float64)
    return Bounded(values, np.broadcast_to(np.asarray(errors, dtype=np.float64), values.shape))


# --- one operation: exact fractions ----------------------------------------------------------


def ends(a: Bounded) -> tuple[Fraction, Fraction]:
    value, bound = Fraction(float(a.value)), Fraction(float(a.bound))
    return value - bound, value + bound


def hold_stored(name: str, corners: list[Fraction], expected: Bounded) -> None:
    """Hold a rule to what may be stored of exact results between the corners: rounded or flushed.

    A result below η is rounded to a multiple of 2uη, or becomes zero.
    """
    u, smallest = (
        Fraction(number) for number in (PRECISIONS[name].unit_roundoff, PRECISIONS[name].underflow)
    )
    value, bound = Fraction(float(expected.value)), Fraction(float(expected.bound))
    results = [x + side * u * max(abs(x), smallest) for x in corners for side in (1, -1)]
    may_be_flushed = min(corners) < smallest and max(corners) > -smallest
    if may_be_flushed:
        results.append(Fraction(0))
    largest = max(abs(result - value) for result in results)
    # A bound is itself a float64 number: right to a few roundoffs of it.
    assert largest <= bound * (1 + Fraction(2) ** -50), (float(largest), float(bound))
    at_most = Fraction(FACTOR[name]) * largest + u * smallest * may_be_flushed
    assert bound <= at_most, (float(largest), float(bound))


# Numbers of every format, so that no input needs rounding; errors from nothing to most of it.
numbers = st.integers(-(2**7) + 1, 2**7 - 1).map(lambda k: k / 2**5)
sizes = st.sampled_from([0.0, 2.0**-60, 2.0**-20, 2.0**-9, 0.25, 1.5])
names = st.sampled_from(FORMATS)

OPERATIONS: dict[str, tuple[Callable[..., Bounded], Callable[..., Fraction]]] = {
    "add": (Arithmetic.add, lambda x, y: x + y),
    "subtract": (Arithmetic.subtract, lambda x, y: x - y),
    "multiply": (Arithmetic.multiply, lambda x, y: x * y),
}


@pytest.mark.equation("EQ-BOUND-ADD", "EQ-BOUND-SUBTRACT", "EQ-BOUND-MULTIPLY", "EQ-BOUND-STORE")
@pytest.mark.parametrize("operation", OPERATIONS)
@given(name=names, x=numbers, y=numbers, x_error=sizes, y_error=sizes)
def test_operations(
    operation: str, name: str, x: float, y: float, x_error: float, y_error: float
) -> None:
    rule, function = OPERATIONS[operation]
    a, b = bounded(x, x_error), bounded(y, y_error)
    corners = [function(p, q) for p, q in itertools.product(ends(a), ends(b))]
    hold_stored(name, corners, rule(Arithmetic(name), a, b))


@pytest.mark.equation("EQ-BOUND-ADD", "EQ-GRADIENT-TIED")
@given(name=names, terms=st.tuples(numbers, numbers, numbers))
def test_three_terms_in_any_order(name: str, terms: tuple[float, float, float]) -> None:
    """The two uses of a tied kernel and its decay: the order in which most is rounded counts."""
    u, smallest = PRECISIONS[name].unit_roundoff, PRECISIONS[name].underflow
    corners = [
        x + y + side * Fraction(u) * max(abs(x + y), Fraction(smallest)) + z
        for x, y, z in itertools.permutations(map(Fraction, terms))
        for side in (1, -1)
    ]
    hold_stored(name, corners, _sum_in_any_order(Arithmetic(name), *map(exact, terms)))


@pytest.mark.equation("EQ-BOUND-STORE", "EQ-BOUND-CAST", "EQ-BOUND-NUMBER")
@pytest.mark.parametrize("name", FORMATS)
def test_storing_flushing_and_casting(name: str) -> None:
    arithmetic, precision = Arithmetic(name), PRECISIONS[name]
    values, errors = [0.0, 0.3, 0.9, 1.1, 3.0, -0.7], [0.0, 2.0**-40, 0.05, 0.4, 1.9]
    for x, error in itertools.product(values, errors):
        for scale in (precision.underflow, 1.0):
            a = bounded(x * scale, error * scale)
            hold_stored(name, list(ends(a)), arithmetic.store(a.value, a.bound))
            if a.bound > 0.0:
                hold_stored(name, list(ends(a)), arithmetic.cast(a))
    # Elementwise: what is exact and a number of the format is kept, its neighbour is rounded.
    between = 1.0 + 1.5 * precision.unit_roundoff
    cast = arithmetic.cast(bounded([0.5, between, 0.5], [0.0, 0.0, 0.125]))
    assert cast.value.tolist() == [0.5, between, 0.5]
    assert cast.bound[0] == 0.0
    assert cast.bound[1] == (0.0 if name == "float64" else arithmetic.store(between, 0.0).bound)
    assert cast.bound[2] == arithmetic.store(0.5, 0.125).bound
    for number in (0.25, -3.0, 0.0, precision.underflow, precision.largest):
        assert arithmetic.number(number).bound == 0.0
    if name != "float64":
        hold_stored(name, [Fraction(0.1)], arithmetic.number(0.1))
        assert np.isinf(arithmetic.number(precision.largest * 1.5).bound)
    # Less than the smallest normal number: it may be flushed.
    assert arithmetic.number(precision.underflow / 2).bound >= precision.underflow / 2


@pytest.mark.equation("EQ-BOUND-COUNT")
@given(
    name=names,
    x=numbers,
    error=sizes,
    count=st.sampled_from([1, 2, 3, 7, 100, 257, 10_000, 2.0 * 49]),
)
@example("float16", 1.0, 0.0, 20_000)
def test_division_by_a_count_and_by_its_stored_inverse(
    name: str, x: float, error: float, count: float
) -> None:
    a = bounded(x, error)
    u = Fraction(PRECISIONS[name].unit_roundoff)
    inverse = 1 / Fraction(count)
    inverses = [inverse, inverse * (1 + u), inverse * (1 - u)]
    if inverse < PRECISIONS[name].underflow:
        inverses.append(Fraction(0))
    corners = [end * factor for end in ends(a) for factor in inverses]
    hold_stored(name, corners, Arithmetic(name).divide_by_count(a, count))


@pytest.mark.equation("EQ-BOUND-STORE", "EQ-BOUND-SUM", "EQ-BOUND-MATMUL", "EQ-BOUND-SQUARES")
@pytest.mark.parametrize("name", FORMATS)
def test_what_may_overflow_is_undecidable_and_nothing_else(name: str) -> None:
    arithmetic, largest = Arithmetic(name), PRECISIONS[name].largest
    below, above = exact([largest]), bounded([largest], [largest * 2.0**-6])
    assert np.isfinite(arithmetic.store(below.value, below.bound).bound)
    assert np.isinf(arithmetic.store(above.value, above.bound).bound)
    assert np.isinf(arithmetic.add(below, below).bound)
    assert np.isinf(arithmetic.multiply(below, exact([2.0])).bound)
    assert np.isinf(arithmetic.sum_of_squares(exact([np.sqrt(largest) * 1.01])).bound)
    assert np.isfinite(arithmetic.subtract(below, below).bound)
    assert np.isfinite(arithmetic.sum_of_squares(exact([np.sqrt(largest) * 0.99])).bound)
    # A partial sum overflows in the accumulator, or it does not.
    terms = [largest, largest * 0.75, -largest]
    summed = arithmetic.total(exact(terms)).bound
    product = arithmetic.matmul(exact([terms]), exact(np.ones((3, 1)))).bound
    assert np.isfinite(summed) == np.all(np.isfinite(product)) == (name == "float16")
    # Nothing is known of what is multiplied with an unknown number, be it with zero.
    unknown = bounded([[1.0]], np.inf)
    assert np.isinf(arithmetic.multiply(unknown, exact([[0.0]])).bound)
    assert np.isinf(arithmetic.matmul(unknown, exact([[0.0]])).bound)
    assert np.isinf(arithmetic.total(unknown).bound)


# --- sums: numbers of the format, one after the other ----------------------------------------

TERMS = {name: 4000 if name in ("float16", "bfloat16") else 400 for name in FORMATS}


def stagnant(name: str, first: float = 2.0**10) -> np.ndarray:
    """Numbers whose sum in sequence stays at the first: each other one is lost, half a unit."""
    values = np.full(TERMS[name], first * PRECISIONS[name].accumulator_roundoff)
    values[0] = first
    return values


def squares_that_stand_still(name: str) -> np.ndarray:
    """Likewise, each the square of a number of the format."""
    if name == "float64":  # 2⁻⁴¹ is no square of a power of 2
        return np.concatenate([[2.0**12, 2.0**12], np.full(398, 2.0**-40)])
    return stagnant(name, 2.0**12)


def in_sequence(terms: np.ndarray, name: str) -> float:
    """The sum of exact terms one after the other, as the format accumulates."""
    accumulator = np.float64 if name == "float64" else np.float32
    assert np.array_equal(terms.astype(accumulator), terms)
    return float(np.add.accumulate(terms, dtype=accumulator)[-1])


def hold(actual: Any, true: Any, expected: Bounded, at_most: float) -> None:
    """Inside every bound; and each bound is at most so many times the error of this computation.

    The error is that from the true value: in float64 the oracle's value is off as well.
    """
    assert np.all(np.abs(actual - expected.value) <= expected.bound), (actual, expected)
    errors = np.abs(actual - np.asarray(true))
    assert np.all(expected.bound <= at_most * errors), (expected.bound / errors, at_most)


@pytest.mark.equation("EQ-BOUND-SUM")
@pytest.mark.parametrize("name", FORMATS)
def test_sums_in_sequence_over_either_axis(name: str) -> None:
    """n − 1 of the n roundings are lost, and one more where the sum is stored."""
    arithmetic, u = Arithmetic(name), PRECISIONS[name].unit_roundoff
    column, factor = stagnant(name), 1.01 * FACTOR[name]
    true, actual = math.fsum(column), in_sequence(column, name) * (1.0 - u)
    values = np.stack([column, column, column], axis=1)
    hold([actual] * 3, true, arithmetic.total(exact(values), axis=0), factor)
    hold([actual] * 3, true, arithmetic.total(exact(values.T), axis=1), factor)
    hold(actual, true, arithmetic.total(exact(column.reshape(-1, 8))), factor)
    # Inputs at the ends of their bounds.
    error = 2.0**-3
    ends = math.fsum(column + error) * (1.0 + u)
    hold(ends, true, arithmetic.total(bounded(column, error)), factor)
    # Every term flushed.
    tiny = np.full(50, 0.9 * arithmetic.accumulator.underflow)
    flushed = arithmetic.total(exact(tiny))
    assert flushed.value <= flushed.bound
    assert flushed.bound <= 2.2 * max(flushed.value, u * PRECISIONS[name].underflow)


@pytest.mark.equation("EQ-BOUND-SUM", "EQ-BOUND-RHO-HAT", "EQ-BOUND-SQUARES")
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("term", [0.1, 0.7, 1.0 / 3.0])
def test_long_sums_of_equal_terms_in_sequence(name: str, term: float) -> None:
    """The roundings of equal terms add up: 30,000 of them, where √n u would not do."""
    arithmetic, dtype = Arithmetic(name), DTYPES[name]
    values = np.full((30_000, 1), term).astype(dtype)
    accumulator = np.float64 if name == "float64" else np.float32
    total = np.add.accumulate(values.astype(accumulator), axis=0)[-1]
    a = exact(values.astype(np.float64))
    for actual, expected in (
        (total, arithmetic.total(a, axis=0)),
        (total / accumulator(30_000), arithmetic.mean_over_samples(a)),
    ):
        errors = np.abs(actual.astype(dtype).astype(np.float64) - expected.value)
        assert np.all(errors <= expected.bound)
        if name == "float32":
            assert np.all(errors > np.sqrt(30_000) * arithmetic.u * expected.value)


def rounded_down(terms: int, dtype: type) -> tuple[np.ndarray, float]:
    """Numbers a little above 1 whose sum in sequence loses nearly half a unit at each addition."""
    values, total = [dtype(1)], dtype(1)
    for _ in range(terms - 1):
        unit = float(np.spacing(dtype(total + dtype(1))))
        # The next number of the sum's format, and nearly half a unit: rounded down.
        term = dtype(math.ceil(1.0 / unit) * unit + 0.5 * unit * (1.0 - 2.0**-6))
        values.append(term)
        total = dtype(total + term)
    return np.array(values, dtype=np.float64), float(total)


@pytest.mark.equation("EQ-BOUND-SUM", "EQ-BOUND-MATMUL", "EQ-BOUND-RHO-HAT")
@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("terms", [5, 200, 1100])
def test_additions_that_are_all_off_by_half_a_unit(name: str, terms: int) -> None:
    """Nothing is left of a bound but S, a rounding of each term, and the last one."""
    values, actual = rounded_down(terms, DTYPES[name])
    arithmetic, true = Arithmetic(name), math.fsum(values)
    of_terms = true * (2.0 if terms > 5 else 4.0) * arithmetic.u
    lost = (true - actual) * FACTOR[name]
    total = arithmetic.total(exact(values[:, None]), axis=0)
    assert lost / FACTOR[name] <= total.bound <= 1.03 * lost + of_terms
    mean = arithmetic.mean_over_samples(exact(values[:, None]))
    assert lost / FACTOR[name] <= mean.bound * terms <= 1.03 * lost + 3.0 * of_terms
    # Of products only the sums below the last power of two are told apart.
    product = arithmetic.matmul(exact(values[None]), exact(np.ones((terms, 1))))
    assert lost / FACTOR[name] <= product.bound <= 1.5 * lost + of_terms


@pytest.mark.equation("EQ-BOUND-SUM", "EQ-BOUND-MATMUL")
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_sums_in_any_order_and_shape(name: str) -> None:
    """Of terms that are equal, of one sign or of both: by a random tree of additions."""
    arithmetic, dtype = Arithmetic(name), DTYPES[name]
    for seed in range(60):
        generator = np.random.default_rng(seed)
        n = int(generator.integers(2, 300))
        terms = (
            np.full(n, generator.uniform(1.0, 2.0)),
            generator.uniform(0.9, 1.0, n),
            np.sort(generator.normal(size=n)),
            generator.normal(size=n) * 10.0 ** generator.integers(-4, 4, n),
        )[seed % 4].astype(dtype)
        sums = list(terms)
        while len(sums) > 1:
            # The last is the longest: mostly a sequence, or mostly pairs.
            i = len(sums) - 1 if seed % 3 else int(generator.integers(len(sums)))
            first = sums.pop(i)
            sums.append(first + sums.pop(int(generator.integers(len(sums)))))
        values = terms.astype(np.float64)
        products = arithmetic.matmul(exact(values[None]), exact(np.ones((n, 1))))
        for bound in (arithmetic.total(exact(values)).bound, products.bound[0, 0]):
            assert abs(float(sums[0]) - math.fsum(values)) <= bound


@pytest.mark.equation("EQ-BOUND-SQUARES")
@pytest.mark.parametrize("name", FORMATS)
def test_sums_of_squares_in_sequence(name: str) -> None:
    """n terms, each square rounded, the sum rounded: all three are lost."""
    arithmetic, u = Arithmetic(name), PRECISIONS[name].unit_roundoff
    squares, factor = squares_that_stand_still(name), 1.01 * FACTOR[name]
    roots = np.sqrt(squares)
    assert np.array_equal(roots**2, squares)
    true = math.fsum(squares)
    actual = in_sequence(squares, name) * (1.0 - u) ** 2
    hold(actual, true, arithmetic.sum_of_squares(exact(roots.reshape(8, -1))), factor)
    ends = math.fsum((roots + 0.25) ** 2) * (1.0 + u) ** 2
    hold(ends, true, arithmetic.sum_of_squares(bounded(roots, 0.25)), factor)


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
@pytest.mark.parametrize("term", [0.1, 0.3, 1.0 / 3.0, 0.7])
def test_two_short_sums_are_held_to_their_lengths_and_a_long_one_is_outside(term: float) -> None:
    """Equal terms, of which all roundings add up: 448 and 448 of them, or 200,704."""
    arithmetic, c = Arithmetic("float32"), np.float32(1e-4)
    values = np.full((448, 448), np.float32(term))
    rows = np.add.accumulate(values * values, axis=1)[:, -1]
    in_rows = np.add.accumulate(c * rows)[-1]
    in_one = c * np.add.accumulate((values * values).ravel())[-1]
    a, factor = exact(values.astype(np.float64)), exact(float(c))
    expected = scaled_sum_of_squares(arithmetic, factor, a, "rows first")
    in_any_order = scaled_sum_of_squares(arithmetic, factor, a)
    assert reference.usage(in_rows, expected).worst <= 1.0
    assert reference.usage(in_one, in_any_order).worst <= 1.0
    assert reference.usage(in_one, expected).worst > 1.0
    terms = 448 + 448 + 8
    assert expected.bound <= terms * arithmetic.u * expected.value
    # Sums of 1, 2, ..., n equal terms, each off by more than u times its half.
    assert in_any_order.bound >= 448 * 448 * arithmetic.u * expected.value / 4.0


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
def test_rows_are_along_the_last_axis_whatever_the_rank() -> None:
    values = np.random.default_rng(0).uniform(size=(2, 3, 40))
    bounds = [
        scaled_sum_of_squares(Arithmetic("float32"), exact(0.5), exact(a), "rows first").bound
        for a in (values, values.reshape(6, 40))
    ]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-12)


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
def test_rows_that_may_be_flushed_are_not_lost() -> None:
    """λ/2 times a row of squares may underflow where λ/2 times the sum of all does not."""
    smallest = PRECISIONS["float32"].underflow
    root = np.sqrt(smallest)
    a, factor = exact(np.full((1000, 2), root)), exact(0.25)
    expected = scaled_sum_of_squares(Arithmetic("float32"), factor, a, "rows first")
    assert float(expected.value) > smallest
    assert reference.usage(0.0, expected).worst <= 1.0


@pytest.mark.equation("EQ-BOUND-MATMUL")
@pytest.mark.parametrize("name", FORMATS)
def test_products_of_matrices_in_sequence(name: str) -> None:
    """K terms of the accumulator: neither the rows nor the columns count, nor the format's u."""
    arithmetic, precision = Arithmetic(name), PRECISIONS[name]
    u, in_factor = precision.unit_roundoff, precision.factor_roundoff
    terms = stagnant(name)
    second = np.where(terms == terms[0], 2.0**5, 2.0**-8)
    first = terms / second
    assert precision.represents(first)
    assert precision.represents(second)
    signs = np.array([[1.0, 1.0, -1.0], [1.0, 1.0, -1.0]])
    a, b = np.stack([first, first]), np.stack([second, second, -second], axis=1)
    # In float64 |A||B| and its enlargement are off by K roundoffs of the oracle each.
    factor = 1.02 * (4.0 if name == "float64" else 1.0)
    true = signs * math.fsum(terms)
    actual = signs * in_sequence(terms, name) * (1.0 - in_factor) ** 2 * (1.0 - u)
    hold(actual, true, arithmetic.matmul(exact(a), exact(b)), factor)
    hold(actual.T, true.T, arithmetic.matmul(exact(b.T), exact(a.T)), factor)
    ends = math.fsum((first + 0.125) * (second + 0.0625)) * (1.0 + in_factor) ** 2 * (1.0 + u)
    expected = arithmetic.matmul(bounded(a, 0.125), bounded(b, 0.0625))
    hold(signs * ends, true, expected, factor)
    # Products that are flushed in the accumulator, not in the format.
    root = np.sqrt(arithmetic.accumulator.underflow) * 0.95
    flushed = arithmetic.matmul(exact(np.full((1, 50), root)), exact(np.full((50, 1), root)))
    assert flushed.value <= flushed.bound
    assert flushed.bound <= 2.5 * max(flushed.value, u * precision.underflow)


@pytest.mark.equation("EQ-BOUND-MATMUL")
def test_no_partial_sum_is_beyond_the_terms_of_one_sign() -> None:
    """Positive terms first, of which each addition loses half a unit; then what cancels them."""
    name = "float32"
    positive = stagnant(name)
    terms = np.append(positive, -positive[0])
    true = positive[1] * (len(positive) - 1)
    expected = Arithmetic(name).matmul(exact(terms[None]), exact(np.ones((len(terms), 1))))
    hold(in_sequence(terms, name), true, expected, 1.03)
    n_roundoffs = len(terms) * PRECISIONS[name].accumulator_roundoff * np.sum(np.abs(terms))
    assert expected.bound < 0.52 * n_roundoffs


@pytest.mark.equation("EQ-BOUND-MATMUL")
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_bias_may_be_the_first_of_the_sum(name: str) -> None:
    """Beside a bias that is 2¹⁰, each product of 2¹⁰u is lost: `addmm` may start from it."""
    terms = stagnant(name)
    arithmetic, bias = Arithmetic(name), exact(terms[:1])
    products = exact(terms[None, 1:]), exact(np.ones((len(terms) - 1, 1)))
    actual = in_sequence(terms, name)
    hold(actual, math.fsum(terms), arithmetic.affine(*products, bias), 1.03 * FACTOR[name])
    last = arithmetic.add(arithmetic.matmul(*products), bias)
    assert reference.usage([[actual]], last).worst > 1.0
    # Of a bias that is known to E alone, E may be the first: at its end each product is lost too.
    error, lost = 1.5 * terms[0], products[0].negative
    actual = in_sequence(np.append(error, -terms[1:]), name)
    assert actual == error
    moved = arithmetic.affine(lost, products[1], bounded([0.0], error))
    assert reference.usage([[actual]], moved).worst <= 1.0


@pytest.mark.equation("EQ-BOUND-RHO-HAT")
@pytest.mark.parametrize("name", FORMATS)
def test_means_in_sequence(name: str) -> None:
    """The sum, 1/m and their product are rounded; shifted, the sum 1 + a̅ is too."""
    arithmetic, u, m = Arithmetic(name), PRECISIONS[name].unit_roundoff, TERMS[name]
    column, signs, factor = stagnant(name, 2.0**15), np.array([1.0, -1.0]), 1.02 * FACTOR[name]
    a = np.stack([column, -column], axis=1)
    true = signs * math.fsum(column) / m
    mean = signs * in_sequence(column, name) * (1.0 - u) ** 3 / m
    hold(mean, true, arithmetic.mean_over_samples(exact(a)), factor)
    ends = (1.0 + mean) / 2.0 * (1.0 - u)
    shifted = arithmetic.mean_over_samples(exact(a), symmetric=True)
    hold(ends, (1.0 + true) / 2.0, shifted, 1.4 * factor)
    error = 0.5
    moved = bounded(a, error)
    mean = (true + signs * error) * (1.0 + u) ** 3
    hold(mean, true, arithmetic.mean_over_samples(moved), factor)
    ends = (1.0 + mean) / 2.0 * (1.0 + u)
    hold(
        ends, (1.0 + true) / 2.0, arithmetic.mean_over_samples(moved, symmetric=True), 1.1 * factor
    )
    # What may be flushed.
    tiny = arithmetic.mean_over_samples(exact([[0.9 * PRECISIONS[name].underflow]]))
    assert tiny.value <= tiny.bound <= 1.01 * tiny.value + u * PRECISIONS[name].underflow


@pytest.mark.equation("EQ-BOUND-RHO-HAT")
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_means_of_shifted_activations(name: str) -> None:
    """(1 + a)/2 of each activation, or of their mean: both inside, also where nearly all are −1."""
    dtype, u = DTYPES[name], PRECISIONS[name].unit_roundoff
    for a in (
        np.concatenate([[1.0], np.full(399, -1.0 + 2.0 * u)]),  # their shifted sum stands still
        np.tanh(np.random.default_rng(0).normal(size=3000) * 3.0),
        np.full(3000, -0.9),
    ):
        values = a.astype(dtype)[:, None]
        expected = Arithmetic(name).mean_over_samples(exact(values), symmetric=True)
        m, half = dtype(len(a)), dtype(0.5)
        each = np.add.accumulate((dtype(1) + values) * half, axis=0)[-1] * (dtype(1) / m)
        mean = np.add.accumulate(values, axis=0)[-1] / m
        for actual in (each, half + half * mean, (dtype(1) + mean) / dtype(2)):
            assert np.all(np.abs(actual - expected.value) <= expected.bound)
        # The bound of the sum is that of numbers up to ½, not up to 1.
        assert expected.bound <= len(a) * u * 0.5 * FACTOR[name] + 8.0 * u


# --- activations: fifty digits ----------------------------------------------------------------

MP_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "relu": lambda z: z if z > 0 else mpmath.mpf(0),
    "linear": lambda z: z,
}
LOGITS = [-30.0, -5.0, -0.5, 0.0, 2.0**-12, 0.75, 3.0, 9.0]
LOGIT_ERRORS = [0.0, 2.0**-30, 2.0**-10, 0.5, 4.0, 100.0]
# a(1 − a) has two roundings, of three at most beside 1 − a² (see EQ-BOUND-ACTIVATION).
SLOPES: dict[str, tuple[Callable[[Any, Any], list[Any]], float]] = {
    "sigmoid": (lambda a, u: [a * (1 - a) * (1 + u) ** 2, a * (1 - a) * (1 - u) ** 2], 1.02),
    "tanh": (
        lambda a, u: [
            f(a, s * u)
            for s in (1, -1)
            for f in (
                lambda a, u: (1 - a * a * (1 - u)) * (1 + u),
                lambda a, u: (1 - a) * (1 + a) * (1 + u) ** 3,
            )
        ],
        1.4,
    ),
}


@pytest.mark.equation("EQ-BOUND-ACTIVATION")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("function", MP_FUNCTIONS)
def test_activations_at_the_ends_of_their_logits(function: str, name: str) -> None:
    f, u = MP_FUNCTIONS[function], PRECISIONS[name].unit_roundoff
    roundoffs = 0.0 if function in ("relu", "linear") else 16.0
    grid = np.array(list(itertools.product(LOGITS, LOGIT_ERRORS)))
    activation, slope = Arithmetic(name).activation(function, bounded(grid[:, 0], grid[:, 1]))
    for i, (z, error) in enumerate(grid):
        a, slack = f(mpmath.mpf(z)), 2.01 * mpmath.mpf(u) * PRECISIONS[name].underflow
        results = [
            f(mpmath.mpf(z) + end) * (1 + side * roundoffs * u)
            for end in (error, -error)
            for side in (1, -1)
        ]
        if roundoffs and min(abs(result) for result in results) < PRECISIONS[name].underflow:
            results.append(mpmath.mpf(0))
        largest, bound = max(abs(result - a) for result in results), float(activation.bound[i])
        assert largest <= bound * (1 + 1e-15), (z, error)
        assert bound <= 1.001 * FACTOR[name] * largest + slack, (z, error)
        if function in SLOPES:
            computed, factor = SLOPES[function]
            right = [s for side in (1, -1) for s in computed(a + side * bound, u)]
            value = a * (1 - a) if function == "sigmoid" else 1 - a * a
            largest = max(abs(s - value) for s in right)
            if min(right) < PRECISIONS[name].underflow:
                largest = max(largest, value)
            assert largest <= slope.bound[i] * (1 + 1e-15), (z, error)
            at_most = factor * FACTOR[name] * largest + slack
            assert slope.bound[i] <= at_most, (z, error)


@pytest.mark.equation("EQ-BOUND-ACTIVATION")
def test_slopes_that_no_bound_decides() -> None:
    for name in FORMATS:
        arithmetic = Arithmetic(name)
        kinks = bounded([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
        _, slope = arithmetic.activation("relu", kinks)
        assert slope.value.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
        assert slope.bound.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
        _, slope = arithmetic.activation("linear", kinks)
        assert slope.value.tolist() == [1.0] * 7
        assert slope.bound.tolist() == [0.0] * 7
        unknown = bounded([-800.0, 0.0, 0.5, 800.0], np.inf)
        for function in MP_FUNCTIONS:
            a, slope = arithmetic.activation(function, unknown)
            assert np.all(np.isinf(a.bound))
            if function in SLOPES:
                assert np.all(np.isinf(slope.bound))
    # What float64 loses beside the logit is not lost.
    least, none = (Arithmetic("float64").activation("tanh", bounded(0.25, e)) for e in (1e-17, 0.0))
    assert least[0].bound > none[0].bound


# --- the divergence ---------------------------------------------------------------------------


def values_of_forms(rho: Any, rest: Any, r: Any) -> dict[str, Any]:
    """KL(ρ‖r) in the arithmetic of its arguments, as people write it; `rest` is their 1 − ρ."""
    unity, log = type(rho)(1), np.log
    return {
        "notes": rho * log(rho / r) + rest * log(rest / (unity - r)),
        "reciprocals": rho * log(rho * (unity / r)) + rest * log(rest * (unity / (unity - r))),
        "differences": rho * (log(rho) - log(r)) + rest * (log(rest) - log(unity - r)),
        "log1p": rho * (log(rho) - log(r)) + rest * (np.log1p(-rho) - np.log1p(-r)),
        "cross-entropy": (rho * log(rho) + rest * log(rest))
        - (rho * log(r) + rest * log(unity - r)),
    }


def slopes_of_forms(rho: Any, rest: Any, r: Any) -> dict[str, Any]:
    """KL′ likewise; the last is the first form of the value, differentiated step by step."""
    unity = type(rho)(1)
    ones, zeros = rho / r, rest / (unity - r)
    return {
        "notes": -rho / r + rest / (unity - r),
        "reciprocals": -rho * (unity / r) + rest * (unity / (unity - r)),
        "one denominator": (rest * r - rho * (unity - r)) / (r * (unity - r)),
        "difference": (r - rho) / (r * (unity - r)),
        "differentiated": (rest / zeros * rest) * (unity / ((unity - r) * (unity - r)))
        - (rho / ones * rho) * (unity / (r * r)),
    }


def near_both_ends(generator: np.random.Generator, size: int) -> np.ndarray:
    near = 10.0 ** generator.uniform(-9.0, -0.3, size=(2, size))
    return np.concatenate([near[0], 1.0 - near[1], generator.uniform(size=size)])


def means_for(generator: np.random.Generator, rho: float, epsilon: float, dtype: Any) -> Any:
    """ρ̂ in numbers of the format: near 0, near 1, near ρ, between; beyond if there is an edge."""
    beside = rho * (1.0 + 1e-3 * generator.normal(size=20))
    means = np.clip(np.concatenate([near_both_ends(generator, 40), beside]), 0.0, 1.0)
    if epsilon > 0.0:
        means = np.concatenate([means, generator.normal(size=40) * 30.0])
    return means.astype(dtype)


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE", "EQ-BOUND-TARGET")
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("end", [0.0, 1.0, -1.0])
def test_plain_forms_of_the_divergence(name: str, end: float) -> None:
    """ρ as the format stores it, 1 − ρ from that or by itself, any form, ρ anywhere in (0, 1).

    ρ̂ is a number of the format, exact or at an end of its bound; without an extension and with
    one, inside the edges and far beyond them.
    """
    arithmetic, dtype, unity = Arithmetic(name), DTYPES[name], DTYPES[name](1)
    generator = np.random.default_rng(0)
    decided = 0
    for rho in [*near_both_ends(generator, 12), 0.05, 0.5, 0.75]:
        last_edge = min(rho, 1.0 - rho, 0.49)
        for epsilon in (0.0, min(2.0**-10, last_edge), last_edge):
            means = means_for(generator, rho, epsilon, dtype)
            found = means.astype(np.float64)
            distance = generator.choice([4.0, 50.0], size=found.shape) * arithmetic.u
            centre = found * (1.0 + end * distance)
            centre = centre if epsilon > 0.0 else np.clip(centre, 0.0, 1.0)
            rho_hat = bounded(centre, np.abs(centre - found) * (1.0 + 2.0**-50))
            value = arithmetic.kl_divergence(rho, rho_hat, epsilon)
            slope = arithmetic.kl_derivative(rho, rho_hat, epsilon)
            decided += np.sum(np.isfinite(value.bound))
            with np.errstate(all="ignore"):
                edge = dtype(epsilon)
                r = np.clip(means, edge, dtype(unity - edge)) if epsilon > 0.0 else means
                for rest in (dtype(unity - dtype(rho)), dtype(1.0 - rho)):
                    slopes = slopes_of_forms(dtype(rho), rest, r)
                    # In float16 its squares and quotients leave the format.
                    chained = slopes.pop("differentiated")
                    if name != "float16":
                        kept = r.astype(np.float64) ** 2 >= arithmetic.precision.underflow
                        slopes["differentiated"] = np.where(kept, chained, slopes["notes"])
                    for form, actual in slopes.items():
                        assert reference.usage(actual.astype(np.float64), slope).worst <= 1.0, form
                    beyond = [dtype(0) * means]
                    if epsilon > 0.0:
                        beyond = [slopes[form] * (means - r) for form in ("notes", "reciprocals")]
                    for form, inside in values_of_forms(dtype(rho), rest, r).items():
                        for tangent in beyond:
                            used = reference.usage((inside + tangent).astype(np.float64), value)
                            assert used.worst <= 1.0, (form, rho, epsilon)
    assert decided > 2000


# Formats whose roundoffs float64 can play: the adversary below rounds less than they do.
PLAYED = ["float16", "bfloat16", "float32"]
TARGETS = [1e-3, 0.05, 0.5, 0.9, 0.999]
SIDES = (-1.0, 1.0)


def stored_error(name: str, number: float) -> float:
    """How far a number is moved when it is stored: not at all if the format has it."""
    precision = PRECISIONS[name]
    return 0.0 if precision.represents(np.array(number)) else precision.unit_roundoff * number


def right_slopes(name: str, rho: float, r: float, roundings: int) -> list[float]:
    """The least and the most KL′ that so many roundings make, and one of the sum."""
    u, error = PRECISIONS[name].unit_roundoff, stored_error(name, rho)
    slopes = []
    for side in SIDES:
        ones = (rho - side * error) * (1.0 - side * u) ** roundings / r
        zeros = (1.0 - rho + side * error) * (1.0 + side * u) ** (roundings + 1) / (1.0 - r)
        slopes.append((zeros - ones) * (1.0 + side * np.sign(zeros - ones) * u))
    return slopes


def right_halves(u: float, weight: float, error: float, r: float, stored: float) -> list[float]:
    """Values of w(log w − log r), by two logarithms or by that of a quotient.

    w is `stored` off more by its own rounding, and r as well, if it is 1 − ρ and 1 − r.
    """
    found = []
    for signs in itertools.product(SIDES, repeat=5):
        factor, inner, of_w, of_r, last = signs
        w = (weight + factor * error) * (1.0 + factor * stored)
        in_log = (weight + inner * error) * (1.0 + inner * stored)
        rest = r * (1.0 + of_r * stored)
        logs = np.log(in_log) * (1.0 + 8.0 * u * of_w), np.log(rest) * (1.0 + 8.0 * u * of_r)
        found.append(w * (logs[0] - logs[1]) * (1.0 + last * u) ** 2)
        quotient = in_log / rest * (1.0 + of_w * u) ** 2
        found.append(w * np.log(quotient) * (1.0 + 8.0 * u * last) * (1.0 + last * u))
    return found


def right_values(name: str, rho: float, r: float) -> list[float]:
    u, error = PRECISIONS[name].unit_roundoff, stored_error(name, rho)
    ones = right_halves(u, rho, error, r, 0.0)
    zeros = right_halves(u, 1.0 - rho, error, 1.0 - r, u)
    totals = [min(ones) + min(zeros), max(ones) + max(zeros)]
    return [total * (1.0 + side * u) for total in totals for side in SIDES]


def hold_worst(results: list[float], value: Any, bound: Any, at_most: float) -> None:
    largest = max(abs(result - float(value)) for result in results)
    assert largest <= bound
    assert bound <= at_most * largest, (float(bound) / largest, at_most)


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE", "EQ-BOUND-TARGET")
@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("rho", TARGETS)
def test_the_divergence_between_its_edges(name: str, rho: float) -> None:
    arithmetic = Arithmetic(name)
    if stored_error(name, rho) >= 1.0 - rho:
        assert np.isinf(arithmetic.kl_divergence(rho, exact(0.5), 0.0).bound)
        return
    for r in (2.0**-12, 0.04, rho, 0.7, 1.0 - 2.0**-8):
        for error in (0.0, 16.0 * arithmetic.u * r, min(r, 1.0 - r) / 8.0):
            if r + error >= 1.0:
                continue
            rho_hat = bounded(r, error)
            slope = arithmetic.kl_derivative(rho, rho_hat, 0.0)
            ends = (r - error, r + error)
            slopes = [x for end in ends for x in right_slopes(name, rho, end, 7)]
            hold_worst(slopes, slope.value, slope.bound, 1.05)
            value = arithmetic.kl_divergence(rho, rho_hat, 0.0)
            values = [x for end in ends for x in right_values(name, rho, end)]
            # Beside ρ the divergence is a square: its ends move it half as far as E max|KL′|.
            hold_worst(values, value.value, value.bound, 1.65 if error == 0.0 else 2.1)


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE", "EQ-BOUND-TARGET")
@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("epsilon", [2.0**-10, 1e-3, 2.0**-13 * 1.1])
def test_the_divergence_beyond_its_edges(name: str, epsilon: float) -> None:
    """With ρ beside an edge KL′ cancels there, and its rounding is all that is left of it."""
    arithmetic, u = Arithmetic(name), PRECISIONS[name].unit_roundoff
    of_lower = stored_error(name, epsilon)
    of_upper = of_lower + stored_error(name, 1.0 - epsilon)
    for rho in (epsilon * 1.001, 0.05, 0.9):
        for mean, edge, of_edge in (
            (-30.0, epsilon, of_lower),
            (-0.01, epsilon, of_lower),
            (1.5, 1.0 - epsilon, of_upper),
            (300.0, 1.0 - epsilon, of_upper),
        ):
            for error in (0.0, 0.125 * abs(mean)):
                rho_hat = bounded(mean, error)
                slope = arithmetic.kl_derivative(rho, rho_hat, epsilon)
                value = arithmetic.kl_divergence(rho, rho_hat, epsilon)
                if edge + of_edge >= 1.0:
                    assert np.isinf(slope.bound)
                    assert np.isinf(value.bound)
                    continue
                edges = (edge - of_edge, edge + of_edge)
                slopes = [x for r in edges for x in right_slopes(name, rho, r, 7)]
                hold_worst(slopes, slope.value, slope.bound, 1.05)
                values = [
                    inside + x * (mean + side * error - r) * (1.0 + other * u) ** 3
                    for r in edges
                    for x in right_slopes(name, rho, r, 7)
                    for inside in right_values(name, rho, r)
                    for side in SIDES
                    for other in SIDES
                ]
                if max(values) > arithmetic.precision.largest:
                    assert np.isinf(value.bound)
                else:
                    hold_worst(values, value.value, value.bound, 1.45)


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE", "EQ-BOUND-TARGET")
def test_where_the_divergence_is_undecidable_and_where_not() -> None:
    """In float32, case by case: what may be stored as 0 or 1, and its neighbour that may not."""
    arithmetic = Arithmetic("float32")
    smallest, u = 2.0**-126, 2.0**-24
    for rho, mean, error, epsilon, decidable in (
        # ρ: as float32 stores it.
        (1.0 - 2.0**-30, 0.5, 0.0, 0.0, False),
        (1.0 - u, 0.5, 0.0, 0.0, True),
        (1.0 - 2.5 * u, 0.5, 0.0, 0.0, True),
        (smallest / 2, 0.5, 0.0, 0.0, False),
        (smallest, 0.5, 0.0, 0.0, True),
        (smallest * 1.3, 0.5, 0.0, 0.0, True),
        # ρ̂ without an extension.
        (0.05, 0.0, 0.0, 0.0, False),
        (0.05, 1.0, 0.0, 0.0, False),
        (0.05, smallest / 2, 0.0, 0.0, False),
        (0.05, smallest, 0.0, 0.0, True),
        (0.05, 1.0 - 2.0**-53, 0.0, 0.0, True),
        (0.05, 0.25, 0.25, 0.0, False),
        (0.05, 0.25, 0.249, 0.0, True),
        (0.05, 0.75, 0.25, 0.0, False),
        (0.05, 0.75, 0.249, 0.0, True),
        # An edge that may be stored as 0 or 1, and whether ρ̂ reaches it.
        (0.05, -1.0, 0.0, smallest / 2, False),
        (0.05, 0.25, 0.25, smallest / 2, False),
        (0.05, 0.25, 0.249, smallest / 2, True),
        (0.05, -1.0, 0.0, 1e-9, True),
        (0.05, 2.0, 0.0, 1e-9, False),
        (0.05, 0.75, 0.25, 1e-9, False),
        (0.05, 0.75, 0.249, 1e-9, True),
        (0.05, 0.5, 3.0, 1e-6, True),
        (0.05, 2.0, 0.0, 1e-20, False),
        # Nothing is known of ρ̂.
        (0.05, 0.5, np.inf, 1e-6, False),
        (0.05, 0.5, np.inf, 0.0, False),
    ):
        case = (rho, mean, error, epsilon)
        for rule in (arithmetic.kl_divergence, arithmetic.kl_derivative):
            assert np.isfinite(rule(rho, bounded(mean, error), epsilon).bound) == decidable, case
    # A tangent that leaves the format.
    assert np.isinf(Arithmetic("float16").kl_divergence(0.5, exact(9000.0), 2.0**-4).bound)
    assert np.isfinite(Arithmetic("float16").kl_divergence(0.5, exact(8500.0), 2.0**-4).bound)


# --- from logits ------------------------------------------------------------------------------


def log_sigmoid(z: Any) -> Any:
    return np.minimum(z, type(z.flat[0])(0)) - np.log1p(np.exp(-np.abs(z)))


def log_means(z: Any, accumulator: Any) -> dict[str, Any]:
    """log ρ̂ in the arithmetic of z, summed in sequence: shifted by the largest, or plain."""
    dtype = type(z.flat[0])
    logs, m = log_sigmoid(z), np.log(dtype(len(z)))

    def summed(terms: Any) -> Any:
        return np.add.accumulate(terms.astype(accumulator), axis=0)[-1].astype(dtype)

    top = np.max(logs, axis=0)
    found = {"shifted": top + np.log(summed(np.exp(logs - top))) - m}
    if np.min(logs) > -10.0:
        found["plain"] = np.log(summed(dtype(1) / (dtype(1) + np.exp(-z))) / dtype(len(z)))
    return found


@pytest.mark.equation("EQ-BOUND-LOG-MEAN", "EQ-BOUND-KL-LOGITS")
@pytest.mark.parametrize("name", DTYPES)
@given(
    seed=st.integers(0, 2**16),
    m=st.sampled_from([1, 6, 300]),
    scale=st.sampled_from([0.1, 2.0, 100.0, 1e4]),
    rho=st.sampled_from([1e-6, 0.05, 0.5, 0.9, 0.9999, 1.0 - 1e-6]),
)
def test_plain_forms_from_logits(name: str, seed: int, m: int, scale: float, rho: float) -> None:
    arithmetic, dtype = Arithmetic(name), DTYPES[name]
    accumulator = np.float64 if name == "float64" else np.float32
    z = (np.random.default_rng(seed).normal(size=(m, 2)) * scale).astype(dtype)
    logits = exact(z.astype(np.float64))
    log_mean, shares = arithmetic.log_mean_sigmoid(logits)
    value, gradient = arithmetic.kl_divergence_from_logits(rho, logits)
    with np.errstate(all="ignore"):
        all_ones, all_zeros = log_means(z, accumulator), log_means(-z, accumulator)
        unity, of_rho = dtype(1), dtype(rho)
        for form, ones in all_ones.items():
            assert reference.usage(ones.astype(np.float64), log_mean).worst <= 1.0, form
            share = np.exp(log_sigmoid(z) - ones - np.log(dtype(m)))
            assert reference.usage(share.astype(np.float64), shares).worst <= 1.0, form
            zeros = all_zeros.get(form, all_zeros["shifted"])
            other = np.exp(log_sigmoid(-z) - zeros - np.log(dtype(m)))
            for rest in (unity - of_rho, dtype(1.0 - rho)):
                log_rest = np.log(rest)
                actual = of_rho * (np.log(of_rho) - ones) + rest * (log_rest - zeros)
                assert reference.usage(actual.astype(np.float64), value).worst <= 1.0, form
                up, down = np.exp(log_sigmoid(z)), np.exp(log_sigmoid(-z))
                actual = rest * (other * up) - of_rho * (share * down)
                assert reference.usage(actual.astype(np.float64), gradient).worst <= 1.0, form


@pytest.mark.equation("EQ-BOUND-LOG-MEAN", "EQ-BOUND-KL-LOGITS")
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_log_means_in_sequence(name: str) -> None:
    """A sum that stands still, over many samples: m − 1 of the m roundings are lost."""
    dtype, arithmetic, m = DTYPES[name], Arithmetic(name), 20_000
    z = np.full((m, 1), np.log(PRECISIONS[name].unit_roundoff * 0.999)).astype(dtype)
    z[0] = 100.0
    logits = exact(z.astype(np.float64))
    (ones, _), factor = arithmetic.log_mean_sigmoid(logits), 1.03 * FACTOR[name]
    true = reference.divergence.log_mean_exp(reference.log_sigmoid(logits.value))
    actual = log_means(z, dtype)["shifted"].astype(np.float64)
    hold(actual, true, ones, factor)
    rho = 0.75
    value, _ = arithmetic.kl_divergence_from_logits(rho, logits)
    zeros = log_means(-z, dtype)["shifted"].astype(np.float64)
    actual = rho * (np.log(rho) - actual) + (1.0 - rho) * (np.log(1.0 - rho) - zeros)
    hold(actual, reference.kl_divergence_from_logits(rho, logits.value), value, factor / rho)
    # Exponentials that are flushed, each beside the largest.
    few = exact(np.where(np.arange(2000) == 0, 30.0, np.log(0.9 * 2.0**-14))[:, None])
    flushed, _ = Arithmetic("float16").log_mean_sigmoid(few)
    assert np.abs(-np.log(2000.0) - flushed.value) <= flushed.bound
    assert flushed.bound <= 2.0 * np.abs(-np.log(2000.0) - flushed.value)
    # As many terms as one has roundoffs: nothing is left of their sum.
    coarse = Arithmetic(Precision("coarse", 2.0**-8, 2.0**-8, 2.0**-126, 1e38))
    for terms, decidable in ((250, True), (256, False)):
        expected, _ = coarse.log_mean_sigmoid(exact(np.zeros((terms, 1))))
        assert np.isfinite(expected.bound).tolist() == [decidable]


@pytest.mark.equation("EQ-BOUND-LOG-MEAN", "EQ-BOUND-KL-LOGITS")
@pytest.mark.parametrize("error", [2.0**-10, 0.125, 2.0, 50.0])
@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
def test_logits_at_the_ends_of_their_bounds(name: str, error: float) -> None:
    arithmetic = Arithmetic(name)
    z = np.array([[-3.0, 2.0], [0.5, 5.0], [1.0, -40.0]])
    logits = bounded(z, error)
    log_mean, shares = arithmetic.log_mean_sigmoid(logits)
    value, gradient = arithmetic.kl_divergence_from_logits(0.25, logits)
    moves = [np.full(z.shape, error), np.full(z.shape, -error)]
    for i in range(3):
        alone = np.full(z.shape, -error)
        alone[i] = error
        moves += [alone, -alone]
    errors: dict[str, Any] = {}
    for move in moves:
        logs = reference.log_sigmoid(z + move)
        mean = reference.divergence.log_mean_exp(logs)
        found = {
            "mean": (mean, log_mean),
            "shares": (np.exp(logs - mean) / 3.0, shares),
            "value": (reference.kl_divergence_from_logits(0.25, z + move), value),
            "gradient": (reference.kl_divergence_from_logits_derivative(0.25, z + move), gradient),
        }
        for quantity, (actual, expected) in found.items():
            distance = np.abs(actual - expected.value)
            assert np.all(distance <= expected.bound * (1.0 + 2.0**-50)), quantity
            errors[quantity] = np.maximum(errors.get(quantity, 0.0), distance)
    # All logits at one end: nothing is given away. Rules for products do not see what cancels.
    if name != "bfloat16":
        assert np.all(log_mean.bound <= 1.3 * errors["mean"])
    if name != "bfloat16" and error < 1.0:
        assert np.all(shares.bound <= 3.0 * errors["shares"])
        assert np.all(value.bound <= 6.0 * errors["value"])
        assert np.all(gradient.bound <= 7.0 * errors["gradient"])
    assert np.all(shares.bound <= 1.001)
    assert np.all(log_mean.bound <= 1.1 * error + 0.9)
    unknown = bounded(z, np.where(z == 5.0, np.inf, 0.0))
    log_mean, shares = arithmetic.log_mean_sigmoid(unknown)
    value, gradient = arithmetic.kl_divergence_from_logits(0.25, unknown)
    for expected in (log_mean, value):
        assert np.isinf(expected.bound).tolist() == [False, True]
    for expected in (shares, gradient):
        assert np.isinf(expected.bound[1]).tolist() == [False, True]
        assert np.all(np.isfinite(expected.bound[:, 0]))


@pytest.mark.equation("EQ-BOUND-LOG-MEAN", "EQ-BOUND-KL-LOGITS")
@pytest.mark.parametrize("name", PLAYED)
def test_log_means_of_few_samples(name: str) -> None:
    """What the elementary functions alone may do: the bound is at most five times that."""
    arithmetic, u = Arithmetic(name), PRECISIONS[name].unit_roundoff
    for z in (-30.0, -4.0, 0.0, 6.0):
        log_mean, _ = arithmetic.log_mean_sigmoid(exact([[z]]))
        log = float(reference.log_sigmoid(z))
        # log σ(z) by itself, or σ(z) off by 16 roundoffs and its logarithm by 8.
        right = max(16.0 * abs(log), 16.0 + 8.0 * abs(log)) * u
        assert right <= log_mean.bound[0] <= 5.0 * right
    for rho in (1.0 - 2.0**-26, 2.0**-150):
        for expected in arithmetic.kl_divergence_from_logits(rho, exact([[0.5], [1.0]])):
            assert np.all(np.isinf(expected.bound)) == (rho != 2.0**-150 or name != "float64")


# --- what is put together of them -------------------------------------------------------------

PENALTY: dict[str, Any] = {"rho": 0.05, "beta": 3.0}


def wide(name: str) -> str:
    """Penalties and sums of squares are at least float32."""
    return "float32" if name in ("float16", "bfloat16") else name


@pytest.mark.equation("EQ-BOUND-SPARSITY")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [None, 3000])
def test_the_sparsity_term_of_a_long_batch(name: str, kept: int | None) -> None:
    """The sum in ρ̂ stands still: nearly all of what value and gradient may be off is that.

    The term is at least float32; its gradient is stored in the format.
    """
    u, shape, m = PRECISIONS[name].unit_roundoff, (8, 500, 2), kept or 4000
    column = np.full(4000, stagnant(wide(name), 0.5)[1])
    column[0] = 0.5
    a = np.stack([column, column], axis=1).reshape(shape)
    valid = np.arange(4000).reshape(shape[:-1]) < m
    value, gradient = reference.kl_sparsity_with_bounds(
        a, **PENALTY, mask=valid if kept else None, precision=name
    )
    low, mean = in_sequence(column[:m], wide(name)) / m, math.fsum(column[:m]) / m
    kl, slope = reference.kl_divergence, reference.kl_divergence_derivative
    factor = 1.1 * (2.0 if name == "float64" else 1.0)
    hold(6.0 * kl(0.05, low), 6.0 * kl(0.05, mean), value, factor)
    assert gradient.bound.shape == gradient.value.shape == shape
    actual, true = 3.0 / m * slope(0.05, low) * (1.0 + u), 3.0 / m * slope(0.05, mean)
    hold(actual, true, Bounded(gradient.value[valid], gradient.bound[valid]), factor)
    assert np.all(gradient.value[~valid] == 0.0)
    assert np.all(gradient.bound[~valid] == 0.0)


@pytest.mark.equation("EQ-BOUND-SPARSITY")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("epsilon", [0.0, 2.0**-10])
def test_the_symmetric_term_is_the_plain_one_of_shifted_activations(
    name: str, epsilon: float
) -> None:
    """(1 + a)/2 by hand has the same bound, but for the roundings of the shift; half the slope."""
    shifted = np.random.default_rng(0).uniform(0.25, 0.75, size=(64, 3)).astype(np.float16)
    arguments: dict[str, Any] = {**PENALTY, "epsilon": epsilon, "precision": name}
    plain = reference.kl_sparsity_with_bounds(shifted, **arguments)
    symmetric = reference.kl_sparsity_with_bounds(
        2.0 * shifted.astype(np.float64) - 1.0, symmetric=True, **arguments
    )
    for plain_term, other, half in zip(plain, symmetric, (1.0, 0.5), strict=True):
        assert np.allclose(other.value, half * plain_term.value, rtol=1e-12)
        assert np.all(half * plain_term.bound <= other.bound * (1.0 + 1e-9))
        assert np.all(other.bound <= 1.1 * half * plain_term.bound)


@pytest.mark.equation("EQ-BOUND-SPARSITY", "EQ-BOUND-COST")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("from_logits", [False, True])
def test_beta_of_zero_leaves_nothing(name: str, from_logits: bool) -> None:
    """Exactly 0, and decidable, unless 0 may be multiplied with something infinite."""
    a = np.full((4, 3), 0.25)
    for part in reference.kl_sparsity_with_bounds(
        a, 0.05, 0.0, from_logits=from_logits, precision=name
    ):
        assert np.all(part.value == 0.0)
        assert np.all(part.bound == 0.0)
    dead = np.where(np.arange(3) == 1, 0.0, a)
    value, gradient = reference.kl_sparsity_with_bounds(dead, 0.05, 0.0, precision=name)
    assert value.value == 0.0
    assert np.isinf(value.bound)
    assert np.all(gradient.value == 0.0)
    assert np.isinf(gradient.bound).tolist() == [[False, True, False]] * 4
    parameters = reference.initialise((3, 2, 3), seed=0)
    arguments: dict[str, Any] = {"rho": 0.1, "weight_decay": 0.0, "from_logits": from_logits}
    without = reference.cost_and_gradient_with_bounds(
        parameters, a, beta=0.0, precision=name, **arguments
    )
    assert without.cost.sparsity.value == without.cost.sparsity.bound == 0.0
    least = reference.cost_and_gradient_with_bounds(
        parameters, a, beta=1e-300, precision=name, **arguments
    )
    for part, other in zip(without.gradient.kernels, least.gradient.kernels, strict=True):
        assert np.all(np.isfinite(part.bound))
        assert np.all(part.bound <= other.bound * (1.0 + 1e-9))


@pytest.mark.equation("EQ-BOUND-RECONSTRUCTION")
@pytest.mark.parametrize("name", FORMATS)
def test_the_reconstruction_of_many_features(name: str) -> None:
    """Differences and squares of at least float32, summed in sequence, divided by 2m."""
    squares, m = squares_that_stand_still(wide(name)), 4
    u = PRECISIONS[wide(name)].unit_roundoff
    output = 0.5 + np.sqrt(squares).reshape(m, 2, -1)
    expected = reference.reconstruction_with_bounds(output, 0.5 + 0.0 * output, precision=name)
    # Twice the rounding of a difference, and one of the square, the sum, 1/2m and the product.
    actual = in_sequence(squares, wide(name)) / (2 * m) * (1.0 - u) ** 6
    hold(actual, math.fsum(squares) / (2 * m), expected, 1.01 * FACTOR[wide(name)])


@pytest.mark.equation("EQ-BOUND-L1L2")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("factor", [0.3, 0.25, -0.25])
def test_l1_and_l2_of_many_weights(name: str, factor: float) -> None:
    u, at_most = PRECISIONS[name].unit_roundoff, 1.02 * FACTOR[name]
    stored = 1.0 - abs(stored_error(name, factor) / factor)
    terms = stagnant(name, 2.0**12)
    squares = squares_that_stand_still(name)
    for weights, l1, l2, sums, roundings in (
        (terms, factor, 0.0, terms, 2),
        (np.sqrt(squares), 0.0, factor, squares, 4),
    ):
        signed = np.where(np.arange(len(weights)) % 3 == 0, -weights, weights).reshape(-1, 8)
        value, gradient = reference.l1_l2_with_bounds(signed, l1, l2, precision=name)
        # The squares, their sum, its product, and what it is added to.
        actual = factor * stored * in_sequence(sums, name) * (1.0 - u) ** roundings
        hold(actual, factor * math.fsum(sums), value, at_most)
        true = l1 * np.sign(signed) + 2.0 * l2 * signed
        hold(true * stored * (1.0 - u) ** (roundings // 2), true, gradient, 1.5 * at_most)
    nothing, no_gradient = reference.l1_l2_with_bounds(signed, 0.0, 0.0, precision=name)
    assert nothing.value == nothing.bound == 0.0
    assert np.all(no_gradient.bound == 0.0)
    if name in PLAYED:  # both: their sum is rounded too
        value, gradient = reference.l1_l2_with_bounds([[1.0, -3.0]], 0.25, 0.5, precision=name)
        hold(6.0 * (1.0 + u) ** 3, 6.0, value, 2.0)
        hold(np.array([1.25, -3.25]) * (1.0 + u) ** 2, [1.25, -3.25], gradient, 1.02)
    # Squares that leave the format say nothing of Σ|w|.
    many = np.full(5, np.sqrt(PRECISIONS[name].largest))
    value, gradient = reference.l1_l2_with_bounds(many, 0.25, 0.0, precision=name)
    assert np.isfinite(value.bound)
    value, gradient = reference.l1_l2_with_bounds(many, 0.25, 0.25, precision=name)
    assert np.isinf(value.bound)
    assert np.all(np.isfinite(gradient.bound))


@pytest.mark.equation("EQ-BOUND-ORTHOGONAL")
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonality_of_long_vectors(name: str, mode: str) -> None:
    """In the format itself, every sum in sequence; the bound is not far from what that is off."""
    dtype = DTYPES[name]
    accumulator = np.float64 if name == "float64" else np.float32
    largest = 0.0
    for seed in range(5):
        generator = np.random.default_rng(seed)
        rows = generator.uniform(0.5, 1.0, size=(3, 500)).astype(dtype)
        rows[:, 0] *= dtype(16)
        weights = rows.astype(np.float64) if mode == "rows" else rows.T.astype(np.float64)
        value, gradient = reference.orthogonal_with_bounds(weights, 0.5, mode, precision=name)
        assert gradient.bound.shape == gradient.value.shape == weights.shape

        def summed(terms: Any) -> Any:
            total = np.add.accumulate(terms.astype(accumulator), axis=-1)
            return total[..., -1].astype(dtype)

        lengths = np.sqrt(summed(rows * rows))
        vectors = rows / lengths[:, None]
        cosines = summed(vectors[:, None] * vectors[None])
        actual = dtype(0.5) * summed(np.abs(cosines[np.triu_indices(3, 1)])) / dtype(3)
        used = reference.usage(np.float64(actual), value)
        largest = max(largest, used.worst)
        assert used.worst <= 1.0
        pull = np.array([vectors[[j for j in range(3) if j != i]].sum(axis=0) for i in range(3)])
        inside = summed(pull * vectors)[:, None] * vectors
        actual = dtype(1) / dtype(6) / lengths[:, None] * (pull - inside)
        actual = actual if mode == "rows" else actual.T
        assert reference.usage(actual.astype(np.float64), gradient).worst <= 1.0
    assert largest > 0.0
    if name in PLAYED:
        # Half of two sums of 500 squares; 499 sums of products that are below 1, so that each is
        # rounded as a half is; a sum of 9 and one rounding more; and 21 other roundings.
        u, u_accumulator = Arithmetic(name).u, Arithmetic(name).u_accumulator
        relative = (510.0 + 499.0 * 0.5 / (value.value / 0.5)) * u_accumulator + 21.0 * u
        assert 0.98 * relative * value.value <= value.bound <= 1.06 * relative * value.value


@pytest.mark.equation("EQ-BOUND-ORTHOGONAL")
def test_signs_of_cosines_that_no_bound_decides() -> None:
    """A cosine within its bound of 0 may have either sign; and with it the gradient."""
    weights, flipped = (
        np.array([[1.0, 1.0, 0.0], [1.0, -1.0 + side * 2.0**-25, 0.0], [1.0, 0.5, 1.0]])
        for side in SIDES
    )
    _, gradient = reference.orthogonal_with_bounds(weights, 0.5)
    other = reference.orthogonal_gradient(flipped, 0.5)
    difference = np.abs(other - gradient.value)
    assert np.max(difference) > 0.1
    assert np.all(difference <= gradient.bound)
    assert np.all(gradient.bound[:2] <= 2.1 * np.max(difference))
    assert np.all(gradient.bound[2] < 1e-5)
    apart = np.array([[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [1.0, 0.5, 1.0]])
    assert np.all(reference.orthogonal_with_bounds(apart, 0.5)[1].bound < 1e-5)


@pytest.mark.equation("EQ-BOUND-DESCENT")
@pytest.mark.parametrize("name", FORMATS)
def test_descent_adds_a_rounding_a_step(name: str) -> None:
    """Without a gradient the weights stay; a step stores α, its product and their difference."""
    parameters = reference.Parameters([[[0.75]]], [[0.0]])
    arguments: dict[str, Any] = {
        "rho": 0.5,
        "beta": 0.0,
        "weight_decay": 0.5,
        "activation": "linear",
        "y": [[1.5]],
        "precision": name,
    }
    x = [[2.0]]  # the reconstruction is right: the decay is all there is
    stay = reference.gradient_descent_with_bounds(
        parameters, x, steps=0, learning_rate=0.3, **arguments
    )
    assert stay.kernels[0].value == 0.75
    assert stay.kernels[0].bound == 0.0
    reached = reference.gradient_descent_with_bounds(
        parameters, x, steps=1, learning_rate=0.3, **arguments
    )
    step = reference.cost_and_gradient_with_bounds(parameters, x, **arguments)
    slope, error = step.gradient.kernels[0].value, step.gradient.kernels[0].bound
    u = PRECISIONS[wide(name)].unit_roundoff
    stored = 1.0 + stored_error(wide(name), 0.3) / 0.3
    true = 0.75 - 0.3 * slope
    actual = (0.75 - 0.3 * stored * (slope + error) * (1.0 + u)) * (1.0 - u)
    other = (0.75 - 0.3 / stored * (slope - error) * (1.0 - u)) * (1.0 + u)
    furthest = np.maximum(np.abs(actual - true), np.abs(other - true))
    assert np.all(furthest <= reached.kernels[0].bound)
    assert np.all(reached.kernels[0].bound <= 1.1 * FACTOR[wide(name)] * furthest)
    # The bound of a step enters the gradient of the next: α(x² + λ) = 36 times, and 1 less.
    first, second = (
        reference.gradient_descent_with_bounds(
            parameters, x, steps=steps, learning_rate=8.0, **arguments
        )
        .kernels[0]
        .bound
        for steps in (1, 2)
    )
    assert 35.0 * first <= second <= 2.0 * 37.0 * first


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", ["bfloat16", "float32", "tf32", "float64"])
def test_the_gradient_of_a_long_batch(name: str) -> None:
    """One linear layer, m samples: the sums over samples stand still in the accumulator."""
    u, m = PRECISIONS[name].unit_roundoff, 512
    terms = stagnant(name)[:m] if len(stagnant(name)) > m else stagnant(name)
    terms = np.concatenate([terms, np.full(m - len(terms), terms[1])])
    # δ = (h − y)/m with h = 0: the errors are −y, and x is 1.
    x, y = np.ones((m, 1)), terms[:, None] * 2.0**-10
    parameters = reference.Parameters([[[0.0, 0.0]]], [[0.0, 0.0]])
    step = reference.cost_and_gradient_with_bounds(
        parameters,
        x,
        y=np.concatenate([y, -y], axis=1),
        rho=0.5,
        beta=0.0,
        weight_decay=0.0,
        activation="linear",
        precision=name,
    )
    total, true = in_sequence(terms, name) * 2.0**-10 / m, math.fsum(terms) * 2.0**-10 / m
    # Stored: the difference (twice), 1/m and the product (at least float32), δ, δ f′, the sum.
    stored_wide = (1.0 - PRECISIONS[wide(name)].unit_roundoff) ** 4
    shortened = (1.0 - PRECISIONS[name].factor_roundoff) ** 2
    signs = np.array([-1.0, 1.0])
    factor = 1.05 * FACTOR[name] * (2.0 if name == "float64" else 1.0)
    actual = signs * total * stored_wide * (1.0 - u) ** 3
    hold(actual, signs * true, step.gradient.biases[0], factor)
    hold([actual * shortened], [signs * true], step.gradient.kernels[0], factor)


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tied_decay", [1, 2])
def test_the_decay_of_many_weights(name: str, tied_decay: int) -> None:
    squares = squares_that_stand_still(wide(name))[:400]
    kernel = np.sqrt(squares).reshape(20, 20)
    u, decay = PRECISIONS[wide(name)].unit_roundoff, 0.3
    parameters = reference.Parameters([kernel], [np.zeros(20), np.zeros(20)], tied=True)
    step = reference.cost_and_gradient_with_bounds(
        parameters,
        np.zeros((1, 20)),
        rho=0.5,
        beta=0.0,
        weight_decay=decay,
        activation="linear",
        epsilon=0.25,
        tied_decay=tied_decay,
        precision=name,
    )
    stored = 1.0 - stored_error(wide(name), decay / 2.0 * tied_decay) / (decay / 2.0 * tied_decay)
    actual = decay / 2.0 * tied_decay * stored * in_sequence(squares, wide(name)) * (1.0 - u) ** 3
    true = decay / 2.0 * tied_decay * math.fsum(squares)
    hold(actual, true, step.cost.weight_decay, 1.02 * FACTOR[wide(name)])
    # A product and two sums: beside the largest weight what the zeros of the two uses may be is
    # nothing, but the decay may be added before either of them.
    actual = decay * tied_decay * stored * kernel[0, 0] * (1.0 - u) ** 3
    largest = Bounded(*(part[0, 0] for part in vars(step.gradient.kernels[0]).values()))
    hold(actual, decay * tied_decay * kernel[0, 0], largest, 1.25 * FACTOR[wide(name)])


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_inputs_kernels_and_biases_are_stored_in_the_format(name: str) -> None:
    """One product of numbers that no format has, and one sum: each is rounded before and after."""
    u, number = PRECISIONS[name].unit_roundoff, 1.0 + 0.3 * PRECISIONS[name].unit_roundoff
    for bias, roundings in ((0.0, 4), (8.0 * number, 2)):
        parameters = reference.Parameters([[[number]]], [[bias]])
        step = reference.cost_and_gradient_with_bounds(
            parameters,
            [[number]],
            y=[[0.0]],
            rho=0.5,
            beta=0.0,
            weight_decay=0.0,
            activation="linear",
            precision=name,
        )
        h = number * number + bias
        # The product has four roundings (of both factors, itself, the sum), the bias two.
        moved = h + 2.0 * u * number * number if roundings == 2 else h
        actual = 0.5 * (moved * (1.0 + u) ** roundings) ** 2
        hold(actual, 0.5 * h * h, step.cost.reconstruction, 1.1)


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", FORMATS)
def test_a_tied_kernel_has_the_bounds_of_both_its_uses(name: str) -> None:
    tied = reference.initialise((5, 3, 5), seed=0, tied=True)
    untied = reference.Parameters(tied.layer_kernels, tied.biases)
    x = np.random.default_rng(0).uniform(size=(6, 5))
    arguments: dict[str, Any] = {"rho": 0.1, "beta": 3.0, "weight_decay": 0.0, "precision": name}
    (of_both,) = reference.cost_and_gradient_with_bounds(tied, x, **arguments).gradient.kernels
    first, second = reference.cost_and_gradient_with_bounds(untied, x, **arguments).gradient.kernels
    assert np.allclose(of_both.value, first.value + second.value.T, rtol=1e-12)
    together = first.bound + second.bound.T
    assert np.all(together * (1.0 - 1e-9) <= of_both.bound)
    rounding = PRECISIONS[wide(name)].unit_roundoff * (np.abs(of_both.value) + together)
    assert np.all(of_both.bound <= together + 4.0 * rounding)


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize(("from_logits", "roundings"), [(True, 3), (False, 6)])
def test_the_penalty_reaches_the_delta_in_the_format(
    name: str, from_logits: bool, roundings: int
) -> None:
    """The slope is float32, and is stored in the format before it is added to the delta.

    From logits: stored, added, summed. Else it is multiplied too, with a(1 − a): three more.
    """
    u = PRECISIONS[name].unit_roundoff
    parameters = reference.Parameters(
        [np.zeros((3, 2)), np.zeros((2, 3))], [np.full(2, 2.0**-10), np.zeros(3)]
    )
    step = reference.cost_and_gradient_with_bounds(
        parameters,
        np.zeros((1, 3)),
        rho=0.25,
        beta=64.0,
        weight_decay=0.0,
        output_activation="linear",
        from_logits=from_logits,
        precision=name,
    )
    slope = step.gradient.biases[0]
    assert np.all(slope.bound >= 0.99 * roundings * u * np.abs(slope.value))
    # Without logits the activation is off by 16 roundoffs, and KL′ moves with it.
    of_activation = 0.0 if from_logits else 16.0 * u * 64.0 * 0.25 * 4.0
    at_most = 1.2 * roundings * u * np.abs(slope.value) + of_activation
    assert np.all(slope.bound <= at_most)


# --- the formulas once more, with more digits ---------------------------------------------------
#
# What the adversaries above cannot build is held here: the worst of all right computations, by the
# textbook's model, for sums over long axes, inputs at the ends of their bounds (errors larger than
# the values among them) and results that may be flushed. A rule is at least that, and no more.

Wide = np.longdouble
LENGTHS = (1, 2, 1000)
# Relative to the numbers; 2⁻⁵⁴ is lost beside them in float64, 30 leaves nothing of them.
UNCERTAINTIES = (0.0, 2.0**-54, 2.0**-12, 30.0)


def roundoffs(name: str) -> tuple[Any, Any]:
    """u and u_acc, with that of the oracle."""
    precision, oracle = PRECISIONS[name], Wide(2.0**-53)
    return Wide(precision.unit_roundoff) + oracle, Wide(precision.accumulator_roundoff) + oracle


def stored_worst(name: str, value: Any, error: Any) -> Any:
    """Higham, eq (2.8): fl(x) = x(1 + δ) + η′, of every x in value ± error."""
    (u, _), precision = roundoffs(name), PRECISIONS[name]
    size = np.abs(value)
    moved = error + u * (size + error)
    flushed = np.maximum(moved + u * precision.underflow, size)
    worst = np.where(size - moved < precision.underflow, flushed, moved)
    return np.where(size + error <= precision.largest, worst, np.inf)


def summed_worst(name: str, values: Any, errors: Any) -> tuple[Any, Any]:
    """Σv over the first axis, and what n terms in any order may be off: a rounding an addition.

    Each term may be flushed in the accumulator as well.
    """
    _, u = roundoffs(name)
    n, magnitudes = len(values), np.abs(values) + errors
    smallest = 2.0**-1022 if name == "float64" else 2.0**-126
    rounded = rounded_additions(name, np.sum(magnitudes, axis=0), np.max(magnitudes, axis=0), n)
    error = np.sum(errors, axis=0) + u * rounded + n * Wide(smallest)
    return np.sum(values, axis=0), error


def rounded_additions(name: str, sizes: Any, largest: Any, n: int) -> Any:
    """Of 2, 3, ..., n terms half a unit in the last place of the most that they add up to; and S.

    The sums are a little larger where they are rounded.
    """
    _, u = roundoffs(name)
    k = np.arange(2, n + 1).reshape(-1, *np.ndim(sizes) * (1,))
    most = np.minimum(k * largest, sizes) * (1 + 2 * n * u)
    with np.errstate(divide="ignore"):
        below = np.where(most > 0, Wide(2) ** np.floor(np.log2(most)), 0)
    return sizes + np.minimum(np.sum(below, axis=0), (n - 1) * sizes)


def hold_formula(expected: Bounded, value: Any, error: Any, slack: Any = 1e-9) -> None:
    """A bound is what the formula says, or more by a share, or at most by so much."""
    error = np.asarray(error)
    assert np.array_equal(np.isinf(expected.bound), np.isinf(error))
    finite = np.isfinite(error)
    assert np.all(np.abs(expected.value - value)[finite] <= error[finite])
    digits = 16 * Wide(2.0**-1074)  # the rule's own, where float64 is subnormal
    least = expected.bound * (1 + 1e-12) + digits
    assert np.all(error[finite] <= least[finite]), (expected.bound, error)
    most = (error * (1 + slack) if np.isscalar(slack) else error + slack) + digits
    assert np.all(expected.bound[finite] <= most[finite]), (expected.bound, error)


def uncertain_columns(name: str, scale: float) -> Any:
    """(n, 3): of both signs, of one, and nothing but errors; with each length and uncertainty."""
    generator = np.random.default_rng(0)
    for n, share in itertools.product(LENGTHS, UNCERTAINTIES):
        values = generator.normal(size=(n, 3)) * scale
        errors = np.abs(generator.normal(size=(n, 3))) * share * scale
        values[:, 1] = np.abs(values[:, 1])
        values[:, 2] = 0.0
        yield values, errors


@pytest.mark.equation("EQ-BOUND-SUM", "EQ-BOUND-SQUARES", "EQ-BOUND-MATMUL", "EQ-BOUND-RHO-HAT")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("where", ["near 1", "near underflow"])
def test_sums_and_products_by_the_textbook(name: str, where: str) -> None:
    arithmetic, precision = Arithmetic(name), PRECISIONS[name]
    (u, u_accumulator), unity = roundoffs(name), Wide(1)
    for values, errors in uncertain_columns(name, {"near 1": 1.0}.get(where, precision.underflow)):
        v, e, n = values.astype(Wide), errors.astype(Wide), len(values)
        a = bounded(values, errors)
        total, error = summed_worst(name, v, e)
        hold_formula(arithmetic.total(a, axis=0), total, stored_worst(name, total, error))
        rows = Bounded(values.T, errors.T)
        hold_formula(arithmetic.total(rows, axis=1), total, stored_worst(name, total, error))
        # A square is stored before it is added.
        squared = stored_worst(name, v * v, 2 * np.abs(v) * e + e * e)
        square, error = summed_worst(name, (v * v).ravel(), squared.ravel())
        hold_formula(arithmetic.sum_of_squares(a), square, stored_worst(name, square, error))

        mean, of_inputs = np.sum(v, axis=0) / n, np.sum(e, axis=0) / n
        summed, divided = np.sum(np.abs(v) + e, axis=0), np.abs(mean) + of_inputs
        largest = np.max(np.abs(v) + e, axis=0)
        rounded = rounded_additions(name, summed, largest, n) / n
        error = of_inputs + u_accumulator * rounded + 2 * u * divided
        hold_formula(arithmetic.mean_over_samples(a), mean, stored_worst(name, mean, error))
        # The mean is shifted, or its terms are.
        rho_hat, half = (unity + mean) / 2, of_inputs / 2
        rounded = np.maximum(
            rounded_additions(name, summed / 2, largest / 2, n),
            rounded_additions(name, n * (rho_hat + half), (1 + largest) / 2, n),
        )
        error = half + u_accumulator * rounded / n
        error = error + 3 * u * np.maximum(divided / 2, rho_hat + half)
        hold_formula(
            arithmetic.mean_over_samples(a, symmetric=True),
            rho_hat,
            stored_worst(name, rho_hat, error),
        )

        # Both factors are shortened first, where the hardware does.
        factors = bounded(values[:, [1, 0]] / values.max(initial=1.0), errors[:, [0, 2]])
        other, of_other = factors.value.astype(Wide), factors.bound.astype(Wide)
        product = v.T @ other
        enlarged = (np.abs(v) + e).T @ (np.abs(other) + of_other)
        moved = np.abs(v).T @ of_other + e.T @ (np.abs(other) + of_other)
        moved = moved + 2 * Wide(precision.factor_roundoff) * enlarged
        # A bias may be the first term of a sum: one addition more, unless it is 0.
        for start in (None, bounded([values[0, 0], 0.0], [errors[0, 2], 0.0])):
            first = (Wide(0), Wide(0)) if start is None else (start.value, start.bound)
            rounded = rounded_products(
                name, (v, e), (other, of_other), product, enlarged, moved, first
            )
            error = moved + n * Wide(arithmetic.accumulator.underflow)
            error = error + u_accumulator * (enlarged + rounded)
            worst = stored_worst(name, product, error)
            hold_formula(arithmetic.matmul(rows, factors, start), product, worst)


def rounded_products(
    name: str,
    a: tuple[Any, Any],
    b: tuple[Any, Any],
    value: Any,
    enlarged: Any,
    moved: Any,
    first: tuple[Any, Any] = (0.0, 0.0),
) -> Any:
    """Of each addition half a unit in the last place of the most that its result may be.

    No partial sum is beyond the sum of the positive terms, or that of the negative ones; nor one of
    k terms beyond k times the largest. Where it is below a power of two it is off by half as much.
    """
    (_, u), n, u_in = roundoffs(name), len(a[0]), Wide(PRECISIONS[name].factor_roundoff)
    of_first = np.abs(first[0]) + first[1]
    sizes, additions = enlarged + of_first, n - 1 + (of_first > 0)
    margin = 2 * (n + 1) * u + u_in**2
    most = (sizes + np.abs(value + first[0]) + moved + first[1]) / 2 + margin * sizes
    with np.errstate(divide="ignore"):
        below = np.where(most > 0, Wide(2) ** np.floor(np.log2(most)), 0)
    largest = np.outer(*(np.max(np.abs(v) + e, axis=0) for v, e in (a, b)))
    terms = np.arange(2, n + 2).reshape(-1, 1, 1)
    sums = terms * np.maximum(largest, of_first) * (1 + margin + 2 * u_in)
    rounded = np.where(sums < below, below / 2, below) * (terms <= additions + 1)
    return np.where(below <= sizes, np.sum(rounded, axis=0), additions * sizes)


def product_worst(name: str, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """Of two numbers, each with its error; stored."""
    value, error = a[0] * b[0], np.abs(a[0]) * b[1] + np.abs(b[0]) * a[1] + a[1] * b[1]
    return value, stored_worst(name, value, error)


@pytest.mark.equation("EQ-BOUND-ORTHOGONAL")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("certain", [True, False])
def test_the_gradient_of_orthogonality_by_the_textbook(name: str, certain: bool) -> None:
    """From the rows: their lengths, the signed sums, what lies along each, the rest; signs of 0."""
    (u, u_accumulator), n = roundoffs(name), 200
    rows = np.random.default_rng(0).uniform(0.5, 1.0, size=(3, n))
    if not certain:
        rows[0, : n // 2] = rows[1, n // 2 :] = 0.0
    lengths = np.sqrt(np.sum(rows.astype(Wide) ** 2, axis=1, keepdims=True))
    # Half of the error of n squares and their sum; a root, a reciprocal, and what rounds around.
    share = n * u_accumulator / 2 + 7 * u
    vectors = rows / lengths
    of_vectors = stored_worst(name, vectors, share * vectors)
    cosines = vectors @ vectors.T
    signs, of_signs = np.sign(cosines), 2.0 * (cosines == 0.0)
    for part in (signs, of_signs):
        np.fill_diagonal(part, 0.0)
    enlarged = (np.abs(signs) + of_signs) @ (vectors + of_vectors)
    pull = signs @ vectors
    moved = np.abs(signs) @ of_vectors + of_signs @ (vectors + of_vectors)
    moved = moved + 2 * Wide(PRECISIONS[name].factor_roundoff) * enlarged
    factors = (signs.T, of_signs.T), (vectors, of_vectors)
    error = moved + u_accumulator * (
        enlarged + rounded_products(name, *factors, pull, enlarged, moved)
    )
    pulled = pull, stored_worst(name, pull, error)
    along = product_worst(name, pulled, (vectors, of_vectors))
    total, error = summed_worst(name, along[0].T, along[1].T)
    inside = total[:, None], stored_worst(name, total, error)[:, None]
    product = product_worst(name, inside, (vectors, of_vectors))
    rest = pull - product[0]
    left = rest, stored_worst(name, rest, pulled[1] + product[1])
    inverse = 1 / lengths, stored_worst(name, 1 / lengths, share / lengths)
    # 2 · 0.5, and the inverse of the number of pairs, both ways.
    pairs = Wide(1) / 6
    scale = product_worst(name, (Wide(0.5), Wide(0)), (pairs, stored_worst(name, pairs, Wide(0))))
    twice = 2 * scale[0], 2 * scale[1]
    slope, error = product_worst(name, twice, product_worst(name, left, inverse))
    _, gradient = reference.orthogonal_with_bounds(rows, 0.5, precision=name)
    # In float64 |A||B| is off by the oracle's own roundoffs: 3 more for each of some dozen.
    hold_formula(gradient, slope, error, 0.05 if name == "float64" else 1e-4)


@pytest.mark.equation("EQ-BOUND-SUM", "EQ-BOUND-MATMUL", "EQ-BOUND-STORE")
@pytest.mark.parametrize("name", ["bfloat16", "float32", "tf32", "float64"])
def test_a_partial_sum_that_overflows_although_the_sum_does_not(name: str) -> None:
    """0.6 + 0.45 is too large before 0.35 is taken off; and what fits but for its rounding."""
    arithmetic = Arithmetic(name)
    largest = arithmetic.accumulator.largest
    for error, rest, decidable in ((0.45, 0.35, False), (0.05, 0.3, True)):
        a = bounded([[0.6 * largest, -rest * largest]], [[error * largest, 0.0]])
        assert np.isfinite(arithmetic.total(a).bound) == decidable
        assert np.isfinite(arithmetic.matmul(a, exact(np.ones((2, 1)))).bound) == [[decidable]]
    terms = exact([[0.5 * largest, 0.25 * largest, -0.25 * largest]])
    assert np.isinf(arithmetic.total(terms).bound)
    assert np.isinf(arithmetic.matmul(terms, exact(np.ones((3, 1)))).bound)


def test_the_smallest_normal_number_is_not_flushed() -> None:
    smallest = np.array(2.0**-126)
    assert Arithmetic("float32")._flushed(2.0 * smallest, smallest) == smallest
    below = smallest * (1.0 + 2.0**-52)
    assert Arithmetic("float32")._flushed(2.0 * smallest, below) == 2.0 * smallest


class Textbook:
    """The bounds of the divergence in mpmath, each from its operations."""

    def __init__(self, name: str) -> None:
        precision = PRECISIONS[name]
        self.name, self.precision = name, precision
        self.u = mpmath.mpf(precision.unit_roundoff) + mpmath.mpf(2) ** -53
        self.u_accumulator = mpmath.mpf(precision.accumulator_roundoff) + mpmath.mpf(2) ** -53

    def gamma(self, k: int) -> Any:
        """Higham, Lemma 3.1: k roundings."""
        return k * self.u / (1 - k * self.u)

    def number(self, c: float) -> Any:
        kept = self.precision.represents(np.array(c))
        return mpmath.mpf(0) if kept else self.u * mpmath.mpf(c)

    def stored(self, value: Any, error: Any) -> Any:
        moved = error + self.u * (abs(value) + error)
        if abs(value) - moved < self.precision.underflow:
            return max(moved + self.u * self.precision.underflow, abs(value))
        return moved

    def half(self, weight: Any, error: Any, least: Any, logs: list[Any]) -> Any:
        """w(log w − l): the weight, a logarithm of 8 roundoffs, a difference and a product.

        What the logarithm's argument may be off is three roundings, and that of the weight.
        """
        shifted = mpmath.log(weight / least) + self.gamma(3)
        sizes = shifted + abs(mpmath.log(least)) + max(map(abs, logs))
        moved = max(abs(mpmath.log(weight) - log) for log in logs)
        return error * moved + (weight + error) * (shifted + self.gamma(10) * sizes)

    def halves(self, rho: Any, logs: list[Any], logs_of_rest: list[Any]) -> Any:
        error = self.number(float(rho))
        rest = 1 - rho
        of_rest = error + self.u * (rest + error)
        return self.half(rho, error, rho - error, logs) + self.half(
            rest, of_rest, (rest - error) * (1 - self.u), logs_of_rest
        )

    def divergence(self, rho: Any, mean: Any, error: Any, epsilon: float) -> tuple[Any, ...]:
        """Value and bound of the divergence, and of its slope; the bound `None`: undecidable."""
        edge, top = mpmath.mpf(epsilon), mpmath.mpf(1.0 - epsilon)
        lower = self.number(epsilon)
        upper = lower + self.number(1.0 - epsilon)

        def between(x: Any, low: Any, high: Any) -> Any:
            return min(max(x, low), high)

        def slope(r: Any) -> Any:
            return (1 - rho) / (1 - r) - rho / r

        low = between(mean - error, edge - lower, top - upper)
        high = between(mean + error, edge + lower, top + upper)
        if low < self.precision.underflow or high >= 1:
            return None, None, None, None
        r = between(mean, edge, top)
        value = rho * mpmath.log(rho / r) + (1 - rho) * mpmath.log((1 - rho) / (1 - r))
        value += slope(r) * (mean - r)
        of_rho = self.number(float(rho))
        of_rest = of_rho + self.u * (1 - rho + of_rho)

        def rounding(k: int) -> Any:
            gamma = self.gamma(k)
            ones = (of_rho + gamma * (rho + of_rho)) / low
            return ones + (of_rest + gamma * (1 - rho + of_rest)) / (1 - high)

        logs = [mpmath.log(low), mpmath.log(high)]
        bound = error * max(abs(slope(low)), abs(slope(high)))
        bound += self.halves(rho, logs, [mpmath.log(1 - low), mpmath.log(1 - high)])
        spreads, beyond = [mpmath.mpf(0)], mpmath.mpf(0)
        reaches = (
            (edge, lower, mean - error < edge + lower),
            (top, upper, mean + error > top - upper),
        )
        for at, of_edge, reached in reaches:
            if epsilon > 0.0 and reached:
                spreads += [abs(slope(at + side * of_edge) - slope(at)) for side in (1, -1)]
                beyond = max(beyond, abs(mean - r) + error + of_edge)
        if beyond > 0:
            bound += (max(spreads) + rounding(10)) * beyond + self.u * abs(value)
        of_slope = max(slope(high) - slope(r), slope(r) - slope(low)) + rounding(7)
        return value, self.stored(value, bound), slope(r), self.stored(slope(r), of_slope)

    def log_sigmoid(self, z: Any, error: Any) -> tuple[Any, Any]:
        def function(x: Any) -> Any:
            return -mpmath.log1p(mpmath.exp(-x))

        log = function(z)
        ends = [function(z - error), function(z + error)]
        moved = max(abs(end - log) + 16 * self.u * abs(end) for end in ends)
        if abs(log) - moved < self.precision.underflow:
            moved = max(moved + self.u * self.precision.underflow, abs(log))
        return log, moved

    def log_mean(self, z: list[Any], error: Any) -> tuple[Any, Any, list[Any], list[Any]]:
        """log ρ̂ and its bound, the shares and theirs; Blanchard, Higham, Higham (2021), §3."""
        m, u = len(z), self.u
        both = [self.log_sigmoid(x, error) for x in z]
        top = max(log for log, _ in both)
        mean = mpmath.log(sum(mpmath.exp(log) for log, _ in both) / m)
        moved = mpmath.log(sum(mpmath.exp(log + e) for log, e in both) / m) - mean
        bound = moved - mpmath.log(1 - m * self.u_accumulator) + 32 * u
        bound += 8 * u * (abs(mean) + abs(top) + mpmath.log(m))
        bound += self.precision.underflow * mpmath.exp(top - mean)
        shares, of_shares = [], []
        for log, e in both:
            share = mpmath.exp(log - mean) / m
            relative = mpmath.expm1(e + bound + 4 * u * (abs(log) + abs(mean))) + 32 * u
            moved = min(share * relative, mpmath.mpf(1))
            if share - moved < self.precision.underflow:
                moved = max(moved + u * self.precision.underflow, share)
            shares.append(share)
            of_shares.append(moved)
        return mean, bound, shares, of_shares

    def product(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        value, moved = a[0] * b[0], abs(a[0]) * b[1] + abs(b[0]) * a[1] + a[1] * b[1]
        return value, self.stored(value, moved)

    def sigmoid(self, z: Any, error: Any) -> tuple[Any, Any]:
        ends = [1 / (1 + mpmath.exp(-x)) for x in (z, z - error, z + error)]
        moved = max(abs(end - ends[0]) + 16 * self.u * end for end in ends)
        if ends[0] - moved < self.precision.underflow:
            moved = max(moved + self.u * self.precision.underflow, ends[0])
        return ends[0], moved

    def from_logits(self, rho: Any, z: list[Any], error: Any) -> tuple[Any, Any, list[Any]]:
        """Value and bound; and the derivative by the first logit, with its bound."""
        ones, of_ones, share, of_share = self.log_mean(z, error)
        zeros, of_zeros, rest, of_rest = self.log_mean([-x for x in z], error)
        of_rho = self.number(float(rho))
        up = self.product(
            (1 - rho, of_rho + self.u * (1 - rho + of_rho)),
            self.product((rest[0], of_rest[0]), self.sigmoid(z[0], error)),
        )
        down = self.product(
            (rho, of_rho), self.product((share[0], of_share[0]), self.sigmoid(-z[0], error))
        )
        slope = [up[0] - down[0], self.stored(up[0] - down[0], up[1] + down[1])]
        value = rho * (mpmath.log(rho) - ones) + (1 - rho) * (mpmath.log(1 - rho) - zeros)
        bound = rho * of_ones + (1 - rho) * of_zeros
        bound += self.halves(
            rho, [ones - of_ones, ones + of_ones], [zeros - of_zeros, zeros + of_zeros]
        )
        return value, self.stored(value, bound), slope


def hold_digits(expected: Any, found: tuple[Any, Any], name: str, case: Any) -> None:
    """A value and a bound. In float64 the rule's own differences of logarithms are rounded."""
    value, bound = expected
    actual, rule = (float(part) for part in found)
    assert abs(actual - value) <= bound, case
    least, most = (0.8, 1.5) if name == "float64" else (1.0 - 1e-6, 1.0 + 1e-6)
    assert least * bound <= rule <= most * bound, (case, rule / float(bound))


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE", "EQ-BOUND-TARGET")
@pytest.mark.parametrize("name", FORMATS)
def test_the_divergence_by_the_textbook(name: str) -> None:
    """Between the edges, at them, over them by less than E, and far beyond."""
    arithmetic, textbook = Arithmetic(name), Textbook(name)
    decided = 0
    for rho, epsilon in itertools.product((0.02, 0.25, 0.9), (0.0, 2.0**-6, 0.015)):
        edges = [epsilon, 1.0 - epsilon, -2.0, 40.0] if epsilon > 0.0 else []
        for mean in (0.03, 0.3, rho, 0.8, *edges):
            for error in (0.0, 2.0**-20, 0.01, 0.25, 3.0):
                case = (rho, epsilon, mean, error)
                if epsilon == 0.0 and not 0.0 < mean - error <= mean + error < 1.0:
                    continue
                value, bound, slope, of_slope = textbook.divergence(
                    mpmath.mpf(rho), mpmath.mpf(mean), mpmath.mpf(error), epsilon
                )
                rho_hat = bounded(mean, error)
                divergence = arithmetic.kl_divergence(rho, rho_hat, epsilon)
                derivative = arithmetic.kl_derivative(rho, rho_hat, epsilon)
                if value is None:
                    assert np.isinf(divergence.bound), case
                    continue
                decided += 1
                hold_digits((value, bound), (divergence.value, divergence.bound), name, case)
                hold_digits((slope, of_slope), (derivative.value, derivative.bound), name, case)
    assert decided > 150


@pytest.mark.equation("EQ-BOUND-LOG-MEAN", "EQ-BOUND-KL-LOGITS")
@pytest.mark.parametrize("name", FORMATS)
def test_the_form_from_logits_by_the_textbook(name: str) -> None:
    arithmetic, textbook = Arithmetic(name), Textbook(name)
    generator = np.random.default_rng(0)
    columns = [
        [0.5],
        [-30.0, 2.0],
        [7.0, 700.0, 5.0],  # log σ(700) may be flushed
        list(generator.normal(size=60).round(3)),
        [-200.0] * 40,
        [0.0] + [-80.0] * 3,  # a share that may be flushed
    ]
    for z, error in itertools.product(columns, (0.0, 2.0**-12, 0.25)):
        logits = bounded(np.array(z)[:, None], error)
        mean, shares = arithmetic.log_mean_sigmoid(logits)
        points = [mpmath.mpf(x) for x in z]
        log, bound, of_samples, of_shares = textbook.log_mean(points, mpmath.mpf(error))
        case = (z[:3], error)
        hold_digits((log, bound), (mean.value[0], mean.bound[0]), name, case)
        for i in {0, len(z) // 2, len(z) - 1}:
            found = shares.value[i, 0], shares.bound[i, 0]
            hold_digits((of_samples[i], of_shares[i]), found, name, case)
        for rho in (0.02, 0.9):
            value, gradient = arithmetic.kl_divergence_from_logits(rho, logits)
            *expected, slope = textbook.from_logits(mpmath.mpf(rho), points, mpmath.mpf(error))
            hold_digits(expected, (value.value[0], value.bound[0]), name, case)
            hold_digits(slope, (gradient.value[0, 0], gradient.bound[0, 0]), name, case)


# --- where the numbers that are put together are stored -----------------------------------------


def relative(quantity: Bounded) -> Any:
    """E/|v| of what is not 0."""
    found = np.abs(quantity.value) > 0.0
    assert np.any(found)
    return quantity.bound[found] / np.abs(quantity.value[found])


def with_one_unit(
    precision: str, encoder: float = 0.5, decoder: float = 0.25, **changed: Any
) -> Any:
    """A linear network whose input is 0 and whose reconstruction is right, unless y is another."""
    parameters = reference.Parameters([[[encoder]], [[decoder]]], [[0.5], [0.125]])
    arguments = {"rho": 0.25, "beta": 2.0, "weight_decay": 0.5, "y": [[0.25]], **changed}
    if not arguments.get("from_logits"):
        arguments |= {"activation": "linear"}
    return reference.cost_and_gradient_with_bounds(
        parameters, [[0.0]], output_activation="linear", precision=precision, **arguments
    )


STORED_NUMBERS: dict[str, tuple[Callable[[str, float], Any], float]] = {
    "beta, term": (lambda p, c: with_one_unit(p, beta=2.0 * c).cost.sparsity, 1.0),
    "beta, from logits": (
        lambda p, c: with_one_unit(p, beta=2.0 * c, from_logits=True).cost.sparsity,
        1.0,
    ),
    "beta, gradient": (lambda p, c: with_one_unit(p, beta=2.0 * c).gradient.biases[0], 1.0),
    "beta, symmetric gradient": (
        lambda p, c: with_one_unit(p, beta=2.0 * c, symmetric=True).gradient.biases[0],
        1.0,
    ),
    "beta, gradient from logits": (
        lambda p, c: with_one_unit(p, beta=2.0 * c, from_logits=True).gradient.biases[0],
        1.0,
    ),
    "decay, term": (lambda p, c: with_one_unit(p, weight_decay=c).cost.weight_decay, 1.0),
    "decay, gradient": (lambda p, c: with_one_unit(p, weight_decay=c).gradient.kernels[0], 1.0),
    # The error of a target is there twice, in both factors of its square.
    "y": (lambda p, c: with_one_unit(p, y=[[-64.0 * c]]).cost.reconstruction, 2.0),
    "beta of a layer": (
        lambda p, c: reference.kl_sparsity_with_bounds([[0.5]], 0.25, c, precision=p)[0],
        1.0,
    ),
    "beta of a layer, gradient": (
        lambda p, c: reference.kl_sparsity_with_bounds([[0.5]], 0.25, c, precision=p)[1],
        1.0,
    ),
    "beta of logits": (
        lambda p, c: reference.kl_sparsity_with_bounds(
            [[0.5]], 0.25, c, from_logits=True, precision=p
        )[0],
        1.0,
    ),
    "beta of logits, gradient": (
        lambda p, c: reference.kl_sparsity_with_bounds(
            [[0.5]], 0.25, c, from_logits=True, precision=p
        )[1],
        1.0,
    ),
}
# These are stored in the format itself.
STORED_FACTORS: dict[str, Callable[[str, float], Any]] = {
    "a kernel that a delta comes through": lambda p, c: with_one_unit(
        p, decoder=0.25 * c, beta=0.0, y=[[-64.0]]
    ).gradient.biases[0],
    "a kernel that the input's gradient comes through": lambda p, c: (
        with_one_unit(p, encoder=0.5 * c).x
    ),
    "l1": lambda p, c: reference.l1_l2_with_bounds([0.5, -1.0], c, 0.0, precision=p)[0],
    "l1, gradient": lambda p, c: reference.l1_l2_with_bounds([0.5, -1.0], c, 0.0, precision=p)[1],
    "l2": lambda p, c: reference.l1_l2_with_bounds([0.5, -1.0], 0.0, c, precision=p)[0],
    "l2, gradient": lambda p, c: reference.l1_l2_with_bounds([0.5, -1.0], 0.0, c, precision=p)[1],
    "orthogonal": lambda p, c: reference.orthogonal_with_bounds(ANGLE, c, precision=p)[0],
    "orthogonal, gradient": lambda p, c: reference.orthogonal_with_bounds(ANGLE, c, precision=p)[1],
}
ANGLE = [[1.0, 0.0], [1.0, 1.0]]


@pytest.mark.equation("EQ-BOUND-NUMBER", "EQ-BOUND-COST", "EQ-BOUND-SPARSITY", "EQ-BOUND-L1L2")
@pytest.mark.parametrize("name", [*PLAYED, "tf32"])
def test_a_number_that_the_format_lacks_is_rounded_once(name: str) -> None:
    """Beside the same number rounded: one roundoff more of all that it multiplies, and no less."""
    for numbers_of, precision in ((STORED_NUMBERS, wide(name)), (STORED_FACTORS, name)):
        u = PRECISIONS[precision].unit_roundoff
        for quantity, made in numbers_of.items():
            make, times = made if isinstance(made, tuple) else (made, 1.0)
            exact_number = relative(make(name, 1.0))
            rise = (relative(make(name, 1.0 + 0.5 * u)) - exact_number) / u
            # The new error is multiplied with those that are there.
            slack = 0.02 + 1.5 * times * exact_number
            assert np.all(np.abs(rise - times) <= slack), (quantity, rise, slack)


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_targets_are_float32_where_activations_are_halves(name: str) -> None:
    halves, singles = (
        relative(with_one_unit(name, y=[[-64.0 * c]]).cost.reconstruction)
        for c in (1.0, 1.0 + 2.0**-20)
    )
    assert np.all(np.abs(singles / halves - 1.0) < 1e-5)


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_each_rounding_of_the_penaltys_delta_counts(name: str) -> None:
    """With a linear unit: the bias is exact and z = 0 + ½ rounded, which moves KL′ by KL″E = 2u.

    Then the format rounds the slope, its sum with the delta, its product with f′ and the sum over
    samples: six in all, and 40 of the float32 of the slope itself.
    """
    u, slope = PRECISIONS[name].unit_roundoff, with_one_unit(name).gradient.biases[0]
    assert slope.value == 2.0
    # The gradient by the input is one product of it, stored as that sum is.
    by_input = with_one_unit(name).x
    assert abs(relative(by_input)[0] - relative(slope)[0]) <= 0.01 * u
    assert 5.95 * u <= relative(slope)[0] <= 6.0 * u * (1.0 + 30.0 * u) + 40.0 * 2.0**-24


@pytest.mark.equation("EQ-BOUND-COST")
@pytest.mark.parametrize("name", FORMATS)
def test_the_sum_of_the_terms_is_rounded_twice(name: str) -> None:
    u, cost = roundoffs(wide(name))[0], with_one_unit(name, y=[[-64.0]]).cost
    terms = [cost.reconstruction, cost.weight_decay, cost.sparsity]
    values, bounds = [float(term.value) for term in terms], [float(term.bound) for term in terms]
    first, second = (sum(values[:k]) + sum(bounds[:k]) for k in (2, 3))
    expected = sum(bounds) + float(u) * (first + second)
    assert abs(cost.total.bound - expected) <= 1e-3 * u * second


@pytest.mark.equation("EQ-BOUND-SPARSITY", "EQ-BOUND-RECONSTRUCTION")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", [{}, {"symmetric": True}, {"from_logits": True}])
def test_penalties_of_halves_are_those_of_float32(name: str, form: dict[str, Any]) -> None:
    """The same numbers in another format: the same term; its gradient is stored in the format."""
    a = np.random.default_rng(0).integers(1, 32, size=(40, 3)) / 32.0
    single, half = (
        reference.kl_sparsity_with_bounds(a, 0.3, 3.1, epsilon=0.01, precision=precision, **form)
        for precision in ("float32", name)
    )
    assert np.array_equal(single[0].bound, half[0].bound)
    slope, error = single[1].value, single[1].bound
    most = stored_worst(name, slope, error)
    # But for a rounding of float32, which the gradient is not stored in here.
    least = most - 1.1 * 2.0**-24 * (np.abs(slope) + error)
    assert np.all(least <= half[1].bound)
    assert np.all(half[1].bound <= most)
    y = a[::-1]
    expected = reference.reconstruction_with_bounds(a, y, precision="float32").bound
    assert reference.reconstruction_with_bounds(a, y, precision=name).bound == expected


ELEMENTWISE: dict[str, Callable[[Arithmetic, Bounded], Sequence[Bounded]]] = {
    "store": lambda rules, a: [rules.store(a.value, a.bound)],
    "cast": lambda rules, a: [rules.cast(a)],
    "add": lambda rules, a: [rules.add(a, a), rules.subtract(a, a), rules.multiply(a, a)],
    "count": lambda rules, a: [rules.divide_by_count(a, 7)],
    **{
        name: lambda rules, a, name=name: rules.activation(name, a)  # type: ignore[misc]
        for name in ("sigmoid", "tanh", "relu", "linear")
    },
    "divergence": lambda rules, a: [
        rule(0.3, a, epsilon)
        for rule in (rules.kl_divergence, rules.kl_derivative)
        for epsilon in (0.25, 2.0**-10)
    ],
    # Of a column each.
    "mean": lambda rules, a: [
        rules.mean_over_samples(a),
        rules.mean_over_samples(a, symmetric=True),
        rules.total(a, axis=0),
    ],
    "log-mean": lambda rules, a: [
        *rules.log_mean_sigmoid(a),
        *rules.kl_divergence_from_logits(0.3, a),
    ],
}


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-LOG-MEAN", "EQ-BOUND-ACTIVATION", "EQ-BOUND-STORE")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_no_unit_touches_another(rule: str, name: str) -> None:
    """Beside others that are larger, less certain, beyond an edge or unknown: the same bound."""
    values = np.array([[0.25, 0.5, -3.0, 0.9, 1e-3, 40.0], [0.5, 0.5, -2.0, 0.75, 2e-3, 30.0]])
    errors = np.array([[0.0, 0.3, 1e-3, np.inf, 2.0**-20, 0.0], [1e-6, 0.0, 1.0, 0.5, 0.0, 0.25]])
    make, rules = ELEMENTWISE[rule], Arithmetic(name)
    together = make(rules, Bounded(values, errors))
    for unit in range(values.shape[1]):
        alone = make(rules, Bounded(values[:, [unit]], errors[:, [unit]]))
        for single, all_of_them in zip(alone, together, strict=True):
            for part, every in (
                (single.value, all_of_them.value),
                (single.bound, all_of_them.bound),
            ):
                of_unit = every[..., [unit]]
                assert np.array_equal(np.isinf(part), np.isinf(of_unit))
                finite = np.isfinite(part)
                # Sums of a column alone may be in another order.
                assert np.allclose(part[finite], of_unit[finite], rtol=1e-12, atol=0.0), unit


@pytest.mark.equation("EQ-BOUND-ACTIVATION")
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_slopes_by_the_textbook(function: str, name: str) -> None:
    """a(1 − a): a difference and a product. 1 − a²: the square and two more, of what is moved."""
    textbook, f = Textbook(name), MP_FUNCTIONS[function]
    for z, error in itertools.product((-6.0, -0.5, 0.0, 0.75, 3.0), (0.0, 2.0**-12, 0.5, 4.0)):
        a, slope = Arithmetic(name).activation(function, bounded(z, error))
        middle, e, u = f(mpmath.mpf(z)), mpmath.mpf(float(a.bound)), textbook.u
        if function == "sigmoid":
            value = middle * (1 - middle)
            moved = abs(1 - 2 * middle) * e + e**2
            moved += u * (value + moved)
        else:
            value = 1 - middle**2
            moved = 2 * abs(middle) * e + e**2
            moved += u * (abs(middle) + e) ** 2 + textbook.gamma(2) * (value + moved)
        expected = value, textbook.stored(value, moved)
        hold_digits(expected, (slope.value, slope.bound), name, (z, error))
