"""ρ, β and λ that change while a model trains, against the oracle at the values of the moment."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    Anneal,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
    fit_lbfgs,
    full_cost,
    set_hyperparameters,
)
from sae_oracle.workers.oracle_bridge import oracle_arguments, to_parameters
from tests.asserting import inside
from tests.keras_impl.precision import as_numpy, computing_in, rounded

X = rounded(np.random.default_rng(0).uniform(size=(8, 4)), "float32").astype("float32")
CHANGES: list[dict[str, float]] = [
    {},
    {"beta": 0.5},
    {"weight_decay": 0.25},
    {"rho": 0.25},
    {"beta": 0.0, "rho": 0.5},
    {"beta": 4.0, "weight_decay": 0.0},
]
MODES: list[Any] = [
    {"run_eagerly": True},
    # JAX and torch do without jit what they do eagerly.
    pytest.param({"jit_compile": False}, marks=pytest.mark.only_backends("tensorflow")),
    {"jit_compile": True},
]


def by_layers(form: str, **policy: Any) -> Any:
    """The same network of a penalty that is not the model's own."""
    logits = form == "logits"
    of_layer = form in ("layer", "logits")
    regularizer = None if of_layer else KLSparsityRegularizer(0.125, 3.0)
    hidden = keras.layers.Dense(
        3,
        activation=None if logits else "sigmoid",
        kernel_initializer=NgUniform(0),
        kernel_regularizer=WeightDecay(0.125),
        activity_regularizer=regularizer,
        **policy,
    )
    between = [KLSparsity(0.125, 3.0, from_logits=logits, **policy)] if of_layer else []
    between += [keras.layers.Activation("sigmoid", **policy)] if logits else []
    output = keras.layers.Dense(
        4,
        activation="sigmoid",
        kernel_initializer=NgUniform(1),
        kernel_regularizer=WeightDecay(0.125),
        **policy,
    )
    return keras.Sequential([keras.Input((4,)), hidden, *between, output])


@pytest.mark.equation("EQ-COST", "EQ-BOUND-DESCENT", "EQ-SPARSITY", "EQ-DECAY")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("form", ["model", "tied", "layer", "regularizer", "logits"])
def test_a_change_counts_in_the_next_step(
    form: str, precision: str, mode: dict[str, Any], backend: str
) -> None:
    """The reported loss, and the weights after the step, are the oracle's at the new values."""
    if backend == "torch" and mode.get("jit_compile"):
        pytest.skip("half a minute for each change: test_model_against_oracle.py has one")
    if precision == "float64" and form not in ("model", "tied"):
        pytest.skip("Keras's Dense in float64 is float32 on torch")
    with computing_in(precision) as policy:
        own = form in ("model", "tied")
        arguments: dict[str, Any] = {"rho": 0.125, "beta": 3.0, "weight_decay": 0.125}
        if own:
            tied = {"tied": form == "tied", "tied_decay": 2}
            model = SparseAutoencoder(3, seed=0, dtype=policy, **arguments, **tied)
            model.build((None, 4))
            arguments = oracle_arguments(model)
            model.compile(keras.optimizers.SGD(0.25), **mode)
        else:
            model = by_layers(form, dtype=policy)
            loss = HalfSquaredError(dtype=precision)
            model.compile(keras.optimizers.SGD(0.25), loss=loss, **mode)
            arguments |= {"epsilon": 0.0 if form == "logits" else 1e-6}
        for change in CHANGES:
            if own:
                for name, value in change.items():
                    setattr(model, name, value)
            else:
                set_hyperparameters(model, **change)
            arguments |= change
            if own:
                start = to_parameters(model)
            else:
                w1, b1, w2, b2 = (as_numpy(v.value) for v in model.trainable_variables)
                start = reference.Parameters([w1, w2], [b1, b2])
            bounded = {**arguments, "precision": precision, "y": X}
            reached = reference.gradient_descent_with_bounds(
                start, X, steps=1, learning_rate=0.25, **bounded
            )
            total = reference.cost_and_gradient_with_bounds(start, X, **bounded).cost.total
            loss = model.train_on_batch(X.astype(precision), X.astype(precision))
            # Keras keeps the reported loss in float32.
            assert (
                abs(float(np.ravel(loss)[0]) - total.value)
                <= total.bound + 4 * 2.0**-24 * total.value
            )
            if own:
                found = [*model.kernels, *model.biases]
            else:
                found = [model.trainable_variables[i] for i in (0, 2, 1, 3)]
            for variable, expected in zip(found, [*reached.kernels, *reached.biases], strict=True):
                inside(variable.name, variable.value, expected, change)


class Counting(keras.layers.Layer):
    """Counts how often Python runs it: once a compilation, or once a step."""

    runs = 0

    def call(self, inputs: Any) -> Any:
        self.runs += 1
        return inputs


