"""`Watch`: ρ̂, R² and the terms over the whole set while a model trains, against the oracle."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reference
from keras_impl import (
    Anneal,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    SparseAutoencoder,
    Watch,
    fit_lbfgs,
    set_parameters,
    to_keras_units,
    to_parameters,
)
from sae_oracle.workers.oracle_bridge import oracle_arguments
from tests.asserting import inside
from tests.keras_impl.precision import as_numpy

U = 2.0**-24
X = np.random.default_rng(0).uniform(size=(7, 4)).astype("float32")
LOGGED = {"rho_hat_mean", "rho_hat_max", "dead_units", "saturated_units", "r_squared"}


class Weights(keras.callbacks.Callback):
    """Keeps the weights, and the oracle's arguments, at the end of each epoch."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.found: list[tuple[reference.Parameters, dict[str, Any]]] = []
        self.logs: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.found.append((to_parameters(self.model), oracle_arguments(self.model)))
        self.logs.append(dict(logs or {}))


@pytest.mark.equation("EQ-COST", "EQ-RHO-HAT", "EQ-RHO-HAT-CHUNKS", "EQ-RECONSTRUCTION")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"tied": True, "from_logits": True},
        {
            "hidden_units": (3, 2),
            "rho": (0.25, [0.125, 0.5]),
            "activation": "tanh",
            "symmetric": True,
        },
    ],
    ids=["plain", "tied, from logits", "deep, tanh"],
)
def test_every_number_is_the_oracles_of_the_whole_set(arguments: dict[str, Any]) -> None:
    """With the weights at the end of the epoch; the batches are three and the chunks two."""
    model = SparseAutoencoder(**{"hidden_units": 3, "rho": 0.25, "seed": 0, **arguments})
    model.compile(keras.optimizers.SGD(0.5))
    y = X[::-1] * np.float32(0.5) + np.float32(0.25)
    watch, weights = Watch(X, y, batch_size=4), Weights()
    anneal = Anneal("beta", lambda step: 1.0 + step)
    callbacks = [anneal, watch, weights]
    model.fit(X, y, batch_size=3, epochs=2, verbose=0, callbacks=callbacks)
    assert watch.history["epoch"] == [0, 1]
    for epoch, (parameters, given) in enumerate(weights.found):
        found = {name: values[epoch] for name, values in watch.history.items()}
        expected = reference.cost_and_gradient_with_bounds(parameters, X, **given, y=y).cost
        for name in ("reconstruction", "weight_decay", "sparsity"):
            inside(name, found[name], getattr(expected, name), epoch)
        passed = reference.forward(parameters, X, activation=model.activation)
        means = [
            reference.mean_activation(0.5 + 0.5 * a if model.symmetric else a)
            for a in passed.hidden
        ]
        rho_hat = np.concatenate(means)
        # A layer of at most 4 terms is 22 roundoffs (see `encode`), a mean of 7 values, or its
        # logarithm, 7 + 16 more.
        slack = (22 * len(passed.hidden) + 23) * U
        assert np.max(np.abs(found["rho_hat"] - rho_hat)) <= slack
        assert abs(found["rho_hat_mean"] - np.mean(rho_hat)) <= slack
        assert abs(found["rho_hat_max"] - np.max(rho_hat)) <= slack
        # Each output is off by 22 roundoffs a layer, and E of R² = 1 − E/V by 2|h − y| times that.
        off = 22 * (len(passed.hidden) + 1) * U
        error = np.abs(passed.output - y)
        variance = np.sum(np.square(y - np.mean(y, axis=0, dtype="float64")))
        expected_r = 1.0 - np.sum(np.square(error)) / variance
        assert abs(found["r_squared"] - expected_r) <= np.sum(2 * error * off + off**2) / variance
        # Behind the callback every other one has them.
        for name in LOGGED:
            assert weights.logs[epoch][name] == found[name]


class Batches(keras.callbacks.Callback):
    """Keeps the weights and the logs after each batch."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.found: list[tuple[int, reference.Parameters, dict[str, Any]]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.found.append((batch, to_parameters(self.model), dict(logs or {})))


@pytest.mark.equation("EQ-RHO-HAT")
def test_within_an_epoch_it_looks_at_the_whole_set_too(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After every second of four batches, with the weights after it; the progress bar says it."""
    model = SparseAutoencoder(3, rho=0.25, seed=0)
    model.compile(keras.optimizers.SGD(0.5), steps_per_execution=1 if backend == "torch" else 2)
    watch, batches = Watch(X, every=2, every_batches=2), Batches()
    model.fit(X, batch_size=2, epochs=2, verbose=1, callbacks=[watch, batches])
    assert "rho_hat_mean: " in capsys.readouterr().out.partition("Epoch 2")[0]
    assert watch.history["epoch"] == [1]
    looked = [found for found in batches.found if "rho_hat_mean" in found[2]]
    assert [batch for batch, _, _ in looked] == [1, 3, 1, 3]
    for _, parameters, logs in looked:
        rho_hat = reference.mean_activation(reference.forward(parameters, X).hidden[0])
        assert abs(logs["rho_hat_mean"] - np.mean(rho_hat)) <= 45 * U
        assert abs(logs["rho_hat_max"] - np.max(rho_hat)) <= 45 * U
        assert set(logs) >= LOGGED
    model.fit(X, batch_size=7, epochs=2, verbose=0, callbacks=[watch])
    assert watch.history["epoch"] == [1], "another fit begins anew"


