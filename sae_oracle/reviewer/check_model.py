"""Review of a model: which term of Ng's cost its loss has, with which factors.

The network is found from its weights: the activations and the ties for which a NumPy forward pass
gives the model's own output. Then its loss on a batch is taken apart, reconstruction from the
compiled loss, weight decay and sparsity from `model.losses`, and each is held to the notes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_impl.backends.keras_internals import keras_divides_activity_by_batch, layers_of
from sae_oracle.reviewer import candidates, check_loss, source
from sae_oracle.reviewer.candidates import Context, Observation
from sae_oracle.reviewer.check_cost import (
    OfTerm,
    explain_layers,
    given_words,
    review_cost,
    review_logits,
)
from sae_oracle.reviewer.check_penalty import Findings, add_removed, evidence, review_penalty
from sae_oracle.reviewer.check_saving import review_saving
from sae_oracle.reviewer.evaluation import as_array, as_number, quietly, tensor
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.network import (
    Network,
    Weights,
    batches,
    chains,
    networks,
    weights_inside,
)
from sae_oracle.reviewer.target import (
    CouldNotReviewError,
    Target,
    add_constants,
    described,
    resolve,
)

_U = 2.0**-24


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
    def variables(self) -> dict[str, Any]:
        """The trainable weights, by their numbers."""
        return {str(k): v for k, v in enumerate(self.model.trainable_variables)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the trainable weights."""
        return {name: tuple(v.shape) for name, v in self.variables.items()}

    def weights(self) -> Weights:
        """Return the trainable weights in float64."""
        return {name: as_array(v.value) for name, v in self.variables.items()}

    def randomise(self, seed: int) -> None:
        """Give every trainable weight another value."""
        generator = np.random.default_rng(seed)
        for variable in self.variables.values():
            variable.assign((0.5 * generator.normal(size=tuple(variable.shape))).astype("float32"))

    def keep_inside(self, network: Network, seed: int, low: float, high: float) -> None:
        """Give the weights values for which hidden activations lie inside (0, 1)."""
        inside = weights_inside(self.shapes, network.layers, seed, network.activations, low, high)
        for name, variable in self.variables.items():
            variable.assign(inside[name].astype("float32"))

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
        findings.checks.append(network.words)
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


def _network_of(subject: Subject) -> Network | None:
    subject.randomise(1)
    x = batches(subject.features)[0]
    output = as_array(subject.model(tensor(x)))
    if output.shape != x.shape:
        raise CouldNotReviewError(
            f"an autoencoder is reviewed; its output has shape {output.shape} for {x.shape}"
        )
    weights = subject.weights()
    for layers in chains(subject.shapes, set()):
        for network in networks(layers):
            expected = network.forward(weights, x)[-1]
            scale = max(1.0, float(np.max(np.abs(expected))))
            if np.max(np.abs(expected - output)) <= 4096.0 * _U * scale:
                return network
    return None


def _classified(subject: Subject) -> list[int]:
    """The positions in `model.losses` of those that depend on the input."""
    first, second = batches(subject.features)[0], 0.5 * batches(subject.features)[0]
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
    for x in batches(subject.features):
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
    explanations = check_loss.explain(observed) or check_loss.explain(observed, noise)
    if not explanations and type(subject.model).compute_loss is not keras.Model.compute_loss:
        return False
    (x, h), got = observed[0]
    proof = evidence(f"{x.shape[0]} × {x.shape[1]} inputs", check_loss.right_value(x, h), got)
    if not explanations:
        findings.add(finding("SAE209", proof))
        return True
    findings.name(target, explanations[0], proof)
    return True


