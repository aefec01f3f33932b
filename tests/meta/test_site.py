"""The documentation site is built whole: no warning, no dangling link, every public name."""

from __future__ import annotations

import ast
import json
import posixpath
import re
import resource
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import reference
from sae_oracle.catalogue import MISTAKES
from sae_oracle.formulas import typeset
from sae_oracle.processes import TRAINING_BACKENDS, installed
from tests.fresh_process import ROOT, environment
from tests.pages import AXE, CHROMIUM, Page, complaints, is_elsewhere, loaded_by_style

BACKEND = next((name for name in TRAINING_BACKENDS if installed(name)), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, in at most 90 s of one core, on the backend that starts quickest."""
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site") / "docs"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)],
        cwd=ROOT,
        env=environment(BACKEND, hidden=("tensorflow",)),
        capture_output=True,
        text=True,
        timeout=900,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert after.ru_utime - before.ru_utime < 90.0
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


def test_every_equation_and_every_finding_has_its_page(pages: dict[str, Page]) -> None:
    expected = {f"equations/{label}.html" for label in reference.equations()}
    findings = {f"findings/{mistake.identifier}.html" for mistake in MISTAKES}
    expected |= findings
    assert expected == {name for name in pages if name.startswith(("equations/", "findings/"))}
    for name, page in pages.items():
        if name.startswith("equations/"):
            assert page.anchors >= {"resolution", "tests-that-hold-it", "to-cite-it"}, name
        if name in findings:
            assert page.anchors >= {"wrong", "right"}, name


@pytest.mark.parametrize(
    "text",
    [
        "<script src='https://x.org/a.js'></script>",
        "<script>import 'https://x.org/a.js'</script>",
        "<script>fetch(`/`); fetch('//x.org')</script>",
        "<link rel='Stylesheet alternate' href='//x.org/a.css'>",
        "<link rel=icon href='http://x.org/a.png'>",
        "<style>/* */ @import 'https://x.org/a.css';</style>",
        "<style>a { background: url( https://x.org/a.png ) }</style>",
        "<p style='background: url(\"HTTPS://x.org/a.png\")'>",
        "<img src='a.png' srcset='b.png 1x, https://x.org/a.png 2x'>",
        "<object data='ftp://x.org/a'></object>",
        "<meta http-equiv='refresh' content='0; url=https://x.org'>",
        "<base href='https://x.org/'>",
    ],
)
def test_what_comes_from_a_network_is_seen(text: str) -> None:
    assert len(Page(text).from_elsewhere) == 1
    assert Page(re.sub(r"((ht|f)tps?:)?//x.org", ".", text, flags=re.I)).from_elsewhere == []
    for harmless in ("<a href='https://x.org'>", "<img src='data:image/png;base64,'>"):
        assert Page(f"{harmless}<style>a {{ color: red }}</style>").from_elsewhere == []


def test_no_link_dangles_and_nothing_comes_from_a_network(
    site: Path, pages: dict[str, Page]
) -> None:
    checked = 0
    for name, page in pages.items():
        for address in page.addresses:
            target, anchor = urldefrag(address)
            if target.startswith(("https://", "http://")):
                continue  # said in the text; loading is looked for below
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(target)))
            path = name if not target else path.partition("?")[0]
            assert (site / path).is_file(), (name, address)
            if path in pages:
                assert unquote(anchor) in pages[path].anchors, (name, address)
            checked += 1
        assert page.from_elsewhere == [], name
    for style in site.rglob("*.css"):
        loaded = loaded_by_style(style.read_text(encoding="utf-8"))
        assert not any(map(is_elsewhere, loaded)), style
    assert checked > 1000


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm)")
@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 390)])
def test_axe_has_nothing_against_the_pages(
    site: Path, tmp_path: Path, dark: bool, width: int
) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    kinds = ("index", "start/notebook", "equations/EQ-KL", "findings/SAE105", "findings", "status")
    pages = [copy / f"{name}.html" for name in (*kinds, "command-line")]
    found = complaints(pages, tmp_path, dark=dark, width=width)
    assert found == {page.name: [] for page in pages}


def inventory(site: Path) -> set[str]:
    head, _, packed = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2")
    lines = zlib.decompress(packed).decode("utf-8").splitlines()
    return {line.split()[0] for line in lines if " py:" in line}


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    named = inventory(site)
    for package in ("reference", "keras_impl", "sae_oracle"):
        source = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
        (names,) = (
            ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        assert names, package
        for name in names:
            assert f"{package}.{name}" in named


def test_a_page_of_an_equation_says_who_holds_it_and_who_cites_it(site: Path) -> None:
    text = (site / "equations" / "EQ-RHO-HAT.html").read_text(encoding="utf-8")
    for words in ("findings/SAE105.html", "test_against_mathematics.py::", "eq-rho-hat</span>"):
        assert words in text
    text = (site / "findings" / "SAE105.html").read_text(encoding="utf-8")
    for words in ("equations/EQ-RHO-HAT.html", 'id="wrong"', 'id="right"'):
        assert words in text
    for label in reference.equations():
        text = (site / "equations" / f"{label}.html").read_text(encoding="utf-8")
        assert ".py::test_" in text, label


def test_formulas_are_typeset_without_a_script(site: Path) -> None:
    text = (site / "equations" / "EQ-SPARSITY-LOGITS.html").read_text(encoding="utf-8")
    formula, _, _ = reference.equations()["EQ-SPARSITY-LOGITS"].formula.partition(" of ")
    assert typeset(formula) in text
    assert 'by <a href="EQ-KL-LOGITS.html">EQ-KL-LOGITS</a>' in text
    text = (site / "training.html").read_text(encoding="utf-8")
    assert "<math" in text
    assert "mathjax" not in text.lower().replace("mathjax_ignore", "")


def test_the_notebook_ran_when_the_site_was_built(site: Path) -> None:
    text = (site / "start" / "notebook.html").read_text(encoding="utf-8")
    assert "notebook.png" in text
    (used,) = re.findall(r"([\d.e-]+) of its bound", re.sub("<[^>]*>", "", text))
    assert float(used) <= 1.0
    (notebook,) = site.rglob("notebook.ipynb")
    assert len(json.loads(notebook.read_text(encoding="utf-8"))["cells"]) > 8
