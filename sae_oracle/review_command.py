"""`sae-oracle review`: one process a backend, then text, JSON and the exit status.

The code under review runs in those processes alone, with a time limit: whatever it does there,
here it is a finding or a reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_oracle.catalogue import BY_IDENTIFIER, KINDS, MISTAKES, identifiers
from sae_oracle.files import (
    for_programs,
    is_stdout,
    visible,
    write_each,
    write_result,
)
from sae_oracle.options import (
    OUTPUT,
    Limits,
    add_json,
    add_limits,
    add_quiet,
    file_name,
    limits_of,
    problem_with_number,
    seconds,
)
from sae_oracle.processes import (
    ERROR,
    Child,
    console_for,
    environment,
    problem_with,
    say_problem,
    status_of_json,
)
from sae_oracle.review_formats import (
    FORMATS,
    SCHEMA_VERSION,
    as_github,
    as_sarif,
    print_finding,
    print_mistake,
    print_wrapped,
)

TIME_LIMIT = 120.0
"""Seconds that one backend's process may take, unless `--time-limit` says otherwise."""

PREFERRED = ("tensorflow", "jax", "torch", "numpy", "openvino")
"""The backends, the first that is installed before the others."""

FILE_LIMIT = 1024 * 2**20
"""Bytes that it may write into one file."""

DEFAULT_LIMITS = Limits(file=FILE_LIMIT, output=OUTPUT)

# Text, where it is no terminal: as wide as a page of a log.
_console = partial(console_for, log=80, highlight=False)


def default_backend(installed: Sequence[str]) -> str:
    """Return the backend that Keras would choose here, without importing it.

    Args:
        installed: The installed backends; the first is chosen where Keras says nothing.
    """
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    with contextlib.suppress(OSError, ValueError):
        chosen = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
        if chosen in installed:
            return str(chosen)
    return installed[0]


def backend_of(target: str, installed: Sequence[str]) -> str | None:
    """Return the backend that the file of a target is written for; `None`: it does not say.

    What it sets KERAS_BACKEND to, or the one backend that it imports. The file is not run.

    Args:
        target: `path/to/file.py:Object`, or `package.module:Object` below the working folder.
        installed: The installed backends.
    """
    where = target.rpartition(":")[0] if not target.endswith(".py") else target
    path = Path(where if where.endswith(".py") else where.replace(".", "/") + ".py")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"KERAS_BACKEND[\"']\]?\s*[=,]\s*[\"'](\w+)[\"']", text)
    if match and match[1] in installed:
        return match[1]
    imported = set(re.findall(r"^[ \t]*(?:import|from)[ \t]+(\w+)", text, re.MULTILINE))
    named = [name for name in ("tensorflow", "torch", "jax") if name in imported]
    return named[0] if len(named) == 1 and named[0] in installed else None


