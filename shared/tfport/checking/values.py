"""Matching intermediates of two programs by value, whatever they are called."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

CLOSE = 2.0**-16
"""Largest difference, as a share of the largest magnitude, at which two float32 intermediates are one: correct
programs differ by a few times 2**-24 a layer, and what a port gets wrong by more."""


SELECTING = frozenset({"Split", "SplitV", "StridedSlice", "TensorArrayReadV3", "TensorListGetItem", "Unpack"})
"""Kinds of node that are a part of what they read."""
MASKED = 1e-6
"""What else is in an array is no larger than this, as a share of what masks a part of it: -1e9 added to scores."""
_ITERATION = re.compile(r"\[iteration (\d+)\]")


class Valued(Protocol):
    """A node that has a value."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def kind(self) -> str:
        """Its op's type."""
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
    """Whether two arrays are one up to rounding, in one layout or with axes exchanged, two of which may be merged."""
    if one.size != other.size or not one.size:
        return False
    if _agree(one.reshape(-1), other.reshape(-1), close):
        return True
    if one.ndim < other.ndim:
        one, other = other, one
    if not (2 <= one.ndim <= 4 and one.ndim - other.ndim <= 1):
        return False
    for order in permutations(range(one.ndim)):
        if order == tuple(range(one.ndim)):
            continue
        turned = one.transpose(order)
        if other.shape in _merged(turned.shape) and _agree(turned.reshape(-1), other.reshape(-1), close):
            return True
    return False


