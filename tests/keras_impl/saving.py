"""Every way in which people copy or store a Keras model; each returns another model."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np

FEATURES = 4
"""Of the input of every model that the tests save."""


def by_config(model: Any, folder: Path) -> Any:
    return type(model).from_config(model.get_config())


def by_json(model: Any, folder: Path) -> Any:
    return keras.models.model_from_json(json.dumps(json.loads(model.to_json())))


def by_clone(model: Any, folder: Path) -> Any:
    return keras.models.clone_model(model)


def by_pickle(model: Any, folder: Path) -> Any:
    return pickle.loads(pickle.dumps(model))


def by_deepcopy(model: Any, folder: Path) -> Any:
    return copy.deepcopy(model)


def by_keras_file(model: Any, folder: Path) -> Any:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def by_weights_file(model: Any, folder: Path) -> Any:
    model.save_weights(folder / "model.weights.h5")
    again = by_clone(model, folder)
    again(np.ones((1, FEATURES), "float32"))
    again.load_weights(folder / "model.weights.h5")
    return again


def by_legacy_file(model: Any, folder: Path) -> Any:
    model.save(folder / "model.h5")
    return keras.models.load_model(folder / "model.h5", compile=False)


CARRY_NO_WEIGHTS = {"config": by_config, "JSON": by_json, "clone": by_clone}

CARRY_WEIGHTS = {
    "pickle": by_pickle,
    "deepcopy": by_deepcopy,
    ".keras": by_keras_file,
    ".weights.h5": by_weights_file,
    ".h5": by_legacy_file,
}