@pytest.mark.only_backends("jax", "tensorflow")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["rho", "beta", "weight_decay"])
def test_nothing_is_compiled_for_a_change(name: str, jit_compile: bool, backend: str) -> None:
    if backend == "jax" and not jit_compile:
        pytest.skip("JAX without jit runs Python in every step")
    counting = Counting()
    hidden = keras.layers.Dense(3, activation="sigmoid", kernel_regularizer=WeightDecay(0.5))
    model = keras.Sequential([keras.Input((4,)), hidden, KLSparsity(0.5, 3.0), counting])
    model.add(keras.layers.Dense(4))
    model.compile("sgd", loss=HalfSquaredError(), jit_compile=jit_compile)
    seen = []

    def schedule(step: int) -> float:
        seen.append(counting.runs)
        return 0.5 + 0.01 * step

    model.fit(X, X, batch_size=2, epochs=3, verbose=0, callbacks=[Anneal(name, schedule)])
    # Before the fit, and before and after the first of its 12 steps.
    assert len(set(seen[2:])) == 1
    assert counting.runs == seen[-1]
    model.fit(X, X, batch_size=2, verbose=0)
    assert counting.runs == seen[-1]


@pytest.mark.parametrize(
    ("batch_size", "steps_per_execution"), [(2, 1), (2, 2), (3, 2)], ids=["one", "two", "remainder"]
)
def test_anneal_follows_the_steps_of_the_optimizer(
    batch_size: int, steps_per_execution: int, backend: str
) -> None:
    if backend == "torch" and steps_per_execution > 1:
        pytest.skip("Keras has no steps_per_execution on torch")
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], [0.5, 1.5, 2.5])
    values: list[tuple[int, float]] = []
    model = SparseAutoencoder(3, beta=7.0, seed=0)
    model.compile("sgd", steps_per_execution=steps_per_execution)

    class Noting(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            values.append((int(as_numpy(self.model.optimizer.iterations)), self.model.beta))

    callbacks = [Anneal("beta", schedule), Noting()]
    fit = partial(model.fit, X, batch_size=batch_size, verbose=0, callbacks=callbacks)
    fit(epochs=2)
    history = fit().history
    batches = -(-len(X) // batch_size)
    assert [step for step, _ in values] == [
        epoch * batches + batch
        for epoch in range(3)
        for batch in range(0, batches, steps_per_execution)
    ]
    for step, beta in values:
        assert beta == float(as_numpy(schedule(step)))
    assert history["annealed_beta"] == [2.5]
    assert model.beta == 2.5


@pytest.mark.parametrize("scaled", [False, True])
def test_anneal_counts_batches_where_gradients_accumulate(scaled: bool) -> None:
    """As Keras counts for a schedule of the learning rate, beside it in the same fits."""
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.PolynomialDecay(1.0, 16, end_learning_rate=0.0),
        gradient_accumulation_steps=2,
    )
    model = SparseAutoencoder(3, seed=0)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
    beta = Anneal("beta", lambda step: 1.0 - step / 16)
    for batches in (4, 8):
        model.fit(X, batch_size=2, verbose=0, callbacks=[beta])
        assert model.beta == 1.0 - (batches - 1) / 16
        assert float(as_numpy(optimizer.learning_rate)) == 1.0 - batches / 16


def test_the_trained_loss_is_that_of_the_schedule() -> None:
    """By `fit`, validation too: the terms scale with β, step by step."""
    model = SparseAutoencoder(3, beta=1.0, seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    plain = model.fit(X, batch_size=8, verbose=0).history["sparsity"][0]
    history = model.fit(
        X,
        batch_size=8,
        epochs=3,
        verbose=0,
        validation_data=(X, X),
        callbacks=[Anneal("beta", lambda step: 1.0 + step)],
    ).history
    for epoch, beta in enumerate((2.0, 3.0, 4.0)):
        for name in ("sparsity", "val_sparsity"):
            assert abs(history[name][epoch] - beta * plain) <= 16 * 2.0**-24 * beta * plain


def test_configuration_files_and_the_exact_cost_follow(tmp_path: Path) -> None:
    model = SparseAutoencoder((3, 2), rho=0.125, beta=3.0, weight_decay=0.125, seed=0)
    model.compile("sgd")
    model.fit(X, verbose=0)
    weights = len(model.weights)
    before = full_cost(model, X)
    set_hyperparameters(model, rho=0.25, beta=0.5, weight_decay=0.25)
    assert len(model.weights) == weights
    model.fit(X, verbose=0)
    after = full_cost(model, X)
    assert after.sparsity < before.sparsity / 3.0
    expected = reference.cost_and_gradient_with_bounds(
        to_parameters(model), X, **oracle_arguments(model)
    ).cost
    for name in ("reconstruction", "weight_decay", "sparsity"):
        inside(name, getattr(after, name), getattr(expected, name))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    if not clone.built:
        clone.build((None, 4))
    clone.load_weights(tmp_path / "model.weights.h5")
    for again in (loaded, clone):
        assert (again.rho, again.beta, again.weight_decay) == (0.25, 0.5, 0.25)
        assert full_cost(again, X).total == after.total
    # A call that trains with a penalty of L-BFGS warns of no state that it would move.
    fit_lbfgs(model, X, 2, verbose=False)


def test_copies_of_changed_penalties_stand_alone() -> None:
    model = by_layers("regularizer")
    model.compile("sgd", loss=HalfSquaredError())
    model.train_on_batch(X, X)
    set_hyperparameters(model, beta=0.5, weight_decay=0.25)
    layer = model.layers[0]
    for owner in (layer.activity_regularizer, layer.kernel_regularizer):
        for again in (copy.deepcopy(owner), pickle.loads(pickle.dumps(owner))):
            assert again.get_config() == owner.get_config()
            assert float(again(ops.ones((2, 2)) / 4.0)) == float(owner(ops.ones((2, 2)) / 4.0))
    set_hyperparameters(model, beta=2.0)
    assert again.get_config() == {"weight_decay": 0.25}


@pytest.mark.parametrize("form", ["layer", "logits", "average"])
def test_a_beta_that_becomes_0_leaves_nothing_of_an_infinite_divergence(form: str) -> None:
    momentum = 0.0 if form == "average" else None
    layer = KLSparsity(0.25, 1.0, form == "logits", momentum, epsilon=0.0)
    layer(ops.ones((2, 2)) / 2.0)
    layer.beta = 0.0
    dead = ops.convert_to_tensor(np.full((2, 2), -np.inf if form == "logits" else 0.0, "float32"))
    layer(dead, training=True)
    assert float(layer.losses[0]) == 0.0


@pytest.mark.parametrize("name", ["rho", "beta", "weight_decay"])
def test_a_changed_coefficient_has_the_digits_of_the_model(name: str) -> None:
    """In float64 a variable of float32 would hold 0.1 to 1.5e-8 of it."""

    def losses(value: float, change: bool) -> float:
        arguments = {"rho": 0.25, "beta": 1.0, "weight_decay": 0.5}
        given = arguments if change else {**arguments, name: value}
        model = SparseAutoencoder(3, **given, seed=0, dtype="float64")
        x = ops.convert_to_tensor(X, dtype="float64")
        model(x)
        if change:
            set_hyperparameters(model, **{name: value})
            model(x)
        return float(as_numpy(sum(model.losses)))

    with computing_in("float64"):
        expected = losses(0.1, change=False)
        assert abs(losses(0.1, change=True) - expected) <= 64 * 2.0**-53 * expected


def test_what_cannot_follow_is_refused_by_name() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_regularizer="l2")])
    for name, advice in (
        ("rho", "KLSparsity"),
        ("beta", "KLSparsity"),
        ("weight_decay", "WeightDecay"),
    ):
        with pytest.raises(ValueError, match=f"has a `{name}` that can change: use {advice}"):
            set_hyperparameters(model, **{name: 0.5})
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        set_hyperparameters(KLSparsityRegularizer(), beta=1.0)
    with pytest.raises(AttributeError, match=r"set_hyperparameters\(model, beta"):
        KLSparsityRegularizer().beta = 2.0
    model = SparseAutoencoder(2, rho=0.125, epsilon=0.125, beta=1.0)
    edges = [KLSparsity(0.125, epsilon=epsilon) for epsilon in (1e-3, 0.125)]
    both = keras.Sequential([keras.Input((4,)), *edges])
    # Nothing is changed, be the first value refused or the last, by the first penalty or the last.
    for changed, values, refused in (
        (model, {"beta": 2.0, "rho": 0.0625}, r"`epsilon`.*rho=0.0625"),
        (model, {"rho": 0.25, "beta": 2.0, "weight_decay": -1.0}, "`weight_decay`"),
        (both, {"rho": 0.0625}, r"`epsilon`.*rho=0.0625"),
    ):
        with pytest.raises(ValueError, match=refused):
            set_hyperparameters(changed, **values)
        assert {each.rho for each in (model, *edges)} == {0.125}
        assert {each.beta for each in (model, *edges)} == {1.0}
    with pytest.raises(ValueError, match="`beta` must lie in"):
        model.beta = -1.0
    with pytest.raises(AttributeError, match="`tied` of SparseAutoencoder cannot be changed"):
        model.tied = True
    with pytest.raises(ValueError, match="`name` must be one of"):
        Anneal("epsilon", lambda step: 1.0)
    for wrong in (0.5, None, float):
        with pytest.raises(TypeError, match="`schedule` must be"):
            Anneal("beta", wrong)
    with pytest.raises(ValueError, match=r"`callbacks` must not change.*set_hyperparameters"):
        fit_lbfgs(model, X, 2, verbose=False, callbacks=[Anneal("beta", lambda step: 1.0)])
