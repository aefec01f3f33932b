"""Mutants of `keras_impl`: each is one mistake in the code, and some test must fail for it.

    python -m tests.mutants [--backends jax,torch] [--write]

A mutant is a piece of text in a file and what a careless hand might have written. Each is applied
to a copy of the project, and the backend tests run there until the first failure, on each backend.
`--write` records what was found in `tests/mutants.json`. The oracle's own formulas are mutated by
mutmut (`make mutants` runs both).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
SUMMARY = ROOT / "tests" / "mutants.json"
PENALTY = "tests/keras_impl/test_penalty_against_oracle.py"
MODEL = "tests/keras_impl/test_model_against_oracle.py"
OBJECTS = "tests/keras_impl/test_objects.py"


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        mistake: What is wrong, in words.
        file: Where.
        right: The text as it is; it occurs once.
        wrong: The text as it might have been.
        tests: The files whose tests should notice, the likeliest first.
    """

    mistake: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


D, R, L = "keras_impl/divergence.py", "keras_impl/regularizers.py", "keras_impl/layers.py"
M, H, C = "keras_impl/models.py", "keras_impl/losses.py", "keras_impl/conventions.py"

MUTANTS = (
    Mutant(
        "sum for the mean",
        D,
        "ops.sum(a, axis=axes) / _count(a)",
        "ops.sum(a, axis=axes)",
        (PENALTY,),
    ),
    Mutant(
        "m - 1 for m",
        D,
        "ops.sum(a, axis=axes) / _count(a)",
        "ops.sum(a, axis=axes) / (_count(a) - 1.0 + 1e-9)",
        (PENALTY,),
    ),
    Mutant(
        "mean over all elements",
        D,
        "ops.sum(a, axis=axes) / _count(a)",
        "ops.sum(a) / _count(a) / a.shape[-1] * ops.ones_like(a[(0,) * len(axes)])",
        (PENALTY,),
    ),
    Mutant(
        "first axis only", D, "axes = tuple(range(len(a.shape) - 1))", "axes = (0,)", (PENALTY,)
    ),
    Mutant(
        "ops.mean of float64",
        D,
        "ops.sum(a, axis=axes) / _count(a)",
        "ops.mean(a, axis=axes)",
        (PENALTY,),
    ),
    Mutant("mask ignored", D, "ops.where(valid, a, ops.zeros_like(a))", "a", (PENALTY,)),
    Mutant(
        "padded steps in the count",
        D,
        "count = ops.sum(ops.cast(valid, a.dtype))",
        "count = ops.sum(ops.ones_like(ops.cast(valid, a.dtype)))",
        (PENALTY,),
    ),
    Mutant(
        "mask by product",
        D,
        "ops.where(valid, a, ops.zeros_like(a))",
        "(a * ops.cast(valid, a.dtype) * 1.0001)",
        (PENALTY,),
    ),
    Mutant(
        "first half missing",
        D,
        "return ones + (1.0 - rho)",
        "return 0.0 * ones + (1.0 - rho)",
        (PENALTY,),
    ),
    Mutant(
        "second half missing",
        D,
        "return ones + (1.0 - rho) * (math.log1p(-rho) - ops.log1p(-rho_hat))",
        "return ones",
        (PENALTY,),
    ),
    Mutant(
        "KL reversed",
        D,
        "ones = rho * (math.log(rho) - ops.log(rho_hat))",
        "ones = rho_hat * (ops.log(rho_hat) - math.log(rho))",
        (PENALTY,),
    ),
    Mutant(
        "sign of a logarithm",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "math.log(rho) + ops.log(rho_hat)",
        (PENALTY,),
    ),
    Mutant(
        "entropy constant lost",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "-ops.log(rho_hat)",
        (PENALTY,),
    ),
    Mutant(
        "epsilon of 1e-7 in the logarithm",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "math.log(rho) - ops.log(rho_hat + 1e-7)",
        (PENALTY,),
    ),
    Mutant("rho off by 1e-5", D, "ones = rho * (", "ones = 1.00001 * rho * (", (PENALTY,)),
    Mutant(
        "base 2",
        D,
        "ones = rho * (math.log(rho) - ops.log(rho_hat))",
        "ones = rho * (math.log2(rho) - ops.log2(rho_hat))",
        (PENALTY,),
    ),
    Mutant(
        "clip instead of the tangent",
        D,
        "return _exact_kl_divergence(rho, r) + slope * (rho_hat - r)",
        "return _exact_kl_divergence(rho, r)",
        (PENALTY,),
    ),
    Mutant(
        "tangent of the wrong sign",
        D,
        "+ slope * (rho_hat - r)",
        "- slope * (rho_hat - r)",
        (PENALTY,),
    ),
    Mutant("slope of one half", D, "(1.0 - rho) / (1.0 - r) - rho / r", "-rho / r", (PENALTY,)),
    Mutant(
        "edge at 2 epsilon",
        D,
        "ops.clip(rho_hat, epsilon, 1.0 - epsilon)",
        "ops.clip(rho_hat, 2 * epsilon, 1.0 - epsilon)",
        (PENALTY,),
    ),
    Mutant(
        "detached",
        D,
        "r = ops.clip(rho_hat, epsilon, 1.0 - epsilon)",
        "r = ops.clip(ops.stop_gradient(rho_hat), epsilon, 1.0 - epsilon)\n    rho_hat = r",
        (PENALTY,),
    ),
    Mutant("symmetric forgotten", D, "0.5 + 0.5 * rho_hat", "rho_hat", (PENALTY,)),
    Mutant("symmetric without its half", D, "0.5 + 0.5 * rho_hat", "1.0 + rho_hat", (PENALTY,)),
    Mutant("half precision kept", D, 'else ops.cast(x, "float32")', "else x", (PENALTY,)),
    Mutant("logits: log m lost", D, "- logarithm", "- 0.0 * logarithm", (PENALTY,)),
    Mutant(
        "logits: one half twice",
        D,
        "_log_mean_exp(ops.log_sigmoid(-z), valid)",
        "_log_mean_exp(ops.log_sigmoid(z), valid)",
        (PENALTY,),
    ),
    Mutant(
        "logits: mean of logarithms",
        D,
        "ops.logsumexp(values, axis=axes) - logarithm",
        "ops.mean(values, axis=axes)",
        (PENALTY,),
    ),
    Mutant(
        "logits: mask ignored",
        D,
        "ops.where(valid, values, _LOG_OF_NOTHING * ops.ones_like(values))",
        "values",
        (PENALTY,),
    ),
    Mutant(
        "mean over units",
        R,
        "return beta * ops.sum(divergence)",
        "return beta * ops.mean(divergence)",
        (PENALTY,),
    ),
    Mutant(
        "beta ignored",
        R,
        "return beta * ops.sum(divergence)",
        "return ops.sum(divergence)",
        (PENALTY,),
    ),
    Mutant(
        "beta squared",
        R,
        "return beta * ops.sum(divergence)",
        "return beta * beta * ops.sum(divergence)",
        (PENALTY,),
    ),
    Mutant(
        "batch scaling lost", R, "        if self._multiplies:\n", "        if False:\n", (PENALTY,)
    ),
    Mutant(
        "batch scaling always",
        R,
        "        if self._multiplies:\n",
        "        if True:\n",
        (PENALTY,),
    ),
    Mutant("batch scaling by elements", R, "ops.shape(x)[0]", "ops.size(x)", (PENALTY,)),
    Mutant("config without beta", R, '            "beta": self.beta,\n', "", (OBJECTS,)),
    Mutant("decay without its half", R, "self.weight_decay / 2.0", "self.weight_decay", (MODEL,)),
    Mutant(
        "decay of absolute values",
        R,
        "ops.square(at_least_float32(x))",
        "ops.absolute(at_least_float32(x))",
        (MODEL,),
    ),
    Mutant(
        "loss without its half",
        H,
        "0.5 * ops.sum(squares, axis=axis)",
        "ops.sum(squares, axis=axis)",
        (MODEL,),
    ),
    Mutant(
        "loss averaged over features",
        H,
        "0.5 * ops.sum(squares, axis=axis)",
        "0.5 * ops.mean(squares, axis=axis)",
        (MODEL,),
    ),
    Mutant(
        "running average with 1 - momentum exchanged",
        L,
        "momentum * stored + (1.0 - momentum) * batch",
        "(1.0 - momentum) * stored + momentum * batch",
        (PENALTY,),
    ),
    Mutant(
        "running average started at zero", L, "ops.where(seen, moved, batch)", "moved", (PENALTY,)
    ),
    Mutant(
        "running average: gradient with 1 - momentum",
        L,
        "new + (batch - ops.stop_gradient(batch))",
        "new + (1.0 - momentum) * (batch - ops.stop_gradient(batch))",
        (PENALTY,),
    ),
    Mutant(
        "running average: no gradient",
        L,
        "return new + (batch - ops.stop_gradient(batch))",
        "return new",
        (PENALTY,),
    ),
    Mutant(
        "running average moves in inference",
        L,
        "        if not training:\n",
        "        if training is None:\n",
        (PENALTY,),
    ),
    Mutant("running average not stored", L, "        self.rho_hat.assign(new)\n", "", (PENALTY,)),
    Mutant(
        "mask not passed on",
        L,
        "self.penalty(inputs, training=training, mask=mask)",
        "self.penalty(inputs, training=training)",
        (PENALTY,),
    ),
    Mutant(
        "penalty added twice",
        L,
        "        self.add_loss(loss)\n",
        "        self.add_loss(loss)\n        self.add_loss(loss)\n",
        (PENALTY,),
    ),
    Mutant("last loss let go", L, "        self._loss_kept_alive = loss\n", "", (PENALTY,)),
    Mutant(
        "kernel copied for the tie",
        M,
        "return ops.transpose(self._compute(self.kernels[",
        "return ops.transpose(ops.stop_gradient(1.0 * self.kernels[",
        (MODEL,),
    ),
    Mutant(
        "wrong kernel for the tie",
        M,
        "2 * len(self.kernels) - 1 - layer",
        "layer - len(self.kernels)",
        (MODEL,),
    ),
    Mutant("tied decay ignored", M, "self.tied_decay if self.tied else 1", "1", (MODEL,)),
    Mutant("bias forgotten", M, " + self._compute(self.biases[layer])", "", (MODEL,)),
    Mutant("output penalised too", M, "if penalised and not last:", "if penalised:", (MODEL,)),
    Mutant(
        "penalty after the next activation", M, "z if penalty.from_logits else a", "z", (MODEL,)
    ),
    Mutant("float64 tanh of Keras", M, 'if name == "tanh" and', "if False and", (MODEL,)),
    Mutant("target is always x", M, "x if y is None else y", "x", (MODEL,)),
    Mutant(
        "terms exchanged",
        M,
        "(reconstruction, weight_decay, sparsity), strict",
        "(reconstruction, sparsity, weight_decay), strict",
        (MODEL,),
    ),
    Mutant(
        "metrics unweighted",
        M,
        "tracker.update_state(term, sample_weight=samples)",
        "tracker.update_state(term)",
        (MODEL,),
    ),
    Mutant(
        "reconstruction counted twice",
        M,
        "return reconstruction + super()",
        "return 2.0 * reconstruction + super()",
        (MODEL,),
    ),
    Mutant(
        "initialisation without the + 1",
        "keras_impl/initializers.py",
        "shape[0] + shape[1] + 1",
        "shape[0] + shape[1]",
        (OBJECTS,),
    ),
    Mutant(
        "units: features for features / 2",
        C,
        'scale = 2.0 / _positive_integer("features", features)\n    return KerasUnits(',
        'scale = 1.0 / _positive_integer("features", features)\n    return KerasUnits(',
        (OBJECTS,),
    ),
    Mutant(
        "units: lambda for lambda / 2",
        C,
        'non_negative("weight_decay", weight_decay) / 2.0',
        'non_negative("weight_decay", weight_decay)',
        (OBJECTS,),
    ),
)


