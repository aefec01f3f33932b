"""The cost and the gradient of a whole data set: the same in any chunks, held to the oracle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    SparseAutoencoder,
    WeightDecay,
    full_cost,
    full_cost_and_gradient,
)
from keras_impl.backends.arrays import as_float64
from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.exact.sums import penalty_sums
from keras_impl.recording import penalised_outputs
from keras_impl.term import SparsityTerm
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters, to_parameters
from tests.asserting import inside
from tests.fresh_process import ROOT, environment
from tests.keras_impl.precision import as_numpy, computing_in, rounded

TERMS = ("reconstruction", "weight_decay", "sparsity")

NETWORKS: dict[str, dict[str, Any]] = {
    "notes": {"hidden_units": 3, "rho": 0.05, "beta": 3.0, "weight_decay": 1e-2},
    "tied": {"hidden_units": 3, "rho": 0.2, "weight_decay": 1e-2, "tied": True, "tied_decay": 2},
    "deep": {"hidden_units": (5, 2), "rho": 0.1, "weight_decay": 1e-2},
    "by layer": {"hidden_units": (5, 2), "rho": [0.1, (0.2, 0.6), 0.3], "beta": [0.0, 3.0, 0.5]},
    "deep, tied, from logits": {
        "hidden_units": (5, 2),
        "rho": (0.05, [0.2, 0.6]),
        "tied": True,
        "from_logits": True,
    },
    "tanh": {
        "hidden_units": (4, 3),
        "rho": 0.4,
        "activation": "tanh",
        "output_activation": "linear",
        "symmetric": True,
    },
    "relu": {"hidden_units": 4, "rho": 0.2, "beta": 0.5, "activation": "relu", "epsilon": 0.01},
    "no penalty": {"hidden_units": 3, "beta": 0.0, "weight_decay": 1e-2},
}


def made(arguments: dict[str, Any], features: int, seed: int, policy: str) -> SparseAutoencoder:
    model = SparseAutoencoder(**arguments, dtype=policy)
    model.build((None, features))
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rounded(generator.normal(size=tuple(variable.shape)), "bfloat16"))
    return model


def hold(model: SparseAutoencoder, cost: Any, gradient: Any, step: reference.BoundedStep) -> None:
    for name in TERMS:
        inside(name, getattr(cost, name), getattr(step.cost, name))
    inside("total", cost.total, step.cost.total)
    if gradient is None:
        return
    by_variable = {id(v): g for v, g in zip(model.trainable_variables, gradient, strict=True)}
    for variables, bounded in (
        (model.kernels, step.gradient.kernels),
        (model.biases, step.gradient.biases),
    ):
        for variable, expected in zip(variables, bounded, strict=True):
            inside(variable.path, by_variable[id(variable)], expected)


@pytest.mark.inference
@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-GRADIENT-TIED", "EQ-RHO-HAT-CHUNKS")
@pytest.mark.parametrize("name", NETWORKS)
def test_any_chunks_in_any_order_are_the_whole_set(name: str) -> None:
    generator = np.random.default_rng(1)
    # All in float32; the first and the most involved in float64 too, where a backend has it.
    both = has_gradients() and name in ("notes", "deep, tied, from logits")
    for precision in ("float32", "float64") if both else ("float32",):
        x = rounded(generator.uniform(size=(23, 6)), "float32")
        with computing_in(precision) as policy:
            model = made(NETWORKS[name], 6, 2, policy)
            step = reference.cost_and_gradient_with_bounds(
                to_parameters(model),
                x,
                **oracle_arguments(model),
                from_logits=model.penalties[0].from_logits,
                precision=precision,
            )
            # All at once; uneven chunks; one after the other; more than there are.
            sizes = {"notes": (None, 5, 1, 100), "deep, tied, from logits": (None, 5)}.get(
                name, (5,)
            )
            for batch_size in sizes:
                order = generator.permutation(len(x))
                hold(model, full_cost(model, x[order], batch_size), None, step)
                if has_gradients():
                    hold(model, *full_cost_and_gradient(model, x[order], batch_size), step)


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision(precision: str) -> None:
    x = rounded(np.random.default_rng(1).uniform(size=(40, 6)), precision)
    with computing_in(precision) as policy:
        model = made(NETWORKS["deep"], 6, 2, policy)
        step = reference.cost_and_gradient_with_bounds(
            to_parameters(model), x, **oracle_arguments(model), precision=precision
        )
        for batch_size in (None, 16):
            hold(model, *full_cost_and_gradient(model, x, batch_size), step)


@pytest.mark.equation("EQ-RHO-HAT")
def test_the_mean_activations_are_those_of_the_set_and_not_of_the_last_chunk() -> None:
    x = np.random.default_rng(0).uniform(size=(11, 6)).astype("float32")
    for name in ("deep", "deep, tied, from logits", "tanh", "no penalty"):
        model = made(NETWORKS[name], 6, 2, "float32")
        hidden = reference.forward(
            to_parameters(model),
            x,
            activation=model.activation,
            output_activation=model.output_activation,
        ).hidden
        expected = [
            reference.mean_activation(a, symmetric=model.penalties[0].symmetric) for a in hidden
        ]
        for cost in (
            full_cost(model, x, 4),
            full_cost_and_gradient(model, x)[0],
            full_cost_and_gradient(model, x, 4)[0],
        ):
            for actual, wanted in zip(cost.mean_activations, expected, strict=True):
                # Two layers of at most 6 terms, and the mean of 11: at most 64 roundoffs of 1.
                assert np.max(np.abs(actual - wanted)) <= 64 * 2.0**-24


# Models of Keras's own layers. Their full batch is computed here, eagerly, by the formulas of the
# penalties themselves: `model.losses` of one call on everything.


def two_penalties() -> Any:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                4,
                activation="sigmoid",
                kernel_regularizer=WeightDecay(0.01),
                activity_regularizer=KLSparsityRegularizer(0.1, 3.0),
            ),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, bias_regularizer=WeightDecay(0.5)),
            KLSparsity(0.2, 2.0, from_logits=True),
            keras.layers.Activation("sigmoid"),
            keras.layers.Dense(6, activation="sigmoid"),
        ]
    )


def convolution() -> Any:
    return keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            keras.layers.Conv2D(3, 3, activation="sigmoid", padding="same"),
            KLSparsity(0.1, 2.0, momentum=0.9),
            keras.layers.Conv2D(1, 3, padding="same", kernel_regularizer=WeightDecay(0.1)),
        ]
    )


def masked_sequence() -> Any:
    return keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.Masking(0.0),
            keras.layers.Dense(2, activation="sigmoid"),
            KLSparsity(0.1, 2.0),
            keras.layers.Dense(3),
        ]
    )


def shared_layer() -> Any:
    """One penalised layer that is called twice: two terms."""
    x = keras.Input((6,))
    layer = keras.layers.Dense(6, activation="sigmoid")
    penalty = KLSparsity(0.3, 1.0)
    return keras.Model(x, penalty(layer(penalty(layer(x)))))


def data_of(name: str) -> Any:
    generator = np.random.default_rng(3)
    if name == "masked_sequence":
        x = generator.uniform(0.1, 1.0, size=(13, 4, 3))
        x[np.arange(4) >= generator.integers(1, 5, size=(13, 1))] = 0.0
        return x
    return generator.uniform(size=(13, 5, 5, 1) if name == "convolution" else (13, 6))


MODELS = [two_penalties, convolution, masked_sequence, shared_layer]


def losses_with(loss: str) -> Any:
    """A loss to compile with, and the sum and the count that make its value of a full batch."""
    return {
        "half squared error": HalfSquaredError(axis=-1, dtype=keras.config.floatx()),
        "mse": "mse",
        "sum": keras.losses.MeanAbsoluteError(reduction="sum"),
    }[loss]


@pytest.mark.equation("EQ-SPARSITY", "EQ-SPARSITY-LOGITS")
@pytest.mark.parametrize(
    ("build", "loss"),
    [
        (two_penalties, "mse"),
        (two_penalties, "sum"),
        # torch has no gradient of Keras's small convolutions: "grad_weight must be contiguous", in
        # plain `fit` too, with one sample a batch.
        pytest.param(
            convolution,
            "half squared error",
            marks=pytest.mark.only_backends("jax", "tensorflow"),
        ),
        (masked_sequence, "half squared error"),
        (shared_layer, "mse"),
    ],
)
def test_any_keras_model(build: Any, loss: str, backend: str) -> None:
    x = data_of(build.__name__)
    with computing_in("float64"):
        keras.utils.set_random_seed(0)
        model = build()
        model.compile("sgd", loss=losses_with(loss))
        tensor = ops.convert_to_tensor(x)

        def full_batch(*weights: Any) -> Any:
            with keras.StatelessScope(
                state_mapping=list(zip(model.trainable_variables, weights, strict=True))
            ):
                h = model(tensor, training=False)
                # `stateless_call` may drop losses: the penalties' own formulas, once more.
                return whole_cost(model, h, weights)

        def whole_cost(model: Any, h: Any, weights: Any) -> Any:
            difference = h - tensor
            if loss == "mse":
                data = ops.sum(ops.square(difference)) / float(difference.shape[-1] * len(x))
            elif loss == "sum":
                data = ops.sum(ops.abs(difference)) / float(difference.shape[-1])
            elif build is masked_sequence:
                valid = np.any(x != 0.0, axis=-1)
                squares = ops.sum(ops.square(difference), axis=-1)
                data = 0.5 * ops.sum(squares * ops.convert_to_tensor(valid, tensor.dtype))
                data = data / float(valid.sum())
            else:
                data = 0.5 * ops.sum(ops.square(difference)) / float(np.prod(h.shape[:-1]))
            decay = sum(
                (
                    v.regularizer(w)
                    for v, w in zip(model.trainable_variables, weights, strict=True)
                    if v.regularizer is not None
                ),
                start=ops.zeros((), dtype=tensor.dtype),
            )
            return data + decay + sparsity_of(build, model, tensor, x)

        weights = [v.value for v in model.trainable_variables]
        # Compiled: eagerly JAX compiles every operation by itself.
        total, expected = compiled(lambda *at: value_and_gradients(full_batch, at))(*weights)
        total = float(ops.convert_to_numpy(total))
        # No sum has more than 13·25·3 terms and no path more than 4 layers; sums of squares and
        # slopes of the divergence (at most 1/ρ) amplify by less than 100. float64 on both sides,
        # but that Keras's layers multiply in float32 on torch, and its "mse" averages in float32
        # on torch and JAX: there sums of at most 10 terms in float32, the others in float64.
        keras_is_float32 = backend == "torch" or loss != "half squared error"
        slack = 4 * 100 * (2.0**-24 * 10 if keras_is_float32 else 2.0**-53 * 1000)
        for batch_size in (None, 5, 1) if build is two_penalties else (5,):
            cost, gradient = full_cost_and_gradient(model, x, batch_size)
            assert abs(cost.total - total) <= slack * total
            assert abs(full_cost(model, x, batch_size).total - total) <= slack * total
            for actual, wanted in zip(gradient, expected, strict=True):
                wanted = ops.convert_to_numpy(wanted)
                assert np.max(np.abs(actual - wanted)) <= slack * max(1.0, np.max(np.abs(wanted)))


def sparsity_of(build: Any, model: Any, tensor: Any, x: Any) -> Any:
    """The sparsity of a full batch, layer by layer, from the divergence as the notes write it."""

    def divergence(rho: float, beta: float, rho_hat: Any) -> Any:
        ones = rho * (np.log(rho) - ops.log(rho_hat))
        zeros = (1.0 - rho) * (np.log(1.0 - rho) - ops.log(1.0 - rho_hat))
        return beta * ops.sum(ones + zeros)

    def mean(a: Any, valid: Any = None) -> Any:
        if valid is not None:
            a = a * ops.convert_to_tensor(valid[..., None], a.dtype)
            return ops.sum(a, axis=(0, 1)) / float(valid.sum())
        return ops.sum(a, axis=tuple(range(len(a.shape) - 1))) / float(np.prod(a.shape[:-1]))

    layers = model.layers
    if build is two_penalties:
        first = layers[0](tensor)
        second = ops.sigmoid(layers[2](first))
        return divergence(0.1, 3.0, mean(first)) + divergence(0.2, 2.0, mean(second))
    if build is convolution:
        return divergence(0.1, 2.0, mean(layers[0](tensor)))
    if build is masked_sequence:
        return divergence(0.1, 2.0, mean(layers[1](tensor), np.any(x != 0.0, axis=-1)))
    layer = next(layer for layer in layers if isinstance(layer, keras.layers.Dense))
    once = layer(tensor)
    return divergence(0.3, 1.0, mean(once)) + divergence(0.3, 1.0, mean(layer(once)))


@pytest.mark.equation("EQ-RECONSTRUCTION")
def test_targets_and_sample_weights() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.uniform(size=(2, 10, 6)).astype("float32")
    weight = generator.integers(0, 4, size=10).astype("float32")
    model = made(NETWORKS["notes"], 6, 2, "float32")
    step = reference.cost_and_gradient_with_bounds(
        to_parameters(model), x, y=y, **oracle_arguments(model), precision="float32"
    )
    for batch_size in (None, 3):
        hold(model, *full_cost_and_gradient(model, x, batch_size, y=y), step)
    output = reference.forward(to_parameters(model), x).output
    expected = float(np.mean(weight * np.sum((output - y) ** 2, axis=1)) / 2)
    for batch_size in (None, 3):
        cost, _ = full_cost_and_gradient(model, x, batch_size, y=y, sample_weight=weight)
        # 10·6 terms and the error of a float32 network of this size: 128 roundoffs.
        assert abs(cost.reconstruction - expected) <= 128 * 2.0**-24 * expected
        inside("sparsity", cost.sparsity, step.cost.sparsity)


def test_a_saturated_unit_from_logits_has_a_finite_gradient() -> None:
    """ρ̂ is 0 or 1 in every floating-point format, and the divergence some 1e4."""
    x = np.eye(4, dtype="float32")
    with computing_in("float64"):
        model = SparseAutoencoder(2, rho=0.1, from_logits=True, dtype="float64")
        model.build((None, 4))
        parameters = reference.Parameters(
            [np.zeros((4, 2)), np.zeros((2, 4))], [np.array([1e4, -1e4]), np.zeros(4)]
        )
        set_parameters(model, parameters)
        step = reference.cost_and_gradient_with_bounds(
            parameters, x, **oracle_arguments(model), from_logits=True, precision="float64"
        )
        for batch_size in (None, 3, 1):
            cost, gradient = full_cost_and_gradient(model, x, batch_size)
            assert cost.sparsity > 1e3
            hold(model, cost, gradient, step)


class Batches(keras.utils.PyDataset):
    """Batches that are made when they are asked for."""

    def __init__(self, x: Any, size: int) -> None:
        super().__init__()
        self.x, self.size = x, size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, i: int) -> Any:
        return self.x[i * self.size : (i + 1) * self.size]


def keras_sources(x: Any, folder: Path) -> Any:
    np.save(folder / "x.npy", x)
    yield np.load(folder / "x.npy", mmap_mode="r")
    yield ops.convert_to_tensor(x)
    yield Batches(x, 4)
    yield [(x[i : i + 4], x[i : i + 4]) for i in range(0, len(x), 4)].copy


def tensorflow_sources(x: Any, folder: Path) -> Any:
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    yield tf.data.Dataset.from_tensor_slices(x).batch(4)
    yield tf.data.Dataset.from_tensor_slices((x, x)).batch(4)


def torch_sources(x: Any, folder: Path) -> Any:
    import torch

    set_of = torch.utils.data.TensorDataset(torch.as_tensor(x))
    yield torch.utils.data.DataLoader(set_of, batch_size=4)


@pytest.mark.parametrize(
    "sources",
    [
        keras_sources,
        # TensorFlow after torch in one process ends in a crash.
        pytest.param(tensorflow_sources, marks=pytest.mark.only_backends("jax", "tensorflow")),
        pytest.param(torch_sources, marks=pytest.mark.only_backends("torch")),
    ],
)
def test_every_source_is_the_same_data(sources: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(size=(10, 6)).astype("float32")
    model = made(NETWORKS["notes"], 6, 2, "float32")
    expected, wanted = full_cost_and_gradient(model, x, 4)
    given = list(sources(x, tmp_path))
    assert given
    for source in given:
        if callable(source) and not hasattr(source, "__iter__"):
            source = Repeated(source)
        cost, gradient = full_cost_and_gradient(model, source, 4)
        assert cost.total == expected.total
        assert all(np.array_equal(a, b) for a, b in zip(gradient, wanted, strict=True))


class Repeated:
    """An iterable of batches that can be run through again."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Any:
        return iter(self.make())


