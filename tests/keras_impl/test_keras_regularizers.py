"""Keras's own regularizers: every example of its documentation, and each against the oracle.

The examples are those of keras.io's page on layer weight regularizers, with the numbers that it
prints. What does not hold on the installed Keras is said where it is tested.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import keras_divides_activity_by_batch
from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients

pytestmark = pytest.mark.inference

shapes = st.sampled_from([(2, 2), (5, 3), (3, 7), (9, 9)])


def number(tensor: Any) -> float:
    return float(ops.convert_to_numpy(tensor))


def weights_of(seed: int, shape: tuple[int, int], scale: float) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype("float32")


def hold(regularizer: Any, weights: np.ndarray, expected: Any) -> None:
    value, gradient = expected
    tensor = ops.convert_to_tensor(weights)
    # JAX compiles every eager operation by itself: as a whole that is faster.
    run = compiled if keras.config.backend() == "jax" else lambda f: f
    used = reference.usage(number(run(regularizer)(tensor)), value)
    assert used.worst <= 1.0, (used, value)
    if has_gradients():
        _, (by_weight,) = run(lambda t: value_and_gradients(regularizer, [t]))(tensor)
        used = reference.usage(ops.convert_to_numpy(by_weight), gradient)
        assert used.worst <= 1.0, (used, gradient)


@pytest.mark.equation(
    "EQ-L1", "EQ-L1-GRADIENT", "EQ-L2", "EQ-L2-GRADIENT", "EQ-L1L2", "EQ-L1L2-GRADIENT"
)
@given(
    seed=st.integers(0, 2**16),
    shape=shapes,
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    l1=st.sampled_from([0.0, 1e-5, 0.01, 3.0]),
    l2=st.sampled_from([0.0, 1e-5, 0.01, 3.0]),
)
def test_l1_l2(seed: int, shape: tuple[int, int], scale: float, l1: float, l2: float) -> None:
    weights = weights_of(seed, shape, scale)
    for regularizer, factors in (
        (keras.regularizers.L1(l1), (l1, 0.0)),
        (keras.regularizers.L2(l2), (0.0, l2)),
        (keras.regularizers.L1L2(l1, l2), (l1, l2)),
    ):
        hold(regularizer, weights, reference.l1_l2_with_bounds(weights, *factors))


@pytest.mark.equation("EQ-ORTHOGONAL", "EQ-ORTHOGONAL-GRADIENT")
@given(
    seed=st.integers(0, 2**16),
    shape=shapes,
    mode=st.sampled_from(["rows", "columns"]),
    factor=st.sampled_from([0.01, 2.0]),
)
def test_orthogonal(seed: int, shape: tuple[int, int], mode: str, factor: float) -> None:
    weights = weights_of(seed, shape, 1.0)
    regularizer = keras.regularizers.OrthogonalRegularizer(factor, mode)
    expected = reference.orthogonal_with_bounds(weights, factor, mode)
    if keras.config.backend() == "numpy" and mode == "columns":
        # Keras's numpy `normalize(x, axis=0)` divides along the last axis (`axis or -1`): rows
        # and columns are mixed up. An error, or where the matrix is square a wrong value.
        if shape[0] != shape[1]:
            with pytest.raises(ValueError, match="broadcast"):
                regularizer(ops.convert_to_tensor(weights))
        else:
            assert reference.usage(number(regularizer(weights)), expected[0]).worst > 1.0
        return
    hold(regularizer, weights, expected)


@pytest.mark.keras_eras
def test_the_pages_first_example() -> None:
    """Dense(5) of ones, L1(0.01) on the kernel, L2(0.01) on the activity, 5×5 input of twos."""
    layer = keras.layers.Dense(
        5,
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L1(0.01),
        activity_regularizer=keras.regularizers.L2(0.01),
    )
    layer(ops.ones((5, 5)) * 2.0)
    kernel = reference.l1(np.ones((5, 5)), 0.01)
    activity = reference.l2(np.full((5, 5), 10.0), 0.01)
    assert (round(kernel, 12), round(activity, 12)) == (0.25, 25.0)
    divided = activity / 5 if keras_divides_activity_by_batch() else activity
    total = sum(number(loss) for loss in layer.losses)
    # The page prints 5.25: the division by the batch of 5. 25 terms a sum, and the factors.
    assert abs(total - (kernel + divided)) <= 64 * 2.0**-24 * total


@pytest.mark.keras_eras
def test_direct_calls_a_callable_and_a_subclass() -> None:
    ones = ops.ones((5, 5))
    assert number(keras.regularizers.L2(2.0)(ones)) == 50.0 == reference.l2(np.ones((5, 5)), 2.0)

    def l1_callable(w: Any) -> Any:
        return 0.01 * ops.sum(ops.absolute(w))

    if keras_divides_activity_by_batch():  # the later era
        layer = keras.layers.Dense(5, kernel_initializer="ones", kernel_regularizer=l1_callable)
        layer(ones)
        assert abs(number(layer.losses[0]) - 0.25) <= 32 * 2.0**-24
    else:
        with pytest.raises(ValueError, match="Invalid value for attribute `regularizer`"):
            keras.layers.Dense(5, kernel_regularizer=l1_callable)(ones)

    class L2Regularizer(keras.regularizers.Regularizer):
        def __init__(self, l2: float = 0.0) -> None:
            self.l2 = l2

        def __call__(self, x: Any) -> Any:
            return self.l2 * ops.sum(ops.square(x))

        def get_config(self) -> dict[str, Any]:
            return {"l2": float(self.l2)}

    layer = keras.layers.Dense(
        5, kernel_initializer="ones", kernel_regularizer=L2Regularizer(l2=0.5)
    )
    layer(ones)
    assert number(layer.losses[0]) == 12.5 == reference.l2(np.ones((5, 5)), 0.5)


@pytest.mark.keras_eras
def test_kernel_bias_and_activity_regularizers_are_three_losses() -> None:
    layer = keras.layers.Dense(
        3,
        kernel_initializer="ones",
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(1.0),
        bias_regularizer=keras.regularizers.L2(1.0),
        activity_regularizer=keras.regularizers.L2(1.0),
    )
    layer(ops.ones((2, 4)))
    activity = reference.l2(np.full((2, 3), 5.0), 1.0)
    divided = activity / 2 if keras_divides_activity_by_batch() else activity
    assert sorted(number(loss) for loss in layer.losses) == sorted([12.0, 3.0, divided])


@pytest.mark.keras_eras
def test_activity_regularization_layer_is_divided_too() -> None:
    layer = keras.layers.ActivityRegularization(l1=1.0, l2=2.0)
    layer(ops.ones((4, 3)) * 2.0)
    expected = reference.l1_l2(np.full((4, 3), 2.0), 1.0, 2.0)
    divided = expected / 4 if keras_divides_activity_by_batch() else expected
    assert number(layer.losses[0]) == divided


def test_string_names_and_defaults() -> None:
    """The page says 0.01 for all and names "l1_l2" too; the last does not hold everywhere."""
    weights = np.arange(6.0, dtype="float32").reshape(2, 3)
    tensor = ops.convert_to_tensor(weights)
    for name, expected in (
        ("l1", reference.l1(weights, 0.01)),
        ("l2", reference.l2(weights, 0.01)),
    ):
        regularizer = keras.regularizers.get(name)
        assert abs(number(regularizer(tensor)) - expected) <= 16 * 2.0**-24 * expected
    assert number(keras.regularizers.L1L2()(tensor)) == 0.0  # both factors 0, not 0.01
    with pytest.raises(ValueError, match="Could not interpret regularizer identifier"):
        keras.regularizers.get("l1_l2")


def test_the_unscaled_bound_catches_keras_wrong_by_one_part_in_ten_thousand() -> None:
    """A test that cannot fail proves nothing: the comparison used here sees 1e-4."""
    weights = weights_of(0, (5, 3), 1.0)

    def wrong(w: Any) -> Any:
        return 1.0001 * keras.regularizers.L2(0.01)(w)

    with pytest.raises(AssertionError):
        hold(wrong, weights, reference.l1_l2_with_bounds(weights, 0.0, 0.01))
