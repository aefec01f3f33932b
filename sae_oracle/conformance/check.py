"""Holding a program to the vectors, a question a line, and the certificate of what was found."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_oracle import __version__
from sae_oracle.conformance.vectors import VERSION, Judgement, Vector, judge
from sae_oracle.files import first_line

LONGEST_LINE = 10_000_000
"""Characters of an answer that are read."""

Result = tuple[Vector, Judgement]


class CouldNotAskError(Exception):
    """The program cannot be started."""


def check_program(
    command: Sequence[str],
    vectors: Sequence[Vector],
    *,
    precision: str = "float64",
    time_limit: float = 30.0,
) -> list[Result]:
    """Hold a program to the vectors by the reviewer's protocol (docs/review.md).

    Args:
        command: The program and its arguments.
        vectors: What it is held to; it is asked those of EQ-SPARSITY that the protocol can put.
        precision: The format whose bounds hold: one of `FORMATS`.
        time_limit: Seconds for each answer.

    Returns:
        Each vector with what its answer is worth. After a program has ended, has not answered in
        time or has answered twice, every later question to it has failed.

    Raises:
        CouldNotAskError: If the program cannot be started.
    """
    found: dict[str, Judgement] = {}
    answers: dict[str, Mapping[str, Any]] = {}
    asked: list[Vector] = []
    for vector in vectors:
        reason = _why_not(vector, precision)
        if reason is None:
            asked.append(vector)
        else:
            found[vector.identifier] = Judgement("not run", None, reason)
    if asked:
        with _Conversation(command, time_limit) as conversation:
            for vector in asked:
                try:
                    answers[vector.identifier] = _parsed(
                        conversation.ask(_question(vector)), vector
                    )
                except ValueError as error:
                    words = f"{vector.identifier}: {error}"
                    found[vector.identifier] = Judgement("failed", math.inf, words)
            surplus = conversation.surplus()
        if surplus is not None:
            last = asked[-1].identifier
            answers.pop(last, None)
            found.setdefault(last, Judgement("failed", math.inf, f"{last}: {surplus}"))
    differentiates = any("gradient" in answer for answer in answers.values())
    for vector in asked:
        name = vector.identifier
        if name not in answers:
            continue
        if differentiates and "gradient" not in answers[name]:
            words = f"{name}: the answer has no gradient, and others have"
            found[name] = Judgement("failed", math.inf, words)
        else:
            found[name] = judge(vector, answers[name], precision)
    return [(vector, found[vector.identifier]) for vector in vectors]


def _why_not(vector: Vector, precision: str) -> str | None:
    """Why a program is not asked a vector; `None`: it is asked."""
    if vector.label != "EQ-SPARSITY":
        return f"the protocol does not ask for {vector.label}"
    more = sorted(set(vector.inputs) - {"activations", "rho", "beta"})
    if more:
        return f"the protocol does not ask with {', '.join(more)}"
    if precision not in vector.formats:
        return f"{precision} does not hold its inputs"
    bounds = [b for output in vector.outputs for b in output.bounds[precision]]
    return None if any(b is not None for b in bounds) else f"it decides nothing in {precision}"


def _question(vector: Vector) -> str:
    given = vector.arguments
    rows = given["activations"].reshape(-1, given["activations"].shape[-1])
    question = {"activations": rows.tolist(), "rho": given["rho"], "beta": given["beta"]}
    return json.dumps(question)


def _parsed(line: str, vector: Vector) -> dict[str, Any]:
    """Return an answer by the names of the outputs; raise `ValueError`: it is none."""
    beginning = f"it answered {line.strip()[:80]!r}"
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{beginning}, which is no JSON") from None
    if not isinstance(answer, dict) or "value" not in answer:
        raise ValueError(f'{beginning}, and must answer {{"value": 1.5}}')
    if isinstance(answer["value"], list):
        raise ValueError(f"{beginning}: its value must be one number")
    found: dict[str, Any] = {"value": _numbers(answer["value"], "value")}
    if answer.get("gradient") is not None:
        shape = vector.arguments["activations"].shape
        rows = (math.prod(shape[:-1]), shape[-1])
        gradient = _numbers(answer["gradient"], "gradient")
        if gradient.shape != rows:
            raise ValueError(f"its gradient must have shape {rows}. Received {gradient.shape}.")
        found["gradient"] = gradient.reshape(shape)
    return found


def _numbers(value: Any, name: str) -> Any:
    """Return numbers of JSON as an array; `null` is NaN. Text and truth values are none."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, bool) or not (part is None or isinstance(part, (int, float))):
            raise ValueError(f"its {name} holds {part!r:.40}, which is no number")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"its {name} holds a whole number that no format holds") from None
    except (ValueError, TypeError):
        raise ValueError(f"its {name} has rows of different lengths") from None


