"""An implementation as something that answers vectors: what the reviewer takes, as it takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import keras
import numpy as np

from keras_impl.backends.autodiff import has_gradients
from reference import Parameters, forward
from reference.activations import activation_named
from reference.gradient import hidden_delta
from reference.network import layer_activations
from sae_oracle.conformance.vectors import Judgement, Vector, judge
from sae_oracle.reviewer import _take_from_a_regularizer as take_from_a_regularizer
from sae_oracle.reviewer import _target, check_cost, check_model, costs, source, stand_ins, trials
from sae_oracle.reviewer import target as targets
from sae_oracle.reviewer.check_penalty import (
    Findings,
    Penalty,
    expected_input,
    prepared_input,
)
from sae_oracle.reviewer.evaluation import as_number, gradient_of, quietly, tensor
from sae_oracle.reviewer.foreign import (
    KIND_WORDS,
    WHOLE,
    Code,
    CodePenalty,
    is_of_data,
    methods_of,
    picked,
)
from sae_oracle.reviewer.frameworks import FRAMEWORKS
from sae_oracle.reviewer.loading import Loaded, Method
from sae_oracle.reviewer.reading import Reading, sizes_among
from sae_oracle.reviewer.stand_ins import module_of
from sae_oracle.reviewer.target import CouldNotReviewError, Target, described

Answers = Mapping[str, Any]
Answer = Callable[[Vector], Answers]

ROLES = ("rho", "beta", "weight_decay")

HAS_AN_EDGE = r"EQ-KL-EXTENSION|tangent|Taylor"
"""What the documentation of an implementation says that continues the KL beyond an edge."""

LARGEST_EDGE = 1e-5
"""Of those that have one which is no argument: as the reviewer's candidates."""


class NotAsked(Exception):  # noqa: N818  # no error: a reason
    """Why a vector is no question to this implementation."""


@dataclass(frozen=True)
class Subject:
    """One way to ask an implementation.

    Args:
        kind: What it is, in words.
        labels: The labels that it can answer.
        precision: What it computes in.
        answer: Returns the outputs of a vector by name; raises `NotAsked`.
        guesses: What is taken for granted, in words.
    """

    kind: str
    labels: tuple[str, ...]
    precision: str
    answer: Answer
    guesses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """How an implementation is to be asked: the arguments of `review`.

    Args:
        thing: An object, or where one is.
        settings: Constructor arguments.
        roles: Which arguments are ρ, β and λ, or their values.
        kind: What it is, where that is said.
        called_directly: Whether a regularizer's value goes to the loss as it is.
        name: What it is called.
    """

    thing: Any
    settings: Mapping[str, Any]
    roles: Mapping[str, Any]
    kind: str | None = None
    called_directly: bool = False
    name: str | None = None

    def target(self, **settings: Any) -> Target:
        """Resolve it, with more constructor arguments."""
        thing = self.thing.thing if isinstance(self.thing, Loaded) else self.thing
        return _target(thing, {**self.settings, **settings}, self.roles, self.kind, self.name)


def subject_of(question: Question, vectors: Sequence[Vector]) -> Subject:
    """Return the way in which an implementation is asked.

    Args:
        question: What it is.
        vectors: Where there are several ways, the one that has fewest failures on some of these.

    Raises:
        CouldNotReviewError: If it is nothing that a vector can be a question to.
    """
    target = question.target()
    guesses = tuple(dict.fromkeys(target.guesses))
    if target.code is not None:
        code, reading, is_derivative = _chosen_reading(target, target.code)
        found = _of_code(question, target, code, reading, is_derivative)
        guesses = (*guesses, *code.guesses, *reading.words)
    elif target.kind == "loss":
        found = [_of_loss(target)]
    elif target.kind == "model":
        found = [_of_costs(question, partial(_cost_of_model, question), "model")]
    elif target.kind == "layer" and "rho" not in target.values:
        found = [_of_layer(target)]
    elif "rho" in target.values:
        found = [_of_penalty(target, question.called_directly)]
    else:
        found = [_of_weights(target)]
    return replace(_best(found, vectors), guesses=guesses)


