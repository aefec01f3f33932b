"""What a penalty adds to a step, counted, and the shortest time that it takes by itself.

    KERAS_BACKEND=torch python -m benchmarks.penalty_alone
    KERAS_BACKEND=torch python -m benchmarks.penalty_alone --device gpu --rows 4096 --units 32768

Value and gradient of a small function of activations, with each penalty and without: kernels
(torch: operations dispatched that are no views; JAX: instructions of the compiled program's entry;
TensorFlow: nodes of the function's graph), the bytes that they read and write (torch and JAX), and
microseconds: the median, over many rounds, of the time with a penalty less the time without it in
the same round. A processor that changes its clock changes both. Counts do not depend on what else
the machine does. Beside them what the bytes that a penalty must move take at the bandwidth of a
copy, measured in the same process: the activations are read once; eagerly, the gradient that is
there is also read and written, to add the penalty's to it.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl import KLSparsityRegularizer
from keras_impl.backends.process import versions
from sae_oracle.bench.keras_steps import BETA, RHO, hand_written_kl, synchronise
from sae_oracle.bench.measure import copy_bandwidth
from sae_oracle.bench.statistics import median_interval
from sae_oracle.workers.channel import device_or_exit, say

Penalty = Callable[[Any, Any], Any]
"""Takes logits and activations."""

PENALTIES: dict[str, Penalty] = {
    "none": lambda z, a: 0.0,
    "Keras L2": lambda z, a: keras.regularizers.L2(1e-4)(a),
    "KL as usually written": lambda z, a: hand_written_kl(a),
    "KLSparsityRegularizer": lambda z, a: KLSparsityRegularizer(RHO, BETA, batch_scaling=False)(a),
    "KLSparsityRegularizer, logits": lambda z, a: KLSparsityRegularizer(
        RHO, BETA, from_logits=True, batch_scaling=False
    )(z),
}


def cost(penalty: Penalty) -> Callable[[Any], Any]:
    """Return a cost of logits: something with a gradient of its own, and the penalty."""

    def function(z: Any) -> Any:
        a = ops.sigmoid(z)
        return ops.sum(ops.square(a)) + penalty(z, a)

    return function


Measured = tuple[Counter[str], float, Callable[[], Any]]
"""How many kernels of each name, bytes, and a call to time."""


def microseconds(function: Callable[[], Any], calls: int) -> float:
    """Return how long one of several calls takes, the device's work included."""
    synchronise()
    started = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise()
    return 1e6 * (time.perf_counter() - started) / calls


def count_on_torch() -> Any:
    """Return a context that counts what torch dispatches: `kernels` by name, and `bytes`."""
    from torch import is_tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.kernels: Counter[str] = Counter()
            self.bytes = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            tensors = [t for t in tree_flatten((args, kwargs, found))[0] if is_tensor(t)]
            copies = {t.data_ptr() for t in tree_flatten(found)[0] if is_tensor(t)}
            inputs = {t.data_ptr() for t in tree_flatten(args)[0] if is_tensor(t)}
            is_view = bool(copies) and copies <= inputs and not function._schema.is_mutable
            if not is_view:
                self.kernels[str(function)] += 1
                self.bytes += sum(t.untyped_storage().nbytes() for t in tensors)
            return found

    return Count()


def on_torch(penalty: Penalty, z: Any) -> Measured:
    """Count and call eager torch."""
    import torch

    torch.set_num_threads(1)
    leaf = z.detach().requires_grad_()
    function = cost(penalty)

    def step() -> None:
        torch.autograd.grad(function(leaf), leaf)

    step()
    with count_on_torch() as count:
        step()
    return count.kernels, count.bytes, step


def on_jax(penalty: Penalty, z: Any) -> Measured:
    """Count and call the compiled program."""
    import jax

    compiled = jax.jit(jax.value_and_grad(cost(penalty))).lower(z).compile()
    entry = compiled.as_text().split("ENTRY")[1].split("\n}")[0]
    kernels = Counter(re.findall(r"= .*(fusion|reduce|dot|call|custom-call|while)\(", entry))
    counted = compiled.cost_analysis()
    counted = counted[0] if isinstance(counted, list) else counted
    return kernels, float(counted["bytes accessed"]), lambda: jax.block_until_ready(compiled(z))


def on_tensorflow(penalty: Penalty, z: Any) -> Measured:
    """Count the nodes of the graph, and call it; bytes are not counted there."""
    import tensorflow as tf

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = cost(penalty)(z)
        return value, tape.gradient(value, z)

    graph = step.get_concrete_function().graph
    idle = {"Const", "Identity", "NoOp", "Placeholder"}
    kernels = Counter(node.type for node in graph.get_operations() if node.type not in idle)
    step()
    return kernels, float("nan"), lambda: step()[0].numpy()


MEASURES = {"torch": on_torch, "jax": on_jax, "tensorflow": on_tensorflow}


def main() -> None:
    """Print a table for the backend of this process, and everything as a line of JSON."""
    parser = argparse.ArgumentParser(description="What a penalty costs by itself.")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--units", type=int, default=196)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=1, help="in succession, for one time")
    arguments = parser.parse_args()
    backend = keras.config.backend()
    device = device_or_exit(arguments.device)
    shape = arguments.rows, arguments.units
    z = ops.convert_to_tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    found = {name: MEASURES[backend](penalty, z) for name, penalty in PENALTIES.items()}
    rounds = [
        {name: microseconds(call, arguments.calls) for name, (_, _, call) in found.items()}
        for _ in range(arguments.rounds)
    ]
    size = 4.0 * arguments.rows * arguments.units
    bandwidth = copy_bandwidth()
    must = (3.0 if backend == "torch" else 1.0) * size
    without = found.pop("none")
    print(f"{backend}: added to value and gradient, {shape} = {size / 1e3:.0f} kB")
    print(
        f"copy: {bandwidth / 1e9:.0f} GB/s; a mean must move {must / 1e3:.0f} kB: "
        f"{1e6 * must / bandwidth:.0f} µs"
    )
    print(f"{'':32}{'kernels':>8}{'kB':>11}{'µs':>8}{'95 %':>16}")
    rows = []
    for name, (kernels, moved, _) in found.items():
        added = median_interval(np.array([times[name] - times["none"] for times in rounds]))
        row = {
            "penalty": name,
            "kernels": kernels.total() - without[0].total(),
            "bytes": None if backend == "tensorflow" else moved - without[1],
            "added_microseconds": asdict(added),
        }
        rows.append(row)
        interval = f"{added.low:.0f} to {added.high:.0f}"
        kilobytes = (moved - without[1]) / 1e3
        print(f"{name:32}{row['kernels']:8}{kilobytes:11.0f}{added.median:8.0f}{interval:>16}")
    say(
        {
            "kind": "result",
            "backend": backend,
            "device": device,
            "versions": versions(backend),
            "shape": shape,
            "copy_bytes_per_second": bandwidth,
            "bytes_that_must_move": must,
            "microseconds_without": float(np.median([times["none"] for times in rounds])),
            "rows": rows,
        }
    )


if __name__ == "__main__":
    main()
