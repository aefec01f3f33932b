"""Probes of Keras: what we lean on that no documentation promises, and what to do if it breaks.

Each docstring says in one sentence what to do in `keras_impl/backends/keras_internals.py` when a
release of Keras makes the test fail. A test of a workaround shows the fault of Keras in six lines:
where that part fails, Keras is mended, and the workaround can go.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_impl import ActivityPenalty, KLSparsity, KLSparsityRegularizer, WeightDecay
from keras_impl.backends.keras_internals import (
    inputs_in_graph,
    inside_train_step,
    is_weight,
    layer_being_called,
    layers_before,
    layers_of,
    layers_without_their_activity_regularizer,
    losses_kept,
    mask_of,
    masked,
    write_state_back,
)


def stateless_losses(model: Any, x: Any) -> list[float]:
    weights = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    return [float(loss) for loss in model.stateless_call(weights, state, x, return_losses=True)[2]]


def twice(layer: Any) -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(layer(inputs)))


def test_keras_forgets_a_loss_of_a_layer_that_is_called_twice() -> None:
    """If the first assertion fails: `LayerThatKeepsItsLosses` can become a plain layer."""
    x = ops.ones((2, 4))
    kept_by_keras = twice(keras.layers.Activation("linear", activity_regularizer="l2"))
    assert len(stateless_losses(kept_by_keras, x)) == 1
    for _ in range(3):
        assert len(stateless_losses(twice(ActivityPenalty("l2")), x)) == 2


def test_losses_of_a_scope_that_is_over_are_let_go() -> None:
    """If it fails: `_clear_losses` or `_loss_ids` has another name or meaning in this Keras."""
    layer = ActivityPenalty("l2")
    model = keras.Sequential([keras.Input((4,)), layer])
    for rows in (2, 3, 2):
        assert stateless_losses(model, ops.ones((rows, 4))) == pytest.approx([0.04 * rows])
    assert layer._scope_of_losses() is None
    model(ops.ones((2, 4)))
    assert len(model.losses) == 1


@pytest.mark.only_backends("jax")
def test_no_tracer_is_kept() -> None:
    """If it fails: something in `LayerThatKeepsItsLosses` outlives the call that JAX traces."""
    import jax

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), KLSparsity(), KLSparsity()])
    weights = [v.value for v in model.trainable_variables]

    def total(weights: Any, x: Any) -> Any:
        return sum(model.stateless_call(weights, [], x, return_losses=True)[2])

    with jax.checking_leaks():
        assert float(jax.jit(total)(weights, np.ones((2, 4), "float32"))) != 0.0


@pytest.mark.inference
def test_a_regularizer_is_told_weights_from_outputs() -> None:
    """If it fails: `is_weight` must learn what `_get_regularization_losses` hands over now."""
    seen: list[bool] = []

    @keras.saving.register_keras_serializable(package="tests")
    class Asks(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            seen.append(is_weight(x))
            return ops.sum(x)

    kernel = keras.layers.Dense(3, kernel_regularizer=Asks(), bias_regularizer=Asks())
    output = keras.layers.Activation("linear", activity_regularizer=Asks())
    model = keras.Sequential([keras.Input((4,)), kernel])
    x = ops.ones((2, 4))
    model(x)
    assert len(model.losses) == 2
    stateless_losses(model, x)
    assert seen
    assert all(seen)
    seen.clear()
    output(x)
    stateless_losses(keras.Sequential([keras.Input((4,)), output]), x)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("place", ["kernel_regularizer", "bias_regularizer", "embeddings"])
def test_a_sparsity_of_weights_is_refused(place: str) -> None:
    penalty = KLSparsityRegularizer()
    layer: Any = keras.layers.Embedding(5, 4, embeddings_regularizer=penalty)
    x = np.ones((2, 4), "float32")
    if place != "embeddings":
        layer = keras.layers.Dense(4, kernel_initializer="ones", **{place: penalty})
    refused = r"KLSparsityRegularizer is for the output of a layer.*Received a weight of shape"
    layer(x)
    with pytest.raises(ValueError, match=refused):
        assert layer.losses
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=refused):
        model.fit(x, layer(x), verbose=0)
    # The decay of a weight is no sparsity.
    keras.layers.Dense(3, kernel_regularizer=WeightDecay(0.5))(x)


def of_one_step(inner: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), inner])


@pytest.mark.inference
def test_time_distributed_drops_and_multiplies_what_its_layer_adds() -> None:
    """If a first assertion fails: `TimeDistributed` calls the layer as any other layer is called.

    Then `refuse_time_distributed` still has its reason (a mean of each step is another penalty),
    and `layers_without_their_activity_regularizer` has none.
    """
    dense = keras.layers.Dense(3, kernel_initializer="ones", activity_regularizer="l2")
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.TimeDistributed(dense)])
    model(ops.ones((2, 5, 4)))
    assert model.losses == [], "Keras's own L2"
    assert list(layers_without_their_activity_regularizer(model)) == [dense]
    # Within a model that is distributed, every step adds one.
    inner = of_one_step(keras.layers.Dense(3, activity_regularizer="l2"))
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.TimeDistributed(inner)])
    model(ops.ones((2, 5, 4)))
    assert len(model.losses) == 5
    assert list(layers_without_their_activity_regularizer(model)) == []


@pytest.mark.inference
@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("penalty", ["KLSparsity", "ActivityPenalty", "KLSparsityRegularizer"])
def test_a_penalty_of_each_step_is_refused(penalty: str, built: bool, steps: int | None) -> None:
    layers: dict[str, Any] = {
        "KLSparsity": KLSparsity(),
        "ActivityPenalty": ActivityPenalty("l2"),
        "KLSparsityRegularizer": of_one_step(
            keras.layers.Dense(4, "sigmoid", activity_regularizer=KLSparsityRegularizer())
        ),
    }
    x = ops.full((2, 5, 4), 0.5)
    for layer in (layers[penalty], of_one_step(layers[penalty])):
        if built:
            layer(x[:, 0])
        with pytest.raises(ValueError, match=f"{penalty} inside of TimeDistributed"):
            # A layer by itself is refused when it is built; within a model, when that is called.
            keras.Sequential([keras.Input((steps, 4)), keras.layers.TimeDistributed(layer)])(x)
    # Outside of it, the same layer is what was meant.
    if penalty != "KLSparsityRegularizer":
        layers[penalty](x)


def test_where_a_call_and_a_graph_of_layers_are_found() -> None:
    """If it fails: `_flatten_layers`, `_inbound_nodes`, `_keras_history` or the context of a call
    has another name in this Keras, and the function that this calls must learn it.
    """
    seen: list[Any] = []

    class Looks(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            seen.append(layer_being_called())
            return x + 0.0

    looks, dense = Looks(), keras.layers.Dense(3)
    inner = of_one_step(dense)
    inputs = keras.Input((4,))
    outputs = looks(inner(inputs))
    model = keras.Model(inputs, outputs)
    assert all(layer is looks for layer in seen), "a symbolic call"
    model(ops.ones((2, 4)))
    assert seen[-1] is model
    assert layer_being_called() is None
    assert {layer.name for layer in layers_of(model)} >= {model.name, inner.name, dense.name}
    assert model not in layers_of(model, include_self=False)
    assert inputs_in_graph(inner)[-1] is inputs
    assert {layer.name for layer in layers_before([outputs])} >= {looks.name, dense.name}


def test_losses_are_put_back_during_a_call() -> None:
    """If it fails: `_losses` is no more where `add_loss` puts a loss (see `losses_kept`)."""

    class Interrupted(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.sum(x))
            with losses_kept():
                self._clear_losses()
                assert self.losses == []
            return x

    layer = Interrupted()
    layer(ops.ones((2, 4)))
    assert [float(loss) for loss in layer.losses] == [8.0]


def test_the_training_step_of_keras_is_recognised() -> None:
    """If it fails: the trainer's module or its `train_step` has another name in this Keras."""
    seen: list[bool] = []

    class Asks(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            seen.append(inside_train_step())
            return x + 0.0

    model = keras.Sequential([keras.Input((4,)), Asks(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((2, 4), "float32")
    seen.clear()
    model.predict(x, verbose=0)
    assert seen
    assert not any(seen)
    seen.clear()
    model.train_on_batch(x, x[:, :1])
    assert any(seen)


def test_a_mask_is_carried_with_a_tensor() -> None:
    """If it fails: `get_keras_mask` and `set_keras_mask` have moved (see `mask_of`, `masked`)."""
    x, mask = ops.ones((2, 3, 4)), ops.ones((2, 3), dtype="bool")
    assert mask_of(x) is None
    assert mask_of(masked(x, mask)) is mask
    # It is what Keras hands to the next layer.
    layer = KLSparsity(0.5)
    layer(masked(x, ops.zeros((2, 3), dtype="bool")))
    assert float(layer.losses[0]) == 0.0


def test_in_the_middle_of_an_epoch_the_weights_can_be_read() -> None:
    """If it fails on JAX: `write_state_back` must call what `jax_state_sync` is now, or nothing."""
    seen: list[Any] = []

    class Reads(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            write_state_back(model)  # `self.model` would do it by itself
            seen.append(ops.convert_to_numpy(kernel).copy())

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    kernel = model.layers[0].kernel
    first = ops.convert_to_numpy(kernel).copy()
    x = np.ones((4, 4), "float32")
    model.fit(x, x[:, :1], batch_size=2, epochs=1, shuffle=False, verbose=0, callbacks=[Reads()])
    assert not np.array_equal(seen[0], first)
    assert not np.array_equal(seen[1], seen[0])
