"""The sparsity term as regularizer and as layer, on every kind of output, against the oracle."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import (
    KLSparsity,
    KLSparsityRegularizer,
    SparseAutoencoder,
    WeightDecay,
    keras_divides_activity_by_batch,
)
from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from keras_impl.divergence import at_least_float32, kl_divergence, kl_divergence_and_slope
from reference.bounds import scaled_sum_of_squares
from reference.rounding import Arithmetic, exact
from tests.asserting import function_inside, inside
from tests.keras_impl.precision import as_numpy, computing_in, mostly_compiled, rounded

SHAPES = [(1, 1), (1, 5), (8, 3), (257, 2), (3, 4, 2), (2, 3, 3, 4)]
rhos = st.one_of(st.sampled_from([1e-6, 0.05, 0.5, 1 - 1e-6]), st.floats(1e-4, 0.9999))
precisions = st.sampled_from(["float32", "float64", "bfloat16", "float16"])
kinds = st.sampled_from(["plain", "symmetric", "logits"])


def draw(seed: int, shape: tuple[int, ...], kind: str, spread: float, precision: str) -> Any:
    """Activations in [0, 1] or [−1, 1], or logits; from tiny to saturated."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=shape) * spread
    values = {"plain": reference.sigmoid(z), "symmetric": np.tanh(z), "logits": z}[kind]
    return rounded(values, precision)


def hold(
    penalty: Any,
    a: Any,
    precision: str,
    rho: Any,
    beta: float,
    *,
    run: Any = lambda function: function,
    **arguments: Any,
) -> None:
    """Hold value and gradient of a function of activations to the oracle."""
    expected = reference.kl_sparsity_with_bounds(a, rho, beta, precision=precision, **arguments)
    function_inside(penalty, a, precision, expected, run)


@pytest.mark.inference
@pytest.mark.equation("EQ-SPARSITY", "EQ-SPARSITY-SLOPE", "EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE")
@given(
    seed=st.integers(0, 2**16),
    shape=st.sampled_from(SHAPES),
    rho=rhos,
    beta=st.sampled_from([0.0, 1e-6, 1.0, 3.0, 1e5]),
    kind=kinds,
    spread=st.sampled_from([0.01, 1.0, 4.0]),
    precision=precisions,
    masked=st.booleans(),
    by_unit=st.booleans(),
)
# Next to 1 the rounding of ρ itself counts: a slope over one denominator divides it by 1 − r.
@example(2, (1, 5), 0.999999, 1e-6, "plain", 4.0, "float32", False, False)
@example(2, (1, 5), 0.999999, 1e-6, "plain", 4.0, "float32", False, True)
@example(1, (3, 4, 2), 0.05, 3.0, "symmetric", 1.0, "float32", False, False)
@example(1, (3, 4, 2), 0.05, 3.0, "logits", 1.0, "float32", False, False)
def test_value_and_gradient(
    seed: int,
    shape: tuple[int, ...],
    rho: Any,
    beta: float,
    kind: str,
    spread: float,
    precision: str,
    masked: bool,
    by_unit: bool,
) -> None:
    if not has_gradients():
        precision = "float32"
    a = draw(seed, shape, kind, spread, precision)
    form = {"from_logits": kind == "logits", "symmetric": kind == "symmetric"}
    epsilon = min(1e-6, rho, 1 - rho)
    if by_unit:
        others = np.random.default_rng(seed).uniform(1e-4, 0.9999, size=shape[-1] - 1)
        rho = np.array([rho, *others])
    run = mostly_compiled(seed)
    mask = None
    if masked:
        mask = np.random.default_rng(seed).uniform(size=shape[:-1]) < 0.6
        mask.flat[0] = True
    with computing_in(precision):
        # Keras's layers autocast their inputs; these come in the dtype of the test.
        layer = KLSparsity(rho, beta, epsilon=epsilon, dtype=precision, **form)

        def by_layer(tensor: Any) -> Any:
            layer(tensor, mask=None if mask is None else ops.convert_to_tensor(mask))
            return layer.losses[0]

        hold(by_layer, a, precision, rho, beta, run=run, epsilon=epsilon, mask=mask, **form)
        if mask is None:
            scales = seed % 2 == 1  # what undoes a division is a β so many times as large
            regularizer = KLSparsityRegularizer(
                rho, beta, epsilon=epsilon, batch_scaling=scales, **form
            )
            beta *= shape[0] if scales else 1
            hold(regularizer, a, precision, rho, beta, run=run, epsilon=epsilon, **form)


