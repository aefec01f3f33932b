"""The arrays that code takes: NumPy's, torch's, JAX's, TensorFlow's, or those of Keras in use.

What Keras never calls is run on its own library, whatever backend Keras has. Each framework answers
the same: an array of the library, a number of it, and the gradient of a function.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_impl.backends.autodiff import has_gradients
from sae_oracle.reviewer import evaluation


class Framework:
    """NumPy, and what the others have in common with it.

    Args:
        name: Of the library, or "keras" for the backend in use.
    """

    name = "numpy"
    dtype = "float64"

    def tensor(self, x: Any) -> Any:
        """Return a float64 array as an array of the library, in its usual precision."""
        return np.array(x, dtype=self.dtype)

    def array(self, value: Any) -> Any:
        """Return an array of the library, or a number, as a float64 array."""
        return np.asarray(value, dtype=np.float64)

    def exponential(self, x: Any) -> Any:
        """Return e to the power of an array."""
        return np.exp(x)

    def gradients(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
        """Return the derivatives of a scalar function; `None`: the library has none."""
        return None

    def total(self, value: Any) -> Any:
        """Return the sum of an array, differentiable."""
        return value.sum() if hasattr(value, "sum") else value


class _Torch(Framework):
    name, dtype = "torch", "float32"

    def tensor(self, x: Any) -> Any:
        import torch

        return torch.tensor(np.asarray(x), dtype=getattr(torch, self.dtype))

    def array(self, value: Any) -> Any:
        if hasattr(value, "detach"):
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, dtype=np.float64)

    def gradients(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
        import torch

        tensors = [self.tensor(x).requires_grad_() for x in arrays]
        value = torch.as_tensor(function(*tensors))
        if not value.requires_grad:
            return [np.zeros(np.shape(x)) for x in arrays]
        found = torch.autograd.grad(value, tensors, allow_unused=True)
        return [
            np.zeros(np.shape(x)) if g is None else self.array(g)
            for g, x in zip(found, arrays, strict=True)
        ]


class _JAX(Framework):
    name, dtype = "jax", "float32"

    def exponential(self, x: Any) -> Any:
        import jax.numpy as jnp

        return jnp.exp(x)

    def tensor(self, x: Any) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(np.asarray(x), dtype=self.dtype)

    def gradients(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
        import jax

        tensors = [self.tensor(x) for x in arrays]
        found = jax.grad(function, argnums=tuple(range(len(tensors))))(*tensors)
        return [self.array(g) for g in found]


class _TensorFlow(Framework):
    name, dtype = "tensorflow", "float32"

    def tensor(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.constant(np.asarray(x), dtype=self.dtype)

    def total(self, value: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_sum(value)

    def gradients(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
        import tensorflow as tf

        tensors = [self.tensor(x) for x in arrays]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = tf.convert_to_tensor(function(*tensors))
        zero = tf.UnconnectedGradients.ZERO
        return [self.array(g) for g in tape.gradient(value, tensors, unconnected_gradients=zero)]


class _Keras(Framework):
    name, dtype = "keras", "float32"

    def tensor(self, x: Any) -> Any:
        return evaluation.tensor(x)

    def array(self, value: Any) -> Any:
        return evaluation.as_array(value)

    def total(self, value: Any) -> Any:
        from keras import ops

        return ops.sum(value)

    def gradients(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any] | None:
        if not has_gradients():
            return None
        found = []
        for k, x in enumerate(arrays):
            others = [self.tensor(other) for other in arrays]

            def of_one(t: Any, k: int = k, others: list[Any] = others) -> Any:
                return function(*others[:k], t, *others[k + 1 :])

            found.append(evaluation.gradient_of(of_one, x))
        return found


FRAMEWORKS: dict[str, Framework] = {
    kind.name: kind() for kind in (Framework, _Torch, _JAX, _TensorFlow, _Keras)
}


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run jitted functions as they are written, with the numbers that their module has now."""
    with contextlib.ExitStack() as stack:
        if "jax" in sys.modules:
            stack.enter_context(sys.modules["jax"].disable_jit())
        if "tensorflow" in sys.modules:
            config = sys.modules["tensorflow"].config
            stack.callback(config.run_functions_eagerly, config.functions_run_eagerly())
            config.run_functions_eagerly(True)
        yield


def is_installed(name: str) -> bool:
    """Whether the library of a framework can be imported.

    >>> is_installed("numpy")
    True
    """
    return name == "keras" or importlib.util.find_spec(name) is not None
