"""Getting at an object in a file or module: statement by statement, and only those that it needs.

A file that people have ends with a demonstration, begins with imports that went years ago, and may
be of another Python. What the object needs is run; what fails there is said in one line.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import linecache
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

import keras

from sae_oracle.reviewer.reading import TRAINING, is_batch
from sae_oracle.reviewer.source import today
from sae_oracle.reviewer.target import CouldNotReviewError, described


@dataclass
class Loaded:
    """An object and what happened on the way to it.

    Args:
        thing: The object.
        notes: What was not run, or failed, in words.
        replaced: The imports that no longer exist, by the name that they bind.
        location: Where it is, if the file alone was named.
        others: Where the pieces are that it calls, for want of the whole.
        activation: That of the layer on which the file uses it as a regularizer; empty: not said.
    """

    thing: Any
    notes: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    location: str = ""
    others: list[str] = field(default_factory=list)
    activation: str = ""


@dataclass
class Method:
    """A method of a class, or of an instance, as a target."""

    owner: Any
    name: str


def load(location: str) -> Any:
    """Return the object at `package.module:Object` or `path/to/file.py:Object`.

    Raises:
        CouldNotReviewError: If there is no such file, module or object, or its import fails.
    """
    return loaded(location).thing


def loaded(location: str) -> Loaded:
    """Return the object at `package.module:Object` or `path/to/file.py:Object`, and how it went.

    Raises:
        CouldNotReviewError: If there is no such file, module or object, or its import fails.
    """
    where, separator, path = location.rpartition(":")
    if location.endswith(".py") and Path(location).is_file():
        return _likeliest(location)
    if not separator or not where or not path:
        raise CouldNotReviewError(
            f"a target is package.module:Object or path/to/file.py:Object; received {location!r}"
        )
    try:
        file = _File(where, path.split(".")[0]) if where.endswith(".py") else None
        module = file.module if file is not None else _imported(where)
    except CouldNotReviewError:
        raise
    except BaseException as error:
        raise CouldNotReviewError(f"importing {where} raised {described(error)}") from error
    thing: Any = module
    found = Loaded(None)
    if file is not None:
        found.notes, found.replaced = file.notes, file.replaced
        found.activation = file.activation_beside(path)
    for name in path.split("."):
        owner = thing
        try:
            thing = getattr(thing, name)
        except AttributeError:
            raise CouldNotReviewError(_not_there(where, path, module, file)) from None
        if inspect.isclass(owner) and inspect.isfunction(thing):
            static = isinstance(inspect.getattr_static(owner, name), staticmethod)
            thing = thing if static else Method(owner, name)
    found.thing = thing
    return found


def _not_there(where: str, path: str, module: ModuleType, file: _File | None) -> str:
    reason = f"{where} has no {path!r}"
    if file is not None:
        import difflib

        near = difflib.get_close_matches(path, file.defined(), 3, 0.5) or file.defined()[:8]
        if near:
            reason += f"; it has {', '.join(near)}"
        if file.notes:
            reason += f"; importing {where}: {'; '.join(file.notes)}"
    elif Path(f"{where}.py").is_file():  # one that another module of that name hides
        reason += f" ({module.__file__}). A file is reviewed as {where}.py:{path}"
    return reason


def _likeliest(location: str) -> Loaded:
    """The object of a file that computes a divergence and that no other such object uses.

    Raises:
        CouldNotReviewError: If there is none, or more than one, with their names.
    """
    file = _File(location, None)
    names = file.likeliest()
    if not names:
        there = ", ".join(f"{location}:{name}" for name in file.defined())
        raise CouldNotReviewError(f"which object of {location}? It has {there or 'none'}")
    places = [f"{location}:{name}" for name in names]
    found = loaded(places[0])
    found.location, found.others = places[0], places[1:]
    return found


def _imported(where: str) -> ModuleType:
    sys.path.append(str(Path.cwd()))  # last: nothing there replaces what others import
    return importlib.import_module(where)


def _is_anothers(name: str, file: Path) -> bool:
    """Return whether a module of that name is, or would be, imported from elsewhere."""
    held = sys.modules.get(name)
    origin = getattr(held, "__file__", None)
    if held is None:
        found = PathFinder.find_spec(name)
        if found is None:
            return False
        origin = found.origin
    return origin is None or Path(origin).resolve() != file.resolve()


# What a demonstration calls of an object: it is not run.
_DEMONSTRATES = re.compile(
    r"^(fit|train|evaluate|predict|summary|save|load|plot|show|print|run|main|test|savefig|imshow)"
)
_IS_DEMONSTRATION = re.compile(r"main|run|demo|plot|show|test|eval|predict|load|save|visuali")
# How a divergence is computed, by hand or by a library.
_IS_LOGARITHM = re.compile(
    r"^(log|log1p|log2|log10|xlogy|rel_entr|logsigmoid)$|kl_?div|kullback|KLD"
)
_IS_CROSS_ENTROPY = re.compile(r"binary_?cross_?entropy|^bce", re.IGNORECASE)
# What sets up a library: it is run.
_SETS_UP = re.compile(r"^(set_|manual_seed|seed|append|insert|update|filterwarnings|enable_x64)")


_AS_PYTHON_3 = (
    (r"^([ \t]*)print[ \t]+(?![ \t]*[(=])(.*)$", r"\1print(\2)"),
    (r"^([ \t]*)[%!].*$", r"\1pass"),
    (r"^([ \t]*except[^:\n]*?),[ \t]*(\w+)[ \t]*:", r"\1 as \2:"),
)


class _File:
    """A file as a module, run as far as one name needs it.

    Args:
        where: Its path.
        root: The name that is wanted; `None`: nothing is run.
    """

    def __init__(self, where: str, root: str | None) -> None:
        self.path = Path(where)
        if not self.path.is_file():
            raise CouldNotReviewError(f"there is no file {where}")
        self.notes: list[str] = []
        self.replaced: dict[str, str] = {}
        self.wanted: set[str] = set()
        self.tree = self._parsed(self.path.read_text(encoding="utf-8", errors="replace"))
        self.tree.body = [*_with_training_as_functions(self.tree.body)]
        self.module = ModuleType(self.path.stem)
        if root is not None:
            self._run(root)

    def defined(self) -> list[str]:
        """The functions and classes that the file defines, in their order."""
        kinds = (ast.FunctionDef, ast.ClassDef)
        return [n.name for n in self.tree.body if isinstance(n, kinds) and n.name[0] != "_"]

    def likeliest(self) -> list[str]:
        """The object that uses all others that compute a logarithm, then those; empty: none."""
        kinds = (ast.FunctionDef, ast.ClassDef)
        nodes = {n.name: n for n in self.tree.body if isinstance(n, kinds)}
        nodes = {name: n for name, n in nodes.items() if not _IS_DEMONSTRATION.match(name)}
        uses = {name: _used(n) | _methods_used(n) for name, n in nodes.items()}
        offers = {name: {name, *_methods_of(n)} for name, n in nodes.items()}
        reached = {name: {name} for name in nodes}
        for _ in nodes:
            for found in reached.values():
                seen = set().union(*(uses[name] for name in found))
                found |= {name for name, offered in offers.items() if offered & seen}
        for logarithm in (_IS_LOGARITHM, _IS_CROSS_ENTROPY):
            computing = [
                name
                for name, found in reached.items()
                if name[0] != "_"
                and any(logarithm.search(word) for inner in found for word in uses[inner])
            ]
            roots = [
                name
                for name in computing
                if not any(name in reached[other] for other in computing if other != name)
            ]
            if len(roots) == 1:
                return [*roots, *(name for name in reversed(computing) if name not in roots)]
            if computing:
                break
        defined = self.defined()
        if not defined:
            return [*_models_assigned(self.tree)][-1:]
        return defined if len(defined) == 1 else []

    def activation_beside(self, name: str) -> str:
        """The activation of the layers that have this activity regularizer; empty: not written."""
        found = set()
        for node in ast.walk(self.tree):
            given = {k.arg: k.value for k in node.keywords} if isinstance(node, ast.Call) else {}
            regularizer, written = given.get("activity_regularizer"), given.get("activation")
            if isinstance(regularizer, ast.Call):
                regularizer = regularizer.func
            if isinstance(regularizer, ast.Name) and regularizer.id == name:
                found.add(getattr(written, "value", ""))
        return str(found.pop()) if len(found) == 1 else ""

    def is_only_set(self, name: str) -> bool:
        """Return whether no statement outside of functions reads a name."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        waiting: list[ast.AST] = [*self.tree.body]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                return False
            inner = ast.iter_child_nodes(node.args if isinstance(node, kinds) else node)
            waiting += inner
        return True

    def classes(self) -> list[str]:
        """The classes that the file defines."""
        return [node.name for node in self.tree.body if isinstance(node, ast.ClassDef)]

    def obtained(self, name: str) -> Any:
        """Return what the file holds by another name; `None`: running it failed."""
        if name not in self.module.__dict__:
            needed, self.wanted = _needed(self.tree.body, name)
            for node in needed:
                if not _bound(node) <= self.module.__dict__.keys():
                    self._execute(node)
        return self.module.__dict__.get(name)

    def _parsed(self, text: str) -> ast.Module:
        try:
            return ast.parse(text, str(self.path))
        except SyntaxError:
            modern = text
            for pattern, replacement in _AS_PYTHON_3:
                modern = re.sub(pattern, replacement, modern, flags=re.MULTILINE)
            tree = ast.parse(modern, str(self.path))
            self.notes.append("print statements, magics: read as Python 3")
            return tree

    def _run(self, root: str) -> None:
        sys.path.append(str(self.path.resolve().parent))
        name = self.path.stem
        if _is_anothers(name, self.path):
            name = f"reviewed_{name}"  # a user's json.py must not become everybody's
        specification = importlib.util.spec_from_file_location(name, self.path)
        assert specification is not None
        self.module = importlib.util.module_from_spec(specification)
        sys.modules[name] = self.module
        self.module.__dict__["__imports__"] = _imports(self.tree)
        self.module.__dict__["__reviewed_file__"] = self
        self.module.__dict__.update({"xrange": range, "unicode": str, "raw_input": input})
        needed, self.wanted = _needed(self.tree.body, root)
        if any(root in _bound(node) for node in needed):
            for node in needed:
                self._execute(node)
            if root in self.module.__dict__:
                return
        self.wanted = set()
        for node in self.tree.body:
            if node not in needed:
                self._execute(node)

    def _execute(self, node: ast.stmt) -> None:
        flags = _future(self.tree)
        pieces: list[ast.stmt] = [node]
        if isinstance(node, (ast.Import, ast.ImportFrom)) and len(node.names) > 1:
            pieces = [
                _with_names(node, alias)
                for alias in node.names
                if not self.wanted or _bound(ast.Import([alias])) & self.wanted
            ]
        for piece in pieces:
            try:
                if isinstance(piece, ast.FunctionDef) and piece.name == TRAINING:
                    self._execute_training(piece)
                    continue
                code: CodeType = compile(
                    ast.Module([piece], []), str(self.path), "exec", flags, dont_inherit=True
                )
                with _without_command_line():
                    exec(code, self.module.__dict__)
            except SystemExit as error:
                self._failed(piece, error)
            except Exception as error:
                if not self._replace_import(piece):
                    self._failed(piece, error)

    def _execute_training(self, node: ast.FunctionDef) -> None:
        """Define the function that a loop was made, with a source that can be read."""
        name, text = f"<the loop of {self.path}>", ast.unparse(node)
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        exec(compile(text, name, "exec", dont_inherit=True), self.module.__dict__)
        self.module.__dict__[TRAINING].reviewed_at = str(self.path.resolve()), node.end_lineno

    def _failed(self, node: ast.stmt, error: BaseException) -> None:
        first = ast.unparse(node).splitlines()[0]
        first = first if len(first) < 60 else first[:57] + "…"
        message = described(error)
        text = f"line {node.lineno} (`{first}`) raised {message.split(' at `')[0]}"
        self.notes.append(text)

    def _replace_import(self, node: ast.stmt) -> bool:
        """Bind what an import that no longer works meant, where today's Keras has it."""
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            return False
        (alias,) = node.names
        is_module = isinstance(node, ast.Import)
        package = alias.name if isinstance(node, ast.Import) else node.module or ""
        bound = alias.asname or alias.name.split(".")[0]
        found: Any = None
        if package.split(".")[0] in _REPORTS:
            found = _Report()
            self.notes.append(f"{package} is not installed: nothing is reported")
        elif _is_lightning(package):
            found = lightning() if is_module else getattr(lightning(), alias.name, None)
            self.notes.append(f"{package} is not installed: its modules are taken for torch's")
        elif _is_of_keras(package):
            found = _module_today(package) if is_module else today(alias.name)
            if found is not None:
                found = keras if is_module and not alias.asname else found
                self.replaced[bound] = package if is_module else f"{package}.{alias.name}"
        if found is None:
            return False
        self.module.__dict__[bound] = found
        return True


