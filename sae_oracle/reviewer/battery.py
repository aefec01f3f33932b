"""The checks of one object, each with a name, so that they can be counted.

A review asks questions, and each is answered by findings: `QUESTIONS` says which, and of what they
are asked. A check is one finding that can be made of an object of its kind: it passes if its
question was asked and the finding was not made.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import keras

from keras_impl.validation import cut
from sae_oracle.catalogue import BY_IDENTIFIER, identifiers
from sae_oracle.processes import TRAINING_BACKENDS, installed
from sae_oracle.reviewer.findings import Finding, Review
from sae_oracle.reviewer.target import Target

COMPLETE = "complete"
"""The name of the last check of a battery: the others were asked what they promise."""

PENALTIES = ("sparsity regularizer", "sparsity layer")
KERAS = (*PENALTIES, "weight regularizer", "tied layer", "loss", "model")
SUBJECTS = (*KERAS, "code")


class Question(NamedTuple):
    """What a review asks of an object.

    Args:
        name: What it is called where it was not asked.
        words: What `Review.checks` says if it was, as a regular expression.
        findings: Identifiers, and how those begin, that answer it.
        subjects: Of what it can be asked.
        always: Of what it is asked whatever is found.
    """

    name: str
    words: str
    findings: str
    subjects: tuple[str, ...]
    always: tuple[str, ...] = ()

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Those of its findings."""
        return tuple(i for i in BY_IDENTIFIER if i.startswith(tuple(self.findings.split())))


QUESTIONS = (
    Question("the call", ".", "SAE601 SAE602 SAE603", SUBJECTS),
    Question(
        "the value",
        r"value( on \d+ inputs)?$",
        "SAE10 SAE11 SAE120 SAE121 SAE122 SAE123 SAE124 SAE125 SAE126 SAE127 SAE129 SAE13 SAE199 "
        "SAE604",
        (*PENALTIES, "code"),
        PENALTIES,
    ),
    Question(
        "the gradient", "gradient$", "SAE3", (*PENALTIES, "weight regularizer", "loss", "code")
    ),
    Question(
        "the edges of the KL",
        r"dead(, saturated and out-of-range|  and saturated) units|dead and saturated units",
        "SAE4",
        (*PENALTIES, "code"),
        PENALTIES,
    ),
    Question("half precision", "float16 and", "SAE5", PENALTIES),
    Question("compiled calls", "compiled and|replicas", "SAE605", PENALTIES),
    Question("masked sequences", "masked", "SAE128", ("sparsity layer",)),
    Question(
        "kernels",
        r"value on (\d+ )?kernels",
        "SAE211 SAE212 SAE213 SAE217 SAE218 SAE219 SAE3 SAE503",
        ("weight regularizer", "code"),
        ("weight regularizer",),
    ),
    Question(
        "the reconstruction",
        r"reconstruction|value on \d+ batches",
        "SAE20",
        ("loss", "model", "code"),
        ("loss", "model"),
    ),
    Question(
        "the weight decay",
        "weight decay|the sum of the three",
        "SAE211 SAE212 SAE213 SAE214 SAE215 SAE216 SAE217 SAE218",
        ("model", "code"),
    ),
    Question("the sparsity term", "sparsity|the sum of", "SAE1 SAE403", ("model", "code")),
    Question("the regularizers inside", "the regularizer ", "SAE3 SAE4 SAE5 SAE6", ("model",)),
    Question("the tie", "output, gradient, counts", "SAE7 SAE8", ("tied layer",), ("tied layer",)),
    Question(
        "saving",
        "configuration",
        "SAE7",
        KERAS,
        (*PENALTIES, "weight regularizer", "loss", "model"),
    ),
)


def subject_of(target: Target) -> str:
    """Return which of `SUBJECTS` a target is; it can be known before anything is asked."""
    if target.code is not None:
        return "code"
    if target.kind == "layer" and "tied_to" in target.parameter:
        return "tied layer"
    if target.kind == "regularizer":
        return "sparsity regularizer" if "rho" in target.values else "weight regularizer"
    return "sparsity layer" if target.kind == "layer" else target.kind


