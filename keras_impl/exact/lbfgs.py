"""Exact training: the cost of the whole training set, its gradient, and L-BFGS over it.

The notes' ρ̂ⱼ is the mean over the entire training set, and their optimiser L-BFGS. How a cost
that is no sum over batches comes in chunks: `keras_impl.exact.objective`.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.arrays import as_float64
from keras_impl.backends.keras_internals import layers_of
from keras_impl.callbacks import Anneal
from keras_impl.exact.box import Box, box_of
from keras_impl.exact.checkpoint import Checkpoint, CheckpointFile, Clock, read, remove_stale
from keras_impl.exact.chunks import Chunks
from keras_impl.exact.objective import FullCost, FullDataObjective, shapes
from keras_impl.exact.sums import Array
from keras_impl.validation import cut, flag, integer, plain, real_number

DEFAULTS = {"ftol": 2.0**-52 * 1e7, "gtol": 1e-5}
"""Where L-BFGS-B ends, as SciPy has it."""

__all__ = ["FullCost", "fit_lbfgs", "full_cost", "full_cost_and_gradient"]


def full_cost(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    cross_replica: bool = True,
    reproducible: bool = False,
) -> FullCost:
    """EQ-COST over a whole data set, in chunks: ρ̂ is the mean over all samples (EQ-RHO-HAT-CHUNKS).

    The same numbers, up to rounding, for every chunk size and every order of the samples. Sums
    over chunks are in float64, sums inside one in the dtype of the model (float32 at least). One
    pass; the memory does not depend on the number of samples. The model runs as in inference
    (no dropout; a `BatchNormalization` with the statistics that it has), and a `KLSparsity` with
    `momentum` counts with the mean of the set in place of its running average. A NaN in x is a NaN
    in the terms that it reaches.

    Source: CS294A lecture notes "Sparse autoencoder", §2, eq (8), and §3.

    Args:
        model: A `SparseAutoencoder`, or any Keras model of one output with penalties of this
            package in any of its layers (`KLSparsity`, `KLSparsityRegularizer`). Its loss is the
            one it was compiled with; without one, `HalfSquaredError`.
        x: An array, a memory map, a `tf.data.Dataset`, a torch `DataLoader` or a
            `keras.utils.PyDataset` (of x, (x, y) or (x, y, sample_weight)), on any backend.
        batch_size: Samples a chunk. `None`: those of the data set's first batch; for an array
            everything up to 2²² numbers.
        y: The targets, for an array x. `None`: x.
        sample_weight: Weights of the samples' losses, for an array x; nothing else is weighted.
        cross_replica: Whether worker processes (torch.distributed, jax.distributed,
            MultiWorkerMirroredStrategy) share the data: each passes its own part of x, all call
            this together, and the sums are those of all. False: this process alone.
        reproducible: Whether the bits must not depend on the chunks and their order, nor on the
            order of the samples. Each sample is then computed by itself and added exactly, which
            takes many times as long (docs/training.md, "The same bits"); of `batch_size` and
            batches nothing is left but how x is read. The promise is for one machine, backend and
            number of threads. Not for several worker processes.

    Returns:
        The three terms and ρ̂.

    Raises:
        TypeError, ValueError: If an argument is not as above; if the model has a loss that is not
            a sum over samples and not of this package (`add_loss`, another activity regularizer);
            if samples are not on the first axis of a penalised output; or if several worker
            processes share the data and `reproducible` is True.

    >>> from keras_impl import SparseAutoencoder
    >>> model = SparseAutoencoder(2, rho=0.1, seed=0)
    >>> x = np.random.default_rng(0).uniform(size=(10, 4))
    >>> costs = [full_cost(model, x, batch_size).total for batch_size in (10, 3)]
    >>> abs(costs[0] - costs[1]) < 10 * 2.0**-24 * costs[0]
    True
    >>> costs = [full_cost(model, x, n, reproducible=True).total for n in (10, 3)]
    >>> costs[0] == costs[1]
    True
    """
    reproducible = flag("reproducible", reproducible)
    objective = FullDataObjective(
        model, x, batch_size, y=y, sample_weight=sample_weight, cross_replica=cross_replica
    )
    return objective.reproducible_cost() if reproducible else objective.cost()


def full_cost_and_gradient(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    cross_replica: bool = True,
) -> tuple[FullCost, list[Array]]:
    """EQ-COST and EQ-GRADIENT over a whole data set, in chunks.

    Two passes over x: the mean activations first, then the gradient with their slopes (see
    `keras_impl.exact.objective`). One, if the set is one chunk or no penalty has β > 0. Nothing is
    compiled anew from chunk to chunk; from call to call only a `SparseAutoencoder` is known to be
    the same. For many evaluations of another model (on JAX and TensorFlow each call compiles for
    0.1 to 0.6 s) make one `keras_impl.exact.objective.FullDataObjective`.

    Source: CS294A lecture notes "Sparse autoencoder", §2.2 and §3.

    Args:
        model: As for `full_cost`.
        x: As for `full_cost`. A data set that is shuffled between the passes is fine; one that
            yields other samples each time is not.
        batch_size: As for `full_cost`.
        y: As for `full_cost`.
        sample_weight: As for `full_cost`.
        cross_replica: As for `full_cost`.

    Returns:
        The terms, and the gradient of their sum: one float64 array for each of
        `model.trainable_variables`.

    Raises:
        TypeError, ValueError: As `full_cost`; and if the two passes saw different numbers of
            samples.
        NotImplementedError: If the backend has no gradients.

    >>> from keras_impl import SparseAutoencoder
    >>> model = SparseAutoencoder(2, rho=0.1, seed=0)
    >>> cost, gradient = full_cost_and_gradient(model, np.full((10, 4), 0.5), batch_size=4)
    >>> [g.shape for g in gradient] == [tuple(v.shape) for v in model.trainable_variables]
    True
    """
    objective = FullDataObjective(
        model, x, batch_size, y=y, sample_weight=sample_weight, cross_replica=cross_replica
    )
    return objective.cost_and_gradient()


def fit_lbfgs(
    model: Any,
    x: Any,
    iterations: int = 400,
    batch_size: int | None = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    cross_replica: bool = True,
    verbose: bool = True,
    callbacks: Any = (),
    validation_data: Any = None,
    bounds: Any = None,
    checkpoint: Any = None,
    checkpoint_seconds: float = 30.0,
    checkpoint_iterations: int = 50,
    resume: bool = False,
    **options: Any,
) -> keras.callbacks.History:
    """Minimise EQ-COST over the whole training set by L-BFGS, as the notes' assignment does.

    SciPy's L-BFGS-B over `full_cost_and_gradient`; its vectors are float64, the model is evaluated
    in its own dtype. Where float32 rounding leaves the line search nothing to gain, it ends
    early. The model is left with the best weights that were seen, also where the data, a callback
    or the cost raises an error. A constraint `NonNeg` of a weight is a bound, as those of `bounds`
    are; what starts outside starts at its bound. The optimizer of `compile` is not used.

    Ctrl-C ends the fit with a warning, with the best weights in the model, and returns what there
    is. A second one, while the best weights are put back, changes nothing.

    Source: Stanford CS294A programming assignment "Sparse autoencoder" (400 iterations of
    L-BFGS); R. H. Byrd, P. Lu, J. Nocedal and C. Zhu, "A limited memory algorithm for bound
    constrained optimization", SIAM J. Sci. Comput. 16 (1995).

    Args:
        model: As for `full_cost`.
        x: As for `full_cost`.
        iterations: How many at most.
        batch_size: As for `full_cost`.
        y: As for `full_cost`.
        sample_weight: As for `full_cost`.
        cross_replica: As for `full_cost`.
        verbose: Whether to show a progress bar with the terms of the cost.
        callbacks: Keras callbacks, as for Keras's `fit`; an iteration is an epoch to them.
            `model.stop_training = True` ends the fit; `EarlyStopping` with `restore_best_weights`
            has the last word on the weights. What they change of the model, but for its weights,
            does not count before the next fit.
        validation_data: x, (x, y) or (x, y, sample_weight), or a data set as x may be. Its cost
            (`full_cost`) after each iteration is in the logs, as `val_loss` and the terms; nothing
            is trained on it. `None`: there is none.
        bounds: A pair (low, high) for all trainable weights; or pairs by name: a weight's path
            ("dense/kernel") or name, "kernels" or "biases". Of each pair `None` is no bound, an
            array broadcasts to the weight, and low = high holds it fast. Several that name a weight
            hold together. No weight leaves them, in its own dtype. `None`: there are none.
        checkpoint: A .npz file for the best weights and the history so far, written whole or not
            at all while the fit goes on, so that a process that is killed loses little. `None`:
            no checkpoints.
        checkpoint_seconds: After how many seconds there is one, at the end of an iteration.
        checkpoint_iterations: After how many iterations, whichever is first.
        resume: Whether to go on from the file `checkpoint`: with its weights, its history, and the
            iterations that are left of `iterations`. L-BFGS forgets its curvature, so that the way
            is another one than without the interruption.
        **options: Those of SciPy's L-BFGS-B: `maxcor`, `ftol`, `gtol`, `maxls`, `maxfun`.

    Returns:
        A history: `loss`, `reconstruction`, `weight_decay` and `sparsity` after each iteration,
        and with `validation_data` the same with `val_`; in `params` the number of `evaluations`,
        `gradient`, and why it ended (`message`): "interrupted", "stopped by a callback", or a
        sentence that says whether the gradient is small. Its measure, at the weights that are
        left, is the largest component of the projected gradient, max |P(θ − g) − θ| with P the
        nearest point inside the bounds; small is at most `gtol` (1e-5).

    Raises:
        TypeError, ValueError: As `full_cost`; if a trainable weight has a constraint other than
            `NonNeg`, or `bounds` leave it no number; if `validation_data` are of another shape; if
            a callback changes a learning rate; if an option is not one of those; or if `checkpoint`
            is of other weights.
        OSError: If there is no checkpoint to resume from.
        FloatingPointError: If a term of the cost or a gradient is not finite, or a term of the
            cost of `validation_data` at the beginning. The error names it, and the model has the
            best weights seen.
        NotImplementedError: If the backend has no gradients.

    Warns:
        UserWarning: If a layer acts otherwise in training (`BatchNormalization`, `Dropout`): the
            cost is that of inference. If Ctrl-C ended the fit. If a checkpoint cannot be written.

    >>> from keras_impl import SparseAutoencoder
    >>> model = SparseAutoencoder(2, rho=0.1, seed=0)
    >>> x = np.random.default_rng(0).uniform(size=(10, 4))
    >>> losses = fit_lbfgs(model, x, iterations=5, verbose=False).history["loss"]
    >>> len(losses), losses[4] < losses[0]
    (5, True)
    """
    # Not with the package: most who import it never call this.
    from scipy.optimize import Bounds, minimize

    iterations = integer("iterations", iterations, low=1)
    if not isinstance(plain(verbose), (bool, int)):
        raise TypeError(f"`verbose` must be True or False. Received: verbose={cut(verbose)}")
    _check_callbacks(callbacks)
    keeper = _Keeper(checkpoint, checkpoint_seconds, checkpoint_iterations, resume)
    _check_options(options)
    objective = FullDataObjective(
        model, x, batch_size, y=y, sample_weight=sample_weight, cross_replica=cross_replica
    )
    box = box_of(model.trainable_variables, bounds)
    validate = _validation(objective, validation_data, batch_size, cross_replica)
    _warn_of_state(model, objective.state_that_training_moves())
    # SciPy allows 15000 evaluations by default, which more iterations than that would meet.
    options = {**DEFAULTS, "maxfun": max(15_000, 4 * iterations), **options, "maxiter": iterations}
    watchers = _Watchers(model, iterations, callbacks, validate)
    descent = _Descent(objective, watchers, box)
    earlier = keeper.read(model, validate is not None)
    if earlier is not None:
        descent.resume(earlier)
        options["maxiter"] = iterations - earlier.iterations
    model.stop_training = False
    message = "stopped by a callback"
    with _Interruption() as interruption, _progress(iterations, bool(plain(verbose))) as advance:

        def after_iteration(intermediate_result: Any) -> None:
            cost = descent.at(intermediate_result.x)
            watchers.end_iteration(cost)
            advance(str(cost))
            keeper.keep_if_due(descent)
            if interruption.is_asked:  # where Python could not raise it, as in a destructor
                raise KeyboardInterrupt
            if model.stop_training:
                raise StopIteration

        try:
            interruption.may_raise = True
            watchers.begin(earlier)
            if earlier is not None and earlier.iterations >= iterations:
                message = "the checkpoint has all iterations"
            else:
                result = minimize(
                    descent,
                    np.clip(_packed(model.trainable_variables), box.low, box.high),
                    jac=True,
                    method="L-BFGS-B",
                    bounds=None if box.is_everything else Bounds(box.low, box.high),
                    callback=after_iteration,
                    options=options,
                )
                if not model.stop_training:
                    message = _message(result, options, descent, len(watchers.history.epoch))
            interruption.may_raise = False
        except KeyboardInterrupt:
            message = "interrupted"
        finally:
            interruption.may_raise = False
            descent.keep_best()
            keeper.keep_if_due(descent, at_the_end=True)
        watchers.end()
    history = watchers.history
    history.params |= {
        "evaluations": descent.evaluations,
        "gradient": descent.best_gradient,
        "message": message,
    }
    if message == "interrupted":
        warnings.warn(
            f"Interrupted after {len(history.epoch)} iterations: the model has the best weights "
            f"seen, {descent.best_cost}.",
            stacklevel=2,
        )
    return history


def _flat(callbacks: Any) -> list[Any]:
    try:
        return list(keras.tree.flatten(callbacks))
    except RecursionError as error:
        raise ValueError("`callbacks` must not hold itself.") from error


def _check_callbacks(callbacks: Any) -> None:
    """Refuse what is no callback, and what changes while L-BFGS minimises."""
    for callback in _flat(callbacks):
        if callbacks is not None and not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                f"`callbacks` must be Keras callbacks. Received: callbacks={cut(callbacks)}"
            )
        if isinstance(callback, Anneal):
            raise ValueError(
                "L-BFGS minimises one function, which `callbacks` must not change. In place of "
                f"Anneal({callback.name!r}, ...) call `fit_lbfgs` once for each value, with "
                f"`set_hyperparameters(model, {callback.name}=...)` before it."
            )
        rates = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
        if isinstance(callback, rates):
            raise ValueError(
                "L-BFGS has no learning rate, which `callbacks` could change: leave it out, or "
                f"train with `fit`. Received: {type(callback).__name__}"
            )


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what is no option of L-BFGS-B, or out of its range."""
    known = {"maxcor", "ftol", "gtol", "maxls", "maxfun"}
    if set(options) - known:
        raise ValueError(
            f"`options` must be among {sorted(known)}. Received: {sorted(set(options) - known)}"
        )
    for name, value in options.items():
        if name in DEFAULTS:
            real_number(name, value, low=0.0, high=math.inf, high_open=True)
        else:
            integer(name, value, low=1)


