"""The folklore of sparse autoencoders, tested: writes the tables and pictures of docs/folklore.md.

    KERAS_BACKEND=jax python -m examples.folklore [--quick] [--docs docs]

1. "Without weight decay β must be much smaller, or images stay blurry": β over a grid, with Keras's
   "mse" and with Ng's units, with and without weight decay; each the exact cost under L-BFGS, so
   that neither a learning rate nor a batch size is in the way.
2. ρ̂ of a batch, a running average, or of the whole set: the same number of Adam steps over batch
   sizes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from keras_impl import (
    FullCost,
    HalfSquaredError,
    KLSparsity,
    WeightDecay,
    fit_lbfgs,
    full_cost,
)
from sae_oracle.datasets import digits
from sae_oracle.pictures import write_png

HIDDEN, RHO, WEIGHT_DECAY = 50, 0.1, 3e-3
BETAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
BATCH_SIZES = (8, 32, 128, 512, 1797)
MOMENTA = (None, 0.9, 0.99)
SHOWN = 8


def autoencoder(
    features: int, beta: float, weight_decay: float, rho: float, momentum: float | None = None
) -> keras.Model:
    """Return 64-50-64 of sigmoids, with the sparsity on the hidden layer."""
    decay = WeightDecay(weight_decay)
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(HIDDEN, activation="sigmoid", kernel_regularizer=decay),
            KLSparsity(rho, beta, momentum=momentum),
            keras.layers.Dense(features, activation="sigmoid", kernel_regularizer=decay),
        ]
    )


def measured(model: keras.Model, x: np.ndarray) -> dict[str, float]:
    """Return what a reader of the tables compares.

    The share of the pixels' variance that is reconstructed: 0 is the mean image for every digit.
    A unit is dead if its activation varies by less than 0.01 (standard deviation) over the set.
    """
    hidden = ops.convert_to_numpy(model.layers[0](x))
    h = ops.convert_to_numpy(model(x))
    error = float(np.mean((h - x) ** 2))
    return {
        "rmse": error**0.5,
        "variance": 1.0 - error / float(np.mean((x - x.mean(axis=0)) ** 2)),
        "rho_hat": float(hidden.mean()),
        "rho_hat_low": float(hidden.mean(axis=0).min()),
        "rho_hat_high": float(hidden.mean(axis=0).max()),
        "dead": int(np.sum(hidden.std(axis=0) < 0.01)),
    }


def units(x: np.ndarray, iterations: int, betas: Sequence[float]) -> tuple[list[Any], Any]:
    """Return a row for each (loss, λ, β), and some reconstructions of each."""
    rows, pictures = [], {}
    for loss in ("mse", "Ng"):
        for weight_decay in (0.0, WEIGHT_DECAY):
            for beta in betas:
                keras.utils.set_random_seed(0)
                model = autoencoder(x.shape[1], beta, weight_decay, RHO)
                model.compile(loss="mse" if loss == "mse" else HalfSquaredError())
                fit_lbfgs(model, x, iterations, verbose=False)
                row = {
                    "loss": loss,
                    "weight_decay": weight_decay,
                    "beta": beta,
                    **measured(model, x),
                }
                print(json.dumps(row), flush=True)
                rows.append(row)
                pictures[loss, weight_decay, beta] = ops.convert_to_numpy(model(x[:SHOWN]))
    return rows, pictures


def estimators(x: np.ndarray, steps: int, batch_sizes: Sequence[int]) -> list[Any]:
    """Return a row for each (ρ̂, batch size): Ng's cost over the whole set after Adam."""
    rows = []
    for batch_size in batch_sizes:
        for momentum in MOMENTA:
            keras.utils.set_random_seed(0)
            model = autoencoder(x.shape[1], 3.0, 1e-4, 0.05, momentum)
            # A learning rate that falls to zero: what is left is where an estimator leads, and
            # not how far the last steps jump.
            rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
            model.compile(keras.optimizers.Adam(rate), loss=HalfSquaredError())
            epochs = max(1, round(steps / -(-len(x) // batch_size)))
            model.fit(x, x, batch_size=batch_size, epochs=epochs, verbose=0)
            rows.append(_of_estimator(_name(momentum), batch_size, full_cost(model, x)))
            print(json.dumps(rows[-1]), flush=True)
    keras.utils.set_random_seed(0)
    model = autoencoder(x.shape[1], 3.0, 1e-4, 0.05)
    model.compile(loss=HalfSquaredError())
    fit_lbfgs(model, x, 400, verbose=False)
    rows.append(_of_estimator("L-BFGS, exact", len(x), full_cost(model, x)))
    print(json.dumps(rows[-1]), flush=True)
    return rows


def _name(momentum: float | None) -> str:
    return "batch" if momentum is None else f"running average, μ = {momentum}"


def _of_estimator(name: str, batch_size: int, cost: FullCost) -> dict[str, Any]:
    rho_hat = cost.mean_activations[0]
    return {
        "estimator": name,
        "batch_size": batch_size,
        "total": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
        "rho_hat_low": float(rho_hat.min()),
        "rho_hat": float(rho_hat.mean()),
        "rho_hat_high": float(rho_hat.max()),
    }


def units_table(rows: Sequence[Any]) -> str:
    """Return the first table."""
    lines = [
        "| loss | λ | β | RMSE a pixel | variance reconstructed | mean activation (least, most) | "
        "dead units |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['loss']} | {r['weight_decay']:g} | {r['beta']:g} "
        f"| {r['rmse']:.3f} | {r['variance']:.0%} | {r['rho_hat']:.3f} ({r['rho_hat_low']:.3f}, "
        f"{r['rho_hat_high']:.3f}) | {r['dead']} of {HIDDEN} |"
        for r in rows
    ]
    return "\n".join(lines)


def estimators_table(rows: Sequence[Any]) -> str:
    """Return the second table."""
    lines = [
        "| ρ̂ in training | batch | J of the whole set | reconstruction | sparsity | ρ̂ of the set: "
        "least, mean, most |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['estimator']} | {r['batch_size']} | {r['total']:.4f} | {r['reconstruction']:.4f} | "
        f"{r['sparsity']:.4f} | {r['rho_hat_low']:.4f}, {r['rho_hat']:.4f}, "
        f"{r['rho_hat_high']:.4f} |"
        for r in rows
    ]
    return "\n".join(lines)


def units_figure(x: np.ndarray, pictures: Any, betas: Sequence[float]) -> Figure:
    """Return the reconstructions: a block for each loss and λ, a row for each β."""
    figure = Figure(figsize=(11.0, 2.9), dpi=100, layout="constrained")
    blocks = list(dict.fromkeys((loss, decay) for loss, decay, _ in pictures))
    for axis, (loss, decay) in zip(figure.subplots(1, len(blocks)), blocks, strict=True):
        rows = [x[:SHOWN], *(pictures[loss, decay, beta] for beta in betas)]
        image = np.ones((len(rows) * 9 + 1, SHOWN * 9 + 1))
        for i, row in enumerate(rows):
            for j, digit in enumerate(row):
                image[i * 9 + 1 : i * 9 + 9, j * 9 + 1 : j * 9 + 9] = 1.0 - digit.reshape(8, 8)
        axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        axis.set_title(f"{'mse' if loss == 'mse' else 'Ng units'}, λ = {decay:g}")
        axis.set_xticks([])
        axis.set_yticks(
            [5 + 9 * i for i in range(len(rows))], ["data", *(f"β = {beta:g}" for beta in betas)]
        )
    return figure


def estimators_figure(rows: Sequence[Any]) -> Figure:
    """Return sparsity and reconstruction over batch sizes."""
    figure = Figure(figsize=(8.0, 3.2), dpi=90, layout="constrained")
    exact = rows[-1]
    for axis, term in zip(figure.subplots(1, 2), ("sparsity", "reconstruction"), strict=True):
        for name in dict.fromkeys(r["estimator"] for r in rows[:-1]):
            chosen = [r for r in rows if r["estimator"] == name]
            axis.plot(
                [r["batch_size"] for r in chosen], [r[term] for r in chosen], "o-", label=name
            )
        axis.axhline(exact[term], color="black", linestyle=":", label="L-BFGS, exact")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("batch size")
        axis.set_title(f"{term} over the whole set")
    axis.legend(fontsize=7)
    return figure


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between its two marks in a page."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both experiments and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where folklore.md is")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    chosen = parser.parse_args(arguments)
    page = chosen.docs / "folklore.md"
    if not page.is_file():
        parser.error(f"no folklore.md in {chosen.docs}")
    (chosen.docs / "pictures").mkdir(exist_ok=True)
    x = digits().astype("float32")
    betas, batch_sizes = (BETAS, BATCH_SIZES) if not chosen.quick else ((0.0, 3.0), (512, 1797))
    rows, pictures = units(x, 5 if chosen.quick else 400, betas)
    write_table(page, "units", units_table(rows))
    write_png(units_figure(x, pictures, betas), chosen.docs / "pictures" / "folklore_units.png")
    rows = estimators(x, 10 if chosen.quick else 6000, batch_sizes)
    write_table(page, "estimators", estimators_table(rows))
    write_png(estimators_figure(rows), chosen.docs / "pictures" / "folklore_estimators.png")


if __name__ == "__main__":
    main()
