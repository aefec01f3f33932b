"""Review of what survives saving: the configuration, the registration, the reloaded object."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import keras

from sae_oracle.reviewer import source
from sae_oracle.reviewer.check_penalty import Findings
from sae_oracle.reviewer.evaluation import quietly
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import Target, described


def review_saving(
    target: Target, findings: Findings, evaluate: Callable[[Any], float] | None = None
) -> None:
    """Review get_config, from_config and registration.

    Args:
        target: What is reviewed.
        findings: Where they go.
        evaluate: Returns a number of an instance, by which two are compared.
    """
    subject = source.subject_of(target.thing)
    findings.checks.append("configuration, registration and reloading")
    with quietly():
        if inspect.isclass(subject) and not source.is_kerass_own(subject):
            _review_config(target, subject, findings, evaluate)
        if not source.is_kerass_own(subject) and not _is_registered(subject):
            name = getattr(subject, "__name__", str(subject))
            if not (target.kind == "model" and inspect.isfunction(subject)):
                proof = Evidence("keras.saving", "a registered name", f"{name!r}")
                findings.add(finding("SAE702", proof))


def _is_registered(subject: Any) -> bool:
    return keras.saving.get_registered_name(subject) != getattr(subject, "__name__", "") or (
        subject in keras.saving.get_custom_objects().values()
    )


def _other(value: Any) -> Any:
    """Another value of a number, inside (0, 1) if it was."""
    return value * 0.75 if isinstance(value, float) and value else value


def _review_config(
    target: Target, subject: Any, findings: Findings, evaluate: Callable[[Any], float] | None
) -> None:
    parameters = {
        name: p
        for name, p in inspect.signature(subject.__init__).parameters.items()
        if name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    input_words = "get_config()"
    try:
        changed = {
            name: _other(target.arguments[name])
            for role, name in target.parameter.items()
            if role in ("rho", "beta", "weight_decay") and name in target.arguments
        }
        try:
            instance = target.make(**changed)
        except (ValueError, TypeError):
            instance = target.make()
        if not hasattr(instance, "get_config"):
            raise NotImplementedError
        config = instance.get_config()
    except NotImplementedError:
        names = ", ".join(f"`{name}`" for name in parameters)
        proof = Evidence(input_words, names or "a dictionary", "there is none")
        findings.add(finding("SAE701", proof, f"(There is no get_config; {names} lost.)"))
        return
    except Exception as error:
        if all(found.identifier != "SAE601" for found in findings.found):
            findings.add(finding("SAE703", Evidence(input_words, "a dictionary", described(error))))
        return
    missing = [name for name in parameters if name not in config]
    if target.kind in ("layer", "model", "loss"):
        # Keras's own arguments may be under its own names.
        base = {"name", "dtype", "trainable", "reduction"}
        missing = [name for name in missing if name not in base]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        proof = Evidence(
            input_words,
            ", ".join(f"`{name}`" for name in parameters),
            ", ".join(f"`{name}`" for name in config) or "nothing",
        )
        findings.add(finding("SAE701", proof, f"({names} lost.)"))
        return
    with keras.saving.custom_object_scope({subject.__name__: subject}):
        try:
            text = json.dumps(keras.saving.serialize_keras_object(instance))
            again = keras.saving.deserialize_keras_object(json.loads(text))
            if evaluate is None:
                return
            before, after = evaluate(instance), evaluate(again)
        except Exception as error:
            findings.add(finding("SAE703", Evidence("reload", "the same object", described(error))))
            return
    if before != after and not (before != before and after != after):
        proof = Evidence("its value after a reload", f"{before:.6g}", f"{after:.6g}")
        findings.add(finding("SAE701", proof))
