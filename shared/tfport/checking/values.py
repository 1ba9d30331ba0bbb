"""Matching intermediates of two programs by value, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

CLOSE = 2.0**-16
"""Largest difference, as a share of the largest magnitude, at which two float32 intermediates are one: correct
programs differ by a few times 2**-24 a layer, and what a port gets wrong by more."""


class Valued(Protocol):
    """A node that has a value."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The nodes it reads."""
        ...

    @property
    def value(self) -> Array:
        """Its value."""
        ...


def agree(one: Array, other: Array, close: float = CLOSE) -> bool:
    """Whether two arrays are one up to rounding, in one layout or with axes exchanged."""
    if one.size != other.size or not one.size:
        return False
    if _agree(one.reshape(-1), other.reshape(-1), close):
        return True
    if one.ndim != other.ndim or one.ndim < 2 or one.ndim > 4:
        return False
    for order in permutations(range(one.ndim)):
        if order == tuple(range(one.ndim)):
            continue
        turned = one.transpose(order)
        if turned.shape == other.shape and _agree(turned.reshape(-1), other.reshape(-1), close):
            return True
    return False


def _agree(one: Array, other: Array, close: float) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        scale = max(float(np.abs(one).max()), float(np.abs(other).max()))
        if not np.isfinite(scale):
            return bool(np.array_equal(one, other))
        return bool(float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) <= close * scale)


def telling(array: Array) -> bool:
    """Whether agreeing with this array says something: not a constant."""
    return array.size > 1 and bool(np.ptp(array) > 0)


class Index:
    """Nodes by value."""

    def __init__(self, nodes: Iterable[Valued]) -> None:
        self._by_size: dict[int, list[tuple[str, float, float, Array]]] = {}
        for node in nodes:
            value = np.asarray(node.value)
            if value.size and value.dtype.kind == "f" and np.isfinite(value).all():
                self._by_size.setdefault(value.size, []).append((node.name, *_moments(value), value))

    def find(self, value: Array, close: float = CLOSE) -> list[str]:
        """Names of the nodes with this value, in order of computation."""
        if not value.size or value.dtype.kind != "f" or not np.isfinite(value).all():
            return []
        norm, peak = _moments(value)
        return [
            name
            for name, its_norm, its_peak, its in self._by_size.get(value.size, ())
            if abs(its_norm - norm) <= 4 * close * max(norm, its_norm)
            and abs(its_peak - peak) <= 2 * close * max(peak, its_peak)
            and agree(its, value, close)
        ]


def _moments(value: Array) -> tuple[float, float]:
    wide = value.reshape(-1).astype(np.float64)
    return float(np.sqrt(np.square(wide).mean())), float(np.abs(wide).max())


def matched(legacy: Sequence[Valued], modern: Sequence[Valued], close: float = CLOSE) -> dict[str, str]:
    """Modern node -> the legacy node of the same value; constants have none.

    Of several legacy nodes with the value, the one that comes next in order is taken.
    """
    index = Index(legacy)
    place = {node.name: number for number, node in enumerate(legacy)}
    found: dict[str, str] = {}
    last = -1
    for node in modern:
        value = np.asarray(node.value)
        names = index.find(value, close)
        if not names:
            continue
        if not telling(value) and value.size != 1:
            continue
        name = next((each for each in names if place[each] > last), names[0])
        found[node.name] = name
        last = max(last, place[name])
    return found


def first_apart(nodes: Sequence[Valued], partners: Mapping[str, str] | set[str]) -> Valued | None:
    """The first node without a partner from which no node with a partner is computed.

    What one framework computes on its way and the other does not (a reciprocal square root, a fused bias) has no
    partner either, but what is computed from it has.
    """
    by_name = {node.name: node for node in nodes}
    healed: set[str] = set()
    for node in reversed(nodes):
        if node.name in partners or node.name in healed:
            healed.update(name for name in node.inputs if name in by_name)
    for node in nodes:
        if node.name not in partners and node.name not in healed and _speaks(node):
            return node
    return None


def _speaks(node: Valued) -> bool:
    """Whether the node's value could have a partner at all: single numbers that are no loss may be anything."""
    value = np.asarray(node.value)
    return value.dtype.kind == "f" and value.size > 0
