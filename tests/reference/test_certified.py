"""Certified digits: what they cover, that they are right, and how far the oracle is from them.

    python -m tests.reference.test_certified

writes docs/certified.md: for every label the oracle's distance from the truth over ten thousand
cases, hard ones among them, and the share of its float64 bound that it uses. The suite runs some
hundreds of the same cases: the truth is inside every bound.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from reference import certified
from reference.estimators import mean_activation_of_chunks
from reference.gradient import hidden_delta, output_delta, sparsity_slope, tied_gradient
from reference.rounding import Arithmetic, Bounded, exact
from tests.fresh_process import ROOT, environment

if certified.INSTALLED:
    from flint import arb, ctx

needs_flint = pytest.mark.skipif(not certified.INSTALLED, reason=certified.NEEDS)

FLOAT64 = Arithmetic("float64")
U = 2.0**-53
TINY = 2.0**-1022
LARGEST = float(np.finfo(np.float64).max)
DIGITS = 25
CASES = 10_000
CASES_IN_SUITE = 200

Array = np.ndarray


# --- how far a value of the oracle is from the truth -----------------------------------------


@dataclass(frozen=True)
class Quantity:
    """A quantity of a label: the oracle's numbers, the truth, and the float64 bound.

    Args:
        label: Its label.
        name: Where it is in what the label returns.
        value: The oracle's, any shape; `None`: the oracle raises an error.
        truth: Balls, the same shape.
        bound: What the oracle promises of it.
        inputs: What it was computed from, for a report.
    """

    label: str
    name: str
    value: Array | None
    truth: Any
    bound: Bounded | None
    inputs: Any

    @property
    def row(self) -> str:
        """The row of the page that it is in: no row for each layer."""
        return self.label + re.sub(r"\[\d+\]", "", self.name if self.value is not None else "")


@dataclass
class Distance:
    """How far the oracle was from the truth, over the cases so far.

    Args:
        numbers: How many numbers were compared.
        roundoffs: Of each case, the largest error in roundoffs of the largest number.
        share: The largest distance of the truth from a bound's middle, in units of the bound.
        tiny: How many numbers are below 2⁻¹⁰²²: their errors are in no column but `share`.
        infinite: How many are infinite, or too large for float64, and the oracle says so.
        lost: How many the oracle has as ∞ or NaN, and its bound as unknown, that are finite.
        refused: How many cases it raises an error for, although they have a value.
        uncertain: How many could not be certified.
    """

    numbers: int = 0
    roundoffs: list[float] = field(default_factory=list)
    share: float = 0.0
    tiny: int = 0
    infinite: int = 0
    lost: int = 0
    refused: int = 0
    uncertain: int = 0


def compare(quantity: Quantity, distance: Distance) -> str | None:
    """Add a quantity to its distance; return a sentence if the truth is outside the bound."""
    if quantity.value is None:
        distance.refused += 1
        return None
    assert quantity.bound is not None, (quantity.label, quantity.name)
    arrays = (quantity.value, quantity.truth, quantity.bound.value, quantity.bound.bound)
    values, balls, middles, bounds = (np.ravel(np.asarray(a, object)).tolist() for a in arrays)
    largest_error, largest_value = 0.0, 0.0
    outside = None
    for i, (value, truth, middle, bound) in enumerate(
        zip(values, balls, middles, bounds, strict=True)
    ):
        size = abs(truth)
        if truth.rel_accuracy_bits() < 60 and not (size < 2.0**-1074 or size > LARGEST):
            distance.uncertain += 1
            continue
        unknown = not math.isfinite(bound)
        if size > LARGEST:
            right = math.isinf(value) and bool(truth > 0) == (value > 0)
            distance.infinite += right
            distance.lost += unknown and not right
            inside = right or unknown
        else:
            apart = abs(arb(middle) - truth)
            inside = unknown or bool(apart <= bound)
            if inside and not unknown and bound > 0.0:
                distance.share = max(distance.share, float(apart.upper()) / bound)
            if not math.isfinite(value):
                distance.lost += unknown
                inside = inside and unknown
            elif size < TINY:
                distance.tiny += truth != 0
            else:
                distance.numbers += 1
                largest_error = max(largest_error, float(abs(arb(value) - truth).upper()))
                largest_value = max(largest_value, float(size))
        if not inside:
            outside = (
                f"{quantity.label}{quantity.name}, element {i}: the oracle has {value!r} ± "
                f"{bound!r}, the truth is {certified.text(truth, 25)}; inputs {quantity.inputs}"
            )
    if largest_value > 0.0:
        distance.roundoffs.append(largest_error / largest_value / U)
    return outside


# --- usual and hard numbers ------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """Random inputs: usual ones, or hard ones."""

    g: np.random.Generator
    hard: bool

    def one_of(self, *choices: Callable[[], float]) -> float:
        """One of the choices; of usual numbers the first."""
        return float(choices[int(self.g.integers(len(choices))) if self.hard else 0]())

    def flip(self) -> bool:
        return bool(self.g.integers(2))

    def logit(self) -> float:
        """Any logit: usual, saturated, near 0, denormal, huge."""
        g = self.g
        return self.one_of(
            lambda: g.normal() * 3.0,
            lambda: g.uniform(-40, 40),
            lambda: g.uniform(-800, 800),
            lambda: g.choice([-1, 1]) * 10.0 ** g.uniform(-323.5, -5),
            lambda: g.choice([-1, 1]) * 10.0 ** g.uniform(3, 307),
            lambda: g.choice([0.0, -0.0, 1.0, -1.0, 36.7, -745.1, 709.7, -37.5]),
        )

    def target(self) -> float:
        """Any ρ in (0, 1): usual, near 0, near 1."""
        g = self.g
        return self.one_of(
            lambda: g.choice([0.01, 0.05, 0.1, 0.5, 0.9]),
            lambda: g.uniform(1e-3, 1 - 1e-3),
            lambda: 10.0 ** g.uniform(-300, -3),
            lambda: 1.0 - g.integers(1, 2**20) * U,
        )

    def mean(self, rho: float) -> float:
        """Any ρ̂ in [0, 1]: usual, at ρ and a little off it, near 0 and 1, denormal, the ends."""
        g = self.g
        value = self.one_of(
            lambda: g.uniform(),
            lambda: rho,
            lambda: rho * (1.0 + g.integers(-8, 9) * 2.0**-52),
            lambda: rho * (1.0 + g.normal() * 10.0 ** g.uniform(-12, -2)),
            lambda: 10.0 ** g.uniform(-300, -1),
            lambda: 10.0 ** g.uniform(-323, -308),
            lambda: 1.0 - g.integers(1, 2**20) * U,
            lambda: g.choice([0.0, 1.0]),
        )
        return min(max(value, 0.0), 1.0)

    def edge(self, rho: float) -> float:
        """Any ε for which 1 − ε is a float64 number too, as the oracle has it (see FINDINGS).

        0 where ρ is too near 0 for one.
        """
        exponent = self.one_of(lambda: -20, lambda: self.g.integers(-52, -3), lambda: -52)
        epsilon = 2.0 ** min(exponent, math.floor(math.log2(min(rho, 1.0 - rho))))
        return epsilon if epsilon >= U else 0.0

    def samples(self) -> int:
        """How many: a few, or in one case of a hundred very many."""
        if self.g.uniform() < 0.01:
            return 2000
        return int(self.g.choice([1, 2, 3, 7]))

    def activations(self, rho: float, m: int, units: int) -> Array:
        """(m, units) in [0, 1]: each unit usual, dead, saturated, at ρ, denormal, or mixed."""
        g = self.g
        columns = []
        for _ in range(units):
            kind = int(g.integers(7)) if self.hard else 0
            if kind == 0:
                column = g.uniform(size=m)
            elif kind == 1:
                column = np.ones(m)
            elif kind == 2:
                column = np.full(m, rho)
            elif kind == 3:
                column = 10.0 ** g.uniform(-320, -1, size=m)
            elif kind == 4:
                column = 1.0 - g.integers(1, 2**12, size=m) * U
            elif kind == 5:
                column = reference.sigmoid(g.normal(size=m) * 30.0)
            else:
                column = np.zeros(m)
            columns.append(column)
        return np.stack(columns, axis=1)

    def matrix(self, rows: int, columns: int) -> Array:
        """Weights: usual; large, small, with zeros, almost parallel, or of length near 10⁻⁷."""
        g = self.g
        matrix = g.normal(size=(rows, columns))
        kind = int(g.integers(7)) if self.hard else 6
        if kind == 0:
            matrix[g.uniform(size=matrix.shape) < 0.4] = 0.0
        elif kind == 1:
            matrix[1] = matrix[0] * (1.0 + g.normal(size=columns) * 1e-12)
        elif kind == 2:
            matrix = matrix * 10.0 ** g.uniform(-300, -100)
        elif kind == 3:
            matrix = matrix * 10.0 ** g.uniform(100, 300)
        elif kind == 4:
            matrix = matrix * 10.0 ** g.uniform(-8, 8)
        elif kind == 5:
            lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
            matrix = matrix / lengths * 1e-7 * (1.0 + g.integers(-2, 3) * 2.0**-52)
        return matrix

    def network(self) -> tuple[reference.Parameters, Array, dict[str, Any]]:
        """A network, its samples, and the arguments of its cost."""
        g = self.g
        sizes = [(1, 1, 1), (2, 1, 2), (3, 2, 3), (2, 3, 2, 3, 2), (2, 3, 1), (2, 2, 2, 2)][
            int(g.integers(6))
        ]
        tied = self.flip() and sizes == sizes[::-1] and len(sizes) % 2 == 1
        start = reference.initialise(sizes, int(g.integers(2**31)), tied=tied)
        scale = self.one_of(
            lambda: 1.0, lambda: 4.0, lambda: 40.0, lambda: 1e-6, lambda: g.uniform(0, 1e3)
        )
        theta = reference.pack(start) * scale + g.normal(size=len(reference.pack(start))) * 0.1
        # Multiples of 2⁻⁴⁰, so that the steps of the numerical gradient are exact.
        parameters = reference.unpack(np.round(theta * 2.0**40) / 2.0**40, start)
        m = 300 if g.uniform() < 0.005 else int(g.integers(1, 5))
        x = g.uniform(size=(m, sizes[0]))
        kind = int(g.integers(5)) if self.hard else 4
        if kind == 0:
            x = np.round(x)
        elif kind == 1:
            x = x * 10.0 ** g.uniform(-320, -10)
        elif kind == 2:
            x = x * 10.0 ** g.uniform(1, 3)
        # Only a sigmoid stays where the exact divergence is defined; there is an ε for such a ρ.
        rho = min(max(self.target(), 2.0**-50), 1.0 - 2.0**-50)
        activation = str(g.choice(["sigmoid", "sigmoid", "tanh", "relu", "linear"]))
        of_output = [None, "sigmoid", "tanh", "linear", "relu"]
        return (
            parameters,
            x,
            {
                "rho": rho,
                "beta": float(g.choice([0.0, 0.1, 3.0, 100.0])),
                "weight_decay": float(g.choice([0.0, 1e-4, 0.3])),
                "activation": activation,
                "output_activation": of_output[int(g.integers(5))],
                "epsilon": 0.0 if activation == "sigmoid" and self.flip() else self.edge(rho),
                "symmetric": activation == "tanh" and self.flip(),
                "tied_decay": int(g.choice([1, 2])),
                "y": x if sizes[0] == sizes[-1] and self.flip() else g.uniform(size=(m, sizes[-1])),
            },
        )


# --- every label of a case -------------------------------------------------------------------


def parts(value: Any) -> dict[str, Array]:
    """What an oracle's function returned, by the names that `certified.leaves` gives."""
    if isinstance(value, reference.Cost):
        terms = ("reconstruction", "weight_decay", "sparsity", "total")
        return {f".{term}": np.asarray(getattr(value, term)) for term in terms}
    if isinstance(value, reference.Parameters):
        return numbered(kernels=value.kernels, biases=value.biases)
    if isinstance(value, reference.ForwardPass):
        return numbered(logits=value.logits, activations=value.activations)
    if isinstance(value, reference.Gradients):
        found = parts(value.parameters) | numbered(deltas=value.deltas)
        return found | {".x": value.x}
    if isinstance(value, (list, tuple)):
        return {f"[{i}]": np.asarray(part) for i, part in enumerate(value)}
    return {"": np.asarray(value)}


