"""Sparsity regularizers: a right one, taken apart, and one changed piece in each wrong one."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

register = keras.saving.register_keras_serializable(package="review_corpus")
EPSILON = 1e-6


def keras_divides() -> bool:
    layer = keras.layers.Activation("linear", activity_regularizer=ops.sum)
    layer(ops.ones((2, 1)))
    return float(ops.convert_to_numpy(layer.losses[0])) < 1.5


KERAS_DIVIDES = keras_divides()


def tangent_kl(rho, r, epsilon=EPSILON):
    inside = ops.clip(r, epsilon, 1.0 - epsilon)
    kl = rho * (math.log(rho) - ops.log(inside)) + (1.0 - rho) * (
        math.log(1.0 - rho) - ops.log(1.0 - inside)
    )
    return kl + ((1.0 - rho) / (1.0 - inside) - rho / inside) * (r - inside)


@register
class Right(keras.regularizers.Regularizer):
    """β ΣKL(ρ‖ρ̂), exactly on [1e-6, 1 - 1e-6] and along the tangent beyond."""

    def __init__(self, rho=0.1, beta=3.0):
        self.rho = rho
        self.beta = beta

    def cast(self, x):
        return ops.cast(x, "float32")

    def mean(self, a):
        return ops.mean(a, axis=0)

    def kl(self, r):
        return tangent_kl(self.rho, r)

    def total(self, kl):
        return self.beta * ops.sum(kl)

    def scaled(self, total, x):
        if KERAS_DIVIDES:
            total = total * ops.cast(ops.shape(x)[0], total.dtype)
        return total

    def __call__(self, x):
        return self.scaled(self.total(self.kl(self.mean(self.cast(x)))), x)

    def get_config(self):
        return {"rho": self.rho, "beta": self.beta}


# --- right, in another form


@register
class OtherEdge(Right):
    """The tangent begins at 1e-3."""

    def kl(self, r):
        return tangent_kl(self.rho, r, 1e-3)


@register
class OtherNames(keras.regularizers.Regularizer):
    """Sparsity penalty."""

    def __init__(self, sparsity_level=0.05, sparsity_weight=2.0):
        self._level = sparsity_level
        self._weight = sparsity_weight

    def __call__(self, activations):
        x = ops.cast(activations, "float32")
        samples = ops.cast(ops.shape(x)[0], "float32")
        r = ops.sum(x, axis=0) / samples
        penalty = self._weight * ops.sum(tangent_kl(self._level, r, 1e-5))
        return penalty * samples if KERAS_DIVIDES else penalty

    def get_config(self):
        return {"sparsity_level": self._level, "sparsity_weight": self._weight}


@register
class Guarded(Right):
    """ε is added to the arguments of the logarithms; for sigmoid activations."""

    def kl(self, r):
        high, low = r + 1e-7, 1.0 - r + 1e-7
        return self.rho * ops.log(self.rho / high) + (1 - self.rho) * ops.log((1 - self.rho) / low)


@register
class GuardedMore(Right):
    """An ε of 1e-5 is added to the arguments of the logarithms; for sigmoid activations."""

    def kl(self, r):
        high, low = r + 1e-5, 1.0 - r + 1e-5
        return self.rho * ops.log(self.rho / high) + (1 - self.rho) * ops.log((1 - self.rho) / low)


@register
class FromLogits(Right):
    """From the logits of sigmoid units: log-mean-exp of log σ."""

    def __call__(self, x):
        z = self.cast(x)
        m = ops.log(ops.cast(ops.shape(z)[0], "float32"))
        ones = ops.logsumexp(ops.log_sigmoid(z), axis=0) - m
        zeros = ops.logsumexp(ops.log_sigmoid(-z), axis=0) - m
        rho = self.rho
        kl = rho * (math.log(rho) - ones) + (1 - rho) * (math.log(1 - rho) - zeros)
        return self.scaled(self.total(kl), x)


@register
class CustomGradient(Right):
    """The value of the exact KL, its gradient written by hand."""

    def kl(self, r):
        inside = ops.stop_gradient(ops.clip(r, EPSILON, 1.0 - EPSILON))
        slope = (1.0 - self.rho) / (1.0 - inside) - self.rho / inside
        value = ops.stop_gradient(tangent_kl(self.rho, r))
        return value + slope * (r - ops.stop_gradient(r))


@register
class DocumentedPerUnit(Right):
    """β is the weight of the mean KL over the hidden units (Ng's β divided by the units)."""

    def total(self, kl):
        return self.beta * ops.mean(kl)


@register
class DocumentedBits(Right):
    """The divergence is measured in bits."""

    def kl(self, r):
        return super().kl(r) / math.log(2.0)


@register
class DocumentedForAddLoss(Right):
    """Call it by hand and give the value to add_loss, which Keras does not divide."""

    def scaled(self, total, x):
        return total


@register
class DocumentedHalf(Right):
    """β/2 times the sum of the divergences: half of the notes' term."""

    def total(self, kl):
        return 0.5 * self.beta * ops.sum(kl)


@register
class ByProduct(Right):
    """The mean over samples, as a product with a vector of ones."""

    def mean(self, a):
        ones = ops.ones_like(a[:, :1])
        return ops.sum(ops.transpose(a) @ ones, axis=1) / ops.sum(ones)


@register
class SymmetricTanh(Right):
    """For tanh units: ρ̂ is the mean of (1 + a)/2."""

    def mean(self, a):
        return (1.0 + ops.mean(a, axis=0)) / 2.0


@keras.saving.register_keras_serializable(package="review_corpus")
def as_function(x, rho=0.05, beta=3.0):
    x = ops.cast(x, "float32")
    penalty = beta * ops.sum(tangent_kl(rho, ops.mean(x, axis=0)))
    return penalty * ops.cast(ops.shape(x)[0], "float32") if KERAS_DIVIDES else penalty


# --- wrong: the formula


@register
class NotMultiplied(Right):
    """The sparsity term."""

    def scaled(self, total, x):
        return total


@register
class DividesItself(Right):
    """The sparsity term."""

    def scaled(self, total, x):
        return total / ops.cast(ops.shape(x)[0], "float32")


@register
class MultipliedTwice(Right):
    """The sparsity term."""

    def scaled(self, total, x):
        rows = ops.cast(ops.shape(x)[0], "float32")
        return super().scaled(total, x) * rows


@register
class SumForMean(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.sum(a, axis=0)


@register
class WrongAxis(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(a, axis=1)


@register
class MeanOfAll(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(a)


@register
class MeanOfKLs(Right):
    """The sparsity term."""

    def __call__(self, x):
        each = ops.mean(ops.sum(self.kl(self.cast(x)), axis=1))
        return self.scaled(self.beta * each, x)


@register
class Reversed(Right):
    """The sparsity term."""

    def kl(self, r):
        inside = ops.clip(r, EPSILON, 1.0 - EPSILON)
        rho = self.rho
        kl = inside * ops.log(inside / rho) + (1 - inside) * ops.log((1 - inside) / (1 - rho))
        slope = ops.log(inside / rho) - ops.log((1 - inside) / (1 - rho))
        return kl + slope * (r - inside)


@register
class OnesHalf(Right):
    """The sparsity term."""

    def kl(self, r):
        inside = ops.maximum(r, EPSILON)
        return self.rho * (math.log(self.rho) - ops.log(inside)) - self.rho / inside * (r - inside)


@register
class ZerosHalf(Right):
    """The sparsity term."""

    def kl(self, r):
        inside = ops.minimum(r, 1.0 - EPSILON)
        rho = self.rho
        kl = (1 - rho) * (math.log(1 - rho) - ops.log(1 - inside))
        return kl + (1 - rho) / (1 - inside) * (r - inside)


@register
class MeanOverUnits(Right):
    """The sparsity term."""

    def total(self, kl):
        return self.beta * ops.mean(kl)


@register
class BaseTwo(Right):
    """The sparsity term."""

    def kl(self, r):
        return super().kl(r) / math.log(2.0)


@register
class BaseTen(Right):
    """The sparsity term."""

    def kl(self, r):
        return super().kl(r) / math.log(10.0)


@register
class BetaIgnored(Right):
    """The sparsity term."""

    def total(self, kl):
        return ops.sum(kl)


@register
class BetaSquared(Right):
    """The sparsity term."""

    def total(self, kl):
        return self.beta**2 * ops.sum(kl)


@register
class BetaTwice(Right):
    """The sparsity term."""

    def __call__(self, x):
        return self.beta * super().__call__(x)


@register
class HalfOfIt(Right):
    """The sparsity term."""

    def total(self, kl):
        return 0.5 * self.beta * ops.sum(kl)


@register
class RhoIgnored(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(0.05, r)


@register
class CrossEntropy(Right):
    """The sparsity term."""

    def kl(self, r):
        rho = self.rho
        return super().kl(r) - rho * math.log(rho) - (1 - rho) * math.log(1 - rho)


@register
class WrongSign(Right):
    """The sparsity term."""

    def total(self, kl):
        return -self.beta * ops.sum(kl)


@register
class SquaredDistance(Right):
    """The sparsity term."""

    def kl(self, r):
        return ops.square(r - self.rho)


@register
class Exchanged(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(1.0 - self.rho, r)


@register
class LogitsAsActivations(Right):
    """The sparsity term of a layer of logits."""


@register
class SecondSigmoid(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(ops.sigmoid(a), axis=0)


@register
class RescaledForNothing(Right):
    """The sparsity term."""

    def mean(self, a):
        return 0.5 + 0.5 * ops.mean(a, axis=0)


@register
class TanhNotRescaled(Right):
    """The sparsity term of tanh units."""


@register
class PerReplica(Right):
    """The sparsity term."""

    def __call__(self, x):
        a = self.cast(x)
        half = (ops.shape(a)[0] + 1) // 2
        both = [self.total(self.kl(self.mean(part))) for part in (a[:half], a[half:])]
        return self.scaled(0.5 * (both[0] + both[1]), x)


@register
class LargeGuard(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(self.rho, r + 0.01)


@register
class LargeClip(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(self.rho, ops.clip(r, 0.05, 0.95))


@register
class AVector(Right):
    """The sparsity term."""

    def total(self, kl):
        return self.beta * kl


@register
class AnotherFormula(Right):
    """The sparsity term."""

    def kl(self, r):
        return ops.square(tangent_kl(self.rho, r)) + 0.1 * r


# --- wrong: the gradient


@register
class Stopped(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.stop_gradient(ops.mean(a, axis=0))


@register
class HalfStopped(Right):
    """The sparsity term."""

    def kl(self, r):
        rho = self.rho
        inside = ops.clip(r, EPSILON, 1.0 - EPSILON)
        ones = rho * (math.log(rho) - ops.log(inside)) - rho / inside * (r - inside)
        return ones + ops.stop_gradient(tangent_kl(rho, r) - ones)


@register
class TwiceTheGradient(Right):
    """The sparsity term."""

    def __call__(self, x):
        value = super().__call__(x)
        return 2.0 * value - ops.stop_gradient(value)


@register
class NumPyInside(Right):
    """The sparsity term."""

    def __call__(self, x):
        a = ops.convert_to_numpy(x)
        r = np.clip(np.mean(a, axis=0), 1e-6, 1.0 - 1e-6)
        kl = self.rho * np.log(self.rho / r) + (1 - self.rho) * np.log((1 - self.rho) / (1 - r))
        return float(self.beta * np.sum(kl)) * (len(a) if KERAS_DIVIDES else 1.0)


# --- wrong: the edges


@register
class NoGuard(Right):
    """The sparsity term."""

    def kl(self, r):
        rho = self.rho
        return rho * ops.log(rho / r) + (1 - rho) * ops.log((1 - rho) / (1 - r))


@register
class Clipped(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(self.rho, ops.clip(r, 1e-7, 1.0 - 1e-7))


@register
class NothingOutside(Right):
    """The sparsity term."""

    def kl(self, r):
        high, low = r + 1e-7, 1.0 - r + 1e-7
        return self.rho * ops.log(self.rho / high) + (1 - self.rho) * ops.log((1 - self.rho) / low)


# --- wrong: precision


@register
class ReturnsHalf(Right):
    """The sparsity term."""

    def __call__(self, x):
        return ops.cast(super().__call__(x), x.dtype)


@register
class ComputesInHalf(Right):
    """The sparsity term."""

    def cast(self, x):
        return x

    def scaled(self, total, x):
        return super().scaled(ops.cast(total, "float32"), x)


@register
class RaisesInHalf(Right):
    """The sparsity term."""

    def cast(self, x):
        if "float16" in keras.backend.standardize_dtype(x.dtype):
            raise TypeError("float32 is expected")
        return super().cast(x)


# --- wrong: backends and state


@register
class Raises(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(a, axes=0)


@register
class TensorFlowOnly(Right):
    """The sparsity term."""

    def mean(self, a):
        import tensorflow as tf

        return tf.reduce_mean(a, axis=0)


@register
class KeepsState(Right):
    """The sparsity term of a running average."""

    def __init__(self, rho=0.1, beta=3.0):
        super().__init__(rho, beta)
        self.average = None

    def mean(self, a):
        now = ops.mean(a, axis=0)
        if self.average is not None and self.average.shape == now.shape:
            now = 0.9 * self.average + 0.1 * now
        self.average = now
        return now


@register
class StaticBatch(Right):
    """The sparsity term."""

    def scaled(self, total, x):
        return total * float(x.shape[0]) if KERAS_DIVIDES else total * float(x.shape[0]) ** 0


# --- wrong: saving


@register
class NameOnlyConfig(Right):
    """The sparsity term."""

    def get_config(self):
        return {"name": self.__class__.__name__}


@register
class NoConfig(keras.regularizers.Regularizer):
    """The sparsity term."""

    def __init__(self, rho=0.1, beta=3.0):
        self.right = Right(rho, beta)

    def __call__(self, x):
        return self.right(x)


@register
class HalfConfig(Right):
    """The sparsity term."""

    def get_config(self):
        return {"rho": self.rho}


class NotRegistered(Right):
    """The sparsity term."""


@register
class OtherKeys(Right):
    """The sparsity term."""

    def get_config(self):
        return {"rho": self.rho, "beta": self.beta, "sparsity": True}


# --- wrong twice


@register
class SumAndHalf(OnesHalf):
    """The sparsity term."""

    def mean(self, a):
        return ops.sum(a, axis=0)


@register
class WrongAxisAndBaseTwo(BaseTwo):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(a, axis=1)


@register
class MeanOverUnitsAndBetaSquared(Right):
    """The sparsity term."""

    def total(self, kl):
        return self.beta**2 * ops.mean(kl)


@register
class ReversedAndNotMultiplied(Reversed):
    """The sparsity term."""

    def scaled(self, total, x):
        return total


@register
class AllAndNoBeta(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.mean(a)

    def total(self, kl):
        return ops.sum(kl)


@register
class BaseTwoAndClipped(Right):
    """The sparsity term."""

    def kl(self, r):
        return tangent_kl(self.rho, ops.clip(r, 1e-7, 1.0 - 1e-7)) / math.log(2.0)


@register
class StoppedAndMeanOfAll(Right):
    """The sparsity term."""

    def mean(self, a):
        return ops.stop_gradient(ops.mean(a))


class OfKeras1:
    """Adds the sparsity term to a loss, as Keras 1 called it."""

    def __init__(self, rho=0.1, beta=3.0):
        self.rho = rho
        self.beta = beta

    def set_layer(self, layer):
        self.layer = layer

    def __call__(self, loss):
        r = ops.mean(ops.cast(self.layer.output, "float32"), axis=0)
        return loss + self.beta * ops.sum(tangent_kl(self.rho, r))
