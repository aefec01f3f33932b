"""Files of samples: a matrix of finite numbers in a .npy, .npz or .csv file, or what is wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_oracle.files import first_line, plain

ROWS = 2**20
"""About how many numbers are looked at at once."""


def read_samples(path: Path, key: str | None = None) -> NDArray[Any]:
    r"""Return the matrix in a file, a row a sample; that of a .npy file is mapped and not read.

    A .csv file has commas and UTF-8. Its first line is a header if no cell of it is a number.
    Whether other files are a .npy or a .npz is seen from what is in them.

    Args:
        path: The file.
        key: Which array of a .npz file; `None`: its only one.

    Returns:
        (samples, features), of a floating-point or integer dtype.

    Raises:
        ValueError: If there is no such file, or it holds something else: a sentence with its name,
            and for a cell of a .csv file with its line and column.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.csv"
    >>> _ = path.write_text("width,height\n1,2\n3,4\n")
    >>> read_samples(path).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    name = str(path)[:300]
    try:
        what = "" if path.is_file() else "It is a folder" if path.is_dir() else "No such file"
    except (OSError, RuntimeError, ValueError) as error:
        what = first_line(error)
    if what:
        raise ValueError(f"samples come from a .npy, .npz or .csv file. {what}: {name}")
    is_csv = path.suffix.lower() == ".csv"
    if is_csv and key is not None:
        raise ValueError(f"{name} has no keys, as a .npz file has. Received the key {key!r}.")
    if is_csv:
        return _csv(path, name)
    try:
        x = _array(path, name, key)
    except _ProblemError as problem:
        raise ValueError(str(problem)) from None
    except Exception as error:  # whatever NumPy makes of a file that is none
        kind = ".npz" if path.suffix.lower() == ".npz" else ".npy"
        raise ValueError(f"{name} is no {kind} file of numbers: {first_line(error)}") from error
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers. It holds {x.dtype}.")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must hold a matrix, a row a sample. It has shape {x.shape}.")
    for start in range(0, len(x), max(1, ROWS // x.shape[1])):
        finite = np.isfinite(x[start : start + max(1, ROWS // x.shape[1])])
        if not np.all(finite):
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"{name} must hold finite numbers. Row {start + row} does not, in column {column}."
            )
    return x


def as_npy(x: NDArray[Any], source: Path, copy: Path) -> Path:
    """Return a .npy file of samples, which another process can map.

    Args:
        x: What `read_samples` has returned of `source`.
        source: The file, which is returned if it is mapped.
        copy: Where they are written otherwise.

    >>> import tempfile
    >>> copy = Path(tempfile.mkdtemp()) / "copy.npy"
    >>> as_npy(np.zeros((2, 1)), Path("x.csv"), copy) == copy
    True
    """
    if isinstance(x, np.memmap):
        return Path(os.path.abspath(source))
    np.save(copy, x)
    return copy


class _ProblemError(ValueError):
    """A sentence that is said already."""


def _array(path: Path, name: str, key: str | None) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a header in an old form
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        if key is not None:
            raise _ProblemError(f"{name} has no keys: it is one array. Received the key {key!r}.")
        return found
    with found:
        keys = found.files
        known = ", ".join(map(plain, keys[:20])) or "none"
        if key is None and len(keys) != 1:
            raise _ProblemError(
                f"{name} must hold one array, or a key must name one of them. It has: {known}."
            )
        if key is not None and key not in keys:
            raise _ProblemError(f"{name} has no array of the key {key!r}. It has: {known}.")
        return np.asarray(found[keys[0] if key is None else key])


def _csv(path: Path, name: str) -> NDArray[np.float64]:
    rows: list[list[float]] = []
    width = first = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            for cells in lines:
                if not any(cell.strip() for cell in cells):
                    continue
                line = lines.line_num
                if not width:
                    width, first = len(cells), line
                    if all(_number(cell) is None for cell in cells):
                        continue
                if len(cells) != width:
                    raise _ProblemError(
                        f"{name} must have as many cells in every line. Line {line} has "
                        f"{len(cells)}, line {first} has {width}."
                    )
                rows.append([_cell(name, line, i, cell) for i, cell in enumerate(cells, 1)])
    except _ProblemError as problem:
        raise ValueError(str(problem)) from None
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{name} is no .csv file in UTF-8: {first_line(error)}") from error
    if not rows:
        raise ValueError(f"{name} must hold a matrix, a row a sample. It has no line of numbers.")
    return np.array(rows)


def _number(cell: str) -> float | None:
    """Return the number in a cell; `None`: there is none. Python's 1_000 is not everybody's."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _cell(name: str, line: int, column: int, cell: str) -> float:
    value = _number(cell)
    if value is None or not math.isfinite(value):
        what = "is empty" if not cell.strip() else f"is {plain(cell)[:60]!r}"
        raise _ProblemError(
            f"{name} must hold finite numbers. Line {line}, column {column} {what}."
        )
    return value


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What is done to each column before training: (x − offset) · scale.

    Args:
        kind: "none", "standardize" (mean 0, standard deviation 1), or "rescale" (from the least to
            the greatest value: 0.1 to 0.9, inside the range of a sigmoid). A constant column is
            only moved, to 0 or to 0.5.
        offset: (features,); empty for "none".
        scale: (features,); empty for "none".
    """

    kind: str
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fitted(cls, kind: str, x: NDArray[Any]) -> Preprocessing:
        """Return what a training set needs.

        >>> Preprocessing.fitted("rescale", np.array([[0.0], [4.0]]))(np.array([[2.0]])).tolist()
        [[0.5]]
        """
        if kind == "none":
            return cls(kind, np.empty(0), np.empty(0))
        x = np.asarray(x, dtype=np.float64)
        if kind == "standardize":
            offset, spread = x.mean(axis=0), x.std(axis=0)
            constant = x.min(axis=0) == x.max(axis=0)
            return cls(kind, offset, 1.0 / np.where(constant, 1.0, spread))
        low, high = x.min(axis=0), x.max(axis=0)
        scale = 0.8 / np.where(high > low, high - low, 1.0)
        return cls(kind, np.where(high > low, low - 0.1 / scale, low - 0.5 / scale), scale)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples as they are trained on; for "none" the array itself."""
        return x if self.kind == "none" else (x - self.offset) * self.scale

    def described(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "kind": self.kind,
            "offset": self.offset.tolist(),
            "scale": self.scale.tolist(),
        }


def preprocessing_beside(model: Path, features: int) -> Preprocessing:
    """Return what was kept beside a model, in the history of its training.

    Args:
        model: The file of the model.
        features: Columns of the samples.

    Raises:
        ValueError: If there is none for as many columns.
    """
    history = model.with_name("history.json")
    try:
        of_training = json.loads(history.read_text(encoding="utf-8"))
        if "settings" in of_training:  # 0.1.0 could not preprocess, and says nothing of it
            of_training.setdefault("preprocessing", {"kind": "none", "offset": [], "scale": []})
        found = of_training["preprocessing"]
        offset, scale = (np.array(found[name], dtype=np.float64) for name in ("offset", "scale"))
        kind = str(found["kind"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(history)[:300]} must say how the samples were preprocessed, as that of "
            f"`sae-oracle train` does: {first_line(error)}"
        ) from error
    expected = (0,) if kind == "none" else (features,)
    if offset.shape != expected or scale.shape != expected:
        raise ValueError(f"the model was trained on {len(offset)} columns. Received {features}.")
    return Preprocessing(kind, offset, scale)
