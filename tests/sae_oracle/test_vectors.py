"""The conformance vectors: what they cover, that they are reproducible, and who is held to them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference import certified
from sae_oracle.conformance import check, generation
from sae_oracle.conformance.check import certificate, check_program
from sae_oracle.conformance.oracle import answers
from sae_oracle.conformance.vectors import (
    FLAGS,
    FOLDER,
    FORMATS,
    VERSION,
    Judgement,
    Output,
    Vector,
    VectorError,
    as_text,
    digest,
    identifier_of,
    judge,
    read_vectors,
    vector_files,
)
from sae_oracle.processes import installed
from tests.fork_server import Forks
from tests.fresh_process import ROOT, compiling_quickly
from tests.pages import AXE, CHROMIUM, complaints
from tests.sae_oracle import formula_mutants

VECTORS = read_vectors()
BY_LABEL = {v.label: v for v in reversed(VECTORS)}
BY_IDENTIFIER = {v.identifier: v for v in VECTORS}


@functools.cache
def answers_to(identifier: str) -> dict[str, Any]:
    return answers(BY_IDENTIFIER[identifier])


needs_flint = pytest.mark.skipif(not certified.INSTALLED, reason=certified.NEEDS)


@needs_flint
def test_all_of_them_are_reproduced_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three seconds of one core. Else: `sae-oracle vectors --write vectors`, and say why."""
    from sae_oracle.cli import main

    assert main(["vectors", "--write", str(tmp_path)]) == 0
    assert digest() in capsys.readouterr().out
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "vectors" / path.name).read_bytes(), path.name
    assert {p.name for p in tmp_path.iterdir()} == {
        p.name for p in (ROOT / "vectors").iterdir() if p.is_file()
    }
    (tmp_path / "file").write_text("")
    assert main(["vectors", "--write", str(tmp_path / "file")]) == 2
    assert "cannot be written: " in capsys.readouterr().out


def test_every_label_with_a_value_has_vectors_and_every_flag_is_used() -> None:
    assert {v.label for v in VECTORS} == set(certified.CERTIFIED)
    assert {flag for v in VECTORS for flag in v.flags} == set(FLAGS)
    assert len(VECTORS) >= 300
    assert sum(p.stat().st_size for p in (ROOT / "vectors").glob("*.*")) < 3e6


def test_identifiers_are_unique_and_made_of_the_inputs() -> None:
    assert len({v.identifier for v in VECTORS}) == len(VECTORS)
    # For ever: this one is in certificates.
    expected = "-".join(("EQ-KL", "732c7435"))  # in two: it is no label
    assert identifier_of("EQ-KL", {"rho": 0.5, "rho_hat": 0.25}) == expected


