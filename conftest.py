"""Set-up of every test process: the backend, the device, Hypothesis, and how to reproduce."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import sys
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

import reference
from tests.backend_processes import attach
from tests.fork_server import Forks
from tests.fresh_process import compiling_quickly
from tests.one_backend import is_backend_path, start_afresh

hypothesis.settings.register_profile("dev", max_examples=15, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=15, deadline=None, derandomize=True, print_blob=True, database=None
)
# Where each example is compiled anew and another backend has as many as ever.
for profile in ("dev", "ci"):
    hypothesis.settings.register_profile(
        f"{profile}-shared", hypothesis.settings.get_profile(profile), max_examples=6
    )
# That a mutant fails is enough: no smaller example is looked for.
hypothesis.settings.register_profile(
    "mutants",
    hypothesis.settings.get_profile("ci"),
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)

# What would bring Keras into the parent, and has no examples: the first is run by hand, the
# third loads the reviewer when somebody asks for its names, as pytest does. And programs.
collect_ignore = [
    *("tests/asserting.py", "tests/data", "sae_oracle/__init__.py"),
    "sae_oracle/vectors",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default=None,
        help="comma-separated backends to test (default: every installed one)",
    )
    parser.addoption(
        "--every-case",
        action="store_true",
        help="run every case of a test on JAX and on TensorFlow (default, in a run of everything: "
        "on one of them, and all on torch)",
    )
    parser.addoption(
        "--device",
        default=None,
        choices=("cpu", "gpu"),
        help="where backend tests run; gpu skips what sees none (default: cpu)",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    default = "ci" if os.environ.get("CI") else "dev"
    profile = os.environ.get("HYPOTHESIS_PROFILE", default)
    hypothesis.settings.load_profile(profile)
    keep_what_jax_compiles(config)
    shared = f"{profile}-shared" if profile in ("dev", "ci") else profile
    attach(config, where_shared={"HYPOTHESIS_PROFILE": shared})
    if os.environ.get("KERAS_BACKEND"):
        prepare_backend(os.environ["KERAS_BACKEND"], config.getoption("device") or "cpu")


def prepare_backend(backend: str, device: str) -> None:
    """Make a process of one backend behave the same on every machine."""
    os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp(prefix="sae-oracle-keras-"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = compiling_quickly(backend, os.environ.get("XLA_FLAGS", ""))
    if backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        # The first call into the vector math library may race with its own set-up and return
        # wrong digits (pytorch issue 188792).
        for function in (torch.log, torch.exp, torch.log1p, torch.tanh, torch.sigmoid):
            function(torch.ones(1))
    elif backend == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")


MEASURED = pytest.StashKey[Any]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where the coverage of the oracle alone is measured (`make test`), import it, and stop.

    Measuring takes time in every file, so only the tests of the oracle are.
    """
    coverage = sys.modules.get("coverage")
    measured = coverage.Coverage.current() if coverage else None
    if measured is not None and measured.get_option("run:source") == ["reference"]:
        for module in pkgutil.iter_modules(reference.__path__, "reference."):
            importlib.import_module(module.name)
        measured.stop()
        session.config.stash[MEASURED] = measured


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    measured = item.config.stash.get(MEASURED, None)
    if measured is None:
        return (yield)
    is_running = measured.current() is not None
    if is_of_the_oracle(item) and not is_running:
        measured.start()
    try:
        return (yield)
    finally:
        if is_of_the_oracle(item) and not is_of_the_oracle(nextitem):
            measured.stop()


def is_of_the_oracle(item: pytest.Item | None) -> bool:
    return item is not None and "reference" in item.path.relative_to(item.config.rootpath).parts[:2]


def keep_what_jax_compiles(config: pytest.Config) -> None:
    """Keep it for the tests, processes and runs to come: a key is the program and its options."""
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def gpu_is_visible(backend: str) -> bool:
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    if backend == "tensorflow":
        import tensorflow

        return bool(tensorflow.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    # The examples of a module that needs an extra.
    if isinstance(item, pytest.DoctestItem) and not item.dtest.globs.get("INSTALLED", True):
        pytest.skip(item.dtest.globs["NEEDS"])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    backend = os.environ.get("KERAS_BACKEND")
    if backend and config.getoption("device") == "gpu" and not gpu_is_visible(backend):
        for item in items:
            if is_backend_path(item.path, config.rootpath):
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        profile = hypothesis.settings.get_current_profile_name()
        backend = os.environ.get("KERAS_BACKEND")
        variables = f"KERAS_BACKEND={backend} " if backend else ""
        report.sections.append(
            (
                "reproduce",
                f"{variables}HYPOTHESIS_PROFILE={profile} "
                f"python -m pytest {shlex.quote(item.nodeid)}",
            )
        )
    return report


@pytest.fixture(scope="session", params=[os.environ.get("KERAS_BACKEND")])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend of this process. Every test of a backend has it in its id."""
    return request.param


@pytest.fixture(scope="session")
def forks(backend: str) -> Iterator[Forks]:
    """The backend of this process, started once more for the processes that tests start."""
    with Forks(backend) as server:
        yield server


@pytest.fixture(autouse=True)
def _fresh_keras(request: pytest.FixtureRequest) -> None:
    if os.environ.get("KERAS_BACKEND") and is_backend_path(
        request.node.path, request.config.rootpath
    ):
        start_afresh()
