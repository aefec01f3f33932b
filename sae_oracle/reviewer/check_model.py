"""Review of a model: which term of Ng's cost its loss has, with which factors.

The network is found from its weights: the activations and the ties for which a NumPy forward pass
gives the model's own output. Then its loss on a batch is taken apart, reconstruction from the
compiled loss, weight decay and sparsity from `model.losses`, and each is held to the notes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch, layers_of
from sae_oracle.reviewer import candidates, check_loss, source
from sae_oracle.reviewer.candidates import Context, Observation
from sae_oracle.reviewer.check_penalty import Findings, add_removed, evidence, review_penalty
from sae_oracle.reviewer.check_saving import review_saving
from sae_oracle.reviewer.evaluation import as_array, as_number, quietly, tensor
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import (
    CouldNotReviewError,
    Target,
    add_constants,
    described,
    resolve,
)

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
}
_U = 2.0**-24


@dataclass(frozen=True)
class Network:
    """How a model computes, as far as its output shows.

    Args:
        kernels: The index among the model's weights of each layer's kernel, and whether it is
            transposed.
        biases: The index of each layer's bias; `None`: it has none.
        activations: The name of each layer's activation.
    """

    kernels: tuple[tuple[int, bool], ...]
    biases: tuple[int | None, ...]
    activations: tuple[str, ...]

    def forward(self, weights: Sequence[Any], x: Any) -> list[Any]:
        """Return the activations of every layer."""
        outputs = []
        a = x
        for (k, transposed), b, name in zip(
            self.kernels, self.biases, self.activations, strict=True
        ):
            w = weights[k].T if transposed else weights[k]
            a = _ACTIVATIONS[name](a @ w + (0.0 if b is None else weights[b]))
            outputs.append(a)
        return outputs


def _networks(weights: Sequence[Any], features: int) -> Iterator[Network]:
    """Every network that the shapes of the weights allow, in the order of the weights."""
    kernels = [i for i, w in enumerate(weights) if w.ndim == 2]
    biases = [i for i, w in enumerate(weights) if w.ndim == 1]
    chains = [tuple((k, False) for k in kernels)]
    chains.append((*chains[0], *((k, True) for k in reversed(kernels))))
    for chain in chains:
        width, fits, layer_biases = features, True, []
        free = list(biases)
        for k, transposed in chain:
            rows, columns = weights[k].shape[::-1] if transposed else weights[k].shape
            if rows != width:
                fits = False
                break
            width = columns
            own = [b for b in free if weights[b].shape == (columns,)]
            layer_biases.append(own[0] if own else None)
            if own:
                free.remove(own[0])
        if not fits or width != features:
            continue
        names = tuple(_ACTIVATIONS)
        depth = len(chain)
        alike = [(name,) * (depth - 1) for name in names]
        mixed = itertools.product(names, repeat=depth - 1) if 2 < depth < 6 else ()
        for hidden, last in itertools.product([*alike, *mixed], names):
            yield Network(chain, tuple(layer_biases), (*hidden, last))


class Subject:
    """A model under review and what its weights are."""

    def __init__(self, target: Target, hyper: dict[str, float]) -> None:
        self.model = target.build(**hyper)
        if not isinstance(self.model, keras.Model):
            raise CouldNotReviewError(
                f"{target.name} gives {self.model!r}, which is no keras.Model"
            )
        self.features = _features(self.model)
        output = self.model(tensor(np.full((2, self.features), 0.5)))
        width = output.shape[-1] if len(getattr(output, "shape", ())) == 2 else self.features
        if width != self.features:  # it was not built, and takes what it gives
            self.model = target.build(**hyper)
            self.features = int(width)
            self.model(tensor(np.full((2, self.features), 0.5)))
        if not self.model.compiled:
            try:
                self.model.compile("sgd")
            except Exception as error:
                raise CouldNotReviewError(f"compiling raised {described(error)}") from error

    @property
    def variables(self) -> list[Any]:
        """The trainable weights."""
        return list(self.model.trainable_variables)

    def weights(self) -> list[Any]:
        """Return the trainable weights in float64."""
        return [as_array(v.value) for v in self.variables]

    def randomise(self, seed: int, scale: float = 0.5) -> None:
        """Give every trainable weight another value."""
        generator = np.random.default_rng(seed)
        for variable in self.variables:
            size = tuple(variable.shape)
            variable.assign((scale * generator.normal(size=size)).astype("float32"))

    def keep_inside(self, network: Network, seed: int, low: float, high: float) -> None:
        """Give the weights values for which hidden activations lie inside (0, 1).

        Each unit has a level of its own between `low` and `high`, and rises with the input.
        """
        generator = np.random.default_rng(seed)
        self.randomise(seed)
        hidden = list(zip(network.kernels, network.biases, network.activations, strict=True))[:-1]
        for (k, transposed), b, name in hidden:
            if transposed:
                continue
            fan_in, units = self.variables[k].shape
            level = generator.uniform(low, high, units)
            slope = generator.uniform(0.2, 1.0, (fan_in, units)) * level / fan_in
            inverse = {"sigmoid": np.log(level / (1.0 - level)), "tanh": np.arctanh(level)}
            steeper = {"sigmoid": 1.0 / level}.get(name, 1.0)
            if b is None:
                slope = 2.0 * slope  # the level comes from the slope alone
            else:
                self.variables[b].assign(inverse.get(name, level).astype("float32"))
            self.variables[k].assign((steeper * slope).astype("float32"))

    def penalties(self, x: Any) -> tuple[Any, list[float]]:
        """Return the output for a batch and the model's losses beside the compiled one."""
        output = self.model(tensor(x), training=True)
        return as_array(output), [as_number(loss) for loss in self.model.losses]

    def total(self, x: Any) -> float:
        """Return the loss that training minimises, on one batch."""
        batch = tensor(x)
        output = self.model(batch, training=True)
        return as_number(
            self.model.compute_loss(x=batch, y=batch, y_pred=output, sample_weight=None)
        )


