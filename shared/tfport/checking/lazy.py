"""Arrays by name that are made, or read, when they are asked for."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfport.checking.store import Place

Array = np.ndarray[Any, Any]


def located(arrays: Mapping[str, Array], name: str) -> Place | None:
    """Where in a file an array of a mapping lies as it is, if it does."""
    return arrays.located(name) if isinstance(arrays, Lazy) else None


class Lazy(Mapping[str, Array]):
    """A mapping whose names are known and whose arrays are not held."""

    def __init__(self, names: Iterable[str]) -> None:
        self._known = dict.fromkeys(names)

    @abc.abstractmethod
    def __getitem__(self, name: str) -> Array:
        """The array of that name."""

    def located(self, name: str) -> Place | None:  # noqa: ARG002  a mapping that has files asks for it
        """Where in a file the array lies as it is; None where it is made when asked for."""
        return None

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
