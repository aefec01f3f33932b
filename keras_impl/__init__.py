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
from keras_impl.layers import ActivityPenalty, KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder
from keras_impl.regularizers import KLSparsityRegularizer, WeightDecay
from keras_impl.reviewer import Review, assert_conforms, review
from keras_impl.tied import DenseTied
from keras_impl.training import FullCost, fit_lbfgs, full_cost, full_cost_and_gradient

__all__ = [
    "ActivityPenalty",
    "DenseTied",
    "FullCost",
    "HalfSquaredError",
    "KLSparsity",
    "KLSparsityRegularizer",
    "KerasUnits",
    "NgUniform",
    "NgUnits",
    "Review",
    "SparseAutoencoder",
    "WeightDecay",
    "assert_conforms",
    "fit_lbfgs",
    "from_keras_units",
    "full_cost",
    "full_cost_and_gradient",
    "keras_divides_activity_by_batch",
    "review",
    "to_keras_units",
]