def numbered(**arrays: Any) -> dict[str, Any]:
    return {f".{name}[{i}]": a for name, many in arrays.items() for i, a in enumerate(many)}


def truths(value: Any) -> dict[str, Any]:
    """The same of what `certify` returned."""
    if hasattr(value, "_asdict"):
        found: dict[str, Any] = {}
        for name, part in value._asdict().items():
            if isinstance(part, list):
                found |= numbered(**{name: part})
            elif not isinstance(part, bool):
                found[f".{name}"] = part
        return found
    if isinstance(value, list):
        return {f"[{i}]": part for i, part in enumerate(value)}
    return {"": value}


Bounds = Bounded | dict[str, Bounded] | Callable[[Array], Bounded]
"""Of all that a label returns, by name, or made of the oracle's value."""


def quantities(
    label: str, oracle: Callable[..., Any], bounds: Bounds, *arguments: Any, **named: Any
) -> Iterator[Quantity]:
    """Compute a label both ways.

    Where the oracle raises an error there is one quantity without a value.
    """
    try:
        found = parts(oracle(*arguments, **named))
    except ValueError as error:
        yield Quantity(label, str(error), None, None, None, (arguments, named))
        return
    expected = truths(
        certified.certify(certified.CERTIFIED[label], *arguments, digits=DIGITS, **named)
    )
    assert set(found) == set(expected), (label, set(found) ^ set(expected))
    for name, value in found.items():
        if isinstance(bounds, Bounded):
            bound = bounds
        elif isinstance(bounds, dict):
            bound = bounds.get(name)
        else:
            bound = bounds(value)
        if bound is not None:
            yield Quantity(label, name, value, expected[name], bound, (arguments, named))


def of_one_number(draw: Draw) -> Iterator[Quantity]:
    """Activation functions."""
    z = np.array([draw.logit() for _ in range(3)])
    activations_ = reference.activations
    for name in ("sigmoid", "tanh", "relu", "linear"):
        function, derivative = reference.ACTIVATIONS[name]
        value, slope = FLOAT64.activation(name, exact(z))
        yield from quantities(f"EQ-{name.upper()}", function, value, z)
        yield from quantities(f"EQ-{name.upper()}-DERIVATIVE", derivative, slope, z)
    # One sample's log-mean is its logarithm.
    log, _ = FLOAT64.log_mean_sigmoid(exact(z[None]))
    yield from quantities("EQ-LOG-SIGMOID", activations_.log_sigmoid, log, z)


