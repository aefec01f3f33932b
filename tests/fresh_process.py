"""Processes that tests start: with one backend and nothing else that Keras loads if it is there.

As most people have it, who install one backend. It also takes half the time: Keras loads
TensorFlow on every backend to save a model or to seed a generator, and scikit-learn and Matplotlib
with itself. The processes of `backend_processes` have everything installed.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOADED_IF_THERE = ("tensorflow", "sklearn", "matplotlib")


def environment(
    backend: str | None = None, *, hidden: tuple[str, ...] = LOADED_IF_THERE, **more: str
) -> dict[str, str]:
    """The environment of a process on a backend, on the CPU, where packages cannot be imported.

    Without what pytest or an engine of data parallelism may have left in this one.
    """
    dropped = ("PYTEST", "SAE_ORACLE", "TF_CONFIG", "XLA_FLAGS", "JAX_", "KERAS_BACKEND")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    hidden = tuple(name for name in hidden if name != backend)
    return {
        **kept,
        **({"KERAS_BACKEND": backend} if backend else {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), _hiding(hidden).name]),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
        **more,
    }


# What anybody's folder may hold beside the data.
FOREIGN = (
    *("random.py", "json.py", "numpy.py", "typing.py", "keras.py", "rich.py"),
    *(f"{name}/__init__.py" for name in ("reference", "keras_impl", "tests")),
)


def crowd(folder: Path) -> Path:
    """Put files into a folder that have the names of modules, ours among them, and fail if run."""
    for name in FOREIGN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('the {name} of the working folder was run')")
    return folder


@functools.cache
def _hiding(names: tuple[str, ...]) -> tempfile.TemporaryDirectory[str]:
    """A folder on the path in which these packages fail to be imported."""
    folder = tempfile.TemporaryDirectory(prefix="sae-oracle-hidden-")
    for name in names:
        (Path(folder.name) / f"{name}.py").write_text(f"raise ImportError('{name} is hidden')\n")
    return folder
