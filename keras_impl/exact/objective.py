"""The cost in the notes and its gradient over a whole training set, exact in chunks.

ρ̂ⱼ is the mean activation over the entire set, "computed before any backpropagation" (§3), so the
sparsity term is no sum over batches. With R̂ⱼ the sum of unit j's activations,

    ∂/∂θ β Σⱼ KL(ρ‖R̂ⱼ/m) = Σⱼ (β/m) KL′(ρ‖ρ̂ⱼ) · Σ over chunks of ∂(the chunk's part of R̂ⱼ)/∂θ.

A first pass over the chunks adds up R̂; then every slope KL′(ρ‖ρ̂ⱼ) is a known number, and the
gradient is a sum over chunks: the second pass. One pass cannot give it in constant memory: the
slopes are not known before the last sample is seen, and without them the ∂R̂ⱼ/∂θ would have to be
kept apart, one gradient for each unit. One pass is enough where there is no slope to wait for:

- the set is one chunk: its own mean is that of the set;
- no penalty, or every β is 0: the other terms are sums over samples;
- the cost alone: R̂ and the data loss are both sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.arrays import as_float64
from keras_impl.backends.autodiff import has_gradients
from keras_impl.backends.replicas import require_equal_on_workers, sum_over_workers, worker_count
from keras_impl.coefficients import coefficients_of
from keras_impl.exact.chunks import Chunk, Chunks
from keras_impl.exact.reproducible import exact_sums
from keras_impl.exact.steps import ChunkSums, one_sample, steps_of
from keras_impl.exact.sums import Array
from keras_impl.validation import flag


@dataclass(frozen=True, eq=False)
class FullCost:
    """The three terms of the cost (EQ-COST) over a whole data set.

    Args:
        reconstruction: The loss of the outputs, averaged over the samples: for Ng's cost
            (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖².
        weight_decay: The sum of the regularizers of the trainable weights.
        sparsity: Σ over the penalties of β Σⱼ KL(ρ‖ρ̂ⱼ), ρ̂ⱼ over the whole set.
        mean_activations: ρ̂ of each penalty, (units,), in the order in which the model calls them.

    >>> FullCost(0.5, 0.25, 0.125).total
    0.875
    """

    reconstruction: float
    weight_decay: float
    sparsity: float
    mean_activations: tuple[Array, ...] = ()

    @property
    def total(self) -> float:
        """The sum of the three terms."""
        return self.reconstruction + self.weight_decay + self.sparsity

    def __str__(self) -> str:
        return (
            f"J={self.total:.5g} reconstruction={self.reconstruction:.4g} "
            f"decay={self.weight_decay:.4g} sparsity={self.sparsity:.4g}"
        )


class FullDataObjective:
    """The cost of a model over a data set, as a function of the model's weights.

    `full_cost` and `full_cost_and_gradient` for one evaluation after the other. The functions are
    compiled once, for the model as it is when the objective is made: give a new one to a model
    whose loss, layers or penalties have changed.

    Args:
        model: As for `full_cost`.
        x: As for `full_cost`.
        batch_size: As for `full_cost`.
        y: As for `full_cost`.
        sample_weight: As for `full_cost`.
        cross_replica: As for `full_cost`.

    Raises:
        TypeError, ValueError: As `full_cost`.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        batch_size: int | None = None,
        *,
        y: Any = None,
        sample_weight: Any = None,
        cross_replica: bool = True,
    ) -> None:
        self._workers = worker_count() if flag("cross_replica", cross_replica) else 1
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
        self.model = model
        dtype = "float64" if model.compute_dtype == "float64" else "float32"
        self.chunks = Chunks(x, y, sample_weight, batch_size, dtype)
        first = self.chunks.first()
        self.steps = steps_of(model, first)
        self._sample = one_sample(first)
        self.sample_shapes = shapes(first.x)
        # The only chunk stays where it is computed on: no copy for each evaluation.
        self._only_chunk = _on_device(first) if self.chunks.is_one else None

    def cost(self) -> FullCost:
        """Return the terms at the model's weights."""
        weights, others = self._weights()
        decay, _ = self.steps.weight_decay_and_gradient(weights)
        return self._cost(self._first_pass(weights, others), decay)

    def reproducible_cost(self) -> FullCost:
        """Return the terms at the model's weights, of the same bits for any chunks in any order.

        Raises:
            ValueError: If several worker processes share the data.
        """
        if self._workers > 1:
            raise ValueError(
                "`reproducible` needs all samples in one process: `cross_replica` must be False. "
                f"Received True, with {self._workers} worker processes."
            )
        weights, others = self._weights()

        def samples() -> Iterator[ChunkSums]:
            for chunk in self.chunks.one_by_one():
                # A tensor of torch lies where its row does: a copy begins where all others do.
                sample = keras.tree.map_structure(ops.copy, _on_device(chunk))
                sums = self.steps.sums(weights, others, *sample)
                yield keras.tree.map_structure(as_float64, sums)

        totals = _Totals()
        totals.sums = exact_sums(samples)
        decay, _ = self.steps.weight_decay_and_gradient(weights)
        return self._cost(totals, decay)

    def cost_and_gradient(self) -> tuple[FullCost, list[Array]]:
        """Return the terms at the model's weights, and the gradient of their sum."""
        if not has_gradients():
            raise NotImplementedError(
                f"The {keras.config.backend()} backend of Keras has no gradients: use that of JAX, "
                "TensorFlow or PyTorch. `full_cost` needs none."
            )
        weights, others = self._weights()
        if self._only_chunk is not None and self._workers == 1:
            terms, gradient = self.steps.whole_set(weights, others, *self._only_chunk)
            cost = FullCost(
                float(as_float64(terms.reconstruction)),
                float(as_float64(terms.weight_decay)),
                float(as_float64(terms.sparsity)),
                tuple(as_float64(rho_hat) for rho_hat in terms.mean_activations),
            )
            return cost, [as_float64(part) for part in gradient]
        if self.steps.is_separable:
            totals, gradient = self._second_pass(weights, others, None)
        else:
            totals = self._first_pass(weights, others)
            again, gradient = self._second_pass(weights, others, totals)
            if again.samples != totals.samples:
                raise ValueError(
                    "`x` must yield the same samples each time it is run through. Received "
                    f"{totals.samples} samples in the first pass, {again.samples} in the second."
                )
        decay, decay_gradient = self.steps.weight_decay_and_gradient(weights)
        for total, part in zip(gradient, decay_gradient, strict=True):
            total += as_float64(part)
        return self._cost(totals, decay), gradient

    def state_that_training_moves(self) -> list[Any]:
        """Return the variables that a call in training mode would assign; nothing is assigned.

        And the seeds of random numbers, which torch draws without moving them.
        """
        if not self.model.non_trainable_variables:
            return []
        with keras.StatelessScope() as scope:
            self.model(self._sample, training=True)
        # Coefficients are state too, and move in no call.
        known = {id(variable) for variable in [*self.model.weights, *coefficients_of(self.model)]}
        return [
            variable
            for variable in self.model.variables
            if id(variable) not in known or scope.get_current_value(variable) is not None
        ]

    def _weights(self) -> tuple[list[Any], list[Any]]:
        if self._workers > 1:
            require_equal_on_workers(
                "The weights of `model`", [as_float64(v) for v in self.model.trainable_variables]
            )
        return (
            [ops.convert_to_tensor(v) for v in self.model.trainable_variables],
            [ops.convert_to_tensor(v) for v in self.model.non_trainable_variables],
        )

    def _first_pass(self, weights: list[Any], others: list[Any]) -> _Totals:
        totals = _Totals()
        if self._only_chunk is not None:
            totals.add(self.steps.sums(weights, others, *self._only_chunk), self.chunks.rows)
        else:
            for chunk in self.chunks:
                totals.add(self.steps.sums(weights, others, *_on_device(chunk)), chunk.samples)
        return totals.over_workers() if self._workers > 1 else totals

    def _second_pass(
        self, weights: list[Any], others: list[Any], totals: _Totals | None
    ) -> tuple[_Totals, list[Array]]:
        """Add up the gradients of the chunks, given the slopes of the whole set.

        Inside a chunk the gradient is that of a mean over its rows, so that it neither overflows
        nor vanishes in 16 bits; it becomes that of the mean over all samples here.
        """
        dtype = self.chunks.dtype
        reduction = self.steps.losses.reduction
        scale, slopes = 1.0, []
        if totals is not None:
            divisor = totals.sums.losses.divisor(reduction)
            scale = totals.samples / divisor if divisor else 0.0
            slopes = [
                sums.slope(term, totals.samples)
                for term, sums in zip(self.steps.terms, totals.sums.penalties, strict=True)
            ]
        scale, slopes = keras.tree.map_structure(
            lambda array: ops.convert_to_tensor(array, dtype), (scale, slopes)
        )
        gradient = [np.zeros(tuple(v.shape)) for v in self.model.trainable_variables]
        found = _Totals()
        for chunk in self.chunks:
            sums, gradients = self.steps.sums_and_gradient(
                weights, others, scale, slopes, *_on_device(chunk)
            )
            found.add(sums, chunk.samples)
            for total, part in zip(gradient, gradients, strict=True):
                total += self.chunks.rows * as_float64(part)
        if self._workers > 1:
            found = found.over_workers()
            gradient = [sum_over_workers(total) for total in gradient]
        divisor = found.sums.losses.divisor(reduction) if totals is None else found.samples
        if not divisor:  # as Keras divides: 0 where a mask, or weights of 0, leave nothing
            return found, [np.zeros_like(total) for total in gradient]
        return found, [total / divisor for total in gradient]

    def _cost(self, totals: _Totals, weight_decay: Any) -> FullCost:
        """EQ-COST, with EQ-RHO-HAT-CHUNKS."""
        losses = totals.sums.losses
        divisor = losses.divisor(self.steps.losses.reduction)
        sparsity, rho_hats = 0.0, []
        for term, sums in zip(self.steps.terms, totals.sums.penalties, strict=True):
            rho_hats.append(sums.mean_activation(term))
            if term.beta > 0.0:  # β = 0 switches the term off even where it is infinite
                sparsity += term.beta * float(np.sum(sums.divergence(term)))
        return FullCost(
            float(losses.loss / divisor) if divisor else 0.0,
            float(as_float64(weight_decay)),
            sparsity,
            tuple(rho_hats),
        )


