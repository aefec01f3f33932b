"""`sae-oracle encode`: the code of raw samples, by a model that `sae-oracle train` has written."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sae_oracle.files import for_programs, is_stream, visible, write_each, write_result
from sae_oracle.options import add_json, add_quiet, file_name
from sae_oracle.processes import ERROR, INTERRUPTION, say_problem
from sae_oracle.samples import as_npy, preprocessing_beside, read_samples

SCHEMA_VERSION = 1
"""Of the JSON of `encode`: it changes when a name goes or means something else."""


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
    add_json(parser, "what was encoded")
    add_quiet(parser)


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
        say_problem(console, f"{ERROR} {problem}")
        return 2

    out: Path = arguments.out
    model: Path = arguments.model / "model.keras" if arguments.model.is_dir() else arguments.model
    if out.suffix.lower() not in (".npy", ".csv") and not is_stream(out):
        return fail(f"--out must end in .npy or .csv. Received {visible(out)}")
    with tempfile.TemporaryDirectory(prefix="sae-oracle-") as folder:
        code, data = Path(folder) / "code.npy", arguments.data
        try:
            if not model.is_file():
                problem = (
                    f"MODEL must be the folder of a training or its model. No {visible(model)}"
                )
                return fail(problem)
            x = read_samples(data, arguments.key)
            preprocessing_beside(model, x.shape[1])
            data = as_npy(x, data, Path(folder) / "samples.npy")
        except (OSError, ValueError) as error:
            return fail(visible(error))
        options = [f"--model={os.path.abspath(model)}", f"--data={data}"]
        options += [f"--into={code}"]
        result = run(
            "sae_oracle.workers.encode", options, backend, arguments.device, lambda message: None
        )
        if result["kind"] != "result":
            fail(visible(result["error"]))
            return INTERRUPTION.status or int(result.get("status", 1))
        content: str | bytes = code.read_bytes()
        if out.suffix.lower() == ".csv":
            buffer, numbers = io.StringIO(), np.load(code)
            # As many digits as give the same number back.
            digits = 9 if numbers.dtype.itemsize <= 4 else 17
            np.savetxt(buffer, numbers, fmt=f"%.{digits}g", delimiter=",")
            content = buffer.getvalue()
    files = {out: content}
    if arguments.json is not None:
        found = {name: value for name, value in result.items() if name != "kind"}
        found = {"status": 0, "backend": backend, "files": [str(out)], **found}
        files[arguments.json] = for_programs(SCHEMA_VERSION, found)
    problems = write_each({p: partial(write_result, content=text) for p, text in files.items()})
    if out not in problems:
        console.print(f"Wrote {visible(out)}, {result['shape']}", highlight=False, soft_wrap=True)
    for problem in problems.values():
        fail(problem)
    return 2 if problems else 0
