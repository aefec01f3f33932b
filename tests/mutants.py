"""Mutants by hand: each is one mistake in the code, and some test must fail for it.

    python -m tests.mutants [--backends jax,torch] [--write]

A mutant is a piece of text in a file and what a careless hand might have written. Each is applied
to a copy of the project, and the backend tests run there until the first failure, on each backend.
Mutants that a tool makes are tried by `tests.generated_mutants` (`make mutants` runs both).
`--write` records all of it in `tests/mutants.json` and in the page `docs/mutants.md`; with no
backend (`--backends ""`) it writes the page anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from rich.console import Console

from tests.generated_mutants import copy_of_the_project

ROOT = Path(__file__).parents[1]
SUMMARY = ROOT / "tests" / "mutants.json"
PAGE = ROOT / "docs" / "mutants.md"
PENALTY = "tests/keras_impl/test_penalty_against_oracle.py"
MODEL = "tests/keras_impl/test_model_against_oracle.py"
OBJECTS = "tests/keras_impl/test_objects.py"
TRAINING = "tests/keras_impl/test_exact.py"
PENALTIES = "tests/keras_impl/test_penalty_layers.py"
TIED = "tests/keras_impl/test_tied.py"
LBFGS = "tests/keras_impl/test_lbfgs.py"
FUSED = "tests/keras_impl/test_custom_gradients.py"
REPLICAS = "tests/keras_impl/test_replicas.py"
WATCHED = "tests/keras_impl/test_watch.py"
SIZES = "tests/keras_impl/test_real_sizes.py"
RULES = "tests/reference/test_rules.py"
LIKELY = "tests/reference/test_likely.py"
BOUNDS = "tests/reference/test_rounding.py"
CERTIFIED = "tests/reference/test_certified.py"
VERIFIED = "tests/sae_oracle/test_verify.py"
TRAINED = "tests/sae_oracle/test_train.py"
VECTORS = "tests/sae_oracle/test_vectors.py"


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
S, Q = "keras_impl/exact/sums.py", "keras_impl/exact/steps.py"
WATCH = "keras_impl/callbacks.py"
E, TERM = "keras_impl/means.py", "keras_impl/term.py"
KI = "keras_impl/backends/keras_internals.py"
T, F = "keras_impl/tied.py", "keras_impl/backends/custom_gradients.py"
ONCE = ("torch",)  # what depends on no backend
COMPILED = ("jax", "tensorflow")  # torch has this one written out, in custom_gradients.py

MUTANTS = (
    Mutant(
        "slope of a sum for that of a mean",
        S,
        "return ActivationSlope(factor * slope * samples / np.maximum(self.count, 1.0))",
        "return ActivationSlope(factor * slope * samples)",
        (TRAINING,),
    ),
    Mutant(
        "tanh's half forgotten in chunks",
        S,
        "factor = term.beta / 2.0 if term.symmetric else term.beta",
        "factor = term.beta",
        (TRAINING,),
    ),
    Mutant(
        "rows that fill up are averaged too",
        S,
        "return ActivationSums(sum_of_rows(x, positions), count)",
        "return ActivationSums(sum_of_rows(x), count)",
        (TRAINING,),
    ),
    Mutant(
        "the gradient of a chunk's mean, added up",
        W,
        "total += self.chunks.rows * as_float64(part)",
        "total += as_float64(part)",
        (TRAINING,),
    ),
    Mutant(
        "logarithms added for sums",
        S,
        "np.logaddexp(self.log_ones, other.log_ones)",
        "np.add(self.log_ones, other.log_ones)",
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
        Q,
        "return value_and_gradients(lambda *tensors: self._weight_decay(tensors), weights)",
        "return self._weight_decay(weights), [0.0 * ops.convert_to_tensor(w) for w in weights]",
        (TRAINING,),
    ),
    Mutant(
        "sum for the mean",
        E,
        "rho_hat = total / (count if known",
        "rho_hat = total / (1.0 if known",
        (PENALTY,),
    ),
    Mutant(
        "m - 1 for m",
        E,
        "rho_hat = total / (count if known",
        "rho_hat = total / (count - 1.0 + 1e-9 if known",
        (PENALTY,),
    ),
    Mutant(
        "mean over all elements",
        E,
        "total, count = sum_of_rows(a, valid), count_of(a, valid)",
        "total, count = ops.sum(a) / a.shape[-1] * ops.ones_like(a[..., 0, :]), count_of(a)",
        (PENALTY,),
    ),
    Mutant(
        "first axis only",
        F,
        '    axes = tuple(range(len(x.shape) - 1))\n    if keras.config.backend() == "numpy"',
        '    axes = (0,)\n    if keras.config.backend() == "numpy"',
        (PENALTY,),
    ),
    Mutant(
        "ops.mean of float64",
        E,
        "total, count = sum_of_rows(a, valid), count_of(a, valid)",
        "total, count = ops.mean(a, axis=tuple(range(len(a.shape) - 1))), 1.0",
        (PENALTY,),
        ("jax", "torch"),
    ),
    Mutant(
        "mask ignored",
        E,
        "total, count = sum_of_rows(a, valid), count_of(a, valid)",
        "total, count = sum_of_rows(a), count_of(a)",
        (PENALTY,),
    ),
    Mutant(
        "padded steps in the count",
        E,
        "count = sum_of_rows(ops.cast(valid, x.dtype))",
        "count = sum_of_rows(ops.ones_like(ops.cast(valid, x.dtype)))",
        (PENALTY,),
    ),
    Mutant(
        "mask by product",
        F,
        "x = ops.where(valid, x, ops.zeros_like(x))",
        "x = x * ops.cast(valid, x.dtype) * 1.0001",
        (PENALTY,),
    ),
    Mutant(
        "first half missing",
        D,
        "return target.rho * (target.log_rho - log_rho_hat) + target.rest * (",
        "return 0.0 * log_rho_hat + target.rest * (",
        (PENALTY,),
    ),
    Mutant(
        "second half missing",
        D,
        "log_rho_hat) + target.rest * (",
        "log_rho_hat) + 0.0 * (",
        (PENALTY,),
    ),
    Mutant(
        "KL reversed",
        D,
        "divergence = kl_divergence_of_logarithms(target, namespace.log(r), log_rest)",
        "divergence = r * namespace.log(r / target.rho) + rest * namespace.log(rest / target.rest)",
        (PENALTY,),
    ),
    Mutant(
        "sign of a logarithm",
        D,
        "(target.log_rho - log_rho_hat)",
        "(target.log_rho + log_rho_hat)",
        (PENALTY,),
    ),
    Mutant(
        "entropy constant lost", D, "(target.log_rho - log_rho_hat)", "(-log_rho_hat)", (PENALTY,)
    ),
    Mutant(
        "epsilon of 1e-7 in the logarithm",
        D,
        "kl_divergence_of_logarithms(target, namespace.log(r), log_rest)",
        "kl_divergence_of_logarithms(target, namespace.log(r + 1e-7), log_rest)",
        (PENALTY,),
    ),
    Mutant(
        "rho off by 1e-5",
        D,
        "return target.rho * (t",
        "return 1.00001 * target.rho * (t",
        (PENALTY,),
    ),
    Mutant(
        "base 2",
        D,
        "(target.log_rho - log_rho_hat)",
        "(target.log_rho - log_rho_hat) / math.log(2.0)",
        (PENALTY,),
    ),
    Mutant(
        "clip instead of the tangent",
        D,
        "return divergence + steepness * beyond, slope",
        "return divergence, slope",
        (PENALTY,),
    ),
    Mutant(
        "tangent of the wrong sign",
        D,
        "return divergence + steepness * beyond, slope",
        "return divergence - steepness * beyond, slope",
        (PENALTY,),
    ),
    Mutant(
        "slope of one half",
        D,
        "return (target.rest * r - target.rho * rest) / (r * rest)",
        "return -target.rho / r",
        (PENALTY,),
    ),
    Mutant(
        "slope with rho's own rounding",
        D,
        "return (target.rest * r - target.rho * rest) / (r * rest)",
        "return (r - target.rho) / (r * rest)",
        (PENALTY,),
    ),
    Mutant(
        "edge at 2 epsilon",
        D,
        "r = namespace.clip(rho_hat, epsilon, 1.0 - epsilon)",
        "r = namespace.clip(rho_hat, 2 * epsilon, 1.0 - epsilon)",
        (PENALTY,),
    ),
    Mutant(
        "edge of the derivative at 2 epsilon",
        D,
        "slope = kl_slope(target, r, rest)",
        "slope = kl_slope(target, namespace.clip(r, 2 * epsilon, 1.0), rest)",
        (PENALTY,),
    ),
    Mutant(
        "derivative without beta",
        TERM,
        "with_slope(beta * ops.sum(divergence), rho_hat, beta * slope)",
        "with_slope(beta * ops.sum(divergence), rho_hat, slope)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "derivative without what comes in",
        F,
        "ops.sum(slope * tangents[1])",
        "ops.sum(slope)",
        (PENALTY,),
        ("jax",),
    ),
    Mutant(
        "derivative without what comes back",
        F,
        "lambda by: by * slope",
        "lambda by: slope",
        (FUSED,),
        ("tensorflow",),
    ),
    Mutant(
        "detached",
        TERM,
        "ops.sum(divergence), rho_hat, beta * slope)",
        "ops.sum(divergence), ops.stop_gradient(rho_hat), beta * slope)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "symmetric forgotten",
        E,
        "(0.5 + 0.5 * rho_hat if symmetric else rho_hat)",
        "rho_hat",
        (PENALTY,),
    ),
    Mutant(
        "symmetric without its half",
        E,
        "(0.5 + 0.5 * rho_hat if symmetric else rho_hat)",
        "(1.0 + rho_hat if symmetric else rho_hat)",
        (PENALTY,),
    ),
    Mutant("half precision kept", D, 'else ops.cast(x, "float32")', "else x", (PENALTY,)),
    Mutant(
        "logits: log m lost",
        E,
        "log_rho_hat, log_rest = log_sums_of_sigmoids(z, valid, divisor)",
        "log_rho_hat, log_rest = log_sums_of_sigmoids(z, valid)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: one half twice",
        E,
        "return ops.log(total / divisor) + below, ops.log(total_of_rest / divisor) - above",
        "return ops.log(total / divisor) + below, ops.log(total / divisor) + below",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: Σσ(−z) of one sample",
        F,
        "ops.where(shift < 0.0, count - total, total_of_scaled)",
        "ops.where(shift < 0.0, 1.0 - total, total_of_scaled)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: mask ignored",
        F,
        "sum_of_rows(a, valid), sum_of_rows(scaled, valid)",
        "sum_of_rows(a), sum_of_rows(scaled, valid)",
        (PENALTY, TRAINING),
        COMPILED,
    ),
    Mutant(
        "fused logits: a mask that is not used",
        F,
        "return sum_of_rows(both[0], valid), sum_of_rows(both[1], valid)",
        "return sum_of_rows(both[0]), sum_of_rows(both[1], valid)",
        (PENALTY, TRAINING),
        ("torch",),
    ),
    Mutant(
        "logits: saturated units not moved up",
        E,
        "    shift = below + above\n",
        "    shift = above\n",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "logits: moved, but not back",
        E,
        "ops.log(total_of_rest / divisor) - above",
        "ops.log(total_of_rest / divisor)",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "logits: autodiff's σ(1 − σ)",
        F,
        "scaled * (is_below + sign * a)",
        "a * (1.0 - a)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "logits: Σσ(−z) = m − Σσ(z)",
        F,
        "ops.where(shift < 0.0, count - total, total_of_scaled)",
        "count - total",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "logits: a slope moved the wrong way",
        F,
        "scaled * (is_below + sign * a)",
        "scaled * a",
        (PENALTY, FUSED),
        COMPILED,
    ),
    Mutant(
        "sigmoids: σ(−z) = 1 − σ(z)",
        F,
        "    nearer_zero = scaled * nearer_one\n    return (",
        "    nearer_zero = 1.0 - nearer_one\n    return (",
        (FUSED,),
        ("jax",),
    ),
    Mutant(
        "logits: derivative of one sum forgotten",
        F,
        "(change * of_p, -change * of_q)",
        "(change * of_p, 0.0 * change)",
        (PENALTY,),
        ("jax",),
    ),
    Mutant(
        "logits: half a second derivative on JAX",
        F,
        "(1.0 - 2.0 * jax.nn.sigmoid(primals[0]))",
        "(1.0 - jax.nn.sigmoid(primals[0]))",
        (FUSED,),
        ("jax",),
    ),
    Mutant(
        "logits: derivatives added",
        F,
        "slope(z, d) * (by_p * of_p - by_q * of_q)",
        "slope(z, d) * (by_p * of_p + by_q * of_q)",
        (PENALTY,),
        ("tensorflow",),
    ),
    Mutant(
        "logits: half a second derivative on TensorFlow",
        F,
        "(1.0 - 2.0 * tf.sigmoid(z))",
        "(1.0 - tf.sigmoid(z))",
        (FUSED,),
        ("tensorflow",),
    ),
    Mutant(
        "fused: beta off by 1e-5",
        F,
        "return (beta * divergence).to(activations.dtype)",
        "return (1.00001 * beta * divergence).to(activations.dtype)",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: the entropy of rho forgotten",
        F,
        "- cross_entropy(target, target, None, total)",
        "",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: mean over units",
        F,
        "cross_entropy, total = torch.ops.aten.binary_cross_entropy.default, 2",
        "cross_entropy, total = torch.ops.aten.binary_cross_entropy.default, 1",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: sum for the mean",
        F,
        "rho_hat = (a.sum(0) / len(a)).double()",
        "rho_hat = a.sum(0).double()",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: mean over the first axis alone",
        F,
        "rho_hat = (a.sum(0) / len(a)).double()",
        "rho_hat = (a.sum(0) / len(activations)).double()",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused: edges not looked for",
        F,
        "answers_at_once(rho_hat) and _is_inside(rho_hat.detach(), epsilon)",
        "True",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused: cross-entropy for every epsilon",
        F,
        "return epsilon >= 1e-11 and",
        "return",
        (FUSED,),
        ("torch",),
    ),
    Mutant(
        "fused: no tangent beyond an edge",
        F,
        "divergence = divergence + (slope * (rho_hat - r)).sum()",
        "pass",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: moved back too far",
        F,
        "ones.add_(shift.clamp(max=0.0))",
        "ones.add_(1.1 * shift.clamp(max=0.0))",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: one half of the gradient",
        F,
        "by_zeros.sub_(by_ones)",
        "by_zeros",
        (PENALTY,),
        ("torch",),
    ),
    Mutant(
        "fused logits: not moved back",
        F,
        "zeros.sub_(shift.clamp(min=0.0))",
        "zeros.sub_(0.0 * shift.clamp(min=0.0))",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: units near one not looked for",
        F,
        "low.item() >= -UNSCALED and high.item() <= UNSCALED",
        "low.item() >= -UNSCALED",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "fused logits: units near zero not looked for",
        F,
        "low.item() >= -UNSCALED and high.item() <= UNSCALED",
        "high.item() <= UNSCALED",
        (PENALTY, FUSED),
        ("torch",),
    ),
    Mutant(
        "mean over units",
        TERM,
        "with_slope(beta * ops.sum(divergence), rho_hat, beta * slope)",
        "with_slope(beta * ops.mean(divergence), rho_hat, beta * slope)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "beta ignored",
        TERM,
        "with_slope(beta * ops.sum(divergence), rho_hat, beta * slope)",
        "with_slope(ops.sum(divergence), rho_hat, slope)",
        (PENALTY,),
        COMPILED,
    ),
    Mutant(
        "beta of 0 times an infinite divergence",
        TERM,
        "        if self.is_off:  #",
        "        if False:  #",
        ("tests/keras_impl/test_term.py",),
    ),
    Mutant(
        "beta squared",
        TERM,
        "with_slope(beta * ops.sum(divergence), rho_hat, beta * slope)",
        "with_slope(beta * beta * ops.sum(divergence), rho_hat, beta * beta * slope)",
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
    Mutant(
        "config without beta",
        TERM,
        '{**asdict(self), "rho": rho}',
        '{**{k: v for k, v in asdict(self).items() if k != "beta"}, "rho": rho}',
        (OBJECTS,),
    ),
    Mutant(
        "decay without its half",
        R,
        "beside(factor, rows) / 2.0",
        "beside(factor, rows)",
        (MODEL,),
    ),
    Mutant(
        "decay in one sum",
        R,
        "ops.sum(squares, axis=-1) if len(squares.shape) else squares",
        "ops.sum(squares)",
        (SIZES,),
    ),
    Mutant(
        "bound of rows for any order",
        "reference/bounds.py",
        'if _summation(summation) == "any order":',
        'if _summation(summation) != "any order":',
        (RULES,),
    ),
    Mutant(
        "a bias never the first of a sum",
        "reference/rounding.py",
        "sizes, value = sizes + start.magnitude, value + start.value",
        "additions = additions + 0",
        (RULES,),
    ),
    Mutant(
        "partial sums of half the magnitudes",
        "reference/rounding.py",
        "of_one_sign = (sizes + np.abs(value) + moved) / 2.0",
        "of_one_sign = (sizes + moved) / 2.0",
        (RULES,),
    ),
    Mutant(
        "likely errors of a sample apart",
        "reference/likely.py",
        "np.linalg.norm(np.sum(likely.reshape(len(likely), -1), axis=1))",
        "np.linalg.norm(likely)",
        (LIKELY,),
    ),
    Mutant(
        "a slope that each sample rounds anew",
        "reference/bounds.py",
        "compute.shared(compute.cast(_switched(betas[layer], slope)))",
        "compute.cast(_switched(betas[layer], slope))",
        (LIKELY,),
    ),
    Mutant(
        "decay of absolute values",
        R,
        'ops.square(at_least_float32(tensor("x", x)))',
        "ops.absolute(at_least_float32(x))",
        (MODEL,),
    ),
    Mutant(
        "loss without its half",
        H,
        "losses = _half_sum_of_squares(losses)",
        "losses = 2.0 * _half_sum_of_squares(losses)",
        (MODEL,),
    ),
    Mutant(
        "loss averaged over features",
        H,
        "losses = _half_sum_of_squares(losses)",
        "losses = _half_sum_of_squares(losses) / float(losses.shape[-1])",
        (MODEL,),
    ),
    Mutant(
        "running average with 1 - momentum exchanged",
        L,
        "self.momentum * stored + (1.0 - self.momentum) * batch",
        "(1.0 - self.momentum) * stored + self.momentum * batch",
        (PENALTY,),
    ),
    Mutant(
        "running average started at zero", L, "ops.where(seen, moved, batch)", "moved", (PENALTY,)
    ),
    Mutant(
        "running average: gradient with 1 - momentum",
        L,
        "new + (batch - ops.stop_gradient(batch))",
        "new + (1.0 - self.momentum) * (batch - ops.stop_gradient(batch))",
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
    Mutant(
        "running average not stored",
        L,
        "            self.rho_hat.assign(ops.where(sees, new, stored))\n",
        "",
        (PENALTY,),
    ),
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
        "self.add_loss(self.penalty(inputs, training=training, mask=mask))",
        "for _ in range(2):\n            self.add_loss(self.penalty(inputs, training, mask))",
        (PENALTY,),
    ),
    Mutant(
        "losses let go",
        KI,
        "        self._loss_ids.clear()\n",
        "",
        (PENALTY,),
        ("torch",),  # elsewhere the `id`s of dead tensors were not seen to come back
    ),
    Mutant(
        "a second use clears the first",
        KI,
        "if scope is not None and self._scope_of_losses() is scope:",
        "if False:",
        (PENALTIES,),
    ),
    Mutant(
        "masked steps counted in any penalty",
        L,
        "return self.function(ops.where(valid, a, ops.zeros_like(a)))",
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
        "kernel = ops.transpose(kernel)",
        "kernel = ops.reshape(kernel, kernel.shape[::-1])",
        (TIED,),
    ),
    Mutant(
        "a model's input of another device not moved",
        M,
        "inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)\n        return self",
        "inputs = ops.cast(inputs, self.compute_dtype)\n        return self",
        (OBJECTS,),
        ("torch",),
    ),
    Mutant(
        "tied kernel's gradient stopped",
        T,
        "kernel = ops.cast(_kernel_of(self._encoder), self.compute_dtype)",
        "kernel = ops.stop_gradient(ops.cast(_kernel_of(self._encoder), self.compute_dtype))",
        (TIED,),
    ),
    Mutant(
        "tied kernel unknown to its model",
        T,
        "return own + [variable for variable in read if isinstance(variable, keras.Variable)]",
        "return own",
        (TIED,),
    ),
    Mutant(
        "tied layer without its bias",
        T,
        "ops.cast(self.bias, self.compute_dtype)",
        "0.0 * ops.cast(self.bias, self.compute_dtype)",
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
    Mutant(
        "dead, whatever ρ",
        WATCH,
        "rho_hat <= 0.01 * rho",
        "rho_hat <= 0.0025",
        (WATCHED,),
    ),
    Mutant(
        "saturated, whatever ρ",
        WATCH,
        "1.0 - rho_hat <= 0.01 * (1.0 - rho)",
        "1.0 - rho_hat <= 0.01",
        (WATCHED,),
    ),
    Mutant(
        "R² of what is not centred",
        WATCH,
        "np.square(y - total / samples)",
        "np.square(y)",
        (WATCHED,),
    ),
    Mutant(
        "the first β watched for ever",
        WATCH,
        "self._objective is None or self._made_for != coefficients",
        "self._objective is None",
        (WATCHED,),
    ),
    Mutant("output penalised too", M, "if penalised and not last:", "if penalised:", (MODEL,)),
    Mutant(
        "penalty after the next activation",
        M,
        "self._term.choose(logits=z, activations=a)",
        "self._term.choose(logits=z, activations=z)",
        (MODEL,),
    ),
    Mutant("float64 tanh of Keras", M, 'if name == "tanh" and', "if False and", (MODEL,), ("jax",)),
    Mutant(
        "target is always x",
        M,
        "self.sum_of_half_squares(x if y is None else y, ",
        "self.sum_of_half_squares(x, ",
        (MODEL,),
    ),
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
        'scale = 2.0 / integer("features", features, low=1)\n    return KerasUnits(',
        'scale = 1.0 / integer("features", features, low=1)\n    return KerasUnits(',
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
        E,
        "        total, count = both[: total.shape[0]], both[total.shape[0] :]\n",
        "        total, count = both[: total.shape[0]] / both[total.shape[0] :] * count, count\n",
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
        TERM,
        "            cross_replica=self.cross_replica,\n            moves_state=True",
        "            cross_replica=False,\n            moves_state=True",
        (REPLICAS,),
        ADDED,
    ),
    Mutant(
        "replicas: losses of other threads",
        KI,
        "layer._losses[:] = losses",
        "pass",
        (REPLICAS,),
        ("tensorflow",),
    ),
    Mutant(
        "replicas: local sums of the whole data",
        W,
        "together.sums = self.sums.over_workers()",
        "together.sums = self.sums",
        (REPLICAS,),
    ),
    Mutant(
        "the least of several statuses",
        "sae_oracle/cli.py",
        'return max(int(run.get("status", 2)) for run in failed)',
        'return min(int(run.get("status", 2)) for run in failed)',
        (VERIFIED,),
        ONCE,
    ),
    Mutant(
        "a finding before a file that cannot be written",
        "sae_oracle/cli.py",
        "status = 2 if problems else status_of(results)",
        "status = status_of(results) or (2 if problems else 0)",
        (VERIFIED,),
        ONCE,
    ),
    Mutant(
        "float64 verified on one backend alone",
        "sae_oracle/workers/verify.py",
        'return ("float32",) if backend in ("numpy", "openvino") else',
        'return ("float32",) if backend != "torch" else',
        ("sae_oracle/workers/verify.py",),
        ONCE,
    ),
    Mutant(
        "more columns than the model takes",
        "sae_oracle/workers/encode.py",
        "if x.shape[1] != inputs:",
        "if x.shape[1] < inputs:",
        (TRAINED,),
        ONCE,
    ),
    Mutant(
        "validation that is not prepared",
        "sae_oracle/workers/train.py",
        "held = prepare(read_samples(chosen.validation))",
        "held = read_samples(chosen.validation)",
        (TRAINED,),
        ONCE,
    ),
    Mutant(
        "the key of the data for validation",
        "sae_oracle/train.py",
        '("--validation", arguments.validation, arguments.validation_key)',
        '("--validation", arguments.validation, arguments.key)',
        (TRAINED,),
        ONCE,
    ),
    Mutant(
        "a column constant where its deviation is 0",
        "sae_oracle/samples.py",
        "constant = x.min(axis=0) == x.max(axis=0)",
        "constant = spread == 0.0",
        (TRAINED,),
        ONCE,
    ),
    Mutant(
        "outside at its bound",
        "sae_oracle/conformance/vectors.py",
        'Judgement("failed" if worst > 1.0 else',
        'Judgement("failed" if worst >= 1.0 else',
        (VECTORS,),
        ONCE,
    ),
    Mutant(
        "the worst usage of what failed",
        "sae_oracle/conformance/check.py",
        "max((found.usage or 0.0 for _, found in passed), default=None)",
        "max((found.usage or 0.0 for _, found in results), default=None)",
        (VECTORS,),
        ONCE,
    ),
    Mutant(
        "an object given up for all that it did not answer",
        "sae_oracle/conformance/check.py",
        "crashes = crashes + 1 if asking == left[0] else 1",
        "crashes += 1",
        (VECTORS,),
        ONCE,
    ),
    Mutant(
        "a program given up for all that it did not answer",
        "sae_oracle/conformance/check.py",
        "        self._crashes = 0\n        return line",
        "        return line",
        (VECTORS,),
        ONCE,
    ),
    Mutant(
        "as large as the largest value is undecidable",
        "reference/rounding.py",
        "(expected.bound > largest) & (expected.bound > 0.0)",
        "(expected.bound >= largest) & (expected.bound > 0.0)",
        (BOUNDS,),
    ),
    Mutant(
        "a bias as the first term adds nothing",
        "reference/rounding.py",
        "additions = additions + (start.magnitude > 0.0)",
        "additions = additions + 0",
        (RULES,),
    ),
    Mutant(
        "likely errors beside a factor without its own",
        "reference/likely.py",
        "likely = a.magnitude * s + (size_b + d) * r\n            return self.store",
        "likely = a.magnitude * s + size_b * r\n            return self.store",
        (LIKELY,),
    ),
    Mutant(
        "certified sigmoids that are never symmetric",
        "reference/certified.py",
        'if name == "sigmoid" and not flag("symmetric", symmetric):',
        'if name == "sigmoid":',
        (CERTIFIED,),
    ),
    Mutant(
        "what is padded times 0",
        L,
        "return self.function(ops.where(valid, a, ops.zeros_like(a)))",
        "return self.function(a * ops.cast(valid, a.dtype))",
        (PENALTIES,),
    ),
    Mutant(
        'the reduction "mean" divided by weights',
        S,
        'return self.weight if reduction == "mean_with_sample_weight" else self.count',
        'return self.count if reduction == "sum_over_batch_size" else self.weight',
        (TRAINING,),
    ),
    Mutant(
        "a mean over the positions of the fullest unit",
        S,
        "np.log(np.maximum(self.count, 1.0)))",
        "np.log(np.max(np.maximum(self.count, 1.0))))",
        (TRAINING,),
    ),
    Mutant(
        "evaluations counted from the checkpoint on",
        "keras_impl/exact/lbfgs.py",
        "        self.evaluations = earlier.evaluations\n",
        "",
        (LBFGS,),
    ),
    Mutant(
        "iterations since the first checkpoint",
        "keras_impl/exact/checkpoint.py",
        "self._since, self._count = now, 0",
        "self._since = now",
        (LBFGS,),
    ),
    Mutant(
        "initial weights in Keras's own dtype",
        "keras_impl/initializers.py",
        "(shape, dtype=dtype)",
        "(shape)",
        (OBJECTS,),
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
        files, stale = {}, []
        for number, mutant in enumerate(mutants):
            try:
                text = mutated(mutant, (ROOT / mutant.file).read_text(encoding="utf-8"))
            except ValueError as error:
                stale.append(str(error))
                continue
            files[f"{number}.py"] = mutant.mistake
            Path(folder, f"{number}.py").write_text(text, encoding="utf-8")
        if stale:
            raise ValueError("Gone stale: " + "; ".join(stale))
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


def page(recorded: dict[str, Any]) -> str:
    """What was found, as a page of the docs."""
    generated, planted = recorded["generated"], recorded["keras_impl"]
    files = sorted(generated.items())
    living = [(file, mutant) for file, found in files for mutant in found["living"]]
    lines = [
        "# Mutants",
        "",
        "Written by `make mutants`, not typed. A mutant is the code with one mistake in it; it is",
        "killed if a test fails.",
        "",
        "## Made by a tool",
        "",
        "`python -m tests.generated_mutants --files FILE --seed SEED --sample DRAWN`: changes",
        "of one operator, number, name, text or argument, by mutmut's operators, and",
        "statements, branches and filters left out, by ours. Nobody chose them: a seed drew",
        "them from all of an area (`reference/`, `keras_impl/`, the verdict), or all were",
        "tried. Each is tried by the tests that run the changed line: the oracle's without a",
        "backend, the rest on the backend named. Endless: the tests took ten times their",
        "processor time, and were ended. Of `sae_oracle/` the functions that decide are",
        "mutated. Such mutants show which lines no test looks at. They cannot show a mistake of",
        "more than one place, nor a case that nobody thought of and that has no line.",
        "",
        "| file | on | drawn, seed | tried | killed | endless | survived, perhaps no equivalent |",
        "|---|---|---|---|---|---|---|",
    ]
    totals: Counter[str] = Counter()
    for file, found in files:
        unknown = sum(mutant["reason"] is None for mutant in found["living"])
        numbers = {name: found[name] for name in ("tried", "killed", "endless")}
        totals.update(numbers, unknown=unknown)
        lines.append(
            f"| `{file.split()[0]}` | {found['backend'] or '—'} | {found['drawn']}, "
            f"{found['seed']} | {' | '.join(map(str, numbers.values()))} | {unknown} |"
        )
    names = ("tried", "killed", "endless", "unknown")
    lines += [f"| all | | | {' | '.join(str(totals[name]) for name in names)} |", ""]
    if living:
        lines += ["| survivor | as | why it is equivalent |", "|---|---|---|"]
        for file, mutant in living:
            where = f"`{file}:{mutant['line']}`, `{mutant['function']}`"
            if mutant["as"] == "not run":
                where += ", which no test runs"
            change = mutant["change"].replace("|", "¦")
            lines.append(f"| {where} | `{change}` | {mutant['reason'] or '**not known to be**'} |")
        lines.append("")
    lines += [
        "## Written by hand",
        "",
        "`tests/mutants.py`: mistakes that people make, each run on each backend where it can be",
        "made, and once where no backend matters. They were written by those who wrote the tests,",
        "and cannot show what these did not think of: of 50 by a stranger, the suite of its day",
        "killed 15. Of 71 planted later by one who had not read the tests (24 in `reference/`, 11",
        "in the verdict, 36 in `keras_impl/`) one is equivalent, and the tests of the changed",
        "modules killed 53 on torch. Tests were added for the other 17, and kill them. A third",
        "planted 98 before reading a test; 95 were tried. 40 of 46 in `keras_impl/` were killed,",
        "13 of 17 in `reference/`, 14 of 21 in the verdict and the commands, 7 of 11 in the",
        "vectors and the reviewer (five of the 21 that survived by reading alone). None is",
        "equivalent. The 21 are in the list, each with a test that kills it.",
        "A fourth planted 106 before reading a test. 103 were tried, with the tests of the changed",
        "modules: 20 of 24 in `reference/`, 45 of 56 in `keras_impl/`, 11 of 12 in the verdict,",
        "report and vectors, 4 of 6 in training, none of 5 in the reviewer were killed, 80 in all.",
        "With tests for 20 of the other 23, a second set of 25, all of it elsewhere, was",
        "tried: 15 were killed at once. So what a test is added for is held, and what lies beside",
        "it is not. The 10 are killed now. These are not in the list.",
        "",
        "By hand and not in the list: 31 in `keras_impl/` where no operator reaches (state of",
        "the fit before, a weight frozen since, rows that fill up beside a mask, one β of two),",
        "by one who had read its code and few of its tests. On torch 25 were killed by tests",
        "that were there, and two more are by tests that were added. One is equivalent; three",
        "change only what JAX and TensorFlow compile, and were not tried there.",
        "",
        "| backend | killed | survived | not run |",
        "|---|---|---|---|",
    ]
    for backend, found in planted.items():
        mutants = [m.mistake for m in MUTANTS if backend in m.backends]
        survived = "; ".join(name for name in mutants if found.get(name) is False) or "none"
        left = "; ".join(name for name in mutants if name not in found) or "none"
        killed = sum(found.get(name, False) for name in mutants)
        lines.append(f"| {backend} | {killed} of {len(mutants)} | {survived} | {left} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="torch")
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
        for number in range(arguments.jobs):
            copies.put(copy_of_the_project(Path(folder) / str(number)))

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
    if arguments.write:
        SUMMARY.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(page(recorded), encoding="utf-8")
    all_killed = all(killed for by_mistake in found.values() for killed in by_mistake.values())
    return 0 if all_killed else 1


if __name__ == "__main__":
    sys.exit(main())