class _Totals:
    """What the chunks of a pass add up to, in float64, and of how many samples."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: Any = None

    def add(self, sums: ChunkSums, samples: int) -> None:
        """Add what was computed of one chunk."""
        part = keras.tree.map_structure(as_float64, sums)
        self.sums = part if self.sums is None else self.sums.plus(part)
        self.samples += samples

    def over_workers(self) -> _Totals:
        """Return those of all worker processes, each with its part of the data."""
        together = _Totals()
        together.samples = int(sum_over_workers(np.array([float(self.samples)]))[0])
        together.sums = self.sums.over_workers()
        return together


def shapes(x: Any) -> list[tuple[int, ...]]:
    """Return the shape of a sample in each array of x.

    >>> shapes([np.ones((5, 3)), np.ones((5, 2, 2))])
    [(3,), (2, 2)]
    """
    return [tuple(leaf.shape[1:]) for leaf in keras.tree.flatten(x)]


def _on_device(chunk: Chunk) -> tuple[Any, Any, Any, Any]:
    x = keras.tree.map_structure(ops.convert_to_tensor, chunk.x)
    y = x if chunk.y is chunk.x else keras.tree.map_structure(ops.convert_to_tensor, chunk.y)
    return x, y, ops.convert_to_tensor(chunk.sample_weight), ops.convert_to_tensor(chunk.valid)
