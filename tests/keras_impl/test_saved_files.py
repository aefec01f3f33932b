"""Files that people have saved load for ever, and predict what they predicted.

`tests/data/saved_by_0_1_0` was written by that version on each backend
(`tests/data/write_saved_models.py`) and is never written again.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_impl  # noqa: F401  (registers the objects)
from tests.data.write_saved_models import MODELS, data_of, numbers

SAVED = Path(__file__).parents[1] / "data" / "saved_by_0_1_0"


def expected_of(backend: str) -> dict[str, dict[str, list[float]]]:
    return json.loads((SAVED / backend / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_an_earlier_version_loads(name: str, backend: str) -> None:
    # torch writes its own class of optimizer into a file, which no other backend knows.
    for written_by in ("jax", "tensorflow", "torch"):
        expected = expected_of(written_by).get(name)
        if expected is None:
            continue
        path = SAVED / written_by / f"{name}.keras"
        model = keras.models.load_model(path, compile=written_by == backend)
        if name == "autoencoder_float64" and backend == "jax":
            continue  # it loads; JAX computes in float32 unless it is asked for float64
        if written_by != backend:
            model.compile("sgd", **({} if name.startswith("autoencoder") else {"loss": "mse"}))
        found = numbers(name, model)
        if written_by != backend and not name.startswith("autoencoder"):
            for numbers_of in (found, expected):
                numbers_of.pop("full_cost", None)  # of the loss that was not loaded
        assert found.keys() == expected.keys()
        # Sums of at most four terms, then a sigmoid and a logarithm of at most 16 roundoffs each,
        # on two sides; bfloat16 activations are rounded to 2⁻⁹.
        roundoff = 2.0**-9 if "bfloat16" in name else 2.0**-24
        for quantity, value in expected.items():
            difference = np.abs(np.array(found[quantity]) - np.array(value))
            assert np.all(difference <= 128 * roundoff * np.maximum(1.0, np.abs(value))), (
                written_by,
                quantity,
            )


def test_a_loaded_model_trains_on(backend: str) -> None:
    for name in ("autoencoder_tied", "dense_tied_nested", "layer_momentum"):
        model = keras.models.load_model(SAVED / backend / f"{name}.keras")
        x = data_of(name)
        before = numbers(name, model)["output"]
        model.fit(x, None if name.startswith("autoencoder") else x, batch_size=8, verbose=0)
        assert numbers(name, model)["output"] != before, name


def test_nothing_is_saved_that_is_not_loaded(backend: str) -> None:
    files = {path.stem for path in (SAVED / backend).glob("*.keras")}
    assert files == set(expected_of(backend)) <= set(MODELS)
