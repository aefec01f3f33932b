"""How far off are a backend's elementary functions? All numbers of a format, not a sample.

    KERAS_BACKEND=torch python -m benchmarks.exhaustive
    KERAS_BACKEND=torch python -m benchmarks.exhaustive --formats float32 --minutes 30

The constants of `reference.rounding`, 16 roundoffs for sigmoid, tanh and softplus and 8 for
logarithm and exponential, are checked on every normal number of float16, bfloat16 and float32; the
10 of KL(ρ‖ρ̂) and the 7 of its slope on every normal number ρ̂ of float32 in [0, 1]. The truth is
NumPy's in float64, itself off by less than 1e-7 of a roundoff of float32. What was found
is in `benchmarks/results/exhaustive.json`, which every call goes on from and `docs/roundoffs.md`
shows. All float32 numbers are some minutes of a processor for a function and backend.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

import reference
from keras_impl.backends.autodiff import compiled
from keras_impl.divergence import kl_divergence_and_slope
from reference.divergence import upper_edge
from reference.rounding import LOGARITHM_ROUNDOFFS, PRECISIONS, SIGMOID_ROUNDOFFS

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "benchmarks" / "results" / "exhaustive.json"
PAGE = ROOT / "docs" / "roundoffs.md"
CHUNK = 2**16
BLOCK = 2**10


class Function(NamedTuple):
    """An elementary function, by Keras and in float64, and where it is asked.

    Args:
        name: Its name in `keras.ops`.
        true: The same in float64.
        allowed: How many roundoffs the bounds allow.
        low: The least argument.
        high: The largest.
    """

    name: str
    true: Callable[[Any], Any]
    allowed: float
    low: float = -np.inf
    high: float = np.inf


FUNCTIONS = (
    Function("sigmoid", reference.sigmoid, SIGMOID_ROUNDOFFS),
    Function("softplus", lambda z: -reference.log_sigmoid(-z), SIGMOID_ROUNDOFFS),
    Function("tanh", np.tanh, SIGMOID_ROUNDOFFS),
    Function("exp", np.exp, LOGARITHM_ROUNDOFFS),
    Function("log", np.log, LOGARITHM_ROUNDOFFS, low=0.0, high=1.0),
    Function("log1p", np.log1p, LOGARITHM_ROUNDOFFS, low=-1.0, high=0.0),
)


class Divergence(NamedTuple):
    """KL(ρ‖ρ̂) or its slope by ρ̂, of this package, and where it is asked.

    Args:
        rho: ρ.
        epsilon: Where the tangent begins.
        slope: Whether it is the slope.
    """

    rho: float
    epsilon: float
    slope: bool
    low: float = 0.0
    high: float = 1.0

    @property
    def name(self) -> str:
        """As the page calls it."""
        tangent = f", ε = {self.epsilon:g}" if self.epsilon else ""
        return f"KL{chr(0x2032) if self.slope else ''}({self.rho:g}‖ρ̂){tangent}"

    @property
    def allowed(self) -> float:
        """The least that EQ-BOUND-KL or EQ-BOUND-KL-DERIVATIVE counts."""
        return 7.0 if self.slope else LOGARITHM_ROUNDOFFS + 2.0

    @np.errstate(all="ignore")
    def true(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """EQ-KL-EXTENSION or its derivative in float64, and the sum of the sizes of its terms."""
        rho, rest = self.rho, 1.0 - self.rho
        r = np.clip(x, self.epsilon, upper_edge(self.epsilon)) if self.epsilon else x
        zeros, ones = rest / (1.0 - r), rho / r
        if self.slope:
            return zeros - ones, zeros + ones
        log, log_rest = rho * np.log(r), rest * np.log1p(-r)
        known = rho * np.log(rho) + rest * np.log1p(-rho)
        value, size = known - log - log_rest, -known - log - log_rest
        if not self.epsilon:
            return value, size
        return value + (zeros - ones) * (x - r), size + (zeros + ones) * np.abs(x - r)


EPSILON = 1e-6
DIVERGENCES = tuple(
    Divergence(rho, epsilon, slope)
    for rho, epsilon in ((0.05, 0.0), (0.5, 0.0), (0.01, 0.0), (0.05, EPSILON))
    for slope in (False, True)
)
BY_FORMAT: dict[str, tuple[Function | Divergence, ...]] = {
    "float16": FUNCTIONS,
    "bfloat16": FUNCTIONS,
    "float32": (*FUNCTIONS, *DIVERGENCES),
}


@functools.cache
def _computing(function: Function | Divergence) -> Callable[[Any], Any]:
    if isinstance(function, Function):
        return lambda x: getattr(ops, function.name)(x)
    rho, epsilon, part = function.rho, function.epsilon, int(function.slope)
    return compiled(lambda x: kl_divergence_and_slope(rho, x, epsilon)[part])


def numbers(name: str, start: int, count: int) -> np.ndarray:
    """Numbers of a format by their bits, from `start` on, as float32 (which holds them exactly).

    >>> numbers("bfloat16", 0x3F80, 2).tolist()
    [1.0, 1.0078125]
    """
    bits = np.arange(start, start + count, dtype=np.uint32)
    if name == "float16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return (bits << 16 if name == "bfloat16" else bits).view(np.float32)


def span(function: Function | Divergence, name: str) -> tuple[int, int]:
    """The first of a function's numbers, by its bits, and how many there are.

    >>> span(FUNCTIONS[0], "float16"), span(FUNCTIONS[-1], "float16")
    ((0, 65536), (32768, 15361))
    """
    width, of_one = {
        "float16": (16, 0x3C00),
        "bfloat16": (16, 0x3F80),
        "float32": (32, 0x3F800000),
    }[name]
    if function.high == np.inf:
        return 0, 2**width
    return (0 if function.low == 0.0 else 2 ** (width - 1)), of_one + 1


@np.errstate(all="ignore")
def furthest(
    function: Function | Divergence, name: str, x: np.ndarray, known: float = 0.0
) -> tuple[float, float]:
    """The largest error in roundoffs of the format, relative to the value, and its argument.

    Of a divergence and its slope relative to the sum of the sizes of their terms.

    A result below the smallest normal number η is asked relative to η; it may be flushed, and is as
    right anywhere between 0 and twice its value (EQ-BOUND-STORE).

    A `Function` increases. So over a block of successive arguments nothing is further off than the
    largest result from the truth at one end, or the smallest from that at the other. Where that is
    no more than is `known` the truth at each argument is not needed; the backend computes all.

    Args:
        function: What is asked.
        name: The format.
        x: Successive numbers of it, of one sign.
        known: An error that has been found: nothing below it is looked for.
    """
    precision = PRECISIONS[name]
    # Between two normal numbers of one sign there are no others.
    if not all(_asked(function, name, x[[0, -1]]) & (x[[0, -1]] != 0.0)):
        x = x[_asked(function, name, x)]
    if not len(x):
        return 0.0, 0.0
    tensor = ops.convert_to_tensor(x)
    value = _computing(function)(ops.cast(tensor, name))
    actual = ops.convert_to_numpy(ops.cast(value, "float32"))
    if isinstance(function, Function) and len(x) % BLOCK == 0:
        x, actual = x.reshape(-1, BLOCK), actual.reshape(-1, BLOCK)
        true = np.sort(function.true(x[:, [0, -1]].astype(np.float64)), axis=1)
        beyond = np.maximum(
            np.max(actual, axis=1) - true[:, 0], true[:, 1] - np.min(actual, axis=1)
        )
        size = np.min(np.abs(true), axis=1)
        flushed = np.max(np.abs(true), axis=1) < precision.underflow
        unit = np.where(size < precision.underflow, 0.0, known * precision.unit_roundoff)
        # Written so that NaN is not enough.
        enough = (beyond <= np.where(flushed, size, unit * size)) | (size > precision.largest)
        x, actual = x[~enough].ravel(), actual[~enough].ravel()
        if not len(x):
            return 0.0, 0.0
    wide = x.astype(np.float64)
    if isinstance(function, Divergence):
        true, size = function.true(wide)
        if np.max(np.abs(actual - true) / size) <= known * precision.unit_roundoff:
            return 0.0, 0.0
    else:
        true = np.asarray(function.true(wide))
        size = np.abs(true)
    distance = np.abs(actual.astype(np.float64) - true)
    errors = distance / (np.maximum(size, precision.underflow) * precision.unit_roundoff)
    errors = np.where(np.isnan(errors), np.inf, errors)
    errors[(size < precision.underflow) & (distance <= size)] = 0.0
    errors[size > precision.largest] = 0.0
    worst = int(np.argmax(errors))
    return float(errors[worst]), float(x[worst])


def _asked(function: Function | Divergence, name: str, x: np.ndarray) -> np.ndarray:
    """Which arguments are normal numbers of the format, or 0, where the function is asked."""
    size, precision = np.abs(x), PRECISIONS[name]
    normal = (size >= precision.underflow) & (size <= precision.largest)
    return (normal | (x == 0.0)) & (x >= function.low) & (x <= function.high)


def search(
    formats: list[str],
    names: list[str],
    seconds: float,
    mine: dict[str, dict[str, Any]],
    save: Callable[[], None] = lambda: None,
) -> None:
    """Go on with what has been found of this backend, for so long; save it every half minute."""
    end = time.monotonic() + seconds
    saved = time.monotonic()
    for name in formats:
        for function in BY_FORMAT[name]:
            if function.name not in names:
                continue
            first, count = span(function, name)
            state = mine.setdefault(f"{function.name} {name}", {"done": 0, "worst": 0.0, "at": 0.0})
            while state["done"] < count and time.monotonic() < end:
                size = min(CHUNK, count - state["done"])
                chunk = numbers(name, first + state["done"], size)
                worst, at = furthest(function, name, chunk, state["worst"])
                if worst > state["worst"]:
                    state["worst"], state["at"] = worst, at
                state["done"] += size
                if time.monotonic() > saved + 30.0:
                    saved = time.monotonic()
                    save()
                    print(f"{function.name} {name}: {state['done'] / count:.1%}", flush=True)
            print(f"{function.name} {name}: {state}", flush=True)


def page(found: dict[str, Any]) -> str:
    """What was found, as a page of the docs."""
    lines = [
        "# How far off elementary functions are",
        "",
        "Written by `python -m benchmarks.exhaustive`, not typed. The largest error of Keras's",
        "functions on a CPU over all normal numbers of a format, in roundoffs of the format",
        "relative to the value (below the smallest normal number η, to η), and where it is. Each",
        "function is called by itself, in no compiled graph. The truth, NumPy's in float64, is off",
        "by less than 1e-7. Logarithms are asked on [0, 1]: log x, and log1p of −x. A",
        "rounding alone makes up to 1. *Allowed* is what the bounds of `reference.rounding` count,",
        "for other code too. In brackets: the share of the numbers that was run, where it is not",
        "all; the command goes on from there.",
        "",
        "KL(ρ‖ρ̂) and its slope KL′, compiled as the package compiles them, are asked for all ρ̂ in",
        "[0, 1]. Their value may be 0, so a roundoff is relative to the sum of the sizes of their",
        "terms, as in EQ-BOUND-KL and EQ-BOUND-KL-DERIVATIVE: ρ|log ρ| + ρ|log ρ̂| and those of",
        "1 − ρ; ρ/ρ̂ + (1 − ρ)/(1 − ρ̂); beyond an edge ε with |ρ̂ − ε| times the latter. *Allowed*",
        "is the factor of that sum in the bound, the least that it counts of it. Needed so far:",
        f"{_most(found, slope=False)} by KL, {_most(found, slope=True)} by the slope.",
        "",
        "OpenVINO forms log(1 + x) for log1p, and softplus of it, which loses an x that 1 absorbs.",
        "No code of `keras_impl` calls softplus, and EQ-BOUND-KL counts a rounding of 1 − ρ̂. It",
        "computes float16 in float32.",
        "",
        f"| function | format | allowed | {' | '.join(found)} |",
        "|---|---|---|" + "---|" * len(found),
    ]
    for function in (*FUNCTIONS, *DIVERGENCES):
        for name in (name for name, asked in BY_FORMAT.items() if function in asked):
            _, count = span(function, name)
            cells = []
            for by_function in found.values():
                state = by_function.get(f"{function.name} {name}", {"done": 0})
                if not state["done"]:
                    cells.append("—")
                    continue
                text = f"{state['worst']:.2f} at {state['at']:.6g}"
                share = state["done"] / count
                cells.append(text if share >= 1.0 else f"{text} ({share:.0%})")
            lines.append(
                f"| {function.name} | {name} | {function.allowed:.0f} | {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def _most(found: dict[str, Any], *, slope: bool) -> str:
    """The most that a divergence of any backend needs of what is allowed."""
    asked = [function for function in DIVERGENCES if function.slope == slope]
    errors = [
        of[f"{function.name} float32"]["worst"]
        for of in found.values()
        for function in asked
        if f"{function.name} float32" in of
    ]
    return f"{max(errors, default=0.0):.2f} of {asked[0].allowed:.0f}"


def earlier() -> dict[str, Any]:
    """What has been found, by backend."""
    found: dict[str, Any] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    return found


def main() -> None:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=["float16", "bfloat16", "float32"])
    parser.add_argument("--functions", nargs="+", default=[f.name for f in BY_FORMAT["float32"]])
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after so many")
    arguments = parser.parse_args()
    backend = keras.config.backend()
    mine = earlier().get(backend, {})

    def save() -> None:
        found = earlier()  # another backend may have written meanwhile
        found[backend] = mine
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(page(found), encoding="utf-8")

    try:
        search(arguments.formats, arguments.functions, 60.0 * arguments.minutes, mine, save)
    finally:
        save()


if __name__ == "__main__":
    main()
