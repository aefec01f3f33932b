"""Runs the tests of each backend in a process of its own, all in one pytest call.

Keras fixes its backend when it is first imported, so no process can run the tests of two. The
parent, which is the pytest that was called, imports no Keras. For each file in `BACKEND_FOLDERS`
it asks a child process a backend which tests it has there, and collects an item for each answer,
under the id that it has in the child: `tests/keras_impl/test_losses.py::test_value[torch]`. From
then on pytest selects, counts and reports these items as any others. The children run them, a file
at a time, while the parent runs the tests of the oracle. One child more runs at once than there are
cores; where fewer do, a backend gets a second one.

In a run of everything the two backends that compile each case anew share the cases of a test:
`Parent.share`. With KERAS_BACKEND set a run of everything has the children of that backend, and any
other is the one process, under the same ids.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import pytest

from tests.one_backend import BACKENDS, TRAINING_BACKENDS, BackendIds, is_backend_path

# Several processes at once on few cores: one thread each.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}

CHILD = (
    "import sys; from multiprocessing.connection import Connection;"
    "connection = Connection(int(sys.argv[1])); sys.path[:] = connection.recv();"
    "from tests.one_backend import work; work(connection)"
)

# They compile what they run for every shape, which is most of their tests' time. The other
# training backend runs every case.
COMPILING = ("jax", "tensorflow")

# As many files as must wait before a backend gets a second child: it takes seconds to start.
WORTH_A_START = 4

# A backend and what its child says of a test.
Test = tuple[str, dict[str, Any]]


def installed(backend: str) -> bool:
    """Whether the backend's package can be imported (not importing it)."""
    return importlib.util.find_spec(backend) is not None


def attach(config: pytest.Config, where_shared: dict[str, str] | None = None) -> None:
    """Make this pytest the parent of the backends' processes, or the process of KERAS_BACKEND.

    Args:
        config: Of this pytest.
        where_shared: More environment for the processes that share cases.
    """
    asked = config.getoption("backends")
    names = tuple(asked.split(",")) if asked else BACKENDS
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise pytest.UsageError(f"--backends takes {', '.join(BACKENDS)}; got {unknown[0]!r}.")
    backend = os.environ.get("KERAS_BACKEND")
    if backend and asked and names != (backend,):
        raise pytest.UsageError(
            f"--backends is {asked}, but KERAS_BACKEND keeps everything on {backend}."
        )
    if backend and backend in BACKENDS and installed(backend) and _is_long(config):
        names = (os.environ.pop("KERAS_BACKEND"),)
        backend = None
    if backend:
        config.pluginmanager.register(BackendIds(config.rootpath, backend), "backend-ids")
    else:
        parent = Parent(config, names, where_shared or {})
        config.pluginmanager.register(parent, "parent-of-backends")


# --- what the parent collects ----------------------------------------------------------------


class BackendItem(pytest.Item):
    """A test on a backend, which the child of that backend runs."""

    def __init__(self, *, test: Test, **node: Any) -> None:
        super().__init__(nodeid=f"{node['parent'].nodeid}::{node['name']}", **node)
        self.backend, self.description = test
        self.extra_keyword_matches.update(self.description["keywords"])
        for mark, arguments in self.description["marks"]:
            self.add_marker(getattr(pytest.mark, mark).with_args(**arguments))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        path, line, domain = self.description["location"]
        return self.config.rootpath / path, line, domain

    def runtest(self) -> None:
        raise NotImplementedError("a child runs it: `Parent.pytest_runtest_protocol`")


class BackendClass(pytest.Collector):
    """A class of tests."""

    def __init__(self, *, tests: list[Test], **node: Any) -> None:
        super().__init__(**node)
        self.tests = tests

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        return nodes_of(self.tests, self)


class SkippedFile(pytest.Collector):
    """A file that some backends skip."""

    def __init__(self, *, reason: str, **node: Any) -> None:
        super().__init__(**node)
        self.reason = reason

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(self.reason)


