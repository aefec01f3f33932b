"""The command line: arguments, one child process a backend, progress, exit status."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import shlex
import sys
import tempfile
import traceback
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from rich.progress import Progress

from sae_oracle import __version__, report
from sae_oracle import encode as encoding
from sae_oracle import equations as labels
from sae_oracle import review_command as reviewing
from sae_oracle import train as training
from sae_oracle.bench import command as benchmark
from sae_oracle.conformance import command as conformance
from sae_oracle.files import (
    first_line,
    for_programs,
    from_programs,
    is_stdout,
    plain,
    sound_output,
    visible,
    write_each,
    write_result,
)
from sae_oracle.options import (
    Limits,
    add_json,
    add_limits,
    add_quiet,
    file_name,
    limits_of,
    seconds,
)
from sae_oracle.pictures import write_png
from sae_oracle.processes import (
    BACKENDS,
    ERROR,
    INTERRUPTION,
    NO_LIMITS,
    TIME_LIMIT,
    TRAINING_BACKENDS,
    Child,
    Interrupted,
    console_for,
    installed,
    moving,
    problem_with,
    progress_on,
    run_backend,
    say_problem,
    signal_name,
)

SCHEMA_VERSION = 1
"""Of the JSON of `verify`: it changes when a name goes or means something else."""

PREVIOUS = "previous.html"
"""Where the page goes that a report replaces."""

EXERCISE_TIME_LIMIT = 1800.0
"""Seconds that the notes' exercise may take: half a minute for the oracle on one idle core."""


def verify_backend(
    backend: str,
    device: str,
    on_message: Callable[[dict[str, Any]], None],
    time_limit: float = TIME_LIMIT,
    *,
    wide: bool = False,
    limits: Limits = NO_LIMITS,
    threads: int | None = None,
) -> dict[str, Any]:
    """Hold one backend to the oracle in a process of its own.

    Args:
        backend: Its name.
        device: "cpu" hides every GPU from it; "gpu" fails if it sees none.
        on_message: Called with each message of the process.
        time_limit: Seconds before the process is killed.
        wide: Whether the case of 4,096 × 4,096-32,768 is held, and no other: 40 GB of memory.
        limits: Bytes that the process may use.
        threads: How many it computes with, as in `processes.environment`.

    Returns:
        Its last message: `kind` is "result", "error" or "absent".
    """
    if not installed(backend):
        return {"kind": "absent"}
    chosen = ["--wide"] if wide else []
    module = "sae_oracle.workers.verify"
    shared: dict[str, Any] = {"limits": limits, "threads": threads}
    return run_backend(module, chosen, backend, device, on_message, time_limit, **shared)


