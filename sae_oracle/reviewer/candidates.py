"""The sparsity penalties that people write, right and wrong, and which of them fits observations.

A candidate is a product of independent choices: what the input is taken for, over what the mean
runs, which divergence, sum or mean over units, the base of the logarithm, the power of β and of
the batch size, the sign. Every choice but one in each is a mistake of the catalogue; a candidate
that fits every observation within its bound explains the numbers, and the one with the fewest
mistakes explains them best. Plain NumPy, no backend; complex-capable, so that an imaginary step
gives derivatives without rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from reference.rounding import LOGARITHM_ROUNDOFFS, SIGMOID_ROUNDOFFS, precision_named

GUARD = 1e-5
"""The largest ε that an implementation may add to ρ̂ and 1 − ρ̂ without changing what it computes."""

INSIDE = 2e-3
"""Candidates are compared where every ρ̂ is at least this far from 0 and 1: an implementation may
clip or extend nearer to the edge."""


@dataclass(frozen=True)
class Observation:
    """What an implementation adds to the loss.

    Args:
        x: (samples, units), its input, exactly.
        rho: The ρ that it was given.
        beta: The β that it was given.
        value: The number that reached the loss.
        uncertainty: How far `value` may be off beside the rounding of the term itself, such as
            where it is the difference of larger numbers.
        widths: Of the layers whose penalties are added, if there are several.
    """

    x: Any
    rho: float
    beta: float
    value: float
    uncertainty: float = 0.0
    widths: tuple[int, ...] = ()

    def layers(self) -> list[Any]:
        """Return the activations of each layer."""
        return np.split(self.x, np.cumsum(self.widths)[:-1], axis=1) if self.widths else [self.x]


@dataclass(frozen=True)
class Choice:
    """One value of one axis: a name, the mistakes that it is, and how far-fetched it is."""

    name: str
    mistakes: tuple[str, ...]
    cost: float
    function: Callable[..., Any]


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


INPUTS: dict[str, Callable[[Any], Any]] = {
    "activations": lambda x: x,
    "logits": _sigmoid,
    "symmetric": lambda x: 0.5 + 0.5 * x,
}


def _halves(a: Any) -> Any:
    parts = np.array_split(a, 2, axis=0)
    return np.stack([np.sum(part, axis=0) / len(part) for part in parts if len(part)])


# Each returns (groups, units): the KL is summed over units and averaged over groups.
MEANS = (
    Choice("mean over samples", (), 0.0, lambda a: np.sum(a, 0, keepdims=True) / a.shape[0]),
    Choice("sum over samples", ("SAE104",), 1.0, lambda a: np.sum(a, 0, keepdims=True)),
    Choice("mean over units", ("SAE105",), 1.0, lambda a: np.sum(a, 1)[None, :] / a.shape[1]),
    Choice("mean over all", ("SAE106",), 1.0, lambda a: np.sum(a).reshape(1, 1) / a.size),
    Choice(
        "mean over all, for each unit",
        ("SAE106",),
        1.0,
        lambda a: np.repeat(np.sum(a).reshape(1, 1) / a.size, a.shape[1], axis=1),
    ),
    Choice("each activation", ("SAE107",), 1.0, lambda a: a),
    Choice("mean over halves", ("SAE125",), 1.2, _halves),
)


def _forward(rho: float, r: Any) -> Any:
    return _ones_half(rho, r) + _zeros_half(rho, r)


def _ones_half(rho: float, r: Any) -> Any:
    return rho * (np.log(rho) - np.log(r))


def _zeros_half(rho: float, r: Any) -> Any:
    return (1.0 - rho) * (np.log1p(-rho) - np.log(1.0 - r))


def _reversed(rho: float, r: Any) -> Any:
    return _reversed_ones(rho, r) + (1.0 - r) * (np.log(1.0 - r) - np.log1p(-rho))


def _reversed_ones(rho: float, r: Any) -> Any:
    return r * (np.log(r) - np.log(rho))


# Of each mistake the formulas that make it, and how far-fetched they are.
_FORMULAS: tuple[tuple[str, float, dict[str, Callable[[float, Any], Any]]], ...] = (
    ("", 0.0, {"KL": _forward}),
    ("SAE108", 1.0, {"KL reversed": _reversed}),
    ("SAE109", 1.0, {"ρ half": _ones_half}),
    ("SAE110", 1.0, {"1 − ρ half": _zeros_half}),
    ("SAE108 SAE109", 2.0, {"ρ half reversed": _reversed_ones}),
    (
        "SAE117",
        1.0,
        {"cross-entropy": lambda rho, r: -rho * np.log(r) - (1.0 - rho) * np.log(1.0 - r)},
    ),
    ("SAE109 SAE117", 2.0, {"ρ half of the cross-entropy": lambda rho, r: -rho * np.log(r)}),
    ("SAE120", 1.0, {"ρ and 1 − ρ exchanged": lambda rho, r: _forward(1.0 - rho, r)}),
    (
        "SAE119",
        1.0,
        {  # The kl_div of torch takes the logarithm of ρ̂.
            "ρ (log ρ − ρ̂): no logarithm of ρ̂": lambda rho, r: (
                _no_log(rho, r) + _no_log(1.0 - rho, 1.0 - r)
            ),
        },
    ),
    (
        "SAE109 SAE119",
        2.0,
        {"the ρ half, ρ (log ρ − ρ̂): no logarithm of ρ̂": lambda rho, r: _no_log(rho, r)},
    ),
    (
        "SAE119",
        1.1,
        {
            "the second half subtracted": lambda rho, r: _ones_half(rho, r) - _zeros_half(rho, r),
            "the first half subtracted": lambda rho, r: _zeros_half(rho, r) - _ones_half(rho, r),
            # The softmax of as many ρ is 1 over their number, whatever ρ is.
            "KL between softmaxes over the units": lambda _, r: _forward(
                1.0 / r.shape[-1], _softmax(r)
            ),
            "the absolute values of the halves": lambda rho, r: (
                _absolute(_ones_half(rho, r)) + _absolute(_zeros_half(rho, r))
            ),
            "the square root of their sum": lambda rho, r: np.sqrt(
                np.sum(_forward(rho, r), axis=-1, keepdims=True)
            ),
            "the square (ρ̂ − ρ)²": lambda rho, r: (r - rho) ** 2,
            "the distance |ρ̂ − ρ|": lambda rho, r: _absolute(r - rho),
            "the logarithms without their weights": lambda rho, r: (
                np.log(rho) - np.log(r) + np.log1p(-rho) - np.log(1.0 - r)
            ),
            "Jensen and Shannon's divergence": lambda rho, r: (
                0.5 * (_forward(rho, (r + rho) / 2.0) + _forward(r, (r + rho) / 2.0))
            ),
            "KL(ρ‖ρ̂) + KL(ρ̂‖ρ)": lambda rho, r: _forward(rho, r) + _reversed(rho, r),
        },
    ),
    (
        "SAE109 SAE119",
        2.1,
        {
            "ρ half of the KL between softmaxes over the units": lambda _, r: _ones_half(
                1.0 / r.shape[-1], _softmax(r)
            ),
        },
    ),
    (
        "SAE129",
        1.0,
        {  # Slips of precedence: log(1 − ρ/1 − ρ̂) and log((1 − ρ)/1 − ρ̂) are both log(1 − ρ − ρ̂).
            "log(1 − ρ/1 − ρ̂)": lambda rho, r: (
                _ones_half(rho, r) + (1.0 - rho) * np.log(1.0 - rho - r)
            ),
            "log(1 − ρ/(1 − ρ̂))": lambda rho, r: (
                _ones_half(rho, r) + (1.0 - rho) * np.log(1.0 - rho / (1.0 - r))
            ),
            "log((1 − ρ)/1) − ρ̂": lambda rho, r: (
                _ones_half(rho, r) + (1.0 - rho) * (np.log1p(-rho) - r)
            ),
            "1 − ρ log((1 − ρ)/(1 − ρ̂))": lambda rho, r: (
                _ones_half(rho, r) + 1.0 - rho * (np.log1p(-rho) - np.log(1.0 - r))
            ),
            "log(ρ)/ρ̂ and log(1 − ρ)/(1 − ρ̂)": lambda rho, r: (
                rho * np.log(rho) / r + (1.0 - rho) * np.log1p(-rho) / (1.0 - r)
            ),
            "ρ log(ρ/ρ̂ + (1 − ρ) log((1 − ρ)/(1 − ρ̂)))": lambda rho, r: (
                rho * np.log(rho / r + _zeros_half(rho, r))
            ),
        },
    ),
    (
        "SAE129",
        1.05,
        {
            "the (1 − ρ) half without its weight": lambda rho, r: (
                _ones_half(rho, r) + np.log1p(-rho) - np.log(1.0 - r)
            ),
            "the ρ half without its weight": lambda rho, r: (
                np.log(rho) - np.log(r) + _zeros_half(rho, r)
            ),
        },
    ),
)
DIVERGENCES = tuple(
    Choice(name, tuple(mistakes.split()), cost, function)
    for mistakes, cost, formulas in _FORMULAS
    for name, function in formulas.items()
)


def _no_log(rho: float, r: Any) -> Any:
    return rho * (np.log(rho) - r)


def _absolute(x: Any) -> Any:
    return np.where(np.real(x) < 0.0, -x, x)


def _softmax(r: Any) -> Any:
    powers = np.exp(r)
    return powers / np.sum(powers, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Context:
    """What is expected of the implementation.

    Args:
        divided: Whether Keras divides its value by the batch size before it reaches the loss.
        input: A key of `INPUTS`: what it is said to take.
        beta_is_known: Whether powers of β can be told apart.
    """

    divided: bool
    input: str = "activations"
    beta_is_known: bool = True


@dataclass(frozen=True)
class Explanation:
    """A candidate that fits every observation.

    Args:
        cost: How many mistakes, with a preference for the common ones.
        mistakes: Their identifiers; none: it is right.
        input: A key of `INPUTS`.
        mean: A choice of `MEANS`.
        divergence: A choice of `DIVERGENCES`.
        factor: The product of all factors as a function of samples, units and β.
        words: The candidate in words.
    """

    cost: float
    mistakes: tuple[str, ...]
    input: str
    mean: Choice
    divergence: Choice
    factor: Callable[[int, int, float], float]
    words: str

    def value(self, x: Any, rho: float, beta: float) -> Any:
        """Return what the candidate adds to the loss; complex where `x` is."""
        with np.errstate(all="ignore"):
            groups = self.mean.function(INPUTS[self.input](x))
            divergences = self.divergence.function(rho, groups)
        total = np.sum(divergences) / len(groups)
        return total * self.factor(x.shape[0], groups.shape[1], beta)

    def gradient(self, x: Any, rho: float, beta: float) -> Any:
        """Return the candidate's derivative by each element of `x`, to float64 rounding."""
        gradient = np.zeros(x.shape)
        for index in np.ndindex(*x.shape):
            moved = np.asarray(x, dtype=complex)
            moved[index] += 1e-30j
            gradient[index] = np.imag(self.value(moved, rho, beta)) / 1e-30
        return gradient


