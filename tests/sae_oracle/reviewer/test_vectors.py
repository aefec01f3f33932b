"""What the reviewer takes is held to the vectors: what is right passes, mistakes fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import pytest

from sae_oracle.conformance.vectors import Judgement, judge, read_vectors
from sae_oracle.reviewer.loading import loaded
from sae_oracle.workers.subjects import Question, held, subject_of
from sae_oracle.workers.vectors import spread
from tests.sae_oracle.reviewer.corpus.cases import CASES, Case, runs_on

BACKEND = keras.config.backend()
VECTORS = read_vectors()
ROLES = ("rho", "beta", "weight_decay")


def judgements(case: Case) -> Iterator[Judgement]:
    """What the answers of a specimen to the vectors are worth, those of its labels alone."""
    given: dict[str, Any] = {"settings": {}, "kind": None, "called_directly": False, **case.options}
    question = Question(
        loaded(case.thing) if isinstance(case.thing, str) else case.thing,
        given["settings"],
        {role: given.get(role) for role in ROLES},
        given["kind"],
        given["called_directly"],
        case.name,
    )
    subject = subject_of(question, spread(VECTORS))
    for vector in VECTORS:
        if vector.label in subject.labels:
            found = held(subject, vector)
            answered = not isinstance(found, Judgement)
            yield judge(vector, found, subject.precision) if answered else found


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
    "right_regularizer_on_a_layer": 21,
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


# All on torch; elsewhere, where each new shape is compiled, every third.
@pytest.mark.parametrize("name", list(RIGHT) if BACKEND == "torch" else list(RIGHT)[::3])
def test_what_is_right_passes(name: str) -> None:
    if not runs_on(by_name(name), BACKEND):
        pytest.skip(f"it does not run on {BACKEND}")
    found = list(judgements(by_name(name)))
    count = Counter(judgement.status for judgement in found)
    assert count["failed"] == 0, [j.words for j in found if j.status == "failed"][:3]
    assert count["passed"] >= RIGHT[name], Counter(j.words for j in found)
    assert all(j.words for j in found if j.status == "not run")
