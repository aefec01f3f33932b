"""`sae-oracle encode` on one backend, in a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_impl.backends.arrays import to_numpy
from keras_impl.backends.process import full_float32_products, use_dtype
from keras_impl.models import SparseAutoencoder
from sae_oracle.files import first_line
from sae_oracle.samples import preprocessing_beside, read_samples
from sae_oracle.workers.channel import device_or_exit, say

ROWS = 4096
"""How many samples are encoded at once."""


def main() -> None:
    """Write the code of raw samples into a .npy file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--model", "--data", "--into"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    chosen = parser.parse_args()
    full_float32_products()
    use_dtype(keras.config.floatx())
    device_or_exit(chosen.device)
    try:
        x = read_samples(chosen.data)
        prepare = preprocessing_beside(chosen.model, x.shape[1])
        model = loaded(chosen.model)
        inputs = int(model.kernels[0].shape[0])
        if x.shape[1] != inputs:
            raise ValueError(f"the model takes {inputs} columns. Received {x.shape[1]}.")
    except ValueError as error:
        say({"kind": "error", "error": str(error), "status": 2})
        raise SystemExit(2) from error
    parts = [
        to_numpy(model.encode(prepare(np.asarray(x[start : start + ROWS]))))
        for start in range(0, len(x), ROWS)
    ]
    np.save(chosen.into, np.concatenate(parts))
    say({"kind": "result", "shape": [len(x), parts[0].shape[1]], "preprocessing": prepare.kind})


def loaded(path: Path) -> SparseAutoencoder:
    """Return the model in a file; raise a ValueError of one sentence."""
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # whatever Keras makes of a file that is none
        raise ValueError(f"{path} is no model of Keras: {first_line(error)}") from error
    if not isinstance(model, SparseAutoencoder):
        raise ValueError(f"{path} must hold a SparseAutoencoder. It holds {type(model).__name__}.")
    return model


if __name__ == "__main__":
    main()
