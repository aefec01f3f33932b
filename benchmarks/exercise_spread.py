"""How far may two right runs of the exercise end from each other? Rounding, amplified by L-BFGS.

    KERAS_BACKEND=jax python -m benchmarks.exercise_spread --runs 20

The cost of the notes' exercise is not convex and 400 iterations do not converge, so a difference of
one rounding in the start grows from iteration to iteration until two runs go different ways. Runs
the exercise from starts that differ by at most one float32 rounding (2⁻²⁴ of each weight), in
float64 and in float32, and prints the final costs. What they spread over is what no two correct
implementations can be asked to agree better than: `EXERCISE_MARGIN` in `sae_oracle.report`.
"""

from __future__ import annotations

import argparse
import json

import keras
import numpy as np

import reference
from keras_impl.backends.process import use_dtype
from sae_oracle.datasets import natural_patches
from sae_oracle.workers import exercise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--iterations", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--oracle", action="store_true", help="the oracle in place of a backend")
    chosen = parser.parse_args()
    x = natural_patches(exercise.PATCHES)
    generator = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {}
    for run in range(chosen.runs):
        theta = reference.pack(exercise.start())
        if run:
            theta = theta * (1.0 + 2.0**-24 * generator.uniform(-1.0, 1.0, theta.shape))
        begin = reference.unpack(theta, exercise.start())
        for dtype in ("float64",) if chosen.oracle else ("float64", "float32"):
            use_dtype(dtype)
            costs: list[float] = []
            # The same run again for each number of iterations would do; one run that is looked at
            # on the way is the same, and shorter.
            at = set(chosen.iterations)
            if chosen.oracle:
                for iterations in sorted(at):
                    parameters, _ = exercise.by_oracle(x, begin, iterations)
                    costs.append(exercise.outcome(parameters, x, 0, 0.0)["total"])
            else:
                costs = _costs_on_the_way(x, begin, sorted(at), dtype)
            found.setdefault(dtype, []).append(costs)
            print(json.dumps({"run": run, "dtype": dtype, "costs": costs}), flush=True)
    name = "oracle" if chosen.oracle else keras.config.backend()
    for dtype, runs in found.items():
        for iterations, costs in zip(sorted(at), np.transpose(runs), strict=True):
            print(
                f"{name} {dtype}, {iterations} iterations, {len(costs)} runs: "
                f"median {np.median(costs):.6f}, min {np.min(costs):.6f}, max {np.max(costs):.6f}, "
                f"standard deviation {np.std(costs, ddof=1):.2g}"
            )


def _costs_on_the_way(
    x: np.ndarray, begin: reference.Parameters, at: list[int], dtype: str
) -> list[float]:
    from keras_impl import SparseAutoencoder, fit_lbfgs
    from sae_oracle.workers.oracle_bridge import set_parameters

    model = SparseAutoencoder(exercise.SIZES[1], **exercise.HYPERPARAMETERS, dtype=dtype)
    model.build((None, exercise.SIZES[0]))
    set_parameters(model, begin)
    losses = fit_lbfgs(model, x, at[-1], verbose=False).history["loss"]
    return [losses[min(iterations, len(losses)) - 1] for iterations in at]


if __name__ == "__main__":
    main()
