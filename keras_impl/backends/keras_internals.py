"""What this Keras does where no documentation says so, and the private names that we need of it."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common import global_state

# Keras exports the scope's class, and no way to ask for the one that is open.
from keras.src.backend.common.stateless_scope import get_stateless_scope


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


def batches_seen(optimizer: Any) -> int:
    """Return the number of batches that an optimizer has seen, of which schedules are functions.

    `iterations` counts updates of weights, of which each may be of several batches.

    >>> batches_seen(keras.optimizers.SGD(gradient_accumulation_steps=2))
    0
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return int(ops.convert_to_numpy(optimizer._iterations))


@contextmanager
def seeds_kept() -> Iterator[None]:
    """Put Keras's own seed and generator back at the end, and TensorFlow's if it is loaded.

    >>> keras.utils.set_random_seed(7)
    >>> with seeds_kept():
    ...     keras.utils.set_random_seed(8)
    >>> global_state.get_global_attribute("global_random_seed")
    7
    """
    names = ("global_random_seed", "global_seed_generator")
    kept = {name: global_state.get_global_attribute(name) for name in names}
    generator = kept["global_seed_generator"]
    state = None if generator is None else ops.convert_to_numpy(generator.state)
    tensorflow = sys.modules.get("tensorflow.python.eager.context")
    context: Any = None if tensorflow is None else tensorflow.context()
    # TensorFlow (2.21) has a generator only once somebody has set its seed.
    python_generator = getattr(context, "_rng", None)
    seed = getattr(context, "_seed", None)
    python_state = None if python_generator is None else python_generator.getstate()
    try:
        yield
    finally:
        for name, value in kept.items():
            global_state.set_global_attribute(name, value)
        if generator is not None:
            generator.state.assign(state)
        if context is not None:
            context._seed = seed
            if python_generator is not None:
                context._rng = python_generator
                python_generator.setstate(python_state)


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


class LayerThatKeepsItsLosses(keras.layers.Layer):
    """A layer whose losses are all there in a stateless call, which is how JAX trains.

    There every sublayer clears its own earlier losses when it is called, and Keras (3.15.1) knows
    them by `id`. So a layer that is used twice keeps the last loss only; and the `id` of a tensor
    that is gone may come back as that of another layer's loss, which is then dropped. This one
    forgets the `id`s of scopes that are over, and clears nothing of the scope that is open.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Past Keras's bookkeeping of attributes. A reference that keeps nothing alive: what a
        # scope holds are the tracers of JAX.
        object.__setattr__(self, "_scope_of_losses", lambda: None)

    def add_loss(self, loss: Any) -> None:
        """Add a scalar to the losses; see `keras.layers.Layer.add_loss`."""
        super().add_loss(loss)
        scope = get_stateless_scope()
        reference = (lambda: None) if scope is None else weakref.ref(scope)
        object.__setattr__(self, "_scope_of_losses", reference)

    def _clear_losses(self) -> None:
        scope = get_stateless_scope()
        kept = set()
        if scope is not None and self._scope_of_losses() is scope:
            kept = {id(loss) for loss in scope.losses} & self._loss_ids
        self._loss_ids.clear()
        super()._clear_losses()
        self._loss_ids.update(kept)


def is_weight(x: Any) -> bool:
    """Whether a regularizer is given a weight, and not the output of a layer.

    Keras hands it the variable itself; in a stateless call the variable's value in that call.

    >>> is_weight(keras.Variable(1.0)), is_weight(ops.ones(()))
    (True, False)
    """
    if isinstance(x, keras.Variable):
        return True
    scope = get_stateless_scope()
    return scope is not None and any(x is value for value in scope.state_mapping.values())


def refuse_time_distributed(owner: Any) -> None:
    """Raise if `keras.layers.TimeDistributed` is what called.

    It calls a layer once for each step, so that a mean over the batch is one of each step, and
    what is added to the losses are as many terms as there are steps.

    Args:
        owner: The layer or regularizer that would compute a penalty.

    Raises:
        ValueError: If `TimeDistributed` builds or calls `owner`, or a layer around it.
    """
    if is_compiling():  # which sees no frames; it was called before
        return
    if called_by("keras.src.layers.rnn.time_distributed"):
        name = type(owner).__name__
        raise ValueError(
            f"{name} inside of TimeDistributed would be computed for each step apart: another "
            "penalty. Put it outside: the layers of Keras, and the penalties of this package, "
            "take sequences as they are, and a penalty's mean runs over all of their steps."
        )


def inside_train_step() -> bool:
    """Whether Keras's own training step, that of `fit` and `train_on_batch`, is what called.

    >>> inside_train_step()
    False
    """
    trainer = f"keras.src.backend.{keras.config.backend()}.trainer"
    return called_by(trainer, ("train_step", "compute_loss_and_updates"))


def called_by(module: str, functions: Sequence[str] | None = None) -> bool:
    """Whether a function of a module, one of the named ones, is among the callers.

    >>> called_by("doctest"), called_by("doctest", ["no_such_function"])
    (True, False)
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        code_is_meant = functions is None or frame.f_code.co_name in functions
        if code_is_meant and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def layers_without_their_activity_regularizer(model: Any) -> Iterator[Any]:
    """Yield the layers of a model whose `activity_regularizer` Keras never calls.

    `TimeDistributed` calls `layer.call`, which leaves the regularizer out (Keras 3.15.1; Keras's
    own ones too), and no code of a regularizer runs that could say so.

    Args:
        model: A layer or a model.

    >>> inner = keras.layers.Dense(2, activity_regularizer="l2")
    >>> model = keras.Sequential([keras.Input((3, 4)), keras.layers.TimeDistributed(inner)])
    >>> list(layers_without_their_activity_regularizer(model)) == [inner]
    True
    """
    for layer in layers_of(model):
        if isinstance(layer, keras.layers.TimeDistributed):
            inner = layer.layer
            if inner.activity_regularizer is not None:
                yield inner


