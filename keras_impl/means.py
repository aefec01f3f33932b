"""What the sparsity term takes from a batch: ρ̂, or its logarithms, over the valid positions.

Everything is computed in at least float32, and with `sum / count` in place of `ops.mean`, which is
float32 on JAX and torch even for float64.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_impl.backends.custom_gradients import sum_of_rows, sums_of_sigmoids
from keras_impl.backends.replicas import logsumexp_over_replicas, replica_count, sum_over_replicas
from keras_impl.divergence import at_least_float32, beside, kl_divergence_of_logarithms, target_of

# Stands for log 0 where a position is masked: finite, so that no gradient is NaN.
LOG_OF_NOTHING = -1e30


def valid_positions(mask: Any, x: Any) -> Any:
    """Return which elements of (samples, ..., units) a Keras mask lets count.

    A mask of fewer axes is that of the leading ones, (samples,) or (samples, steps), as Keras's
    layers hand it on; one with the axes of `x` may have 1 anywhere; axes of 1 at the end of a
    longer one are dropped.

    Args:
        mask: A tensor or an array; true, or not 0, where valid.
        x: (samples, ..., units).

    Returns:
        A bool tensor of the shape of `x`, its last axis 1 unless the mask tells units apart.

    Raises:
        ValueError: If the mask does not fit.

    >>> tuple(valid_positions(ops.ones((2, 3)), ops.zeros((2, 3, 5, 4))).shape)
    (2, 3, 5, 1)
    """
    mask = ops.cast(mask, "bool")
    sizes = list(mask.shape)
    while len(sizes) > len(x.shape) and sizes[-1] == 1:
        sizes.pop()
        mask = ops.squeeze(mask, axis=-1)
    fits = len(sizes) <= len(x.shape) and all(
        size in (1, of_x) or size is None or of_x is None
        for size, of_x in zip(sizes, x.shape, strict=False)
    )
    if not fits or not sizes:
        raise ValueError(
            "A mask must have the shape of the input, without its last axes or with 1 in their "
            f"place. Received: mask.shape={tuple(mask.shape)}, inputs.shape={tuple(x.shape)}"
        )
    for _ in range(len(x.shape) - len(sizes)):
        mask = ops.expand_dims(mask, -1)
    return ops.logical_and(mask, ops.ones_like(x[..., :1], dtype="bool"))


def count_of(x: Any, valid: Any = None) -> Any:
    """Return how many positions a unit's mean runs over.

    Args:
        x: (samples, ..., units).
        valid: As `valid_positions` returns it; `None`: every position.

    Returns:
        A Python float where the shape says it; else a tensor of the dtype of `x`: without axes,
        or (units,) where the mask tells units apart.

    >>> count_of(ops.ones((2, 3, 4)))
    6.0
    """
    if valid is not None:
        count = sum_of_rows(ops.cast(valid, x.dtype))
        return ops.squeeze(count, -1) if valid.shape[-1] == 1 else count
    sizes = ops.shape(x)[:-1]
    if all(isinstance(size, int) for size in sizes):
        return float(math.prod(sizes))
    count = 1.0
    for size in sizes:
        count = count * ops.cast(size, x.dtype)
    return count


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
        mask: As for `valid_positions`.
        symmetric: Whether activations lie in [−1, 1]; the mean is then that of (1 + a)/2.
        otherwise: The value where no position is left.
        cross_replica: Whether the mean is that of the global batch of data-parallel training.
        moves_state: Whether the mean changes variables (see `replicas.replica_count`).

    Returns:
        (units,), at least float32.

    >>> a = ops.convert_to_tensor([[0.0, 1.0], [0.5, 0.5]])
    >>> ops.convert_to_numpy(mean_activation(a)).tolist()
    [0.25, 0.75]
    """
    rho_hat, count = mean_and_count(
        activations,
        mask,
        symmetric=symmetric,
        cross_replica=cross_replica,
        moves_state=moves_state,
    )
    if isinstance(count, float) and count > 0.0:
        return rho_hat
    otherwise = beside(otherwise, rho_hat)
    return ops.where(count > 0.0, rho_hat, otherwise * ops.ones_like(rho_hat))


def mean_and_count(
    activations: Any,
    mask: Any = None,
    *,
    symmetric: bool = False,
    cross_replica: bool = False,
    moves_state: bool = False,
) -> tuple[Any, Any]:
    """Return the mean of `mean_activation`, and how many positions it runs over.

    The count is as `count_of` returns it. Where it is 0 the mean is a number without meaning.
    """
    a = at_least_float32(activations)
    valid = None if mask is None else valid_positions(mask, a)
    total, count = sum_of_rows(a, valid), count_of(a, valid)
    if cross_replica and replica_count(moves_state) > 1:
        # Sums and counts, not means: every sample counts once, however the batch is divided.
        counts = count * ops.ones_like(total)
        both, _ = sum_over_replicas(ops.concatenate([total, counts]), 0.0, moves_state=moves_state)
        total, count = both[: total.shape[0]], both[total.shape[0] :]
    known = isinstance(count, float) and count > 0.0
    rho_hat = total / (count if known else at_least_one(count, total.dtype))
    return (0.5 + 0.5 * rho_hat if symmetric else rho_hat), count


