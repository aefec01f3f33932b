"""Every row of the table, in the process of the test or in one of its own."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sae_oracle import cli, processes
from sae_oracle import train as training
from sae_oracle.processes import BACKENDS
from tests.faults import arrays, table
from tests.fresh_process import ROOT

HERE = Path(__file__).parent

IS_WHOLE = bool(os.environ.get("SAE_ORACLE_FAULTS"))

CALLS, FAULTS = list(table.calls()), list(table.faults())


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len(CALLS) + len(FAULTS) >= 300
    for rows in (CALLS, FAULTS):
        assert len(set(rows)) == len(rows)


def give(folder: Path, given: str) -> None:
    """Put a file there: "name", "name=content", "folder/", "link>target", "fifo|", "array!"."""
    if given.endswith("/"):
        (folder / given).mkdir(parents=True)
    elif given.endswith("|"):
        os.mkfifo(folder / given[:-1])
    elif given.endswith("!"):
        arrays.write(folder / given[:-1])
    elif ">" in given:
        name, target = given.split(">")
        (folder / name).symlink_to(target)
    else:
        name, _, content = given.partition("=")
        (folder / name).write_text(content, encoding="latin-1")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_it_is_refused_before_any_work(
    call: table.Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*arguments: object, **named: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(processes.subprocess, "Popen", work)
    for module in ("sae_oracle.cli", "sae_oracle.bench.command", "sae_oracle.processes"):
        monkeypatch.setattr(sys.modules[module], "installed", BACKENDS.__contains__)
    monkeypatch.chdir(tmp_path)
    for given in call.given:
        give(tmp_path, given)
    before = names(tmp_path)
    try:
        status = cli.main(call.arguments)
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    seen = captured.out + captured.err
    assert status == 2, seen
    for text in call.messages:
        assert text in seen, seen
    assert "Traceback" not in seen
    assert "\x1b" not in seen
    lines = [
        line for line in seen.splitlines() if line[:1] not in ("", " ") and "usage:" not in line
    ]
    assert len(lines) == 1, seen
    assert names(tmp_path) == before


def run(
    fault: table.Fault, folder: Path, whose: str, plan: str
) -> subprocess.CompletedProcess[str]:
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text((HERE / "planted.py").read_text(encoding="utf-8"))
    work = folder / "work"
    work.mkdir(exist_ok=True)
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "KERAS_BACKEND"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "STAND_IN": str(HERE / "stand_in.py"),
        "WORKER": fault.worker if whose != "next" else "train()",
        "WHOSE": whose,
        "FOLDER": str(work),
        "PLAN": plan,
        "NOTE": str(folder / "note"),
        "DRAWS": "1" if fault.what == "nothing" or "picture" in fault.what else "",
        **dict(fault.variables),
    }
    command = [sys.executable, "-m", "sae_oracle", *fault.arguments]
    output = fault.output if whose == "new" else ""
    # A backend that computes has threads, which a fork does not take along.
    if not output and not variables["DRAWS"] and "keras" not in sys.modules:
        return run_in_a_fork(fault.arguments, work, variables)
    if output == "ascii":
        variables["PYTHONIOENCODING"] = "ascii"
    if output == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    stdout: int = subprocess.PIPE
    if output == "full":
        stdout = os.open("/dev/full", os.O_WRONLY)
    elif output == "nobody":
        reader, stdout = os.pipe()
        os.close(reader)
    try:
        return subprocess.run(
            command, cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.PIPE, text=True, errors="surrogateescape", timeout=60,
        )  # fmt: skip
    finally:
        if stdout >= 0:
            os.close(stdout)


def run_in_a_fork(
    arguments: tuple[str, ...], work: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in a fork of this process, which has imported what it needs."""
    out, to_out = os.pipe()
    err, to_err = os.pipe()
    process = os.fork()
    if process == 0:
        status = 70
        try:
            for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), to_out, to_err)):
                os.dup2(descriptor, number)
            os.closerange(3, 256)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
            os.chdir(work)
            os.environ.clear()
            os.environ.update(variables)
            training.feature_figure = training.png = lambda given: b"a picture"
            exec((HERE / "planted.py").read_text(encoding="utf-8"), {})
            status = cli.main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(to_out)
    os.close(to_err)
    limit = threading.Timer(60.0, os.kill, (process, signal.SIGKILL))
    limit.start()

    def read(descriptor: int) -> str:
        with os.fdopen(descriptor, errors="surrogateescape") as file:
            return file.read()

    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(read, (out, err)))
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    limit.cancel()
    limit.join()
    return subprocess.CompletedProcess(list(arguments), status, *printed)


def result_in(out: Path) -> set[str]:
    """Whose the files of a training are: one name if they belong together."""
    found = {(out / "model.keras").read_text()}
    if (out / "history.json").exists():
        found.add(json.loads((out / "history.json").read_text())["whose"])
    return found


