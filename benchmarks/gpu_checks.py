"""All GPU checks, for a GPU that is borrowed for minutes; each part can be run by itself.

    python benchmarks/gpu_checks.py                         # on a machine with a GPU
    python benchmarks/gpu_checks.py --only tests,wide       # these parts
    python benchmarks/gpu_checks.py --device cpu --quick    # everything but the GPU, small

Timings come first and alone: `bench` (training steps of the wide case, with the matrix products as
the framework has them and in the other precision), `alone` (the penalty by itself beside the
bandwidth of a copy), `profile` (a step kernel by kernel). Then, side by side, `verify`
(`sae-oracle verify --device gpu`), `wide` (with --wide; only if asked for), `accuracy` (what
reduced matrix precision costs), `replicas` (a process group of one, over nccl), and `tests` (pytest
with --device gpu, a process a file). Backends that are not installed, and checks that see no GPU,
are skipped and counted. Everything found goes to a dated JSON file in benchmarks/results/, and the
logs beside it if anything failed.

Exit status: 0 all that ran passed and something ran, 1 something failed, 2 nothing could run.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BACKENDS = ("jax", "torch", "tensorflow")
PARTS = ("bench", "alone", "profile", "verify", "accuracy", "replicas", "tests")
LIMIT = 540.0
"""Seconds for everything: nine minutes."""

OTHER_PRECISION = {
    "jax": ("full float32", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
    "torch": ("TF32", {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}),
}
"""The matrix products that are not the framework's default on a GPU: their name, and how."""


@dataclass
class Check:
    """One command.

    Args:
        part: Which of `PARTS` it belongs to.
        name: What it checks.
        backend: On which backend.
        command: What Python runs, as on its command line.
        variables: Of its environment, beside the common ones.
        file: A JSON file that it writes.
    """

    part: str
    name: str
    backend: str
    command: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    file: Path | None = None


@dataclass
class Outcome:
    """What became of one check.

    Args:
        name: The check.
        status: "passed", "failed" or "skipped".
        seconds: How long it took.
        detail: Its last words, or why it was skipped.
    """

    name: str
    status: str
    seconds: float
    detail: str


def environment(device: str) -> dict[str, str]:
    """Return an environment in which several frameworks share one GPU, and none is chosen."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
    return {
        **{name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **hidden,
    }


def run(check: Check, device: str, log: Path, end: float) -> tuple[Outcome, Any]:
    """Run a check until the common end; return what became of it, and what it found."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *check.command],
            cwd=ROOT,
            env=environment(device) | {"KERAS_BACKEND": check.backend} | check.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, end - time.monotonic()),
        )
        output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = (error.stdout or b"").decode(errors="replace"), -1
    log.write_text(output, encoding="utf-8")
    seconds = round(time.perf_counter() - started, 1)
    last = [line for line in output.strip().splitlines() if line.strip()][-1:]
    detail = last[0][-300:] if last else ""
    name = f"{check.name}, {check.backend}"
    if code == -1:
        return Outcome(name, "failed", seconds, f"no end in time; last: {detail}"), None
    if code != 0 and re.search(r"no GPU: \w+ sees none", output):
        return Outcome(name, "skipped", seconds, "no GPU"), None
    outcome = Outcome(name, "failed" if code else "passed", seconds, detail)
    found = last_result(output)
    if check.part == "tests":
        count_tests(output, outcome, code)
    elif check.file is not None and check.file.exists():
        found = json.loads(check.file.read_text(encoding="utf-8"))
        outcome.detail = found.get("verdict", "written")
    elif found is not None:
        outcome.detail = "written"
    return outcome, found


def last_result(output: str) -> dict[str, Any] | None:
    """Return the last JSON message of a child that is a result."""
    for line in reversed(output.splitlines()):
        if line.startswith('{"kind": "result"'):
            return dict(json.loads(line))
    return None


