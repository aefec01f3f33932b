"""Review of a sparsity penalty: a regularizer, or a layer that adds one to the losses.

First the formula, by the candidates that fit what reaches the loss; then the gradient against the
candidate's own; then the edges of the KL, half precision, compiled calls, state and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_impl.backends.autodiff import has_gradients
from keras_impl.backends.keras_internals import keras_divides_activity_by_batch, layers_of
from reference.rounding import precision_named
from sae_oracle.reviewer import source
from sae_oracle.reviewer.candidates import (
    GUARD,
    INPUTS,
    Context,
    Explanation,
    Observation,
    bounded_sum,
    clipped_activations,
    explain,
    right_value,
)
from sae_oracle.reviewer.evaluation import (
    as_array,
    as_number,
    dtype_of,
    gradient_of,
    losses_of,
    penalty_function,
    quietly,
    run_compiled,
    tensor,
)
from sae_oracle.reviewer.findings import Evidence, Finding, finding
from sae_oracle.reviewer.reading import literals
from sae_oracle.reviewer.target import CouldNotReviewError, Target, described, is_our_own

RUNNING = "ρ̂ is a running average"

_FLOAT32 = precision_named("float32").unit_roundoff

# (samples, units) of the probes; small activations, so that sums over either axis stay below 1.
_SMALL = ((4, 3), (6, 5), (3, 7), (8, 2), (5, 4), (2, 6))
_WIDE = ((4, 3), (6, 5), (5, 2))
_RHOS = (0.05, 0.2, 0.35)
_BETAS = (3.0, 0.7, 5.0, 1.5)


@dataclass
class Findings:
    """What a review collects.

    Args:
        found: The findings.
        notes: What is no mistake.
        checks: What was checked.
    """

    found: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)

    def add(self, new: Finding) -> None:
        """Add a finding, once."""
        if all(new.identifier != old.identifier for old in self.found):
            self.found.append(new)

    def name(
        self,
        target: Target,
        identifiers: Iterable[str],
        proof: Evidence,
        detail: str = "",
        alternatives: tuple[str, ...] = (),
    ) -> None:
        """Add the mistakes that explain a number; one that the target documents is a note."""
        for identifier in dict.fromkeys(identifiers):
            if source.documents(target.words, identifier):
                self.notes.append(f"{identifier} is documented as its scaling")
            else:
                self.add(finding(identifier, proof, detail, alternatives))


class Penalty:
    """A target as a function from a layer's output to the number that reaches the loss.

    Args:
        target: A regularizer or a layer.
        called_directly: Whether a regularizer's value goes to the loss as it is (`add_loss`), and
            not as a layer's `activity_regularizer`.
    """

    def __init__(self, target: Target, called_directly: bool = False) -> None:
        self.target = target
        self.is_layer = target.kind == "layer"
        self.attached = not self.is_layer and not called_directly
        self.divided = self.attached and keras_divides_activity_by_batch()
        self.returns_numbers: bool | None = None
        self.of_keras = True
        self.input_kind = ""
        self.uncertainty = 0.0  # of its last value, beside its rounding
        self.has_gradients = has_gradients()

    def make(self, rho: float, beta: float, units: int | None = None) -> Any:
        """Return a new instance with these ρ and β, where it takes them."""
        changed: dict[str, Any] = {"rho": rho, "beta": beta}
        if units is not None:
            changed["units"] = units
        return fed_images(self.target.build(**changed), self.target)

    def in_loss(self, x: Any, rho: float, beta: float) -> tuple[float, Any]:
        """Return the number that reaches the loss, and the activations that it is about."""
        if self.is_layer:
            layer = self.make(rho, beta, x.shape[-1])
            fed = prepared_input(layer, x)
            output, losses = losses_of(layer, tensor(fed))
            return as_number(sum(losses)) if losses else 0.0, as_array(output)
        function = self.make(rho, beta)
        if not self.attached:
            return as_number(function(tensor(x))), x
        if self.returns_numbers is None:
            self.returns_numbers = not keras.ops.is_tensor(function(tensor(x)))
        if self.returns_numbers:  # Keras cannot add it; the formula is reviewed all the same
            divisor = x.shape[0] if self.divided else 1
            return as_number(function(tensor(x))) / divisor, x
        layer = keras.layers.Activation("linear", activity_regularizer=function)
        layer(tensor(x))
        return as_number(sum(layer.losses)), x

    def function(self, x: Any, rho: float, beta: float) -> Callable[[Any], Any]:
        """Return a differentiable function of a tensor like `x`: the value before Keras divides."""
        if self.is_layer:
            layer = self.make(rho, beta, x.shape[-1])
            losses_of(layer, tensor(prepared_input(layer, x)))
            return penalty_function(layer)
        made: Callable[[Any], Any] = self.make(rho, beta)
        return made

    def value(self, x: Any, rho: float, beta: float) -> float:
        """Return the value before Keras divides."""
        return as_number(self.function(x, rho, beta)(tensor(x)))

    def twice(self, x: Any, other: Any, rho: float, beta: float) -> tuple[float, float]:
        """Return the value of one instance, and again after it has seen another input."""
        function = self.function(x, rho, beta)
        first = as_number(function(tensor(x)))
        function(tensor(other))
        return first, as_number(function(tensor(x)))

    def gradient(self, x: Any, rho: float, beta: float) -> Any:
        """Return the derivative of the value by each element of `x`."""
        return gradient_of(self.function(x, rho, beta), x)

    def check_returned(self, rho: float, beta: float) -> None:
        """Raise `ShapeError` unless it returns one number; find out whether it takes images."""
        if self.is_layer:
            self._find_images(rho, beta)
            return
        x = tensor(probes("activations")[0])
        try:
            value = self.make(rho, beta)(x)
        except Exception:
            self.target.of_images = source.axis_left(self.target.thing)
            if self.target.of_images is None:
                raise
            value = self.make(rho, beta)(x)
            self.target.guesses.append(ONE_PIXEL)
        if value is None:
            raise ShapeError("None")
        shape = tuple(getattr(value, "shape", ()))
        if shape not in ((), (1,)):
            raise ShapeError(f"shape {shape}")

    def _find_images(self, rho: float, beta: float) -> None:
        """Find the images that a layer takes, if it takes no vectors."""
        x = probes("activations")[0]
        for self.target.of_images in (None, *OF_IMAGES):
            with suppress(Exception):
                self.in_loss(x, rho, beta)
                if self.target.of_images is not None:
                    self.target.guesses.append(ONE_PIXEL)
                return
        self.target.of_images = None

    def rates(self) -> dict[str, float]:
        """Return what may be the share of a running average, by name."""
        return {
            name: value
            for name, value in (self.target.arguments if self.is_layer else {}).items()
            if isinstance(value, float)
            and 0.0 < value < 1.0
            and name not in self.target.parameter.values()
        }

    def state(self, rho: float, beta: float) -> list[str]:
        """Return the names of the variables that it holds."""
        return [] if self.is_layer else _variables(self.make(rho, beta))


ONE_PIXEL = "it takes images: they are given with one pixel"


# Rank and axis of the units; a convolution that pads nothing needs an image of its kernel's size.
OF_IMAGES = tuple((rank, rank - 1, side) for side in (1, 3, 5, 7, 2, 4) for rank in (4, 3, 5))


class _OfOnePixel(keras.layers.Layer):
    """A layer of images as one of vectors: of its images all but one pixel are 0."""

    def __init__(self, layer: Any, rank: int, axis: int, side: int) -> None:
        super().__init__()
        self.layer = layer
        self.rank, self.axis, self.side = rank, axis, side

    def call(self, x: Any) -> Any:
        image = keras.ops.reshape(x, source.of_one_pixel(x.shape[1], self.rank, self.axis))
        first = np.zeros([1 if k in (0, self.axis) else self.side for k in range(self.rank)])
        first.flat[0] = 1.0
        output = self.layer(image * keras.ops.cast(first, image.dtype))
        return keras.ops.reshape(output, (-1, output.shape[self.axis]))


def fed_images(made: Any, target: Target) -> Any:
    """Return what takes images as a layer, or function, of activations; any other as it is."""
    if target.of_images is None:
        return made
    rank, axis, *side = target.of_images
    if isinstance(made, keras.layers.Layer):
        inner = layers_of(made)
        first = any(getattr(part, "data_format", None) == "channels_first" for part in inner)
        return _OfOnePixel(made, rank, 1 if first else axis, *side)
    return lambda x: made(keras.ops.reshape(x, source.of_one_pixel(x.shape[1], rank, axis)))


def keras_divides(layer: Any) -> bool:
    """Return whether Keras divides a penalty of a layer, or of what is inside, by the batch."""
    inner = layers_of(layer)
    return keras_divides_activity_by_batch() and any(
        getattr(part, "activity_regularizer", None) is not None for part in inner
    )


def prepared_input(layer: Any, x: Any) -> Any:
    """Give a layer with a square kernel the identity as kernel, and return what makes it give `x`.

    A layer without a kernel is fed `x` itself.
    """
    name = with_identity(layer, x)
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            logits = np.clip(np.log(x) - np.log1p(-x), -60.0, 60.0)
            return logits.astype("float32").astype("float64")
        if name == "tanh":
            return np.arctanh(x).astype("float32").astype("float64")
    return x


def with_identity(layer: Any, x: Any) -> str:
    """Give a layer with one square kernel the identity as kernel, and return its activation.

    Empty for a layer without such a kernel.
    """
    if not layer.built and not isinstance(layer, _OfOnePixel):
        layer.build(tuple(x.shape))
    inner = layers_of(layer, include_self=False)
    if inner and not layer.trainable_weights:
        layer(tensor(x))  # what is inside is built by a call
    square = (x.shape[-1],) * 2
    kernels = [w for w in layer.trainable_weights if tuple(w.shape)[-2:] == square]
    if len(kernels) != 1:
        return ""
    owner = next((part for part in inner if getattr(part, "kernel", None) is kernels[0]), layer)
    identity = np.eye(x.shape[-1], dtype="float32")
    kernels[0].assign(np.broadcast_to(identity, tuple(kernels[0].shape)).copy())
    for bias in [w for w in layer.trainable_weights if len(w.shape) == 1]:
        bias.assign(np.zeros(bias.shape, "float32"))
    name = getattr(getattr(owner, "activation", None), "__name__", "linear")
    return _activation_shown(layer, x) if name == "linear" else name


def _activation_shown(layer: Any, x: Any) -> str:
    """The activation of a layer with the identity as kernel and no bias, from what it returns."""
    try:
        returned = as_array(layer(tensor(x)))
    except Exception:  # what it raises is found where it is reviewed
        return "linear"
    for name, function in (("sigmoid", lambda z: 1.0 / (1.0 + np.exp(-z))), ("tanh", np.tanh)):
        if returned.shape == x.shape and np.allclose(returned, function(x), rtol=0.0, atol=1e-6):
            return name
    return "linear"


def number(value: float) -> str:
    """Return a number as it is shown: six digits."""
    return f"{value:.6g}"


def evidence(given: str, expected: float, got: float) -> Evidence:
    """Return the evidence of two numbers, with their ratio."""
    ratio = ""
    if np.isfinite(expected) and np.isfinite(got) and expected != 0.0:
        ratio = f"{got / expected:.4g}"
    return Evidence(given, number(expected), number(got), ratio)


def expected_input(target: Target) -> str:
    """Return what the target says that it takes: a key of `INPUTS`."""
    arguments = {key.replace("_", "").lower(): value for key, value in target.arguments.items()}
    if arguments.get("fromlogits") is True:
        return "logits"
    if arguments.get("symmetric") is True:
        return "symmetric"
    words = target.words
    if (
        "fromlogits" not in arguments
        and source.mentions(
            words, r"(takes?|from|of|on|for|given|are)( the| its)?( \w+)? logits?\b"
        )
        and not source.mentions(words, r"\b(not|never|no)\b[^.]{0,30}logits?\b")
    ):
        return "logits"
    if (
        "symmetric" not in arguments
        and source.mentions(words, r"\btanh (unit|activation|layer|output)|\[[-−]1, ?1\]")
        and not source.mentions(words, r"sigmoid|relu|\b(not|never|no)\b[^.]{0,30}tanh")
    ):
        return "symmetric"
    return "activations"


def probes(input_kind: str) -> list[Any]:
    """Return inputs with structure: every sample and every unit is another."""
    generator = np.random.default_rng(7)
    inputs = []
    for m, n in _SMALL:
        units = generator.uniform(0.3, 1.0, size=n)
        inputs.append(generator.uniform(0.02, 0.11, size=(m, n)) * units + 0.005)
    inputs += [generator.uniform(0.08, 0.92, size=shape) for shape in _WIDE]
    if input_kind == "logits":
        inputs += [generator.normal(size=shape) * 2.0 - 1.0 for shape in _WIDE]
    if input_kind == "symmetric":
        inputs += [generator.uniform(-0.9, 0.8, size=shape) for shape in _WIDE]
    return [x.astype("float32").astype("float64") for x in inputs]


def ordinary_probe() -> Any:
    """Return a batch (4, 3) of activations over most of (0, 1)."""
    return probes("activations")[len(_SMALL)]


def review_penalty(
    target: Target,
    findings: Findings,
    *,
    called_directly: bool = False,
    activation: str | None = None,
    native: Penalty | None = None,
) -> Explanation | None:
    """Review a sparsity penalty and collect what is found.

    Args:
        target: A regularizer or layer with a ρ.
        findings: Where they go.
        called_directly: Whether a regularizer is called by hand or under `add_loss`.
        activation: The activation of the layer that it is used on, if known.
        native: The same on the backend whose own functions it calls, where that is another.

    Returns:
        The candidate that explains what it computes, if there is one.

    Raises:
        CouldNotReviewError: If ρ is not known, or it gives nothing to review.
    """
    rho = target.values.get("rho")
    if rho is None:
        raise CouldNotReviewError(
            "which argument is ρ? Name it (--rho NAME), or give its value (--rho 0.05)"
        )
    penalty = Penalty(target, called_directly)
    beta = target.values.get("beta")
    beta_is_known = beta is not None and ("beta" in target.parameter or beta != 1.0)
    if beta is None:
        beta = 1.0
        target.guesses.append("no β was found: it is taken to be 1")
    with source.ported(target.thing, native is not None) as removed:
        if removed:
            add_removed(removed, findings)
        if native is not None:
            check_backends(target, findings)
            try:
                return review_formula(native, findings, rho, beta, beta_is_known, activation)
            except CouldNotReviewError:
                raise
            except Exception as error:
                _raised(target, error, findings)
                return None
        return review_formula(penalty, findings, rho, beta, beta_is_known, activation)


def add_removed(removed: Sequence[str], findings: Findings) -> None:
    """Add the finding of calls that no longer exist."""
    names = ", ".join(f"`{call}`" for call in sorted(removed))
    left = source.without_replacement(removed)
    detail = f"({names}. The rest is reviewed with keras.ops in their place.)"
    if left:
        gone = ", ".join(f"`{call}`" for call in sorted(left))
        detail = f"({names}. Keras 3 has nothing in place of {gone}.)"
    findings.add(finding("SAE603", Evidence("source", "keras.ops", names), detail))


def review_formula(
    penalty: Penalty,
    findings: Findings,
    rho: float,
    beta: float,
    beta_is_known: bool,
    activation: str | None,
) -> Explanation | None:
    """Review what a penalty computes, however it is called; `review_penalty` says the rest."""
    target = penalty.target
    input_kind = penalty.input_kind or expected_input(target)
    if input_kind == "activations" and activation == "tanh":
        input_kind = "symmetric"
        findings.notes.append("it is used on tanh units, whose activations are in [−1, 1]")
    elif input_kind != "activations":
        findings.notes.append(f"it says that it takes {_in_words(input_kind)}")
    try:
        observations, stateful = _observe(penalty, rho, beta, input_kind)
    except CouldNotReviewError:
        raise
    except ShapeError as error:
        findings.add(finding("SAE127", Evidence("activations (4, 3)", "shape ()", str(error))))
        return None
    except Exception as error:
        held = []
        with suppress(Exception):
            held = penalty.state(rho, beta)
        if held:  # state of one width, most likely
            proof = Evidence("a second width", "a number", described(error))
            findings.add(finding("SAE604", proof, f"(It holds {', '.join(held)}.)"))
        else:
            _raised(target, error, findings)
        return None
    findings.checks.append(f"value on {len(observations)} inputs")
    if not penalty.is_layer and _ignores_its_input(penalty, rho, beta):
        words = "(It is the same for every batch" + (
            ", at first: it is of an earlier one.)" if stateful else ".)"
        )
        proof = Evidence(
            "activations half as large", "another penalty", number(observations[0].value)
        )
        findings.add(finding("SAE301", proof, words))
        return None
    if penalty.is_layer and all(o.value == 0.0 for o in observations):
        raise CouldNotReviewError("the layer adds nothing to the losses")
    is_regularizer = not penalty.is_layer
    held = penalty.state(rho, beta)
    if penalty.of_keras and ((stateful and is_regularizer) or held):
        change = stateful or "it holds " + ", ".join(held)
        findings.add(finding("SAE604", Evidence("the same input again", "the same value", change)))
    context = Context(
        divided=penalty.divided or (penalty.is_layer and keras_divides(penalty.make(rho, beta))),
        input=input_kind,
        beta_is_known=beta_is_known,
    )
    best = _explain(penalty, observations, context, findings, stateful)
    explanation = best[0] if best else None
    if explanation is not None and not 0.0 < rho < 1.0:
        findings.add(finding("SAE131", Evidence("its ρ", "a number in (0, 1)", number(rho))))
        rho = _RHOS[0]
    _report_formula(penalty, observations, best, context, findings)
    exact = explanation if explanation is None or not explanation.words.startswith("ε") else None
    if penalty.has_gradients:
        with quietly():
            _check_gradient(penalty, exact, rho, beta, context, findings)
    with quietly():
        _check_edges(penalty, explanation, rho, beta, input_kind, activation, findings)
        if not penalty.of_keras:
            return explanation
        _check_half_precision(penalty, rho, beta, findings)
        _check_compiled(penalty, rho, beta, findings)
        if penalty.is_layer and explanation is not None:
            _check_masks(penalty, explanation, rho, beta, findings)
    check_backends(target, findings)
    return explanation


def _in_words(input_kind: str) -> str:
    return {"logits": "logits", "symmetric": "activations in [−1, 1]"}[input_kind]


class ShapeError(Exception):
    """What was returned is not one number."""


def _raised(target: Target, error: BaseException, findings: Findings) -> None:
    if is_our_own(error):
        raise error
    if any(found.identifier == "SAE603" for found in findings.found) and isinstance(
        error, AttributeError
    ):
        return  # what went, and has nothing in its place
    proof = Evidence("a call on float32 activations", "a number", described(error))
    foreign = [c for c in source.calls(target.thing) if c.package in source.BACKEND_PACKAGES]
    foreign = [c for c in foreign if c.package != keras.config.backend()]
    if foreign:
        names = ", ".join(f"`{call.name}`" for call in foreign)
        findings.add(finding("SAE602", proof, f"({names}; this is {keras.config.backend()})"))
    else:
        findings.add(finding("SAE601", proof))


def _observe(
    penalty: Penalty, rho: float, beta: float, input_kind: str
) -> tuple[list[Observation], str]:
    """Return what reaches the loss on every probe, and how a second call differs if it does."""
    observations: list[Observation] = []
    target = penalty.target
    penalty.check_returned(rho, beta)
    for k, x in enumerate(probes(input_kind)):
        chosen_rho = ((rho, *_RHOS)[k % 4]) if "rho" in target.parameter else rho
        chosen_beta = ((beta, *_BETAS)[k % 5]) if "beta" in target.parameter else beta
        try:
            value, activations = penalty.in_loss(x, chosen_rho, chosen_beta)
        except (ValueError, TypeError):
            if (chosen_rho, chosen_beta) == (rho, beta):
                raise
            chosen_rho, chosen_beta = rho, beta  # its own range is narrower
            value, activations = penalty.in_loss(x, rho, beta)
        observations.append(
            Observation(activations, chosen_rho, chosen_beta, value, penalty.uncertainty)
        )
    x, other = probes("activations")[:2]
    if penalty.is_layer:
        return observations, ""
    first, again = penalty.twice(x, other[:, : x.shape[1]], rho, beta)
    differs = not (first == again or abs(first - again) <= 64 * _FLOAT32 * abs(first))
    if differs and np.isfinite(first):
        return observations, f"{number(first)}, then {number(again)}"
    return observations, ""


def _ignores_its_input(penalty: Penalty, rho: float, beta: float) -> bool:
    x = ordinary_probe()
    values = [penalty.in_loss(k * x, rho, beta)[0] for k in (1.0, 0.5)]
    return values[0] == values[1]


def _variables(thing: Any) -> list[str]:
    """The attributes that hold variables of Keras or of a backend."""
    return [
        name
        for name, value in getattr(thing, "__dict__", {}).items()
        if isinstance(value, keras.Variable) or type(value).__name__.endswith("Variable")
    ]


def _explain(
    penalty: Penalty,
    observations: Sequence[Observation],
    context: Context,
    findings: Findings,
    stateful: str,
) -> list[Explanation]:
    best = explain(observations, context)
    if best:
        return best
    # A running average that starts somewhere: ρ̂ = (1 − μ)·(mean of the batch) + μ·(start).
    for name, value in penalty.rates().items():
        for share in (1.0 - value, value):
            for start in (0.0, None, 0.5, 1.0):
                moved = [
                    Observation(
                        share * o.x + (1.0 - share) * (o.rho if start is None else start),
                        o.rho,
                        o.beta,
                        o.value,
                    )
                    for o in observations
                ]
                found = explain(moved, context, most_mistakes=1)
                if found and not found[0].mistakes:
                    findings.notes.append(f"{RUNNING} (`{name}`)")
                    return found
    written = [] if penalty.target.thing is None else literals(penalty.target.thing)[:8]
    return clipped_activations(observations, context, written)


def _report_formula(
    penalty: Penalty,
    observations: Sequence[Observation],
    best: list[Explanation],
    context: Context,
    findings: Findings,
) -> None:
    target = penalty.target
    if not best:
        if any(found.identifier == "SAE604" for found in findings.found):
            return
        constant = _fixed_rho(penalty, observations, context)
        if constant is not None:
            first = observations[0]
            proof = Evidence(
                f"ρ = {', '.join(number(r) for r in sorted({o.rho for o in observations}))}",
                "another penalty for each",
                f"always that of ρ = {constant:g}, such as {number(first.value)}",
            )
            findings.add(finding("SAE116", proof))
            return
        worst = max(observations, key=lambda o: _misfit(o, context))
        proof = evidence(
            _given(worst), right_value(worst.x, worst.rho, worst.beta, context.input), worst.value
        )
        findings.add(finding("SAE199", proof))
        return
    explanation = best[0]
    if not explanation.mistakes:
        return
    alternatives = [
        " and ".join(other.mistakes) + f" ({other.words})"
        for other in best[1:]
        if set(other.mistakes) != set(explanation.mistakes)
    ]
    telling = max(observations, key=lambda o: _misfit(o, context))
    proof = evidence(
        _given(telling),
        right_value(telling.x, telling.rho, telling.beta, context.input),
        telling.value,
    )
    for identifier in dict.fromkeys(explanation.mistakes):
        if (
            identifier == "SAE115"
            and "beta" not in target.values
            and explanation.factor(1, 1, 1.0) > 0
        ):
            found = explanation.factor(1, 1, 1.0)
            target.guesses.append(f"the factor {found:.4g} is taken for β (--beta says otherwise)")
            continue
        detail = ""
        if identifier in ("SAE101", "SAE102"):
            version = keras.__version__
            by = f"Keras {version}" if identifier == "SAE101" else "the code itself"
            detail = f"(Divided by {by}.)"
        elif identifier in ("SAE112", "SAE114", "SAE115", "SAE119", "SAE126", "SAE129"):
            of_formula = identifier in ("SAE119", "SAE129")
            words = explanation.divergence.name if of_formula else explanation.words
            detail = f"({words})"
        findings.name(target, [identifier], proof, detail, tuple(alternatives))


def _misfit(o: Observation, context: Context) -> float:
    expected = right_value(o.x, o.rho, o.beta, context.input)
    if not np.isfinite(expected) or not np.isfinite(o.value) or expected <= 0.0:
        return 0.0 if np.isfinite(o.value) else -1.0
    return abs(float(np.log(max(abs(o.value), 1e-30) / expected)))


def _given(o: Observation) -> str:
    shape = " × ".join(str(size) for size in o.x.shape)
    return f"{shape} activations, ρ = {o.rho:g}, β = {o.beta:g}"


def _fixed_rho(
    penalty: Penalty, observations: Sequence[Observation], context: Context
) -> float | None:
    """The constant ρ that explains the numbers in place of the one that was given."""
    if len({o.rho for o in observations}) < 2:
        return None
    values = {0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5}
    values |= {o.rho for o in observations}
    for rho in sorted(values):
        fixed = [Observation(o.x, rho, o.beta, o.value) for o in observations]
        found = explain(fixed, context, most_mistakes=1)
        if found and not set(found[0].mistakes) - {"SAE101"}:
            return rho
    return None


# --- gradients


def _check_gradient(
    penalty: Penalty,
    explanation: Explanation | None,
    rho: float,
    beta: float,
    context: Context,
    findings: Findings,
) -> None:
    x = ordinary_probe()
    if explanation is not None and "SAE104" in explanation.mistakes:
        x = probes("activations")[0]  # whose sums are inside (0, 1)
    if penalty.is_layer:
        layer = penalty.make(rho, beta, x.shape[-1])
        fed = prepared_input(layer, x)
        if fed is not x:
            x, explanation = fed, None
    findings.checks.append("gradient")
    target = penalty.target
    written = [] if target.thing is None else source.cuts(target.thing)
    detail = f"(In the source: {', '.join(f'`{cut}`' for cut in written)}.)" if written else ""
    given = f"4 × 3 activations, ρ = {rho:g}, β = {beta:g}"
    try:
        actual = penalty.gradient(x, rho, beta)
    except Exception as error:
        findings.add(finding("SAE302", Evidence(given, "a gradient", described(error)), detail))
        return
    largest = float(np.max(np.abs(actual))) if actual.size else 0.0
    if RUNNING in " ".join(findings.notes):
        if largest == 0.0:
            findings.add(finding("SAE301", Evidence(given, "a gradient", "0"), detail))
        return  # its value changes with every call
    scale = float(x.shape[0]) if context.divided else 1.0
    if explanation is None:
        numerical, uncertainty = _numerical_slope(penalty, x, rho, beta)
        along = float(np.sum(actual))
        if largest == 0.0 and abs(numerical) > 10.0 * uncertainty:
            proof = evidence(f"{given}, all raised together", numerical, along)
            findings.add(finding("SAE301", proof, detail))
        elif abs(along - numerical) > 10.0 * uncertainty + 0.05 * abs(numerical):
            proof = evidence(f"{given}, all raised together", numerical, along)
            findings.add(finding("SAE304", proof, detail))
        return
    expected = scale * explanation.gradient(x, rho, beta)
    allowed = _gradient_bound(explanation, x, rho, beta, scale)
    if np.all(np.abs(actual - expected) <= allowed):
        return
    worst = np.unravel_index(int(np.argmax(np.abs(actual - expected) / allowed)), x.shape)
    proof = evidence(f"{given}, by the activation {worst}".replace("np.int64", ""), 0.0, 0.0)
    proof = evidence(
        f"{given}, by activation {tuple(int(i) for i in worst)}",
        float(expected[worst]),
        float(actual[worst]),
    )
    if largest == 0.0:
        findings.add(finding("SAE301", proof, detail))
        return
    ratios = actual / expected
    constant = float(ratios.flat[int(np.argmax(np.abs(expected)))])
    if np.all(np.abs(actual - constant * expected) <= 2.0 * abs(constant) * allowed):
        findings.add(finding("SAE303", proof, f"(The constant is {constant:.4g}.)"))
        return
    findings.add(
        finding("SAE304", proof, _part(explanation, x, rho, beta, scale, actual) or detail)
    )


def _gradient_bound(explanation: Explanation, x: Any, rho: float, beta: float, scale: float) -> Any:
    """The spread of the slope over a guarded ρ̂ (EQ-BOUND-KL-DERIVATIVE), and its roundings."""
    a = INPUTS[explanation.input](x)
    groups = explanation.mean.function(a)
    factor = abs(explanation.factor(x.shape[0], groups.shape[1], beta))
    steep = factor * float(np.max(rho / groups + (1.0 - rho) / (1.0 - groups) + 1.0))
    high = explanation.gradient(x + GUARD, rho, beta)
    low = explanation.gradient(x - GUARD, rho, beta)
    return scale * (np.abs(high - low) + 64.0 * _FLOAT32 * steep + GUARD * steep)


def _part(
    explanation: Explanation, x: Any, rho: float, beta: float, scale: float, actual: Any
) -> str:
    """Which half of the KL the gradient is that of, in words."""
    from dataclasses import replace

    from sae_oracle.reviewer.candidates import DIVERGENCES

    for choice in DIVERGENCES:
        if choice.name in ("ρ half", "1 − ρ half", "KL reversed"):
            part = replace(explanation, divergence=choice)
            allowed = 2.0 * _gradient_bound(explanation, x, rho, beta, scale)
            if np.all(np.abs(actual - scale * part.gradient(x, rho, beta)) <= allowed):
                return f"(It is the gradient of the {choice.name} alone.)"
    return ""


def _numerical_slope(penalty: Penalty, x: Any, rho: float, beta: float) -> tuple[float, float]:
    """The derivative of the value along (1, …, 1), and how uncertain it is."""
    if penalty.is_layer:
        function = penalty.function(x, rho, beta)

    def value(step: float) -> float:
        if penalty.is_layer:  # the one that is built
            return as_number(function(tensor(x + step)))
        return penalty.value(x + step, rho, beta)

    wide, narrow = ((value(h) - value(-h)) / (2.0 * h) for h in (2.0**-6, 2.0**-7))
    rounding = 64.0 * _FLOAT32 * abs(value(0.0)) / 2.0**-7
    return narrow, abs(wide - narrow) + rounding


# --- the edges


def _at_edge(x: Any, column: float) -> Any:
    moved = np.array(x)
    moved[:, 0] = column
    return moved


def _check_edges(
    penalty: Penalty,
    explanation: Explanation | None,
    rho: float,
    beta: float,
    input_kind: str,
    activation: str | None,
    findings: Findings,
) -> None:
    findings.checks.append("dead, saturated and out-of-range units")
    if explanation is not None:
        input_kind = explanation.input
        if {"SAE119", "SAE122", "SAE129"} & set(explanation.mistakes):
            return
    base = ordinary_probe()
    sums = explanation is not None and "SAE104" in explanation.mistakes
    is_global = explanation is not None and bool(
        {"SAE105", "SAE106", "SAE107"} & set(explanation.mistakes)
    )
    target = penalty.target
    if penalty.is_layer:
        with suppress(Exception):
            layer = penalty.make(rho, beta, base.shape[1])
            own = getattr(getattr(layer, "activation", None), "__name__", None)
            activation = activation or own or with_identity(layer, base) or None
    bounded_layer = penalty.is_layer and activation in ("sigmoid", "softmax", "hard_sigmoid")
    edges: dict[str, tuple[float, ...]]
    if input_kind == "logits":
        edges = {"dead": (-200.0,), "saturated": (200.0,), "outside": ()}
    elif input_kind == "symmetric":
        edges = {"dead": (-1.0,), "saturated": (1.0,), "outside": (-1.5, 1.5)}
    else:
        edges = {"dead": (0.0,), "saturated": (1.0,), "outside": (-0.5, 1.5)}
    if activation == "relu":
        edges["outside"] = edges["outside"][1:]
    divisor = base.shape[0] if sums else 1.0
    flat: list[str] = []
    for place, columns in edges.items():
        for column in columns:
            x = _at_edge(base, column / divisor)
            if sums:
                x[:, 1:] = x[:, 1:] / divisor
            if is_global:
                x[:] = column
            if bounded_layer and place == "outside":
                continue
            state = _state_at(penalty, x, rho, beta)
            if state is None:
                continue
            value, gradient = state
            input_words = {
                "dead": f"a dead unit (ρ̂ = {0 if input_kind != 'logits' else 'σ(−200)'})",
                "saturated": f"a saturated unit (ρ̂ = {1 if input_kind != 'logits' else 'σ(200)'})",
                "outside": f"a unit with mean activation {column:g}",
            }[place]
            broken = not np.isfinite(value)
            gradient_broken = gradient is not None and not np.all(np.isfinite(gradient))
            if broken or gradient_broken:
                got = number(value) if broken else "a gradient of NaN or infinity"
                proof = Evidence(f"{input_words}, ρ = {rho:g}", "a finite penalty", got)
                if place != "outside":
                    findings.add(finding("SAE401", proof))
                elif _is_for_sigmoid(target, activation):
                    findings.notes.append("it is documented for sigmoid activations, inside [0, 1]")
                else:
                    findings.add(finding("SAE403", proof, _where(activation)))
            elif gradient is not None:
                pushed = gradient if is_global else gradient[:, 0]
                inside = penalty.gradient(base, rho, beta)
                if np.max(np.abs(inside)) > 0.0 and np.max(np.abs(pushed)) == 0.0:
                    flat.append(input_words)
    if flat:
        threshold = "" if input_kind == "logits" else _threshold(penalty, base, rho, beta)
        proof = Evidence(", ".join(dict.fromkeys(flat)), "a gradient towards ρ", "0")
        findings.add(finding("SAE402", proof, threshold))


def _is_for_sigmoid(target: Target, activation: str | None) -> bool:
    if activation is not None:
        return activation in ("sigmoid", "softmax", "hard_sigmoid")
    return source.mentions(
        target.words, r"sigmoid|in [\[(]0, ?1[\])]|probabilit"
    ) and not source.mentions(target.words, r"relu|tanh")


def _where(activation: str | None) -> str:
    return f"(The layer's activation is {activation}.)" if activation else ""


def _state_at(penalty: Penalty, x: Any, rho: float, beta: float) -> tuple[float, Any] | None:
    """The value and the gradient at an input; `None` where they cannot be had."""
    try:
        value = penalty.in_loss(x, rho, beta)[0]
    except Exception:
        return None
    if penalty.of_keras and not penalty.has_gradients:
        return value, None
    try:
        if penalty.is_layer:
            layer = penalty.make(rho, beta, x.shape[-1])
            prepared_input(layer, x)
            if layer.trainable_weights:
                return value, None  # its activation may have a flat end of its own
        return value, penalty.gradient(x, rho, beta)
    except Exception:
        return value, None


def _threshold(penalty: Penalty, base: Any, rho: float, beta: float) -> str:
    """How near the edge the gradient ends, in words."""
    for exponent in range(1, 10):
        epsilon = 10.0**-exponent
        state = _state_at(penalty, _at_edge(base, epsilon), rho, beta)
        if state is None or state[1] is None:
            return ""
        if np.max(np.abs(state[1][:, 0])) > 0.0:
            continue
        return f"(There is none for ρ̂ ≤ {epsilon:g}.)"
    return ""


# --- precision, compiled calls, masks, backends


def _check_half_precision(penalty: Penalty, rho: float, beta: float, findings: Findings) -> None:
    if penalty.is_layer or keras.config.backend() == "openvino":
        return
    findings.checks.append("float16 and bfloat16 input")
    base = ordinary_probe()
    many = np.tile(base, (1024, 8))
    for dtype in ("float16", "bfloat16"):
        try:
            function = penalty.make(rho, beta)
            value = function(tensor(base, dtype))
            returned = dtype_of(value)
            plain = as_number(value)
        except Exception as error:
            findings.add(
                finding("SAE503", Evidence(f"{dtype} input", "a number", described(error)))
            )
            continue
        if returned in ("float16", "bfloat16"):
            proof = Evidence(f"{dtype} input", "a float32 penalty", f"{returned}: {number(plain)}")
            findings.add(finding("SAE501", proof))
        for words, x in (
            (f"{many.shape[0]} × {many.shape[1]} activations", many),
            ("a dead unit", _at_edge(base, 0.0)),
            ("a saturated unit", _at_edge(base, 1.0)),
        ):
            try:
                in_half = as_number(function(tensor(x, dtype)))
                in_single = as_number(function(tensor(as_array(tensor(x, dtype)))))
                slope = np.zeros(1)
                slope_single = np.zeros(1)
                if has_gradients() and np.isfinite(in_half):
                    slope = gradient_of(function, x, dtype)
                    slope_single = gradient_of(function, as_array(tensor(x, dtype)))
            except Exception:
                continue
            if np.isfinite(in_single) and not np.isfinite(in_half):
                proof = evidence(f"{words} in {dtype}", in_single, in_half)
                findings.add(finding("SAE502", proof))
            elif _overflows(slope, slope_single, dtype):
                proof = Evidence(f"{words} in {dtype}", "a finite gradient", "NaN or infinity")
                findings.add(finding("SAE502", proof))


def _overflows(slope: Any, in_single: Any, dtype: str) -> bool:
    """Whether a gradient breaks that would fit into the dtype of the input."""
    largest = precision_named(dtype).largest
    fits = np.all(np.isfinite(in_single)) and float(np.max(np.abs(in_single))) < largest
    return bool(fits and not np.all(np.isfinite(slope)))


def _check_compiled(penalty: Penalty, rho: float, beta: float, findings: Findings) -> None:
    if {"SAE301", "SAE302", "SAE604"} & {found.identifier for found in findings.found}:
        return
    if penalty.target.of_images is not None:
        return  # what feeds it is not its own
    findings.checks.append("compiled and symbolic calls")
    x = ordinary_probe()
    try:
        function = penalty.function(x, rho, beta)
        if has_gradients() and not (penalty.is_layer and keras.config.backend() == "jax"):
            run_compiled(function, x)
        made = penalty.make(rho, beta, x.shape[-1])
        last = (
            made
            if penalty.is_layer
            else keras.layers.Activation(
                "linear", activity_regularizer=made if penalty.attached else None
            )
        )
        inputs = keras.Input((x.shape[-1],))
        keras.Model(inputs, last(inputs))
    except Exception as error:
        proof = Evidence("a batch of unknown size", "a number", described(error))
        findings.add(finding("SAE605", proof))


def _check_masks(
    penalty: Penalty, explanation: Explanation, rho: float, beta: float, findings: Findings
) -> None:
    """Whether padded steps count, for a layer that takes sequences."""
    if penalty.target.of_images is not None:
        return
    if explanation.mistakes and set(explanation.mistakes) - {"SAE101", "SAE103", "SAE111"}:
        return
    generator = np.random.default_rng(3)
    x = generator.uniform(0.2, 0.8, size=(4, 5, 3)).astype("float32").astype("float64")
    lengths = [5, 2, 3, 1]
    valid = np.arange(5)[None, :] < np.array(lengths)[:, None]
    x[~valid] = 0.0
    try:
        layer = penalty.make(rho, beta, 3)
        if any(len(w.shape) > 1 for w in _weights(layer, x)):
            return
        if "mask" not in _call_parameters(layer) and not _is_penalty_layer(layer, x):
            return
        model = keras.Sequential([keras.Input((5, 3)), keras.layers.Masking(0.0), layer])
        model(tensor(x))
        got = as_number(sum(model.losses))
    except Exception:
        return
    findings.checks.append("masked sequences")
    flat = x.reshape(-1, 3)
    rows = {"valid": flat[valid.ravel()], "all": flat}
    near = {}
    for which, a in rows.items():
        _, bound = bounded_sum(explanation.input, explanation.mean, explanation.divergence, a, rho)
        expected = float(np.real(explanation.value(a, rho, beta)))
        scale = abs(explanation.factor(a.shape[0], 3, beta))
        near[which] = abs(got - expected) <= scale * bound + 64 * _FLOAT32 * abs(expected)
    if near["all"] and not near["valid"]:
        proof = evidence(
            "4 sequences of 5, 2, 3 and 1 valid steps",
            float(np.real(explanation.value(rows["valid"], rho, beta))),
            got,
        )
        findings.add(finding("SAE128", proof))


def _weights(layer: Any, x: Any) -> list[Any]:
    layer(tensor(x))
    return list(layer.weights)


def _call_parameters(layer: Any) -> list[str]:
    import inspect

    return list(inspect.signature(layer.call).parameters)


def _is_penalty_layer(layer: Any, x: Any) -> bool:
    """Whether it passes its input through."""
    output = as_array(layer(tensor(x)))
    return output.shape == x.shape and bool(np.array_equal(output, x))


def check_backends(target: Target, findings: Findings) -> None:
    """Whether the source is bound to one backend."""
    if source.is_kerass_own(target.thing) or source.chooses_by_backend(target.thing):
        return
    foreign = [
        call
        for call in source.calls(target.thing)
        if call.package in source.BACKEND_PACKAGES and call.exists
    ]
    if foreign:
        packages = " and ".join(dict.fromkeys(call.package for call in foreign))
        names = ", ".join(f"`{call.name}`" for call in foreign)
        proof = Evidence("source", "keras.ops", names)
        findings.add(finding("SAE602", proof, f"({packages}: {names})"))
