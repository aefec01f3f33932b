"""Checks of hyperparameters at construction: the name, the value and the allowed range."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """Return the Python number or bool that `value` holds, if it holds one; else `value` itself.

    NumPy's scalars, arrays without axes, and tensors and variables without axes of any backend
    hold one. What is only traced has no value yet, and stays what it is.

    >>> import numpy as np
    >>> plain(np.float32(0.5)), plain(np.array(True)), plain([0.5])
    (0.5, True, [0.5])
    """
    if isinstance(value, (bool, int, float)) or getattr(value, "shape", None) != ():
        return value
    try:
        if not hasattr(value, "item"):  # TensorFlow's tensors and Keras's variables
            value = value.numpy()
        return value.item()
    except Exception:  # what a backend raises for a tensor without a value is its own
        return value


def cut(value: Any) -> str:
    """Return how a value is written, if that is short; else its beginning.

    >>> cut(0.5), len(cut("x" * 1000))
    ('0.5', 201)
    """
    try:
        text = repr(value)
    except Exception:  # whatever an object of anybody's raises; an integer of 5,000 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else text[:200] + "…"


def keras_object(name: str, value: Any, get: Callable[[Any], Any]) -> Any:
    """Return the object that Keras makes of its name, its configuration, or itself.

    Args:
        name: The argument's name, for the message.
        value: What Keras calls an identifier.
        get: Keras's `get`, such as `keras.regularizers.get`.

    Raises:
        ValueError: If Keras knows none.

    >>> keras_object("bias_constraint", "x", __import__("keras").constraints.get)
    Traceback (most recent call last):
    ValueError: `bias_constraint` must be what keras.constraints.get takes. Received:
    bias_constraint='x' (Could not interpret constraint identifier: x)
    """
    module = get.__module__.removeprefix("keras.src.")
    wrong = f"`{name}` must be what keras.{module}.get takes. Received: {name}={cut(value)}"
    try:
        found = get(value)
    except Exception as error:  # of whatever kind Keras meets first
        reason = str(error).split("\n")[0][:200]
        raise ValueError(f"{wrong} ({reason})") from error
    if found is not None and not callable(found):
        raise ValueError(wrong)
    return found


def tensor(name: str, value: Any) -> Any:
    """Return a tensor or an array as it is, and of a list, or a number, the tensor.

    Raises:
        TypeError: If the backend makes none of it.

    >>> tensor("x", [[0.5, 0.25]]).shape == (1, 2)
    True
    """
    if hasattr(value, "shape"):
        return value
    import keras

    try:
        made = keras.ops.convert_to_tensor(value)
        if keras.backend.standardize_dtype(made.dtype) == "string":  # TensorFlow has some
            raise TypeError("text")
        return made
    except Exception as error:  # each backend raises its own
        raise TypeError(
            f"`{name}` must be a tensor or an array of numbers. Received: {name}={cut(value)}"
        ) from error


def real_number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float,
    low_open: bool = False,
    high_open: bool = False,
    entry: str = "",
) -> float:
    """Return `value` as a Python float inside an interval.

    A Python float keeps the dtype of the tensors that it meets; a NumPy float64 would promote
    them on JAX. `entry` is which of a sequence it is, as "[2]", for the message.

    Raises:
        TypeError: If `value` is not one real number.
        ValueError: If it lies outside the interval.

    >>> real_number("rho", 0.5, low=0.0, high=1.0, low_open=True, high_open=True)
    0.5
    """
    number = plain(value)
    interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number in {interval}. Received: {name}{entry}={cut(value)}"
        )
    try:
        number = float(number)
    except OverflowError:
        number = math.inf if number > 0 else -math.inf
    above = number > low if low_open else number >= low
    below = number < high if high_open else number <= high
    if not (above and below):
        raise ValueError(f"`{name}` must lie in {interval}. Received: {name}{entry}={cut(value)}")
    return number


def sparsity_target(rho: Any, entry: str = "") -> float:
    """Return ρ, inside (0, 1)."""
    return real_number("rho", rho, low=0.0, high=1.0, low_open=True, high_open=True, entry=entry)


def sparsity_targets(rho: Any, entry: str = "") -> float | tuple[float, ...]:
    """Return ρ, inside (0, 1): a number, or one for each unit.

    Raises:
        TypeError: If `rho` is neither a real number nor a sequence of them.
        ValueError: If a number leaves (0, 1), or there is none.

    >>> sparsity_targets(0.5), sparsity_targets([0.25, 0.5])
    (0.5, (0.25, 0.5))
    """
    targets = entries(rho)
    if targets is None:
        return sparsity_target(rho, entry)
    if not targets:
        raise ValueError(
            "`rho` must be a number in (0.0, 1.0), or one for each unit. "
            f"Received: rho{entry}={cut(rho)}"
        )
    return tuple(sparsity_target(of_unit, f"{entry}[{j}]") for j, of_unit in enumerate(targets))


def entries(value: Any) -> list[Any] | None:
    """Return what a sequence, or an array or a tensor with axes, holds; `None` if it is none.

    >>> entries((1, [2])), entries(0.5), entries("ab")
    ([1, [2]], None, None)
    """
    is_text = isinstance(value, (str, bytes, bytearray, memoryview))
    if isinstance(value, Sequence) and not is_text:
        return list(value)
    if not getattr(value, "shape", ()):
        return None
    from keras_impl.backends.arrays import to_numpy

    try:
        return list(to_numpy(value))
    except Exception:  # a tensor without a value yet; each backend raises its own
        return None


def non_negative(name: str, value: Any, entry: str = "") -> float:
    """Return a finite number that is not negative."""
    return real_number(name, value, low=0.0, high=math.inf, high_open=True, entry=entry)


def weight_of_term(beta: Any, entry: str = "") -> float:
    """Return β ≥ 0, one number for all units of a layer.

    Raises:
        TypeError: If `beta` is no real number; of a sequence it says what is by unit.
        ValueError: If it is negative or not finite.

    >>> weight_of_term(3)
    3.0
    """
    if entries(beta) is not None:
        raise TypeError(
            "`beta` must be one number for all units of a layer: let `rho` be by unit, or put a "
            f"KLSparsity behind each group of units. Received: beta{entry}={cut(beta)}"
        )
    return non_negative("beta", beta, entry)


def integer(name: str, value: Any, *, low: int | None = None) -> int:
    """Return an integer of 64 bits that is at least `low`; `None`: any.

    Raises:
        TypeError: If `value` is not one integer.
        ValueError: If it is below `low`, or takes more bits.

    >>> integer("units", 25.0, low=1)
    Traceback (most recent call last):
    TypeError: `units` must be a positive integer. Received: units=25.0
    """
    number = plain(value)
    kinds = {None: "an integer", 1: "a positive integer"}
    kind = kinds.get(low, f"an integer ≥ {low}")
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise TypeError(f"`{name}` must be {kind}. Received: {name}={cut(value)}")
    number = int(number)
    if low is not None and number < low:
        raise ValueError(f"`{name}` must be {kind}. Received: {name}={cut(value)}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"`{name}` must fit into 64 bits. Received: {name}={cut(value)}")
    return number


def extension_edge(epsilon: Any, rho: float | Sequence[float]) -> float:
    """Return ε, with 0 ≤ ε < ½ and ε ≤ min(ρ, 1 − ρ): each target lies where the KL is exact.

    `None` is the ε of everybody who does not ask: 10⁻⁶, or less where ρ is nearer to 0 or 1.

    >>> extension_edge(None, 0.05), extension_edge(None, 1e-7)
    (1e-06, 1e-07)
    """
    targets = [rho] if isinstance(rho, float) else rho
    highest = min(min(target, 1.0 - target) for target in targets)
    if epsilon is None:
        return min(1e-6, highest)
    epsilon = real_number("epsilon", epsilon, low=0.0, high=0.5, high_open=True)
    if epsilon > highest:
        raise ValueError(
            f"`epsilon` must lie in [0, min(rho, 1 - rho)] = [0, {highest}]. "
            f"Received: epsilon={epsilon!r}, rho={cut(rho)}"
        )
    return epsilon


def flag(name: str, value: Any) -> bool:
    """Return a bool.

    Raises:
        TypeError: If `value` is not one.

    >>> flag("tied", True)
    True
    """
    answer = plain(value)
    if not isinstance(answer, bool):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={cut(value)}")
    return answer


def sparsity_form(from_logits: Any, symmetric: Any) -> tuple[bool, bool]:
    """Return the two flags; they exclude each other."""
    from_logits = flag("from_logits", from_logits)
    symmetric = flag("symmetric", symmetric)
    if from_logits and symmetric:
        raise ValueError(
            "`symmetric=True` is for activations in [-1, 1] (tanh); `from_logits=True` takes the "
            "logits of sigmoid units. Received both."
        )
    return from_logits, symmetric
