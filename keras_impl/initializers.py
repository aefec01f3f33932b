"""`NgUniform`: the initialisation of the notes' programming assignment."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_impl.validation import cut, integer


@keras.saving.register_keras_serializable(package="sae_oracle")
class NgUniform(keras.initializers.Initializer):
    """Uniform in ±√6 / √(fan_in + fan_out + 1) (EQ-INIT).

    `keras.initializers.GlorotUniform` is the same without the + 1.

    Source: Stanford CS294A programming assignment "Sparse autoencoder".

    Args:
        seed: An integer, `None`, or a `keras.random.SeedGenerator`, as for Keras's own.

    Raises:
        TypeError: If `seed` is none of these.

    >>> NgUniform(seed=0)((4, 2)).shape == (4, 2)
    True
    """

    def __init__(self, seed: Any = None) -> None:
        if seed is not None and not isinstance(seed, keras.random.SeedGenerator):
            seed = integer("seed", seed)
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return a tensor of the given shape.

        Args:
            shape: (fan_in, fan_out).
            dtype: The dtype of the tensor.

        Raises:
            ValueError: If `shape` is not that of a matrix.
        """
        try:
            fan_in, fan_out = shape
        except Exception as error:  # whatever an object of anybody's raises
            raise ValueError(
                f"`shape` must be (fan_in, fan_out). Received: shape={cut(shape)}"
            ) from error
        shape = (integer("shape", fan_in, low=0), integer("shape", fan_out, low=0))
        limit = math.sqrt(6.0) / math.sqrt(shape[0] + shape[1] + 1)
        return keras.initializers.RandomUniform(-limit, limit, seed=self.seed)(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Return every argument."""
        return {"seed": keras.saving.serialize_keras_object(self.seed)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NgUniform:
        """Return the initializer of a configuration."""
        return cls(seed=keras.saving.deserialize_keras_object(config["seed"]))