def _features(model: Any) -> int:
    shape = getattr(model, "input_shape", None) if model.built else None
    if isinstance(shape, tuple) and len(shape) == 2 and shape[-1]:
        return int(shape[-1])
    if isinstance(shape, tuple) and len(shape) != 2:
        raise CouldNotReviewError(
            f"a model of vectors is reviewed; its input has shape {shape}. Review the regularizers "
            "and losses of its layers by themselves (file.py:Class)"
        )
    kernels = [v for v in model.trainable_variables if len(v.shape) == 2]
    if kernels:
        return int(kernels[0].shape[0])
    return 6


def review_model(target: Target, findings: Findings) -> None:
    """Review a model by its loss.

    Raises:
        CouldNotReviewError: If it is no autoencoder of vectors made of dense layers.
    """
    hyper = {role: value for role, value in target.values.items() if role in target.parameter}
    held = [getattr(part, "activity_regularizer", None) for part in layers_of_model(target.thing)]
    with quietly(), source.ported(target.thing, False, *filter(None, held)) as removed:
        if removed:
            add_removed(removed, findings)
        try:
            subject = Subject(target, {})
        except CouldNotReviewError:
            raise
        except Exception as error:
            proof = Evidence("making and calling it", "a model", described(error))
            findings.add(finding("SAE602" if source.bound_to(target.thing) else "SAE601", proof))
            return
        network = _network_of(subject)
        if network is None:
            raise CouldNotReviewError(
                "its output is not that of dense layers with sigmoid, tanh, relu or linear units"
            )
        findings.checks.append(
            f"network: {len(network.kernels)} dense layers, {', '.join(network.activations)}"
        )
        items = _classified(subject)
        # The backends that cannot train have no train_step.
        steps = (getattr(owner, "train_step", None) for owner in (type(subject.model), keras.Model))
        own_step = next(steps) is not next(steps)
        if own_step and keras.config.backend() == "jax":
            raise CouldNotReviewError(
                "its own train_step is stateless on JAX: review it on torch or TensorFlow "
                "(--backend), or move the terms to compute_loss"
            )
        if own_step:
            _review_as_a_cost(target, _total_of_step, findings)
            return
        subject.keep_inside(network, 13, 0.1, 0.6)
        if not _review_reconstruction(target, subject, findings):
            _review_as_a_cost(target, _total_of, findings)
            return
        _review_decay(target, subject, network, findings)
        _review_sparsity(target, subject, network, items, hyper, findings)
        _review_regularizers(target, subject, findings)