def bounded_sum(
    input_kind: str,
    mean: Choice,
    divergence: Choice,
    x: Any,
    rho: float,
    precision: str = "float32",
) -> tuple[float, float]:
    """Return the sum of divergences in float64 and how far a right computation may be from it.

    The bound is EQ-BOUND-RHO-HAT for the mean, then EQ-BOUND-KL for the divergence (the error of
    ρ̂ times the slope, and the roundings of the logarithms and their weights), then
    EQ-BOUND-SUM; and GUARD for an ε that is added to the arguments of the logarithms. NaN where
    a ρ̂ is too near an edge.
    """
    u = precision_named(precision).unit_roundoff
    with np.errstate(all="ignore"):
        groups = mean.function(INPUTS[input_kind](x))
        if np.any(groups < INSIDE) or np.any(groups > 1.0 - INSIDE):
            return float("nan"), float("inf")
        values = divergence.function(rho, groups)
        slopes = np.abs(np.imag(divergence.function(rho, groups + 1e-30j)) / 1e-30)
        of_input = SIGMOID_ROUNDOFFS * u if input_kind == "logits" else u
        of_mean = (x.size + 3.0) * u * groups + of_input
        guard = GUARD * (rho / groups + (1.0 - rho) / (1.0 - groups) + slopes)
        logarithms = np.abs(np.log(groups)) + np.abs(np.log(1.0 - groups))
        logarithms = logarithms + abs(np.log(rho)) + abs(np.log1p(-rho))
        rounding = u * (4.0 + (LOGARITHM_ROUNDOFFS + 3.0) * logarithms)
        bound = np.sum(of_mean * slopes + guard + rounding + values.size * u * np.abs(values))
        return float(np.sum(values)) / len(groups), float(bound) / len(groups)


