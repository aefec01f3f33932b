"""What `fit` trains, and the exact cost in chunks, against the oracle: every object, fed every way.

One network of two layers stands for all: penalties between them (one, two, one with β = 0 beside
another), a decoder of its own or a tied one, and a loss. Its data are rows, sequences or images, in
batches whose size a compiled step knows or does not, under masks that leave all, one position, one
batch of two, or nothing, with and without weights, in each reduction. The cases below are chosen so
that any two of these meet; `reference` knows the cost of each, and value and weights are held.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

import reference
from keras_impl import (
    ActivityPenalty,
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    WeightDecay,
    full_cost_and_gradient,
)
from reference.rounding import Bounded, exact
from tests.asserting import inside, training_inside, value_and_gradient_inside
from tests.keras_impl.combinations.cells import parameters_of
from tests.keras_impl.combinations.options import ValidSteps
from tests.keras_impl.combinations.oracle import (
    Expected,
    ngs_cost,
    nothing_but_decay,
    sum_of,
    wide_arithmetic,
)
from tests.keras_impl.combinations.subjects import BETA as OWN_BETA
from tests.keras_impl.combinations.subjects import RHO as OWN_RHO
from tests.keras_impl.combinations.subjects import sum_of_divergences
from tests.keras_impl.precision import as_numpy, rounded

FEATURES, HIDDEN, RATE, EPSILON, DECAY = 2, 3, 0.5, 1e-6, 0.25


@dataclass(frozen=True)
class Penalty:
    """One sparsity term of the network.

    Args:
        object: "regularizer", "layer", "average" or "any", the function of somebody else.
        rho: ρ.
        beta: β.
    """

    object: str
    rho: float
    beta: float

    def sees(self, valid: np.ndarray) -> np.ndarray:
        """Which positions count: no mask reaches a regularizer."""
        return np.ones_like(valid) if self.object == "regularizer" else valid


PENALTIES: dict[str, tuple[Penalty, ...]] = {
    "regularizer": (Penalty("regularizer", 0.2, 0.5),),
    "layer": (Penalty("layer", 0.3, 0.5),),
    "average": (Penalty("average", 0.2, 0.5),),
    "any": (Penalty("any", OWN_RHO, OWN_BETA),),
    "two": (Penalty("regularizer", 0.2, 0.5), Penalty("layer", 0.4, 0.25)),
    "beta 0 first": (Penalty("regularizer", 0.2, 0.0), Penalty("layer", 0.3, 0.5)),
    "beta 0 last": (Penalty("regularizer", 0.2, 0.5), Penalty("layer", 0.3, 0.0)),
}
SIZES = {2: (), 3: (3,), 4: (2, 2)}
# Samples, and how many are in a batch: where that does not divide them, no compiled step of
# TensorFlow knows it.
BATCHES = {"known": (8, 4), "unknown": (7, 4)}
REDUCTIONS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")
AXES: dict[str, tuple[Any, ...]] = {
    "penalties": tuple(PENALTIES),
    "from_logits": (False, True),
    "rank": (2, 3, 4),
    "batches": ("known", "unknown"),
    "mask": ("none", "some", "one position", "one batch", "nothing"),
    "weights": ("none", "samples", "positions"),
    "reduction": REDUCTIONS,
    "tied": (False, True),
}


def can_be(case: dict[str, Any]) -> bool:
    """Rows have neither steps that can be masked nor positions that can be weighed."""
    if case["from_logits"] and case["penalties"] in ("average", "any"):
        return False
    if case["rank"] == 2:
        return case["mask"] == "none" and case["weights"] != "positions"
    return True


def pairs_of(case: dict[str, Any]) -> set[Any]:
    return set(itertools.combinations(case.items(), 2))


def cases_in_pairs() -> list[dict[str, Any]]:
    """Few cases in which every two values meet that can: greedily, the richest of many first."""
    generator = np.random.default_rng(0)
    names = list(AXES)
    possible = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*AXES.values())
    ]
    possible = [case for case in possible if can_be(case)]
    missing = set().union(*map(pairs_of, possible))
    chosen: list[dict[str, Any]] = []
    while missing:
        tried = [possible[i] for i in generator.choice(len(possible), size=300)]
        best = max(tried, key=lambda case: len(pairs_of(case) & missing))
        if pairs_of(best) & missing:
            chosen.append(best)
            missing -= pairs_of(best)
    return chosen


CASES = cases_in_pairs()


def test_any_two_values_meet() -> None:
    met = set().union(*map(pairs_of, CASES))
    for first, second in itertools.combinations(AXES, 2):
        for value, other in itertools.product(AXES[first], AXES[second]):
            pair = ((first, value), (second, other))
            can = any(
                can_be({**case, first: value, second: other, **rest})
                for case in CASES
                for rest in ({}, {"rank": 3} if "rank" not in (first, second) else {})
            )
            assert (pair in met) or not can, pair


class Network:
    """The network of a case, its data, and what the oracle says of a part of them."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.penalties = PENALTIES[case["penalties"]]
        samples, self.batch = BATCHES[case["batches"]]
        generator = np.random.default_rng(0)
        shape = (samples, *SIZES[case["rank"]])
        self.x = rounded(generator.uniform(0.1, 1.0, size=(*shape, FEATURES)), "float32")
        self.y = rounded(generator.uniform(size=(*shape, FEATURES)), "float32")
        steps = np.ones(shape[:2], dtype=bool)
        if case["mask"] == "some":
            steps[0, -1] = steps[1, 0] = False
            steps[3] = False  # a whole sample
        elif case["mask"] == "one position":
            steps[:] = False
            steps[0, 0] = steps[self.batch, 1] = True
        elif case["mask"] == "one batch":
            steps[self.batch :] = False
        elif case["mask"] == "nothing":
            steps[:] = False
        self.x[:, ...][~steps] = -1.0 if case["rank"] > 2 else self.x[~steps]
        self.valid = np.any(self.x != -1.0, axis=tuple(range(2, self.x.ndim)))
        if case["rank"] == 2:
            self.valid = np.ones(samples, dtype=bool)
        self.valid = np.broadcast_to(
            self.valid.reshape(self.valid.shape + (1,) * (len(shape) - self.valid.ndim)), shape
        )
        of_weights = {"none": None, "samples": shape[:1], "positions": shape}[case["weights"]]
        self.weights = None
        if of_weights is not None:
            self.weights = rounded(generator.uniform(0.25, 2.0, size=of_weights), "bfloat16")
            self.weights.flat[1] = 0.0
        self.model = self.made()

    def made(self) -> Any:
        case, samples = self.case, len(self.x)
        shape = self.x.shape[1:]
        of_dense: dict[str, Any] = {"kernel_regularizer": WeightDecay(DECAY)}
        between: list[Any] = []
        from_logits = case["from_logits"]
        for penalty in self.penalties:
            arguments = {"rho": penalty.rho, "beta": penalty.beta, "from_logits": from_logits}
            if penalty.object == "regularizer":
                of_dense["activity_regularizer"] = KLSparsityRegularizer(**arguments)
            elif penalty.object == "any":
                between.append(ActivityPenalty(sum_of_divergences))
            elif penalty.object == "average":
                # Of a single batch: the second of two has nothing to see, or its own mean alone.
                momentum = 0.75 if case["mask"] == "one batch" else 0.0
                between.append(KLSparsity(**arguments, momentum=momentum))
            else:
                between.append(KLSparsity(**arguments))
        activation = None if from_logits else "sigmoid"
        encoder = keras.layers.Dense(HIDDEN, activation=activation, name="encoder", **of_dense)
        if from_logits:
            between.append(keras.layers.Activation("sigmoid"))
        if case["tied"]:
            decoder: Any = DenseTied(tied_to=encoder, activation="sigmoid")
        else:
            decoder = keras.layers.Dense(
                FEATURES, activation="sigmoid", kernel_regularizer=WeightDecay(DECAY)
            )
        known = case["batches"] == "known"
        inputs = (
            keras.Input(batch_shape=(self.batch, *shape))
            if known
            else keras.Input((*(None for _ in shape[:-1]), FEATURES))
        )
        masked = [ValidSteps()] if case["mask"] != "none" else []
        model = keras.Sequential([inputs, *masked, encoder, *between, decoder])
        start = reference.initialise((FEATURES, HIDDEN, FEATURES), seed=1, tied=case["tied"])
        self.kernels, self.biases = parameters_of(model)
        for variable, value in zip(self.kernels, start.kernels, strict=True):
            variable.assign(value.astype("float32"))
        self.start = reference.Parameters(
            [as_numpy(kernel.value) for kernel in self.kernels],
            [as_numpy(bias.value) for bias in self.biases],
            tied=case["tied"],
        )
        reduction = case["reduction"]
        loss = HalfSquaredError(axis=-1, reduction=reduction)
        model.compile(keras.optimizers.SGD(RATE), loss=loss)
        assert samples == len(self.y)
        return model

    @property
    def variables(self) -> list[Any]:
        return [*self.kernels, *self.biases]

    def expected(self, rows: slice, parameters: Any) -> Expected:
        """Ng's cost of some samples: their reconstruction, each penalty, and the decay."""
        x, y = (values[rows].reshape(-1, FEATURES) for values in (self.x, self.y))
        valid = self.valid[rows].ravel()
        shape, weights = self.valid[rows].shape, np.ones(valid.shape)
        if self.weights is not None:
            given = self.weights[rows]
            given = given.reshape(given.shape + (1,) * (len(shape) - given.ndim))
            weights = np.broadcast_to(given, shape).ravel()
        of_loss = weights[valid]
        count = {
            "sum": 1.0,
            "sum_over_batch_size": float(np.sum(valid)),
            "mean_with_sample_weight": float(np.sum(of_loss)),
        }[self.case["reduction"]]
        plain: dict[str, Any] = {"rho": 0.5, "beta": 0.0, "weight_decay": 0.0, "epsilon": EPSILON}
        parts = [nothing_but_decay(parameters, DECAY, "float32")]
        if np.any(of_loss):
            scaled = of_loss * len(of_loss) / count
            parts.append(ngs_cost(parameters, x[valid], y[valid], weights=scaled, **plain))
        for penalty in self.penalties:
            seen = penalty.sees(valid)
            terms = {**plain, "rho": penalty.rho, "beta": penalty.beta}
            if np.any(seen) and penalty.beta > 0.0:
                nothing = np.zeros(np.sum(seen))
                parts.append(
                    ngs_cost(
                        parameters,
                        x[seen],
                        y[seen],
                        weights=nothing,
                        **terms,
                        from_logits=self.case["from_logits"],
                    )
                )
        return sum_of(parts)

    def stored_term(self, parameters: Any) -> Bounded:
        """What an average that has seen the first batch adds to a batch that it sees nothing of."""
        (penalty,) = (p for p in self.penalties if p.object == "average")
        rows = slice(0, self.batch)
        x = self.x[rows][self.valid[rows]]
        rest = {"weight_decay": 0.0, "epsilon": EPSILON, "rho": penalty.rho}
        both, alone = (
            ngs_cost(parameters, x, x, weights=np.zeros(len(x)), beta=beta, **rest).cost
            for beta in (penalty.beta, 0.0)
        )
        return wide_arithmetic("float32").subtract(both, alone)

    def average_of_the_first_batch(self) -> Bounded:
        """EQ-RHO-HAT at the start, where nothing moves it afterwards; 0 before there is one."""
        x = self.x[: self.batch][self.valid[: self.batch]]
        if len(x) == 0:
            return exact(np.zeros(HIDDEN))
        z = wide_arithmetic("float32").matmul(exact(x), exact(self.start.kernels[0]))
        a, _ = wide_arithmetic("float32").activation("sigmoid", z)
        return wide_arithmetic("float32").mean_over_samples(a)


