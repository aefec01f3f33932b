"""What ρ̂ runs over: masks of any rank, batches of nothing, a million positions, any axis."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import reference
from keras_impl import ActivityPenalty, KLSparsity, KLSparsityRegularizer
from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.means import mean_activation
from keras_impl.term import SparsityTerm
from reference.rounding import at_least_float32, precision_named
from tests.keras_impl.precision import as_numpy, computing_in, rounded

RHO, BETA = 0.1, 3.0
# KL(ρ‖ρ) where ρ has been rounded to float32: two roundoffs of ρ log ρ and of its other half.
OF_NOTHING = 2 * 2.0**-24 * BETA
SHAPES = [(4, 3), (3, 4, 2), (3, 3, 3), (2, 3, 2, 3), (2, 2, 2, 2, 2)]


def draw(shape: tuple[int, ...], from_logits: bool = False) -> Any:
    z = np.random.default_rng(0).normal(size=shape)
    return rounded(z if from_logits else reference.sigmoid(z), "float32")


def by_units(a: Any, mask: Any, from_logits: bool) -> tuple[float, float, Any]:
    """β Σ KL of the oracle, its bound and its gradient, a unit at a time, each with its mask."""
    value, bound, gradient = 0.0, 0.0, np.zeros(a.shape)
    for unit in range(a.shape[-1]):
        valid = np.broadcast_to(mask, a.shape)[..., unit]
        if not valid.any():
            bound += OF_NOTHING
            continue
        of_value, of_gradient = reference.kl_sparsity_with_bounds(
            a[..., unit : unit + 1],
            RHO,
            BETA,
            mask=valid,
            epsilon=0.0 if from_logits else 1e-6,
            from_logits=from_logits,
        )
        value, bound = value + float(of_value.value), bound + float(of_value.bound)
        gradient[..., unit] = of_gradient.value[..., 0]
    return value, bound + 2.0**-24 * a.shape[-1] * abs(value), gradient


def penalty_and_gradient(layer: Any, a: Any, mask: Any, **arguments: Any) -> tuple[float, Any]:
    """The penalty of a layer and, where there are any, its gradient by the input."""
    tensor = ops.convert_to_tensor(a, dtype="float32")
    mask = None if mask is None else ops.convert_to_tensor(mask)
    if not layer.built:
        layer.build(tuple(a.shape))

    def penalty(tensor: Any) -> Any:
        return layer.penalty(tensor, mask=mask, **arguments)

    if not has_gradients():
        return float(as_numpy(penalty(tensor))), None

    def both(tensor: Any) -> Any:
        return value_and_gradients(penalty, [tensor])

    # Eagerly JAX compiles every operation by itself; and a compiled function moves no state.
    once = keras.config.backend() == "jax" and not layer.variables
    value, (gradient,) = (compiled(both) if once else both)(tensor)
    return float(as_numpy(value)), as_numpy(gradient)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_what_a_masked_position_holds_counts_in_no_bit(junk: float, from_logits: bool) -> None:
    mask = np.array([[True, False, True], [False, True, True]])
    found = []
    for held in (0.5, junk):
        a = draw((2, 3, 4), from_logits).astype("float32")
        a[~mask] = held
        found.append(penalty_and_gradient(KLSparsity(0.1, 2.0, from_logits), a, mask))
    (value, gradient), (other, of_other) = found
    assert np.isfinite(value)
    assert value == other
    assert np.array_equal(gradient, of_other)


@pytest.mark.inference
@pytest.mark.equation("EQ-RHO-HAT")
@given(
    shape=st.sampled_from(SHAPES),
    axes=st.integers(1, 5),
    trailing_ones=st.integers(0, 2),
    singles=st.integers(0, 15),
    dtype=st.sampled_from(["bool", "int32", "float32"]),
    kind=st.sampled_from(["activations", "logits", "momentum", "squares"]),
    seed=st.integers(0, 2**16),
)
def test_a_mask_of_any_rank_counts_as_keras_means_it(
    shape: tuple[int, ...],
    axes: int,
    trailing_ones: int,
    singles: int,
    dtype: str,
    kind: str,
    seed: int,
) -> None:
    """(B,), (B, T), (B, T, 1), the shape of the input, 1 on any axis: leading axes are aligned."""
    axes = min(axes, len(shape))
    of_mask = [1 if singles >> i & 1 else size for i, size in enumerate(shape[:axes])]
    valid = np.random.default_rng(seed).uniform(size=of_mask) < 0.6
    mask = valid.reshape(*of_mask, *(1,) * trailing_ones).astype(dtype)
    full = np.broadcast_to(valid.reshape(*of_mask, *(1,) * (len(shape) - axes)), shape)
    from_logits = kind == "logits"
    a = draw(shape, from_logits)
    if kind == "squares":
        layer: Any = ActivityPenalty(keras.regularizers.L2(1.0))
        value, gradient = penalty_and_gradient(layer, a, mask)
        expected, slope = np.sum(a**2 * full), 2.0 * a * full
        bound, relative = a.size * 2.0**-24 * expected, 4 * 2.0**-24
    else:
        momentum = 0.5 if kind == "momentum" else None
        layer = KLSparsity(RHO, BETA, from_logits=from_logits, momentum=momentum)
        value, gradient = penalty_and_gradient(layer, a, mask, training=True)
        expected, bound, slope = by_units(a, full, from_logits)
        relative = 2e-5  # an error of the mask is one of its share, 1/80 or more
    assert abs(value - expected) <= bound
    if gradient is not None:
        assert np.max(np.abs(gradient - slope)) <= relative * max(np.max(np.abs(slope)), 1e-3)
        assert np.all(gradient[~full] == 0.0)


@pytest.mark.inference
@pytest.mark.parametrize("kind", ["activations", "logits", "momentum", "squares"])
@pytest.mark.parametrize(
    ("shape", "of_mask"),
    [
        ((4, 3), (3,)),
        ((4, 3), ()),
        ((2, 3, 4), (2, 4)),
        ((2, 3, 4), (3, 2)),
        ((2, 3, 4), (2, 3, 3)),
        ((2, 3, 1, 4), (2, 3, 5)),
        ((2, 3, 4), (2, 3, 4, 2)),
    ],
)
def test_a_mask_that_cannot_fit_is_refused(
    shape: tuple[int, ...], of_mask: tuple[int, ...], kind: str
) -> None:
    layer: Any = ActivityPenalty("l2")
    if kind != "squares":
        momentum = 0.5 if kind == "momentum" else None
        layer = KLSparsity(from_logits=kind == "logits", momentum=momentum)
    with pytest.raises(ValueError, match=r"mask must have the shape.*mask\.shape=.*inputs\.shape="):
        penalty_and_gradient(layer, draw(shape), np.ones(of_mask, "bool"), training=True)


class StepsThatAreNotZero(keras.layers.Layer):
    """Masks steps, as `Masking` does: (B, T) for an input of (B, T, A, U)."""

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return ops.any(ops.not_equal(inputs, 0.0), axis=(2, 3))

    def call(self, inputs: Any) -> Any:
        return 1.0 * inputs


@pytest.mark.parametrize("kind", ["activations", "logits", "momentum", "squares"])
def test_masked_steps_of_images_train_as_the_oracle_says(kind: str) -> None:
    """`TimeDistributed` hands on (B, T) for (B, T, A, U); here A = T, and it would broadcast."""
    dense = keras.layers.Dense(3, activation=None if kind == "logits" else "sigmoid")
    layer: Any = ActivityPenalty(keras.regularizers.L2(BETA))
    if kind != "squares":
        momentum = 0.5 if kind == "momentum" else None
        layer = KLSparsity(RHO, BETA, from_logits=kind == "logits", momentum=momentum)
    inputs = keras.Input((None, 3, 2))
    hidden = keras.layers.TimeDistributed(dense)(StepsThatAreNotZero()(inputs))
    model = keras.Model(inputs, layer(hidden))
    rate = 0.125
    model.compile(keras.optimizers.SGD(rate), loss=lambda y, h: ops.zeros_like(h[:, 0, 0, 0]))
    mask = np.arange(3)[None] < np.array([2, 1, 1])[:, None]
    x = draw((3, 3, 3, 2)) * mask[..., None, None]
    before = [w.astype(np.float64) for w in dense.get_weights()]
    loss = model.train_on_batch(x.astype("float32"), x[..., :1])
    z = x @ before[0] + before[1]
    valid = np.broadcast_to(mask[..., None, None], z.shape)
    a = z if kind == "logits" else reference.sigmoid(z)
    if kind == "squares":
        expected, by_a = BETA * np.sum((a * valid) ** 2), 2.0 * BETA * a * valid
    else:
        expected, _, by_a = by_units(a, valid, kind == "logits")
    by_z = by_a if kind == "logits" else by_a * a * (1 - a)
    kernel = before[0] - rate * np.einsum("btai,btau->iu", x, by_z)
    # Sums of at most 12 positions of 2-term products, of numbers below 10: 300 roundoffs.
    u = 2.0**-24
    assert abs(float(loss) - expected) <= 300 * u * max(1.0, expected)
    assert np.max(np.abs(dense.get_weights()[0] - kernel)) <= 300 * u * (1 + np.abs(kernel).max())
    assert np.max(np.abs(kernel - before[0])) > 3000 * u, "a weak test: nothing moves"


# NumPy says so of 0/0, which `where` then leaves out.
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
@pytest.mark.inference
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (0, 2, 3), (2, 0, 3)])
def test_a_batch_of_nothing_is_like_a_mask_that_leaves_nothing(
    shape: tuple[int, ...], from_logits: bool
) -> None:
    for mask in (None, np.ones(shape[:-1], "bool")):
        layer = KLSparsity(RHO, BETA, from_logits=from_logits)
        value, gradient = penalty_and_gradient(layer, np.zeros(shape), mask)
        assert abs(value) <= shape[-1] * OF_NOTHING
        assert gradient is None or gradient.shape == shape
    regularizer = KLSparsityRegularizer(RHO, BETA, from_logits=from_logits)
    assert abs(float(as_numpy(regularizer(ops.zeros(shape))))) <= shape[-1] * OF_NOTHING
    inner = keras.layers.Activation("linear", activity_regularizer=regularizer)
    inner(ops.zeros(shape))
    assert abs(float(as_numpy(inner.losses[0]))) <= shape[-1] * OF_NOTHING
    mean = SparsityTerm(RHO).mean_activation(ops.zeros(shape))
    assert np.all(as_numpy(mean) == np.float32(RHO))


@pytest.mark.parametrize("from_logits", [False, True])
def test_a_batch_of_nothing_has_no_gradient_where_its_size_is_unknown(from_logits: bool) -> None:
    """A model that has parameters, and no samples: compiled for any number of rows."""
    kernel = ops.convert_to_tensor(draw((2, 3)).astype("float32"))
    term = SparsityTerm(RHO, BETA, from_logits=from_logits)

    def step(kernel: Any, x: Any) -> Any:
        z = x @ kernel
        return term.penalty(z if from_logits else ops.sigmoid(z))

    run: Any = compiled(lambda kernel, x: value_and_gradients(lambda k: step(k, x), [kernel]))
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        of_any_size = [tf.TensorSpec((2, 3)), tf.TensorSpec((None, 2))]
        run = tf.function(
            lambda kernel, x: value_and_gradients(lambda k: step(k, x), [kernel]),
            input_signature=of_any_size,
        )
    value, (gradient,) = run(kernel, ops.zeros((0, 2)))
    assert float(value) == 0.0
    assert np.all(as_numpy(gradient) == 0.0)
    value, (gradient,) = run(kernel, ops.ones((300, 2)))
    assert np.all(as_numpy(gradient) != 0.0)


def test_nothing_to_see_does_not_move_a_running_average() -> None:
    """Not by a bit, and not as the first batch either."""
    layer = KLSparsity(RHO, BETA, momentum=0.9)
    values = draw((4, 2, 3)).astype("float32")

    def see(values: Any, mask: Any = None) -> float:
        # A new tensor each time: Keras attaches the mask to what comes out, which is what came in.
        layer(ops.convert_to_tensor(values), mask=mask, training=True)
        return float(layer.losses[0])

    nothing = ops.zeros((4, 2), dtype="bool")
    assert see(values, nothing) == see(np.zeros((0, 2, 3), "float32")) == 0.0
    assert [float(as_numpy(v.value).sum()) for v in layer.variables] == [0.0, 0.0]
    see(values)
    first = as_numpy(layer.rho_hat.value)
    # The first batch that has something sets it: no share of what was never seen.
    assert np.max(np.abs(first - reference.mean_activation(values))) <= 32 * 2.0**-24
    # 60 roundoffs of numbers below 1 for the divergences of three means known to the last bit.
    expected = BETA * float(np.sum(reference.kl_divergence(RHO, first)))
    for _ in range(3):
        for loss in (see(values, nothing), see(np.zeros((0, 2, 3), "float32"))):
            assert np.array_equal(as_numpy(layer.rho_hat.value), first)
            assert abs(loss - expected) <= 60 * 2.0**-24 * BETA
    _, gradient = penalty_and_gradient(layer, values, np.zeros((4, 2)), training=True)
    assert np.all(gradient == 0.0)
    # A unit without a valid position stays, while others move.
    mask = np.ones((4, 2, 3), "bool")
    mask[..., 1] = False
    see(0.5 * values, ops.convert_to_tensor(mask))
    assert list(as_numpy(layer.rho_hat.value) == first) == [False, True, False]


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float64"])
def test_the_average_is_kept_in_float32_at_least(precision: str) -> None:
    """In bfloat16 0.5 + 2⁻¹⁰ is 0.5: the average would stand still."""
    u = at_least_float32(precision_named(precision)).unit_roundoff
    with computing_in(precision) as policy:
        layer = KLSparsity(RHO, BETA, momentum=1 - 2.0**-10, dtype=policy)
        layer(ops.full((4, 2), 0.5, dtype=layer.compute_dtype), training=True)
        for _ in range(8):
            layer(ops.full((4, 2), 1.0, dtype=layer.compute_dtype), training=True)
        expected = 1.0 - 0.5 * (1 - 2.0**-10) ** 8
        assert np.max(np.abs(as_numpy(layer.rho_hat.value) - expected)) <= 16 * u


@pytest.mark.inference
@pytest.mark.equation("EQ-RHO-HAT")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(10**6, 2), (10**6, 1), (1000, 1000, 2), (131_071, 3)])
def test_a_mean_of_a_million_keeps_its_digits(shape: tuple[int, ...], masked: bool) -> None:
    """n·u would allow 6 %, and TensorFlow's own sum of rows is off by 1 %.

    Sums in stages of at most 127 numbers, or pairwise ones: three stages are at most 3 · 128
    roundoffs off, of which a sum of equal numbers, the worst there is, was seen to use 12.
    """
    a = np.full(shape, np.float32(0.1))
    mask = None
    if masked:
        mask = ops.convert_to_tensor(np.random.default_rng(0).uniform(size=shape[:-1]) < 0.7)
    expected = float(np.float32(0.1))
    ways = [lambda function: function, compiled]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        # XLA would make one sum of the stages again.
        ways.append(functools.partial(tf.function, jit_compile=True))
    for way in ways:
        actual = as_numpy(way(lambda t: mean_activation(t, mask))(ops.convert_to_tensor(a)))
        assert np.max(np.abs(actual / expected - 1.0)) <= 32 * 2.0**-24
    logit = float(np.float32(-2.0))
    z = ops.full(shape, logit)
    value = float(as_numpy(SparsityTerm(0.05, from_logits=True).penalty(z, mask)))
    of_unit = float(reference.kl_divergence_from_logits(0.05, [[logit]])[0])
    assert abs(value / (of_unit * shape[-1]) - 1.0) <= 64 * 2.0**-24 / of_unit


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_gradient_of_a_long_sum_is_that_of_its_mean(from_logits: bool) -> None:
    a = draw((301, 2, 2), from_logits)
    value, gradient = reference.kl_sparsity_with_bounds(
        a, RHO, BETA, epsilon=1e-6, from_logits=from_logits
    )
    term = SparsityTerm(RHO, BETA, from_logits=from_logits)
    tensor = ops.convert_to_tensor(a, dtype="float32")
    actual, (slope,) = value_and_gradients(term.penalty, [tensor])
    assert reference.usage(as_numpy(actual), value).worst <= 1.0
    assert reference.usage(as_numpy(slope), gradient).worst <= 1.0


@pytest.mark.inference
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 4, 2, 2)), (-2, (3, 4, 2)), (1, (5, 4))])
def test_an_axis_of_the_units(axis: int, shape: tuple[int, ...], from_logits: bool) -> None:
    a = draw(shape, from_logits)
    moved = np.moveaxis(a, axis, -1)
    value, _ = reference.kl_sparsity_with_bounds(
        moved, RHO, BETA, epsilon=1e-6, from_logits=from_logits
    )
    tensor = ops.convert_to_tensor(a, dtype="float32")
    arguments = {"from_logits": from_logits, "axis": axis}
    layer = KLSparsity(RHO, BETA, **arguments)
    layer(tensor)
    regularizer = KLSparsityRegularizer(RHO, BETA, batch_scaling=False, **arguments)
    for found in (layer.losses[0], regularizer(tensor)):
        assert abs(float(as_numpy(found)) - value.value) <= value.bound
    # A mask of fewer axes has those that are left, in their order; one of every element, all of x.
    generator = np.random.default_rng(1)
    for size in (*(moved.shape[:end] for end in range(1, len(shape))), shape):
        mask = generator.uniform(size=size) < 0.6
        mask.flat[0] = True
        actual, gradient = penalty_and_gradient(layer, a, mask)
        full = np.moveaxis(mask, axis, -1) if mask.ndim == len(shape) else mask
        full = full.reshape(full.shape + (1,) * (len(shape) - full.ndim))
        expected, bound, slope = by_units(moved, full, from_logits)
        assert abs(actual - expected) <= bound
        if gradient is not None:
            assert np.array_equal(np.moveaxis(gradient, axis, -1) != 0.0, slope != 0.0)
    if not from_logits:
        averaged = KLSparsity(RHO, BETA, axis=axis, momentum=0.5)
        averaged(tensor, training=True)
        assert tuple(averaged.rho_hat.shape) == (4 if axis != -2 else shape[-2],)


@pytest.mark.inference
def test_images_with_channels_first_need_an_axis() -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        images = ops.full((2, 3, 4, 4), 0.5)
        for penalty in (KLSparsity(), KLSparsityRegularizer()):
            with pytest.raises(ValueError, match=r"`axis=1` or `axis=-1`.*axis=None"):
                penalty(images)
        for axis in (1, -1):
            KLSparsity(axis=axis)(images)
            KLSparsityRegularizer(axis=axis)(images)
        KLSparsity()(ops.full((2, 3, 4), 0.5))
    finally:
        keras.config.set_image_data_format("channels_last")
    for axis in (0, 4, -4):
        with pytest.raises(ValueError, match=f"`axis` must be an axis.*axis={axis}"):
            KLSparsityRegularizer(axis=axis)(images)