@dataclass(frozen=True)
class Factor:
    """A product of factors, as a choice of their exponents."""

    cost: float
    mistakes: tuple[str, ...]
    sign: float
    batch: int
    units: bool
    base: float
    beta: int

    def __call__(self, samples: int, units: int, beta: float) -> float:
        """Return the factor for a batch of that shape."""
        divisor = np.log(self.base) * (units if self.units else 1.0)
        return float(self.sign * float(samples) ** self.batch * beta**self.beta / divisor)

    @property
    def words(self) -> str:
        """The factor in words; empty if it is the right one."""
        parts = []
        if self.sign < 0:
            parts.append("negative")
        if self.batch:
            parts.append({-2: "/ m²", -1: "/ m", 1: "· m", 2: "· m²"}[self.batch])
        if self.units:
            parts.append("mean over units")
        if self.base != np.e:
            parts.append(f"logarithm to base {self.base:g}")
        if self.beta != 1:
            parts.append({0: "without β", 2: "β²", 3: "β³"}[self.beta])
        return ", ".join(parts)


def _factors(context: Context) -> Iterator[Factor]:
    if context.divided:
        batches = {0: (), -1: ("SAE101",), -2: ("SAE101", "SAE102"), 1: ("SAE103",)}
    else:
        batches = {0: (), -1: ("SAE102",), 1: ("SAE103",), -2: ("SAE102", "SAE102")}
    betas = {1: (), 0: ("SAE113",), 2: ("SAE114",), 3: ("SAE114", "SAE114")}
    if not context.beta_is_known:
        betas = {1: ()}
    for (batch, b), units, base, (beta, p), sign in itertools.product(
        batches.items(), (False, True), (np.e, 2.0, 10.0), betas.items(), (1.0, -1.0)
    ):
        mistakes = b + p
        if units:
            mistakes += ("SAE111",)
        if base != np.e:
            mistakes += ("SAE112",)
        if sign < 0:
            mistakes += ("SAE118",)
        # What Keras does is no mistake in the formula: it is the first to be believed.
        cost = float(len(mistakes)) - (0.5 if "SAE101" in b else 0.0)
        yield Factor(cost, mistakes, sign, batch, units, base, beta)


