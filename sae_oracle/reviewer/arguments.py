"""What `review` takes: refused by name before right code is accused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keras_impl.validation import cut, flag, non_negative, sparsity_target
from sae_oracle.catalogue import KINDS


def check_arguments(
    *,
    settings: Any,
    rho: Any,
    beta: Any,
    weight_decay: Any,
    kind: Any,
    activation: Any,
    called_directly: Any,
    replicas: Any,
    ignore: Any,
    name: Any,
) -> None:
    """Check the arguments of `review`, which are documented there.

    Raises:
        TypeError, ValueError: If one is not as it is documented; the error names it.

    >>> right = dict.fromkeys(("settings", "beta", "weight_decay", "kind", "activation", "name"))
    >>> right |= {"called_directly": False, "replicas": False, "ignore": ()}
    >>> check_arguments(rho="p", **right)
    >>> check_arguments(rho=2.0, **right)
    Traceback (most recent call last):
    ValueError: `rho` must lie in (0.0, 1.0). Received: rho=2.0
    """
    is_mapping = isinstance(settings, Mapping) and all(isinstance(key, str) for key in settings)
    if settings is not None and not is_mapping:
        raise TypeError(
            f"`settings` must be a dictionary by names. Received: settings={cut(settings)}"
        )
    if rho is not None and not isinstance(rho, str):
        sparsity_target(rho)
    for argument, value in (("beta", beta), ("weight_decay", weight_decay)):
        if value is not None and not isinstance(value, str):
            non_negative(argument, value)
    for argument, value in (("activation", activation), ("name", name)):
        if value is not None and not isinstance(value, str):
            raise TypeError(
                f"`{argument}` must be a string or None. Received: {argument}={cut(value)}"
            )
    if kind is not None and not (isinstance(kind, str) and kind in KINDS):
        raise ValueError(f"`kind` must be one of {KINDS}, or None. Received: kind={cut(kind)}")
    flag("called_directly", called_directly)
    flag("replicas", replicas)
    if isinstance(ignore, (str, bytes)) or not isinstance(ignore, Iterable):
        raise TypeError(
            f"`ignore` must hold identifiers of findings. Received: ignore={cut(ignore)}"
        )