def test_the_files_are_what_the_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((FOLDER / "schema.json").read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    contents = [json.loads(path.read_bytes()) for path in vector_files()]
    for content in contents:
        validator.validate(content)
    broken: list[Any] = [
        contents[0] | {"version": "sae-oracle-vectors/2"},
        contents[0] | {"vectors": []},
        contents[0] | {"vectors": [contents[0]["vectors"][0] | {"flags": ["other"]}]},
        contents[0] | {"vectors": [contents[0]["vectors"][0] | {"outputs": []}]},
    ]
    assert not any(map(validator.is_valid, broken))
    assert tuple(schema["$defs"]["vector"]["properties"]["flags"]["items"]["enum"]) == FLAGS
    assert tuple(schema["$defs"]["format"]["enum"]) == FORMATS
    assert schema["title"] == VERSION


def test_inputs_are_float32_numbers_and_digits_are_thirty() -> None:
    for vector in VECTORS:
        for array in generation._arrays(vector.arguments):
            assert np.array_equal(array.astype(np.float32).astype(np.float64), array)
        for output in vector.outputs:
            for text in output.digits:
                significant = re.sub(r"e.*|\D", "", text).lstrip("0")
                assert len(significant) <= 30, text
    usual = [v for v in VECTORS if v.formats == FORMATS]
    assert len(usual) > 0.9 * len(VECTORS)


@pytest.mark.parametrize("label", sorted(BY_LABEL))
def test_the_oracle_passes_every_vector(label: str) -> None:
    for vector in (v for v in VECTORS if v.label == label):
        answer = answers_to(vector.identifier)
        assert set(answer) == {output.name for output in vector.outputs}
        found = judge(vector, answer, "float64")
        assert found.status == "passed", found


def test_every_mistake_planted_in_a_formula_fails_a_vector() -> None:
    """Each sign, operation and number: `python -m tests.sae_oracle.formula_mutants`."""
    lived, planted = [], 0
    for function in formula_mutants.functions():
        order = formula_mutants.in_order(function, VECTORS)
        for mutant in formula_mutants.mutants_of(function):
            if mutant.words not in formula_mutants.CHANGE_NOTHING:
                planted += 1
                lived += [mutant.words] * (formula_mutants.failing(mutant, order) is None)
    assert not lived
    assert planted > 200


@pytest.mark.parametrize("precision", FORMATS)
def test_a_rounded_oracle_passes_and_one_outside_the_bound_fails(precision: str) -> None:
    """Bounds are neither too narrow for the format itself, nor without an effect."""
    seen = 0
    for vector in VECTORS:
        right = answers_to(vector.identifier)
        assert judge(vector, right, precision).status != "failed", vector.identifier
        for output in vector.outputs:
            for i, bound in enumerate(output.bounds.get(precision, ())):
                if bound is None:
                    continue
                seen += 1
                wrong = {n: np.array(a, dtype=np.float64) for n, a in right.items()}
                wrong[output.name].reshape(-1)[i] += 3.0 * bound + 1e-300
                if wrong[output.name].reshape(-1)[i] != output.numbers[i]:
                    assert judge(vector, wrong, precision).status == "failed"
                break
    assert seen > 0.9 * sum(precision in v.formats for v in VECTORS)


def test_what_is_no_right_answer_fails() -> None:
    vector = next(v for v in VECTORS if v.label == "EQ-COST")
    right = answers(vector)
    for wrong in (
        {"value": float("nan")},
        {"value": "three"},
        {"value": [1.0, 2.0]},
        {"value": None},
        {"value": float("inf")},
        {"gradient": right["gradient"][:-1]},
        {"gradient": right["gradient"].reshape(1, -1)},
    ):
        found = judge(vector, right | wrong, "float32")
        assert found.status == "failed", wrong
        assert vector.identifier in found.words
    assert judge(vector, {}, "float32").status == "not run"


def of_three(*bounds: float | None) -> Vector:
    """A vector whose numbers are 1, 2 and 3, each with its bound in float32."""
    output = Output("value", (3,), ("1", "2", "3"), {"float32": bounds})
    return Vector("EQ-L1-0", "EQ-L1", (), {}, ("float32",), (output,))


def test_an_answer_at_its_bound_passes_and_the_next_number_fails() -> None:
    vector = of_three(0.5, 0.0, None)
    for answer, status, usage in (
        ([1.5, 2.0, 99.0], "passed", 1.0),  # nothing can be said of the last
        ([1.0, 2.0, math.inf], "passed", 0.0),
        ([1.5 + 2.0**-52, 2.0, 3.0], "failed", 1.0 + 2.0**-51),
        ([1.0, 2.0 + 2.0**-51, 3.0], "failed", math.inf),
        ([1.0, 2.0, math.nan], "failed", math.inf),
    ):
        found = judge(vector, {"value": answer}, "float32")
        assert (found.status, found.usage) == (status, usage), answer


def test_a_certificate_says_of_what_passed_how_far_off_it_was() -> None:
    fine, coarse = of_three(0.125, 0.5, None), of_three(4.0, 4.0, 4.0)
    results = [
        (fine, Judgement("passed", 0.25)),
        (fine, Judgement("passed", 0.125)),
        (coarse, Judgement("failed", 7.0, "far off")),
        (coarse, Judgement("not run", None, "not asked")),
    ]
    found = certificate("it", results, "float32", "")
    assert (found["passed"], found["failed"], found["not run"]) == (2, 1, 1)
    assert (found["worst_usage"], found["resolution"]) == (0.25, 0.25)
    nothing = certificate("it", results[2:], "float32", "")
    assert (nothing["worst_usage"], nothing["resolution"]) == (None, None)


def spoiled(folder: Path, **changes: Any) -> Vector:
    """Write the file of one label with other contents; return its first vector."""
    vector = BY_LABEL["EQ-L1"]
    content = json.loads(as_text("EQ-L1", {}, [vector]))
    item = content["vectors"][0]
    for name, value in changes.items():
        (content if name in content else item)[name] = value
    (folder / "EQ-L1.json").write_text(json.dumps(content))
    return vector


# An output of the vector that `spoiled` writes.
GOOD: dict[str, Any] = {
    "name": "value",
    "shape": [],
    "digits": ["1"],
    "bounds": {name: [0.5] for name in BY_LABEL["EQ-L1"].formats},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "sae-oracle-vectors/2"}, "'sae-oracle-vectors/2'. This program reads"),
        ({"version": None}, "has the version None"),
        ({"label": "EQ-L2"}, "must hold the label 'EQ-L1'"),
        ({"vectors": []}, "a list of vectors"),
        ({"vectors": [3]}, "vector 0 cannot be read"),
        ({"inputs": {"weights": 1.0}}, "its inputs are not those of its identifier"),
        ({"outputs": []}, "it has no outputs"),
        ({"outputs": [{"name": "value"}]}, "has no 'shape'"),
        (
            {"outputs": [{"name": "value", "shape": [2], "digits": ["1"], "bounds": {}}]},
            "has not one number for each place",
        ),
        (
            {"outputs": [{"name": "value", "shape": [], "digits": ["nan"], "bounds": {}}]},
            "holds NaN",
        ),
        (
            {"outputs": [{"name": "v", "shape": [], "digits": ["1"], "bounds": {"float32": [-1]}}]},
            "is no number of 0 or more",
        ),
        ({"flags": ["other"]}, "a flag or format that is not known"),
        ({"exact_in": ["float64"]}, "has bounds of other formats than it is exact in"),
        *(
            ({"outputs": [GOOD | change]}, words)
            for change, words in (
                ({"name": []}, "is no text"),
                ({"digits": [1.0]}, "is no text"),
                ({"shape": [1.0]}, "is no list of sizes"),
                ({"shape": [-1, -1]}, "is no list of sizes"),
                ({"bounds": GOOD["bounds"] | {"float32": [True]}}, "is no number of 0 or more"),
                ({"bounds": GOOD["bounds"] | {"float32": [10**400]}}, "int too large"),
            )
        ),
    ],
)
def test_a_spoiled_file_is_one_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    vector = spoiled(tmp_path, **changes)
    with pytest.raises(VectorError, match=re.escape(words)) as raised:
        read_vectors(tmp_path)
    assert "EQ-L1.json" in str(raised.value)
    assert "\n" not in str(raised.value)
    if not {"version", "label", "vectors"} & set(changes):
        assert vector.identifier in str(raised.value)


