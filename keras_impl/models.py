"""`SparseAutoencoder`: Ng's sparse autoencoder as a Keras model, untied, tied or deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.custom_gradients import affine, sigmoid_in_place
from keras_impl.backends.keras_internals import keras_loses_compiled_losses
from keras_impl.backends.replicas import share_of_loss, sum_over_replicas
from keras_impl.initializers import NgUniform
from keras_impl.layers import KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.regularizers import WeightDecay
from keras_impl.validation import flag, non_negative

ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear")


@keras.saving.register_keras_serializable(package="sae_oracle")
class SparseAutoencoder(keras.Model):
    """The sparse autoencoder of the notes; its loss is Ng's cost J (EQ-COST).

    J = (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖² + (λ/2) Σₗ ‖Wₗ‖² + β Σⱼ KL(ρ‖ρ̂ⱼ), with m the batch and ρ̂ⱼ its mean
    activation, over the units of every hidden layer. `compile(optimizer)` and `fit(x)` train it;
    the three terms are metrics (`reconstruction`, `weight_decay`, `sparsity`) that add up to the
    reported loss. `fit(x, y)` reconstructs y from x. Under data parallelism the batch is the
    global one, and each of its samples counts once (docs/replicas.md).

    One model owns every kernel and bias, so a tied kernel is one variable through saving,
    cloning and reloading.

    Source: CS294A lecture notes "Sparse autoencoder", §2 and §3.

    Args:
        hidden_units: Units of the hidden layer; or a sequence, the layers of the encoder from the
            input inwards, mirrored by the decoder: (100, 25) is n-100-25-100-n.
        rho: ρ, the sparsity parameter, inside (0, 1).
        beta: β ≥ 0, the weight of the sparsity term.
        weight_decay: λ ≥ 0, of (λ/2)Σ‖W‖²; biases are not decayed.
        tied: Whether the decoder uses the encoder's kernels transposed (with its own biases).
        activation: f of the hidden layers: "sigmoid", "tanh", "relu" or "linear".
        output_activation: f of the output; `None`: the same. "linear" is the linear decoder.
        from_logits: Whether the sparsity is computed from the logits of the sigmoid units
            (EQ-KL-LOGITS): the same number, finite and right at any saturation.
        epsilon: Where EQ-KL-EXTENSION begins (see `KLSparsity`).
        symmetric: Whether hidden activations lie in [−1, 1] (tanh; see `KLSparsity`).
        tied_decay: How often a tied kernel counts in the weight decay: 1, each learned number
            once, as Keras counts; or 2, the sum over layers as it is written.
        cross_replica: Whether m and ρ̂ are those of the global batch under data parallelism; False:
            each replica's own, which trains another function.
        seed: An integer makes the initial weights reproducible; layer l uses seed + l.
        **kwargs: Those of `keras.Model` (`name`, `dtype`).

    Raises:
        TypeError, ValueError: If an argument leaves its range.

    >>> model = SparseAutoencoder(25, rho=0.01, beta=3.0, weight_decay=1e-4)
    >>> model.compile("adam")
    >>> history = model.fit(np.full((8, 64), 0.5, "float32"), verbose=0)
    >>> sorted(history.history)
    ['loss', 'reconstruction', 'sparsity', 'weight_decay']
    """

    def __init__(
        self,
        hidden_units: int | Sequence[int],
        rho: float = 0.05,
        beta: float = 3.0,
        weight_decay: float = 1e-4,
        tied: bool = False,
        activation: str = "sigmoid",
        output_activation: str | None = None,
        from_logits: bool = False,
        epsilon: float = 1e-6,
        symmetric: bool = False,
        tied_decay: int = 1,
        seed: int | None = None,
        cross_replica: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = _units(hidden_units)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.tied = flag("tied", tied)
        self.cross_replica = flag("cross_replica", cross_replica)
        self.activation = _activation("activation", activation)
        self.output_activation = (
            None
            if output_activation is None
            else _activation("output_activation", output_activation)
        )
        if from_logits and activation != "sigmoid":
            raise ValueError(
                "`from_logits=True` is for sigmoid hidden units. "
                f"Received: activation={activation!r}"
            )
        if tied_decay not in (1, 2):
            raise ValueError(f"`tied_decay` must be 1 or 2. Received: tied_decay={tied_decay!r}")
        self.tied_decay = int(tied_decay)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
            raise TypeError(f"`seed` must be an integer or None. Received: seed={seed!r}")
        self.seed = None if seed is None else int(seed)
        hidden_layers = 2 * len(self.hidden_units) - 1
        self.penalties = [
            KLSparsity(
                rho,
                beta,
                from_logits=from_logits,
                epsilon=epsilon,
                symmetric=symmetric,
                cross_replica=cross_replica,
                dtype=self.dtype_policy,
                name=f"kl_sparsity_{layer}",
            )
            for layer in range(hidden_layers)
        ]
        # Computed in the dtype of the model, in float32 at least.
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        self.reconstruction_loss = HalfSquaredError(dtype=dtype)
        self.sum_of_half_squares = HalfSquaredError(reduction="sum", dtype=dtype)
        self.term_trackers = [
            keras.metrics.Mean(name=name) for name in ("reconstruction", "weight_decay", "sparsity")
        ]

    def build(self, input_shape: Any) -> None:
        """Create the kernels (EQ-INIT) and the biases (zero) for (m, n) input.

        Raises:
            ValueError: If the input is not a matrix with a known number of columns.
        """
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "SparseAutoencoder takes input of shape (samples, features). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        sizes = (input_shape[-1], *self.hidden_units)
        sizes = (*sizes, *reversed(sizes[:-1]))
        layers = len(sizes) - 1
        decay = self.weight_decay * (self.tied_decay if self.tied else 1)
        self.kernels = [
            self.add_weight(
                shape=(sizes[layer], sizes[layer + 1]),
                initializer=NgUniform(None if self.seed is None else self.seed + layer),
                regularizer=WeightDecay(decay),
                name=f"kernel_{layer}",
            )
            for layer in range(layers // 2 if self.tied else layers)
        ]
        self.biases = [
            self.add_weight(shape=(sizes[layer + 1],), initializer="zeros", name=f"bias_{layer}")
            for layer in range(layers)
        ]
        for penalty, units in zip(self.penalties, sizes[1:-1], strict=True):
            penalty.build((input_shape[0], units))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return h(x), (samples, features), and add the sparsity terms to the losses."""
        return self._propagate(inputs, 0, 2 * len(self.hidden_units), training)

    def encode(self, inputs: Any) -> Any:
        """Return the activations of the innermost hidden layer.

        Args:
            inputs: (samples, features).
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(tuple(inputs.shape))
        return self._propagate(inputs, 0, len(self.hidden_units))

    def decode(self, code: Any) -> Any:
        """Return the reconstruction from the innermost hidden layer's activations.

        Args:
            code: (samples, the last of `hidden_units`).

        Raises:
            ValueError: If the model is not built: it does not know the number of features.
        """
        if not self.built:
            raise ValueError("Call the model, `encode` or `build` before `decode`.")
        code = ops.convert_to_tensor(code, dtype=self.compute_dtype)
        half = len(self.hidden_units)
        return self._propagate(code, half, 2 * half)

    def _propagate(self, a: Any, first: int, end: int, training: bool | None = None) -> Any:
        """Run layers first ... end - 1 (EQ-FORWARD); with `training` known, penalised."""
        penalised = first == 0 and end == 2 * len(self.hidden_units)
        for layer in range(first, end):
            last = layer == 2 * len(self.hidden_units) - 1
            z = affine(a, self._kernel(layer), self._compute(self.biases[layer]))
            name = self.output_activation or self.activation if last else self.activation
            if name == "sigmoid" and not self.penalties[0].from_logits:
                a = sigmoid_in_place(z)
            else:
                a = _activated(name, z)
            if penalised and not last:
                # The model adds the term itself: see `PenaltyLayer` for what Keras may do to
                # the losses of several layers.
                penalty = self.penalties[layer]
                self.add_loss(penalty.penalty(z if penalty.from_logits else a, training))
        return a

    def _kernel(self, layer: int) -> Any:
        if layer < len(self.kernels):
            return self._compute(self.kernels[layer])
        return ops.transpose(self._compute(self.kernels[2 * len(self.kernels) - 1 - layer]))

    def _compute(self, variable: Any) -> Any:
        return ops.cast(ops.convert_to_tensor(variable), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return `input_shape`: the reconstruction has the shape of the input."""
        return tuple(input_shape)

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Configure training; see `keras.Model.compile`.

        Raises:
            ValueError: If a `loss` is given: the loss of this model is Ng's cost. If
                `jit_compile=True` would train without the penalties (torch before 2.12).
        """
        if kwargs.get("jit_compile") is True and keras_loses_compiled_losses():
            raise ValueError(
                "On torch before 2.12 Keras drops the losses of layers from a step that it "
                "compiles, and would train without sparsity and weight decay. "
                "Received: jit_compile=True"
            )
        if loss is not None:
            raise ValueError(
                "The loss of SparseAutoencoder is Ng's cost; `loss` must be left out. "
                f"Received: loss={loss!r}"
            )
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a reloaded or cloned model as the first one was; called by Keras.

        Args:
            config: What `get_compile_config` returned.
        """
        # Keras skips this where `compile` is overridden, and still calls the model compiled.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return J (EQ-COST) of a batch and record its three terms; called by `fit`.

        Args:
            x: (samples, features).
            y: The targets; `None`: x.
            y_pred: h(x).
            sample_weight: (samples,); scales the reconstruction of each sample, nothing else.
            training: Not used.

        Returns:
            A scalar: J of the global batch on every replica; on TensorFlow, which adds the
            gradients of R replicas, a 1/R-th of it.
        """
        # Read once and first: replicas share the list, and fill it anew while one of them waits.
        # Keras lists activity losses first, weight regularization last, one for each kernel.
        penalties = list(self.losses)
        sparsity = sum(penalties[: -len(self.kernels)])
        weight_decay = sum(penalties[-len(self.kernels) :])
        total = self.sum_of_half_squares(x if y is None else y, y_pred, sample_weight=sample_weight)
        samples = ops.shape(y_pred)[0]
        count = ops.cast(samples, total.dtype)
        if self.cross_replica:
            total, count = sum_over_replicas(total, count)
        reconstruction = total / count
        for tracker, term in zip(
            self.term_trackers, (reconstruction, weight_decay, sparsity), strict=True
        ):
            tracker.update_state(term, sample_weight=samples)
        return share_of_loss(reconstruction + weight_decay + sparsity)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        penalty = self.penalties[0]
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "rho": penalty.rho,
            "beta": penalty.beta,
            "weight_decay": self.weight_decay,
            "tied": self.tied,
            "activation": self.activation,
            "output_activation": self.output_activation,
            "from_logits": penalty.from_logits,
            "epsilon": penalty.epsilon,
            "symmetric": penalty.symmetric,
            "tied_decay": self.tied_decay,
            "seed": self.seed,
            "cross_replica": self.cross_replica,
        }


def _activated(name: str, z: Any) -> Any:
    if name == "tanh" and keras.backend.standardize_dtype(z.dtype) == "float64":
        # `ops.tanh` of float64 is float32 on JAX.
        e = ops.expm1(-2.0 * ops.abs(z))
        return -ops.sign(z) * e / (2.0 + e)
    return keras.activations.get(name)(z)


def _units(hidden_units: Any) -> tuple[int, ...]:
    units = (hidden_units,) if isinstance(hidden_units, (int, np.integer)) else hidden_units
    if (
        not isinstance(units, Sequence)
        or isinstance(units, str)
        or not units
        or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in units)
    ):
        raise TypeError(
            "`hidden_units` must be a positive integer or a sequence of them. "
            f"Received: hidden_units={hidden_units!r}"
        )
    if any(n < 1 for n in units):
        raise ValueError(
            f"`hidden_units` must be positive. Received: hidden_units={hidden_units!r}"
        )
    return tuple(int(n) for n in units)


def _activation(argument: str, name: Any) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(
            f"`{argument}` must be one of {ACTIVATIONS}. Received: {argument}={name!r}"
        )
    return str(name)
