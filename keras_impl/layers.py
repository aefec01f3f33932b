"""`KLSparsity`: the sparsity term on the output of any layer, as a layer that passes it through."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_impl.divergence import kl_divergence, mean_activation
from keras_impl.regularizers import kl_sparsity
from keras_impl.validation import (
    extension_edge,
    non_negative,
    number_between,
    sparsity_form,
    sparsity_target,
)


@keras.saving.register_keras_serializable(package="sae_oracle")
class KLSparsity(keras.layers.Layer):
    """Passes its input through and adds βΣⱼKL(ρ‖ρ̂ⱼ) (EQ-SPARSITY) to the loss.

    ρ̂ⱼ is the mean of unit j over every axis but the last, over the valid positions where the
    input carries a mask. What `add_loss` adds Keras divides by nothing: the term is Ng's on every
    Keras.

    With `momentum` μ, ρ̂ is a running average over batches (EQ-RHO-HAT-RUNNING): in training
    ρ̂ ← μρ̂ + (1 − μ)·(mean of the batch), the first batch sets ρ̂, and the term is βΣKL(ρ‖ρ̂) of the
    new ρ̂. Its gradient is KL′(ρ‖ρ̂) times the gradient of the batch mean, without the factor
    1 − μ: a batch also moves the averages to come, by (1 − μ)(1 + μ + μ² + …) = 1 in all, and so
    β keeps its meaning. In inference ρ̂ stays as it is, and the term is that of the stored ρ̂
    (0 before any training batch).

    Source: CS294A lecture notes "Sparse autoencoder", §3; for the running average G. Hinton, "A
    Practical Guide to Training Restricted Boltzmann Machines", §11.

    Args:
        rho: ρ, the sparsity parameter, inside (0, 1).
        beta: β ≥ 0, the weight of the term.
        from_logits: Whether the input are logits of sigmoid units (EQ-KL-LOGITS). Put the layer
            before the activation.
        momentum: μ in [0, 1), or `None`: ρ̂ of the batch alone. Not with `from_logits`.
        epsilon: Outside [ε, 1 − ε] the KL continues along its tangent (EQ-KL-EXTENSION); 0: the
            exact KL. At most min(ρ, 1 − ρ).
        symmetric: Whether activations lie in [−1, 1] (tanh): ρ̂ is then the mean of (1 + a)/2.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> layer = KLSparsity(rho=0.5, beta=3.0)
    >>> activations = layer(ops.convert_to_tensor([[0.25], [0.75]]))
    >>> float(layer.losses[0])
    0.0
    """

    def __init__(
        self,
        rho: float = 0.05,
        beta: float = 1.0,
        from_logits: bool = False,
        momentum: float | None = None,
        epsilon: float = 1e-6,
        symmetric: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rho = sparsity_target(rho)
        self.beta = non_negative("beta", beta)
        self.from_logits, self.symmetric = sparsity_form(from_logits, symmetric)
        self.epsilon = extension_edge(epsilon, self.rho)
        if momentum is not None:
            momentum = number_between(
                "momentum", momentum, 0.0, 1.0, low_open=False, high_open=True
            )
            if self.from_logits:
                raise ValueError(
                    "`momentum` averages mean activations, which `from_logits=True` never forms. "
                    f"Received: momentum={momentum!r}, from_logits=True"
                )
        self.momentum = momentum
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the state of the running average, if there is one.

        Raises:
            ValueError: If the input has fewer than two axes, or its last is unknown.
        """
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                "KLSparsity takes the output of a layer, of shape (samples, ..., units) with a "
                f"known number of units. Received: input_shape={tuple(input_shape)}"
            )
        if self.momentum is not None:
            # Kept in float32 whatever the policy: in bfloat16 a step of 1 − μ would be lost.
            state: dict[str, Any] = {
                "initializer": "zeros",
                "dtype": "float64" if self.compute_dtype == "float64" else "float32",
                "trainable": False,
                "autocast": False,
                "aggregation": "mean",
            }
            self.rho_hat = self.add_weight(shape=(input_shape[-1],), name="rho_hat", **state)
            self.has_seen_a_batch = self.add_weight(shape=(), name="has_seen_a_batch", **state)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return `inputs`, and add the term to the layer's losses.

        Args:
            inputs: (samples, ..., units).
            training: Whether the running average moves.
            mask: The shape of `inputs` without its last axis; true where valid. Where it leaves
                nothing the term is 0, or that of the stored average.
        """
        loss = self.penalty(inputs, training=training, mask=mask)
        self.add_loss(loss)
        # Keras knows a layer's losses by `id`, and forgets old ids late: on JAX a dead tensor's id
        # may come back as that of another layer's live loss, which is then dropped. Kept alive,
        # this tensor's id cannot come back.
        self._loss_kept_alive = loss
        return inputs

    def penalty(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the term, a scalar of at least float32, without adding it to the losses.

        Args:
            inputs: As for `call`, which adds this to the layer's losses.
            training: Whether the running average moves.
            mask: As for `call`.
        """
        if self.momentum is None:
            return kl_sparsity(
                inputs,
                self.rho,
                self.beta,
                from_logits=self.from_logits,
                epsilon=self.epsilon,
                symmetric=self.symmetric,
                mask=mask,
            )
        rho_hat = self._running_average(inputs, self.momentum, training, mask)
        return self.beta * ops.sum(kl_divergence(self.rho, rho_hat, self.epsilon))

    def _running_average(
        self, inputs: Any, momentum: float, training: bool | None, mask: Any
    ) -> Any:
        seen = ops.convert_to_tensor(self.has_seen_a_batch) > 0.0
        stored = ops.convert_to_tensor(self.rho_hat)
        if not training:
            return ops.where(seen, stored, self.rho * ops.ones_like(stored))
        batch = mean_activation(
            inputs,
            mask,
            symmetric=self.symmetric,
            otherwise=ops.where(seen, stored, self.rho * ops.ones_like(stored)),
        )
        batch = ops.cast(batch, stored.dtype)
        moved = momentum * stored + (1.0 - momentum) * batch
        new = ops.stop_gradient(ops.where(seen, moved, batch))
        self.rho_hat.assign(new)
        self.has_seen_a_batch.assign(ops.ones_like(seen, dtype=self.has_seen_a_batch.dtype))
        # The value of the new average with the gradient of the batch mean.
        return new + (batch - ops.stop_gradient(batch))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {
            **super().get_config(),
            "rho": self.rho,
            "beta": self.beta,
            "from_logits": self.from_logits,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "symmetric": self.symmetric,
        }