@pytest.mark.equation("EQ-RHO-HAT")
def test_dead_and_saturated_units_are_counted_to_the_edge() -> None:
    """ρ̂ ≤ ρ/100 and 1 − ρ̂ ≤ (1 − ρ)/100: kernels of 0 and biases that give any ρ̂."""
    rho, near = np.linspace(0.25, 0.5, 7), 1.0 + np.array([-(2.0**-12), 2.0**-12])
    high = 1.0 - 0.01 * (1.0 - rho[3:5]) * near
    levels = np.r_[0.01 * rho[:2] * near, 0.5, high, 1e-6, 1.0 - 1e-6]
    model = SparseAutoencoder(len(levels), rho=[rho])
    kernels = [np.zeros((4, len(levels))), np.zeros((len(levels), 4))]
    biases = [np.log(levels / (1.0 - levels)), np.zeros(4)]
    set_parameters(model, reference.Parameters(kernels, biases))
    model.compile(keras.optimizers.SGD(0.0))
    watch = Watch(X)
    history = model.fit(X, batch_size=2, verbose=0, callbacks=[watch]).history
    assert (history["dead_units"], history["saturated_units"]) == ([2], [2])
    counts = np.histogram(levels, np.linspace(0.0, 1.0, 51))[0]
    assert np.array_equal(watch.history["histogram"][0], counts)
    assert counts[[0, 25, 49]].tolist() == [3, 1, 3]
    assert history["rho_hat_max"][0] > 0.99


