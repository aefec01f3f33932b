"""The pytest fixture `assert_conforms`: a project holds its own code to the notes.

    def test_my_regularizer(assert_conforms):
        assert_conforms(MyRegularizer, rho="p", beta="sparsityBeta")

Loading the plugin imports neither Keras nor a backend; using the fixture does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def assert_conforms() -> Callable[..., None]:
    """`sae_oracle.assert_conforms`: fails with the whole review unless the object conforms."""
    import sae_oracle

    return sae_oracle.assert_conforms
