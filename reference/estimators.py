"""ρ̂: the mean activation of each hidden unit, of a data set at once, in chunks, or running."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.divergence import samples_and_units
from reference.validation import Array, each, flag, real_array, real_number, truth_array


def mean_activation(activations: Any, mask: Any = None, *, symmetric: bool = False) -> Array:
    """EQ-RHO-HAT: ρ̂ⱼ = (1/m) Σᵢ aⱼ(xᵢ), the mean over the whole training set.

    For images and sequences every axis but the last counts samples. With a mask only the valid
    positions count, in the sum and in m. For tanh units (`symmetric`) it is the mean of
    (1 + a)/2, the rescaling of footnote 3 that brings [−1, 1] to [0, 1].

    Source: CS294A lecture notes "Sparse autoencoder", §3 (footnote 3 for tanh).

    Args:
        activations: (samples, ..., units).
        mask: The shape of `activations` without its last axis; true where a position is valid.
            `None`: all are.
        symmetric: Whether the activations lie in [−1, 1].

    Returns:
        float64, (units,).

    Raises:
        TypeError: If an argument has another type.
        ValueError: If `activations` has no sample or is not finite, if the mask has another
            shape, or if the mask leaves nothing.

    >>> mean_activation([[0.0, 1.0], [0.5, 0.5]]).tolist()
    [0.25, 0.75]
    """
    a, valid = valid_samples(activations, mask)
    a = a[valid]
    rho_hat: Array = np.sum(a, axis=0) / len(a)
    return (1.0 + rho_hat) / 2.0 if flag("symmetric", symmetric) else rho_hat


def valid_samples(activations: Any, mask: Any) -> tuple[Array, NDArray[np.bool_]]:
    """Return (..., units) as (samples, units), and which samples the mask leaves.

    Raises:
        TypeError, ValueError: As `mean_activation`.

    >>> valid_samples(np.zeros((1, 2, 3)), [[True, False]])[1].tolist()
    [True, False]
    """
    samples = samples_and_units("activations", activations)
    shape = np.shape(activations)[:-1]
    if mask is None:
        return samples, np.ones(len(samples), dtype=bool)
    valid = truth_array("mask", mask)
    if valid.shape != shape:
        raise ValueError(
            f"`mask` must have the shape of `activations` without its last axis, {shape}. "
            f"Received {valid.shape}."
        )
    if not np.any(valid):
        raise ValueError("`mask` must leave at least one position. Received all false.")
    return samples, valid.ravel()


def mean_activation_of_chunks(chunks: Iterable[Any]) -> Array:
    """EQ-RHO-HAT-CHUNKS: ρ̂ = (Σ_c Σ_{i∈c} a(xᵢ)) / (Σ_c m_c).

    The same mean as EQ-RHO-HAT without all activations in memory at once. It is the mean of
    sums, not the mean of the chunks' means: chunks may have different sizes.

    Source: CS294A lecture notes "Sparse autoencoder", §3 (a forward pass over all examples
    first).

    Args:
        chunks: Arrays (samples, ..., units); the number of samples may differ.

    Returns:
        float64, (units,).

    Raises:
        TypeError: If a chunk is not real.
        ValueError: If there is no chunk, or a chunk is empty or has another number of units.

    >>> mean_activation_of_chunks([[[0.0], [0.0], [0.0]], [[1.0]]]).tolist()
    [0.25]
    """
    total: Array | None = None
    count = 0
    for chunk in each("chunks", chunks, "arrays"):
        a = samples_and_units("chunks", chunk)
        if total is None:
            total = np.zeros(a.shape[1])
        if total.shape != a.shape[1:]:
            raise ValueError(
                f"`chunks` must all have {len(total)} units. Received one with {a.shape[1]}."
            )
        total = total + np.sum(a, axis=0)
        count += len(a)
    if total is None:
        raise ValueError("`chunks` must hold at least one chunk. Received none.")
    return total / count


def running_average(previous: Any | None, batch_mean: Any, momentum: Any) -> Array:
    """EQ-RHO-HAT-RUNNING: ρ̂ ← μ ρ̂ + (1 − μ) ρ̂_batch; the first batch sets ρ̂ = ρ̂_batch.

    Source: G. Hinton, "A Practical Guide to Training Restricted Boltzmann Machines", §11
    (an exponentially decaying average of the mean probability that a unit is active). The
    start-up is this project's: no bias towards an arbitrary first value.

    Args:
        previous: (units,), the average so far; `None` before the first batch.
        batch_mean: (units,), EQ-RHO-HAT of this batch.
        momentum: μ, in [0, 1).

    Returns:
        float64, (units,).

    Raises:
        TypeError: If an argument is not real.
        ValueError: If `momentum` leaves [0, 1) or the shapes differ.

    >>> running_average(None, [0.5], 0.75).tolist(), running_average([0.5], [1.0], 0.75).tolist()
    ([0.5], [0.625])
    """
    momentum = real_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
    batch_mean = real_array("batch_mean", batch_mean, ndim=1, finite=True)
    if batch_mean.size == 0:
        raise ValueError("`batch_mean` must hold at least one unit. Received none.")
    if previous is None:
        return batch_mean
    previous = real_array("previous", previous, ndim=1, finite=True)
    if previous.shape != batch_mean.shape:
        raise ValueError(
            f"`previous` must have the shape of `batch_mean`, {batch_mean.shape}. "
            f"Received {previous.shape}."
        )
    average: Array = momentum * previous + (1.0 - momentum) * batch_mean
    return average
