"""L-BFGS over the cost of the whole set: its steps, its bounds, its callbacks, how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    HalfSquaredError,
    KLSparsity,
    SparseAutoencoder,
    fit_lbfgs,
    full_cost,
    full_cost_and_gradient,
)
from keras_impl.exact import checkpoint
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters
from tests.keras_impl.precision import as_numpy, computing_in

TERMS = ("reconstruction", "weight_decay", "sparsity")


def learnable() -> Any:
    """Samples on a curve, in float32."""
    t = np.linspace(0.0, 1.0, 60)[:, None]
    return (0.5 + 0.35 * np.sin(2.0 * np.pi * t * np.arange(1, 7) / 3.0)).astype("float32")


@pytest.mark.equation("EQ-COST")
def test_lbfgs_takes_the_steps_of_the_oracle_under_scipy() -> None:
    from sae_oracle.workers.exercise import by_oracle

    x = learnable().astype("float64")
    with computing_in("float64"):
        model = SparseAutoencoder(3, rho=0.01, beta=3.0, weight_decay=1e-4, dtype="float64")
        model.build((None, 6))
        start = reference.initialise((6, 3, 6), seed=0)
        set_parameters(model, start)
        history = fit_lbfgs(model, x, 10, batch_size=25, verbose=False)
        reached, evaluations = by_oracle(x, start, 10)
        assert history.params["evaluations"] == evaluations
        assert len(history.history["loss"]) == 10
        # float64 against float64: each of ten line searches amplifies the rounding 1e-16 of the
        # step before by less than ten (the exercise: 1e-13 after 25, see benchmarks/results).
        expected = reference.sparse_autoencoder_cost(reached, x, **oracle_arguments(model))
        assert abs(history.history["loss"][-1] - expected.total) <= 1e-9 * expected.total
        for name in TERMS:
            assert abs(history.history[name][-1] - getattr(expected, name)) <= 1e-8 * expected.total


@pytest.mark.equation("EQ-COST")
def test_the_exercise_of_the_notes_begins_as_the_oracle_does() -> None:
    """25 iterations on the 10,000 patches, float32 beside float64; all 400: `verify --report`."""
    from sae_oracle.datasets import natural_patches
    from sae_oracle.workers import exercise

    x = natural_patches(exercise.PATCHES)
    costs = []
    for run in (exercise.by_keras, exercise.by_oracle):
        parameters, evaluations = run(x, exercise.start(), 25)
        costs.append(exercise.outcome(parameters, x, evaluations, 0.0)["total"])
    # Measured: float32 runs have a standard deviation of 7e-8 here (benchmarks/results).
    assert abs(costs[0] - costs[1]) <= 1e-6
    assert 0.4 < costs[1] < 0.5


def test_lbfgs_leaves_the_weights_of_the_cost_that_it_reports() -> None:
    x = learnable()
    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    before = full_cost(model, x).total
    history = fit_lbfgs(model, x, 30, verbose=False)
    losses = history.history["loss"]
    assert isinstance(history, keras.callbacks.History)
    assert history.model is model
    assert history.epoch == list(range(len(losses)))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < before / 2.0
    assert full_cost_and_gradient(model, x)[0].total == losses[-1]
    for name, last in (("loss", 1), ("reconstruction", 1), ("weight_decay", 1), ("sparsity", 1)):
        assert len(history.history[name]) == len(losses) * last
    total = sum(history.history[name][-1] for name in TERMS)
    assert abs(total - losses[-1]) <= 4 * 2.0**-53 * total


class Interrupting(keras.callbacks.Callback):
    def __init__(self, after: int, weights: list[Any]) -> None:
        super().__init__()
        self.after, self.weights = after, weights

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights[:] = self.model.get_weights()
        if epoch + 1 == self.after:
            raise KeyboardInterrupt


@pytest.mark.same_python
def test_ctrl_c_keeps_the_best_weights_and_says_so() -> None:
    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    weights: list[Any] = []
    with pytest.warns(UserWarning, match="Interrupted after 4 iterations: the model has the best"):
        history = fit_lbfgs(
            model, learnable(), 30, verbose=False, callbacks=[Interrupting(4, weights)]
        )
    assert history.params["message"] == "interrupted"
    assert len(history.history["loss"]) == 4
    for kept, seen in zip(model.get_weights(), weights, strict=True):
        assert np.array_equal(kept, seen)
    # In the middle of a line search too: the weights of no other evaluation stay.
    best = history.history["loss"][-1]
    assert full_cost_and_gradient(model, learnable())[0].total == best


@pytest.mark.same_python
def test_a_callback_may_stop_it() -> None:
    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2)
    )
    history = fit_lbfgs(model, learnable(), 30, verbose=False, callbacks=[stop])
    assert history.epoch == [0, 1, 2]
    assert history.params["message"] == "stopped by a callback"


class Exploding(keras.callbacks.Callback):
    """Makes a term of the cost infinite from the third iteration on."""

    def __init__(self, term: str) -> None:
        super().__init__()
        self.term = term

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.losses = [*getattr(self, "losses", []), logs["loss"]]
        if epoch == 2:
            self.broken()

    def broken(self) -> None:
        from keras_impl.exact import objective

        real = objective.FullDataObjective.cost_and_gradient

        def infinite(this: Any) -> Any:
            cost, gradient = real(this)
            values = {name: getattr(cost, name) for name in TERMS} | {self.term: float("inf")}
            return objective.FullCost(**values), gradient

        self.patch.setattr(objective.FullDataObjective, "cost_and_gradient", infinite)


def test_a_cost_that_is_not_finite_names_its_term(monkeypatch: pytest.MonkeyPatch) -> None:
    for term in TERMS:
        model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
        exploding = Exploding(term)
        exploding.patch = monkeypatch
        with pytest.raises(FloatingPointError, match=f"The {term} term is not finite"):
            fit_lbfgs(model, learnable(), 30, verbose=False, callbacks=[exploding])
        monkeypatch.undo()
        assert full_cost_and_gradient(model, learnable())[0].total == exploding.losses[-1]


def test_data_that_are_not_finite_and_a_divergence_that_is_not() -> None:
    x = learnable()
    x[3, 2] = np.nan
    with pytest.raises(FloatingPointError, match="The reconstruction term is not finite"):
        fit_lbfgs(SparseAutoencoder(3), x, 3, verbose=False)
    dead = SparseAutoencoder(3, rho=0.1, activation="relu", epsilon=0.0, seed=0)
    dead.build((None, 6))
    dead.biases[0].assign(np.full(3, -100.0))
    for batch_size in (None, 25):
        with pytest.raises(FloatingPointError, match=r"The sparsity term is not finite \(inf"):
            fit_lbfgs(dead, learnable(), 3, batch_size, verbose=False)


@pytest.mark.same_python
def test_bad_options_of_lbfgs() -> None:
    with pytest.raises(ValueError, match="`options` must be among"):
        fit_lbfgs(SparseAutoencoder(3), learnable(), 3, learning_rate=0.1)
    with pytest.raises(ValueError, match="`iterations` must be a positive integer"):
        fit_lbfgs(SparseAutoencoder(3), learnable(), 0)


@pytest.mark.same_python
def test_the_progress_bar_shows_the_terms(capsys: pytest.CaptureFixture[str]) -> None:
    fit_lbfgs(SparseAutoencoder(3, seed=0), learnable(), 3)
    printed = capsys.readouterr().out
    assert "reconstruction" in printed
    assert "3/3" in printed


@pytest.mark.same_python
def test_scipy_gets_the_options_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.optimize

    real, seen = scipy.optimize.minimize, {}

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.update(named["options"])
        return real(*arguments, **named)

    monkeypatch.setattr(scipy.optimize, "minimize", watched)
    model = SparseAutoencoder(3, seed=0)
    given = {"maxcor": 3, "ftol": 1e-3, "gtol": 1e-4, "maxls": 7, "maxfun": 6}
    history = fit_lbfgs(model, learnable(), np.int64(30), verbose=False, **given)
    assert seen == {**given, "maxiter": 30}
    # The limit is asked for after an iteration: its line search may go beyond.
    assert history.params["evaluations"] <= 6 + 7
    fit_lbfgs(model, learnable(), 5000, verbose=False, maxls=1, ftol=1.0)
    assert seen["maxfun"] == 20_000


# Constraints.


def constrained(constraint: Any) -> Any:
    """On a kernel, and on a bias."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(3, activation="sigmoid", kernel_constraint=constraint),
            KLSparsity(0.1, 0.1),
            keras.layers.Dense(6, bias_constraint=constraint),
        ]
    )


