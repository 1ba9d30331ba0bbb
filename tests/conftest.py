"""How the tests are dealt out to processes: what shares a built model stays together, since building takes seconds.

pytest-xdist's own groups go by a suffix of the test's name, which pytest 9.2 does not keep: they have no effect there.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


def group(name: str, models: frozenset[str]) -> str:
    """What a test is dealt out with: its file, or the model that it is of.

    Args:
      name: the test's name as pytest has it, `folder/file.py::test[parameters]`.
      models: the names of all models.
    """
    file, _, test = name.partition("::")
    parameters = test.partition("[")[2].rstrip("]").split("-")
    return next((f"model {each}" for each in parameters if each in models), file)


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Deals out groups, in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    from tfport.models import MODELS

    models = frozenset(MODELS)

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        """Each group to one process."""

        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid, models)

    config.option.loadscopereorder = False
    return Groups(config, log)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT acts as in a terminal, here and in processes that are started, also where the tests run under nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
