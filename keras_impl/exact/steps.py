"""What is computed of one chunk of a data set, compiled once for all chunks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.backends.keras_internals import layers_without_their_activity_regularizer
from keras_impl.exact.chunks import Chunk
from keras_impl.exact.sample_losses import SampleLosses
from keras_impl.exact.sums import LossSums, PenaltySums, penalty_sums
from keras_impl.layers import KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder
from keras_impl.recording import PenalisedOutput, penalised_outputs
from keras_impl.regularizers import WeightDecay
from keras_impl.term import SparsityTerm


class ChunkSums(NamedTuple):
    """What one chunk, or several, add up to.

    Args:
        losses: Of the outputs.
        penalties: Of each penalised output, in the order of the calls.
    """

    losses: LossSums
    penalties: list[PenaltySums]

    def plus(self, other: ChunkSums) -> ChunkSums:
        """Add those of another chunk."""
        penalties = zip(self.penalties, other.penalties, strict=True)
        return ChunkSums(self.losses.plus(other.losses), [a.plus(b) for a, b in penalties])

    def over_workers(self) -> ChunkSums:
        """Add those of the other worker processes."""
        return ChunkSums(
            self.losses.over_workers(), [sums.over_workers() for sums in self.penalties]
        )


class Terms(NamedTuple):
    """The terms of the cost of the only chunk, and ρ̂ of each of its penalised outputs."""

    reconstruction: Any
    weight_decay: Any
    sparsity: Any
    mean_activations: tuple[Any, ...]


class Steps:
    """The compiled functions of a model, as it is now but for its weights.

    Args:
        model: A built model.
        penalties: Its penalties, in the order of the calls.

    Raises:
        ValueError: If the loss cannot be taken apart into samples.
    """

    def __init__(self, model: Any, penalties: list[Any]) -> None:
        self.model = model
        # Each worker's own sums: they are added on the host.
        self.terms = [replace(penalty.term, cross_replica=False) for penalty in penalties]
        self.losses = SampleLosses(model)
        self.is_separable = all(term.beta == 0.0 for term in self.terms)
        self._regularizers = [
            _as_it_is(variable.regularizer) for variable in model.trainable_variables
        ]
        self.sums = compiled(self._sums)
        self.sums_and_gradient = compiled(self._sums_and_gradient)
        self.whole_set = compiled(self._whole_set)
        self.weight_decay_and_gradient = compiled(self._weight_decay_and_gradient)

    def _forward(self, weights: Any, others: Any, x: Any) -> tuple[Any, list[PenalisedOutput]]:
        mapping = [
            *zip(self.model.trainable_variables, weights, strict=True),
            *zip(self.model.non_trainable_variables, others, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping), penalised_outputs() as outputs:
            return self.model(x, training=False), outputs

    def _sums(
        self, weights: Any, others: Any, x: Any, y: Any, sample_weight: Any, valid: Any
    ) -> ChunkSums:
        y_pred, outputs = self._forward(weights, others, x)
        return ChunkSums(
            self.losses.sums(y, y_pred, sample_weight, valid),
            [penalty_sums(output.penalty, output.tensor, output.mask, valid) for output in outputs],
        )

    def _sums_and_gradient(
        self, weights: Any, others: Any, scale: Any, slopes: Any, *chunk: Any
    ) -> tuple[ChunkSums, list[Any]]:
        """The sums, and the gradient of (data loss + penalties linearised at ρ̂)/rows."""

        def objective(*tensors: Any) -> tuple[Any, ChunkSums]:
            sums = self._sums(tensors, others, *chunk)
            value = scale * sums.losses.loss
            for slope, of_penalty in zip(slopes, sums.penalties, strict=False):
                value = value + ops.cast(slope.linear(of_penalty), value.dtype)
            return value / float(chunk[-1].shape[0]), sums

        (_, sums), gradient = value_and_gradients(objective, weights, has_aux=True)
        return sums, gradient

    def _whole_set(
        self, weights: Any, others: Any, x: Any, y: Any, sample_weight: Any, valid: Any
    ) -> tuple[Terms, list[Any]]:
        """The terms of the cost of the only chunk, and the gradient of their sum."""

        def objective(*tensors: Any) -> tuple[Any, Terms]:
            y_pred, outputs = self._forward(tensors, others, x)
            losses = self.losses.sums(y, y_pred, sample_weight, valid)
            reconstruction = _quotient(losses.loss, losses.divisor(self.losses.reduction))
            decay = ops.cast(self._weight_decay(tensors), reconstruction.dtype)
            sparsity = ops.zeros((), dtype=reconstruction.dtype)
            rho_hats = []
            for term, output in zip(self.terms, outputs, strict=True):
                penalty, rho_hat = _penalty(term, output)
                sparsity = sparsity + ops.cast(penalty, sparsity.dtype)
                rho_hats.append(rho_hat)
            total = reconstruction + decay + sparsity
            return total, Terms(reconstruction, decay, sparsity, tuple(rho_hats))

        (_, terms), gradient = value_and_gradients(objective, weights, has_aux=True)
        return terms, gradient

    def _weight_decay(self, weights: Any) -> Any:
        terms = [
            regularizer(weight)
            for regularizer, weight in zip(self._regularizers, weights, strict=True)
            if regularizer is not None
        ]
        return sum(terms) if terms else ops.zeros((), dtype="float32")

    def _weight_decay_and_gradient(self, weights: Any) -> tuple[Any, list[Any]]:
        if not has_gradients():
            return self._weight_decay(weights), []
        return value_and_gradients(lambda *tensors: self._weight_decay(tensors), weights)


def _as_it_is(regularizer: Any) -> Any:
    """A λ that may change is a number here, as ρ and β are: one objective is one function."""
    return copy.deepcopy(regularizer) if type(regularizer) is WeightDecay else regularizer


def _quotient(total: Any, divisor: Any) -> Any:
    """total/divisor; 0 where a mask, or weights of 0, leave nothing: as Keras divides."""
    if isinstance(divisor, float):
        return total / divisor
    nothing = ops.cast(ops.equal(divisor, 0.0), total.dtype)
    return (1.0 - nothing) * total / (divisor + nothing)


def _penalty(term: SparsityTerm, output: PenalisedOutput) -> tuple[Any, Any]:
    """The term of a chunk that is the whole set, and its ρ̂."""
    rho_hat = term.mean_activation(output.tensor, output.mask)
    if term.beta == 0.0:  # off, also where it is infinite
        return ops.zeros_like(rho_hat[0]), rho_hat
    if term.from_logits:
        return term.penalty(output.tensor, output.mask), rho_hat
    return term.penalty_of_mean(rho_hat), rho_hat


def steps_of(model: Any, chunk: Chunk) -> Steps:
    """Return the compiled functions of a model.

    Calls the model on one sample, eagerly: that builds it, and shows its penalties and whether
    there are losses of any other kind.

    Raises:
        ValueError: If the cost of the model is not defined over a whole data set.
    """
    with penalised_outputs() as outputs:
        y_pred = model(one_sample(chunk), training=False)
        losses = len(model.losses)
    if keras.tree.is_nested(y_pred):
        raise ValueError(
            "`model` must have one output and one loss: make a keras.Model of one output. Received "
            "several outputs."
        )
    if not model.trainable_variables:
        raise ValueError(
            "`model` must have trainable weights: set `trainable` of its layers. "
            f"Received: {model.name}"
        )
    _refuse_lost_penalties(model)
    regularizers = [v.regularizer for v in model.trainable_variables if v.regularizer is not None]
    if losses > len(outputs) + len(regularizers):
        raise ValueError(
            f"`model` adds {losses - len(outputs) - len(regularizers)} loss(es) other than the "
            "penalties of this package (by `add_loss` or an activity regularizer). Of a batch they "
            "may be anything: over a whole data set they are not defined. Use KLSparsity or "
            "KLSparsityRegularizer in their place, or train with `fit`."
        )
    penalties = [output.penalty for output in outputs]
    state = _state_of(model, penalties, regularizers)
    if state is None:
        return Steps(model, penalties)
    known = getattr(model, "_full_data_steps", None)
    if known is None or known[0] != state:
        known = state, Steps(model, penalties)
        # Past Keras's own bookkeeping of attributes: this is no state of the model.
        object.__setattr__(model, "_full_data_steps", known)
    steps: Steps = known[1]
    return steps


def one_sample(chunk: Chunk) -> Any:
    """Return the first sample of a chunk, as tensors."""
    return keras.tree.map_structure(lambda a: ops.convert_to_tensor(a[:1]), chunk.x)


def _refuse_lost_penalties(model: Any) -> None:
    """Refuse what Keras never calls: it would count neither here nor in `fit`."""
    for layer in layers_without_their_activity_regularizer(model):
        raise ValueError(
            f"Keras never applies the activity regularizer of the layer {layer.name}: the "
            "TimeDistributed around it runs its `call` alone. It would count neither here nor in "
            "`fit`. Leave it out, and put a KLSparsity behind the TimeDistributed. "
            f"Received: {layer.activity_regularizer!r}"
        )


def _state_of(model: Any, penalties: list[Any], regularizers: list[Any]) -> Any:
    """All that the functions of a model read when they are compiled; `None` if it is not known.

    A layer may read anything then: an attribute, a global, what a closure holds. So compiled
    functions serve a second call only for a `SparseAutoencoder`, of which all is known.
    """
    parts = [model, *penalties, *regularizers, getattr(model, "reconstruction_loss", None)]
    kinds = (SparseAutoencoder, KLSparsity, WeightDecay, HalfSquaredError)
    if any(type(part) not in kinds or "call" in vars(part) for part in parts):
        return None
    return (
        [(type(part), part.get_config()) for part in parts],
        [(id(variable), variable.trainable) for variable in model.variables],
    )