class EmptyBatches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return np.ones((0, 6))


def test_batches_of_a_data_set_may_have_any_sizes() -> None:
    x = np.random.default_rng(0).uniform(size=(10, 6)).astype("float32")
    model = made(NETWORKS["notes"], 6, 2, "float32")
    step = reference.cost_and_gradient_with_bounds(
        to_parameters(model), x, **oracle_arguments(model), precision="float32"
    )
    batches = Repeated(lambda: [x[:2], x[2:9], x[9:]])
    for batch_size in (None, 3, 100):
        hold(model, *full_cost_and_gradient(model, batches, batch_size), step)


MEMORY = """
import resource, sys
import numpy as np, keras
from keras_impl import SparseAutoencoder, full_cost_and_gradient
class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, i):
        return np.random.default_rng(i).uniform(size=(1000, 400)).astype("float32")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
model = SparseAutoencoder(8, seed=0)
full_cost_and_gradient(model, Batches(10))  # 15 MiB
before = peak()
full_cost_and_gradient(model, Batches(100))  # 153 MiB
print(peak() - before)
"""


def test_ten_times_the_data_need_the_same_memory(backend: str) -> None:
    # In a fork of a started backend more memory is touched for the first time: no fork here.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=environment(backend),
        check=True,
    )
    # The data grow by 137 MiB, and so do the outputs; allocators keep a few MiB here and there.
    assert float(done.stdout) < 10.0


