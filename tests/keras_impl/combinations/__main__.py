"""`python -m tests.keras_impl.combinations --write`: every cell on every backend, as a page."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.keras_impl.combinations import page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/combinations.md")
    parser.add_argument("--json", type=Path, help="run this process's backend; write it there")
    parser.add_argument("--only", default="", help="only options whose name has this text")
    parser.add_argument(
        "--quick", action="store_true", help="as the tests: nothing slow, few cells compiled"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    if arguments.write:
        found = page.run_backends(["--quick"] if quick else [])
        wrong = [
            f"{option} × {name} on {backend}: {note}"
            for backend, cells in found.items()
            for (option, name), (status, note) in cells.items()
            if status == "WRONG"
        ]
        print("\n".join(wrong))
        if not wrong:
            page.PAGE.write_text(page.page(found), encoding="utf-8")
        return 1 if wrong else 0

    from conftest import prepare_backend

    prepare_backend(os.environ["KERAS_BACKEND"], "cpu")
    from tests.keras_impl.combinations import cells
    from tests.keras_impl.combinations.options import OPTIONS
    from tests.keras_impl.combinations.subjects import JOINED, SUBJECTS, together

    backend = os.environ["KERAS_BACKEND"]
    lines = []
    for option in OPTIONS:
        if arguments.only not in option.name:
            continue
        start = time.perf_counter()
        eagerly = quick and backend != "torch" and backend not in option.compiled
        found = {}
        if quick:
            joined = [subject for subject in SUBJECTS if subject.name in JOINED]
            outcome = cells.Outcome("–", "not run")
            if backend not in option.slow:
                outcome = cells.outcome_of(option, together(joined), eagerly=eagerly)
            if outcome.status == "right":
                found = dict.fromkeys(JOINED, outcome)
            elif backend in option.slow:
                found = dict.fromkeys([subject.name for subject in SUBJECTS], outcome)
        for subject in SUBJECTS:
            if subject.name not in found:
                found[subject.name] = cells.outcome_of(option, subject, eagerly=eagerly)
            outcome = found[subject.name]
            lines.append((option.name, subject.name, outcome.status, outcome.note))
            if outcome.status == "WRONG":
                print(f"{option.name} × {subject.name}: {outcome.note}", flush=True)
        print(f"{option.name}: {time.perf_counter() - start:.1f} s", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
