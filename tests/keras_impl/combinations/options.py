"""What Keras lets people ask of `fit`, `compile`, data, models and precision: one entry each."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from reference.rounding import Bounded
from tests.keras_impl.combinations.cells import RATE, ROWS, Case, NotApplicableError, Option
from tests.keras_impl.combinations.oracle import Expected, sum_of
from tests.keras_impl.combinations.subjects import FEATURES

OPTIONS: list[Option] = []
HALF = ROWS // 2
HALVES = (slice(0, HALF), slice(HALF, ROWS))
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 1.5, 0.25, 3.0])
NO_TARGETS = "A loss or a metric of Keras needs targets."
NO_MASK = "No mask reaches an activity regularizer."
FEWER_AXES = NO_MASK + " Losses take a mask that lacks the last axis, and no shorter one."
FLOAT32 = "Keras computes in float32 in part: `Dense` on torch, the mean over a mask on JAX."
MATRICES = {"SparseAutoencoder": r"takes input of shape \(samples, features\)"}


def option(
    name: str, **arguments: Any
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def listed(run: Callable[[Case], None]) -> Callable[[Case], None]:
        OPTIONS.append(Option(name, run, **arguments))
        return run

    return listed


def only_for_a_model(case: Case) -> None:
    if not case.subject.is_model:
        raise NotApplicableError(NO_TARGETS)


def not_for_a_running_average(case: Case) -> None:
    if "momentum" in case.subject.name:
        raise NotApplicableError("batches change the average: test_penalty_against_oracle.py")


# --- `fit` and `compile` ----------------------------------------------------------------------


@option("fit(x, y)")
def plain(case: Case) -> None:
    case.hold(case.fit())


@option(
    "fit(x)",
    keras_fails=NO_TARGETS,
    own=("SparseAutoencoder",),
    refused={"HalfSquaredError": "`y_true` must be a tensor or an array of numbers"},
)
def without_targets(case: Case) -> None:
    case.y = case.x
    case.hold(case.fit(case.inputs))


@option("sample_weight")
def sample_weight(case: Case) -> None:
    history = case.fit(sample_weight=WEIGHTS.astype("float32"))
    case.hold(history, case.expected(weights=WEIGHTS))


@option("fit(x, sample_weight=w)", own=("SparseAutoencoder",))
def sample_weight_without_targets(case: Case) -> None:
    only_for_a_model(case)
    case.y = case.x
    history = case.fit(case.inputs, sample_weight=WEIGHTS.astype("float32"))
    case.hold(history, case.expected(weights=WEIGHTS))


@option("class_weight", refused={"SparseAutoencoder": "`class_weight` weighs classes"})
def class_weight(case: Case) -> None:
    by_class = {0: 2.0, 1: 0.5}
    weights = [by_class[int(label)] for label in np.argmax(case.y, axis=1)]
    case.hold(case.fit(class_weight=by_class), case.expected(weights=weights))


@option("validation_data")
def validation_data(case: Case) -> None:
    x, y = case.x[:HALF] / 2, case.y[:HALF]
    history = case.fit(validation_data=(x.astype("float32"), y.astype("float32")))
    case.hold(history)
    case.hold_validation(
        history["val_loss"][0], case.expected().step(case.parameters, RATE), x=x, y=y
    )


@option("validation_data with sample_weight")
def weighted_validation_data(case: Case) -> None:
    data = tuple(a.astype("float32") for a in (case.x, case.y, WEIGHTS))
    history = case.fit(validation_data=data, validation_freq=1, validation_steps=1)
    case.hold(history)
    reached = case.expected().step(case.parameters, RATE)
    case.hold_validation(history["val_loss"][0], reached, weights=WEIGHTS)


@option("validation_split, validation_batch_size")
def validation_split(case: Case) -> None:
    history = case.fit(validation_split=0.5, validation_batch_size=HALF)
    expected = case.expected(HALVES[0])
    case.hold_loss(history["loss"][0], expected.cost)
    reached = expected.step(case.parameters, RATE)
    case.hold_parameters(reached)
    if "momentum" not in case.subject.name:
        case.hold_validation(history["val_loss"][0], reached, rows=HALVES[1])


@option("metrics")
def metrics(case: Case) -> None:
    history = case.fit(compile={"metrics": ["mse"]})
    case.hold(history)
    hold_metric(case, history, case.expected(beta=0.0, weight_decay=0.0).cost)


@option("metrics, fit(x)", own=("SparseAutoencoder",))
def metrics_without_targets(case: Case) -> None:
    only_for_a_model(case)
    case.y = case.x
    history = case.fit(case.inputs, compile={"metrics": ["mse"]})
    case.hold(history)
    hold_metric(case, history, case.expected(beta=0.0, weight_decay=0.0).cost)


@option("weighted_metrics")
def weighted_metrics(case: Case) -> None:
    history = case.fit(
        compile={"weighted_metrics": ["mse"]}, sample_weight=WEIGHTS.astype("float32")
    )
    unpenalised = {"beta": 0.0, "weight_decay": 0.0, "weights": WEIGHTS}
    case.hold(history, case.expected(weights=WEIGHTS))
    # Keras divides a weighted metric by the sum of the weights.
    mean = float(np.mean(WEIGHTS))
    cost = case.expected(**unpenalised).cost
    hold_metric(case, history, Bounded(cost.value / mean, cost.bound / mean))


def hold_metric(case: Case, history: dict[str, list[float]], cost: Bounded) -> None:
    name = next(key for key in history if key in ("mse", "mean_squared_error"))
    case.hold_loss(history[name][0], cost, "the metric")


@option("loss_weights", refused={"SparseAutoencoder": "`loss_weights`"})
def loss_weights(case: Case) -> None:
    history = case.fit(compile={"loss_weights": 0.25})
    case.hold(history, case.expected(weights=np.full(ROWS, 0.25)))


@option("run_eagerly")
def run_eagerly(case: Case) -> None:
    case.hold(case.fit(compile={"run_eagerly": True}))


@option("jit_compile=False", compiled=("tensorflow",))
def graph(case: Case) -> None:
    case.hold(case.fit(compile={"jit_compile": False}))


@option("jit_compile=True", compiled=("jax", "tensorflow"), slow=("torch",))
def jit(case: Case) -> None:
    case.hold(case.fit(compile={"jit_compile": True}))


@option("auto_scale_loss=False")
def unscaled(case: Case) -> None:
    case.hold(case.fit(compile={"auto_scale_loss": False}))


def hold_two_steps(case: Case, losses: Any, batches: tuple[slice, slice]) -> None:
    """Two steps of descent; the loss reported is the mean over the rows, or one of each step."""
    not_for_a_running_average(case)
    parameters, costs = case.parameters, []
    for rows in batches:
        expected = case.expected(rows, parameters=parameters)
        costs.append(expected)
        parameters = expected.step(parameters, RATE)
    case.hold_parameters(parameters)
    if np.ndim(losses):
        for loss, expected in zip(losses, costs, strict=True):
            case.hold_loss(loss, expected.cost)
    else:
        sizes = [len(case.x[rows]) for rows in batches]
        share = [size / sum(sizes) for size in sizes]
        case.hold_loss(losses, sum_of([s * e for s, e in zip(share, costs, strict=True)]).cost)


@option("batch_size, the last batch smaller")
def uneven_batches(case: Case) -> None:
    case.x, case.y = case.x[: HALF + 1], case.y[: HALF + 1]
    history = case.fit(batch_size=HALF)
    hold_two_steps(case, history["loss"][0], (HALVES[0], slice(HALF, HALF + 1)))


@option("epochs")
def epochs(case: Case) -> None:
    hold_two_steps(case, case.fit(epochs=2)["loss"], (slice(None), slice(None)))


@option("initial_epoch, callbacks, shuffle")
def later_epoch(case: Case) -> None:
    seen: list[Any] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda *event: seen.append(event))
    case.hold(case.fit(initial_epoch=1, epochs=2, shuffle=True, callbacks=[callback]))
    assert [epoch for epoch, _ in seen] == [1]


@option(
    "steps_per_execution", keras_fails="Keras allows 1 on torch.", compiled=("jax", "tensorflow")
)
def steps_per_execution(case: Case) -> None:
    history = case.fit(batch_size=HALF, compile={"steps_per_execution": 2})
    hold_two_steps(case, history["loss"][0], HALVES)


@option("gradient accumulation")
def gradient_accumulation(case: Case) -> None:
    not_for_a_running_average(case)
    case.optimizer = {"gradient_accumulation_steps": 2}
    history = case.fit(batch_size=HALF)
    mean = sum_of([0.5 * case.expected(rows) for rows in HALVES])
    case.hold_loss(history["loss"][0], mean.cost)
    case.hold_parameters(mean.step(case.parameters, RATE))


@option("EMA of the weights")
def moving_average(case: Case) -> None:
    not_for_a_running_average(case)
    case.optimizer = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 1}
    history = case.fit(epochs=2)
    first = case.expected()
    case.hold_loss(history["loss"][0], first.cost)
    reached = first.step(case.parameters, RATE)
    # The first average is the weights; then the mean of where they were and were led: half a step.
    second = case.expected(parameters=reached)
    case.hold_loss(history["loss"][1], second.cost)
    case.hold_parameters(second.step(reached, RATE / 2))


@option("loss_scale_factor")
def loss_scale(case: Case) -> None:
    case.optimizer = {"loss_scale_factor": 8.0}
    case.hold(case.fit())


# --- Data -------------------------------------------------------------------------------------


def whole_numbers(case: Case, dtype: str) -> None:
    case.x = np.random.default_rng(1).integers(0, 2, size=case.x.shape).astype(np.float64)
    case.hold(case.fit(case.x.astype(dtype), case.targets))


@option("integer input", compiled=("tensorflow",))
def integers(case: Case) -> None:
    whole_numbers(case, "int32")


@option("uint8 input and targets")
def bytes_(case: Case) -> None:
    case.x = np.random.default_rng(1).integers(0, 4, size=case.x.shape).astype(np.float64)
    case.y = case.x[::-1].copy()
    case.hold(case.fit(case.x.astype("uint8"), case.y.astype("uint8")))


@option("bool input", compiled=("tensorflow",))
def booleans(case: Case) -> None:
    whole_numbers(case, "bool")


@option("integer input, fit(x)", own=("SparseAutoencoder",))
def integers_without_targets(case: Case) -> None:
    only_for_a_model(case)
    case.x = np.random.default_rng(1).integers(0, 2, size=case.x.shape).astype(np.float64)
    case.y = case.x
    case.hold(case.fit(case.x.astype("int64")))


@option("float64 arrays")
def doubles(case: Case) -> None:
    case.hold(case.fit(case.x, case.y))


@option("float16 arrays")
def halves(case: Case) -> None:
    case.x, case.y = (a.astype(np.float16).astype(np.float64) for a in (case.x, case.y))
    case.hold(case.fit(case.x.astype(np.float16), case.y.astype(np.float16)))


@option("one row")
def one_row(case: Case) -> None:
    case.x, case.y = case.x[:1], case.y[:1]
    case.hold(case.fit())


def some_squares(y: Any, h: Any) -> Any:
    return 0.5 * ops.sum(ops.square(h - y))


@option("no rows, train_on_batch", compiled=("tensorflow",))
def no_rows(case: Case) -> None:
    """Only the weights decay. The loss that Keras reports is a mean over no rows."""
    # Of Keras's own losses most fail here.
    case.compile(**({} if case.subject.is_model or case.subject.loss else {"loss": some_squares}))
    case.model.train_on_batch(case.inputs[:0], case.targets[:0])
    case.loss_is_held = True
    case.hold_parameters(case.expected(slice(0)).step(case.parameters, RATE))


@option("no rows, a loop of one's own")
def no_rows_in_own_loop(case: Case) -> None:
    loss_of = case.subject.loss() if case.subject.loss else some_squares
    case.x, case.y = case.x[:0], case.y[:0]
    case.hold({"loss": [one_own_step(case, loss_of)]})


@option("no rows, predict")
def predict_no_rows(case: Case) -> None:
    case.take(case.network())
    output = ops.convert_to_numpy(case.model(case.inputs[:0]))
    case.x = case.x[:0]
    assert output.shape == (0, FEATURES)
    case.hold_output(output)


@option("tf.data")
def tf_data(case: Case) -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((case.inputs, case.targets)).batch(ROWS)
    case.hold(case.fit(data))


@option("tf.data, steps_per_epoch")
def endless_tf_data(case: Case) -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((case.inputs, case.targets)).batch(ROWS).repeat()
    case.hold(case.fit(data, steps_per_epoch=1))


@option("PyDataset")
def py_dataset(case: Case) -> None:
    inputs, targets = case.inputs, case.targets

    class Rows(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return inputs, targets

    case.hold(case.fit(Rows()))


@option("torch DataLoader")
def data_loader(case: Case) -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(case.inputs), torch.tensor(case.targets))
    case.hold(case.fit(torch.utils.data.DataLoader(data, batch_size=ROWS)))


@option("generator")
def generator(case: Case) -> None:
    def batches() -> Iterator[Any]:
        while True:
            yield case.inputs, case.targets

    case.hold(case.fit(batches(), steps_per_epoch=1))


@option("generator of (x, y, sample_weight)")
def weighted_generator(case: Case) -> None:
    def batches() -> Iterator[Any]:
        while True:
            yield case.inputs, case.targets, WEIGHTS.astype("float32")

    history = case.fit(batches(), steps_per_epoch=1)
    case.hold(history, case.expected(weights=WEIGHTS))


# --- Shapes and masks -------------------------------------------------------------------------


def reshape(case: Case, *shape: int) -> None:
    case.x, case.y = case.x.reshape(*shape, FEATURES), case.y.reshape(*shape, FEATURES)


@option("known batch size")
def known_batch(case: Case) -> None:
    layers = case.layers()
    inputs = keras.Input(batch_shape=(ROWS, FEATURES))
    case.take(keras.Model(inputs, keras.Sequential(layers)(inputs)))
    case.hold(case.fit())


@option("sequences", refused=MATRICES)
def sequences(case: Case) -> None:
    reshape(case, 2, 4)
    case.take(case.network((4, FEATURES)))
    case.hold(case.fit())


@option("sequences of unknown length", refused=MATRICES, compiled=("tensorflow",))
def unknown_length(case: Case) -> None:
    reshape(case, 2, 4)
    case.take(case.network((None, FEATURES)))
    case.hold(case.fit())


@option("images of unknown size", refused=MATRICES, compiled=("tensorflow",))
def unknown_size(case: Case) -> None:
    reshape(case, 2, 2, 2)
    case.take(case.network((None, None, FEATURES)))
    case.hold(case.fit())


@option("images of unknown size, each one sample", compiled=("tensorflow",))
def unknown_size_of_samples(case: Case) -> None:
    if case.subject.loss is None:
        raise NotApplicableError("for a loss")
    reshape(case, 2, 2, 2)
    case.take(case.network((None, None, FEATURES)))
    history = case.fit(compile={"loss": case.subject.loss()})
    case.hold(history, case.expected(weights=np.full(ROWS, 4.0)))


@keras.saving.register_keras_serializable(package="tests")
class ValidSteps(keras.layers.Layer):
    """Masks the steps, axis 1, that hold −1 everywhere: a mask of (samples, steps)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return ops.any(ops.not_equal(inputs, -1.0), axis=tuple(range(2, len(inputs.shape))))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="tests")