def count_tests(output: str, outcome: Outcome, code: int) -> None:
    """Say what pytest counted; nothing but skips for want of a GPU is a skip."""
    words = ("passed", "failed", "error", "skipped")
    counts = {word: sum(map(int, re.findall(rf"(\d+) {word}", outcome.detail))) for word in words}
    outcome.detail = ", ".join(f"{counts[word]} {word}" for word in words)
    if code == 5 or (code == 0 and counts["skipped"] and not counts["passed"]):
        outcome.status = "skipped"
        outcome.detail = "no GPU" if "no GPU" in output else "no test for this backend"


def driver() -> str:
    """Return the GPU and its driver as nvidia-smi names them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "no nvidia-smi"
    return done.stdout.strip() or "no GPU"


def missing(*packages: str) -> str:
    """Say which packages are not installed; empty: none."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def timings(backend: str, device: str, quick: bool, folder: Path) -> list[Check]:
    """Return the checks that run alone."""
    size = "small" if quick else "wide"
    seconds = "2" if quick else "20"
    common = ["--device", device]
    precisions = {"": {}}
    if not quick and backend in OTHER_PRECISION:
        name, variables = OTHER_PRECISION[backend]
        precisions[f" in {name}"] = variables
    checks = []
    for name, variables in precisions.items():
        file = folder / f"bench-{backend}{name.replace(' ', '-')}.json"
        command = ["-m", "sae_oracle", "bench", "--backend", backend, "--size", size, *common]
        command += ["--time-limit", seconds, "--json", str(file)]
        checks.append(Check("bench", f"bench {size}{name}", backend, command, variables, file))
    shape = [] if quick else ["--rows", "4096", "--units", "32768", "--calls", "5"]
    command = ["-m", "benchmarks.penalty_alone", *common, *shape, "--rounds", "40"]
    checks.append(Check("alone", "penalty alone", backend, command))
    if backend != "tensorflow":
        command = ["-m", "benchmarks.profile_step", *common, "--size", size]
        checks.append(Check("profile", f"profile {size}", backend, command))
    return checks


def proofs(backend: str, device: str, quick: bool, folder: Path) -> list[Check]:
    """Return the checks that run side by side, the longest first."""
    checks = []
    for part, options in (("wide", ["--wide"]), ("verify", [])):
        file = folder / f"{part}-{backend}.json"
        command = ["-m", "sae_oracle", "verify", "--backend", backend, "--device", device]
        command += ["--json", str(file), *options]
        name = " ".join(["verify", *options]).replace("--", "")
        checks.append(Check(part, name, backend, command, {}, file))
    command = ["-m", "sae_oracle.bench.accuracy", "--device", device]
    checks.append(Check("accuracy", "accuracy", backend, command))
    if backend == "torch":
        command = ["-m", "torch.distributed.run", "--nproc-per-node", "1"]
        checks.append(
            Check("replicas", "replicas", backend, [*command, "examples/replicas_torch.py"])
        )
    if missing("pytest", "hypothesis", "mpmath"):
        return checks
    for path in test_files(quick):
        command = ["-m", "pytest", "-q", "-rfEs", "--tb=short", "-W", "ignore"]
        command += ["-p", "no:cacheprovider", "--device", device, str(path)]
        checks.append(Check("tests", f"tests {path}", backend, command))
    return checks


def test_files(quick: bool) -> list[Path]:
    """Return what holds tests of backends: a process for each, the longest first."""
    if quick:
        return [Path("tests/keras_impl/test_custom_gradients.py")]
    files = [*ROOT.glob("tests/keras_impl/test_*.py")]
    files += ROOT.glob("tests/sae_oracle/reviewer/test_*.py")
    files.sort(key=lambda path: -path.stat().st_size)
    folders = ("keras_impl", "sae_oracle/bench", "sae_oracle/reviewer", "sae_oracle/workers")
    return [*(path.relative_to(ROOT) for path in files), *map(Path, folders)]