class BackendFile(pytest.File):
    """A file of tests that the children collect."""

    def __init__(self, *, found_by_children: Callable[[Path], Iterable[Any]], **node: Any) -> None:
        super().__init__(**node)
        self.found_by_children = found_by_children

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        tests: list[Test] = []
        problems: dict[tuple[str, str], list[str]] = {}
        for backend, descriptions, problems_there in self.found_by_children(self.path):
            tests += [(backend, description) for description in descriptions]
            for outcome, reason in problems_there:
                problems.setdefault((outcome, reason), []).append(backend)
        same_id = Counter("::".join(description["names"]) for _, description in tests)
        errors = [f"{name} has no backend in its id" for name in same_id if same_id[name] > 1]
        for (outcome, reason), backends in problems.items():
            if outcome == "failed":
                errors.append(f"On {', '.join(dict.fromkeys(backends))}:\n{reason}")
            else:
                name = ",".join(dict.fromkeys(backends))
                yield SkippedFile.from_parent(self, name=f"[{name}]", reason=reason)
        if errors:
            raise self.CollectError("\n\n".join(errors))
        yield from nodes_of(tests, self)


def nodes_of(
    tests: list[Test], parent: pytest.Collector
) -> Iterator[pytest.Item | pytest.Collector]:
    """The tests right below a file or class, and its classes."""
    depth = parent.nodeid.count("::")
    classes: dict[str, list[Test]] = {}
    for test in tests:
        name, *below = test[1]["names"][depth:]
        if below:
            classes.setdefault(name, []).append(test)
        else:
            yield BackendItem.from_parent(parent, name=name, test=test)
    for name, tests_of_class in classes.items():
        yield BackendClass.from_parent(parent, name=name, tests=tests_of_class)


# --- the parent ------------------------------------------------------------------------------


@dataclass(eq=False)
class Child:
    """The process of a backend, as its parent sees it.

    A thread takes what it says, at once: a process whose messages nobody takes stands still, and
    the parent has tests of its own that run for many seconds.
    """

    backend: str
    process: subprocess.Popen[bytes]
    connection: Connection
    log: IO[bytes]
    has_spoken: SimpleQueue[Child]
    messages: SimpleQueue[bytes | None] = field(default_factory=SimpleQueue)
    found: dict[str, list[Any]] = field(default_factory=dict)
    items: dict[str, BackendItem] = field(default_factory=dict)
    running: str = ""
    error: str = ""
    ending: bool = False

    def __post_init__(self) -> None:
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.messages.put(self.connection.recv_bytes())
                self.has_spoken.put(self)
        self.messages.put(None)
        self.has_spoken.put(self)

    def order(self, kind: str, content: Any = None) -> None:
        self.ending = kind == "end"
        with contextlib.suppress(BrokenPipeError):  # `receive` will find that it has ended
            self.connection.send((kind, content))

    def receive(self, timeout: float | None = None) -> list[Any]:
        """The next message; raises `EOFError` where the process has ended, `Empty` too late."""
        message = self.messages.get(timeout=timeout)
        if message is None:
            raise EOFError
        return json.loads(message)

    def end(self) -> tuple[bool, str]:
        """Wait until the process has ended: whether as pytest ends, and its last words."""
        code = self.process.wait()
        self.log.seek(0)
        log = self.log.read()[-6000:].decode(errors="replace")
        self.log.close()
        self.connection.close()
        where = self.running or "outside of a test"
        words = f"The {self.backend} process ended with code {code} ({where}).\n{self.error}{log}"
        return code in (0, 1, 2, 5), words


