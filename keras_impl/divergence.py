"""KL(ρ‖ρ̂) on backend tensors: the one formula behind the regularizer, the layer and the model.

Everything is computed in at least float32, whatever the compute dtype (float64 stays float64),
and with `sum / count` in place of `ops.mean`, which is float32 on JAX and torch even for float64.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.custom_gradients import (
    SATURATED,
    fused_kl_penalty,
    fused_kl_penalty_from_logits,
    sigmoids_of_both_signs,
    with_derivative,
)
from keras_impl.backends.replicas import logsumexp_over_replicas, replica_count, sum_over_replicas

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
    # Inside, rho_hat - r is 0 and its derivative too: nothing but the exact divergence is left,
    # in value and gradient. At an edge the two halves of a subgradient add up to the slope.
    return _exact_kl_divergence(rho, r) + _slope(rho, r) * (rho_hat - r)


def _slope(rho: float, r: Any) -> Any:
    """KL′(r) = (1 − ρ)/(1 − r) − ρ/r with one division, which XLA does once a unit.

    Not r − ρ over that denominator: near 1, ρ's own rounding would be divided by 1 − r.
    """
    rest = 1.0 - r
    return ((1.0 - rho) * r - rho * rest) / (r * rest)


def kl_penalty(rho: float, beta: float, rho_hat: Any, epsilon: float) -> Any:
    """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ), extended as in `kl_divergence`; a scalar.

    Args:
        rho: ρ, a Python float inside (0, 1).
        beta: β, a Python float.
        rho_hat: Mean activations, any shape, float32 or float64.
        epsilon: Where the tangent begins; 0: the exact divergence.

    >>> float(kl_penalty(0.5, 3.0, ops.convert_to_tensor([0.5]), 1e-6))
    0.0
    """
    fused = fused_kl_penalty(rho, beta, rho_hat[None], epsilon)
    if fused is not None:
        return fused

    def value(rho_hat: Any) -> Any:
        return beta * ops.sum(kl_divergence(rho, rho_hat, epsilon))

    def derivative(rho_hat: Any) -> Any:
        inside = ops.clip(rho_hat, epsilon, 1.0 - epsilon) if epsilon > 0.0 else rho_hat
        return beta * _slope(rho, inside)

    return with_derivative(value, derivative, rho_hat)


def kl_penalty_from_activations(
    rho: float,
    beta: float,
    activations: Any,
    epsilon: float,
    mask: Any = None,
    *,
    symmetric: bool = False,
    cross_replica: bool = False,
) -> Any:
    """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ) from activations, extended as in `kl_divergence`; a scalar.

    Args:
        rho: ρ, a Python float inside (0, 1).
        beta: β, a Python float.
        activations: As for `mean_activation`.
        epsilon: Where the tangent begins; 0: the exact divergence.
        mask: As for `mean_activation`; where it leaves nothing the penalty is 0.
        symmetric: As for `mean_activation`.
        cross_replica: As for `mean_activation`.

    >>> float(kl_penalty_from_activations(0.5, 3.0, 0.5 * ops.ones((3, 1)), 1e-6))
    0.0
    """
    if mask is None and not symmetric and not (cross_replica and replica_count() > 1):
        fused = fused_kl_penalty(rho, beta, at_least_float32(activations), epsilon)
        if fused is not None:
            return fused
    rho_hat = mean_activation(
        activations, mask, symmetric=symmetric, otherwise=rho, cross_replica=cross_replica
    )
    return kl_penalty(rho, beta, rho_hat, epsilon)


def kl_penalty_from_logits(
    rho: float, beta: float, logits: Any, mask: Any = None, *, cross_replica: bool = False
) -> Any:
    """EQ-SPARSITY-LOGITS: β Σⱼ KL(ρ‖ρ̂ⱼ) of sigmoid units from their logits; a scalar.

    Args:
        rho: ρ, a Python float inside (0, 1).
        beta: β, a Python float.
        logits: As for `kl_divergence_from_logits`.
        mask: As for `kl_divergence_from_logits`.
        cross_replica: As for `kl_divergence_from_logits`.

    >>> float(kl_penalty_from_logits(0.5, 3.0, ops.zeros((3, 1))))
    0.0
    """
    if mask is None and not (cross_replica and replica_count() > 1):
        fused = fused_kl_penalty_from_logits(rho, beta, at_least_float32(logits))
        if fused is not None:
            return fused
    divergence = kl_divergence_from_logits(rho, logits, mask, cross_replica=cross_replica)
    return beta * ops.sum(divergence)


def _exact_kl_divergence(rho: float, rho_hat: Any) -> Any:
    # Differences of logarithms: log(rho / rho_hat) overflows where rho_hat is tiny.
    ones = rho * (math.log(rho) - ops.log(rho_hat))
    return ones + (1.0 - rho) * (math.log1p(-rho) - ops.log1p(-rho_hat))


def mean_activation(
    activations: Any,
    mask: Any = None,
    *,
    symmetric: bool = False,
    otherwise: Any = 0.0,
    cross_replica: bool = False,
    moves_state: bool = False,
) -> Any:
    """EQ-RHO-HAT: the mean over every axis but the last, over valid positions if masked.

    Args:
        activations: (samples, ..., units).
        mask: The shape of `activations` without its last axis; true where valid.
        symmetric: Whether activations lie in [−1, 1]; the mean is then that of (1 + a)/2.
        otherwise: The value where the mask leaves nothing.
        cross_replica: Whether the mean is that of the global batch of data-parallel training.
        moves_state: Whether the mean changes variables (see `replicas.replica_count`).

    Returns:
        (units,), at least float32.

    >>> a = ops.convert_to_tensor([[0.0, 1.0], [0.5, 0.5]])
    >>> ops.convert_to_numpy(mean_activation(a)).tolist()
    [0.25, 0.75]
    """
    a = at_least_float32(activations)
    axes = tuple(range(len(a.shape) - 1))
    if mask is None:
        total, count = ops.sum(a, axis=axes), _count(a)
    else:
        valid = _valid(mask, a)
        count = ops.sum(ops.cast(valid, a.dtype))
        # `where` and not a product: a padded step may hold anything, infinities too.
        total = ops.sum(ops.where(valid, a, ops.zeros_like(a)), axis=axes)
    if cross_replica:
        # Sums and counts, not means: every sample counts once, however the batch is divided.
        total, count = sum_over_replicas(total, count, moves_state=moves_state)
    rho_hat = total / (count if mask is None else _at_least_one(count, a.dtype))
    if symmetric:
        rho_hat = 0.5 + 0.5 * rho_hat
    if mask is not None:
        rho_hat = ops.where(count > 0.0, rho_hat, otherwise * ops.ones_like(rho_hat))
    return rho_hat


def kl_divergence_from_logits(
    rho: float, logits: Any, mask: Any = None, *, cross_replica: bool = False
) -> Any:
    """EQ-KL-LOGITS: KL(ρ‖ρ̂) of sigmoid units from their logits, one number a unit.

    log ρ̂ = log-mean-exp of log σ(z), log(1 − ρ̂) = log-mean-exp of log σ(−z). No ε: value and
    gradient are finite and right for every finite logit.

    Args:
        rho: ρ, a Python float inside (0, 1).
        logits: (samples, ..., units).
        mask: The shape of `logits` without its last axis; true where valid. Where it leaves
            nothing the divergence is 0.
        cross_replica: Whether ρ̂ is that of the global batch of data-parallel training.

    Returns:
        (units,), at least float32, in nats.

    >>> ops.convert_to_numpy(kl_divergence_from_logits(0.5, ops.zeros((3, 1)))).tolist()
    [0.0]
    """
    z = at_least_float32(logits)
    valid = None if mask is None else _valid(mask, z)
    count = _count(z) if valid is None else ops.sum(ops.cast(valid, z.dtype))
    log_sums = log_sums_of_sigmoids(z, valid)
    if cross_replica and replica_count() > 1:
        both, count = logsumexp_over_replicas(ops.concatenate(log_sums), count)
        log_sums = both[: z.shape[-1]], both[z.shape[-1] :]
    log_rho_hat, log_one_minus_rho_hat = (log_sum - _log(count, z.dtype) for log_sum in log_sums)
    divergence = kl_divergence_of_logarithms(rho, log_rho_hat, log_one_minus_rho_hat)
    if valid is None:
        return divergence
    return ops.where(count > 0.0, divergence, ops.zeros_like(divergence))


def kl_divergence_of_logarithms(rho: float, log_rho_hat: Any, log_one_minus_rho_hat: Any) -> Any:
    """ρ(log ρ − log ρ̂) + (1 − ρ)(log(1 − ρ) − log(1 − ρ̂)), of tensors or NumPy arrays.

    >>> kl_divergence_of_logarithms(0.5, math.log(0.5), math.log(0.5))
    0.0
    """
    return rho * (math.log(rho) - log_rho_hat) + (1.0 - rho) * (
        math.log1p(-rho) - log_one_minus_rho_hat
    )


def kl_divergence_and_slope(
    rho: float, rho_hat: NDArray[np.float64], epsilon: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """EQ-KL-EXTENSION and its derivative by ρ̂, in NumPy float64: for means over a whole data set.

    Args:
        rho: ρ, inside (0, 1).
        rho_hat: Mean activations, any shape.
        epsilon: Where the tangent begins; 0: the exact divergence, infinite at 0 and 1.

    >>> kl_divergence_and_slope(0.25, np.array([0.25, 0.5]), 1e-6)[1].tolist()
    [0.0, 1.0]
    """
    inside = np.clip(rho_hat, epsilon, 1.0 - epsilon) if epsilon > 0.0 else rho_hat
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = _slope(rho, inside)
        divergence = kl_divergence_of_logarithms(rho, np.log(inside), np.log1p(-inside))
        # Without an extension there is no tangent, and inf · 0 is not formed.
        beyond = slope * (rho_hat - inside) if epsilon > 0.0 else 0.0
    return divergence + beyond, slope


def log_sums_of_sigmoids(z: Any, valid: Any = None) -> tuple[Any, Any]:
    """Return log Σᵢ σ(zᵢ) and log Σᵢ σ(−zᵢ) of every unit, over the valid positions.

    Where all of a unit's logits are below −60, σ(z + c) = exp(c)·σ(z) as long as z + c ≤ −60: they
    are moved up by the c that brings the largest to −60, and the sum back by exp(−c). Likewise
    down, where all are above 60. So no sum underflows, and one exponential an element will do.

    Args:
        z: (samples, ..., units), float32 or float64.
        valid: The shape of `z`, its last axis 1; true where valid. `None`: everywhere.

    Returns:
        Two tensors, (units,); about −1e30 where nothing is valid.
    """
    axes = tuple(range(len(z.shape) - 1))
    if 0 in z.shape[:-1]:  # a replica without rows
        nothing = ops.full(z.shape[-1:], _LOG_OF_NOTHING, dtype=z.dtype)
        return nothing, nothing
    largest = smallest = z
    if valid is not None:
        z = ops.where(valid, z, ops.zeros_like(z))  # a padded step may hold anything
        largest = ops.where(valid, z, _LOG_OF_NOTHING * ops.ones_like(z))
        smallest = ops.where(valid, z, -_LOG_OF_NOTHING * ops.ones_like(z))
    up = ops.relu(-SATURATED - ops.stop_gradient(ops.max(largest, axis=axes)))
    down = ops.relu(ops.stop_gradient(ops.min(smallest, axis=axes)) - SATURATED)
    sigmoids = sigmoids_of_both_signs(z + (up - down))
    if valid is None:
        total, total_of_rest = (ops.sum(s, axis=axes) for s in sigmoids)
    else:
        nothing = ops.cast(ops.logical_not(ops.any(valid)), z.dtype)  # log 1, not log 0
        total, total_of_rest = (
            ops.sum(ops.where(valid, s, ops.zeros_like(s)), axis=axes) + nothing for s in sigmoids
        )
    return ops.log(total) - up, ops.log(total_of_rest) - down


def _log(count: Any, dtype: Any) -> Any:
    if isinstance(count, float):
        return math.log(count)
    return ops.log(_at_least_one(count, dtype))


def _at_least_one(count: Any, dtype: Any) -> Any:
    # `ops.maximum` with a Python float is float32 on torch, whatever the dtype.
    return ops.cast(ops.maximum(count, 1.0), dtype)


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
