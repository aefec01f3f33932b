"""How code that Keras never calls is reviewed: the reading that explains its numbers best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sae_oracle.reviewer import check_loss, source
from sae_oracle.reviewer.candidates import Context, Observation, explain
from sae_oracle.reviewer.check_cost import Cost, review_cost
from sae_oracle.reviewer.check_penalty import (
    Findings,
    ShapeError,
    add_removed,
    evidence,
    expected_input,
    probes,
    review_formula,
)
from sae_oracle.reviewer.evaluation import quietly
from sae_oracle.reviewer.findings import Evidence, Finding, finding
from sae_oracle.reviewer.foreign import (
    EACH_ACTIVATION,
    KIND_WORDS,
    METHOD_WORDS,
    OF_TENSORS,
    WHICH_RHO,
    WHOLE,
    Code,
    CodePenalty,
    code_of,
    is_of_data,
    methods_of,
    other_frameworks,
    picked,
)
from sae_oracle.reviewer.frameworks import FRAMEWORKS
from sae_oracle.reviewer.loading import Method
from sae_oracle.reviewer.reading import (
    Reading,
    Signature,
    bystanders,
    hyperparameters,
    is_number,
    literals,
    signature_of,
)
from sae_oracle.reviewer.stand_ins import FILLED_IN, module_of, stand_in_model
from sae_oracle.reviewer.target import (
    CouldNotReviewError,
    Target,
    described,
)

Trial = tuple[float, Callable[[Findings, str | None], Any]]
"""How far-fetched a reading is by its numbers, and what reviews it."""


def review_code(target: Target, findings: Findings, activation: str | None) -> None:
    """Review code by the reading that explains its numbers best.

    Raises:
        CouldNotReviewError: If no reading can be called, with what to say.
    """
    code: Code = target.code
    native = code.framework.name != "keras"
    if code.thing is None:
        _review_code(target, code, findings, activation)
        return
    with source.ported(code.thing, native) as removed:
        if removed:
            add_removed(removed, findings)
        _review_code(target, code, findings, activation)


def _review_code(target: Target, code: Code, findings: Findings, activation: str | None) -> None:
    if not code.readings:
        raise CouldNotReviewError(
            f"what the arguments of {code.name}({', '.join(code.signature.names)}) are is not "
            "known: name them (--rho NAME, --beta NAME), or review what it calls"
        )
    tried, errors = _tried(target, ways_of(code))
    if not tried:
        _refused(target, code, errors, findings)
        return
    cost, reading, found = tried[0]
    if cost >= _UNEXPLAINED and reading.words and "rho" in reading.hyper:
        raise CouldNotReviewError(
            f"{reading.words[0]}, and the numbers are not those of a divergence: it is likely no "
            "sparsity penalty; if it is one, say what it takes (--rho NAME, --kind activations or "
            "means)"
        )
    target.kind = KIND_WORDS[reading.kind]
    target.guesses += [*code.guesses, *reading.words]
    found(findings, activation)


def _tried(
    target: Target, ways: Sequence[tuple[Code, Reading]]
) -> tuple[list[tuple[float, Reading, Any]], list[tuple[Reading, Exception]]]:
    """The readings that can be called, the one that explains most first; and the others.

    Raises:
        CouldNotReviewError: If there is one reading, which says why not.
    """
    found: list[tuple[float, Reading, Any]] = []
    errors: list[tuple[Reading, Exception]] = []
    for way, reading in ways:
        try:
            cost, reviewed = trial(target, way, reading)
        except CouldNotReviewError:
            if len(ways) == 1:
                raise
        except Exception as error:
            errors.append((reading, error))
        else:
            found.append((cost + reading.cost, reading, reviewed))
            if found[-1][0] == 0.0:
                break
    return sorted(found, key=lambda entry: entry[0]), errors


def ways_of(code: Code) -> list[tuple[Code, Reading]]:
    """Return each reading on each library that the arrays may be of, the likeliest first."""
    frameworks = [code.framework]
    if code.thing is not None:
        others = other_frameworks(code)
        of_tensors = source.mentions(source.text_of(code.thing), OF_TENSORS)
        frameworks = [*others, *frameworks] if of_tensors else [*frameworks, *others]
    return [
        (replace(code, framework=framework), reading)
        for framework in frameworks
        for reading in code.readings
    ]


def _refused(
    target: Target, code: Code, errors: list[tuple[Reading, Exception]], findings: Findings
) -> None:
    if not errors:
        raise CouldNotReviewError(WHICH_RHO)
    reading, error = errors[0]
    words = KIND_WORDS[reading.kind]
    if (
        len(code.readings) == 1
        and reading.kind not in ("cost", "network", "model loss")  # its layout was guessed
        and not isinstance(error, (NameError, ImportError, ShapeError, IndexError, KeyError))
        and "indices" not in str(error)
    ):
        target.kind = words
        proof = Evidence(f"a call as a {words}", "a number", described(error))
        findings.add(finding("SAE601", proof))
        return
    if isinstance(error, ShapeError):
        target.kind = words
        findings.add(finding("SAE127", Evidence("activations (4, 3)", "one number", str(error))))
        return
    raise CouldNotReviewError(
        f"calling it as a {words} ({_said(reading)}) raised {described(error)}; say what it takes "
        "(--rho NAME, --beta NAME, --kind activations or means), or review what it calls"
    )


def _said(reading: Reading) -> str:
    return ", ".join(f"{name} = {role}" for role, name in {**reading.data, **reading.hyper}.items())


_UNEXPLAINED = 6.0
_OF_NO_KNOWN_MISTAKE = ("SAE199", "SAE209", "SAE219")


def trial(target: Target, code: Code, reading: Reading) -> Trial:
    """Try a reading."""
    if reading.kind == "loss":
        return _trial_of_loss(target, code, reading)
    if reading.kind in ("activations", "means"):
        return _trial_of_penalty(target, code, reading)
    if reading.kind == "training loss":
        return _trial_of_training_loss(target, code, reading)
    if reading.kind == "weights":
        return _trial_of_weights(target, code, reading)
    if reading.kind == "network":
        return _trial_of_network(target, code)
    return _trial_of_cost(target, code, reading)


def _trial_of_cost(target: Target, code: Code, reading: Reading) -> Trial:
    from sae_oracle.reviewer import costs  # which needs this module

    if reading.kind == "model loss":
        code = replace(code, values={**costs.values_of_models(code), **code.values})
    ways = [code]
    if "rho" not in code.values:  # one of the numbers of the source, then
        ways += [
            replace(code, values={**code.values, "rho": rho}) for rho in literals(code.thing)[:4]
        ]
    made: list[Cost] = []
    for way in ways:
        if reading.kind == "cost":
            made.append(costs.cost_of(way, reading))
        else:
            made += costs.costs_of_model_losses(way, reading)
    return _trial_of_costs(target, made)


def _trial_of_network(target: Target, code: Code) -> Trial:
    """Review a module with kernels by the call that computes its cost or its penalty."""
    from sae_oracle.reviewer import costs

    changeable, values = frozenset(code.changeable(code.readings[0])), dict(code.values)

    of_module = module_of(code.make({})) is not None
    kind = (
        costs.CostOfModule if of_module else partial(costs.CostOfObject, framework=code.framework)
    )

    def cost_by(call: Callable[[Any, Any, Mapping[str, float]], Any]) -> Cost:
        return kind(code.name, code.make, call, changeable, values)

    subject = source.subject_of(code.thing)
    ranked = [name for name in methods_of(subject) if name not in ("forward", "__call__")]
    words = (
        *METHOD_WORDS,
        "training_step",
        "objective",
        "error",
        "criterion",
        "step",
        "train",
        "fit",
    )
    wanted = [name for name in ranked if any(word in name.lower() for word in words)]

    def is_whole(name: str) -> bool:  # before a penalty alone
        if ".backward(" in source.text_of(getattr(subject, name)):
            return True
        is_total = any(w in name.lower() for w in ("loss", "cost", "training_step", "objective"))
        return is_total and not any(w in name.lower() for w in ("kl", "spars", "penal"))

    wanted.sort(key=lambda name: not is_whole(name))
    if code.method is not None:
        wanted = [code.method]
    reasons: list[str] = []
    if of_module and code.method is None and not any(is_whole(name) for name in wanted):
        by_forward = _trial_of_forward(target, code, cost_by)
        if by_forward is not None:
            return by_forward
    for method in wanted:
        try:
            if is_of_data(getattr(code.make({}), method)):
                made = costs_of_method(code, method, kind)
                note = f"its method `{method}` is reviewed"
                return _named(_trial_of_costs(target, made), code, note)
            given = {role: value for role, value in values.items() if role != "beta"}
            inner = code_of(Method(code.thing, method), code.name, given, {})
            if inner is None or not inner.readings:
                continue
            tried, errors = _tried(target, [(inner, reading) for reading in inner.readings])
        except Exception as error:
            reasons.append(described(error))
            continue
        if tried:
            cost, _, reviewed = tried[0]
            return _named((cost, reviewed), inner, "")
        reasons += [described(error) for _, error in errors[:1]]
    if code.framework.name != "torch" or not callable(code.make({})):
        raise CouldNotReviewError(
            "no method of it computes a cost of a batch: review the function or method that does "
            "(file.py:Class.method)" + (f"; tried: {'; '.join(reasons[:2])}" if reasons else "")
        )
    found = _trial_of_forward(target, code, cost_by)
    if found is not None:
        return found
    raise CouldNotReviewError(
        "the module computes no penalty or cost of its own: review the function or method that "
        "computes its loss (file.py:function or file.py:Class.method)"
        + (f"; tried: {'; '.join(reasons[:2])}" if reasons else "")
    )


def _trial_of_forward(target: Target, code: Code, cost_by: Callable[..., Cost]) -> Trial | None:
    """Review the number that a forward returns or keeps; `None`: it does neither."""
    from sae_oracle.reviewer import costs

    module: Any = code.make({})
    if not callable(module):
        return None
    x = FRAMEWORKS["torch"].tensor(np.full((4, visible_of(code)), 0.5))
    try:
        returned = module(x)
    except Exception as error:
        raise CouldNotReviewError(
            f"its forward raised {described(error)} for an input of shape {tuple(x.shape)}: set "
            "its sizes (--set NAME=VALUE), or review its penalty by itself (file.py:Class.method)"
        ) from error

    def of_forward(module: Any, x: Any, hyper: Mapping[str, float]) -> Any:
        with code.with_decay(hyper):
            return module(x)

    items = list(returned.values()) if isinstance(returned, dict) else returned
    if isinstance(items, (tuple, list)) and any(
        tuple(getattr(v, "shape", (0,))) == () for v in items
    ):
        return _named(
            _trial_of_costs(target, [cost_by(of_forward)]),
            code,
            "the number that its forward returns is reviewed",
        )
    for attribute in costs.scalar_attributes(module):

        def kept(module: Any, x: Any, hyper: Mapping[str, float], name: str = attribute) -> Any:
            of_forward(module, x, hyper)
            return getattr(module, name)

        return _named(
            _trial_of_costs(target, [cost_by(kept)]), code, f"its `{attribute}` is reviewed"
        )
    return None


def costs_of_method(code: Code, method: str, kind: Any) -> list[Cost]:
    """A method that takes a batch, and perhaps ρ, β and λ, as costs: by each form of the batch."""
    from sae_oracle.reviewer import costs

    signature = signature_of(getattr(code.make({}), method)) or Signature()
    named = hyperparameters(signature, {}, code.values)
    values = dict(code.values)
    for role, name in named.items():
        default = signature.defaults.get(name)
        values[role] = float(default) if is_number(default) else FILLED_IN[role]
    aside = bystanders(signature.required)
    (data, *_) = [n for n in signature.required if n not in {*named.values(), *aside}]

    def cost_by(batch: Callable[[Any], Any]) -> Cost:
        def call(instance: Any, x: Any, hyper: Mapping[str, float]) -> Any:
            given = {**aside, data: batch(x)}
            given |= {name: hyper[role] for role, name in named.items() if role in hyper}
            with code.with_decay(hyper):
                return costs.derived_or_returned(
                    lambda: getattr(instance, method)(**given), code.framework.name
                )

        changeable = code.changeable(code.readings[0]) | named.keys()
        made: Cost = kind(code.name, code.make, call, frozenset(changeable), values)
        return made

    return [cost_by(batch) for batch in costs.batches_for(data)]


def visible_of(code: Code) -> int:
    """The width of a module's input."""
    module: Any = module_of(code.make({}))
    kernel = next(p for _, p in module.named_parameters() if len(p.shape) == 2)
    return int(kernel.shape[1])


