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

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.backends.replicas import (
    logsumexp_over_workers,
    require_equal_on_workers,
    sum_over_workers,
    worker_count,
)
from keras_impl.divergence import (
    at_least_float32,
    kl_divergence,
    kl_divergence_and_slope,
    kl_divergence_of_logarithms,
)
from keras_impl.exact.chunks import Chunk, Chunks
from keras_impl.losses import HalfSquaredError
from keras_impl.means import (
    count_of,
    kl_divergence_from_logits,
    log_sums_of_sigmoids,
    mean_activation,
    sum_over_samples,
    valid_positions,
)
from keras_impl.models import SparseAutoencoder
from keras_impl.recording import PenalisedOutput, penalised_outputs
from keras_impl.validation import flag

Array = NDArray[np.float64]


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

    `full_cost` and `full_cost_and_gradient` for one evaluation after the other.

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
        first = next(iter(self.chunks))
        self.steps = _steps_of(model, first)
        # The only chunk stays where it is computed on: no copy for each evaluation.
        self._only_chunk = _on_device(first) if self.chunks.is_one else None

    def cost(self) -> FullCost:
        """Return the terms at the model's weights."""
        weights, others = self._weights()
        decay, _ = self.steps.weight_decay(weights)
        return self._first_pass(weights, others).cost(self.steps, _number(decay))

    def cost_and_gradient(self) -> tuple[FullCost, list[Array]]:
        """Return the terms at the model's weights, and the gradient of their sum."""
        if not has_gradients():
            raise NotImplementedError(
                f"The {keras.config.backend()} backend of Keras has no gradients."
            )
        weights, others = self._weights()
        if self._only_chunk is not None and self._workers == 1:
            (_, *terms), rho_hats, gradients = self.steps.whole(weights, others, *self._only_chunk)
            reconstruction, decay, sparsity = (_number(term) for term in terms)
            rho_hat = tuple(host(mean) for mean in rho_hats)
            cost = FullCost(reconstruction, decay, sparsity, rho_hat)
            return cost, [host(gradient) for gradient in gradients]
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
        decay, decay_gradient = self.steps.weight_decay(weights)
        for total, part in zip(gradient, decay_gradient, strict=True):
            total += host(part)
        return totals.cost(self.steps, _number(decay)), gradient

    def _weights(self) -> tuple[list[Any], list[Any]]:
        if self._workers > 1:
            require_equal_on_workers(
                "The weights of `model`", [host(v.value) for v in self.model.trainable_variables]
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
        if self._workers > 1:
            totals.add_other_workers()
        return totals

    def _second_pass(
        self, weights: list[Any], others: list[Any], totals: _Totals | None
    ) -> tuple[_Totals, list[Array]]:
        """Add up the gradients of the chunks, given the slopes of the whole set.

        Inside a chunk the gradient is that of a mean over its rows, so that it neither overflows
        nor vanishes in 16 bits; it becomes that of the mean over all samples here.
        """
        dtype = self.chunks.dtype
        data_scale, slopes = 1.0, []
        if totals is not None:
            data_scale = totals.samples / totals.divisor(self.steps.reduction)
            slopes = [
                [ops.convert_to_tensor(array, dtype) for array in totals.slope(penalty, i)]
                for i, penalty in enumerate(self.steps.penalties)
            ]
        scale = ops.convert_to_tensor(data_scale, dtype)
        gradient = [np.zeros(tuple(v.shape)) for v in self.model.trainable_variables]
        found = _Totals()
        for chunk in self.chunks:
            sums, gradients = self.steps.slope(weights, others, scale, slopes, *_on_device(chunk))
            found.add(sums, chunk.samples)
            for total, part in zip(gradient, gradients, strict=True):
                total += self.chunks.rows * host(part)
        if self._workers > 1:
            found.add_other_workers()
            gradient = [sum_over_workers(total) for total in gradient]
        divisor = found.divisor(self.steps.reduction) if totals is None else found.samples
        for total in gradient:
            total /= divisor
        return found, gradient


class _Totals:
    """What the chunks of a pass add up to, in float64."""

    def __init__(self) -> None:
        self.samples = 0
        self._data = 0.0
        self._count = 0.0
        self._weight = 0.0
        self._of_penalties: list[list[Array]] = []

    def add(self, sums: Any, samples: int) -> None:
        """Add what `_Steps.sums` returned for one chunk."""
        data, count, weight, of_penalties = sums
        self.samples += samples
        self._data += _number(data)
        self._count += _number(count)
        self._weight += _number(weight)
        parts = [[host(tensor) for tensor in tensors] for tensors in of_penalties]
        if not self._of_penalties:
            self._of_penalties = parts
            return
        for totals, part in zip(self._of_penalties, parts, strict=True):
            count = totals[-1] + part[-1]
            # Sums of activations, or logarithms of sums (of σ(z) and of σ(−z)).
            merge = np.add if len(part) == 2 else np.logaddexp
            totals[:] = [*(merge(a, b) for a, b in zip(totals[:-1], part[:-1], strict=True)), count]

    def add_other_workers(self) -> None:
        """Add what the other worker processes found in their parts of the data."""
        scalars = np.array([self.samples, self._data, self._count, self._weight])
        samples, self._data, self._count, self._weight = sum_over_workers(scalars).tolist()
        self.samples = int(samples)
        for totals in self._of_penalties:
            merge = sum_over_workers if len(totals) == 2 else logsumexp_over_workers
            totals[:] = [
                *(merge(total) for total in totals[:-1]),
                sum_over_workers(np.array(totals[-1])),
            ]

    def divisor(self, reduction: str) -> float:
        """By what the sum of the samples' losses is divided, as Keras does on one batch."""
        if reduction == "sum":
            return 1.0
        return self._weight if reduction == "mean_with_sample_weight" else self._count

    def cost(self, steps: _Steps, weight_decay: float) -> FullCost:
        """The terms of the whole set."""
        divergences, rho_hats = [], []
        for i, penalty in enumerate(steps.penalties):
            divergence, _, rho_hat = self._divergence(penalty, i)
            # β = 0 switches the term off even where a divergence is infinite.
            term = penalty.beta * float(np.sum(divergence)) if penalty.beta > 0.0 else 0.0
            divergences.append(term)
            rho_hats.append(rho_hat)
        divisor = self.divisor(steps.reduction)
        return FullCost(
            self._data / divisor if divisor else 0.0,
            weight_decay,
            sum(divergences),
            tuple(rho_hats),
        )

    def slope(self, penalty: Any, i: int) -> list[Array]:
        """What `_linear` needs to know of the whole set."""
        if penalty.from_logits:
            log_ones, log_zeros, count = self._of_penalties[i]
            scale = self.samples * penalty.beta if count else 0.0
            ones, zeros = np.array(scale * penalty.rho), np.array(scale * (1.0 - penalty.rho))
            return [log_ones, log_zeros, ones, zeros]
        _, slope, _ = self._divergence(penalty, i)
        _, count = self._of_penalties[i]
        if not (penalty.beta and count):
            return [np.zeros_like(slope)]
        factor = penalty.beta / 2.0 if penalty.symmetric else penalty.beta
        return [factor * slope * self.samples / count]

    def _divergence(self, penalty: Any, i: int) -> tuple[Array, Array, Array]:
        """KL(ρ‖ρ̂) of each unit, its slope (not from logits), and ρ̂."""
        *sums, count = self._of_penalties[i]
        nothing = np.zeros_like(sums[0])
        if not count:  # a mask left nothing in the whole set
            return nothing, nothing, nothing + penalty.rho
        if penalty.from_logits:
            log_rho_hat, log_rest = (logarithm - np.log(count) for logarithm in sums)
            divergence = kl_divergence_of_logarithms(penalty.rho, log_rho_hat, log_rest)
            return divergence, nothing, np.exp(log_rho_hat)
        rho_hat = sums[0] / count
        if penalty.symmetric:
            rho_hat = 0.5 + 0.5 * rho_hat
        return *kl_divergence_and_slope(penalty.rho, rho_hat, penalty.epsilon), rho_hat


class _Steps:
    """What is computed of one chunk, compiled once for all chunks.

    Args:
        model: A built model.
        penalties: Its penalties, in the order of the calls.
        key: What the compiled functions depend on.
    """

    def __init__(self, model: Any, penalties: list[Any], key: tuple[list[Any], Any]) -> None:
        self.model = model
        self.penalties = penalties
        self.key = key
        self.loss, self.reduction = _loss_of(model)
        self.is_separable = all(penalty.beta == 0.0 for penalty in penalties)
        self.regularizers = [variable.regularizer for variable in model.trainable_variables]
        self.sums = compiled(self._sums)
        self.slope = compiled(self._slope)
        self.whole = compiled(self._whole)
        self.weight_decay = compiled(self._weight_decay_and_gradient)

    def _forward(
        self, weights: Any, others: Any, x: Any, y: Any, sample_weight: Any, valid: Any
    ) -> tuple[list[Any], list[PenalisedOutput]]:
        """Σ of the losses, how many there are, Σ of their weights; and the penalised outputs."""
        mapping = [
            *zip(self.model.trainable_variables, weights, strict=True),
            *zip(self.model.non_trainable_variables, others, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping), penalised_outputs() as outputs:
            y_pred = self.model(x, training=False)
        losses = self.loss(y, y_pred)
        if tuple(losses.shape[:1]) != tuple(valid.shape):
            raise ValueError(
                "The loss of the model must return a number for each sample, so that samples can "
                f"be counted. Received a loss of shape {tuple(losses.shape)} for "
                f"{valid.shape[0]} samples."
            )
        counted = _Ones(losses, self.loss.dtype)(y, y_pred)  # 0 where Keras masks a loss
        sample_weight = _like(sample_weight, losses)
        data = ops.sum(losses * sample_weight)
        count = ops.sum(counted * _like(valid, losses))
        return [data, count, ops.sum(counted * sample_weight)], outputs

    def _sums(self, weights: Any, others: Any, *chunk: Any) -> list[Any]:
        """What `_Totals` adds up."""
        of_data, outputs = self._forward(weights, others, *chunk)
        valid = chunk[-1]
        return [*of_data, [_penalty_sums(output, valid) for output in outputs]]

    def _slope(
        self, weights: Any, others: Any, scale: Any, slopes: Any, *chunk: Any
    ) -> tuple[list[Any], list[Any]]:
        """The sums, and the gradient of (data loss + penalties linearised at ρ̂)/rows."""

        def objective(*tensors: Any) -> tuple[Any, list[Any]]:
            sums = self._sums(tensors, others, *chunk)
            value = scale * sums[0]
            for slope, of_penalty in zip(slopes, sums[-1], strict=False):
                value = value + ops.cast(_linear(slope, of_penalty), value.dtype)
            return value / float(chunk[-1].shape[0]), sums

        (_, sums), gradients = value_and_gradients(objective, weights, has_aux=True)
        return sums, gradients

    def _whole(self, weights: Any, others: Any, *chunk: Any) -> tuple[list[Any], ...]:
        """The cost, its terms, ρ̂ and the gradient of the cost, of the only chunk."""

        def objective(*tensors: Any) -> tuple[Any, list[Any]]:
            (data, count, weight), outputs = self._forward(tensors, others, *chunk)
            divisor = {"sum": None, "mean_with_sample_weight": weight}.get(self.reduction, count)
            reconstruction = data if divisor is None else data / divisor
            decay = ops.cast(self._weight_decay(tensors), reconstruction.dtype)
            sparsity = ops.zeros((), dtype=reconstruction.dtype)
            rho_hats = []
            for output in outputs:
                term, rho_hat = _penalty(output)
                sparsity = sparsity + ops.cast(term, sparsity.dtype)
                rho_hats.append(rho_hat)
            total = reconstruction + decay + sparsity
            return total, [total, reconstruction, decay, sparsity, rho_hats]

        (_, (*terms, rho_hats)), gradients = value_and_gradients(objective, weights, has_aux=True)
        return terms, rho_hats, gradients

    def _weight_decay(self, weights: Any) -> Any:
        terms = [
            regularizer(weight)
            for regularizer, weight in zip(self.regularizers, weights, strict=True)
            if regularizer is not None
        ]
        return sum(terms) if terms else ops.zeros((), dtype="float32")

    def _weight_decay_and_gradient(self, weights: Any) -> tuple[Any, list[Any]]:
        if not has_gradients():
            return self._weight_decay(weights), []
        return value_and_gradients(lambda *tensors: self._weight_decay(tensors), weights)


def _penalty_sums(output: PenalisedOutput, valid: Any) -> list[Any]:
    """Of one chunk: [Σa, count], or from logits [log Σσ(z), log Σσ(−z), count]."""
    a = at_least_float32(output.tensor)
    if tuple(a.shape[:1]) != tuple(valid.shape):
        raise ValueError(
            "The first axis of a penalised output must count the samples. Received an output of "
            f"shape {tuple(a.shape)} for {valid.shape[0]} samples."
        )
    positions = valid_positions(valid, a)
    if output.mask is not None:
        positions = ops.logical_and(positions, valid_positions(output.mask, a))
    count = count_of(a, positions)
    if not output.penalty.from_logits:
        return [sum_over_samples(a, positions), count]
    return [*log_sums_of_sigmoids(a, positions), count]


def _linear(slope: Any, sums: Any) -> Any:
    """A function of a chunk's sums whose gradient is the chunk's share of ∂βΣKL/∂θ.

    From logits βΣKL is −β Σⱼ(ρ log Sⱼ + (1 − ρ) log S′ⱼ) + constant, Sⱼ = Σσ(z) of the set; a
    chunk's part of the gradient is that of −β Σⱼ(ρ sⱼ/Sⱼ + (1 − ρ) s′ⱼ/S′ⱼ), s and s′ its own sums.
    Formed from logarithms, no quotient exceeds 1.
    """
    if len(slope) == 1:
        return ops.sum(slope[0] * sums[0])
    log_ones, log_zeros, ones, zeros = slope
    parts = ones * ops.exp(sums[0] - log_ones) + zeros * ops.exp(sums[1] - log_zeros)
    return -ops.sum(parts)


def _penalty(output: PenalisedOutput) -> tuple[Any, Any]:
    """The term of a chunk that is the whole set, and its ρ̂."""
    penalty = output.penalty
    activations = ops.sigmoid(output.tensor) if penalty.from_logits else output.tensor
    rho_hat = mean_activation(
        activations, output.mask, symmetric=penalty.symmetric, otherwise=penalty.rho
    )
    if penalty.beta == 0.0:
        return ops.zeros_like(rho_hat[0]), rho_hat
    if penalty.from_logits:
        divergence = kl_divergence_from_logits(penalty.rho, output.tensor, output.mask)
    else:
        divergence = kl_divergence(penalty.rho, rho_hat, penalty.epsilon)
    return penalty.beta * ops.sum(divergence), rho_hat


def _like(weights: Any, values: Any) -> Any:
    """Weights of samples (or of samples and steps), with axes to multiply values by them."""
    missing = len(values.shape) - len(weights.shape)
    if missing < 0:
        raise ValueError(
            "`sample_weight` must have at most the axes of the losses. Received weights of shape "
            f"{tuple(weights.shape)} for losses of shape {tuple(values.shape)}."
        )
    if missing:
        weights = ops.reshape(weights, (*weights.shape, *(1,) * missing))
    return weights if weights.dtype == values.dtype else ops.cast(weights, values.dtype)


class _Ones(keras.losses.Loss):
    """1 for each number of a loss; Keras puts 0 where its mask leaves the number out."""

    def __init__(self, like: Any, dtype: Any) -> None:
        super().__init__(name="counted", reduction="none", dtype=dtype)
        self._like = like

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.ones(self._like.shape, dtype=self._like.dtype)


class _OfFunction(keras.losses.Loss):
    """A loss function, such as the one called "mse", as a loss object."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="of_function", reduction="none")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self._function(y_true, y_pred)


def _loss_of(model: Any) -> tuple[Any, str]:
    """The model's loss, one number a sample, and the name of its reduction."""
    loss: Any
    if isinstance(model, SparseAutoencoder):
        loss = model.reconstruction_loss
    elif type(model).compute_loss is not keras.Model.compute_loss:
        raise ValueError(
            f"The cost of {type(model).__name__} is computed by a `compute_loss` of its own, which "
            "cannot be taken apart into samples. Only the loss given to `compile` can."
        )
    else:
        config = model.get_compile_config() if model.compiled else None
        if config is not None and config.get("loss_weights") is not None:
            raise ValueError("`loss_weights` of a compiled model are not supported.")
        loss = getattr(model, "loss", None)
        if loss is None:
            dtype = "float64" if model.compute_dtype == "float64" else "float32"
            loss = HalfSquaredError(dtype=dtype)
        if isinstance(loss, (list, tuple, dict)):
            raise ValueError(f"`model` must have one output and one loss. Received: loss={loss!r}")
        loss = keras.losses.get(loss)
    if not isinstance(loss, keras.losses.Loss):
        return _OfFunction(loss), "sum_over_batch_size"
    if loss.reduction in (None, "none"):
        raise ValueError("The loss of the model must be reduced to a number. Received: none.")
    by_sample = copy.copy(loss)
    by_sample.reduction = "none"
    return by_sample, loss.reduction


def _steps_of(model: Any, chunk: Chunk) -> _Steps:
    """The compiled steps of a model: those of the last time, if nothing changed since.

    Calls the model on one sample, eagerly: that builds it, and shows its penalties and whether
    there are losses of any other kind.
    """
    sample = keras.tree.map_structure(lambda a: ops.convert_to_tensor(a[:1]), chunk.x)
    with penalised_outputs() as outputs:
        y_pred = model(sample, training=False)
        losses = len(model.losses)
    if keras.tree.is_nested(y_pred):
        raise ValueError("`model` must have one output and one loss. Received several outputs.")
    if not model.trainable_variables:
        raise ValueError(f"`model` must have trainable weights. Received: {model.name}")
    regularizers = [v.regularizer for v in model.trainable_variables if v.regularizer is not None]
    if losses > len(outputs) + len(regularizers):
        raise ValueError(
            f"`model` adds {losses - len(outputs) - len(regularizers)} loss(es) other than the "
            "penalties of this package (by `add_loss` or an activity regularizer). Of a batch they "
            "may be anything: over a whole data set they are not defined."
        )
    penalties = [output.penalty for output in outputs]
    key = (
        [getattr(model, "loss", None), *model.variables, *penalties, *regularizers],
        (
            [variable.trainable for variable in model.variables],
            [thing.get_config() for thing in (*penalties, *regularizers)],
        ),
    )
    known = getattr(model, "_full_data_steps", None)
    if known is not None and _is_same(known.key, key):
        return known
    steps = _Steps(model, penalties, key)
    # Past Keras's own bookkeeping of attributes: this is no state of the model.
    object.__setattr__(model, "_full_data_steps", steps)
    return steps


def _is_same(known: tuple[list[Any], Any], key: tuple[list[Any], Any]) -> bool:
    objects_are_same = len(known[0]) == len(key[0]) and all(
        a is b for a, b in zip(known[0], key[0], strict=True)
    )
    return objects_are_same and known[1] == key[1]


def _on_device(chunk: Chunk) -> tuple[Any, Any, Any, Any]:
    x = keras.tree.map_structure(ops.convert_to_tensor, chunk.x)
    y = x if chunk.y is chunk.x else keras.tree.map_structure(ops.convert_to_tensor, chunk.y)
    return x, y, ops.convert_to_tensor(chunk.sample_weight), ops.convert_to_tensor(chunk.valid)


def host(tensor: Any) -> Array:
    """Return a tensor as a NumPy array in float64, exactly."""
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":  # NumPy has none
        tensor = ops.cast(tensor, "float32")
    return np.array(ops.convert_to_numpy(tensor), dtype=np.float64)


def _number(tensor: Any) -> float:
    return float(host(tensor))
