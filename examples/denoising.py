"""Denoising: clean digits from noisy ones, and what the hidden units do while it learns.

    KERAS_BACKEND=jax python -m examples.denoising --out docs/pictures

`fit(noisy, x)` reconstructs x from noisy: the cost of the notes with y = x and x = noisy (EQ-COST).
Nothing else changes; ρ̂ is that of the noisy inputs. Trained on 1,500 of scikit-learn's digits,
five times with other noise, and tried on the 297 others. Writes `denoising.png` and `watch.png`.
Source: P. Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders",
ICML 2008.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_impl import SparseAutoencoder, Watch
from sae_oracle.datasets import digits
from sae_oracle.pictures import write_png


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, draw, print and return R² on the other digits: of the noisy ones and of the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--noise", type=float, default=0.3, help="standard deviation")
    parser.add_argument("--out", type=Path, default=Path())
    chosen = parser.parse_args(arguments)

    generator = np.random.default_rng(0)
    order = generator.permutation(digits()).astype("float32")
    x, others = np.tile(order[:1500], (5, 1)), order[1500:]

    def noisy(clean: Any) -> Any:
        noise = generator.normal(scale=chosen.noise, size=clean.shape)
        return np.clip(clean + noise, 0.0, 1.0).astype("float32")

    model = SparseAutoencoder(chosen.hidden, rho=0.1, beta=0.3, weight_decay=1e-4, seed=0)
    model.compile(keras.optimizers.Adam(0.005))
    unseen = noisy(others)
    watch = Watch(unseen, others)
    model.fit(noisy(x), x, batch_size=250, epochs=chosen.epochs, verbose=0, callbacks=[watch])
    found = model.predict(unseen, verbose=0)
    variance = np.sum(np.square(others - others.mean(axis=0)))
    r_squared = {
        "noisy": 1.0 - float(np.sum(np.square(unseen - others)) / variance),
        "denoised": watch.history["r_squared"][-1],
    }
    for name, value in r_squared.items():
        print(f"{value:6.3f}  R² of the {name} digits")
    write_png(
        rows({"clean": others, "noisy": unseen, "denoised": found}), chosen.out / "denoising.png"
    )
    write_png(watch.figure(), chosen.out / "watch.png")
    return r_squared


def rows(images: dict[str, Any], columns: int = 12) -> Any:
    """Return a figure with a row of 8×8 images for each name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.6 * columns, 0.65 * len(images)), dpi=100, layout="constrained")
    axes = figure.subplots(len(images), columns)
    for of_row, (name, several) in zip(axes, images.items(), strict=True):
        for axis, image in zip(of_row, several[:columns], strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray", vmin=0.0, vmax=1.0)
            axis.set(xticks=[], yticks=[])
        of_row[0].set_ylabel(name, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
