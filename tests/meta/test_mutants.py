"""The list of mutants is a list of mistakes in the code as it is now."""

from __future__ import annotations

import dataclasses
import importlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import generated_mutants
from tests.generated_mutants import (
    EQUIVALENT,
    ROOT,
    Attempt,
    Functions,
    Generated,
    State,
    in_a_child,
    limit_of,
    outcome,
    reason_for,
    replaced,
    sample_of,
    summary,
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


def test_a_surviving_change_is_explained_only_if_it_is_shown_to_be_equivalent() -> None:
    assert reason_for("return array.reshape(-2, 3)") is not None
    assert reason_for("return rho * (np.log(rho) + log_rho_hat)") is None
    for known in EQUIVALENT:
        exec(known.proof, {})


def test_a_mutant_is_tried_by_the_tests_that_run_its_line() -> None:
    lines = (ROOT / "reference/activations.py").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines, 1) if line.startswith("def sigmoid("))
    runs = {str(start + n): [f"test {n}"] for n in (-1, 12, 13)}
    of = {
        n: Generated("reference/activations.py", start + n, "sigmoid", "", "") for n in (0, 13, 14)
    }
    who = {"lines": {"reference/activations.py": runs}, "seconds": {}}
    assert who_runs(of[0], who) == ["test 12"]  # a signature, by what comes first of its body
    assert who_runs(of[13], who) == ["test 13"]
    assert who_runs(of[13], {"lines": {}, "seconds": {}}) == []
    # The quickest first; and where a worker runs the line, those that start workers.
    runs[str(start + 13)] = ["slow", "quick"]
    who |= {"seconds": {"slow": 2.0, "quick": 0.5, "forks": 1.0}, "forking": ["forks"]}
    assert who_runs(of[13], who) == ["quick", "slow"]
    worker = Generated("sae_oracle/workers/encode.py", 40, "main", "", "")
    assert who_runs(worker, who) == ["forks"]
    assert limit_of(["slow", "quick"], who) == 30.0 + 10.0 * 2.5


CALLED = """
import functools

def passed_on(function):
    return functools.wraps(function)(lambda *x: function(*x))

class Thing:
    @property
    @functools.cache
    def value(self):
        return 1 + sum(2 for _ in range(2))

@passed_on
def doubled(x, by=2):
    return x * by
"""


def test_functions_get_new_code_however_they_are_decorated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "called.py").write_text(CALLED)
    monkeypatch.setattr(generated_mutants, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    called = importlib.import_module("called")
    functions = Functions()
    # What is not in the code of one function is a matter for a new process.
    assert replaced("called.py", CALLED.replace("by=2", "by=3")) is None
    assert replaced("called.py", CALLED.replace("sum(2", "sum(3").replace("x * by", "x")) is None
    assert replaced("called.py", CALLED.replace("\n\n", "\n\n\n")) is None
    for right, wrong in (("sum(2", "sum(3"), ("x * by", "x + 7 * by")):
        pairs = replaced("called.py", CALLED.replace(right, wrong))
        assert pairs is not None
        assert functions.has(pairs)
        functions.change(pairs)
    assert called.Thing().value == 7
    assert called.doubled(1) == 15


def test_decorated_functions_and_what_is_left_out_are_mutated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mutmut")
    text = """
class Thing:
    @property
    def value(self):
        if self.bad:
            return 1
        self.note(2)
        for x, y in zip(self.all, self.all, strict=True):
            pass
        return [x for x in self.all if x]
"""
    (tmp_path / "file.py").write_text(text)
    monkeypatch.setattr(generated_mutants, "ROOT", tmp_path)
    found = {mutant.change for mutant, _ in sample_of(["file.py"], {}, 0, 0)}
    assert {"if False:", "return 2", "pass", "return [x for x in self.all]"} <= found
    assert not {change for change in found if re.search("strict=(False|None)|all, \\)", change)}
    assert not [*sample_of(["file.py"], {"file.py": ("other",)}, 0, 0)]


def busy() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("work", "limit", "seconds", "result"),
    [
        (lambda: 0, None, 60.0, "survived"),
        (lambda: 1, None, 60.0, "killed"),
        (lambda: 2, None, 60.0, "killed"),
        (busy, 1.0, 600.0, "endless"),
        (lambda: time.sleep(60), None, 0.2, "endless"),
    ],
    ids=["passes", "fails", "no module", "computes", "waits"],
)
def test_what_became_of_a_mutant(
    work: Callable[[], int | None],
    limit: float | None,
    seconds: float,
    result: str,
    tmp_path: Path,
) -> None:
    """A test that fails and a module that cannot be imported kill it; no end is told apart."""
    process = in_a_child(work, limit=limit)
    (tmp_path / "file.py").write_text("mutated")
    mutant = Generated("file.py", 1, "f", "", "")
    restored = (tmp_path / "file.py", "original")
    attempt = Attempt(mutant, process, time.monotonic() + seconds, tmp_path / "log", restored)
    while (found := outcome(attempt)) is None:
        time.sleep(0.01)
    assert found == result
    assert (tmp_path / "file.py").read_text() == "original"


def test_tests_that_are_not_there_kill_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("no tests ran")
    mutant = Generated("file.py", 1, "f", "", "")
    attempt = Attempt(mutant, in_a_child(lambda: 5), 1e9, tmp_path / "log")
    with pytest.raises(RuntimeError, match="no tests ran"):
        while outcome(attempt) is None:
            time.sleep(0.01)


def test_results_are_kept_and_counted_by_file(tmp_path: Path) -> None:
    results = {"a": "killed", "b": "endless", "c": "survived", "d": "not run"}
    sample = [(Generated("f.py", 1, "f", f"x.reshape(-2, {key})", key), "") for key in "abcde"]
    for mutant, _ in sample[:4]:
        State(tmp_path / "results.jsonl").keep(mutant, results[mutant.key])
    known = State(tmp_path / "results.jsonl").known
    assert known == results
    (found,) = summary(sample, known).values()
    assert (found["tried"], found["killed"], found["endless"]) == (4, 1, 1)
    assert [mutant["as"] for mutant in found["living"]] == ["survived", "not run"]
    assert all(mutant["reason"] for mutant in found["living"])