class Outcome(NamedTuple):
    """What came of a check.

    Args:
        state: "passed", "failed", "expected" (it failed, as was said) or "not asked".
        reason: Why; empty if it passed.
    """

    state: str
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Battery:
    """All checks of one object, on one backend; the object is reviewed once, by the first.

    Args:
        thing: What is reviewed.
        options: Those of `review`.
        subject: Which of `SUBJECTS` it is; empty if that could not be found out.
        expected: Why a check fails on purpose, by identifier.
        reviewing: `review`.
        backend: Another backend than the one in use, in a process of its own; `None`: this one.
    """

    thing: Any
    options: Mapping[str, Any]
    subject: str
    expected: Mapping[str, str]
    reviewing: Callable[..., Review]
    backend: str | None = None

    @cached_property
    def promised(self) -> tuple[str, ...]:
        """The identifiers of the checks, in the order of the catalogue."""
        asked = {
            identifier
            for question in QUESTIONS
            if self.subject in ("", *question.subjects)
            for identifier in question.identifiers
        }
        return tuple(i for i in BY_IDENTIFIER if i in asked and i not in self._ignored)

    @property
    def _ignored(self) -> Collection[str]:
        return [i for text in self.options.get("ignore", ()) for i in identifiers(text)]

    def checks(self) -> Iterator[Check]:
        """Yield one check after the other, and last that nothing is missing."""
        for name in (*self.promised, COMPLETE):
            yield Check(name, self)

    @cached_property
    def review(self) -> Review:
        """What was found."""
        if self.backend is None:
            return self.reviewing(self.thing, **self.options)
        from sae_oracle.review_command import TIME_LIMIT, review_on

        request = {**self.options, "target": self.thing, "path": [*sys.path]}
        return Review.of(review_on(self.backend, request, TIME_LIMIT)["review"])

    @cached_property
    def found(self) -> dict[str, Finding]:
        """The findings by identifier."""
        return {found.identifier: found for found in self.review.findings}

    def asked(self, question: Question) -> bool:
        """Whether the review came to a question."""
        return any(re.match(question.words, words) for words in self.review.checks)

    def outcome(self, name: str) -> Outcome:
        """Return what came of one check."""
        reason = self.expected.get(name)
        wrong = self._missing() if name == COMPLETE else str(self.found.get(name, ""))
        if wrong:
            return Outcome("failed", wrong) if reason is None else Outcome("expected", reason)
        if name != COMPLETE:
            if self.review.reason:
                return Outcome("not asked", f"it could not be reviewed: {self.review.reason}")
            questions = [q for q in QUESTIONS if name in q.identifiers]
            questions = [q for q in questions if self.subject in ("", *q.subjects)]
            if not any(map(self.asked, questions)):
                words = " and ".join(question.name for question in questions)
                return Outcome("not asked", f"the review did not come to {words}")
        if reason is None:
            return Outcome("passed")
        return Outcome(
            "failed", f"{name} is expected to fail ({reason}) and passes: list it no longer"
        )

    def _missing(self) -> str:
        """Say what the battery promises and did not do; empty: nothing."""
        if self.review.reason:
            return f"it could not be reviewed: {self.review.reason}"
        wrong = [
            f"beside what is promised: {self.found[name]}"
            for name in self.found
            if name not in self.promised
        ]
        due = [question for question in QUESTIONS if self.subject in question.always]
        if (
            self.subject in PENALTIES
            and (self.backend or keras.config.backend()) in TRAINING_BACKENDS
        ):
            due += [question for question in QUESTIONS if question.name == "the gradient"]
        left = [question.name for question in due if not self.asked(question)]
        if not self.review.checks:
            left = left or ["anything"]
        if left:
            ended = sorted({"SAE127", "SAE601", "SAE602", "SAE604"} & set(self.found))
            why = f", which ended at {' and '.join(ended)}," if ended else ""
            wrong.append(f"the review{why} did not come to {' and '.join(left)}")
        return "; ".join(wrong)


