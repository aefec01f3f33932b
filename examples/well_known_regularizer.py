"""The KL regularizer of the question-and-answer sites, as it was asked about and accepted.

sae-oracle review examples/well_known_regularizer.py:SparsityRegularizer --activation relu
"""

import keras
import tensorflow as tf
from keras import backend as K  # noqa: N812
from keras import regularizers


class SparsityRegularizer(regularizers.Regularizer):
    def __init__(self, p=0.1, sparsityBeta=3):  # noqa: N803
        self.p = p
        self.sparsityBeta = sparsityBeta

    def __call__(self, x):
        p_hat = K.mean(x, axis=0)
        kl = (
            self.p * tf.log(self.p)
            - self.p * tf.log(p_hat)
            + (1 - self.p) * tf.log(1 - self.p)
            - (1 - self.p) * tf.log(1 - p_hat)
        )
        return self.sparsityBeta * K.sum(kl)

    def get_config(self):
        return {"name": self.__class__.__name__}


def autoencoder():
    model = keras.Sequential(
        [
            keras.Input((576,)),
            keras.layers.Dense(
                250, activation="relu", activity_regularizer=SparsityRegularizer(0.1, 6)
            ),
            keras.layers.Dense(576, activation="relu"),
        ]
    )
    model.compile(optimizer="adam", loss="mse")
    return model