def named(case: dict[str, Any]) -> str:
    return "-".join(str(value) for value in case.values())


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-GRADIENT-TIED", "EQ-SPARSITY")
@pytest.mark.parametrize("case", CASES, ids=named)
def test_two_steps_of_fit(case: dict[str, Any]) -> None:
    network = Network(case)
    wide, parameters, costs, sizes = wide_arithmetic("float32"), network.start, [], []
    averages = any(penalty.object == "average" for penalty in network.penalties)
    reached: Any = parameters
    for first in range(0, len(network.x), network.batch):
        rows = slice(first, first + network.batch)
        expected = network.expected(rows, reached)
        cost = expected.cost
        if averages and first and case["mask"] == "one batch":
            cost = wide.add(cost, network.stored_term(parameters))
        costs.append(cost)
        sizes.append(len(network.x[rows]))
        reached = expected.step(reached, RATE)
    history = network.model.fit(
        network.x.astype("float32"),
        network.y.astype("float32"),
        sample_weight=None if network.weights is None else network.weights.astype("float32"),
        batch_size=network.batch,
        shuffle=False,
        verbose=0,
    ).history
    shares = [size / sum(sizes) for size in sizes]
    parts = [wide.multiply(wide.number(s), cost) for s, cost in zip(shares, costs, strict=True)]
    mean = parts[0] if len(parts) == 1 else wide.add(*parts)
    training_inside(
        history["loss"][0], network.variables, mean, [*reached.kernels, *reached.biases]
    )
    if averages and case["mask"] in ("one batch", "nothing"):
        (layer,) = (layer for layer in network.model.layers if hasattr(layer, "rho_hat"))
        inside("the average", layer.rho_hat.value, network.average_of_the_first_batch())


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-RHO-HAT-CHUNKS")
@pytest.mark.parametrize("case", CASES[::2], ids=named)
def test_the_exact_cost_in_chunks(case: dict[str, Any]) -> None:
    """All at once, in chunks that divide the samples, and in chunks that do not."""
    network = Network({**case, "batches": "unknown"})
    if case["penalties"] == "any":
        with pytest.raises(ValueError, match="other than the penalties of this package"):
            full_cost_and_gradient(network.model, network.x)
        return
    expected = network.expected(slice(None), network.start)
    for batch_size in {2: (None, 1, 3), 3: (3,), 4: (2, 3)}[case["rank"]]:
        cost, gradient = full_cost_and_gradient(
            network.model,
            network.x.astype("float32"),
            batch_size,
            y=network.y.astype("float32"),
            sample_weight=network.weights,
        )
        by_variable = {
            id(variable): part
            for variable, part in zip(network.model.trainable_variables, gradient, strict=True)
        }
        value_and_gradient_inside(
            cost.total,
            [by_variable[id(variable)] for variable in network.variables],
            expected.cost,
            expected.gradient,
            case,
            batch_size,
        )
