"""A network of L layers: parameters (untied or tied), packing, initialisation, forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reference.activations import activation_named
from reference.validation import Array, each, flag, instance, integer, real_array


@dataclass(frozen=True, eq=False)
class Parameters:
    """The weights W and biases b of a network.

    A kernel is the transpose of the notes' W: (inputs, units), a row for each input. A tied
    network stores the kernels of its first half alone; layer L+1−l uses the transpose of layer
    l's kernel. Its biases are all its own.

    Source: CS294A lecture notes "Sparse autoencoder", §1 (W and b of each layer).

    Args:
        kernels: One (inputs, units) matrix a layer; for a tied network of L layers, L/2.
        biases: One (units,) vector a layer.
        tied: Whether the second half of the network uses the first half's kernels transposed.

    Raises:
        TypeError: If an array is not real, or `tied` not a truth value.
        ValueError: If there are no layers, shapes do not follow each other, or a value is not
            finite.

    >>> Parameters([np.ones((4, 2)), np.ones((2, 4))], [np.zeros(2), np.zeros(4)]).sizes
    (4, 2, 4)
    >>> Parameters([np.ones((4, 2))], [np.zeros(2), np.zeros(4)], tied=True).sizes
    (4, 2, 4)
    """

    kernels: Sequence[Array]
    biases: Sequence[Array]
    tied: bool = False

    def __post_init__(self) -> None:
        kernels = tuple(
            real_array(f"kernels[{i}]", kernel, ndim=2, finite=True)
            for i, kernel in enumerate(each("kernels", self.kernels, "matrices"))
        )
        biases = tuple(
            real_array(f"biases[{i}]", bias, ndim=1, finite=True)
            for i, bias in enumerate(each("biases", self.biases, "vectors"))
        )
        object.__setattr__(self, "kernels", kernels)
        object.__setattr__(self, "biases", biases)
        object.__setattr__(self, "tied", flag("tied", self.tied))
        if not kernels:
            raise ValueError("`kernels` must hold at least one matrix. Received none.")
        if len(self.layer_kernels) != len(biases):
            raise ValueError(
                f"`biases` must hold one vector for each of the {len(self.layer_kernels)} layers. "
                f"Received {len(biases)}."
            )
        inputs = kernels[0].shape[0]
        for i, (kernel, bias) in enumerate(zip(self.layer_kernels, biases, strict=True)):
            if kernel.size == 0 or kernel.shape[0] != inputs:
                raise ValueError(
                    f"The kernel of layer {i} must have {inputs} rows and at least one column. "
                    f"Received shape {kernel.shape}."
                )
            if bias.shape != (kernel.shape[1],):
                raise ValueError(
                    f"`biases[{i}]` must have shape ({kernel.shape[1]},). Received {bias.shape}."
                )
            inputs = kernel.shape[1]

    @property
    def layer_kernels(self) -> tuple[Array, ...]:
        """One (inputs, units) kernel for each layer; a tied network's second half transposed."""
        kernels = tuple(self.kernels)
        return kernels + tuple(kernel.T for kernel in reversed(kernels)) if self.tied else kernels

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of units of each layer, inputs first."""
        kernels = self.layer_kernels
        return (kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels))


def pack(parameters: Parameters) -> Array:
    """EQ-PACK: θ = [W⁽¹⁾(:); W⁽²⁾(:); …; b⁽¹⁾; b⁽²⁾; …], all parameters as one vector.

    A kernel read row by row is the notes' W = kernelᵀ read column by column, as MATLAB's W(:).

    Source: Stanford CS294A programming assignment "Sparse autoencoder" (parameter vector θ).

    >>> pack(Parameters([[[1.0, 2.0]], [[3.0], [4.0]]], [[5.0, 6.0], [7.0]])).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    parameters = instance("parameters", parameters, Parameters)
    return np.concatenate([array.ravel() for array in (*parameters.kernels, *parameters.biases)])


