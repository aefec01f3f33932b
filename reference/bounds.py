"""Each term of the cost and each element of its gradient, with a bound for a right computation.

The formulas are those of `reference.cost` and `reference.gradient`, written once more in the
rules of `reference.rounding`, so that value and bound travel together through the network. A test
holds the values to the plain oracle. `precision` is the format of activations, products and
deltas; penalties and reductions to a scalar are in at least float32, and parameters are stored in
at least float32 (Keras's mixed policies).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from reference.cost import CostArguments, decay_multiplicity, outputs_and_targets
from reference.estimators import valid_samples
from reference.likely import LikelyArithmetic, likely_factor
from reference.network import Parameters, layer_activations, sample_rows
from reference.regularizers import orthogonal, orthogonal_gradient, unit_rows
from reference.rounding import (
    Arithmetic,
    Bounded,
    Precision,
    at_least_float32,
    exact,
    precision_named,
)
from reference.validation import (
    extension_edge,
    flag,
    instance,
    integer,
    non_negative,
    real_array,
    real_number,
    sparsity_of_layers,
    sparsity_target,
)


@dataclass(frozen=True, eq=False)
class BoundedParameters:
    """Kernels and biases (or their gradients), each with a bound."""

    kernels: tuple[Bounded, ...]
    biases: tuple[Bounded, ...]
    tied: bool

    @property
    def layer_kernels(self) -> tuple[Bounded, ...]:
        """One kernel for each layer; a tied network's second half transposed."""
        mirrored = tuple(kernel.transposed for kernel in reversed(self.kernels))
        return self.kernels + mirrored if self.tied else self.kernels


@dataclass(frozen=True, eq=False)
class BoundedCost:
    """The three terms and their sum, each a value and a bound (shape ())."""

    reconstruction: Bounded
    weight_decay: Bounded
    sparsity: Bounded
    total: Bounded


@dataclass(frozen=True, eq=False)
class BoundedStep:
    """What one evaluation gives: the cost, and its gradient by parameters and by input."""

    cost: BoundedCost
    gradient: BoundedParameters
    x: Bounded


def without_bounds(parameters: Parameters) -> BoundedParameters:
    """Return parameters that both sides hold exactly."""
    parameters = instance("parameters", parameters, Parameters)
    return BoundedParameters(
        tuple(exact(kernel) for kernel in parameters.kernels),
        tuple(exact(bias) for bias in parameters.biases),
        parameters.tied,
    )


class BoundArguments(CostArguments, total=False):
    """The keyword arguments of `cost_and_gradient_with_bounds` but for its precision."""

    from_logits: bool
    summation: str


SUMMATIONS = ("any order", "rows first")
"""What may be assumed of a sum of squares: nothing, or that it is taken along the last axis first,
multiplied by its factor, and then taken over what is left. Two short sums in place of a long one:
784 · 196 terms are bounded by 784 + 196 roundoffs."""