@pytest.mark.inference
@pytest.mark.equation("EQ-SPARSITY", "EQ-SPARSITY-SLOPE")
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_without_an_extension(symmetric: bool, precision: str) -> None:
    if not has_gradients():
        precision = "float32"
    kind = "symmetric" if symmetric else "plain"
    a = draw(0, (7, 5), kind, 1.0, precision)
    with computing_in(precision):
        penalty = KLSparsityRegularizer(
            0.1, 3.0, epsilon=0.0, symmetric=symmetric, batch_scaling=False
        )
        hold(penalty, a, precision, 0.1, 3.0, epsilon=0.0, symmetric=symmetric)
        # An edge that the format cannot hold is the least that it can, and no infinity.
        penalty = KLSparsityRegularizer(0.1, 3.0, epsilon=2.0**-1074, batch_scaling=False)
        assert np.isfinite(as_numpy(penalty(ops.zeros((3, 2), dtype=precision))))


@pytest.mark.inference
@pytest.mark.equation("EQ-DECAY")
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_decay_of_a_weight_of_any_rank(weight_decay: float, precision: str) -> None:
    """A scalar, a vector of biases, a matrix, a convolution: (λ/2) Σ w², and λ w."""
    if not has_gradients():
        precision = "float32"
    arithmetic = Arithmetic(precision)
    with computing_in(precision):
        for shape in ((), (1,), (5,), (1, 4), (4, 3), (2, 3, 4), (3, 3, 2, 4)):
            weight = rounded(np.random.default_rng(0).normal(size=shape), precision)
            value = scaled_sum_of_squares(
                arithmetic, arithmetic.number(weight_decay / 2.0), exact(weight)
            )
            by_weight = arithmetic.multiply(arithmetic.number(weight_decay), exact(weight))
            function_inside(WeightDecay(weight_decay), weight, precision, (value, by_weight))


@pytest.mark.keras_eras
@pytest.mark.inference
@pytest.mark.equation("EQ-SPARSITY")
@pytest.mark.parametrize("shape", [(1, 3), (8, 3), (4, 5, 3), (2, 4, 4, 3)])
def test_as_activity_regularizer_it_is_ngs_term_on_every_keras(shape: tuple[int, ...]) -> None:
    """Whatever Keras does with the batch size, `layer.losses` holds β Σ KL."""
    a = draw(0, shape, "plain", 1.0, "float32")
    value, _ = reference.kl_sparsity_with_bounds(a, 0.05, 3.0, epsilon=1e-6)
    layer = keras.layers.Activation("linear", activity_regularizer=KLSparsityRegularizer(0.05, 3.0))
    layer(ops.convert_to_tensor(a, dtype="float32"))
    # Times n and divided by n: 2 roundoffs more.
    slack = value.bound + 4 * 2.0**-24 * abs(value.value)
    assert abs(float(ops.convert_to_numpy(layer.losses[0])) - value.value) <= slack


@pytest.mark.keras_eras
@pytest.mark.inference
def test_what_this_keras_does_to_an_activity_regularizer() -> None:
    """The well-known hand-written penalty changes with the batch size where Keras divides."""
    seen = []
    for n in (1, 5, 10):
        layer = keras.layers.Activation(
            "linear", activity_regularizer=lambda a: ops.sum(ops.sum(a, axis=0) / a.shape[0])
        )
        layer(ops.ones((n, 6)))
        seen.append(round(float(ops.convert_to_numpy(layer.losses[0])), 4))
    assert seen == ([6.0, 1.2, 0.6] if keras_divides_activity_by_batch() else [6.0, 6.0, 6.0])


