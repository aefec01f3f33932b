"""Results of the benchmark as tables: in the terminal, in Markdown, and against earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sae_oracle.files import from_programs, visible

Row = Mapping[str, Any]
Results = Mapping[str, Any]

NOT_SHOWN = "no penalty"
"""The baseline's own row: its ratio is 1 but for noise, and the control says how much that is."""


def load(path: Path) -> dict[str, Any]:
    """Return the results in a file of `--json`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds something else.
    """
    results = from_programs(path.read_text(encoding="utf-8"))
    try:
        is_ours = results["kind"] == "sae-oracle bench" and isinstance(results["date"], str)
        for row in by_key(results).values():
            is_ours = is_ours and all(row["ratio"][k] >= 0.0 for k in ("median", "low", "high"))
    except (KeyError, TypeError, AttributeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} is not written by `sae-oracle bench --json`")
    return dict(results)


def measured(results: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the backends that were measured, with what was found."""
    for backend, found in results["backends"].items():
        if found["kind"] == "result":
            yield backend, found


def parts(found: Mapping[str, Any]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of a backend by part ("step", "epoch", "sweep") and network."""
    split: dict[tuple[str, str], list[Row]] = {}
    for row in found["rows"]:
        split.setdefault((row["part"], row["network"]), []).append(row)
    return split


HEADINGS = (
    *("way", "variant", "step, ms", "ratio", "sees", "added, µs", "first, s", "peak, MB", ""),
)


def smallest_effect(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return from which difference of the medians on two intervals of these widths are apart.

    Each reaches so far towards the other: max((b.high − b.median) + (a.median − a.low),
    (b.median − b.low) + (a.high − a.median)). What is smaller may be there and not be seen.

    Args:
        a: A ratio, with "median", "low" and "high".
        b: That of the control, or of another run.

    >>> narrow = {"median": 1.0, "low": 0.75, "high": 1.25}
    >>> smallest_effect({"median": 2.0, "low": 1.5, "high": 2.125}, narrow)
    0.75
    """
    a_below, b_below = (ratio["median"] - ratio["low"] for ratio in (a, b))
    a_above, b_above = (ratio["high"] - ratio["median"] for ratio in (a, b))
    return max(a_below + b_above, a_above + b_below)


def all_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return rows as text, each beside the control of its network and way."""

    def place(row: Row) -> tuple[str, ...]:
        return row["part"], row["network"], row["way"]

    controls = {place(row): row["ratio"] for row in rows if "control" in row["variant"]}
    return [cells(row, controls.get(place(row))) for row in rows]


def cells(row: Row, control: Mapping[str, float] | None) -> tuple[str, ...]:
    """Return a row as text, in the order of `HEADINGS`.

    Args:
        row: Of a variant.
        control: The ratio of two equal steps, by which it is known what a run sees.
    """
    ratio, added = row["ratio"], row["added"]
    first, peak = row.get("first_step_seconds"), row.get("peak_bytes")
    baseline = row["variant"] == NOT_SHOWN
    return (
        row["way"],
        row["variant"],
        f"{1e3 * row['seconds']:.3f}",
        "" if baseline else f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]",
        "" if baseline or control is None else f"{smallest_effect(ratio, control):.3f}",
        ""
        if baseline
        else f"{1e6 * added['median']:.0f} [{1e6 * added['low']:.0f}, {1e6 * added['high']:.0f}]",
        "" if first is None else f"{first:.2f}",
        "" if peak is None else f"{peak / 1e6:.1f}",
        "within the control's noise"
        if row["within_noise"] and "control" not in row["variant"]
        else "",
    )


def title(backend: str, found: Mapping[str, Any], part: str, network: str) -> str:
    """Say what a table is of."""
    what = {"step": "one step", "epoch": "one epoch of fit, 16 batches", "sweep": "sweep"}[part]
    return f"{backend} on {found['device']}: {network}, {what}"


def _table(title: str, columns: Sequence[Sequence[str]]) -> Table:
    """Return a table whose words are whole where they can be; a heading begins each column."""
    table = Table(title=visible(title), title_justify="left")
    for column in columns:
        longest = max(len(word) for cell in column for word in cell.split() or [""])
        table.add_column(column[0], overflow="fold", min_width=longest)
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(visible, row))
    return table