def _validation(
    objective: FullDataObjective, data: Any, batch_size: int | None, cross_replica: bool
) -> Callable[[], FullCost] | None:
    """Return what computes the cost of `validation_data`, of which it is known that it can.

    It does once, so that nothing is lost to data that are wrong; also what it takes is compiled.
    """
    if data is None:
        return None
    x, y, sample_weight = data, None, None
    if isinstance(data, tuple):
        if not 1 <= len(data) <= 3:
            raise ValueError(
                "`validation_data` must be x, (x, y) or (x, y, sample_weight). Received a tuple "
                f"of {len(data)}."
            )
        x, y, sample_weight = (*data, None, None)[:3]
    try:
        first = Chunks(x, y, sample_weight, batch_size, objective.chunks.dtype).first()
        if shapes(first.x) != objective.sample_shapes:
            raise ValueError(
                f"`x` must have samples of the shapes {objective.sample_shapes}, as those that are "
                f"trained on. Received {shapes(first.x)}."
            )
        held = FullDataObjective(
            objective.model,
            x,
            batch_size,
            y=y,
            sample_weight=sample_weight,
            cross_replica=cross_replica,
        )
        terms = _logs(held.cost())
    except (TypeError, ValueError) as error:
        raise type(error)(f"In `validation_data`: {error}") from error
    for name, value in terms.items():
        if name != "loss" and not math.isfinite(value):
            raise FloatingPointError(
                f"In `validation_data`: The {name} term is not finite ({value}) at the first "
                "weights."
            )
    return held.cost


