"""What the reviewer does to the corpus: the confusion table, the printed reviews.

    python -m tests.sae_oracle.reviewer.report --write

reviews every case on jax, tensorflow and torch, one process each, and writes docs/findings.md, and
the table and the printed reviews of docs/review.md. Without --write it prints the table.

    KERAS_BACKEND=torch python -m tests.sae_oracle.reviewer.report --audit

writes docs/audit.md.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

from sae_oracle.processes import TRAINING_BACKENDS

ROOT = Path(__file__).parents[3]
PRINTED = {
    "well-known": [
        "examples/well_known_regularizer.py:SparsityRegularizer",
        "--activation",
        "relu",
    ],
    "its-autoencoder": ["examples/well_known_regularizer.py:autoencoder"],
    "tied": ["examples/transposed_at_build.py:DenseTied"],
}


AUDITED = {
    "AnsweredRegularizer": "The regularizer of a question-and-answer site, accepted there",
    "without_parentheses": "A book's formula, copied into many projects",
    "clipped": "A notebook's KL of a clipped mean",
    "over_the_units": "A torch snippet, whose mean runs over the wrong axis",
    "WeightIsStored": "A package for R, in Python: its weight is stored and never used",
    "RunningAverage": "A running average of the mean activations, with momentum",
}
"""What docs/audit.md says of each formula of `corpus.published`."""


def audit_of(name: str) -> str:
    """Return a section of docs/audit.md, on the backend in use."""
    import keras_impl
    from tests.sae_oracle.reviewer.corpus import published

    thing = getattr(published, name)
    found = keras_impl.review(thing)
    assert not found.reason, found.reason
    lines = [f"## {AUDITED[name]}", "", "```python", inspect.getsource(thing).rstrip(), "```", ""]
    lines += ["| finding | what is wrong | the fix |", "|---|---|---|"]
    for each in found.findings:
        place = f"[{each.identifier}](findings.md#{each.identifier.lower()})"
        lines.append(f"| {place} | {each.message} | {each.fix} |")
    notes = [f"Noted, and no mistake: {note}." for note in found.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]).replace("  # noqa: N803", "")


def audit() -> str:
    """Return docs/audit.md."""
    head = """# Published formulas, audited

Well-known formulas, each rewritten in a few lines, and what `sae-oracle review` finds in it.
Written by `KERAS_BACKEND=torch python -m tests.sae_oracle.reviewer.report --audit`; a test reviews
them again.
"""
    return "\n\n".join([head.rstrip(), *map(audit_of, AUDITED)]) + "\n"


def review_here() -> None:
    """Review every case on the backend in use; one JSON line a case."""
    import keras

    import keras_impl
    from tests.sae_oracle.reviewer.corpus.cases import CASES, RIGHT, judged, runs_on

    for case in CASES:
        if not runs_on(case, keras.config.backend()):
            continue
        review = keras_impl.review(case.thing, **case.options)
        judgement = judged(case, review.identifiers)
        line = {
            "name": case.name,
            "right": case in RIGHT,
            "found": judgement.found,
            "named": judgement.named and not review.reason,
            "accused": sorted(judgement.accused),
            "kind": review.kind,
        }
        print(json.dumps(line), flush=True)


def review_all() -> dict[str, list[dict]]:
    found = {}
    for backend in TRAINING_BACKENDS:
        run = subprocess.run(
            [sys.executable, "-m", "tests.sae_oracle.reviewer.report", "--here"],
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=1200,
            check=True,
        )
        found[backend] = [json.loads(s) for s in run.stdout.splitlines() if s.startswith("{")]
    return found


def confusion(found: dict[str, list[dict]]) -> str:
    lines = [
        "| backend | right | accused | wrong | found | every mistake named | accused of more |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for backend, cases in found.items():
        right = [case for case in cases if case["right"]]
        wrong = [case for case in cases if not case["right"]]
        counts = (
            len(right),
            sum(case["found"] for case in right),
            len(wrong),
            sum(case["found"] for case in wrong),
            sum(case["named"] for case in wrong),
            sum(bool(case["accused"]) for case in wrong),
        )
        lines.append(f"| {backend} | " + " | ".join(str(count) for count in counts) + " |")
    return "\n".join(lines)


def replaced(text: str, name: str, content: str) -> str:
    """Put content between the markers of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    assert tail, f"no markers of {name}"
    return f"{head}{begin}\n{content}\n{end}{tail}"


def printed(arguments: list[str]) -> str:
    command = ["sae-oracle", "review", *arguments]
    run = subprocess.run(
        [sys.executable, "-m", "sae_oracle", *command[1:], "--backend", "tensorflow"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    return f"```console\n$ {' '.join(command)}\n{run.stdout.rstrip()}\n```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", action="store_true", help="on KERAS_BACKEND, as JSON lines")
    parser.add_argument("--audit", action="store_true", help="write docs/audit.md")
    parser.add_argument("--write", action="store_true", help="write the documents")
    arguments = parser.parse_args()
    if arguments.here:
        review_here()
        return
    if arguments.audit:
        (ROOT / "docs" / "audit.md").write_text(audit(), "utf-8")
        return
    found = review_all()
    table = confusion(found)
    print(table)
    for backend, cases in found.items():
        for case in cases:
            if case["accused"] or not case["named"]:
                print(
                    f"{backend}: {case['name']}: {'' if case['named'] else 'not named'} "
                    f"accused of {case['accused']}"
                )
    if not arguments.write:
        return
    page = ROOT / "docs" / "review.md"
    page.write_text(replaced(page.read_text("utf-8"), "confusion", table), "utf-8")
    findings = subprocess.run(
        [
            sys.executable,
            "-c",
            "from sae_oracle.catalogue import as_markdown; print(as_markdown(), end='')",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (ROOT / "docs" / "findings.md").write_text(findings.stdout, "utf-8")
    for name, words in PRINTED.items():
        page.write_text(replaced(page.read_text("utf-8"), name, printed(words)), "utf-8")


if __name__ == "__main__":
    main()
