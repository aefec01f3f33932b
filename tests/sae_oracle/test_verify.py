"""`sae-oracle verify`: what it prints, writes and returns, and that it can fail."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

import reference
from sae_oracle import cli, processes, report
from sae_oracle.formulas import LOWERED, RAISED, typeset
from tests.faults.stand_in import measurements
from tests.fork_server import Forks
from tests.fresh_process import ROOT, crowd, environment, with_foreign_names
from tests.pages import AXE, CHROMIUM, Page, complaints, opened, print_page


def result(worst: float | None = 0.25, **changed: Any) -> dict[str, Any]:
    return measurements(worst, **changed)


def printed(results: report.Results) -> str:
    console = Console(file=io.StringIO(), width=120)
    report.print_results(results, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_all_inside_passes() -> None:
    results = report.collect({"torch": result(), "jax": {"kind": "absent"}})
    assert results.passed
    text = printed(results)
    assert "0.25" in text
    assert "jax: not installed, not verified" in text
    assert "All of 1 cells (4 numbers) on torch are inside" in text


@pytest.mark.parametrize("worst", [1.01, float("inf"), float("nan")])
def test_one_outside_fails(worst: float) -> None:
    results = report.collect({"torch": result(), "jax": result(worst)})
    assert not results.passed
    assert "OUTSIDE" in printed(results)
    assert "class='outside'" in report.html_page(results)


def test_a_backend_that_fails_or_none_at_all_is_no_pass() -> None:
    failed = report.collect({"torch": result(), "jax": {"kind": "error", "error": "boom"}})
    assert not failed.passed
    assert "boom" in printed(failed)
    assert not report.collect({"jax": {"kind": "absent"}}).passed


def test_undecided_shares_and_keras_failures_are_shown() -> None:
    text = printed(report.collect({"torch": result(undecidable=0.5)}))
    assert "0.25 (50.0% ?)" in text
    text = printed(report.collect({"torch": result(undecidable=0.0002)}))
    assert "0.25 (<0.1% ?)" in text
    failing = result(None, quantity="Keras L2", failure="ValueError: no")
    text = printed(report.collect({"numpy": failing}))
    assert "Keras fails" in text
    assert "ValueError: no" in text


KERAS_FAILS = {"worst": None, "elements": 0, "quantity": "Keras L2", "failure": "ValueError: no"}


def several(*changes: dict[str, Any]) -> dict[str, Any]:
    """The result of a backend with a measurement, of a row of its own, for each."""
    measurements = [
        result(**{"quantity": f"quantity {number}", **changed})["measurements"][0]
        for number, changed in enumerate(changes)
    ]
    return {**result(), "measurements": measurements}


def test_what_keras_cannot_do_is_counted_apart_and_has_a_colour() -> None:
    results = report.collect({"torch": several({}, KERAS_FAILS, {}), "jax": several({})})
    assert results.passed
    verdict = (
        "3 of 4 cells (12 numbers) on torch, jax are inside their derived bounds; "
        "1 could not be compared: Keras itself fails there."
    )
    assert report.summary(results) == verdict
    assert verdict in " ".join(printed(results).split())
    page = report.html_page(results)
    assert verdict in page
    assert "<td class='keras-fails'>Keras fails</td>" in page
    assert ".keras-fails" in page
    assert results.counts == {"inside": 3, "outside": 0, "Keras fails": 1, "not compared": 0}
    worse = report.collect({"torch": several({"worst": 1.5}, KERAS_FAILS, {})})
    assert not worse.passed
    assert report.summary(worse).startswith("OUTSIDE: 1 of 3 cells (8 numbers) on torch are")
    assert "1 could not be compared" in report.summary(worse)


@pytest.mark.parametrize(
    ("ours", "missing"),
    [
        (
            several({}, *[{"worst": None, "elements": 0, "failure": "ValueError: no"}] * 2),
            ["quantity 1 in float32 on torch", "quantity 2 in float32 on torch"],
        ),
        (several({}, {"worst": None, "elements": 0}), ["quantity 1 in float32 on torch"]),
        (several({**KERAS_FAILS, "failure": ""}, {}), ["Keras L2 in float32 on torch"]),
        (several(KERAS_FAILS), ["anything on torch"]),
        (several(), ["anything on torch"]),
    ],
    ids=["an exception", "no reason", "no reason of Keras's", "nothing but failures", "nothing"],
)
def test_what_was_not_compared_and_is_not_kerass_own_fails(
    ours: dict[str, Any], missing: list[str]
) -> None:
    results = report.collect({"torch": ours, "jax": result()})
    assert not results.passed
    assert results.missing == missing
    assert report.summary(results) == f"FAILED: {'; '.join(missing)} could not be compared."


@settings(max_examples=50)
@given(st.data())
def test_no_order_of_cases_backends_and_rows_changes_the_verdict(data: st.DataObject) -> None:
    """Whatever comes last is not the worst because it comes last; what is no number is."""
    errors = st.sampled_from([0.0, 0.25, 1.0, 1.25, 5.0, float("inf"), float("nan"), None])
    names = st.sampled_from(["KLSparsityRegularizer", "Keras L2"])
    cases = data.draw(
        st.lists(st.tuples(names, errors, st.integers(0, 3), st.booleans()), min_size=1, max_size=8)
    )
    backends = {}
    for name in ("torch", "jax"):
        measurements = [
            result(
                error,
                quantity=quantity,
                case=f"case {number}",
                elements=0 if error is None else 3,
                undecidable=share / 3.0,
                failure="ValueError: no" if error is None and fails else "",
            )["measurements"][0]
            for number, (quantity, error, share, fails) in enumerate(cases)
        ]
        backends[name] = {**result(), "measurements": data.draw(st.permutations(measurements))}
    first = report.collect(backends)
    torch, jax = ({row: cells[name] for row, cells in first.cells.items()} for name in backends)
    assert torch == jax
    shuffled = dict(data.draw(st.permutations(list(backends.items()))))
    second = report.collect(shuffled)
    assert second.cells == first.cells
    assert second.passed == first.passed
    outside = any(error is not None and not error <= 1.0 for _, error, _, _ in cases)
    missing = any(
        error is None and not (fails and name == "Keras L2") for name, error, _, fails in cases
    ) or all(error is None for _, error, _, _ in cases)
    assert first.passed == (not outside and not missing)
    assert bool(first.counts["outside"]) == outside
    rows = [line for line in report.status_matrix(first).splitlines() if line.startswith("| ")][1:]
    worst = [row.split("|")[5].strip() for row in rows]
    if all(error is None for _, error, _, _ in cases):
        assert worst == ["nothing compared"] * 2
    else:
        assert worst[0] == worst[1]
        assert (not float(worst[0]) <= 1.0) == outside


def test_the_page_is_self_contained_and_cites_the_equation() -> None:
    page = report.html_page(report.collect({"torch": result()}))
    assert "<img class='heat' alt='Heat map, a row a quantity" in page
    assert "src='data:image/png;base64," in page
    assert "http" not in page
    assert Page(a_page()).from_elsewhere == []
    assert "CS294A lecture notes" in page
    assert reference.equations()["EQ-KL"].function in page
    assert page.count("<math>") > 5
    assert "<mfrac>" in page


def words_of(element: ElementTree.Element) -> str:
    """What MathML says, on one line."""
    inside = [words_of(child) for child in element]
    text = (element.text or "") + ("/" if element.tag == "mfrac" else "").join(inside)
    return ("√" if element.tag == "msqrt" else "") + text + (element.tail or "")


def test_every_formula_is_typeset_and_says_what_it_said() -> None:
    indices = str.maketrans(RAISED | LOWERED | {"½": "1/2", "\u0302": "^", "\u0305": "¯"})
    for label, equation in reference.equations().items():
        text = typeset(equation.formula)
        plain = words_of(ElementTree.fromstring(f"<p>{text}</p>"))
        assert all(re.fullmatch(ELEMENT, name) for name in re.findall("<([a-z]+)", text)), label
        was = equation.formula.translate(indices)
        # A root and a fraction have a line instead of brackets; indices have no need of braces.
        left_out = str.maketrans("", "", " ()_{}`")
        assert plain.translate(left_out) == was.translate(left_out), label
        assert not re.search(r"[_{}]", plain), label
        assert "/" not in re.sub("<[^>]*>", "", text), label
    script = typeset("(Wᵢⱼ⁽ˡ⁾)² ρ̂_batch")
    low, high = "<mrow><mi>i</mi><mi>j</mi></mrow>", "<mi>l</mi>"
    assert f"<msubsup><mi>W</mi>{low}<mrow>" in script
    assert high in script
    assert "<mrow><mi>batch</mi></mrow></msub></math>" in script
    assert "<msqrt><mn>6</mn></msqrt>" in typeset("±√6 / 2")
    assert "<msqrt><mn>1</mn><mspace" in typeset("√(1 + (2 − x)) y")
    assert typeset("√(1 + x) y").count("<math>") == 2
    assert "<msqrt>" not in typeset("√Σᵢ x")
    assert "&lt;</mo></math>" in typeset("a < b")


@pytest.mark.parametrize(
    ("formula", "fractions"),
    [
        ("−ρ/ρ̂", [("ρ", "ρ^")]),
        ("(1 − ρ)/(1 − r) + 2", [("1−ρ", "1−r")]),
        ("1 / (1 + exp(−z)).", [("1", "1+exp(−z)")]),
        ("log((1/m) Σᵢ v)", [("1", "m")]),
        ("∂J/∂W⁽ˡ⁾ = x", [("∂J", "∂W(l)")]),
        ("2·k/(k(k − 1)) y", [("2·k", "k(k−1)")]),
        ("λ/(μ/2)", [("λ", "μ/2"), ("μ", "2")]),
        ("|a − b| / c", [("|a−b|", "c")]),
        ("‖E‖²/‖v‖", [("‖E‖2", "‖v‖")]),
        ("KL(ρ‖ρ̂)/2ε", [("KL(ρ‖ρ^)", "2ε")]),
        ("S = Σ(|a| + E)/m", [("Σ(|a|+E)", "m")]),
        ("√(2 log(N/p))", [("N", "p")]),
        ("½ (a)(b) Σᵢ x", [("1", "2")]),
    ],
)
def test_a_fraction_is_stacked(formula: str, fractions: list[tuple[str, str]]) -> None:
    tree = ElementTree.fromstring(f"<p>{typeset(formula)}</p>")
    for fraction in tree.iter("mfrac"):
        fraction.tail = ""
    found = [tuple(map(words_of, fraction)) for fraction in tree.iter("mfrac")]
    assert found == fractions


def test_the_status_matrix_has_the_worst_of_each_dtype_and_size() -> None:
    found = several(
        {"worst": 0.25},
        {"worst": 0.75, "undecidable": 1.0, "elements": 12, "quantity": "divergence"},
        {"worst": 0.5, "dtype": "float64"},
        {"worst": 0.125, "size": "9 × 9", "quantity": "reconstruction", "resolution": 2e-3},
        {"worst": 0.0, "size": "9 × 9", "quantity": "gradient by kernel", "resolution": 1e-3},
        {
            "worst": 0.0,
            "size": "9 × 9",
            "quantity": "gradient by tied kernel",
            "resolution": 3e-3,
            "likely": 2e-4,
            "suspicion": 1.5,
        },
    )
    text = report.status_matrix(report.collect({"torch": found, "jax": {"kind": "absent"}}))
    where = "divergence (EQ-KL) | 75.00% | — | — | — | — | — | 16 | keras 3 |"
    assert f"| torch | cpu | float32 | 256 × 64 | 0.75 | {where}" in text
    assert "| torch | cpu | float64 | 256 × 64 | 0.50 |" in text
    found = "2.0e-03 | — | — | 3.0e-03 / 2.0e-04 | 1"
    where = f"reconstruction (EQ-KL) | 0.00% | {found} | 12 | keras 3 |"
    assert f"| torch | cpu | float32 | 9 × 9 | 0.12 | {where}" in text
    assert "| jax | | | | absent |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {15}


def test_the_status_has_the_evidence_of_each_equation() -> None:
    here = several(
        {"worst": 0.25, "resolution": 1e-3}, {"worst": 0.5, "resolution": 1e-5, "elements": 3}
    )
    there = several({"worst": float("nan"), "likely": 1e-4}) | {"device": "GPU"}
    text = report.by_equation(report.collect({"torch": here}), [{"jax": there}])
    (row,) = [line for line in text.splitlines() if line.startswith("| EQ-KL |")]
    assert re.search(r"\d+ oracle", row)
    assert "| float32 | 256 × 64 | torch, jax on GPU | inf | 1.0e-03 / 1.0e-04 | " in row
    labels = [line.split(" | ")[0][2:] for line in text.splitlines() if line.startswith("| EQ")]
    assert labels == list(reference.equations())
    assert re.search(r"\| EQ-PACK \| [^|]*oracle[^|]* \| — \|", text)


def test_the_status_has_rows_of_earlier_runs() -> None:
    earlier = {"verdict": "", "backends": {"jax": {**result(0.5), "device": "H200"}}}
    other = {"verify wide": {"jax": earlier}, "bench": {"jax": {}}}
    checks = {"kind": "sae-oracle checks", "found": other}
    for content in (earlier, checks):
        text = report.status_matrix(
            report.collect({"torch": result(0.25)}), report.earlier_results(content)
        )
        assert "| torch | cpu | float32 | 256 × 64 | 0.25 |" in text
        assert "| jax | H200 | float32 | 256 × 64 | 0.50 |" in text
    with pytest.raises(ValueError, match="not written by"):
        report.earlier_results({"kind": "sae-oracle bench", "backends": {}})


def test_a_row_shows_the_smallest_error_that_every_case_and_backend_would_find() -> None:
    coarse = result(0.5, resolution=4e-3)
    coarse["measurements"] += result(0.25, resolution=2e-3)["measurements"]
    results = report.collect({"torch": result(0.25), "jax": coarse})
    (row,) = results.cells
    assert results.resolution(row) == "4.0e-03"
    assert "4.0e-03" in printed(results)
    assert "<td>4.0e-03</td>" in report.html_page(results)
    nothing = report.collect({"torch": result(None, quantity="Keras L2", failure="no")})
    assert nothing.resolution(*nothing.cells) == "—"


ELEMENT = "code|m(ath|i|n|o|row|sub|sup|subsup|over|frac|sqrt|space)"

HOSTILE = "</script><script>document.title='obeyed'</script>'\"<b>&"


@functools.cache
def a_page() -> str:
    """With each state, foreign text wherever it may be, the exercise, and a run before."""
    backends = {
        "torch": several({}, {"worst": 1.5, "case": HOSTILE}, {"quantity": HOSTILE * 4}),
        "jax": several({}, {}, {"quantity": "K" * 200, "worst": None, "failure": HOSTILE}),
        "numpy": several(KERAS_FAILS),
        "openvino": {"kind": "error", "error": HOSTILE * 9},
    }
    results = report.collect(backends, {"oracle": exercise_run(), "torch": exercise_run(0.5)})
    run = {"date": HOSTILE, "command": "sae-oracle " + "x" * 300}
    before = {HOSTILE: report.Said(HOSTILE, HOSTILE, 0.25)}
    for name, cell in report._cells_by_name(results).items():
        if cell.worst == 1.5 or HOSTILE in name:
            before[name] = cell._replace(words=HOSTILE, worst=0.125)
    return report.html_page(results, run, report.Earlier(HOSTILE, HOSTILE, before))


def test_the_page_obeys_nobody_and_is_read_aloud() -> None:
    """Text of others is text; every table has a caption and headings, every picture words."""
    page = a_page()
    assert "<b>&" not in page
    assert "</script><script>document" not in page
    assert page.count("<table") == page.count("<caption>") == 3
    assert "<th>" not in page
    pictures = re.findall(r"<img [^>]*alt='([^']*)'", page)
    assert len(pictures) == page.count("<img ") == 2
    assert "1 outside, 1 Keras fails, 1 not compared" in pictures[0]
    assert "oracle, torch" in pictures[1]
    anchors = re.findall(r" id='([^']*)'", page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"href='#([^']*)'", page)) <= set(anchors)
    assert len([name for name in anchors if name.startswith("row-")]) == page.count("<tr id=")


@pytest.mark.parametrize("found", [{"kind": "error", "error": "no <time>"}, {"kind": "absent"}])
def test_a_page_without_a_number_says_why(found: dict[str, Any]) -> None:
    page = report.html_page(report.collect({"torch": found}))
    assert "FAILED: " in page
    assert ("no &lt;time&gt;" if "error" in found else "not installed") in page
    assert "<img" not in page


def test_the_page_says_what_changed_since_the_run_before() -> None:
    run = {"date": "2026-11-26"}
    text = report.html_page(report.collect({"torch": several({}, {})}), run)
    before = report.earlier_page(text, "previous.html")
    later = report.collect({"torch": several({}, {"worst": 1.5})})
    page = report.html_page(later, {}, before)
    assert "<a href='previous.html'>2026-11-26</a>. 1 of 2 cells" in page
    assert "quantity 1, float32, 256 × 64, torch: 0.25 → OUTSIDE 1.50</li>" in page
    same = report.html_page(report.collect({"torch": several({}, {})}), {}, before)
    assert "0 of 2 cells are in another state. Of the others none has a larger error." in same
    assert "What changed" not in same
    # Another number is no other state; what was raised is one, and so is suspicion.
    grown = report.html_page(report.collect({"torch": several({}, {"worst": 0.5})}), {}, before)
    assert "0 of 2 cells" in grown
    assert "1 has a larger error; EQ-KL, quantity 1, float32, 256 × 64, torch grew most" in grown
    for other in (
        {"worst": None, "failure": "it raised"},
        {"worst": None},
        {"suspicion": 2.0, "likely": 1e-4},
        {"worst": float("inf")},
        {"worst": float("nan")},
    ):
        there = report.html_page(report.collect({"torch": several({}, other)}), run)
        back = report.earlier_page(there, "")
        page = report.html_page(report.collect({"torch": several({}, {})}), {}, back)
        assert "1 of 2 cells" in page, other
        (content,) = re.findall("id='run'>(.*)</script>", there.partition("<script>")[0])
        assert "NaN" not in content
        assert "Infinity" not in content
    for wrong in (
        "",
        "<html>",
        text.replace('"date"', '"day"'),
        text.replace('{"date"', '["date"'),
        text.replace('["inside"', '[["inside"]'),
        text.replace('["inside", ', "["),
        text.replace(" 0.25]", ' "0.25"]'),
        text.replace(" 0.25]", " NaN]"),
    ):
        with pytest.raises(ValueError, match="not written by"):
            report.earlier_page(wrong, "")


def test_the_command_keeps_and_links_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "verify_backend", lambda *_, **__: result())
    monkeypatch.setattr(cli, "_submit_exercises", lambda *_: {})
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "index.html").write_text("another's")
    call = ["verify", "--backend", "torch", "--report", str(folder)]
    assert cli.main(call) == 0
    first = (folder / "index.html").read_text(encoding="utf-8")
    assert "The run before" not in first
    assert f"<dd>sae-oracle verify --backend torch --report &#x27;{folder}&#x27;</dd>" in first
    assert not (folder / cli.PREVIOUS).exists()
    assert cli.main(call) == 0
    assert "<a href='previous.html'>" in (folder / "index.html").read_text(encoding="utf-8")
    assert (folder / cli.PREVIOUS).read_text(encoding="utf-8") == first
    assert cli.main(call) == 0
    third = (folder / "index.html").read_text(encoding="utf-8")
    assert "<a href='previous.html'>" in third
    assert "The run before" in (folder / cli.PREVIOUS).read_text(encoding="utf-8")
    assert "previous.html" not in (folder / cli.PREVIOUS).read_text(encoding="utf-8")
    elsewhere = [*call[:-1], str(tmp_path / "b"), "--previous", str(folder / cli.PREVIOUS)]
    assert cli.main(elsewhere) == 0
    page = (tmp_path / "b" / "index.html").read_text(encoding="utf-8")
    assert "<a href='../a%20folder/previous.html'>" in page
    capsys.readouterr()
    for wrong in ([*call, "--previous", str(tmp_path / "no")], [*call, "--previous", __file__]):
        assert cli.main(wrong) == 2
        assert "--previous" in capsys.readouterr().out
    assert cli.main([*call[:3], "--previous", str(folder / cli.PREVIOUS)]) == 2
    assert "--previous needs --report" in capsys.readouterr().out
    (folder / cli.PREVIOUS).unlink()
    (folder / cli.PREVIOUS).mkdir()
    assert cli.main(call) == 2
    assert (folder / "index.html").read_text(encoding="utf-8") == third


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255.0 for i in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_the_page_can_be_read(scheme: str) -> None:
    """A contrast of 4.5 and more, WCAG 2.2, 1.4.3."""
    first, second = re.findall(r":root \{(.*?)\}", report._STYLE, re.DOTALL)
    text = {"light": first, "dark": second}[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", text))
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", report._STYLE)
    pairs = set()
    for _, rule in rules:
        declared = dict(re.findall(r"(?:^|;)\s*(color|background): var\(--([a-z-]+)\)", rule))
        if declared:
            pairs.add((declared.get("color", "text"), declared.get("background", "page")))
    assert len(pairs) == 6
    used = set(re.findall(r"var\(--([a-z-]+)\)", report._STYLE))
    assert used == set(colours)
    # No colour but these, and the white on which pictures are drawn.
    others = re.sub(r":root \{.*?\}", "", report._STYLE, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,6}\b|rgb|hsl", others) == ["#fff"]
    for letters, page in pairs:
        light, dark = sorted((luminance(colours[letters]), luminance(colours[page])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (letters, page)


# In a frame as wide as a telephone: does it scroll sideways, filter, and sort?
FRAME = """<!doctype html><iframe width=390 height=800 srcdoc="PAGE"></iframe><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const first = () => [...page.querySelectorAll("#cells tbody tr:not([hidden])")].map(r => r.id);
  const words = page.getElementById("words"), all = first();
  const found = {wide: root.scrollWidth, title: page.title, rows: all.length};
  words.value = "quantity 1"; words.dispatchEvent(new Event("input"));
  found.filtered = first().length;
  words.value = ""; words.dispatchEvent(new Event("input"));
  const button = page.querySelectorAll("#cells thead button")[COLUMN];
  button.click(); found.up = first()[0];
  button.click(); found.down = first()[0];
  found.order = button.parentElement.getAttribute("aria-sort");
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    frame = FRAME.replace("COLUMN", "3").replace("PAGE", html.escape(a_page()))
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    found = opened(tmp_path / "frame.html", tmp_path)
    assert found["wide"] <= 390
    assert found["title"] == "sae-oracle verify"
    assert 0 < found["filtered"] < found["rows"]
    assert found["up"] != found["down"]
    assert found["down"].startswith("row-eq-kl-quantity-1-")
    assert found["order"] == "descending"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_every_printed_page_has_the_headings(tmp_path: Path) -> None:
    """A link among them is in the PDF more often than where the boxes of buttons forbid it."""
    address = "https://printed.invalid/"
    link = f"<th scope='col'><a href='{address}'>quantity, equation</a></th>"
    page = a_page().replace("<th scope='col'>quantity, equation</th>", link)
    assert link in page
    counts = []
    for rule in ("", "button.sort { display: inline !important }"):
        style = f"#cells tbody tr {{ height: 12cm }} {rule}</style>"
        (tmp_path / "page.html").write_text(page.replace("</style>", style), encoding="utf-8")
        print_page(tmp_path / "page.html", tmp_path / "page.pdf")
        counts.append((tmp_path / "page.pdf").read_bytes().count(address.encode()))
    assert counts[0] > counts[1] > 0


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm)")
@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 390)])
def test_axe_has_nothing_against_the_page(dark: bool, width: int, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(a_page(), encoding="utf-8")
    found = complaints([tmp_path / "page.html"], tmp_path, dark=dark, width=width)
    assert found == {"page.html": []}


def test_what_is_suspicious_is_shown_and_no_verdict() -> None:
    found = result(0.25, suspicion=8.75, likely=1e-4)
    found["measurements"] += result(0.5, suspicion=0.5, likely=3e-4)["measurements"]
    results = report.collect({"torch": found, "jax": result(0.25, suspicion=0.5, likely=1e-5)})
    assert results.passed
    assert results.suspicious == 1
    (row,) = results.cells
    assert report.summary(results) == (
        "All of 2 cells (12 numbers) on torch, jax are inside their derived bounds; 1 are "
        "suspicious: outside what roundings are likely to do."
    )
    assert results.resolution(row) == "1.0e-05 / 3.0e-04"
    for text in (printed(results), report.html_page(results)):
        assert "0.50 suspicious 8.8" in text
        assert "1 are suspicious" in " ".join(text.split())
    assert "<td class='suspicious'" in report.html_page(results)
    for suspicion in (float("inf"), float("nan")):
        worse = report.collect({"torch": result(0.25, suspicion=suspicion, likely=1e-4)})
        assert worse.suspicious == 1
    at_its_bound = report.collect({"torch": result(0.25, suspicion=1.0, likely=1e-4)})
    assert at_its_bound.suspicious == 0
    # What is outside is said so, once.
    outside = report.collect({"torch": result(1.5, suspicion=8.75, likely=1e-4)})
    assert outside.suspicious == 0
    assert "suspicious 8.8" not in printed(outside)


def test_sizes_are_rows_of_their_own() -> None:
    """What is inside at one size does not hide what is outside at another."""
    results = report.collect({"torch": several({"quantity": "a"}, {"quantity": "a", "size": "9"})})
    assert [row[3] for row in results.cells] == ["256 × 64", "9"]
    assert results.counts["inside"] == 2
    # By dtype, then by size, each as they came; not by their names.
    came = ("b float64 9", "b float32 9", "c float32 1", "a float32 9")
    names = ("quantity", "dtype", "size")
    mixed = several(*(dict(zip(names, row.split(), strict=True)) for row in came))
    rows = [" ".join(row[1:]) for row in report.collect({"torch": mixed}).cells]
    assert rows == ["b float32 9", "a float32 9", "c float32 1", "b float64 9"]


def exercise_run(total: float = 0.345, **changed: Any) -> dict[str, Any]:
    return {
        "kind": "result",
        "total": total,
        "reconstruction": 0.3,
        "weight_decay": 0.04,
        "sparsity": 0.005,
        "rho_hat": [0.0101, 0.0112],
        "evaluations": 415,
        "seconds": 6.0,
        "kernel": [[1.0, -1.0], [0.5, 1.0], [0.0, 2.0], [1.0, 1.0]],
        **changed,
    }


def test_the_exercise_is_shown_side_by_side() -> None:
    runs = {"oracle": exercise_run(), "torch": exercise_run(0.346, watch="iVBORw0KGgo=")}
    results = report.collect({"torch": result()}, runs)
    assert results.passed
    text = printed(results)
    assert "0.34600" in text
    assert "0.0101 to 0.0112" in text
    page = report.html_page(results)
    assert page.count("data:image/png;base64,") == 3
    assert page.count("saw on torch</summary><img alt=") == 1
    assert "src='data:image/png;base64,iVBORw0KGgo='></details>" in page
    assert "<td>0.34600</td>" in page
    titles = [axis.get_title() for axis in report.exercise_features(runs).axes]
    assert titles == ["oracle, J = 0.3450", "torch, J = 0.3460"]


@pytest.mark.parametrize(
    "wrong",
    [
        exercise_run(0.345 + 1.01 * report.EXERCISE_MARGIN),
        exercise_run(0.345 - 1.01 * report.EXERCISE_MARGIN),
        exercise_run(float("nan")),
        {"kind": "error", "error": "boom"},
    ],
)
def test_an_exercise_that_ends_elsewhere_fails(wrong: dict[str, Any]) -> None:
    results = report.collect({"torch": result()}, {"oracle": exercise_run(), "torch": wrong})
    assert not results.passed
    assert "FAILED: the notes' exercise, on torch." in printed(results)
    assert "class='outside'" in report.html_page(results)
    at_the_margin = {"oracle": exercise_run(0.0), "torch": exercise_run(report.EXERCISE_MARGIN)}
    assert report.exercise_problem(at_the_margin, "torch") is None
    failed = {"oracle": {"kind": "error", "error": "boom"}, "torch": exercise_run()}
    assert not report.collect({"torch": result()}, failed).passed


# The page is drawn by Matplotlib, the data are those of scikit-learn.
ENVIRONMENT = environment(hidden=("tensorflow",))


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sae_oracle", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=with_foreign_names(ENVIRONMENT),
    )


