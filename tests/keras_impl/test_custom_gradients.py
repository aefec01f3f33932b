"""The hand-written derivatives: right, and right again when they are differentiated themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import KLSparsity, KLSparsityRegularizer
from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.backends.custom_gradients import half_sum_of_squares, sums_of_sigmoids
from keras_impl.term import SparsityTerm
from tests.keras_impl.precision import as_numpy, computing_in


@pytest.mark.inference
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_sigmoids_keep_their_digits(precision: str) -> None:
    """σ(z) and σ(−z) to 16 roundoffs of themselves (`reference.rounding`: c_σ), however small."""
    if precision == "float64" and keras.config.backend() in ("numpy", "openvino"):
        precision = "float32"
    z = np.linspace(-60.0, 60.0, 241)  # one sample of as many units
    with computing_in(precision):
        tensor = ops.convert_to_tensor(z[None], dtype=precision)
        for sign, actual in zip(
            (1.0, -1.0),
            sums_of_sigmoids(tensor, ops.zeros((241,), precision), None, 1.0),
            strict=True,
        ):
            expected = reference.sigmoid(sign * z)
            error = np.abs(as_numpy(actual) / expected - 1.0)
            # The exponential of a rounded argument of up to 60 may be off by 60 roundoffs more.
            assert np.max(error / (16 + np.abs(z))) <= np.finfo(precision).eps / 2


def on_device(x: Any) -> Any:
    """A tensor where Keras has its own, in the dtype of the array."""
    return ops.convert_to_tensor(x, dtype=x.dtype.name)


def second_derivative(function: Callable[[Any], Any], x: Any) -> Any:
    """The derivative of the sum of weighted derivatives: one Hessian-vector product."""
    direction = np.linspace(0.5, 1.5, x.size).reshape(x.shape)
    backend = keras.config.backend()
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        return jax.grad(lambda t: jnp.sum(jax.grad(function)(t) * direction))(jnp.asarray(x))
    if backend == "tensorflow":
        import tensorflow as tf

        t = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(t)
            with tf.GradientTape() as inner:
                inner.watch(t)
                value = function(t)
            product = tf.reduce_sum(inner.gradient(value, t) * direction)
        return outer.gradient(product, t)
    import torch

    t = on_device(x).requires_grad_()
    (gradient,) = torch.autograd.grad(function(t), t, create_graph=True)
    return torch.autograd.grad((gradient * on_device(direction)).sum(), t)[0]


@pytest.mark.parametrize(
    "case", ["activations", "means", "beyond the edge", "logits", "saturated logits"]
)
def test_second_derivatives(case: str) -> None:
    """Against central differences of the first derivative, in float64.

    Their error: h²/6 times the fourth derivative of smooth functions of scale 1, plus the
    rounding of the gradients over h; 1e-6 of the largest derivative covers both at h = 1e-4.
    """
    generator = np.random.default_rng(0)
    x = {
        "activations": generator.uniform(0.1, 0.9, size=(5, 3)),
        "means": generator.uniform(0.1, 0.9, size=(5, 3)),
        "beyond the edge": generator.uniform(1.1, 1.9, size=(5, 3)),
        "logits": generator.normal(size=(5, 3)),
        "saturated logits": generator.normal(size=(5, 3)) + np.array([-70.0, 80.0, 0.0]),
    }[case]

    term = SparsityTerm(0.2, 3.0, from_logits="logits" in case, epsilon=1e-3)

    def function(t: Any) -> Any:
        if case == "means":
            return term.penalty_of_mean(ops.sum(t, axis=0) / 5.0)
        return term.penalty(t)

    with computing_in("float64"):
        actual = as_numpy(second_derivative(function, x))

        def gradient(x: Any) -> Any:
            return as_numpy(value_and_gradients(function, [ops.convert_to_tensor(x)])[1][0])

        h = 1e-4
        direction = np.linspace(0.5, 1.5, x.size).reshape(x.shape)
        expected = (gradient(x + h * direction) - gradient(x - h * direction)) / (2 * h)
        scale = max(1.0, float(np.max(np.abs(expected))))
        assert np.max(np.abs(actual - expected)) <= 1e-6 * scale, (actual, expected)
        if case in ("activations", "means", "logits"):
            assert np.max(np.abs(expected)) > 0.01, "a weak test: there is no curvature"


@pytest.mark.parametrize("from_logits", [False, True])
def test_twice_a_penalty_has_twice_the_gradient(from_logits: bool) -> None:
    """To the last bit, since doubling rounds nothing."""
    x = ops.convert_to_tensor(np.random.default_rng(0).uniform(0.1, 0.9, size=(5, 3)))
    term = SparsityTerm(0.2, 3.0, from_logits=from_logits, epsilon=1e-3)
    _, (once,) = value_and_gradients(term.penalty, [x])
    _, (twice,) = value_and_gradients(lambda t: 2.0 * term.penalty(t), [x])
    assert np.array_equal(as_numpy(twice), 2.0 * as_numpy(once))


@pytest.mark.equation("EQ-SPARSITY-LOGITS")
@pytest.mark.parametrize("center", [-200.0, -61.0, -59.0, 59.0, 61.0, 200.0])
def test_the_logit_form_is_seamless_where_units_are_moved(center: float) -> None:
    """Units whose logits all lie beyond ±60, around there, or on one side only in part."""
    z = center + np.random.default_rng(0).normal(size=(7, 4))
    z[0, 0] = -center
    for precision in ("float32", "float64"):
        with computing_in(precision):
            z_rounded = z.astype(precision).astype(np.float64)
            value, gradient = reference.kl_sparsity_with_bounds(
                z_rounded, 0.1, 3.0, from_logits=True, precision=precision
            )
            actual, (by_logit,) = value_and_gradients(
                SparsityTerm(0.1, 3.0, from_logits=True).penalty,
                [ops.convert_to_tensor(z_rounded, dtype=precision)],
            )
            assert reference.usage(as_numpy(actual), value).worst <= 1.0
            assert reference.usage(as_numpy(by_logit), gradient).worst <= 1.0


def exact_gradient(z: Any, valid: Any, rho: float) -> tuple[Any, Any]:
    """∂/∂zᵢⱼ of Σⱼ KL(ρ‖ρ̂ⱼ) = σ(z)σ(−z)((1 − ρ)/Σσ(−z) − ρ/Σσ(z)), in 60 digits.

    Also with a plus sign in the bracket: what the roundoffs of its halves are relative to.
    """
    gradient, size = np.full(z.shape, mpmath.mpf(0)), np.full(z.shape, mpmath.mpf(0))
    with mpmath.workdps(60):
        for j in range(z.shape[1]):
            ones = [1 / (1 + mpmath.exp(-mpmath.mpf(float(at)))) for at in z[:, j]]
            zeros = [1 / (1 + mpmath.exp(mpmath.mpf(float(at)))) for at in z[:, j]]
            of_ones = sum(a for a, counts in zip(ones, valid, strict=True) if counts)
            of_zeros = sum(a for a, counts in zip(zeros, valid, strict=True) if counts)
            for i in np.flatnonzero(valid):
                halves = (1 - mpmath.mpf(rho)) / of_zeros, mpmath.mpf(rho) / of_ones
                gradient[i, j] = ones[i] * zeros[i] * (halves[0] - halves[1])
                size[i, j] = ones[i] * zeros[i] * (halves[0] + halves[1])
    return gradient, size


@functools.cache
def gradient_by_logits(rho: float, precision: str, masked: bool) -> Callable[[Any, Any], Any]:
    """The gradient as a function of logits and mask, compiled once for each dtype."""
    term = SparsityTerm(rho, from_logits=True)

    def gradient(z: Any, mask: Any) -> Any:
        _, (by_z,) = value_and_gradients(lambda z: term.penalty(z, mask if masked else None), [z])
        return by_z

    return compiled(gradient) if keras.config.backend() == "jax" else gradient


@pytest.mark.equation("EQ-KL-LOGITS-DERIVATIVE")
@given(
    seed=st.integers(0, 2**16),
    logarithm_of_spread=st.floats(-1.0, 4.0),
    center=st.sampled_from([0.0, -30.0, 50.0, -70.0, 300.0, -1e4]),
    rho=st.sampled_from([0.05, 0.3, 1e-4, 0.999]),
    precision=st.sampled_from(["float32", "float64"]),
    masked=st.booleans(),
)
@example(0, -1.0, 0.0, 0.05, "float32", False)
def test_every_share_of_a_logits_gradient_keeps_its_digits(
    seed: int,
    logarithm_of_spread: float,
    center: float,
    rho: float,
    precision: str,
    masked: bool,
) -> None:
    """Down to the smallest numbers: a sample's share underflows only where the number itself does.

    A quotient of exponentials of z − s, each known to |z − s| ≤ 88 (745) roundoffs, and 32 more for
    the sums and products.
    """
    generator = np.random.default_rng(seed)
    z = center + 10.0**logarithm_of_spread * generator.normal(size=(5, 3))
    if seed == 0:
        z[:2] = [[-70.0, 70.0, -50.0], [-110.0, 110.0, -110.0]]
        z[2:] = z[:1]
    z = z.astype(precision)
    valid = np.ones(5, bool)
    if masked:
        valid[:2] = False
    info = np.finfo(precision)
    with computing_in(precision):
        mask = valid if masked else np.ones(5, bool)
        by_logits = gradient_by_logits(rho, precision, masked)
        gradient = by_logits(ops.convert_to_tensor(z, dtype=precision), ops.convert_to_tensor(mask))
    expected, size = exact_gradient(z, valid, rho)
    for index, actual in np.ndenumerate(as_numpy(gradient)):
        furthest = min(2 * abs(float(z[index])), 745 if precision == "float64" else 88)
        slack = (32 + furthest) * info.eps * float(size[index]) + 16 * float(info.tiny)
        assert abs(float(mpmath.mpf(float(actual)) - expected[index])) <= slack, (z, index, actual)


@pytest.mark.inference
@pytest.mark.equation("EQ-KL-EXTENSION", "EQ-KL-EXTENSION-DERIVATIVE")
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-6, 2.0**-24, 1e-8, 1e-12, 1e-30])
def test_the_tangent_begins_where_it_is_said_however_small_epsilon_is(
    epsilon: float, precision: str
) -> None:
    """1 − ε is rounded, in float32 to 1 from 3e-8 on; the edge is where EQ-KL-EXTENSION has it.

    That is the float64 number 1 − ε, or the last one below 1. Above ½, 1 − ρ̂ is exact. Sixteen
    roundoffs for a difference of logarithms, for the slope and for its product each; and what is
    beyond the edge is a difference of numbers known to a roundoff of themselves.
    """
    if not has_gradients():
        precision = "float32"
    rho = 0.05
    upper = 1.0 - min(1.0 - epsilon, 1.0 - 2.0**-53)  # an exact difference
    for rho_hat in (-1.0, 0.0, 2.0**-40, 0.25, 0.75, 1.0 - 2.0**-20, 1.0, 1.5):
        r, rest = max(rho_hat, epsilon), max(1.0 - rho_hat, upper)
        expected = reference.extended_kl_divergence(rho, rho_hat, epsilon)
        slope = (1 - rho) / min(rest, 1.0 - epsilon) - rho / min(r, 1.0 - upper)
        if rest == upper:  # where the oracle's own 1 − ε may be 1
            of_ones = rho * (np.log(rho) - np.log1p(-upper))
            of_zeros = (1 - rho) * (np.log1p(-rho) - np.log(upper))
            expected = of_ones + of_zeros + slope * (upper - (1.0 - rho_hat))
        beyond = max(epsilon - rho_hat, rho_hat - 1.0 + upper, 0.0)
        size = abs(np.log(r)) + abs(np.log(rest)) + 4.0
        size += abs(slope) * (beyond + epsilon if beyond > 0.0 else 0.0)
        with computing_in(precision):
            tensor = ops.full((4, 1), rho_hat, dtype=precision)
            for penalty in (
                KLSparsityRegularizer(rho, epsilon=epsilon, batch_scaling=False),
                KLSparsity(rho, epsilon=epsilon, dtype=precision).penalty,
            ):
                u = float(np.finfo(precision).eps)
                value = float(as_numpy(penalty(tensor)))
                assert abs(value - expected) <= 16 * u * size, (rho_hat, value, expected)
                if has_gradients():
                    _, (gradient,) = value_and_gradients(penalty, [tensor])
                    error = np.max(np.abs(4.0 * as_numpy(gradient) - slope))
                    assert error <= 16 * u * (abs(slope) + 1.0), (rho_hat, gradient, slope)


MASK = [True, True, False, True, True]
TRANSFORMED: dict[str, tuple[Callable[[Any], Any], float]] = {
    "activations": (SparsityTerm(0.2, 3.0).penalty, 0.0),
    "symmetric": (SparsityTerm(0.2, 3.0, symmetric=True).penalty, 0.0),
    "beyond the edge": (SparsityTerm(0.2, 3.0, epsilon=1e-3).penalty, 1.0),
    "logits": (SparsityTerm(0.2, 3.0, from_logits=True).penalty, 0.0),
    "saturated logits": (SparsityTerm(0.2, 3.0, from_logits=True).penalty, -90.0),
    "masked": (lambda x: SparsityTerm(0.2, 3.0).penalty(x, np.array(MASK)), 0.0),
    "masked logits": (
        lambda x: SparsityTerm(0.2, 3.0, from_logits=True).penalty(x, np.array(MASK)),
        0.0,
    ),
    "half squares": (lambda x: half_sum_of_squares(x).sum(), 0.0),
}


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("case", TRANSFORMED)
def test_transformations_of_torch(case: str) -> None:
    """`torch.func` and dual numbers give what autograd gives, to some roundoffs of float64."""
    import torch
    from torch.autograd import forward_ad

    function, offset = TRANSFORMED[case]
    generator = np.random.default_rng(0)
    x = on_device(generator.uniform(0.1, 0.9, size=(5, 3)) + offset)
    direction = on_device(generator.normal(size=(5, 3)))

    def plain(x: Any) -> tuple[Any, Any]:
        x = x.clone().requires_grad_()
        value = function(x)
        return value.detach(), torch.autograd.grad(value, x)[0]

    def close(actual: Any, expected: Any, error: float = 0.0) -> bool:
        scale = float(expected.abs().max()) + 1.0
        return float((actual - expected).abs().max()) <= (1024 * 2.0**-53 + error) * scale

    value, gradient = plain(x)
    assert close(torch.func.grad(function)(x), gradient)
    assert close(torch.func.grad_and_value(function)(x)[1], value)
    of_both, along = torch.func.jvp(function, (x,), (direction,))
    assert close(of_both, value)
    assert close(along, (gradient * direction).sum())
    _, pullback = torch.func.vjp(function, x)
    assert close(pullback(torch.ones_like(value))[0], gradient)
    batch = torch.stack([x, x - 0.05])
    assert close(torch.func.vmap(function)(batch), torch.stack([plain(x)[0] for x in batch]))
    by_sample = torch.func.vmap(torch.func.grad(function))(batch)
    assert close(by_sample, torch.stack([plain(x)[1] for x in batch]))
    twice = torch.autograd.functional.hessian(function, x)
    # The second derivative of torch's cross-entropy has r + 1e-12 and 1 − r + 1e-12, squared, below
    # the line; every mean is between 0.1 and 0.9.
    added = 2 * 2 * 1e-12 / 0.1
    assert close(torch.func.hessian(function)(x), twice, added)
    assert close(torch.func.jacrev(torch.func.grad(function))(x), twice, added)
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(x, direction))
        assert close(forward_ad.unpack_dual(dual).tangent, (gradient * direction).sum())
    # And outside of a transformation nothing has changed.
    assert torch.equal(plain(x)[1], gradient)


@pytest.mark.only_backends("torch")
def test_a_model_is_differentiated_by_torch_func() -> None:
    """By `stateless_call`; `torch.func.functional_call` swaps what Keras's layers do not read."""
    import torch

    dense, layer = keras.layers.Dense(3, activation="sigmoid"), KLSparsity(0.2, 3.0)
    model = keras.Sequential([keras.Input((4,)), dense, layer])
    x = on_device(np.random.default_rng(0).uniform(size=(6, 4)).astype("float32"))

    def loss(weights: Any, x: Any) -> Any:
        return sum(model.stateless_call(weights, [], x, return_losses=True)[2])

    weights = [v.value.detach() for v in model.trainable_variables]
    _, expected = value_and_gradients(lambda *w: loss(list(w), x), weights)
    for found, gradient in zip(torch.func.grad(loss)(weights, x), expected, strict=True):
        assert float((found - gradient).abs().max()) <= 64 * 2.0**-24
        assert float(gradient.abs().max()) > 0.01
