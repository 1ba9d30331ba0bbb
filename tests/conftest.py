"""How the tests are dealt out to processes: what shares a built model stays together, since building takes seconds."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook, before any that does not say so
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A group a file, but a group a model for tests that have a model, and the group that a file names itself; without
    pytest-xdist it means nothing.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is not None:
            continue
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")  # type: ignore[attr-defined]
        item.add_marker(pytest.mark.xdist_group(f"model {model}" if model else str(item.path)))
