"""The README is short, and shows on the package index what it shows in a clone."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest

from tests.fresh_process import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short_with_one_picture_and_no_table() -> None:
    assert len(README.split()) < 900
    assert README.count("![") == 1
    assert not re.search(r"^ *[|│┃]", README, re.MULTILINE)


def test_what_it_links_to_exists() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) > 20
    for target in targets:
        assert (ROOT / target).is_file(), target


def test_for_the_package_index_links_and_picture_are_absolute() -> None:
    """By the command of CONTRIBUTING.md, as the index renders it."""
    markdown = pytest.importorskip("readme_renderer.markdown")
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(sed -i .*(?:README\.md|pyproject\.toml))`", page)
    assert len(commands) == 2
    readme, project = (
        subprocess.run(
            ["bash", "-c", command.replace("sed -i", "sed")],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME_PAGE": "https://example.org/a/sae/blob/main"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    )
    urls = tomllib.loads(project)["project"]["urls"]
    assert urls["Repository"] == "https://example.org/a/sae"
    rendered = markdown.render(readme)
    assert 'src="https://example.org/a/sae/raw/main/docs/pictures/face.png"' in rendered
    assert rendered, "readme-renderer cannot render it"
    addresses = re.findall(r'(?:href|src)="([^"]*)"', rendered)
    assert len(addresses) > 20
    assert not [address for address in addresses if not address.startswith(("https://", "#"))]
    assert "<table" not in rendered
