"""ρ by unit, ρ and β by layer: what a sequence means, its changes, and what is refused by name.

Values and gradients: `test_penalty_against_oracle.py`, `test_model_against_oracle.py` and
`test_exact.py`; files: `test_serialization.py`.
"""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import (
    Anneal,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    SparseAutoencoder,
    fit_lbfgs,
    from_keras_units,
    set_hyperparameters,
    to_keras_units,
)
from sae_oracle.workers.oracle_bridge import oracle_arguments, to_parameters
from tests.asserting import inside
from tests.keras_impl.precision import as_numpy, rounded

X = rounded(np.random.default_rng(0).uniform(size=(8, 4)), "float32").astype("float32")
RHO = [0.0625, 0.25, 0.75]


@pytest.mark.inference
@pytest.mark.equation("EQ-SPARSITY")
@pytest.mark.parametrize("form", [{}, {"from_logits": True}])
def test_units_on_another_axis_and_a_mask_of_each(form: dict[str, Any]) -> None:
    a = rounded(np.random.default_rng(1).uniform(size=(5, 3, 4)), "float32")
    mask = np.random.default_rng(2).uniform(size=(5, 4)) < 0.5
    mask[0, 0] = True
    moved = np.moveaxis(a, 1, -1)
    expected, _ = reference.kl_sparsity_with_bounds(
        moved, RHO, 3.0, mask=mask, epsilon=0.0 if form else 1e-6, **form
    )
    layer = KLSparsity(ops.convert_to_tensor(RHO), 3.0, axis=1, **form)
    layer(ops.convert_to_tensor(a, dtype="float32"), mask=ops.convert_to_tensor(mask))
    inside("the term", layer.losses[0], expected)


@pytest.mark.equation("EQ-RHO-HAT-RUNNING", "EQ-SPARSITY")
def test_a_running_average_begins_at_each_target() -> None:
    layer = KLSparsity(RHO, 3.0, momentum=0.5)
    layer(ops.ones((2, 3)), training=False)
    nothing, _ = reference.kl_sparsity_with_bounds([RHO], RHO, 3.0, epsilon=1e-6)
    inside("the term before any batch", layer.losses[0], nothing)
    batches = np.random.default_rng(3).uniform(size=(2, 6, 3)).astype("float32")
    for batch in batches:
        layer(ops.convert_to_tensor(batch), training=True)
    mean = reference.running_average(
        reference.mean_activation(batches[0]), reference.mean_activation(batches[1]), 0.5
    )
    expected, _ = reference.kl_sparsity_with_bounds([mean], RHO, 3.0, epsilon=1e-6)
    # The average is off by a mean of 6 and its own 3 roundoffs: that times the steepest slope.
    steepest = np.max(np.abs(reference.kl_divergence_derivative(RHO, mean)))
    off = 3.0 * 3 * 9 * 2.0**-24 * float(steepest)
    assert abs(float(layer.losses[0]) - float(expected.value)) <= float(expected.bound) + off


def network(form: str) -> Any:
    if form == "model":
        return SparseAutoencoder(3, rho=[RHO], beta=[2.0], weight_decay=0.0, seed=0)
    penalty = KLSparsityRegularizer(RHO, 2.0) if form == "regularizer" else None
    hidden = keras.layers.Dense(3, activation="sigmoid", activity_regularizer=penalty)
    between = [] if penalty else [KLSparsity(RHO, 2.0)]
    return keras.Sequential([keras.Input((4,)), hidden, *between, keras.layers.Dense(4)])


