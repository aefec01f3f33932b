"""Ng's sparse autoencoder as Keras 3 objects, on JAX, TensorFlow and PyTorch.

The same mathematics as `reference`, which it is proved against. Hyperparameters have Ng's names
and Ng's units: `rho`, `beta`, `weight_decay`. Importing this package registers its objects with
Keras, so that saved models load.
"""

from keras_impl.conventions import (
    KerasUnits,
    NgUnits,
    from_keras_units,
    keras_divides_activity_by_batch,
    to_keras_units,
)
from keras_impl.initializers import NgUniform
from keras_impl.layers import KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder
from keras_impl.regularizers import KLSparsityRegularizer, WeightDecay

__all__ = [
    "HalfSquaredError",
    "KLSparsity",
    "KLSparsityRegularizer",
    "KerasUnits",
    "NgUniform",
    "NgUnits",
    "SparseAutoencoder",
    "WeightDecay",
    "from_keras_units",
    "keras_divides_activity_by_batch",
    "to_keras_units",
]