def print_results(results: Results, console: Console) -> None:
    """Print a table for each backend and network, and what was not measured."""
    for backend, found in measured(results):
        for (part, network), rows in parts(found).items():
            for way in dict.fromkeys(row["way"] for row in rows):
                words = f"{title(backend, found, part, network)}; {way}"
                of_way = all_cells([row for row in rows if row["way"] == way])
                _, *columns = zip(HEADINGS, *of_way, strict=True)
                console.print(_table(words, [column for column in columns if any(column[1:])]))
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        console.print(
            f"{backend}: {versions}; a copy moves {found['copy_bytes_per_second'] / 1e9:.1f} GB/s"
        )
    for backend, found in results["backends"].items():
        if found["kind"] == "absent":
            console.print(f"{backend}: not installed, not measured")
        elif found["kind"] == "error":
            console.print(
                f"{backend}: [bold red]not measured:[/] {visible(found['error'])}", highlight=False
            )
    machine = results["machine"]
    console.print(
        f"{results['date']}, {visible(machine['processor'])}, {machine['cores']} cores, "
        f"load {machine['load']}. Ratio and added time: medians of pairs with 95 % intervals. "
        "Sees: from this difference of a ratio and the control's on, their intervals are apart."
    )
    if was_busy(results):
        console.print("[bold red]The machine was busy: do not quote these numbers.[/]")


def answers(results: Results) -> list[str]:
    """Return a line for each step of our penalties: what it adds, beside Keras's L2 and the noise.

    Args:
        results: Of a run.

    Returns:
        Such as "KLSparsity on torch: +4 % [3, 5], Keras's L2 +7 %; control ±2 %", where the
        control's number is the furthest end of its interval from no difference. Way and network
        are in it where there are several.
    """
    found_by_name: dict[str, list[tuple[str, str]]] = {}
    for backend, found in measured(results):
        ways: dict[tuple[str, str], dict[str, Mapping[str, float]]] = {}
        for row in found["rows"]:
            if row["part"] == "step":
                ways.setdefault((row["network"], row["way"]), {})[row["variant"]] = row["ratio"]
        for (network, way), ratios in ways.items():
            control = next((r for name, r in ratios.items() if "control" in name), None)
            l2 = ratios.get("Keras L2 activity regularizer")
            for name, ratio in ratios.items():
                if name.split(",")[0] not in ("KLSparsity", "KLSparsityRegularizer"):
                    continue
                low, high = (100.0 * ratio[end] - 100.0 for end in ("low", "high"))
                answer = f"{_percent(ratio['median'])} [{low:.0f}, {high:.0f}]"
                if l2 is not None:
                    answer += f", Keras's L2 {_percent(l2['median'])}"
                if control is not None:
                    noise = max(abs(100.0 * control[end] - 100.0) for end in ("low", "high"))
                    answer += f"; control ±{noise:.0f} %"
                pairs = found_by_name.setdefault(f"{name} on {backend}", [])
                pairs.append((f" ({way}; {network})", answer))
    return [
        f"{name}{where if len(pairs) > 1 else ''}: {answer}"
        for name, pairs in found_by_name.items()
        for where, answer in pairs
    ]


def _percent(ratio: float) -> str:
    return f"{100.0 * ratio - 100.0:+.0f} %"


def was_busy(results: Results) -> bool:
    """Whether more processes wanted a core than there are, so that the timings mean little."""
    machine = results["machine"]
    return machine["load"] is not None and machine["load"] > 1.5 * machine["cores"]


Key = tuple[str, str, str, str, str]


def by_key(results: Results) -> dict[Key, Row]:
    """Return every row but the baselines by backend, part, network, way and variant."""
    return {
        (backend, row["part"], row["network"], row["way"], row["variant"]): row
        for backend, found in measured(results)
        for row in found["rows"]
        if row["variant"] != NOT_SHOWN
    }


def print_comparison(earlier: Results, later: Results, console: Console) -> None:
    """Print the ratios of two runs side by side, where both have them."""
    before, after = by_key(earlier), by_key(later)
    table = Table(
        title=f"{visible(earlier['date'])} → {visible(later['date'])}", title_justify="left"
    )
    for heading in ("backend", "network", "way", "variant", "was", "is", "sees", ""):
        table.add_column(heading, overflow="fold")
    for key in after:
        if key not in before:
            continue
        was, now = before[key]["ratio"], after[key]["ratio"]
        changed = was["high"] < now["low"] or now["high"] < was["low"]
        verdict = ("slower" if now["median"] > was["median"] else "faster") if changed else ""
        backend, _, network, way, variant = key
        table.add_row(
            *map(visible, (backend, network, way, variant)),
            *(f"{r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in (was, now)),
            f"{smallest_effect(now, was):.3f}",
            verdict,
        )
    console.print(table)
    only = len(before.keys() ^ after.keys())
    console.print(
        f"Compared: {len(before.keys() & after.keys())} rows; in one of the runs only: {only}. "
        "Slower, faster: the intervals do not overlap. Sees: from this difference on they do not."
    )


def markdown_table(rows: list[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(row) + " |" for row in all_cells(rows)]
    return "\n".join(lines) + "\n"
