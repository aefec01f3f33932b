"""What stands for an argument that has no default and was not said: a configuration, a model."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sae_oracle.reviewer import source
from sae_oracle.reviewer.evaluation import quietly
from sae_oracle.reviewer.frameworks import is_installed
from sae_oracle.reviewer.reading import (
    DATA,
    MODEL,
    Signature,
    hyperparameters,
    is_number,
    is_parameters,
    plain,
    signature_of,
    size_named,
    sizes_among,
    weight_named,
    words,
)
from sae_oracle.reviewer.target import CouldNotReviewError

SIZE = {"visible": 6, "hidden": 5}
FILLED_IN = {"rho": 0.1, "beta": 3.0, "weight_decay": 1e-2}

CONFIGURATIONS = words(
    "config cfg conf configuration args arg opt opts option options hparams hparam hp hps "
    "hyperparams hyperparameters settings params parameters flags"
)

# Values of what a configuration may hold beside sizes, ρ, β and λ; no term depends on them.
_OTHERS: dict[str, Any] = {
    **dict.fromkeys(("lr", "learningrate", "eta", "dropout", "noise", "std", "initstd"), 0.0),
    **dict.fromkeys(("epochs", "nepochs", "numepochs", "seed", "step", "numworkers"), 1),
    **dict.fromkeys(("batchsize", "batch", "bs"), 4),
    **dict.fromkeys(("activation", "act", "hiddenactivation", "nonlinearity"), "sigmoid"),
    **dict.fromkeys(("bias", "usebias"), True),
    **dict.fromkeys(("cuda", "usecuda", "verbose", "debug", "tied", "tieweights", "usegpu"), False),
    "device": "cpu",
    "name": "reviewed",
}
_SIZES_IN_A_LIST = (
    "sizes layers layersizes dims layerdims units hiddensizes architecture shape widths topology"
)


class Configuration(dict[str, Any]):
    """Named values, as attributes or by subscripts, as a namespace of argparse or a dictionary."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ConfigurationOf:
    """How to make the configuration that an argument takes, with other values of ρ, β and λ.

    Args:
        owner: The class whose argument it is.
        argument: The argument.
        said: Values that were said.

    Raises:
        CouldNotReviewError: If what one of its values is cannot be told from the name.
    """

    def __init__(self, owner: Any, argument: str, known: Mapping[str, Any] | None = None) -> None:
        annotated = _annotation(owner, argument)
        self._type = annotated if inspect.isclass(annotated) and _is_plain(annotated) else None
        signature = Signature()
        if self._type is not None:
            signature = signature_of(self._type) or signature
        else:
            used = names_used_of(owner, argument)
            signature.defaults = {n: v for n, v in used.items() if is_number(v)}
            signature.required = [n for n in used if n not in signature.defaults]
        self.named = hyperparameters(signature, {})
        self.values: dict[str, float] = {}
        for role, name in self.named.items():
            default = signature.defaults.get(name)
            self.values[role] = float(default) if is_number(default) else FILLED_IN[role]
        sizes = sizes_among(signature.names)
        self._fixed: dict[str, Any] = {}
        for name in signature.required:
            if name in self.named.values():
                continue
            size = sizes.get(name)
            value = SIZE[size] if size else _OTHERS.get(plain(name))
            if value is None and plain(name) not in _OTHERS and name not in (known or {}):
                raise CouldNotReviewError(
                    f"what `{argument}.{name}` is cannot be told from its name: say it "
                    f"(--set {argument}=\"{{'{name}': 5}}\")"
                )
            self._fixed[name] = value
        self._fixed |= known or {}

    def make(self, values: Mapping[str, float]) -> Any:
        """Return a configuration with these values of ρ, β and λ."""
        chosen = {name: values[role] for role, name in self.named.items() if role in values}
        if self._type is not None:
            return self._type(**{**self._fixed, **chosen})
        return Configuration({**self._fixed, **chosen})


def is_configuration(owner: Any, argument: str) -> bool:
    """Whether an argument is an object whose attributes or items are values."""
    annotated = _annotation(owner, argument)
    if inspect.isclass(annotated) and _is_plain(annotated):
        return True
    return plain(argument) in CONFIGURATIONS or plain(argument).endswith(("config", "args", "cfg"))


def _annotation(owner: Any, argument: str) -> Any:
    function = owner.__init__ if inspect.isclass(owner) else owner
    try:
        return typing.get_type_hints(function).get(argument)
    except Exception:
        return getattr(function, "__annotations__", {}).get(argument)


def _is_plain(annotated: Any) -> bool:
    """Whether a class is one of the user's own that only holds values."""
    if annotated.__module__.split(".")[0] in ("builtins", "typing", "torch", "keras", "argparse"):
        return False
    methods = [m for n, m in vars(annotated).items() if inspect.isfunction(m) and n[:2] != "__"]
    return hasattr(annotated, "__dataclass_fields__") or not methods


