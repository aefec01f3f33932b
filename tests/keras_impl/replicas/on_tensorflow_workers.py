"""Two workers under MultiWorkerMirroredStrategy: the step of `fit` in a loop, and sums.

TF_CONFIG=... python -m tests.keras_impl.replicas.on_tensorflow_workers FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.keras_impl.replicas import cases


def main(folder: str) -> None:
    import tensorflow as tf

    # Before anything else uses TensorFlow: it must be the first to set up the collectives.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from keras_impl.backends.replicas import sum_over_workers, worker_count

    worker = strategy.cluster_resolver.task_id
    found = cases.Found()
    with strategy.scope():
        array = np.array([1.0, 2.0**-40 * worker])
        found.add("workers", count=worker_count(), sum=sum_over_workers(array))
        cases.full_data(found, worker, 2)
        cases.refuse_different_weights(found, worker)
    for kind in (
        "SparseAutoencoder, from logits",
        "KLSparsityRegularizer and KLSparsity",
        "KLSparsity, running average",
    ):
        train(found, strategy, worker, kind, "even", cases.data(24))
    train(found, strategy, worker, "SparseAutoencoder", "rows 23", cases.data(23))
    found.write(str(Path(folder) / f"{worker}.npz"))


def train(found: cases.Found, strategy: Any, worker: int, kind: str, key: str, x: Any) -> None:
    import tensorflow as tf

    with strategy.scope():
        model = cases.build(kind)
        model.optimizer.build(model.trainable_variables)
    rows = tf.constant(np.array_split(x, 2)[worker])

    @tf.function
    def step() -> None:
        strategy.run(model.train_step, args=((rows, rows),))

    losses = []
    for _ in range(cases.STEPS):
        model.reset_metrics()
        step()
        losses.append(float(model.metrics[0].result()))
    found.add(kind, key, loss=np.array(losses), weights=cases.weights(model))
    if "average" in kind:
        found.add(kind, key, state=[cases.state(model)])


if __name__ == "__main__":
    main(sys.argv[1])
