"""The files of the vectors: how they are written, read, and what a right answer is.

A file a label, JSON, a vector a line. Arrays are flat, row by row, with their shape: no language
has to guess what a list of lists is.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reference import Parameters, unpack
from reference.validation import Array

VERSION = "sae-oracle-vectors/1"

FOLDER = Path(__file__).parents[1] / "vectors"
"""Where the vectors of this version are: `sae_oracle/vectors`, in a checkout a link to the folder
`vectors` beside it."""

FORMATS = ("float16", "bfloat16", "float32", "float64")

FLAGS = (
    "dead-unit",
    "saturated",
    "one-sample",
    "one-unit",
    "tied",
    "deep",
    "masked",
    "symmetric",
    "logits",
    "epsilon-edge",
    "beta-zero",
    "y-not-x",
    "weight-zero",
    "denormal",
)


class VectorError(ValueError):
    """A file of vectors that is not what it should be; the message names it and its vector."""


@dataclass(frozen=True)
class Output:
    """One array that an implementation is to return.

    Args:
        name: "value" and "gradient", or what the oracle's function calls it.
        shape: Its shape.
        digits: Its exact numbers rounded to 30 digits, row by row; "inf" and "-inf" too.
        bounds: By format, how far each number may be off; `None`: nothing can be said.
    """

    name: str
    shape: tuple[int, ...]
    digits: tuple[str, ...]
    bounds: Mapping[str, tuple[float | None, ...]]

    @cached_property
    def numbers(self) -> Array:
        """The digits as float64 numbers, flat."""
        return np.array([float(text) for text in self.digits], dtype=np.float64)


@dataclass(frozen=True)
class Vector:
    """One case: inputs, and what a right implementation returns.

    Args:
        identifier: Its label and a digest of label and inputs: it never changes.
        label: The equation.
        flags: Those of `FLAGS` that hold.
        inputs: By the names of the oracle's arguments, as JSON has them.
        formats: Those that hold every number of the inputs exactly.
        outputs: What is to be returned.
    """

    identifier: str
    label: str
    flags: tuple[str, ...]
    inputs: Mapping[str, Any]
    formats: tuple[str, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The inputs as the oracle takes them: arrays, `Parameters`, numbers, texts."""
        return {name: decoded(value) for name, value in self.inputs.items()}

    def output(self, name: str) -> Output | None:
        """The output of a name; `None`: it has none."""
        return next((output for output in self.outputs if output.name == name), None)


def encoded(value: Any) -> Any:
    """Return an argument of the oracle as JSON has it.

    >>> encoded(np.array([[0.5, 1.0]]))
    {'shape': [1, 2], 'data': [0.5, 1.0]}
    """
    if isinstance(value, Parameters):
        theta = np.concatenate([a.ravel() for a in (*value.kernels, *value.biases)])
        return {"sizes": list(value.sizes), "tied": value.tied, "theta": theta.tolist()}
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "data": value.ravel().tolist()}
    if isinstance(value, (list, tuple)):
        return [encoded(part) for part in value]
    return value


