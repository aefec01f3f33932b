"""The objects of the package, each as the layers of one small autoencoder, and Keras's own.

Two features, so that Keras's "mse" is Ng's reconstruction ½‖h − y‖² of a row, and every object
stands in a network whose cost `reference` knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from keras_impl import (
    ActivityPenalty,
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
    keras_divides_activity_by_batch,
)

FEATURES, HIDDEN = 2, 3
KERAS_DIVIDES = keras_divides_activity_by_batch()
RHO, BETA, WEIGHT_DECAY, EPSILON = 0.2, 0.5, 0.25, 1e-6


@keras.saving.register_keras_serializable(package="tests")
def sum_of_divergences(a: Any, mask: Any = None) -> Any:
    """EQ-SPARSITY as a user of Keras writes it."""
    a = ops.cast(a, "float64" if keras.config.floatx() == "float64" else "float32")
    rows = ops.reshape(a, (-1, HIDDEN))
    if mask is None:
        count = ops.cast(ops.shape(rows)[0], rows.dtype)
    else:
        valid = ops.reshape(ops.cast(mask, rows.dtype), (-1, 1))
        rows, count = rows * valid, ops.sum(valid)
    nothing = ops.cast(count == 0, rows.dtype)
    rho_hat = (ops.sum(rows, axis=0) + RHO * nothing) / (count + nothing)
    return BETA * ops.sum(
        RHO * (math.log(RHO) - ops.log(rho_hat))
        + (1.0 - RHO) * (math.log(1.0 - RHO) - ops.log(1.0 - rho_hat))
    )


@keras.saving.register_keras_serializable(package="tests")
def sum_of_divergences_undone(a: Any) -> Any:
    """The same as an activity regularizer: times the rows, by which Keras divides."""
    penalty = sum_of_divergences(a)
    return penalty * ops.cast(ops.shape(a)[0] if KERAS_DIVIDES else 1, penalty.dtype)


@dataclass(frozen=True)
class Subject:
    """An object in its network.

    Args:
        name: As the page calls it.
        encoder: Arguments of the first layer, a `Dense` or what an option puts in its place.
        between: Layers between the first and the last.
        decoder: Arguments of the last layer.
        terms: β, λ and the form, as `reference` takes them; left out is 0.
        loss: `None`: Keras's "mse".
        tied: Whether the last layer has the kernel of the first.
        is_model: Whether the object is the whole model.
        keras_own: The network with Keras's own objects that shows whether a failure is Keras's.
    """

    name: str
    encoder: Callable[[], Mapping[str, Any]] = dict
    between: Callable[..., list[Any]] = lambda **policy: []
    decoder: Callable[[], Mapping[str, Any]] = dict
    terms: Mapping[str, Any] = field(default_factory=dict)
    loss: Callable[..., Any] | None = None
    tied: bool = False
    is_model: bool = False
    keras_own: Subject | None = None

    def layers(self, encoder_class: Any = keras.layers.Dense, **policy: Any) -> list[Any]:
        """New layers from the input to the output."""
        if self.is_model:
            return [
                SparseAutoencoder(
                    HIDDEN,
                    rho=RHO,
                    beta=BETA,
                    weight_decay=WEIGHT_DECAY,
                    epsilon=EPSILON,
                    seed=1,
                    **policy,
                )
            ]
        arguments = {"kernel_initializer": NgUniform(1), "activation": "sigmoid", **self.encoder()}
        encoder = encoder_class(HIDDEN, name="encoder", **arguments, **policy)
        activated = (
            [] if arguments["activation"] else [keras.layers.Activation("sigmoid", **policy)]
        )
        if self.tied:
            decoder = DenseTied(tied_to=encoder, activation="sigmoid", name="decoder", **policy)
        else:
            arguments = {"kernel_initializer": NgUniform(2), **self.decoder()}
            decoder = keras.layers.Dense(
                FEATURES, activation="sigmoid", name="decoder", **arguments, **policy
            )
        return [encoder, *self.between(**policy), *activated, decoder]


def decayed(regularizer: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"kernel_regularizer": regularizer}


@keras.saving.register_keras_serializable(package="tests")
class AddedLoss(keras.layers.Layer):
    """A penalty by `add_loss`, as a user of Keras writes it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is not None:
            for axis in range(len(mask.shape), len(inputs.shape) - 1):
                mask = ops.repeat(ops.expand_dims(mask, axis), inputs.shape[axis], axis)
        self.add_loss(sum_of_divergences(inputs, mask))
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="tests")
class AddedLossWithState(AddedLoss):
    """The same, with a variable that moves in training."""

    def build(self, input_shape: Any) -> None:
        self.state = self.add_weight(trainable=False, initializer="zeros", name="state")

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training:
            self.state.assign(ops.stop_gradient(ops.mean(inputs)))
        return super().call(inputs, mask)


