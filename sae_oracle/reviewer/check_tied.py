"""Review of a tied layer: one kernel, two uses, through training, cloning and saving."""

from __future__ import annotations

import ast
import inspect
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_impl.backends.autodiff import has_gradients, value_and_gradients
from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_penalty import Findings, add_removed, check_backends, evidence
from sae_oracle.reviewer.evaluation import as_array, as_number, quietly, tensor
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import CouldNotReviewError, Target, described

FEATURES, CODE, SAMPLES = 4, 2, 5
PARAMETERS = FEATURES * CODE + CODE + FEATURES  # one kernel, two biases: 14
L2 = 0.5


def _numpy(name: str) -> Any:
    return {
        "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
        "linear": lambda z: z,
        "tanh": np.tanh,
        "relu": lambda z: np.where(np.real(z) > 0, z, 0.0),
    }[name]


class Pair:
    """An encoder, the tied layer under review, and a model of the two."""

    def __init__(self, target: Target, regularized: bool = False, **more: Any) -> None:
        keras.utils.set_random_seed(1)
        regularizer = keras.regularizers.L2(L2) if regularized else None
        self.encoder = keras.layers.Dense(
            CODE, activation="sigmoid", kernel_regularizer=regularizer
        )
        accepted = _accepted(target)
        changed = {target.parameter["tied_to"]: self.encoder, **more}
        if "units" in target.parameter:
            changed[target.parameter["units"]] = FEATURES
        if "activation" in accepted and target.arguments.get("activation") is None:
            changed["activation"] = "sigmoid"
        inputs = keras.Input((FEATURES,))
        for name, shape in went_of_dense(target).items():
            setattr(self.encoder, name, shape)
        code = self.encoder(inputs)  # built before the tied layer is made: some look at it then
        try:
            self.decoder = target.make(**changed)
        except TypeError:
            changed.pop("activation", None)
            self.decoder = target.make(**changed)
        self.model = keras.Model(inputs, self.decoder(code))
        activation = getattr(self.decoder, "activation", None)
        self.activation = getattr(activation, "__name__", "")
        self.randomise(self.model, 2)

    def randomise(self, model: Any, seed: int, only_encoder: bool = False) -> None:
        """Give the encoder's kernel (and the biases) new values."""
        generator = np.random.default_rng(seed)
        encoder = model.layers[1]
        encoder.kernel.assign(generator.normal(size=(FEATURES, CODE)).astype("float32"))
        if not only_encoder:
            for bias in [w for w in model.trainable_weights if len(w.shape) == 1]:
                bias.assign(generator.normal(size=bias.shape).astype("float32"))

    def expected(self, model: Any, x: Any, kernel: Any = None, second: Any = None) -> Any:
        """What a tied model gives, in NumPy; with other kernels for the two uses, if given."""
        encoder = model.layers[1]
        w = as_array(encoder.kernel.value) if kernel is None else kernel
        code = _numpy("sigmoid")(x @ w + as_array(encoder.bias.value))
        biases = [v for v in model.layers[-1].weights if tuple(v.shape) == (FEATURES,)]
        bias = as_array(biases[0].value) if biases else 0.0
        return _numpy(self.activation or "linear")(
            code @ (w if second is None else second).T + bias
        )


def went_of_dense(target: Target) -> dict[str, tuple[int | None, int]]:
    """The attributes of a built layer that went with Keras 3 and that the source reads."""
    went: dict[str, tuple[int | None, int]] = {
        "input_shape": (None, FEATURES),
        "output_shape": (None, CODE),
    }
    read = {
        node.attr
        for subject in source.functions(target.thing)
        for node in ast.walk(source.tree_of(subject))
        if isinstance(node, ast.Attribute)
    }
    return {name: shape for name, shape in went.items() if name in read}


def _accepted(target: Target) -> set[str]:
    subject = source.subject_of(target.thing)
    names = set(inspect.signature(subject.__init__).parameters)
    open_ended = any(
        p.kind is p.VAR_KEYWORD for p in inspect.signature(subject.__init__).parameters.values()
    )
    if open_ended and issubclass(subject, keras.layers.Dense):
        names |= set(inspect.signature(keras.layers.Dense.__init__).parameters)
    return names


