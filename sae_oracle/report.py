"""What people look at: the verify table in the terminal, and the same as one HTML page."""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import reference
from sae_oracle.files import plain, shown
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
            table.add_row(name, f"[bold red]failed[/]: {shown(problem)}")
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
_PAGE_CLASSES = dict(zip(STATES, ("", "outside", "keras-fails", "outside"), strict=True))


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
        console.print(table)
    for name, result in results.backends.items():
        if result["kind"] == "result":
            console.print(f"{name}: {shown(versions(result))}", highlight=False, soft_wrap=True)
        elif result["kind"] == "absent":
            console.print(f"{name}: not installed, not verified", soft_wrap=True)
        else:
            console.print(f"[bold red]{name}: failed[/]: {shown(result['error'])}", soft_wrap=True)
    for line in failures(results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        "finds: the relative error, by norm, that is certain to be found / to be suspicious. "
        "—: the backend has no gradients. (x% ?): the share that no bound can decide."
    )
    if results.exercise:
        console.print(exercise_table(results.exercise))
    style = "bold green" if results.passed else "bold red"
    console.print(summary(results), style=style, highlight=False, soft_wrap=True)


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
    said = [html.escape(line, quote=False) for line in failures(results)]
    lines += ["", *said] if said else []
    return "\n".join(lines) + "\n"


def heat_map(results: Results) -> str:
    """Return the table as a picture: a data URI of a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    rows, columns = list(results.cells), results.held
    values = np.full((len(rows), len(columns)), np.nan)
    keras_fails = np.full(values.shape, np.nan)
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            cell = results.cells[row].get(name)
            if cell is None:
                continue
            if cell.state == "Keras fails":
                keras_fails[i, j] = 1.0
            else:
                worst = np.inf if cell.worst is None else cell.worst
                values[i, j] = np.log10(np.clip(worst, 1e-4, 10.0))
    figure = Figure(figsize=(4.5 + 1.1 * len(columns), 1.0 + 0.24 * len(rows)), dpi=110)
    axes = figure.add_subplot()
    # One scale up to the bound, and red beyond it: nothing right looks alarming.
    colours = matplotlib.colormaps["viridis_r"].with_extremes(over="red")
    image = axes.imshow(values, aspect="auto", cmap=colours, vmin=-4.0, vmax=0.0)
    axes.imshow(keras_fails, aspect="auto", cmap="Greys", vmin=0.0, vmax=2.0)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(
        range(len(rows)), [f"{row[1]} ({row[2]}, {row[3]})" for row in rows], fontsize=7
    )
    colorbar = figure.colorbar(image, ax=axes, ticks=[-4, -3, -2, -1, 0], extend="max")
    colorbar.ax.set_yticklabels(["≤0.0001", "0.001", "0.01", "0.1", "1"])
    colorbar.set_label("error in units of its bound; red: outside; grey: Keras fails")
    figure.tight_layout()
    return data_uri(figure)


def data_uri(figure: Any) -> str:
    """Return a figure as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse } th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd;
  text-align: right } th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left }
.outside { background: #c62828; color: #fff } .keras-fails { background: #e0e0e0; color: #222 }
.suspicious { background: #ffe082; color: #222 }
.verdict { font-weight: 600; font-size: 1.1rem }
img { max-width: 100% } code { white-space: nowrap }
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
        "<table><thead><tr><th></th><th></th><th></th><th>final cost</th><th>reconstruction</th>"
        "<th>weight decay</th><th>sparsity</th><th>ρ̂</th><th>evaluations</th><th>seconds</th></tr>"
        "</thead><tbody>",
    ]
    for name, run in exercise.items():
        problem = exercise_problem(exercise, name)
        kind = " class='outside'" if problem else ""
        lines.append(f"<tr><td>{escape(name)}</td><td></td><td></td>")
        if run["kind"] != "result":
            lines.append(f"<td{kind}>{escape(problem)}</td></tr>")
            continue
        low, high = run["rho_hat"]
        lines.append(
            f"<td{kind}>{run['total']:.5f}</td><td>{run['reconstruction']:.5f}</td>"
            f"<td>{run['weight_decay']:.5f}</td><td>{run['sparsity']:.5f}</td>"
            f"<td>{low:.4f} to {high:.4f}</td><td>{run['evaluations']}</td>"
            f"<td>{run['seconds']:.1f}</td></tr>"
        )
    lines.append("</tbody></table>")
    if any(run["kind"] == "result" for run in exercise.values()):
        lines.append(
            "<p>The inputs of norm 1 that excite each hidden unit most (EQ-FEATURE):</p>"
            f"<img alt='Learned features' src='{data_uri(exercise_features(exercise))}'>"
        )
    return lines


def escaped(text: object) -> str:
    r"""Return text that a page shows as it is.

    >>> escaped("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return html.escape(plain(text))


def html_page(results: Results) -> str:
    """Return one self-contained page: verdict, table, heat map, versions, equations."""
    known = reference.equations()
    escape = escaped
    lines = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<title>sae-oracle verify</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>sae-oracle verify</h1>",
        f"<p class='verdict'>{escape(summary(results))}</p>",
        "<p>Each cell is the largest error over all cases, in units of its derived bound: at most "
        "1 is right. In brackets, with a question mark: the share of numbers that no "
        "bound can decide. Finds: the relative error, by norm, that is certain to be found, in the "
        "worst case; after the stroke, that is certain to be suspicious: outside of what roundings "
        "are likely to do, which is no verdict.</p>",
        "<table><thead><tr><th>equation</th><th>quantity</th><th>dtype, size</th><th>finds</th>",
        *(f"<th>{escape(name)}</th>" for name in results.held),
        "</tr></thead><tbody>",
    ]
    for row, cells in results.cells.items():
        label, quantity, dtype, size = map(escape, row)
        lines.append(
            f"<tr><td><a href='#{label}'>{label}</a></td><td>{quantity}</td>"
            f"<td>{dtype}, {size}</td><td>{escape(results.resolution(row))}</td>"
        )
        for name in results.held:
            cell = cells.get(name)
            state = "inside" if cell is None else cell.state
            name_of_class = _PAGE_CLASSES[state]
            if cell is not None and cell.is_suspicious:
                name_of_class = "suspicious"
            kind = f" class='{name_of_class}'" if name_of_class else ""
            title = f" title='{escape(cell.case)}'" if cell is not None and cell.case else ""
            lines.append(f"<td{kind}{title}>{'—' if cell is None else escape(cell)}</td>")
        lines.append("</tr>")
    lines.append(
        "</tbody></table><p>—: the backend has no gradients, or Keras computes in float32 alone on "
        "it.</p>"
    )
    lines += [f"<p>{escape(line)}</p>" for line in failures(results)]
    lines.append(f"<h2>Heat map</h2><img alt='The table as a heat map' src='{heat_map(results)}'>")
    lines += _exercise_section(results.exercise)
    lines.append("<h2>Versions</h2><ul>")
    for name, result in results.backends.items():
        if result["kind"] == "result":
            text = versions(result)
        elif result["kind"] == "absent":
            text = "not installed, not verified"
        else:
            text = f"failed: {result['error']}"
        lines.append(f"<li>{escape(name)}: {escape(text)}</li>")
    lines.append("</ul><h2>Equations</h2><dl>")
    for label in sorted({row[0] for row in results.cells}):
        equation = known[label]
        lines.append(
            f"<dt id='{label}'><b>{label}</b> <code>{equation.function}</code></dt>"
            f"<dd>{escape(equation.formula)}<br>Source: {escape(equation.source)}</dd>"
        )
    lines.append("</dl></body></html>")
    return "\n".join(lines)
