"""Ng's (ρ, β, λ) and Keras's units, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch
from keras_impl.validation import integer, non_negative, sparsity_targets


class KerasUnits(NamedTuple):
    """What to write beside Keras's `"mse"` for the minimiser of Ng's cost.

    Everything is Ng's cost times 2/features, because `"mse"` averages over the features and has
    no ½. (Gradients are smaller by that factor too: a plain gradient step needs a learning rate
    larger by features/2.)

    Args:
        rho: ρ, unchanged.
        beta: The factor of ΣKL in a regularizer of a layer's activity.
        l2: The argument of `keras.regularizers.L2` for the kernels.
    """

    rho: float | tuple[float, ...]
    beta: float
    l2: float


class NgUnits(NamedTuple):
    """Ng's hyperparameters, in the units of the notes.

    Args:
        rho: ρ, the sparsity parameter.
        beta: β, the weight of ΣKL beside (1/m)Σ½‖h − y‖².
        weight_decay: λ, of (λ/2)Σ‖W‖².
    """

    rho: float | tuple[float, ...]
    beta: float
    weight_decay: float


def _batch_factor(batch_size: Any) -> int:
    if batch_size is None:
        return 1
    batch_size = integer("batch_size", batch_size, low=1)
    return batch_size if keras_divides_activity_by_batch() else 1


def to_keras_units(
    rho: float | Sequence[float] | NDArray[Any],
    beta: float,
    weight_decay: float,
    features: int,
    batch_size: int | None = None,
) -> KerasUnits:
    """Return what to write beside Keras's `"mse"` for Ng's ρ, β and λ.

    Args:
        rho: ρ, inside (0, 1): a number, or one for each unit.
        beta: β ≥ 0.
        weight_decay: λ ≥ 0.
        features: n, over which `"mse"` averages.
        batch_size: Give it if the penalty is a hand-written `activity_regularizer`, so that
            `beta` undoes the division by the batch (on a Keras that divides). Leave it out for
            `KLSparsity` and `KLSparsityRegularizer`, which are not divided.

    Returns:
        `KerasUnits(rho, beta, l2)`: β·2/n, and l2 = (λ/2)·2/n.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    The β = 3 of the notes is 0.00765 beside "mse" on 784 pixels:

    >>> round(to_keras_units(0.1, 3.0, 3e-3, features=784).beta, 5)
    0.00765
    """
    scale = 2.0 / integer("features", features, low=1)
    return KerasUnits(
        rho=sparsity_targets(rho),
        beta=non_negative("beta", beta) * scale * _batch_factor(batch_size),
        l2=non_negative("weight_decay", weight_decay) / 2.0 * scale,
    )


def from_keras_units(
    rho: float | Sequence[float] | NDArray[Any],
    beta: float,
    l2: float,
    features: int,
    batch_size: int | None = None,
) -> NgUnits:
    """Return Ng's ρ, β and λ of a Keras model with `"mse"`; the inverse of `to_keras_units`.

    Args:
        rho: ρ, inside (0, 1): a number, or one for each unit.
        beta: The factor of ΣKL in the model's regularizer.
        l2: The argument of its `keras.regularizers.L2`.
        features: n, over which `"mse"` averages.
        batch_size: The size of its batches, if the penalty is a hand-written
            `activity_regularizer` that Keras divides.

    Returns:
        `NgUnits(rho, beta, weight_decay)`.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> round(from_keras_units(0.1, 6.0, 0.0, features=576).beta)
    1728
    """
    scale = 2.0 / integer("features", features, low=1)
    return NgUnits(
        rho=sparsity_targets(rho),
        beta=non_negative("beta", beta) / scale / _batch_factor(batch_size),
        weight_decay=2.0 * non_negative("l2", l2) / scale,
    )
