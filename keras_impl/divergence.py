"""KL(ρ‖ρ̂) of tensors and of arrays, and its slope: the formula, written once.

Everything is computed in at least float32, whatever the compute dtype (float64 stays float64).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_impl.backends.arrays import namespace_of


def at_least_float32(x: Any) -> Any:
    """Return `x` as a float32 tensor, or float64 if it is one."""
    x = ops.convert_to_tensor(x)
    is_wide = keras.backend.standardize_dtype(x.dtype) in ("float32", "float64")
    return x if is_wide else ops.cast(x, "float32")


class Target(NamedTuple):
    """ρ and what the divergence needs of it, for ρ̂ of one kind and dtype.

    Args:
        rho: ρ.
        rest: 1 − ρ.
        log_rho: log ρ.
        log_rest: log(1 − ρ).
    """

    rho: Any
    rest: Any
    log_rho: Any
    log_rest: Any


def target_of(rho: Any, like: Any) -> Target:
    """Return what the divergence needs of ρ.

    Args:
        rho: ρ, inside (0, 1): a Python float; a tuple of them, one a unit; or a tensor, of one
            number or of one a unit, where ρ may change after the step is compiled.
        like: ρ̂ or logits, (..., units), tensors or a NumPy array.

    >>> target_of(0.5, None).rest, target_of((0.25, 0.5), np.ones(2)).rest.tolist()
    (0.5, [0.75, 0.5])
    """
    if isinstance(rho, float):
        return Target(rho, 1.0 - rho, math.log(rho), math.log1p(-rho))
    if isinstance(rho, tuple):
        # On the host, in float64: what is rounded is the result alone.
        numbers = np.array(rho)
        parts = numbers, 1.0 - numbers, np.log(numbers), np.log1p(-numbers)
        return Target(*(beside(part, like) for part in parts))
    rho = ops.cast(rho, like.dtype)
    return Target(rho, 1.0 - rho, ops.log(rho), ops.log1p(-rho))


def beside(numbers: Any, like: Any) -> Any:
    """Return a float as it is, other numbers in the kind and dtype of `like`."""
    if isinstance(numbers, float):
        return numbers
    if isinstance(like, np.ndarray):
        return np.asarray(numbers, dtype=like.dtype)
    if isinstance(numbers, (tuple, np.ndarray)):
        return ops.convert_to_tensor(np.asarray(numbers), dtype=like.dtype)
    return ops.cast(numbers, like.dtype)


def kl_divergence(rho: Any, rho_hat: Any, epsilon: float) -> Any:
    """EQ-KL-EXTENSION: KL(ρ‖ρ̂) on [ε, 1 − ε], its tangent line beyond; elementwise.

    Args:
        rho: ρ, inside (0, 1), as `target_of` takes it.
        rho_hat: Mean activations, any shape, float32 or float64.
        epsilon: Where the tangent begins; 0: the exact divergence, infinite at 0 and 1.

    Returns:
        A tensor of the shape and dtype of `rho_hat`, in nats. Its derivative is KL′ at the
        nearest point of [ε, 1 − ε]: finite, and of the right sign everywhere.

    >>> float(kl_divergence(0.5, ops.convert_to_tensor(0.5), 1e-6))
    0.0
    """
    return kl_divergence_and_slope(rho, rho_hat, epsilon)[0]


def kl_divergence_and_slope(rho: Any, rho_hat: Any, epsilon: float) -> tuple[Any, Any]:
    """EQ-KL-EXTENSION and its derivative by ρ̂, of tensors or of NumPy arrays.

    Args:
        rho: ρ, inside (0, 1), as `target_of` takes it.
        rho_hat: Mean activations, any shape, float32 or float64.
        epsilon: Where the tangent begins; 0: the exact divergence, infinite at 0 and 1.

    >>> kl_divergence_and_slope(0.25, np.array([0.25, 0.5]), 1e-6)[1].tolist()
    [0.0, 1.0]
    """
    if isinstance(rho_hat, np.ndarray):
        with np.errstate(divide="ignore", invalid="ignore"):
            return _divergence_and_slope(target_of(rho, rho_hat), rho_hat, epsilon)
    return _divergence_and_slope(target_of(rho, rho_hat), rho_hat, epsilon)


def _divergence_and_slope(target: Target, rho_hat: Any, epsilon: float) -> tuple[Any, Any]:
    namespace = namespace_of(rho_hat)
    rest_hat = 1.0 - rho_hat
    if epsilon == 0.0:
        log_rest = namespace.log1p(-rho_hat)
        divergence = kl_divergence_of_logarithms(target, namespace.log(rho_hat), log_rest)
        return divergence, kl_slope(target, rho_hat, rest_hat)
    # 1 − ρ̂ is kept beside ρ̂: where ε is small, 1 − ε is rounded, and may be 1; ε is not.
    epsilon = max(epsilon, _smallest(rho_hat))
    r = namespace.clip(rho_hat, epsilon, 1.0 - epsilon)
    # The upper edge is a float64 number, as EQ-KL-EXTENSION says.
    nearest_one = 1.0 - min(1.0 - epsilon, 1.0 - 2.0**-53)
    rest = namespace.clip(rest_hat, nearest_one, 1.0 - epsilon)
    nearer_zero = r < 0.5
    log_rest = namespace.log1p(-namespace.clip(r, 0.0, 0.5))
    log_rest = namespace.where(nearer_zero, log_rest, namespace.log(rest))
    slope = kl_slope(target, r, rest)
    divergence = kl_divergence_of_logarithms(target, namespace.log(r), log_rest)
    beyond = namespace.where(nearer_zero, rho_hat - r, rest - rest_hat)
    # A constant beyond an edge. Its derivative would overflow, and 0 times it is no number.
    steepness = slope if isinstance(rho_hat, np.ndarray) else ops.stop_gradient(slope)
    return divergence + steepness * beyond, slope


def kl_divergence_of_logarithms(
    target: Target, log_rho_hat: Any, log_one_minus_rho_hat: Any
) -> Any:
    """ρ(log ρ − log ρ̂) + (1 − ρ)(log(1 − ρ) − log(1 − ρ̂)), of tensors or NumPy arrays.

    Differences of logarithms: log(ρ/ρ̂) overflows where ρ̂ is tiny.

    >>> kl_divergence_of_logarithms(target_of(0.5, None), math.log(0.5), math.log(0.5))
    0.0
    """
    return target.rho * (target.log_rho - log_rho_hat) + target.rest * (
        target.log_rest - log_one_minus_rho_hat
    )


def kl_slope(target: Target, r: Any, rest: Any) -> Any:
    """KL′(r) = (1 − ρ)/(1 − r) − ρ/r with one division, which XLA does once a unit.

    Not r − ρ over that denominator: near 1, ρ's own rounding would be divided by 1 − r.

    Args:
        target: ρ.
        r: ρ̂, inside (0, 1).
        rest: 1 − ρ̂, as exact as ρ̂ itself.

    >>> kl_slope(target_of(0.25, None), 0.5, 0.5)
    1.0
    """
    return (target.rest * r - target.rho * rest) / (r * rest)


def _smallest(x: Any) -> float:
    """The smallest normal number: an ε below it would be 0, and its tangent's slope infinite."""
    return 2.0**-1022 if keras.backend.standardize_dtype(x.dtype) == "float64" else 2.0**-126