@dataclass(frozen=True, eq=False)
class Check:
    """One check of a battery.

    Args:
        name: The identifier of the finding that it fails with; or "complete", the last: it fails
            if the object could not be reviewed, or if less was asked than is promised.
        battery: The one that it is of.
        skips: Whether a call says to pytest what was not asked, and what is expected to fail.
    """

    name: str
    battery: Battery = field(repr=False)
    skips: bool = False

    @property
    def title(self) -> str:
        """The mistake in one sentence."""
        if self.name == COMPLETE:
            return "Less was asked than is promised."
        return BY_IDENTIFIER[self.name].title

    @property
    def reason(self) -> str | None:
        """Why it is expected to fail; `None`: it is not."""
        return self.battery.expected.get(self.name)

    def __call__(self) -> Outcome:
        """Review the object, unless another check of its battery has, and return what came of it.

        Raises:
            AssertionError: If it failed, with the evidence and the fix.
        """
        __tracebackhide__ = True
        outcome = self.battery.outcome(self.name)
        if outcome.state == "failed":
            raise AssertionError(outcome.reason)
        if self.skips and outcome.state != "passed":
            import pytest

            (pytest.xfail if outcome.state == "expected" else pytest.skip)(outcome.reason)
        return outcome


def expectations(expected: Mapping[str, str] | None) -> dict[str, str]:
    """Check `expected_failed_checks`.

    Raises:
        TypeError, ValueError: If it is no mapping from identifiers to reasons.

    >>> expectations({"SAE402": "we clip on purpose"})
    {'SAE402': 'we clip on purpose'}
    >>> expectations({"SAE4O2": "we clip on purpose"})
    Traceback (most recent call last):
    ValueError: `expected_failed_checks`: there is no finding 'SAE4O2'; near it: SAE402
    """
    argument = "`expected_failed_checks`"
    if expected is not None and not isinstance(expected, Mapping):
        raise TypeError(
            f"{argument} must be a dictionary such as {{'SAE402': 'we clip on purpose'}}. "
            f"Received: {cut(expected)}"
        )
    for name, reason in (expected or {}).items():
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"{argument}: why does {name} fail? Received: {cut(reason)}")
        if not isinstance(name, str):
            raise TypeError(f"{argument} is by identifiers. Received: {cut(name)}")
        try:
            is_one = name == COMPLETE or identifiers(name) == (name,)
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from None
        if not is_one:
            raise ValueError(f"{argument} is by whole identifiers. Received: {cut(name)}")
    return dict(expected or {})


def location_of(thing: Any) -> str | None:
    """Return where another process finds an object; `None`: nowhere.

    >>> location_of(location_of)
    'sae_oracle.reviewer.battery:location_of'
    """
    if isinstance(thing, str):
        return thing
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return None
    module: Any = sys.modules.get(thing.__module__)
    held = module
    for name in thing.__qualname__.split("."):
        held = getattr(held, name, None)
    file = getattr(module, "__file__", None)
    if held is not thing or file is None:
        return None
    where = thing.__module__ if module.__package__ else os.path.abspath(file)
    return f"{where}:{thing.__qualname__}"


def backends_of(battery: Battery, backends: Sequence[str] | None) -> list[str | None]:
    """Return where the checks of an object run: `None` is this process.

    Raises:
        ValueError: If one is not installed, or the object cannot be imported where it runs.
    """
    here = keras.config.backend()
    if battery.subject == "code":
        return [None]  # it runs on its own library
    chosen = backends
    if chosen is None:
        if os.environ.get("KERAS_BACKEND") or location_of(battery.thing) is None:
            return [None]
        chosen = [name for name in TRAINING_BACKENDS if installed(name)]
    for name in chosen:
        if not installed(name):
            raise ValueError(f"`backends`: {name!r} is not installed")
        if name != here and location_of(battery.thing) is None:
            raise ValueError(
                f"`backends`: on {name} a class or function of a module is needed, or where it is "
                f"('path/to/file.py:Object'). Received: {cut(battery.thing)}"
            )
    return [None if name == here else name for name in chosen]


def on_other(battery: Battery, backend: str) -> Battery:
    """Return the same checks on another backend.

    Raises:
        TypeError: If an option cannot be told another process.
    """
    try:
        json.dumps(dict(battery.options))
    except TypeError as error:
        raise TypeError(f"the options must be plain values to be reviewed on {backend}") from error
    return Battery(
        location_of(battery.thing),
        battery.options,
        battery.subject,
        battery.expected,
        battery.reviewing,
        backend,
    )