def test_a_vector_that_is_there_twice_is_named(tmp_path: Path) -> None:
    vector = BY_LABEL["EQ-L1"]
    (tmp_path / "EQ-L1.json").write_text(as_text("EQ-L1", {}, [vector, vector]))
    with pytest.raises(VectorError, match=f"{vector.identifier} is there more than once"):
        read_vectors(tmp_path)


def test_a_truncated_file_says_which_vector_was_the_last(tmp_path: Path) -> None:
    text = (FOLDER / "EQ-KL.json").read_bytes()
    (tmp_path / "EQ-KL.json").write_bytes(text[: len(text) // 2])
    with pytest.raises(VectorError, match=r"EQ-KL\.json is no whole JSON file \(it ends in or"):
        read_vectors(tmp_path)
    with pytest.raises(VectorError, match="there is no file"):
        read_vectors(tmp_path / "nothing")


def test_the_wheel_has_every_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["sae_oracle"]
    packed = {path for p in patterns for path in (ROOT / "sae_oracle").glob(p) if path.is_file()}
    files = {
        p for p in (ROOT / "vectors").rglob("*") if p.is_file() and "__pycache__" not in str(p)
    }
    assert {p.resolve() for p in packed} >= files


# --- a program


PROGRAM = """
import json, sys, time
from math import log
sys.stderr.write("noise {}\\n")
count = 0
for line in sys.stdin:
    given = json.loads(line)
    a, rho, beta = given["activations"], given["rho"], given["beta"]
    means = [sum(unit) / len(a) for unit in zip(*a)]
    kl = [rho * log(rho / m) + (1 - rho) * log((1 - rho) / (1 - m)) for m in means]
    slope = [beta / len(a) * ((1 - rho) / (1 - m) - rho / m) for m in means]
    value, gradient = beta * sum(kl), [slope] * len(a)
    answer = {"value": value, "gradient": gradient}
    text = json.dumps(answer)
    count += 1
    CHANGE
    print(text, flush=True)
"""

ASKED = [
    v
    for v in VECTORS
    if v.label == "EQ-SPARSITY"
    and set(v.inputs) == {"activations", "rho", "beta"}
    and v.outputs[0].digits != ("inf",)
    and not {"beta-zero", "denormal"} & set(v.flags)
]


def checked(change: str, vectors: list[Vector], **options: Any) -> list[Judgement]:
    command = [sys.executable, "-S", "-c", PROGRAM.replace("CHANGE", change)]
    return [found for _, found in check_program(command, vectors, **options)]


def test_a_right_program_passes_whatever_it_prints_to_stderr() -> None:
    found = checked("pass", ASKED)
    assert {f.status for f in found} == {"passed"}, found
    assert all(f.usage is not None and f.usage <= 1.0 for f in found)
    found = checked("text = json.dumps({'value': value})", ASKED[:2])
    assert [f.status for f in found] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("text = ''", "no JSON"),
        ("text = 'value: 1'", "no JSON"),
        ("text = '[' * 100000", "no JSON"),
        ("text = '[1.5]'", "must answer"),
        ("text = '{}'", "must answer"),
        ("text = json.dumps({'value': [value]})", "must be one number"),
        ("text = json.dumps({'value': str(value)})", "is no number"),
        ("text = json.dumps({'value': True})", "is no number"),
        ("text = json.dumps({'value': None})", "NaN"),
        ("text = json.dumps({'value': float('nan')})", "NaN"),
        ("text = '{\"value\": 1e999}'", "is inf"),
        ("text = '{\"value\": 1' + '0' * 400 + '}'", "no format holds"),
        ("text = json.dumps({'value': value * (1 + 1e-9)})", "must be"),
        ("text = json.dumps(answer | {'gradient': gradient[:1]})", "must have shape"),
        ("text = json.dumps(answer | {'gradient': [[1.0], [1.0, 2.0]]})", "different lengths"),
        ("text = json.dumps(answer | {'gradient': [[0.0] * len(g) for g in gradient]})", "must be"),
        ("if count == 1: text = json.dumps({'value': value})", "has no gradient"),
        ("break", "ended without an answer, with status 0"),
        ("sys.exit(3)", "with status 3"),
        ("import os; os.close(1); time.sleep(60)", "it closed its output without an answer"),
        ("time.sleep(60)", "no answer came in 1.5 seconds"),
    ],
)
def test_what_is_no_right_answer_of_a_program_fails(change: str, words: str) -> None:
    found = checked(change, ASKED[:2], time_limit=1.5 if change == "time.sleep(60)" else 30.0)
    assert found[0].status == "failed"
    assert ASKED[0].identifier in found[0].words
    assert words in found[0].words