@pytest.mark.only_backends("jax", "tensorflow")
def test_nothing_is_compiled_per_chunk_nor_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    call = SparseAutoencoder.call

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return call(self, *arguments, **named)

    monkeypatch.setattr(SparseAutoencoder, "call", counted)
    x = np.random.default_rng(0).uniform(size=(40, 6)).astype("float32")
    model = made(NETWORKS["notes"], 6, 2, "float32")
    full_cost_and_gradient(model, x[:12], 5)
    calls = 0
    full_cost_and_gradient(model, x, 5)
    full_cost_and_gradient(model, x[::-1], 5)
    assert calls == 2  # one look at one sample for each call: two traces are there already
    model = made({**NETWORKS["notes"], "beta": 1.0}, 6, 2, "float32")
    assert full_cost(model, x, 5).sparsity * 3.0 == pytest.approx(
        full_cost_and_gradient(made(NETWORKS["notes"], 6, 2, "float32"), x, 5)[0].sparsity,
        rel=64 * 2.0**-24,
    )


def test_frozen_weights_have_no_gradient_and_no_decay() -> None:
    x = data_of("two_penalties").astype("float32")
    model = two_penalties()
    model.layers[0].trainable = False
    cost, gradient = full_cost_and_gradient(model, x, 5)
    assert len(gradient) == 4
    model.layers[0].trainable = True
    with_decay, gradient = full_cost_and_gradient(model, x, 5)
    assert len(gradient) == 6
    assert with_decay.weight_decay > cost.weight_decay
    assert with_decay.sparsity == cost.sparsity
    # Nor in a model whose functions are compiled already.
    known, new = (made(NETWORKS["notes"], 6, 2, "float32") for _ in range(2))
    full_cost_and_gradient(known, x, 5)
    for each in (known, new):
        each.biases[0].trainable = False
    (cost, gradient), (expected, _) = (full_cost_and_gradient(m, x, 5) for m in (known, new))
    assert (cost.weight_decay, len(gradient)) == (expected.weight_decay, 3)


