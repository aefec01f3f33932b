"""ρ, β and λ that change while a model trains: numbers that compiled steps read as variables.

A coefficient is a Python number until it is changed for the first time: a model whose coefficients
stay as they are has no variable for them, and no kernel. The first change after the owner was
called makes a variable, which a layer keeps as Keras's layers keep the state of their random
numbers: it is in `variables` and not in `weights`, so that weights and their files stay as they
are. The configuration has the value of the moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import keras
import numpy as np
from keras import ops

from keras_impl.backends.keras_internals import (
    compile_anew,
    is_compiling,
    keep_state,
    layer_being_called,
    layers_of,
    own_weights,
    states_kept,
    write_state_back,
)
from keras_impl.term import Hyperparameter
from keras_impl.validation import cut

NAMES = ("rho", "beta", "weight_decay")


class Coefficient:
    """The variable of one coefficient, where Keras looks for it: `state`."""

    def __init__(self, name: str, value: Any, dtype: str) -> None:
        self.state = keras.Variable(
            np.asarray(value, dtype=dtype),
            dtype=dtype,
            trainable=False,
            autocast=False,
            name=name,
        )


class Coefficients:
    """Those of one penalty that are variables, and the models that have called it."""

    def __init__(self) -> None:
        self._found: dict[str, Coefficient] = {}
        self._callers: WeakSet[Any] = WeakSet()

    def __reduce__(self) -> tuple[type[Coefficients], tuple[()]]:
        return Coefficients, ()  # a copy begins with numbers, those of its configuration

    def tensors(self) -> dict[str, Any]:
        """Return the values that the step which is under way has to read, by name."""
        return {name: ops.convert_to_tensor(found.state) for name, found in self._found.items()}

    def note_caller(self) -> None:
        """Remember the model whose call is under way: its compiled steps may hold numbers."""
        if not is_compiling():  # then it was called before
            caller = layer_being_called()
            if caller is not None and caller not in self._callers:
                self._callers.add(caller)

    def assign(self, name: str, value: Any, keeper: Any, model: Any = None) -> None:
        """Make steps read another value from now on, those that are compiled already too.

        Args:
            name: Of the coefficient.
            value: A number, or a tuple of one a unit.
            keeper: The layer that keeps the variable.
            model: A model that has the layer, beside those that have called the penalty.
        """
        models = {*self._callers} | ({model} if model is not None else set())
        if not models:
            return  # nobody has read the number yet
        for each in models:
            write_state_back(each)
        found = self._found.get(name)
        if found is not None:
            found.state.assign(np.asarray(value, dtype=found.state.dtype))
            models = set()
        else:
            dtype = "float64" if keeper.compute_dtype == "float64" else "float32"
            strategy = getattr(next(iter(models)), "distribute_strategy", None)
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                self._found[name] = Coefficient(name, value, dtype)
        if keep_state(keeper, self._found[name]):
            models |= {model} if model is not None else set()
        for each in models:
            compile_anew(each)


class Changeable(Hyperparameter):
    """A coefficient of a layer, to which can be assigned at any time."""

    def __set__(self, owner: Any, value: Any) -> None:
        owner.change(self.name, value)


class HasTerm:
    """What has a `SparsityTerm` whose ρ and β may change."""

    _term: Any
    _coefficients: Coefficients
    coefficient_names = ("rho", "beta")

    def checked(self, name: str, value: Any) -> Any:
        """Return the term with another ρ or β, or raise."""
        term = replace(self._term, **{name: value})
        old, new = getattr(self._term, name), getattr(term, name)
        if isinstance(old, tuple) and isinstance(new, float):
            return replace(term, **{name: (new,) * len(old)})
        if np.shape(old) != np.shape(new):
            has = f"{len(old)} numbers, one for each unit" if isinstance(old, tuple) else "a number"
            raise ValueError(
                f"`{name}` of this {type(self).__name__} is {has}, and its shape cannot change: "
                "make a new one. "
                f"Received: {name}={cut(value)}"
            )
        return term

    def change(self, name: str, value: Any, keeper: Any = None, model: Any = None) -> None:
        """Change ρ or β; see `set_hyperparameters`."""
        term = self.checked(name, value)
        object.__setattr__(self, "_term", term)
        self._coefficients.assign(name, getattr(term, name), keeper or self, model)

    def term_of_step(self) -> Any:
        """Return the term with what is a variable as a tensor."""
        self._coefficients.note_caller()
        tensors = self._coefficients.tensors()
        return self._term.with_tensors(tensors) if tensors else self._term


def set_hyperparameters(
    model: Any, *, rho: Any = None, beta: Any = None, weight_decay: Any = None
) -> None:
    """Change ρ, β or λ of a model, for every step from the next one on.

    In every `SparseAutoencoder`, `KLSparsity`, `KLSparsityRegularizer` and `WeightDecay` of the
    model. Steps that Keras has compiled are compiled once more at the first change of a
    coefficient, and at no later one. `get_config`, and so a saved or cloned model, has the new
    value; `full_cost` and `fit_lbfgs` have it from their next call on. The edge `epsilon` stays as
    it is.

    Args:
        model: A Keras model or layer.
        rho: ρ, inside (0, 1), and not nearer to 0 or 1 than `epsilon`. Where it is by unit or by
            layer: as many numbers, or one for all of them. `None`: as it is.
        beta: β ≥ 0. `None`: as it is.
        weight_decay: λ ≥ 0. `None`: as it is.

    Raises:
        TypeError: If the model is none.
        TypeError, ValueError: If a value leaves its range.
        ValueError: If nothing of the model has the coefficient. Nothing is changed then.

    >>> from keras_impl import SparseAutoencoder
    >>> model = SparseAutoencoder(2, beta=3.0)
    >>> set_hyperparameters(model, beta=0.5)
    >>> model.beta, model.get_config()["beta"]
    (0.5, 0.5)
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"`model` must be a Keras model or layer. Received: model={cut(model)}")
    given = {"rho": rho, "beta": beta, "weight_decay": weight_decay}
    changes = []
    for name, value in given.items():
        if value is None:
            continue
        owners = list(owners_of(model, name))
        if not owners:
            raise ValueError(f"{_nothing_has(model, name)} Received: {name}={cut(value)}")
        for owner, _ in owners:
            owner.checked(name, value)
        changes += [(owner, name, value, keeper) for owner, keeper in owners]
    for owner, name, value, keeper in changes:
        owner.change(name, value, keeper, model)


