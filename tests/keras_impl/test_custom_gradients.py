"""The hand-written derivatives: right, and right again when they are differentiated themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl.backends.autodiff import value_and_gradients
from keras_impl.backends.custom_gradients import scaled_sigmoids
from keras_impl.term import SparsityTerm
from tests.keras_impl.precision import as_numpy, computing_in


@pytest.mark.inference
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_sigmoids_keep_their_digits(precision: str) -> None:
    """σ(z) and σ(−z) to 16 roundoffs of themselves (`reference.rounding`: c_σ), however small."""
    if precision == "float64" and keras.config.backend() in ("numpy", "openvino"):
        precision = "float32"
    z = np.linspace(-60.0, 60.0, 241)
    with computing_in(precision):
        for sign, actual in zip(
            (1.0, -1.0),
            scaled_sigmoids(ops.convert_to_tensor(z, dtype=precision), ops.zeros((1,), precision)),
            strict=True,
        ):
            expected = reference.sigmoid(sign * z)
            error = np.abs(as_numpy(actual) / expected - 1.0)
            # The exponential of a rounded argument of up to 60 may be off by 60 roundoffs more.
            assert np.max(error / (16 + np.abs(z))) <= np.finfo(precision).eps / 2


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

    t = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(t), t, create_graph=True)
    return torch.autograd.grad((gradient * torch.tensor(direction)).sum(), t)[0]


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
