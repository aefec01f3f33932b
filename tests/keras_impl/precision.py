"""How a piece of a test is run: in which dtype, and on JAX mostly compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import ml_dtypes
import numpy as np

from keras_impl.backends.arrays import as_float64 as as_numpy
from keras_impl.backends.autodiff import compiled
from keras_impl.backends.process import use_dtype

__all__ = ["as_numpy", "computing_in", "mostly_compiled", "rounded"]

# Keras's policy for each precision: parameters in float32 and 16-bit arithmetic for the halves.
POLICIES = {
    "float32": "float32",
    "float64": "float64",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
NUMPY_DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}


@contextmanager
def computing_in(precision: str) -> Iterator[str]:
    """Make float64 real where it is asked for; yields the Keras dtype policy."""
    use_dtype("float64" if precision == "float64" else "float32")
    try:
        yield POLICIES[precision]
    finally:
        use_dtype("float32")


def rounded(values: Any, precision: str) -> Any:
    """Round to numbers of the precision, held in float64."""
    return np.asarray(values).astype(NUMPY_DTYPES[precision]).astype(np.float64)


def mostly_compiled(seed: int) -> Callable[[Any], Any]:
    """`compiled` on JAX for seven seeds in eight; else a function is run as it is.

    Eagerly JAX compiles every operation by itself, for seconds a case.
    """
    if keras.config.backend() == "jax" and seed % 8:
        return compiled
    return lambda function: function
