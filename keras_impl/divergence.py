"""KL(ρ‖ρ̂) on backend tensors: the one formula behind the regularizer, the layer and the model.

Everything is computed in at least float32, whatever the compute dtype (float64 stays float64),
and with `sum / count` in place of `ops.mean`, which is float32 on JAX and torch even for float64.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# Stands for log 0 where a position is masked: finite, so that no gradient is NaN.
_LOG_OF_NOTHING = -1e30


def at_least_float32(x: Any) -> Any:
    """Return `x` as a float32 tensor, or float64 if it is one."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def kl_divergence(rho: float, rho_hat: Any, epsilon: float) -> Any:
    """EQ-KL-EXTENSION: KL(ρ‖ρ̂) on [ε, 1 − ε], its tangent line beyond; elementwise.

    Args:
        rho: ρ, a Python float inside (0, 1).
        rho_hat: Mean activations, any shape, float32 or float64.
        epsilon: Where the tangent begins; 0: the exact divergence, infinite at 0 and 1.

    Returns:
        A tensor of the shape and dtype of `rho_hat`, in nats. Its derivative is KL′ at the
        nearest point of [ε, 1 − ε]: finite, and of the right sign everywhere.

    >>> float(kl_divergence(0.5, ops.convert_to_tensor(0.5), 1e-6))
    0.0
    """
    if epsilon == 0.0:
        return _exact_kl_divergence(rho, rho_hat)
    r = ops.clip(rho_hat, epsilon, 1.0 - epsilon)
    slope = (1.0 - rho) / (1.0 - r) - rho / r
    # Inside, rho_hat - r is 0 and its derivative too: nothing but the exact divergence is left,
    # in value and gradient. At an edge the two halves of a subgradient add up to the slope.
    return _exact_kl_divergence(rho, r) + slope * (rho_hat - r)


def _exact_kl_divergence(rho: float, rho_hat: Any) -> Any:
    # Differences of logarithms: log(rho / rho_hat) overflows where rho_hat is tiny.
    ones = rho * (math.log(rho) - ops.log(rho_hat))
    return ones + (1.0 - rho) * (math.log1p(-rho) - ops.log1p(-rho_hat))


def mean_activation(
    activations: Any, mask: Any = None, *, symmetric: bool = False, otherwise: Any = 0.0
) -> Any:
    """EQ-RHO-HAT: the mean over every axis but the last, over valid positions if masked.

    Args:
        activations: (samples, ..., units).
        mask: The shape of `activations` without its last axis; true where valid.
        symmetric: Whether activations lie in [−1, 1]; the mean is then that of (1 + a)/2.
        otherwise: The value where the mask leaves nothing.

    Returns:
        (units,), at least float32.

    >>> a = ops.convert_to_tensor([[0.0, 1.0], [0.5, 0.5]])
    >>> ops.convert_to_numpy(mean_activation(a)).tolist()
    [0.25, 0.75]
    """
    a = at_least_float32(activations)
    axes = tuple(range(len(a.shape) - 1))
    if mask is None:
        rho_hat = ops.sum(a, axis=axes) / _count(a)
    else:
        valid = _valid(mask, a)
        count = ops.sum(ops.cast(valid, a.dtype))
        # `where` and not a product: a padded step may hold anything, infinities too.
        total = ops.sum(ops.where(valid, a, ops.zeros_like(a)), axis=axes)
        rho_hat = total / ops.cast(ops.maximum(count, 1.0), a.dtype)
    if symmetric:
        rho_hat = 0.5 + 0.5 * rho_hat
    if mask is not None:
        rho_hat = ops.where(count > 0.0, rho_hat, otherwise * ops.ones_like(rho_hat))
    return rho_hat


def kl_divergence_from_logits(rho: float, logits: Any, mask: Any = None) -> Any:
    """EQ-KL-LOGITS: KL(ρ‖ρ̂) of sigmoid units from their logits, one number a unit.

    log ρ̂ = log-mean-exp of log σ(z), log(1 − ρ̂) = log-mean-exp of log σ(−z). No ε: value and
    gradient are finite and right for every finite logit.

    Args:
        rho: ρ, a Python float inside (0, 1).
        logits: (samples, ..., units).
        mask: The shape of `logits` without its last axis; true where valid. Where it leaves
            nothing the divergence is 0.

    Returns:
        (units,), at least float32, in nats.

    >>> ops.convert_to_numpy(kl_divergence_from_logits(0.5, ops.zeros((3, 1)))).tolist()
    [0.0]
    """
    z = at_least_float32(logits)
    valid = None if mask is None else _valid(mask, z)
    log_rho_hat = _log_mean_exp(ops.log_sigmoid(z), valid)
    log_one_minus_rho_hat = _log_mean_exp(ops.log_sigmoid(-z), valid)
    divergence = rho * (math.log(rho) - log_rho_hat) + (1.0 - rho) * (
        math.log1p(-rho) - log_one_minus_rho_hat
    )
    if valid is None:
        return divergence
    return ops.where(ops.any(valid), divergence, ops.zeros_like(divergence))


def _log_mean_exp(values: Any, valid: Any) -> Any:
    axes = tuple(range(len(values.shape) - 1))
    if valid is None:
        count = _count(values)
        logarithm = (
            math.log(count) if isinstance(count, float) else ops.log(ops.cast(count, values.dtype))
        )
        return ops.logsumexp(values, axis=axes) - logarithm
    count = ops.sum(ops.cast(valid, values.dtype))
    values = ops.where(valid, values, _LOG_OF_NOTHING * ops.ones_like(values))
    # `ops.maximum` with a Python float is float32 on torch, whatever the dtype.
    at_least_one = ops.cast(ops.maximum(count, 1.0), values.dtype)
    return ops.logsumexp(values, axis=axes) - ops.log(at_least_one)


def _count(a: Any) -> Any:
    """The number of samples: a Python float where the shape is known, else a tensor."""
    sizes = ops.shape(a)[:-1]
    if all(isinstance(size, int) for size in sizes):
        return float(math.prod(sizes))
    count = 1.0
    for size in sizes:
        count = count * ops.cast(size, a.dtype)
    return count


def _valid(mask: Any, a: Any) -> Any:
    return ops.expand_dims(ops.cast(mask, "bool"), -1)
