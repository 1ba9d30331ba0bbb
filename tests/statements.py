"""Holds what a report of `tfport.check` says against the arrays that it was made of.

    with Witness() as witness:
        report = tfport.check(...)
    assert not witness.false_statements(report)

A Witness copies what both sides showed while they are compared. Nothing here uses the code that found a place: what is
said to agree is compared again, and so is what is said to differ, or to be there on one side only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from unittest import mock

import numpy as np

from tfport.checking import location
from tfport.checking.alignment import MOVEMENT, family
from tfport.checking.observe import KeptNode, Still
from tfport.checking.report import CheckReport, Location
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.result import Divergence

Array = np.ndarray[Any, Any]
CLOSE = {"float32": 2.0**-16, "float64": 2.0**-22}
"""How far apart, as a share of the largest magnitude, two arrays may be that are said to agree."""
RUNG_OF = {"outputs": "forward", "losses": "loss", "gradients": "gradient"}
UPDATES = ("gradient", "update")
"""Kinds of a location that are no node's."""


@dataclass(frozen=True)
class Shown:
    """What a node showed."""

    value: Array
    attributes: Mapping[str, str]
    kind: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """Both sides at one state, in one phase ("" is the inference mode), as they were compared."""

    step: int
    phase: str
    legacy: Mapping[str, Shown]
    modern: Mapping[str, Shown]
    """Name -> a node, or what was fed under that name."""


class Witness:
    """Copies what is compared between its beginning and its end."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.tensors: dict[tuple[str, str, int], list[tuple[Array, Array]]] = {}
        """Rung, tensor and step -> both sides' values, of every precision."""
        self._patches: list[Any] = []

    def __enter__(self) -> Witness:
        locate, of_gradient, of_update = location.locate, location.of_gradient, location.of_update
        add = RungMeasurement.add

        def locating(legacy: Still, modern: Still, *rest: Any, **named: Any) -> Any:
            self._look(legacy, modern)
            return locate(legacy, modern, *rest, **named)

        def of_gradients(legacy: Still, modern: Still, *rest: Any, **named: Any) -> Any:
            self._changes(legacy, modern)
            return of_gradient(legacy, modern, *rest, **named)

        def of_updates(legacy: Still, modern: Still, *rest: Any, **named: Any) -> Any:
            self._changes(legacy, modern)
            return of_update(legacy, modern, *rest, **named)

        def adding(measured: Any, tensor: str, left: Any, right: Any, step: int, *rest: Any, **named: Any) -> Any:
            dtype = rest[2] if len(rest) > 2 else named["dtype"]
            one, other = (each if isinstance(each, np.ndarray) else np.array(each, dtype) for each in (left, right))
            if one.shape == other.shape and one.tobytes() != other.tobytes():
                self.tensors.setdefault((measured.rung, tensor, step), []).append((one.copy(), other.copy()))
            return add(measured, tensor, left, right, step, *rest, **named)

        self._patches = [
            mock.patch.object(location, "locate", locating),
            mock.patch.object(location, "of_gradient", of_gradients),
            mock.patch.object(location, "of_update", of_updates),
            mock.patch.object(RungMeasurement, "add", adding),
        ]
        for each in self._patches:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._patches:
            each.stop()

    def _look(self, legacy: Still, modern: Still) -> None:
        for key in legacy.nodes.keys() & modern.nodes.keys():
            both = [
                {name: Shown(np.array(value), {}) for name, value in still.inputs.items()} | _shown(still.nodes[key])
                for still in (legacy, modern)
            ]
            self.looks.append(Look(legacy.step, "" if key == "inference" else key, *both))

    def _changes(self, legacy: Still, modern: Still) -> None:
        """Gradients and states after a phase, as if they were nodes."""
        for kind in ("gradients", "after"):
            one, other = getattr(legacy, kind), getattr(modern, kind)
            for phase in one.keys() & other.keys():
                both = [
                    {name: Shown(np.array(value), {}) for name, value in each[phase].items()} for each in (one, other)
                ]
                self.looks.append(Look(legacy.step, phase, *both))

    # --- What is false ---
    def false_statements(self, report: CheckReport) -> list[str]:
        """What the report says and the arrays do not, a sentence each."""
        found = []
        for rung in report.pair.rungs if report.pair else ():
            if rung.first_divergence is not None and rung.rung != "repeat":
                found += self._of_divergence(rung.first_divergence)
        if report.location is not None:
            found += self._of_location(report.location)
            found += _of_rungs(report, report.location)
        return found

    def _of_divergence(self, said: Divergence) -> list[str]:
        pairs = self.tensors.get((said.rung, said.tensor, said.step))
        where = f"{said.rung}, step {said.step}, {said.tensor}{list(said.index)}"
        if not pairs:
            return [f"{where} is said to differ, and was not compared or is the same"]
        for one, other in pairs:
            if one.shape != said.shape or one.dtype.name != said.dtype:
                continue
            left, right = float(one[said.index]), float(other[said.index])
            apart = not _same(left, right) or np.signbit(left) != np.signbit(right)
            if _same(left, said.legacy) and _same(right, said.modern) and apart:
                return []
        return [f"{where} is said to be {said.legacy!r} against {said.modern!r}, and is not"]

    def _of_location(self, said: Location) -> list[str]:
        looks = [look for look in self.looks if look.step == said.step and look.phase == said.phase]
        found = []
        for one, other in said.agreeing:
            if not any(_agree(look, one, other) for look in looks):
                found.append(f"{one} and {other} are said to agree, and do not")
        if f"what goes into {said.modern_node} " in said.text:
            found += _inputs(said, looks)
        found += _attributes(said, looks)
        nodes = said.legacy_kind not in UPDATES and said.modern_kind not in UPDATES
        if nodes and said.legacy_node and said.modern_node and not any(_differ(look, said) for look in looks):
            found.append(f"{said.legacy_node} and {said.modern_node} are said to differ, and do not")
        for side in ("legacy", "modern"):
            for name in getattr(said, f"only_{side}"):
                if not any(_only(look, side, name) for look in looks):
                    found.append(f"{name} is said to be only on the {side} side, and the other has its value")
        return found + _neighbours(said, looks)


