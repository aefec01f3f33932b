"""`sae-oracle train` on one backend, in a process of its own, as `sae_oracle.workers.verify` is.

The backend is KERAS_BACKEND. Writes the model and its history into a folder, and a JSON line for
each iteration; `sae_oracle.train` starts it, shows it, and draws the features.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.process import full_float32_products, use_dtype, versions
from keras_impl.exact.checkpoint import CheckpointFile, read
from keras_impl.exact.lbfgs import FullCost, fit_lbfgs, full_cost
from keras_impl.models import SparseAutoencoder
from sae_oracle.datasets import digits, natural_patches
from sae_oracle.samples import Preprocessing, read_samples
from sae_oracle.workers import channel
from sae_oracle.workers.channel import device_or_exit, say


def terms_of(cost: FullCost) -> dict[str, float]:
    """Return the cost and its terms, for JSON."""
    return {
        "total": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
    }


EARLIER_NAMES = {
    "sparse_autoencoder": "none",
    "sparse_autoencoder_of_standardized_columns": "standardize",
    "sparse_autoencoder_of_rescaled_columns": "rescale",
}
"""The preprocessing by what a model was called, of checkpoints that had no notes."""


def iterations_of(
    path: Path, settings: dict[str, Any], preprocess: str, has_validation: bool
) -> int:
    """Return how many iterations a checkpoint has; end with 2 if it is of another training."""
    try:
        found = read(path)
        earlier = EARLIER_NAMES.get(str(found.model.get("name")), preprocess)
        prepared = found.notes.get("preprocess", earlier)
        if prepared != preprocess:
            raise ValueError(
                f"--preprocess was {prepared} when it was written. Received {preprocess}."
            )
        for name, value in settings.items():
            was = found.model.get(name, value)
            if was not in (value, [value], (value,)):
                option = "--hidden" if name == "hidden_units" else f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} was {was} when it was written. Received {value}.")
        if found.iterations and ("val_loss" in found.history) != has_validation:
            raise ValueError("it must have --validation if the first training had, and only then.")
    except (OSError, ValueError) as error:
        say({"kind": "error", "error": f"--resume: {path}: {error}", "status": 2})
        raise SystemExit(2) from error
    return found.iterations


class _Stops(keras.callbacks.Callback):
    """Lets SIGTERM and SIGHUP do what Ctrl-C does, and nothing interrupt the saving."""

    def on_train_begin(self, logs: Any = None) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
        say({"kind": "begin"})

    def on_train_end(self, logs: Any = None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Train, and write model.keras, history.json and kernel.npy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--preprocess", default="none")
    parser.add_argument("--samples", type=Path, help="what is in the file of --data, as .npy")
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--rho", type=float, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--output-activation", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--checkpoint-seconds", type=float, required=True)
    parser.add_argument("--checkpoint-iterations", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    backend = keras.config.backend()
    full_float32_products()
    use_dtype(keras.config.floatx())  # what keras.json asks for; JAX has a switch for 64 bits
    in_use = device_or_exit(chosen.device)
    if chosen.samples is not None:
        x = read_samples(chosen.samples)
    else:
        x = natural_patches(seed=chosen.seed) if chosen.data == "patches" else digits()
    prepare = Preprocessing.fitted(chosen.preprocess, x)
    x, held = prepare(x), None
    if chosen.validation is not None:
        held = prepare(read_samples(chosen.validation))
    settings = {
        "hidden_units": chosen.hidden,
        "rho": chosen.rho,
        "beta": chosen.beta,
        "weight_decay": chosen.weight_decay,
        "output_activation": chosen.output_activation,
        "seed": chosen.seed,
    }
    model = SparseAutoencoder(**settings, name="sparse_autoencoder")
    resumed_at = 0
    if chosen.resume:
        resumed_at = iterations_of(chosen.checkpoint, settings, chosen.preprocess, held is not None)

    def on_iteration(epoch: int, logs: dict[str, float]) -> None:
        say({"kind": "step", "done": epoch + 1, "of": chosen.iterations, "terms": logs})

    began = time.perf_counter()
    try:
        history = fit_lbfgs(
            model,
            x,
            chosen.iterations,
            verbose=False,
            validation_data=held,
            callbacks=[_Stops(), keras.callbacks.LambdaCallback(on_epoch_end=on_iteration)],
            checkpoint=CheckpointFile(chosen.checkpoint, {"preprocess": chosen.preprocess}),
            checkpoint_seconds=chosen.checkpoint_seconds,
            checkpoint_iterations=chosen.checkpoint_iterations,
            resume=chosen.resume,
        )
    except FloatingPointError as error:
        say({"kind": "error", "error": str(error), "status": 1})
        raise SystemExit(1) from error
    message = history.params["message"]
    if message == "interrupted":
        message = channel.asked_to_stop or message
    if history.params["evaluations"] == 0:
        reason = f"{message}: the cost had not been computed once"
        say({"kind": "error", "error": reason, "status": 2})
        raise SystemExit(2)
    seconds = time.perf_counter() - began
    cost = full_cost(model, x)
    model.save(chosen.folder / "model.keras")
    np.save(chosen.folder / "kernel.npy", ops.convert_to_numpy(model.kernels[0]))
    result = {
        "data": chosen.data,
        "samples": len(x),
        "settings": settings,
        "preprocessing": prepare.described(),
        "iterations": len(history.epoch),
        "resumed_at": resumed_at,
        "evaluations": history.params["evaluations"],
        "message": message,
        "seconds": round(seconds, 1),
        "cost": terms_of(cost),
        "mean_activations": cost.mean_activations[0].tolist(),
        "backend": backend,
        "device": in_use,
        "dtype": model.compute_dtype,
        "versions": versions(backend),
        "history": history.history,
    }
    if held is not None:
        result["validation"] = terms_of(full_cost(model, held))
    if message in ("interrupted", "time limit"):  # it can go on
        shutil.copyfile(chosen.checkpoint, chosen.folder / chosen.checkpoint.name)
    (chosen.folder / "history.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    say({"kind": "result", **result, "history": None, "preprocessing": None})


if __name__ == "__main__":
    main()