def held(subject: Subject, vector: Vector) -> Judgement | Answers:
    """Ask a subject one vector; return its answers, or why there are none."""
    if vector.label not in subject.labels:
        return Judgement("not run", None, f"a {subject.kind} does not compute this equation")
    try:
        with quietly():
            return subject.answer(vector)
    except NotAsked as reason:
        return Judgement("not run", None, str(reason))
    except Exception as error:
        words = f"{vector.identifier}: it raised {described(error)}"
        return Judgement("failed", None, words)


def _best(subjects: Sequence[Subject], vectors: Sequence[Vector]) -> Subject:
    if not subjects:
        raise CouldNotReviewError("nothing of it computes a number that a vector has")
    if len(subjects) == 1:
        return subjects[0]

    def rank(subject: Subject) -> tuple[bool, int]:
        asked = [v for v in vectors if v.label in subject.labels]
        found = [held(subject, vector) for vector in asked]
        judged = [
            f if isinstance(f, Judgement) else judge(v, f, subject.precision)
            for v, f in zip(asked, found, strict=True)
        ]
        failed, passed = (sum(j.status == s for j in judged) for s in ("failed", "passed"))
        return failed + passed == 0, failed - passed

    return min(subjects, key=rank)


# --- penalties of activations


def _sparsity_question(vector: Vector, mask: Any = None) -> tuple[Any, dict[str, Any]]:
    """The rows that a penalty is asked with (with a mask: all axes), and its other arguments."""
    given = dict(vector.arguments)
    x = given.pop("activations" if "activations" in given else "logits")
    if mask is not None:
        del given["mask"]
        return x, given
    if "mask" in given:
        raise NotAsked("it is asked without a mask")
    return x.reshape(-1, x.shape[-1]), given


