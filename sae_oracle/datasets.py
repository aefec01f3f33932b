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

    images = [image.mean(axis=2) for image in load_sample_images().images]
    patches = _patches(images, count, size, seed)
    patches -= patches.mean(axis=1, keepdims=True)
    limit = 3.0 * patches.std()
    patches = np.clip(patches, -limit, limit) / limit
    return (patches + 1.0) * 0.4 + 0.1


def _patches(images: list[NDArray[Any]], count: int, size: int, seed: int) -> NDArray[np.float64]:
    if count < 1:
        raise ValueError(f"`count` must be positive. Received: count={count!r}")
    if not 1 <= size <= min(min(image.shape[:2]) for image in images):
        raise ValueError(f"`size` must fit into the photographs. Received: size={size!r}")
    generator = np.random.default_rng(seed)
    patches = np.empty((count, images[0][:size, :size].size))
    for i in range(count):
        image = images[generator.integers(len(images))]
        row = generator.integers(image.shape[0] - size + 1)
        column = generator.integers(image.shape[1] - size + 1)
        patches[i] = image[row : row + size, column : column + size].ravel()
    return patches


def digits() -> NDArray[np.float64]:
    """Return scikit-learn's 1,797 handwritten digits, 8×8, grey values from 0 to 1.

    >>> digits().shape, float(digits().max())
    ((1797, 64), 1.0)
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits().data
    return np.asarray(data, dtype=np.float64) / 16.0


def colour_patches(count: int = 10_000, size: int = 8, seed: int = 0) -> NDArray[np.float64]:
    """Return colour patches of scikit-learn's two photographs, as they are.

    Args:
        count: How many patches.
        size: Their side in pixels.
        seed: Of the positions.

    Returns:
        float64 from 0 to 1, (count, size²·3), a pixel's three colours side by side.

    Raises:
        ValueError: If `count` is not positive, or the patches do not fit into the photographs.

    >>> colour_patches(10).shape
    (10, 192)
    """
    from sklearn.datasets import load_sample_images

    return _patches([image / 255.0 for image in load_sample_images().images], count, size, seed)


def zca_whitening(x: NDArray[Any], epsilon: float = 0.1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the mean of the rows and the matrix of ZCA whitening, U diag(1/√(s + ε)) Uᵀ.

    (x − mean) @ matrix has uncorrelated columns of variance s/(s + ε), as close to x − mean as
    such a thing may be.

    Source: Stanford UFLDL tutorial, "Whitening", and the exercise "Learning color features with
    Sparse Autoencoders" (ε = 0.1).

    Args:
        x: (m, n).
        epsilon: ε ≥ 0, in units of the variance of x.

    Returns:
        (n,) and (n, n), float64.

    Raises:
        ValueError: If x is not a matrix of at least two rows, or ε is negative.

    >>> x = np.random.default_rng(0).normal(size=(50, 3)) @ np.triu(np.ones((3, 3)))
    >>> mean, matrix = zca_whitening(x, epsilon=0.0)
    >>> np.cov((x - mean) @ matrix, rowvar=False, bias=True).round(9).tolist() == np.eye(3).tolist()
    True
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"`x` must be a matrix of at least two rows. Received shape {x.shape}.")
    if not epsilon >= 0.0:
        raise ValueError(f"`epsilon` must not be negative. Received: epsilon={epsilon!r}")
    mean = x.mean(axis=0)
    variances, directions = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    scales = 1.0 / np.sqrt(np.maximum(variances, 0.0) + epsilon)
    return mean, (directions * scales) @ directions.T
