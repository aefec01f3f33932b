"""What a review looks like: blocks of text, GitHub's annotations, SARIF 2.1.0."""

from __future__ import annotations

import json
import textwrap
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sae_oracle import __version__
from sae_oracle.catalogue import BY_IDENTIFIER, Mistake
from sae_oracle.files import plain, spelled

SCHEMA_VERSION = 1
"""Of the JSON that a review writes: it changes when a name goes or means something else."""

FORMATS = ("text", "json", "github", "sarif")

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def readable(text: str, encoding: str) -> str:
    """Return text that an encoding can say; Greek is written out where it cannot.

    >>> readable("ρ̂ ≤ ½", "ascii"), readable("β", "utf-8")
    ('rho_hat <= 1/2', 'β')
    """
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return spelled(text)
    return text


def print_wrapped(console: Console, text: str, style: str = "", indent: str = "") -> None:
    """Print a paragraph that is as wide as the console; no character of it is obeyed."""
    text = readable(" ".join(plain(line) for line in text.split("\n")), console.encoding)
    hanging = indent + "  " * text.startswith(("violates: ", "fix: ", "or: ", "note: "))
    lines = textwrap.wrap(
        text, max(console.width, 20), initial_indent=indent, subsequent_indent=hanging
    )
    for line in lines or [""]:
        console.print(Text(line, style), soft_wrap=True)


def print_finding(console: Console, found: Mapping[str, Any], *where: str) -> None:
    """Print one finding as a block, of four lines where they are wide enough.

    Args:
        console: Where.
        found: The finding.
        *where: The line, the backends; empty ones are left out.
    """
    style = "bold red" if found["severity"] == "error" else "bold yellow"
    head = ", ".join(filter(None, (f"{found['identifier']} {found['severity']}", *where)))
    print_wrapped(console, f"{head}: {found['message']}", style)
    evidence = found["evidence"]
    if evidence is not None:
        ratio = f" (ratio {evidence['ratio']})" if evidence["ratio"] else ""
        seen = f"expected {evidence['expected']}, got {evidence['got']}{ratio}"
        print_wrapped(console, f"{evidence['input']}: {seen}", indent="  ")
    for other in found["alternatives"]:
        print_wrapped(console, f"or: {other}", indent="  ")
    print_wrapped(console, f"violates: {found['source']}", indent="  ")
    print_wrapped(console, f"fix: {found['fix']}", "green", indent="  ")


def print_mistake(console: Console, mistake: Mistake) -> None:
    """Print what docs/findings.md says of one identifier."""
    words = f"{mistake.identifier} {mistake.severity}: {mistake.title}"
    print_wrapped(console, words, "bold")
    print_wrapped(console, f"violates: {mistake.source}", indent="  ")
    print_wrapped(console, f"fix: {mistake.fix}", "green", indent="  ")


def _said(found: Mapping[str, Any]) -> str:
    evidence = found["evidence"]
    seen = ""
    if evidence is not None:
        seen = f"\n{evidence['input']}: expected {evidence['expected']}, got {evidence['got']}"
    return f"{found['message']}{seen}\nfix: {found['fix']}"


def as_github(findings: Sequence[Mapping[str, Any]], reasons: Sequence[str]) -> str:
    """Return annotations for a workflow of GitHub, a line each."""

    def escaped(text: str, more: str = "") -> str:
        for letter in "%\r\n" + more:
            text = text.replace(letter, f"%{ord(letter):02X}")
        return text

    lines = [f"::error title=could not review::{escaped(reason)}" for reason in reasons]
    for found in findings:
        place = ""
        if found["file"]:
            place = f"file={escaped(found['file'], ':,')},line={found['line']},"
        lines.append(
            f"::{found['severity']} {place}title={found['identifier']}::{escaped(_said(found))}"
        )
    return "".join(line + "\n" for line in lines)


def as_sarif(findings: Sequence[Mapping[str, Any]], reasons: Sequence[str]) -> str:
    """Return a log of SARIF 2.1.0 (OASIS)."""
    names = sorted({found["identifier"] for found in findings})
    rules = [
        {
            "id": name,
            "shortDescription": {"text": BY_IDENTIFIER[name].title},
            "fullDescription": {"text": f"Violates {BY_IDENTIFIER[name].source}."},
            "help": {"text": BY_IDENTIFIER[name].fix},
            "defaultConfiguration": {"level": BY_IDENTIFIER[name].severity},
        }
        for name in names
    ]
    results = []
    for found in findings:
        result: dict[str, Any] = {
            "ruleId": found["identifier"],
            "ruleIndex": names.index(found["identifier"]),
            "level": found["severity"],
            "message": {"text": _said(found)},
        }
        if found["file"]:
            path = Path(found["file"])
            uri = path.as_uri() if path.is_absolute() else urllib.parse.quote(path.as_posix())
            place = {"artifactLocation": {"uri": uri}, "region": {"startLine": found["line"]}}
            result["locations"] = [{"physicalLocation": place}]
        results.append(result)
    invocation: dict[str, Any] = {"executionSuccessful": not reasons}
    if reasons:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": reason}} for reason in reasons
        ]
    run = {
        "tool": {"driver": {"name": "sae-oracle", "version": __version__, "rules": rules}},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1) + "\n"
