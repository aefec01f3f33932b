"""A review in process leaves everything around it as it was."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from sae_oracle import review

TARGET = """
import json, os, random, sys
import keras
import numpy as np
import neighbour_of_the_target
from keras_impl import KLSparsityRegularizer

random.seed(0)
np.random.seed(0)
keras.utils.set_random_seed(0)
os.environ["LEFT_BY_THE_TARGET"] = "1"
os.environ.pop("SET_BEFORE", None)
sys.path.insert(0, "/nowhere")
sys.modules["json"] = sys
os.chdir("/")
keras.config.set_floatx("float64")
np.seterr(all="raise")
Mine = KLSparsityRegularizer
"""


def test_everything_around_a_review_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import keras

    (tmp_path / "target_of_the_test.py").write_text(TARGET)
    (tmp_path / "neighbour_of_the_target.py").write_text("")
    monkeypatch.setenv("SET_BEFORE", "1")

    def around() -> list[object]:
        legacy = np.random.get_state()  # noqa: NPY002
        return [
            random.getstate(),
            (legacy[1].tolist(), legacy[2]),
            dict(os.environ),
            [*sys.path],
            os.getcwd(),
            keras.config.floatx(),
            np.geterr(),
        ]

    before = around()
    found = review(f"{tmp_path / 'target_of_the_test.py'}:Mine", rho="rho", beta="beta")
    assert not found.reason
    assert around() == before
    assert sys.modules["json"] is json
    assert not {"target_of_the_test", "neighbour_of_the_target"} & set(sys.modules)
