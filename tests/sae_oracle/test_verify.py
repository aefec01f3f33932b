"""`sae-oracle verify`: what it prints, writes and returns, and that it can fail."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import reference
from sae_oracle import cli, processes, report
from tests.fresh_process import ROOT, environment


def result(worst: float | None = 0.25, **changed: Any) -> dict[str, Any]:
    measurement = {
        "equation": "EQ-KL",
        "quantity": "divergence",
        "case": "a case",
        "dtype": "float32",
        "worst": worst,
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
    text = printed(report.collect({"numpy": result(None, failure="ValueError: no")}))
    assert "Keras fails" in text
    assert "ValueError: no" in text


def test_the_page_is_self_contained_and_cites_the_equation() -> None:
    page = report.html_page(report.collect({"torch": result()}))
    assert "<img alt=" in page
    assert "src='data:image/png;base64," in page
    assert "http" not in page
    assert "CS294A lecture notes" in page
    assert reference.equations()["EQ-KL"].function in page


def test_the_status_matrix_has_the_worst_of_each_dtype() -> None:
    both = result(0.25)
    both["measurements"] = [
        *result(0.25)["measurements"],
        *result(0.75, undecidable=1.0, elements=12)["measurements"],
        *result(0.5, dtype="float64")["measurements"],
    ]
    text = report.status_matrix(report.collect({"torch": both, "jax": {"kind": "absent"}}))
    assert "| torch | cpu | float32 | 0.75 | divergence (EQ-KL) | 75.00% | 16 | keras 3 |" in text
    assert "| torch | cpu | float64 | 0.50 |" in text
    assert "| jax | | | absent |" in text


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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sae_oracle", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )


def test_the_command_on_one_backend(tmp_path: Path) -> None:
    """The real thing on the fastest backend: table, JSON, page, exit status."""
    file, folder = tmp_path / "found.json", tmp_path / "report"
    done = run("verify", "--backend", "numpy", "--json", str(file), "--report", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQ-SPARSITY" in done.stdout
    found = json.loads(file.read_text())
    assert found["passed"] is True
    labels = {m["equation"] for m in found["backends"]["numpy"]["measurements"]}
    assert labels <= set(reference.equations())
    assert "sae-oracle verify" in (folder / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "report"]


def test_bad_calls_say_so_before_any_work(tmp_path: Path) -> None:
    done = run("verify", "--json", str(tmp_path / "missing" / "found.json"))
    assert done.returncode == 2
    assert "No such folder" in done.stdout
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
    crashed = cli.verify_backend("numpy", "cpu", lambda done, of: None)
    assert crashed["kind"] == "error"
    assert "exit status -6" in crashed["error"]
    monkeypatch.setattr(processes.subprocess, "Popen", start("import time; time.sleep(60)"))
    hung = cli.verify_backend("numpy", "cpu", lambda done, of: None, time_limit=0.5)
    assert "no end within" in hung["error"]


def test_a_wrong_implementation_is_outside(tmp_path: Path) -> None:
    """A penalty that is off by 1e-4, planted in the process that verifies: verify must fail."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'keras_impl.models':\n"
        "            sys.meta_path.remove(self)\n"
        "            from keras_impl.term import SparsityTerm\n"
        "            right = SparsityTerm.penalty\n"
        "            SparsityTerm.penalty = lambda *a, **k: 1.0001 * right(*a, **k)\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "sae_oracle", "verify", "--backend", "numpy"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"},
    )
    assert done.returncode == 1, done.stdout
    assert "OUTSIDE" in done.stdout