def names_used_of(owner: Any, argument: str) -> dict[str, Any]:
    """Return the attributes and items of an argument that the source reads, with their defaults."""
    found: dict[str, Any] = {}
    for subject in source.functions(owner):
        tree = source.tree_of(subject)
        kept = {argument, f"self.{argument}"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.value) == argument:
                kept |= {ast.unparse(target) for target in node.targets}
        for node in ast.walk(tree):
            name, default = _read_from(node, kept)
            if name is not None and (name not in found or found[name] is None):
                found[name] = default
    return found


def parameters_among(owner: Any, arguments: Sequence[str]) -> str | None:
    """Return the argument that holds kernels, by the attributes and items that are read of it."""
    for name in arguments:
        if len({"W1", "W2"} & {weight_named(read) for read in names_used_of(owner, name)}) == 2:
            return name
    return None


def _read_from(node: ast.AST, kept: set[str]) -> tuple[str | None, Any]:
    """The name that an expression reads from one of the expressions `kept`, and its default."""
    if isinstance(node, ast.Call):
        of_get = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        of_getattr = isinstance(node.func, ast.Name) and node.func.id == "getattr"
        if of_get and node.args and ast.unparse(node.func.value) in kept:  # type: ignore[attr-defined]
            arguments = node.args
        elif of_getattr and len(node.args) > 1 and ast.unparse(node.args[0]) in kept:
            arguments = node.args[1:]
        else:
            return None, None
        if isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str):
            default = arguments[1] if len(arguments) > 1 else None
            return arguments[0].value, getattr(default, "value", None)
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in kept:
        return (None if node.attr in ("get", "items", "keys") else node.attr), None
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in kept:
        key = getattr(node.slice, "value", None)
        return (key if isinstance(key, str) else None), None
    return None, None


def stand_in_for(owner: Any, argument: str) -> Any:
    """Return what stands for an argument of a constructor; `None`: its name does not say what."""
    name = plain(argument)
    if name in _OTHERS:
        return _OTHERS[name]
    if name in _SIZES_IN_A_LIST.split():
        return [SIZE["visible"], SIZE["hidden"], SIZE["visible"]]
    if "torch" not in source.packages(owner) or not is_installed("torch"):
        return None
    import torch

    if name in MODEL:
        for made in own_models(owner):
            return made
        return stand_in_model("output, hidden")
    if name.endswith(("layer", "module")):
        return torch.nn.Identity()
    if name in ("criterion", "lossfn", "lossfunction", "mse", "reconloss", "reconstructionloss"):
        return torch.nn.MSELoss()
    return None


def own_models(thing: Any) -> list[Any]:
    """Return an instance of each class of models that the file of an object defines."""
    file = source.visible_names(source.subject_of(thing)).get("__reviewed_file__")
    if file is None:
        return []
    made = []
    for name in file.classes():
        held = file.obtained(name)
        if not inspect.isclass(held) or not is_model(held) or held is source.subject_of(thing):
            continue
        make: Any = held
        signature = signature_of(held) or Signature()
        sizes = sizes_among(signature.required)
        try:
            if all(n in sizes for n in signature.required):
                made.append(make(**{n: SIZE[sizes[n]] for n in signature.required}))
            elif len(signature.required) == 1 and is_configuration(held, signature.required[0]):
                (argument,) = signature.required
                made.append(make(ConfigurationOf(held, argument).make({})))
        except Exception:
            continue
    return made


def is_model(thing: Any) -> bool:
    """Whether a class or an instance is a model of torch or Keras, without importing either."""
    subject = thing if inspect.isclass(thing) else type(thing)
    bases = {f"{base.__module__}.{base.__name__}" for base in subject.__mro__}
    return "torch.nn.modules.module.Module" in bases or "keras.src.models.model.Model" in bases


def module_of(instance: Any) -> Any:
    """Return the torch module that an object is or holds: the first with a kernel, or `None`."""
    held = [instance, *getattr(instance, "__dict__", {}).values()]
    for module in held:
        parameters = getattr(module, "named_parameters", None)
        if not callable(parameters) or inspect.isclass(module):
            continue
        if any(len(p.shape) == 2 for _, p in parameters()):
            return module
    return None


_COUNTS = words("epochs nepochs numepochs maxepochs maxiter niter numiter iterations maxiterations")
_TRAINS = re.compile(r"fit|train|run|learn|optimi")


def preparation_of(
    make: Callable[[], Any], tensor: Callable[[Any], Any]
) -> Callable[[Any], None] | None:
    """Return what makes an object's weights where a method of its own does, and not `__init__`.

    `init_weights(n_features)`, or else `fit(X)` for one epoch; `None`: there is no such method.

    Args:
        make: Makes the object.
        tensor: Makes an array of its library of one of NumPy.
    """
    subject = type(make())
    methods = {
        name: method
        for base in subject.__mro__
        if base.__module__ == subject.__module__
        for name, method in vars(base).items()
        if inspect.isfunction(method) and name != "__init__"
    }
    making = {name for name, method in methods.items() if _makes_weights(method)}
    ways = []
    for name in methods if making else ():
        arguments = _data_or_sizes(methods[name], tensor)
        if arguments is not None and (name in making or _TRAINS.search(name)):
            ways.append((bool(_TRAINS.search(name)), len(arguments), name, arguments))
    for _, _, name, arguments in sorted(ways, key=lambda way: way[:3]):

        def prepare(made: Any, name: str = name, given: dict[str, Any] = arguments) -> None:
            for held in [n for n in vars(made) if plain(n) in _COUNTS]:
                setattr(made, held, 1)
            with quietly():
                getattr(made, name)(**given)

        with contextlib.suppress(Exception):
            prepare(make())
            return prepare
    return None


