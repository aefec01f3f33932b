"""How far a right computation in low precision may be from the oracle, and why.

Value and bound travel together. A `Bounded` is the oracle's float64 value of a quantity and a
bound for the distance of any right implementation's value from it: any order of summation, any
usual way of writing the formula, elementary functions within a few roundoffs. `Arithmetic` holds
one rule for each operation; `reference.bounds` puts them together for the cost and its gradient.

The rules are first-order running error analysis made rigorous by evaluating every product of
magnitudes at |value| + bound. They use the model fl(a ∘ b) = (a ∘ b)(1 + δ), |δ| ≤ u, plus an
underflow term η, and for sums of n terms in any order |error| ≤ n u Σ|terms|.

A sum of n terms is allowed n u, not the √n u that is usual for random errors: backends do sum one
term after the other (over samples, say), and the roundings of equal terms add up.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., §2.2 (the
model), §3.1 (inner products), §4.2 (sums); C.-P. Jeannerod and S. M. Rump, "Improved error bounds
for inner products in floating-point arithmetic", SIAM J. Matrix Anal. Appl. 34 (2013), for n u in
place of n u/(1 − n u).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.activations import log_sigmoid, sigmoid, sigmoid_derivative, tanh, tanh_derivative
from reference.divergence import (
    extended_kl_divergence,
    kl_divergence_derivative,
    log_mean_exp,
)
from reference.validation import Array, real_array

ORACLE_ROUNDOFF = 2.0**-53
"""u of the oracle itself. Every rule adds it to the u of the tested precision: the bounds are
convex in u and vanish at 0, so the sum covers the errors of both sides."""

SIGMOID_ROUNDOFFS = 16.0
"""How many roundoffs a right sigmoid, tanh or softplus may be off (TensorFlow's float32 sigmoid
is off by up to 8.2: measured, see tests/reference/test_rounding.py for the factor that is left)."""

LOGARITHM_ROUNDOFFS = 8.0
"""How many roundoffs a right logarithm or exponential may be off (TensorFlow's float32 log is
off by up to 3.3)."""


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
        mantissa, _ = np.frexp(values)
        scaled = mantissa / (2.0 * self.unit_roundoff) * 2.0
        magnitudes = np.abs(values)
        normal = (magnitudes == 0.0) | (
            (magnitudes >= self.underflow) & (magnitudes <= self.largest)
        )
        return bool(np.all((scaled == np.round(scaled)) & normal))


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
    if name not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {sorted(PRECISIONS)}. Received {name!r}.")
    return PRECISIONS[name]


@dataclass(frozen=True, eq=False)
class Bounded:
    """A value of the oracle and how far a right computation may be from it.

    Args:
        value: float64, any shape.
        bound: The same shape, not negative. Infinite where nothing can be said: the case is
            undecidable (an intermediate may overflow, or ρ̂ may touch 0 or 1).
    """

    value: Array
    bound: Array

    @property
    def magnitude(self) -> Array:
        """|value| + bound: no right computation is larger."""
        return np.abs(self.value) + self.bound

    @property
    def transposed(self) -> Bounded:
        """The transpose of both."""
        return Bounded(self.value.T, self.bound.T)


def exact(value: Any) -> Bounded:
    """Return a value that both sides hold exactly, such as an input."""
    value = real_array("value", value)
    return Bounded(value, np.zeros_like(value))


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
    but larger than every value are counted and compared.

    Source: this project.

    Args:
        actual: The implementation's result, the shape of `expected`.
        expected: The oracle's value and bound.

    Raises:
        TypeError: If `actual` is not real.
        ValueError: If the shapes differ.

    >>> usage([1.5, 2.0], Bounded(np.array([1.0, 2.0]), np.array([1.0, 0.0]))).worst
    0.5
    """
    actual = real_array("actual", actual)
    if actual.shape != expected.value.shape:
        raise ValueError(f"`actual` must have shape {expected.value.shape}. Got {actual.shape}.")
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


