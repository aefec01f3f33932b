"""Losses, weight penalties and whole models."""

from __future__ import annotations

import keras
from keras import ops

from tests.sae_oracle.reviewer.corpus.regularizers import (
    Clipped,
    NoGuard,
    Right,
    WrongAxis,
    register,
)

# --- losses


@register
def half_squared_error(y_true, y_pred):
    return 0.5 * ops.sum(ops.square(y_pred - y_true), axis=-1)


@register
class DocumentedMean(keras.losses.Loss):
    """The squared error without the ½, averaged over the features: λ and β are 2/n of Ng's."""

    def __init__(self, name="documented_mean", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_pred - y_true), axis=-1)


@register
def mean_squared(y_true, y_pred):
    return ops.mean(ops.square(y_pred - y_true), axis=-1)


@register
def half_of_the_mean(y_true, y_pred):
    return 0.5 * ops.mean(ops.square(y_pred - y_true), axis=-1)


@register
def without_half(y_true, y_pred):
    return ops.sum(ops.square(y_pred - y_true), axis=-1)


@register
def summed_over_samples(y_true, y_pred):
    return 0.5 * ops.sum(ops.square(y_pred - y_true))


@register
def norm_not_squared(y_true, y_pred):
    return ops.sqrt(ops.sum(ops.square(y_pred - y_true), axis=-1))


@register
def cross_entropy(y_true, y_pred):
    return -ops.sum(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred), axis=-1)


@register
def three_times(y_true, y_pred):
    return 1.5 * ops.sum(ops.square(y_pred - y_true), axis=-1)


@register
def fourth_power(y_true, y_pred):
    return ops.sum(ops.square(ops.square(y_pred - y_true)), axis=-1)


@register
def loss_without_gradient(y_true, y_pred):
    return 0.5 * ops.sum(ops.square(ops.stop_gradient(y_pred) - y_true), axis=-1)


# --- weight penalties


@register
class Decay(keras.regularizers.Regularizer):
    """λ/2 times the sum of squares."""

    def __init__(self, weight_decay=0.01):
        self.weight_decay = weight_decay

    def __call__(self, w):
        return 0.5 * self.weight_decay * ops.sum(ops.square(w))

    def get_config(self):
        return {"weight_decay": self.weight_decay}


@register
class DecayWithoutHalf(Decay):
    """Weight decay."""

    def __call__(self, w):
        return self.weight_decay * ops.sum(ops.square(w))


@register
class MeanDecay(Decay):
    """Weight decay."""

    def __call__(self, w):
        return 0.5 * self.weight_decay * ops.mean(ops.square(w))


@register
class AbsoluteDecay(Decay):
    """Weight decay."""

    def __call__(self, w):
        return 0.5 * self.weight_decay * ops.sum(ops.abs(w))


@register
class CubicDecay(Decay):
    """Weight decay."""

    def __call__(self, w):
        return 0.5 * self.weight_decay * ops.sum(ops.abs(w) ** 3)


@register
class L2WithHalf(keras.regularizers.Regularizer):
    """L2 penalty."""

    def __init__(self, l2=0.01):
        self.l2 = l2

    def __call__(self, w):
        return 0.5 * self.l2 * ops.sum(ops.square(w))

    def get_config(self):
        return {"l2": self.l2}


# --- models


def autoencoder(
    regularizer,
    decays,
    loss=half_squared_error,
    activation="sigmoid",
    bias_regularizer=None,
):
    """A 6-5-6 autoencoder of dense layers."""
    model = keras.Sequential([keras.Input((6,))])
    for units, l2, penalty, f in (
        (5, decays[0], regularizer, activation),
        (6, decays[1], None, "sigmoid"),
    ):
        model.add(
            keras.layers.Dense(
                units,
                activation=f,
                kernel_regularizer=None if l2 is None else keras.regularizers.L2(l2),
                bias_regularizer=bias_regularizer,
                activity_regularizer=penalty,
            )
        )
    model.compile("sgd", loss=loss)
    return model


