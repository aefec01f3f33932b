"""What this Keras does where no documentation says so, and the private names that we need of it."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask


@functools.cache
def keras_divides_activity_by_batch() -> bool:
    """Whether this Keras divides the value of an `activity_regularizer` by the batch size.

    Keras 3.0 to 3.13 does not, 3.14 and later do. Observed on a tiny layer, not read from a
    version.

    >>> keras_divides_activity_by_batch() in (True, False)
    True
    """
    layer = keras.layers.Activation("linear", activity_regularizer=ops.sum)
    layer(ops.ones((2, 1)))
    return bool(np.isclose(float(ops.convert_to_numpy(layer.losses[0])), 1.0))


def keras_loses_compiled_losses() -> bool:
    """Whether `jit_compile=True` trains without the losses of layers, and says nothing.

    So it is on torch before 2.12: every regularizer, of a kernel or of an activity, Keras's own
    too, is absent from the loss and from the gradient (seen with Keras 3.15.1 on torch 2.11.0;
    2.12.1 and 2.13.0 keep them). Read from the version: to observe it takes half a minute.

    >>> keras_loses_compiled_losses() in (True, False)
    True
    """
    if keras.config.backend() != "torch":
        return False
    import torch

    return tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 12)


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras carries with a tensor, or `None`: an attribute where it can be.

    >>> mask_of(ops.ones(2)) is None
    True
    """
    return get_keras_mask(tensor)


def masked(tensor: Any, mask: Any) -> Any:
    """Make Keras carry a mask, or `None`, with a tensor; return the tensor.

    >>> mask_of(masked(ops.ones(2), ops.ones(2, dtype="bool"))) is None
    False
    """
    set_keras_mask(tensor, mask)
    return tensor