def test_the_penalties_are_back_in_the_loss_afterwards() -> None:
    x = data_of("two_penalties").astype("float32")
    model = two_penalties()
    model(x)
    before = [float(ops.convert_to_numpy(loss)) for loss in model.losses]
    full_cost_and_gradient(model, x, 5)
    with pytest.raises(ValueError, match="first axis"):
        full_cost(reshaping(), x)
    model(x)
    assert [float(ops.convert_to_numpy(loss)) for loss in model.losses] == before
    assert before[0] > 0.0


def reshaping() -> Any:
    """Samples and features on one axis where the penalty is."""
    x = keras.Input((6,))
    a = keras.layers.Dense(6, activation="sigmoid")(x)
    return keras.Model(x, ops.reshape(KLSparsity()(ops.reshape(a, (-1, 1))), (-1, 6)))


def with_other_losses(kind: str) -> Any:
    x = keras.Input((6,))
    if kind == "activity regularizer":
        return keras.Model(x, keras.layers.Dense(6, activity_regularizer="l2")(x))
    if kind == "layer":
        return keras.Model(x, keras.layers.ActivityRegularization(l1=0.1)(keras.layers.Dense(6)(x)))
    a = keras.layers.Dense(6)(x)
    return keras.Model(x, [a, a])


class OwnLoss(keras.Sequential):
    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        return 0.0


