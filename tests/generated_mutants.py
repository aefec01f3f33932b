"""Mutants that a tool makes: is each of them noticed by a test that runs its line?

    python -m tests.generated_mutants [--files reference/] [--backend torch] [--sample 400] ..

mutmut's operators change one operator, number, name or argument of a function; ours leave out a
statement, a branch or a filter. A sample of them, drawn with a seed, is tried by the tests that run
the changed line, the quickest first. Which those are is found out once (`--anew`: again), by
running all of them under coverage.

A pytest that has collected its tests forks; the fork gives the changed function its new code, and
runs tests. What is not the code of a function is tried in a copy of the project, imported anew. A
run that was stopped goes on where it was; `--survivors` tries those again that no test noticed, in
both ways. Why a change changes nothing is said and shown in `EQUIVALENT`. `--write` records the
sample in `tests/mutants.json`, from which `tests.mutants` writes docs/mutants.md.

A mutant that takes ten times the processor time of its tests, and more, is endless, and counted
apart: on a machine with other work that is no matter of a clock.

What it cannot show: a mistake of more than one place, and what only a process that a test starts
would notice, unless it is forked (`tests.fork_server`).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import gc
import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".mutants"
PROJECT = ("reference", "keras_impl", "sae_oracle", "tests", "conftest", "benchmarks")


@dataclass(frozen=True)
class Area:
    """What is tried together.

    Args:
        tests: Where its tests are; the modules beside them have examples.
        files: Beginnings of the paths of what is mutated.
        functions: Of a file these alone; a file that is not here: all.
        is_of_keras: Whether its tests run on a backend.
    """

    tests: tuple[str, ...]
    files: tuple[str, ...]
    functions: dict[str, tuple[str, ...]]
    is_of_keras: bool


AREAS = {
    "oracle": Area(("tests/reference", "reference"), ("reference/",), {}, False),
    "keras": Area(("tests/keras_impl", "keras_impl"), ("keras_impl/",), {}, True),
    # Who says whether something is right, and how the command ends.
    "verdict": Area(
        ("tests/sae_oracle/test_verify.py",),
        ("sae_oracle/workers/verify.py", "sae_oracle/report.py", "sae_oracle/cli.py"),
        {
            "sae_oracle/report.py": (
                *("is_suspicious", "is_outside", "state", "__str__", "held", "counts", "missing"),
                *("resolution", "suspicious", "passed", "exercise_failures", "exercise_problem"),
                *("collect", "_cell", "_has_likely", "_finds", "_error", "_number", "_worst"),
                *("_coarsest", "_undecided", "summary", "failures", "earlier_results"),
            ),
            "sae_oracle/cli.py": ("verify_backend", "status_of", "_ended"),
        },
        True,
    ),
}
# Arb's own rules and their inputs: `tests/reference/test_certified.py` holds them to mpmath.
LEFT_OUT = ("reference/certified.py", "__init__.py")
FEW = 3  # examples of a property, to see what it runs
MORE = 10.0  # times the processor time of a mutant's tests, and ..
AT_LEAST = 30.0  # .. seconds: it is endless
ASLEEP = 20.0  # times that on the clock, if it waits for what does not come


@dataclass(frozen=True)
class Equivalent:
    """Changes that change nothing.

    Args:
        mark: What is in the changed lines.
        reason: Why.
        proof: A program that ends with an error if it is not so: `tests/meta/test_mutants.py`.
    """

    mark: str
    reason: str
    proof: str


EQUIVALENT = (
    Equivalent(
        "z > 0.0",
        "at z = 0 both branches of the sigmoid are 1/(1 + 1)",
        "from math import exp; assert 1 / (1 + exp(-0.0)) == exp(0.0) / (1 + exp(0.0))",
    ),
    Equivalent(
        "reshape(-2,",
        "NumPy takes any negative length for the one it is to find",
        "import numpy as np; x = np.ones((2, 5, 3)); "
        "assert x.reshape(-2, 3).shape == x.reshape(-1, 3).shape == (10, 3)",
    ),
    Equivalent(
        "np.errstate(",
        "what NumPy warns of, and no number",
        "import numpy as np, warnings; warnings.simplefilter('ignore'); found = []\n"
        "for how in ('ignore', 'warn'):\n"
        "    with np.errstate(all=how):\n"
        "        x = np.array([-np.inf, -800.0, -1.0, 0.0, 800.0, np.inf, np.nan])\n"
        "        found.append([f(x).tobytes() for f in (np.exp, np.log, np.sqrt, np.square)])\n"
        "        found[-1] += [(x / y).tobytes() + (x * y - x).tobytes() for y in x]\n"
        "assert found[0] == found[1]",
    ),
    Equivalent(
        'each("',
        "the words of a message",
        "from reference.validation import each; "
        "assert [*each('a', [1, 2], 'b')] == [*each('c', [1, 2], 'd')] == [1, 2]",
    ),
    Equivalent(
        '"--device", choices=("cpu", "gpu"), default=None',
        "the command always says which device",
        "from sae_oracle import processes\n"
        "class Child:\n"
        "    def __init__(self, module, arguments, *more, **named):\n"
        "        assert arguments[:2] == ['--device', 'cpu']\n"
        "    def run(self, *given, **named): return {}\n"
        "was, processes.Child = processes.Child, Child\n"
        "try: processes.run_backend('module', [], 'numpy', 'cpu', print)\n"
        "finally: processes.Child = was",
    ),
)


@dataclass(frozen=True)
class Generated:
    """One change: the file, the first changed line, the function, and the lines as they are now."""

    file: str
    line: int
    function: str
    change: str
    key: str


def mutations_of(file: str) -> tuple[Any, list[Any]]:
    """A file as a tree, and its mutations by mutmut's operators and ours."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper
    from mutmut.mutation.file_mutation import MutationVisitor
    from mutmut.mutation.mutators import mutation_operators, operator_string
    from mutmut.mutation.pragma_handling import IgnoredCode

    never = cst.Name("False")

    def without_branch(node: cst.If) -> Iterator[cst.If]:
        if node.orelse is None:
            yield node.with_changes(test=never)

    def without_statement(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
        (*_, last) = node.body
        is_call = isinstance(last, cst.Expr) and isinstance(last.value, cst.Call)
        if is_call or isinstance(last, cst.AugAssign):
            yield node.with_changes(body=[cst.Pass()])

    def without_filter(node: cst.CompFor) -> Iterator[cst.CompFor]:
        if node.ifs:
            yield node.with_changes(ifs=[])

    def other_text(node: cst.BaseString) -> Iterator[cst.BaseString]:
        # Of mutmut's three, two change the case: what notices one of them notices all.
        yield from itertools.islice(operator_string(node), 1)

    ours = (
        (cst.BaseString, other_text),
        (cst.If, without_branch),
        (cst.SimpleStatementLine, without_statement),
        (cst.CompFor, without_filter),
    )

    class Visitor(MutationVisitor):
        """mutmut leaves decorated functions alone: for its own way to switch mutants."""

        def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
            if isinstance(node, cst.FunctionDef) and node.decorators:
                return False
            if isinstance(node, cst.Decorator):
                return True
            return super()._skip_node_and_children(node)

    theirs = [pair for pair in mutation_operators if pair[1] is not operator_string]
    visitor = Visitor([*theirs, *ours], IgnoredCode(set(), set(), set()))
    wrapper = MetadataWrapper(cst.parse_module((ROOT / file).read_text(encoding="utf-8")))
    return wrapper.visit(visitor), visitor.mutations


def sample_of(
    files: list[str], functions: dict[str, tuple[str, ...]], count: int, seed: int
) -> Iterator[tuple[Generated, str]]:
    """So many mutants (0: all), each with the text that its file has then."""
    drawn = []
    for file in files:
        module, mutations = mutations_of(file)
        pieces, names = Pieces(module), functions.get(file)
        drawn += [
            (file, pieces, mutation)
            for mutation in mutations
            if (name := function_of(mutation)) and (names is None or name in names)
        ]
    random.Random(seed).shuffle(drawn)
    found = filter(None, itertools.starmap(generated, drawn))
    return itertools.islice(found, count or None)


def function_of(mutation: Any) -> str | None:
    """The name of the function that has it; `None`: what no function holds."""
    name = getattr(mutation.contained_by_top_level_function, "name", None)
    return None if name is None else str(name.value)


@functools.cache
def text_and_messages(file: str) -> tuple[list[str], set[int]]:
    """A file's lines, and the numbers of those in which an error is raised."""
    text = (ROOT / file).read_text(encoding="utf-8")
    raising = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise)]
    numbers = {n for r in raising for n in range(r.lineno, (r.end_lineno or r.lineno) + 1)}
    return text.splitlines(), numbers


