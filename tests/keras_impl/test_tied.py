"""`DenseTied`: one kernel, both gradients, through every way of saving; never silently untied."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import reference
from keras_impl import DenseTied, HalfSquaredError, KLSparsity, WeightDecay
from keras_impl.backends.autodiff import value_and_gradients
from keras_impl.backends.keras_internals import mask_of
from reference.rounding import Arithmetic, exact
from tests.keras_impl.precision import as_numpy, rounded
from tests.keras_impl.saving import CARRY_NO_WEIGHTS, CARRY_WEIGHTS, by_json, by_keras_file

X = rounded(np.random.default_rng(0).uniform(size=(16, 4)), "float32")


def an_encoder(**arguments: Any) -> Any:
    return keras.layers.Dense(2, activation="sigmoid", name="encoder", **arguments)


def flat_sequential() -> Any:
    encoder = an_encoder(kernel_regularizer=WeightDecay(0.01))
    return keras.Sequential(
        [keras.Input((4,)), encoder, DenseTied(4, activation="sigmoid", tied_to=encoder)]
    )


def sequential_without_input() -> Any:
    encoder = an_encoder()
    model = keras.Sequential([encoder, DenseTied(activation="sigmoid", tied_to=encoder)])
    model(X[:1].astype("float32"))
    return model


def functional() -> Any:
    x = keras.Input((4,))
    encoder = an_encoder()
    code = keras.layers.Dropout(0.0)(encoder(x))
    return keras.Model(x, DenseTied(activation="sigmoid", tied_to=encoder)(code))


def nested() -> Any:
    x, c = keras.Input((4,)), keras.Input((2,))
    encoder = an_encoder()
    encode = keras.Model(x, encoder(x), name="encode")
    # Something between the input of the decoder model and the tied layer.
    code = keras.layers.Dropout(0.0)(c)
    decode = keras.Model(c, DenseTied(activation="sigmoid", tied_to=encoder)(code), name="decode")
    inputs = keras.Input((4,))
    return keras.Model(inputs, decode(encode(inputs)))


def nested_sequential() -> Any:
    encoder = an_encoder()
    encode = keras.Sequential([keras.Input((4,)), encoder], name="encode")
    tied = DenseTied(activation="sigmoid", tied_to=encoder)
    decode = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.0), tied], name="decode")
    return keras.Sequential([encode, decode])


FORMS = [flat_sequential, sequential_without_input, functional, nested, nested_sequential]


def the_two(model: Any) -> tuple[Any, DenseTied]:
    layers = model._flatten_layers()
    (encoder,) = (layer for layer in layers if layer.name == "encoder")
    (decoder,) = (layer for layer in layers if isinstance(layer, DenseTied))
    return encoder, decoder


def reconstruct(model: Any, x: Any) -> Any:
    """What a tied model of these weights returns, with its bound."""
    encoder, decoder = the_two(model)
    float32 = Arithmetic("float32")
    kernel, *biases = (
        exact(as_numpy(ops.convert_to_tensor(w)))
        for w in (encoder.kernel, encoder.bias, decoder.bias)
    )
    a = exact(x)
    for weights, bias in zip((kernel, kernel.transposed), biases, strict=True):
        a, _ = float32.activation("sigmoid", float32.affine(a, weights, bias))
    return a


def is_tied(model: Any, *, predicted: bool = False) -> None:
    """The model computes with the encoder's kernel as it is now, and training moves that one."""
    x = X.astype("float32")
    output = model.predict(x, verbose=0) if predicted else as_numpy(model(x))
    used = reference.usage(output, reconstruct(model, X))
    assert used.worst <= 1.0
    assert len(model.trainable_weights) == 3
    assert model.count_params() == 4 * 2 + 2 + 4


def train(model: Any, *, eagerly: bool = False) -> None:
    model.compile(keras.optimizers.SGD(1.0), loss=HalfSquaredError(), run_eagerly=eagerly)
    model.fit(X.astype("float32"), X.astype("float32"), epochs=2, batch_size=8, verbose=0)


@pytest.mark.equation("EQ-FORWARD")
@pytest.mark.parametrize("form", FORMS)
def test_there_is_one_kernel(form: Any) -> None:
    model = form()
    is_tied(model)
    encoder, decoder = the_two(model)
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert "Total params: 14" in "\n".join(lines)
    assert decoder.count_params() == 4
    before = as_numpy(encoder.kernel.value)
    train(model)
    assert not np.array_equal(before, as_numpy(encoder.kernel.value))
    is_tied(model, predicted=True)