def test_a_weight_that_may_not_be_negative_is_not() -> None:
    free, bound = constrained(None), constrained(keras.constraints.NonNeg())
    start = [np.random.default_rng(0).normal(size=w.shape) for w in free.get_weights()]
    free.set_weights(start)
    bound.set_weights(start)
    fit_lbfgs(free, learnable(), 30, verbose=False)
    history = fit_lbfgs(bound, learnable(), 30, verbose=False)
    kernel, first_bias, _, last_bias = bound.get_weights()
    assert min(free.get_weights()[0].min(), free.get_weights()[3].min()) < -0.1
    assert kernel.min() == 0.0  # at the bound, and the others moved
    assert last_bias.min() >= 0.0
    assert first_bias.min() < 0.0
    losses = history.history["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == full_cost_and_gradient(bound, learnable())[0].total
    # No step that keeps to the bounds leads downhill: the gradient there points outwards.
    gradient = full_cost_and_gradient(bound, learnable())[1][0]
    assert np.all(gradient[kernel == 0.0] > -0.05)


class Own(keras.constraints.NonNeg):
    def __call__(self, w: Any) -> Any:
        return ops.minimum(w, 0.0)


@pytest.mark.same_python
def test_other_constraints_are_refused_by_name() -> None:
    for constraint, name in [
        (keras.constraints.MaxNorm(1.0), "MaxNorm"),
        (keras.constraints.UnitNorm(), "UnitNorm"),
        (keras.constraints.MinMaxNorm(0.5, 1.0), "MinMaxNorm"),
        (Own(), "Own"),
        (lambda w: ops.clip(w, -1.0, 1.0), "lambda"),
    ]:
        model = constrained(constraint)
        before = model.get_weights()
        with pytest.raises(ValueError, match=f"kernel with the constraint .*{name}"):
            fit_lbfgs(model, learnable(), 3, verbose=False)
        assert all(map(np.array_equal, before, model.get_weights()))
        model.layers[0].trainable = False  # then its constraint is nobody's concern
        model.layers[-1].bias.constraint = None
        fit_lbfgs(model, learnable(), 2, verbose=False)
    model = constrained(keras.constraints.Constraint())  # computes nothing
    fit_lbfgs(model, learnable(), 2, verbose=False)


# State that training moves.


def with_layer(layer: Any) -> Any:
    dense = keras.layers.Dense(3, activation="sigmoid")
    return keras.Sequential([keras.Input((6,)), dense, layer, keras.layers.Dense(6)])


@pytest.mark.same_python
def test_layers_that_act_otherwise_in_training_are_named() -> None:
    for layer in (
        keras.layers.BatchNormalization(name="acts"),
        keras.layers.Dropout(0.5, name="acts"),
        keras.layers.SpectralNormalization(keras.layers.Dense(3), name="acts"),
        KLSparsity(momentum=0.9, name="acts"),
    ):
        model = with_layer(layer)
        before = [as_numpy(v) for v in model.non_trainable_variables]
        with pytest.warns(UserWarning, match="that of the model in inference.* acts"):
            fit_lbfgs(model, learnable(), 2, verbose=False)
        after = [as_numpy(v) for v in model.non_trainable_variables]
        assert all(map(np.array_equal, before, after))


@pytest.mark.filterwarnings("error:The cost is that")
def test_frozen_statistics_are_meant() -> None:
    layer = keras.layers.BatchNormalization()
    layer.trainable = False
    fit_lbfgs(with_layer(layer), learnable(), 2, verbose=False)
    fit_lbfgs(with_layer(KLSparsity()), learnable(), 2, verbose=False)


# Callbacks.


class Events(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen.append("train")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(("begin", epoch, self.model.get_weights()))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(("end", epoch, logs["loss"]))

    def on_test_begin(self, logs: Any = None) -> None:
        self.seen.append("test")

    def on_test_end(self, logs: Any = None) -> None:
        self.seen.append("tested")

    def on_train_end(self, logs: Any = None) -> None:
        self.seen.append(("trained", logs["loss"]))


@pytest.mark.same_python
def test_callbacks_hear_what_they_hear_from_fit() -> None:
    model = SparseAutoencoder(3, seed=0)
    model.build((None, 6))
    start = model.get_weights()
    events = Events()
    history = fit_lbfgs(model, learnable(), 3, verbose=False, callbacks=events)
    names = [event if isinstance(event, str) else event[:2] for event in events.seen]
    losses = history.history["loss"]
    iterations = [(what, i) for i in range(3) for what in ("begin", "end")]
    assert names == ["train", *iterations, ("trained", losses[-1])]
    assert [event[2] for event in events.seen if event[0] == "end"] == losses
    # An iteration begins before it does its work.
    assert all(map(np.array_equal, events.seen[1][2], start))


def test_callbacks_of_keras(tmp_path: Path) -> None:
    model = SparseAutoencoder(3, seed=0)
    called = []
    history = fit_lbfgs(
        model,
        learnable(),
        30,
        verbose=False,
        callbacks=[
            keras.callbacks.EarlyStopping("loss", min_delta=10.0, patience=2),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.weights.h5", "loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.LambdaCallback(on_train_end=lambda logs: called.append(logs)),
        ],
    )
    assert history.epoch == [0, 1, 2]
    assert history.params["message"] == "stopped by a callback"
    assert called[0]["loss"] == history.history["loss"][-1]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    kept = model.get_weights()
    model.load_weights(tmp_path / "best.weights.h5")
    assert all(map(np.array_equal, kept, model.get_weights()))
    fit_lbfgs(model, learnable(), 1, verbose=False, callbacks=None)


# Models of all kinds.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16"])
def test_weights_of_sixteen_bits(dtype: str) -> None:
    model = SparseAutoencoder(3, rho=0.1, beta=0.1, seed=0, dtype=dtype)
    before = full_cost_and_gradient(model, learnable())[0].total
    history = fit_lbfgs(model, learnable(), 10, verbose=False)
    after = full_cost_and_gradient(model, learnable())[0].total
    assert after < before
    # The weights are rounded to 16 bits; those of the least cost that was seen are kept.
    assert after <= min(history.history["loss"])


def test_float64_where_keras_computes_in_float32() -> None:
    with computing_in("float64"):
        keras.config.set_floatx("float32")
        model = SparseAutoencoder(3, rho=0.1, seed=0, dtype="float64")
        losses = fit_lbfgs(model, learnable().astype("float64"), 20, verbose=False).history["loss"]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] != float(np.float32(losses[-1]))


def test_frozen_weights_stay_and_two_inputs_work() -> None:
    first, second = keras.Input((6,)), keras.Input((2,))
    frozen = keras.layers.Dense(3, activation="sigmoid", name="frozen")
    joined = keras.layers.Concatenate()([frozen(first), second])
    model = keras.Model([first, second], keras.layers.Dense(6)(KLSparsity()(joined)))
    model.compile("sgd", HalfSquaredError())
    frozen.trainable = False
    x = learnable()
    before = frozen.get_weights()
    history = fit_lbfgs(model, [x, x[:, :2]], 20, 25, y=x, verbose=False)
    assert all(map(np.array_equal, before, frozen.get_weights()))
    assert history.history["loss"][-1] < history.history["loss"][0]


# Nothing half-written.


class Breaking(keras.utils.PyDataset):
    """Fails in the middle of the fifth time that it is run through."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        self.asked += 1
        if self.asked == 3 + 3 * 5 + 2:
            raise OSError("the disk is gone")
        return learnable()[20 * i : 20 * (i + 1)]


@pytest.mark.same_python
def test_an_error_of_the_data_leaves_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_impl.exact import objective

    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    real, seen = objective.FullDataObjective.cost_and_gradient, []

    def watched(this: Any) -> Any:
        found = real(this)
        seen.append((found[0].total, model.get_weights()))
        return found

    monkeypatch.setattr(objective.FullDataObjective, "cost_and_gradient", watched)
    with pytest.raises(OSError, match="the disk is gone"):
        fit_lbfgs(model, Breaking(), 30, 20, verbose=False)
    assert len(seen) > 1
    _, best = min(seen, key=lambda evaluation: evaluation[0])
    assert all(map(np.array_equal, best, model.get_weights()))
    untouched = SparseAutoencoder(3, seed=0)
    untouched.build((None, 6))
    before = untouched.get_weights()
    x = learnable()
    x[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="none was finite"):
        fit_lbfgs(untouched, x, 3, verbose=False)
    assert all(map(np.array_equal, before, untouched.get_weights()))


class Copying(keras.callbacks.Callback):
    """Keeps the checkpoint that is there when an iteration ends: that of the one before it."""

    def __init__(self, at: int, source: Path, target: Path) -> None:
        super().__init__()
        self.at, self.source, self.target = at, source, target

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            shutil.copyfile(self.source, self.target)


def test_a_fit_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """What was seen is kept to the last digit, and the cost goes on from there."""
    path, kept = tmp_path / "fit.npz", tmp_path / "kept.npz"
    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    x = learnable()
    (tmp_path / ".sae-oracle-train-fit.npz-0").write_text("left by a process that was killed")
    uninterrupted = fit_lbfgs(
        model, x, 20, verbose=False, checkpoint=path, checkpoint_iterations=3,
        callbacks=[Copying(8, path, kept)],
    )  # fmt: skip
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["fit.npz", "kept.npz"]
    other = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=1)
    stored = checkpoint.read(kept)
    assert stored.iterations == 6 < stored.evaluations
    begun: list[int] = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    again = fit_lbfgs(
        other, x, 20, verbose=False, checkpoint=kept, resume=True, callbacks=[note]
    )  # fmt: skip
    assert again.epoch == list(range(len(again.history["loss"])))
    assert begun[: len(again.epoch) - 6] == again.epoch[6:]
    for name, values in again.history.items():
        assert values[:6] == uninterrupted.history[name][:6]
    assert 6 < len(again.epoch) <= 20
    assert again.history["loss"][6] < uninterrupted.history["loss"][5]
    assert again.params["evaluations"] >= stored.evaluations + len(again.epoch) - 6
    assert full_cost(other, x).total <= min(again.history["loss"]) * (1.0 + 2.0**-20)
    # All iterations are there: nothing is computed, and the weights are those of the file.
    third = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=2)
    ended = fit_lbfgs(third, x, len(again.epoch), verbose=False, checkpoint=kept, resume=True)
    assert ended.history == again.history
    assert ended.params["evaluations"] == again.params["evaluations"]
    assert ended.params["message"] == "the checkpoint has all iterations"
    for weight, expected in zip(third.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(weight, expected)


@pytest.mark.same_python
def test_a_checkpoint_is_due_again_after_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0] * 8)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: next(now)))
    by_iterations = checkpoint.Clock(10.0, 3)
    assert [by_iterations.is_due() for _ in range(7)] == [i in (2, 5) for i in range(7)]
    now = iter([0.0, 4.0, 9.5, 10.0, 19.0, 20.0, 21.0])
    by_seconds = checkpoint.Clock(10.0, 100)
    assert [by_seconds.is_due() for _ in range(6)] == [i in (2, 4) for i in range(6)]


@pytest.mark.same_python
def test_a_checkpoint_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    x = learnable()
    fit_lbfgs(SparseAutoencoder(3, seed=0), x, 2, verbose=False, checkpoint=path)
    other = SparseAutoencoder(4, seed=0)
    for wrong, error, message in (
        ({"checkpoint": path, "resume": True}, ValueError, "of weights of the shapes"),
        ({"checkpoint": tmp_path / "no.npz", "resume": True}, FileNotFoundError, "no.npz"),
        ({"checkpoint": tmp_path / "no" / "fit.npz"}, ValueError, "`checkpoint` must lie in"),
        ({"checkpoint": 3}, TypeError, "`checkpoint` must be the name of a file"),
        ({"resume": True}, ValueError, "`resume=True` needs a `checkpoint`"),
        ({"resume": 1}, TypeError, "`resume` must be"),
        ({"checkpoint_seconds": 0}, ValueError, "`checkpoint_seconds` must"),
        ({"checkpoint_iterations": 0.5}, TypeError, "`checkpoint_iterations` must"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            fit_lbfgs(other, x, 2, verbose=False, **wrong)
    for content in (b"", b"PK\x03\x04", path.read_bytes()[:-40], path.read_bytes()[:200]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="no checkpoint"):
            fit_lbfgs(other, x, 2, verbose=False, checkpoint=tmp_path / "bad.npz", resume=True)


@pytest.mark.same_python
def test_a_checkpoint_that_cannot_be_written_ends_no_fit(tmp_path: Path) -> None:
    (tmp_path / "fit.npz").mkdir()
    model = SparseAutoencoder(3, seed=0)
    with pytest.warns(UserWarning, match="No checkpoint is written"):
        history = fit_lbfgs(
            model, learnable(), 4, verbose=False,
            checkpoint=tmp_path / "fit.npz", checkpoint_iterations=1,
        )  # fmt: skip
    assert len(history.epoch) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]


def test_ctrl_c_again_while_the_best_weights_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ends the fit; the second finds it saving, and changes nothing."""
    from keras_impl.exact import lbfgs

    real = lbfgs._Descent.keep_best

    def keep_best(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        real(self)

    class Once(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(lbfgs._Descent, "keep_best", keep_best)
    model = SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)
    # What a shell starts in the background ignores it.
    of_tests = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(UserWarning, match="Interrupted after 3 iterations"):
            history = fit_lbfgs(model, learnable(), 30, verbose=False, callbacks=[Once()])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, of_tests)
    assert full_cost(model, learnable()).total <= min(history.history["loss"]) * (1.0 + 2.0**-20)


# Validation data.


def test_validation_data_are_logged_and_not_trained_on(tmp_path: Path) -> None:
    x, held = learnable()[:40], learnable()[40:]

    def model() -> SparseAutoencoder:
        return SparseAutoencoder(3, rho=0.05, beta=0.1, seed=0)

    plain = model()
    alone = fit_lbfgs(plain, x, 5, verbose=False)
    shifted, weights = 1.0 - held, np.arange(20.0)
    for data, arguments in (
        (held, {}),
        ((held,), {}),
        ((held, shifted), {"y": shifted}),
        ((held, None, weights), {"sample_weight": weights}),
        (Batches(held), {}),
    ):
        watched = model()
        costs: list[Any] = []

        def see(
            epoch: int,
            logs: Any,
            watched: Any = watched,
            costs: Any = costs,
            arguments: Any = arguments,
        ) -> None:
            costs.append(full_cost(watched, held, **arguments))

        history = fit_lbfgs(
            watched, x, 5, verbose=False, validation_data=data,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=see)],
        ).history  # fmt: skip
        assert set(history) == {n for t in ("loss", *TERMS) for n in (t, f"val_{t}")}
        assert {n: history[n] for n in alone.history} == alone.history
        assert all(map(np.array_equal, watched.get_weights(), plain.get_weights()))
        for name in TERMS:
            seen = [getattr(cost, name) for cost in costs]
            # The same sums in chunks of another size: 20 samples of 6 features in float32.
            assert np.allclose(history[f"val_{name}"], seen, rtol=20 * 6 * 2.0**-24, atol=0.0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x: Any) -> None:
        super().__init__()
        self.x = x

    def __len__(self) -> int:
        return -(-len(self.x) // 7)

    def __getitem__(self, i: int) -> Any:
        return self.x[7 * i : 7 * i + 7]


def test_early_stopping_restores_the_weights_of_the_least_validation_loss() -> None:
    generator = np.random.default_rng(0)
    x, held = generator.uniform(size=(2, 12, 6)).astype("float32")
    model = SparseAutoencoder(20, rho=0.5, beta=0.0, weight_decay=0.0, seed=0)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    events = Events()
    history = fit_lbfgs(
        model, x, 100, verbose=False, validation_data=held, callbacks=[stopping, events]
    )
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert 0 < best == len(losses) - 4
    assert history.params["message"] == "stopped by a callback"
    assert abs(full_cost(model, held).total - losses[best]) <= 12 * 6 * 2.0**-24 * losses[best]
    names = [event if isinstance(event, str) else event[0] for event in events.seen]
    assert names[:6] == ["train", "begin", "test", "tested", "end", "begin"]
    assert names.count("test") == len(losses)


BAD_VALIDATION: list[tuple[Any, type[Exception], str]] = [
    (np.ones((3, 5), "float32"), ValueError, r"shapes \[\(6,\)\].*\[\(5,\)\]"),
    (np.ones(3, "float32"), ValueError, r"\[\(\)\]"),
    (np.ones((0, 6), "float32"), ValueError, "at least one sample"),
    ((), ValueError, "tuple of 0"),
    ((np.ones((3, 6)),) * 4, ValueError, "tuple of 4"),
    ((np.ones((3, 6)), np.ones((2, 6))), ValueError, "`y` must have as many rows"),
    ((np.ones((3, 6)), None, np.ones(2)), ValueError, "`sample_weight` must have as many"),
    ("x", TypeError, "`x` must be an array"),
    (3, TypeError, "`x` must be an array"),
    (np.array([["a"] * 6]), TypeError, "real numbers"),
    (np.full((3, 6), np.nan, "float32"), FloatingPointError, "reconstruction term is not finite"),
]


@pytest.mark.same_python
@pytest.mark.parametrize(("data", "error", "message"), BAD_VALIDATION)
def test_validation_data_that_are_refused(data: Any, error: Any, message: str) -> None:
    model = SparseAutoencoder(3, seed=0)
    model.build((None, 6))
    before = model.get_weights()
    began = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: pytest.fail("begun"))
    with pytest.raises(error, match=f"`validation_data`.*{message}"):
        fit_lbfgs(model, learnable(), 3, verbose=False, validation_data=data, callbacks=[began])
    assert all(map(np.array_equal, before, model.get_weights()))


