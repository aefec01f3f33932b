"""Code that Keras never calls: functions and classes in NumPy, torch, JAX, TensorFlow.

What is reviewed is always one question: the value, and the gradient, for given inputs. `Code` asks
it of a function or a method, on its own library; nothing that only Keras asks for (a division by
the batch, a configuration, a dtype policy) is asked of it.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_penalty import (
    ONE_PIXEL,
    Penalty,
    ShapeError,
    probes,
)
from sae_oracle.reviewer.evaluation import quietly
from sae_oracle.reviewer.frameworks import FRAMEWORKS, Framework, is_installed, uncompiled
from sae_oracle.reviewer.loading import Method
from sae_oracle.reviewer.reading import (
    APPLIES,
    BATCH_SIZES,
    DATA,
    HYPERPARAMETERS,
    LOADERS,
    MODEL,
    TRAINING,
    Reading,
    Signature,
    bystanders,
    constants,
    data_roles,
    hyperparameters,
    is_number,
    numbers_of,
    plain,
    readings,
    signature_of,
    size_named,
    sizes_among,
    sounds_like,
)
from sae_oracle.reviewer.stand_ins import (
    FILLED_IN,
    SIZE,
    ConfigurationOf,
    is_configuration,
    models_in,
    module_of,
    names_used_of,
    parameters_among,
    preparation_of,
    stand_in_for,
)
from sae_oracle.reviewer.target import (
    SYMBOLS,
    CouldNotReviewError,
    Target,
    described,
)

EACH_ACTIVATION = "it returns a number for each activation"
WHICH_RHO = (
    "which number is ρ? Name the argument, attribute or constant (--rho NAME), or give its value "
    "(--rho 0.05)"
)
KIND_WORDS = {
    "activations": "function of activations",
    "means": "function of means",
    "loss": "loss",
    "training loss": "training loss",
    "cost": "cost of parameters",
    "model loss": "training loss",
    "network": "autoencoder",
    "weights": "weight penalty",
}


@dataclass
class Code:
    """A function or method to be called with data and hyperparameters.

    Args:
        name: What it is called.
        thing: What its source is read from.
        framework: The library whose arrays it takes.
        signature: The arguments of what is called.
        make: Returns what is called, made with these values of ρ, β and λ.
        made_with: Those of ρ, β and λ that `make` takes.
        values: Their values as far as known.
        readings: The ways to call it.
        guesses: What was guessed, in words.
        words: The documentation of the method that is called.
        penalty: What makes a penalty of it; `None`: `CodePenalty`.
        method: The one method of an object with weights that is reviewed; `None`: to be found.
        held: The numbers that an object keeps, by name.
        constant: The module and the name of the constant that is λ, if it is one.
    """

    name: str
    thing: Any
    framework: Framework
    signature: Signature
    make: Callable[[Mapping[str, float]], Callable[..., Any]]
    made_with: frozenset[str] = frozenset()
    values: dict[str, float] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    words: str = ""
    penalty: Callable[[Target, Code, Reading], CodePenalty] | None = None
    method: str | None = None
    held: dict[str, float] = field(default_factory=dict)
    constant: tuple[dict[str, Any], str] | None = None

    @contextlib.contextmanager
    def with_decay(self, hyper: Mapping[str, float]) -> Iterator[None]:
        """Let λ have its value of `hyper` where it is a constant of a module."""
        if self.constant is None or "weight_decay" not in hyper:
            yield
            return
        namespace, name = self.constant
        kept = namespace[name]
        namespace[name] = type(kept)(hyper["weight_decay"])
        try:
            with uncompiled():
                yield
        finally:
            namespace[name] = kept

    def sizes_of_batch(self, data: Mapping[str, Any]) -> dict[str, int]:
        """Return the number of samples for each argument that is it, by its name."""
        shaped = [tuple(np.shape(v)) for v in data.values() if not isinstance(v, (list, dict))]
        rows = next((shape[0] for shape in shaped if len(shape) == 2), 5)
        return {n: rows for n in self.signature.required if plain(n) in BATCH_SIZES}

    def takes_layers(self, name: str) -> bool:
        """Return whether an argument is a list, of the activations of each layer."""
        function = source.subject_of(self.thing)
        annotated = str(getattr(function, "__annotations__", {}).get(name, "")).lower()
        return bool(
            re.match(r"(typing\.)?(list|sequence|iterable)\b|<class 'list'>", annotated)
        ) or (inspect.isfunction(function) and source.goes_through(function, name))

    def changeable(self, reading: Reading) -> set[str]:
        """Return which of ρ, β and λ can be given."""
        of_module = {"weight_decay"} if self.constant is not None else set()
        return {*self.made_with, *reading.hyper, *of_module}

    def call(self, reading: Reading, data: Mapping[str, Any], hyper: Mapping[str, Any]) -> Any:
        """Call it with data and hyperparameters, both by role."""
        made_with: dict[str, Any] = {k: v for k, v in hyper.items() if k in self.made_with}
        width = np.shape(next(iter(data.values()), 0))[-1:]
        if reading.kind in ("activations", "means") and width:
            made_with["hidden"] = width[0]
        made = self.make(made_with)
        arguments = bystanders(self.signature.required)
        arguments |= self.sizes_of_batch(data)
        arguments |= {
            reading.data[role]: [value] if self.takes_layers(reading.data[role]) else value
            for role, value in data.items()
        }
        arguments |= {name: hyper[role] for role, name in reading.hyper.items() if role in hyper}
        if all(name in arguments for name in self.signature.required):
            positional = [arguments.pop(name) for name in self.signature.required]
            return made(*positional, **arguments)
        return made(**arguments)


# --- which code


_OF_KERAS = (
    keras.Model,
    keras.layers.Layer,
    keras.losses.Loss,
    keras.regularizers.Regularizer,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
)


def _is_module(subject: Any) -> bool:
    """Whether it is a class of torch modules, without importing torch."""
    return inspect.isclass(subject) and any(
        base.__module__ == "torch.nn.modules.module" for base in subject.__mro__
    )


def framework_of(thing: Any) -> Framework:
    """Return the library that the source of an object computes with.

    Raises:
        CouldNotReviewError: If it is not installed.
    """
    subject = source.subject_of(thing)
    packages = source.packages(thing)
    if _is_module(subject):
        packages = {"torch"}
    for package, name in (
        ("torch", "torch"),
        ("jax", "jax"),
        ("flax", "jax"),
        ("tensorflow", "tensorflow"),
        ("keras", "keras"),
    ):
        if package in packages:
            if not is_installed(name):
                raise CouldNotReviewError(f"it computes with {name}, which is not installed")
            return FRAMEWORKS[name]
    return FRAMEWORKS["numpy"]


OF_TENSORS = r"\bdim=|\.(item|detach|clamp|unsqueeze|expand_as|backward|size)\(|Tensor\b"


def other_frameworks(code: Code) -> list[Framework]:
    """The libraries that its arrays may be of where the source names none: `a.mean(dim=0)`."""
    if source.packages(code.thing) & {"numpy", "torch", "jax", "tensorflow", "keras"}:
        return []
    seen = source.visible_names(source.subject_of(code.thing))
    imported = set(seen.get("__imports__", ())) | {
        str(getattr(value, "__name__", "")).split(".")[0]
        for value in seen.values()
        if inspect.ismodule(value)
    }
    return [FRAMEWORKS[name] for name in ("torch", "jax", "tensorflow") if name in imported]


def is_foreign(thing: Any) -> bool:
    """Whether an object is code that Keras never calls."""
    if isinstance(thing, Method):
        return True
    subject = source.subject_of(thing)
    if inspect.isclass(subject):
        if issubclass(subject, _OF_KERAS):
            return False
        if _is_module(subject) or (thing is not subject and inspect.ismodule(thing)):
            return True
        packages = source.packages(thing)
        computes = bool(packages & {"torch", "jax", "numpy", "tensorflow"})
        members = {name for base in subject.__mro__[:-1] for name in vars(base)}
        is_called = "__call__" in members
        return not is_called or (computes and "keras" not in packages)
    return inspect.isfunction(subject) or callable(thing)


def code_of(
    thing: Any,
    name: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    kind: str | None = None,
) -> Code | None:
    """Return how to call a function or a class; `None`: it takes no data, or is Keras's.

    Args:
        thing: A function, a method, a class or an instance.
        name: What to call it.
        given: What was said of ρ, β and λ.
        settings: Arguments that were said.
        kind: The kind of reading that was said.

    Raises:
        CouldNotReviewError: If it cannot be made.
    """
    if isinstance(thing, Method):
        return _code_of_object(thing.owner, name, given, settings, kind, thing.name)
    if inspect.ismethod(thing) and not inspect.isclass(thing.__self__):
        return _code_of_object(thing.__self__, name, given, settings, kind, thing.__name__)
    subject = source.subject_of(thing)
    if inspect.isclass(subject):
        return _code_of_object(thing, name, given, settings, kind, None)
    signature = signature_of(thing) or signature_of(subject)
    if signature is None:
        return None
    called, given = thing, dict(given)
    made = source.function_returned(subject)
    if made is not None:
        takes_units = any({"activations", "means"} & data_roles(n) for n in signature.required)
        if framework_of(thing).name == "keras" and not takes_units:
            return Code(name, thing, FRAMEWORKS["keras"], signature, lambda _: thing)
        called, signature = _in_a_single_call(thing, signature, made)
    known = constants(thing)
    owner = thing.__self__ if inspect.ismethod(thing) else thing
    if inspect.ismethod(thing):  # of a class
        for role in SYMBOLS:
            attribute = attribute_named(owner, role)
            if attribute is not None:
                known.setdefault(role, (attribute, held_numbers(owner)[attribute]))
    numbers = numbers_of(thing)
    for role, value in given.items():
        if isinstance(value, str) and value not in signature.names and value in numbers:
            known[role] = (value, numbers[value])
    found = readings(subject.__name__, _without(signature, settings), given, known, kind=kind)
    code = Code(name, thing, framework_of(owner), signature, lambda _: _with(called, settings))
    code.signature = _without(signature, settings)
    if states_of(code) or parameters_among(thing, code.signature.required):
        found = [Reading("cost", {}, hyperparameters(code.signature, given, known))]
    code.readings = found
    code.constant = _constant_decay(owner, known, found)
    of_model = _of_a_model_of_the_module(code, given, known)
    code.readings = [*of_model, *found]
    if name.endswith(TRAINING) and not of_model and hasattr(subject, "reviewed_at"):
        raise CouldNotReviewError("the model that the loop trains was not found in the script")
    _values(code, signature.defaults, known, given)
    return code


def _constant_decay(
    thing: Any, known: Mapping[str, tuple[str, float]], found: Iterable[Reading] = ()
) -> tuple[dict[str, Any], str] | None:
    """Where λ is kept as a number of a module that only functions read; `None`: it is not."""
    name = known.get("weight_decay", ("", 0.0))[0]
    if any("weight_decay" in reading.hyper for reading in found):
        return None
    for subject in source.functions(thing):
        namespace = source.module_names(subject)
        file = namespace.get("__reviewed_file__")
        if isinstance(namespace.get(name), float) and file is not None and file.is_only_set(name):
            return namespace, name
    return None


def roles_by_place(signature: Signature, given: Mapping[str, Any]) -> dict[str, str]:
    """Return ρ and β among the arguments of a function that makes a penalty, where no name says.

    >>> roles_by_place(Signature(["rho_star", "w"]), {})
    {'beta': 'w'}
    """
    found = {**{k: v for k, v in given.items() if v}, **hyperparameters(signature, given)}
    data = {name for names in DATA.values() for name in names} - {"target"}
    free = [
        name
        for name in signature.names
        if name not in found.values()
        and plain(name) not in data
        and size_named(name) is None
        and is_number(signature.defaults.get(name, 0.0))
    ]
    return dict(zip((r for r in ("rho", "beta") if r not in found), free, strict=False))


def _in_a_single_call(
    maker: Any, outer: Signature, made: ast.arguments
) -> tuple[Callable[..., Any], Signature]:
    """A function that makes a function, and the call of what it makes, as one function."""
    names = [argument.arg for argument in (*made.posonlyargs, *made.args)]
    required = names[: len(names) - len(made.defaults)]
    inner = dict(zip(names[len(required) :], made.defaults, strict=True))
    values = {n: v.value for n, v in inner.items() if isinstance(v, ast.Constant)}
    all_arguments = Signature(
        [*outer.required, *(n for n in required if n not in outer.names)],
        {**outer.defaults, **{n: v for n, v in values.items() if n not in outer.names}},
    )

    def called(*positional: Any, **more: Any) -> Any:
        given = dict(zip(all_arguments.required, positional, strict=False)) | more
        made = maker(**{n: v for n, v in given.items() if n in outer.names})
        return made(
            *(given[n] for n in required),
            **{n: v for n, v in given.items() if n in values and n not in outer.names},
        )

    return called, all_arguments


def states_of(code: Code) -> list[str]:
    """The arguments whose `apply_fn` the source calls: training states of Flax."""
    return [
        name
        for name in code.signature.required
        if any(plain(read) in APPLIES for read in names_used_of(code.thing, name))
        and plain(name) not in MODEL
    ]


def _of_a_model_of_the_module(
    code: Code, given: Mapping[str, Any], known: Iterable[str]
) -> list[Reading]:
    """How to read a function that computes with a model of its module: it takes a batch."""
    if not any(r.kind in ("activations", "loss", "means") for r in code.readings):
        return []
    if not models_in(code.thing):
        return []
    hyper = hyperparameters(code.signature, given, known)
    aside = {*hyper.values(), *bystanders(code.signature.required)}
    data = [n for n in code.signature.required if n not in aside and plain(n) not in BATCH_SIZES]
    if len(data) == 1:
        return [Reading("model loss", {"x": data[0]}, hyper)]
    if len(data) == 2 and code.readings[0].kind == "loss":
        return [Reading("model loss", {"x": data[0], "y_pred": data[1]}, hyper)]
    return []


def code_of_product(code: Code) -> Code | None:
    """Return how to call what a function of hyperparameters alone returns; `None`: Keras's."""
    named = hyperparameters(code.signature, {})
    values = {
        role: float(code.signature.defaults.get(name, FILLED_IN[role]))
        for role, name in named.items()
    }
    sizes = {
        name: SIZE[size]
        for name, size in sizes_among(code.signature.required).items()
        if name not in named.values()
    }
    if not all(name in named.values() or name in sizes for name in code.signature.required):
        return code

    def make(hyper: Mapping[str, float]) -> Any:
        chosen = {**values, **hyper}
        return code.make({})(**sizes, **{name: chosen[role] for role, name in named.items()})

    try:
        made = make({})
    except Exception as error:
        raise CouldNotReviewError(f"calling it raised {described(error)}") from error
    if made is None or not is_foreign(made) or is_number(made):
        return None
    inner = code_of(made, code.name, {}, {})
    if inner is None or isinstance(made, type):
        return inner
    inner.make, inner.made_with = make, frozenset(named)
    inner.values = {**inner.values, **values}
    return inner


