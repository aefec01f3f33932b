"""`SparseAutoencoder`: Ng's sparse autoencoder as a Keras model, untied, tied or deep."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_impl.backends.custom_gradients import affine, sigmoid_in_place
from keras_impl.backends.keras_internals import (
    LayerThatKeepsItsLosses,
    keras_loses_compiled_losses,
    refuse_time_distributed,
)
from keras_impl.backends.replicas import share_of_loss, sum_over_replicas
from keras_impl.coefficients import Changeable
from keras_impl.initializers import NgUniform
from keras_impl.layers import KLSparsity
from keras_impl.losses import HalfSquaredError
from keras_impl.regularizers import WeightDecay
from keras_impl.term import ReadOnly, SparsityTerm
from keras_impl.validation import (
    cut,
    entries,
    extension_edge,
    flag,
    integer,
    non_negative,
    sparsity_target,
    sparsity_targets,
    weight_of_term,
)

ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear")


@keras.saving.register_keras_serializable(package="sae_oracle")
class AutoencoderLayer(keras.layers.Layer):
    """One layer of a `SparseAutoencoder`, f(xW + b), as its encoder or its decoder holds it.

    There it has the variables of the autoencoder. Loaded from a file it has its own.

    Args:
        units: Units of the output.
        activation: "sigmoid", "tanh", "relu" or "linear".
        transposed: Whether the kernel is (units, inputs), that of the mirrored layer of a tied
            autoencoder, and is transposed when the layer is called.
        **kwargs: Those of `keras.layers.Layer`.

    >>> layer = AutoencoderLayer(2, "sigmoid")
    >>> layer(ops.ones((3, 4))).shape == (3, 2)
    True
    """

    def __init__(
        self, units: int, activation: str, transposed: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = integer("units", units, low=1)
        self.activation = _activation("activation", activation)
        self.transposed = flag("transposed", transposed)
        self.kernel: Any = None
        self.bias: Any = None

    def share(self, kernel: Any, bias: Any) -> None:
        """Have the variables of an autoencoder; before the layer is built."""
        self.kernel, self.bias = kernel, bias

    def build(self, input_shape: Any) -> None:
        """Create a kernel (EQ-INIT) and a bias (zero), unless they are shared."""
        if self.kernel is not None:
            return
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(
            shape=shape[::-1] if self.transposed else shape, initializer=NgUniform(), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """Return (samples, units)."""
        a = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), self.compute_dtype)
        bias = ops.cast(ops.convert_to_tensor(self.bias), self.compute_dtype)
        z = affine(a, ops.transpose(kernel) if self.transposed else kernel, bias)
        return _activated(self.activation, z)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return (samples, units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "transposed": self.transposed,
        }


@keras.saving.register_keras_serializable(package="sae_oracle")
class SparseAutoencoder(LayerThatKeepsItsLosses, keras.Model):
    """The sparse autoencoder of the notes; its loss is Ng's cost J (EQ-COST).

    J = (1/m) Σᵢ ½‖h(xᵢ) − yᵢ‖² + (λ/2) Σₗ ‖Wₗ‖² + β Σⱼ KL(ρ‖ρ̂ⱼ), with m the batch and ρ̂ⱼ its mean
    activation, over the units of every hidden layer. `compile(optimizer)` and `fit(x)` train it;
    the three terms are metrics (`reconstruction`, `weight_decay`, `sparsity`) that add up to the
    reported loss. `fit(x, y)` reconstructs y from x. Under data parallelism the batch is the
    global one, and each of its samples counts once (docs/replicas.md).

    One model owns every kernel and bias, so a tied kernel is one variable through saving,
    cloning and reloading. `encoder` and `decoder` are Keras models of the same variables. Weight
    decay counts the kernels that are trained: Keras drops the regularizer of a frozen variable.

    `rho`, `beta` and `weight_decay` can be assigned to at any time, and count from the next step
    on: steps that are compiled already are compiled once more at the first change, and at no later
    one (see `Anneal`). Nothing else can be changed.

    Source: CS294A lecture notes "Sparse autoencoder", §2 and §3.

    Args:
        hidden_units: Units of the hidden layer; or a sequence, the layers of the encoder from the
            input inwards, mirrored by the decoder: (100, 25) is n-100-25-100-n.
        rho: ρ, the sparsity parameter, inside (0, 1); or a sequence by hidden layer, in which an
            entry is a number, or a sequence by unit of that layer. It has an entry for each of
            `hidden_units`, which the decoder mirrors as it does the units, or for every hidden
            layer: (0.05, 0.1) of (100, 25) is (0.05, 0.1, 0.05). A sequence is never by unit of the
            only layer: that is [[...]].
        beta: β ≥ 0, the weight of the sparsity term; or a sequence by hidden layer, of numbers.
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
        AttributeError: If another argument is assigned to later.

    >>> import numpy as np
    >>> model = SparseAutoencoder(25, rho=0.01, beta=3.0, weight_decay=1e-4)
    >>> model.compile("adam")
    >>> history = model.fit(np.full((8, 64), 0.5, "float32"), verbose=0)
    >>> sorted(history.history)
    ['loss', 'reconstruction', 'sparsity', 'weight_decay']
    >>> SparseAutoencoder((100, 25), rho=(0.05, 0.1), beta=[3.0, 1.0, 0.0]).rho
    (0.05, 0.1, 0.05)
    """

    hidden_units = ReadOnly("_fixed.hidden_units")
    rho = Changeable("_fixed.rho")
    beta = Changeable("_fixed.beta")
    weight_decay = Changeable("_fixed.weight_decay")
    tied = ReadOnly("_fixed.tied")
    activation = ReadOnly("_fixed.activation")
    output_activation = ReadOnly("_fixed.output_activation")
    from_logits = ReadOnly("_term.from_logits")
    epsilon = ReadOnly("_term.epsilon")
    symmetric = ReadOnly("_term.symmetric")
    tied_decay = ReadOnly("_fixed.tied_decay")
    seed = ReadOnly("_fixed.seed")
    cross_replica = ReadOnly("_term.cross_replica")

    def __init__(
        self,
        hidden_units: int | Sequence[int],
        rho: float | Sequence[Any] | NDArray[Any] = 0.05,
        beta: float | Sequence[float] | NDArray[Any] = 3.0,
        weight_decay: float = 1e-4,
        tied: bool = False,
        activation: str = "sigmoid",
        output_activation: str | None = None,
        from_logits: bool = False,
        epsilon: float | None = None,
        symmetric: bool = False,
        tied_decay: int = 1,
        seed: int | None = None,
        cross_replica: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if output_activation is not None:
            output_activation = _activation("output_activation", output_activation)
        units = _hidden_units(hidden_units)
        self._fixed = SimpleNamespace(
            hidden_units=units,
            rho=_of_layers("rho", rho, units),
            beta=_of_layers("beta", beta, units),
            weight_decay=non_negative("weight_decay", weight_decay),
            tied=flag("tied", tied),
            activation=_activation("activation", activation),
            output_activation=output_activation,
            tied_decay=integer("tied_decay", tied_decay, low=1),
            seed=None if seed is None else integer("seed", seed),
        )
        targets = self._by_layer("rho")
        # One ε in all layers: that of the target that is nearest to 0 or 1.
        epsilon = extension_edge(epsilon, [float(t) for rho in targets for t in np.ravel(rho)])
        form = {"from_logits": from_logits, "symmetric": symmetric, "cross_replica": cross_replica}
        self.penalties = [
            KLSparsity(
                rho,
                beta,
                epsilon=epsilon,
                dtype=self.dtype_policy,
                name=f"kl_sparsity_{layer}",
                **form,
            )
            for layer, (rho, beta) in enumerate(zip(targets, self._by_layer("beta"), strict=True))
        ]
        if self.from_logits and self.activation != "sigmoid":
            raise ValueError(
                "`from_logits=True` is for sigmoid hidden units: leave it out for others. "
                f"Received: activation={activation!r}"
            )
        if self.tied_decay > 2:
            raise ValueError(f"`tied_decay` must be 1 or 2. Received: tied_decay={tied_decay!r}")
        self._decay = WeightDecay(self.weight_decay * self._decay_times)
        # Computed in the dtype of the model, in float32 at least.
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        self.reconstruction_loss = HalfSquaredError(dtype=dtype)
        self.sum_of_half_squares = HalfSquaredError(reduction="sum", dtype=dtype)
        # Not attributes that Keras tracks: the variables are this model's, and saved with it.
        object.__setattr__(self, "_layers_by_depth", [])
        object.__setattr__(self, "_halves", {})
        self.term_trackers = [
            keras.metrics.Mean(name=name) for name in ("reconstruction", "weight_decay", "sparsity")
        ]

    @property
    def _term(self) -> SparsityTerm:
        """What the terms of all hidden layers have in common, and ρ and β of the first."""
        return self.penalties[0].term

    def _by_layer(self, name: str) -> Sequence[Any]:
        """ρ or β of each hidden layer."""
        value = getattr(self._fixed, name)
        return value if isinstance(value, tuple) else [value] * (2 * len(self.hidden_units) - 1)

    @property
    def _decay_times(self) -> int:
        return self.tied_decay if self.tied else 1

    coefficient_names = ("rho", "beta", "weight_decay")

    def checked(self, name: str, value: Any) -> Any:
        """Return another ρ, β or λ, or raise."""
        if name == "weight_decay":
            return non_negative(name, value)
        made = _of_layers(name, value, self.hidden_units)
        of_layers = made if isinstance(made, tuple) else [made] * len(self.penalties)
        found = tuple(
            getattr(penalty.checked(name, of_layer), name)
            for penalty, of_layer in zip(self.penalties, of_layers, strict=True)
        )
        # What is by unit stays so.
        return found if any(isinstance(of_layer, tuple) for of_layer in found) else made

    def change(self, name: str, value: Any, keeper: Any = None, model: Any = None) -> None:
        """Change ρ, β or λ; see `set_hyperparameters`."""
        made = self.checked(name, value)
        if name == "weight_decay":
            self._fixed.weight_decay = made
            self._decay.change(name, made * self._decay_times, self, model or self)
            return
        setattr(self._fixed, name, made)
        for penalty, of_layer in zip(self.penalties, self._by_layer(name), strict=True):
            penalty.change(name, of_layer, penalty, model or self)

    def __dir__(self) -> list[str]:
        # Keras saves what it finds here, and these hold what is saved already.
        hidden = ("_layers_by_depth", "_halves", "layers", "encoder", "decoder")
        return [name for name in super().__dir__() if name not in hidden]

    def build(self, input_shape: Any) -> None:
        """Create the kernels (EQ-INIT) and the biases (zero) for (m, n) input.

        Raises:
            ValueError: If the input is not a matrix with a known number of columns.
        """
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "SparseAutoencoder takes input of shape (samples, features): flatten images, and "
                "for sequences put KLSparsity into a model of your own. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        sizes = (input_shape[-1], *self.hidden_units)
        sizes = (*sizes, *reversed(sizes[:-1]))
        layers = len(sizes) - 1
        self.kernels = [
            self.add_weight(
                shape=(sizes[layer], sizes[layer + 1]),
                initializer=NgUniform(None if self.seed is None else self.seed + layer),
                regularizer=self._decay,
                name=f"kernel_{layer}",
            )
            for layer in range(layers // 2 if self.tied else layers)
        ]
        self.biases = [
            self.add_weight(shape=(sizes[layer + 1],), initializer="zeros", name=f"bias_{layer}")
            for layer in range(layers)
        ]
        for penalty, units in zip(self.penalties, sizes[1:-1], strict=True):
            penalty.build((None, units))
        for layer, units in enumerate(sizes[1:]):
            mirrored = layer >= len(self.kernels)
            shared = AutoencoderLayer(
                units,
                self._activation_of(layer),
                transposed=mirrored,
                dtype=self.dtype_policy,
                name=f"layer_{layer}",
            )
            shared.share(
                self.kernels[layers - 1 - layer if mirrored else layer], self.biases[layer]
            )
            shared.build((None, sizes[layer]))
            self._layers_by_depth.append(shared)

    @property
    def layers(self) -> list[Any]:
        """Every layer, in the order in which data passes, and the sparsity penalties between."""
        found: list[Any] = []
        for layer, shared in enumerate(self._layers_by_depth):
            found += [shared, *self.penalties[layer : layer + 1]]
        return found or list(self.penalties)

    @property
    def encoder(self) -> keras.Model:
        """A Keras model of x to the innermost hidden layer, with the variables of this one.

        It follows training, has no sparsity penalty, and saved or exported it stands alone.

        Raises:
            ValueError: If this model is not built.
        """
        return self._half("encoder", 0, len(self.hidden_units))

    @property
    def decoder(self) -> keras.Model:
        """A Keras model of the innermost hidden layer to h(x); see `encoder`."""
        return self._half("decoder", len(self.hidden_units), 2 * len(self.hidden_units))

    def _half(self, name: str, first: int, end: int) -> keras.Model:
        if not self._layers_by_depth:
            raise ValueError(f"Call the model, `encode` or `build` before `{name}`.")
        if name not in self._halves:
            kernel = self._layers_by_depth[first].kernel
            inputs = keras.Input((kernel.shape[int(self.tied and first > 0)],), dtype=kernel.dtype)
            outputs = inputs
            for layer in self._layers_by_depth[first:end]:
                outputs = layer(outputs)
            half = keras.Model(inputs, outputs, name=f"{self.name}_{name}")
            half(inputs)  # Keras exports what was called
            self._halves[name] = half
        return self._halves[name]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return h(x), (samples, features), and add the sparsity terms to the losses.

        Raises:
            ValueError: If the input is not one matrix with as many columns as the model was built
                for; inside of `keras.layers.TimeDistributed`.
        """
        refuse_time_distributed(self)
        if keras.tree.is_nested(inputs) or len(inputs.shape) != 2:
            raise ValueError(
                "SparseAutoencoder takes input of shape (samples, features): flatten images, and "
                "for sequences put KLSparsity into a model of your own. Received: "
                f"inputs={inputs if keras.tree.is_nested(inputs) else tuple(inputs.shape)}"
            )
        self._decay.note_caller()
        # Not `ops.cast`: torch's tensors may come from another device, as those of a DataLoader do.
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        return self._propagate(inputs, 0, 2 * len(self.hidden_units), training)

    def encode(self, inputs: Any) -> Any:
        """Return the activations of the innermost hidden layer; no penalty is added.

        Args:
            inputs: (samples, features); a `KerasTensor` becomes the input of `encoder` in a graph.

        Raises:
            ValueError: If the input has another shape.
        """
        symbolic = isinstance(inputs, keras.KerasTensor)
        if not symbolic:
            inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(tuple(inputs.shape))
        if symbolic:
            return self.encoder(inputs)
        return self._propagate(inputs, 0, len(self.hidden_units))

    def decode(self, code: Any) -> Any:
        """Return the reconstruction from the innermost hidden layer's activations.

        Args:
            code: (samples, the last of `hidden_units`); a `KerasTensor` becomes the input of
                `decoder` in a graph.

        Raises:
            ValueError: If the code has another shape, or the model is not built: it does not know
                the number of features.
        """
        if not self.built:
            raise ValueError("Call the model, `encode` or `build` before `decode`.")
        if isinstance(code, keras.KerasTensor):
            return self.decoder(code)
        code = ops.convert_to_tensor(code, dtype=self.compute_dtype)
        half = len(self.hidden_units)
        return self._propagate(code, half, 2 * half)

    def _propagate(self, a: Any, first: int, end: int, training: bool | None = None) -> Any:
        """Run layers first ... end - 1 (EQ-FORWARD); with `training` known, penalised."""
        name = "code" if first else "inputs"
        columns = self.hidden_units[-1] if first else self.kernels[0].shape[0]
        if len(a.shape) != 2 or a.shape[1] not in (columns, None):
            raise ValueError(
                f"`{name}` must have the shape (samples, {columns}). Received a shape of "
                f"{tuple(a.shape)}"
            )
        penalised = first == 0 and end == 2 * len(self.hidden_units)
        for layer in range(first, end):
            last = layer == 2 * len(self.hidden_units) - 1
            z = affine(a, self._kernel(layer), self._compute(self.biases[layer]))
            activation = self._activation_of(layer)
            if activation == "sigmoid" and not self.from_logits:
                a = sigmoid_in_place(z)
            else:
                a = _activated(activation, z)
            if penalised and not last:
                # The model adds the term itself: see `LayerThatKeepsItsLosses` for what Keras may
                # do to the losses of several layers.
                penalty = self.penalties[layer]
                self.add_loss(penalty.penalty(self._term.choose(logits=z, activations=a), training))
        return a

    def _activation_of(self, layer: int) -> str:
        last = layer == 2 * len(self.hidden_units) - 1
        return self.output_activation or self.activation if last else self.activation

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
            ValueError: If a `loss` or `loss_weights` is given: the loss of this model is Ng's
                cost. If `jit_compile=True` would train without the penalties (torch before 2.12).
        """
        if kwargs.get("jit_compile") is True and keras_loses_compiled_losses():
            raise ValueError(
                "On torch before 2.12 Keras drops the losses of layers from a step that it "
                "compiles, and would train without sparsity and weight decay: leave it out. "
                "Received: jit_compile=True"
            )
        if loss is not None:
            raise ValueError(
                "The loss of SparseAutoencoder is Ng's cost; `loss` must be left out. For another "
                "put KLSparsity and WeightDecay into a model of your own. "
                f"Received: loss={loss!r}"
            )
        if kwargs.get("loss_weights") is not None:
            raise ValueError(
                "The terms of SparseAutoencoder are weighed by `beta` and `weight_decay`; "
                f"`loss_weights` must be left out. Received: {kwargs['loss_weights']!r}"
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

    def fit(self, x: Any = None, y: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Train; see `keras.Model.fit`. Without y the targets are x, for sample weights too.

        Raises:
            ValueError: If `class_weight` is given: targets are no classes.
        """
        return _called(super().fit, x, y, arguments, keywords)

    def evaluate(self, x: Any = None, y: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Return the loss and its terms; see `keras.Model.evaluate`, and `fit` for y."""
        return _called(super().evaluate, x, y, arguments, keywords)

    def train_on_batch(self, x: Any, y: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Train on one batch; see `keras.Model.train_on_batch`, and `fit` for y.

        Raises:
            ValueError: If `class_weight` is given: targets are no classes.
        """
        return _called(super().train_on_batch, x, y, arguments, keywords)

    def test_on_batch(self, x: Any, y: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Evaluate one batch; see `keras.Model.test_on_batch`, and `fit` for y."""
        return _called(super().test_on_batch, x, y, arguments, keywords)

    def quantize(self, *arguments: Any, **keywords: Any) -> None:
        """Refuse: this model computes with its own kernels, which Keras does not quantize.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "SparseAutoencoder cannot be quantized. Copy the weights to layers that can: "
            "keras.layers.Dense, and DenseTied for a tied decoder."
        )

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return every metric, those given to `compile` too; called by `fit`."""
        return super().compute_metrics(x, x if y is None else y, y_pred, sample_weight)

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
        # Keras lists activity losses first, weight regularization last, one for each variable that
        # has a regularizer and is trained.
        penalties = list(self.losses)
        decayed = sum(weight.regularizer is not None for weight in self.trainable_weights)
        activity = len(penalties) - decayed
        sparsity = sum(penalties[:activity])
        weight_decay = sum(penalties[activity:], start=ops.zeros_like(sparsity))
        total = self.sum_of_half_squares(x if y is None else y, y_pred, sample_weight=sample_weight)
        samples = ops.shape(y_pred)[0]
        count = ops.cast(samples, total.dtype)
        if self.cross_replica:
            total, count = sum_over_replicas(total, count)
        # Without samples there is nothing to divide.
        reconstruction = total / ops.where(count > 0.0, count, ops.ones_like(count))
        for tracker, term in zip(
            self.term_trackers, (reconstruction, weight_decay, sparsity), strict=True
        ):
            tracker.update_state(term, sample_weight=samples)
        return share_of_loss(reconstruction + weight_decay + sparsity)

    def get_config(self) -> dict[str, Any]:
        """Return every argument, as plain Python values."""
        term = self._term.get_config()
        del term["axis"]  # the last, of a matrix
        fixed = {name: _in_lists(value) for name, value in vars(self._fixed).items()}
        return {**super().get_config(), **term, **fixed}


def _activated(name: str, z: Any) -> Any:
    if name == "tanh" and keras.backend.standardize_dtype(z.dtype) == "float64":
        # `ops.tanh` of float64 is float32 on JAX.
        e = ops.expm1(-2.0 * ops.abs(z))
        return -ops.sign(z) * e / (2.0 + e)
    return keras.activations.get(name)(z)


def _called(method: Any, x: Any, y: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Call a method of `keras.Model` that takes data; where there are weights, y is x and not None.

    Keras drops the weights of arrays without targets, and says nothing.
    """
    call = inspect.signature(method).bind(x, y, *arguments, **keywords)
    given = call.arguments
    if given.get("class_weight") is not None:
        raise ValueError(
            "`class_weight` weighs classes, and the targets of SparseAutoencoder are none: use "
            f"`sample_weight`. Received: class_weight={given['class_weight']!r}"
        )
    # What is no array brings its own weights, and Keras refuses others.
    if given.get("sample_weight") is not None and y is None and hasattr(x, "shape"):
        given["y"] = x
    validation = given.get("validation_data")
    if isinstance(validation, (tuple, list)) and len(validation) == 3 and validation[1] is None:
        given["validation_data"] = (validation[0], validation[0], validation[2])
    return method(*call.args, **call.kwargs)


def _hidden_units(hidden_units: Any) -> tuple[int, ...]:
    if getattr(hidden_units, "shape", None) == () or isinstance(hidden_units, numbers.Number):
        return (integer("hidden_units", hidden_units, low=1),)
    units: tuple[Any, ...] = ()
    if not isinstance(hidden_units, (str, bytes, bytearray, memoryview, dict, set)):
        with suppress(Exception):  # whatever an object of anybody's raises
            units = tuple(hidden_units) if hasattr(hidden_units, "__len__") else ()
    if not units:
        raise TypeError(
            "`hidden_units` must be a positive integer or a sequence of them. "
            f"Received: hidden_units={cut(hidden_units)}"
        )
    return tuple(integer("hidden_units", n, low=1) for n in units)


def _of_layers(name: str, value: Any, hidden_units: tuple[int, ...]) -> Any:
    """Return ρ or β: a number, or a tuple with an entry for every hidden layer."""
    given = entries(value)
    if given is None:
        return sparsity_target(value) if name == "rho" else non_negative(name, value)
    layers = len(hidden_units)
    units = (*hidden_units, *reversed(hidden_units[:-1]))
    if len(given) not in (layers, len(units)):
        lengths = f"{layers}, which the decoder mirrors, or {len(units)}" if layers > 1 else "1"
        by_unit = ""
        if name == "rho" and hidden_units == (len(given),):
            by_unit = f" For one number a unit write rho=[{cut(value)}]."
        elif name == "beta" and hidden_units == (len(given),):
            by_unit = " β is never by unit: let `rho` be, as rho=[[...]]."
        raise ValueError(
            f"`{name}` must be a number, or a sequence by hidden layer, of the length {lengths}."
            f"{by_unit} Received: {name}={cut(value)}"
        )
    found: list[Any] = []
    for layer, of_layer in enumerate(given):
        if name == "beta":
            found.append(weight_of_term(of_layer, f"[{layer}]"))
            continue
        targets = sparsity_targets(of_layer, f"[{layer}]")
        if isinstance(targets, tuple) and len(targets) != units[layer]:
            raise ValueError(
                f"`rho` of hidden layer {layer} must be a number, or one for each of its "
                f"{units[layer]} units. Received: rho[{layer}]={cut(of_layer)}"
            )
        found.append(targets)
    mirrored = reversed(found[:-1]) if len(found) < len(units) else ()
    return (*found, *mirrored)


def _in_lists(value: Any) -> Any:
    """Return what is in tuples in lists, which JSON keeps as they are."""
    return [_in_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _activation(argument: str, name: Any) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"`{argument}` must be one of {ACTIVATIONS}: for another put KLSparsity into a model "
            f"of your own. Received: {argument}={cut(name)}"
        )
    return str(name)
