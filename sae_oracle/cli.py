"""The command line: arguments, one child process a backend, progress, exit status."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sae_oracle import report

BACKENDS = ("jax", "tensorflow", "torch", "numpy", "openvino")

TIME_LIMIT = 600.0
"""Seconds that one backend's process may take."""


def installed(backend: str) -> bool:
    """Return whether the backend's package can be imported, without importing it.

    >>> installed("numpy")
    True
    """
    return importlib.util.find_spec(backend) is not None


def verify_backend(
    backend: str, device: str, on_step: Callable[[int, int], None], time_limit: float = TIME_LIMIT
) -> dict[str, Any]:
    """Hold one backend to the oracle in a process of its own.

    Args:
        backend: Its name.
        device: "cpu" hides every GPU from it; "gpu" fails if it sees none.
        on_step: Called with the steps done and the steps in all.
        time_limit: Seconds before the process is killed.

    Returns:
        Its last message: `kind` is "result", "error" or "absent".
    """
    if not installed(backend):
        return {"kind": "absent"}
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "keras_impl.verify", "--device", device]
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        watch = _killer(process, time_limit)
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            last = json.loads(line)
            if last["kind"] == "step":
                on_step(last["done"], last["of"])
        code = process.wait()
        timed_out = not watch()
        if last.get("kind") in ("result", "error"):
            return last
        errors.seek(0)
        said = errors.read().strip().splitlines()
    reason = f"no end within {time_limit:.0f} s" if timed_out else f"exit status {code}"
    return {"kind": "error", "error": f"{reason}: {' | '.join(said[-3:])}"}


def _killer(process: subprocess.Popen[str], seconds: float) -> Callable[[], bool]:
    """Kill the process after some seconds; call what is returned to stop waiting."""
    import threading

    timer = threading.Timer(seconds, process.kill)
    timer.start()

    def stop() -> bool:
        in_time = timer.is_alive()
        timer.cancel()
        return in_time

    return stop


def verify(arguments: argparse.Namespace) -> int:
    """Run the main job; return the exit status: 0 all inside, 1 not, 2 nothing to verify."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a log has no edge to wrap at
    for path in (arguments.json, arguments.report, arguments.status):
        # Before minutes of work, not after.
        if path is not None and not path.parent.resolve().is_dir():
            console.print(f"[bold red]No such folder:[/] {path.parent}")
            return 2
    names = BACKENDS if arguments.backend == "all" else (arguments.backend,)
    if not any(installed(name) for name in names):
        console.print(f"[bold red]Not installed:[/] {', '.join(names)}")
        return 2
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool,
    ):
        futures = {}
        for name in names:
            task = progress.add_task(name, total=None if installed(name) else 0)

            def on_step(done: int, of: int, task: Any = task) -> None:
                progress.update(task, completed=done, total=of)

            futures[name] = pool.submit(verify_backend, name, arguments.device, on_step)
        found = {name: future.result() for name, future in futures.items()}
    results = report.collect(found)
    report.print_results(results, console)
    if arguments.json is not None:
        _write(arguments.json, json.dumps({"passed": results.passed, "backends": found}, indent=1))
    if arguments.status is not None:
        _write(arguments.status, report.status_matrix(results))
    if arguments.report is not None:
        arguments.report.mkdir(exist_ok=True)
        page = arguments.report / "index.html"
        _write(page, report.html_page(results))
        console.print(f"Report: {page}")
    if results.passed:
        return 0
    return 1


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(
        prog="sae-oracle",
        description="The numerical reference for Ng's sparse autoencoder, and its Keras proof.",
    )
    commands = whole.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "verify",
        help="hold the Keras objects to the oracle, on every installed backend",
        description="Hold every Keras object to the NumPy oracle on real data. Exit status: 0 "
        "everything is inside its derived bound, 1 something is not, 2 nothing could be verified.",
    )
    one.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    one.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    one.add_argument("--json", type=Path, metavar="FILE", help="write everything found")
    one.add_argument("--report", type=Path, metavar="DIR", help="write DIR/index.html")
    one.add_argument("--status", type=Path, metavar="FILE", help="write the status matrix")
    one.set_defaults(run=verify)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
