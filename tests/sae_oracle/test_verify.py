"""`sae-oracle verify`: what it prints, writes and returns, and that it can fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import reference
from sae_oracle import cli, processes, report
from tests.fresh_process import ROOT, crowd, environment


def result(worst: float | None = 0.25, **changed: Any) -> dict[str, Any]:
    measurement = {
        "equation": "EQ-KL",
        "quantity": "divergence",
        "size": "256 × 64",
        "case": "a case",
        "dtype": "float32",
        "worst": worst,
        "resolution": 1e-5,
        "undecidable": 0.0,
        "elements": 4,
        "failure": "",
        **changed,
    }
    return {
        "kind": "result",
        "device": "cpu",
        "versions": {"keras": "3"},
        "seconds": 1.0,
        "measurements": [measurement],
    }


def printed(results: report.Results) -> str:
    console = Console(file=io.StringIO(), width=120)
    report.print_results(results, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_all_inside_passes() -> None:
    results = report.collect({"torch": result(), "jax": {"kind": "absent"}})
    assert results.passed
    text = printed(results)
    assert "0.25" in text
    assert "jax: not installed, not verified" in text
    assert "All of 1 cells (4 numbers) on torch are inside" in text


@pytest.mark.parametrize("worst", [1.01, float("inf"), float("nan")])
def test_one_outside_fails(worst: float) -> None:
    results = report.collect({"torch": result(), "jax": result(worst)})
    assert not results.passed
    assert "OUTSIDE" in printed(results)
    assert "class='outside'" in report.html_page(results)


def test_a_backend_that_fails_or_none_at_all_is_no_pass() -> None:
    failed = report.collect({"torch": result(), "jax": {"kind": "error", "error": "boom"}})
    assert not failed.passed
    assert "boom" in printed(failed)
    assert not report.collect({"jax": {"kind": "absent"}}).passed


def test_undecided_shares_and_keras_failures_are_shown() -> None:
    text = printed(report.collect({"torch": result(undecidable=0.5)}))
    assert "0.25 (50.0% ?)" in text
    text = printed(report.collect({"torch": result(undecidable=0.0002)}))
    assert "0.25 (<0.1% ?)" in text
    failing = result(None, quantity="Keras L2", failure="ValueError: no")
    text = printed(report.collect({"numpy": failing}))
    assert "Keras fails" in text
    assert "ValueError: no" in text


KERAS_FAILS = {"worst": None, "elements": 0, "quantity": "Keras L2", "failure": "ValueError: no"}


def several(*changes: dict[str, Any]) -> dict[str, Any]:
    """The result of a backend with a measurement, of a row of its own, for each."""
    measurements = [
        result(**{"quantity": f"quantity {number}", **changed})["measurements"][0]
        for number, changed in enumerate(changes)
    ]
    return {**result(), "measurements": measurements}


def test_what_keras_cannot_do_is_counted_apart_and_has_a_colour() -> None:
    results = report.collect({"torch": several({}, KERAS_FAILS, {}), "jax": several({})})
    assert results.passed
    verdict = (
        "3 of 4 cells (12 numbers) on torch, jax are inside their derived bounds; "
        "1 could not be compared: Keras itself fails there."
    )
    assert report.summary(results) == verdict
    assert verdict in " ".join(printed(results).split())
    page = report.html_page(results)
    assert verdict in page
    assert "<td class='keras-fails'>Keras fails</td>" in page
    assert ".keras-fails" in page
    assert results.counts == {"inside": 3, "outside": 0, "Keras fails": 1, "not compared": 0}
    worse = report.collect({"torch": several({"worst": 1.5}, KERAS_FAILS, {})})
    assert not worse.passed
    assert report.summary(worse).startswith("OUTSIDE: 1 of 3 cells (8 numbers) on torch are")
    assert "1 could not be compared" in report.summary(worse)


@pytest.mark.parametrize(
    "ours",
    [
        several({}, {"worst": None, "elements": 0, "failure": "ValueError: no"}),
        several({}, {"worst": None, "elements": 0}),
        several({**KERAS_FAILS, "failure": ""}, {}),
        several(KERAS_FAILS),
        several(),
    ],
    ids=["an exception", "no reason", "no reason of Keras's", "nothing but failures", "nothing"],
)
def test_what_was_not_compared_and_is_not_kerass_own_fails(ours: dict[str, Any]) -> None:
    results = report.collect({"torch": ours, "jax": result()})
    assert not results.passed
    assert report.summary(results).startswith("FAILED: ")
    assert "on torch could not be compared." in report.summary(results)


@settings(max_examples=50)
@given(st.data())
def test_no_order_of_cases_backends_and_rows_changes_the_verdict(data: st.DataObject) -> None:
    """Whatever comes last is not the worst because it comes last; what is no number is."""
    errors = st.sampled_from([0.0, 0.25, 1.0, 1.25, 5.0, float("inf"), float("nan"), None])
    names = st.sampled_from(["KLSparsityRegularizer", "Keras L2"])
    cases = data.draw(
        st.lists(st.tuples(names, errors, st.integers(0, 3), st.booleans()), min_size=1, max_size=8)
    )
    backends = {}
    for name in ("torch", "jax"):
        measurements = [
            result(
                error,
                quantity=quantity,
                case=f"case {number}",
                elements=0 if error is None else 3,
                undecidable=share / 3.0,
                failure="ValueError: no" if error is None and fails else "",
            )["measurements"][0]
            for number, (quantity, error, share, fails) in enumerate(cases)
        ]
        backends[name] = {**result(), "measurements": data.draw(st.permutations(measurements))}
    first = report.collect(backends)
    torch, jax = ({row: cells[name] for row, cells in first.cells.items()} for name in backends)
    assert torch == jax
    shuffled = dict(data.draw(st.permutations(list(backends.items()))))
    second = report.collect(shuffled)
    assert second.cells == first.cells
    assert second.passed == first.passed
    outside = any(error is not None and not error <= 1.0 for _, error, _, _ in cases)
    missing = any(
        error is None and not (fails and name == "Keras L2") for name, error, _, fails in cases
    ) or all(error is None for _, error, _, _ in cases)
    assert first.passed == (not outside and not missing)
    assert bool(first.counts["outside"]) == outside
    rows = [line for line in report.status_matrix(first).splitlines() if line.startswith("| ")][1:]
    worst = [row.split("|")[5].strip() for row in rows]
    if all(error is None for _, error, _, _ in cases):
        assert worst == ["nothing compared"] * 2
    else:
        assert worst[0] == worst[1]
        assert (not float(worst[0]) <= 1.0) == outside


def test_the_page_is_self_contained_and_cites_the_equation() -> None:
    page = report.html_page(report.collect({"torch": result()}))
    assert "<img alt=" in page
    assert "src='data:image/png;base64," in page
    assert "http" not in page
    assert "CS294A lecture notes" in page
    assert reference.equations()["EQ-KL"].function in page


def test_the_status_matrix_has_the_worst_of_each_dtype_and_size() -> None:
    found = several(
        {"worst": 0.25},
        {"worst": 0.75, "undecidable": 1.0, "elements": 12, "quantity": "divergence"},
        {"worst": 0.5, "dtype": "float64"},
        {"worst": 0.125, "size": "9 × 9", "quantity": "total cost", "resolution": 2e-3},
        {"worst": 0.0, "size": "9 × 9", "quantity": "gradient by kernel", "resolution": 1e-3},
        {"worst": 0.0, "size": "9 × 9", "quantity": "gradient by kernel", "resolution": 3e-3},
    )
    text = report.status_matrix(report.collect({"torch": found, "jax": {"kind": "absent"}}))
    where = "divergence (EQ-KL) | 75.00% | — | — | 16 | keras 3 |"
    assert f"| torch | cpu | float32 | 256 × 64 | 0.75 | {where}" in text
    assert "| torch | cpu | float64 | 256 × 64 | 0.50 |" in text
    where = "total cost (EQ-KL) | 0.00% | 2.0e-03 | 3.0e-03 | 12 | keras 3 |"
    assert f"| torch | cpu | float32 | 9 × 9 | 0.12 | {where}" in text
    assert "| jax | | | | absent |" in text


def test_the_status_has_rows_of_earlier_runs() -> None:
    earlier = {"verdict": "", "backends": {"jax": {**result(0.5), "device": "H200"}}}
    checks = {"kind": "sae-oracle checks", "found": {"verify wide": {"jax": earlier}, "bench": {}}}
    for content in (earlier, checks):
        text = report.status_matrix(
            report.collect({"torch": result(0.25)}), report.earlier_results(content)
        )
        assert "| torch | cpu | float32 | 256 × 64 | 0.25 |" in text
        assert "| jax | H200 | float32 | 256 × 64 | 0.50 |" in text
    with pytest.raises(ValueError, match="not written by"):
        report.earlier_results({"kind": "sae-oracle bench", "backends": {}})


def test_a_row_shows_the_smallest_error_that_every_case_and_backend_would_find() -> None:
    coarse = result(0.5, resolution=4e-3)
    coarse["measurements"] += result(0.25, resolution=2e-3)["measurements"]
    results = report.collect({"torch": result(0.25), "jax": coarse})
    (row,) = results.cells
    assert results.resolution(row) == "4.0e-03"
    assert "4.0e-03" in printed(results)
    assert "<td>4.0e-03</td>" in report.html_page(results)
    nothing = report.collect({"torch": result(None, quantity="Keras L2", failure="no")})
    assert nothing.resolution(*nothing.cells) == "—"


def test_sizes_are_rows_of_their_own() -> None:
    """What is inside at one size does not hide what is outside at another."""
    results = report.collect({"torch": several({"quantity": "a"}, {"quantity": "a", "size": "9"})})
    assert [row[3] for row in results.cells] == ["256 × 64", "9"]
    assert results.counts["inside"] == 2


def exercise_run(total: float = 0.345, **changed: Any) -> dict[str, Any]:
    return {
        "kind": "result",
        "total": total,
        "reconstruction": 0.3,
        "weight_decay": 0.04,
        "sparsity": 0.005,
        "rho_hat": [0.0101, 0.0112],
        "evaluations": 415,
        "seconds": 6.0,
        "kernel": [[1.0, -1.0], [0.5, 1.0], [0.0, 2.0], [1.0, 1.0]],
        **changed,
    }


def test_the_exercise_is_shown_side_by_side() -> None:
    runs = {"oracle": exercise_run(), "torch": exercise_run(0.346)}
    results = report.collect({"torch": result()}, runs)
    assert results.passed
    text = printed(results)
    assert "0.34600" in text
    assert "0.0101 to 0.0112" in text
    page = report.html_page(results)
    assert page.count("data:image/png;base64,") == 2
    assert "<td>0.34600</td>" in page
    titles = [axis.get_title() for axis in report.exercise_features(runs).axes]
    assert titles == ["oracle, J = 0.3450", "torch, J = 0.3460"]


@pytest.mark.parametrize(
    "wrong",
    [
        exercise_run(0.345 + 1.01 * report.EXERCISE_MARGIN),
        exercise_run(0.345 - 1.01 * report.EXERCISE_MARGIN),
        exercise_run(float("nan")),
        {"kind": "error", "error": "boom"},
    ],
)
def test_an_exercise_that_ends_elsewhere_fails(wrong: dict[str, Any]) -> None:
    results = report.collect({"torch": result()}, {"oracle": exercise_run(), "torch": wrong})
    assert not results.passed
    assert "FAILED: the notes' exercise, on torch." in printed(results)
    assert "class='outside'" in report.html_page(results)
    failed = {"oracle": {"kind": "error", "error": "boom"}, "torch": exercise_run()}
    assert not report.collect({"torch": result()}, failed).passed


# The page is drawn by Matplotlib, the data are those of scikit-learn.
ENVIRONMENT = environment(hidden=("tensorflow",))


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sae_oracle", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
    )


def test_the_command_on_one_backend(tmp_path: Path) -> None:
    """The real thing on the fastest backend: table, JSON, page, exit status; in any folder."""
    (tmp_path / "data").mkdir()
    file, folder = tmp_path / "found.json", tmp_path / "report"
    done = run(
        *("verify", "--backend", "numpy", "--json", str(file), "--report", str(folder)),
        folder=crowd(tmp_path / "data"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQ-SPARSITY" in done.stdout
    found = json.loads(file.read_text())
    assert found["passed"] is True
    assert found["cells"]["Keras fails"] == 1
    assert found["cells"]["inside"] > 10
    assert "1 could not be compared: Keras itself fails there." in found["verdict"]
    assert found["verdict"] in done.stdout
    labels = {m["equation"] for m in found["backends"]["numpy"]["measurements"]}
    assert labels <= set(reference.equations())
    assert "sae-oracle verify" in (folder / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "found.json", "report"]


def test_bad_calls_say_so_before_any_work(tmp_path: Path) -> None:
    done = run("verify", "--json", str(tmp_path / "missing" / "found.json"))
    assert done.returncode == 2
    assert "No such folder" in done.stdout
    found = tmp_path / "found.json"
    for text in ("{", "{}"):
        found.write_text(text)
        done = run("verify", "--beside", str(found), "--backend", "numpy")
        assert done.returncode == 2
        assert "--beside" in done.stdout
    done = run("verify", "--backend", "mxnet")
    assert done.returncode == 2
    assert "invalid choice" in done.stderr


def test_gpu_is_asked_for_and_not_there() -> None:
    done = run("verify", "--backend", "numpy", "--device", "gpu")
    assert done.returncode == 1
    assert "no GPU: numpy sees none" in done.stdout


def test_a_process_that_crashes_or_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def start(program: str) -> Any:
        def popen(command: list[str], **options: Any) -> Any:
            return real([command[0], "-c", program], **options)

        return popen

    monkeypatch.setattr(processes.subprocess, "Popen", start("import os; os.abort()"))
    crashed = cli.verify_backend("numpy", "cpu", lambda message: None)
    assert crashed["kind"] == "error"
    assert "exit status -6" in crashed["error"]
    monkeypatch.setattr(processes.subprocess, "Popen", start("import time; time.sleep(60)"))
    hung = cli.verify_backend("numpy", "cpu", lambda message: None, time_limit=0.5)
    assert "no end within" in hung["error"]


# A penalty that is off by 1e-4, planted in the process that verifies.
WRONG = """
import sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == 'keras_impl.models':
            sys.meta_path.remove(self)
            from keras_impl.term import SparsityTerm
            right = SparsityTerm.penalty
            SparsityTerm.penalty = lambda *a, **k: 1.0001 * right(*a, **k)