def layers_of_model(thing: Any) -> list[Any]:
    """The layers of a model that is made; none of a class or function."""
    return list(layers_of(thing, include_self=False)) if isinstance(thing, keras.Model) else []


def _batches(features: int) -> list[Any]:
    generator = np.random.default_rng(12)
    batches = []
    for m in (4, 7, 3, 5):
        # Every sample has a strength of its own, so that many features do not even it out.
        strength = generator.uniform(0.3, 1.0, (m, 1))
        batches.append(strength * generator.uniform(0.1, 0.9, (m, features)))
    return [x.astype("float32").astype("float64") for x in batches]


def _network_of(subject: Subject) -> Network | None:
    subject.randomise(1)
    x = _batches(subject.features)[0]
    output = as_array(subject.model(tensor(x)))
    if output.shape != x.shape:
        raise CouldNotReviewError(
            f"an autoencoder is reviewed; its output has shape {output.shape} for {x.shape}"
        )
    weights = subject.weights()
    for network in _networks(weights, subject.features):
        expected = network.forward(weights, x)[-1]
        scale = max(1.0, float(np.max(np.abs(expected))))
        if np.max(np.abs(expected - output)) <= 4096.0 * _U * scale:
            return network
    return None


def _classified(subject: Subject) -> list[int]:
    """The positions in `model.losses` of those that depend on the input."""
    first, second = _batches(subject.features)[0], 0.5 * _batches(subject.features)[0]
    before, after = subject.penalties(first)[1], subject.penalties(second)[1]
    if len(before) != len(after):
        return []
    # A penalty that is not finite is one of activations.
    return [
        i
        for i, (a, b) in enumerate(zip(before, after, strict=True))
        if a != b or not np.isfinite(a)
    ]


def _review_reconstruction(target: Target, subject: Subject, findings: Findings) -> bool:
    """Review the loss beside `model.losses`; return whether it is the reconstruction alone."""
    observed = []
    for x in _batches(subject.features):
        try:
            output, penalties = subject.penalties(x)
            rest = subject.total(x) - sum(penalties)
        except Exception as error:
            findings.notes.append(f"its training loss is not known: {described(error)}")
            return True
        observed.append(((x, output), rest))
    penalty = max(abs(subject.total(x) - rest) for ((x, _), rest) in observed)
    noise = 64.0 * _U * penalty if np.isfinite(penalty) else 0.0
    if all(abs(rest) <= max(1e-6, noise) for _, rest in observed):
        findings.notes.append("it was not compiled with a loss: the reconstruction is not reviewed")
        return True
    findings.checks.append("reconstruction")
    if not np.isfinite(penalty):
        findings.notes.append("the penalties are not finite: the reconstruction is not reviewed")
        return True
    # The reconstruction is what is left when the penalties are subtracted: it carries their
    # roundings too.
    explanations = check_loss.explain([(pair, rest) for pair, rest in observed])
    if not explanations:
        explanations = _explain_difference(observed, penalty)
    if not explanations and type(subject.model).compute_loss is not keras.Model.compute_loss:
        return False
    (x, h), got = observed[0]
    proof = evidence(f"{x.shape[0]} × {x.shape[1]} inputs", check_loss.right_value(x, h), got)
    if not explanations:
        findings.add(finding("SAE209", proof))
        return True
    for identifier in explanations[0]:
        if source.documents(target.words, identifier):
            findings.notes.append(f"{identifier} is documented as its scaling")
        else:
            findings.add(finding(identifier, proof))
    return True


_RECONSTRUCTIONS: dict[tuple[str, ...], Callable[[Any, Any], float]] = {
    (): check_loss.right_value,
    ("SAE201",): lambda y, h: 2.0 * check_loss.right_value(y, h),
    ("SAE202",): lambda y, h: check_loss.right_value(y, h) / y.shape[1],
    ("SAE203",): lambda y, h: check_loss.right_value(y, h) * len(y),
    ("SAE201", "SAE202"): lambda y, h: 2.0 * check_loss.right_value(y, h) / y.shape[1],
    ("SAE201", "SAE203"): lambda y, h: 2.0 * check_loss.right_value(y, h) * len(y),
}