def _named(trial: Trial, code: Code, words: str) -> Trial:
    cost, found = trial

    def reviewed(findings: Findings, activation: str | None) -> None:
        if words:
            code.guesses.append(words)
        found(findings, activation)

    return cost, reviewed


def _trial_of_costs(target: Target, made: Sequence[Cost]) -> Trial:
    best: tuple[float, Findings, Cost] | None = None
    first: Exception | None = None
    for cost in made:
        tried = Findings()
        guesses = len(target.guesses)
        try:
            with quietly():
                review_cost(target, cost, tried)
        except Exception as error:
            first = first or error
            continue
        finally:
            del target.guesses[guesses:]
        errors = sum(
            _UNEXPLAINED if found.identifier in _OF_NO_KNOWN_MISTAKE else 1.0
            for found in tried.found
            if found.severity == "error"
        )
        if best is None or errors < best[0]:
            best = errors, tried, cost
        if errors == 0:
            break
    if best is None:
        assert first is not None
        raise first

    def reviewed(findings: Findings, activation: str | None) -> None:
        target.values = dict(best[2].values)
        if "rho" in target.values and "rho" not in made[0].values:
            target.guesses.append(f"ρ = {target.values['rho']:g} (a number of the source)")
        for found in best[1].found:
            findings.add(found)
        findings.notes += best[1].notes
        findings.checks += best[1].checks

    return float(best[0]), reviewed


