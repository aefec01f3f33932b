"""Review of a cost of parameters: theta and data in, J (and its gradient) out.

Nothing is asked but numbers. A change of the last bias alone changes the reconstruction alone: that
tells the layout of the parameters and the data, the activations and the form of the first term.
What is left without weight decay is the sparsity term; what λ adds is the weight decay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sae_oracle.reviewer import candidates, source
from sae_oracle.reviewer.candidates import Context, Observation, explain
from sae_oracle.reviewer.check_loss import right_value
from sae_oracle.reviewer.check_penalty import Findings, evidence
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import CouldNotReviewError, Target

Weights = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
}
_INVERSES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: np.log(a / (1.0 - a)),
    "tanh": np.arctanh,
}
_SLOPES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: 1.0 / (a * (1.0 - a)),
    "tanh": lambda a: 1.0 / (1.0 - a * a),
}


@dataclass(frozen=True)
class Layer:
    """One layer of a network: the names of its weights.

    Args:
        kernel: The name of the kernel; as it is used, (inputs, units) or the transpose.
        transposed: Whether it is stored as (units, inputs).
        bias: The name of the bias; `None`: it has none.
    """

    kernel: str
    transposed: bool
    bias: str | None


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

    def output(self, layout: Any, weights: Weights, x: Any) -> Any:
        """The network's output, where it gives one; else `None`."""


_RECONSTRUCTIONS: dict[tuple[str, ...], Callable[[Any, Any], float]] = {
    (): right_value,
    ("SAE201",): lambda y, h: 2.0 * right_value(y, h),
    ("SAE202",): lambda y, h: right_value(y, h) / y.shape[1],
    ("SAE203",): lambda y, h: right_value(y, h) * len(y),
    ("SAE201", "SAE202"): lambda y, h: 2.0 * right_value(y, h) / y.shape[1],
    ("SAE201", "SAE203"): lambda y, h: 2.0 * right_value(y, h) * len(y),
    ("SAE202", "SAE203"): lambda y, h: right_value(y, h) * len(y) / y.shape[1],
    ("SAE204",): lambda y, h: float(np.mean(np.sqrt(np.sum((h - y) ** 2, axis=1)))),
}


def _cross_entropies() -> Iterator[Callable[[Any, Any], float]]:
    def each(y: Any, h: Any) -> Any:
        with np.errstate(all="ignore"):
            return -y * np.log(h) - (1.0 - y) * np.log(1.0 - h)

    yield lambda y, h: float(np.sum(each(y, h)) / len(y))
    yield lambda y, h: float(np.mean(each(y, h)))
    yield lambda y, h: float(np.sum(each(y, h)))


@dataclass
class Fit:
    """A way to read a cost that explains how it depends on the last bias.

    Args:
        layout: How it takes its parameters.
        hidden: The activation of the hidden layers.
        last: The activation of the output.
        of_biases: The factor of the squares of the biases, where λ cannot be changed.
        mistakes: Those of the reconstruction term.
        form: The reconstruction term; `None`: there is none.
    """

    layout: Any
    hidden: str
    last: str
    mistakes: tuple[str, ...]
    form: Callable[[Any, Any], float] | None
    of_biases: float = 0.0

    def forward(self, layers: Sequence[Layer], weights: Weights, x: Any) -> list[Any]:
        """Return the activations of every layer."""
        outputs = []
        a = x
        for position, layer in enumerate(layers):
            kernel = weights[layer.kernel]
            z = a @ (kernel.T if layer.transposed else kernel)
            if layer.bias is not None:
                z = z + weights[layer.bias]
            a = ACTIVATIONS[self.last if position == len(layers) - 1 else self.hidden](z)
            outputs.append(a)
        return outputs

    def reconstruction(self, x: Any, output: Any) -> float:
        """Return the first term."""
        return 0.0 if self.form is None else self.form(x, output)


_ROWS = (5, 9, 3, 8)


def _batches(features: int) -> list[Any]:
    generator = np.random.default_rng(12)
    made = []
    for m in _ROWS:
        strength = generator.uniform(0.3, 1.0, (m, 1))
        x = strength * generator.uniform(0.1, 0.9, (m, features))
        made.append(x.astype("float32").astype("float64"))
    return made


