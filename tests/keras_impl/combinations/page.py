"""docs/combinations.md: written from one run a backend, read again by the test that holds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "combinations.md"
BACKENDS = ("jax", "tensorflow", "torch")
STATUSES = ("right", "refused", "Keras fails", "–")

# A cell: its status and its note.
Cells = dict[tuple[str, str], tuple[str, str]]

HEAD = """# What goes together with what

Written by `python -m tests.keras_impl.combinations --write`, not typed; the tests hold it to the
code. A row is something that Keras lets people ask for, a column an object of this package in a
small autoencoder.

- **right**: the loss that Keras reports and the weights after the steps that it trains are the
  oracle's, inside bounds that are derived and not tuned.
- **refused**: a `TypeError` or `ValueError` that names what is wrong.
- **Keras fails**: so does the same network with Keras's own objects (`Dense`, `L2`, an activity
  regularizer, `add_loss`, `MeanSquaredError`), by the same error or the same wrong number.
- **–**: the two have nothing to do with each other.

Every kernel is initialised by `NgUniform`. Where backends differ, each is named.
"""


def statuses_of_page(text: str) -> dict[tuple[str, str, str], str]:
    """The status of each (option, object, backend) on a page."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    found = {}
    names = rows[0][1:]
    for option, *cells in rows[1:]:
        for name, cell in zip(names, cells, strict=True):
            for part in cell.split("; "):
                words = re.sub(r" \[\d+\]", "", part)
                status, _, backends = words.partition(" on ")
                for backend in backends.split(", ") if backends else BACKENDS:
                    found[option, name, backend] = status
    return found


def page(found: dict[str, Cells]) -> str:
    """The page of what each backend found."""
    numbers: dict[str, int] = {}

    def part(outcome: tuple[str, str], backends: list[str]) -> str:
        status, note = outcome
        number = f" [{numbers.setdefault(note, len(numbers) + 1)}]" if note else ""
        on = "" if len(backends) == len(found) else f" on {', '.join(backends)}"
        return status + on + number

    first = next(iter(found.values()))
    options = list(dict.fromkeys(option for option, _ in first))
    names = list(dict.fromkeys(name for _, name in first))
    rows = []
    for option in options:
        cells = []
        for name in names:
            grouped: dict[tuple[str, str], list[str]] = {}
            for backend, of_backend in found.items():
                grouped.setdefault(of_backend[option, name], []).append(backend)
            cells.append("; ".join(part(outcome, on) for outcome, on in grouped.items()))
        rows.append(f"| {option} | {' | '.join(cells)} |")
    counted = [status for of_backend in found.values() for status, _ in of_backend.values()]
    counts = ", ".join(f"{counted.count(status)} {status}" for status in STATUSES)
    notes = [f"{number}. {note.replace('|', '∣')}" for note, number in numbers.items()]
    return "\n".join(
        [
            HEAD,
            f"{len(counted)} cells on {', '.join(found)}: {counts}.",
            "",
            f"| | {' | '.join(names)} |".replace("| |", "| option |"),
            "|---" * (len(names) + 1) + "|",
            *rows,
            "",
            *notes,
            "",
        ]
    )


def run_backends(options: list[str]) -> dict[str, Cells]:
    """Run every cell in one process for each backend; with options for each of them."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="sae-oracle-combinations-") as folder:
        for backend in BACKENDS:
            path = Path(folder) / f"{backend}.json"
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.keras_impl.combinations",
                    "--json",
                    str(path),
                    *options,
                ],
                env={**os.environ, "KERAS_BACKEND": backend},
                cwd=ROOT,
                check=True,
            )
            found[backend] = {
                (option, name): (status, note)
                for option, name, status, note in json.loads(path.read_text())
            }
    return found
