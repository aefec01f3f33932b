"""Backends that are started once for all commands of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sae_oracle import processes
from sae_oracle.processes import installed
from tests.fork_server import Forks


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Forks]]:
    with ExitStack() as stack:
        started: dict[str, Forks] = {}

        def server(backend: str) -> Forks:
            if not installed(backend):
                pytest.skip(f"{backend} is not installed")
            if backend not in started:
                modules = ("keras_impl", "sae_oracle.reviewer")
                started[backend] = stack.enter_context(Forks(backend, *modules))
            return started[backend]

        yield server


@pytest.fixture
def forked(
    servers: Callable[[str], Forks], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Forks]:
    """Called with a backend: what a command starts from now on is a fork of its server."""

    def forked_on(backend: str) -> Forks:
        server = servers(backend)
        monkeypatch.setattr(processes, "subprocess", server)
        return server

    return forked_on