_IS_TRAINING = re.compile(r"\.backward\(|GradientTape\(|\bvalue_and_grad\(|\bgrad\(")
_IS_COST = re.compile(r"(total_?|full_?)?(loss|cost|objective|J)(_?(value|total))?", re.IGNORECASE)


def _with_training_as_functions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a script, where the body of a loop that trains is a function of a batch.

    So is one inside of `if __name__ == "__main__":`, or of a function `main` without arguments.
    """
    bound = set().union(*(_bound(node) for node in body)) if body else set()
    for node in body:
        inner = _run_by_script(node)
        if any(map(_innermost, inner)):
            yield from _with_training_as_functions(inner)
            continue
        loop = _innermost(node) if isinstance(node, (ast.For, ast.While, ast.With)) else None
        made = None if loop is None else _step_of(loop, node, bound | _bound(node))
        yield node if made is None else made


def _run_by_script(node: ast.stmt) -> list[ast.stmt]:
    """What is below `if __name__ == "__main__":` or in a function without arguments."""
    is_main = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    is_function = isinstance(node, ast.FunctionDef) and not ast.unparse(node.args)
    if not isinstance(node, (ast.If, ast.FunctionDef)) or not (is_main or is_function):
        return []
    return [statement for statement in node.body if not isinstance(statement, ast.Return)]


def _innermost(node: ast.AST) -> ast.For | ast.While | None:
    """The innermost loop that derives or assigns a cost; `None`: there is none."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
        return None
    for child in ast.iter_child_nodes(node):
        inner = _innermost(child)
        if inner is not None:
            return inner
    if isinstance(node, (ast.For, ast.While)) and (
        _IS_TRAINING.search(ast.unparse(node)) or _costs_assigned(node)
    ):
        return node
    return None


