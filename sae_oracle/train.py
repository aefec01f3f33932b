"""`sae-oracle train`: the notes' training from the shell, on one backend."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import TextColumn

from sae_oracle.files import (
    READY,
    ResultFolder,
    first_line,
    for_programs,
    visible,
    write_each,
    write_result,
)
from sae_oracle.options import (
    add_json,
    add_quiet,
    file_name,
    memory,
    problem_with_number,
    seconds,
)
from sae_oracle.pictures import feature_figure, png
from sae_oracle.processes import ERROR, INTERRUPTION, progress_on, say_problem, signal_name
from sae_oracle.samples import Preprocessing, as_npy, read_samples

BUILT_IN = ("patches", "digits")

FILES = ("model.keras", "history.json", "features.png")

SCHEMA_VERSION = 1
"""Of the JSON of `train`: it changes when a name goes or means something else."""

CHECKPOINT = "checkpoint.npz"
"""What a training that was killed or interrupted can go on from; one that has ended leaves none."""

LARGEST_SEED = 2**32 - 2
"""JAX's are 32 bits, and the second kernel has the next one."""

BYTES_PER_WEIGHT = 240
"""What L-BFGS needs at least: 25 vectors of SciPy's in float64, and copies of the weights."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `sae-oracle train` takes, with the defaults of the notes' exercise."""
    parser.add_argument(
        "--data",
        default="patches",
        metavar="patches|digits|FILE",
        help="10,000 natural image patches, handwritten digits, or a matrix, a row a sample, in a "
        ".npy, .npz or .csv file",
    )
    parser.add_argument("--key", metavar="NAME", help="which array of a .npz file")
    parser.add_argument(
        "--validation",
        metavar="FILE",
        help="samples that are not trained on, whose cost is computed after each iteration",
    )
    parser.add_argument(
        "--preprocess",
        choices=("none", "standardize", "rescale"),
        default="none",
        help="of each column: to mean 0 and deviation 1, or to 0.1 ... 0.9; kept beside the model",
    )
    parser.add_argument("--validation-key", metavar="NAME", help="as --key, of --validation")
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
        "--out",
        type=file_name,
        default=Path("trained"),
        metavar="DIR",
        help="made if it is missing (default: trained)",
    )
    add_json(parser, "what is printed at the end")
    add_quiet(parser)
    parser.add_argument(
        "--time-limit",
        type=seconds,
        metavar="SECONDS",
        help="end after so long, with the best weights seen (default: never)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="write the best weights and the history this often (default: 30)",
    )
    parser.add_argument(
        "--checkpoint-iterations",
        type=int,
        default=50,
        metavar="COUNT",
        help="or after so many iterations, whichever is first (default: 50)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint of a training into --out that was killed or interrupted; "
        "--iterations counts those that it has",
    )


