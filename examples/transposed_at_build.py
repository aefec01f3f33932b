"""The tied layer of the question-and-answer sites: the transpose is made when it is built.

sae-oracle review examples/transposed_at_build.py:DenseTied
"""

from keras import activations, layers, ops


class DenseTied(layers.Layer):
    def __init__(self, units, activation=None, tied_to=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.tied_to = tied_to

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), trainable=False, name="kernel"
        )
        self.kernel.assign(ops.transpose(self.tied_to.kernel))
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.kernel) + self.bias)
