"""Any object as any argument of the Keras objects: refused by name, or it makes sense."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_impl
import reference
from tests.fuzz import VALUES, kinds_of, wrong

X = np.linspace(0.1, 0.9, 12).reshape(4, 3).astype("float32")


def encoder() -> Any:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    return layer


# An argument of each name that is right.
VALID: dict[str, Callable[[], Any]] = {
    "hidden_units": lambda: 2,
    "rho": lambda: 0.1,
    "beta": lambda: 1.0,
    "weight_decay": lambda: 0.01,
    "seed": lambda: 0,
    "penalty": lambda: keras_impl.KLSparsityRegularizer(0.1),
    "tied_to": encoder,
    "model": lambda: keras_impl.SparseAutoencoder(2, seed=0),
    "x": X.copy,
    "features": lambda: 3,
    "mse": lambda: 1.0,
    "l2": lambda: 0.1,
    "name": lambda: "beta",
    "schedule": lambda: lambda step: 0.1,
    "parameters": lambda: reference.initialise((3, 2, 3), seed=0),
}

OBJECTS = (
    "ActivityPenalty", "Anneal", "DenseTied", "HalfSquaredError", "KLSparsity",
    "KLSparsityRegularizer", "NgUniform", "SparseAutoencoder", "WeightDecay", "from_keras_units",
    "Watch", "to_keras_units",
)  # fmt: skip

FUNCTIONS = (
    "full_cost", "full_cost_and_gradient", "fit_lbfgs", "set_hyperparameters", "set_parameters",
    "to_parameters",
)  # fmt: skip


def arguments_of(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in parameters if p.kind not in variadic]


def check(name: str, kinds: dict[str, str], **fixed: Any) -> None:
    function = getattr(keras_impl, name)
    needed = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if (p.default is p.empty or p.name == "tied_to") and p.name in VALID
    ]
    # Keras runs through the arguments of every layer before it is made.
    left_out = {"a loop"} if isinstance(function, type) else set()
    arguments = lambda: {**{n: VALID[n]() for n in needed}, **fixed}  # noqa: E731
    found = [*wrong(function, arguments, kinds, left_out)]
    assert not found, "\n".join(found)


@pytest.mark.same_python
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OBJECTS)
def test_any_object_as_any_argument_of_a_constructor(name: str) -> None:
    kinds = kinds_of(arguments_of(getattr(keras_impl, name)))
    if name == "SparseAutoencoder":
        kinds |= {"rho": "rho by layer", "beta": "factor by layer"}
    elif "rho" in kinds:
        kinds["rho"] = "rho by unit"
    check(name, kinds)


@pytest.mark.same_python
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_object_as_any_argument_of_a_function(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # "x" is the name of a checkpoint
    names = arguments_of(getattr(keras_impl, name))
    fixed = {"iterations": 1, "verbose": False} if name == "fit_lbfgs" else {}
    kinds = kinds_of(names)
    if name == "set_hyperparameters":  # None leaves each as it is
        kinds |= {"rho": "rho by layer or None", "beta": "factor by layer or None"}
        kinds["weight_decay"] = "factor or None"
    check(name, kinds, **fixed)


# What is called with lists and numbers, where Keras calls it with tensors.
CALLS: dict[str, Callable[[], tuple[Callable[..., Any], dict[str, Any]]]] = {
    "KLSparsityRegularizer": lambda: (keras_impl.KLSparsityRegularizer(0.1), {"x": X}),
    "WeightDecay": lambda: (keras_impl.WeightDecay(0.1), {"x": X}),
    "HalfSquaredError": lambda: (keras_impl.HalfSquaredError(), {"y_true": X, "y_pred": X}),
    "NgUniform": lambda: (keras_impl.NgUniform(0), {"shape": (3, 2)}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_any_python_object_as_what_they_are_called_with(name: str) -> None:
    """Of arrays of the wrong kind or shape each backend says its own; no other error of them."""
    made, valid = CALLS[name]()
    arrays = {key for key, make in VALUES.items() if hasattr(make(), "shape")}
    found = [
        line
        for line in wrong(made.__call__, lambda: valid, kinds_of(valid), arrays)
        if "takes the output of a layer" not in line  # which is x, and nothing else
    ]
    assert not found, "\n".join(found)


def test_lists_are_taken_as_arrays() -> None:
    regularizer = keras_impl.KLSparsityRegularizer(0.1)
    assert float(regularizer([[0.2, 0.3]])) == float(regularizer(np.float32([[0.2, 0.3]])))
