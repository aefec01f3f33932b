"""`sae-oracle train`: what it writes and prints, and that bad calls leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import reference
from sae_oracle import cli, pictures, processes
from sae_oracle import train as training
from sae_oracle.cli import main, parser
from sae_oracle.encode import encode
from sae_oracle.processes import TRAINING_BACKENDS, installed
from sae_oracle.samples import Preprocessing, read_samples
from tests.fork_server import Forks
from tests.fresh_process import FOREIGN, crowd, environment, with_foreign_names

BACKEND = next((name for name in TRAINING_BACKENDS if installed(name)), None)
needs_a_backend = pytest.mark.skipif(
    BACKEND is None, reason="no backend with gradients is installed"
)
# What starts slowly and compiles nothing, for what is started once.
FORKED = next((name for name in reversed(TRAINING_BACKENDS) if installed(name)), "")
# The exercise takes its pictures from scikit-learn; Matplotlib draws.
ENVIRONMENT = environment(BACKEND, hidden=("tensorflow",))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sae_oracle", "train", *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=folder,
        env=with_foreign_names(ENVIRONMENT),
        timeout=300,
    )


@pytest.fixture
def server(
    tmp_path: Path, forked: Callable[[str], Forks], monkeypatch: pytest.MonkeyPatch
) -> Forks:
    """What `here` starts is a fork of it; the working folder is the test's own."""
    monkeypatch.chdir(tmp_path)
    return forked(FORKED)


def here(
    capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "train", status: int = 0
) -> str:
    """Run the command in this process; return what it prints."""
    capsys.readouterr()
    found = main([command, f"--backend={FORKED}", *arguments])
    printed = capsys.readouterr()
    assert found == status, printed
    return " ".join(printed.out.split()) if status else printed.out


@needs_a_backend
@pytest.mark.equation("EQ-FEATURE")
def test_it_writes_a_model_its_history_and_a_picture(
    tmp_path: Path, server: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).uniform(size=(50, 16))
    np.save(tmp_path / "x.npy", x)
    crowd(tmp_path)
    options = ("--data=x.npy", "--hidden=5", "--rho=0.2", "--iterations=7", "--out=out")
    printed = here(capsys, *options)
    foreign = {name.partition("/")[0] for name in FOREIGN}
    assert sorted({*os.listdir(tmp_path)} - foreign) == ["out", "x.npy"]
    assert sorted(os.listdir(tmp_path / "out")) == ["features.png", "history.json", "model.keras"]
    found = json.loads((tmp_path / "out" / "history.json").read_text())
    assert found["samples"] == 50
    assert found["settings"]["rho"] == 0.2
    assert found["iterations"] == len(found["history"]["loss"]) == 7
    # What is written, loaded in a fresh process, has the cost that was reported: float32 twice.
    program = (
        "import sys, keras, numpy as np, keras_impl\n"
        "model = keras.saving.load_model('out/model.keras')\n"
        "print(keras_impl.full_cost(model, np.load('x.npy')).total)\n"
    )
    total = found["cost"]["total"]
    loaded = server.run(program).splitlines()[-1]
    assert abs(float(loaded) - total) <= 2 * 2.0**-24 * total
    assert f"cost {total:.6g} = reconstruction" in printed


# The command, and a signal after some iterations.
SIGNALLED = """
import os, signal, sys
from sae_oracle import cli

run_backend = cli.run_backend

def run(module, arguments, backend, device, on_message, **named):
    def interrupting(message):
        on_message(message)
        if message["kind"] == "step" and message["done"] == int(sys.argv[2]):
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return run_backend(module, arguments, backend, device, interrupting, **named)

cli.run_backend = run
sys.exit(cli.main(["train", "--out=out", *sys.argv[3:]]))
"""


def signalled(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
        timeout=300,
    )


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("interrupted")
    return folder, signalled(folder, "SIGINT", "4", "--iterations=1000000")


