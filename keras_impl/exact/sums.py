"""What the chunks of a data set add up to, and what the cost and its gradient need of it.

Two kinds of penalties have two kinds of sums: activations are added up, and of sigmoid units that
are known by their logits the logarithms of the sums. On the device the fields are tensors of one
chunk, on the host float64 arrays of all chunks so far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.custom_gradients import sum_of_rows
from keras_impl.backends.replicas import logsumexp_over_workers, sum_over_workers
from keras_impl.divergence import (
    at_least_float32,
    kl_divergence_and_slope,
    kl_divergence_of_logarithms,
    target_of,
)
from keras_impl.means import (
    count_of,
    log_sums_of_sigmoids,
    valid_positions,
)
from keras_impl.term import SparsityTerm

Array = NDArray[np.float64]


class LossSums(NamedTuple):
    """Of the losses of the outputs.

    Args:
        loss: Σ of the losses, weighted.
        count: How many there are; a mask leaves some out.
        weight: Σ of their weights.
    """

    loss: Any
    count: Any
    weight: Any

    def plus(self, other: LossSums) -> LossSums:
        """Add those of another chunk."""
        return LossSums(*(a + b for a, b in zip(self, other, strict=True)))

    def over_workers(self) -> LossSums:
        """Add those of the other worker processes."""
        return LossSums(*sum_over_workers(np.array(self, dtype=np.float64)))

    def divisor(self, reduction: str) -> Any:
        """Return what Keras divides the sum by; 0 where nothing counts."""
        if reduction == "sum":
            return 1.0
        return self.weight if reduction == "mean_with_sample_weight" else self.count


class ActivationSlope(NamedTuple):
    """∂βΣKL/∂θ by way of the sums of activations.

    Args:
        by_total: (units,), the derivative of βΣKL by each unit's sum.
    """

    by_total: Any

    def linear(self, sums: ActivationSums) -> Any:
        """Return a function of a chunk's sums whose gradient is the chunk's share of ∂βΣKL/∂θ."""
        return ops.sum(self.by_total * sums.total)


class ActivationSums(NamedTuple):
    """Of the activations of one penalised output.

    Args:
        total: (units,), Σa over the valid positions.
        count: How many positions are valid.
    """

    total: Any
    count: Any

    def plus(self, other: Any) -> ActivationSums:
        """Add those of another chunk, of the same kind."""
        return ActivationSums(self.total + other.total, self.count + other.count)

    def over_workers(self) -> ActivationSums:
        """Add those of the other worker processes."""
        return ActivationSums(sum_over_workers(self.total), sum_over_workers(np.array(self.count)))

    def mean_activation(self, term: SparsityTerm) -> Array:
        """EQ-RHO-HAT of the whole set; ρ where a mask leaves nothing."""
        rho_hat = self.total / np.maximum(self.count, 1.0)
        if term.symmetric:
            rho_hat = 0.5 + 0.5 * rho_hat
        return np.where(self.count > 0.0, rho_hat, term.rho)

    def divergence(self, term: SparsityTerm) -> Array:
        """EQ-KL-EXTENSION of each unit; 0 where a mask leaves nothing."""
        rho_hat = self.mean_activation(term)
        return kl_divergence_and_slope(term.rho, rho_hat, term.epsilon)[0]

    def slope(self, term: SparsityTerm, samples: int) -> ActivationSlope:
        """Return the derivative of `samples` times βΣKL by the sums."""
        if term.beta == 0.0:  # the term is off, also where the slope is infinite
            return ActivationSlope(np.zeros_like(self.total))
        rho_hat = self.mean_activation(term)
        _, slope = kl_divergence_and_slope(term.rho, rho_hat, term.epsilon)
        factor = term.beta / 2.0 if term.symmetric else term.beta
        return ActivationSlope(factor * slope * samples / np.maximum(self.count, 1.0))


class LogitSlope(NamedTuple):
    """∂βΣKL/∂θ by way of the logarithms of the sums of sigmoids.

    βΣKL is −β Σⱼ(ρ log Sⱼ + (1 − ρ) log S′ⱼ) + constant, Sⱼ = Σσ(z) and S′ⱼ = Σσ(−z) of the set. A
    chunk's part of the gradient is that of −β Σⱼ(ρ sⱼ/Sⱼ + (1 − ρ) s′ⱼ/S′ⱼ), s and s′ its own sums.
    Formed from logarithms, no quotient exceeds 1.

    Args:
        log_ones: (units,), log S.
        log_zeros: (units,), log S′.
        ones: βρ, in units of the cost times the samples.
        zeros: β(1 − ρ), likewise.
    """

    log_ones: Any
    log_zeros: Any
    ones: Any
    zeros: Any

    def linear(self, sums: LogitSums) -> Any:
        """Return a function of a chunk's sums whose gradient is the chunk's share of ∂βΣKL/∂θ."""
        ones = self.ones * ops.exp(sums.log_ones - self.log_ones)
        zeros = self.zeros * ops.exp(sums.log_zeros - self.log_zeros)
        return -ops.sum(ones + zeros)


class LogitSums(NamedTuple):
    """Of the logits of one penalised output, a layer of sigmoid units.

    Args:
        log_ones: (units,), log Σσ(z) over the valid positions.
        log_zeros: (units,), log Σσ(−z).
        count: How many positions are valid.
    """

    log_ones: Any
    log_zeros: Any
    count: Any

    def plus(self, other: Any) -> LogitSums:
        """Add those of another chunk, of the same kind."""
        return LogitSums(
            np.logaddexp(self.log_ones, other.log_ones),
            np.logaddexp(self.log_zeros, other.log_zeros),
            self.count + other.count,
        )

    def over_workers(self) -> LogitSums:
        """Add those of the other worker processes."""
        return LogitSums(
            logsumexp_over_workers(self.log_ones),
            logsumexp_over_workers(self.log_zeros),
            sum_over_workers(np.array(self.count)),
        )

    def mean_activation(self, term: SparsityTerm) -> Array:
        """EQ-RHO-HAT of the whole set; ρ where a mask leaves nothing."""
        rho_hat = np.exp(self.log_ones - np.log(np.maximum(self.count, 1.0)))
        return np.where(self.count > 0.0, rho_hat, term.rho)

    def divergence(self, term: SparsityTerm) -> Array:
        """EQ-KL-LOGITS of each unit; 0 where a mask leaves nothing."""
        log_count = np.log(np.maximum(self.count, 1.0))
        divergence = kl_divergence_of_logarithms(
            target_of(term.rho, self.log_ones),
            self.log_ones - log_count,
            self.log_zeros - log_count,
        )
        return np.where(self.count > 0.0, divergence, 0.0)

    def slope(self, term: SparsityTerm, samples: int) -> LogitSlope:
        """Return the derivative of `samples` times βΣKL by the sums."""
        scale = np.where(self.count > 0.0, samples * term.beta, 0.0)
        target = target_of(term.rho, self.log_ones)
        return LogitSlope(self.log_ones, self.log_zeros, scale * target.rho, scale * target.rest)


PenaltySums = ActivationSums | LogitSums


def penalty_sums(term: SparsityTerm, x: Any, mask: Any, valid: Any) -> PenaltySums:
    """Return the sums of one chunk, on the device.

    Args:
        term: What says whether `x` holds logits.
        x: Activations or logits, (rows, ..., units).
        mask: Valid positions, as for `means.valid_positions`; or `None`.
        valid: (rows,), 0 for a row that only fills the chunk up.

    Raises:
        ValueError: If `x` has not a row for each row of the chunk, or the mask does not fit.
    """
    x = at_least_float32(x)
    if tuple(x.shape[:1]) != tuple(valid.shape):
        raise ValueError(
            "The first axis of a penalised output must count the samples. Received an output of "
            f"shape {tuple(x.shape)} for {valid.shape[0]} samples."
        )
    positions = valid_positions(valid, x)
    if mask is not None:
        positions = ops.logical_and(positions, valid_positions(mask, x))
    count = count_of(x, positions)
    if term.from_logits:
        return LogitSums(*log_sums_of_sigmoids(x, positions), count)
    return ActivationSums(sum_of_rows(x, positions), count)
