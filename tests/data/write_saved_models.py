"""Writes the saved files that every later version must load: run it once, before a release.

    KERAS_BACKEND=jax python -m tests.data.write_saved_models tests/data/saved_by_0_1_0

writes `jax/NAME.keras` for each model of `MODELS` and `jax/expected.json`: what each one predicts,
loses and costs. `tests/keras_impl/test_saved_files.py` loads them. Files of a released version are
never written again: that test must pass with the bytes that people have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_impl import (
    ActivityPenalty,
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
    full_cost,
)

X = np.random.default_rng(20).uniform(0.1, 0.9, size=(8, 4)).astype("float32")
SEQUENCES = np.concatenate([X.reshape(4, 2, 4), np.zeros((4, 1, 4), "float32")], axis=1)


def dense(units: int, **arguments: Any) -> Any:
    arguments = {"activation": "sigmoid", "kernel_initializer": NgUniform(seed=units), **arguments}
    return keras.layers.Dense(units, **arguments)


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), *layers])


def tied(**arguments: Any) -> Any:
    encoder = dense(3, name="encoder", kernel_regularizer=WeightDecay(0.3))
    return sequential(encoder, DenseTied(tied_to=encoder, activation="sigmoid", **arguments))


def tied_in_nested_models() -> Any:
    encoder = dense(2, name="encoder")
    inner = [keras.Input((2,)), keras.layers.Dropout(0.0), DenseTied(tied_to=encoder)]
    return keras.Sequential([sequential(encoder), keras.Sequential(inner)])


def functional() -> Any:
    x = keras.Input((4,))
    z = dense(3, activation=None)(x)
    z = KLSparsity(0.2, 2.5, from_logits=True)(z)
    a = ActivityPenalty(keras.regularizers.L1L2(0.1, 0.2))(keras.layers.Activation("sigmoid")(z))
    return keras.Model(x, dense(4)(a))


def masked() -> Any:
    x = keras.Input((3, 4))
    a = dense(3)(keras.layers.Masking()(x))
    return keras.Model(x, dense(4)(KLSparsity(0.2, 2.5)(a)))


MODELS: dict[str, Callable[[], Any]] = {
    "regularizer": lambda: sequential(
        dense(3, activity_regularizer=KLSparsityRegularizer(0.2, 2.5, epsilon=1e-3)), dense(4)
    ),
    "regularizer_symmetric": lambda: sequential(
        dense(3, activation="tanh", activity_regularizer=KLSparsityRegularizer(symmetric=True)),
        dense(4),
    ),
    "regularizer_logits": lambda: sequential(
        dense(
            3,
            activation=None,
            activity_regularizer=KLSparsityRegularizer(
                0.2, 2.5, from_logits=True, batch_scaling=False, cross_replica=False
            ),
        ),
        keras.layers.Activation("sigmoid"),
        dense(4),
    ),
    "layer": lambda: sequential(dense(3), KLSparsity(0.2, 2.5, epsilon=1e-3), dense(4)),
    "layer_momentum": lambda: sequential(dense(3), KLSparsity(0.2, 2.5, momentum=0.75), dense(4)),
    "layer_masked": masked,
    "layers_functional": functional,
    "dense_tied": tied,
    "dense_tied_without_bias": lambda: tied(use_bias=False),
    "dense_tied_nested": tied_in_nested_models,
    "loss_of_last_axis": lambda: sequential(dense(4)),
    "autoencoder": lambda: SparseAutoencoder(3, rho=0.2, beta=2.5, weight_decay=0.3, seed=0),
    "autoencoder_tied": lambda: SparseAutoencoder(
        3, rho=0.2, weight_decay=0.3, tied=True, tied_decay=2, seed=0
    ),
    "autoencoder_deep": lambda: SparseAutoencoder([3, 2], 0.2, from_logits=True, seed=0),
    "autoencoder_tanh": lambda: SparseAutoencoder(
        3, 0.2, activation="tanh", output_activation="linear", symmetric=True, epsilon=1e-3, seed=0
    ),
    "autoencoder_float64": lambda: SparseAutoencoder(3, 0.2, seed=0, dtype="float64"),
    "autoencoder_bfloat16": lambda: SparseAutoencoder(3, 0.2, seed=0, dtype="mixed_bfloat16"),
}


def data_of(name: str) -> Any:
    return SEQUENCES if name == "layer_masked" else X


def numbers(name: str, model: Any) -> dict[str, Any]:
    """What a model computes, as JSON."""
    x = data_of(name)
    output = keras.ops.convert_to_numpy(keras.ops.cast(model(x), "float32"))
    losses = [float(keras.ops.convert_to_numpy(loss)) for loss in model.losses]
    found: dict[str, Any] = {"output": output.tolist(), "losses": losses}
    if "ActivityPenalty" not in {type(layer).__name__ for layer in model._flatten_layers()}:
        cost = full_cost(model, x)
        found["full_cost"] = [cost.reconstruction, cost.weight_decay, cost.sparsity]
    return found


def main() -> None:
    folder = Path(sys.argv[1]) / keras.config.backend()
    folder.mkdir(parents=True)
    expected = {}
    for name, make in MODELS.items():
        if name == "autoencoder_float64" and keras.config.backend() == "jax":
            continue  # JAX has no float64 unless it is asked for it
        model, x = make(), data_of(name)
        if name.startswith("autoencoder"):
            model.compile(keras.optimizers.SGD(0.1))
        else:
            axis = -1 if name in ("loss_of_last_axis", "layer_masked") else None
            model.compile(keras.optimizers.SGD(0.1), loss=HalfSquaredError(axis=axis))
        model.fit(x, None if name.startswith("autoencoder") else x, batch_size=8, verbose=0)
        model.save(folder / f"{name}.keras")
        expected[name] = numbers(name, model)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
