"""What the source code of an object says: which calls bind it to a backend, and its own words."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import keras

BACKEND_PACKAGES = ("tensorflow", "torch", "jax")

# What cuts a tensor off from its gradient, as it is written.
_CUTS = re.compile(
    r"stop_gradient|\.detach\(|no_grad|\.numpy\(|\.item\(|\.tolist\(|convert_to_numpy|"
    r"\b(?:np|numpy)\.\w+(?:\.\w+)*|\bmath\.\w+|\bfloat\("
)


@dataclass(frozen=True)
class Call:
    """A name of another package that the source uses.

    Args:
        name: As it is written, such as "tf.math.log".
        package: The package behind its first part.
        exists: Whether the package has it.
    """

    name: str
    package: str
    exists: bool


_WRAPPED = ("__wrapped__", "python_function", "py_func", "pyfunc", "_torchdynamo_inline")


def underlying(thing: Any) -> Any:
    """Return the plain function inside of a jitted, partial or otherwise wrapped one.

    >>> underlying(functools.partial(underlying, thing=3)) is underlying
    True
    """
    for _ in range(20):
        if inspect.isclass(thing) or inspect.isfunction(thing):
            inner = getattr(thing, "__wrapped__", None)
        elif isinstance(thing, functools.partial):
            inner = thing.func
        else:
            inner = next(
                (vars_ for name in _WRAPPED if callable(vars_ := getattr(thing, name, None))), None
            )
        if inner is None or inspect.isclass(inner):
            return thing
        thing = inner
    return thing


def subject_of(thing: Any) -> Any:
    """Return the class or function whose source describes the object."""
    thing = underlying(thing)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return thing
    if inspect.ismethod(thing):
        return thing.__func__
    return type(thing)


def documentation(thing: Any) -> str:
    """Return the object's own words: the docstrings of it and of what it computes with."""
    subject = subject_of(thing)
    texts = [vars(subject).get("__doc__") if inspect.isclass(subject) else subject.__doc__]
    if inspect.isclass(subject):
        texts += [
            vars(subject)[name].__doc__
            for name in ("__init__", "__call__", "call", "get_config", "build")
            if name in vars(subject)
        ]
    return " ".join(" ".join(text.split()) for text in texts if isinstance(text, str))


def is_kerass_own(thing: Any) -> bool:
    """Whether the object belongs to Keras itself."""
    return str(getattr(subject_of(thing), "__module__", "")).split(".")[0] == "keras"


def functions(thing: Any) -> Iterator[Any]:
    """Yield the classes and functions of the object's own module that it is made of."""
    subject = subject_of(thing)
    waiting, seen = [subject], set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        namespace = visible_names(current)
        for name in names_of(current):
            other = underlying(namespace.get(name))
            if (inspect.isfunction(other) or inspect.isclass(other)) and (
                getattr(other, "__module__", None) == getattr(subject, "__module__", "")
            ):
                waiting.append(other)
        if inspect.isclass(current):
            waiting += [
                base
                for base in current.__bases__
                if base.__module__ == getattr(subject, "__module__", "")
            ]


def visible_names(subject: Any) -> dict[str, Any]:
    """Return what a function can name: what its module holds, and what encloses it."""
    held: dict[str, Any] = {}
    if inspect.isfunction(subject):
        for name, cell in zip(subject.__code__.co_freevars, subject.__closure__ or (), strict=True):
            with suppress(ValueError):  # not yet filled
                held[name] = cell.cell_contents
    return {**module_names(subject), **held}


def module_names(subject: Any) -> dict[str, Any]:
    """Return what the module of a class or function holds: its own dictionary."""
    if inspect.isfunction(subject):
        return subject.__globals__
    for member in vars(subject).values():
        function = getattr(member, "__func__", member)
        if isinstance(function, FunctionType) and function.__module__ == subject.__module__:
            return inspect.unwrap(function).__globals__
    return {}


_METHODS = {"SAE701": ("get_config",), "SAE702": (), "SAE703": ("get_config", "from_config")}