def test_any_model_with_penalties(backend: str) -> None:
    """Each ρ counts for its own units; means of ReLU units beyond 1 are in the last bin."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="sigmoid"),
            KLSparsity(0.5, 0.0),
            keras.layers.Dense(
                2, activation="relu", activity_regularizer=KLSparsityRegularizer(1e-3, 0.0)
            ),
            keras.layers.Dense(4),
            keras.layers.GaussianNoise(1.0),  # which it sees nothing of
        ]
    )
    weights = [np.zeros(w.shape) for w in model.get_weights()]
    weights[1][:] = np.log([0.004 / 0.996, 0.5 / 0.5, 0.996 / 0.004])  # dead, and saturated
    weights[3][:] = 0.004, 7.0  # not dead beside ρ = 0.001; beyond 1
    model.set_weights(weights)
    model.compile(keras.optimizers.SGD(0.0), loss=HalfSquaredError())
    watch = Watch(X, every=2)
    history = model.fit(X, X, epochs=4, batch_size=7, verbose=0, callbacks=[watch]).history
    assert watch.history["epoch"] == [1, 3]
    assert len(history["dead_units"]) == 2
    assert watch.history["rho_hat"][0].shape == (5,)
    assert history["dead_units"][0] == 1
    assert history["saturated_units"][0] == 2
    assert watch.history["histogram"][0].tolist() == [2, *[0] * 24, 1, *[0] * 23, 2]
    # Its outputs are 0.
    centred = X - np.mean(X, axis=0, dtype="float64")
    expected = 1.0 - np.sum(np.square(X, dtype="float64")) / np.sum(np.square(centred))
    assert abs(history["r_squared"][0] - expected) <= 8 * U * abs(expected)
    constant = Watch(np.ones((3, 4), "float32"))
    model.fit(X, X, verbose=0, callbacks=[constant])
    assert np.isnan(constant.history["r_squared"][0])


def test_lbfgs_is_watched_too() -> None:
    model, watch = SparseAutoencoder(3, rho=0.25, seed=0), Watch(X)
    history = fit_lbfgs(model, X, 3, verbose=False, callbacks=[watch]).history
    for found, expected in zip(
        watch.history["reconstruction"], history["reconstruction"], strict=True
    ):
        # Other sums of the same: 44 roundoffs an output, and 28 terms.
        assert abs(found - expected) <= 2 * (2 * 44 + 28) * U * expected
    assert watch.history["epoch"] == [0, 1, 2]


@pytest.mark.only_backends("tensorflow")
def test_tensorboard_shows_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    import tensorflow as tf

    model = SparseAutoencoder(3, rho=0.25, seed=0)
    model.compile("sgd")
    callbacks = [Watch(X), keras.callbacks.TensorBoard(str(tmp_path))]
    model.fit(X, epochs=1, verbose=0, callbacks=callbacks)
    (file,) = tmp_path.glob("train/events*")
    events = tf.compat.v1.train.summary_iterator(str(file))
    tags = {value.tag for event in events for value in event.summary.value}
    assert {f"epoch_{name}" for name in LOGGED} <= tags


@pytest.mark.same_python
def test_the_progress_bar_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    model = SparseAutoencoder(3, rho=0.25, seed=0)
    model.compile("sgd")
    model.fit(X, epochs=1, verbose=2, callbacks=[Watch(X)])
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in LOGGED)


@pytest.mark.parametrize("loss", ["mse", keras.losses.mean_squared_error, "object"])
def test_a_beta_in_the_wrong_units_is_said(loss: Any) -> None:
    loss = keras.losses.MeanSquaredError() if loss == "object" else loss
    x = np.random.default_rng(0).uniform(size=(8, 64)).astype("float32")

    def fit(beta: float, loss: Any) -> None:
        regularizer = KLSparsityRegularizer(0.25, beta)
        hidden = keras.layers.Dense(3, activation="sigmoid", activity_regularizer=regularizer)
        model = keras.Sequential([hidden, keras.layers.Dense(64)])
        model.compile("sgd", loss=loss)
        model.fit(x, x, verbose=0, callbacks=[Watch(x)])

    message = r"64 features.*β = 3 acts as 96 .*32 times as strong.*it is 0.0938 beside `mse`"
    with pytest.warns(UserWarning, match=message) as found:
        fit(3.0, loss)
    assert sum("64 features" in str(warning.message) for warning in found) == 1
    deep = keras.Sequential([SparseAutoencoder((3, 2), rho=0.25, beta=(0.0, 3.0))])
    deep.compile("sgd", loss=loss)
    with pytest.warns(UserWarning, match=message):  # of the layer that has most
        deep.fit(x, x, verbose=0, callbacks=[Watch(x)])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*features")
        fit(to_keras_units(0.25, 3.0, 0.0, features=64).beta, loss)
        fit(3.0, HalfSquaredError())


@pytest.mark.same_python
def test_the_picture_shows_what_was_kept() -> None:
    model, watch = SparseAutoencoder(3, rho=0.25, seed=0), Watch(X)
    with pytest.raises(ValueError, match="Watch has seen no epoch yet"):
        watch.figure()
    model.compile("sgd")
    model.fit(X, epochs=3, verbose=0, callbacks=[watch])
    figure = watch.figure()
    figure.canvas.draw()
    above, middle, below = figure.axes[:3]
    assert [line.get_ydata().tolist() for line in above.get_lines()] == [
        watch.history[name] for name in ("reconstruction", "sparsity", "weight_decay")
    ]
    drawn = middle.collections[0].get_array()
    assert np.array_equal(
        np.nan_to_num(np.ma.filled(drawn, 0)), np.transpose(watch.history["histogram"])
    )
    assert [line.get_label() for line in below.get_lines()] == ["dead units", "saturated units"]


@pytest.mark.same_python
def test_what_cannot_be_watched_is_refused() -> None:
    for wrong, kind, message in (
        (lambda: Watch(X, every=0), ValueError, "`every` must be a positive integer.*0"),
        (lambda: Watch(X[:0]), ValueError, "`x` must hold at least one sample"),
        (lambda: Watch(X, X[:2]), ValueError, "`y` must have as many rows as `x`, 7.*2"),
        (lambda: Watch(None), TypeError, "`x`"),
    ):
        with pytest.raises(kind, match=message):
            wrong()
    model = keras.Sequential([keras.layers.Dense(4)])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"Nothing in .* is penalised.*KLSparsity"):
        model.fit(X, X, verbose=0, callbacks=[Watch(X)])
    assert as_numpy(model(X)).shape == (7, 4)


def test_the_exercise_of_a_report_is_watched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture of a panel of `sae-oracle verify --report`; the oracle's run has none."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    from sae_oracle.workers import exercise

    found = {}
    for whose in ("backend", "oracle"):
        options = ["--patches=40", "--iterations=3", *(["--oracle"] * (whose == "oracle"))]
        monkeypatch.setattr("sys.argv", ["exercise", *options])
        exercise.main()
        found[whose] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert base64.b64decode(found["backend"]["watch"]).startswith(b"\x89PNG")
    assert "watch" not in found["oracle"]