class Unmasked(ValidSteps):
    """Ends a mask."""

    def call(self, inputs: Any) -> Any:
        return 1.0 * inputs  # another tensor, which carries none

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return None


def valid_steps(case: Case) -> Any:
    """Mask two steps of the data; where the others are."""
    case.x[0, -1] = case.x[1, 0] = -1.0
    return np.any(case.x != -1.0, axis=tuple(range(2, case.x.ndim)))


def masked(case: Case, *shape: int) -> None:
    """Train on steps of which some are masked."""
    reshape(case, *shape)
    valid = valid_steps(case)
    case.take(keras.Sequential([keras.Input(case.x.shape[1:]), ValidSteps(), *case.layers()]))
    case.hold(case.fit(), case.expected(x=case.x[valid], y=case.y[valid]))


def masked_before_the_loss(case: Case, *shape: int) -> None:
    """The same where Keras's own losses misread the mask: it ends before them."""
    if case.subject.loss is not None:
        masked(case, *shape)
        return
    reshape(case, *shape)
    valid = valid_steps(case)
    layers = [ValidSteps(), *case.layers(), Unmasked()]
    case.take(keras.Sequential([keras.Input(case.x.shape[1:]), *layers]))
    of_valid = {"x": case.x[valid], "y": case.y[valid]}
    both, alone = case.expected(**of_valid), case.expected(**of_valid, beta=0.0)
    case.hold(case.fit(), case.expected(beta=0.0) + both + (-1.0) * alone)


