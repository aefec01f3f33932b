"""Two JAX processes of two devices each: `fit` on global arrays, and sums over the processes.

XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
    python -m tests.keras_impl.replicas.on_jax_processes FOLDER ADDRESS PROCESSES PROCESS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.keras_impl.replicas import cases


def main(folder: str, address: str, processes: int, process: int) -> None:
    import jax

    jax.distributed.initialize(address, processes, process)
    import keras

    from keras_impl.backends.replicas import sum_over_workers, worker_count

    keras.utils.set_random_seed(0)
    found = cases.Found()
    x = cases.data(24)
    try:
        cases.build("SparseAutoencoder").fit(x, verbose=0)
    except RuntimeError as error:
        found.add("SparseAutoencoder", "fit", refused=str(error))
    array = np.array([1.0, 2.0**-40 * process])
    found.add("workers", count=worker_count(), sum=sum_over_workers(array))
    cases.full_data(found, process, processes)
    cases.refuse_different_weights(found, process)
    distribution = keras.distribution.DataParallel(
        devices=keras.distribution.list_devices("cpu"), auto_shard_dataset=False
    )
    keras.distribution.set_distribution(distribution)
    for kind in ("SparseAutoencoder, from logits", "KLSparsity, running average"):
        model = cases.build(kind)
        part = np.array_split(x, processes)[process]
        history = model.fit(
            part, part, batch_size=len(part), epochs=cases.STEPS, shuffle=False, verbose=0
        ).history
        weights = [np.asarray(v.value.addressable_data(0)) for v in cases.variables(model)]
        found.add(kind, "even", loss=np.array(history["loss"]), weights=weights)
        if "average" in kind:
            state = model.layers[1].rho_hat.value.addressable_data(0)
            found.add(kind, "even", state=[np.asarray(state)])
    found.write(str(Path(folder) / f"{process}.npz"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
