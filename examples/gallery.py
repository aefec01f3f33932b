"""The gallery's pictures of codes, of θ, of ρ by unit and by layer, of a warm-up of β, of a fit.

    KERAS_BACKEND=torch python -m examples.gallery --out docs/pictures

On scikit-learn's digits: 1,500 to train on, 297 others. Writes `encoder.png`, `theta.png`,
`rho_by_unit.png`, `rho_by_layer.png`, `annealing.png` and `validation.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import reference
from examples.denoising import rows
from keras_impl import (
    Anneal,
    SparseAutoencoder,
    Watch,
    fit_lbfgs,
    full_cost,
    set_parameters,
    to_parameters,
)
from sae_oracle.datasets import digits
from sae_oracle.pictures import feature_figure, write_png


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, draw, and return a number of each picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--code", type=Path, help="what `sae-oracle encode` wrote: for code.png")
    chosen = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    order = np.random.default_rng(0).permutation(digits()).astype("float32")
    x, others = order[:1500], order[1500:]
    found: dict[str, float] = {}

    # ρ by unit: a quarter of the units each.
    rho = np.repeat([0.02, 0.05, 0.1, 0.2], 12)
    model = SparseAutoencoder(48, rho=[rho], beta=0.3, weight_decay=1e-4, seed=0)
    model.compile("adam")
    history = fit_lbfgs(
        model, x, iterations=chosen.iterations, validation_data=others, verbose=False
    ).history
    rho_hat = full_cost(model, x).mean_activations[0]
    figure, axis = one_axis("unit", "ρ̂")
    axis.plot(rho_hat, "o", ms=4, label="ρ̂ of the unit")
    axis.step(np.arange(48), rho, where="mid", color="black", lw=1, label="its ρ")
    axis.legend(fontsize=8)
    write_png(figure, chosen.out / "rho_by_unit.png")
    found["largest |ρ̂ − ρ|/ρ"] = float(np.max(np.abs(rho_hat - rho) / rho))

    figure, axis = one_axis("iteration of L-BFGS", "cost")
    axis.plot(history["loss"], label="training set")
    axis.plot(history["val_loss"], label="validation set")
    axis.set_yscale("log")
    axis.legend(fontsize=8)
    write_png(figure, chosen.out / "validation.png")
    found["validation cost"] = history["val_loss"][-1]

    code = model.encoder.predict(others, verbose=0)
    strongest = np.where(code >= np.sort(code)[:, -5:-4], code, 0.0)
    images = {
        "digit": others,
        "48 units": model.decoder.predict(code, verbose=0),
        "5 of 48": model.decoder.predict(strongest, verbose=0),
    }
    write_png(rows(images), chosen.out / "encoder.png")

    # θ of the notes' assignment, and what the units of another model do that takes it.
    theta = reference.pack(to_parameters(model))
    other = SparseAutoencoder(48)
    other.build((None, 64))
    set_parameters(other, theta)
    w1 = theta[: 48 * 64].reshape(48, 64, order="F")  # as MATLAB has it
    kernels = {"W1 of θ": w1.T, "the units of a model with it": to_parameters(other).kernels[0]}
    write_png(feature_figure(kernels), chosen.out / "theta.png")
    found["largest difference of the two"] = float(np.max(np.abs(w1.T - [*kernels.values()][1])))

    if chosen.code is not None:
        figure, axis = one_axis("unit", "digit")
        axis.imshow(np.load(chosen.code)[:12], cmap="gray_r", vmin=0.0, vmax=1.0)
        write_png(figure, chosen.out / "code.png")

    # ρ and β by layer: the decoder mirrors those of the first hidden layer.
    deep = SparseAutoencoder((32, 12), rho=(0.05, 0.25), beta=(0.3, 0.1), weight_decay=1e-4, seed=0)
    deep.compile("adam")
    fit_lbfgs(deep, x, iterations=chosen.iterations, verbose=False)
    figure, axis = one_axis("unit, of the three hidden layers side by side", "ρ̂")
    of_layers = full_cost(deep, x).mean_activations
    rho = np.repeat(deep.rho, [len(of_layer) for of_layer in of_layers])
    rho_hat = np.concatenate(of_layers)
    axis.plot(rho_hat, "o", ms=4, label="ρ̂ of the unit")
    axis.step(np.arange(len(rho)), rho, where="mid", color="black", lw=1, label="ρ of its layer")
    axis.set_ylim(bottom=0.0)
    axis.legend(fontsize=8)
    write_png(figure, chosen.out / "rho_by_layer.png")
    found["largest |ρ̂ − ρ|/ρ of three layers"] = float(np.max(np.abs(rho_hat - rho) / rho))

    # β from 0 to its value in the first half.
    steps = chosen.epochs * 6
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, steps // 2, end_learning_rate=0.3)
    model = SparseAutoencoder(48, rho=0.05, beta=0.3, weight_decay=1e-4, seed=0)
    model.compile(keras.optimizers.Adam(0.005))
    watch = Watch(x)
    history = model.fit(
        x,
        batch_size=250,
        epochs=chosen.epochs,
        verbose=0,
        callbacks=[Anneal("beta", warm_up), watch],
    ).history
    figure, axis = one_axis("epoch", "mean of all ρ̂")
    axis.plot(watch.history["rho_hat_mean"], label="mean of all ρ̂")
    axis.axhline(0.05, color="black", lw=1, label="ρ")
    beta = axis.twinx()
    beta.plot(history["annealed_beta"], "--", color="tab:orange", label="β")
    beta.set_ylabel("β", fontsize=8)
    beta.tick_params(labelsize=8)
    axis.figure.legend(fontsize=8, loc="outside upper right", ncols=3)
    write_png(figure, chosen.out / "annealing.png")
    found["mean ρ̂ at the end"] = watch.history["rho_hat_mean"][-1]
    for name, value in found.items():
        print(f"{value:8.4g}  {name}")
    return found


def one_axis(x: str, y: str) -> tuple[Any, Any]:
    """Return a small figure and its axis, with names for both directions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 2.4), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=8)
    return figure, axis


if __name__ == "__main__":
    main()
