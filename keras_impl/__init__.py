"""Ng's sparse autoencoder as Keras 3 objects, on JAX, TensorFlow and PyTorch.

The same mathematics as `reference`, which it is proved against. Hyperparameters have Ng's names
and Ng's units: `rho`, `beta`, `weight_decay`. Importing this package registers its objects with
Keras, so that saved models load.
"""

from typing import TYPE_CHECKING, Any

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch
from keras_impl.callbacks import Anneal, Watch
from keras_impl.coefficients import set_hyperparameters
from keras_impl.exact.lbfgs import FullCost, fit_lbfgs, full_cost, full_cost_and_gradient
from keras_impl.initializers import NgUniform
from keras_impl.layers import ActivityPenalty, KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder
from keras_impl.regularizers import KLSparsityRegularizer, WeightDecay
from keras_impl.tied import DenseTied
from keras_impl.units import KerasUnits, NgUnits, from_keras_units, to_keras_units

if TYPE_CHECKING:
    from keras_impl.transformer import SparseAutoencoderTransformer
    from sae_oracle import Review, assert_conforms, review, set_parameters, to_parameters

    __version__: str

__all__ = [
    "ActivityPenalty",
    "Anneal",
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
    "SparseAutoencoderTransformer",
    "Watch",
    "WeightDecay",
    "assert_conforms",
    "fit_lbfgs",
    "from_keras_units",
    "full_cost",
    "full_cost_and_gradient",
    "keras_divides_activity_by_batch",
    "review",
    "set_hyperparameters",
    "set_parameters",
    "to_keras_units",
    "to_parameters",
]


def __getattr__(name: str) -> Any:
    """Return what is not loaded before: the version, tools, what needs scikit-learn."""
    if name in ("Review", "assert_conforms", "review", "set_parameters", "to_parameters"):
        import sae_oracle

        return getattr(sae_oracle, name)
    if name == "SparseAutoencoderTransformer":
        from keras_impl.transformer import SparseAutoencoderTransformer

        return SparseAutoencoderTransformer
    if name == "__version__":
        from importlib.metadata import version

        return version("sae-oracle")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