def test_answers_in_another_order_one_too_many_or_one_too_few_fail() -> None:
    swapped = "text, last = globals().get('last', '{\"value\": 1.0}'), text"
    assert {f.status for f in checked(swapped, ASKED[:3])} == {"failed"}
    twice = checked("text += chr(10) + text", ASKED[:3])
    assert [f.status for f in twice[1:]] == ["failed", "failed"]
    one_more = checked("if count == 2: text += chr(10) + text", ASKED[:2])
    assert [f.status for f in one_more] == ["passed", "failed"]
    assert "after its last answer" in one_more[1].words


@pytest.mark.parametrize("end", ["break", "os.abort()", "time.sleep(60)"])
def test_a_program_that_ends_fails_there_and_is_started_again(end: str) -> None:
    # It is given up for questions in succession: not for four of eight.
    asked = ASKED[:8] if end == "break" else ASKED[:4]
    found = checked(f"if count == 2: import os; {end}", asked, time_limit=2.0)
    assert [f.status for f in found] == ["passed", "failed"] * (len(asked) // 2)
    assert not any("given up" in f.words for f in found)


def test_a_program_that_answers_nothing_is_given_up() -> None:
    found = checked("time.sleep(60)", ASKED, time_limit=0.3)
    assert {f.status for f in found} == {"failed"}
    assert "given up" in found[3].words
    assert all(v.identifier in f.words for v, f in zip(ASKED, found, strict=True))


ANY_EQUATION = """
import json, sys
from types import SimpleNamespace
import numpy as np
from sae_oracle.conformance.oracle import answers
from sae_oracle.conformance.vectors import decoded

def argument(name, value):
    if name in ("chunks", "of_layers"):
        return [np.array(part) for part in value]
    if isinstance(value, dict):
        return decoded(value)
    return np.array(value) if isinstance(value, list) and name != "sizes" else value

for line in sys.stdin:
    given = json.loads(line)
    label = given.pop("equation")
    if label == "EQ-RELU":
        print(json.dumps({"unsupported": "no such units"}), flush=True)
        continue
    found = answers(SimpleNamespace(
        label=label, arguments={name: argument(name, value) for name, value in given.items()}
    ))
    found = {name: np.asarray(value).tolist() for name, value in found.items()}
    if label == "EQ-TANH":
        found["value"] = [found["value"]]
    print(json.dumps(found), flush=True)
"""


def test_a_program_may_be_asked_every_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    vectors = [v for v in VECTORS if v in BY_LABEL.values() or v.label in ("EQ-COST", "EQ-TANH")]
    command = [sys.executable, "-c", ANY_EQUATION]
    found = check_program(command, vectors, labels={v.label for v in vectors})
    for vector, judgement in found:
        expected = {"EQ-RELU": "not run", "EQ-TANH": "failed"}.get(vector.label, "passed")
        assert judgement.status == expected, judgement
    findings = check_program(command, vectors, labels=["EQ-KL"])
    assert {v.label for v, f in findings if f.status != "not run"} == {"EQ-KL"}


def test_the_command_checks_a_program_and_writes_its_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_oracle.cli import main

    monkeypatch.setattr("sae_oracle.conformance.vectors.read_vectors", lambda: VECTORS[:3] + ASKED)
    right, wrong, page = (tmp_path / name for name in ("right.py", "wrong.py", "page.html"))
    right.write_text(PROGRAM.replace("CHANGE", "pass"))
    wrong.write_text(PROGRAM.replace("CHANGE", "text = json.dumps({'value': 2 * value})"))
    file = tmp_path / "found.json"
    start = ["vectors", "--check", "--certificate"]
    assert main([*start, str(file), "--", sys.executable, str(right)]) == 0
    assert f"{ASKED[0].identifier}  0" in capsys.readouterr().out
    found = json.loads(file.read_bytes())
    counts = {"passed": len(ASKED), "failed": 0, "not run": 3}
    assert {name: found[name] for name in counts} == counts
    assert found["vectors"] == {"version": VERSION, "sha256": digest()}
    assert 0 <= found["worst_usage"] <= 1
    assert 0 < found["resolution"] < 1e-12
    assert main([*start, str(page), "--", sys.executable, str(wrong)]) == 1
    text = page.read_text()
    assert f"<th scope='row'>failed</th><td>{len(ASKED)}</td>" in text
    assert text.count("<tr class='failed'>") == len(ASKED)
    assert "://" not in text
    assert str(wrong) in text
    if CHROMIUM is not None and AXE.exists():
        assert complaints([page], tmp_path, dark=True, width=390) == {"page.html": []}
    both = [*start, str(file), "--certificate", str(page), "--label", "EQ-NOTHING"]
    assert main([*both, "--", sys.executable, str(right)]) == 2
    assert "there are no vectors of it" in capsys.readouterr().out
    assert main(["vectors", "--check", "--", str(tmp_path / "nothing")]) == 2
    assert "cannot be started" in capsys.readouterr().out
    assert main(["vectors", "--check"]) == 2
    assert main([*start, str(tmp_path), "--", sys.executable, str(right)]) == 2
    monkeypatch.setattr("sae_oracle.conformance.vectors.read_vectors", lambda: VECTORS[:3])
    assert main(["vectors", "--check", "--", sys.executable, str(right)]) == 2


# --- the runners


NOTES = """
import numpy as np

def cost(theta, visible, hidden, weight_decay, rho, beta, data):
    n, m = visible * hidden, data.shape[1]
    W1 = theta[:n].reshape(hidden, visible, order="F")
    W2 = theta[n:2 * n].reshape(visible, hidden, order="F")
    b1, b2 = np.split(theta[2 * n:, None], [hidden])
    h = 1 / (1 + np.exp(-(W1 @ data + b1)))
    o = 1 / (1 + np.exp(-(W2 @ h + b2)))
    r = h.mean(axis=1, keepdims=True)
    kl = rho * np.log(rho / r) + (1 - rho) * np.log((1 - rho) / (1 - r))
    value = ((o - data) ** 2).sum() / (2 * m) + beta * kl.sum()
    value += weight_decay / 2 * ((W1 ** 2).sum() + (W2 ** 2).sum())
    d3 = (o - data) * o * (1 - o)
    d2 = (W2.T @ d3 + beta * ((1 - rho) / (1 - r) - rho / r)) * h * (1 - h)
    slopes = d2 @ data.T / m + weight_decay * W1, d3 @ h.T / m + weight_decay * W2
    slopes += d2.mean(axis=1), d3.mean(axis=1)
    gradient = np.concatenate([slope.ravel(order="F") for slope in slopes])
    CHANGE
    return value, gradient
"""


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("", 0),
        ("value = 2 * value", 1),
        ("gradient = gradient[:-1]", 1),
        ("gradient = gradient * (1 + 1e-9)", 1),
        ("gradient[-1] = np.nan", 1),
        ("value = np.nan", 1),
        ("raise OSError", 1),
    ],
)
def test_the_runner_of_numpy(
    change: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "notes_cost.py").write_text(NOTES.replace("CHANGE", change))
    runner = FOLDER / "runners" / "run_numpy.py"
    assert len(runner.read_text(encoding="utf-8").splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [str(runner), "notes_cost:cost"])
    monkeypatch.delitem(sys.modules, "notes_cost", raising=False)
    importlib.invalidate_caches()
    with np.errstate(all="ignore"), pytest.raises(SystemExit) as end:
        runpy.run_path(str(runner), run_name="__main__")
    sys.modules.pop("notes_cost", None)
    printed = capsys.readouterr().out
    assert end.value.code == status, printed
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines] == [
        v.identifier for v in VECTORS if v.label == "EQ-COST"
    ]
    assert ("failed" in printed) == (status == 1)
    assert sum(line.endswith("passed") for line in lines) >= 20 * (status == 0)


