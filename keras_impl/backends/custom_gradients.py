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

from keras_impl.divergence import at_least_float32, beside, kl_slope, target_of


def sums_of_sigmoids(z: Any, shift: Any, valid: Any, count: Any) -> tuple[Any, Any]:
    """Return Σσ(z)·exp(−min(s, 0)) and Σσ(−z)·exp(max(s, 0)) of each unit, over valid positions.

    Where σ(z) is the smaller of the two, 1 − σ(z) would lose the other's digits in a derivative,
    and where every logit of a unit is far from 0 on the same side, one of the sums would underflow.

    Args:
        z: (samples, ..., units), float32 or float64; `shift` where not valid.
        shift: s, (units,), a constant: 0 where a unit has logits of both signs, the largest where
            all are negative, the smallest where all are positive.
        valid: As `means.valid_positions` returns it; `None`: every position.
        count: How many positions of a unit are valid.

    Returns:
        P and Q, (units,); their derivatives by z are σ(z)σ(−z)·exp(−min(s, 0)) and
        −σ(z)σ(−z)·exp(max(s, 0)).

    >>> far = ops.convert_to_tensor([[-1e4], [-1e4]])
    >>> both = sums_of_sigmoids(far, ops.convert_to_tensor([-1e4]), None, 2.0)
    >>> [float(total[0]) for total in both]
    [2.0, 2.0]
    """
    backend = keras.config.backend()
    if backend == "jax":
        return _jax_sums_of_sigmoids()(z, shift, valid, count)
    if backend == "tensorflow":
        return _tensorflow_sums_of_sigmoids(z, shift, valid, count)
    in_one_piece = backend == "torch" and takes_custom_functions()
    both = (_SIGMOIDS if in_one_piece else _sigmoids)(z, shift)
    return sum_of_rows(both[0], valid), sum_of_rows(both[1], valid)


def sum_of_rows(x: Any, valid: Any = None) -> Any:
    """Return the sum over every axis but the last, within about 10 roundoffs of a mean magnitude.

    TensorFlow adds the rows of a matrix one after the other: the sum of 10⁶ equal float32 numbers
    is off by 1 %. There it is taken in stages, of 64 rows each.

    Args:
        x: (samples, ..., units), float32 or float64.
        valid: Which positions count, as `means.valid_positions` returns it; `None`: every one.

    >>> [float(total) for total in sum_of_rows(ops.ones((2, 3, 2)))]
    [6.0, 6.0]
    """
    if valid is not None:
        # `where` and not a product: a padded step may hold anything, infinities too.
        x = ops.where(valid, x, ops.zeros_like(x))
    axes = tuple(range(len(x.shape) - 1))
    if keras.config.backend() == "numpy":  # it adds rows one after the other, too
        return x.sum(axis=axes, dtype="float64").astype(x.dtype)
    if keras.config.backend() != "tensorflow":
        return ops.sum(x, axis=axes)
    known = None not in x.shape[:-1] and math.prod(x.shape[:-1]) < 2 * STAGE
    if known or x.shape[-1] is None:
        return ops.sum(x, axis=axes)
    return _tensorflow_sum_of_rows()(x)


STAGE = 64


def with_slope(value: Any, x: Any, slope: Any) -> Any:
    """Return `value`, whose derivative by `x` is taken to be `slope`.

    XLA recomputes what is cheap for every element that it is broadcast to: the pieces that autodiff
    makes of a divergence's slope, one number a unit, are put together again for every activation.

    Args:
        value: A scalar; whatever derivative it has is not used.
        x: A tensor.
        slope: The derivative of `value` by each element of `x`; differentiated itself if a second
            derivative is asked for.

    >>> float(with_slope(ops.sum(ops.ones((3,))), ops.ones((3,)), ops.ones((3,))))
    3.0
    """
    backend = keras.config.backend()
    if backend == "jax":
        return _jax_with_slope()(value, x, slope)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.custom_gradient(lambda x: (tf.identity(value), lambda by: by * slope))(x)
    return value


def has_penalties_in_one_piece() -> bool:
    """Whether the backend gains by `kl_penalty` and `kl_penalty_from_logits` of this module."""
    return keras.config.backend() == "torch" and takes_custom_functions()