def _weights(
    shapes: Mapping[str, tuple[int, ...]],
    layers: Sequence[Layer],
    seed: int,
    hidden: str | None = None,
    low: float = 0.15,
    high: float = 0.35,
) -> Weights:
    """Weights for which every hidden activation lies inside (0, 1), whatever the units are.

    With `hidden`, the units' own levels lie between `low` and `high`.
    """
    generator = np.random.default_rng(seed)
    made: Weights = {}
    for position, layer in enumerate(layers):
        shape = shapes[layer.kernel]
        fan_in, units = shape[::-1] if layer.transposed else shape
        level = generator.uniform(low, high, units)
        slope = generator.uniform(0.2, 1.0, (fan_in, units)) * level / fan_in
        offset = level
        if hidden is not None and position < len(layers) - 1:
            offset = _INVERSES.get(hidden, lambda a: a)(level)
            slope = slope * _SLOPES.get(hidden, lambda a: np.ones_like(a))(level)
        if position == len(layers) - 1:
            slope = generator.normal(size=(fan_in, units)) * 0.4
        if layer.kernel not in made:
            kernel = slope.T if layer.transposed else slope
            made[layer.kernel] = kernel.astype("float32").astype("float64")
        if layer.bias is not None:
            made[layer.bias] = offset.astype("float32").astype("float64")
    for name, shape in shapes.items():
        if name not in made:
            made[name] = np.zeros(shape)
    return made


def _features(cost: Cost, layout: Any) -> int:
    first = cost.layers(layout)[0]
    shape = cost.shapes(layout)[first.kernel]
    return int(shape[1] if first.transposed else shape[0])


def _off(cost: Cost) -> dict[str, float]:
    """Hyperparameters without weight decay and sparsity, as far as they can be changed."""
    zero: dict[str, float] = {
        role: 0.0 for role in ("beta", "weight_decay") if role in cost.changeable
    }
    return {**cost.values, **zero}


def fit_of(cost: Cost) -> Fit:
    """Find the layout, the activations and the reconstruction term.

    Raises:
        CouldNotReviewError: If nothing fits.
    """
    errors: list[Exception] = []
    best: list[tuple[int, Fit]] = []
    # Where a mean is a sum, the first activations leave (0, 1): then lower ones.
    for level, layout in itertools.product((None, 0.01), cost.layouts()):
        if level is not None and best:
            break
        layers, shapes = cost.layers(layout), cost.shapes(layout)
        hyper = _off(cost)
        seen = []
        try:
            for k, x in enumerate(_batches(_features(cost, layout))):
                low = () if level is None else ("sigmoid", level, 2.0 * level)
                weights = _weights(shapes, layers, 30 + k, *low)
                last = layers[-1].bias or layers[-1].kernel
                moved = dict(weights)
                moved[last] = (
                    (
                        weights[last]
                        + np.linspace(0.1, 0.4, weights[last].size).reshape(weights[last].shape)
                    )
                    .astype("float32")
                    .astype("float64")
                )
                pair = [cost.total(layout, w, x, hyper)[0] for w in (weights, moved)]
                seen.append((x, weights, moved, pair[1] - pair[0], max(map(abs, pair))))
        except Exception as error:
            errors.append(error)
            continue
        for hidden, last_name in itertools.product(ACTIVATIONS, ACTIVATIONS):
            fit = Fit(layout, hidden, last_name, (), None)
            given = cost.output(layout, seen[0][1], seen[0][0])
            if given is not None:
                computed = fit.forward(layers, seen[0][1], seen[0][0])[-1]
                if computed.shape != given.shape or np.max(np.abs(computed - given)) > 1e-4:
                    continue
            found = _form_of(cost, fit, layers, seen)
            if found is not None:
                best.append((len(found.mistakes), found))
    if best:
        return min(best, key=lambda pair: pair[0])[1]
    if errors and len(errors) == 2 * len(cost.layouts()):
        raise errors[0]
    raise CouldNotReviewError(
        "its cost does not depend on the output's bias as that of sigmoid, tanh, relu or linear "
        "layers with a squared error or cross-entropy: review its sparsity penalty by itself, as a "
        "function of activations"
    )


