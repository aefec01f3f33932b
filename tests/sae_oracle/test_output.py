"""What every command prints where nobody looks: no terminal, no colours, no Greek, 40 columns."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from sae_oracle import __version__, cli
from tests.faults import test_faults as faults
from tests.fresh_process import ROOT

(_subparsers,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
COMMANDS: dict[str, argparse.ArgumentParser] = _subparsers.choices


class Run(NamedTuple):
    """A run of a command, with a stand-in for what takes time.

    Args:
        arguments: The command line, without an option of `OPTIONS`.
        worker: The program of the stand-in (tests/faults/stand_in.py).
        status: What it must end with, by docs/exit-statuses.md.
    """

    arguments: str
    worker: str
    status: int


RUNS = (
    Run("verify --backend=numpy", "verify()", 0),
    Run("verify --backend=numpy", "verify(float('nan'))", 1),
    Run("bench --backend=torch", "bench()", 0),
    Run("bench --backend=torch", "raise MemoryError('ρ̂')", 2),
    Run("train --backend=torch", "train()", 0),
    Run("train --backend=torch --out=failed", "raise KeyError('ρ̂')", 70),
    Run("encode model --backend=torch --data=x.csv --out=code.csv", "encode()", 0),
    Run("encode model --backend=torch --data=x.csv --out=none.csv", "sys.exit(2)", 70),
    Run("review keras_impl:KLSparsity --backend=numpy", "review()", 0),
    Run("review keras_impl:KLSparsity --backend=numpy", "review('SAE101')", 1),
    Run("review keras_impl:KLSparsity --backend=numpy", "review(reason='no ρ̂')", 2),
    Run("explain SAE101", "", 0),
    Run("explain --list", "", 0),
    Run("equations EQ-KL", "", 0),
    Run("cite", "", 0),
    Run("cite EQ-NOTHING", "", 2),
    Run("vectors --check --label=EQ-KL -- cat", "", 1),
    Run("vectors --check -- /dev/null", "", 2),
)

OPTIONS = ("", "--json=-", "--quiet")

PROGRAM = """
import json, os, sys
from sae_oracle import cli
for number, (arguments, worker) in enumerate(json.load(open("calls.json", encoding="utf-8"))):
    for descriptor, name in ((1, "out"), (2, "err")):
        sys.stdout.flush()
        file = os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ["WORKER"] = worker
    try:
        status = cli.main(arguments)
    except SystemExit as error:
        status = error.code or 0
    with open(f"{number}.status", "w") as file:
        file.write(str(status))
"""


class Seen(NamedTuple):
    """What a call was, and what came of it."""

    arguments: list[str]
    option: str
    expected: int
    status: int
    out: bytes
    err: bytes


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """Every call, in one process: the encoding of a stream is that of its process."""
    folder = tmp_path_factory.mktemp("output")
    (folder / "site").mkdir()
    planted = (faults.HERE / "planted.py").read_text(encoding="utf-8")
    (folder / "site" / "sitecustomize.py").write_text(planted, encoding="utf-8")
    (folder / "x.csv").write_text("0.5,0.5\n")
    (folder / "model").mkdir()
    (folder / "model" / "model.keras").write_text("a model")
    kind = {"preprocessing": {"kind": "none", "offset": [], "scale": []}}
    (folder / "model" / "history.json").write_text(json.dumps(kind))
    calls: list[tuple[list[str], str, int, str]] = [([], "", 2, ""), (["--help"], "", 0, "")]
    calls.append((["review"], "", 2, ""))
    for name in COMMANDS:
        calls += [([name, "--help"], "", 0, ""), ([name, "--nothing=ρ̂\x1b[31m"], "", 2, "")]
    for run in RUNS:
        command, *arguments = run.arguments.split()
        for option in OPTIONS:
            known = COMMANDS[command]._option_string_actions
            if option.partition("=")[0] in known:
                calls.append(([command, option, *arguments], run.worker, run.status, option))
            elif not option and run.status == 0:
                calls.append(([command, *arguments], run.worker, run.status, ""))
    pairs = [(arguments, worker) for arguments, worker, _, _ in calls]
    (folder / "calls.json").write_text(json.dumps(pairs), encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "KERAS_BACKEND"))}
    variables = {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "site")]),
        "STAND_IN": str(faults.HERE / "stand_in.py"),
        "NO_COLOR": "1",
        "PYTHONIOENCODING": "cp1252",
        "COLUMNS": "40",
    }
    command = [sys.executable, "-c", PROGRAM]
    subprocess.run(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, check=True, timeout=300
    )

    def found(number: int, name: str) -> bytes:
        return (folder / f"{number}.{name}").read_bytes()

    return [
        Seen(
            arguments,
            option,
            expected,
            int(found(number, "status")),
            found(number, "out"),
            found(number, "err"),
        )
        for number, (arguments, _, expected, option) in enumerate(calls)
    ]


def test_each_ends_as_the_page_says_and_can_be_read(seen: list[Seen]) -> None:
    for call in seen:
        out = call.out.decode("utf-8" if call.option == "--json=-" else "cp1252")
        text = out + call.err.decode("cp1252")
        assert call.status == call.expected, (call.arguments, text)
        assert "\x1b" not in text, call.arguments
        assert "UnicodeEncodeError" not in text, call.arguments
        assert "Traceback" not in text, call.arguments
        # Letters that the encoding does not have are written out.
        assert not re.search(r"(?<![a-z])(?<!% )\?", text), (call.arguments, text)
        if call.expected == 2 and not call.option:
            assert text, call.arguments
        if call.arguments == ["review"]:
            assert text.endswith("required: target\n")


def test_json_is_standard_output_and_has_versions(seen: list[Seen]) -> None:
    commands = set()
    for call in seen:
        if call.option == "--json=-" and (call.out or not call.expected):
            # JSON has no infinity.
            found: dict[str, Any] = json.loads(call.out.decode("utf-8"), parse_constant=pytest.fail)
            assert list(found)[:2] == ["schema_version", "version"], call.arguments
            assert found["version"] == __version__
            assert found.get("status", call.expected) == call.expected
            commands.add(call.arguments[0])
    assert commands == set(COMMANDS)


def test_quiet_is_heard_where_something_is_wrong(seen: list[Seen]) -> None:
    commands = set()
    for call in seen:
        if call.option == "--quiet":
            assert bool(call.out + call.err) == bool(call.expected), call
            commands.add(call.arguments[0])
    assert commands == set(COMMANDS)