BAD_CALLS: list[Any] = [
    (lambda: keras.layers.Dense(6), {}, TypeError, "`model` must be a keras.Model"),
    (lambda: with_other_losses("activity regularizer"), {}, ValueError, "adds 1 loss.*KLSparsity"),
    (lambda: with_other_losses("layer"), {}, ValueError, "adds 1 loss"),
    (lambda: with_other_losses("outputs"), {}, ValueError, "Model of one output.*several outputs"),
    (
        lambda: OwnLoss([keras.layers.Dense(6)]),
        {},
        ValueError,
        "`compute_loss` of its own.*with `fit`",
    ),
    (two_penalties, {"batch_size": 0}, ValueError, "`batch_size` must be a positive integer"),
    (two_penalties, {"batch_size": 2.0}, TypeError, "`batch_size` must be a positive integer"),
    (two_penalties, {"y": np.ones((3, 6))}, ValueError, "`y` must have as many rows as `x`"),
    (two_penalties, {"x": np.ones((0, 6))}, ValueError, "at least one sample"),
    (two_penalties, {"x": iter([np.ones((2, 6))])}, TypeError, "more than once.*list of"),
    (two_penalties, {"x": 3.0}, TypeError, "`x` must be an array"),
    (two_penalties, {"x": Batches(np.ones((0, 6)), 2)}, ValueError, "at least one sample"),
    (two_penalties, {"x": Batches(np.ones((4, 6)), 2), "y": np.ones(4)}, ValueError, "yields"),
]


def test_bad_arguments_are_named() -> None:
    for model, named, error, message in BAD_CALLS:
        with pytest.raises(error, match=message):
            full_cost(model(), **{"x": np.ones((4, 6), "float32"), **named})


def test_a_data_set_that_changes_between_the_passes_is_an_error() -> None:
    sizes = iter([4, 4, 3])  # a look, the first pass, the second
    changing = Repeated(lambda: [np.ones((next(sizes), 6), "float32")])
    with pytest.raises(ValueError, match="the same samples each time"):
        full_cost_and_gradient(made(NETWORKS["notes"], 6, 2, "float32"), changing, 4)


# What is refused, and what a stranger may hand in.


