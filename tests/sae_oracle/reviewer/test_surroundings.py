"""A review in process leaves everything around it as it was."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_impl.backends.keras_internals import seeds_kept
from sae_oracle import review
from tests.keras_impl.precision import as_numpy

TARGET = """
import json, os, random, sys
import keras
import numpy as np
import neighbour_of_the_target
from keras_impl import KLSparsityRegularizer

random.seed(0)
np.random.seed(0)
keras.utils.set_random_seed(0)
os.environ["LEFT_BY_THE_TARGET"] = "1"
os.environ.pop("SET_BEFORE", None)
sys.path.insert(0, "/nowhere")
sys.modules["json"] = sys
os.chdir("/")
keras.config.set_floatx("float64")
np.seterr(all="raise")
Mine = KLSparsityRegularizer
"""


def seed_of_tensorflow() -> object:
    """Its seed, and where its generator is."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    return None if eager is None else (eager.context()._seed, eager.context()._rng.getstate())


def test_everything_around_a_review_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import keras
    from keras.src.backend.common import global_state

    (tmp_path / "target_of_the_test.py").write_text(TARGET)
    (tmp_path / "neighbour_of_the_target.py").write_text("")
    monkeypatch.setenv("SET_BEFORE", "1")

    def around() -> list[object]:
        legacy = np.random.get_state()  # noqa: NPY002
        return [
            random.getstate(),
            (legacy[1].tolist(), legacy[2]),
            dict(os.environ),
            [*sys.path],
            os.getcwd(),
            keras.config.floatx(),
            np.geterr(),
            global_state.get_global_attribute("global_random_seed"),
            seed_of_tensorflow(),
        ]

    keras.utils.set_random_seed(5)
    keras.random.uniform((1,))  # Keras's generator begins
    with seeds_kept():
        drawn = as_numpy(keras.random.uniform((3,)))
    before = around()
    found = review(f"{tmp_path / 'target_of_the_test.py'}:Mine", rho="rho", beta="beta")
    assert not found.reason
    assert around() == before
    assert as_numpy(keras.random.uniform((3,))).tolist() == drawn.tolist()
    assert sys.modules["json"] is json
    assert not {"target_of_the_test", "neighbour_of_the_target"} & set(sys.modules)


def test_seeds_that_nobody_has_set_are_kept_too() -> None:
    """TensorFlow has no generator before its first seed, whatever backend Keras runs on."""
    eager = pytest.importorskip("tensorflow.python.eager.context")
    context = eager.context()
    seed, generator = context._seed, context.__dict__.pop("_rng", None)
    context._seed = None
    try:
        with seeds_kept():
            context._set_global_seed(3)
        assert context._seed is None
    finally:
        context._seed = seed
        if generator is not None:
            context._rng = generator