def place_of(thing: Any, identifier: str, words: str, method: str = "") -> tuple[str, int]:
    """Return the file and the line that a finding is about; ("", 0): there is no source.

    Args:
        thing: What is reviewed.
        identifier: Of the finding.
        words: Its evidence: what is quoted there is looked for.
        method: The name of the method that is reviewed, if it is one.
    """
    at: tuple[str, int] | None = getattr(subject_of(thing), "reviewed_at", None)
    if at is not None:  # a loop of a script
        return at
    if is_kerass_own(thing):  # a functional model: no line of the user's defines its class
        return "", 0
    quoted = re.findall(r"`([^`]+)`", words) if identifier.startswith("SAE60") else []
    for subject in functions(thing) if quoted else ():
        with suppress(OSError, TypeError):
            lines, first = inspect.getsourcelines(subject)
            for number, line in enumerate(lines, max(first, 1)):
                if any(text in line for text in quoted):
                    return inspect.getsourcefile(subject) or "", number
    subject = subject_of(thing)
    names = _METHODS.get(identifier, (method, "__call__", "call", "forward", "compute_loss"))
    if inspect.isclass(subject):
        subject = next((vars(subject)[name] for name in names if name in vars(subject)), subject)
    with suppress(OSError, TypeError):
        subject = getattr(subject, "__func__", subject)
        file = inspect.getsourcefile(subject)
        lines, first = inspect.getsourcelines(subject)
        if file is not None:
            is_head = (i for i, s in enumerate(lines) if s.lstrip().startswith(("def ", "class ")))
            return file, max(first, 1) + next(is_head, 0)
    return "", 0


@functools.cache
def tree_of(subject: Any) -> ast.AST:
    """Return the syntax tree of a class or function; an empty one where there is no source."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(subject)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module(body=[], type_ignores=[])


def axis_left(thing: Any) -> tuple[int, int] | None:
    """Return the rank that a function takes a mean in, and the axis that it leaves: the units.

    From the longest axes that are written out, three at least, as in `mean(x, axis=(0, 1, 2))`.
    """
    found: list[list[int]] = []
    for function in functions(thing):
        for node in ast.walk(tree_of(function)):
            if isinstance(node, ast.Tuple | ast.List) and len(node.elts) > 2:
                with suppress(ValueError):
                    axes = ast.literal_eval(node)
                    if all(type(axis) is int for axis in axes):
                        found.append([axis % (len(axes) + 1) for axis in axes])
    axes = max(found, key=len, default=[])
    left = set(range(len(axes) + 1)) - set(axes)
    return (len(axes) + 1, left.pop()) if axes and 0 in axes and len(left) == 1 else None


def of_one_pixel(units: int, rank: int, axis: int) -> tuple[int, ...]:
    """Return the shape of activations, (samples, units), as images of one pixel.

    >>> of_one_pixel(3, 4, 1), of_one_pixel(3, 4, 3)
    ((-1, 3, 1, 1), (-1, 1, 1, 3))
    """
    return (-1, *(units if each == axis else 1 for each in range(1, rank)))


def function_returned(subject: Any) -> ast.arguments | None:
    """Return the arguments of the function that a function makes and returns; `None`: it does not.

    Inside of a call too: `return jax.jit(penalty)`.
    """
    body = getattr(tree_of(subject), "body", None) or [None]
    maker = body[0]
    if not isinstance(maker, ast.FunctionDef):
        return None
    made = {node.name: node.args for node in maker.body if isinstance(node, ast.FunctionDef)}
    returned = [node.value for node in maker.body if isinstance(node, ast.Return)]
    if not returned:
        return None
    value = returned[-1]
    if isinstance(value, ast.Call) and len(value.args) == 1:
        value = value.args[0]
    if isinstance(value, ast.Lambda):
        return value.args
    return made.get(value.id) if isinstance(value, ast.Name) else None


def goes_through(thing: Any, name: str) -> bool:
    """Return whether a function takes means of the items of an argument: of each layer's output."""
    for node in ast.walk(tree_of(subject_of(thing))):
        pairs: list[tuple[ast.AST, ast.AST]] = []
        if isinstance(node, ast.For):
            pairs = [(node.iter, node)]
        elif isinstance(node, (ast.GeneratorExp, ast.ListComp)):
            pairs = [(part.iter, node) for part in node.generators]
        for through, body in pairs:
            named = {n.id for n in ast.walk(through) if isinstance(n, ast.Name)}
            called = [n for n in ast.walk(body) if isinstance(n, ast.Call) and n is not through]
            over = {k.arg for call in called for k in call.keywords}
            if name in named and (
                over & {"axis", "dim"} or re.search(r"\bmean\(", ast.unparse(body))
            ):
                return not isinstance(through, ast.Subscript)
    return False


def text_of(thing: Any) -> str:
    """Return the source of an object and of what it calls in its own module."""
    return "\n".join(ast.unparse(tree_of(subject)) for subject in functions(thing))


