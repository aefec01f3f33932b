"""The activation functions of the notes and their derivatives, in float64, without overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from reference.validation import Array, real_array


def sigmoid(z: Any) -> Array:
    """EQ-SIGMOID: f(z) = 1 / (1 + exp(−z)).

    Written with exp(−|z|), which cannot overflow: e = exp(−|z|), f = 1/(1+e) for z ≥ 0 and
    e/(1+e) for z < 0.

    Source: CS294A lecture notes "Sparse autoencoder", §1.

    Args:
        z: Any shape; the logits (the notes' z, the total weighted input).

    Returns:
        float64, the shape of `z`, in [0, 1].

    Raises:
        TypeError: If `z` is not real.

    >>> float(sigmoid(0.0)), float(sigmoid(-1e4)), float(sigmoid(1e4))
    (0.5, 0.0, 1.0)
    """
    z = real_array("z", z)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0, e) / (1.0 + e)


def sigmoid_derivative(z: Any) -> Array:
    """EQ-SIGMOID-DERIVATIVE: f′(z) = f(z)(1 − f(z)) = f(z) f(−z).

    The second form keeps its relative accuracy when f(z) is close to 1. One of its factors is
    1/(1+e) and the other e/(1+e), whatever the sign of z (see EQ-SIGMOID).

    Source: CS294A lecture notes "Sparse autoencoder", §1.

    >>> float(sigmoid_derivative(0.0))
    0.25
    """
    e = np.exp(-np.abs(real_array("z", z)))
    return (1.0 / (1.0 + e)) * (e / (1.0 + e))


def log_sigmoid(z: Any) -> Array:
    """EQ-LOG-SIGMOID: log f(z) = min(z, 0) − log(1 + exp(−|z|)).

    Finite for every finite z; log(1 − f(z)) is log f(−z).

    Source: CS294A lecture notes "Sparse autoencoder", §1 (the logarithm of its f).

    >>> float(log_sigmoid(-1e4))
    -10000.0
    """
    z = real_array("z", z)
    return np.minimum(z, 0.0) - np.log1p(np.exp(-np.abs(z)))


def tanh(z: Any) -> Array:
    """EQ-TANH: f(z) = (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ), a rescaled sigmoid: 2·sigmoid(2z) − 1.

    Source: CS294A lecture notes "Sparse autoencoder", §1.

    >>> float(tanh(0.0)), float(tanh(1e4))
    (0.0, 1.0)
    """
    return np.tanh(real_array("z", z))


def tanh_derivative(z: Any) -> Array:
    """EQ-TANH-DERIVATIVE: f′(z) = 1 − f(z)² = 4 s(2z) s(−2z) with s the sigmoid.

    The second form keeps its relative accuracy when |f(z)| is close to 1.

    Source: CS294A lecture notes "Sparse autoencoder", §1.

    >>> float(tanh_derivative(0.0))
    1.0
    """
    return 4.0 * sigmoid_derivative(2.0 * real_array("z", z))


def relu(z: Any) -> Array:
    """EQ-RELU: f(z) = max(z, 0).

    Source: Keras documentation, `keras.activations.relu`. Not in the notes: its values leave
    [0, 1], where the KL divergence of the notes is not defined.

    >>> relu([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    return np.maximum(real_array("z", z), 0.0)


def relu_derivative(z: Any) -> Array:
    """EQ-RELU-DERIVATIVE: f′(z) = 1 for z > 0, else 0 (at 0 too, as every backend has it).

    Source: Keras documentation, `keras.activations.relu`.

    >>> relu_derivative([-1.0, 0.0, 2.0]).tolist()
    [0.0, 0.0, 1.0]
    """
    return np.where(real_array("z", z) > 0.0, 1.0, 0.0)


def linear(z: Any) -> Array:
    """EQ-LINEAR: f(z) = z, the linear decoder.

    Source: Keras documentation, `keras.activations.linear`.

    >>> linear([-1.0, 2.0]).tolist()
    [-1.0, 2.0]
    """
    return real_array("z", z)


def linear_derivative(z: Any) -> Array:
    """EQ-LINEAR-DERIVATIVE: f′(z) = 1.

    Source: Keras documentation, `keras.activations.linear`.

    >>> linear_derivative([-1.0, 2.0]).tolist()
    [1.0, 1.0]
    """
    return np.ones_like(real_array("z", z))


class Activation(NamedTuple):
    """An activation function and its derivative, both functions of the logits z."""

    function: Callable[[Any], Array]
    derivative: Callable[[Any], Array]


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, sigmoid_derivative),
    "tanh": Activation(tanh, tanh_derivative),
    "relu": Activation(relu, relu_derivative),
    "linear": Activation(linear, linear_derivative),
}


def activation_named(name: str, argument: str = "activation") -> Activation:
    """Return the activation called `name`, one of `ACTIVATIONS`.

    Raises:
        ValueError: If there is none of that name.

    >>> activation_named("relu").function is relu
    True
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"`{argument}` must be one of {sorted(ACTIVATIONS)}. Received {name!r}.")
    return ACTIVATIONS[name]