def _close(actual: Any, expected: Any) -> bool:
    # Two products of 2 to 4 terms and an activation in float32: 64 roundoffs are ample, and a
    # kernel that is not shared is off by a number of order 1.
    return bool(np.max(np.abs(actual - expected)) <= 64.0 * 2.0**-24 * 8.0)


def review_tied(target: Target, findings: Findings) -> None:
    """Review a layer that takes another layer's kernel.

    Raises:
        CouldNotReviewError: If it cannot be made with a Dense encoder.
    """
    x = np.random.default_rng(9).uniform(-1.0, 1.0, (SAMPLES, FEATURES))
    x = x.astype("float32").astype("float64")
    with quietly():
        try:
            pair = Pair(target)
        except Exception as error:
            raise CouldNotReviewError(
                f"making it after a Dense encoder raised {described(error)}"
            ) from error
        if went_of_dense(target):
            add_removed([f"Dense.{name}" for name in went_of_dense(target)], findings)
        findings.checks.append("output, gradient, counts, cloning and saving of a 4-2-4 model")
        shares = _check_sharing(pair, x, findings)
        _check_counts(pair, findings)
        if shares:
            if has_gradients():
                _check_gradient(pair, x, findings)
            _check_decay(target, x, findings)
            _check_clone(pair, x, findings)
            _check_saving(pair, x, target, findings)
        try:
            pair.decoder.get_config()
        except Exception as error:
            proof = Evidence("get_config()", "a dictionary", described(error))
            findings.add(finding("SAE701", proof))
    subject = source.subject_of(target.thing)
    if keras.saving.get_registered_name(subject) == subject.__name__:
        proof = Evidence("keras.saving", "a registered name", f"{subject.__name__!r}")
        findings.add(finding("SAE702", proof))
    check_backends(target, findings)


def _check_sharing(pair: Pair, x: Any, findings: Findings) -> bool:
    own = [w for w in pair.decoder.weights if len(w.shape) == 2 and w is not pair.encoder.kernel]
    trained = [w for w in own if any(w is v for v in pair.decoder.trainable_weights)]
    summary = Evidence(
        "a 4-2-4 model",
        f"{PARAMETERS} parameters, all trainable",
        f"{_count(pair.model.weights)} parameters, "
        f"{_count(pair.model.trainable_weights)} trainable",
    )
    pair.randomise(pair.model, 3, only_encoder=True)
    got = as_array(pair.model(tensor(x)))
    if not pair.activation:  # it is kept under another name
        for name in ("sigmoid", "linear", "tanh", "relu"):
            pair.activation = name
            if _close(got, pair.expected(pair.model, x)):
                break
        else:
            pair.activation = "linear"
    if _close(got, pair.expected(pair.model, x)):
        # It may still hold a kernel that it does not use.
        if trained:
            findings.add(finding("SAE801", summary, "(Its own kernel is not used.)"))
        return True
    if trained:
        findings.add(finding("SAE801", summary))
        return False
    old = np.random.default_rng(2).normal(size=(FEATURES, CODE)).astype("float32")
    frozen = own or _close(got, pair.expected(pair.model, x, second=old.astype("float64")))
    if frozen or _is_constant_in_kernel(pair, x):
        findings.add(finding("SAE802", summary))
    else:
        worst = np.unravel_index(
            int(np.argmax(np.abs(got - pair.expected(pair.model, x)))), got.shape
        )
        findings.add(
            finding(
                "SAE807",
                evidence(
                    "one output", float(pair.expected(pair.model, x)[worst]), float(got[worst])
                ),
            )
        )
    return False


def _is_constant_in_kernel(pair: Pair, x: Any) -> bool:
    """Whether the tied layer's own output ignores the encoder's kernel."""
    code = np.random.default_rng(4).uniform(size=(SAMPLES, CODE))
    before = as_array(pair.decoder(tensor(code)))
    pair.randomise(pair.model, 6, only_encoder=True)
    after = as_array(pair.decoder(tensor(code)))
    pair.randomise(pair.model, 3, only_encoder=True)
    return bool(np.array_equal(before, after))


def _count(variables: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in {id(v): v for v in variables}.values())


def _check_counts(pair: Pair, findings: Findings) -> None:
    listed = [id(v) for v in pair.model.weights]
    counted = int(pair.model.count_params())
    if len(listed) != len(set(listed)) or counted > _count(pair.model.weights):
        proof = Evidence("model.count_params()", str(_count(pair.model.weights)), str(counted))
        findings.add(finding("SAE806", proof))


