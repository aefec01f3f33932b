"""The cost function of the notes' exercise in Python, right and with one mistake each."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-12


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _kl(rho, r):
    ones, zeros = rho / (r + EPSILON), (1 - rho) / (1 - r + EPSILON)
    return rho * np.log(ones) + (1 - rho) * np.log(zeros)


def _cost(
    theta, visible, hidden, weight_decay, rho, beta, data,
    *, axis=1, halves=(0.5, 0.5), samples=None, biases=False, units=np.sum, of_beta=True,
    kernels=(1, 1), slope=1.0, decay_slope=1.0,
):  # fmt: skip
    n = hidden * visible
    w1, w2 = theta[:n].reshape(hidden, visible), theta[n : 2 * n].reshape(visible, hidden)
    b1, b2 = theta[2 * n : 2 * n + hidden], theta[2 * n + hidden :]
    m = data.shape[1]
    a2 = _sigmoid(w1 @ data + b1[:, None])
    a3 = _sigmoid(w2 @ a2 + b2[:, None])
    r = np.mean(a2, axis=axis)
    squares = kernels[0] * np.sum(w1**2) + kernels[1] * np.sum(w2**2)
    if biases:
        squares += np.sum(b1**2) + np.sum(b2**2)
    cost = halves[0] * np.sum((a3 - data) ** 2) / (samples or m)
    cost += halves[1] * weight_decay * squares + (beta if of_beta else 1) * units(_kl(rho, r))
    if axis != 1:
        return cost
    d3 = (a3 - data) * a3 * (1 - a3)
    of_kl = slope * beta * (-rho / (r + EPSILON) + (1 - rho) / (1 - r + EPSILON))
    d2 = (w2.T @ d3 + of_kl[:, None]) * a2 * (1 - a2)
    lam = decay_slope * weight_decay
    parts = (d2 @ data.T / m + lam * w1, d3 @ a2.T / m + lam * w2, d2.mean(1), d3.mean(1))
    return cost, np.concatenate([part.ravel() for part in parts])


def _exercise(rows=False, gradient=True, **changes):
    def sparse_autoencoder_cost(
        theta, visible_size, hidden_size, lambda_, sparsity_param, beta, data
    ):
        data = data.T if rows else data
        found = _cost(
            theta, visible_size, hidden_size, lambda_, sparsity_param, beta, data, **changes
        )
        return found if gradient or not isinstance(found, tuple) else found[0]

    return sparse_autoencoder_cost


def of_matrices(w1, b1, w2, b2, x, lam=1e-3, rho=0.05, beta=3.0):
    h = _sigmoid(x @ w1 + b1)
    out = h @ w2 + b2
    error = 0.5 * np.mean(np.sum((out - x) ** 2, axis=1))
    decay = lam / 2 * (np.sum(w1**2) + np.sum(w2**2))
    return error + decay + beta * np.sum(_kl(rho, h.mean(axis=0)))


class Network:
    """A class that holds its sizes and hyperparameters."""

    axis = 1

    def __init__(self, visible_size, hidden_size, rho, lamda, beta):
        self.visible_size, self.hidden_size = visible_size, hidden_size
        self.rho, self.lamda, self.beta = rho, lamda, beta

    def cost(self, theta, data):
        sizes = (self.visible_size, self.hidden_size)
        found = _cost(theta, *sizes, self.lamda, self.rho, self.beta, data, axis=self.axis)
        return list(found) if isinstance(found, tuple) else found


class NetworkOfAll(Network):
    """A class that holds its sizes and hyperparameters."""

    axis = None


right = _exercise()
samples_in_rows = _exercise(rows=True)
without_gradient = _exercise(gradient=False)
wrong_axis = _exercise(axis=0)
mean_of_all = _exercise(axis=None)
whole_lambda = _exercise(halves=(0.5, 1.0), gradient=False)
without_half = _exercise(halves=(1.0, 0.5), gradient=False)
summed_over_samples = _exercise(samples=1, gradient=False)
decayed_biases = _exercise(biases=True, gradient=False)
one_kernel_decayed = _exercise(kernels=(1, 0), gradient=False)
mean_over_units = _exercise(units=np.mean, gradient=False)
without_beta = _exercise(of_beta=False, gradient=False)
gradient_without_sparsity = _exercise(slope=0.0)
gradient_without_decay = _exercise(decay_slope=0.0)

EXPECTED = {
    "right samples_in_rows without_gradient of_matrices Network": "",
    "wrong_axis": "SAE105",
    "mean_of_all NetworkOfAll": "SAE106",
    "whole_lambda": "SAE211",
    "without_half": "SAE201",
    "summed_over_samples": "SAE203",
    "decayed_biases": "SAE213",
    "one_kernel_decayed": "SAE214",
    "mean_over_units": "SAE111",
    "without_beta": "SAE113",
    "gradient_without_sparsity gradient_without_decay": "SAE304",
}
