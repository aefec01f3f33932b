"""What the commands share: which backends there are, and a process of its own for each."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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
    return importlib.util.find_spec("jax" if backend == "numpy" else backend) is not None


def console_for(*, stderr: bool = False) -> Console:
    """Return where a command prints: as wide as the terminal, or as a log."""
    console = Console(stderr=stderr)
    # A log has no edge to wrap at.
    return console if console.is_terminal else Console(width=120, stderr=stderr)


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


def problem_with(files: Iterable[Path | None], backends: Sequence[str]) -> str | None:
    """Return why a command cannot do its work, before minutes of it; `None`: it can.

    Args:
        files: What it will write; `None` is none.
        backends: Where it would run; one that is installed is enough.
    """
    for path in files:
        if path is not None and not path.resolve().parent.is_dir():
            return f"[bold red]No such folder:[/] {path.parent}"
    if not any(installed(name) for name in backends):
        return f"[bold red]Not installed:[/] {', '.join(backends)}"
    return None


def environment(backend: str, device: str) -> dict[str, str]:
    """Return the environment of a backend's process.

    Args:
        backend: Its name.
        device: "cpu" hides every GPU.
    """
    variables = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # An empty entry is the working folder: `python` leaves it out.
    entries = variables.get("PYTHONPATH", "").split(os.pathsep)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, entries))
    if device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return variables


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours, and nothing of the working folder (`-P`)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def run_backend(
    module: str,
    arguments: Sequence[str],
    backend: str,
    device: str,
    on_message: Callable[[dict[str, Any]], None],
    time_limit: float = TIME_LIMIT,
    *,
    passes_interrupts: bool = False,
) -> dict[str, Any]:
    """Run a worker in a process of its own, which says what it does in JSON lines.

    Args:
        module: Its name; it takes `--device`.
        arguments: Its other arguments.
        backend: The backend of the process.
        device: "cpu" hides every GPU from it; "gpu" fails if it sees none.
        on_message: Called with each message.
        time_limit: Seconds before the process is killed.
        passes_interrupts: Whether Ctrl-C is passed on to the process, and its end awaited.

    Returns:
        Its last message: `kind` is "result" or "error".
    """
    command = python(module, "--device", device, *arguments)
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            env=environment(backend, device),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # A terminal's Ctrl-C would reach the process too, and a second one end it.
            start_new_session=passes_interrupts,
        )
        watch = _killer(process, time_limit)
        assert process.stdout is not None
        while True:
            try:
                line = process.stdout.readline()
                if not line:
                    break
                if line.startswith("{"):
                    last = json.loads(line)
                    on_message(last)
            except KeyboardInterrupt:
                if not passes_interrupts:
                    raise
                process.send_signal(signal.SIGINT)
        code = process.wait()
        timed_out = not watch()
        if last.get("kind") in ("result", "error"):
            return last
        errors.seek(0)
        error_lines = errors.read().strip().splitlines()
    reason = f"no end within {time_limit:.0f} s" if timed_out else f"exit status {code}"
    return {"kind": "error", "error": f"{reason}: {' | '.join(error_lines[-3:])}"}


def _killer(process: subprocess.Popen[str], seconds: float) -> Callable[[], bool]:
    """Kill the process after some seconds; call what is returned to stop waiting."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()

    def stop() -> bool:
        in_time = timer.is_alive()
        timer.cancel()
        return in_time

    return stop