def test_a_checkpoint_goes_on_with_validation_data_or_without(tmp_path: Path) -> None:
    x, path = learnable(), tmp_path / "fit.npz"
    model = SparseAutoencoder(3, seed=0)
    fit_lbfgs(model, x, 3, verbose=False, validation_data=x, checkpoint=path)
    history = fit_lbfgs(
        model, x, 5, verbose=False, validation_data=x, checkpoint=path, resume=True
    ).history
    assert len(history["val_loss"]) == len(history["loss"]) == 5
    with pytest.raises(ValueError, match=r"`validation_data` must be given if it was.*none"):
        fit_lbfgs(model, x, 9, verbose=False, checkpoint=path, resume=True)


# Bounds.

BOUNDS: list[tuple[Any, dict[str, tuple[float, float]]]] = [
    ((-0.1, 0.2), {"kernel": (-0.1, 0.2), "bias": (-0.1, 0.2)}),
    ([None, 0.2], {"kernel": (-np.inf, 0.2), "bias": (-np.inf, 0.2)}),
    ({"kernels": (0, None)}, {"kernel": (0.0, np.inf), "bias": (-np.inf, np.inf)}),
    (
        {"kernels": (-0.3, 0.3), "biases": (-0.1, np.inf), "kernel_1": (0.1, None)},
        {"kernel_0": (-0.3, 0.3), "kernel_1": (0.1, 0.3), "bias": (-0.1, np.inf)},
    ),
    ({"bias_0": (0.25, 0.25)}, {"bias_0": (0.25, 0.25), "kernel": (-np.inf, np.inf)}),
]


