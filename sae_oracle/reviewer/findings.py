"""`Finding` and `Review`: what a review returns, as objects and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sae_oracle.catalogue import BY_IDENTIFIER


@dataclass(frozen=True)
class Evidence:
    """One observation that shows a finding.

    Args:
        input: What went in, in words.
        expected: What the equation says.
        got: What came out.
        ratio: got / expected, where both are numbers and it says something.
    """

    input: str
    expected: str
    got: str
    ratio: str = ""


@dataclass(frozen=True)
class Finding:
    """One mistake, named.

    Args:
        identifier: Such as "SAE105"; see docs/findings.md.
        severity: "error" or "warning".
        message: What is wrong, in the user's terms.
        evidence: What shows it; empty where the source code does.
        source: The equation or document that it violates.
        fix: What to do.
        alternatives: Other explanations of the same numbers, less likely ones.
        file: Where its source is, from the working folder; empty if it has none.
        line: The line there, from 1; 0 without a file.
        help: Where it is explained; `sae-oracle explain` prints it.
    """

    identifier: str
    severity: str
    message: str
    evidence: Evidence | None
    source: str
    fix: str
    alternatives: tuple[str, ...] = ()
    file: str = ""
    line: int = 0
    help: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Finding:
        """Return the finding of these plain values."""
        seen = values["evidence"]
        proof = None if seen is None else Evidence(**seen)
        return cls(**{**values, "evidence": proof, "alternatives": tuple(values["alternatives"])})

    def __str__(self) -> str:
        lines = [f"{self.identifier} {self.severity}: {self.message}"]
        if self.evidence is not None:
            seen = self.evidence
            ratio = f" (ratio {seen.ratio})" if seen.ratio else ""
            lines.append(f"  {seen.input}: expected {seen.expected}, got {seen.got}{ratio}")
        lines += [f"  or: {other}" for other in self.alternatives]
        return "\n".join([*lines, f"  {self.source}", f"  fix: {self.fix}"])


def finding(
    identifier: str,
    evidence: Evidence | None = None,
    detail: str = "",
    alternatives: tuple[str, ...] = (),
) -> Finding:
    """Return the finding of a mistake in the catalogue.

    >>> finding("SAE109").severity
    'error'
    """
    mistake = BY_IDENTIFIER[identifier]
    message = f"{mistake.title} {detail}" if detail else mistake.title
    return Finding(
        identifier,
        mistake.severity,
        message,
        evidence,
        mistake.source,
        mistake.fix,
        alternatives,
        help=f"docs/findings.md#{identifier.lower()}",
    )


@dataclass(frozen=True)
class Review:
    """What was found on one backend.

    Args:
        target: Its name.
        kind: "regularizer", "layer", "loss" or "model".
        backend: The backend of Keras that it ran on.
        findings: The mistakes; none if it conforms.
        guesses: What was guessed and not said, such as which argument is ρ.
        notes: What is worth knowing and no mistake.
        checks: What was checked.
        reason: Why it could not be reviewed; empty if it was.
        crashed: Whether that is a mistake of the reviewer.

    >>> Review("my_module:MyPenalty", "regularizer", "jax").conforms
    True
    """

    target: str
    kind: str
    backend: str
    findings: tuple[Finding, ...] = ()
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    reason: str = ""
    crashed: bool = False

    @property
    def conforms(self) -> bool:
        """Whether it was reviewed and nothing is wrong."""
        return not self.findings and not self.reason

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The identifiers of the findings."""
        return tuple(found.identifier for found in self.findings)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Review:
        """Return the review of these plain values, which `as_dict` gave."""
        held: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        held["findings"] = tuple(map(Finding.of, values["findings"]))
        return cls(**held)

    def as_dict(self) -> dict[str, Any]:
        """Return the review as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.reason:
            return f"{self.target}: could not be reviewed: {self.reason}"
        if not self.findings:
            return f"{self.target} ({self.kind}, {self.backend}): conforms"
        lines = [f"{self.target} ({self.kind}, {self.backend}): {len(self.findings)} findings"]
        lines += [f"  {line}" for line in self.guesses]
        lines += [textwrap.indent(str(found), "  ") for found in self.findings]
        return "\n".join(lines)
