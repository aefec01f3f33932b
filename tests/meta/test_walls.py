"""Who may import whom: `reference` and `keras_impl` do not know each other, the tools know both."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from sae_oracle.processes import TRAINING_BACKENDS, installed
from tests.fresh_process import ROOT, environment

BELOW = ("reference", "keras_impl")
ABOVE = ("sae_oracle", "tests", "benchmarks", "examples")

# The two addresses of before the tools had a package of their own; both load it when asked for.
ALIASES = ("keras_impl/__init__.py", "keras_impl/datasets.py")


def imports(source: str, package: str) -> Iterator[tuple[str, bool]]:
    """What a file of a package imports, anywhere in it, and whether importing the file does it."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (package if node.level else str(node.module).split(".")[0]), at_once
        for child in ast.iter_child_nodes(node):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from walk(child, at_once and not function and not types_only)

    yield from walk(ast.parse(source), True)


def imported_by(package: str) -> dict[str, Set[str]]:
    """For each file of a package what it imports."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, package
    return {
        path.relative_to(ROOT).as_posix(): dict(imports(path.read_text("utf-8"), package)).keys()
        for path in paths
    }


def test_the_oracle_imports_numpy_alone() -> None:
    """And `certified`, which nothing else of it imports, python-flint: it has an extra for it."""
    for file, names in imported_by("reference").items():
        allowed = {"flint"} if file == "reference/certified.py" else set()
        assert names <= {"reference", "numpy", *allowed, *sys.stdlib_module_names}, file
    assert not [
        path
        for path in (ROOT / "reference").glob("*.py")
        if re.search(r"(import|from) reference.* certified", path.read_text(encoding="utf-8"))
    ]


def test_the_keras_objects_know_neither_the_oracle_nor_the_tools() -> None:
    for file, names in imported_by("keras_impl").items():
        allowed = {"sae_oracle"} if file in ALIASES else set()
        assert not names & {*ABOVE, "reference"} - allowed, file
    at_once = dict(imports((ROOT / ALIASES[0]).read_text("utf-8"), "keras_impl"))
    assert at_once["sae_oracle"] is False
    # Nothing inside imports the other alias, so `import keras_impl` does not either.
    assert not [
        path
        for path in (ROOT / "keras_impl").rglob("*.py")
        if re.search(r"(import|from) keras_impl\.datasets", path.read_text(encoding="utf-8"))
    ]


def test_the_tools_know_nothing_of_what_uses_them() -> None:
    for file, names in imported_by("sae_oracle").items():
        assert not names & {"tests", "benchmarks", "examples"}, file


def test_a_fallen_wall_is_seen() -> None:
    source = (
        "import numpy.linalg as n\n"
        "class A:\n    def b(self):\n        from sae_oracle.reviewer import review\n"
        "if TYPE_CHECKING:\n    import reference\n"
        "try:\n    import keras\nexcept ImportError:\n    from . import other\n"
    )
    found = {"numpy": True, "sae_oracle": False, "reference": False, "keras": True, "mine": True}
    assert dict(imports(source, "mine")) == found


LOADED = """
import sys, keras
before = set(sys.modules)
import keras_impl
names = {name.split(".")[0] for name in set(sys.modules) - before} - {"numpy", "keras"}
assert {*keras_impl.__all__} <= {*dir(keras_impl)}
print(*sorted(names - set(sys.stdlib_module_names)))
needs_scikit_learn = {"SparseAutoencoderTransformer"}
assert all(getattr(keras_impl, name) for name in {*keras_impl.__all__} - needs_scikit_learn)
assert "sae_oracle.reviewer" in sys.modules
for name in needs_scikit_learn:
    try:
        getattr(keras_impl, name)
    except ImportError as error:
        assert "pip install 'scikit-learn>=" in str(error)
    else:
        raise AssertionError(name)
"""


def test_importing_the_keras_objects_loads_nothing_that_keras_does_not() -> None:
    """No tools, no oracle, no SciPy, and nothing more of Rich: Keras itself loads Rich.

    No file asks for more when it is imported, on any backend, and on the one that starts quickest
    nothing more comes. Matplotlib and scikit-learn, which Keras loads where they are installed, are
    hidden, as are other backends: to load one would be an error.
    """
    of_keras = {"keras", "keras_impl", "numpy", *sys.stdlib_module_names}
    needs_scikit_learn = "keras_impl/transformer.py"
    for path in sorted((ROOT / "keras_impl").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file not in (ALIASES[1], needs_scikit_learn):
            found = imports(path.read_text("utf-8"), "keras_impl")
            assert {name for name, at_once in found if at_once} <= of_keras, file
    backend = next((name for name in TRAINING_BACKENDS if installed(name)), None)
    if backend is None:
        pytest.skip("no backend with gradients is installed")
    run = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=environment(backend),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["keras_impl"]


def test_importing_the_tools_starts_no_backend() -> None:
    program = (
        "import sys, sae_oracle\n"
        "assert {*sae_oracle.__all__} <= {*dir(sae_oracle)}\n"
        "print(*sorted({'keras', 'keras_impl', 'jax', 'tensorflow', 'torch'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == []


def test_type_checkers_know_the_lazy_names(tmp_path: Path) -> None:
    mypy = pytest.importorskip("mypy.api")
    configuration = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        re.sub(r"^packages = .*$", "", configuration, flags=re.MULTILINE), encoding="utf-8"
    )
    program = "import keras_impl, sae_oracle\n" + "".join(
        f"reveal_type({package}.{name})\n"
        for package in ("keras_impl", "sae_oracle")
        for name in ("Review", "assert_conforms", "review", "set_parameters", "to_parameters")
    )
    options = ["--config-file", str(tmp_path / "pyproject.toml"), "-c", program]
    found, problems, _ = mypy.run(options)
    assert not problems
    revealed = re.findall(r'Revealed type is "(.*)"', found)
    assert len(revealed) == 10, found
    assert all(kind.startswith("def (") for kind in revealed), found


@pytest.mark.parametrize("absent", TRAINING_BACKENDS)
@pytest.mark.parametrize("program", ["import keras_impl.losses", "from sae_oracle import review"])
def test_a_backend_that_is_not_installed_is_one_sentence(
    absent: str, program: str, tmp_path: Path
) -> None:
    """TensorFlow is what Keras takes where nobody says otherwise."""
    chosen = {} if absent == "tensorflow" else {"KERAS_BACKEND": absent}
    hidden = ("sklearn", "matplotlib", *TRAINING_BACKENDS)
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(hidden=hidden, KERAS_HOME=str(tmp_path), **chosen),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: Keras is to compute with {absent}, which is not inst")
    if installed("openvino"):  # nothing else is hidden
        assert "(installed: openvino)" in last
        assert "`export KERAS_BACKEND=openvino`" in last
    assert f"pip install 'sae-oracle[{absent}]'" in last
    assert "keras/src" not in run.stderr


# Whatever they held in the code of before, they did not say it.
SAY_NOTHING = {"into", "one", "said", "shown", "taken", "two", "whole"}


def test_names_say_what_they_hold() -> None:
    found = []
    for package in (*BELOW, *ABOVE, "docs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = {
                    ast.Name: lambda n: n.id if isinstance(n.ctx, ast.Store) else "",
                    ast.arg: lambda n: n.arg,
                    ast.FunctionDef: lambda n: n.name,
                }
                if names.get(type(node), lambda n: "")(node) in SAY_NOTHING:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert not found
