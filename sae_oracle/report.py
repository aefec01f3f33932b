"""What people look at: the verify table in the terminal, and the same as one HTML page."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

import reference
from sae_oracle.equations import holding_tests
from sae_oracle.files import plain, visible
from sae_oracle.formulas import typeset
from sae_oracle.pictures import feature_figure, png

EXERCISE_MARGIN = 0.0035
"""How far the final cost of a right backend's exercise may be from the oracle's, some 0.345.

Measured, not derived: L-BFGS amplifies rounding. Two float64 runs whose starts differ by 2⁻²⁴ agree
to 1e-9 after 50 iterations, and go different ways after 100; after 400, in float64 and in float32
alike, final costs have a standard deviation of 0.0005 (`python -m benchmarks.exercise_spread`;
benchmarks/results). The margin is 5 standard deviations of a difference of two, 5·√2·0.0005."""


@dataclass(frozen=True)
class Cell:
    """One quantity in one dtype on one backend, over all cases.

    Args:
        worst: The largest error in units of its bound, infinite if one is not a number; `None` if
            nothing was compared.
        resolution: The largest relative error that might not be found (EQ-BOUND-RESOLUTION).
        undecidable: The share of elements that no bound can decide.
        elements: How many numbers were compared.
        case: The case of the largest error.
        failure: What was raised, if a case could not be compared.
        keras_fails: Whether it is an object of Keras's own that raised it: not ours to mend.
        suspicion: The largest error in units of its likely bound; 0 where there is none.
        likely: The largest relative error that might not be suspicious; `None` where there is none.
    """

    worst: float | None
    resolution: float
    undecidable: float
    elements: int
    case: str
    failure: str
    keras_fails: bool = False
    suspicion: float = 0.0
    likely: float | None = None

    @property
    def is_suspicious(self) -> bool:
        """Whether something inside its bound is outside its likely one: shown, no verdict."""
        return self.state == "inside" and self.suspicion > 1.0

    @property
    def is_outside(self) -> bool:
        """Whether something is outside its bound."""
        return self.worst is not None and not self.worst <= 1.0

    @property
    def state(self) -> str:
        """One of `STATES`; the last two also where one case of several could not be compared."""
        if self.is_outside:
            return "outside"
        if self.worst is not None and not self.failure:
            return "inside"
        return "Keras fails" if self.keras_fails else "not compared"

    def __str__(self) -> str:
        if self.worst is None or self.state not in ("inside", "outside"):
            return self.state
        worst = "<0.01" if 0.0 < self.worst < 0.01 else f"{self.worst:.2f}"
        text = "OUTSIDE " + worst if self.is_outside else worst
        if self.is_suspicious:
            text += f" suspicious {self.suspicion:.1f}"
        if not self.undecidable:
            return text
        share = "<0.1%" if self.undecidable < 0.001 else f"{self.undecidable:.1%}"
        return f"{text} ({share} ?)"


STATES = ("inside", "outside", "Keras fails", "not compared")

Row = tuple[str, str, str, str]  # equation, quantity, dtype, size


@dataclass(frozen=True)
class Results:
    """All backends' results, as rows and columns.

    Args:
        backends: What each backend's process found: its result, or an error, or that it is not
            installed.
        cells: The table.
        exercise: What the notes' exercise gave, the oracle first; empty if it was not done.
    """

    backends: Mapping[str, Mapping[str, Any]]
    cells: Mapping[Row, Mapping[str, Cell]]
    exercise: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def held(self) -> list[str]:
        """The backends that were held to the oracle."""
        return [name for name, result in self.backends.items() if result["kind"] == "result"]

    @property
    def counts(self) -> Counter[str]:
        """How many cells are in each of `STATES`."""
        found = Counter(cell.state for row in self.cells.values() for cell in row.values())
        return Counter({state: found[state] for state in STATES})

    @property
    def missing(self) -> list[str]:
        """What of ours was not compared, and backends on which nothing was."""
        cells = [
            (row, name, cell)
            for row, columns in self.cells.items()
            for name, cell in columns.items()
        ]
        ours = [
            f"{quantity} in {dtype} on {name}"
            for (_, quantity, dtype, _), name, cell in cells
            if cell.state == "not compared"
        ]
        compared = {name for _, name, cell in cells if cell.elements}
        return ours + [f"anything on {name}" for name in self.held if name not in compared]

    def resolution(self, row: Row) -> str:
        """Return the largest of a row, as the tables have it; after a stroke the likely one."""
        compared = [cell for cell in self.cells[row].values() if cell.worst is not None]
        if not compared:
            return "—"
        return _finds(
            max(cell.resolution for cell in compared),
            [cell.likely for cell in compared if cell.likely is not None],
        )

    @property
    def suspicious(self) -> int:
        """How many cells are suspicious."""
        return sum(cell.is_suspicious for row in self.cells.values() for cell in row.values())

    @property
    def passed(self) -> bool:
        """Whether a backend was held, all of ours was compared, and nothing is outside."""
        failed = any(result["kind"] == "error" for result in self.backends.values())
        if failed or not self.held or self.counts["outside"]:
            return False
        return not self.missing and not self.exercise_failures

    @property
    def exercise_failures(self) -> list[str]:
        """Who did not come to the end of the exercise, or not to the oracle's cost."""
        return [name for name in self.exercise if exercise_problem(self.exercise, name)]