def _trial_of_norm(
    penalty: CodePenalty,
) -> Trial | None:
    """Whether it is proportional to the activations (L1) or to their squares; `None`: neither."""
    x = probes("activations")[0]
    try:
        penalty.check_returned(0.1, 1.0)
        once, twice = (penalty.value(k * x, 0.1, 1.0) for k in (1.0, 2.0))
    except Exception:
        return None
    for power, name in ((2.0, "L1"), (4.0, "L2")):
        if once != 0.0 and abs(twice - power * once) <= 1e-4 * abs(once):
            if penalty.returned:
                raise CouldNotReviewError(
                    "it returns an array like its input, and no penalty: review the function that "
                    "computes the penalty"
                )
            proof = Evidence("activations twice as large", "a KL", f"{power:g} times as much")
            words = f"(It is an {name} penalty of the activations: it has no ρ.)"
            named = finding("SAE119", proof, words)

            def reviewed(
                findings: Findings, activation: str | None, named: Finding = named
            ) -> None:
                findings.checks.append("value")
                findings.add(named)

            return 1.0, reviewed
    return None


def _is_derivative(observed: Sequence[Observation]) -> bool:
    """Whether the values are those of the sum of −ρ/ρ̂ + (1 − ρ)/(1 − ρ̂), times β."""
    for o in observed:
        r = np.mean(o.x, axis=0)
        expected = o.beta * float(np.sum(-o.rho / r + (1.0 - o.rho) / (1.0 - r)))
        if not abs(o.value - expected) <= 1e-4 * o.beta * float(np.sum(o.rho / r + 1.0)):
            return False
    return True