@option("mask", keras_fails=NO_MASK, refused=MATRICES, compiled=("tensorflow",))
def mask(case: Case) -> None:
    masked(case, 2, 4)


@option("mask of fewer axes", keras_fails=FEWER_AXES, refused=MATRICES, compiled=("tensorflow",))
def mask_of_fewer_axes(case: Case) -> None:
    masked_before_the_loss(case, 2, 2, 2)


@option("mask of fewer axes, sizes that differ", keras_fails=FEWER_AXES, refused=MATRICES)
def mask_of_fewer_axes_of_other_sizes(case: Case) -> None:
    case.x, case.y = np.tile(case.x, (3, 1)), np.tile(case.y[::-1], (3, 1))
    masked_before_the_loss(case, 4, 3, 2)


@option("mask of everything", keras_fails=NO_MASK, refused=MATRICES)
def mask_of_everything(case: Case) -> None:
    """Nothing is reconstructed and nothing is active."""
    reshape(case, 2, 4)
    case.x[:] = -1.0
    case.take(keras.Sequential([keras.Input((4, FEATURES)), ValidSteps(), *case.layers()]))
    history = case.fit()
    case.hold(history, case.expected(x=case.x[:0], y=case.y[:0]))


@option("mask, sample_weight of steps", keras_fails=NO_MASK, refused=MATRICES)
def mask_and_weights(case: Case) -> None:
    reshape(case, 2, 4)
    valid = valid_steps(case)
    case.take(keras.Sequential([keras.Input((4, FEATURES)), ValidSteps(), *case.layers()]))
    weights = WEIGHTS.reshape(2, 4)
    history = case.fit(sample_weight=weights.astype("float32"))
    case.hold(history, case.expected(x=case.x[valid], y=case.y[valid], weights=weights[valid]))


