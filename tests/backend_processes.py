"""Runs the backend tests of one pytest call in one child process for each backend.

Keras fixes its backend when it is first imported. So the parent, which imports no Keras, collects
and runs the tests of the oracle; the tests under `BACKEND_FOLDERS` are collected and run by child
pytests, one for each installed backend, as many at a time as there are cores. Each child writes
its reports as JSON lines; the parent replays them with the backend appended to the test's id, as
in `tests/keras_impl/test_losses.py::test_value[torch]`. Exit code, -x, -k, -m, --lf, --co, JUnit,
paths and pasted ids work as usual.

With KERAS_BACKEND set, none of this happens: everything runs in the one process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
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

REPORTS_VARIABLE = "SAE_ORACLE_REPORTS"

# Several processes at once on few cores: one thread each.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def installed(backend: str) -> bool:
    """Whether the backend's package can be imported (not importing it)."""
    return importlib.util.find_spec(backend) is not None


def is_child() -> bool:
    return REPORTS_VARIABLE in os.environ


def is_backend_path(path: Path, root: Path) -> bool:
    return any(path.is_relative_to(root / folder) for folder in BACKEND_FOLDERS)


def split_argument(argument: str, backends: tuple[str, ...] = BACKENDS) -> tuple[str, str | None]:
    """Take the backend off a pasted id: `a.py::b[torch]` → (`a.py::b`, `torch`)."""
    for backend in backends:
        if argument.endswith(f"[{backend}]"):
            return argument.removesuffix(f"[{backend}]"), backend
    return argument, None


def with_backend(test: str, backend: str) -> str:
    """The id of a test on a backend."""
    return f"{test}[{backend}]"


# --- in a child, or with KERAS_BACKEND set ---------------------------------------------------


def select_for_backend(config: pytest.Config, items: list[pytest.Item], backend: str) -> None:
    """Deselect what does not run on this backend."""
    selected, deselected = [], []
    for item in items:
        runs = True
        if is_backend_path(item.path, config.rootpath):
            only = item.get_closest_marker("only_backends")
            if only is not None:
                runs = backend in only.args
            elif backend in INFERENCE_BACKENDS:
                runs = item.get_closest_marker("inference") is not None
        (selected if runs else deselected).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


