"""Every cell of the table in docs/saving.md, on every backend."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_impl
from keras_impl import (
    ActivityPenalty,
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
)
from tests.fork_server import Forks
from tests.fresh_process import ROOT, environment
from tests.keras_impl.precision import as_numpy
from tests.keras_impl.saving import CARRY_NO_WEIGHTS, CARRY_WEIGHTS

PAGE = (ROOT / "docs" / "saving.md").read_text(encoding="utf-8")
X = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")


def read_table() -> dict[str, dict[str, str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    return {
        row[0].replace("`", ""): dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]
    }


TABLE = read_table()


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), *layers])


def dense(units: int, **arguments: Any) -> Any:
    return keras.layers.Dense(units, activation="sigmoid", **arguments)


def with_a_tied_layer() -> Any:
    encoder = dense(2, name="encoder")
    return sequential(encoder, DenseTied(tied_to=encoder))


def with_a_tied_layer_in_a_nested_model() -> Any:
    encoder = dense(2, name="encoder")
    decode = [keras.Input((2,)), keras.layers.Dropout(0.0), DenseTied(tied_to=encoder)]
    return keras.Sequential([sequential(encoder), keras.Sequential(decode)])


# A model that carries the object, with its arguments away from their defaults.
MODELS: dict[str, Any] = {
    "KLSparsityRegularizer": lambda: sequential(
        dense(3, activity_regularizer=KLSparsityRegularizer([0.2, 0.1, 0.3], 2.5, epsilon=1e-3)),
        dense(4),
    ),
    "WeightDecay": lambda: sequential(dense(4, kernel_regularizer=WeightDecay(0.3))),
    "HalfSquaredError": lambda: sequential(dense(4)),
    "NgUniform": lambda: sequential(dense(4, kernel_initializer=NgUniform(seed=3))),
    "KLSparsity": lambda: sequential(
        dense(3), KLSparsity((0.2, 0.1, 0.3), 2.5, epsilon=1e-3), dense(4)
    ),
    "KLSparsity, momentum": lambda: sequential(
        dense(3), KLSparsity(np.array([0.2, 0.1, 0.3]), 2.5, momentum=0.75), dense(4)
    ),
    "ActivityPenalty": lambda: sequential(
        dense(3), ActivityPenalty(keras.regularizers.L1L2(0.1, 0.2)), dense(4)
    ),
    "DenseTied": with_a_tied_layer,
    "DenseTied, nested models": with_a_tied_layer_in_a_nested_model,
    "SparseAutoencoder": lambda: SparseAutoencoder(
        [3, 2],
        rho=[0.2, [0.1, 0.3]],
        beta=[3, 1, 0],
        weight_decay=0.3,
        tied=True,
        tied_decay=2,
        seed=0,
    ),
}


@functools.cache
def compiled(name: str) -> Any:
    """The model after a training step; no way of saving changes it."""
    model = MODELS[name]()
    if name == "SparseAutoencoder":
        model.compile(keras.optimizers.SGD(0.1))
    else:
        loss = HalfSquaredError() if name == "HalfSquaredError" else keras.losses.MeanSquaredError()
        model.compile(keras.optimizers.SGD(0.1), loss=loss)
    model.fit(X, X, batch_size=8, verbose=0)
    return model


def numbers(model: Any) -> list[Any]:
    """What a model computes: its output, and every penalty."""
    output = as_numpy(model(X))
    return [output, *(as_numpy(loss) for loss in model.losses)]


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def weighted(again: Any, model: Any) -> Any:
    again(X)
    again.set_weights(model.get_weights())
    return again


WAYS: dict[str, Any] = {**CARRY_NO_WEIGHTS, **CARRY_WEIGHTS}


def saved_model_output(model: Any, folder: Path) -> Any:
    import tensorflow as tf

    model.export(str(folder / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(folder / "saved"))  # it must outlive the call
    return np.asarray(loaded.serve(X))


def onnx_output(model: Any, folder: Path) -> Any:
    import onnx.reference

    path = str(folder / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = onnx.reference.ReferenceEvaluator(path)
    return session.run(None, {session.input_names[0]: X})[0]


EXPORTS = {"SavedModel": saved_model_output, "ONNX": onnx_output}
IN_OTHER_PROCESSES = ("fresh process", "other backend")


def test_the_table_has_every_object_and_every_way() -> None:
    assert list(TABLE) == list(MODELS)
    public = {
        name for name in keras_impl.__all__ if hasattr(getattr(keras_impl, name), "get_config")
    }
    assert public == {name.partition(",")[0] for name in TABLE}
    for name, row in TABLE.items():
        assert list(row) == [*WAYS, *IN_OTHER_PROCESSES, *EXPORTS], name
        for way, cell in row.items():
            if cell.startswith("no"):
                (note,) = re.findall(r"\((\d)\)", cell)
                assert f"\n- ({note})" in PAGE, (name, way)


@pytest.mark.parametrize("name", MODELS)
def test_ways_within_a_process(name: str, tmp_path: Path) -> None:
    model = compiled(name)
    expected = numbers(model)
    for way, function in WAYS.items():
        if TABLE[name][way].startswith("no"):
            with pytest.raises(Exception, match=r".+"):
                function(model, tmp_path)
            continue
        again = function(model, tmp_path)
        if way in CARRY_NO_WEIGHTS:
            again = weighted(again, model)
        assert same(numbers(again), expected), way
        if way == ".keras":
            reported = model.evaluate(X, X, batch_size=8, verbose=0, return_dict=True)
            assert again.evaluate(X, X, batch_size=8, verbose=0, return_dict=True) == reported
            again.fit(X, X, batch_size=8, verbose=0)
            assert not same(numbers(again), expected), "it did not train on"
            assert same(numbers(model), expected), "training the copy moved the model"


def with_everything() -> Any:
    """One model of all the objects that are not models: each export takes seconds."""
    encoder = dense(
        3,
        kernel_initializer=NgUniform(seed=3),
        kernel_regularizer=WeightDecay(0.3),
        activity_regularizer=KLSparsityRegularizer(0.2, 2.5),
    )
    model = sequential(
        encoder,
        KLSparsity(0.2, 2.5),
        KLSparsity(0.2, 2.5, momentum=0.75),
        ActivityPenalty("l2"),
        DenseTied(tied_to=encoder),
    )
    model.compile(keras.optimizers.SGD(0.1), loss=HalfSquaredError())
    model.fit(X, X, batch_size=8, verbose=0)
    return model


@pytest.mark.parametrize("way", EXPORTS)
def test_exports_hold_the_outputs(way: str, tmp_path: Path, backend: str) -> None:
    needed = {"SavedModel": "tensorflow", "ONNX": "onnxscript"}[way]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    (cell,) = {row[way] for row in TABLE.values()}
    models = {
        "everything": with_everything,
        "nested": lambda: compiled("DenseTied, nested models"),
        "SparseAutoencoder": lambda: compiled("SparseAutoencoder"),
        "encoder": lambda: compiled("SparseAutoencoder").encoder,
    }
    for name, make in models.items():
        model = make()
        folder = tmp_path / name
        folder.mkdir()
        if backend not in cell:
            with pytest.raises(Exception, match=r".+"):
                EXPORTS[way](model, folder)
            return
        # Another program for the same sums of at most four terms, twice, and their sigmoids: 16
        # roundoffs for a sigmoid on either side.
        exported = EXPORTS[way](model, folder)
        assert np.max(np.abs(exported - numbers(model)[0])) <= 2 * (16 + 16) * 2.0**-24, name


LOADER = """
import json, sys, numpy as np, keras
folder = sys.argv[1]
x = np.load(folder + "/x.npy")
names = json.load(open(folder + "/names.json"))
found = {}
for i, name in enumerate(names):
    try:
        keras.models.load_model(f"{folder}/{i}.keras")
        found[name] = {"without": None}
    except Exception as error:
        found[name] = {"without": f"{type(error).__name__}: {error}"}
