"""One review, in a process of its own, which `sae_oracle.review_command` starts and limits.

Takes the arguments of `review` from the channel and says there what it is about to do, and at last
the review. Standard output belongs to the code under review.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from keras_impl.backends.process import full_float32_products
from sae_oracle.reviewer import Review, review
from sae_oracle.reviewer.check_replicas import prepare_replicas
from sae_oracle.reviewer.findings import finding
from sae_oracle.reviewer.loading import loaded
from sae_oracle.reviewer.program import PROTOCOL, Program
from sae_oracle.reviewer.target import CouldNotReviewError, described, is_our_own
from sae_oracle.workers import channel
from sae_oracle.workers.channel import say


def main() -> None:
    """Review the target of the request."""
    request = channel.request
    import keras

    location = request.pop("target")
    sys.path += [folder for folder in request.pop("path", ()) if folder not in sys.path]
    command = request.pop("command", None)
    failed = {"target": location, "kind": "", "backend": keras.config.backend()}
    if request.get("replicas"):
        prepare_replicas()
    full_float32_products()
    say({"kind": "stage", "doing": f"importing {location}"})
    try:
        thing = Program(command) if command else loaded(location)
        doing = f"waiting for {location}: {PROTOCOL}" if command else f"calling {location}"
        say({"kind": "stage", "doing": doing})
        found = review(thing, name=location, **request)
    except CouldNotReviewError as reason:
        found = Review(**failed, reason=str(reason))
    except BaseException as error:
        words = f"the review ended with {described(error)}"
        found = Review(**failed, reason=words, crashed=is_our_own(error))
    bound = [f for f in found.findings if f.identifier == "SAE601"]
    # What an exception is called if other backends do not raise it.
    other = (
        finding("SAE602", bound[0].evidence, f"(It raises on {found.backend}.)") if bound else None
    )
    say(
        {
            "kind": "result",
            "review": found.as_dict(),
            "on_one_backend": None if other is None else asdict(other),
        }
    )


if __name__ == "__main__":
    main()