@functools.cache
def trained(form: Any) -> Any:
    """A model to save; no way of saving changes it."""
    model = form()
    train(model)
    return model


@pytest.mark.parametrize("name", [*CARRY_NO_WEIGHTS, *CARRY_WEIGHTS])
@pytest.mark.parametrize("form", FORMS)
def test_the_tie_survives(form: Any, name: str, tmp_path: Path) -> None:
    way = {**CARRY_NO_WEIGHTS, **CARRY_WEIGHTS}[name]
    model = trained(form)
    if name == ".h5" and form in (nested, nested_sequential):
        # The legacy format stores a list of weights for each outer layer, and reads it before the
        # first call, at which the tied layer finds its encoder: it refuses, aloud.
        with pytest.raises(ValueError, match="Weight count mismatch"):
            way(model, tmp_path)
        return
    again = way(model, tmp_path)
    encoder, decoder = the_two(again)
    assert encoder is not the_two(model)[0]
    if not again.built:  # a configuration does not build a Sequential model without an input
        again(X[:1].astype("float32"))
    is_tied(again)
    assert decoder.tied_to is encoder
    if name in CARRY_WEIGHTS:
        for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            assert np.array_equal(mine, theirs)
    before = as_numpy(encoder.kernel.value)
    train(again, eagerly=True)
    assert not np.array_equal(before, as_numpy(encoder.kernel.value))
    is_tied(again)


@pytest.mark.parametrize("form", [nested, nested_sequential])
def test_a_reloaded_model_trains_before_anything_else_calls_it(form: Any, tmp_path: Path) -> None:
    again = by_json(form(), tmp_path)
    train(again)
    is_tied(again)


def test_a_decoder_without_its_encoder_fails_with_advice(tmp_path: Path) -> None:
    model = nested()
    decode = model.get_layer("decode")
    alone = by_keras_file(decode, tmp_path)
    code = np.ones((1, 2), "float32")
    with pytest.raises(ValueError, match=r"named 'encoder', and no layer.*`tie_to\(encoder\)`"):
        # Not `predict`: an error in it takes the variables' values from any model on JAX.
        alone(code)
    (decoder,) = (layer for layer in alone.layers if isinstance(layer, DenseTied))
    assert decoder.tied_to == "encoder"
    assert decoder.get_config()["tied_to"] == "encoder"
    decoder.tie_to(the_two(model)[0])
    assert np.array_equal(alone.predict(code, verbose=0), decode.predict(code, verbose=0))


def test_two_encoders_of_one_name_are_not_guessed_between() -> None:
    x, y = keras.Input((4,)), keras.Input((4,))
    first = keras.Model(x, an_encoder()(x))
    second = keras.Model(y, an_encoder()(y))
    both = keras.layers.Add()([first(x), second(x)])
    with pytest.raises(ValueError, match=r"2 layers of that name.*`tie_to\(layer\)`"):
        DenseTied(4, tied_to="encoder")(both)


def test_a_decoder_alone_follows_the_kernel() -> None:
    """On JAX a variable that a model does not know would be a constant of its `predict`."""
    model = nested()
    decode = model.get_layer("decode")
    code = np.array([[1.0, 0.5]], "float32")
    before = decode.predict(code, verbose=0)
    encoder, _ = the_two(model)
    encoder.kernel.assign(2.0 * ops.convert_to_tensor(encoder.kernel) + 1.0)
    after = decode.predict(code, verbose=0)
    assert np.max(np.abs(after - before)) > 1e-2
    assert any(weight is encoder.kernel for weight in decode.trainable_weights)


@keras.saving.register_keras_serializable(package="tests")
class FrozenTied(keras.layers.Layer):
    """The well-known version: the transposed kernel is stored when the layer is built."""

    def __init__(self, tied_to: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        object.__setattr__(self, "encoder", tied_to)

    def build(self, input_shape: Any) -> None:
        transposed = np.transpose(as_numpy(self.encoder.kernel.value))
        self.kernel = self.add_weight(shape=transposed.shape, trainable=False)
        self.kernel.assign(transposed)
        self.bias = self.add_weight(shape=transposed.shape[1:], initializer="zeros")

    def call(self, inputs: Any) -> Any:
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), inputs.dtype)
        return ops.sigmoid(inputs @ kernel + ops.convert_to_tensor(self.bias))


