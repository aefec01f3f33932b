"""Files of data that cannot be trained on."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np


def write(path: Path) -> None:
    """Write the file whose name says what is wrong with it."""
    half = np.full((4, 3), 0.5)
    name = path.stem
    arrays = {
        "vector": half[0],
        "images": np.zeros((4, 2, 2)),
        "empty": np.zeros((0, 3)),
        "no-columns": np.zeros((3, 0)),
        "text": np.array([["a"]]),
        "complex": half * 1j,
        "pickled": np.array([[object()]]),
        "outside": half * 3.0,
        "below": half - 0.6,
        "nan": np.where(np.eye(4, 3) > 0, np.nan, half),
        "infinite": np.where(np.eye(4, 3) > 0, np.inf, half),
        "bool": half > 0.0,
        "dates": np.array([["2026-01-01"]], dtype="datetime64[D]"),
        "structured": np.zeros((2, 2), dtype=[("a", "f4")]),
        "scalar": np.array(0.5),
    }
    content = _bytes(arrays.get(name, half))
    if name == "archive":
        buffer = io.BytesIO()
        np.savez(buffer, a=half, b=half)
        content = buffer.getvalue()
    headers = {
        "absurd-shape": "(4611686018427387904, 4611686018427387904)",
        "negative-shape": "(-4, 3)",
        "huge-shape": "(1000000000000, 1000000)",
        "shape-of-text": "('a', 3)",
        "no-shape": "None",
        "deep-header": "(" * 3000 + "4, 3" + ")" * 3000,
    }
    if name in headers:
        content = _with_header(
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': {headers[name]}}}"
        )
    elif name == "long-header":
        content = _with_header("{" + "'x': 1, " * 8000 + "}")
    elif name == "huge-dtype":
        content = _with_header("{'descr': '<f999999', 'fortran_order': False, 'shape': (4, 3)}")
    elif name == "version-9":
        content = content[:6] + b"\x09" + content[7:]
    elif name == "pickle":
        content = pickle.dumps(half.tolist())
    elif name == "not-an-array":
        content = b"not an array"
    elif name == "nothing":
        content = b""
    elif name == "cut-data":
        content = content[:-9]
    elif name.startswith("cut-"):
        content = content[: int(name.removeprefix("cut-"))]
    if path.suffix == ".npz":
        content = _archive(name, half)
    path.write_bytes(content)


def _archive(name: str, half: np.ndarray) -> bytes:
    arrays = {
        "several": {"a": half, "b": half},
        "none": {},
        "objects": {"a": np.array([[object()]])},
        "vector": {"a": half[0]},
        "nan": {"a": np.where(np.eye(4, 3) > 0, np.nan, half)},
        "text": {"a": np.array([["a"]])},
        "no-rows": {"a": half[:0]},
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays.get(name, {"a": half}))
    content = buffer.getvalue()
    if name == "damaged":
        return content.replace(half.tobytes(), half.tobytes()[::-1])
    return content[: int(name.removeprefix("cut-"))] if name.startswith("cut-") else content


def _bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _with_header(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + b"\0" * 96
