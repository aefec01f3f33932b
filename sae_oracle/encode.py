"""`sae-oracle encode`: the code of raw samples, by a model that `sae-oracle train` has written."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sae_oracle.files import first_line, is_stream, problem_with_file, shown, write_result
from sae_oracle.options import file_name
from sae_oracle.processes import INTERRUPTION
from sae_oracle.samples import preprocessing_beside, read_samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `sae-oracle encode` takes."""
    parser.add_argument("model", type=file_name, help="the --out of a training, or its model.keras")
    parser.add_argument(
        "--data", type=file_name, required=True, metavar="FILE", help="as `train` takes; raw"
    )
    parser.add_argument("--key", metavar="NAME", help="which array of a .npz file")
    parser.add_argument(
        "--out",
        type=file_name,
        required=True,
        metavar="FILE",
        help=".npy, or .csv: a row a sample, a column a hidden unit",
    )


def encode(
    arguments: argparse.Namespace,
    backend: str,
    run: Callable[..., dict[str, Any]],
    console: Console,
) -> int:
    """Encode on one backend and write the code; return the exit status.

    Args:
        arguments: Those of the command.
        backend: An installed backend.
        run: `sae_oracle.processes.run_backend`.
        console: Where to print.
    """

    def fail(problem: str) -> int:
        console.print(f"[bold red]Error:[/] {problem}", highlight=False, soft_wrap=True)
        return 2

    out: Path = arguments.out
    model: Path = arguments.model / "model.keras" if arguments.model.is_dir() else arguments.model
    if out.suffix.lower() not in (".npy", ".csv") and not is_stream(out):
        return fail(f"--out must end in .npy or .csv. Received {shown(out)}")
    problem = problem_with_file("--out", out)
    if problem is not None:
        return fail(problem)
    try:
        if not model.is_file():
            return fail(f"MODEL must be the folder of a training or its model. No {shown(model)}")
        preprocessing_beside(model, read_samples(arguments.data, arguments.key).shape[1])
    except (OSError, ValueError) as error:
        return fail(shown(error))
    with tempfile.TemporaryDirectory(prefix="sae-oracle-") as folder:
        code = Path(folder) / "code.npy"
        options = [f"--model={os.path.abspath(model)}", f"--data={os.path.abspath(arguments.data)}"]
        options += [f"--into={code}"]
        options += [] if arguments.key is None else [f"--key={arguments.key}"]
        result = run(
            "sae_oracle.workers.encode", options, backend, arguments.device, lambda message: None
        )
        if result["kind"] != "result":
            fail(shown(result["error"]))
            return INTERRUPTION.status or int(result.get("status", 1))
        content: str | bytes = code.read_bytes()
        if out.suffix.lower() == ".csv":
            buffer, numbers = io.StringIO(), np.load(code)
            # As many digits as give the same number back.
            digits = 9 if numbers.dtype.itemsize <= 4 else 17
            np.savetxt(buffer, numbers, fmt=f"%.{digits}g", delimiter=",")
            content = buffer.getvalue()
    try:
        write_result(out, content)
    except OSError as error:
        return fail(f"--out cannot be written: {shown(out)}: {shown(first_line(error))}")
    console.print(f"Wrote {shown(out)}, {result['shape']}", highlight=False, soft_wrap=True)
    return 0
