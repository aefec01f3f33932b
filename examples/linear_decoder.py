"""Colour features by a linear decoder: 8×8 colour patches, ZCA-whitened, 192-400-192.

    KERAS_BACKEND=jax python -m examples.linear_decoder --out linear_decoder.png

Sigmoid hidden units and a linear output, so that h(x) need not lie in [0, 1]; ρ = 0.035, λ = 3e-3,
β = 5, 400 iterations of L-BFGS, as in the Stanford UFLDL exercise "Learning color features with
Sparse Autoencoders" (which has 100,000 patches of other images). The picture shows the inputs that
excite each unit most, in the colours before whitening: the kernel is that of whitened data, and
whitening times it that of the patches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras import ops

from keras_impl import SparseAutoencoder, fit_lbfgs
from sae_oracle.datasets import colour_patches, zca_whitening
from sae_oracle.pictures import feature_figure, write_png


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the terms of the cost, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("linear_decoder.png"))
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--iterations", type=int, default=400)
    chosen = parser.parse_args(arguments)
    patches = colour_patches(chosen.patches)
    mean, whitening = zca_whitening(patches, epsilon=0.1)
    model = SparseAutoencoder(
        chosen.hidden,
        rho=0.035,
        beta=5.0,
        weight_decay=3e-3,
        output_activation="linear",
        seed=0,
    )
    history = fit_lbfgs(model, (patches - mean) @ whitening, chosen.iterations).history
    print({name: round(values[-1], 4) for name, values in history.items()})
    kernel = whitening @ ops.convert_to_numpy(model.kernels[0])
    write_png(feature_figure({f"{chosen.hidden} units": kernel}), chosen.out)


if __name__ == "__main__":
    main()