def right_model(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(Right(rho, beta), (weight_decay / 2, weight_decay / 2))


def model_with_mse(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(Right(rho, beta), (weight_decay / 2, weight_decay / 2), loss="mse")


def model_with_whole_lambda(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(Right(rho, beta), (weight_decay, weight_decay))


def model_with_decayed_biases(rho=0.1, beta=3.0, weight_decay=0.02):
    half = weight_decay / 2
    return autoencoder(Right(rho, beta), (half, half), bias_regularizer=keras.regularizers.L2(half))


def model_with_one_decay(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(Right(rho, beta), (weight_decay / 2, None))


def model_with_wrong_axis(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(WrongAxis(rho, beta), (weight_decay / 2, weight_decay / 2))


def model_with_penalised_output(rho=0.1, beta=3.0, weight_decay=0.02):
    model = autoencoder(None, (weight_decay / 2, weight_decay / 2))
    model.layers[-1].activity_regularizer = Right(rho, beta)
    return model


def _deep(first, second):
    sizes = {5: first, 3: second, 4: None, 6: None}
    layers = [
        keras.layers.Dense(n, "sigmoid", activity_regularizer=penalty)
        for n, penalty in sizes.items()
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", loss=half_squared_error)
    return model


def model_with_two_penalties():
    return _deep(Right(0.1, 3.0), Right(0.3, 0.5))


def model_with_two_penalties_and_one_wrong():
    return _deep(Right(0.1, 3.0), WrongAxis(0.3, 0.5))


def model_without_sparsity(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(None, (weight_decay / 2, weight_decay / 2))


def relu_model(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(NoGuard(rho, beta), (weight_decay / 2, weight_decay / 2), activation="relu")


def model_with_clip_and_mse(rho=0.1, beta=3.0, weight_decay=0.02):
    return autoencoder(Clipped(rho, beta), (weight_decay, weight_decay), loss="mse")


@register
class TiedModel(keras.Model):
    """A tied autoencoder; each learned number counts once in the weight decay."""

    times = 0.5

    def __init__(self, rho=0.1, beta=3.0, weight_decay=0.02, **kwargs):
        super().__init__(**kwargs)
        self.rho = rho
        self.beta = beta
        self.weight_decay = weight_decay
        self.compile("sgd", loss=half_squared_error)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(6, 5),
            regularizer=keras.regularizers.L2(self.times * self.weight_decay),
            name="kernel",
        )
        self.first = self.add_weight(shape=(5,), name="first")
        self.second = self.add_weight(shape=(6,), name="second")
        self.penalty = Right(self.rho, self.beta)

    def call(self, x):
        a = ops.sigmoid(ops.matmul(x, self.kernel) + self.first)
        r = ops.mean(a, axis=0)
        self.add_loss(self.beta * ops.sum(self.penalty.kl(r)))
        return ops.sigmoid(ops.matmul(a, ops.transpose(self.kernel)) + self.second)

    def get_config(self):
        return {"rho": self.rho, "beta": self.beta, "weight_decay": self.weight_decay}


@register
class TiedModelUndocumented(TiedModel):
    """A tied autoencoder."""


@register
class TiedModelTwice(TiedModel):
    """A tied autoencoder."""

    times = 1.0


@register
class OwnLoss(keras.Model):
    """An autoencoder that adds the three terms up itself."""

    features_mean, axis, factor = False, 0, 0.5

    def __init__(self, rho=0.1, beta=3.0, weight_decay=0.01, **kwargs):
        super().__init__(**kwargs)
        self.rho = rho
        self.beta = beta
        self.weight_decay = weight_decay
        self.encoder = keras.layers.Dense(5, activation="sigmoid")
        self.decoder = keras.layers.Dense(6, activation="sigmoid")

    def call(self, x):
        return self.decoder(self.encoder(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        squares = ops.square(y_pred - x)
        reconstruction = (
            ops.mean(squares) if self.features_mean else 0.5 * ops.mean(ops.sum(squares, axis=-1))
        )
        kernels = (self.encoder.kernel, self.decoder.kernel)
        decay = self.factor * self.weight_decay * sum(ops.sum(ops.square(w)) for w in kernels)
        r = ops.mean(self.encoder(x), axis=self.axis)
        return reconstruction + decay + self.beta * ops.sum(Right(self.rho).kl(r))

    def get_config(self):
        return {"rho": self.rho, "beta": self.beta, "weight_decay": self.weight_decay}


@register
class OwnLossWrong(OwnLoss):
    """An autoencoder that adds the three terms up itself."""

    features_mean, axis, factor = True, 1, 1.0
