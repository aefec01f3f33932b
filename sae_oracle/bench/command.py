"""`sae-oracle bench`: its arguments, its children, its files and its exit status."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_oracle.bench import tables
from sae_oracle.bench.sizes import NAMES
from sae_oracle.processes import (
    TRAINING_BACKENDS,
    installed,
    moving,
    problem_with,
    progress_on,
    write_atomically,
)

RunBackend = Callable[..., dict[str, Any]]


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser to those of `sae-oracle`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="how much longer a training step takes because of the penalty",
        description="Time training steps with and without the penalty, in pairs, beside equal "
        "steps as a control, the penalty as it is usually written, Keras's L2, and the same step "
        "without Keras. Exit status: 0 measured, 1 something failed, 2 bad arguments or nothing "
        "to measure (no backend, no GPU).",
    )
    parser.add_argument("--backend", choices=(*TRAINING_BACKENDS, "all"), default="all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=(*NAMES, "all"), default="mnist")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (.svg, .png)")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="compare with an earlier --json"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="begin no new round of a size after so long, on each backend (default: 90)",
    )
    return parser


def bench(
    arguments: argparse.Namespace,
    run_backend: RunBackend,
    console: Console,
) -> int:
    """Measure one backend after the other; print, write, compare; return the exit status."""
    names = TRAINING_BACKENDS if arguments.backend == "all" else (arguments.backend,)
    problem = problem_with((arguments.json, arguments.plot), names)
    if problem is not None:
        console.print(problem)
        return 2
    if arguments.time_limit <= 0:
        console.print(
            f"[bold red]`--time-limit` must be positive.[/] Received: {arguments.time_limit}"
        )
        return 2
    earlier = None
    if arguments.compare is not None:
        try:
            earlier = tables.load(arguments.compare)
        except (OSError, ValueError) as error:
            console.print(f"[bold red]Not a result of sae-oracle bench:[/] {error}")
            return 2
    sizes = NAMES if arguments.size == "all" else (arguments.size,)
    found = {}
    with progress_on(console) as progress:
        for name in names:  # one at a time: they would disturb each other
            if not installed(name):
                found[name] = {"kind": "absent"}
                continue
            task = progress.add_task(name, total=None)
            found[name] = run_backend(
                "sae_oracle.bench.measure",
                ["--sizes", ",".join(sizes), "--time-limit", str(arguments.time_limit)],
                name,
                arguments.device,
                moving(progress, task),
                # Building and compiling come on top of the rounds.
                900.0 + 5.0 * arguments.time_limit * len(sizes),
            )
    results = {
        "kind": "sae-oracle bench",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": arguments.device,
        "machine": machine(),
        "backends": found,
    }
    tables.print_results(results, console)
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(results, indent=1) + "\n")
        console.print(f"Written: {arguments.json}")
    if arguments.plot is not None:
        from sae_oracle.bench import plots

        plots.draw_ratios(results, arguments.plot)
        console.print(f"Drawn: {arguments.plot}")
    if earlier is not None:
        tables.print_comparison(earlier, results, console)
    kinds = {result["kind"] for result in found.values()}
    if "error" in kinds:
        without_gpu = [r for r in found.values() if r.get("error", "").startswith("no GPU")]
        failed = [r for r in found.values() if r["kind"] == "error"]
        return 2 if len(without_gpu) == len(failed) and "result" not in kinds else 1
    return 0


def machine() -> dict[str, Any]:
    """Return what the timings depend on: processor, cores, system, and how busy it was."""
    processor = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    except OSError:
        pass
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        # Processes that wanted a core over the last five minutes, at the end of the run.
        "load": round(os.getloadavg()[1], 2) if hasattr(os, "getloadavg") else None,
    }