def has_ended(process: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "fault", [row for row in FAULTS if row.is_part or IS_WHOLE], ids=str
)  # fmt: skip
def test_nothing_is_lost_and_nothing_hangs(fault: table.Fault, tmp_path: Path) -> None:
    work = tmp_path / "work"
    if fault.before:
        out = work / "out"
        out.mkdir(parents=True)
        (out / "model.keras").write_text("old")
        (out / "history.json").write_text('{"whose": "old"}')
        (out / "features.png").write_text("old")
    done = run(fault, tmp_path, "new", fault.plan)
    seen = (done.stdout or "") + done.stderr
    if fault.left == "either":
        after_a_change(fault, tmp_path, done.returncode, seen)
        return
    if fault.left == "whole":
        assert done.returncode in (0, 2, 130, 143, -9), seen
        files = [name for name in names(work) if not name.endswith(".partial")]
        assert files in ([], ["v.json"])
        assert done.returncode != 0 or files
        for name in files:
            json.loads((work / name).read_text())
        if done.returncode != -9:
            assert names(work) == files
        return
    assert done.returncode == fault.status, seen
    for text in fault.messages:
        if text == "gone":
            assert has_ended(int((tmp_path / "note").read_text()))
        elif text == "JSON":
            json.loads(done.stdout)
        else:
            assert text in " ".join(seen.split()), seen
    for text in fault.not_said:
        assert text not in seen, seen
    left = names(work)
    if fault.status == -9:
        left = [name for name in left if ".sae-oracle-" not in name]
    if fault.left in ("old", "new"):
        files = ["features.png", "history.json", "model.keras"]
        assert left == ["out", *(f"out/{name}" for name in files)]
        assert result_in(work / "out") == {fault.left}
    else:
        assert left == ([] if fault.left == "nothing" else list(fault.left))


def test_a_second_training_into_a_folder_is_told_so(tmp_path: Path) -> None:
    out = tmp_path / "work" / "out"
    out.mkdir(parents=True)
    holder = os.open(out, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    training = next(row for row in FAULTS if row.what == "--out is a mount point")
    second = run(training, tmp_path, "new", "")
    assert second.returncode == 2
    assert "Another training writes to --out out" in second.stdout
    assert names(out) == []
    os.close(holder)
    assert run(training, tmp_path, "new", "").returncode == 0
    assert result_in(out) == {"new"}


def test_what_a_killed_training_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "work" / "out"
    (out / ".sae-oracle-train-0" / "deep").mkdir(parents=True)
    (out / ".sae-oracle-train-checkpoint.npz-0").write_text("half")
    (out / "notes.txt").write_text("mine")
    (out / ".hidden").mkdir()
    training = next(row for row in FAULTS if row.what == "nothing")
    assert run(training, tmp_path, "new", "").returncode == 0
    kept = ["features.png", "history.json", "model.keras", "notes.txt"]
    assert names(out) == [".hidden", *kept]


@pytest.mark.parametrize("target", ["link", "broken"])
def test_a_link_is_replaced_and_not_written_through(tmp_path: Path, target: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "theirs").write_text("theirs")
    (work / "v.json").symlink_to(tmp_path / ("theirs" if target == "link" else "nowhere"))
    row = table.Fault("a link", (*table.NUMPY, "--json=v.json"), "verify()", 0)
    assert run(row, tmp_path, "new", "").returncode == 0
    assert not (work / "v.json").is_symlink()
    assert json.loads((work / "v.json").read_text())["passed"]
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "nowhere").exists()


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    os.mkfifo(work / "fifo")
    with subprocess.Popen(["cat", str(work / "fifo")], stdout=subprocess.PIPE) as reader:
        row = table.Fault("a FIFO", (*table.NUMPY, "--json=fifo"), "verify()", 0)
        assert run(row, tmp_path, "new", "").returncode == 0
        assert reader.stdout is not None
        assert json.loads(reader.stdout.read())["passed"]
    assert names(work) == ["fifo"]


def after_a_change(fault: table.Fault, folder: Path, status: int, seen: str) -> None:
    """Something happened at a change of `out`: a model is there, with its own history or none."""
    out = folder / "work" / "out"
    allowed = {"kill": (-9, 0), "SIGINT": (130, 0), "SIGTERM": (143, 0), "SIGHUP": (129, 0)}
    assert status in allowed.get(fault.plan.split()[0], (0, 2)), seen
    assert "Traceback" not in seen, seen
    whose = result_in(out)
    assert whose in ({"old"}, {"new"})
    if status in (0, 130, 143, 129) and "Wrote" in seen:
        assert whose == {"new"}
    if status == 2 and whose == {"old"} and not (out / ".sae-oracle-ready").exists():
        assert "Error" in seen
    # The next command finishes it, or does its own work, and leaves nothing else.
    done = run(fault, folder, "next", "")
    assert done.returncode == 0, done.stderr
    assert names(out) == ["features.png", "history.json", "model.keras"]
    assert result_in(out) == {"next"}
