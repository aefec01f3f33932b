"""The list of mutants is a list of mistakes in the code as it is now."""

from __future__ import annotations

import dataclasses

import pytest

from tests.mutants import MUTANTS, check_mutants, reason_for


def test_no_mutant_has_gone_stale_and_no_two_are_the_same() -> None:
    check_mutants()
    assert len({mutant.mistake for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.right != mutant.wrong for mutant in MUTANTS)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("scale = 1.0", "scale = 2.0", "occurs 0 times"),
        ("scale = 2.0 / integer(", "scale = (", "occurs 2 times"),
        ("return batch_size if", "return (batch_size if", "invalid-syntax"),
        ("return batch_size if", "return _batch_size if", "Undefined name `_batch_size`"),
        ("    batch_size = integer(", "    batch_size = positive(", "name `positive`"),
    ],
    ids=["stale", "ambiguous", "no program", "a variable", "a function"],
)
def test_what_is_no_mutant_is_refused(right: str, wrong: str, problem: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.file == "keras_impl/units.py")
    planted = dataclasses.replace(mutant, mistake="planted", right=right, wrong=wrong)
    with pytest.raises(ValueError, match=problem) as raised:
        check_mutants([planted, mutant])
    assert "'planted'" in str(raised.value)
    assert mutant.mistake not in str(raised.value)


def test_a_surviving_change_is_explained_only_if_it_is_known_to_be_equivalent() -> None:
    assert reason_for("+ for a, b in zip(x, y, strict=False):") is not None
    assert reason_for("+ return rho * (np.log(rho) + log_rho_hat)") is None
