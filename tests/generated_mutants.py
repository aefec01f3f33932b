"""Mutants that a tool makes: is each of them noticed by a test that runs its line?

    python -m tests.generated_mutants [--files reference/] [--backend torch] [--sample 400] ..

mutmut's operators change one operator, number, name or argument of a function. A sample of them,
drawn with a seed, is tried: each in a copy of the project, in a process forked from one that has
NumPy, Keras and the backend loaded, by the tests that run the changed line, the quickest first.
Which those are is found out once (`--anew`: again), by running all of them under coverage. A run
that was stopped goes on where it was. What nothing noticed is listed with its change; why a change
changes nothing is said in `EQUIVALENT`. `--write` records the sample in `tests/mutants.json`, from
which `tests.mutants` writes docs/mutants.md.

What it cannot show: a mistake of more than one place, a line that is missing, and what only a
process that a test starts would notice.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import functools
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".mutants"
PROJECT = ("reference", "keras_impl", "sae_oracle", "tests", "conftest", "benchmarks")
# What is mutated: the oracle, its tolerances too, what Keras runs, and who gives the verdict.
FILES = ("reference/", "keras_impl/", "sae_oracle/workers/verify.py", "sae_oracle/report.py")
# Arb's own rules and their inputs: `tests/reference/test_certified.py` holds them to mpmath.
LEFT_OUT = ("reference/certified.py", "__init__.py")
TESTS = {
    None: ("tests/reference", "reference"),
    "torch": ("tests/keras_impl", "tests/sae_oracle/reviewer", "keras_impl"),
    "jax": ("tests/keras_impl", "keras_impl"),
    "tensorflow": ("tests/keras_impl", "keras_impl"),
}
LONGEST = 120.0  # seconds of a mutant's tests: more is an endless loop

# Changes that change nothing: what is in the changed lines, and why.
EQUIVALENT = (
    ("strict=", "`strict=` of a `zip` whose lengths are equal: checked, or made so, lines before"),
    ("z > 0.0", "at z = 0 both branches of the sigmoid are 1/(1 + 1)"),
    ("reshape(-2,", "NumPy takes any negative length for the one it is to find"),
    ("np.errstate(", "what NumPy warns of, and no number"),
    ('each("', "the words of a message"),
)


@dataclass(frozen=True)
class Generated:
    """One change: the file, the first changed line, the function, and the lines as they are now."""

    file: str
    line: int
    function: str
    change: str
    key: str


def sample_of(files: list[str], count: int, seed: int) -> Iterator[tuple[Generated, str]]:
    """So many mutants (0: all), each with the text that its file has then."""
    from mutmut.mutation.file_mutation import create_mutations

    drawn = []
    for file in files:
        module, mutations, *_ = create_mutations(file, (ROOT / file).read_text(encoding="utf-8"))
        drawn += [(file, module, mutation) for mutation in mutations]
    random.Random(seed).shuffle(drawn)
    found = filter(None, itertools.starmap(generated, drawn))
    return itertools.islice(found, count or None)


@functools.cache
def text_and_messages(file: str) -> tuple[list[str], set[int]]:
    """A file's lines, and the numbers of those in which an error is raised."""
    text = (ROOT / file).read_text(encoding="utf-8")
    raising = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise)]
    numbers = {n for r in raising for n in range(r.lineno, (r.end_lineno or r.lineno) + 1)}
    return text.splitlines(), numbers