def cost_and_gradient_with_bounds(  # noqa: D417
    parameters: Parameters | BoundedParameters,
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
    from_logits: bool = False,
    summation: str = "any order",
    precision: str = "float32",
    false_alarm: float = 0.0,
) -> BoundedStep:
    """EQ-BOUND-COST: the three terms of EQ-COST and EQ-GRADIENT, each with its bound.

    Source: EQ-COST, EQ-DELTA and EQ-GRADIENT in the rules of `reference.rounding`.

    Args:
        parameters: The network; `BoundedParameters` if it is itself the result of steps.
        x: (m, n), a row a sample.
        rho, beta, ..., tied_decay: As `sparse_autoencoder_cost`.
        from_logits: Whether the implementation computes the sparsity by EQ-KL-LOGITS.
        summation: How the implementation adds up its squares, one of `SUMMATIONS`. "any order"
            is safe for all; "rows first" (EQ-BOUND-ROWS-FIRST) is what `keras_impl` does.
        precision: The format of activations, products and deltas: a name of
            `reference.rounding.PRECISIONS`.
        false_alarm: 0: nothing right is outside. Else, as 1e-9, the probability that some number of
            a right computation is, if its rounding errors have mean 0 (`reference.likely`).

    Returns:
        Values (those of the plain oracle up to float64 rounding) and bounds.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> step = cost_and_gradient_with_bounds(
    ...     Parameters([[[0.5]], [[0.5]]], [[0.0], [0.0]]), [[0.25]],
    ...     rho=0.5, beta=1.0, weight_decay=0.0)
    >>> 0.0 < float(step.cost.reconstruction.bound) < 1e-6
    True
    """
    weight_decay = non_negative("weight_decay", weight_decay)
    symmetric, from_logits = flag("symmetric", symmetric), flag("from_logits", from_logits)
    summation = _summation(summation)
    if from_logits and activation != "sigmoid":
        raise ValueError(
            f'`activation` must be "sigmoid" where `from_logits`. Received {activation!r}.'
        )
    if not isinstance(parameters, BoundedParameters):
        parameters = without_bounds(parameters)
    multiplicity = decay_multiplicity(parameters.tied, tied_decay)
    shapes = [kernel.value.shape for kernel in parameters.layer_kernels]
    targets, betas, epsilon = sparsity_of_layers(rho, beta, epsilon, [n for _, n in shapes[:-1]])
    x = sample_rows("x", x, shapes[0][0])
    y = x if y is None else real_array("y", y, ndim=2, finite=True)
    if y.shape != (len(x), shapes[-1][1]):
        raise ValueError(
            f"`y` must have the shape of the output, {(len(x), shapes[-1][1])}. Received {y.shape}."
        )
    activations_and_parameters = len(x) * sum(map(sum, shapes)) + sum(m * n for m, n in shapes)
    numbers = 10 * activations_and_parameters
    compute = _arithmetic(precision_named(precision), false_alarm, numbers)
    wide = _arithmetic(at_least_float32(compute.precision), false_alarm, numbers)
    m = len(x)

    kernels = [compute.shared(compute.cast(kernel)) for kernel in parameters.layer_kernels]
    names = layer_activations(activation, output_activation, len(kernels))
    logits: list[Bounded] = []
    activations = [compute.cast(exact(x))]
    slopes: list[Bounded] = []
    for kernel, bias, name in zip(kernels, parameters.biases, names, strict=True):
        z = compute.affine(activations[-1], kernel, compute.shared(compute.cast(bias)))
        a, slope = compute.activation(name, z)
        logits.append(z)
        activations.append(a)
        slopes.append(slope)

    error = wide.subtract(activations[-1], wide.cast(exact(y)))
    reconstruction = _reconstruction(wide, error, summation)
    half_decay = wide.number(weight_decay / 2.0 * multiplicity)
    decay_terms = [
        scaled_sum_of_squares(wide, half_decay, kernel, summation) for kernel in parameters.kernels
    ]
    sparsity_terms: list[Bounded] = []

    delta = compute.multiply(compute.cast(wide.divide_by_count(error, m)), slopes[-1])
    deltas = [delta]
    for layer in range(len(kernels) - 2, -1, -1):
        carried = compute.matmul(delta, kernels[layer + 1].transposed)
        if from_logits:
            divergence, by_logit = wide.kl_divergence_from_logits(targets[layer], logits[layer])
            penalty_delta = compute.cast(wide.multiply(wide.number(betas[layer]), by_logit))
            delta = compute.add(compute.multiply(carried, slopes[layer]), penalty_delta)
        else:
            rho_hat = wide.mean_over_samples(activations[layer + 1], symmetric=symmetric)
            divergence = wide.kl_divergence(targets[layer], rho_hat, epsilon)
            factor = betas[layer] / 2.0 if symmetric else betas[layer]
            by_mean = wide.kl_derivative(targets[layer], rho_hat, epsilon)
            slope = wide.divide_by_count(wide.multiply(wide.number(factor), by_mean), m)
            delta = compute.multiply(
                compute.add(carried, compute.shared(compute.cast(_switched(betas[layer], slope)))),
                slopes[layer],
            )
        deltas.insert(0, delta)
        term = wide.multiply(wide.number(betas[layer]), wide.total(divergence))
        sparsity_terms.insert(0, _switched(betas[layer], term))

    of_layers = [
        compute.matmul_over_samples(a, d) for a, d in zip(activations[:-1], deltas, strict=True)
    ]
    decay = wide.number(weight_decay * multiplicity)
    decays = [wide.multiply(decay, kernel) for kernel in parameters.kernels]
    if parameters.tied:
        uses = zip(of_layers, reversed(of_layers), strict=True)
        of_kernels = [
            _sum_in_any_order(wide, encoder, decoder.transposed, of_decay)
            for (encoder, decoder), of_decay in zip(uses, decays, strict=False)
        ]
    else:
        of_kernels = [wide.add(g, of_decay) for g, of_decay in zip(of_layers, decays, strict=True)]
    gradient = BoundedParameters(
        tuple(of_kernels),
        tuple(compute.total(d, axis=0) for d in deltas),
        parameters.tied,
    )
    cost = _sum_of_terms(wide, reconstruction, decay_terms, sparsity_terms)
    return BoundedStep(cost, gradient, compute.matmul(deltas[0], kernels[0].transposed))