_INPUT_MISTAKES = {
    ("activations", "logits"): ("SAE122",),
    ("activations", "symmetric"): ("SAE123",),
    ("logits", "activations"): ("SAE121",),
    ("logits", "symmetric"): ("SAE121", "SAE123"),
    ("symmetric", "activations"): ("SAE124",),
    ("symmetric", "logits"): ("SAE124", "SAE122"),
}


def explain(
    observations: Sequence[Observation],
    context: Context,
    most_mistakes: int = 3,
    only_exact: bool = False,
) -> list[Explanation]:
    """Return the candidates that fit every observation, the fewest mistakes first.

    Args:
        observations: Of several shapes, ρ and β.
        context: What is expected.
        most_mistakes: How many mistakes an explanation may have.
        only_exact: Whether to leave out constant multiples and large guards.

    Returns:
        The best explanations: those with as few mistakes as the first (what Keras itself does
        does not count). Empty if nothing fits.
    """
    factors = sorted(_factors(context), key=lambda factor: factor.cost)
    fitting: list[Explanation] = []
    for explanation in _exact(observations, context, factors, most_mistakes):
        if not explanation.mistakes:
            return [explanation]
        fitting.append(explanation)
    if not fitting and not only_exact:
        fitting += _constant_multiples(observations, context, factors)
        fitting += _large_guards(observations, context, factors)
    fitting.sort(key=lambda explanation: explanation.cost)
    if not fitting:
        return []
    best: list[Explanation] = []
    for explanation in fitting:
        if explanation.cost > fitting[0].cost + 0.55:
            break
        known = [set(other.mistakes) for other in best]
        if not any(seen <= set(explanation.mistakes) for seen in known):
            best.append(explanation)
    return best[:3]


