"""Train for ever on two processes; the test kills one, and the other must stop with an error.

python -m tests.keras_impl.replicas.dying ADDRESS PROCESS
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import numpy as np

from tests.keras_impl.replicas import cases

SECONDS = 10
"""The time-out given to each engine."""


def main(address: str, process: int) -> None:
    backend = os.environ["KERAS_BACKEND"]
    train = {"jax": on_jax, "tensorflow": on_tensorflow, "torch": on_torch}[backend]
    rows = np.array_split(cases.data(24), 2)[process]
    step = train(address, process, rows)
    for number in range(10**6):
        step()
        print("step", number, flush=True)


def on_jax(address: str, process: int, rows: Any) -> Any:
    import jax

    jax.distributed.initialize(address, 2, process, heartbeat_timeout_seconds=SECONDS)
    import keras

    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    model = cases.build("SparseAutoencoder")
    return lambda: model.fit(rows, batch_size=len(rows), verbose=0)


def on_tensorflow(address: str, process: int, rows: Any) -> Any:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = cases.build("SparseAutoencoder")
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> None:
        strategy.run(model.train_step, args=((rows, rows),))

    return step


def on_torch(address: str, process: int, rows: Any) -> Any:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{address}",
        rank=process,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    model = cases.build("SparseAutoencoder")
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), cases.RATE)
    batch = torch.tensor(rows)

    def step() -> None:
        optimizer.zero_grad()
        model.compute_loss(x=batch, y_pred=parallel(batch, training=True)).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