import keras_impl
for i, name in enumerate(names):
    model = keras.models.load_model(f"{folder}/{i}.keras", compile=False)
    output = keras.ops.convert_to_numpy(model(x)).tolist()
    found[name] |= {"output": output, "losses": [float(loss) for loss in model.losses]}
print("FOUND" + json.dumps(found))
"""


NEXT = {"jax": "tensorflow", "tensorflow": "torch", "torch": "jax"}


@pytest.mark.parametrize("where", IN_OTHER_PROCESSES)
def test_another_process_loads_it(where: str, tmp_path: Path, backend: str, forks: Forks) -> None:
    """`import keras_impl` and nothing else; without it Keras says that it knows no such class."""
    other = backend if where == "fresh process" else NEXT[backend]
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    expected = {}
    for i, name in enumerate(MODELS):
        model = compiled(name)
        model.save(tmp_path / f"{i}.keras")
        expected[name] = numbers(model)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "names.json").write_text(json.dumps(list(MODELS)))
    if other == backend:
        printed = forks.run(LOADER, str(tmp_path))
    else:
        done = subprocess.run(
            [sys.executable, "-c", LOADER, str(tmp_path)],
            cwd=ROOT,
            env=environment(other),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        printed = done.stdout
    found = json.loads(printed.partition("FOUND")[2].splitlines()[0])
    for name in MODELS:
        assert TABLE[name][where] == "yes"
        without = found[name]["without"]
        assert without is not None, name
        # Where the object is in the loss alone, Keras first misses torch's own optimizer.
        messages = (
            "could not be deserialized|Could not locate class|Could not deserialize class 'SGD'"
        )
        assert re.search(messages, without), without
        output, *losses = expected[name]
        # Small sums in float32: at most 16 roundoffs for a sigmoid and a logarithm, on two sides.
        assert np.max(np.abs(np.array(found[name]["output"]) - output)) <= 64 * 2.0**-24, name
        assert len(found[name]["losses"]) == len(losses), name
        for loss, there in zip(losses, found[name]["losses"], strict=True):
            assert abs(there - loss) <= 128 * 2.0**-24 * max(1.0, abs(loss)), name


def test_a_reloaded_model_goes_on_with_the_state_of_its_optimizer(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
    model = SparseAutoencoder(3, seed=0)
    model.compile("adam")
    model.fit(x, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, after = ([as_numpy(v) for v in m.optimizer.variables] for m in (model, loaded))
    assert len(before) > len(model.weights)
    assert len(before) == len(after)
    assert all(map(np.array_equal, before, after))
