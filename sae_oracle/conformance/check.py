"""Holding a program to the vectors, a question a line, and the certificate of what was found."""

from __future__ import annotations

import contextlib
import html
import json
import math
import os
import platform
import queue
import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from reference import Parameters
from sae_oracle import __version__
from sae_oracle.conformance.vectors import VERSION, Judgement, Vector, judge
from sae_oracle.files import first_line
from sae_oracle.options import Limits
from sae_oracle.processes import NO_LIMITS, Child, environment

LONGEST_LINE = 10_000_000
"""Characters of an answer that are read."""

START = 180.0
"""Seconds that a process may take to start Keras and to find out what it is to ask."""

CRASHES = 3
"""Questions in succession that a program does not answer, before it is given up."""

Result = tuple[Vector, Judgement]


class CouldNotAskError(Exception):
    """The program cannot be started."""


class _NoAnswerError(Exception):
    """The program has ended, or did not answer in time."""


class _OutOfStepError(Exception):
    """The program has answered what was not asked: which answer is whose is not known."""


def check_program(
    command: Sequence[str],
    vectors: Sequence[Vector],
    *,
    labels: Collection[str] = (),
    precision: str = "float64",
    time_limit: float = 30.0,
) -> list[Result]:
    """Hold a program to the vectors by the reviewer's protocol (docs/review.md, docs/vectors.md).

    Args:
        command: The program and its arguments.
        vectors: What it is held to.
        labels: The equations that it is asked, each question with `equation` and every input;
            none: EQ-SPARSITY, in the words of the reviewer, which has no other arguments.
        precision: The format whose bounds hold: one of `FORMATS`.
        time_limit: Seconds for each answer.

    Returns:
        Each vector with what its answer is worth. A program that has ended, or has not answered in
        time, has failed there and is started again. One that has answered without being asked has
        failed in every later vector.

    Raises:
        CouldNotAskError: If the program cannot be started.
    """
    found: dict[str, Judgement] = {}
    answers: dict[str, Mapping[str, Any]] = {}
    asked: list[Vector] = []
    for vector in vectors:
        reason = _why_not(vector, labels, precision)
        if reason is None:
            asked.append(vector)
        else:
            found[vector.identifier] = Judgement("not run", None, reason)
    if asked:
        _ask_all(_Session(command, time_limit), asked, bool(labels), found, answers)
    named: dict[str, set[str]] = defaultdict(set)
    for vector in asked:
        named[vector.label] |= answers.get(vector.identifier, {}).keys()
    for vector in asked:
        name = vector.identifier
        if name in found:
            continue
        outputs = {output.name for output in vector.outputs} & named[vector.label]
        missing = sorted(outputs - answers[name].keys())
        if missing:
            words = f"the answer has no {missing[0]}, and others have"
            found[name] = failed(vector, words)
        else:
            found[name] = judge(vector, answers[name], precision)
    return [(vector, found[vector.identifier]) for vector in vectors]


def failed(vector: Vector, words: str) -> Judgement:
    """Return what no answer at all is worth."""
    return Judgement("failed", math.inf, f"{vector.identifier}: {words}")


def _ask_all(
    session: _Session,
    asked: Sequence[Vector],
    is_named: bool,
    found: dict[str, Judgement],
    answers: dict[str, Mapping[str, Any]],
) -> None:
    """Ask one vector after the other; what is no answer is judged here."""
    last = ""
    with session:
        for vector in asked:
            try:
                last = vector.identifier
                answer = _parsed(session.ask(_question(vector, is_named)), vector, is_named)
            except (ValueError, _NoAnswerError, _OutOfStepError) as error:
                found[last] = failed(vector, str(error))
                continue
            if isinstance(answer, str):
                found[last] = Judgement("not run", None, f"it says: {answer}")
            else:
                answers[last] = answer
        surplus = session.surplus()
    if surplus is not None:
        answers.pop(last, None)
        found.setdefault(last, failed(asked[-1], surplus))


def undecided(vector: Vector, precision: str) -> str | None:
    """Why nothing can be decided in a format; `None`: something can."""
    if precision not in vector.formats:
        return f"{precision} does not hold its inputs"
    bounds = [b for output in vector.outputs for b in output.bounds[precision]]
    return None if any(b is not None for b in bounds) else f"it decides nothing in {precision}"