def _trial_of_weights(target: Target, code: Code, reading: Reading) -> Trial:
    """A weight decay of kernels that are given: (λ/2)ΣW²."""
    from sae_oracle.reviewer.check_weights import explain_decay

    decay = code.values.get("weight_decay", 1.0)
    generator = np.random.default_rng(11)
    names = list(reading.data)
    observed: list[tuple[list[Any], float, float]] = []
    tensor = code.framework.tensor
    first: Exception | None = None
    for form in ("array", "list", "model"):
        observed = []
        try:
            for k, shape in enumerate(((3, 4), (5, 2), (6, 6))):
                given = decay * (1.0, 3.0, 0.3)[k] if "weight_decay" in reading.hyper else decay
                arrays = [generator.normal(size=shape) for _ in names]
                arrays = [a.astype("float32").astype("float64") for a in arrays]
                if form == "model":
                    module = stand_in_model("output")
                    arguments: list[Any] = [module for _ in names]
                    arrays = [FRAMEWORKS["torch"].array(p) for p in module.parameters()]
                else:
                    arguments = [tensor(a) if form == "array" else [tensor(a)] for a in arrays]
                data = dict(zip(names, arguments, strict=True))
                value = code.call(reading, data, {"weight_decay": given})
                number = code.framework.array(picked(value))
                observed.append((arrays, given, float(np.reshape(number, ()))))
        except Exception as error:
            first = first or error
            continue
        break
    else:
        assert first is not None
        raise first
    explained = explain_decay(observed)

    def reviewed(findings: Findings, activation: str | None) -> None:
        findings.checks.append(f"value on {len(observed)} kernels")
        arrays, given, got = observed[0]
        right = given / 2.0 * sum(float(np.sum(a**2)) for a in arrays if a.ndim > 1)
        proof = evidence(f"kernels, λ = {given:g}", right, got)
        unknown = "SAE130" if "rho" in code.values else "SAE219"
        mistakes = (unknown,) if explained is None else explained
        known = "weight_decay" in code.values
        findings.name(target, (m for m in mistakes if m != "SAE212" or known), proof)

    return float(6 if explained is None else len(explained)), reviewed


