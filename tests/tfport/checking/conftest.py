"""What the tests of checks share."""

from __future__ import annotations

from contextlib import nullcontext

import pytest


@pytest.fixture
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Keras is imported for the sake of its floatx: the programs of these tests are numpy's."""
    monkeypatch.setattr("tfport.checking.factories.Floatx", nullcontext)