@option("mask, float64", keras_fails=FLOAT32 + " " + NO_MASK, precision="float64", refused=MATRICES)
def mask_in_float64(case: Case) -> None:
    masked(case, 2, 4)


# --- Models -----------------------------------------------------------------------------------


def chained(layers: list[Any], tensor: Any) -> Any:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


@option("functional model")
def functional(case: Case) -> None:
    inputs = keras.Input((FEATURES,))
    case.take(keras.Model(inputs, chained(case.layers(), inputs)))
    case.hold(case.fit())


@option("Sequential without an Input")
def sequential(case: Case) -> None:
    model = keras.Sequential(case.layers())
    model(case.inputs)
    case.take(model)
    case.hold(case.fit())


@option("subclassed model")
def subclassed(case: Case) -> None:
    class Network(keras.Model):
        def __init__(self, layers: list[Any]) -> None:
            super().__init__()
            self.inner = layers

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            # On JAX Keras does not hand `training` down by itself: BatchNormalization stands still.
            for layer in self.inner:
                takes = "training" in inspect.signature(layer.call).parameters
                inputs = layer(inputs, **({"training": training} if takes else {}))
            return inputs

    model = Network(case.layers())
    model(case.inputs)
    case.take(model)
    case.hold(case.fit())


@option("nested model")
def nested(case: Case) -> None:
    inner = case.network()
    inputs = keras.Input((FEATURES,))
    case.take(keras.Model(inputs, inner(inputs)))
    case.hold(case.fit())


