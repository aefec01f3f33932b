"""`KLSparsityRegularizer` and `WeightDecay`: two terms of Ng's cost as Keras regularizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.keras_internals import (
    is_weight,
    keras_divides_activity_by_batch,
    refuse_time_distributed,
)
from keras_impl.coefficients import Coefficients, HasTerm
from keras_impl.divergence import at_least_float32, beside
from keras_impl.recording import is_captured
from keras_impl.term import ReadOnly, SparsityTerm
from keras_impl.validation import flag, non_negative, tensor


@keras.saving.register_keras_serializable(package="sae_oracle")
class KLSparsityRegularizer(HasTerm, keras.regularizers.Regularizer):
    """The sparsity term βΣⱼKL(ρ‖ρ̂ⱼ) (EQ-SPARSITY) as an activity regularizer.

    ρ̂ⱼ is the mean activation of unit j over the batch (for images and sequences: over every axis
    but the last). As `activity_regularizer=` of a layer it adds exactly Ng's term to the loss,
    on every Keras: from 3.14 on Keras divides the value of an activity regularizer by the batch
    size, and this one multiplies by it first.

    The notes take ρ̂ over the whole training set. A batch is an estimate of it, and KL of a mean
    is not the mean of KLs: see `KLSparsity(momentum=...)` and `full_cost`. Masks do not reach a
    regularizer, so padded steps are counted: use `KLSparsity` on masked sequences.
    `keras.layers.TimeDistributed` never calls the activity regularizer of the layer that it wraps,
    Keras's own ones neither: put a `KLSparsity` behind it, or leave it out.

    Source: CS294A lecture notes "Sparse autoencoder", §3.

    Args:
        rho: ρ, the sparsity parameter, inside (0, 1): a number, or one for each unit.
        beta: β ≥ 0, the weight of the term.
        from_logits: Whether the layer's output are logits of sigmoid units (EQ-KL-LOGITS): finite
            and right at any saturation. Put it on a layer without activation.
        epsilon: Outside [ε, 1 − ε] the KL continues along its tangent (EQ-KL-EXTENSION); 0: the
            exact KL, infinite at ρ̂ = 0 and 1. At most min(ρ, 1 − ρ). `None`: 10⁻⁶, or that
            minimum where it is smaller. Unused with `from_logits`.
        symmetric: Whether activations lie in [−1, 1] (tanh): ρ̂ is then the mean of (1 + a)/2.
        batch_scaling: "auto" multiplies by the number of rows exactly if this Keras divides by
            it; True and False say so by hand. For a direct call, or under `add_loss`, which
            Keras never divides, use False.
        cross_replica: Whether ρ̂ is that of the global batch under data parallelism; False: each
            replica's own, which trains another function (see docs/replicas.md).
        axis: The axis of the units: 1 for images in the order "channels_first". `None`: the last.

    What it was made with cannot be assigned to: a regularizer does not know the layer that could
    keep a variable. `set_hyperparameters(model, beta=...)` and `Anneal` know it.

    Raises:
        TypeError, ValueError: If an argument leaves its range.
        AttributeError: If an argument is assigned to later.

    >>> layer = keras.layers.Dense(
    ...     25, activation="sigmoid", activity_regularizer=KLSparsityRegularizer(0.05, 3.0))
    >>> penalty = KLSparsityRegularizer(0.5, 3.0, batch_scaling=False)
    >>> float(penalty(ops.convert_to_tensor([[0.25], [0.75]])))
    0.0
    """

    term = ReadOnly("_term")
    rho = ReadOnly("_term.rho")
    beta = ReadOnly("_term.beta")
    from_logits = ReadOnly("_term.from_logits")
    epsilon = ReadOnly("_term.epsilon")
    symmetric = ReadOnly("_term.symmetric")
    axis = ReadOnly("_term.axis")
    cross_replica = ReadOnly("_term.cross_replica")
    batch_scaling = ReadOnly("_batch_scaling")

    def __init__(
        self,
        rho: float | Sequence[float] | NDArray[Any] = 0.05,
        beta: float = 1.0,
        from_logits: bool = False,
        epsilon: float | None = None,
        symmetric: bool = False,
        batch_scaling: str | bool = "auto",
        cross_replica: bool = True,
        axis: int | None = None,
    ) -> None:
        self._coefficients = Coefficients()
        self._term = SparsityTerm(
            rho, beta, from_logits, epsilon, symmetric, axis=axis, cross_replica=cross_replica
        )
        if not (isinstance(batch_scaling, str) and batch_scaling == "auto"):
            try:
                batch_scaling = flag("batch_scaling", batch_scaling)
            except TypeError:
                raise ValueError(
                    '`batch_scaling` must be "auto", True or False. '
                    f"Received: batch_scaling={batch_scaling!r}"
                ) from None
        self._batch_scaling = batch_scaling
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
            ValueError: If `x` has fewer than two axes, or not a unit for each number of `rho`, or
                is a weight; or inside of `keras.layers.TimeDistributed`.
        """
        if is_weight(x):
            raise ValueError(
                "KLSparsityRegularizer is for the output of a layer, as its "
                "`activity_regularizer`: a weight has no mean activation. Received a weight of "
                f"shape {tuple(x.shape)}."
            )
        refuse_time_distributed(self)
        x = tensor("x", x)
        x, _ = self._term.units_last(x)
        if is_captured(self, x):
            return ops.zeros((), dtype="float32")
        term = self.term_of_step()
        rows = ops.shape(x)[0] if self._multiplies else 1
        if isinstance(rows, int):  # then one multiplication does for both
            return term.penalty(x, times=rows)
        penalty = term.penalty(x)
        return penalty * ops.cast(rows, penalty.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {**self._term.get_config(), "batch_scaling": self.batch_scaling}


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
        AttributeError: If it is assigned to later.

    >>> float(WeightDecay(0.5)(ops.convert_to_tensor([[2.0, 1.0]])))
    1.25
    """

    weight_decay = ReadOnly("_weight_decay")

    def __init__(self, weight_decay: float = 1e-4) -> None:
        self._coefficients = Coefficients()
        self._weight_decay = non_negative("weight_decay", weight_decay)

    def __call__(self, x: Any) -> Any:
        """Return (λ/2) Σ x², a scalar of at least float32."""
        # In two sums, along the last axis and of what that leaves: the error grows with m + n and
        # not with m n. The product between them keeps XLA from making one of the two.
        squares = ops.square(at_least_float32(tensor("x", x)))
        rows = ops.sum(squares, axis=-1) if len(squares.shape) else squares
        factor = self._coefficients.tensors().get("weight_decay", self._weight_decay)
        return ops.sum(beside(factor, rows) / 2.0 * rows)

    coefficient_names = ("weight_decay",)

    def checked(self, name: str, value: Any) -> float:
        """Return another λ, or raise."""
        return non_negative(name, value)

    def note_caller(self) -> None:
        """Remember the model whose call is under way; Keras asks for λ later, outside of it."""
        self._coefficients.note_caller()

    def change(self, name: str, value: Any, keeper: Any, model: Any = None) -> None:
        """Change λ; see `set_hyperparameters`."""
        self._weight_decay = self.checked(name, value)
        self._coefficients.assign(name, self._weight_decay, keeper, model)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {"weight_decay": self.weight_decay}
