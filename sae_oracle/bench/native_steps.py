"""The floor: the same training step written by hand on each framework, without Keras.

Gradients are the framework's own; the update is plain gradient descent, as in the Keras models.
The logit form here is the cheapest there is, and wrong where a whole unit is saturated.
Each function returns, for one way to run the framework, its steps by name; the first is the
baseline.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sae_oracle.bench.keras_steps import BETA, CONTROL, DECAY, MODEL, NO_PENALTY, RHO
from sae_oracle.bench.sizes import Size
from sae_oracle.bench.statistics import Step

RATE = 0.01
L2 = "L2 of the activations"
KL = "KL"
KL_FROM_LOGITS = "KL from logits"
COST = f"the cost of {MODEL}"  # KL and weight decay

NEGATIVE_ENTROPY = RHO * math.log(RHO) + (1 - RHO) * math.log1p(-RHO)


def weights(size: Size) -> list[Any]:
    """Return kernel, bias, kernel, bias in float32."""
    generator = np.random.default_rng(2)
    shapes = ((size.features, size.units), (size.units, size.features))
    found: list[Any] = []
    for shape in shapes:
        found.append(generator.normal(size=shape, scale=shape[0] ** -0.5).astype(np.float32))
        found.append(np.zeros(shape[1], np.float32))
    return found


def jax_steps(size: Size) -> dict[str, dict[str, Callable[[], Step]]]:
    """One jitted function that returns the new weights."""
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(np.random.default_rng(0).uniform(size=(size.rows, size.features)), jnp.float32)
    penalties: dict[str, Callable[[Any, Any], Any]] = {
        NO_PENALTY: lambda z, a: 0.0,
        CONTROL: lambda z, a: 0.0,
        L2: lambda z, a: 1e-4 * jnp.sum(a * a) / size.rows,
        KL: lambda z, a: _kl(jnp.sum(a, axis=0) / size.rows, jnp, jnp.sum),
        KL_FROM_LOGITS: lambda z, a: _kl_of_logarithms(
            jnp.log(jnp.sum(a, axis=0) / size.rows),
            jnp.log(jnp.sum(jax.nn.sigmoid(-z), axis=0) / size.rows),
            jnp.sum,
        ),
    }

    def build(penalty: Callable[[Any, Any], Any], decay: float = 0.0) -> Step:
        def cost(parameters: list[Any]) -> Any:
            w1, b1, w2, b2 = parameters
            z = x @ w1 + b1
            a = jax.nn.sigmoid(z)
            h = jax.nn.sigmoid(a @ w2 + b2)
            value = 0.5 * jnp.sum((h - x) ** 2) / size.rows + penalty(z, a)
            return value + 0.5 * decay * (jnp.sum(w1 * w1) + jnp.sum(w2 * w2)) if decay else value

        def descend(parameters: list[Any]) -> tuple[list[Any], Any]:
            value, gradients = jax.value_and_grad(cost)(parameters)
            return [p - RATE * g for p, g in zip(parameters, gradients, strict=True)], value

        compiled = jax.jit(descend, donate_argnums=0)
        state = [jnp.asarray(w) for w in weights(size)]

        def step() -> None:
            state[:], value = compiled(list(state))
            jax.block_until_ready((state, value))

        return step

    steps = {name: partial(build, penalty) for name, penalty in penalties.items()}
    return {"jax.jit": {**steps, COST: partial(build, penalties[KL], DECAY)}}


def tensorflow_steps(size: Size) -> dict[str, dict[str, Callable[[], Step]]]:
    """One tf.function that updates variables; without and with XLA."""
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(0).uniform(size=(size.rows, size.features)), tf.float32)
    penalties: dict[str, Callable[[Any, Any], Any]] = {
        NO_PENALTY: lambda z, a: 0.0,
        CONTROL: lambda z, a: 0.0,
        L2: lambda z, a: 1e-4 * tf.reduce_sum(a * a) / size.rows,
        KL: lambda z, a: _kl(tf.reduce_sum(a, axis=0) / size.rows, tf.math, tf.reduce_sum),
        KL_FROM_LOGITS: lambda z, a: _kl_of_logarithms(
            tf.math.log(tf.reduce_sum(a, axis=0) / size.rows),
            tf.math.log(tf.reduce_sum(tf.sigmoid(-z), axis=0) / size.rows),
            tf.reduce_sum,
        ),
    }

    def build(penalty: Callable[[Any, Any], Any], jit_compile: bool, decay: float = 0.0) -> Step:
        state = [tf.Variable(w) for w in weights(size)]

        def descend() -> Any:
            with tf.GradientTape() as tape:
                w1, b1, w2, b2 = state
                z = tf.matmul(x, w1) + b1
                a = tf.sigmoid(z)
                h = tf.sigmoid(tf.matmul(a, w2) + b2)
                value = 0.5 * tf.reduce_sum((h - x) ** 2) / size.rows + penalty(z, a)
                if decay:
                    value += 0.5 * decay * (tf.reduce_sum(w1 * w1) + tf.reduce_sum(w2 * w2))
            for variable, gradient in zip(state, tape.gradient(value, state), strict=True):
                variable.assign_sub(RATE * gradient)
            return value

        function = tf.function(descend, jit_compile=jit_compile)

        def step() -> None:
            function().numpy()
            tf.test.experimental.sync_devices()

        return step

    return {
        way: {
            **{name: partial(build, penalty, jit) for name, penalty in penalties.items()},
            COST: partial(build, penalties[KL], jit, DECAY),
        }
        for way, jit in (("tf.function", False), ("tf.function, XLA", True))
    }


def torch_steps(size: Size) -> dict[str, dict[str, Callable[[], Step]]]:
    """Eager autograd, and the same cost through torch.compile."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.tensor(
        np.random.default_rng(0).uniform(size=(size.rows, size.features)),
        dtype=torch.float32,
        device=device,
    )
    penalties: dict[str, Callable[[Any, Any], Any]] = {
        NO_PENALTY: lambda z, a: 0.0,
        CONTROL: lambda z, a: 0.0,
        L2: lambda z, a: 1e-4 * (a * a).sum() / size.rows,
        KL: lambda z, a: _kl(a.sum(0) / size.rows, torch, torch.sum),
        KL_FROM_LOGITS: lambda z, a: _kl_of_logarithms(
            torch.log(a.sum(0) / size.rows),
            torch.log(torch.sigmoid(-z).sum(0) / size.rows),
            torch.sum,
        ),
    }

    def build(penalty: Callable[[Any, Any], Any], compiled: bool, decay: float = 0.0) -> Step:
        state = [torch.tensor(w, device=device, requires_grad=True) for w in weights(size)]

        def cost(w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
            z = torch.addmm(b1, x, w1)
            a = torch.sigmoid(z)
            h = torch.sigmoid(torch.addmm(b2, a, w2))
            value = 0.5 * ((h - x) ** 2).sum() / size.rows + penalty(z, a)
            return value + 0.5 * decay * ((w1 * w1).sum() + (w2 * w2).sum()) if decay else value

        function = torch.compile(cost, dynamic=False) if compiled else cost

        def step() -> None:
            value = function(*state)
            gradients = torch.autograd.grad(value, state)
            with torch.no_grad():
                torch._foreach_add_(state, gradients, alpha=-RATE)
            value.item()
            if device == "cuda":
                torch.cuda.synchronize()

        return step

    ways = {"torch, eager": False}
    # On a CPU torch.compile writes C++ and needs a compiler.
    if device == "cuda" or shutil.which("g++"):
        ways["torch.compile"] = True
    return {
        way: {
            **{
                name: partial(build, penalty, compiled)
                for name, penalty in penalties.items()
                if not (compiled and name == L2)  # each takes seconds to compile
            },
            COST: partial(build, penalties[KL], compiled, DECAY),
        }
        for way, compiled in ways.items()
    }


def steps_of(backend: str, size: Size) -> dict[str, dict[str, Callable[[], Step]]]:
    """Return the hand-written steps of a backend's framework, group by group."""
    functions = {"jax": jax_steps, "tensorflow": tensorflow_steps, "torch": torch_steps}
    return functions[backend](size)


def _kl(rho_hat: Any, xp: Any, total: Callable[[Any], Any]) -> Any:
    return _kl_of_logarithms(xp.log(rho_hat), xp.log1p(-rho_hat), total)


def _kl_of_logarithms(ones: Any, zeros: Any, total: Callable[[Any], Any]) -> Any:
    return BETA * total(NEGATIVE_ENTROPY - RHO * ones - (1 - RHO) * zeros)
