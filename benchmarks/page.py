"""Writes docs/benchmarks.md, its pictures and docs/gpu.md from the results in benchmarks/results/.

    python -m benchmarks.page

The newest `sae-oracle bench --json` of each device gives the tables, every older one a line. Of
each check of `gpu_checks.py` on a GPU the newest run that came to its end counts; what was done by
hand there, and what was learned, is in `benchmarks/results/*-gpu.md`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_oracle.bench import plots, tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
TITLES = {
    "step": "one training step",
    "epoch": "one epoch of `fit` (16 batches)",
    "sweep": "one training step, over batch and width",
}


def read(kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Return the results of a kind, newest first."""
    found = []
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("kind") == kind:
            found.append((path, content))
    return sorted(found, key=lambda item: item[1]["date"], reverse=True)


def page() -> str:
    """Return the page, and draw its pictures."""
    text = [
        "# What the penalty costs\n",
        "Written by `python -m benchmarks.page` from the files in `benchmarks/results/`, not typed."
        " A ratio is the time of a step over that of the same step without the penalty, measured in"
        " pairs: each timing of a variant (the shortest of several steps in succession) stands"
        " between two of its baseline. Shown are the median of the pairs and its 95 % bootstrap"
        " interval. The control is the baseline again, as a model of its own: a difference inside"
        ' its interval is not one. "sees": from this difference of a ratio and the control\'s on,'
        " their intervals are apart; a smaller effect may be there and not be found. What should be"
        " spent, and what was done about it, is in"
        " [speed.md](speed.md).\n",
    ]
    benches = read("sae-oracle bench")
    devices: set[str] = set()
    for path, results in benches:
        if results["device"] in devices:
            continue
        devices.add(results["device"])
        text += bench_section(path, results)
    older = [path.name for path, _ in benches]
    text += ["## All runs\n", *(f"- `benchmarks/results/{name}`" for name in older), ""]
    return "\n".join(text)


def bench_section(path: Path, results: dict[str, Any]) -> list[str]:
    """Return the tables of one run."""
    machine, device = results["machine"], results["device"]
    text = [
        f"## On a {device.upper()}\n",
        f"{results['date']}, {machine['processor']}, {machine['cores']} cores, {machine['system']},"
        f" load {machine['load']} (processes that wanted a core, over five minutes). From"
        f" `{path.relative_to(ROOT)}`.\n",
    ]
    if tables.was_busy(results):
        text.append(
            "**The machine was busy with other work: these numbers show what a run contains, and"
            " are not to be quoted.** Run `make bench` on an idle one.\n"
        )
    for backend, found in results["backends"].items():
        if found["kind"] != "result":
            text.append(f"{backend}: {found.get('error', 'not installed')}\n")
    of_parts = {row["part"] for _, found in tables.measured(results) for row in found["rows"]}
    for part in ("step", "epoch", "sweep"):
        if part not in of_parts:
            continue
        picture = DOCS / f"benchmarks-{device}-{part}.svg"
        if part == "sweep":
            plots.draw_sweep(results, picture)
        else:
            plots.draw_ratios(results, picture, part)
        text.append(f"![{TITLES[part]}]({picture.name})\n")
        for backend, found in tables.measured(results):
            for (of, network), rows in tables.parts(found).items():
                if of == part:
                    text += [
                        f"<details><summary>{backend}, {network}, {TITLES[part]}</summary>\n",
                        tables.markdown_table(rows),
                        "</details>\n",
                    ]
    for backend, found in tables.measured(results):
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        bandwidth = found["copy_bytes_per_second"] / 1e9
        text.append(
            f"{backend} on {found['device']}: {versions}; a copy moves {bandwidth:.1f} GB/s.\n"
        )
    return text


@dataclass
class Checks:
    """The newest outcome and result of each check on a GPU, and from which files they are.

    Args:
        outcomes: By (check, backend): passed, failed or skipped, seconds, last words.
        found: By (check, backend), what it found.
        files: The reports, newest first.
    """

    outcomes: dict[tuple[str, str], dict[str, Any]]
    found: dict[tuple[str, str], dict[str, Any]]
    files: list[tuple[Path, dict[str, Any]]]


def gpu_checks() -> Checks:
    """Return what is known of the checks on a GPU."""
    files = [(p, r) for p, r in read("sae-oracle checks") if r["device"] == "gpu"]
    checks = Checks({}, {}, files)
    for _, report in reversed(files):  # a newer one replaces an older one
        for outcome in report["outcomes"]:
            check, _, backend = outcome["name"].rpartition(", ")
            if "no end in time" not in outcome["detail"] or (check, backend) not in checks.outcomes:
                checks.outcomes[check, backend] = outcome
        for check, by_backend in report["found"].items():
            for backend, found in by_backend.items():
                checks.found[check, backend] = found
    return checks