@pytest.mark.equation("EQ-RHO-HAT")
def test_padded_steps_never_count_in_a_model() -> None:
    """Embedding → Dense → KLSparsity with mask_zero: padding changes nothing, whatever it holds."""
    inputs = keras.Input((5,), dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=2.0, seed=0)
    embedded = keras.layers.Embedding(7, 4, embeddings_initializer=wide, mask_zero=True)(inputs)
    hidden = keras.layers.Dense(3, activation="sigmoid")(embedded)
    model = keras.Model(inputs, KLSparsity(0.05, 3.0)(hidden))
    tokens = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    activations = ops.convert_to_numpy(model(tokens)).astype(np.float64)
    actual = float(ops.convert_to_numpy(model.losses[0]))
    value, _ = reference.kl_sparsity_with_bounds(
        activations, 0.05, 3.0, mask=tokens != 0, epsilon=1e-6
    )
    assert abs(actual - value.value) <= value.bound
    unmasked = reference.kl_sparsity(activations, 0.05, 3.0)
    assert abs(actual - unmasked) > 100 * value.bound, "the mask made no difference: a weak test"


def test_a_mask_that_leaves_nothing_adds_nothing() -> None:
    for form in ({}, {"from_logits": True}):
        layer = KLSparsity(0.05, 3.0, **form)
        mask = ops.zeros((2, 3), dtype="bool")

        def penalty(tensor: Any, layer: Any = layer, mask: Any = mask) -> Any:
            layer(tensor, mask=mask)
            return layer.losses[0]

        value, (gradient,) = value_and_gradients(penalty, [ops.ones((2, 3, 4))])
        assert float(value) == 0.0
        assert np.all(ops.convert_to_numpy(gradient) == 0.0)


@pytest.mark.equation("EQ-KL-EXTENSION", "EQ-KL-EXTENSION-DERIVATIVE")
@pytest.mark.parametrize(
    ("precision", "epsilon"),
    [("float32", 1e-3), ("float64", 1e-3), ("float64", 1e-9), ("float64", 1e-100)],
)
def test_dead_saturated_and_relu_units_are_finite_and_pushed_back(
    precision: str, epsilon: float
) -> None:
    """Where clipping has no gradient, the extension has the slope of its edge, the right way."""
    rho, edges = 0.05, (0.5 * epsilon, epsilon, 2.0 * epsilon)
    near_one = [1.0 - edge for edge in edges]
    rho_hat = rounded([-0.5, 0.0, 1e-8, *edges, 0.3, *near_one, 1.0, 1.5, 40.0], precision)
    arithmetic = Arithmetic(precision)
    value = arithmetic.kl_divergence(rho, exact(rho_hat), epsilon)
    slope = arithmetic.kl_derivative(rho, exact(rho_hat), epsilon)
    array = rho_hat.astype(precision)
    for actual, expected in zip(
        kl_divergence_and_slope(rho, array, epsilon), (value, slope), strict=True
    ):
        inside("of an array", actual, expected)
    with computing_in(precision):
        inside("each unit", kl_divergence(rho, ops.convert_to_tensor(array), epsilon), value)
        regularizer = KLSparsityRegularizer(rho, 2.0, epsilon=epsilon, batch_scaling=False)
        a = np.tile(rho_hat, (4, 1))
        hold(regularizer, a, precision, rho, 2.0, epsilon=epsilon)
        _, (gradient,) = value_and_gradients(
            regularizer, [ops.convert_to_tensor(a, dtype=precision)]
        )
        gradient = as_numpy(gradient)
        assert np.all(np.isfinite(gradient))
        assert np.all(np.sign(gradient) == np.sign(rho_hat - rho))


# NumPy says so of the operations that meet it.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.inference
@pytest.mark.parametrize(
    "form",
    [{}, {"epsilon": 0.0}, {"symmetric": True}, {"from_logits": True}, {"momentum": 0.5}],
    ids=str,
)
def test_a_nan_is_one_in_the_loss_and_in_the_gradient_of_its_unit(form: dict[str, Any]) -> None:
    """As of any loss of Keras: no error, and no number that hides it."""
    layer = KLSparsity(0.05, 3.0, **form)
    a = draw(0, (4, 3), "plain", 1.0, "float32").astype("float32")
    a[1, 0] = np.nan
    layer(ops.convert_to_tensor(a), training=True)
    assert np.isnan(as_numpy(layer.losses[0]))
    if "momentum" not in form and has_gradients():
        regularizer = KLSparsityRegularizer(0.05, 3.0, **form)
        _, (gradient,) = value_and_gradients(regularizer, [ops.convert_to_tensor(a)])
        # Of its unit alone: the others train on.
        assert np.array_equal(np.isnan(as_numpy(gradient)), [[True, False, False]] * 4)


