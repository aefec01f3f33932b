"""NumPy functions and classes that Keras never calls: of activations, of means, losses, decay."""

from __future__ import annotations

import functools

import numpy as np

EPSILON = 1e-8
RHO = 0.05
BETA = 3.0


def _kl(rho, r):
    ones, zeros = rho / (r + EPSILON), (1 - rho) / (1 - r + EPSILON)
    return rho * np.log(ones) + (1 - rho) * np.log(zeros)


# --- of activations; each is for sigmoid activations, as most are


def right(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.mean(a, axis=0)))


def other_names(hidden_output, desired_sparsity, kl_weight):
    """The sparsity term of sigmoid units."""
    return kl_weight * np.sum(_kl(desired_sparsity, hidden_output.mean(0)))


def constants_of_the_module(h):
    """The sparsity term of sigmoid units."""
    return BETA * _kl(RHO, h.mean(axis=0)).sum()


def a_number_in_the_source(h):
    """The sparsity term of sigmoid units."""
    return 2.0 * np.sum(_kl(0.2, h.mean(axis=0)))


def columns(a2, sparsity_param, beta):
    """The sparsity term of sigmoid units, a2 of shape (hidden_size, m)."""
    return beta * np.sum(_kl(sparsity_param, np.mean(a2, axis=1)))


class Penalty:
    """The sparsity term of sigmoid units."""

    def __init__(self, rho=0.05, beta=3.0):
        self.rho = rho
        self.beta = beta

    def rho_hat(self, a):
        return a.mean(axis=0)

    def penalty(self, activations):
        return self.beta * np.sum(_kl(self.rho, self.rho_hat(activations)))


a_partial = functools.partial(right, rho=0.2)


def wrong_axis(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.mean(a, axis=1)))


def mean_of_all(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.mean(a)))


def second_sigmoid(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.mean(1 / (1 + np.exp(-a)), axis=0)))


def each_activation(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.mean(np.sum(_kl(rho, a), axis=1))


def reversed_kl(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    ones, zeros = np.log((r + EPSILON) / rho), np.log((1 - r + EPSILON) / (1 - rho))
    return beta * np.sum(r * ones + (1 - r) * zeros)


def ones_half(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(rho * np.log(rho / (np.mean(a, axis=0) + EPSILON)))


def mean_over_units(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.mean(_kl(rho, np.mean(a, axis=0)))


def divided_by_the_batch(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.mean(a, axis=0))) / len(a)


def without_beta(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return np.sum(_kl(rho, np.mean(a, axis=0)))


def clipped(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sum(_kl(rho, np.clip(np.mean(a, axis=0), 1e-6, 1 - 1e-6)))


def without_parentheses(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r) + (1 - rho) * np.log(1 - rho / 1 - r))


def without_parentheses_of_the_numerator(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r) + (1 - rho) * np.log(1 - rho / (1 - r)))


def logarithm_of_the_numerator(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho) / r + (1 - rho) * np.log(1 - rho) / (1 - r))


def weight_without_parentheses(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r) + 1 - rho * np.log((1 - rho) / (1 - r)))


def parenthesis_closed_late(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r + (1 - rho) * np.log((1 - rho) / (1 - r))))


def denominator_outside(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r) + (1 - rho) * (np.log((1 - rho) / 1) - r))


def one_quotient_upside_down(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(r / rho) + (1 - rho) * np.log((1 - rho) / (1 - r)))


def norm_of_activations(h, lam=0.1):
    """A penalty."""
    return lam * np.sum(np.abs(h))


class WrongPenalty(Penalty):
    """The sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return a.mean(axis=1)


def _make(rho, beta):
    def penalty(a):
        """The sparsity term of sigmoid units."""
        return beta * np.sum(_kl(rho, np.mean(a, axis=1)))

    return penalty


def factory(rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return _make(rho, beta)


# --- of means


def divergence(rho, rho_hat):
    """KL of sigmoid units."""
    return _kl(rho, rho_hat)


def divergence_of_x(x, y):
    """KL of sigmoid units."""
    return _kl(x, y)


def of_one_unit(p, p_hat):
    """KL of sigmoid units."""
    import math

    return p * math.log(p / (p_hat + EPSILON)) + (1 - p) * math.log((1 - p) / (1 - p_hat + EPSILON))


def derivative(rho, rho_hat):
    """The derivative of the KL."""
    return -rho / rho_hat + (1 - rho) / (1 - rho_hat)


def reversed_divergence(rho, rho_hat):
    """KL of sigmoid units."""
    return reversed_kl(np.atleast_2d(rho_hat), rho, 1.0)


def mean_divergence(rho_hat, rho=0.05):
    """KL of sigmoid units."""
    return np.mean(_kl(rho, rho_hat))


def base_two(rho, rho_hat):
    """KL of sigmoid units."""
    return np.sum(_kl(rho, rho_hat)) / np.log(2)


# --- losses and weight decay


def half_squared_error(x, x_hat):
    return 0.5 * np.mean(np.sum((x_hat - x) ** 2, axis=1))


def squared_error(target, output):
    return np.mean((output - target) ** 2)


def decay(w1, w2, lam):
    return lam / 2 * (np.sum(w1**2) + np.sum(w2**2))


def decay_without_half(weights, lam=0.01):
    return lam * np.sum(weights**2)


def square_root(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * np.sqrt(np.sum(_kl(rho, np.mean(a, axis=0))))


def absolute_halves(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0) + EPSILON
    return beta * np.sum(abs(rho * np.log(rho / r)) + abs((1 - rho) * np.log((1 - rho) / (1 - r))))


def one_weight_missing(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=0)
    return beta * np.sum(rho * np.log(rho / r) + np.log((1 - rho) / (1 - r)))


def clipped_before_the_mean(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return right(np.clip(a, 0.04, 1 - 0.04), rho, beta)


def percentage(a, rho=5, beta=3.0):
    """The sparsity term of sigmoid units, for 5 %."""
    return right(a, rho, beta)


def of_a_kernel(w):
    return np.sum(_kl(RHO, np.mean(1 / (1 + np.exp(-w)), axis=0)))


EXPECTED = {
    "right other_names constants_of_the_module a_number_in_the_source columns Penalty": "",
    "a_partial divergence divergence_of_x of_one_unit derivative half_squared_error decay": "",
    "wrong_axis WrongPenalty factory": "SAE105",
    "mean_of_all": "SAE106",
    "second_sigmoid": "SAE122",
    "each_activation": "SAE107",
    "reversed_kl reversed_divergence": "SAE108",
    "ones_half": "SAE109",
    "mean_over_units mean_divergence": "SAE111",
    "divided_by_the_batch": "SAE102",
    "without_beta": "SAE113",
    "clipped": "SAE402",
    "norm_of_activations square_root absolute_halves": "SAE119",
    "clipped_before_the_mean": "SAE126 SAE402",
    "percentage": "SAE131",
    "of_a_kernel": "SAE130",
    "base_two": "SAE112",
    "without_parentheses without_parentheses_of_the_numerator logarithm_of_the_numerator "
    "weight_without_parentheses parenthesis_closed_late denominator_outside "
    "one_weight_missing": "SAE129",
    "one_quotient_upside_down": "SAE119",
    "squared_error": "SAE201 SAE202",
    "decay_without_half": "SAE211",
}
