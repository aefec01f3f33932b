"""What has the same bits: from the same seed, and in any chunks (docs/training.md)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    FullCost,
    KLSparsity,
    SparseAutoencoder,
    WeightDecay,
    fit_lbfgs,
    full_cost,
    full_cost_and_gradient,
)
from keras_impl.exact.reproducible import ExactSums
from sae_oracle.workers.oracle_bridge import oracle_arguments, to_parameters
from tests.asserting import inside
from tests.fresh_process import ROOT, environment
from tests.keras_impl.precision import computing_in, rounded

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


def reproducible(model: SparseAutoencoder) -> list[Any]:
    return numbers_of(full_cost(model, data(), reproducible=True))


def numbers_of(cost: FullCost) -> list[Any]:
    return [cost.reconstruction, cost.weight_decay, cost.sparsity, *cost.mean_activations]


def lbfgs(model: SparseAutoencoder) -> list[Any]:
    fit_lbfgs(model, data(), batch_size=48, iterations=3, verbose=False)
    return [*model.trainable_variables]


RUNS: dict[str, Callable[[SparseAutoencoder], list[Any]]] = {
    "fit": fit,
    "full_cost_and_gradient": cost,
    "full_cost, reproducible": reproducible,
    "fit_lbfgs": lbfgs,
}


def digest(name: str) -> str:
    """A digest of all bits of what a run leaves."""
    return digest_of(RUNS[name](model()))


def digest_of(parts: list[Any]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(np.asarray(ops.convert_to_numpy(part)).tobytes())
    return found.hexdigest()


def digests() -> str:
    return "\n".join(f"{digest(name)} {name}" for name in RUNS)


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
    lines = [line.split(maxsplit=1) for line in run.stdout.splitlines()[-len(RUNS) :]]
    return {name: found for found, name in lines}


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_same_bits(name: str, elsewhere: dict[str, str]) -> None:
    assert digest(name) == elsewhere[name]


class Batches:
    """Samples in random order, in batches of random sizes, another time as well."""

    def __init__(self, generator: np.random.Generator, *arrays: Any) -> None:
        order = generator.permutation(len(arrays[0]))
        ends = np.sort(generator.choice(np.arange(1, len(order)), size=6, replace=False))
        self.batches = [tuple(a[rows] for a in arrays) for rows in np.split(order, ends)]

    def __iter__(self) -> Any:
        return iter(self.batches)


# Wide enough that a product of another number of rows has other bits.
OPTIONS: dict[str, dict[str, Any]] = {
    "notes": {"hidden_units": 25, "rho": 0.05, "weight_decay": 1e-4},
    "tied": {"hidden_units": 25, "rho": 0.2, "weight_decay": 1e-4, "tied": True},
    "deep, from logits": {"hidden_units": (25, 9), "rho": 0.1, "from_logits": True},
}


@pytest.mark.equation("EQ-COST", "EQ-RHO-HAT-CHUNKS")
@pytest.mark.parametrize(
    ("name", "precision"),
    [("notes", "float32"), ("tied", "bfloat16"), ("deep, from logits", "float64")],
)
def test_a_reproducible_cost_has_the_same_bits_in_any_chunks(name: str, precision: str) -> None:
    generator = np.random.default_rng(1)
    x = rounded(generator.uniform(size=(20, FEATURES)), "bfloat16").astype("float32")
    with computing_in(precision) as policy:
        model = SparseAutoencoder(**OPTIONS[name], beta=3.0, seed=3, dtype=policy)
        costs = [
            full_cost(model, data, batch_size, reproducible=True)
            for data, batch_size in (
                (x, None),
                (x[::-1], 10),
                *((Batches(generator, x), size) for size in (None, 5)),
            )
        ]
        if name == "notes":  # else compiled for nothing: these chunks do have other bits
            assert len({full_cost(model, x, batch_size).total for batch_size in (None, 10, 5)}) > 1
        step = reference.cost_and_gradient_with_bounds(
            to_parameters(model),
            x,
            **oracle_arguments(model),
            from_logits=model.penalties[0].from_logits,
            precision=precision,
        )
    assert len({digest_of(numbers_of(cost)) for cost in costs}) == 1
    for term in ("reconstruction", "weight_decay", "sparsity", "total"):
        inside(term, getattr(costs[0], term), getattr(step.cost, term))


@pytest.mark.parametrize("from_logits", [False, True])
def test_a_reproducible_cost_has_masks_targets_and_weights(from_logits: bool) -> None:
    generator = np.random.default_rng(2)
    x = generator.uniform(0.1, 1.0, size=(13, 4, 30)).astype("float32")
    x[np.arange(4) >= generator.integers(0, 5, size=(13, 1))] = 0.0  # some have no step at all
    y, weights = x[..., ::-1], generator.uniform(size=13).astype("float32")
    penalty, sigmoid = (
        KLSparsity(0.1, 2.0, from_logits=from_logits),
        keras.layers.Activation("sigmoid"),
    )
    model = keras.Sequential(
        [
            keras.layers.Masking(),
            keras.layers.Dense(11, kernel_regularizer=WeightDecay(1e-3)),
            *((penalty, sigmoid) if from_logits else (sigmoid, penalty)),
            keras.layers.Dense(30),
        ]
    )
    model.compile(loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    cost = full_cost(model, x, y=y, sample_weight=weights, reproducible=True)
    again = full_cost(model, Batches(generator, x, y, weights), reproducible=True)
    assert digest_of(numbers_of(again)) == digest_of(numbers_of(cost))
    plain = full_cost(model, x, y=y, sample_weight=weights)
    # Sums of at most 13·4·30 terms in float32 on either side, of positive terms.
    np.testing.assert_allclose(
        np.concatenate([np.ravel(part) for part in numbers_of(cost)]),
        np.concatenate([np.ravel(part) for part in numbers_of(plain)]),
        rtol=2 * 13 * 4 * 30 * 2.0**-24,
    )


def test_a_reproducible_cost_of_saturated_units_and_of_what_is_not_finite() -> None:
    model = SparseAutoencoder(2, rho=0.1, from_logits=True, seed=0)
    model.build((None, 3))
    model.biases[0].assign([-300.0, -3e4])  # σ is far below the least float64 number
    x = np.random.default_rng(0).uniform(size=(7, 3)).astype("float32")
    cost = full_cost(model, x, reproducible=True)
    # Logits of 3 terms and their logarithms, in float32 on either side: some 16 roundoffs.
    assert cost.sparsity == pytest.approx(full_cost(model, x).sparsity, rel=2.0**-20)
    x[3, 1] = np.nan
    digests = [
        digest_of(numbers_of(full_cost(model, x[order], reproducible=True)))
        for order in (slice(None), slice(None, None, -1))
    ]
    assert digests[0] == digests[1]
    assert np.isnan(full_cost(model, x, reproducible=True).reconstruction)


def test_exact_sums_are_the_nearest_numbers() -> None:
    generator = np.random.default_rng(0)
    terms = np.ldexp(generator.normal(size=(40, 30)), generator.integers(-1074, 1000, (40, 30)))
    terms[:, :5] = np.ldexp(generator.integers(-5, 5, size=(40, 5)).astype(float), -1074)
    terms[:, 5:7] = 1e308, -1e308  # their sum has no float64 number, and is no NaN
    terms[7, 7], terms[8:10, 8] = np.inf, (np.inf, -np.inf)
    sums = ExactSums(30)
    for row in terms:
        sums.add(row)
    finite = np.delete(terms, range(5, 9), axis=1)
    expected = [float(sum(map(Fraction, column))) for column in finite.T.tolist()]
    expected[5:5] = [np.inf, -np.inf, np.inf, np.nan]
    np.testing.assert_array_equal(sums.nearest(), expected)


def test_a_reproducible_cost_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_impl.exact.objective.worker_count", lambda: 2)
    with pytest.raises(ValueError, match="Received True, with 2 worker processes"):
        full_cost(model(), data(), reproducible=True)
    full_cost(model(), data()[:3], reproducible=True, cross_replica=False)