def gpu_page() -> str:
    """Return what was found on a GPU."""
    checks = gpu_checks()
    text = [
        "# On a GPU\n",
        "Written by `python -m benchmarks.page` from the files named below, which"
        " `python benchmarks/gpu_checks.py` wrote. [speed.md](speed.md) has the floor, and"
        " [status.md](status.md) the worst of each size.\n",
        "| file | device | Python | seconds | checks |\n|---|---|---|---|---|",
    ]
    for path, report in checks.files:
        counts = ", ".join(f"{number} {status}" for status, number in report["counts"].items())
        text.append(
            f"| `{path.relative_to(ROOT)}` | {report['gpu']} | {report['python']} |"
            f" {report['seconds']:.0f} | {counts} |"
        )
    text.append("")
    for path in sorted(RESULTS.glob("*-gpu.md"), reverse=True):
        text.append(path.read_text(encoding="utf-8"))
    text += tests_section(checks)
    text += step_section(checks)
    text += alone_section(checks)
    text += accuracy_section(checks)
    return "\n".join(text)


def tests_section(checks: Checks) -> list[str]:
    """Return what `verify` said, and how many tests passed; by file, where any failed."""
    text = ["## Verify and tests\n"]
    for (check, backend), outcome in checks.outcomes.items():
        if check.startswith("verify"):
            text.append(f"- {check}, {backend}, {outcome['seconds']:.0f} s: {outcome['detail']}")
    tests = {key: o for key, o in checks.outcomes.items() if key[0].startswith("tests ")}
    for backend in sorted({backend for _, backend in tests}):
        details = [o["detail"] for (_, on), o in tests.items() if on == backend]
        counts = {
            word: sum(int(n) for d in details for n in re.findall(rf"(\d+) {word}", d))
            for word in ("passed", "failed", "error", "skipped")
        }
        counted = ", ".join(f"{number} {word}" for word, number in counts.items())
        text.append(f"- the tests of {len(details)} files and folders, {backend}: {counted}")
    for (check, backend), outcome in sorted(tests.items()):
        if outcome["status"] == "failed":
            text.append(f"- {check}, {backend}: {outcome['detail']}")
    return [*text, ""]


def step_section(checks: Checks) -> list[str]:
    """Return the benchmark of the wide step, and the step kernel by kernel."""
    text = ["## A training step of the wide case\n"]
    for (check, backend), found in checks.found.items():
        if not check.startswith("bench"):
            continue
        measured = found["backends"][backend]
        bandwidth = measured["copy_bytes_per_second"] / 1e12
        for (_, network), rows in tables.parts(measured).items():
            text += [
                f"**{check}, {backend}**, {network}; a copy moves {bandwidth:.2f} TB/s:\n",
                tables.markdown_table(rows),
                "",
            ]
    text += [
        "The same step by the framework's profiler; waits are calls that synchronise.\n",
        "| backend | step | kernels | µs | added µs | copies to the host | to the device | waits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (check, backend), found in checks.found.items():
        if not check.startswith("profile"):
            continue
        without = 0.0
        for name, step in found["steps"].items():
            without = step["microseconds"] if name.startswith("no penalty") else without
            text.append(
                f"| {backend} | {name} | {step['kernels']:.0f} | {step['microseconds']:,.0f} |"
                f" {step['microseconds'] - without:.0f} | {step['copies']['to the host']:.0f} |"
                f" {step['copies']['to the device']:.0f} | {sum(step['waits'].values()):.1f} |"
            )
    return [*text, ""]


def alone_section(checks: Checks) -> list[str]:
    """Return what the penalty takes by itself."""
    text = [
        "## The penalty by itself\n",
        "By `benchmarks/penalty_alone.py`. Beside it what a mean must move at the bandwidth of a"
        " copy: the activations once; on torch, eagerly, the gradient is also read and written.\n",
        "| backend | penalty | kernels | MB | added µs | 95 % | a mean must move, µs |",
        "|---|---|---|---|---|---|---|",
    ]
    for (check, backend), found in checks.found.items():
        if check != "penalty alone":
            continue
        must = 1e6 * found["bytes_that_must_move"] / found["copy_bytes_per_second"]
        for row in found["rows"]:
            added = row["added_microseconds"]
            moved = "—" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f}"
            text.append(
                f"| {backend} | {row['penalty']} | {row['kernels']} | {moved} |"
                f" {added['median']:.0f} | {added['low']:.0f} to {added['high']:.0f} |"
                f" {must:.0f} |"
            )
    return [*text, ""]


def accuracy_section(checks: Checks) -> list[str]:
    """Return what reduced precision of the matrix products costs."""
    text = [
        "## Precision of matrix products\n",
        "‖error‖/‖value‖ in float32, 512 digits, 64-256-64, and the largest error in units of the"
        " bound for full float32, which reduced precision may exceed.\n",
        "| backend | setting | quantity | relative error | worst / bound |\n|---|---|---|---|---|",
    ]
    for (check, backend), found in checks.found.items():
        if check == "accuracy":
            text += [
                f"| {backend} | {row['setting']} | {row['quantity']} |"
                f" {row['relative_error']:.1e} | {row['worst']:.2g} |"
                for row in found["rows"]
            ]
    return [*text, ""]


def main() -> None:
    """Write the pages."""
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
    (DOCS / "gpu.md").write_text(gpu_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