def _costs_assigned(loop: ast.For | ast.While) -> list[str]:
    return [name for node in loop.body for name in _bound(node) if _IS_COST.fullmatch(name)]


def _step_of(loop: ast.For | ast.While, around: ast.AST, bound: set[str]) -> ast.FunctionDef | None:
    """The body of a loop as a function of a batch that returns its cost and its slopes.

    `None`: which of its names is a batch cannot be told.
    """
    counters = {
        name
        for outer in ast.walk(around)
        if isinstance(outer, ast.For)
        for name in _bound(ast.Assign([outer.target], ast.Constant(0)))
    }
    target = loop.target if isinstance(loop, ast.For) else None
    through = _used(loop.iter) if isinstance(loop, ast.For) else set()
    is_count = bool(through & {"range", "count"}) or target is None
    own = _bound(ast.Module([*loop.body], []))
    if is_count:
        read = [n.id for n in ast.walk(loop) if isinstance(n, ast.Name)]
        free = bound - own - counters
        data = next((n for n in read if is_batch(n) and n in free), None)
        target = None
    else:
        data = "x_batch"
    if data is None:
        return None
    given = f"{data} = {data}"
    if target is not None and "enumerate" in through and isinstance(target, ast.Tuple):
        target = target.elts[-1]
    if target is not None:
        items = target.elts if isinstance(target, (ast.Tuple, ast.List)) else []
        given = "\n".join(f"{ast.unparse(item)} = {data}" for item in items)
        given = given or f"{ast.unparse(target)} = {data}"
    costs = _costs_assigned(loop)
    kept = [name for name in own if re.match(r"_?(d|g|grad|delta_?)_?[wbWB]|.*grad", name)]
    held = ", ".join(f"{name!r}: {name}" for name in (*costs[-1:], *kept))
    outer = sorted(own & bound - {data})
    text = "\n".join(
        [
            f"def {TRAINING}({data}):",
            *(f"    global {name}" for name in outer),
            *(f"    {name} = 0" for name in sorted(counters - {data} - set(outer))),
            *(f"    {line}" for line in given.splitlines()),
            *(f"    {line}" for node in loop.body for line in ast.unparse(node).splitlines()),
            f"    return {{{held}}}" if costs else "",
        ]
    )
    made = ast.parse(text).body[0]
    assert isinstance(made, ast.FunctionDef)
    made.end_lineno = loop.lineno  # where it is, for who is told
    return made