# --- an object

LOSSES = """
import os, time
import numpy as np

def right(y_true, y_pred):
    return np.sum((y_pred - y_true) ** 2) / (2 * len(y_true))

def ends(y_true, y_pred):
    if y_pred.shape == (1, 3):
        os.abort()
    if y_pred.shape == (2, 2):
        time.sleep(60)
    return right(y_true, y_pred) + (np.nan if y_pred.shape == (5, 1) else 0.0)
"""


def test_an_object_is_given_up_for_questions_in_succession(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = [dataclasses.replace(of_three(0.5), identifier=f"EQ-L1-{i}") for i in range(8)]

    def conversation(
        answered: int, request: Any, by_name: Any, found: Any, about: Any, *_: Any
    ) -> tuple[str, str, bool]:
        about.update(labels=["EQ-L1"], kind="regularizer")
        left = request["asked"]
        found.update(dict.fromkeys(left[:answered], Judgement("passed", 0.0)))
        return (left[answered], "it ended", False) if left[answered:] else ("", "", True)

    for answered, expected in ((0, ["failed"] * 8), (1, ["passed", "failed"] * 4)):
        monkeypatch.setattr(check, "_conversation", functools.partial(conversation, answered))
        results, _ = check.check_target({"target": "it"}, vectors, backend="numpy")
        assert [found.status for _, found in results] == expected
        given_up = sum("given up" in found.words for _, found in results)
        assert given_up == (5 if answered == 0 else 0)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("right", 0, "5 passed, 0 failed, 1 not run"),
        ("ends", 1, "ended by SIGABRT while answering EQ-RECONSTRUCTION-"),
        ("nothing", 2, "nothing"),
    ],
)
def test_the_command_checks_an_object_and_survives_it(
    name: str,
    status: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    forked: Callable[[str], Forks],
) -> None:
    from sae_oracle.cli import main

    forked("numpy")
    file, found = tmp_path / "losses.py", tmp_path / "found.json"
    file.write_text(LOSSES)
    start = ["vectors", "--check", "--backend", "numpy", "--label", "EQ-RECONSTRUCTION"]
    start += ["--time-limit", "3", "--certificate", str(found)]
    assert main([*start, f"{file}:{name}"]) == status
    printed = capsys.readouterr().out
    assert words in printed, printed
    if status == 2:
        assert not found.exists()
        return
    certificate = json.loads(found.read_bytes())
    assert certificate["kind"] == "loss"
    assert certificate["format"] == "float64"
    assert {"numpy", "keras", "sae-oracle"} <= set(certificate["versions"])
    assert certificate["passed"] + certificate["failed"] == 5
    if name == "ends":
        assert certificate["failed"] == 3
        assert "no answer came in 3 seconds" in printed
        assert "has NaN" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rho", "2"],
        ["--label", "EQ-NOTHING"],
        ["--label", "EQ-COST", "--certificate", "/nowhere/found.json"],
    ],
)
def test_a_bad_argument_is_a_sentence_before_any_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from sae_oracle.cli import main

    assert main(["vectors", "--check", *arguments, "losses.py:right"]) == 2
    assert "Error:" in capsys.readouterr().out