def _form_of(cost: Cost, fit: Fit, layers: Sequence[Layer], seen: Sequence[Any]) -> Fit | None:
    pairs = [
        (x, fit.forward(layers, w, x)[-1], fit.forward(layers, moved, x)[-1], difference, size)
        for x, w, moved, difference, size in seen
    ]

    def fits(form: Callable[[Any, Any], float], relative: float = 0.0) -> bool:
        for x, before, after, difference, size in pairs:
            with np.errstate(all="ignore"):
                expected = form(x, after) - form(x, before)
            slack = cost.precision * (size + abs(form(x, before))) + relative * abs(expected)
            if not (np.isfinite(slack) and abs(difference - expected) <= slack):
                return False
        return True

    if cost.output(fit.layout, seen[0][1], seen[0][0]) is not None and all(
        abs(difference) <= cost.precision * size for *_, difference, size in pairs
    ):
        return fit
    for mistakes, form in _RECONSTRUCTIONS.items():
        if fits(form):
            return Fit(fit.layout, fit.hidden, fit.last, mistakes, form)
    for form in _cross_entropies():
        if fits(form, 1e-5):
            return Fit(fit.layout, fit.hidden, fit.last, ("SAE205",), form)
    last = layers[-1].bias
    if last is not None and "weight_decay" not in cost.changeable:
        grown = [float(np.sum(m[last] ** 2) - np.sum(w[last] ** 2)) for _, w, m, *_ in seen]
        for mistakes, form in _RECONSTRUCTIONS.items():
            left = [d - form(x, b) + form(x, a) for x, a, b, d, _ in pairs]
            factor = left[0] / grown[0]
            slack = 4.0 * cost.precision * max(size for *_, size in pairs)
            if factor > 0.0 and all(
                abs(rest - factor * g) <= slack for rest, g in zip(left, grown, strict=True)
            ):
                identifiers = (*mistakes, "SAE213")
                return Fit(fit.layout, fit.hidden, fit.last, identifiers, form, factor)
    x, before, after, difference, _ = pairs[0]
    change = right_value(x, after) - right_value(x, before)
    constant = difference / change if change else 0.0
    if abs(constant) > 1e-9 and fits(lambda y, h: constant * right_value(y, h)):
        form = lambda y, h: constant * right_value(y, h)  # noqa: E731
        return Fit(fit.layout, fit.hidden, fit.last, ("SAE206",), form)
    return None


def review_cost(target: Target, cost: Cost, findings: Findings) -> None:
    """Review a cost by its terms, and its gradient by its differences.

    Raises:
        CouldNotReviewError: If its reconstruction term is not that of a network with dense layers.
    """
    with np.errstate(all="ignore"):
        fit = fit_of(cost)
        layers = cost.layers(fit.layout)
        findings.checks.append(
            f"network: {len(layers)} dense layers, {fit.hidden} and {fit.last}; {fit.layout}"
        )
        _report_reconstruction(target, cost, fit, findings)
        _review_decay(target, cost, fit, findings)
        _review_sparsity(target, cost, fit, findings)
        _review_gradient(cost, fit, findings)


def _name(target: Target, identifiers: Sequence[str], proof: Evidence, findings: Findings) -> None:
    for identifier in dict.fromkeys(identifiers):
        if source.documents(target.words, identifier):
            findings.notes.append(f"{identifier} is documented as its scaling")
        else:
            findings.add(finding(identifier, proof))