def of_divergences(draw: Draw) -> Iterator[Quantity]:
    """KL and its derivative, exact, extended, and from logits."""
    g, rho = draw.g, draw.target()
    rho_hat = np.array([draw.mean(rho) for _ in range(3)])
    value = FLOAT64.kl_divergence(rho, exact(rho_hat), 0.0)
    slope = FLOAT64.kl_derivative(rho, exact(rho_hat), 0.0)
    yield from quantities("EQ-KL", reference.kl_divergence, value, rho, rho_hat)
    yield from quantities(
        "EQ-KL-DERIVATIVE", reference.kl_divergence_derivative, slope, rho, rho_hat
    )
    epsilon = draw.edge(rho)
    if epsilon > 0.0:
        ends = [epsilon, 1.0 - epsilon]
        rho_hat = np.concatenate([rho_hat, g.uniform(-3.0, 3.0, size=2), ends])
        value = FLOAT64.kl_divergence(rho, exact(rho_hat), epsilon)
        slope = FLOAT64.kl_derivative(rho, exact(rho_hat), epsilon)
        extended = (rho, rho_hat, epsilon)
        yield from quantities("EQ-KL-EXTENSION", reference.extended_kl_divergence, value, *extended)
        yield from quantities(
            "EQ-KL-EXTENSION-DERIVATIVE",
            reference.extended_kl_divergence_derivative,
            slope,
            *extended,
        )
    m = int(g.choice([1, 2, 5]))
    z = np.array([[draw.logit() for _ in range(2)] for _ in range(m)])
    value, gradient = FLOAT64.kl_divergence_from_logits(rho, exact(z))
    yield from quantities("EQ-KL-LOGITS", reference.kl_divergence_from_logits, value, rho, z)
    yield from quantities(
        "EQ-KL-LOGITS-DERIVATIVE",
        reference.kl_divergence_from_logits_derivative,
        gradient,
        rho,
        z,
    )
    beta = float(g.choice([0.1, 3.0]))
    value, _ = reference.kl_sparsity_with_bounds(
        z, rho, beta, from_logits=True, precision="float64"
    )
    yield from quantities(
        "EQ-SPARSITY-LOGITS", reference.sparsity_cost_from_logits, value, z, rho, beta
    )
    values = g.normal(size=(m, 2)) * 10.0 ** g.uniform(-3, 4)
    result = np.asarray(reference.divergence.log_mean_exp(values))
    largest = np.max(values, axis=0)
    # The rule of EQ-BOUND-LOG-MEAN for values that are exact.
    bound = (2 * m + 64) * U + 16.0 * U * (np.abs(result) + np.abs(largest) + np.log(m))
    yield from quantities(
        "EQ-LOG-MEAN-EXP", reference.divergence.log_mean_exp, Bounded(result, bound), values
    )


def of_means(draw: Draw) -> Iterator[Quantity]:
    """Mean activations, and the sparsity of them."""
    g, rho, m = draw.g, draw.target(), draw.samples()
    a = draw.activations(rho, m, 3)
    symmetric = bool(g.uniform() < 0.3)
    if symmetric:
        a = 2.0 * a - 1.0
    mask = None if g.uniform() < 0.5 else g.uniform(size=m) < 0.7
    if mask is not None and not mask.any():
        mask[0] = True
    named = {"mask": mask, "symmetric": symmetric}
    seen = a if mask is None else a[mask]
    rho_hat = FLOAT64.mean_over_samples(exact(seen), symmetric=symmetric)
    yield from quantities("EQ-RHO-HAT", reference.mean_activation, rho_hat, a, **named)
    ends = np.sort(g.integers(1, m, size=2)) if m > 2 else [1, 1]
    chunks = [chunk for chunk in np.split(a, ends) if len(chunk)]
    yield from quantities(
        "EQ-RHO-HAT-CHUNKS",
        mean_activation_of_chunks,
        FLOAT64.mean_over_samples(exact(a)),
        chunks,
    )
    momentum = float(g.choice([0.0, 0.9, 0.99, 1.0 - 2.0**-40, g.uniform()]))
    old, new = a[0], a[-1]
    complement = FLOAT64.subtract(exact(1.0), exact(momentum))
    running = FLOAT64.add(
        FLOAT64.multiply(exact(momentum), exact(old)), FLOAT64.multiply(complement, exact(new))
    )
    yield from quantities(
        "EQ-RHO-HAT-RUNNING", reference.running_average, running, old, new, momentum
    )
    beta = float(g.choice([0.0, 0.1, 3.0, 1e3]))
    epsilon = float(g.choice([0.0, draw.edge(rho)]))
    inside = np.clip(a, -1.0, 1.0)
    named |= {"epsilon": epsilon}
    value, gradient = reference.kl_sparsity_with_bounds(
        inside, rho, beta, precision="float64", **named
    )
    yield from quantities("EQ-SPARSITY", reference.sparsity_cost, value, inside, rho, beta, **named)
    yield Quantity(
        "EQ-SPARSITY-SLOPE",
        " of every element",
        reference.kl_sparsity_gradient(inside, rho, beta, **named),
        certified.certify(every_slope, inside, rho, beta, digits=DIGITS, **named),
        gradient,
        (inside, rho, beta, named),
    )
    mean = np.asarray(reference.mean_activation(inside, mask, symmetric=symmetric))
    slope = FLOAT64.divide_by_count(
        FLOAT64.multiply(
            FLOAT64.number(beta / 2.0 if symmetric else beta),
            FLOAT64.kl_derivative(rho, exact(mean), epsilon),
        ),
        m,
    )
    if beta == 0.0:
        slope = exact(np.zeros_like(mean))
    yield from quantities(
        "EQ-SPARSITY-SLOPE",
        sparsity_slope,
        slope,
        rho,
        beta,
        mean,
        m,
        epsilon=epsilon,
        symmetric=symmetric,
    )


def every_slope(
    a: Array, rho: float, beta: float, *, epsilon: float, symmetric: bool, mask: Array | None
) -> Any:
    """EQ-SPARSITY-SLOPE for every activation, 0 where masked, in balls."""
    valid = np.ones(len(a), dtype=bool) if mask is None else mask
    slope = certified.sparsity_slope(
        rho,
        beta,
        certified.mean_activation(a, mask, symmetric=symmetric),
        int(valid.sum()),
        epsilon=epsilon,
        symmetric=symmetric,
    )
    return np.where(valid[:, None], slope, arb(0))


def of_weights(draw: Draw) -> Iterator[Quantity]:
    """Regularizers, features, initialisation."""
    g = draw.g
    rows, columns = int(g.choice([2, 3, 4])), int(g.choice([1, 2, 5]))
    w = draw.matrix(rows, columns)
    l1, l2 = float(g.choice([0.0, 0.01, 1e-4, 0.3])), float(g.choice([0.01, 1e-4, 0.5]))
    for label, arguments, factors in (
        ("L1", (w, l1), (l1, 0.0)),
        ("L2", (w, l2), (0.0, l2)),
        ("L1L2", (w, l1, l2), (l1, l2)),
    ):
        value, gradient = reference.l1_l2_with_bounds(w, *factors, precision="float64")
        name = {"L1": "l1", "L2": "l2", "L1L2": "l1_l2"}[label]
        yield from quantities(f"EQ-{label}", getattr(reference, name), value, *arguments)
        slope = getattr(reference, f"{name}_gradient")
        yield from quantities(f"EQ-{label}-GRADIENT", slope, gradient, *arguments)
    mode = str(g.choice(["rows", "columns"]))
    if mode == "rows" or columns > 1:
        value, gradient = reference.orthogonal_with_bounds(w, l1, mode, precision="float64")
        arguments = (w, l1, mode)
        yield from quantities("EQ-ORTHOGONAL", reference.orthogonal, value, *arguments)
        yield from quantities(
            "EQ-ORTHOGONAL-GRADIENT", reference.orthogonal_gradient, gradient, *arguments
        )
    kernel = np.where(w == 0.0, 1e-3 * np.max(np.abs(w)) + (np.max(np.abs(w)) == 0.0), w)
    # Half of the rows + 1 roundoffs of the sum, and those of square root and quotient.
    relative = (rows + 8) * U
    yield from quantities(
        "EQ-FEATURE",
        reference.maximally_exciting_inputs,
        lambda features: Bounded(features, relative * np.abs(features) + TINY),
        kernel,
    )
    sizes = (rows, columns, rows)
    seed, tied = int(g.integers(2**31)), bool(g.integers(2))
    start = reference.initialise(sizes, seed, tied=tied)
    # Three roundings of the limit, of at most twice the limit two more, and one of the weight.
    bounds = {
        f".kernels[{i}]": Bounded(
            k, np.full(k.shape, 9.0 * U * math.sqrt(6.0 / (rows + columns + 1)))
        )
        for i, k in enumerate(start.kernels)
    } | {f".biases[{i}]": exact(b) for i, b in enumerate(start.biases)}
    yield from quantities("EQ-INIT", reference.initialise, bounds, sizes, seed, tied=tied)


