"""L1, L2, L1L2, orthogonal and KL sparsity: value and gradient, as Keras documents them."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.cost import sparsity_cost
from reference.estimators import mean_activation, valid_samples
from reference.gradient import sparsity_slope
from reference.network import norms
from reference.validation import (
    Array,
    extension_edge,
    non_negative,
    real_array,
    real_number,
    sparsity_target,
)


def _weights(weights: Any) -> Array:
    return real_array("weights", weights, finite=True)


def l1(weights: Any, factor: Any = 0.01) -> float:
    """EQ-L1: factor · Σ |w|.

    Source: Keras documentation, `keras.regularizers.L1`.

    >>> l1([[1.0, -2.0]], 0.5)
    1.5
    """
    return real_number("factor", factor) * float(np.sum(np.abs(_weights(weights))))


def l1_gradient(weights: Any, factor: Any = 0.01) -> Array:
    """EQ-L1-GRADIENT: factor · sign(w), 0 at w = 0.

    Source: Keras documentation, `keras.regularizers.L1`. At 0 any number in ±factor is a
    subgradient.

    >>> l1_gradient([1.0, -2.0, 0.0], 0.5).tolist()
    [0.5, -0.5, 0.0]
    """
    return real_number("factor", factor) * np.sign(_weights(weights))


def l2(weights: Any, factor: Any = 0.01) -> float:
    """EQ-L2: factor · Σ w², with no ½: the λ of the notes is 2·factor.

    Source: Keras documentation, `keras.regularizers.L2`.

    >>> l2([[1.0, -2.0]], 0.5)
    2.5
    """
    return real_number("factor", factor) * float(np.sum(_weights(weights) ** 2))


def l2_gradient(weights: Any, factor: Any = 0.01) -> Array:
    """EQ-L2-GRADIENT: 2 · factor · w.

    Source: Keras documentation, `keras.regularizers.L2`.

    >>> l2_gradient([1.0, -2.0], 0.5).tolist()
    [1.0, -2.0]
    """
    return 2.0 * real_number("factor", factor) * _weights(weights)


def l1_l2(weights: Any, l1_factor: Any = 0.0, l2_factor: Any = 0.0) -> float:
    """EQ-L1L2: l1 · Σ |w| + l2 · Σ w².

    Source: Keras documentation, `keras.regularizers.L1L2` (both factors 0 by default).

    >>> l1_l2([1.0, -2.0], 0.5, 0.5)
    4.0
    """
    l1_factor, l2_factor = _factors(l1_factor, l2_factor)
    return l1(weights, l1_factor) + l2(weights, l2_factor)


def l1_l2_gradient(weights: Any, l1_factor: Any = 0.0, l2_factor: Any = 0.0) -> Array:
    """EQ-L1L2-GRADIENT: l1 · sign(w) + 2 · l2 · w.

    Source: Keras documentation, `keras.regularizers.L1L2`.

    >>> l1_l2_gradient([1.0, -2.0], 0.5, 0.5).tolist()
    [1.5, -2.5]
    """
    l1_factor, l2_factor = _factors(l1_factor, l2_factor)
    return l1_gradient(weights, l1_factor) + l2_gradient(weights, l2_factor)


def _factors(l1_factor: Any, l2_factor: Any) -> tuple[float, float]:
    return real_number("l1_factor", l1_factor), real_number("l2_factor", l2_factor)


def orthogonal(weights: Any, factor: Any = 0.01, mode: str = "rows") -> float:
    """EQ-ORTHOGONAL: factor · (2/(k(k − 1))) · Σ_{i<j} |uᵢ·uⱼ|, uᵢ the k normalised vectors.

    factor times the mean size of the cosines between different rows (or columns). A vector that
    is shorter than 10⁻⁷ is divided by 10⁻⁷ in place of its norm, as Keras does.

    Source: Keras documentation, `keras.regularizers.OrthogonalRegularizer`.

    Args:
        weights: (rows, columns), at least two of what `mode` names.
        factor: The factor.
        mode: "rows" or "columns".

    Raises:
        TypeError: If an argument is not real.
        ValueError: If `mode` is another word, or there are fewer than two vectors (the mean has
            nothing to run over; Keras divides by zero).

    >>> orthogonal([[1.0, 0.0], [0.0, 2.0]]), orthogonal([[1.0, 0.0], [3.0, 0.0]])
    (0.0, 0.01)
    """
    unit_vectors, _ = unit_rows(weights, mode)
    cosines = unit_vectors @ unit_vectors.T
    pairs = len(cosines) * (len(cosines) - 1)
    np.fill_diagonal(cosines, 0.0)
    return real_number("factor", factor) * float(np.sum(np.abs(cosines))) / pairs


def orthogonal_gradient(weights: Any, factor: Any = 0.01, mode: str = "rows") -> Array:
    """EQ-ORTHOGONAL-GRADIENT: ∂/∂wᵢ = (2·factor/(k(k−1))) (I − uᵢuᵢᵀ)/‖wᵢ‖ Σ_{j≠i} sign(uᵢ·uⱼ)uⱼ.

    The projection is left out for a vector shorter than 10⁻⁷, which is divided by a constant.

    Source: the derivative of EQ-ORTHOGONAL.

    Args:
        weights: (rows, columns), at least two of what `mode` names.
        factor: The factor.
        mode: "rows" or "columns".

    Raises:
        TypeError, ValueError: As `orthogonal`.

    >>> orthogonal_gradient([[1.0, 0.0], [3.0, 4.0]], 1.0).round(12).tolist()
    [[0.0, 0.8], [0.128, -0.096]]
    """
    unit_vectors, lengths = unit_rows(weights, mode)
    signs = np.sign(unit_vectors @ unit_vectors.T)
    np.fill_diagonal(signs, 0.0)
    pull = signs @ unit_vectors
    inside = np.sum(pull * unit_vectors, axis=1, keepdims=True) * unit_vectors
    projected = np.where(lengths > SHORTEST_VECTOR, pull - inside, pull)
    pairs = len(signs) * (len(signs) - 1)
    gradient = 2.0 * real_number("factor", factor) / pairs * projected / lengths
    return gradient if mode == "rows" else gradient.T


SHORTEST_VECTOR = 1e-7


def unit_rows(weights: Any, mode: str) -> tuple[Array, Array]:
    """Return the k normalised vectors as rows, and their lengths (at least 10⁻⁷), (k, 1)."""
    matrix = real_array("weights", weights, ndim=2, finite=True)
    if matrix.size == 0:
        raise ValueError(f"`weights` must hold a number. Received shape {matrix.shape}.")
    if not isinstance(mode, str) or mode not in ("rows", "columns"):
        raise ValueError(f'`mode` must be "rows" or "columns". Received {mode!r}.')
    rows = matrix if mode == "rows" else matrix.T
    if len(rows) < 2:
        raise ValueError(f"`weights` must have at least two {mode}. Received {matrix.shape}.")
    lengths = np.maximum(norms(rows, axis=1), SHORTEST_VECTOR)
    return rows / lengths, lengths


def kl_sparsity(
    activations: Any,
    rho: Any,
    beta: Any,
    *,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    mask: Any = None,
) -> float:
    """EQ-SPARSITY as a regularizer of one layer's output: β Σⱼ KL(ρⱼ‖ρ̂ⱼ).

    Source: CS294A lecture notes "Sparse autoencoder", §3. See `reference.cost.sparsity_cost`.

    >>> kl_sparsity([[0.25], [0.75]], rho=0.5, beta=3.0)
    0.0
    """
    return sparsity_cost(activations, rho, beta, epsilon=epsilon, symmetric=symmetric, mask=mask)


def kl_sparsity_gradient(
    activations: Any,
    rho: Any,
    beta: Any,
    *,
    epsilon: Any = 0.0,
    symmetric: bool = False,
    mask: Any = None,
) -> Array:
    """EQ-SPARSITY-SLOPE for every activation: (β/m) ∂KL(ρⱼ‖ρ̂ⱼ)/∂ρ̂ⱼ, 0 where masked.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        activations: (samples, ..., units).
        rho: ρ inside (0, 1), a number; or (units,), ρⱼ.
        beta: β ≥ 0.
        epsilon: Where EQ-KL-EXTENSION begins.
        symmetric: Whether the activations lie in [−1, 1].
        mask: Valid positions (see EQ-RHO-HAT).

    Returns:
        float64, the shape of `activations`.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> kl_sparsity_gradient([[0.5], [0.5]], rho=0.25, beta=2.0).tolist()
    [[1.0], [1.0]]
    """
    rho_hat = mean_activation(activations, mask, symmetric=symmetric)
    rho = sparsity_target(rho, rho_hat.shape)
    beta = non_negative("beta", beta)
    epsilon = extension_edge(epsilon, rho)
    _, valid = valid_samples(activations, mask)
    m = int(np.sum(valid))
    slope = sparsity_slope(rho, beta, rho_hat, m, epsilon=epsilon, symmetric=symmetric)
    return np.where(valid[:, None], slope, 0.0).reshape(np.shape(activations))
