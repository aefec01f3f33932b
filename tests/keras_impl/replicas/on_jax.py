"""Train every case on 1, 2 and 4 host devices of one JAX process, and on a model-parallel mesh.

XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.keras_impl.replicas.on_jax OUT
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tests.keras_impl.replicas import cases


def main(path: str) -> None:
    import keras

    found = cases.Found()
    x = cases.data(24)
    for devices in (1, 2, 4):
        names = keras.distribution.list_devices("cpu")[:devices]
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
        for kind in cases.RIGHT if devices == 4 else cases.RIGHT[:1]:
            train(found, kind, devices, x)
    uneven(found)
    keras.distribution.set_distribution(None)
    model_parallel(found, x)
    found.write(path)


def train(found: cases.Found, kind: str, key: Any, x: Any) -> None:
    import jax
    import keras

    model = cases.build(kind)
    layout = keras.distribution.distribution().get_data_layout(x.shape)
    rows = jax.device_put(x, layout.backend_layout)
    devices = keras.distribution.distribution().device_mesh.devices.ravel()
    assert len(rows.sharding.device_set) == len(devices)

    @jax.value_and_grad
    def cost(weights: Any) -> Any:
        output, _, losses = model.stateless_call(
            weights, model.non_trainable_variables, rows, training=True, return_losses=True
        )
        squares = keras.ops.sum(keras.ops.square(output - rows)) / (2 * len(x))
        return squares + sum(losses)

    value, gradients = jax.jit(cost)([v.value for v in model.trainable_variables])
    by_variable = {id(v): g for v, g in zip(model.trainable_variables, gradients, strict=True)}
    history = model.fit(
        x, x, batch_size=len(x), epochs=cases.STEPS, shuffle=False, verbose=0
    ).history
    found.add(
        kind,
        key,
        value=value,
        loss=np.array(history["loss"]),
        gradient=[by_variable[id(v)] for v in cases.variables(model)],
        weights=cases.weights(model),
    )
    if "average" in kind:
        copies = [shard.data for shard in model.layers[1].rho_hat.value.addressable_shards]
        found.add(kind, key, state=copies)


def uneven(found: cases.Found) -> None:
    """23 rows on 4 devices: `fit` refuses; a step on rows that are on every device is right."""
    import jax
    import keras

    x = cases.data(23)
    for kind in cases.UNEVEN:
        model = cases.build(kind)
        try:
            model.fit(x, x, batch_size=len(x), verbose=0)
        except ValueError as error:
            found.add(kind, "rows 23", refused=str(error))
        model = cases.build(kind)
        model.optimizer.build(model.trainable_variables)
        mesh = keras.distribution.distribution().device_mesh.backend_mesh
        rows = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        losses = steps(model, rows)
        found.add(kind, "rows 23", loss=np.array(losses), weights=cases.weights(model))


def steps(model: Any, rows: Any) -> list[float]:
    """Steps of any loop of one's own: `fit` without its division of the batch."""
    import jax

    @jax.jit
    def step(trainable: Any, other: Any, optimizer: Any) -> Any:
        def cost(trainable: Any) -> Any:
            output, state, losses = model.stateless_call(
                trainable, other, rows, training=True, return_losses=True
            )
            return model.reconstruction_loss(rows, output) + sum(losses), state

        (loss, state), gradients = jax.value_and_grad(cost, has_aux=True)(trainable)
        return loss, state, *model.optimizer.stateless_apply(optimizer, gradients, trainable)

    trainable, other, optimizer = (
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
    )
    losses = []
    for _ in range(cases.STEPS):
        loss, other, trainable, optimizer = step(trainable, other, optimizer)
        losses.append(float(loss))
    for variable, value in zip(model.trainable_variables, trainable, strict=True):
        variable.assign(value)
    return losses


def model_parallel(found: cases.Found, x: Any) -> None:
    """Two replicas of two devices each, which hold half of the hidden units."""
    import keras

    mesh = keras.distribution.DeviceMesh(
        (2, 2), ("batch", "model"), keras.distribution.list_devices("cpu")
    )
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel_0"] = (None, "model")
    layout[".*bias_0"] = ("model",)
    layout[".*kernel_1"] = ("model", None)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    for kind in ("SparseAutoencoder", "SparseAutoencoder, from logits"):
        train(found, kind, "2 x 2", x)
        kernel = cases.build(kind).kernels[0].value
        assert kernel.addressable_shards[0].data.shape == (cases.FEATURES, 2)


if __name__ == "__main__":
    main(sys.argv[1])
