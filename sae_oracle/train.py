"""`sae-oracle train`: the notes' training from the shell, on one backend."""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import TextColumn

from reference.validation import non_negative, sparsity_target
from sae_oracle.pictures import feature_figure, write_png
from sae_oracle.processes import progress_on

BUILT_IN = ("patches", "digits")

FILES = ("model.keras", "history.json", "features.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `sae-oracle train` takes, with the defaults of the notes' exercise."""
    parser.add_argument(
        "--data",
        default="patches",
        metavar="patches|digits|FILE.npy",
        help="10,000 natural image patches, handwritten digits, or a matrix, a row a sample",
    )
    parser.add_argument("--hidden", type=int, default=25, help="hidden units (default: 25)")
    parser.add_argument("--rho", type=float, default=0.01, help="ρ (default: 0.01)")
    parser.add_argument("--beta", type=float, default=3.0, help="β (default: 3)")
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="λ (default: 1e-4)")
    parser.add_argument(
        "--output-activation",
        choices=("sigmoid", "linear"),
        default="sigmoid",
        help="linear: the linear decoder, for data outside [0, 1]",
    )
    parser.add_argument("--iterations", type=int, default=400, help="of L-BFGS (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("trained"), metavar="DIR", help="default: trained"
    )


def problem_with(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments, before any work is done; `None`: nothing."""
    for name in ("hidden", "iterations"):
        if getattr(arguments, name) < 1:
            return f"--{name} must be positive. Received {getattr(arguments, name)}."
    try:
        sparsity_target(arguments.rho)
        non_negative("beta", arguments.beta)
        non_negative("weight_decay", arguments.weight_decay)
    except ValueError as error:
        return str(error)
    if not arguments.out.resolve().parent.is_dir():
        return f"No such folder: {arguments.out.resolve().parent}"
    if arguments.out.exists() and not arguments.out.is_dir():
        return f"--out must be a folder. {arguments.out} is none."
    if arguments.data in BUILT_IN:
        return None
    return _problem_with_file(Path(arguments.data), arguments.output_activation)


def _problem_with_file(path: Path, output_activation: str) -> str | None:
    if not path.is_file():
        return f"--data must be {', '.join(BUILT_IN)} or a .npy file. No such file: {path}"
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        return f"{path} is no .npy file of numbers: {error}"
    if not isinstance(x, np.ndarray):
        return f"{path} must hold one array. It is an archive of several."
    if x.dtype.kind not in "fiu":
        return f"{path} must hold real numbers. It holds {x.dtype}."
    if x.ndim != 2 or 0 in x.shape:
        return f"{path} must hold a matrix, a row a sample. It has shape {x.shape}."
    low, high = np.inf, -np.inf
    for start in range(0, len(x), max(1, 2**20 // x.shape[1])):
        rows = np.asarray(x[start : start + max(1, 2**20 // x.shape[1])])
        if not np.all(np.isfinite(rows)):
            row = start + int(np.argmin(np.all(np.isfinite(rows), axis=1)))
            return f"{path} must hold finite numbers. Row {row} does not."
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    if output_activation == "sigmoid" and not (low >= 0.0 and high <= 1.0):
        return (
            f"{path} has values from {low:.4g} to {high:.4g}, and a sigmoid output reaches (0, 1) "
            "only: rescale the data, or use --output-activation linear."
        )
    return None


def train(
    arguments: argparse.Namespace,
    backend: str,
    run: Callable[..., dict[str, Any]],
    console: Console,
) -> int:
    """Train on one backend and write the model, its history and a picture.

    Args:
        arguments: Those of the command.
        backend: An installed backend with gradients.
        run: `sae_oracle.processes.run_backend`.
        console: Where to print.

    Returns:
        The exit status: 0 trained, 1 failed (nothing is written), 2 bad arguments (nothing is
        done), 130 interrupted (the best weights seen are written).
    """
    problem = problem_with(arguments)
    if problem is not None:
        console.print(f"[bold red]Error:[/] {problem}", highlight=False, soft_wrap=True)
        return 2
    data = arguments.data if arguments.data in BUILT_IN else str(Path(arguments.data).resolve())
    out = arguments.out.resolve()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".sae-oracle-train-") as name:
        folder = Path(name)
        options = {
            "--data": data,
            "--hidden": arguments.hidden,
            "--rho": arguments.rho,
            "--beta": arguments.beta,
            "--weight-decay": arguments.weight_decay,
            "--output-activation": arguments.output_activation,
            "--iterations": arguments.iterations,
            "--seed": arguments.seed,
            "--folder": folder,
        }
        with progress_on(console, TextColumn("{task.fields[terms]}")) as progress:
            task = progress.add_task(backend, total=arguments.iterations, terms="")

            def on_message(message: dict[str, Any]) -> None:
                if message["kind"] == "step":
                    terms = " ".join(f"{k}={v:.4g}" for k, v in message["terms"].items())
                    progress.update(task, completed=message["done"], terms=terms)

            result = run(
                "sae_oracle.workers.train",
                [f"{option}={value}" for option, value in options.items()],
                backend,
                arguments.device,
                on_message,
                time_limit=7 * 24 * 3600.0,
                passes_interrupts=True,
            )
        if result["kind"] != "result":
            console.print(f"[bold red]Error:[/] {result['error']}", highlight=False, soft_wrap=True)
            return 130 if "KeyboardInterrupt" in result["error"] else 1
        kernel = np.load(folder / "kernel.npy")
        write_png(feature_figure({f"{len(kernel.T)} units": kernel}), folder / "features.png")
        out.mkdir(exist_ok=True)
        for file in FILES:
            (folder / file).replace(out / file)
    interrupted = result["message"] == "interrupted"
    _print_result(result, arguments.out, console, interrupted)
    return 130 if interrupted else 0


def _print_result(result: dict[str, Any], out: Path, console: Console, interrupted: bool) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    cost, rho_hat = result["cost"], result["mean_activations"]
    if interrupted:
        say(
            f"[bold]Interrupted[/] after {result['iterations']} iterations: the model has the best "
            "weights seen."
        )
    say(
        f"cost {cost['total']:.6g} = reconstruction {cost['reconstruction']:.6g} + weight decay "
        f"{cost['weight_decay']:.6g} + sparsity {cost['sparsity']:.6g}"
    )
    say(
        f"mean activations from {min(rho_hat):.4g} to {max(rho_hat):.4g} "
        f"(rho = {result['settings']['rho']:g})"
    )
    say(
        f"{result['iterations']} iterations, {result['evaluations']} evaluations, "
        f"{result['seconds']} s on {result['backend']} ({result['message']})"
    )
    say(f"Wrote {', '.join(str(out / file) for file in FILES)}")
