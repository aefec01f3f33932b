"""Certified digits: every labelled quantity that has a value, as a ball whose radius is proved.

    python -m reference.certified kl 0.05 0.2

A ball is a number and a radius; it holds the exact value that the notes define for inputs taken
exactly as they are (float64 numbers). Arb (python-flint) encloses the rounding of every operation,
and `certify` raises the precision until the digits that are asked for are certain.

The formulas are written from the notes once more and share no code with the oracle: only
`Parameters` and the checks of arguments are its own. A formula takes numbers or balls, and works
at the precision that is set; `certify` sets it. Needs the extra `certified`; `import reference`
does not import this module.

Balls compare with care: `q < 1` is true where every number of the ball is below 1, and both
`q == 1` and `q != 1` are false where it is not decided.

Sources: Andrew Ng, CS294A lecture notes, "Sparse autoencoder"; F. Johansson, "Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic", IEEE Transactions on Computers 66 (2017).
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from reference.equations import equations
from reference.network import Parameters
from reference.network import initialise as initial_parameters
from reference.validation import (
    each,
    extension_edge,
    flag,
    instance,
    integer,
    non_negative,
    real_array,
    real_number,
    sparsity_of_layers,
    sparsity_target,
    truth_array,
)

__all__ = ["CERTIFIED", "Gradients", "Network", "Propagated", "Terms", "certify", "text"]

NEEDS = "Certified digits need python-flint: pip install 'sae-oracle[certified]'."

try:
    from flint import arb, arb_mat, ctx
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

Balls = Any
"""A ball (`flint.arb`), or an array of them (NumPy, dtype object)."""

MOST_BITS = 16384
"""The highest precision that is tried. A value that is 0 for a reason that arithmetic does not
see (a sum of tanh(z) and tanh(−z)) has no certain digit at any."""

MOST_BITS_OF_MANY = 1280
"""The same for a thousand balls or more."""


def certify(formula: Callable[..., Any], *arguments: Any, digits: int = 30, **named: Any) -> Any:
    """Return the balls of a formula, each with so many certain digits.

    Args:
        formula: A function of this module.
        *arguments: Its arguments, as the oracle's function of the same name takes them.
        digits: How many decimal digits each ball is to have: radius ≤ 10^−digits·|value|. A ball
            around 0 has none; its radius is then as small as `MOST_BITS` makes it.
        **named: Its named arguments.

    Raises:
        ImportError: If python-flint is not installed.
        TypeError, ValueError: If an argument leaves its range, as the oracle says it.

    >>> certify(kl_divergence, 0.05, 0.2).str(30, radius=False)
    '0.0939430260243317363649915658398'
    """
    if not INSTALLED:
        raise ImportError(NEEDS)
    if isinstance(digits, bool) or not isinstance(digits, int) or not 1 <= digits <= 1000:
        raise ValueError(f"`digits` must be an integer in [1, 1000]. Received {digits!r}.")
    bits = math.ceil(digits * math.log2(10.0)) + 1
    precision = bits + 64
    while True:
        with ctx.workprec(precision):
            value = formula(*arguments, **named)
        found = [ball for _, ball in leaves(value)]
        most = MOST_BITS if len(found) < 1000 else MOST_BITS_OF_MANY
        if precision >= most or all(_certain(ball, bits) for ball in found):
            return value
        precision *= 2


def _certain(ball: arb, bits: int) -> bool:
    # An exact ball has no radius; NaN has no digits.
    return ball.rel_accuracy_bits() >= bits or is_infinite(ball)


def is_infinite(ball: arb) -> bool:
    """Whether the exact value is +∞ or −∞, and certainly.

    >>> is_infinite(arb.pos_inf() + arb(2).log()), is_infinite(arb(0).log())
    (True, False)
    """
    return not ball.mid().is_finite() and not ball.is_nan() and ball.rad().is_finite()


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Balls]]:
    """Yield every ball of what a formula returns, with where it is.

    >>> [where for where, _ in leaves(certify(pack, Parameters([[[1.0]]], [[2.0]])))]
    ['[0]', '[1]']
    """
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        for field, part in value._asdict().items():
            yield from leaves(part, f"{name}.{field}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from leaves(part, f"{name}[{i}]")
    elif isinstance(value, np.ndarray):
        for index, ball in np.ndenumerate(value):
            yield f"{name}[{', '.join(map(str, index))}]", ball
    else:
        yield name, value


# --- numbers, arrays and matrices of balls ---------------------------------------------------


def _ball(value: Any) -> arb:
    return value if isinstance(value, arb) else arb(float(value))


def _balls(name: str, value: Any, *, ndim: int | None = None, finite: bool = True) -> Balls:
    """The balls of an array of real numbers, exactly; balls as they are."""
    if isinstance(value, arb):
        return value
    is_object = isinstance(value, np.ndarray) and value.dtype == object
    if is_object and all(isinstance(ball, arb) for ball in value.flat):
        return value
    return np.frompyfunc(arb, 1, 1)(real_array(name, value, ndim=ndim, finite=finite))


def _each(function: Callable[..., arb], *arrays: Balls) -> Balls:
    return np.frompyfunc(function, len(arrays), 1)(*arrays)


def _sum(array: Balls) -> Balls:
    return np.sum(array) if np.size(array) else arb(0)


def _squares(array: Balls) -> Balls:
    return _each(lambda t: t * t, array)


def _product(a: Balls, b: Balls) -> Balls:
    product = arb_mat(a.tolist()) * arb_mat(b.tolist())
    balls = np.empty(a.shape[0] * b.shape[1], dtype=object)
    balls[:] = product.entries()
    return balls.reshape(a.shape[0], b.shape[1])


def _zeros(shape: Any) -> Balls:
    return np.full(shape, arb(0), dtype=object)


def _samples(name: str, value: Any) -> Balls:
    """(..., units) as (samples, units)."""
    array = _balls(name, value)
    if np.ndim(array) < 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have shape (samples, ..., units) with at least one sample and one "
            f"unit. Received an array of shape {np.shape(array)}."
        )
    return array.reshape(-1, array.shape[-1])


# --- activations -----------------------------------------------------------------------------


def sigmoid(z: Any) -> Balls:
    """EQ-SIGMOID: f(z) = 1/(1 + e⁻ᶻ). Notes, §1."""
    return _each(lambda t: 1 / (1 + (-t).exp()), _balls("z", z, finite=False))


def sigmoid_derivative(z: Any) -> Balls:
    """EQ-SIGMOID-DERIVATIVE: f(z)(1 − f(z)), which is 1/(2 + 2 cosh z). Notes, §1."""
    return _each(lambda t: 1 / (2 + 2 * t.cosh()), _balls("z", z, finite=False))


def log_sigmoid(z: Any) -> Balls:
    """EQ-LOG-SIGMOID: −log(1 + e⁻ᶻ), the logarithm of EQ-SIGMOID."""
    return _each(lambda t: -(-t).exp().log1p(), _balls("z", z, finite=False))


def tanh(z: Any) -> Balls:
    """EQ-TANH: (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ). Notes, §1."""
    return _each(lambda t: t.tanh(), _balls("z", z, finite=False))


def tanh_derivative(z: Any) -> Balls:
    """EQ-TANH-DERIVATIVE: 1 − f(z)², which is 1/cosh² z. Notes, §1."""
    return _each(lambda t: t.sech() ** 2, _balls("z", z, finite=False))


def relu(z: Any) -> Balls:
    """EQ-RELU: the larger of z and 0."""
    return _each(lambda t: t.max(arb(0)), _balls("z", z, finite=False))


def relu_derivative(z: Any) -> Balls:
    """EQ-RELU-DERIVATIVE: 1 for z > 0, else 0; [0, 1] where the sign of z is not certain."""

    def step(t: arb) -> arb:
        if t > 0:
            return arb(1)
        return arb(0) if t <= 0 else arb(0.5, 0.5)

    return _each(step, _balls("z", z, finite=False))


def linear(z: Any) -> Balls:
    """EQ-LINEAR: z itself."""
    return _balls("z", z, finite=False)


def linear_derivative(z: Any) -> Balls:
    """EQ-LINEAR-DERIVATIVE: 1."""
    return _each(lambda t: arb(1), _balls("z", z, finite=False))


_FUNCTIONS = {
    "sigmoid": (sigmoid, sigmoid_derivative),
    "tanh": (tanh, tanh_derivative),
    "relu": (relu, relu_derivative),
    "linear": (linear, linear_derivative),
}


# --- the divergence --------------------------------------------------------------------------


def _refuse_outside(q: arb) -> None:
    if q < 0 or q > 1:
        raise ValueError(f"`rho_hat` must lie in [0, 1]. Received {q.str(17, radius=False)}.")


def _kl(rho: arb, q: arb, rest: arb) -> arb:
    """KL of ρ and ρ̂ = q; `rest` is 1 − q, as well as it is known."""
    _refuse_outside(q)
    if q == rho:
        return arb(0)
    if (q == 0 and rho > 0) or (q == 1 and rho < 1):
        return arb.pos_inf()
    value = arb(0)
    if rho > 0:
        value += rho * (rho / q).log()
    if rho < 1:
        value += (1 - rho) * ((-rho).log1p() - ((-q).log1p() if q < 0.5 else rest.log()))
    return value


def _kl_slope(rho: arb, q: arb, rest: arb) -> arb:
    """−ρ/q + (1 − ρ)/(1 − q) over one denominator: exactly 0 where q is ρ."""
    _refuse_outside(q)
    if rho == 0:
        return arb.pos_inf() if q == 1 else 1 / rest
    if rho == 1:
        return arb.neg_inf() if q == 0 else -1 / q
    if q == 0:
        return arb.neg_inf()
    return arb.pos_inf() if q == 1 else (q - rho) / (q * rest)


def _extended(rho: arb, e: arb, q: arb, rest: arb) -> arb:
    """KL between e and 1 − e, its tangents beyond; e = 0: KL itself."""
    if e == 0 or (q >= e and rest >= e):
        return _kl(rho, q, rest)
    r, rest_of_r = q.max(e).min(1 - e), rest.max(e).min(1 - e)
    return _kl(rho, r, rest_of_r) + _kl_slope(rho, r, rest_of_r) * (q - r)


def _extended_slope(rho: arb, e: arb, q: arb, rest: arb) -> arb:
    if e == 0:
        return _kl_slope(rho, q, rest)
    return _kl_slope(rho, q.max(e).min(1 - e), rest.max(e).min(1 - e))


def kl_divergence(rho: Any, rho_hat: Any) -> Balls:
    """EQ-KL: ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂)). Notes, §3."""
    rho_hat = _balls("rho_hat", rho_hat)
    p = _balls("rho", sparsity_target(rho, np.shape(rho_hat), ends=True))
    return _each(lambda p, q: _kl(p, q, 1 - q), p, rho_hat)


def kl_divergence_derivative(rho: Any, rho_hat: Any) -> Balls:
    """EQ-KL-DERIVATIVE: −ρ/ρ̂ + (1 − ρ)/(1 − ρ̂). Notes, §3."""
    rho_hat = _balls("rho_hat", rho_hat)
    p = _balls("rho", sparsity_target(rho, np.shape(rho_hat), ends=True))
    return _each(lambda p, q: _kl_slope(p, q, 1 - q), p, rho_hat)


def extended_kl_divergence(rho: Any, rho_hat: Any, epsilon: Any) -> Balls:
    """EQ-KL-EXTENSION: EQ-KL between ε and 1 − ε, both exact, and its tangents beyond."""
    rho_hat = _balls("rho_hat", rho_hat)
    p, e = _targets_and_edge(rho, epsilon, rho_hat)
    return _each(lambda p, q: _extended(p, e, q, 1 - q), p, rho_hat)


def extended_kl_divergence_derivative(rho: Any, rho_hat: Any, epsilon: Any) -> Balls:
    """EQ-KL-EXTENSION-DERIVATIVE: EQ-KL-DERIVATIVE at the nearest point of [ε, 1 − ε]."""
    rho_hat = _balls("rho_hat", rho_hat)
    p, e = _targets_and_edge(rho, epsilon, rho_hat)
    return _each(lambda p, q: _extended_slope(p, e, q, 1 - q), p, rho_hat)


def _targets_and_edge(rho: Any, epsilon: Any, rho_hat: Balls) -> tuple[Balls, arb]:
    """ρ of all units, or of each; and ε."""
    rho = sparsity_target(rho, np.shape(rho_hat))
    return _balls("rho", rho), _ball(extension_edge(epsilon, rho))


def log_mean_exp(values: Any) -> Balls:
    """EQ-LOG-MEAN-EXP: log((1/m) Σᵢ exp(vᵢ)), over the first axis."""
    v = _balls("values", values)
    if np.ndim(v) == 0 or len(v) == 0:
        raise ValueError(
            f"`values` must have at least one sample. Received an array of shape {np.shape(v)}."
        )
    return _each(lambda t: t.log(), np.sum(_each(lambda t: t.exp(), v), axis=0) / len(v))


def _means_of_sigmoids(z: Balls) -> tuple[Balls, Balls]:
    """ρ̂ and 1 − ρ̂ of each unit, the second as the mean of 1 − f(z) = f(−z)."""
    return np.sum(sigmoid(z), axis=0) / len(z), np.sum(sigmoid(-z), axis=0) / len(z)


def kl_divergence_from_logits(rho: Any, logits: Any) -> Balls:
    """EQ-KL-LOGITS: EQ-KL of the mean of EQ-SIGMOID, for each unit."""
    z = _samples("logits", logits)
    p = _balls("rho", sparsity_target(rho, np.shape(z)))
    return _each(_kl, p, *_means_of_sigmoids(z))


def kl_divergence_from_logits_derivative(rho: Any, logits: Any) -> Balls:
    """EQ-KL-LOGITS-DERIVATIVE: EQ-KL-DERIVATIVE at the mean, times f′(zᵢ)/m."""
    z = _samples("logits", logits)
    p = _balls("rho", sparsity_target(rho, np.shape(z)))
    slopes = _each(_kl_slope, p, *_means_of_sigmoids(z))
    return (slopes * sigmoid_derivative(z) / len(z)).reshape(np.shape(logits))


# --- mean activations ------------------------------------------------------------------------


def _valid(activations: Any, mask: Any) -> Any:
    """Which samples count, as a flat array of booleans."""
    shape = np.shape(activations)[:-1]
    if mask is None:
        return np.ones(math.prod(shape), dtype=bool)
    valid = truth_array("mask", mask)
    if valid.shape != shape:
        raise ValueError(
            f"`mask` must have the shape of `activations` without its last axis, {shape}. "
            f"Received {valid.shape}."
        )
    if not valid.any():
        raise ValueError("`mask` must leave at least one position. Received all false.")
    return valid.ravel()


def mean_activation(activations: Any, mask: Any = None, *, symmetric: bool = False) -> Balls:
    """EQ-RHO-HAT: (1/m) Σᵢ aⱼ(xᵢ), or of (1 + a)/2 (footnote 3). Notes, §3."""
    a = _samples("activations", activations)[_valid(activations, mask)]
    if flag("symmetric", symmetric):
        a = (1 + a) / 2
    return np.sum(a, axis=0) / len(a)


def mean_activation_of_chunks(chunks: Iterable[Any]) -> Balls:
    """EQ-RHO-HAT-CHUNKS: EQ-RHO-HAT of all the chunks' samples together."""
    parts = [_samples("chunks", chunk) for chunk in each("chunks", chunks, "arrays")]
    if not parts or len({part.shape[1] for part in parts}) > 1:
        raise ValueError(
            "`chunks` must hold at least one chunk, all with as many units. Received shapes "
            f"{[part.shape for part in parts]}."
        )
    return mean_activation(np.concatenate(parts))


