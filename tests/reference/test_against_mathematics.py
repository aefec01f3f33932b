"""The oracle against mpmath at 50 digits, complex steps, central differences, SciPy and sklearn.

None of these routes shares code with the oracle. The tolerance of each comparison is the bound
that `reference.rounding` derives for float64; where a route has an error of its own (central
differences), it is added, with its formula.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import example, given
from hypothesis import strategies as st

import reference
from reference.rounding import Arithmetic, Bounded, exact

mpmath.mp.dps = 50
FLOAT64 = Arithmetic("float64")

targets = st.one_of(st.floats(1e-6, 1 - 1e-6), st.sampled_from([0.01, 0.05, 0.1, 0.5, 0.9]))
means = st.one_of(
    st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    st.floats(1e-300, 1e-3),
    st.integers(1, 2**20).map(lambda k: 1.0 - k * 2.0**-53),
)
logit_values = st.floats(-2e3, 2e3)


def inside(actual: Any, expected: mpmath.mpf, bounded: Bounded) -> None:
    """Assert that a float64 result lies within its bound of the 50-digit value."""
    error = abs(mpmath.mpf(float(actual)) - expected)
    assert error <= mpmath.mpf(float(bounded.bound)), (
        f"{float(actual)!r} is {mpmath.nstr(error, 5)} from {mpmath.nstr(expected, 20)}; "
        f"bound {float(bounded.bound):.3g}"
    )


def mp_kl(rho: float, rho_hat: Any) -> mpmath.mpf:
    r, q = mpmath.mpf(rho), mpmath.mpf(rho_hat)
    return r * mpmath.log(r / q) + (1 - r) * mpmath.log((1 - r) / (1 - q))


def mp_sigmoid(z: Any) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-mpmath.mpf(z)))


def mp_logs(z: Any) -> tuple[mpmath.mpf, mpmath.mpf]:
    """log σ(z) and log σ(−z) by their series-free definitions, right at any z."""
    z = mpmath.mpf(z)
    return -mpmath.log1p(mpmath.exp(-z)), -mpmath.log1p(mpmath.exp(z))


@pytest.mark.equation("EQ-KL")
@given(targets, means)
def test_kl_divergence(rho: float, rho_hat: float) -> None:
    bound = FLOAT64.kl_divergence(rho, exact(rho_hat), 0.0)
    inside(reference.kl_divergence(rho, rho_hat), mp_kl(rho, rho_hat), bound)


@pytest.mark.equation("EQ-KL-DERIVATIVE")
@given(targets, means)
def test_kl_divergence_derivative(rho: float, rho_hat: float) -> None:
    expected = -mpmath.mpf(rho) / mpmath.mpf(rho_hat) + (1 - mpmath.mpf(rho)) / (
        1 - mpmath.mpf(rho_hat)
    )
    bound = FLOAT64.kl_derivative(rho, exact(rho_hat), 0.0)
    inside(reference.kl_divergence_derivative(rho, rho_hat), expected, bound)


@pytest.mark.equation("EQ-KL-EXTENSION", "EQ-KL-EXTENSION-DERIVATIVE")
@given(targets, st.floats(-5.0, 5.0), st.floats(2.0**-30, 1e-2))
def test_extension(rho: float, rho_hat: float, epsilon: float) -> None:
    epsilon = min(epsilon, rho, 1 - rho)
    # The edge of the float64 oracle is the float64 number 1 − ε.
    edge = min(max(rho_hat, epsilon), 1.0 - epsilon)
    slope = -mpmath.mpf(rho) / mpmath.mpf(edge) + (1 - mpmath.mpf(rho)) / (1 - mpmath.mpf(edge))
    expected = mp_kl(rho, edge) + slope * (mpmath.mpf(rho_hat) - mpmath.mpf(edge))
    value_bound = FLOAT64.kl_divergence(rho, exact(rho_hat), epsilon)
    inside(reference.extended_kl_divergence(rho, rho_hat, epsilon), expected, value_bound)
    slope_bound = FLOAT64.kl_derivative(rho, exact(rho_hat), epsilon)
    inside(reference.extended_kl_divergence_derivative(rho, rho_hat, epsilon), slope, slope_bound)


@pytest.mark.equation(
    "EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE", "EQ-LOG-MEAN-EXP", "EQ-LOG-SIGMOID"
)
@given(targets, st.lists(logit_values, min_size=1, max_size=6))
def test_kl_divergence_from_logits(rho: float, logits: list[float]) -> None:
    z = np.array(logits)[:, None]
    # exp(−2e3) needs 869 digits beside 1: enough are carried that 1 − ρ̂ keeps fifty of its own.
    with mpmath.workdps(1800):
        ones = [mp_sigmoid(v) for v in logits]
        rho_hat = mpmath.fsum(ones) / len(ones)
        expected = mp_kl(rho, rho_hat)
        slope = (-mpmath.mpf(rho) / rho_hat + (1 - mpmath.mpf(rho)) / (1 - rho_hat)) / len(ones)
        gradient = [slope * a * (1 - a) for a in ones]
    value, derivative = FLOAT64.kl_divergence_from_logits(rho, exact(z))
    inside(reference.kl_divergence_from_logits(rho, z)[0], +expected, Bounded(z, value.bound[0]))
    actual = reference.kl_divergence_from_logits_derivative(rho, z)
    for i, expected_derivative in enumerate(gradient):
        inside(actual[i, 0], +expected_derivative, Bounded(z, derivative.bound[i, 0]))


@pytest.mark.equation("EQ-SIGMOID", "EQ-SIGMOID-DERIVATIVE", "EQ-TANH", "EQ-TANH-DERIVATIVE")
@given(st.floats(-700.0, 700.0))
def test_activations(z: float) -> None:
    a, slope = FLOAT64.activation("sigmoid", exact(z))
    inside(reference.sigmoid(z), mp_sigmoid(z), a)
    inside(reference.activations.sigmoid_derivative(z), mp_sigmoid(z) * mp_sigmoid(-z), slope)
    a, slope = FLOAT64.activation("tanh", exact(z))
    inside(reference.tanh(z), mpmath.tanh(z), a)
    with mpmath.workdps(700):
        expected = 1 - mpmath.tanh(z) ** 2
    inside(reference.activations.tanh_derivative(z), +expected, slope)


@pytest.mark.equation("EQ-SIGMOID-DERIVATIVE", "EQ-TANH-DERIVATIVE", "EQ-LOG-SIGMOID")
@given(st.floats(-340.0, 340.0))
@example(40.0)
@example(-40.0)
def test_derivatives_keep_their_digits_where_units_saturate(z: float) -> None:
    """Relative to themselves, down to 1e-295: f(1 − f) would be 0 from z = 37 on."""
    with mpmath.workdps(350):
        slope, tanh_slope = mp_sigmoid(z) * mp_sigmoid(-z), 1 - mpmath.tanh(z) ** 2
    for actual, expected in (
        (reference.activations.sigmoid_derivative(z), slope),
        (reference.activations.tanh_derivative(z), tanh_slope),
        (reference.log_sigmoid(z), mp_logs(z)[0]),
        (reference.sigmoid(z), mp_sigmoid(z)),
    ):
        assert float(actual) != 0.0
        # An exponential (its argument is exact) and at most four operations, twice.
        assert abs(mpmath.mpf(float(actual)) - expected) <= 12 * 2.0**-53 * abs(expected)


@pytest.mark.equation("EQ-KL-EXTENSION", "EQ-KL-EXTENSION-DERIVATIVE")
@pytest.mark.parametrize("epsilon", [2.0**-1022, 1e-300, 1e-20, 2.0**-53, 1e-16, 1e-9])
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_extension_is_finite_for_every_epsilon(epsilon: float, rho: float) -> None:
    """Also where 1 − ε is 1 in float64; at its edges it is the divergence itself."""
    edge = reference.divergence.upper_edge(epsilon)
    assert edge < 1.0
    assert abs(edge - (1.0 - epsilon)) <= 2.0**-53
    means = [-2.0, 0.0, epsilon, 0.5, edge, 1.0, 3.0]
    values = reference.extended_kl_divergence(rho, means, epsilon)
    slopes = reference.extended_kl_divergence_derivative(rho, means, epsilon)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slopes))
    assert values[[2, 4]].tolist() == reference.kl_divergence(rho, [epsilon, edge]).tolist()
    assert np.all(np.diff(values[:3]) < 0.0)
    assert np.all(np.diff(values[4:]) > 0.0)
    assert slopes[0] == slopes[2] < 0.0 < slopes[4] == slopes[6]
    # The slope at the smallest ε of all overflows; its tangent at the edge is still nothing.
    assert np.isfinite(reference.extended_kl_divergence(0.5, 5e-324, 5e-324))


@pytest.mark.equation("EQ-RELU", "EQ-RELU-DERIVATIVE", "EQ-LINEAR", "EQ-LINEAR-DERIVATIVE")
def test_piecewise_linear_activations_are_exact() -> None:
    z = [-2.5, -0.0, 0.0, 1e-300, 3.0]
    assert reference.relu(z).tolist() == [0.0, 0.0, 0.0, 1e-300, 3.0]
    assert reference.activations.relu_derivative(z).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert reference.linear(z).tolist() == z
    assert reference.activations.linear_derivative(z).tolist() == [1.0] * 5


@pytest.mark.equation("EQ-KL")
@given(targets, means)
def test_kl_divergence_is_scipys_relative_entropy(rho: float, rho_hat: float) -> None:
    expected = scipy.special.rel_entr(rho, rho_hat) + scipy.special.rel_entr(1 - rho, 1 - rho_hat)
    # rel_entr gets 1 − ρ and 1 − ρ̂ already rounded; the bound covers both roundings.
    bound = FLOAT64.kl_divergence(rho, exact(rho_hat), 0.0).bound
    assert abs(float(reference.kl_divergence(rho, rho_hat)) - expected) <= bound


@pytest.mark.equation("EQ-KL", "EQ-KL-DERIVATIVE")
def test_limits_are_exact() -> None:
    assert reference.kl_divergence(0.3, [0.0, 1.0]).tolist() == [math.inf, math.inf]
    assert reference.kl_divergence(0.0, [0.0, 1.0]).tolist() == [0.0, math.inf]
    assert reference.kl_divergence(1.0, [0.0, 1.0]).tolist() == [math.inf, 0.0]
    assert reference.kl_divergence_derivative(0.3, [0.0, 1.0]).tolist() == [-math.inf, math.inf]


# --- the whole cost and its gradient, with formulas of this file alone -----------------------

Network = dict[str, Any]

networks = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "m": st.integers(1, 4),
        "sizes": st.sampled_from([(1, 1, 1), (2, 1, 2), (3, 2, 3), (2, 3, 2, 3, 2), (2, 3, 1)]),
        "tied": st.booleans(),
        "activation": st.sampled_from(["sigmoid", "tanh", "linear"]),
        "output_activation": st.sampled_from([None, "sigmoid", "tanh", "linear"]),
        "rho": targets,
        "beta": st.sampled_from([0.0, 0.1, 3.0, 100.0]),
        "weight_decay": st.sampled_from([0.0, 1e-4, 0.3]),
        "scale": st.sampled_from([0.1, 1.0, 4.0]),
        "same": st.booleans(),
        "tied_decay": st.sampled_from([1, 2]),
    }
)


def make(case: Network) -> tuple[reference.Parameters, np.ndarray, np.ndarray, dict[str, Any]]:
    generator = np.random.default_rng(case["seed"])
    sizes = case["sizes"]
    tied = case["tied"] and sizes == sizes[::-1] and len(sizes) % 2 == 1
    start = reference.initialise(sizes, seed=case["seed"], tied=tied)
    theta = (
        reference.pack(start) * case["scale"]
        + generator.normal(size=len(reference.pack(start))) * 0.1
    )
    parameters = reference.unpack(theta, start)
    x = generator.uniform(0.1, 0.9, size=(case["m"], sizes[0]))
    same = case["same"] and sizes[0] == sizes[-1]
    y = x if same else generator.uniform(0.1, 0.9, size=(case["m"], sizes[-1]))
    arguments = {
        "rho": case["rho"],
        "beta": case["beta"],
        "weight_decay": case["weight_decay"],
        "activation": case["activation"],
        "output_activation": case["output_activation"],
        # tanh and linear leave (0, 1): only the extension is defined there.
        "epsilon": min(1e-3, case["rho"], 1 - case["rho"]),
        "symmetric": case["activation"] == "tanh",
        "tied_decay": case["tied_decay"],
    }
    return parameters, x, y, arguments


def activation_of(name: str, library: Any) -> Any:
    return {
        "sigmoid": lambda z: 1 / (1 + library.exp(-z)),
        "tanh": library.tanh,
        "linear": lambda z: z,
    }[name]


def cost_elementwise(
    theta: list[Any],
    like: reference.Parameters,
    x: Any,
    y: Any,
    arguments: dict[str, Any],
    library: Any,
) -> tuple[Any, Any, Any]:
    """The three terms by sums over single numbers, in any number type (mpmath, complex)."""
    number = library.mpf if library is mpmath else complex
    numbers = iter(theta)
    kernels = [
        [[next(numbers) for _ in range(k.shape[1])] for _ in range(k.shape[0])]
        for k in like.kernels
    ]
    squares = sum(w * w for kernel in kernels for row in kernel for w in row)
    biases = [[next(numbers) for _ in range(len(b))] for b in like.biases]
    if like.tied:
        kernels += [
            [list(column) for column in zip(*kernel, strict=True)] for kernel in reversed(kernels)
        ]
    m = len(x)
    names = [arguments["activation"]] * (len(kernels) - 1)
    names.append(arguments["output_activation"] or arguments["activation"])
    layers = [[number(v) for v in row] for row in x]
    sparsity = number(0)
    for depth, (kernel, bias, name) in enumerate(zip(kernels, biases, names, strict=True)):
        f = activation_of(name, library)
        layers = [
            [f(sum(a[i] * kernel[i][j] for i in range(len(a))) + bias[j]) for j in range(len(bias))]
            for a in layers
        ]
        if depth < len(kernels) - 1:
            for j in range(len(bias)):
                rho_hat = sum(a[j] for a in layers) / m
                if arguments["symmetric"]:
                    rho_hat = (1 + rho_hat) / 2
                sparsity += extended_kl(
                    number(arguments["rho"]), rho_hat, arguments["epsilon"], library
                )
    reconstruction = sum(
        (h - number(t)) ** 2
        for a, target in zip(layers, y, strict=True)
        for h, t in zip(a, target, strict=True)
    ) / (2 * m)
    multiplicity = arguments["tied_decay"] if like.tied else 1
    decay = number(arguments["weight_decay"]) / 2 * multiplicity * squares
    return reconstruction, decay, number(arguments["beta"]) * sparsity


def extended_kl(rho: Any, rho_hat: Any, epsilon: float, library: Any) -> Any:
    real = rho_hat.real
    r = rho_hat
    if real < epsilon:
        r = type(rho)(epsilon)
    elif real > 1.0 - epsilon:
        r = type(rho)(1.0 - epsilon)
    value = rho * library.log(rho / r) + (1 - rho) * library.log((1 - rho) / (1 - r))
    if r is rho_hat:
        return value
    return value + (-rho / r + (1 - rho) / (1 - r)) * (rho_hat - r)


@pytest.mark.equation(
    "EQ-COST",
    "EQ-RECONSTRUCTION",
    "EQ-DECAY",
    "EQ-SPARSITY",
    "EQ-FORWARD",
    "EQ-RHO-HAT",
    "EQ-BOUND-COST",
)
@given(networks)
def test_cost_at_fifty_digits(case: Network) -> None:
    parameters, x, y, arguments = make(case)
    theta = [mpmath.mpf(v) for v in reference.pack(parameters)]
    expected = cost_elementwise(theta, parameters, x, y, arguments, mpmath)
    cost = reference.sparse_autoencoder_cost(parameters, x, y=y, **arguments)
    bounds = reference.cost_and_gradient_with_bounds(
        parameters, x, y=y, precision="float64", **arguments
    ).cost
    for name, value in zip(("reconstruction", "weight_decay", "sparsity"), expected, strict=True):
        inside(getattr(cost, name), value, getattr(bounds, name))
    inside(cost.total, sum(expected), bounds.total)


@pytest.mark.equation(
    "EQ-GRADIENT", "EQ-GRADIENT-TIED", "EQ-DELTA", "EQ-DELTA-OUTPUT", "EQ-SPARSITY-SLOPE"
)
@given(networks)
def test_gradient_by_complex_steps(case: Network) -> None:
    """∂J/∂θ = Im J(θ + ih)/h with h = 1e-150: no subtraction, so no error but rounding."""
    parameters, x, y, arguments = make(case)
    packed = reference.pack(parameters)
    gradient = reference.pack(
        reference.sparse_autoencoder_gradient(parameters, x, y=y, **arguments)
    )
    step = reference.cost_and_gradient_with_bounds(
        parameters, x, y=y, precision="float64", **arguments
    )
    bounds = np.concatenate(
        [b.bound.ravel() for b in (*step.gradient.kernels, *step.gradient.biases)]
    )
    for i in range(len(packed)):
        theta = [complex(v) for v in packed]
        theta[i] += 1e-150j
        expected = sum(cost_elementwise(theta, parameters, x, y, arguments, cmath)).imag / 1e-150
        assert abs(gradient[i] - expected) <= bounds[i], (i, gradient[i], expected, bounds[i])


@pytest.mark.equation("EQ-NUMERICAL-GRADIENT", "EQ-GRADIENT", "EQ-PACK", "EQ-UNPACK")
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize(
    ("sizes", "tied"),
    [((4, 3, 4), False), ((4, 3, 4), True), ((4, 3, 2, 3, 4), True), ((4, 3, 2), False)],
)
def test_gradient_by_central_differences(
    activation: str, sizes: tuple[int, ...], tied: bool
) -> None:
    """The check of the notes, §2.3: agreement to at least 4 significant digits, here to 6.

    Two steps, ε and ε/2, give the error of the method by itself: the truncation error is that of
    the third derivative, ε²J‴/6, so the two differ by ¾ of the coarser one's. ReLU has kinks; the
    inputs are such that none lies within ε.
    """
    generator = np.random.default_rng(5)
    start = reference.initialise(sizes, seed=5, tied=tied)
    x = generator.uniform(0.1, 0.9, size=(10, sizes[0]))
    y = x if sizes[0] == sizes[-1] else generator.uniform(size=(10, sizes[-1]))
    arguments: dict[str, Any] = {
        "rho": 0.2,
        "beta": 3.0,
        "weight_decay": 0.01,
        "activation": activation,
        "epsilon": 0.05,
        "y": y,
    }

    def cost(theta: np.ndarray) -> float:
        return reference.sparse_autoencoder_cost(
            reference.unpack(theta, start), x, **arguments
        ).total

    theta = reference.pack(start) + 0.05
    coarse = reference.numerical_gradient(cost, theta, 1e-4)
    fine = reference.numerical_gradient(cost, theta, 5e-5)
    rounding = 2.0**-53 * 200 * cost(theta) / 5e-5
    expected = reference.pack(
        reference.sparse_autoencoder_gradient(reference.unpack(theta, start), x, **arguments)
    )
    error = np.abs(fine - expected)
    assert np.all(error <= np.abs(coarse - fine) + rounding), np.max(error)
    assert np.max(error) <= 1e-6 * np.max(np.abs(expected))


@pytest.mark.equation("EQ-NUMERICAL-GRADIENT")
def test_the_assignments_own_check() -> None:
    """The warm-up of the assignment: h(x) = x₁² + 3x₁x₂ at (4, 10) has gradient (38, 12)."""
    gradient = reference.numerical_gradient(lambda x: float(x[0] ** 2 + 3 * x[0] * x[1]), [4, 10])
    # A quadratic has no truncation error: 2⁻⁵³·|h|/ε is all.
    assert np.all(np.abs(gradient - [38.0, 12.0]) <= 4 * 2.0**-53 * 136.0 / 1e-4)


@pytest.mark.equation("EQ-FORWARD")
def test_forward_pass_is_sklearns() -> None:
    """sklearn's MLPRegressor with the same weights: logistic hidden units, linear output."""
    from sklearn.neural_network import MLPRegressor

    parameters = reference.initialise((5, 3, 5), seed=1)
    x = np.random.default_rng(1).uniform(size=(7, 5))
    network = MLPRegressor(
        hidden_layer_sizes=(3,), activation="logistic", max_iter=1, random_state=0
    )
    with pytest.warns(match="Maximum iterations"):
        network.fit(x, x)
    network.coefs_ = list(parameters.kernels)
    network.intercepts_ = list(parameters.biases)
    actual = reference.forward(parameters, x, output_activation="linear").output
    # Two products of at most 5 terms in float64 and a sigmoid: 5 + 16 + 3 roundoffs of values < 3.
    assert np.all(np.abs(actual - network.predict(x)) <= 24 * 2.0**-53 * 3)
