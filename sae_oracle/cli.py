"""The command line: arguments, one child process a backend, progress, exit status."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sae_oracle import report
from sae_oracle import review as reviewing
from sae_oracle import train as training
from sae_oracle.bench import command as benchmark
from sae_oracle.pictures import write_png

BACKENDS = ("jax", "tensorflow", "torch", "numpy", "openvino")

TRAINING_BACKENDS = BACKENDS[:3]

TIME_LIMIT = 600.0
"""Seconds that one backend's process may take."""

EXERCISE_TIME_LIMIT = 1800.0
"""Seconds that the notes' exercise may take: half a minute for the oracle on one idle core."""


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

    def on_message(message: dict[str, Any]) -> None:
        if message["kind"] == "step":
            on_step(message["done"], message["of"])

    return run_backend("keras_impl.verify", [], backend, device, on_message, time_limit)


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
    """Run a module of `keras_impl` in a process of its own, which says what it does in JSON lines.

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
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", module, "--device", device, *arguments]
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            env=environment,
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
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool,
    ):
        futures = {}
        exercises = {}
        if arguments.report is not None:
            exercises = _submit_exercises(names, arguments.device, progress, pool)
        for name in names:
            task = progress.add_task(name, total=None if installed(name) else 0)

            def on_step(done: int, of: int, task: Any = task) -> None:
                progress.update(task, completed=done, total=of)

            futures[name] = pool.submit(verify_backend, name, arguments.device, on_step)
        found = {name: future.result() for name, future in futures.items()}
        exercise = {name: future.result() for name, future in exercises.items()}
    results = report.collect(found, exercise)
    report.print_results(results, console)
    if arguments.json is not None:
        everything = {"passed": results.passed, "backends": found, "exercise": exercise}
        _write(arguments.json, json.dumps(everything, indent=1))
    if arguments.status is not None:
        _write(arguments.status, report.status_matrix(results))
    if arguments.report is not None:
        arguments.report.mkdir(exist_ok=True)
        page = arguments.report / "index.html"
        _write(page, report.html_page(results))
        if exercise:
            write_png(report.exercise_features(exercise), arguments.report / "features.png")
        console.print(f"Report: {page}")
    if results.passed:
        return 0
    return 1


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmark; return the exit status (see `sae_oracle.bench.command.bench`)."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    return benchmark.bench(arguments, installed, run_backend, console)


def _submit_exercises(
    names: Sequence[str], device: str, progress: Progress, pool: ThreadPoolExecutor
) -> dict[str, Future[dict[str, Any]]]:
    """Start the notes' exercise: the oracle, which takes longest, and each backend that trains."""
    chosen = [name for name in names if name in TRAINING_BACKENDS and installed(name)]
    futures = {}
    for name in ("oracle", *chosen) if chosen else ():
        task = progress.add_task("the oracle" if name == "oracle" else f"{name}, exercise")

        def on_message(message: dict[str, Any], task: Any = task) -> None:
            if message["kind"] == "step":
                progress.update(task, completed=message["done"], total=message["of"])

        futures[name] = pool.submit(
            run_backend,
            "keras_impl.exercise",
            ["--oracle"] if name == "oracle" else [],
            "numpy" if name == "oracle" else name,
            "cpu" if name == "oracle" else device,
            on_message,
            EXERCISE_TIME_LIMIT,
        )
    return futures


def train(arguments: argparse.Namespace) -> int:
    """Train on one backend; return the exit status (see `sae_oracle.train.train`)."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    names = TRAINING_BACKENDS if arguments.backend is None else (arguments.backend,)
    found = [name for name in names if installed(name)]
    if not found:
        console.print(f"[bold red]Not installed:[/] {', '.join(names)}")
        return 2
    return training.train(arguments, found[0], run_backend, console)


def review(arguments: argparse.Namespace) -> int:
    """Run the reviewer; return the exit status: 0 conforms, 1 findings, 2 could not review."""
    preferred = ("tensorflow", "jax", "torch", "numpy", "openvino")
    return reviewing.review(arguments, [name for name in preferred if installed(name)])


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
    one.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="do the notes' exercise too; write DIR/index.html",
    )
    one.add_argument("--status", type=Path, metavar="FILE", help="write the status matrix")
    one.set_defaults(run=verify)
    benchmark.add_parser(commands).set_defaults(run=bench)
    two = commands.add_parser(
        "train",
        help="train the notes' sparse autoencoder by L-BFGS on its exact cost",
        description="Minimise the cost of the notes over the whole data set by L-BFGS; write the "
        "model, its history and a picture of the learned features. The defaults are those of the "
        "notes' exercise. Exit status: 0 trained, 1 failed, 2 bad arguments or data, 130 "
        "interrupted (the best weights seen are written).",
    )
    two.add_argument("--backend", choices=TRAINING_BACKENDS, help="default: the first installed")
    two.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    training.add_arguments(two)
    two.set_defaults(run=train)
    reviewing.add_parser(commands, BACKENDS).set_defaults(run=review)
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