def mean_of(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> float:
    """What Keras computes of the whole set as one batch, eagerly: the loss and all penalties."""
    y_pred = model(x, training=False)
    penalties = [float(as_numpy(loss)) for loss in model.losses]
    loss = model.loss if isinstance(model.loss, keras.losses.Loss) else keras.losses.get(model.loss)
    if not isinstance(loss, keras.losses.Loss):
        loss = keras.losses.MeanSquaredError()
    data = loss(ops.convert_to_tensor(x if y is None else y), y_pred, sample_weight=sample_weight)
    return float(as_numpy(data)) + sum(penalties)


# Both sides in float32, sums of at most 13·25·6 terms and four layers, slopes below 100.
SLACK = 4 * 100 * 10 * 2.0**-24


def hold_to_keras(model: Any, x: Any, sizes: Any = (None, 5), **named: Any) -> float:
    """The cost is Keras's own of one batch, in chunks too, and its gradient finite and the same."""
    expected = mean_of(model, x, **named)
    gradients = []
    for batch_size in sizes:
        cost = full_cost(model, x, batch_size, **named)
        assert abs(cost.total - expected) <= SLACK * max(1.0, abs(expected)), batch_size
        cost, gradient = full_cost_and_gradient(model, x, batch_size, **named)
        assert abs(cost.total - expected) <= SLACK * max(1.0, abs(expected)), batch_size
        assert all(np.all(np.isfinite(part)) for part in gradient), batch_size
        gradients.append(gradient)
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert np.max(np.abs(a - b)) <= SLACK * max(1.0, np.max(np.abs(a)))
    return expected


def small(*layers: Any, features: int = 6) -> Any:
    return keras.Sequential([keras.Input((features,)), *layers])


RATE = [1.0]


def changing_activation() -> Any:
    model = small(keras.layers.Dense(6, activation="sigmoid"))
    return model, lambda: setattr(model.layers[0], "activation", keras.activations.tanh)


def changing_slope() -> Any:
    model = small(keras.layers.Dense(6), keras.layers.LeakyReLU(0.5))
    return model, lambda: setattr(model.layers[1], "negative_slope", 0.1)


def changing_closure() -> Any:
    rate = [1.0]
    model = small(keras.layers.Dense(6), keras.layers.Lambda(lambda a: rate[0] * a))
    return model, lambda: rate.__setitem__(0, 3.0)


def changing_global() -> Any:
    RATE[0] = 1.0
    model = small(keras.layers.Dense(6), keras.layers.Lambda(lambda a: RATE[0] * a))
    return model, lambda: RATE.__setitem__(0, 3.0)


def changing_regularizer() -> Any:
    regularizer = keras.regularizers.L2(0.1)
    model = small(keras.layers.Dense(6, kernel_regularizer=regularizer))
    return model, lambda: setattr(regularizer, "l2", 0.5)


def changing_layers() -> Any:
    model = small(keras.layers.Dense(6), keras.layers.Activation("sigmoid"))
    return model, model.pop


def changing_loss() -> Any:
    model = small(keras.layers.Dense(6))
    return model, lambda: model.compile("sgd", keras.losses.MeanAbsoluteError())


def changing_reduction() -> Any:
    model = small(keras.layers.Dense(6))
    return model, lambda: setattr(model.loss, "reduction", "sum")


def changing_trainable() -> Any:
    model = small(keras.layers.Dense(6, kernel_regularizer="l2"), keras.layers.Dense(6))
    return model, lambda: setattr(model.layers[0], "trainable", False)


@pytest.mark.parametrize(
    "made_and_changed",
    [
        changing_activation,
        changing_slope,
        changing_closure,
        changing_global,
        changing_regularizer,
        changing_layers,
        changing_loss,
        changing_reduction,
        changing_trainable,
    ],
)
def test_a_model_that_has_changed_is_computed_as_it_is(made_and_changed: Any) -> None:
    x = np.random.default_rng(0).uniform(size=(7, 6)).astype("float32")
    model, change = made_and_changed()
    model.compile("sgd", keras.losses.MeanSquaredError())
    before = mean_of(model, x)
    assert full_cost(model, x).total == pytest.approx(before, rel=SLACK)
    change()
    after = mean_of(model, x)
    assert abs(after - before) > 0.01 * before
    assert full_cost(model, x).total == pytest.approx(after, rel=SLACK)


def masked_steps(from_logits: bool) -> Any:
    """A mask of (B, T) for an output of (B, T, A, U), with T = A; and one for (B, T, U)."""
    x = keras.Input((3, 4))
    a = keras.layers.Masking(0.0)(x)
    a = keras.layers.Dense(4, activation=None if from_logits else "sigmoid")(a)
    a = KLSparsity(0.1, 2.0, from_logits=from_logits)(a)
    a = keras.layers.TimeDistributed(keras.layers.Dense(6))(a)
    a = keras.layers.TimeDistributed(keras.layers.Reshape((3, 2)))(a)
    a = keras.layers.Activation("linear" if from_logits else "sigmoid")(a)
    a = KLSparsity(0.3, 1.0, from_logits=from_logits)(a)
    a = keras.layers.TimeDistributed(keras.layers.Flatten())(a)
    return keras.Model(x, keras.layers.Dense(4)(a))


@pytest.mark.equation("EQ-RHO-HAT", "EQ-SPARSITY", "EQ-SPARSITY-LOGITS")
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_mask_of_fewer_axes_and_the_gradient_of_sequences_in_chunks(from_logits: bool) -> None:
    generator = np.random.default_rng(3)
    x = generator.uniform(0.1, 1.0, size=(7, 3, 4)).astype("float32")
    valid = np.arange(3) < generator.integers(0, 4, size=(7, 1))
    valid[0], valid[1] = [False] * 3, [True] * 3
    x[~valid] = 0.0
    model = masked_steps(from_logits)
    model.compile("sgd", HalfSquaredError(axis=-1))
    penalised = [layer.output for layer in model.layers if isinstance(layer, KLSparsity)]
    with penalised_outputs():  # nothing but the activations is asked for
        outputs = keras.Model(model.input, penalised)(x)
    sparsity = 0.0
    for output, (rho, beta) in zip(outputs, ((0.1, 2.0), (0.3, 1.0)), strict=True):
        a = as_numpy(output)[valid].reshape(-1, output.shape[-1])  # positions that are valid
        term = reference.sparsity_cost_from_logits if from_logits else reference.sparsity_cost
        sparsity += term(a, rho, beta)
    gradients = []
    for batch_size in (None, 3, 1):
        cost, gradient = full_cost_and_gradient(model, x, batch_size)
        assert abs(cost.sparsity - sparsity) <= SLACK * sparsity
        assert abs(full_cost(model, x, batch_size).sparsity - sparsity) <= SLACK * sparsity
        gradients.append(gradient)
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert np.max(np.abs(a - b)) <= SLACK * max(1.0, np.max(np.abs(a)))


@pytest.mark.inference
@pytest.mark.equation("EQ-RHO-HAT-CHUNKS", "EQ-KL", "EQ-KL-LOGITS")
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_mask_that_tells_units_apart_counts_for_each(from_logits: bool) -> None:
    """In two chunks, the second filled up: five positions of a unit, two of another, and none."""
    z = rounded(np.random.default_rng(0).normal(size=(6, 3)), "float32")
    x = z if from_logits else reference.sigmoid(z)
    mask = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=bool)
    term = SparsityTerm(0.2, 3.0, from_logits)

    def sums_of(rows: slice, valid: list[float]) -> Any:
        arrays = x[rows].astype("float32"), mask[rows], np.array(valid, "float32")
        a, of_units, of_rows = map(ops.convert_to_tensor, arrays)
        sums = penalty_sums(term, a, of_units, of_rows)
        return type(sums)(*map(as_float64, sums))

    found = sums_of(slice(0, 3), [1.0, 1.0, 1.0]).plus(sums_of(slice(3, 6), [1.0, 1.0, 0.0]))
    mask[5] = False
    rho_hat = np.array([np.mean(reference.sigmoid(z[mask[:, unit], unit])) for unit in (0, 1)])
    # A few roundings each, of logarithms of at most 2.
    slack = 64 * 2.0**-24
    assert np.allclose(found.mean_activation(term), [*rho_hat, 0.2], rtol=slack, atol=0.0)
    divergence = [*reference.kl_divergence(0.2, rho_hat), 0.0]
    assert np.allclose(found.divergence(term), divergence, rtol=0.0, atol=slack)


