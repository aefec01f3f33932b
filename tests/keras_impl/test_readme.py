"""The README's Python runs as it is printed, and names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs_as_printed(number: int) -> None:
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {})


@pytest.mark.only_backends("torch")
def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`(?:, `::(\w+)`)?", TEXT)
    assert len(named) >= 9
    for file, first, second in named:
        paths = list((ROOT / "tests").rglob(file))
        assert len(paths) == 1, file
        for name in filter(None, (first, second)):
            assert f"def {name}(" in paths[0].read_text(encoding="utf-8"), name
