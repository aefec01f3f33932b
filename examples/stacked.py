"""Two autoencoders, one on the code of the other, then both as one deep network: digits.

    KERAS_BACKEND=jax python -m examples.stacked

Greedy layer by layer: 64-50-64 learns the digits, 50-20-50 the first one's code; their weights
start a deep 64-50-20-50-64, which the exact cost then trains as a whole. It is compared with the
same network from a random start. Source: Stanford UFLDL tutorial, "Stacked Autoencoders".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from keras import ops

from keras_impl import SparseAutoencoder, fit_lbfgs, full_cost
from sae_oracle.datasets import digits

HYPERPARAMETERS = {"rho": 0.1, "beta": 0.3, "weight_decay": 1e-4}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train the pair and the whole; print and return the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs=2, default=(50, 20))
    parser.add_argument("--iterations", type=int, default=200)
    chosen = parser.parse_args(arguments)
    x = digits()
    outer, inner = chosen.hidden

    first = SparseAutoencoder(outer, **HYPERPARAMETERS, seed=0)
    fit_lbfgs(first, x, chosen.iterations)
    code = ops.convert_to_numpy(first.encode(x))
    second = SparseAutoencoder(inner, **HYPERPARAMETERS, seed=1)
    fit_lbfgs(second, code, chosen.iterations)

    deep = SparseAutoencoder((outer, inner), **HYPERPARAMETERS, seed=2)
    deep.build((None, x.shape[1]))
    untrained = SparseAutoencoder((outer, inner), **HYPERPARAMETERS, seed=2)
    for layer, (model, of_model) in enumerate([(first, 0), (second, 0), (second, 1), (first, 1)]):
        deep.kernels[layer].assign(model.kernels[of_model])
        deep.biases[layer].assign(model.biases[of_model])
    costs = {"stacked": full_cost(deep, x).total}
    fit_lbfgs(deep, x, chosen.iterations)
    costs["stacked, then trained as a whole"] = full_cost(deep, x).total
    fit_lbfgs(untrained, x, chosen.iterations)
    costs["from random weights"] = full_cost(untrained, x).total
    for name, cost in costs.items():
        print(f"{cost:8.4f}  {name}")
    return costs


if __name__ == "__main__":
    main()