def running_average(previous: Any, batch_mean: Any, momentum: Any) -> Balls:
    """EQ-RHO-HAT-RUNNING: μ ρ̂ + (1 − μ) ρ̂_batch; ρ̂_batch where there is no ρ̂ yet. Hinton, §11."""
    mu = _ball(real_number("momentum", momentum, low=0.0, high=1.0, high_open=True))
    new = _balls("batch_mean", batch_mean, ndim=1)
    if previous is None:
        return new
    old = _balls("previous", previous, ndim=1)
    if old.shape != new.shape:
        raise ValueError(
            f"`previous` must have the shape of `batch_mean`, {new.shape}. Received {old.shape}."
        )
    return mu * old + (1 - mu) * new


# --- the network -----------------------------------------------------------------------------


class Network(NamedTuple):
    """Kernels and biases as balls; of a tied network the kernels of its first half.

    Args:
        kernels: (inputs, units) each.
        biases: (units,) each.
        tied: Whether the second half uses the first half's kernels transposed.
    """

    kernels: list[Balls]
    biases: list[Balls]
    tied: bool

    @property
    def of_layers(self) -> list[Balls]:
        """The kernel of each layer."""
        return self.kernels + [k.T for k in self.kernels[::-1]] if self.tied else self.kernels


def _network(parameters: Any, name: str = "parameters") -> Network:
    if isinstance(parameters, Network):
        return parameters
    parameters = instance(name, parameters, Parameters)
    return Network(
        [_balls("kernels", kernel) for kernel in parameters.kernels],
        [_balls("biases", bias) for bias in parameters.biases],
        parameters.tied,
    )


