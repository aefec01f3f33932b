"""What the commands share: which backends there are, a process of its own for each, and signals."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from sae_oracle.files import is_stdout, problem_with_file, visible, write_each, write_result
from sae_oracle.options import Limits

BACKENDS = ("jax", "tensorflow", "torch", "numpy", "openvino")

TRAINING_BACKENDS = BACKENDS[:3]
"""Those with gradients."""

TIME_LIMIT = 600.0
"""Seconds that one backend's process may take."""


def installed(backend: str) -> bool:
    """Return whether what the backend needs can be imported, without importing it.

    Keras's NumPy backend needs JAX.

    >>> installed("mxnet")
    False
    """
    needed = "jax" if backend == "numpy" else backend
    return backend in BACKENDS and importlib.util.find_spec(needed) is not None


NARROWEST = 20
"""Columns below which nothing can be read."""


def console_for(
    *, stderr: bool = False, log: int = 120, highlight: bool = True, quiet: bool = False
) -> Console:
    """Return where a command prints: as wide as COLUMNS says, else the terminal, else a log.

    Args:
        stderr: Whether that is the standard error.
        log: Columns of what is no terminal.
        highlight: Whether Rich colours numbers and names.
        quiet: Whether it shows nothing but what `say_problem` prints.
    """
    make = partial(Console, stderr=stderr, highlight=highlight, quiet=quiet)
    if os.environ.get("NO_COLOR"):  # https://no-color.org; Rich would keep what is bold
        make = partial(make, color_system=None)
    asked = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[0-9]{1,4}", asked) and int(asked) > 0:
        return make(width=max(int(asked), NARROWEST))
    # What else COLUMNS holds is nothing that Rich should read.
    others = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    console = make(_environ=others)
    # A log has no edge to wrap at.
    return console if console.is_terminal else make(width=log, _environ=others)


ERROR = "[bold red]Error:[/]"


def status_of_json(path: Path, text: str, console: Console) -> int | None:
    """Write the JSON of a command that does nothing else.

    Returns:
        The exit status, if nothing is left to print; `None`: the text for a reader is.
    """
    problem = problem_with_file("--json", path)
    if problem is None:
        problem = write_each({path: partial(write_result, content=text)}).get(path)
    if problem is not None:
        say_problem(console, f"{ERROR} {problem}")
        return 2
    return 0 if is_stdout(path) else None


def say_problem(console: Console, words: str) -> None:
    """Print what is wrong, on a console that is quiet too.

    Args:
        console: Where.
        words: Markup of Rich, on one line.
    """
    quiet, console.quiet = console.quiet, False
    console.print(words, highlight=False, soft_wrap=True)
    console.quiet = quiet


