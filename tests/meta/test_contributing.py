"""What CONTRIBUTING.md, the Makefile and the hooks say is so."""

from __future__ import annotations

import re
import subprocess
import tomllib

from tests.fresh_process import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_make_alone_says_what_each_target_does() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    named = [line.split()[1] for line in done.stdout.splitlines()]
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert named == phony.split()
    assert all(len(line.split(maxsplit=2)[2]) > 10 for line in done.stdout.splitlines())
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_hooks_are_what_make_lint_runs() -> None:
    recipe = MAKEFILE.split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    linters = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^ +entry: (.*)$", hooks, re.MULTILINE) == linters


def test_the_table_of_folders_has_each_and_no_other() -> None:
    table = PAGE.split("| folder |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", table, re.MULTILINE))
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "docs"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path}
    assert folders == {name for name in rows if "/" not in name} or not tracked
    for folder, words in rows.items():
        assert (ROOT / folder).is_dir(), folder
        if folder.split("/")[0] not in ("reference", "keras_impl", "sae_oracle"):
            continue
        # Every module that is named is there.
        for name in re.findall(r"`(\w+)`", words):
            assert (ROOT / folder / f"{name}.py").exists() or name == "reference", (folder, name)


def test_every_path_and_test_that_is_named_exists() -> None:
    folders = "tests|keras_impl|reference|sae_oracle|docs"
    paths = re.findall(rf"(?<![\w/.])((?:{folders})/[\w/]+\.\w+)", PAGE)
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert any(f"def {name}(" in p.read_text("utf-8") for p in (ROOT / "tests").rglob("*.py"))


def test_the_changelog_has_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{project['version']}] - " in changelog
    assert "## [Unreleased]" in changelog