@option(
    "used twice", keras_fails="On JAX the last loss alone is left of a layer that is called twice."
)
def shared(case: Case) -> None:
    not_for_a_running_average(case)
    layers = case.layers()
    inputs = [keras.Input((FEATURES,)), keras.Input((FEATURES,))]
    case.take(keras.Model(inputs, [chained(layers, tensor) for tensor in inputs]))
    halves = [(case.x[rows], case.y[rows]) for rows in HALVES]
    x, y = ([part.astype("float32") for part in parts] for parts in zip(*halves, strict=True))
    history = case.fit(x, y, compile={"loss": [case.loss(), case.loss()]}, batch_size=HALF)
    history.pop("sparsity", None)
    # Each kernel decays once.
    case.hold(history, case.expected(HALVES[0]) + case.expected(HALVES[1], weight_decay=0.0))


@option("two inputs")
def two_inputs(case: Case) -> None:
    inputs = [keras.Input((1,)), keras.Input((1,))]
    joined = keras.layers.Concatenate()(inputs)
    case.take(keras.Model(inputs, chained(case.layers(), joined)))
    case.hold(case.fit([case.inputs[:, :1], case.inputs[:, 1:]], case.targets))


@option("two outputs")
def two_outputs(case: Case) -> None:
    inputs = keras.Input((FEATURES,))
    output = chained(case.layers(), inputs)
    case.take(keras.Model(inputs, [output, keras.layers.Activation("linear")(output)]))
    other = case.y[::-1].copy()
    history = case.fit(
        case.inputs,
        [case.targets, other.astype("float32")],
        compile={"loss": [case.loss(), case.loss()]},
    )
    case.hold(history, case.expected() + case.expected(y=other, beta=0.0, weight_decay=0.0))


