"""What the options of the commands allow: checked before any work, by name, value and range."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path


def problem_with_number(
    option: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    is_open: bool = False,
) -> str | None:
    """Return what is wrong with the value of an option; `None`: nothing.

    Args:
        option: Its name.
        value: The number; NaN and the infinities are none.
        low: The least that is allowed.
        high: The greatest that is allowed.
        is_open: Whether both are left out.

    >>> problem_with_number("--rho", 1.5, low=0.0, high=1.0, is_open=True)
    '--rho must lie in (0, 1). Received 1.5.'
    >>> problem_with_number("--hidden", 0, low=1)
    '--hidden must be positive, 1 or more. Received 0.'
    """
    is_inside = low < value < high if is_open else low <= value <= high
    if is_inside and value not in (-math.inf, math.inf):
        return None
    if low == 1 and value < low:
        allowed = "be positive, 1 or more"
    elif isinstance(value, int):
        allowed = f"be an integer from {low} to {high}"
    else:
        left, right = "(" if is_open else "[", ")" if is_open or high == math.inf else "]"
        allowed = f"lie in {left}{low:g}, {high:g}{right}"
    return f"{option} must {allowed}. Received {value}."


def file_name(text: str) -> Path:
    """Parse the name of a file or of a folder.

    >>> file_name("found.json").name
    'found.json'
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"the name of a file or folder is expected, not {text!r}")
    return Path(text)


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--json`.

    Args:
        parser: Of a command.
        what: What is written.
    """
    words = f"write {what} as JSON (- is standard output)"
    parser.add_argument("--json", type=file_name, metavar="FILE", help=words)


def add_quiet(parser: argparse.ArgumentParser, what: str = "problems") -> None:
    """Add `--quiet`.

    Args:
        parser: Of a command.
        what: What is printed nevertheless.
    """
    parser.add_argument("--quiet", action="store_true", help=f"print {what} only")


def seconds(text: str) -> float:
    """Parse a time limit.

    >>> seconds("90")
    90.0
    """
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0.0 < value <= 1e9:
            return value
    raise argparse.ArgumentTypeError(f"seconds in (0, 1e9] are expected, not {text!r}")


def memory() -> float:
    """Return the bytes of memory that this process can have."""
    with contextlib.suppress(OSError, ValueError):  # of a container
        return float(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf


@dataclass(frozen=True)
class Limits:
    """Bytes that the process of a backend may use; `None`: any number.

    Args:
        memory: Its address space.
        file: A file that it writes.
        output: What it prints.
    """

    memory: int | None = None
    file: int | None = None
    output: int | None = None

    @property
    def of_resources(self) -> dict[str, int]:
        """Those that the system keeps, by their names in `resource`.

        >>> Limits(file=2**20, output=10).of_resources
        {'RLIMIT_FSIZE': 1048576}
        """
        known = {"RLIMIT_AS": self.memory, "RLIMIT_FSIZE": self.file}
        return {name: value for name, value in known.items() if value is not None}


OUTPUT = 64 * 2**20
"""Bytes that a process may print, unless `--output-limit` says otherwise."""


def add_limits(parser: argparse.ArgumentParser, *, file: int | None = None) -> None:
    """Add `--memory-limit`, `--file-limit` and `--output-limit`.

    Args:
        parser: Of a command that starts processes.
        file: The default of `--file-limit`, in bytes.
    """
    for name, default, what in (
        ("memory", None, "the address space of the process of a backend"),
        ("file", file, "a file that it writes"),
        ("output", OUTPUT, "what it prints"),
    ):
        default_text = "none" if default is None else str(default // 2**20)
        parser.add_argument(
            f"--{name}-limit",
            type=mebibytes,
            default=default,
            metavar="MIB",
            help=f"of {what} (default: {default_text})",
        )


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Return what `add_limits` parsed."""
    return Limits(arguments.memory_limit, arguments.file_limit, arguments.output_limit)


def mebibytes(text: str) -> int:
    """Parse a limit; return it in bytes.

    >>> mebibytes("2")
    2097152
    """
    with contextlib.suppress(ValueError):
        value = int(text)
        if 1 <= value < 2**40:
            return value * 2**20
    raise argparse.ArgumentTypeError(f"MiB, an integer of 1 or more, are expected, not {text!r}")
