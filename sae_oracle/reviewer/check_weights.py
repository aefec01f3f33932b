"""Review of a regularizer of weights: weight decay, L1, L2, L1L2, orthogonality."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

import reference
from keras_impl.backends.autodiff import has_gradients
from reference.rounding import precision_named
from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_penalty import Findings, check_backends, evidence
from sae_oracle.reviewer.evaluation import (
    as_number,
    dtype_of,
    gradient_of,
    quietly,
    tensor,
)
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import CouldNotReviewError, Target, described

_SHAPES = ((3, 4), (5, 2), (6, 6), (1, 3))


def _inputs() -> Iterator[Any]:
    generator = np.random.default_rng(11)
    for shape in _SHAPES:
        yield generator.normal(size=shape).astype("float32").astype("float64")


def review_weight_regularizer(target: Target, findings: Findings) -> None:
    """Review a regularizer of weights by what its arguments promise.

    `l1` and `l2` are Keras's factors (l2·ΣW², no ½); `weight_decay`, `lambda` and the like are
    Ng's λ ((λ/2)ΣW²); `factor` with a `mode` is Keras's orthogonal regularizer.

    Raises:
        CouldNotReviewError: If no argument says what it is.
    """
    names = {name.replace("_", "").lower(): name for name in target.arguments}
    if "factor" in names and "mode" in names:
        _review_orthogonal(target, findings)
        return
    l1 = names.get("l1") or names.get("l1factor")
    l2 = names.get("l2") or names.get("l2factor")
    decay = target.parameter.get("weight_decay")
    if decay is not None and decay == l2:
        decay = None
    if decay is None and l1 is None and l2 is None and "weight_decay" not in target.values:
        raise CouldNotReviewError(
            "no argument is ρ of a sparsity penalty (--rho NAME) nor a factor of a weight penalty "
            "(l1, l2, weight_decay; --weight-decay NAME)"
        )
    findings.checks.append(f"value on {len(_SHAPES)} kernels")
    if decay is not None or (l1 is None and l2 is None):
        _review_decay(target, findings)
    else:
        target.guesses[:] = [guess for guess in target.guesses if not guess.startswith("λ")]
        _review_l1_l2(target, findings, l1, l2)
    check_backends(target, findings)


def _bound(expected: float, terms: int) -> float:
    """EQ-BOUND-SQUARES with both factors stored."""
    return (terms + 8.0) * 2.0 * precision_named("float32").unit_roundoff * abs(expected)


def _review_decay(target: Target, findings: Findings) -> None:
    """Compare with (λ/2)ΣW² and what people write in its place."""
    base = target.values.get("weight_decay", 1e-2)
    factors = (base, 3.0 * base, 0.3 * base) if "weight_decay" in target.parameter else (base,)
    observed = []
    for k, w in enumerate(_inputs()):
        decay = factors[k % len(factors)]
        try:
            regularizer = target.build(weight_decay=decay)
            observed.append((w, decay, as_number(regularizer(tensor(w)))))
        except Exception as error:
            findings.add(finding("SAE601", Evidence("a kernel", "a number", described(error))))
            return
    w, decay, got = observed[0]
    proof = evidence(
        f"a {w.shape[0]} × {w.shape[1]} kernel, λ = {decay:g}",
        decay / 2.0 * float(np.sum(w**2)),
        got,
    )
    explained = explain_decay([([w], decay, got) for w, decay, got in observed])
    if explained is None:
        findings.add(finding("SAE219", proof))
    elif explained:
        findings.name(target, explained, proof)
    else:
        regularizer = target.build(weight_decay=decay)
        _check_gradient(regularizer, decay * w, w, findings)
        _check_half(regularizer, w, findings)


def explain_decay(
    observed: Sequence[tuple[Sequence[Any], float, float]],
) -> tuple[str, ...] | None:
    """Return the mistakes that explain a weight decay; `None`: nothing does.

    Args:
        observed: The weights, λ, and the value.
    """
    norms: dict[tuple[str, ...], Callable[[Sequence[Any]], float]] = {
        (): lambda ws: sum(float(np.sum(w**2)) for w in ws if w.ndim > 1),
        ("SAE213",): lambda ws: sum(float(np.sum(w**2)) for w in ws),
        ("SAE217",): lambda ws: sum(float(np.mean(w**2)) for w in ws if w.ndim > 1),
        ("SAE218",): lambda ws: sum(float(np.sum(np.abs(w))) for w in ws),
        ("SAE218", "SAE212"): lambda ws: sum(float(np.sqrt(np.sum(w**2))) for w in ws),
    }
    scales = {(): 0.5, ("SAE211",): 1.0, ("SAE212",): 0.25}
    for (of_norm, norm), (of_scale, scale) in sorted(
        itertools.product(norms.items(), scales.items()), key=lambda p: len(p[0][0] + p[1][0])
    ):
        if all(abs(got - d * scale * norm(ws)) <= 1e-5 * abs(got) for ws, d, got in observed):
            return tuple(dict.fromkeys(of_norm + of_scale))
    return None


def _review_l1_l2(target: Target, findings: Findings, l1: str | None, l2: str | None) -> None:
    """Compare with l1 Σ|w| + l2 Σ w², as Keras documents them."""

    def value_of(name: str | None, default: float) -> float:
        if name is None:
            return 0.0
        value = target.arguments.get(name)
        return default if value is None else float(value)

    settings = [{}, {"l1": 0.07, "l2": 0.4}, {"l1": 0.3, "l2": 0.02}]
    for k, w in enumerate(_inputs()):
        chosen: dict[str, float] = settings[k % len(settings)]
        factors = {
            name: chosen.get(role, value_of(name, 0.01))
            for role, name in (("l1", l1), ("l2", l2))
            if name is not None
        }
        first = factors.get(l1, 0.0) if l1 else 0.0
        second = factors.get(l2, 0.0) if l2 else 0.0
        expected = reference.l1_l2(w, first, second)
        try:
            regularizer = target.make(**(factors if chosen else {}))
            got = as_number(regularizer(tensor(w)))
        except Exception as error:
            findings.add(finding("SAE601", Evidence("a kernel", "a number", described(error))))
            return
        if abs(got - expected) > _bound(float(expected), w.size):
            given = ", ".join(f"{name} = {value:g}" for name, value in factors.items())
            proof = evidence(f"a {w.shape[0]} × {w.shape[1]} kernel, {given}", float(expected), got)
            squares, absolutes = float(np.sum(w**2)), float(np.sum(np.abs(w)))
            named = {
                "SAE212": 0.5 * second * squares + first * absolutes,
                "SAE217": float(expected) / w.size,
                "SAE218": second * absolutes + first * squares,
            }
            for identifier, value in named.items():
                if abs(got - value) <= _bound(value, w.size):
                    if source.documents(target.words, identifier) or (
                        identifier == "SAE212" and source.documents(target.words, "SAE206")
                    ):
                        findings.notes.append(f"{identifier} is documented as its scaling")
                        return
                    findings.add(
                        finding(
                            identifier,
                            proof,
                            "(Keras's factors have no ½.)" if identifier == "SAE212" else "",
                        )
                    )
                    return
            findings.add(finding("SAE219", proof))
            return
    w = next(_inputs())
    first, second = value_of(l1, 0.01), value_of(l2, 0.01)
    gradient = reference.l1_l2_gradient(w, first, second)
    _check_gradient(target.make(), gradient, w, findings)
    _check_half(target.make(), w, findings)


def _review_orthogonal(target: Target, findings: Findings) -> None:
    findings.checks.append("value on kernels, rows and columns")
    for mode in ("rows", "columns"):
        for w in list(_inputs())[:3]:
            expected = reference.orthogonal(w, 0.03, mode)
            try:
                got = as_number(target.make(factor=0.03, mode=mode)(tensor(w)))
            except Exception as error:
                findings.add(
                    finding("SAE601", Evidence(f"a kernel, {mode}", "a number", described(error)))
                )
                return
            bound = reference.bounds.orthogonal_with_bounds(w, 0.03, mode, precision="float32")[0]
            if abs(got - expected) > float(bound.bound):
                shape = f"{w.shape[0]} × {w.shape[1]}"
                proof = evidence(f"a {shape} kernel, {mode}, factor = 0.03", float(expected), got)
                findings.add(finding("SAE219", proof))
                return


def _check_gradient(regularizer: Any, expected: Any, w: Any, findings: Findings) -> None:
    if not has_gradients():
        return
    findings.checks.append("gradient")
    try:
        actual = gradient_of(regularizer, w)
    except Exception as error:
        findings.add(finding("SAE302", Evidence("a kernel", "a gradient", described(error))))
        return
    allowed = 32.0 * precision_named("float32").unit_roundoff * np.max(np.abs(expected))
    if np.all(np.abs(actual - expected) <= allowed):
        return
    proof = evidence("by the first weight", float(expected.flat[0]), float(actual.flat[0]))
    findings.add(finding("SAE301" if not np.any(actual) else "SAE304", proof))


def _check_half(regularizer: Any, w: Any, findings: Findings) -> None:
    """Keras's weights are float32 under a mixed policy: only what raises is a finding."""
    if keras.config.backend() == "openvino":
        return
    with quietly():
        try:
            value = regularizer(tensor(w, "float16"))
        except Exception as error:
            proof = Evidence("a float16 kernel", "a number", described(error))
            findings.add(finding("SAE503", proof))
            return
        if dtype_of(value) == "float16":
            findings.notes.append("it returns float16 for a float16 kernel")
