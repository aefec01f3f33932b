"""Is ever a right computation outside of its bound? Each rule, and a network, in very many cases.

    python -m tests.reference.many_cases --minutes 10

A case is one result: of an operation, of a sum of up to 3,000 terms, or of a whole network. Inputs
are random numbers of the format: exact in every other batch, else off by all that their bound says.
Sums run in sequence, over random terms and over equal ones, whose roundings add up. What was found
is in `benchmarks/results/many_cases.json`, which every call goes on from, and in `docs/bounds.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import reference
from reference.rounding import Arithmetic, Bounded, exact
from tests.reference.test_rounding import DTYPES, usages

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "benchmarks" / "results" / "many_cases.json"
PAGE = ROOT / "docs" / "bounds.md"
HEADING = "## Very many right computations"
CASES = 400
NETWORKS = 40

Found = dict[str, dict[str, Any]]
Pair = tuple[Any, Bounded]


class Cases:
    """Random cases of one precision: what is computed, and the bounded value of it.

    Args:
        name: The precision.
        seed: Of the batch. Inputs are exact where it is even.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.exact = seed % 2 == 0
        self.dtype = DTYPES[name]
        self.arithmetic = Arithmetic(name)
        self.accumulator = np.float64 if name == "float64" else np.float32

    def stored(self, values: Any) -> Any:
        return np.asarray(values).astype(self.dtype)

    def numbers(self, *shape: int, low: float = -6.0, high: float = 2.0) -> Pair:
        """Numbers of the format, 2^low to 2^high in size, and what is known of them."""
        sizes = 2.0 ** self.random.uniform(low, high, size=shape)
        return self.known(self.stored(sizes * self.random.choice([-1.0, 1.0], size=shape)))

    def means(self, *shape: int) -> Pair:
        """Numbers in (0, 1), also near its ends."""
        return self.known(self.stored(self.random.beta(0.7, 0.7, size=shape) * 0.97 + 0.01))

    def known(self, actual: Any) -> Pair:
        """A number, exactly; or off by all that its bound says."""
        value = actual.astype(np.float64)
        if self.exact:
            return actual, exact(value)
        error = np.abs(value) * 2.0 ** self.random.uniform(-30.0, -6.0, size=value.shape)
        moved = value + error * self.random.choice([-1.0, 1.0], size=value.shape)
        return actual, Bounded(moved, np.abs(moved - value))

    def in_sequence(self, terms: Any) -> Any:
        """The sum over the first axis, one term after the other, not stored."""
        return np.add.accumulate(terms.astype(self.accumulator), axis=0)[-1]

    def terms(self, equal: bool) -> Pair:
        """Terms of many sums, on the first axis."""
        if not equal:
            return self.numbers(int(self.random.integers(2, 400)), CASES)
        term, known = self.means(CASES)
        shape = (int(self.random.integers(2, 3000)), CASES)
        return np.broadcast_to(term, shape), Bounded(
            np.broadcast_to(known.value, shape), np.broadcast_to(known.bound, shape)
        )

    def operation(self, rule: str, operate: Callable[[Any, Any], Any]) -> Pair:
        (a, known_a), (b, known_b) = self.numbers(CASES), self.numbers(CASES)
        return self.stored(operate(a, b)), getattr(self.arithmetic, rule)(known_a, known_b)

    def cast(self) -> Pair:
        value = self.random.normal(size=CASES)
        return self.stored(value), self.arithmetic.cast(exact(value))

    def count(self) -> Pair:
        a, known = self.numbers(CASES)
        count = int(self.random.integers(1, 2000))
        inverse = self.stored(1.0 / count)
        return self.stored(a * inverse), self.arithmetic.divide_by_count(known, float(count))

    def total(self, equal: bool) -> Pair:
        a, known = self.terms(equal)
        return self.stored(self.in_sequence(a)), self.arithmetic.total(known, axis=0)

    def squares(self, equal: bool) -> Pair:
        a, known = self.terms(equal)
        a, known = a[:, :1], Bounded(known.value[:, :1], known.bound[:, :1])
        squares = a.astype(self.accumulator) ** 2
        return self.stored(self.in_sequence(squares))[0], self.arithmetic.sum_of_squares(known)

    def mean(self, equal: bool) -> Pair:
        a, known = self.terms(equal)
        mean = self.in_sequence(a) / self.accumulator(len(a))
        return self.stored(mean), self.arithmetic.mean_over_samples(known)

    def product(self, equal: bool) -> Pair:
        count = int(self.random.integers(2, 300))
        (a, known_a), (b, known_b) = self.numbers(20, count), self.numbers(count, 20)
        if equal:  # of one row and one column, the same in each place
            a, b = (np.broadcast_to(m[:1, :1], m.shape) for m in (a, b))
            known_a, known_b = exact(a.astype(np.float64)), exact(b.astype(np.float64))
        terms = a.T.astype(self.accumulator)[:, :, None] * b.astype(self.accumulator)[:, None, :]
        return self.stored(self.in_sequence(terms)), self.arithmetic.matmul(known_a, known_b)

    def activation(self, name: str) -> list[Pair]:
        z, known = self.numbers(CASES, low=-8.0, high=3.0)
        wide = z.astype(self.accumulator)
        if name == "sigmoid":
            a = self.stored(1 / (1 + np.exp(-wide)))
            slope = a * (self.dtype(1) - a)
        elif name == "tanh":
            a = self.stored(np.tanh(wide))
            slope = self.dtype(1) - a * a
        else:
            a = np.maximum(z, self.dtype(0))
            slope = self.stored(z > 0)
        of_values, of_slopes = self.arithmetic.activation(name, known)
        return [(a, of_values), (self.stored(slope), of_slopes)]

    def divergence(self) -> list[Pair]:
        r, known = self.means(CASES)
        target = float(self.random.choice([0.01, 0.05, 0.3, 0.5]))
        rho, unity = self.dtype(target), self.dtype(1)
        rest, rest_hat = unity - rho, unity - r
        value = rho * (np.log(rho) - np.log(r)) + rest * (np.log(rest) - np.log(rest_hat))
        slope = rest / rest_hat - rho / r
        return [
            (self.stored(value), self.arithmetic.kl_divergence(target, known, 0.0)),
            (self.stored(slope), self.arithmetic.kl_derivative(target, known, 0.0)),
        ]

    def logits(self) -> list[Pair]:
        """As any penalty, in float32 at least."""
        dtype = self.accumulator
        scale = float(self.random.choice([1.0, 30.0, 1e4]))
        z = (self.random.normal(size=(7, CASES)) * scale).astype(dtype)

        def log_mean(v: Any) -> Any:
            logs = np.minimum(v, 0) - np.log1p(np.exp(-np.abs(v)))
            top = logs.max(axis=0)
            return top + np.log(np.sum(np.exp(logs - top), axis=0)) - np.log(dtype(len(v)))

        target = float(self.random.choice([0.01, 0.05, 0.3, 0.5]))
        rho, ones, zeros = dtype(target), log_mean(z), log_mean(-z)
        value = rho * (np.log(rho) - ones) + (1 - rho) * (np.log1p(-rho) - zeros)
        wide = Arithmetic(np.dtype(dtype).name)
        return [
            (ones, wide.log_mean_sigmoid(exact(z))[0]),
            (value, wide.kl_divergence_from_logits(target, exact(z))[0]),
        ]

    def all(self) -> dict[str, list[Pair]]:
        """A batch of cases of each rule."""
        return {
            "stored and cast": [self.cast()],
            "sum of two": [self.operation("add", lambda a, b: a + b)],
            "difference": [self.operation("subtract", lambda a, b: a - b)],
            "product of two": [self.operation("multiply", lambda a, b: a * b)],
            "division by a count": [self.count()],
            "sum in sequence": [self.total(False)],
            "sum in sequence, equal terms": [self.total(True)],
            "sum of squares": [self.squares(equal) for equal in (False, True) for _ in range(20)],
            "mean in sequence": [self.mean(False)],
            "mean in sequence, equal terms": [self.mean(True)],
            "product of matrices": [self.product(False)],
            "product of matrices, equal terms": [self.product(True)],
            "activations and slopes": [
                pair for name in ("sigmoid", "tanh", "relu") for pair in self.activation(name)
            ],
            "KL and its slope": self.divergence(),
            "KL from logits": self.logits(),
        }