class Pieces:
    """A file's statements, each with its text, so that a change of one is not the text of all."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.texts = [module.code_for_node(statement) for statement in module.body]
        self.head, self.tail = module.code.split("".join(self.texts))
        self.number = {}
        for number, statement in enumerate(module.body):
            inside = getattr(getattr(statement, "body", None), "body", ())
            self.number.update((id(node), number) for node in (statement, *inside))

    def changed(self, mutation: Any) -> str:
        from mutmut.mutation.file_mutation import deep_replace

        number = self.number[id(mutation.contained_by_top_level_function)]
        statement = self.module.body[number]
        now = deep_replace(statement, mutation.original_node, mutation.mutated_node)
        texts = [*self.texts]
        texts[number] = self.module.code_for_node(now)
        return "".join([self.head, *texts, self.tail])


def in_common(first: list[str], second: list[str]) -> int:
    """With how many of the same two lists begin."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def is_assertion(before: str, change: str) -> bool:
    """Whether only `strict=` of a `zip` is changed: it finds mistakes of ours, and changes none."""
    without = re.compile(r",? strict=\w+|, (?=\))")
    return without.sub("", before).strip() == without.sub("", change)


def generated(file: str, pieces: Pieces, mutation: Any) -> tuple[Generated, str] | None:
    """The mutant; `None`: it changes nothing, a message, or what is asserted."""
    before, messages = text_and_messages(file)
    now = pieces.changed(mutation)
    lines = now.splitlines()
    start = in_common(before, lines)
    end = len(lines) - in_common(before[start:][::-1], lines[start:][::-1])
    change = " ".join(line.strip() for line in lines[start:end])
    if lines == before or start + 1 in messages or is_assertion(before[start], change):
        return None
    key = hashlib.sha256(f"{file}\n{now}".encode()).hexdigest()[:16]
    return Generated(file, start + 1, str(function_of(mutation)), change, key), now


