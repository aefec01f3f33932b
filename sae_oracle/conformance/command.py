"""`sae-oracle vectors`: write the conformance vectors, or hold a program to them."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from functools import partial
from typing import Any

from sae_oracle.equations import labels_near
from sae_oracle.files import (
    first_line,
    for_programs,
    is_stdout,
    problem_with_file,
    visible,
    write_each,
    write_result,
)
from sae_oracle.options import add_json, add_limits, add_quiet, file_name, limits_of, seconds
from sae_oracle.processes import (
    BACKENDS,
    ERROR,
    console_for,
    installed,
    say_problem,
)
from sae_oracle.review_command import (
    FILE_LIMIT,
    PREFERRED,
    add_target_options,
    backend_of,
    default_backend,
    problem_with_hyperparameters,
    program_of,
)

SCHEMA_VERSION = 1
"""Of the JSON of `vectors`: it changes when a name goes or means something else."""


def vectors(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit status.

    0 written, or all that was asked passed; 1 some failed; 2 it could not, or asked nothing.
    """
    from reference import certified
    from sae_oracle.conformance.vectors import digest

    results = [path for path in (*(arguments.certificate or ()), arguments.json) if path]
    console = console_for(stderr=any(map(is_stdout, results)), quiet=arguments.quiet)
    if arguments.check:
        return _check(arguments, console)
    if arguments.program or arguments.certificate or arguments.label:
        words = "a program, --certificate and --label go with --check"
        say_problem(console, f"{ERROR} {words}")
        return 2
    if not certified.INSTALLED:
        say_problem(console, f"[bold red]Not installed:[/] {visible(certified.NEEDS)}")
        return 2
    from sae_oracle.conformance.generation import write

    problem = None if arguments.json is None else problem_with_file("--json", arguments.json)
    if problem is not None:
        say_problem(console, f"{ERROR} {problem}")
        return 2
    try:
        files = write(arguments.write)
        sha256 = digest(arguments.write)
        if arguments.json is not None:
            found = {"files": [str(file) for file in files], "sha256": sha256}
            write_result(arguments.json, for_programs(SCHEMA_VERSION, found))
    except OSError as error:
        words = f"--write {arguments.write} cannot be written: {first_line(error)}"
        say_problem(console, f"{ERROR} {visible(words)}")
        return 2
    console.print(f"{len(files)} files; SHA-256 of the vectors {sha256}")
    return 0


def _check(arguments: argparse.Namespace, console: Any) -> int:
    from sae_oracle.conformance import check
    from sae_oracle.conformance.vectors import VectorError, digest, read_vectors

    problem = None
    if not arguments.program:
        problem = "--check needs what is checked: a file.py:Object, or a program after `--`"
    for path in arguments.certificate or ():
        problem = problem or problem_with_file("--certificate", path)
    if arguments.json is not None:
        problem = problem or problem_with_file("--json", arguments.json)
    try:
        every = [] if problem else read_vectors()
    except VectorError as error:
        problem = visible(error)
    labels: dict[str, None] = {}
    for label in [] if problem else arguments.label or ():
        known = list(dict.fromkeys(vector.label for vector in every))
        chosen, near = labels_near(label, known)
        if not chosen and label != "all":
            hint = f"near it: {', '.join(near)}" if near else "vectors/README.md has all"
            problem = f"--label {visible(label)}: there are no vectors of it; {hint}"
        labels |= dict.fromkeys(known if label == "all" else [chosen])
    if problem is not None:
        say_problem(console, f"{ERROR} {problem}")
        return 2
    name = shlex.join(arguments.program)
    program = program_of(arguments.program)
    about: dict[str, Any] = {}
    try:
        if program:
            about["format"] = arguments.format or "float64"
            results = check.check_program(
                program,
                every,
                labels=labels,
                precision=about["format"],
                time_limit=arguments.time_limit,
            )
        else:
            asked = [v for v in every if v.label in labels] if labels else every
            results, about = _check_target(arguments, asked)
    except check.CouldNotAskError as error:
        say_problem(console, f"{ERROR} {visible(error)}")
        return 2
    found = check.certificate(name, results, about["format"], digest(), about)
    return _report(found, arguments, console)