ALL = {"beta": BETA, "weight_decay": WEIGHT_DECAY}
SPARSE = {"beta": BETA, "weight_decay": 0.0}
DECAYED = {"beta": 0.0, "weight_decay": WEIGHT_DECAY}
PLAIN = {"beta": 0.0, "weight_decay": 0.0}


def own_l2() -> Any:
    return keras.regularizers.L2(WEIGHT_DECAY / 2)


KERAS_REGULARIZERS = Subject(
    "Dense with L2 and an activity regularizer",
    encoder=lambda: {
        "kernel_regularizer": own_l2(),
        "activity_regularizer": sum_of_divergences_undone,
    },
    decoder=lambda: {"kernel_regularizer": own_l2()},
    terms=ALL,
)
KERAS_ACTIVITY = Subject(
    "Dense with an activity regularizer",
    encoder=lambda: {"activity_regularizer": sum_of_divergences_undone},
    terms=SPARSE,
)
KERAS_ADD_LOSS = Subject(
    "a layer with add_loss", between=lambda **policy: [AddedLoss(**policy)], terms=SPARSE
)
KERAS_STATE = Subject(
    "a layer with add_loss and a state",
    between=lambda **policy: [AddedLossWithState(**policy)],
    terms=SPARSE,
)
KERAS_DECAY = Subject(
    "Dense with L2",
    encoder=lambda: {"kernel_regularizer": own_l2()},
    decoder=lambda: {"kernel_regularizer": own_l2()},
    terms=DECAYED,
)
KERAS_PLAIN = Subject("Dense and MeanSquaredError", terms=PLAIN)
KERAS_LOSS = Subject(
    "MeanSquaredError", loss=lambda axis=None: keras.losses.MeanSquaredError(), terms=PLAIN
)

SUBJECTS = (
    Subject("SparseAutoencoder", is_model=True, terms=ALL, keras_own=KERAS_REGULARIZERS),
    Subject(
        "KLSparsityRegularizer",
        encoder=lambda: {"activity_regularizer": KLSparsityRegularizer(RHO, BETA)},
        terms=SPARSE,
        keras_own=KERAS_ACTIVITY,
    ),
    Subject(
        "KLSparsity",
        between=lambda **policy: [KLSparsity(RHO, BETA, **policy)],
        terms=SPARSE,
        keras_own=KERAS_ADD_LOSS,
    ),
    Subject(
        "KLSparsity, from_logits",
        encoder=lambda: {"activation": None},
        between=lambda **policy: [KLSparsity(RHO, BETA, from_logits=True, **policy)],
        terms={**SPARSE, "from_logits": True},
        keras_own=KERAS_ADD_LOSS,
    ),
    Subject(
        "KLSparsity, momentum",
        between=lambda **policy: [KLSparsity(RHO, BETA, momentum=0.75, **policy)],
        terms=SPARSE,
        keras_own=KERAS_STATE,
    ),
    Subject(
        "ActivityPenalty",
        between=lambda **policy: [ActivityPenalty(sum_of_divergences, **policy)],
        terms=SPARSE,
        keras_own=KERAS_ADD_LOSS,
    ),
    Subject(
        "WeightDecay",
        encoder=lambda: {"kernel_regularizer": WeightDecay(WEIGHT_DECAY)},
        decoder=lambda: {"kernel_regularizer": WeightDecay(WEIGHT_DECAY)},
        terms=DECAYED,
        keras_own=KERAS_DECAY,
    ),
    Subject("DenseTied", tied=True, terms=PLAIN, keras_own=KERAS_PLAIN),
    Subject("HalfSquaredError", loss=HalfSquaredError, terms=PLAIN, keras_own=KERAS_LOSS),
)


# These can stand in one network: where each is right by itself, one cell may hold them all.
JOINED = (
    "KLSparsityRegularizer",
    "KLSparsity",
    "ActivityPenalty",
    "WeightDecay",
    "DenseTied",
    "HalfSquaredError",
)


def together(subjects: Sequence[Subject]) -> Subject:
    """Several of `JOINED` in one network; its cost is the sum of theirs, and no excuse is known."""

    def encoder() -> Mapping[str, Any]:
        return {key: value for s in subjects for key, value in s.encoder().items()}

    def decoder() -> Mapping[str, Any]:
        return {key: value for s in subjects for key, value in s.decoder().items()}

    return Subject(
        " + ".join(subject.name for subject in subjects),
        encoder=encoder,
        between=lambda **policy: [layer for s in subjects for layer in s.between(**policy)],
        decoder=decoder,
        terms={
            name: sum(subject.terms[name] for subject in subjects)
            for name in ("beta", "weight_decay")
        },
        loss=next((subject.loss for subject in subjects if subject.loss is not None), None),
        tied=any(subject.tied for subject in subjects),
    )
