"""Value and gradient of a function of tensors, on the backend in use. The one place that differs.

`keras.ops` has no gradient; each backend has its own way to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops


def value_and_gradients(
    function: Callable[..., Any], tensors: Sequence[Any], *, has_aux: bool = False
) -> tuple[Any, list[Any]]:
    """Return function(*tensors) and its derivatives by each of the tensors.

    Args:
        function: Takes the tensors, returns a scalar tensor; with `has_aux` a pair of it and of
            other tensors.
        tensors: Where to differentiate; float.
        has_aux: Whether the function returns more than what is differentiated.

    Returns:
        What the function returned, and one tensor a derivative, in the shapes and dtypes of
        `tensors`; zeros where the function does not depend on one.

    Raises:
        NotImplementedError: If the backend in use has no gradients (numpy, openvino).

    >>> value, (gradient,) = value_and_gradients(ops.square, [ops.convert_to_tensor(3.0)])
    >>> float(value), float(gradient)
    (9.0, 6.0)
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        returned, gradients = jax.value_and_grad(
            function, argnums=tuple(range(len(tensors))), has_aux=has_aux
        )(*tensors)
        return returned, list(gradients)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            returned = function(*tensors)
        gradients = tape.gradient(
            returned[0] if has_aux else returned,
            list(tensors),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return returned, gradients
    if backend == "torch":
        import torch

        # Contiguous, as the gradient of a convolution's kernel must be.
        leaves = [
            ops.convert_to_tensor(t)
            .detach()
            .clone(memory_format=torch.contiguous_format)
            .requires_grad_()
            for t in tensors
        ]
        with torch.enable_grad():
            returned = function(*leaves)
            value = returned[0] if has_aux else returned
            if not value.requires_grad:  # it depends on none of them
                return returned, [torch.zeros_like(leaf) for leaf in leaves]
            gradients = torch.autograd.grad(
                value, leaves, allow_unused=True, materialize_grads=True
            )
        returned = keras.tree.map_structure(lambda tensor: tensor.detach(), returned)
        return returned, [gradient.detach() for gradient in gradients]
    raise NotImplementedError(f"The {backend} backend of Keras has no gradients.")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, compiled for the shapes and dtypes that it is called with.

    By `jax.jit` or `tf.function`; on torch, where compiling takes half a minute, it runs eagerly,
    and keeps nothing for a later backward pass. Elsewhere it is the function itself.

    Args:
        function: Takes and returns tensors, or lists of them.

    >>> float(compiled(ops.square)(ops.convert_to_tensor(3.0)))
    9.0
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function)

        def called(*arguments: Any) -> Any:
            # Variables among the arguments by their values, so that a new one is no new trace.
            return traced(*keras.tree.map_structure(tf.convert_to_tensor, arguments))

        return called
    if backend == "torch":
        import torch

        return torch.no_grad()(function)
    return function


def has_gradients() -> bool:
    """Whether the backend in use can differentiate.

    >>> has_gradients()
    True
    """
    return keras.config.backend() in ("jax", "tensorflow", "torch")
