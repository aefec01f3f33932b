"""Which vectors each mistake fails: those of the reviewer's corpus, and those planted in formulas.

    KERAS_BACKEND=torch python -m tests.sae_oracle.reviewer.caught --write

writes docs/caught.md; without --write it prints it. Rows of specimens that the page has are kept:
--anew asks every specimen again, in three minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_oracle.conformance.vectors import Judgement, Vector, judge, read_vectors
from sae_oracle.reviewer.loading import loaded
from sae_oracle.workers.subjects import Question, held, subject_of
from sae_oracle.workers.vectors import spread
from tests.sae_oracle import formula_mutants
from tests.sae_oracle.reviewer.corpus.cases import WRONG, Case

PAGE = Path(__file__).parents[3] / "docs" / "caught.md"

OF_THE_SUITE = "## Mutants of the suite\n"
"""What `suite_mutants` writes into the page begins so."""

NUMERICAL = ("SAE1", "SAE2", "SAE3", "SAE4")
"""How the findings begin that are of numbers: not of half precision, backends, state or saving."""

# Means nearer to 0 than an edge that some do not say that they have: those fail these two, whatever
# else is wrong with them.
NEAR_ZERO = ("EQ-SPARSITY-c9353d8f", "EQ-SPARSITY-b68fb19c")

# Why a specimen with a wrong number fails none.
NOT_CAUGHT = {
    "its autoencoder": "its sizes are fixed, 576-250-576; its regularizer fails, in the row above",
    "relu_model": "it is right inside (0, 1); its regularizer is NoGuard, which fails",
    "SparseConvolutionOverChannels": "it takes images, and no vector is of images",
    "model_with_two_penalties_and_one_wrong": (
        "its ρ and its sizes are fixed; its penalty is WrongAxis, which fails"
    ),
    "functions.of_a_kernel": "it is a penalty of weights",
    "TiedModelUndocumented": "its numbers are right: it does not say how often a weight counts",
}


def question_of(case: Case) -> Question:
    """How the reviewer is asked about a specimen."""
    given: dict[str, Any] = {"settings": {}, "kind": None, "called_directly": False, **case.options}
    return Question(
        loaded(case.thing) if isinstance(case.thing, str) else case.thing,
        given["settings"],
        {role: given.get(role) for role in ("rho", "beta", "weight_decay")},
        given["kind"],
        given["called_directly"],
        case.name,
    )


def judgements(case: Case, vectors: Sequence[Vector]) -> Iterator[tuple[Vector, Judgement]]:
    """What the answers of a specimen to the vectors are worth, those of its labels alone."""
    subject = subject_of(question_of(case), spread(vectors))
    for vector in vectors:
        if vector.label in subject.labels:
            found = held(subject, vector)
            answered = not isinstance(found, Judgement)
            yield vector, judge(vector, found, subject.precision) if answered else found


def numerical() -> list[Case]:
    """The specimens with a wrong number."""
    return [
        case
        for case in WRONG
        if any(name.startswith(NUMERICAL) for names in case.expected for name in names)
    ]


def recorded() -> dict[str, str]:
    """The rows of the page, by the name of the specimen."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return {line.split(" | ")[0][2:]: line for line in lines if " | SAE" in line}


def page(kept: Mapping[str, str]) -> str:
    """Return docs/caught.md, with rows that are kept."""
    vectors = read_vectors()
    lines = [
        "# Which vectors a mistake fails",
        "",
        "Written by `python -m tests.sae_oracle.reviewer.caught --write`, on torch. Each specimen",
        "of the reviewer's corpus with a wrong number ([findings](findings.md)), and the first",
        "[vector](vectors.md) that it fails. A tied layer by itself answers no vector.",
        "",
        "| specimen | its mistakes | first vector that it fails | failed | passed |",
        "|---|---|---|---|---|",
    ]
    for case in numerical():
        if case.name in kept:
            lines.append(kept[case.name])
            continue
        mistakes = " ".join("/".join(sorted(names)) for names in case.expected)
        if case.name in NOT_CAUGHT:
            lines.append(f"| {case.name} | {mistakes} | none: {NOT_CAUGHT[case.name]} | | |")
            continue
        found = list(judgements(case, vectors))
        failed = [vector.identifier for vector, j in found if j.status == "failed"]
        passed = sum(j.status == "passed" for _, j in found)
        first = next((name for name in failed if name not in NEAR_ZERO), (failed or ["none"])[0])
        row = (case.name, mistakes, first, len(failed), passed)
        lines.append("| " + " | ".join(map(str, row)) + " |")
    lines += [
        "",
        "Every sign, operation and number of the oracle's formulas, changed one at a time",
        "(`python -m tests.sae_oracle.formula_mutants` lists them). The others change no number",
        "that is compared.",
        "",
        "| function | changes | fail a vector |",
        "|---|---|---|",
    ]
    for function in formula_mutants.functions():
        order = formula_mutants.in_order(function, vectors)
        found_in = [formula_mutants.failing(m, order) for m in formula_mutants.mutants_of(function)]
        name = f"{function.__module__}.{function.__name__}"
        if found_in:
            caught = sum(vector is not None for vector in found_in)
            lines.append(f"| `{name}` | {len(found_in)} | {caught} |")
    _, heading, rest = PAGE.read_text(encoding="utf-8").partition(OF_THE_SUITE)
    return "\n".join(lines) + "\n\n" + heading + rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/caught.md")
    parser.add_argument("--anew", action="store_true", help="ask every specimen again")
    arguments = parser.parse_args()
    text = page({} if arguments.anew else recorded())
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