def setting(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value is a Python literal, or else a string.

    >>> setting("p=0.1"), setting("activation=relu")
    (('p', 0.1), ('activation', 'relu'))
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"NAME=VALUE is expected, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def ignored(text: str) -> tuple[str, ...]:
    """Parse identifiers of findings, or how they begin, between commas.

    >>> ignored("SAE101,SAE4")
    ('SAE101', 'SAE401', 'SAE402', 'SAE403')
    """
    try:
        return tuple(name for part in text.split(",") for name in identifiers(part))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def name_or_number(text: str) -> str | float:
    """Parse the name of an argument, or a value.

    >>> name_or_number("p"), name_or_number("0.05")
    ('p', 0.05)
    """
    try:
        return float(text)
    except ValueError:
        return text


def review_on(
    backend: str,
    request: Mapping[str, Any],
    time_limit: float,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Review the target on one backend, in a process of its own.

    Args:
        backend: Its name.
        request: The arguments of `keras_impl.review`, and `target`, where the object is.
        time_limit: Seconds before the process is killed.
        limits: Of the process.

    Returns:
        `review`, the review as a dictionary (with a `reason` if it could not be done), and
        `on_one_backend`, a finding or `None`.
    """
    child = Child(
        "sae_oracle.reviewer",
        [],
        environment(backend, "cpu"),
        request=dict(request),
        limits=limits,
    )
    stages = []
    found = child.run(lambda message: stages.append(message), time_limit)
    if found["kind"] == "result":
        return found
    reason = found["error"]
    if not stages:
        reason += " while starting Keras"
    failed = {"target": request["target"], "kind": "", "backend": backend, "reason": reason}
    empty: dict[str, Any] = {"findings": [], "guesses": [], "notes": [], "checks": []}
    return {"review": {**failed, **empty}, "on_one_backend": None}


def merge(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings of all backends, each once, with the `backends` that have it.

    What raises on some backends and not on others is bound to those others.
    """
    reviewed = [r for r in results if not r["review"]["reason"]]
    raising = [
        r for r in reviewed if any(f["identifier"] == "SAE601" for f in r["review"]["findings"])
    ]
    merged: dict[str, dict[str, Any]] = {}
    for result in reviewed:
        for found in result["review"]["findings"]:
            if found["identifier"] == "SAE601" and len(raising) < len(reviewed):
                found = result["on_one_backend"]
            entry = merged.setdefault(found["identifier"], {**found, "backends": []})
            entry["backends"].append(result["review"]["backend"])
    return sorted(merged.values(), key=lambda found: found["severity"] != "error")


def print_review(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the reviews of all backends, a block a finding."""
    reviews = [result["review"] for result in results]
    reviewed = [review for review in reviews if not review["reason"]]
    for review in reviews:
        if review["reason"]:
            words = f"Could not review {review['target']} on {review['backend']}"
            print_wrapped(console, f"{words}: {review['reason']}", "bold red")
    for guess in dict.fromkeys(guess for review in reviews for guess in review["guesses"]):
        print_wrapped(console, guess, indent="  ")
    for note in dict.fromkeys(note for review in reviews for note in review["notes"]):
        print_wrapped(console, f"note: {note}", indent="  ")
    if not reviewed:
        return
    first = reviewed[0]
    backends = ", ".join(review["backend"] for review in reviewed)
    title = f"{first['target']} ({first['kind']}; {backends})"
    findings = merge(results)
    if not findings:
        words = "; ".join(first["checks"])
        print_wrapped(console, f"{title}: conforms; checked: {words}", "bold green")
        return
    count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    print_wrapped(console, f"{title}: {count}", "bold")
    file, _, name = first["target"].rpartition(":")
    for found in findings:
        if len(findings) > 1:
            console.print()
        in_file = found["file"] and found["file"] == (file or name)
        place = f"line {found['line']}" if in_file else ""
        if found["file"] and not in_file:
            place = f"{found['file']}:{found['line']}"
        on = len(found["backends"]) < len(reviewed)
        print_finding(console, found, place, "on " + ", ".join(found["backends"]) if on else "")


def exit_status(results: Sequence[Mapping[str, Any]]) -> int:
    """Return 0 if it conforms everywhere, 2 if it could be reviewed nowhere, else 1.

    A mistake of the reviewer is 70.

    Reviewed on one backend and impossible on another is 1: it works on some backends only.
    """
    reasons = [bool(result["review"]["reason"]) for result in results]
    if any(result["review"].get("crashed") for result in results):
        return 70
    if all(reasons):
        return 2
    return 1 if any(reasons) or merge(results) else 0


def review(arguments: argparse.Namespace, all_backends: Sequence[str]) -> int:
    """Run the command; return the exit status.

    Args:
        arguments: Those of the command line.
        all_backends: The installed backends, in the order of preference.
    """
    chosen_format = arguments.format or "text"
    if is_stdout(arguments.json) and chosen_format not in ("text", "json"):
        print_wrapped(
            _console(stderr=True),
            f"--format {chosen_format} and --json - both write to standard output: name a file",
        )
        return 2
    if chosen_format == "json" and arguments.json is None:
        arguments.json = Path("-")
    prints_text = chosen_format == "text" and not is_stdout(arguments.json)
    console = _console(stderr=not prints_text, quiet=arguments.quiet)
    if not all_backends:
        say_problem(console, "[bold red]Not installed:[/] no backend of Keras is")
        return 2
    command = program_of([arguments.target, *arguments.command])
    of_file = None if arguments.backend else backend_of(arguments.target, all_backends)
    if command and "numpy" in all_backends:
        of_file = "numpy"  # a program needs no backend: the one that starts first
    chosen = arguments.backend or of_file or default_backend(all_backends)
    names = list(all_backends) if chosen == "all" else [chosen]
    problem = problem_with({"--json": arguments.json}, names)
    problem = problem or problem_with_hyperparameters(arguments)
    if problem is not None:
        say_problem(console, problem)
        return 2
    request = {
        "target": " ".join(command) or arguments.target,
        "command": command,
        "settings": dict(arguments.set or ()),
        "rho": arguments.rho,
        "beta": arguments.beta,
        "weight_decay": arguments.weight_decay,
        "kind": arguments.kind,
        "activation": arguments.activation,
        "called_directly": arguments.called_directly,
        "replicas": arguments.replicas,
        "ignore": [name for names in arguments.ignore or () for name in names],
    }
    with (
        console.status(f"Reviewing on {visible(', '.join(names))}"),
        ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool,
    ):
        futures = [
            pool.submit(review_on, name, request, arguments.time_limit, limits_of(arguments))
            for name in names
        ]
        try:
            results = [future.result() for future in futures]
        except BaseException:  # interrupted: the pool would wait for the processes
            pool.shutdown(wait=False, cancel_futures=True)
            Child.end_all()
            raise
    if of_file is not None and not command and of_file != default_backend(all_backends):
        words = f"on {of_file}, which the file is written for (--backend says otherwise)"
        for result in results:
            result["review"]["guesses"] = [words, *result["review"]["guesses"]]
    status = exit_status(results)
    findings = merge(results)
    files = {}
    if arguments.json is not None:
        everything = {
            "target": request["target"],
            "status": status,
            "findings": findings,
            "reviews": [result["review"] for result in results],
        }
        files[arguments.json] = for_programs(SCHEMA_VERSION, everything)
    if chosen_format in ("github", "sarif"):
        write = as_github if chosen_format == "github" else as_sarif
        refusals = [result["review"] for result in results if result["review"]["reason"]]
        reasons = [f"{r['target']} on {r['backend']}: {r['reason']}" for r in refusals]
        files[Path("-")] = write(findings, reasons)
    problems = write_each(
        {path: partial(write_result, content=text) for path, text in files.items()}
    )
    console.quiet = arguments.quiet and status == 0
    if prints_text:
        print_review(results, console)
    for problem in problems.values():
        say_problem(console, f"{ERROR} {problem}")
    return 2 if problems else status


def program_of(words: Sequence[str]) -> list[str]:
    """Return the command that is reviewed (`review -- COMMAND`); empty: it is an object."""
    named = ":" in words[0] or words[0].endswith(".py")
    can_run = not named and (os.sep in words[0] or shutil.which(words[0]))
    return [*words] if len(words) > 1 or can_run else []


def problem_with_hyperparameters(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with a ρ, β or λ that is said; `None`: nothing."""
    problem = None
    if isinstance(arguments.rho, float):
        problem = problem_with_number("--rho", arguments.rho, low=0.0, high=1.0, is_open=True)
    for option in ("beta", "weight_decay"):
        value = getattr(arguments, option)
        if problem is None and isinstance(value, float):
            problem = problem_with_number(f"--{option.replace('_', '-')}", value, low=0.0)
    return problem


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a target is."""
    parser.add_argument(
        "--set",
        action="append",
        type=setting,
        metavar="NAME=VALUE",
        help="a constructor argument (may be repeated)",
    )
    for name, symbol in (("rho", "ρ"), ("beta", "β"), ("weight-decay", "λ")):
        parser.add_argument(
            f"--{name}",
            type=name_or_number,
            metavar="NAME",
            help=f"the argument that is {symbol}, or its value (guessed from common names)",
        )
    parser.add_argument("--kind", choices=KINDS, help="what it is (detected)")
    parser.add_argument(
        "--called-directly",
        action="store_true",
        help="a regularizer's value goes to the loss as it is, not as an activity_regularizer",
    )


def add_parser(commands: Any, backends: Sequence[str]) -> argparse.ArgumentParser:
    """Add `review` to the commands of the command line and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "review",
        help="is this implementation right? findings with evidence and the equation to cite",
        description="Review a piece of a sparse autoencoder: a regularizer, layer, loss or model "
        "of Keras, or a function or class in NumPy, torch, JAX or TensorFlow. "
        "Exit status: 0 it conforms, 1 there are findings, 2 it could not be reviewed.",
    )
    parser.add_argument(
        "target",
        help="package.module:Object or path/to/file.py:Object; a Class.method too; or, after --, a "
        "program that answers questions in JSON lines (docs/review.md)",
    )
    # Without the default argparse calls it required.
    parser.add_argument("command", nargs="*", default=[], help="the arguments of the program")
    add_target_options(parser)
    parser.add_argument(
        "--activation", metavar="NAME", help="the activation of the layer that it is used on"
    )
    parser.add_argument(
        "--replicas",
        action="store_true",
        help="try it on two replicas too (on tensorflow): is the mean global?",
    )
    parser.add_argument(
        "--backend",
        choices=(*backends, "all"),
        help="where to run it; all: on every installed backend (default: what the file is "
        "written for, else Keras's own choice)",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        type=ignored,
        metavar="ID,ID",
        help="findings to leave out; SAE4 is all that begin so (may be repeated)",
    )
    parser.add_argument(
        "--time-limit",
        type=seconds,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help=f"of the process of a backend (default: {TIME_LIMIT:.0f})",
    )
    add_limits(parser, file=FILE_LIMIT)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of what is printed: text (the default), json, github (annotations of a workflow), "
        "sarif (SARIF 2.1.0)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const=Path("-"),
        type=file_name,
        metavar="FILE",
        help="write JSON (to standard output)",
    )
    add_quiet(parser, "findings and problems")
    return parser


def explain(arguments: argparse.Namespace) -> int:
    """Print what identifiers mean; return the exit status."""
    console = _console(stderr=is_stdout(arguments.json), quiet=arguments.quiet)
    lists = arguments.list or not arguments.identifiers
    names = dict.fromkeys(name for names in arguments.identifiers for name in names)
    chosen = MISTAKES if lists else [BY_IDENTIFIER[name] for name in names]
    if arguments.json is not None:
        found = {"findings": [mistake._asdict() for mistake in chosen]}
        status = status_of_json(arguments.json, for_programs(SCHEMA_VERSION, found), console)
        if status is not None:
            return status
    if lists:
        for mistake in MISTAKES:
            print_wrapped(console, f"{mistake.identifier}  {mistake.severity:7}  {mistake.title}")
        return 0
    for position, mistake in enumerate(chosen):
        if position:
            console.print()
        print_mistake(console, mistake)
    return 0


def add_explain_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `explain` to the commands of the command line and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="what a finding of the reviewer means, and the fix",
        description="Print what docs/findings.md has. Exit status: 0, or 2 for an unknown one.",
    )
    parser.add_argument(
        "identifiers",
        nargs="*",
        type=ignored,
        metavar="ID",
        help="such as SAE105; SAE4 is all that begin so",
    )
    parser.add_argument("--list", action="store_true", help="all of them, a line each")
    add_json(parser, "the same")
    add_quiet(parser)
    return parser
