"""`sae-oracle equations` and `sae-oracle cite`: what a label stands for, and how to cite it."""

from __future__ import annotations

import argparse
import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_oracle import __version__
from sae_oracle.files import for_programs, plain
from sae_oracle.names import FOLDER
from sae_oracle.options import add_json, add_quiet
from sae_oracle.processes import console_for, status_of_json
from sae_oracle.review_formats import print_wrapped, readable

if TYPE_CHECKING:
    from reference import Equation

SCHEMA_VERSION = 1
"""Of the JSON of `equations` and of `cite`."""

CITATION = Path(__file__).parent / "CITATION.cff"
"""What is cited: in a checkout a link to the file beside this package."""

_IN_TEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "{": "\\textbraceleft{}", "}": "\\textbraceright{}",
    **{letter: f"\\{letter}" for letter in "&%$#_"},
}  # fmt: skip


def holding_tests() -> dict[str, list[str]]:
    """Return the tests that name each label in their marker, as pytest names them.

    Empty where there are no tests: an installed package has none.
    """
    found: dict[str, list[str]] = defaultdict(list)
    if not (FOLDER / "CITATION.cff").is_file():  # `tests` beside it may be anybody's
        return found
    marker = re.compile(
        r"@pytest\.mark\.equation\(([^)]*)\)\n(?:[@ )].*\n|\)\n)*?def (\w+)\(", re.MULTILINE
    )
    for path in sorted((FOLDER / "tests").rglob("test_*.py")):
        for labels, name in marker.findall(path.read_text(encoding="utf-8")):
            for label in re.findall(r"EQ-[A-Z0-9-]+", labels):
                found[label].append(f"{path.relative_to(FOLDER).as_posix()}::{name}")
    return found


def bibtex(equation: Equation | None = None) -> str:
    """Return an entry of BibTeX for an equation, or for the software.

    Args:
        equation: The equation; `None`: all of sae-oracle.

    >>> print(bibtex().splitlines()[0])
    @misc{sae-oracle,
    """
    citation = dict(
        re.findall(r"^([\w-]+): *\"?(.+?)\"?$", CITATION.read_text("utf-8"), re.MULTILINE)
    )
    year, month, _ = citation["date-released"].split("-")
    key, title, note = "sae-oracle", _in_tex(citation["title"]), f"Version {__version__}"
    if equation is not None:
        key += f"-{equation.label.lower()}"
        title = f"sae-oracle, {equation.label}: {_in_tex(equation.formula.removesuffix('.'))}"
        source = _in_tex(equation.source.removesuffix("."))
        note += f", \\texttt{{{_in_tex(equation.function)}}}. Source: {source}"
    fields = {
        "author": "{The sae-oracle authors}",
        "title": f"{{{title}}}",
        "year": year,
        "month": str(int(month)),
        "version": __version__,
        "note": note,
    }
    if "repository-code" in citation:
        fields["url"] = citation["repository-code"]
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _in_tex(text: str) -> str:
    """Return text that TeX prints as it is; Greek letters are for an engine of Unicode."""
    return "".join(_IN_TEX.get(letter, letter) for letter in text)


def labels_near(text: str, known: Collection[str]) -> tuple[str, list[str]]:
    """Return the label that a text names, or "" and those that are near it.

    Args:
        text: In any case; "EQ-" may be left out, and "_" or a blank stand for "-".
        known: Every label.

    >>> labels_near("kl_extension", ["EQ-KL-EXTENSION"]), labels_near("EQ-K", ["EQ-KL"])
    (('EQ-KL-EXTENSION', []), ('', ['EQ-KL']))
    """
    label = re.sub(r"[\s_-]+", "-", text.strip().upper())
    label = label if label.startswith("EQ-") else f"EQ-{label}"
    if label in known:
        return label, []
    near = difflib.get_close_matches(label, known, n=3, cutoff=0.6)
    near += [name for name in known if label[3:] and label[3:] in name]
    return "", list(dict.fromkeys(near))[:3]


