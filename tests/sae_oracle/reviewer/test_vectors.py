"""What the reviewer takes is held to the vectors: what is right passes, mistakes fail."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import keras
import pytest

from sae_oracle.conformance.vectors import Judgement, judge, read_vectors
from sae_oracle.workers.subjects import held, subject_of
from sae_oracle.workers.vectors import spread
from tests.mutants import MUTANTS
from tests.sae_oracle.reviewer import suite_mutants
from tests.sae_oracle.reviewer.caught import (
    NEAR_ZERO,
    NOT_CAUGHT,
    judgements,
    numerical,
    question_of,
    recorded,
)
from tests.sae_oracle.reviewer.corpus.cases import CASES, Case, runs_on

BACKEND = keras.config.backend()
VECTORS = read_vectors()


@cache
def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


# How many vectors each passes; it fails none.
RIGHT = {
    "Right": 21,
    "an instance": 21,
    "OtherEdge": 21,
    "OtherNames": 21,
    "names that are said": 21,
    "FromLogits": 18,
    "SymmetricTanh": 2,
    "as_function": 21,
    "NotMultiplied, called directly": 21,
    "RightLayer": 25,
    "SparseDense": 20,
    "half_squared_error": 5,
    "Decay": 8,
    "right_model": 3,
    "TiedModel": 3,
    "OwnLoss": 3,
    "KLSparsityRegularizer": 59,
    "KLSparsity": 59,
    "WeightDecay": 8,
    "HalfSquaredError": 5,
    "SparseAutoencoder": 42,
    "L1": 8,
    "L2": 8,
    "L1L2": 28,
    "OrthogonalRegularizer": 5,
    "functions.half_squared_error": 5,
    "functions.decay": 6,
}


# Right by the reviewer, with an edge of 1e-6 that their documentation does not say.
WITH_A_SILENT_EDGE = {
    "OtherNames",
    "names that are said",
    "as_function",
    "NotMultiplied, called directly",
    "RightLayer",
    "SparseDense",
}


# All on torch; elsewhere, where each new shape is compiled, every third.
@pytest.mark.parametrize("name", list(RIGHT) if BACKEND == "torch" else list(RIGHT)[::3])
def test_what_is_right_passes(name: str) -> None:
    if not runs_on(by_name(name), BACKEND):
        pytest.skip(f"it does not run on {BACKEND}")
    found = list(judgements(by_name(name), VECTORS))
    failed = {v.identifier: j.words for v, j in found if j.status == "failed"}
    assert set(failed) == set(NEAR_ZERO if name in WITH_A_SILENT_EDGE else ()), failed
    words = Counter(judgement.words for _, judgement in found)
    assert sum(j.status == "passed" for _, j in found) >= RIGHT[name], words
    assert all(j.words for _, j in found if j.status == "not run")


@pytest.mark.only_backends("torch")
def test_a_right_loss_of_output_target_and_activations_passes() -> None:
    """Value and gradient by the weights of the network before it; a dead unit meets its guard."""
    found = list(judgements(by_name("modules.TrainingLoss"), VECTORS))
    assert sum(judgement.status == "passed" for _, judgement in found) >= 48
    failed = [vector for vector, judgement in found if judgement.status == "failed"]
    assert all("dead-unit" in vector.flags for vector in failed), failed


RECORDED = {name: row.split(" | ")[2] for name, row in recorded().items()}


def test_the_page_has_every_specimen_with_a_wrong_number() -> None:
    assert list(RECORDED) == [case.name for case in numerical()]
    uncaught = {name for name, vector in RECORDED.items() if vector.startswith("none")}
    assert uncaught == set(NOT_CAUGHT)


# Not the networks and not every function: how they are called takes a while to find out. The page
# is written of all.
QUICK = [
    name
    for name in RECORDED
    if name not in NOT_CAUGHT
    and not re.match(r"exercise|jax_|modules|\w*model|functions\.(?!squared|decay|Wrong)", name)
]


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("part", range(4))
def test_a_mistake_fails_the_vector_that_the_page_says(part: int) -> None:
    by_identifier = {vector.identifier: vector for vector in VECTORS}
    for name in QUICK[part::4]:
        if not runs_on(by_name(name), BACKEND):
            continue
        vector = by_identifier[RECORDED[name]]
        subject = subject_of(question_of(by_name(name)), spread(VECTORS))
        found = held(subject, vector)
        judged = found if isinstance(found, Judgement) else judge(vector, found, subject.precision)
        assert judged.status == "failed", name
        assert vector.identifier in judged.words


def test_every_mutant_of_the_suite_fails_a_vector_or_is_no_number() -> None:
    found = suite_mutants.recorded()
    assert list(found) == [mutant.mistake for mutant in MUTANTS]
    for mutant in MUTANTS:
        _, who, vector = found[mutant.mistake]
        caught = vector.startswith("EQ-")
        why = suite_mutants.reason(mutant)
        assert caught == bool(who), mutant.mistake
        assert (why is None) == caught, mutant.mistake
        assert caught or (vector.startswith("none: ") and len(vector) > 10), mutant.mistake


# Not of a model, which takes a while to find out how to ask.
PLANTED = [
    mutant
    for mutant in MUTANTS
    if suite_mutants.recorded().get(mutant.mistake, ("", ""))[1] in suite_mutants.ASKED
]


@pytest.mark.only_backends("torch")
def test_a_mutant_of_the_suite_fails_the_vector_that_the_page_says() -> None:
    by_identifier = {vector.identifier: vector for vector in VECTORS}
    for mutant in PLANTED:
        _, who, name = suite_mutants.recorded()[mutant.mistake]
        assert not suite_mutants.fails(who, by_identifier[name]), name
        with suite_mutants.planted(mutant) as could:
            assert could, mutant.mistake
            assert suite_mutants.fails(who, by_identifier[name]), mutant.mistake
    assert len(PLANTED) > 30


@pytest.mark.only_backends("tensorflow", "jax")
def test_a_mutant_that_torch_does_not_run_fails_the_vector_that_the_page_says() -> None:
    by_identifier = {vector.identifier: vector for vector in VECTORS}
    count = 0
    for mutant in MUTANTS:
        _, who, name = suite_mutants.recorded()[mutant.mistake]
        if who.endswith(f" on {BACKEND}"):
            who = who.removesuffix(f" on {BACKEND}")
            assert not suite_mutants.fails(who, by_identifier[name]), name
            with suite_mutants.planted(mutant) as could:
                assert could, mutant.mistake
                assert suite_mutants.fails(who, by_identifier[name]), mutant.mistake
            count += 1
    assert count > {"tensorflow": 10, "jax": 3}[BACKEND]