# Packages of progress bars and logs: no number depends on them.
_REPORTS = {
    "tqdm",
    "wandb",
    "tensorboardX",
    "tensorboard",
    "mlflow",
    "loguru",
    "progressbar",
    "rich",
}


class _Report:
    """Stands for a progress bar or a log that is not installed: goes through what it is given."""

    def __init__(self, items: Any = ()) -> None:
        self._items = range(items) if isinstance(items, int) else items

    def __call__(self, items: Any = (), *arguments: Any, **more: Any) -> _Report:
        return _Report(items)

    def __getattr__(self, name: str) -> _Report:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Report()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@contextlib.contextmanager
def _without_command_line() -> Iterator[None]:
    """Let `parse_args()` of the file give the defaults: the command line is not its own."""
    given, parse = sys.argv, argparse.ArgumentParser.parse_args

    def parsed(self: Any, args: Any = None, namespace: Any = None) -> Any:
        for action in self._actions:
            if action.required and action.option_strings:
                action.required = False
            elif not action.option_strings:
                action.nargs = "*"
        return parse(self, [] if args is None else args, namespace)

    sys.argv = given[:1]
    argparse.ArgumentParser.parse_args = parsed  # type: ignore[method-assign]
    try:
        yield
    finally:
        sys.argv = given
        argparse.ArgumentParser.parse_args = parse  # type: ignore[method-assign]


