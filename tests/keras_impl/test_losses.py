"""`HalfSquaredError`: every reduction, axis, mask, weight and dtype against NumPy and Keras."""

from __future__ import annotations

import itertools
import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_impl import HalfSquaredError
from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from keras_impl.backends.keras_internals import masked
from tests.keras_impl.precision import as_numpy, computing_in

SAMPLES, STEPS, FEATURES = 4, 3, 5
REDUCTIONS = ["sum", "mean", "sum_over_batch_size", "mean_with_sample_weight", "none", None]
MASKS = {
    "none": None,
    "samples": np.array([True, False, True, True]),
    "steps": np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=bool),
    "nothing": np.zeros((SAMPLES, STEPS), dtype=bool),
}
WEIGHTS = {
    "none": None,
    "samples": np.array([0.5, 2.0, 0.0, 1.25]),
    "column": np.array([[0.5], [2.0], [0.0], [1.25]]),
    "columns": np.array([[[0.5]], [[2.0]], [[0.0]], [[1.25]]]),
    "steps": np.arange(SAMPLES * STEPS).reshape(SAMPLES, STEPS) / 8.0,
}


def loss_of(
    y: Any,
    h: Any,
    mask: Any = None,
    weights: Any = None,
    kind: Any = HalfSquaredError,
    **arguments: Any,
) -> Any:
    output = ops.convert_to_tensor(h)
    if mask is not None:
        masked(output, ops.convert_to_tensor(mask))
    return kind(**arguments)(y, output, weights)


def expected_loss(y: Any, h: Any, axis: Any, reduction: Any, mask: Any, weights: Any) -> Any:
    """In float64, from the words of Keras's documentation."""
    losses = 0.5 * np.sum((h.astype(np.float64) - y) ** 2, axis=-1)
    if axis is None:
        losses = np.sum(losses, axis=1)

    def like_losses(array: Any) -> Any:
        if array is None:
            return np.ones_like(losses)
        if array.size == SAMPLES:
            array = array.reshape((SAMPLES,) + (1,) * (losses.ndim - 1))
        return array * np.ones_like(losses)

    valid, weights = like_losses(mask), like_losses(weights)
    losses = losses * valid * weights
    if reduction in ("none", None):
        return losses
    counted = valid * weights if reduction == "mean_with_sample_weight" else valid
    divisor = 1.0 if reduction == "sum" else np.sum(counted)
    return np.sum(losses) / divisor if divisor else 0.0


@pytest.mark.equation("EQ-RECONSTRUCTION")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_reduction_mask_and_weight(precision: str) -> None:
    y, h = np.random.default_rng(0).uniform(size=(2, SAMPLES, STEPS, FEATURES)).astype(precision)
    with computing_in(precision):
        for axis, reduction, mask, weights in itertools.product(
            (None, -1), REDUCTIONS, MASKS, WEIGHTS
        ):
            w = None if WEIGHTS[weights] is None else WEIGHTS[weights].astype(precision)
            arguments = {"axis": axis, "reduction": reduction, "dtype": precision}
            if axis is None and (mask in ("steps", "nothing") or weights == "steps"):
                with pytest.raises(ValueError, match=r"must be that of the losses.*`axis=-1`"):
                    loss_of(y, h, MASKS[mask], w, **arguments)
                continue
            found = loss_of(y, h, MASKS[mask], w, **arguments)
            assert keras.backend.standardize_dtype(found.dtype) == precision
            expected = expected_loss(y, h, axis, reduction, MASKS[mask], w)
            assert as_numpy(found).shape == np.shape(expected)
            # Sums of at most 60 squares and 12 losses, their factors, and a division.
            roundoff = 2.0**-24 if precision == "float32" else 2.0**-53
            error = np.max(np.abs(as_numpy(found) - expected))
            assert error <= 84 * roundoff * np.max(expected), arguments | {"m": mask, "w": weights}


