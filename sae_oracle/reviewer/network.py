"""Networks of dense layers as NumPy computes them: found from the shapes of their weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Weights = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
}
_INVERSES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: np.log(a / (1.0 - a)),
    "tanh": np.arctanh,
}
_SLOPES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: 1.0 / (a * (1.0 - a)),
    "tanh": lambda a: 1.0 / (1.0 - a * a),
}


@dataclass(frozen=True)
class Layer:
    """One layer of a network: the names of its weights.

    Args:
        kernel: The name of the kernel; as it is used, (inputs, units) or the transpose.
        transposed: Whether it is stored as (units, inputs).
        bias: The name of the bias; `None`: it has none.
    """

    kernel: str
    transposed: bool
    bias: str | None


@dataclass(frozen=True)
class Network:
    """Dense layers, and the activation of each.

    Args:
        layers: From the input to the output.
        activations: Their names: of `ACTIVATIONS`.
    """

    layers: tuple[Layer, ...]
    activations: tuple[str, ...]

    @property
    def hidden(self) -> str:
        """The activation of the first layer."""
        return self.activations[0]

    @property
    def last(self) -> str:
        """The activation of the output."""
        return self.activations[-1]

    @property
    def words(self) -> str:
        """The network in words."""
        same = len(set(self.activations[:-1])) == 1
        names = (self.hidden, self.last) if same else self.activations
        return f"network: {len(self.layers)} dense layers, {', '.join(names)}"

    def forward(self, weights: Weights, x: Any) -> list[Any]:
        """Return the activations of every layer."""
        outputs = []
        a = x
        for layer, name in zip(self.layers, self.activations, strict=True):
            kernel = weights[layer.kernel]
            z = a @ (kernel.T if layer.transposed else kernel)
            if layer.bias is not None:
                z = z + weights[layer.bias]
            a = ACTIVATIONS[name](z)
            outputs.append(a)
        return outputs


def networks(layers: Sequence[Layer]) -> Iterator[Network]:
    """Yield layers with each choice of activations: of the same for all hidden layers, then others.

    Of more than five layers the hidden ones are taken to be alike.
    """
    depth = len(layers)
    alike = [(name,) * (depth - 1) for name in ACTIVATIONS]
    mixed = itertools.product(ACTIVATIONS, repeat=depth - 1) if 2 < depth < 6 else ()
    for hidden, last in itertools.product([*alike, *mixed], ACTIVATIONS):
        yield Network(tuple(layers), (*hidden, last))


def chains(shapes: Mapping[str, tuple[int, ...]], transposed: set[str]) -> Iterator[list[Layer]]:
    """Yield the dense layers that weights may be, from an input to an output of the same width.

    Args:
        shapes: Of the weights by name.
        transposed: The kernels that are surely stored as (units, inputs).
    """
    kernels = [name for name, shape in shapes.items() if len(shape) == 2]
    free = [name for name, shape in shapes.items() if len(shape) == 1]
    for flipped in (False, True):
        if not kernels:
            return
        sides = [(k, (k in transposed) != flipped) for k in kernels]
        for chain in (sides, [*sides, *((k, not t) for k, t in reversed(sides))]):
            layers: list[Layer] = []
            left = list(free)
            first, stored = chain[0]
            width = features = shapes[first][1] if stored else shapes[first][0]
            for kernel, stored in chain:
                rows, columns = shapes[kernel][::-1] if stored else shapes[kernel]
                if rows != width:
                    break
                width = columns
                own = [b for b in left if shapes[b] == (columns,)]
                own.sort(key=lambda b: b.rpartition(".")[0] != kernel.rpartition(".")[0])
                bias = own[0] if own else None
                if bias is not None:
                    left.remove(bias)
                layers.append(Layer(kernel, stored, bias))
            else:
                if width == features and len(layers) > 1:
                    yield layers


def batches(features: int) -> list[Any]:
    """Return inputs of several sizes, inside (0, 1): each sample has a strength of its own."""
    generator = np.random.default_rng(12)
    made = []
    for m in (5, 9, 3, 8):
        strength = generator.uniform(0.3, 1.0, (m, 1))
        x = strength * generator.uniform(0.1, 0.9, (m, features))
        made.append(x.astype("float32").astype("float64"))
    return made


def weights_inside(
    shapes: Mapping[str, tuple[int, ...]],
    layers: Sequence[Layer],
    seed: int,
    activations: Sequence[str] = (),
    low: float = 0.15,
    high: float = 0.35,
) -> Weights:
    """Return weights for which every hidden activation lies inside (0, 1), whatever the units are.

    With the layers' `activations`, the units' own levels lie between `low` and `high`.
    """
    generator = np.random.default_rng(seed)
    made: Weights = {}
    for position, layer in enumerate(layers):
        shape = shapes[layer.kernel]
        fan_in, units = shape[::-1] if layer.transposed else shape
        level = generator.uniform(low, high, units)
        slope = generator.uniform(0.2, 1.0, (fan_in, units)) * level / fan_in
        offset = level
        if activations and position < len(layers) - 1:
            offset = _INVERSES.get(activations[position], lambda a: a)(level)
            slope = slope * _SLOPES.get(activations[position], lambda a: np.ones_like(a))(level)
        if position == len(layers) - 1:
            slope = generator.normal(size=(fan_in, units)) * 0.4
        if layer.kernel not in made:
            kernel = slope.T if layer.transposed else slope
            made[layer.kernel] = kernel.astype("float32").astype("float64")
        if layer.bias is not None:
            made[layer.bias] = offset.astype("float32").astype("float64")
    for name, shape in shapes.items():
        if name not in made:
            made[name] = np.zeros(shape)
    return made
