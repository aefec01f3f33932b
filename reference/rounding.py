"""How far a right computation in low precision may be from the oracle, and why.

Value and bound travel together. A `Bounded` is the oracle's float64 value of a quantity and a
bound for the distance of any right implementation's value from it: any order of summation, any
usual way of writing the formula, elementary functions within a few roundoffs. `Arithmetic` holds
one rule for each operation; `reference.bounds` puts them together for the cost and its gradient.

The rules are first-order running error analysis made rigorous by evaluating every product of
magnitudes at |value| + bound. They use the model fl(a ∘ b) = (a ∘ b)(1 + δ), |δ| ≤ u, plus an
underflow term η. For a sum of n terms each of n − 1 additions, in any order, is off by at most half
a unit in the last place of the largest partial sum there may be: u times the power of two below it.

A sum of n terms is allowed n roundings of one sign, not the √n that is usual for random errors:
backends do sum one term after the other (over samples, say), and roundings of equal terms add up.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., §2.2 (the
model), §3.1 (inner products), §4.2 (sums); C.-P. Jeannerod and S. M. Rump, "Improved error bounds
for inner products in floating-point arithmetic", SIAM J. Matrix Anal. Appl. 34 (2013), for n u in
place of n u/(1 − n u); S. M. Rump, "Error estimation of floating-point summation and dot product",
BIT 52 (2012), for the power of two below a number in place of the number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from reference.activations import activation_named, log_sigmoid
from reference.divergence import (
    extended_kl_divergence,
    extended_kl_divergence_derivative,
    kl_divergence_derivative,
    log_mean_exp,
    upper_edge,
)
from reference.validation import Array, instance, real_array

ORACLE_ROUNDOFF = 2.0**-53
"""u of the oracle itself. Every rule adds it to the u of the tested precision: the bounds are
convex in u and vanish at 0, so the sum covers the errors of both sides."""

SIGMOID_ROUNDOFFS = 16.0
"""How many roundoffs a right sigmoid, tanh or softplus may be off: an exponential and a logarithm,
of `LOGARITHM_ROUNDOFFS` each, as in log(1 + eᶻ). A sigmoid of that exponential is off by 10. Of all
float32 numbers none is off by more than 8.4 in a sigmoid or softplus (TensorFlow's; torch, JAX and
NumPy are within 4.3): docs/roundoffs.md. The rest is for other code of right exponentials and
logarithms."""

LOGARITHM_ROUNDOFFS = 8.0
"""How many roundoffs a right logarithm or exponential may be off. Of all float32 numbers JAX's
exponential is off by up to 5.5 beside its overflow, TensorFlow's log by 4.3 and its log1p by 5.3:
docs/roundoffs.md."""


@dataclass(frozen=True)
class Precision:
    """A floating-point format and how it is computed with.

    Args:
        name: Its name.
        unit_roundoff: u, half the distance from 1 to the next larger number: each stored result
            is off by at most u relative.
        accumulator_roundoff: u of the format in which sums and inner products accumulate.
            float32 for the 16-bit formats.
        underflow: η, the smallest normal number: results below may be flushed to zero.
        largest: The largest finite number.
        factor_roundoff: The relative error of each factor of a matrix product before it is
            multiplied: 2⁻¹¹ where the hardware shortens float32 to TF32, else 0.
    """

    name: str
    unit_roundoff: float
    accumulator_roundoff: float
    underflow: float
    largest: float
    factor_roundoff: float = 0.0

    def represents(self, values: Array) -> bool:
        """Whether every one of the values is a number of this format.

        >>> PRECISIONS["bfloat16"].represents(np.array([1.0078125, 0.5]))
        True
        >>> PRECISIONS["bfloat16"].represents(np.array([0.1]))
        False
        """
        return bool(np.all(self.are_numbers(values)))

    def are_numbers(self, values: Array) -> NDArray[np.bool_]:
        """Whether each value is zero or a normal number of this format: it is stored exactly."""
        mantissa, _ = np.frexp(values)
        scaled = mantissa / self.unit_roundoff
        magnitudes = np.abs(values)
        normal = (magnitudes >= self.underflow) & (magnitudes <= self.largest)
        exact: NDArray[np.bool_] = (magnitudes == 0.0) | (normal & (scaled == np.round(scaled)))
        return exact


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float16", 2.0**-11, 2.0**-24, 2.0**-14, 65504.0),
        Precision("bfloat16", 2.0**-8, 2.0**-24, 2.0**-126, (2.0 - 2.0**-7) * 2.0**127),
        Precision("float32", 2.0**-24, 2.0**-24, 2.0**-126, (2.0 - 2.0**-23) * 2.0**127),
        Precision("tf32", 2.0**-24, 2.0**-24, 2.0**-126, (2.0 - 2.0**-23) * 2.0**127, 2.0**-11),
        Precision("float64", 2.0**-53, 2.0**-53, 2.0**-1022, float(np.finfo(np.float64).max)),
    )
}


def precision_named(name: str) -> Precision:
    """Return the precision called `name`, one of `PRECISIONS`.

    Raises:
        ValueError: If there is none of that name.

    >>> precision_named("bfloat16").unit_roundoff
    0.00390625
    """
    if not isinstance(name, str) or name not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {sorted(PRECISIONS)}. Received {name!r}.")
    return PRECISIONS[name]


def at_least_float32(precision: Precision) -> Precision:
    """Return the precision of sums, penalties and stored parameters.

    >>> at_least_float32(precision_named("bfloat16")).name
    'float32'
    """
    halves = precision.unit_roundoff > 2.0**-24
    return precision_named("float32") if halves else precision


@dataclass(frozen=True, eq=False)
class Bounded:
    """A value of the oracle and how far a right computation may be from it.

    Args:
        value: float64, any shape.
        bound: The same shape, not negative. Infinite where nothing can be said: the case is
            undecidable (an intermediate may overflow, or ρ̂ may touch 0 or 1). NaN says nothing
            either, and becomes infinite.

    Raises:
        ValueError: If a bound is negative.
    """

    value: Array
    bound: Array

    def __post_init__(self) -> None:
        bound = np.asarray(self.bound, dtype=np.float64)
        if not (bound >= 0.0).all():
            if np.any(bound < 0.0):
                raise ValueError(f"`bound` must not be negative. Received {np.nanmin(bound)}.")
            bound = np.where(np.isnan(bound), np.inf, bound)
        object.__setattr__(self, "value", np.asarray(self.value, dtype=np.float64))
        object.__setattr__(self, "bound", bound)

    @property
    def magnitude(self) -> Array:
        """|value| + bound: no right computation is larger."""
        return np.abs(self.value) + self.bound

    @property
    def transposed(self) -> Bounded:
        """The transpose of both."""
        return Bounded(self.value.T, self.bound.T)

    @property
    def negative(self) -> Bounded:
        """−v, as uncertain."""
        return Bounded(-self.value, self.bound)


def power_of_two_below(x: Any) -> Array:
    """The largest power of two that is not above x ≥ 0 (Rump's ufp); 0 where x is subnormal.

    A sum is off by at most u times that of itself, if it is rounded to the nearest number: half a
    unit in the last place. Sums of subnormal numbers are exact.

    >>> power_of_two_below([5.0, 4.0, 0.75, 0.0]).tolist()
    [4.0, 4.0, 0.5, 0.0]
    """
    bits = np.asarray(x, dtype=np.float64).view(np.uint64)
    result: Array = (bits & np.uint64(0x7FF0000000000000)).view(np.float64)
    return result


def product(a: Array, b: Array) -> Array:
    """A B; 0 without a computation where a factor is 0 throughout, also beside what is infinite.

    For the parts of a bound: the rules decide by (|A| + E_A)(|B| + E_B), which is NaN there.

    >>> product(np.zeros((2, 3)), np.ones((3, 2))).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    if not (a.any() and b.any()):
        return np.zeros((len(a), b.shape[1]))
    result: Array = a @ b
    return result


def largest_term(a: Bounded, b: Bounded) -> Array:
    """No term of A B is larger: the largest of each row of A times that of each column of B."""
    return np.outer(
        np.max(a.magnitude, axis=1, initial=0.0), np.max(b.magnitude, axis=0, initial=0.0)
    )


def exact(value: Any) -> Bounded:
    """Return a value that both sides hold exactly, such as an input."""
    value = real_array("value", value)
    return Bounded(value, np.zeros_like(value))


def smaller(a: Bounded, b: Bounded) -> Bounded:
    """Return the smaller of two bounds of one value, number by number.

    >>> smaller(Bounded([1.0, 2.0], [0.5, 0.25]), Bounded([1.0, 2.0], [1.0, 0.0])).bound.tolist()
    [0.5, 0.0]
    """
    return Bounded(a.value, np.minimum(a.bound, b.bound))


BLOCK = 2**15
"""How many numbers `in_blocks` takes at a time: with a rule's intermediate results they stay in the
cache of a processor."""


Rule = TypeVar("Rule", bound=Callable[..., Any])


def in_blocks(rule: Rule) -> Rule:
    """Make an elementwise rule take some rows at a time: the same bits in less time.

    Args:
        rule: A method of an `Arithmetic` whose operands are `Bounded`, arrays or numbers that
            broadcast. It returns a `Bounded` or a tuple of them, always of the same classes.
    """

    @functools.wraps(rule)
    def of_blocks(self: Arithmetic, *operands: Any) -> Any:
        shapes = [o.value.shape if isinstance(o, Bounded) else np.shape(o) for o in operands]
        shape = np.broadcast_shapes(*shapes)
        size = math.prod(shape)
        if size <= BLOCK or len(shape) < 2:
            return rule(self, *operands)
        step = max(1, BLOCK * shape[0] // size)
        sliced = [len(own) == len(shape) and own[0] == shape[0] for own in shapes]
        joined: list[tuple[type[Bounded], dict[str, Array]]] = []
        for start in range(0, shape[0], step):
            rows = slice(start, start + step)
            pairs = zip(operands, sliced, strict=True)
            found = rule(self, *(_rows(o, rows) if own else o for o, own in pairs))
            pieces = found if isinstance(found, tuple) else (found,)
            if not joined:
                joined = [(type(p), {name: np.empty(shape) for name in vars(p)}) for p in pieces]
            for piece, (_, fields) in zip(pieces, joined, strict=True):
                for name, array in fields.items():
                    array[rows] = getattr(piece, name)
        results = tuple(kind(**fields) for kind, fields in joined)
        return results if isinstance(found, tuple) else results[0]

    return cast("Rule", of_blocks)


def _rows(operand: Any, rows: slice) -> Any:
    if not isinstance(operand, Bounded):
        return operand[rows]
    return type(operand)(**{name: array[rows] for name, array in vars(operand).items()})


@dataclass(frozen=True)
class Usage:
    """How much of its bound an actual result uses.

    Args:
        worst: The largest |actual − value| / bound over the decidable elements; at most 1 for a
            right computation, infinite for one that is not finite.
        undecidable: The share of elements whose bound says nothing: infinite, or larger than
            every value of the quantity.
        elements: How many elements there are.
    """

    worst: float
    undecidable: float
    elements: int


def usage(actual: Any, expected: Bounded) -> Usage:
    """EQ-BOUND-USAGE: |actual − value| / bound, the error in units of its bound.

    Where the bound is 0 the ratio is 0 if the two agree exactly, else infinite. Elements whose
    bound is infinite are counted as undecidable and not compared; those whose bound is finite
    but larger than every value are counted and compared. A result that is NaN is infinitely far:
    `worst` is never NaN, and the largest of several does not depend on their order.

    Source: this project.

    Args:
        actual: The implementation's result, the shape of `expected`.
        expected: The oracle's value and bound.

    Raises:
        TypeError: If `actual` is not real.
        ValueError: If the shapes differ.

    >>> usage([np.nan, 2.0], Bounded(np.array([1.0, 2.0]), np.array([1.0, 0.0]))).worst
    inf
    >>> usage([1.5, 2.0], Bounded(np.array([1.0, 2.0]), np.array([1.0, 0.0]))).worst
    0.5
    """
    actual = real_array("actual", actual, nan=True)
    expected = instance("expected", expected, Bounded)
    if actual.shape != expected.value.shape:
        raise ValueError(
            f"`actual` must have shape {expected.value.shape}. Received {actual.shape}."
        )
    decided = np.isfinite(expected.bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.abs(actual - expected.value)
        ratio = np.where(difference == 0.0, 0.0, difference / expected.bound)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    largest = np.max(np.abs(expected.value), initial=0.0)
    says_nothing = ~decided | ((expected.bound > largest) & (expected.bound > 0.0))
    return Usage(
        worst=float(np.max(ratio, initial=0.0, where=decided)),
        undecidable=float(np.mean(says_nothing)) if says_nothing.size else 0.0,
        elements=actual.size,
    )


def resolution(expected: Bounded) -> float:
    """EQ-BOUND-RESOLUTION: ‖E‖/‖v‖, the relative error that is certain to be found.

    A result whose distance from v, by the Euclidean norm of all its elements, is more than
    this times ‖v‖ has an element outside its bound.

    Source: this project; if no element were outside, the distance would be at most ‖E‖.

    Args:
        expected: The oracle's value v and bound E.

    Returns:
        0 where the bound is 0; infinite where an element is undecidable or v is not finite, and
        where v is 0 and E is not.

    Raises:
        TypeError: If it is no `Bounded`.

    >>> resolution(Bounded(np.array([3.0, 4.0]), np.array([0.0, 0.3125])))
    0.0625
    """
    expected = instance("expected", expected, Bounded)
    # Both by their largest element: squares of what is tiny or huge would be 0 or infinite.
    bound, value = np.max(expected.bound, initial=0.0), np.max(np.abs(expected.value), initial=0.0)
    if bound == 0.0:
        return 0.0
    if value == 0.0 or not np.isfinite(bound + value):
        return np.inf
    ratio = np.linalg.norm(expected.bound / bound) / np.linalg.norm(expected.value / value)
    return float(ratio * (bound / value))


class _Nearest(NamedTuple):
    """What is known of r = min(max(ρ̂, ε), 1 − ε) in a right computation.

    Args:
        low: The least that r may be; ½ where nothing can be said.
        high: The most.
        undecidable: Where nothing can be said.
        spread: How much KL′ changes over an edge that r may be at; 0 where it is at none.
        beyond: The most that |ρ̂ − r| may be; 0 where r is ρ̂.
    """

    low: Array
    high: Array
    undecidable: NDArray[np.bool_]
    spread: Array
    beyond: Array


class Arithmetic:
    """One rule of error propagation for each operation, in one precision.

    Every method takes and returns `Bounded` quantities. In the formulas E is a bound, v a value,
    u the unit roundoff, u_acc that of the accumulator, both with the oracle's own 2⁻⁵³ added. η is
    the smallest normal number, η_acc that of the accumulator. γₖ = ku/(1 − ku) is what k roundings
    of one number make (Higham, §3.1, Lemma 3.1).

    Args:
        precision: The name of a precision, or a `Precision`.
    """

    def __init__(self, precision: str | Precision) -> None:
        self.precision = (
            precision if isinstance(precision, Precision) else precision_named(precision)
        )
        self.u = self.precision.unit_roundoff + ORACLE_ROUNDOFF
        self.u_accumulator = self.precision.accumulator_roundoff + ORACLE_ROUNDOFF
        self.accumulator = at_least_float32(self.precision)

    def gamma(self, roundings: float) -> float:
        """γₖ, how far k roundings move a number, relative to it."""
        return roundings * self.u / (1.0 - roundings * self.u)

    def store(self, value: Any, bound: Any) -> Bounded:
        """EQ-BOUND-STORE: E → E + u(|v| + E), infinite where |v| + E exceeds the largest number.

        Where |v| − E < η the result may be a subnormal number, rounded to u η, or be flushed to
        zero: E → max(E + u(|v| + E + η), |v|) there.

        Source: Higham, "Accuracy and Stability", §2.2, the standard model with underflow.

        >>> float(Arithmetic("float32").store(np.array(1.0), np.array(0.0)).bound) < 2.0**-23.99
        True
        """
        value = np.asarray(value, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            magnitude = np.abs(value) + bound
            stored = self._flushed(value, bound + self.u * magnitude)
            fits = magnitude <= self.precision.largest
            return Bounded(value, stored if fits.all() else np.where(fits, stored, np.inf))

    def _flushed(self, value: Array, bound: Any) -> Array:
        """The bound of a result that is stored as it is, or flushed to zero where it may be."""
        smallest, size = self.precision.underflow, np.abs(value)
        flushed = size - bound < smallest
        if not flushed.any():
            return bound
        return np.where(flushed, np.maximum(bound + self.u * smallest, size), bound)

    def cast(self, a: Bounded) -> Bounded:
        """EQ-BOUND-CAST: nothing is lost where a value is exact and representable, else store.

        Source: EQ-BOUND-STORE.
        """
        kept = (a.bound == 0.0) & self.precision.are_numbers(a.value)
        if kept.all():
            return a
        return Bounded(a.value, np.where(kept, 0.0, self.store(a.value, a.bound).bound))

    def number(self, value: float) -> Bounded:
        """EQ-BOUND-NUMBER: a hyperparameter c is stored as c(1 + δ).

        Source: EQ-BOUND-STORE.
        """
        return self.cast(exact(value))

    @in_blocks
    def add(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-ADD: E = E_a + E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self.store(a.value + b.value, a.bound + b.bound)

    @in_blocks
    def subtract(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-SUBTRACT: E = E_a + E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self.store(a.value - b.value, a.bound + b.bound)

    @in_blocks
    def multiply(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-MULTIPLY: E = |a|E_b + |b|E_a + E_a E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            # 0 · ∞ is NaN: nothing is known of the other factor.
            bound = np.abs(a.value) * b.bound + np.abs(b.value) * a.bound + a.bound * b.bound
            return self.store(a.value * b.value, bound)

    def divide_by_count(self, a: Bounded, count: float) -> Bounded:
        """EQ-BOUND-COUNT: division by a number of samples, or product with its stored inverse.

        The number itself is exact: float32 has all up to 2²⁴. Its inverse is off by u/m, and by
        1/m if it may be flushed.

        Source: Higham, "Accuracy and Stability", §2.2; two roundings, of 1/m and of the product.
        """
        return self.multiply(a, self.store(np.array(1.0 / count), np.array(0.0)))

    def matmul(self, a: Bounded, b: Bounded, start: Bounded | None = None) -> Bounded:
        """EQ-BOUND-MATMUL: |A|E_B + E_A|B| + E_A E_B + 2u_in M + u_acc(M + (K − 1)P), stored.

        M = (|A|+E_A)(|B|+E_B), K terms a sum, u_in the shortening of the factors (TF32). P is the
        power of two below the most that a partial sum may be, whatever the order: none is beyond
        the sum of the positive terms or that of the negative ones, of which (M + |AB| + what AB
        moves by)/2 is the larger, and rounding adds 2K u_acc M; but P is not beyond M. Of sums of
        k terms that are below P, because k times the largest row and column is, half as much.
        Of K − 1 additions there is at most one for each k (EQ-BOUND-SUM). The K products may each
        underflow: K η_acc more. Infinite where M exceeds the accumulator.

        Source: Higham, "Accuracy and Stability", §3.1 and §4.2, with half a unit in the last place
        of each partial sum (Rump 2012); Jeannerod and Rump (2013) for K u M, where P is M.

        Args:
            a: A, (m, K).
            b: B, (K, n).
            start: What may be in the sum before its first term, as in `affine`, which adds it: one
                term more of P where it is not 0, and one addition.
        """
        terms = a.value.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            value, sizes = a.value @ b.value, a.magnitude @ b.magnitude
            moved = product(np.abs(a.value), b.bound) + product(a.bound, b.magnitude)
            moved = moved + 2.0 * self.precision.factor_roundoff * sizes
            partial, additions = self.partial_sums(
                value, sizes, moved, largest_term(a, b), terms, start
            )
            u = self.u_accumulator
            bound = moved + u * sizes + (additions * u) * partial
            return self._accumulated(value, bound, sizes, terms)

    def affine(self, a: Bounded, kernel: Bounded, bias: Bounded) -> Bounded:
        """A W + b: EQ-BOUND-MATMUL and EQ-BOUND-ADD, the bias the first of the sum or the last."""
        return self.add(self.matmul(a, kernel, bias), bias)

    def partial_sums(
        self,
        value: Any,
        sizes: Any,
        moved: Any,
        largest: Any,
        terms: int,
        start: Bounded | None = None,
    ) -> tuple[Any, Any]:
        """Return P, what an addition is off by at most in units of u, and how many do that.

        Args:
            value: The sum.
            sizes: That of the magnitudes.
            moved: How far the sum is from that of what is added.
            largest: The most that a term may be.
            terms: How many.
            start: As `matmul`.
        """
        additions: Any = max(terms - 1, 0)
        if start is not None:
            sizes, value = sizes + start.magnitude, value + start.value
            moved, largest = moved + start.bound, np.maximum(largest, start.magnitude)
            additions = additions + (start.magnitude > 0.0)
        of_one_sign = (sizes + np.abs(value) + moved) / 2.0
        in_factor = self.precision.factor_roundoff
        rounded = 2.0 * (terms + 1) * self.u_accumulator + in_factor**2
        power = power_of_two_below(of_one_sign + rounded * sizes)
        # So few terms that they are below P: their sum is off by half as much, at most.
        with np.errstate(divide="ignore", invalid="ignore"):
            few = np.ceil(power / (largest * (1.0 + rounded + 2.0 * in_factor))) - 2.0
        known = (power <= sizes) & (largest > 0.0)
        few = np.where(known, np.clip(few, 0.0, additions), 0.0)
        return np.minimum(power, sizes), additions - few / 2.0

    def matmul_over_samples(self, a: Bounded, b: Bounded) -> Bounded:
        """Aᵀ B, a sum over samples: EQ-BOUND-MATMUL, whatever the terms are of."""
        return self.matmul(a.transposed, b)

    def shared(self, a: Bounded) -> Bounded:
        """What all samples have in common; only `reference.likely` makes a difference of it."""
        return a

    def additions(self, terms: int) -> float:
        """How many roundoffs of the sum of magnitudes a sum of n terms may be off: n."""
        return terms

    def roundings(self, terms: int, sizes: Any, largest: Any) -> Any:
        """What the roundings of a sum make: u_acc(S + Σₖ₌₂ⁿ P(min(kM, S))).

        P is the power of two below a number. Of n − 1 additions the one with the j-th most terms
        in it has at most n − j + 1, in any order; k terms add up to at most kM, and to S. Terms may
        be rounded one by one before: S. Both are 2n u_acc larger where a sum is rounded.

        Args:
            terms: n.
            sizes: S, the sum of the magnitudes.
            largest: M, the largest of them.
        """
        u = self.u_accumulator
        margin = 1.0 + 2.0 * terms * u
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            level = power_of_two_below(np.multiply(sizes, margin))
            found, counted = np.zeros_like(level), np.zeros_like(level)
            while np.any(counted < terms - 1):
                # So many additions may have a result of `level` or more.
                terms_needed = np.maximum(np.ceil(level / (largest * margin)), 2.0)
                reached = np.clip(terms + 1.0 - terms_needed, counted, terms - 1.0)
                # All of them, where all is 0 or nothing is known.
                reached = np.where(np.isfinite(terms_needed), reached, terms - 1.0)
                found = found + u * level * (reached - counted)
                counted, level = reached, level / 2.0
            return u * sizes + np.minimum(found, (terms - 1) * u * sizes)

    def mean_error(self, a: Bounded) -> Array:
        """What the errors of the terms make of their mean over the samples: Σ E/m."""
        error: Array = np.sum(a.bound, axis=0) / len(a.value)
        return error

    def _accumulated(self, value: Any, bound: Any, magnitudes: Any, terms: int) -> Bounded:
        # No partial sum is larger than the sum of all magnitudes; each term may be flushed.
        fits = magnitudes <= self.accumulator.largest / (1.0 + terms * self.u_accumulator)
        bound = np.where(fits, bound + terms * self.accumulator.underflow, np.inf)
        return self.store(value, bound)

    def total(self, a: Bounded, axis: int | None = None) -> Bounded:
        """EQ-BOUND-SUM: ΣE + u_acc(S + Σₖ₌₂ⁿ P(min(kM, S))) + n η_acc, stored; in any order.

        S = Σ(|v| + E), of which M is the largest term; P is the power of two below a number: in
        all at most n u_acc S. Infinite where S, hence perhaps a partial sum, exceeds the
        accumulator.

        Source: Higham, "Accuracy and Stability", §4.2; Rump (2012), and Jeannerod and Rump (2013)
        for n u. Of the additions the one with the j-th most terms in it has at most n − j + 1.
        """
        terms = a.value.size if axis is None else a.value.shape[axis]
        with np.errstate(over="ignore", invalid="ignore"):
            value, magnitudes = np.sum(a.value, axis=axis), np.sum(a.magnitude, axis=axis)
            largest = np.max(a.magnitude, axis=axis, initial=0.0)
        roundings = self.roundings(terms, magnitudes, largest)
        bound = np.sum(a.bound, axis=axis) + roundings
        return self._accumulated(value, bound, magnitudes, terms)

    def sum_of_squares(self, a: Bounded) -> Bounded:
        """EQ-BOUND-SQUARES: Σ(2|v|E + E²) + u Σ(|v| + E)², and the roundings of EQ-BOUND-SUM.

        Source: EQ-BOUND-MULTIPLY and EQ-BOUND-SUM, one after the other.
        """
        return self.total(self.multiply(a, a))

    @in_blocks
    def activation(self, name: str, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-ACTIVATION: f(z) and f′(z) as an implementation computes it from f(z).

        f(z): E = |f(e) − f(z)| + c u |f(e)| at the worse end e of z ± E_z, because f is monotone;
        c = 16 roundoffs for sigmoid and tanh, 0 for relu and linear.
        f′, stored: sigmoid, a(1 − a): |1 − 2a| E_a + E_a² + u(f′ + E). tanh, 1 − a² or
        (1 − a)(1 + a): 2|a| E_a + E_a² + u(|a| + E_a)² + γ₂(f′ + E). relu: undecided (E = 1) where
        |z| ≤ E_z. linear: exact.
        Where E_z is infinite E is too: z may be NaN.

        Source: EQ-BOUND-STORE, and the measured accuracy of the elementary functions
        (`SIGMOID_ROUNDOFFS`).
        """
        u = self.u
        function = activation_named(name)
        a, derivative = function.function(z.value), function.derivative(z.value)
        if name == "linear":
            return z, exact(derivative)
        if name == "relu":
            undecided = (np.abs(z.value) <= z.bound) & (z.bound > 0.0)
            moved = np.clip(z.value + z.bound, 0.0, z.bound)
            return Bounded(a, moved), Bounded(derivative, np.where(undecided, 1.0, 0.0))
        with np.errstate(invalid="ignore"):
            error = self._flushed(a, _moved(function.function, z, SIGMOID_ROUNDOFFS * u))
            if name == "sigmoid":
                change = np.abs(1.0 - 2.0 * a) * error + error**2
                rounding = u * (derivative + change)
            else:
                change = 2.0 * np.abs(a) * error + error**2
                rounding = u * (np.abs(a) + error) ** 2 + self.gamma(2.0) * (derivative + change)
        return Bounded(a, error), self.store(derivative, change + rounding)

    def mean_over_samples(self, a: Bounded, *, symmetric: bool = False) -> Bounded:
        """EQ-BOUND-RHO-HAT: E̅ + R/m + 2u(|a̅| + E̅), stored, with R the roundings of Σ(|a| + E).

        Those of EQ-BOUND-SUM. a̅ = Σa/m and E̅ = ΣE/m. For ρ̂ = (1 + a̅)/2 the sum is shifted, or its
        terms are, whichever is worse: E̅/2 + R/m + 3u max((|a̅| + E̅)/2, ρ̂ + E̅/2), stored, with
        R of Σ(|a| + E)/2 or of m(ρ̂ + E̅/2), whose terms are at most (1 + |a| + E)/2.

        Source: EQ-BOUND-SUM; a rounding of the sum, of 1/m, of their product, and of the shift.
        """
        m = len(a.value)
        mean, error = np.sum(a.value, axis=0) / m, self.mean_error(a)
        summed, divided = np.sum(a.magnitude, axis=0), np.abs(mean) + error
        largest = np.max(a.magnitude, axis=0)
        if not symmetric:
            roundings = self.roundings(m, summed, largest) / m
            bound = error + roundings + 2.0 * self.u * divided
            return self.store(mean, bound)
        rho_hat = (1.0 + mean) / 2.0
        shifted = rho_hat + error / 2.0
        roundings = np.maximum(
            self.roundings(m, summed / 2.0, largest / 2.0),
            self.roundings(m, m * shifted, (1.0 + largest) / 2.0),
        )
        bound = error / 2.0 + roundings / m + 3.0 * self.u * np.maximum(divided / 2.0, shifted)
        return self.store(rho_hat, bound)

    def target(self, rho: Any) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-TARGET: ρ ± E_ρ, as EQ-BOUND-NUMBER stores it; 1 − ρ: E_ρ + u(1 − ρ + E_ρ).

        An implementation may take 1 − ρ from ρ as it stores it: beside 1 that is all that is left
        of 1 − ρ. Both are infinitely uncertain where the stored ρ may be 0 or 1.

        Source: EQ-BOUND-NUMBER and EQ-BOUND-SUBTRACT.
        """
        stored = self.number(rho)
        rest = 1.0 - rho
        error = np.where(stored.bound < np.minimum(rho, rest), stored.bound, np.inf)
        return Bounded(stored.value, error), Bounded(
            np.array(rest), error + self.u * (rest + error)
        )

    def _rounded_divergence(self, rho: Any, logs: Array, logs_of_rest: Array) -> Array:
        """How far ρ(log ρ − l₁) + (1 − ρ)(log(1 − ρ) − l₀) may be where l₁ and l₀ are given.

        For each half, with w its weight, w ± E as in EQ-BOUND-TARGET and w₋ the least of it:
        E |log w − l| + (w + E)(D + γ₁₀(D + |log w₋| + |l|)) with D = log(w/w₋) + γ₃, as
        EQ-BOUND-KL explains.

        Args:
            rho: ρ.
            logs: The ends of what a right log r may be, stacked.
            logs_of_rest: Those of log(1 − r).
        """
        target, rest = self.target(rho)
        rounded = np.zeros(logs.shape[1:])
        least = target.value - target.bound
        for weight, smallest, ends in (
            (target, least, logs),
            (rest, (rest.value - target.bound) * (1.0 - self.u), logs_of_rest),
        ):
            with np.errstate(invalid="ignore"):
                log, least_log = np.log(weight.value), np.log(smallest)
                shifted = log - least_log + self.gamma(3.0)
                sizes = shifted + np.abs(least_log) + np.max(np.abs(ends), axis=0)
                rounded = (
                    rounded
                    + weight.bound * np.max(np.abs(log - ends), axis=0)
                    + weight.magnitude * (shifted + self.gamma(LOGARITHM_ROUNDOFFS + 2.0) * sizes)
                )
        return rounded

    def kl_divergence(self, rho: Any, rho_hat: Bounded, epsilon: float) -> Bounded:
        """EQ-BOUND-KL: E max|KL′| on ρ̂ ± E, and the rounding of both halves, stored.

        A half is w(log w − log r) with w = ρ, or 1 − ρ and 1 − r. What it may be off is
        E_w|log w − log r| + (w + E_w)(D + γ₁₀(D + |log w₋| + |log r|)), D = log(w/w₋) + γ₃, at the
        worst end of ρ̂ ± E, with w ± E_w as in EQ-BOUND-TARGET and w₋ the least of it. γ₃ is for
        1 − r, a quotient and a reciprocal; γ₁₀ for a logarithm (8), a difference and a product.

        Where ρ̂ ± E reaches an edge, which is known to E_e (EQ-BOUND-NUMBER), there is a tangent:
        (spread of KL′ over the edge ± E_e + rounding of KL′) times |ρ̂ − r| + E + E_e more. The
        rounding of KL′ is that of EQ-BOUND-KL-DERIVATIVE with three roundings more.

        Undecidable where r may be 0, flushed to 0, or 1, because of ρ̂ ± E or because an edge may
        be stored as that; and where ρ may be stored as 0 or 1.

        Source: the mean value theorem (KL′ is monotone, so its ends bound it), and the standard
        model for each operation. ρ̂ → 0 is benign; ρ̂ → 1 amplifies by ρ̂/(1 − ρ̂).
        """
        at = self._between_the_edges(rho, rho_hat, epsilon)
        value = extended_kl_divergence(rho, rho_hat.value, epsilon)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ends = np.stack([at.low, at.high])
            steepest = np.max(np.abs(kl_divergence_derivative(rho, ends)), axis=0)
            rounded = self._rounded_divergence(rho, np.log(ends), np.log1p(-ends))
            tangent = at.spread + self._rounded_slope(rho, at, roundings=10.0)
            tangent = tangent * at.beyond + self.u * np.abs(value) * (at.beyond > 0.0)
            bound = rho_hat.bound * steepest + rounded + tangent
        return self.store(value, np.where(at.undecidable, np.inf, bound))

    def kl_derivative(self, rho: Any, rho_hat: Bounded, epsilon: float) -> Bounded:
        """EQ-BOUND-KL-DERIVATIVE: the spread of KL′ over ρ̂ ± E, and its rounding, stored.

        Rounding: (E_ρ + γ₇ρ)/r + (E_q + γ₇q)/(1 − r) at the worst ends, with ρ ± E_ρ and
        q = 1 − ρ ± E_q as in EQ-BOUND-TARGET. Seven: 1 − r, and what is left of differentiating
        ρ log(ρ/r) one operation after the other (two quotients, two squares, two products); the
        plain quotients take fewer.

        Undecidable as EQ-BOUND-KL.

        Source: KL′ increases, so its ends bound it; the standard model for each operation.
        """
        at = self._between_the_edges(rho, rho_hat, epsilon)
        value = extended_kl_divergence_derivative(rho, rho_hat.value, epsilon)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spread = np.maximum(
                kl_divergence_derivative(rho, at.high) - value,
                value - kl_divergence_derivative(rho, at.low),
            )
            bound = spread + self._rounded_slope(rho, at, roundings=7.0)
        return self.store(value, np.where(at.undecidable, np.inf, bound))

    def _rounded_slope(self, rho: Any, at: _Nearest, *, roundings: float) -> Array:
        target, rest = self.target(rho)
        gamma = self.gamma(roundings)
        return (target.bound + gamma * target.magnitude) / at.low + (
            rest.bound + gamma * rest.magnitude
        ) / (1.0 - at.high)

    def _between_the_edges(self, rho: Any, rho_hat: Bounded, epsilon: float) -> _Nearest:
        """Where a right r = min(max(ρ̂, ε), 1 − ε) may be, and how far ρ̂ may be beyond it."""
        top = upper_edge(epsilon) if epsilon > 0.0 else 1.0
        of_lower = self.number(epsilon).bound
        of_upper = of_lower + self.number(top).bound
        least, most = rho_hat.value - rho_hat.bound, rho_hat.value + rho_hat.bound
        low = np.clip(least, epsilon - of_lower, top - of_upper)
        high = np.clip(most, epsilon + of_lower, top + of_upper)
        # A subnormal r may be flushed to zero.
        undecidable = ~((low >= self.precision.underflow) & (high < 1.0) & (rho_hat.bound < np.inf))
        below, above = least < epsilon + of_lower, most > top - of_upper
        beyond = np.abs(rho_hat.value - np.clip(rho_hat.value, epsilon, top))
        return _Nearest(
            np.where(undecidable, 0.5, low),
            np.where(undecidable, 0.5, high),
            undecidable,
            spread=np.maximum(
                np.where(below, _spread(rho, epsilon, of_lower), 0.0),
                np.where(above, _spread(rho, top, of_upper), 0.0),
            ),
            beyond=np.where(
                below | above,
                beyond + rho_hat.bound + np.where(above, of_upper, of_lower),
                0.0,
            ),
        )

    def log_mean_sigmoid(self, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-LOG-MEAN: log ρ̂ = log-mean-exp of log σ(z), and the shares of the samples.

        log σ: E_l as in EQ-BOUND-ACTIVATION, with 16 roundoffs. The mean:
        log Σᵢ pᵢe^{E_lᵢ} − log(1 − m u_acc) + 32u + 8u(|log ρ̂| + |max| + log m) + η e^max/ρ̂.
        A share p is exp(log σ − log ρ̂)/m: relative error
        e^{E_l + E + 4u(|log σ| + |log ρ̂|)} − 1 + 32u, at most 1 in all.

        Source: log Σ pᵢe^{±E_lᵢ} lies within ±log Σ pᵢe^{E_lᵢ}, because
        (Σ pᵢe^{E_lᵢ})(Σ pᵢe^{−E_lᵢ}) ≥ 1 by the Cauchy–Schwarz inequality; the operations by
        P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
        softmax functions", IMA J. Numer. Anal. 41 (2021), §3.
        """
        u = self.u
        m = len(z.value)
        logs = log_sigmoid(z.value)
        largest = np.max(logs, axis=0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            log_errors = self._flushed(logs, self._moved_log_sigmoid(z))
            log_rho_hat = log_mean_exp(logs)
            shares = np.exp(logs - log_rho_hat) / m
            bound = (
                log_mean_exp(logs + log_errors)
                - log_rho_hat
                - np.log(max(0.0, 1.0 - self.additions(m) * self.u_accumulator))
                + 32.0 * u
                + 8.0 * u * (np.abs(log_rho_hat) + np.abs(largest) + np.log(m))
                + self.precision.underflow * np.exp(largest - log_rho_hat)
            )
            relative = (
                np.expm1(log_errors + bound + 4.0 * u * (np.abs(logs) + np.abs(log_rho_hat)))
                + 32.0 * u
            )
            # A share is at most 1 on both sides, so no error exceeds 1.
            share_errors = self._flushed(shares, np.minimum(shares * relative, 1.0))
        return Bounded(log_rho_hat, bound), Bounded(shares, share_errors)

    def _moved_log_sigmoid(self, z: Bounded) -> Array:
        return _moved(log_sigmoid, z, SIGMOID_ROUNDOFFS * self.u)

    def kl_divergence_from_logits(self, rho: Any, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-KL-LOGITS: KL(ρ‖ρ̂) from logits and its gradient by each logit.

        Value: ρE₁ + (1 − ρ)E₀ and the rounding of both halves as in EQ-BOUND-KL, stored. Gradient
        −ρ p₁ σ(−z) + (1 − ρ) p₀ σ(z): EQ-BOUND-MULTIPLY and EQ-BOUND-SUBTRACT on its factors, ρ
        and 1 − ρ as in EQ-BOUND-TARGET.

        Source: EQ-BOUND-LOG-MEAN and the standard model.
        """
        ones, share_of_ones = self.log_mean_sigmoid(z)
        zeros, share_of_zeros = self.log_mean_sigmoid(z.negative)
        target, rest = self.target(rho)
        value = rho * (np.log(rho) - ones.value) + rest.value * (np.log1p(-rho) - zeros.value)
        rounded = self._rounded_divergence(
            rho,
            np.stack([ones.value - ones.bound, ones.value + ones.bound]),
            np.stack([zeros.value - zeros.bound, zeros.value + zeros.bound]),
        )
        bound = rho * ones.bound + rest.value * zeros.bound + rounded
        complement, _ = self.activation("sigmoid", z.negative)
        activation, _ = self.activation("sigmoid", z)
        gradient = self.subtract(
            self.multiply(rest, self.multiply(share_of_zeros, activation)),
            self.multiply(target, self.multiply(share_of_ones, complement)),
        )
        return self.store(value, bound), gradient


def _spread(rho: Any, edge: float, error: Array) -> Array:
    """The most that KL′ changes from an edge to the edge ± error; NaN at 0 and at 1."""
    with np.errstate(invalid="ignore"):
        around = np.clip([edge - error, edge, edge + error], 0.0, 1.0)
        around = np.broadcast_to(around.reshape(3, *np.ndim(rho) * (1,)), (3, *np.shape(rho)))
        return np.max(np.abs(np.diff(kl_divergence_derivative(rho, around), axis=0)), axis=0)


def _moved(function: Callable[[Any], Array], z: Bounded, relative: float) -> Array:
    """How far an increasing function is from f(z) at the ends of z ± E, if it is `relative` off."""
    # z ± E is itself rounded.
    reach = np.where(z.bound > 0.0, z.bound + ORACLE_ROUNDOFF * z.magnitude, 0.0)
    ends = np.stack([function(z.value - reach), function(z.value + reach)])
    moved = np.max(np.abs(ends - function(z.value)) + relative * np.abs(ends), axis=0)
    return np.where(np.isinf(reach), np.inf, moved)