def of_networks(draw: Draw) -> Iterator[Quantity]:
    """Forward pass, cost, gradient, packing, descent."""
    g = draw.g
    parameters, x, named = draw.network()
    forward_arguments = {k: named[k] for k in ("activation", "output_activation")}
    names = reference.network.layer_activations(
        named["activation"], named["output_activation"], len(parameters.layer_kernels)
    )
    logits, layers, slopes = [], [exact(x)], []
    for kernel, bias, name in zip(parameters.layer_kernels, parameters.biases, names, strict=True):
        logits.append(FLOAT64.affine(layers[-1], exact(kernel), exact(bias)))
        value, slope = FLOAT64.activation(name, logits[-1])
        layers.append(value)
        slopes.append(slope)
    bounds: dict[str, Any] = numbered(logits=logits, activations=layers)
    yield from quantities(
        "EQ-FORWARD", reference.forward, bounds, parameters, x, **forward_arguments
    )
    step = reference.cost_and_gradient_with_bounds(parameters, x, precision="float64", **named)
    terms = ("reconstruction", "weight_decay", "sparsity", "total")
    bounds = {f".{term}": getattr(step.cost, term) for term in terms}
    yield from quantities(
        "EQ-COST", reference.sparse_autoencoder_cost, bounds, parameters, x, **named
    )
    decay = {"tied_decay": named["tied_decay"]}
    yield from quantities(
        "EQ-DECAY",
        reference.weight_decay_cost,
        step.cost.weight_decay,
        parameters,
        named["weight_decay"],
        **decay,
    )
    bounds = numbered(kernels=step.gradient.kernels, biases=step.gradient.biases)
    bounds[".x"] = step.x
    yield from quantities("EQ-GRADIENT", reference.backpropagate, bounds, parameters, x, **named)

    if named["activation"] == "sigmoid":
        # The same numbers by another way, which has bounds of its own.
        named_exact = {**named, "epsilon": 0.0}
        step = reference.cost_and_gradient_with_bounds(
            parameters, x, precision="float64", from_logits=True, **named_exact
        )
        truth = certified.certify(
            certified.sparse_autoencoder_cost, parameters, x, digits=DIGITS, **named_exact
        )
        inputs = (parameters, x, named_exact)
        sparsity = step.cost.sparsity
        yield Quantity("EQ-COST", " from logits", sparsity.value, truth.sparsity, sparsity, inputs)
        truth = certified.certify(
            certified.backpropagate, parameters, x, digits=DIGITS, **named_exact
        )
        expected = truths(truth)
        bounds = numbered(kernels=step.gradient.kernels, biases=step.gradient.biases)
        for name, bounded in bounds.items():
            yield Quantity(
                "EQ-GRADIENT",
                f"{name} from logits",
                bounded.value,
                expected[name],
                bounded,
                inputs,
            )

    propagated = reference.forward(parameters, x, **forward_arguments)
    h, y = propagated.output, named["y"]
    yield from quantities(
        "EQ-RECONSTRUCTION",
        reference.reconstruction_cost,
        reference.reconstruction_with_bounds(h, y, precision="float64"),
        h,
        y,
    )
    derivative = reference.ACTIVATIONS[names[-1]].derivative(propagated.logits[-1])
    bound = FLOAT64.multiply(
        FLOAT64.divide_by_count(FLOAT64.subtract(exact(h), exact(y)), len(x)), exact(derivative)
    )
    yield from quantities("EQ-DELTA-OUTPUT", output_delta, bound, h, y, derivative)
    delta = output_delta(h, y, derivative)
    kernel = parameters.layer_kernels[-1]
    below = reference.ACTIVATIONS[names[-2]].derivative(propagated.logits[-2])
    slope = g.normal(size=len(kernel)) * 10.0 ** g.uniform(-3, 3)
    bound = FLOAT64.multiply(
        FLOAT64.add(FLOAT64.matmul(exact(delta), exact(kernel.T)), exact(slope)), exact(below)
    )
    yield from quantities("EQ-DELTA", hidden_delta, bound, delta, kernel, below, slope)
    uses = [g.normal(size=(3, 2)), g.normal(size=(2, 3))]
    yield from quantities(
        "EQ-GRADIENT-TIED",
        tied_gradient,
        {"[0]": FLOAT64.add(exact(uses[0]), exact(uses[1].T))},
        uses,
    )
    theta = reference.pack(parameters)
    yield from quantities("EQ-PACK", reference.pack, exact(theta), parameters)
    bounds = {name: exact(value) for name, value in parts(parameters).items()}
    yield from quantities("EQ-UNPACK", reference.unpack, bounds, theta, parameters)

    if len(theta) <= 8:
        yield from of_steps(g, parameters, x, named)


def of_steps(
    g: np.random.Generator, parameters: reference.Parameters, x: Array, named: dict[str, Any]
) -> Iterator[Quantity]:
    """Numerical gradient and gradient descent, of a small network."""
    theta, size = reference.pack(parameters), 2.0**-13

    def cost(vector: Array) -> float:
        return reference.sparse_autoencoder_cost(
            reference.unpack(vector, parameters), x, **named
        ).total

    def bound_at(i: int, change: float) -> float:
        moved = theta.copy()
        moved[i] += change
        step = reference.cost_and_gradient_with_bounds(
            reference.unpack(moved, parameters), x, precision="float64", **named
        )
        return float(step.cost.total.bound)

    numerical = reference.numerical_gradient(cost, theta, size)
    both = np.array([bound_at(i, size) + bound_at(i, -size) for i in range(len(theta))])
    # The difference of two costs, each within its bound, is rounded; 2ε is a power of 2.
    bound = Bounded(numerical, both / (2.0 * size) + 2.0 * U * np.abs(numerical))
    yield from quantities(
        "EQ-NUMERICAL-GRADIENT",
        lambda *_, **__: numerical,
        bound,
        parameters,
        x,
        step=size,
        **named,
    )
    descent = {"steps": 2, "learning_rate": float(g.choice([0.01, 0.25])), **named}
    try:
        reached = reference.gradient_descent_with_bounds(
            parameters, x, precision="float64", **descent
        )
    except ValueError as error:
        yield Quantity("EQ-BOUND-DESCENT", str(error), None, None, None, descent)
        return
    truth = truths(
        certified.certify(certified.gradient_descent, parameters, x, digits=DIGITS, **descent)
    )
    bounds = numbered(kernels=reached.kernels, biases=reached.biases)
    for name, bounded in bounds.items():
        inputs = (parameters, x, descent)
        yield Quantity("EQ-BOUND-DESCENT", name, bounded.value, truth[name], bounded, inputs)


SUBJECTS = (of_one_number, of_divergences, of_means, of_weights, of_networks)


def case(seed: int) -> Iterator[Quantity]:
    """Every label's quantities for one case; every second case is hard."""
    for number, subject in enumerate(SUBJECTS):
        # The oracle warns of what overflows, and hard numbers do.
        with np.errstate(all="ignore"):
            yield from subject(Draw(np.random.default_rng([seed, number]), seed % 2 == 1))


Survey = dict[tuple[str, bool], Distance]


def survey(cases: range) -> tuple[Survey, list[tuple[int, Quantity, str]]]:
    """Go through cases; return the distances by row, of usual cases and of hard ones.

    Also every quantity whose truth is outside its bound, with its case and what is wrong.
    """
    found: Survey = {}
    outside = []
    for seed in cases:
        for quantity in case(seed):
            distance = found.setdefault((quantity.row, seed % 2 == 1), Distance())
            with ctx.workprec(512):
                wrong = compare(quantity, distance)
            if wrong is not None:
                outside.append((seed, quantity, wrong))
    return found, outside


# --- what the survey has found: the oracle outside its own bounds ----------------------------


