"""The rows of a data set, whatever holds it, in chunks of one shape.

One shape, so that nothing is compiled twice: a short chunk is filled up with copies of its first
row, which count for nothing. No more than a chunk is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from keras_impl.validation import positive_integer

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
            batch_size = positive_integer("batch_size", batch_size)
        self.samples: int | None = None
        self._is_array = _is_structure_of_arrays(x)
        if self._is_array:
            self._data = (x, y, sample_weight)
            self.samples = _rows(x, "x")
            for name, given in (("y", y), ("sample_weight", sample_weight)):
                if given is not None and _rows(given, name) != self.samples:
                    raise ValueError(
                        f"`{name}` must have as many rows as `x`, {self.samples}. "
                        f"Received {_rows(given, name)}."
                    )
            if self.samples == 0:
                raise ValueError("`x` must hold at least one sample. Received none.")
            if batch_size is None:
                numbers = sum(_size(leaf) for leaf in tree.flatten(x)) // self.samples
                batch_size = max(1, NUMBERS_PER_CHUNK // max(1, numbers))
            self.rows = min(batch_size, self.samples)
        else:
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "`y` and `sample_weight` go with an array `x`; a data set yields its own, as "
                    "(x, y) or (x, y, sample_weight)."
                )
            self._batches = _reiterable(x)
            if batch_size is None:
                first = next(iter(self._batches()), None)
                if first is None:
                    raise ValueError("`x` must hold at least one sample. Received no batch.")
                batch_size = max(1, _rows(keras.utils.unpack_x_y_sample_weight(first)[0], "x"))
            self.rows = batch_size

    @property
    def is_one(self) -> bool:
        """Whether one chunk is known to hold the whole set, without a row to fill up."""
        return self.samples == self.rows

    def __iter__(self) -> Iterator[Chunk]:
        if self._is_array:
            yield from self._pieces(*self._data)
            return
        for batch in self._batches():
            yield from self._pieces(*keras.utils.unpack_x_y_sample_weight(batch))

    def _pieces(self, x: Any, y: Any, sample_weight: Any) -> Iterator[Chunk]:
        if y is None and len(tree.flatten(x)) != 1:
            raise ValueError("`y` must be given where `x` is not one array.")
        samples = _rows(x, "x")
        for start in range(0, samples, self.rows):
            piece = slice(start, min(start + self.rows, samples))
            count = piece.stop - start
            part = tree.map_structure(lambda a, piece=piece: self._filled(a[piece]), x)
            if y is None:
                target = tree.flatten(part)[0]
            else:
                target = tree.map_structure(lambda a, piece=piece: self._filled(a[piece]), y)
            valid = np.zeros(self.rows, self.dtype)
            valid[:count] = 1.0
            weight = valid
            if sample_weight is not None:
                weight = self._filled(sample_weight[piece]).astype(self.dtype)
                weight[count:] = 0.0
            yield Chunk(part, target, weight, valid, count)

    def _filled(self, array: Any) -> NDArray[Any]:
        array = _as_numpy(array)
        if np.issubdtype(array.dtype, np.floating):
            array = np.asarray(array, dtype=self.dtype)
        missing = self.rows - len(array)
        if missing:
            filling = np.broadcast_to(array[:1], (missing, *array.shape[1:]))
            array = np.concatenate([array, filling])
        return np.ascontiguousarray(array)


def _is_structure_of_arrays(x: Any) -> bool:
    leaves = tree.flatten(x)
    return bool(leaves) and all(
        hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves
    )


def _rows(x: Any, name: str) -> int:
    rows = {int(leaf.shape[0]) if len(leaf.shape) else -1 for leaf in tree.flatten(x)}
    if len(rows) != 1 or -1 in rows:
        shapes = [tuple(leaf.shape) for leaf in tree.flatten(x)]
        raise ValueError(
            f"`{name}` must have samples on its first axis, as many in every array. "
            f"Received: {name} of shape {', '.join(map(str, shapes))}"
        )
    return rows.pop()


def _size(array: Any) -> int:
    size = 1
    for length in array.shape:
        size *= int(length)
    return size


def _as_numpy(array: Any) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return np.asarray(array)  # of a memory map too: this is where it is read
    if ops.is_tensor(array):
        return ops.convert_to_numpy(array)
    if hasattr(array, "detach"):  # a torch tensor, under another backend
        array = array.detach().cpu()
    return np.asarray(array)


def _reiterable(x: Any) -> Any:
    """Return a function that starts a new run through the batches of x."""
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError("`x` must be finite. Received a PyDataset without `num_batches`.")
        return lambda: (x[i] for i in range(x.num_batches))
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError("`x` must be finite. Received an infinite tf.data.Dataset.")
    if not isinstance(x, Iterable) or isinstance(x, (str, bytes)):
        raise TypeError(
            "`x` must be an array, a memory map, a tf.data.Dataset, a torch DataLoader or a "
            f"keras.utils.PyDataset. Received: x of type {type(x).__name__}"
        )
    if isinstance(x, Iterator):
        raise TypeError(
            "`x` must be something that can be run through more than once. Received: x of type "
            f"{type(x).__name__}, which can be read only once."
        )
    return lambda: iter(x)
