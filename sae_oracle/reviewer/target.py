"""What is to be reviewed: where it is, what kind it is, and which of its arguments are ρ, β, λ."""

from __future__ import annotations

import contextlib
import inspect
import numbers
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras

from sae_oracle.catalogue import KINDS
from sae_oracle.reviewer import source
from sae_oracle.reviewer.reading import (
    DATA,
    HYPERPARAMETERS,
    constants,
    plain,
    size_named,
    sounds_like,
)

# Names in use for other arguments, without underscores and case; the first that fits is it.
_NAMES_IN_USE = """
tied_to: tiedto tieto tie tiedlayer tied encoder encoderlayer sourcelayer source baselayer layer
    dense denselayer other transposeof reference referencelayer master masterlayer twin
    twinlayer shared sharedlayer sharedwith parent parentlayer partner original
units: units outputdim outputdimension features outfeatures dim noutputs outputs n filters nfilters
    numfilters outchannels channels
"""
NAMES = HYPERPARAMETERS | {
    role: names.split()
    for role, names in re.findall(r"^(\w+):((?:.|\n )*)", _NAMES_IN_USE, re.MULTILINE)
}

SYMBOLS = {"rho": "ρ", "beta": "β", "weight_decay": "λ"}


class CouldNotReviewError(Exception):
    """The target cannot be reviewed; the message says why."""


@dataclass
class Target:
    """An object under review.

    Args:
        name: What it is called in the review.
        kind: One of `KINDS`.
        thing: The object, class or function.
        make: Returns an instance (or function) with some of the constructor's arguments changed.
        arguments: The constructor's arguments and their values, as far as known.
        parameter: Which argument is ρ, β, λ, the tied layer, ...
        values: The values of ρ, β and λ: of the arguments, or as they were given.
        guesses: What was guessed, in words.
        words: The object's own documentation.
        code: How to call what Keras never calls, a `foreign.Code`; `None`: Keras calls it.
        of_images: The rank of the images that it takes, the axis of their units, and for a layer
            how many pixels wide they are; `None`: it takes (samples, units).
        of_keras_1: Whether it takes a loss, and the activations from the layer that it is set to.
    """

    name: str
    kind: str
    thing: Any
    make: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    parameter: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    guesses: list[str] = field(default_factory=list)
    words: str = ""
    code: Any = None
    of_images: tuple[int, ...] | None = None
    of_keras_1: bool = False

    def build(self, **hyperparameters: Any) -> Any:
        """Return it with ρ, β or λ (by these names) changed, where it has them as arguments."""
        changed = {
            self.parameter[name]: value
            for name, value in hyperparameters.items()
            if name in self.parameter
        }
        return self.make(**changed)


def add_constants(target: Target) -> None:
    """Find ρ and β among the constants that the source uses, where no argument is ρ."""
    weights = {"l1", "l2", "factor", "weightdecay", "decay"}
    if "rho" in target.values or weights & {plain(name) for name in target.arguments}:
        return
    known = constants(target.thing)
    if "rho" not in known:
        return
    for role in ("rho", "beta"):
        if role in known and role not in target.values and role not in target.parameter:
            where, target.values[role] = known[role]
            target.guesses.append(f"{SYMBOLS[role]} = {known[role][1]:g} (`{where}`)")


def described(error: BaseException) -> str:
    """Return an exception on one line: its type, the beginning of its message, where it was."""
    message = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    if len(message) > 200:
        message = message[:200] + "…"
    where = ""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [f for f in frames if not _is_foreign(f.filename)]
    if own and own[-1].code_context:
        where = f" at `{own[-1].code_context[0].strip()}`"
    return f"{type(error).__name__}: {message}{where}"