def _combinations(context: Context) -> Iterator[tuple[float, tuple[str, ...], str, Choice, Choice]]:
    names = sorted(INPUTS, key=lambda name: name != context.input)  # the right one first
    for input_kind, mean, divergence in itertools.product(names, MEANS, DIVERGENCES):
        of_input = _INPUT_MISTAKES.get((context.input, input_kind), ())
        mistakes = of_input + mean.mistakes + divergence.mistakes
        yield len(of_input) + mean.cost + divergence.cost, mistakes, input_kind, mean, divergence


def _units(mean: Choice, x: Any) -> int:
    return int(mean.function(np.full(x.shape, 0.5)).shape[1])


def _is_decided(observations: Sequence[Observation], decided: Any) -> bool:
    """Whether enough was compared: several batch sizes, and widths if there are."""
    shapes = [o.x.shape for o, d in zip(observations, decided, strict=True) if d]
    widths = min(2, len({o.x.shape[1] for o in observations}))  # a model has one width alone
    several = len({s[0] for s in shapes}) >= 2 and len({s[1] for s in shapes}) >= widths
    return len(shapes) >= 4 and several


@dataclass(frozen=True)
class _Trial:
    """One combination on all observations: Σ KL with its bound, before any factor."""

    cost: float
    mistakes: tuple[str, ...]
    input_kind: str
    mean: Choice
    divergence: Choice
    values: Any
    bounds: Any
    decided: Any  # where there is a value to compare
    units: tuple[int, ...]

    def scale(self, observations: Sequence[Observation], factor: Factor) -> Any:
        """The factor on each observation."""
        pairs = zip(observations, self.units, strict=True)
        return np.array([factor(o.x.shape[0], units, o.beta) for o, units in pairs])


def _trials(
    observations: Sequence[Observation], context: Context, most_mistakes: int
) -> Iterator[_Trial]:
    """The combinations of few mistakes that these observations can decide."""
    actual = np.array([o.value for o in observations])
    for cost, mistakes, input_kind, mean, divergence in _combinations(context):
        if len(mistakes) > most_mistakes:
            continue
        pairs = [
            np.sum(
                [bounded_sum(input_kind, mean, divergence, a, o.rho) for a in o.layers()], axis=0
            )
            for o in observations
        ]
        values, bounds = np.array(pairs).T
        decided = np.isfinite(values)
        if not _is_decided(observations, decided) or not np.all(np.isfinite(actual[decided])):
            continue
        units = tuple(_units(mean, o.x) for o in observations)
        yield _Trial(cost, mistakes, input_kind, mean, divergence, values, bounds, decided, units)


