"""Weights out of a model and into it: as the oracle's parameters, and as the notes' θ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import reference
from keras_impl import SparseAutoencoder, full_cost, set_parameters, to_parameters
from sae_oracle.samples import Preprocessing
from sae_oracle.workers.oracle_bridge import oracle_arguments
from tests.asserting import inside
from tests.keras_impl.precision import as_numpy, computing_in, rounded

U = 2.0**-24
X = rounded(np.random.default_rng(0).uniform(size=(8, 4)), "float32").astype("float32")


def built(hidden: Any = 3, **arguments: Any) -> Any:
    model = SparseAutoencoder(hidden, **{"seed": 0, **arguments})
    model.build((None, 4))
    return model


@pytest.mark.inference
@pytest.mark.equation("EQ-PACK", "EQ-UNPACK", "EQ-COST")
def test_theta_of_the_assignment_is_matlabs_column_by_column() -> None:
    """[W1(:); W2(:); b1(:); b2(:)] with W1 of shape (hidden, visible), and a = f(W1 x + b1)."""
    generator = np.random.default_rng(1)
    w1, w2 = (rounded(generator.normal(size=shape), "float32") for shape in ((3, 4), (4, 3)))
    b1, b2 = (rounded(generator.normal(size=size), "float32") for size in (3, 4))
    theta = np.concatenate([w1.ravel("F"), w2.ravel("F"), b1, b2])
    model = built()
    for form in (theta, theta[:, None], theta[None], theta.tolist(), theta.astype("float32")):
        set_parameters(model, 0.0 * theta)
        set_parameters(model, form)
        assert np.array_equal(as_numpy(model.kernels[0]), w1.T)
        assert np.array_equal(as_numpy(model.kernels[1]), w2.T)
        assert np.array_equal(reference.pack(to_parameters(model)), theta)
    hidden = 1.0 / (1.0 + np.exp(-(w1 @ X[0].astype("float64") + b1)))
    # Sums of 4 terms in float32, values below 1, as in the tests of `encode`.
    assert np.max(np.abs(as_numpy(model.encode(X[:1]))[0] - hidden)) <= 22 * 2.0**-24
    expected = reference.cost_and_gradient_with_bounds(
        reference.unpack(theta, reference.initialise((4, 3, 4), seed=0)),
        X,
        **oracle_arguments(model),
    )
    inside("the cost", full_cost(model, X).total, expected.cost.total)


@pytest.mark.inference
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "float16"])
def test_there_and_back_is_one_rounding(precision: str, tied: bool) -> None:
    """Of deep and shallow models, built or not; their variables may have 16 bits."""
    with computing_in(precision):
        for hidden in (3, (3, 2), (5, 3, 2)):
            sizes = (4, *np.atleast_1d(hidden), *np.atleast_1d(hidden)[-2::-1], 4)
            start = reference.initialise([int(n) for n in sizes], seed=3, tied=tied)
            theta = reference.pack(start)
            for model in (
                SparseAutoencoder(hidden, tied=tied, dtype=precision),
                built(hidden, tied=tied, dtype=precision),
            ):
                set_parameters(model, start)
                found = to_parameters(model)
                assert (found.sizes, found.tied) == (start.sizes, tied)
                assert np.array_equal(reference.pack(found), rounded(theta, precision))
                set_parameters(model, -theta)
                assert np.array_equal(
                    reference.pack(to_parameters(model)), rounded(-theta, precision)
                )


@pytest.mark.equation("EQ-BOUND-DESCENT")
def test_in_the_middle_of_an_epoch() -> None:
    """What a callback reads is of this step, and what it writes counts in the next one."""
    model = built(rho=0.125, weight_decay=0.125)
    arguments = oracle_arguments(model)
    model.compile(keras.optimizers.SGD(0.25))
    start = to_parameters(model)
    read: list[reference.Parameters] = []

    class Both(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            read.append(to_parameters(self.model))
            if batch == 1:
                set_parameters(self.model, start)

    model.fit(np.concatenate([X] * 4), batch_size=8, shuffle=False, verbose=0, callbacks=[Both()])
    assert len(read) == 4
    for steps, found in zip((1, 2, 1, 2), [*read[:3], to_parameters(model)], strict=True):
        expected = reference.gradient_descent_with_bounds(
            start, X, steps=steps, learning_rate=0.25, **arguments
        )
        for kind in ("kernels", "biases"):
            for array, value in zip(getattr(found, kind), getattr(expected, kind), strict=True):
                inside(f"{kind} after step {steps}", array, value)


@pytest.mark.inference
def test_what_does_not_fit_is_refused_and_nothing_is_changed() -> None:
    model = built()
    before = reference.pack(to_parameters(model))
    n = len(before)
    sizes = r"the sizes \(4, 3, 4\)"
    tied = reference.initialise((4, 3, 4), seed=0, tied=True)
    large = reference.unpack(np.r_[before[:-1], 1e39], to_parameters(model))
    for wrong, kind, message in (
        (np.zeros(n - 1), ValueError, rf"the {n} numbers of a network of {sizes}.*\({n - 1},\)"),
        (np.zeros((2, n)), ValueError, rf"the {n} numbers.*\(2, {n}\)"),
        (np.zeros((4, n // 4 + 1)), ValueError, f"the {n} numbers"),
        (np.full(n, np.nan), ValueError, "`parameters` must be finite"),
        (np.zeros(n, complex), TypeError, "`parameters` must be a `reference.Parameters` or"),
        (None, TypeError, "`parameters` must be a `reference.Parameters` or"),
        (tied, ValueError, f"must have {sizes} and tied=False.*tied=True"),
        (reference.initialise((5, 3, 5), seed=0), ValueError, rf"must have {sizes}.*\(5, 3, 5\)"),
        (reference.initialise((4, 3, 5), seed=0), ValueError, rf"must have {sizes}.*\(4, 3, 5\)"),
        (large, ValueError, r"`parameters` must fit into float32.*1e\+39 for bias_1"),
    ):
        with pytest.raises(kind, match=message):
            set_parameters(model, wrong)
        assert np.array_equal(reference.pack(to_parameters(model)), before)
    with pytest.raises(TypeError, match=r"must be a SparseAutoencoder.*`get_weights`.*Dense"):
        to_parameters(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="`model` has no weights yet"):
        to_parameters(SparseAutoencoder(2))
    with pytest.raises(ValueError, match=r"how many inputs there are.*\(31,\)"):
        set_parameters(SparseAutoencoder(3), np.zeros(31))
    new = SparseAutoencoder(3)
    with pytest.raises(ValueError, match=r"must have the sizes \(5, 3, 5\)"):
        set_parameters(new, reference.initialise((5, 2, 5), seed=0))
    assert not new.built


@pytest.mark.inference
@pytest.mark.equation("EQ-FORWARD")
def test_the_command_encodes_raw_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process on this backend, with what a training keeps beside its model."""
    from sae_oracle.workers import encode

    model = built((3, 2), tied=True)
    model.save(tmp_path / "model.keras")
    raw = np.random.default_rng(1).normal(5.0, 3.0, size=(9, 4))
    prepare = Preprocessing.fitted("rescale", raw)
    about = {"settings": {}, "preprocessing": prepare.described()}
    (tmp_path / "history.json").write_text(json.dumps(about))
    np.save(tmp_path / "raw.npy", raw)
    files = ("--model=model.keras", "--data=raw.npy", "--into=code.npy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["encode", *files])
    monkeypatch.setattr(encode, "ROWS", 4)
    encode.main()
    assert json.loads(capsys.readouterr().out)["shape"] == [9, 2]
    # The inputs are rounded once, and lie inside [0, 1]; then as in the tests of `encode`.
    expected = reference.forward(to_parameters(model), prepare(raw)).activations[2]
    assert np.max(np.abs(np.load(tmp_path / "code.npy") - expected)) <= 2 * 24 * U