sys.meta_path.insert(0, Hook())
"""


def test_a_wrong_implementation_is_outside() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sae_oracle", "verify", "--backend", "numpy"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(hidden=("tensorflow",), startup=WRONG),
    )
    assert done.returncode == 1, done.stdout
    assert "OUTSIDE" in done.stdout


def test_keras_on_numpy_needs_jax() -> None:
    """Where torch alone is installed, verify holds torch alone: no failure of numpy."""
    program = "from sae_oracle.processes import *; print(*filter(installed, BACKENDS))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(hidden=("jax", "tensorflow", "openvino")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() in (["torch"], [])


# The worker's part, with one object that raises.
RAISES = """
import sys
import keras
import numpy as np
from sae_oracle.workers import verify

class Raises:
    def __init__(self, *arguments, **named):
        pass

    def __call__(self, x):
        raise ValueError("planted")

home, name = verify if sys.argv[1] == "verify" else keras.regularizers, sys.argv[2]
setattr(home, name, Raises)
found = verify.hold_regularizers(np.random.default_rng(0).uniform(size=(30, 64)), "float32")
try:
    print([m.quantity for m in found if m.failure])
except ValueError as error:
    print(f"raised: {error}")
"""


@pytest.mark.parametrize(("home", "name"), [("verify", "KLSparsityRegularizer"), ("keras", "L2")])
def test_only_known_failures_of_keras_are_excused(home: str, name: str) -> None:
    """An exception of ours, or a new one of Keras's, ends the process, and with it the verdict."""
    done = subprocess.run(
        [sys.executable, "-c", RAISES, home, name],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment("numpy"),
        timeout=300,
    )
    assert done.stdout.strip() == "raised: planted", done.stdout + done.stderr
