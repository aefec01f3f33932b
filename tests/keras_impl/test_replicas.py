"""Data parallelism on every engine, in processes of its own, against one global batch.

The programs are in `tests/keras_impl/replicas/`; each is run once, and its findings are compared
with the oracle's cost, gradient and three steps of gradient descent on all rows, inside the derived
bounds. They hold for any order of summation, so for sums of sums too; what replicas add is R and
1/R, exact for R = 2 and 4, two roundoffs for 3: less than the m/R additions that they save.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from keras_impl import KLSparsity, KLSparsityRegularizer, SparseAutoencoder
from keras_impl.backends.replicas import sum_over_workers
from tests.fork_server import Forks
from tests.fresh_process import ROOT, environment
from tests.keras_impl.replicas import cases

PROGRAMS = "tests.keras_impl.replicas."
TORCHRUN = "torch.distributed.run"
U = 2.0**-24


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


RUN = """
import json, os, runpy, sys
del sys.argv[0]
os.environ.update(json.loads(sys.argv.pop(0)))
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Programs:
    """Starts processes side by side and waits for all of them; but for torchrun they are forks."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder = folder
        self.forks = forks

    def start(
        self, commands: Sequence[tuple[Sequence[str], dict[str, str]]], name: str
    ) -> list[tuple[Any, Path]]:
        started = []
        for i, (arguments, variables) in enumerate(commands):
            log = self.folder / f"{name}-{i}.log"
            with log.open("wb") as file:
                if TORCHRUN in arguments:
                    command = [sys.executable, *arguments]
                    process: Any = subprocess.Popen(
                        command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT
                    )
                else:
                    process = self.forks.start(RUN, json.dumps(variables), *arguments, stdout=file)
            started.append((process, log))
        return started

    def run(
        self, commands: Sequence[tuple[Sequence[str], dict[str, str]]], name: str, timeout: float
    ) -> None:
        """Raises AssertionError with the end of the log if a process fails or takes too long."""
        started = self.start(commands, name)
        deadline = time.monotonic() + timeout
        try:
            for process, log in started:
                try:
                    code = process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    code = None
                assert code == 0, f"{name}: exit code {code}\n{log.read_text()[-6000:]}"
        finally:
            for process, _ in started:
                process.kill()
                process.wait()


def jax_devices(programs: Programs) -> list[Path]:
    out = programs.folder / "jax.npz"
    flags = "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false"
    arguments = ["-m", PROGRAMS + "on_jax", str(out)]
    programs.run([(arguments, environment("jax", XLA_FLAGS=flags))], "jax", 300)
    return [out]


def jax_processes(programs: Programs) -> list[Path]:
    folder = programs.folder / "jax-processes"
    folder.mkdir()
    flags = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
    address = f"localhost:{free_port()}"
    programs.run(
        [
            (
                ["-m", PROGRAMS + "on_jax_processes", str(folder), address, "2", str(i)],
                environment("jax", XLA_FLAGS=flags),
            )
            for i in range(2)
        ],
        "jax-processes",
        300,
    )
    return [folder / f"{i}.npz" for i in range(2)]


def mirrored(programs: Programs) -> list[Path]:
    out = programs.folder / "mirrored.npz"
    arguments = ["-m", PROGRAMS + "on_tensorflow", str(out)]
    programs.run([(arguments, environment("tensorflow"))], "mirrored", 300)
    return [out]


def tf_config(ports: Sequence[int], index: int) -> str:
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


def multi_worker(programs: Programs) -> list[Path]:
    folder = programs.folder / "multi-worker"
    folder.mkdir()
    ports = [free_port(), free_port()]
    programs.run(
        [
            (
                ["-m", PROGRAMS + "on_tensorflow_workers", str(folder)],
                environment("tensorflow", TF_CONFIG=tf_config(ports, i)),
            )
            for i in range(2)
        ],
        "multi-worker",
        300,
    )
    return [folder / f"{i}.npz" for i in range(2)]


def torchrun(ranks: int, *arguments: str) -> list[str]:
    launcher = ["-m", TORCHRUN, "--standalone", f"--nproc-per-node={ranks}"]
    return [*launcher, *arguments]


def torchrun_2(programs: Programs) -> list[Path]:
    folder = programs.folder / "torchrun-2"
    folder.mkdir()
    arguments = torchrun(2, "-m", PROGRAMS + "on_torch", str(folder))
    programs.run([(arguments, environment("torch"))], "torchrun-2", 300)
    return [folder / f"{i}.npz" for i in range(2)]


def gloo(programs: Programs, ranks: int) -> list[Path]:
    """Groups of 3 and of 4 ranks, forked by one program."""
    folder = programs.folder / "gloo"
    if not folder.exists():
        folder.mkdir()
        arguments = ["-m", PROGRAMS + "on_torch", str(folder), "3", "4"]
        programs.run([(arguments, environment("torch"))], "gloo", 300)
    return [folder / str(ranks) / f"{i}.npz" for i in range(ranks)]


LAUNCHERS: dict[str, Any] = {
    "devices": jax_devices,
    "processes": jax_processes,
    "MirroredStrategy": mirrored,
    "MultiWorkerMirroredStrategy": multi_worker,
    "torchrun 2": torchrun_2,
    "gloo 3": lambda programs: gloo(programs, 3),
    "gloo 4": lambda programs: gloo(programs, 4),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Any:
    """What a program found on each of its processes; it is run the first time one asks."""
    programs = Programs(tmp_path_factory.mktemp("replicas"), forks)
    known: dict[str, Any] = {}

    def of(name: str) -> list[dict[str, Any]]:
        if name not in known:
            try:
                known[name] = [cases.read(path) for path in LAUNCHERS[name](programs)]
            except AssertionError as error:
                known[name] = error
        if isinstance(known[name], AssertionError):
            raise known[name]
        return known[name]

    return of


ON = {
    "devices": "jax",
    "processes": "jax",
    "MirroredStrategy": "tensorflow",
    "MultiWorkerMirroredStrategy": "tensorflow",
    "torchrun 2": "torch",
    "gloo 3": "torch",
    "gloo 4": "torch",
}
NOT_AVERAGED = [kind for kind in cases.RIGHT if "average" not in kind]
EVEN = [
    *(("devices", kind, "4") for kind in NOT_AVERAGED),
    *(("devices", "KLSparsity", key) for key in ("1", "2")),
    *(("devices", f"SparseAutoencoder{form}", "2 x 2") for form in ("", ", from logits")),
    ("processes", "SparseAutoencoder, from logits", "even"),
    *(("MirroredStrategy", kind, "2") for kind in NOT_AVERAGED),
    *(("MirroredStrategy", kind, "4") for kind in cases.FEW if "average" not in kind),
    ("MirroredStrategy", "KLSparsity", "1"),
    ("MirroredStrategy", "SparseAutoencoder, deep and tied", "eager"),
    ("MultiWorkerMirroredStrategy", "SparseAutoencoder, from logits", "even"),
    ("MultiWorkerMirroredStrategy", "KLSparsityRegularizer and KLSparsity", "even"),
    *(("torchrun 2", kind, "even") for kind in NOT_AVERAGED),
    *((f"gloo {n}", kind, "even") for n in (3, 4) for kind in cases.FEW if "average" not in kind),
]
UNEVEN = [
    *(("devices", kind, "rows 23") for kind in cases.UNEVEN),
    *(("MirroredStrategy", kind, f"rows {rows}") for kind in cases.UNEVEN[1:] for rows in (23, 1)),
    ("MultiWorkerMirroredStrategy", "SparseAutoencoder", "rows 23"),
    *(("torchrun 2", kind, f"rows {rows}") for kind in NOT_AVERAGED for rows in (23, 1)),
    *((f"gloo {n}", "SparseAutoencoder, deep and tied", "rows 23") for n in (3, 4)),
]


def on_engines(*lists: list[tuple[str, str, str]]) -> list[Any]:
    return [
        pytest.param(*case, marks=pytest.mark.only_backends(ON[case[0]]), id=" - ".join(case))
        for cases_of in lists
        for case in cases_of
    ]


def arrays(found: dict[str, Any], *key: str) -> list[Any]:
    """A list that a program wrote item by item."""
    prefix = "/".join(key) + "/"
    names = [name for name in found if name.startswith(prefix)]
    return [found[f"{prefix}{i}"] for i in range(len(names))]


def rows_of(key: str) -> Any:
    return cases.data(int(key.split()[1]) if key.startswith("rows") else 24).astype("float64")


def oracle(kind: str, x: Any) -> tuple[reference.BoundedStep, list[Any]]:
    """The cost and the gradient on all rows, and the weights after three steps."""
    step = reference.cost_and_gradient_with_bounds(cases.start(kind), x, **cases.arguments(kind))
    reached = reference.gradient_descent_with_bounds(
        cases.start(kind),
        x,
        steps=cases.STEPS,
        learning_rate=cases.RATE,
        **cases.arguments(kind),
    )
    return step, [*reached.kernels, *reached.biases]


def worst(found: Sequence[Any], expected: Sequence[reference.Bounded]) -> float:
    assert len(found) == len(expected)
    return max(
        reference.usage(array, value).worst for array, value in zip(found, expected, strict=True)
    )


@pytest.mark.equation("EQ-COST", "EQ-SPARSITY", "EQ-SPARSITY-LOGITS", "EQ-GRADIENT", "EQ-RHO-HAT")
@pytest.mark.parametrize(("engine", "kind", "key"), on_engines(EVEN, UNEVEN))
def test_replicas_train_as_one_global_batch(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    """The loss, every gradient, and the weights after three steps, on every replica."""
    ranks = findings(engine)
    step, reached = oracle(kind, rows_of(key))
    losses = [found[f"{kind}/{key}/loss"][0] for found in ranks]
    if kind.startswith("KLSparsityRegularizer") and key == "rows 1":
        # A replica without rows: Keras divides its term by them, and reports 0. Not the gradient.
        losses = losses[:1]
    for loss in losses:
        # What Keras reports is a mean in float32: 2 roundoffs more.
        assert abs(loss - step.cost.total.value) <= step.cost.total.bound * (
            1 + 4 * U
        ) + 4 * U * abs(loss)
    for found in ranks:
        gradient = arrays(found, kind, key, "gradient")
        if gradient:
            gradients = [*step.gradient.kernels, *step.gradient.biases]
            assert worst(gradient, gradients) <= 1.0
        weights = arrays(found, kind, key, "weights")
        assert worst(weights, reached) <= 1.0
        assert all(
            reference.usage(array, value).undecidable == 0.0
            for array, value in zip(weights, reached, strict=True)
        )
        for own, of_first in zip(weights, arrays(ranks[0], kind, key, "weights"), strict=True):
            assert np.array_equal(own, of_first), "replicas drift apart"


AVERAGED = [
    ("devices", "KLSparsity, running average", "4"),
    ("processes", "KLSparsity, running average", "even"),
    *(("MirroredStrategy", "KLSparsity, running average", n) for n in ("2", "4")),
    ("MultiWorkerMirroredStrategy", "KLSparsity, running average", "even"),
    *((e, "KLSparsity, running average", "even") for e in ("torchrun 2", "gloo 3", "gloo 4")),
    *(("torchrun 2", "KLSparsity, running average", f"rows {rows}") for rows in (23, 1)),
]


@pytest.mark.equation("EQ-RHO-HAT-RUNNING")
@pytest.mark.parametrize(("engine", "kind", "key"), on_engines(AVERAGED))
def test_running_average_is_the_global_one_on_every_replica(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    ranks = findings(engine)
    costs, average, parameters = cases.averaged_descent(rows_of(key), cases.STEPS)
    states = [state for found in ranks for state in arrays(found, kind, key, "state")]
    assert len(states) > 1
    # Three steps of a network of sums of at most 24 terms, in float32: under 100 roundoffs each.
    slack = 300 * U
    for state in states:
        assert np.array_equal(state, states[0]), "replicas hold different averages"
        assert np.max(np.abs(state - average)) <= slack
    for found in ranks:
        assert np.max(np.abs(found[f"{kind}/{key}/loss"] - costs)) <= slack * max(costs)
        for own, expected in zip(
            arrays(found, kind, key, "weights"),
            [*parameters.kernels, *parameters.biases],
            strict=True,
        ):
            assert np.max(np.abs(own - expected)) <= slack * max(1.0, np.max(np.abs(expected)))


@pytest.mark.only_backends("torch")
def test_the_average_moves_globally_without_gradients_too(findings: Any) -> None:
    ranks = findings("torchrun 2")
    kind = "KLSparsity, running average"
    passed = reference.forward(cases.start(kind), cases.data(24).astype("float64"))
    for found in ranks:
        (state,) = arrays(found, kind, "no_grad", "state")
        assert np.max(np.abs(state - reference.mean_activation(passed.hidden[0]))) <= 100 * U


PER_REPLICA = [
    (engine, kind, key)
    for engine, key in (("MirroredStrategy", "2"), ("torchrun 2", "even"))
    for kind in cases.WRONG
]


@pytest.mark.equation("EQ-SPARSITY")
@pytest.mark.parametrize(("engine", "kind", "key"), on_engines(PER_REPLICA))
def test_the_plain_mean_of_each_replica_is_caught(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    """`cross_replica=False`: a mean of KLs in place of the KL of the mean, by far out of bounds."""
    ranks = findings(engine)
    step, reached = oracle(kind, rows_of(key))
    loss = float(np.mean([found[f"{kind}/{key}/loss"][0] for found in ranks]))
    # KL is convex: the mean of KLs is the larger.
    assert loss - step.cost.total.value > 1000 * step.cost.total.bound
    gradients = [*step.gradient.kernels, *step.gradient.biases]
    assert worst(arrays(ranks[0], kind, key, "gradient"), gradients) > 1000
    assert worst(arrays(ranks[0], kind, key, "weights"), reached) > 1000


WORKERS = [
    (engine, kind, "full")
    for engine in ("processes", "MultiWorkerMirroredStrategy", "torchrun 2", "gloo 3")
    for kind in cases.FULL[engine == "gloo 3" :]
]


@pytest.mark.equation("EQ-COST", "EQ-GRADIENT", "EQ-RHO-HAT-CHUNKS")
@pytest.mark.parametrize(("engine", "kind", "key"), on_engines(WORKERS))
def test_exact_cost_and_gradient_with_the_data_split_over_workers(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    ranks = findings(engine)
    step, _ = oracle(kind, cases.data(23).astype("float64"))
    terms = [step.cost.reconstruction, step.cost.weight_decay, step.cost.sparsity]
    gradients = [*step.gradient.kernels, *step.gradient.biases]
    for found in ranks:
        assert worst(arrays(found, kind, key, "cost"), terms) <= 1.0
        assert worst(arrays(found, kind, key, "gradient"), gradients) <= 1.0
        for name in (f"{kind}/{key}/loss", f"{kind}/{key}/gradient/0"):
            assert np.array_equal(found[name], ranks[0][name])


@pytest.mark.parametrize(
    ("engine", "kind", "key"),
    on_engines(
        [(engine, cases.FULL[-1], "lbfgs") for engine in dict.fromkeys(case[0] for case in WORKERS)]
    ),
)
def test_lbfgs_over_workers_descends_as_on_all_the_data(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    """The same minimiser on each worker; and the first iterations of one process."""
    from keras_impl import fit_lbfgs

    ranks = findings(engine)
    model = cases.build(kind)
    losses = fit_lbfgs(model, cases.data(23), iterations=5, batch_size=5, verbose=False).history[
        "loss"
    ]
    for found in ranks:
        for own, of_first in zip(
            arrays(found, kind, key, "reached"), arrays(ranks[0], kind, key, "reached"), strict=True
        ):
            assert np.array_equal(own, of_first)
        # Each iteration amplifies the rounding of the one before: the first is within its bound.
        bound = oracle(kind, cases.data(23).astype("float64"))[0].cost.total.bound
        assert abs(found[f"{kind}/{key}/loss"][0] - losses[0]) <= 2 * bound
        assert np.max(np.abs(found[f"{kind}/{key}/loss"] - losses)) <= 1e-3 * losses[0]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("engine", "kind", "key"),
    on_engines(
        [
            (engine, "workers", "sum")
            for engine in ON
            if engine not in ("devices", "MirroredStrategy")
        ]
    ),
)
def test_sums_over_workers_are_float64_and_equal(
    findings: Any, engine: str, kind: str, key: str
) -> None:
    ranks = findings(engine)
    n = len(ranks)
    for found in ranks:
        assert found["workers/count"] == n
        assert found["workers/sum"].dtype == np.float64
        assert found["workers/sum"].tolist() == [n, 2.0**-40 * sum(range(n))]
        assert "must be the same on every worker" in str(found["different/weights/refused"])


@pytest.mark.only_backends("tensorflow")
def test_fit_under_a_strategy_with_a_short_last_batch(findings: Any) -> None:
    """47 rows in batches of 24: two steps, and every sample counts once in each."""
    (found,) = findings("MirroredStrategy")
    x = cases.data(47).astype("float64")
    parameters = cases.start("SparseAutoencoder")
    settings = {"rho": cases.RHO, "beta": cases.BETA, "weight_decay": cases.DECAY}
    costs = []
    for batch in (x[:24], x[24:]):
        costs.append(reference.sparse_autoencoder_cost(parameters, batch, **settings).total)
        gradient = reference.sparse_autoencoder_gradient(parameters, batch, **settings)
        parameters = reference.Parameters(
            [w - cases.RATE * g for w, g in zip(parameters.kernels, gradient.kernels, strict=True)],
            [b - cases.RATE * g for b, g in zip(parameters.biases, gradient.biases, strict=True)],
        )
    expected = [*parameters.kernels, *parameters.biases]
    for own, value in zip(arrays(found, "short", "last", "weights"), expected, strict=True):
        # Two steps in float32, under 100 roundoffs each.
        assert np.max(np.abs(own - value)) <= 200 * U * max(1.0, np.max(np.abs(value)))
    mean = (24 * costs[0] + 23 * costs[1]) / 47
    assert abs(found["short/last/loss"][0] - mean) <= 200 * U * mean


@pytest.mark.only_backends("tensorflow")
def test_activity_losses_of_other_layers_survive_the_wait(findings: Any) -> None:
    """Replicas of MirroredStrategy share the layers, and a waiting one loses its losses to others.

    `l2` regularizers before two of our layers: two replicas train as one does.
    """
    (found,) = findings("MirroredStrategy")
    weights_of_1, weights_of_2 = (arrays(found, "others", n, "weights") for n in ("1", "2"))
    assert len(weights_of_1) == len(weights_of_2) > 4
    for alone, together in zip(weights_of_1, weights_of_2, strict=True):
        # Three steps in float32, under 100 roundoffs each.
        slack = 300 * U * max(1.0, np.max(np.abs(alone)))
        assert np.max(np.abs(alone - together)) <= slack
    losses = [found[f"others/{n}/loss"] for n in ("1", "2")]
    assert np.max(np.abs(losses[0] - losses[1])) <= 300 * U * np.max(losses)


REFUSED = [
    ("devices", "SparseAutoencoder", "rows 23", "divide"),
    ("processes", "SparseAutoencoder", "fit", "without a distribution"),
    *(
        ("torchrun 2", kind, "fit", "averages no gradients over the 2 processes")
        for kind in ("KLSparsity", "KLSparsityRegularizer", "SparseAutoencoder")
    ),
]


@pytest.mark.parametrize(
    ("engine", "kind", "key", "message"),
    [
        pytest.param(*case, marks=pytest.mark.only_backends(ON[case[0]]), id=" - ".join(case[:3]))
        for case in REFUSED
    ],
)
def test_the_wrong_route_raises(
    findings: Any, engine: str, kind: str, key: str, message: str
) -> None:
    for found in findings(engine):
        assert message in str(found[f"{kind}/{key}/refused"])


DYING_SECONDS = {"jax": 60, "tensorflow": 60, "torch": 30}
"""Stated in docs/replicas.md, for time-outs of 10 seconds."""


@pytest.mark.only_backends(*DYING_SECONDS)
def test_a_worker_that_dies_stops_the_others(tmp_path: Path, backend: str, forks: Forks) -> None:
    """Two processes train for ever; one is killed, and the other ends with an error by itself."""
    ports = [free_port(), free_port()]
    started = Programs(tmp_path, forks).start(
        [
            (
                ["-m", PROGRAMS + "dying", f"localhost:{ports[0]}", str(i)],
                environment(backend, TF_CONFIG=tf_config(ports, i)),
            )
            for i in range(2)
        ],
        "dying",
    )
    (survivor, log), (victim, of_victim) = started
    try:
        deadline = time.monotonic() + 200
        while not all("step 3" in file.read_text(errors="replace") for file in (log, of_victim)):
            assert survivor.poll() is None, log.read_text(errors="replace")[-6000:]
            assert time.monotonic() < deadline, "never trained"
            time.sleep(0.1)
        victim.kill()
        assert survivor.wait(DYING_SECONDS[backend]) != 0
    finally:
        for process, _ in started:
            process.kill()
            process.wait()


def example(name: str, *launcher: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    return [*launcher, f"examples/replicas_{name}.py"], environment(name, **variables)


EXAMPLES: dict[str, Any] = {
    "jax": lambda: (
        [example("jax")],
        [example("jax", XLA_FLAGS="--xla_force_host_platform_device_count=4")],
    ),
    "tensorflow": lambda: (
        [example("tensorflow")],
        [
            example("tensorflow", TF_CONFIG=tf_config(ports, i))
            for ports in [[free_port(), free_port()]]
            for i in range(2)
        ],
    ),
    "torch": lambda: (
        [
            example(
                "torch",
                RANK="0",
                WORLD_SIZE="1",
                MASTER_ADDR="localhost",
                MASTER_PORT=str(free_port()),
            )
        ],
        [example("torch", *torchrun(2))],
    ),
}


@pytest.mark.only_backends(*EXAMPLES)
def test_the_example_trains_the_same_model_on_several(
    tmp_path: Path, backend: str, forks: Forks
) -> None:
    """`examples/replicas_*.py`: the exact cost that one replica reaches, and that several reach."""
    programs = Programs(tmp_path, forks)
    single, several = EXAMPLES[backend]()
    programs.run([*single, *several], "example", 300)
    text = "".join(log.read_text() for log in sorted(tmp_path.iterdir()))
    costs = {
        int(count): float(cost)
        for count, cost in re.findall(r"^(\d) (?:devices|replicas|processes): (.*)$", text, re.M)
    }
    assert len(costs) == 2, text[-3000:]
    first, second = costs.values()
    # 18 steps in float32, under 100 roundoffs each.
    assert abs(first - second) <= 1800 * U * first


@pytest.mark.only_backends("jax")
def test_a_shard_of_shard_map_is_refused() -> None:
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))
    rows = jax.sharding.PartitionSpec("rows")

    def of_shard(penalty: Any) -> Any:
        mapped = jax.shard_map(lambda a: penalty(a)[None], mesh=mesh, in_specs=rows, out_specs=rows)
        return mapped(np.full((4, 2), 0.25, "float32"))

    with pytest.raises(RuntimeError, match="that of one shard"):
        of_shard(KLSparsityRegularizer(0.1, batch_scaling=False))
    of_shard(KLSparsityRegularizer(0.1, batch_scaling=False, cross_replica=False))


@pytest.mark.inference
@pytest.mark.parametrize("kind", [KLSparsity, KLSparsityRegularizer, SparseAutoencoder])
def test_cross_replica_is_a_flag(kind: Any) -> None:
    arguments = {"hidden_units": 3} if kind is SparseAutoencoder else {}
    made = kind(**arguments, cross_replica=False)
    assert made.get_config()["cross_replica"] is False
    with pytest.raises(TypeError, match=r"`cross_replica` must be True or False.*1"):
        kind(**arguments, cross_replica=1)


@pytest.mark.inference
@pytest.mark.parametrize("array", [[1.0], np.arange(3), np.ones(2, np.float16)])
def test_sum_over_workers_takes_float_arrays(array: Any) -> None:
    with pytest.raises(TypeError, match="`array` must be a NumPy array of float32 or float64"):
        sum_over_workers(array)
