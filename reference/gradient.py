"""Backpropagation with the sparsity delta, and the numerical gradient that checks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from reference.activations import activation_named
from reference.cost import CostArguments, decay_multiplicity
from reference.divergence import extended_kl_divergence_derivative
from reference.estimators import mean_activation
from reference.network import ForwardPass, Parameters, forward, layer_activations
from reference.validation import (
    Array,
    flag,
    non_negative,
    real_array,
    real_number,
    sparsity_of_layers,
)


@dataclass(frozen=True, eq=False)
class Gradients:
    """∂J with respect to the parameters and to the input.

    Args:
        parameters: ∂J/∂W and ∂J/∂b, in the shapes of the parameters.
        x: ∂J/∂x, (m, n), through h(x) and ρ̂; y is held fixed, also where y = x.
        deltas: δ⁽ˡ⁾ of each layer, (m, units), the factor 1/m included.
        forward: The forward pass that they come from: EQ-COST needs no other.
    """

    parameters: Parameters
    x: Array
    deltas: tuple[Array, ...]
    forward: ForwardPass


def output_delta(output: Array, y: Array, derivative: Array) -> Array:
    """EQ-DELTA-OUTPUT: δ⁽ᴸ⁾ = (1/m)(h(x) − y) ∘ f′(z⁽ᴸ⁾).

    The 1/m of the cost is inside: the batch sums of EQ-GRADIENT need no further division.

    Source: CS294A lecture notes "Sparse autoencoder", §2.2, step 2.

    >>> output_delta(np.array([[3.0]]), np.array([[1.0]]), np.array([[0.5]])).tolist()
    [[1.0]]
    """
    return (output - y) / len(output) * derivative


def hidden_delta(
    next_delta: Array, next_kernel: Array, derivative: Array, sparsity_slope: Array
) -> Array:
    """EQ-DELTA: δ⁽ˡ⁾ = (W⁽ˡ⁾ᵀ δ⁽ˡ⁺¹⁾ + (β/m)(−ρ/ρ̂ + (1 − ρ)/(1 − ρ̂))) ∘ f′(z⁽ˡ⁾).

    Source: CS294A lecture notes "Sparse autoencoder", §3 (§2.2, step 3, with the sparsity
    term); β/m because 1/m is inside the deltas (EQ-DELTA-OUTPUT).

    Args:
        next_delta: δ⁽ˡ⁺¹⁾, (m, next units).
        next_kernel: (units, next units).
        derivative: f′(z⁽ˡ⁾), (m, units).
        sparsity_slope: (β/m) ∂KL/∂ρ̂, (units,), the same for every sample.

    >>> hidden_delta(np.ones((1, 1)), np.full((1, 1), 2.0), np.ones((1, 1)), np.ones(1)).tolist()
    [[3.0]]
    """
    return (next_delta @ next_kernel.T + sparsity_slope) * derivative


def backpropagate(  # noqa: D417
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
) -> Gradients:
    """EQ-GRADIENT: ∂J/∂W⁽ˡ⁾ = δ⁽ˡ⁺¹⁾(a⁽ˡ⁾)ᵀ + λW⁽ˡ⁾ and ∂J/∂b⁽ˡ⁾ = Σᵢ δᵢ⁽ˡ⁺¹⁾.

    All ρ̂ⱼ first, by a forward pass over all samples, then one backward pass (§3). For a tied
    network the gradient of a shared kernel is the sum of the gradients of its two uses
    (EQ-GRADIENT-TIED).

    Source: CS294A lecture notes "Sparse autoencoder", §2.2 and §3.

    Args:
        parameters: The network, untied or tied, of any depth.
        x: (m, n), a row a sample.
        rho, beta, ..., tied_decay: As `sparse_autoencoder_cost`.

    Returns:
        The gradients of EQ-COST by parameters and by input, and the deltas.

    Raises:
        TypeError, ValueError: As `sparse_autoencoder_cost`.
        ValueError: If `epsilon` is 0 and a mean activation is 0 or 1, where ∂KL/∂ρ̂ is infinite,
            or if the gradient is too large for float64.

    >>> parameters = Parameters([[[1.0]]], [[0.0]])
    >>> gradients = backpropagate(
    ...     parameters, [[2.0]], y=[[1.0]], rho=0.5, beta=0.0, weight_decay=1.0, activation="linear"
    ... )
    >>> gradients.parameters.kernels[0].tolist(), gradients.x.tolist()
    ([[3.0]], [[1.0]])
    """
    weight_decay = non_negative("weight_decay", weight_decay)
    symmetric = flag("symmetric", symmetric)
    propagated = forward(parameters, x, activation=activation, output_activation=output_activation)
    targets, betas, epsilon = sparsity_of_layers(
        rho, beta, epsilon, [a.shape[1] for a in propagated.hidden]
    )
    x = propagated.activations[0]
    y = x if y is None else real_array("y", y, ndim=2, finite=True)
    if y.shape != propagated.output.shape:
        raise ValueError(
            f"`y` must have the shape of the output, {propagated.output.shape}. Received {y.shape}."
        )
    m = len(x)
    kernels = parameters.layer_kernels
    names = layer_activations(activation, output_activation, len(kernels))
    derivatives = [
        activation_named(name).derivative(z)
        for name, z in zip(names, propagated.logits, strict=True)
    ]

    delta = output_delta(propagated.output, y, derivatives[-1])
    deltas = [delta]
    for layer in range(len(kernels) - 2, -1, -1):
        rho_hat = mean_activation(propagated.activations[layer + 1], symmetric=symmetric)
        slope = sparsity_slope(
            targets[layer], betas[layer], rho_hat, m, epsilon=epsilon, symmetric=symmetric
        )
        if not np.all(np.isfinite(slope)):
            unit = int(np.argmin(np.isfinite(slope)))
            raise ValueError(
                f"`epsilon` must be greater than 0 where a unit is dead or saturated: the "
                f"derivative of the divergence is infinite there. Received {epsilon} with a mean "
                f"activation of {rho_hat[unit]} in unit {unit} of layer {layer}."
            )
        delta = hidden_delta(delta, kernels[layer + 1], derivatives[layer], slope)
        deltas.insert(0, delta)

    of_layers = [a.T @ d for a, d in zip(propagated.activations[:-1], deltas, strict=True)]
    if parameters.tied:
        of_layers = tied_gradient(of_layers)
    decay = weight_decay * decay_multiplicity(parameters.tied, tied_decay)
    by_kernels = [
        g + decay * kernel for g, kernel in zip(of_layers, parameters.kernels, strict=True)
    ]
    by_biases = [np.sum(d, axis=0) for d in deltas]
    if not all(np.all(np.isfinite(array)) for array in (*by_kernels, *by_biases)):
        raise ValueError(
            "`x` and `parameters` must be small enough: the gradient is not finite in float64."
        )
    return Gradients(
        parameters=Parameters(by_kernels, by_biases, tied=parameters.tied),
        x=deltas[0] @ kernels[0].T,
        deltas=tuple(deltas),
        forward=propagated,
    )


def sparsity_slope(
    rho: Any, beta: float, rho_hat: Array, m: int, *, epsilon: float, symmetric: bool
) -> Array:
    """EQ-SPARSITY-SLOPE: (β/m) ∂KL(ρⱼ‖ρ̂ⱼ)/∂ρ̂ⱼ, the derivative of the term by one activation.

    Half of it for tanh units whose ρ̂ is the mean of (1 + a)/2.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    >>> sparsity_slope(0.25, 2.0, np.array([0.5]), 4, epsilon=0.0, symmetric=False).tolist()
    [0.5]
    """
    if beta == 0.0:
        return np.zeros_like(rho_hat)
    slope = beta / m * extended_kl_divergence_derivative(rho, rho_hat, epsilon)
    return slope / 2.0 if symmetric else slope


def tied_gradient(of_layers: list[Array]) -> list[Array]:
    """EQ-GRADIENT-TIED: ∂J/∂W = ∂J/∂W⁽ˡ⁾ + (∂J/∂W⁽ᴸ⁺¹⁻ˡ⁾)ᵀ, one shared kernel, two uses.

    Source: the chain rule on EQ-COST with W⁽ᴸ⁺¹⁻ˡ⁾ = W⁽ˡ⁾ᵀ; the notes have untied weights.

    >>> [g.tolist() for g in tied_gradient([np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])])]
    [[[4.0, 6.0]]]
    """
    half = len(of_layers) // 2
    return [of_layers[layer] + of_layers[-1 - layer].T for layer in range(half)]


def sparse_autoencoder_gradient(
    parameters: Parameters, x: Any, **arguments: Unpack[CostArguments]
) -> Parameters:
    """EQ-GRADIENT, the part by the parameters: ∂J/∂W and ∂J/∂b of `sparse_autoencoder_cost`.

    Source: CS294A lecture notes "Sparse autoencoder", §2.2 and §3.

    Args:
        parameters: The network.
        x: (m, n), a row a sample.
        **arguments: Those of `sparse_autoencoder_cost`.

    Returns:
        The gradient, in the shapes of the parameters.

    Raises:
        TypeError, ValueError: As `sparse_autoencoder_cost`.

    >>> parameters = Parameters([[[1.0]]], [[0.0]])
    >>> sparse_autoencoder_gradient(
    ...     parameters, [[2.0]], rho=0.5, beta=0.0, weight_decay=0.0, y=[[1.0]],
    ...     activation="linear").biases[0].tolist()
    [1.0]
    """
    return backpropagate(parameters, x, **arguments).parameters


def numerical_gradient(
    function: Callable[[Array], float], theta: Any, epsilon: float = 1e-4
) -> Array:
    """EQ-NUMERICAL-GRADIENT: ∂J/∂θᵢ ≈ (J(θ + ε eᵢ) − J(θ − ε eᵢ)) / 2ε.

    Source: CS294A lecture notes "Sparse autoencoder", §2.3 (EPSILON = 10⁻⁴).

    Args:
        function: J, from a vector to a number.
        theta: (p,), where to differentiate.
        epsilon: The step, greater than 0.

    Returns:
        float64, (p,). The error is ε²/6 times the third derivative, plus rounding of order
        2⁻⁵³·|J|/ε.

    Raises:
        TypeError: If an argument is not real.
        ValueError: If `theta` is not a finite vector, or `epsilon` not positive.

    >>> def h(x):
    ...     return float(x[0] ** 2 + 3 * x[0] * x[1])
    >>> numerical_gradient(h, [4.0, 10.0]).round(6).tolist()
    [38.0, 12.0]
    """
    if not callable(function):
        raise TypeError(f"`function` must be a function. Received {type(function).__name__}.")
    theta = real_array("theta", theta, ndim=1, finite=True)
    epsilon = real_number("epsilon", epsilon, low=0.0, low_open=True)
    gradient = np.empty_like(theta)
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = epsilon
        above, below = (
            real_array("function(theta)", function(at), ndim=0, nan=True)
            for at in (theta + step, theta - step)
        )
        gradient[i] = (above - below) / (2.0 * epsilon)
    return gradient