def _explain_difference(
    observed: Sequence[tuple[tuple[Any, Any], float]], penalty: float
) -> list[tuple[str, ...]]:
    """Explain values that are known only up to the rounding of larger ones."""
    slack = 64.0 * _U * penalty
    return [
        mistakes
        for mistakes, form in _RECONSTRUCTIONS.items()
        if all(abs(got - form(y, h)) <= slack + 512 * _U * form(y, h) for (y, h), got in observed)
    ]


def _review_as_a_cost(target: Target, call: Callable[..., Any], findings: Findings) -> None:
    """Review a loss that the model computes itself, by its numbers alone."""
    from sae_oracle.reviewer.check_cost import review_cost
    from sae_oracle.reviewer.costs import CostOfKeras

    changeable = frozenset({*target.values} & {*target.parameter})
    values = dict(target.values)

    def make(hyper: Any) -> Any:
        return Subject(target, {k: v for k, v in hyper.items() if k in changeable}).model

    findings.checks.append("the sum of the three terms")
    review_cost(target, CostOfKeras(target.name, make, call, changeable, values), findings)


def _total_of(model: Any, batch: Any, _: Any) -> Any:
    """The loss that training minimises."""
    output = model(batch, training=True)
    return model.compute_loss(x=batch, y=batch, y_pred=output, sample_weight=None)


def _total_of_step(model: Any, batch: Any, _: Any) -> Any:
    """The loss that a `train_step` of its own says, of one step that learns nothing."""
    weights = [as_array(v.value) for v in model.trainable_variables]
    first: Exception | None = None
    for data in ((batch, batch), batch):
        try:
            for metric in model.metrics:
                metric.reset_state()
            logged = model.train_step(data)
        except Exception as error:
            first = first or error
            continue
        finally:
            for variable, value in zip(model.trainable_variables, weights, strict=True):
                variable.assign(value)
        if isinstance(logged, dict) and logged:
            totals = [k for k in logged if k in ("loss", "total_loss", "total")]
            return logged[(totals or [k for k in logged if "loss" in k] or [*logged])[0]]
    raise CouldNotReviewError(
        "its own train_step "
        + (f"raised {described(first)}" if first else "returns no loss")
        + ": move the terms to compute_loss or add_loss, or review the function that computes them"
    )


def _review_decay(target: Target, subject: Subject, network: Network, findings: Findings) -> None:
    """Find the factor of every weight's square in the losses that do not depend on the input."""
    decay = target.values.get("weight_decay")
    x = _batches(subject.features)[0]
    positions = _classified(subject)
    subject.randomise(5)

    def fixed() -> float:
        values = subject.penalties(x)[1]
        return sum(v for i, v in enumerate(values) if i not in positions)

    weights = subject.weights()
    coefficients: list[float] = []
    for variable, w in zip(subject.variables, weights, strict=True):
        here = fixed()
        variable.assign(np.zeros(w.shape, "float32"))
        without = fixed()
        variable.assign((2.0 * w).astype("float32"))
        twice = fixed()
        variable.assign(w.astype("float32"))
        gained, doubled = here - without, twice - without
        if gained != 0.0 and abs(doubled - 4.0 * gained) > 1e-3 * abs(gained):
            proof = evidence("weights twice as large", 4.0 * gained, doubled)
            findings.add(finding("SAE218", proof))
            return
        coefficients.append(gained / float(np.sum(w**2)))
    used = {k for k, _ in network.kernels}
    tied = len(network.kernels) > len(used)
    biases = [i for i, w in enumerate(weights) if w.ndim == 1]
    if any(c > 1e-9 for c in coefficients):
        findings.checks.append("weight decay")
    decayed = [i for i in biases if coefficients[i] > 1e-9]
    if decayed:
        proof = Evidence("the biases", "no decay", f"{coefficients[decayed[0]]:.4g} Σb²")
        findings.add(finding("SAE213", proof))
    of_kernels = {k: coefficients[k] for k in sorted(used)}
    largest = max(of_kernels.values(), default=0.0)
    bare = [k for k, c in of_kernels.items() if c <= 1e-9]
    if largest > 1e-9 and bare:
        proof = Evidence(
            f"kernel {list(of_kernels).index(bare[0])}", f"{largest:.4g} ΣW²", "no decay"
        )
        findings.add(finding("SAE214", proof))
    if decay is None:
        if largest > 1e-9:
            findings.notes.append(f"weight decay is {largest:.6g} ΣW²: λ = {2.0 * largest:.6g}")
        return
    if largest <= 1e-9:
        if decay > 0.0:
            proof = Evidence(f"λ = {decay:g}", f"{decay / 2.0:.4g} ΣW²", "no decay")
            findings.add(finding("SAE214", proof))
        return
    ratio = largest / (decay / 2.0)
    proof = evidence(f"the factor of ΣW², λ = {decay:g}", decay / 2.0, largest)
    if abs(ratio - 1.0) <= 1e-3:
        if tied and not source.documents(target.words, "SAE216"):
            findings.add(finding("SAE216", evidence("Σ over both uses", decay, largest)))
    elif abs(ratio - 2.0) <= 1e-3:
        if tied and source.documents(target.words, "SAE215"):
            findings.notes.append("a tied kernel counts twice in the weight decay, as documented")
        elif tied:
            findings.add(finding("SAE215", proof, "", ("SAE211 (λ in place of λ/2)",)))
        elif source.documents(target.words, "SAE211"):
            findings.notes.append("SAE211 is documented as its scaling")
        else:
            findings.add(finding("SAE211", proof))
    elif source.documents(target.words, "SAE212"):
        findings.notes.append("SAE212 is documented as its scaling")
    else:
        findings.add(finding("SAE212", proof))