def test_the_command_on_one_backend(tmp_path: Path) -> None:
    """The real thing on the fastest backend: table, JSON, page, exit status; in any folder."""
    (tmp_path / "data").mkdir()
    file, folder = tmp_path / "found.json", tmp_path / "report"
    done = run(
        *("verify", "--backend", "numpy", "--json", str(file), "--report", str(folder)),
        folder=crowd(tmp_path / "data"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQ-SPARSITY" in done.stdout
    found = json.loads(file.read_text())
    assert found["passed"] is True
    assert found["cells"]["Keras fails"] == 1
    assert found["suspicious"] == 0
    assert found["cells"]["inside"] > 10
    assert "1 could not be compared: Keras itself fails there." in found["verdict"]
    assert found["verdict"] in done.stdout
    measured = found["backends"]["numpy"]["measurements"]
    of_networks = [m for m in measured if m["case"] != "called directly"]
    assert all(m["suspicion"] <= 1.0 for m in of_networks)
    assert all(m["likely"] <= m["resolution"] for m in of_networks)
    at_real_size = [m for m in of_networks if m["size"] == "1,000 × 784-196"]
    assert len(at_real_size) == 8
    assert all(m["likely"] < 1e-4 for m in at_real_size)
    labels = {m["equation"] for m in measured}
    assert labels <= set(reference.equations())
    assert "sae-oracle verify" in (folder / "index.html").read_text()
    assert json.loads(file.read_text())["schema_version"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "found.json", "report"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_nothing_of_the_table_is_cut_off(width: int) -> None:
    """On five backends it is wider than 80: a block of lines a row then."""
    names = ("jax", "tensorflow", "torch", "numpy", "openvino")
    quantity = "KLSparsityRegularizer gradient by the kernel of the first layer"
    results = report.collect(
        {name: several({"quantity": quantity, "undecidable": 0.5}) for name in names},
        {"oracle": exercise_run(), **{name: exercise_run(0.5) for name in names[:3]}},
    )
    file = io.StringIO()
    report.print_results(results, Console(file=file, width=width))
    assert "…" not in file.getvalue()
    letters = re.sub(r"[\s│]", "", file.getvalue())
    assert letters.count("0.25(50.0%?)") == 5
    assert "OUTSIDE0.50000" in letters
    for word in (*names, "EQ-KL", "evaluations", "rho_hat"):
        assert word in letters
    if width <= 80:  # a block
        assert f"quantity{quantity.replace(' ', '')};finds" in letters


@pytest.mark.parametrize(
    ("columns", "width"),
    [("40", 40), ("80", 80), ("200", 200), ("1", 20), ("", 120), ("0", 120), ("-5", 120)]
    + [(text, 120) for text in ("wide", "²", "8 0", "9" * 5000)],
    ids=lambda value: str(value)[:9],
)
def test_columns_are_obeyed_where_they_are_a_number(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = processes.console_for()
    assert not console.is_terminal
    assert console.width == width


@pytest.mark.parametrize("is_asked", [False, True])
def test_no_color_leaves_nothing_bold(is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1" if is_asked else "")
    file = io.StringIO()
    console = processes.console_for()
    assert console.is_terminal
    console.file = file
    console.print("[bold red]Error:[/] 1.5")
    assert (file.getvalue() == "Error: 1.5\n") == is_asked


def test_bad_calls_say_so_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--json", str(tmp_path / "missing" / "found.json")]) == 2
    assert "No such folder" in capsys.readouterr().out
    found = tmp_path / "found.json"
    checks = '{"kind": "sae-oracle checks"'
    for text in ("{", "{}", "[]", "1", "[" * 100_000, checks + "}", checks + ', "found": 1}'):
        found.write_text(text)
        assert cli.main(["verify", "--beside", str(found), "--backend", "numpy"]) == 2
        assert "--beside" in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        cli.main(["verify", "--backend", "mxnet"])
    assert raised.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_gpu_is_asked_for_and_not_there(
    forked: Callable[[str], Forks], capsys: pytest.CaptureFixture[str]
) -> None:
    forked("numpy")
    assert cli.main(["verify", "--backend", "numpy", "--device", "gpu"]) == 2
    assert "no GPU: numpy sees none" in capsys.readouterr().out


def test_a_process_that_crashes_or_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def start(program: str) -> Any:
        def popen(command: list[str], **options: Any) -> Any:
            return real([command[0], "-c", program], **options)

        return popen

    monkeypatch.setattr(processes.subprocess, "Popen", start("import os; os.abort()"))
    crashed = cli.verify_backend("numpy", "cpu", lambda message: None)
    assert crashed["kind"] == "error"
    assert "ended by SIGABRT" in crashed["error"]
    monkeypatch.setattr(processes.subprocess, "Popen", start("import time; time.sleep(5)"))
    hung = cli.verify_backend("numpy", "cpu", lambda message: None, time_limit=0.5)
    assert "no end within" in hung["error"]
    asked: list[Any] = []
    monkeypatch.setattr(cli, "run_backend", lambda *given, **named: asked.append((given, named)))
    for wide in (True, False):
        cli.verify_backend("numpy", "gpu", print, 7.0, wide=wide, limits={"RLIMIT_AS": 1})
        call = ("sae_oracle.workers.verify", ["--wide"] * wide, "numpy", "gpu", print, 7.0)
        assert asked.pop() == (call, {"limits": {"RLIMIT_AS": 1}, "threads": None})
    cli.verify_backend("numpy", "cpu", print)
    assert asked.pop() == (
        ("sae_oracle.workers.verify", [], "numpy", "cpu", print, processes.TIME_LIMIT),
        {"limits": processes.NO_LIMITS, "threads": None},
    )
    monkeypatch.setattr(cli, "installed", lambda name: name != "numpy")
    assert cli.verify_backend("numpy", "cpu", lambda message: None) == {"kind": "absent"}


# The worker, where a penalty is off by 1e-4: the first case shows it.
WRONG = """
import runpy
import numpy as np
from keras_impl.term import SparsityTerm
from sae_oracle.workers import __main__ as worker, verify

right = SparsityTerm.penalty
SparsityTerm.penalty = lambda *arguments, **named: 1.0001 * right(*arguments, **named)
verify.CASES = verify.CASES[:1]
verify._inputs = lambda data, samples, side: (
    np.random.default_rng(0).uniform(0.1, 0.9, size=(samples, side**2))
)
runpy.run_module = lambda *arguments, **named: verify.main()
worker.main()
"""


def test_a_wrong_implementation_is_outside(
    forked: Callable[[str], Forks],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = forked("numpy")
    start = server.Popen

    def planted(command: list[str], **options: Any) -> Any:
        return start([*command[:2], "-c", WRONG, *command[4:]], **options)

    monkeypatch.setattr(server, "Popen", planted)
    assert cli.main(["verify", "--backend", "numpy"]) == 1
    assert "OUTSIDE" in capsys.readouterr().out


def test_keras_on_numpy_needs_jax() -> None:
    """Where torch alone is installed, verify holds torch alone: no failure of numpy."""
    program = "from sae_oracle.processes import *; print(*filter(installed, BACKENDS))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(hidden=("jax", "tensorflow", "openvino")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() in (["torch"], [])


# The worker's part, with one object that raises.
RAISES = """
import sys
import keras
import numpy as np
from sae_oracle.workers import verify

class Raises:
    def __init__(self, *arguments, **named):
        pass

    def __call__(self, x):
        raise ValueError("planted")

home, name = verify if sys.argv[1] == "verify" else keras.regularizers, sys.argv[2]
setattr(home, name, Raises)
found = verify.hold_regularizers(np.random.default_rng(0).uniform(size=(30, 64)), "float32")
try:
    print([m.quantity for m in found if m.failure])
except ValueError as error:
    print(f"raised: {error}")
"""


@pytest.mark.parametrize(("home", "name"), [("verify", "KLSparsityRegularizer"), ("keras", "L2")])
def test_only_known_failures_of_keras_are_excused(
    home: str, name: str, servers: Callable[[str], Forks]
) -> None:
    """An exception of ours, or a new one of Keras's, ends the process, and with it the verdict."""
    printed = servers("numpy").run(RAISES, home, name)
    assert printed.splitlines()[-1] == "raised: planted"


# --- The verdict, exhaustively ----------------------------------------------------------------

JUST_OUTSIDE = 1.0 + 2.0**-52
KINDS: dict[str, dict[str, Any]] = {
    "exact": {"worst": 0.0},
    "inside": {"worst": 0.5},
    "at its bound": {"worst": 1.0},
    "just outside": {"worst": JUST_OUTSIDE},
    "far outside": {"worst": 5.0},
    "infinite": {"worst": float("inf")},
    "no number": {"worst": float("nan")},
    "raised": {"worst": None, "elements": 0, "failure": "ValueError: no"},
    "nothing said": {"worst": None, "elements": 0, "failure": ""},
}
OUTSIDE = {"just outside", "far outside", "infinite", "no number"}
NOT_COMPARED = {"raised", "nothing said"}


def of_kinds(kinds: Iterable[str], quantity: str, **changed: Any) -> dict[str, Any]:
    """A backend's result with one cell: its cases in this order."""
    return several(
        *(
            {
                "quantity": quantity,
                "case": f"case {number}",
                "undecidable": (number + 1) / 4.0,
                "elements": number + 1,
                **dict.fromkeys(("resolution", "likely", "suspicion"), 0.5**number),
                **KINDS[kind],
                **changed,
            }
            for number, kind in enumerate(kinds)
        )
    )


def state_of(kinds: Sequence[str], quantity: str) -> str:
    """What a cell is: nothing hides what is outside, and what is not Keras's is not excused."""
    if OUTSIDE & set(kinds):
        return "outside"
    if not NOT_COMPARED & set(kinds):
        return "inside"
    excused = quantity.startswith("Keras ") and "nothing said" not in kinds
    return "Keras fails" if excused else "not compared"


@pytest.mark.parametrize("quantity", ["divergence", "KerasLike", "a Keras L2", "Keras L2"])
def test_every_cell_of_up_to_three_cases(quantity: str) -> None:
    for length in (1, 2, 3):
        for kinds in itertools.product(KINDS, repeat=length):
            results = report.collect({"torch": of_kinds(kinds, quantity), "jax": several({}, {})})
            ((cell,),) = (
                list(columns.values()) for columns in results.cells.values() if "torch" in columns
            )
            state = state_of(kinds, quantity)
            assert cell.state == state, kinds
            assert results.counts[state] == 1 + 2 * (state == "inside")
            assert results.counts.total() == 3
            compared = [KINDS[kind]["worst"] for kind in kinds if kind not in NOT_COMPARED]
            sizes = [n + 1 for n, kind in enumerate(kinds) if kind not in NOT_COMPARED]
            assert cell.elements == sum(sizes)
            # What every case would find, not the one that is furthest off.
            largest = max((2.0 ** (1 - size) for size in sizes), default=0.0)
            assert (cell.resolution, cell.suspicion, cell.likely or 0.0) == (largest,) * 3
            undecided = sum(size / 4.0 * size for size in sizes) / max(1, sum(sizes))
            assert abs(cell.undecidable - undecided) <= 1e-15
            errors = [float("inf") if error != error else error for error in compared]
            assert cell.worst == (max(errors) if errors else None), kinds
            if errors:
                assert errors[compared_before(kinds, cell.case)] == cell.worst
            else:
                assert cell.case == ""
            # Where nothing of a backend was compared, Keras's failures excuse nothing.
            passes = state == "inside" or (state == "Keras fails" and bool(compared))
            assert results.passed == passes, kinds
            verdict = report.summary(results)
            assert verdict.startswith("OUTSIDE: 1 of 3 ") == (state == "outside"), verdict
            assert verdict.startswith("FAILED: ") == (not passes and state != "outside"), verdict
            assert str(cell).startswith(
                {"inside": ("0.", "1.00"), "outside": "OUTSIDE"}.get(state, state)
            ), (kinds, str(cell))
            lines = report.failures(results)
            assert len(lines) == bool(NOT_COMPARED & set(kinds))
            excused = quantity.startswith("Keras ") and "nothing said" not in kinds
            for line in lines:
                reasons = {"raised": "ValueError: no", "nothing said": "no number"}
                kind = "Keras fails" if excused else "Not compared"
                why = "; ".join(text for name, text in reasons.items() if name in kinds)
                assert line == f"{kind}: {quantity}, float32, on torch: {why}"


def compared_before(kinds: Sequence[str], case: str) -> int:
    """Which of the cases that were compared it is."""
    number = int(case.removeprefix("case "))
    return sum(kind not in NOT_COMPARED for kind in kinds[:number])


def test_a_cell_is_outside_or_missing_however_it_was_made() -> None:
    (columns,) = report.collect({"torch": result()}).cells.values()
    cell = columns["torch"]
    assert (cell.suspicion, cell.likely) == (0.0, None)
    for worst, failure, state in (
        (float("nan"), "", "outside"),
        (None, "", "not compared"),
        (0.5, "no", "not compared"),
        (1.5, "no", "outside"),
    ):
        changed = dataclasses.replace(cell, worst=worst, failure=failure)
        assert changed.state == state
        assert changed.is_outside == (state == "outside")
    # What is no number is written as further off than any number.
    assert "| inf |" in report.status_matrix(report.collect({"torch": result(float("nan"))}))
    assert dataclasses.replace(cell, failure="no", keras_fails=True).state == "Keras fails"
    assert dataclasses.replace(cell, keras_fails=True).state == "inside"
    for worst, share, text in (
        (0.0, 0.0, "0.00"),
        (0.004, 0.0, "<0.01"),
        (0.0099, 0.0, "<0.01"),
        (0.01, 0.0, "0.01"),
        (0.5, 0.001, "0.50 (0.1% ?)"),
        (0.5, 0.0005, "0.50 (<0.1% ?)"),
        (2.0, 0.25, "OUTSIDE 2.00 (25.0% ?)"),
    ):
        assert str(dataclasses.replace(cell, worst=worst, undecidable=share)) == text


BACKEND_RESULTS: dict[str, tuple[dict[str, Any], bool | None]] = {
    "inside": (result(), True),
    "Keras fails beside it": (several({}, KERAS_FAILS), True),
    "outside": (several({}, {"worst": 1.5}), False),
    "outside and a failure of Keras's": (several({"worst": 1.5}, KERAS_FAILS), False),
    "not compared": (several({}, {"worst": None, "elements": 0, "failure": "no"}), False),
    "Keras fails alone": (several(KERAS_FAILS), False),
    "nothing": (several(), False),
    "error": ({"kind": "error", "error": "boom"}, False),
    "absent": ({"kind": "absent"}, None),  # neither for nor against
}
EXERCISES: dict[str, tuple[dict[str, Any], bool]] = {
    "same": (exercise_run(), True),
    "near": (exercise_run(0.345 + 0.99 * report.EXERCISE_MARGIN), True),
    "above": (exercise_run(0.345 + 1.01 * report.EXERCISE_MARGIN), False),
    "below": (exercise_run(0.345 - 1.01 * report.EXERCISE_MARGIN), False),
    "no number": (exercise_run(float("nan")), False),
    "error": ({"kind": "error", "error": "boom"}, False),
    "absent": ({"kind": "absent"}, False),
}


def verdict_on(
    backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[int, dict[str, Any]]:
    """The exit status of the command, and what it writes, if its processes find this."""
    monkeypatch.setattr(cli, "verify_backend", lambda name, *_, **__: backends[name])
    monkeypatch.setattr(cli, "BACKENDS", tuple(backends))
    monkeypatch.setattr(cli, "problem_with", lambda *_: None)
    file = folder / "found.json"
    status = cli.main(["verify", "--json", str(file), "--status", str(folder / "status.md")])
    return status, json.loads(file.read_text())


def test_the_exit_status_of_every_pair_of_backends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for left, other in itertools.product(BACKEND_RESULTS, repeat=2):
        (first, good), (second, fine) = BACKEND_RESULTS[left], BACKEND_RESULTS[other]
        passes = False not in (good, fine) and True in (good, fine)
        status, found = verdict_on({"torch": first, "jax": second}, monkeypatch, tmp_path)
        kinds = {first["kind"], second["kind"]}
        is_outside = found["cells"]["outside"] > 0
        could_not = not is_outside and ("error" in kinds or "result" not in kinds)
        assert status == (0 if passes else 2 if could_not else 1), (left, other)
        assert processes.Child._can_start, "what calls `main` in its process may go on"
        assert found["passed"] == passes
        begins = ("FAILED: ", "OUTSIDE: ")
        assert found["verdict"].startswith(begins) == (not passes), (left, other, found["verdict"])
        both = (("torch", first), ("jax", second))
        failed = ", ".join(name for name, result_of in both if result_of["kind"] == "error")
        assert (
            not failed or found["verdict"] == f"FAILED: {failed} could not be held to the oracle."
        )


def test_what_cannot_be_written_is_2_whatever_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "BACKENDS", ("torch",))
    monkeypatch.setattr(cli, "problem_with", lambda *_: None)
    for found, _ in BACKEND_RESULTS.values():
        monkeypatch.setattr(cli, "verify_backend", lambda *_, found=found, **__: found)
        assert cli.main(["verify", "--json", str(tmp_path / "missing" / "found.json")]) == 2


def test_what_was_not_waited_for_could_not_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    done, cancelled, wrong = (Future[dict[str, Any]]() for _ in range(3))
    done.set_result(result())
    cancelled.cancel()
    wrong.set_exception(KeyError("ours"))
    interrupted = {"kind": "error", "error": "interrupted", "status": 2}
    ended = {"torch": result(), "jax": interrupted}
    assert cli._ended({"torch": done, "jax": cancelled}) == ended
    with pytest.raises(KeyError, match="ours"):
        cli._ended({"torch": done, "jax": wrong})
    monkeypatch.setattr(cli.INTERRUPTION, "number", 2)
    assert cli._ended({"torch": done, "jax": wrong}) == ended
    assert cli._ended({"torch": done, "jax": cancelled}) == ended


def test_what_is_asked_for_reaches_the_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which backends, where, of what, for how long, on how many threads; the exercise too."""
    asked: dict[str, tuple[Any, ...]] = {}

    def run(module: str, given: list[str], backend: str, *more: Any, **shared: Any) -> Any:
        name = "oracle" if "--oracle" in given else backend
        device, _, time_limit = more
        both = shared["limits"], shared["threads"]
        asked[f"{module.rpartition('.')[2]} {name}"] = given, backend, device, time_limit, *both
        return {"kind": "result"}

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "problem_with", lambda *_: None)
    monkeypatch.setattr(cli, "installed", lambda name: name != "tensorflow")
    monkeypatch.setattr(cli, "run_backend", run)
    monkeypatch.setattr(cli.report, "collect", stop)
    monkeypatch.setattr(cli.os, "cpu_count", lambda: 16)
    options = ["--device=gpu", "--time-limit=7", "--memory-limit=3", "--wide"]
    assert cli.main(["verify", *options, f"--report={tmp_path}"]) == 130
    of_each = (cli.Limits(3 * 2**20, None, 64 * 2**20), 2)  # seven processes, sixteen cores
    of_exercise = (cli.EXERCISE_TIME_LIMIT, *of_each)
    assert asked == {
        **{
            f"verify {name}": (["--wide"], name, "gpu", 7.0, *of_each)
            for name in ("jax", "torch", "numpy", "openvino")
        },
        "exercise oracle": (["--oracle"], "numpy", "cpu", *of_exercise),
        **{f"exercise {name}": ([], name, "gpu", *of_exercise) for name in ("jax", "torch")},
    }
    asked.clear()
    monkeypatch.setattr(cli.os, "cpu_count", lambda: None)
    assert cli.main(["verify", "--backend=numpy", f"--report={tmp_path}"]) == 130
    of_one = (processes.TIME_LIMIT, cli.Limits(None, None, 2**26), 1)
    assert asked == {"verify numpy": ([], "numpy", "cpu", *of_one)}


def test_processes_that_share_the_cores_have_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*processes.THREADS, *processes.KEEPS_MEMORY}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert not {*processes.environment("torch", "cpu")} & names
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = processes.environment("torch", "cpu", 3)
    assert [found[name] for name in processes.THREADS] == ["5", "3", "3", "3", "3"]
    assert found == found | processes.KEEPS_MEMORY


def test_the_gravest_of_several_errors_is_the_status() -> None:
    """A mistake of ours is 70, and a process that says no status could not: 2."""
    errors: list[dict[str, Any]] = [
        {"kind": "error", "error": "boom", "status": 70},
        {"kind": "error", "error": "boom"},
    ]
    for first, second in itertools.permutations(errors):
        assert cli.status_of(report.collect({"torch": first, "jax": second})) == 70
        exercise = {"oracle": exercise_run(), "torch": second}
        assert cli.status_of(report.collect({"torch": first}, exercise)) == 70


def test_the_exercise_of_every_pair_counts() -> None:
    for left, other in itertools.product(EXERCISES, repeat=2):
        runs = {"oracle": exercise_run(), "torch": EXERCISES[left][0], "jax": EXERCISES[other][0]}
        results = report.collect({"torch": result(), "jax": result()}, runs)
        wrong = [name for name, kind in (("torch", left), ("jax", other)) if not EXERCISES[kind][1]]
        assert results.exercise_failures == wrong, (left, other)
        assert results.passed == (not wrong)
        failed = f"FAILED: the notes' exercise, on {', '.join(wrong)}."
        assert (report.summary(results) == failed) == bool(wrong)
        for name, kind in (("torch", left), ("jax", other)):
            problem = report.exercise_problem(results.exercise, name)
            why = {"error": "boom", "absent": "absent"}.get(kind, "the final cost is further than ")
            assert (problem or "").startswith(why if name in wrong else ""), (kind, problem)
            assert (problem is None) == (name not in wrong)
        if other == "same":  # the page draws pictures
            page = "".join(report.html_page(results).split("The notes' exercise")[1:])
            assert page.count("class='outside'") == len(wrong)


def pixels(picture: str, colour: str) -> int:
    """How many of the pixels of a data URI are of one colour."""
    with Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))) as image:
        array = np.asarray(image.convert("RGB"))
    return int(np.all(array == list(bytes.fromhex(colour[1:])), axis=-1).sum())


def test_what_is_not_right_is_red_wherever_it_is_shown() -> None:
    """In the terminal, on the page and in its picture; what Keras fails at is neither."""
    pictures: dict[str, str] = {}
    for state, measurement in (
        ("inside", {"worst": 0.5}),
        ("outside", {"worst": float("inf")}),
        ("not compared", {"worst": None, "elements": 0, "failure": "no"}),
        ("Keras fails", KERAS_FAILS),
    ):
        measurement = {**measurement, "quantity": "Keras L2" if state == "Keras fails" else "a"}
        results = report.collect({"torch": several(measurement, {})})
        assert results.counts[state] == 1 + (state == "inside")
        file = io.StringIO()
        console = Console(file=file, width=120, force_terminal=True, color_system="standard")
        report.print_results(results, console)
        table = [line for line in file.getvalue().splitlines() if "EQ-KL" in line]
        verdict = file.getvalue().splitlines()[-1]
        wrong = state in ("outside", "not compared")
        red, green, yellow = "\x1b[1;31m", "\x1b[1;32m", "\x1b[33m"
        assert any(red in line for line in table) == wrong, state
        assert any(yellow in line for line in table) == (state == "Keras fails"), state
        assert (red in verdict, green in verdict) == (wrong, not wrong), state
        pictures[state] = report.heat_map(results)
        page = report.html_page(results)
        assert page.count("class='outside'") == (state == "outside")
        assert page.count("class='not-compared'") == (state == "not compared")
        assert page.count("class='keras-fails'") == (state == "Keras fails")
    colours = {"outside": "#ff0000", "not compared": "#d500f9", "Keras fails": "#9e9e9e"}
    for state, colour in colours.items():
        counts = {name: pixels(picture, colour) for name, picture in pictures.items()}
        assert max(counts, key=lambda name: counts[name]) == state, counts
        assert counts[state] > 4 * counts["inside"], counts  # which has it in the legend


def test_an_exercise_that_ends_elsewhere_is_red() -> None:
    file = io.StringIO()
    console = Console(file=file, width=160, force_terminal=True, color_system="standard")
    runs = {"oracle": exercise_run(), "torch": exercise_run(0.5), "jax": exercise_run()}
    console.print(report.exercise_table(runs))
    (line,) = (line for line in file.getvalue().splitlines() if "0.50000" in line)
    assert "\x1b[1;31mOUTSIDE 0.50000" in line
    assert file.getvalue().count("OUTSIDE") == 1


def test_dtypes_and_equations_are_rows_of_their_own() -> None:
    """What is inside in one does not hide what is outside in the other."""
    for changed in ({"dtype": "float64"}, {"equation": "EQ-DECAY"}, {"quantity": "another"}):
        both = several({"quantity": "a"}, {"quantity": "a", "worst": 1.5, **changed})
        results = report.collect({"torch": both})
        assert (results.counts["inside"], results.counts["outside"]) == (1, 1), changed
        assert len(results.cells) == 2


# Which objects may fail on which backend, in which dtype: one process plays them all.
EXCUSED = """
import json
from types import SimpleNamespace
import keras
import numpy as np
from sae_oracle.workers import verify

class Raises:
    def __init__(self, *arguments, **named):
        pass

    def __call__(self, x):
        raise ValueError("planted")

real = {name: getattr(keras.regularizers, name) for name in OWN}
x = np.random.default_rng(0).uniform(size=(30, 64))
found = []
for backend in ("jax", "tensorflow", "torch", "numpy", "openvino"):
    for dtype in ("float32", "float64"):
        for raising in (*OWN, "KLSparsityRegularizer"):
            own = SimpleNamespace(**{**real, raising: Raises})
            config = SimpleNamespace(backend=lambda: backend)
            verify.keras = SimpleNamespace(config=config, regularizers=own)
            kept = verify.KLSparsityRegularizer
            if raising == "KLSparsityRegularizer":
                verify.KLSparsityRegularizer = Raises
            # Rows and columns are two quantities of one object: each begins anew.
            excused = []
            try:
                for m in verify.hold_regularizers(x.astype(dtype), dtype):
                    excused += [[m.quantity, m.worst, m.failure]] if m.failure else []
                stopped = False
            except ValueError as error:
                assert str(error) == "planted"
                stopped = True
            verify.KLSparsityRegularizer = kept
            found.append([backend, dtype, raising, stopped, excused])
print(json.dumps(found))
"""


def test_exactly_the_listed_failures_are_excused(servers: Callable[[str], Forks]) -> None:
    own = ("L1", "L2", "L1L2", "OrthogonalRegularizer")
    printed = servers("numpy").run(EXCUSED.replace("OWN", repr(own)))
    both = ["Keras orthogonal, rows", "Keras orthogonal, columns"]
    # On numpy the rows are right, so what raises there is not known.
    excused = {("tensorflow", "float64", "OrthogonalRegularizer"): both}
    cases = json.loads(printed.splitlines()[-1])
    assert len(cases) == 5 * 2 * 5
    for backend, dtype, raising, stopped, failures in cases:
        expected = excused.get((backend, dtype, raising), [])
        assert [quantity for quantity, *_ in failures] == expected, (backend, dtype, raising)
        assert stopped == (not expected)
        assert all((worst, text) == (None, "ValueError: planted") for _, worst, text in failures)


# Everything that is said to be compared is: what is wrong in value alone, or in gradient alone.
PLANTED = """
import json
import sys
from dataclasses import asdict, replace
import numpy as np
from keras import ops
from keras_impl.losses import HalfSquaredError
from keras_impl.term import SparsityTerm
from sae_oracle.workers import verify

right = SparsityTerm.penalty

def off(value, gradient):
    def penalty(*arguments, **named):
        p = right(*arguments, **named)
        constant = ops.stop_gradient(p)
        return p + value * constant + gradient * (p - constant)
    return penalty

plain = replace(verify.CASES[0], arguments=verify.CASES[0].arguments | {"hidden_units": 3})
CASES = (
    replace(plain, name="plain", steps=2, size="5 × 4"),
    replace(
        plain,
        name="tied",
        arguments=plain.arguments | {"tied": True, "from_logits": True},
        steps=1,
    ),
    replace(plain, name="wide", steps=0, likely=False),
)
x = np.random.default_rng(0).uniform(0.1, 0.9, size=(5, 4))
y = np.random.default_rng(0).uniform(0.1, 0.9, size=(32, 64))
found = {}
for name, dtype, penalty in (
    ("right", "float32", right),
    ("float64", "float64", right),
    ("value", "float32", off(0.01, 0.0)),
    ("gradient", "float32", off(0.0, 0.01)),
):
    SparsityTerm.penalty = penalty
    verify.use_dtype(dtype)
    found[name] = [
        asdict(m)
        for case in CASES
        for m in verify.hold_model(case, x.astype(dtype), dtype)
    ] + [asdict(m) for m in verify.hold_regularizers(y.astype(dtype), dtype)]
SparsityTerm.penalty = right
verify.use_dtype("float32")
usage = verify.reference.usage
verify.reference.usage = lambda actual, expected: __import__("reference").Usage(0.5, 0.25, 7)
found["reported"] = [
    [m.worst, m.undecidable, m.elements]
    for m in verify.hold_regularizers(y.astype("float32"), "float32")
]
verify.reference.usage = usage
found["calls"] = []

def recording(*case_x_dtype):
    *case, x, dtype = case_x_dtype
    found["calls"].append([case[0].name if case else "called directly", dtype, str(x.dtype)])
    return [verify.Measurement("EQ", found["calls"][-1][0], "", "", dtype, 0.5, 0.0, 0.0, 1)]

verify.hold_model = verify.hold_regularizers = recording
verify._inputs = lambda data, samples, side: np.zeros((samples, side**2))
found["said"] = []
verify.say = found["said"].append
for arguments in ([], ["--wide"]):
    sys.argv = ["verify", *arguments]
    verify.main()
found["cases"] = [[case.name, case.dtypes] for case in (*verify.CASES, verify.WIDE)]
print(json.dumps(found))
"""

PARTS = ("EQ-RECONSTRUCTION reconstruction", "EQ-DECAY weight decay")
# What is compared of the three networks of PLANTED, in order.
OF_NETWORKS = {
    "plain": [
        *(*PARTS, "EQ-SPARSITY sparsity", "EQ-COST total cost"),
        *["EQ-GRADIENT gradient by kernel"] * 2,
        *["EQ-GRADIENT gradient by bias"] * 2,
        "EQ-DELTA gradient by input",
        *["EQ-BOUND-DESCENT weights after 2 steps of fit"] * 4,
    ],
    "tied": [
        *(*PARTS, "EQ-SPARSITY-LOGITS sparsity from logits", "EQ-COST total cost"),
        "EQ-GRADIENT-TIED gradient by tied kernel",
        *["EQ-GRADIENT gradient by bias"] * 2,
        "EQ-DELTA gradient by input",
        *["EQ-BOUND-DESCENT weights after 1 step of fit"] * 3,
    ],
}
OF_NETWORKS["wide"] = OF_NETWORKS["plain"][:9]
# .. and of what is called directly, each with its gradient, the loss without.
DIRECTLY = [
    "EQ-SPARSITY KLSparsityRegularizer",
    "EQ-SPARSITY-SLOPE KLSparsityRegularizer, gradient",
    "EQ-KL-LOGITS KLSparsityRegularizer from logits",
    "EQ-KL-LOGITS-DERIVATIVE KLSparsityRegularizer from logits, gradient",
    "EQ-RECONSTRUCTION HalfSquaredError",
    *(
        f"EQ-{label}{of} Keras {name}{', gradient' if of else ''}"
        for name, label in (
            *(("L1", "L1"), ("L2", "L2"), ("L1L2", "L1L2")),
            *(("orthogonal, rows", "ORTHOGONAL"), ("orthogonal, columns", "ORTHOGONAL")),
        )
        for of in ("", "-GRADIENT")
    ),
]


def test_every_quantity_is_really_compared(servers: Callable[[str], Forks]) -> None:
    trains = [name for name in ("torch", "jax", "tensorflow") if processes.installed(name)]
    if not trains:
        pytest.skip("no backend with gradients is installed")
    found = json.loads(servers(trains[0]).run(PLANTED).splitlines()[-1])
    assert {tuple(numbers) for numbers in found["reported"]} == {(0.5, 0.25, 7)}
    for dtype in ("right", "float64"):
        for case, expected in {**OF_NETWORKS, "called directly": DIRECTLY}.items():
            of_case = [m for m in found[dtype] if m["case"] == case]
            rows = [f"{m['equation']} {m['quantity']}" for m in of_case if not m["failure"]]
            assert rows == [row for row in expected if trains[0] != "tensorflow" or row in rows]
            size = "5 × 4" if case == "plain" else "256 × 64"
            assert {(m["size"], m["dtype"]) for m in of_case} == {
                (size, "float32" if dtype == "right" else "float64")
            }
            # Every number: of 5 samples and a network 4-3-4, as many of a tied one once.
            elements = [m["elements"] for m in of_case]
            if case != "called directly":
                kernels, biases = [12] * (1 + (case != "tied")), [3, 4]
                fitted = [*kernels, *biases] if case != "wide" else []
                assert elements == [1, 1, 1, 1, *kernels, *biases, 20, *fitted]
            has_likely = case not in ("wide", "called directly")
            for m in of_case:
                assert not m["failure"] or trains[0] == "tensorflow"
                assert (m["likely"] is not None) == (has_likely and "of fit" not in m["quantity"])
                assert (m["suspicion"] is None) == (m["likely"] is None)
                assert m["likely"] is None or m["suspicion"] <= 1.0
                assert m["likely"] is None or m["likely"] <= m["resolution"]
    # A bound grows with the unit roundoff; in float64 the oracle's own roundings are as large.
    for single, double in zip(found["right"], found["float64"], strict=True):
        if not single["failure"] and not double["failure"]:
            ratio = double["resolution"] / single["resolution"]
            of_keras = single["quantity"].startswith("Keras ")
            assert 0.9 <= ratio * (1.0 if of_keras else 2.0**29) <= 2.1, (single, double)
    assert not any(m["worst"] > 1.0 for name in ("right", "float64") for m in found[name])
    *cases, (wide, in_dtypes) = found["cases"]
    assert in_dtypes == ["float32"]
    calls = [
        [name, dtype, dtype]
        for dtype in ("float32", "float64")
        for name, dtypes in [*cases, ("called directly", [dtype])]
        if dtype in dtypes
    ]
    assert found["calls"] == [*calls, [wide, "float32", "float32"]]
    results = [message for message in found["said"] if message["kind"] == "result"]
    for of_run, numbers in zip(results, (calls, found["calls"][len(calls) :]), strict=True):
        assert [m["quantity"] for m in of_run["measurements"]] == [name for name, *_ in numbers]
        assert (of_run["backend"], of_run["device"]) == (trains[0], "cpu")
        assert trains[0] in of_run["versions"]
        assert 0.0 <= of_run["seconds"] < 60.0
    steps = [(m["done"], m["of"]) for m in found["said"] if m["kind"] == "step"]
    # What the wide case has of objects that are called directly is a step without any.
    assert steps == [*((n + 1, len(calls)) for n in range(len(calls))), (1, 2), (2, 2)]
    ours = {"KLSparsityRegularizer", "KLSparsityRegularizer from logits"}
    values = {"sparsity", "sparsity from logits", "total cost", *ours}
    # The output layer has no penalty: its gradients stay inside while what is fitted does not.
    gradients = {f"{name}, gradient" for name in ours}
    gradients |= {f"gradient by {part}" for part in ("kernel", "tied kernel", "bias", "input")}
    for mistake, wrong in (("value", values), ("gradient", gradients)):
        outside = {m["quantity"] for m in found[mistake] if not m["worst"] <= 1.0}
        fitted = {name for name in outside if "of fit" in name}
        assert outside - fitted == wrong, mistake
        assert len(fitted) == 2 * (mistake == "gradient")