_LOOKALIKES = {
    r"log_?var|log_?sigma|reparam": "it is the KL of a variational autoencoder, which has no ρ",
    r"\b(top_?k|argpartition|kthvalue)\(": "it keeps the k largest activations, and has no KL",
    r"\b(abs|norm|l1_loss|L1)\(": "an L1 penalty is no KL, and has no ρ",
}


def lookalike(thing: Any) -> str:
    """Return what code is that is no KL divergence of mean activations; empty: not known."""
    text = text_of(thing)
    if re.search(r"rho|spars\w*_(target|param)|\blog(1p)?\((?!.*var)", text):
        return ""
    return next((words for r, words in _LOOKALIKES.items() if re.search(r, text, re.I)), "")


def names_of(subject: Any) -> list[str]:
    """Return every name that the source of a class or function uses, in the order of the source."""
    nodes = [node for node in ast.walk(tree_of(subject)) if isinstance(node, ast.Name)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in nodes))


def package_of(module: str) -> str:
    """Return the package whose arrays a module computes with.

    >>> package_of("keras._tf_keras.keras.backend"), package_of("keras.src.ops")
    ('tensorflow', 'keras')
    """
    if module.startswith("keras._tf_keras") and "backend" in module:
        return "tensorflow"  # whatever backend Keras has
    return module.split(".")[0]


def calls(thing: Any) -> list[Call]:
    """Return what the object's source uses of tensorflow, torch, jax and keras.backend."""
    found: dict[str, Call] = {}
    for subject in functions(thing):
        namespace = visible_names(subject)
        tree = tree_of(subject)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    namespace[alias.asname or alias.name.split(".")[0]] = alias.name.split(".")[0]
        for node in ast.walk(tree):
            parts = _chain(node)
            if parts is None or parts[0] not in namespace:
                continue
            base = namespace[parts[0]]
            if isinstance(base, _Ported):
                base = base.module
            name = base.__name__ if isinstance(base, ModuleType) else base
            if not isinstance(name, str):
                continue
            package = package_of(name)
            if package not in (*BACKEND_PACKAGES, "keras"):
                continue
            exists = isinstance(base, str) or _exists(base, parts[1:])
            if package == "keras" and exists:
                continue
            found[".".join(parts)] = Call(".".join(parts), package, exists)
    longest = [name for name in found if not any(o.startswith(name + ".") for o in found)]
    return [found[name] for name in longest]