def _message(result: Any, options: Mapping[str, Any], descent: _Descent, iterations: int) -> str:
    """Return why L-BFGS-B ended, and whether the gradient is small."""
    gradient, gtol = descent.best_gradient, float(options["gtol"])
    is_small = gradient <= gtol
    status = result.get("status", 0)  # SciPy says none where every weight is held fast
    if status == 0 and is_small:
        why = "converged"
    elif status == 0:
        why = f"the cost fell by less than ftol = {float(options['ftol']):.3g} of itself"
    elif status == 1 and result.nit >= options["maxiter"]:
        why = f"all {iterations} iterations are done"
    elif status == 1:
        why = f"all {options['maxfun']} evaluations are done"
    else:
        why = f"no lower cost was found along the line, in {descent.objective.chunks.dtype}"
    return (
        f"{why}: the gradient is {'' if is_small else 'not '}small (its largest projected "
        f"component is {gradient:.3g}, gtol = {gtol:.3g})"
    )


def _warn_of_state(model: Any, moved: Sequence[Any]) -> None:
    """Say which layers train otherwise than they are run here."""
    if not moved:
        return
    owners = [
        f"{layer.name} ({', '.join(sorted(variable.name for variable in own))})"
        for layer in layers_of(model)
        if (own := _own(layer, moved))
    ]
    warnings.warn(
        "The cost is that of the model in inference. Layers that act otherwise in training, and "
        f"the state that stays as it is here: {'; '.join(owners) or model.name}. Statistics, such "
        "as those of a BatchNormalization, are best fitted before (by `fit`), then frozen "
        "(`layer.trainable = False`); Dropout and other noise do nothing.",
        stacklevel=3,
    )