@dataclass(frozen=True)
class Finding:
    """A kind of input for which the oracle leaves its bound, or refuses what has a value.

    Args:
        rows: Which rows of the page.
        what: What goes wrong.
        smallest: The smallest case of it.
        applies: Whether a quantity of those rows that is outside is of this kind.
    """

    rows: tuple[str, ...]
    what: str
    smallest: Callable[[], Quantity]
    applies: Callable[[Quantity], bool]


def first(label: str, oracle: Callable[..., Any], bounds: Bounds, *arguments: Any) -> Quantity:
    with np.errstate(all="ignore"):
        return next(quantities(label, oracle, bounds, *arguments))


def rounded_edge() -> Quantity:
    rho, rho_hat, epsilon = 0.05, np.array([1.5]), 1e-6
    bound = FLOAT64.kl_divergence(rho, exact(rho_hat), epsilon)
    return first("EQ-KL-EXTENSION", reference.extended_kl_divergence, bound, rho, rho_hat, epsilon)


def length_at_the_constant() -> Quantity:
    w = np.array([[6e-8, 8e-8], [1.0, 0.0]])
    _, gradient = reference.orthogonal_with_bounds(w, 0.01, "rows", precision="float64")
    return first("EQ-ORTHOGONAL-GRADIENT", reference.orthogonal_gradient, gradient, w, 0.01, "rows")


def has_length_at_the_constant(quantity: Quantity) -> bool:
    (w, _, mode), _ = quantity.inputs
    lengths = reference.network.norms(w if mode == "rows" else w.T, axis=1)
    return bool(np.any(np.abs(lengths - 1e-7) < 1e-7 * 8 * U))


FINDINGS = (
    Finding(
        ("EQ-KL-EXTENSION",),
        "The oracle's upper edge is the float64 number nearest to 1 − ε, and the formula's is "
        "1 − ε. Beyond it the two differ by up to 2⁻⁵⁴/ε relative (6 · 10⁻¹¹ for ε = 10⁻⁶), 10⁵ "
        "times the bound: an implementation that keeps 1 − r = ε is outside. So with EQ-SPARSITY, "
        "EQ-COST and EQ-GRADIENT where a unit is beyond. The survey takes for ε powers of 2, of "
        "which 1 − ε is a float64 number.",
        rounded_edge,
        lambda quantity: False,
    ),
    Finding(
        ("EQ-ORTHOGONAL-GRADIENT",),
        "The gradient jumps where a vector has the length 10⁻⁷; the bound does not count that a "
        "rounded length may lie on the other side: [6e-8, 8e-8] beside [1, 0].",
        length_at_the_constant,
        has_length_at_the_constant,
    ),
)


def is_wrong(quantity: Quantity) -> bool:
    with ctx.workprec(512):
        return quantity.value is None or compare(quantity, Distance()) is not None


# --- the page --------------------------------------------------------------------------------


def figure(value: float) -> str:
    """A number of roundoffs, or nothing worth a figure."""
    if value < 0.005:
        return "0"
    return f"{value:.2f}" if value < 100.0 else f"{value:.1e}"


def table(found: Survey) -> Iterator[str]:
    """Every label: its distances, or why it has no certified value."""
    counts = ("tiny", "infinite", "lost", "refused", "uncertain")
    rows = dict.fromkeys(row for row, _ in found)
    for label, formula in certified.CERTIFIED.items():
        for row in (row for row in rows if of_label(row) == label):
            both = [found.get((row, hard), Distance()) for hard in (False, True)]
            cells = []
            for distance in both:
                sizes = np.array(distance.roundoffs)
                three = (
                    [np.median(sizes), np.quantile(sizes, 0.99), sizes.max()] if len(sizes) else []
                )
                cells += [figure(float(size)) for size in three] or [""] * 3
            numbers = sum(distance.numbers for distance in both)
            totals = {name: sum(getattr(d, name) for d in both) for name in counts}
            apart = ", ".join(f"{count:,} {name}" for name, count in totals.items() if count)
            if numbers or apart:
                share = figure(max(distance.share for distance in both)) if numbers else ""
                cells += [share, f"{numbers:,}", apart]
                yield f"| {row} | `{formula.__name__}` | {' | '.join(cells)} |"
    for label, why in certified.not_certified().items():
        yield f"| {label} | none: {why} | | | | | | | | | |"


def of_label(row: str) -> str:
    """The label of a row: EQ-COST of "EQ-COST.total" and of "EQ-COST from logits"."""
    return re.match(r"EQ-[A-Z0-9-]+", row)[0]  # type: ignore[index]


def seconds_of_a_large_case() -> tuple[float, float]:
    """Seconds for cost and gradient of 256 samples, 784-196-784, at 30 digits."""
    parameters = reference.initialise((784, 196, 784), seed=0)
    x = np.random.default_rng(0).random((256, 784))
    named = {"rho": 0.05, "beta": 3.0, "weight_decay": 1e-4}
    seconds = []
    for formula in (certified.sparse_autoencoder_cost, certified.backpropagate):
        began = time.process_time()
        certified.certify(formula, parameters, x, **named)
        seconds.append(time.process_time() - began)
    return seconds[0], seconds[1]


def page(found: Survey, outside: list[tuple[int, Quantity, str]], cases: int) -> str:
    """docs/certified.md."""
    cost, gradient = seconds_of_a_large_case()
    numbers = sum(distance.numbers for distance in found.values())
    lines = [
        "# Certified digits",
        "",
        "Written by `python -m tests.reference.test_certified`, not typed. `reference.certified`",
        "writes the notes' formulas once more, in balls of arbitrary precision (Arb, by",
        "python-flint): a midpoint and a proved radius. It shares no formula with the oracle.",
        "",
        "    pip install 'sae-oracle[certified]'",
        "    python -m reference.certified kl 0.05 0.2",
        "    python -m reference.certified cost --sizes 4 2 4 --seed 0 --rho 0.05 --beta 3 \\",
        "        --weight-decay 1e-4",
        "    python -m reference.certified gradient --inputs case.json --digits 50",
        "    python -m reference.certified labels",
        "",
        "The first prints `EQ-KL = "
        f"{certified.text(certified.certify(certified.kl_divergence, 0.05, 0.2))}`: the exact",
        "value for the float64 numbers nearest to 0.05 and 0.2, rounded to 30 digits, all of them",
        f"proved. 256 samples of a 784-196-784 network take {cost:.1f} s for the cost and "
        f"{gradient:.1f} s for",
        "the gradient, of one core.",
        "",
        "## How far the oracle is from the truth",
        "",
        f"{cases:,} cases of every label, {numbers:,} numbers. In every second case the inputs are",
        "hard: saturated, dead and denormal units, ρ and ρ̂ near 0, 1 and each other, logits up to",
        "10³⁰⁷, weights from 10⁻³⁰⁰ to 10³⁰⁰, 2,000 samples.",
        "",
        "**A roundoff** is 2⁻⁵³ of the largest number of a quantity in a case: the error of one",
        "rounding is at most 1. Median, 99th percentile and largest over the cases. Where a value",
        "passes through 0 (a KL near its target, a sum that cancels) the count has no limit; the",
        "bound counts in what is added there. The numerical gradient is a difference of costs.",
        "",
        "**Of its bound**: the largest |truth − value|/bound of a single number, by the oracle's",
        'own float64 bound (`*_with_bounds(precision="float64")`, or the rules of',
        "`reference.rounding` put together); at most 1 means that the truth is inside.",
        "",
        "Apart: *tiny* numbers are below 2⁻¹⁰²² (inside their bounds, in no column of roundoffs);",
        "*infinite* are those that are infinite or too large for float64, and the oracle says so;",
        "*lost* are finite, the oracle has no number for them, and its bound says so; *refused*",
        "are cases for which it raises an error; *uncertain* numbers could not be certified.",
        "",
        "| label | by | usual: median | 99 % | largest | hard: median | 99 % | largest "
        "| of its bound | numbers | apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *table(found),
        "",
        "## Findings",
        "",
        f"{len(outside):,} of the quantities are outside their bounds. All are of these kinds; a",
        "test holds the smallest case of each and fails when one is mended.",
        "",
        *(f"- {', '.join(finding.rows)}: {finding.what}" for finding in FINDINGS),
    ]
    return "\n".join(lines) + "\n"


