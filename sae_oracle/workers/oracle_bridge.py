"""Weights out of a `SparseAutoencoder` into the oracle's `Parameters`, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference
from keras_impl.backends.arrays import as_float64
from keras_impl.backends.keras_internals import write_state_back
from keras_impl.models import SparseAutoencoder
from keras_impl.validation import cut


def to_parameters(model: SparseAutoencoder) -> reference.Parameters:
    """Return a model's weights as NumPy arrays in float64, exactly: the oracle's parameters.

    `reference.pack` makes the θ of the notes' assignment of them (EQ-PACK), in MATLAB's order.

    Args:
        model: A built `SparseAutoencoder`.

    Raises:
        TypeError: If it is none.
        ValueError: If it is not built, or has a weight that is not finite.

    >>> model = SparseAutoencoder(2)
    >>> model.build((None, 4))
    >>> parameters = to_parameters(model)
    >>> parameters.sizes, reference.pack(parameters).shape
    ((4, 2, 4), (22,))
    """
    model = _autoencoder(model)
    if not model.built:
        raise ValueError("`model` has no weights yet: call it on data, or `build`, before.")
    write_state_back(model)
    return reference.Parameters(
        [as_float64(kernel) for kernel in model.kernels],
        [as_float64(bias) for bias in model.biases],
        tied=model.tied,
    )


def set_parameters(
    model: SparseAutoencoder, parameters: reference.Parameters | NDArray[Any]
) -> None:
    """Give a model weights of NumPy, each rounded once to the dtype of its variable.

    The optimizer keeps its state.

    Args:
        model: A `SparseAutoencoder`. If it is not built, it is built for `parameters`.
        parameters: What `to_parameters` returns for such a model; or the vector θ of a built
            model, as `reference.pack` and the notes' assignment write it (EQ-PACK): (n,), or
            (n, 1) or (1, n) as `scipy.io.loadmat` reads it.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If the sizes or the number of kernels are not those of the model, or a number
            is not finite or too large for the dtype. Nothing is changed then.

    >>> model, other = SparseAutoencoder(2, seed=0), SparseAutoencoder(2, seed=1)
    >>> model.build((None, 4))
    >>> set_parameters(other, to_parameters(model))
    >>> theta = reference.pack(to_parameters(other))
    >>> set_parameters(model, 2.0 * theta)
    >>> bool(np.all(reference.pack(to_parameters(model)) == 2.0 * theta))
    True
    """
    model = _autoencoder(model)
    if not isinstance(parameters, reference.Parameters):
        parameters = _unpacked(model, parameters)
    sizes = (parameters.sizes[0], *model.hidden_units)
    sizes = (*sizes, *sizes[-2::-1])
    if model.built:
        features = model.kernels[0].shape[0]
        sizes = (features, *sizes[1:-1], features)
    if (parameters.sizes, parameters.tied) != (sizes, model.tied):
        raise ValueError(
            f"`parameters` must have the sizes {sizes} and tied={model.tied}. Received: "
            f"sizes {parameters.sizes}, tied={parameters.tied}"
        )
    if not model.built:
        model.build((None, sizes[0]))
    write_state_back(model)
    variables = [*model.kernels, *model.biases]
    arrays = []
    for variable, value in zip(variables, [*parameters.kernels, *parameters.biases], strict=True):
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype=variable.dtype)
        if not np.all(np.isfinite(array.astype("float64"))):
            raise ValueError(
                f"`parameters` must fit into {variable.dtype}, the dtype of the model. Received: "
                f"{np.max(np.abs(value))} for {variable.name}"
            )
        arrays.append(array)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _autoencoder(model: Any) -> SparseAutoencoder:
    if not isinstance(model, SparseAutoencoder):
        raise TypeError(
            "`model` must be a SparseAutoencoder: of other models use `get_weights` and "
            f"`set_weights`. Received: model={cut(model)}"
        )
    return model


def _unpacked(model: SparseAutoencoder, theta: Any) -> reference.Parameters:
    """The parameters of θ (EQ-UNPACK), with the shapes of a built model."""
    wanted = "`parameters` must be a `reference.Parameters` or a vector of numbers (EQ-PACK)."
    try:
        vector = np.asarray(theta)
    except Exception as error:  # whatever an object of anybody's raises
        raise TypeError(f"{wanted} Received: parameters={cut(theta)}") from error
    if vector.dtype.kind not in "fiu" or np.ma.isMaskedArray(theta):
        raise TypeError(f"{wanted} Received: parameters={cut(theta)}")
    if not model.built:
        raise ValueError(
            "A vector as `parameters` does not say how many inputs there are: build the model "
            f"before. Received: an array of shape {vector.shape}"
        )
    like = to_parameters(model)
    size = len(reference.pack(like))
    if vector.size != size or max(vector.shape, default=0) != size:
        raise ValueError(
            f"`parameters` must have the {size} numbers of a network of the sizes {like.sizes}, "
            f"tied={like.tied}. Received: an array of shape {vector.shape}"
        )
    if not np.all(np.isfinite(vector)):
        raise ValueError("`parameters` must be finite numbers. Received one that is not.")
    return reference.unpack(vector.ravel(), like)


def oracle_arguments(model: SparseAutoencoder) -> dict[str, Any]:
    """Return the arguments of the oracle's cost that mean the same as the model's.

    Args:
        model: A model; `from_logits` computes the same number as the exact divergence.

    >>> oracle_arguments(SparseAutoencoder(2, rho=0.25))["rho"]
    0.25
    """
    penalty = model.penalties[0]
    return {
        "rho": model.rho,
        "beta": model.beta,
        "weight_decay": model.weight_decay,
        "activation": model.activation,
        "output_activation": model.output_activation,
        "epsilon": penalty.epsilon,
        "symmetric": penalty.symmetric,
        "tied_decay": model.tied_decay,
    }