def _without(signature: Signature, settings: Mapping[str, Any]) -> Signature:
    """The arguments that are not said."""
    return Signature(
        [n for n in signature.required if n not in settings],
        {n: v for n, v in signature.defaults.items() if n not in settings},
    )


def _with(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
    if not settings:
        return function
    return lambda *data, **more: function(*data, **{**settings, **more})


def _values(
    code: Code,
    defaults: Mapping[str, Any],
    known: Mapping[str, tuple[str, float]],
    given: Mapping[str, Any],
    others: Iterable[str] = (),
) -> None:
    """Find the values of ρ, β and λ: said, a default, a constant; else one is chosen."""
    named = {role: name for r in reversed(code.readings) for role, name in r.hyper.items()}
    for role, symbol in SYMBOLS.items():
        value_or_name = given.get(role)
        there = [*code.signature.names, *(where for where, _ in known.values()), *others]
        if isinstance(value_or_name, str) and value_or_name not in there:
            raise CouldNotReviewError(
                f"{code.name} has no argument {value_or_name!r} to be {role}; "
                f"it has {', '.join(dict.fromkeys(filter(None, there))) or 'none'}"
            )
        if is_number(value_or_name):
            code.values[role] = float(value_or_name)
        elif role in named:
            default = defaults.get(named[role])
            code.values[role] = float(default) if is_number(default) else FILLED_IN[role]
            if value_or_name is None:
                code.guesses.append(f"{symbol} is `{named[role]}` (guessed from its name)")
        elif role in known and role not in code.values:
            where, value = known[role]
            code.values[role] = value
            code.guesses.append(f"{symbol} = {value:g} (`{where}`)")


def _kept_by_layer(instance: Any) -> str | None:
    """The attribute in which a torch layer keeps its penalty, where it returns its input."""
    from sae_oracle.reviewer import costs

    if module_of(instance) is not None:
        return next(iter(costs.scalar_attributes(instance)), None)
    x = FRAMEWORKS["torch"].tensor(probes("activations")[0]).requires_grad_()
    try:
        returned = instance(x)
    except Exception:
        return None
    if tuple(getattr(returned, "shape", ())) != tuple(x.shape):
        return None
    return next(iter(costs.scalar_attributes(instance)), None)


def _has_kernels(instance: Any) -> bool:
    """Whether an object holds kernels: a torch module, or one of NumPy arrays."""
    from sae_oracle.reviewer import costs

    module = module_of(instance)
    if module is not None:
        return sum(len(p.shape) == 2 for _, p in module.named_parameters()) > 1 or not _keeps(
            instance
        )
    return sum(len(shape) == 2 for shape in costs.weights_of(instance).values()) > 1


def _has_images(instance: Any) -> bool:
    """Whether a torch module holds kernels of images, which its `forward` then takes."""
    return _is_module(type(instance)) and any(len(p.shape) > 2 for p in instance.parameters())


def _keeps(instance: Any) -> bool:
    """Whether a torch layer of one kernel keeps or returns a penalty: it is no autoencoder."""
    from sae_oracle.reviewer import costs

    (kernel, *_) = [p for _, p in instance.named_parameters() if len(p.shape) == 2]
    try:
        returned = instance(FRAMEWORKS["torch"].tensor(np.full((4, kernel.shape[1]), 0.5)))
    except Exception:
        return False
    width = getattr(returned, "shape", (0,))[-1]
    return bool(width == kernel.shape[0] and costs.scalar_attributes(instance))


_LOGITS = {"logits", "logit", "preactivations", "preactivation", "preact", "preacts"}
METHOD_WORDS = ("kl", "spars", "penal", "regular", "loss", "cost", "diverg", "objective")


def methods_of(subject: type) -> list[str]:
    """The methods of a class that may compute a penalty or a cost, the likeliest first."""
    found = []
    for base in subject.__mro__:
        if base.__module__ != subject.__module__:
            continue
        for name, member in vars(base).items():
            function = getattr(member, "__func__", member)
            if not inspect.isfunction(function) or (name.startswith("__") and name != "__call__"):
                continue
            if name not in found:
                found.append(name)

    def rank(name: str) -> tuple[int, int]:
        word = next((k for k, w in enumerate(METHOD_WORDS) if w in name.lower()), len(METHOD_WORDS))
        return word, found.index(name)

    return sorted(found, key=rank)


def made_instance(
    owner: Any, name: str, given: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, float]], Any], Any, dict[str, str], dict[str, float], list[str]]:
    """Return how to make an instance of a class with other ρ, β and λ; and what is known of them.

    Returns:
        A function of the values by role; an instance; the argument that is each of ρ, β, λ; their
        values; guesses in words.

    Raises:
        CouldNotReviewError: If it cannot be made.
    """
    guesses: list[str] = []
    named: dict[str, str] = {}
    values: dict[str, float] = {}
    if not inspect.isclass(owner):
        instance = owner

        def make(hyper: Mapping[str, float]) -> Any:
            return owner

    else:
        signature = signature_of(owner) or Signature()
        if owner.__init__ is object.__init__:
            signature = Signature()
        unknown = [k for k in settings if k not in signature.names]
        if unknown and not _takes_anything(owner):
            raise CouldNotReviewError(
                f"{name} has no argument {unknown[0]!r}; "
                f"it has {', '.join(signature.names) or 'none'}"
            )
        known = constants(owner)
        named = hyperparameters(_without(signature, settings), given, known)
        fixed = dict(settings)
        sizes = sizes_among(signature.required)
        configurations: dict[str, ConfigurationOf] = {}
        for argument in signature.required:
            role = next((r for r, n in named.items() if n == argument), None)
            size = sizes.get(argument)
            held = fixed.get(argument)
            if (held is None or isinstance(held, dict)) and is_configuration(owner, argument):
                configuration = ConfigurationOf(owner, argument, fixed.pop(argument, None))
                configurations[argument] = configuration
                named = {r: n for r, n in named.items() if n != argument}
                for inner, name_there in configuration.named.items():
                    values[inner] = configuration.values[inner]
                    guesses.append(f"{SYMBOLS[inner]} is `{argument}.{name_there}`")
                continue
            if argument in fixed:
                continue
            if role is not None:
                values[role] = FILLED_IN[role]
                guesses.append(f"`{argument}` was not set: {values[role]} is used")
            elif size is not None:
                fixed[argument] = SIZE[size]
            else:
                fixed[argument] = stand_in_for(owner, argument)
                if fixed[argument] is None:
                    raise CouldNotReviewError(
                        f"what the argument `{argument}` of {name} is cannot be told from its "
                        f'name: set it (--set {argument}=VALUE, such as 0.1 or "[6, 5, 6]")'
                    )
        for role, argument in named.items():
            default = signature.defaults.get(argument)
            if is_number(default):
                values[role] = float(default)
            if is_number(given.get(role)):
                values[role] = float(given[role])
            if given.get(role) is None:
                guesses.append(f"{SYMBOLS[role]} is `{argument}` (guessed from its name)")
        of_arguments = dict(named)
        of_units = [n for n, size in sizes.items() if size == "hidden" and n not in settings]

        def make(hyper: Mapping[str, float]) -> Any:
            chosen = {**values, **hyper}
            units = [n for n in of_units if n in fixed and "hidden" in hyper]
            made = owner(
                **{**fixed, **dict.fromkeys(units, hyper.get("hidden"))},
                **{n: configuration.make(chosen) for n, configuration in configurations.items()},
                **{
                    argument: chosen[role]
                    for role, argument in of_arguments.items()
                    if role in chosen
                },
            )
            if prepare is not None:
                prepare(made)
            return made

        prepare = None
        try:
            instance = make({})
        except Exception as error:
            raise CouldNotReviewError(
                f"making it raised {described(error)}; set its arguments (--set NAME=VALUE)"
            ) from error
        if not _is_module(owner) and not _has_kernels(instance):
            prepare = preparation_of(lambda: make({}), framework_of(owner).tensor)
        if prepare is not None:
            prepare(instance)
        named = named | {r: n for c in configurations.values() for r, n in c.named.items()}
    of_others = {plain(argument) for argument in named.values()}
    for role in SYMBOLS:
        if role not in values:
            attribute = attribute_named(instance, role, given.get(role))
            if attribute is not None and plain(attribute) not in of_others:
                values[role] = held_numbers(instance)[attribute]
                guesses.append(f"{SYMBOLS[role]} = {values[role]:g} (`self.{attribute}`)")
        if is_number(given.get(role)):
            values[role] = float(given[role])
    return make, instance, named, values, guesses


