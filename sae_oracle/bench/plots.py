"""The ratios of a benchmark run, and the growth of the cost, drawn with Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from sae_oracle.bench import tables
from sae_oracle.bench.tables import NOT_SHOWN, Results, Row
from sae_oracle.files import write_result

# The same picture from the same numbers, byte for byte.
STYLE = {
    "svg.hashsalt": "sae-oracle",
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
}


def draw_ratios(results: Results, path: Path, part: str = "step") -> None:
    """Draw every ratio with its interval, a panel a backend and network; the control shaded.

    Args:
        results: What `sae-oracle bench` measured.
        path: An .svg or .png file.
        part: "step", "epoch" or "sweep"; if the run has none, what it has is drawn.
    """
    panels = [
        (backend, network, rows)
        for backend, found in tables.measured(results)
        for (of, network), rows in tables.parts(found).items()
        if of == part
    ]
    if not panels and part == "step":
        return draw_sweep(results, path)
    with plt.rc_context(STYLE):
        heights = [sum(row["variant"] != NOT_SHOWN for row in rows) + 2 for _, _, rows in panels]
        figure, all_axes = plt.subplots(
            max(len(panels), 1),
            1,
            figsize=(7.5, 0.22 * sum(heights) + 0.6),
            height_ratios=heights or None,
            squeeze=False,
            layout="constrained",
        )
        for axes, (backend, network, rows) in zip(all_axes[:, 0], panels, strict=False):
            _draw_panel(axes, f"{backend}: {network}", rows)
        _save(figure, path)
    return None


def _draw_panel(axes: Any, title: str, rows: list[Row]) -> None:
    drawn = [row for row in rows if row["variant"] != NOT_SHOWN]
    for position, row in enumerate(drawn):
        ratio = row["ratio"]
        control = "control" in row["variant"]
        colour = "0.6" if control else "C0" if row["way"].startswith("Keras") else "C1"
        axes.plot((ratio["low"], ratio["high"]), (position, position), color=colour, linewidth=2)
        axes.plot(ratio["median"], position, "o", color=colour, markersize=4)
        if control:
            group = [i for i, other in enumerate(drawn) if other["way"] == row["way"]]
            axes.fill_betweenx(
                (min(group) - 0.5, max(group) + 0.5), ratio["low"], ratio["high"], color="0.92"
            )
    axes.axvline(1.0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(drawn)), [f"{row['way']}: {row['variant']}" for row in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_title(title, loc="left")
    axes.set_xlabel("time over that of the same without a penalty (grey: the control's interval)")


def draw_sweep(results: Results, path: Path) -> None:
    """Draw the added time over the batch and over the width, a column a backend."""
    found = list(tables.measured(results))
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            2,
            max(len(found), 1),
            figsize=(7.5, 4.6),
            squeeze=False,
            sharey="row",
            layout="constrained",
        )
        for column, (backend, result) in enumerate(found):
            rows = [row for row in result["rows"] if row["part"] == "sweep"]
            for line, (axis, key, label) in enumerate(
                (("batch", "rows", "rows of a batch"), ("width", "units", "hidden units"))
            ):
                axes = all_axes[line, column]
                of_axis = [row for row in rows if row["size"] == axis]
                for variant, points in _by_variant(of_axis).items():
                    x = [row[key] for row in points]
                    y = [1e6 * row["added"]["median"] for row in points]
                    low = [1e6 * row["added"]["low"] for row in points]
                    high = [1e6 * row["added"]["high"] for row in points]
                    colour = "0.6" if "control" in variant else None
                    (drawn,) = axes.plot(x, y, "o-", markersize=3, label=variant, color=colour)
                    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2)
                axes.set_xscale("log", base=2)
                axes.set_yscale("symlog", linthresh=30.0)
                axes.set_xlabel(label)
                axes.set_title(backend, loc="left")
                if column == 0:
                    axes.set_ylabel("added to a step, µs")
        handles, labels = all_axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        _save(figure, path)


def _by_variant(rows: list[Row]) -> Mapping[str, list[Row]]:
    split: dict[str, list[Row]] = {}
    for row in rows:
        if row["variant"] != NOT_SHOWN:
            name = row["variant"]
            if "control" in name:
                name += f", {row['way'].removeprefix('Keras, ')}"
            split.setdefault(name, []).append(row)
    return split


def _save(figure: Any, path: Path) -> None:
    kind = path.suffix.lower().removeprefix(".")
    picture = io.BytesIO()
    figure.savefig(
        picture, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
    )
    plt.close(figure)
    write_result(path, picture.getvalue())
