"""Arrays by name that are made, or read, when they are asked for."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Lazy(Mapping[str, Array]):
    """A mapping whose names are known and whose arrays are not held."""

    def __init__(self, names: Iterable[str]) -> None:
        self._known = dict.fromkeys(names)

    @abc.abstractmethod
    def __getitem__(self, name: str) -> Array:
        """The array of that name."""

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
