"""Callbacks for Keras's `fit`: coefficients that follow a schedule, and what the units do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_impl.backends.arrays import as_float64, to_numpy
from keras_impl.backends.keras_internals import batches_seen
from keras_impl.backends.replicas import sum_over_workers
from keras_impl.coefficients import NAMES, owners_of, set_hyperparameters
from keras_impl.exact.chunks import Chunks
from keras_impl.exact.objective import FullDataObjective
from keras_impl.models import SparseAutoencoder
from keras_impl.units import from_keras_units, to_keras_units
from keras_impl.validation import cut, entries, integer


class Anneal(keras.callbacks.Callback):
    """Changes ρ, β or λ while `fit` trains, step by step.

    Before each batch the coefficient becomes what the schedule says of the number of batches that
    the optimizer has seen; so a second `fit` goes on where the first one ended, as a learning rate
    does, also where an update accumulates the gradients of several batches. Where Keras runs
    several steps in one execution (`steps_per_execution`), they have the value of the first.
    Nothing is compiled for a change. The logs of an epoch have the value at its end, as
    "annealed_beta": of several numbers their mean.

    Args:
        name: "rho", "beta" or "weight_decay", of all that `set_hyperparameters` changes.
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`, or any function of the step,
            an integer from 0 on, that returns a number; or of a coefficient by unit or by layer
            what `set_hyperparameters` takes.

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
        self._batches_before = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin where the optimizer is, and make the variable before anything is compiled."""
        self._value = None
        self._change(batches_seen(self.model.optimizer))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the batches of an epoch from those before it, which no callback is told."""
        # Keras says of a last execution with fewer steps that it ends where a whole one would.
        self._batches_before = batches_seen(self.model.optimizer)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Change the coefficient for this step."""
        self._change(self._batches_before + batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Say which value it has."""
        if logs is not None:
            logs[f"annealed_{self.name}"] = float(np.mean(_numbers(self._value)))

    def _change(self, step: int) -> None:
        value = self.schedule(step)
        value = value if isinstance(value, (int, float, list, tuple)) else to_numpy(value)
        # On JAX the model is brought up to date for a change.
        if self._value is None or _numbers(value) != _numbers(self._value):
            set_hyperparameters(self.model, **{self.name: value})
            self._value = value


LOGGED = ("rho_hat_mean", "rho_hat_max", "dead_units", "saturated_units", "r_squared")


class Watch(keras.callbacks.Callback):
    """Watches ρ̂, R² and the three terms of the cost while a model trains.

    At the end of an epoch it computes them over the whole of `x`, with the weights of that moment
    and the model as in inference: ρ̂ⱼ is the mean over all samples (EQ-RHO-HAT-CHUNKS), as in
    `full_cost`, and not that of a batch. What it finds is added to the logs of the epoch, so the
    progress bar, `History` and every callback behind it in the list (TensorBoard, CSVLogger,
    EarlyStopping) have it. With `every_batches` also the logs of such a batch have it, so the
    progress bar during an epoch: the same numbers, with the weights after that batch:

    - "rho_hat_mean", "rho_hat_max": the mean and the largest ρ̂ⱼ of all penalised units.
    - "dead_units": how many have ρ̂ⱼ ≤ ρ/100; "saturated_units": 1 − ρ̂ⱼ ≤ (1 − ρ)/100. So the
      two change places if every a becomes 1 − a and ρ becomes 1 − ρ.
    - "r_squared": R² = 1 − Σᵢ‖h(xᵢ) − yᵢ‖² / Σᵢ‖yᵢ − ȳ‖², the share of the variance that is
      reconstructed; NaN where y has none.

    `history` has lists of all these, and of "epoch", "reconstruction", "weight_decay", "sparsity",
    "rho_hat" (units,) and "histogram", how many units are in each of 50 equal parts of [0, 1] (what
    leaves it, as means of ReLU units may, counts in the last part at that end). The units of
    several penalties stand side by side, in the order in which the model calls them.

    It warns where β is plainly in the wrong units: beside Keras's `"mse"` over n features it acts
    as n/2 times as much beside Ng's reconstruction, and more than 10 of that (the notes' exercises
    have 3 and 5) is rarely meant.

    Args:
        x: As for `full_cost`: an array, or a data set. The training set, or a part of it.
        y: The targets, for an array x. `None`: x.
        batch_size: Samples a chunk; as for `full_cost`.
        every: After how many epochs it looks again; the logs of others have nothing of it.
        every_batches: After how many batches of an epoch it looks, too; `None`: after none. Each
            look costs a pass or two over x, which may be a part of the training set.

    Raises:
        TypeError, ValueError: If an argument is not as above; in `fit`, as `full_cost`, or if
            nothing in the model is penalised.

    >>> from keras_impl import SparseAutoencoder
    >>> x = np.linspace(0.1, 0.9, 32, dtype="float32").reshape(8, 4)
    >>> model, watch = SparseAutoencoder(3, rho=0.25, seed=0), Watch(x)
    >>> model.compile("sgd")
    >>> history = model.fit(x, epochs=2, verbose=0, callbacks=[watch]).history
    >>> history["dead_units"], watch.history["rho_hat"][1].shape
    ([0, 0], (3,))
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        every: int = 1,
        every_batches: int | None = None,
    ) -> None:
        super().__init__()
        self.every = integer("every", every, low=1)
        if every_batches is not None:
            every_batches = integer("every_batches", every_batches, low=1)
        self.every_batches = every_batches
        self._looks = 0
        first = Chunks(
            x, y, None, batch_size, "float32"
        ).first()  # says what is wrong with the data
        self._features = keras.tree.flatten(first.y)[-1].shape[-1]
        self._data = x, batch_size, y
        self._objective: Any = None
        self._made_for: Any = None
        self._warned = False
        self.history: dict[str, list[Any]] = {}
        self.bin_edges = np.linspace(0.0, 1.0, 51)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin anew."""
        if not list(owners_of(self.model, "rho")):
            raise ValueError(
                f"Nothing in {self.model.name} is penalised, so there is no ρ̂ to watch: use "
                "KLSparsity or KLSparsityRegularizer; their `beta` may be 0."
            )
        self._objective, self._warned, self.history = None, False, {}
        self._warn_of_units()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the batches anew."""
        self._looks = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the whole of the data for the progress bar, every so many batches."""
        if self.every_batches is None or logs is None:
            return
        looks = (batch + 1) // self.every_batches  # one execution may be several steps
        if looks > self._looks:
            self._looks = looks
            found = self._found()
            logs.update({name: found[name] for name in LOGGED})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the whole of the data, every so many epochs."""
        self._warn_of_units()
        if (epoch + 1) % self.every:
            return
        found = self._found()
        for name, value in ({"epoch": epoch} | found).items():
            self.history.setdefault(name, []).append(value)
        if logs is not None:
            logs.update({name: found[name] for name in LOGGED})

    def _found(self) -> dict[str, Any]:
        coefficients = [
            (id(owner), getattr(owner, name))
            for name in NAMES
            for owner, _ in owners_of(self.model, name)
        ]
        if self._objective is None or self._made_for != coefficients:  # its functions hold numbers
            x, batch_size, y = self._data
            self._objective = FullDataObjective(self.model, x, batch_size, y=y)
            self._made_for = coefficients
        terms = self._objective.steps.terms
        cost = self._objective.cost()
        rho_hat = np.concatenate(cost.mean_activations)
        rho = np.concatenate(
            [
                np.broadcast_to(term.rho, np.shape(of_term))
                for term, of_term in zip(terms, cost.mean_activations, strict=True)
            ]
        )
        return {
            "reconstruction": cost.reconstruction,
            "weight_decay": cost.weight_decay,
            "sparsity": cost.sparsity,
            "r_squared": self._r_squared(),
            "rho_hat": rho_hat,
            "histogram": np.histogram(np.clip(rho_hat, 0.0, 1.0), self.bin_edges)[0],
            "rho_hat_mean": float(np.mean(rho_hat)),
            "rho_hat_max": float(np.max(rho_hat)),
            "dead_units": int(np.sum(rho_hat <= 0.01 * rho)),
            "saturated_units": int(np.sum(1.0 - rho_hat <= 0.01 * (1.0 - rho))),
        }

    def _r_squared(self) -> float:
        """R² over the data, of all workers: in two passes, with the mean before the squares."""
        chunks = self._objective.chunks
        total = sum_over_workers(sum(np.sum(_targets(chunk), axis=0) for chunk in chunks))
        samples = sum_over_workers(np.array([float(sum(chunk.samples for chunk in chunks))]))
        sums = np.zeros(2)
        for chunk in chunks:
            x = keras.tree.map_structure(keras.ops.convert_to_tensor, chunk.x)
            y, h = _targets(chunk), as_float64(self.model(x, training=False))[: chunk.samples]
            sums += np.sum(np.square(h - y)), np.sum(np.square(y - total / samples))
        error, variance = sum_over_workers(sums)
        return 1.0 - float(error / variance) if variance > 0.0 else float("nan")

    def _warn_of_units(self) -> None:
        model, features = self.model, self._features
        if self._warned or isinstance(model, SparseAutoencoder) or not _is_mse(model):
            return
        for owner, _ in owners_of(model, "beta"):
            beta = float(np.max(owner.beta))  # the largest, where it is by layer
            acting = from_keras_units(0.5, beta, 0.0, features=features).beta  # whatever ρ is
            if acting > 10.0:
                self._warned = True
                meant = to_keras_units(0.5, beta, 0.0, features=features).beta
                warnings.warn(
                    f"Keras's `mse` averages over the {features} features and has no ½: beside it "
                    f"β = {beta:.4g} acts as {acting:.4g} does beside Ng's reconstruction, "
                    f"{features / 2:.4g} times as strong. If {beta:.4g} is in the units of "
                    f"the notes, it is {meant:.3g} beside `mse`, and λ changes too: see "
                    "`to_keras_units`, or use `HalfSquaredError` as the loss.",
                    stacklevel=2,
                )

    def figure(self) -> Any:
        """Return a Matplotlib figure: the terms, ρ̂'s histogram, dead units and R² over epochs.

        Raises:
            ValueError: If nothing has been watched yet.
        """
        if not self.history:
            raise ValueError("Watch has seen no epoch yet: give it to `fit` as a callback before.")
        from matplotlib.figure import Figure

        epochs = np.array(self.history["epoch"]) + 1
        figure = Figure(figsize=(7.0, 7.5), dpi=100, layout="constrained")
        above, middle, below = figure.subplots(3, 1, sharex=True)
        for name in ("reconstruction", "sparsity", "weight_decay"):
            above.plot(epochs, self.history[name], label=name.replace("_", " "))
        above.set_ylabel("terms of J")
        above.legend()
        counts = np.array(self.history["histogram"], dtype=float).T
        edges = np.append(epochs - 0.5 * self.every, epochs[-1] + 0.5 * self.every)
        image = middle.pcolormesh(
            edges, self.bin_edges, np.where(counts > 0.0, counts, np.nan), cmap="viridis"
        )
        figure.colorbar(image, ax=middle, label="units")
        middle.set_ylabel("ρ̂")
        below.plot(epochs, self.history["dead_units"], label="dead units")
        below.plot(epochs, self.history["saturated_units"], "--", label="saturated units")
        units = len(self.history["rho_hat"][0])
        below.set(ylabel="units", ylim=(-0.05 * units, 1.05 * units))
        below.set_xlabel("epoch")
        right = below.twinx()
        right.plot(epochs, self.history["r_squared"], "k:", label="R²")
        right.set_ylabel("R²")
        lines = [*below.get_lines(), *right.get_lines()]
        # Above the lines of both axes, where none of a usual training is.
        right.legend(lines, [line.get_label() for line in lines], loc="center right")
        return figure


def _numbers(value: Any) -> list[Any]:
    """A coefficient's numbers, of all layers and units."""
    of_parts = entries(value)
    return [value] if of_parts is None else [n for part in of_parts for n in _numbers(part)]


def _targets(chunk: Any) -> Any:
    return as_float64(chunk.y)[: chunk.samples]


def _is_mse(model: Any) -> bool:
    loss = getattr(model, "loss", None)
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    return isinstance(loss, keras.losses.MeanSquaredError) or (
        loss is keras.losses.mean_squared_error
    )
