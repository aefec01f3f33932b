"""Value and gradient of a function of tensors, on the backend in use. The one place that differs.

`keras.ops` has no gradient; each backend has its own way to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops


def value_and_gradients(
    function: Callable[..., Any], tensors: Sequence[Any]
) -> tuple[Any, list[Any]]:
    """Return function(*tensors) and its derivatives by each of the tensors.

    Args:
        function: Takes the tensors, returns a scalar tensor.
        tensors: Where to differentiate; float.

    Returns:
        The scalar, and one tensor a derivative, in the shapes and dtypes of `tensors`; zeros
        where the function does not depend on one.

    Raises:
        NotImplementedError: If the backend in use has no gradients (numpy, openvino).

    >>> value, (gradient,) = value_and_gradients(ops.square, [ops.convert_to_tensor(3.0)])
    >>> float(value), float(gradient)
    (9.0, 6.0)
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))(
            *tensors
        )
        return value, list(gradients)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(
            value, list(tensors), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return value, gradients
    if backend == "torch":
        import torch

        leaves = [ops.convert_to_tensor(t).detach().clone().requires_grad_() for t in tensors]
        with torch.enable_grad():
            value = function(*leaves)
            if not value.requires_grad:  # it depends on none of them
                return value, [torch.zeros_like(leaf) for leaf in leaves]
            gradients = torch.autograd.grad(
                value, leaves, allow_unused=True, materialize_grads=True
            )
        return value.detach(), [gradient.detach() for gradient in gradients]
    raise NotImplementedError(f"The {backend} backend of Keras has no gradients.")


def has_gradients() -> bool:
    """Whether the backend in use can differentiate.

    >>> has_gradients()
    True
    """
    return keras.config.backend() in ("jax", "tensorflow", "torch")