def _review_as_a_cost(target: Target, call: Callable[..., Any], findings: Findings) -> None:
    """Review a loss that the model computes itself, by its numbers alone."""
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
    x = batches(subject.features)[0]
    positions = _classified(subject)
    subject.randomise(5)

    def fixed() -> float:
        values = subject.penalties(x)[1]
        return sum(v for i, v in enumerate(values) if i not in positions)

    weights = subject.weights()
    factors: dict[str, float] = {}
    for name, w in weights.items():
        variable = subject.variables[name]
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
        factors[name] = gained / float(np.sum(w**2))
    of_kernels = {layer.kernel: factors[layer.kernel] for layer in network.layers}
    tied = len(network.layers) > len(of_kernels)
    if any(factor > 1e-9 for factor in factors.values()):
        findings.checks.append("weight decay")
    decayed = [f for name, f in factors.items() if weights[name].ndim == 1 and f > 1e-9]
    if decayed:
        proof = Evidence("the biases", "no decay", f"{decayed[0]:.4g} Σb²")
        findings.add(finding("SAE213", proof))
    largest = max(of_kernels.values(), default=0.0)
    bare = [position for position, f in enumerate(of_kernels.values()) if f <= 1e-9]
    if largest > 1e-9 and bare:
        proof = Evidence(f"kernel {bare[0]}", f"{largest:.4g} ΣW²", "no decay")
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
        else:
            findings.name(target, ["SAE211"], proof)
    else:
        findings.name(target, ["SAE212"], proof)


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
    settings = (
        [(rho, known_beta)]
        if not hyper
        else [(r, b) for r, b in zip((rho, 0.2, 0.35), (known_beta, 0.7, 1.5), strict=True)]
    )
    divided = bool(_regularizers(subject.model)) and keras_divides_activity_by_batch()

    def observed(inside: Sequence[str]) -> list[OfTerm]:
        seen = []
        placed = replace(network, activations=tuple(inside))
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
            for seed, x in enumerate(batches(chosen.features) * 2):
                low, high = ((0.02, 0.08), (0.1, 0.5))[seed % 2]
                chosen.keep_inside(placed, 20 + seed, low, high)
                outputs = network.forward(chosen.weights(), x)
                got = chosen.penalties(x)[1]
                seen.append((outputs, r, b, sum(got[i] for i in items if i < len(got)), 0.0))
        return seen

    seen = observed(network.activations)
    broken = _outside(subject, network, items, rho, known_beta) if inner else []
    context = Context(divided=divided, beta_is_known=beta is not None and beta != 1.0)
    symmetric = source.mentions(target.words, r"symmetric") and "tanh" in inner
    if target.arguments.get("symmetric") is True or (symmetric and not inner):
        context = Context(divided=divided, input="symmetric", beta_is_known=context.beta_is_known)
    seen = [observed for observed in seen if np.isfinite(observed[3])]
    if inner and context.input == "activations" and broken:
        means = np.concatenate([np.mean(o.x, axis=0) for o in broken])
        worst = means[np.argmax(np.abs(means - 0.5))]
        proof = Evidence(
            f"hidden units with {inner[0]}, mean activation {worst:.3g}",
            "a finite penalty",
            f"{broken[0].value}",
        )
        findings.add(finding("SAE403", proof, f"(The hidden activation is {inner[0]}.)"))
    best = explain_layers(seen, context) if seen else None
    if best is not None:
        best.report(target, findings)
        return
    if review_logits(target, network, observed, context, findings):
        return
    if not seen and not inner:
        proof = Evidence("sigmoid units that are neither dead nor saturated", "a number", "NaN")
        findings.add(finding("SAE199", proof))
        return
    for outputs, r, b, value, _ in seen:
        a = np.concatenate(outputs[:-1], axis=1)
        if np.all(np.abs(np.mean(a, axis=0) - 0.5) < 0.49):
            right = candidates.right_value(a, r, b, context.input)
            proof = evidence(given_words(Observation(a, r, b, value)), right, value)
            findings.add(finding("SAE199", proof))
            return
    findings.notes.append("hidden activations leave [0, 1]: the KL is not defined there")


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
            inner = _resolved(layer if thing is None else thing)
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
    for places in itertools.combinations(range(len(network.layers)), len(parts)):
        misfits = []
        for seed, x in enumerate(batches(subject.features)):
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
            of_output = places[-1] == len(network.layers) - 1
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


def _outside(
    subject: Subject, network: Network, items: list[int], rho: float, beta: float
) -> list[Observation]:
    """What is not finite with weights as they come: units without bounds leave [0, 1]."""
    broken = []
    for seed, x in enumerate(batches(subject.features)):
        subject.randomise(40 + seed)
        got = subject.penalties(x)[1]
        total = sum(got[i] for i in items if i < len(got))
        if not np.isfinite(total):
            a = np.concatenate(network.forward(subject.weights(), x)[:-1], axis=1)
            broken.append(Observation(a, rho, beta, total))
    return broken


def _review_regularizers(target: Target, subject: Subject, findings: Findings) -> None:
    """Review the activity regularizers inside by themselves; their formula is known by now."""
    for layer, thing in _regularizers(subject.model):
        if source.is_kerass_own(thing):
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", None)
        collected = Findings()
        try:
            inner = _resolved(thing)
            review_penalty(inner, collected, activation=activation)
            review_saving(inner, collected)
        except CouldNotReviewError:
            continue
        findings.checks.append(f"the regularizer {inner.name} by itself")
        for found in collected.found:
            if not found.identifier.startswith("SAE1"):
                findings.add(found)


def _regularizers(model: Any) -> list[tuple[Any, Any]]:
    """The layers of a model that have an activity regularizer, and that."""
    held = [(layer, getattr(layer, "activity_regularizer", None)) for layer in layers_of(model)]
    return [(layer, thing) for layer, thing in held if thing is not None]


def _resolved(thing: Any) -> Target:
    inner = resolve(thing)
    add_constants(inner)
    return inner


def _kerass_own_penalties(model: Any) -> list[str]:
    """The names of Keras's own activity regularizers inside a model; none if there are others."""
    found = [thing for _, thing in _regularizers(model)]
    are_all = all(map(source.is_kerass_own, found))
    return sorted({type(thing).__name__ for thing in found}) if are_all else []


def _nested_regularizers(model: Any) -> list[tuple[float, float | None]]:
    """ρ and β of the regularizers and penalty layers inside the model."""
    found = []
    for layer in layers_of(model, include_self=False):
        for thing in (getattr(layer, "activity_regularizer", None), layer):
            if thing is not None and not source.is_kerass_own(thing):
                with suppress(Exception):
                    values = _resolved(thing).values
                    if "rho" in values:
                        found.append((values["rho"], values.get("beta")))
    return found
