"""A penalty on an inner layer, three ways; `ActivityPenalty`; and losses that Keras would lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    ActivityPenalty,
    KLSparsity,
    KLSparsityRegularizer,
    WeightDecay,
    keras_divides_activity_by_batch,
)
from keras_impl.backends.autodiff import value_and_gradients
from reference.rounding import Arithmetic, exact
from tests.keras_impl.precision import as_numpy, rounded

ROWS, SIDE, CLASSES, UNITS = 6, 6, 4, 3
IMAGES = rounded(np.random.default_rng(0).uniform(size=(ROWS, SIDE, SIDE, 1)), "float32")
LABELS = np.arange(ROWS) % CLASSES
RHO, BETA = 0.1, 3.0


@keras.saving.register_keras_serializable(package="tests")
def mean_square_of_samples(a: Any) -> Any:
    """What Keras from 3.14 on makes of an L2(1) activity regularizer: Σa² divided by the rows."""
    return ops.sum(ops.square(a)) / ops.shape(a)[0]


@keras.saving.register_keras_serializable(package="tests")
def sum_of_squares(a: Any) -> Any:
    return ops.sum(ops.square(a))


def squares_of_each_sample(_: Any, a: Any) -> Any:
    """A loss of a second output: Keras takes the mean over the samples by itself."""
    return ops.sum(ops.square(a), axis=(1, 2, 3))


def sparsity_of_the_output(_: Any, a: Any) -> Any:
    """A loss of a second output that is one number for the batch; Keras leaves it as it is."""
    return KLSparsity(RHO, BETA).penalty(a)


def classifier(way: str, penalty: str, before: bool) -> Any:
    """A small CNN with cross-entropy and a penalty on the output of an inner layer."""
    regularizer: Any = None
    if way == "activity_regularizer":
        undone = 1.0 if keras_divides_activity_by_batch() else 1.0 / ROWS
        regularizer = {
            "squares": keras.regularizers.L2(undone),
            "sparsity": KLSparsityRegularizer(RHO, BETA, from_logits=before),
        }[penalty]
    inputs = keras.Input((SIDE, SIDE, 1))
    kernel = keras.initializers.RandomNormal(stddev=0.5, seed=1)
    z = keras.layers.Conv2D(
        UNITS, 3, kernel_initializer=kernel, activity_regularizer=regularizer if before else None
    )(inputs)
    a = keras.layers.Activation("sigmoid", activity_regularizer=None if before else regularizer)(z)
    inner = z if before else a
    if way == "layer":
        layer: Any = ActivityPenalty(mean_square_of_samples)
        if penalty == "sparsity":
            layer = KLSparsity(RHO, BETA, from_logits=before)
        inner = layer(inner)
        a = keras.layers.Activation("sigmoid")(inner) if before else inner
    flat = keras.layers.Flatten()(a)
    logits = keras.layers.Dense(CLASSES, kernel_initializer=kernel)(flat)
    return keras.Model(inputs, [logits, inner] if way == "output" else logits)


def cost_and_gradients(way: str, penalty: str, before: bool) -> tuple[Any, Any, list[Any]]:
    """The loss that `fit` would minimise, its gradient by each variable, and the inner output."""
    model = classifier(way, penalty, before)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if way == "output":
        second: Any = squares_of_each_sample
        if penalty == "sparsity":
            form = KLSparsity(RHO, BETA, from_logits=before)

            def second(_: Any, inner: Any) -> Any:
                return form.penalty(inner)

        model.compile("sgd", loss=[cross_entropy, second])
    else:
        model.compile("sgd", loss=cross_entropy)
    x = ops.convert_to_tensor(IMAGES.astype("float32"))

    def total(*weights: Any) -> Any:
        outputs, _, losses = model.stateless_call(list(weights), [], x, return_losses=True)
        y: Any = ops.convert_to_tensor(LABELS)
        if way == "output":
            (logits, inner), y_pred = outputs, outputs
            # What Keras's own `compute_loss` does with two outputs.
            assert len(y_pred) == 2
            return cross_entropy(y, logits) + ops.mean(second(None, inner)) + sum(losses)
        return cross_entropy(y, outputs) + sum(losses)

    value, gradients = value_and_gradients(total, [v.value for v in model.trainable_variables])
    # `evaluate` reports the same number.
    labels: Any = LABELS
    if way == "output":
        labels = [LABELS, np.zeros((ROWS, 1), "float32")]
    reported = model.evaluate(IMAGES.astype("float32"), labels, batch_size=ROWS, verbose=0)
    reported = reported[0] if isinstance(reported, list) else reported
    assert abs(reported - float(value)) <= 64 * 2.0**-24 * abs(float(value))
    return float(value), [as_numpy(g) for g in gradients], model


@pytest.mark.keras_eras
@pytest.mark.equation("EQ-SPARSITY", "EQ-KL-LOGITS", "EQ-L2")
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("penalty", ["squares", "sparsity"])
def test_three_ways_give_the_same_cost_and_gradients(penalty: str, before: bool) -> None:
    ways = ("activity_regularizer", "layer", "output")
    found = {way: cost_and_gradients(way, penalty, before) for way in ways}
    _, gradients, model = found["layer"]
    # The penalty alone, by the oracle, from the inner output that the model computes.
    conv = model.layers[1]
    z = as_numpy(conv(ops.convert_to_tensor(IMAGES.astype("float32"))))
    inner = z if before else reference.sigmoid(z)
    if penalty == "sparsity":
        bounded, by_inner = reference.kl_sparsity_with_bounds(
            inner, RHO, BETA, epsilon=1e-6, from_logits=before
        )
        expected, slope = bounded.value, by_inner.value
    else:
        expected, slope = np.sum(inner**2) / ROWS, 2.0 * inner / ROWS
    logits = as_numpy(model(IMAGES.astype("float32")))
    logits = logits - np.max(logits, axis=1, keepdims=True)
    rest = np.mean(np.log(np.sum(np.exp(logits), axis=1)) - logits[np.arange(ROWS), LABELS])
    # Each is a sum over the positions, in any order: positions · u of the sum of magnitudes.
    positions = ROWS * (SIDE - 2) ** 2
    u = 2.0**-24
    slack = (positions * UNITS + 64) * u * (abs(expected) + rest)
    for way in ways:
        assert abs(found[way][0] - (rest + expected)) <= slack, way
    # A kernel's gradient sums over the positions too; every pixel is at most 1. The share of the
    # penalty in the gradient at the inner output is `slope`, that of the classifier at most
    # Σ|Dense kernel| / rows for each position.
    dense = as_numpy(model.trainable_variables[2].value)
    by_position = np.abs(slope).max() + np.abs(dense).sum(axis=1).max() / ROWS
    for i, expected_gradient in enumerate(gradients):
        bound = 2 * (positions + 64) * u * positions * by_position
        for way in ways:
            assert np.max(np.abs(found[way][1][i] - expected_gradient)) <= bound, (way, i)
        # The bound says something: without the penalty the kernel's gradient is another one.
        if i == 0:
            assert np.max(np.abs(expected_gradient)) > 20 * bound


@pytest.mark.keras_eras
@pytest.mark.inference
@pytest.mark.equation("EQ-L2")
@pytest.mark.parametrize("shape", [(1, 3), (5, 4), (2, 3, 4), (2, 3, 3, 2)])
def test_a_sum_of_squares_is_divided_by_nothing(shape: tuple[int, ...]) -> None:
    a = rounded(np.random.default_rng(0).normal(size=shape), "float32")
    layer = ActivityPenalty(keras.regularizers.L2(0.5))
    layer(ops.convert_to_tensor(a, dtype="float32"))
    expected = Arithmetic("float32").sum_of_squares(exact(a))
    # Half of it, exactly.
    used = reference.usage(
        np.array(2.0 * float(layer.losses[0])), reference.Bounded(expected.value, expected.bound)
    )
    assert used.worst <= 1.0


@pytest.mark.equation("EQ-L2")
def test_padded_steps_never_count_in_any_penalty() -> None:
    a = rounded(np.random.default_rng(0).normal(size=(2, 3, 4)), "float32")
    mask = np.array([[True, True, False], [True, False, False]])
    tensor = ops.convert_to_tensor(a, dtype="float32")

    def mean_of_valid(a: Any, mask: Any = None) -> Any:
        weights = ops.expand_dims(ops.cast(mask, a.dtype), -1)
        return ops.sum(a * weights) / ops.sum(weights)

    for function, expected, size in (
        (sum_of_squares, np.sum(a[mask] ** 2), np.sum(a[mask] ** 2)),
        (mean_of_valid, np.sum(a[mask]) / 3, np.sum(np.abs(a[mask])) / 3),
    ):
        layer = ActivityPenalty(function)
        layer(tensor, mask=ops.convert_to_tensor(mask))
        assert abs(float(layer.losses[0]) - expected) <= 32 * 2.0**-24 * size
    # What a padded step holds may be no number; 0 times it would be none either.
    for nothing in (np.inf, np.nan):
        padded = np.where(mask[..., None], a, nothing).astype("float32")
        layer = ActivityPenalty(sum_of_squares)
        layer(padded, mask=ops.convert_to_tensor(mask))
        size = np.sum(a[mask] ** 2)
        assert abs(float(layer.losses[0]) - size) <= 32 * 2.0**-24 * size


def test_the_penalty_of_a_half_is_computed_in_float32() -> None:
    """300² overflows float16."""
    layer = ActivityPenalty("l2", dtype="float16")
    layer(ops.full((4, 4), 300.0, dtype="float16"))
    loss = layer.losses[0]
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = 0.01 * 16 * 300.0**2
    assert abs(float(loss) - expected) <= 24 * 2.0**-24 * expected
    decay = WeightDecay(0.02)(ops.full((4, 4), 300.0, dtype="float16"))
    assert keras.backend.standardize_dtype(decay.dtype) == "float32"
    assert abs(float(decay) - expected) <= 24 * 2.0**-24 * expected


def twice(layer: Any) -> Any:
    """A model that calls one layer on two inner outputs."""
    inputs = keras.Input((4,))
    outputs = [layer(keras.layers.Dense(3, activation="sigmoid")(inputs)) for _ in range(2)]
    return keras.Model(inputs, keras.layers.Add()(outputs))


def stateless_losses(model: Any, x: Any) -> list[float]:
    weights = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    _, _, losses = model.stateless_call(weights, state, x, return_losses=True)
    return [float(loss) for loss in losses]


def test_a_layer_that_is_used_twice_keeps_both_losses() -> None:
    """In a stateless call, which is how JAX trains, Keras 3.15.1 keeps the last of them only."""
    x = ops.convert_to_tensor(np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"))
    for layer in (KLSparsity(0.1, 3.0), ActivityPenalty("l2")):
        model = twice(layer)
        model(x)
        eager = [float(loss) for loss in model.losses]
        assert len(eager) == 2
        for _ in range(3):
            assert stateless_losses(model, x) == eager
    # Keras's own activity regularizer, which no layer of ours can help.
    regularized = keras.layers.Activation("linear", activity_regularizer="l2")
    model = twice(regularized)
    model(x)
    eager = [float(loss) for loss in model.losses]
    assert len(eager) == 2
    assert stateless_losses(model, x) == eager[1:]


def test_a_layer_that_is_used_twice_trains_with_both_losses() -> None:
    x = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
    model = twice(KLSparsity(0.1, 3.0))
    model(x)
    expected = sum(float(loss) for loss in model.losses)
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, h: 0.0 * ops.sum(h, axis=-1))
    reported = model.fit(x, x[:, :3], batch_size=8, verbose=0).history["loss"][0]
    assert abs(reported - expected) <= 16 * 2.0**-24 * expected


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["regularizer", "layer", "running average", "logits", "squares"])
def test_sixteen_bit_policies_train_without_nan(policy: str, kind: str) -> None:
    """Most activations are 0 or 1 in half precision from the start."""
    regularizer, layer, activation = None, None, "sigmoid"
    if kind == "regularizer":
        regularizer = KLSparsityRegularizer(0.05, 3.0)
    elif kind == "logits":
        regularizer, activation = KLSparsityRegularizer(0.05, 3.0, from_logits=True), None
    else:
        layer = {
            "layer": KLSparsity(0.05, 3.0, dtype=policy),
            "running average": KLSparsity(0.05, 3.0, momentum=0.9, dtype=policy),
            "squares": ActivityPenalty("l2", dtype=policy),
        }[kind]
    large = keras.initializers.RandomNormal(stddev=6.0, seed=0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                8,
                activation=activation,
                activity_regularizer=regularizer,
                kernel_initializer=large,
                dtype=policy,
            ),
            *([layer] if layer is not None else []),
            *([keras.layers.Activation("sigmoid", dtype=policy)] if activation is None else []),
            keras.layers.Dense(6, activation="sigmoid", dtype=policy),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), loss=keras.losses.MeanSquaredError())
    # Inputs of both signs: a unit is 1 for about half of the samples and 0 for the others.
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    history = model.fit(x, x, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    assert history[-1] < history[0]
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())


def test_configuration_and_errors(tmp_path: Path) -> None:
    for penalty in ("l2", keras.regularizers.L1L2(0.1, 0.2), sum_of_squares):
        layer = ActivityPenalty(penalty, name="p")
        serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        again = keras.saving.deserialize_keras_object(serialized)
        assert again.get_config() == layer.get_config()
        a = ops.ones((2, 3))
        again(a)
        layer(a)
        assert float(again.losses[0]) == float(layer.losses[0])
    with pytest.raises(ValueError, match=r"must not be a KLSparsityRegularizer.*use KLSparsity"):
        ActivityPenalty(KLSparsityRegularizer())
    with pytest.raises(TypeError, match=r"`penalty` must be a function.*None"):
        ActivityPenalty(None)
    with pytest.raises(ValueError, match="Could not interpret regularizer identifier"):
        ActivityPenalty("no such penalty")
