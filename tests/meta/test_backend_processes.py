"""Every way to call pytest in the table of tests/README.md, on a small project with no Keras."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backend_processes import COMPILING

ROOT = Path(__file__).parents[2]

CONFTEST = """
import os, sys, pytest
from tests import backend_processes
if os.environ.get("PROFILED"):
    sys.setprofile(lambda *arguments: None)
INSTALLED = os.environ.get("INSTALLED", "jax,torch,numpy").split(",")
backend_processes.installed = lambda name: name in INSTALLED

def pytest_addoption(parser):
    parser.addoption("--backends", default=None)
    parser.addoption("--every-case", action="store_true")

def pytest_configure(config):
    for line in ("inference: i", "only_backends(*names): o", "same_python: p", "slow: s"):
        config.addinivalue_line("markers", line)
    backend_processes.attach(config, where_shared={"SHARED": "yes"})

@pytest.fixture(scope="session", params=[os.environ.get("KERAS_BACKEND")])
def backend(request):
    return request.param
"""

OBJECTS = """
import os, warnings, pytest
BACKEND = os.environ["KERAS_BACKEND"]  # as with Keras, the parent cannot import it

@pytest.mark.inference
@pytest.mark.parametrize("size", [1, 2])
def test_sizes(size, backend):
    print(f"size {size} on {backend}")
    assert backend == BACKEND

class TestTorch:
    @pytest.mark.only_backends("torch")
    @pytest.mark.slow
    def test_alone(self):
        warnings.warn("torch is alone")

def test_unlike():
    if BACKEND == "torch":
        pytest.skip("not alike")