class Arithmetic:
    """One rule of error propagation for each operation, in one precision.

    Every method takes and returns `Bounded` quantities. In the formulas E is a bound, v a value,
    u the unit roundoff, u_acc that of the accumulator, both with the oracle's own 2⁻⁵³ added.

    Args:
        precision: The name of a precision, or a `Precision`.
    """

    def __init__(self, precision: str | Precision) -> None:
        self.precision = precision_named(precision) if isinstance(precision, str) else precision
        self.u = self.precision.unit_roundoff + ORACLE_ROUNDOFF
        self.u_accumulator = self.precision.accumulator_roundoff + ORACLE_ROUNDOFF

    def store(self, value: Any, bound: Any) -> Bounded:
        """EQ-BOUND-STORE: E → E + u(|v| + E) + η; infinite where |v| + E exceeds the largest.

        Source: Higham, "Accuracy and Stability", §2.2, the standard model with underflow.

        >>> float(Arithmetic("float32").store(np.array(1.0), np.array(0.0)).bound) < 2.0**-23.99
        True
        """
        value = np.asarray(value, dtype=np.float64)
        magnitude = np.abs(value) + bound
        stored = bound + self.u * magnitude + self.precision.underflow
        return Bounded(value, np.where(magnitude <= self.precision.largest, stored, np.inf))

    def cast(self, a: Bounded) -> Bounded:
        """EQ-BOUND-CAST: nothing is lost if every value is exact and representable, else store.

        Source: EQ-BOUND-STORE.
        """
        if np.all(a.bound == 0.0) and self.precision.represents(a.value):
            return a
        return self.store(a.value, a.bound)

    def number(self, value: float) -> Bounded:
        """EQ-BOUND-NUMBER: a hyperparameter c is stored as c(1 + δ).

        Source: EQ-BOUND-STORE.
        """
        return self.cast(exact(value))

    def add(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-ADD: E = E_a + E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        return self.store(a.value + b.value, a.bound + b.bound)

    def subtract(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-SUBTRACT: E = E_a + E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        return self.store(a.value - b.value, a.bound + b.bound)

    def multiply(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-MULTIPLY: E = |a|E_b + |b|E_a + E_a E_b, stored.

        Source: Higham, "Accuracy and Stability", §2.2.
        """
        with np.errstate(invalid="ignore"):
            bound = np.abs(a.value) * b.bound + np.abs(b.value) * a.bound + a.bound * b.bound
        # 0 · ∞: nothing is known of the other factor.
        return self.store(a.value * b.value, np.where(np.isnan(bound), np.inf, bound))

    def divide_by_count(self, a: Bounded, count: float) -> Bounded:
        """EQ-BOUND-COUNT: division by a number of samples, or product with its stored inverse.

        Source: Higham, "Accuracy and Stability", §2.2; two roundings, of 1/m and of the product.
        """
        return self.multiply(a, self.store(np.array(1.0 / count), np.array(0.0)))

    def matmul(self, a: Bounded, b: Bounded) -> Bounded:
        """EQ-BOUND-MATMUL: |A|E_B + E_A|B| + E_A E_B + (K u_acc + 2u_in)(|A|+E_A)(|B|+E_B), stored.

        K terms a sum, u_in the shortening of the factors (TF32). The K products may each
        underflow: K η more.

        Source: Higham, "Accuracy and Stability", §3.1, eq (3.4); Jeannerod and Rump (2013) for
        K u.
        """
        terms = a.value.shape[1]
        relative = terms * self.u_accumulator + 2.0 * self.precision.factor_roundoff
        # (|A|+E_A)(|B|+E_B) − |A||B| is the first three terms in one product less.
        magnitudes = np.abs(a.value) @ np.abs(b.value)
        enlarged = a.magnitude @ b.magnitude
        with np.errstate(invalid="ignore"):
            bound = (enlarged - magnitudes) + 2.0**-52 * terms * enlarged + relative * enlarged
        bound = np.where(np.isnan(bound), np.inf, bound)
        return self.store(a.value @ b.value, bound + terms * self.precision.underflow)

    def total(self, a: Bounded, axis: int | None = None) -> Bounded:
        """EQ-BOUND-SUM: ΣE + n u_acc Σ(|v| + E), stored; any order of summation.

        Source: Higham, "Accuracy and Stability", §4.2; Jeannerod and Rump (2013) for n u.
        """
        terms = a.value.size if axis is None else a.value.shape[axis]
        bound = np.sum(a.bound, axis=axis) + terms * self.u_accumulator * np.sum(
            a.magnitude, axis=axis
        )
        return self.store(np.sum(a.value, axis=axis), bound)

    def sum_of_squares(self, a: Bounded) -> Bounded:
        """EQ-BOUND-SQUARES: Σ(2|v|E + E²) + (n u_acc + 2u) Σ(|v| + E)², stored.

        Source: EQ-BOUND-MULTIPLY and EQ-BOUND-SUM.
        """
        relative = a.value.size * self.u_accumulator + 2.0 * self.u
        bound = np.sum(2.0 * np.abs(a.value) * a.bound + a.bound**2) + relative * np.sum(
            a.magnitude**2
        )
        squares = np.sum(a.value**2)
        return self.store(squares, bound + a.value.size * self.precision.underflow)

    def activation(self, name: str, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-ACTIVATION: f(z) and f′(z) as an implementation computes it from f(z).

        sigmoid: E = min(a(1−a) e^{E_z}, ¼) E_z + 16u a;
        f′ = a(1−a): E = |1−2a| E_a + E_a² + 3u(f′ + E).
        tanh: E = min((1−a²) e^{2E_z}, 1) E_z + 16u |a|; f′ = 1−a²: E = 2|a| E_a + E_a² + 3u.
        relu: E = E_z; f′ is undecided (E = 1) where |z| ≤ E_z. linear: E = E_z; f′ exact.

        Source: the mean value theorem with |log f′|′ ≤ 1 (sigmoid) and ≤ 2 (tanh), and the
        measured accuracy of the elementary functions (`SIGMOID_ROUNDOFFS`).
        """
        u = self.u
        underflow = self.precision.underflow
        with np.errstate(over="ignore", invalid="ignore"):
            if name == "sigmoid":
                a, slope = sigmoid(z.value), sigmoid_derivative(z.value)
                steepest = np.minimum(slope * np.exp(z.bound), 0.25)
                moved = np.where(z.bound > 0.0, np.minimum(steepest * z.bound, 1.0), 0.0)
                error = moved + SIGMOID_ROUNDOFFS * u * a + underflow
                slope_error = np.abs(1.0 - 2.0 * a) * error + error**2
                slope_error = slope_error + 3.0 * u * (slope + slope_error) + underflow
            elif name == "tanh":
                a, slope = tanh(z.value), tanh_derivative(z.value)
                steepest = np.minimum(slope * np.exp(2.0 * z.bound), 1.0)
                moved = np.where(z.bound > 0.0, np.minimum(steepest * z.bound, 2.0), 0.0)
                error = moved + SIGMOID_ROUNDOFFS * u * np.abs(a) + underflow
                slope_error = 2.0 * np.abs(a) * error + error**2 + 3.0 * u
            elif name == "relu":
                a, slope = np.maximum(z.value, 0.0), np.where(z.value > 0.0, 1.0, 0.0)
                error = np.where(z.value < -z.bound, 0.0, z.bound)
                slope_error = np.where((np.abs(z.value) <= z.bound) & (z.bound > 0.0), 1.0, 0.0)
            else:
                a, slope = z.value, np.ones_like(z.value)
                error, slope_error = z.bound, np.zeros_like(z.value)
        return Bounded(a, error), Bounded(slope, slope_error)

    def mean_over_samples(self, a: Bounded, *, symmetric: bool = False) -> Bounded:
        """EQ-BOUND-RHO-HAT: ΣE/m + m u_acc Σ(|a|+E)/m + 3u |ρ̂|.

        For (1 + a)/2, half of that and (m u_acc + 4u) more, for the sum of the shifted values.

        Source: EQ-BOUND-SUM, and the division by m.
        """
        m = len(a.value)
        rho_hat = np.sum(a.value, axis=0) / m
        bound = (
            np.sum(a.bound, axis=0) / m
            + m * self.u_accumulator * np.sum(a.magnitude, axis=0) / m
            + 3.0 * self.u * np.abs(rho_hat)
            + self.precision.underflow
        )
        if symmetric:
            rho_hat = (1.0 + rho_hat) / 2.0
            bound = bound / 2.0 + m * self.u_accumulator + 4.0 * self.u
        return Bounded(rho_hat, bound)

    def _between_the_edges(
        self, rho_hat: Bounded, epsilon: float
    ) -> tuple[Array, Array, Array, Array]:
        """Return r, and how low and how high a right r may be; and where ρ̂ is undecidable.

        The upper edge 1 − ε and the difference 1 − r are known to u only: that is the condition
        of the KL at its upper end.
        """
        low = rho_hat.value - rho_hat.bound
        high = rho_hat.value + rho_hat.bound
        undecidable = ~np.isfinite(rho_hat.bound)
        if epsilon == 0.0:
            certain = rho_hat.bound == 0.0
            undecidable = undecidable | (~certain & ((low <= 0.0) | (high + self.u >= 1.0)))
        low = np.clip(low, epsilon, 1.0 - epsilon)
        high = np.clip(high, epsilon, 1.0 - epsilon)
        r = np.clip(rho_hat.value, epsilon, 1.0 - epsilon)
        low = np.where(r == 0.0, 0.0, low * (1.0 - 2.0 * self.u))
        high = np.where((r == 1.0) | (rho_hat.value == 0.0), high, high + self.u)
        undecidable = undecidable | (high > 1.0) | ((high == 1.0) & (r < 1.0))
        fallback = np.full_like(r, 0.5)
        return (
            r,
            np.where(undecidable, fallback, low),
            np.where(undecidable, fallback, high),
            undecidable,
        )

    def kl_divergence(self, rho: float, rho_hat: Bounded, epsilon: float) -> Bounded:
        """EQ-BOUND-KL: E max|KL′| + evaluation, on the interval ρ̂ ± E.

        Evaluation: u[ρ(1 + 11 L₁) + (1 − ρ)(4 + 11 L₀)] with L₁ = |log ρ| + |log r| and
        L₀ = |log(1 − ρ)| + |log(1 − r)| (8 roundoffs for a logarithm, 3 for the operations on
        it; 1 for ρ and 4 for 1 − ρ and 1 − r, each known to u), both taken at the worst end.
        Beyond an edge: the spread of KL′ over the uncertain edge, and 6u|KL′|, times |ρ̂ − r|.
        Without an extension (ε = 0) the case is undecidable where ρ̂ ± E touches 0 or 1.

        Source: the mean value theorem (KL′ is monotone, so its ends bound it), and the standard
        model for each operation. ρ̂ → 0 is benign; ρ̂ → 1 amplifies by ρ̂/(1 − ρ̂).
        """
        r, low, high, undecidable = self._between_the_edges(rho_hat, epsilon)
        value = extended_kl_divergence(rho, rho_hat.value, epsilon)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slopes = np.stack(
                [kl_divergence_derivative(rho, low), kl_divergence_derivative(rho, high)]
            )
            steepest = np.max(np.abs(slopes), axis=0)
            ones = np.abs(np.log(rho)) + np.abs(np.log(low))
            zeros = np.abs(np.log1p(-rho)) + np.abs(np.log1p(-high))
            per_logarithm = LOGARITHM_ROUNDOFFS + 3.0
            evaluation = self.u * (
                rho * (1.0 + per_logarithm * ones) + (1.0 - rho) * (4.0 + per_logarithm * zeros)
            )
            beyond = np.abs(rho_hat.value - r)
            edge_slopes = _spread_at_the_edges(rho, r, self.u)
            tangent = np.where(
                beyond > 0.0,
                (edge_slopes + 6.0 * self.u * steepest) * (beyond + rho_hat.bound),
                0.0,
            )
            moved = np.where(rho_hat.bound > 0.0, rho_hat.bound * steepest, 0.0)
            bound = moved + evaluation + tangent + self.u * np.abs(value)
        infinite = np.isinf(value)
        bound = np.where(undecidable | np.isnan(bound), np.inf, bound)
        return Bounded(value, np.where(infinite, np.inf, bound) + self.precision.underflow)

    def kl_derivative(self, rho: float, rho_hat: Bounded, epsilon: float) -> Bounded:
        """EQ-BOUND-KL-DERIVATIVE: the spread of KL′ over ρ̂ ± E, plus 6u(ρ/r + (1 − ρ)/(1 − r)).

        Source: KL′ increases, so its ends bound it; the standard model for each operation.
        """
        r, low, high, undecidable = self._between_the_edges(rho_hat, epsilon)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = kl_divergence_derivative(rho, r)
            spread = np.maximum(
                kl_divergence_derivative(rho, high) - value,
                value - kl_divergence_derivative(rho, low),
            )
            bound = spread + 6.0 * self.u * (rho / low + (1.0 - rho) / (1.0 - high))
        bound = np.where(undecidable | np.isnan(bound) | np.isinf(value), np.inf, bound)
        return Bounded(value, bound + self.precision.underflow)

    def log_mean_sigmoid(self, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-LOG-MEAN: log ρ̂ = log-mean-exp of log σ(z), and the shares of the samples.

        log σ: E_l = σ(−z)e^{E_z} E_z (at most E_z) + 16u|log σ|. The mean: Σᵢ pᵢ(e^{E_lᵢ} − 1)
        + (m u_acc + 32u) + 8u(|log ρ̂| + |max| + log m). A share p is
        exp(log σ − log ρ̂)/m: relative error e^{E_l + E + 4u(|log σ| + |log ρ̂|)} − 1 + 32u.

        Source: log Σ pᵢe^{±E_lᵢ} lies within ±Σ pᵢ(e^{E_lᵢ} − 1), by Jensen's inequality below
        and log(1 + t) ≤ t above; the operations by
        (P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
        softmax functions", IMA J. Numer. Anal. 41 (2021), §3).
        """
        u = self.u
        m = len(z.value)
        logs = log_sigmoid(z.value)
        with np.errstate(over="ignore"):
            steepest = np.minimum(sigmoid(-z.value) * np.exp(z.bound), 1.0)
            log_errors = steepest * z.bound + SIGMOID_ROUNDOFFS * u * np.abs(logs)
            log_errors = log_errors + self.precision.underflow
            log_rho_hat = log_mean_exp(logs)
            shares = np.exp(logs - log_rho_hat) / m
            bound = (
                np.sum(shares * np.expm1(log_errors), axis=0)
                + m * self.u_accumulator
                + 32.0 * u
                + 8.0 * u * (np.abs(log_rho_hat) + np.abs(np.max(logs, axis=0)) + np.log(m))
            )
            relative = (
                np.expm1(log_errors + bound + 4.0 * u * (np.abs(logs) + np.abs(log_rho_hat)))
                + 32.0 * u
            )
            # A share is at most 1 on both sides, so no error exceeds 1.
            share_errors = np.minimum(shares * relative, 1.0) + self.precision.underflow
        return Bounded(log_rho_hat, bound), Bounded(shares, share_errors)

    def kl_divergence_from_logits(self, rho: float, z: Bounded) -> tuple[Bounded, Bounded]:
        """EQ-BOUND-KL-LOGITS: KL(ρ‖ρ̂) from logits and its gradient by each logit.

        Value: ρE₁ + (1 − ρ)E₀ + u[ρ(4 + 11 L₁) + (1 − ρ)(4 + 11 L₀)]. Gradient
        −ρ p₁ σ(−z) + (1 − ρ) p₀ σ(z): EQ-BOUND-MULTIPLY and EQ-BOUND-ADD on its factors.

        Source: EQ-BOUND-LOG-MEAN and the standard model.
        """
        ones, share_of_ones = self.log_mean_sigmoid(z)
        zeros, share_of_zeros = self.log_mean_sigmoid(Bounded(-z.value, z.bound))
        entropy_one, entropy_zero = float(np.log(rho)), float(np.log1p(-rho))
        value = rho * (entropy_one - ones.value) + (1.0 - rho) * (entropy_zero - zeros.value)
        per_logarithm = LOGARITHM_ROUNDOFFS + 3.0
        bound = (
            rho * ones.bound
            + (1.0 - rho) * zeros.bound
            + self.u
            * (
                rho * (4.0 + per_logarithm * (abs(entropy_one) + np.abs(ones.value)))
                + (1.0 - rho) * (4.0 + per_logarithm * (abs(entropy_zero) + np.abs(zeros.value)))
            )
        )
        complement, _ = self.activation("sigmoid", Bounded(-z.value, z.bound))
        activation, _ = self.activation("sigmoid", z)
        gradient = self.subtract(
            self.multiply(self.number(1.0 - rho), self.multiply(share_of_zeros, activation)),
            self.multiply(self.number(rho), self.multiply(share_of_ones, complement)),
        )
        return Bounded(value, bound), gradient


def _spread_at_the_edges(rho: float, r: Array, u: float) -> Array:
    """How much KL′ changes when the edge r moves by the u to which 1 − r is known."""
    low = np.maximum(r - u * np.maximum(r, 0.5 * (r > 0.5)), r / 2.0)
    high = np.minimum(r + u, (1.0 + r) / 2.0)
    spread: Array = kl_divergence_derivative(rho, high) - kl_divergence_derivative(rho, low)
    return np.where(r > 0.5, spread, 4.0 * u * rho / np.maximum(r, np.finfo(float).tiny))