@pytest.mark.equation("EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE")
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [30.0, 1e3, 1e4])
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_logit_form_at_saturation(size: float, sign: float, precision: str) -> None:
    """|z| up to 1e4: right where a mean of sigmoids is 0 or 1 and its divergence infinite."""
    signs = np.array([1.0, -1.0, 1.0]) if sign == 0.0 else np.full(3, sign)
    z = rounded(signs[:, None] * size, precision)
    with computing_in(precision):
        regularizer = KLSparsityRegularizer(0.05, 3.0, from_logits=True, batch_scaling=False)
        hold(regularizer, z, precision, 0.05, 3.0, from_logits=True)
        value, gradient = reference.kl_sparsity_with_bounds(
            z, 0.05, 3.0, from_logits=True, precision=precision
        )
        assert np.isfinite(value.bound)
        assert value.bound < 0.01 * value.value
        if sign != 0.0:
            assert np.all(np.sign(gradient.value) == sign)
            # The plain form: ρ̂ is 0 or 1 to machine precision (or 1e-13, at |z| = 30).
            plain = KLSparsityRegularizer(0.05, 3.0, epsilon=0.0, batch_scaling=False)
            activations = ops.sigmoid(ops.convert_to_tensor(z, dtype=precision))
            if size > 30.0:
                assert not np.isfinite(as_numpy(plain(activations)))


@pytest.mark.inference
@pytest.mark.equation("EQ-RHO-HAT-RUNNING")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", [{}, {"symmetric": True}, {"epsilon": 0.0}, {"axis": 1}], ids=str)
@pytest.mark.parametrize("rho", [0.2, (0.2, 0.7)], ids=["one", "by unit"])
def test_the_first_batch_sets_the_average_in_every_form(
    rho: Any, form: dict[str, Any], masked: bool
) -> None:
    """So its term is that of the layer without a `momentum`, and a second look changes nothing."""
    kind = "symmetric" if "symmetric" in form else "plain"
    a = draw(0, (3, 4, 2), kind, 1.0, "float32")
    mask = np.arange(12).reshape(3, 4) % 5 > 0 if masked else None
    fed, axis = a, form.get("axis")
    if axis is not None:
        fed = np.moveaxis(a, -1, axis)
        mask = None if mask is None else np.moveaxis(mask[..., None], -1, axis)
    form = {"epsilon": 1e-6, **form}
    expected, _ = reference.kl_sparsity_with_bounds(
        a, rho, 3.0, mask=mask if mask is None else mask.reshape(3, 4),
        **{name: value for name, value in form.items() if name != "axis"},
    )  # fmt: skip
    given = None if mask is None else ops.convert_to_tensor(mask)
    for momentum in (None, 0.5):
        layer = KLSparsity(rho, 3.0, momentum=momentum, **form)
        for training in (True, True, False):
            layer(ops.convert_to_tensor(fed, dtype="float32"), mask=given, training=training)
            inside("the term", layer.losses[0], expected, momentum, training)


