"""Pictures of what the hidden units learned: the inputs that excite each unit most."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference
from sae_oracle.files import write_result


def image_shape(inputs: int) -> tuple[int, ...]:
    """Return the shape in which an input is shown: a grey or a colour square, else a strip.

    >>> image_shape(64), image_shape(192), image_shape(10)
    ((8, 8), (8, 8, 3), (1, 10))
    """
    for channels in (1, 3):
        side = math.isqrt(inputs // channels)
        if inputs % channels == 0 and side * side * channels == inputs and side > 1:
            return (side, side) if channels == 1 else (side, side, channels)
    return (1, inputs)


def tiles(kernel: Any, columns: int | None = None) -> NDArray[np.float64]:
    """Return one image of the inputs of norm 1 that excite each hidden unit most (EQ-FEATURE).

    Each tile has its own scale, zero in the middle grey, as in the notes' picture.

    Source: CS294A lecture notes "Sparse autoencoder", §4.

    Args:
        kernel: (inputs, units), of the first layer. Colour inputs are rows × columns × 3.
        columns: How many tiles a row; `None`: a square of tiles.

    Returns:
        (height, width), or (height, width, 3), from 0 to 1.

    Raises:
        TypeError, ValueError: As `reference.maximally_exciting_inputs`.

    >>> tiles(np.eye(4)).shape
    (7, 7)
    """
    features = reference.maximally_exciting_inputs(kernel)
    features = features / np.max(np.abs(features), axis=1, keepdims=True)
    shape = image_shape(features.shape[1])
    columns = columns or (1 if shape[0] == 1 else math.ceil(math.sqrt(len(features))))
    rows = math.ceil(len(features) / columns)
    height, width = shape[0] + 1, shape[1] + 1  # one pixel between tiles
    image = np.ones((rows * height + 1, columns * width + 1, *shape[2:]))
    for i, feature in enumerate(features):
        top, left = i // columns * height + 1, i % columns * width + 1
        image[top : top + shape[0], left : left + shape[1]] = (feature.reshape(shape) + 1.0) / 2.0
    return image


def feature_figure(kernels: Mapping[str, Any], columns: int | None = None) -> Any:
    """Return a figure with one picture of features beside the other.

    Args:
        kernels: The kernel of a first layer for each title.
        columns: Pictures a row; `None`: all in one row.

    Raises:
        TypeError, ValueError: As `tiles`.
    """
    from matplotlib.figure import Figure

    columns = columns or len(kernels)
    rows = math.ceil(len(kernels) / columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (title, kernel) in zip(axes, kernels.items(), strict=False):
        axis.imshow(tiles(kernel), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure


def png(figure: Any) -> bytes:
    """Return a figure as a PNG with few colours: small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return small_png(buffer.getvalue())


def write_png(figure: Any, path: Path) -> None:
    """Write a figure as a PNG with few colours, whole or not at all."""
    write_result(path, png(figure))


def small_png(data: bytes) -> bytes:
    """Return the picture of a PNG in 256 colours at most."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