def _own(layer: Any, variables: Sequence[Any]) -> list[Any]:
    """Those of the variables that are the layer's own, and of no layer inside it."""
    inside = {
        id(variable)
        for sublayer in layers_of(layer, include_self=False)
        for variable in sublayer.variables
    }
    held = {id(variable) for variable in layer.variables} - inside
    return [variable for variable in variables if id(variable) in held]


@contextmanager
def _progress(iterations: int, verbose: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar; yields what moves it on by an iteration and shows the terms."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[terms]}"),
    )
    with Progress(*columns, disable=not verbose) as progress:
        task = progress.add_task("", total=iterations, terms="")
        yield lambda terms: progress.update(task, advance=1, terms=terms)


class _Interruption:
    """The first Ctrl-C ends the work, wherever it is; what comes after that is done whole.

    Where SIGINT raises KeyboardInterrupt, as it does unless a program says otherwise.
    """

    def __init__(self) -> None:
        self.may_raise = False
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> _Interruption:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: Any) -> None:
        is_first, self.is_asked = not self.is_asked, True
        if is_first and self.may_raise:
            raise KeyboardInterrupt


class _Watchers:
    """Keras's callbacks, an iteration an epoch, in the order of events of `fit`."""

    def __init__(
        self,
        model: Any,
        iterations: int,
        callbacks: Any,
        validate: Callable[[], FullCost] | None,
    ) -> None:
        self._validate = validate
        self.history = keras.callbacks.History()
        self.callbacks = keras.callbacks.CallbackList(
            [self.history, *keras.tree.flatten(callbacks if callbacks is not None else ())],
            model=model,
            epochs=iterations,
            steps=1,
            verbose=0,
        )
        self._begun = 0
        self._logs: dict[str, float] = {}

    def begin(self, earlier: Checkpoint | None) -> None:
        """Tell that the fit begins, or goes on."""
        self.callbacks.on_train_begin()
        if earlier is not None:
            self.history.epoch = list(range(earlier.iterations))
            self.history.history = {name: [*values] for name, values in earlier.history.items()}
            self._begun = earlier.iterations

    def begin_iteration(self) -> None:
        """Tell of a new iteration, before its first evaluation."""
        epoch = len(self.history.epoch)
        if self._begun == epoch:
            self._begun += 1
            self.callbacks.on_epoch_begin(epoch)

    def end_iteration(self, cost: FullCost) -> None:
        """Tell of the cost that an iteration has reached."""
        self._logs = _logs(cost)
        if self._validate is not None:
            self.callbacks.on_test_begin()
            found = _logs(self._validate())
            self.callbacks.on_test_end(dict(found))
            self._logs |= {f"val_{name}": value for name, value in found.items()}
        self.callbacks.on_epoch_end(len(self.history.epoch), dict(self._logs))

    def end(self) -> None:
        """Tell that the fit has ended."""
        self.callbacks.on_train_end(dict(self._logs))


