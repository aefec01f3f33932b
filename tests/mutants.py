"""Mutants of `keras_impl`: each is one mistake in the code, and some test must fail for it.

    python -m tests.mutants [--backends jax,torch] [--mutmut FOLDER] [--write]

A mutant is a piece of text in a file and what a careless hand might have written. Each is applied
to a copy of the project, and the backend tests run there until the first failure, on each backend.
The oracle's own formulas are mutated by mutmut before that (`make mutants` runs both); `--mutmut`
reads what it found from the folder where it ran. `--write` records all of it in
`tests/mutants.json` and in the page `docs/mutants.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[1]
SUMMARY = ROOT / "tests" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
PENALTY = "tests/keras_impl/test_penalty_against_oracle.py"
MODEL = "tests/keras_impl/test_model_against_oracle.py"
OBJECTS = "tests/keras_impl/test_objects.py"
TRAINING = "tests/keras_impl/test_exact.py"
PENALTIES = "tests/keras_impl/test_penalty_layers.py"
TIED = "tests/keras_impl/test_tied.py"
FUSED = "tests/keras_impl/test_custom_gradients.py"
REPLICAS = "tests/keras_impl/test_replicas.py"


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        mistake: What is wrong, in words.
        file: Where.
        right: The text as it is; it occurs once.
        wrong: The text as it might have been.
        tests: The files whose tests should notice, the likeliest first.
        backends: Where the text is run at all.
    """

    mistake: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    backends: tuple[str, ...] = ("jax", "tensorflow", "torch")


D, R, L = "keras_impl/divergence.py", "keras_impl/regularizers.py", "keras_impl/layers.py"
P, ADDED = "keras_impl/backends/replicas.py", ("tensorflow", "torch")
M, H, C = "keras_impl/models.py", "keras_impl/losses.py", "keras_impl/units.py"
W, K = "keras_impl/exact/objective.py", "keras_impl/exact/chunks.py"
T, F = "keras_impl/tied.py", "keras_impl/backends/custom_gradients.py"
COMPILED = ("jax", "tensorflow")  # torch has this one written out, in custom_gradients.py

