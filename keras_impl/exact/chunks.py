"""The rows of a data set, whatever holds it, in chunks of one shape.

One shape, so that nothing is compiled twice: a short chunk is filled up with copies of its first
row, which count for nothing. No more than a chunk is in memory.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from keras_impl.backends.arrays import to_numpy
from keras_impl.validation import integer

NUMBERS_PER_CHUNK = 2**22
"""How many numbers of x a chunk may hold unless `batch_size` says otherwise: 16 MiB in float32."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some samples.

    Args:
        x: An array, or a structure of arrays, of `rows` rows; as Keras's `fit` takes it.
        y: The targets, the same.
        sample_weight: (rows,) or (rows, ...), 0 for a row that only fills up.
        valid: (rows,), 1 for a sample and 0 for a row that only fills up.
        samples: How many samples there are.
    """

    x: Any
    y: Any
    sample_weight: NDArray[Any]
    valid: NDArray[Any]
    samples: int


class Chunks:
    """The samples of a data set, to be run through more than once.

    Args:
        x: An array (or memory map, or tensor, or structure of them) of samples; or what yields
            batches of x, of (x, y) or of (x, y, sample_weight), each time it is run through: a
            `tf.data.Dataset`, a torch `DataLoader`, a `keras.utils.PyDataset`, a list-like class.
        y: The targets; `None`: those that the batches bring, else x.
        sample_weight: Weights of the samples, for an array x.
        batch_size: How many rows a chunk has. `None`: those of the first batch; for an array all,
            up to `NUMBERS_PER_CHUNK` numbers.
        dtype: "float32" or "float64", for floating-point arrays.

    Raises:
        TypeError: If x is none of those, or can be read only once.
        ValueError: If there is no sample, or the numbers of rows differ.
    """

    def __init__(self, x: Any, y: Any, sample_weight: Any, batch_size: Any, dtype: str) -> None:
        self.dtype = dtype
        if batch_size is not None:
            batch_size = integer("batch_size", batch_size, low=1)
        self.samples: int | None = None
        if _is_structure_of_arrays(x):
            self.samples = _rows(x, "x")
            self._batches: Any = lambda: ((x, y, sample_weight),)
            if batch_size is None:
                numbers = sum(math.prod(leaf.shape[1:]) for leaf in tree.flatten(x))
                batch_size = max(1, NUMBERS_PER_CHUNK // max(1, numbers))
            batch_size = min(batch_size, max(1, self.samples))
        else:
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "`y` and `sample_weight` go with an array `x`; a data set yields its own, as "
                    "(x, y) or (x, y, sample_weight)."
                )
            batches = _reiterable(x)
            self._batches = lambda: map(_unpacked, batches())
            if batch_size is None:
                sizes = (_rows(batch[0], "x") for batch in self._batches())
                batch_size = next((size for size in sizes if size), 1)
        self.rows: int = batch_size

    def first(self) -> Chunk:
        """Return the first chunk.

        Raises:
            ValueError: If there is no sample.
        """
        chunk = next(iter(self), None)
        if chunk is None:
            raise ValueError("`x` must hold at least one sample. Received none.")
        return chunk

    @property
    def is_one(self) -> bool:
        """Whether one chunk is known to hold the whole set, without a row to fill up."""
        return self.samples == self.rows

    def one_by_one(self) -> Chunks:
        """Return the same samples, each a chunk of its own."""
        rows = copy.copy(self)
        rows.rows = 1
        return rows

    def __iter__(self) -> Iterator[Chunk]:
        for batch in self._batches():
            yield from self._pieces(*batch)

    def _pieces(self, x: Any, y: Any, sample_weight: Any) -> Iterator[Chunk]:
        if y is None and len(tree.flatten(x)) != 1:
            raise ValueError("`y` must be given where `x` is not one array.")
        samples = _rows(x, "x")
        for name, given in (("y", y), ("sample_weight", sample_weight)):
            if given is not None and _rows(given, name) != samples:
                raise ValueError(
                    f"`{name}` must have as many rows as `x`, {samples}. "
                    f"Received {_rows(given, name)}."
                )
        for start in range(0, samples, self.rows):
            piece = slice(start, min(start + self.rows, samples))
            count = piece.stop - start
            part = tree.map_structure(lambda a, piece=piece: self._filled("x", a[piece]), x)
            if y is None:
                target = tree.flatten(part)[0]
            else:
                target = tree.map_structure(lambda a, piece=piece: self._filled("y", a[piece]), y)
            valid = np.zeros(self.rows, self.dtype)
            valid[:count] = 1.0
            weight = valid
            if sample_weight is not None:
                weight = self._filled("sample_weight", sample_weight[piece]).astype(self.dtype)
                if not np.all(np.isfinite(weight)):
                    raise ValueError(
                        "`sample_weight` must be finite. Received one of "
                        f"{weight[~np.isfinite(weight)][0]}."
                    )
                weight[count:] = 0.0
            yield Chunk(part, target, weight, valid, count)

    def _filled(self, name: str, array: Any) -> NDArray[Any]:
        array = to_numpy(array)
        if array.dtype.kind in "cOSUmM" or array.dtype.name.startswith("void"):
            raise TypeError(f"`{name}` must hold real numbers. Received: dtype {array.dtype}")
        if np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16":
            array = array.astype(self.dtype, copy=False)
        missing = self.rows - len(array)
        if missing:
            filling = np.broadcast_to(array[:1], (missing, *array.shape[1:]))
            array = np.concatenate([array, filling])
        return np.ascontiguousarray(array)


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    """Return x, y and sample_weight of a batch."""
    if isinstance(batch, (tuple, list)) and len(batch) > 3:
        raise ValueError(
            "`x` must yield batches of x, (x, y) or (x, y, sample_weight). Received one of "
            f"{len(batch)} parts."
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return x, y, sample_weight


def _leaves(x: Any, name: str) -> list[Any]:
    try:
        return list(tree.flatten(x))
    except RecursionError as error:
        raise ValueError(f"`{name}` must not hold itself.") from error


def _is_structure_of_arrays(x: Any) -> bool:
    leaves = _leaves(x, "x")
    return bool(leaves) and all(
        hasattr(leaf, "shape") and hasattr(leaf, "__array__") for leaf in leaves
    )


def _rows(x: Any, name: str) -> int:
    leaves = _leaves(x, name)
    if not leaves or not all(isinstance(getattr(leaf, "shape", None), Sized) for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise TypeError(f"`{name}` must consist of arrays. Received: {name} of {', '.join(kinds)}")
    rows = {int(leaf.shape[0]) if len(leaf.shape) else -1 for leaf in leaves}
    if len(rows) != 1 or -1 in rows:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        raise ValueError(
            f"`{name}` must have samples on its first axis, as many in every array. "
            f"Received: {name} of shape {shapes}"
        )
    return rows.pop()


def _reiterable(x: Any) -> Any:
    """Return a function that starts a new run through the batches of x."""
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError(
                "`x` must be finite: let its `num_batches` say how many there are. Received a "
                "PyDataset without it."
            )
        return lambda: (x[i] for i in range(x.num_batches))
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(
            "`x` must be finite: use its `take`. Received an infinite tf.data.Dataset."
        )
    if not isinstance(x, Iterable) or isinstance(x, (str, bytes)):
        raise TypeError(
            "`x` must be an array, a memory map, a tf.data.Dataset, a torch DataLoader or a "
            f"keras.utils.PyDataset. Received: x of type {type(x).__name__}"
        )
    if isinstance(x, Iterator):
        raise TypeError(
            "`x` must be something that can be run through more than once, such as a list of "
            f"batches or a keras.utils.PyDataset. Received: x of type {type(x).__name__}, which "
            "can be read only once."
        )
    return lambda: iter(x)
