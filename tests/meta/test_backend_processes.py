"""The runner of `tests.backend_processes`, on a small project of its own with made-up tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFTEST = """
import os, pytest
from tests import backend_processes
backend_processes.installed = lambda name: name != "openvino"

def pytest_addoption(parser):
    parser.addoption("--backends", default=None)

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    for line in ("inference: i", "only_backends(*names): o"):
        config.addinivalue_line("markers", line)
    backend_processes.attach(config)

def pytest_collection_modifyitems(config, items):
    if os.environ.get("KERAS_BACKEND"):
        backend_processes.select_for_backend(config, items, os.environ["KERAS_BACKEND"])
"""

PASSING = """
import os, pytest
def test_one():
    assert os.environ["KERAS_BACKEND"] in ("jax", "tensorflow", "torch")
@pytest.mark.inference
def test_everywhere():
    pass
@pytest.mark.only_backends("torch")
def test_torch_alone():
    assert os.environ["KERAS_BACKEND"] == "torch"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("tests/keras_impl", "tests/reference", "keras_impl"):
        (tmp_path / folder).mkdir(parents=True)
    source = (ROOT / "tests" / "backend_processes.py").read_text()
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "backend_processes.py").write_text(source)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (tmp_path / "tests" / "reference" / "test_oracle.py").write_text("def test_two():\n    pass\n")
    (tmp_path / "tests" / "keras_impl" / "test_objects.py").write_text(PASSING)
    return tmp_path


def run(project: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KERAS_BACKEND", "SAE_ORACLE_REPORTS", "PYTEST_ADDOPTS")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True,
        text=True,
        cwd=project,
        # Of the installed plugins it needs none, and loading them takes most of the time.
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def break_on(project: Path, backend: str, how: str = "assert False") -> None:
    path = project / "tests" / "keras_impl" / "test_objects.py"
    text = path.read_text()
    path.write_text(
        text
        + f"def test_broken():\n    if os.environ['KERAS_BACKEND'] == {backend!r}:\n        {how}\n"
    )


def test_the_parent_has_imported_no_keras_whatever_it_collected() -> None:
    # In one process for all, with KERAS_BACKEND set, it has.
    assert os.environ.get("KERAS_BACKEND") or "keras" not in sys.modules


def test_every_backend_runs_and_is_summed_up(project: Path) -> None:
    code, text = run(project)
    assert code == 0, text
    assert "backend jax: 2 passed, 0 failed" in text
    assert "backend torch: 3 passed, 0 failed" in text
    assert "backend numpy: 1 passed, 0 failed" in text
    assert "backend openvino: not installed, not tested" in text
    assert "all backends: 8 passed, 0 failed, 0 skipped" in text
    assert re.search(r"= 9 passed in", text)


def test_a_failure_on_one_backend_fails_all_and_names_it(project: Path) -> None:
    break_on(project, "torch")
    code, text = run(project, "--backends", "jax,torch")
    assert code == 1
    assert "FAILED tests/keras_impl/test_objects.py::test_broken[torch]" in text
    assert "backend torch: 3 passed, 1 failed" in text
    assert "backend jax: 3 passed, 0 failed" in text


def test_pasted_ids_last_failed_k_and_paths(project: Path) -> None:
    break_on(project, "torch")
    code, text = run(project, "tests/keras_impl/test_objects.py::test_broken[torch]")
    assert code == 1
    assert "all backends: 0 passed, 1 failed" in text
    code, text = run(project, "tests/keras_impl/test_objects.py::test_broken[jax]")
    assert code == 0
    assert "all backends: 1 passed, 0 failed" in text
    run(project, "--backends", "jax,torch")
    code, text = run(project, "--lf", "--backends", "jax,torch")
    assert code == 1
    assert "all backends: 0 passed, 1 failed" in text
    code, text = run(project, "-k", "everywhere", "--backends", "jax,numpy")
    assert code == 0
    assert "all backends: 2 passed, 0 failed" in text
    code, text = run(project, "tests/reference")
    assert code == 0
    assert "all backends: 0 passed" in text
    code, text = run(project, "--backends", "torch")
    assert code == 1
    assert "backend torch: 3 passed, 1 failed" in text
    assert "backend jax" not in text


def test_stop_at_the_first_failure(project: Path) -> None:
    break_on(project, "jax")
    code, text = run(project, "-x", "--backends", "jax,torch")
    assert code != 0
    assert "stopping after 1 failures" in text


def test_a_crash_is_a_failure_with_what_it_was_running(project: Path) -> None:
    break_on(project, "tensorflow", "os.abort()")
    code, text = run(project, "--backends", "tensorflow")
    assert code == 1
    assert "The tensorflow process ended with code -6" in text
    assert "test_broken[tensorflow]" in text


def test_an_import_error_is_a_failure(project: Path) -> None:
    path = project / "tests" / "keras_impl" / "test_import.py"
    path.write_text("import no_such_module\n")
    code, text = run(project, "--backends", "jax")
    assert code != 0
    assert "no_such_module" in text
    assert "backend jax: 0 passed, 1 failed" in text


def test_a_skip_is_counted_and_says_why(project: Path) -> None:
    break_on(project, "torch", "pytest.skip('no GPU')")
    code, text = run(project, "-ra", "--backends", "torch")
    assert code == 0, text
    assert "backend torch: 3 passed, 0 failed, 1 skipped" in text
    assert "no GPU" in text
    assert "1 skipped" in text.splitlines()[-1]


def test_with_keras_backend_set_all_runs_in_one_process(project: Path) -> None:
    code, text = run(project, KERAS_BACKEND="torch")
    assert code == 0
    assert "4 passed" in text
    assert "backend torch" not in text


def test_collect_only_lists_every_backends_tests(project: Path) -> None:
    code, text = run(project, "--co", "-q", "--backends", "jax,torch")
    assert code == 0
    assert "tests/keras_impl/test_objects.py::test_one[jax]" in text
    assert "tests/keras_impl/test_objects.py::test_torch_alone[torch]" in text
    assert "test_torch_alone[jax]" not in text


def test_junit_has_every_backends_tests(project: Path) -> None:
    code, _ = run(project, "--junitxml=out.xml")
    assert code == 0
    xml = (project / "out.xml").read_text()
    assert 'tests="9"' in xml
    assert "test_one[tensorflow]" in xml