def add_batch(name: str, seed: int, mine: Found) -> None:
    """Run a batch of each rule and of networks, and keep count and the most of a bound used."""

    def keep(rule: str, cases: int, worst: float, kind: str) -> None:
        state = mine.setdefault(rule, {"cases": 0, "exact": 0.0, "off": 0.0})
        state["cases"] += cases
        state[kind] = max(state[kind], worst)

    with np.errstate(all="ignore"):
        for rule, pairs in Cases(name, seed).all().items():
            for actual, expected in pairs:
                used = reference.usage(np.asarray(actual, dtype=np.float64), expected)
                keep(rule, used.elements, used.worst, "off" if seed % 2 else "exact")
    random = np.random.default_rng([seed, 1])
    for i in range(NETWORKS):
        shape = {
            "m": int(random.choice([1, 2, 3, 7, 50])),
            "n": int(random.choice([1, 2, 3, 8])),
            "s": int(random.choice([1, 2, 3, 5])),
            "scale": float(random.choice([0.01, 0.3, 1.0, 3.0, 6.0])),
            "rho": float(random.choice([1e-4, 0.01, 0.05, 0.5, 0.95])),
        }
        order = ("numpy", "sequential")[i % 2]
        found = usages(name, NETWORKS * seed + i, order, **shape)
        keep("network, 7 quantities", 1, max(used.worst for used in found.values()), "exact")


