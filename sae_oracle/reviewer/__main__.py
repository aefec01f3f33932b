"""`python -m sae_oracle.reviewer REQUEST RESULT`: one review, in a process of its own.

Reads the arguments of `review` from a JSON file and writes JSON lines to another: what it is
about to do, and at last the review. Standard output belongs to the code under review. Started by
`sae_oracle.review_command`, which knows the time limit.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_impl.backends.process import full_float32_products
from sae_oracle.reviewer import Review, review
from sae_oracle.reviewer.check_replicas import prepare_replicas
from sae_oracle.reviewer.findings import finding
from sae_oracle.reviewer.loading import loaded
from sae_oracle.reviewer.program import Program
from sae_oracle.reviewer.target import CouldNotReviewError, described


def main() -> None:
    """Review the target of the request."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = Path(sys.argv[2])

    def write(**message: Any) -> None:
        with result.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")

    import keras

    location = request.pop("target")
    command = request.pop("command", None)
    failed = {"target": location, "kind": "", "backend": keras.config.backend()}
    if request.get("replicas"):
        prepare_replicas()
    full_float32_products()
    write(kind="stage", doing=f"importing {location}")
    try:
        thing = Program(command) if command else loaded(location)
        write(kind="stage", doing=f"calling {location}")
        found = review(thing, name=location, **request)
    except CouldNotReviewError as reason:
        found = Review(**failed, reason=str(reason))
    except BaseException as error:
        found = Review(**failed, reason=f"the review ended with {described(error)}")
    bound = [f for f in found.findings if f.identifier == "SAE601"]
    write(
        kind="review",
        review=found.as_dict(),
        # What an exception is called if other backends do not raise it.
        on_one_backend=asdict(
            finding("SAE602", bound[0].evidence, f"(It raises on {found.backend}.)")
        )
        if bound
        else None,
    )


if __name__ == "__main__":
    main()
