"""Is exact training fast? Ratios against hand-written code, measured in one run.

    OMP_NUM_THREADS=1 KERAS_BACKEND=torch python -m benchmarks.exact_training [--exercise]

Two ratios on the notes' exercise (10,000 patches, 64-25-64), the smaller the better:

- one evaluation of the cost and its gradient, from the weights to float64 NumPy arrays, to a
  hand-written step of the same arithmetic on the same backend: a jitted JAX function, a
  `tf.function`, torch with gradients derived by hand. The goal is 1.5.
- with `--exercise`, 400 iterations of `fit_lbfgs` to the oracle under SciPy. The goal is below 1.

The two steps alternate, each pair in the other order, and a ratio is taken of each pair: what else
the machine does falls on both. `--cpu-time` counts the seconds of the process alone, for a machine
that others use too. The second row is the hand-written step against itself: how far from 1 it is,
and how wide, is what the measurement can resolve. Intervals: 95 %, bootstrap of the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_impl import SparseAutoencoder
from keras_impl.backends.process import full_float32_products, versions
from keras_impl.exact.objective import FullDataObjective
from sae_oracle.datasets import natural_patches
from sae_oracle.workers import exercise
from sae_oracle.workers.oracle_bridge import set_parameters

RHO, BETA, DECAY = 0.01, 3.0, 1e-4


def jax_step(x: np.ndarray, weights: list[np.ndarray]) -> Callable[[], Any]:
    """A jitted JAX function with its gradient."""
    import jax
    import jax.numpy as jnp

    def cost(weights: list[Any], x: Any) -> Any:
        w1, w2, b1, b2 = weights
        a = jax.nn.sigmoid(x @ w1 + b1)
        h = jax.nn.sigmoid(a @ w2 + b2)
        rho_hat = jnp.sum(a, 0) / len(x)
        kl = RHO * (np.log(RHO) - jnp.log(rho_hat))
        kl = kl + (1 - RHO) * (np.log1p(-RHO) - jnp.log1p(-rho_hat))
        squares = jnp.sum(w1**2) + jnp.sum(w2**2)
        return 0.5 * jnp.sum((h - x) ** 2) / len(x) + 0.5 * DECAY * squares + BETA * jnp.sum(kl)

    step = jax.jit(jax.value_and_grad(cost))
    tensors, data = [jnp.asarray(w) for w in weights], jnp.asarray(x)
    return lambda: _on_host(*step(tensors, data))


def tensorflow_step(x: np.ndarray, weights: list[np.ndarray]) -> Callable[[], Any]:
    """A `tf.function` with its gradient."""
    import tensorflow as tf

    @tf.function
    def step(weights: list[Any], x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            w1, w2, b1, b2 = weights
            a = tf.sigmoid(x @ w1 + b1)
            h = tf.sigmoid(a @ w2 + b2)
            rho_hat = tf.reduce_sum(a, 0) / len(x)
            kl = RHO * (np.log(RHO) - tf.math.log(rho_hat))
            kl = kl + (1 - RHO) * (np.log1p(-RHO) - tf.math.log1p(-rho_hat))
            squares = tf.reduce_sum(w1**2) + tf.reduce_sum(w2**2)
            cost = 0.5 * tf.reduce_sum((h - x) ** 2) / len(x)
            cost = cost + 0.5 * DECAY * squares + BETA * tf.reduce_sum(kl)
        return cost, tape.gradient(cost, weights)

    tensors, data = [tf.constant(w) for w in weights], tf.constant(x)
    return lambda: _on_host(*step(tensors, data))


def torch_step(x: np.ndarray, weights: list[np.ndarray]) -> Callable[[], Any]:
    """Torch without autograd: the deltas of the notes."""
    import torch

    tensors, data = [torch.as_tensor(w) for w in weights], torch.as_tensor(x)

    @torch.no_grad()
    def step(weights: list[Any], x: Any) -> Any:
        w1, w2, b1, b2 = weights
        m = len(x)
        a = torch.addmm(b1, x, w1).sigmoid_()
        h = torch.addmm(b2, a, w2).sigmoid_()
        rho_hat = a.sum(0) / m
        error = h - x
        kl = RHO * (np.log(RHO) - rho_hat.log())
        kl = kl + (1 - RHO) * (np.log1p(-RHO) - torch.log1p(-rho_hat))
        squares = w1.square().sum() + w2.square().sum()
        cost = 0.5 * error.square().sum() / m + 0.5 * DECAY * squares + BETA * kl.sum()
        delta3 = error.mul_(h).mul_(1 - h).div_(m)
        slope = BETA / m * ((1 - RHO) / (1 - rho_hat) - RHO / rho_hat)
        delta2 = torch.addmm(slope, delta3, w2.T).mul_(a).mul_(1 - a)
        gradients = [
            torch.addmm(w1, x.T, delta2, beta=DECAY),
            torch.addmm(w2, a.T, delta3, beta=DECAY),
            delta2.sum(0),
            delta3.sum(0),
        ]
        return cost, gradients

    return lambda: _on_host(*step(tensors, data))


def _on_host(cost: Any, gradients: list[Any]) -> tuple[float, list[np.ndarray]]:
    return float(cost), [np.asarray(gradient).astype(np.float64) for gradient in gradients]


STEPS = {"jax": jax_step, "tensorflow": tensorflow_step, "torch": torch_step}


def ratios(
    first: Callable[[], Any], second: Callable[[], Any], pairs: int, clock: Callable[[], float]
) -> tuple[list[float], float]:
    """Return first/second of each pair, timed in alternating order, and the median of second."""
    found, seconds = [], []

    def timed(step: Callable[[], Any]) -> float:
        start = clock()
        step()
        return clock() - start

    for i in range(pairs):
        if i % 2:
            b, a = timed(second), timed(first)
        else:
            a, b = timed(first), timed(second)
        found.append(a / b)
        seconds.append(b)
    return found, statistics.median(seconds)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(values, (2000, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def main() -> None:
    """Measure, print, and keep what was found with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--exercise", action="store_true", help="400 iterations, too")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, not of the wall")
    parser.add_argument("--write", type=Path, metavar="FILE", help="append what was found")
    chosen = parser.parse_args()
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    backend = keras.config.backend()
    full_float32_products()
    patches = natural_patches(exercise.PATCHES)
    x = patches.astype("float32")
    model = SparseAutoencoder(exercise.SIZES[1], **exercise.HYPERPARAMETERS)
    model.build((None, exercise.SIZES[0]))
    set_parameters(model, exercise.start())
    weights = [np.array(w) for w in model.get_weights()]
    by_hand = STEPS[backend](x, weights)
    objective = FullDataObjective(model, x)
    ours, theirs = objective.cost_and_gradient(), by_hand()
    # The same arithmetic: else a ratio says nothing.
    assert abs(ours[0].total - theirs[0]) < 1e-5 * theirs[0]
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert np.max(np.abs(a - b)) < 1e-4 * np.max(np.abs(b))
    found: dict[str, Any] = {
        "backend": backend,
        "versions": versions(backend),
        "clock": "cpu" if chosen.cpu_time else "wall",
        "pairs": chosen.pairs,
    }
    for name, first in (("evaluation", objective.cost_and_gradient), ("control", by_hand)):
        ratios(first, by_hand, 10, clock)  # warm
        values, seconds = ratios(first, by_hand, chosen.pairs, clock)
        median, low, high = interval(values)
        found[name] = {"ratio": median, "interval": [low, high], "by_hand_ms": 1e3 * seconds}
        print(
            f"{backend}, {name} to hand-written step: {median:.3f} [{low:.3f}, {high:.3f}], "
            f"step {1e3 * seconds:.2f} ms, {chosen.pairs} pairs",
            flush=True,
        )
    if chosen.exercise:
        seconds_of = {}
        for name, run in (("keras", exercise.by_keras), ("oracle", exercise.by_oracle)):
            start = clock()
            _, evaluations = run(patches, exercise.start())
            seconds_of[name] = clock() - start
            print(f"{name}: {seconds_of[name]:.1f} s, {evaluations} evaluations", flush=True)
        found["exercise"] = {**seconds_of, "ratio": seconds_of["keras"] / seconds_of["oracle"]}
        print(f"{backend}, exercise to the oracle's: {found['exercise']['ratio']:.3f}")
    if chosen.write is not None:
        with chosen.write.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