@option(
    "TimeDistributed",
    keras_fails="The inner `call` is run for each step: it adds the loss of one step, and no "
    "activity regularizer is run.",
    refused=dict.fromkeys(
        (
            "SparseAutoencoder",
            "KLSparsity",
            "KLSparsity, from_logits",
            "KLSparsity, momentum",
            "ActivityPenalty",
        ),
        "TimeDistributed",
    ),
)
def time_distributed(case: Case) -> None:
    reshape(case, 2, 4)
    layers = [keras.layers.TimeDistributed(layer) for layer in case.layers()]
    case.take(keras.Sequential([keras.Input((4, FEATURES)), *layers]))
    case.hold(case.fit())


@option(
    "after SimpleRNN",
    keras_fails="SimpleRNN leaves its activity regularizer out.",
    refused={"DenseTied": "`tied_to` must be a layer with a kernel"},
)
def recurrent(case: Case) -> None:
    """A recurrent kernel of zeros: each step is a dense layer, in value and in gradient."""
    if case.subject.is_model:
        raise NotApplicableError("a whole model")

    def rnn(units: int, **arguments: Any) -> Any:
        return keras.layers.SimpleRNN(
            units, return_sequences=True, recurrent_initializer="zeros", **arguments
        )

    reshape(case, 2, 4)
    case.take(case.network((4, FEATURES), encoder_class=rnn))
    case.hold(case.fit())


@option("frozen encoder")
def frozen_encoder(case: Case) -> None:
    case.take(case.network())
    for variable in (case.kernels[0], case.biases[0]):
        variable.trainable = False
    history = case.fit()
    expected = case.expected()
    # Keras does not count the decay of what does not train.
    decay = case.subject.terms["weight_decay"] / 2 * np.sum(case.parameters.kernels[0] ** 2)
    expected = Expected(
        expected.arithmetic,
        Bounded(expected.cost.value - decay, expected.cost.bound),
        tuple(
            Bounded(0.0 * g.value, 0.0 * g.bound) if i in (0, len(case.kernels)) else g
            for i, g in enumerate(expected.gradient)
        ),
    )
    case.hold(history, expected)