@pytest.mark.equation("EQ-GRADIENT-TIED", "EQ-BOUND-DESCENT")
@pytest.mark.parametrize("kind", [DenseTied, FrozenTied])
def test_it_trains_as_the_oracle_does_and_the_frozen_one_does_not(kind: Any) -> None:
    """In float32; in float64 `keras.layers.Dense` itself is float32 on torch."""
    encoder = an_encoder(kernel_regularizer=WeightDecay(0.01))
    decoder: Any = FrozenTied(encoder)
    if kind is DenseTied:
        decoder = DenseTied(4, activation="sigmoid", tied_to=encoder)
    model = keras.Sequential([keras.Input((4,)), encoder, KLSparsity(0.1, 3.0), decoder])
    start = reference.initialise((4, 2, 4), seed=3, tied=True)
    kernel = rounded(start.kernels[0], "float32")
    start = reference.Parameters([kernel], start.biases, tied=True)
    encoder.kernel.assign(kernel.astype("float32"))
    if kind is FrozenTied:
        decoder.kernel.assign(kernel.T.astype("float32"))
    model.compile(keras.optimizers.SGD(0.25), loss=HalfSquaredError())
    x = X.astype("float32")
    model.fit(x, x, batch_size=16, epochs=4, verbose=0)
    arguments = {"rho": 0.1, "beta": 3.0, "weight_decay": 0.01, "epsilon": 1e-6}
    reached = reference.gradient_descent_with_bounds(
        start, X, steps=4, learning_rate=0.25, **arguments
    )
    used = [
        reference.usage(as_numpy(variable.value), expected).worst
        for variable, expected in (
            (encoder.kernel, reached.kernels[0]),
            (encoder.bias, reached.biases[0]),
            (decoder.bias, reached.biases[1]),
        )
    ]
    if kind is DenseTied:
        assert max(used) <= 1.0, used
    else:
        assert min(used) > 1.0, used


def test_the_encoders_penalty_counts_once() -> None:
    model = flat_sequential()
    model(X.astype("float32"))
    (loss,) = model.losses
    kernel = as_numpy(the_two(model)[0].kernel.value)
    expected = 0.01 / 2 * np.sum(kernel**2)
    # A sum of 8 squares, the factor and its half.
    assert abs(float(loss) - expected) <= 12 * 2.0**-24 * expected


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_sixteen_bit_policies_read_the_kernel_in_the_compute_dtype(policy: str) -> None:
    encoder = an_encoder(dtype=policy)
    model = keras.Sequential(
        [keras.Input((4,)), encoder, DenseTied(tied_to=encoder, dtype=policy, activation="sigmoid")]
    )
    assert keras.backend.standardize_dtype(model(X.astype("float32")).dtype) == policy[6:]
    train(model)
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())


@pytest.mark.equation("EQ-BOUND-SUM")
@pytest.mark.parametrize("rows", [(33,), (3, 11)])
def test_the_gradient_of_its_bias_is_added_up_in_float32(rows: tuple[int, ...]) -> None:
    """Of 33 samples; JAX would add them up in bfloat16, off by up to 1 %."""
    decoder = DenseTied(tied_to=built(an_encoder(), 64), dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((*rows[1:], 2)), decoder])
    slopes = rounded(np.random.default_rng(0).uniform(1.0, 2.0, size=(*rows, 64)), "bfloat16")
    code = np.ones((*rows, 2), "float32")
    bias, kernel = (variable.value for variable in model.trainable_variables)
    weights = ops.convert_to_tensor(slopes, dtype="float32")

    def weighted(bias: Any) -> Any:
        outputs, _ = model.stateless_call([bias, kernel], [], code)
        return ops.sum(ops.cast(outputs, "float32") * weights)

    _, (gradient,) = value_and_gradients(weighted, [bias])
    right = Arithmetic("bfloat16").total(exact(slopes.reshape(33, 64)), axis=0)
    assert reference.usage(as_numpy(gradient), right).worst <= 1.0


@pytest.mark.inference
def test_a_mask_is_handed_on() -> None:
    steps = np.ones((2, 3, 4), "float32")
    steps[:, 1:] = 0.0
    encoder = an_encoder()
    code = encoder(keras.layers.Masking()(steps))
    assert as_numpy(mask_of(DenseTied(tied_to=encoder)(code))).tolist() == [[1.0, 0.0, 0.0]] * 2


