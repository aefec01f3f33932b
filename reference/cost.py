"""The cost of the sparse autoencoder: three terms and their sum, every convention named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Required, TypedDict

import numpy as np

from reference.divergence import extended_kl_divergence, kl_divergence_from_logits
from reference.estimators import mean_activation
from reference.network import Parameters, forward
from reference.validation import (
    Array,
    extension_edge,
    flag,
    instance,
    integer,
    non_negative,
    real_array,
    sparsity_of_layers,
    sparsity_target,
)


@dataclass(frozen=True)
class Cost:
    """The three terms of the cost, apart.

    Args:
        reconstruction: (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖².
        weight_decay: (λ/2) Σₗ ‖W⁽ˡ⁾‖².
        sparsity: β Σⱼ KL(ρ‖ρ̂ⱼ).
    """

    reconstruction: float
    weight_decay: float
    sparsity: float

    @property
    def total(self) -> float:
        """J: the sum of the three terms."""
        return self.reconstruction + self.weight_decay + self.sparsity


def reconstruction_cost(output: Any, y: Any) -> float:
    """EQ-RECONSTRUCTION: (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖².

    The squares are summed over features, halved, and averaged over samples. Keras's "mse"
    averages over features too and has no ½.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8), first term.

    Args:
        output: h(x), (m, ..., n): the first axis counts samples, all others features.
        y: The targets, the same shape.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If the shapes differ, there is nothing in them, or a value is not finite.

    >>> reconstruction_cost([[1.0, 2.0]], [[0.0, 0.0]])
    2.5
    """
    output, y = outputs_and_targets(output, y)
    return float(np.sum((output - y) ** 2) / (2.0 * output.shape[0]))


def outputs_and_targets(output: Any, y: Any) -> tuple[Array, Array]:
    """Return both as float64 arrays of one shape, (m, ..., n).

    Raises:
        TypeError, ValueError: As `reconstruction_cost`.

    >>> outputs_and_targets([[1]], [[2]])[1].tolist()
    [[2.0]]
    """
    output = real_array("output", output, finite=True)
    y = real_array("y", y, finite=True)
    if output.shape != y.shape or output.ndim < 2 or output.size == 0:
        raise ValueError(
            f"`y` must have the shape of `output`, {output.shape}, with at least one sample of "
            f"one feature. Received {y.shape}."
        )
    return output, y


def weight_decay_cost(parameters: Parameters, weight_decay: Any, *, tied_decay: int = 1) -> float:
    """EQ-DECAY: (λ/2) Σₗ Σᵢⱼ (Wᵢⱼ⁽ˡ⁾)², biases excluded.

    Keras's `L2(l2)` is l2·ΣW²: l2 = λ/2.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8), second term; footnote 1 for
    the biases.

    Args:
        parameters: The network.
        weight_decay: λ ≥ 0.
        tied_decay: How often a tied kernel counts: 1 (each number that is learned counts once)
            or 2 (the sum over layers as it is written). Without effect on an untied network.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> weight_decay_cost(Parameters([[[2.0]], [[1.0]]], [[9.0], [9.0]]), 0.5)
    1.25
    """
    weight_decay = non_negative("weight_decay", weight_decay)
    parameters = instance("parameters", parameters, Parameters)
    squares = sum(float(np.sum(kernel**2)) for kernel in parameters.kernels)
    return weight_decay / 2.0 * decay_multiplicity(parameters.tied, tied_decay) * squares


def decay_multiplicity(tied: bool, tied_decay: int) -> int:
    """Return how often each stored kernel counts in EQ-DECAY: once, or `tied_decay` if tied."""
    times = integer("tied_decay", tied_decay, low=1)
    if times > 2:
        raise ValueError(f"`tied_decay` must be 1 or 2. Received {tied_decay!r}.")
    return times if tied else 1


def sparsity_cost(
    activations: Any,
    rho: Any,
    beta: Any,
    *,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    mask: Any = None,
) -> float:
    """EQ-SPARSITY: β Σⱼ KL(ρⱼ‖ρ̂ⱼ), a sum over the units of one hidden layer.

    In the notes all units have one ρ.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        activations: (samples, ..., units); ρ̂ is EQ-RHO-HAT of them.
        rho: ρ inside (0, 1), a number; or (units,), ρⱼ.
        beta: β ≥ 0.
        epsilon: Where EQ-KL-EXTENSION begins; 0: the exact divergence, infinite at 0 and 1.
        symmetric: Whether the activations lie in [−1, 1] (see EQ-RHO-HAT).
        mask: Valid positions (see EQ-RHO-HAT).

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> sparsity_cost([[0.5, 0.5], [0.5, 0.5]], rho=0.5, beta=3.0)
    0.0
    >>> sparsity_cost([[0.25, 0.75]], rho=[0.25, 0.75], beta=3.0)
    0.0
    """
    rho_hat = mean_activation(activations, mask, symmetric=symmetric)
    rho = sparsity_target(rho, rho_hat.shape)
    beta = non_negative("beta", beta)
    epsilon = extension_edge(epsilon, rho)
    return _weighted_sum(beta, extended_kl_divergence(rho, rho_hat, epsilon))


def sparsity_cost_from_logits(logits: Any, rho: Any, beta: Any) -> float:
    """EQ-SPARSITY-LOGITS: β Σⱼ KL(ρⱼ‖ρ̂ⱼ) of sigmoid units, by EQ-KL-LOGITS.

    Source: CS294A lecture notes "Sparse autoencoder", §3, by way of EQ-KL-LOGITS.

    >>> sparsity_cost_from_logits([[0.0], [0.0]], rho=0.5, beta=3.0)
    0.0
    """
    beta = non_negative("beta", beta)
    return _weighted_sum(beta, kl_divergence_from_logits(rho, logits))


def _weighted_sum(beta: float, divergences: Array) -> float:
    # β = 0 switches the term off even where a divergence is infinite.
    return beta * float(np.sum(divergences)) if beta > 0.0 else 0.0


class CostArguments(TypedDict, total=False):
    """The keyword arguments of `sparse_autoencoder_cost`, which says what each one means."""

    rho: Required[Any]
    beta: Required[Any]
    weight_decay: Required[Any]
    y: Any
    activation: str
    output_activation: str | None
    epsilon: Any
    symmetric: bool
    tied_decay: int


def sparse_autoencoder_cost(
    parameters: Parameters,
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
) -> Cost:
    """EQ-COST: J = (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖² + (λ/2) Σₗ ‖W⁽ˡ⁾‖² + β Σⱼ KL(ρ‖ρ̂ⱼ).

    ρ̂ⱼ is the mean over all the rows of x: give the whole training set. The sparsity term runs
    over the units of every hidden layer, and is that of each layer, EQ-SPARSITY, where ρ or β is
    by layer.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8), and §3.

    Args:
        parameters: The network, untied or tied, of any depth.
        x: (m, n), a row a sample.
        rho: ρ, inside (0, 1); or a sequence with an entry for each hidden layer, a number or one
            for each unit.
        beta: β ≥ 0; or a sequence with a number for each hidden layer.
        weight_decay: λ ≥ 0.
        y: The targets, (m, units of the last layer). `None`: x, the autoencoder.
        activation: f of the hidden layers: "sigmoid", "tanh", "relu" or "linear".
        output_activation: f of the last layer; `None`: the same.
        epsilon: Where EQ-KL-EXTENSION begins; 0: the exact divergence.
        symmetric: Whether hidden activations lie in [−1, 1] (tanh; see EQ-RHO-HAT).
        tied_decay: How often a tied kernel counts in EQ-DECAY, 1 or 2.

    Returns:
        The three terms.

    Raises:
        TypeError: If an array or a number is not real.
        ValueError: If a shape or a value is out of range. With `epsilon=0`, mean activations
            outside [0, 1] (ReLU, tanh, linear) are: the divergence is not defined there.

    >>> from reference import initialise
    >>> parameters = initialise((4, 2, 4), seed=0)
    >>> x = np.linspace(0.1, 0.9, 12).reshape(3, 4)
    >>> cost = sparse_autoencoder_cost(parameters, x, rho=0.05, beta=3.0, weight_decay=1e-4)
    >>> cost.total == cost.reconstruction + cost.weight_decay + cost.sparsity
    True
    """
    symmetric = flag("symmetric", symmetric)
    propagated = forward(parameters, x, activation=activation, output_activation=output_activation)
    targets, betas, epsilon = sparsity_of_layers(
        rho, beta, epsilon, [a.shape[1] for a in propagated.hidden]
    )
    return Cost(
        reconstruction=reconstruction_cost(propagated.output, x if y is None else y),
        weight_decay=weight_decay_cost(parameters, weight_decay, tied_decay=tied_decay),
        sparsity=sum(
            sparsity_cost(a, target, of_layer, epsilon=epsilon, symmetric=symmetric)
            for a, target, of_layer in zip(propagated.hidden, targets, betas, strict=False)
        ),
    )