def layers_of(layer: Any, *, include_self: bool = True) -> list[Any]:
    """Return a layer or model and all layers inside of it, at any depth, each once.

    >>> [type(layer).__name__ for layer in layers_of(keras.Sequential([keras.layers.Dense(2)]))]
    ['Sequential', 'Dense']
    """
    return list(layer._flatten_layers(include_self=include_self))


def own_weights(layer: Any) -> list[Any]:
    """Return the weights of a layer, without those of the layers inside of it.

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> len(own_weights(model)), len(own_weights(model.layers[0]))
    (0, 2)
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def layer_being_called() -> Any | None:
    """Return the outermost layer or model whose call is under way.

    >>> layer_being_called() is None
    True
    """
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def is_compiling() -> bool:
    """Whether torch is compiling what runs, which sees none of what Keras keeps beside a call.

    >>> is_compiling()
    False
    """
    if keras.config.backend() != "torch":
        return False
    import torch

    return bool(torch.compiler.is_compiling())


def keep_state(layer: Any, holder: Any) -> bool:
    """Make a layer keep a variable that is none of its weights; return whether it is new to it.

    Keras has such a place for the state of random numbers: what is there is in `variables`, and so
    in the state of compiled steps, and not in `weights`, nor in what is saved.

    Args:
        layer: A layer or a model, built or not.
        holder: Its `state` is the variable.

    >>> class Holder:
    ...     state = keras.Variable(1.0, trainable=False)
    >>> layer = keras.layers.Identity()
    >>> keep_state(layer, Holder()), len(layer.variables), len(layer.weights)
    (True, 1, 0)
    """
    kept = states_kept(layer)
    if any(known is holder for known in kept):
        return False
    kept.append(holder)
    return True


def states_kept(layer: Any) -> list[Any]:
    """Return what `keep_state` and Keras itself have put into that place."""
    return layer._seed_generators


def write_state_back(model: Any) -> None:
    """Give the variables of a model what `fit` has made of them.

    In the middle of an epoch Keras's trainer on JAX has the state, and the variables have nothing;
    a callback's `self.model` does this when it is read.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def compile_anew(model: Any) -> None:
    """Have the steps of a model compiled again when they are next run."""
    for step in ("train", "test", "predict"):
        if getattr(model, f"{step}_function", None) is not None:
            getattr(model, f"make_{step}_function")(force=True)


@contextmanager
def losses_kept() -> Iterator[None]:
    """Put the losses of the layers of the call that is under way back as they were before."""
    outermost = layer_being_called()
    # `_losses` is where `add_loss` puts them; Keras has no public way to put them back.
    layers = [] if outermost is None else layers_of(outermost)
    saved = [(layer, list(layer._losses)) for layer in layers]
    yield
    for layer, losses in saved:
        layer._losses[:] = losses


def inputs_in_graph(layer: Any) -> list[Any]:
    """Return the symbolic tensors that a layer was called on.

    >>> layer, x = keras.layers.Dense(2), keras.Input((3,))
    >>> y = layer(x)
    >>> inputs_in_graph(layer)[0] is x
    True
    """
    return [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]


def layers_before(tensors: Sequence[Any]) -> Iterator[Any]:
    """Yield every layer that leads to symbolic tensors, with the layers inside of it.

    >>> y = keras.layers.Dense(2)(keras.Input((3,)))
    >>> [type(layer).__name__ for layer in layers_before([y])]
    ['Dense', 'InputLayer']
    """
    waiting, seen = list(tensors), set()
    while waiting:
        operation = waiting.pop()._keras_history.operation
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        if isinstance(operation, keras.layers.Layer):
            yield from layers_of(operation)
        waiting += inputs_in_graph(operation)
