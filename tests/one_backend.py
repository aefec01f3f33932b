"""The process of one backend: that of KERAS_BACKEND, or a child of `tests.backend_processes`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sys
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

BACKEND_FOLDERS = (
    "tests/keras_impl",
    "tests/sae_oracle/reviewer",
    "keras_impl",
    "sae_oracle/bench",
    "sae_oracle/reviewer",
    "sae_oracle/workers",
)
TRAINING_BACKENDS = ("jax", "tensorflow", "torch")
INFERENCE_BACKENDS = ("numpy", "openvino")
BACKENDS = TRAINING_BACKENDS + INFERENCE_BACKENDS


def is_backend_path(path: Path, root: Path) -> bool:
    return any(path.is_relative_to(root / folder) for folder in BACKEND_FOLDERS)


def start_afresh() -> None:
    """Let Keras name layers and draw seeds as in a new process."""
    import keras
    import numpy as np

    if keras.config.backend() == "tensorflow":
        from tensorflow.python.eager import context

        # Keras would drop every compiled kernel of every operation, which no result depends on.
        context.context().clear_kernel_cache = lambda: None
    # Garbage need not be collected here: a second each time, over all that a backend loads.
    keras.utils.clear_session(free_memory=False)
    # Keras draws its seeds from these. (`set_random_seed` drops TensorFlow's kernels, too.)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if keras.config.backend() == "torch":
        import torch

        torch.manual_seed(0)


class DoctestOfBackend(pytest.DoctestItem):
    """A doctest with a backend in its id, as a parametrised test has."""

    def __init__(self, name: str, parent: Any, **doctest: Any) -> None:
        super().__init__(name=name, parent=parent, **doctest)
        # A doctest takes no nodeid, and in the one that it makes pytest 9.2 sees no parameter.
        pytest.Item.__init__(self, name, parent, nodeid=f"{parent.nodeid}::{name}")


class BackendIds:
    """Writes the backend into the ids of its tests, and leaves out what does not run on it."""

    def __init__(self, root: Path, backend: str) -> None:
        self.root = root
        self.backend = backend

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makemodule(self, module_path: Path) -> Iterator[Any]:
        """Every test of a backend has the fixture `backend`, whose only parameter it is."""
        module = yield
        if is_backend_path(module_path, self.root):
            module.add_marker(pytest.mark.usefixtures("backend"))
        return module

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[Any]:
        report = yield
        if report.result and is_backend_path(collector.path, self.root):
            report.result = [self._with_backend(node) for node in report.result]
        return report

    def _with_backend(self, node: Any) -> Any:
        if not isinstance(node, pytest.DoctestItem):
            return node
        name = f"{node.name}[{self.backend}]"
        return DoctestOfBackend.from_parent(
            node.parent, name=name, runner=node.runner, dtest=node.dtest
        )

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        selected: list[pytest.Item] = []
        deselected: list[pytest.Item] = []
        for item in items:
            (selected if self._runs(item) else deselected).append(item)
        if deselected:
            config.hook.pytest_deselected(items=deselected)
            items[:] = selected

    def _runs(self, item: pytest.Item) -> bool:
        if not is_backend_path(item.path, self.root):
            return True
        only = item.get_closest_marker("only_backends")
        if only is not None:
            return self.backend in only.args
        return self.backend in TRAINING_BACKENDS or bool(item.get_closest_marker("inference"))


# --- a child ---------------------------------------------------------------------------------


def work(connection: Connection) -> None:
    """What a child does."""
    sys.argv, arguments, options = connection.recv()
    config = pytest.Config.fromdictargs(options, arguments)
    config.pluginmanager.register(Orders(connection, config), "orders")
    sys.exit(config.hook.pytest_cmdline_main(config=config))


class Orders:
    """Does what the parent orders, and tells it what comes of it.

    The orders are ("collect", path) for each file, ("run", ids), and ("end", None).
    """

    def __init__(self, connection: Connection, config: pytest.Config) -> None:
        self.connection = connection
        self.config = config
        self.orders = self._receive()
        self.items: dict[str, pytest.Item] = {}
        self.ids: list[str] = []
        self.problems: list[tuple[str, str]] = []
        self.reports: list[Any] = []
        self.has_terminal = False

    def tell(self, kind: str, *content: Any) -> None:
        # JSON, and not a pickle: what the parent unpickles might import Keras.
        try:
            self.connection.send_bytes(json.dumps([kind, *content], default=str).encode())
        except OSError:
            os._exit(1)  # there is no parent any more

    def _receive(self) -> Iterator[tuple[str, Any]]:
        with contextlib.suppress(EOFError, OSError):
            while (order := self.connection.recv())[0] != "end":
                yield order

    def pytest_collection(self, session: pytest.Session) -> bool:
        self.ids = self._next_to_run(session)
        return True

    def _next_to_run(self, session: pytest.Session) -> list[str]:
        for order, content in self.orders:
            if order == "run":
                return content
            self.problems = []
            items = session.perform_collect([content])
            self.items.update((item.nodeid, item) for item in items)
            descriptions = [description_of(item) for item in items]
            self.tell("collected", content, descriptions, self.problems)
        return []

    def pytest_collectreport(self, report: Any) -> None:
        if not report.passed:
            reason = report.longrepr[2] if report.skipped else report.longreprtext
            self.problems.append((report.outcome, reason))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        while self.ids:
            items = [self.items[nodeid] for nodeid in self.ids]
            # What is set up for the session outlives the file: the next one is to come.
            for item, following in itertools.zip_longest(items, items[1:], fillvalue=session):
                self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.ids = self._next_to_run(session)
        return True

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.reports = []
        self.tell("started", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        to_data = self.config.hook.pytest_report_to_serializable
        self.reports.append(to_data(config=self.config, report=report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.pytest_leave_pdb()
        self.tell("finished", nodeid, self.reports)

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        category, text = warning_message.category.__name__, str(warning_message.message)
        place = warning_message.filename, warning_message.lineno
        self.tell("warning", category, text, place, when, nodeid, location)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[Any]) -> None:
        if isinstance(excinfo.value, pytest.exit.Exception):
            self.tell("exit", excinfo.value.msg, excinfo.value.returncode)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.tell("error", str(excrepr))

    # The debugger reads keys: the parent lets one child do so at a time.

    @pytest.hookimpl(tryfirst=True)
    def pytest_exception_interact(self) -> None:
        if self.config.option.usepdb:
            self.pytest_enter_pdb()

    def pytest_enter_pdb(self) -> None:
        if not self.has_terminal:
            self.tell("terminal wanted")
            self.has_terminal = self.connection.recv()

    def pytest_leave_pdb(self) -> None:
        if self.has_terminal:
            self.has_terminal = False
            self.tell("terminal free")

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(Terminal(reporter), "terminalreporter")


class Terminal:
    """What Pdb, --setup-show and live logs write to: a reporter whose hooks pytest does not see."""

    def __init__(self, reporter: Any) -> None:
        self.reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reporter, name)


def description_of(item: pytest.Item) -> dict[str, Any]:
    """What the parent needs to know of a test."""
    above = (pytest.Session, pytest.Directory, pytest.File)
    return {
        "names": [node.name for node in item.listchain() if not isinstance(node, above)],
        "location": item.location,
        "marks": [(mark.name, mark.kwargs) for mark in item.iter_markers()],
        "keywords": sorted(item.listextrakeywords()),
    }
