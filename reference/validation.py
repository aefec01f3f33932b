"""Checks of arguments: every error names the argument, its value and the allowed range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

T = TypeVar("T")


def real_array(
    name: str, value: Any, *, ndim: int | None = None, finite: bool = False, nan: bool = False
) -> Array:
    """Return `value` as a float64 array, exactly, or say what is wrong with it.

    Args:
        name: The argument's name, for the message.
        value: Anything that NumPy turns into an array of real numbers. Every float16, float32,
            float64 and every integer up to 2⁵³ is kept exactly.
        ndim: The number of dimensions that it must have. `None`: any.
        finite: Whether infinities are refused.
        nan: Whether NaN is let through: what an implementation under test returns.

    Returns:
        A float64 array.

    Raises:
        TypeError: If `value` is not made of real numbers.
        ValueError: If it has another number of dimensions, or a value that is refused.
    """
    array = _as_array(name, value)
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
    if not (finite or nan) and np.any(np.isnan(array)):
        raise ValueError(f"`{name}` must hold numbers. Received nan.")
    return array


def truth_array(name: str, value: Any) -> NDArray[np.bool_]:
    """Return `value` as an array of truth values; a number is true if it is not 0.

    Raises:
        TypeError: If `value` is made of neither.
        ValueError: If a number is NaN.
    """
    array = _as_array(name, value)
    return array if array.dtype.kind == "b" else real_array(name, array) != 0.0


def real_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
    entry: str = "",
) -> float:
    """Return `value` as a finite float inside an interval, or say what is wrong with it.

    An array without axes counts as the number that it holds, whatever library made it. `entry` is
    which of a sequence it is, as "[2]", for the message.

    Raises:
        TypeError: If `value` is not one real number.
        ValueError: If it lies outside the interval, or is not a number.
    """
    low_open, high_open = low_open or low == -math.inf, high_open or high == math.inf
    interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
    received = f"{name}{entry}={value!r}" if entry else repr(value)
    if _kind_of_scalar(name, value) not in ("f", "i", "u"):
        raise TypeError(f"`{name}` must be a number in {interval}. Received {received}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    above = number > low if low_open else number >= low
    below = number < high if high_open else number <= high
    if not (above and below):
        raise ValueError(f"`{name}` must lie in {interval}. Received {received}.")
    return number


def integer(name: str, value: Any, *, low: int) -> int:
    """Return `value` as an integer that is at least `low`, or say what is wrong with it.

    Raises:
        TypeError: If `value` is not one integer.
        ValueError: If it is below `low`.
    """
    if _kind_of_scalar(name, value) not in ("i", "u"):
        raise TypeError(f"`{name}` must be an integer ≥ {low}. Received {value!r}.")
    if int(value) < low:
        raise ValueError(f"`{name}` must be an integer ≥ {low}. Received {value!r}.")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return `value` as True or False.

    Raises:
        TypeError: If `value` is neither.
    """
    if _kind_of_scalar(name, value) != "b":
        raise TypeError(f"`{name}` must be True or False. Received {value!r}.")
    return bool(value)


def instance(name: str, value: Any, kind: type[T]) -> T:
    """Return `value`, which must be of a class of the oracle's.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(
            f"`{name}` must be a `reference.{kind.__name__}`. Received {type(value).__name__}."
        )
    return value


def each(name: str, value: Any, what: str) -> Iterator[Any]:
    """Return an iterator over what a sequence, or anything that can be iterated over, holds.

    Raises:
        TypeError: If it cannot.
    """
    try:
        return iter(value)
    except Exception as error:  # whatever an object of anybody's raises
        raise TypeError(
            f"`{name}` must be a sequence of {what}. Received {type(value).__name__}."
        ) from error


def _as_array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever an object of anybody's raises
        raise TypeError(f"`{name}` must be an array that NumPy can read: {error}") from error


def _kind_of_scalar(name: str, value: Any) -> str:
    """NumPy's letter for the type of one value, such as "f"; "" if it is not one value."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "i"  # of any size
    array = _as_array(name, value)
    return array.dtype.kind if array.ndim == 0 else ""