class _Conversation:
    """A running program, which is asked and answers in lines."""

    def __init__(self, command: Sequence[str], time_limit: float) -> None:
        self._limit = time_limit
        self._ended = ""
        self._lines: queue.Queue[str] = queue.Queue(4)  # a flood waits in the pipe
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CouldNotAskError(f"{command[0]} cannot be started: {first_line(error)}") from None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            while line := self._process.stdout.readline(LONGEST_LINE):
                self._lines.put(line)
        self._lines.put("")

    def _write(self, question: str) -> None:
        """Send a question; a program that never reads blocks this thread, and not the caller."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()

    def ask(self, question: str) -> str:
        """Return the line that answers a question; raise `ValueError`: there is none."""
        if not self._ended and not self._lines.empty():
            surplus = self._lines.get()
            self._ended = (
                f"it had answered {surplus.strip()[:80]!r} before it was asked"
                if surplus
                else "it ended after an earlier answer"
            )
        if self._ended:
            raise ValueError(f"no answer counts: {self._ended}")
        threading.Thread(target=self._write, args=(question,), daemon=True).start()
        try:
            line = self._lines.get(timeout=self._limit)
        except queue.Empty:
            self._kill()
            self._ended = f"no answer came in {self._limit:g} seconds, and it was ended"
            raise ValueError(self._ended) from None
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._ended = f"it ended without an answer, with status {self._process.poll()}"
            raise ValueError(self._ended)
        return line

    def surplus(self) -> str | None:
        """Return what is wrong with how it ends when there are no more questions."""
        if self._ended:
            return None
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            line = self._lines.get(timeout=self._limit)
        except queue.Empty:
            return f"it did not end in {self._limit:g} seconds after the last question"
        return f"it answered {line.strip()[:80]!r} after its last answer" if line else None

    def __enter__(self) -> _Conversation:
        return self

    def _kill(self) -> None:
        """End the program and what it has started."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()


def certificate(
    implementation: str,
    results: Sequence[Result],
    precision: str,
    sha256: str,
) -> dict[str, Any]:
    """Return what was found, as JSON has it.

    Args:
        implementation: What was held to the vectors.
        results: Each vector and what its answer is worth.
        precision: The format whose bounds held.
        sha256: The digest of the vectors.

    Returns:
        Beside the lines: `worst_usage`, the largest error of a passed vector in units of its
        bound, and `resolution`, the largest bound of a passed value relative to the value: a
        smaller error of it may not be seen. Each is `None` where nothing passed.
    """
    counts = {
        status: sum(found.status == status for _, found in results)
        for status in ("passed", "failed", "not run")
    }
    passed = [(vector, found) for vector, found in results if found.status == "passed"]
    ratios = []
    for vector, _ in passed:
        output = vector.output("value")
        if output is None:
            continue
        for number, bound in zip(output.numbers, output.bounds[precision], strict=True):
            if bound is not None and number != 0.0 and math.isfinite(number):
                ratios.append(bound / abs(float(number)))
    return {
        "implementation": implementation,
        "format": precision,
        "vectors": {"version": VERSION, "sha256": sha256},
        "versions": {"sae-oracle": __version__, "python": platform.python_version()},
        "machine": {"system": platform.system(), "architecture": platform.machine()},
        **counts,
        "worst_usage": max((found.usage or 0.0 for _, found in passed), default=None),
        "resolution": max(ratios, default=None),
        "results": [
            {
                "id": vector.identifier,
                "status": found.status,
                # JSON has no infinity.
                "usage": found.usage if found.usage is None or found.usage < math.inf else None,
                "words": found.words,
            }
            for vector, found in results
        ],
    }


def as_page(found: Mapping[str, Any]) -> str:
    """Return a certificate as a page in Markdown."""

    def cell(text: object) -> str:
        return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    facts: list[tuple[str, Any]] = [
        ("implementation", found["implementation"]),
        ("bounds of", found["format"]),
        ("vectors", f"{found['vectors']['version']}, SHA-256 {found['vectors']['sha256']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in found["versions"].items())),
        *((status, found[status]) for status in ("passed", "failed", "not run")),
        ("worst usage", number(found["worst_usage"])),
        ("resolution", number(found["resolution"])),
    ]
    lines = ["# Certificate of conformance vectors", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell(value)} |" for name, value in facts]
    lines += ["", "| vector | error / bound | | |", "|---|---|---|---|"]
    lines += [
        f"| {r['id']} | {number(r['usage'])} | {r['status']} | {cell(r['words'])} |"
        for r in found["results"]
    ]
    return "\n".join(lines) + "\n"


def line_of(vector: Vector, found: Judgement) -> str:
    """Return the line of a vector: its identifier, the error in units of its bound, the status."""
    usage = "-" if found.usage is None else f"{found.usage:.3g}"
    words = found.words.removeprefix(f"{vector.identifier}: ")
    return f"{vector.identifier}  {usage}  {found.status}" + (f": {words}" if words else "")
