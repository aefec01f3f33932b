"""The box that L-BFGS-B keeps the weights in: what constraints and `bounds` allow of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_impl.exact.sums import Array
from keras_impl.validation import cut

GROUPS = {"kernels": "kernel", "biases": "bias"}
"""Names for all weights of a kind, by how the name of such a weight begins."""


@dataclass(frozen=True, eq=False)
class Box:
    """The least and the greatest value of each weight, of all in one vector.

    Args:
        low: −∞ where there is none.
        high: ∞ where there is none.
    """

    low: Array
    high: Array

    @property
    def is_everything(self) -> bool:
        """Whether nothing is bounded.

        >>> Box(np.full(2, -np.inf), np.full(2, np.inf)).is_everything
        True
        """
        return not np.any(np.isfinite(self.low) | np.isfinite(self.high))

    def projected_gradient(self, theta: Array, gradient: Array) -> float:
        """Return max |P(θ − g) − θ|, P the nearest point of the box: what L-BFGS-B calls small.

        Source: Byrd, Lu, Nocedal and Zhu (1995), §6.

        Args:
            theta: A point of the box.
            gradient: g there.

        >>> box = Box(np.zeros(3), np.full(3, np.inf))
        >>> box.projected_gradient(np.array([0.0, 0.5, 0.5]), np.array([2.0, 0.25, 2.0]))
        0.5
        """
        return float(np.max(np.abs(np.clip(theta - gradient, self.low, self.high) - theta)))


def box_of(variables: Sequence[Any], bounds: Any) -> Box:
    """Return the box of the constraints of weights and of `bounds`.

    Args:
        variables: The weights.
        bounds: As for `fit_lbfgs`.

    Raises:
        TypeError, ValueError: If a constraint is of several weights together, or `bounds` is not
            as there.
    """
    low = [np.full(tuple(variable.shape), _least_allowed(variable)) for variable in variables]
    high = [np.full(tuple(variable.shape), math.inf) for variable in variables]
    for name, pair in _pairs(bounds):
        chosen = [i for i, v in enumerate(variables) if name is None or _is_called(v, name)]
        if not chosen:
            known = ", ".join(repr(variable.path) for variable in variables)
            raise ValueError(
                "`bounds` must name trainable weights, by path or name, or 'kernels' or 'biases'. "
                f"Received {cut(name)}; there are {known}."
            )
        for i in chosen:
            least, most = (_side(pair[side], side, variables[i]) for side in (0, 1))
            low[i], high[i] = np.maximum(low[i], least), np.minimum(high[i], most)
    for i, variable in enumerate(variables):
        low[i], high[i] = _in_dtype(low[i], high[i], variable)
    return Box(
        np.concatenate([part.ravel() for part in low]),
        np.concatenate([part.ravel() for part in high]),
    )


def _least_allowed(variable: Any) -> float:
    """The least value that the constraint of a weight allows; −∞ without one."""
    constraint = variable.constraint
    if constraint is None or type(constraint) is keras.constraints.Constraint:
        return -math.inf
    if type(constraint) is keras.constraints.NonNeg:  # a subclass may compute anything
        return 0.0
    raise ValueError(
        "L-BFGS-B keeps each weight inside its own bounds, and knows no constraint of several "
        "weights together: use `NonNeg` or `bounds`, or train with `fit`. Received: "
        f"{variable.path} with the constraint {constraint!r}"
    )


def _pairs(bounds: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each name (`None`: all weights) with its two sides."""
    if bounds is None:
        return
    for name, pair in bounds.items() if isinstance(bounds, Mapping) else [(None, bounds)]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                "`bounds` must be a pair (low, high), or pairs by the names of weights. "
                f"Received: bounds={cut(bounds)}"
            )
        yield name, pair


def _is_called(variable: Any, name: Any) -> bool:
    return name in (variable.path, variable.name) or (
        isinstance(name, str) and GROUPS.get(name) == variable.name.partition("_")[0]
    )


def _side(value: Any, side: int, variable: Any) -> Array:
    """Return the least or the greatest value of a weight, one for each of its numbers."""
    if value is None:
        return np.full(tuple(variable.shape), (-math.inf, math.inf)[side])
    wrong = f"Received: {cut(value)} for {variable.path} of shape {tuple(variable.shape)}"
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "fiu":
            raise TypeError
        found = np.broadcast_to(given.astype(np.float64), tuple(variable.shape))
    except ValueError as error:
        raise ValueError(
            f"`bounds` must be numbers, or arrays that broadcast to the weight. {wrong}"
        ) from error
    except Exception as error:  # whatever an object of anybody's raises
        raise TypeError(
            f"`bounds` must be real numbers, arrays of them, or None. {wrong}"
        ) from error
    if np.any(np.isnan(found)) or np.any(found == (math.inf, -math.inf)[side]):
        raise ValueError(f"`bounds` must leave some number between them. {wrong}")
    return found


def _in_dtype(low: Array, high: Array, variable: Any) -> tuple[Array, Array]:
    """Return the numbers of the weight's dtype nearest to the sides, and not beyond them.

    Between them every number rounds to one between them, so that no rounded weight leaves the box.
    """
    name = keras.backend.standardize_dtype(variable.dtype)
    if name == "bfloat16":
        import ml_dtypes  # noqa: F401 (NumPy knows the name then)
    dtype = np.dtype(name)
    with np.errstate(over="ignore"):
        least, most = low.astype(dtype), high.astype(dtype)
        infinity = dtype.type(math.inf)
        is_open = low != high
        least = np.where(
            is_open & (least.astype(np.float64) < low), np.nextafter(least, infinity), least
        )
        most = np.where(
            is_open & (most.astype(np.float64) > high), np.nextafter(most, -infinity), most
        )
    least, most = least.astype(np.float64), most.astype(np.float64)
    if np.any(low > high) or np.any(least > most):
        at = np.unravel_index(np.argmax(least - most), low.shape)
        raise ValueError(
            f"`bounds` must leave some number of {name} between them. Received: low={low[at]:g} "
            f"and high={high[at]:g} for {variable.path}, with its constraint "
            f"{variable.constraint!r}"
        )
    return least, most
