"""`reference` and `keras_impl` are names that anybody's project may have.

A command, and each process that it starts, finds ours beside this package whatever else is on the
path. A program that has a `reference` of its own keeps it: ours is imported past it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1]
"""Where the three packages are."""

NAMES = ("reference", "keras_impl")


class OurOwn:
    """Finds our packages, before anything on the path is asked."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a package of ours is; `None` for any other name."""
        return PathFinder.find_spec(name, [str(FOLDER)]) if name in NAMES else None


def find_our_own() -> None:
    """Find our packages in this process, which is ours, for as long as it lives."""
    if OurOwn not in sys.meta_path:
        sys.meta_path.insert(0, OurOwn)


@contextlib.contextmanager
def past_anothers() -> Iterator[None]:
    """Import our packages in here; afterwards another's `reference` is what it was.

    >>> import sys, types
    >>> kept, sys.modules["reference"] = sys.modules.get("reference"), types.ModuleType("reference")
    >>> with past_anothers():
    ...     import reference as ours
    >>> import reference as theirs
    >>> hasattr(ours, "kl_divergence"), hasattr(theirs, "kl_divergence")
    (True, False)
    >>> sys.modules["reference"] = kept or ours
    """
    hidden = [name for name in NAMES if _is_anothers(name)]
    theirs = {name: sys.modules.pop(name) for name in [*sys.modules] if _package(name) in hidden}
    is_first = OurOwn not in sys.meta_path
    find_our_own()
    try:
        yield
    finally:
        if is_first:
            sys.meta_path.remove(OurOwn)
        for name in [name for name in sys.modules if _package(name) in hidden]:
            del sys.modules[name]
        sys.modules.update(theirs)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _is_anothers(name: str) -> bool:
    """Whether the name is, or would be, a package that is not beside this one."""
    origin = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules:
        found = PathFinder.find_spec(name)
        if found is None:
            return False
        origin = found.origin
    return origin is None or Path(origin).resolve().parent != FOLDER / name
