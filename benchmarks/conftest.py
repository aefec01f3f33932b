"""`pytest benchmarks`: one pytest for each installed backend, one after the other.

Keras fixes its backend when it is first imported, and two processes at a time would disturb each
other's timings. With KERAS_BACKEND set it is the one process of that backend.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_oracle.processes import TRAINING_BACKENDS, installed

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run a child for each backend, unless this is one or something else is asked for too."""
    paths = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
    inside = all(path.resolve().is_relative_to(HERE) for path in paths)
    if os.environ.get("KERAS_BACKEND") or not inside or config.option.collectonly:
        return None
    asked = config.getoption("backends")
    names = asked.split(",") if asked else TRAINING_BACKENDS
    chosen = [name for name in names if installed(name)]
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    codes = []
    for backend in chosen:
        print(f"\n=== {backend} (one after the other: `sae-oracle bench` has pairs)", flush=True)
        codes.append(
            subprocess.run(
                [*command, "--backends", backend],
                env={**os.environ, "KERAS_BACKEND": backend},
                cwd=config.invocation_params.dir,
            ).returncode
        )
    return max(codes, default=pytest.ExitCode.NO_TESTS_COLLECTED)