class Parent:
    """Starts the children, collects what they find, and reports what they run."""

    def __init__(
        self, config: pytest.Config, backends: tuple[str, ...], where_shared: dict[str, str]
    ) -> None:
        self.config = config
        self.where_shared = where_shared
        self.present = [name for name in _meant(backends, config.args) if installed(name)]
        self.absent = [name for name in backends if not installed(name)]
        self.distributed = hasattr(config, "workerinput")  # a worker of pytest-xdist
        # Of what is in these folders nothing is left out: paths of files and ids may mean less.
        is_less = config.getoption("lf", False)
        self.folders = [] if is_less else [path for path in _paths(config) if path.is_dir()]
        self.sharing = (
            {*self.present} >= {*TRAINING_BACKENDS}
            and _of_everything(config)
            and not config.getoption("every_case", False)
        )
        self.asked: set[Path] = set()
        self.children: list[Child] = []
        self.has_spoken: SimpleQueue[Child] = SimpleQueue()
        self.pending: dict[str, BackendItem] = {}
        self.waiting: dict[str, deque[list[BackendItem]]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.crashes: list[str] = []

    def start(self, backend: str) -> Child:
        ours, theirs = Pipe()
        log = tempfile.TemporaryFile()  # noqa: SIM115
        shared = self.where_shared if self.sharing and backend in COMPILING else {}
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            capture.suspend_global_capture(in_=True)
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD, str(theirs.fileno())],
                env={**ONE_THREAD, **os.environ, **shared, "KERAS_BACKEND": backend},
                pass_fds=[theirs.fileno()],
                stderr=None if self.config.option.capture == "no" else log,
            )
        theirs.close()
        ours.send(sys.path)
        of_backend = sum(child.backend == backend for child in self.children)
        ours.send((sys.argv, *_arguments_for(self.config, f"{backend}-{of_backend}")))
        child = Child(backend, process, ours, log, self.has_spoken)
        self.children.append(child)
        return child

    # Collecting

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Iterator[Any]:
        collectors = yield
        if not collectors or not is_backend_path(file_path, self.config.rootpath):
            return collectors
        if any(file_path.is_relative_to(folder) for folder in self.folders):
            self._ask(file_path)  # the children collect while pytest comes to it
        return [BackendFile.from_parent(parent, path=file_path, found_by_children=self.found)]

    def _ask(self, path: Path) -> None:
        if not self.asked:
            for backend in self.present:
                self.start(backend)
        if path not in self.asked:
            self.asked.add(path)
            for child in self.children:
                child.order("collect", str(path))

    def found(self, path: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
        """For each backend what its child finds in a file: its name, tests, problems."""
        self._ask(path)
        for child in list(self.children):
            try:
                while str(path) not in child.found:
                    self._hear(child)
                yield child.backend, *child.found[str(path)]
            except EOFError:
                self.children.remove(child)
                yield child.backend, [], [("failed", child.end()[1])]

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if self.sharing:
            left_out = set(self.share(items))
            config.hook.pytest_deselected(items=[item for item in items if item in left_out])
            items[:] = [item for item in items if item not in left_out]

    def share(self, items: list[pytest.Item]) -> Iterator[pytest.Item]:
        """What one of the two compiling backends leaves to the other: half of the cases of a test.

        Which half, is by chance but always alike. In a run of everything, where a third backend has
        every case of a test. Not where a file, an id or a name was asked for, nor with
        `--every-case`. To the third both leave what is marked `same_python`.
        """
        tests: dict[str, dict[str, dict[str, pytest.Item]]] = {}
        for item in items:
            test, _, case = item.nodeid.partition("[")
            if not isinstance(item, BackendItem):
                continue
            if item.get_closest_marker("same_python"):
                if item.backend in COMPILING:
                    yield item
            elif case:
                case = case.replace(item.backend, "", 1)
                tests.setdefault(test, {}).setdefault(case, {})[item.backend] = item
        for test, cases in tests.items():
            common = [case for case in cases if cases[case].keys() >= {*TRAINING_BACKENDS}]
            common.sort(key=lambda case: zlib.crc32((test + case).encode()))
            for number, case in enumerate(common if len(common) > 1 else ()):
                yield cases[case][COMPILING[(number + zlib.crc32(test.encode())) % 2]]

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Give the children what they are to run, and let pytest go through all items."""
        option = self.config.option
        failed = session.testsfailed and not option.continue_on_collection_errors
        if failed or option.collectonly or self.distributed:
            return
        # What the parent runs itself comes first, while the children run theirs.
        session.items.sort(key=lambda item: isinstance(item, BackendItem))
        for item in session.items:
            if isinstance(item, BackendItem):
                self._wait_for(item)
        self._give_more()
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter and self.pending:
            reporter.showfspath = False  # the dots behind a file's name would be of several files

    def _wait_for(self, item: BackendItem) -> None:
        self.pending[item.nodeid] = item
        files = self.waiting.setdefault(item.backend, deque())
        if not files or files[-1][0].path != item.path:
            files.append([])
        files[-1].append(item)

    def _give_more(self) -> None:
        """Give children the file after the one that they run; start more of them, or end them."""
        cores = os.cpu_count() or 1
        going_on = [child for child in self.children if not child.ending]
        for child in going_on:
            if self.waiting.get(child.backend):
                if child.items or self._running() <= cores:
                    self._give(child)
            elif not (child.items or self.distributed):
                child.order("end")
        for backend, files in self.waiting.items():
            there = sum(child.backend == backend for child in going_on)
            worth_it = len(files) >= WORTH_A_START and self._running() < cores
            worth_it = worth_it and not _on_gpu(self.config)  # whose memory one child has
            if files and (there == 0 or (there == 1 and worth_it)):
                self._give(self.start(backend))

    def _running(self) -> int:
        return sum(bool(child.items) for child in self.children)

    def _give(self, child: Child) -> None:
        # So many that it has work while the parent runs a test of its own, and fewer and fewer, so
        # that no child is left with much at the end.
        files = self.waiting[child.backend]
        while files and len({item.path for item in child.items.values()}) < max(2, len(files) // 4):
            items = files.popleft()
            child.items |= {item.nodeid: item for item in items}
            if str(items[0].path) not in child.found:
                child.order("collect", str(items[0].path))
            child.order("run", [item.nodeid for item in items])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Report what the children have run; if the item is theirs, wait until it has been."""
        if not isinstance(item, BackendItem):
            while not self.has_spoken.empty():
                self._report()
            return None
        if self.distributed:
            self._wait_for(item)
            self._give_more()
        session = item.session
        while item.nodeid in self.pending and not (session.shouldfail or session.shouldstop):
            self._report()
        return True

    def _report(self) -> None:
        child = self.has_spoken.get()
        try:
            while child.items and not child.messages.empty():
                self._hear(child)
        except EOFError:
            self._ended(child)

    def _hear(self, child: Child, timeout: float | None = None) -> list[Any]:
        """Do what a message of a child asks for."""
        message = child.receive(timeout)
        match message:
            case "collected", path, *found:
                child.found[path] = found
            case "started", nodeid:
                child.running = nodeid
            case "finished", nodeid, reports:
                child.running = ""
                self._finished(child, nodeid, [_report_from(self.config, data) for data in reports])
                self._give_more()
            case "warning", category, text, place, when, nodeid, location:
                kind = getattr(builtins, category, None)  # another may be a class of Keras
                text = text if kind else f"{category}: {text}"
                warning = warnings.WarningMessage(text, kind or UserWarning, *place)
                arguments = {"warning_message": warning, "when": when, "nodeid": nodeid}
                self.config.hook.pytest_warning_recorded.call_historic(
                    kwargs=arguments | {"location": location and tuple(location)}
                )
            case "exit", reason, code:
                pytest.exit(reason, returncode=code)
            case "error", text:
                child.error = f"{text}\n"
            case "terminal wanted", *_:
                child.connection.send(True)
                while self._hear(child)[0] != "terminal free":
                    pass
        return message

    def _finished(self, child: Child, nodeid: str, reports: list[pytest.TestReport]) -> None:
        self.pending.pop(nodeid)
        location = child.items.pop(nodeid).location
        counts = self.counts.setdefault(child.backend, Counter())
        hook = self.config.hook
        hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        for report in reports:
            if report.when == "call" or not report.passed:
                counts[report.outcome] += 1
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)

    def _ended(self, child: Child) -> None:
        """Fail the test that it was running, if any, and have a new child run what was left."""
        self.children.remove(child)
        _, words = child.end()
        files = self.waiting[child.backend]
        child.items |= {item.nodeid: item for items in files for item in items}
        files.clear()
        # Outside of a test a new one would end as well: all that was left fails.
        failed = [child.running] if child.running else list(child.items)
        for nodeid in failed:
            location = child.items[nodeid].location
            report = pytest.TestReport(nodeid, location, {}, "failed", words, "call")
            self._finished(child, nodeid, [report])
        for item in child.items.values():
            self._wait_for(item)
        self._give_more()

    # The end

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for child in self.children:
            if not child.ending:  # after -x, an error, --collect-only
                child.process.send_signal(signal.SIGINT)
        for child in self.children:
            try:
                while True:
                    self._hear(child, 60.0) if child.ending else child.receive(10.0)
            except Empty:
                child.process.kill()
            except EOFError:
                pass
            well, words = child.end()
            if child.ending and not well:
                self.crashes.append(words)
        if self.crashes:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for crash in self.crashes:
            terminalreporter.section("a crash after the tests", sep="-", red=True)
            terminalreporter.line(crash)
        if self.counts:
            terminalreporter.section("backends", sep="-")
            for backend, count in self.counts.items():
                terminalreporter.line(f"backend {backend}: {_summary(count)}")
            for backend in self.absent:
                terminalreporter.line(f"backend {backend}: not installed, not tested")
            total = sum(self.counts.values(), Counter())
            terminalreporter.line(f"all backends: {_summary(total)}")


