"""Conversions between a `SparseAutoencoder` and the oracle's `Parameters`, for checking only."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference
from keras_impl.backends.arrays import as_float64
from keras_impl.models import SparseAutoencoder


def to_parameters(model: SparseAutoencoder) -> reference.Parameters:
    """Return a model's weights as the oracle's parameters, in float64, exactly.

    Args:
        model: A built model.

    >>> model = SparseAutoencoder(2)
    >>> model.build((None, 4))
    >>> to_parameters(model).sizes
    (4, 2, 4)
    """
    return reference.Parameters(
        [as_float64(kernel) for kernel in model.kernels],
        [as_float64(bias) for bias in model.biases],
        tied=model.tied,
    )


def set_parameters(model: SparseAutoencoder, parameters: reference.Parameters) -> None:
    """Give a built model the oracle's parameters, rounded to the model's dtype.

    Args:
        model: A built model with the same shapes.
        parameters: The weights.
    """
    for variable, value in zip(
        [*model.kernels, *model.biases], [*parameters.kernels, *parameters.biases], strict=True
    ):
        variable.assign(np.asarray(value, dtype=variable.dtype))


def oracle_arguments(model: SparseAutoencoder) -> dict[str, Any]:
    """Return the arguments of the oracle's cost that mean the same as the model's.

    Args:
        model: A model; `from_logits` computes the same number as the exact divergence.

    >>> oracle_arguments(SparseAutoencoder(2, rho=0.25))["rho"]
    0.25
    """
    penalty = model.penalties[0]
    return {
        "rho": penalty.rho,
        "beta": penalty.beta,
        "weight_decay": model.weight_decay,
        "activation": model.activation,
        "output_activation": model.output_activation,
        "epsilon": penalty.epsilon,
        "symmetric": penalty.symmetric,
        "tied_decay": model.tied_decay,
    }
