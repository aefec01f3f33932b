"""`sae-oracle vectors`: write the conformance vectors, or hold a program to them."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Any

from sae_oracle.files import first_line, is_stdout, problem_with_file, shown, write_result
from sae_oracle.options import file_name, seconds
from sae_oracle.processes import console_for

ERROR = "[bold red]Error:[/]"


def vectors(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit status.

    0 written, or all that was asked passed; 1 some failed; 2 it could not, or asked nothing.
    """
    from reference import certified
    from sae_oracle.conformance.vectors import digest

    console = console_for(stderr=is_stdout(arguments.certificate))
    if arguments.check:
        return _check(arguments, console)
    if arguments.program or arguments.certificate is not None:
        console.print(f"{ERROR} a program and --certificate go with --check", soft_wrap=True)
        return 2
    if not certified.INSTALLED:
        console.print(f"[bold red]Not installed:[/] {shown(certified.NEEDS)}", soft_wrap=True)
        return 2
    from sae_oracle.conformance.generation import write

    try:
        files = write(arguments.write)
    except OSError as error:
        words = f"--write {arguments.write} cannot be written: {first_line(error)}"
        console.print(f"{ERROR} {shown(words)}", soft_wrap=True)
        return 2
    console.print(f"{len(files)} files; SHA-256 of the vectors {digest(arguments.write)}")
    return 0


def _check(arguments: argparse.Namespace, console: Any) -> int:
    from sae_oracle.conformance import check
    from sae_oracle.conformance.vectors import VectorError, digest, read_vectors

    problem = None
    if not arguments.program:
        problem = "--check needs a program after `--`: sae-oracle vectors --check -- COMMAND"
    elif arguments.certificate is not None:
        problem = problem_with_file("--certificate", arguments.certificate)
    if problem is not None:
        console.print(f"{ERROR} {problem}", soft_wrap=True)
        return 2
    try:
        results = check.check_program(
            arguments.program,
            read_vectors(),
            precision=arguments.format,
            time_limit=arguments.time_limit,
        )
    except (VectorError, check.CouldNotAskError) as error:
        console.print(f"{ERROR} {shown(error)}", soft_wrap=True)
        return 2
    name = shlex.join(arguments.program)
    found = check.certificate(name, results, arguments.format, digest())
    for vector, judgement in results:
        line = shown(check.line_of(vector, judgement))
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"{found['passed']} passed, {found['failed']} failed, {found['not run']} not run")
    if arguments.certificate is not None:
        is_page = arguments.certificate.suffix == ".md"
        text = check.as_page(found) if is_page else json.dumps(found, indent=1) + "\n"
        try:
            write_result(arguments.certificate, text)
        except OSError as error:
            words = f"--certificate cannot be written: {first_line(error)}"
            console.print(f"{ERROR} {shown(words)}", soft_wrap=True)
            return 2
    return 1 if found["failed"] else 0 if found["passed"] else 2


def add_parser(commands: Any) -> None:
    """Add `vectors` to the commands of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "vectors",
        help="write the conformance vectors, or hold a program to them",
        description="Write the conformance vectors, with certified digits and bounds, bit for bit "
        "as they are published; or hold a program in any language to them, by the protocol of "
        "`review -- COMMAND`. Exit status: 0 written, or all that was asked passed; 1 some failed; "
        "2 it could not, or nothing was asked.",
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=file_name, metavar="DIR", help="where to write them")
    group.add_argument("--check", action="store_true", help="hold the program after -- to them")
    parser.add_argument("program", nargs="*", metavar="COMMAND", help="the program, after --")
    parser.add_argument(
        "--certificate", type=file_name, metavar="FILE", help="JSON, or a page if it ends in .md"
    )
    parser.add_argument(
        "--format",
        choices=("float16", "bfloat16", "float32", "float64"),
        default="float64",
        help="whose bounds hold (default: float64)",
    )
    parser.add_argument(
        "--time-limit", type=seconds, default=30.0, metavar="SECONDS", help="of an answer"
    )
    parser.set_defaults(run=vectors)
