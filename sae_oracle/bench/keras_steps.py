"""Training steps of Keras models that differ in the penalty alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl import HalfSquaredError, KLSparsity, KLSparsityRegularizer, SparseAutoencoder
from sae_oracle.bench.sizes import Size
from sae_oracle.bench.statistics import Step

RHO, BETA, DECAY = 0.05, 3.0, 1e-4

NO_PENALTY = "no penalty"
CONTROL = "no penalty, again (control)"
MODEL = "SparseAutoencoder"

Build = Callable[[Size], keras.Model]


def hand_written_kl(activations: Any) -> Any:
    """The activity regularizer as it is usually written."""
    rho_hat = ops.mean(activations, axis=0)
    return BETA * ops.sum(
        RHO * ops.log(RHO / rho_hat) + (1 - RHO) * ops.log((1 - RHO) / (1 - rho_hat))
    )


def batch(size: Size) -> Any:
    """Return (rows, features) of random numbers in [0, 1], on the device."""
    x = np.random.default_rng(0).uniform(size=(size.rows, size.features))
    return ops.convert_to_tensor(x.astype(np.float32))


def model(
    size: Size,
    *,
    regularizer: Any = None,
    layer: Any = None,
    apart: bool = False,
    jit_compile: bool | str = "auto",
) -> keras.Model:
    """Return a compiled features-units-features network of sigmoid layers.

    Args:
        size: The network.
        regularizer: The activity regularizer of the hidden layer.
        layer: Called with the activations; or, where they are apart, with the logits.
        apart: Whether the activation is a layer of its own, as penalties from logits need it.
        jit_compile: As for `compile`.
    """
    hidden = keras.layers.Dense(
        size.units, activation=None if apart else "sigmoid", activity_regularizer=regularizer
    )
    layers = [
        keras.Input((size.features,)),
        hidden,
        *([] if layer is None else [layer]),
        *([keras.layers.Activation("sigmoid")] if apart else []),
        keras.layers.Dense(size.features, activation="sigmoid"),
    ]
    model = keras.Sequential(layers)
    # The cheapest optimizer: beside any other the share of the penalty is smaller.
    model.compile("sgd", loss=HalfSquaredError(), jit_compile=jit_compile)
    return model


def autoencoder(
    size: Size, *, beta: float, tied: bool = False, jit_compile: bool | str = "auto"
) -> keras.Model:
    """Return a compiled `SparseAutoencoder` of that network."""
    model = SparseAutoencoder(size.units, RHO, beta, DECAY, tied, seed=0)
    model.compile("sgd", jit_compile=jit_compile)
    return model


def variants(jit_compile: bool | str = "auto") -> dict[str, dict[str, Build]]:
    """Return what is compared, group by group; the first of a group is its baseline."""
    jit: dict[str, Any] = {"jit_compile": jit_compile}

    def logits(**arguments: Any) -> Build:
        return lambda size: model(size, apart=True, **arguments, **jit)

    def autoencoders(**arguments: Any) -> dict[str, Build]:
        names = {NO_PENALTY: 0.0, CONTROL: 0.0, MODEL: BETA}
        return {
            name: partial(autoencoder, beta=beta, **arguments, **jit)
            for name, beta in names.items()
        }

    return {
        "activations": {
            NO_PENALTY: lambda size: model(size, **jit),
            CONTROL: lambda size: model(size, **jit),
            # What Keras itself does for an activity regularizer, whichever it is.
            "activity regularizer of 0": lambda size: model(
                size, regularizer=lambda a: ops.zeros(()), **jit
            ),
            "Keras L2 activity regularizer": lambda size: model(
                size, regularizer=keras.regularizers.L2(1e-4), **jit
            ),
            "KL as usually written": lambda size: model(size, regularizer=hand_written_kl, **jit),
            "KLSparsityRegularizer": lambda size: model(
                size, regularizer=KLSparsityRegularizer(RHO, BETA), **jit
            ),
            "KLSparsity": lambda size: model(size, layer=KLSparsity(RHO, BETA), **jit),
            "KLSparsity, moving average": lambda size: model(
                size, layer=KLSparsity(RHO, BETA, momentum=0.9), **jit
            ),
        },
        "logits": {
            NO_PENALTY: logits(),
            CONTROL: logits(),
            "KLSparsityRegularizer, logits": lambda size: model(
                size, regularizer=KLSparsityRegularizer(RHO, BETA, True), apart=True, **jit
            ),
            "KLSparsity, logits": lambda size: model(
                size, layer=KLSparsity(RHO, BETA, True), apart=True, **jit
            ),
        },
        MODEL: autoencoders(),
        f"{MODEL}, tied": autoencoders(tied=True),
    }


def ways(backend: str, device: str) -> dict[str, bool | str]:
    """Return how Keras may run a step: the names of the groups, and `jit_compile`.

    On a CPU Keras does not let XLA compile TensorFlow's steps unless it is asked to.
    """
    if backend == "tensorflow" and device == "cpu":
        return {"Keras": "auto", "Keras, XLA": True}
    return {"Keras": "auto"}


def synchronise() -> None:
    """Wait until the device has done everything that it was given."""
    backend = keras.config.backend()
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()


def training_step(model: keras.Model, x: Any) -> Step:
    """Return one `train_on_batch` that reconstructs x, waited for."""

    def step() -> None:
        # Numbers on the host: on JAX they are there when the whole step is done.
        keras.tree.map_structure(ops.convert_to_numpy, model.train_on_batch(x, x))
        synchronise()

    return step


def epoch(model: keras.Model, size: Size, batches: int) -> Step:
    """Return one epoch of `fit`, from NumPy data, as people run it."""
    x = np.random.default_rng(1).uniform(size=(size.rows * batches, size.features))
    x = x.astype(np.float32)

    def step() -> None:
        model.fit(x, x, batch_size=size.rows, epochs=1, verbose=0)
        synchronise()

    return step
