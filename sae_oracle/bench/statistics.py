"""Paired timings and what may be concluded from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Step = Callable[[], object]
"""Runs one training step and waits for its end."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A median with its bootstrap interval."""

    median: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals have a number in common.

        >>> Interval(1.0, 0.9, 1.1).overlaps(Interval(1.2, 1.1, 1.3))
        True
        """
        return self.low <= other.high and other.low <= self.high


def median_interval(values: NDArray[np.float64]) -> Interval:
    """Return the median of independent measurements and its 95 % bootstrap interval.

    Args:
        values: One number a pair, (pairs,).

    Returns:
        Percentiles of the medians of 2,000 resamples; reproducible.

    >>> median_interval(np.array([1.0, 1.0, 1.0])).high
    1.0
    """
    found = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=2000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(np.median(values)), float(found.low), float(found.high))


@dataclass(frozen=True)
class Timing:
    """One variant against its baseline.

    Args:
        seconds: Median time of a step.
        ratio: Time of a step over that of the baseline, pair by pair.
        added: Seconds a step takes longer than the baseline, pair by pair.
        pairs: How many pairs there are.
    """

    seconds: float
    ratio: Interval
    added: Interval
    pairs: int


def shortest(step: Step, steps: int) -> float:
    """Return the shortest of several steps in seconds: what other processes disturb least."""
    best = float("inf")
    for _ in range(steps):
        started = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - started)
    return best


def interleave(
    groups: Mapping[str, Mapping[str, Step]],
    *,
    rounds: int,
    steps: int,
    time_limit: float,
    on_round: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> dict[str, dict[str, Timing]]:
    """Time every variant of every group between two timings of its group's baseline.

    A round goes through all groups: baseline, variant, baseline, variant, ..., baseline, the
    variants in a new random order. A pair is a variant and the mean of the two baselines around
    it, so that a machine that slows down or speeds up steadily changes no ratio.

    Args:
        groups: For each group its variants; the first is the baseline.
        rounds: How many pairs each variant gets.
        steps: How many steps in succession give one timing, their minimum.
        time_limit: After so many seconds no new round begins, once there are five.
        on_round: Called after every round.
        seed: Of the random order.

    Returns:
        For each group and variant its timing; for the baseline, the baselines around a variant
        against each other.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        group: {name: [] for name in variants} for group, variants in groups.items()
    }
    for variants in groups.values():  # warm
        for step in variants.values():
            shortest(step, 2)
    started = time.perf_counter()
    for done in range(rounds):
        for group, variants in groups.items():
            baseline, *others = variants
            before = shortest(variants[baseline], steps)
            for name in generator.permutation(others).tolist():
                seconds = shortest(variants[name], steps)
                after = shortest(variants[baseline], steps)
                found[group][name].append((seconds, 0.5 * (before + after)))
                found[group][baseline].append((after, before))
                before = after
        on_round()
        if time.perf_counter() - started > time_limit and done >= 4:
            break
    return {
        group: {name: timing(np.array(pairs)) for name, pairs in variants.items()}
        for group, variants in found.items()
    }


def timing(pairs: NDArray[np.float64]) -> Timing:
    """Return what the pairs say.

    Args:
        pairs: (pairs, 2): seconds of the variant, seconds of the baseline.
    """
    seconds, baseline = pairs.T
    return Timing(
        seconds=float(np.median(seconds)),
        ratio=median_interval(seconds / baseline),
        added=median_interval(seconds - baseline),
        pairs=len(pairs),
    )