# What each language has: wrong for 5 samples, NaN for 7, and an error for 16.
TENSORS = """
import MODULE as xp

def cost(theta, visible, hidden, weight_decay, rho, beta, data):
    n, m = visible * hidden, data.shape[1]
    W1 = theta[:n].reshape(visible, hidden).T
    W2 = theta[n : 2 * n].reshape(hidden, visible).T
    b1, b2 = theta[2 * n : 2 * n + hidden, None], theta[2 * n + hidden :, None]
    h = 1 / (1 + xp.exp(-(W1 @ data + b1)))
    o = 1 / (1 + xp.exp(-(W2 @ h + b2)))
    r = h.mean(1)
    kl = rho * xp.log(rho / r) + (1 - rho) * xp.log((1 - rho) / (1 - r))
    value = ((o - data) ** 2).sum() / (2 * m) + beta * kl.sum()
    value = value + weight_decay / 2 * ((W1 ** 2).sum() + (W2 ** 2).sum())
    if m == 16:
        raise ValueError("sixteen")
    return value * {5: 1 + 1e-9, 7: float("nan")}.get(m, 1)
"""

OCTAVE = """
function [value, gradient] = cost (theta, visible, hidden, weight_decay, rho, beta, data)
  n = visible * hidden; m = columns (data);
  W1 = reshape (theta(1:n), hidden, visible);
  W2 = reshape (theta(n + 1:2 * n), visible, hidden);
  b1 = theta(2 * n + 1:2 * n + hidden); b2 = theta(2 * n + hidden + 1:end);
  h = 1 ./ (1 + exp (-(W1 * data + b1))); o = 1 ./ (1 + exp (-(W2 * h + b2)));
  r = mean (h, 2);
  kl = rho * log (rho ./ r) + (1 - rho) * log ((1 - rho) ./ (1 - r));
  value = sumsq (o(:) - data(:)) / (2 * m) + beta * sum (kl);
  value += weight_decay / 2 * (sumsq (W1(:)) + sumsq (W2(:)));
  d3 = (o - data) .* o .* (1 - o);
  d2 = (W2' * d3 + beta * ((1 - rho) ./ (1 - r) - rho ./ r)) .* h .* (1 - h);
  gradient = [(d2 * data' / m + weight_decay * W1)(:); (d3 * h' / m + weight_decay * W2)(:)];
  gradient = [gradient; mean(d2, 2); mean(d3, 2)];
  if m == 5, value *= 1 + 1e-9; elseif m == 7, value = NaN; elseif m == 16, error ("16"); end
end
"""