def _arithmetic(precision: Precision, false_alarm: float, numbers: int) -> Arithmetic:
    false_alarm = real_number("false_alarm", false_alarm)
    if not 0.0 <= false_alarm < 1.0:
        raise ValueError(f"`false_alarm` must be in [0, 1). Received {false_alarm}.")
    if false_alarm == 0.0:
        return Arithmetic(precision)
    return LikelyArithmetic(precision, likely_factor(numbers, false_alarm))


def scaled_sum_of_squares(
    wide: Arithmetic, factor: Bounded, a: Bounded, summation: str = "any order"
) -> Bounded:
    """EQ-BOUND-ROWS-FIRST: c Σ v², in any order, or Σᵣ (c Σₛ vᵣₛ²): along the last axis first.

    "any order" is EQ-BOUND-SQUARES. "rows first" has sums of n and of m terms where that has one
    of m n: its bound grows with m + n. A product with c between them keeps compilers from making
    one sum of the two.

    Source: EQ-BOUND-MULTIPLY and EQ-BOUND-SUM, one after the other.

    Args:
        wide: The arithmetic of the sums.
        factor: c, shape ().
        a: v, (m, ..., n).
        summation: One of `SUMMATIONS`.

    Raises:
        ValueError: If there is no such `summation`.

    >>> a, c = exact(np.ones((100, 50))), exact(0.5)
    >>> bounds = [
    ...     float(scaled_sum_of_squares(Arithmetic("float32"), c, a, summation).bound)
    ...     for summation in SUMMATIONS]
    >>> [round(bound / (2500.0 * 2.0**-24)) for bound in bounds]
    [1865, 63]
    """
    if _summation(summation) == "any order":
        return wide.multiply(factor, wide.sum_of_squares(a))
    rows = wide.total(wide.multiply(a, a), axis=-1)
    return wide.total(wide.multiply(factor, rows))


def _summation(summation: str) -> str:
    if not isinstance(summation, str) or summation not in SUMMATIONS:
        raise ValueError(f"`summation` must be one of {SUMMATIONS}. Received {summation!r}.")
    return summation


def _reconstruction(wide: Arithmetic, error: Bounded, summation: str) -> Bounded:
    halves = scaled_sum_of_squares(wide, exact(0.5), error, summation)
    return wide.divide_by_count(halves, len(error.value))


def _sum_in_any_order(wide: Arithmetic, a: Bounded, b: Bounded, c: Bounded) -> Bounded:
    # An implementation may add the decay of a tied kernel between its two uses.
    orders = [wide.add(wide.add(x, y), z) for x, y, z in ((a, b, c), (a, c, b), (b, c, a))]
    bound = functools.reduce(np.maximum, (order.bound for order in orders))
    return Bounded(orders[0].value, bound)


def _switched(beta: float, term: Bounded) -> Bounded:
    # β = 0 leaves nothing of the term, exactly. Where its divergence may be infinite or NaN a
    # right computation may form 0 · ∞: the oracle says 0, and that it is undecidable.
    if beta > 0.0:
        return term
    return Bounded(np.zeros_like(term.value), np.where(np.isinf(term.bound), np.inf, 0.0))


def _sum_of_terms(
    wide: Arithmetic,
    reconstruction: Bounded,
    decay_terms: Sequence[Bounded],
    sparsity_terms: Sequence[Bounded],
) -> BoundedCost:
    def added(terms: Sequence[Bounded]) -> Bounded:
        return functools.reduce(wide.add, terms) if terms else exact(0.0)

    weight_decay, sparsity = added(decay_terms), added(sparsity_terms)
    return BoundedCost(
        reconstruction, weight_decay, sparsity, added([reconstruction, weight_decay, sparsity])
    )


