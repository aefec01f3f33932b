"""What is built has what it should have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.fresh_process import ROOT

TOP = (
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    ".pre-commit-config.yaml", ".gitignore", "conftest.py", "constraints.txt", "pyproject.toml",
)  # fmt: skip

BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


def test_the_source_distribution_has_every_file_and_the_wheel_the_packages(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tracked = {name for name in git.stdout.splitlines() if (ROOT / name).is_file()}
    if not tracked:
        pytest.skip("not a clone")
    source = tmp_path / "source"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for kind in ("sdist", "wheel"):
        done = subprocess.run(
            [sys.executable, "-c", BUILD.format(kind), str(tmp_path)],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert "warning: no files found" not in done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    assert set(TOP) <= names
    assert tracked - names == set()
    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True
    ).stdout
    packages = {line.split("/")[0] for line in listed.splitlines()[1:] if "/" in line.split()[0]}
    assert {name for name in packages if "dist-info" not in name} == {
        "reference", "keras_impl", "sae_oracle",
    }  # fmt: skip
    for name in ("reference", "keras_impl", "sae_oracle"):
        assert f"{name}/py.typed" in listed