def is_our_own(error: BaseException) -> bool:
    """Whether the reviewer itself raised it: then it says nothing about the target."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    return bool(frames) and _is_of_the_reviewer(frames[-1].filename)


def _is_of_the_reviewer(filename: str) -> bool:
    return Path(filename).parent == Path(__file__).parent


def _is_foreign(filename: str) -> bool:
    """Whether a frame is of a library or of this package, and not of the user."""
    parts = Path(filename).parts
    library = "site-packages" in parts or filename.startswith((sys.base_prefix, "<"))
    return library or _is_of_the_reviewer(filename)


def resolve(
    thing: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    rho: str | float | None = None,
    beta: str | float | None = None,
    weight_decay: str | float | None = None,
    kind: str | None = None,
    name: str | None = None,
) -> Target:
    """Find out how to make the object, what kind it is, and which arguments are which.

    Args:
        thing: A class, an instance or a function.
        settings: Constructor arguments.
        rho: The name of the argument that is ρ, or its value.
        beta: The name of the argument that is β, or its value.
        weight_decay: The name of the argument that is λ, or its value.
        kind: One of `KINDS`; `None`: detected.
        name: What to call it.

    Raises:
        CouldNotReviewError: If it cannot be made, or is nothing that can be reviewed.
        ValueError: If `kind` is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}. Received: kind={kind!r}")
    settings = dict(settings or {})
    subject = source.subject_of(thing)
    name = name or getattr(subject, "__name__", str(thing))
    if inspect.isfunction(thing) and not inspect.signature(thing).parameters:
        made = product(thing)
        if not isinstance(made, keras.Model):
            thing = made
    target = Target(str(name), "", thing, lambda **_: thing, words=source.documentation(thing))
    given = {"rho": rho, "beta": beta, "weight_decay": weight_decay}

    parameters = _constructor_parameters(thing)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        target.arguments = {**_defaults(parameters), **settings}
    else:
        target.arguments = {**_arguments_of(thing, parameters), **settings}
    unknown = [
        key
        for key in settings
        if key not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    ]
    if unknown:
        raise CouldNotReviewError(
            f"{name} has no argument {unknown[0]!r}; it has {', '.join(parameters) or 'none'}"
        )
    target.kind = kind or _kind(thing, parameters)
    _name_parameters(target, parameters, given)
    _make(target, thing, parameters, settings)
    if target.kind == "regularizer" and not inspect.isfunction(subject):
        target.of_keras_1 = source.mentions(source.text_of(subject), _OF_KERAS_1)
        if target.of_keras_1:
            target.make = _called_as_today(target.make)
    return target


_OF_KERAS_1 = r"def set_layer\b|\bself\.layer\.(get_)?output\b"