def pack(parameters: Any) -> Balls:
    """EQ-PACK: all kernels, row by row, then all biases. Assignment."""
    network = _network(parameters)
    return np.concatenate([array.ravel() for array in (*network.kernels, *network.biases)])


def unpack(vector: Any, like: Any) -> Network:
    """EQ-UNPACK: what EQ-PACK has packed. Assignment."""
    theta, network = _balls("vector", vector, ndim=1), _network(like, "like")
    count = sum(array.size for array in (*network.kernels, *network.biases))
    if len(theta) != count:
        raise ValueError(f"`vector` must have {count} elements. Received {len(theta)}.")
    numbers = iter(theta)

    def next_like(array: Balls) -> Balls:
        return np.array(list(itertools.islice(numbers, array.size)), object).reshape(array.shape)

    return Network(
        [next_like(kernel) for kernel in network.kernels],
        [next_like(bias) for bias in network.biases],
        network.tied,
    )


def initialise(sizes: Sequence[int], seed: int, *, tied: bool = False) -> Network:
    """EQ-INIT: (2U − 1) √(6/(fan_in + fan_out + 1)), U uniform in [0, 1), b = 0. Assignment.

    U are the numbers that NumPy's default generator draws with the seed, taken exactly.
    """
    initial_parameters(sizes, seed, tied=tied)  # says what is wrong with the sizes
    generator = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(sizes))
    kernels = []
    for fan_in, fan_out in pairs[: len(pairs) // 2] if tied else pairs:
        limit = (arb(6) / (fan_in + fan_out + 1)).sqrt()
        uniform = _balls("uniform", generator.random((fan_in, fan_out)))
        kernels.append(limit * (2 * uniform - 1))
    return Network(kernels, [_zeros(size) for size in sizes[1:]], tied)


def maximally_exciting_inputs(kernel: Any) -> Balls:
    """EQ-FEATURE: Wᵢⱼ/√(Σⱼ Wᵢⱼ²), a row for each unit. Notes, §4."""
    w = _balls("kernel", kernel, ndim=2)
    squares = np.sum(_squares(w), axis=0)
    for unit, square in enumerate(squares):
        if square == 0:
            raise ValueError(
                f"`kernel` must have a non-zero weight for each unit. Unit {unit} has none."
            )
    return (w / _each(lambda t: t.sqrt(), squares)).T


class Propagated(NamedTuple):
    """The logits of every layer, and the activations, x first."""

    logits: list[Balls]
    activations: list[Balls]


def _names(activation: str, output_activation: str | None, layers: int) -> list[str]:
    for argument, name in (("activation", activation), ("output_activation", output_activation)):
        if name is None and argument == "output_activation":
            continue
        if not isinstance(name, str) or name not in _FUNCTIONS:
            raise ValueError(
                f"`{argument}` must be one of {sorted(_FUNCTIONS)}. Received {name!r}."
            )
    return [activation] * (layers - 1) + [output_activation or activation]


def forward(
    parameters: Any,
    x: Any,
    *,
    activation: str = "sigmoid",
    output_activation: str | None = None,
) -> Propagated:
    """EQ-FORWARD: z = W a + b and a = f(z), layer by layer. Notes, §1, eqs (6)–(7)."""
    network = _network(parameters)
    a = _balls("x", x, ndim=2)
    kernels = network.of_layers
    if len(a) == 0 or a.shape[1] != kernels[0].shape[0]:
        raise ValueError(
            f"`x` must have shape (m, {kernels[0].shape[0]}) with m ≥ 1. Received {a.shape}."
        )
    logits, activations = [], [a]
    names = _names(activation, output_activation, len(kernels))
    for kernel, bias, name in zip(kernels, network.biases, names, strict=True):
        logits.append(_product(activations[-1], kernel) + bias)
        activations.append(_FUNCTIONS[name][0](logits[-1]))
    return Propagated(logits, activations)


# --- the cost --------------------------------------------------------------------------------


class Terms(NamedTuple):
    """The three terms of the cost, and their sum."""

    reconstruction: Balls
    weight_decay: Balls
    sparsity: Balls
    total: Balls


def reconstruction_cost(output: Any, y: Any) -> Balls:
    """EQ-RECONSTRUCTION: (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖². Notes, §2, eq (8)."""
    h, y = _balls("output", output), _balls("y", y)
    if np.shape(h) != np.shape(y) or np.ndim(h) < 2 or len(h) == 0:
        raise ValueError(
            f"`output` and `y` must have one shape, (samples, ..., features), with at least one "
            f"sample. Received {np.shape(h)} and {np.shape(y)}."
        )
    return _sum(_squares(h - y)) / 2 / len(h)


def _how_often(network: Network, tied_decay: int) -> int:
    if integer("tied_decay", tied_decay, low=1) > 2:
        raise ValueError(f"`tied_decay` must be 1 or 2. Received {tied_decay!r}.")
    return tied_decay if network.tied else 1


def weight_decay_cost(parameters: Any, weight_decay: Any, *, tied_decay: int = 1) -> Balls:
    """EQ-DECAY: (λ/2) Σ W², without biases. Notes, §2, eq (8)."""
    network = _network(parameters)
    lambda_ = _ball(non_negative("weight_decay", weight_decay))
    squares = sum((_sum(_squares(kernel)) for kernel in network.kernels), arb(0))
    return lambda_ / 2 * _how_often(network, tied_decay) * squares


def sparsity_cost(
    activations: Any,
    rho: Any,
    beta: Any,
    *,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    mask: Any = None,
) -> Balls:
    """EQ-SPARSITY: β Σⱼ KL(ρⱼ‖ρ̂ⱼ); 0 where β is, whatever the divergence. Notes, §3."""
    rho_hat = mean_activation(activations, mask, symmetric=symmetric)
    return _sparsity(rho, beta, epsilon, rho_hat, 1 - rho_hat)


def _sparsity(rho: Any, beta: Any, epsilon: Any, rho_hat: Balls, rest: Balls) -> Balls:
    b = _ball(non_negative("beta", beta))
    p, e = _targets_and_edge(rho, epsilon, rho_hat)
    divergence = _sum(_each(lambda p, q, rest: _extended(p, e, q, rest), p, rho_hat, rest))
    return arb(0) if b == 0 else b * divergence


def _means(logits: Balls, activations: Balls, name: str, symmetric: bool) -> tuple[Balls, Balls]:
    """ρ̂ and 1 − ρ̂ of each unit of a layer; of a sigmoid both from the logits."""
    if name == "sigmoid" and not flag("symmetric", symmetric):
        return _means_of_sigmoids(logits)
    rho_hat = mean_activation(activations, symmetric=symmetric)
    return rho_hat, 1 - rho_hat


def sparsity_cost_from_logits(logits: Any, rho: Any, beta: Any) -> Balls:
    """EQ-SPARSITY-LOGITS: β times the sum of EQ-KL-LOGITS. Notes, §3."""
    b = _ball(non_negative("beta", beta))
    divergence = _sum(kl_divergence_from_logits(rho, logits))
    return arb(0) if b == 0 else b * divergence


def sparse_autoencoder_cost(
    parameters: Any,
    x: Any,
    *,
    rho: Any,
    beta: Any,
    weight_decay: Any,
    y: Any = None,
    activation: str = "sigmoid",
    output_activation: str | None = None,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    tied_decay: int = 1,
) -> Terms:
    """EQ-COST: EQ-RECONSTRUCTION + EQ-DECAY + EQ-SPARSITY of every hidden layer. Notes, §3."""
    logits, activations = forward(
        parameters, x, activation=activation, output_activation=output_activation
    )
    targets, betas, epsilon = _of_layers(rho, beta, epsilon, activations)
    hidden = zip(targets, betas, logits[:-1], activations[1:-1], strict=False)
    terms = (
        reconstruction_cost(activations[-1], x if y is None else y),
        weight_decay_cost(parameters, weight_decay, tied_decay=tied_decay),
        sum(
            (
                _sparsity(of_layer, weight, epsilon, *_means(z, a, activation, symmetric))
                for of_layer, weight, z, a in hidden
            ),
            arb(0),
        ),
    )
    return Terms(*terms, total=sum(terms, arb(0)))


def _of_layers(
    rho: Any, beta: Any, epsilon: Any, activations: Sequence[Balls]
) -> tuple[list[Any], list[float], float]:
    """ρ and β of each hidden layer, and ε."""
    return sparsity_of_layers(rho, beta, epsilon, [a.shape[1] for a in activations[1:-1]])


# --- the gradient ----------------------------------------------------------------------------


class Gradients(NamedTuple):
    """∂J by kernels, biases and input, and the deltas of every layer."""

    kernels: list[Balls]
    biases: list[Balls]
    x: Balls
    deltas: list[Balls]


def output_delta(output: Any, y: Any, derivative: Any) -> Balls:
    """EQ-DELTA-OUTPUT: (h(x) − y) f′(z)/m: the step 2 of §2.2 with the 1/m of the cost."""
    h, y, f = _balls("output", output), _balls("y", y), _balls("derivative", derivative)
    return (h - y) * f / len(h)


def hidden_delta(next_delta: Any, next_kernel: Any, derivative: Any, sparsity_slope: Any) -> Balls:
    """EQ-DELTA: (Σ W δ + the sparsity's slope) f′(z). Notes, §3."""
    carried = _product(_balls("next_delta", next_delta), _balls("next_kernel", next_kernel).T)
    slope = _balls("sparsity_slope", sparsity_slope)
    return (carried + slope) * _balls("derivative", derivative)


def sparsity_slope(
    rho: Any, beta: Any, rho_hat: Any, m: int, *, epsilon: Any, symmetric: bool
) -> Balls:
    """EQ-SPARSITY-SLOPE: (β/m) KL′(ρ̂ⱼ) with ρⱼ; half of it where ρ̂ is of (1 + a)/2. Notes, §3."""
    q = _balls("rho_hat", rho_hat)
    return _slope(rho, beta, epsilon, q, 1 - q) / (2 * m if flag("symmetric", symmetric) else m)


def _slope(rho: Any, beta: Any, epsilon: Any, rho_hat: Balls, rest: Balls) -> Balls:
    b = _ball(non_negative("beta", beta))
    p, e = _targets_and_edge(rho, epsilon, rho_hat)
    if b == 0:
        return _zeros(np.shape(rho_hat))
    return b * _each(lambda p, q, rest: _extended_slope(p, e, q, rest), p, rho_hat, rest)


def tied_gradient(of_layers: Sequence[Any]) -> list[Balls]:
    """EQ-GRADIENT-TIED: the derivative by a kernel that two layers use is a sum of two."""
    uses = [_balls("of_layers", gradient) for gradient in of_layers]
    return [uses[i] + uses[len(uses) - 1 - i].T for i in range(len(uses) // 2)]


def backpropagate(
    parameters: Any,
    x: Any,
    *,
    rho: Any,
    beta: Any,
    weight_decay: Any,
    y: Any = None,
    activation: str = "sigmoid",
    output_activation: str | None = None,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    tied_decay: int = 1,
) -> Gradients:
    """EQ-GRADIENT: ∂J/∂W = δ aᵀ + λW and ∂J/∂b = Σ δ. Notes, §2.2 and §3."""
    network = _network(parameters)
    logits, activations = forward(
        network, x, activation=activation, output_activation=output_activation
    )
    kernels, m = network.of_layers, len(activations[0])
    of_output = _FUNCTIONS[output_activation or activation][1]
    target = activations[0] if y is None else _balls("y", y, ndim=2)
    if target.shape != activations[-1].shape:
        raise ValueError(
            f"`y` must have the shape of the output, {activations[-1].shape}. "
            f"Received {target.shape}."
        )
    targets, betas, epsilon = _of_layers(rho, beta, epsilon, activations)
    deltas = [output_delta(activations[-1], target, of_output(logits[-1]))]
    for layer in reversed(range(len(kernels) - 1)):
        means = _means(logits[layer], activations[layer + 1], activation, symmetric)
        slope = _slope(targets[layer], betas[layer], epsilon, *means)
        slope = slope / (2 * m if flag("symmetric", symmetric) else m)
        derivative = _FUNCTIONS[activation][1](logits[layer])
        deltas.insert(0, hidden_delta(deltas[0], kernels[layer + 1], derivative, slope))
    of_layers = [_product(a.T, d) for a, d in zip(activations[:-1], deltas, strict=True)]
    if network.tied:
        of_layers = tied_gradient(of_layers)
    decay = _ball(non_negative("weight_decay", weight_decay)) * _how_often(network, tied_decay)
    return Gradients(
        [g + decay * kernel for g, kernel in zip(of_layers, network.kernels, strict=True)],
        [np.sum(d, axis=0) for d in deltas],
        _product(deltas[0], kernels[0].T),
        deltas,
    )


def gradient_descent(
    parameters: Any, x: Any, *, steps: int, learning_rate: Any, **arguments: Any
) -> Network:
    """The value of EQ-BOUND-DESCENT: W ← W − α ∂J/∂W and b ← b − α ∂J/∂b. Notes, §2.2."""
    network = _network(parameters)
    alpha = _ball(non_negative("learning_rate", learning_rate))
    for _ in range(integer("steps", steps, low=0)):
        gradients = backpropagate(network, x, **arguments)
        network = Network(
            [w - alpha * g for w, g in zip(network.kernels, gradients.kernels, strict=True)],
            [b - alpha * g for b, g in zip(network.biases, gradients.biases, strict=True)],
            network.tied,
        )
    return network


def numerical_gradient(parameters: Any, x: Any, *, step: Any = 1e-4, **arguments: Any) -> Balls:
    """EQ-NUMERICAL-GRADIENT of EQ-COST: (J(θ + εeᵢ) − J(θ − εeᵢ))/2ε. Notes, §2.3.

    The steps are taken exactly: θ + ε is not rounded.
    """
    network, e = _network(parameters), _ball(real_number("step", step, low=0.0, low_open=True))
    theta = pack(network)

    def cost(i: int, change: arb) -> arb:
        moved = theta.copy()
        moved[i] += change
        return sparse_autoencoder_cost(unpack(moved, network), x, **arguments).total

    return np.array([(cost(i, e) - cost(i, -e)) / (2 * e) for i in range(len(theta))], object)


# --- regularizers ----------------------------------------------------------------------------


def l1(weights: Any, factor: Any = 0.01) -> Balls:
    """EQ-L1: factor · Σ|w|. Keras documentation."""
    return _ball(real_number("factor", factor)) * _sum(_each(abs, _balls("weights", weights)))


def l1_gradient(weights: Any, factor: Any = 0.01) -> Balls:
    """EQ-L1-GRADIENT: factor · sign(w), 0 at 0."""
    signs = _each(lambda w: w.sgn(), _balls("weights", weights))
    return _ball(real_number("factor", factor)) * signs


def l2(weights: Any, factor: Any = 0.01) -> Balls:
    """EQ-L2: factor · Σw². Keras documentation."""
    return _ball(real_number("factor", factor)) * _sum(_squares(_balls("weights", weights)))


def l2_gradient(weights: Any, factor: Any = 0.01) -> Balls:
    """EQ-L2-GRADIENT: 2 · factor · w."""
    return 2 * _ball(real_number("factor", factor)) * _balls("weights", weights)


def l1_l2(weights: Any, l1_factor: Any = 0.0, l2_factor: Any = 0.0) -> Balls:
    """EQ-L1L2: EQ-L1 + EQ-L2. Keras documentation."""
    factors = real_number("l1_factor", l1_factor), real_number("l2_factor", l2_factor)
    return l1(weights, factors[0]) + l2(weights, factors[1])


def l1_l2_gradient(weights: Any, l1_factor: Any = 0.0, l2_factor: Any = 0.0) -> Balls:
    """EQ-L1L2-GRADIENT: EQ-L1-GRADIENT + EQ-L2-GRADIENT."""
    factors = real_number("l1_factor", l1_factor), real_number("l2_factor", l2_factor)
    return l1_gradient(weights, factors[0]) + l2_gradient(weights, factors[1])


def _vectors(weights: Any, mode: str) -> tuple[Balls, Balls, Balls]:
    """The vectors as rows, their inner products, and what Keras divides each by.

    That is its length, or 10⁻⁷ (the float64 number) where it is shorter.
    """
    matrix = _balls("weights", weights, ndim=2)
    if not isinstance(mode, str) or mode not in ("rows", "columns"):
        raise ValueError(f'`mode` must be "rows" or "columns". Received {mode!r}.')
    rows = matrix if mode == "rows" else matrix.T
    if len(rows) < 2:
        raise ValueError(f"`weights` must have at least two {mode}. Received {matrix.shape}.")
    products = _product(rows, rows.T)
    lengths = _each(lambda t: t.sqrt().max(arb(1e-7)), np.diagonal(products))
    return rows, products, lengths


def orthogonal(weights: Any, factor: Any = 0.01, mode: str = "rows") -> Balls:
    """EQ-ORTHOGONAL: factor · the mean |cosine| of two of the vectors. Keras documentation."""
    _, products, lengths = _vectors(weights, mode)
    pairs = list(itertools.combinations(range(len(lengths)), 2))
    cosines = sum((abs(products[i, j]) / (lengths[i] * lengths[j]) for i, j in pairs), arb(0))
    return _ball(real_number("factor", factor)) * cosines / len(pairs)


def orthogonal_gradient(weights: Any, factor: Any = 0.01, mode: str = "rows") -> Balls:
    """EQ-ORTHOGONAL-GRADIENT: the derivative of EQ-ORTHOGONAL by each weight.

    |wᵢ·wⱼ|/(ℓᵢℓⱼ) has the derivative s (‖wᵢ‖² wⱼ − (wᵢ·wⱼ) wᵢ)/(ℓᵢ³ℓⱼ) by wᵢ, s the sign of the
    product; without the second part where ℓᵢ is the constant 10⁻⁷.
    """
    rows, products, lengths = _vectors(weights, mode)
    k, shortest = len(rows), arb(1e-7)
    gradient = _zeros(rows.shape)
    for i, j in itertools.permutations(range(k), 2):
        square, product = products[i, i], products[i, j]
        along = (square * rows[j] - product * rows[i]) / lengths[i] ** 2
        if square <= shortest**2:
            along = rows[j]
        elif not square > shortest**2:
            # Not certain whether the length is the constant: both are possible.
            along = _each(lambda a, b: a.union(b), along, rows[j])
        gradient[i] = gradient[i] + product.sgn() * along / (lengths[i] * lengths[j])
    gradient = 2 * _ball(real_number("factor", factor)) / (k * (k - 1)) * gradient
    return gradient if mode == "rows" else gradient.T


# --- which labels ----------------------------------------------------------------------------

CERTIFIED: dict[str, Callable[..., Any]] = {
    "EQ-SIGMOID": sigmoid,
    "EQ-SIGMOID-DERIVATIVE": sigmoid_derivative,
    "EQ-LOG-SIGMOID": log_sigmoid,
    "EQ-TANH": tanh,
    "EQ-TANH-DERIVATIVE": tanh_derivative,
    "EQ-RELU": relu,
    "EQ-RELU-DERIVATIVE": relu_derivative,
    "EQ-LINEAR": linear,
    "EQ-LINEAR-DERIVATIVE": linear_derivative,
    "EQ-KL": kl_divergence,
    "EQ-KL-DERIVATIVE": kl_divergence_derivative,
    "EQ-KL-EXTENSION": extended_kl_divergence,
    "EQ-KL-EXTENSION-DERIVATIVE": extended_kl_divergence_derivative,
    "EQ-LOG-MEAN-EXP": log_mean_exp,
    "EQ-KL-LOGITS": kl_divergence_from_logits,
    "EQ-KL-LOGITS-DERIVATIVE": kl_divergence_from_logits_derivative,
    "EQ-RHO-HAT": mean_activation,
    "EQ-RHO-HAT-CHUNKS": mean_activation_of_chunks,
    "EQ-RHO-HAT-RUNNING": running_average,
    "EQ-PACK": pack,
    "EQ-UNPACK": unpack,
    "EQ-INIT": initialise,
    "EQ-FORWARD": forward,
    "EQ-FEATURE": maximally_exciting_inputs,
    "EQ-RECONSTRUCTION": reconstruction_cost,
    "EQ-DECAY": weight_decay_cost,
    "EQ-SPARSITY": sparsity_cost,
    "EQ-SPARSITY-LOGITS": sparsity_cost_from_logits,
    "EQ-COST": sparse_autoencoder_cost,
    "EQ-DELTA-OUTPUT": output_delta,
    "EQ-DELTA": hidden_delta,
    "EQ-GRADIENT": backpropagate,
    "EQ-SPARSITY-SLOPE": sparsity_slope,
    "EQ-GRADIENT-TIED": tied_gradient,
    "EQ-NUMERICAL-GRADIENT": numerical_gradient,
    "EQ-L1": l1,
    "EQ-L1-GRADIENT": l1_gradient,
    "EQ-L2": l2,
    "EQ-L2-GRADIENT": l2_gradient,
    "EQ-L1L2": l1_l2,
    "EQ-L1L2-GRADIENT": l1_l2_gradient,
    "EQ-ORTHOGONAL": orthogonal,
    "EQ-ORTHOGONAL-GRADIENT": orthogonal_gradient,
    "EQ-BOUND-DESCENT": gradient_descent,
}
"""The labels that have a value, and the function of this module that certifies it."""

A_BOUND = "a rule for errors; its value is that of the equations that it bounds"


def not_certified() -> dict[str, str]:
    """Return the labels that have no certified value, and why.

    >>> not_certified()["EQ-BOUND-SUM"] == A_BOUND
    True
    """
    return {
        label: A_BOUND if label.split("-")[1] == "BOUND" else "not written yet"
        for label in equations()
        if label not in CERTIFIED
    }


# --- digits as text --------------------------------------------------------------------------


def text(ball: arb, digits: int = 30) -> str:
    """Return the exact value that a ball holds, rounded to so many digits.

    Where the ball does not decide them all: the digits that it decides, and its radius.

    Args:
        ball: One ball.
        digits: How many significant digits.

    >>> text(arb(2) / 3, 5), text(arb(0)), text(arb(-1.5)), text(arb(1, 0.5), 3)
    ('0.66667', '0', '-1.5', '[1e+0 +/- 0.501]')
    """
    if is_infinite(ball):
        return "inf" if ball > 0 else "-inf"
    if not ball.is_finite():
        return "nan"
    if ball == 0:
        return "0"
    middle, radius = _exactly(ball.mid()), _exactly(ball.rad())
    if middle is None or radius is None:
        return ball.str(digits)
    rounded = _decimal(middle - radius, digits)
    if rounded != _decimal(middle + radius, digits):
        return ball.str(digits)
    # An exact value that ends sooner is written to its end.
    return _decimal(middle, digits, zeros=radius > 0 or Fraction(rounded) != middle)


def _exactly(point: arb) -> Fraction | None:
    """An exact ball as a fraction; `None` if that were too long a number to write down."""
    mantissa, exponent = (int(part) for part in point.man_exp())
    if abs(exponent) > MOST_BITS:
        return None
    return mantissa * Fraction(2) ** exponent


def _decimal(value: Fraction, digits: int, *, zeros: bool = True) -> str:
    """A dyadic fraction to so many significant digits, half to even; `zeros`: also at the end."""
    if value == 0:
        return "0"
    size = abs(value)
    # 2**twos ≤ size, since the denominator is a power of two; 10**power ≤ size < 10**(power + 1).
    twos = size.numerator.bit_length() - size.denominator.bit_length()
    power = math.floor(twos * math.log10(2.0))
    while size >= Fraction(10) ** (power + 1):
        power += 1
    number = round(size * Fraction(10) ** (digits - 1 - power))
    if number == 10**digits:
        number, power = number // 10, power + 1
    figures = str(number) if zeros else str(number).rstrip("0")
    sign = "-" if value < 0 else ""
    if -5 <= power < digits:
        if power < 0:
            return f"{sign}0.{'0' * (-power - 1)}{figures}"
        figures = figures.ljust(power + 1, "0")
        rest = f".{figures[power + 1 :]}" if len(figures) > power + 1 else ""
        return f"{sign}{figures[: power + 1]}{rest}"
    rest = f".{figures[1:]}" if len(figures) > 1 else ""
    return f"{sign}{figures[0]}{rest}e{power:+d}"


# --- the command -----------------------------------------------------------------------------

DESCRIPTION = """\
Print certified digits of a labelled equation: the exact value for inputs that are the float64
numbers nearest to what is written, rounded to --digits digits, every one of them proved.
Exit status: 0 printed, 2 it could not be.
"""

EXAMPLES = """\
examples:
  python -m reference.certified kl 0.05 0.2
  python -m reference.certified kl-extension 0.05 '[0.0, 0.5, 1.5]' --epsilon 1e-6
  python -m reference.certified l2 '[[1, -2]]' 0.01
  python -m reference.certified cost --sizes 4 2 4 --seed 0 --rho 0.05 --beta 3 --weight-decay 1e-4
  python -m reference.certified gradient --inputs case.json --digits 50
  python -m reference.certified labels

A value is a number, text, true, false, null, or a list (JSON); values stand in the order of the
function's arguments, or behind their names. FILE is JSON ({"rho": 0.05, "kernels": [[[...]]]}) or
.npz, in which kernels_0, kernels_1, ... are a list. --sizes makes the network of EQ-INIT with
--seed, as reference.initialise gives it, and --samples rows x, uniform in [0, 1) with the same
seed: numpy.random.default_rng(seed).random((samples, sizes[0])).
"""


class _OneLine(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


NETWORKS = ("parameters", "like")
"""What a network is called among the arguments."""


def _label_named(name: str) -> str:
    label = name.upper().replace("_", "-")
    label = label if label.startswith("EQ-") else f"EQ-{label}"
    if label in CERTIFIED:
        return label
    if label in equations():
        raise ValueError(f"{label} has no certified value: {not_certified()[label]}.")
    raise ValueError(
        f"There is no equation {label}. Try one of "
        f"{', '.join(known.removeprefix('EQ-').lower() for known in CERTIFIED)}."
    )


def _value(written: str) -> Any:
    for read in (json.loads, float):
        try:
            return read(written)
        except ValueError:
            continue
    return written


def _parameters_of(formula: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a formula; where it passes some on to the cost, also those."""
    found = dict(inspect.signature(formula).parameters)
    if found.pop("arguments", None) is not None:
        of_cost = inspect.signature(sparse_autoencoder_cost).parameters
        found |= {name: argument for name, argument in of_cost.items() if name not in found}
    return found


def _read(path: Path) -> dict[str, Any]:
    """The inputs in a file; of an .npz those with a number at the end are a list."""
    if path.suffix == ".npz":
        found: dict[str, Any] = {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in sorted(arrays.files, key=lambda n: (len(n), n)):
                array = arrays[name]
                stem, _, number = name.rpartition("_")
                if number.isdigit():
                    found.setdefault(stem, []).append(array)
                else:
                    found[name] = array.item() if array.ndim == 0 else array
        return found
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it must hold an object with a name for each input")
    return content


def _inputs(
    chosen: argparse.Namespace, expected: dict[str, inspect.Parameter], given: dict[str, Any]
) -> dict[str, Any]:
    """All arguments of a formula, by name."""
    found: dict[str, Any] = {}
    network_name = next((name for name in NETWORKS if name in expected), None)

    def add(name: str, value: Any) -> None:
        if name in found:
            raise ValueError(f"`{name}` is given twice.")
        found[name] = value

    if chosen.inputs is not None:
        try:
            content = _read(chosen.inputs)
        except (OSError, ValueError) as error:
            raise ValueError(f"{chosen.inputs} cannot be read: {error}") from error
        network = {"kernels", "biases", "tied"} if network_name is not None else set()
        unknown = sorted(set(content) - set(expected) - network)
        if unknown:
            raise ValueError(
                f"{chosen.inputs} holds {', '.join(unknown)}, which is no input of {chosen.label}. "
                f"Its inputs are {', '.join([*sorted(network), *expected])}."
            )
        if network_name is not None and network & set(content):
            missing = sorted({"kernels", "biases"} - set(content))
            if missing:
                raise ValueError(f"{chosen.inputs} holds no {' and no '.join(missing)}.")
            add(
                network_name,
                Parameters(
                    content.pop("kernels"),
                    content.pop("biases"),
                    tied=content.pop("tied", False),
                ),
            )
        for name, value in content.items():
            add(name, value)
    for name, value in given.items():
        add(name, value)
    names = [name for name in expected if name not in found]
    if len(chosen.values) > len(names):
        raise ValueError(
            f"{chosen.label} takes {', '.join(expected)}. There is nothing left for "
            f"{' '.join(written.strip() for written in chosen.values[len(names) :])}."
        )
    if chosen.sizes is not None:
        if "sizes" in expected:
            add("sizes", tuple(chosen.sizes))
            add("seed", chosen.seed)
            add("tied", chosen.tied)
        elif network_name is not None:
            add(network_name, initial_parameters(chosen.sizes, chosen.seed, tied=chosen.tied))
            if "x" in expected and "x" not in found:
                generator = np.random.default_rng(chosen.seed)
                add("x", generator.random((chosen.samples, chosen.sizes[0])))
        else:
            raise ValueError(f"{chosen.label} has no network: --sizes has no meaning.")
    names = [name for name in expected if name not in found]
    for name, written in zip(names, chosen.values, strict=False):
        add(name, _value(written))
    missing = [
        name
        for name, argument in expected.items()
        if name not in found and argument.default is inspect.Parameter.empty
    ]
    if missing:
        network_help = " (--sizes and --seed, or --inputs)" if network_name in missing else ""
        raise ValueError(f"{chosen.label} needs {', '.join(missing)}{network_help}.")
    return {name: found[name] for name in expected if name in found}


def _described(name: str, value: Any) -> str:
    if isinstance(value, Parameters):
        return f"{name} of sizes {value.sizes}{', tied' if value.tied else ''}"
    if isinstance(value, np.ndarray):
        return f"{name} = {value.tolist()}" if value.size <= 4 else f"{name} of shape {value.shape}"
    return f"{name} = {value!r}"


def _table() -> str:
    return "\n".join(
        f"{label}: {equation.formula if label in CERTIFIED else not_certified()[label] + '.'}"
        for label, equation in equations().items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _OneLine(
        prog="python -m reference.certified",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    parser.add_argument("label", help='such as kl or EQ-KL; "labels" lists them')
    parser.add_argument("values", nargs="*", help="the function's arguments, in their order")
    parser.add_argument("--digits", type=int, default=30, help="significant digits (default: 30)")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="arguments by name")
    parser.add_argument("--sizes", type=int, nargs="+", help="units of each layer, inputs first")
    parser.add_argument("--seed", type=int, default=0, help="of weights and samples (default: 0)")
    parser.add_argument("--samples", type=int, default=3, help="rows of x (default: 3)")
    parser.add_argument("--tied", action="store_true", help="a tied network")
    # A negative number that argparse would take for an option is none behind a space.
    written = sys.argv[1:] if arguments is None else arguments
    written = [f" {part}" if isinstance(_value(part), (int, float)) else part for part in written]
    chosen, rest = parser.parse_known_args(written)
    if chosen.label == "labels":
        print(_table())
        return 0
    try:
        label = _label_named(chosen.label)
        formula = CERTIFIED[label]
        expected = _parameters_of(formula)
        of_formula = _OneLine(prog=f"{parser.prog} {chosen.label}", add_help=False)
        own = {"sizes", "seed", "tied", *NETWORKS}
        for name in expected:
            if name not in own:
                of_formula.add_argument(
                    f"--{name.replace('_', '-')}",
                    dest=name,
                    type=_value,
                    default=argparse.SUPPRESS,
                )
        given = vars(of_formula.parse_args(rest))
        inputs = _inputs(chosen, expected, given)
        value = certify(formula, **inputs, digits=chosen.digits)
    except (TypeError, ValueError, ImportError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    described = [_described(name, value) for name, value in inputs.items()]
    lines = [f"{label}: {equations()[label].formula}", f"{label}: {', '.join(described)}"]
    lines += [f"{label}{where} = {text(ball, chosen.digits)}" for where, ball in leaves(value)]
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
