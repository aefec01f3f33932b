"""Mistakes of a size that people make at real sizes, and what each changes.

A plain network in float64, in which a product of matrices, the mean over the samples, the
coefficients and the samples can be others. What a mistake changes is the difference of two of its
results: it can be added to what a backend computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import reference
from reference.rounding import ORACLE_ROUNDOFF, PRECISIONS, smaller

Quantities = dict[str, np.ndarray]

ARGUMENTS: dict[str, float] = {"rho": 0.05, "beta": 3.0, "weight_decay": 1e-4}


def case(samples: int, features: int, units: int) -> tuple[reference.Parameters, np.ndarray]:
    """A start as the notes have it, and smooth rows from 0.1 to 0.9, as float32 holds them."""
    start = reference.initialise((features, units, features), seed=1)
    kernels = [kernel.astype(np.float32).astype(np.float64) for kernel in start.kernels]
    generator = np.random.default_rng(2)
    position = np.linspace(0.0, 1.0, features)
    frequency, phase = generator.uniform(1.0, 9.0, (2, samples, 1))
    x = 0.5 + 0.4 * np.sin(frequency * position + phase)
    return (
        reference.Parameters(kernels, start.biases),
        x.astype(np.float32).astype(np.float64),
    )


def mean_over_rows(a: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.mean(a, axis=0)
    return mean


def quantities(
    parameters: reference.Parameters,
    x: np.ndarray,
    *,
    rho: float,
    beta: float,
    weight_decay: float,
    product: Callable[[Any, Any], Any] = np.matmul,
    mean: Callable[[Any], Any] = mean_over_rows,
) -> Quantities:
    """The terms of the cost and its gradient."""
    (w1, w2), (b1, b2), m = parameters.kernels, parameters.biases, len(x)

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-z))

    a = sigmoid(product(x, w1) + b1)
    h = sigmoid(product(a, w2) + b2)
    rho_hat = mean(a)
    kl = rho * np.log(rho / rho_hat) + (1.0 - rho) * np.log((1.0 - rho) / (1.0 - rho_hat))
    slope = beta / m * ((1.0 - rho) / (1.0 - rho_hat) - rho / rho_hat)
    of_output = (h - x) / m * h * (1.0 - h)
    of_code = (product(of_output, w2.T) + slope) * a * (1.0 - a)
    return {
        "reconstruction": np.asarray(np.sum((h - x) ** 2) / (2.0 * m)),
        "weight decay": np.asarray(weight_decay / 2.0 * (np.sum(w1**2) + np.sum(w2**2))),
        "sparsity": np.asarray(beta * np.sum(kl)),
        "kernel 0": product(x.T, of_code) + weight_decay * w1,
        "kernel 1": product(a.T, of_output) + weight_decay * w2,
        "bias 0": np.sum(of_code, axis=0),
        "bias 1": np.sum(of_output, axis=0),
    }


def bounds(step: reference.BoundedStep) -> dict[str, reference.Bounded]:
    """The oracle's values and bounds by the names of `quantities`."""
    return {
        "reconstruction": step.cost.reconstruction,
        "weight decay": step.cost.weight_decay,
        "sparsity": step.cost.sparsity,
        **{f"kernel {i}": kernel for i, kernel in enumerate(step.gradient.kernels)},
        **{f"bias {i}": bias for i, bias in enumerate(step.gradient.biases)},
    }


def shortened(a: np.ndarray) -> np.ndarray:
    """Rounded to 11 significant bits, as a tensor core takes float32 if it may use TF32."""
    mantissa, exponent = np.frexp(a)
    return np.ldexp(np.round(mantissa * 2.0**11) / 2.0**11, exponent)


