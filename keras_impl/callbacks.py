"""Callbacks for Keras's `fit`: coefficients that follow a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_impl.backends.arrays import to_numpy
from keras_impl.coefficients import NAMES, set_hyperparameters
from keras_impl.validation import cut


class Anneal(keras.callbacks.Callback):
    """Changes ρ, β or λ while `fit` trains, step by step.

    Before each batch the coefficient becomes what the schedule says of the number of training steps
    that the optimizer has taken; so a second `fit` goes on where the first one ended, as a
    learning rate does. Where Keras runs several steps in one execution (`steps_per_execution`),
    they have the value of the first. Nothing is compiled for a change. The logs of an epoch have
    the value at its end, as "annealed_beta".

    Args:
        name: "rho", "beta" or "weight_decay", of all that `set_hyperparameters` changes.
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`, or any function of the step,
            an integer from 0 on, that returns a number.

    Raises:
        TypeError: If the schedule is not a function.
        ValueError: If there is no such coefficient; in `fit`, if nothing in the model has it or a
            value leaves its range.

    >>> from keras_impl import SparseAutoencoder
    >>> model = SparseAutoencoder(2, beta=3.0)
    >>> model.compile("sgd")
    >>> warm_up = Anneal("beta", lambda step: min(3.0, 0.5 * step))
    >>> history = model.fit(keras.ops.ones((8, 4)), batch_size=2, verbose=0, callbacks=[warm_up])
    >>> model.beta, history.history["annealed_beta"]
    (1.5, [1.5])
    """

    def __init__(self, name: str, schedule: Callable[[int], Any]) -> None:
        super().__init__()
        if not isinstance(name, str) or name not in NAMES:
            raise ValueError(f"`name` must be one of {NAMES}. Received: name={cut(name)}")
        if not callable(schedule) or isinstance(schedule, type):
            raise TypeError(
                "`schedule` must be a LearningRateSchedule of Keras or a function of the step. "
                f"Received: schedule={cut(schedule)}"
            )
        self.name, self.schedule = name, schedule
        self._value: Any = None
        self._taken = self._taken_before = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin at the step of the optimizer, and make the variable before anything is compiled."""
        self._taken = self._taken_before = int(to_numpy(self.model.optimizer.iterations))
        self._value = None
        self._change(self._taken)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the batches of an epoch from the steps before it."""
        self._taken_before = self._taken

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Change the coefficient for this step."""
        self._change(self._taken_before + batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step."""
        self._taken = self._taken_before + batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Say which value it has."""
        if logs is not None:
            logs[f"annealed_{self.name}"] = self._value

    def _change(self, step: int) -> None:
        value = self.schedule(step)
        value = value if isinstance(value, (int, float)) else to_numpy(value)
        if value != self._value:  # on JAX the model is brought up to date for a change
            set_hyperparameters(self.model, **{self.name: value})
            self._value = float(value)
