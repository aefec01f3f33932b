"""All measurements of one backend, in a process of its own.

    KERAS_BACKEND=torch python -m sae_oracle.bench.measure --sizes small,mnist

Writes one JSON line for each step of the work and a last one with everything it found, as
`sae_oracle.workers.verify` does. `sae-oracle bench` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_impl.backends.process import device_in_use, versions
from sae_oracle.bench import keras_steps, native_steps
from sae_oracle.bench.keras_steps import CONTROL, NO_PENALTY
from sae_oracle.bench.sizes import NAMES, Size, sizes_for
from sae_oracle.bench.statistics import Step, Timing, interleave, shortest
from sae_oracle.workers.channel import device_or_exit, say

BATCHES_IN_AN_EPOCH = 16

Progress = Callable[[], None]


def rows_of(
    size: Size, part: str, way: str, timings: dict[str, Timing], **others: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Return a table row for each timing: plain numbers and strings."""
    control = timings[CONTROL].ratio
    for name, timing in timings.items():
        yield {
            "part": part,
            "size": size.name,
            "network": str(size),
            "features": size.features,
            "units": size.units,
            "rows": size.rows,
            "way": way,
            "variant": name,
            **dataclasses.asdict(timing),
            # Inside what two equal models differ by: nothing was measured.
            "within_noise": name != NO_PENALTY and timing.ratio.overlaps(control),
            **{key: values.get(name) for key, values in others.items()},
        }