@pytest.mark.parametrize(("bounds", "expected"), BOUNDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_weight_leaves_its_bounds(bounds: Any, expected: Any, dtype: str) -> None:
    model = SparseAutoencoder(3, rho=0.2, beta=0.1, weight_decay=1e-4, seed=0, dtype=dtype)
    history = fit_lbfgs(model, learnable(), 10, verbose=False, bounds=bounds)
    for name, (low, high) in expected.items():
        weights = [v for v in model.trainable_variables if v.name.startswith(name)]
        assert weights
        least, most = (f([f(as_numpy(v)) for v in weights]) for f in (np.min, np.max))
        assert low <= least <= most <= high
    assert history.history["loss"][-1] <= history.history["loss"][0]


@pytest.mark.same_python
def test_arrays_bound_single_numbers_and_paths_name_weights() -> None:
    model = constrained(None)
    first, second = model.layers[0], model.layers[-1]
    assert first.kernel.path != second.kernel.path
    high = np.full((6, 3), np.inf)
    high[2, 1] = -0.75
    history = fit_lbfgs(
        model, learnable(), 10, verbose=False,
        bounds={first.kernel.path: (-0.8, high), second.kernel.path: (np.zeros(6), None)},
    )  # fmt: skip
    kernel, other = as_numpy(first.kernel), as_numpy(second.kernel)
    assert -0.8 <= kernel[2, 1] <= -0.75
    assert kernel.max() > 0.0
    assert other.min() >= 0.0
    # The stated measure: nothing but what points into the box counts.
    _, parts = full_cost_and_gradient(model, learnable())
    low = {first.kernel.path: -0.8, second.kernel.path: 0.0}
    largest = 0.0
    for variable, part in zip(model.trainable_variables, parts, strict=True):
        at = as_numpy(variable)
        most = high if variable is first.kernel else np.inf
        step = np.clip(at - part, low.get(variable.path, -np.inf), most) - at
        largest = max(largest, float(np.max(np.abs(step))))
    # The bounds are rounded inwards to float32, by less than 2⁻²³.
    assert abs(history.params["gradient"] - largest) <= 2.0**-23
    held = fit_lbfgs(model, learnable(), 3, verbose=False, bounds=(0.25, 0.25)).params
    assert held["gradient"] == 0.0
    assert "converged: the gradient is small" in held["message"]


BAD_BOUNDS: list[tuple[Any, type[Exception], str]] = [
    (3.0, TypeError, "must be a pair"),
    ((1.0,), TypeError, "must be a pair"),
    ((0, 1, 2), TypeError, "must be a pair"),
    ({"kernels": 1.0}, TypeError, "must be a pair"),
    ((1.0, 0.0), ValueError, "low=1 and high=0"),
    ({"kernels": (0, 1), "kernel_0": (2, 3)}, ValueError, "low=2 and high=1 .*kernel_0"),
    ((np.nan, 1.0), ValueError, "some number.*nan"),
    ((np.inf, None), ValueError, "some number.*inf"),
    ((None, -np.inf), ValueError, "some number.*-inf"),
    ((0.1 + 1e-10, 0.1 + 2e-10), ValueError, "number of float32"),
    (("a", 1.0), TypeError, "real numbers"),
    ((True, 1.0), TypeError, "real numbers"),
    ((1j, 1.0), TypeError, "real numbers"),
    ((10**400, None), TypeError, "real numbers"),
    ((np.zeros(4), None), ValueError, "broadcast.*kernel_0"),
    ({"kernal": (0, 1)}, ValueError, "'kernal'; there are .*bias_1"),
    ({0: (0, 1)}, ValueError, "Received 0; there are"),
]


@pytest.mark.same_python
@pytest.mark.parametrize(("bounds", "error", "message"), BAD_BOUNDS)
def test_bounds_that_are_refused(bounds: Any, error: Any, message: str) -> None:
    model = SparseAutoencoder(3, seed=0)
    model.build((None, 6))
    before = model.get_weights()
    with pytest.raises(error, match=f"`bounds`.*{message}"):
        fit_lbfgs(model, learnable(), 3, verbose=False, bounds=bounds)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_bounds_and_constraints_hold_together() -> None:
    model = constrained(keras.constraints.NonNeg())
    fit_lbfgs(model, learnable(), 5, verbose=False, bounds=(-0.5, 0.5))
    kernel, first_bias, _, last_bias = model.get_weights()
    assert min(kernel.min(), last_bias.min()) >= 0.0
    assert max(kernel.max(), last_bias.max()) <= 0.5
    assert -0.5 <= first_bias.min() < 0.0
    with pytest.raises(ValueError, match=r"`bounds`.*low=0 and high=-0.5.*NonNeg"):
        fit_lbfgs(model, learnable(), 5, verbose=False, bounds={"kernel": (-1.0, -0.5)})


@pytest.mark.same_python
def test_what_a_killed_writer_has_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """Brackets in a name are no pattern."""
    path = tmp_path / "a[1].npz"
    left, other = (tmp_path / f"{checkpoint.TEMPORARY}{name}-0" for name in (path.name, "a1.npz"))
    for file in (left, other):
        file.touch()
    checkpoint.remove_stale(path)
    assert [*tmp_path.iterdir()] == [other]


# Why it ended.


@pytest.mark.same_python
def test_the_message_says_why_it_ended_and_whether_the_gradient_is_small() -> None:
    small, not_small = "the gradient is small (its largest", "the gradient is not small (its"
    for options, why, judged in (
        ({"iterations": 3}, "all 3 iterations are done", not_small),
        ({"iterations": 50, "maxfun": 2}, "all 2 evaluations are done", not_small),
        ({"iterations": 50, "ftol": 0.5}, "the cost fell by less than ftol = 0.5", not_small),
        ({"iterations": 50, "gtol": 0.1}, "converged", small),
        # The last digits of float32: no step is seen to lead downhill.
        ({"iterations": 5000, "ftol": 0.0, "gtol": 0.0}, "in float32", not_small),
    ):
        model = SparseAutoencoder(3, rho=0.2, beta=0.1, weight_decay=0.01, seed=0)
        history = fit_lbfgs(model, learnable(), verbose=False, **options)
        message, gradient = history.params["message"], history.params["gradient"]
        assert message.startswith(why) or why in message, message
        assert judged in message, message
        assert (gradient <= options.get("gtol", 1e-5)) == (judged == small)
        _, parts = full_cost_and_gradient(model, learnable())
        assert gradient == max(float(np.max(np.abs(part))) for part in parts)
        assert f"component is {gradient:.3g}, gtol = {options.get('gtol', 1e-5):.3g})" in message


@pytest.mark.same_python
def test_what_cannot_change_while_lbfgs_runs_is_refused() -> None:
    for callback in (
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        keras.callbacks.ReduceLROnPlateau(),
    ):
        with pytest.raises(ValueError, match=f"no learning rate.*{type(callback).__name__}"):
            fit_lbfgs(SparseAutoencoder(3), learnable(), 3, callbacks=[callback])
    for options, error in (
        ({"gtol": -1.0}, ValueError),
        ({"ftol": np.nan}, ValueError),
        ({"gtol": "x"}, TypeError),
        ({"maxcor": 0}, ValueError),
        ({"maxls": 2.5}, TypeError),
        ({"maxfun": None}, TypeError),
    ):
        with pytest.raises(error, match=f"`{next(iter(options))}` must"):
            fit_lbfgs(SparseAutoencoder(3), learnable(), 3, verbose=False, **options)