def _is_lightning(package: str) -> bool:
    return package.split(".")[0] in ("lightning", "pytorch_lightning")


@functools.cache
def lightning() -> Any:
    """What stands for Lightning where it is not installed: a torch module that logs nothing."""
    import torch

    class LightningModule(torch.nn.Module):
        def save_hyperparameters(self, *names: str, **more: Any) -> None:
            frame = inspect.currentframe()
            caller = {} if frame is None or frame.f_back is None else frame.f_back.f_locals
            kept = {n: v for n, v in caller.items() if n not in ("self", "__class__")}
            self.hparams = SimpleNamespace(**kept)

        def log(self, *arguments: Any, **more: Any) -> None:
            pass

        log_dict = log

    found = SimpleNamespace(LightningModule=LightningModule)
    found.pytorch = found
    return found


def _is_of_keras(package: str) -> bool:
    return package.split(".")[0] in ("keras", "tensorflow", "tf_keras", "keras_core")


def _module_today(name: str) -> Any:
    """Today's module for one that went: keras.engine.topology, tensorflow.keras.layers."""
    if not _is_of_keras(name) or "keras" not in name:
        return None
    return today(name.rpartition(".")[2]) or keras


def _with_names(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    """An import of one of the names of an import."""
    if isinstance(node, ast.Import):
        return ast.copy_location(ast.Import([alias]), node)
    return ast.copy_location(ast.ImportFrom(node.module, [alias], node.level), node)


def _future(tree: ast.Module) -> int:
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                feature = getattr(__future__, alias.name, None)
                flags |= 0 if feature is None else feature.compiler_flag
    return flags


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement binds in the module."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, (ast.Store, ast.Del)):
            found.add(child.id)
        elif isinstance(child, ast.ExceptHandler) or not isinstance(child, ast.Lambda):
            found |= _bound(child)
    return found


def _imports(tree: ast.Module) -> set[str]:
    """The packages that a file imports, needed or not."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _used(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _methods_used(node: ast.AST) -> set[str]:
    return {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def _methods_of(node: ast.AST) -> set[str]:
    """The methods of a class whose names say whose they are."""
    if not isinstance(node, ast.ClassDef):
        return set()
    found = {n.name for n in node.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"}
    return found - {"forward", "call", "build", "get_config", "fit", "train", "step", "backward"}


def _models_assigned(tree: ast.Module) -> Iterator[str]:
    """The names that are bound to a model of Keras, in their order."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function = node.value.func
            made = function.attr if isinstance(function, ast.Attribute) else ""
            made = function.id if isinstance(function, ast.Name) else made
            if made in ("Model", "Sequential"):
                yield from (n.id for n in node.targets if isinstance(n, ast.Name))


def _changes(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The names whose objects a statement changes, and by what method or attribute."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        if isinstance(function, ast.Attribute):
            base: ast.AST = function
            while isinstance(base, (ast.Attribute, ast.Subscript)):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id, function.attr
    elif isinstance(node, (ast.Assign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            base = target
            while isinstance(base, (ast.Attribute, ast.Subscript)):
                base = base.value
            if isinstance(base, ast.Name) and base is not target:
                yield base.id, ""


def _needed(body: list[ast.stmt], root: str) -> tuple[list[ast.stmt], set[str]]:
    """The statements that a name needs, in their order, and the names that they need."""
    wanted, chosen = {root}, set()
    modules = {
        name for n in body if isinstance(n, (ast.Import, ast.ImportFrom)) for name in _bound(n)
    }
    changed = True
    while changed:
        changed = False
        for position, node in enumerate(body):
            if position in chosen:
                continue
            needs = bool(_bound(node) & wanted) or "*" in _bound(node)
            for name, by in _changes(node):
                if name in modules:
                    needs = needs or bool(_SETS_UP.match(by)) or by == ""
                elif name in wanted:
                    needs = needs or not _DEMONSTRATES.match(by)
            if needs:
                chosen.add(position)
                wanted |= _used(node) if not isinstance(node, ast.Import) else set()
                changed = True
    return [node for position, node in enumerate(body) if position in chosen], wanted