def _check_gradient(pair: Pair, x: Any, findings: Findings) -> None:
    """The gradient of Σ h(x)² by the kernel, against both uses and against the first alone."""
    model = pair.model
    position = [i for i, v in enumerate(model.trainable_variables) if v is pair.encoder.kernel]
    if not position:
        return

    def total(*values: Any) -> Any:
        output, _ = model.stateless_call(
            list(values), [v.value for v in model.non_trainable_variables], tensor(x)
        )
        return ops.sum(ops.square(output))

    _, gradients = value_and_gradients(total, [v.value for v in model.trainable_variables])
    actual = as_array(gradients[position[0]])
    w = as_array(pair.encoder.kernel.value)
    expected, first = np.zeros_like(w), np.zeros_like(w)
    for index in np.ndindex(*w.shape):
        moved = w.astype(complex)
        moved[index] += 1e-30j
        both = pair.expected(model, x, kernel=moved, second=moved)
        first_alone = pair.expected(model, x, kernel=moved, second=w)
        expected[index] = np.imag(np.sum(both**2)) / 1e-30
        first[index] = np.imag(np.sum(first_alone**2)) / 1e-30
    allowed = 2.0**-24 * 512.0 * max(1.0, float(np.max(np.abs(expected))))
    if np.all(np.abs(actual - expected) <= allowed):
        return
    worst = np.unravel_index(int(np.argmax(np.abs(actual - expected))), w.shape)
    detail = ""
    if np.all(np.abs(actual - first) <= allowed):
        detail = "(The gradient is that of the encoder's use alone.)"
    proof = evidence("by one weight", float(expected[worst]), float(actual[worst]))
    findings.add(finding("SAE803", proof, detail))


def _check_decay(target: Target, x: Any, findings: Findings) -> None:
    pair = Pair(target, regularized=True)
    pair.model(tensor(x))
    once = L2 * float(np.sum(as_array(pair.encoder.kernel.value) ** 2))
    total = as_number(sum(pair.model.losses)) if pair.model.losses else 0.0
    if abs(total - 2.0 * once) <= 1e-4 * once:
        proof = evidence("kernel_regularizer=L2(0.5) on the encoder", once, total)
        findings.add(finding("SAE806", proof))
    if "kernel_regularizer" not in _accepted(target):
        return
    try:
        pair = Pair(target, kernel_regularizer=keras.regularizers.L2(L2))
        pair.model(tensor(x))
    except Exception:
        return  # it refuses what it cannot do
    once = L2 * float(np.sum(as_array(pair.encoder.kernel.value) ** 2))
    total = as_number(sum(pair.model.losses)) if pair.model.losses else 0.0
    if total == 0.0:
        proof = evidence("kernel_regularizer=L2(0.5) on the tied layer", once, total)
        findings.add(finding("SAE808", proof))


def _still_tied(pair: Pair, model: Any, x: Any) -> bool:
    pair.randomise(model, 8, only_encoder=True)
    return _close(as_array(model(tensor(x))), pair.expected(model, x))


def _check_clone(pair: Pair, x: Any, findings: Findings) -> None:
    try:
        clone = keras.models.clone_model(pair.model)
        tied = _still_tied(pair, clone, x)
    except Exception as error:
        proof = Evidence("clone_model", "a tied model", described(error))
        findings.add(finding("SAE804", proof))
        return
    if not tied:
        proof = Evidence(
            "clone_model, then a new encoder kernel",
            "a decoder that follows",
            f"one that does not; {_count(clone.weights)} parameters",
        )
        findings.add(finding("SAE804", proof))


def _check_saving(pair: Pair, x: Any, target: Target, findings: Findings) -> None:
    subject = source.subject_of(target.thing)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.keras"))
        try:
            before = as_array(pair.model(tensor(x)))
            pair.model.save(path)
            loaded = keras.models.load_model(path, custom_objects={subject.__name__: subject})
            after = as_array(loaded(tensor(x)))
            same = _close(after, before)
            tied = same and _still_tied(pair, loaded, x)
        except Exception as error:
            proof = Evidence("save and load_model", "the same model", described(error))
            findings.add(finding("SAE805", proof))
            return
    if not tied:
        got = "another output" if not same else "a decoder that no longer follows the encoder"
        findings.add(finding("SAE805", Evidence("save and load_model", "the same model", got)))