def generated(file: str, module: Any, mutation: Any) -> tuple[Generated, str] | None:
    """The mutant; `None`: it changes nothing, a message, or what no function holds."""
    from mutmut.mutation.file_mutation import deep_replace

    before, messages = text_and_messages(file)
    now = deep_replace(module, mutation.original_node, mutation.mutated_node).code
    lines = now.splitlines()
    blocks = difflib.SequenceMatcher(None, before, lines, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    function = mutation.contained_by_top_level_function
    if not changed or changed[0][1] + 1 in messages or function is None:
        return None
    change = " ".join(line.strip() for *_, start, end in changed for line in lines[start:end])
    key = hashlib.sha256(f"{file}\n{now}".encode()).hexdigest()[:16]
    return Generated(file, changed[0][1] + 1, function.name.value, change, key), now


# --- which tests run which lines ---------------------------------------------------------------


class WhoRunsWhat:
    """A plugin: what each test runs, in seconds and lines; those that fail are left out."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        started = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - started
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)


def record(backend: str | None, path: Path) -> None:
    """Run all tests of a backend under coverage, and write who runs what."""
    import coverage

    watch = coverage.Coverage(
        data_file=None, source=[str(ROOT / name) for name in PROJECT[:3]], branch=False
    )
    plugin = WhoRunsWhat(watch)
    watch.start()
    pytest.main(["-q", "-p", "no:cacheprovider", *TESTS[backend]], plugins=[plugin])
    watch.stop()
    lines: dict[str, dict[int, list[str]]] = defaultdict(dict)
    data = watch.get_data()
    for file in data.measured_files():
        name = Path(file).relative_to(ROOT).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            tests = [c for c in contexts if c and c not in plugin.failed]
            if tests:
                lines[name][line] = tests
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"seconds": plugin.seconds, "lines": lines}), encoding="utf-8")


def in_a_child(work: Any, *arguments: Any, log: Path | None = None) -> int:
    """Start a function in a fork of this process; return its process."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        if log is not None:
            os.setsid()
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
        code = int(work(*arguments) or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def warm(backend: str | None) -> None:
    """Load what every child needs, and nothing of the project."""
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    os.environ["OMP_NUM_THREADS"] = "1"
    if backend is None:
        os.environ.pop("KERAS_BACKEND", None)
        import mpmath  # noqa: F401
    else:
        os.environ["KERAS_BACKEND"] = backend
        from conftest import prepare_backend

        prepare_backend(backend, "cpu")
        import keras  # noqa: F401
        import scipy.optimize  # noqa: F401
    import hypothesis  # noqa: F401
    import numpy.testing  # noqa: F401


def tests_by_line(backend: str | None, anew: bool) -> dict[str, Any]:
    path = KEPT / f"lines-{backend or 'oracle'}.json"
    if anew or not path.exists():
        child = in_a_child(record, backend, path)
        os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- trying them -------------------------------------------------------------------------------


def copy_of_the_project(folder: Path) -> Path:
    """Copy all but what a run leaves, into a folder of this one; return it."""
    copy = folder / "project"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".mutants", "*cache*", ".hypothesis", "*.egg-info", "report", ".whl"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


def run_tests(copy: Path, tests: list[str]) -> int:
    """In a child: the tests, with the copy's modules in place of ours."""
    sys.dont_write_bytecode = True
    for name in [*sys.modules]:
        if name.partition(".")[0] in PROJECT:
            del sys.modules[name]
    os.chdir(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


@dataclass
class Attempt:
    """A mutant that is being tried."""

    mutant: Generated
    copy: Path
    original: str
    process: int
    end: float


def who_runs(mutant: Generated, lines: dict[str, list[str]]) -> list[str]:
    """The tests of the changed line, or, of a part of a statement, of the line beside it."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    around = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        and node.lineno <= mutant.line <= (node.end_lineno or node.lineno)
    ]
    function = max(around, key=lambda node: node.lineno)
    before = range(mutant.line, function.lineno, -1)
    after = range(mutant.line, (function.end_lineno or function.lineno) + 1)
    return next((lines[str(n)] for n in (*before, *after) if str(n) in lines), [])


def start(mutant: Generated, text: str, copy: Path, who: dict[str, Any]) -> Attempt | None:
    """Begin to try a mutant; `None`: no test runs its line."""
    tests = who_runs(mutant, who["lines"].get(mutant.file, {}))
    if not tests:
        return None
    seconds = who["seconds"]
    tests = sorted(tests, key=lambda test: seconds.get(test, 0.0))
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    # Python would take bytecode of a file of the same size and second for this one.
    for old in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        old.unlink()
    limit = min(LONGEST, 20.0 + 10.0 * sum(seconds.get(test, 0.0) for test in tests))
    process = in_a_child(run_tests, copy, tests, log=copy.parent / "log")
    return Attempt(mutant, copy, original, process, time.monotonic() + limit)


def outcome(attempt: Attempt) -> str | None:
    """What became of it: "killed", "survived", "endless"; `None`: still running."""
    done, status = os.waitpid(attempt.process, os.WNOHANG)
    if not done:
        if time.monotonic() < attempt.end:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(attempt.process, signal.SIGKILL)
        os.kill(attempt.process, signal.SIGKILL)
        os.waitpid(attempt.process, 0)
        result = "endless"
    else:
        code = os.waitstatus_to_exitcode(status)
        result = "survived" if code == 0 else "killed"
        if code in (4, 5, 70):  # no test ran: the list is stale
            raise RuntimeError((attempt.copy.parent / "log").read_text(errors="replace")[-3000:])
    (attempt.copy / attempt.mutant.file).write_text(attempt.original, encoding="utf-8")
    return result


def reason_for(change: str) -> str | None:
    """Why a change that nothing noticed changes nothing; `None`: it is not known to be so."""
    for mark, reason in EQUIVALENT:
        if mark in change:
            return reason
    return None


def attempt_all(
    sample: list[tuple[Generated, str]], who: dict[str, Any], jobs: int, results: Path
) -> dict[str, str]:
    """Try what has no result yet, and keep each result at once."""
    known = (
        dict(json.loads(line) for line in results.read_text().splitlines())
        if results.exists()
        else {}
    )
    waiting = [pair for pair in sample if pair[0].key not in known]
    with (
        tempfile.TemporaryDirectory(prefix="sae-oracle-generated-") as folder,
        results.open("a", encoding="utf-8") as file,
    ):
        free = []
        for i in range(jobs):
            (Path(folder) / str(i)).mkdir()
            free.append(copy_of_the_project(Path(folder) / str(i)))
        running: list[Attempt] = []

        def keep(mutant: Generated, result: str) -> None:
            known[mutant.key] = result
            file.write(json.dumps([mutant.key, result]) + "\n")
            file.flush()
            if result in ("survived", "not run"):
                print(f"{result}: {mutant.file}:{mutant.line} {mutant.function}: {mutant.change}")

        while waiting or running:
            while free and waiting:
                mutant, text = waiting.pop()
                begun = start(mutant, text, free[-1], who)
                if begun is None:
                    keep(mutant, "not run")
                else:
                    free.pop()
                    running.append(begun)
            for attempt in [*running]:
                result = outcome(attempt)
                if result is not None:
                    running.remove(attempt)
                    free.append(attempt.copy)
                    keep(attempt.mutant, result)
            time.sleep(0.05)
    return known


def summary(sample: list[tuple[Generated, str]], known: dict[str, str]) -> dict[str, Any]:
    """What was found, by file."""
    files: dict[str, dict[str, Any]] = {}
    for mutant, _ in sample:
        found = files.setdefault(mutant.file, {"tried": 0, "killed": 0, "living": []})
        found["tried"] += 1
        result = known[mutant.key]
        if result in ("killed", "endless"):
            found["killed"] += 1
        else:
            entry = {k: v for k, v in asdict(mutant).items() if k not in ("file", "key")}
            found["living"].append({**entry, "as": result, "reason": reason_for(mutant.change)})
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", default=",".join(FILES), help="beginnings of paths")
    parser.add_argument("--backend", default="torch", help="where keras_impl's tests run")
    parser.add_argument("--sample", type=int, default=400, help="how many (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--anew", action="store_true", help="find out again which tests run what")
    parser.add_argument("--write", action="store_true", help="record it in tests/mutants.json")
    arguments = parser.parse_args()
    wanted = tuple(arguments.files.split(","))
    files = [
        path.relative_to(ROOT).as_posix()
        for package in PROJECT[:3]
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    files = [f for f in files if f.startswith(wanted) and not f.endswith(LEFT_OUT)]
    pairs = [*sample_of(files, arguments.sample, arguments.seed)]
    KEPT.mkdir(exist_ok=True)
    recorded: dict[str, Any] = {}
    for backend in (None, arguments.backend):
        own = [p for p in pairs if p[0].file.startswith("reference/") == (backend is None)]
        if not own:
            continue
        child = in_a_child(try_on, backend, own, arguments)
        _, status = os.waitpid(child, 0)
        if status:
            return os.waitstatus_to_exitcode(status)
        results = KEPT / f"results-{backend or 'oracle'}.jsonl"
        known = dict(json.loads(line) for line in results.read_text().splitlines())
        recorded |= summary(own, known)
    tried = sum(found["tried"] for found in recorded.values())
    killed = sum(found["killed"] for found in recorded.values())
    print(f"{killed} of {tried} killed")
    for file, found in sorted(recorded.items()):
        print(f"{file}: {found['killed']} of {found['tried']}")
    if arguments.write:
        path = ROOT / "tests" / "mutants.json"
        everything = json.loads(path.read_text(encoding="utf-8"))
        everything["generated"] = {
            "seed": arguments.seed,
            "backend": arguments.backend,
            "files": recorded,
        }
        path.write_text(
            json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0


def try_on(backend: str | None, own: list[tuple[Generated, str]], arguments: Any) -> int:
    """In a child: one backend cannot be unloaded for the next."""
    warm(backend)
    who = tests_by_line(backend, arguments.anew)
    attempt_all(own, who, arguments.jobs, KEPT / f"results-{backend or 'oracle'}.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
