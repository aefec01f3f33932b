"""Penalties on the output of any layer, as layers that pass it through: Ng's, and any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.keras_internals import LayerThatKeepsItsLosses, refuse_time_distributed
from keras_impl.backends.replicas import losses_of_this_replica
from keras_impl.coefficients import Changeable, Coefficients, HasTerm
from keras_impl.divergence import at_least_float32, beside
from keras_impl.means import valid_positions
from keras_impl.recording import is_captured
from keras_impl.regularizers import KLSparsityRegularizer
from keras_impl.term import ReadOnly, SparsityTerm
from keras_impl.validation import cut, keras_object, real_number


class PenaltyLayer(LayerThatKeepsItsLosses):
    """Passes its input through and adds `penalty(inputs, ...)` to the loss, divided by nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Refuse what would compute another penalty.

        Raises:
            ValueError: Inside of `keras.layers.TimeDistributed`.
        """
        refuse_time_distributed(self)

    def penalty(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the penalty of `inputs`, a scalar, without adding it to the losses."""
        raise NotImplementedError

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return `inputs`, and add the penalty to the layer's losses.

        Args:
            inputs: (samples, ..., units).
            training: Whether state, such as a running average, moves.
            mask: Valid positions (see `means.valid_positions`).

        Raises:
            ValueError: Inside of `keras.layers.TimeDistributed`.
        """
        refuse_time_distributed(self)
        self.add_loss(self.penalty(inputs, training=training, mask=mask))
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`."""
        return input_shape


