"""The checks of an object: named, counted, strict about what is expected to fail."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import replace

import keras
import pytest

import keras_impl
import sae_oracle
from sae_oracle.processes import TRAINING_BACKENDS, installed
from sae_oracle.reviewer import battery
from sae_oracle.reviewer.findings import Finding, Review
from tests.sae_oracle.reviewer.corpus import costs, functions, layers, regularizers
from tests.sae_oracle.reviewer.corpus.cases import CASES, RIGHT, runs_on

BACKEND = keras.config.backend()

CLIPPED = {"SAE402": "we clip on purpose"}


@sae_oracle.parametrize_with_checks(
    [
        (keras_impl.KLSparsityRegularizer(0.05, 3.0), {"rho": 0.05, "beta": 3.0}),
        keras_impl.HalfSquaredError,
        (regularizers.Clipped, {"expected_failed_checks": CLIPPED}),
    ]
)
def test_what_conforms_passes_each_check(check: battery.Check) -> None:
    check()


def outcomes(thing: object, **options: object) -> dict[str, battery.Outcome]:
    found = {}
    for check in sae_oracle.conformance_checks(thing, **options):
        try:
            found[check.name] = check()
        except AssertionError as error:
            found[check.name] = battery.Outcome("failed", str(error))
    return found


@pytest.mark.parametrize(
    ("thing", "failing"),
    [
        (regularizers.WrongAxis, {"SAE105"}),
        (layers.RightLayer, set()),
        (costs.Decay, set()),
        (keras_impl.DenseTied, set()),
        (functions.wrong_axis, {"SAE105"}),
        (regularizers.Raises, {"SAE601", "complete"}),
    ],
)
def test_a_check_fails_for_each_finding_and_for_what_was_not_come_to(
    thing: object, failing: set[str]
) -> None:
    found = outcomes(thing)
    assert {name for name, outcome in found.items() if outcome.state == "failed"} == failing
    assert [*found] == [*dict.fromkeys(found)]
    assert [*found][-1] == "complete"
    for name in failing - {"complete"}:
        assert "fix:" in found[name].reason
    passed = [name for name, outcome in found.items() if outcome.state == "passed"]
    assert len(passed) > 5 or thing is regularizers.Raises


def test_what_was_not_asked_has_not_passed() -> None:
    found = outcomes(regularizers.Raises)
    assert found["SAE105"].state == "not asked"
    assert "the value" in found["SAE105"].reason
    assert "which ended at SAE601" in found["complete"].reason
    assert outcomes("nowhere.py:X")["complete"].reason.endswith("there is no file nowhere.py")


@pytest.mark.only_backends("torch")
def test_every_finding_of_the_corpus_is_a_check_and_what_is_right_is_asked_everything() -> None:
    """Every eighth case; and what a review does is known to `QUESTIONS`."""
    for position, case in enumerate(CASES):
        if position % 8 or not runs_on(case, BACKEND):
            continue
        checks = [*sae_oracle.conformance_checks(case.thing, **case.options)]
        held = checks[0].battery
        failed = {c.name for c in checks if held.outcome(c.name).state == "failed"}
        assert failed - {"complete"} == set(held.review.identifiers), case.name
        assert not (case in RIGHT and failed), case.name
        for words in held.review.checks:
            known = [q for q in battery.QUESTIONS[1:] if battery.re.match(q.words, words)]
            assert known or words.startswith("network: "), words


def test_a_battery_that_asks_less_than_it_promises_fails() -> None:
    check = next(sae_oracle.conformance_checks(regularizers.Right))
    review = check.battery.review
    assert check.battery.outcome("complete").state == "passed"
    for position, words in enumerate(review.checks):
        asked = (*review.checks[:position], *review.checks[position + 1 :])
        fewer = replace(review, checks=asked)
        held = battery.Battery(
            0, {}, "sparsity regularizer", {}, lambda *_, fewer=fewer, **__: fewer
        )
        optional = "float16" in words or "compiled" in words
        assert held.outcome("complete").state == ("passed" if optional else "failed"), words


def test_a_finding_that_nothing_promises_is_not_lost() -> None:
    found = replace(
        keras_impl.review(regularizers.WrongAxis),
        kind="loss",
        checks=("value on 3 batches", "configuration"),
    )
    held = battery.Battery(0, {}, "loss", {}, lambda *_, **__: found)
    assert "SAE105" in held.outcome("complete").reason


def test_what_is_expected_to_fail_must() -> None:
    assert outcomes(regularizers.Clipped, expected_failed_checks=CLIPPED)["SAE402"] == (
        "expected",
        "we clip on purpose",
    )
    passing = outcomes(regularizers.Right, expected_failed_checks=CLIPPED)["SAE402"]
    assert passing.state == "failed"
    assert "we clip on purpose" in passing.reason
    assert "passes" in passing.reason
    sae_oracle.assert_conforms(regularizers.Clipped, expected_failed_checks=CLIPPED)
    with pytest.raises(AssertionError, match="SAE402 is expected to fail"):
        sae_oracle.assert_conforms(regularizers.Right, expected_failed_checks=CLIPPED)


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"SAE4O2": "x"}, "near it: SAE402"),
        ({"SAE4": "x"}, "whole identifiers"),
        ({"SAE402": ""}, "why does SAE402 fail"),
        ({"SAE801": "x"}, "SAE801 is not asked of a sparsity regularizer"),
        (["SAE402"], "must be a dictionary"),
    ],
)
def test_what_is_expected_is_checked_at_once(expected: object, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        sae_oracle.conformance_checks(regularizers.Right, expected_failed_checks=expected)


@pytest.mark.only_backends("torch")
def test_options_and_targets_are_checked_at_once() -> None:
    with pytest.raises(TypeError, match="unexpected option 'rh'"):
        sae_oracle.conformance_checks(regularizers.Right, rh=0.1)
    with pytest.raises(ValueError, match="`rho` must lie in"):
        sae_oracle.conformance_checks(regularizers.Right, rho=2.0)
    with pytest.raises(ValueError, match="at least one"):
        sae_oracle.parametrize_with_checks([])
    with pytest.raises(TypeError, match="must be a list"):
        sae_oracle.parametrize_with_checks("my.py:Mine")
    with pytest.raises(ValueError, match="'mxnet' is not installed"):
        sae_oracle.parametrize_with_checks([regularizers.Right], backends=["mxnet"])
    with pytest.raises(ValueError, match="asked of none"):
        sae_oracle.parametrize_with_checks(
            [regularizers.Right], expected_failed_checks={"SAE801": "x"}
        )


@pytest.mark.only_backends("torch")
def test_ids_say_the_object_the_finding_and_the_backend(monkeypatch) -> None:
    other = next(name for name in ("jax", "tensorflow", "numpy") if installed(name))
    mark = sae_oracle.parametrize_with_checks(
        [regularizers.Right, regularizers.Right, functions.right], backends=[BACKEND, other]
    )
    ids = [parameter.id for parameter in mark.args[1]]
    assert len({*ids}) == len(ids)
    for name in (f"Right-SAE105-{BACKEND}", f"Right-SAE105-{other}", f"Right-2-complete-{other}"):
        assert name in ids
    assert "right-SAE105" in ids  # what Keras never calls
    monkeypatch.delenv("KERAS_BACKEND")
    everywhere = sae_oracle.parametrize_with_checks([regularizers.Right]).args[1]
    backends = [name for name in TRAINING_BACKENDS if installed(name)]
    assert len({parameter.id.rpartition("-")[2] for parameter in everywhere}) == len(backends)
    here = sae_oracle.parametrize_with_checks([regularizers.Right(0.1, 3.0)]).args[1]
    assert not [parameter.id for parameter in here if BACKEND in parameter.id]


@pytest.mark.only_backends("torch")
def test_another_backend_is_another_process() -> None:
    """And the options that were checked here go there."""
    mark = sae_oracle.parametrize_with_checks(
        [(regularizers.MeanOverUnits, {"rho": "rho", "ignore": ("SAE702",)})], backends=["numpy"]
    )
    checks = {parameter.values[0].name: parameter.values[0] for parameter in mark.args[1]}
    assert "SAE702" not in checks
    with pytest.raises(AssertionError, match="averaged over the units"):
        checks["SAE111"]()
    assert checks["SAE111"].battery.review.backend == "numpy"
    with pytest.raises(pytest.skip.Exception, match="gradient"):
        checks["SAE301"]()


@pytest.mark.only_backends("torch")
def test_checks_can_be_pickled() -> None:
    for check in sae_oracle.conformance_checks(regularizers.WrongAxis):
        again = pickle.loads(pickle.dumps(check))
        assert again.battery.outcome(check.name) == check.battery.outcome(check.name)
        if check.name == "SAE106":
            break


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("way", ["assert_conforms", "check"])
def test_frames_of_ours_are_hidden(way: str) -> None:
    with pytest.raises(AssertionError) as raised:
        if way == "check":
            checks = sae_oracle.conformance_checks(regularizers.WrongAxis)
            next(check for check in checks if check.name == "SAE105")()
        else:
            sae_oracle.assert_conforms(regularizers.WrongAxis)
    frames = [entry for entry in raised.traceback if not entry.ishidden(raised)]
    assert [str(entry.path) for entry in frames] == [__file__]
    assert len(traceback.extract_tb(raised.value.__traceback__)) > 1


@pytest.mark.only_backends("torch")
def test_a_review_comes_back_from_json() -> None:
    review = keras_impl.review(regularizers.WrongAxis)
    assert Review.of(review.as_dict()) == review
    bare = Finding("SAE105", "error", "", None, "", "", ("a", "b"))
    assert Review.of(Review("x", "loss", "jax", (bare,)).as_dict()).findings == (bare,)
