"""The command line: arguments, one child process a backend, progress, exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sae_oracle import report
from sae_oracle import review_command as reviewing
from sae_oracle import train as training
from sae_oracle.bench import command as benchmark
from sae_oracle.pictures import write_png
from sae_oracle.processes import (
    BACKENDS,
    TIME_LIMIT,
    TRAINING_BACKENDS,
    console_for,
    installed,
    moving,
    problem_with,
    progress_on,
    run_backend,
    write_atomically,
)

EXERCISE_TIME_LIMIT = 1800.0
"""Seconds that the notes' exercise may take: half a minute for the oracle on one idle core."""


def verify_backend(
    backend: str,
    device: str,
    on_message: Callable[[dict[str, Any]], None],
    time_limit: float = TIME_LIMIT,
    *,
    wide: bool = False,
) -> dict[str, Any]:
    """Hold one backend to the oracle in a process of its own.

    Args:
        backend: Its name.
        device: "cpu" hides every GPU from it; "gpu" fails if it sees none.
        on_message: Called with each message of the process.
        time_limit: Seconds before the process is killed.
        wide: Whether the case of 4,096 × 4,096-32,768 is held, and no other: 40 GB of memory.

    Returns:
        Its last message: `kind` is "result", "error" or "absent".
    """
    if not installed(backend):
        return {"kind": "absent"}
    chosen = ["--wide"] if wide else []
    return run_backend("sae_oracle.workers.verify", chosen, backend, device, on_message, time_limit)


def verify(arguments: argparse.Namespace) -> int:
    """Run the main job; return the exit status: 0 all inside, 1 not, 2 nothing to verify."""
    console = console_for()
    names = BACKENDS if arguments.backend == "all" else (arguments.backend,)
    problem = problem_with((arguments.json, arguments.report, arguments.status), names)
    if problem is not None:
        console.print(problem)
        return 2
    earlier = []
    for path in arguments.beside:
        try:
            earlier += report.earlier_results(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            console.print(f"[bold red]--beside {path}:[/] {error}", soft_wrap=True)
            return 2
    with (
        progress_on(console) as progress,
        ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool,
    ):
        futures = {}
        exercises = {}
        if arguments.report is not None:
            exercises = _submit_exercises(names, arguments.device, progress, pool)
        for name in names:
            task = progress.add_task(name, total=None if installed(name) else 0)
            on_message = moving(progress, task)
            futures[name] = pool.submit(
                verify_backend, name, arguments.device, on_message, wide=arguments.wide
            )
        found = {name: future.result() for name, future in futures.items()}
        exercise = {name: future.result() for name, future in exercises.items()}
    results = report.collect(found, exercise)
    report.print_results(results, console)
    if arguments.json is not None:
        everything = {
            "passed": results.passed,
            "verdict": report.summary(results),
            "cells": results.counts,
            "backends": found,
            "exercise": exercise,
        }
        write_atomically(arguments.json, json.dumps(everything, indent=1))
    if arguments.status is not None:
        write_atomically(arguments.status, report.status_matrix(results, earlier))
    if arguments.report is not None:
        arguments.report.mkdir(exist_ok=True)
        page = arguments.report / "index.html"
        write_atomically(page, report.html_page(results))
        if exercise:
            write_png(report.exercise_features(exercise), arguments.report / "features.png")
        console.print(f"Report: {page}")
    if results.passed:
        return 0
    return 1


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmark; return the exit status (see `sae_oracle.bench.command.bench`)."""
    return benchmark.bench(arguments, run_backend, console_for())


def _submit_exercises(
    names: Sequence[str], device: str, progress: Progress, pool: ThreadPoolExecutor
) -> dict[str, Future[dict[str, Any]]]:
    """Start the notes' exercise: the oracle, which takes longest, and each backend that trains."""
    chosen = [name for name in names if name in TRAINING_BACKENDS and installed(name)]
    futures = {}
    for name in ("oracle", *chosen) if chosen else ():
        task = progress.add_task("the oracle" if name == "oracle" else f"{name}, exercise")
        futures[name] = pool.submit(
            run_backend,
            "sae_oracle.workers.exercise",
            ["--oracle"] if name == "oracle" else [],
            # Keras is imported there too, so it must be on something.
            chosen[0] if name == "oracle" else name,
            "cpu" if name == "oracle" else device,
            moving(progress, task),
            EXERCISE_TIME_LIMIT,
        )
    return futures


def train(arguments: argparse.Namespace) -> int:
    """Train on one backend; return the exit status (see `sae_oracle.train.train`)."""
    console = console_for()
    names = TRAINING_BACKENDS if arguments.backend is None else (arguments.backend,)
    problem = problem_with((), names)
    if problem is not None:
        console.print(problem)
        return 2
    backend = next(name for name in names if installed(name))
    return training.train(arguments, backend, run_backend, console)


def review(arguments: argparse.Namespace) -> int:
    """Run the reviewer; return the exit status: 0 conforms, 1 findings, 2 could not review."""
    preferred = ("tensorflow", "jax", "torch", "numpy", "openvino")
    return reviewing.review(arguments, [name for name in preferred if installed(name)])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(
        prog="sae-oracle",
        description="The numerical reference for Ng's sparse autoencoder, and its Keras proof.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    verify_parser = commands.add_parser(
        "verify",
        help="hold the Keras objects to the oracle, on every installed backend",
        description="Hold every Keras object to the NumPy oracle on real data. Exit status: 0 "
        "everything is inside its derived bound, 1 something is not, 2 nothing could be verified.",
    )
    verify_parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    verify_parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    verify_parser.add_argument(
        "--wide",
        action="store_true",
        help="hold 4,096 × 4,096-32,768 instead, in float32: 40 GB of memory, and minutes",
    )
    verify_parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found")
    verify_parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="do the notes' exercise too; write DIR/index.html",
    )
    verify_parser.add_argument(
        "--status", type=Path, metavar="FILE", help="write the status matrix"
    )
    verify_parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="put what an earlier --json or benchmarks/gpu_checks.py found into --status too",
    )
    verify_parser.set_defaults(run=verify)
    benchmark.add_parser(commands).set_defaults(run=bench)
    train_parser = commands.add_parser(
        "train",
        help="train the notes' sparse autoencoder by L-BFGS on its exact cost",
        description="Minimise the cost of the notes over the whole data set by L-BFGS; write the "
        "model, its history and a picture of the learned features. The defaults are those of the "
        "notes' exercise. Exit status: 0 trained, 1 failed, 2 bad arguments or data, 130 "
        "interrupted (the best weights seen are written).",
    )
    train_parser.add_argument(
        "--backend", choices=TRAINING_BACKENDS, help="default: the first installed"
    )
    train_parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    training.add_arguments(train_parser)
    train_parser.set_defaults(run=train)
    reviewing.add_parser(commands, BACKENDS).set_defaults(run=review)
    return root


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
