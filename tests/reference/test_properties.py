"""The algebra of the paper, as properties of the oracle.

"Equal" is exact where the arithmetic is the same, else within the two bounds of the two results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from reference.activations import activation_named
from reference.rounding import Arithmetic, exact

FLOAT64 = Arithmetic("float64")
targets = st.floats(1e-6, 1 - 1e-6)
means = st.floats(1e-9, 1 - 1e-9)
ARGUMENTS: dict[str, Any] = {"rho": 0.1, "beta": 3.0, "weight_decay": 0.01}


def kl_bound(rho: float, rho_hat: Any) -> Any:
    return FLOAT64.kl_divergence(rho, exact(rho_hat), 0.0).bound


def activations(units: int | None = None) -> st.SearchStrategy[np.ndarray]:
    width = st.integers(1, 5) if units is None else st.just(units)
    return st.tuples(st.integers(1, 6), width).flatmap(
        lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(0.001, 0.999))
    )


@pytest.mark.equation("EQ-KL")
@given(targets, means)
def test_divergence_is_not_negative_and_zero_only_at_the_target(rho: float, rho_hat: float) -> None:
    value = float(reference.kl_divergence(rho, rho_hat))
    assert value >= -kl_bound(rho, rho_hat)
    assert reference.kl_divergence(rho, rho) == 0.0
    # Pinsker: KL ≥ 2(ρ − ρ̂)². So it is positive beyond its rounding away from the target.
    assert value >= 2.0 * (rho - rho_hat) ** 2 - kl_bound(rho, rho_hat)


@pytest.mark.equation("EQ-KL")
@given(st.integers(1, 2**20 - 1), st.integers(1, 2**20 - 1))
def test_divergence_of_the_complements_is_the_same(i: int, j: int) -> None:
    rho, rho_hat = i / 2**20, j / 2**20  # 1 − ρ is exact
    difference = reference.kl_divergence(rho, rho_hat) - reference.kl_divergence(
        1 - rho, 1 - rho_hat
    )
    assert abs(difference) <= kl_bound(rho, rho_hat) + kl_bound(1 - rho, 1 - rho_hat)


@pytest.mark.equation("EQ-KL", "EQ-KL-EXTENSION")
@given(targets, st.floats(-2.0, 3.0), st.floats(-2.0, 3.0), st.floats(0.0, 1.0))
def test_extension_is_convex(rho: float, p: float, q: float, t: float) -> None:
    epsilon = min(0.01, rho, 1 - rho)
    middle = t * p + (1 - t) * q

    def kl(rho_hat: float) -> float:
        return float(reference.extended_kl_divergence(rho, rho_hat, epsilon))

    def bound(rho_hat: float) -> float:
        # The middle point is itself rounded: 4 roundoffs of its largest part.
        from reference.rounding import Bounded

        moved = Bounded(np.array(rho_hat), np.array(4 * 2.0**-53 * (abs(p) + abs(q))))
        return float(FLOAT64.kl_divergence(rho, moved, epsilon).bound)

    slack = bound(p) + bound(q) + bound(middle)
    assert kl(middle) <= t * kl(p) + (1 - t) * kl(q) + slack


@pytest.mark.equation("EQ-KL-EXTENSION", "EQ-KL-EXTENSION-DERIVATIVE")
@given(targets, st.floats(1e-6, 0.3))
def test_extension_is_continuously_differentiable_at_its_edges(rho: float, epsilon: float) -> None:
    epsilon = min(epsilon, rho, 1 - rho)
    for edge, outwards in ((epsilon, -1.0), (1.0 - epsilon, 1.0)):
        at_edge = reference.extended_kl_divergence(rho, edge, epsilon)
        assert at_edge == reference.kl_divergence(rho, edge)
        slope = reference.kl_divergence_derivative(rho, edge)
        assert reference.extended_kl_divergence_derivative(rho, edge, epsilon) == slope
        beyond = edge + outwards * 0.5
        assert reference.extended_kl_divergence_derivative(rho, beyond, epsilon) == slope
        # Pushed back: towards the target the divergence falls.
        assert outwards * slope >= 0.0
        expected = at_edge + slope * (beyond - edge)
        assert reference.extended_kl_divergence(rho, beyond, epsilon) == expected


@pytest.mark.equation("EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE")
@given(targets, hnp.arrays(np.float64, (5, 3), elements=st.floats(-20.0, 20.0)))
def test_logit_form_is_the_plain_form(rho: float, logits: np.ndarray) -> None:
    a = FLOAT64.activation("sigmoid", exact(logits))[0]
    rho_hat = FLOAT64.mean_over_samples(a)
    plain = FLOAT64.kl_divergence(rho, rho_hat, 0.0)
    value, gradient = FLOAT64.kl_divergence_from_logits(rho, exact(logits))
    assert np.all(np.abs(value.value - plain.value) <= value.bound + plain.bound)
    slope = FLOAT64.kl_derivative(rho, rho_hat, 0.0)
    by_logit = FLOAT64.multiply(
        FLOAT64.divide_by_count(slope, 5), FLOAT64.activation("sigmoid", exact(logits))[1]
    )
    assert np.all(np.abs(gradient.value - by_logit.value) <= gradient.bound + by_logit.bound)


@pytest.mark.equation("EQ-SPARSITY")
@given(activations(), st.floats(0.01, 0.99))
def test_sparsity_adds_over_units_and_is_linear_in_beta(a: np.ndarray, rho: float) -> None:
    cost = reference.sparsity_cost(a, rho, 3.0)
    each = [reference.sparsity_cost(a[:, [j]], rho, 3.0) for j in range(a.shape[1])]
    bound = float(reference.kl_sparsity_with_bounds(a, rho, 3.0, precision="float64")[0].bound)
    assert abs(cost - sum(each)) <= 2 * bound
    assert abs(reference.sparsity_cost(a, rho, 6.0) - 2.0 * cost) <= 4 * bound
    assert reference.sparsity_cost(a, rho, 0.0) == 0.0


@pytest.mark.equation("EQ-COST", "EQ-RHO-HAT", "EQ-DECAY")
@given(st.integers(0, 1000), st.booleans())
def test_cost_is_invariant(seed: int, tied: bool) -> None:
    """Permuted samples, permuted hidden units with their weights, a data set given twice."""
    generator = np.random.default_rng(seed)
    parameters = reference.initialise((4, 3, 4), seed=seed, tied=tied)
    x = generator.uniform(0.1, 0.9, size=(5, 4))
    bounded = reference.cost_and_gradient_with_bounds(
        parameters, x, precision="float64", **ARGUMENTS
    ).cost
    units = generator.permutation(3)
    first = parameters.kernels[0][:, units]
    kernels = [first] if tied else [first, parameters.kernels[1][units]]
    permuted = reference.Parameters(
        kernels, [parameters.biases[0][units], parameters.biases[1]], tied=tied
    )
    for other_parameters, other_x in (
        (parameters, x[generator.permutation(5)]),
        (permuted, x),
        (parameters, np.concatenate([x, x])),
    ):
        other = reference.sparse_autoencoder_cost(other_parameters, other_x, **ARGUMENTS)
        for name in ("reconstruction", "weight_decay", "sparsity"):
            term = getattr(bounded, name)
            # Twice the samples are twice the terms of a sum: the other bound is at most double.
            assert abs(getattr(other, name) - term.value) <= 3 * term.bound, name


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT")
def test_zero_weights_switch_their_terms_off() -> None:
    parameters = reference.initialise((4, 3, 4), seed=0)
    x = np.random.default_rng(0).uniform(size=(5, 4))
    cost = reference.sparse_autoencoder_cost(parameters, x, rho=0.1, beta=0.0, weight_decay=0.0)
    assert (cost.weight_decay, cost.sparsity) == (0.0, 0.0)
    assert cost.total == cost.reconstruction > 0.0
    # β = 0 where the divergence is infinite: still 0, and a finite gradient.
    dead = reference.Parameters(parameters.kernels, [np.full(3, -1e4), np.zeros(4)])
    arguments: dict[str, Any] = {"rho": 0.1, "beta": 0.0, "weight_decay": 0.0}
    assert reference.sparse_autoencoder_cost(dead, x, **arguments).sparsity == 0.0
    gradient = reference.sparse_autoencoder_gradient(dead, x, **arguments)
    assert np.all(np.isfinite(reference.pack(gradient)))


@pytest.mark.equation("EQ-DECAY")
@given(st.one_of(st.just(0.0), st.floats(1e-9, 10.0)))
def test_decay_is_linear_leaves_biases_alone_and_counts_a_tied_kernel(weight_decay: float) -> None:
    tied = reference.initialise((4, 3, 4), seed=0, tied=True)
    once = reference.weight_decay_cost(tied, weight_decay)
    assert reference.weight_decay_cost(tied, weight_decay, tied_decay=2) == 2.0 * once
    assert reference.weight_decay_cost(tied, 2.0 * weight_decay) == 2.0 * once
    shifted = reference.Parameters(tied.kernels, [b + 7.0 for b in tied.biases], tied=True)
    assert reference.weight_decay_cost(shifted, weight_decay) == once
    untied = reference.Parameters(tied.layer_kernels, tied.biases)
    written_out = reference.weight_decay_cost(untied, weight_decay)
    assert abs(written_out - 2.0 * once) <= 4 * 12 * 2.0**-53 * written_out


@pytest.mark.equation("EQ-RHO-HAT", "EQ-RHO-HAT-CHUNKS")
@given(st.lists(activations(units=3), min_size=1, max_size=5))
def test_chunked_mean_is_the_whole_mean(chunks: list[np.ndarray]) -> None:
    samples = np.concatenate(chunks)
    bound = 2 * FLOAT64.mean_over_samples(exact(samples)).bound
    difference = reference.mean_activation_of_chunks(chunks) - reference.mean_activation(samples)
    assert np.all(np.abs(difference) <= bound)


@pytest.mark.equation("EQ-RHO-HAT-CHUNKS")
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_chunks_of_images_and_sequences(rank: int) -> None:
    """Every axis but the last counts samples, in the sum and in the count."""
    shape = (2, 3, 4, 5)[: rank - 1]
    chunks = [np.random.default_rng(size).uniform(size=(size, *shape[1:], 3)) for size in (2, 1, 4)]
    flat = np.concatenate([chunk.reshape(-1, 3) for chunk in chunks])
    difference = reference.mean_activation_of_chunks(chunks) - reference.mean_activation(flat)
    assert np.all(np.abs(difference) <= 2.0 * FLOAT64.mean_over_samples(exact(flat)).bound)
    # Of any rank beside each other, and from an iterator.
    mixed = reference.mean_activation_of_chunks(iter([chunks[0], flat[len(flat) // 2 :]]))
    both = np.concatenate([chunks[0].reshape(-1, 3), flat[len(flat) // 2 :]])
    assert np.allclose(mixed, reference.mean_activation(both), rtol=1e-14, atol=0.0)


@pytest.mark.equation("EQ-RHO-HAT")
def test_mean_activation_of_images_sequences_and_masks() -> None:
    a = np.random.default_rng(0).uniform(size=(2, 3, 4, 5))
    flat = a.reshape(-1, 5)
    assert reference.mean_activation(a).tolist() == reference.mean_activation(flat).tolist()
    mask = np.array([[True, True, False], [True, False, False]])
    sequence = a[:, :, 0]
    valid = sequence[mask]
    expected = reference.mean_activation(valid).tolist()
    assert reference.mean_activation(sequence, mask).tolist() == expected
    symmetric = reference.mean_activation(2 * flat - 1, symmetric=True)
    assert np.all(np.abs(symmetric - reference.mean_activation(flat)) <= 64 * 2.0**-53)


@pytest.mark.equation("EQ-RECONSTRUCTION", "EQ-BOUND-RECONSTRUCTION")
@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 2, 2, 4)])
def test_an_image_or_a_sequence_is_one_sample(shape: tuple[int, ...]) -> None:
    h, y = np.random.default_rng(0).uniform(size=(2, *shape))
    flat = reference.reconstruction_cost(h.reshape(3, -1), y.reshape(3, -1))
    bounded = reference.reconstruction_with_bounds(h, y, precision="float64")
    for value in (reference.reconstruction_cost(h, y), bounded.value):
        assert abs(value - flat) <= bounded.bound < 1e-12


@pytest.mark.equation("EQ-RHO-HAT-RUNNING")
@given(st.floats(0.0, 0.99), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_running_average_unrolled(momentum: float, batches: list[float]) -> None:
    """ρ̂ₜ = μᵗ⁻¹b₁ + (1 − μ) Σ μᵗ⁻ᵏ bₖ: the recurrence written out."""
    average = None
    for batch in batches:
        average = reference.running_average(average, [batch], momentum)
    t = len(batches)
    expected = momentum ** (t - 1) * batches[0] + (1 - momentum) * sum(
        momentum ** (t - k) * batches[k - 1] for k in range(2, t + 1)
    )
    assert average is not None
    # At most 5 roundings a step of numbers up to 1, on both sides.
    assert abs(average[0] - expected) <= 10 * t * 2.0**-53
    if momentum == 0.0:
        assert average[0] == batches[-1]


@pytest.mark.equation("EQ-INIT", "EQ-PACK", "EQ-UNPACK")
@given(st.integers(0, 2**31), st.booleans())
def test_initialisation_and_packing(seed: int, tied: bool) -> None:
    sizes = (7, 5, 3, 5, 7)
    parameters = reference.initialise(sizes, seed, tied=tied)
    assert parameters.sizes == sizes
    for kernel in parameters.kernels:
        limit = np.sqrt(6.0) / np.sqrt(sum(kernel.shape) + 1)
        assert np.all(np.abs(kernel) <= limit)
        # 15 or more uniform numbers all below half the limit: less than one seed in 30,000.
        assert np.max(np.abs(kernel)) > 0.2 * limit
    assert all(np.all(bias == 0.0) for bias in parameters.biases)
    theta = reference.pack(parameters)
    assert len(theta) == sum(a.size for a in (*parameters.kernels, *parameters.biases))
    again = reference.unpack(theta, parameters)
    assert all(np.array_equal(a, b) for a, b in zip(again.kernels, parameters.kernels, strict=True))
    # The notes' order: W(:) of W = kernelᵀ, column by column.
    notes = parameters.kernels[0].T.ravel(order="F")
    assert np.array_equal(theta[: len(notes)], notes)


@pytest.mark.equation("EQ-FEATURE")
@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-2, 2).filter(lambda v: abs(v) > 0.01)))
def test_no_input_of_norm_one_excites_a_unit_more(kernel: np.ndarray) -> None:
    features = reference.maximally_exciting_inputs(kernel)
    norms = np.sum(features**2, axis=1)
    assert np.all(np.abs(norms - 1.0) <= 16 * 2.0**-53)
    best = np.sum(features * kernel.T, axis=1)
    others = np.random.default_rng(0).normal(size=(200, 4))
    others /= np.sqrt(np.sum(others**2, axis=1, keepdims=True))
    assert np.all(others @ kernel <= best * (1 + 16 * 2.0**-53))


@pytest.mark.equation("EQ-FEATURE", "EQ-ORTHOGONAL")
@pytest.mark.parametrize("scale", [2.0**-600, 2.0**600, 2.0**1000])
def test_lengths_neither_overflow_nor_vanish(scale: float) -> None:
    kernel = np.array([[3.0, 1.0], [4.0, -2.0]])
    features = reference.maximally_exciting_inputs(kernel)
    assert np.array_equal(reference.maximally_exciting_inputs(kernel * scale), features)
    if scale > 1.0:
        assert reference.orthogonal(kernel * scale) == reference.orthogonal(kernel)


@pytest.mark.equation("EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE")
def test_units_do_not_touch_each_other_in_the_logit_form() -> None:
    """Each unit alone gives the same numbers as beside one that is saturated."""
    z = np.array([[[-900.0, 0.5], [-901.0, 0.25]], [[-899.0, -0.5], [-950.0, 2.0]]])
    together = reference.kl_divergence_from_logits_derivative(0.1, z)
    assert together.shape == z.shape
    for unit in range(2):
        alone = z[..., unit : unit + 1]
        value = reference.kl_divergence_from_logits(0.1, alone)
        assert reference.kl_divergence_from_logits(0.1, z)[unit] == value[0]
        derivative = reference.kl_divergence_from_logits_derivative(0.1, alone)
        assert np.array_equal(together[..., unit : unit + 1], derivative)


@pytest.mark.equation("EQ-KL", "EQ-KL-DERIVATIVE")
def test_infinities_are_quiet_and_the_ends_agree() -> None:
    with np.errstate(all="raise"):
        assert reference.kl_divergence(0.5, [0.0, 1.0]).tolist() == [np.inf, np.inf]
        slopes = reference.kl_divergence_derivative(0.5, [0.0, 1e-310, 1.0])
        assert slopes.tolist() == [-np.inf, -np.inf, np.inf]
    # With the target at an end only one half is there: −ρ/ρ̂ or (1 − ρ)/(1 − ρ̂).
    assert reference.kl_divergence_derivative(0.0, [0.0, 0.5]).tolist() == [1.0, 2.0]
    assert reference.kl_divergence_derivative(1.0, [1.0, 0.5]).tolist() == [-1.0, -2.0]


@pytest.mark.equation("EQ-INIT")
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2), (2, 5, 2)])
def test_initial_weights_are_the_generators_within_the_limit(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(7)
    for kernel in reference.initialise(sizes, seed=7).kernels:
        limit = np.sqrt(6.0 / (sum(kernel.shape) + 1.0))
        expected = (2.0 * generator.uniform(size=kernel.shape) - 1.0) * limit
        # The limit, its product and the shift: a few roundings of numbers up to the limit.
        assert np.max(np.abs(kernel - expected)) <= 8.0 * 2.0**-53 * limit


@pytest.mark.equation("EQ-PACK")
def test_parameters_hold_their_own_tuples_of_float64() -> None:
    kernels, biases = [[[1, 2]]], [[3, 4]]
    parameters = reference.Parameters(kernels, biases)
    for held in (parameters.kernels, parameters.biases):
        assert isinstance(held, tuple)
        assert all(array.dtype == np.float64 for array in held)
    kernels.append([[5]])
    assert len(parameters.kernels) == 1


@pytest.mark.equation("EQ-RHO-HAT", "EQ-SPARSITY-SLOPE")
@pytest.mark.parametrize("mask", [[1, 0, 1], [2.0, 0.0, 0.5], [True, False, True]])
def test_any_mask_that_is_not_zero_is_valid(mask: list[float]) -> None:
    a = np.array([[0.25], [0.9], [0.5]])
    assert reference.mean_activation(a, mask).tolist() == [0.375]
    gradient = reference.kl_sparsity_gradient(a, 0.125, 1.0, mask=mask)
    assert gradient[1] == 0.0
    assert gradient[0] == gradient[2] != 0.0


@pytest.mark.equation("EQ-SIGMOID", "EQ-SIGMOID-DERIVATIVE", "EQ-LOG-SIGMOID", "EQ-TANH-DERIVATIVE")
@pytest.mark.parametrize("z", [-1e4, -800.0, 800.0, 1e4])
def test_nothing_overflows_on_the_way(z: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert reference.sigmoid(z) == float(z > 0.0)
        assert reference.log_sigmoid(z) == min(z, 0.0)
        for name in ("sigmoid", "tanh"):
            assert activation_named(name).derivative(z) == 0.0


@pytest.mark.equation("EQ-FORWARD")
def test_a_network_of_one_layer_has_the_activation_of_the_output() -> None:
    layer = reference.Parameters([[[2.0]]], [[1.0]])
    for name, h in (("linear", -3.0), ("relu", 0.0), (None, float(reference.sigmoid(-3.0)))):
        assert reference.forward(layer, [[-2.0]], output_activation=name).output.tolist() == [[h]]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
def test_numbers_of_any_kind_are_taken_exactly(dtype: str) -> None:
    """Of the signs, too: an unsigned difference would wrap around."""
    y, h = np.array([[200, 3]], dtype), np.array([[100, 5]], dtype)
    assert reference.reconstruction_cost(h, y) == (100.0**2 + 2.0**2) / 2.0
    assert reference.mean_activation(y).tolist() == [200.0, 3.0]
