"""Counters: what a program counts by itself, such as a global step, the updates of an average, or that it has begun.

A counter is a variable of whole numbers or bools, or a floating scalar that no optimizer holds and that every step
moves by the same whole number, or multiplies by the same number: Adam's powers of beta, written by hand. It is part of
the state and compared as a whole number if it is one, and no weight is mapped to it. Names say little of counters, so
those of two sides are paired by what they do over the first steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfport.program import Program
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
WATCHED = 4
"""Steps over which counters are watched."""


@dataclass(frozen=True)
class Track:
    """The values of one counter over a run."""

    values: Mapping[int, Array]
    """How many steps were made -> its value; from 0 on."""

    @property
    def moves(self) -> bool:
        """Whether it changes."""
        first = self.values[0]
        return any(not np.array_equal(each, first) for each in self.values.values())

    @property
    def slope(self) -> int | None:
        """By how much every step moves it; None where that is no one whole number."""
        first = self.values[0]
        steps = sorted(self.values)
        if len(steps) < 2 or first.dtype.kind != "i":
            return None
        slope, rest = divmod(int(self.values[steps[1]].reshape(-1)[0]) - int(first.reshape(-1)[0]), steps[1])
        even = all(np.array_equal(self.values[step], first + slope * step) for step in steps)
        return slope if even and not rest else None

    @property
    def ratio(self) -> float | None:
        """What every step multiplies it by, a number between 0 and 1; None where that is no one number."""
        steps = sorted(self.values)
        values = [float(self.values[step].reshape(-1)[0]) if self.values[step].size == 1 else 0.0 for step in steps]
        if len(steps) < 3 or min(values) <= 0 or values[-1] >= values[0]:
            return None
        ratio = (values[1] / values[0]) ** (1 / (steps[1] - steps[0]))
        ratio = next((near for near in (float(f"{ratio:.4g}"),) if abs(near - ratio) < 1e-6 * ratio), ratio)
        even = all(abs(one - values[0] * ratio**step) <= 1e-5 * one for step, one in zip(steps, values, strict=True))
        return ratio if even else None

    @property
    def counts(self) -> bool:
        """Whether every step does the same to it."""
        return bool(self.slope) or self.ratio is not None

    def at(self, step: int) -> Array:
        """Its value after so many steps, as far as what was seen tells."""
        if self.ratio is not None or step not in self.values:
            return self.counted_to(step)
        return self.values[step]

    def counted_to(self, count: int) -> Array:
        """Its value where so many steps are counted; its last one where nobody knows."""
        if self.ratio is not None:
            return np.asarray(self.values[0] * self.ratio**count)
        slope = self.slope
        return self.values[0] + slope * count if slope is not None else self.values[max(self.values)]


@dataclass(frozen=True)
class Counted:
    """A counter of the modern side that has a partner."""

    shared: str
    """The partner's shared name: a counter's, or an optimizer's count."""
    offset: int = 0
    """By how much the modern side's is ahead from the start on."""


def is_floating(info: VariableInfo) -> bool:
    """Whether a variable may be a weight."""
    return np.dtype(info.dtype).kind == "f"


def as_count(array: Any) -> Array:
    """A counter's value as whole numbers; unchanged where it is none."""
    found: Array = np.asarray(array)
    if found.dtype.kind == "f" and not (np.isfinite(found).all() and np.array_equal(found, np.rint(found))):
        return found
    return found.astype(np.int64)


def watch(program: Program, batches: Sequence[Any], counts: bool = False) -> dict[str, Track]:
    """What the program's counters, and its optimizers' counts, do over a few steps; nothing where it has no counter.

    Args:
      program: ends in the state that it began in.
      batches: one for each step, as the program is fed.
      counts: whether to watch optimizers' counts where there is nothing else to watch.
    """
    infos = program.variables()
    scalars = [each.name for each in infos if is_floating(each) and each.parameters == 1 and not each.optimizers]
    whole = [each.name for each in infos if not is_floating(each)]
    if not (scalars or whole or counts):
        return {}
    start = program.state()
    kept = {name: np.array(start.arrays[name]) for name in start.arrays}
    names = [*whole, *scalars, *(name for name in kept if name.endswith("/iterations"))]
    seen: dict[str, dict[int, Array]] = {name: {0: as_count(kept[name])} for name in names}
    step_before = program.draws.step
    for step, batch in enumerate(batches):
        program.draws.step = step
        program.step(batch)
        arrays = program.state().arrays
        for name in names:
            seen[name][step + 1] = as_count(arrays[name])
    program.draws.step = step_before
    program.load(type(start)(start.model, kept))
    tracks = {name: Track(values) for name, values in seen.items()}
    return {name: track for name, track in tracks.items() if name not in scalars or track.counts}


def pair(legacy: Mapping[str, Track], modern: Mapping[str, Track]) -> dict[str, Counted]:
    """Modern counter -> its partner: one that does the same, else one of the same name.

    Args:
      legacy: shared name -> what it does.
      modern: own name -> what it does.
    """
    found: dict[str, Counted] = {}
    for named, exact in ((True, True), (False, True), (True, False), (False, False)):
        for own, track in modern.items():
            for shared, other in legacy.items():
                if own in found or any(shared == each.shared for each in found.values()):
                    continue
                if (named and _last(own) != _last(shared)) or (not named and not (track.moves and other.moves)):
                    continue
                offset = _offset(other, track)
                if offset is not None and (not exact or offset == 0):
                    found[own] = Counted(shared, offset)
    for own, track in modern.items():
        for shared, other in legacy.items():
            free = own not in found and all(shared != each.shared for each in found.values())
            if free and _last(own) == _last(shared) and track.values[0].shape == other.values[0].shape:
                found[own] = Counted(shared)
    return found


def _offset(legacy: Track, modern: Track) -> int | None:
    """By how much one counter is ahead of another all the time; None where that changes, or shapes differ."""
    if legacy.values[0].shape != modern.values[0].shape:
        return None
    steps = legacy.values.keys() & modern.values.keys()
    if all(np.array_equal(legacy.values[step], modern.values[step]) for step in steps) and len(steps) > 1:
        return 0
    one, other = legacy.slope, modern.slope
    if one is None or one != other or legacy.values[0].ndim:
        return None
    return int(modern.values[0]) - int(legacy.values[0])


def _last(name: str) -> str:
    return name.replace(".", "/").split("/")[-1].lower()