# --- new code for functions that there are -----------------------------------------------------


def signature_of(code: CodeType) -> tuple[Any, ...]:
    """All of a function's code but where its lines are."""
    constants = tuple(
        signature_of(constant) if isinstance(constant, CodeType) else (type(constant), constant)
        for constant in code.co_consts
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code, repr(constants), names, code.co_argcount, code.co_exceptiontable


def functions_of(code: CodeType) -> Iterator[CodeType]:
    """The functions of a module and of its classes, in order."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            # A class's code has no locals of its own in the fast sense: CO_OPTIMIZED is a function.
            if constant.co_flags & 1:
                yield constant
            else:
                yield from functions_of(constant)


def replaced(file: str, text: str) -> list[tuple[CodeType, CodeType]] | None:
    """What functions run, and what they are to run; `None`: something else has changed too."""
    path = str(ROOT / file)
    right = compile((ROOT / file).read_text(encoding="utf-8"), path, "exec", dont_inherit=True)
    mutated = compile(text, path, "exec", dont_inherit=True)
    old, new = [*functions_of(right)], [*functions_of(mutated)]
    if len(old) != len(new):
        return None
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if signature_of(a) != signature_of(b)]
    if len(pairs) != 1 or pairs[0][0].co_freevars != pairs[0][1].co_freevars:
        return None
    return pairs


class Functions:
    """All functions of the project in this process, however they are decorated."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is FunctionType:  # `isinstance` asks some for their class, and they warn
                self.found[self.key(thing.__code__)].append(thing)

    @staticmethod
    def key(code: CodeType) -> tuple[str, str, int]:
        return code.co_filename, code.co_qualname, code.co_firstlineno

    def change(self, pairs: list[tuple[CodeType, CodeType]]) -> None:
        for old, new in pairs:
            for function in self.found[self.key(old)]:
                function.__code__ = new

    def has(self, pairs: list[tuple[CodeType, CodeType]]) -> bool:
        return all(self.found.get(self.key(old)) for old, _ in pairs)


# --- which tests run which lines ---------------------------------------------------------------


class WhoRunsWhat:
    """A plugin: what each test runs, in seconds and lines; those that fail are left out."""

    def __init__(self, coverage: Any, known: dict[str, Any]) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = known.get("seconds", {})
        self.times: dict[str, float] = {}
        self.failed: set[str] = set()
        self.forking: set[str] = {*known.get("forking", ())}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        started = sum(os.times()[:4])
        result = yield
        seconds = sum(os.times()[:4]) - started
        self.seconds[item.nodeid] = seconds * self.times.get(item.nodeid, 1.0)
        if {"servers", "forked"} & {*getattr(item, "fixturenames", ())}:
            self.forking.add(item.nodeid)
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)