def _exists(module: Any, parts: list[str]) -> bool:
    """Whether a module has what a dotted name says of it, as far as it is one of modules."""
    value = module
    for part in parts:
        if not isinstance(value, ModuleType):
            return True
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def _chain(node: ast.AST) -> list[str] | None:
    """`tf.math.log` as ["tf", "math", "log"]."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and parts:
        return [node.id, *parts]
    return None


def chooses_by_backend(thing: Any) -> bool:
    """Whether the source asks which backend runs: it then has a branch for each."""
    return any("backend()" in ast.unparse(tree_of(subject)) for subject in functions(thing))


def packages(thing: Any) -> set[str]:
    """Return the top-level packages whose modules, classes and functions the source names."""
    found: set[str] = set()
    for subject in functions(thing):
        seen = visible_names(subject)
        for name in names_of(subject):
            value = seen.get(name)
            where = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
            found.add(package_of(str(where or "")))
        for node in ast.walk(tree_of(subject)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


def calls_keras(thing: Any) -> bool:
    """Whether the source calls functions of Keras, which compute on the backend in use."""
    for subject in functions(thing):
        seen = visible_names(subject)
        values = [seen.get(name) for name in names_of(subject)]
        own = [v for v in values if inspect.isfunction(v)]
        own += [attribute for call in calls(subject) if (attribute := _at(call.name, seen))]
        if any(str(v.__module__).startswith("keras.src") and inspect.isfunction(v) for v in own):
            legacy = [v for v in own if not str(v.__module__).startswith("keras.src.legacy")]
            if any(str(v.__module__).startswith("keras.src") for v in legacy):
                return True
    return False


def _at(name: str, seen: dict[str, Any]) -> Any:
    """What a dotted name is."""
    first, *rest = name.split(".")
    value = seen.get(first)
    for part in rest:
        value = getattr(value, part, None)
    return value if inspect.isfunction(value) else None


def bound_to(thing: Any) -> set[str]:
    """Return the other backends whose own functions the source calls."""
    if chooses_by_backend(thing):
        return set()
    called = {c.package for c in calls(thing) if c.package in BACKEND_PACKAGES and c.exists}
    return called - {keras.config.backend()}


def cuts(thing: Any) -> list[str]:
    """Return what may cut a gradient, as it is written in the source."""
    found: list[str] = []
    for subject in functions(thing):
        bodies = [
            ast.unparse(node)
            for node in ast.walk(tree_of(subject))
            if isinstance(node, ast.FunctionDef)
            and node.name not in ("__init__", "get_config", "build", "from_config")
        ]
        for body in bodies:
            found += [match.group(0).rstrip("(") for match in _CUTS.finditer(body)]
    return list(dict.fromkeys(found))


_RENAMED = {
    "kullback_leibler_divergence": "kl_divergence",
    "KLD": "kl_divergence",
    "kld": "kl_divergence",
    "mse": "mean_squared_error",
    "MSE": "mean_squared_error",
    "l1l2": "l1_l2",
    "objectives": "losses",
    "np_utils": "utils",
    "generic_utils": "utils",
    "topology": "layers",
    "core": "layers",
    "base_layer": "layers",
    "training": "models",
    "engine": "layers",
    "merge": "concatenate",
    "img_to_array": "img_to_array",
    "K": "backend",
    "ActivityRegularizer": "L1L2",
}


def today(name: str) -> Any:
    """Return what Keras has by a name of an earlier one; `None`: nothing.

    >>> today("kullback_leibler_divergence") is keras.losses.kl_divergence
    True
    """
    name = _RENAMED.get(name, name)
    for place in (
        *(keras, keras.layers, keras.regularizers, keras.losses, keras.models, keras.initializers),
        *(keras.activations, keras.constraints, keras.optimizers, keras.callbacks, keras.utils),
        *(keras.backend, keras.ops, keras.datasets, keras.metrics),
    ):
        found = getattr(place, name, None)
        if found is not None:
            return found
    return None


def _number_or_array(x: Any) -> Any:
    return x if isinstance(x, (int, float)) else keras.ops.cast(x, keras.config.floatx())


# What earlier names are called in `keras.ops`, and in TensorFlow.
_OPS = {
    "pow": "power",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "neg": "negative",
    "dot": "matmul",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "concat": "concatenate",
    "pack": "stack",
    "constant": "convert_to_tensor",
    "variable": "convert_to_tensor",
    "select": "where",
    "clip_by_value": "clip",
}
_TENSORFLOW = {"sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative"} | {
    "pack": "stack",
    "to_float": "cast",
}
_OF_BACKEND: dict[str, Any] = {
    "cast_to_floatx": _number_or_array,
    "epsilon": keras.config.epsilon,
    "floatx": keras.config.floatx,
    "image_data_format": keras.config.image_data_format,
    "int_shape": lambda x: tuple(x.shape),
    "ndim": lambda x: len(x.shape),
    "to_float": lambda x: keras.ops.cast(x, "float32"),
    "get_value": lambda x: keras.ops.convert_to_numpy(x),
    "eval": lambda x: keras.ops.convert_to_numpy(x),
    "batch_flatten": lambda x: keras.ops.reshape(x, (keras.ops.shape(x)[0], -1)),
}


def _replacement(package: str, name: str, native: bool) -> Any:
    """What a removed function is called now; `None`: it has no replacement."""
    if native and package == "tensorflow":
        import tensorflow as tf

        name = _TENSORFLOW.get(name, name)
        if name == "cast":
            return lambda x: tf.cast(x, tf.float32)
        places = (tf, tf.math, tf.nn, tf.compat.v1)
        return next((getattr(p, name) for p in places if hasattr(p, name)), None)
    found = _OF_BACKEND.get(name) or getattr(keras.ops, _OPS.get(name, name), None)
    return found or (today(name) if package == "keras" else None)


class _Ported:
    """A module whose removed functions are those of today."""

    def __init__(self, module: ModuleType, native: bool) -> None:
        self.module = module
        self.native = native

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self.module, name)
            if isinstance(value, ModuleType):
                return _Ported(value, self.native)
            return value
        except AttributeError:
            package = package_of(self.module.__name__)
            found = _replacement(package, name, self.native)
            if found is None:
                raise
            return found


@contextmanager
def ported(thing: Any, native: bool = False, *more: Any) -> Iterator[list[str]]:
    """Give the object's module today's functions for the calls that are gone; yields those.

    The review can then go on to what is wrong beside them. What has no replacement still raises.

    Args:
        thing: What is reviewed.
        native: Whether it runs on its own library, and not on the backend of Keras.
        *more: What it holds of other objects.
    """
    removed = [call for held in (thing, *more) for call in calls(held) if not call.exists]
    before: list[tuple[dict[str, Any], str, Any]] = []
    for subject in (subject for held in (thing, *more) for subject in functions(held)):
        namespace = module_names(subject)
        for call in removed:
            base = call.name.split(".")[0]
            module = namespace.get(base)
            if isinstance(module, ModuleType):
                before.append((namespace, base, module))
                namespace[base] = _Ported(module, native)
    try:
        yield list(dict.fromkeys(call.name for call in removed))
    finally:
        for namespace, base, module in before:
            namespace[base] = module


def without_replacement(removed: Iterable[str], native: bool = False) -> list[str]:
    """Return those of the removed calls that today's libraries do not have."""
    return [
        name
        for name in removed
        if _replacement("tensorflow" if native else "keras", name.split(".")[-1], native) is None
    ]


