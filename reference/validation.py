"""Checks of arguments: every error names the argument, its value and the allowed range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def real_array(name: str, value: Any, *, ndim: int | None = None, finite: bool = False) -> Array:
    """Return `value` as a float64 array, exactly, or say what is wrong with it.

    Args:
        name: The argument's name, for the message.
        value: Anything that NumPy turns into an array of real numbers. Every float16, float32,
            float64 and every integer up to 2⁵³ is kept exactly.
        ndim: The number of dimensions that it must have. `None`: any.
        finite: Whether infinities and NaN are refused.

    Returns:
        A float64 array.

    Raises:
        TypeError: If `value` is not made of real numbers.
        ValueError: If it has another number of dimensions, or a value that is not finite.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(
            f"`{name}` must be an array of real numbers. Received dtype {array.dtype} "
            f"({type(value).__name__})."
        )
    array = array.astype(np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"`{name}` must have {ndim} dimension(s). Received an array of shape {array.shape}."
        )
    if finite and not np.all(np.isfinite(array)):
        raise ValueError(f"`{name}` must be finite. Received {array[~np.isfinite(array)][0]}.")
    return array


def real_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as a float inside an interval, or say what is wrong with it.

    Raises:
        TypeError: If `value` is not one real number.
        ValueError: If it lies outside the interval, or is not a number.
    """
    interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"`{name}` must be a number in {interval}. Received {value!r}.")
    number = float(value)
    above = number > low if low_open else number >= low
    below = number < high if high_open else number <= high
    if not (above and below):
        raise ValueError(f"`{name}` must lie in {interval}. Received {value!r}.")
    return number


def target_activation(rho: Any) -> float:
    """Return the sparsity parameter ρ, a number inside (0, 1)."""
    return real_number("rho", rho, low=0.0, high=1.0, low_open=True, high_open=True)


def non_negative(name: str, value: Any) -> float:
    """Return a finite number that is not negative, such as β or λ."""
    return real_number(name, value, low=0.0, high=math.inf, high_open=True)


def edge(epsilon: Any, rho: float) -> float:
    """Return ε, where the extension of the KL begins: 0 ≤ ε ≤ min(ρ, 1 − ρ) and ε < ½."""
    epsilon = real_number("epsilon", epsilon, low=0.0, high=0.5, high_open=True)
    if epsilon > min(rho, 1.0 - rho):
        raise ValueError(
            f"`epsilon` must lie in [0, min(rho, 1 - rho)], here [0, {min(rho, 1.0 - rho)}], so "
            f"that the target lies where the divergence is exact. Received {epsilon!r}."
        )
    return epsilon
