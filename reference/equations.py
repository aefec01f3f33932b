"""The labels: which function holds which equation, and where the equation comes from."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import NamedTuple

from reference import (
    activations,
    bounds,
    cost,
    divergence,
    estimators,
    gradient,
    likely,
    network,
    regularizers,
    rounding,
)

MODULES: tuple[ModuleType, ...] = (
    activations,
    divergence,
    estimators,
    network,
    cost,
    gradient,
    regularizers,
    rounding,
    likely,
    bounds,
)

_DEFINITION = re.compile(r"(EQ-[A-Z0-9-]+): (.+?)(?:\n\n|\Z)", re.DOTALL)
_SOURCE = re.compile(r"^Source: (.+?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)


class Equation(NamedTuple):
    """A labelled equation.

    Args:
        label: Such as "EQ-KL".
        formula: Its first paragraph, on one line.
        source: Where it comes from.
        function: The function that computes it, as "module.name".
    """

    label: str
    formula: str
    source: str
    function: str


def equations() -> dict[str, Equation]:
    """Return every equation of the reference by its label, in reading order.

    An equation is defined by a docstring that begins with its label and a colon, and says its
    source.

    Raises:
        ValueError: If a label is defined twice, or an equation has no source.

    >>> equations()["EQ-KL"].function
    'reference.divergence.kl_divergence'
    """
    found: dict[str, Equation] = {}
    for module in MODULES:
        members = [
            member
            for member in vars(module).values()
            if (inspect.isfunction(member) or inspect.isclass(member))
            and member.__module__ == module.__name__
        ]
        methods = [
            method
            for member in members
            if inspect.isclass(member)
            for method in vars(member).values()
            if inspect.isfunction(method)
        ]
        for function in (*members, *methods):
            documentation = inspect.getdoc(function) or ""
            definition = _DEFINITION.match(documentation)
            if definition is None:
                continue
            label, formula = definition.groups()
            source = _SOURCE.search(documentation)
            if label in found:
                raise ValueError(f"{label} is defined twice, again by {function.__qualname__}.")
            if source is None:
                raise ValueError(f"{label} ({function.__qualname__}) has no source.")
            found[label] = Equation(
                label,
                " ".join(formula.split()),
                " ".join(source[1].split()),
                f"{module.__name__}.{function.__qualname__}",
            )
    return found
