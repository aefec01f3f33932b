"""`SparseAutoencoder` against the oracle: terms, gradients, trained weights, inside the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import HalfSquaredError, SparseAutoencoder, full_cost, set_hyperparameters
from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from keras_impl.backends.keras_internals import keras_loses_compiled_losses
from reference.rounding import Bounded
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters, to_parameters
from tests.asserting import REPORTED, inside
from tests.keras_impl.precision import as_numpy, computing_in, mostly_compiled, rounded

# From few shapes, because JAX compiles every operation anew for each; one sample and one unit
# among them.
shapes = st.sampled_from([(1, 1, (1,)), (1, 4, (3,)), (7, 4, (3, 2)), (33, 5, (1,))])
networks = st.fixed_dictionaries(
    {
        "activation": st.sampled_from(["sigmoid", "tanh", "relu", "linear"]),
        "output_activation": st.sampled_from([None, "sigmoid", "linear"]),
        "tied": st.booleans(),
        "tied_decay": st.sampled_from([1, 2]),
        "rho": st.one_of(st.sampled_from([1e-5, 0.01, 0.05, 0.5, 0.999]), st.floats(0.001, 0.99)),
        "beta": st.sampled_from([0.0, 1e-6, 0.1, 3.0, 1e4]),
        "weight_decay": st.sampled_from([0.0, 1e-8, 1e-4, 10.0]),
        "epsilon": st.sampled_from([1e-6, 1e-3]),
        "by_layer": st.booleans(),
    }
)
scales = st.sampled_from([1e-3, 1.0, 5.0])
precisions = st.sampled_from(["float32", "float64", "bfloat16", "float16"])


def network(case: dict[str, Any], hidden: tuple[int, ...], from_logits: bool) -> dict[str, Any]:
    """The arguments of a model from a drawn case."""
    if from_logits:
        case = {**case, "activation": "sigmoid"}
    case = {
        **case,
        "hidden_units": hidden,
        "from_logits": from_logits,
        "symmetric": case["activation"] == "tanh" and not from_logits,
        "epsilon": min(case["epsilon"], case["rho"], 1 - case["rho"]),
    }
    if case.pop("by_layer"):  # and by unit in every other layer
        units = [*hidden, *reversed(hidden[:-1])]
        case["rho"] = [
            case["rho"] if layer % 2 else np.linspace(case["rho"], 0.5, n)
            for layer, n in enumerate(units)
        ]
        case["beta"] = [case["beta"] / (1 + layer) for layer in range(len(units))]
    return case


def build(
    arguments: dict[str, Any], features: int, seed: int, scale: float, precision: str, policy: str
) -> SparseAutoencoder:
    """A model whose weights are numbers of the precision."""
    model = SparseAutoencoder(**arguments, dtype=policy)
    model.build((None, features))
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        values = rounded(generator.normal(size=tuple(variable.shape)) * scale, precision)
        variable.assign(values.astype(variable.dtype))
    return model


def terms_of(model: SparseAutoencoder, x: Any, y: Any) -> dict[str, Any]:
    output = model(x)
    losses = list(model.losses)
    kernels = len(model.kernels)
    return {
        "reconstruction": model.reconstruction_loss(y, output),
        "weight_decay": sum(losses[-kernels:]),
        "sparsity": sum(losses[:-kernels]),
    }


@pytest.mark.equation(
    "EQ-COST",
    "EQ-RECONSTRUCTION",
    "EQ-DECAY",
    "EQ-SPARSITY",
    "EQ-SPARSITY-LOGITS",
    "EQ-GRADIENT",
    "EQ-GRADIENT-TIED",
    "EQ-DELTA",
)
@pytest.mark.inference
# Keras's sigmoid on NumPy says of a large logit that its exponential is infinite.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
@given(
    case=networks,
    shape=shapes,
    from_logits=st.booleans(),
    seed=st.integers(0, 2**16),
    scale=scales,
    precision=precisions,
    same=st.booleans(),
)
# The decay may be added between the two uses of a tied kernel: three terms in any order.
@example(
    case={
        "activation": "sigmoid",
        "output_activation": "linear",
        "tied": True,
        "tied_decay": 2,
        "rho": 1e-5,
        "beta": 0.0,
        "weight_decay": 10.0,
        "epsilon": 1e-6,
        "by_layer": False,
    },
    shape=(7, 4, (3, 2)),
    from_logits=False,
    seed=233,
    scale=0.001,
    precision="float32",
    same=True,
)
# `ops.tanh` of float64 is float32 on JAX.
@example(
    case={
        "activation": "tanh",
        "output_activation": None,
        "tied": False,
        "tied_decay": 1,
        "rho": 0.5,
        "beta": 3.0,
        "weight_decay": 1e-4,
        "epsilon": 1e-3,
        "by_layer": False,
    },
    shape=(7, 4, (3,)),
    from_logits=False,
    seed=0,
    scale=1.0,
    precision="float64",
    same=True,
)
# The bias's gradient is a sum of 33 nearly equal numbers: in bfloat16 it would be off by 1 %.
# What is not tied counts once, whatever `tied_decay` says.
@example(
    case={
        "activation": "sigmoid",
        "output_activation": None,
        "tied": False,
        "tied_decay": 2,
        "rho": 1e-5,
        "beta": 1e4,
        "weight_decay": 10.0,
        "epsilon": 1e-6,
        "by_layer": False,
    },
    shape=(33, 5, (1,)),
    from_logits=True,
    seed=0,
    scale=0.001,
    precision="bfloat16",
    same=False,
)
def test_terms_and_gradients(
    case: dict[str, Any],
    shape: tuple[int, int, tuple[int, ...]],
    from_logits: bool,
    seed: int,
    scale: float,
    precision: str,
    same: bool,
) -> None:
    if not has_gradients():
        precision = "float32"  # all that Keras has on numpy and openvino
    m, features, hidden = shape
    arguments = network(case, hidden, from_logits)
    generator = np.random.default_rng(seed)
    x = rounded(generator.uniform(size=(m, features)), precision)
    y = x if same else rounded(generator.uniform(size=(m, features)), precision)
    with computing_in(precision) as policy:
        model = build(arguments, features, seed, scale, precision, policy)
        step = reference.cost_and_gradient_with_bounds(
            to_parameters(model),
            x,
            y=y,
            precision=precision,
            from_logits=from_logits,
            summation="rows first",
            **oracle_arguments(model),
        )
        dtype = "float64" if precision == "float64" else "float32"
        inputs = ops.convert_to_tensor(x, dtype=model.compute_dtype)
        target = ops.convert_to_tensor(y, dtype=dtype)
        run = mostly_compiled(seed)

        def cost(*tensors: Any) -> Any:
            *weights, tensor = tensors
            output, _, losses = model.stateless_call(weights, [], tensor, return_losses=True)
            return model.reconstruction_loss(target, output) + sum(losses)

        variables = model.trainable_variables
        tensors = [*[v.value for v in variables], inputs]

        def everything(*tensors: Any) -> Any:
            gradients = value_and_gradients(cost, tensors)[1] if has_gradients() else []
            return terms_of(model, tensors[-1], target), gradients

        terms, gradients = run(everything)(*tensors)
        for name, value in terms.items():
            assert keras.backend.standardize_dtype(value.dtype) == dtype
            inside(name, value, getattr(step.cost, name), arguments)
        if not has_gradients():
            return
        by_variable = {id(v): g for v, g in zip(variables, gradients[:-1], strict=True)}
        for kind in ("kernels", "biases"):
            for i, variable in enumerate(getattr(model, kind)):
                expected = getattr(step.gradient, kind)[i]
                inside(f"gradient by {kind}[{i}]", by_variable[id(variable)], expected, arguments)
        inside("gradient by x", gradients[-1], step.x, arguments)


# On torch `jit_compile` is torch.compile, half a minute each time: one of its cases.
COMPILED = pytest.mark.only_backends("jax", "tensorflow")
WAYS_TO_TRAIN = [
    pytest.param("jit", False, "float32"),
    pytest.param("jit", False, "float64", marks=COMPILED),
    pytest.param("jit", True, "float32", marks=COMPILED),
    pytest.param("jit", True, "float64", marks=COMPILED),
    *(
        pytest.param(mode, tied, precision, marks=marks)
        # JAX and torch do without jit what they do eagerly.
        for mode, marks in (("graph", pytest.mark.only_backends("tensorflow")), ("eager", ()))
        for tied in (False, True)
        for precision in ("float32", "float64")
    ),
]


@pytest.mark.only_backends("torch")
def test_a_compiled_step_that_would_lose_the_penalties_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    for version, refused in (("2.11.0+cu130", True), ("2.12.1", False), ("3.0", False)):
        monkeypatch.setattr(torch, "__version__", version)
        assert keras_loses_compiled_losses() == refused
        if refused:
            with pytest.raises(ValueError, match="Received: jit_compile=True"):
                SparseAutoencoder(3).compile("sgd", jit_compile=True)
        SparseAutoencoder(3).compile("sgd")


@pytest.mark.equation("EQ-BOUND-DESCENT", "EQ-COST")
@pytest.mark.parametrize(("mode", "tied", "precision"), WAYS_TO_TRAIN)
def test_fit_is_gradient_descent_on_the_papers_cost(mode: str, tied: bool, precision: str) -> None:
    """Five full-batch steps of plain `fit`, with y ≠ x; and what `fit` reports on the way.

    A compiled step, once more with twice the β: no coefficient is a constant of it.
    """
    if mode == "jit" and keras_loses_compiled_losses():
        pytest.skip("Keras loses the losses of layers in a compiled step of this torch")
    generator = np.random.default_rng(0)
    x = rounded(generator.uniform(size=(24, 6)), "float32")
    y = rounded(generator.uniform(size=(24, 6)), "float32")
    with computing_in(precision) as policy:
        model = SparseAutoencoder((4, 3), rho=0.1, weight_decay=0.01, tied=tied, dtype=policy)
        model.build((None, 6))
        set_parameters(model, reference.initialise((6, 4, 3, 4, 6), seed=1, tied=tied))
        start = to_parameters(model)
        arguments = {**oracle_arguments(model), "y": y, "precision": precision}
        model.compile(
            keras.optimizers.SGD(0.25), jit_compile=mode == "jit", run_eagerly=mode == "eager"
        )
        if mode == "jit":  # before anything is compiled
            set_hyperparameters(model, beta=model.beta)
        data = {"x": x.astype(precision), "y": y.astype(precision), "batch_size": 24}
        history = model.fit(**data, epochs=5, shuffle=False, verbose=0).history
        reached = reference.gradient_descent_with_bounds(
            start, x, steps=5, learning_rate=0.25, **arguments
        )
        for variable, expected in zip(
            [*model.kernels, *model.biases], [*reached.kernels, *reached.biases], strict=True
        ):
            inside(variable.name, variable.value, expected)
            assert reference.usage(as_numpy(variable.value), expected).undecidable == 0.0
        first = reference.cost_and_gradient_with_bounds(start, x, **arguments).cost
        for name in ("reconstruction", "weight_decay", "sparsity"):
            # Keras keeps metrics in float32: 2 roundoffs more.
            term = getattr(first, name)
            slack = term.bound + 2 * 2.0**-24 * abs(term.value)
            assert abs(history[name][0] - term.value) <= slack
        for epoch in range(5):
            total = sum(
                history[name][epoch] for name in ("reconstruction", "weight_decay", "sparsity")
            )
            assert abs(history["loss"][epoch] - total) <= 8 * 2.0**-24 * total
        if mode == "jit":
            model.beta *= 2.0
            sparsity = reference.cost_and_gradient_with_bounds(
                to_parameters(model), x, **{**arguments, "beta": model.beta}
            ).cost.sparsity
            reported = model.fit(**data, verbose=0).history["sparsity"][0]
            slack = sparsity.bound + 2 * 2.0**-24 * abs(sparsity.value)
            assert abs(reported - sparsity.value) <= slack


@pytest.mark.equation("EQ-COST")
def test_the_three_terms_add_up_over_uneven_batches() -> None:
    """The reported terms are means over samples, as Keras's loss: also with a short last batch."""
    x = np.random.default_rng(0).uniform(size=(10, 4)).astype("float32")
    model = SparseAutoencoder(3, rho=0.1, seed=0)
    model.compile("sgd")
    found = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    terms = found["reconstruction"] + found["weight_decay"] + found["sparsity"]
    assert abs(found["loss"] - terms) <= 8 * 2.0**-24 * terms
    parameters = to_parameters(model)
    arguments = oracle_arguments(model)
    expected = sum(
        len(batch) * reference.sparse_autoencoder_cost(parameters, batch, **arguments).total
        for batch in (x[:4], x[4:8], x[8:])
    ) / len(x)
    bound = max(
        reference.cost_and_gradient_with_bounds(parameters, batch, **arguments).cost.total.bound
        for batch in (x[:4], x[4:8], x[8:])
    )
    assert abs(found["loss"] - expected) <= bound + 8 * 2.0**-24 * expected


