"""What a review in the process of somebody's own leaves as it was: everything around it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from keras_impl.backends.keras_internals import seeds_kept


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore random states, environment, working folder, `sys.path` and `sys.modules`.

    Of the modules those that came from a folder that was put on the path meanwhile go, and those
    that were replaced come back; what Keras and the backends have loaded stays.

    >>> before = random.getstate()
    >>> with restored():
    ...     random.seed(0)
    >>> random.getstate() == before
    True
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    of_torch = None if torch is None else torch.get_rng_state()
    floatx, errors = keras.config.floatx(), np.geterr()
    environment, folder = dict(os.environ), os.getcwd()
    path, modules = [*sys.path], dict(sys.modules)
    try:
        with seeds_kept():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(of_torch)
        keras.config.set_floatx(floatx)
        np.seterr(**errors)
        os.chdir(folder)
        for name in {*os.environ} - {*environment}:
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        added = {os.path.realpath(entry) for entry in sys.path if entry not in path}
        sys.path[:] = path
        for name, module in [*sys.modules.items()]:
            if name not in modules and _comes_from(module, added):
                del sys.modules[name]
        for name, module in modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module


def _comes_from(module: object, folders: set[str]) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    parents = {str(parent) for parent in Path(os.path.realpath(file)).parents}
    # Not what is installed below a folder that holds a virtual environment.
    return bool(parents & folders) and "site-packages" not in file