def sparsity_target(
    rho: Any, shape: tuple[int, ...], *, ends: bool = False, entry: str = ""
) -> Any:
    """Return ρ: a float inside (0, 1), or a float64 array of one for each unit.

    Args:
        rho: The number, or (units,).
        shape: (..., units), that of what ρ is the target of.
        ends: Whether 0 and 1 are allowed too.
        entry: Of which layer it is, as "[2]", for the message.

    Raises:
        TypeError: If `rho` is not real.
        ValueError: If a number leaves the range, or there is not one for each unit.
    """
    interval: dict[str, Any] = {
        "low": 0.0,
        "high": 1.0,
        "low_open": not ends,
        "high_open": not ends,
    }
    if not shape or _as_array("rho", rho).ndim == 0:
        return real_number("rho", rho, entry=entry, **interval)
    targets = real_array("rho", rho)
    if targets.ndim != 1 or targets.shape != shape[-1:]:
        raise ValueError(
            f"`rho` must be a number, or one for each of the {shape[-1]} units. "
            f"Received an array of shape {targets.shape}{' as rho' + entry if entry else ''}."
        )
    for unit, target in enumerate(targets.tolist()):
        real_number("rho", target, entry=f"{entry}[{unit}]", **interval)
    return targets


def sparsity_of_layers(
    rho: Any, beta: Any, epsilon: Any, units: Sequence[int]
) -> tuple[list[Any], list[float], float]:
    """Return ρ and β of each hidden layer, and ε.

    Args:
        rho: ρ of all; or a sequence by layer, of numbers or of arrays by unit.
        beta: β of all; or a sequence by layer.
        epsilon: Where EQ-KL-EXTENSION begins, in all of them.
        units: Of each hidden layer. Without one there are a ρ and a β that nothing has.

    Raises:
        TypeError, ValueError: If a value leaves its range, or a sequence has another length.
    """
    targets = [
        sparsity_target(of_layer, (units[layer],) if units else (), entry=entry)
        for layer, (entry, of_layer) in enumerate(_by_layer("rho", rho, len(units)))
    ]
    betas = [
        real_number("beta", of_layer, low=0.0, entry=entry)
        for entry, of_layer in _by_layer("beta", beta, len(units))
    ]
    edges = [extension_edge(epsilon, target) for target in targets]
    return targets, betas, edges[0]


def _by_layer(name: str, value: Any, layers: int) -> list[tuple[str, Any]]:
    """Which entry each layer has: of a sequence its own, else the value itself."""
    is_text = isinstance(value, (str, bytes, bytearray, memoryview))
    is_sequence = isinstance(value, Sequence) and not is_text
    if not is_sequence and not getattr(value, "shape", ()):
        return [("", value)] * max(layers, 1)
    if not layers or len(value) != layers:
        advice = ""
        if layers == 1:
            advice = " What is by unit stands inside of it, as in rho=[[0.1, 0.2]]."
        raise ValueError(
            f"`{name}` must be a number, or a sequence with an entry for each hidden layer, "
            f"here {layers}.{advice if name == 'rho' else ''} Received {len(value)} entries."
        )
    return [(f"[{layer}]", value[layer]) for layer in range(layers)]


def non_negative(name: str, value: Any) -> float:
    """Return a finite number that is not negative, such as β or λ."""
    return real_number(name, value, low=0.0)


def extension_edge(epsilon: Any, rho: Any) -> float:
    """Return ε, where the extension of the KL begins: 0 ≤ ε ≤ min(ρ, 1 − ρ) and ε < ½."""
    epsilon = real_number("epsilon", epsilon, low=0.0, high=0.5, high_open=True)
    highest = float(np.min(np.minimum(rho, 1.0 - rho)))
    if epsilon > highest:
        raise ValueError(
            f"`epsilon` must lie in [0, min(rho, 1 - rho)], here [0, {highest}], so "
            f"that the target lies where the divergence is exact. Received {epsilon!r}."
        )
    return epsilon