def _trial_of_penalty(
    target: Target, code: Code, reading: Reading, penalty: CodePenalty | None = None
) -> Trial:
    penalty = penalty or (code.penalty or CodePenalty)(target, code, reading)
    rhos = [code.values["rho"]] if "rho" in code.values else []
    if not rhos and "rho" in reading.hyper:
        rhos = [FILLED_IN["rho"]]
    guessed = not rhos
    if guessed:
        rhos = literals(code.thing)[:8]
    of_norm = _trial_of_norm(penalty) if guessed else None
    if of_norm is not None:
        return of_norm
    if not rhos:
        raise CouldNotReviewError(WHICH_RHO)
    beta = code.values.get("beta")
    known = beta is not None and ("beta" in code.changeable(reading) or beta != 1.0)
    best: tuple[float, float] | None = None
    changeable = code.changeable(reading)
    for rho in rhos:
        observed = _observed(penalty, rho, 1.0 if beta is None else beta, changeable)
        input_kind = penalty.input_kind or expected_input(target)
        found = explain(observed, Context(penalty.divided, input_kind, known))
        if not found and penalty.kind == "means" and _is_derivative(observed):
            return 0.0, reviewed_derivative
        cost = found[0].cost if found else _UNEXPLAINED
        if found and beta is None and "SAE115" in found[0].mistakes:
            cost -= 1.2
        if best is None or cost < best[0]:
            best = cost, rho
        if cost == 0.0:
            break
    assert best is not None
    if best[0] >= _UNEXPLAINED and penalty.returned.startswith(EACH_ACTIVATION):
        raise CouldNotReviewError(
            "it returns an array like its input, and no penalty that is known: review the "
            "function that computes the penalty"
        )
    rho = best[1]
    if guessed and best[0] >= _UNEXPLAINED:
        raise CouldNotReviewError(WHICH_RHO)

    def reviewed(findings: Findings, activation: str | None) -> Any:
        target.values = {**code.values, "rho": rho}
        target.parameter = {role: role for role in changeable}
        target.arguments = dict(code.signature.defaults)
        if guessed:
            target.guesses.append(f"ρ = {rho:g} (a number of the source)")
        if beta is None and reading.kind == "activations":
            target.guesses.append("no β was found: it is taken to be 1")
        if penalty.returned:
            findings.notes.append(penalty.returned)
        if penalty.columns and penalty.kind == "activations":
            findings.notes.append("it says that a column is a sample")
        return review_formula(
            penalty, findings, rho, 1.0 if beta is None else beta, known, activation
        )

    return best[0], reviewed