def _check_target(arguments: argparse.Namespace, vectors: Any) -> Any:
    from sae_oracle.conformance import check

    (target,) = arguments.program
    names = [name for name in PREFERRED if installed(name)]
    problem = problem_with_hyperparameters(arguments)
    backend = arguments.backend or backend_of(target, names) or default_backend(names or [""])
    if problem is None and not installed(backend):
        problem = f"not installed: {backend}"
    if problem is not None:
        raise check.CouldNotAskError(problem)
    return check.check_target(
        {
            "target": target,
            "settings": dict(arguments.set or ()),
            "said": {role: getattr(arguments, role) for role in ("rho", "beta", "weight_decay")},
            "kind": arguments.kind,
            "called_directly": arguments.called_directly,
        },
        vectors,
        backend=backend,
        precision=arguments.format,
        time_limit=arguments.time_limit,
        limits=limits_of(arguments),
    )


def _report(found: dict[str, Any], arguments: argparse.Namespace, console: Any) -> int:
    """Print a certificate and write its files; return the exit status."""
    from sae_oracle.conformance import check

    reasons: Counter[str] = Counter()
    for result in found["results"]:
        if result["status"] == "not run":
            reasons[result["words"]] += 1
        elif result["status"] == "failed":
            say_problem(console, visible(check.line_of(result)))
        else:
            console.print(visible(check.line_of(result)), soft_wrap=True, highlight=False)
    for words, count in reasons.items():
        console.print(visible(f"{count} not run: {words}"), soft_wrap=True, highlight=False)
    status = 1 if found["failed"] else 0 if found["passed"] else 2
    console.quiet = arguments.quiet and status == 0
    console.print(check.summary(found), highlight=False)
    pages = {path: path.suffix in (".html", ".htm") for path in arguments.certificate or ()}
    pages |= {} if arguments.json is None else {arguments.json: False}
    text = for_programs(SCHEMA_VERSION, found)
    texts = {path: check.as_page(found) if is_page else text for path, is_page in pages.items()}
    problems = write_each({p: partial(write_result, content=t) for p, t in texts.items()})
    for problem in problems.values():
        say_problem(console, f"{ERROR} {problem}")
    return 2 if problems else status


def add_parser(commands: Any) -> None:
    """Add `vectors` to the commands of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "vectors",
        help="write the conformance vectors, or hold an implementation to them",
        description="Write the conformance vectors, with certified digits and bounds, bit for bit "
        "as they are published; or hold to them what `review` takes: a regularizer, layer, loss or "
        "model of Keras, a function or class, a program in any language. Exit status: 0 written, "
        "or all that was asked passed; 1 some failed; 2 it could not, or nothing was asked.",
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=file_name, metavar="DIR", help="where to write them")
    group.add_argument("--check", action="store_true", help="hold a target to them")
    parser.add_argument(
        "program",
        nargs="*",
        metavar="TARGET",
        help="package.module:Object or path/to/file.py:Object, as `review` takes it; or, after --, "
        "a program and its arguments",
    )
    add_target_options(parser)
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="where an object runs (default: what its file is written for, else Keras's choice)",
    )
    add_limits(parser, file=FILE_LIMIT)
    parser.add_argument(
        "--certificate",
        type=file_name,
        action="append",
        metavar="FILE",
        help="a page if it ends in .html, else JSON (may be repeated)",
    )
    add_json(parser, "the certificate, or the names and the digest of what was written,")
    add_quiet(parser)
    parser.add_argument(
        "--label",
        action="append",
        metavar="LABEL",
        help="an equation that it is asked, or all (may be repeated; docs/vectors.md)",
    )
    parser.add_argument(
        "--format",
        choices=("float16", "bfloat16", "float32", "float64"),
        help="whose bounds hold (default: what an object computes in; float64 for a program)",
    )
    parser.add_argument(
        "--time-limit", type=seconds, default=30.0, metavar="SECONDS", help="of an answer"
    )
    parser.set_defaults(run=vectors)
