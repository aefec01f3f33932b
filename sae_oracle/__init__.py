"""The tools that hold an implementation to the oracle: `review`, its checks, the command.

`to_parameters` and `set_parameters` bring weights from a model into NumPy and back.

Importing this package starts no backend; using `review` does.
"""

# Nothing is imported here: `python -m sae_oracle` runs this while the working folder comes first.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sae_oracle.reviewer import (
        Review,
        assert_conforms,
        conformance_checks,
        parametrize_with_checks,
        review,
    )
    from sae_oracle.workers.oracle_bridge import set_parameters, to_parameters

__all__ = [
    "Review",
    "assert_conforms",
    "conformance_checks",
    "parametrize_with_checks",
    "review",
    "set_parameters",
    "to_parameters",
]

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> "Any":
    """Load what is asked for, and with it Keras."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("sae-oracle")
        except PackageNotFoundError:  # a copy that pip did not put there
            return "unknown"
    if name in __all__:
        from sae_oracle.names import past_anothers

        with past_anothers():
            import keras_impl  # noqa: F401  # first: it says what to do if there is no backend
            from sae_oracle import reviewer
            from sae_oracle.workers import oracle_bridge

        return getattr(oracle_bridge if name.endswith("_parameters") else reviewer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
