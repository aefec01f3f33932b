"""How the vectors are made: digits that Arb has certified, and bounds by `reference.bounds`.

The digits are those of `reference.certified`, which shares no formula with the oracle. The bounds
are the rules of `reference.rounding`: they hold for every order of summation. They count the
roundoff of the oracle beside that of the format, here the reading of the digits into float64.
"""

from __future__ import annotations

import decimal
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reference import Parameters, certified, equations, forward, kl_sparsity_with_bounds, pack
from reference.bounds import (
    cost_and_gradient_with_bounds,
    gradient_descent_with_bounds,
    l1_l2_with_bounds,
    orthogonal_with_bounds,
    reconstruction_with_bounds,
)
from reference.divergence import log_mean_exp
from reference.network import layer_activations, maximally_exciting_inputs, unpack
from reference.rounding import (
    PRECISIONS,
    Arithmetic,
    Bounded,
    at_least_float32,
    exact,
    precision_named,
)
from reference.validation import Array
from sae_oracle.conformance.cases import Arguments, cases
from sae_oracle.conformance.vectors import (
    FLAGS,
    FOLDER,
    FORMATS,
    Output,
    Vector,
    as_text,
    encoded,
    identifier_of,
)
from sae_oracle.files import write_result

DIGITS = 30

ARITHMETIC = (
    "Activations, matrix products and deltas are stored in the format; sums, means, divergences, "
    "penalties, costs and parameters in it or in float32, whichever is more exact."
)

SUMMATION = "any order of n terms, with an error of n u Σ|terms|; 16-bit formats sum in float32"

Balls = Mapping[str, Any]
Bounds = Mapping[str, Bounded]


def all_vectors(labels: Iterable[str] | None = None) -> dict[str, list[Vector]]:
    """Compute the vectors of every label, or of some.

    Args:
        labels: Which; `None`: all.

    Raises:
        ImportError: If python-flint is not installed.
    """
    chosen = list(certified.CERTIFIED) if labels is None else list(labels)
    found: dict[str, list[Vector]] = {label: [] for label in chosen}
    for label, arguments in cases():
        if label in found:
            found[label].append(vector_of(label, arguments))
    return found


def vector_of(label: str, arguments: Arguments) -> Vector:
    """Compute one vector.

    Raises:
        ValueError: If a number has no 30 certain digits.
    """
    inputs = {name: encoded(value) for name, value in arguments.items()}
    formats = tuple(name for name in FORMATS if _holds(PRECISIONS[name], arguments))
    identifier = identifier_of(label, inputs)
    truth = _truth(label, arguments)
    with np.errstate(all="ignore"):
        bounds = {name: bounded(label, arguments, name) for name in formats}
    outputs = []
    for name, balls in truth.items():
        balls = np.asarray(balls, dtype=object)
        digits = tuple(certified.text(ball, DIGITS) for ball in balls.ravel())
        if any(text.startswith("[") or text == "nan" for text in digits):
            raise ValueError(f"{identifier}: {name} has no {DIGITS} certain digits")
        of_formats = {f: _written(b[name], balls.shape) for f, b in bounds.items()}
        outputs.append(Output(name, balls.shape, digits, of_formats))
    flags = _flags(label, arguments, [float(t) for o in outputs for t in o.digits])
    return Vector(identifier, label, flags, inputs, formats, tuple(outputs))


