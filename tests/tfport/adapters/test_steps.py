"""What a step keeps in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tfport.adapters.steps import PythonCounts, reports
from tfport.errors import UserError


class ByIdentity(Mapping[Any, Any]):
    """A mapping whose keys have no hash, as Keras 2 keeps some."""

    def __iter__(self) -> Iterator[Any]:
        return iter([[1], [2]])

    def __getitem__(self, key: Any) -> int:
        return key[0]  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return 2


class Port:
    def __init__(self) -> None:
        self.kept, self.steps, self.size = ByIdentity(), 0, 3

    def step(self) -> None:
        self.steps += 1


def test_a_number_that_every_step_moves_is_a_count_whatever_else_is_kept() -> None:
    port = Port()
    counts = PythonCounts([port.step], ("tfport",))
    for _ in range(4):
        with counts.watching("train"):
            port.step()
    assert list(counts.found) == ["steps"]


def test_a_phase_that_returns_nothing_reports_nothing_unless_it_is_the_only_one() -> None:
    assert reports(None, "the phase 'copy'", float) == {}
    assert reports(None, "the phase 'train'", float, 2.0) == {"loss": 2.0}
    with pytest.raises(UserError, match="returned nothing and no loss"):
        reports(None, "the phase 'train'", float, only=True)
    with pytest.raises(UserError, match=r"returned \['a'\] and no loss"):
        reports({"a": 1.0}, "the phase 'copy'", float)