def problem_with(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments, before any work is done; `None`: nothing."""
    for option, value, allowed in (
        ("--hidden", arguments.hidden, {"low": 1}),
        ("--iterations", arguments.iterations, {"low": 1, "high": 2**63 - 1}),
        ("--checkpoint-iterations", arguments.checkpoint_iterations, {"low": 1}),
        ("--seed", arguments.seed, {"low": 0, "high": LARGEST_SEED}),
        ("--rho", arguments.rho, {"low": 0.0, "high": 1.0, "is_open": True}),
        ("--beta", arguments.beta, {"low": 0.0}),
        ("--weight-decay", arguments.weight_decay, {"low": 0.0}),
    ):
        problem = problem_with_number(option, value, **allowed)
        if problem is not None:
            return problem
    try:
        if arguments.out.exists() and not arguments.out.is_dir():
            return f"--out must be a folder. {visible(arguments.out)} is none."
    except (OSError, RuntimeError, ValueError) as error:
        return f"--out cannot be written: {visible(str(arguments.out)[:300])}: {first_line(error)}"
    if arguments.data in BUILT_IN and arguments.key is not None:
        return f"--key names an array of a .npz file. --data is {arguments.data}."
    if arguments.validation is None and arguments.validation_key is not None:
        return "--validation-key names an array of --validation, which is missing."
    if arguments.data in BUILT_IN and arguments.preprocess != "none":
        return f"--preprocess is for files. --data is {arguments.data}, which is prepared."
    return None


def samples_of(arguments: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Return what is in the files of `--data` and `--validation`, by the name of the option.

    Raises:
        ValueError: If it cannot be trained on: what is wrong, in a sentence that begins with the
            option.
    """
    found: dict[str, NDArray[Any]] = {}
    inputs = 64
    prepare = Preprocessing.fitted("none", np.empty((0, 0)))
    for option, name, key in (
        ("--data", arguments.data, arguments.key),
        ("--validation", arguments.validation, arguments.validation_key),
    ):
        if name is None or (option == "--data" and name in BUILT_IN):
            continue
        try:
            x = read_samples(Path(name), key)
            if option == "--data":
                prepare, inputs = Preprocessing.fitted(arguments.preprocess, x), x.shape[1]
            if x.shape[1] != inputs:
                raise ValueError(
                    f"{name} must have as many columns as --data, {inputs}. It has {x.shape[1]}."
                )
            _check_range(name, prepare(x), arguments.output_activation)
        except (OSError, ValueError) as error:
            raise ValueError(f"{option}: {error}") from error
        found[option] = x
    need = BYTES_PER_WEIGHT * (2 * inputs + 1) * arguments.hidden
    if need > memory():
        gibibytes = f"{need // 2**30:,}" if need < 2**100 else "more than 2^70"
        raise ValueError(
            f"--hidden must fit into memory. With {inputs} inputs {arguments.hidden} hidden units "
            f"take {gibibytes} GiB at least, and there are {memory() / 2**30:,.1f} GiB."
        )
    return found


def _check_range(name: str, x: NDArray[Any], output_activation: str) -> None:
    low, high = float(x.min()), float(x.max())
    if output_activation == "sigmoid" and not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"{name} has values from {low:.4g} to {high:.4g}, and a sigmoid output reaches (0, 1) "
            "only: rescale the data (--preprocess rescale), or use --output-activation linear."
        )


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
        The exit status: 0 trained; 1 the cost or a gradient was not finite, 2 bad arguments, or
        this machine could not, 70 a mistake of ours (nothing is written); 128 + n ended by signal
        n (the best weights seen are written).
    """
    problem = problem_with(arguments)
    if problem is not None:
        return _fail(console, problem)
    try:
        samples = samples_of(arguments)
    except ValueError as error:
        return _fail(console, visible(error))
    try:
        out = Path(os.path.abspath(arguments.out))
        with ResultFolder(out, (*FILES, CHECKPOINT)) as results:
            has_checkpoint = (out / CHECKPOINT).is_file()
            if results.has_finished_another:
                console.print(
                    f"Saved what an earlier training had left in {visible(arguments.out)}."
                )
                if arguments.resume and not has_checkpoint:  # it had ended
                    text = (out / "history.json").read_text(encoding="utf-8")
                    return _written(arguments, json.loads(text), 0, console)
            if arguments.resume and not has_checkpoint:
                return _fail(console, f"--resume needs {visible(arguments.out / CHECKPOINT)}.")
            if has_checkpoint and not arguments.resume:
                console.print(
                    f"{visible(arguments.out / CHECKPOINT)} is of an earlier training, which this "
                    "one replaces. (--resume goes on from it.)"
                )
            if arguments.resume:
                console.print(
                    f"Going on from {visible(arguments.out / CHECKPOINT)}. L-BFGS has forgotten "
                    "its curvature: another way than without the interruption."
                )
            # From here on a signal ends the training, and no signal ends the saving.
            with INTERRUPTION.deferred():
                files = {
                    option: as_npy(
                        x, Path(vars(arguments)[option[2:]]), results.path / f"{option[2:]}.npy"
                    )
                    for option, x in samples.items()
                }
                result = _run(arguments, backend, run, console, results.path, files)
                for option in files:  # no part of the result
                    (results.path / f"{option[2:]}.npy").unlink(missing_ok=True)
                picture = _draw(results.path) if result["kind"] == "result" else None
                if result["kind"] == "result":
                    results.commit()
    except BlockingIOError:
        name = visible(arguments.out)
        return _fail(console, f"Another training writes to --out {name}: wait for it to end.")
    except (OSError, RuntimeError, ValueError) as error:
        name = visible(str(arguments.out)[:300])
        problem = f"--out cannot be written: {name}: {visible(first_line(error))}"
        if os.path.isdir(arguments.out / READY):
            problem += f". The result is in {visible(arguments.out / READY)}."
        return _fail(console, problem)
    if result["kind"] != "result":
        _fail(console, visible(result["error"]))
        if (out / CHECKPOINT).is_file():
            words = f"{visible(arguments.out / CHECKPOINT)} is there: --resume goes on from it."
            say_problem(console, words)
        status = INTERRUPTION.status or int(result.get("status", 1))
        return _written(arguments, {"error": result["error"]}, status, console)
    status = INTERRUPTION.status
    if INTERRUPTION.number is None and result["message"] == "interrupted":
        status = 130  # the process was asked, and not we
    console.quiet = arguments.quiet and status == 0
    _print_result(result, arguments.out, console, picture)
    return _written(arguments, result, status, console)


def _written(
    arguments: argparse.Namespace, result: Mapping[str, Any], status: int, console: Console
) -> int:
    """Write what a program wants to know, if it does; return the exit status."""
    if arguments.json is None:
        return status
    left_out = ("kind", "history", "preprocessing")  # history.json has them
    found = {name: value for name, value in result.items() if name not in left_out}
    files = [str(arguments.out / name) for name in (*FILES, CHECKPOINT)]
    found |= {"status": status, "files": [file for file in files if os.path.isfile(file)]}
    text = for_programs(SCHEMA_VERSION, found)
    problems = write_each({arguments.json: partial(write_result, content=text)})
    for problem in problems.values():
        say_problem(console, f"{ERROR} {problem}")
    return 2 if problems else status


def _fail(console: Console, problem: str) -> int:
    say_problem(console, f"{ERROR} {problem}")
    return 2


def _run(
    arguments: argparse.Namespace,
    backend: str,
    run: Callable[..., dict[str, Any]],
    console: Console,
    folder: Path,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    data = arguments.data if arguments.data in BUILT_IN else os.path.abspath(arguments.data)
    options = {
        "--data": data,
        "--hidden": arguments.hidden,
        "--rho": arguments.rho,
        "--beta": arguments.beta,
        "--weight-decay": arguments.weight_decay,
        "--output-activation": arguments.output_activation,
        "--iterations": arguments.iterations,
        "--seed": arguments.seed,
        "--preprocess": arguments.preprocess,
        "--folder": folder,
        "--checkpoint": folder.parent / CHECKPOINT,
        "--checkpoint-seconds": arguments.checkpoint_seconds,
        "--checkpoint-iterations": arguments.checkpoint_iterations,
    }
    for option, of_worker in (("--data", "--samples"), ("--validation", "--validation")):
        if option in files:
            options[of_worker] = files[option]
    flags = ["--resume"] if arguments.resume else []
    with progress_on(console, TextColumn("{task.fields[terms]}")) as progress:
        task = progress.add_task(backend, total=arguments.iterations, terms="")

        def on_message(message: dict[str, Any]) -> None:
            if message["kind"] == "step":
                terms = " ".join(f"{k}={v:.4g}" for k, v in message["terms"].items())
                progress.update(task, completed=message["done"], terms=terms)

        return run(
            "sae_oracle.workers.train",
            [*(f"{option}={value}" for option, value in options.items()), *flags],
            backend,
            arguments.device,
            on_message,
            time_limit=arguments.time_limit,
            passes_interrupts=True,
        )


def _draw(folder: Path) -> str | None:
    """Draw the features; return why there is no picture. A model without one is a model."""
    try:
        kernel = np.load(folder / "kernel.npy")
        figure = feature_figure({f"{len(kernel.T)} units": kernel})
        (folder / "features.png").write_bytes(png(figure))
    except Exception as error:
        (folder / "features.png").unlink(missing_ok=True)
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def _print_result(
    result: dict[str, Any], out: Path, console: Console, no_picture: str | None
) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    cost, rho_hat = result["cost"], result["mean_activations"]
    if result["message"] in ("interrupted", "time limit"):
        by = "" if INTERRUPTION.number is None else f" by {signal_name(INTERRUPTION.number)}"
        if result["message"] == "time limit":
            by = " by --time-limit"
        say(
            f"[bold]Interrupted[/] after {result['iterations']} iterations{by}: the model has the "
            "best weights seen."
        )
    say(
        f"cost {cost['total']:.6g} = reconstruction {cost['reconstruction']:.6g} + weight decay "
        f"{cost['weight_decay']:.6g} + sparsity {cost['sparsity']:.6g}"
    )
    if "validation" in result:
        say(f"validation cost {result['validation']['total']:.6g}")
    say(
        f"mean activations from {min(rho_hat):.4g} to {max(rho_hat):.4g} "
        f"(rho = {result['settings']['rho']:g})"
    )
    # keras.json may ask for another dtype than everybody's.
    dtype = "" if result["dtype"] == "float32" else f" in {result['dtype']}"
    say(
        f"{result['iterations']} iterations, {result['evaluations']} evaluations, "
        f"{result['seconds']} s on {result['backend']}{dtype} ({visible(result['message'])})"
    )
    written = [file for file in FILES if no_picture is None or file != "features.png"]
    say(f"Wrote {', '.join(visible(out / file) for file in written)}")
    if no_picture is not None:
        say_problem(console, f"Wrote no {visible(out / 'features.png')}: {visible(no_picture)}")
