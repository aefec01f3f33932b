"""What a penalty adds to a step, counted, and the shortest time that it takes by itself.

    KERAS_BACKEND=torch python -m benchmarks.penalty_alone

Value and gradient of a small function of activations (256, 196), with each penalty and without:
kernels (torch: operations dispatched that are no views; JAX: instructions of the compiled
program's entry; TensorFlow: nodes of the function's graph), the bytes that they read and write
(torch and JAX), and microseconds: the median, over many rounds, of the time with a penalty less the
time without it in the same round. A processor that changes its clock changes both. Counts do not
depend on what else the machine does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl import KLSparsityRegularizer
from sae_oracle.bench.keras_steps import BETA, RHO, hand_written_kl

ROWS, UNITS = 256, 196
ROUNDS = 1000

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


Measured = tuple[int, float, Callable[[], Any]]
"""Kernels, bytes, and a call to time."""


def microseconds(function: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    function()
    return 1e6 * (time.perf_counter() - started)


def on_torch(penalty: Penalty, z: np.ndarray) -> Measured:
    """Count and call eager torch."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten

    class Count(TorchDispatchMode):
        kernels, bytes = 0, 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = function(*args, **(kwargs or {}))
            tensors = [t for t in tree_flatten((args, kwargs, found))[0] if torch.is_tensor(t)]
            copies = {t.data_ptr() for t in tree_flatten(found)[0] if torch.is_tensor(t)}
            inputs = {t.data_ptr() for t in tree_flatten(args)[0] if torch.is_tensor(t)}
            is_view = bool(copies) and copies <= inputs and not function._schema.is_mutable
            if not is_view:
                self.kernels += 1
                self.bytes += sum(t.untyped_storage().nbytes() for t in tensors)
            return found

    torch.set_num_threads(1)
    leaf = torch.tensor(z, requires_grad=True)
    function = cost(penalty)

    def step() -> None:
        torch.autograd.grad(function(leaf), leaf)

    step()
    with Count() as count:
        step()
    return count.kernels, count.bytes, step


def on_jax(penalty: Penalty, z: np.ndarray) -> Measured:
    """Count and call the compiled program."""
    import jax

    compiled = jax.jit(jax.value_and_grad(cost(penalty))).lower(z).compile()
    entry = compiled.as_text().split("ENTRY")[1].split("\n}")[0]
    kernels = len(re.findall(r"= .*(fusion|reduce|dot|call|custom-call|while)\(", entry))
    tensor = jax.numpy.asarray(z)
    counted = compiled.cost_analysis()
    counted = counted[0] if isinstance(counted, list) else counted
    return (
        kernels,
        float(counted["bytes accessed"]),
        lambda: jax.block_until_ready(compiled(tensor)),
    )


def on_tensorflow(penalty: Penalty, z: np.ndarray) -> Measured:
    """Count the nodes of the graph, and call it; bytes are not counted there."""
    import tensorflow as tf

    tensor = tf.constant(z)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = cost(penalty)(tensor)
        return value, tape.gradient(value, tensor)

    graph = step.get_concrete_function().graph
    idle = {"Const", "Identity", "NoOp", "Placeholder"}
    kernels = sum(node.type not in idle for node in graph.get_operations())
    step()
    return kernels, float("nan"), lambda: step()[0].numpy()


def main() -> None:
    """Print a table for the backend of this process."""
    backend = keras.config.backend()
    measure = {"torch": on_torch, "jax": on_jax, "tensorflow": on_tensorflow}[backend]
    z = np.random.default_rng(0).normal(size=(ROWS, UNITS)).astype(np.float32)
    found = {name: measure(penalty, z) for name, penalty in PENALTIES.items()}
    rounds = [
        {name: microseconds(call) for name, (_, _, call) in found.items()} for _ in range(ROUNDS)
    ]
    without = found.pop("none")
    print(f"{backend}: added to value and gradient, ({ROWS}, {UNITS}) = {z.nbytes / 1e3:.0f} kB")
    print(f"{'':32}{'kernels':>8}{'kB':>9}{'µs':>8}")
    for name, (kernels, moved, _) in found.items():
        added = np.median([times[name] - times["none"] for times in rounds])
        print(f"{name:32}{kernels - without[0]:8}{(moved - without[1]) / 1e3:9.0f}{added:8.0f}")


if __name__ == "__main__":
    main()