def decoded(value: Any) -> Any:
    """Return what `encoded` was given.

    >>> decoded({"shape": [1, 2], "data": [0.5, 1.0]})
    array([[0.5, 1. ]])
    """
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "theta" in value:
        sizes, tied = value["sizes"], value["tied"]
        pairs = list(itertools.pairwise(sizes))
        kept = pairs[: len(pairs) // 2] if tied else pairs
        like = Parameters(
            [np.zeros(pair) for pair in kept], [np.zeros(n) for n in sizes[1:]], tied=tied
        )
        return unpack(np.array(value["theta"], dtype=np.float64), like)
    dtype = bool if value["data"] and isinstance(value["data"][0], bool) else np.float64
    return np.array(value["data"], dtype=dtype).reshape(value["shape"])


def identifier_of(label: str, inputs: Mapping[str, Any]) -> str:
    """Return the identifier of a vector: its label, and a digest of label and inputs."""
    text = json.dumps([label, inputs], sort_keys=True, separators=(",", ":"))
    return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def as_text(label: str, header: Mapping[str, Any], vectors: Sequence[Vector]) -> str:
    """Return the content of the file of a label."""
    lines = []
    for vector in vectors:
        found = {
            "id": vector.identifier,
            "flags": list(vector.flags),
            "inputs": vector.inputs,
            "exact_in": list(vector.formats),
            "outputs": [
                {
                    "name": output.name,
                    "shape": list(output.shape),
                    "digits": list(output.digits),
                    "bounds": {name: list(bound) for name, bound in output.bounds.items()},
                }
                for output in vector.outputs
            ],
        }
        lines.append(json.dumps(found, separators=(",", ":"), allow_nan=False))
    first = json.dumps({"version": VERSION, "label": label, **header}, ensure_ascii=False)
    return first[:-1] + ', "vectors": [\n' + ",\n".join(lines) + "\n]}\n"


def read_vectors(folder: Path = FOLDER) -> list[Vector]:
    """Return every vector of a folder, in the order of the files' names.

    Args:
        folder: Where the files are, one for each label.

    Raises:
        VectorError: If there is none, or one is not whole, of another version, or was changed.
        OSError: If one cannot be read.
    """
    files = vector_files(folder)
    if not files:
        raise VectorError(f"{folder}: there is no file EQ-….json in it")
    found = [vector for path in files for vector in _read_file(path)]
    repeated = [name for name, count in Counter(v.identifier for v in found).items() if count > 1]
    if repeated:
        raise VectorError(f"{folder}: {repeated[0]} is there more than once")
    return found


def vector_files(folder: Path = FOLDER) -> list[Path]:
    """Return the files of the vectors, in the order of their names."""
    return sorted(folder.glob("EQ-*.json"))


def digest(folder: Path = FOLDER) -> str:
    """Return the SHA-256 of the files one after the other: `cat EQ-*.json | sha256sum`."""
    found = hashlib.sha256()
    for path in vector_files(folder):
        found.update(path.read_bytes())
    return found.hexdigest()


def _read_file(path: Path) -> list[Vector]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        last = _last_identifier(path)
        raise VectorError(f"{path.name} is no whole JSON file{last}: {error}") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise VectorError(
            f"{path.name} has the version {version!r:.60}. This program reads {VERSION!r}."
        )
    label, vectors = content.get("label"), content.get("vectors")
    if label != path.stem or not isinstance(vectors, list) or not vectors:
        raise VectorError(f"{path.name} must hold the label {path.stem!r} and a list of vectors")
    return [_vector(path.name, label, number, item) for number, item in enumerate(vectors)]


def _last_identifier(path: Path) -> str:
    """Which vector a broken file has begun last."""
    begun = path.read_bytes().rpartition(b'{"id":"')[2].partition(b'"')
    name = begun[0].decode("ascii", "replace")
    return f" (it ends in or after {name})" if name.startswith("EQ-") and len(name) < 60 else ""


def _vector(file: str, label: str, number: int, item: Any) -> Vector:
    name = item.get("id") if isinstance(item, dict) else None
    where = f"{file}: {name if isinstance(name, str) else f'vector {number}'}"
    try:
        outputs = tuple(_output(part) for part in item["outputs"])
        flags, formats = tuple(item["flags"]), tuple(item["exact_in"])
        found = Vector(item["id"], label, flags, item["inputs"], formats, outputs)
        if identifier_of(label, found.inputs) != found.identifier:
            raise ValueError("its inputs are not those of its identifier")
        if not outputs or not set(flags) <= set(FLAGS) or not set(formats) <= set(FORMATS):
            raise ValueError("it has no outputs, or a flag or format that is not known")
        if any(set(output.bounds) != set(formats) for output in outputs):
            raise ValueError("an output has bounds of other formats than it is exact in")
        found.arguments  # noqa: B018  # that they can be read is known before any work
    except KeyError as error:
        raise VectorError(f"{where} has no {error}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise VectorError(f"{where} cannot be read: {str(error)[:200]}") from None
    return found


def _output(part: Mapping[str, Any]) -> Output:
    name, shape, digits = part["name"], tuple(part["shape"]), tuple(part["digits"])
    if not all(isinstance(text, str) for text in (name, *digits)):
        raise ValueError("the name of an output or a number of its digits is no text")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the shape of its output {name!r} is no list of sizes")
    bounds = {of: tuple(bound) for of, bound in part["bounds"].items()}
    if any(len(numbers) != math.prod(shape) for numbers in (digits, *bounds.values())):
        raise ValueError(f"its output {name!r} has not one number for each place")
    for bound in bounds.values():
        if not all(b is None or (type(b) in (int, float) and float(b) >= 0.0) for b in bound):
            raise ValueError(f"a bound of its output {name!r} is no number of 0 or more")
    found = Output(name, shape, digits, bounds)
    if np.isnan(found.numbers).any():
        raise ValueError(f"its output {name!r} holds NaN")
    return found


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth.

    Args:
        status: "passed", "failed" or "not run".
        usage: The largest error in units of its bound; `None`: nothing was compared.
        words: Why it failed or was not run; empty if it passed.
    """

    status: str
    usage: float | None
    words: str = ""


def judge(vector: Vector, answers: Mapping[str, Any], precision: str) -> Judgement:
    """Hold an answer to a vector.

    Args:
        vector: The vector.
        answers: What was returned by the names of the outputs; outputs that are not there were
            not asked for.
        precision: The format that was computed in.

    Returns:
        "passed" if every number is within its bound; "not run" if no number of the answer has a
        bound in this format. NaN fails, whatever the bound.
    """
    worst, compared, wrong = 0.0, 0, ""
    for output in vector.outputs:
        if output.name not in answers:
            continue
        if precision not in output.bounds:
            continue
        try:
            actual = np.asarray(answers[output.name], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            words = f"{vector.identifier}: its {output.name} is no array of numbers"
            return Judgement("failed", math.inf, words)
        if actual.shape != output.shape:
            words = (
                f"{vector.identifier}: its {output.name} must have shape {output.shape}. "
                f"Received {actual.shape}."
            )
            return Judgement("failed", math.inf, words)
        if np.isnan(actual).any():
            return Judgement("failed", math.inf, f"{vector.identifier}: its {output.name} has NaN")
        bound = np.array(
            [math.inf if b is None else b for b in output.bounds[precision]], dtype=np.float64
        )
        decided = np.isfinite(bound)
        compared += int(decided.sum())
        with np.errstate(all="ignore"):
            difference = np.abs(actual.ravel() - output.numbers)
            ratio = np.where(difference == 0.0, 0.0, difference / bound)
        ratio = np.where(decided, np.where(np.isnan(ratio), math.inf, ratio), 0.0)
        largest = float(np.max(ratio, initial=0.0))
        if largest > max(worst, 1.0):
            i = int(np.argmax(ratio))
            wrong = (
                f"{vector.identifier}: {output.name}[{i}] is {actual.ravel()[i]:.9g}, and must be "
                f"{output.digits[i][:12]} within {bound[i]:.3g}"
            )
        worst = max(worst, largest)
    if compared == 0:
        return Judgement("not run", None, f"nothing of it can be decided in {precision}")
    return Judgement("failed" if worst > 1.0 else "passed", worst, wrong)