def check_target(
    request: Mapping[str, Any],
    vectors: Sequence[Vector],
    *,
    backend: str,
    precision: str | None = None,
    time_limit: float = 30.0,
    limits: Limits = NO_LIMITS,
) -> tuple[list[Result], dict[str, Any]]:
    """Hold an object that the reviewer takes to the vectors, in a process of its own.

    Args:
        request: `target`, where it is, and `settings`, `said`, `kind` and `called_directly`, which
            are those of `sae_oracle.review`.
        vectors: What it is held to.
        backend: Of the process.
        precision: The format whose bounds hold; `None`: the one that it computes in.
        time_limit: Seconds for each answer. The start may take `START` more.
        limits: Of the process.

    Returns:
        Each vector with what its answer is worth; and what it was taken for, as `certificate` has
        it. Where the process has ended, or has not answered in time, that vector has failed, and a
        new process is asked the others.

    Raises:
        CouldNotAskError: If it is nothing that a vector can be a question to.
    """
    found: dict[str, Judgement] = {}
    about: dict[str, Any] = {}
    by_name = {vector.identifier: vector for vector in vectors}
    crashes = 0
    while True:
        left = [name for name in by_name if name not in found]
        asking, reason, was_told = _conversation(
            {**request, "asked": left}, by_name, found, about, (backend, precision),
            time_limit, limits,
        )  # fmt: skip
        if not about:
            raise CouldNotAskError(f"{request['target']}: {reason}")
        if was_told:
            break
        crashes = crashes + 1 if asking == left[0] else 1
        if asking:
            found[asking] = failed(by_name[asking], reason)
        if crashes == CRASHES or not asking:
            words = f"it was given up: {reason}"
            asked = [v for v in vectors if v.identifier in left and v.label in about["labels"]]
            for vector in asked:
                found.setdefault(vector.identifier, failed(vector, words))
            break
    for vector in vectors:
        words = f"a {about['kind']} does not compute this equation"
        found.setdefault(vector.identifier, Judgement("not run", None, words))
    return [(vector, found[vector.identifier]) for vector in vectors], about


def _conversation(
    request: Mapping[str, Any],
    vectors: Mapping[str, Vector],
    found: dict[str, Judgement],
    about: dict[str, Any],
    kind: tuple[str, str | None],
    time_limit: float,
    limits: Limits,
) -> tuple[str, str, bool]:
    """Ask one process; return what it was asked last, how it ended, and whether it said all."""
    backend, precision = kind
    child = Child(
        "sae_oracle.workers.vectors", [], environment(backend, "cpu"),
        request=dict(request), limits=limits,
    )  # fmt: skip
    asking = ""
    ended = threading.Event()
    heard = threading.Event()
    allowed = [START]

    def watch() -> None:
        while not ended.is_set():
            if heard.wait(allowed[0]):
                heard.clear()
            elif not ended.is_set():
                child.kill(f"no answer came in {time_limit:g} seconds, and it was ended")

    def on_message(message: dict[str, Any]) -> None:
        nonlocal asking
        if message["kind"] == "subject":
            about.update({name: message[name] for name in ("labels", "guesses", "versions")})
            about["kind"], about["backend"] = message["of"], message["backend"]
            about["format"] = precision or message["format"]
        elif message["kind"] == "asking" and message["id"] in vectors:
            asking = message["id"]
        elif message["kind"] == "answer" and message["id"] == asking:
            found[asking] = _judged(vectors[asking], message, about["format"])
            asking = ""
        allowed[0] = time_limit if about else START
        heard.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        last = child.run(on_message, None)
    finally:
        ended.set()
        heard.set()
        watcher.join()
    return asking, last.get("error", ""), last["kind"] == "result"


def _judged(vector: Vector, message: Mapping[str, Any], precision: str) -> Judgement:
    if "outputs" not in message:
        usage = math.inf if message["status"] == "failed" else None
        return Judgement(message["status"], usage, message["words"])
    reason = undecided(vector, precision)
    if reason is not None:
        return Judgement("not run", None, reason)
    return judge(vector, message["outputs"], precision)


def _why_not(vector: Vector, labels: Collection[str], precision: str) -> str | None:
    """Why a program is not asked a vector; `None`: it is asked."""
    if vector.label not in (labels or ("EQ-SPARSITY",)):
        return "this equation is not asked (--label asks others)"
    more = [] if labels else sorted(set(vector.inputs) - {"activations", "rho", "beta"})
    if more:
        return f"{', '.join(more)}: not in the reviewer's words (--label {vector.label} asks them)"
    return undecided(vector, precision)


def _question(vector: Vector, is_named: bool) -> str:
    given = vector.arguments
    if is_named:
        return json.dumps({"equation": vector.label} | {k: _plain(v) for k, v in given.items()})
    rows = given["activations"].reshape(-1, given["activations"].shape[-1])
    question = {"activations": rows.tolist(), "rho": given["rho"], "beta": given["beta"]}
    return json.dumps(question)


