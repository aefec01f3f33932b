"""Real data that ships inside a package: natural image patches and handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def natural_patches(count: int = 10_000, size: int = 8, seed: int = 0) -> NDArray[np.float64]:
    """Return patches of scikit-learn's two photographs, prepared as in the notes' assignment.

    Grey values (the mean of the colours); each patch less its own mean; truncated at ±3 standard
    deviations of all of them; mapped from there to [0.1, 0.9], inside the range of a sigmoid.

    Source: Stanford CS294A programming assignment "Sparse autoencoder" (8×8 patches, 10,000 of
    them); the photographs are `sklearn.datasets.load_sample_images`.

    Args:
        count: How many patches.
        size: Their side in pixels.
        seed: Of the positions.

    Returns:
        float64, (count, size²).

    Raises:
        ValueError: If `count` is not positive, or the patches do not fit into the photographs.

    >>> patches = natural_patches(100)
    >>> patches.shape, round(float(patches.min()), 12), round(float(patches.max()), 12)
    ((100, 64), 0.1, 0.9)
    """
    from sklearn.datasets import load_sample_images

    if count < 1:
        raise ValueError(f"`count` must be positive. Received: count={count!r}")
    images = [image.mean(axis=2) for image in load_sample_images().images]
    if not 1 <= size <= min(min(image.shape) for image in images):
        raise ValueError(f"`size` must fit into the photographs. Received: size={size!r}")
    generator = np.random.default_rng(seed)
    patches = np.empty((count, size * size))
    for i in range(count):
        image = images[generator.integers(len(images))]
        row = generator.integers(image.shape[0] - size + 1)
        column = generator.integers(image.shape[1] - size + 1)
        patches[i] = image[row : row + size, column : column + size].ravel()
    patches -= patches.mean(axis=1, keepdims=True)
    limit = 3.0 * patches.std()
    patches = np.clip(patches, -limit, limit) / limit
    return (patches + 1.0) * 0.4 + 0.1


def digits() -> NDArray[np.float64]:
    """Return scikit-learn's 1,797 handwritten digits, 8×8, grey values from 0 to 1.

    >>> digits().shape, float(digits().max())
    ((1797, 64), 1.0)
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits().data
    return np.asarray(data, dtype=np.float64) / 16.0