def section(found: dict[str, Found]) -> str:
    """What was found, as a section of docs/bounds.md."""
    counts = [state["cases"] for of in found.values() for state in of.values()]
    outside = sum(
        max(state["exact"], state["off"]) > 1.0 for of in found.values() for state in of.values()
    )
    rules = list(next(iter(found.values())))
    rows = [
        f"| {rule} | " + " | ".join(_cell(of[rule]) for of in found.values()) + " |"
        for rule in rules
    ]
    return "\n".join(
        [
            HEADING,
            "",
            "Written by `python -m tests.reference.many_cases`, which goes on where it stopped.",
            f"{sum(counts):,} results of right computations in NumPy, of each rule alone and of",
            "whole networks, summed as NumPy does and in sequence. What they use of their bounds",
            "at most: with exact inputs, where only roundings use it; after the stroke with inputs",
            "that are off by all that their bounds say; and of how many results. In float64 most",
            "rules round as the oracle does. Outside of its bound:",
            f"{'none' if not outside else f'some of {outside} rules'}.",
            "",
            f"| rule | {' | '.join(found)} |",
            "|---|" + "---|" * len(found),
            *rows,
            "",
        ]
    )


def _cell(state: dict[str, Any]) -> str:
    off = f" / {state['off']:.2f}" if state["off"] else ""
    return f"{state['exact']:.2f}{off} of {state['cases']:,}"


def earlier() -> dict[str, Any]:
    """What has been found, by precision, and how many batches that took."""
    if not FOUND.exists():
        return {name: {"batches": 0, "rules": {}} for name in DTYPES}
    found: dict[str, Any] = json.loads(FOUND.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many")
    parser.add_argument("--batches", type=int, default=10_000, help="of each precision, in all")
    arguments = parser.parse_args()
    found = earlier()
    saved = time.monotonic()
    end = saved + 60.0 * arguments.minutes

    def save() -> None:
        FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        before = PAGE.read_text(encoding="utf-8").split(HEADING)[0].rstrip("\n")
        page = f"{before}\n\n" + section({name: of["rules"] for name, of in found.items()})
        PAGE.write_text(page, encoding="utf-8")

    while any(of["batches"] < arguments.batches for of in found.values()):
        for name, of in found.items():
            add_batch(name, of["batches"], of["rules"])
            of["batches"] += 1
        if time.monotonic() > min(end, saved + 30.0):
            saved = time.monotonic()
            save()
            print({name: of["batches"] for name, of in found.items()}, flush=True)
        if time.monotonic() > end:
            break
    save()


if __name__ == "__main__":
    main()
