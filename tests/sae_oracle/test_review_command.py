"""`sae-oracle review`: its exit status, its JSON, and what hostile targets cannot do to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sae_oracle import __version__
from sae_oracle import review_command as review
from sae_oracle.catalogue import BY_IDENTIFIER, MISTAKES
from sae_oracle.cli import main
from sae_oracle.processes import TRAINING_BACKENDS, installed
from sae_oracle.review_formats import as_github, as_sarif
from tests.fork_server import Forks
from tests.fresh_process import ROOT, crowd, environment, with_foreign_names

TARGETS = '''
import ctypes
import json
import os
import random
import time

import helper_of_mine
import keras
from keras import ops


@keras.saving.register_keras_serializable("test")
class MeanOfAll(keras.regularizers.Regularizer):
    """The sparsity term."""

    def __init__(self, p=0.1, sparsityBeta=helper_of_mine.factor):
        self.p = p
        self.sparsityBeta = sparsityBeta

    def __call__(self, x):
        x = ops.cast(x, "float32")
        r = ops.mean(x)
        kl = self.p * ops.log(self.p / r) + (1 - self.p) * ops.log((1 - self.p) / (1 - r))
        return self.sparsityBeta * kl * ops.cast(ops.shape(x)[0], "float32")

    def get_config(self):
        return {"p": self.p, "sparsityBeta": self.sparsityBeta}


class Endless:
    def __init__(self, rho=0.1):
        pass

    def __call__(self, x):
        print('{"kind": "review"}', flush=True)
        while True:
            time.sleep(1.0)


class Crashes(Endless):
    def __call__(self, x):
        ctypes.string_at(0)


class Leaves(Endless):
    def __call__(self, x):
        os._exit(0)


class Raises(Endless):
    def __call__(self, x):
        raise ValueError("never on a Sunday")


class OnNumPyOnly(MeanOfAll):
    def __call__(self, x):
        if type(x).__module__ != "numpy":
            raise TypeError("a NumPy array is expected")
        return super().__call__(x)
'''


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("review") / "targets.py"
    path.write_text(TARGETS, encoding="utf-8")
    (path.parent / "unimportable.py").write_text("import no_such_package\n", encoding="utf-8")
    (path.parent / "helper_of_mine.py").write_text("factor = 3.0\n", encoding="utf-8")
    crowd(path.parent)
    return path


def command(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, "-m", "sae_oracle", "review", *arguments],
        env=with_foreign_names(environment()),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run


class Ended(NamedTuple):
    """As `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(
    forked: Callable[[str], Forks],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Ended]:
    """Called with arguments: the command in this process, whose worker on NumPy is a fork."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    forked("numpy")

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        try:
            status = main(["review", *arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err, printed.err
        return Ended(status, printed.out, printed.err)

    return run


def test_findings_in_json_and_as_a_table(targets: Path, tmp_path: Path) -> None:
    written = tmp_path / "review.json"
    run = command(
        f"{targets}:MeanOfAll",
        *("--set", "p=0.2", "--rho", "p", "--backend", "numpy", "--json", str(written)),
        folder=targets.parent,
    )
    assert run.returncode == 1, run.stderr
    for piece in ("SAE106", "fix:", "ratio", "EQ-RHO-HAT", "guessed from its name"):
        assert piece in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80 + len(str(targets))
    result = json.loads(written.read_text(encoding="utf-8"))
    named = {found["identifier"]: found for found in result["findings"]}
    assert "SAE106" in named
    found = named["SAE106"]
    assert found["backends"] == ["numpy"]
    assert found["severity"] == "error"
    assert found["source"].startswith("EQ-RHO-HAT")
    assert found["fix"]
    assert (result["schema_version"], result["version"]) == (1, __version__)
    assert found["file"] == "targets.py"
    source = TARGETS.splitlines()[found["line"] - 1]
    assert source == "    def __call__(self, x):"
    page = (ROOT / found["help"].split("#")[0]).read_text(encoding="utf-8")
    assert f'<a id="{found["help"].split("#")[1]}"></a>SAE106' in page
    assert float(found["evidence"]["got"]) != float(found["evidence"]["expected"])
    (only,) = result["reviews"]
    assert only["kind"] == "regularizer"
    assert only["guesses"] == ["β is `sparsityBeta` (guessed from its name)"]


def test_status_0_where_every_finding_is_ignored(
    targets: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(targets.parent)
    ignored = ["--ignore=SAE106,sae40", "--ignore=SAE403"]
    run = here("targets:MeanOfAll", "--backend", "numpy", *ignored)
    assert run.returncode == 0, run.stdout
    assert "conforms" in run.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("targets.py:Endless", "no end within"),
        ("targets.py:Crashes", "SIGSEGV while calling"),
        ("targets.py:Leaves", "ended with status 0 while calling"),
        ("unimportable.py:X", "No module named 'no_such_package'"),
        ("absent.py:X", "there is no file"),
        ("random.py:X", "the random.py of the working folder was run"),
    ],
)
def test_what_cannot_be_reviewed_says_why(
    targets: Path, name: str, reason: str, here: Callable[..., Ended]
) -> None:
    limit = "10" if name.endswith("Endless") else "120"
    run = here(f"{targets.parent / name}", "--backend", "numpy", "--time-limit", limit)
    assert run.returncode == 2, run.stdout
    assert reason in " ".join(run.stdout.split())


def test_an_exception_is_a_finding_and_bound_to_a_backend_if_others_pass(
    targets: Path, here: Callable[..., Ended], forked: Callable[[str], Forks]
) -> None:
    run = here(f"{targets}:Raises", "--backend", "numpy", "--json")
    assert run.returncode == 1
    (found,) = [f for f in json.loads(run.stdout)["findings"] if f["identifier"] == "SAE601"]
    assert "never on a Sunday" in found["evidence"]["got"]

    other = next((name for name in reversed(TRAINING_BACKENDS) if installed(name)), None)
    if other is None:
        pytest.skip("no backend beside numpy is installed")
    request = {"target": f"{targets}:OnNumPyOnly"}
    results = []
    for name in ("numpy", other):
        forked(name)
        results.append(review.review_on(name, request, 120.0))
    merged = {found["identifier"]: found for found in review.merge(results)}
    assert merged["SAE602"]["backends"] == [other]
    assert "SAE601" not in merged
    assert review.exit_status(results) == 1


@pytest.mark.skipif(not installed("tensorflow"), reason="tensorflow is not installed")
@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("tests.sae_oracle.reviewer.corpus.layers:RightLayer", {"SAE125"}),
        ("keras_impl:KLSparsity", set()),
    ],
)
def test_on_two_replicas_a_plain_mean_is_that_of_a_replica(
    target: str, named: set[str], forked: Callable[[str], Forks]
) -> None:
    forked("tensorflow")
    result = review.review_on("tensorflow", {"target": target, "replicas": True}, 120.0)["review"]
    assert not result["reason"]
    assert "2 replicas" in result["checks"]
    assert {found["identifier"] for found in result["findings"]} == named


def test_nothing_is_reviewed_for_a_file_that_cannot_be_written(
    tmp_path: Path, here: Callable[..., Ended]
) -> None:
    run = here("keras_impl:KLSparsity", "--json", str(tmp_path / "no" / "review.json"))
    assert run.returncode == 2
    assert "No such folder" in run.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ["--time-limit", "0"],
        ["--set", "p"],
        ["--kind", "optimizer"],
        ["--rho"],
        ["--ignore", "SAE101,SAE4O2"],
        ["--format", "xml"],
    ],
)
def test_wrong_arguments_end_with_status_2(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["review", "keras_impl:KLSparsity", *wrong])
    assert raised.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_exit_status_of_several_backends() -> None:
    def result(reason: str = "", crashed: bool = False) -> dict:
        review = {"reason": reason, "findings": [], "crashed": crashed}
        return {"review": review, "on_one_backend": None}

    assert review.exit_status([result(), result()]) == 0
    assert review.exit_status([result(), result("no import")]) == 1
    assert review.exit_status([result("no import"), result("no import")]) == 2
    assert review.exit_status([result(), result("a mistake of ours", crashed=True)]) == 70


WRONG_PENALTY = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"value": sum(map(sum, json.loads(line)["activations"]))}), flush=True)
"""

# A part of SARIF 2.1.0, not its schema: of each object written here the properties that must be
# there, and those that may. None allows more than the schema; it was compared with the schema
# that OASIS publishes (sarif-schema-2.1.0.json of oasis-tcs/sarif-spec, e058381).
SARIF = {
    "log": ({"version", "runs"}, {"$schema"}),
    "run": ({"tool"}, {"invocations", "columnKind", "results"}),
    "tool": ({"driver"}, set()),
    "driver": ({"name"}, {"version", "rules"}),
    "rule": ({"id"}, {"shortDescription", "fullDescription", "help", "defaultConfiguration"}),
    "invocation": ({"executionSuccessful"}, {"toolExecutionNotifications"}),
    "notification": ({"message"}, {"level"}),
    "result": ({"message"}, {"ruleId", "ruleIndex", "level", "locations"}),
    "message": ({"text"}, set()),
    "configuration": (set(), {"level"}),
    "location": (set(), {"physicalLocation"}),
    "place": ({"artifactLocation"}, {"region"}),
    "artifact": ({"uri"}, set()),
    "region": ({"startLine"}, set()),
}


def held_to(kind: str, value: dict) -> dict:
    required, optional = SARIF[kind]
    assert required <= value.keys() <= required | optional, kind
    for name in ("message", "shortDescription", "fullDescription", "help"):
        if name in value:
            assert isinstance(held_to("message", value[name])["text"], str)
    assert value.get("level", "none") in ("none", "note", "warning", "error")
    return value


def held_to_sarif(text: str) -> dict:
    log = held_to("log", json.loads(text))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = held_to("driver", held_to("tool", held_to("run", run)["tool"])["driver"])
    rules = [held_to("rule", rule)["id"] for rule in driver["rules"]]
    assert len({*rules}) == len(rules)
    for rule in driver["rules"]:
        held_to("configuration", rule["defaultConfiguration"])
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    for invocation in run["invocations"]:
        assert isinstance(held_to("invocation", invocation)["executionSuccessful"], bool)
        for told in invocation.get("toolExecutionNotifications", ()):
            held_to("notification", told)
    for result in run["results"]:
        held_to("result", result)
        assert rules[result["ruleIndex"]] == result["ruleId"]
        for location in result.get("locations", ()):
            place = held_to("place", held_to("location", location)["physicalLocation"])
            assert urllib.parse.urlsplit(held_to("artifact", place["artifactLocation"])["uri"]).path
            assert held_to("region", place["region"])["startLine"] >= 1
    return run


FOUND = {
    "identifier": "SAE105",
    "severity": "error",
    "message": "ρ̂ is a mean over\nthe wrong axis: 100 %",
    "evidence": {"input": "x", "expected": "1", "got": "2", "ratio": "2"},
    "source": "EQ-RHO-HAT",
    "fix": "ops.mean(x, axis=0)",
    "alternatives": [],
    "file": "my folder/a,b.py",
    "line": 3,
}


def test_sarif_has_each_finding_its_rule_and_its_place(tmp_path: Path) -> None:
    bare = {**FOUND, "identifier": "SAE402", "severity": "warning", "evidence": None, "file": ""}
    run = held_to_sarif(as_sarif([FOUND, bare, {**FOUND, "file": str(tmp_path / "a.py")}], []))
    assert [result["ruleId"] for result in run["results"]] == ["SAE105", "SAE402", "SAE105"]
    places = [result.get("locations") for result in run["results"]]
    assert places[0][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "my%20folder/a%2Cb.py"},
        "region": {"startLine": 3},
    }
    assert places[1] is None
    assert "file:///" in str(places[2])
    failed = held_to_sarif(as_sarif([], ["no import"]))
    assert failed["invocations"][0]["executionSuccessful"] is False
    assert "no import" in str(failed["invocations"])


def test_annotations_of_github_are_a_line_each_and_escaped() -> None:
    text = as_github([FOUND, {**FOUND, "file": "", "severity": "warning"}], ["no\nimport"])
    failed, placed, bare = text.splitlines()
    assert failed == "::error title=could not review::no%0Aimport"
    assert placed.startswith("::error file=my folder/a%2Cb.py,line=3,title=SAE105::")
    assert "over%0Athe wrong axis: 100 %25" in placed
    assert bare.startswith("::warning title=SAE105::")


@pytest.mark.parametrize("kind", ["sarif", "github", "json"])
def test_a_format_is_all_that_is_printed(
    kind: str, tmp_path: Path, here: Callable[..., Ended]
) -> None:
    path = tmp_path / "program.py"
    path.write_text(WRONG_PENALTY, encoding="utf-8")
    run = here("--format", kind, "--", sys.executable, str(path))
    assert run.returncode == 1, run.stderr
    if kind == "sarif":
        assert held_to_sarif(run.stdout)["results"]
    elif kind == "json":
        assert json.loads(run.stdout)["findings"]
    else:
        assert all(line.startswith("::") for line in run.stdout.splitlines())


def test_two_that_write_to_standard_output_are_refused(here: Callable[..., Ended]) -> None:
    run = here("x.py:X", "--format", "sarif", "--json", "-")
    assert (run.returncode, run.stdout) == (2, "")
    assert "name a file" in " ".join(run.stderr.split())


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("columns", [40, 80])
def test_text_fits_and_can_be_written_in_any_encoding(
    encoding: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("COLUMNS", str(columns))
    run = subprocess.run(
        [sys.executable, "-m", "sae_oracle", "explain", "SAE1"],
        env={**environment(), "PYTHONIOENCODING": encoding, "COLUMNS": str(columns)},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    text = run.stdout.decode(encoding)
    assert max(map(len, text.splitlines())) <= columns + 4  # a combining accent takes no room
    assert ("ρ̂" if encoding == "utf-8" else "rho_hat") in text
    assert "?" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("listed", [[], ["--list"]])
def test_explain_lists_all(listed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *listed]) == 0
    printed = capsys.readouterr().out
    assert [m.identifier for m in MISTAKES] == re.findall(r"^(SAE\d+)", printed, re.MULTILINE)


def test_explain_says_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "sae105", "SAE40,SAE105"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in ("SAE105", "SAE401", "SAE402", "SAE403"):
        mistake = BY_IDENTIFIER[name]
        for text in (name, mistake.severity, mistake.title, mistake.source, mistake.fix):
            assert printed.count(text) >= 1, text
    assert printed.count("SAE105") == 1
    with pytest.raises(SystemExit) as raised:
        main(["explain", "SAE1O5"])
    assert raised.value.code == 2
    assert "near it: SAE105" in capsys.readouterr().err


def test_the_recipes_of_the_documentation_run(
    targets: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook and the workflow call the command with options that it has."""
    monkeypatch.chdir(targets.parent)
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^  entry: (.*)$", hooks, re.MULTILINE) == ["sae-oracle review"]
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    workflow = page.split("```yaml\n")[1].split("```")[0]
    (line,) = re.findall(r"^ *- run: sae-oracle review (.*)$", workflow, re.MULTILINE)
    words = [
        word.replace("my_package/penalties.py:Mine", "targets.py:MeanOfAll")
        for word in line.split()
    ]
    run = here(*words, "--backend", "numpy")
    assert run.returncode == 1, run.stderr
    assert run.stdout.startswith("::error file=targets.py,line=")
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(workflow)["jobs"]
    assert yaml.safe_load(hooks)[0]["pass_filenames"] is False


def test_the_backend_is_the_one_that_keras_would_choose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert review.default_backend(["jax", "torch"]) == "jax"
    (tmp_path / "keras.json").write_text('{"backend": "torch"}', encoding="utf-8")
    assert review.default_backend(["jax", "torch"]) == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert review.default_backend(["jax", "torch"]) == "jax"


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("import tensorflow as tf\nfrom keras import ops\n", "tensorflow"),
        ("import numpy as np\n    import torch\n", "torch"),
        ("import torch\nimport jax\n", None),
        ("from keras import ops\n", None),
        ("import torch\nos.environ['KERAS_BACKEND'] = 'jax'\n", "jax"),
        ("os.environ.setdefault('KERAS_BACKEND', 'jax')\n", "jax"),
        ("import tensorflow as tf\n", "tensorflow"),
    ],
)
def test_the_backend_is_that_of_the_file(text: str, backend: str | None, tmp_path: Path) -> None:
    path = tmp_path / "target.py"
    path.write_text(text, encoding="utf-8")
    everything = ["jax", "tensorflow", "torch"]
    assert review.backend_of(f"{path}:Object", everything) == backend
    assert review.backend_of(f"{path}:Object", ["numpy"]) is None
    assert review.backend_of("no.such.module:Object", everything) is None


PROGRAM = """
import json, math, sys
for line in sys.stdin:
    asked = json.loads(line)
    rho, rows = asked["rho"], asked["activations"]
    units = rows if sys.argv[1] == "wrong" else list(zip(*rows))
    means = [min(max(sum(unit) / len(unit), 1e-9), 1 - 1e-9) for unit in units]
    kls = [rho * math.log(rho / r) + (1 - rho) * math.log((1 - rho) / (1 - r)) for r in means]
    answer = {"value": asked["beta"] * sum(kls)}
    if sys.argv[1] == "gradient":
        slopes = [asked["beta"] * (1 - rho) / (1 - r) / len(rows) for r in means]
        answer["gradient"] = [slopes for _ in rows]
    print(json.dumps(answer), flush=True)
"""


@pytest.mark.parametrize(
    ("way", "named"),
    [("right", {"SAE402"}), ("wrong", {"SAE105", "SAE402"}), ("gradient", {"SAE304"})],
)
def test_a_program_is_reviewed_by_its_answers(
    way: str, named: set[str], tmp_path: Path, here: Callable[..., Ended]
) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    run = here("--json", "--", sys.executable, str(path), way)
    result = json.loads(run.stdout)
    assert run.returncode == result["status"] == 1, run.stderr
    assert {found["identifier"] for found in result["findings"]} == named
    assert result["target"].endswith(f"program.py {way}")


@pytest.mark.skipif(shutil.which("octave") is None, reason="octave is not installed")
def test_a_program_in_octave(tmp_path: Path, here: Callable[..., Ended]) -> None:
    """That of docs/review.md, with the mean over the wrong axis."""
    path = tmp_path / "program.m"
    page = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
    program = page.partition("```octave\n")[2].partition("```")[0]
    path.write_text(program.replace("mean (a, 1)", "mean (a, 2)"), encoding="utf-8")
    run = here("--json", "--", "octave", "-q", str(path))
    found = {found["identifier"] for found in json.loads(run.stdout)["findings"]}
    assert "SAE105" in found


def test_a_review_that_ends_while_it_waits_for_an_answer_tells_the_protocol() -> None:
    """Whoever ends it: here the program, without delay; else the time limit."""
    program = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getppid(), signal.SIGKILL)"
    run = command("--", sys.executable, "-c", program)
    assert run.returncode == 2
    assert "before it reads the next (docs/review.md)" in " ".join(run.stdout.split())


def test_a_program_without_an_answer_is_told_the_protocol(here: Callable[..., Ended]) -> None:
    run = here("--", sys.executable, "-c", "print(1)")
    assert run.returncode == 2
    assert '{"value": 1.5}' in " ".join(run.stdout.split())


def test_neither_the_command_nor_the_plugin_imports_keras() -> None:
    program = (
        "import sys, sae_oracle.cli, sae_oracle.pytest_plugin\n"
        "print([name for name in ('keras', 'keras_impl', 'tensorflow') if name in sys.modules])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "[]"


def test_the_plugin_holds_a_project_to_the_notes(targets: Path, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from keras_impl import KLSparsityRegularizer\n"
        "from targets import MeanOfAll\n"
        "def test_right(assert_conforms):\n"
        "    assert_conforms(KLSparsityRegularizer(0.05, 3.0), rho=0.05, beta=3.0)\n"
        "def test_wrong(assert_conforms):\n"
        "    assert_conforms(MeanOfAll, rho='p', beta='sparsityBeta')\n",
        encoding="utf-8",
    )
    for name in ("targets.py", "helper_of_mine.py"):
        shutil.copy(targets.parent / name, tmp_path)
    variables = environment("numpy", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    options = ["-p", "sae_oracle.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_mine.py"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout
    assert "SAE106" in run.stdout
