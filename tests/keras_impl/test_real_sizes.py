"""Bounds that still decide at real sizes: the shape of sums that they assume, on each backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl.losses import HalfSquaredError
from keras_impl.regularizers import WeightDecay
from reference.bounds import scaled_sum_of_squares
from reference.rounding import Arithmetic, exact

DECAY = 1e-4
WIDE = Arithmetic("float32")


def decay_with_bound(weights: np.ndarray) -> reference.Bounded:
    return scaled_sum_of_squares(WIDE, WIDE.number(DECAY / 2.0), exact(weights), "rows first")


def half_squares(x: Any) -> Any:
    return HalfSquaredError(dtype="float32")(ops.zeros_like(x), x)


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
@pytest.mark.parametrize("term", [0.1, 0.3, 1.0 / 3.0, 0.7])
def test_equal_terms_are_inside_the_bound_of_two_short_sums(term: float) -> None:
    """All roundings of equal terms may add up: √n bounds are wrong for them."""
    for shape in ((448, 448), (200704, 1), (64, 7, 448)):
        weights = np.full(shape, np.float32(term))
        actual = ops.convert_to_numpy(WeightDecay(DECAY)(ops.convert_to_tensor(weights)))
        assert reference.usage(actual, decay_with_bound(weights)).worst <= 1.0
    errors = np.full((448, 448), np.float32(term))
    expected = reference.reconstruction_with_bounds(errors, 0.0 * errors, summation="rows first")
    actual = ops.convert_to_numpy(half_squares(ops.convert_to_tensor(errors)))
    assert reference.usage(actual, expected).worst <= 1.0
    assert reference.resolution(expected) < 60e-6


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
def test_the_factor_of_the_decay_stands_between_its_two_sums() -> None:
    """The sum of all squares is too large for float32; each row's, and λ/2 times it, is not."""
    weights = np.full((448, 100), np.float32(1e18))
    expected = decay_with_bound(weights)
    actual = ops.convert_to_numpy(WeightDecay(DECAY)(ops.convert_to_tensor(weights)))
    assert reference.usage(actual, expected).worst <= 1.0
    assert np.isfinite(expected.bound)
    in_any_order = scaled_sum_of_squares(WIDE, WIDE.number(DECAY / 2.0), exact(weights))
    assert np.isinf(in_any_order.bound)


def sums_in_jax(function: Any, x: np.ndarray) -> int:
    import jax

    return int(jax.jit(function).lower(x).compile().as_text().count(" reduce("))


def sums_in_tensorflow(function: Any, x: np.ndarray) -> int:
    import tensorflow as tf

    tensor = tf.constant(x)
    compiled = tf.function(function, jit_compile=True)
    optimised = compiled.experimental_get_compiler_ir(tensor)(stage="optimized_hlo")
    graph = tf.function(function).get_concrete_function(tensor).graph
    in_graph = sum(operation.type == "Sum" for operation in graph.get_operations())
    assert optimised.count(" reduce(") == in_graph
    return in_graph


def sums_in_torch(function: Any, x: np.ndarray) -> int:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        """The names of the operations that are run."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.found.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Names() as names:
        function(torch.from_numpy(x))
    return sum(name in ("sum", "linalg_vector_norm") for name in names.found)


@pytest.mark.equation("EQ-BOUND-ROWS-FIRST")
def test_compilers_leave_the_two_sums_as_they_are() -> None:
    """What is run, not what is written: a compiler might make one sum of two."""
    count = {"jax": sums_in_jax, "tensorflow": sums_in_tensorflow, "torch": sums_in_torch}[
        keras.config.backend()
    ]
    x = np.full((448, 448), np.float32(0.1))
    assert count(WeightDecay(DECAY), x) == 2
    assert count(half_squares, x) == 2
    assert count(lambda values: ops.sum(ops.square(values)), x) == 1
