"""What does the global mean cost under data parallelism, in bytes and as a share of a step?

    torchrun --nproc-per-node 2 -m benchmarks.replicas [--units 196] [--pairs 100]

Two copies of one model train under DistributedDataParallel (gloo on CPUs, nccl on GPUs): one whose
ρ̂ is each replica's, one whose ρ̂ is global. Their steps alternate, so that whatever else the
machine does meets both; the table has the median of the ratios of pairs with a bootstrap interval.
The A/A row is the first model against a third like it: what the method reports where there is
nothing to find. Bytes are those handed to the reductions of this package, counted.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import keras
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.parallel import DistributedDataParallel

from keras_impl import HalfSquaredError, KLSparsity
from keras_impl.backends.replicas import sum_over_replicas

FEATURES, ROWS = 784, 256


def step_of(units: int, from_logits: bool, cross_replica: bool) -> Callable[[], None]:
    """A function that trains one step on this rank's rows and waits for the device."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(units, activation=None if from_logits else "sigmoid"),
            KLSparsity(0.05, 3.0, from_logits=from_logits, cross_replica=cross_replica),
            *([keras.layers.Activation("sigmoid")] if from_logits else []),
            keras.layers.Dense(FEATURES, activation="sigmoid"),
        ]
    )
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.01)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    x = np.random.default_rng(0).uniform(size=(ROWS, FEATURES)).astype("float32")
    rows = keras.ops.convert_to_tensor(np.array_split(x, ranks)[rank])
    loss_of = HalfSquaredError()

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(rows, parallel(rows, training=True)) + sum(model.losses)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def bytes_reduced(step: Callable[[], None]) -> list[int]:
    """The sizes of the reductions that a step asks for beside DistributedDataParallel's own."""
    sizes = []
    original = torch.distributed.all_reduce

    def counting(tensor: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(tensor.nbytes)
        return original(tensor, *arguments, **options)

    torch.distributed.all_reduce = counting
    try:
        step()
    finally:
        torch.distributed.all_reduce = original
    return sizes


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratios(baseline: Callable[[], None], other: Callable[[], None], pairs: int) -> Any:
    """other/one for each pair of steps, in alternating order."""
    found = []
    for pair in range(pairs):
        order = [baseline, other] if pair % 2 else [other, baseline]
        torch.distributed.barrier()
        times = {step: seconds(step) for step in order}
        found.append(times[other] / times[baseline])
    return np.array(found)


def median_interval(values: Any) -> str:
    draws = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return f"{np.median(values):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Print the table on the first rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=196)
    parser.add_argument("--pairs", type=int, default=100)
    settings = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(1)
    backend = "nccl" if on_gpu else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(seconds=60))
    ranks = torch.distributed.get_world_size()
    table = Table(
        title=f"{FEATURES}-{settings.units}-{FEATURES}, {ROWS} rows over {ranks} ranks, {backend}"
    )
    for column in ("ρ̂ from", "bytes", "gradient bytes", "step, ms", "global/local", "A/A"):
        table.add_column(column)
    for from_logits in (False, True):
        local, again, global_mean = (
            step_of(settings.units, from_logits, cross_replica)
            for cross_replica in (False, False, True)
        )
        for step in (local, again, global_mean) * 3:
            step()
        sizes = bytes_reduced(global_mean)
        times = [seconds(local) for _ in range(20)]
        numbers = FEATURES * settings.units * 2 + settings.units + FEATURES
        table.add_row(
            "logits" if from_logits else "activations",
            " + ".join(map(str, sizes)),
            f"{4 * numbers:,}",
            f"{1e3 * np.median(times):.2f}",
            median_interval(ratios(local, global_mean, settings.pairs)),
            median_interval(ratios(local, again, settings.pairs)),
        )
    vector = torch.zeros(settings.units, device="cuda" if on_gpu else "cpu")

    def reduction() -> float:
        return float(sum_over_replicas(vector, ROWS)[1])

    alone = [seconds(reduction) for _ in range(200)]
    if torch.distributed.get_rank() == 0:
        Console(width=110).print(table)
        print(f"one reduction alone: {1e6 * np.median(alone[20:]):.0f} µs")
    del local, again, global_mean  # their wrappers hold the group
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