def test_a_mask_that_does_not_fit_is_named() -> None:
    for shape in ((2, 4), (3,), (2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"[Mm]ask"):
            penalty_sums(SparsityTerm(), ops.ones((2, 3, 4)), ops.ones(shape), ops.ones((2,)))


class Logarithm(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return ops.log(inputs)


def test_rows_that_fill_up_a_chunk_do_no_harm() -> None:
    """Zeros in their place would be −∞ here, and NaN in the gradient."""
    x = np.random.default_rng(0).uniform(0.5, 1.0, size=(13, 6)).astype("float32")
    dense = keras.layers.Dense(4, activation="sigmoid")
    model = small(Logarithm(), dense, KLSparsity(), keras.layers.Dense(6))
    model.compile("sgd", HalfSquaredError())
    hold_to_keras(model, x, (None, 5, 12))


def test_normalization_counts_with_the_statistics_that_it_has() -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.0, size=(13, 6)).astype("float32")
    normalization = keras.layers.BatchNormalization()
    model = small(keras.layers.Dense(6), normalization, keras.layers.Dropout(0.5))
    model.compile("sgd", HalfSquaredError())
    normalization.moving_mean.assign(np.linspace(-1.0, 1.0, 6))
    normalization.moving_variance.assign(np.linspace(0.5, 2.0, 6))
    hold_to_keras(model, x)


WEIGHTS: dict[str, Any] = {
    "zeros": np.zeros(7),
    "one zero": np.array([0, 1, 2, 1, 1, 1, 1.0]),
    "negative": np.array([-1, 1, 2, 1, 1, 1, 1.0]),
    "column": np.arange(7.0)[:, None],
    "of steps": np.arange(14.0).reshape(7, 2),
    "integers": np.arange(7),
}


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"]
)
def test_sample_weights_are_those_of_keras(reduction: str) -> None:
    x = np.random.default_rng(0).uniform(size=(7, 2, 3)).astype("float32")
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(3)])
    for name, weights in WEIGHTS.items():
        steps = name == "of steps"
        model.compile("sgd", HalfSquaredError(axis=-1 if steps else None, reduction=reduction))
        hold_to_keras(model, x, (None, 5) if steps else (5,), sample_weight=weights)
    model.compile("sgd", HalfSquaredError(reduction=reduction))
    for gradient in full_cost_and_gradient(model, x, sample_weight=np.zeros(7))[1]:
        assert np.all(gradient == 0.0)


def test_targets_of_one_output_may_lack_its_axis() -> None:
    """(m,) beside (m, 1), as Keras takes them: a broadcast would compare every two samples."""
    x = np.random.default_rng(0).uniform(size=(7, 6)).astype("float32")
    model = small(keras.layers.Dense(1, activation="sigmoid"))

    def mean_of_squares(y: Any, h: Any) -> Any:
        return ops.mean(ops.square(h - y), axis=-1)

    model.compile("sgd", mean_of_squares)
    hold_to_keras(model, x, y=x[:, 0])


def test_a_loss_that_leaves_out_a_class() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(7, 5, 3)).astype("float32")
    y = generator.integers(0, 4, size=(7, 5))
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Dense(4, activation="softmax")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(ignore_class=0))
    hold_to_keras(model, x, y=y)


def test_every_kind_of_number_may_be_data() -> None:
    x = np.random.default_rng(0).integers(0, 2, size=(7, 6))
    model = small(keras.layers.Dense(6, activation="sigmoid"), KLSparsity())
    expected = full_cost(model, x.astype("float32"), 5).total
    kinds = ("bool", "uint8", "int64", "float16", "float64", ml_dtypes.bfloat16)
    for given in (*(x.astype(kind) for kind in kinds), ops.cast(x, "bfloat16")):
        assert full_cost(model, given, 5, y=x.astype("float32")).total == expected
    x = x.astype("float32")
    x[3, 2] = np.nan
    assert np.isnan(full_cost(model, x, 5).reconstruction)


