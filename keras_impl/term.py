"""`SparsityTerm`: what β Σⱼ KL(ρ‖ρ̂ⱼ) is, in one value that checks itself and never changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

import keras
from keras import ops

from keras_impl.backends import custom_gradients
from keras_impl.backends.replicas import replica_count
from keras_impl.divergence import at_least_float32, beside, kl_divergence_and_slope
from keras_impl.means import (
    kl_divergence_from_logits,
    mean_activation,
    mean_and_count,
    valid_positions,
)
from keras_impl.validation import (
    cut,
    extension_edge,
    flag,
    integer,
    sparsity_form,
    sparsity_targets,
    weight_of_term,
)


@dataclass(frozen=True)
class SparsityTerm:
    """The sparsity term of one layer's output (EQ-SPARSITY), with all of its hyperparameters.

    Args:
        rho: ρ, the sparsity parameter, inside (0, 1): a number, or one for each unit.
        beta: β ≥ 0, the weight of the term.
        from_logits: Whether the output are logits of sigmoid units (EQ-KL-LOGITS).
        epsilon: Outside [ε, 1 − ε] the KL continues along its tangent (EQ-KL-EXTENSION); 0: the
            exact KL. At most min(ρ, 1 − ρ). `None`: 10⁻⁶, or that minimum where it is smaller.
        symmetric: Whether activations lie in [−1, 1] (tanh): ρ̂ is then the mean of (1 + a)/2.
        axis: The axis of the units. `None`: the last, except of images where Keras's data format
            is "channels_first": there it must be said.
        cross_replica: Whether ρ̂ is that of the global batch under data parallelism.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> term = SparsityTerm(rho=0.5, beta=3.0)
    >>> float(term.penalty(ops.convert_to_tensor([[0.25], [0.75]])))
    0.0
    >>> penalty = SparsityTerm([0.25, 0.75]).penalty(ops.convert_to_tensor([[0.25, 0.75]]))
    >>> abs(float(penalty)) < 1e-6
    True
    """

    rho: Any = 0.05  # a float, or a tuple of one for each unit, once it is checked
    beta: float = 1.0
    from_logits: bool = False
    epsilon: Any = None  # a float once it is checked
    symmetric: bool = False
    axis: int | None = None
    cross_replica: bool = True

    def __post_init__(self) -> None:
        rho = sparsity_targets(self.rho)
        from_logits, symmetric = sparsity_form(self.from_logits, self.symmetric)
        checked = {
            "rho": rho,
            "beta": weight_of_term(self.beta),
            "from_logits": from_logits,
            "epsilon": extension_edge(self.epsilon, rho),
            "symmetric": symmetric,
            "axis": None if self.axis is None else integer("axis", self.axis),
            "cross_replica": flag("cross_replica", self.cross_replica),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def penalty(self, x: Any, mask: Any = None, times: float = 1.0) -> Any:
        """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ) of a layer's output, a scalar of at least float32.

        Args:
            x: Activations or logits, (samples, ..., units), as `units_last` returns it.
            mask: Valid positions (see `means.valid_positions`). Where none is left the term is 0.
            times: A factor of β.

        Raises:
            ValueError: If the mask does not fit.
        """
        x = at_least_float32(x)
        if self.is_off:  # not `beta`: a replica without rows adds its sums to the others'
            if mask is not None:
                valid_positions(mask, x)  # refuses one that does not fit
            return nothing_of(x)
        beta = self._factor(x, times)
        plain = mask is None and 0 not in x.shape and not self._adds_over_replicas()
        in_one_piece = plain and custom_gradients.has_penalties_in_one_piece()
        if self.from_logits:
            if not isinstance(self.beta, float):  # β = 0 leaves nothing, also of infinite logits
                x = ops.where(beta > 0.0, x, ops.zeros_like(x))
            if in_one_piece:
                return custom_gradients.kl_penalty_from_logits(x, self.rho, beta)
            divergence = kl_divergence_from_logits(
                self.rho, x, mask, cross_replica=self.cross_replica
            )
            return beta * ops.sum(divergence)
        in_one_piece = in_one_piece and not self.symmetric
        if in_one_piece and custom_gradients.has_cross_entropy(x, self.epsilon):
            return custom_gradients.kl_penalty(x, self.rho, beta, self.epsilon)
        return self.penalty_of_mean(self.mean_activation(x, mask), times)

    def penalty_of_mean(self, rho_hat: Any, times: float = 1.0) -> Any:
        """EQ-SPARSITY: β Σⱼ KL(ρ‖ρ̂ⱼ) of mean activations, a scalar; `epsilon` counts.

        Args:
            rho_hat: (units,), float32 or float64.
            times: A factor of β.
        """
        if self.is_off:
            return nothing_of(rho_hat)
        beta = self._factor(rho_hat, times)
        if not isinstance(self.beta, float):
            rho = beside(self.rho, rho_hat) * ops.ones_like(rho_hat)
            rho_hat = ops.where(beta > 0.0, rho_hat, rho)
        divergence, slope = kl_divergence_and_slope(self.rho, rho_hat, self.epsilon)
        return custom_gradients.with_slope(beta * ops.sum(divergence), rho_hat, beta * slope)

    def mean_activation(self, x: Any, mask: Any = None) -> Any:
        """EQ-RHO-HAT: ρ̂ of a layer's output, (units,), at least float32.

        Args:
            x: As for `penalty`; of logits, the mean of their sigmoids.
            mask: As for `penalty`. Where no position is left ρ̂ is ρ.
        """
        return mean_activation(
            ops.sigmoid(x) if self.from_logits else x,
            mask,
            symmetric=self.symmetric,
            otherwise=self.rho,
            cross_replica=self.cross_replica,
        )

    def mean_that_moves_state(self, x: Any, mask: Any = None) -> tuple[Any, Any]:
        """Return ρ̂ of activations for a running average, and over how many positions it is.

        Args:
            x: As for `penalty`.
            mask: As for `penalty`. Where no position is left the mean has no meaning.
        """
        return mean_and_count(
            x,
            mask,
            symmetric=self.symmetric,
            cross_replica=self.cross_replica,
            moves_state=True,
        )

    def units_last(self, x: Any, mask: Any = None) -> tuple[Any, Any]:
        """Return a layer's output as (samples, ..., units), and its mask in the same order.

        Args:
            x: A layer's output, its units on `axis`.
            mask: Its mask, or `None`. One with the axes of `x` has them in the order of `x`.

        Raises:
            ValueError: If `x` has no axis of samples beside that of the units; or is an image,
                Keras's data format is "channels_first", and `axis` is not given; or if ρ is by
                unit, and there is not one for each.
        """
        axis, rank = self.unit_axis(tuple(x.shape)), len(x.shape)
        if axis == rank - 1:
            return x, mask
        if mask is not None and len(mask.shape) == rank:
            mask = ops.moveaxis(mask, axis, -1)
        return ops.moveaxis(x, axis, -1), mask

    def unit_axis(self, shape: tuple[int | None, ...]) -> int:
        """Return the axis of the units, counted from the front.

        Raises:
            ValueError: As `units_last`.
        """
        axis = unit_axis(self.axis, shape)
        if isinstance(self.rho, tuple) and shape[axis] != len(self.rho):
            raise ValueError(
                f"`rho` has {len(self.rho)} numbers, one for each unit, and the input has "
                f"{shape[axis]} units. Received: rho={cut(self.rho)}, shape {shape}"
            )
        return axis

    def choose(self, *, logits: Any, activations: Any) -> Any:
        """Return which of the two the term is computed from."""
        return logits if self.from_logits else activations

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        rho = list(self.rho) if isinstance(self.rho, tuple) else self.rho
        return {**asdict(self), "rho": rho}

    def with_tensors(self, tensors: Mapping[str, Any]) -> SparsityTerm:
        """Return the term with coefficients that compiled steps read, and do not hold.

        Args:
            tensors: ρ, β or both, by name.
        """
        term = copy.copy(self)
        for name, value in tensors.items():
            object.__setattr__(term, name, value)
        return term

    @property
    def is_off(self) -> bool:
        """Whether β is 0 and no tensor, so that the term needs not be computed."""
        return isinstance(self.beta, float) and self.beta == 0.0

    def _factor(self, x: Any, times: float) -> Any:
        return beside(self.beta, x) * times

    def _adds_over_replicas(self) -> bool:
        return self.cross_replica and replica_count() > 1


def nothing_of(x: Any) -> Any:
    """Return a scalar 0 whose gradient by `x` is 0, also where x is infinite.

    What β = 0 leaves of the term; 0 · KL would be NaN where the divergence is infinite.

    >>> float(nothing_of(ops.convert_to_tensor([float("inf")])))
    0.0
    """
    return ops.sum(ops.where(ops.zeros_like(x, dtype="bool"), x, ops.zeros_like(x)))


def unit_axis(axis: int | None, shape: tuple[int | None, ...]) -> int:
    """Return the axis of the units, counted from the front.

    Raises:
        ValueError: As `SparsityTerm.units_last`.

    >>> unit_axis(None, (None, 5, 3)), unit_axis(-2, (None, 5, 3))
    (2, 1)
    """
    rank = len(shape)
    if rank < 2:
        raise ValueError(
            "A sparsity penalty takes the output of a layer, of shape (samples, ..., units). "
            f"Received shape {shape}."
        )
    if axis is None:
        if rank > 3 and keras.config.image_data_format() == "channels_first":
            raise ValueError(
                'Keras\'s data format is "channels_first": say where the units of an image are, '
                f"`axis=1` or `axis=-1`. Received: axis=None, shape {shape}"
            )
        axis = -1
    counted = axis + rank if axis < 0 else axis
    if not 1 <= counted < rank:
        raise ValueError(
            "`axis` must be an axis of the input other than the first, which counts samples. "
            f"Received: axis={axis}, shape {shape}"
        )
    return counted


class Hyperparameter:
    """What an owner keeps elsewhere, and lets be read.

    Args:
        path: Where the owner keeps it, such as "term.rho".
    """

    def __init__(self, path: str) -> None:
        self.read = attrgetter(path)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else self.read(owner)


class ReadOnly(Hyperparameter):
    """A hyperparameter to which assigning is an error that says what to do.

    Compiled steps hold the numbers that they were compiled with: after an assignment they would
    go on with the old one on JAX and TensorFlow, and with the new one elsewhere.
    """

    def _advice(self, kind: str) -> str:
        if self.name in ("rho", "beta", "weight_decay"):
            return f"Use set_hyperparameters(model, {self.name}=...), or Anneal in `fit`."
        return f"Make a new {kind}, and a new model with it."

    def __set__(self, owner: Any, value: Any) -> None:
        kind = type(owner).__name__
        raise AttributeError(
            f"`{self.name}` of {kind} cannot be changed: steps that are compiled already would "
            f"keep the old one. {self._advice(kind)} Received: {self.name}={value!r}"
        )
