"""Is *this* implementation right? Findings with evidence and the equation to cite.

The package is called `reviewer` because `sae_oracle.review` is its one function, which a module of
the same name would hide; the command is `sae_oracle.review_command` for the same reason.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch
from keras_impl.validation import cut
from sae_oracle.catalogue import MISTAKES, READINGS, Mistake, identifiers
from sae_oracle.reviewer import battery, source
from sae_oracle.reviewer.arguments import check_arguments
from sae_oracle.reviewer.battery import Check
from sae_oracle.reviewer.check_loss import review_loss
from sae_oracle.reviewer.check_model import review_model
from sae_oracle.reviewer.check_penalty import (
    Findings,
    Penalty,
    add_removed,
    fed_images,
    prepared_input,
    probes,
    review_penalty,
)
from sae_oracle.reviewer.check_replicas import review_replicas
from sae_oracle.reviewer.check_saving import review_saving
from sae_oracle.reviewer.check_tied import review_tied
from sae_oracle.reviewer.check_weights import review_weight_regularizer
from sae_oracle.reviewer.evaluation import as_number, losses_of, tensor
from sae_oracle.reviewer.findings import Evidence, Finding, Review, finding
from sae_oracle.reviewer.foreign import (
    code_of,
    code_of_product,
    is_foreign,
    native_penalty,
    roles_by_place,
)
from sae_oracle.reviewer.frameworks import is_installed
from sae_oracle.reviewer.loading import Loaded, Method, loaded
from sae_oracle.reviewer.program import Program, target_of
from sae_oracle.reviewer.reading import Signature, signature_of, size_named
from sae_oracle.reviewer.surroundings import restored
from sae_oracle.reviewer.target import (
    SYMBOLS,
    CouldNotReviewError,
    Target,
    add_constants,
    described,
    is_our_own,
    product,
    resolve,
)
from sae_oracle.reviewer.trials import review_code, rho_among_literals

__all__ = [
    "MISTAKES",
    "Check",
    "Evidence",
    "Finding",
    "Mistake",
    "Review",
    "assert_conforms",
    "conformance_checks",
    "parametrize_with_checks",
    "review",
]


@restored()
def review(
    thing: Any,
    *,
    settings: Mapping[str, Any] | None = None,
    rho: str | float | None = None,
    beta: str | float | None = None,
    weight_decay: str | float | None = None,
    kind: str | None = None,
    activation: str | None = None,
    called_directly: bool = False,
    replicas: bool = False,
    ignore: Collection[str] = (),
    name: str | None = None,
) -> Review:
    """Review an implementation of a piece of the sparse autoencoder, on the backend in use.

    The object is run, in this process, on inputs that tell the usual mistakes apart; what it
    computes is compared with Ng's formulas and with what people write in their place. `sae-oracle
    review` does the same in a process of its own, with a time limit, on any backend.

    Args:
        thing: A regularizer, layer, loss or model: a class, an instance, a function, or where one
            is ("package.module:Object", "path/to/file.py:Object"); or a `Program`. A class is
            better than an instance: it is made with several ρ and β.
        settings: Constructor arguments.
        rho: The name of the argument that is ρ, or its value; `None`: guessed from common names.
        beta: The same for β.
        weight_decay: The same for λ.
        kind: "regularizer", "layer", "loss" or "model"; for code that Keras never calls
            "activations" or "means", what its argument is; `None`: detected.
        activation: The activation of the layer that a regularizer is used on, if known.
        called_directly: Whether a regularizer's value goes to the loss as it is (called by hand,
            `add_loss`), and not as an `activity_regularizer`, which Keras divides by the batch.
        replicas: Whether to try a regularizer or layer on two replicas too (TensorFlow, in a
            process that has computed nothing yet): a plain mean is that of a replica's own rows.
        ignore: Identifiers of findings to leave out, or how they begin (SAE4).
        name: What to call it in the review.

    Returns:
        A `Review`: `findings` (empty if it conforms), `guesses`, `notes`; or the `reason` why it
        could not be reviewed.

    Raises:
        TypeError, ValueError: If an argument is not as above; the error names it.

    >>> from keras_impl import KLSparsityRegularizer
    >>> review(KLSparsityRegularizer(rho=0.05, beta=3.0)).conforms
    True
    """
    roles = {"rho": rho, "beta": beta, "weight_decay": weight_decay}
    options: dict[str, Any] = {
        "settings": settings,
        **roles,
        "kind": kind,
        "activation": activation,
        "called_directly": called_directly,
        "ignore": ignore,
    }
    check_arguments(**options, replicas=replicas, name=name)
    try:
        ignore = [i for text in map(str, ignore) for i in identifiers(text)]
    except ValueError as error:
        raise ValueError(
            f"`ignore` takes identifiers of findings such as 'SAE402', or how they begin: {error}"
        ) from None
    label = name or (thing if isinstance(thing, str) else _name(thing))
    backend = keras.config.backend()
    folder = os.getcwd()
    findings = Findings()
    target = None
    location = thing if isinstance(thing, str) else None
    others: list[str] = []
    options |= {"settings": dict(settings or {}), "ignore": ignore}
    try:
        if isinstance(thing, str):
            thing = loaded(thing)
        if isinstance(thing, Loaded):
            findings.notes += thing.notes
            label, others = thing.location or label, thing.others
            activation = activation or thing.activation or None
            replaced, thing = thing.replaced, thing.thing
            used = {n for f in source.functions(_owner(thing)) for n in source.names_of(f)}
            gone = [where for bound, where in replaced.items() if bound in used]
            if gone:
                add_removed(gone, findings)
        target = _target(thing, dict(settings or {}), roles, kind, name)
        _review(target, findings, activation, called_directly, replicas)
        raised = [f.evidence.got for f in findings.found if f.identifier == "SAE601" and f.evidence]
        if raised and others:
            raise CouldNotReviewError(raised[0])
    except Exception as error:
        known = "" if target is None else target.kind
        guesses = () if target is None else tuple(target.guesses)
        notes = tuple(dict.fromkeys(findings.notes))
        elsewhere = _review_elsewhere(location, thing, options)
        if elsewhere is not None:
            return elsewhere
        if isinstance(error, CouldNotReviewError):
            piece = _review_of_a_piece(thing, label)
            if piece is not None:
                name, by_piece = piece
                words = f"it was not reviewed as a whole ({error}); `{name}`, which it calls, is"
                return replace(by_piece, target=label, guesses=(words, *by_piece.guesses))
        for other in others:
            found_there = review(loaded(other), name=other, **options)
            if not found_there.reason:
                words = f"{label} could not be reviewed ({error}); a piece of it is"
                return replace(found_there, guesses=(words, *found_there.guesses))
        reason = str(error) if isinstance(error, CouldNotReviewError) else _unforeseen(error)
        missing = re.findall(r"No module named '([\w.]+)'", " ".join([*notes, reason]))
        if missing and ("NameError" in reason or "ModuleNotFoundError" in reason):
            package = missing[0].split(".")[0]
            reason = (
                f"it needs `{package}`, which is not installed: install it (pip install "
                f"{package}), or review a function of it that does without (file.py:function)"
            )
        if not _is_text(thing) and (words := source.lookalike(_owner(thing))):
            reason = f"{words}: {reason}"
        return Review(
            label,
            known,
            backend,
            guesses=guesses,
            notes=notes,
            reason=reason,
            crashed=is_our_own(error) and not isinstance(error, CouldNotReviewError),
        )
    if any(
        f.identifier in ("SAE601", "SAE602") and f.evidence and f.evidence.input != "source"
        for f in findings.found
    ):
        elsewhere = _review_elsewhere(location, thing, options)
        if elsewhere is not None:
            return elsewhere
    found = _with_a_piece(findings.found, thing, label, target.guesses)
    found = [_placed(f, thing, folder) for f in found if f.identifier not in ignore]
    found.sort(key=lambda f: (f.severity != "error",))
    return Review(
        label,
        target.kind,
        backend,
        tuple(found),
        tuple(target.guesses),
        tuple(dict.fromkeys(findings.notes)),
        tuple(findings.checks),
    )


def _placed(found: Finding, thing: Any, folder: str) -> Finding:
    """Say where a finding is; a path is from the working folder, if it is below that."""
    if isinstance(thing, Program):
        return found
    words = "" if found.evidence is None else f"{found.evidence.expected} {found.evidence.got}"
    method = thing.name if isinstance(thing, Method) else ""
    file, line = source.place_of(_owner(thing), found.identifier, words, method)
    if file and Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        file = os.path.relpath(os.path.realpath(file), os.path.realpath(folder))
    return replace(found, file=file, line=line)


def _review_elsewhere(
    location: str | None, thing: Any, options: Mapping[str, Any]
) -> Review | None:
    """Review what this backend cannot run in a process of the backend that it is bound to.

    `None`: it is bound to none that is installed, or is no place that another process can import.
    """
    from sae_oracle.review_command import TIME_LIMIT, review_on

    bound = sorted(source.bound_to(_owner(thing))) if location and not _is_text(thing) else []
    if len(bound) != 1 or not is_installed(bound[0]):
        return None
    try:
        json.dumps(options)
    except TypeError:
        return None
    review_there = review_on(bound[0], {"target": location, **options}, TIME_LIMIT)["review"]
    if review_there["reason"]:
        return None
    found = Review.of(review_there)
    words = f"reviewed on {bound[0]}, whose functions it calls"
    return replace(found, guesses=(words, *found.guesses))


def _review_of_a_piece(thing: Any, label: str) -> tuple[str, Review] | None:
    """Review the divergence or penalty that a function calls; its name, and what was found.

    `None`: there is none, or nothing is wrong with it: that says nothing of the whole.
    """
    if not inspect.isfunction(_owner(thing)):
        return None
    words = ("kl", "spars", "diverg", "penal")
    for piece in [*source.functions(thing)][1:]:
        name = getattr(piece, "__name__", "")
        if not inspect.isfunction(piece) or not any(word in name.lower() for word in words):
            continue
        with contextlib.suppress(Exception):
            found = review(piece, name=f"{label}: {name}")
            if found.findings:
                return name, found
    return None


def _with_a_piece(
    found: list[Finding], thing: Any, label: str, guesses: list[str]
) -> list[Finding]:
    """Put what is wrong with a piece in the place of a term that is not understood as a whole."""
    names = {finding.identifier for finding in found}
    piece = _review_of_a_piece(thing, label) if names & _NOT_UNDERSTOOD else None
    if piece is None or _NOT_UNDERSTOOD & {f.identifier for f in piece[1].findings}:
        return found
    of_piece = [f for f in piece[1].findings if f.identifier.startswith("SAE1")]
    if not of_piece:
        return found
    guesses.append(f"of the sparsity term `{piece[0]}` is reviewed")
    return [*of_piece, *(f for f in found if not f.identifier.startswith("SAE1"))]


_NOT_UNDERSTOOD = {"SAE119", "SAE199"}


def _is_text(thing: Any) -> bool:
    return isinstance(thing, (str, Loaded))


def _unforeseen(error: BaseException) -> str:
    """What a review says that an exception has ended: never a traceback, never a finding."""
    whose = "the reviewer" if is_our_own(error) else "the code, or what the reviewer gave it,"
    return (
        f"{whose} raised {described(error)}: review a smaller piece, such as the function that "
        "computes the KL (path/to/file.py:function), or say what it is (--kind, --rho, --beta)"
    )


def _name(thing: Any) -> str:
    if isinstance(thing, Program):
        return thing.name
    if isinstance(thing, Method):
        return f"{_name(thing.owner)}.{thing.name}"
    return str(getattr(source.subject_of(thing), "__name__", thing))


def _owner(thing: Any) -> Any:
    return thing.owner if isinstance(thing, Method) else thing


def _target(
    thing: Any,
    settings: dict[str, Any],
    roles: Mapping[str, Any],
    kind: str | None,
    name: str | None,
) -> Target:
    """Find out what is to be reviewed: an object that Keras calls, or other code.

    Raises:
        CouldNotReviewError: If it cannot be made, or is nothing that can be reviewed.
        ValueError: If `kind` is unknown.
    """
    if isinstance(thing, Program):
        return target_of(thing)
    name = name or _name(thing)
    guesses: list[str] = []
    if inspect.isfunction(thing) and not inspect.signature(thing).parameters:
        with source.ported(thing):
            made = product(thing)
        if not isinstance(made, keras.Model):
            thing = made
    if inspect.isfunction(thing) and source.function_returned(thing) is not None:
        by_place = roles_by_place(signature_of(thing) or Signature(), roles)
        roles = {**roles, **by_place}
        guesses = [f"{SYMBOLS[r]} is `{n}` (guessed from its place)" for r, n in by_place.items()]
    if kind in (None, "loss", *READINGS) and is_foreign(thing):
        code = code_of(thing, name, roles, settings, kind)
        if code is not None and not code.readings and callable(thing):
            if code.framework.name == "keras" and any(map(size_named, code.signature.required)):
                kind = "model"
            code = code_of_product(code)
        if code is not None and not (
            code.framework.name == "keras"
            and (not code.readings or code.readings[0].kind in ("activations", "loss"))
        ):
            words = f"{source.documentation(code.thing)} {code.words}"
            target = Target(name, "", code.thing, lambda **_: thing, words=words, code=code)
            target.guesses += guesses
            return target
        if code is not None and code.readings and code.readings[0].kind == "loss":
            kind = "loss"
    target = resolve(thing, settings=settings, kind=kind, name=name, **roles)
    target.guesses += guesses
    if target.kind in ("regularizer", "layer", "model"):
        add_constants(target)
    if target.kind == "regularizer" and "rho" not in target.values and not target.parameter:
        with source.ported(target.thing):
            found = rho_among_literals(target, keras_divides_activity_by_batch())
        if found is not None:
            target.values["rho"] = found
            target.guesses.append(f"ρ = {found:g} (a number of the source)")
    return target


def _review(
    target: Target,
    findings: Findings,
    activation: str | None,
    called_directly: bool,
    replicas: bool = False,
) -> None:
    if target.code is not None:
        review_code(target, findings, activation)
        return
    if target.kind == "loss":
        review_saving(target, findings, review_loss(target, findings))
        return
    if target.kind == "model":
        review_model(target, findings)
        review_saving(target, findings)
        return
    if target.kind == "regularizer" and "rho" not in target.values:
        review_weight_regularizer(target, findings)
        review_saving(
            target,
            findings,
            lambda instance: as_number(instance(tensor([[0.5, -2.0], [1.0, 0.25]]))),
        )
        return
    if target.kind == "layer" and "tied_to" in target.parameter:
        review_tied(target, findings)
        if "rho" not in target.values:
            return
    if target.kind == "layer" and "rho" not in target.values:
        nested = getattr(target.thing, "activity_regularizer", None)
        if nested is not None:
            of_layer = getattr(target.thing, "activation", None)
            inner = resolve(nested)
            inner.name = target.name
            target.guesses.append(f"its activity_regularizer {_name(nested)} is reviewed")
            _review(inner, findings, activation or getattr(of_layer, "__name__", None), False)
            target.guesses += inner.guesses
            return
        _take_from_a_regularizer(target)
        if "rho" in target.values:
            review_penalty(target, findings, activation=activation)
            review_saving(target, findings, lambda instance: _penalty_of(instance, target))
            return
        raise CouldNotReviewError(
            "nothing of the sparse autoencoder was found in the layer: no ρ (--rho NAME) and no "
            "layer that it is tied to"
        )
    if target.of_keras_1:
        proof = Evidence("source", "__call__(x)", "`set_layer` and `__call__(loss)`")
        words = "(The protocol of Keras 1, which has no caller today. Its formula is reviewed.)"
        findings.add(finding("SAE603", proof, words))
        review_penalty(target, findings, called_directly=True, activation=activation)
        return
    native = native_penalty(target, not called_directly and keras_divides_activity_by_batch())
    explanation = review_penalty(
        target, findings, called_directly=called_directly, activation=activation, native=native
    )
    if replicas and explanation is not None:
        rho, beta = target.values["rho"], target.values.get("beta", 1.0)
        review_replicas(Penalty(target, called_directly), explanation, rho, beta, findings)
    failing = {"SAE127", "SAE601", "SAE602"}
    if explanation is None and failing & {found.identifier for found in findings.found}:
        review_saving(target, findings)
        return
    with source.ported(target.thing):
        evaluate = None if native is not None else lambda made: _penalty_of(made, target)
        review_saving(target, findings, evaluate)


def _take_from_a_regularizer(target: Target) -> None:
    """A layer that adds the value of a regularizer has that one's ρ and β."""
    for name, value in target.arguments.items():
        if isinstance(value, keras.regularizers.Regularizer) and not source.is_kerass_own(value):
            inner = resolve(value)
            if "rho" in inner.values:
                target.values = inner.values
                target.words = f"{target.words} {inner.words}"
                target.guesses.append(f"ρ and β are those of its `{name}`, {inner.name}")
                return


def _penalty_of(instance: Any, target: Target) -> float:
    x = probes("activations")[0]
    made = fed_images(instance, target)
    if target.kind == "layer":
        units = getattr(instance, target.parameter.get("units", "units"), x.shape[1])
        x = np.resize(x, (len(x), units))
        return as_number(sum(losses_of(made, tensor(prepared_input(made, x)))[1]))
    return as_number(made(tensor(x)))


@restored()
def _battery(
    thing: Any, options: Mapping[str, Any], expected: Mapping[str, str] | None
) -> battery.Battery:
    """Find out what an object is, and with it which checks there are.

    Raises:
        TypeError, ValueError: If an option of `review`, or `expected_failed_checks`, is not as it
            is documented.
    """
    expected = battery.expectations(expected)
    parameters = inspect.signature(review).parameters
    unknown = options.keys() - parameters.keys()
    if unknown:
        raise TypeError(f"unexpected option {min(unknown)!r}; those of `review` are taken")
    defaults = {name: p.default for name, p in parameters.items() if name != "thing"}
    check_arguments(**{**defaults, **options})
    roles = {role: options.get(role) for role in ("rho", "beta", "weight_decay")}
    subject = ""
    with contextlib.suppress(Exception):  # the review will say so
        made = loaded(thing) if isinstance(thing, str) else thing
        made = made.thing if isinstance(made, Loaded) else made
        settings = dict(options.get("settings") or {})
        subject = battery.subject_of(
            _target(made, settings, roles, options.get("kind"), options.get("name"))
        )
    found = battery.Battery(thing, dict(options), subject, expected, review)
    idle = [name for name in expected if name not in (*found.promised, battery.COMPLETE)]
    if idle:
        raise ValueError(
            f"`expected_failed_checks`: {idle[0]} is not asked of a {subject or 'such object'}"
        )
    return found


def conformance_checks(
    thing: Any, *, expected_failed_checks: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Check]:
    """Return the checks of an object, one after the other: a check a finding that can be made.

    The object is reviewed once, when the first check is called. The last check, "complete", fails
    if it could not be reviewed, or if less was asked than is promised of its kind.

    Args:
        thing: As for `review`.
        expected_failed_checks: Why a check fails on purpose, by identifier. A listed check that
            passes fails.
        **options: Those of `review`, such as `rho`, `beta`, `ignore`.

    Returns:
        An iterator of `Check`: it has a `name`, a `title` and a `reason`, and a call returns its
        outcome or raises AssertionError.

    Raises:
        TypeError, ValueError: If an argument is not as above; the error names it.

    >>> from keras_impl import KLSparsityRegularizer
    >>> checks = [*conformance_checks(KLSparsityRegularizer(rho=0.05, beta=3.0))]
    >>> checks[0].name, checks[-1].name
    ('SAE101', 'complete')
    >>> {check().state for check in checks} <= {"passed", "not asked"}
    True
    """
    return _battery(thing, options, expected_failed_checks).checks()


def parametrize_with_checks(
    targets: Iterable[Any],
    *,
    backends: Sequence[str] | None = None,
    expected_failed_checks: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Return a mark that makes each check of each object a test of pytest, on each backend.

        @parametrize_with_checks([MyRegularizer, "my_package.losses:MyLoss"])
        def test_conforms(check):
            check()

    An id is the object's name, the identifier and, where there are several, the backend:
    `MyRegularizer-SAE105-torch`. What is not asked is skipped with its reason, what is expected to
    fail is an xfail. What Keras never calls runs on its own library, once.

    Args:
        targets: Objects as for `review`, or pairs of one and its own options, a dictionary, with
            `expected_failed_checks` among them.
        backends: Names. `None`: KERAS_BACKEND where it is set, else every one that is installed
            and trains. The one in use runs in this process, any other in one of its own, which
            needs a class or function that can be imported, or where one is; without backends
            said, anything else runs on the one in use.
        expected_failed_checks: As for `conformance_checks`; it holds for the targets that are asked
            it, one at least.
        **options: Those of `review`, for all targets.

    Raises:
        TypeError, ValueError: If an argument is not as above; the error names it.

    >>> from keras_impl import HalfSquaredError
    >>> mark = parametrize_with_checks([HalfSquaredError], backends=[keras.config.backend()])
    >>> mark.args[1][0].id
    'HalfSquaredError-SAE201'
    """
    import pytest

    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TypeError(f"`targets` must be a list of objects. Received: {cut(targets)}")
    if backends is not None and (isinstance(backends, str) or not isinstance(backends, Sequence)):
        raise TypeError(f"`backends` must be a list of names. Received: backends={cut(backends)}")
    expected = battery.expectations(expected_failed_checks)
    made = []
    for target in targets:
        thing, own = target if isinstance(target, tuple) and len(target) == 2 else (target, {})
        own = dict(own)
        own_expected = own.pop("expected_failed_checks", None)
        known = _battery(thing, {**options, **own}, own_expected)
        asked = (*known.promised, battery.COMPLETE)
        common = {name: reason for name, reason in expected.items() if name in asked}
        made.append(replace(known, expected={**common, **known.expected}))
    if not made:
        raise ValueError("`targets` must hold at least one object. Received: []")
    idle = expected.keys() - {name for known in made for name in known.expected}
    if idle:
        raise ValueError(f"`expected_failed_checks`: {min(idle)} is asked of none of the targets")
    labels: Counter[str] = Counter()
    parameters = []
    for known in made:
        label = known.options.get("name") or str(_name(known.thing)).rpartition(":")[2]
        labels[label] += 1
        label += f"-{labels[label]}" if labels[label] > 1 else ""
        chosen = battery.backends_of(known, backends)
        for backend in chosen:
            there = known if backend is None else battery.on_other(known, backend)
            ending = f"-{backend or keras.config.backend()}" if len(chosen) > 1 else ""
            parameters += [
                pytest.param(replace(check, skips=True), id=f"{label}-{check.name}{ending}")
                for check in there.checks()
            ]
    return pytest.mark.parametrize("check", parameters)


def assert_conforms(
    thing: Any, *, expected_failed_checks: Mapping[str, str] | None = None, **options: Any
) -> None:
    """Raise AssertionError, with the whole review, unless the object conforms.

    Args:
        thing: As for `review`.
        expected_failed_checks: Why a check fails on purpose, by identifier. A listed check that
            passes is a failure.
        **options: Those of `review`, such as `rho`, `beta`, `ignore`.

    Raises:
        AssertionError: If there are findings, if it could not be reviewed, or if less was asked
            than is promised of its kind.

    >>> from keras_impl import KLSparsityRegularizer
    >>> assert_conforms(KLSparsityRegularizer(rho=0.05, beta=3.0))
    """
    __tracebackhide__ = True
    held = _battery(thing, options, expected_failed_checks)
    outcomes = {check.name: held.outcome(check.name) for check in held.checks()}
    failed = [name for name, outcome in outcomes.items() if outcome.state == "failed"]
    if failed:
        more = [outcomes[name].reason for name in failed if name not in held.found]
        reviews = [] if held.review.conforms or held.review.reason else [str(held.review)]
        raise AssertionError("\n".join([*reviews, *more]))
