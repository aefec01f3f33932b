"""What reduced matrix precision (TF32, bfloat16 passes) costs in accuracy, on one backend.

    KERAS_BACKEND=jax python -m sae_oracle.bench.accuracy --device gpu

The cost and the gradient of a sparse autoencoder of real data in float32, under each setting that
the framework has for the precision of its matrix products, against the oracle: relative error, and
error in units of the bound for full float32, which reduced precision may exceed. Writes JSON lines
as `sae_oracle.workers.verify` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

import reference
from keras_impl.backends.autodiff import value_and_gradients
from keras_impl.backends.process import full_float32_products, versions
from keras_impl.models import SparseAutoencoder
from sae_oracle.datasets import digits
from sae_oracle.workers.channel import device_or_exit, say
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters, to_parameters
from sae_oracle.workers.verify import cost_of

UNITS = 256


def settings() -> dict[str, Callable[[], None]]:
    """Return the framework's settings by name; the first is full float32."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        def use(name: str | None) -> Callable[[], None]:
            return lambda: jax.config.update("jax_default_matmul_precision", name)

        return {"highest": use("highest"), "high": use("high"), "default": use(None)}
    if backend == "tensorflow":
        import tensorflow as tf

        enable = tf.config.experimental.enable_tensor_float_32_execution
        return {
            "TF32 off": lambda: enable(False),
            "TF32 on (default)": lambda: enable(True),
        }
    import torch

    def choose(name: str) -> Callable[[], None]:
        return lambda: torch.set_float32_matmul_precision(name)

    return {
        "highest (default)": choose("highest"),
        "high": choose("high"),
        "medium": choose("medium"),
    }


def errors(actual: Any, expected: reference.Bounded) -> dict[str, float]:
    """Return ‖error‖/‖value‖ and the largest error in units of its bound."""
    array = ops.convert_to_numpy(actual).astype(np.float64)
    value = np.asarray(expected.value)
    return {
        "relative_error": float(np.linalg.norm(array - value) / np.linalg.norm(value)),
        "worst": float(reference.usage(array, expected).worst),
    }


def measure(x: np.ndarray) -> Iterator[dict[str, Any]]:
    """Compute cost and gradient under every setting and compare with the oracle."""
    model = SparseAutoencoder(UNITS, rho=0.1, beta=3.0, weight_decay=1e-3, seed=0)
    model.build((None, x.shape[1]))
    set_parameters(model, reference.initialise((x.shape[1], UNITS, x.shape[1]), seed=1))
    expected = reference.cost_and_gradient_with_bounds(
        to_parameters(model),
        x,
        **oracle_arguments(model),
        summation="rows first",
        precision="float32",
    )
    tensor = ops.convert_to_tensor(x)
    weights = [v.value for v in model.trainable_variables]
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    kernels = [position[id(kernel)] for kernel in model.kernels]
    for setting, choose in settings().items():
        choose()
        output = model(tensor)
        sparsity = model.losses[0]
        _, gradients = value_and_gradients(cost_of(model, tensor), [*weights, tensor])
        for quantity, actual, bounded in (
            (
                "reconstruction",
                model.reconstruction_loss(tensor, output),
                expected.cost.reconstruction,
            ),
            ("sparsity", sparsity, expected.cost.sparsity),
            ("gradient, encoder", gradients[kernels[0]], expected.gradient.kernels[0]),
            ("gradient, decoder", gradients[kernels[1]], expected.gradient.kernels[1]),
        ):
            yield {"setting": setting, "quantity": quantity, **errors(actual, bounded)}
    full_float32_products()


def main() -> None:
    """Print what was found, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    device = parser.parse_args().device
    backend = keras.config.backend()
    in_use = device_or_exit(device)
    result = {
        "kind": "result",
        "backend": backend,
        "device": in_use,
        "versions": versions(backend),
        "rows": list(measure(digits()[:512].astype(np.float32))),
    }
    say(result)


if __name__ == "__main__":
    main()
