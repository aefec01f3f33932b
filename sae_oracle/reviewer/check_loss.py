"""Review of a reconstruction loss against (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖²."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_impl.backends.autodiff import has_gradients
from reference.rounding import precision_named
from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_penalty import Findings, add_removed, check_backends, evidence
from sae_oracle.reviewer.evaluation import (
    as_array,
    gradient_of,
    quietly,
    tensor,
)
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import Target, described

Pair = tuple[Any, Any]  # targets and outputs, (samples, features)

_U = precision_named("float32").unit_roundoff


def pairs() -> list[Pair]:
    """Return targets and outputs of several shapes, inside (0, 1)."""
    generator = np.random.default_rng(5)
    made = []
    for shape in ((4, 3), (7, 5), (3, 8), (6, 2), (5, 1)):
        y, h = generator.uniform(0.1, 0.9, size=(2, *shape)).astype("float32").astype("float64")
        made.append((y, h))
    return made


Form = Callable[[Any, Any], float]


def right_value(y: Any, h: Any) -> float:
    """Return (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖²."""
    return float(np.sum((h - y) ** 2) / (2.0 * len(y)))


def _cross_entropy(y: Any, h: Any) -> Any:
    with np.errstate(all="ignore"):
        return -y * np.log(h) - (1.0 - y) * np.log(1.0 - h)


def _forms() -> Iterator[tuple[tuple[str, ...], Form, float]]:
    distances: dict[tuple[str, ...], Callable[[Any, Any], Any]] = {
        (): lambda y, h: (h - y) ** 2,
        ("SAE204",): lambda y, h: np.abs(h - y),
    }
    factors = {(): 0.5, ("SAE201",): 1.0, ("SAE206",): 0.25}
    of_features = {(): np.sum, ("SAE202",): np.mean}
    of_samples = {(): np.mean, ("SAE203",): np.sum}

    def form(k: float, distance: Any, features: Any, samples: Any) -> Form:
        return lambda y, h: float(k * samples(features(distance(y, h), axis=1)))

    for axes in itertools.product(
        distances.items(), factors.items(), of_features.items(), of_samples.items()
    ):
        (d, distance), (k, factor), (f, features), (s, samples) = axes
        yield d + k + f + s, form(factor, distance, features, samples), 0.0
    norms: tuple[Form, ...] = (
        lambda y, h: float(np.mean(np.sqrt(np.sum((h - y) ** 2, axis=1)))),
        lambda y, h: float(0.5 * np.mean(np.sqrt(np.sum((h - y) ** 2, axis=1)))),
        lambda y, h: float(np.sqrt(np.mean((h - y) ** 2))),
        lambda y, h: float(np.sqrt(np.sum((h - y) ** 2))),
    )
    for norm in norms:
        yield ("SAE204",), norm, 0.0
    for features, samples in itertools.product(of_features.values(), of_samples.values()):
        yield ("SAE205",), form(1.0, _cross_entropy, features, samples), 1e-5


FORMS = sorted(_forms(), key=lambda entry: len(entry[0]))
"""The losses that people write, the fewest mistakes first: those, the loss of targets and outputs,
and how far its rounding may reach beside that of a squared error, relative."""


def explain(
    observed: Sequence[tuple[Pair, float]], uncertainty: float = 0.0
) -> list[tuple[str, ...]]:
    """Return the sets of mistakes that explain the values, the fewest mistakes first.

    A squared error carries u(n + 8) relative for n summands (EQ-BOUND-SQUARES), and the
    difference of two float32 numbers is exact to u of the larger.

    Args:
        observed: Targets and outputs, and the value.
        uncertainty: How far each value may be off beside that.
    """
    found = [
        mistakes
        for mistakes, form, relative in FORMS
        if _agree(observed, [form(y, h) for (y, h), _ in observed], relative, uncertainty)
    ]
    if not found and not uncertainty:
        ratios = [got / right_value(y, h) for (y, h), got in observed if right_value(y, h) > 0.0]
        if ratios and np.ptp(ratios) <= 256.0 * _U * abs(ratios[0]) and ratios[0] != 0.0:
            found.append(("SAE206",))
    return [*dict.fromkeys(found)]


def _agree(
    observed: Sequence[tuple[Pair, float]],
    values: Sequence[float],
    relative: float,
    uncertainty: float,
) -> bool:
    return all(
        abs(got - value) <= ((y.size + 8.0) * 8.0 * _U + relative) * abs(value) + uncertainty
        for ((y, _), got), value in zip(observed, values, strict=True)
    )


def review_loss(target: Target, findings: Findings) -> Callable[[Any], float] | None:
    """Review a loss of (y_true, y_pred); return how to get a number of an instance of it."""
    observed: list[tuple[Pair, float]] = []

    # In float32: Keras casts to the loss's own dtype, its float type, under every policy.
    def value(loss: Any, y: Any, h: Any) -> float:
        result = loss(tensor(y), tensor(h))
        # What a function returns for each sample Keras averages.
        return float(np.mean(as_array(result)))

    with source.ported(target.thing) as removed:
        if removed:
            add_removed(removed, findings)
        try:
            loss = target.make()
            observed = [((y, h), value(loss, y, h)) for y, h in pairs()]
        except Exception as error:
            findings.add(
                finding("SAE601", Evidence("(4, 3) targets", "a number", described(error)))
            )
            return None
        review_values(target, findings, observed, lambda y, h: _gradient(loss, y, h))
    check_backends(target, findings)
    if not inspect.isclass(source.subject_of(target.thing)):
        return None
    return lambda instance: value(instance, *pairs()[0])


def review_values(
    target: Target,
    findings: Findings,
    observed: Sequence[tuple[Pair, float]],
    gradient: Callable[[Any, Any], Any],
) -> None:
    """Name what explains the values of a loss, and hold its gradient by the output to them.

    Args:
        target: What is reviewed.
        findings: Where they go.
        observed: Targets and outputs, and the value.
        gradient: Returns the derivative by the outputs; `None` where there is none.
    """
    findings.checks.append(f"value on {len(observed)} batches")
    explanations = explain(observed)
    (y, h), got = observed[0]
    proof = evidence(f"{y.shape[0]} × {y.shape[1]} targets and outputs", right_value(y, h), got)
    if not explanations:
        findings.add(finding("SAE209", proof))
        return
    others = [e for e in explanations[1:] if len(e) == len(explanations[0])]
    findings.name(target, explanations[0], proof, "", tuple(" and ".join(o) for o in others))
    with quietly():
        _check_gradient(gradient, y, h, got / right_value(y, h), explanations[0], findings)


def _gradient(loss: Any, y: Any, h: Any) -> Any:
    if not has_gradients():
        return None
    return gradient_of(lambda t: keras.ops.mean(loss(tensor(y), t)), h)


def _check_gradient(
    gradient: Callable[[Any, Any], Any],
    y: Any,
    h: Any,
    ratio: float,
    mistakes: tuple[str, ...],
    findings: Findings,
) -> None:
    if {"SAE204", "SAE205"} & set(mistakes):
        return
    try:
        actual = gradient(y, h)
    except Exception as error:
        findings.add(finding("SAE302", Evidence("by the output", "a gradient", described(error))))
        return
    if actual is None:
        return
    findings.checks.append("gradient")
    expected = ratio * (h - y) / len(y)
    if np.all(np.abs(actual - expected) <= 64.0 * _U * np.max(np.abs(expected))):
        return
    proof = evidence("by the first output", float(expected[0, 0]), float(actual[0, 0]))
    findings.add(finding("SAE301" if not np.any(actual) else "SAE304", proof))
