"""The tolerance code is tested too: errors of known size are planted, and must be caught.

A bound that hides a wrong formula is worse than none. Each mutant below is a right float32
computation with one mistake; the comparison that the suite uses must put it outside. What no
bound can see (a factor closer to 1 than the rounding of the sums) is stated, not hoped for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import reference
from reference.rounding import Arithmetic, Bounded, exact

RHO, BETA, DECAY = 0.05, 3.0, 1e-3
PARAMETERS = reference.initialise((16, 9, 16), seed=0)
X = np.random.default_rng(0).uniform(0.1, 0.9, size=(40, 16)).astype(np.float32).astype(np.float64)
ARGUMENTS: dict[str, Any] = {"rho": RHO, "beta": BETA, "weight_decay": DECAY}
STEP = reference.cost_and_gradient_with_bounds(PARAMETERS, X, **ARGUMENTS)


def worst(actual: Any, expected: Bounded) -> float:
    return reference.usage(actual, expected).worst


@pytest.mark.parametrize("term", ["reconstruction", "weight_decay", "sparsity", "total"])
@pytest.mark.parametrize("factor", [1.001, 0.5, 2.0, 16.0, 1 / 40, 40.0, -1.0])
def test_a_wrong_factor_on_a_term_is_caught(term: str, factor: float) -> None:
    expected = getattr(STEP.cost, term)
    assert worst(expected.value, expected) == 0.0
    assert worst(expected.value * factor, expected) > 1.0


def test_a_wrong_small_term_is_caught_although_the_total_hides_it() -> None:
    """Weight decay is a thousandth of the total here: 3 % of it vanish in a loose total."""
    cost = STEP.cost
    wrong = cost.weight_decay.value * 1.03
    assert worst(wrong, cost.weight_decay) > 1.0
    assert abs(wrong - cost.weight_decay.value) < 1e-4 * cost.total.value


@pytest.mark.parametrize("relative", [1e-5, 1e-4, 1e-3])
def test_rho_off_by_a_little(relative: float) -> None:
    """The catch of ρ(1 + δ): certain from 1e-4 on; at 1e-5 the divergence moves by its bound."""
    wrong = reference.sparse_autoencoder_cost(
        PARAMETERS, X, **{**ARGUMENTS, "rho": RHO * (1 + relative)}
    ).sparsity
    ratio = worst(wrong, STEP.cost.sparsity)
    if relative >= 1e-4:
        assert ratio > 1.0
    else:
        assert 0.05 < ratio < 10.0


GRADIENT_MISTAKES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no sparsity in the delta": lambda a: {**a, "beta": 0.0},
    "no decay": lambda a: {**a, "weight_decay": 0.0},
    "twice the decay": lambda a: {**a, "weight_decay": 2 * DECAY},
    "beta twice": lambda a: {**a, "beta": BETA**2},
    "rho reversed": lambda a: {**a, "rho": 1 - RHO},
    "wrong activation of the output": lambda a: {**a, "output_activation": "linear"},
}


@pytest.mark.parametrize("mistake", GRADIENT_MISTAKES)
def test_a_wrong_gradient_is_caught(mistake: str) -> None:
    wrong = reference.sparse_autoencoder_gradient(
        PARAMETERS, X, **GRADIENT_MISTAKES[mistake](ARGUMENTS)
    )
    ratios = [
        worst(actual, expected)
        for actual, expected in zip(
            [*wrong.kernels, *wrong.biases],
            [*STEP.gradient.kernels, *STEP.gradient.biases],
            strict=True,
        )
    ]
    assert max(ratios) > 1.0
    right = reference.sparse_autoencoder_gradient(PARAMETERS, X, **ARGUMENTS)
    assert worst(right.kernels[0], STEP.gradient.kernels[0]) < 0.01


KL_MISTAKES: dict[str, Callable[[float, Any], Any]] = {
    "reversed": lambda r, q: q * np.log(q / r) + (1 - q) * np.log((1 - q) / (1 - r)),
    "only the first half": lambda r, q: r * np.log(r / q),
    "only the second half": lambda r, q: (1 - r) * np.log((1 - r) / (1 - q)),
    "base 2": lambda r, q: reference.kl_divergence(r, q) / np.log(2),
    "base 10": lambda r, q: reference.kl_divergence(r, q) / np.log(10),
    "cross entropy": lambda r, q: -r * np.log(q) - (1 - r) * np.log(1 - q),
    "epsilon of 1e-7 in the logarithm": lambda r, q: (
        r * np.log(r / (q + 1e-7)) + (1 - r) * np.log((1 - r) / (1 - q + 1e-7))
    ),
    "epsilon of 1e-5 in the logarithm": lambda r, q: (
        r * np.log(r / (q + 1e-5)) + (1 - r) * np.log((1 - r) / (1 - q + 1e-5))
    ),
}


@pytest.mark.parametrize("mistake", KL_MISTAKES)
def test_a_wrong_divergence_is_caught(mistake: str) -> None:
    """Down to the epsilon of 1e-7 that people add inside the logarithm."""
    rho_hat = np.array([0.2, 0.6, 0.01, 0.9])
    wrong = KL_MISTAKES[mistake](RHO, rho_hat)
    for precision in ("float64", "float32"):
        expected = Arithmetic(precision).kl_divergence(RHO, exact(rho_hat), 0.0)
        assert worst(wrong, expected) > 1.0


ESTIMATOR_MISTAKES: dict[str, Callable[[Any], float]] = {
    "sum for mean": lambda a: reference.sparsity_cost(a[:1], RHO, BETA),
    "mean over units": lambda a: reference.sparsity_cost(a, RHO, BETA) / a.shape[1],
    "mean of per-sample divergences": lambda a: (
        BETA * float(np.mean(np.sum(reference.kl_divergence(RHO, a), axis=1)))
    ),
    "mean over all elements": lambda a: BETA * float(reference.kl_divergence(RHO, np.mean(a))),
    "over the wrong axis": lambda a: (
        BETA * float(np.sum(reference.kl_divergence(RHO, np.mean(a, axis=1))))
    ),
    "divided by the batch": lambda a: reference.sparsity_cost(a, RHO, BETA) / len(a),
    "divided by m - 1": lambda a: (
        BETA * float(np.sum(reference.kl_divergence(RHO, np.sum(a, axis=0) / (len(a) - 1))))
    ),
}


@pytest.mark.parametrize("mistake", ESTIMATOR_MISTAKES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_wrong_estimator_is_caught(mistake: str, precision: str) -> None:
    a = np.random.default_rng(1).uniform(0.02, 0.6, size=(32, 5))
    if precision == "bfloat16":
        a = a.astype(np.float32)  # bounds of float32 sums of bfloat16 numbers
    expected, _ = reference.kl_sparsity_with_bounds(a, RHO, BETA, precision=precision)
    assert worst(ESTIMATOR_MISTAKES[mistake](np.asarray(a, np.float64)), expected) > 1.0


@pytest.mark.parametrize("operation", ["matmul", "total", "multiply", "activation", "mean"])
def test_every_rule_grows_with_what_it_depends_on(operation: str) -> None:
    """A rule that forgot a term would not: each bound rises with E, with u and with length."""
    generator = np.random.default_rng(2)
    values = generator.uniform(0.5, 1.0, size=(8, 8))

    def bound(precision: str, error: float, length: int) -> float:
        arithmetic = Arithmetic(precision)
        a = Bounded(values[:length], np.full((length, 8), error))
        result = {
            "matmul": lambda: arithmetic.matmul(a.transposed, a),
            "total": lambda: arithmetic.total(a, axis=0),
            "multiply": lambda: arithmetic.multiply(a, a),
            "activation": lambda: arithmetic.activation("sigmoid", a)[1],
            "mean": lambda: arithmetic.mean_over_samples(a),
        }[operation]()
        return float(np.max(result.bound))

    assert bound("float64", 0.0, 8) < bound("float32", 0.0, 8) < bound("bfloat16", 0.0, 8) * 2
    assert bound("float32", 0.0, 8) < bound("float32", 1e-4, 8) < bound("float32", 1e-2, 8)
    if operation in ("matmul", "total"):
        assert bound("float32", 1e-6, 2) < bound("float32", 1e-6, 8)


def test_what_cannot_be_decided_is_infinite_not_narrow() -> None:
    float32 = Arithmetic("float32")
    touching = Bounded(np.array([1e-9, 1.0 - 1e-9, 0.5]), np.array([1e-8, 1e-8, 0.5]))
    assert np.all(np.isinf(float32.kl_divergence(RHO, touching, 0.0).bound))
    assert np.all(np.isinf(float32.kl_derivative(RHO, touching, 0.0).bound))
    # The extension decides all of them.
    assert np.all(np.isfinite(float32.kl_divergence(RHO, touching, 1e-3).bound))
    overflow = Arithmetic("float16").multiply(exact([300.0]), exact([300.0]))
    assert np.isinf(overflow.bound[0])
    unknown = Arithmetic("float32").multiply(Bounded(np.ones(1), np.full(1, np.inf)), exact([0.0]))
    assert np.isinf(unknown.bound[0])
    # A ReLU whose logit may be on either side of 0 may have either derivative.
    _, slope = float32.activation("relu", Bounded(np.array([1e-9]), np.array([1e-8])))
    assert slope.bound[0] == 1.0


def test_tf32_products_are_allowed_their_shortened_factors_and_no_more() -> None:
    a, b = np.full((1, 4), 1.0 + 2.0**-11), np.full((4, 1), 1.0 + 2.0**-11)
    shortened = np.full((1, 1), 4.0)  # both factors rounded to 1
    full = Arithmetic("float32").matmul(exact(a), exact(b))
    tf32 = Arithmetic("tf32").matmul(exact(a), exact(b))
    assert worst(shortened, full) > 1.0
    assert worst(shortened, tf32) <= 1.0
    assert worst(shortened * (1 - 2.0**-8), tf32) > 1.0
