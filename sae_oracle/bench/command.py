"""`sae-oracle bench`: its arguments, its children, its files and its exit status."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_oracle.bench import tables
from sae_oracle.bench.sizes import NAMES
from sae_oracle.files import for_programs, is_stdout, visible, write_each, write_result
from sae_oracle.options import add_json, add_quiet, file_name, seconds
from sae_oracle.processes import (
    ERROR,
    TRAINING_BACKENDS,
    console_for,
    installed,
    moving,
    problem_with,
    progress_on,
    say_problem,
)

SCHEMA_VERSION = 1
"""Of the JSON that it writes: it changes when a name goes or means something else."""

RunBackend = Callable[..., dict[str, Any]]

PICTURES = (
    ".eps",
    ".jpeg",
    ".jpg",
    ".pdf",
    ".png",
    ".ps",
    ".svg",
    ".svgz",
    ".tif",
    ".tiff",
    ".webp",
)
"""What Matplotlib draws."""


def picture_name(text: str) -> Path:
    """Parse the name of a picture.

    >>> picture_name("found.svg").suffix
    '.svg'
    """
    path = file_name(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(
            f"a name that ends in {', '.join(PICTURES)} is expected, not {text!r}"
        )
    return path


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser to those of `sae-oracle`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="how much longer a training step takes because of the penalty",
        description="Time training steps with and without the penalty, in pairs, beside equal "
        "steps as a control, the penalty as it is usually written, Keras's L2, and the same step "
        "without Keras. Exit status: 0 measured, 2 bad arguments, or something could not be "
        "measured (no backend, no GPU, too little memory).",
    )
    parser.add_argument("--backend", choices=(*TRAINING_BACKENDS, "all"), default="all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=(*NAMES, "all"), default="mnist")
    add_json(parser, "everything measured")
    add_quiet(parser, "problems, and a line an answer,")
    parser.add_argument(
        "--plot", type=picture_name, metavar="FILE", help="draw the ratios (.svg, .png, .pdf)"
    )
    parser.add_argument(
        "--compare", type=file_name, metavar="FILE", help="compare with an earlier --json"
    )
    parser.add_argument(
        "--time-limit",
        type=seconds,
        default=90.0,
        metavar="SECONDS",
        help="begin no new round of a size after so long, on each backend (default: 90)",
    )
    return parser


def bench(
    arguments: argparse.Namespace,
    run_backend: RunBackend,
    console: Console | None = None,
) -> int:
    """Measure one backend after the other; write, print, compare; return the exit status."""
    if console is None:
        is_taken = is_stdout(arguments.json) or is_stdout(arguments.plot)
        console = console_for(stderr=is_taken, quiet=arguments.quiet)
    names = TRAINING_BACKENDS if arguments.backend == "all" else (arguments.backend,)
    problem = problem_with({"--json": arguments.json, "--plot": arguments.plot}, names)
    if problem is not None:
        say_problem(console, problem)
        return 2
    earlier = None
    if arguments.compare is not None:
        try:
            earlier = tables.load(arguments.compare)
        except (OSError, ValueError, RecursionError) as error:
            words = f"[bold red]Not a result of sae-oracle bench:[/] {visible(error)}"
            say_problem(console, words)
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
    files: dict[Path, Callable[[Path], None]] = {}
    if arguments.json is not None:
        files[arguments.json] = lambda path: write_result(
            path, for_programs(SCHEMA_VERSION, results)
        )
    if arguments.plot is not None:
        files[arguments.plot] = lambda path: _draw(results, path)
    problems = write_each(files)
    failed = [result for result in found.values() if result["kind"] == "error"]
    console.quiet = arguments.quiet and not failed
    tables.print_results(results, console)
    for path in files:
        console.print(f"Written: {visible(path)}") if path not in problems else None
    if earlier is not None:
        tables.print_comparison(earlier, results, console)
    console.quiet = False
    for line in tables.answers(results):
        console.print(visible(line), highlight=False, soft_wrap=True)
    for problem in problems.values():
        say_problem(console, f"{ERROR} {problem}")
    statuses = [int(result.get("status", 2)) for result in failed]
    return max([0, *statuses, *(2 for _ in problems)])


def _draw(results: dict[str, Any], path: Path) -> None:
    from sae_oracle.bench import plots  # Matplotlib takes a second

    plots.draw_ratios(results, path)


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
