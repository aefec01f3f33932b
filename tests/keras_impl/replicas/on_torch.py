"""Train every case under DistributedDataParallel; each rank writes what it found.

torchrun --nproc-per-node 2 -m tests.keras_impl.replicas.on_torch FOLDER
python -m tests.keras_impl.replicas.on_torch FOLDER 3 4     # forks groups of 3 and 4 ranks
"""

from __future__ import annotations

import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.keras_impl.replicas import cases


def main(folder: str) -> None:
    import torch
    import torch.distributed.nn  # after `init`, its default arguments would hold the group

    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    on_rank(Path(folder))
    left = [name for name in thread_names() if "gloo" in name]
    if left:
        raise AssertionError(
            f"Threads of a process group that was destroyed are still there: {left}. Something "
            "holds the group, and the process may abort when the interpreter ends."
        )


def fork(folder: str, ranks: int) -> None:
    """A group of ranks that share what was imported: a fraction of the time of fresh processes."""
    import torch

    target = Path(folder) / str(ranks)
    target.mkdir()
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            try:
                torch.distributed.init_process_group(
                    "gloo",
                    init_method=f"file://{target}/store",
                    rank=rank,
                    world_size=ranks,
                    timeout=timedelta(seconds=60),
                )
                on_rank(target)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]  # of all, not up to the first
    if any(codes):
        sys.exit(1)


def on_rank(folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = cases.Found()
    # Everything on two; on more what differs by the number.
    for kind in cases.KINDS if ranks == 2 else cases.FEW:
        train(found, kind, "even", cases.data(24), rank, ranks)
    for rows in (23, 1) if ranks == 2 else (23,):
        for kind in cases.RIGHT if ranks == 2 else cases.FEW[-1:]:
            train(found, kind, f"rows {rows}", cases.data(rows), rank, ranks)
    if ranks == 2:
        refused(found)
        averaged_without_gradient(found, rank)
    workers(found, rank)
    found.write(str(folder / f"{rank}.npz"))
    torch.distributed.destroy_process_group()


def thread_names() -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]


def train(found: cases.Found, kind: str, key: Any, x: Any, rank: int, ranks: int) -> None:
    import keras
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from keras_impl import HalfSquaredError
    from keras_impl.backends.replicas import sum_over_replicas

    model = cases.build(kind)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), cases.RATE)
    rows = keras.ops.convert_to_tensor(np.array_split(x, ranks)[rank])
    losses: list[float] = []
    for step in range(cases.STEPS):
        optimizer.zero_grad()
        output = parallel(rows, training=True)
        if kind.startswith("SparseAutoencoder"):
            loss = model.compute_loss(x=rows, y_pred=output)
        else:
            squares = HalfSquaredError(reduction="sum")(rows, output)
            squares, count = sum_over_replicas(squares, len(rows))
            loss = squares / count + sum(model.losses)
        loss.backward()
        if step == 0:
            gradient = [variable.value.grad.numpy().copy() for variable in cases.variables(model)]
        optimizer.step()
        losses.append(loss.item())
    found.add(kind, key, loss=np.array(losses), gradient=gradient, weights=cases.weights(model))
    if "average" in kind:
        found.add(kind, key, state=[cases.state(model)])


def refused(found: cases.Found) -> None:
    """`fit` averages no gradients; and what a rank may do alone."""
    import torch

    x = cases.data(8)
    for kind in ("KLSparsity", "KLSparsityRegularizer", "SparseAutoencoder"):
        model = cases.build(kind)
        try:
            model.fit(x, x, verbose=0)
        except RuntimeError as error:
            found.add(kind, "fit", refused=str(error))
        if torch.distributed.get_rank() == 0:
            # Waits for nobody.
            model.evaluate(x, x, verbose=0)
            model.predict(x, verbose=0)
            with torch.no_grad():
                model(x)


def averaged_without_gradient(found: cases.Found, rank: int) -> None:
    """A pass that only moves the average: every rank takes part, with or without gradients."""
    import torch

    model = cases.build("KLSparsity, running average")
    with torch.no_grad():
        model(np.array_split(cases.data(24), 2)[rank], training=True)
    found.add("KLSparsity, running average", "no_grad", state=[cases.state(model)])


def workers(found: cases.Found, rank: int) -> None:
    from keras_impl.backends.replicas import sum_over_workers, worker_count

    if worker_count() < 4:
        cases.full_data(found, rank, worker_count())
    cases.refuse_different_weights(found, rank)
    found.add(
        "workers", count=worker_count(), sum=sum_over_workers(np.array([1.0, 2.0**-40 * rank]))
    )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        from torch.nn.parallel import DistributedDataParallel  # noqa: F401

        cases.build("SparseAutoencoder")  # what is imported late
        for number in sys.argv[2:]:
            fork(sys.argv[1], int(number))