# --- tests -----------------------------------------------------------------------------------


def unexpected(outside: list[tuple[int, Quantity, str]]) -> list[str]:
    with np.errstate(all="ignore"):
        return [
            f"case {seed}: {wrong}"
            for seed, quantity, wrong in outside
            if not any(quantity.row in f.rows and f.applies(quantity) for f in FINDINGS)
        ]


@needs_flint
@pytest.mark.parametrize("quarter", range(4))
def test_the_truth_is_inside_every_float64_bound(quarter: int) -> None:
    each = CASES_IN_SUITE // 4
    found, outside = survey(range(quarter * each, (quarter + 1) * each))
    assert not unexpected(outside)
    # Hard cases are not all undecided: most numbers are compared.
    numbers = sum(distance.numbers for distance in found.values())
    apart = sum(d.tiny + d.infinite + d.lost + d.uncertain for d in found.values())
    assert apart < 0.2 * numbers


@needs_flint
@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.what[:30])
def test_every_finding_still_stands(finding: Finding) -> None:
    """One that is mended is taken off the list: the survey then holds the oracle to it."""
    quantity = finding.smallest()
    assert quantity.row in finding.rows
    assert is_wrong(quantity), "mended: take it off FINDINGS"


@needs_flint
def test_a_wrong_value_or_bound_is_outside() -> None:
    """The comparison can fail: errors of a few bounds are planted in value, bound and truth."""
    rho_hat = np.array([0.2, 0.7])
    bound = FLOAT64.kl_divergence(0.05, exact(rho_hat), 0.0)
    right = first("EQ-KL", reference.kl_divergence, bound, 0.05, rho_hat)
    value = right.value
    assert value is not None
    with ctx.workprec(512):
        assert compare(right, Distance()) is None
        for wrong in (
            replace(right, bound=Bounded(bound.value + 1.5 * bound.bound, bound.bound)),
            replace(right, bound=Bounded(bound.value, bound.bound * 1e-3)),
            replace(right, truth=right.truth * arb(1.0 + 1e-13)),
            replace(right, value=np.array([value[0], np.inf])),
            replace(right, value=np.array([value[0], np.nan])),
        ):
            assert compare(wrong, Distance()) is not None
        distance = Distance()
        compare(replace(right, value=value * (1.0 + 2.0**-40)), distance)
        assert 2.0**12 < max(distance.roundoffs) < 2.0**14


# --- that the digits are right ---------------------------------------------------------------


def test_every_label_is_certified_or_has_a_reason() -> None:
    without = certified.not_certified()
    assert set(certified.CERTIFIED) | set(without) == set(reference.equations())
    assert not set(certified.CERTIFIED) & set(without)
    # "not written yet" is no reason.
    assert set(without.values()) == {certified.A_BOUND}


def test_the_page_has_every_label() -> None:
    page_ = (ROOT / "docs" / "certified.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (EQ-[^|]+) \| (\S+)", page_, re.MULTILINE)
    assert {of_label(row) for row, _ in rows} == set(reference.equations()), (
        "write it again: python -m tests.reference.test_certified"
    )
    for row, by in rows:
        formula = certified.CERTIFIED.get(of_label(row))
        assert by == (f"`{formula.__name__}`" if formula else "none:")


def test_no_formula_is_shared_with_the_oracle() -> None:
    """Only labels, the class of the parameters, a start for the command, and checks."""
    tree = ast.parse(Path(certified.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference")
        for name in node.names
    }
    allowed = {
        ("reference.equations", "equations"),
        ("reference.network", "Parameters"),
        ("reference.network", "initialise"),
    }
    assert {pair for pair in imported if pair[0] != "reference.validation"} == allowed
    plain = [n for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names]
    assert not [name for name in plain if name.name.startswith("reference")]


def test_the_arguments_are_the_oracles() -> None:
    for label, formula in certified.CERTIFIED.items():
        if label in ("EQ-NUMERICAL-GRADIENT", "EQ-BOUND-DESCENT"):
            continue  # of the cost, not of any function
        module, name = reference.equations()[label].function.rsplit(".", 1)
        theirs = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        mine = inspect.signature(formula).parameters
        assert [(p.name, p.kind, p.default) for p in mine.values()] == [
            (p.name, p.kind, p.default) for p in theirs.values()
        ], label


OF_ONE_NUMBER: dict[str, Callable[[Any], Any]] = {
    "sigmoid": certified.sigmoid,
    "sigmoid_derivative": certified.sigmoid_derivative,
    "log_sigmoid": certified.log_sigmoid,
    "tanh": certified.tanh,
    "tanh_derivative": certified.tanh_derivative,
    "relu": certified.relu,
    "relu_derivative": certified.relu_derivative,
    "kl": lambda q: certified.kl_divergence(0.25, q),
    "kl of 1": lambda q: certified.kl_divergence(1.0, q),
    "kl slope": lambda q: certified.kl_divergence_derivative(0.25, q),
    "kl slope of 0": lambda q: certified.kl_divergence_derivative(0.0, q),
    "extended": lambda q: certified.extended_kl_divergence(0.25, q, 0.125),
    "extended slope": lambda q: certified.extended_kl_divergence_derivative(0.25, q, 0.125),
    "logits": lambda z: certified.kl_divergence_from_logits(0.25, z.reshape(-1, 1)),
    "l1": certified.l1,
    "l1 slope": certified.l1_gradient,
    "reconstruction": lambda h: certified.reconstruction_cost(h[None], np.full((1, len(h)), 0.25)),
    "orthogonal": lambda w: certified.orthogonal(np.stack([w, w[::-1] - 0.25])),
    "orthogonal slope": lambda w: certified.orthogonal_gradient(np.stack([w, w[::-1] - 0.25])),
}


@needs_flint
@pytest.mark.parametrize("name", OF_ONE_NUMBER)
@given(
    middles=st.lists(
        st.sampled_from([-2.0, -0.125, 0.0, 0.125, 0.25, 0.5, 0.875, 1.0, 3.0]),
        min_size=2,
        max_size=2,
    ),
    radius=st.sampled_from([0.0, 2.0**-60, 2.0**-20, 0.125, 1.0]),
    where=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=2),
)
def test_a_formula_of_a_ball_holds_the_formula_of_every_number_in_it(
    name: str, middles: list[float], radius: float, where: list[float]
) -> None:
    """A comparison of balls that is not decided must not be taken for decided."""
    formula = OF_ONE_NUMBER[name]
    with ctx.workprec(200):
        balls, points = np.empty(2, object), np.empty(2, object)
        balls[:] = [arb(middle, radius) for middle in middles]
        points[:] = [arb(m) + arb(t) * radius for m, t in zip(middles, where, strict=True)]
        try:
            of_points = np.ravel(np.asarray(formula(points), object))
        except ValueError:  # outside [0, 1]
            return
        of_balls = np.ravel(np.asarray(formula(balls), object))
        for wide, narrow in zip(of_balls, of_points, strict=True):
            if wide.is_finite() and not narrow.is_nan():
                assert wide.overlaps(narrow), (balls, points, wide, narrow)


@needs_flint
@pytest.mark.parametrize("point", [0.99e-7, 1.01e-7])
def test_the_gradient_of_a_row_that_may_be_as_short_as_the_constant(point: float) -> None:
    balls = np.array([[arb(1e-7, 1e-9), arb(0)], [arb(3), arb(4)]], object)
    of_balls = certified.orthogonal_gradient(balls)
    of_points = certified.orthogonal_gradient(np.array([[point, 0.0], [3.0, 4.0]]))
    for wide, narrow in zip(np.ravel(of_balls), np.ravel(of_points), strict=True):
        assert wide.is_finite()
        assert wide.overlaps(narrow), (wide, narrow)