def with_lora(encoder: Any) -> None:
    encoder.enable_lora(2, lora_alpha=3.0)
    values = np.random.default_rng(1).normal(size=tuple(encoder.lora_kernel_b.shape))
    encoder.lora_kernel_b.assign(values.astype("float32"))


def to_blocks_of_int4(encoder: Any) -> None:
    encoder.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=4))


CHANGES: dict[str, list[Any]] = {
    "LoRA": [with_lora],
    "int8": [lambda encoder: encoder.quantize("int8")],
    "LoRA, int8": [with_lora, lambda encoder: encoder.quantize("int8")],
    "int8, LoRA": [lambda encoder: encoder.quantize("int8"), with_lora],
    "int4": [lambda encoder: encoder.quantize("int4")],
    "int4 in blocks": [to_blocks_of_int4],
}


def skip_where_int8_products_are_wrong() -> None:
    """On an H200, JAX 0.11.2 gives twice the product where the terms are no multiple of 4."""
    product = int(as_numpy(ops.matmul(ops.ones((3, 9), "int8"), ops.ones((9, 2), "int8")))[0, 0])
    if product != 9:
        pytest.skip(f"{keras.config.backend()} says that nine 1·1 in int8 are {product} here")


@pytest.mark.parametrize("name", CHANGES)
def test_the_kernel_is_what_the_encoder_multiplies_by(name: str, tmp_path: Path) -> None:
    """Seen from outside: a linear layer maps the identity to its kernel."""
    if "int8" in name:
        skip_where_int8_products_are_wrong()
    if name == "int4 in blocks" and not hasattr(keras.quantizers, "Int4QuantizationConfig"):
        pytest.skip("this Keras has no blocks")
    encoder = keras.layers.Dense(5, name="encoder")
    model = keras.Sequential([keras.Input((9,)), encoder, DenseTied(tied_to=encoder)])
    kernel = as_numpy(encoder.kernel.value)
    for change in CHANGES[name]:
        change(encoder)

    def kernels(model: Any) -> list[Any]:
        first, last = model.layers
        return [
            as_numpy(first(np.eye(9, dtype="float32"))),
            as_numpy(last(np.eye(5, dtype="float32"))).T,
        ]

    direct, transposed = kernels(model)
    # Sums of which one term is not 0, but for two of LoRA; a scale, and its inverse.
    assert np.max(np.abs(direct - transposed)) <= 16 * 2.0**-24 * np.max(np.abs(direct))
    assert np.max(np.abs(direct - kernel)) > 1e-4, "nothing was changed"
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    direct, transposed = kernels(again)
    assert np.max(np.abs(direct - transposed)) <= 16 * 2.0**-24 * np.max(np.abs(direct))
    # Alone, on JAX, whatever it reads is a variable that it knows.
    last = keras.Sequential([keras.Input((5,)), model.layers[-1]])
    code = np.eye(5, dtype="float32")
    before = last.predict(code, verbose=0)
    for weight in last.weights:
        if weight.name in ("kernel_scale", "lora_kernel_b"):
            weight.assign(2.0 * ops.convert_to_tensor(weight))
    after = last.predict(code, verbose=0)
    assert np.max(np.abs(after - before)) > 1e-3
    assert np.max(np.abs(after.T - kernels(model)[0])) <= 16 * 2.0**-24 * np.max(np.abs(after))


def test_a_whole_model_is_quantized_around_it(recwarn: pytest.WarningsRecorder) -> None:
    skip_where_int8_products_are_wrong()
    model = keras.Sequential([keras.Input((4,)), an_encoder(), keras.layers.Dense(2)])
    encoder, middle = model.layers
    model.add(DenseTied(tied_to=middle))
    model.add(DenseTied(tied_to=encoder))
    x = X.astype("float32")
    before = model.predict(x, verbose=0)
    model.quantize("int8")
    assert not [warning for warning in recwarn if "DenseTied" in str(warning.message)]
    after = model.predict(x, verbose=0)
    # 8 bits: 2⁻⁸ of the largest of each kernel, four times.
    assert 0.0 < np.max(np.abs(after - before)) <= 0.05 * np.max(np.abs(before))


