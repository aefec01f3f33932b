"""Three operations that torch computes faster at once than in pieces; other backends compile.

torch runs eagerly: every operation writes a tensor of its own, and autograd two more for a square.
Together they take a quarter off an evaluation of cost and gradient on the notes' exercise:
`python -m benchmarks.exact_training`, docs/training.md.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops


def affine(x: Any, kernel: Any, bias: Any) -> Any:
    """Return x·kernel + bias, of tensors of one dtype; float64 is float64 on every backend.

    Args:
        x: (m, n).
        kernel: (n, units).
        bias: (units,).

    >>> float(affine(ops.ones((1, 2)), ops.ones((2, 1)), ops.ones((1,)))[0, 0])
    3.0
    """
    if keras.config.backend() == "torch":
        import torch

        return torch.addmm(bias, x, kernel)
    # `@` on tensors: `ops.matmul` of float64 is float32 on torch.
    return x @ kernel + bias


def sigmoid_in_place(z: Any) -> Any:
    """Return σ(z), of a tensor that nobody needs afterwards: torch writes over it.

    >>> float(sigmoid_in_place(ops.zeros(())))
    0.5
    """
    if keras.config.backend() == "torch":
        return z.sigmoid_()
    return keras.activations.sigmoid(z)


def half_sum_of_squares(x: Any) -> Any:
    """Return ½ Σ x² over the last axis.

    >>> float(half_sum_of_squares(ops.convert_to_tensor([1.0, 2.0])))
    2.5
    """
    if keras.config.backend() == "torch":
        return _torch_half_sum_of_squares()(x)
    return 0.5 * ops.sum(ops.square(x), axis=-1)


@functools.cache
def _torch_half_sum_of_squares() -> Any:
    import torch

    class HalfSumOfSquares(torch.autograd.Function):
        """Its gradient is x itself; autograd of the pieces forms 2x and its product with ½."""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            # Of all ways to this sum the one that writes no squares.
            return 0.5 * torch.linalg.vector_norm(x, dim=-1).square_()

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (x,) = ctx.saved_tensors
            return x * gradient.unsqueeze(-1)

    return HalfSumOfSquares.apply