def record(
    session: pytest.Session, items: list[pytest.Item], path: Path, packages: set[str]
) -> int:
    """In a child: run tests under coverage, and write who runs what, beside what is known."""
    import coverage
    import hypothesis

    sources = [str(ROOT / name) for name in packages]
    watch = coverage.Coverage(data_file=None, source=sources, branch=False, config_file=False)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    plugin = WhoRunsWhat(watch, known)
    for item in items:  # a few examples run the lines that all of them run
        test = getattr(item, "obj", None)
        given = getattr(test, "_hypothesis_internal_use_settings", None)
        if given is not None:
            few = min(FEW, given.max_examples)
            plugin.times[item.nodeid] = given.max_examples / few
            test._hypothesis_internal_use_settings = hypothesis.settings(given, max_examples=few)
    session.config.pluginmanager.register(plugin)
    watch.start()
    run_items(items, until_failure=False)
    watch.stop()
    print("left out, because they fail or are skipped here:", *sorted(plugin.failed), sep="\n  ")
    lines: dict[str, dict[str, list[str]]] = defaultdict(dict, known.get("lines", {}))
    data = watch.get_data()
    for file in data.measured_files():
        name = Path(file).relative_to(ROOT).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            tests = {c for c in contexts if c} - plugin.failed
            if tests:
                before = lines[name].setdefault(str(line), [])
                lines[name][str(line)] = sorted({*before, *tests})
    found = {
        "seconds": plugin.seconds,
        "forking": sorted(plugin.forking - plugin.failed),
        "lines": lines,
        "files": {**known.get("files", {}), str(items[0].path): digest(items[0].path)},
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_a_child(
    work: Any, *arguments: Any, log: Path | None = None, limit: float | None = None
) -> int:
    """Start a function in a fork of this process; return its process.

    Args:
        work: The function.
        arguments: Of the function.
        log: Where it prints.
        limit: Seconds of processor time before SIGXCPU ends it, and each process that it starts.
    """
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
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (max(1, int(limit)), max(1, int(limit)) + 5))
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
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(KEPT / "jax")
        from conftest import prepare_backend

        prepare_backend(backend, "cpu")
        import keras  # noqa: F401
        import scipy.optimize  # noqa: F401

        with contextlib.suppress(ImportError):
            import tensorflow  # noqa: F401  (Keras loads it on every backend, and it takes seconds)
    import hypothesis  # noqa: F401
    import numpy.testing  # noqa: F401


# --- trying them -------------------------------------------------------------------------------


def copy_of_the_project(folder: Path) -> Path:
    """Copy all but what a run leaves, into a folder of this one; return it."""
    copy = folder / "project"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".mutants", "*cache*", ".hypothesis", "*.egg-info", "report", ".whl"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


def run_items(items: list[pytest.Item], *, until_failure: bool = True) -> int:
    """Run tests as pytest does; return its exit status."""
    session = items[0].session
    for item, following in itertools.zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if until_failure and session.testsfailed:
            print(f"\nkilled by {item.nodeid}", flush=True)
            session._setupstate.teardown_exact(None)
            return 1
    return 1 if session.testsfailed else 0