def _of_everything(config: pytest.Config) -> bool:
    """Whether nothing but folders is asked for."""
    option = config.option
    chosen = option.keyword or option.markexpr or config.getoption("lf", False)
    return not chosen and all(path.is_dir() for path in _paths(config))


def _is_long(config: pytest.Config) -> bool:
    """Whether several processes are worth their start, and may be: of ours alone, on the CPU."""
    option = config.option
    is_child = config.pluginmanager.has_plugin("orders") or hasattr(config, "workerinput")
    attended = option.collectonly or option.usepdb or option.capture == "no" or _is_watched()
    ours = [config.rootpath / name for name in config.getini("testpaths")]
    return (
        _of_everything(config)
        and all(any(path.is_relative_to(folder) for folder in ours) for path in _paths(config))
        and not (is_child or attended or _on_gpu(config))
    )


def _is_watched() -> bool:
    """Whether a debugger, a profiler or coverage looks at this process."""
    monitoring: Any = getattr(sys, "monitoring", None)  # of Python 3.12, for six tools
    tools = map(monitoring.get_tool, range(6)) if monitoring else ()
    return bool(sys.gettrace() or sys.getprofile() or any(tools))


def _on_gpu(config: pytest.Config) -> bool:
    return config.getoption("device", None) == "gpu"


