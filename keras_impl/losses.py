"""`HalfSquaredError`: the reconstruction term of Ng's cost as a Keras loss."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
from keras import ops

from keras_impl.backends.custom_gradients import half_sum_of_squares
from keras_impl.backends.keras_internals import mask_of
from keras_impl.backends.replicas import share_of_loss
from keras_impl.divergence import at_least_float32
from keras_impl.validation import cut, tensor

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)
BLOCK = 1024
"""Terms that are added up in a row: a sum of a million in one go loses three digits on torch."""


@keras.saving.register_keras_serializable(package="sae_oracle")
class HalfSquaredError(keras.losses.Loss):
    """The reconstruction term (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖² (EQ-RECONSTRUCTION).

    Squares are summed over features, halved, and averaged over samples. Keras's `"mse"` averages
    over features too and has no ½: this loss is features/2 times `"mse"`. Masks, sample weights
    and reductions mean what they mean to Keras's losses: a mask takes samples out of the sum and
    of the count; weights scale the sum, and the count only with "mean_with_sample_weight".

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8).

    Args:
        axis: The axes of the features. `None`: all but the first, so that an image or a sequence
            is one sample. -1: only the last, so that each step of a sequence, or each pixel, is
            a sample; masks and weights of steps need that.
        reduction: As for every Keras loss; the default averages over samples.
        name: The name of the loss.
        dtype: The dtype to compute in. `None`: Keras's float dtype (`keras.config.floatx()`).

    Raises:
        ValueError: If `axis` is neither `None` nor -1, or if Keras knows no such `reduction` or
            `dtype`; when called, if the shapes of targets, mask or weights do not fit.

    >>> float(HalfSquaredError()(ops.zeros((1, 2)), ops.convert_to_tensor([[1.0, 2.0]])))
    2.5
    """

    def __init__(
        self,
        axis: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "half_squared_error",
        dtype: Any = None,
    ) -> None:
        if axis is not None and not (isinstance(axis, numbers.Integral) and axis == -1):
            raise ValueError(
                "`axis` must be None or -1: move other axes of features to the end. "
                f"Received: axis={axis!r}"
            )
        if reduction is not None and (
            not isinstance(reduction, str) or reduction not in REDUCTIONS
        ):
            raise ValueError(
                f"`reduction` must be one of {REDUCTIONS}. Received: reduction={reduction!r}"
            )
        if name is not None and not isinstance(name, str):
            raise TypeError(f"`name` must be a string. Received: name={cut(name)}")
        try:
            super().__init__(name=name, reduction=reduction, dtype=dtype)
            is_float = keras.backend.is_float_dtype(self.dtype)
        except Exception:  # of whatever kind Keras meets first
            is_float = False
        if not is_float:
            raise ValueError(
                f"`dtype` must be a float dtype of Keras. Received: dtype={cut(dtype)}"
            )
        self.axis = None if axis is None else -1

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss, at least float32; see `keras.losses.Loss`.

        Not Keras's own reduction, which on torch divides in float32 whatever the dtype.
        """
        mask = mask_of(y_pred)
        losses = self.call(
            ops.convert_to_tensor(tensor("y_true", y_true), dtype=self.dtype),
            ops.convert_to_tensor(tensor("y_pred", y_pred), dtype=self.dtype),
        )
        weights = None
        if sample_weight is not None:
            weights = self._weights("sample_weight", sample_weight, losses)
            losses = losses * weights
        if mask is not None:
            mask = self._weights("the mask of y_pred", mask, losses)
            losses = losses * mask
            weights = mask if weights is None else mask * weights
        if self.reduction in (None, "none"):
            return losses
        total = ops.sum(losses)
        if self.reduction == "sum":
            return total
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            count = ops.sum(weights * ops.ones_like(losses))
        else:
            count = _count(losses, mask)
        # Of nothing, or of nothing that has a weight, the mean is 0, as Keras says.
        if isinstance(count, int):
            return share_of_loss(total / max(count, 1))
        return share_of_loss(total / ops.where(count == 0.0, ops.ones_like(count), count))

    def _weights(self, name: str, weights: Any, losses: Any) -> Any:
        """Return weights with the axes of `losses`, to be multiplied by them."""
        weights = ops.convert_to_tensor(weights, dtype=losses.dtype)
        shape, rank = tuple(weights.shape), len(losses.shape)
        while len(weights.shape) > rank and weights.shape[-1] == 1:
            weights = ops.squeeze(weights, -1)
        fits = len(weights.shape) <= rank and all(
            size in (1, None) or of_losses in (size, None)
            for size, of_losses in zip(weights.shape, losses.shape, strict=False)
        )
        if not fits:
            advice = " `axis=-1` makes a sample of each step." if self.axis is None else ""
            raise ValueError(
                f"The shape of {name} must be that of the losses, {tuple(losses.shape)}, or its "
                f"beginning.{advice} Received a shape of {shape}"
            )
        for _ in range(rank - len(weights.shape)):
            weights = ops.expand_dims(weights, -1)
        return weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return ½‖y_pred − y_true‖² of each sample.

        Args:
            y_true: (samples, ..., features).
            y_pred: The same shape.

        Returns:
            (samples,), or (samples, ...) with `axis=-1`; at least float32.

        Raises:
            ValueError: If the shapes differ: a broadcast would compare the wrong numbers.
        """
        shapes = tuple(y_true.shape), tuple(y_pred.shape)
        if len(shapes[0]) != len(shapes[1]) or any(
            None not in sizes and sizes[0] != sizes[1] for sizes in zip(*shapes, strict=True)
        ):
            raise ValueError(
                "`y_true` must have the shape of `y_pred`. "
                f"Received: y_true.shape={shapes[0]}, y_pred.shape={shapes[1]}"
            )
        losses = at_least_float32(y_pred) - at_least_float32(y_true)
        sizes = tuple(losses.shape)[1:]
        if self.axis is None and len(sizes) != 1 and None not in sizes:
            losses = ops.reshape(losses, (-1, math.prod(sizes)))
        losses = _half_sum_of_squares(losses)
        while self.axis is None and len(losses.shape) > 1:  # sizes that nobody knows yet
            losses = ops.sum(losses, axis=-1)
        return losses

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {**super().get_config(), "axis": self.axis, "dtype": self.dtype}


def _half_sum_of_squares(x: Any) -> Any:
    """½ Σ x² over the last axis, in stages: the error grows with a block and not with the axis."""
    features = x.shape[-1]
    if features is None or features <= BLOCK:
        return half_sum_of_squares(x)
    end = features - features % BLOCK
    blocks = ops.reshape(x[..., :end], (*ops.shape(x)[:-1], end // BLOCK, BLOCK))
    total = ops.sum(half_sum_of_squares(blocks), axis=-1)
    return total if end == features else total + half_sum_of_squares(x[..., end:])


def _count(losses: Any, mask: Any) -> Any:
    """How many losses there are, or how many of them the mask leaves; an `int` if it is known."""
    count: Any = 1
    sizes = ops.shape(losses)
    if mask is not None:
        count = ops.cast(ops.sum(ops.cast(mask, "int32")), losses.dtype)
        # The axes along which it is repeated.
        sizes = [size for size, of_mask in zip(sizes, mask.shape, strict=True) if of_mask == 1]
    for size in sizes:
        count = count * (size if isinstance(size, int) else ops.cast(size, losses.dtype))
    return count