def main() -> int:
    """Run the checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, one test file")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join((*PARTS, 'wide'))}")
    parser.add_argument("--tests", default="", help="only the files whose names hold this (a|b)")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    device, results = arguments.device, arguments.results
    chosen = arguments.only.split(",")
    unknown = [part for part in chosen if part not in (*PARTS, "wide")]
    if unknown:
        parser.error(f"--only takes {', '.join((*PARTS, 'wide'))}; got {unknown[0]!r}")
    if not results.is_dir():
        parser.error(f"no such folder: {results}")
    end = time.monotonic() + arguments.limit
    outcomes: list[Outcome] = []
    found: dict[str, dict[str, Any]] = {}

    def take(check: Check, outcome: Outcome, result: Any) -> None:
        outcomes.append(outcome)
        print_outcome(outcome)
        if result is not None:
            found.setdefault(check.name, {})[check.backend] = result

    with tempfile.TemporaryDirectory(prefix="sae-oracle-gpu-") as name:
        folder = Path(name)
        alone: list[Check] = []
        together: list[Check] = []
        for backend in arguments.backends.split(","):
            reason = missing("keras", backend)
            if reason:
                outcomes.append(Outcome(f"everything on {backend}", "skipped", 0.0, reason))
                continue
            alone += timings(backend, device, arguments.quick, folder)
            together += proofs(backend, device, arguments.quick, folder)
        together.sort(key=lambda check: check.part == "tests")  # the others first
        logs = {
            id(c): folder / f"{i}-{c.backend}-{c.part}.log" for i, c in enumerate(alone + together)
        }
        for check in alone:
            if check.part in chosen:
                take(check, *run(check, device, logs[id(check)], end))
        with ThreadPoolExecutor(max_workers=arguments.processes) as pool:
            futures = [
                (check, pool.submit(run, check, device, logs[id(check)], end))
                for check in together
                if check.part in chosen
                and (check.part != "tests" or re.search(arguments.tests, check.name))
            ]
            for check, future in futures:
                take(check, *future.result())
        now = datetime.datetime.now(datetime.UTC)
        stem = f"{now:%Y-%m-%d-%H%M}-checks-{device}"
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        if failed:
            kept = results / f"{stem}-logs.zip"
            shutil.make_archive(str(kept.with_suffix("")), "zip", folder)
            print(f"Logs: {kept}")
    counts = Counter(outcome.status for outcome in outcomes)
    report = {
        "kind": "sae-oracle checks",
        "date": now.isoformat(timespec="seconds"),
        "device": device,
        "quick": arguments.quick,
        "gpu": driver() if device == "gpu" else None,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": round(arguments.limit - (end - time.monotonic()), 1),
        "counts": dict(counts),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "found": found,
    }
    path = results / f"{stem}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_accuracy(found.get("accuracy", {}))
    for outcome in failed:
        print_outcome(outcome)
    without = sum("no GPU" in outcome.detail for outcome in outcomes)
    print(
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped "
        f"({without} for: no GPU), in {report['seconds']:.0f} s. Written: {path}"
    )
    if counts["failed"]:
        return 1
    return 0 if counts["passed"] else 2


def print_outcome(outcome: Outcome) -> None:
    """Print one line, as soon as it is known."""
    print(
        f"{outcome.status:8}{outcome.name:50}{outcome.seconds:7.1f} s  {outcome.detail}", flush=True
    )


def print_accuracy(accuracy: dict[str, Any]) -> None:
    """Print what each precision of the matrix products costs."""
    for backend, found in accuracy.items():
        print(f"\n{backend} on {found['device']}: relative error (error / bound for full float32)")
        quantities = list(dict.fromkeys(row["quantity"] for row in found["rows"]))
        print(f"{'':20}" + "".join(f"{quantity:>26}" for quantity in quantities))
        for setting in dict.fromkeys(row["setting"] for row in found["rows"]):
            cells = [
                f"{row['relative_error']:.1e} ({row['worst']:.2g})"
                for row in found["rows"]
                if row["setting"] == setting
            ]
            print(f"{setting:20}" + "".join(f"{cell:>26}" for cell in cells))
    print()


if __name__ == "__main__":
    sys.exit(main())