def _takes_anything(owner: Any) -> bool:
    try:
        parameters = inspect.signature(owner).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def attribute_named(instance: Any, role: str, value_or_name: Any = None) -> str | None:
    """Return the attribute of an instance that holds ρ, β or λ, by its name."""
    held = held_numbers(instance)
    numbers = {plain(name.rpartition(".")[2]): name for name in reversed(held)}
    if isinstance(value_or_name, str):
        return value_or_name if value_or_name in held else None
    others = [short for short in numbers if sounds_like(short) == role]
    for candidate in (*HYPERPARAMETERS[role], *others):
        name = numbers.get(candidate)
        if name is not None and (role != "rho" or 0.0 < held[name] < 1.0):
            return name
    return None


def held_numbers(instance: Any) -> dict[str, float]:
    """The numbers that an object, or a configuration that it holds, has by name."""
    classes = instance.__mro__ if inspect.isclass(instance) else type(instance).__mro__
    held: dict[str, Any] = {}
    for base in reversed(classes[:-1]):
        held |= {k: v for k, v in vars(base).items() if is_number(v)}
    if not inspect.isclass(instance):
        held |= dict(getattr(instance, "__dict__", {}))
        held |= dict(held.get("_buffers", {}))
    for name, value in list(held.items()):
        if name.lower().strip("_") in ("cfg", "config", "conf", "hparams", "hp", "args", "opt"):
            inner = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
            held |= {f"{name}.{key}": item for key, item in inner.items()}
    numbers = {name: value for name, value in held.items() if is_number(value)}
    return {
        name: float(value.detach() if hasattr(value, "detach") else value)
        for name, value in numbers.items()
    }