def reviewed_derivative(findings: Findings, activation: str | None) -> None:
    """Say that it is the derivative, which is no mistake."""
    findings.checks.append("value")
    findings.notes.append("it is the derivative of the KL by ρ̂ (EQ-KL-DERIVATIVE), and right")


class PartOfLoss(CodePenalty):
    """The sparsity term of a training loss: what is left beside the reconstruction.

    That is what it returns where output and target agree; where its reconstruction is not 0 there
    (cross-entropy), less what it returns where every activation is ρ.
    """

    def __init__(self, target: Target, code: Code, reading: Reading, part: str) -> None:
        super().__init__(target, code, reading)
        self.part = part
        self.vanishes: bool | None = None
        self.uncertainty = 0.0

    @property
    def kind(self) -> str:
        """What the term is a function of."""
        return self.part

    def _at(self, level: float, data: Any, rows: int, hyper: Mapping[str, Any]) -> Any:
        output = self.code.framework.tensor(np.full((rows, 4), level))
        given = {"y_pred": output, "y_true": output, self.part: data}
        value = picked(self.code.call(self.reading, given, {**self.code.values, **hyper}), WHOLE)
        is_of_samples = tuple(getattr(value, "shape", ())) == (rows,) and rows > 1
        return self.code.framework.total(value) / rows if is_of_samples else value

    def _raw(self, data: Any, rho: float, beta: float) -> Any:
        framework = self.code.framework
        hyper = {"rho": rho, "beta": beta}
        rows = 5 if self.part == "means" else int(data.shape[0])
        value = self._at(0.5, data, rows, hyper)
        if self.vanishes is None:
            other = float(np.mean(framework.array(self._at(0.25, data, rows, hyper))))
            here = float(np.mean(framework.array(value)))
            self.vanishes = not abs(other - here) > 1e-4 * max(abs(here), 1e-3)
        size = float(np.max(np.abs(framework.array(value))))
        self.uncertainty = 0.0 if framework.name == "numpy" else 1e-6 * size
        if self.vanishes:
            self.uncertainty = 0.0
            return value
        at_rho = framework.tensor(np.full(tuple(data.shape), rho))
        return value - framework.array(self._at(0.5, at_rho, rows, hyper)).item()