def first_step(step: Step) -> float:
    """Return the seconds that the first step took: tracing and compiling, mostly."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak_bytes(step: Step) -> int | None:
    """Return how far a step's memory rises above what is held between steps.

    On a GPU what the framework's allocator counts; JAX's count cannot be reset, so there `None`.
    On a CPU the resident memory that the kernel counts (Linux; elsewhere `None`), in pages, with
    what the allocator keeps for itself given back first: good to about a megabyte.
    """
    backend = keras.config.backend()
    if device_in_use(backend) == "cpu":
        return _peak_resident_bytes(step)
    if backend == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated() - held)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
        held = tf.config.experimental.get_memory_info("GPU:0")["current"]
        step()
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"] - held)
    return None


def _peak_resident_bytes(step: Step) -> int | None:
    def status(name: str) -> int:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024

    peaks = []
    try:
        for _ in range(3):
            gc.collect()
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the peak starts anew
            held = status("VmRSS")
            step()
            peaks.append(status("VmHWM") - held)
    except OSError:
        return None
    return int(np.median(peaks))


def copy_bandwidth() -> float:
    """Return bytes read and written a second, adding one to the elements of a large array."""
    backend = keras.config.backend()
    on_cpu = device_in_use(backend) == "cpu"
    length = 2**24 if on_cpu else 2**28
    if backend == "torch":
        import torch

        x = torch.ones(length, device="cpu" if on_cpu else "cuda")
        y = torch.empty_like(x)

        def copy() -> Any:
            torch.add(x, 1.0, out=y)

    elif backend == "jax":
        import jax
        import jax.numpy as jnp

        x = jnp.ones(length)
        add = jax.jit(lambda x: x + 1.0)

        def copy() -> Any:
            jax.block_until_ready(add(x))

    else:
        import tensorflow as tf

        x = tf.ones(length)

        def copy() -> Any:
            return x + 1.0

    def step() -> None:
        copy()
        keras_steps.synchronise()

    shortest(step, 2)
    return 8.0 * length / shortest(step, 10)


def measure_steps(size: Size, device: str, time_limit: float, on_round: Progress) -> Any:
    """Time one step of every variant, in Keras and by hand, in one interleaved run."""
    backend = keras.config.backend()
    groups: dict[str, dict[str, Step]] = {}
    first: dict[str, dict[str, float]] = {}
    x = keras_steps.batch(size)
    # The first compilation of a process also sets the compiler up.
    keras_steps.training_step(keras_steps.model(size), x)()
    for way, jit_compile in keras_steps.ways(backend, device).items():
        for form, builds in keras_steps.variants(jit_compile).items():
            group = f"{way}, {form}"
            groups[group] = {}
            for name, build in builds.items():
                groups[group][name] = keras_steps.training_step(build(size), x)
    for way, native in native_steps.steps_of(backend, size).items():
        groups[way] = {name: build() for name, build in native.items()}
    for group, steps in groups.items():
        first[group] = {name: first_step(step) for name, step in steps.items()}
    found = interleave(
        groups, rounds=size.rounds, steps=size.steps, time_limit=time_limit, on_round=on_round
    )
    # What is there now stays, so the many collections below look at the garbage of steps alone.
    gc.collect()
    gc.freeze()
    peaks = {
        group: {name: peak_bytes(step) for name, step in steps.items()}
        for group, steps in groups.items()
    }
    gc.unfreeze()
    for group, timings in found.items():
        yield from rows_of(
            size, "step", group, timings, first_step_seconds=first[group], peak_bytes=peaks[group]
        )


def measure_epochs(size: Size, time_limit: float, on_round: Progress) -> Any:
    """Time whole epochs of `fit`."""
    builds = keras_steps.variants()["activations"]
    steps = {
        name: keras_steps.epoch(builds[name](size), size, BATCHES_IN_AN_EPOCH)
        for name in (NO_PENALTY, CONTROL, "KLSparsityRegularizer", "KLSparsity")
    }
    found = interleave(
        {"epoch": steps}, rounds=10, steps=2, time_limit=time_limit, on_round=on_round
    )
    yield from rows_of(size, "epoch", "Keras, fit", found["epoch"])


def measure_sweep(size: Size, time_limit: float, on_round: Progress) -> Any:
    """Time one step of few variants, at one point of the sweep."""
    x = keras_steps.batch(size)
    chosen = {
        "activations": (
            NO_PENALTY,
            CONTROL,
            "Keras L2 activity regularizer",
            "KLSparsityRegularizer",
        ),
        "logits": (NO_PENALTY, CONTROL, "KLSparsityRegularizer, logits"),
    }
    builds = keras_steps.variants()
    groups = {
        form: {name: keras_steps.training_step(builds[form][name](size), x) for name in names}
        for form, names in chosen.items()
    }
    found = interleave(
        groups, rounds=size.rounds, steps=size.steps, time_limit=time_limit, on_round=on_round
    )
    for form, timings in found.items():
        yield from rows_of(size, "sweep", f"Keras, {form}", timings)


def main() -> None:
    """Measure what the command line asks for and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--sizes", required=True, help=f"comma-separated, of {', '.join(NAMES)}")
    parser.add_argument("--time-limit", type=float, default=90.0, metavar="SECONDS")
    arguments = parser.parse_args()
    backend = keras.config.backend()
    device = device_or_exit(arguments.device)
    names = arguments.sizes.split(",")
    # Rounds in all: how far along the work is.
    of = sum(
        size.rounds + (10 if name in ("small", "mnist") else 0)
        for name in names
        for size in sizes_for(name, arguments.device)
    )
    done = 0

    def on_round() -> None:
        nonlocal done
        done += 1
        say({"kind": "step", "done": min(done, of), "of": of})

    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for name in names:
        sizes = sizes_for(name, arguments.device)
        limit = arguments.time_limit / len(sizes)
        for size in sizes:
            if name == "sweep":
                rows += measure_sweep(size, limit, on_round)
            else:
                rows += measure_steps(size, arguments.device, limit, on_round)
            if name in ("small", "mnist"):
                rows += measure_epochs(size, limit / 3, on_round)
            keras.utils.clear_session()
            gc.collect()
    result = {
        "kind": "result",
        "backend": backend,
        "device": device,
        "versions": versions(backend),
        "copy_bytes_per_second": copy_bandwidth(),
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    say(result)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