class _Descent:
    """The cost and the gradient of a packed vector of weights, for SciPy."""

    def __init__(self, objective: FullDataObjective, watchers: _Watchers, box: Box) -> None:
        self.objective = objective
        self.watchers = watchers
        self.box = box
        self.evaluations = 0
        self.best_cost: FullCost | None = None
        self.best_gradient = math.nan
        self._best = _packed(objective.model.trainable_variables)
        self._last: tuple[Array, FullCost] | None = None

    def __call__(self, theta: Array) -> tuple[float, Array]:
        self.watchers.begin_iteration()
        model = self.objective.model
        _unpack(theta, model.trainable_variables)
        cost, gradient = self.objective.cost_and_gradient()
        self.evaluations += 1
        for name, value in [
            *((f"The {name} term", value) for name, value in _logs(cost).items() if name != "loss"),
            *(
                (f"The gradient by {variable.path}", float(np.sum(part)))
                for variable, part in zip(model.trainable_variables, gradient, strict=True)
            ),
        ]:
            if not math.isfinite(value):
                seen = "none was finite" if self.best_cost is None else str(self.best_cost)
                raise FloatingPointError(
                    f"{name} is not finite ({value}) at evaluation {self.evaluations}. The model "
                    f"has the best weights seen: {seen}."
                )
        slope = np.concatenate([part.ravel() for part in gradient])
        if self.best_cost is None or cost.total < self.best_cost.total:
            self.best_cost, self._best = cost, theta.copy()
            self.best_gradient = self.box.projected_gradient(theta, slope)
        self._last = theta.copy(), cost
        return cost.total, slope

    def at(self, theta: Array) -> FullCost:
        """Give the model the weights of an iteration that has ended, and return their cost."""
        if self._last is None or not np.array_equal(theta, self._last[0]):
            self(theta)
        assert self._last is not None
        return self._last[1]

    def resume(self, earlier: Checkpoint) -> None:
        """Go on from the weights of a checkpoint."""
        self._best = earlier.theta
        self.evaluations = earlier.evaluations
        self.keep_best()

    def state(self, notes: Mapping[str, Any]) -> Checkpoint:
        """Return what a later fit can go on from."""
        model = self.objective.model
        shapes = [tuple(v.shape) for v in model.trainable_variables]
        config: dict[str, Any] = {}
        with suppress(Exception):  # a model of anybody's may have no configuration
            config = model.get_config()
        history = self.watchers.history.history
        return Checkpoint(self._best, shapes, history, self.evaluations, config, notes)

    def keep_best(self) -> None:
        """Give the model the best weights seen."""
        _unpack(self._best, self.objective.model.trainable_variables)