def verify(arguments: argparse.Namespace) -> int:
    """Run the main job; return the exit status.

    0 all inside; 1 something is outside, or was not compared; 2 a backend could not be verified;
    70 a mistake of ours ended it.
    """
    asked = {"--json": arguments.json, "--status": arguments.status}
    console = console_for(stderr=any(map(is_stdout, asked.values())), quiet=arguments.quiet)
    names = BACKENDS if arguments.backend == "all" else (arguments.backend,)
    problem = problem_with(asked, names)
    if problem is None and arguments.report is not None:
        problem = _problem_with_folder("--report", arguments.report)
    if problem is not None:
        say_problem(console, problem)
        return 2
    previous: report.Earlier | None = None
    kept = None
    if arguments.report is not None:
        try:
            previous, kept = _previous(arguments)
        except (OSError, ValueError) as error:
            words = f"--previous {arguments.previous}: {first_line(error)}"
            say_problem(console, f"{ERROR} {visible(words)}")
            return 2
    elif arguments.previous is not None:
        say_problem(console, f"{ERROR} --previous needs --report")
        return 2
    earlier = []
    for path in arguments.beside:
        try:
            earlier += report.earlier_results(from_programs(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            words = f"[bold red]--beside {visible(path)}:[/] {visible(first_line(error))}"
            say_problem(console, words)
            return 2
    cores = max(1, os.cpu_count() or 1)
    present = [name for name in names if installed(name)]
    trained = _exercised(present) if arguments.report is not None else []
    threads = max(1, cores // max(1, len(present) + len(trained)))
    with progress_on(console) as progress, ThreadPoolExecutor(max_workers=cores) as pool:
        futures = {}
        for name in names:  # before the exercises: JAX, which compiles, takes longest of all
            task = progress.add_task(name, total=None if installed(name) else 0)
            on_message = moving(progress, task)
            futures[name] = pool.submit(
                verify_backend,
                name,
                arguments.device,
                on_message,
                arguments.time_limit,
                wide=arguments.wide,
                limits=limits_of(arguments),
                threads=threads,
            )
        exercises = _submit_exercises(
            trained, arguments.device, limits_of(arguments), threads, progress, pool
        )
        try:
            wait([*futures.values(), *exercises.values()])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            Child.end_all()
    found, exercise = _ended(futures), _ended(exercises)
    if INTERRUPTION.number is not None:
        known = {name: result for name, result in found.items() if result["kind"] != "error"}
        if known:
            report.print_results(report.collect(known), console)
        words = "[bold red]Interrupted:[/] no file is written; the rest is not verified."
        say_problem(console, words)
        raise Interrupted
    results = report.collect(found, exercise)
    everything = {
        "passed": results.passed,
        "verdict": report.summary(results),
        "cells": results.counts,
        "suspicious": results.suspicious,
        "backends": found,
        "exercise": {  # without pictures
            name: {key: value for key, value in run.items() if key != "watch"}
            for name, run in exercise.items()
        },
    }
    files: dict[Path, Callable[[Path], None]] = {}
    if arguments.json is not None:
        files[arguments.json] = lambda path: write_result(
            path, for_programs(SCHEMA_VERSION, everything)
        )
    if arguments.status is not None:
        files[arguments.status] = lambda path: write_result(
            path,
            f"{report.status_matrix(results, earlier)}\n{report.by_equation(results, earlier)}",
        )
    page = None
    if arguments.report is not None:
        page = arguments.report / "index.html"
        run = _about(arguments.words)

        def write_page(path: Path) -> None:
            if kept is not None:  # first: what cannot be kept is not replaced
                write_result(path.with_name(PREVIOUS), kept)
            write_result(path, report.html_page(results, run, previous))

        files[page] = write_page
        if exercise:
            features = report.exercise_features(exercise)
            files[arguments.report / "features.png"] = lambda path: write_png(features, path)
    problems = write_each(files)
    status = 2 if problems else status_of(results)
    console.quiet = arguments.quiet and status == 0
    report.print_results(results, console)
    if page is not None and page not in problems:
        console.print(f"Report: {visible(page)}", soft_wrap=True)
    for problem in problems.values():
        say_problem(console, f"{ERROR} {problem}")
    return status


def status_of(results: report.Results) -> int:
    """Return the exit status of what was found."""
    if results.passed:
        return 0
    if results.counts["outside"]:
        return 1
    failed = [
        run for run in (*results.backends.values(), *results.exercise.values())
        if run["kind"] == "error"
    ]  # fmt: skip
    if failed:
        return max(int(run.get("status", 2)) for run in failed)
    return 1 if results.held else 2


def _ended(futures: Mapping[str, Future[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return what each process found, or that it was not waited for."""
    found = {}
    for name, future in futures.items():
        with contextlib.suppress(BaseException):
            if not future.cancelled():
                found[name] = future.result()
                continue
        if future.done() and not future.cancelled() and INTERRUPTION.number is None:
            future.result()  # raises: it is a mistake of ours
        found[name] = {"kind": "error", "error": "interrupted", "status": 2}
    return found


def _previous(arguments: argparse.Namespace) -> tuple[report.Earlier | None, str | None]:
    """Return the page of the run before, and its text if it is kept as `PREVIOUS`.

    Raises:
        OSError, ValueError: If `--previous` cannot be read, or is another file.
    """
    if arguments.previous is not None:
        text = arguments.previous.read_text(encoding="utf-8")
        link = os.path.relpath(arguments.previous.resolve(), arguments.report.resolve())
        return report.earlier_page(text, urllib.parse.quote(link)), None
    with contextlib.suppress(OSError, ValueError):  # another's page is replaced
        text = (arguments.report / "index.html").read_text(encoding="utf-8")
        # Only one is kept: its own link to the one before would lead to itself.
        kept = re.sub(rf"<a href='{re.escape(PREVIOUS)}'>(.*?)</a>", r"\1", text)
        return report.earlier_page(text, PREVIOUS), kept
    return None, None


def _about(words: Sequence[str]) -> dict[str, str]:
    """Return what a report says of its run first."""
    machine = benchmark.machine()
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"),
        "version": f"sae-oracle {__version__}",
        "command": shlex.join(["sae-oracle", *words]),
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
    }


def _problem_with_folder(option: str, folder: Path) -> str | None:
    """Make the folder of a report, and return why it could not be written; `None`: it could."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sae-oracle-", dir=folder):
            return None
    except (OSError, RuntimeError, ValueError) as error:
        name = visible(str(folder)[:300])
        return f"{ERROR} {option} must be a folder: {name}: {visible(first_line(error))}"


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmark; return the exit status (see `sae_oracle.bench.command.bench`)."""
    return benchmark.bench(arguments, partial(run_backend, limits=limits_of(arguments)))


def _exercised(names: Sequence[str]) -> list[str]:
    """Who does the notes' exercise: the oracle, which takes longest, and what trains."""
    chosen = [name for name in names if name in TRAINING_BACKENDS]
    return ["oracle", *chosen] if chosen else []


def _submit_exercises(
    names: Sequence[str],
    device: str,
    limits: Limits,
    threads: int,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> dict[str, Future[dict[str, Any]]]:
    """Start the notes' exercise of the oracle and of backends."""
    futures = {}
    for name in names:
        task = progress.add_task("the oracle" if name == "oracle" else f"{name}, exercise")
        futures[name] = pool.submit(
            run_backend,
            "sae_oracle.workers.exercise",
            ["--oracle"] if name == "oracle" else [],
            # Keras is imported there too, so it must be on something: this one is always there.
            "numpy" if name == "oracle" else name,
            "cpu" if name == "oracle" else device,
            moving(progress, task),
            EXERCISE_TIME_LIMIT,
            limits=limits,
            threads=threads,
        )
    return futures


def _on_one_backend(
    command: Callable[..., int], arguments: argparse.Namespace, files: Mapping[str, Path | None]
) -> int:
    """Run a command on the backend that it or KERAS_BACKEND names, or on the first that trains."""
    console = console_for(stderr=any(map(is_stdout, files.values())), quiet=arguments.quiet)
    named = arguments.backend or os.environ.get("KERAS_BACKEND")
    names = (named,) if named in TRAINING_BACKENDS else TRAINING_BACKENDS
    problem = problem_with(files, names)
    if problem is not None:
        say_problem(console, problem)
        return 2
    backend = next(name for name in names if installed(name))
    run = partial(run_backend, limits=limits_of(arguments))
    return command(arguments, backend, run, console)


def train(arguments: argparse.Namespace) -> int:
    """Train on one backend; return the exit status (see `sae_oracle.train.train`)."""
    return _on_one_backend(training.train, arguments, {"--json": arguments.json})


def encode(arguments: argparse.Namespace) -> int:
    """Encode on one backend; return the exit status (see `sae_oracle.encode.encode`)."""
    files = {"--out": arguments.out, "--json": arguments.json}
    return _on_one_backend(encoding.encode, arguments, files)


def review(arguments: argparse.Namespace) -> int:
    """Run the reviewer; return the exit status: 0 conforms, 1 findings, 2 could not review."""
    return reviewing.review(arguments, [name for name in reviewing.PREFERRED if installed(name)])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = _Parser(
        prog="sae-oracle",
        description="The numerical reference for Ng's sparse autoencoder, and its Keras proof.",
    )
    root.add_argument("--version", action="version", version=f"sae-oracle {__version__}")
    commands = root.add_subparsers(dest="command", required=True)
    verify_parser = commands.add_parser(
        "verify",
        help="hold the Keras objects to the oracle, on every installed backend",
        description="Hold every Keras object to the NumPy oracle on real data. Exit status: 0 "
        "everything is inside its derived bound, 1 something is not, 2 it could not be verified.",
    )
    verify_parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    verify_parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    verify_parser.add_argument(
        "--wide",
        action="store_true",
        help="hold 4,096 × 4,096-32,768 instead, in float32: 40 GB of memory, and minutes",
    )
    add_json(verify_parser, "everything found")
    add_quiet(verify_parser)
    verify_parser.add_argument(
        "--report",
        type=file_name,
        metavar="DIR",
        help="do the notes' exercise too; write DIR/index.html",
    )
    verify_parser.add_argument(
        "--previous",
        type=file_name,
        metavar="FILE",
        help="the page of an earlier --report, to link and to compare with (default: the one in "
        f"DIR, which is kept as DIR/{PREVIOUS})",
    )
    verify_parser.add_argument(
        "--status", type=file_name, metavar="FILE", help="write the status matrix"
    )
    verify_parser.add_argument(
        "--time-limit",
        type=seconds,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help=f"of the process of a backend (default: {TIME_LIMIT:.0f})",
    )
    verify_parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="put what an earlier --json or benchmarks/gpu_checks.py found into --status too",
    )
    add_limits(verify_parser)
    verify_parser.set_defaults(run=verify)
    bench_parser = benchmark.add_parser(commands)
    add_limits(bench_parser)
    bench_parser.set_defaults(run=bench)
    train_parser = commands.add_parser(
        "train",
        help="train the notes' sparse autoencoder by L-BFGS on its exact cost",
        description="Minimise the cost of the notes over the whole data set by L-BFGS; write the "
        "model, its history and a picture of the learned features. The defaults are those of the "
        "notes' exercise. Ctrl-C, SIGTERM and SIGHUP end it with the best weights seen. Exit "
        "status: 0 trained, 1 the cost was not finite, 2 bad arguments or data, or this machine "
        "could not, 128 + n ended by signal n (the best weights seen are written).",
    )
    train_parser.set_defaults(run=train)
    encode_parser = commands.add_parser(
        "encode",
        help="write the code of raw samples, by a model of `train`",
        description="Preprocess samples as those that the model was trained on, and write the "
        "activations of its hidden units. Exit status: 0 written, 2 it could not.",
    )
    encode_parser.set_defaults(run=encode)
    for one_backend, command in ((train_parser, training), (encode_parser, encoding)):
        one_backend.add_argument(
            "--backend",
            choices=TRAINING_BACKENDS,
            help="default: KERAS_BACKEND, or the first installed",
        )
        one_backend.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
        command.add_arguments(one_backend)
        add_limits(one_backend)
    reviewing.add_parser(commands, BACKENDS).set_defaults(run=review)
    conformance.add_parser(commands)
    reviewing.add_explain_parser(commands).set_defaults(run=reviewing.explain)
    labels.add_parsers(commands)
    return root


class _Parser(argparse.ArgumentParser):
    """Shows control characters in what it was given, and does not send them."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: docs/exit-statuses.md."""
    with sound_output():
        try:
            with INTERRUPTION.heeded():
                words = list(sys.argv[1:] if arguments is None else arguments)
                chosen = parser().parse_args(words)
                chosen.words = words
                Child.may_start()
                return int(chosen.run(chosen))
        except KeyboardInterrupt:
            Child.end_all()
            by = "" if INTERRUPTION.number is None else f" by {signal_name(INTERRUPTION.number)}"
            print(f"interrupted{by}", file=sys.stderr)
            return INTERRUPTION.status or 130
        except (MemoryError, OSError) as error:
            file = getattr(error, "filename", None)
            where = "" if file is None else f": {plain(file)}"
            print(f"sae-oracle: error: {first_line(error)}{where}", file=sys.stderr)
            return 2
        except Exception:
            traceback.print_exc()
            print(BUG, file=sys.stderr)
            return 70
        finally:
            Child.end_all()
            if INTERRUPTION.number is None:  # else a thread may still be about to start one
                Child.may_start()


BUG = (
    "This is a mistake of sae-oracle, and not yours. Please report it to its authors, with the "
    "lines above and the command."
)


if __name__ == "__main__":
    sys.exit(main())
