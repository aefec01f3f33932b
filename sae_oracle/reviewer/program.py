"""A program in any language as a penalty: one question a line in, one answer a line out.

The question is a JSON object, `{"activations": [[...], ...], "rho": 0.1, "beta": 3.0}`, a row a
sample. The answer is `{"value": 1.5}`, or `{"value": 1.5, "gradient": [[...], ...]}` with the
derivative by each activation. `null` is NaN. The program answers each line before it reads the
next, and ends when there are no more.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_oracle.reviewer.check_penalty import probes
from sae_oracle.reviewer.foreign import Code, CodePenalty
from sae_oracle.reviewer.frameworks import FRAMEWORKS
from sae_oracle.reviewer.reading import Reading, Signature
from sae_oracle.reviewer.target import CouldNotReviewError, Target

PROTOCOL = (
    'it reads lines {"activations": [[...]], "rho": 0.1, "beta": 3.0} and answers each with a line '
    '{"value": 1.5} before it reads the next (docs/review.md)'
)


class Program:
    """A command that answers questions on its standard output.

    Args:
        command: The program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.name = " ".join(command)
        self._command = list(command)
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one question.

        Raises:
            CouldNotReviewError: If there is none, or it is no answer.
        """
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            except OSError as error:
                raise CouldNotReviewError(f"{self.name} cannot be started: {error}") from error
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise CouldNotReviewError(f"{self.name} ended without an answer: {PROTOCOL}")
        try:
            answer = json.loads(line)
            value = answer["value"]
        except (ValueError, KeyError, TypeError):
            raise CouldNotReviewError(
                f"{self.name} answered {line.strip()[:80]!r}: {PROTOCOL}"
            ) from None
        answer["value"] = float("nan") if value is None else float(value)
        return dict(answer)


class ProgramPenalty(CodePenalty):
    """What a program answers, as a penalty."""

    def __init__(self, target: Target, code: Code, reading: Reading, program: Program) -> None:
        super().__init__(target, code, reading)
        self.program = program
        self.has_gradients = "gradient" in self._answer(probes("activations")[0], 0.1, 3.0)

    def _answer(self, x: Any, rho: float, beta: float) -> dict[str, Any]:
        return self.program.ask({"activations": np.asarray(x).tolist(), "rho": rho, "beta": beta})

    def _scalar(self, data: Any, rho: float, beta: float) -> Any:
        return self._answer(data, rho, beta)["value"]

    def gradient(self, x: Any, rho: float, beta: float) -> Any:
        """Return the derivative by each activation: the answer's, or by differences."""
        if not self.has_gradients:
            return self._differences(np.asarray(x), rho, beta)
        given = self._answer(x, rho, beta).get("gradient")
        gradient = np.array(given, dtype=np.float64)  # null is NaN
        if gradient.size != np.size(x):
            raise ValueError(f"a gradient of shape {gradient.shape} for {np.shape(x)}")
        return gradient.reshape(np.shape(x))


def target_of(program: Program) -> Target:
    """Return a program as a target: ρ and β are part of every question."""
    reading = Reading("activations", {"activations": "activations"}, {"rho": "rho", "beta": "beta"})
    code = Code(
        program.name,
        None,
        FRAMEWORKS["numpy"],
        Signature(["activations", "rho", "beta"]),
        lambda _: program.ask,
        values={"rho": 0.1, "beta": 3.0},
        readings=[reading],
        penalty=lambda target, code, reading: ProgramPenalty(target, code, reading, program),
    )
    return Target(program.name, "", None, lambda **_: program, code=code)