@pytest.mark.keras_eras
@pytest.mark.equation("EQ-RHO-HAT-RUNNING")
def test_running_average_in_fit_is_the_oracles() -> None:
    """State, value and gradient of `KLSparsity(momentum=...)` over many steps of `fit`."""
    rho, beta, momentum, rate = 0.2, 3.0, 0.75, 0.125
    x = np.random.default_rng(0).uniform(size=(24, 4)).astype("float32")
    dense = keras.layers.Dense(3, activation="sigmoid")
    penalty = KLSparsity(rho, beta, momentum=momentum)
    model = keras.Sequential([keras.Input((4,)), dense, penalty])
    kernel = reference.initialise((4, 3), seed=0).kernels[0].astype(np.float32)
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    model.compile(keras.optimizers.SGD(rate), loss=lambda y, h: ops.zeros_like(h[:, 0]))
    losses: list[float] = []
    for _ in range(3):
        for batch in range(4):
            rows = x[6 * batch : 6 * batch + 6]
            model.reset_metrics()  # Keras 3.13 reports the mean of all batches so far
            losses.append(float(model.train_on_batch(rows, rows[:, :3])))
    w, b = kernel.astype(np.float64), np.zeros(3)
    average = None
    for step in range(12):
        rows = x[6 * (step % 4) : 6 * (step % 4) + 6].astype(np.float64)
        a = reference.sigmoid(rows @ w + b)
        average = reference.running_average(average, reference.mean_activation(a), momentum)
        expected = beta * float(np.sum(reference.kl_divergence(rho, average)))
        # KL′ of the running average, with the gradient of the batch mean.
        slope = beta / 6 * reference.kl_divergence_derivative(rho, average)
        delta = slope * a * (1 - a)
        w, b = w - rate * rows.T @ delta, b - rate * delta.sum(axis=0)
        # Twelve steps of a network of 4-term sums in float32: under 300 roundoffs of values that
        # stay below 3.
        assert abs(losses[step] - expected) <= 300 * 2.0**-24 * 3, step
    assert np.max(np.abs(as_numpy(penalty.rho_hat.value) - average)) <= 300 * 2.0**-24
    assert np.max(np.abs(dense.get_weights()[0] - w)) <= 300 * 2.0**-24
    state = as_numpy(penalty.rho_hat.value)
    evaluated = float(model.evaluate(x, x[:, :3], verbose=0))
    assert np.array_equal(as_numpy(penalty.rho_hat.value), state), "evaluate moved the average"
    final = beta * float(np.sum(reference.kl_divergence(rho, state)))
    assert abs(evaluated - final) <= 64 * 2.0**-24 * 3


def test_two_layers_keep_their_losses_in_a_stateless_scope() -> None:
    """Keras (3.15.1) drops a layer's loss where the `id` of a dead tensor comes back.

    In a stateless call every layer clears "its" losses by id, with the ids of its last call. Here
    one in three is lost on torch if `KLSparsity` lets go of the tensor that it added.
    """
    first, second = KLSparsity(0.1, 3.0), KLSparsity(0.1, 3.0)
    a = ops.convert_to_tensor(np.full((5, 3), 0.3, "float32"))
    first(a)
    second(a)
    for _ in range(100):
        with keras.StatelessScope(collect_losses=True) as scope:
            first(a)
            second(a)
            kept = len(scope.losses)
        del scope
        assert kept == 2


@pytest.mark.only_backends("jax")
def test_every_eager_step_of_the_model_has_all_its_terms() -> None:
    """With learning rate 0 every step must report the same cost.

    The same loss of losses, in `fit(run_eagerly=True)` on JAX: before the model added its terms
    by itself, about one step in a hundred came without a term.
    """
    x = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32")
    model = SparseAutoencoder((3, 2), rho=0.1)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = model.fit(x, x, batch_size=8, epochs=150, shuffle=False, verbose=0).history
    assert len(set(history["loss"])) == 1, sorted(set(history["loss"]))