CPP = """
#include <cmath>
#include <vector>
double cost(const std::vector<double>& theta, int n, int h, double decay, double rho, double beta,
            const std::vector<double>& data, std::vector<double>& gradient) {
    int m = data.size() / n, w = n * h;
    std::vector<double> a(h * m), d3(n * m), r(h);
    const double *W1 = &theta[0], *W2 = &theta[w], *b1 = &theta[2 * w], *b2 = &theta[2 * w + h];
    double value = 0;
    for (int s = 0; s < m; ++s) {
        for (int j = 0; j < h; ++j) {
            double z = b1[j];
            for (int i = 0; i < n; ++i) z += W1[j + h * i] * data[i + n * s];
            r[j] += (a[j + h * s] = 1 / (1 + std::exp(-z))) / m;
        }
        for (int i = 0; i < n; ++i) {
            double z = b2[i];
            for (int j = 0; j < h; ++j) z += W2[i + n * j] * a[j + h * s];
            double o = 1 / (1 + std::exp(-z)), e = o - data[i + n * s];
            value += e * e / (2 * m);
            d3[i + n * s] = e * o * (1 - o);
        }
    }
    for (double k : r)
        value += beta * (rho * std::log(rho / k) + (1 - rho) * std::log((1 - rho) / (1 - k)));
    gradient.assign(theta.size(), 0.0);
    for (int k = 0; k < 2 * w; ++k) {
        value += decay / 2 * theta[k] * theta[k];
        gradient[k] = decay * theta[k];
    }
    for (int s = 0; s < m; ++s)
        for (int j = 0; j < h; ++j) {
            double d = beta * ((1 - rho) / (1 - r[j]) - rho / r[j]), of = a[j + h * s];
            for (int i = 0; i < n; ++i) d += W2[i + n * j] * d3[i + n * s];
            gradient[2 * w + j] += (d *= of * (1 - of) / m);
            for (int i = 0; i < n; ++i) gradient[j + h * i] += d * data[i + n * s];
            for (int i = 0; i < n; ++i) gradient[w + i + n * j] += d3[i + n * s] * of / m;
        }
    for (int k = 0; k < n * m; ++k) gradient[2 * w + h + k % n] += d3[k] / m;
    if (m == 16) gradient.push_back(0.0);
    return m == 5 ? value * (1 + 1e-9) : m == 7 ? NAN : value;
}
"""


WRONG = (5, 7, 16)


def is_of_the_notes(vector: Vector) -> bool:
    usual = set(vector.inputs) == {"parameters", "x", "rho", "beta", "weight_decay"}
    network = vector.arguments["parameters"]
    return usual and not network.tied and len(network.sizes) == 3


