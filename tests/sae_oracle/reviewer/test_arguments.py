"""What `review` takes: any object as any argument is refused by name, or makes sense."""

from __future__ import annotations

import inspect

import pytest

from keras_impl import KLSparsityRegularizer
from sae_oracle import review
from sae_oracle.reviewer.arguments import check_arguments
from tests.fuzz import kinds_of, wrong


def test_any_object_as_any_argument() -> None:
    names = [*inspect.signature(check_arguments).parameters]
    assert set(names) == {*inspect.signature(review).parameters} - {"thing"}
    right = {**dict.fromkeys(names), "called_directly": False, "replicas": False, "ignore": ()}
    # A string is the name of an argument of the target.
    kinds = {**kinds_of(names), **dict.fromkeys(("rho", "beta", "weight_decay"), "anything")}
    found = [*wrong(check_arguments, lambda: right, kinds)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "named",
    [{"rho": 2.0}, {"rho": 10**400}, {"beta": -1.0}, {"weight_decay": float("nan")},
     {"kind": "optimizer"}, {"ignore": 5}, {"ignore": "SAE402"}, {"ignore": [[]]},
     {"settings": 3}, {"replicas": "x"}, {"activation": 1.0}],
    ids=str,
)  # fmt: skip
def test_right_code_is_not_accused_of_a_wrong_argument(named: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(named))}`"):
        review(KLSparsityRegularizer(0.05, 3.0), **named)
