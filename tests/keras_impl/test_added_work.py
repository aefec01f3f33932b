"""What the penalty adds to a step, counted exactly: a change that adds a kernel fails, by name.

Times need an idle machine (`sae-oracle bench`); counts do not. They are those of the versions that
`constraints.txt` pins, on a CPU: another version may fuse otherwise, and nothing is wrong then.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from benchmarks import penalty_alone
from keras_impl import KLSparsityRegularizer
from keras_impl.backends import custom_gradients
from tests.fresh_process import ROOT

BACKEND = keras.config.backend()
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
PLAIN, LOGITS = "KLSparsityRegularizer", "KLSparsityRegularizer, logits"
ROWS, UNITS = 256, 196
ACTIVATIONS = 4 * ROWS * UNITS  # bytes

# By backend and penalty: kernels of value and gradient with it, less those without.
KERNELS = {
    ("torch", PLAIN): {
        "aten._local_scalar_dense.default": 2,  # is a mean beyond an edge? On a CPU no wait
        "aten._to_copy.default": 4,  # means to float64 and back, in both directions
        "aten.add.Tensor": 1,
        "aten.aminmax.default": 1,
        "aten.binary_cross_entropy.default": 2,
        "aten.binary_cross_entropy_backward.default": 1,
        "aten.div.Tensor": 2,
        "aten.full_like.default": 1,
        "aten.mul.Tensor": 2,
        "aten.sub.Tensor": 1,
        "aten.sum.dim_IntList": 1,
    },
    ("torch", LOGITS): {
        "aten._local_scalar_dense.default": 2,  # is a logit beyond ±40?
        "aten.add.Tensor": 1,
        "aten.aminmax.default": 1,
        "aten.div.Tensor": 2,
        "aten.log.default": 2,
        "aten.mul.Tensor": 5,
        "aten.mul_.Tensor": 2,
        "aten.neg.default": 1,
        "aten.reciprocal.default": 2,
        "aten.sigmoid.default": 2,
        "aten.sub_.Tensor": 4,
        "aten.sum.default": 1,
        "aten.sum.dim_IntList": 2,
    },
    # As the tests compile; XLA's newer emitters, which they leave out, make one more of each.
    ("jax", PLAIN): {"fusion": 4},
    ("jax", LOGITS): {"fusion": 11},
    ("tensorflow", PLAIN): {
        "AddN": 1,
        "AddV2": 2,
        "BroadcastTo": 1,
        "ConcatV2": 1,
        "Fill": 1,
        "IdentityN": 2,
        "Less": 1,
        "Log": 2,
        "Log1p": 1,
        "Maximum": 3,
        "Minimum": 3,
        "Mul": 10,
        "Neg": 2,
        "RealDiv": 5,
        "Reshape": 3,
        "SelectV2": 2,
        "StopGradient": 1,
        "StridedSlice": 2,
        "Sub": 6,
        "Sum": 4,
    },
    ("tensorflow", LOGITS): {
        "AddN": 1,
        "AddV2": 4,
        "Cast": 1,
        "ConcatV2": 2,
        "Exp": 3,
        "Fill": 1,
        "IdentityN": 4,
        "Less": 3,
        "Log": 2,
        "Max": 1,
        "Maximum": 1,
        "Min": 1,
        "Mul": 20,
        "Neg": 10,
        "RealDiv": 8,
        "Reciprocal": 2,
        "Relu": 5,
        "Reshape": 7,
        "SelectV2": 2,
        "Sigmoid": 1,
        "StopGradient": 1,
        "StridedSlice": 4,
        "Sub": 8,
        "Sum": 7,
        "Tile": 1,
    },
}
# How many bytes they read and write, in units of the activations; what is left over are vectors.
PASSES = {("torch", PLAIN): 3, ("torch", LOGITS): 17, ("jax", PLAIN): 1, ("jax", LOGITS): 8}


def measured(penalty: str) -> Any:
    z = np.random.default_rng(0).normal(size=(ROWS, UNITS)).astype(np.float32)
    return penalty_alone.MEASURES[BACKEND](
        penalty_alone.PENALTIES[penalty], ops.convert_to_tensor(z)
    )


@pytest.mark.only_backends("jax", "tensorflow", "torch")
@pytest.mark.parametrize("penalty", [PLAIN, LOGITS])
def test_kernels_and_bytes_that_a_penalty_adds(penalty: str) -> None:
    package = {"torch": "torch", "jax": "jaxlib", "tensorflow": "tensorflow"}[BACKEND]
    if version(package).split("+")[0] != PINS[package]:
        pytest.skip(f"counts are those of {package} {PINS[package]}")
    kernels, moved, _ = measured(penalty)
    without, moved_without, _ = measured("none")
    added: Counter[str] = Counter(kernels)
    added.subtract(without)
    assert {name: count for name, count in added.items() if count} == KERNELS[BACKEND, penalty]
    if BACKEND != "tensorflow":  # which does not count them
        assert (moved - moved_without) // ACTIVATIONS == PASSES[BACKEND, penalty]


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("from_logits", [False, True])
def test_no_wait_where_an_answer_is_not_at_hand(
    monkeypatch: pytest.MonkeyPatch, from_logits: bool
) -> None:
    """On a GPU each number that Python asks for is a wait for the device, and a transfer."""
    import torch

    monkeypatch.setattr(custom_gradients, "answers_at_once", lambda x: False)
    z = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32))
    penalty = KLSparsityRegularizer(0.1, 3.0, from_logits=from_logits)

    def step() -> None:
        leaf = z.detach().requires_grad_()
        torch.autograd.grad(penalty(leaf if from_logits else torch.sigmoid(leaf)), leaf)

    with penalty_alone.count_on_torch() as count:
        step()
    assert count.kernels.total() > 10
    for asking in ("_local_scalar_dense", "item", "equal", "nonzero"):
        assert not any(asking in name for name in count.kernels), count.kernels