def gradient_descent_with_bounds(
    parameters: Parameters,
    x: Any,
    *,
    steps: int,
    learning_rate: float,
    precision: str = "float32",
    **arguments: Unpack[BoundArguments],
) -> BoundedParameters:
    """EQ-BOUND-DESCENT: W ← W − α ∂J/∂W, `steps` times, with a bound for the weights reached.

    The bound of each step enters the next: it grows as the errors of a right computation may.

    Source: CS294A lecture notes "Sparse autoencoder", §2.2 (gradient descent), in the rules of
    `reference.rounding`.

    Args:
        parameters: Where the descent starts.
        x: (m, n), all samples in each step.
        steps: How many steps.
        learning_rate: α.
        precision: As in `cost_and_gradient_with_bounds`.
        **arguments: Those of `cost_and_gradient_with_bounds`.

    Returns:
        The parameters after the steps.

    Raises:
        TypeError, ValueError: If an argument leaves its range.
    """
    steps = integer("steps", steps, low=0)
    learning_rate = non_negative("learning_rate", learning_rate)
    wide = Arithmetic(at_least_float32(precision_named(precision)))
    rate = wide.number(learning_rate)
    current = without_bounds(parameters)
    for _ in range(steps):
        gradient = cost_and_gradient_with_bounds(
            current, x, precision=precision, **arguments
        ).gradient

        def stepped(theta: Bounded, slope: Bounded) -> Bounded:
            return wide.subtract(theta, wide.multiply(rate, slope))

        current = BoundedParameters(
            tuple(map(stepped, current.kernels, gradient.kernels)),
            tuple(map(stepped, current.biases, gradient.biases)),
            current.tied,
        )
    return current


def kl_sparsity_with_bounds(
    activations: Any,
    rho: Any,
    beta: Any,
    *,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    mask: Any = None,
    from_logits: bool = False,
    precision: str = "float32",
) -> tuple[Bounded, Bounded]:
    """EQ-BOUND-SPARSITY: β Σⱼ KL(ρⱼ‖ρ̂ⱼ) of one layer's output, and its gradient by each element.

    Source: EQ-SPARSITY and EQ-SPARSITY-SLOPE (EQ-KL-LOGITS and its derivative) in the rules of
    `reference.rounding`.

    Args:
        activations: (samples, ..., units); logits if `from_logits`.
        rho: ρ inside (0, 1), a number; or (units,), ρⱼ.
        beta: β ≥ 0.
        epsilon: Where EQ-KL-EXTENSION begins.
        symmetric: Whether the activations lie in [−1, 1].
        mask: Valid positions, the shape of `activations` without its last axis.
        from_logits: Whether `activations` are the logits of sigmoid units.
        precision: The format of the activations. The gradient arrives in it.

    Returns:
        The term (shape ()), and its gradient (the shape of `activations`).

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> value, gradient = kl_sparsity_with_bounds([[0.25], [0.75]], 0.5, 3.0)
    >>> float(value.value), gradient.value.tolist()
    (0.0, [[0.0], [0.0]])
    """
    samples, valid = valid_samples(activations, mask)
    rho = sparsity_target(rho, samples.shape)
    beta = non_negative("beta", beta)
    epsilon = extension_edge(epsilon, rho)
    symmetric, from_logits = flag("symmetric", symmetric), flag("from_logits", from_logits)
    compute = Arithmetic(precision)
    wide = Arithmetic(at_least_float32(compute.precision))
    a = exact(samples[valid])
    if from_logits:
        divergence, by_element = wide.kl_divergence_from_logits(rho, a)
        slope = wide.multiply(wide.number(beta), by_element)
    else:
        rho_hat = wide.mean_over_samples(a, symmetric=symmetric)
        divergence = wide.kl_divergence(rho, rho_hat, epsilon)
        factor = beta / 2.0 if symmetric else beta
        slope = wide.divide_by_count(
            wide.multiply(wide.number(factor), wide.kl_derivative(rho, rho_hat, epsilon)),
            len(a.value),
        )
    slope = compute.cast(_switched(beta, slope))
    value = wide.multiply(wide.number(beta), wide.total(divergence))
    gradient = np.zeros_like(samples)
    gradient_bound = np.zeros_like(samples)
    gradient[valid] = slope.value
    gradient_bound[valid] = slope.bound
    shape = np.shape(activations)
    return _switched(beta, value), Bounded(gradient.reshape(shape), gradient_bound.reshape(shape))


def reconstruction_with_bounds(
    output: Any, y: Any, *, summation: str = "any order", precision: str = "float32"
) -> Bounded:
    """EQ-BOUND-RECONSTRUCTION: EQ-RECONSTRUCTION of an output that both sides hold exactly.

    Source: EQ-RECONSTRUCTION in the rules of `reference.rounding`; `summation` as in
    EQ-BOUND-ROWS-FIRST.

    >>> float(reconstruction_with_bounds([[1.0, 2.0]], [[0.0, 0.0]]).value)
    2.5
    """
    wide = Arithmetic(at_least_float32(precision_named(precision)))
    output, y = outputs_and_targets(output, y)
    error = wide.subtract(exact(output), exact(y))
    return _reconstruction(wide, error, summation)