@pytest.mark.equation("EQ-COST", "EQ-SPARSITY", "EQ-BOUND-DESCENT")
@pytest.mark.parametrize("form", ["model", "layer", "regularizer"])
def test_a_change_of_the_same_shape_counts_in_compiled_steps(form: str) -> None:
    model = network(form)
    own = form == "model"
    model.compile(keras.optimizers.SGD(0.25), loss=None if own else HalfSquaredError())
    model.build((None, 4))
    output = "sigmoid" if own else "linear"
    arguments: dict[str, Any] = {"beta": 2.0, "weight_decay": 0.0, "epsilon": 1e-6}
    for rho in (RHO, [0.5, 0.125, 0.25], 0.375, np.float32([0.25, 0.5, 0.125])):
        if rho is not RHO:
            by_layer = own and not isinstance(rho, float)
            set_hyperparameters(model, rho=[rho] if by_layer else rho)
        arguments["rho"] = rho if isinstance(rho, float) else [rho]
        w1, b1, w2, b2 = (
            [*model.kernels, *model.biases][i] if own else model.trainable_variables[j]
            for i, j in ((0, 0), (2, 1), (1, 2), (3, 3))
        )
        start = reference.Parameters(
            [as_numpy(w1.value), as_numpy(w2.value)], [as_numpy(b1.value), as_numpy(b2.value)]
        )
        step = reference.cost_and_gradient_with_bounds(
            start, X, output_activation=output, **arguments
        )
        reached = reference.gradient_descent_with_bounds(
            start, X, steps=1, learning_rate=0.25, output_activation=output, **arguments
        )
        loss = float(np.ravel(model.train_on_batch(X, X))[0])
        total = step.cost.total
        inside("loss", loss, reference.Bounded(total.value, total.bound + 4e-7 * total.value))
        inside("kernel", w1.value, reached.kernels[0])
        inside("bias", b1.value, reached.biases[0])
    assert len([v for v in model.variables if v.name == "rho"]) == 1
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert as_json(again) == as_json(model)


def as_json(model: Any) -> str:
    return json.dumps(model.get_config(), sort_keys=True)


def test_a_sequence_is_by_layer_and_mirrored() -> None:
    for rho, beta, kept_rho, kept_beta in (
        ((0.1, 0.2), [1, 2, 3], (0.1, 0.2, 0.1), (1.0, 2.0, 3.0)),
        (np.array([0.1, 0.2, 0.3]), np.array([1, 2]), (0.1, 0.2, 0.3), (1.0, 2.0, 1.0)),
        ([RHO, 0.2], 3, (tuple(RHO), 0.2, tuple(RHO)), 3.0),
        ([0.2, (0.1, 0.3), RHO], (3,) * 3, (0.2, (0.1, 0.3), tuple(RHO)), (3.0,) * 3),
    ):
        model = SparseAutoencoder((3, 2), rho=rho, beta=beta)
        assert (model.rho, model.beta) == (kept_rho, kept_beta)
        assert [penalty.rho for penalty in model.penalties] == list(kept_rho)
        config = json.loads(json.dumps(model.get_config()))
        again = SparseAutoencoder.from_config(config)
        assert (again.rho, again.beta, again.epsilon) == (model.rho, model.beta, model.epsilon)
    assert SparseAutoencoder(2, rho=[0.1], beta=(2.0,)).rho == (0.1,)
    deep = SparseAutoencoder((4, 3, 2), rho=[0.1, [0.2, 0.3, 0.4], 0.5], beta=[1, 2, 3])
    assert deep.rho == (0.1, (0.2, 0.3, 0.4), 0.5, (0.2, 0.3, 0.4), 0.1)
    assert deep.beta == (1.0, 2.0, 3.0, 2.0, 1.0)
    assert SparseAutoencoder((3, 2), rho=[1e-7, 0.5]).epsilon == 1e-7
    assert SparseAutoencoder((3, 2), rho=[0.5, [0.5, 1e-7]]).penalties[0].epsilon == 1e-7


@pytest.mark.inference
def test_one_number_for_all_units_is_the_number_to_the_last_bit() -> None:
    a = ops.convert_to_tensor(X)
    for arguments in ({}, {"symmetric": True}, {"from_logits": True}, {"epsilon": 0.0}):
        number, by_unit = (
            KLSparsityRegularizer(rho, 3.0, batch_scaling=False, **arguments)
            for rho in (0.25, [0.25] * 4)
        )
        # log 0.75 is rounded to float32, which a Python number may not be.
        assert abs(float(number(a)) - float(by_unit(a))) <= 16 * 2.0**-24 * 4 * 3.0
        assert by_unit.rho == (0.25,) * 4
        assert by_unit.get_config()["rho"] == [0.25] * 4
        assert KLSparsityRegularizer(**by_unit.get_config()).get_config() == by_unit.get_config()