def kl_divergence_from_logits(
    rho: Any, logits: Any, mask: Any = None, *, cross_replica: bool = False
) -> Any:
    """EQ-KL-LOGITS: KL(ρ‖ρ̂) of sigmoid units from their logits, one number a unit.

    log ρ̂ = log-mean-exp of log σ(z), log(1 − ρ̂) = log-mean-exp of log σ(−z). No ε: value and
    gradient are finite and right for every finite logit.

    Args:
        rho: ρ, inside (0, 1), as `divergence.target_of` takes it.
        logits: (samples, ..., units).
        mask: As for `valid_positions`. Where no position is left the divergence is 0.
        cross_replica: Whether ρ̂ is that of the global batch of data-parallel training.

    Returns:
        (units,), at least float32, in nats.

    >>> ops.convert_to_numpy(kl_divergence_from_logits(0.5, ops.zeros((3, 1)))).tolist()
    [0.0]
    """
    z = at_least_float32(logits)
    valid = None if mask is None else valid_positions(mask, z)
    count = count_of(z, valid)
    known = isinstance(count, float) and count > 0.0
    divisor = count if known else at_least_one(count, z.dtype)
    if cross_replica and replica_count() > 1:
        known, logarithms = False, [*log_sums_of_sigmoids(z, valid)]
        logarithms.append(ops.log(divisor * ops.ones_like(logarithms[0])))
        logarithms = [ops.where(count > 0.0, x, LOG_OF_NOTHING) for x in logarithms]
        added, _ = logsumexp_over_replicas(ops.concatenate(logarithms), 0.0)
        log_of_ones, log_of_zeros, log_count = ops.split(added, 3)
        log_rho_hat, log_rest = log_of_ones - log_count, log_of_zeros - log_count
        count = ops.cast(log_count > LOG_OF_NOTHING / 2.0, z.dtype)
    else:
        log_rho_hat, log_rest = log_sums_of_sigmoids(z, valid, divisor)
    divergence = kl_divergence_of_logarithms(target_of(rho, z), log_rho_hat, log_rest)
    return divergence if known else ops.where(count > 0.0, divergence, ops.zeros_like(divergence))


def log_sums_of_sigmoids(z: Any, valid: Any = None, divisor: Any = 1.0) -> tuple[Any, Any]:
    """Return log Σᵢ σ(zᵢ) and log Σᵢ σ(−zᵢ) of every unit, over the valid positions.

    Where all of a unit's logits are below 0, every σ(zᵢ) is divided by exp of the largest, s, so
    that neither the sum nor a sample's share in it underflows: σ(z)e⁻ˢ = exp(z − s)/(1 + exp(z)).
    Likewise σ(−z), where all are above 0. (See `custom_gradients.sums_of_sigmoids`.)

    Args:
        z: (samples, ..., units), float32 or float64.
        valid: As `valid_positions` returns it; `None`: every position.
        divisor: Of the sums, before their logarithm is rounded: their count makes them means.

    Returns:
        Two tensors, (units,); about −1e30 where nothing is valid.
    """
    axes = tuple(range(len(z.shape) - 1))
    if 0 in z.shape[:-1]:  # a replica without rows
        nothing = ops.full(z.shape[-1:], LOG_OF_NOTHING, dtype=z.dtype)
        return nothing, nothing
    largest = smallest = ops.stop_gradient(z)
    if valid is not None:
        largest = ops.where(valid, largest, LOG_OF_NOTHING * ops.ones_like(z))
        smallest = ops.where(valid, smallest, -LOG_OF_NOTHING * ops.ones_like(z))
    below = -ops.relu(-ops.max(largest, axis=axes))
    above = ops.relu(ops.min(smallest, axis=axes))
    shift = below + above
    if valid is not None:
        z = ops.where(valid, z, shift)  # a padded step may hold anything
    total, total_of_rest = sums_of_sigmoids(z, shift, valid, count_of(z, valid))
    if valid is not None:
        nothing = ops.cast(ops.logical_not(ops.any(valid, axis=axes)), z.dtype)  # log 1, not log 0
        total, total_of_rest = total + nothing, total_of_rest + nothing
    return ops.log(total / divisor) + below, ops.log(total_of_rest / divisor) - above


def at_least_one(count: Any, dtype: Any) -> Any:
    """Return a count to divide by, which is a number of its own or a tensor."""
    # `ops.maximum` with a Python float is float32 on torch, whatever the dtype.
    return ops.cast(ops.maximum(count, 1.0), dtype)