def _trial_of_training_loss(target: Target, code: Code, reading: Reading) -> Trial:
    part = "means" if "means" in reading.data else "activations"
    framework = code.framework

    def values(y: Any, h: Any) -> list[float]:
        """The loss where every activation is ρ, and less what it is where the outputs are right."""
        rho = code.values.get("rho", FILLED_IN["rho"])
        inner = np.full((len(y), 3) if part == "activations" else 3, rho)
        totals = []
        for output in (h, y):
            data = {"y_true": y, "y_pred": output, part: inner}
            tensors = {role: framework.tensor(a) for role, a in data.items()}
            with quietly():
                totals.append(picked(code.call(reading, tensors, code.values), WHOLE))
        numbers = [float(np.mean(framework.array(total))) for total in totals]
        return [numbers[0], numbers[0] - numbers[1]]

    seen = [((y, h), values(y, h)) for y, h in check_loss.pairs()]
    ways = [[(pair, both[k]) for pair, both in seen] for k in (1, 0)]
    observed = next((way for way in ways if check_loss.explain(way)), ways[0])
    explanations = check_loss.explain(observed)
    of_loss = float(len(explanations[0])) if explanations else 1.0
    cost, of_penalty = _trial_of_penalty(
        target, code, reading, PartOfLoss(target, code, reading, part)
    )

    def reviewed(findings: Findings, activation: str | None) -> None:
        of_penalty(findings, activation)
        check_loss.review_values(target, findings, observed, lambda y, h: None)

    return cost + of_loss, reviewed


def _observed(
    penalty: CodePenalty, rho: float, beta: float, changeable: set[str]
) -> list[Observation]:
    penalty.check_returned(rho, beta)
    observed = []
    for k, x in enumerate(probes("activations")):
        r = (rho, 0.2, 0.35)[k % 3] if "rho" in changeable else rho
        b = (beta, 0.7, 5.0, 1.5)[k % 4] if "beta" in changeable else beta
        value = penalty.in_loss(x, r, b)[0]
        observed.append(Observation(x, r, b, value, penalty.uncertainty))
    return observed


def _trial_of_loss(target: Target, code: Code, reading: Reading) -> Trial:
    framework = code.framework

    def value(y: Any, h: Any) -> float:
        data = {"y_true": framework.tensor(y), "y_pred": framework.tensor(h)}
        with quietly():
            returned = picked(code.call(reading, data, code.values))
        return float(np.mean(framework.array(returned)))

    def gradient(y: Any, h: Any) -> Any:
        def scalar(t: Any) -> Any:
            data = {"y_true": framework.tensor(y), "y_pred": t}
            returned = picked(code.call(reading, data, code.values))
            size = int(np.prod(tuple(returned.shape))) if hasattr(returned, "shape") else 1
            return framework.total(returned) / size

        found = framework.gradients(scalar, [h])
        return None if found is None else found[0]

    observed = [((y, h), value(y, h)) for y, h in check_loss.pairs()]
    if all(abs(got + value(h, y)) <= 1e-5 * abs(got) for (y, h), got in observed):
        raise CouldNotReviewError(
            "it changes its sign when output and target are exchanged: a derivative, no loss; "
            "review the loss"
        )
    explanations = check_loss.explain(observed)
    cost = float(len(explanations[0])) if explanations else _UNEXPLAINED

    def reviewed(findings: Findings, activation: str | None) -> None:
        check_loss.review_values(target, findings, observed, gradient)

    return cost, reviewed


def rho_among_literals(target: Target, divided: bool) -> float | None:
    """Return the number of a Keras function's source that is its ρ; `None`: none explains it."""
    reading = Reading("activations", {"activations": "x"}, {})
    code = Code(
        target.name,
        target.thing,
        FRAMEWORKS["keras"],
        Signature(["x"]),
        lambda _: target.make(),
        readings=[reading],
    )
    trial = Target(target.name, "", target.thing, target.make, words=target.words, code=code)
    penalty = CodePenalty(trial, code, reading, divided)
    best: tuple[float, float] | None = None
    for rho in literals(target.thing)[:8]:
        try:
            found = explain(
                _observed(penalty, rho, 1.0, set()), Context(divided, beta_is_known=False)
            )
        except Exception:
            return None
        if found and (best is None or found[0].cost < best[0]):
            best = found[0].cost, rho
    return None if best is None else best[1]