def _paths(config: pytest.Config) -> list[Path]:
    return [Path(config.invocation_params.dir, name).resolve() for name in config.args]


def _summary(count: Counter[str]) -> str:
    return ", ".join(f"{count[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def _report_from(config: pytest.Config, data: dict[str, Any]) -> pytest.TestReport:
    report = config.hook.pytest_report_from_serializable(config=config, data=data)
    report.location = tuple(report.location)  # JSON has no tuples
    if isinstance(report.longrepr, list):
        report.longrepr = tuple(report.longrepr)
    return report


def _meant(backends: Iterable[str], arguments: list[str]) -> list[str]:
    """The backends that the arguments can mean: those that all pasted ids name, or else all."""
    named = [set(re.split(r"[\[\]-]", argument.partition("[")[2])) for argument in arguments]
    if all(names & set(BACKENDS) for names in named):
        return [backend for backend in backends if any(backend in names for names in named)]
    return list(backends)


def _arguments_for(config: pytest.Config, child: str) -> tuple[list[str], dict[str, Any]]:
    """The arguments and options of a child: this call's, without what the parent does itself."""
    options = {name: value for name, value in vars(config.option).items() if _can_be_sent(value)}
    options |= {"rootdir": str(config.rootpath), "inifilename": config.inipath, "backends": None}
    options.pop("file_or_dir", None)
    options |= {"keyword": "", "markexpr": "", "deselect": None, "maxfail": 0}
    options |= {"collectonly": False, "xmlpath": None, "pastebin": None, "cov_source": []}
    for name in ("basetemp", "log_file"):  # the children would overwrite each other's
        if options.get(name):
            options[name] = f"{options[name]}-{child}"
    plugins = [f"-p{name}" for name in ("no:cacheprovider", *config.option.plugins)]
    return [*plugins, str(config.rootpath)], options


def _can_be_sent(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
