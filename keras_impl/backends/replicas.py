"""Sums over the replicas of data-parallel training. The one place that knows engines.

KL of a mean is not the mean of KLs, so ρ̂ must be that of the global batch: sums and counts are
added over replicas before they are divided. What an engine is, and who adds, differs:

- JAX (`keras.distribution`, any sharding under `jit`): arrays are global, and so is every sum.
  Nothing is added here.
- TensorFlow (`tf.distribute`): each replica runs the program on its own rows; Keras scales each
  replica's loss by 1/R and adds the gradients.
- PyTorch (`torch.distributed`): each process runs the program on its own rows;
  `DistributedDataParallel` averages the gradients.

In both of the latter the gradient that reaches the weights is the *mean* over the R replicas of the
gradients of their losses. A replica's loss here has the value of the global one, and R times the
derivative by the replica's own rows: the mean of these is the derivative of the global loss by all
rows. So one reduction forward is enough, and none is needed backward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.keras_internals import inside_train_step, losses_kept


def replica_count(moves_state: bool = False) -> int:
    """Return R, the number of replicas whose sums must be added here.

    1 on JAX, where sums are global already, outside of a replica of a `tf.distribute` strategy, in
    a single process, and on torch under `torch.no_grad()`: there one rank may evaluate alone.

    Args:
        moves_state: Whether the call changes variables, which every rank must then do, also
            under `torch.no_grad()`.

    Raises:
        RuntimeError: If each process or shard trains by itself: on torch in `fit` of several
            processes, which averages no gradients; on JAX in `fit` of several processes without a
            `keras.distribution`, and inside `shard_map` or `pmap`.

    >>> replica_count()
    1
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return 1 if context is None else int(context.num_replicas_in_sync)
    if backend == "torch":
        import torch

        if not (moves_state or torch.is_grad_enabled()):
            return 1
        count = _torch_world_size()
        if count > 1 and inside_train_step():
            raise RuntimeError(
                f"`fit` on torch averages no gradients over the {count} processes of this group: "
                "each would train a model of its own. Use DistributedDataParallel and a loop "
                "(examples/replicas_torch.py), or `cross_replica=False`."
            )
        return count
    if backend == "jax":
        _refuse_local_training_on_jax()
    return 1


def sum_over_replicas(total: Any, count: Any, *, moves_state: bool = False) -> tuple[Any, Any]:
    """Add sums and a count over the replicas, in one reduction.

    Args:
        total: A scalar or a vector, this replica's sum over its rows. float32 or float64.
        count: How many rows that were: a number or a scalar tensor; no derivative.
        moves_state: See `replica_count`.

    Returns:
        The sums over all replicas, equal on each. The derivative of the first by this replica's
        `total` is R, the number of replicas, because engines average gradients. With one replica
        the arguments themselves.

    Raises:
        RuntimeError: As `replica_count`.

    >>> sum_over_replicas(3.0, 2.0)
    (3.0, 2.0)
    """
    replicas = replica_count(moves_state)
    if replicas == 1:
        return total, count
    fixed = ops.stop_gradient(total)
    vector = ops.reshape(fixed, (-1,))
    count = ops.reshape(ops.cast(count, total.dtype), (1,))
    added = _all_reduce(ops.concatenate([vector, count]), "SUM")
    # total - fixed is 0 in value and the identity in derivative.
    return ops.reshape(added[:-1], total.shape) + replicas * (total - fixed), added[-1]


def logsumexp_over_replicas(local: Any, count: Any) -> tuple[Any, Any]:
    """Add exponentials and a count over the replicas, without overflow, in two reductions.

    Args:
        local: (units,), the logarithm of this replica's sum over its rows; very negative or -inf
            if it has none.
        count: How many rows that were.

    Returns:
        The logarithm of the sum over all replicas and the global count; derivatives as in
        `sum_over_replicas`. With one replica the arguments themselves.

    Raises:
        RuntimeError: As `replica_count`.

    >>> logsumexp_over_replicas(3.0, 2.0)
    (3.0, 2.0)
    """
    if replica_count() == 1:
        return local, count
    largest = _all_reduce(ops.stop_gradient(local), "MAX")
    total, count = sum_over_replicas(ops.exp(local - largest), count)
    return largest + ops.log(total), count


def share_of_loss(loss: Any) -> Any:
    """Return what a replica of the engine hands to its optimizer as its share of a global loss.

    On TensorFlow a 1/R-th, since `tf.distribute` adds gradients; elsewhere the loss itself.

    Args:
        loss: A scalar.

    >>> share_of_loss(3.0)
    3.0
    """
    if keras.config.backend() != "tensorflow":
        return loss
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / ops.cast(replicas, loss.dtype)


@contextmanager
def losses_of_this_replica() -> Iterator[None]:
    """Keep the losses of the layers of this replica while it waits for others.

    `MirroredStrategy` runs replicas as threads, one at a time, that share the layers: when a
    replica waits (for a reduction, or to assign a variable) the next one clears the lists of
    losses and fills them with its own. The first would then train without its activity losses.
    """
    if keras.config.backend() == "tensorflow" and replica_count() > 1:
        with losses_kept():
            yield
    else:
        yield


