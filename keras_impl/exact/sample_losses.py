"""The loss of a model, one number for each sample, so that samples can be counted over chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_impl.backends.keras_internals import mask_of, masked
from keras_impl.exact.sums import LossSums
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder


class SampleLosses:
    """The loss of a model, taken apart into samples.

    Args:
        model: Its loss is Ng's cost, or the one that it was compiled with; without one,
            `HalfSquaredError`.

    Raises:
        ValueError: If the loss is no mean or sum over samples of one loss of one output.
    """

    def __init__(self, model: Any) -> None:
        loss = _loss_of(model)
        if isinstance(loss, keras.losses.Loss):
            self.reduction: str = loss.reduction or "none"
            self._loss, self._counter = copy.copy(loss), copy.copy(loss)
            self._loss.reduction = self._counter.reduction = "none"
        else:
            self.reduction = "sum_over_batch_size"
            self._loss, self._counter = _OfFunction(loss), _OfFunction(loss)
        if self.reduction == "none":
            raise ValueError(
                "The loss of the model must be reduced to a number: leave its `reduction` out. "
                "Received: none."
            )
        # A loss like it counts: a mask means the same to the count as to the sum.
        self._counter.call = self._ones
        self._call = self._loss.call
        self._loss.call = self._and_keep_mask
        self._losses: Any = None
        self._mask: Any = None

    def _and_keep_mask(self, y_true: Any, y_pred: Any) -> Any:
        losses = self._call(y_true, y_pred)
        self._mask = mask_of(losses)  # a loss may leave out numbers itself: `ignore_class`
        return losses

    def _ones(self, y_true: Any, y_pred: Any) -> Any:
        """1 for each number of a loss; the call puts 0 where a mask leaves the number out."""
        return masked(ops.ones(self._losses.shape, dtype=self._losses.dtype), self._mask)

    def sums(self, y: Any, y_pred: Any, sample_weight: Any, valid: Any) -> LossSums:
        """Return Σ of the losses of a chunk, how many there are, and Σ of their weights.

        Args:
            y: The targets.
            y_pred: The outputs.
            sample_weight: (rows,) or (rows, ...), 0 for a row that only fills the chunk up.
            valid: (rows,), 0 for a row that only fills the chunk up.

        Raises:
            ValueError: If the loss is not one number a sample (or a step), or the weights do not
                fit.
        """
        losses = self._losses = self._loss(y, y_pred)
        if tuple(losses.shape[:1]) != tuple(valid.shape):
            raise ValueError(
                "The loss of the model must return a number for each sample, so that samples can "
                f"be counted. Received a loss of shape {tuple(losses.shape)} for "
                f"{valid.shape[0]} samples."
            )
        counted = self._counter(y, y_pred)
        self._losses = self._mask = None
        weights = _multiplying(sample_weight, losses)
        return LossSums(
            ops.sum(losses * weights),
            ops.sum(counted * _multiplying(valid, losses)),
            ops.sum(counted * weights),
        )


def _loss_of(model: Any) -> Any:
    computes = type(model).compute_loss
    if computes is SparseAutoencoder.compute_loss:
        return model.reconstruction_loss
    if computes is not keras.Model.compute_loss:
        raise ValueError(
            f"The cost of {type(model).__name__} is computed by a `compute_loss` of its own, which "
            "cannot be taken apart into samples. Give a loss to `compile` in its place, or train "
            "with `fit`."
        )
    config = model.get_compile_config() if model.compiled else None
    if config is not None and config.get("loss_weights") is not None:
        raise ValueError(
            "`loss_weights` of a compiled model are not supported: multiply inside of the loss. "
            f"Received: {config['loss_weights']!r}"
        )
    loss = getattr(model, "loss", None)
    if loss is None:
        dtype = "float64" if model.compute_dtype == "float64" else "float32"
        return HalfSquaredError(dtype=dtype)
    if isinstance(loss, (list, tuple, dict)):
        raise ValueError(
            "`model` must have one output and one loss: make a keras.Model of one output. "
            f"Received: loss={loss!r}"
        )
    return keras.losses.get(loss)


def _multiplying(weights: Any, losses: Any) -> Any:
    """Weights of samples, or of samples and steps, with the axes of the losses."""
    shape, wanted = tuple(weights.shape), tuple(losses.shape)
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:  # a column, as Keras takes it too
        shape = shape[:-1]
    shape = (*shape, *(1,) * (len(wanted) - len(shape)))
    if len(shape) != len(wanted) or any(
        size not in (1, expected) for size, expected in zip(shape, wanted, strict=True)
    ):
        raise ValueError(
            "`sample_weight` must have the axes of the losses, or the first of them. Received "
            f"weights of shape {tuple(weights.shape)} for losses of shape {wanted}."
        )
    weights = ops.reshape(weights, shape)
    return weights if weights.dtype == losses.dtype else ops.cast(weights, losses.dtype)


class _OfFunction(keras.losses.Loss):
    """A loss function, such as the one called "mse", as a loss object."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="of_function", reduction="none")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self._function(y_true, y_pred)
