"""Writes docs/benchmarks.md and its pictures from the dated results in benchmarks/results/.

    python -m benchmarks.page

The newest `sae-oracle bench --json` of each device gives the tables, every older one a line; the
newest report of `gpu_checks.py` of each device gives the accuracy table.
"""

from __future__ import annotations

import json
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
        " its interval is not one. What should be spent, and what was done about it, is in"
        " [speed.md](speed.md).\n",
    ]
    benches = read("sae-oracle bench")
    shown: set[str] = set()
    for path, results in benches:
        if results["device"] in shown:
            continue
        shown.add(results["device"])
        text += bench_section(path, results)
    for path, report in read("sae-oracle checks"):
        if report["device"] not in shown or not report["quick"]:
            text += checks_section(path, report)
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


def checks_section(path: Path, report: dict[str, Any]) -> list[str]:
    """Return what `gpu_checks.py` found on one machine."""
    device = f"a GPU ({report['gpu']})" if report["device"] == "gpu" else "a CPU"
    counts = ", ".join(f"{number} {status}" for status, number in report["counts"].items())
    text = [
        f"## Checks on {device}\n",
        f"{report['date']}, Python {report['python']}, {report['seconds']:.0f} s: {counts}. From"
        f" `{path.relative_to(ROOT)}`.\n",
        "| check | outcome | s | |\n|---|---|---|---|",
        *(
            f"| {o['name']} | {o['status']} | {o['seconds']} | {o['detail'].replace('|', '/')} |"
            for o in report["outcomes"]
        ),
        "",
        "Precision of matrix products: ‖error‖/‖value‖ in float32, and the largest error in units"
        " of the bound for full float32 (reduced precision may exceed 1).\n",
        "| backend | setting | quantity | relative error | worst / bound |\n|---|---|---|---|---|",
    ]
    for backend, found in report["accuracy"].items():
        text += [
            f"| {backend} | {row['setting']} | {row['quantity']} | {row['relative_error']:.1e} |"
            f" {row['worst']:.2g} |"
            for row in found["rows"]
        ]
    return [*text, ""]


def main() -> None:
    """Write the page."""
    text = page()
    (DOCS / "benchmarks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