def _review_sparsity(
    target: Target,
    subject: Subject,
    network: Network,
    items: list[int],
    hyper: dict[str, float],
    findings: Findings,
) -> None:
    """Hold the losses that depend on the input to βΣKL of the hidden layers."""
    if not items:
        if target.values.get("beta"):
            proof = Evidence(f"β = {target.values['beta']:g}", "βΣKL in the losses", "nothing")
            findings.add(finding("SAE113", proof))
        else:
            findings.notes.append("it has no sparsity term")
        return
    findings.checks.append("sparsity")
    inner = [name for name in network.activations[:-1] if name in ("relu", "tanh", "linear")]
    rho, beta = target.values.get("rho"), target.values.get("beta")
    nested = _nested_regularizers(subject.model)
    if (rho is None or beta is None) and len(set(nested)) > 1:
        _review_sum(target, subject, network, items, findings)
        return
    if rho is None and nested:
        rho, beta = nested[0]
        target.guesses.append(
            f"ρ = {rho:g}"
            + (f" and β = {beta:g}" if beta is not None else "")
            + " (from the regularizer of a layer)"
        )
    own = _kerass_own_penalties(subject.model)
    if rho is None and own:
        findings.notes.append(
            f"the penalty of its activations is Keras's own {', '.join(own)}, not a KL: it has no ρ"
        )
        return
    if rho is None:
        raise CouldNotReviewError(
            "its losses depend on the input and ρ is not known: say it (--rho NAME, or --rho 0.05)"
        )
    known_beta = beta if beta is not None else 1.0
    observations: list[Observation] = []
    by_layer: list[list[Any]] = []
    values: list[float] = []
    settings = (
        [(rho, known_beta)]
        if not hyper
        else [(r, b) for r, b in zip((rho, 0.2, 0.35), (known_beta, 0.7, 1.5), strict=True)]
    )
    divided = _has_activity_regularizer(subject.model) and keras_divides_activity_by_batch()
    for k, (r, b) in enumerate(settings):
        chosen = subject
        if k:
            changed = {"rho": r, "beta": b}
            try:
                chosen = Subject(target, {n: v for n, v in changed.items() if n in hyper})
            except Exception:
                continue
            r = r if "rho" in hyper else rho
            b = b if "beta" in hyper else known_beta
        for seed, x in enumerate(_batches(chosen.features) * 2):
            low, high = ((0.02, 0.08), (0.1, 0.5))[seed % 2]
            chosen.keep_inside(network, 20 + seed, low, high)
            *hidden, output = network.forward(chosen.weights(), x)
            got = chosen.penalties(x)[1]
            total = sum(got[i] for i in items if i < len(got))
            a = np.concatenate(hidden, axis=1)
            observations.append(Observation(a, r, b, total))
            by_layer.append([*hidden, output])
            values.append(total)
    broken = _outside(subject, network, items, rho, known_beta) if inner else []
    context = Context(divided=divided, beta_is_known=beta is not None and beta != 1.0)
    symmetric = source.mentions(target.words, r"symmetric") and "tanh" in inner
    if target.arguments.get("symmetric") is True or (symmetric and not inner):
        context = Context(divided=divided, input="symmetric", beta_is_known=context.beta_is_known)
    usable = [o for o in observations if np.isfinite(o.value)]
    if inner and context.input == "activations" and broken:
        means = np.concatenate([np.mean(o.x, axis=0) for o in broken])
        worst = means[np.argmax(np.abs(means - 0.5))]
        proof = Evidence(
            f"hidden units with {inner[0]}, mean activation {worst:.3g}",
            "a finite penalty",
            f"{broken[0].value}",
        )
        findings.add(finding("SAE403", proof, f"(The hidden activation is {inner[0]}.)"))
    if not usable:
        return
    best = candidates.explain(usable, context)
    depth = len(network.kernels) - 1
    of_output = False
    for k in range(0 if depth > 1 else depth, depth + 1):  # one layer of several, or the output
        if best and not best[0].mistakes:
            break
        of_layer = [
            replace(o, x=hidden[k])
            for o, hidden in zip(observations, by_layer, strict=True)
            if np.isfinite(o.value)
        ]
        found = candidates.explain(of_layer, context)
        if found and (not best or found[0].cost + (k == depth) < best[0].cost):
            best, usable, of_output = found, of_layer, k == depth
    if not best:
        decided = [
            o
            for o in usable
            if np.all(np.mean(o.x, axis=0) > 0.01) and np.all(np.mean(o.x, axis=0) < 0.99)
        ]
        if len(decided) >= 4:
            o = decided[0]
            proof = evidence(
                _given(o),
                candidates.right_value(o.x, o.rho, o.beta, context.input),
                o.value,
            )
            findings.add(finding("SAE199", proof))
        else:
            findings.notes.append("hidden activations leave [0, 1]: the KL is not defined there")
        return
    explanation = best[0]
    o = usable[0]
    proof = evidence(
        _given(o),
        candidates.right_value(o.x, o.rho, o.beta, context.input),
        o.value,
    )
    alternatives = tuple(" and ".join(e.mistakes) + f" ({e.words})" for e in best[1:])
    if of_output:
        findings.add(finding("SAE130", proof, "(Of the output.)"))
    for identifier in dict.fromkeys(explanation.mistakes):
        if source.documents(target.words, identifier):
            findings.notes.append(f"{identifier} is documented as its scaling")
        else:
            findings.add(finding(identifier, proof, "", alternatives))