X = rounded(np.random.default_rng(0).uniform(size=(6, 4)), "float32").astype("float32")
# Their sum is twice their number: see `test_weights_without_targets_train_as_repeated_samples`.
WEIGHTS = np.array([1.0, 0.0, 3.0, 2.0, 0.0, 6.0], dtype="float32")


def still(hidden: Any = 3, **arguments: Any) -> SparseAutoencoder:
    """A compiled model that `fit` leaves as it is."""
    model = SparseAutoencoder(hidden, rho=0.1, weight_decay=0.01, seed=0)
    model.build((None, 4))
    model.compile(keras.optimizers.SGD(0.0), **arguments)
    return model


def batches(*parts: Any) -> Any:
    """A source of one batch, of whatever parts."""

    class OneBatch(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> Any:
            return parts

    return OneBatch()


@pytest.mark.equation("EQ-RECONSTRUCTION")
def test_sample_weights_count_in_every_call_and_form_of_data(backend: str) -> None:
    """Keras drops the weights of arrays without targets, and says nothing."""
    model = still(metrics=["mse"], weighted_metrics=["mae"])
    step = reference.cost_and_gradient_with_bounds(
        to_parameters(model), X, **oracle_arguments(model)
    )
    output = reference.forward(to_parameters(model), X).output
    squares = np.sum((output - X) ** 2, axis=1) / 2.0
    expected = {True: float(np.mean(WEIGHTS * squares)), False: float(np.mean(squares))}
    absolute = np.mean(np.abs(output - X), axis=1)
    mae = {True: float(np.average(absolute, weights=WEIGHTS)), False: float(np.mean(absolute))}

    def check_logs(logs: Any, prefix: str = "", weighted: bool = True) -> None:
        found = {name: float(np.ravel(value)[0]) for name, value in logs.items()}
        # 6·4 terms and the error of a float32 network of this size: 64 roundoffs.
        for name, value in (
            ("reconstruction", expected[weighted]),
            ("weight_decay", float(step.cost.weight_decay.value)),
            ("sparsity", float(step.cost.sparsity.value)),
            ("mse", expected[False] / 2.0),
            ("mae", mae[weighted]),
        ):
            assert abs(found[prefix + name] - value) <= 64 * 2.0**-24 * value, (prefix, name)
        terms = sum(found[prefix + name] for name in ("reconstruction", "weight_decay", "sparsity"))
        assert abs(found[prefix + "loss"] - terms) <= 8 * 2.0**-24 * terms

    quiet: dict[str, Any] = {"batch_size": 6, "verbose": 0}
    validation = [(X, None, WEIGHTS), (X, X, WEIGHTS)]
    for data in (validation[0], validation[1]):
        logs = model.fit(X, sample_weight=WEIGHTS, validation_data=data, **quiet).history
        check_logs(logs)
        check_logs(logs, "val_")
    logs = model.fit(X, validation_data=(X,), **quiet).history
    check_logs(logs, weighted=False)
    check_logs(logs, "val_", weighted=False)
    by_position = [None, 6, 1, 0, None, 0.0, None, True, None, WEIGHTS]
    check_logs(model.fit(X, *by_position).history)
    twice = np.concatenate([X, X])
    logs = model.fit(
        twice,
        sample_weight=np.concatenate([0.0 * WEIGHTS, WEIGHTS]),
        validation_split=0.5,
        **quiet,
    ).history
    check_logs(logs, "val_")
    check_logs(model.evaluate(X, sample_weight=WEIGHTS, return_dict=True, **quiet))
    check_logs(model.evaluate(X, None, 6, 0, WEIGHTS, return_dict=True))
    check_logs(model.train_on_batch(X, sample_weight=WEIGHTS, return_dict=True))
    check_logs(model.test_on_batch(X, None, WEIGHTS, return_dict=True))
    check_logs(model.fit(batches(X, X, WEIGHTS), verbose=0).history)
    check_logs(model.fit(batches(X), verbose=0).history, weighted=False)
    if backend != "tensorflow":  # its data sets hold no None: Keras fails, and says so
        check_logs(model.fit(batches(X, None, WEIGHTS), verbose=0).history)


@pytest.mark.equation("EQ-RECONSTRUCTION", "EQ-BOUND-DESCENT")
def test_weights_without_targets_train_as_repeated_samples() -> None:
    """Without sparsity: (1/m) Σ wᵢLᵢ is twice the mean over the set in which i is wᵢ times."""
    model = SparseAutoencoder(3, beta=0.0, weight_decay=0.01, seed=0)
    model.build((None, 4))
    start = to_parameters(model)
    model.compile(keras.optimizers.SGD(0.25))
    model.fit(X, sample_weight=WEIGHTS, batch_size=6, epochs=3, shuffle=False, verbose=0)
    repeated = np.repeat(X, WEIGHTS.astype(int), axis=0)
    arguments = {**oracle_arguments(model), "weight_decay": 0.01 / 2}
    reached = reference.gradient_descent_with_bounds(
        start, repeated, steps=3, learning_rate=2 * 0.25, **arguments
    )
    for variable, expected in zip(
        [*model.kernels, *model.biases], [*reached.kernels, *reached.biases], strict=True
    ):
        inside(variable.name, variable.value, expected)


def test_what_would_not_count_is_refused(backend: str) -> None:
    model = still()
    for call in (
        lambda: model.fit(X, class_weight={0: 1.0}),
        lambda: model.fit(X, X, class_weight={0: 1.0}),
        lambda: model.train_on_batch(X, class_weight={0: 1.0}),
    ):
        with pytest.raises(ValueError, match=r"`class_weight`.*use `sample_weight`.*\{0: 1.0\}"):
            call()
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(batches(X), sample_weight=WEIGHTS)
    with pytest.raises(ValueError, match=r"sample_weight must be that of the losses, \(6,\)"):
        model.train_on_batch(X, sample_weight=np.ones((6, 4), "float32"))
    for inputs in ([X], X[None]):
        with pytest.raises(ValueError, match=r"takes input of shape \(samples, features\)"):
            model(inputs)
    code = model.encode(X)
    for call, words in (
        (lambda: model(X[:, :2]), r"`inputs` must have the shape \(samples, 4\).*\(6, 2\)"),
        (lambda: model.encode(X[:, :2]), r"`inputs` must have the shape \(samples, 4\).*\(6, 2\)"),
        (lambda: model.encode(X[0]), r"`inputs` must have the shape \(samples, 4\).*\(4,\)"),
        (lambda: model.decode(X), r"`code` must have the shape \(samples, 3\).*\(6, 4\)"),
        (lambda: model.decode(code[0]), r"`code` must have the shape \(samples, 3\).*\(3,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(ValueError, match="SparseAutoencoder inside of TimeDistributed"):
        keras.layers.TimeDistributed(model)(np.ones((2, 3, 4), "float32"))
    with pytest.raises(ValueError, match="SparseAutoencoder cannot be quantized"):
        model.quantize("int8")


def test_the_arguments_are_fixed() -> None:
    """JAX and TensorFlow go on with what a step was compiled with; torch would not."""
    model = still()
    for name, value in model.get_config().items():
        if name in ("name", "trainable", "dtype"):
            continue
        assert getattr(model, name) == (tuple(value) if isinstance(value, list) else value)
        if name in ("rho", "beta", "weight_decay"):  # test_coefficients.py: a number changes them
            error, words = TypeError, f"`{name}` must be a number"
        else:
            error, words = AttributeError, f"`{name}` of SparseAutoencoder cannot be"
        with pytest.raises(error, match=words):
            setattr(model, name, "another")


FROZEN = {
    "first": lambda model: [model.kernels[0]],
    "last": lambda model: [model.kernels[-1]],
    "kernels": lambda model: list(model.kernels),
    "bias": lambda model: [model.biases[0]],
    "encoder": lambda model: model.encoder.variables,
}


@pytest.mark.equation("EQ-COST", "EQ-DECAY", "EQ-BOUND-DESCENT")
@pytest.mark.parametrize(
    ("tied", "frozen"),
    [*((False, frozen) for frozen in FROZEN), (True, "first"), (True, "kernels")],
)
def test_a_frozen_variable_stays_and_its_decay_is_not_counted(tied: bool, frozen: str) -> None:
    model = SparseAutoencoder((3, 2), rho=0.1, weight_decay=0.1, tied=tied, seed=0)
    model.build((None, 4))
    for variable in FROZEN[frozen](model):
        variable.trainable = False
    start = to_parameters(model)
    model.compile(keras.optimizers.SGD(0.25))
    cost = full_cost(model, X)
    found = model.fit(X, batch_size=6, verbose=0).history
    arguments = oracle_arguments(model)
    step = reference.cost_and_gradient_with_bounds(start, X, **arguments)
    decay = 0.05 * sum(
        float(np.sum(values**2))
        for kernel, values in zip(model.kernels, start.kernels, strict=True)
        if kernel.trainable
    )
    for name, value in (
        ("reconstruction", float(step.cost.reconstruction.value)),
        ("weight_decay", decay),
        ("sparsity", float(step.cost.sparsity.value)),
    ):
        # As in `test_sample_weights_count_in_every_call_and_form_of_data`, twice as deep.
        assert abs(found[name][0] - value) <= 128 * 2.0**-24 * value, name
        assert abs(getattr(cost, name) - value) <= 128 * 2.0**-24 * value, name
    reached = reference.gradient_descent_with_bounds(
        start, X, steps=1, learning_rate=0.25, **arguments
    )
    for kind in ("kernels", "biases"):
        for i, variable in enumerate(getattr(model, kind)):
            if variable.trainable:
                inside(variable.name, variable.value, getattr(reached, kind)[i])
            else:
                assert np.array_equal(as_numpy(variable.value), getattr(start, kind)[i])


def test_input_of_any_dtype_is_cast() -> None:
    """x and the targets, as Keras's Dense casts them."""
    model = still()
    ones = X > 0.5
    output, code = (as_numpy(way(ones.astype("float32"))) for way in (model, model.encode))
    logs = model.train_on_batch(ones.astype("float32"), sample_weight=WEIGHTS)
    for dtype in ("uint8", "int64", "bool", "float64"):
        x = ones.astype(dtype)
        assert np.array_equal(as_numpy(model(x)), output)
        for found in (model.encode(x), model.encoder(x)):
            assert np.array_equal(as_numpy(found), code)
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert model.train_on_batch(x, sample_weight=WEIGHTS) == logs


@pytest.mark.parametrize("from_logits", [False, True])
def test_a_batch_without_samples_costs_its_weight_decay(from_logits: bool) -> None:
    model = SparseAutoencoder(3, rho=0.1, from_logits=from_logits, seed=0)
    nothing = np.zeros((0, 4), "float32")
    assert tuple(model(nothing).shape) == (0, 4)
    assert tuple(model.encode(nothing).shape) == (0, 3)
    assert tuple(model.encoder(nothing).shape) == (0, 3)
    sparsity, *decay = model.losses
    assert float(sparsity) == 0.0
    assert all(float(term) > 0.0 for term in decay)
    model.compile(keras.optimizers.SGD(0.0))
    loss = float(model.compute_loss(nothing, None, model(nothing)))
    expected = sum(map(float, decay))
    assert abs(loss - expected) <= 4 * 2.0**-24 * expected
    for logs in (model.train_on_batch(nothing), model.test_on_batch(nothing)):
        assert np.all(np.isfinite(logs))
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())


@pytest.mark.inference
@pytest.mark.equation("EQ-FORWARD")
def test_encode_and_decode_are_the_two_halves() -> None:
    x = np.random.default_rng(0).uniform(size=(5, 4)).astype("float32")
    for tied in (False, True):
        model = SparseAutoencoder((3, 2), rho=0.1, tied=tied, seed=0)
        code = model.encode(x)
        assert tuple(code.shape) == (5, 2)
        output = ops.convert_to_numpy(model(x))
        assert np.array_equal(ops.convert_to_numpy(model.decode(code)), output)
        passed = reference.forward(to_parameters(model), x)
        # Two layers of at most 4 terms in float32, values below 1: 2·(4 + 16 + 2) roundoffs.
        difference = np.abs(ops.convert_to_numpy(code) - passed.activations[2])
        assert np.max(difference) <= 44 * 2.0**-24


@pytest.mark.equation("EQ-FORWARD")
@pytest.mark.parametrize("tied", [False, True])
def test_encoder_and_decoder_share_the_weights(tied: bool, tmp_path: Path) -> None:
    """Also as the pieces of a graph; through training, freezing, saving and copying."""
    model = SparseAutoencoder((3, 2), rho=0.1, tied=tied, output_activation="linear", seed=0)
    with pytest.raises(ValueError, match=r"`build` before `encoder`"):
        _ = model.encoder
    x, code = keras.Input((4,)), keras.Input((2,))
    encodes = {"graph": keras.Model(x, model.encode(x)), "encoder": model.encoder}
    decodes = {"graph": keras.Model(code, model.decode(code)), "decoder": model.decoder}
    assert model.encoder is model.encoder
    assert model.encoder.count_params() == 4 * 3 + 3 + 3 * 2 + 2
    assert model.decoder.count_params() == 2 * 3 + 3 + 3 * 4 + 4

    def follows() -> None:
        passed = reference.forward(to_parameters(model), X, output_activation="linear")
        for encode in encodes.values():
            found = encode.predict(X, verbose=0)
            # As in `test_encode_and_decode_are_the_two_halves`.
            for code in (found, ops.convert_to_numpy(model.encode(X))):
                assert np.max(np.abs(code - passed.activations[2])) <= 44 * 2.0**-24
            for decode in decodes.values():
                output = decode.predict(found, verbose=0)
                # One product more of at most 3 terms a layer.
                assert np.max(np.abs(output - passed.output)) <= 2 * 88 * 2.0**-24

    follows()
    before = model.encoder.predict(X, verbose=0)
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(X, batch_size=6, epochs=2, verbose=0)
    assert np.max(np.abs(model.encoder.predict(X, verbose=0) - before)) > 1e-3
    follows()
    # No penalty but the weight decay of what it shares, and none in the autoencoder twice.
    model(X)
    losses = len(model.losses)
    for half in (model.encode, model.encoder):
        half(X)
    for half in (model.decode, model.decoder):
        half(before)
    assert len(model.encoder.losses) == 2
    assert len(model.losses) == losses == 3 + len(model.kernels)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    halves = [("decoder", model.decoder, before)]
    if not tied:
        halves += [("encoder", model.encoder, X), ("graph", encodes["graph"], X)]
    for name, half, values in halves:
        half.save(tmp_path / f"{name}.keras")
        alone = keras.models.load_model(tmp_path / f"{name}.keras")
        expected = half.predict(values, verbose=0)
        assert np.array_equal(alone.predict(values, verbose=0), expected)
        alone.set_weights([0.0 * weight for weight in alone.get_weights()])
        assert np.array_equal(half.predict(values, verbose=0), expected)
        if name != "graph":
            assert np.array_equal(getattr(again, name).predict(values, verbose=0), expected)

    # Training through the encoder moves the autoencoder; freezing the one freezes the other.
    untouched = model.decoder.get_weights()[-1]
    head = keras.Sequential([model.encoder, keras.layers.Dense(1)])
    head.compile(keras.optimizers.SGD(0.5), loss="mse")
    head.fit(X, X[:, :1], batch_size=6, verbose=0)
    follows()
    assert np.array_equal(model.decoder.get_weights()[-1], untouched)
    model.encoder.trainable = False
    assert len(model.trainable_weights) == (2 if tied else 4)


def test_summary_lists_the_parameters_of_each_layer() -> None:
    model = SparseAutoencoder((3, 2), seed=0)
    model.build((7, 4))
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert "(None, 3)" in "\n".join(lines)  # for batches of any size
    assert "(7," not in "\n".join(lines)
    counts = [layer.count_params() for layer in model.layers]
    assert counts == [15, 0, 8, 0, 9, 0, 16]
    for layer in model.layers:
        assert layer.name in "\n".join(lines)
    assert "Total params: 48" in "\n".join(lines)


@pytest.mark.equation("EQ-FORWARD")
def test_the_halves_are_float64_where_the_model_is() -> None:
    """`keras.layers.Dense` is float32 then on torch."""
    with computing_in("float64"):
        model = SparseAutoencoder(3, tied=True, seed=0, dtype="float64")
        model.build((None, 4))
        passed = reference.forward(to_parameters(model), X)
        code = model.encoder.predict(X.astype("float64"), verbose=0)
        # As in `test_encode_and_decode_are_the_two_halves`.
        assert np.max(np.abs(code - passed.activations[1])) <= 22 * 2.0**-53
        output = model.decoder.predict(code, verbose=0)
        assert np.max(np.abs(output - passed.output)) <= 44 * 2.0**-53


@pytest.mark.equation("EQ-BOUND-DESCENT", "EQ-COST")
@pytest.mark.parametrize(
    "arguments", [{}, {"tied": True, "from_logits": True}, {"hidden_units": (3, 2), "beta": 0.5}]
)
def test_denoising_descends_as_the_oracle_does(arguments: dict[str, Any]) -> None:
    """`fit(noisy, x)`: the inputs, and so ρ̂, are noisy; the targets are not."""
    arguments = {"hidden_units": 3, "rho": 0.125, "weight_decay": 0.01, **arguments}
    model = SparseAutoencoder(**arguments, seed=0)
    model.build((None, 4))
    start, given = to_parameters(model), oracle_arguments(model)
    model.compile(keras.optimizers.SGD(0.25))
    noise = np.random.default_rng(5).normal(scale=0.3, size=X.shape)
    noisy = np.clip(X + noise, 0.0, 1.0).astype("float32")
    reported = model.fit(noisy, X, batch_size=6, epochs=2, shuffle=False, verbose=0).history
    expected = reference.cost_and_gradient_with_bounds(start, noisy, y=X, **given).cost
    for name in ("reconstruction", "weight_decay", "sparsity"):
        term = getattr(expected, name)
        inside(name, reported[name][0], Bounded(term.value, term.bound + REPORTED * term.value))
    reached = reference.gradient_descent_with_bounds(
        start, noisy, steps=2, learning_rate=0.25, y=X, **given
    )
    for variable, bounded in zip(
        [*model.kernels, *model.biases], [*reached.kernels, *reached.biases], strict=True
    ):
        inside(variable.name, variable.value, bounded)


@pytest.mark.equation("EQ-COST")
def test_a_model_that_is_used_twice_counts_twice() -> None:
    """Under JAX's `fit` Keras keeps the losses of a layer's last call only, and says nothing."""
    model = SparseAutoencoder(3, rho=0.1, weight_decay=0.01, seed=0)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    both = keras.Model(inputs, [model(x) for x in inputs])
    both.compile(keras.optimizers.SGD(0.0), loss=[HalfSquaredError(), HalfSquaredError()])
    parameters, arguments = to_parameters(model), oracle_arguments(model)
    data = [X, X[::-1] * np.float32(0.5)]
    found = both.fit(data, data, batch_size=6, shuffle=False, verbose=0).history["loss"][0]
    costs = [reference.cost_and_gradient_with_bounds(parameters, x, **arguments).cost for x in data]
    expected = sum(float(cost.total.value) for cost in costs)
    expected -= float(costs[0].weight_decay.value)  # of one variable
    slack = sum(float(cost.total.bound) for cost in costs) + 16 * 2.0**-24 * expected
    assert abs(found - expected) <= slack


@pytest.mark.equation("EQ-BOUND-DESCENT")
def test_steps_in_one_call_and_accumulated_gradients_are_the_same_descent(backend: str) -> None:
    for optimizer, steps_per_execution, steps in (
        (keras.optimizers.SGD(0.25, gradient_accumulation_steps=2), 1, 2),
        (keras.optimizers.SGD(0.25), 2, 4),
    ):
        if backend == "torch" and steps_per_execution > 1:
            continue  # Keras refuses it there
        model = SparseAutoencoder(3, rho=0.1, weight_decay=0.01, tied=True, seed=0)
        model.build((None, 4))
        start = to_parameters(model)
        model.compile(optimizer, steps_per_execution=steps_per_execution)
        model.fit(np.concatenate([X] * 4), batch_size=6, shuffle=False, verbose=0)
        reached = reference.gradient_descent_with_bounds(
            start, X, steps=steps, learning_rate=0.25, **oracle_arguments(model)
        )
        for variable, expected in zip(
            [*model.kernels, *model.biases], [*reached.kernels, *reached.biases], strict=True
        ):
            inside(variable.name, variable.value, expected)


@pytest.mark.only_backends("jax")
def test_no_tracer_outlives_its_trace() -> None:
    import jax

    model = still()
    with jax.checking_leaks():
        model.fit(X, verbose=0)