def _of_rungs(report: CheckReport, said: Location) -> list[str]:
    """What a location says to agree of what rungs compare, held against their verdicts."""
    assert report.pair is not None
    agreeing = re.search(r"phase \S+: ([a-z, ]+) agree,", said.text)
    words = agreeing[1].split(", ") if agreeing else []
    verdicts = {rung.rung: rung.verdict for rung in report.pair.rungs}
    return [
        f"{word} are said to agree, and rung {RUNG_OF[word]} is {verdicts[RUNG_OF[word]]}"
        for word in words
        if word in RUNG_OF and RUNG_OF[word] in verdicts and not verdicts[RUNG_OF[word]].equal
    ]


def _shown(nodes: Sequence[KeptNode]) -> dict[str, Shown]:
    return {node.name: Shown(np.array(node.value), dict(node.attributes), node.kind, node.inputs) for node in nodes}


def _same(one: float, other: float) -> bool:
    return one == other or (np.isnan(one) and np.isnan(other))


def agree(one: Array, other: Array) -> bool:
    """Whether two arrays are one up to rounding: in another order of axes, in another shape, or repeated."""
    if one.size != other.size:
        small, large = sorted((one.reshape(-1), other.reshape(-1)), key=len)
        return (
            small.size > 1 and large.size % small.size == 0 and _close(np.tile(small, large.size // small.size), large)
        )
    return any(
        _close(turned.reshape(-1), still.reshape(-1))
        for array, still in ((one, other), (other, one))
        for turned in _turned(array)
    )


def _turned(array: Array) -> list[Array]:
    """The array with its axes in every order."""
    orders = itertools.permutations(range(array.ndim)) if array.ndim <= 4 else [tuple(range(array.ndim))]
    return [array.transpose(order) for order in orders]


def _close(one: Array, other: Array) -> bool:
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    bound = max(CLOSE.get(one.dtype.name, 2.0**-16), CLOSE.get(other.dtype.name, 2.0**-16))
    scale = max(float(np.abs(one).max(initial=0)), float(np.abs(other).max(initial=0)))
    if not np.isfinite(scale):
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(np.abs(one.astype(float) - other.astype(float)).max(initial=0) <= bound * scale)


def _agree(look: Look, one: str, other: str) -> bool:
    return one in look.legacy and other in look.modern and agree(look.legacy[one].value, look.modern[other].value)


def _differ(look: Look, said: Location) -> bool:
    if said.legacy_node not in look.legacy or said.modern_node not in look.modern:
        return False
    one, other = look.legacy[said.legacy_node].value, look.modern[said.modern_node].value
    return one.shape != other.shape or not np.array_equal(one, other)


def _only(look: Look, side: str, name: str) -> bool:
    """Whether a side has that node, and the other nothing of its value; a constant's value tells nothing.

    Of a node that only moves data, the other side may have the value and not the move.
    """
    own, others = (look.legacy, look.modern) if side == "legacy" else (look.modern, look.legacy)
    if name not in own:
        return False
    value = own[name].value
    if value.size < 2 or (value == value.flat[0]).all():
        return True
    moves = family(own[name].kind) in MOVEMENT
    return not any(agree(value, each.value) and (not moves or each.kind == own[name].kind) for each in others.values())


def _inputs(said: Location, looks: Sequence[Look]) -> list[str]:
    """Whether all that the modern node reads directly, constants left aside, has an equal on the legacy side."""
    missing: list[str] = []
    for look in looks:
        if said.modern_node in look.modern:
            read = {
                name: look.modern[name].value for name in look.modern[said.modern_node].inputs if name in look.modern
            }
            missing = [
                f"what goes into {said.modern_node} is said to agree, and nothing on the legacy side has {name}'s value"
                for name, value in read.items()
                if value.size > 1
                and not (value == value.flat[0]).all()
                and not any(agree(value, each.value) for each in look.legacy.values())
            ]
            if not missing:
                return []
    return missing


def _attributes(said: Location, looks: Sequence[Look]) -> list[str]:
    """What is said of two nodes' attributes, held against those that the nodes have."""
    if said.legacy_kind in UPDATES or not said.differing:
        return []
    for look in looks:
        if said.legacy_node in look.legacy and said.modern_node in look.modern:
            one, other = look.legacy[said.legacy_node].attributes, look.modern[said.modern_node].attributes
            return [
                f"{name} is said to be {left!r} against {right!r}, and is {one.get(name)!r} against {other.get(name)!r}"
                for name, left, right in said.differing
                if one.get(name, "") != left or other.get(name, "") != right or left == right
            ]
    return [f"{said.legacy_node} and {said.modern_node}, whose attributes are said to differ, were not seen"]


def _neighbours(said: Location, looks: Sequence[Look]) -> list[str]:
    """Whether the elements that are printed are those of some tensor that both sides showed there."""
    if not said.neighbours:
        return []
    names = [(said.legacy_node, said.modern_node), *said.variables]
    for look, (one, other) in itertools.product(looks, names):
        if one in look.legacy and other in look.modern:
            left, right = look.legacy[one].value, look.modern[other].value
            if left.size != right.size or (said.neighbours[0].index and left.ndim != len(said.neighbours[0].index)):
                continue
            right = right.reshape(left.shape)
            if all(
                _same(float(left[each.index]), each.legacy) and _same(float(right[each.index]), each.modern)
                for each in said.neighbours
            ):
                return []
    return [
        f"the elements around {said.neighbours[0].index} are no elements of {said.legacy_node} and {said.modern_node}"
    ]
