"""The inputs of the conformance vectors: written down, or drawn by an arithmetic of their own.

No random generator of a library is asked, so that the inputs are the same for ever. Arrays hold
numbers of at most 8 significant bits where that is possible: every format has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reference import Parameters
from reference.validation import Array

Arguments = dict[str, Any]
Case = tuple[str, Arguments]
"""A label, and the arguments of the oracle's function by name."""

TARGETS = (13 / 256, 0.5, 51 / 256, 243 / 256, 2.0**-10)
"""ρ: near 0.05, in the middle, near 0.2, near 0.95, small."""

USUAL = ((0.05, 3.0), (0.05, 1.0), (0.1, 3.0), (0.1, 1.0), (0.01, 3.0), (0.2, 1.0))
"""ρ and β that programs have written into them; of ρ every format holds a neighbour alone."""

SUBNORMAL = 2.0**-130
"""A number that float32 holds as a subnormal number alone."""


def numbers(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
    """Return numbers between `low` and `high`, 127 of which are possible.

    Args:
        seed: Which numbers.
        *shape: Their shape.
        low: A bound that is not reached; `high` − `low` is a power of 2.
        high: The other.

    >>> numbers(1, 3).tolist()
    [0.8203125, 0.171875, 0.4765625]
    """
    state, found = seed * 2654435761 + 12345, []
    for _ in range(int(np.prod(shape))):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(low + (high - low) * ((state >> 33) % 127 + 1) / 128)
    return np.array(found, dtype=np.float64).reshape(shape)


def network(seed: int, *sizes: int, tied: bool = False, scale: float = 2.0) -> Parameters:
    """Return a network with weights in (−scale, scale), `scale` a power of 2."""
    pairs = list(itertools.pairwise(sizes))
    kernels = [
        numbers(seed + 17 * i, *pair, low=-scale, high=scale)
        for i, pair in enumerate(pairs[: len(pairs) // 2] if tied else pairs)
    ]
    biases = [numbers(seed + 17 * i + 7, n, low=-1.0, high=1.0) for i, n in enumerate(sizes[1:])]
    return Parameters(kernels, biases, tied=tied)


def cases() -> Iterator[Case]:
    """Yield every case. A new one may stand anywhere: its identifier is made of its inputs."""
    yield from _of_activations()
    yield from _of_divergences()
    yield from _of_logits()
    yield from _of_means()
    yield from _of_parameters()
    yield from _of_costs()
    yield from _of_networks()
    yield from _of_regularizers()


def _of_activations() -> Iterator[Case]:
    logits = (
        numbers(1, 6, low=-4.0, high=4.0),
        numbers(2, 2, 3, low=-16.0, high=16.0),
        np.array([0.0, 1.0, -1.0, 0.5, -0.5]),
        np.array([2.0**-10, -(2.0**-10), 2.0**-14, -(2.0**-14)]),
        np.array([17.5, 20.0, 40.0, 80.0, 104.0, 200.0]),
        np.array([-17.5, -20.0, -40.0, -80.0, -104.0, -200.0]),
        np.array([SUBNORMAL, -SUBNORMAL]),
        np.array(-0.25),
    )
    for name in ("SIGMOID", "TANH", "RELU", "LINEAR"):
        for z in logits:
            yield f"EQ-{name}", {"z": z}
        for z in (*logits[:3], *logits[4:6]):
            yield f"EQ-{name}-DERIVATIVE", {"z": z}
    for z in logits:
        yield "EQ-LOG-SIGMOID", {"z": z}
    # Where exp(|z|) is infinite in any format.
    for name in ("SIGMOID", "SIGMOID-DERIVATIVE", "LOG-SIGMOID", "TANH", "TANH-DERIVATIVE"):
        yield f"EQ-{name}", {"z": np.array([800.0, -800.0])}


def _of_divergences() -> Iterator[Case]:
    for i, rho in enumerate(TARGETS):
        means = [numbers(10 + i, 5), np.array([rho, min(rho * 1.0625, 255 / 256), rho * 0.9375])]
        if i < 2:
            means += [
                np.array([0.0, 0.5, 1.0]),
                np.array([2.0**-14, 2.0**-10, 255 / 256]),
                np.array([SUBNORMAL]),
                np.array(0.25),
            ]
        for rho_hat in means:
            yield "EQ-KL", {"rho": rho, "rho_hat": rho_hat}
            yield "EQ-KL-DERIVATIVE", {"rho": rho, "rho_hat": rho_hat}
    without_edge = {"rho": 0.5, "rho_hat": np.array([0.25, 0.0, 1.0]), "epsilon": 0.0}
    yield "EQ-KL-EXTENSION", without_edge
    yield "EQ-KL-EXTENSION-DERIVATIVE", without_edge
    for rho, epsilon in ((13 / 256, 2.0**-6), (0.5, 2.0**-6), (51 / 256, 2.0**-10), (0.5, 0.25)):
        top = 1.0 - epsilon
        for rho_hat in (
            np.array([0.0, epsilon / 2, epsilon, 2 * epsilon, 0.5, top, 1.0]),
            np.array([-0.5, -2.0, 1.5, 3.0]),
            np.array([1.0]),
        ):
            given = {"rho": rho, "rho_hat": rho_hat, "epsilon": epsilon}
            yield "EQ-KL-EXTENSION", given
            yield "EQ-KL-EXTENSION-DERIVATIVE", given


def _logits() -> Iterator[Array]:
    yield numbers(20, 4, 3, low=-4.0, high=4.0)
    yield numbers(21, 1, 3, low=-4.0, high=4.0)
    yield numbers(22, 5, 1, low=-8.0, high=8.0)
    yield numbers(23, 2, 2, 3, low=-2.0, high=2.0)
    yield np.array([[-30.0, 30.0, 1.0], [-40.0, 50.0, -1.0]])
    yield np.array([[-104.0, 88.0], [-100.0, 120.0]])
    yield np.array([[-200.0, 20.0], [3.0, -20.0], [0.0, 0.0]])
    yield np.array([[0.0, 0.0], [0.0, 0.0]])
    # float32 has no σ(z) of the one, and no σ(−z) of the other.
    yield np.array([[-120.0, 1.0], [-130.0, 0.5]])
    yield np.array([[120.0, 1.0], [140.0, 0.5]])


def _of_logits() -> Iterator[Case]:
    for i, z in enumerate(_logits()):
        for rho in (TARGETS[i % 2], TARGETS[2]):
            yield "EQ-KL-LOGITS", {"rho": rho, "logits": z}
            yield "EQ-KL-LOGITS-DERIVATIVE", {"rho": rho, "logits": z}
            for beta in (3.0, 0.0) if i == 0 else (3.0,):
                yield "EQ-SPARSITY-LOGITS", {"logits": z, "rho": rho, "beta": beta}
    for values in (
        numbers(30, 4, 2, low=-4.0, high=4.0),
        numbers(31, 1, 3),
        np.array([[200.0], [0.0]]),
        np.array([[-200.0, 1.0], [-201.0, 1.0], [-300.0, 1.0]]),
        np.zeros((3, 1)),
    ):
        yield "EQ-LOG-MEAN-EXP", {"values": values}


def _activations() -> Iterator[Array]:
    """Of usual units; of one sample and one unit; with dead, saturated and denormal units."""
    yield numbers(40, 4, 3)
    yield numbers(41, 1, 3)
    yield numbers(42, 7, 1)
    yield numbers(43, 2, 3, 2)
    yield np.array([[0.0, 0.5], [0.0, 0.25], [0.0, 0.75]])
    yield np.array([[1.0, 0.5], [1.0, 0.25]])
    yield np.array([[SUBNORMAL, 0.5], [SUBNORMAL, 0.25]])
    yield np.full((1, 1), 0.25)


def _of_means() -> Iterator[Case]:
    for a in _activations():
        yield "EQ-RHO-HAT", {"activations": a}
        yield "EQ-RHO-HAT", {"activations": 2.0 * a - 1.0, "symmetric": True}
    a = numbers(44, 5, 2)
    some = np.array([True, False, True, True, False])
    in_time = numbers(45, 2, 3, 2)
    steps = np.array([[True, True, False], [True, False, False]])
    for activations, mask in ((a, some), (in_time, steps), (a, np.arange(5) == 3)):
        yield "EQ-RHO-HAT", {"activations": activations, "mask": mask}
    for lengths in ((2, 3), (1, 1, 5), (4,), (1,)):
        chunks = [numbers(50 + i, n, 3) for i, n in enumerate(lengths)]
        yield "EQ-RHO-HAT-CHUNKS", {"chunks": chunks}
    yield "EQ-RHO-HAT-CHUNKS", {"chunks": [np.zeros((2, 1)), np.ones((1, 1))]}
    for momentum in (0.0, 0.5, 0.875, 255 / 256):
        given = {"previous": numbers(55, 3), "batch_mean": numbers(56, 3), "momentum": momentum}
        yield "EQ-RHO-HAT-RUNNING", given
    first = {"previous": None, "batch_mean": numbers(56, 3), "momentum": 0.875}
    yield "EQ-RHO-HAT-RUNNING", first

    for i, a in enumerate(_activations()):
        for rho in (TARGETS[0], TARGETS[1 + i % 4]):
            yield "EQ-SPARSITY", {"activations": a, "rho": rho, "beta": 3.0}
        for epsilon in (2.0**-6, 2.0**-10):
            given = {"activations": a, "rho": TARGETS[2], "beta": 0.5, "epsilon": epsilon}
            yield "EQ-SPARSITY", given
    a = numbers(46, 6, 4)
    for beta in (0.0, 1.0, 128.0):
        yield "EQ-SPARSITY", {"activations": a, "rho": TARGETS[0], "beta": beta}
        yield "EQ-SPARSITY", {"activations": a, "rho": TARGETS[3], "beta": beta, "epsilon": 2.0**-6}
    yield "EQ-SPARSITY", {"activations": numbers(47, 64, 5), "rho": TARGETS[0], "beta": 3.0}
    at_target = np.array([[TARGETS[0], 0.5], [TARGETS[0], 0.25]])
    yield "EQ-SPARSITY", {"activations": at_target, "rho": TARGETS[0], "beta": 3.0}
    for rho, beta in USUAL:
        yield "EQ-SPARSITY", {"activations": numbers(57, 5, 3), "rho": rho, "beta": beta}
    # Nearer to 0 than what is often clipped; bfloat16 and wider formats hold it.
    for a in (np.full((2, 1), 2.0**-26), np.array([[2.0**-30, 0.5], [2.0**-28, 0.25]])):
        yield "EQ-SPARSITY", {"activations": a, "rho": TARGETS[0], "beta": 3.0}
    # Near the ends, and inside of what any usual ε leaves as it is.
    for near in (np.array([[2.0**-8], [2.0**-9]]), np.array([[1.0 - 2.0**-8], [1.0 - 2.0**-7]])):
        yield "EQ-SPARSITY", {"activations": near, "rho": TARGETS[0], "beta": 3.0}
    beyond = np.array([[-0.5, 1.5, 2.0], [-0.25, 1.0, 3.0]])
    yield "EQ-SPARSITY", {"activations": beyond, "rho": 0.5, "beta": 3.0, "epsilon": 2.0**-6}
    for i, a in enumerate((numbers(48, 4, 3, low=-1.0), numbers(49, 1, 2, low=-1.0))):
        for epsilon in (0.0, 2.0**-6):
            given = {"activations": a, "rho": TARGETS[i], "beta": 3.0, "symmetric": True}
            yield "EQ-SPARSITY", given | ({"epsilon": epsilon} if epsilon else {})
    for activations, mask in ((numbers(44, 5, 2), some), (in_time, steps)):
        for rho in TARGETS[:2]:
            given = {"activations": activations, "rho": rho, "beta": 3.0, "mask": mask}
            yield "EQ-SPARSITY", given
            yield "EQ-SPARSITY", given | {"epsilon": 2.0**-6}
    for rho, beta, rho_hat, m, epsilon, symmetric in (
        (TARGETS[0], 3.0, numbers(60, 4), 4, 0.0, False),
        (TARGETS[1], 0.5, numbers(61, 3), 1, 0.0, True),
        (TARGETS[2], 3.0, np.array([0.0, 1.0, 0.5]), 8, 2.0**-6, False),
        (TARGETS[2], 3.0, np.array([0.0, 1.0, 0.5]), 3, 2.0**-6, True),
        (TARGETS[0], 0.0, numbers(62, 2), 2, 0.0, False),
        (TARGETS[0], 3.0, np.array([TARGETS[0]]), 2, 0.0, False),
        (TARGETS[0], 3.0, np.array([0.25]), 5, 0.0, False),
    ):
        yield (
            "EQ-SPARSITY-SLOPE",
            {"rho": rho, "beta": beta, "rho_hat": rho_hat, "m": m}
            | {"epsilon": epsilon, "symmetric": symmetric},
        )


def _networks() -> Iterator[Parameters]:
    yield network(70, 4, 2, 4)
    yield network(71, 3, 5, 3)
    yield network(72, 4, 2, 4, tied=True)
    yield network(73, 4, 3, 2, 3, 4)
    yield network(74, 4, 3, 2, 3, 4, tied=True)
    yield network(75, 1, 1, 1)


def _with_zeros(parameters: Parameters) -> Parameters:
    kernels = [np.where(np.abs(k) < 1.0, 0.0, k) for k in parameters.kernels]
    return Parameters(kernels, [np.zeros_like(b) for b in parameters.biases], tied=parameters.tied)


def _of_parameters() -> Iterator[Case]:
    for parameters in (*_networks(), _with_zeros(network(70, 4, 2, 4))):
        theta = np.concatenate([a.ravel() for a in (*parameters.kernels, *parameters.biases)])
        yield "EQ-PACK", {"parameters": parameters}
        yield "EQ-UNPACK", {"vector": theta[::-1].copy(), "like": parameters}
        for tied_decay in (1, 2) if parameters.tied else (1,):
            yield (
                "EQ-DECAY",
                {"parameters": parameters, "weight_decay": 2.0**-10, "tied_decay": tied_decay},
            )
    yield "EQ-DECAY", {"parameters": network(70, 4, 2, 4), "weight_decay": 0.0, "tied_decay": 1}
    for sizes, seed, tied in (
        ((4, 2, 4), 0, False),
        ((3, 5, 3), 7, False),
        ((4, 2, 4), 1, True),
        ((4, 3, 2, 3, 4), 2, False),
        ((1, 1, 1), 3, False),
    ):
        yield "EQ-INIT", {"sizes": list(sizes), "seed": seed, "tied": tied}
    for kernel in (
        numbers(80, 3, 4, low=-1.0),
        numbers(81, 5, 1, low=-1.0),
        numbers(82, 1, 3, low=-1.0),
        np.array([[1.0, 0.0], [0.0, -2.0], [0.0, 0.0]]),
        np.array([[3.0], [-4.0]]),
    ):
        yield "EQ-FEATURE", {"kernel": kernel}


def _of_costs() -> Iterator[Case]:
    for output, y in (
        (numbers(90, 4, 3), numbers(91, 4, 3)),
        (numbers(92, 1, 3), numbers(93, 1, 3)),
        (numbers(94, 5, 1), numbers(95, 5, 1)),
        (numbers(96, 2, 3, 2), numbers(97, 2, 3, 2)),
        (numbers(90, 4, 3), numbers(90, 4, 3)),
        (np.array([[8.0, -8.0], [0.5, 64.0]]), np.zeros((2, 2))),
    ):
        yield "EQ-RECONSTRUCTION", {"output": output, "y": y}
        if output.ndim == 2:
            derivative = numbers(98, *output.shape, high=0.25)
            yield "EQ-DELTA-OUTPUT", {"output": output, "y": y, "derivative": derivative}
    for i, (m, units, following) in enumerate(((4, 3, 2), (1, 2, 3), (2, 1, 4), (3, 4, 1))):
        for slope in (numbers(100 + i, units, low=-1.0), np.zeros(units)):
            yield (
                "EQ-DELTA",
                {
                    "next_delta": numbers(104 + i, m, following, low=-1.0),
                    "next_kernel": numbers(108 + i, units, following, low=-1.0),
                    "derivative": numbers(112 + i, m, units, high=0.25),
                    "sparsity_slope": slope,
                },
            )
    for i, shapes in enumerate((((3, 2), (2, 3)), ((1, 1), (1, 1)), ((4, 3), (3, 2)))):
        uses = [numbers(120 + 4 * i + j, *shape, low=-1.0) for j, shape in enumerate(shapes)]
        if i == 2:
            uses += [use.T.copy() + 0.5 for use in reversed(uses)]
        yield "EQ-GRADIENT-TIED", {"of_layers": uses}


def _costs() -> Iterator[Arguments]:
    """Networks, their samples, and how their cost is taken."""
    usual: Arguments = {"rho": TARGETS[0], "beta": 3.0, "weight_decay": 2.0**-10}

    def given(parameters: Parameters, m: int, seed: int, **more: Any) -> Arguments:
        x = numbers(seed, m, parameters.sizes[0])
        return {"parameters": parameters, "x": x} | usual | more

    # The notes' own signature: a hidden layer of sigmoid units, the output is the input.
    for i, parameters in enumerate(_networks()):
        for m in (1, 5):
            yield given(parameters, m, 130 + i)
    small = network(70, 4, 2, 4)
    for i, rho in enumerate(TARGETS[1:]):
        yield given(small, 3, 140 + i, rho=rho, beta=0.5, weight_decay=0.25)
    yield given(small, 4, 145, beta=0.0)
    yield given(small, 4, 145, weight_decay=0.0)
    yield given(small, 4, 145, beta=0.0, weight_decay=0.0)
    yield given(_with_zeros(small), 4, 146)
    yield given(network(76, 6, 1, 6), 4, 147)
    yield given(network(77, 8, 5, 8), 16, 148)
    yield given(network(78, 4, 3, 4, scale=0.25), 7, 149)
    yield given(network(79, 3, 2, 3, scale=32.0), 3, 150)
    dead = Parameters(small.kernels, [np.array([-40.0, 1.0]), small.biases[1]], tied=False)
    yield given(dead, 3, 151)
    yield given(dead, 3, 151, beta=0.0, activation="relu", output_activation="linear")
    saturated = Parameters(small.kernels, [np.array([14.0, 1.0]), small.biases[1]], tied=False)
    yield given(saturated, 3, 152)
    for edge in (2.0**-6, 2.0**-10):
        yield given(dead, 3, 151, epsilon=edge)
        yield given(saturated, 3, 152, epsilon=edge)
        yield given(small, 3, 153, epsilon=edge, rho=0.5)
    y = numbers(154, 3, 4)
    yield given(small, 3, 153, y=y)
    yield given(network(80, 4, 2, 3), 3, 153, y=numbers(155, 3, 3))
    for i, (hidden, last) in enumerate(
        (("sigmoid", "linear"), ("tanh", "linear"), ("relu", "linear"), ("linear", "sigmoid"))
    ):
        more = {"activation": hidden, "output_activation": last, "epsilon": 2.0**-6}
        yield given(small, 3, 156, **more)
        yield given(network(74, 4, 3, 2, 3, 4, tied=True), 3, 157 + i, **more)
    # A linear decoder; and the sizes of which the reviewer makes what has none of its own.
    of_a_review = network(83, 6, 5, 6), network(86, 6, 5, 6, tied=True)
    for i, parameters in enumerate((*_networks(), *of_a_review)):
        yield given(parameters, 4, 164 + i, output_activation="linear")
    for parameters in of_a_review:
        for last in ("sigmoid", "linear"):
            none = {"output_activation": last} if last == "linear" else {}
            yield given(parameters, 4, 174, weight_decay=0.0, **none)
        yield given(parameters, 3, 172)
        yield given(parameters, 5, 173, rho=TARGETS[2], beta=0.5, weight_decay=0.25)
    # Units of relu where all are active, so that their means lie inside (0, 1); no ε is needed.
    active = network(83, 6, 5, 6)
    active = Parameters(
        [np.abs(kernel) / 16.0 for kernel in active.kernels],
        [np.abs(bias) / 16.0 for bias in active.biases],
        tied=False,
    )
    for last in ("sigmoid", "linear", "relu"):
        yield given(active, 4, 177, activation="relu", output_activation=last)
        more = {"activation": "relu", "output_activation": last, "weight_decay": 0.0}
        yield given(active, 3, 178, rho=0.05, beta=1.0, **more)
    for rho, beta in USUAL:
        for last in ("sigmoid", "linear"):
            none = {"output_activation": last} if last == "linear" else {}
            yield given(of_a_review[0], 4, 174, rho=rho, beta=beta, weight_decay=0.0, **none)
    for edge in (0.0, 2.0**-6):
        more = {"activation": "tanh", "symmetric": True} | ({"epsilon": edge} if edge else {})
        yield given(small, 3, 162, **more)
    tied = network(72, 4, 2, 4, tied=True)
    yield given(tied, 3, 163, tied_decay=2)
    yield given(tied, 3, 163, y=y)


def _of_networks() -> Iterator[Case]:
    small = network(81, 2, 1, 2)
    for arguments in _costs():
        yield "EQ-COST", arguments
        yield "EQ-GRADIENT", arguments
    chosen = ("parameters", "x", "activation", "output_activation")
    for arguments in _forward_cases():
        yield "EQ-FORWARD", {name: arguments[name] for name in chosen if name in arguments}
    steps: Arguments = {
        "parameters": small,
        "x": numbers(170, 3, 2),
        "rho": TARGETS[2],
        "beta": 0.5,
        "weight_decay": 2.0**-6,
    }
    one_sample = steps | {"x": numbers(171, 1, 2)}
    tied = steps | {"parameters": network(82, 2, 1, 2, tied=True)}
    no_beta = steps | {"beta": 0.0}
    for given in (steps, one_sample, tied, no_beta):
        yield "EQ-NUMERICAL-GRADIENT", given | {"step": 2.0**-7}
        yield "EQ-BOUND-DESCENT", given | {"steps": 2, "learning_rate": 0.25}
    yield "EQ-BOUND-DESCENT", steps | {"steps": 0, "learning_rate": 0.25}


def _forward_cases() -> Iterator[Arguments]:
    chosen: Sequence[Arguments] = list(_costs())
    yield from chosen[:12:2]
    yield from chosen[22:25]
    usual = dict(USUAL)  # their networks and samples are those of others
    yield from (c for c in chosen if "output_activation" in c and c["rho"] not in usual)


def _of_regularizers() -> Iterator[Case]:
    weights = (
        numbers(180, 3, 4, low=-1.0),
        numbers(181, 5, low=-1.0),
        np.array([[0.0, 1.0], [-2.0, 0.0]]),
        np.array([2.0**-14, -(2.0**-10)]),
    )
    for w in weights:
        for factor in (2.0**-6, 0.5):
            for name in ("L1", "L2"):
                yield f"EQ-{name}", {"weights": w, "factor": factor}
                yield f"EQ-{name}-GRADIENT", {"weights": w, "factor": factor}
        for first, second in ((2.0**-6, 0.5), (0.5, 0.0), (0.0, 0.5)):
            given = {"weights": w, "l1_factor": first, "l2_factor": second}
            yield "EQ-L1L2", given
            yield "EQ-L1L2-GRADIENT", given
    matrices = (
        (numbers(190, 3, 4, low=-1.0), "rows"),
        (numbers(190, 3, 4, low=-1.0), "columns"),
        (numbers(191, 2, 5, low=-1.0), "rows"),
        (np.array([[1.0, 0.0], [3.0, 0.0]]), "rows"),
        (np.array([[3.0, 1.0], [4.0, 0.0], [0.0, 1.0]]), "columns"),
    )
    for w, mode in matrices:
        for name in ("EQ-ORTHOGONAL", "EQ-ORTHOGONAL-GRADIENT"):
            yield name, {"weights": w, "factor": 0.5, "mode": mode}
