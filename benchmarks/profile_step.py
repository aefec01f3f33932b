"""What the device does in one training step, kernel by kernel, with the penalty and without.

    KERAS_BACKEND=torch python -m benchmarks.profile_step --device gpu --size wide   # or jax

From the framework's own profiler, over a few steps of `train_on_batch`: for each kernel how often
it runs in a step and for how long, the copies between device and host, and how often the program
waits for the device. Then the difference that the penalty makes: its kernels, its microseconds, its
copies and its waits. On a CPU the profilers show operations, not kernels; that is only a rehearsal.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_impl.backends.process import versions
from sae_oracle.bench import keras_steps
from sae_oracle.bench.sizes import NAMES, sizes_for
from sae_oracle.workers.channel import device_or_exit, say

STEPS = 5
COPIES = {"to the host": ("DtoH", "D2H"), "to the device": ("HtoD", "H2D")}
WAITS = ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize")

Event = tuple[str, bool, float]
"""Its name, whether the device did it, and its microseconds."""


def traced_by_torch(run: Callable[[], None], device: str) -> list[Event]:
    """Return what torch's profiler sees while it runs."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "gpu":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        run()
    kinds = torch.autograd.DeviceType
    on_device = kinds.CUDA if device == "gpu" else kinds.CPU
    return [
        (event.name, event.device_type == on_device, float(event.time_range.elapsed_us()))
        for event in profiler.events()
    ]


def traced_by_jax(run: Callable[[], None], device: str) -> list[Event]:
    """Return what JAX's profiler sees while it runs."""
    import jax

    with tempfile.TemporaryDirectory(prefix="sae-oracle-trace-") as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    names = {
        (event["pid"], event.get("tid") if event["name"] == "thread_name" else None): event["args"][
            "name"
        ]
        for event in events
        if event.get("ph") == "M" and event["name"] in ("process_name", "thread_name")
    }
    found = []
    for event in events:
        if event.get("ph") != "X":
            continue
        process = names.get((event["pid"], None), "")
        thread = names.get((event["pid"], event["tid"]), "")
        is_device = process.startswith("/device:") or (device == "cpu" and "XLA" in thread)
        # Beside its streams a device has lines of steps, modules and operations: the same again.
        if not is_device or device == "cpu" or thread.startswith("Stream"):
            found.append((event["name"], is_device, float(event.get("dur", 0.0))))
    if not any(on_device for _, on_device, _ in found):
        print("No work of a device in the trace, which has", sorted(set(names.values())))
    return found


def step_of(events: list[Event]) -> dict[str, Any]:
    """Return what one step is: kernels, copies, waits."""
    kernels: dict[str, list[float]] = {}
    copies, waits = Counter[str](), Counter[str]()
    for name, on_device, microseconds in events:
        way = next((way for way, signs in COPIES.items() if any(s in name for s in signs)), None)
        if on_device and way is not None:
            copies[way] += 1
        elif on_device and "memset" not in name.lower():
            kernels.setdefault(name, []).append(microseconds)
        elif not on_device and name.startswith("cu") and any(wait in name for wait in WAITS):
            waits[name] += 1
    return {
        "microseconds": sum(map(sum, kernels.values())) / STEPS,
        "kernels": sum(map(len, kernels.values())) / STEPS,
        "copies": {way: copies[way] / STEPS for way in COPIES},
        "waits": {name: count / STEPS for name, count in waits.items()},
        "by_kernel": {
            name: [len(times) / STEPS, round(sum(times) / STEPS, 2)]
            for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1]))
        },
    }


def main() -> None:
    """Print what the penalty adds to a step, and everything as a line of JSON."""
    parser = argparse.ArgumentParser(description="A step, kernel by kernel.")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=NAMES[:3], default="wide")
    arguments = parser.parse_args()
    backend = keras.config.backend()
    if backend not in ("jax", "torch"):
        parser.error("the profilers of JAX and torch are read; set KERAS_BACKEND to one of them")
    device = device_or_exit(arguments.device)
    (size,) = sizes_for(arguments.size, arguments.device)
    trace = {"jax": traced_by_jax, "torch": traced_by_torch}[backend]
    x = keras_steps.batch(size)
    groups = keras_steps.variants()
    chosen = [
        ("activations", keras_steps.NO_PENALTY),
        ("activations", "activity regularizer of 0"),
        ("activations", "Keras L2 activity regularizer"),
        ("activations", "KLSparsityRegularizer"),
        ("activations", "KLSparsity"),
        ("activations", "KLSparsity, moving average"),
        ("logits", keras_steps.NO_PENALTY),
        ("logits", "KLSparsityRegularizer, logits"),
        ("logits", "KLSparsity, logits"),
    ]
    found: dict[str, dict[str, Any]] = {}
    for group, variant in chosen:
        name = variant if group == "activations" else f"{variant} ({group})"
        step = keras_steps.training_step(groups[group][variant](size), x)
        for _ in range(3):
            step()

        def run(step: Callable[[], object] = step) -> None:
            for _ in range(STEPS):
                step()

        found[name] = step_of(trace(run, arguments.device))
        keras.utils.clear_session()
    print(f"{backend} on {device}: one step of {size}")
    print(f"{'':40}{'kernels':>8}{'µs':>10}{'to host':>9}{'to device':>11}{'waits':>7}")
    for name, step in found.items():
        copies = step["copies"]
        print(
            f"{name:40}{step['kernels']:8.1f}{step['microseconds']:10.0f}"
            f"{copies['to the host']:9.1f}{copies['to the device']:11.1f}"
            f"{sum(step['waits'].values()):7.1f}"
        )
    say(
        {
            "kind": "result",
            "backend": backend,
            "device": device,
            "versions": versions(backend),
            "size": str(size),
            "steps": found,
        }
    )


if __name__ == "__main__":
    main()