def progress_on(console: Console, *more: ProgressColumn) -> Progress:
    """Return the bars that a command shows while it works, a task a process."""
    return Progress(
        TextColumn("{task.description:>20}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=console,
        transient=True,
    )


def moving(progress: Progress, task: TaskID) -> Callable[[dict[str, Any]], None]:
    """Return what moves a task's bar at each message of its process."""

    def on_message(message: dict[str, Any]) -> None:
        if message["kind"] == "step":
            progress.update(task, completed=message["done"], total=message["of"])

    return on_message


def problem_with(files: Mapping[str, Path | None], backends: Sequence[str]) -> str | None:
    """Return why a command cannot do its work, before minutes of it; `None`: it can.

    Args:
        files: What it will write, by option; `None` is none.
        backends: Where it would run; one that is installed is enough.
    """
    asked = {option: path for option, path in files.items() if path is not None}
    for option, path in asked.items():
        problem = problem_with_file(option, path)
        if problem is not None:
            return f"{ERROR} {problem}"
        for other, same in asked.items():
            both = os.path.abspath(same) == os.path.abspath(path)
            if other != option and (both or (is_stdout(same) and is_stdout(path))):
                return f"{ERROR} {option} and {other} must differ: {visible(path)}"
    if not any(installed(name) for name in backends):
        return f"[bold red]Not installed:[/] {visible(', '.join(backends))}"
    return None


THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""The variables by which libraries know how many threads they may have."""

KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""With these glibc uses again what a program frees. By default each large array of NumPy comes anew
from the system, at a page fault for 4 KiB: a quarter of the time of the oracle's exercise."""


def environment(backend: str, device: str, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a backend's process.

    Args:
        backend: Its name.
        device: "cpu" hides every GPU.
        threads: How many it computes with, if our own environment does not say; `None`: as many as
            its libraries like, which is one for each core. Where several processes work at once,
            threads without a core of their own spin while they wait for each other: an L-BFGS of
            torch beside another process takes eight times the processor time. With it goes
            `KEEPS_MEMORY`, which a measurement of steps or of their memory must not have.
    """
    shared = {} if threads is None else dict.fromkeys(THREADS, str(threads)) | KEEPS_MEMORY
    variables = {
        **shared,
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    # An empty entry is the working folder: `python` leaves it out.
    entries = variables.get("PYTHONPATH", "").split(os.pathsep)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, entries))
    if device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return variables


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours, and nothing of the working folder (`-P`)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def signal_name(number: int) -> str:
    """Return the name of a signal.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""


class Interruption:
    """SIGINT, SIGTERM and SIGHUP, in one place: the first ends the command, others do no more.

    Where a result is being saved the first one is only noted (`deferred`).
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._is_deferred = False

    @property
    def status(self) -> int:
        """The exit status that the signal asks for; 0 without one."""
        return 0 if self.number is None else 128 + self.number

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the signals, but for a SIGHUP that whoever started the command ignores (`nohup`).

        A shell that starts it in the background ignores SIGINT: who sends it means it.
        """
        self.number = None
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal end nothing in here: what is in here asks for `number`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first = self.number is None
        if is_first:
            self.number = number
        if is_first and not self._is_deferred:
            raise Interrupted


INTERRUPTION = Interruption()

TAIL = 2**16
"""Bytes that are kept of what a process prints."""

NO_LIMITS = Limits()

LONGEST_MESSAGE = 2**26
"""Bytes of a message."""

GRACE = 60.0
"""Seconds in which a process must end that was asked to, or has said its last message."""


class Child:
    """A process of ours, which says what it does over a pipe of its own, and ends with us.

    Args:
        module: What it runs.
        arguments: Its arguments.
        variables: Its environment.
        request: What it finds as `channel.request`.
        limits: Bytes that it may use; of what it prints the last are kept.
    """

    _all: ClassVar[set[Child]] = set()
    _guard = threading.Lock()
    _can_start = True

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        *,
        request: Any = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        from_us, self._to_child = os.pipe()
        self._messages, to_us = os.pipe()
        self._nonce = secrets.token_hex(16).encode()
        self._output = b""
        self._printed = 0
        self._output_limit = limits.output
        self._buffer = bytearray()
        self.reason = ""
        first = {
            "nonce": self._nonce.decode(),
            "limits": limits.of_resources,
            "request": request,
        }
        try:
            with Child._guard:
                if not Child._can_start:
                    raise Interrupted
                self.process = subprocess.Popen(
                    python("sae_oracle.workers", str(from_us), str(to_us), module, *arguments),
                    env=dict(variables),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(from_us, to_us),
                    # What it starts ends with it; a terminal's Ctrl-C reaches us alone.
                    start_new_session=True,
                )
                Child._all.add(self)
        except BaseException:
            os.close(self._to_child)
            os.close(self._messages)
            raise
        finally:
            os.close(from_us)
            os.close(to_us)
        self._tell(first)

    @classmethod
    def may_start(cls) -> None:
        """Let processes be started, by a command that begins."""
        cls._can_start = True

    @classmethod
    def end_all(cls) -> None:
        """Kill every process, and start no other: the command is about to end."""
        with cls._guard:
            cls._can_start = False
            for child in cls._all:
                child.kill("interrupted")

    def kill(self, reason: str) -> None:
        """Kill the process and what it has started.

        Args:
            reason: What is then said of it.
        """
        self.reason = self.reason or reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self, reason: str) -> None:
        """Ask the process to save what it has, and end."""
        self._tell(reason)

    def _tell(self, what: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended
            text = what if isinstance(what, str) else json.dumps(what)
            os.write(self._to_child, text.encode() + b"\n")

    def run(
        self,
        on_message: Callable[[dict[str, Any]], None],
        time_limit: float | None,
        *,
        can_stop: bool = False,
    ) -> dict[str, Any]:
        """Read the messages until the process has ended.

        Args:
            on_message: Called with each message.
            time_limit: Seconds before it is stopped; `None`: never.
            can_stop: Whether it can end early with a result, and a signal asks it to.

        Returns:
            Its last message: `kind` is "result" or "error".
        """
        assert self.process.stdout is not None
        output = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._messages, output):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            try:
                return self._read(selector, on_message, time_limit, can_stop)
            finally:
                # Whatever it has started ends with it, the process itself if we could not go on.
                self.kill("interrupted")
                self.process.wait()
                self.process.stdout.close()
                os.close(self._messages)
                os.close(self._to_child)
                with Child._guard:
                    Child._all.discard(self)

    def _read(
        self,
        selector: selectors.BaseSelector,
        on_message: Callable[[dict[str, Any]], None],
        time_limit: float | None,
        can_stop: bool,
    ) -> dict[str, Any]:
        last: dict[str, Any] = {}
        kinds: set[str] = set()
        deadline = None if time_limit is None else time.monotonic() + time_limit
        must_end = deadline if not can_stop else None
        was_asked = has_said_all = False
        while True:
            has_ended = self.process.poll() is not None
            for message in self._ready(selector, 0.0 if has_ended else 0.1):
                last = message
                kinds.add(message["kind"])
                on_message(message)
            if has_ended:
                return self._outcome(last, time_limit)
            now = time.monotonic()
            reason = ""
            if can_stop and not was_asked:
                if INTERRUPTION.number is not None:
                    reason = "interrupted"
                elif deadline is not None and now > deadline:
                    reason = "time limit"
            if reason:
                was_asked = True
                must_end = now + GRACE
                if not kinds:
                    self.kill(f"{reason}: the training had not begun")
                self.stop(reason)
            elif not has_said_all and kinds & {"result", "error"}:
                has_said_all = True
                must_end = min(now + GRACE, now + GRACE if must_end is None else must_end)
            if must_end is not None and now > must_end:
                self.kill(f"no end within {time_limit:g} s" if time_limit else "no end")

    def _ready(self, selector: selectors.BaseSelector, wait: float) -> Iterator[dict[str, Any]]:
        """Return the messages that have come; of what was printed keep the end."""
        has_line = False
        for key, _ in selector.select(wait):
            # No more than a moment's worth: there is a time to watch.
            for _ in range(64):
                try:
                    data = os.read(key.fd, 2**20)
                except BlockingIOError:
                    break
                if not data:
                    selector.unregister(key.fd)
                    break
                if key.fd == self._messages:
                    self._buffer += data
                    has_line = has_line or b"\n" in data
                    continue
                self._printed += len(data)
                self._output = (self._output + data)[-TAIL:]
        if not selector.get_map():
            time.sleep(min(wait, 0.02))
        if self._output_limit is not None and self._printed > self._output_limit:
            self.kill(f"it printed more than {self._output_limit} bytes")
        if len(self._buffer) > LONGEST_MESSAGE:
            self.kill(f"a message of more than {LONGEST_MESSAGE} bytes")
        if has_line:
            *lines, self._buffer = self._buffer.split(b"\n")
            yield from filter(None, map(self._message, lines))

    def _message(self, line: bytearray) -> dict[str, Any] | None:
        nonce, _, text = line.partition(b" ")
        if not secrets.compare_digest(nonce, self._nonce):
            return None
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(text)
            if isinstance(message, dict) and isinstance(message.get("kind"), str):
                return message
        return None

    def _outcome(self, last: dict[str, Any], time_limit: float | None) -> dict[str, Any]:
        if last.get("kind") in ("result", "error"):
            return last
        code = self.process.returncode
        doing = f" while {last['doing']}" if "doing" in last else ""
        status = 2
        if self.reason:
            reason = self.reason + doing
        elif code < 0:
            name = signal_name(-code)
            hint = ": out of memory?" if name == "SIGKILL" else ""
            reason = f"the process was ended by {name}{hint}{doing}"
        else:
            status = 70
            printed = self.output[-1:] if not last else []
            reason = ": ".join([f"the process ended with status {code}{doing}", *printed])
        return {"kind": "error", "error": reason, "status": status}

    @property
    def output(self) -> list[str]:
        """The last lines that the process has printed."""
        return self._output.decode("utf-8", "replace").strip().splitlines()


def run_backend(
    module: str,
    arguments: Sequence[str],
    backend: str,
    device: str,
    on_message: Callable[[dict[str, Any]], None],
    time_limit: float | None = TIME_LIMIT,
    *,
    passes_interrupts: bool = False,
    limits: Limits = NO_LIMITS,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run a worker in a process of its own, which says what it does in JSON lines.

    Args:
        module: Its name; it takes `--device`.
        arguments: Its other arguments.
        backend: The backend of the process.
        device: "cpu" hides every GPU from it; "gpu" fails if it sees none.
        on_message: Called with each message.
        time_limit: Seconds before the process is ended; `None`: never.
        passes_interrupts: Whether it can end early with a result: a signal, or the time limit,
            asks it to, and its end is awaited.
        limits: Bytes that it may use.
        threads: As in `environment`.

    Returns:
        Its last message: `kind` is "result" or "error".
    """
    variables = environment(backend, device, threads)
    child = Child(module, ["--device", device, *arguments], variables, limits=limits)
    return child.run(on_message, time_limit, can_stop=passes_interrupts)
