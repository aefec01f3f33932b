"""`KLSparsityRegularizer` and `WeightDecay`: two terms of Ng's cost as Keras regularizers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch
from keras_impl.divergence import (
    at_least_float32,
    kl_penalty_from_activations,
    kl_penalty_from_logits,
)
from keras_impl.recording import is_captured
from keras_impl.validation import (
    extension_edge,
    flag,
    non_negative,
    sparsity_form,
    sparsity_target,
)


@keras.saving.register_keras_serializable(package="sae_oracle")
class KLSparsityRegularizer(keras.regularizers.Regularizer):
    """The sparsity term βΣⱼKL(ρ‖ρ̂ⱼ) (EQ-SPARSITY) as an activity regularizer.

    ρ̂ⱼ is the mean activation of unit j over the batch (for images and sequences: over every axis
    but the last). As `activity_regularizer=` of a layer it adds exactly Ng's term to the loss,
    on every Keras: from 3.14 on Keras divides the value of an activity regularizer by the batch
    size, and this one multiplies by it first.

    The notes take ρ̂ over the whole training set. A batch is an estimate of it, and KL of a mean
    is not the mean of KLs: see `KLSparsity(momentum=...)` and `full_cost`. Masks do not reach a
    regularizer, so padded steps are counted: use `KLSparsity` on masked sequences.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        rho: ρ, the sparsity parameter, inside (0, 1).
        beta: β ≥ 0, the weight of the term.
        from_logits: Whether the layer's output are logits of sigmoid units (EQ-KL-LOGITS): finite
            and right at any saturation. Put it on a layer without activation.
        epsilon: Outside [ε, 1 − ε] the KL continues along its tangent (EQ-KL-EXTENSION); 0: the
            exact KL, infinite at ρ̂ = 0 and 1. At most min(ρ, 1 − ρ). Unused with `from_logits`.
        symmetric: Whether activations lie in [−1, 1] (tanh): ρ̂ is then the mean of (1 + a)/2.
        batch_scaling: "auto" multiplies by the number of rows exactly if this Keras divides by
            it; True and False say so by hand. For a direct call, or under `add_loss`, which
            Keras never divides, use False.
        cross_replica: Whether ρ̂ is that of the global batch under data parallelism; False: each
            replica's own, which trains another function (see docs/replicas.md).

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> layer = keras.layers.Dense(
    ...     25, activation="sigmoid", activity_regularizer=KLSparsityRegularizer(0.05, 3.0))
    >>> penalty = KLSparsityRegularizer(0.5, 3.0, batch_scaling=False)
    >>> float(penalty(ops.convert_to_tensor([[0.25], [0.75]])))
    0.0
    """

    def __init__(
        self,
        rho: float = 0.05,
        beta: float = 1.0,
        from_logits: bool = False,
        epsilon: float = 1e-6,
        symmetric: bool = False,
        batch_scaling: str | bool = "auto",
        cross_replica: bool = True,
    ) -> None:
        self.rho = sparsity_target(rho)
        self.beta = non_negative("beta", beta)
        self.from_logits, self.symmetric = sparsity_form(from_logits, symmetric)
        self.epsilon = extension_edge(epsilon, self.rho)
        if not isinstance(batch_scaling, bool) and batch_scaling != "auto":
            raise ValueError(
                '`batch_scaling` must be "auto", True or False. '
                f"Received: batch_scaling={batch_scaling!r}"
            )
        self.batch_scaling = batch_scaling
        self.cross_replica = flag("cross_replica", cross_replica)
        self._multiplies = (
            keras_divides_activity_by_batch() if batch_scaling == "auto" else batch_scaling
        )

    def __call__(self, x: Any) -> Any:
        """Return the term for a layer's output.

        Args:
            x: (samples, ..., units), activations or logits.

        Returns:
            A scalar, at least float32: βΣKL, times the number of rows if `batch_scaling` says so.

        Raises:
            ValueError: If `x` has fewer than two axes.
        """
        if len(x.shape) < 2:
            raise ValueError(
                "KLSparsityRegularizer takes the output of a layer, of shape "
                f"(samples, ..., units). Received shape {tuple(x.shape)}."
            )
        if is_captured(self, x):
            return ops.zeros((), dtype="float32")
        rows = ops.shape(x)[0] if self._multiplies else 1
        known = isinstance(rows, int)  # then one multiplication does for both
        penalty = kl_sparsity(
            x,
            self.rho,
            self.beta * rows if known else self.beta,
            from_logits=self.from_logits,
            epsilon=self.epsilon,
            symmetric=self.symmetric,
            cross_replica=self.cross_replica,
        )
        return penalty if known else penalty * ops.cast(rows, penalty.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {
            "rho": self.rho,
            "beta": self.beta,
            "from_logits": self.from_logits,
            "epsilon": self.epsilon,
            "symmetric": self.symmetric,
            "batch_scaling": self.batch_scaling,
            "cross_replica": self.cross_replica,
        }


def kl_sparsity(
    x: Any,
    rho: float,
    beta: float,
    *,
    from_logits: bool,
    epsilon: float,
    symmetric: bool,
    mask: Any = None,
    cross_replica: bool = False,
) -> Any:
    """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ) of a layer's output, a scalar of at least float32."""
    if from_logits:
        return kl_penalty_from_logits(rho, beta, x, mask, cross_replica=cross_replica)
    return kl_penalty_from_activations(
        rho, beta, x, epsilon, mask, symmetric=symmetric, cross_replica=cross_replica
    )


@keras.saving.register_keras_serializable(package="sae_oracle")
class WeightDecay(keras.regularizers.Regularizer):
    """The weight decay term (λ/2)‖W‖² (EQ-DECAY) of one kernel.

    `keras.regularizers.L2(l2)` is l2·ΣW²: the same with l2 = λ/2, except that it keeps its factor
    in float32 whatever the dtype of the weights. This one is exact in float64 too.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8).

    Args:
        weight_decay: λ ≥ 0.

    Raises:
        TypeError, ValueError: If `weight_decay` leaves its range.

    >>> float(WeightDecay(0.5)(ops.convert_to_tensor([[2.0, 1.0]])))
    1.25
    """

    def __init__(self, weight_decay: float = 1e-4) -> None:
        self.weight_decay = non_negative("weight_decay", weight_decay)

    def __call__(self, x: Any) -> Any:
        """Return (λ/2) Σ x², a scalar of at least float32."""
        return self.weight_decay / 2.0 * ops.sum(ops.square(at_least_float32(x)))

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {"weight_decay": self.weight_decay}
