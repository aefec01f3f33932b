"""The exercise of the notes' assignment: 10,000 patches, 64-25-64, 400 iterations of L-BFGS.

    KERAS_BACKEND=jax python -m sae_oracle.workers.exercise
    KERAS_BACKEND=numpy python -m sae_oracle.workers.exercise --oracle

Runs in a process of its own, as `sae_oracle.workers.verify` does: one backend through `fit_lbfgs`,
or the oracle (`reference`, in float64 NumPy) under the same SciPy optimiser, both from the same
weights. Writes a JSON line for each iteration and a last one with what came out.
"""

from __future__ import annotations

import argparse
import base64
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

import reference
from keras_impl.backends.process import full_float32_products, use_dtype, versions
from keras_impl.callbacks import Watch
from keras_impl.exact.lbfgs import fit_lbfgs
from keras_impl.models import SparseAutoencoder
from sae_oracle.datasets import natural_patches
from sae_oracle.pictures import png
from sae_oracle.workers.channel import say
from sae_oracle.workers.oracle_bridge import set_parameters, to_parameters

PATCHES = 10_000
SIZES = (64, 25, 64)
HYPERPARAMETERS: dict[str, Any] = {"rho": 0.01, "beta": 3.0, "weight_decay": 1e-4}
ITERATIONS = 400
LOOKS = 40
"""How often `Watch` looks at what a backend does."""


def start(seed: int = 0) -> reference.Parameters:
    """Return the weights from which the oracle and every backend start."""
    return reference.initialise(SIZES, seed=seed)


def by_oracle(
    x: NDArray[np.float64],
    parameters: reference.Parameters,
    iterations: int = ITERATIONS,
    on_iteration: Callable[[], None] = lambda: None,
) -> tuple[reference.Parameters, int]:
    """Return what L-BFGS makes of the weights with the oracle's cost, and how many evaluations.

    Args:
        x: (m, 64).
        parameters: Where to start.
        iterations: How many at most.
        on_iteration: Called after each iteration.
    """

    def cost_and_gradient(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = reference.unpack(theta, parameters)
        gradients = reference.backpropagate(at, x, **HYPERPARAMETERS)
        (hidden,) = gradients.forward.hidden
        cost = reference.Cost(
            reference.reconstruction_cost(gradients.forward.output, x),
            reference.weight_decay_cost(at, HYPERPARAMETERS["weight_decay"]),
            reference.sparsity_cost(hidden, HYPERPARAMETERS["rho"], HYPERPARAMETERS["beta"]),
        )
        return cost.total, reference.pack(gradients.parameters)

    found = minimize(
        cost_and_gradient,
        reference.pack(parameters),
        jac=True,
        method="L-BFGS-B",
        callback=lambda theta: on_iteration(),
        options={"maxiter": iterations},
    )
    return reference.unpack(found.x, parameters), int(found.nfev)


def by_keras(
    x: NDArray[np.float64],
    parameters: reference.Parameters,
    iterations: int = ITERATIONS,
    on_iteration: Callable[[], None] = lambda: None,
    dtype: str = "float32",
    watch: Watch | None = None,
) -> tuple[reference.Parameters, int]:
    """Return what `fit_lbfgs` makes of the weights on the backend of this process.

    Args:
        x: (m, 64).
        parameters: Where to start; they are rounded to the dtype.
        iterations: How many at most.
        on_iteration: Called after each iteration.
        dtype: "float32" or "float64".
        watch: Hears of each iteration as of an epoch.
    """
    model = SparseAutoencoder(SIZES[1], **HYPERPARAMETERS, dtype=dtype)
    model.build((None, SIZES[0]))
    set_parameters(model, parameters)
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_iteration())
    callbacks = [told] if watch is None else [told, watch]
    history = fit_lbfgs(model, x, iterations, verbose=False, callbacks=callbacks)
    return to_parameters(model), history.params["evaluations"]


def outcome(
    parameters: reference.Parameters, x: NDArray[np.float64], evaluations: int, seconds: float
) -> dict[str, Any]:
    """Return what came out, as the oracle sees it: terms, ρ̂, and the first kernel."""
    cost = reference.sparse_autoencoder_cost(parameters, x, **HYPERPARAMETERS)
    rho_hat = reference.mean_activation(reference.forward(parameters, x).hidden[0])
    return {
        "total": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
        "rho_hat": [float(rho_hat.min()), float(rho_hat.max())],
        "evaluations": evaluations,
        "seconds": round(seconds, 1),
        "kernel": parameters.kernels[0].tolist(),
    }


def main() -> None:
    """Do the exercise and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle", action="store_true", help="the oracle under SciPy")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--patches", type=int, default=PATCHES)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    chosen = parser.parse_args()
    full_float32_products()
    use_dtype("float32")
    x = natural_patches(chosen.patches)
    done = 0

    def on_iteration() -> None:
        nonlocal done
        done += 1
        say({"kind": "step", "done": min(done, chosen.iterations), "of": chosen.iterations})

    began = time.perf_counter()
    watch = Watch(x, every=max(1, chosen.iterations // LOOKS))
    if chosen.oracle:
        parameters, evaluations = by_oracle(x, start(), chosen.iterations, on_iteration)
    else:
        parameters, evaluations = by_keras(x, start(), chosen.iterations, on_iteration, watch=watch)
    found = outcome(parameters, x, evaluations, time.perf_counter() - began)
    if watch.history:  # not where the oracle did it
        found["watch"] = base64.b64encode(png(watch.figure())).decode("ascii")
    backend = keras.config.backend()
    say({"kind": "result", "versions": versions(backend), **found})


if __name__ == "__main__":
    main()