def write(folder: Path) -> list[Path]:
    """Write all vectors, their schema and their table into a folder; return the files.

    Raises:
        ImportError: If python-flint is not installed.
        OSError: If one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)  # before any work
    found = all_vectors()
    header = {"arithmetic": ARITHMETIC, "summation": SUMMATION}
    files = {
        f"{label}.json": as_text(label, header | {"function": _function(label)}, vectors)
        for label, vectors in found.items()
    }
    files["README.md"] = table(found)
    files["schema.json"] = (FOLDER / "schema.json").read_text(encoding="utf-8")
    for name, content in files.items():
        write_result(folder / name, content)
    return [folder / name for name in files]


def _function(label: str) -> str:
    return equations()[label].function


# --- the exact numbers -----------------------------------------------------------------------


def _truth(label: str, a: Arguments) -> Balls:
    """The balls of every output of a label."""
    given = dict(a)
    theta_of = given.pop("parameters", None)
    first = () if theta_of is None else (theta_of,)
    value = _certified(certified.CERTIFIED[label], *first, **given)
    if label in ("EQ-UNPACK", "EQ-INIT"):
        return _numbered(kernels=value.kernels, biases=value.biases)
    if label == "EQ-FORWARD":
        return _numbered(logits=value.logits, activations=value.activations[1:])
    if label == "EQ-COST":
        terms = value._asdict()
        gradients = _certified(certified.backpropagate, *first, **given)
        return {"value": terms.pop("total"), **terms, "gradient": _packed(gradients)}
    if label == "EQ-GRADIENT":
        return {"value": _packed(value), "x": value.x}
    if label == "EQ-BOUND-DESCENT":
        return {"value": _packed(value)}
    if label == "EQ-GRADIENT-TIED":
        return {f"value[{i}]": part for i, part in enumerate(value)}
    slope = _slope(label, theta_of, given)
    return {"value": value} if slope is None else {"value": value, "gradient": slope}


_DERIVATIVES: dict[str, Callable[..., Any]] = {
    "EQ-LOG-SIGMOID": lambda z: certified.sigmoid(-certified.linear(z)),
    "EQ-RECONSTRUCTION": lambda output, y: (
        (certified.linear(output) - certified.linear(y)) / len(output)
    ),
}


def _slope(label: str, parameters: Parameters | None, a: Arguments) -> Any:
    """The balls of the derivative by the array that the label is about; `None`: none is given."""
    if label == "EQ-DECAY":
        assert parameters is not None
        factor = a["weight_decay"] * (a["tied_decay"] if parameters.tied else 1)
        kernels = [factor * certified.linear(kernel) for kernel in parameters.kernels]
        return np.concatenate(
            [k.ravel() for k in kernels] + [0 * certified.linear(b) for b in parameters.biases]
        )
    if label == "EQ-SPARSITY":
        return _certified(_slope_of_every_element, **a)
    if label == "EQ-SPARSITY-LOGITS":
        by_logit = certified.kl_divergence_from_logits_derivative
        return _certified(lambda: a["beta"] * by_logit(a["rho"], a["logits"]))
    if label in _DERIVATIVES:
        return _certified(_DERIVATIVES[label], **a)
    for name in (f"{label}-DERIVATIVE", f"{label}-GRADIENT"):
        if name in certified.CERTIFIED:
            return _certified(certified.CERTIFIED[name], **a)
    return None


def _slope_of_every_element(
    activations: Any,
    rho: float,
    beta: float,
    *,
    epsilon: float = 0.0,
    symmetric: bool = False,
    mask: Any = None,
) -> Any:
    """EQ-SPARSITY-SLOPE for every activation, 0 where masked."""
    shape = activations.shape
    valid = np.ones(shape[:-1], dtype=bool) if mask is None else mask
    slope = certified.sparsity_slope(
        rho,
        beta,
        certified.mean_activation(activations, mask, symmetric=symmetric),
        int(valid.sum()),
        epsilon=epsilon,
        symmetric=symmetric,
    )
    return np.where(valid[..., None], np.broadcast_to(slope, shape), 0 * slope[:1])


def _certified(formula: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return certified.certify(formula, *arguments, digits=DIGITS + 10, **named)


def _packed(network: Any) -> Any:
    return np.concatenate([np.ravel(array) for array in (*network.kernels, *network.biases)])


def _numbered(**arrays: Any) -> dict[str, Any]:
    return {f"{name}[{i}]": a for name, many in arrays.items() for i, a in enumerate(many)}


# --- the bounds ------------------------------------------------------------------------------


def bounded(label: str, a: Arguments, precision: str) -> Bounds:
    """Return the bound of every output of a label, for a computation in a format.

    Args:
        label: The label.
        a: The arguments of the oracle's function.
        precision: The format.
    """
    compute = Arithmetic(precision)
    widest = at_least_float32(precision_named(precision)).name
    wide = Arithmetic(widest)
    if label.startswith("EQ-BOUND-DESCENT"):
        given = dict(a)
        reached = gradient_descent_with_bounds(
            given.pop("parameters"), given.pop("x"), precision=precision, **given
        )
        return {"value": _together(reached)}
    if label in ("EQ-COST", "EQ-GRADIENT"):
        given = dict(a)
        step = cost_and_gradient_with_bounds(
            given.pop("parameters"), given.pop("x"), precision=precision, **given
        )
        cost, gradient = step.cost, _together(step.gradient)
        if label == "EQ-GRADIENT":
            return {"value": gradient, "x": step.x}
        return {
            "value": cost.total,
            "reconstruction": cost.reconstruction,
            "weight_decay": cost.weight_decay,
            "sparsity": cost.sparsity,
            "gradient": gradient,
        }
    if label in _OF_A_LABEL:
        return _OF_A_LABEL[label](a, compute, wide)
    name = label.removeprefix("EQ-").removesuffix("-DERIVATIVE").removesuffix("-GRADIENT")
    value, slope = _with_slope(name, a, compute, wide)
    if label.endswith(("-DERIVATIVE", "-GRADIENT")):
        return {"value": slope}
    if name in ("L1", "L1L2"):  # at 0 any number in ±factor is a subgradient: EQ-L1-GRADIENT
        factor = a.get("factor", a.get("l1_factor"))
        slope = Bounded(slope.value, slope.bound + factor * (a["weights"] == 0.0))
    return {"value": value, "gradient": slope}


def _with_slope(
    name: str, a: Arguments, compute: Arithmetic, wide: Arithmetic
) -> tuple[Bounded, Bounded]:
    """The bounds of a value, and of its derivative, which has a label of its own."""
    if name in ("SIGMOID", "TANH", "RELU", "LINEAR"):
        return compute.activation(name.lower(), exact(a["z"]))
    if name in ("KL", "KL-EXTENSION"):
        given = a["rho"], exact(a["rho_hat"]), a.get("epsilon", 0.0)
        return wide.kl_divergence(*given), wide.kl_derivative(*given)
    if name == "KL-LOGITS":
        logits = a["logits"]
        flat = exact(logits.reshape(-1, logits.shape[-1]))
        value, slope = wide.kl_divergence_from_logits(a["rho"], flat)
        return value, Bounded(slope.value.reshape(logits.shape), slope.bound.reshape(logits.shape))
    if name == "ORTHOGONAL":
        return orthogonal_with_bounds(
            a["weights"], a["factor"], a["mode"], precision=wide.precision.name
        )
    factors = {
        "L1": (a.get("factor"), 0.0),
        "L2": (0.0, a.get("factor")),
        "L1L2": (a.get("l1_factor"), a.get("l2_factor")),
    }[name]
    return l1_l2_with_bounds(a["weights"], *factors, precision=wide.precision.name)


def _together(parameters: Any) -> Bounded:
    arrays = (*parameters.kernels, *parameters.biases)
    return Bounded(
        np.concatenate([part.value.ravel() for part in arrays]),
        np.concatenate([part.bound.ravel() for part in arrays]),
    )


def _of_log_sigmoid(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    # One sample's log-mean is its logarithm; the derivative is a sigmoid.
    value, _ = compute.log_mean_sigmoid(exact(a["z"][None]))
    slope, _ = compute.activation("sigmoid", exact(-a["z"]))
    return {"value": value, "gradient": slope}


def _of_log_mean(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    # The rule of EQ-BOUND-LOG-MEAN for values that are exact; every exponential may be flushed.
    values = a["values"]
    m, u = len(values), wide.u
    result = np.asarray(log_mean_exp(values))
    sizes = np.abs(result) + np.abs(np.max(values, axis=0)) + np.log(m)
    bound = (2 * m + 64) * u + 16.0 * u * sizes + m * wide.precision.underflow
    return {"value": wide.store(result, bound)}


def _of_mean(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    if "chunks" in a:
        samples, mask = np.concatenate(a["chunks"]), None
    else:
        samples, mask = a["activations"], a.get("mask")
    flat = samples.reshape(-1, samples.shape[-1])
    seen = flat if mask is None else flat[mask.ravel()]
    return {"value": wide.mean_over_samples(exact(seen), symmetric=a.get("symmetric", False))}


def _of_running(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    new = exact(a["batch_mean"])
    if a.get("previous") is None:
        return {"value": new}
    momentum = wide.number(a["momentum"])
    complement = wide.subtract(exact(1.0), momentum)
    old = wide.multiply(momentum, exact(a["previous"]))
    return {"value": wide.add(old, wide.multiply(complement, new))}


def _of_pack(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    return {"value": exact(pack(a["parameters"]))}


def _of_unpack(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    found = unpack(a["vector"], a["like"])
    return _numbered(kernels=map(exact, found.kernels), biases=map(exact, found.biases))


def _of_init(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    # U as it is stored, three roundings of the limit, of at most twice the limit two more, and one
    # of the weight: the oracle's own survey (tests/reference/test_certified.py) has nine.
    sizes = a["sizes"]
    pairs = list(itertools.pairwise(sizes))
    kernels = []
    for pair in pairs[: len(pairs) // 2] if a["tied"] else pairs:
        limit = math.sqrt(6.0 / (sum(pair) + 1))
        kernels.append(wide.store(np.zeros(pair), np.full(pair, 11.0 * wide.u * limit)))
    return _numbered(kernels=kernels, biases=[exact(np.zeros(n)) for n in sizes[1:]])


def _of_forward(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    parameters = a["parameters"]
    kernels = parameters.layer_kernels
    names = layer_activations(
        a.get("activation", "sigmoid"), a.get("output_activation"), len(kernels)
    )
    logits, activations = [], [compute.cast(exact(a["x"]))]
    for kernel, bias, name in zip(kernels, parameters.biases, names, strict=True):
        weights, bias = compute.cast(exact(kernel)), compute.cast(exact(bias))
        logits.append(compute.affine(activations[-1], weights, bias))
        activations.append(compute.activation(name, logits[-1])[0])
    return _numbered(logits=logits, activations=activations[1:])


def _of_feature(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    # Half of the roundoffs of a sum of squares, and those of a square root and a quotient.
    features = maximally_exciting_inputs(a["kernel"])
    relative = (len(a["kernel"]) + 8) * wide.u
    return {"value": Bounded(features, relative * np.abs(features) + wide.precision.underflow)}


def _of_reconstruction(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    output, y = a["output"], a["y"]
    error = wide.subtract(exact(output), exact(y))
    return {
        "value": reconstruction_with_bounds(output, y, precision=wide.precision.name),
        "gradient": compute.cast(wide.divide_by_count(error, len(output))),
    }


def _of_decay(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    parameters = a["parameters"]
    times = a["tied_decay"] if parameters.tied else 1
    squares = [wide.sum_of_squares(exact(kernel)) for kernel in parameters.kernels]
    total = exact(0.0)
    for square in squares:
        total = wide.add(total, wide.multiply(wide.number(a["weight_decay"] / 2.0 * times), square))
    factor = wide.number(a["weight_decay"] * times)
    slopes = [wide.multiply(factor, exact(kernel.ravel())) for kernel in parameters.kernels]
    slopes += [exact(np.zeros_like(bias)) for bias in parameters.biases]
    return {
        "value": total,
        "gradient": Bounded(
            np.concatenate([s.value for s in slopes]), np.concatenate([s.bound for s in slopes])
        ),
    }


def _of_sparsity(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    given = dict(a)
    from_logits = "logits" in given
    value, slope = kl_sparsity_with_bounds(
        given.pop("logits") if from_logits else given.pop("activations"),
        from_logits=from_logits,
        precision=compute.precision.name,
        **given,
    )
    return {"value": value, "gradient": slope}


def _of_slope(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    rho_hat, beta = a["rho_hat"], a["beta"]
    if beta == 0.0:
        return {"value": exact(np.zeros_like(rho_hat))}
    factor = wide.number(beta / 2.0 if a["symmetric"] else beta)
    slope = wide.kl_derivative(a["rho"], exact(rho_hat), a["epsilon"])
    return {"value": wide.divide_by_count(wide.multiply(factor, slope), a["m"])}


def _of_output_delta(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    error = wide.subtract(exact(a["output"]), exact(a["y"]))
    mean = compute.cast(wide.divide_by_count(error, len(a["output"])))
    return {"value": compute.multiply(mean, exact(a["derivative"]))}


def _of_delta(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    carried = compute.matmul(exact(a["next_delta"]), exact(a["next_kernel"].T))
    both = compute.add(carried, exact(a["sparsity_slope"]))
    return {"value": compute.multiply(both, exact(a["derivative"]))}


def _of_tied(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    uses = a["of_layers"]
    return {
        f"value[{i}]": wide.add(exact(uses[i]), exact(uses[-1 - i].T))
        for i in range(len(uses) // 2)
    }


def _of_numerical(a: Arguments, compute: Arithmetic, wide: Arithmetic) -> Bounds:
    # The difference of two costs, each within its bound, is rounded; 2ε is a power of 2.
    given = dict(a)
    parameters, x, step = (given.pop(name) for name in ("parameters", "x", "step"))
    theta = pack(parameters)

    def cost(i: int, change: float) -> Bounded:
        moved = theta.copy()
        moved[i] += change
        return cost_and_gradient_with_bounds(
            unpack(moved, parameters), x, precision=compute.precision.name, **given
        ).cost.total

    differences = [wide.subtract(cost(i, step), cost(i, -step)) for i in range(len(theta))]
    return {
        "value": Bounded(
            np.array([d.value for d in differences]) / (2.0 * step),
            np.array([d.bound for d in differences]) / (2.0 * step),
        )
    }


_OF_A_LABEL: dict[str, Callable[[Arguments, Arithmetic, Arithmetic], Bounds]] = {
    "EQ-LOG-SIGMOID": _of_log_sigmoid,
    "EQ-LOG-MEAN-EXP": _of_log_mean,
    "EQ-RHO-HAT": _of_mean,
    "EQ-RHO-HAT-CHUNKS": _of_mean,
    "EQ-RHO-HAT-RUNNING": _of_running,
    "EQ-PACK": _of_pack,
    "EQ-UNPACK": _of_unpack,
    "EQ-INIT": _of_init,
    "EQ-FORWARD": _of_forward,
    "EQ-FEATURE": _of_feature,
    "EQ-RECONSTRUCTION": _of_reconstruction,
    "EQ-DECAY": _of_decay,
    "EQ-SPARSITY": _of_sparsity,
    "EQ-SPARSITY-LOGITS": _of_sparsity,
    "EQ-SPARSITY-SLOPE": _of_slope,
    "EQ-DELTA-OUTPUT": _of_output_delta,
    "EQ-DELTA": _of_delta,
    "EQ-GRADIENT-TIED": _of_tied,
    "EQ-NUMERICAL-GRADIENT": _of_numerical,
}


def _written(bounded: Bounded, shape: tuple[int, ...]) -> tuple[float | None, ...]:
    """Bounds rounded up to three digits; `None` for an infinite one.

    A little more than rounded up: what a bound is off by from machine to machine (another order of
    a sum, another exponential) must not show.
    """
    return tuple(_rounded_up(float(b)) for b in np.broadcast_to(bounded.bound, shape).ravel())


def _rounded_up(bound: float) -> float | None:
    if not math.isfinite(bound):
        return None
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)):
        return float(+decimal.Decimal(bound * (1.0 + 1e-9)))


# --- what a vector is about ------------------------------------------------------------------


def _arrays(value: Any) -> Iterable[Array]:
    """Every array of real numbers among the arguments of a label."""
    if isinstance(value, Parameters):
        yield from (*value.kernels, *value.biases)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, list):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, np.ndarray) and value.dtype != bool:
        yield value


def _holds(precision: Any, arguments: Arguments) -> bool:
    return all(precision.represents(array) for array in _arrays(arguments))


ROUNDED_AWAY = 2.0**-25
"""Beside 1 float32 has nothing that is smaller."""


def _flags(label: str, a: Arguments, outputs: list[float]) -> tuple[str, ...]:
    """The flags that hold, found in the inputs (and, for denormal numbers, in the outputs)."""
    found = set()
    parameters = a.get("parameters")
    if parameters is None:
        parameters = a.get("like")
    means, units, samples = _means_of(label, a)
    if means is not None and np.any(means < ROUNDED_AWAY):
        found.add("dead-unit")
    if means is not None and np.any(means > 1.0 - ROUNDED_AWAY):
        found.add("saturated")
    if label.split("-")[1] in ("SIGMOID", "TANH", "LOG") and "z" in a:
        found |= {"saturated"} if np.any(np.abs(a["z"]) > 17.0) else set()
    if samples == 1:
        found.add("one-sample")
    if units == 1:
        found.add("one-unit")
    if a.get("tied") or "-TIED" in label or (parameters is not None and parameters.tied):
        found.add("tied")
    sizes = a.get("sizes", ()) if parameters is None else parameters.sizes
    if len(sizes) > 3:
        found.add("deep")
    if "mask" in a:
        found.add("masked")
    if a.get("symmetric"):
        found.add("symmetric")
    if "logits" in a:
        found.add("logits")
    edge = a.get("epsilon", 0.0)
    if edge and means is not None and np.any((means <= edge) | (means >= 1.0 - edge)):
        found.add("epsilon-edge")
    if a.get("beta") == 0.0:
        found.add("beta-zero")
    if "y" in a and "parameters" in a:
        found.add("y-not-x")
    kernels = [] if parameters is None else list(parameters.kernels)
    kernels += [a[name] for name in ("weights", "kernel", "next_kernel") if name in a]
    if any(np.any(kernel == 0.0) for kernel in kernels):
        found.add("weight-zero")
    seen = [*np.concatenate([[0.0], *(array.ravel() for array in _arrays(a))]), *outputs]
    if any(0.0 < abs(number) < 2.0**-126 for number in seen):
        found.add("denormal")
    return tuple(flag for flag in FLAGS if flag in found)


def _means_of(label: str, a: Arguments) -> tuple[Any, int | None, int | None]:
    """ρ̂ of the units that a vector is about, how many units and samples; `None`: it has none."""
    if "rho_hat" in a:
        return a["rho_hat"], a["rho_hat"].size, a.get("m")
    if "logits" in a or "activations" in a or "chunks" in a:
        given = np.concatenate(a["chunks"]) if "chunks" in a else a.get("logits")
        given = a["activations"] if given is None else given
        flat = given.reshape(-1, given.shape[-1])
        if a.get("mask") is not None:
            flat = flat[a["mask"].ravel()]
        if "logits" in a:
            flat = 1.0 / (1.0 + np.exp(-flat))
        means = np.mean(flat, axis=0)
        return (1.0 + means) / 2.0 if a.get("symmetric") else means, flat.shape[1], len(flat)
    if "x" in a:
        chosen = {k: a[k] for k in ("activation", "output_activation") if k in a}
        hidden = forward(a["parameters"], a["x"], **chosen).activations[1:-1]
        means = np.concatenate([np.mean(layer, axis=0) for layer in hidden])
        means = (1.0 + means) / 2.0 if a.get("symmetric") else means
        return means, min(layer.shape[1] for layer in hidden), len(a["x"])
    for name in ("output", "values", "next_delta"):
        if name in a:
            return None, a[name].shape[-1], len(a[name])
    kernel = a.get("kernel")
    return None, None if kernel is None else kernel.shape[1], None


# --- the table -------------------------------------------------------------------------------


def table(found: Mapping[str, list[Vector]]) -> str:
    """Return the page that says what the vectors cover."""
    count = sum(map(len, found.values()))
    outputs = [output for vectors in found.values() for v in vectors for output in v.outputs]
    numbers = sum(len(output.digits) for output in outputs)
    used = [f for f in FLAGS if any(f in v.flags for vs in found.values() for v in vs)]
    lines = [
        "# Conformance vectors",
        "",
        "Written by `sae-oracle vectors --write vectors`, not typed. `docs/vectors.md` says what "
        "is in a vector, how to read one, and how to check an implementation.",
        "",
        f"{count} vectors of {len(found)} equations, {numbers:,} numbers. How many have each flag:",
        "",
        "| equation | vectors | " + " | ".join(used) + " |",
        "|---|---|" + "---|" * len(used),
    ]
    for label, vectors in found.items():
        counts = [sum(flag in v.flags for v in vectors) for flag in used]
        row = [f"[{label}]({label}.json)", len(vectors), *(n or "" for n in counts)]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    totals = [sum(f in v.flags for vs in found.values() for v in vs) for f in used]
    lines.append("| all | " + " | ".join(map(str, [count, *totals])) + " |")
    return "\n".join(lines) + "\n"
