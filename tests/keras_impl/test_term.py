"""`SparsityTerm` and what owns one: checked once, read everywhere, changed nowhere."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_impl import KLSparsity, KLSparsityRegularizer, WeightDecay
from keras_impl.backends.autodiff import value_and_gradients
from keras_impl.term import SparsityTerm
from tests.keras_impl.precision import as_numpy

OWNERS: list[tuple[Any, dict[str, Any]]] = [
    (
        KLSparsityRegularizer,
        {"rho": 0.2, "beta": 2.0, "epsilon": 1e-3, "symmetric": True, "batch_scaling": False},
    ),
    (KLSparsityRegularizer, {"from_logits": True, "cross_replica": False, "axis": 1}),
    (KLSparsity, {"rho": 0.2, "beta": 2.0, "epsilon": 1e-3, "momentum": 0.5, "axis": 1}),
    (KLSparsity, {"from_logits": True, "cross_replica": False, "symmetric": False}),
    (WeightDecay, {"weight_decay": 0.25}),
]


@pytest.mark.inference
@pytest.mark.parametrize(("kind", "arguments"), OWNERS)
def test_hyperparameters_that_nobody_follows_cannot_be_assigned_to(
    kind: Any, arguments: dict[str, Any]
) -> None:
    """Compiled steps of JAX and TensorFlow would go on with the old one, and say nothing."""
    owner = kind(**arguments)
    for name, value in arguments.items():
        assert getattr(owner, name) == value
        if kind is KLSparsity and name in ("rho", "beta"):
            continue  # which can: test_coefficients.py
        with pytest.raises(AttributeError, match=f"`{name}` of {kind.__name__} cannot be changed"):
            # Not the same one: TensorFlow's objects skip what changes nothing.
            setattr(owner, name, not value if isinstance(value, bool) else value + 0.125)
        assert getattr(owner, name) == value
    if kind is not WeightDecay:
        with pytest.raises(AttributeError, match=r"`term` of .* Make a new"):
            owner.term = SparsityTerm()
        with pytest.raises(dataclasses.FrozenInstanceError):
            owner.term.beta = 7.0


@pytest.mark.inference
def test_copies_and_pickles_keep_their_term() -> None:
    for owner in (KLSparsityRegularizer(0.2, 2.0, epsilon=1e-3), WeightDecay(0.5)):
        for again in (copy.deepcopy(owner), pickle.loads(pickle.dumps(owner))):
            assert again.get_config() == owner.get_config()
    assert SparsityTerm(0.2) == SparsityTerm(0.2, epsilon=1e-6)
    layer = KLSparsity(0.2, 2.0, momentum=0.5)
    assert copy.deepcopy(layer).get_config() == layer.get_config()


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_a_beta_of_0_leaves_nothing_of_an_infinite_divergence(momentum: float | None) -> None:
    """A dead unit without the extension, or infinite logits: 0 · ∞ would be NaN."""
    dead = ops.zeros((4, 2))
    layer = KLSparsity(0.1, beta=0.0, epsilon=0.0, momentum=momentum)
    regularizer = KLSparsityRegularizer(0.1, beta=0.0, epsilon=0.0)
    of_logits = KLSparsityRegularizer(0.1, beta=0.0, from_logits=True)
    layer.build((4, 2))
    for penalty, x in (
        (layer.penalty, dead),
        (regularizer, dead),
        (of_logits, ops.convert_to_tensor([[np.inf, -np.inf]], dtype="float32")),
    ):
        value, (gradient,) = value_and_gradients(penalty, [x])
        assert float(value) == 0.0
        assert np.all(as_numpy(gradient) == 0.0)
    with pytest.raises(ValueError, match="mask must have the shape"):
        layer.penalty(dead, training=True, mask=ops.ones((3,)))


def scalars(value: float | bool) -> list[Any]:
    """One number or one flag, as people come by it."""
    found = [np.asarray(value), np.asarray(value)[()], ops.convert_to_tensor(value)]
    if not isinstance(value, bool):
        found += [np.float32(value), keras.Variable(value, dtype="float32")]
    return found


@pytest.mark.inference
def test_what_holds_one_number_or_one_flag_is_taken_for_it() -> None:
    for rho in scalars(0.25):
        assert SparsityTerm(rho).rho == 0.25
        assert type(SparsityTerm(rho).rho) is float
        assert KLSparsity(momentum=rho).momentum == 0.25
        assert WeightDecay(rho).weight_decay == 0.25
        with pytest.raises(TypeError, match="`from_logits`"):
            SparsityTerm(from_logits=rho)
    for yes in scalars(True):
        assert SparsityTerm(from_logits=yes).from_logits is True
        assert KLSparsityRegularizer(batch_scaling=yes).batch_scaling is True
        with pytest.raises(TypeError, match="`beta`"):
            SparsityTerm(beta=yes)
    for axis in (np.int64(1), np.array(1), ops.convert_to_tensor(1)):
        assert SparsityTerm(axis=axis).axis == 1
    for wrong in ([[0.25]], [], "0.25", None, 0.25j, np.array(np.nan)):
        with pytest.raises((TypeError, ValueError), match="`rho`"):
            SparsityTerm(wrong)
    for wrong in (np.array([True]), 1, None, "yes"):
        with pytest.raises(TypeError, match="`symmetric`"):
            SparsityTerm(symmetric=wrong)


@pytest.mark.inference
@pytest.mark.parametrize(("rho", "epsilon"), [(0.05, 1e-6), (1e-7, 1e-7), (0.5, 1e-6)])
def test_the_default_edge_follows_rho(rho: float, epsilon: float) -> None:
    for owner in (SparsityTerm(rho), KLSparsity(rho), KLSparsityRegularizer(rho)):
        assert owner.epsilon == epsilon
        assert owner.get_config()["epsilon"] == epsilon
    assert SparsityTerm(1.0 - 2.0**-40).epsilon == 2.0**-40
