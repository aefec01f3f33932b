"""How far a right computation is likely to be from the oracle: a second, smaller bound.

The rules of `reference.rounding` hold for every computation; at real sizes they are far from what
roundings do. Here each error has two parts. The certain part is what all implementations may be off
in the same direction for all samples: elementary functions, stored hyperparameters, 1/m, factors
that hardware shortens. It adds up as in `reference.rounding`. The likely part is that of the
roundings of sums and products. It rests on one assumption:

    a rounding error has mean 0, whatever the roundings before it were.

Then the roundings of a sum of n terms make √n u λ Σ|terms| and not n u Σ|terms|, by the
Azuma-Hoeffding inequality, whatever the order of the sum; and errors of different samples, which
have no roundings in common, add up as the root of the sum of their squares. Of errors within one
sample that is not assumed: their likely parts add up. λ is such that all numbers of a case are
inside together, but for the stated probability.

The assumption is false where terms are equal, or exact: so a result outside is suspicious and not
wrong. λ counts 10 numbers for each activation and parameter. Of short sums, n < λ², and in
16 bits the bound of `reference.rounding` is the smaller one: `smaller` takes that.

Sources: I. C. F. Ipsen and H. Zhou, "Probabilistic error analysis for inner products", SIAM J.
Matrix Anal. Appl. 41 (2020), §4 (roundings as a martingale); N. J. Higham and T. Mary, "A new
approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019) (what √n needs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.rounding import (
    Arithmetic,
    Bounded,
    Precision,
    exact,
    in_blocks,
    largest_term,
    product,
)
from reference.validation import Array


@dataclass(frozen=True, eq=False)
class Likely(Bounded):
    """A value whose bound is a certain part and a likely one.

    Args:
        value: float64, any shape.
        bound: The sum of both parts.
        likely: λ times the size by which the error deviates.
    """

    likely: Array

    @property
    def transposed(self) -> Likely:
        """The transpose of all three."""
        return Likely(self.value.T, self.bound.T, self.likely.T)

    @property
    def negative(self) -> Likely:
        """−v, as uncertain."""
        return Likely(-self.value, self.bound, self.likely)


def likely_factor(numbers: int, false_alarm: float) -> float:
    """EQ-BOUND-LIKELY-FACTOR: λ = √(2 log(2N/p)).

    N deviations, each beyond λ times its size with a probability of at most 2 exp(−λ²/2), are all
    inside but for a probability of p.

    Source: Ipsen and Zhou (2020), §4, the Azuma-Hoeffding inequality; a union of N events.

    >>> round(likely_factor(1, 1e-9), 2)
    6.54
    """
    return float(np.sqrt(2.0 * np.log(2.0 * numbers / false_alarm)))


class LikelyArithmetic(Arithmetic):
    """The rules of `Arithmetic` with a likely part L beside the certain part C of each bound.

    Where a rule of `Arithmetic` is not written anew it is taken for the whole bound C + L.

    Args:
        precision: As `Arithmetic`.
        factor: λ.
    """

    def __init__(self, precision: str | Precision, factor: float) -> None:
        super().__init__(precision)
        self.factor = factor
        self._shortened = 2.0 * self.precision.factor_roundoff

    def store(self, value: Any, bound: Any, likely: Any = 0.0) -> Likely:
        """EQ-BOUND-LIKELY-STORE: L → L + λu(|v| + C + L); C as in EQ-BOUND-STORE without its u.

        Source: EQ-BOUND-STORE; Ipsen and Zhou (2020), §4.
        """
        value = np.asarray(value, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            both, size = bound + likely, np.abs(value)
            magnitude = size + both
            rounded = likely + self.factor * self.u * magnitude
            flushed = size - both < self.precision.underflow
            if flushed.any():
                smallest = np.maximum(bound + self.u * self.precision.underflow, size)
                bound = np.where(flushed, smallest, bound)
            total = bound + rounded
            fits = magnitude <= self.precision.largest
            if not fits.all():
                total = np.where(fits, total, np.inf)
            finite = np.isfinite(total)
            return Likely(value, total, rounded if finite.all() else np.where(finite, rounded, 0.0))

    def cast(self, a: Bounded) -> Bounded:
        """As `Arithmetic.cast`."""
        kept = (a.bound == 0.0) & self.precision.are_numbers(a.value)
        if kept.all():
            return a
        stored = self.store(a.value, *_parts(a))
        return Likely(
            a.value, np.where(kept, 0.0, stored.bound), np.where(kept, 0.0, stored.likely)
        )

    def shared(self, a: Bounded) -> Bounded:
        """What all samples have in common is off alike for all: its bound is certain."""
        return Bounded(a.value, a.bound)

    def number(self, value: float) -> Bounded:
        """As `Arithmetic.number`: all samples have it in common."""
        return self.shared(self.cast(exact(value)))

    @in_blocks
    def add(self, a: Bounded, b: Bounded) -> Likely:
        """As `Arithmetic.add`, for each part; stored."""
        (c, r), (d, s) = _parts(a), _parts(b)
        with np.errstate(over="ignore", invalid="ignore"):
            return self.store(a.value + b.value, c + d, r + s)

    @in_blocks
    def subtract(self, a: Bounded, b: Bounded) -> Likely:
        """As `Arithmetic.subtract`, for each part; stored."""
        (c, r), (d, s) = _parts(a), _parts(b)
        with np.errstate(over="ignore", invalid="ignore"):
            return self.store(a.value - b.value, c + d, r + s)

    @in_blocks
    def multiply(self, a: Bounded, b: Bounded) -> Likely:
        """EQ-BOUND-LIKELY-MULTIPLY: L = (|a| + E_a)L_b + (|b| + C_b)L_a, stored.

        C = |a|C_b + |b|C_a + C_a C_b, and E = C + L.

        Source: EQ-BOUND-MULTIPLY.
        """
        (c, r), (d, s) = _parts(a), _parts(b)
        size_a, size_b = np.abs(a.value), np.abs(b.value)
        with np.errstate(over="ignore", invalid="ignore"):
            certain = size_a * d + size_b * c + c * d
            likely = a.magnitude * s + (size_b + d) * r
            return self.store(a.value * b.value, certain, likely)

    def divide_by_count(self, a: Bounded, count: float) -> Likely:
        """As `Arithmetic.divide_by_count`: all samples have 1/m in common."""
        return self.multiply(a, self.shared(self.store(1.0 / count, 0.0)))

    def matmul(self, a: Bounded, b: Bounded, start: Bounded | None = None) -> Likely:
        """EQ-BOUND-LIKELY-MATMUL: (|A|+E_A)L_B + L_A(|B|+C_B) + λu_acc √(M² + (K − 1)P²) is L.

        Stored. C = |A|C_B + C_A(|B| + C_B) + 2u_in M + K η_acc: what hardware shortens it shortens
        alike. M, P and `start` are those of EQ-BOUND-MATMUL.

        Source: EQ-BOUND-MATMUL; Ipsen and Zhou (2020), §4: whatever the order, no rounding is more
        than u_acc P.
        """
        (c, r), (d, s) = _parts(a), _parts(b)
        size_a, size_b = np.abs(a.value), np.abs(b.value)
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = a.magnitude @ b.magnitude
            certain = product(size_a, d) + product(c, size_b + d) + self._shortened * sizes
            likely = product(a.magnitude, s) + product(r, size_b + d)
            return self._of_products(
                a.value @ b.value, certain, likely, sizes, largest_term(a, b), len(b.value), start
            )

    def matmul_over_samples(self, a: Bounded, b: Bounded) -> Likely:
        """EQ-BOUND-LIKELY-SAMPLES: Aᵀ B, a sum over samples: √Σᵢ ((|aᵢ|+E)L_bᵢ + L_aᵢ(|bᵢ|+C))².

        That in place of the products of EQ-BOUND-LIKELY-MATMUL; all else as there.

        Source: the Azuma-Hoeffding inequality for the sum of what the samples deviate by: they have
        no roundings in common.
        """
        (c, r), (d, s) = _parts(a), _parts(b)
        size_a, size_b = np.abs(a.value), np.abs(b.value)
        larger_a, larger_b = a.magnitude, size_b + d
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = a.magnitude.T @ b.magnitude
            certain = product(size_a.T, d) + product(c.T, larger_b) + self._shortened * sizes
            squares = (
                product((larger_a**2).T, s**2)
                + product(2.0 * (larger_a * r).T, s * larger_b)
                + product((r**2).T, larger_b**2)
            )
            return self._of_products(
                a.value.T @ b.value,
                certain,
                np.sqrt(squares),
                sizes,
                largest_term(a.transposed, b),
                len(a.value),
            )

    @in_blocks
    def _of_products(
        self,
        value: Any,
        certain: Any,
        likely: Any,
        sizes: Any,
        largest: Any,
        terms: int,
        start: Bounded | None = None,
    ) -> Likely:
        moved = certain + likely
        partial, additions = self.partial_sums(value, sizes, moved, largest, terms, start)
        roundings = np.sqrt(sizes**2 + additions * partial**2)
        return self._summed(value, certain, likely, sizes, terms, self.factor * roundings)

    def _summed(
        self, value: Any, certain: Any, likely: Any, sizes: Any, terms: int, roundings: Any
    ) -> Likely:
        likely = likely + self.u_accumulator * roundings
        fits = sizes * (1.0 + terms * self.u_accumulator) <= self.accumulator.largest
        certain = np.where(fits, certain + terms * self.accumulator.underflow, np.inf)
        return self.store(value, certain, likely)

    def total(self, a: Bounded, axis: int | None = None) -> Likely:
        """EQ-BOUND-LIKELY-SUM: C = ΣC + n η_acc; L = √Σᵢ(Σⱼ L)² + λ√n u_acc Σ(|v| + E), stored.

        i counts rows (samples, or rows of a kernel). Within a row likely parts add up.

        Source: EQ-BOUND-LIKELY-SAMPLES.
        """
        certain, likely = _parts(a)
        terms = a.value.size if axis is None else a.value.shape[axis]
        with np.errstate(over="ignore", invalid="ignore"):
            of_sum: Any = np.sum(likely, axis=axis)
            if axis == 0:
                of_sum = np.sqrt(np.sum(likely**2, axis=0))
            elif axis is None and a.value.ndim:
                of_sum = np.linalg.norm(np.sum(likely.reshape(len(likely), -1), axis=1))
            sizes = np.sum(a.magnitude, axis=axis)
            return self._summed(
                np.sum(a.value, axis=axis),
                np.sum(certain, axis=axis),
                of_sum,
                sizes,
                terms,
                self.additions(terms) * sizes,
            )

    def additions(self, terms: int) -> float:
        """λ√n, which the roundings of a sum of n terms are likely to make."""
        return self.factor * float(np.sqrt(terms))

    def roundings(self, terms: int, sizes: Any, largest: Any) -> Any:
        """As `Arithmetic.roundings`, those that are likely: λ√n u_acc S."""
        return self.additions(terms) * self.u_accumulator * sizes

    def mean_error(self, a: Bounded) -> Array:
        """Of a mean over the samples; the mean is shared by all samples that follow from it."""
        certain, likely = _parts(a)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.sum(likely**2, axis=0)
            mean: Array = (np.sum(certain, axis=0) + np.sqrt(squares)) / len(a.value)
        return mean

    def mean_over_samples(self, a: Bounded, *, symmetric: bool = False) -> Bounded:
        """As `Arithmetic.mean_over_samples`, with `mean_error` and `additions` of here."""
        return self.shared(super().mean_over_samples(a, symmetric=symmetric))

    @in_blocks
    def activation(self, name: str, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-LIKELY-ACTIVATION: C is EQ-BOUND-ACTIVATION for C_z, C + L that for C_z + L_z.

        Source: EQ-BOUND-ACTIVATION; to first order L is |f′| L_z.
        """
        certain = super().activation(name, Bounded(z.value, _parts(z)[0]))
        both = super().activation(name, Bounded(z.value, z.bound))
        a, slope = (
            Likely(
                certain_and_likely.value,
                certain_and_likely.bound,
                _beyond(certain_and_likely.bound, part.bound),
            )
            for certain_and_likely, part in zip(both, certain, strict=True)
        )
        return a, slope

    def log_mean_sigmoid(self, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-LIKELY-LOG-MEAN: EQ-BOUND-LOG-MEAN for C_z, + √Σᵢ(pᵢ xᵢ)² with x what L_z makes.

        x is the likely part of log σ(z). The shares have that root, times p, as a certain part more
        (all samples have ρ̂ in common), and p(eˣ − 1) as their likely part.

        Source: EQ-BOUND-LIKELY-SAMPLES; ∂ log ρ̂/∂ log σᵢ = pᵢ.
        """
        certain = Bounded(z.value, _parts(z)[0])
        log_rho_hat, shares = super().log_mean_sigmoid(certain)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = _beyond(self._moved_log_sigmoid(z), self._moved_log_sigmoid(certain))
            own = np.expm1(moved) * shares.value
            of_mean = np.sqrt(np.sum(own**2, axis=0))
            of_shares = shares.bound + shares.value * np.expm1(of_mean) + own
            return Bounded(log_rho_hat.value, log_rho_hat.bound + of_mean), Likely(
                shares.value, of_shares, np.where(np.isfinite(of_shares), own, 0.0)
            )


def _parts(a: Bounded) -> tuple[Array, Array]:
    """The certain and the likely part."""
    if isinstance(a, Likely):
        return _beyond(a.bound, a.likely), a.likely
    return a.bound, np.zeros_like(a.bound)


def _beyond(bound: Array, part: Array) -> Array:
    """The rest of a bound; infinite where it is."""
    with np.errstate(invalid="ignore"):
        rest: Array = np.where(np.isinf(bound), np.inf, np.maximum(bound - part, 0.0))
    return rest