def _review_sum(
    target: Target, subject: Subject, network: Network, items: list[int], findings: Findings
) -> None:
    """Review penalties with different ρ or β each by itself, then their sum."""
    parts: list[tuple[Target, candidates.Explanation]] = []
    for layer in layers_of(subject.model, include_self=False):
        thing = getattr(layer, "activity_regularizer", None)
        if source.is_kerass_own(thing if thing is not None else layer):
            continue
        collected = Findings()
        try:
            inner = resolve(layer if thing is None else thing)
            add_constants(inner)
            activation = getattr(getattr(layer, "activation", None), "__name__", None)
            explanation = review_penalty(inner, collected, activation=activation)
        except CouldNotReviewError:
            continue
        for found in collected.found:
            findings.add(found)
        if explanation is not None:
            parts.append((inner, explanation))
    target.guesses.append(
        "ρ and β are those of its layers: "
        + ", ".join(f"{p.values['rho']:g} and {p.values.get('beta', 1.0):g}" for p, _ in parts)
    )
    findings.checks.append("the sum of the penalties of its layers")
    best: tuple[float, Evidence] | None = None
    for places in itertools.combinations(range(len(network.kernels)), len(parts)):
        misfits = []
        for seed, x in enumerate(_batches(subject.features)):
            subject.keep_inside(network, 20 + seed, 0.1, 0.5)
            outputs = network.forward(subject.weights(), x)
            got = sum(subject.penalties(x)[1][i] for i in items)
            terms = [
                _term(outputs[place], inner, explanation)
                for place, (inner, explanation) in zip(places, parts, strict=True)
            ]
            expected, bound = (sum(numbers) for numbers in zip(*terms, strict=True))
            proof = evidence(f"{len(x)} samples, the sum over layers", expected, got)
            misfits.append((abs(got - expected) / bound, proof))
        worst = max(misfits, key=lambda pair: pair[0])
        if best is None or worst[0] < best[0]:
            best = worst
            of_output = places[-1] == len(network.kernels) - 1
    if best is None or not best[0] <= 1.0:
        proof = best[1] if best else Evidence("its layers", "a penalty of each", f"{len(parts)}")
        findings.add(finding("SAE199", proof, "(Their sum is not what they say.)"))
    elif of_output:
        findings.add(finding("SAE130", best[1], "(One is of the output.)"))