@option("constraints")
def constraints(case: Case) -> None:
    case.take(case.network())
    for kernel in case.kernels:
        kernel.constraint = keras.constraints.NonNeg()
    history = case.fit()
    expected = case.expected()
    case.hold_loss(history["loss"][0], expected.cost)
    reached = expected.step(case.parameters, RATE)
    kernels = tuple(Bounded(np.maximum(k.value, 0.0), k.bound) for k in reached.kernels)
    case.hold_parameters(type(reached)(kernels, reached.biases, reached.tied))


def copied(case: Case, copy_of: Callable[[Any], Any]) -> None:
    model = case.network()
    again = copy_of(model)
    if not again.built:
        again.build((None, FEATURES))
    again.set_weights(model.get_weights())
    case.take(again)
    case.hold(case.fit())


@option("clone_model")
def clone(case: Case) -> None:
    copied(case, keras.models.clone_model)


@option("deepcopy")
def deep_copy(case: Case) -> None:
    copied(case, copy.deepcopy)


@option("saved and loaded, compiled")
def saved(case: Case) -> None:
    model = case.compile()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        again = keras.models.load_model(path)
    case.take(again)
    # As it was compiled, and not compiled anew.
    history = again.fit(
        case.inputs, case.targets, batch_size=ROWS, shuffle=False, verbose=0
    ).history
    case.hold(history)


@option("export", slow=("jax", "tensorflow"))
def export(case: Case) -> None:
    case.take(case.network())
    if keras.config.backend() == "torch":
        raise NotApplicableError("tests/keras_impl/test_serialization.py")
    case.model(case.inputs)
    with tempfile.TemporaryDirectory() as folder:
        case.model.export(folder, verbose=False)
        import tensorflow as tf

        loaded = tf.saved_model.load(folder)  # whose variables die with it
        output = loaded.serve(case.inputs)
    case.hold_output(np.asarray(output))


@option(
    "quantize int8",
    slow=("jax", "tensorflow", "torch"),
    refused={"SparseAutoencoder": "SparseAutoencoder cannot be quantized"},
)
def quantize(case: Case) -> None:
    case.take(case.network())
    inputs = case.inputs
    case.model(inputs)
    case.model.quantize("int8")
    # Inputs and kernels to 1/254 of their largest: of K products, and a sigmoid of slope ¼.
    slack = 0.0
    for kernel, a in zip(case.parameters.layer_kernels, (np.max(np.abs(case.x)), 1.0), strict=True):
        k = np.max(np.abs(kernel))
        slack = 0.25 * len(kernel) * (a * k / 127 * 1.01 + k * slack)
    case.hold_output(ops.convert_to_numpy(case.model(inputs)), slack)


# --- Precision --------------------------------------------------------------------------------


@option("mixed_float16", precision="float16")
def mixed_float16(case: Case) -> None:
    case.hold(case.fit())


@option("mixed_bfloat16", precision="bfloat16")
def mixed_bfloat16(case: Case) -> None:
    case.hold(case.fit())


@option("float64", keras_fails=FLOAT32, precision="float64")
def float64(case: Case) -> None:
    case.hold(case.fit())


# --- Other loops ------------------------------------------------------------------------------


@option("train_on_batch")
def train_on_batch(case: Case) -> None:
    case.compile()
    found = case.model.train_on_batch(case.inputs, case.targets, return_dict=True)
    case.hold({name: [float(value)] for name, value in found.items()})


@option("train_on_batch, sample_weight")
def weighted_train_on_batch(case: Case) -> None:
    case.compile()
    loss = case.model.train_on_batch(
        case.inputs, case.targets, sample_weight=WEIGHTS.astype("float32"), return_dict=True
    )["loss"]
    case.hold({"loss": [float(loss)]}, case.expected(weights=WEIGHTS))


def hold_inference(case: Case, loss: Any) -> None:
    # A running average that has seen nothing costs nothing.
    seen = {"beta": 0.0} if "momentum" in case.subject.name else {}
    case.hold_loss(loss, case.expected(**seen).cost)
    case.hold_untrained()