def has_cross_entropy(x: Any, epsilon: float) -> bool:
    """Whether torch's cross-entropy serves: where it is float64, and ε keeps what it cuts off away.

    It keeps logarithms above −100, and r(1 − r) above 10⁻¹² in its derivative.
    """
    return epsilon >= 1e-11 and x.device.type != "mps"


def kl_penalty(activations: Any, rho: Any, beta: Any, epsilon: float) -> Any:
    """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ) of activations, in torch's own kernels.

    KL(ρ‖ρ̂) is the cross-entropy of ρ̂ and ρ less that of ρ and ρ. For it torch has a kernel, and
    one for its derivative. Of one number a unit float64 costs nothing, and where ρ̂ is near 1 it
    keeps the digits of 1 − ρ̂. (torch's second derivative has 10⁻¹² added to ρ̂ and to 1 − ρ̂.)

    Args:
        activations: (samples, ..., units), float32 or float64.
        rho: ρ, inside (0, 1), as `divergence.target_of` takes it.
        beta: β ≥ 0, a number or a tensor.
        epsilon: Where EQ-KL-EXTENSION begins, such that `has_cross_entropy`.
    """
    import torch

    a = activations.reshape(-1, activations.shape[-1])
    rho_hat = (a.sum(0) / len(a)).double()
    # Where the answer costs nothing: half of the operations.
    is_inside = answers_at_once(rho_hat) and _is_inside(rho_hat.detach(), epsilon)
    r = clamped = rho_hat
    if not is_inside:  # of what is no number the kernel would make an error, on a GPU a lasting one
        clamped = rho_hat.clamp(epsilon, 1.0 - epsilon)
        r = clamped.nan_to_num(0.5)
    target = torch.full_like(r, rho) if isinstance(rho, float) else beside(rho, r).expand_as(r)
    # The operator: the checks of `functional.binary_cross_entropy` take longer than the kernel.
    cross_entropy, total = torch.ops.aten.binary_cross_entropy.default, 2
    # Both from one kernel: where ρ̂ is ρ, the difference is 0.
    divergence = cross_entropy(r, target, None, total) - cross_entropy(target, target, None, total)
    if not is_inside:
        edge = clamped.detach()  # what is no number has no slope
        slope = kl_slope(target_of(rho, edge), edge, 1.0 - edge)
        divergence = divergence + (slope * (rho_hat - r)).sum()
    return (beta * divergence).to(activations.dtype)


def kl_penalty_from_logits(logits: Any, rho: Any, beta: Any) -> Any:
    """EQ-SPARSITY-LOGITS: β Σⱼ KL(ρ‖ρ̂ⱼ) from logits in one piece, on torch.

    Args:
        logits: (samples, ..., units), float32 or float64, at least one sample.
        rho: ρ, inside (0, 1), as `divergence.target_of` takes it.
        beta: β ≥ 0, a number or a tensor.
    """
    return _KL_PENALTY_FROM_LOGITS(logits, rho, beta)