def _plain(value: Any) -> Any:
    """Return an input as a question has it: arrays as lists of rows, a network by its θ."""
    if isinstance(value, Parameters):
        theta = np.concatenate([a.ravel() for a in (*value.kernels, *value.biases)])
        return {"sizes": list(value.sizes), "tied": value.tied, "theta": theta.tolist()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _parsed(line: str, vector: Vector, is_named: bool) -> dict[str, Any] | str:
    """Return an answer by the names of the outputs, or why the program does not compute it.

    Raises:
        ValueError: If it is neither.
    """
    beginning = f"it answered {line.strip()[:80]!r}"
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{beginning}, which is no JSON") from None
    if is_named and isinstance(answer, dict) and isinstance(answer.get("unsupported"), str):
        return str(answer["unsupported"])[:80]
    first = vector.outputs[0]
    if not isinstance(answer, dict) or first.name not in answer:
        raise ValueError(f'{beginning}, and must answer {{"{first.name}": ...}}')
    if first.shape == () and isinstance(answer[first.name], list):
        raise ValueError(f"{beginning}: its {first.name} must be one number")
    found = {}
    for output in vector.outputs:
        if output.name != first.name and answer.get(output.name) is None:
            continue
        numbers = _numbers(answer[output.name], output.name)
        shape = output.shape
        if not is_named and len(shape) > 1:
            shape = (math.prod(shape[:-1]), shape[-1])
        if numbers.shape != shape and not (numbers.size == 0 == math.prod(shape)):
            raise ValueError(
                f"its {output.name} must have shape {shape}. Received {numbers.shape}."
            )
        found[output.name] = numbers.reshape(output.shape)
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


class _Session:
    """A program that is asked and answers in lines, and is started again where it has ended."""

    def __init__(self, command: Sequence[str], time_limit: float) -> None:
        self._command, self._limit = list(command), time_limit
        self._crashes = 0
        self._lost = ""
        self._start()

    def _start(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(4)  # a flood waits in the pipe
        try:
            self._process: subprocess.Popen[str] | None = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._process = None
            words = f"{self._command[0]} cannot be started: {first_line(error)}"
            raise CouldNotAskError(words) from None
        arguments = self._process, self._lines
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            while line := process.stdout.readline(LONGEST_LINE):
                lines.put(line)
        lines.put("")

    @staticmethod
    def _write(process: subprocess.Popen[str], question: str) -> None:
        """Send a question; a program that never reads blocks this thread, and not the caller."""
        with contextlib.suppress(OSError, ValueError):
            assert process.stdin is not None
            process.stdin.write(question + "\n")
            process.stdin.flush()

    def ask(self, question: str) -> str:
        """Return the line that answers a question.

        Raises:
            _NoAnswerError: If there is none; the next question goes to a new process.
            _OutOfStepError: If it has answered what was not asked, now or earlier.
        """
        if self._lost:
            raise _OutOfStepError(self._lost)
        if self._process is None:
            try:
                self._start()
            except CouldNotAskError as error:
                raise _NoAnswerError(str(error)) from None
        assert self._process is not None
        if not self._lines.empty():
            surplus = self._lines.get()
            if surplus:
                self._lost = (
                    "no answer counts: it had answered "
                    f"{surplus.strip()[:80]!r} before it was asked"
                )
                raise _OutOfStepError(self._lost)
            raise self._ended("it ended after its earlier answer")
        arguments = self._process, question
        threading.Thread(target=self._write, args=arguments, daemon=True).start()
        try:
            line = self._lines.get(timeout=self._limit)
        except queue.Empty:
            words = f"no answer came in {self._limit:g} seconds, and it was ended"
            raise self._ended(words) from None
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            status = self._process.poll()
            if status is None:
                raise self._ended("it closed its output without an answer")
            raise self._ended(f"it ended without an answer, with status {status}")
        self._crashes = 0
        return line

    def _ended(self, words: str) -> _NoAnswerError:
        self._end()
        self._crashes += 1
        if self._crashes == CRASHES:
            self._lost = f"it was given up: {CRASHES} questions in succession, the last: {words}"
        return _NoAnswerError(words)

    def surplus(self) -> str | None:
        """Return what is wrong with how it ends when there are no more questions."""
        if self._lost or self._process is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            line = self._lines.get(timeout=self._limit)
        except queue.Empty:
            return f"it did not end in {self._limit:g} seconds after the last question"
        return f"it answered {line.strip()[:80]!r} after its last answer" if line else None

    def __enter__(self) -> _Session:
        return self

    def _end(self) -> None:
        """End the process and what it has started."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __exit__(self, *_: object) -> None:
        self._end()


def certificate(
    implementation: str,
    results: Sequence[Result],
    precision: str,
    sha256: str,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what was found, as JSON has it.

    Args:
        implementation: What was held to the vectors.
        results: Each vector and what its answer is worth.
        precision: The format whose bounds held.
        sha256: The digest of the vectors.
        about: What else is known of it: `kind`, `backend`, `guesses`, and more `versions`.

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
    more = dict(about or {})
    return {
        "schema_version": 1,
        "implementation": implementation,
        **{name: more[name] for name in ("kind", "backend", "guesses") if more.get(name)},
        "format": precision,
        "vectors": {"version": VERSION, "sha256": sha256},
        "versions": {
            "sae-oracle": __version__,
            "python": platform.python_version(),
            **more.pop("versions", {}),
        },
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


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "caption{text-align:left;font-weight:bold}td:last-child{overflow-wrap:anywhere}"
    "th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;"
    "border-bottom:1px solid #8884}th[scope=row]{font-weight:inherit}"
    ".passed{color:#176b2c}.failed{color:#b00020;font-weight:bold}"
    ":root{color-scheme:light dark;background:Canvas}"
    "@media(prefers-color-scheme:dark){.passed{color:#7fd992}.failed{color:#ff8a93}}"
)


def as_page(found: Mapping[str, Any]) -> str:
    """Return a certificate as a page in HTML that loads nothing."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    def row(heading: str, *cells: object, kind: str = "") -> str:
        of_kind = f" class='{kind}'" if kind else ""
        inside = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        return f"<tr{of_kind}><th scope='row'>{html.escape(heading)}</th>{inside}</tr>"

    def table(caption: str, headings: Sequence[str], rows: Sequence[str]) -> str:
        top = "".join(f"<th scope='col'>{heading}</th>" for heading in headings)
        top = f"<thead><tr>{top}</tr></thead>" if headings else ""
        return f"<table><caption>{caption}</caption>{top}<tbody>{''.join(rows)}</tbody></table>"

    machine = found["machine"]
    facts = [
        ("implementation", found["implementation"]),
        ("kind", found.get("kind", "program")),
        ("backend", found.get("backend", "")),
        ("taken for granted", "; ".join(found.get("guesses", ()))),
        ("bounds of", found["format"]),
        ("vectors", f"{found['vectors']['version']}, SHA-256 {found['vectors']['sha256']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in found["versions"].items())),
        ("machine", f"{machine['system']}, {machine['architecture']}"),
        *((status, found[status]) for status in ("passed", "failed", "not run")),
        ("worst usage", f"{number(found['worst_usage'])} of a bound"),
        ("resolution", number(found["resolution"])),
    ]
    asked = [
        row(r["id"], number(r["usage"]), r["status"], _why(r), kind=r["status"])
        for r in found["results"]
        if r["status"] != "not run"
    ]
    others = [row(r["id"], _why(r)) for r in found["results"] if r["status"] == "not run"]
    lines = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Certificate: {html.escape(found['implementation'])}</title>",
        f"<style>{_STYLE}</style></head><body><main><h1>Certificate of conformance vectors</h1>",
        f"<p class='{'failed' if found['failed'] else 'passed'}'>{summary(found)}</p>",
        table("What was checked", (), [row(name, value) for name, value in facts if value != ""]),
        table("Asked", ("vector", "error / bound", "status", "why"), asked),
        f"<details><summary>{len(others)} not run</summary>",
        table("Not run", ("vector", "why"), others),
        "</details></main></body></html>",
    ]
    return "\n".join(lines) + "\n"


def summary(found: Mapping[str, Any]) -> str:
    """Return the counts of a certificate in words."""
    return f"{found['passed']} passed, {found['failed']} failed, {found['not run']} not run"


def line_of(result: Mapping[str, Any]) -> str:
    """Return the line of a vector: its identifier, the error in units of its bound, the status."""
    usage = "-" if result["usage"] is None else f"{result['usage']:.3g}"
    words = f": {_why(result)}" if result["words"] else ""
    return f"{result['id']}  {usage}  {result['status']}{words}"


def _why(result: Mapping[str, Any]) -> str:
    """Return the words of a result beside its identifier."""
    return str(result["words"].removeprefix(f"{result['id']}: "))