@needs_a_backend
def test_kill_9_loses_at_most_an_interval_and_resume_goes_on(
    tmp_path: Path, interrupted: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    """In real processes, the second in a folder that has names which they import."""
    every = "--checkpoint-iterations=4"
    done = signalled(tmp_path, "SIGKILL", "7", "--iterations=1000000", every)
    assert done.returncode == -9
    assert "checkpoint.npz" in os.listdir(tmp_path / "out")
    crowd(tmp_path)
    again = run(tmp_path, "--out=out", "--iterations=12", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "L-BFGS has forgotten its curvature" in again.stdout
    found = json.loads((tmp_path / "out" / "history.json").read_text())
    assert found["iterations"] == len(found["history"]["loss"]) == 12
    # At least the fourth; the process may have gone on a little before it ended.
    assert 4 <= found["resumed_at"] <= 12
    uninterrupted = json.loads((interrupted[0] / "out" / "history.json").read_text())
    first = uninterrupted["history"]["loss"][:4]
    assert found["history"]["loss"][:4] == first
    assert found["cost"]["total"] <= min(first) * (1.0 + 2.0**-20)
    assert sorted(os.listdir(tmp_path / "out")) == ["features.png", "history.json", "model.keras"]
    other = run(tmp_path, "--out=out", "--resume")
    assert other.returncode == 2
    assert "--resume needs" in other.stdout


@needs_a_backend
def test_ctrl_c_writes_the_best_weights_and_says_so(
    tmp_path: Path,
    interrupted: tuple[Path, subprocess.CompletedProcess[str]],
    server: Forks,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, done = interrupted
    assert done.returncode == 130, done.stdout + done.stderr
    assert "Interrupted after" in done.stdout
    found = json.loads((folder / "out" / "history.json").read_text())
    assert found["message"] == "interrupted"
    losses = found["history"]["loss"]
    assert 4 <= found["iterations"] == len(losses) < 1_000_000
    # What is written is the best seen: no worse than any iteration, up to float32 rounding.
    assert found["cost"]["total"] <= min(losses) * (1.0 + 2.0**-20)
    assert sorted(os.listdir(folder)) == ["out"]
    # It can go on, but only as what it was.
    assert (folder / "out" / "checkpoint.npz").is_file()
    np.save(tmp_path / "x.npy", np.full((2, 64), 0.5))
    resumed = ("--data=x.npy", f"--out={folder / 'out'}", "--resume")
    for option, words in (
        ("--rho=0.02", "--rho was 0.01 when it was written. Received 0.02."),
        ("--preprocess=rescale", "--preprocess was none when it was written. Received rescale."),
    ):
        assert main(["train", f"--backend={FORKED}", *resumed, option]) == 2
        assert words in capsys.readouterr().out
    # As it was written when the name of the model said what --preprocess was.
    (tmp_path / "earlier").mkdir()
    with np.load(folder / "out" / "checkpoint.npz") as stored:
        theta, about = stored["theta"], json.loads(str(stored["about"]))
    del about["notes"]
    about["model"]["name"] = "sparse_autoencoder_of_rescaled_columns"
    np.savez(tmp_path / "earlier" / "checkpoint.npz", theta=theta, about=json.dumps(about))
    earlier = ("--data=x.npy", "--out=earlier", "--resume", "--iterations=1")
    refused = here(capsys, *earlier, status=2)
    assert "--preprocess was rescale when it was written. Received none." in refused
    printed = here(capsys, *earlier, "--preprocess=rescale")
    assert "the checkpoint has all iterations" in printed


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be trained on, and what is said."""
    ones = np.full((4, 3), 0.5)
    np.save(folder / "vector.npy", ones[0])
    np.save(folder / "images.npy", np.zeros((4, 2, 2)))
    np.save(folder / "empty.npy", np.zeros((0, 3)))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.save(folder / "complex.npy", ones * 1j)
    np.save(folder / "pickled.npy", np.array([[object()]]), allow_pickle=True)
    np.save(folder / "outside.npy", ones * 3.0)
    np.savez(folder / "several.npz", a=ones, b=ones)
    broken = ones.copy()
    broken[2, 1] = np.nan
    np.save(folder / "nan.npy", broken)
    (folder / "no.npy").write_text("not an array")
    (folder / "cut.npy").write_bytes((folder / "images.npy").read_bytes()[:140])
    return {
        "missing.npy": "No such file",
        "vector.npy": "must hold a matrix, a row a sample. It has shape (3,)",
        "images.npy": "must hold a matrix, a row a sample. It has shape (4, 2, 2)",
        "empty.npy": "must hold a matrix, a row a sample. It has shape (0, 3)",
        "text.npy": "must hold real numbers",
        "complex.npy": "must hold real numbers. It holds complex128",
        "pickled.npy": "is no .npy file of numbers",
        "outside.npy": "values from 1.5 to 1.5, and a sigmoid output reaches (0, 1) only",
        "several.npz": "must hold one array",
        "nan.npy": "must hold finite numbers. Row 2 does not",
        "no.npy": "is no .npy file of numbers",
        "cut.npy": "is no .npy file of numbers",
    }


def problem(*arguments: str) -> str | None:
    parsed = parser().parse_args(["train", *arguments])
    try:
        found = training.problem_with(parsed)
        if found is None:
            training.samples_of(parsed)
    except ValueError as error:
        return str(error)
    return found


def test_bad_files_are_named(tmp_path: Path) -> None:
    out = f"--out={tmp_path / 'out'}"
    for name, message in bad_files(tmp_path).items():
        answer = problem(f"--data={tmp_path / name}", out)
        assert answer is not None, name
        assert message in answer, (name, answer)
        assert name in answer, (name, answer)
    np.save(tmp_path / "outside.npy", np.full((4, 3), -2.0))
    assert problem(f"--data={tmp_path / 'outside.npy'}", "--output-activation=linear", out) is None
    np.save(tmp_path / "integers.npy", np.eye(3, dtype=int))
    assert problem(f"--data={tmp_path / 'integers.npy'}", out) is None


def test_files_of_every_kind_hold_the_same(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "single.npz", x)
    np.savez_compressed(tmp_path / "several.npz", train=x, test=x[::-1])
    lines = "\n".join(",".join(map(repr, row)) for row in x.tolist())
    quoted = "\r\n".join(",".join(f' "{v!r}"'.strip() for v in row) for row in x.tolist())
    (tmp_path / "plain.csv").write_text(lines)
    (tmp_path / "header.CSV").write_text(f"\ufeff\nlength,,no. 3\n{lines}\n\n", encoding="utf-8")
    (tmp_path / "quoted.csv").write_bytes(quoted.encode())
    for name, key in (
        ("x.npy", None), ("single.npz", None), ("single.npz", "arr_0"), ("several.npz", "train"),
        ("plain.csv", None), ("header.CSV", None), ("quoted.csv", None),
    ):  # fmt: skip
        assert np.array_equal(read_samples(tmp_path / name, key), x), name
    assert np.array_equal(read_samples(tmp_path / "several.npz", "test"), x[::-1])


@needs_a_backend
def test_validation_from_another_array_and_what_it_costs(
    tmp_path: Path, server: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).uniform(size=(50, 6))
    np.savez(tmp_path / "x.npz", train=x[:40], test=x[40:])
    data = ("--data=x.npz", "--key=train", "--validation=x.npz", "--validation-key=test")
    printed = here(capsys, *data, "--hidden=3", "--iterations=4", "--out=out")
    found = json.loads((tmp_path / "out" / "history.json").read_text())
    assert found["samples"] == 40
    last = found["history"]["val_loss"][-1]
    # The last iteration is the best here: the same sums twice, in float32.
    assert abs(found["validation"]["total"] - last) <= 60 * 2.0**-24 * last
    assert abs(found["validation"]["total"] - found["cost"]["total"]) > 1e-3 * last  # other samples
    assert f"validation cost {found['validation']['total']:.6g}" in printed


ENCODED = """
import json, sys, keras, numpy as np, keras_impl
model = keras.saving.load_model("out/model.keras")
np.save("expected.npy", keras.ops.convert_to_numpy(model.encode(np.load("prepared.npy"))))
np.save("cost.npy", keras_impl.full_cost(model, np.load("held.npy")).total)
"""


@needs_a_backend
@pytest.mark.parametrize("kind", ["standardize", "rescale", "none"])
def test_raw_samples_are_encoded_as_they_were_trained_on(
    tmp_path: Path, kind: str, server: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).uniform(5.0, 9.0, size=(30, 4))
    x[:, 2] = 7.0
    x = x if kind != "none" else x / 10.0
    np.save(tmp_path / "x.npy", x)
    linear = "--output-activation=linear" if kind == "standardize" else "--rho=0.1"
    options = ("--data=x.npy", f"--preprocess={kind}", linear, "--hidden=3", "--iterations=3")
    np.save(tmp_path / "validation.npy", x[:9])
    # What is not trained on is prepared as what is, and not by its own mean or range.
    np.save(tmp_path / "held.npy", Preprocessing.fitted(kind, x)(x)[:9])
    here(capsys, *options, "--validation=validation.npy", "--out=out")
    written = json.loads((tmp_path / "out" / "history.json").read_text())
    spread = {"standardize": x.std(axis=0), "rescale": (x.max(axis=0) - x.min(axis=0)) / 0.8}
    middle = {"standardize": x.mean(axis=0), "rescale": x.min(axis=0)}
    prepared = x
    if kind != "none":
        scale = np.where(x.max(axis=0) > x.min(axis=0), spread[kind], 1.0)
        prepared = (x - middle[kind]) / scale + (0.1 if kind == "rescale" else 0.0)
        prepared[:, 2] = 0.5 if kind == "rescale" else 0.0
    else:  # as 0.1.0 wrote it, which could not preprocess
        history = tmp_path / "out" / "history.json"
        found = json.loads(history.read_text())
        del found["preprocessing"]
        history.write_text(json.dumps(found))
    np.save(tmp_path / "prepared.npy", prepared)
    (tmp_path / "raw.csv").write_text("\n".join(",".join(map(repr, row)) for row in x.tolist()))
    out = "code.csv" if kind == "none" else "code.npy"
    here(capsys, "out", "--data=raw.csv", f"--out={out}", command="encode")
    server.run(ENCODED)
    assert written["validation"]["total"] == np.load(tmp_path / "cost.npy")
    if kind == "none":  # which keeps no number of columns but that of the model
        np.save(tmp_path / "wide.npy", np.zeros((3, 5)))
        wide = ("out", "--data=wide.npy", "--out=no.npy")
        assert "the model takes 4 columns. Received 5." in here(
            capsys, *wide, command="encode", status=2
        )
    code, expected = read_samples(tmp_path / out), np.load(tmp_path / "expected.npy")
    assert code.shape == (30, 3)
    # The same model; the inputs differ by roundings of float64, so by one of float32 each.
    assert np.max(np.abs(code - expected)) <= 16 * 2.0**-24 * (1.0 + 4 * np.abs(prepared).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_code_in_text_is_the_code_to_the_last_bit(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "model.keras").touch()
    kept = {"preprocessing": {"kind": "none", "offset": [], "scale": []}}
    (tmp_path / "history.json").write_text(json.dumps(kept))
    np.save(tmp_path / "x.npy", np.ones((5, 2)))
    code = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype)

    def worker(module: str, options: list[str], *others: Any) -> dict[str, Any]:
        (file,) = (option[7:] for option in options if option.startswith("--into="))
        np.save(file, code)
        return {"kind": "result", "shape": [5, 3]}

    data, out = tmp_path / "x.npy", tmp_path / "code.csv"
    arguments = parser().parse_args(["encode", str(tmp_path), f"--data={data}", f"--out={out}"])
    assert encode(arguments, "any", worker, Console(quiet=True)) == 0
    assert np.array_equal(read_samples(out).astype(dtype), code)


@pytest.mark.parametrize("value", [0.1, 1.0 / 3.0, 7.0])
def test_a_constant_column_is_only_moved(value: float) -> None:
    """A mean of equal numbers may be a rounding off; divided by that deviation it would be 1."""
    x = np.full((30, 1), value)
    for kind, middle in (("standardize", 0.0), ("rescale", 0.5)):
        moved = Preprocessing.fitted(kind, x)(x)
        assert np.all(np.abs(moved - middle) <= 4 * 2.0**-52 * value), kind


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    out = f"--out={tmp_path / 'out'}"
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--hidden=0", out], "--hidden must be positive"),
        (["--iterations=-1", out], "--iterations must be positive"),
        (["--rho=1.5", out], "--rho must lie in (0, 1). Received 1.5."),
        (["--beta=-1", out], "--beta must lie in [0, inf). Received -1.0."),
        (["--weight-decay=nan", out], "--weight-decay"),
        ([f"--out={tmp_path / 'file'}"], "--out must be a folder"),
    ):
        answer = problem(*arguments)
        assert answer is not None, arguments
        assert message in answer, answer
    assert problem(out) is None


def test_the_environment_names_the_backend_where_no_option_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for `sae-oracle review`; one that cannot train is none."""
    asked: list[str] = []
    monkeypatch.setattr(cli, "installed", lambda name: True)
    monkeypatch.setattr(processes, "installed", lambda name: True)
    monkeypatch.setattr(
        training, "train", lambda arguments, backend, *_: asked.append(backend) or 0
    )
    first, last = TRAINING_BACKENDS[0], TRAINING_BACKENDS[-1]
    for named in (last, "numpy", ""):
        monkeypatch.setenv("KERAS_BACKEND", named)
        assert main(["train"]) == main(["train", f"--backend={last}"]) == 0
    assert asked == [last, last, first, last, first, last]


def test_a_bad_call_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--data=missing.npy")
    assert done.returncode == 2
    assert "No such file: missing.npy" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_process_that_fails_leaves_nothing(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    def failing(module: str, arguments: Any, *others: Any, **named: Any) -> dict[str, Any]:
        folder = next(a for a in arguments if a.startswith("--folder=")).removeprefix("--folder=")
        (Path(folder) / "model.keras").write_text("half")
        return {"kind": "error", "error": "The sparsity term is not finite"}

    chosen = parser().parse_args(["train", f"--out={tmp_path / 'out'}"])
    console = Console(file=io.StringIO(), width=120)
    assert training.train(chosen, "jax", failing, console) == 1
    assert os.listdir(tmp_path) == []
    assert isinstance(console.file, io.StringIO)
    assert "The sparsity term is not finite" in console.file.getvalue()


@pytest.mark.equation("EQ-FEATURE")
def test_a_tile_shows_the_exciting_input_of_its_unit() -> None:
    kernel = np.random.default_rng(0).normal(size=(64, 5))
    image = pictures.tiles(kernel)
    features = reference.maximally_exciting_inputs(kernel)
    assert image.shape == (2 * 9 + 1, 3 * 9 + 1)
    for unit, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        tile = image[row * 9 + 1 : row * 9 + 9, column * 9 + 1 : column * 9 + 9]
        feature = features[unit].reshape(8, 8)
        assert np.allclose((2.0 * tile - 1.0) * np.max(np.abs(feature)), feature, atol=1e-15)
    assert pictures.image_shape(192) == (8, 8, 3)
    assert pictures.tiles(np.ones((192, 2))).shape == (10, 19, 3)
    assert pictures.tiles(np.ones((10, 3))).shape == (7, 12)
