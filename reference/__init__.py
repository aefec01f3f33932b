"""The oracle: Ng's sparse autoencoder in NumPy float64, written as in the notes.

Every function that computes an equation begins its docstring with the equation's label (such as
EQ-KL) and says its source; `equations()` lists them. Source of the mathematics: Andrew Ng, CS294A
lecture notes, "Sparse autoencoder".

Conventions: a row is a sample and a column a unit; a kernel is (inputs, units), the transpose of
the notes' W; squares are summed over features, halved, and averaged over samples; weight decay is
(λ/2)ΣW², biases excluded; the sparsity term is βΣKL, a sum over units, natural logarithm.
"""

from typing import TYPE_CHECKING

from reference.activations import ACTIVATIONS, linear, log_sigmoid, relu, sigmoid, tanh
from reference.bounds import (
    BoundedCost,
    BoundedParameters,
    BoundedStep,
    cost_and_gradient_with_bounds,
    gradient_descent_with_bounds,
    kl_sparsity_with_bounds,
    l1_l2_with_bounds,
    orthogonal_with_bounds,
    reconstruction_with_bounds,
)
from reference.cost import (
    Cost,
    reconstruction_cost,
    sparse_autoencoder_cost,
    sparsity_cost,
    sparsity_cost_from_logits,
    weight_decay_cost,
)
from reference.divergence import (
    extended_kl_divergence,
    extended_kl_divergence_derivative,
    kl_divergence,
    kl_divergence_derivative,
    kl_divergence_from_logits,
    kl_divergence_from_logits_derivative,
)
from reference.equations import Equation, equations
from reference.estimators import mean_activation, mean_activation_of_chunks, running_average
from reference.gradient import (
    Gradients,
    backpropagate,
    numerical_gradient,
    sparse_autoencoder_gradient,
)
from reference.network import (
    ForwardPass,
    Parameters,
    forward,
    initialise,
    maximally_exciting_inputs,
    pack,
    unpack,
)
from reference.regularizers import (
    kl_sparsity,
    kl_sparsity_gradient,
    l1,
    l1_gradient,
    l1_l2,
    l1_l2_gradient,
    l2,
    l2_gradient,
    orthogonal,
    orthogonal_gradient,
)
from reference.rounding import PRECISIONS, Bounded, Precision, Usage, resolution, usage

__all__ = [
    "ACTIVATIONS",
    "PRECISIONS",
    "Bounded",
    "BoundedCost",
    "BoundedParameters",
    "BoundedStep",
    "Cost",
    "Equation",
    "ForwardPass",
    "Gradients",
    "Parameters",
    "Precision",
    "Usage",
    "backpropagate",
    "cost_and_gradient_with_bounds",
    "equations",
    "extended_kl_divergence",
    "extended_kl_divergence_derivative",
    "forward",
    "gradient_descent_with_bounds",
    "initialise",
    "kl_divergence",
    "kl_divergence_derivative",
    "kl_divergence_from_logits",
    "kl_divergence_from_logits_derivative",
    "kl_sparsity",
    "kl_sparsity_gradient",
    "kl_sparsity_with_bounds",
    "l1",
    "l1_gradient",
    "l1_l2",
    "l1_l2_gradient",
    "l1_l2_with_bounds",
    "l2",
    "l2_gradient",
    "linear",
    "log_sigmoid",
    "maximally_exciting_inputs",
    "mean_activation",
    "mean_activation_of_chunks",
    "numerical_gradient",
    "orthogonal",
    "orthogonal_gradient",
    "orthogonal_with_bounds",
    "pack",
    "reconstruction_cost",
    "reconstruction_with_bounds",
    "relu",
    "resolution",
    "running_average",
    "sigmoid",
    "sparse_autoencoder_cost",
    "sparse_autoencoder_gradient",
    "sparsity_cost",
    "sparsity_cost_from_logits",
    "tanh",
    "unpack",
    "usage",
    "weight_decay_cost",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Return the version of the distribution, which takes longer to find than the import."""
        if name == "__version__":
            from importlib.metadata import version

            return version("sae-oracle")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