@needs_flint
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_whether_units_are_symmetric_is_asked_of_each_activation(
    activation: str, symmetric: bool
) -> None:
    parameters = reference.initialise((3, 2, 3), 0)
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(4, 3))
    named = {"rho": 0.2, "beta": 3.0, "weight_decay": 0.0, "activation": activation}
    named |= {"epsilon": 0.05, "symmetric": symmetric}
    step = reference.cost_and_gradient_with_bounds(parameters, x, precision="float64", **named)
    cost = certified.certify(certified.sparse_autoencoder_cost, parameters, x, **named)
    gradient = certified.certify(certified.backpropagate, parameters, x, **named)
    assert reference.usage(float(cost.sparsity), step.cost.sparsity).worst <= 1.0
    kernel = gradient.kernels[0].astype(np.float64)
    assert reference.usage(kernel, step.gradient.kernels[0]).worst <= 1.0


@needs_flint
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize(
    ("sizes", "tied"), [((2, 3, 2), False), ((2, 3, 2), True), ((2, 2, 1, 2, 2), True)]
)
def test_the_gradient_is_the_derivative_of_the_cost(
    activation: str, sizes: tuple[int, ...], tied: bool
) -> None:
    """By differences of the certified cost at steps of 2⁻²⁰⁰: to a hundred digits."""
    g = np.random.default_rng(3)
    start = reference.initialise(sizes, 4, tied=tied)
    # No ReLU is dead: a derivative of 0 has no digits.
    theta = reference.pack(start) + g.uniform(0.2, 0.6, size=len(reference.pack(start)))
    parameters = reference.unpack(theta, start)
    x, y = g.uniform(size=(3, sizes[0])), g.uniform(size=(3, sizes[-1]))
    named = {
        "rho": 0.2,
        "beta": 3.0,
        "weight_decay": 0.1,
        "y": y,
        "activation": activation,
        "output_activation": "tanh",
        "epsilon": 0.05,
        "symmetric": activation == "tanh",
        "tied_decay": 2,
    }
    differences = certified.certify(
        certified.numerical_gradient, parameters, x, step=2.0**-200, digits=100, **named
    )
    gradients = certified.certify(certified.backpropagate, parameters, x, digits=110, **named)
    packed = [b.ravel() for b in (*gradients.kernels, *gradients.biases)]
    with ctx.workprec(700):
        for difference, gradient in zip(differences, np.concatenate(packed), strict=True):
            # The error of the method is 2⁻⁴⁰⁰ of a third derivative, here below 10⁴.
            assert abs(difference - gradient) <= arb(10) ** -99 * abs(gradient) + arb(10) ** -110


@needs_flint
@pytest.mark.equation("EQ-KL", "EQ-KL-LOGITS", "EQ-SIGMOID", "EQ-TANH")
def test_digits_are_those_of_mpmath() -> None:
    with mpmath.workdps(60):
        rho, rho_hat, z = mpmath.mpf(0.05), mpmath.mpf(0.2), mpmath.mpf(-3.7)
        kl = rho * mpmath.log(rho / rho_hat) + (1 - rho) * mpmath.log((1 - rho) / (1 - rho_hat))
        for formula, arguments, expected in (
            (certified.kl_divergence, (0.05, 0.2), kl),
            (certified.sigmoid, (-3.7,), 1 / (1 + mpmath.exp(-z))),
            (certified.log_sigmoid, (-3.7,), mpmath.log(1 / (1 + mpmath.exp(-z)))),
            (certified.tanh, (-3.7,), mpmath.tanh(z)),
            (certified.tanh_derivative, (-3.7,), 1 - mpmath.tanh(z) ** 2),
        ):
            digits = certified.text(certified.certify(formula, *arguments, digits=45), 40)
            assert mpmath.nstr(expected, 40, strip_zeros=False) == digits


@needs_flint
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 40))
def test_text_is_rounded_rightly(value: float, digits: int) -> None:
    written = Fraction(certified.text(arb(value), digits))
    exactly = Fraction(value)
    if exactly == 0:
        assert written == 0
        return
    assert abs(written - exactly) <= abs(exactly) * Fraction(1, 2) / 10 ** (digits - 1)
    assert float(Fraction(certified.text(arb(value), 17))) == value


@needs_flint
def test_text_claims_no_digit_that_is_not_certain() -> None:
    assert certified.text(arb(1, 1e-10), 5) == "1.0000"
    assert certified.text(arb(1, 1e-3), 5) == "[1.00 +/- 1.01e-3]"
    assert certified.text(arb(0, 1e-40), 5) == "[+/- 1.01e-40]"
    assert certified.text(arb(1.5), 5) == "1.5"
    assert certified.text(arb(0.1), 30) == "0.100000000000000005551115123126"
    assert certified.text(arb.nan()) == certified.text(arb(0).log()) == "nan"
    assert certified.text(arb.pos_inf() + arb(2).log()) == "inf"
    as_large_as_its_radius = arb(1.0 + 2.0**-29, 1)
    assert certified.text(as_large_as_its_radius, 5) == "[+/- 2.01]"
    assert certified.text(arb(10), 5) == "10"
    assert certified.text(arb(2) ** 20_000, 5) == "[3.9803e+6020 +/- 2.32e+6015]"


@needs_flint
def test_what_no_precision_decides_ends() -> None:
    """A value that is 0 for a reason that arithmetic does not see: a ball around 0, and an end."""

    def odd(z: float) -> Any:
        return certified.tanh(z) + certified.tanh(-z)

    assert odd(arb(0.3)).contains(0)
    ball = certified.certify(odd, 0.3)
    assert ball.contains(0)
    assert abs(ball) < arb(10) ** -4000


@needs_flint
@pytest.mark.parametrize("digits", [0, 1001, 3.0, True, "30"])
def test_digits_must_be_a_number_of_digits(digits: Any) -> None:
    with pytest.raises(ValueError, match="`digits` must be an integer"):
        certified.certify(certified.sigmoid, 0.0, digits=digits)


@needs_flint
def test_more_digits_agree_with_fewer() -> None:
    few = certified.certify(certified.kl_divergence, 0.05, 0.2)
    many = certified.certify(certified.kl_divergence, 0.05, 0.2, digits=500)
    assert many.rel_accuracy_bits() > 1660
    with ctx.workprec(2000):
        assert few.contains(many)


# --- the command -----------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    try:
        status = certified.main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