def _term(a: Any, inner: Target, explanation: candidates.Explanation) -> tuple[float, float]:
    """What a penalty adds to the loss, as it was explained, and how far it may be off."""
    rho, beta = inner.values["rho"], inner.values.get("beta", 1.0)
    expected = float(np.real(explanation.value(a, rho, beta)))
    _, bound = candidates.bounded_sum(
        explanation.input, explanation.mean, explanation.divergence, a, rho
    )
    factor = abs(explanation.factor(len(a), a.shape[1], beta))
    return expected, factor * bound + 64.0 * _U * abs(expected)


def _given(o: Observation) -> str:
    samples, units = o.x.shape
    return f"{samples} samples, {units} hidden units, ρ = {o.rho:g}, β = {o.beta:g}"


def _outside(
    subject: Subject, network: Network, items: list[int], rho: float, beta: float
) -> list[Observation]:
    """What is not finite with weights as they come: units without bounds leave [0, 1]."""
    broken = []
    for seed, x in enumerate(_batches(subject.features)):
        subject.randomise(40 + seed)
        got = subject.penalties(x)[1]
        total = sum(got[i] for i in items if i < len(got))
        if not np.isfinite(total):
            a = np.concatenate(network.forward(subject.weights(), x)[:-1], axis=1)
            broken.append(Observation(a, rho, beta, total))
    return broken


def _review_regularizers(target: Target, subject: Subject, findings: Findings) -> None:
    """Review the activity regularizers inside by themselves; their formula is known by now."""
    for layer in layers_of(subject.model, include_self=False):
        thing = getattr(layer, "activity_regularizer", None)
        if thing is None or source.is_kerass_own(thing):
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", None)
        collected = Findings()
        try:
            inner = resolve(thing)
            add_constants(inner)
            review_penalty(inner, collected, activation=activation)
            review_saving(inner, collected)
        except CouldNotReviewError:
            continue
        findings.checks.append(f"the regularizer {inner.name} by itself")
        for found in collected.found:
            if not found.identifier.startswith("SAE1"):
                findings.add(found)


def _kerass_own_penalties(model: Any) -> list[str]:
    """The names of Keras's own activity regularizers inside a model."""
    held = [getattr(layer, "activity_regularizer", None) for layer in layers_of(model)]
    found = [r for r in held if r is not None]
    return (
        sorted({type(r).__name__ for r in found}) if all(map(source.is_kerass_own, found)) else []
    )


def _has_activity_regularizer(model: Any) -> bool:
    return any(
        getattr(layer, "activity_regularizer", None) is not None for layer in layers_of(model)
    )


def _nested_regularizers(model: Any) -> list[tuple[float, float | None]]:
    """ρ and β of the regularizers and penalty layers inside the model."""
    found = []
    for layer in layers_of(model, include_self=False):
        for thing in (getattr(layer, "activity_regularizer", None), layer):
            if thing is None or source.is_kerass_own(thing):
                continue
            try:
                inner = resolve(thing)
                add_constants(inner)
            except Exception:
                continue
            if "rho" in inner.values:
                found.append((inner.values["rho"], inner.values.get("beta")))
    return found
