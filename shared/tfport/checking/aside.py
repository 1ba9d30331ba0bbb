"""What no output reads: averages of weights, and slots that code keeps in variables of its own.

The forward pass cannot tell which of them is which, so their values over a few steps do. An Adam written by hand keeps
m and v in variables, where an optimizer has slots; a momentum may hold gradients on one side and steps, the same times
the rate, on the other. So a variable's partner may be a slot, with a constant factor. What agrees at each step is
taken; of the rest the likeliest, which the update's rung then judges.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfport.checking.sides import Side, Slot, variable_of
from tfport.layouts import MappedVariable, to_legacy
from tfport.program import Node
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
WATCHED = 3
"""Steps over which values are compared."""
_SAME = 1e-3
"""Relative difference up to which values of one step are one: a port's rounding, and more than a step's own changes."""
_LIKELY = 0.7
"""Correlation after one step from which a partner is likely."""
_PROVEN = 2.0
"""Below it a cost says that values agree."""
_DIGITS = 4
"""Significant digits of a factor, or of its inverse: it is a number that somebody wrote."""


def aside(variables: Sequence[VariableInfo], nodes: Iterable[Node | Any], trained: Collection[str]) -> set[str]:
    """Names of the variables that no intermediate reads; none where no intermediate is shown.

    Args:
      variables: a side's.
      nodes: its intermediates.
      trained: names of the variables that have a gradient.
    """
    read = {name for node in nodes for name in node.variables}
    known = read | {each.name for each in variables if each.optimizers} | set(trained)
    return {each.name for each in variables if each.name not in known} if read else set()


@dataclass(frozen=True)
class Partner:
    """A variable or slot of each side, under its own name."""

    legacy: str
    modern: str
    blocks: tuple[MappedVariable, ...]
    """Those of the variable that it belongs to, or its own."""
    factor: float
    """The legacy values, divided by the modern ones."""
    proven: bool
    """Whether the values agree at each step."""


def partners(
    legacy: Mapping[int, Mapping[str, Array]],
    modern: Mapping[int, Mapping[str, Array]],
    mapping: Mapping[str, Sequence[MappedVariable]],
) -> list[Partner]:
    """The partners of what is set aside on both sides.

    Args:
      legacy: number of steps made -> name -> value.
      modern: the same, under the side's own names.
      mapping: own name of a modern variable -> its blocks.
    """
    from scipy.optimize import linear_sum_assignment

    steps = sorted(legacy.keys() & modern.keys())
    if not steps or not legacy[steps[0]] or not modern[steps[0]]:
        return []
    rows, columns = list(modern[steps[0]]), list(legacy[steps[0]])
    found: dict[tuple[int, int], tuple[float, Partner]] = {}
    for row, own in enumerate(rows):
        mine = [np.asarray(modern[step][own], np.float64) for step in steps]
        for column, name in enumerate(columns):
            if own.startswith("optimizer/") and name.startswith("optimizer/"):
                continue  # two optimizers' slots go by their names
            theirs = [np.asarray(legacy[step][name], np.float64) for step in steps]
            for blocks in _layouts(name, own, theirs[0].shape, mine[0].shape, mapping):
                back = [to_legacy([(pair, array) for pair in blocks], weights=False) for array in mine]
                cost, factor = _cost(theirs, back)
                if cost >= _PROVEN and theirs[0].size == 1 and blocks[0].legacy == name:
                    continue  # any number is like any other, and this one belongs to no variable
                if cost < found.get((row, column), (math.inf,))[0]:
                    found[row, column] = cost, Partner(name, own, blocks, factor, cost < _PROVEN)
    costs = np.full((len(rows), len(columns)), 1e6)
    for place, (cost, _) in found.items():
        costs[place] = cost + 0.01 * abs(place[0] / len(rows) - place[1] / len(columns))
    assigned = zip(*linear_sum_assignment(costs), strict=True)
    return [found[row, column][1] for row, column in assigned if costs[row, column] < 100]


def _layouts(
    legacy: str,
    modern: str,
    legacy_shape: tuple[int, ...],
    modern_shape: tuple[int, ...],
    mapping: Mapping[str, Sequence[MappedVariable]],
) -> Iterator[tuple[MappedVariable, ...]]:
    """The ways in which one may hold the other: as the variables do that they belong to."""
    slots = (
        variable_of(legacy) if legacy.startswith("optimizer/") else "",
        (variable_of(modern) if modern.startswith("optimizer/") else ""),
    )
    for own, blocks in mapping.items():
        owner = {pair.legacy for pair in blocks}
        if len(owner) > 1 or any(pair.summed for pair in blocks):
            continue
        if (slots[1] and own != slots[1]) or (slots[0] and owner != {slots[0]}):
            continue
        if (blocks[0].legacy_shape, blocks[0].modern_shape) == (legacy_shape, modern_shape):
            yield tuple(replace(pair, offset=0.0, ambiguous=()) for pair in blocks)
    if not any(slots) and legacy_shape == modern_shape:
        yield (MappedVariable(legacy, modern, legacy_shape, modern_shape),)


def _cost(legacy: Sequence[Array], modern: Sequence[Array]) -> tuple[float, float]:
    """How unlikely it is that two are one, and the factor between them; below `_PROVEN` their values agree."""
    if all(_apart(one, other) <= _SAME for one, other in zip(legacy, modern, strict=True)):
        moves = any(np.any(each != legacy[0]) for each in legacy) or bool(np.any(legacy[0]))
        return (0.0 if moves else 1.5), 1.0
    one, other = legacy[-1].ravel(), modern[-1].ravel()
    square = float(other @ other)
    factor = _written(float(one @ other) / square) if square else 0.0
    scaled = zip(legacy, (factor * each for each in modern), strict=True)
    if factor and len(legacy) > 1 and all(_apart(*both) <= _SAME for both in scaled):
        return 1.0 + 0.1 * abs(math.log10(abs(factor))), factor
    likeness = _correlation(legacy[0].ravel(), modern[0].ravel())
    if likeness < _LIKELY:
        return 1e6, 1.0
    sizes = [float(np.abs(each).max(initial=0.0)) or 1.0 for each in (legacy[0], modern[0])]
    return 10.0 + 10.0 * (1.0 - likeness) + abs(math.log10(sizes[0] / sizes[1])), 1.0


def _apart(one: Array, other: Array) -> float:
    scale = max(float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return float(np.abs(one - other).max(initial=0.0)) / scale if scale else 0.0


def _written(factor: float) -> float:
    """The number of few digits that a factor, or its inverse, is but for rounding; 0 where it is none."""
    if not factor or not math.isfinite(factor):
        return 0.0
    for number, turned in ((factor, False), (1.0 / factor, True)):
        near = float(f"{number:.{_DIGITS - 1}e}")
        if abs(near - number) <= 1e-5 * abs(number):
            return 1.0 / near if turned else near
    return 0.0


def _correlation(one: Array, other: Array) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return abs(float(one @ other)) / size if size else 0.0


def as_names(found: Sequence[Partner], side: Side) -> tuple[list[MappedVariable], dict[str, Slot]]:
    """Pairs of variables, and what is a slot on one side at least or has a factor, by the modern side's own name."""
    variables: list[MappedVariable] = []
    slots: dict[str, Slot] = {}
    own = {each.name for each in side.own_variables}
    for each in found:
        if each.modern in own and each.factor == 1.0 and not each.legacy.startswith("optimizer/"):
            reason = f"the values of {WATCHED} steps" if each.proven else "the likeliest by the values of a step"
            variables += [replace(pair, legacy=each.legacy, modern=each.modern, reason=reason) for pair in each.blocks]
        else:
            slots[each.modern] = Slot(each.legacy, each.blocks, each.factor)
    return variables, slots


def told(slots: Mapping[str, Slot], unproven: Collection[str]) -> list[str]:
    """What a person should know of variables that stand for slots."""
    notes = []
    for proven in (True, False):
        pairs = [
            f"{slot.shared.removeprefix('optimizer/')} is {own.removeprefix('optimizer/')}"
            + (f" times {slot.factor:g}" if slot.factor != 1 else "")
            for own, slot in slots.items()
            if (own not in unproven) is proven
        ]
        if pairs:
            how = "by their values over some steps" if proven else "as the likeliest, since no values agree"
            notes.append(f"slots that one side keeps by hand were paired {how}: {', '.join(pairs)}")
    return notes
