"""The list of mutants is a list of mistakes in the code as it is now."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from tests.generated_mutants import (
    ROOT,
    Attempt,
    Generated,
    in_a_child,
    outcome,
    reason_for,
    who_runs,
)
from tests.mutants import MUTANTS, check_mutants


def test_no_mutant_has_gone_stale_and_no_two_are_the_same() -> None:
    check_mutants()
    assert len({mutant.mistake for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.right != mutant.wrong for mutant in MUTANTS)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("scale = 1.0", "scale = 2.0", "occurs 0 times"),
        ("scale = 2.0 / integer(", "scale = (", "occurs 2 times"),
        ("return batch_size if", "return (batch_size if", "invalid-syntax"),
        ("return batch_size if", "return _batch_size if", "Undefined name `_batch_size`"),
        ("    batch_size = integer(", "    batch_size = positive(", "name `positive`"),
    ],
    ids=["stale", "ambiguous", "no program", "a variable", "a function"],
)
def test_what_is_no_mutant_is_refused(right: str, wrong: str, problem: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.file == "keras_impl/units.py")
    planted = dataclasses.replace(mutant, mistake="planted", right=right, wrong=wrong)
    with pytest.raises(ValueError, match=problem) as raised:
        check_mutants([planted, mutant])
    assert "'planted'" in str(raised.value)
    assert mutant.mistake not in str(raised.value)


def test_a_surviving_change_is_explained_only_if_it_is_known_to_be_equivalent() -> None:
    assert reason_for("for a, b in zip(x, y, strict=False):") is not None
    assert reason_for("return rho * (np.log(rho) + log_rho_hat)") is None


def test_a_mutant_is_tried_by_the_tests_that_run_its_line() -> None:
    lines = (ROOT / "reference/activations.py").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines, 1) if line.startswith("def sigmoid("))
    runs = {str(start + n): [f"test {n}"] for n in (-1, 12, 13)}
    of = {
        n: Generated("reference/activations.py", start + n, "sigmoid", "", "") for n in (0, 13, 14)
    }
    assert who_runs(of[0], runs) == ["test 12"]  # a signature, by what comes first of its body
    assert who_runs(of[13], runs) == ["test 13"]
    assert who_runs(of[13], {}) == []


@pytest.mark.parametrize(
    ("code", "result"), [(0, "survived"), (1, "killed"), (2, "killed"), (None, "endless")]
)
def test_what_became_of_a_mutant(code: int | None, result: str, tmp_path: Path) -> None:
    """A test that fails, a module that cannot be imported, and tests without an end, kill it."""
    process = in_a_child((lambda: code) if code is not None else (lambda: time.sleep(60)))
    (tmp_path / "file.py").write_text("mutated")
    mutant = Generated("file.py", 1, "f", "", "")
    end = time.monotonic() + (60 if code is not None else 0.2)
    attempt = Attempt(mutant, tmp_path, "original", process, end)
    while (found := outcome(attempt)) is None:
        time.sleep(0.01)
    assert found == result
    assert (tmp_path / "file.py").read_text() == "original"


def test_tests_that_are_not_there_kill_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    copy.mkdir()
    (copy / "file.py").write_text("mutated")
    (tmp_path / "log").write_text("no tests ran")
    attempt = Attempt(
        Generated("file.py", 1, "f", "", ""), copy, "original", in_a_child(lambda: 5), 1e9
    )
    with pytest.raises(RuntimeError, match="no tests ran"):
        while outcome(attempt) is None:
            time.sleep(0.01)
