"""What a fit that was killed can go on from: the best weights and the history, in one file."""

from __future__ import annotations

import glob
import json
import os
import secrets
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_impl.exact.sums import Array

FORMAT = "sae-oracle checkpoint 1"

TEMPORARY = ".sae-oracle-train-"
"""How the name of a checkpoint begins that is being written."""


@dataclass(frozen=True, eq=False)
class CheckpointFile(os.PathLike[str]):
    """The name of a checkpoint of `fit_lbfgs`, with what else its writer wants to find in it.

    Args:
        path: The file.
        notes: What JSON can hold.

    >>> os.fspath(CheckpointFile(Path("a.npz"), {"preprocess": "rescale"}))
    'a.npz'
    """

    path: Path
    notes: Mapping[str, Any]

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a fit.

    Args:
        theta: The best weights seen, all in one vector.
        shapes: Those of the weights.
        history: The terms of the cost after each iteration, by name.
        evaluations: How often the cost was computed.
        model: The configuration of the model; empty if it has none.
        notes: Those of its `CheckpointFile`; empty if it has none.
    """

    theta: Array
    shapes: Sequence[Sequence[int]]
    history: Mapping[str, Sequence[float]]
    evaluations: int
    model: Mapping[str, Any]
    notes: Mapping[str, Any]

    @property
    def iterations(self) -> int:
        """How many there were."""
        return len(self.history.get("loss", ()))

    def write(self, path: Path) -> None:
        """Write it whole or not at all, onto the disk.

        Args:
            path: A .npz file, which is replaced.

        Raises:
            OSError: If it cannot be written; a file that was there is as it was.
        """
        about = {
            "format": FORMAT,
            "shapes": [list(shape) for shape in self.shapes],
            "history": {name: [float(v) for v in values] for name, values in self.history.items()},
            "evaluations": self.evaluations,
            "model": dict(self.model),
            "notes": dict(self.notes),
        }
        partial = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(8)}")
        try:
            with partial.open("xb") as file:
                np.savez(file, theta=self.theta, about=np.array(json.dumps(about, default=str)))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove_stale(path: Path) -> None:
    """Remove what a process that was killed has left of a checkpoint that it was writing."""
    for stale in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-*"):
        stale.unlink(missing_ok=True)


def read(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Args:
        path: A file that `Checkpoint.write` has written.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            theta = np.asarray(stored["theta"], dtype=np.float64)
            about = json.loads(str(stored["about"]))
        if about["format"] != FORMAT or theta.ndim != 1 or not np.all(np.isfinite(theta)):
            raise ValueError("of another format")
        return Checkpoint(
            theta,
            about["shapes"],
            about["history"],
            int(about["evaluations"]),
            about["model"],
            about.get("notes", {}),
        )
    except OSError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no checkpoint of `fit_lbfgs`: {error}") from error


class Clock:
    """Says when a checkpoint is due.

    Args:
        seconds: After how long, at the end of an iteration.
        iterations: After how many of them, whichever is first.
    """

    def __init__(self, seconds: float, iterations: int) -> None:
        self._seconds = seconds
        self._iterations = iterations
        self._since = time.monotonic()
        self._count = 0

    def is_due(self) -> bool:
        """Count an iteration; return whether a checkpoint is due now."""
        self._count += 1
        now = time.monotonic()
        if self._count < self._iterations and now - self._since < self._seconds:
            return False
        self._since, self._count = now, 0
        return True