class _Keeper:
    """Writes checkpoints, and reads the one that a fit goes on from."""

    def __init__(self, path: Any, seconds: Any, iterations: Any, resume: Any) -> None:
        seconds = real_number(
            "checkpoint_seconds", seconds, low=0.0, high=math.inf, low_open=True, high_open=True
        )
        self._clock = Clock(seconds, integer("checkpoint_iterations", iterations, low=1))
        self._resumes = flag("resume", resume)
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"`checkpoint` must be the name of a file, or None. Received: checkpoint={path!r}"
            )
        if path is None and self._resumes:
            raise ValueError("`resume=True` needs a `checkpoint`. Received: checkpoint=None")
        self._path = None if path is None else Path(path)
        self._notes = path.notes if isinstance(path, CheckpointFile) else {}
        if self._path is not None and not self._path.parent.is_dir():
            raise ValueError(
                f"`checkpoint` must lie in a folder that is there. Received: checkpoint={path!r}"
            )

        if self._path is not None:
            remove_stale(self._path)

    def read(self, model: Any, has_validation: bool) -> Checkpoint | None:
        """Return the checkpoint to go on from; `None`: the fit begins."""
        if self._path is None or not self._resumes:
            return None
        found = read(self._path)
        shapes = [list(v.shape) for v in model.trainable_variables]
        if found.shapes != shapes or len(found.theta) != sum(map(math.prod, shapes)):
            raise ValueError(
                f"`checkpoint` must be of weights of the shapes {shapes}. Received those of "
                f"{self._path}: {found.shapes}"
            )
        if found.iterations and ("val_loss" in found.history) != has_validation:
            raise ValueError(
                "`validation_data` must be given if it was when the checkpoint was written, and "
                f"only then. Received {'some' if has_validation else 'none'}."
            )
        return found

    def keep_if_due(self, descent: _Descent, *, at_the_end: bool = False) -> None:
        """Write a checkpoint at the end of an iteration, or of a fit that got anywhere."""
        if self._path is None or not (at_the_end or self._clock.is_due()):
            return
        if descent.best_cost is None:
            return
        try:
            descent.state(self._notes).write(self._path)
        except OSError as error:  # what is being computed is worth more than its copy
            warnings.warn(f"No checkpoint is written: {error}", stacklevel=3)


def _packed(variables: Sequence[Any]) -> Array:
    return np.concatenate([as_float64(v).ravel() for v in variables])


def _unpack(theta: Array, variables: Sequence[Any]) -> None:
    start = 0
    for variable in variables:
        size = math.prod(variable.shape)
        part = theta[start : start + size].reshape(tuple(variable.shape))
        variable.assign(ops.cast(ops.convert_to_tensor(part), variable.dtype))
        start += size


def _logs(cost: FullCost) -> dict[str, float]:
    return {
        "loss": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
    }
