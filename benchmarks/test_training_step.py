"""How long is a training step with the penalty, and without it?

    pytest benchmarks                            # every installed backend, one after the other
    KERAS_BACKEND=torch pytest benchmarks        # one

The table that this prints is not paired: quote `sae-oracle bench`, which is.
pytest-benchmark prints the variants of a group side by side. It times one after the other, and on
a machine that does anything else such a difference means little: the paired ratio to the group's
baseline, measured interleaved as `sae-oracle bench` does, is in each benchmark's extra info (and
so in `--benchmark-json`), and printed at the end of each test with -s.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from keras_impl.backends.process import versions
from sae_oracle.bench import keras_steps, native_steps
from sae_oracle.bench.sizes import MNIST
from sae_oracle.bench.statistics import Step, interleave

BACKEND = os.environ.get("KERAS_BACKEND", "")
WAYS = keras_steps.ways(BACKEND, "cpu")
CASES = [
    pytest.param(f"{way}, {form}", name, id=f"{way}, {form}: {name}")
    for way, jit_compile in WAYS.items()
    for form, builds in keras_steps.variants(jit_compile).items()
    for name in builds
] + [
    pytest.param(way, name, id=f"{way}: {name}")
    for way, native in native_steps.steps_of(BACKEND, MNIST).items()
    for name in native
]


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, Step]]:
    """Every variant's step, built and compiled once."""
    x = keras_steps.batch(MNIST)
    groups: dict[str, dict[str, Step]] = {}
    for way, jit_compile in WAYS.items():
        for form, builds in keras_steps.variants(jit_compile).items():
            groups[f"{way}, {form}"] = {
                name: keras_steps.training_step(build(MNIST), x) for name, build in builds.items()
            }
    for way, native in native_steps.steps_of(BACKEND, MNIST).items():
        groups[way] = {name: build() for name, build in native.items()}
    for group in groups.values():
        for step in group.values():
            step()
    return groups


@pytest.mark.parametrize(("group", "name"), CASES)
def test_training_step(
    benchmark: Any, steps: dict[str, dict[str, Step]], group: str, name: str
) -> None:
    """One step of 784-196-784 with 256 rows."""
    baseline = next(iter(steps[group]))
    pair = {baseline: steps[group][baseline], f"{name} ": steps[group][name]}
    timing = interleave({group: pair}, rounds=10, steps=3, time_limit=10.0)[group][f"{name} "]
    benchmark.group = group
    benchmark.name = name
    benchmark.extra_info.update(
        versions=versions(BACKEND),
        ratio=timing.ratio.median,
        ratio_interval=[timing.ratio.low, timing.ratio.high],
        added_seconds=timing.added.median,
    )
    print(f"{timing.ratio.median:.3f} [{timing.ratio.low:.3f}, {timing.ratio.high:.3f}]")
    benchmark.pedantic(steps[group][name], rounds=20, warmup_rounds=2)
    assert timing.seconds > 0.0