def _merged(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shape, and those in which two neighbouring axes are one: heads and examples."""
    pairs = range(len(shape) - 1)
    return [shape, *((*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]) for axis in pairs)]


def once(array: Array) -> Array:
    """What an array repeats along its first axis, if it does: a mask that was tiled for each head."""
    length = len(array) if array.ndim else 0
    for count in range(length, 1, -1):
        if length % count == 0:
            parts = array.reshape(count, length // count, *array.shape[1:])
            if np.array_equal(parts[0], parts[1]) and bool((parts == parts[:1]).all()):
                return np.asarray(parts[0])
    return array


def _agree(one: Array, other: Array, close: float) -> bool:
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    with np.errstate(invalid="ignore", over="ignore"):
        scale = max(float(np.abs(one).max()), float(np.abs(other).max()))
        if not np.isfinite(scale):
            return bool(np.array_equal(one, other))
        masked = np.abs(one) > scale / 2
        rest = one[~masked]
        if (
            0 < float(np.abs(rest).max(initial=0.0)) <= MASKED * scale
            and np.array_equal(masked, np.abs(other) > scale / 2)
            and not _agree(rest, other[~masked], close)
        ):
            return False
        return bool(float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) <= close * scale)


def telling(array: Array) -> bool:
    """Whether agreeing with this array says something: not a constant."""
    return array.size > 1 and bool((array != array.flat[0]).any())


def comparable(array: Array) -> bool:
    """Whether an array can have a partner: numbers or bools, not nan."""
    return array.size > 0 and array.dtype.kind in "fiub" and not bool(np.isnan(array).any())


class Index:
    """Nodes by value: floating ones up to rounding, integers and bools exactly, in any layout."""

    def __init__(self, nodes: Iterable[Valued]) -> None:
        self._by_size: dict[tuple[bool, int], list[tuple[float, int, Valued]]] = {}
        for number, node in enumerate(nodes):
            value = np.asarray(node.value)
            if comparable(value):
                self._by_size.setdefault(_group(value), []).append((_norm(value), number, node))
        for row in self._by_size.values():
            row.sort(key=lambda each: each[:2])

    def find(self, value: Array, close: float = CLOSE) -> list[str]:
        """Names of the nodes with this value, in order of computation."""
        if not comparable(value):
            return []
        row = self._by_size.get(_group(value), [])
        norm = _norm(value)
        reach = 4 * close * norm if np.isfinite(norm) else 0.0
        first = bisect_left(row, norm - reach, key=lambda each: each[0])
        last = bisect_right(row, norm + reach, key=lambda each: each[0])
        near = sorted(row[first:last], key=lambda each: each[1])
        return [node.name for _, _, node in near if agree(np.asarray(node.value), value, close)]


class _Once:
    """A node by what its value repeats."""

    def __init__(self, node: Valued) -> None:
        self.name, self.kind, self.inputs, self.value = node.name, node.kind, node.inputs, once(np.asarray(node.value))


def _group(value: Array) -> tuple[bool, int]:
    return value.dtype.kind == "f", value.size


def _norm(value: Array) -> float:
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.square(value.reshape(-1).astype(np.float64)).mean()))


def matched(legacy: Sequence[Valued], modern: Sequence[Valued], close: float = CLOSE) -> dict[str, str]:
    """Modern node -> the legacy node of the same value; constants have none.

    A value that one side repeats is the other side's that does not. Of several legacy nodes with the value, the one
    that comes next in order is taken. Nodes of two loops in different iterations are no partners: a sequence that is
    read from its end has the same values in another order.
    """
    index, repeated = Index(legacy), Index(_Once(node) for node in legacy)
    place = {node.name: number for number, node in enumerate(legacy)}
    found: dict[str, str] = {}
    last = -1
    for node in modern:
        value = np.asarray(node.value)
        names = index.find(value, close) if telling(value) or (value.size == 1 and value.dtype.kind == "f") else []
        if not names and telling(part := once(value)):
            names = repeated.find(part, close)
        names = [name for name in names if _beside(name, node.name)]
        if names:
            name = next((each for each in names if place[each] > last), names[0])
            found[node.name] = name
            last = max(last, place[name])
    return found


def _beside(one: str, other: str) -> bool:
    """Whether two nodes may be partners: not in different iterations of two loops."""
    left, right = _ITERATION.search(one), _ITERATION.search(other)
    return left is None or right is None or left[1] == right[1]


def apart(nodes: Sequence[Valued], partners: Mapping[str, str] | set[str]) -> list[Valued]:
    """The nodes without a partner from which no node with a partner is computed, in order.

    What one framework computes on its way and the other does not (a reciprocal square root, a fused bias) has no
    partner either, but what is computed from it has. A comparison's partner says nothing of the numbers that it was
    computed from: twice a number has its sign. Nor does the partner of one part of a node, where another part has none;
    a product is a part of a factor that the other factor's zeros hide.
    """
    healed = _healed(nodes, partners, frozenset())
    parts: dict[str, list[Valued]] = {}
    readers: dict[str, list[Valued]] = {}
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        spoken = _speaks(np.asarray(node.value))
        for name in node.inputs:
            readers.setdefault(name, []).extend([node] if spoken else [])
            if node.kind in SELECTING:
                parts.setdefault(name, []).extend([node] if spoken else [])
            elif name in by_name and _hides(node, by_name[name]):
                parts[name] = readers[name]
    known = healed | set(partners)
    torn = frozenset(name for name, found in parts.items() if any(part.name not in known for part in found))
    if torn:
        healed = _healed(nodes, partners, torn)
    return [
        node
        for node in nodes
        if node.name not in partners and node.name not in healed and _speaks(np.asarray(node.value))
    ]


def _healed(nodes: Sequence[Valued], partners: Mapping[str, str] | set[str], torn: frozenset[str]) -> set[str]:
    """The nodes from which one with a partner is computed; a part says nothing of those that are `torn`."""
    by_name = {node.name: node for node in nodes}
    healed: set[str] = set()
    for node in reversed(nodes):
        if node.name in partners or node.name in healed:
            compares = node.name not in healed and np.asarray(node.value).dtype.kind == "b"
            healed.update(
                name
                for name in node.inputs
                if name in by_name
                and not (compares and np.asarray(by_name[name].value).dtype.kind != "b")
                and not (name in torn and (node.kind in SELECTING or _hides(node, by_name[name])))
            )
    return healed


def _hides(product: Valued, factor: Valued) -> bool:
    """Whether a product is 0 where one of its factors is not."""
    if product.kind != "Mul":
        return False
    value, other = np.asarray(product.value), np.asarray(factor.value)
    return value.shape == other.shape and bool(((value == 0) & (other != 0)).any())


def first_apart(nodes: Sequence[Valued], partners: Mapping[str, str] | set[str]) -> Valued | None:
    """The first of those that are `apart`; None where there is none."""
    return next(iter(apart(nodes, partners)), None)


def _speaks(value: Array) -> bool:
    """Whether a value could have a partner at all: a single integer or bool, such as a count, may be anything."""
    return value.size > 0 and (value.dtype.kind == "f" or (value.dtype.kind in "iub" and value.size > 1))
