"""Configuration, registration, errors, and what people see while a model trains."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_impl
import reference
from keras_impl import (
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
    fit_lbfgs,
    from_keras_units,
    full_cost,
    full_cost_and_gradient,
    keras_divides_activity_by_batch,
    to_keras_units,
)
from keras_impl.term import SparsityTerm
from sae_oracle.workers.oracle_bridge import to_parameters

REGISTERED: dict[str, Any] = {
    name.partition(">")[2]: kind
    for name, kind in keras.saving.get_custom_objects().items()
    if name.startswith("sae_oracle>")
}
# What an object cannot be made without.
REQUIRED: dict[str, dict[str, Any]] = {
    "ActivityPenalty": {"penalty": "l1"},
    "AutoencoderLayer": {"units": 3, "activation": "sigmoid"},
    "DenseTied": {"tied_to": "encoder"},
    "SparseAutoencoder": {"hidden_units": [5]},
}
# Values that are no defaults; of an argument that two objects mean otherwise, by object too.
OTHER_VALUES: dict[str, Sequence[Any]] = {
    "activation": ["tanh", "relu"],
    "activity_regularizer": [keras.regularizers.L1(0.125)],
    "axis": [1, -1, -2],
    "HalfSquaredError.axis": [-1],
    "batch_scaling": [True, False],
    "beta": [2.5, 0.0],
    "bias_constraint": [keras.constraints.MaxNorm(0.5)],
    "bias_initializer": ["ones", keras.initializers.Constant(0.25)],
    "bias_regularizer": [keras.regularizers.L2(0.25)],
    "cross_replica": [False],
    "dtype": ["float64", "bfloat16"],
    "epsilon": [1e-3, 0.0],
    "from_logits": [True],
    "hidden_units": [[4, 3], [2]],
    "momentum": [0.75, 0.0],
    "name": ["another"],
    "output_activation": ["linear", "tanh"],
    "penalty": ["l2", keras.regularizers.L1L2(0.1, 0.2)],
    "reduction": ["sum", "none", None, "mean_with_sample_weight"],
    "rho": [0.2, [0.1, 0.3]],
    "SparseAutoencoder.beta": [2.5, 0.0, [0.5]],
    "SparseAutoencoder.rho": [0.2, [0.3]],
    "seed": [7, 0],
    "symmetric": [True],
    "tied": [True],
    "tied_decay": [2],
    "tied_to": ["another"],
    "trainable": [False],
    "transposed": [True],
    "units": [4],
    "use_bias": [False],
    "weight_decay": [0.25, 0.0],
}
OF_EVERY_LAYER = ("activity_regularizer", "dtype", "name", "trainable")
# What is made of a default, and where an argument is kept under another name.
MADE_OF_DEFAULTS = {"epsilon": 1e-6, "HalfSquaredError.dtype": "float32"}
KEPT_AS = {"dtype": "dtype_policy", "HalfSquaredError.dtype": "dtype", "penalty": "function"}


def looked_up(table: Mapping[str, Any], name: str, argument: str, default: Any = None) -> Any:
    return table.get(f"{name}.{argument}", table.get(argument, default))


def arguments_of(name: str) -> dict[str, Any]:
    """Every argument of an object, those of any layer or model among them; and its default."""
    kind, empty = REGISTERED[name], inspect.Parameter.empty
    found = {
        parameter.name: parameter.default
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if issubclass(kind, keras.layers.Layer):
        given = OF_EVERY_LAYER[1:] if issubclass(kind, keras.Model) else OF_EVERY_LAYER
        found |= dict.fromkeys(given, empty)
    return found


def comparable(value: Any) -> Any:
    """Objects by what they are made of, functions by their names."""
    if hasattr(value, "get_config"):
        return type(value).__name__, value.get_config()
    if isinstance(value, (list, tuple)):
        return list(value)
    return getattr(value, "__name__", value)


def kept(made: Any, argument: str) -> Any:
    name = looked_up(KEPT_AS, type(made).__name__, argument, argument)
    return comparable(getattr(made, name))


def reloaded(made: Any) -> Any:
    serialized = keras.saving.serialize_keras_object(made)
    assert serialized["registered_name"] == f"sae_oracle>{type(made).__name__}"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(again) is type(made)
    assert (
        again.get_config()
        == made.get_config()
        == type(made).from_config(made.get_config()).get_config()
    )
    return again


@pytest.mark.keras_eras
@pytest.mark.inference
@pytest.mark.parametrize("name", REGISTERED)
def test_every_argument_survives_a_round_trip(name: str) -> None:
    """One after the other, each at values that are not its default; and then all at once."""
    kind, required = REGISTERED[name], REQUIRED.get(name, {})
    plain = kind(**required)
    together: dict[str, Any] = {}
    for argument in arguments_of(name):
        for value in looked_up(OTHER_VALUES, name, argument):
            made = kind(**{**required, argument: value})
            again = reloaded(made)
            assert kept(again, argument) == kept(made, argument), (argument, value)
            assert kept(made, argument) != kept(plain, argument), (argument, value)
            # Whatever is not asked for is as it was.
            for other in arguments_of(name):
                if other not in (argument, "name"):
                    assert kept(again, other) == kept(plain, other), (argument, other)
            if argument != "from_logits":  # which symmetric and momentum exclude
                together[argument] = value
    again = reloaded(kind(**{**required, **together}))
    for argument, value in together.items():
        assert kept(again, argument) == kept(kind(**{**required, **together}), argument)
        assert kept(again, argument) != kept(plain, argument), (argument, value)


@pytest.mark.keras_eras
@pytest.mark.inference
@pytest.mark.parametrize("name", REGISTERED)
def test_what_is_left_out_is_the_default_of_the_signature(name: str) -> None:
    plain = REGISTERED[name](**REQUIRED.get(name, {}))
    for argument, default in arguments_of(name).items():
        if default is inspect.Parameter.empty or argument in REQUIRED.get(name, {}):
            continue
        default = default if default is not None else looked_up(MADE_OF_DEFAULTS, name, argument)
        value = kept(plain, argument)
        if isinstance(default, str) and isinstance(value, tuple):  # "zeros", by its name
            value, default = value[0], comparable(keras.initializers.get(default))[0]
        if argument == "activation" and default is None:
            default = "linear"
        assert value == default, argument


def defaults_of(function: Any) -> dict[str, Any]:
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }


SPARSE = (SparsityTerm, KLSparsityRegularizer, KLSparsity, SparseAutoencoder)
# Of what means the same in several places; what stands in one of them alone may be anything.
AGREE: list[tuple[Sequence[Any], set[str], set[str]]] = [
    # β of the model is that of the notes, beside a reconstruction in their units.
    (SPARSE, {"rho", "from_logits", "epsilon", "symmetric", "axis", "cross_replica"}, {"beta"}),
    (SPARSE[:3], {"rho", "beta", "axis"}, set()),
    ((WeightDecay, SparseAutoencoder), {"weight_decay"}, set()),
    ((full_cost, full_cost_and_gradient, fit_lbfgs), {"batch_size"}, set()),
    (
        (SparseAutoencoder, reference.sparse_autoencoder_cost, reference.backpropagate),
        {"output_activation", "activation", "symmetric", "tied_decay"},
        {"epsilon"},  # the oracle's is the exact divergence
    ),
    (
        (DenseTied, keras.layers.Dense),
        {"activation", "use_bias", "bias_initializer", "bias_regularizer", "bias_constraint"},
        set(),
    ),
    ((HalfSquaredError, keras.losses.MeanSquaredError), {"reduction", "dtype"}, {"name"}),
    ((NgUniform, keras.initializers.GlorotUniform), {"seed"}, set()),
    ((to_keras_units, from_keras_units), {"batch_size"}, set()),
    ((reference.orthogonal, keras.regularizers.OrthogonalRegularizer), {"factor", "mode"}, set()),
]


@pytest.mark.inference
@pytest.mark.parametrize(("places", "names", "differing"), AGREE)
def test_defaults_that_mean_the_same_agree(
    places: Sequence[Any], names: set[str], differing: set[str]
) -> None:
    defaults = [defaults_of(place) for place in places]
    shared = {
        name for name in set().union(*defaults) if sum(name in found for found in defaults) > 1
    }
    assert names | differing <= shared
    for name in shared - differing:
        values = {repr(found[name]) for found in defaults if name in found}
        assert len(values) == 1, (name, values)


@pytest.mark.inference
def test_every_public_object_documents_its_arguments() -> None:
    for name in keras_impl.__all__:
        public = getattr(keras_impl, name)
        assert public.__doc__, name
        if isinstance(public, type) and not issubclass(public, tuple):
            assert "Args:" in public.__doc__, name
            assert ">>>" in public.__doc__, name


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: KLSparsityRegularizer(rho=0.0), ValueError, r"`rho` must lie in \(0.0, 1.0\).*0.0"),
    (lambda: KLSparsityRegularizer(rho="a"), TypeError, "`rho`.*'a'"),
    (lambda: KLSparsityRegularizer(beta=-1.0), ValueError, "`beta` must lie in.*-1.0"),
    (lambda: KLSparsityRegularizer(epsilon=0.1), ValueError, "`epsilon`.*0.1"),
    (lambda: KLSparsityRegularizer(batch_scaling="yes"), ValueError, "`batch_scaling`.*'yes'"),
    (lambda: KLSparsityRegularizer(from_logits=1), TypeError, "`from_logits`.*1"),
    (
        lambda: KLSparsityRegularizer(from_logits=True, symmetric=True),
        ValueError,
        "`symmetric=True`.*both",
    ),
    (lambda: KLSparsityRegularizer()(ops.ones(3)), ValueError, r"\(samples, ..., units\).*\(3,\)"),
    (lambda: WeightDecay(-1.0), ValueError, "`weight_decay`"),
    (lambda: KLSparsity(beta=[1.0, 2.0]), TypeError, "let `rho` be by unit.*\\[1.0, 2.0\\]"),
    (lambda: SparseAutoencoder(2, beta=[[1.0, 2.0]]), TypeError, r"let `rho` be.*beta\[0\]=\[1"),
    (lambda: SparseAutoencoder(3, beta=[1.0] * 3), ValueError, r"β is never by unit: let `rho` be"),
    (lambda: KLSparsity(momentum=1.0), ValueError, r"`momentum` must lie in \[0.0, 1.0\).*1.0"),
    (lambda: KLSparsity(momentum=0.5, from_logits=True), ValueError, "`momentum`"),
    (lambda: KLSparsity().build((3,)), ValueError, "KLSparsity takes the output"),
    (lambda: HalfSquaredError(axis=1), ValueError, "`axis` must be None or -1.*1"),
    (lambda: HalfSquaredError(reduction="x"), ValueError, "`reduction` must be one of.*'x'"),
    (lambda: HalfSquaredError(dtype="x"), ValueError, "`dtype` must be a float dtype.*'x'"),
    (lambda: HalfSquaredError(dtype="int32"), ValueError, "`dtype` must be a float dtype.*'int32'"),
    (
        lambda: HalfSquaredError()(ops.ones((2, 3)), ops.ones((2, 1))),
        ValueError,
        "`y_true` must have the shape of `y_pred`",
    ),
    (lambda: NgUniform()((3, 3, 3)), ValueError, "`shape` must be"),
    (lambda: NgUniform(seed="x"), TypeError, "`seed` must be an integer.*'x'"),
    (lambda: NgUniform(seed=True), TypeError, "`seed` must be an integer.*True"),
    (lambda: SparseAutoencoder(0), ValueError, "`hidden_units` must be a positive integer.*0"),
    (lambda: SparseAutoencoder(b"ab"), TypeError, "`hidden_units` must be a positive.*b'ab'"),
    (lambda: SparseAutoencoder([3, True]), TypeError, "`hidden_units` must be a positive.*True"),
    (lambda: SparseAutoencoder(2.5), TypeError, "`hidden_units` must be a positive integer.*2.5"),
    (lambda: SparseAutoencoder([]), TypeError, "`hidden_units`"),
    (lambda: SparseAutoencoder(2, rho=2.0), ValueError, "`rho`"),
    (lambda: SparseAutoencoder(2, weight_decay=-1.0), ValueError, "`weight_decay`"),
    (lambda: SparseAutoencoder(2, activation="elu"), ValueError, "`activation` must be one of"),
    (lambda: SparseAutoencoder(2, output_activation=3), ValueError, "`output_activation`"),
    (lambda: SparseAutoencoder(2, tied="yes"), TypeError, "`tied`"),
    (lambda: SparseAutoencoder(2, tied_decay=3), ValueError, "`tied_decay` must be 1 or 2.*3"),
    (lambda: SparseAutoencoder(2, seed=1.5), TypeError, "`seed`"),
    (
        lambda: SparseAutoencoder(2, activation="relu", from_logits=True),
        ValueError,
        "`from_logits=True` is for sigmoid",
    ),
    (
        lambda: SparseAutoencoder(2).compile("sgd", loss="mse"),
        ValueError,
        "`loss` must be left out",
    ),
    (
        lambda: SparseAutoencoder(2).compile("sgd", loss_weights=[0.5]),
        ValueError,
        r"`loss_weights` must be left out.*\[0.5\]",
    ),
    (lambda: SparseAutoencoder(2).build((None, 3, 3)), ValueError, r"\(samples, features\)"),
    (lambda: SparseAutoencoder(2).decode(np.ones((1, 2))), ValueError, "before `decode`"),
    (lambda: to_keras_units(0.1, 1.0, 0.1, features=0), ValueError, "`features`.*0"),
    (lambda: to_keras_units(0.1, 1.0, 0.1, features=2.5), TypeError, "`features`"),
    (lambda: from_keras_units(0.1, 1.0, -0.1, features=2), ValueError, "`l2`"),
]


@pytest.mark.inference
@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_bad_arguments_are_named_with_value_and_range(
    call: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_fit_shows_the_three_terms_in_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    model = SparseAutoencoder(3, rho=0.1, seed=0)
    model.compile("adam")
    x = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32")
    history = model.fit(x, epochs=2, verbose=2).history
    printed = capsys.readouterr().out
    for name in ("loss", "reconstruction", "weight_decay", "sparsity"):
        assert f"{name}: " in printed
    assert history["loss"][1] < history["loss"][0]
    assert len(model.predict(x, verbose=0)) == 64


@pytest.mark.equation("EQ-RECONSTRUCTION")
def test_half_squared_error_and_keras_mse_are_in_a_fixed_ratio() -> None:
    generator = np.random.default_rng(0)
    y, h = generator.uniform(size=(2, 6, 9)).astype("float32")
    ours = float(HalfSquaredError()(y, h))
    mse = float(keras.losses.MeanSquaredError()(y, h))
    # 54 terms a sum, on both sides.
    assert abs(ours - 9 / 2 * mse) <= 2 * 60 * 2.0**-24 * ours
    assert abs(ours - reference.reconstruction_cost(h, y)) <= 60 * 2.0**-24 * ours


@pytest.mark.equation("EQ-RECONSTRUCTION")
def test_half_squared_error_of_images_and_of_masked_sequences() -> None:
    y, h = np.random.default_rng(0).uniform(size=(2, 3, 4, 5)).astype("float32")
    image = float(HalfSquaredError()(y, h))
    assert abs(image - reference.reconstruction_cost(h, y)) <= 64 * 2.0**-24 * image
    steps = float(HalfSquaredError(axis=-1)(y, h))
    flat = reference.reconstruction_cost(h.reshape(-1, 5), y.reshape(-1, 5))
    assert abs(steps - flat) <= 64 * 2.0**-24 * steps


@pytest.mark.keras_eras
@pytest.mark.equation("EQ-COST", "EQ-DECAY")
@pytest.mark.parametrize("hand_written_regularizer", [False, True])
def test_keras_units_train_the_same_model(hand_written_regularizer: bool) -> None:
    """Keras's "mse" and L2 with the converted units: the cost is Ng's times 2/features."""
    features, rows = 6, 8
    units = to_keras_units(
        0.1, 3.0, 0.01, features, batch_size=rows if hand_written_regularizer else None
    )
    back = from_keras_units(
        *units, features=features, batch_size=rows if hand_written_regularizer else None
    )
    assert np.allclose(back, (0.1, 3.0, 0.01), rtol=4 * 2.0**-53, atol=0.0)
    plain = KLSparsityRegularizer(units.rho, units.beta, batch_scaling=False)
    penalty: Any = (
        plain if hand_written_regularizer else KLSparsityRegularizer(units.rho, units.beta)
    )
    model = keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(
                3,
                activation="sigmoid",
                kernel_regularizer=keras.regularizers.L2(units.l2),
                activity_regularizer=penalty,
            ),
            keras.layers.Dense(
                features,
                activation="sigmoid",
                kernel_regularizer=keras.regularizers.L2(units.l2),
            ),
        ]
    )
    model.compile("sgd", loss="mse")
    x = np.random.default_rng(0).uniform(size=(rows, features)).astype("float32")
    found = model.evaluate(x, x, batch_size=rows, verbose=0)
    weights = [w.astype(np.float64) for w in model.get_weights()]
    parameters = reference.Parameters(weights[::2], weights[1::2])
    arguments = {"rho": 0.1, "beta": 3.0, "weight_decay": 0.01, "epsilon": 1e-6}
    cost = reference.cost_and_gradient_with_bounds(parameters, x, **arguments).cost.total
    scale = 2 / features
    # The converted units are rounded to float32: 6 roundoffs more.
    slack = scale * (cost.bound + 6 * 2.0**-24 * cost.value)
    assert abs(found - scale * cost.value) <= slack


@pytest.mark.inference
@pytest.mark.equation("EQ-INIT")
def test_initial_weights_are_ngs() -> None:
    model = SparseAutoencoder((40, 20), seed=3)
    model.build((None, 60))
    parameters = to_parameters(model)
    for kernel in parameters.kernels:
        limit = np.sqrt(6.0) / np.sqrt(sum(kernel.shape) + 1)
        # float32 rounds the largest up by at most a roundoff.
        assert 0.9 * limit < np.max(np.abs(kernel)) <= limit * (1 + 2.0**-23)
        assert abs(np.mean(kernel)) < 5 * limit / np.sqrt(3 * kernel.size)
        assert abs(np.std(kernel) - limit / np.sqrt(3)) < 0.1 * limit
    assert all(np.all(bias == 0.0) for bias in parameters.biases)
    again = SparseAutoencoder((40, 20), seed=3)
    again.build((None, 60))
    same = to_parameters(again)
    assert all(np.array_equal(a, b) for a, b in zip(parameters.kernels, same.kernels, strict=True))
    first, last = parameters.kernels[0], parameters.kernels[-1]
    assert not np.array_equal(np.sort(first.ravel()), np.sort(last.ravel()))
    # In the dtype that is asked for, whatever Keras's own is.
    assert keras.backend.standardize_dtype(NgUniform(0)((4, 2), dtype="float16").dtype) == "float16"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_sixteen_bit_policies_train(policy: str, from_logits: bool) -> None:
    model = SparseAutoencoder(5, rho=0.1, from_logits=from_logits, seed=0, dtype=policy)
    model.compile(keras.optimizers.Adam(0.01))
    x = np.random.default_rng(0).uniform(size=(64, 6)).astype("float32")
    history = model.fit(x, epochs=8, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert history["loss"][-1] < history["loss"][0]
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


def test_importing_the_package_starts_no_other_backend(backend: str) -> None:
    # What Keras itself imports (it probes for TensorFlow on some backends) is not ours.
    program = (
        "import sys, keras\n"
        "def loaded():\n"
        "    return [name for name in ('jax', 'tensorflow', 'torch') if name in sys.modules]\n"
        "by_keras = loaded()\n"
        "import keras_impl\n"
        "print(*by_keras, '|', *loaded())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
        cwd=Path(__file__).parents[2],
    )
    by_keras, by_both = (names.split() for names in run.stdout.split("|"))
    assert backend in by_keras
    assert by_both == by_keras


def of_layer(x: Any, **arguments: Any) -> list[Any]:
    layer = KLSparsity(0.2, 3.0, **arguments)
    layer(x, training=True)
    layer(x, mask=x[:, 0] > 0.5, training=True)
    return layer.losses


def of_tied(x: Any) -> list[Any]:
    encoder = keras.layers.Dense(3)
    encoder.build((None, 4))
    return [DenseTied(tied_to=encoder)(x[:, :3])]


def of_model(x: Any, **arguments: Any) -> list[Any]:
    model = SparseAutoencoder(3, **arguments)
    y = model(x, training=True)
    found = [y, *model.losses, model.compute_loss(x=x, y=x, y_pred=y)]
    return [*found, model.encode(x), model.decode(x[:, :3]), model.encoder(x)]


ON_ANY_DEVICE: dict[str, Any] = {
    "regularizer": lambda x: [KLSparsityRegularizer(0.2, 3.0)(x)],
    "regularizer, logits": lambda x: [KLSparsityRegularizer(0.2, 3.0, from_logits=True)(x)],
    "regularizer, symmetric": lambda x: [KLSparsityRegularizer(0.2, 3.0, symmetric=True)(x)],
    "layer": of_layer,
    "layer, logits": lambda x: of_layer(x, from_logits=True),
    "layer, momentum": lambda x: of_layer(x, momentum=0.9),
    "weight decay": lambda x: [WeightDecay(0.1)(x)],
    "loss": lambda x: [HalfSquaredError()(x, x, sample_weight=x[:, 0])],
    "tied layer": of_tied,
    "model": of_model,
    "tied model": lambda x: of_model(x, tied=True),
    "model, logits": lambda x: of_model(x, from_logits=True),
    "model, tanh": lambda x: of_model(x, activation="tanh", symmetric=True, rho=0.4),
}


@pytest.mark.only_backends("torch")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ON_ANY_DEVICE)
def test_tensors_of_the_host_are_moved_and_nothing_is_read_back(name: str) -> None:
    """A DataLoader's tensors lie on the host; a step that reads a number waits for the device.

    "meta" is a device without numbers: reading one from it is an error, and so is an operation
    on tensors of two devices.
    """
    import torch

    keras_divides_activity_by_batch()  # looks once, with numbers
    x = torch.rand(6, 4)
    with keras.device("meta"):
        found = ON_ANY_DEVICE[name](x)
    assert found
    assert {tensor.device.type for tensor in found} == {"meta"}


@pytest.mark.only_backends("torch")
@pytest.mark.filterwarnings("ignore")
def test_a_penalty_copies_no_number_to_the_device() -> None:
    """Such a copy waits for the device. Keras makes one for each activity regularizer."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Copies(TorchFunctionMode):
        made: list[Any]

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function in (torch.as_tensor, torch.tensor) and not torch.is_tensor(args[0]):
                self.made.append(args[0])
            return function(*args, **(kwargs or {}))

    copies = Copies()
    with keras.device("meta"):
        x = torch.rand(6, 4, device="meta")
        penalties: dict[str, Any] = {
            "as usually written": lambda x: ops.where(x > 0.5, x, 0.0),
            "regularizer": KLSparsityRegularizer(0.2, 3.0),
            "regularizer, logits": KLSparsityRegularizer(0.2, 3.0, from_logits=True),
            "regularizer, symmetric": KLSparsityRegularizer(0.2, 3.0, symmetric=True),
            "layer": KLSparsity(0.2, 3.0),
            "layer, logits": KLSparsity(0.2, 3.0, from_logits=True),
            "layer, momentum": KLSparsity(0.2, 3.0, momentum=0.9),
            "model": SparseAutoencoder(3),
            "model, logits": SparseAutoencoder(3, from_logits=True),
            "tied model": SparseAutoencoder(3, tied=True),
        }
        found = {}
        for name, penalty in penalties.items():
            training = {} if "regularizer" in name or "written" in name else {"training": True}
            penalty(x, **training)
            copies.made = []
            with copies:
                penalty(x, **training)
            found[name] = copies.made
    assert found.pop("as usually written"), "the copies are not seen"
    assert not any(found.values()), found


@pytest.mark.keras_eras
@pytest.mark.inference
def test_the_observation_of_keras_is_what_its_version_says() -> None:
    """The package observes; that the observation is right is checked by the version here."""
    major, minor = (int(part) for part in keras.__version__.split(".")[:2])
    assert keras_divides_activity_by_batch() == ((major, minor) >= (3, 14))