def test_anneal_follows_a_schedule_by_unit_and_by_layer() -> None:
    model = SparseAutoencoder((3, 2), rho=[RHO, 0.5], seed=0)
    model.compile("sgd")
    at_step = [[[0.1, 0.2, 0.3], 0.5], [[0.2, 0.2, 0.2], 0.25], [[0.2, 0.2, 0.2], 0.25], 0.125]
    anneal = Anneal("rho", lambda step: at_step[step])
    history = model.fit(X, batch_size=4, epochs=2, verbose=0, callbacks=[anneal]).history
    # The mean of (0.2, 0.2, 0.2, 0.25), and of a number for all.
    assert history["annealed_rho"] == [pytest.approx(0.2125), 0.125]
    assert model.rho == ((0.125,) * 3, 0.125, (0.125,) * 3)
    layers = SparseAutoencoder((3, 2), beta=2.0)
    layers.compile("sgd")
    to_code = Anneal("beta", lambda step: ops.convert_to_tensor([0.0, float(step)]))
    layers.fit(X, batch_size=4, verbose=0, callbacks=[to_code])
    assert layers.beta == (0.0, 1.0, 0.0)
    assert [penalty.beta for penalty in layers.penalties] == [0.0, 1.0, 0.0]


@pytest.mark.equation("EQ-COST")
def test_what_lbfgs_minimises_is_the_oracles_cost() -> None:
    model = SparseAutoencoder((3, 2), rho=[RHO, 0.25], beta=[3.0, 0.5], seed=0)
    history = fit_lbfgs(model, X, 2, batch_size=5, verbose=False)
    step = reference.cost_and_gradient_with_bounds(
        to_parameters(model), X, summation="rows first", **oracle_arguments(model)
    )
    inside("the last loss", history.history["loss"][-1], step.cost.total)


def test_units_keep_the_targets() -> None:
    units = to_keras_units(np.array(RHO), 3.0, 0.0, features=4)
    assert units.rho == tuple(RHO)
    assert from_keras_units(units.rho, units.beta, 0.0, features=4).rho == tuple(RHO)
    with pytest.raises(ValueError, match=r"`rho` must lie in .* Received: rho\[1\]=2"):
        to_keras_units([0.5, 2], 3.0, 0.0, features=4)


def test_components_of_the_estimator() -> None:
    base = pytest.importorskip("sklearn.base")
    from keras_impl.transformer import SparseAutoencoderTransformer

    made = SparseAutoencoderTransformer(3, rho=RHO, max_iter=2, random_state=0)
    model = base.clone(made).fit(X).model_
    assert model.rho == (tuple(RHO),)
    made.set_params(rho=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"`rho` .* 3 units"):
        made.fit(X)


WRONG = (
    ([], ValueError, "`rho` must be a number in .*, or one for each unit. Received: rho=\\[\\]"),
    ([0.1, 1.0], ValueError, r"`rho` must lie in \(0.0, 1.0\). Received: rho\[1\]=1.0"),
    ([0.1, float("nan")], ValueError, r"`rho` .*rho\[1\]=nan"),
    ([0.1, "x"], TypeError, r"`rho` must be a number .*rho\[1\]='x'"),
    ([True, False], TypeError, r"`rho` .*rho\[0\]=True"),
    ([0.1, [0.2, 0.3]], TypeError, r"`rho` .*rho\[1\]=\[0.2, 0.3\]"),
    (np.full((2, 2), 0.1), TypeError, "`rho` must be a number"),
    ({0.1, 0.2}, TypeError, "`rho` must be a number"),
    ("0.1,0.2", TypeError, "`rho` must be a number"),
)


@pytest.mark.parametrize(("rho", "error", "message"), WRONG)
def test_wrong_targets_are_refused_when_the_object_is_made(
    rho: Any, error: type[Exception], message: str
) -> None:
    for make in (KLSparsity, KLSparsityRegularizer):
        with pytest.raises(error, match=message):
            make(rho)
    with pytest.raises(ValueError, match=r"`epsilon` must lie in .* \[0, 0.05\]"):
        KLSparsity([0.5, 0.05], epsilon=0.1)