def _options(target: Target, given: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """The arguments that are as a vector has them, by their names.

    Raises:
        NotAsked: If it does not take one, or fixes it at another value.
    """
    options = dict.fromkeys(others, False) | {"epsilon": 0.0, "tied_decay": 1}
    options = {name: options[name] for name in options if name in target.arguments}
    if not source.mentions(target.words, HAS_AN_EDGE):
        options.pop("epsilon", None)  # it may be a guard, or a clip
    for name, value in given.items():
        if name in ROLES:
            fixed = target.values.get(name, 1.0 if name == "beta" else None)
            if name not in target.parameter and fixed != value:
                raise NotAsked(f"its {name} is fixed, and no argument")
        elif name in target.arguments and (name != "epsilon" or name in options):
            options[name] = value
        else:
            raise NotAsked(f"it is not asked with {name}")
    return options


def _refuse_beyond(target: Target, x: Any) -> None:
    """Raise `NotAsked` where ρ̂ may lie beyond an edge that an implementation says it has."""
    means = x.reshape(-1, x.shape[-1]).mean(axis=0)
    beyond = np.any((means < LARGEST_EDGE) | (means > 1.0 - LARGEST_EDGE))
    if beyond and source.mentions(target.words, HAS_AN_EDGE):
        raise NotAsked("its ε is fixed, and no argument")


def _of_layer(target: Target) -> Subject:
    """A layer that has its ρ from a regularizer."""
    nested = getattr(target.thing, "activity_regularizer", None)
    if nested is not None:
        return _of_penalty(targets.resolve(nested), False)
    take_from_a_regularizer(target)
    if "rho" in target.values:
        return _of_penalty(target, False)
    raise CouldNotReviewError(
        "a layer without ρ, such as a tied one, answers no vector: check an autoencoder that has "
        "it, or a function that returns one"
    )


def _of_penalty(target: Target, called_directly: bool) -> Subject:
    takes = "either" if "from_logits" in target.arguments else expected_input(target)
    labels = {
        "either": ("EQ-SPARSITY", "EQ-SPARSITY-LOGITS"),
        "logits": ("EQ-SPARSITY-LOGITS",),
    }.get(takes, ("EQ-SPARSITY",))

    call = getattr(source.subject_of(target.thing), "call", None)
    takes_masks = target.kind == "layer" and "mask" in inspect.signature(call or tensor).parameters

    def answer(vector: Vector) -> Answers:
        mask = vector.arguments.get("mask") if takes_masks else None
        if mask is not None:
            mask = keras.ops.convert_to_tensor(mask)
        x, given = _sparsity_question(vector, mask)
        rescales = takes == "symmetric" and "symmetric" not in target.arguments
        if rescales and not given.pop("symmetric", False):
            raise NotAsked("it takes activations in [-1, 1]")
        options = _options(target, given, ("from_logits", "symmetric"))
        if "activations" in vector.inputs and "epsilon" not in target.arguments:
            _refuse_beyond(target, (0.5 + 0.5 * x) if rescales else x)
        if takes == "either" and "logits" in vector.inputs:
            options["from_logits"] = True
        if target.kind == "layer" and "activation" in target.arguments:
            options["activation"] = "linear"

        def make(**changed: Any) -> Any:
            return target.make(**{**options, **changed})

        if options:
            try:
                make()
            except Exception as error:
                raise NotAsked(f"it cannot be made with {options}: {described(error)}") from None
        penalty = Penalty(replace(target, make=make), called_directly)
        rho, beta, rows = given["rho"], given["beta"], len(x)
        with source.ported(target.thing):
            if target.kind == "layer":
                layer = penalty.make(rho, beta, x.shape[-1])
                if not np.array_equal(prepared_input(layer, x), x):
                    raise NotAsked("its units are no linear ones: check its penalty")
                layer(tensor(x), **({} if mask is None else {"mask": mask}))
                if any("float" in str(v.dtype) for v in layer.non_trainable_variables):
                    raise NotAsked("it keeps a running average: that is EQ-RHO-HAT-RUNNING")
                if mask is not None:
                    return {"value": as_number(sum(layer.losses))}
            value, seen = penalty.in_loss(x, rho, beta)
            if not np.array_equal(seen, x):
                raise NotAsked("its layer does not pass on what it is asked with")
            found: dict[str, Any] = {"value": value}
            if has_gradients():
                slope = penalty.gradient(x, rho, beta)
                found["gradient"] = slope / (rows if penalty.divided else 1)
        return _shaped(found, vector)

    return Subject(target.kind, labels, "float32", answer)


def _shaped(found: dict[str, Any], vector: Vector) -> Answers:
    """Put rows back into the shape of the vector."""
    for output in vector.outputs:
        if output.name in found and np.size(found[output.name]) == np.prod(output.shape):
            found[output.name] = np.reshape(found[output.name], output.shape)
    return found


# --- losses and penalties of weights


def _rows_of(vector: Vector) -> tuple[Any, Any]:
    output, y = (vector.arguments[name] for name in ("output", "y"))
    if output.ndim != 2:
        raise NotAsked("it is asked with rows of samples alone")
    return output, y


def _of_loss(target: Target) -> Subject:
    def answer(vector: Vector) -> Answers:
        output, y = _rows_of(vector)
        loss = target.make()

        def mean(t: Any) -> Any:
            return keras.ops.mean(loss(tensor(y), t))

        with source.ported(target.thing):
            found: dict[str, Any] = {"value": as_number(mean(tensor(output)))}
            if has_gradients():
                found["gradient"] = gradient_of(mean, output)
        return found

    return Subject("loss", ("EQ-RECONSTRUCTION",), "float32", answer)


def _of_weights(target: Target) -> Subject:
    names = {name.replace("_", "").lower(): name for name in target.arguments}
    l1, l2 = (names.get(n) or names.get(f"{n}factor") for n in ("l1", "l2"))
    decay = target.parameter.get("weight_decay")
    labels: tuple[str, ...] = ("EQ-DECAY",)
    if "factor" in names and "mode" in names:
        labels = ("EQ-ORTHOGONAL",)
    elif (l1 or l2) and decay in (None, l2):
        labels = ("EQ-L1L2", "EQ-L1", "EQ-L2") if l1 and l2 else ("EQ-L1",) if l1 else ("EQ-L2",)

    def arguments(vector: Vector) -> dict[str, Any]:
        a = vector.arguments
        if vector.label == "EQ-ORTHOGONAL":
            return {names["factor"]: a["factor"], names["mode"]: a["mode"]}
        factors = {l1: a.get("l1_factor", 0.0), l2: a.get("l2_factor", 0.0)}
        if "factor" in a:
            factors = {l1: 0.0, l2: 0.0} | {l1 if vector.label == "EQ-L1" else l2: a["factor"]}
        return {str(name): value for name, value in factors.items() if name is not None}

    def answer(vector: Vector) -> Answers:
        with source.ported(target.thing):
            if vector.label != "EQ-DECAY":
                made = target.make(**arguments(vector))
                return _value_and_slopes(made, [vector.arguments["weights"]])
            parameters, tied_decay = (vector.arguments[n] for n in ("parameters", "tied_decay"))
            if parameters.tied and tied_decay == 2:
                raise NotAsked("it is asked once for each kernel")
            _options(target, {"weight_decay": vector.arguments["weight_decay"]}, ())
            made = target.build(weight_decay=vector.arguments["weight_decay"])
            found = _value_and_slopes(made, parameters.kernels)
            if "gradient" in found:
                of_biases = [np.zeros_like(bias) for bias in parameters.biases]
                found["gradient"] = np.concatenate([found["gradient"].ravel(), *of_biases])
            return found

    return Subject("regularizer of weights", labels, "float32", answer)


def _value_and_slopes(penalty: Callable[[Any], Any], arrays: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"value": sum(as_number(penalty(tensor(a))) for a in arrays)}
    if has_gradients():
        slopes = [gradient_of(penalty, a) for a in arrays]
        several = len(slopes) > 1
        found["gradient"] = np.concatenate([s.ravel() for s in slopes]) if several else slopes[0]
    return found


# --- code that Keras never calls


def _chosen_reading(target: Target, code: Code) -> tuple[Code, Reading, bool]:
    """Return the reading that the reviewer takes: the one that explains the numbers best.

    And whether it is by it the derivative of the KL, and not the KL.
    """
    best: tuple[float, Code, Reading, Any] | None = None
    first: Exception | None = None
    with source.ported(code.thing, code.framework.name != "keras"):
        for way, reading in trials.ways_of(code):
            try:
                with quietly():
                    cost, found = trials.trial(target, way, reading)
            except Exception as error:
                first = first or error
                continue
            if best is None or cost + reading.cost < best[0]:
                best = cost + reading.cost, way, reading, found
            if best[0] == 0.0:
                break
        if best is None:
            words = "what its arguments are is not known: name them (--rho, --beta)"
            raise CouldNotReviewError(words if first is None else described(first))
        _, way, reading, found = best
        if reading.kind in ("activations", "means") and "rho" not in {*way.values, *reading.hyper}:
            with quietly():
                found(Findings(), None)  # which finds the ρ among its numbers
            way = replace(way, values={**way.values, **target.values})
    return way, reading, found is trials.reviewed_derivative


def _of_code(
    question: Question, target: Target, code: Code, reading: Reading, is_derivative: bool
) -> list[Subject]:
    kind = KIND_WORDS[reading.kind]
    precision = code.framework.dtype
    if reading.kind in ("activations", "means"):
        return [_of_code_penalty(target, code, reading, kind, is_derivative)]
    if reading.kind == "weights":
        return [Subject(kind, ("EQ-DECAY",), precision, _decay_of_code(code, reading))]
    if reading.kind == "loss":
        return [Subject(kind, ("EQ-RECONSTRUCTION",), precision, _loss_of_code(code, reading))]
    if reading.kind in ("cost", "network", "model loss"):
        subjects: list[Subject] = []
        first: Exception | None = None
        for position in range(len(_costs_of_code(question, {}, None))):
            try:
                found = _of_costs(question, partial(_cost_of_code, question, position), kind)
            except Exception as error:  # another way to call it may do
                first = first or error
                continue
            subjects.append(replace(found, precision=precision))
        if first is not None and not subjects:
            raise CouldNotReviewError(f"it raised {described(first)}")
        return subjects
    if reading.kind == "training loss":
        return [_of_training_loss(target, code, reading, kind)]
    raise CouldNotReviewError(
        f"a {kind} answers no vector: check the functions that it calls, its penalty and its loss"
    )


def _by_role(target: Target, code: Code, reading: Reading) -> Target:
    """Return the target whose ρ, β and λ are those that its code takes, each by its role."""
    return replace(
        target,
        values=dict(code.values),
        arguments={},
        parameter={role: role for role in code.changeable(reading)},
    )


def _of_code_penalty(
    target: Target, code: Code, reading: Reading, kind: str, is_derivative: bool
) -> Subject:
    penalty = (code.penalty or CodePenalty)(target, code, reading)
    has_beta = "beta" in {*code.values, *code.changeable(reading)}
    labels: tuple[str, ...] = ("EQ-SPARSITY",)
    if penalty.input_kind == "logits":
        labels = ("EQ-SPARSITY-LOGITS",)
    elif reading.kind == "means" and not has_beta:
        labels = ("EQ-KL-DERIVATIVE",) if is_derivative else ("EQ-KL", "EQ-SPARSITY")
    replaced = _by_role(target, code, reading)

    def of_each_unit(vector: Vector) -> Answers:
        rho_hat, rho = vector.arguments["rho_hat"], vector.arguments["rho"]
        _options(replaced, {"rho": rho}, ())
        if penalty.passes == "scalars":
            value = np.reshape([penalty.each(r, rho) for r in rho_hat.ravel()], rho_hat.shape)
        else:
            value = penalty.each(rho_hat, rho)
        if value.shape != rho_hat.shape:
            raise NotAsked("it returns no number for each unit")
        return {"value": value}

    def answer(vector: Vector) -> Answers:
        with source.ported(code.thing, code.framework.name != "keras"):
            if not penalty.passes:
                penalty.check_returned(vector.arguments["rho"], 1.0)
            if "rho_hat" in vector.arguments:
                return of_each_unit(vector)
            x, given = _sparsity_question(vector)
            rho, beta = given["rho"], given["beta"]
            factor = 1.0 if has_beta else given.pop("beta")
            if factor == 0.0:
                raise NotAsked("it has no beta")
            if "rho" not in {*replaced.values, *replaced.parameter}:
                del given["rho"]  # no number of it explains its values: it is asked for every ρ
            _options(replaced, given, ())
            if penalty.input_kind != "logits":
                _refuse_beyond(replaced, x)
            found: dict[str, Any] = {"value": factor * penalty.value(x, rho, beta)}
            if penalty.has_gradients:
                found["gradient"] = factor * penalty.gradient(x, rho, beta)
        return _shaped(found, vector)

    return Subject(kind, labels, code.framework.dtype, answer)


def _decay_of_code(code: Code, reading: Reading) -> Answer:
    framework = code.framework

    def answer(vector: Vector) -> Answers:
        parameters, decay = (vector.arguments[n] for n in ("parameters", "weight_decay"))
        kernels = parameters.kernels
        if vector.arguments["tied_decay"] == 2 and parameters.tied:
            raise NotAsked("it is asked once for each kernel")
        if "weight_decay" not in code.changeable(reading):
            raise NotAsked("its weight_decay is fixed, and no argument")
        names = list(reading.data)
        calls = [[kernel] for kernel in kernels] if len(names) == 1 else [kernels]
        if len(names) not in (1, len(kernels)):
            raise NotAsked(f"it takes {len(names)} kernels")

        def value(arrays: Sequence[Any]) -> float:
            tensors = [framework.tensor(a) for a in arrays]
            try:
                data = dict(zip(names, tensors, strict=True))
                returned = picked(code.call(reading, data, {"weight_decay": decay}))
            except Exception:
                data = {name: [t] for name, t in zip(names, tensors, strict=True)}
                returned = picked(code.call(reading, data, {"weight_decay": decay}))
            return float(np.reshape(framework.array(returned), ()))

        with source.ported(code.thing, framework.name != "keras"):
            return {"value": sum(map(value, calls))}

    return answer


def _loss_of_code(code: Code, reading: Reading) -> Answer:
    framework = code.framework

    def answer(vector: Vector) -> Answers:
        output, y = _rows_of(vector)

        def scalar(t: Any) -> Any:
            data = {"y_true": framework.tensor(y), "y_pred": t}
            returned = picked(code.call(reading, data, dict(code.values)))
            shape = tuple(getattr(returned, "shape", ()))
            return framework.total(returned) / int(np.prod(shape)) if shape else returned

        with source.ported(code.thing, native=True):
            value = float(np.reshape(framework.array(scalar(framework.tensor(output))), ()))
            slopes = framework.gradients(scalar, [output])
        return {"value": value} if slopes is None else {"value": value, "gradient": slopes[0]}

    return answer


def _of_training_loss(target: Target, code: Code, reading: Reading, kind: str) -> Subject:
    """A loss of output, target and hidden activations: EQ-COST, with what has no weights in it.

    The network is the oracle's, in float64; so is the weight decay, and the chain rule from output
    and activations to the weights (EQ-DELTA-OUTPUT, EQ-DELTA).
    """
    framework = code.framework
    part = "means" if "means" in reading.data else "activations"
    replaced = _by_role(target, code, reading)

    def answer(vector: Vector) -> Answers:
        given = dict(vector.arguments)
        parameters, x = given.pop("parameters"), given.pop("x")
        y, decay = given.pop("y", x), given.pop("weight_decay")
        names = layer_activations(
            given.pop("activation", "sigmoid"), given.pop("output_activation", None), 2
        )
        if len(parameters.layer_kernels) != 2 or parameters.tied:
            raise NotAsked("it is asked for one hidden layer, which is not tied")
        _options(replaced, given, ())
        hyper = {role: given[role] for role in ("rho", "beta")}
        passed = forward(parameters, x, activation=names[0], output_activation=names[1])
        hidden, output = passed.activations[1:]

        def scalar(h: Any, inner: Any) -> Any:
            data = {"y_true": framework.tensor(y), "y_pred": h, part: inner}
            returned = picked(code.call(reading, data, {**code.values, **hyper}), WHOLE)
            shape = tuple(getattr(returned, "shape", ()))
            return framework.total(returned) / int(np.prod(shape)) if shape else returned

        inner = hidden.mean(axis=0) if part == "means" else hidden
        with source.ported(code.thing, framework.name != "keras"):
            value = framework.array(scalar(framework.tensor(output), framework.tensor(inner)))
            slopes = framework.gradients(scalar, [output, inner])
        squares = sum(np.sum(np.square(kernel)) for kernel in parameters.kernels)
        found: dict[str, Any] = {"value": float(np.reshape(value, ())) + decay / 2.0 * squares}
        if slopes is not None:
            of_output, of_hidden = slopes
            of_hidden = of_hidden / len(x) if part == "means" else of_hidden
            first, second = (
                activation_named(name).derivative(z)
                for name, z in zip(names, passed.logits, strict=True)
            )
            delta = of_output * second
            earlier = hidden_delta(delta, parameters.kernels[1], first, of_hidden)
            kernels = [x.T @ earlier, hidden.T @ delta]
            kernels = [k + decay * w for k, w in zip(kernels, parameters.kernels, strict=True)]
            parts = [*kernels, earlier.sum(axis=0), delta.sum(axis=0)]
            found["gradient"] = np.concatenate([np.ravel(part) for part in parts])
        return found

    return Subject(kind, ("EQ-COST",), framework.dtype, answer)


# --- networks


def _ported(target: Target) -> Any:
    """Give the code of a target what Keras no longer has, as the reviewer does."""
    native = target.code is not None and target.code.framework.name != "keras"
    parts = check_model.layers_of_model(target.thing) if target.kind == "model" else ()
    held = [getattr(part, "activity_regularizer", None) for part in parts]
    return source.ported(target.thing, native, *filter(None, held))


@contextmanager
def _sized(sizes: Sequence[int] | None) -> Iterator[None]:
    """Let the reviewer make what has no sizes of its own with these."""
    known = (stand_ins.SIZE, targets.SIZES)
    before = [dict(held) for held in known]
    try:
        if sizes is not None:
            for held_sizes in known:
                held_sizes |= {"visible": sizes[0], "hidden": sizes[1]}
        yield
    finally:
        for held_sizes, old in zip(known, before, strict=True):
            held_sizes |= old


def _named_sizes(question: Question, sizes: Sequence[int] | None) -> dict[str, Any]:
    """The constructor's arguments that are sizes, with these values."""
    thing = question.thing.thing if isinstance(question.thing, Loaded) else question.thing
    owner = thing.owner if isinstance(thing, Method) else thing
    if sizes is None or not (inspect.isclass(owner) or inspect.isfunction(owner)):
        return {}
    hidden = tuple(sizes[1 : len(sizes) // 2 + 1])
    values = {"visible": sizes[0], "hidden": hidden[0] if len(hidden) == 1 else hidden}
    may_be = [
        name
        for name, parameter in inspect.signature(owner).parameters.items()
        if "activation" not in name
        and (parameter.default is parameter.empty or isinstance(parameter.default, int | tuple))
        and not isinstance(parameter.default, bool)
    ]
    named = sizes_among(may_be)
    return {n: values[size] for n, size in named.items() if n not in question.settings}


def _cost_of_model(
    question: Question, options: Mapping[str, Any], sizes: Sequence[int] | None
) -> Any:
    with _sized(sizes):
        target = question.target(**options, **_named_sizes(question, sizes))

        def make(hyper: Mapping[str, float]) -> Any:
            model = target.build(**hyper)
            if not model.compiled:
                model.compile("sgd")
            if not model.built and sizes is not None:
                model(tensor(np.full((2, sizes[0]), 0.5)))
            return model

        def call(model: Any, x: Any, _: Mapping[str, float]) -> Any:
            output = model(x, training=True)
            return model.compute_loss(x=x, y=x, y_pred=output, sample_weight=None)

        changeable = frozenset(role for role in ROLES if role in target.parameter)
        return costs.CostOfKeras(target.name, make, call, changeable, dict(target.values))


def _costs_of_code(
    question: Question, options: Mapping[str, Any], sizes: Sequence[int] | None
) -> list[Any]:
    """Every cost that code may be, in an order that does not depend on the sizes."""
    thing = question.thing.thing if isinstance(question.thing, Loaded) else question.thing
    of_class = isinstance(thing, Method) or inspect.isclass(thing)
    named = _named_sizes(question, sizes) if of_class else {}
    with _sized(sizes):
        target = question.target(**options, **named)
        code, reading, _ = _chosen_reading(target, target.code)
        pair = None if sizes is None else (sizes[0], sizes[1])
        if reading.kind == "cost":
            return [costs.cost_of(code, reading, pair)]
        if reading.kind == "model loss":
            return list(costs.costs_of_model_losses(code, reading))
        instance = code.make({})
        of_module = module_of(instance) is not None
        kind = (
            costs.CostOfModule if of_module
            else partial(costs.CostOfObject, framework=code.framework)
        )  # fmt: skip
        found: list[Any] = []
        methods = [code.method] if code.method else methods_of(source.subject_of(code.thing))
        for method in methods:
            if method not in ("forward", "__call__") and is_of_data(getattr(instance, method)):
                found += trials.costs_of_method(code, method, kind)
        if of_module and not found:
            changeable, values = code.made_with, dict(code.values)
            calls = [lambda module, x, _: module(x)]
            x = FRAMEWORKS["torch"].tensor(np.full((4, trials.visible_of(code)), 0.5))
            instance(x)
            for attribute in costs.scalar_attributes(instance):

                def kept(module: Any, x: Any, _: Any, name: str = attribute) -> Any:
                    module(x)
                    return getattr(module, name)

                calls.append(kept)
            found += [kind(code.name, code.make, call, changeable, values) for call in calls]
        return found


def _cost_of_code(
    question: Question, position: int, options: Mapping[str, Any], sizes: Sequence[int] | None
) -> Any:
    return _costs_of_code(question, options, sizes)[position]


def _of_costs(
    question: Question,
    cost_of: Callable[[Mapping[str, Any], Sequence[int] | None], Any],
    kind: str,
) -> Subject:
    """A cost of a network's parameters: EQ-COST, and its gradient where it returns one."""
    target = question.target()
    with quietly(), _ported(target):
        fit = check_cost.fit_of(cost_of({}, None))

    @cache
    def sized(sizes: tuple[int, ...], options: tuple[tuple[str, Any], ...]) -> Any:
        try:
            return cost_of(dict(options), sizes)
        except Exception as error:
            raise NotAsked(f"it cannot be made for {sizes}: {described(error)}") from None

    def answer(vector: Vector) -> Answers:
        given = dict(vector.arguments)
        parameters, x = given.pop("parameters"), given.pop("x")
        hyper = {role: given.pop(role) for role in ROLES}
        if "y" in given:
            raise NotAsked("it is asked for the input as output")
        wanted = layer_activations(
            given.get("activation", "sigmoid"),
            given.get("output_activation"),
            len(parameters.layer_kernels),
        )
        for name in ("activation", "output_activation"):
            if name not in target.arguments:
                given.pop(name, None)
        ours = {"tied": parameters.tied} if "tied" in target.arguments else {}
        options = _options(target, {**given, **ours}, ("symmetric",))
        with _ported(target):
            cost = sized(tuple(parameters.sizes), tuple(options.items()))
        own = (fit.network.hidden, fit.network.last)
        if "activation" not in target.arguments and not _are_same(parameters, x, wanted, own):
            raise NotAsked(f"its units are {own[0]} and {own[1]}")
        layout = fit.layout
        layers, shapes = cost.layers(layout), cost.shapes(layout)
        weights = _placed(parameters, layers, shapes)
        has_rho = "rho" in {*cost.changeable, *cost.values}
        absent = {"beta": 1.0 if has_rho else 0.0}  # with a ρ, and without a factor
        for role, value in hyper.items():
            fixed = cost.values.get(role, absent.get(role, 0.0))
            if role not in cost.changeable and fixed != value:
                raise NotAsked(f"its {role} is fixed, and no argument")
        if fit.form is None and hyper["weight_decay"]:
            raise NotAsked("it has no reconstruction, and its sparsity is held alone")
        with _ported(target):
            value, slopes = cost.total(layout, weights, x, hyper)
            if fit.form is None:
                return {"sparsity": value}
            if slopes is None and isinstance(cost, costs.CostOfObject):
                slopes = cost.slopes(layout, weights, x, hyper)
        answers: dict[str, Any] = {"value": value}
        if slopes is not None:
            turned = {
                layer.kernel: slopes[layer.kernel].T if layer.transposed else slopes[layer.kernel]
                for layer in reversed(layers)
            }
            parts = [turned[n] for n in dict.fromkeys(layer.kernel for layer in layers)]
            parts += [slopes[layer.bias] for layer in layers]
            answers["gradient"] = np.concatenate([np.ravel(part) for part in parts])
        return answers

    return Subject(kind, ("EQ-COST",), "float32", answer)


def _are_same(parameters: Parameters, x: Any, wanted: Sequence[str], own: tuple[str, str]) -> bool:
    """Whether a network with other units has the same activations: relu and linear where z ≥ 0."""
    if (wanted[0], wanted[-1]) == own:
        return True
    theirs = forward(parameters, x, activation=own[0], output_activation=own[1])
    asked = forward(parameters, x, activation=wanted[0], output_activation=wanted[-1])
    pairs = zip(theirs.activations, asked.activations, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _placed(
    parameters: Any, layers: Sequence[Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Return the parameters of a vector as an implementation holds them, by its names."""
    kernels = parameters.layer_kernels
    names = [layer.kernel for layer in layers]
    if len(names) != len(kernels) or (len(set(names)) < len(names)) != parameters.tied:
        raise NotAsked("its layers are not those of the vector's network")
    weights: dict[str, Any] = {}
    for layer, kernel, bias in zip(layers, kernels, parameters.biases, strict=True):
        if layer.bias is None:
            raise NotAsked("it has no biases")
        weights.setdefault(layer.kernel, kernel.T if layer.transposed else kernel)
        weights[layer.bias] = bias
    wrong = [n for n, s in shapes.items() if n not in weights or np.shape(weights[n]) != tuple(s)]
    if wrong:
        raise NotAsked(f"its sizes are fixed: `{wrong[0]}` is of shape {tuple(shapes[wrong[0]])}")
    return weights