MUTANTS = (
    Mutant(
        "slope of a sum for that of a mean",
        W,
        "return [factor * slope * self.samples / count]",
        "return [factor * slope * self.samples]",
        (TRAINING,),
    ),
    Mutant(
        "tanh's half forgotten in chunks",
        W,
        "factor = penalty.beta / 2.0 if penalty.symmetric else penalty.beta",
        "factor = penalty.beta",
        (TRAINING,),
    ),
    Mutant(
        "rows that fill up are averaged too",
        W,
        "ops.where(positions, a, ops.zeros_like(a))",
        "a",
        (TRAINING,),
    ),
    Mutant(
        "the gradient of a chunk's mean, added up",
        W,
        "total += self.chunks.rows * host(part)",
        "total += host(part)",
        (TRAINING,),
    ),
    Mutant(
        "logarithms added for sums",
        W,
        "merge = np.add if len(part) == 2 else np.logaddexp",
        "merge = np.add",
        (TRAINING,),
    ),
    Mutant(
        "filled-up rows weigh",
        K,
        "valid[:count] = 1.0",
        "valid[:] = 1.0",
        (TRAINING,),
    ),
    Mutant(
        "a short last chunk is dropped",
        K,
        "for start in range(0, samples, self.rows):",
        "for start in range(0, samples - samples % self.rows, self.rows):",
        (TRAINING,),
    ),
    Mutant(
        "Ng's units without the gradient of the decay",
        W,
        "return value_and_gradients(lambda *tensors: self._weight_decay(tensors), weights)",
        "return self._weight_decay(weights), [0.0 * ops.convert_to_tensor(w) for w in weights]",
        (TRAINING,),
    ),
    Mutant(
        "sum for the mean",
        D,
        "rho_hat = total / (count if mask is None",
        "rho_hat = total / (1.0 if mask is None",
        (PENALTY,),
    ),
    Mutant(
        "m - 1 for m",
        D,
        "rho_hat = total / (count if mask is None",
        "rho_hat = total / (count - 1.0 + 1e-9 if mask is None",
        (PENALTY,),
    ),
    Mutant(
        "mean over all elements",
        D,
        "total, count = ops.sum(a, axis=axes), _count(a)",
        "total, count = ops.sum(a) / a.shape[-1] * ops.ones_like(a[(0,) * len(axes)]), _count(a)",
        (PENALTY,),
    ),
    Mutant(
        "first axis only", D, "axes = tuple(range(len(a.shape) - 1))", "axes = (0,)", (PENALTY,)
    ),
    Mutant(
        "ops.mean of float64",
        D,
        "total, count = ops.sum(a, axis=axes), _count(a)",
        "total, count = ops.mean(a, axis=axes), 1.0",
        (PENALTY,),
        ("jax", "torch"),  # TensorFlow's `ops.mean` of float64 is float64
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
        COMPILED,
    ),
    Mutant(
        "second half missing",
        D,
        "return ones + (1.0 - rho) * (math.log1p(-rho) - ops.log1p(-rho_hat))",
        "return ones",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "KL reversed",
        D,
        "ones = rho * (math.log(rho) - ops.log(rho_hat))",
        "ones = rho_hat * (ops.log(rho_hat) - math.log(rho))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "sign of a logarithm",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "math.log(rho) + ops.log(rho_hat)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "entropy constant lost",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "-ops.log(rho_hat)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "epsilon of 1e-7 in the logarithm",
        D,
        "math.log(rho) - ops.log(rho_hat)",
        "math.log(rho) - ops.log(rho_hat + 1e-7)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "rho off by 1e-5", D, "ones = rho * (", "ones = 1.00001 * rho * (", (PENALTY,), COMPILED
    ),
    Mutant(
        "base 2",
        D,
        "ones = rho * (math.log(rho) - ops.log(rho_hat))",
        "ones = rho * (math.log2(rho) - ops.log2(rho_hat))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "clip instead of the tangent",
        D,
        "return _exact_kl_divergence(rho, r) + _slope(rho, r) * (rho_hat - r)",
        "return _exact_kl_divergence(rho, r)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "tangent of the wrong sign",
        D,
        "+ _slope(rho, r) * (rho_hat - r)",
        "- _slope(rho, r) * (rho_hat - r)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "slope of one half",
        D,
        "return ((1.0 - rho) * r - rho * rest) / (r * rest)",
        "return -rho / r",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "slope with rho's own rounding",
        D,
        "return ((1.0 - rho) * r - rho * rest) / (r * rest)",
        "return (r - rho) / (r * rest)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "edge at 2 epsilon",
        D,
        "r = ops.clip(rho_hat, epsilon, 1.0 - epsilon)",
        "r = ops.clip(rho_hat, 2 * epsilon, 1.0 - epsilon)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "edge of the derivative at 2 epsilon",
        D,
        "inside = ops.clip(rho_hat, epsilon,",
        "inside = ops.clip(rho_hat, 2 * epsilon,",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "derivative without beta",
        D,
        "return beta * _slope(rho, inside)",
        "return _slope(rho, inside)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "derivative without what comes in",
        F,
        "ops.sum(derivative(*primals) * tangents[0])",
        "ops.sum(derivative(*primals))",
        (PENALTY,),
        ("jax",),
    ),
    Mutant(
        "derivative without what comes back",
        F,
        "lambda by: by * derivative(x)",
        "lambda by: derivative(x)",
        (FUSED,),
        ("tensorflow",),
    ),
    Mutant(
        "detached",
        D,
        "return with_derivative(value, derivative, rho_hat)",
        "return with_derivative(value, derivative, ops.stop_gradient(rho_hat))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant("symmetric forgotten", D, "0.5 + 0.5 * rho_hat", "rho_hat", (PENALTY,)),
    Mutant("symmetric without its half", D, "0.5 + 0.5 * rho_hat", "1.0 + rho_hat", (PENALTY,)),
    Mutant("half precision kept", D, 'else ops.cast(x, "float32")', "else x", (PENALTY,)),
    Mutant(
        "logits: log m lost",
        D,
        "(log_sum - _log(count, z.dtype) for",
        "(log_sum - 0.0 * _log(count, z.dtype) for",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: one half twice",
        D,
        "return ops.log(total) - up, ops.log(total_of_rest) - down",
        "return ops.log(total) - up, ops.log(total) - up",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: mean of logarithms",
        D,
        "total, total_of_rest = (ops.sum(s, axis=axes) for s in sigmoids)",
        "total, total_of_rest = (ops.exp(ops.mean(ops.log(s), axis=axes)) for s in sigmoids)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: mask ignored",
        D,
        "ops.where(valid, s, ops.zeros_like(s))",
        "s",
        (PENALTY,),
    ),
    Mutant(
        "logits: saturated units not moved up",
        D,
        "z + (up - down)",
        "z - down",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "logits: moved, but not back",
        D,
        "ops.log(total_of_rest) - down",
        "ops.log(total_of_rest)",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "logits: autodiff's σ(1 − σ)",
        D,
        "sigmoids_of_both_signs(z + (up - down))",
        "(ops.sigmoid(z + (up - down)), ops.sigmoid(down - up - z))",
        (PENALTY,),
    ),
    Mutant(
        "sigmoids: σ(−z) = 1 − σ(z)",
        F,
        "nearer_zero = t * nearer_one",
        "nearer_zero = 1.0 - nearer_one",
        (FUSED,),
        ("jax",),
    ),
    Mutant(
        "sigmoids: derivative of one forgotten",
        F,
        "(p, q), (change, -change)",
        "(p, q), (change, 0.0 * change)",
        (PENALTY,),
        ("jax",),
    ),
    Mutant(
        "sigmoids: derivatives added",
        F,
        "            return p * q * (by_p - by_q)\n\n        return (p, q), gradient",
        "            return p * q * (by_p + by_q)\n\n        return (p, q), gradient",
        (PENALTY,),
        ("tensorflow",),
    ),
    Mutant(
        "fused: slope without its target",
        F,
        "return (r * (1.0 - rho)).sub(rest, alpha=rho).div(r * rest)",
        "return (r * (1.0 - rho)).div(r * rest)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: slope with rho's own rounding",
        F,
        "return (r * (1.0 - rho)).sub(rest, alpha=rho).div(r * rest)",
        "return (r - rho).div(r * rest)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: clip instead of the tangent",
        F,
        ".addcmul_(slope, rho_hat.sub_(r))",
        "",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: rho off by 1e-5",
        F,
        "torch.log(r).sub_(math.log(rho)).mul_(-rho)",
        "torch.log(r).sub_(math.log(rho)).mul_(-rho * 1.00001)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: beta forgotten in the gradient",
        F,
        "(ctx.beta / ctx.rows)",
        "(1.0 / ctx.rows)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: slope of a sum for that of a mean",
        F,
        "(ctx.beta / ctx.rows)",
        "ctx.beta",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: sum for the mean",
        F,
        "rho_hat = a.sum(0).div_(len(a))",
        "rho_hat = a.sum(0)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: mean over the first axis alone",
        F,
        "ctx.beta, ctx.epsilon, ctx.rows = rho, beta, epsilon, len(a)",
        "ctx.beta, ctx.epsilon, ctx.rows = rho, beta, epsilon, len(activations)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: second derivative of a constant",
        F,
        "slope = slope_at(rho_hat.clamp(ctx.epsilon, 1.0 - ctx.epsilon), ctx.rho)",
        "pass",
        (FUSED,),
        ("torch",),
    ),
    Mutant(
        "fused logits: moved up too far",
        F,
        "(-SATURATED - z.amax(0))",
        "(-0.1 * SATURATED - z.amax(0))",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: one half of the gradient",
        F,
        ".sub_(rho * beta / total)",
        "",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused logits: not moved back",
        F,
        "ones.sub_(moved[0])",
        "ones.sub_(0.0 * moved[0])",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: units near one not looked for",
        F,
        "low.item() >= -SATURATED and high.item() <= SATURATED",
        "low.item() >= -SATURATED",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: units near zero not looked for",
        F,
        "low.item() >= -SATURATED and high.item() <= SATURATED",
        "high.item() <= SATURATED",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "mean over units",
        D,
        "return beta * ops.sum(kl_divergence(rho, rho_hat, epsilon))",
        "return beta * ops.mean(kl_divergence(rho, rho_hat, epsilon))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "beta ignored",
        D,
        "return beta * ops.sum(kl_divergence(rho, rho_hat, epsilon))",
        "return ops.sum(kl_divergence(rho, rho_hat, epsilon))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "beta squared",
        D,
        "return beta * ops.sum(kl_divergence(rho, rho_hat, epsilon))",
        "return beta * beta * ops.sum(kl_divergence(rho, rho_hat, epsilon))",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "batch scaling lost",
        R,
        "rows = ops.shape(x)[0] if self._multiplies else 1",
        "rows = 1",
        (PENALTY,),
    ),
    Mutant(
        "batch scaling always",
        R,
        "rows = ops.shape(x)[0] if self._multiplies else 1",
        "rows = ops.shape(x)[0]",
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
        "return half_sum_of_squares(difference)",
        "return 2.0 * half_sum_of_squares(difference)",
        (MODEL,),
    ),
    Mutant(
        "loss averaged over features",
        H,
        "return half_sum_of_squares(difference)",
        "return half_sum_of_squares(difference) / float(difference.shape[-1])",
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
    Mutant(
        "losses let go",
        L,
        "        self._losses_of_this_call.append(loss)\n",
        "",
        (PENALTY,),
        ("torch",),  # elsewhere the `id`s of dead tensors were not seen to come back
    ),
    Mutant(
        "a second use clears the first",
        L,
        "        if in_stateless_scope():\n            live",
        "        if False:\n            live",
        (PENALTIES,),
    ),
    Mutant(
        "masked steps counted in any penalty",
        L,
        "return self.function(ops.where(ops.expand_dims(mask, -1), a, ops.zeros_like(a)))",
        "return self.function(a)",
        (PENALTIES,),
    ),
    Mutant(
        "any penalty in the compute dtype",
        L,
        "a = at_least_float32(inputs)",
        "a = inputs",
        (PENALTIES,),
    ),
    Mutant(
        "tied kernel not transposed",
        T,
        "inputs @ ops.transpose(ops.cast(kernel, self.compute_dtype))",
        "inputs @ ops.reshape(ops.cast(kernel, self.compute_dtype), kernel.shape[::-1])",
        (TIED,),
    ),
    Mutant(
        "tied kernel's gradient stopped",
        T,
        "kernel = ops.convert_to_tensor(self._encoder.kernel)",
        "kernel = ops.stop_gradient(ops.convert_to_tensor(self._encoder.kernel))",
        (TIED,),
    ),
    Mutant(
        "tied kernel unknown to its model",
        T,
        "return [*own, kernel] if isinstance(kernel, keras.Variable) else own",
        "return own",
        (TIED,),
    ),
    Mutant(
        "tied layer without its bias",
        T,
        "outputs = outputs + ops.convert_to_tensor(self.bias)",
        "outputs = outputs + 0.0",
        (TIED,),
    ),
    Mutant(
        "tied layer without its activation",
        T,
        "return self.activation(outputs)",
        "return outputs",
        (TIED,),
    ),
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
    Mutant(
        "bias forgotten",
        M,
        "self._compute(self.biases[layer]))",
        "0.0 * self._compute(self.biases[layer]))",
        (MODEL,),
    ),
    Mutant("output penalised too", M, "if penalised and not last:", "if penalised:", (MODEL,)),
    Mutant(
        "penalty after the next activation", M, "z if penalty.from_logits else a", "z", (MODEL,)
    ),
    Mutant("float64 tanh of Keras", M, 'if name == "tanh" and', "if False and", (MODEL,), ("jax",)),
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
        "share_of_loss(reconstruction + weight_decay",
        "share_of_loss(2.0 * reconstruction + weight_decay",
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
        'scale = 2.0 / positive_integer("features", features)\n    return KerasUnits(',
        'scale = 1.0 / positive_integer("features", features)\n    return KerasUnits(',
        (OBJECTS,),
    ),
    Mutant(
        "units: lambda for lambda / 2",
        C,
        'non_negative("weight_decay", weight_decay) / 2.0',
        'non_negative("weight_decay", weight_decay)',
        (OBJECTS,),
    ),
    Mutant(
        "replicas: a mean of means",
        D,
        "sum_over_replicas(total, count, moves_state=moves_state)",
        "sum_over_replicas(total / count, 1.0, moves_state=moves_state)",
        (REPLICAS,),
        ADDED,
    ),
    Mutant("replicas: no derivative", P, "+ replicas * (total - fixed)", "", (REPLICAS,), ADDED),
    Mutant(
        "replicas: the derivative of one replica",
        P,
        "+ replicas * (total - fixed)",
        "+ (total - fixed)",
        (REPLICAS,),
        ADDED,
    ),
    Mutant(
        "replicas: an average that does not wait for others",
        L,
        "cross_replica=self.cross_replica,\n            moves_state=True",
        "cross_replica=False,\n            moves_state=True",
        (REPLICAS,),
        ADDED,
    ),
    Mutant(
        "replicas: losses of other threads",
        P,
        "layer._losses[:] = losses",
        "pass",
        (REPLICAS,),
        ("tensorflow",),
    ),
    Mutant(
        "replicas: local sums of the whole data",
        "keras_impl/exact/objective.py",
        "            totals.add_other_workers()\n",
        "            pass\n",
        (REPLICAS,),
    ),
)


def mutated(mutant: Mutant, text: str) -> str:
    """The text of the mutant's file with the mistake in it.

    Raises:
        ValueError: If the right text does not occur once: the mutant has gone stale.
    """
    count = text.count(mutant.right)
    if count != 1:
        raise ValueError(f"{mutant.mistake!r}: {mutant.right!r} occurs {count} times")
    return text.replace(mutant.right, mutant.wrong)


def check_mutants(mutants: Sequence[Mutant] = MUTANTS) -> None:
    """Every mutant is a program: not stale, it compiles, and it names nothing that is not there.

    Without that any test would kill it, and that would prove nothing.

    Raises:
        ValueError: Naming each mutant that is none.
    """
    with tempfile.TemporaryDirectory(prefix="sae-oracle-mutants-") as folder:
        files = {}
        for number, mutant in enumerate(mutants):
            text = mutated(mutant, (ROOT / mutant.file).read_text(encoding="utf-8"))
            files[f"{number}.py"] = mutant.mistake
            Path(folder, f"{number}.py").write_text(text, encoding="utf-8")
        # Syntax errors; names that are undefined, or used before they are set.
        ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--output-format=concise"]
        options = ["--target-version=py311", "--select=F821,F823", "."]
        done = subprocess.run([*ruff, *options], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        problems = re.findall(r"^(\d+\.py):\d+:\d+: (.*)$", done.stdout, re.MULTILINE)
        found = "; ".join(f"{files[file]!r}: {problem}" for file, problem in problems)
        raise ValueError(f"No programs: {found or done.stdout + done.stderr}")


# What is raised by a program that is none, and not by a mistake that somebody could make.
NO_MISTAKES = "(Syntax|Name|UnboundLocal|Import|ModuleNotFound|Attribute)Error"


def killer_of(mutant: Mutant, copy: Path, backend: str, likely: str | None) -> str | None:
    """The test that fails with the mistake in; `None`: it survives.

    Args:
        mutant: The mistake.
        copy: A copy of the project.
        backend: Where the tests run.
        likely: The test that noticed on another backend or at another time; tried first.
    """
    path = copy / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, original), encoding="utf-8")
    try:
        for tests in filter(None, (likely, *mutant.tests)):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests],
                cwd=copy,
                env={
                    **os.environ,
                    "KERAS_BACKEND": backend,
                    "HYPOTHESIS_PROFILE": "mutants",
                    "PYTHONPATH": str(copy),
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                    "OMP_NUM_THREADS": "1",
                },
                capture_output=True,
                text=True,
                timeout=900,
            )
            if done.returncode == 4 and tests == likely:
                continue  # that test is no longer there
            if done.returncode not in (0, 1):
                raise RuntimeError(f"{mutant.mistake!r}: no test ran.\n{done.stdout[-2000:]}")
            if done.returncode == 1:
                accident = re.search(f"^E +{NO_MISTAKES}.*", done.stdout, re.MULTILINE)
                if accident:
                    raise RuntimeError(f"{mutant.mistake!r} proves nothing: {accident.group(0)}")
                failed = re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.MULTILINE)
                return failed[0] if failed else tests
        return None
    finally:
        path.write_text(original, encoding="utf-8")