def l1_l2_with_bounds(
    weights: Any, l1_factor: Any, l2_factor: Any, *, precision: str = "float32"
) -> tuple[Bounded, Bounded]:
    """EQ-BOUND-L1L2: EQ-L1L2 and its gradient, each with its bound; EQ-L1 and EQ-L2 within it.

    Source: EQ-L1L2 and EQ-L1L2-GRADIENT in the rules of `reference.rounding`.

    >>> value, gradient = l1_l2_with_bounds([1.0, -2.0], 0.5, 0.5)
    >>> float(value.value), gradient.value.tolist()
    (4.0, [1.5, -2.5])
    """
    arithmetic = Arithmetic(precision)
    w = exact(real_array("weights", weights, finite=True))
    l1_number = arithmetic.number(real_number("l1_factor", l1_factor))
    l2_number = arithmetic.number(real_number("l2_factor", l2_factor))
    value, gradient = exact(0.0), exact(np.zeros_like(w.value))
    if l1_number.value != 0.0:  # a factor of 0 leaves nothing, also of a sum that overflows
        value = arithmetic.multiply(l1_number, arithmetic.total(exact(np.abs(w.value))))
        gradient = arithmetic.multiply(l1_number, exact(np.sign(w.value)))
    if l2_number.value != 0.0:
        twice = Bounded(2.0 * l2_number.value, 2.0 * l2_number.bound)
        squares = arithmetic.multiply(l2_number, arithmetic.sum_of_squares(w))
        value = arithmetic.add(value, squares)
        gradient = arithmetic.add(gradient, arithmetic.multiply(twice, w))
    return value, gradient


def orthogonal_with_bounds(
    weights: Any, factor: Any = 0.01, mode: str = "rows", *, precision: str = "float32"
) -> tuple[Bounded, Bounded]:
    """EQ-BOUND-ORTHOGONAL: EQ-ORTHOGONAL and its gradient, each with its bound.

    A normalised element is off by (n u_acc/2 + 7u) relative, and stored: half the error of the sum
    of n squares, a reciprocal square root and a product. Where a cosine is within its bound of 0
    its sign, hence the gradient, may be off by 2.

    Source: EQ-ORTHOGONAL and EQ-ORTHOGONAL-GRADIENT in the rules of `reference.rounding`.

    >>> value, _ = orthogonal_with_bounds([[1.0, 0.0], [3.0, 0.0]])
    >>> float(value.value)
    0.01
    """
    arithmetic = Arithmetic(precision)
    value = orthogonal(weights, factor, mode)
    gradient = orthogonal_gradient(weights, factor, mode)
    unit_vectors, lengths = unit_rows(weights, mode)
    relative = unit_vectors.shape[1] * arithmetic.u_accumulator / 2.0 + 7.0 * arithmetic.u
    u = arithmetic.store(unit_vectors, relative * np.abs(unit_vectors))
    cosines = arithmetic.matmul(u, u.transposed)
    different = 1.0 - np.eye(len(unit_vectors))
    off_diagonal = Bounded(np.abs(cosines.value) * different, cosines.bound * different)
    scale = arithmetic.number(real_number("factor", factor))
    pairs = len(unit_vectors) * (len(unit_vectors) - 1)
    scale = arithmetic.divide_by_count(scale, pairs)
    value_bound = arithmetic.multiply(scale, arithmetic.total(off_diagonal)).bound

    signs = Bounded(
        np.sign(cosines.value) * different,
        2.0 * different * (np.abs(cosines.value) <= cosines.bound),
    )
    pull = arithmetic.matmul(signs, u)
    inside = arithmetic.total(arithmetic.multiply(pull, u), axis=1)
    inside = Bounded(inside.value[:, None], inside.bound[:, None])
    projected = arithmetic.subtract(pull, arithmetic.multiply(inside, u))
    inverse = arithmetic.store(1.0 / lengths, relative / lengths)
    twice = Bounded(2.0 * scale.value, 2.0 * scale.bound)
    bound = arithmetic.multiply(twice, arithmetic.multiply(projected, inverse)).bound
    return Bounded(np.asarray(value), value_bound), Bounded(
        gradient, bound if mode == "rows" else bound.T
    )