class ReportWriter:
    """The child's side: every report as a line of JSON, as soon as it is there."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self.config = config
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, **message: Any) -> None:
        self.file.write(json.dumps(message) + "\n")
        self.file.flush()

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        if collection_path.is_dir():
            return None
        return None if is_backend_path(collection_path, config.rootpath) else True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
            self.write(kind="collect", report=data)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(kind="collected", tests=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(kind="started", test=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.write(kind="report", report=data)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.write(kind="finished", exitstatus=int(exitstatus))


# --- in the parent ---------------------------------------------------------------------------


@dataclass
class Child:
    backend: str
    process: subprocess.Popen[bytes]
    reports: Path
    output: Path
    read: int = 0
    running: str = ""
    exitstatus: int | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The whole lines that are new since the last call."""
        with open(self.reports, "rb") as file:
            file.seek(self.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@dataclass(eq=False)
class BackendProcesses:
    """The parent's side: starts the children, replays their reports, sums them up."""

    config: pytest.Config
    backends: tuple[str, ...]
    absent: tuple[str, ...]
    arguments: dict[str, list[str]]
    waiting: list[str] = field(default_factory=list)
    running: list[Child] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="sae-oracle-tests-")
        self.counts = {backend: Counter() for backend in self.backends}
        self.waiting = [backend for backend in self.backends if self.arguments[backend]]
        self.at_once = max(1, min(os.cpu_count() or 1, len(self.waiting)))
        self._fill()

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.at_once:
            self.running.append(self._spawn(self.waiting.pop(0)))

    def _spawn(self, backend: str) -> Child:
        folder = Path(self.folder.name)
        reports, output = folder / f"{backend}.jsonl", folder / f"{backend}.log"
        reports.touch()
        environment = {**os.environ, "KERAS_BACKEND": backend, REPORTS_VARIABLE: str(reports)}
        if self.at_once > 1:
            environment = {**ONE_THREAD, **environment}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
        command += [*_options_for_children(self.config), *self.arguments[backend]]
        with open(output, "wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.config.rootpath,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        return Child(backend, process, reports, output)

    def stop(self) -> None:
        self.waiting = []
        for child in self.running:
            child.process.kill()
            child.process.wait()
        self.running = []
        self.folder.cleanup()

    def replay(self, session: pytest.Session) -> None:
        """Replay every report until all children have ended, or the session is to stop."""
        while self.running:
            for child in list(self.running):
                ended = child.process.poll() is not None
                for message in child.messages():
                    self._replay(session, child, message)
                    if session.shouldfail:
                        raise session.Failed(session.shouldfail)
                    if session.shouldstop:
                        raise session.Interrupted(session.shouldstop)
                if ended:
                    self.running.remove(child)
                    self._close(session, child)
            self._fill()
            if self.running:
                time.sleep(0.05)

    def _replay(self, session: pytest.Session, child: Child, message: dict[str, Any]) -> None:
        hook = self.config.hook
        kind = message["kind"]
        if kind == "collected":
            session.testscollected += len(message["tests"])
            if self.config.option.collectonly:
                for test in message["tests"]:
                    print(with_backend(test, child.backend))
        elif kind == "started":
            child.running = message["test"]
        elif kind == "finished":
            child.exitstatus = message["exitstatus"]
        else:
            report = hook.pytest_report_from_serializable(
                config=self.config, data=message["report"]
            )
            report.nodeid = with_backend(report.nodeid, child.backend)
            if kind == "collect":
                self.counts[child.backend]["failed"] += 1
                hook.pytest_collectreport(report=report)
                session.testsfailed += 1
                return
            if isinstance(report.longrepr, list):  # JSON knows no tuples
                report.longrepr = tuple(report.longrepr)
            path, line, domain = report.location
            report.location = (path, line, with_backend(domain, child.backend))
            self._count(child.backend, report)
            hook.pytest_runtest_logreport(report=report)

    def _count(self, backend: str, report: pytest.TestReport) -> None:
        if report.failed:
            self.counts[backend]["failed"] += 1
        elif report.skipped:
            self.counts[backend]["skipped"] += 1
        elif report.when == "call":
            self.counts[backend]["passed"] += 1

    def _close(self, session: pytest.Session, child: Child) -> None:
        """A child that ended without saying so, or with an internal error, is a failure."""
        orderly = (0, 1, 2, 5)
        if child.exitstatus in orderly and child.process.returncode == child.exitstatus:
            return
        text = child.output.read_text(errors="replace")[-6000:]
        where = child.running or "before the first test"
        report = pytest.TestReport(
            nodeid=with_backend(child.running or "pytest", child.backend),
            location=("", 0, with_backend(child.running or "pytest", child.backend)),
            keywords={},
            outcome="failed",
            longrepr=(
                f"The {child.backend} process ended with code {child.process.returncode} "
                f"({where}).\n{text}"
            ),
            when="call",
        )
        self.counts[child.backend]["failed"] += 1
        self.config.hook.pytest_runtest_logreport(report=report)

    # pytest's hooks

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        return True if is_backend_path(collection_path, config.rootpath) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Any:
        try:
            result = yield
            self.replay(session)
            return result
        finally:
            self.stop()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.config.option.collectonly:
            return
        terminalreporter.section("backends", sep="-")
        for backend in self.backends:
            count = self.counts[backend]
            terminalreporter.line(
                f"backend {backend}: {count['passed']} passed, {count['failed']} failed, "
                f"{count['skipped']} skipped"
            )
        for backend in self.absent:
            terminalreporter.line(f"backend {backend}: not installed, not tested")
        totals = {
            outcome: sum(count[outcome] for count in self.counts.values())
            for outcome in ("passed", "failed", "skipped")
        }
        terminalreporter.line(
            f"all backends: {totals['passed']} passed, {totals['failed']} failed, "
            f"{totals['skipped']} skipped"
        )


def _options_for_children(config: pytest.Config) -> list[str]:
    """The options of this call that mean something to a child."""
    option = config.option
    passed = [f"--tb={'long' if option.tbstyle == 'auto' else option.tbstyle}"]
    if option.keyword:
        passed += ["-k", option.keyword]
    if option.markexpr:
        passed += ["-m", option.markexpr]
    if option.maxfail:
        passed += [f"--maxfail={option.maxfail}"]
    if option.showlocals:
        passed += ["--showlocals"]
    if option.collectonly:
        passed += ["--collect-only", "-q"]
    for test in option.deselect or []:
        passed += ["--deselect", split_argument(test)[0]]
    for name in ("device", "hypothesis_seed", "hypothesis_profile"):
        value = getattr(option, name, None)
        if value is not None:
            passed += [f"--{name.replace('_', '-')}={value}"]
    return passed


def _arguments_for_children(config: pytest.Config, backend: str) -> list[str]:
    """The paths and ids that a backend's child runs; none: it need not start."""
    root = config.rootpath
    chosen: list[str] = []
    for argument in config.args:
        test, only = split_argument(argument)
        path = Path(config.invocation_params.dir, test.split("::")[0]).resolve()
        if only not in (None, backend):
            continue
        if is_backend_path(path, root):
            chosen.append(test)
        else:
            folders = [root / folder for folder in BACKEND_FOLDERS if (root / folder).is_dir()]
            chosen += [str(folder) for folder in folders if folder.is_relative_to(path)]
    if getattr(config.option, "lf", False):
        failed = [split_argument(test) for test in config.cache.get("cache/lastfailed", {})]
        if failed:
            chosen = [test for test, of in failed if of == backend]
    return list(dict.fromkeys(chosen))


def attach(config: pytest.Config) -> None:
    """Set a pytest process up as parent, as child, or as the one process of KERAS_BACKEND."""
    if is_child():
        config.pluginmanager.register(
            ReportWriter(config, os.environ[REPORTS_VARIABLE]), "report-writer"
        )
        return
    if os.environ.get("KERAS_BACKEND"):
        return
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("Under xdist set KERAS_BACKEND to one backend.")
    asked = config.getoption("backends")
    names = tuple(asked.split(",")) if asked else BACKENDS
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise pytest.UsageError(f"--backends takes {', '.join(BACKENDS)}; got {unknown[0]!r}.")
    present = tuple(name for name in names if installed(name))
    absent = tuple(name for name in names if name not in present)
    arguments = {backend: _arguments_for_children(config, backend) for backend in present}
    processes = BackendProcesses(config, present, absent, arguments)
    root = config.rootpath
    config.args[:] = [
        argument
        for argument in config.args
        if not is_backend_path(
            Path(config.invocation_params.dir, argument.split("::")[0]).resolve(), root
        )
    ]
    processes.start()
    if not config.args:
        # Nothing for the parent itself: a folder without tests stands for it.
        config.args[:] = [processes.folder.name]
    config.pluginmanager.register(processes, "backend-processes")