def _chosen(arguments: argparse.Namespace) -> list[Equation] | None:
    """Return the equations that are asked for; `None`: a label is not known, as is printed."""
    import reference

    known = reference.equations()
    found: dict[str, Equation] = {}
    for text in arguments.labels:
        label, near = labels_near(text, known)
        if not label:
            hint = f"near it: {', '.join(near)}" if near else "`sae-oracle equations` has all"
            words = f"there is no equation {plain(text)!r}; {hint}"
            print_wrapped(console_for(stderr=True, highlight=False), words, "bold red")
            return None
        found[label] = known[label]
    return list(found.values()) if arguments.labels else list(known.values())


def equations(arguments: argparse.Namespace) -> int:
    """Print all labels, or what some stand for; return the exit status."""
    chosen = _chosen(arguments)
    if chosen is None:
        return 2
    tests = holding_tests() if arguments.labels or arguments.json else {}
    if arguments.json is not None:
        found = [
            {
                **equation._asdict(),
                "tests": tests.get(equation.label, []),
                "bibtex": bibtex(equation),
            }
            for equation in chosen
        ]
        text = for_programs(SCHEMA_VERSION, {"equations": found})
        status = status_of_json(arguments.json, text, console_for(stderr=True, highlight=False))
        if status is not None:
            return status
    console = console_for(log=80, highlight=False, quiet=arguments.quiet)
    for position, equation in enumerate(chosen):
        if not arguments.labels:
            print_wrapped(console, f"{equation.label}  {equation.formula}")
            continue
        if position:
            console.print()
        print_wrapped(console, equation.label, "bold")
        print_wrapped(console, equation.formula, indent="  ")
        print_wrapped(console, f"source: {equation.source}", indent="  ")
        print_wrapped(console, f"function: {equation.function}", indent="  ")
        held = tests.get(equation.label, ())
        where = "tests:" if held else "tests: in the source distribution, which has them"
        print_wrapped(console, where, indent="  ")
        for test in held:
            console.print(f"    {test}", soft_wrap=True, markup=False)
        console.print()
        _print_entry(console, equation)
    return 0


def cite(arguments: argparse.Namespace) -> int:
    """Print entries of BibTeX and nothing else; return the exit status."""
    chosen = _chosen(arguments)
    if chosen is None:
        return 2
    asked: Sequence[Equation | None] = chosen if arguments.labels else [None]
    if arguments.json is not None:
        found = [{"label": e.label if e else None, "bibtex": bibtex(e)} for e in asked]
        text = for_programs(SCHEMA_VERSION, {"entries": found})
        status = status_of_json(arguments.json, text, console_for(stderr=True, highlight=False))
        if status is not None:
            return status
    console = console_for(log=80, highlight=False, quiet=arguments.quiet)
    for position, equation in enumerate(asked):
        if position:
            console.print()
        _print_entry(console, equation)
    return 0


def _print_entry(console: Any, equation: Equation | None) -> None:
    text = readable(bibtex(equation), console.encoding)
    console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def add_parsers(commands: Any) -> None:
    """Add `equations` and `cite` to the commands of the command line."""
    for run, help_, description in (
        (
            equations,
            "what a label such as EQ-KL stands for",
            "Print the formula of a label, its source, the function that computes it, the tests "
            "that hold it, and an entry for BibTeX; without a label, all formulas.",
        ),
        (
            cite,
            "an entry for BibTeX, of an equation or of all",
            "Print the entry for BibTeX of a label; without one, that of sae-oracle.",
        ),
    ):
        parser: argparse.ArgumentParser = commands.add_parser(
            run.__name__,
            help=help_,
            description=f"{description} Exit status: 0, or 2 for an unknown label.",
        )
        parser.add_argument("labels", nargs="*", metavar="LABEL", help="such as EQ-KL-EXTENSION")
        add_json(parser, "the same")
        add_quiet(parser)
        parser.set_defaults(run=run)