@keras.saving.register_keras_serializable(package="sae_oracle")
class KLSparsity(HasTerm, PenaltyLayer):
    """Passes its input through and adds βΣⱼKL(ρ‖ρ̂ⱼ) (EQ-SPARSITY) to the loss.

    ρ̂ⱼ is the mean of unit j over every axis but that of the units, over the valid positions where
    the input carries a mask. Where none is left, or in a batch of no rows, the term is 0. What
    `add_loss` adds Keras divides by nothing: the term is Ng's on every Keras.

    With `momentum` μ, ρ̂ is a running average over batches (EQ-RHO-HAT-RUNNING): in training
    ρ̂ ← μρ̂ + (1 − μ)·(mean of the batch), the first batch sets ρ̂, and the term is βΣKL(ρ‖ρ̂) of the
    new ρ̂. Its gradient is KL′(ρ‖ρ̂) times the gradient of the batch mean, without the factor
    1 − μ: a batch also moves the averages to come, by (1 − μ)(1 + μ + μ² + …) = 1 in all, and so
    β keeps its meaning. In inference ρ̂ stays as it is, and the term is that of the stored ρ̂
    (0 before any training batch).

    Source: CS294A lecture notes "Sparse autoencoder", §3; for the running average G. Hinton, "A
    Practical Guide to Training Restricted Boltzmann Machines", §11.

    Args:
        rho: ρ, the sparsity parameter, inside (0, 1): a number, or one for each unit.
        beta: β ≥ 0, the weight of the term.
        from_logits: Whether the input are logits of sigmoid units (EQ-KL-LOGITS). Put the layer
            before the activation.
        momentum: μ in [0, 1), or `None`: ρ̂ of the batch alone. Not with `from_logits`.
        epsilon: Outside [ε, 1 − ε] the KL continues along its tangent (EQ-KL-EXTENSION); 0: the
            exact KL. At most min(ρ, 1 − ρ). `None`: 10⁻⁶, or that minimum where it is smaller.
        symmetric: Whether activations lie in [−1, 1] (tanh): ρ̂ is then the mean of (1 + a)/2.
        cross_replica: Whether ρ̂ is that of the global batch under data parallelism, the running
            average too; False: each replica's own, which trains another function (see
            docs/replicas.md).
        axis: The axis of the units: 1 for images in the order "channels_first". `None`: the last.
        **kwargs: Those of `keras.layers.Layer`.

    `rho` and `beta` can be assigned to at any time, and count from the next step on: a step of
    Keras's `fit` that is compiled already is compiled once more at the first change, and at no
    later one (see `Anneal`). Nothing else can be changed.

    Raises:
        TypeError, ValueError: If an argument leaves its range; when the layer is built, if `rho`
            has not one number for each unit.
        AttributeError: If another argument is assigned to later.

    >>> layer = KLSparsity(rho=0.5, beta=3.0)
    >>> activations = layer(ops.convert_to_tensor([[0.25], [0.75]]))
    >>> float(layer.losses[0])
    0.0

    With a ρ for each unit:

    >>> layer = KLSparsity(rho=[0.25, 0.75], beta=3.0)
    >>> activations = layer(ops.convert_to_tensor([[0.25, 0.75]]))
    >>> abs(float(layer.losses[0])) < 1e-6
    True
    """

    term = ReadOnly("_term")
    rho = Changeable("_term.rho")
    beta = Changeable("_term.beta")
    from_logits = ReadOnly("_term.from_logits")
    epsilon = ReadOnly("_term.epsilon")
    symmetric = ReadOnly("_term.symmetric")
    axis = ReadOnly("_term.axis")
    cross_replica = ReadOnly("_term.cross_replica")
    momentum = ReadOnly("_momentum")

    def __init__(
        self,
        rho: float | Sequence[float] | NDArray[Any] = 0.05,
        beta: float = 1.0,
        from_logits: bool = False,
        momentum: float | None = None,
        epsilon: float | None = None,
        symmetric: bool = False,
        cross_replica: bool = True,
        axis: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        object.__setattr__(self, "_coefficients", Coefficients())
        self._term = SparsityTerm(
            rho, beta, from_logits, epsilon, symmetric, axis=axis, cross_replica=cross_replica
        )
        if momentum is not None:
            momentum = real_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
            if self.from_logits:
                raise ValueError(
                    "`momentum` averages mean activations, which `from_logits=True` never forms: "
                    "leave that out, and put the layer behind the activation. "
                    f"Received: momentum={momentum!r}, from_logits=True"
                )
        self._momentum = momentum

    def build(self, input_shape: Any) -> None:
        """Create the state of the running average, if there is one.

        Raises:
            ValueError: If the input has fewer than two axes, an unknown number of units, or not
                as many as `rho` has numbers.
        """
        super().build(input_shape)
        shape = tuple(input_shape)
        units = shape[self._term.unit_axis(shape)] if len(shape) > 1 else None
        if units is None:
            raise ValueError(
                "KLSparsity takes the output of a layer, of shape (samples, ..., units) with a "
                f"known number of units. Received: input_shape={shape}"
            )
        if self.momentum is not None:
            # Kept in float32 whatever the policy: in bfloat16 a step of 1 − μ would be lost.
            state: dict[str, Any] = {
                "initializer": "zeros",
                "dtype": "float64" if self.compute_dtype == "float64" else "float32",
                "trainable": False,
                "autocast": False,
                "aggregation": "mean",
            }
            self.rho_hat = self.add_weight(shape=(units,), name="rho_hat", **state)
            self.has_seen_a_batch = self.add_weight(shape=(), name="has_seen_a_batch", **state)

    def penalty(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the term, a scalar of at least float32, without adding it to the losses.

        Args:
            inputs: (samples, ..., units).
            training: Whether the running average moves.
            mask: Valid positions (see `means.valid_positions`). Where none is left the term is
                0, or that of the stored average, which does not move.
        """
        x, mask = self._term.units_last(inputs, mask)
        if is_captured(self, x, mask):
            return ops.zeros((), dtype="float32")
        term = self.term_of_step()
        if self.momentum is None:
            return term.penalty(x, mask)
        return term.penalty_of_mean(self._running_average(x, training, mask, term.rho))

    def _running_average(self, x: Any, training: bool | None, mask: Any, rho: Any) -> Any:
        seen = ops.convert_to_tensor(self.has_seen_a_batch) > 0.0
        stored = ops.convert_to_tensor(self.rho_hat)
        rho = beside(rho, stored)
        if not training:
            return ops.where(seen, stored, rho * ops.ones_like(stored))
        batch, count = self._term.mean_that_moves_state(x, mask)
        batch = ops.cast(batch, stored.dtype)
        if isinstance(count, float):  # a number of the host would be copied to the device
            counts = (ops.ones_like if count > 0.0 else ops.zeros_like)(seen)
        else:
            counts = count > 0.0
        start = ops.where(seen, stored, rho * ops.ones_like(stored))
        moved = self.momentum * stored + (1.0 - self.momentum) * batch
        # A unit without a valid position stays where it is, to the last bit.
        new = ops.stop_gradient(ops.where(counts, ops.where(seen, moved, batch), start))
        sees = ops.any(counts)
        with losses_of_this_replica():
            self.rho_hat.assign(ops.where(sees, new, stored))
            seen = ops.logical_or(seen, sees)
            self.has_seen_a_batch.assign(ops.cast(seen, self.has_seen_a_batch.dtype))
        # The value of the new average with the gradient of the batch mean.
        batch = ops.where(counts, batch, ops.zeros_like(batch))
        return new + (batch - ops.stop_gradient(batch))

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {**super().get_config(), **self._term.get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="sae_oracle")
class ActivityPenalty(PenaltyLayer):
    """Passes its input through and adds any penalty of it to the loss, divided by nothing.

    What `add_loss` adds Keras divides by nothing; an `activity_regularizer` it divides by the
    batch size from 3.14 on. The penalty is computed in at least float32. Where the input carries a
    mask, a penalty that takes an argument `mask` gets it: true where valid, in the shape of the
    input without its last axis. For any other one the masked positions are set to 0, which is right
    for sums of |a|, a² and their like.

    Args:
        penalty: What `keras.regularizers.get` takes, other than `None`: a function of a tensor,
            a `Regularizer`, a name such as "l2". A function of your own must be registered
            (`keras.saving.register_keras_serializable`) for the model to be reloaded.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        TypeError: If `penalty` cannot be called.
        ValueError: If it is a `KLSparsityRegularizer` (use `KLSparsity`), or a name unknown to
            Keras.

    >>> layer = ActivityPenalty(keras.regularizers.L2(1e-2))
    >>> activations = layer(ops.ones((5, 4)))
    >>> round(float(layer.losses[0]), 6)
    0.2
    """

    def __init__(self, penalty: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(penalty, KLSparsityRegularizer):
            raise ValueError(
                "`penalty` must not be a KLSparsityRegularizer, which undoes a division that "
                "nothing does here and counts masked positions: use KLSparsity."
            )
        function = None
        if penalty is not None:
            try:
                function = keras_object("penalty", penalty, keras.regularizers.get)
            except ValueError:
                if isinstance(penalty, str):
                    raise
        if not callable(function):
            raise TypeError(
                "`penalty` must be a function of a tensor, a regularizer or its name. "
                f"Received: penalty={cut(penalty)}"
            )
        self.function: Callable[..., Any] = function

    def penalty(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the penalty, a scalar of at least float32, without adding it to the losses.

        Args:
            inputs: (samples, ..., units).
            training: Not used.
            mask: Valid positions (see `means.valid_positions`).
        """
        a = at_least_float32(inputs)
        if mask is None:
            return self.function(a)
        valid = valid_positions(mask, a)
        if "mask" in inspect.signature(self.function).parameters:
            return self.function(a, mask=ops.squeeze(valid, -1) if valid.shape[-1] == 1 else valid)
        return self.function(ops.where(valid, a, ops.zeros_like(a)))

    def get_config(self) -> dict[str, Any]:
        """Return every argument; the penalty as Keras serializes it."""
        penalty = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "penalty": penalty}