@needs_flint
def test_it_prints_thirty_digits_label_first(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, err = printed(capsys, "kl", "0.05", "0.2")
    assert (status, err) == (0, "")
    assert all(line.startswith("EQ-KL") for line in lines)
    assert lines[-1] == "EQ-KL = 0.0939430260243317363649915658398"
    again = printed(capsys, "EQ-KL", "--rho-hat", "0.2", "--rho", "0.05", "--digits", "5")
    assert again[1][-1] == "EQ-KL = 0.093943"
    assert printed(capsys, "kl", "0.5", "[0.5, 0, 1]")[1][-3:] == [
        "EQ-KL[0] = 0",
        "EQ-KL[1] = inf",
        "EQ-KL[2] = inf",
    ]
    assert printed(capsys, "relu-derivative", "-1e-9")[1][-1] == "EQ-RELU-DERIVATIVE = 0"
    assert printed(capsys, "l2", "[[3, -4]]", "--factor", ".25")[1][-1] == "EQ-L2 = 6.25"


@needs_flint
def test_a_network_by_its_sizes_and_seed(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--sizes", "4", "2", "4", "--seed", "7", "--samples", "5")
    named = ("--rho", "0.05", "--beta", "3", "--weight-decay", "1e-4")
    status, lines, _ = printed(capsys, "cost", *shape, *named)
    cost = reference.sparse_autoencoder_cost(
        reference.initialise((4, 2, 4), seed=7),
        np.random.default_rng(7).random((5, 4)),
        rho=0.05,
        beta=3.0,
        weight_decay=1e-4,
    )
    assert status == 0
    found = dict(line.removeprefix("EQ-COST.").split(" = ") for line in lines[2:])
    for term in ("reconstruction", "weight_decay", "sparsity", "total"):
        assert float(found[term]) == pytest.approx(getattr(cost, term), rel=1e-13)
    status, lines, _ = printed(capsys, "gradient", *shape, *named, "--tied")
    assert sum(".kernels" in line for line in lines) == 8
    assert printed(capsys, "pack", "--sizes", "1", "1", "1")[0] == 0
    assert printed(capsys, "unpack", "[1, 2, 3, 4]", "--sizes", "1", "1", "1")[1][-1] == (
        "EQ-UNPACK.biases[1][0] = 4"
    )
    assert printed(capsys, "init", "--sizes", "2", "1")[0] == 0
    few = ("--steps", "1", "--learning-rate", "0.25", *named)
    assert printed(capsys, "bound-descent", *shape, *few)[0] == 0


@needs_flint
def test_inputs_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parameters = reference.initialise((3, 2, 3), seed=1)
    x = np.random.default_rng(1).random((4, 3))
    as_json = {
        "kernels": [k.tolist() for k in parameters.kernels],
        "biases": [b.tolist() for b in parameters.biases],
        "x": x.tolist(),
        "rho": 0.05,
        "beta": 3,
        "weight_decay": 1e-4,
    }
    (tmp_path / "case.json").write_text(json.dumps(as_json))
    np.savez(
        tmp_path / "case.npz",
        kernels_0=parameters.kernels[0],
        kernels_1=parameters.kernels[1],
        biases_0=parameters.biases[0],
        biases_1=parameters.biases[1],
        x=x,
        rho=0.05,
        beta=3.0,
        weight_decay=1e-4,
    )
    results = [
        printed(capsys, "gradient", "--inputs", str(tmp_path / f"case.{kind}"))
        for kind in ("json", "npz")
    ]
    assert results[0][0] == results[1][0] == 0
    assert results[0][1][2:] == results[1][1][2:]
    gradient = reference.sparse_autoencoder_gradient(
        parameters, x, rho=0.05, beta=3.0, weight_decay=1e-4
    )
    line = next(line for line in results[0][1] if ".kernels[1][1, 2]" in line)
    assert float(line.split(" = ")[1]) == pytest.approx(gradient.kernels[1][1, 2], rel=1e-12)
    twice = printed(capsys, "gradient", "--inputs", str(tmp_path / "case.json"), "--rho", "0.1")
    assert twice[0] == 2
    assert "`rho` is given twice." in twice[2]
    many = {f"chunks_{i}": np.full((1, 1), i) for i in range(12)}
    np.savez(tmp_path / "chunks.npz", **many)
    lines = printed(capsys, "rho-hat-chunks", "--inputs", str(tmp_path / "chunks.npz"))[1]
    assert lines[-1] == "EQ-RHO-HAT-CHUNKS[0] = 5.5"
    many = {f"kernels_{i}": np.full((1, 1), i) for i in range(12)}
    many |= {f"biases_{i}": np.full(1, 12 + i) for i in range(12)}
    np.savez(tmp_path / "many.npz", **many)
    lines = printed(capsys, "pack", "--inputs", str(tmp_path / "many.npz"))[1]
    assert lines[2:] == [f"EQ-PACK[{i}] = {i}" for i in range(24)]


@needs_flint
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: label"),
        ("nothing", "-NOTHING. Try one of sigmoid, sigmoid-derivative"),
        ("bound-sum", "EQ-BOUND-SUM has no certified value: a rule for errors"),
        ("kl", "kl needs rho, rho_hat."),
        ("kl 0.05", "kl needs rho_hat."),
        ("kl 0.05 0.2 0.3", "kl takes rho, rho_hat. There is nothing left for 0.3."),
        ("kl 0.05 0.2 --rho 0.1", "There is nothing left for 0.2."),
        ("kl 0.05 1.5", "`rho_hat` must lie in [0, 1]. Received 1.5"),
        ("kl 2 0.5", "`rho` must lie in [0.0, 1.0]. Received 2."),
        ("kl 0.05 NaN", "`rho_hat` must be finite. Received nan."),
        ("kl 0.05 word", "`rho_hat` must be an array of real numbers."),
        ("kl 0.05 [0.1,[0.2]]", "`rho_hat` must be an array that NumPy can read"),
        ("kl 0.05 0.2 --nothing 3", "unrecognized arguments: --nothing 3"),
        ("kl 0.05 0.2 --digits 0", "`digits` must be an integer in [1, 1000]. Received 0."),
        ("kl 0.05 0.2 --digits x", "argument --digits: invalid int value: 'x'"),
        ("kl 0.05 0.2 --sizes 1 2 1", "kl has no network: --sizes has no meaning."),
        ("cost --rho 0.1 --beta 1 --weight-decay 0", "(--sizes and --seed, or --inputs)"),
        ("cost --sizes 4 2 4 --beta 1 --weight-decay 0", "cost needs rho."),
        ("cost --sizes 4 0 4 --rho .1 --beta 1 --weight-decay 0", "`sizes` must "),
        ("cost --sizes 4 2 4 --rho .1 --beta -1 --weight-decay 0", "`beta` must lie in"),
        ("cost --sizes 4 2 4 --samples 0 --rho .1 --beta 1 --weight-decay 0", "`x` must have"),
        ("cost --inputs nowhere.json", "nowhere.json cannot be read: "),
        ("orthogonal [[1,2]]", "`weights` must have at least two rows."),
        ("sparsity [[0.5]] 0.1 1 --mask [true,false]", "`mask` must have the shape"),
        ("sparsity [[0.5]] 0.1 1 --mask [false]", "`mask` must leave at least one position."),
        ("log-mean-exp []", "`values` must have at least one sample."),
    ],
)
def test_an_error_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    status, lines, err = printed(capsys, *arguments.split())
    assert (status, lines) == (2, [])
    assert err.startswith("python -m reference.certified")
    assert message in err
    assert len(err.splitlines()) == 1


@needs_flint
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", "[1]", "it must hold an object"),
        ("a.json", '{"rho": 0.1, "sigma": 1}', "holds sigma, which is no input of cost"),
        ("a.json", '{"kernels": [[[1.0]]]}', "holds no biases"),
        ("a.json", '{"kernels": [[[1]]], "biases": [[1]], "tied": "no"}', "`tied` must be"),
        ("a.json", '{"kernels": [[[1.0]]], "biases": [[1.0, 2.0]]}', "`biases[0]` must have"),
        ("a.npz", "not a zip", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    status, lines, err = printed(capsys, "cost", "--inputs", str(tmp_path / name))
    assert (status, lines) == (2, [])
    assert message in err
    assert len(err.splitlines()) == 1


@needs_flint
def test_labels_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, _ = printed(capsys, "labels")
    assert status == 0
    assert [line.split(":")[0] for line in lines] == list(reference.equations())


def test_without_python_flint_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where python-flint is installed: hidden from a process of its own."""
    monkeypatch.setattr(certified, "INSTALLED", False)
    with pytest.raises(ImportError, match="sae-oracle"):
        certified.certify(certified.sigmoid, 0.0)
    run = subprocess.run(
        [sys.executable, "-m", "reference.certified", "kl", "0.05", "0.2"],
        capture_output=True,
        text=True,
        env=environment(hidden=("flint",)),
        cwd=ROOT,
    )
    assert run.returncode == 2
    assert run.stderr == f"python -m reference.certified: {certified.NEEDS}\n"
    assert "pip install 'sae-oracle[certified]'" in run.stderr
    assert run.stdout == ""


if __name__ == "__main__":
    if not certified.INSTALLED:
        sys.exit(certified.NEEDS)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    result, is_outside = survey(range(count))
    for line in unexpected(is_outside):
        print(line)
    if unexpected(is_outside):
        sys.exit("The page is not written: the truth is outside a bound in a way not known yet.")
    (ROOT / "docs" / "certified.md").write_text(page(result, is_outside, count), encoding="utf-8")
