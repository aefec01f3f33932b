"""Draws the README's picture: errors in units of their bounds, and what hidden units learned.

    sae-oracle verify --report report --json verify.json
    python -m benchmarks.face verify.json

writes docs/pictures/face.png. A dot is a quantity in a dtype and size, its worst error over all
cases; the features are those of the notes' exercise (EQ-FEATURE).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sae_oracle.pictures import tiles, write_png
from sae_oracle.report import collect

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "face.png"
SMALLEST = 1e-6
"""What is less, exact zeros among it, is drawn here."""


def face(content: dict[str, Any]) -> Figure:
    """Return the figure.

    Args:
        content: What `sae-oracle verify --report FOLDER --json FILE` wrote.
    """
    results = collect(content["backends"])
    exercise = {n: run for n, run in content["exercise"].items() if run["kind"] == "result"}
    trained = list(exercise)[1]  # after the oracle
    # Six inches wide: at 390 pixels, a telephone, a letter of 13 points is 12 pixels high.
    figure = Figure(figsize=(6.0, 3.6), dpi=300, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    left.axvspan(1.0, 1e3, color="#c62828", alpha=0.12, linewidth=0)
    left.axvline(1.0, color="#c62828", linewidth=1.2)
    for row, name in enumerate(results.held):
        cells = [columns[name] for columns in results.cells.values() if name in columns]
        errors = sorted(cell.worst for cell in cells if cell.worst is not None)
        # Three heights by turns: equal errors are seen apart.
        heights = [row + 0.14 * (i % 3 - 1) for i in range(len(errors))]
        drawn = [max(error, SMALLEST) for error in errors]
        left.plot(drawn, heights, "o", markersize=3.5, alpha=0.55, color="#1565c0", mew=0)
    left.set_xscale("log")
    left.set_xlim(SMALLEST / 2, 30.0)
    ticks = {SMALLEST: "≤10⁻⁶", 1e-3: "0.001", 1.0: "1"}
    left.set_xticks(list(ticks), list(ticks.values()), fontsize=13)
    left.set_yticks(range(len(results.held)), results.held, fontsize=13)
    left.set_ylim(len(results.held) - 0.4, -0.6)
    left.set_xlabel("error / its bound", fontsize=13)
    left.text(1.25, len(results.held) - 0.5, "wrong", color="#c62828", fontsize=12)
    left.spines[["top", "right"]].set_visible(False)
    right.imshow(tiles(exercise[trained]["kernel"]), cmap="gray", interpolation="nearest")
    right.axis("off")
    below = {"transform": right.transAxes, "ha": "center", "va": "top"}
    right.text(0.5, -0.03, f"learned on {trained}", fontsize=13, **below)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="of `sae-oracle verify --report FOLDER --json`")
    content = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    write_png(face(content), PICTURE)


if __name__ == "__main__":
    main()
