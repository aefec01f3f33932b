"""`reference` and the Keras objects against 60 digits: the notes' formulas, written once more.

What `reference` and `keras_impl` have in common (a float64, a formula for the edge) cannot hide
here: nothing but mpmath is used, element by element, from the lecture notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from keras import ops

import reference
from benchmarks import exhaustive
from keras_impl import SparseAutoencoder
from keras_impl.backends.autodiff import value_and_gradients
from sae_oracle.workers.oracle_bridge import oracle_arguments, to_parameters
from tests.keras_impl.precision import as_numpy, computing_in, mostly_compiled, rounded

DIGITS = 60
Matrix = list[list[Any]]


@dataclass(frozen=True)
class Digits:
    """The terms of the cost and the gradient by kernels and biases, at 60 digits."""

    reconstruction: Any
    weight_decay: Any
    sparsity: Any
    kernels: tuple[Matrix, Matrix]
    biases: tuple[Matrix, Matrix]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z))


def digits_of(
    parameters: reference.Parameters,
    x: np.ndarray,
    rho: float,
    beta: float,
    weight_decay: float,
    epsilon: float,
) -> Digits:
    """CS294A, §2 eqs (6)–(8), §2.2 and §3, with the tangent beyond [ε, 1 − ε]."""
    w1, w2 = (k.tolist() for k in parameters.layer_kernels)
    b1, b2 = (b.tolist() for b in parameters.biases)
    m, n, s = len(x), len(b2), len(b1)
    rho, beta, weight_decay = (mpmath.mpf(value) for value in (rho, beta, weight_decay))

    def affine(a: Any, w: Any, b: Any) -> Matrix:
        return [
            [mpmath.fdot(row, [line[j] for line in w]) + b[j] for j in range(len(b))] for row in a
        ]

    a1 = [[mpmath.mpf(v) for v in row] for row in x.tolist()]
    a2 = [[sigmoid(z) for z in row] for row in affine(a1, w1, b1)]
    a3 = [[sigmoid(z) for z in row] for row in affine(a2, w2, b2)]
    reconstruction = sum((a3[i][k] - a1[i][k]) ** 2 for i in range(m) for k in range(n)) / (2 * m)
    counted = [w1] if parameters.tied else [w1, w2]
    decay = weight_decay / 2 * sum(mpmath.mpf(v) ** 2 for w in counted for row in w for v in row)

    sparsity, slopes = mpmath.mpf(0), []
    # EQ-KL-EXTENSION has a float64 number for its upper edge; without it there is no edge.
    low = mpmath.mpf(epsilon)
    high = mpmath.mpf(min(1.0 - epsilon, 1.0 - 2.0**-53)) if epsilon else mpmath.mpf(1)
    for j in range(s):
        rho_hat = sum(a2[i][j] for i in range(m)) / m
        r = min(max(rho_hat, low), high)
        slope = -rho / r + (1 - rho) / (1 - r)
        divergence = rho * mpmath.log(rho / r) + (1 - rho) * mpmath.log((1 - rho) / (1 - r))
        sparsity += beta * (divergence + slope * (rho_hat - r))
        slopes.append(beta / m * slope)

    delta3 = [
        [(a3[i][k] - a1[i][k]) / m * a3[i][k] * (1 - a3[i][k]) for k in range(n)] for i in range(m)
    ]
    delta2 = [
        [(mpmath.fdot(delta3[i], w2[j]) + slopes[j]) * a2[i][j] * (1 - a2[i][j]) for j in range(s)]
        for i in range(m)
    ]

    def outer(a: Matrix, delta: Matrix) -> Matrix:
        return [
            [sum(a[i][p] * delta[i][q] for i in range(m)) for q in range(len(delta[0]))]
            for p in range(len(a[0]))
        ]

    g1, g2 = outer(a1, delta2), outer(a2, delta3)
    if parameters.tied:
        g1 = [[g1[k][j] + g2[j][k] for j in range(s)] for k in range(n)]
    for g, w in ((g1, w1), (g2, w2)):
        for p, row in enumerate(w):
            for q, value in enumerate(row):
                g[p][q] += weight_decay * value
    return Digits(
        reconstruction,
        decay,
        sparsity,
        (g1, g2),
        (
            [sum(column) for column in zip(*delta2, strict=True)],
            [sum(c) for c in zip(*delta3, strict=True)],
        ),
    )


def hold(name: str, actual: Any, expected: Any, bounded: reference.Bounded) -> int:
    """Hold numbers to their 60 digits; how many could be decided."""
    held = 0
    flat = np.asarray(expected, dtype=object).ravel()
    numbers = np.asarray(actual, dtype=np.float64).ravel()
    for number, right, bound in zip(numbers, flat, bounded.bound.ravel(), strict=True):
        if np.isfinite(bound):
            held += 1
            error = abs(mpmath.mpf(float(number)) - right)
            assert error <= mpmath.mpf(float(bound)), (
                f"{name}: {number!r} is {mpmath.nstr(error, 3)} from {mpmath.nstr(right, 20)}, "
                f"bound {bound:.3g}"
            )
    return held


cases = {
    "seed": st.integers(0, 2**16),
    "m": st.just(4),
    "rho": st.sampled_from([1e-6, 1e-3, 0.05, 0.5, 0.99, 1 - 1e-6]),
    "beta": st.sampled_from([1e-3, 3.0, 1e4]),
    # Logits up to some 50: units that are 0 or 1 to 1e-22.
    "scale": st.sampled_from([0.1, 1.0, 12.0]),
    "tied": st.booleans(),
    "from_logits": st.booleans(),
    "precision": st.sampled_from(["float32", "float64"]),
}


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-SPARSITY-LOGITS", "EQ-BOUND-COST")
@given(**cases)
@example(
    seed=1, m=4, rho=0.05, beta=3.0, scale=12.0, tied=False, from_logits=True, precision="float32"
)
@example(  # all samples of a unit beyond z = 37: 1 − ρ̂ is less than the spacing below 1
    seed=2153, m=4, rho=1e-6, beta=1e-3, scale=12.0, tied=False, from_logits=True,
    precision="float32",
)  # fmt: skip
@example(
    seed=2, m=1, rho=1e-6, beta=1e4, scale=12.0, tied=True, from_logits=False, precision="float64"
)
def test_the_cost_and_its_gradient_have_their_digits(
    seed: int,
    m: int,
    rho: float,
    beta: float,
    scale: float,
    tied: bool,
    from_logits: bool,
    precision: str,
) -> None:
    generator = np.random.default_rng(seed)
    epsilon = min(1e-6, rho, 1.0 - rho)
    x = rounded(generator.uniform(size=(m, 3)), precision)
    with mpmath.workdps(DIGITS), computing_in(precision) as policy:
        model = SparseAutoencoder(
            2,
            rho=rho,
            beta=beta,
            weight_decay=0.01,
            tied=tied,
            from_logits=from_logits,
            epsilon=epsilon,
            dtype=policy,
        )
        model.build((None, 3))
        for variable in model.trainable_variables:
            values = rounded(generator.normal(size=tuple(variable.shape)) * scale, precision)
            variable.assign(values.astype(variable.dtype))
        parameters = to_parameters(model)
        # From logits there is no edge.
        digits = digits_of(parameters, x, rho, beta, 0.01, 0.0 if from_logits else epsilon)
        arguments = oracle_arguments(model)

        def bounds(precision: str) -> reference.BoundedStep:
            return reference.cost_and_gradient_with_bounds(
                parameters, x, precision=precision, from_logits=from_logits, **arguments
            )

        # The oracle.
        oracle = bounds("float64")
        for name in ("reconstruction", "weight_decay", "sparsity"):
            term = getattr(oracle.cost, name)
            hold(f"reference {name}", term.value, getattr(digits, name), term)
        for kind in ("kernels", "biases"):
            of_kind = getattr(oracle.gradient, kind)
            for i, slope in enumerate(of_kind):
                hold(f"reference {kind}[{i}]", slope.value, getattr(digits, kind)[i], slope)
        if not from_logits:
            plain = reference.sparse_autoencoder_cost(parameters, x, **arguments)
            hold("plain sparsity", plain.sparsity, digits.sparsity, oracle.cost.sparsity)

        # Keras.
        allowed = bounds(precision)
        inputs = ops.convert_to_tensor(x, dtype=model.compute_dtype)
        variables = model.trainable_variables

        def terms(*tensors: Any) -> Any:
            h, _, losses = model.stateless_call(tensors[:-1], [], tensors[-1], return_losses=True)
            parts = (
                model.reconstruction_loss(tensors[-1], h),
                sum(losses[: -len(model.kernels)]),
                sum(losses[-len(model.kernels) :]),
            )
            return sum(parts), parts

        def everything(*tensors: Any) -> Any:
            return value_and_gradients(terms, tensors, has_aux=True)

        tensors = [*[v.value for v in variables], inputs]
        (_, parts), slopes = mostly_compiled(seed | 1)(everything)(*tensors)
        for name, part in zip(("reconstruction", "sparsity", "weight_decay"), parts, strict=True):
            hold(name, as_numpy(part), getattr(digits, name), getattr(allowed.cost, name))
        by_variable = {id(v): slope for v, slope in zip(variables, slopes[:-1], strict=True)}
        for kind in ("kernels", "biases"):
            for i, variable in enumerate(getattr(model, kind)):
                slope = as_numpy(by_variable[id(variable)])
                right = getattr(digits, kind)[i]
                hold(f"{kind}[{i}]", slope, right, getattr(allowed.gradient, kind)[i])


def test_a_digit_that_is_wrong_is_seen() -> None:
    with mpmath.workdps(DIGITS):
        bounded = reference.Bounded(np.array(1.0), np.array(1e-15))
        assert hold("right", 1.0 + 2e-16, mpmath.mpf(1), bounded) == 1
        with pytest.raises(AssertionError, match=r"wrong: .* bound 1e-15"):
            hold("wrong", 1.0 + 2e-15, mpmath.mpf(1), bounded)


@pytest.mark.equation("EQ-BOUND-ACTIVATION")
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("function", exhaustive.FUNCTIONS, ids=lambda function: function.name)
def test_no_number_of_16_bits_is_further_off_than_the_bounds_count(
    function: exhaustive.Function, name: str
) -> None:
    numbers = exhaustive.numbers(name, *exhaustive.span(function, name))
    worst, at = exhaustive.furthest(function, name, numbers)
    assert 0.5 < worst <= function.allowed, at


@pytest.mark.parametrize("function", exhaustive.FUNCTIONS, ids=lambda function: function.name)
def test_the_truth_of_a_search_is_true(function: exhaustive.Function) -> None:
    generator = np.random.default_rng(0)
    x = 10.0 ** generator.uniform(-6.0, 1.5, size=100) * generator.choice([-1.0, 1.0], size=100)
    x = x[(x >= function.low) & (x <= function.high)].astype(np.float32).astype(np.float64)
    right: dict[str, Any] = {
        "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
        "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
        "log1p": lambda z: mpmath.log(1 + z),
    }
    with mpmath.workdps(DIGITS):
        for at, found in zip(x, function.true(x), strict=True):
            true = right.get(function.name, getattr(mpmath, function.name, None))(mpmath.mpf(at))
            assert abs(mpmath.mpf(found) / true - 1) < 1e-7 * 2.0**-24


@pytest.mark.equation("EQ-BOUND-KL", "EQ-BOUND-KL-DERIVATIVE")
@pytest.mark.parametrize("function", exhaustive.DIVERGENCES, ids=lambda function: function.name)
def test_a_divergence_is_as_far_off_as_the_bounds_count_and_its_truth_is_true(
    function: exhaustive.Divergence,
) -> None:
    """Near 0, near ρ, near 1 and on both sides of an edge."""
    ends = np.array([1e-37, 1e-6, function.rho, 1.0 - 2.0**-12], dtype=np.float32)
    near = np.concatenate(
        [exhaustive.numbers("float32", int(bits) - 2**9, 2**10) for bits in ends.view(np.uint32)]
    )
    worst, at = exhaustive.furthest(function, "float32", near)
    assert 0.5 < worst <= function.allowed, at
    found, sizes = function.true(near[::64].astype(np.float64))
    rho = mpmath.mpf(function.rho)
    with mpmath.workdps(DIGITS):
        for x, value, size in zip(near[::64], found, sizes, strict=True):
            x = mpmath.mpf(float(x))
            r = max(x, mpmath.mpf(function.epsilon))
            ones, zeros = rho / r, (1 - rho) / (1 - r)
            true, total = zeros - ones, zeros + ones
            if not function.slope:
                halves = rho * mpmath.log(rho / r), (1 - rho) * mpmath.log((1 - rho) / (1 - r))
                logs = mpmath.log(rho), mpmath.log(r), mpmath.log(1 - rho), mpmath.log(1 - r)
                beyond, slope = x - r, zeros - ones
                true = sum(halves) + slope * beyond
                total = -rho * (logs[0] + logs[1]) - (1 - rho) * (logs[2] + logs[3])
                total += (zeros + ones) * abs(beyond)
            assert abs(mpmath.mpf(value) - true) < 1e-7 * 2.0**-24 * total
            assert abs(mpmath.mpf(size) / total - 1) < 1e-7


@pytest.mark.parametrize("bits", [0x3F000000, 0x50000000, 0xC2D00000])
@pytest.mark.parametrize("wrong", [1.0 + 2.0**-19, 1e-30, np.nan, np.inf])
def test_a_wrong_number_among_many_is_found(
    bits: int, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sigmoid rises, where it is 1, and where it is below the smallest normal number."""
    x, right = exhaustive.numbers("float32", bits, 2**12), ops.sigmoid

    def almost_right(tensor: Any) -> Any:
        values = np.array(as_numpy(right(tensor)))
        values[1234] = wrong
        return ops.convert_to_tensor(values.astype(np.float32))

    function = exhaustive.FUNCTIONS[0]
    assert exhaustive.furthest(function, "float32", x, 10.0) < (10.0, np.inf)
    monkeypatch.setattr(ops, "sigmoid", almost_right)
    worst, at = exhaustive.furthest(function, "float32", x, 10.0)
    assert worst > 10.0
    assert at == x[1234]


def test_a_search_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhaustive, "CHUNK", 2**14)
    mine: dict[str, dict[str, Any]] = {}
    exhaustive.search(["float16"], ["log"], 0.0, mine)
    assert mine == {"log float16": {"done": 0, "worst": 0.0, "at": 0.0}}
    # From 2⁻⁷ on.
    mine["log float16"] = {"done": 2**13, "worst": 0.25, "at": 0.5}
    assert "0.25 at 0.5 (53%) |" in exhaustive.page({"torch": mine})
    exhaustive.search(["float16"], ["log"], 60.0, mine)
    assert mine["log float16"]["done"] == 0x3C01
    assert mine["log float16"]["at"] >= 2.0**-7
    assert "%" not in exhaustive.page({"torch": mine}).split("| log | float16")[1].split("\n")[0]
