"""All GPU checks in one call of under eight minutes, for a GPU that is borrowed for minutes.

    python benchmarks/gpu_checks.py                         # on a machine with a GPU
    python benchmarks/gpu_checks.py --device cpu --quick    # everything but the GPU, small

The benchmark of the wide case runs first and alone; then, side by side, `sae-oracle verify
--device gpu`, the accuracy of reduced matrix precision, and `pytest --device gpu`, on every backend
that is installed. What sees no GPU is skipped, and the skips are counted. Everything found goes to
a dated JSON file in benchmarks/results/, and the logs beside it if anything failed.

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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BACKENDS = ("jax", "torch", "tensorflow")
LIMIT = 460.0
"""Seconds for everything: under eight minutes."""


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


def environment() -> dict[str, str]:
    """Return an environment in which several frameworks share one GPU, and none is chosen."""
    return {
        **{name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(
    name: str, arguments: Sequence[str], log: Path, end: float, backend: str = ""
) -> tuple[Outcome, str]:
    """Run `python ARGUMENTS` until the common end; return what became of it, and its output."""
    started = time.perf_counter()
    variables = environment() | ({"KERAS_BACKEND": backend} if backend else {})
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, end - time.monotonic()),
        )
        output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        code = -1
    log.write_text(output, encoding="utf-8")
    seconds = round(time.perf_counter() - started, 1)
    last = [line for line in output.strip().splitlines() if line.strip()][-1:]
    detail = last[0][-300:] if last else ""
    if code == -1:
        return Outcome(name, "failed", seconds, f"no end in time; last: {detail}"), output
    if code != 0 and re.search(r"no GPU: \w+ sees none", output):
        return Outcome(name, "skipped", seconds, "no GPU"), output
    return Outcome(name, "failed" if code else "passed", seconds, detail), output


def last_result(output: str) -> dict[str, Any] | None:
    """Return the last JSON message of a child that is a result."""
    for line in reversed(output.splitlines()):
        if line.startswith('{"kind": "result"'):
            return dict(json.loads(line))
    return None


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


def check_tests(output: str, outcome: Outcome, device: str) -> Outcome:
    """Count what pytest skipped for want of a GPU; nothing but skips is a skip."""
    lines = re.findall(r"backend (\w+): (\d+) passed, (\d+) failed, (\d+) skipped", output)
    outcome.detail = "; ".join(f"{b}: {p} passed, {f} failed, {s} skipped" for b, p, f, s in lines)
    if device == "gpu" and outcome.status == "passed" and not any(int(p) for _, p, _, _ in lines):
        outcome.status = "skipped"
        outcome.detail = f"no GPU ({outcome.detail})"
    return outcome


def main() -> int:
    """Run the checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, one test file")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    device, results = arguments.device, arguments.results
    if not results.is_dir():
        parser.error(f"no such folder: {results}")
    names = arguments.backends.split(",")
    end = time.monotonic() + arguments.limit
    outcomes: list[Outcome] = []
    accuracy: dict[str, Any] = {}
    bench: dict[str, Any] = {}
    backends = []
    for name in names:
        reason = missing("keras", name)
        if reason:
            outcomes.append(Outcome(f"everything on {name}", "skipped", 0.0, reason))
        else:
            backends.append(name)
    with tempfile.TemporaryDirectory(prefix="sae-oracle-gpu-") as folder:
        logs = Path(folder)
        size = "small" if arguments.quick else "wide"
        seconds = "2" if arguments.quick else "20"
        share = 0.6 / max(len(backends), 1) * arguments.limit
        for name in backends:  # alone, one after the other: these are timings
            file = logs / f"bench-{name}.json"
            command = f"-m sae_oracle bench --backend {name} --device {device} --size {size}"
            outcome, _ = run(
                f"bench {size}, {name}",
                [*command.split(), "--time-limit", seconds, "--json", str(file)],
                logs / f"bench-{name}.log",
                min(end, time.monotonic() + share),
            )
            outcomes.append(outcome)
            if file.exists():
                bench[name] = json.loads(file.read_text(encoding="utf-8"))
            print_outcome(outcome)
        checks: list[tuple[str, list[str], str]] = []
        for name in backends:
            checks.append(
                (f"accuracy, {name}", ["-m", "sae_oracle.bench.accuracy", "--device", device], name)
            )
            command = f"-m sae_oracle verify --backend {name} --device {device}"
            checks.append((f"verify, {name}", command.split(), ""))
        reason = missing("pytest", "hypothesis", "mpmath")
        if reason:
            outcomes.append(Outcome("pytest", "skipped", 0.0, reason))
        elif backends:
            command = f"-m pytest -q -p no:cacheprovider --backends {','.join(backends)}"
            chosen = (
                "tests/keras_impl/test_custom_gradients.py"
                if arguments.quick
                else "tests/keras_impl"
            )
            checks.append(("pytest", [*command.split(), "--device", device, chosen], ""))
        with ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) // 2)) as pool:
            futures = {
                name: pool.submit(run, name, command, logs / f"{name}.log", end, backend)
                for name, command, backend in reversed(checks)  # the longest first
            }
            for name, future in futures.items():
                outcome, output = future.result()
                if name == "pytest":
                    outcome = check_tests(output, outcome, device)
                if name.startswith("accuracy"):
                    found = last_result(output)
                    if found is not None:
                        accuracy[found["backend"]] = found
                        outcome.detail = f"{len(found['rows'])} rows"
                outcomes.append(outcome)
                print_outcome(outcome)
        now = datetime.datetime.now(datetime.UTC)
        stem = f"{now:%Y-%m-%d-%H%M}-checks-{device}"
        if any(outcome.status == "failed" for outcome in outcomes):
            kept = results / f"{stem}-logs"
            kept.mkdir()
            for log in logs.glob("*.log"):
                (kept / log.name.replace(", ", "-")).write_bytes(log.read_bytes())
            print(f"Logs: {kept}")
    print_accuracy(accuracy)
    counts = Counter(outcome.status for outcome in outcomes)
    report = {
        "kind": "sae-oracle checks",
        "date": now.isoformat(timespec="seconds"),
        "device": device,
        "quick": arguments.quick,
        "gpu": driver() if device == "gpu" else None,
        "python": platform.python_version(),
        "seconds": round(arguments.limit - (end - time.monotonic()), 1),
        "counts": dict(counts),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "accuracy": accuracy,
        "bench": bench,
    }
    path = results / f"{stem}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
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
        f"{outcome.status:8}{outcome.name:24}{outcome.seconds:7.1f} s  {outcome.detail}", flush=True
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
