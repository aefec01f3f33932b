"""Train under a tf.distribute strategy; every sample counts once.

    python examples/replicas_tensorflow.py
    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python examples/replicas_tensorflow.py

With TF_CONFIG, one process a worker; without it, every GPU of this machine. There `model.fit` is
as good; under `MultiWorkerMirroredStrategy` it fails in Keras 3.15, and this loop is its step.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tensorflow as tf

workers = "TF_CONFIG" in os.environ
strategy = (
    tf.distribute.MultiWorkerMirroredStrategy() if workers else tf.distribute.MirroredStrategy()
)

import keras

from keras_impl import SparseAutoencoder, full_cost

x = np.random.default_rng(0).uniform(0.1, 0.9, size=(1111, 64)).astype("float32")
with strategy.scope():
    model = SparseAutoencoder(25, rho=0.05, beta=3.0, seed=0)
    model.build((None, 64))
    model.compile(keras.optimizers.SGD(0.1))
    model.optimizer.build(model.trainable_variables)


@tf.function(reduce_retracing=True)
def step(rows: tf.Tensor) -> None:
    strategy.run(model.train_step, args=((rows,),))


replicas = strategy.num_replicas_in_sync
for _ in range(3):
    for start in range(0, len(x), 200):
        parts = np.array_split(x[start : start + 200], replicas)  # 111 rows in the last
        step(
            strategy.experimental_distribute_values_from_function(
                lambda context, parts=parts: parts[context.replica_id_in_sync_group]
            )
        )

worker, count = (strategy.cluster_resolver.task_id, replicas) if workers else (0, 1)
with strategy.scope():  # every worker passes its part of the data; all get the cost of the whole
    cost = full_cost(model, np.array_split(x, count)[worker], batch_size=200)
if worker == 0:
    print(f"{replicas} replicas: {cost.total:.9g}")
