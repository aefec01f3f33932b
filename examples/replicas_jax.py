"""Train on several JAX devices; every sample counts once.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/replicas_jax.py

Under `keras.distribution` arrays are global, and so is every mean: `model.fit` is right as it is,
where the devices divide every batch. It raises where they do not; this loop gives such a batch to
every device whole.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from keras_impl import SparseAutoencoder, full_cost

distribution = keras.distribution.DataParallel()
keras.distribution.set_distribution(distribution)
mesh = distribution.device_mesh.backend_mesh
devices = len(mesh.devices)

x = np.random.default_rng(0).uniform(0.1, 0.9, size=(1111, 64)).astype("float32")
model = SparseAutoencoder(25, rho=0.05, beta=3.0, seed=0)
model.build((None, 64))
optimizer = keras.optimizers.SGD(0.1)
optimizer.build(model.trainable_variables)


@jax.jit
def step(weights, state, rows):
    def cost(weights):
        output, _, losses = model.stateless_call(
            weights, [], rows, training=True, return_losses=True
        )
        return model.reconstruction_loss(rows, output) + sum(losses)

    return optimizer.stateless_apply(state, jax.grad(cost)(weights), weights)


weights = [variable.value for variable in model.trainable_variables]
state = [variable.value for variable in optimizer.variables]
for _ in range(3):
    for start in range(0, len(x), 200):
        batch = x[start : start + 200]  # the last one has 111 rows
        spec = PartitionSpec("batch") if len(batch) % devices == 0 else PartitionSpec()
        rows = jax.device_put(batch, NamedSharding(mesh, spec))
        weights, state = step(weights, state, rows)
for variable, value in zip(model.trainable_variables, weights, strict=True):
    variable.assign(value)

print(f"{devices} devices: {full_cost(model, x, batch_size=200).total:.9g}")
