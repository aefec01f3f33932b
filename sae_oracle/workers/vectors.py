"""Asks one implementation its vectors, in a process that `sae_oracle.conformance` starts.

Says first what it takes the implementation for, then each vector that it is about to ask, and the
answer: whoever started it judges, so that what a crash or an endless loop was asked is known.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import numpy as np

from keras_impl.backends.process import full_float32_products
from sae_oracle.conformance.vectors import Judgement, Vector, read_vectors
from sae_oracle.reviewer.loading import loaded
from sae_oracle.reviewer.target import CouldNotReviewError, described
from sae_oracle.workers import channel
from sae_oracle.workers.channel import say
from sae_oracle.workers.subjects import Question, Subject, held, subject_of

LIBRARIES = ("numpy", "keras", "jax", "tensorflow", "torch")


def main() -> None:
    """Ask the target of the request."""
    request = channel.request
    vectors = read_vectors()
    asked = set(request["asked"])
    full_float32_products()
    say({"kind": "stage", "doing": f"importing {request['target']}"})
    try:
        thing = loaded(request["target"])
        say({"kind": "stage", "doing": f"calling {request['target']}"})
        question = Question(
            thing,
            request["settings"],
            request["said"],
            request["kind"],
            request["called_directly"],
            request["target"],
        )
        subject = subject_of(question, spread(vectors))
    except CouldNotReviewError as reason:
        say({"kind": "error", "error": str(reason), "status": 2})
        return
    except BaseException as error:
        say({"kind": "error", "error": f"it raised {described(error)}", "status": 2})
        return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if name in sys.modules}
    import keras

    say(
        {
            "kind": "subject",
            "of": subject.kind,
            "labels": subject.labels,
            "format": subject.precision,
            "guesses": list(dict.fromkeys(subject.guesses)),
            "versions": versions,
            "backend": keras.config.backend(),
        }
    )
    for vector in vectors:
        if vector.identifier in asked and vector.label in subject.labels:
            _ask(subject, vector)
    say({"kind": "result"})


def spread(vectors: list[Vector]) -> list[Vector]:
    """Return four usual vectors of each label."""
    chosen: dict[str, list[Vector]] = {}
    for vector in vectors:
        if "float32" in vector.formats and not vector.flags:
            chosen.setdefault(vector.label, []).append(vector)
    return [vector for of_label in chosen.values() for vector in of_label[:4]]


def _ask(subject: Subject, vector: Vector) -> None:
    say({"kind": "asking", "id": vector.identifier, "doing": f"answering {vector.identifier}"})
    try:
        found = held(subject, vector)
    except BaseException as error:  # of anybody's code
        found = Judgement("failed", None, f"{vector.identifier}: it raised {described(error)}")
    message: dict[str, Any] = {"kind": "answer", "id": vector.identifier}
    if isinstance(found, Judgement):
        message |= {"status": found.status, "words": found.words}
    else:
        message["outputs"] = {
            name: np.asarray(value, dtype=np.float64).tolist() for name, value in found.items()
        }
    say(message)


if __name__ == "__main__":
    main()
