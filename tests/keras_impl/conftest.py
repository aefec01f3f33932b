"""The backend of this process, started once more for the processes that tests start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fork_server import Forks


@pytest.fixture(scope="session")
def forks(backend: str) -> Iterator[Forks]:
    with Forks(backend) as server:
        yield server