def _makes_weights(method: Any) -> bool:
    """Whether a method binds an attribute that is named as a kernel, or as all parameters."""
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and (weight_named(node.attr) in ("W1", "W2") or is_parameters(node.attr))
        for node in ast.walk(source.tree_of(method))
    )


def _data_or_sizes(method: Any, tensor: Callable[[Any], Any]) -> dict[str, Any] | None:
    """Values for the arguments of a method, all of them data or sizes; `None`: they are not."""
    arguments: dict[str, Any] = {}
    for name in (signature_of(method) or Signature()).required[1:]:
        size = size_named(name)
        if plain(name) in DATA["y_true"]:
            generator = np.random.default_rng(4)
            arguments[name] = tensor(generator.uniform(0.1, 0.9, (7, SIZE["visible"])))
        elif size is not None:
            arguments[name] = SIZE[size]
        else:
            return None
    return arguments


class ModuleOfWeights:
    """A function's module as an object that holds kernels and biases by their names."""

    def __init__(self, held: dict[str, Any]) -> None:
        self.__dict__ = held


def models_in(thing: Any) -> list[Any]:
    """Return the models that the source of a function uses by a name of its module.

    Two kernels there are a model too, `ModuleOfWeights`; and so are an encoder and a decoder by
    themselves, of torch or Keras, in the order in which they are used.
    """
    found: list[Any] = []
    layers: list[Any] = []
    kernels: set[str] = set()
    for subject in source.functions(thing):
        seen = source.visible_names(subject)
        for name in source.names_of(subject):
            value = seen.get(name)
            if value is None or inspect.isclass(value) or inspect.ismodule(value):
                continue
            is_of_torch = hasattr(value, "named_parameters")
            if is_model(value) and (not is_of_torch or module_of(value) is not None):
                found.append(value)
            elif any(b.__module__ == "keras.src.layers.layer" for b in type(value).__mro__):
                layers.append(value)
            if hasattr(value, "dtype") and len(getattr(value, "shape", ())) == 2:
                kernels |= {name} if weight_named(name) in ("W1", "W2") else set()
    found = list({id(value): value for value in found}.values())
    if len(layers) > 1:
        import keras

        found.append(keras.Sequential(list({id(layer): layer for layer in layers}.values())))
    parts = [part for part in found if hasattr(part, "named_parameters")]
    if len(parts) > 1:
        import torch

        found.append(torch.nn.ModuleList(parts))
    function = source.subject_of(thing)
    if len(kernels) > 1 and inspect.isfunction(function):
        found.append(ModuleOfWeights(function.__globals__))
    return found


def stand_in_model(returns: str) -> Any:
    """Return a small torch autoencoder, for a loss that takes the model as an argument.

    Args:
        returns: What its forward returns: "output", "output, hidden" or "hidden, output".
    """
    import torch
    from torch import nn

    class StandIn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(SIZE["visible"], SIZE["hidden"]), nn.Sigmoid())
            self.decoder = nn.Sequential(nn.Linear(SIZE["hidden"], SIZE["visible"]), nn.Sigmoid())

        def encode(self, x: Any) -> Any:
            return self.encoder(x)

        def decode(self, h: Any) -> Any:
            return self.decoder(h)

        def forward(self, x: Any) -> Any:
            hidden = self.encoder(x)
            return answered(returns, self.decoder(hidden), hidden)

    torch.manual_seed(0)
    return StandIn()


def stand_in_of_keras(returns: str) -> Any:
    """Return the same of Keras layers."""
    import keras

    class StandIn(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.layers.Dense(SIZE["hidden"], activation="sigmoid")
            self.decoder = keras.layers.Dense(SIZE["visible"], activation="sigmoid")

        def encode(self, x: Any) -> Any:
            return self.encoder(x)

        def decode(self, h: Any) -> Any:
            return self.decoder(h)

        def call(self, x: Any) -> Any:
            hidden = self.encoder(x)
            return answered(returns, self.decoder(hidden), hidden)

    made = StandIn()
    made(keras.ops.zeros((2, SIZE["visible"])))
    return made


ANSWERS = ("output, hidden", "output", "hidden, output")


def answered(returns: str, output: Any, hidden: Any) -> Any:
    """Return what a model answers: one of `ANSWERS`."""
    if returns == "output":
        return output
    return (output, hidden) if returns == "output, hidden" else (hidden, output)
