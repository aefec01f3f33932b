"""KL(ρ‖ρ̂) of two Bernoulli means: exact, differentiated, extended beyond its ends, from logits.

Natural logarithms throughout. ρ is the sparsity parameter, ρ̂ the mean activation. ρ is a number,
or an array of one for each unit: then ρⱼ stands beside the ρ̂ⱼ of its unit, on the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.activations import log_sigmoid
from reference.validation import Array, extension_edge, real_array, sparsity_target


def _probability(name: str, value: Any) -> Array:
    array = real_array(name, value)
    outside = ~((array >= 0.0) & (array <= 1.0))
    if np.any(outside):
        raise ValueError(
            f"`{name}` must lie in [0, 1]. Received {float(array[outside][0])}. "
            "The divergence of the notes is not defined there; `extended_kl_divergence` is."
        )
    return array


def kl_divergence(rho: Any, rho_hat: Any) -> Array:
    """EQ-KL: KL(ρ‖ρ̂) = ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂)).

    Zero exactly where ρ̂ = ρ. The limits are exact: +∞ at ρ̂ = 0 if ρ > 0 and at ρ̂ = 1 if ρ < 1;
    a half whose weight (ρ or 1 − ρ) is zero counts nothing.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        rho: The target in [0, 1], a number or (units,).
        rho_hat: Mean activations, any shape, in [0, 1].

    Returns:
        float64, the shape of `rho_hat`; a divergence in nats for each element.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If an argument leaves [0, 1], or `rho` has not one number for each unit.

    >>> float(kl_divergence(0.05, 0.05)), float(kl_divergence(0.05, 0.0))
    (0.0, inf)
    >>> round(float(kl_divergence(0.05, 0.2)), 12)
    0.093943026024
    >>> kl_divergence([0.25, 0.75], [0.25, 0.75]).tolist()
    [0.0, 0.0]
    """
    rho_hat = _probability("rho_hat", rho_hat)
    rho = sparsity_target(rho, rho_hat.shape, ends=True)
    rest = 1.0 - rho
    with np.errstate(divide="ignore", invalid="ignore"):
        of_ones = rho * (np.log(rho) - np.log(rho_hat))
        of_zeros = rest * (np.log1p(-rho) - np.log1p(-rho_hat))
    divergence: Array = np.where(rho > 0.0, of_ones, 0.0) + np.where(rest > 0.0, of_zeros, 0.0)
    return divergence


def kl_divergence_derivative(rho: Any, rho_hat: Any) -> Array:
    """EQ-KL-DERIVATIVE: ∂KL(ρ‖ρ̂)/∂ρ̂ = −ρ/ρ̂ + (1 − ρ)/(1 − ρ̂).

    The sparsity term inside the delta of the notes. −∞ at ρ̂ = 0 if ρ > 0, +∞ at ρ̂ = 1 if ρ < 1.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        rho: The target in [0, 1], a number or (units,).
        rho_hat: Mean activations, any shape, in [0, 1].

    Returns:
        float64, the shape of `rho_hat`.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If an argument leaves [0, 1], or `rho` has not one number for each unit.

    >>> float(kl_divergence_derivative(0.25, 0.25)), float(kl_divergence_derivative(0.25, 0.5))
    (0.0, 1.0)
    """
    rho_hat = _probability("rho_hat", rho_hat)
    rho = sparsity_target(rho, rho_hat.shape, ends=True)
    rest = 1.0 - rho
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        of_ones, of_zeros = rho / rho_hat, rest / (1.0 - rho_hat)
        derivative: Array = np.where(rest > 0.0, of_zeros, 0.0) - np.where(rho > 0.0, of_ones, 0.0)
    return derivative


def extended_kl_divergence(rho: Any, rho_hat: Any, epsilon: Any) -> Array:
    """EQ-KL-EXTENSION: KL(ρ‖r) + KL′(ρ‖r)(ρ̂ − r) with r = min(max(ρ̂, ε), 1 − ε).

    Equal to EQ-KL on [ε, 1 − ε] and to its tangent line beyond: continuously differentiable,
    convex, finite for every finite ρ̂ when ε > 0, and never flat on the wrong side of ρ. With
    ε = 0 it is EQ-KL itself.

    Why it is so: on [ε, 1 − ε] r = ρ̂, and the second term is 0. Beyond an edge r is constant, so
    the derivative is KL′(ρ‖r), that of EQ-KL at the edge: both sides agree there in value and in
    slope. KL′ increases (KL″ = ρ/ρ̂² + (1 − ρ)/(1 − ρ̂)² > 0) and the derivative here is KL′ of r,
    which does not decrease with ρ̂: the function is convex. Because ε ≤ ρ ≤ 1 − ε, the slope is
    not positive at the lower edge and not negative at the upper one: a unit beyond an edge is
    never pushed away from ρ. Clipping ρ̂ instead has the slope 0 there. A tangent lies below a
    convex function: the extension is at most EQ-KL wherever both are defined.

    The upper edge is the float64 number nearest to 1 − ε that is below 1.

    Source: the first-order Taylor polynomials, at ε and at 1 − ε, of EQ-KL, which is that of
    CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        rho: The target inside (0, 1), a number or (units,).
        rho_hat: Mean activations, any shape; any real number if ε > 0, else in [0, 1].
        epsilon: Where the tangent begins, in [0, min(ρ, 1 − ρ)].

    Returns:
        float64, the shape of `rho_hat`.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If an argument leaves its range.

    >>> float(extended_kl_divergence(0.25, 0.5, 1e-6)) == float(kl_divergence(0.25, 0.5))
    True
    >>> far, near = extended_kl_divergence(0.5, [2.0, 1.0], 0.25)
    >>> round(float(far - near), 12)
    1.333333333333
    """
    rho_hat = real_array("rho_hat", rho_hat)
    rho = sparsity_target(rho, rho_hat.shape)
    epsilon = extension_edge(epsilon, rho)
    if epsilon == 0.0:
        return kl_divergence(rho, rho_hat)
    r = np.clip(rho_hat, epsilon, upper_edge(epsilon))
    beyond = rho_hat - r
    with np.errstate(over="ignore", invalid="ignore"):
        tangent = kl_divergence_derivative(rho, r) * beyond
    return kl_divergence(rho, r) + np.where(beyond == 0.0, 0.0, tangent)


def upper_edge(epsilon: float) -> float:
    """Return 1 − ε, or the largest float64 below 1 where that rounds to 1.

    >>> upper_edge(0.25), upper_edge(1e-20)
    (0.75, 0.9999999999999999)
    """
    return min(1.0 - epsilon, 1.0 - 2.0**-53)


def extended_kl_divergence_derivative(rho: Any, rho_hat: Any, epsilon: Any) -> Array:
    """EQ-KL-EXTENSION-DERIVATIVE: −ρ/r + (1 − ρ)/(1 − r) with r = min(max(ρ̂, ε), 1 − ε).

    Source: the derivative of EQ-KL-EXTENSION; EQ-KL-DERIVATIVE between ε and 1 − ε.

    Args:
        rho: The target inside (0, 1), a number or (units,).
        rho_hat: Mean activations, any shape; any real number if ε > 0, else in [0, 1].
        epsilon: Where the tangent begins, in [0, min(ρ, 1 − ρ)].

    Returns:
        float64, the shape of `rho_hat`.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If an argument leaves its range.

    >>> extended_kl_divergence_derivative(0.5, [-3.0, 0.5, 7.0], 0.25).round(12).tolist()
    [-1.333333333333, 0.0, 1.333333333333]
    """
    rho_hat = real_array("rho_hat", rho_hat)
    rho = sparsity_target(rho, rho_hat.shape)
    epsilon = extension_edge(epsilon, rho)
    if epsilon == 0.0:
        return kl_divergence_derivative(rho, rho_hat)
    return kl_divergence_derivative(rho, np.clip(rho_hat, epsilon, upper_edge(epsilon)))


def log_mean_exp(values: Array) -> Array:
    """EQ-LOG-MEAN-EXP: log((1/m) Σᵢ exp(vᵢ)) = c + log((1/m) Σᵢ exp(vᵢ − c)), c = maxᵢ vᵢ.

    Source: this project; the usual shift by the largest value, so that nothing overflows.

    >>> float(log_mean_exp(np.array([-1e4, -1e4])))
    -10000.0
    """
    largest = np.max(values, axis=0)
    return largest + np.log(np.mean(np.exp(values - largest), axis=0))


def kl_divergence_from_logits(rho: Any, logits: Any) -> Array:
    """EQ-KL-LOGITS: KL(ρ‖ρ̂) of sigmoid units, from their logits.

    log ρ̂ = log-mean-exp of log σ(z) and log(1 − ρ̂) = log-mean-exp of log σ(−z), over samples.
    The same number as EQ-KL of the mean of σ(z), but finite and right for every finite z.

    Source: CS294A lecture notes "Sparse autoencoder", §3, with EQ-LOG-SIGMOID for f.

    Args:
        rho: The target inside (0, 1), a number or (units,).
        logits: (..., units); the mean runs over every axis but the last.

    Returns:
        float64, (units,): a divergence in nats for each unit.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If `rho` leaves (0, 1), or `logits` has no samples or is not finite.

    >>> float(kl_divergence_from_logits(0.5, [[0.0], [0.0]])[0])
    0.0
    >>> float(kl_divergence_from_logits(0.5, [[1e4]])[0]) - (5e3 + float(np.log(0.5)))
    0.0
    """
    z = samples_and_units("logits", logits)
    rho = sparsity_target(rho, z.shape)
    log_rho_hat = log_mean_exp(log_sigmoid(z))
    log_one_minus_rho_hat = log_mean_exp(log_sigmoid(-z))
    return rho * (np.log(rho) - log_rho_hat) + (1.0 - rho) * (
        np.log1p(-rho) - log_one_minus_rho_hat
    )


def kl_divergence_from_logits_derivative(rho: Any, logits: Any) -> Array:
    """EQ-KL-LOGITS-DERIVATIVE: ∂KL/∂zᵢ = −ρ p₁ᵢ σ(−zᵢ) + (1 − ρ) p₀ᵢ σ(zᵢ).

    p₁ = softmax over samples of log σ(z), p₀ = softmax over samples of log σ(−z): the shares of
    each sample in ρ̂ and in 1 − ρ̂. Bounded by 1 in size, whatever the logits.

    Source: the chain rule on EQ-KL-LOGITS; equal to EQ-KL-DERIVATIVE · f′(zᵢ)/m.

    Args:
        rho: The target inside (0, 1), a number or (units,).
        logits: (..., units); the mean runs over every axis but the last.

    Returns:
        float64, the shape of `logits`.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If `rho` leaves (0, 1), or `logits` has no samples or is not finite.

    >>> kl_divergence_from_logits_derivative(0.25, [[1e4], [1e4]]).tolist()
    [[0.375], [0.375]]
    """
    z = samples_and_units("logits", logits)
    rho = sparsity_target(rho, z.shape)
    share_of_ones = _softmax(log_sigmoid(z))
    share_of_zeros = _softmax(log_sigmoid(-z))
    gradient = -rho * share_of_ones * np.exp(log_sigmoid(-z)) + (
        1.0 - rho
    ) * share_of_zeros * np.exp(log_sigmoid(z))
    return gradient.reshape(np.shape(logits))


def _softmax(values: Array) -> Array:
    weights = np.exp(values - np.max(values, axis=0))
    return weights / np.sum(weights, axis=0)


def samples_and_units(name: str, values: Any) -> Array:
    """Return (..., units) as (samples, units): every axis but the last counts samples.

    Raises:
        TypeError: If `values` is not real.
        ValueError: If there is no axis of samples, no sample, or a value that is not finite.

    >>> samples_and_units("a", np.zeros((2, 3, 4))).shape
    (6, 4)
    """
    array = real_array(name, values, finite=True)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have shape (samples, ..., units) with at least one sample and one "
            f"unit. Received an array of shape {array.shape}."
        )
    return array.reshape(-1, array.shape[-1])