def _exact(
    observations: Sequence[Observation],
    context: Context,
    factors: Sequence[Factor],
    most_mistakes: int,
) -> Iterator[Explanation]:
    actual = np.array([o.value for o in observations])
    uncertainties = np.array([o.uncertainty for o in observations])
    u = precision_named("float32").unit_roundoff
    for trial in _trials(observations, context, most_mistakes):
        for factor in factors:
            if len(trial.mistakes) + len(factor.mistakes) > most_mistakes:
                continue
            scale = trial.scale(observations, factor)
            expected = scale * trial.values
            allowed = np.abs(scale) * trial.bounds + 16.0 * u * np.abs(expected) + uncertainties
            if np.all((np.abs(actual - expected) <= allowed)[trial.decided]):
                words = ", ".join(
                    part
                    for part in (
                        ""
                        if trial.input_kind == context.input
                        else f"input taken for {trial.input_kind}",
                        trial.divergence.name if trial.divergence.mistakes else "",
                        trial.mean.name if trial.mean.mistakes else "",
                        factor.words,
                    )
                    if part
                )
                yield Explanation(
                    trial.cost + factor.cost,
                    trial.mistakes + factor.mistakes,
                    trial.input_kind,
                    trial.mean,
                    trial.divergence,
                    factor,
                    words,
                )


def _constant_multiples(
    observations: Sequence[Observation], context: Context, factors: Sequence[Factor]
) -> Iterator[Explanation]:
    """Candidates that are right up to one constant over all observations."""
    actual = np.array([o.value for o in observations])
    plain = [f for f in factors if f.base == np.e and f.sign > 0 and f.cost <= 1.0]
    for trial in _trials(observations, context, 1):
        decided = trial.decided
        for factor in plain:
            scale = trial.scale(observations, factor)
            expected = (scale * trial.values)[decided]
            allowed = (np.abs(scale) * trial.bounds)[decided] + 1e-6 * np.abs(expected)
            ratios = actual[decided] / expected
            constant = float(ratios[np.argmin(allowed / np.abs(expected))])
            if constant == 0.0 or not np.isfinite(constant):
                continue
            if np.all(
                np.abs(actual[decided] - constant * expected) <= 2.0 * abs(constant) * allowed
            ):
                yield Explanation(
                    trial.cost + factor.cost + 1.2,
                    (*trial.mistakes, *factor.mistakes, "SAE115"),
                    trial.input_kind,
                    trial.mean,
                    trial.divergence,
                    _times(constant, factor),
                    f"{constant:.4g} times the right one",
                )


def _times(constant: float, factor: Factor) -> Callable[[int, int, float], float]:
    return lambda samples, units, beta: constant * factor(samples, units, beta)


