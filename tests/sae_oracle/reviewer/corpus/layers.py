"""Layers that add a sparsity penalty, and layers tied to another."""

from __future__ import annotations

import math

import keras
from keras import ops

from tests.sae_oracle.reviewer.corpus.regularizers import Right, register, tangent_kl


@register
class RightLayer(keras.layers.Layer):
    """Passes its input through and adds β ΣKL over the valid positions."""

    def __init__(self, rho=0.1, beta=3.0, **kwargs):
        super().__init__(**kwargs)
        self.rho = rho
        self.beta = beta
        self.supports_masking = True

    def mean(self, a, mask):
        axes = tuple(range(len(a.shape) - 1))
        if mask is None:
            return ops.mean(a, axis=axes)
        valid = ops.expand_dims(ops.cast(mask, a.dtype), -1)
        return ops.sum(a * valid, axis=axes) / ops.maximum(ops.sum(valid), 1.0)

    def scaled(self, total, a):
        return total

    def call(self, inputs, mask=None):
        a = ops.cast(inputs, "float32")
        total = self.beta * ops.sum(tangent_kl(self.rho, self.mean(a, mask)))
        self.add_loss(self.scaled(total, a))
        return inputs

    def get_config(self):
        return {**super().get_config(), "rho": self.rho, "beta": self.beta}


@register
class SigmoidOfItsOwn(keras.layers.Layer):
    """Sigmoid units whose kernel and activation are written out."""

    def __init__(self, units=3, rho=0.1, beta=3.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rho, self.beta = units, rho, beta

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units))
        self.b = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, inputs):
        a = ops.sigmoid(ops.matmul(ops.cast(inputs, "float32"), self.w) + self.b)
        self.add_loss(self.beta * ops.sum(tangent_kl(self.rho, ops.mean(a, axis=0))))
        return a

    def get_config(self):
        config = {"units": self.units, "rho": self.rho, "beta": self.beta}
        return {**super().get_config(), **config}


@register
class RunningAverage(keras.layers.Layer):
    """A running average of rho_hat, from zero."""

    def __init__(self, rho=0.1, beta=3.0, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        self.rho = rho
        self.beta = beta
        self.momentum = momentum

    def build(self, input_shape):
        self.average = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", trainable=False, dtype="float32"
        )

    def call(self, inputs, training=False):
        a = ops.cast(inputs, "float32")
        now = ops.mean(a, axis=tuple(range(len(a.shape) - 1)))
        new = self.momentum * ops.convert_to_tensor(self.average) + (1.0 - self.momentum) * now
        if training:
            self.average.assign(ops.stop_gradient(new))
        self.add_loss(self.beta * ops.sum(tangent_kl(self.rho, new)))
        return inputs

    def get_config(self):
        config = {"rho": self.rho, "beta": self.beta, "momentum": self.momentum}
        return {**super().get_config(), **config}


@register
class SparseDense(keras.layers.Dense):
    """A dense layer that penalises its own activations."""

    def __init__(self, units, rho=0.1, beta=3.0, activation="sigmoid", **kwargs):
        super().__init__(units, activation=activation, **kwargs)
        self.rho = rho
        self.beta = beta

    def call(self, inputs):
        a = super().call(inputs)
        r = ops.mean(ops.cast(a, "float32"), axis=0)
        self.add_loss(self.beta * ops.sum(tangent_kl(self.rho, r)))
        return a

    def get_config(self):
        return {**super().get_config(), "rho": self.rho, "beta": self.beta}


def right_regularizer_on_a_layer():
    return keras.layers.Dense(
        3, activation="sigmoid", activity_regularizer=Right(rho=0.05, beta=3.0)
    )


@register
class MultipliedLayer(RightLayer):
    """Adds the sparsity term."""

    def scaled(self, total, a):
        return total * ops.cast(ops.shape(a)[0], "float32")


@register
class DividedLayer(RightLayer):
    """Adds the sparsity term."""

    def scaled(self, total, a):
        return total / ops.cast(ops.shape(a)[0], "float32")


@register
class MasksCounted(RightLayer):
    """Adds the sparsity term."""

    def mean(self, a, mask):
        return super().mean(a, None)


@register
class LayerWithWrongAxis(RightLayer):
    """Adds the sparsity term."""

    def mean(self, a, mask):
        return ops.mean(a, axis=-1)


@register
class LayerWithoutGradient(RightLayer):
    """Adds the sparsity term."""

    def mean(self, a, mask):
        return ops.stop_gradient(super().mean(a, mask))


