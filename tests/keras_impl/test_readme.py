"""The README's and the docs' Python runs as it is printed, and they name tests that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import pytest

from tests.fresh_process import environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
DOCS = sorted((ROOT / "docs").rglob("*.md"))
SNIPPETS = [
    pytest.param(page.name, number, snippet, id=f"{page.relative_to(ROOT / 'docs')}-{number}")
    for page in DOCS
    if page.name != "audit.md"  # what is wrong, and is reviewed and not run
    for number, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "number", "snippet"), SNIPPETS)
def test_snippet_runs_as_printed(page: str, number: int, snippet: str) -> None:
    exec(compile(snippet, f"{page}, snippet {number}", "exec"), {"__name__": "__main__"})


# Each block with names of its own, as in a file of its own; one with tests as a file of pytest.
RUN_BLOCKS = """
import json, pathlib, sys
for number, block in enumerate(json.load(sys.stdin)):
    name = f"README.md, block {number}"
    if "def test_" not in block:
        exec(compile(block, name, "exec"), {"__name__": "__main__"})
        continue
    import pytest
    pathlib.Path("test_block.py").write_text(block, encoding="utf-8")
    assert pytest.main(["-q", "-p", "no:cacheprovider", "test_block.py"]) == 0, name
"""


def test_the_readme_runs_where_one_backend_is_installed(backend: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_BLOCKS],
        input=json.dumps([block for language, block in BLOCKS if language == "python"]),
        env=environment(backend, KERAS_HOME=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def console(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with what is printed for it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert not parts[0], "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def start(command: str, backend: str) -> subprocess.Popen[str]:
    program, *arguments = shlex.split(command)
    assert program == "sae-oracle", f"no test knows how to run: {command}"
    return subprocess.Popen(
        [sys.executable, "-m", "sae_oracle", *arguments],
        env=environment(backend, COLUMNS="80"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.only_backends("jax")
def test_the_readmes_commands_do_what_it_says() -> None:
    """`pip` and `make` name what there is; the rest runs on the backend that it exports."""
    assert {language for language, _ in BLOCKS} == {"console", "python", "math"}
    blocks = [block for language, block in BLOCKS if language == "console"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ran, backend = 0, None
    for command, expected in (part for block in blocks for part in console(block)):
        if command.startswith("pip install "):
            (extra,) = re.fullmatch(r'pip install "sae-oracle\[(\w+)\]"', command).groups()
            assert extra in project["optional-dependencies"]
        elif command.startswith("export "):
            (backend,) = re.fullmatch(r"export KERAS_BACKEND=(\w+)", command).groups()
            assert backend == extra == keras.config.backend()
        elif command.startswith("make "):
            assert f"\n{command.split()[1]}: " in makefile
        else:
            printed = start(command, backend).communicate(timeout=300)[0]
            assert printed.rstrip() == expected.rstrip(), command
            assert len(printed.splitlines()) == 5  # the whole of it
            ran += 1
    assert ran


@pytest.mark.only_backends("tensorflow")
def test_the_reviews_print_what_the_page_says() -> None:
    page = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
    if keras.__version__ not in page:
        pytest.skip("what is printed is another Keras's")
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    parts = [part for block in blocks for part in console(block)]
    assert len(parts) >= 3
    started = [(start(command, "tensorflow"), command, expected) for command, expected in parts]
    for process, command, expected in started:
        printed = process.communicate(timeout=300)[0]
        assert printed.rstrip() == expected.rstrip(), command


@pytest.mark.only_backends("torch")
def test_every_test_that_they_name_exists() -> None:
    named = []
    for page in [ROOT / "README.md", *DOCS]:
        text = page.read_text(encoding="utf-8")
        named += re.findall(r"`(?:tests/[\w/]*)?(test_\w+\.py)(?:::(\w+))?`(?:, `::(\w+)`)?", text)
    assert len(named) >= 15
    for file, first, second in named:
        paths = list((ROOT / "tests").rglob(file))
        assert len(paths) == 1, file
        for name in filter(None, (first, second)):
            assert f"def {name}(" in paths[0].read_text(encoding="utf-8"), name
