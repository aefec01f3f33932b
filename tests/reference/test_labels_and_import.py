"""No label dangles; the oracle imports NumPy alone, and fast."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import reference

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r"EQ-[A-Z0-9]+(?:-[A-Z0-9]+)*")


def labels_in(*patterns: str) -> dict[str, set[str]]:
    """Every label in the files, with the files that name it."""
    found: dict[str, set[str]] = {}
    for pattern in patterns:
        for path in ROOT.glob(pattern):
            for label in LABEL.findall(path.read_text(encoding="utf-8")):
                found.setdefault(label, set()).add(str(path.relative_to(ROOT)))
    return found


def labels_of_tests() -> set[str]:
    """The labels that tests name in their `equation` marker."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for marker in re.findall(r"@pytest\.mark\.equation\(([^)]*)\)", text):
            found |= set(LABEL.findall(marker))
    return found


WRONG_ON_PURPOSE = {"EQ-K", "EQ-NOTHING", "EQ-KL-EXTENTION"}
"""What commands are asked for, to see what they answer."""


def test_every_label_that_is_named_is_defined() -> None:
    defined = {*reference.equations(), *WRONG_ON_PURPOSE}
    named = labels_in(
        "reference/*.py",
        "keras_impl/**/*.py",
        "sae_oracle/*.py",
        "tests/**/*.py",
        "*.md",
        "docs/**/*.md",
    )
    dangling = {label: files for label, files in named.items() if label not in defined}
    assert not dangling


def test_every_equation_is_held_by_a_test() -> None:
    assert set(reference.equations()) - labels_of_tests() == set()


def test_every_equation_has_a_formula_and_a_source() -> None:
    for equation in reference.equations().values():
        assert len(equation.formula) > 5, equation
        assert len(equation.source) > 5, equation


@pytest.mark.parametrize(
    ("docstrings", "message"),
    [
        ([": x.\n\nSource: y.", ": z.\n\nSource: y."], "-X is defined twice, again by second"),
        ([": x."], r"-X \(first\) has no source"),
    ],
)
def test_a_label_is_defined_once_and_has_a_source(
    docstrings: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("made_up")
    for name, docstring in zip(("first", "second"), docstrings, strict=False):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__doc__ = "-".join(("EQ", "X")) + docstring
        function.__module__, function.__qualname__ = "made_up", name
        setattr(module, name, function)
    monkeypatch.setitem(reference.equations.__globals__, "MODULES", (module,))
    with pytest.raises(ValueError, match=message):
        reference.equations()


def test_every_label_of_the_verify_table_is_an_equation() -> None:
    labels = labels_in("sae_oracle/workers/verify.py")
    assert len(labels) >= 10
    assert set(labels) <= set(reference.equations())


def test_the_oracle_imports_numpy_and_nothing_else() -> None:
    program = (
        "import sys, numpy\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "import reference\n"
        "after = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted(after - before - set(sys.stdlib_module_names)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == ["reference"]


def test_the_oracle_has_a_version_and_no_other_hidden_name() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", reference.__version__)
    with pytest.raises(AttributeError, match="nothing"):
        reference.nothing  # noqa: B018


def test_importing_the_oracle_takes_well_under_a_fifth_of_a_second() -> None:
    program = (
        "import time, numpy\n"
        "start = time.process_time()\n"
        "import reference\n"
        "print(time.process_time() - start)\n"
    )
    seconds = [
        float(
            subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds) < 0.1, seconds


@pytest.mark.parametrize("module", [m.__name__ for m in reference.equations.__globals__["MODULES"]])
def test_the_oracle_names_no_backend(module: str) -> None:
    """The reader of the reference holds the notes in the other hand."""
    path = ROOT / (module.replace(".", "/") + ".py")
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"^(?:import|from) (?!numpy|reference|__future__)(\w+)", text, re.M
    ) or all(
        name in sys.stdlib_module_names
        for name in re.findall(r"^(?:import|from) (?!numpy|reference)(\w+)", text, re.M)
    )