@option("evaluate")
def evaluate(case: Case) -> None:
    case.compile()
    found = case.model.evaluate(
        case.inputs, case.targets, batch_size=ROWS, verbose=0, return_dict=True
    )
    hold_inference(case, found["loss"])


@option("test_on_batch")
def test_on_batch(case: Case) -> None:
    case.compile()
    found = case.model.test_on_batch(case.inputs, case.targets, return_dict=True)
    hold_inference(case, found["loss"])


test_on_batch.__test__ = False  # type: ignore[attr-defined]


@option("predict")
def predict(case: Case) -> None:
    case.compile()
    case.hold_output(case.model.predict(case.inputs, verbose=0))


@option("a loop of one's own")
def own_loop(case: Case) -> None:
    loss_of = case.subject.loss() if case.subject.loss else keras.losses.MeanSquaredError()
    case.hold({"loss": [one_own_step(case, loss_of)]})


def one_own_step(case: Case, loss_of: Callable[[Any, Any], Any]) -> float:
    """`stateless_call`, GradientTape or backward, as the guides of Keras write them."""
    case.take(case.network())
    model, optimizer = case.model, keras.optimizers.SGD(RATE)
    x, y = ops.convert_to_tensor(case.inputs), ops.convert_to_tensor(case.targets)
    if keras.config.backend() == "jax":
        import jax

        optimizer.build(model.trainable_variables)

        def cost(trainable: Any, state: Any) -> Any:
            h, state, losses = model.stateless_call(
                trainable, state, x, training=True, return_losses=True
            )
            return loss_of(y, h) + sum(losses), state

        trainable = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        (loss, _), gradients = jax.value_and_grad(cost, has_aux=True)(trainable, state)
        trainable, _ = optimizer.stateless_apply(
            [v.value for v in optimizer.variables], gradients, trainable
        )
        for variable, value in zip(model.trainable_variables, trainable, strict=True):
            variable.assign(value)
    elif keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            h = model(x, training=True)
            loss = loss_of(y, h) + sum(model.losses)
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    else:
        h = model(x, training=True)
        loss = loss_of(y, h) + sum(model.losses)
        model.zero_grad()
        loss.backward()
        optimizer.apply([v.value.grad for v in model.trainable_weights], model.trainable_weights)
    return float(ops.convert_to_numpy(loss))


@option(
    "checkpointed (RematScope)",
    keras_fails="A loss added inside leaks a tracer on JAX, and has no gradient on TensorFlow.",
)
def rematerialised(case: Case) -> None:
    with keras.RematScope(mode="full"):
        case.take(case.network())
        case.hold(case.fit())


# --- The arguments of Keras, and the option that is about each --------------------------------

ARGUMENTS = {
    "fit": {
        "x": "fit(x)",
        "y": "fit(x, y)",
        "batch_size": "batch_size, the last batch smaller",
        "epochs": "epochs",
        "verbose": "",  # what is printed
        "callbacks": "initial_epoch, callbacks, shuffle",
        "validation_split": "validation_split, validation_batch_size",
        "validation_data": "validation_data",
        "shuffle": "initial_epoch, callbacks, shuffle",
        "class_weight": "class_weight",
        "sample_weight": "sample_weight",
        "initial_epoch": "initial_epoch, callbacks, shuffle",
        "steps_per_epoch": "tf.data, steps_per_epoch",
        "validation_steps": "validation_data with sample_weight",
        "validation_batch_size": "validation_split, validation_batch_size",
        "validation_freq": "validation_data with sample_weight",
    },
    "compile": {
        "optimizer": "fit(x, y)",
        "loss": "fit(x, y)",
        "loss_weights": "loss_weights",
        "metrics": "metrics",
        "weighted_metrics": "weighted_metrics",
        "run_eagerly": "run_eagerly",
        "steps_per_execution": "steps_per_execution",
        "jit_compile": "jit_compile=True",
        "auto_scale_loss": "auto_scale_loss=False",
    },
}