def test_another_number_of_units_is_refused_at_the_first_call() -> None:
    message = r"`rho` has 3 numbers, one for each unit, and the input has 4 units.*shape"
    for call in (
        lambda: KLSparsity(RHO).build((None, 4)),
        lambda: KLSparsity(RHO)(ops.ones((2, 4))),
        lambda: KLSparsity(RHO)(keras.Input((4,))),
        lambda: KLSparsity(RHO, axis=1)(ops.ones((2, 4, 3))),
        lambda: KLSparsityRegularizer(RHO)(ops.ones((2, 5, 4))),
        lambda: keras.layers.Dense(4, activity_regularizer=KLSparsityRegularizer(RHO))(
            ops.ones((2, 3))
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"the input has 1 units"):
        KLSparsity(RHO)(ops.ones((2, 1)))  # which would broadcast


@pytest.mark.parametrize(
    ("hidden_units", "arguments", "error", "message"),
    [
        (2, {"rho": [0.1, 0.2]}, ValueError, r"by hidden layer, of the length 1. .* rho=\[\[0.1, "),
        (3, {"rho": [0.1, 0.2]}, ValueError, r"of the length 1. Received: rho=\[0.1, 0.2\]"),
        (2, {"beta": [0.1, 0.2]}, ValueError, r"`beta` .* length 1\..* beta=\[0.1, 0.2\]"),
        ((3, 2), {"rho": [0.1] * 4}, ValueError, "length 2, which the decoder mirrors, or 3"),
        ((3, 2), {"rho": []}, ValueError, r"`rho` must .*rho=\[\]"),
        ((3, 2), {"rho": [0.1, RHO]}, ValueError, r"`rho` of hidden layer 1 .* 2 units.*rho\[1\]="),
        ((3, 2), {"rho": [0.1, [0.2, 2]]}, ValueError, r"`rho` must lie in .*rho\[1\]\[1\]=2"),
        ((3, 2), {"beta": [1.0, [1.0, 2.0]]}, TypeError, r"`beta` must .*beta\[1\]=\[1.0, 2.0\]"),
        ((3, 2), {"beta": [1.0, -1.0]}, ValueError, r"`beta` must lie in .*beta\[1\]=-1.0"),
        ((3, 2), {"rho": [0.1, 0.01], "epsilon": 0.05}, ValueError, r"`epsilon` .*\[0, 0.01\]"),
    ],
)
def test_wrong_sequences_by_layer(
    hidden_units: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SparseAutoencoder(hidden_units, **arguments)


def test_a_change_of_the_shape_is_refused_and_changes_nothing() -> None:
    layer = KLSparsity(RHO)
    with pytest.raises(ValueError, match=r"`rho` of this KLSparsity is 3 numbers, .*rho=\[0.1\]"):
        layer.rho = [0.1]
    with pytest.raises(ValueError, match=r"`rho` of this KLSparsity is a number, and its shape"):
        KLSparsity(0.1).rho = RHO
    model = SparseAutoencoder((3, 2), rho=[RHO, 0.5])
    for rho in ([0.1, [0.1, 0.2]], [0.1] * 4, [RHO, 0.5, [0.1, 0.2]]):
        with pytest.raises(ValueError, match="`rho`"):
            set_hyperparameters(model, rho=rho)
        assert model.rho == (tuple(RHO), 0.5, tuple(RHO))
    model_of_two = keras.Sequential([keras.Input((3,)), KLSparsity(RHO), KLSparsity(0.5)])
    with pytest.raises(ValueError, match="`rho` of this KLSparsity is a number"):
        set_hyperparameters(model_of_two, rho=[0.1, 0.2, 0.3])
    assert model_of_two.layers[0].rho == tuple(RHO)
    set_hyperparameters(model_of_two, rho=0.5)
    assert (model_of_two.layers[0].rho, model_of_two.layers[1].rho) == ((0.5,) * 3, 0.5)
