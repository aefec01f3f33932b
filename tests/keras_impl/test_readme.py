"""The README's and the docs' Python runs as it is printed, and they name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(page.name, number, snippet, id=f"{page.name}-{number}")
    for page in PAGES
    for number, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "number", "snippet"), SNIPPETS)
def test_snippet_runs_as_printed(page: str, number: int, snippet: str) -> None:
    exec(compile(snippet, f"{page}, snippet {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.only_backends("torch")
def test_every_test_that_they_name_exists() -> None:
    named = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named += re.findall(r"`(?:tests/[\w/]*)?(test_\w+\.py)(?:::(\w+))?`(?:, `::(\w+)`)?", text)
    assert len(named) >= 15
    for file, first, second in named:
        paths = list((ROOT / "tests").rglob(file))
        assert len(paths) == 1, file
        for name in filter(None, (first, second)):
            assert f"def {name}(" in paths[0].read_text(encoding="utf-8"), name