def unpack(vector: Any, like: Parameters) -> Parameters:
    """EQ-UNPACK: the inverse of EQ-PACK, with the shapes of another set of parameters.

    Source: Stanford CS294A programming assignment "Sparse autoencoder" (parameter vector θ).

    Args:
        vector: (number of parameters,).
        like: Parameters with the wanted shapes.

    Raises:
        TypeError: If `vector` is not real.
        ValueError: If it has another length, or is not finite.

    >>> theta = np.arange(7.0)
    >>> bool(np.all(pack(unpack(theta, initialise((1, 2, 1), seed=0))) == theta))
    True
    """
    vector = real_array("vector", vector, ndim=1, finite=True)
    like = instance("like", like, Parameters)
    arrays = [*like.kernels, *like.biases]
    ends = np.cumsum([array.size for array in arrays])
    if len(vector) != ends[-1]:
        raise ValueError(f"`vector` must have {ends[-1]} elements. Received {len(vector)}.")
    parts = [
        part.reshape(array.shape)
        for part, array in zip(np.split(vector, ends[:-1]), arrays, strict=True)
    ]
    return Parameters(parts[: len(like.kernels)], parts[len(like.kernels) :], tied=like.tied)


def initialise(sizes: Sequence[int], seed: int, *, tied: bool = False) -> Parameters:
    """EQ-INIT: W ~ uniform in ±√6 / √(fan_in + fan_out + 1), b = 0.

    Source: Stanford CS294A programming assignment "Sparse autoencoder" (initialisation).

    Args:
        sizes: Units of each layer, inputs first, such as (64, 25, 64).
        seed: Seed of NumPy's default generator; the same seed gives the same weights.
        tied: Whether the second half shares the first half's kernels; `sizes` then reads the
            same backwards and has an odd number of entries.

    Raises:
        TypeError: If a size or the seed is not an integer.
        ValueError: If there are fewer than two sizes, one is not positive, or a tied network
            is not symmetric.

    >>> parameters = initialise((64, 25, 64), seed=0)
    >>> bool(np.max(np.abs(parameters.kernels[0])) <= np.sqrt(6 / 90)), parameters.sizes
    (True, (64, 25, 64))
    """
    sizes = tuple(integer("sizes", size, low=1) for size in each("sizes", sizes, "integers"))
    if len(sizes) < 2:
        raise ValueError(f"`sizes` must hold at least two positive integers. Received {sizes}.")
    tied = flag("tied", tied)
    if tied and (sizes != sizes[::-1] or len(sizes) % 2 == 0):
        raise ValueError(
            f"`sizes` of a tied network must read the same backwards, with an odd number of "
            f"entries. Received {sizes}."
        )
    generator = np.random.default_rng(integer("seed", seed, low=0))
    pairs = list(itertools.pairwise(sizes))
    kernels = []
    for fan_in, fan_out in pairs[: len(pairs) // 2] if tied else pairs:
        limit = np.sqrt(6.0) / np.sqrt(fan_in + fan_out + 1)
        kernels.append(generator.uniform(-limit, limit, size=(fan_in, fan_out)))
    return Parameters(kernels, [np.zeros(size) for size in sizes[1:]], tied=tied)


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The logits z⁽ˡ⁾ and activations a⁽ˡ⁾ of every layer.

    Args:
        logits: L arrays (m, units): z⁽²⁾ … of the notes.
        activations: L + 1 arrays: x itself, then f(z) of every layer; the last is h(x).
    """

    logits: tuple[Array, ...]
    activations: tuple[Array, ...]

    @property
    def output(self) -> Array:
        """h(x), (m, units of the last layer)."""
        return self.activations[-1]

    @property
    def hidden(self) -> tuple[Array, ...]:
        """The activations of the hidden layers, those that the sparsity term sees."""
        return self.activations[1:-1]


def layer_activations(activation: str, output_activation: str | None, layers: int) -> list[str]:
    """Return the name of each layer's activation: `activation`, and the last layer's own."""
    activation_named(activation)
    last = activation if output_activation is None else output_activation
    activation_named(last, "output_activation")
    return [activation] * (layers - 1) + [last]


def forward(
    parameters: Parameters,
    x: Any,
    *,
    activation: str = "sigmoid",
    output_activation: str | None = None,
) -> ForwardPass:
    """EQ-FORWARD: a⁽¹⁾ = x, z⁽ˡ⁺¹⁾ = W⁽ˡ⁾a⁽ˡ⁾ + b⁽ˡ⁾, a⁽ˡ⁺¹⁾ = f(z⁽ˡ⁺¹⁾), h(x) = a⁽ᴸ⁾.

    With a row a sample: Z = A·kernel + b.

    Source: CS294A lecture notes "Sparse autoencoder", §1, eqs (6)–(7).

    Args:
        parameters: The network.
        x: (m, n), a row a sample.
        activation: f of the hidden layers: "sigmoid", "tanh", "relu" or "linear".
        output_activation: f of the last layer; `None`: the same (as in the notes). "linear" is
            the linear decoder.

    Returns:
        The logits and activations of every layer, float64.

    Raises:
        TypeError: If `x` is not real.
        ValueError: If `x` has another shape or is not finite, or an activation is unknown.

    >>> parameters = Parameters([[[1.0]], [[2.0]]], [[0.0], [1.0]])
    >>> forward(parameters, [[3.0]], activation="linear").output.tolist()
    [[7.0]]
    """
    parameters = instance("parameters", parameters, Parameters)
    x = sample_rows("x", x, parameters.sizes[0])
    kernels = parameters.layer_kernels
    logits: list[Array] = []
    activations = [x]
    names = layer_activations(activation, output_activation, len(kernels))
    for kernel, bias, name in zip(kernels, parameters.biases, names, strict=True):
        z = activations[-1] @ kernel + bias
        logits.append(z)
        activations.append(activation_named(name).function(z))
    return ForwardPass(tuple(logits), tuple(activations))


def sample_rows(name: str, rows: Any, columns: int) -> Array:
    """Return rows (m, columns), at least one, as float64.

    Raises:
        TypeError, ValueError: As `forward`.

    >>> sample_rows("x", [[1, 2]], 2).tolist()
    [[1.0, 2.0]]
    """
    array = real_array(name, rows, ndim=2, finite=True)
    if array.shape[0] == 0 or array.shape[1] != columns:
        raise ValueError(
            f"`{name}` must have shape (m, {columns}) with m ≥ 1. Received {array.shape}."
        )
    return array


def maximally_exciting_inputs(kernel: Any) -> Array:
    """EQ-FEATURE: xⱼ = Wᵢⱼ / √(Σⱼ Wᵢⱼ²), the input of norm 1 that excites hidden unit i most.

    Source: CS294A lecture notes "Sparse autoencoder", §4.

    Args:
        kernel: (inputs, units), of the first layer.

    Returns:
        float64, (units, inputs): a row for each hidden unit, of Euclidean norm 1.

    Raises:
        TypeError: If `kernel` is not real.
        ValueError: If it is not a finite matrix, or a unit has no weight but zero (every input
            excites it alike).

    >>> maximally_exciting_inputs([[3.0], [4.0]]).tolist()
    [[0.6, 0.8]]
    """
    kernel = real_array("kernel", kernel, ndim=2, finite=True)
    if kernel.size == 0:
        raise ValueError(f"`kernel` must hold a weight. Received shape {kernel.shape}.")
    lengths = norms(kernel, axis=0)
    if np.any(lengths == 0.0):
        raise ValueError(
            "`kernel` must have a non-zero weight for each unit. "
            f"Unit {np.argmin(lengths)} has none."
        )
    return (kernel / lengths).T


def norms(vectors: Array, axis: int) -> Array:
    """Return √(Σ v²) along an axis that is kept, for vectors of any length without overflow.

    They are scaled by a power of two, which rounds nothing.

    >>> norms(np.array([[3.0, 4.0]]) * 2.0**900, axis=1).tolist() == [[5.0 * 2.0**900]]
    True
    """
    _, exponent = np.frexp(np.max(np.abs(vectors), axis=axis, keepdims=True))
    squares = np.sum(np.ldexp(vectors, -exponent) ** 2, axis=axis, keepdims=True)
    return np.ldexp(np.sqrt(squares), exponent)
