"""Review of a cost of parameters: theta and data in, J (and its gradient) out.

Nothing is asked but numbers. A change of the last bias alone changes the reconstruction alone: that
tells the layout of the parameters and the data, the activations and the form of the first term.
What is left without weight decay is the sparsity term; what λ adds is the weight decay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from sae_oracle.reviewer import candidates, check_loss
from sae_oracle.reviewer.candidates import Context, Observation, explain
from sae_oracle.reviewer.check_loss import right_value
from sae_oracle.reviewer.check_penalty import Findings, evidence
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.frameworks import Framework
from sae_oracle.reviewer.network import (
    Layer,
    Network,
    Weights,
    batches,
    networks,
    weights_inside,
)
from sae_oracle.reviewer.reading import plain, weight_named
from sae_oracle.reviewer.target import CouldNotReviewError, Target


class Cost(Protocol):
    """What is asked of a cost, whatever it is made of."""

    name: str
    precision: float
    changeable: frozenset[str]
    values: dict[str, float]

    def layouts(self) -> Sequence[Any]:
        """The ways in which it may take its parameters and data."""

    def layers(self, layout: Any) -> Sequence[Layer]:
        """The layers of the network."""

    def shapes(self, layout: Any) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the weights by name."""

    def total(
        self, layout: Any, weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> tuple[float, Weights | None]:
        """The cost, and its gradient if it returns one."""

    def slopes(
        self, layout: Any, weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> Weights | None:
        """The derivative that training would use, where there is one; else `None`."""

    def output(self, layout: Any, weights: Weights, x: Any) -> Any:
        """The network's output, where it gives one; else `None`."""


@dataclass
class Fit:
    """A way to read a cost that explains how it depends on the last bias.

    Args:
        layout: How it takes its parameters.
        network: Its layers and their activations.
        mistakes: Those of the reconstruction term.
        form: The reconstruction term; `None`: there is none.
        of_biases: The factor of the squares of the biases, where λ cannot be changed.
    """

    layout: Any
    network: Network
    mistakes: tuple[str, ...] = ()
    form: check_loss.Form | None = None
    of_biases: float = 0.0

    def reconstruction(self, x: Any, output: Any) -> float:
        """Return the first term."""
        return 0.0 if self.form is None else self.form(x, output)


def _features(cost: Cost, layout: Any) -> int:
    first = cost.layers(layout)[0]
    shape = cost.shapes(layout)[first.kernel]
    return int(shape[1] if first.transposed else shape[0])


def _without(cost: Cost, *roles: str) -> dict[str, float]:
    """Hyperparameters of which some are 0, as far as they can be changed."""
    return {**cost.values, **{role: 0.0 for role in roles if role in cost.changeable}}


def fit_of(cost: Cost) -> Fit:
    """Find the layout, the activations and the reconstruction term.

    Raises:
        CouldNotReviewError: If nothing fits.
    """
    errors: list[Exception] = []
    best: list[Fit] = []
    hyper = _without(cost, "beta", "weight_decay")
    # Where a mean is a sum, the first activations leave (0, 1): then lower ones.
    for level, layout in itertools.product((None, 0.01), cost.layouts()):
        if level is not None and best:
            break
        layers, shapes = cost.layers(layout), cost.shapes(layout)
        low = () if level is None else (("sigmoid",) * len(layers), level, 2.0 * level)
        last = layers[-1].bias or layers[-1].kernel
        seen = []
        try:
            for k, x in enumerate(batches(_features(cost, layout))):
                weights = weights_inside(shapes, layers, 30 + k, *low)
                shift = np.linspace(0.1, 0.4, weights[last].size).reshape(weights[last].shape)
                raised = (weights[last] + shift).astype("float32").astype("float64")
                moved = {**weights, last: raised}
                pair = [cost.total(layout, w, x, hyper)[0] for w in (weights, moved)]
                seen.append((x, weights, moved, pair[1] - pair[0], max(map(abs, pair))))
        except Exception as error:
            errors.append(error)
            continue
        given = cost.output(layout, seen[0][1], seen[0][0])
        for network in networks(layers):
            if given is not None:
                computed = network.forward(seen[0][1], seen[0][0])[-1]
                if computed.shape != given.shape or np.max(np.abs(computed - given)) > 1e-4:
                    continue
            found = _form_of(cost, Fit(layout, network), seen, given is not None)
            if found is not None:
                best.append(found)
    if best:
        return min(best, key=lambda fit: len(fit.mistakes))
    if errors and len(errors) == 2 * len(cost.layouts()):
        raise errors[0]
    raise CouldNotReviewError(
        "its cost does not depend on the output's bias as that of sigmoid, tanh, relu or linear "
        "layers with a squared error or cross-entropy: review its sparsity penalty by itself, as a "
        "function of activations"
    )


def _form_of(cost: Cost, fit: Fit, seen: Sequence[Any], has_output: bool) -> Fit | None:
    forward = fit.network.forward
    pairs = [
        (x, forward(w, x)[-1], forward(moved, x)[-1], difference, size)
        for x, w, moved, difference, size in seen
    ]

    def fits(form: check_loss.Form, relative: float = 0.0) -> bool:
        for x, before, after, difference, size in pairs:
            with np.errstate(all="ignore"):
                expected = form(x, after) - form(x, before)
            slack = cost.precision * (size + abs(form(x, before))) + relative * abs(expected)
            if not (np.isfinite(slack) and abs(difference - expected) <= slack):
                return False
        return True

    if has_output and all(
        abs(difference) <= cost.precision * size for *_, difference, size in pairs
    ):
        return fit
    for mistakes, form, relative in check_loss.FORMS:
        if fits(form, relative):
            return replace(fit, mistakes=mistakes, form=form)
    last = fit.network.layers[-1].bias
    if last is not None and "weight_decay" not in cost.changeable:
        grown = [float(np.sum(m[last] ** 2) - np.sum(w[last] ** 2)) for _, w, m, *_ in seen]
        slack = 4.0 * cost.precision * max(size for *_, size in pairs)
        for mistakes, form, _ in check_loss.FORMS:
            left = [d - form(x, b) + form(x, a) for x, a, b, d, _ in pairs]
            factor = left[0] / grown[0]
            if factor > 0.0 and all(
                abs(rest - factor * g) <= slack for rest, g in zip(left, grown, strict=True)
            ):
                return replace(fit, mistakes=(*mistakes, "SAE213"), form=form, of_biases=factor)
    x, before, after, difference, _ = pairs[0]
    change = right_value(x, after) - right_value(x, before)
    constant = difference / change if change else 0.0
    if abs(constant) > 1e-9 and fits(lambda y, h: constant * right_value(y, h)):
        return replace(fit, mistakes=("SAE206",), form=lambda y, h: constant * right_value(y, h))
    return None


def review_cost(target: Target, cost: Cost, findings: Findings) -> None:
    """Review a cost by its terms, and its gradient by its differences.

    Raises:
        CouldNotReviewError: If its reconstruction term is not that of a network with dense layers.
    """
    with np.errstate(all="ignore"):
        fit = fit_of(cost)
        findings.checks.append(f"{fit.network.words}; {fit.layout}")
        _report_reconstruction(target, cost, fit, findings)
        _review_decay(target, cost, fit, findings)
        _review_sparsity(target, cost, fit, findings)
        _review_gradient(cost, fit, findings)


def _report_reconstruction(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    if fit.form is None:
        findings.notes.append("there is no reconstruction term in what is reviewed")
        return
    findings.checks.append("reconstruction")
    x = batches(_features(cost, fit.layout))[0]
    weights = weights_inside(cost.shapes(fit.layout), fit.network.layers, 30)
    output = fit.network.forward(weights, x)[-1]
    proof = evidence(
        f"{x.shape[0]} × {x.shape[1]} inputs", right_value(x, output), fit.form(x, output)
    )
    findings.name(target, fit.mistakes, proof)


def _review_decay(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    """Find the factor of every weight's square in what λ adds."""
    if "weight_decay" not in cost.changeable:
        return
    layers, shapes = fit.network.layers, cost.shapes(fit.layout)
    x = batches(_features(cost, fit.layout))[0]
    decay = 64.0 if cost.precision > 1e-10 else 0.25  # beside the rounding of the other terms
    names = list(shapes)
    rows, added, noise = [], [], 0.0
    for seed in range(2 * len(names) + 2):
        weights = weights_inside(shapes, layers, 50 + seed)
        generator = np.random.default_rng(seed)
        for name in names:
            factor = float(np.float32(generator.uniform(0.5, 2.0)))
            if any(layer.bias == name for layer in layers[:-1]):
                factor = 1.0 + 0.2 * factor  # hidden units stay inside (0, 1)
            elif any(layer.kernel == name for layer in layers[:-1]):
                factor = 0.5 * factor
            weights[name] = (weights[name] * factor).astype("float32").astype("float64")
        off = _without(cost, "beta", "weight_decay")
        with_decay = {**off, "weight_decay": decay}
        total = cost.total(fit.layout, weights, x, with_decay)[0]
        noise = max(noise, 2.0 * cost.precision * abs(total))
        added.append(total - cost.total(fit.layout, weights, x, off)[0])
        rows.append([float(np.sum(weights[name] ** 2)) for name in names])
    if not np.all(np.isfinite(added)):
        return  # what breaks there is named where the sparsity term is reviewed
    factors, *_ = np.linalg.lstsq(np.array(rows), np.array(added), rcond=None)
    misfit = float(np.max(np.abs(np.array(rows) @ factors - np.array(added))))
    largest = max(abs(value) for value in added)
    findings.checks.append("weight decay")
    kernels = {layer.kernel for layer in layers}
    by_kernel = {n: float(f) for n, f in zip(names, factors, strict=True) if n in kernels}
    right = decay / 2.0
    if largest <= 4.0 * noise:
        proof = Evidence(f"λ = {decay:g}", f"{right:g} ΣW²", "no decay")
        findings.add(finding("SAE214", proof))
        return
    tolerance = max(1e-6, 1e3 * cost.precision)
    if misfit > tolerance * largest:
        proof = evidence(
            "λ/2 ΣW²",
            right * sum(r for n, r in zip(names, rows[0], strict=True) if n in kernels),
            added[0],
        )
        findings.add(finding("SAE218", proof))
        return
    for name, factor in zip(names, factors, strict=True):
        if name not in kernels and abs(factor) > tolerance * right:
            proof = Evidence(f"the bias {name}", "no decay", f"{factor:.4g} Σb²")
            findings.add(finding("SAE213", proof))
    bare = [n for n, f in by_kernel.items() if abs(f) <= tolerance * right]
    if bare:
        proof = Evidence(f"the kernel {bare[0]}", f"{right:g} ΣW²", "no decay")
        findings.add(finding("SAE214", proof))
    uses = max(sum(layer.kernel == n for layer in layers) for n in kernels)
    # A small kernel beside a large one is known no better than the rounding of the cost allows.
    doubt = noise * np.sum(np.abs(np.linalg.pinv(np.array(rows))), axis=1) / right
    for name, slack in zip(names, np.maximum(doubt, 1e-4), strict=True):
        ratio = by_kernel.get(name, right) / right
        if name in bare or abs(ratio - 1.0) <= slack or abs(ratio - uses) <= slack:
            continue
        proof = evidence(f"the factor of ΣW², λ = {decay:g}", right, ratio * right)
        findings.name(target, ["SAE211" if abs(ratio - 2.0) <= slack else "SAE212"], proof)
        return


def _review_sparsity(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    layers, shapes = fit.network.layers, cost.shapes(fit.layout)
    values = dict(cost.values)
    rho, beta = values.get("rho"), values.get("beta")
    given_beta = 1.0 if beta is None else beta
    rhos = (rho or 0.1, 0.2, 0.35) if "rho" in cost.changeable else (rho or 0.1,)
    betas = (given_beta or 3.0, 0.7, 5.0) if "beta" in cost.changeable else (given_beta,)
    fixed_decay = 0.0
    if "weight_decay" not in cost.changeable:
        fixed_decay = _fixed_decay(cost, fit)

    def observed(inside: Sequence[str]) -> list[OfTerm]:
        seen = []
        for seed, x in enumerate(batches(_features(cost, fit.layout)) * 3):
            low, high = ((0.02, 0.08), (0.1, 0.5))[seed % 2]
            weights = weights_inside(shapes, layers, 70 + seed, inside, low, high)
            r, b = rhos[seed % len(rhos)], betas[seed % len(betas)]
            hyper = {**_without(cost, "weight_decay"), "rho": r, "beta": b}
            hyper = {k: v for k, v in hyper.items() if k in cost.changeable or k in values}
            total = cost.total(fit.layout, weights, x, hyper)[0]
            outputs = fit.network.forward(weights, x)
            kernels = {layer.kernel for layer in layers}
            squares = sum(float(np.sum(weights[n] ** 2)) for n in kernels)
            biases = {layer.bias for layer in layers if layer.bias is not None}
            of_biases = fit.of_biases * sum(float(np.sum(weights[n] ** 2)) for n in biases)
            rest = total - fit.reconstruction(x, outputs[-1]) - fixed_decay * squares - of_biases
            seen.append((outputs, r, b, rest, 8.0 * cost.precision * abs(total)))
        return seen

    seen = observed(fit.network.activations)
    findings.checks.append("sparsity")
    if all(abs(rest) <= slack + 1e-12 for *_, rest, slack in seen):
        if "rho" in cost.changeable or beta:
            proof = Evidence(f"β = {given_beta:g}", "βΣKL in the cost", "nothing")
            findings.add(finding("SAE113", proof))
        else:
            findings.notes.append("it has no sparsity term")
        return
    if rho is None:
        raise CouldNotReviewError(
            "which number is ρ? Name the argument, attribute or constant (--rho NAME), or give "
            "its value (--rho 0.05)"
        )
    known = beta is not None and ("beta" in cost.changeable or beta != 1.0)
    context = Context(False, beta_is_known=known)
    best = explain_layers(seen, context, fit.network.activations)
    if best is None and review_logits(target, fit.network, observed, context, findings):
        return
    if best is None:
        outputs, r, b, rest, _ = seen[0]
        o = Observation(np.concatenate(outputs[:-1], axis=1), r, b, rest)
        right = candidates.right_value(o.x, o.rho, o.beta)
        findings.add(finding("SAE199", evidence(given_words(o), right, o.value)))
        return
    best.report(target, findings, beta is not None)
    _check_edges(cost, fit, values, findings)


OfTerm = tuple[list[Any], float, float, float, float]
"""The activations of every layer, ρ, β, the sparsity term, and how far it may be off."""


@dataclass
class OfLayers:
    """What explains a sparsity term, and of which layers it is one.

    Args:
        found: The explanations, the best first.
        observed: Their observations.
        context: What was expected.
        is_of_output: Whether it is of the output's activations.
    """

    found: list[candidates.Explanation]
    observed: list[Observation]
    context: Context
    is_of_output: bool

    @property
    def cost(self) -> float:
        """How far-fetched it is."""
        return self.found[0].cost + self.is_of_output

    def report(self, target: Target, findings: Findings, beta_is_known: bool = True) -> None:
        """Name its mistakes."""
        o = self.observed[min(1, len(self.observed) - 1)]
        right = candidates.right_value(o.x, o.rho, o.beta, self.context.input)
        proof = evidence(given_words(o), right, o.value)
        alternatives = tuple(" and ".join(e.mistakes) + f" ({e.words})" for e in self.found[1:])
        if self.is_of_output:
            findings.add(finding("SAE130", proof, "(Of the output.)"))
        mistakes = [m for m in self.found[0].mistakes if m != "SAE115" or beta_is_known]
        findings.name(target, mistakes, proof, "", alternatives)


def explain_layers(
    seen: Sequence[OfTerm],
    context: Context,
    activations: Sequence[str] = (),
) -> OfLayers | None:
    """Explain a sparsity term by all hidden layers, by the first ones, by one, or by the output.

    Args:
        seen: What was observed.
        context: What is expected.
        activations: The layers'; those of tanh alone are expected to be mapped to [0, 1].
    """
    depth = len(seen[0][0]) - 1
    of_output = slice(depth, None)
    first = [slice(0, k) for k in (depth, *range(1, depth))]  # such as those of the encoder
    chosen = [*first, *(slice(k, k + 1) for k in range(1, depth)), of_output]
    best: OfLayers | None = None
    for which in chosen:
        observed = [
            Observation(
                np.concatenate(outputs[which], axis=1),
                r,
                b,
                rest,
                slack,
                tuple(a.shape[1] for a in outputs[which]),
            )
            for outputs, r, b, rest, slack in seen
        ]
        is_tanh = set(activations[which]) == {"tanh"}
        expected = replace(context, input="symmetric") if is_tanh else context
        found = explain(observed, expected)
        if found:
            tried = OfLayers(found, observed, expected, which == of_output)
            best = tried if best is None or tried.cost < best.cost else best
        if best is not None and best.cost == 0.0:
            break
    return best


def review_logits(
    target: Target,
    network: Network,
    observe: Callable[[Sequence[str]], list[OfTerm]],
    context: Context,
    findings: Findings,
) -> bool:
    """Name a penalty of what goes into the sigmoids; return whether it is one.

    Args:
        target: What is reviewed.
        network: Its layers.
        observe: Returns observations with weights that keep units of other activations inside.
        context: What is expected of the term.
        findings: Where the mistakes go.
    """
    if set(network.activations[:-1]) != {"sigmoid"}:
        return False
    last = network.activations[-1]
    seen = [
        ([*(np.log(a / (1.0 - a)) for a in outputs[:-1]), outputs[-1]], r, b, rest, slack)
        for outputs, r, b, rest, slack in observe((*("linear",) * (len(network.layers) - 1), last))
    ]
    best = explain_layers(seen, context)
    if best is None or best.is_of_output:
        return False
    o = best.observed[1]
    proof = evidence(
        given_words(o), candidates.right_value(1.0 / (1.0 + np.exp(-o.x)), o.rho, o.beta), o.value
    )
    findings.add(finding("SAE121", proof))
    findings.name(target, [m for m in best.found[0].mistakes if m != "SAE115"], proof)
    return True


def given_words(o: Observation) -> str:
    """What a network was given, in words."""
    samples, units = o.x.shape
    return f"{samples} samples, {units} hidden units, ρ = {o.rho:g}, β = {o.beta:g}"


def _fixed_decay(cost: Cost, fit: Fit) -> float:
    """The factor of ΣW² in a cost whose λ cannot be changed: by the last kernel."""
    layers, shapes = fit.network.layers, cost.shapes(fit.layout)
    x = batches(_features(cost, fit.layout))[1]
    name = layers[-1].kernel
    if any(layer.kernel == name for layer in layers[:-1]):
        return 0.5 * cost.values.get("weight_decay", 0.0)
    weights = weights_inside(shapes, layers, 90)
    hyper = _without(cost, "beta")
    totals, squares = [], []
    for times in (1.0, 2.0, 3.0):
        w = {**weights, name: times * weights[name]}
        outputs = fit.network.forward(w, x)
        total = cost.total(fit.layout, w, x, hyper)[0]
        totals.append(total - fit.reconstruction(x, outputs[-1]))
        squares.append(float(np.sum(w[name] ** 2)))
    factor, again = np.diff(totals) / np.diff(squares)
    slack = 64.0 * cost.precision * max(map(abs, totals))
    is_decay = abs(totals[1] - totals[0]) > slack and abs(again - factor) <= 0.01 * abs(factor)
    return float(factor) if is_decay else 0.0  # else a term of the output changes with it


def _check_edges(cost: Cost, fit: Fit, values: Mapping[str, float], findings: Findings) -> None:
    """Whether a dead or saturated unit breaks the cost."""
    layers, shapes = fit.network.layers, cost.shapes(fit.layout)
    bias = layers[0].bias
    if bias is None or fit.network.hidden != "sigmoid":
        return
    findings.checks.append("dead and saturated units")
    x = batches(_features(cost, fit.layout))[0]
    for words, offset in (("a dead unit", -800.0), ("a saturated unit", 800.0)):
        weights = weights_inside(shapes, layers, 71, fit.network.activations, 0.1, 0.5)
        weights[bias] = np.array(weights[bias])
        weights[bias][0] = offset
        value = cost.total(fit.layout, weights, x, values)[0]
        if not np.isfinite(value):
            findings.add(finding("SAE401", Evidence(words, "a finite cost", f"{value}")))
    if cost.precision > 1e-10 or not values.get("beta", 1.0):
        return
    nearly = []
    for offset in (-30.0, -26.0):  # a penalty that is not clipped still tells these apart
        weights = weights_inside(shapes, layers, 71, fit.network.activations, 0.1, 0.5)
        weights[bias] = np.array(weights[bias])
        weights[bias][0] = offset
        outputs = fit.network.forward(weights, x)
        nearly.append(
            cost.total(fit.layout, weights, x, _without(cost, "weight_decay"))[0]
            - fit.reconstruction(x, outputs[-1])
        )
    if np.all(np.isfinite(nearly)) and abs(nearly[1] - nearly[0]) <= 1e-12:
        proof = Evidence("ρ̂ of 1e-13 and of 5e-12", "two values of the penalty", "the same")
        findings.add(finding("SAE402", proof))


def _review_gradient(cost: Cost, fit: Fit, findings: Findings) -> None:
    """Hold the gradient that is returned, or that training would use, to differences.

    In float64 by every weight; in float32 along one direction of each kernel and bias.
    """
    layout, layers, shapes = fit.layout, fit.network.layers, cost.shapes(fit.layout)
    x = batches(_features(cost, layout))[0]
    weights = weights_inside(shapes, layers, 77, fit.network.activations, 0.1, 0.5)
    chosen = {"weight_decay": 0.25, "beta": 3.0}
    hyper = {**cost.values, **{r: v for r, v in chosen.items() if r in cost.changeable}}
    total, gradient = cost.total(layout, weights, x, hyper)
    if gradient is None:
        gradient = cost.slopes(layout, weights, x, hyper)
    if gradient is None:
        return
    findings.checks.append("gradient")
    is_precise = cost.precision <= 1e-10
    step, share = (2.0**-17, 1e-6) if is_precise else (2.0**-6, 1e-2)
    generator = np.random.default_rng(19)
    along = {
        name: np.eye(w.size)
        if is_precise
        else generator.choice((-1.0, 1.0), (1, w.size)) / np.sqrt(w.size)
        for name, w in weights.items()
    }
    returned = {name: along[name] @ np.ravel(gradient[name]) for name in weights}
    expected = _slopes(lambda w: cost.total(layout, w, x, hyper)[0], weights, along, step)
    if not all(np.all(np.isfinite(g)) for g in expected.values()):
        return
    scale = max(1e-3, *(float(np.max(np.abs(g))) for g in expected.values()))
    allowed = share * scale + (0.0 if is_precise else cost.precision * abs(total) / step)

    def wrong(wanted: Weights, times: float = 1.0) -> list[str]:
        return [
            name
            for name in wanted
            if not np.max(np.abs(returned[name] - wanted[name])) <= allowed * max(1.0, abs(times))
        ]

    names = wrong(expected)
    if not names:
        return
    name = names[0]
    worst = int(np.argmax(np.abs(returned[name] - expected[name])))
    place = [int(i) for i in np.unravel_index(worst, shapes[name])] if is_precise else ""
    proof = evidence(
        f"by {name}{place}", float(expected[name][worst]), float(returned[name][worst])
    )
    if all(not np.any(g) for g in returned.values()):
        findings.add(finding("SAE301", proof))
        return
    constant = _share(returned, expected)
    of_all = {n: constant * g for n, g in expected.items()}
    if abs(constant) > 10.0 * share and not wrong(of_all, constant):
        findings.add(finding("SAE303", proof, f"(The constant is {constant:.4g}.)"))
        return
    detail = f"Wrong by: {', '.join(names)}."
    for words, value in _terms_left_out(cost, fit, x, hyper).items():
        without = _slopes(value, weights, along, step)
        part = {n: expected[n] - without[n] for n in expected}
        off = _share({n: returned[n] - expected[n] for n in expected}, part)
        with_part = {n: expected[n] + off * part[n] for n in expected}
        if abs(off) > 10.0 * share and not wrong(with_part, off):
            is_missing = abs(off + 1.0) <= 10.0 * share
            times = f"{off + 1.0:.4g} times as large as it should be"
            detail = f"The part of the {words} is {'missing' if is_missing else times}."
    findings.add(finding("SAE304", proof, f"({detail})"))


def _share(of: Weights, part: Weights) -> float:
    """How often a part is in something, by least squares."""
    dot = sum(float(np.sum(of[n] * part[n])) for n in part)
    return dot / max(sum(float(np.sum(g * g)) for g in part.values()), 1e-300)


def _slopes(
    value: Callable[[Weights], float], weights: Weights, along: Weights, step: float
) -> Weights:
    """The derivative of a function along directions of each weight, by differences."""

    def at(name: str, direction: Any, size: float) -> float:
        moved = weights[name] + size * direction.reshape(weights[name].shape)
        return value({**weights, name: moved})

    return {
        name: np.array(
            [(at(name, d, step) - at(name, d, -step)) / (2.0 * step) for d in along[name]]
        )
        for name in weights
    }


def _terms_left_out(
    cost: Cost, fit: Fit, x: Any, hyper: Mapping[str, float]
) -> dict[str, Callable[[Weights], float]]:
    """The cost without each of its terms, as a function of the weights."""
    bare = {**hyper, **({"weight_decay": 0.0} if "weight_decay" in cost.changeable else {})}
    factor = 0.0 if "weight_decay" in cost.changeable else _fixed_decay(cost, fit)
    kernels = {layer.kernel for layer in fit.network.layers}

    def reconstruction(w: Weights) -> float:
        return fit.reconstruction(x, fit.network.forward(w, x)[-1])

    def without_decay(w: Weights) -> float:
        squares = sum(float(np.sum(w[name] ** 2)) for name in kernels)
        return cost.total(fit.layout, w, x, bare)[0] - factor * squares

    def all_terms(w: Weights) -> float:
        return cost.total(fit.layout, w, x, hyper)[0]

    return {
        "reconstruction": lambda w: all_terms(w) - reconstruction(w),
        "weight decay": without_decay,
        "sparsity term": lambda w: all_terms(w) - without_decay(w) + reconstruction(w),
    }


# --- costs of a flat vector, of matrices, of a dictionary


@dataclass
class FlatLayout:
    """How a function takes its parameters and data.

    Args:
        form: "flat", "tuple", "pairs", "dictionary" or "arguments".
        order: The names of the weights in their order.
        transposed: Whether kernels are (units, inputs), as in the notes.
        columns: Whether a column of the data is a sample.
        bias_is_column: Whether a bias is given as a column, (units, 1).
    """

    form: str
    order: tuple[str, ...]
    transposed: bool
    columns: bool
    bias_is_column: bool = False

    def __str__(self) -> str:
        where = "column" if self.columns else "row"
        return f"a sample is a {where}, parameters: {', '.join(self.order)} ({self.form})"


@dataclass
class CostOfParameters:
    """A function of parameters and data.

    Args:
        name: What it is called.
        call: Calls it with the parameters and the data as it takes them, and hyperparameters.
        forms: The forms and orders of its parameters that are tried.
        sizes: Visible and hidden.
        changeable: Which of ρ, β, λ can be given.
        values: Their values.
        precision: Of its numbers, relative.
        framework: The library of its arrays.
    """

    name: str
    call: Callable[[Any, Any, Mapping[str, float]], Any]
    forms: Sequence[tuple[str, tuple[str, ...]]]
    sizes: tuple[int, int]
    changeable: frozenset[str]
    values: dict[str, float]
    precision: float
    framework: Framework
    _layouts: list[FlatLayout] = field(default_factory=list)

    def layouts(self) -> Sequence[FlatLayout]:
        """The ways in which it may take its parameters and data."""
        if not self._layouts:
            self._layouts = [
                FlatLayout(form, order, transposed, columns, bias_is_column)
                for (form, order), bias_is_column, transposed, columns in itertools.product(
                    self.forms, (False, True), (True, False), (True, False)
                )
                if not bias_is_column or (columns and form != "flat")
            ]
        return self._layouts

    def layers(self, layout: FlatLayout) -> Sequence[Layer]:
        """The layers of the network."""
        biases = [name if name in layout.order else None for name in ("b1", "b2")]
        second = Layer("W1", not layout.transposed, biases[1])
        if "W2" in layout.order:
            second = Layer("W2", layout.transposed, biases[1])
        return [Layer("W1", layout.transposed, biases[0]), second]

    def shapes(self, layout: FlatLayout) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the weights by name."""
        n, h = self.sizes
        first, second = ((h, n), (n, h)) if layout.transposed else ((n, h), (h, n))
        every = {"W1": first, "W2": second, "b1": (h,), "b2": (n,)}
        return {name: every[name] for name in every if name in layout.order}

    def total(
        self, layout: FlatLayout, weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> tuple[float, Weights | None]:
        """The cost, and its gradient if it returns one."""
        returned = self._returned(layout, self._given(layout, weights), x, hyper)
        gradient = None
        if isinstance(returned, (tuple, list)):
            scalars = (
                [k for k, v in enumerate(returned) if np.size(self.framework.array(v)) == 1]
                if all(not isinstance(v, (dict, list, tuple)) for v in returned)
                else [0]
            )
            rest = [v for k, v in enumerate(returned) if k != scalars[0]]
            gradient = weights_among(rest, self._in_order(layout), self.framework)
        value = self.framework.array(self._number(returned))
        if np.size(value) != 1:
            raise ValueError(f"not one number but an array of shape {np.shape(value)}")
        return float(np.reshape(value, ())), gradient

    def _given(self, layout: FlatLayout, weights: Weights) -> list[Any]:
        """The weights as arrays in the form in which they are given."""
        parts = [weights[name] for name in layout.order]
        if layout.form == "flat":
            return [np.concatenate([part.ravel() for part in parts])]
        if layout.bias_is_column:
            return [part[:, None] if part.ndim == 1 else part for part in parts]
        return parts

    def _returned(
        self, layout: FlatLayout, given: Sequence[Any], x: Any, hyper: Mapping[str, float]
    ) -> Any:
        packed = given[0] if layout.form == "flat" else list(given)
        return self.call((layout.form, packed), x.T if layout.columns else x, hyper)

    def _number(self, returned: Any) -> Any:
        """The cost among what was returned."""
        if isinstance(returned, (tuple, list)):
            if any(isinstance(v, (dict, list, tuple)) for v in returned):
                return returned[0]
            return next(v for v in returned if np.size(self.framework.array(v)) == 1)
        if isinstance(returned, dict):
            return next(v for k, v in returned.items() if "cost" in k or "loss" in k or k == "J")
        return returned

    def slopes(
        self, layout: FlatLayout, weights: Weights, x: Any, hyper: Mapping[str, float]
    ) -> Weights | None:
        """The derivative of the cost by each weight, by its library; `None`: it has none."""

        def scalar(*given: Any) -> Any:
            return self._number(self._returned(layout, given, x, hyper))

        try:
            found = self.framework.gradients(scalar, self._given(layout, weights))
        except Exception:  # it trains by itself, and gives numbers
            return None
        return weights_among(found, self._in_order(layout), self.framework)

    def _in_order(self, layout: FlatLayout) -> dict[str, tuple[int, ...]]:
        """The shapes of the weights in the order in which they are given."""
        shapes = self.shapes(layout)
        return {name: shapes[name] for name in layout.order}

    def output(self, layout: FlatLayout, weights: Weights, x: Any) -> Any:
        """A cost alone gives no output."""
        return None


def weights_among(
    returned: Any, shapes: Mapping[str, tuple[int, ...]], framework: Framework
) -> Weights | None:
    """Return the derivatives by each weight among what was returned; `None`: some are missing.

    By their names, as one vector, by their shapes, or else by their order.

    Args:
        returned: Arrays, in tuples, lists and dictionaries.
        shapes: Of the weights by name, in the order of a vector.
        framework: The library of the arrays.
    """
    named = [
        (name, framework.array(value)) for name, value in _leaves(returned) if value is not None
    ]
    left = [array for _, array in named]
    by_name = {_weight_of_slope(name): array for name, array in named if name}
    wanted = [weight_named(name) for name in shapes]
    if by_name.keys() >= {*wanted} and len({*wanted}) == len(wanted):
        left = [by_name[name] for name in wanted]
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if len(left) == 1 and left[0].size == sum(sizes):
        left = np.split(left[0].ravel(), np.cumsum(sizes)[:-1])
    found = {}
    rest = list(left)
    for name, shape in shapes.items():
        fits = [
            k
            for k, a in enumerate(rest)
            if a.shape == shape or (len(shape) == 1 and a.size == shape[0])
        ]
        if not fits:
            break
        found[name] = np.reshape(rest.pop(fits[0]), shape)
    else:
        return found
    if [array.size for array in left] != sizes:
        return None
    return {n: np.reshape(a, shape) for (n, shape), a in zip(shapes.items(), left, strict=True)}


def _leaves(returned: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays in tuples, lists and dictionaries, with the names that they have there."""
    if isinstance(returned, Mapping):
        for key, value in returned.items():
            yield from _leaves(value, str(key))
    elif isinstance(returned, (tuple, list)):
        for value in returned:
            yield from _leaves(value, name)
    else:
        yield name, returned


def _weight_of_slope(name: str) -> str | None:
    """The weight that a derivative is named by: dW1, grad_b2, W1."""
    short = plain(name)
    for word in ("gradient", "grad", "delta", "d", "g"):
        short = short.removeprefix(word).removesuffix(word)
    return weight_named(name) or weight_named(short)
