"""`SparseAutoencoder` against the oracle: terms, gradients, trained weights, inside the bounds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import SparseAutoencoder
from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from keras_impl.backends.keras_internals import keras_loses_compiled_losses
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters, to_parameters
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
    }
)
scales = st.sampled_from([1e-3, 1.0, 5.0])
precisions = st.sampled_from(["float32", "float64", "bfloat16", "float16"])


def network(case: dict[str, Any], hidden: tuple[int, ...], from_logits: bool) -> dict[str, Any]:
    """The arguments of a model from a drawn case."""
    if from_logits:
        case = {**case, "activation": "sigmoid"}
    return {
        **case,
        "hidden_units": hidden,
        "from_logits": from_logits,
        "symmetric": case["activation"] == "tanh" and not from_logits,
        "epsilon": min(case["epsilon"], case["rho"], 1 - case["rho"]),
    }


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


def check(label: str, actual: Any, expected: reference.Bounded, *context: Any) -> None:
    used = reference.usage(as_numpy(actual), expected)
    assert used.worst <= 1.0, (
        f"{label} is {used.worst:.3g} bounds from the oracle.\n"
        f"got {as_numpy(actual)}\nexpected {expected.value}\nbound {expected.bound}\n{context}"
    )


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
@given(
    case=networks,
    shape=shapes,
    from_logits=st.booleans(),
    seed=st.integers(0, 2**16),
    scale=scales,
    precision=precisions,
    same=st.booleans(),
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
            check(name, value, getattr(step.cost, name), arguments)
        if not has_gradients():
            return
        by_variable = {id(v): g for v, g in zip(variables, gradients[:-1], strict=True)}
        for kind in ("kernels", "biases"):
            for i, variable in enumerate(getattr(model, kind)):
                expected = getattr(step.gradient, kind)[i]
                check(f"gradient by {kind}[{i}]", by_variable[id(variable)], expected, arguments)
        check("gradient by x", gradients[-1], step.x, arguments)


# On torch `jit_compile` is torch.compile, half a minute each time: one of its cases.
COMPILED = pytest.mark.only_backends("jax", "tensorflow")
WAYS_TO_TRAIN = [
    pytest.param("jit", False, "float32"),
    pytest.param("jit", False, "float64", marks=COMPILED),
    pytest.param("jit", True, "float32", marks=COMPILED),
    pytest.param("jit", True, "float64", marks=COMPILED),
    *(
        (mode, tied, precision)
        for mode in ("graph", "eager")
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
    """Five full-batch steps of plain `fit`, with y ≠ x; and what `fit` reports on the way."""
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
        history = model.fit(
            x.astype(precision),
            y.astype(precision),
            batch_size=24,
            epochs=5,
            shuffle=False,
            verbose=0,
        ).history
        reached = reference.gradient_descent_with_bounds(
            start, x, steps=5, learning_rate=0.25, **arguments
        )
        for variable, expected in zip(
            [*model.kernels, *model.biases], [*reached.kernels, *reached.biases], strict=True
        ):
            check(variable.name, variable.value, expected)
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


@pytest.mark.equation("EQ-RECONSTRUCTION")
def test_sample_weights_scale_the_reconstruction_alone() -> None:
    x = np.random.default_rng(0).uniform(size=(6, 4)).astype("float32")
    weight = np.array([1.0, 0.0, 2.0, 1.0, 0.5, 4.0], dtype="float32")
    model = SparseAutoencoder(3, rho=0.1, seed=0)
    model.compile("sgd")
    plain = model.evaluate(x, verbose=0, return_dict=True)
    found = model.evaluate(x, x, sample_weight=weight, verbose=0, return_dict=True)
    assert found["sparsity"] == plain["sparsity"]
    assert found["weight_decay"] == plain["weight_decay"]
    output = reference.forward(to_parameters(model), x).output
    expected = float(np.mean(weight * np.sum((output - x) ** 2, axis=1)) / 2)
    # 6·4 terms and the error of a float32 network of this size: 64 roundoffs.
    assert abs(found["reconstruction"] - expected) <= 64 * 2.0**-24 * expected


@pytest.mark.inference
@pytest.mark.equation("EQ-FORWARD")
def test_encode_and_decode_are_the_two_halves() -> None:
    x = np.random.default_rng(0).uniform(size=(5, 4)).astype("float32")
    for tied in (False, True):
        model = SparseAutoencoder((3, 2), rho=0.1, tied=tied, seed=0)
        code = model.encode(x)
        assert tuple(code.shape) == (5, 2)
        whole = ops.convert_to_numpy(model(x))
        assert np.array_equal(ops.convert_to_numpy(model.decode(code)), whole)
        passed = reference.forward(to_parameters(model), x)
        # Two layers of at most 4 terms in float32, values below 1: 2·(4 + 16 + 2) roundoffs.
        difference = np.abs(ops.convert_to_numpy(code) - passed.activations[2])
        assert np.max(difference) <= 44 * 2.0**-24