def in_bfloat16(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A product of which each 16 terms are added to an accumulator in bfloat16."""
    total = np.zeros((len(a), b.shape[1]))
    for start in range(0, a.shape[1], 16):
        total = total + a[:, start : start + 16] @ b[start : start + 16]
        total = total.astype(ml_dtypes.bfloat16).astype(np.float64)
    return total


def in_float16(a: np.ndarray) -> np.ndarray:
    """A mean that is stored in float16; its sum is exact."""
    return np.mean(a, axis=0).astype(np.float16).astype(np.float64)


Mistake = Callable[[reference.Parameters, np.ndarray], Quantities]


def _other(**changed: Any) -> Mistake:
    return lambda parameters, x: quantities(parameters, x, **{**ARGUMENTS, **changed})


MISTAKES: dict[str, Mistake] = {
    "TF32: factors of 11 bits": _other(product=lambda a, b: shortened(a) @ shortened(b)),
    "an accumulator in bfloat16": _other(product=in_bfloat16),
    "a mean in float16": _other(mean=in_float16),
    "ρ 0.0501 for 0.05": _other(rho=0.0501),
    "ρ off by 1e-4 of it": _other(rho=0.05 * (1.0 + 1e-4)),
    "λ halved": _other(weight_decay=ARGUMENTS["weight_decay"] / 2.0),
    "β off by 0.1 %": _other(beta=3.003),
    "a row counted twice": lambda parameters, x: quantities(
        parameters, np.concatenate([x, x[:1]]), **ARGUMENTS
    ),
}


def changes(parameters: reference.Parameters, x: np.ndarray) -> dict[str, Quantities]:
    """What each mistake adds to each quantity."""
    right = quantities(parameters, x, **ARGUMENTS)
    return {
        mistake: {name: wrong[name] - right[name] for name in right}
        for mistake, wrong in ((m, planted(parameters, x)) for m, planted in MISTAKES.items())
    }


FALSE_ALARM = 1e-9


def both_bounds(
    parameters: reference.Parameters,
    x: np.ndarray,
    precision: str = "float32",
    summation: str = "rows first",
) -> list[dict[str, reference.Bounded]]:
    """Of a right computation: those that are certain, and those that are at least likely."""
    certain, likely = (
        bounds(
            reference.cost_and_gradient_with_bounds(
                parameters,
                x,
                summation=summation,
                precision=precision,
                false_alarm=false_alarm,
                **ARGUMENTS,
            )
        )
        for false_alarm in (0.0, FALSE_ALARM)
    )
    return [certain, {name: smaller(certain[name], likely[name]) for name in certain}]


def furthest(actual: Quantities, expected: dict[str, reference.Bounded]) -> tuple[float, str]:
    """The largest error in units of its bound, and the quantity that has it."""
    return max((reference.usage(actual[name], expected[name]).worst, name) for name in actual)


SIZES = ((40, 16, 9), (256, 64, 25), (1000, 64, 25), (1000, 784, 196), (4000, 784, 196))


def _named(samples: int, features: int, units: int) -> str:
    return f"{samples:,} × {features}-{units}-{features}"


def _number(value: float) -> str:
    return f"{value:.1e}" if value < 1.0 else "—"


def _oracle_share(*names: str) -> float:
    """Of the bound of a sum in these formats, the largest share that is the oracle's."""
    smallest = min(PRECISIONS[name].accumulator_roundoff for name in names)
    return ORACLE_ROUNDOFF / (smallest + ORACLE_ROUNDOFF)


def report() -> list[str]:
    """What bounds find, and what mistakes need to be found, as lines of docs/bounds.md."""
    names = ("reconstruction", "weight decay", "sparsity", "kernel 0", "kernel 1")
    kinds = [("float32", "any order", SIZES[3:4])]
    kinds += [("float32", "rows first", SIZES)]
    kinds += [(name, "rows first", SIZES[1:4]) for name in ("tf32", "bfloat16", "float64")]
    lines = [
        "",
        "## What a bound finds",
        "",
        "Resolution (EQ-BOUND-RESOLUTION): the relative error, by norm, that is certain to be",
        "outside; —: none below 1. *Rows first* is the shape of sums of squares in `keras_impl`",
        "(EQ-BOUND-ROWS-FIRST); code that is not ours is held to *any order*. After the stroke: of",
        f"bounds that are likely, with a probability of {FALSE_ALARM:.0e} for a false alarm if",
        "roundings have mean 0 (`reference.likely`).",
        "",
        "What is left at 784 features is inner products: no backend says in which blocks it adds",
        "up a product of matrices. So each of n additions is allowed half a unit in the last place",
        "of the largest partial sum that any order has: the sum of the terms of one sign",
        "(EQ-BOUND-MATMUL). There are sums of nearly equal terms that are off by 97 % of their",
        "bound (`tests/reference/test_rules.py`): it cannot be smaller for all orders.",
        "",
        "| precision | sums | size | reconstruction | weight decay | sparsity | ∂J/∂W1 | ∂J/∂W2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for precision, summation, sizes in kinds:
        for size in sizes:
            found = both_bounds(*case(*size), precision, summation)
            cells = [
                " / ".join(_number(reference.resolution(tier[name])) for tier in found)
                for name in names
            ]
            lines.append(f"| {precision} | {summation} | {_named(*size)} | {' | '.join(cells)} |")
            if (precision, size) == ("float32", SIZES[3]):
                scaled = [reference.resolution(found[0][name]) * 2.0**-29 for name in names]
    lines += [
        "",
        "1e-12 in float64 is more than these rules can promise of every quantity at 1,000 ×",
        "784-196-784. To first order a bound is proportional to the roundoff, so 1e-12 is 5.4e-4",
        "in float32: less than the goals there of reconstruction, 2.5e-3, and of ∂J/∂W2, 2e-3,",
        "which are of the same sums. What holds in float32 is, times 2⁻²⁹, "
        f"{', '.join(f'{number:.1e}' for number in scaled)}",
        "in the order of the table. Bounds that are likely are below 1e-12.",
        "",
        "## The oracle's own share",
        "",
        "Every rule adds the oracle's 2⁻⁵³ to the roundoff u of the tested format. So the oracle's",
        f"part of a bound is at most {_oracle_share('float16', 'bfloat16', 'tf32', 'float32'):.1e}",
        "of it in float16, bfloat16, TF32 and float32, and half of it in float64. That half stays:",
        "what a float64 result is compared with is a float64 number, and to store the truth in one",
        "takes a rounding. `reference.certified` has more digits, and [its page](certified.md) how",
        "far the oracle is from them.",
        "",
        "## Mistakes at real sizes",
        "",
        "What a mistake changes in float32, in units of the bound, where that is largest: above 1",
        "it is found. First by the bounds that are certain, a verdict; after the stroke by those",
        "that are likely, a suspicion. **Lost**: by both.",
        "",
        f"| mistake | {' | '.join(_named(*size) for size in SIZES)} |",
        "|---|" + "---|" * len(SIZES),
    ]
    columns = []
    for size in SIZES:
        parameters, x = case(*size)
        tiers = both_bounds(parameters, x)
        columns.append(
            {
                mistake: [
                    furthest({n: tier[n].value + change[n] for n in change}, tier)[0]
                    for tier in tiers
                ]
                for mistake, change in changes(parameters, x).items()
            }
        )
    for mistake in MISTAKES:
        cells = []
        for column in columns:
            text = " / ".join(f"{ratio:.2g}" for ratio in column[mistake])
            cells.append(text if max(column[mistake]) > 1.0 else f"**lost** {text}")
        lines.append(f"| {mistake} | {' | '.join(cells)} |")
    return [*lines, ""]