def _report_reconstruction(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    if fit.form is None:
        findings.notes.append("there is no reconstruction term in what is reviewed")
        return
    findings.checks.append("reconstruction")
    layers = cost.layers(fit.layout)
    x = _batches(_features(cost, fit.layout))[0]
    weights = _weights(cost.shapes(fit.layout), layers, 30)
    output = fit.forward(layers, weights, x)[-1]
    proof = evidence(
        f"{x.shape[0]} × {x.shape[1]} inputs", right_value(x, output), fit.form(x, output)
    )
    _name(target, fit.mistakes, proof, findings)


def _review_decay(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    """Find the factor of every weight's square in what λ adds."""
    if "weight_decay" not in cost.changeable:
        return
    layers, shapes = cost.layers(fit.layout), cost.shapes(fit.layout)
    x = _batches(_features(cost, fit.layout))[0]
    decay = 0.25
    names = list(shapes)
    rows, added, noise = [], [], 0.0
    for seed in range(2 * len(names) + 2):
        weights = _weights(shapes, layers, 50 + seed)
        generator = np.random.default_rng(seed)
        for name in names:
            factor = float(np.float32(generator.uniform(0.5, 2.0)))
            if any(layer.bias == name for layer in layers[:-1]):
                factor = 1.0 + 0.2 * factor  # hidden units stay inside (0, 1)
            elif any(layer.kernel == name for layer in layers[:-1]):
                factor = 0.5 * factor
            weights[name] = (weights[name] * factor).astype("float32").astype("float64")
        off = _off(cost)
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
    if largest <= 1e3 * cost.precision:
        proof = Evidence(f"λ = {decay:g}", f"{right:g} ΣW²", "no decay")
        findings.add(finding("SAE214", proof))
        return
    tolerance = max(1e-6, 1e5 * cost.precision)
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
        _name(target, ["SAE211" if abs(ratio - 2.0) <= slack else "SAE212"], proof, findings)
        return


def _review_sparsity(target: Target, cost: Cost, fit: Fit, findings: Findings) -> None:
    layers, shapes = cost.layers(fit.layout), cost.shapes(fit.layout)
    values = dict(cost.values)
    rho, beta = values.get("rho"), values.get("beta")
    given_beta = 1.0 if beta is None else beta
    rhos = (rho or 0.1, 0.2, 0.35) if "rho" in cost.changeable else (rho or 0.1,)
    betas = (given_beta or 3.0, 0.7, 5.0) if "beta" in cost.changeable else (given_beta,)
    fixed_decay = 0.0
    if "weight_decay" not in cost.changeable:
        fixed_decay = _fixed_decay(cost, fit)
    seen = []
    for seed, x in enumerate(_batches(_features(cost, fit.layout)) * 3):
        low, high = ((0.02, 0.08), (0.1, 0.5))[seed % 2]
        weights = _weights(shapes, layers, 70 + seed, fit.hidden, low, high)
        r, b = rhos[seed % len(rhos)], betas[seed % len(betas)]
        hyper = {**values, "rho": r, "beta": b}
        if "weight_decay" in cost.changeable:
            hyper["weight_decay"] = 0.0
        hyper = {k: v for k, v in hyper.items() if k in cost.changeable or k in values}
        total = cost.total(fit.layout, weights, x, hyper)[0]
        outputs = fit.forward(layers, weights, x)
        squares = sum(float(np.sum(weights[n] ** 2)) for n in {layer.kernel for layer in layers})
        biases = {layer.bias for layer in layers if layer.bias is not None}
        of_biases = fit.of_biases * sum(float(np.sum(weights[n] ** 2)) for n in biases)
        rest = total - fit.reconstruction(x, outputs[-1]) - fixed_decay * squares - of_biases
        seen.append((outputs, r, b, rest, 8.0 * cost.precision * abs(total)))
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
    contexts = [Context(False, beta_is_known=known)]
    if fit.hidden == "tanh":
        contexts.append(Context(False, "symmetric", known))
    depth = len(seen[0][0]) - 1
    of_output = slice(depth, None)
    chosen = [slice(0, depth)] + [slice(k, k + 1) for k in range(depth) if depth > 1]
    chosen.append(of_output)
    best: tuple[float, Any, Any, Context] | None = None
    for which, context in itertools.product(chosen, contexts):
        observed = [
            Observation(np.concatenate(hidden[which], axis=1), r, b, rest, slack)
            for hidden, r, b, rest, slack in seen
        ]
        found = explain(observed, context)
        cost_of_it = found[0].cost + (which == of_output) if found else np.inf
        if found and (best is None or cost_of_it < best[0]):
            best = cost_of_it, found, observed, context
            is_of_output = which == of_output
        if best is not None and best[0] == 0.0:
            break
    if best is None:
        hidden, r, b, rest, _ = seen[0]
        o = Observation(np.concatenate(hidden[:depth], axis=1), r, b, rest)
        right = candidates.right_value(o.x, o.rho, o.beta, context.input)
        findings.add(finding("SAE199", evidence(_given(o), right, o.value)))
        return
    _, found, observed, context = best
    o = observed[1]
    right = candidates.right_value(o.x, o.rho, o.beta, context.input)
    mistakes = [m for m in found[0].mistakes if not (m == "SAE115" and beta is None)]
    proof = evidence(_given(o), right, o.value)
    alternatives = tuple(" and ".join(e.mistakes) + f" ({e.words})" for e in found[1:])
    if is_of_output:
        findings.add(finding("SAE130", proof, "(Of the output.)"))
    for identifier in dict.fromkeys(mistakes):
        if source.documents(target.words, identifier):
            findings.notes.append(f"{identifier} is documented as its scaling")
        else:
            findings.add(finding(identifier, proof, "", alternatives))
    _check_edges(cost, fit, values, findings)


def _given(o: Observation) -> str:
    samples, units = o.x.shape
    return f"{samples} samples, {units} hidden units, ρ = {o.rho:g}, β = {o.beta:g}"


def _fixed_decay(cost: Cost, fit: Fit) -> float:
    """The factor of ΣW² in a cost whose λ cannot be changed: by the last kernel."""
    layers, shapes = cost.layers(fit.layout), cost.shapes(fit.layout)
    x = _batches(_features(cost, fit.layout))[1]
    name = layers[-1].kernel
    if any(layer.kernel == name for layer in layers[:-1]):
        return 0.5 * cost.values.get("weight_decay", 0.0)
    weights = _weights(shapes, layers, 90)
    moved = {**weights, name: (2.0 * weights[name])}
    totals, squares = [], []
    for w in (weights, moved):
        outputs = fit.forward(layers, w, x)
        totals.append(
            cost.total(fit.layout, w, x, cost.values)[0] - fit.reconstruction(x, outputs[-1])
        )
        squares.append(float(np.sum(w[name] ** 2)))
    factor = (totals[1] - totals[0]) / (squares[1] - squares[0])
    slack = 64.0 * cost.precision * max(map(abs, totals))
    return 0.0 if abs(totals[1] - totals[0]) <= slack else float(factor)


def _check_edges(cost: Cost, fit: Fit, values: Mapping[str, float], findings: Findings) -> None:
    """Whether a dead or saturated unit breaks the cost."""
    layers, shapes = cost.layers(fit.layout), cost.shapes(fit.layout)
    bias = layers[0].bias
    if bias is None or fit.hidden != "sigmoid":
        return
    findings.checks.append("dead and saturated units")
    x = _batches(_features(cost, fit.layout))[0]
    for words, offset in (("a dead unit", -800.0), ("a saturated unit", 800.0)):
        weights = _weights(shapes, layers, 71, fit.hidden, 0.1, 0.5)
        weights[bias] = np.array(weights[bias])
        weights[bias][0] = offset
        value = cost.total(fit.layout, weights, x, values)[0]
        if not np.isfinite(value):
            findings.add(finding("SAE401", Evidence(words, "a finite cost", f"{value}")))
    if cost.precision > 1e-10 or not values.get("beta", 1.0):
        return
    nearly = []
    for offset in (-30.0, -26.0):  # a penalty that is not clipped still tells these apart
        weights = _weights(shapes, layers, 71, fit.hidden, 0.1, 0.5)
        weights[bias] = np.array(weights[bias])
        weights[bias][0] = offset
        outputs = fit.forward(layers, weights, x)
        nearly.append(
            cost.total(fit.layout, weights, x, _without_decay(cost, values))[0]
            - fit.reconstruction(x, outputs[-1])
        )
    if np.all(np.isfinite(nearly)) and abs(nearly[1] - nearly[0]) <= 1e-12:
        proof = Evidence("ρ̂ of 1e-13 and of 5e-12", "two values of the penalty", "the same")
        findings.add(finding("SAE402", proof))


def _without_decay(cost: Cost, values: Mapping[str, float]) -> dict[str, float]:
    zero = {"weight_decay": 0.0} if "weight_decay" in cost.changeable else {}
    return {**values, **zero}


def _review_gradient(cost: Cost, fit: Fit, findings: Findings) -> None:
    """Hold the gradient that is returned to differences of the cost."""
    layers, shapes = cost.layers(fit.layout), cost.shapes(fit.layout)
    x = _batches(_features(cost, fit.layout))[0]
    weights = _weights(shapes, layers, 77, fit.hidden, 0.1, 0.5)
    hyper = {**cost.values}
    for role, value in (("weight_decay", 0.25), ("beta", 3.0)):
        if role in cost.changeable:
            hyper[role] = value
    returned = cost.total(fit.layout, weights, x, hyper)[1]
    if returned is None or cost.precision > 1e-10:
        return
    findings.checks.append("gradient")
    step = 2.0**-17
    expected = {}
    for name, w in weights.items():
        expected[name] = np.zeros(w.shape)
        for index in np.ndindex(*w.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = {**weights, name: np.array(w)}
                moved[name][index] += sign * step
                values.append(cost.total(fit.layout, moved, x, hyper)[0])
            expected[name][index] = (values[0] - values[1]) / (2.0 * step)
    if not all(np.all(np.isfinite(g)) for g in expected.values()):
        return
    scale = max(float(np.max(np.abs(g))) for g in expected.values())

    def agrees(actual: Weights, wanted: Weights, times: float = 1.0) -> list[str]:
        return [
            name
            for name in wanted
            if not np.max(np.abs(actual[name] - times * wanted[name]))
            <= 1e-6 * max(scale, 1e-3) * max(1.0, abs(times))
        ]

    wrong = agrees(returned, expected)
    if not wrong:
        return
    name = wrong[0]
    index = np.unravel_index(
        int(np.argmax(np.abs(returned[name] - expected[name]))), expected[name].shape
    )
    proof = evidence(
        f"by {name}{[int(i) for i in index]}",
        float(expected[name][index]),
        float(returned[name][index]),
    )
    if all(not np.any(g) for g in returned.values()):
        findings.add(finding("SAE301", proof))
        return
    dot = sum(float(np.sum(returned[n] * expected[n])) for n in expected)
    constant = dot / sum(float(np.sum(g * g)) for g in expected.values())
    if not agrees(returned, expected, constant):
        findings.add(finding("SAE303", proof, f"(The constant is {constant:.4g}.)"))
        return
    findings.add(finding("SAE304", proof, f"(Wrong by: {', '.join(wrong)}.)"))


# --- costs of a flat vector, of matrices, of a dictionary


@dataclass
class FlatLayout:
    """How a function takes its parameters and data.

    Args:
        form: "flat", "tuple", "pairs", "dictionary" or "arguments".
        order: The names of the weights in their order.
        transposed: Whether kernels are (units, inputs), as in the notes.
        columns: Whether a column of the data is a sample.
    """

    form: str
    order: tuple[str, ...]
    transposed: bool
    columns: bool

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
        array: Returns what it returned as float64.
    """

    name: str
    call: Callable[[Any, Any, Mapping[str, float]], Any]
    forms: Sequence[tuple[str, tuple[str, ...]]]
    sizes: tuple[int, int]
    changeable: frozenset[str]
    values: dict[str, float]
    precision: float
    array: Callable[[Any], Any]
    tied: bool = False
    _layouts: list[FlatLayout] = field(default_factory=list)

    def layouts(self) -> Sequence[FlatLayout]:
        """The ways in which it may take its parameters and data."""
        if not self._layouts:
            self._layouts = [
                FlatLayout(form, order, transposed, columns)
                for (form, order), transposed, columns in itertools.product(
                    self.forms, (True, False), (True, False)
                )
            ]
        return self._layouts

    def layers(self, layout: FlatLayout) -> Sequence[Layer]:
        """The layers of the network."""
        biases = [name if name in layout.order else None for name in ("b1", "b2")]
        second = Layer("W1", not layout.transposed, biases[1])
        if not self.tied:
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
        parts = [weights[name] for name in layout.order]
        given: Any = parts
        if layout.form == "flat":
            given = np.concatenate([part.ravel() for part in parts])
        returned = self.call((layout.form, given), x.T if layout.columns else x, hyper)
        gradient = None
        if isinstance(returned, (tuple, list)):
            scalars = (
                [k for k, v in enumerate(returned) if np.size(self.array(v)) == 1]
                if all(not isinstance(v, (dict, list, tuple)) for v in returned)
                else [0]
            )
            value = self.array(returned[scalars[0]])
            rest = [v for k, v in enumerate(returned) if k != scalars[0]]
            gradient = self._gradient(layout, rest)
        elif isinstance(returned, dict):
            value = self.array(
                next((v for k, v in returned.items() if "cost" in k or "loss" in k or k == "J"))
            )
        else:
            value = self.array(returned)
        if np.size(value) != 1:
            raise ValueError(f"not one number but an array of shape {np.shape(value)}")
        return float(np.reshape(value, ())), gradient

    def _gradient(self, layout: FlatLayout, rest: Sequence[Any]) -> Weights | None:
        shapes = self.shapes(layout)
        count = sum(int(np.prod(shape)) for shape in shapes.values())
        if len(rest) == 1 and not isinstance(rest[0], (dict, tuple, list)):
            flat = np.asarray(self.array(rest[0])).ravel()
            if flat.size != count:
                return None
            found, start = {}, 0
            for name in layout.order:
                size = int(np.prod(shapes[name]))
                found[name] = flat[start : start + size].reshape(shapes[name])
                start += size
            return found
        if len(rest) == 1 and isinstance(rest[0], (tuple, list)):
            rest = rest[0]
        if len(rest) == len(layout.order):
            arrays = [np.asarray(self.array(v)) for v in rest]
            sizes = [int(np.prod(shapes[name])) for name in layout.order]
            if [a.size for a in arrays] == sizes:
                return {
                    name: a.reshape(shapes[name])
                    for name, a in zip(layout.order, arrays, strict=True)
                }
        return None

    def output(self, layout: FlatLayout, weights: Weights, x: Any) -> Any:
        """A cost alone gives no output."""
        return None
