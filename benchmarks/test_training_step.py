"""How long is a training step with the penalty, and without it?

    KERAS_BACKEND=torch pytest benchmarks

pytest-benchmark prints both rows side by side for the backend of the process. The two are timed
one after the other: a difference of a few per cent is within its noise.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_impl import HalfSquaredError, KLSparsityRegularizer

FEATURES, UNITS, ROWS = 784, 196, 256


@pytest.mark.parametrize("penalty", ["none", "L2", "KLSparsityRegularizer", "from logits"])
def test_training_step(benchmark: Any, penalty: str) -> None:
    """One `train_on_batch` of 784-196-784 with 256 rows."""
    regularizer = {
        "none": None,
        "L2": keras.regularizers.L2(1e-4),
        "KLSparsityRegularizer": KLSparsityRegularizer(0.05, 3.0),
        "from logits": KLSparsityRegularizer(0.05, 3.0, from_logits=True),
    }[penalty]
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(UNITS, activity_regularizer=regularizer)
            if penalty == "from logits"
            else keras.layers.Dense(UNITS, activation="sigmoid", activity_regularizer=regularizer),
            *([keras.layers.Activation("sigmoid")] if penalty == "from logits" else []),
            keras.layers.Dense(FEATURES, activation="sigmoid"),
        ]
    )
    model.compile("sgd", loss=HalfSquaredError())
    x = np.random.default_rng(0).uniform(size=(ROWS, FEATURES)).astype("float32")

    def step() -> float:
        # Turning the loss into a number waits for the device.
        return float(ops.convert_to_numpy(model.train_on_batch(x, x)))

    assert np.isfinite(step())
    benchmark.pedantic(step, rounds=30, warmup_rounds=5)
