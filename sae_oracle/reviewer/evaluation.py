"""Running the object under review on the backend in use: values, gradients, compiled calls."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.autodiff import value_and_gradients


def as_array(value: Any) -> Any:
    """Return a tensor, a NumPy array or a number as a float64 array, exactly."""
    if isinstance(value, (int, float, np.ndarray, np.generic)):
        return np.asarray(value, dtype=np.float64)
    if dtype_of(value) == "bfloat16":  # NumPy has none; float32 holds it exactly
        value = ops.cast(value, "float32")
    if hasattr(value, "detach"):
        value = value.detach()
    return np.asarray(ops.convert_to_numpy(value), dtype=np.float64)


def as_number(value: Any) -> float:
    """Return a scalar (or an array of one element) as a float.

    Raises:
        ValueError: If it is not one number.
    """
    array = as_array(value)
    if array.size != 1:
        raise ValueError(f"not one number but an array of shape {array.shape}")
    return float(array.reshape(()))


def dtype_of(value: Any) -> str:
    """Return the name of a tensor's dtype; "float64" of a Python number."""
    if not hasattr(value, "dtype"):
        return "float64"
    return str(keras.backend.standardize_dtype(value.dtype))


def tensor(x: Any, dtype: str = "float32") -> Any:
    """Return a NumPy array as a tensor of the backend."""
    return ops.cast(ops.convert_to_tensor(np.asarray(x, dtype="float32")), dtype)


def losses_of(layer: Any, *inputs: Any) -> tuple[Any, list[Any]]:
    """Call a layer as in training; return its output and the losses that it recorded."""
    output = layer(*inputs, **_training(layer))
    return output, list(layer.losses)


def _training(layer: Any) -> dict[str, Any]:
    return {"training": True} if "training" in inspect.signature(layer.call).parameters else {}


def penalty_function(layer: Any) -> Callable[[Any], Any]:
    """Return the sum of a built layer's losses as a function of its input, differentiable."""
    if keras.config.backend() != "jax":
        return lambda x: sum(losses_of(layer, x)[1])

    def stateless(x: Any) -> Any:
        _, _, losses = layer.stateless_call(
            [v.value for v in layer.trainable_variables],
            [v.value for v in layer.non_trainable_variables],
            x,
            return_losses=True,
            **_training(layer),
        )
        return sum(losses)

    return stateless


def gradient_of(function: Callable[[Any], Any], x: Any, dtype: str = "float32") -> Any:
    """Return the gradient of a scalar function at an array."""

    def scalar(t: Any) -> Any:
        value = function(t)
        if keras.config.backend() == "torch" and not hasattr(value, "requires_grad"):
            value = ops.convert_to_tensor(value)
        return value

    _, (gradient,) = value_and_gradients(scalar, [tensor(x, dtype)])
    return as_array(gradient)


def run_compiled(function: Callable[[Any], Any], x: Any) -> float:
    """Return the value of the function as a training step runs it: compiled where Keras does.

    TensorFlow does not know the batch size then.
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return as_number(jax.jit(function)(tensor(x)))
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(
            function, input_signature=[tf.TensorSpec([None, *x.shape[1:]], "float32")]
        )
        return as_number(compiled(tensor(x)))
    return as_number(function(tensor(x)))


@contextmanager
def quietly() -> Iterator[None]:
    """Silence what NumPy and Keras warn about when something is tried that may fail."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
