"""The list of mutants is a list of mistakes in the code as it is now."""

from __future__ import annotations

from tests.mutants import MUTANTS, check_mutants, reason_for


def test_no_mutant_has_gone_stale_and_no_two_are_the_same() -> None:
    check_mutants()
    assert len({mutant.mistake for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.right != mutant.wrong for mutant in MUTANTS)


def test_a_surviving_change_is_explained_only_if_it_is_known_to_be_equivalent() -> None:
    assert reason_for("+ for a, b in zip(x, y, strict=False):") is not None
    assert reason_for("+ return rho * (np.log(rho) + log_rho_hat)") is None