def _method_of(instance: Any, names: Sequence[str], known: Mapping[str, float]) -> str | None:
    """The method that says most: a whole cost, then a loss, then a penalty."""
    ranks = {"cost": 0, "training loss": 1, "activations": 2}
    best: tuple[int, str] | None = None
    for name in names:
        if not any(word in name.lower() for word in METHOD_WORDS) and best is not None:
            continue
        signature = signature_of(getattr(instance, name)) or Signature()
        found = readings(name, signature, {}, known)
        rank = ranks.get(found[0].kind, 3) if found else 4
        if best is None or rank < best[0]:
            best = rank, name
    return None if best is None else best[1]


def is_of_data(method: Any) -> bool:
    """Whether a method takes one batch of data, and not activations."""
    signature = signature_of(method) or Signature()
    found = readings("", signature, {}, tuple(SYMBOLS))
    data = list(found[0].data.values()) if found else []
    return len(data) == 1 and plain(data[0]) in {*DATA["y_true"], *LOADERS}


def _code_of_object(
    owner: Any,
    name: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    kind: str | None,
    method: str | None,
) -> Code | None:
    make, instance, named, values, guesses = made_instance(owner, name, given, settings)
    subject = source.subject_of(owner)
    if _has_kernels(instance) and (method is None or is_of_data(getattr(instance, method))):
        is_module = module_of(instance) is not None
        known = constants(owner)
        for role, (where, value) in known.items():
            if role not in values and role not in named:
                values[role] = value
                guesses.append(f"{SYMBOLS[role]} = {value:g} (`{where}`)")
        return Code(
            name,
            owner,
            FRAMEWORKS["torch"] if is_module else framework_of(owner),
            Signature(),
            make,
            frozenset(named),
            values,
            [Reading("network", {}, {})],
            guesses,
            method=method,
            constant=None if "weight_decay" in named else _constant_decay(owner, known),
        )
    if method is None and _has_images(instance):
        names = [name for name in methods_of(subject) if name not in ("forward", "__call__")]
        method = _method_of(instance, names, values)
    if method is None:
        if "forward" in methods_of(subject) or (_is_module(subject) and not methods_of(subject)):
            method = "forward"
        elif "__call__" in methods_of(subject):
            method = "__call__"
        else:
            method = _method_of(instance, methods_of(subject), values)
    if method is None:
        raise CouldNotReviewError(f"{name} has no method that computes anything")
    bound = getattr(instance, method)
    signature = signature_of(bound) or Signature()
    if method not in ("forward", "__call__") and not _reads(bound, make, "beta", values):
        named = {role: n for role, n in named.items() if role != "beta"}
        values = {role: v for role, v in values.items() if role != "beta"}
        guesses = [words for words in guesses if not words.startswith(SYMBOLS["beta"])]
    known = {**{role: ("", value) for role, value in values.items()}}
    for role, constant in constants(owner).items():
        known.setdefault(role, constant)
    from sae_oracle.reviewer import costs

    is_forward = method in ("forward", "__call__")
    found = readings(
        f"{subject.__name__} {method}", signature, given, known, is_forward=is_forward, kind=kind
    )

    hook, names_of_hook = _as_a_hook(signature), signature.required
    if hook is not None:
        found = [Reading("activations", {"activations": hook}, {})]
    attribute = _kept_by_layer(instance) if method == "forward" else None

    def bind(hyper: Mapping[str, float]) -> Callable[..., Any]:
        made = make(hyper)
        if attribute is not None:

            def kept(*data: Any, **more: Any) -> Any:
                if module_of(made) is None:
                    made(*data, **more)
                    return getattr(made, attribute)
                layer, fed = costs.identity_layer(owner, made, *data)
                layer(fed)
                return getattr(layer, attribute)

            return kept
        bound: Callable[..., Any] = made if is_forward and callable(made) else getattr(made, method)
        if hook is None:
            return bound

        def caught(output: Any) -> Any:
            given = {n: output if n == hook else None for n in names_of_hook}
            returned = bound(**given)
            return _scalar_kept(made) if returned is None else returned

        return caught

    if hook is not None:
        signature = Signature([hook])
    code = Code(name, owner, framework_of(owner), signature, bind, frozenset(named), dict(values))
    code.readings = found
    code.guesses = guesses
    code.held = held_numbers(instance)
    code.words = inspect.getdoc(bound) or ""
    if attribute is not None:
        code.guesses.append(f"its `{attribute}` is reviewed")
    if method not in ("forward", "__call__"):
        code.guesses.append(f"its method `{method}` is reviewed")
    others = [*(signature_of(owner) or Signature()).names] if inspect.isclass(owner) else []
    others += [name for name in held_numbers(instance) if not name.startswith("_")]
    _values(code, signature.defaults, {k: v for k, v in known.items() if v[0]}, given, others)
    return code