def owners_of(model: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Yield what has the coefficient, each once, and the layer that would keep its variable."""
    seen: set[int] = set()
    for layer in layers_of(model):
        if id(layer) in seen:
            continue
        found = [layer]
        if name == "weight_decay":
            found += [weight.regularizer for weight in own_weights(layer)]
        else:
            found.append(layer.activity_regularizer)
        for owner in found:
            if name in getattr(owner, "coefficient_names", ()) and id(owner) not in seen:
                seen.add(id(owner))
                seen.update(id(part) for part in getattr(owner, "penalties", ()))
                seen.add(id(getattr(owner, "_decay", owner)))
                yield owner, layer


def coefficients_of(model: Any) -> list[Any]:
    """Return the variables of the coefficients of a model that have been changed."""
    return [
        holder.state
        for layer in layers_of(model)
        for holder in states_kept(layer)
        if isinstance(holder, Coefficient)
    ]


def _nothing_has(model: Any, name: str) -> str:
    advice = {
        "rho": "KLSparsity or KLSparsityRegularizer",
        "beta": "KLSparsity or KLSparsityRegularizer",
        "weight_decay": "WeightDecay as kernel_regularizer (Keras's own L2 cannot change)",
    }[name]
    return f"Nothing in {model.name} has a `{name}` that can change: use {advice}."
