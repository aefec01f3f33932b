"""`sae-oracle equations` and `cite`, here and where there is no checkout."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import reference
from sae_oracle import equations
from sae_oracle.cli import main
from tests.fresh_process import ROOT

LABELS = reference.equations()


def test_every_entry_has_its_key_its_version_and_braces_that_match() -> None:
    entries = [equations.bibtex(), *map(equations.bibtex, LABELS.values())]
    keys = [re.findall(r"^@misc\{([a-z0-9-]+),$", entry, re.MULTILINE) for entry in entries]
    assert keys == [["sae-oracle"], *([f"sae-oracle-{label.lower()}"] for label in LABELS)]
    for entry in entries:
        assert f"version = {{{reference.__version__}}}" in entry
        assert "year = {2" in entry
        depth = 0
        for brace in re.findall(r"[{}]", entry):
            depth += 1 if brace == "{" else -1
            assert depth >= 0
        assert depth == 0
        assert not re.search(r"(?<!\\)[_^%#&$~]", entry), entry


def test_an_equation_is_printed_with_all_that_is_known_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["equations", "EQ-KL-EXTENSION", "rho_hat"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "r = min(max(ρ̂, ε), 1 − ε)",
        "source: the first-order Taylor polynomials",
        "function: reference.divergence.extended_kl_divergence",
        "\n    tests/reference/test_properties.py::test_extension_is_convex\n",
        "@misc{sae-oracle-eq-kl-extension,",
        "@misc{sae-oracle-eq-rho-hat,",
        r"\texttt{reference.divergence.extended\_kl\_divergence}",
    ):
        assert words in printed
    assert main(["equations"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{label}  " in f"\n{listed}" for label in LABELS)


def test_a_program_gets_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["equations", "kl", "--json", "-"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["equations"]
    assert (found["label"], found["formula"]) == ("EQ-KL", LABELS["EQ-KL"].formula)
    assert found["bibtex"] == equations.bibtex(LABELS["EQ-KL"])
    assert "tests/reference/test_against_mathematics.py::test_kl_divergence" in found["tests"]
    assert main(["equations", "--json", str(tmp_path / "all.json")]) == 0
    of_all = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["equations"]
    assert [equation["label"] for equation in of_all] == list(LABELS)
    assert all(equation["tests"] for equation in of_all)
    assert main(["equations", "--json", str(tmp_path / "none" / "all.json")]) == 2


def test_what_is_cited_is_an_entry_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite", "eq-kl-extension"]) == 0
    assert capsys.readouterr().out == equations.bibtex(LABELS["EQ-KL-EXTENSION"]) + "\n"
    assert main(["cite"]) == 0
    assert capsys.readouterr().out == equations.bibtex() + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("EQ-KL-EXTENTION", "near it: EQ-KL-EXTENSION"),
        ("extension", "near it: EQ-KL-EXTENSION"),
        ("EQ-K", "EQ-KL"),
        ("EQ-[/x]\x1b", "`sae-oracle equations` has all"),
    ],
)
@pytest.mark.parametrize("command", ["equations", "cite"])
def test_an_unknown_label_is_a_sentence_with_what_is_near(
    command: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "EQ-KL", text]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in " ".join(printed.err.split())
    assert "\x1b" not in printed.err


def test_an_installed_package_says_where_its_tests_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests").mkdir()  # anybody's
    (tmp_path / "tests" / "test_theirs.py").write_text("@pytest.mark.equation('EQ-KL')\ndef t():\n")
    monkeypatch.setattr(equations, "FOLDER", tmp_path)
    assert main(["equations", "EQ-KL"]) == 0
    printed = capsys.readouterr().out
    assert "tests: in the source distribution" in printed
    assert "test_theirs" not in printed


def test_the_citation_is_complete_and_is_in_the_package() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert equations.CITATION.read_text(encoding="utf-8") == text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "CITATION.cff" in project["tool"]["setuptools"]["package-data"]["sae_oracle"]
    fields = dict(re.findall(r"^([\w-]+): *(.+)$", text, re.MULTILINE))
    for name in ("cff-version", "title", "type", "version", "date-released", "license"):
        assert fields[name]
    assert fields["title"].startswith(f'"{project["project"]["name"]}: ')
    assert fields["version"] == project["project"]["version"]
    assert fields["license"] == project["project"]["license"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{fields['version']}] - {fields['date-released']}" in changelog
    # None until the project has an address; see CONTRIBUTING.md.
    assert re.fullmatch(r'"https://[^"]+"', fields.get("repository-code", '"https://none"'))


def test_a_repository_is_cited_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "url = " not in equations.bibtex() or "repository-code" in equations.CITATION.read_text()
    file = tmp_path / "CITATION.cff"
    file.write_text(equations.CITATION.read_text("utf-8") + 'repository-code: "https://here/it"\n')
    monkeypatch.setattr(equations, "CITATION", file)
    assert "  url = {https://here/it},\n}" in equations.bibtex()
