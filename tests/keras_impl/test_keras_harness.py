"""Every registered object through Keras's own test harness, with arguments other than the default.

`run_layer_test` serializes a layer, builds it, calls it on symbols and on numbers, trains one
compiled step and calls it in mixed precision; `run_class_serialization_test` is for the rest.
"""

from __future__ import annotations

from typing import Any

import keras
import pytest

from keras_impl import (
    ActivityPenalty,
    DenseTied,
    HalfSquaredError,
    KLSparsity,
    KLSparsityRegularizer,
    NgUniform,
    SparseAutoencoder,
    WeightDecay,
)
from keras_impl.models import AutoencoderLayer

testing = pytest.importorskip("keras.src.testing", reason="Keras's harness needs absl")

# Keras's: of its generators, of a model that is one penalty, of arrays of torch.
pytestmark = pytest.mark.filterwarnings("ignore")

SPARSITY = {"rho": 0.2, "beta": 0.5, "cross_replica": False}
LAYERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "activations": (
        KLSparsity,
        {**SPARSITY, "epsilon": 1e-3},
        {"input_shape": (4, 3), "expected_output_shape": (4, 3)},
    ),
    "logits": (
        KLSparsity,
        {**SPARSITY, "from_logits": True},
        {"input_shape": (4, 2, 3), "expected_output_shape": (4, 2, 3)},
    ),
    "symmetric": (
        KLSparsity,
        {**SPARSITY, "symmetric": True},
        {"input_shape": (4, 2, 2, 3), "expected_output_shape": (4, 2, 2, 3)},
    ),
    "momentum": (
        KLSparsity,
        {**SPARSITY, "momentum": 0.75},
        {
            "input_shape": (4, 3),
            "expected_num_non_trainable_weights": 2,
            "expected_num_non_trainable_variables": 2,
        },
    ),
    "any penalty": (
        ActivityPenalty,
        {"penalty": keras.regularizers.L1L2(0.1, 0.2)},
        {"input_shape": (4, 3), "expected_output_shape": (4, 3)},
    ),
}


def encoder() -> Any:
    layer = keras.layers.Dense(3, name="encoder")
    layer.build((None, 5))
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_penalty_layers(name: str) -> None:
    layer, arguments, expected = LAYERS[name]
    testing.TestCase().run_layer_test(
        layer,
        init_kwargs=arguments,
        expected_num_trainable_weights=0,
        expected_num_seed_generators=0,
        expected_num_losses=1,
        supports_masking=True,
        **expected,
    )


def test_dense_tied() -> None:
    """Its kernel is the encoder's: of its own it has a bias."""
    testing.TestCase().run_layer_test(
        DenseTied,
        init_kwargs={
            "units": 5,
            "tied_to": encoder(),
            "activation": "sigmoid",
            "bias_initializer": "ones",
            "bias_regularizer": WeightDecay(0.5),
            "bias_constraint": "non_neg",
            "activity_regularizer": KLSparsityRegularizer(0.2),
        },
        input_shape=(4, 3),
        expected_output_shape=(4, 5),
        expected_num_losses=2,
        supports_masking=True,
    )


@pytest.mark.parametrize("tied", [False, True])
def test_sparse_autoencoder_as_a_layer(tied: bool) -> None:
    testing.TestCase().run_layer_test(
        SparseAutoencoder,
        init_kwargs={
            "hidden_units": (4, 3) if tied else 3,
            "rho": 0.2,
            "beta": 0.5,
            "weight_decay": 0.25,
            "tied": tied,
            "tied_decay": 2,
            "output_activation": "linear",
            "from_logits": True,
            "epsilon": 1e-3,
            "seed": 1,
            "cross_replica": False,
        },
        input_shape=(4, 5),
        expected_output_shape=(4, 5),
        expected_num_trainable_weights=6 if tied else 4,
        expected_num_non_trainable_weights=0,
        expected_num_losses=5 if tied else 3,
        # An autoencoder of rows: a mask has nothing to say.
        supports_masking=False,
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_of_the_autoencoder(transposed: bool) -> None:
    testing.TestCase().run_layer_test(
        AutoencoderLayer,
        init_kwargs={"units": 2, "activation": "tanh", "transposed": transposed},
        input_shape=(4, 5),
        expected_output_shape=(4, 2),
        expected_num_trainable_weights=2,
        expected_num_losses=0,
    )


NOT_LAYERS = {
    "KLSparsityRegularizer": lambda: KLSparsityRegularizer(
        0.2, 0.5, epsilon=1e-3, symmetric=True, batch_scaling=False, cross_replica=False
    ),
    "KLSparsityRegularizer of logits": lambda: KLSparsityRegularizer(0.2, 0.5, from_logits=True),
    "WeightDecay": lambda: WeightDecay(0.25),
    "NgUniform": lambda: NgUniform(seed=3),
    "NgUniform with a generator": lambda: NgUniform(seed=keras.random.SeedGenerator(3)),
    "HalfSquaredError": lambda: HalfSquaredError(
        axis=-1, reduction="sum", name="reconstruction", dtype="float64"
    ),
}


@pytest.mark.inference
@pytest.mark.parametrize("name", NOT_LAYERS)
def test_what_is_no_layer(name: str) -> None:
    instance = NOT_LAYERS[name]()
    revived = testing.TestCase().run_class_serialization_test(instance)
    assert type(revived) is type(instance)


def test_every_registered_object_is_here() -> None:
    registered = {
        name.removeprefix("sae_oracle>")
        for name in keras.saving.get_custom_objects()
        if name.startswith("sae_oracle>")
    }
    here = {layer.__name__ for layer, *_ in LAYERS.values()}
    here |= {type(make()).__name__ for make in NOT_LAYERS.values()}
    assert registered == here | {"AutoencoderLayer", "DenseTied", "SparseAutoencoder"}