def check_mutants() -> None:
    """Every mutant's text occurs once in its file: none has gone stale."""
    for mutant in MUTANTS:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.right)
        assert count == 1, f"{mutant.mistake!r}: {mutant.right!r} occurs {count} times"


def survives(mutant: Mutant, copy: Path, backend: str) -> bool:
    """Whether the tests pass with the mistake in."""
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutant.right, mutant.wrong), encoding="utf-8")
    try:
        for tests in mutant.tests:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests],
                cwd=copy,
                env={
                    **os.environ,
                    "KERAS_BACKEND": backend,
                    "HYPOTHESIS_PROFILE": "ci",
                    "PYTHONPATH": str(copy),
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                },
                capture_output=True,
                timeout=600,
            )
            if done.returncode != 0:
                return False
        return True
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    check_mutants()
    console = Console()
    found = {}
    with tempfile.TemporaryDirectory(prefix="sae-oracle-mutants-") as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".venv", ".git", "mutants", "*.egg-info", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for backend in arguments.backends.split(","):
            living = []
            for mutant in track(MUTANTS, description=backend, console=console):
                if survives(mutant, copy, backend):
                    living.append(mutant.mistake)
                    console.print(f"{backend}: survived: {mutant.mistake}")
            found[backend] = {"mutants": len(MUTANTS), "survived": living}
            console.print(f"{backend}: {len(MUTANTS) - len(living)} of {len(MUTANTS)} killed")
    if arguments.write:
        recorded = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
        recorded["keras_impl"] = {**recorded.get("keras_impl", {}), **found}
        SUMMARY.write_text(json.dumps(recorded, indent=1) + "\n")
    return 1 if any(result["survived"] for result in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
