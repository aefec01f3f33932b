"""What each backend does to functions: compiled, mapped, differentiated forwards, backwards, twice.

Each transformation of each backend on each form of the penalty and on the loss, in float64: values
and gradients inside the oracle's bounds, second derivatives against formulas of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import HalfSquaredError, KLSparsity, KLSparsityRegularizer
from reference.rounding import Bounded
from tests.keras_impl.precision import as_numpy, computing_in

BACKEND = os.environ.get("KERAS_BACKEND")
ROWS, UNITS = 5, 3
RHO, BETA, MOMENTUM = 0.2, 3.0, 0.75
U = 2.0**-53
generator = np.random.default_rng(0)
TARGETS = generator.uniform(size=(ROWS, UNITS))
DIRECTION = generator.normal(size=(ROWS, UNITS))
STORED = np.array([0.3, 0.5, 0.1])

Function = Callable[[Any], Any]
Array = Any


@dataclass(frozen=True)
class Form:
    """A scalar function of a tensor (rows, units), and what is right about it.

    Args:
        function: Makes it, inside the precision of the test.
        x: Where it is taken.
        derivatives: At x: the value and the gradient with bounds, and ∂²f/∂xᵢⱼ∂xₖⱼ by closed
            formulas as (rows, rows, units); units do not meet.
    """

    function: Callable[[], Function]
    x: Array
    derivatives: Callable[[Array], tuple[Bounded, Bounded, Array]]


def second_slope(rho_hat: Array) -> Array:
    """KL″ = ρ/ρ̂² + (1 − ρ)/(1 − ρ̂)²."""
    return RHO / rho_hat**2 + (1.0 - RHO) / (1.0 - rho_hat) ** 2


def of_activations(x: Array, symmetric: bool = False) -> tuple[Bounded, Bounded, Array]:
    value, gradient = reference.kl_sparsity_with_bounds(
        x, RHO, BETA, epsilon=1e-6, symmetric=symmetric, precision="float64"
    )
    rho_hat = reference.mean_activation(x, symmetric=symmetric)
    inner = (0.5 if symmetric else 1.0) / ROWS
    return value, gradient, np.tile(BETA * inner**2 * second_slope(rho_hat), (ROWS, ROWS, 1))


def of_logits(z: Array) -> tuple[Bounded, Bounded, Array]:
    """∂²KL/∂zᵢ∂zₖ = KL″ a′ᵢ a′ₖ/m² + KL′ a″ᵢ/m where i = k."""
    value, gradient = reference.kl_sparsity_with_bounds(
        z, RHO, BETA, from_logits=True, precision="float64"
    )
    a = reference.sigmoid(z)
    rho_hat, slope = a.mean(axis=0), a * (1.0 - a)
    hessian = second_slope(rho_hat) * slope[:, None] * slope[None] / ROWS**2
    curvature = slope * (1.0 - 2.0 * a) / ROWS * reference.kl_divergence_derivative(RHO, rho_hat)
    return value, gradient, BETA * (hessian + np.eye(ROWS)[:, :, None] * curvature[:, None])


def of_running_average(x: Array) -> tuple[Bounded, Bounded, Array]:
    """The term of the new average, with the derivatives of the batch mean."""
    average = reference.running_average(STORED, reference.mean_activation(x), MOMENTUM)
    # A batch of one row that is the average: its value and slope are those of the average.
    value, by_average = reference.kl_sparsity_with_bounds(
        average[None], RHO, BETA, epsilon=1e-6, precision="float64"
    )
    # Which is itself known to the rounding of a mean and of the average.
    off = (ROWS + 8) * U * average * BETA
    slope = reference.kl_divergence_derivative(RHO, average)
    value = Bounded(value.value, value.bound + np.sum(off * np.abs(slope)))
    bound = by_average.bound[0] + off * second_slope(average)
    gradient = Bounded(
        np.tile(by_average.value / ROWS, (ROWS, 1)), np.tile(2.0 * bound / ROWS, (ROWS, 1))
    )
    return value, gradient, np.tile(BETA * second_slope(average) / ROWS**2, (ROWS, ROWS, 1))


def of_half_squares(h: Array) -> tuple[Bounded, Bounded, Array]:
    value = reference.reconstruction_with_bounds(h, TARGETS, precision="float64")
    gradient = (h - TARGETS) / ROWS
    bound = 4.0 * U * (np.abs(h) + np.abs(TARGETS)) / ROWS
    return value, Bounded(gradient, bound), np.eye(ROWS)[:, :, None] * np.ones(UNITS) / ROWS


def running_average() -> Function:
    layer = KLSparsity(RHO, BETA, momentum=MOMENTUM, dtype="float64")
    layer.build((None, UNITS))
    state = [ops.convert_to_tensor(STORED), ops.convert_to_tensor(np.array(1.0))]

    def function(x: Any) -> Any:
        pairs = list(zip(layer.non_trainable_variables, state, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return layer.penalty(x, training=True)

    return function


def layer_of_a_model() -> Function:
    model = keras.Sequential([keras.Input((UNITS,), dtype="float64"), KLSparsity(RHO, BETA)])
    return lambda x: sum(model.stateless_call([], [], x, return_losses=True)[2])


def half_squares() -> Function:
    loss = HalfSquaredError(dtype="float64")
    targets = ops.convert_to_tensor(TARGETS)
    return lambda h: loss(targets, h)


def regularizer(**form: bool) -> Callable[[], Function]:
    return lambda: KLSparsityRegularizer(RHO, BETA, batch_scaling=False, **form)


FORMS = {
    "activations": Form(
        regularizer(), generator.uniform(0.1, 0.9, size=(ROWS, UNITS)), of_activations
    ),
    "layer of a model": Form(
        layer_of_a_model, generator.uniform(0.1, 0.9, size=(ROWS, UNITS)), of_activations
    ),
    "symmetric": Form(
        regularizer(symmetric=True),
        generator.uniform(-0.9, 0.9, size=(ROWS, UNITS)),
        lambda x: of_activations(x, symmetric=True),
    ),
    "logits": Form(
        regularizer(from_logits=True), 2.0 * generator.normal(size=(ROWS, UNITS)), of_logits
    ),
    "momentum": Form(
        running_average, generator.uniform(0.1, 0.9, size=(ROWS, UNITS)), of_running_average
    ),
    "HalfSquaredError": Form(half_squares, generator.uniform(size=(ROWS, UNITS)), of_half_squares),
}

# --- What a transformation gives, and what is right --------------------------------------------


def hold(name: str, actual: Any, expected: Bounded) -> None:
    used = reference.usage(as_numpy(actual), expected)
    assert used.worst <= 1.0, f"{name}: {used.worst:.3g} bounds\n{actual}\n{expected.value}"


def value(form: Form, found: Any) -> None:
    hold("value", found, form.derivatives(form.x)[0])


def gradient(form: Form, found: Any) -> None:
    hold("gradient", found, form.derivatives(form.x)[1])


def directional(form: Form, found: Any) -> None:
    """The derivative along DIRECTION, a sum of rows · units products."""
    by_element = form.derivatives(form.x)[1]
    size = np.sum((np.abs(by_element.value) + by_element.bound) * np.abs(DIRECTION))
    bound = np.sum(by_element.bound * np.abs(DIRECTION)) + (DIRECTION.size + 16) * U * size
    hold("along a direction", found, Bounded(np.sum(by_element.value * DIRECTION), bound))


def full_hessian(form: Form) -> Array:
    by_unit = form.derivatives(form.x)[2]
    full = np.zeros((ROWS, UNITS, ROWS, UNITS))
    for j in range(UNITS):
        full[:, j, :, j] = by_unit[:, :, j]
    return full


# A second derivative is a few dozen operations on numbers up to the largest of its terms.
SECOND = 256 * U
if keras.config.backend() == "torch":
    # The second derivative of its cross-entropy has r + 1e-12 and 1 − r + 1e-12, squared, below the
    # line; means lie between 0.1 and 0.9.
    SECOND += 2e-12 / 0.1 + 2e-12 / 0.9


def hessian(form: Form, found: Any) -> None:
    expected = full_hessian(form)
    assert np.max(np.abs(as_numpy(found) - expected)) <= SECOND * terms_of_hessian(form)


def product(form: Form, found: Any) -> None:
    """The Hessian times DIRECTION."""
    expected = np.tensordot(full_hessian(form), DIRECTION, axes=2)
    size = terms_of_hessian(form) * np.sum(np.abs(DIRECTION))
    assert np.max(np.abs(as_numpy(found) - expected)) <= SECOND * size


def terms_of_hessian(form: Form) -> float:
    by_unit = form.derivatives(form.x)[2]
    return float(np.max(np.abs(by_unit)) + np.max(np.abs(form.derivatives(form.x)[1].value)))


def batch(check: Callable[[Form, Any], None]) -> Callable[[Form, Any], None]:
    """Of x and of x reversed: the same function of permuted rows, except for the targets."""

    def checked(form: Form, found: Any) -> None:
        check(form, found[0])
        permuted = Form(form.function, form.x[::-1].copy(), form.derivatives)
        check(permuted, found[1])

    return checked


Transformation = tuple[str, Callable[[Form, Any], None], Callable[[Function, Any, Any], Any]]


def both(x: Any) -> Any:
    return ops.stack([x, ops.flip(x, axis=0)])


def of_jax() -> list[Transformation]:
    import jax

    def without_leaks(f: Function, x: Any, v: Any) -> Any:
        with jax.checking_leaks():
            return jax.jit(jax.grad(f))(x)

    def scanned(f: Function, x: Any) -> Any:
        return jax.lax.scan(lambda carry, row: (carry, f(row)), 0, x[None])[1][0]

    jit = jax.jit  # each operation by itself would be compiled by itself
    return [
        ("grad, eager", gradient, lambda f, x, v: jax.grad(f)(x)),
        ("jit", value, lambda f, x, v: jit(f)(x)),
        ("value_and_grad", gradient, lambda f, x, v: jit(jax.value_and_grad(f))(x)[1]),
        ("vmap", batch(value), lambda f, x, v: jit(jax.vmap(f))(both(x))),
        ("vmap of grad", batch(gradient), lambda f, x, v: jit(jax.vmap(jax.grad(f)))(both(x))),
        ("jvp", directional, lambda f, x, v: jit(lambda x, v: jax.jvp(f, (x,), (v,))[1])(x, v)),
        ("jacfwd", gradient, lambda f, x, v: jit(jax.jacfwd(f))(x)),
        (
            "linearize",
            directional,
            lambda f, x, v: jit(lambda x, v: jax.linearize(f, x)[1](v))(x, v),
        ),
        ("hessian", hessian, lambda f, x, v: jit(jax.hessian(f))(x)),
        ("jacrev of jacrev", hessian, lambda f, x, v: jit(jax.jacrev(jax.jacrev(f)))(x)),
        (
            "jvp of grad",
            product,
            lambda f, x, v: jit(lambda x, v: jax.jvp(jax.grad(f), (x,), (v,))[1])(x, v),
        ),
        ("checkpoint", gradient, lambda f, x, v: jit(jax.grad(jax.checkpoint(f)))(x)),
        ("checking_leaks", gradient, without_leaks),
        ("scan", value, lambda f, x, v: scanned(f, x)),
    ]


def of_tensorflow() -> list[Transformation]:
    import tensorflow as tf

    def taped(f: Function, x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x)

    def taped_twice(f: Function, x: Any, pfor: bool) -> Any:
        with tf.GradientTape(persistent=not pfor) as tape:
            tape.watch(x)
            slope = taped(f, x)
        return tape.jacobian(slope, x, experimental_use_pfor=pfor)

    def forward(f: Function, x: Any, v: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            y = f(x)
        return accumulator.jvp(y)

    def forward_of_taped(f: Function, x: Any, v: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            slope = taped(f, x)
        return accumulator.jvp(slope)

    unknown = [tf.TensorSpec((None, UNITS), tf.float64)]
    return [
        ("function", value, lambda f, x, v: tf.function(f)(x)),
        ("input_signature", value, lambda f, x, v: tf.function(f, input_signature=unknown)(x)),
        (
            "XLA",
            gradient,
            lambda f, x, v: tf.function(lambda t: taped(f, t), jit_compile=True)(x),
        ),
        (
            "GradientTape in input_signature",
            gradient,
            lambda f, x, v: tf.function(lambda t: taped(f, t), input_signature=unknown)(x),
        ),
        ("GradientTape", gradient, lambda f, x, v: taped(f, x)),
        ("recompute_grad", gradient, lambda f, x, v: taped(tf.recompute_grad(f), x)),
        ("GradientTape twice", hessian, lambda f, x, v: taped_twice(f, x, False)),
        ("GradientTape twice, vectorized", hessian, lambda f, x, v: taped_twice(f, x, True)),
        ("vectorized_map", batch(value), lambda f, x, v: tf.vectorized_map(f, both(x))),
        (
            "vectorized_map of a GradientTape",
            batch(gradient),
            lambda f, x, v: tf.vectorized_map(lambda t: taped(f, t), both(x)),
        ),
        ("map_fn", batch(value), lambda f, x, v: tf.map_fn(f, both(x))),
        ("ForwardAccumulator", directional, forward),
        ("ForwardAccumulator of a GradientTape", product, forward_of_taped),
    ]


def of_torch() -> list[Transformation]:
    import torch
    from torch.autograd import forward_ad
    from torch.utils.checkpoint import checkpoint

    def leaf(x: Any) -> Any:
        return x.detach().clone().requires_grad_()

    def backward(f: Function, x: Any) -> Any:
        x = leaf(x)
        f(x).backward()
        return x.grad

    def twice(f: Function, x: Any, v: Any) -> Any:
        x = leaf(x)
        (slope,) = torch.autograd.grad(f(x), x, create_graph=True)
        return torch.autograd.grad((slope * v).sum(), x, allow_unused=True)[0]

    def without_gradient(f: Function, x: Any, mode: Any) -> Any:
        with mode():
            return f(x)

    def dual(f: Function, x: Any, v: Any) -> Any:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent

    def as_module(f: Function, x: Any) -> Any:
        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.at = torch.nn.Parameter(torch.zeros_like(x))

            def forward(self) -> Any:
                return f(self.at)

        module = Module()
        return torch.func.grad(lambda p: torch.func.functional_call(module, p, ()))({"at": x})["at"]

    func = torch.func
    return [
        ("no_grad", value, lambda f, x, v: without_gradient(f, leaf(x), torch.no_grad)),
        (
            "inference_mode",
            value,
            lambda f, x, v: without_gradient(f, x, torch.inference_mode),
        ),
        ("backward", gradient, lambda f, x, v: backward(f, x)),
        ("double backward", product, twice),
        (
            "autograd.functional.hessian",
            hessian,
            lambda f, x, v: torch.autograd.functional.hessian(f, x),
        ),
        (
            "checkpoint",
            gradient,
            lambda f, x, v: backward(lambda t: checkpoint(f, t, use_reentrant=False), x),
        ),
        ("func.grad", gradient, lambda f, x, v: func.grad(f)(x)),
        ("func.vmap", batch(value), lambda f, x, v: func.vmap(f)(both(x))),
        ("func.vmap of grad", batch(gradient), lambda f, x, v: func.vmap(func.grad(f))(both(x))),
        ("func.jvp", directional, lambda f, x, v: func.jvp(f, (x,), (v,))[1]),
        ("func.jacrev", gradient, lambda f, x, v: func.jacrev(f)(x)),
        ("func.jacfwd", gradient, lambda f, x, v: func.jacfwd(f)(x)),
        ("func.hessian", hessian, lambda f, x, v: func.hessian(f)(x)),
        ("func.vjp", gradient, lambda f, x, v: func.vjp(f, x)[1](x.new_ones(()))[0]),
        ("func.functional_call", gradient, lambda f, x, v: as_module(f, x)),
        ("forward_ad", directional, dual),
        (
            "compile, eager",
            gradient,
            lambda f, x, v: backward(torch.compile(f, backend="eager"), x),
        ),
        (
            "compile, aot_eager",
            gradient,
            lambda f, x, v: backward(torch.compile(f, backend="aot_eager"), x),
        ),
    ]


def transformations() -> list[Transformation]:
    makers = {"jax": of_jax, "tensorflow": of_tensorflow, "torch": of_torch}
    return makers[BACKEND]() if BACKEND in makers else []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("check", "transform"), [pytest.param(*rest, id=name) for name, *rest in transformations()]
)
def test_transformation(check: Callable[[Form, Any], None], transform: Any, form: Form) -> None:
    with computing_in("float64"):
        x, v = ops.convert_to_tensor(form.x), ops.convert_to_tensor(DIRECTION)
        check(form, transform(form.function(), x, v))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_derivatives_of_this_file_are_those_of_central_differences(form: Form) -> None:
    """Error: h²/6 of a fourth derivative of order 1/ρ̂⁴, and roundings over h."""
    h = 1e-5
    _, slope, _ = form.derivatives(form.x)
    for i, j in ((0, 0), (3, 1), (4, 2)):
        there, back = form.x.copy(), form.x.copy()
        there[i, j] += h
        back[i, j] -= h
        if form is not FORMS["momentum"]:  # whose slope is not that of its value, by a factor
            difference = form.derivatives(there)[0].value - form.derivatives(back)[0].value
            assert abs(difference / (2 * h) - slope.value[i, j]) <= 1e-7
        difference = form.derivatives(there)[1].value - form.derivatives(back)[1].value
        factor = 1.0 - MOMENTUM if form is FORMS["momentum"] else 1.0
        assert (
            np.max(np.abs(difference / (2 * h) - factor * full_hessian(form)[:, :, i, j])) <= 1e-6
        )