@pytest.mark.inference
@pytest.mark.equation("EQ-BOUND-RHO-HAT", "EQ-BOUND-KL")
@given(
    seed=st.integers(0, 2**16),
    shape=st.sampled_from([(1, 1), (8, 3), (257, 2)]),
    rho=rhos,
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_ops_mean_in_the_compute_dtype_stays_inside_its_bound(
    seed: int, shape: tuple[int, int], rho: float, precision: str
) -> None:
    """What people write: ρ̂ by `ops.mean`, rounded to the compute dtype, then the KL of it.

    Not in float64, where `ops.mean` computes in float32 on JAX and torch.
    """
    if not has_gradients():
        precision = "float32"  # NumPy's mean of bfloat16 numbers accumulates in bfloat16
    a = draw(seed, shape, "plain", 1.0, precision)
    rho_hat = Arithmetic(precision).mean_over_samples(exact(a))
    actual = ops.mean(ops.convert_to_tensor(a, dtype=precision), axis=0)
    used = reference.usage(as_numpy(actual), rho_hat)
    assert used.worst <= 1.0, (used, as_numpy(actual), rho_hat)
    epsilon = min(1e-3, rho, 1 - rho)
    # The mean is off by roundoffs of the compute dtype; the divergence itself is float32.
    expected = Arithmetic("float32").kl_divergence(rho, rho_hat, epsilon)
    divergence = kl_divergence(rho, at_least_float32(actual), epsilon)
    used = reference.usage(as_numpy(divergence), expected)
    assert used.worst <= 1.0, (used, as_numpy(divergence), expected)


@pytest.mark.keras_eras
@pytest.mark.equation("EQ-SPARSITY-SLOPE", "EQ-KL-LOGITS-DERIVATIVE")
@pytest.mark.parametrize(
    ("kind", "second", "steps"),
    [
        ("regularizer", "none", None),
        ("regularizer", "beta 0", 4),
        ("regularizer of logits", "another", None),
        ("regularizer of logits", "none", 4),
        ("layer", "beta 0", None),
        ("layer", "another", 4),
        ("average", "none", None),
        ("average", "beta 0", 4),
    ],
)
def test_fit_trains_with_the_gradient_of_the_oracle(
    kind: str, second: str, steps: int | None
) -> None:
    """Steps on batches of 6 and of 4, whose sizes a compiled step may not know: weights, not loss.

    A penalty that is divided by the batch, or that loses its gradient beside another one, changes
    every weight by more than a tenth of its step.
    """
    rho, beta, rate, u = 0.2, 3.0, 0.125, 2.0**-24
    from_logits = kind == "regularizer of logits"
    regularizer = None
    if "regularizer" in kind:
        regularizer = KLSparsityRegularizer(rho, beta, from_logits=from_logits)
    dense = keras.layers.Dense(
        3, activation=None if from_logits else "sigmoid", activity_regularizer=regularizer
    )
    layers: list[Any] = [dense]
    if regularizer is None:
        layers.append(KLSparsity(rho, beta, momentum=0.0 if kind == "average" else None))
    if second != "none":
        other = 0.0 if second == "beta 0" else 2.0
        layers.append(KLSparsity(0.4, other, from_logits=from_logits))
    shape = (4,) if steps is None else (None, 4)
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(keras.optimizers.SGD(rate), loss=lambda y, h: 0.0 * ops.sum(h, axis=-1))
    generator = np.random.default_rng(0)
    x = rounded(generator.uniform(size=(10, *(() if steps is None else (steps,)), 4)), "float32")
    w = rounded(reference.initialise((4, 3), seed=0).kernels[0], "float32")
    b = np.zeros(3)
    dense.set_weights([w, b])
    model.fit(x, x[..., :3], batch_size=6, shuffle=False, epochs=2, verbose=0)
    start = w
    for rows in (x[:6], x[6:], x[:6], x[6:]):
        flat = rows.reshape(-1, 4)
        z = flat @ w + b
        a = z if from_logits else reference.sigmoid(z)
        slope = np.zeros_like(z)
        for target, weight in [(rho, beta), *([(0.4, 2.0)] if second == "another" else [])]:
            if from_logits:
                slope += weight * reference.kl_divergence_from_logits_derivative(target, z)
            else:
                by_mean = reference.kl_divergence_derivative(target, a.mean(axis=0))
                slope += weight / len(a) * by_mean * a * (1 - a)
        w, b = w - rate * flat.T @ slope, b - rate * slope.sum(axis=0)
    # Four steps, each of sums of at most 24 positions of numbers below 3.
    slack = 4 * (24 + 64) * u * 3
    assert np.max(np.abs(dense.get_weights()[0] - w)) <= slack
    assert np.max(np.abs(dense.get_weights()[1] - b)) <= slack
    assert np.max(np.abs(w - start)) > 100 * slack, "a weak test: nothing moves"