def run_anew(copy: Path, tests: list[str]) -> int:
    """In a child: the tests, with the copy's modules in place of ours."""
    sys.dont_write_bytecode = True
    for name in [*sys.modules]:
        if name.partition(".")[0] in PROJECT:
            del sys.modules[name]
    os.chdir(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


class ForkedServer:
    """What `tests.fork_server` starts, as a fork of this process, which has Keras already."""

    def __init__(self, command: list[str], *, env: dict[str, str], pass_fds: list[int]) -> None:
        *_, program, descriptor = command[: command.index("keras")]
        self.process = os.fork()
        if self.process:
            return
        code = 1
        try:
            # With its other end open here the server would not see that it is closed there.
            kept, last = int(descriptor), int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            os.closerange(3, kept)
            os.closerange(kept + 1, min(last, 4096))
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
            )
            os.environ.update(env)
            sys.argv = ["-c", descriptor, *command[command.index("keras") :]]
            exec(program, {"__name__": "__main__"})
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def wait(self, timeout: float | None = None) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def refused(command: list[str], **named: Any) -> None:
    raise AssertionError(f"{command[:5]} was not to be started")


@dataclass
class Attempt:
    """A mutant that is being tried.

    Args:
        mutant: Which.
        process: Where.
        end: On the clock.
        log: What it has printed.
        restored: A file that is to have its text again.
    """

    mutant: Generated
    process: int
    end: float
    log: Path
    restored: tuple[Path, str] | None = None


def who_runs(mutant: Generated, who: dict[str, Any]) -> list[str]:
    """The tests of the changed line, or, of a part of a statement, of the line beside it."""
    lines = who["lines"].get(mutant.file, {})
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
    tests = next((lines[str(n)] for n in (*before, *after) if str(n) in lines), [])
    # What a worker runs no coverage sees.
    if mutant.file.startswith("sae_oracle/workers/"):
        tests = sorted({*tests, *who.get("forking", ())})
    return sorted(tests, key=lambda test: who["seconds"].get(test, 0.0))


def limit_of(tests: list[str], who: dict[str, Any]) -> float:
    """Seconds of processor time after which these tests will have no end."""
    return AT_LEAST + MORE * sum(who["seconds"].get(test, 0.0) for test in tests)


