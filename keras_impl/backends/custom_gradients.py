"""Passes and derivatives written out by hand, in the one place that does so, for one backend.

There are two reasons. What autodiff makes of σ(z) is σ(1 − σ), and 1 − σ is 0 from z = 17 on in
float32: the gradient of a saturated sample is lost, which the oracle's bounds do not forgive. And
torch runs every operation, and the derivative of every operation, as a kernel of its own that
writes a tensor of its own: the twenty small ones of a divergence cost more than the one pass over
the activations (docs/speed.md counts them), and of an evaluation of the whole cost they take a
quarter (docs/training.md). JAX and TensorFlow compile or schedule the whole step: there all but a
derivative is left to `keras.ops`.

Every derivative here can be differentiated again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def sigmoids_of_both_signs(z: Any) -> tuple[Any, Any]:
    """Return σ(z) and σ(−z), each to a few roundoffs of itself, with derivative ±σ(z)σ(−z).

    Args:
        z: Any shape, float32 or float64.

    >>> [float(s) for s in sigmoids_of_both_signs(ops.convert_to_tensor(0.0))]
    [0.5, 0.5]
    """
    backend = keras.config.backend()
    if backend == "jax":
        return _jax_sigmoids()(z)
    if backend == "tensorflow":
        return _tensorflow_sigmoids()(z)
    return _SIGMOIDS(z) if backend == "torch" else _sigmoids(z)


def with_derivative(value: Callable[[Any], Any], derivative: Callable[[Any], Any], x: Any) -> Any:
    """Return `value(x)`, whose derivative is taken to be `derivative(x)`.

    XLA recomputes what is cheap for every element that it is broadcast to: the pieces that autodiff
    makes of a divergence's slope, one number a unit, are put together again for every activation.

    Args:
        value: A function of `x` to a scalar.
        derivative: Its derivative by each element of `x`; differentiated if asked for again.
        x: A tensor.

    >>> float(with_derivative(ops.sum, ops.ones_like, ops.ones((3,))))
    3.0
    """
    if keras.config.backend() == "jax":
        import jax

        function = jax.custom_jvp(value)

        @function.defjvp
        def tangent(primals: Any, tangents: Any) -> Any:
            return function(*primals), ops.sum(derivative(*primals) * tangents[0])

        return function(x)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.custom_gradient(lambda x: (value(x), lambda by: by * derivative(x)))(x)
    return value(x)


def fused_kl_penalty(rho: float, beta: float, activations: Any, epsilon: float) -> Any | None:
    """β Σⱼ KL(ρ‖ρ̂ⱼ) (EQ-SPARSITY) of activations in one piece; `None`: nothing is gained.

    Args:
        rho: ρ, inside (0, 1).
        beta: β ≥ 0.
        activations: (samples, ..., units), float32 or float64; means count as one sample.
        epsilon: Where EQ-KL-EXTENSION begins; 0, the exact divergence, is not fused.
    """
    if keras.config.backend() == "torch" and epsilon > 0.0:
        return _KL_PENALTY(activations, rho, beta, epsilon)
    return None


def fused_kl_penalty_from_logits(rho: float, beta: float, logits: Any) -> Any | None:
    """β Σⱼ KL(ρ‖ρ̂ⱼ) from logits (EQ-SPARSITY-LOGITS) in one piece; `None`: nothing is gained.

    Args:
        rho: ρ, inside (0, 1).
        beta: β ≥ 0.
        logits: (samples, ..., units), float32 or float64.
    """
    if keras.config.backend() == "torch":
        return _KL_PENALTY_FROM_LOGITS(logits, rho, beta)
    return None


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
        return _HALF_SUM_OF_SQUARES(x)
    return 0.5 * ops.sum(ops.square(x), axis=-1)


# Beyond ±60 a sigmoid is an exponential to 1e-26, less than half a roundoff of float64, and in
# float32 it is far from underflow.
SATURATED = 60.0


def _sigmoids(z: Any) -> tuple[Any, Any]:
    """One exponential for both: exp(−|z|) is at most 1."""
    t = ops.exp(-ops.abs(z))
    nearer_one = 1.0 / (1.0 + t)
    nearer_zero = t * nearer_one
    positive = z > 0.0
    return (
        ops.where(positive, nearer_one, nearer_zero),
        ops.where(positive, nearer_zero, nearer_one),
    )


@functools.cache
def _jax_sigmoids() -> Callable[[Any], Any]:
    import jax

    # `custom_jvp` and not `custom_vjp`: forward differentiation keeps working.
    function = jax.custom_jvp(_sigmoids)

    @function.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        p, q = function(primals[0])
        change = p * q * tangents[0]
        return (p, q), (change, -change)

    return function


@functools.cache
def _tensorflow_sigmoids() -> Callable[[Any], Any]:
    import tensorflow as tf

    @tf.custom_gradient
    def function(z: Any) -> Any:
        p, q = tf.sigmoid(z), tf.sigmoid(-z)

        def gradient(by_p: Any, by_q: Any) -> Any:
            return p * q * (by_p - by_q)

        return (p, q), gradient

    return function


def _torch_sigmoids() -> Callable[[Any], Any]:
    import torch

    class Sigmoids(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any) -> Any:
            p, q = torch.sigmoid(z), torch.sigmoid(-z)
            ctx.save_for_backward(p, q)
            return p, q

        @staticmethod
        def backward(ctx: Any, by_p: Any, by_q: Any) -> Any:
            p, q = ctx.saved_tensors  # outputs: they can be differentiated again
            return p * q * (by_p - by_q)

    return Sigmoids.apply


def _torch_kl_penalty() -> Callable[[Any, float, float, float], Any]:
    import torch

    def slope_at(r: Any, rho: float) -> Any:
        """KL′(r) = (1 − ρ)/(1 − r) − ρ/r, over one denominator and as exact."""
        rest = 1.0 - r
        return (r * (1.0 - rho)).sub(rest, alpha=rho).div(r * rest)

    # `forward` with a context, not `setup_context`: a quarter of the time of the whole.
    class Penalty(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, activations: Any, rho: float, beta: float, epsilon: float) -> Any:
            a = activations.reshape(-1, activations.shape[-1])
            rho_hat = a.sum(0).div_(len(a))
            r = rho_hat.clamp(epsilon, 1.0 - epsilon)
            slope = slope_at(r, rho)
            divergence = torch.log(r).sub_(math.log(rho)).mul_(-rho)
            of_rest = torch.log1p(-r).sub_(math.log1p(-rho))
            divergence.sub_(of_rest, alpha=1.0 - rho).addcmul_(slope, rho_hat.sub_(r))
            ctx.save_for_backward(activations, slope)
            ctx.rho, ctx.beta, ctx.epsilon, ctx.rows = rho, beta, epsilon, len(a)
            return divergence.sum().mul_(beta)

        @staticmethod
        def backward(ctx: Any, by_penalty: Any) -> Any:
            activations, slope = ctx.saved_tensors
            if torch.is_grad_enabled():  # to be differentiated again
                a = activations.reshape(-1, activations.shape[-1])
                rho_hat = a.sum(0) / ctx.rows
                slope = slope_at(rho_hat.clamp(ctx.epsilon, 1.0 - ctx.epsilon), ctx.rho)
            row = slope * (by_penalty * (ctx.beta / ctx.rows))
            return row.expand(activations.shape), None, None, None

    return Penalty.apply


def _torch_kl_penalty_from_logits() -> Callable[[Any, float, float], Any]:
    import torch

    def shifts(z: Any) -> tuple[Any, Any] | None:
        """See `divergence.log_sums_of_sigmoids`; `None`: no unit is moved."""
        # On a CPU an answer costs no wait for a device: one pass instead of four.
        if z.device.type == "cpu" and len(z) > 0 and not torch.compiler.is_compiling():
            low, high = torch.aminmax(z)
            if low.item() >= -SATURATED and high.item() <= SATURATED:
                return None
        return (
            (-SATURATED - z.amax(0)).clamp_(min=0.0),
            (z.amin(0) - SATURATED).clamp_(min=0.0),
        )

    class Penalty(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, logits: Any, rho: float, beta: float) -> Any:
            z = logits.reshape(-1, logits.shape[-1])
            moved = shifts(z)
            shifted = z if moved is None else z + (moved[0] - moved[1])
            p, q = torch.sigmoid(shifted), torch.sigmoid(-shifted)
            total, total_of_rest = p.sum(0), q.sum(0)
            ones = torch.log(total / len(z)).sub_(math.log(rho))
            zeros = torch.log(total_of_rest / len(z)).sub_(math.log1p(-rho))
            if moved is not None:
                ones.sub_(moved[0])
                zeros.sub_(moved[1])
            ctx.rho, ctx.beta = rho, beta
            by_sum = ((1.0 - rho) * beta / total_of_rest).sub_(rho * beta / total)
            ctx.save_for_backward(logits, p.mul_(q), by_sum)
            return ones.mul_(-rho).sub_(zeros, alpha=1.0 - rho).sum().mul_(beta)

        @staticmethod
        def backward(ctx: Any, by_penalty: Any) -> Any:
            logits, slope, by_sum = ctx.saved_tensors
            if torch.is_grad_enabled():  # to be differentiated again
                z = logits.reshape(-1, logits.shape[-1])
                moved = shifts(z.detach())
                p, q = _SIGMOIDS(z if moved is None else z + (moved[0] - moved[1]))
                slope = p * q
                by_sum = ctx.beta * ((1.0 - ctx.rho) / q.sum(0) - ctx.rho / p.sum(0))
            return (slope * (by_penalty * by_sum)).reshape(logits.shape), None, None

    return Penalty.apply


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


if keras.config.backend() == "torch":
    # Once, and not when first needed: that may be while torch.compile traces a step, which does not
    # know `functools.cache` and would define a class in the middle of a graph.
    _SIGMOIDS = _torch_sigmoids()
    _KL_PENALTY = _torch_kl_penalty()
    _KL_PENALTY_FROM_LOGITS = _torch_kl_penalty_from_logits()
    _HALF_SUM_OF_SQUARES = _torch_half_sum_of_squares()