def _large_guards(
    observations: Sequence[Observation], context: Context, factors: Sequence[Factor]
) -> Iterator[Explanation]:
    """The KL with an ε too large, added to its logarithms or clipping ρ̂."""

    def added(low: float, high: float) -> Callable[[float], Callable[..., Any]]:
        return lambda epsilon: (
            lambda rho, r: (
                rho * (np.log(rho) - np.log(r + low * epsilon))
                + (1.0 - rho) * (np.log1p(-rho) - np.log(1.0 - r + high * epsilon))
            )
        )

    def clipped(epsilon: float) -> Callable[..., Any]:
        return lambda rho, r: _forward(
            rho,
            np.where(
                np.real(r) < epsilon,
                epsilon,
                np.where(np.real(r) > 1.0 - epsilon, 1.0 - epsilon, r),
            ),
        )

    def in_ratios(epsilon: float) -> Callable[..., Any]:
        return lambda rho, r: (
            rho * (np.log(rho + epsilon) - np.log(r + epsilon))
            + (1.0 - rho) * (np.log(1.0 - rho + epsilon) - np.log(1.0 - r + epsilon))
        )

    def shifted(epsilon: float) -> Callable[..., Any]:
        return lambda rho, r: _forward(rho, r + epsilon)

    mean = MEANS[0]
    forms = (
        ("added to the logarithms", added(1.0, 1.0)),
        ("added to ρ̂ alone", added(1.0, 0.0)),
        ("added to 1 − ρ̂ alone", added(0.0, 1.0)),
        ("added to both sides of its ratios", in_ratios),
        ("clipping ρ̂", clipped),
        ("added to ρ̂", shifted),
    )
    for name, form in forms:
        for factor in [f for f in factors if f.cost <= 0.5]:

            def difference(
                epsilon: float,
                o: Observation,
                form: Callable[..., Any] = form,
                factor: Factor = factor,
            ) -> float:
                groups = mean.function(INPUTS[context.input](o.x))
                total = np.sum(form(epsilon)(o.rho, groups)) * factor(
                    o.x.shape[0], o.x.shape[1], o.beta
                )
                return float(total - o.value)

            for o in observations:
                with np.errstate(all="ignore"):
                    ends = difference(GUARD, o), difference(0.3, o)
                    if not np.all(np.isfinite(ends)) or ends[0] * ends[1] >= 0.0:
                        continue
                    epsilon = float(brentq(difference, GUARD, 0.3, args=(o,), xtol=1e-9))
                    misfits = [
                        abs(difference(epsilon, other)) / max(abs(other.value), 1e-3)
                        for other in observations
                    ]
                if np.nanmax(misfits) < 2e-3:
                    yield Explanation(
                        factor.cost + 1.3,
                        (*factor.mistakes, "SAE126"),
                        context.input,
                        mean,
                        Choice("KL with a large guard", ("SAE126",), 1.3, form(epsilon)),
                        factor,
                        f"ε ≈ {epsilon:.2g} {name}",
                    )
                    break


def clipped_activations(
    observations: Sequence[Observation], context: Context, numbers: Sequence[float]
) -> list[Explanation]:
    """Explain what clips activations before their mean, at one of some numbers and 1 less it."""
    for epsilon in numbers:
        low, high = min(epsilon, 1.0 - epsilon), max(epsilon, 1.0 - epsilon)

        def inside(a: Any, low: float = low, high: float = high) -> Any:
            return np.where(np.real(a) < low, low, np.where(np.real(a) > high, high, a))

        moved = [replace(o, x=inside(o.x)) for o in observations]
        found = explain(moved, context, most_mistakes=1, only_exact=True) if low < high else []
        if found and not set(found[0].mistakes) - {"SAE101"}:

            def mean(a: Any, inside: Callable[[Any], Any] = inside) -> Any:
                return RIGHT_MEAN.function(inside(a))

            choice = Choice("mean of clipped activations", ("SAE126",), 1.0, mean)
            words = f"activations are clipped to [{low:g}, {high:g}] before their mean"
            mistakes = (*found[0].mistakes, "SAE126")
            return [replace(found[0], mistakes=mistakes, mean=choice, words=words)]
    return []


RIGHT_MEAN, RIGHT_DIVERGENCE = MEANS[0], DIVERGENCES[0]


def right_value(x: Any, rho: float, beta: float, input_kind: str = "activations") -> float:
    """Return βΣKL, for the evidence; NaN where it is not defined.

    >>> right_value(np.array([[0.25], [0.75]]), 0.5, 3.0)
    0.0
    """
    with np.errstate(all="ignore"):
        groups = RIGHT_MEAN.function(INPUTS[input_kind](np.asarray(x, dtype=np.float64)))
        return float(beta * np.sum(_forward(rho, groups))) + 0.0