def test_what_it_cannot_read_is_refused() -> None:
    encoder = built(keras.layers.EinsumDense("ab,bc->ac", output_shape=2), 4)
    decoder = DenseTied(tied_to=encoder)
    decoder(np.ones((1, 2), "float32"))
    encoder.quantize("int8")
    with pytest.raises(ValueError, match=r"quantized to int8 or int4.*quantized to int8"):
        decoder(np.ones((1, 2), "float32"))
    encoder = built(an_encoder(), 4)
    with_lora(encoder)
    encoder.quantize("int4")
    with pytest.raises(ValueError, match=r"LoRA kernels .* int4.*int8 in its place"):
        DenseTied(tied_to=encoder)(np.ones((1, 2), "float32"))


def test_lora_trains_both_uses() -> None:
    model = flat_sequential()
    encoder, _ = the_two(model)
    encoder.enable_lora(1)
    before = as_numpy(model(X.astype("float32")))
    train(model)
    assert len(model.trainable_weights) == 2 + 2
    assert np.max(np.abs(as_numpy(model(X.astype("float32"))) - before)) > 1e-4
    used = reference.usage(model.predict(X.astype("float32"), verbose=0), reconstruct(model, X))
    assert used.worst <= 1.0


def test_arguments_of_the_bias_survive() -> None:
    layer = DenseTied(
        4,
        tied_to=an_encoder(),
        bias_initializer="ones",
        bias_regularizer=keras.regularizers.L2(0.25),
        bias_constraint=keras.constraints.MaxNorm(0.5),
        activity_regularizer=keras.regularizers.L1(0.125),
    )
    again = DenseTied.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert isinstance(again.bias_constraint, keras.constraints.MaxNorm)
    again.tie_to(built(an_encoder(), 4))
    again(np.ones((1, 2), "float32"))
    assert again.bias.constraint is again.bias_constraint
    assert again.bias.regularizer is again.bias_regularizer
    assert len(again.losses) == 2


@pytest.mark.parametrize("dtype", ["uint8", "bool"])
def test_integers_and_batches_without_samples(dtype: str) -> None:
    decoder = DenseTied(tied_to=built(an_encoder(), 4))
    code = np.array([[1, 0], [1, 1]])
    found = as_numpy(decoder(code.astype(dtype)))
    assert np.array_equal(found, as_numpy(decoder(code.astype("float32"))))
    assert tuple(decoder(code[:0].astype(dtype)).shape) == (0, 4)


def built(layer: Any, *shape: int) -> Any:
    layer.build((None, *shape))
    return layer


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: DenseTied(4), TypeError, "`tied_to` must be a layer.*None"),
    (lambda: DenseTied(4, tied_to=3), TypeError, "`tied_to` must be a layer.*3"),
    (
        lambda: DenseTied(2.5, tied_to=an_encoder()),
        TypeError,
        "`units` must be a positive integer.*2.5",
    ),
    (
        lambda: DenseTied(0, tied_to=an_encoder()),
        ValueError,
        "`units` must be a positive integer.*0",
    ),
    (lambda: DenseTied(4, tied_to=an_encoder(), use_bias="x"), TypeError, "`use_bias`.*'x'"),
    (
        lambda: DenseTied(tied_to=built(keras.layers.Dropout(0.5), 4)),
        ValueError,
        "`tied_to` must be a layer with a kernel.*which has no kernel",
    ),
    (
        lambda: DenseTied(tied_to=built(keras.layers.Conv2D(2, 3), 8, 8, 1)),
        ValueError,
        r"with a kernel of shape \(3, 3, 1, 2\)",
    ),
    (
        lambda: DenseTied(5, tied_to=built(an_encoder(), 4)),
        ValueError,
        r"`units` must be 4.*\(4, 2\).*units=5",
    ),
    (
        lambda: DenseTied(4, tied_to=an_encoder())(np.ones((1, 2), "float32")),
        ValueError,
        "'encoder', which is not built",
    ),
    (
        lambda: DenseTied(tied_to=built(an_encoder(), 4))(np.ones((1, 3), "float32")),
        ValueError,
        r"its input must have 2 units.*\(1, 3\)",
    ),
    (
        lambda: DenseTied(tied_to="encoder")(np.ones((1, 2), "float32")),
        ValueError,
        "named 'encoder', and no layer",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_wrong_use_is_a_clear_error(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