def exercise_problem(exercise: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """Return what is wrong with one run of the exercise; `None`: nothing."""
    run = exercise[name]
    if run["kind"] != "result":
        return str(run.get("error", run["kind"]))
    oracle = exercise["oracle"]
    if oracle["kind"] == "result" and not (abs(run["total"] - oracle["total"]) <= EXERCISE_MARGIN):
        return f"the final cost is further than {EXERCISE_MARGIN} from the oracle's"
    return None


def exercise_table(exercise: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the final costs of the exercise as a table."""
    table = Table(
        title="The notes' exercise: 10,000 patches, 64-25-64, 400 iterations of L-BFGS from the "
        f"same weights; final cost within {EXERCISE_MARGIN} of the oracle's",
        title_justify="left",
    )
    for name in ("", "final cost", "reconstruction", "weight decay", "sparsity", "rho_hat"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    table.add_column("evaluations", justify="right")
    table.add_column("seconds", justify="right")
    for name, run in exercise.items():
        problem = exercise_problem(exercise, name)
        if run["kind"] != "result":
            table.add_row(name, f"[bold red]failed[/]: {visible(problem)}")
            continue
        low, high = run["rho_hat"]
        total = f"{run['total']:.5f}"
        table.add_row(
            name,
            f"[bold red]OUTSIDE {total}[/]" if problem else total,
            *(f"{run[term]:.5f}" for term in ("reconstruction", "weight_decay", "sparsity")),
            f"{low:.4f} to {high:.4f}",
            str(run["evaluations"]),
            f"{run['seconds']:.1f}",
        )
    return table


def exercise_features(exercise: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the learned features of every run of the exercise, side by side, as a figure."""
    return feature_figure(
        {
            f"{name}, J = {run['total']:.4f}": run["kernel"]
            for name, run in exercise.items()
            if run["kind"] == "result"
        }
    )


def collect(
    backends: Mapping[str, Mapping[str, Any]],
    exercise: Mapping[str, Mapping[str, Any]] | None = None,
) -> Results:
    """Put the measurements of all backends into one table.

    Args:
        backends: For each backend the last message of its process: `kind` is "result", "error"
            or "absent".
        exercise: The same for the notes' exercise, the oracle ("oracle") first; `None`: not done.

    Returns:
        A row for each (equation, quantity, dtype, size), sorted by dtype and, in the order of first
        appearance, by size.
    """
    groups: dict[Row, dict[str, list[Mapping[str, Any]]]] = {}
    for name, result in backends.items():
        for m in result.get("measurements", ()):
            row = (m["equation"], m["quantity"], m["dtype"], m["size"])
            groups.setdefault(row, {}).setdefault(name, []).append(m)
    sizes = list(dict.fromkeys(row[3] for row in groups))
    cells = {
        row: {name: _cell(measurements) for name, measurements in groups[row].items()}
        for row in sorted(groups, key=lambda row: (row[2], sizes.index(row[3])))
    }
    return Results(backends, cells, exercise or {})


def _cell(measurements: Sequence[Mapping[str, Any]]) -> Cell:
    compared = [m for m in measurements if m["worst"] is not None]
    failures = [m["failure"] for m in measurements if m["worst"] is None]
    failure = "; ".join(sorted({text or "no number" for text in failures}))
    of_keras = measurements[0]["quantity"].startswith("Keras ")
    keras_fails = of_keras and bool(failures) and all(failures)
    if not compared:
        return Cell(None, 0.0, 0.0, 0, "", failure, keras_fails)
    worst = _worst(compared)
    return Cell(
        _error(worst),
        max(m["resolution"] for m in compared),
        _undecided(compared),
        sum(m["elements"] for m in compared),
        worst["case"],
        failure,
        keras_fails,
        max((_number(m["suspicion"]) for m in compared if _has_likely(m)), default=0.0),
        max((m["likely"] for m in compared if _has_likely(m)), default=None),
    )


def _has_likely(measurement: Mapping[str, Any]) -> bool:
    # Not in results of an earlier version.
    return measurement.get("likely") is not None


def _finds(certain: float, likely: Sequence[float]) -> str:
    return f"{certain:.1e} / {max(likely):.1e}" if likely else f"{certain:.1e}"


def _error(measurement: Mapping[str, Any]) -> float:
    """Return how far off it is; what is not a number is further than any number."""
    return _number(measurement["worst"])


def _number(error: Any) -> float:
    return np.inf if np.isnan(float(error)) else float(error)


def _worst(measurements: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the one furthest off; it does not depend on their order."""
    return max(measurements, key=lambda m: (_error(m), m["quantity"], m["case"]))


def _coarsest(measurements: Sequence[Mapping[str, Any]], quantity: str) -> str:
    """Return the largest resolution of a quantity of a network, tied or from logits too."""
    names = (quantity, f"{quantity} from logits", quantity.replace(" by ", " by tied "))
    found = [m for m in measurements if m["quantity"] in names]
    if not found:
        return "—"
    return _finds(
        max(m["resolution"] for m in found), [m["likely"] for m in found if _has_likely(m)]
    )


def _undecided(measurements: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of all their numbers that no bound can decide."""
    elements = math.fsum(m["elements"] for m in measurements)
    return math.fsum(m["undecidable"] * m["elements"] for m in measurements) / max(elements, 1.0)


def versions(result: Mapping[str, Any]) -> str:
    """Return one line: versions, device, seconds."""
    named = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{named}; {result['device']}; {result['seconds']} s"


def summary(results: Results) -> str:
    """Return the verdict in one sentence."""
    counts = results.counts
    numbers = sum(cell.elements for row in results.cells.values() for cell in row.values())
    failed = [name for name, result in results.backends.items() if result["kind"] == "error"]
    if failed:
        return f"FAILED: {', '.join(failed)} could not be held to the oracle."
    if not results.held:
        return "FAILED: no backend was held to the oracle."
    if results.exercise_failures:
        return f"FAILED: the notes' exercise, on {', '.join(results.exercise_failures)}."
    cells = f"{counts.total()} cells ({numbers:,} numbers) on {', '.join(results.held)} are"
    if counts["outside"]:
        verdict = f"OUTSIDE: {counts['outside']} of {cells} outside their derived bounds"
    elif results.missing:
        return f"FAILED: {'; '.join(results.missing)} could not be compared."
    elif counts["Keras fails"]:
        verdict = f"{counts['inside']} of {cells} inside their derived bounds"
    else:
        verdict = f"All of {cells} inside their derived bounds"
    if results.suspicious:
        verdict += f"; {results.suspicious} are suspicious: outside what roundings are likely to do"
    if not counts["Keras fails"]:
        return verdict + "."
    return f"{verdict}; {counts['Keras fails']} could not be compared: Keras itself fails there."


_TERMINAL_STYLES = dict(zip(STATES, ("", "bold red", "yellow", "bold red"), strict=True))
_PAGE_CLASSES = dict(zip(STATES, ("", "outside", "keras-fails", "not-compared"), strict=True))


def print_results(results: Results, console: Console) -> None:
    """Print the table, the versions and the verdict."""
    for kind in dict.fromkeys(row[2:] for row in results.cells):
        table = Table(
            title=f"{', '.join(kind)}: error in units of its derived bound (at most 1 is right), "
            "worst over all cases",
            title_justify="left",
        )
        table.add_column("equation", no_wrap=True)
        table.add_column("quantity", overflow="fold", min_width=30)
        table.add_column("finds", justify="right", no_wrap=True)
        for name in results.held:
            table.add_column(name, justify="right", no_wrap=True)
        for row, cells in results.cells.items():
            if row[2:] != kind:
                continue
            texts = []
            for name in results.held:
                cell = cells.get(name)
                style = _TERMINAL_STYLES[cell.state] if cell else ""
                style = "bold yellow" if cell and cell.is_suspicious else style
                texts.append(Text("—" if cell is None else str(cell), style))
            table.add_row(*row[:2], results.resolution(row), *texts)
        _print_table(table, console)
    for name, result in results.backends.items():
        if result["kind"] == "result":
            console.print(f"{name}: {visible(versions(result))}", highlight=False, soft_wrap=True)
        elif result["kind"] == "absent":
            console.print(f"{name}: not installed, not verified", soft_wrap=True)
        else:
            console.print(
                f"[bold red]{name}: failed[/]: {visible(result['error'])}", soft_wrap=True
            )
    for line in failures(results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        "finds: the relative error, by norm, that is certain to be found / to be suspicious. "
        "—: the backend has no gradients. (x% ?): the share that no bound can decide."
    )
    if results.exercise:
        _print_table(exercise_table(results.exercise), console)
    style = "bold green" if results.passed else "bold red"
    console.print(summary(results), style=style, highlight=False, soft_wrap=True)


def _print_table(table: Table, console: Console) -> None:
    """Print a table whole: where it is too wide, a block of lines a row."""
    if Measurement.get(console, console.options.update(width=10_000), table).minimum <= (
        console.width
    ):
        console.print(table)
        return
    console.print(table.title, style="italic")
    headings = [column.header for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = (Text.from_markup(cell) if isinstance(cell, str) else cell for cell in row)
        named = [
            Text.assemble(f"{heading} ", cell)
            for heading, cell in zip(headings[1:], others, strict=True)
            if isinstance(cell, Text) and cell
        ]
        console.print(first, Text("  ") + Text("; ").join(named), sep="\n")


def failures(results: Results) -> list[str]:
    """Return a line for each cell where something was raised."""
    return [
        f"{'Keras fails' if cell.keras_fails else 'Not compared'}: {row[1]}, {row[2]}, on {name}: "
        + plain(cell.failure)
        for row, cells in results.cells.items()
        for name, cell in cells.items()
        if cell.failure
    ]


def earlier_results(content: Mapping[str, Any]) -> list[Mapping[str, Mapping[str, Any]]]:
    """Return what each backend's process found, from a file that was written earlier.

    Args:
        content: What `sae-oracle verify --json` or `benchmarks/gpu_checks.py` wrote.

    Raises:
        ValueError: If it is neither.
    """
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        if isinstance(content.get("backends"), Mapping) and "verdict" in content:
            return [content["backends"]]
        if content.get("kind") == "sae-oracle checks":
            names = [name for name in content["found"] if name.split()[0] == "verify"]
            runs = [run for name in names for run in content["found"][name].values()]
            return [run["backends"] for run in runs]
    raise ValueError("not written by `sae-oracle verify --json` or benchmarks/gpu_checks.py")


_FOUND = {
    "reconstruction": "reconstruction",
    "weight decay": "weight decay",
    "sparsity": "sparsity",
    "∂J/∂W": "gradient by kernel",
}


def status_matrix(results: Results, earlier: Sequence[Mapping[str, Mapping[str, Any]]] = ()) -> str:
    """Return a Markdown table, a row a backend, device, dtype and size.

    Args:
        results: Of this run.
        earlier: Of others, as `earlier_results` returns them: their rows come after.
    """
    lines = [
        "# Status",
        "",
        "Written by `sae-oracle verify --status docs/status.md`, not typed. The largest error",
        "over all quantities and cases, in units of its derived bound (at most 1 is right); the",
        "share of numbers that no bound can decide; and what is found: the smallest relative",
        "error, by norm, that is certain to be outside, or, after the stroke, outside of likely",
        "bounds (suspicious), in the worst case. Suspicious: how many measurements are. Rows of",
        "other machines have the bounds of their day.",
        "",
        f"| backend | device | dtype | size | worst | in | undecided | {' | '.join(_FOUND)} "
        "| suspicious | numbers | versions |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    others = [(name, result) for run in earlier for name, result in run.items()]
    for name, result in [*results.backends.items(), *others]:
        if result["kind"] != "result":
            lines.append(f"| {name} | | | | {result['kind']} |{' |' * (len(_FOUND) + 5)}")
            continue
        named = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
        measured = [m for m in result["measurements"] if m["worst"] is not None]
        device = result["device"]
        if not measured:
            lines.append(
                f"| {name} | {device} | | | nothing compared |{' |' * (len(_FOUND) + 4)} {named} |"
            )
        for dtype, size in dict.fromkeys((m["dtype"], m["size"]) for m in measured):
            chosen = [m for m in measured if (m["dtype"], m["size"]) == (dtype, size)]
            worst = _worst(chosen)
            found = [_coarsest(chosen, quantity) for quantity in _FOUND.values()]
            suspicions = [_number(m["suspicion"]) for m in chosen if _has_likely(m)]
            suspicious = f"{sum(s > 1.0 for s in suspicions)}" if suspicions else "—"
            lines.append(
                f"| {name} | {device} | {dtype} | {size} | {_error(worst):.2f} | "
                f"{worst['quantity']} ({worst['equation']}) | {_undecided(chosen):.2%} | "
                f"{' | '.join(found)} | {suspicious} | {sum(m['elements'] for m in chosen):,} | "
                f"{named} |"
            )
    sentences = [f"- {html.escape(line, quote=False).strip()}" for line in failures(results)]
    lines += ["", *sentences] if sentences else []
    return "\n".join(lines) + "\n"


def by_equation(results: Results, earlier: Sequence[Mapping[str, Mapping[str, Any]]] = ()) -> str:
    """Return a Markdown table, a row an equation, dtype and size: its tests, and what was compared.

    Args:
        results: Of this run.
        earlier: Of others, as `earlier_results` returns them.
    """
    measured: dict[tuple[str, str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for run in (results.backends, *earlier):
        for name, result in run.items():
            where = name if result.get("device") == "cpu" else f"{name} on {result.get('device')}"
            for m in result.get("measurements", ()):
                if m["worst"] is not None:
                    key = m["equation"], m["dtype"], m["size"]
                    measured.setdefault(key, []).append((where, m))
    tests = holding_tests()
    lines = [
        "## By equation",
        "",
        "How many tests name an equation in their marker (`sae-oracle equations LABEL` has them):",
        "of the oracle; of Keras objects, each on every backend; of the tools. Then what `verify`",
        "compared: where, the largest error in units of its bound, and the relative error that is",
        "certain to be found (after the stroke: suspicious) in the worst case. Where there is",
        "nothing, the equation has no quantity of its own there: tests alone hold it.",
        "",
        "| equation | tests | dtype | size | on | worst | found | numbers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in reference.equations():
        counts = Counter(_kind_of_test(test) for test in tests[label])
        head = f"| {label} | {', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))} |"
        rows = {(dtype, size): m for (of, dtype, size), m in measured.items() if of == label}
        if not rows:
            lines.append(head + " — |" * 6)
        for (dtype, size), found in rows.items():
            names, chosen = zip(*found, strict=True)
            likely = [m["likely"] for m in chosen if _has_likely(m)]
            lines.append(
                f"{head} {dtype} | {size} | {', '.join(dict.fromkeys(names))} | "
                f"{_error(_worst(chosen)):.2f} | "
                f"{_finds(max(m['resolution'] for m in chosen), likely)} | "
                f"{sum(m['elements'] for m in chosen):,} |"
            )
    return "\n".join(lines) + "\n"


def _kind_of_test(test: str) -> str:
    kinds = {"tests/reference/": "oracle", "tests/keras_impl/": "Keras"}
    return next((kind for folder, kind in kinds.items() if test.startswith(folder)), "tools")


def heat_map(results: Results) -> str:
    """Return the table as a picture: a data URI of a PNG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows, columns = list(results.cells), results.held
    values = np.full((len(rows), len(columns)), np.nan)
    failed = np.full((*values.shape, 4), 0.0)
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            cell = results.cells[row].get(name)
            if cell is None:
                continue
            if cell.state in _FAILED_COLOURS:
                failed[i, j] = matplotlib.colors.to_rgba(_FAILED_COLOURS[cell.state])
            else:
                worst = np.inf if cell.worst is None else cell.worst
                values[i, j] = np.log10(np.clip(worst, 1e-4, 10.0))
    figure = Figure(
        figsize=(3.6 + 0.5 * len(columns), 1.2 + 0.13 * len(rows)), dpi=160, layout="constrained"
    )
    axes = figure.add_subplot()
    # One scale up to the bound, and red beyond it: nothing right looks alarming.
    colours = matplotlib.colormaps["viridis_r"].with_extremes(over="red")
    image = axes.imshow(values, aspect="auto", cmap=colours, vmin=-4.0, vmax=0.0)
    axes.imshow(failed, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=6)
    names = [plain(row[1]) for row in rows]
    names = [name if len(name) <= 60 else name[:60] + "…" for name in names]
    labels = [
        f"{name} ({plain(row[2])}, {plain(row[3])})" for name, row in zip(names, rows, strict=True)
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=5, parse_math=False)
    colorbar = figure.colorbar(
        image, ax=axes, ticks=[-4, -3, -2, -1, 0], extend="max", location="top", shrink=0.9
    )
    colorbar.ax.set_xticklabels(["≤0.0001", "0.001", "0.01", "0.1", "1"], fontsize=5)
    colorbar.set_label("error in units of its bound; red: outside", fontsize=6)
    figure.legend(
        handles=[Patch(color=colour, label=state) for state, colour in _FAILED_COLOURS.items()],
        loc="outside lower center",
        ncols=2,
        fontsize=6,
        frameon=False,
    )
    # In few colours, red and the colour of what was not compared become the same.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return _data_uri(buffer.getvalue())


_FAILED_COLOURS = {"Keras fails": "#9e9e9e", "not compared": "#d500f9"}


PNG = "data:image/png;base64,"


def data_uri(figure: Any) -> str:
    """Return a figure as a PNG in a data URI."""
    return _data_uri(png(figure))


def _data_uri(picture: bytes) -> str:
    return PNG + base64.b64encode(picture).decode("ascii")


_STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --line: #ccc; --link: #0645ad;
  --bad: #b71c1c; --on-bad: #fff; --missing: #6a1b9a; --on-missing: #fff; --keras: #e0e0e0;
  --on-keras: #222; --suspicious: #ffe082; --on-suspicious: #222 }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --page: #16181c;
  --line: #4a4f57; --link: #8ab4f8; --bad: #ff8a80; --on-bad: #1a0000; --missing: #e1bee7;
  --on-missing: #1a001f; --keras: #424242; --on-keras: #f2f2f2;
  --suspicious: #5d4a00; --on-suspicious: #fff8e1 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto;
  padding: 0 1rem; color: var(--text); background: var(--page); overflow-wrap: anywhere }
a { color: var(--link) }
dl.run { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem }
dl.run dd { margin: 0 }
.wide { overflow-x: auto; position: relative }
table { border-collapse: separate; border-spacing: 0; overflow-wrap: normal }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums }
td { white-space: nowrap }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--page);
  min-width: 9rem; max-width: 45vw; overflow-wrap: anywhere; font-weight: normal }
thead tr > :first-child, thead tr > * { font-weight: 600 }
th small { display: block }
tr:target > * { outline: 2px solid var(--link); outline-offset: -2px }
.outside { background: var(--bad); color: var(--on-bad) }
.not-compared { background: var(--missing); color: var(--on-missing) }
.suspicious { background: var(--suspicious); color: var(--on-suspicious) }
.keras-fails { background: var(--keras); color: var(--on-keras) }
.reason { white-space: normal; text-align: left; min-width: 20rem }
.verdict { font-weight: 600; font-size: 1.1rem }
button.sort { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: 0; text-align: inherit; cursor: pointer; text-decoration: underline dotted }
.filter { display: flex; flex-wrap: wrap; gap: .5rem 1rem }
img { max-width: 100%; background: #fff }
img.heat { width: 36rem }
.formula { font-size: 1.1em }
.formula math { math-style: normal }
@media print { .filter { display: none } .wide { overflow: visible }
  body { max-width: none; font-size: 9pt } td { white-space: normal }
  tr > :first-child { position: static; max-width: 12rem }
  thead, tr, img, details { break-inside: avoid } details img { max-height: 11cm }
  details::details-content { content-visibility: visible }
  button.sort { display: contents } /* no head is repeated that has boxes of buttons in it */
  .outside, .not-compared, .suspicious, .keras-fails { print-color-adjust: exact } }
"""

_SCRIPT = """
const table = document.getElementById("cells"), body = table.tBodies[0];
const words = document.getElementById("words"), state = document.getElementById("state");
const shown = document.getElementById("shown"), rows = [...body.rows];
function filter() {
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const has = words.value.toLowerCase().split(" ").every(word => text.includes(word));
    row.hidden = !has || (state.value && !row.querySelector("." + state.value));
    count += !row.hidden;
  }
  shown.textContent = count + " of " + rows.length + " rows";
}
function key(row, column) {
  const cell = row.cells[column], text = cell.textContent.trim();
  const found = /^(OUTSIDE )?<?(inf|[0-9.]+(e[-+]?[0-9]+)?)/.exec(text);
  if (column < 2) return text;
  if (!found) return text === "—" ? -1 : Infinity;
  return found[2] === "inf" ? 1e300 : Number(found[2]) - (text.includes("<") ? 1e-9 : 0);
}
[...table.tHead.rows[0].cells].forEach((heading, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sort";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => {
    const order = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
    rows.sort((a, b) => {
      const x = key(a, column), y = key(b, column);
      return order * (x < y ? -1 : x > y ? 1 : 0);
    });
    body.append(...rows);
  });
});
words.addEventListener("input", filter);
state.addEventListener("change", filter);
document.querySelector(".filter").hidden = false;
filter();
"""


def _exercise_section(exercise: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not exercise:
        return []
    escape = escaped
    lines = [
        "<h2>The notes' exercise</h2>",
        "<p>10,000 patches of natural images, 64-25-64, ρ = 0.01, β = 3, λ = 1e-4, 400 iterations "
        "of L-BFGS on the exact cost, from the same weights: the oracle in float64 under SciPy, "
        "and <code>fit_lbfgs</code> in float32. Costs by the oracle. L-BFGS amplifies rounding: "
        f"final costs may differ by {EXERCISE_MARGIN}.</p>",
        "<div class='wide' tabindex='0' role='region' aria-label='The exercise'><table>"
        "<caption>Final costs of the exercise</caption><thead><tr>",
        *(
            f"<th scope='col'>{heading}</th>"
            for heading in (
                "run", "final cost", "reconstruction", "weight decay", "sparsity", "ρ̂",
                "evaluations", "seconds",
            )
        ),
        "</tr></thead><tbody>",
    ]  # fmt: skip
    for name, run in exercise.items():
        problem = exercise_problem(exercise, name)
        kind = " class='outside'" if problem else ""
        lines.append(f"<tr><th scope='row'>{escape(name)}</th>")
        if run["kind"] != "result":
            lines.append(f"<td{kind} colspan='7'>{escape(problem)}</td></tr>")
            continue
        low, high = run["rho_hat"]
        lines.append(
            f"<td{kind}>{run['total']:.5f}</td><td>{run['reconstruction']:.5f}</td>"
            f"<td>{run['weight_decay']:.5f}</td><td>{run['sparsity']:.5f}</td>"
            f"<td>{low:.4f} to {high:.4f}</td><td>{run['evaluations']}</td>"
            f"<td>{run['seconds']:.1f}</td></tr>"
        )
    lines.append("</tbody></table></div>")
    ended = [name for name, run in exercise.items() if run["kind"] == "result"]
    if ended:
        figure = exercise_features(exercise)
        figure.set_dpi(200)
        alt = (
            f"Learned features, one picture each for {', '.join(ended)}: a tile a hidden unit, "
            "its input of norm 1 in grey; right ones look like edges at many angles"
        )
        lines.append(
            "<p>The inputs of norm 1 that excite each hidden unit most (EQ-FEATURE):</p>"
            f"<img alt='{escape(alt)}' src='{data_uri(figure)}'>"
        )
    for name in ended:
        if "watch" in exercise[name]:
            alt = (
                f"The exercise on {name}, over its iterations: the three terms of J; the histogram "
                "of the mean activations; dead and saturated units, and R²"
            )
            lines.append(
                f"<details><summary>What <code>Watch</code> saw on {escape(name)}</summary>"
                f"<img alt='{escape(alt)}' src='{PNG}{escape(exercise[name]['watch'])}'></details>"
            )
    return lines


def escaped(text: object) -> str:
    r"""Return text that a page shows as it is.

    >>> escaped("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return html.escape(plain(text))


class Said(NamedTuple):
    """What a page keeps of a cell, as JSON has it.

    Args:
        state: One of `STATES`, or "suspicious".
        words: What the table says.
        worst: The largest error in units of its bound; `None` where there is none that is finite.
    """

    state: str
    words: str
    worst: float | None


@dataclass(frozen=True)
class Earlier:
    """The page of an earlier run.

    Args:
        link: Where it is, from the page that refers to it.
        date: When it ran, as it says.
        cells: What each cell said, by row and backend.
    """

    link: str
    date: str
    cells: Mapping[str, Said]


_CELLS = re.compile(r"<script type='application/json' id='run'>(.*?)</script>", re.DOTALL)


def earlier_page(text: str, link: str) -> Earlier:
    """Return what a page that was written earlier says.

    Args:
        text: The page.
        link: Where it is, from the page that refers to it.

    Raises:
        ValueError: If `sae-oracle verify --report` did not write it.
    """
    found = _CELLS.search(text)
    try:
        content = json.loads(found[1]) if found else {}
        date = content["date"]
        cells = {name: Said(*cell) for name, cell in content["cells"].items()}
        words = (date, *(word for cell in cells.values() for word in cell[:2]))
        numbers = [cell.worst for cell in cells.values() if cell.worst is not None]
        if not all(isinstance(word, str) for word in words) or not all(map(math.isfinite, numbers)):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not written by this `sae-oracle verify --report`") from None
    return Earlier(link, date, cells)


def _cells_by_name(results: Results) -> dict[str, Said]:
    return {
        ", ".join((*row, name)): Said(
            "suspicious" if cell.is_suspicious else cell.state,
            str(cell),
            cell.worst if cell.worst is not None and math.isfinite(cell.worst) else None,
        )
        for row, cells in results.cells.items()
        for name, cell in cells.items()
    }


def changes(earlier: Mapping[str, Said], now: Mapping[str, Said]) -> list[str]:
    """Return a line for each cell whose state is another than before, that is new, or is gone.

    >>> before = {"EQ-L1, jax": Said("inside", "0.50", 0.5), "b": Said("inside", "0.10", 0.1)}
    >>> changes(before, {"EQ-L1, jax": Said("outside", "OUTSIDE 2.00", 2.0)})
    ['EQ-L1, jax: 0.50 → OUTSIDE 2.00', 'b: 0.10 → gone']
    >>> changes(before, {**before, "b": Said("inside", "0.11", 0.11)})
    []
    """
    new, gone = Said("new", "new", None), Said("gone", "gone", None)
    names = [*now, *(name for name in earlier if name not in now)]
    pairs = [(name, earlier.get(name, new), now.get(name, gone)) for name in names]
    return [f"{name}: {b.words} → {a.words}" for name, b, a in pairs if b.state != a.state]


def growth(earlier: Mapping[str, Said], now: Mapping[str, Said]) -> str:
    """Return a sentence on the error that grew most within its state.

    >>> growth({"b": Said("inside", "0.10", 0.1)}, {"b": Said("inside", "0.30", 0.3)})
    'Of the others 1 has a larger error; b grew most: 0.10 → 0.30.'
    >>> growth({"b": Said("inside", "0.10", 0.1)}, {"b": Said("outside", "OUTSIDE 2.00", 2.0)})
    'Of the others none has a larger error.'
    """
    grown = {
        name: (cell.worst / before.worst if before.worst else math.inf, before.words, cell.words)
        for name, cell in now.items()
        if (before := earlier.get(name)) is not None and before.state == cell.state
        if cell.worst is not None and before.worst is not None and cell.worst > before.worst
    }
    if not grown:
        return "Of the others none has a larger error."
    name, (_, was, words) = max(grown.items(), key=lambda pair: pair[1][0])
    count = "1 has" if len(grown) == 1 else f"{len(grown)} have"
    return f"Of the others {count} a larger error; {name} grew most: {was} → {words}."


def _backend_rows(results: Results) -> list[str]:
    lines = []
    for name, result in results.backends.items():
        lines.append(f"<tr><th scope='row'>{escaped(name)}</th>")
        if result["kind"] != "result":
            absent = result["kind"] == "absent"
            text = "not installed, not verified" if absent else f"failed: {result['error']}"
            kind = "reason" if absent else "reason outside"
            lines.append(f"<td class='{kind}' colspan='7'>{escaped(text)}</td></tr>")
            continue
        cells = [columns[name] for columns in results.cells.values() if name in columns]
        for state in STATES:
            count = sum(cell.state == state for cell in cells)
            lines.append(f"<td>{count}</td>")
        worst = max((cell.worst for cell in cells if cell.worst is not None), default=None)
        lines.append(f"<td>{sum(cell.elements for cell in cells):,}</td>")
        lines.append(f"<td>{'—' if worst is None else f'{worst:.2f}'}</td>")
        lines.append(f"<td class='reason'>{escaped(versions(result))}</td></tr>")
    return lines


def _table_rows(results: Results) -> list[str]:
    lines = []
    anchors: Counter[str] = Counter()
    for row, cells in results.cells.items():
        label, quantity, dtype, size = map(escaped, row)
        anchor = re.sub(r"[^a-z0-9]+", "-", " ".join(("row", *row)).lower()).strip("-")
        anchors[anchor] += 1
        anchor += f"--{anchors[anchor]}" if anchors[anchor] > 1 else ""
        lines.append(
            f"<tr id='{anchor}'><th scope='row'><a href='#{anchor}'>{quantity}</a>"
            f"<small><a href='#{label}'>{label}</a></small></th>"
            f"<td>{dtype}, {size}</td><td>{escaped(results.resolution(row))}</td>"
        )
        for name in results.held:
            cell = cells.get(name)
            state = "inside" if cell is None else cell.state
            name_of_class = _PAGE_CLASSES[state]
            if cell is not None and cell.is_suspicious:
                name_of_class = "suspicious"
            kind = f" class='{name_of_class}'" if name_of_class else ""
            title = f" title='{escaped(cell.case)}'" if cell is not None and cell.case else ""
            lines.append(f"<td{kind}{title}>{'—' if cell is None else escaped(cell)}</td>")
        lines.append("</tr>")
    return lines


def html_page(
    results: Results, run: Mapping[str, str] | None = None, earlier: Earlier | None = None
) -> str:
    """Return one self-contained page, which loads nothing.

    Args:
        results: Of this run.
        run: What is said of it first, by name: "date", "version", "command", "machine".
        earlier: The run before: it is linked, with what changed.
    """
    known = reference.equations()
    escape = escaped
    run = run or {}
    lines = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<link rel='icon' href='data:,'><title>sae-oracle verify</title>",
        f"<style>{_STYLE}</style></head><body><main>",
        "<h1>sae-oracle verify</h1>",
    ]
    if run:
        entries = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in run.items())
        lines += ["<dl class='run'>", *entries, "</dl>"]
    lines.append(f"<p class='verdict'>{escape(summary(results))}</p>")
    by_name = _cells_by_name(results)
    if earlier is not None:
        changed = changes(earlier.cells, by_name)
        lines.append(
            f"<p>The run before: <a href='{escape(earlier.link)}'>{escape(earlier.date)}</a>. "
            f"{len(changed)} of {len(by_name.keys() | earlier.cells.keys())} cells are in another "
            f"state. {escape(growth(earlier.cells, by_name))}</p>"
        )
        if changed:
            lines.append("<details><summary>What changed</summary><ul>")
            lines += [f"<li>{escape(line)}</li>" for line in changed]
            lines.append("</ul></details>")
    headings = (*STATES, "numbers", "worst")
    lines += [
        "<h2>Backends</h2><div class='wide' tabindex='0' role='region' aria-label='Backends'>",
        "<table><caption>How many cells are in which state</caption>",
        "<thead><tr><th scope='col'>backend</th>",
        *(f"<th scope='col'>{heading}</th>" for heading in headings),
        "<th scope='col' class='reason'>versions, device, seconds</th></tr></thead><tbody>",
        *_backend_rows(results),
        "</tbody></table></div>",
        "<h2>Quantities</h2>",
        "<p>Each cell is the largest error over all cases, in units of its derived bound: at most "
        "1 is right. In brackets, with a question mark: the share of numbers that no "
        "bound can decide. Finds: the relative error, by norm, that is certain to be found, in the "
        "worst case; after the stroke, that is certain to be suspicious: outside of what roundings "
        "are likely to do, which is no verdict. —: the backend has no gradients, or Keras computes "
        "in float32 alone on it.</p>",
        "<div class='filter' hidden><label>Filter <input id='words' type='search'></label>",
        "<label>State <select id='state'><option value=''>any</option>",
        *(f"<option value='{_PAGE_CLASSES[state]}'>{state}</option>" for state in STATES[1:]),
        "<option value='suspicious'>suspicious</option>",
        "</select></label><span id='shown' role='status'></span></div>",
        "<div class='wide' tabindex='0' role='region' aria-label='Quantities'>",
        "<table id='cells'><caption>Error in units of its bound</caption><thead><tr>",
        *(
            f"<th scope='col'>{escape(name)}</th>"
            for name in ("quantity, equation", "dtype, size", "finds", *results.held)
        ),
        "</tr></thead><tbody>",
        *_table_rows(results),
        "</tbody></table></div>",
    ]
    lines += [f"<p>{escape(line)}</p>" for line in failures(results)]
    if results.cells:
        counts = ", ".join(f"{number} {state}" for state, number in results.counts.items())
        alt = f"Heat map, a row a quantity and a column a backend, the cells of the table: {counts}"
        picture = heat_map(results)
        lines.append(f"<h2>Heat map</h2><img class='heat' alt='{escape(alt)}' src='{picture}'>")
    lines += _exercise_section(results.exercise)
    lines.append("<h2>Equations</h2><dl>")
    for label in sorted({row[0] for row in results.cells}):
        equation = known[label]
        lines.append(
            f"<dt id='{label}'><b>{label}</b> <code>{equation.function}</code></dt>"
            f"<dd><span class='formula'>{typeset(equation.formula)}</span><br>"
            f"Source: {escape(equation.source)}</dd>"
        )
    content = json.dumps({"date": run.get("date", "no date"), "cells": by_name})
    content = content.replace("<", "\\u003c")  # nothing ends the script but its end
    lines.append(
        f"</dl></main><script type='application/json' id='run'>{content}</script>"
        f"<script>{_SCRIPT}</script></body></html>"
    )
    return "\n".join(lines) + "\n"
