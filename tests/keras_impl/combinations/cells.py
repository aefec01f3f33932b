"""Runs one cell: an object, an option, this process's backend; and says how it ended."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

import reference
from keras_impl import DenseTied, SparseAutoencoder
from reference.bounds import BoundedParameters
from reference.rounding import Bounded
from tests.keras_impl.combinations.oracle import (
    Expected,
    bounded,
    ngs_cost,
    output_of,
    wide_arithmetic,
)
from tests.keras_impl.combinations.subjects import EPSILON, FEATURES, HIDDEN, RHO, Subject
from tests.keras_impl.precision import POLICIES, as_numpy, computing_in, rounded
from tests.one_backend import start_afresh

ROWS = 8
RATE = 0.5
# Keras keeps the reported loss in float32, times the rows and divided by them.
REPORTED = 4 * 2.0**-24


class WrongNumberError(AssertionError):
    """A number that is further from the oracle than its bound.

    Args:
        quantity: Which.
        error: How far.
        message: What is said about it.
    """

    def __init__(self, quantity: str, error: float, message: str) -> None:
        super().__init__(f"{quantity} {message}")
        self.quantity, self.error = quantity, error


class SilentCellError(AssertionError):
    """A cell that ran and was not compared."""


class NotApplicableError(Exception):
    """The option has no meaning for the object."""


class Case:
    """One object, ready for an option: data, the network, and what it is held to.

    Args:
        subject: The object.
        precision: A name of `reference.PRECISIONS`.
    """

    def __init__(self, subject: Subject, precision: str = "float32") -> None:
        self.subject = subject
        self.precision = precision
        self.policy = {} if precision == "float32" else {"dtype": POLICIES[precision]}
        generator = np.random.default_rng(0)
        self.x = rounded(generator.uniform(size=(ROWS, FEATURES)), precision)
        self.y = rounded(generator.uniform(size=(ROWS, FEATURES)), precision)
        self.optimizer: dict[str, Any] = {}
        self.eagerly = False
        self.model: Any = None
        self.loss_is_held = self.step_is_held = False

    # The network

    def layers(self, **arguments: Any) -> list[Any]:
        return self.subject.layers(**arguments, **self.policy)

    def network(self, shape: tuple[int | None, ...] = (FEATURES,), **arguments: Any) -> Any:
        """The usual way to write the object's network."""
        layers = self.layers(**arguments)
        if self.subject.is_model:
            (model,) = layers
            model.build((None, *shape))
            return model
        return keras.Sequential([keras.Input(shape), *layers])

    def loss(self) -> Any:
        """The loss to compile with; `None` where the model has its own."""
        if self.precision == "float64" and self.subject.loss is None and self.x.ndim == 2:
            return half_squares  # Keras's own reduction divides in float32 on torch
        sequences = self.x.ndim > 2
        if self.subject.loss is not None:
            return self.subject.loss(axis=-1) if sequences else self.subject.loss()
        # Around a whole model Keras's "mse" is its reconstruction too.
        return keras.losses.MeanSquaredError()

    def take(self, model: Any) -> Any:
        """Use this model from now on: its parameters are where the descent starts."""
        self.model = model
        self.kernels, self.biases = parameters_of(model)
        self.parameters = reference.Parameters(
            [as_numpy(k.value) for k in self.kernels],
            [as_numpy(b.value) for b in self.biases],
            tied=self.subject.tied,
        )
        return model

    def compile(self, **arguments: Any) -> Any:
        if self.model is None:
            self.take(self.network())
        if not isinstance(self.model, SparseAutoencoder):
            arguments.setdefault("loss", self.loss())
        if self.eagerly:
            arguments.setdefault("run_eagerly", True)
        self.model.compile(optimizer=keras.optimizers.SGD(RATE, **self.optimizer), **arguments)
        return self.model

    # The data

    @property
    def inputs(self) -> Any:
        return self.x.astype(np.float64 if self.precision == "float64" else np.float32)

    @property
    def targets(self) -> Any:
        return self.y.astype(np.float64 if self.precision == "float64" else np.float32)

    def fit(self, *data: Any, compile: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Compile and fit, one batch of all rows unless said otherwise; returns the history."""
        self.compile(**(compile or {}))
        if not data:
            data = (self.inputs, self.targets)
        if isinstance(data[0], (np.ndarray, list)):
            arguments = {"batch_size": ROWS, "shuffle": False, **arguments}
        return self.model.fit(*data, **{"verbose": 0, **arguments}).history

    # What is right

    def expected(self, rows: Any = slice(None), **changed: Any) -> Expected:
        """Ng's cost of the rows at the start, or at `parameters`."""
        arguments = {"rho": RHO, "epsilon": EPSILON, **self.subject.terms, **changed}
        parameters = arguments.pop("parameters", self.parameters)
        x = arguments.pop("x", self.x).reshape(-1, FEATURES)[rows]
        y = arguments.pop("y", self.y).reshape(-1, FEATURES)[rows]
        return ngs_cost(parameters, x, y, precision=self.precision, **arguments)

    def hold_loss(self, actual: Any, cost: Bounded, quantity: str = "the loss") -> None:
        """Hold a reported loss, or another number, to its bound."""
        self.loss_is_held = True
        value = float(actual)
        slack = float(cost.bound) + REPORTED * abs(float(cost.value))
        if not abs(value - float(cost.value)) <= slack:
            raise WrongNumberError(
                quantity,
                value - float(cost.value),
                f"is {value:.9g}, not {float(cost.value):.9g} ± {slack:.1e}",
            )

    def hold_parameters(self, reached: BoundedParameters) -> None:
        """Hold the trained weights to their bounds, and see that no state is NaN."""
        self.step_is_held = True
        for variable in self.model.non_trainable_variables:
            if not np.all(np.isfinite(as_numpy(variable.value))):
                raise WrongNumberError(variable.name, np.nan, "is not finite")
        for name, variable, expected in zip(
            ("kernel 0", "kernel 1", "bias 0", "bias 1")
            if len(self.kernels) == 2
            else ("kernel", "bias 0", "bias 1"),
            [*self.kernels, *self.biases],
            [*reached.kernels, *reached.biases],
            strict=True,
        ):
            actual = as_numpy(variable.value)
            used = reference.usage(actual, expected).worst
            if not used <= 1.0:
                error = float(np.max(np.abs(actual - expected.value)))
                raise WrongNumberError(
                    name, error, f"after the step is off by {error:.3g}: {used:.3g} bounds"
                )

    def sparsity(self, **changed: Any) -> Bounded:
        """The sparsity term alone."""
        both, rest = self.expected(**changed), self.expected(**{**changed, "beta": 0.0})
        return Bounded(both.cost.value - rest.cost.value, both.cost.bound)

    def hold(self, history: dict[str, list[float]], expected: Expected | None = None) -> None:
        """Hold the first reported loss, and the weights after one step of descent."""
        if "sparsity" in history:
            self.hold_loss(history["sparsity"][0], self.sparsity(), "sparsity")
        expected = self.expected() if expected is None else expected
        self.hold_loss(history["loss"][0], expected.cost)
        self.hold_parameters(expected.step(self.parameters, RATE))

    def hold_validation(self, actual: Any, reached: BoundedParameters, **data: Any) -> None:
        """Hold a loss of inference after the step; a running average is where it was."""
        if "momentum" in self.subject.name:
            cost = self.expected(parameters=reached, beta=0.0, **data).cost
            self.hold_loss(actual, wide_arithmetic(self.precision).add(cost, self.sparsity()))
        else:
            self.hold_loss(actual, self.expected(parameters=reached, **data).cost)

    def hold_output(self, actual: Any, slack: float = 0.0) -> None:
        """Hold h(x) at the start; nothing is trained."""
        self.loss_is_held = self.step_is_held = True
        expected = output_of(self.parameters, self.x.reshape(-1, FEATURES), self.precision)
        expected = Bounded(expected.value, expected.bound + slack)
        used = reference.usage(np.asarray(actual).reshape(-1, FEATURES), expected)
        if not used.worst <= 1.0:
            raise WrongNumberError(
                "the output", used.worst, f"is {used.worst:.3g} bounds from the oracle's"
            )

    def hold_untrained(self) -> None:
        """Hold the weights to where they were."""
        self.hold_parameters(bounded(self.parameters))


def half_squares(y: Any, h: Any) -> Any:
    """Ng's reconstruction as one number, which Keras leaves as it is."""
    rows = ops.cast(ops.shape(h)[0], h.dtype)
    return 0.5 * ops.sum(ops.square(h - y)) / rows


def parameters_of(model: Any) -> tuple[list[Any], list[Any]]:
    """The kernels and biases of the network somewhere inside a model, from the input on."""
    kernels, biases = [], []
    for layer in {id(layer): layer for layer in model._flatten_layers()}.values():
        if isinstance(layer, SparseAutoencoder):
            kernels += layer.kernels
            biases += layer.biases
        elif isinstance(layer, DenseTied):
            biases.append(layer.bias)
        elif isinstance(layer, (keras.layers.Dense, keras.layers.SimpleRNNCell)):
            kernels.append(layer.kernel)
            biases.append(layer.bias)
    return (
        sorted(kernels, key=lambda k: tuple(k.shape) != (FEATURES, HIDDEN)),
        sorted(biases, key=lambda b: tuple(b.shape) != (HIDDEN,)),
    )


@dataclass(frozen=True)
class Option:
    """A way to build, feed, compile or train.

    Args:
        name: As the page calls it.
        run: Builds, trains and compares; raises `WrongNumberError` where a number is.
        precision: Of activations.
        refused: For each object that refuses, what its message says.
        own: The objects for which it makes sense without Keras's own; no failure of Keras's
            excuses theirs.
        keras_fails: Why Keras's own objects fail, where they do; for the page.
        compiled: Backends where every test run compiles it, as the page does. A compiled cell takes
            up to half a second on JAX and TensorFlow, an eager one a tenth of that.
        slow: Backends where it takes seconds: run for the page, not with every test run.
    """

    name: str
    run: Callable[[Case], None]
    precision: str = "float32"
    refused: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    keras_fails: str = ""
    compiled: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: "right", "refused", "Keras fails", "–" or "WRONG"; and a note."""

    status: str
    note: str = ""


def outcome_of(option: Option, subject: Subject, *, eagerly: bool = False) -> Outcome:
    """Run a cell; where it fails, run Keras's own objects in its place."""
    error = attempt(option, subject, eagerly)
    if error is None:
        return Outcome("right")
    if isinstance(error, NotApplicableError):
        return Outcome("–", str(error))
    message = option.refused.get(subject.name)
    if message and isinstance(error, (TypeError, ValueError)) and re.search(message, str(error)):
        return Outcome("refused", message.replace("\\", ""))
    if subject.keras_own is not None and subject.name not in option.own:
        own = attempt_once(option, subject.keras_own, eagerly)
        if own is not None and is_the_same_failure(error, own):
            return Outcome("Keras fails", option.keras_fails or described(own))
    return Outcome("WRONG", described(error))


def is_the_same_failure(ours: Exception, own: Exception) -> bool:
    """The same error, or the same number off by as much."""
    if isinstance(ours, WrongNumberError) and isinstance(own, WrongNumberError):
        both_nan = np.isnan(ours.error) and np.isnan(own.error)
        alike = both_nan or abs(ours.error - own.error) <= 1e-3 * abs(own.error)
        # Errors of rounding are alike in kind and not in size.
        rounding = abs(ours.error) <= 1e-6 and abs(own.error) <= 1e-6
        return ours.quantity[:4] == own.quantity[:4] and bool(alike or rounding)
    return (
        type(ours) is type(own)
        and not isinstance(ours, SilentCellError)
        and described(ours) == described(own)
    )


def described(error: Exception) -> str:
    """An error in one line, without what names the layer and the tensors."""
    if isinstance(error, WrongNumberError):
        return re.sub(r"\d\.\d{3,}", lambda number: f"{float(number[0]):.3g}", str(error))
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Keras wraps what a layer raises: the reason follows.
    reason = [line for line in lines if not line.startswith("Exception encountered when")]
    return f"{type(error).__name__}: {(reason or lines or [''])[0][:120]}"


def attempt_once(option: Option, subject: Subject, eagerly: bool) -> Exception | None:
    """`attempt` of Keras's own objects, which several of ours are held beside."""
    key = option.run, subject.name, eagerly
    if key not in _of_keras:
        _of_keras[key] = attempt(option, subject, eagerly)
    return _of_keras[key]


_of_keras: dict[tuple[Any, str, bool], Exception | None] = {}


def attempt(option: Option, subject: Subject, eagerly: bool) -> Exception | None:
    """What a cell raises; `None`: it is right."""
    start_afresh()
    with computing_in(option.precision), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's, of generators that are not shuffled and the like
        case = Case(subject, option.precision)
        case.eagerly = eagerly
        try:
            option.run(case)
            if not (case.loss_is_held and case.step_is_held):
                raise SilentCellError("it ran, and nothing was compared")
        except Exception as error:
            return error.with_traceback(None)  # which would keep the model
    return None
