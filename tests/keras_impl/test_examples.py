"""The examples run, small; and the data that they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples import denoising, gallery, linear_decoder, stacked
from sae_oracle.datasets import colour_patches, natural_patches, zca_whitening


def test_linear_decoder(tmp_path: Path) -> None:
    out = tmp_path / "features.png"
    linear_decoder.main(["--patches=300", "--hidden=9", "--iterations=3", f"--out={out}"])
    assert out.read_bytes().startswith(b"\x89PNG")


def test_denoising(tmp_path: Path) -> None:
    found = denoising.main(["--hidden=10", "--epochs=2", f"--out={tmp_path}"])
    assert 0.2 < found["noisy"] < 0.4
    assert -1.0 < found["denoised"] < 1.0
    for name in ("denoising", "watch"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.only_backends("torch")
def test_gallery(tmp_path: Path) -> None:
    np.save(tmp_path / "code.npy", np.full((20, 3), 0.5))
    code = f"--code={tmp_path / 'code.npy'}"
    found = gallery.main(["--epochs=1", "--iterations=2", f"--out={tmp_path}", code])
    assert all(np.isfinite(value) for value in found.values())
    assert found["largest difference of the two"] == 0.0
    for name in (
        "encoder",
        "theta",
        "rho_by_unit",
        "rho_by_layer",
        "annealing",
        "validation",
        "code",
    ):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_stacked() -> None:
    costs = stacked.main(["--hidden", "8", "4", "--iterations=15"])
    assert costs["stacked, then trained as a whole"] < costs["stacked"]


@pytest.mark.only_backends("torch")
def test_whitened_patches_are_white() -> None:
    x = colour_patches(2000)
    assert x.shape == (2000, 192)
    assert 0.0 <= x.min() <= x.max() <= 1.0
    mean, matrix = zca_whitening(x, epsilon=1e-3)
    white = (x - mean) @ matrix
    # Variances s/(s + ε) and no correlation, in float64 from eigenvectors of a 192 × 192 matrix.
    variances = np.linalg.eigvalsh((x - mean).T @ (x - mean) / len(x))
    found = np.linalg.eigvalsh(white.T @ white / len(x))
    slack = 192 * 2.0**-52 * variances.max() / 1e-3
    assert np.max(np.abs(np.sort(variances / (variances + 1e-3)) - found)) <= slack
    assert np.array_equal(matrix, matrix.T) or np.max(np.abs(matrix - matrix.T)) <= slack
    for bad, epsilon in ((x[:1], 0.1), (x[0], 0.1), (x, -1.0)):
        with pytest.raises(ValueError, match="must"):
            zca_whitening(bad, epsilon)
    for patches in (natural_patches, colour_patches):
        with pytest.raises(ValueError, match="`count` must be positive"):
            patches(0)
        with pytest.raises(ValueError, match="`size` must fit"):
            patches(3, 10_000)
