"""`DenseTied`: a decoder layer with an encoder layer's kernel, transposed when it is called."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.custom_gradients import affine
from keras_impl.backends.keras_internals import (
    inputs_in_graph,
    layer_being_called,
    layers_before,
    layers_of,
)
from keras_impl.validation import flag, integer, keras_object


@keras.saving.register_keras_serializable(package="sae_oracle")
class DenseTied(keras.layers.Layer):
    """A dense layer with the kernel of another one, transposed: f(x Wᵀ + b).

    W is read and transposed each time the layer is called: it is the encoder's variable itself,
    never a copy of it. The gradients of both uses add up in it, the encoder's `kernel_regularizer`
    counts once, and `summary()` counts it once. The layer's own weights are its bias. After
    `enable_lora` W is what the encoder multiplies by; of a `Dense` quantized to int8 or int4 it is
    the integers with their scale.

    The configuration names the encoder. A reloaded or cloned layer looks for a layer of that name
    among those that lead to its input, and in the models that lead there, in functional and
    Sequential models, nested ones too. Where it finds none it raises an error when it is called:
    it is never untied. `tie_to` says by hand which layer it is.

    Source: CS294A lecture notes "Sparse autoencoder", §1 (layers); EQ-GRADIENT-TIED for the
    gradient.

    Args:
        units: Units of the output: the encoder's number of inputs. `None`: taken from it.
        tied_to: The layer whose `kernel`, (inputs, units), is shared, such as a `Dense`; or the
            name of a layer that leads to this one's input. It must be built before this one is.
        activation: As for `keras.layers.Dense`.
        use_bias: As for `keras.layers.Dense`.
        bias_initializer: As for `keras.layers.Dense`.
        bias_regularizer: As for `keras.layers.Dense`.
        bias_constraint: As for `keras.layers.Dense`.
        **kwargs: Those of `keras.layers.Layer`, `activity_regularizer` among them. There is no
            `kernel_regularizer`: the encoder's counts once.

    Raises:
        TypeError: If `tied_to` is not a layer, or `units` not an integer.
        ValueError: If `units` is not positive; later, if `tied_to` has no kernel or an unbuilt
            one, its shape does not fit the input or `units`, or it is quantized in another way.

    >>> encoder = keras.layers.Dense(2, activation="sigmoid", name="encoder")
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), encoder, DenseTied(activation="sigmoid", tied_to=encoder)])
    >>> model.count_params(), model(np.ones((3, 4), "float32")).shape == (3, 4)
    (14, True)
    """

    def __init__(
        self,
        units: int | None = None,
        tied_to: Any = None,
        activation: Any = None,
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        activity_regularizer = keras_object(
            "activity_regularizer", activity_regularizer, keras.regularizers.get
        )
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = None if units is None else integer("units", units, low=1)
        self.activation = keras_object("activation", activation, keras.activations.get)
        self.use_bias = flag("use_bias", use_bias)
        self.bias_initializer = keras_object(
            "bias_initializer", bias_initializer, keras.initializers.get
        )
        self.bias_regularizer = keras_object(
            "bias_regularizer", bias_regularizer, keras.regularizers.get
        )
        self.bias_constraint = keras_object(
            "bias_constraint", bias_constraint, keras.constraints.get
        )
        self.bias: Any = None
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        # Not tracked as a sublayer: the encoder's bias is none of this layer's weights.
        self._set_encoder(None, tied_to if isinstance(tied_to, str) else None)
        if not isinstance(tied_to, str):
            self.tie_to(tied_to)

    def _set_encoder(self, layer: Any, name: str | None) -> None:
        object.__setattr__(self, "_encoder", layer)
        object.__setattr__(self, "_encoder_name", name)

    @property
    def tied_to(self) -> Any:
        """The layer whose kernel is shared, or its name while it has not been found."""
        return self._encoder_name if self._encoder is None else self._encoder

    def tie_to(self, layer: Any) -> None:
        """Share the kernel of `layer` from now on.

        Raises:
            TypeError: If `layer` is not a layer.
            ValueError: If `layer` is built and has no kernel of a fitting shape.
        """
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "`tied_to` must be a layer with a kernel, such as keras.layers.Dense, or its name. "
                f"Received: tied_to={layer!r}"
            )
        if layer.built:
            self._check_kernel(layer)
        self._set_encoder(layer, None)

    def build(self, input_shape: Any) -> None:
        """Create the bias, and check the kernel if the layer is tied by now.

        Raises:
            ValueError: If the kernel is missing, unbuilt or of another shape; or if `units` is
                unknown because the layer named by `tied_to` is not yet found.
        """
        if self._encoder is not None:
            kernel = self._check_kernel(self._encoder)
            self.units = int(kernel.shape[0])
            if input_shape[-1] != kernel.shape[1]:
                raise ValueError(
                    f"DenseTied {self.name!r} is tied to {self._encoder.name!r} with a kernel of "
                    f"shape {tuple(kernel.shape)}: its input must have {kernel.shape[1]} units. "
                    f"Received: input_shape={tuple(input_shape)}"
                )
        elif self.units is None:
            raise ValueError(self._not_found())
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer; on a symbolic input, find the layer that was named."""
        if self._encoder is None and isinstance(inputs, keras.KerasTensor):
            self._find([inputs])
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        """Return f(x Wᵀ + b), (samples, ..., units).

        Args:
            inputs: (samples, ..., units of `tied_to`).

        Raises:
            ValueError: If the layer named by `tied_to` is not found.
        """
        if self._encoder is None:
            entry = layer_being_called()
            self._find(
                [*inputs_in_graph(self), *inputs_in_graph(entry)],
                [] if entry is self else layers_of(entry, include_self=False),
            )
            if self._encoder is None:
                raise ValueError(self._not_found())
        kernel = ops.cast(_kernel_of(self._encoder), self.compute_dtype)
        kernel = ops.transpose(kernel)
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if self.bias is None:
            # `@` on tensors: `ops.matmul` of float64 is float32 on torch.
            outputs = inputs @ kernel
        else:
            outputs = affine(inputs, kernel, ops.cast(self.bias, self.compute_dtype))
        return self.activation(outputs)

    def _find(self, tensors: list[Any], layers: Any = ()) -> None:
        """Tie to the layer of the stored name among `layers` and those that lead to `tensors`."""
        found = {id(layer): layer for layer in [*layers, *layers_before(tensors)]}
        named = [
            layer
            for layer in found.values()
            if layer.name == self._encoder_name and layer is not self
        ]
        if len(named) > 1:
            raise ValueError(
                f"DenseTied {self.name!r} is tied to a layer named {self._encoder_name!r}, and "
                f"{len(named)} layers of that name lead to it. Call its `tie_to(layer)` with the "
                "right one."
            )
        if named:
            self.tie_to(named[0])

    def _not_found(self) -> str:
        return (
            f"DenseTied {self.name!r} is tied to a layer named {self._encoder_name!r}, and no "
            "layer of that name leads to it. If it was loaded or cloned without its encoder, call "
            "its `tie_to(encoder)`, or load and clone the whole model that holds both."
        )

    def _check_kernel(self, layer: Any) -> Any:
        if not layer.built:
            raise ValueError(
                f"DenseTied {self.name!r} is tied to {layer.name!r}, which is not built: call that "
                "layer first, or put it before this one in the model."
            )
        kernel = getattr(layer, "kernel", None)
        shape = tuple(getattr(kernel, "shape", ()))
        if len(shape) != 2:
            raise ValueError(
                "`tied_to` must be a layer with a kernel of shape (inputs, units), such as "
                f"keras.layers.Dense. Received: tied_to={layer!r}"
                + (f" with a kernel of shape {shape}" if shape else ", which has no kernel")
            )
        if self.units is not None and self.units != shape[0]:
            raise ValueError(
                f"`units` must be {shape[0]}, the number of inputs of {layer.name!r}, whose kernel "
                f"has shape {shape}; or left out. Received: units={self.units}"
            )
        return kernel

    def quantize(self, mode: Any = None, **_: Any) -> None:
        """Do nothing: this layer reads the kernel of its encoder, quantized or not."""

    def _with_kernel(self, own: list[Any]) -> list[Any]:
        """The kernel is state that a call reads: a model of this layer alone must know it.

        On JAX a variable that a model does not know is a constant of its compiled functions.
        """
        if self._encoder is None or not self._encoder.built:
            return own
        read = [getattr(self._encoder, name, None) for name in KERNEL_VARIABLES]
        if not isinstance(read[0], keras.Variable):
            read[0] = self._encoder.kernel
        return own + [variable for variable in read if isinstance(variable, keras.Variable)]

    @property
    def variables(self) -> list[Any]:
        """The bias, and the shared kernel, which is saved with its own layer only."""
        return self._with_kernel(super().variables)

    @property
    def weights(self) -> list[Any]:
        """The bias, and the shared kernel."""
        return self._with_kernel(super().weights)

    def count_params(self) -> int:
        """Return the number of parameters of this layer's own: its bias."""
        return sum(int(np.prod(weight.shape)) for weight in super().weights)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return (samples, ..., units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return every argument; `tied_to` as the name of the layer."""
        return {
            **super().get_config(),
            "units": self.units,
            "tied_to": self._encoder_name if self._encoder is None else self._encoder.name,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
        }


KERNEL_VARIABLES = (
    "_kernel",
    "lora_kernel_a",
    "lora_kernel_b",
    "kernel_scale",
    "kernel_zero",
    "g_idx",
)
"""Where a `keras.layers.Dense` keeps what its kernel is made of; other layers have a `kernel`."""


def _kernel_of(layer: Any) -> Any:
    """Return the kernel that a layer multiplies by, a tensor of (inputs, units)."""
    mode = getattr(layer, "quantization_mode", None)
    if mode in (None, "float8"):  # float8 rounds it when the layer is called
        return ops.convert_to_tensor(layer.kernel)
    has_lora = getattr(layer, "lora_enabled", False)
    if type(layer) is not keras.layers.Dense or mode not in ("int8", "int4"):
        raise ValueError(
            "`tied_to` may be a keras.layers.Dense quantized to int8 or int4, or a layer that is "
            f"not quantized. Received: tied_to={layer!r}, quantized to {mode}"
        )
    if has_lora and mode == "int4":
        raise ValueError(
            "`tied_to` may not have LoRA kernels and be quantized to int4: Keras adds them to the "
            f"integers. Quantize to int8 in its place. Received: tied_to={layer!r}"
        )
    integers = layer._kernel if has_lora else layer.kernel
    kernel = ops.cast(ops.convert_to_tensor(integers), layer.variable_dtype)
    scale = ops.convert_to_tensor(layer.kernel_scale)
    zero = getattr(layer, "kernel_zero", None)
    if zero is None:
        kernel = kernel / scale
    else:  # a scale and a zero for each block of inputs
        block = ops.cast(ops.convert_to_tensor(layer.g_idx), "int32")
        zeros = ops.cast(ops.take(ops.convert_to_tensor(zero), block, axis=0), kernel.dtype)
        kernel = (kernel - zeros) * ops.take(scale, block, axis=0)
    if not has_lora:
        return kernel
    a, b = (ops.convert_to_tensor(v) for v in (layer.lora_kernel_a, layer.lora_kernel_b))
    return kernel + layer.lora_alpha / layer.lora_rank * (a @ b)