def takes_custom_functions() -> bool:
    """Whether torch differentiates by `backward` alone here, so that our functions serve.

    `torch.func` and forward-mode differentiation want more of a function than `backward`: they
    get the plain operations, which they take apart by themselves. The functions could offer it
    (`setup_context`), at a quarter of the time of a small penalty.
    """
    import torch

    if torch.compiler.is_compiling():
        return True
    return not (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def affine(x: Any, kernel: Any, bias: Any) -> Any:
    """Return x·kernel + bias, of tensors of one dtype; float64 is float64 on every backend.

    Args:
        x: (m, ..., n).
        kernel: (n, units).
        bias: (units,).

    >>> float(affine(ops.ones((1, 2)), ops.ones((2, 1)), ops.ones((1,)))[0, 0])
    3.0
    """
    if keras.config.backend() == "torch":
        import torch

        return torch.nn.functional.linear(x, kernel.T, bias)
    # `@` on tensors: `ops.matmul` of float64 is float32 on torch.
    # The bias's gradient is a sum over the samples, which JAX adds up in the dtype of the addition.
    return ops.cast(at_least_float32(x @ kernel) + at_least_float32(bias), x.dtype)


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
    if keras.config.backend() == "torch" and takes_custom_functions():
        return _HALF_SUM_OF_SQUARES(x)
    return 0.5 * ops.sum(ops.square(x), axis=-1)


def _sigmoids(z: Any, shift: Any) -> tuple[Any, Any]:
    """One exponential for both: exp(−|z − s|) is at most 1."""
    positive = z > 0.0
    scaled = ops.exp(ops.where(positive, shift - z, z - shift))
    # Not `ops.abs(shift)`: OpenVINO takes |−relu(−x)| for −relu(−x), which is part of the shift.
    # Nor `ops.minimum`, which is float32 on torch.
    nearer_one = 1.0 / (1.0 + scaled * ops.exp(ops.where(shift > 0.0, -shift, shift)))
    nearer_zero = scaled * nearer_one
    return (
        ops.where(positive, nearer_one, nearer_zero),
        ops.where(positive, nearer_zero, nearer_one),
    )


def _scales(shift: Any) -> tuple[Any, Any]:
    """exp(−max(s, 0)) and exp(min(s, 0))."""
    return ops.exp(-ops.relu(shift)), ops.exp(-ops.relu(-shift))


@functools.cache
def _jax_with_slope() -> Callable[[Any, Any, Any], Any]:
    import jax

    function = jax.custom_jvp(lambda value, x, slope: value)

    @function.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        value, x, slope = primals
        return function(value, x, slope), ops.sum(slope * tangents[1])

    return function


def _scaled_sigmoid(z: Any, shift: Any) -> tuple[Any, Any, Any]:
    """σ(z), σ(−z)·exp(s) (where s is below 0: σ(z)·exp(−s)), and σ(z)σ(−z)·exp(|s|).

    The second is what might underflow. σ(z) is what the network computes anyway: a compiler that
    sees both computes it once, and one exponential more and one matrix more is all that is left to
    do (docs/speed.md).
    """
    a = ops.sigmoid(z)
    is_below = ops.cast(shift < 0.0, z.dtype)
    sign = 1.0 - 2.0 * is_below
    scaled = ops.maximum(a, 1.0 - a) * ops.exp(sign * shift - ops.relu(sign * z))
    return a, scaled, scaled * (is_below + sign * a)


def _sums_of(a: Any, scaled: Any, shift: Any, valid: Any, count: Any) -> tuple[Any, Any]:
    """The sums of `sums_of_sigmoids`, from what `_scaled_sigmoid` returns."""
    total, total_of_scaled = sum_of_rows(a, valid), sum_of_rows(scaled, valid)
    return (
        ops.where(shift < 0.0, total_of_scaled, total),
        ops.where(shift < 0.0, count - total, total_of_scaled),
    )


@functools.cache
def _jax_sums_of_sigmoids() -> Callable[[Any, Any, Any, Any], Any]:
    import jax

    # `custom_jvp` and not `custom_vjp`: forward differentiation keeps working.
    @jax.custom_jvp
    def slope(z: Any, shift: Any) -> Any:
        return _scaled_sigmoid(z, shift)[2]

    @slope.defjvp
    def tangent_of_slope(primals: Any, tangents: Any) -> Any:
        d = slope(*primals)
        return d, d * (1.0 - 2.0 * jax.nn.sigmoid(primals[0])) * tangents[0]

    @jax.custom_jvp
    def function(z: Any, shift: Any, valid: Any, count: Any) -> Any:
        return _sums_of(*_scaled_sigmoid(z, shift)[:2], shift, valid, count)

    @function.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        z, shift = primals[:2]
        change = sum_of_rows(slope(z, shift) * tangents[0])
        of_p, of_q = _scales(shift)
        return function(*primals), (change * of_p, -change * of_q)

    return function


def _tensorflow_sums_of_sigmoids(z: Any, shift: Any, valid: Any, count: Any) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def slope(z: Any, d: Any) -> Any:
        return d, lambda by: (by * slope(z, d) * (1.0 - 2.0 * tf.sigmoid(z)), None)

    @tf.custom_gradient
    def function(z: Any) -> Any:
        a, scaled, d = _scaled_sigmoid(z, shift)

        def gradient(by_p: Any, by_q: Any) -> Any:
            of_p, of_q = _scales(shift)
            return slope(z, d) * (by_p * of_p - by_q * of_q)

        return _sums_of(a, scaled, shift, valid, count), gradient

    return function(z)


def answers_at_once(x: Any) -> bool:
    """Whether a number of a torch tensor costs no wait for a device, and breaks no graph."""
    import torch

    return x.device.type == "cpu" and x.numel() > 0 and not torch.compiler.is_compiling()


@functools.cache
def _tensorflow_sum_of_rows() -> Callable[[Any], Any]:
    import tensorflow as tf

    def in_stages(a: Any, stages: int) -> Any:
        rows = tf.shape(a)[0] if a.shape[0] is None else a.shape[0]
        if stages == 0 or (isinstance(rows, int) and rows < 2 * STAGE):
            return tf.reduce_sum(a, axis=0)
        # Where a number of rows near 64 divides them all, no piece has to be copied.
        fitting = [n for n in range(STAGE, 2 * STAGE) if isinstance(rows, int) and rows % n == 0]
        size = fitting[0] if fitting else STAGE
        parts = rows // size
        even = a if fitting else a[: parts * size]
        totals = tf.reduce_sum(tf.reshape(even, (size, parts, a.shape[-1])), axis=0)
        # Turned by a row: else XLA makes one sum of the stages again, row after row.
        totals = tf.concat([totals[1:], totals[:1]], axis=0)
        total = in_stages(totals, stages - 1)
        return total if fitting else total + tf.reduce_sum(a[parts * size :], axis=0)

    # Without it, TensorFlow would put the gradient together from the pieces.
    @tf.custom_gradient
    def function(x: Any) -> Any:
        shape = tf.shape(x)
        return in_stages(tf.reshape(x, (-1, x.shape[-1])), 3), lambda by: tf.broadcast_to(by, shape)

    return function


def _torch_scaled_sigmoids(z: Any, shift: Any) -> tuple[Any, Any]:
    """`_sigmoids` in few passes and little memory, and without a derivative.

    On a CPU an exponential that underflows takes ten times as long as one that does not, and
    `where` of random signs five times as long as the one product of `lerp`, which is exact at both
    of its ends.
    """
    import torch

    least = -87.3 if z.dtype == torch.float32 else -708.3  # exp of it is the smallest normal number
    nearer_zero = (z - shift).abs_().neg_().clamp_(min=least).exp_()
    torch.nn.functional.threshold_(nearer_zero, 1.03 * math.exp(least), 0.0)
    nearer_one = (nearer_zero * shift.abs().neg_().exp_()).add_(1.0).reciprocal_()
    nearer_zero.mul_(nearer_one)
    positive = torch.sign(z).clamp_(min=0.0)
    return (
        torch.lerp(nearer_zero, nearer_one, positive),
        torch.lerp(nearer_one, nearer_zero, positive),
    )


CUDA_SIGMOIDS = """
template <typename T>
void scaled_sigmoids(T z, T shift, T& p, T& q, T& slope) {
    const bool positive = z > T(0);
    const T scaled = exp(positive ? shift - z : z - shift);
    const T nearer_one = T(1) / (T(1) + scaled * exp(shift > T(0) ? -shift : shift));
    const T nearer_zero = scaled * nearer_one;
    p = positive ? nearer_one : nearer_zero;
    q = positive ? nearer_zero : nearer_one;
    slope = nearer_one * nearer_zero;
}
"""


def _cuda_sigmoids(z: Any) -> Callable[[Any, Any], Any] | None:
    """`scaled_sigmoids` and the product of both as one kernel, where `z` is on a CUDA device.

    The kernels of `_torch_scaled_sigmoids`, one after the other, read and write each number 20
    times (docs/speed.md). `None`: not there, or torch cannot compile it.
    """
    import torch

    if not z.is_cuda or torch.compiler.is_compiling():
        return None
    return _compiled_for_cuda(z.device.index, z.dtype)


@functools.cache
def _compiled_for_cuda(device: int, dtype: Any) -> Callable[[Any, Any], Any] | None:
    import torch

    try:
        function = torch.cuda.jiterator._create_multi_output_jit_fn(CUDA_SIGMOIDS, num_outputs=3)
        number = torch.zeros(1, dtype=dtype, device=f"cuda:{device}")
        function(number, number)
    except (AttributeError, RuntimeError):  # no compiler at run time, or another torch
        return None
    return function


def _torch_sigmoids() -> Callable[[Any, Any], Any]:
    import torch

    class Sigmoids(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any, shift: Any) -> Any:
            p, q = _torch_scaled_sigmoids(z, shift)
            ctx.save_for_backward(p, q, shift)
            return p, q

        @staticmethod
        def backward(ctx: Any, by_p: Any, by_q: Any) -> Any:
            p, q, shift = ctx.saved_tensors  # p and q are outputs: they can be differentiated again
            of_p, of_q = _scales(shift)
            return p * q * (by_p * of_p - by_q * of_q), None

    return Sigmoids.apply


def _is_inside(rho_hat: Any, epsilon: float) -> bool:
    """Whether no mean is beyond an edge."""
    import torch

    low, high = torch.aminmax(rho_hat)
    return bool(low.item() >= epsilon and 1.0 - high.item() >= epsilon)


# Between ±40 neither a sigmoid nor its quotient by a sum of sigmoids is near underflow: no unit
# needs to be scaled.
UNSCALED = 40.0


def _torch_kl_penalty_from_logits() -> Callable[[Any, Any, Any], Any]:
    import torch

    def shift_of(z: Any) -> Any | None:
        """See `scaled_sigmoids`; `None`: no unit needs one."""
        if answers_at_once(z):  # one pass instead of three
            low, high = torch.aminmax(z)
            if low.item() >= -UNSCALED and high.item() <= UNSCALED:
                return None
        smallest, largest = torch.aminmax(z, dim=0)
        return largest.clamp_(max=0.0).add_(smallest.clamp_(min=0.0))

    class Penalty(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, logits: Any, rho: Any, beta: Any) -> Any:
            z = logits.reshape(-1, logits.shape[-1])
            target = target_of(rho, z)
            shift = shift_of(z)
            compiled = None if shift is None else _cuda_sigmoids(z)
            if compiled is not None:
                p, q, slope = compiled(z, shift)
            elif shift is None:
                p, q = torch.sigmoid(z), torch.sigmoid(-z)
            else:
                p, q = _torch_scaled_sigmoids(z, shift)
            total, total_of_rest = p.sum(0), q.sum(0)
            if compiled is None:
                slope = p.mul_(q)
            ones = torch.log(total / len(z)).sub_(target.log_rho)
            zeros = torch.log(total_of_rest / len(z)).sub_(target.log_rest)
            by_ones = target.rho * beta / total
            by_zeros = target.rest * beta / total_of_rest
            if shift is not None:
                ones.add_(shift.clamp(max=0.0))
                zeros.sub_(shift.clamp(min=0.0))
                of_ones, of_zeros = _scales(shift)
                by_ones.mul_(of_ones)
                by_zeros.mul_(of_zeros)
            ctx.target, ctx.beta = target, beta
            ctx.save_for_backward(logits, slope, by_zeros.sub_(by_ones))
            ones.mul_(-target.rho)
            if isinstance(target.rest, float):
                return beta * ones.sub_(zeros, alpha=target.rest).sum()
            return beta * ones.sub_(zeros.mul_(target.rest)).sum()

        @staticmethod
        def backward(ctx: Any, by_penalty: Any) -> Any:
            logits, slope, by_sum = ctx.saved_tensors
            if torch.is_grad_enabled():  # to be differentiated again
                z = logits.reshape(-1, logits.shape[-1])
                shift = shift_of(z.detach())
                shift = torch.zeros_like(z[0]) if shift is None else shift
                p, q = _SIGMOIDS(z, shift)
                of_ones, of_zeros = _scales(shift)
                slope = p * q
                by_sum = ctx.target.rest * of_zeros / q.sum(0)
                by_sum = by_sum - ctx.target.rho * of_ones / p.sum(0)
                by_sum = ctx.beta * by_sum
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
            return 0.5 * torch.linalg.vector_norm(x, dim=-1).square()

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (x,) = ctx.saved_tensors
            return x * gradient.unsqueeze(-1)

    return HalfSumOfSquares.apply


if keras.config.backend() == "torch":
    # Once, and not when first needed: that may be while torch.compile traces a step, which does not
    # know `functools.cache` and would define a class in the middle of a graph.
    _SIGMOIDS = _torch_sigmoids()
    _KL_PENALTY_FROM_LOGITS = _torch_kl_penalty_from_logits()
    _HALF_SUM_OF_SQUARES = _torch_half_sum_of_squares()