@register
class SparseDenseOverUnits(SparseDense):
    """A dense layer that penalises its own activations."""

    def call(self, inputs):
        a = keras.layers.Dense.call(self, inputs)
        r = ops.mean(ops.cast(a, "float32"), axis=1)
        self.add_loss(self.beta * ops.sum(tangent_kl(self.rho, r)))
        return a


@register
class ReluSparseDense(keras.layers.Dense):
    """A dense layer that penalises its own activations."""

    def __init__(self, units, rho=0.1, beta=3.0, **kwargs):
        kwargs.setdefault("activation", "relu")
        super().__init__(units, **kwargs)
        self.rho = rho
        self.beta = beta

    def call(self, inputs):
        a = super().call(inputs)
        r = ops.mean(ops.cast(a, "float32"), axis=0)
        rho = self.rho
        kl = rho * (math.log(rho) - ops.log(r + 1e-7)) + (1 - rho) * (
            math.log(1 - rho) - ops.log(1 - r + 1e-7)
        )
        self.add_loss(self.beta * ops.sum(kl))
        return a

    def get_config(self):
        return {**super().get_config(), "rho": self.rho, "beta": self.beta}


# --- tied layers


@register
class TransposedInCall(keras.layers.Layer):
    """A dense layer that uses another layer's kernel, transposed; saved with it."""

    def __init__(self, units, tied_to=None, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.tied_to = tied_to
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def kernel_of(self):
        return ops.transpose(self.tied_to.kernel)

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.kernel_of()) + self.bias)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "tied_to": keras.saving.serialize_keras_object(self.tied_to),
            "activation": keras.activations.serialize(self.activation),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["tied_to"] = keras.saving.deserialize_keras_object(config["tied_to"])
        return cls(**config)


@register
class OwnKernel(TransposedInCall):
    """A dense layer tied to another."""

    def build(self, input_shape):
        super().build(input_shape)
        self.own = self.add_weight(shape=(input_shape[-1], self.units), name="own")
        self.own.assign(ops.transpose(self.tied_to.kernel))

    def kernel_of(self):
        return self.own


@register
class TransposedConstant(TransposedInCall):
    """A dense layer tied to another."""

    def build(self, input_shape):
        super().build(input_shape)
        self.transposed = ops.convert_to_numpy(ops.transpose(self.tied_to.kernel)).copy()

    def kernel_of(self):
        return ops.convert_to_tensor(self.transposed)


@register
class StoppedTie(TransposedInCall):
    """A dense layer tied to another."""

    def kernel_of(self):
        return ops.stop_gradient(super().kernel_of())


@register
class NotTransposed(TransposedInCall):
    """A dense layer tied to another."""

    def kernel_of(self):
        return -super().kernel_of()


@register
class DecayedTwice(TransposedInCall):
    """A dense layer tied to another."""

    def call(self, inputs):
        if self.tied_to.kernel_regularizer is not None:
            self.add_loss(self.tied_to.kernel_regularizer(self.tied_to.kernel))
        return super().call(inputs)


@register
class IgnoresItsRegularizer(TransposedInCall):
    """A dense layer tied to another."""

    def __init__(self, units, tied_to=None, activation=None, kernel_regularizer=None, **kwargs):
        super().__init__(units, tied_to, activation, **kwargs)
        self.kernel_regularizer = kernel_regularizer

    def get_config(self):
        return {**super().get_config(), "kernel_regularizer": None}


@register
class HiddenReference(keras.layers.Layer):
    """A dense layer tied to another that it does not own."""

    def __init__(self, units, tied_to=None, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        object.__setattr__(self, "encoder_of", lambda: tied_to)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs):
        kernel = ops.transpose(self.encoder_of().kernel)
        return self.activation(ops.matmul(inputs, kernel) + self.bias)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
        }


@register
class SparseConvolution(keras.layers.Conv2D):
    """Adds β ΣKL over the channels: their means run over samples and positions."""

    def __init__(self, filters, rho=0.1, beta=3.0, **kwargs):
        given = {"kernel_size": 3, "activation": "sigmoid", **kwargs}
        super().__init__(filters, **given)
        self.rho = rho
        self.beta = beta

    def mean(self, a):
        return ops.mean(a, axis=(0, 1, 2))

    def call(self, inputs):
        a = super().call(inputs)
        self.add_loss(self.beta * ops.sum(tangent_kl(self.rho, self.mean(a))))
        return a

    def get_config(self):
        return {**super().get_config(), "rho": self.rho, "beta": self.beta}


@register
class SparseConvolutionOverChannels(SparseConvolution):
    """The mean runs over the channels."""

    def mean(self, a):
        return ops.mean(a, axis=-1)