# Words by which an object documents a scaling of its own: it is then no mistake. They must speak
# of the scaling: "the mean activation of the hidden units" is no mean over units.
_OF_TERM = r"(kl\w*|diverg\w*|penalt\w*|term|value|loss|strength|β|beta|weight)"
_HALF = r"(½|half|1/2)"
_DOCUMENTED = {
    "SAE101": rf"keras[^.]{{0,80}}divid|divid\w*[^.]{{0,40}}by keras|{_OF_TERM}[^.]{{0,40}}divid\w*"
    r"[^.]{0,20}batch|add_loss|call(ed)? (it )?(directly|by hand)",
    "SAE102": rf"{_OF_TERM}[^.]{{0,40}}(divid\w*[^.]{{0,20}}batch|per sample)",
    "SAE103": r"(multipl\w*|times)[^.]{0,40}(batch size|number of (samples|rows)|the batch|rows)",
    "SAE111": rf"{_OF_TERM}[^.]{{0,40}}(mean|averag\w+) (over|across) (the |all )?(hidden )?units|"
    rf"(mean|averag\w+) {_OF_TERM}[^.]{{0,20}}(hidden )?units|per[- ](hidden )?unit\b",
    "SAE112": r"\bbits\b|\bbase[- ](2|two|10|ten)\b|\blog(2|10)\b",
    "SAE115": rf"(β|beta) ?/ ?2\b|{_HALF} (of )?the (notes|sum|usual)|twice the|"
    r"factor of (½|1/2|two|\d)",
    "SAE117": r"cross[- ]?entropy|up to a constant|without the constant",
    "SAE201": rf"(no|without)( the)? ({_HALF}|factor)|not halved",
    "SAE202": r"(mean|averag\w+) (over|of|across) (the |all )?(features|pixels|inputs)",
    "SAE203": r"sum\w* (over|of) (the |all )?(samples|batch|rows)",
    "SAE206": r"factor of (½|1/2|two|\d)|twice the",
    "SAE211": rf"(no|without)( the)? {_HALF}|λ ?[·*]? ?(Σ|‖)|twice",
    "SAE212": r"factor of (½|1/2|two|\d)",
    "SAE215": r"twice|count\w*[^.]{0,40}\b(2|two)\b|tied_decay",
    "SAE216": r"\bonce\b|tied_decay",
    "SAE217": r"(mean|averag\w+) (over|of) (the |all )?weights",
}


def documents(words: str, identifier: str) -> bool:
    """Whether an object's own words say the scaling that a finding would be about.

    >>> documents("β is the weight of the mean over the hidden units.", "SAE111")
    True
    >>> documents("ρ̂ is the mean activation of the hidden units.", "SAE111")
    False
    """
    pattern = _DOCUMENTED.get(identifier)
    return pattern is not None and re.search(pattern, words, re.IGNORECASE) is not None


_COLUMNS = (
    r"\((n_?)?(hidden|units|features|neurons|s\d?|n_hidden|h|d|k)(_?(size|units|dim|layer))?, ?"
    r"(m|n|samples?|batch|batch_size|n_samples|num_samples|examples|n_examples|num_examples)\)|"
    r"columns? (is|are|per|for each|holds?)( a| one| the| each)? ?(samples?|examples?|datum)|"
    r"(samples?|examples?) (is|are|in)( a| the)? ?columns?"
)


def samples_are_columns(words: str) -> bool:
    """Whether an object says that a column of its input is a sample, as in the notes.

    >>> samples_are_columns("a2: activations, shape (hidden_size, m)")
    True
    >>> samples_are_columns("activations of shape (batch, hidden)")
    False
    """
    return re.search(_COLUMNS, words, re.IGNORECASE) is not None


def mentions(words: str, pattern: str) -> bool:
    """Whether the words match a pattern, whatever the case."""
    return re.search(pattern, words, re.IGNORECASE) is not None