"""

FILE = "tests/keras_impl/test_objects.py"
SIZES = f"{FILE}::test_sizes"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("tests/keras_impl", "tests/reference", "keras_impl"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests/__init__.py").touch()
    for name in ("backend_processes.py", "one_backend.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests keras_impl\naddopts = --doctest-modules --strict-markers\n"
    )
    (tmp_path / "tests/reference/test_oracle.py").write_text("def test_oracle():\n    pass\n")
    (tmp_path / "keras_impl/losses.py").write_text('"""\n>>> 1 + 1\n2\n"""\n')
    (tmp_path / FILE).write_text(OBJECTS)
    return tmp_path


def run(folder: Path, *arguments: str, keys: str = "", **environment: str) -> tuple[int, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KERAS_BACKEND", "PYTEST_ADDOPTS")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        input=keys,
        capture_output=True,
        text=True,
        cwd=folder,
        # Of the installed plugins it needs none, and loading them takes most of the time.
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def outcome(text: str) -> str:
    """The last line of pytest, without the time."""
    return re.findall(r"((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", text)[-1]


def add(project: Path, backend: str, body: str) -> None:
    """A test `test_added` that does this on one backend, and passes on the others."""
    with (project / FILE).open("a") as file:
        file.write(f"def test_added():\n    if BACKEND == {backend!r}:\n        {body}\n")


def test_the_parent_has_imported_no_keras_whatever_it_collected() -> None:
    # In one process for all, with KERAS_BACKEND set, it has.
    assert os.environ.get("KERAS_BACKEND") or "keras" not in sys.modules


def test_every_backend_runs_and_is_summed_up(project: Path) -> None:
    code, text = run(project, "-rs", "--junitxml=out.xml")
    assert code == 0, text
    assert outcome(text) == "11 passed, 1 skipped, 1 warning"
    assert "torch is alone" in text
    assert "not alike" in text
    for line in (
        "backend jax: 4 passed, 0 failed, 0 skipped",
        "backend torch: 4 passed, 0 failed, 1 skipped",
        "backend numpy: 2 passed, 0 failed, 0 skipped",
        "backend tensorflow: not installed, not tested",
        "all backends: 10 passed, 0 failed, 1 skipped",
    ):
        assert line in text
    xml = (project / "out.xml").read_text()
    assert 'tests="12"' in xml
    assert 'name="losses[torch]"' in xml
    assert 'name="test_sizes[numpy-2]"' in xml


def test_collecting_lists_what_would_run(project: Path) -> None:
    (project / "tests/keras_impl/test_skipped.py").write_text(
        "import os, pytest\n"
        "if os.environ['KERAS_BACKEND'] == 'jax':\n"
        "    pytest.skip('not on jax', allow_module_level=True)\n"
        "def test_it():\n    pass\n"
    )
    code, text = run(project, "--collect-only", "-q", "-rs")
    assert code == 0
    assert text.splitlines()[:12] == [
        f"{SIZES}[jax-1]",
        f"{SIZES}[jax-2]",
        f"{FILE}::test_unlike[jax]",
        f"{SIZES}[torch-1]",
        f"{SIZES}[torch-2]",
        f"{FILE}::test_unlike[torch]",
        f"{SIZES}[numpy-1]",
        f"{SIZES}[numpy-2]",
        f"{FILE}::TestTorch::test_alone[torch]",
        "tests/keras_impl/test_skipped.py::test_it[torch]",
        "tests/reference/test_oracle.py::test_oracle",
        "keras_impl/losses.py::losses[jax]",
    ]
    assert "13 tests collected" in text
    assert "not on jax" in text


def test_selecting(project: Path) -> None:
    arguments = ["-k", "(sizes or alone) and not numpy", "-m", "inference or slow", "-v"]
    code, text = run(project, *arguments, "--deselect", f"{SIZES}[jax-1]", "-p", "no:cacheprovider")
    assert code == 0, text
    assert outcome(text) == "4 passed, 8 deselected, 1 warning"
    assert f"{SIZES}[jax-2] PASSED" in text
    assert f"{FILE}::TestTorch::test_alone[torch] PASSED" in text
    assert "backend numpy" not in text
    code, text = run(project, "--backends", "torch", FILE, "--deselect", SIZES)
    assert code == 0
    assert outcome(text) == "1 passed, 1 skipped, 2 deselected, 1 warning"


def test_the_oracle_alone_starts_no_backend(project: Path) -> None:
    code, text = run(project, "tests/reference")
    assert code == 0
    assert outcome(text) == "1 passed"
    assert "backend" not in text


def test_a_failure_is_pasted_and_comes_first_the_next_time(project: Path) -> None:
    add(project, "torch", "assert False, 'as on purpose'")
    failed = f"{FILE}::test_added[torch]"
    code, text = run(project)
    assert code == 1
    assert f"FAILED {failed} - AssertionError" in text
    assert "as on purpose" in text
    assert "backend torch: 4 passed, 1 failed, 1 skipped" in text
    assert "backend jax: 5 passed, 0 failed, 0 skipped" in text

    # An id that does not exist is an error of usage, and --lf does not learn it.
    code, text = run(project, f"{FILE}::test_added[numpy]")
    assert code == 4
    assert "ERROR: not found" in text

    code, text = run(project, "--lf")
    assert code == 1
    assert outcome(text) == "1 failed, 1 deselected"
    assert "rerun previous 1 failure" in text

    code, text = run(project, failed)
    assert code == 1
    assert outcome(text) == "1 failed"
    code, text = run(project, f"{FILE}::test_added[jax]", f"{SIZES}[jax-2]")
    assert code == 0
    assert outcome(text) == "2 passed"


def test_the_same_ids_in_the_process_of_keras_backend(project: Path) -> None:
    add(project, "torch", "assert False")
    for test in (
        f"{SIZES}[jax-2]",
        f"{FILE}::test_added[jax]",
        "keras_impl/losses.py::losses[jax]",
    ):
        code, text = run(project, test, KERAS_BACKEND="jax")
        assert (code, outcome(text)) == (0, "1 passed")
    # A run of everything is that of its children, whatever else is installed.
    code, text = run(project, KERAS_BACKEND="torch")
    assert code == 1
    assert outcome(text) == "1 failed, 5 passed, 1 skipped, 1 warning"
    assert "all backends: 4 passed, 1 failed, 1 skipped" in text
    for in_one_process in (["--pdb"], ["-s"], ["-k", "added or sizes"], [FILE], []):
        profiled = {} if in_one_process else {"PROFILED": "yes"}
        code, text = run(project, *in_one_process, KERAS_BACKEND="torch", **profiled)
        assert outcome(text).startswith("1 failed")
        assert "backend torch:" not in text
    # So is one of a folder that is not ours: what is there finds KERAS_BACKEND set.
    (project / "benchmarks").mkdir()
    (project / "benchmarks/test_time.py").write_text(
        "import os\ndef test_time():\n    assert os.environ['KERAS_BACKEND'] == 'torch'\n"
    )
    code, text = run(project, "benchmarks", KERAS_BACKEND="torch")
    assert (code, outcome(text)) == (0, "1 passed")
    code, text = run(project, "--lf", KERAS_BACKEND="torch")
    assert f"FAILED {FILE}::test_added[torch]" in text
    code, text = run(project, f"{FILE}::test_added[torch]", KERAS_BACKEND="jax")
    assert code == 4


def test_a_run_of_everything_shares_the_cases_of_two_backends(project: Path) -> None:
    (project / FILE).write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('size', range(20))\n"
        "def test_shared(size, backend):\n"
        "    assert (os.environ.get('SHARED') == 'yes') == (backend != 'torch')\n"
        "@pytest.mark.parametrize('size', range(3))\n"
        "def test_few(size):\n    pass\n"
        "@pytest.mark.only_backends('jax', 'torch')\n"
        "@pytest.mark.parametrize('size', range(5))\n"
        "def test_of_two(size):\n    pass\n"
        "@pytest.mark.same_python\n"
        "def test_python():\n    pass\n"
    )
    three = {"INSTALLED": "jax,tensorflow,torch"}
    code, text = run(project, "-v", "tests/keras_impl", **three)
    assert code == 0, text
    # Half of the others' each, and at least one; of cases of one of them, all.
    for test, cases in (("shared", 20), ("few", 3)):
        jax, tensorflow = ({*re.findall(rf"test_{test}\[{name}-(\d+)", text)} for name in COMPILING)
        assert abs(len(jax) - len(tensorflow)) == cases % 2
        assert not jax & tensorflow
        assert jax | tensorflow == {str(size) for size in range(cases)}
    assert outcome(text) == f"{40 + 6 + 10 + 1} passed, {20 + 3 + 2} deselected"
    assert "test_python[torch] PASSED" in text

    # Where they are not shared, the processes are as ever: the assertion fails on the two.
    for everything in (
        ["--every-case"],
        ["-k", "shared or few or two or python"],
        [FILE],
        ["-m", "not slow"],
    ):
        text = run(project, "tests/keras_impl", *everything, **three)[1]
        assert outcome(text).startswith("40 failed, 42 passed"), text
    text = run(project, "tests/keras_impl", "--backends", "jax,tensorflow", **three)[1]
    assert outcome(text).startswith("40 failed")


def test_a_backend_with_many_files_has_two_children(project: Path) -> None:
    """Each runs a file at a time, and sets up once what is of the session."""
    with (project / "conftest.py").open("a") as conftest:
        conftest.write(
            "os.cpu_count = lambda: 2\n"
            "@pytest.fixture(scope='session')\n"
            "def process():\n"
            "    with open(f'{os.getpid()}.log', 'a') as log:\n"
            "        yield log\n        print('ended', file=log)\n"
        )
    for number in range(12):
        (project / f"tests/keras_impl/test_{number}.py").write_text(
            "import time\n"
            "def test_it(process):\n"
            "    time.sleep(0.2)\n    print(__name__, file=process)\n"
        )
    code, text = run(project, "tests/keras_impl", KERAS_BACKEND="torch")
    assert code == 0, text
    assert outcome(text) == "15 passed, 1 skipped, 1 warning"
    logs = [path.read_text().split() for path in project.glob("*.log")]
    assert len(logs) == 2
    assert [log.count("ended") for log in logs] == [1, 1]
    ran = {name for log in logs for name in log[:-1]}
    assert ran == {f"test_{number}" for number in range(12)}


def test_a_failing_doctest_is_found_again_in_one_process(project: Path) -> None:
    (project / "keras_impl/losses.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')
    for _ in range(2):
        code, text = run(project, "--lf", "keras_impl", "tests/reference", KERAS_BACKEND="torch")
        assert code == 1
        assert "FAILED keras_impl/losses.py::losses[torch]" in text
    assert outcome(text) == "1 failed"


def test_backends_are_obeyed_or_refused(project: Path) -> None:
    code, text = run(project, "--backends", "jax,tourch")
    assert code == 4
    assert "--backends takes jax, tensorflow, torch, numpy, openvino; got 'tourch'" in text
    code, text = run(project, "--backends", "jax", KERAS_BACKEND="torch")
    assert code == 4
    assert "--backends is jax, but KERAS_BACKEND keeps everything on torch" in text
    code, text = run(project, "--backends", "torch", SIZES, KERAS_BACKEND="torch")
    assert (code, outcome(text)) == (0, "2 passed")


def test_paths(project: Path) -> None:
    code, text = run(project, "tests/keras_impl/test_objcts.py")
    assert code == 4
    assert "file or directory not found" in text
    code, text = run(project / "tests", "keras_impl/test_objects.py::test_sizes")
    assert (code, outcome(text)) == (0, "6 passed")


def test_stop_at_the_first_failure(project: Path) -> None:
    add(project, "jax", "assert False")
    with (project / FILE).open("a") as file:
        file.write("def test_slow():\n    import time\n    time.sleep(60)\n")
    code, text = run(project, "-x", "--backends", "jax,torch")
    assert code == 1
    assert "stopping after 1 failures" in text


def test_a_crash_fails_the_test_that_ran_and_no_other(project: Path) -> None:
    add(project, "torch", "os.abort()")
    with (project / FILE).open("a") as file:
        file.write("def test_after():\n    pass\n")
    (project / "tests/keras_impl/test_next.py").write_text("def test_next():\n    pass\n")
    code, text = run(project, "--backends", "jax,torch", "tests/keras_impl")
    assert code == 1
    assert f"The torch process ended with code -6 ({FILE}::test_added[torch])" in text
    assert "Fatal Python error: Aborted" in text
    assert "backend torch: 5 passed, 1 failed, 1 skipped" in text


def test_a_crash_outside_of_a_test(project: Path) -> None:
    add(project, "torch", "import atexit; atexit.register(os.abort)")
    code, text = run(project, "--backends", "torch", FILE)
    assert code == 1
    assert "The torch process ended with code -6 (outside of a test)" in text
    assert "backend torch: 4 passed, 0 failed, 1 skipped" in text
    with (project / FILE).open("a") as file:
        file.write("os.abort()\n")
    code, text = run(project, "--backends", "torch")
    assert code == 2
    assert "The torch process ended with code -6 (outside of a test)" in text


def test_an_import_error_is_an_error_of_collection(project: Path) -> None:
    (project / "tests/keras_impl/test_import.py").write_text("import no_such_module\n")
    code, text = run(project, "--backends", "jax,torch")
    assert code == 2
    assert "On jax, torch:" in text
    assert "ModuleNotFoundError: No module named 'no_such_module'" in text
    assert "1 error during collection" in text


def test_what_a_test_prints(project: Path) -> None:
    code, text = run(project, "-s", SIZES, "--backends", "jax")
    assert code == 0
    assert "size 2 on jax" in text
    code, text = run(project, SIZES, "--backends", "jax")
    assert "size 2 on jax" not in text


def test_the_debugger(project: Path) -> None:
    add(project, "torch", "local = 6; assert local == 7")
    code, text = run(project, "--pdb", "-k", "added", keys="p local * 7\nc\n")
    assert code == 1
    assert "(Pdb) 42" in text
    assert outcome(text) == "1 failed, 1 passed, 12 deselected"
    add(project, "torch", "local = 6; breakpoint()")
    code, text = run(project, FILE, "-k", "added", keys="p local * 7\nc\n")
    assert code == 0
    assert "(Pdb) 42" in text


@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="pytest-xdist is not installed")
@pytest.mark.parametrize(("path", "passed"), [("tests/reference", 1), (FILE, 6)])
def test_workers_of_xdist(project: Path, path: str, passed: int) -> None:
    code, text = run(project, "-p", "xdist", "-n", "2", "--backends", "jax,torch", path)
    assert code == 0, text
    assert outcome(text).startswith(f"{passed} passed")
