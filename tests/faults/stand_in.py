"""What stands in for a worker: it says the right things at once, and misbehaves as it is told.

The program that it runs is the variable WORKER, with the names below.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from sae_oracle.workers import channel
from sae_oracle.workers.channel import say

COMMAND = os.getppid()

_asked = threading.Event()


def to_command(name: str) -> None:
    """Send the command a signal, and give it time to take it."""
    os.kill(COMMAND, getattr(signal, name))
    time.sleep(0.05)


def begin() -> None:
    say({"kind": "begin"})


def steps(count: int) -> None:
    terms = {"loss": 1.0, "reconstruction": 0.5, "weight_decay": 0.25, "sparsity": 0.25}
    for done in range(count):
        say({"kind": "step", "done": done + 1, "of": 400, "terms": terms})


def wait(seconds: float = 60.0) -> None:
    """Work, until the command asks for the end."""
    _asked.wait(seconds)


def folder() -> Path:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    return parser.parse_known_args()[0].folder


def save(message: str = "CONVERGENCE") -> dict[str, Any]:
    """Write what a training writes; each file says whose it is."""
    whose = os.environ.get("WHOSE", "new")
    result = {
        "iterations": 3,
        "evaluations": 4,
        "seconds": 0.1,
        "message": channel.asked_to_stop or message,
        "backend": "torch",
        "dtype": "float32",
        "settings": {"rho": 0.01},
        "cost": {"total": 1.0, "reconstruction": 0.5, "weight_decay": 0.25, "sparsity": 0.25},
        "mean_activations": [0.01, 0.02],
    }
    (folder() / "model.keras").write_text(whose)
    (folder() / "history.json").write_text(json.dumps({"whose": whose, **result}))
    np.save(folder() / "kernel.npy", np.eye(4))
    return {"kind": "result", **result}


def train(message: str = "CONVERGENCE") -> None:
    begin()
    steps(3)
    say(save(message))


def encode() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path)
    np.save(parser.parse_known_args()[0].into, np.eye(2))
    say({"kind": "result", "shape": [2, 2], "preprocessing": "none"})


def measurements(worst: float | None = 0.5, **changed: Any) -> dict[str, Any]:
    measurement = {
        "equation": "EQ-KL",
        "quantity": "divergence",
        "size": "256 × 64",
        "case": "a case",
        "dtype": "float32",
        "worst": worst,
        "resolution": 1e-5,
        "undecidable": 0.0,
        "elements": 4,
        "failure": "",
        "suspicion": None,
        "likely": None,
        **changed,
    }
    return {
        "kind": "result",
        "device": "cpu",
        "versions": {"keras": "3"},
        "seconds": 1.0,
        "measurements": [measurement],
    }


def verify(worst: float | None = 0.5, **changed: Any) -> None:
    say(measurements(worst, **changed))


def bench() -> None:
    say(
        {
            "kind": "result",
            "device": "cpu",
            "versions": {"keras": "3"},
            "copy_bytes_per_second": 1e10,
            "rows": [],
        }
    )


def review(*identifiers: str, reason: str = "") -> None:
    found = [
        {
            "identifier": name,
            "severity": "error",
            "message": "It is wrong.",
            "fix": "Mend it.",
            "source": "EQ-KL",
            "evidence": None,
            "alternatives": [],
            "file": "",
            "line": 0,
            "help": "",
        }
        for name in identifiers
    ]
    content = {
        "target": channel.request["target"],
        "kind": "layer",
        "backend": "numpy",
        "reason": reason,
        "findings": found,
        "guesses": [],
        "notes": [],
        "checks": ["a check"],
    }
    say({"kind": "result", "review": content, "on_one_backend": None})


def grandchild() -> None:
    """Start a process that would outlive us, and holds what we hold."""
    if os.fork() == 0:
        Path(os.environ["NOTE"]).write_text(str(os.getpid()))
        time.sleep(600)


def note() -> None:
    """Leave our number, for who looks whether we have ended."""
    Path(os.environ["NOTE"]).write_text(str(os.getpid()))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda number, frame: _asked.set())
    exec(os.environ["WORKER"], globals() | {"sys": sys, "threading": threading})
