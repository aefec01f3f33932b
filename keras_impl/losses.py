"""`HalfSquaredError`: the reconstruction term of Ng's cost as a Keras loss."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_impl.backends.custom_gradients import half_sum_of_squares
from keras_impl.divergence import at_least_float32


@keras.saving.register_keras_serializable(package="sae_oracle")
class HalfSquaredError(keras.losses.Loss):
    """The reconstruction term (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖² (EQ-RECONSTRUCTION).

    Squares are summed over features, halved, and averaged over samples. Keras's `"mse"` averages
    over features too and has no ½: this loss is features/2 times `"mse"`.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8).

    Args:
        axis: The axes of the features. `None`: all but the first, so that an image or a sequence
            is one sample. -1: only the last, so that each step of a sequence, or each pixel, is
            a sample; masks and temporal sample weights need that.
        reduction: As for every Keras loss; the default averages over samples.
        name: The name of the loss.
        dtype: The dtype to compute in. `None`: Keras's float dtype (`keras.config.floatx()`).

    Raises:
        ValueError: If `axis` is neither `None` nor -1.

    >>> float(HalfSquaredError()(ops.zeros((1, 2)), ops.convert_to_tensor([[1.0, 2.0]])))
    2.5
    """

    def __init__(
        self,
        axis: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "half_squared_error",
        dtype: Any = None,
    ) -> None:
        if axis not in (None, -1):
            raise ValueError(f"`axis` must be None or -1. Received: axis={axis!r}")
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.axis = axis

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss; see `keras.losses.Loss`."""
        if self.dtype != "float64" or self.reduction != "sum_over_batch_size":
            loss = super().__call__(y_true, y_pred, sample_weight)
            # Keras does not reduce the losses of no samples; a replica may have none.
            nothing = tuple(loss.shape) == (0,) and self.reduction not in (None, "none")
            return ops.sum(loss) if nothing else loss
        # Keras's own reduction divides in float32 on torch, whatever the dtype.
        total = HalfSquaredError(self.axis, reduction="sum", dtype="float64")(
            y_true, y_pred, sample_weight
        )
        samples = ops.shape(y_pred)[:1] if self.axis is None else ops.shape(y_pred)[:-1]
        for size in samples:
            total = total / ops.cast(size, total.dtype)
        return total

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
        if tuple(y_true.shape[1:]) != tuple(y_pred.shape[1:]):
            raise ValueError(
                "`y_true` must have the shape of `y_pred`. "
                f"Received: y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"
            )
        difference = at_least_float32(y_pred) - at_least_float32(y_true)
        if self.axis is None and len(difference.shape) != 2:
            features = math.prod(difference.shape[1:])
            difference = ops.reshape(difference, (-1, features))
        return half_sum_of_squares(difference)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {**super().get_config(), "axis": self.axis, "dtype": self.dtype}
