"""What a combination should cost and train: sums of problems that `reference` solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import reference
from reference.bounds import BoundedParameters, at_least_float32, without_bounds
from reference.rounding import Arithmetic, Bounded, exact, precision_named


def wide_arithmetic(precision: str) -> Arithmetic:
    """The rules for penalties, reductions and parameters: at least float32."""
    return Arithmetic(at_least_float32(precision_named(precision)))


def bounded(parameters: reference.Parameters | BoundedParameters) -> BoundedParameters:
    return parameters if isinstance(parameters, BoundedParameters) else without_bounds(parameters)


@dataclass(frozen=True, eq=False)
class Expected:
    """A cost and its gradient by each kernel, then by each bias; each a value with its bound."""

    arithmetic: Arithmetic
    cost: Bounded
    gradient: tuple[Bounded, ...]

    def __add__(self, other: Expected) -> Expected:
        add = self.arithmetic.add
        return Expected(
            self.arithmetic,
            add(self.cost, other.cost),
            tuple(map(add, self.gradient, other.gradient)),
        )

    def __rmul__(self, factor: float) -> Expected:
        number = self.arithmetic.number(factor)
        return Expected(
            self.arithmetic,
            self.arithmetic.multiply(number, self.cost),
            tuple(self.arithmetic.multiply(number, g) for g in self.gradient),
        )

    def step(
        self, parameters: reference.Parameters | BoundedParameters, rate: float
    ) -> BoundedParameters:
        """θ − α ∂J/∂θ."""
        start = bounded(parameters)
        number = self.arithmetic.number(rate)
        stepped = [
            self.arithmetic.subtract(theta, self.arithmetic.multiply(number, slope))
            for theta, slope in zip([*start.kernels, *start.biases], self.gradient, strict=True)
        ]
        kernels = len(start.kernels)
        return BoundedParameters(tuple(stepped[:kernels]), tuple(stepped[kernels:]), start.tied)


def ngs_cost(
    parameters: reference.Parameters | BoundedParameters,
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    precision: str = "float32",
    rho: float,
    beta: float,
    weight_decay: float,
    epsilon: float,
    from_logits: bool = False,
) -> Expected:
    """J of one set of rows, the reconstruction of each row times its weight.

    With weights it is J − R + (1/m) Σᵢ wᵢ rᵢ, with R the reconstruction of all rows and rᵢ that of
    one: each by `reference`, with its bound, and the bounds add up.
    """
    wide = wide_arithmetic(precision)

    def solved(x: Any, y: Any, **terms: Any) -> tuple[reference.BoundedCost, tuple[Bounded, ...]]:
        step = reference.cost_and_gradient_with_bounds(
            parameters,
            x,
            y=y,
            rho=rho,
            epsilon=epsilon,
            from_logits=from_logits,
            precision=precision,
            **terms,
        )
        return step.cost, (*step.gradient.kernels, *step.gradient.biases)

    if len(x) == 0:
        units = bounded(parameters).kernels[0].value.shape[1]
        nothing = nothing_but_decay(parameters, weight_decay, precision)
        # Of a mean of nothing, ρ̂ = ρ may be taken: its divergence is 0 up to rounding.
        at_rho = np.full((1, units), rho)
        zero, _ = reference.kl_sparsity_with_bounds(at_rho, rho, beta, precision=precision)
        return Expected(wide, wide.add(nothing.cost, zero), nothing.gradient)
    cost, gradient = solved(x, y, beta=beta, weight_decay=weight_decay)
    if weights is None:
        return Expected(wide, cost.total, gradient)
    unpenalised = {"beta": 0.0, "weight_decay": 0.0}
    _, of_reconstruction = solved(x, y, **unpenalised)
    rows = [solved(x[i : i + 1], y[i : i + 1], **unpenalised) for i in range(len(x))]
    weighted = sum_of(
        [
            (float(w) / len(x)) * Expected(wide, row.reconstruction, by_row)
            for w, (row, by_row) in zip(weights, rows, strict=True)
        ]
    )
    penalties = Expected(
        wide,
        wide.add(cost.weight_decay, cost.sparsity),
        tuple(
            Bounded(both.value - alone.value, both.bound)
            for both, alone in zip(gradient, of_reconstruction, strict=True)
        ),
    )
    return weighted + penalties


def nothing_but_decay(
    parameters: reference.Parameters | BoundedParameters, weight_decay: float, precision: str
) -> Expected:
    """J of no rows: (λ/2)‖W‖²; nothing is reconstructed and nothing is active."""
    wide = wide_arithmetic(precision)
    start = bounded(parameters)
    terms = [
        wide.multiply(wide.number(weight_decay / 2), wide.sum_of_squares(k)) for k in start.kernels
    ]
    cost = terms[0]
    for term in terms[1:]:
        cost = wide.add(cost, term)
    return Expected(
        wide,
        cost,
        (
            *(wide.multiply(wide.number(weight_decay), kernel) for kernel in start.kernels),
            *(exact(np.zeros_like(bias.value)) for bias in start.biases),
        ),
    )


def sum_of(parts: Sequence[Expected]) -> Expected:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def output_of(parameters: reference.Parameters, x: Any, precision: str) -> Bounded:
    """h(x) with its bound, of sigmoid layers."""
    compute = Arithmetic(precision)
    start = bounded(parameters)
    a = compute.cast(exact(x))
    for kernel, bias in zip(start.layer_kernels, start.biases, strict=True):
        z = compute.affine(a, compute.cast(kernel), compute.cast(bias))
        a, _ = compute.activation("sigmoid", z)
    return a
