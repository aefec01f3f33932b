"""Tensors of any backend as NumPy arrays, and the functions that take either."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def to_numpy(array: Any) -> NDArray[Any]:
    """Return what holds numbers as a NumPy array of its own dtype, without a copy where it can.

    Args:
        array: A tensor of any backend (also one that requires a gradient, or lies on a GPU), a
            Keras variable, a memory map, or anything else that NumPy reads. A bfloat16 tensor of
            torch comes back in float32, exactly.

    >>> to_numpy(keras.ops.ones((2,), dtype="int32")).tolist()
    [1, 1]
    """
    if isinstance(array, keras.Variable):
        array = array.value
    if hasattr(array, "detach"):  # a torch tensor, maybe under another backend
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            array = array.float()
    if hasattr(array, "numpy"):  # torch's and TensorFlow's own, which knows `copy` and bfloat16
        array = array.numpy()
    return np.asarray(array)


def as_float64(array: Any) -> NDArray[np.float64]:
    """Return what holds numbers as a new NumPy array in float64, exactly.

    Args:
        array: As for `to_numpy`.

    >>> as_float64(keras.ops.ones((), dtype="bfloat16"))
    array(1.)
    >>> x = np.zeros(1)
    >>> np.shares_memory(as_float64(x), x)
    False
    """
    return to_numpy(array).astype(np.float64)


def namespace_of(x: Any) -> Any:
    """Return the module whose `log`, `log1p`, `clip` and `where` take `x` as it is.

    NumPy for arrays, torch for its tensors (for which `keras.ops.clip`
    rounds its limits to float32),
    else `keras.ops`.

    >>> namespace_of(np.ones(2)) is np
    True
    """
    if isinstance(x, np.ndarray):
        return np
    if keras.config.backend() == "torch":
        import torch

        return torch
    return keras.ops