def _reads(method: Any, make: Callable[..., Any], role: str, values: Mapping[str, float]) -> bool:
    """Whether a method, or what it calls, names in its source what an object keeps of ρ, β or λ."""
    if role not in values:
        return True
    before, after = (held_numbers(make({role: k * values[role]})) for k in (1.0, 2.0))
    kept = [name.partition(".")[0] for name in after if before.get(name) != after[name]]
    text = source.text_of(method)
    return not kept or any(re.search(rf"\.{re.escape(name)}\b", text) for name in kept)


def _as_a_hook(signature: Signature) -> str | None:
    """The output among the arguments of a forward hook, `(module, inputs, output)`; else `None`."""
    if len(signature.required) != 3:
        return None
    module, inputs, output = (plain(n) for n in signature.required)
    is_hook = module in ("module", "layer", "m", "mod", "self", "model") and (
        inputs.startswith("in") or inputs in ("i", "x")
    )
    return signature.required[2] if is_hook and output.startswith("o") else None


def _scalar_kept(instance: Any) -> Any:
    """What an object keeps as one number with a gradient; else the last list's last item."""
    from sae_oracle.reviewer import costs

    names = costs.scalar_attributes(instance)
    if names:
        return getattr(instance, names[0])
    numbers = [v for v in vars(instance).values() if hasattr(v, "shape") and not v.shape]
    lists = [v for v in vars(instance).values() if isinstance(v, list) and v]
    return numbers[-1] if numbers else (lists[-1].pop() if lists else None)