def regularized_inside() -> Any:
    inner = keras.layers.Dense(6, activity_regularizer=KLSparsityRegularizer(), name="inner")
    x = keras.Input((2, 6))
    return keras.Model(x, keras.Sequential([keras.layers.TimeDistributed(inner)])(x))


def weighted(weights: Any) -> Any:
    return {"x": np.ones((4, 6), "float32"), "sample_weight": weights}


class OwnAutoencoder(SparseAutoencoder):
    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        return 0.0


def asked_for(loss: Any = "mse", **named: Any) -> Any:
    model = two_penalties()
    model.compile("sgd", loss=loss, **named)
    return model


unreduced = keras.losses.MeanSquaredError(reduction="none")
HALVES = [(np.ones((4, 6)), np.ones((2, 6)))]
MORE_BAD_CALLS: list[Any] = [
    (regularized_inside, {"x": np.ones((4, 2, 6))}, ValueError, "activity regularizer of .* inner"),
    (lambda: OwnAutoencoder(2), {}, ValueError, "`compute_loss` of its own"),
    (
        lambda: asked_for(loss_weights=0.5),
        {},
        ValueError,
        "inside of the loss.*: 0.5",
    ),
    (lambda: asked_for(loss=["mse"]), {}, ValueError, "Model of one output.*mse"),
    (lambda: asked_for(loss=unreduced), {}, ValueError, "leave its `reduction` out"),
    (two_penalties, {"x": np.ones((0, 6)), "y": np.ones((0, 6))}, ValueError, "`x` must hold"),
    (two_penalties, {"x": Batches(np.ones((0, 6)), 2), "batch_size": 3}, ValueError, "`x` must ho"),
    (two_penalties, {"x": EmptyBatches()}, ValueError, "`x` must hold at least one sample"),
    (two_penalties, {"y": np.ones((0, 6))}, ValueError, "`y` must have as many rows as `x`, 4"),
    (two_penalties, {"x": Repeated(lambda: HALVES)}, ValueError, "`y` must have as many rows"),
    (two_penalties, {"x": [[1.0] * 2] * 4}, TypeError, "`x` must consist of arrays"),
    (two_penalties, {"x": [[[1.0] * 6] * 4]}, ValueError, "`x` must yield batches"),
    (two_penalties, weighted(np.ones(3)), ValueError, "`sample_weight` must have as many rows"),
    (two_penalties, weighted(np.array([1, np.nan, 1, 1])), ValueError, "`sample_weight` must be f"),
    (two_penalties, weighted(np.ones((4, 2))), ValueError, "`sample_weight` must have the axes"),
    (two_penalties, weighted(np.ones((4, 2, 1))), ValueError, "`sample_weight` must have the axes"),
]


def test_more_bad_arguments_are_named() -> None:
    for model, named, error, message in MORE_BAD_CALLS:
        with pytest.raises(error, match=message):
            full_cost(model(), **{"x": np.ones((4, 6), "float32"), **named})


def test_a_batch_without_rows_is_passed_over() -> None:
    x = np.random.default_rng(0).uniform(size=(10, 6)).astype("float32")
    model = made(NETWORKS["notes"], 6, 2, "float32")
    batches = Repeated(lambda: [x[:0], x[:4], x[4:4], x[4:]])
    assert full_cost(model, batches).total == full_cost(model, x, 4).total


@pytest.mark.only_backends("numpy", "openvino")
@pytest.mark.inference
def test_no_gradients_without_a_training_backend() -> None:
    with pytest.raises(NotImplementedError, match="has no gradients: use that of JAX"):
        full_cost_and_gradient(SparseAutoencoder(3), np.ones((4, 6)))


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_beta_of_0_leaves_nothing_of_an_infinite_divergence(batch_size: int | None) -> None:
    """Dead units without an extension: KL is infinite, and 0 times it no number."""
    layers = [keras.layers.Dense(2, "relu"), KLSparsity(0.1, 0.0, epsilon=0.0)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(3)])
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])
    x = np.ones((4, 3), "float32")
    cost, _ = full_cost_and_gradient(model, x, batch_size)
    for found in (cost, full_cost(model, x, batch_size)):
        assert (found.reconstruction, found.sparsity, found.total) == (1.5, 0.0, 1.5)


@pytest.mark.parametrize("steps", [False, True])
def test_weights_of_samples_and_of_steps_divide_as_keras_does(steps: bool) -> None:
    """By the sum of the weights of all steps: a weight of a sample counts once a step."""
    x = np.random.default_rng(0).uniform(size=(5, 3, 4)).astype("float32")
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(4)])
    model.compile("sgd", loss=HalfSquaredError(axis=-1, reduction="mean_with_sample_weight"))
    weights = np.arange(15.0 if steps else 5.0).reshape((5, 3) if steps else 5).astype("float32")
    expected = mean_of(model, x, sample_weight=ops.convert_to_tensor(weights))
    for batch_size in (None, 2):
        found = full_cost(model, x, batch_size, sample_weight=weights).total
        # 60 squares of float32 products, their weights, the sum of those and a quotient.
        assert abs(found - expected) <= 96 * 2.0**-24 * expected