def outcome(attempt: Attempt) -> str | None:
    """What became of it: "killed", "survived", "endless"; `None`: still running."""
    done, status = os.waitpid(attempt.process, os.WNOHANG)
    if not done:
        if time.monotonic() < attempt.end:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(attempt.process, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(attempt.process, signal.SIGKILL)
        os.waitpid(attempt.process, 0)
        result = "endless"
    else:
        code = os.waitstatus_to_exitcode(status)
        result = "survived" if code == 0 else "killed"
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            result = "endless"
        if code in (4, 5, 70):  # no test ran: the list is stale
            raise RuntimeError(attempt.log.read_text(errors="replace")[-3000:])
    if attempt.restored is not None:
        path, text = attempt.restored
        path.write_text(text, encoding="utf-8")
    return result


def reason_for(change: str) -> str | None:
    """Why a change that nothing noticed changes nothing; `None`: it is not known to be so."""
    return next((known.reason for known in EQUIVALENT if known.mark in change), None)


class State:
    """What became of each mutant, kept at once in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        if path.exists():
            self.known.update(json.loads(line) for line in path.read_text().splitlines())

    def keep(self, mutant: Generated, result: str) -> None:
        self.known[mutant.key] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([mutant.key, result]) + "\n")
        if result in ("survived", "not run"):
            where = f"{mutant.file}:{mutant.line} {mutant.function}"
            print(f"{result}: {where}: {mutant.change}", flush=True)


def take_turns(begin: Iterator[Attempt], jobs: int, keep: Any) -> None:
    """Try so many at once, and keep what becomes of them."""
    running: list[Attempt] = []
    while True:
        while len(running) < jobs and (attempt := next(begin, None)) is not None:
            running.append(attempt)
        if not running:
            return
        for attempt in [*running]:
            result = outcome(attempt)
            if result is not None:
                running.remove(attempt)
                keep(attempt, result)
        time.sleep(0.01)


class InForks:
    """A plugin: in place of running its tests, a session tries mutants with them in forks.

    Args:
        sample: Mutants, each with the text of its file.
        state: Where results are kept.
        lines: The file of who runs what.
        jobs: How many at once.
        folder: For what is printed.
    """

    def __init__(
        self,
        sample: list[tuple[Generated, str]],
        state: State,
        lines: Path,
        jobs: int,
        folder: Path,
    ) -> None:
        self.sample, self.state, self.lines, self.jobs = sample, state, lines, jobs
        self.folder = folder

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        from sae_oracle import processes
        from tests import fork_server

        with contextlib.suppress(ImportError):
            import sae_oracle.workers.verify  # noqa: F401  (what a fork runs has its new code)
        named = {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL", "STDOUT")}
        fork_server.subprocess = SimpleNamespace(Popen=ForkedServer, **named)
        # A command that asks for backends that it was not to ask for would run them for minutes.
        processes.subprocess = SimpleNamespace(Popen=refused, **named)
        items = {item.nodeid: item for item in session.items}
        functions = Functions()
        gc.collect()
        gc.freeze()
        known = json.loads(self.lines.read_text()) if self.lines.exists() else {}
        for path, of_file in itertools.groupby(items.values(), key=lambda item: item.path):
            if known.get("files", {}).get(str(path)) == digest(path):
                continue  # it has the tests that it had
            log = self.lines.with_name(f"{self.lines.stem}-{path.stem}.log")
            packages = {mutant.file.partition("/")[0] for mutant, _ in self.sample}
            child = in_a_child(record, session, [*of_file], self.lines, packages, log=log)
            os.waitpid(child, 0)
        who = json.loads(self.lines.read_text(encoding="utf-8"))
        numbers = itertools.count()
        kills: dict[str, Counter[str]] = defaultdict(Counter)

        def price(mutant: Generated, test: str) -> float:
            """Seconds for each mutant that it will kill, as far as those before it tell."""
            of_function = kills[f"{mutant.file} {mutant.function}"]
            share = of_function[test] / max(1, of_function.total())
            return float(who["seconds"].get(test, 0.0)) / (share + 0.01)

        def begin() -> Iterator[Attempt]:
            for mutant, text in self.sample:
                tests = [name for name in who_runs(mutant, who) if name in items]
                tests.sort(key=lambda test, mutant=mutant: price(mutant, test))
                pairs = replaced(mutant.file, text)
                if not tests:
                    self.state.keep(mutant, "not run")
                if not tests or pairs is None or not functions.has(pairs):
                    continue

                def work(pairs: Any = pairs, tests: list[str] = tests) -> int:
                    functions.change(pairs)
                    return run_items([items[name] for name in tests])

                log = self.folder / f"{next(numbers) % (2 * self.jobs)}.log"
                limit = limit_of(tests, who)
                process = in_a_child(work, log=log, limit=limit)
                yield Attempt(mutant, process, time.monotonic() + ASLEEP * limit, log)

        def keep(attempt: Attempt, result: str) -> None:
            self.state.keep(attempt.mutant, result)
            killer = re.search("^killed by (.*)$", attempt.log.read_text(errors="replace"), re.M)
            if killer:
                kills[f"{attempt.mutant.file} {attempt.mutant.function}"][killer[1]] += 1

        take_turns(begin(), self.jobs, keep)
        return True


def try_anew(
    sample: list[tuple[Generated, str]], who: dict[str, Any], jobs: int, state: State
) -> None:
    """Try mutants in copies of the project."""
    with tempfile.TemporaryDirectory(prefix="sae-oracle-generated-") as folder:
        free = []
        for i in range(jobs if sample else 0):
            (Path(folder) / str(i)).mkdir()
            free.append(copy_of_the_project(Path(folder) / str(i)))

        def begin() -> Iterator[Attempt]:
            for mutant, text in sample:
                tests = who_runs(mutant, who)
                copy = free.pop()
                path = copy / mutant.file
                original = path.read_text(encoding="utf-8")
                path.write_text(text, encoding="utf-8")
                # Python would take bytecode of a file of the same size and second for this one.
                for old in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                    old.unlink()
                limit, log = limit_of(tests, who), copy.parent / "log"
                process = in_a_child(run_anew, copy, tests, log=log, limit=limit)
                end = time.monotonic() + ASLEEP * limit
                yield Attempt(mutant, process, end, log, (path, original))

        def keep(attempt: Attempt, result: str) -> None:
            free.append(attempt.log.parent / "project")
            state.keep(attempt.mutant, result)

        take_turns(begin(), jobs, keep)


def try_all(
    area: Area, backend: str | None, sample: list[tuple[Generated, str]], state: State, options: Any
) -> int:
    """In a child: one backend cannot be unloaded for the next."""
    lines = state.path.with_name(state.path.name.replace("results", "lines")).with_suffix(".json")
    if options.anew:
        lines.unlink(missing_ok=True)
    again = (None, "survived", "not run") if options.survivors else (None,)
    waiting = [pair for pair in sample if state.known.get(pair[0].key) in again]
    warm(backend)
    if waiting:
        with tempfile.TemporaryDirectory(prefix="sae-oracle-generated-") as folder:
            plugin = InForks(waiting, state, lines, options.jobs, Path(folder))
            call = ["-q", "-s", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", *area.tests]
            os.waitpid(in_a_child(pytest.main, call, [plugin]), 0)
        who = json.loads(lines.read_text(encoding="utf-8"))
        known = State(state.path).known
        left = [pair for pair in waiting if known.get(pair[0].key) in again]
        try_anew([pair for pair in left if who_runs(pair[0], who)], who, options.jobs, state)
    return 0


def summary(sample: list[tuple[Generated, str]], known: dict[str, str]) -> dict[str, Any]:
    """What was found, by file; what has not been tried yet is left out."""
    files: dict[str, dict[str, Any]] = {}
    for mutant, _ in sample:
        result = known.get(mutant.key)
        if result is None:
            continue
        found = files.setdefault(mutant.file, {"tried": 0, "killed": 0, "endless": 0, "living": []})
        found["tried"] += 1
        if result in ("killed", "endless"):
            found[result] += 1
        else:
            entry = {k: v for k, v in asdict(mutant).items() if k not in ("file", "key")}
            found["living"].append({**entry, "as": result, "reason": reason_for(mutant.change)})
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--files", default="", help="beginnings of paths, with commas (default: all)"
    )
    parser.add_argument("--backend", default="torch", help="where tests of Keras objects run")
    parser.add_argument("--sample", type=int, default=400, help="how many of an area (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--anew", action="store_true", help="find out again which tests run what")
    parser.add_argument("--survivors", action="store_true", help="try again what survived")
    parser.add_argument("--only-count", action="store_true", help="say what is known, try nothing")
    parser.add_argument("--write", action="store_true", help="record it in tests/mutants.json")
    options = parser.parse_args()
    wanted = tuple(options.files.split(","))
    KEPT.mkdir(exist_ok=True)
    recorded: dict[str, Any] = {}
    for name, area in AREAS.items():
        files = [
            path.relative_to(ROOT).as_posix()
            for package in PROJECT[:3]
            for path in sorted((ROOT / package).rglob("*.py"))
        ]
        files = [
            f for f in files if f.startswith(area.files) and f.startswith(wanted)
            and not f.endswith(LEFT_OUT)
        ]  # fmt: skip
        sample = [*sample_of(files, area.functions, options.sample, options.seed)]
        backend = options.backend if area.is_of_keras else None
        path = KEPT / f"results-{name}{f'-{backend}' if backend else ''}.jsonl"
        if sample and not options.only_count:
            child = in_a_child(try_all, area, backend, sample, State(path), options)
            _, status = os.waitpid(child, 0)
            if status:
                return os.waitstatus_to_exitcode(status)
        for file, found in summary(sample, State(path).known).items():
            found |= {"seed": options.seed, "backend": backend, "drawn": options.sample or "all"}
            recorded[file if backend in (None, "torch") else f"{file} on {backend}"] = found
    for file, found in sorted(recorded.items()):
        endless = f", {found['endless']} endless" if found["endless"] else ""
        print(f"{file}: {found['killed']} of {found['tried']}{endless}")
        for mutant in found["living"]:
            if mutant["reason"] is None:
                print(
                    f"  {mutant['as']}: {mutant['line']} {mutant['function']}: {mutant['change']}"
                )
    if options.write:
        path = ROOT / "tests" / "mutants.json"
        everything = json.loads(path.read_text(encoding="utf-8"))
        everything["generated"] |= recorded
        path.write_text(
            json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
