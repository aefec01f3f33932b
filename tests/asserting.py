"""The one vocabulary of assertions about numbers: inside the bounds that the oracle derives.

Value and gradient are held together, and what is trained with the loss that is reported: no test
checks half. Each failure says which quantity is off, and by how many of its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import reference
from keras_impl.backends.arrays import as_float64
from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from reference.rounding import Bounded

# Keras keeps the reported loss in float32, times the rows and divided by them.
REPORTED = 4 * 2.0**-24


def inside(label: str, actual: Any, expected: Bounded, *context: Any) -> None:
    """Hold one quantity to its value and bound; what is not finite is outside."""
    actual = as_float64(actual)
    used = reference.usage(actual, expected)
    assert used.worst <= 1.0, (
        f"{label} is {used.worst:.3g} bounds from the oracle.\n"
        f"got {actual}\nexpected {expected.value}\nbound {expected.bound}\n{context}"
    )


def value_and_gradient_inside(
    value: Any,
    gradient: Sequence[Any],
    expected: Bounded,
    by: Sequence[Bounded],
    *context: Any,
) -> None:
    """Hold a value and its gradient by every tensor."""
    inside("the value", value, expected, *context)
    assert len(gradient) == len(by), context
    for number, (actual, bounded) in enumerate(zip(gradient, by, strict=True)):
        inside(f"the gradient by tensor {number}", actual, bounded, *context)


def function_inside(
    function: Callable[[Any], Any],
    x: Any,
    precision: str,
    expected: tuple[Bounded, Bounded],
    run: Callable[[Any], Any] = lambda function: function,
) -> None:
    """Hold a scalar function of a tensor, at least float32, and its gradient where there is one.

    Args:
        function: From a tensor to a scalar.
        x: Where; numbers of the precision.
        precision: The dtype of the tensor.
        expected: The value and the gradient of the oracle.
        run: What compiles a function, or leaves it as it is.
    """
    tensor = ops.convert_to_tensor(x, dtype=precision)
    value = run(function)(tensor)
    assert keras.backend.standardize_dtype(value.dtype) in ("float32", "float64")
    gradient = []
    if has_gradients():
        gradient = run(lambda at: value_and_gradients(function, [at]))(tensor)[1]
    value_and_gradient_inside(value, gradient, expected[0], expected[1:][: len(gradient)])


def training_inside(
    reported: float, variables: Sequence[Any], cost: Bounded, reached: Sequence[Bounded]
) -> None:
    """Hold what `fit` reports and where the variables are afterwards."""
    slack = REPORTED * np.abs(cost.value)
    inside("the reported loss", reported, Bounded(cost.value, cost.bound + slack))
    for variable, expected in zip(variables, reached, strict=True):
        inside(variable.path, variable.value, expected)
