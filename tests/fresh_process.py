"""Processes that tests start: with one backend and nothing else that Keras loads if it is there.

As most people have it, who install one backend: the others look as if they were not installed, to
`import` and to `importlib.util.find_spec`. It also takes half the time: Keras loads TensorFlow on
every backend to save a model or to seed a generator, and scikit-learn and Matplotlib with itself.
The processes of `backend_processes` have everything installed.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]

TRAINING_BACKENDS = ("jax", "tensorflow", "torch")

LOADED_IF_THERE = ("tensorflow", "sklearn", "matplotlib")


def compiling_quickly(backend: str | None, flags: str = "") -> str:
    """XLA_FLAGS, with those that take two thirds off the time of compiling.

    XLA's own passes stay, which is where sums are reordered and steps fused; LLVM optimizes
    nothing, and a fusion is written out by the older of XLA's two ways. `make verify` has neither.
    """
    if "optimization_level" not in flags:
        flags += " --xla_backend_optimization_level=0"
        # A flag that it does not know ends a process: this one is known to the pinned jaxlib.
        if backend == "jax" and version("jaxlib").startswith("0.10."):
            flags += " --xla_cpu_use_fusion_emitters=false"
    return flags.strip()


def environment(
    backend: str | None = None,
    *,
    hidden: tuple[str, ...] | None = None,
    startup: str = "",
    **more: str,
) -> dict[str, str]:
    """The environment of a process on a backend, on the CPU, where packages cannot be imported.

    Without what pytest or an engine of data parallelism may have left in this one.

    Args:
        backend: KERAS_BACKEND; `None`: not set.
        hidden: What is not there; `None`: `LOADED_IF_THERE` and, on a backend, every other one.
        startup: A program that every process runs before all else.
        more: Other variables.
    """
    dropped = ("PYTEST", "SAE_ORACLE", "TF_CONFIG", "XLA_FLAGS", "JAX_", "KERAS_BACKEND")
    cache = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")  # saves time, and changes nothing
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(cache) or not name.startswith(dropped)
    }
    if hidden is None:
        hidden = LOADED_IF_THERE + (TRAINING_BACKENDS if backend else ())
    needed = {"jax", "numpy"} if backend == "numpy" else {backend}  # Keras's NumPy needs JAX
    hidden = tuple(sorted({*hidden} - needed))
    return {
        **kept,
        **({"KERAS_BACKEND": backend} if backend else {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), _on_startup(hidden, startup).name]),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
        **more,
        "XLA_FLAGS": compiling_quickly(backend, more.get("XLA_FLAGS", "")),
    }


# What anybody's folder may hold beside the data.
FOREIGN = (
    *("random.py", "json.py", "numpy.py", "typing.py", "keras.py", "rich.py"),
    *(f"{name}/__init__.py" for name in ("reference", "keras_impl", "tests")),
)

# What anybody's project may be called.
NAMES = FOREIGN[-3:]


def crowd(folder: Path, names: Iterable[str] = FOREIGN) -> Path:
    """Put files into a folder that have the names of modules, ours among them, and fail if run."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('the {name} of the working folder was run')")
    return folder


HIDING = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {hidden} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


@functools.cache
def _on_startup(hidden: tuple[str, ...], startup: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for the path: from it every process hides packages and runs the program."""
    folder = tempfile.TemporaryDirectory(prefix="sae-oracle-hidden-")
    program = HIDING.format(hidden=hidden) + startup
    (Path(folder.name) / "sitecustomize.py").write_text(program, encoding="utf-8")
    return folder


def with_foreign_names(variables: dict[str, str]) -> dict[str, str]:
    """The environment, with packages of anybody's that have the names of ours first on the path."""
    path = os.pathsep.join([_foreign_names().name, variables["PYTHONPATH"]])
    return {**variables, "PYTHONPATH": path}


@functools.cache
def _foreign_names() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="sae-oracle-names-")
    crowd(Path(folder.name), NAMES)
    return folder
