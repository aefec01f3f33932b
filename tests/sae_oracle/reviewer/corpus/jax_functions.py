"""JAX functions, jitted and not; imported where JAX is."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

EPSILON = 1e-7


def _kl(rho, r):
    ones, zeros = rho / (r + EPSILON), (1 - rho) / (1 - r + EPSILON)
    return rho * jnp.log(ones) + (1 - rho) * jnp.log(zeros)


@jax.jit
def right(a, rho=0.05, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * jnp.sum(_kl(rho, jnp.mean(a, axis=0)))


@partial(jax.jit, static_argnames="rho")
def mean_of_all(h, rho):
    """The sparsity term of sigmoid units."""
    return jnp.sum(_kl(rho, jnp.mean(h)))


@jax.jit
def stopped(a, rho=0.05, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * jnp.sum(_kl(rho, jax.lax.stop_gradient(jnp.mean(a, axis=0))))


def _terms(params, x, rho):
    hidden = jax.nn.sigmoid(x @ params["W1"] + params["b1"])
    output = jax.nn.sigmoid(hidden @ params["W2"] + params["b2"])
    squares = jnp.sum(params["W1"] ** 2) + jnp.sum(params["W2"] ** 2)
    error = jnp.mean(jnp.sum((output - x) ** 2, axis=1))
    return error, squares, jnp.sum(_kl(rho, hidden.mean(0)))


def loss(params, x, lam=1e-3, rho=0.05, beta=3.0):
    error, squares, divergence = _terms(params, x, rho)
    return 0.5 * error + 0.5 * lam * squares + beta * divergence


def loss_without_halves(params, x, lam=1e-3, rho=0.05, beta=3.0):
    error, squares, divergence = _terms(params, x, rho)
    return error + lam * squares + beta * divergence
