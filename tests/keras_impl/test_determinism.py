"""The same seed gives the same bits, in this process and in another (docs/training.md)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_impl import SparseAutoencoder, fit_lbfgs, full_cost_and_gradient
from tests.fresh_process import ROOT, environment

SAMPLES, FEATURES = 200, 64


def data() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(SAMPLES, FEATURES)).astype("float32")


def model() -> SparseAutoencoder:
    keras.utils.set_random_seed(7)
    return SparseAutoencoder(25, rho=0.05, beta=3.0, weight_decay=1e-4, seed=3)


def fit(model: SparseAutoencoder) -> list[Any]:
    model.compile("adam")
    history = model.fit(data(), batch_size=32, epochs=1, shuffle=True, verbose=0)
    return [*model.trainable_variables, history.history["loss"]]


def cost(model: SparseAutoencoder) -> list[Any]:
    found, gradient = full_cost_and_gradient(model, data(), batch_size=48)
    return [found.total, *found.mean_activations, *gradient]


def lbfgs(model: SparseAutoencoder) -> list[Any]:
    fit_lbfgs(model, data(), batch_size=48, iterations=3, verbose=False)
    return [*model.trainable_variables]


RUNS: dict[str, Callable[[SparseAutoencoder], list[Any]]] = {
    "fit": fit,
    "full_cost_and_gradient": cost,
    "fit_lbfgs": lbfgs,
}


def digest(name: str) -> str:
    """A digest of all bits of what a run leaves."""
    found = hashlib.sha256()
    for part in RUNS[name](model()):
        found.update(np.asarray(ops.convert_to_numpy(part)).tobytes())
    return found.hexdigest()


def digests() -> str:
    return "\n".join(f"{name} {digest(name)}" for name in RUNS)


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """The digests of another process, with as many threads."""
    run = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import digests; print(digests())"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(keras.config.backend()),
    )
    assert run.returncode == 0, run.stderr
    return dict(line.split() for line in run.stdout.splitlines()[-len(RUNS) :])


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_same_bits(name: str, elsewhere: dict[str, str]) -> None:
    assert digest(name) == elsewhere[name]