def _called_as_today(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make functions of activations of what adds its penalty to a loss, as Keras 1 called it."""

    def made(**changed: Any) -> Callable[[Any], Any]:
        regularizer = make(**changed)

        def penalty(x: Any) -> Any:
            layer = SimpleNamespace(output=x, get_output=lambda *_, **__: x)
            regularizer.layer = layer
            with contextlib.suppress(AttributeError):
                regularizer.set_layer(layer)
            return regularizer(0.0)

        return penalty

    return made


def _constructor_parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """The parameters that an object is made with; for a function, those beside its input."""
    if inspect.isfunction(thing):
        return dict(inspect.signature(thing).parameters)
    subject = source.subject_of(thing)
    try:
        parameters = dict(inspect.signature(subject.__init__).parameters)
    except (TypeError, ValueError):
        return {}
    parameters.pop("self", None)
    return {k: p for k, p in parameters.items() if p.kind is not p.VAR_POSITIONAL}


def _defaults(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    return {k: p.default for k, p in parameters.items() if p.default is not p.empty}


def _arguments_of(thing: Any, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The constructor's arguments of an instance: by its config, or by its attributes."""
    config: dict[str, Any] = {}
    with contextlib.suppress(Exception):
        config = dict(thing.get_config())
    found = {}
    for name in parameters:
        if name in config:
            found[name] = _restored(config[name], getattr(thing, name, None))
        elif hasattr(thing, name):
            found[name] = getattr(thing, name)
        elif hasattr(thing, "_" + name):
            found[name] = getattr(thing, "_" + name)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        found.update({k: v for k, v in config.items() if k not in found})
    return found


def _restored(value: Any, attribute: Any) -> Any:
    """What a configuration holds serialized: the attribute of that name, or a new object."""
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    if attribute is not None and not inspect.ismethod(attribute):
        return attribute
    with contextlib.suppress(Exception):
        return keras.saving.deserialize_keras_object(value)
    return value


_NOT_REVIEWED = (
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
)


def _kind(thing: Any, parameters: Mapping[str, inspect.Parameter]) -> str:
    subject = source.subject_of(thing)
    if inspect.isclass(subject):
        if issubclass(subject, _NOT_REVIEWED):
            raise CouldNotReviewError(
                f"{subject.__name__} is no regularizer, layer, loss or model: an optimizer, "
                "metric, initializer or constraint has nothing of the sparse autoencoder's cost"
            )
        for base, kind in (
            (keras.Model, "model"),
            (keras.layers.Layer, "layer"),
            (keras.losses.Loss, "loss"),
            (keras.regularizers.Regularizer, "regularizer"),
        ):
            if issubclass(subject, base):
                return kind
        call = getattr(subject, "__call__", None)  # noqa: B004
        inputs = list(inspect.signature(call).parameters) if inspect.isfunction(call) else []
        if len(inputs) >= 3 and plain(inputs[1]).startswith(("ytrue", "y", "true")):
            return "loss"
        return "regularizer"
    names = [plain(parameter) for parameter in parameters]
    if len(names) >= 2 and names[0] in ("ytrue", "y", "true", "target", "targets", "labels", "t"):
        return "loss"
    if inspect.isfunction(subject):
        return "regularizer" if names else "model"
    raise CouldNotReviewError(f"{thing!r} is no regularizer, layer, loss or model")


def _name_parameters(
    target: Target, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> None:
    data = DATA["y_true"] | DATA["y_pred"] if target.kind == "loss" else set()
    names = [n for n in [*target.arguments, *parameters] if plain(n) not in data]
    by_plain_name = {plain(name): name for name in names}
    roles = list(NAMES)
    for role in roles:
        chosen = given.get(role)
        if isinstance(chosen, str):
            if chosen not in by_plain_name.values():
                raise CouldNotReviewError(
                    f"{target.name} has no argument {chosen!r} to be {role}; "
                    f"it has {', '.join(parameters) or 'none'}"
                )
            target.parameter[role] = chosen
        elif isinstance(chosen, numbers.Real):
            target.values[role] = float(chosen)
    for role in roles:
        if role in target.parameter:
            continue
        if role in target.values and not inspect.isclass(target.thing):
            # A value was given: the argument that holds it, if one does.
            holding = [k for k, v in target.arguments.items() if v == target.values[role]]
            if len(holding) == 1:
                target.parameter[role] = holding[0]
                continue
        if role == "weight_decay" and target.kind == "layer":
            continue
        if role == "beta" and target.kind == "regularizer" and "rho" not in target.parameter:
            continue
        free = {p: n for p, n in by_plain_name.items() if n not in target.parameter.values()}
        found = [free[name] for name in NAMES[role] if name in free]
        if role in ("rho", "beta"):
            found += [name for p, name in free.items() if sounds_like(p) == role]
        if found:
            target.parameter[role] = found[0]
            if role in SYMBOLS:
                target.guesses.append(f"{SYMBOLS[role]} is `{found[0]}` (guessed from its name)")
    if target.kind == "layer" and "tied_to" not in target.parameter:
        # The one argument that must be given and says nothing else may be the encoder.
        left = [
            name
            for name, p in parameters.items()
            if p.default is p.empty
            and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            and name not in (*target.parameter.values(), *target.arguments)
            and size_named(name) is None
        ]
        if len(left) == 1:
            target.parameter["tied_to"] = left[0]
            target.guesses.append(f"`{left[0]}` is taken for the layer that it is tied to")
    for role in SYMBOLS:
        if role in target.parameter and role not in target.values:
            value = target.arguments.get(target.parameter[role])
            if isinstance(value, numbers.Real) and not isinstance(value, bool):
                target.values[role] = float(value)


# What an argument without a default is given, when it was not set.
FILLED_IN: dict[str, float] = {"rho": 0.1, "beta": 3.0, "weight_decay": 1e-2, "units": 5}
SIZES = {"hidden": 5, "visible": 6}


def _filled_in(name: str, role: str, target: Target) -> float:
    """The value of an argument that was not set.

    Raises:
        CouldNotReviewError: If its name does not say what it is.
    """
    value = FILLED_IN.get(role, SIZES.get(size_named(name) or ""))
    if value is None:
        raise CouldNotReviewError(
            f"the argument `{name}` of {target.name} has no default: set it (--set {name}=...)"
        )
    if role in SYMBOLS:
        target.values[role] = value
    if not (target.kind == "layer" and role == "units"):  # a layer is reviewed at several widths
        target.guesses.append(f"`{name}` was not set: {value} is used")
    return value


def _make(
    target: Target,
    thing: Any,
    parameters: Mapping[str, inspect.Parameter],
    settings: Mapping[str, Any],
) -> None:
    required = [
        k
        for k, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    roles = {parameter: role for role, parameter in target.parameter.items()}
    if inspect.isclass(thing) or (inspect.isfunction(thing) and target.kind == "model"):
        fixed: dict[str, Any] = dict(settings)
        for name in required:
            if name in fixed:
                continue
            role = roles.get(name, "")
            if role in target.values:
                fixed[name] = target.values[role]
            elif role != "tied_to":
                fixed[name] = _filled_in(name, role, target)
        for role, value in target.values.items():
            if role in target.parameter and target.parameter[role] not in settings:
                fixed[target.parameter[role]] = value

        def make(**changed: Any) -> Any:
            return thing(**{**fixed, **changed})

        target.make = make
        target.arguments.update(fixed)
        if inspect.isfunction(thing):
            _kind_of_product(target)
        return
    if inspect.isfunction(thing):
        _make_function(target, thing, parameters, settings, required, roles)
        return

    # An instance: made again from its own arguments where that works.
    known = {k: v for k, v in target.arguments.items() if k in parameters}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = dict(target.arguments)
    if all(k in known for k in required) and (known or not parameters):

        def remake(**changed: Any) -> Any:
            if not changed and not settings:
                return type(thing)(**known) if target.kind == "layer" else thing
            return type(thing)(**{**known, **changed})

        try:
            remake()
            type(thing)(**known)
        except Exception:
            pass
        else:
            target.make = remake
            return
    if settings:
        raise CouldNotReviewError(f"{target.name} cannot be made again with other arguments")
    for role in ("rho", "beta", "weight_decay"):
        target.parameter.pop(role, None)
    target.make = lambda **_: thing


def product(function: Callable[[], Any]) -> Any:
    """Return what a function without arguments makes."""
    try:
        return function()
    except Exception as error:
        raise CouldNotReviewError(f"calling it raised {described(error)}") from error


def _kind_of_product(target: Target) -> None:
    """A function that makes something is of the kind of what it makes."""
    try:
        made = target.make()
    except Exception:
        return  # the review will say so
    if isinstance(made, (keras.layers.Layer, keras.losses.Loss)):
        target.kind = _kind(made, {})


def _make_function(
    target: Target,
    thing: Any,
    parameters: Mapping[str, inspect.Parameter],
    settings: Mapping[str, Any],
    required: list[str],
    roles: Mapping[str, str],
) -> None:
    """A plain function of a tensor, with hyperparameters after it; or one that returns such."""
    hyper = set(target.parameter.values()) | set(settings)
    inputs = [k for k in required if k not in hyper]
    fixed = dict(settings)
    for role, value in target.values.items():
        if role in target.parameter:
            fixed.setdefault(target.parameter[role], value)
    for name in required:
        if name in hyper and name not in fixed:
            fixed[name] = _filled_in(name, roles.get(name, ""), target)
    if not inputs and target.kind != "loss":

        def manufacture(**changed: Any) -> Any:
            return thing(**{**fixed, **changed})

        target.make = manufacture
        _kind_of_product(target)
        return

    def make(**changed: Any) -> Any:
        if not fixed and not changed:
            return thing
        return lambda *tensors, **more: thing(*tensors, **{**fixed, **changed, **more})

    target.make = make