# Changes of the oracle that change nothing: what is in the changed line, and why.
EQUIVALENT = (
    ("strict=", "`strict=` of a `zip` whose lengths are equal: checked, or made so, lines before"),
    ("z > 0.0", "at z = 0 both branches of the sigmoid are 1/(1 + 1)"),
    ("reshape(-2,", "NumPy takes any negative length for the one it is to find"),
)


def reason_for(change: str) -> str | None:
    """Why a surviving change of the oracle is equivalent; `None`: it is not known to be."""
    for mark, reason in EQUIVALENT:
        if mark in change or (mark == "strict=" and "zip(" in change):
            return reason
    return None


def mutmut_found(folder: Path) -> dict[str, Any]:
    """What mutmut found in the oracle: counts, and each survivor's change and reason."""

    def mutmut(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "mutmut", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout

    mutmut("export-cicd-stats")
    counts = json.loads((folder / "mutants" / "mutmut-cicd-stats.json").read_text())
    survivors = []
    for line in mutmut("results").splitlines():
        name, _, state = line.strip().partition(": ")
        if state != "survived":
            continue
        changed = [
            text
            for text in mutmut("show", name).splitlines()
            if text[:1] == "+" and not text.startswith("+++")
        ]
        change = " ".join(" ".join(changed).split())
        function = name.rpartition("__mutmut_")[0].replace("x_", "").replace("xǁ", "")
        survivors.append(
            {"function": function.replace("ǁ", "."), "as": change, "reason": reason_for(change)}
        )
    return {"killed": counts["killed"], "total": counts["total"], "survived": survivors}


def page(recorded: dict[str, Any]) -> str:
    """What was found, as a page of the docs."""
    oracle, keras_impl = recorded["reference"], recorded["keras_impl"]
    lines = [
        "# Mutants",
        "",
        "Written by `make mutants`, not typed. A mutant is the code with one mistake in it; it is",
        "killed if a test fails.",
        "",
        f"**The oracle** (mutmut, every formula module of `reference/`): {oracle['killed']} of "
        f"{oracle['total']} killed, {oracle['killed'] / oracle['total']:.1%}.",
        "",
        "| survivors | as | why they are equivalent |",
        "|---|---|---|",
    ]
    grouped: dict[tuple[str, str], list[str]] = {}
    for survivor in oracle["survived"]:
        reason = survivor["reason"] or "**not known to be**"
        change = "several" if "strict=" in reason else f"`{survivor['as']}`"
        grouped.setdefault((reason, change), []).append(survivor["function"])
    for (reason, change), functions in grouped.items():
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(functions))
        lines.append(f"| {len(functions)} in {names} | {change} | {reason} |")
    lines += [
        "",
        "**`keras_impl`** (`tests/mutants.py`: mistakes that people make, each run on each "
        "backend):",
        "",
        "| backend | killed | survived | not run |",
        "|---|---|---|---|",
    ]
    for backend, found in keras_impl.items():
        mutants = [m.mistake for m in MUTANTS if backend in m.backends]
        living = "; ".join(name for name in mutants if found.get(name) is False) or "none"
        left = "; ".join(name for name in mutants if name not in found) or "none"
        killed = sum(found.get(name, False) for name in mutants)
        lines.append(f"| {backend} | {killed} of {len(mutants)} | {living} | {left} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--mutmut", type=Path, help="where `mutmut run` has been run")
    parser.add_argument("--only", default="", help="only the mutants whose name has this text")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    check_mutants()
    console = Console()
    recorded = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
    killers: dict[str, str] = dict(recorded.get("killers", {}))
    found = {}
    copies: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory(prefix="sae-oracle-mutants-") as folder:
        ignored = shutil.ignore_patterns(".venv", ".git", "mutants", "*.egg-info", ".*_cache")
        for number in range(arguments.jobs):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=ignored)
            copies.put(copy)

        def check(mutant: Mutant, backend: str) -> bool:
            copy = copies.get()
            try:
                killer = killer_of(mutant, copy, backend, killers.get(mutant.mistake))
            finally:
                copies.put(copy)
            if killer is not None:
                killers[mutant.mistake] = killer
            console.print(f"{backend}: {mutant.mistake}: {killer or 'SURVIVED'}", soft_wrap=True)
            return killer is not None

        for backend in filter(None, arguments.backends.split(",")):
            mutants = [
                mutant
                for mutant in MUTANTS
                if backend in mutant.backends and arguments.only in mutant.mistake
            ]
            with ThreadPoolExecutor(arguments.jobs) as pool:
                killed = list(pool.map(lambda m, b=backend: check(m, b), mutants))
            found[backend] = {m.mistake: dead for m, dead in zip(mutants, killed, strict=True)}
            console.print(f"{backend}: {sum(killed)} of {len(mutants)} killed")
    if SUMMARY.exists():  # another run may have written meanwhile
        recorded = json.loads(SUMMARY.read_text())
    recorded["killers"] = {**recorded.get("killers", {}), **killers}
    for backend, by_mistake in found.items():
        recorded.setdefault("keras_impl", {}).setdefault(backend, {}).update(by_mistake)
    unexplained = 0
    if arguments.mutmut:
        recorded["reference"] = mutmut_found(arguments.mutmut)
        unexplained = sum(s["reason"] is None for s in recorded["reference"]["survived"])
        console.print(f"oracle: {unexplained} survivors without a reason")
    if arguments.write:
        SUMMARY.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
        if "reference" in recorded:
            PAGE.write_text(page(recorded), encoding="utf-8")
    all_killed = all(killed for by_mistake in found.values() for killed in by_mistake.values())
    return 0 if all_killed and not unexplained else 1


if __name__ == "__main__":
    sys.exit(main())
