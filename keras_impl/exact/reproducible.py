"""Sums over samples of the same bits for any chunks in any order.

What a matrix product makes of a row may depend on how many rows there are, and on its place among
them: sums that round nothing are not enough. So each sample is computed by itself. What is added up
is then a function of the samples alone, and it is rounded once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from keras import tree

from keras_impl.exact.steps import ChunkSums
from keras_impl.exact.sums import Array, LogitSums


class ExactSums:
    """Sums of float64 numbers, rounded once, at the end.

    A finite float64 number is a whole multiple of 2⁻¹¹²⁶, written with its mantissa of 53 bits, and
    Python adds integers exactly.

    Args:
        count: How many sums.

    >>> sums = ExactSums(2)
    >>> for numbers in ([1e300, 1.0], [1.0, 2.0**-60], [-1e300, 2.0**-53]):
    ...     sums.add(np.array(numbers))
    >>> sums.nearest().tolist()
    [1.0, 1.0000000000000002]
    """

    def __init__(self, count: int) -> None:
        self._multiples: Any = np.full(count, 0, dtype=object)
        self._infinite = np.zeros(count)

    def add(self, numbers: Array) -> None:
        """Add a number to each sum.

        Args:
            numbers: (count,).
        """
        finite = np.isfinite(numbers)
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, as in any sum
            self._infinite += np.where(finite, 0.0, numbers)
        mantissas, exponents = np.frexp(np.where(finite, numbers, 0.0))
        integers = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
        self._multiples += integers << (exponents + 1073).astype(object)

    def nearest(self) -> Array:
        """Return the float64 numbers nearest to the sums, (count,); ∞ and NaN as in any sum."""
        finite = [_times_the_least(multiple) for multiple in self._multiples]
        # Which NaN the processor made of infinities is nothing that anyone asked for.
        infinite = np.where(np.isnan(self._infinite), np.nan, self._infinite)
        return np.where(infinite == 0.0, finite, infinite)


def _times_the_least(multiple: int) -> float:
    try:
        return multiple / 2**1126  # Python divides integers with one rounding
    except OverflowError:
        return math.inf if multiple > 0 else -math.inf


def exact_sums(samples: Callable[[], Iterable[ChunkSums]]) -> ChunkSums:
    """Return what the samples of a data set add up to.

    Logarithms of sums take a run through the samples more: each is scaled by the largest.

    Args:
        samples: Starts a run through the sums, on the host, of each sample by itself.
    """
    like = next(iter(samples()))
    marks = tree.map_structure(np.zeros_like, like)
    for penalty in marks.penalties:
        if isinstance(penalty, LogitSums):
            penalty.log_ones[...] = penalty.log_zeros[...] = 1.0
    logarithms = _flat(marks) == 1.0
    largest = np.where(logarithms, -np.inf, 0.0)
    if np.any(logarithms):
        for sums in samples():
            largest = np.maximum(largest, np.where(logarithms, _flat(sums), 0.0))
        largest[~np.isfinite(largest)] = 0.0
    total = ExactSums(len(largest))
    for sums in samples():
        numbers = _flat(sums)
        numbers[logarithms] = np.exp((numbers - largest)[logarithms])
        total.add(numbers)
    nearest = total.nearest()
    with np.errstate(divide="ignore"):
        nearest[logarithms] = np.log(nearest[logarithms]) + largest[logarithms]
    ends = np.cumsum([array.size for array in tree.flatten(like)])
    parts = iter(np.split(nearest, ends))
    return tree.map_structure(lambda array: next(parts).reshape(array.shape), like)


def _flat(sums: ChunkSums) -> Array:
    return np.concatenate([np.ravel(array) for array in tree.flatten(sums)])
