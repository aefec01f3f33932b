"""Versions are pinned in constraints.txt, for the tests, and nowhere else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pyproject_has_lower_bounds_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    for requirement in requirements:
        if requirement.startswith("sae-oracle["):
            continue
        assert requirement.count(">=") == 1, requirement
        assert not set("<=~!,") & set(requirement.replace(">=", "")), requirement


def test_constraints_pin_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    extras = [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in [*project["dependencies"], *extras]:
        name = re.split(r"\[|>=", requirement)[0]
        assert name == "sae-oracle" or name in pinned, name
