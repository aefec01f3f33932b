"""Any Python object as any argument: an error names the argument, or the value makes sense."""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np


class Hostile:
    """Whatever is asked of it, it raises something of its own."""

    def _raise(self, *arguments: Any) -> Any:
        raise RuntimeError("hostile")

    __float__ = __int__ = __index__ = __bool__ = __len__ = __iter__ = __getitem__ = _raise
    __array__ = __add__ = __lt__ = __gt__ = __eq__ = __complex__ = _raise
    __hash__ = object.__hash__


def _loop() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


VALUES: dict[str, Callable[[], Any]] = {
    "10**400": lambda: 10**400,
    "-10**400": lambda: -(10**400),
    "2**63": lambda: 2**63,
    "2**200": lambda: 2**200,
    "True": lambda: True,
    "False": lambda: False,
    "None": lambda: None,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: -float("inf"),
    "0": lambda: 0,
    "-1": lambda: -1,
    "1": lambda: 1,
    "0.5": lambda: 0.5,
    "1.5": lambda: 1.5,
    "1e308": lambda: 1e308,
    "5e-324": lambda: 5e-324,
    "'x'": lambda: "x",
    "''": lambda: "",
    "'nan'": lambda: "nan",
    "'0.5'": lambda: "0.5",
    "'True'": lambda: "True",
    "b'x'": lambda: b"x",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"xyz"),
    "long text": lambda: "x" * 100_000,
    "[]": list,
    "[1]": lambda: [1],
    "[[1]]": lambda: [[1]],
    "['a']": lambda: ["a"],
    "ragged": lambda: [1, [2, 3]],
    "[None]": lambda: [None],
    "()": tuple,
    "{}": dict,
    "{'a': 1}": lambda: {"a": 1},
    "set()": set,
    "object()": object,
    "a type": lambda: int,
    "a function": lambda: lambda: 0,
    "print": lambda: print,
    "a partial": lambda: functools.partial(int),
    "1j": lambda: 1j,
    "float64": lambda: np.float64(0.5),
    "float64 nan": lambda: np.float64("nan"),
    "int64": lambda: np.int64(-3),
    "bool_": lambda: np.bool_(True),
    "array(0.5)": lambda: np.array(0.5),
    "array([])": lambda: np.array([]),
    "array([0.5])": lambda: np.array([0.5]),
    "zeros((2, 3))": lambda: np.zeros((2, 3)),
    "zeros((0, 3))": lambda: np.zeros((0, 3)),
    "zeros((2, 2, 2, 2))": lambda: np.zeros((2, 2, 2, 2)),
    "nan array": lambda: np.full((2, 3), np.nan),
    "array('x')": lambda: np.array("x"),
    "array(None)": lambda: np.array([None]),
    "array(1j)": lambda: np.array([[1j]]),
    "array of objects": lambda: np.array([[object()]]),
    "array of big": lambda: np.array([[10**400]], dtype=object),
    "masked": lambda: np.ma.masked_array([[0.5, 0.5]], mask=[[True, False]]),
    "structured": lambda: np.zeros(2, dtype=[("a", "f4")]),
    "datetime64": lambda: np.datetime64("2026-01-01"),
    "date": lambda: datetime.date(2026, 1, 1),
    "Fraction": lambda: fractions.Fraction(1, 2),
    "Decimal": lambda: decimal.Decimal("0.5"),
    "range(3)": lambda: range(3),
    "an iterator": lambda: iter([0.5]),
    "a generator": lambda: (i for i in range(3)),
    "...": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "an exception": lambda: ValueError("x"),
    "hostile": Hostile,
    "a loop": _loop,
    "a module": lambda: np,
}

LEFT_OUT = {
    # They take as long as they say.
    "steps": {"2**63", "2**200", "10**400"},
    # They raise something of their own when they are called, or run through.
    "function": {"a function", "a partial", "a type"},
    "x": {"hostile"},
    "validation_data": {"hostile"},
}

NUMBERS = {"float64", "array(0.5)", "Fraction", "Decimal"}

# What a kind of argument takes of the values; all others must be refused.
SENSIBLE: dict[str, set[str]] = {
    "flag": {"True", "False", "bool_"},
    "rho": {"0.5", "5e-324", *NUMBERS},
    "factor": {"0.5", "0", "1", "1.5", "1e308", "5e-324", "2**63", "2**200", *NUMBERS},
    "probability": {"0.5", "5e-324", "0", "1", *NUMBERS},
    "real": {"0.5", "0", "1", "-1", "int64", "1.5", "1e308", "5e-324", "2**63", "2**200", *NUMBERS},
    "count": {"1", "2**63", "2**200", "10**400"},
    "verbosity": {"True", "False", "bool_", "0", "-1", "1", "int64", "2**63", "2**200"}
    | {"10**400", "-10**400"},
    "anything": set(VALUES),
}

# By unit, where nothing says how many there are; by layer, where there is one of two units.
SENSIBLE["rho by unit"] = {*SENSIBLE["rho"], "array([0.5])"}
SENSIBLE["rho by layer"] = {*SENSIBLE["rho"], "array([0.5])", "masked"}
SENSIBLE["factor by layer"] = {*SENSIBLE["factor"], "array([0.5])", "[1]"}

SENSIBLE |= {
    f"{kind} or None": {*SENSIBLE[kind], "None"}
    for kind in ("rho", "rho by layer", "factor", "factor by layer")
}


def wrong(
    function: Callable[..., Any],
    valid: Callable[[], Mapping[str, Any]],
    kinds: Mapping[str, str],
    left_out: Container[str] = (),
) -> Iterator[str]:
    """Yield a line for each value of each argument that is not answered as it should be.

    Args:
        function: What is called.
        valid: Makes arguments that are right.
        kinds: The kind of each argument, of `SENSIBLE`: "anything" only asks for right errors.
        left_out: Values that are not tried.
    """
    for argument, kind in kinds.items():
        for name, make in VALUES.items():
            if name in left_out or name in LEFT_OUT.get(argument, ()):
                continue
            arguments = {**valid(), argument: make()}
            try:
                function(**arguments)
            except (TypeError, ValueError) as error:
                # What does not fit together may be said of the other one.
                if not any(named in str(error) for named in (*arguments, "input")):
                    yield f"{argument}={name}: {type(error).__name__} without the name: {error}"
            except Exception as error:
                of_data = argument in ("x", "y", "validation_data")
                if isinstance(error, FloatingPointError) and of_data:
                    continue  # NaN in the data has an error of its own
                yield f"{argument}={name}: {type(error).__name__}: {error}"
            else:
                if name not in SENSIBLE[kind]:
                    yield f"{argument}={name}: accepted"


FLAGS = ("symmetric", "from_logits", "tied", "use_bias", "cross_replica", "reproducible", "resume")

FLAGS_OF_THE_REVIEWER = ("called_directly", "replicas")

FACTORS = ("beta", "weight_decay")

REAL = ("factor", "l1_factor", "l2_factor")


def kinds_of(arguments: Iterable[str]) -> dict[str, str]:
    """Return the kind of each argument, which its name says everywhere."""
    kinds = {
        "rho": "rho",
        **dict.fromkeys(FLAGS + FLAGS_OF_THE_REVIEWER, "flag"),
        **dict.fromkeys(FACTORS, "factor"),
    }
    kinds |= {**dict.fromkeys(REAL, "real"), "verbose": "verbosity"}
    return {argument: kinds.get(argument, "anything") for argument in arguments}