# --- penalties


class CodePenalty(Penalty):
    """A function of activations, or of their means, as a penalty.

    Args:
        target: What is reviewed.
        code: How it is called.
        reading: Which argument is what; of kind "activations" or "means".
        divided: Whether the value is divided by the batch size before it reaches the loss.
    """

    def __init__(self, target: Target, code: Code, reading: Reading, divided: bool = False) -> None:
        self.target = target
        self.is_layer = self.attached = False
        self.divided = divided
        self.returns_numbers = None
        self.of_keras = False
        self.input_kind = ""
        self.code = code
        self.reading = reading
        self.has_gradients = code.framework.name != "numpy"
        self.passes: str = ""
        self.returned = ""
        self.uncertainty = 0.0
        self.columns = source.samples_are_columns(target.words)
        self.of_images: tuple[int, int] | None = None
        if plain(reading.data.get("activations", "")) in _LOGITS:
            self.input_kind = "logits"

    @property
    def kind(self) -> str:
        """What it is a function of."""
        return self.reading.kind

    def make(self, rho: float, beta: float, units: int | None = None) -> Any:
        """Not made: it is called."""
        raise NotImplementedError

    def rates(self) -> dict[str, float]:
        """Return the numbers that an object keeps: a share of a running average may be one."""
        known = [self.code.values.get(role) for role in ("rho", "beta")]
        return {n: v for n, v in self.code.held.items() if 0.0 < v < 1.0 and v not in known}

    def state(self, rho: float, beta: float) -> list[str]:
        """A function holds none that matters here."""
        return []

    def check_returned(self, rho: float, beta: float) -> None:
        """Find out how ρ has to be passed: a number, a tensor, a vector, or all by scalars."""
        x = probes("activations")[0]
        first: Exception | None = None
        images = source.axis_left(self.code.thing) if self.kind == "activations" else None
        for self.of_images, self.passes in itertools.product(
            dict.fromkeys((None, images)), ("number", "tensor", "vector", "scalars")
        ):
            try:
                self.value(x, rho, beta)
            except ShapeError:
                raise
            except Exception as error:
                first = first or error
                continue
            return
        assert first is not None
        raise first

    def _argument(self, x: Any) -> Any:
        if self.kind == "means":
            return np.mean(x, axis=0)
        if self.of_images is not None:
            self.returned = ONE_PIXEL
            return np.reshape(x, source.of_one_pixel(x.shape[1], *self.of_images))
        return np.asarray(x).T if self.columns else np.asarray(x)

    def _raw(self, data: Any, rho: float, beta: float) -> Any:
        hyper: dict[str, Any] = {"rho": rho, "beta": beta}
        if "weight_decay" in self.code.values:
            hyper["weight_decay"] = self.code.values["weight_decay"]
        if self.passes in ("tensor", "vector") and "rho" in self.reading.hyper:
            shape = np.shape(data)[-1:] if self.passes == "vector" else ()
            hyper["rho"] = self.code.framework.tensor(np.full(shape, rho))
        given = [data] if "list" in self.reading.data[self.kind].lower() else data
        return self.code.call(self.reading, {self.kind: given}, hyper)

    def each(self, means: Any, rho: float) -> Any:
        """Return what it returns for means, as it is."""
        with quietly():
            data = self.code.framework.tensor(means)
            return self.code.framework.array(picked(self._raw(data, rho, 1.0)))

    def _scalar(self, data: Any, rho: float, beta: float) -> Any:
        """What it returns, as one number of its library."""
        framework = self.code.framework
        if self.passes == "scalars" and self.kind == "means":
            parts = [self._raw(data[j], rho, beta) for j in range(len(data))]
            self.returned = "the function takes one unit: the sum over units is reviewed"
            return sum(parts[1:], parts[0])
        value = picked(self._raw(data, rho, beta))
        if value is None:
            raise ShapeError("None")
        shape = tuple(np.shape(value)) if not hasattr(value, "shape") else tuple(value.shape)
        if shape in ((), (1,)):
            return value if shape == () else framework.total(value)
        self.returned = f"it returns an array of shape {shape}: its sum is reviewed"
        if len(shape) == 2 and shape == tuple(np.shape(data)) and self.kind != "means":
            self.returned = f"{EACH_ACTIVATION}: the mean over samples is reviewed"
            return framework.total(value) / shape[0]
        return framework.total(value)

    def in_loss(self, x: Any, rho: float, beta: float) -> tuple[float, Any]:
        """Return the number that reaches the loss, and the activations that it is about."""
        value = self.value(x, rho, beta)
        return (value / x.shape[0] if self.divided else value), x

    def value(self, x: Any, rho: float, beta: float) -> float:
        """Return the value."""
        with quietly():
            result = self._scalar(self.code.framework.tensor(self._argument(x)), rho, beta)
            array = self.code.framework.array(result)
        if array.size != 1:
            raise ShapeError(f"shape {array.shape}")
        return float(array.reshape(()))

    def twice(self, x: Any, other: Any, rho: float, beta: float) -> tuple[float, float]:
        """Return the value, and again after another input."""
        made, make = {}, self.code.make

        def kept(hyper: Mapping[str, float]) -> Callable[..., Any]:
            key = tuple(sorted(hyper.items()))
            if key not in made:
                made[key] = make(hyper)
            return made[key]

        self.code.make = kept
        try:
            first = self.value(x, rho, beta)
            self.value(other, rho, beta)
            return first, self.value(x, rho, beta)
        finally:
            self.code.make = make

    def gradient(self, x: Any, rho: float, beta: float) -> Any:
        """Return the derivative by each element of `x`; by differences where there is no other."""
        argument = self._argument(x)
        found = None
        if self.has_gradients:
            with quietly():
                found = self.code.framework.gradients(
                    lambda t: self._scalar(t, rho, beta), [argument]
                )
        gradient = self._differences(argument, rho, beta) if found is None else found[0]
        if self.kind == "means":
            return np.broadcast_to(gradient / x.shape[0], x.shape)
        if self.of_images is not None:
            return np.reshape(gradient, x.shape)
        return gradient.T if self.columns else gradient

    def _differences(self, argument: Any, rho: float, beta: float) -> Any:
        """Differences over steps so small that they stay on one side of any clip."""
        step = 2.0**-40
        gradient = np.zeros(argument.shape)
        for index in np.ndindex(*argument.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = np.array(argument)
                moved[index] += sign * step
                framework = self.code.framework
                with quietly():
                    value = framework.array(self._scalar(framework.tensor(moved), rho, beta))
                values.append(float(np.reshape(value, ())))
            gradient[index] = (values[0] - values[1]) / (2.0 * step)
        return gradient


WHOLE = ("total", "loss", "cost", "objective", "j")


def picked(value: Any, words: Sequence[str] = ("kl", "spars", "penal", "loss", "cost")) -> Any:
    """Return the number among what was returned: of a tuple the first, of a dictionary by name."""
    if isinstance(value, dict):
        for word in words:
            for key, item in value.items():
                if word in str(key).lower():
                    return item
        return next(iter(value.values()), None)
    if isinstance(value, (tuple, list)) and value:
        flat = [v for v in value if not isinstance(v, (tuple, list, dict))]
        scalars = [v for v in flat if tuple(getattr(v, "shape", ())) in ((), (1,))]
        return scalars[0] if scalars else value[0]
    return value


def native_penalty(target: Target, divided: bool) -> CodePenalty | None:
    """Return a regularizer that calls another backend's own functions, run on that backend.

    `None` where it calls none, or where that backend is not installed.
    """
    if target.kind != "regularizer":
        return None
    bound = {name for name in source.bound_to(target.thing) if is_installed(name)}
    if len(bound) != 1:
        return None
    reading = Reading("activations", {"activations": "x"}, {})
    code = Code(
        target.name,
        target.thing,
        FRAMEWORKS[bound.pop()],
        Signature(["x"]),
        lambda hyper: target.build(**hyper),
        frozenset({"rho", "beta"} & set(target.parameter)),
        dict(target.values),
        [reading],
    )
    penalty = CodePenalty(target, code, reading, divided)
    if source.calls_keras(target.thing):  # whose gradient is that of the backend in use
        penalty.has_gradients = False
    return penalty
