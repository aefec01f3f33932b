"""The distribution's names: their version, and other people's packages that are called the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import reference
from sae_oracle.processes import installed
from tests.fork_server import Forks
from tests.fresh_process import NAMES, ROOT, crowd, environment, with_foreign_names


def python(
    *arguments: str, folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
        timeout=300,
    )


def test_the_version_is_that_of_the_project_everywhere(
    tmp_path: Path, servers: Callable[[str], Forks]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall("^version: (.*)$", citation, re.MULTILINE) == [project["version"]]
    program = (
        "import keras_impl, reference, sae_oracle\n"
        "print(keras_impl.__version__, reference.__version__, sae_oracle.__version__)"
    )
    assert servers("numpy").run(program).split() == [project["version"]] * 3
    # As `sae-oracle` does: a working folder with a `sae_oracle` too changes nothing.
    crowd(tmp_path, (*NAMES, "sae_oracle/__init__.py"))
    variables = with_foreign_names(environment())
    done = python("-P", "-m", "sae_oracle", "--version", folder=tmp_path, variables=variables)
    assert done.stdout == f"sae-oracle {project['version']}\n", done.stderr


THEIRS = """
import importlib
import sys
FIRST
import keras_impl
from sae_oracle import assert_conforms
assert_conforms(keras_impl.KLSparsityRegularizer(rho=0.05, beta=3.0), rho=0.05, beta=3.0)
import reference
import reference.other
assert reference.theirs and reference.other.theirs
assert not [name for name in sys.modules if name.startswith("reference.") and "other" not in name]
"""


@pytest.mark.skipif(not installed("numpy"), reason="Keras's NumPy needs JAX")
@pytest.mark.parametrize("first", ["import reference", ""], ids=["imported before", "after"])
def test_a_project_with_a_reference_of_its_own_keeps_it(first: str, tmp_path: Path) -> None:
    """`assert_conforms` of the pytest plugin runs in the project's own process."""
    (tmp_path / "reference").mkdir()
    for name in ("__init__", "other"):
        (tmp_path / "reference" / f"{name}.py").write_text("theirs = True\n", encoding="utf-8")
    variables = environment("numpy")
    variables["PYTHONPATH"] = f"{tmp_path}:{variables['PYTHONPATH']}"
    done = python("-c", THEIRS.replace("FIRST", first), folder=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr


def test_vendoring_as_the_page_says(tmp_path: Path) -> None:
    """Under another name, beside another's `reference`, with the same numbers."""
    page = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "mine").mkdir()
    command = f"set -e\nsae_oracle={ROOT}\n{block}"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=60)
    crowd(tmp_path, NAMES)
    program = (
        "from mine import oracle\n"
        "print(oracle.kl_divergence(0.05, 0.2), len(oracle.equations()), oracle.__file__)"
    )
    variables = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = python("-c", program, folder=tmp_path, variables=variables)
    value, count, file = done.stdout.split()
    assert float(value) == reference.kl_divergence(0.05, 0.2)
    assert int(count) == len(reference.equations())
    assert file == str(tmp_path / "mine" / "oracle" / "__init__.py")