@pytest.mark.inference
@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1), (4, 3, 5), (2, 2, 1024), (3, 2050)])
def test_the_gradient_is_the_error_times_its_weight(shape: tuple[int, ...], axis: Any) -> None:
    """Of one sample too, and of features in blocks of 1024 with and without a rest."""
    generator = np.random.default_rng(0)
    y, h = generator.uniform(size=(2, *shape)).astype("float32")
    of_samples = np.arange(1, shape[0] + 1, dtype="float32") / 4
    losses = shape[0] if axis is None else math.prod(shape[:-1])
    for reduction, weights in itertools.product(REDUCTIONS[:4], (None, of_samples)):
        weight = np.ones_like(h, dtype=np.float64)
        if weights is not None:
            weight *= weights.reshape(-1, *[1] * (len(shape) - 1))
        divisor = {"sum": 1.0, "mean_with_sample_weight": losses * np.mean(weight)}
        loss = HalfSquaredError(axis=axis, reduction=reduction)
        error = h.astype(np.float64) - y
        by_output = weight * error / divisor.get(reduction, losses)
        value = np.sum(by_output * error) / 2.0
        # A sum of `losses` weights, a division, the weight's product, a difference; the square
        # doubles the last, and a sum has its features in blocks, and their ½.
        of_gradient = (losses + 4) * 2.0**-24
        features = h.size // losses
        of_value = of_gradient + (losses + min(features, 1024) + features // 1024 + 4) * 2.0**-24

        def of(tensor: Any, loss: Any = loss, weights: Any = weights) -> Any:
            return loss(ops.convert_to_tensor(y), tensor, weights)

        h_tensor = ops.convert_to_tensor(h)
        found = float(of(h_tensor))
        assert abs(found - value) <= of_value * value, (reduction, weights)
        if has_gradients():
            _, (gradient,) = value_and_gradients(of, [h_tensor])
            off = np.abs(as_numpy(gradient) - by_output)
            assert np.all(off <= of_gradient * np.abs(by_output)), (reduction, weights)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_is_keras_mse_times_half_the_features(reduction: Any) -> None:
    y, h = np.random.default_rng(0).uniform(size=(2, SAMPLES, STEPS, FEATURES)).astype("float32")
    for mask, weights in itertools.product(("none", "steps", "nothing"), ("none", "steps")):
        given = (y, h, MASKS[mask], WEIGHTS[weights])
        ours = as_numpy(loss_of(*given, axis=-1, reduction=reduction))
        mse = loss_of(*given, kind=keras.losses.MeanSquaredError, reduction=reduction)
        theirs = FEATURES / 2 * as_numpy(mse)
        # As above, on two sides.
        assert np.max(np.abs(ours - theirs)) <= 2 * 84 * 2.0**-24 * np.max(theirs), (mask, weights)


@pytest.mark.inference
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_loss_of_halves_is_computed_in_float32(dtype: str) -> None:
    """Their difference has more digits than they have, and its square may be too large."""
    loss = HalfSquaredError(dtype=dtype)(np.array([[1.0078125]]), np.array([[512.0]]))
    assert float(as_numpy(loss)) == np.float32(0.5 * (512.0 - 1.0078125) ** 2)


def test_weights_of_another_size_are_refused() -> None:
    y = np.ones((4, 3, 5), "float32")
    for axis, weights in ((None, (3,)), (-1, (3,)), (-1, (4, 4)), (-1, (4, 3, 5))):
        with pytest.raises(ValueError, match=r"sample_weight must be that of the losses, \(4,"):
            HalfSquaredError(axis=axis)(y, y, np.ones(weights, "float32"))
    with pytest.raises(ValueError, match="`y_true` must have the shape of `y_pred`"):
        HalfSquaredError()(y[:1], y)


@pytest.mark.parametrize("axis", [None, -1])
def test_images_of_unknown_size(axis: Any) -> None:
    """On TensorFlow the sizes are unknown while the step is traced."""
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(0.5)])
    model.compile("sgd", loss=HalfSquaredError(axis=axis))
    for shape in ((4, 6, 5, 3), (3, 2, 7, 3)):
        x = np.random.default_rng(0).uniform(size=shape).astype("float32")
        found = model.evaluate(x, x, batch_size=4, verbose=0)
        samples = shape[0] if axis is None else shape[0] * shape[1] * shape[2]
        expected = np.sum((x.astype(np.float64) / 2) ** 2) / 2 / samples
        # A sum of at most 360 squares, and the division.
        assert abs(found - expected) <= 400 * 2.0**-24 * expected


@pytest.mark.parametrize("shape", [(1, 10**6), (10**6, 1), (1, 1000, 1000), (3, 12_345)])
def test_a_sum_of_a_million_terms_keeps_its_digits(shape: tuple[int, ...]) -> None:
    h = np.full(shape, 0.1, "float32")
    found = float(HalfSquaredError(reduction="sum")(np.zeros_like(h), h))
    expected = 0.5 * h.size * float(np.float32(0.1)) ** 2
    # A block of 1024 terms at a time, and a thousand blocks; one by one it is 7e-4 on torch.
    assert abs(found - expected) <= 4e-6 * expected


@pytest.mark.inference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight"])
def test_no_samples_lose_nothing(reduction: str, axis: Any, dtype: str) -> None:
    with computing_in(dtype):
        loss = HalfSquaredError(axis=axis, reduction=reduction, dtype=dtype)
        for shape in ((0, 3), (0, 2, 3)):
            y = np.ones(shape, dtype)
            assert float(loss(y, y)) == 0.0
            assert float(loss(y, y, np.ones((0,), dtype))) == 0.0


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_mask_of_a_model_counts(precision: str) -> None:
    """As Keras's layers hand it on, while a step is traced."""
    x = np.random.default_rng(0).uniform(size=(SAMPLES, STEPS, FEATURES)).astype(precision)
    valid = MASKS["steps"]
    x[~valid] = 0.0
    with computing_in(precision):
        model = keras.Sequential(
            [keras.Input((STEPS, FEATURES)), keras.layers.Masking(), keras.layers.Dense(FEATURES)]
        )
        model.compile("sgd", loss=HalfSquaredError(axis=-1, dtype=precision))
        found = model.evaluate(x, x, batch_size=SAMPLES, verbose=0)
        expected = expected_loss(x, model.predict(x, verbose=0), -1, "mean", valid, None)
        # Keras reports in float32; and computes the outputs twice, in sums of 5 terms.
        assert abs(found - expected) <= 200 * 2.0**-24 * expected
