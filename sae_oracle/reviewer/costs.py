"""From code to a cost: which argument is theta, which are sizes and data; torch modules."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from keras_impl.backends.keras_internals import layers_of
from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_cost import CostOfParameters, weights_among
from sae_oracle.reviewer.evaluation import as_array, tensor
from sae_oracle.reviewer.foreign import (
    WHOLE,
    Code,
    attribute_named,
    held_numbers,
    methods_of,
    picked,
    states_of,
)
from sae_oracle.reviewer.frameworks import FRAMEWORKS, Framework, uncompiled
from sae_oracle.reviewer.network import Layer, Weights, chains
from sae_oracle.reviewer.reading import (
    APPLIES,
    BATCH_SIZES,
    DATA,
    LOADERS,
    Reading,
    Signature,
    bystanders,
    is_number,
    is_parameters,
    plain,
    signature_of,
    size_named,
    weight_named,
    words,
)
from sae_oracle.reviewer.stand_ins import (
    ANSWERS,
    ModuleOfWeights,
    answered,
    models_in,
    module_of,
    own_models,
    parameters_among,
    stand_in_model,
    stand_in_of_keras,
)
from sae_oracle.reviewer.target import SYMBOLS, CouldNotReviewError

_ORDERS = (("W1", "W2", "b1", "b2"), ("W1", "b1", "W2", "b2"))
_TIED = ("W1", "b1", "b2")
_PRECISION = {"numpy": 1e-13}
_SINGLE = 1e-6


def cost_of(
    code: Code, reading: Reading, wanted: tuple[int, int] | None = None
) -> CostOfParameters:
    """Return the cost that a function of parameters and data is.

    Args:
        code: The function.
        reading: Which argument is what.
        wanted: Visible and hidden units, where it does not fix them; `None`: any.

    Raises:
        CouldNotReviewError: If what an argument is cannot be told from its name.
    """
    aside = bystanders(code.signature.required)
    aside |= dict.fromkeys((n for n in code.signature.required if plain(n) in APPLIES), None)
    names = [n for n in code.signature.required if n not in {*reading.hyper.values(), *aside}]
    states = states_of(code)
    names = [n for n in names if n not in states]
    theta = parameters_among(code.thing, names)
    theta = theta or next((n for n in names if is_parameters(n)), None)
    if states and theta is None:  # the state holds the parameters
        theta = states[0]
    weights = {n: weight_named(n) for n in names if weight_named(n)} if theta is None else {}
    sizes = {n: size_named(n) for n in code.signature.names if size_named(n) and n != theta}
    rest = [n for n in names if n not in weights and n not in sizes and n != theta]
    if theta is not None and len(rest) == 3 and not sizes:  # (theta, n, k, ..., data)
        is_first = plain(rest[0]) in DATA["y_true"] and plain(rest[2]) not in DATA["y_true"]
        visible_name, hidden_name = rest[1:] if is_first else rest[:2]
        sizes = {visible_name: "visible", hidden_name: "hidden"}
        rest = [n for n in rest if n not in sizes]
    data = [n for n in rest if plain(n) in DATA["y_true"] or plain(n) in DATA["activations"]]
    data = data or [n for n in names if plain(n) in DATA["y_true"] and n not in weights][:1]
    unknown = [n for n in rest if n not in data]
    if not data and unknown:
        data, unknown = unknown[-1:], unknown[:-1]
    for name in data:
        sizes.pop(name, None)
    if unknown or not data:
        raise CouldNotReviewError(
            f"what {', '.join(f'`{n}`' for n in unknown) or 'its data'} of {code.name}"
            f"({', '.join(code.signature.names)}) is cannot be told from the name: say it "
            "(--rho NAME, --beta NAME, --weight-decay NAME, --set NAME=VALUE)"
        )
    fixed = _sizes_of(code)
    free = wanted or (7, 4)
    visible, hidden = fixed.get("visible", free[0]), fixed.get("hidden", free[1])
    framework = code.framework
    forms, keys = _forms(code, theta, weights)
    applied = [n for n in code.signature.required if plain(n) in APPLIES]
    absent = _absent_models(code)
    if applied or states or absent:
        keys = {name: (name,) for name in _ORDERS[1]}
        forms = [("dictionary", _ORDERS[1])]

    beside = _slopes_beside(code) if framework.name == "numpy" else None

    def call(given: Any, x: Any, hyper: Mapping[str, float], returns: str = "") -> Any:
        form, parts = given
        if (
            applied or states or absent
        ) and not returns:  # by the first way of answering that it takes
            for answer in ANSWERS:
                try:
                    return call(given, x, hyper, answer)
                except Exception as error:
                    first = error
            raise first
        arguments: dict[str, Any] = aside | {name: framework.tensor(x) for name in data}
        arguments |= {n: (visible if size == "visible" else hidden) for n, size in sizes.items()}
        arguments |= {name: hyper[role] for role, name in reading.hyper.items() if role in hyper}
        if form == "arguments":
            by_name = dict(zip(forms[0][1], parts, strict=True))
            arguments |= {n: as_tensor(by_name[w]) for n, w in weights.items() if w}
        elif theta is not None:
            arguments[theta] = _packed(form, parts, keys, as_tensor)
        apply = _applied(framework.name, returns)
        arguments |= dict.fromkeys(applied, apply)
        for name, held in absent.items():
            held[name] = SimpleNamespace(apply=apply)
        if theta is not None:
            arguments |= {n: TrainingState(apply, arguments[theta]) for n in states}
        arguments |= {n: len(x) for n in code.signature.required if plain(n) in BATCH_SIZES}
        positional = [arguments.pop(name) for name in code.signature.required]
        made = code.make({k: v for k, v in hyper.items() if k in code.made_with})
        with code.with_decay(hyper):
            by_name = dict(zip(code.signature.required, positional, strict=True)) | arguments
            returned = made(*positional, **arguments)
            if beside is not None and not isinstance(returned, (tuple, list, dict)):
                wanted = (signature_of(beside) or Signature()).names
                returned = returned, beside(**{n: by_name[n] for n in wanted if n in by_name})
        if states and isinstance(returned, tuple):
            kept = tuple(v for v in returned if not isinstance(v, TrainingState))
            returned = kept[0] if len(kept) == 1 else kept
        return returned

    def as_tensor(value: Any) -> Any:  # what a library derives by is one of its own
        return framework.tensor(value) if isinstance(value, np.ndarray) else value

    return CostOfParameters(
        code.name,
        call,
        forms,
        (visible, hidden),
        frozenset(code.changeable(reading)),
        dict(code.values),
        _PRECISION.get(framework.name, _SINGLE),
        framework,
    )


def _slopes_beside(code: Code) -> Callable[..., Any] | None:
    """The function of the same file that computes the slopes of a cost, of the same arguments."""
    file = source.visible_names(source.subject_of(code.thing)).get("__reviewed_file__")
    if file is None:
        return None
    for name in file.defined():
        if not re.search("back_?prop|backward|grad", name) or re.search("num|check|desc", name):
            continue
        function: Callable[..., Any] = file.obtained(name)
        required = (signature_of(function) or Signature()).required
        if function is not code.thing and {*required} <= {*code.signature.names} and required:
            return function
    return None


class TrainingState:
    """What stands for Flax's `TrainState`: parameters, and the `apply` of a model.

    It is a node of JAX's trees, as Flax's is, so that jitted steps take it.
    """

    _known = False

    def __init__(self, apply: Callable[..., Any], params: Any) -> None:
        self.apply_fn, self.params = apply, params
        self.step = 0
        if not TrainingState._known and "jax" in sys.modules:
            sys.modules["jax"].tree_util.register_pytree_node(
                TrainingState,
                lambda held: ((held.params,), held.apply_fn),
                lambda apply, held: TrainingState(apply, *held),
            )
            TrainingState._known = True

    def apply_gradients(self, **gradients: Any) -> TrainingState:
        """Return the state as it is: nothing is learned in a review."""
        return self


def _absent_models(code: Code) -> dict[str, dict[str, Any]]:
    """The models whose `apply` the source calls and that could not be made, and their modules."""
    found = {}
    for subject in source.functions(code.thing):
        seen = source.visible_names(subject)
        for node in ast.walk(source.tree_of(subject)):
            if isinstance(node, ast.Attribute) and node.attr == "apply":
                name = getattr(node.value, "id", "")
                held = seen.get(name)
                if name and (held is None or isinstance(held, SimpleNamespace)):
                    found[name] = subject.__globals__
    return found


@functools.cache  # jitted code compiles anew for every other one
def _applied(framework: str, returns: str) -> Callable[..., Any]:
    """Return what stands for the `apply` of a Flax or Haiku model with sigmoid units."""

    def apply(variables: Any, *inputs: Any, **options: Any) -> Any:
        p = variables.get("params", variables)
        x = next(given for given in inputs if len(np.shape(given)) == 2)  # and no random key
        layers = (("W1", "b1"), ("W2", "b2"))
        outputs = []
        for kernel, bias in layers:
            x = 1.0 / (1.0 + FRAMEWORKS[framework].exponential(-(x @ p[kernel] + p[bias])))
            outputs.append(x)
        return answered(returns, outputs[1], outputs[0])

    return apply


def _sizes_of(code: Code) -> dict[str, int]:
    """Sizes that are attributes of an instance, or else constants of the module."""
    held = dict(getattr(getattr(code.make({}), "__self__", None), "__dict__", {}))
    for subject in source.functions(code.thing):
        seen = source.visible_names(subject)
        held = {n: seen[n] for n in source.names_of(subject) if n in seen} | held
    found: dict[str, int] = {}
    for name, value in held.items():
        size = size_named(name)
        if size is not None and isinstance(value, int) and 1 < value <= 256:
            found[size] = value
    return found


def _forms(
    code: Code, theta: str | None, weights: Mapping[str, str | None]
) -> tuple[list[tuple[str, tuple[str, ...]]], dict[str, tuple[str, ...]]]:
    """The forms in which it may take its parameters, and the keys of a dictionary."""
    if theta is None:
        order = tuple(dict.fromkeys(w for w in weights.values() if w))
        return [("arguments", order)], {}
    keys: dict[str, tuple[str, ...]] = {}
    for path in _paths(code.thing, theta):
        weight = weight_named("".join(path))
        if weight is not None:
            keys.setdefault(weight, path)
    forms: list[tuple[str, tuple[str, ...]]] = []
    if "W1" in keys:
        order = tuple(name for name in ("W1", "b1", "W2", "b2") if name in keys)
        forms += [("dictionary", order), ("attributes", order)]
    else:
        forms += [("flat", order) for order in (*_ORDERS, _TIED)]
        forms += [("tuple", order) for order in (*reversed(_ORDERS), _TIED)]
        forms += [("pairs", _ORDERS[1])]
    return forms, keys


def _paths(thing: Any, theta: str) -> list[tuple[str, ...]]:
    """The subscripts and attributes of the parameters in the source: params["enc"]["W"]."""
    found = []
    for subject in source.functions(thing):
        for node in ast.walk(source.tree_of(subject)):
            path: list[str] = []
            while True:
                if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                    if not isinstance(node.slice.value, str):
                        break
                    path.insert(0, node.slice.value)
                elif isinstance(node, ast.Attribute):
                    path.insert(0, node.attr)
                else:
                    break
                node = node.value
            if path and isinstance(node, ast.Name) and node.id == theta:
                found.append(tuple(path))
    return sorted(found, key=len, reverse=True)


def _packed(
    form: str, parts: Any, keys: Mapping[str, tuple[str, ...]], tensor: Callable[[Any], Any]
) -> Any:
    if form == "flat":
        return tensor(parts)
    tensors = [tensor(part) for part in parts]
    if form == "tuple":
        return tuple(tensors)
    if form == "pairs":
        return [tuple(tensors[:2]), tuple(tensors[2:])]
    order = [name for name in ("W1", "b1", "W2", "b2") if name in keys]
    packed: dict[str, Any] = {}
    for name, value in zip(order, tensors, strict=True):
        inner = packed
        for key in keys[name][:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[name][-1]] = value
    return packed if form == "dictionary" else SimpleNamespace(**packed)


# --- torch modules


class CostOfObject:
    """An object with weights of its own as a cost: what a call returns, by its weights.

    Args:
        name: What it is called.
        make: Returns the object, made with other values of ρ, β, λ.
        call: Returns the cost of an object and a batch.
        changeable: Which of ρ, β, λ can be given.
        values: Their values.

    Raises:
        CouldNotReviewError: If its weights are not those of dense layers in a chain.
    """

    precision = _PRECISION["numpy"]
    framework = FRAMEWORKS["numpy"]
    takes_columns = True

    def __init__(
        self,
        name: str,
        make: Callable[[Mapping[str, float]], Any],
        call: Callable[[Any, Any, Mapping[str, float]], Any],
        changeable: frozenset[str],
        values: dict[str, float],
        framework: Framework | None = None,
    ) -> None:
        if framework is not None and type(self) is CostOfObject:
            self.framework = framework
            self.precision = _PRECISION.get(framework.name, _SINGLE)
        self.name, self.changeable, self.values = name, changeable, values
        self._make, self._call = make, call
        self._made: dict[tuple[tuple[str, float], ...], Any] = {}
        instance = self._object({})
        self._shapes = self._shapes_of(instance)
        self._chains = list(chains(self._shapes, self._stored_transposed(instance)))
        if not self._chains:
            raise CouldNotReviewError(
                "its weights are not those of dense layers from an input to an output of the "
                "same width: review its penalty by itself (file.py:Class.method), as a function "
                "of activations"
            )

    def _shapes_of(self, instance: Any) -> dict[str, tuple[int, ...]]:
        return weights_of(instance)

    def _stored_transposed(self, instance: Any) -> set[str]:
        return set()

    def _object(self, hyper: Mapping[str, float]) -> Any:
        key = tuple(sorted(hyper.items()))
        if key not in self._made:
            self._made[key] = self._make(hyper)
        return self._made[key]

    def layouts(self) -> Sequence[tuple[int, bool]]:
        """Which chain its layers are, and whether a column is a sample."""
        columns = (False, True) if self.takes_columns else (False,)
        return [(k, c) for c in columns for k in range(len(self._chains))]

    def layers(self, layout: tuple[int, bool]) -> Sequence[Layer]:
        """The layers of the network."""
        return self._chains[layout[0]]

    def shapes(self, layout: tuple[int, bool]) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the weights by name."""
        return self._shapes

    def _set(self, weights: Weights, hyper: Mapping[str, float]) -> Any:
        instance = self._object({k: v for k, v in hyper.items() if k in self.changeable})
        for path, value in weights.items():
            held, key = _place(instance, path)
            shaped = np.reshape(value, tuple(held[key].shape))
            if hasattr(held[key], "assign"):  # a variable of TensorFlow
                held[key].assign(shaped)
            else:
                held[key] = self.framework.tensor(shaped)
        return instance

    def total(
        self, layout: tuple[int, bool], weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> tuple[float, Weights | None]:
        """The cost, and its gradient if it returns one."""
        instance = self._set(weights, hyper)
        batch = self.framework.tensor(x.T if layout[1] else x)
        returned = self._call(instance, batch, hyper)
        value = self.framework.array(picked(returned, WHOLE))
        if np.size(value) != 1:
            raise ValueError(f"not one number but an array of shape {np.shape(value)}")
        gradient = None
        if isinstance(returned, (tuple, list, dict)):
            gradient = weights_among(returned, self._shapes, self.framework)
        return float(np.reshape(value, ())), gradient

    def slopes(
        self, layout: tuple[int, bool], weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> Weights | None:
        """What its own method returns or leaves as derivatives; `None`: there is none."""
        batch = self.framework.tensor(x.T if layout[1] else x)
        for name in methods_of(type(self._object({}))):
            if not re.search("back_?prop|backward|grad|update|step", name):
                continue
            instance = self._set(weights, hyper)
            method = getattr(instance, name)
            required = (signature_of(method) or Signature()).required
            if not all(plain(n) in DATA["y_true"] for n in required):
                continue
            try:
                self._call(instance, batch, hyper)
                returned = method(*(batch for _ in required))
            except Exception:
                continue
            kept = {n: v for n, v in vars(instance).items() if _IS_SLOPE.search(n)}
            for slopes in (returned, kept):
                found = weights_among(slopes, self._shapes, self.framework)
                if found is not None:
                    return found
            found = self._learnt(instance, weights)
            if found is not None:
                return found
        return None

    def _learnt(self, instance: Any, weights: Weights) -> Weights | None:
        """By how much the weights were changed, over the learning rate; `None`: some were not."""
        rates = [v for n, v in vars(instance).items() if plain(n) in _RATES and is_number(v) and v]
        if len(rates) != 1:
            return None
        found = {}
        for name, before in weights.items():
            held, key = _place(instance, name)
            after = np.reshape(self.framework.array(held[key]), before.shape)
            found[name] = (before - after) / float(rates[0])
        return found if all(np.any(slope) for slope in found.values()) else None

    def output(self, layout: tuple[int, bool], weights: Weights, x: Any) -> Any:
        """The network's output, where it gives one."""
        return None


_RATES = words("lr eta alpha learningrate learnrate stepsize")


def _place(instance: Any, path: str) -> tuple[Any, Any]:
    """The list or dictionary that holds a weight of an object, and its key there."""
    place, _, name = path.rpartition(".")
    held: Any = getattr(instance, place) if place else instance.__dict__
    return held, int(name) if isinstance(held, list) else name


_IS_SLOPE = re.compile("^(_?d_?[wbW]|g_?[wbW]|nabla|delta|gradient)|grad")


class CostOfModule(CostOfObject):
    """A torch module as a cost."""

    precision = _SINGLE
    framework = FRAMEWORKS["torch"]
    takes_columns = False

    def _shapes_of(self, instance: Any) -> dict[str, tuple[int, ...]]:
        return {n: tuple(p.shape) for n, p in module_of(instance).named_parameters()}

    def _stored_transposed(self, instance: Any) -> set[str]:
        import torch

        return {
            f"{name}.weight" if name else "weight"
            for name, inner in module_of(instance).named_modules()
            if isinstance(inner, torch.nn.Linear)
        }

    def _object(self, hyper: Mapping[str, float]) -> Any:
        made = super()._object(hyper)
        module_of(made).train()
        return made

    def _set(self, weights: Weights, hyper: Mapping[str, float]) -> Any:
        import torch

        made = self._object({k: v for k, v in hyper.items() if k in self.changeable})
        with torch.no_grad():
            for name, parameter in module_of(made).named_parameters():
                parameter.copy_(torch.as_tensor(np.asarray(weights[name])))
        return made

    def slopes(
        self, layout: tuple[int, bool], weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> Weights | None:
        """The derivative of the cost by each weight, by autograd."""
        import torch

        made = self._set(weights, hyper)
        named = dict(module_of(made).named_parameters())
        for parameter in named.values():
            parameter.grad = None
        value = picked(self._call(made, self.framework.tensor(x), hyper), WHOLE)
        found: Any = [parameter.grad for parameter in named.values()]  # of code that trains
        if getattr(value, "requires_grad", False):
            found = torch.autograd.grad(value.sum(), list(named.values()), allow_unused=True)
        if hasattr(value, "requires_grad") or any(slope is not None for slope in found):
            zero = {name: np.zeros(tuple(weight.shape)) for name, weight in named.items()}
            slopes = zip(named, found, strict=True)
            return zero | {n: self.framework.array(s) for n, s in slopes if s is not None}
        return None  # a number, of code that does not train

    def output(self, layout: tuple[int, bool], weights: Weights, x: Any) -> Any:
        """The network's output, where it gives one."""
        module = module_of(self._set(weights, {}))
        try:
            returned = module(self.framework.tensor(x))
        except Exception:  # a module without a forward, whose step computes all
            return None
        return output_among(returned, x.shape)


def weights_of(instance: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays that an object holds as weights, a column as a vector."""
    found = {}
    held = dict(getattr(instance, "__dict__", {}))
    for name, value in list(held.items()):
        items: Any = (
            enumerate(value) if isinstance(value, list) else getattr(value, "items", tuple)()
        )
        held |= {f"{name}.{key}": item for key, item in items}
    once = {id(value): path for path, value in reversed(held.items())}  # some libraries list them
    for path, value in held.items():
        root, _, name = path.rpartition(".")
        if once[id(value)] != path:
            continue
        is_array = hasattr(value, "dtype") and not callable(getattr(value, "shape", len))
        shape = tuple(int(n) for n in value.shape) if is_array else ()
        kind = weight_named(root + "1" if name.isdigit() else name)
        if is_parameters(root) and kind is None and shape:
            kind = "b1" if 1 in shape or len(shape) == 1 else "W1"
        if kind and len(shape) in (1, 2):
            found[path] = (max(shape),) if kind.startswith("b") else shape
    return found


def output_among(returned: Any, shape: tuple[int, ...]) -> Any:
    """Return what has the shape of the input among what a module returned."""
    framework = FRAMEWORKS["torch"]
    if isinstance(returned, dict):
        returned = tuple(returned.values())
    if not isinstance(returned, (tuple, list)):
        returned = (returned,)
    for value in returned:
        if tuple(getattr(value, "shape", ())) == tuple(shape):
            return framework.array(value)
    return None


def scalar_attributes(module: Any) -> list[str]:
    """The attributes of a module that hold one number with a gradient, after a call."""
    held = {**getattr(module, "__dict__", {})}
    return [
        name
        for name, value in held.items()
        if hasattr(value, "grad_fn") and value.grad_fn is not None and is_number(value)
    ]


class _Loader(list[Any]):
    """One batch, as a loader gives it."""

    def __init__(self, batch: Any, x: Any) -> None:
        super().__init__([batch])
        self.dataset = x


def batches_for(name: str) -> list[Callable[[Any], Any]]:
    """Return the forms in which an argument of this name may take a batch x, with labels or not."""
    if plain(name) in LOADERS:
        return [lambda x: _Loader((x, x), x), lambda x: _Loader(x, x)]
    return [lambda x: x, lambda x: (x, x)]


class _DerivedError(BaseException):
    """Carries out of a training loop the tensor that it derives."""

    def __init__(self, value: Any) -> None:
        self.value = value


def derived_or_returned(call: Callable[[], Any], framework: str) -> Any:
    """Return the tensor that a call derives (`loss.backward()`), else what it returns."""
    owner: Any = None
    if framework == "torch":
        owner, name = sys.modules["torch"].Tensor, "backward"
    elif framework == "tensorflow":
        owner, name = sys.modules["tensorflow"].GradientTape, "gradient"
    if owner is None:
        return call()

    def derive(held: Any, value: Any = None, *arguments: Any, **more: Any) -> None:
        raise _DerivedError(held if framework == "torch" else value)

    kept = getattr(owner, name)
    setattr(owner, name, derive)
    try:
        with uncompiled():
            return call()
    except _DerivedError as derived:
        return derived.value
    finally:
        setattr(owner, name, kept)


def values_of_models(code: Code) -> dict[str, float]:
    """Return ρ, β and λ as the models hold them that a loss may be given."""
    found: dict[str, float] = {}
    for model in [*models_in(code.thing), *own_models(code.thing)]:
        for role in SYMBOLS:
            name = attribute_named(model, role)
            if name is not None:
                found.setdefault(role, held_numbers(model)[name])
    return found


def costs_of_model_losses(code: Code, reading: Reading) -> Iterator[CostOfObject]:
    """Yield a loss that takes a model and a batch as a cost, by each way a model may answer.

    The model is that of the function's module, one of its own file, or a stand-in.
    """
    model, data, output = (reading.data.get(role) for role in ("model", "x", "y_pred"))
    assert data is not None
    of_keras = code.framework.name in ("keras", "tensorflow")
    made = [lambda held=held: held for held in (models_in(code.thing) if model is None else [])]
    if model is not None:
        makers = stand_in_of_keras if of_keras else stand_in_model
        made = [lambda held=held: held for held in own_models(code.thing)]
        made += [lambda returns=returns: makers(returns) for returns in ANSWERS]
    for batch, maker in itertools.product(batches_for(data), made):

        def call(
            module: Any, x: Any, hyper: Mapping[str, float], batch: Callable[[Any], Any] = batch
        ) -> Any:
            arguments = {**bystanders(code.signature.required), data: batch(x)}
            arguments |= {n: len(x) for n in code.signature.required if plain(n) in BATCH_SIZES}
            arguments |= {} if model is None else {model: module}
            arguments |= {} if output is None else {output: module(x)}
            arguments |= {n: hyper[role] for role, n in reading.hyper.items() if role in hyper}
            positional = [arguments.pop(name) for name in code.signature.required]

            def made() -> Any:
                return code.make({})(*positional, **arguments)

            with code.with_decay(hyper):
                return derived_or_returned(made, code.framework.name)

        def make(hyper: Mapping[str, float], maker: Callable[[], Any] = maker) -> Any:
            return maker()

        changeable = frozenset(code.changeable(reading))
        kind: Any = CostOfKeras if of_keras else CostOfModule
        if isinstance(maker(), ModuleOfWeights):
            kind = functools.partial(CostOfObject, framework=code.framework)
        try:
            yield kind(code.name, make, call, changeable, dict(code.values))
        except CouldNotReviewError:
            continue


def identity_layer(owner: Any, made: Any, a: Any) -> tuple[Any, Any]:
    """Return a torch layer as wide as activations, and the input for which it gives them.

    Its kernel is the identity and its bias 0.
    """
    import copy

    import torch

    layer, width = copy.deepcopy(made), a.shape[1]
    held = next(
        m
        for m in layer.modules()
        if any(len(p.shape) == 2 for p in m._parameters.values() if p is not None)
    )
    with torch.no_grad():
        for name, parameter in list(held._parameters.items()):
            if parameter is not None:
                value = torch.eye(width) if len(parameter.shape) == 2 else torch.zeros(width)
                held._parameters[name] = torch.nn.Parameter(value)
    inverses = (torch.logit, torch.atanh, lambda t: t)
    plain_a = a.detach()
    for inverse in inverses:
        returned = layer(inverse(plain_a))
        returned = returned[0] if isinstance(returned, tuple) else returned
        if torch.allclose(returned, plain_a, atol=1e-5):
            return layer, inverse(a)
    raise CouldNotReviewError(
        "its output is not that of sigmoid, tanh, relu or linear units: review the function that "
        "computes its penalty (file.py:function or file.py:Class.method)"
    )


class CostOfKeras(CostOfObject):
    """A Keras model as a cost: what a call returns, by its trainable weights."""

    precision = _SINGLE
    framework = FRAMEWORKS["keras"]
    takes_columns = False

    def _object(self, hyper: Mapping[str, float]) -> Any:
        model = super()._object(hyper)
        if not model.built or not model.trainable_variables:
            shape = getattr(model, "input_shape", None) if model.built else None
            units = [layer.units for layer in layers_of(model) if hasattr(layer, "units")]
            width = shape[-1] if shape else [6, *units][-1]  # as wide as its output
            model(tensor(np.full((2, width), 0.5)))
        return model

    def _shapes_of(self, instance: Any) -> dict[str, tuple[int, ...]]:
        return {str(k): tuple(v.shape) for k, v in enumerate(instance.trainable_variables)}

    def _set(self, weights: Weights, hyper: Mapping[str, float]) -> Any:
        model = self._object({k: v for k, v in hyper.items() if k in self.changeable})
        for name, value in weights.items():
            model.trainable_variables[int(name)].assign(np.asarray(value, "float32"))
        return model

    def slopes(
        self, layout: tuple[int, bool], weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> Weights | None:
        """The derivative of the cost by each trainable weight, as a step of `fit` takes it."""
        if not has_gradients():
            return None
        model, batch = self._set(weights, hyper), tensor(x)
        variables = model.trainable_variables

        def total(*values: Any) -> Any:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
                return keras.ops.sum(picked(self._call(model, batch, hyper), WHOLE))

        _, found = value_and_gradients(total, [variable.value for variable in variables])
        return {str(k): as_array(slope) for k, slope in enumerate(found)}

    def output(self, layout: tuple[int, bool], weights: Weights, x: Any) -> Any:
        """The network's output, where it gives one."""
        returned = self._set(weights, {})(tensor(x))
        return output_among(returned, x.shape)