def worker_count() -> int:
    """Return the number of processes that share the work: 1 if there is but this one.

    Raises:
        RuntimeError: On TensorFlow, inside a replica: call it outside of `strategy.run`.

    >>> worker_count()
    1
    """
    backend = keras.config.backend()
    if backend == "torch":
        return _torch_world_size()
    if backend == "jax":
        import jax

        return int(jax.process_count())
    if backend == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync == 1:
            return 1
        if not tf.distribute.in_cross_replica_context():
            raise RuntimeError("Call `worker_count` and `sum_over_workers` outside of a replica.")
        return int(strategy.num_replicas_in_sync // _tf_local_replicas(strategy))
    return 1


def sum_over_workers(array: Any) -> Any:
    """Add a NumPy array over the worker processes, in its own dtype; no derivative.

    For exact full-data sums: each worker adds up its part of the data, then all call this in the
    same order. On TensorFlow call it under `strategy.scope()` of a `MultiWorkerMirroredStrategy`.

    Args:
        array: A real NumPy array, of the same shape and dtype on every worker.

    Returns:
        A new array: the sum over workers, the same bits on each. A copy of `array` if there is
        one worker.

    Raises:
        TypeError: If `array` is not a NumPy array of floats.
        RuntimeError: If the engine loses a worker (the engine's own error), and as `worker_count`.

    >>> sum_over_workers(np.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        raise TypeError(
            "`array` must be a NumPy array of float32 or float64. "
            f"Received: {type(array).__name__} of dtype {getattr(array, 'dtype', None)}"
        )
    if worker_count() == 1:
        return array.copy()
    backend = keras.config.backend()
    if backend == "torch":
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(array, device=device)
        torch.distributed.all_reduce(tensor)
        return tensor.cpu().numpy()
    if backend == "jax":
        from jax.experimental import multihost_utils

        # Bytes: JAX would round float64 to float32 on the way.
        gathered = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint8))
        parts = np.asarray(gathered).view(array.dtype)
        return np.asarray(np.sum(parts.reshape(-1, *array.shape), axis=0))
    return _tf_sum_over_workers(array)


def logsumexp_over_workers(array: Any) -> Any:
    """Add exp(array) over the worker processes and return the logarithm of the sums.

    Args:
        array: As for `sum_over_workers`; -inf stands for nothing.

    >>> logsumexp_over_workers(np.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    parts = np.zeros((worker_count(), *array.shape), array.dtype)
    parts[_worker_index()] = array
    return np.logaddexp.reduce(sum_over_workers(parts), axis=0)


def require_equal_on_workers(name: str, arrays: Sequence[Any]) -> None:
    """Check that every worker process holds the same numbers.

    Args:
        name: What they are, for the error.
        arrays: NumPy arrays.

    Raises:
        ValueError: On every worker, if any two differ.

    >>> require_equal_on_workers("`x`", [np.zeros(3)])
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    # Whole numbers below 2³²: their sums are exact, and so are multiples of them.
    own = np.frombuffer(digest.digest(), dtype=np.uint32).astype(np.float64)
    workers = worker_count()
    differ = not np.array_equal(sum_over_workers(own), workers * own)
    if sum_over_workers(np.array([float(differ)]))[0] > 0.0:
        raise ValueError(
            f"{name} must be the same on every worker; they differ on these {workers}. Give each "
            "the same seed, or the weights of the first."
        )


def _all_reduce(tensor: Any, operation: str) -> Any:
    """Reduce a tensor over the replicas ("SUM" or "MAX"), without a derivative."""
    if keras.config.backend() == "torch":
        import torch

        tensor = tensor.detach().clone()
        torch.distributed.all_reduce(tensor, getattr(torch.distributed.ReduceOp, operation))
        return tensor
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    with losses_of_this_replica():
        if operation == "SUM":
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)
        # tf.distribute adds and averages, nothing else.
        return tf.reduce_max(context.all_gather(tensor[None], axis=0), axis=0)


def _worker_index() -> int:
    backend = keras.config.backend()
    if worker_count() == 1:
        return 0
    if backend == "torch":
        import torch

        return int(torch.distributed.get_rank())
    if backend == "jax":
        import jax

        return int(jax.process_index())
    import tensorflow as tf

    return int(tf.distribute.get_strategy().cluster_resolver.task_id)


def _torch_world_size() -> int:
    import torch

    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return int(distributed.get_world_size())


def _refuse_local_training_on_jax() -> None:
    import jax

    mesh: Any = getattr(jax.sharding, "get_abstract_mesh", lambda: None)()  # from JAX 0.5 on
    axes = getattr(mesh, "manual_axes", ())
    if axes:
        raise RuntimeError(
            f"Inside shard_map or pmap (axes {axes}) a mean is that of one shard. "
            "Use `keras.distribution.DataParallel`, or `jit` on sharded arrays, where it is "
            "global; or `cross_replica=False` for a mean of each shard."
        )
    if (
        jax.process_count() > 1
        and keras.distribution.distribution() is None
        and inside_train_step()
    ):
        raise RuntimeError(
            f"`fit` in one of {jax.process_count()} JAX processes without a distribution trains a "
            "model of its own in each. Call `keras.distribution.set_distribution("
            "keras.distribution.DataParallel())` before the model is made, or use "
            "`cross_replica=False`."
        )


def _tf_local_replicas(strategy: Any) -> int:
    return len(strategy.extended.worker_devices)


def _tf_sum_over_workers(array: Any) -> Any:
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    local = _tf_local_replicas(strategy)

    def add() -> Any:
        context = tf.distribute.get_replica_context()
        # Every worker's array counts once, in its first replica.
        first = tf.equal(context.replica_id_in_sync_group % local, 0)
        part = tf.where(first, array, tf.zeros_like(array))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, part)

    return np.array(strategy.experimental_local_results(strategy.run(add))[0])