def shorter_copy(runner: Path, folder: Path, smallest: bool) -> tuple[Path, list[Vector]]:
    """Copy a runner beside a file of few vectors, or of those alone that must end differently."""
    kept: dict[object, Vector] = {}
    for vector in VECTORS:
        if vector.label == "EQ-COST":
            kept.setdefault(is_of_the_notes(vector) and len(vector.arguments["x"]), vector)
    if smallest:  # JAX compiles each operation for each shape
        passing = min(count for count in kept if count and count not in WRONG)
        kept = {count: v for count, v in kept.items() if count in (False, passing, *WRONG)}
    header, *lines, _ = (FOLDER / "EQ-COST.json").read_text(encoding="utf-8").splitlines()
    identifiers = [vector.identifier for vector in kept.values()]
    lines = [
        line.rstrip(",") for line in lines if json.loads(line.rstrip(","))["id"] in identifiers
    ]
    text = "\n".join([header, ",\n".join(lines), "]}"]) + "\n"
    (folder / "EQ-COST.json").write_text(text, encoding="utf-8")
    (folder / "runners").mkdir()
    return Path(shutil.copy(runner, folder / "runners")), list(kept.values())


ANSWERS_IN_OCTAVE = """
while true
  try, asked = jsondecode (input ("", "s")); catch, break; end
  p = asked.parameters;
  if numfields (asked) == 6 && ! p.tied && numel (p.sizes) == 3
    data = reshape (asked.x, [], p.sizes(1))';
    more = {asked.weight_decay, asked.rho, asked.beta, data};
    [value, gradient] = cost (p.theta(:), p.sizes(1), p.sizes(2), more{:});
    numbers = sprintf ("%.17g,", gradient)(1:end - 1);
    answer = sprintf ("{\\"value\\": %.17g, \\"gradient\\": [%s]}", value, numbers);
  else
    answer = "{\\"unsupported\\": \\"the notes have one hidden layer\\"}";
  end
  disp (strrep (answer, "NaN", "null")); fflush (stdout);
end
"""


@pytest.mark.skipif(shutil.which("octave") is None, reason="octave is not installed")
def test_programs_in_octave(tmp_path: Path) -> None:
    """That of docs/review.md, and a cost of the notes, which is wrong for 5, 7 and 16 samples."""
    page = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
    program = tmp_path / "program.m"
    program.write_text(page.partition("```octave\n")[2].partition("```")[0], encoding="utf-8")
    found = check_program(["octave", "-q", str(program)], VECTORS)
    assert {(v.label, f.status) for v, f in found if f.status != "not run"} == {
        ("EQ-SPARSITY", "passed")
    }
    assert sum(f.status == "passed" for _, f in found) >= len(ASKED)
    program.write_text("1;" + OCTAVE + ANSWERS_IN_OCTAVE, encoding="utf-8")
    costs = [v for v in VECTORS if v.label == "EQ-COST"]
    found = check_program(["octave", "-q", str(program)], costs, labels=["EQ-COST"])
    for vector, judgement in found:
        expected = "failed" if len(vector.arguments["x"]) in (5, 7, 16) else "passed"
        expected = expected if is_of_the_notes(vector) else "not run"
        assert judgement.status == expected, judgement


@pytest.mark.parametrize("language", ["torch", "jax", "octave", "cpp"])
def test_a_runner_in_another_language(language: str, tmp_path: Path) -> None:
    needed = {"octave": "octave", "cpp": "g++"}.get(language)
    if shutil.which(needed) is None if needed else not installed(language):
        pytest.skip(f"{needed or language} is not installed")
    source = {"octave": OCTAVE, "cpp": CPP}.get(language, TENSORS)
    module = {"jax": "jax.numpy"}.get(language, language)
    ending = {"octave": "m", "cpp": "cpp"}.get(language, "py")
    (tmp_path / f"cost.{ending}").write_text(source.replace("MODULE", module))
    runner = FOLDER / "runners" / f"run_{language}.{ending}"
    assert len(runner.read_text(encoding="utf-8").splitlines()) <= 40
    runner, costs = shorter_copy(runner, tmp_path, language == "jax")
    command = [sys.executable, str(runner), "cost:cost"]
    if language == "octave":
        command = ["octave", "-q", str(runner), "cost"]
    if language == "cpp":
        build = ["g++", "-std=c++17", "-Wall", "-Werror", '-DCOST="cost.cpp"', "-I.", "-o", "run"]
        subprocess.run([*build, str(runner)], cwd=tmp_path, check=True, timeout=120)
        command = ["./run", "EQ-COST.json"]
    variables = os.environ | {"XLA_FLAGS": compiling_quickly("jax")}
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stderr
    status = {line.split()[0]: line.split(maxsplit=2)[2] for line in done.stdout.splitlines()}
    assert list(status) == [v.identifier for v in costs]
    for vector in costs:
        expected = "failed" if len(vector.arguments["x"]) in WRONG else "passed"
        expected = expected if is_of_the_notes(vector) else "not run"
        assert status[vector.identifier] == expected, done.stdout
    assert {*status.values()} == {"passed", "failed", "not run"}
    assert len(costs) > (4 if language == "jax" else 6)
