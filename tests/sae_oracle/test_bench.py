"""`sae-oracle bench`: its statistics on known timings, what it prints and writes, and refusals."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import sae_oracle
from sae_oracle.bench import plots, statistics, tables
from sae_oracle.bench.sizes import NAMES, sizes_for
from sae_oracle.cli import main
from tests.fork_server import Forks
from tests.fresh_process import ROOT, crowd, environment

# The pictures are drawn by Matplotlib.
ENVIRONMENT = environment(hidden=("tensorflow", "sklearn"))


def pairs(ratio: float, noise: float, seed: int, count: int = 40) -> Any:
    """Timings of a variant and its baseline with a known ratio."""
    generator = np.random.default_rng(seed)
    baseline = 1e-3 * np.exp(noise * generator.normal(size=count))
    variant = ratio * 1e-3 * np.exp(noise * generator.normal(size=count))
    return np.column_stack((variant, baseline))


def test_a_known_ratio_is_inside_the_interval_about_as_often_as_promised() -> None:
    """95 % intervals of the median: of 200, at least 180 hold it (binomial, 4 deviations)."""
    held = 0
    for seed in range(200):
        ratio = statistics.timing(pairs(1.05, 0.02, seed)).ratio
        held += ratio.low <= 1.05 <= ratio.high
    assert 178 <= held < 200


def test_five_per_cent_are_seen_and_nothing_is_not() -> None:
    control = statistics.timing(pairs(1.0, 0.02, 0)).ratio
    assert not statistics.timing(pairs(1.05, 0.02, 1)).ratio.overlaps(control)
    assert statistics.timing(pairs(1.0, 0.02, 2)).ratio.overlaps(control)


def test_added_time_is_that_of_the_pairs() -> None:
    found = statistics.timing(np.array([[3.0, 1.0], [5.0, 2.0], [7.0, 6.0]]))
    assert found.added.median == 2.0
    assert found.ratio.median == 2.5
    assert found.seconds == 5.0


def test_a_machine_that_slows_down_steadily_changes_no_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every timing takes a little longer than the one before: the neighbours' mean undoes it."""
    clock = iter(np.arange(1.0, 3.0, 1e-3))
    monkeypatch.setattr(statistics, "shortest", lambda step, steps: next(clock) * step())
    groups = {"a": {"base": lambda: 1.0, "same": lambda: 1.0, "double": lambda: 2.0}}
    found = statistics.interleave(groups, rounds=20, steps=1, time_limit=60.0)["a"]
    assert abs(found["same"].ratio.median - 1.0) < 1e-12
    assert abs(found["double"].ratio.median - 2.0) < 1e-12
    assert found["base"].ratio.median > 1.0  # the drift itself


def test_the_minimum_of_several_steps_ignores_a_disturbed_one() -> None:
    waits = iter([0.02, 0.0, 0.02])
    assert statistics.shortest(lambda: time.sleep(next(waits)), 3) < 0.02


def test_rounds_end_at_the_time_limit() -> None:
    rounds: list[int] = []
    statistics.interleave(
        {"a": {"base": lambda: None, "other": lambda: None}},
        rounds=1000,
        steps=1,
        time_limit=0.0,
        on_round=lambda: rounds.append(1),
    )
    assert len(rounds) == 5


def row(**changed: Any) -> dict[str, Any]:
    interval = {"median": 1.02, "low": 1.01, "high": 1.03}
    return {
        "part": "step",
        "size": "mnist",
        "network": "784-196-784, 256 rows",
        "features": 784,
        "units": 196,
        "rows": 256,
        "way": "Keras, activations",
        "variant": "KLSparsityRegularizer",
        "seconds": 4e-3,
        "ratio": interval,
        "added": {"median": 8e-5, "low": 4e-5, "high": 12e-5},
        "pairs": 40,
        "within_noise": False,
        "first_step_seconds": 0.5,
        "peak_bytes": 2_000_000,
        **changed,
    }


def results(*rows: dict[str, Any], date: str = "2026-11-21T00:00:00+00:00") -> dict[str, Any]:
    return {
        "kind": "sae-oracle bench",
        "date": date,
        "device": "cpu",
        "machine": {"processor": "a", "cores": 2, "system": "Linux", "load": 0.0},
        "backends": {
            "torch": {
                "kind": "result",
                "device": "cpu",
                "versions": {"keras": "3"},
                "copy_bytes_per_second": 1e10,
                "rows": [*rows],
            },
            "jax": {"kind": "absent"},
            "tensorflow": {"kind": "error", "error": "boom"},
        },
    }


