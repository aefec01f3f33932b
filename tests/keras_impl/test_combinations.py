"""Every object with every option that Keras has: right, refused by name, or Keras's own failure."""

from __future__ import annotations

import inspect
import os
from typing import Any

import keras
import numpy as np
import pytest

from tests.keras_impl.combinations.cells import (
    Case,
    Option,
    Outcome,
    WrongNumberError,
    outcome_of,
)
from tests.keras_impl.combinations.options import ARGUMENTS, OPTIONS
from tests.keras_impl.combinations.page import PAGE, page, statuses_of_page
from tests.keras_impl.combinations.subjects import JOINED, SUBJECTS, Subject, together

BACKEND = os.environ.get("KERAS_BACKEND", "")
ON_THE_PAGE = statuses_of_page(PAGE.read_text(encoding="utf-8"))


def cells_here() -> list[Any]:
    """Every cell of this backend, but for those of many seconds, which the page alone runs.

    The objects that are right by themselves, as the page has them, stand in one network.
    """
    cells = []
    for option in OPTIONS:
        if BACKEND in option.slow:
            continue
        joined = [
            subject
            for subject in SUBJECTS
            if subject.name in JOINED
            and ON_THE_PAGE.get((option.name, subject.name, BACKEND)) == "right"
        ]
        groups = [(subject,) for subject in SUBJECTS if subject not in joined]
        for group in [tuple(joined), *groups] if joined else groups:
            names = " + ".join(subject.name for subject in group)
            cells.append(pytest.param(option, group, id=f"{option.name}-{names}"))
    return cells


@pytest.mark.parametrize(("option", "group"), cells_here())
def test_a_cell_is_what_the_page_says(
    option: Option, group: tuple[Subject, ...], backend: str
) -> None:
    subject = group[0] if len(group) == 1 else together(group)
    eagerly = backend != "torch" and backend not in option.compiled
    found = outcome_of(option, subject, eagerly=eagerly)
    assert found.status != "WRONG", found.note
    for subject in group:
        assert found.status == ON_THE_PAGE[option.name, subject.name, backend], found.note


def test_the_page_has_every_cell_and_no_other() -> None:
    cells = {(option.name, subject.name) for option in OPTIONS for subject in SUBJECTS}
    assert {(option, name) for option, name, _ in ON_THE_PAGE} == cells


def test_every_argument_of_fit_and_compile_has_an_option() -> None:
    """A release of Keras with a new argument fails here until it has an option."""
    names = {option.name for option in OPTIONS}
    for method in ("fit", "compile"):
        parameters = set(inspect.signature(getattr(keras.Model, method)).parameters) - {"self"}
        assert parameters == set(ARGUMENTS[method])
        assert {name for name in ARGUMENTS[method].values() if name} <= names


def test_a_page_can_be_read_again() -> None:
    found = {
        "jax": {("a", "X"): ("right", ""), ("a", "Y"): ("refused", "no")},
        "torch": {("a", "X"): ("Keras fails", "why"), ("a", "Y"): ("refused", "no")},
    }
    read = statuses_of_page(page(found))
    assert read["a", "X", "torch"] == "Keras fails"
    assert read["a", "X", "jax"] == "right"
    assert read["a", "Y", "jax"] == "refused"


# --- The harness itself -----------------------------------------------------------------------


def outcome(run: Any, subject: Subject = SUBJECTS[2], **arguments: Any) -> Outcome:
    return outcome_of(Option("planted", run, **arguments), subject)


def test_a_cell_that_compares_nothing_is_wrong() -> None:
    assert outcome(lambda case: None).status == "WRONG"
    assert outcome(lambda case: case.fit()).status == "WRONG"


def test_a_wrong_number_is_seen_and_keras_does_not_excuse_it() -> None:
    def other_loss(case: Case) -> None:
        case.hold(case.fit(), case.expected(weights=np.full(8, 1.01)))

    def other_step(case: Case) -> None:
        case.fit()
        case.hold_loss(case.expected().cost.value, case.expected().cost)
        case.hold_parameters(case.expected().step(case.parameters, 0.51))

    def ours_alone(case: Case) -> None:
        if case.subject.keras_own is not None:
            raise WrongNumberError("the loss", 1.0, "is off")
        raise WrongNumberError("the loss", 2.0, "is off")

    # The first two fail with any object, Keras's own among them, and by as much.
    assert outcome(other_loss).status == "Keras fails"
    assert outcome(other_step).status == "Keras fails"
    assert outcome(ours_alone).status == "WRONG"


def test_a_refusal_is_one_only_if_it_says_what() -> None:
    def refuse(case: Case) -> None:
        if case.subject.keras_own is not None:
            raise ValueError("`beta` must not be")
        case.hold(case.fit())

    name = SUBJECTS[2].name
    assert outcome(refuse, refused={name: "`beta`"}).status == "refused"
    assert outcome(refuse, refused={name: "`rho`"}).status == "WRONG"
    assert outcome(refuse).status == "WRONG"
