"""The README's and the docs' Python runs as it is printed, and they name tests that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.fresh_process import environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
DOCS = sorted((ROOT / "docs").glob("*.md"))
SNIPPETS = [
    pytest.param(page.name, number, snippet, id=f"{page.name}-{number}")
    for page in DOCS
    for number, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "number", "snippet"), SNIPPETS)
def test_snippet_runs_as_printed(page: str, number: int, snippet: str) -> None:
    exec(compile(snippet, f"{page}, snippet {number}", "exec"), {"__name__": "__main__"})


# Each block with names of its own, as in a file of its own.
RUN_BLOCKS = """
import json, sys
for number, block in enumerate(json.load(sys.stdin)):
    exec(compile(block, f"README.md, block {number}", "exec"), {"__name__": "__main__"})
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
    assert done.returncode == 0, done.stderr


def console(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with what is printed for it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert not parts[0], "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.only_backends("tensorflow")
@pytest.mark.skipif(keras.__version__ not in README, reason="what is printed is another Keras's")
def test_the_readmes_commands_print_what_it_says() -> None:
    """All at once; `export` has said before any Python which backend it is."""
    assert {language for language, _ in BLOCKS} == {"console", "python"}
    assert BLOCKS[0][0] == "console"
    assert re.fullmatch(r"\$ export KERAS_BACKEND=(jax|tensorflow|torch)\n", BLOCKS[0][1])
    started = []
    blocks = [block for language, block in BLOCKS[1:] if language == "console"]
    for command, expected in (part for block in blocks for part in console(block)):
        program, *arguments = shlex.split(command)
        assert program == "sae-oracle", f"no test knows how to run: {command}"
        process = subprocess.Popen(
            [sys.executable, "-m", "sae_oracle", *arguments],
            env=environment("tensorflow", COLUMNS="120"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append((command, expected, process))
    for command, expected, process in started:
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