def printed(function: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    function(*arguments, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_noise_and_what_was_not_measured() -> None:
    text = printed(
        tables.print_results,
        results(row(), row(variant="Keras L2 activity regularizer", within_noise=True)),
    )
    assert "1.020 [1.010, 1.030]" in text
    assert "80 [40, 120]" in text
    assert text.count("within the control's noise") == 1
    assert "jax: not installed, not measured" in text
    assert "boom" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_heading_is_cut_off(width: int) -> None:
    """A letter that is not in its line is in the next: the columns, read downwards, have all."""
    console = Console(file=io.StringIO(), width=width)
    for print_table, tables_of in (
        (tables.print_results, (results(row()),)),
        (tables.print_comparison, (results(row()), results(row()))),
    ):
        print_table(*tables_of, console)  # type: ignore[operator]
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "…" not in console.file.getvalue()
    assert max(len(line) for line in lines if line.startswith(("┏", "│", "┃"))) <= width
    for start in (i for i, line in enumerate(lines) if line.startswith("┏")):
        end = next(i for i in range(start, len(lines)) if lines[i].startswith("┡"))
        columns = zip(*(line.strip("┃").split("┃") for line in lines[start + 1 : end]), strict=True)
        headings = {"".join(part.strip() for part in column) for column in columns}
        wanted = {"way", "variant", "was"} if "was" in headings else {"variant", "step,ms"}
        assert wanted <= {heading.replace(" ", "") for heading in headings}


def test_an_answer_is_one_line() -> None:
    """The example of the specification; without the control or Keras's L2, what there is."""
    ours = row(variant="KLSparsity", ratio={"median": 1.04, "low": 1.03, "high": 1.05})
    control = row(
        variant="no penalty, again (control)", ratio={"median": 1.0, "low": 0.98, "high": 1.01}
    )
    l2 = row(
        variant="Keras L2 activity regularizer", ratio={"median": 1.07, "low": 1.0, "high": 1.1}
    )
    start = "KLSparsity on torch: +4 % [3, 5]"
    assert tables.answers(results(control, l2, ours)) == [f"{start}, Keras's L2 +7 %; control ±2 %"]
    assert tables.answers(results(ours)) == [start]
    assert tables.answers(results(control, l2, {**ours, "part": "epoch"})) == []
    apart = {**control, "network": "64-25-64, 1,000 rows"}
    assert tables.answers(results(apart, ours)) == [start]
    again = {**ours, "network": "64-25-64, 1,000 rows"}
    lines = tables.answers(results(ours, again))
    assert lines == [
        f"KLSparsity on torch (Keras, activations; {network}): +4 % [3, 5]"
        for network in (ours["network"], again["network"])
    ]


def test_a_busy_machine_is_said() -> None:
    busy = results(row())
    assert "busy" not in printed(tables.print_results, busy)
    busy["machine"]["load"] = 4.0
    assert "The machine was busy" in printed(tables.print_results, busy)


def test_a_comparison_says_slower_only_where_intervals_are_apart() -> None:
    slower = row(ratio={"median": 1.2, "low": 1.15, "high": 1.25})
    assert (
        "slower"
        in printed(tables.print_comparison, results(row()), results(slower)).split("Compared")[0]
    )
    same = printed(tables.print_comparison, results(row()), results(row()))
    assert "slower" not in same.split("Compared")[0]
    other = printed(tables.print_comparison, results(row(way="x")), results(row()))
    assert "Compared: 0 rows; in one of the runs only: 2" in other


def test_the_smallest_effect_that_a_run_sees_stands_beside_each_ratio() -> None:
    """Moved that far from the control, or from the run before, an interval just touches it."""
    control = {"median": 1.0, "low": 0.99, "high": 1.004}
    ours = row(ratio={"median": 1.02, "low": 1.018, "high": 1.021})
    equal = row(variant="no penalty, again (control)", ratio=control)
    assert [of_row[4] for of_row in tables.all_cells([equal, ours])] == ["0.014", "0.011"]
    assert tables.all_cells([ours, row(variant="no penalty")])[1][4] == ""
    assert tables.all_cells([{**equal, "way": "another"}, ours])[1][4] == ""
    text = printed(tables.print_comparison, results(row(ratio=control)), results(ours))
    assert "0.011" in text
    effect = tables.smallest_effect(ours["ratio"], control)

    def are_apart(difference: float) -> bool:
        """Whether the intervals are, with the medians that far from each other."""
        shift = control["median"] + difference - ours["ratio"]["median"]
        low, high = (ours["ratio"][end] + shift for end in ("low", "high"))
        return bool(low > control["high"] or high < control["low"])

    assert all(are_apart(sign * 1.001 * effect) for sign in (-1.0, 1.0))
    assert not all(are_apart(sign * 0.999 * effect) for sign in (-1.0, 1.0))


def test_pictures_are_the_same_from_the_same_numbers(tmp_path: Path) -> None:
    rows = [row(variant="no penalty, again (control)"), row()]
    plots.draw_ratios(results(*rows), tmp_path / "a.svg")
    plots.draw_ratios(results(*rows), tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "KLSparsityRegularizer" in text or "<use" in text
    assert text == (tmp_path / "b.svg").read_text()
    sweep = [
        row(part="sweep", size=axis, rows=n, units=n)
        for axis in ("batch", "width")
        for n in (64, 256)
    ]
    plots.draw_sweep(results(*sweep), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_every_size_has_networks_on_both_devices() -> None:
    for device in ("cpu", "gpu"):
        for name in NAMES:
            assert sizes_for(name, device)
    assert str(*sizes_for("wide", "gpu")) == "4,096-32,768-4,096, 4,096 rows"


def test_the_command_imports_no_keras() -> None:
    code = "import sys, sae_oracle.cli; assert not {'keras', 'torch', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_bad_calls_say_so_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--json", str(tmp_path / "missing" / "a.json")]) == 2
    assert "No such folder" in capsys.readouterr().out
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert main(["bench", "--compare", str(other)]) == 2
    assert "Not a result of sae-oracle bench" in capsys.readouterr().out
    for wrong in (["--time-limit", "0"], ["--size", "huge"]):
        with pytest.raises(SystemExit) as raised:
            main(["bench", *wrong])
        assert raised.value.code == 2


# The worker, without the compiler, in which `torch.compile` spends a minute, and with fewer steps.
QUICKLY = """
import os, runpy
from sae_oracle.bench import statistics
os.environ["PATH"] = ""
shortest = statistics.shortest
statistics.shortest = lambda step, steps: shortest(step, min(steps, 3))
runpy.run_module("sae_oracle.workers", run_name="__main__", alter_sys=True)
"""


def test_the_command_on_one_backend(
    tmp_path: Path,
    forked: Callable[[str], Forks],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The real thing, few rounds: every variant has a finite ratio, and the files are written."""
    file, picture = tmp_path / "found.json", tmp_path / "found.svg"
    server = forked("torch")
    start = server.Popen

    def planted(command: list[str], **options: Any) -> Any:
        return start([*command[:2], "-c", QUICKLY, *command[4:]], **options)

    monkeypatch.setattr(server, "Popen", planted)
    monkeypatch.chdir(crowd(tmp_path))
    options = ["--backend", "torch", "--size", "small", "--time-limit", "0.1"]
    options += ["--json", str(file), "--plot", str(picture)]
    status = main(["bench", *options])
    printed = capsys.readouterr().out
    assert status == 0, printed
    found = json.loads(file.read_text())
    assert picture.exists()
    assert found["schema_version"] == 1
    assert found["version"] == sae_oracle.__version__
    assert "KLSparsity on torch: " in printed.splitlines()[-4]
    rows = found["backends"]["torch"]["rows"]
    assert all(0.2 < r["ratio"]["median"] < 5.0 and r["pairs"] >= 5 for r in rows)
    variants = {(r["part"], r["way"], r["variant"]) for r in rows}
    assert ("step", "Keras, activations", "KLSparsity, moving average") in variants
    assert ("step", "Keras, logits", "KLSparsityRegularizer, logits") in variants
    assert ("step", "torch, eager", "KL") in variants
    assert ("epoch", "Keras, fit", "KLSparsityRegularizer") in variants
    assert found["backends"]["torch"]["versions"]["keras"]


OF_JAX = """
import json
from sae_oracle.bench import native_steps
from sae_oracle.bench.sizes import SMALL

ways = native_steps.steps_of("jax", SMALL)
for steps in ways.values():
    for build in steps.values():
        build()()
print(json.dumps({way: [*steps] for way, steps in ways.items()}))
"""


def test_the_steps_that_jax_is_timed_with_run(servers: Callable[[str], Forks]) -> None:
    ways = json.loads(servers("jax").run(OF_JAX).splitlines()[-1])
    assert "KL" in ways["jax.jit"]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_a_gpu_that_is_not_there_is_said_and_counted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_checks.py", "--quick", "--backends", "jax",
         "--only", "alone,tests", "--results", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "0 passed, 0 failed, 2 skipped (2 for: no GPU)" in done.stdout
    (report,) = tmp_path.glob("*-checks-gpu.json")
    assert json.loads(report.read_text())["counts"] == {"skipped": 2}
