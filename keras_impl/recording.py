"""Hands what the sparsity penalties would average over a batch to whoever averages over the set.

ρ̂ of a whole training set is no function of one batch. Inside `penalised_outputs` every
`KLSparsity` and `KLSparsityRegularizer` therefore adds nothing to the loss and leaves its input
here instead; `keras_impl.exact.lbfgs` computes the term.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class PenalisedOutput:
    """What one penalty was given in one call of a model.

    Args:
        penalty: The `KLSparsity` or `KLSparsityRegularizer`.
        tensor: Activations or logits, (samples, ..., units), whatever the `axis` of the penalty.
        mask: Valid positions, as `means.valid_positions` takes them; or `None`.
    """

    penalty: Any
    tensor: Any
    mask: Any


_outputs: ContextVar[list[PenalisedOutput] | None] = ContextVar("penalised_outputs", default=None)


@contextmanager
def penalised_outputs() -> Iterator[list[PenalisedOutput]]:
    """Collect what the penalties are given, in the order of the calls; they add nothing."""
    found: list[PenalisedOutput] = []
    token = _outputs.set(found)
    try:
        yield found
    finally:
        _outputs.reset(token)


def is_captured(penalty: Any, tensor: Any, mask: Any = None) -> bool:
    """Leave the input of a penalty to `penalised_outputs`; false if nobody collects."""
    found = _outputs.get()
    if found is None:
        return False
    found.append(PenalisedOutput(penalty, tensor, mask))
    return True
