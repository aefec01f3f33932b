"""`sae-oracle vectors`: write the conformance vectors."""

from __future__ import annotations

import argparse
from typing import Any

from sae_oracle.files import first_line, shown
from sae_oracle.options import file_name
from sae_oracle.processes import console_for


def vectors(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit status: 0 written, 2 it could not."""
    from reference import certified
    from sae_oracle.conformance.generation import write
    from sae_oracle.conformance.vectors import digest

    console = console_for()
    if not certified.INSTALLED:
        console.print(f"[bold red]Not installed:[/] {shown(certified.NEEDS)}", soft_wrap=True)
        return 2
    try:
        files = write(arguments.write)
    except OSError as error:
        words = f"--write {arguments.write} cannot be written: {first_line(error)}"
        console.print(f"[bold red]Error:[/] {shown(words)}", soft_wrap=True)
        return 2
    console.print(f"{len(files)} files; SHA-256 of the vectors {digest(arguments.write)}")
    return 0


def add_parser(commands: Any) -> None:
    """Add `vectors` to the commands of the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "vectors",
        help="write the conformance vectors: what any implementation is held to",
        description="Write the conformance vectors, with certified digits and bounds, bit for bit "
        "as they are published. Exit status: 0 written, 2 it could not.",
    )
    parser.add_argument("--write", type=file_name, metavar="DIR", required=True, help="where")
    parser.set_defaults(run=vectors)
