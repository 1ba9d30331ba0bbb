"""Beyond the last step: what depends on a counter, as a function of that counter, up to ten million.

N steps prove N steps. A schedule, a warm-up or the decay of an average may go another way later. Both sides are loaded
with one state whose counters are set to 0, 1, 2, 3, N and then geometrically far; at each value the optimizers' numbers
are read, one step is made, and what it does is compared. Between values at which one side's rate changes, the first
change is sought, since two piecewise rates may differ at one step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.checking.counters import Track
from tfport.checking.lazy import Lazy, located
from tfport.checking.measure import paired, some
from tfport.checking.observe import probe_state
from tfport.checking.report import Location
from tfport.checking.sides import COUNTER, Names, Side, is_variable
from tfport.checking.store import Kept, Place, Store
from tfport.equivalence.distance import farthest, magnitude
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.result import Divergence
from tfport.program import FURTHEST, Batch

if TYPE_CHECKING:
    from tfport.checking.record import Record
    from tfport.checking.session import Session

Array = np.ndarray[Any, Any]
SEARCHED = 16 << 20
"""Bytes of a state up to which changes of a rate between two values are sought."""
KEPT = 512 << 20
"""Bytes of states that are kept of the values looked at; beyond it fewer values have a step made."""
_FAR = (11, 31, 101, 307, 1_009, 3_001, 10_007, 30_011, 100_003, 300_007, 1_000_003, 3_000_017)
"""Values far apart, primes: schedules have round periods, and at a multiple of one a restart looks like none."""
RATE = 2.0**-16
"""Relative difference of two rates that rounding may leave: exponentials lose digits to their exponent."""
RATE_FLOOR = 2.0**-20
"""The same as a share of the largest rate: what decays to nothing does so by cancellation."""
STEP = 2.0**-12
"""Difference of what a step adds, as a share of it, that rounding may leave: 1 - decay loses digits in float32."""
STEP_FLOOR = 2.0**-20
"""The same as a share of the tensor."""
NEAR = 0.99
"""Where the bits part no earlier than at this share of the first clear difference, that is where the sides part."""
EARLY = 16.0
"""How many times more apart than at the steps that were proven two sides may be later."""


@dataclass
class Far:
    """What one side does at one value of its counters."""

    numbers: dict[str, float]
    """ "<optimizer>/<number>" -> value."""
    after: Kept
    """The state after one step, without counters."""


@dataclass
class Horizon:
    """What one side does at all values that were looked at."""

    base: Kept
    """The state whose counters are set."""
    tracks: dict[str, Track]
    """Shared state name -> what it does in training; those of the legacy side."""
    at: dict[int, Far] = field(default_factory=dict)
    constant: bool = False
    """Whether nothing depended on the counters at the values that were looked at first."""
    reach: int = 0
    """The furthest value that was compared."""
    unseen: str = ""
    """Why nothing beyond the last step was seen."""
    loose: set[str] = field(default_factory=set)
    """Numbers that a step assigns, so that a state does not tell them."""
    parts: tuple[int, int] | None = None
    """The last value at which the sides agree, and the next that was looked at, at which they do not."""


@dataclass(frozen=True)
class Parting:
    """Where two sides part beyond the last step."""

    text: str
    divergence: Divergence
    location: Location
    agreed: int
    """The last value at which they are known to agree."""


class _At(Lazy):
    """A state with its counters set."""

    def __init__(self, base: Mapping[str, Array], tracks: Mapping[str, Track], count: int, precision: str) -> None:
        super().__init__(base)
        self._base, self._tracks, self._count, self._precision = base, tracks, count, precision

    def __getitem__(self, name: str) -> Array:
        array = np.asarray(self._base[name])
        track = self._tracks.get(name)
        if track is not None:
            return track.counted_to(self._count)
        return array.astype(self._precision) if array.dtype.kind == "f" else array

    def located(self, name: str) -> Place | None:
        """Its place in the base, unless it is set or has another precision."""
        place = None if name in self._tracks else located(self._base, name)
        kind = np.dtype(place.dtype) if place else None
        return None if kind is None or (kind.kind == "f" and kind != self._precision) else place


def values(steps: int) -> tuple[list[int], list[int]]:
    """The values that are looked at first, and the rest."""
    first = sorted({0, 1, 2, 3, steps, *_FAR[4::4], FURTHEST})
    return first, sorted(set(_FAR) - set(first))


def recorded(session: Session, side: Side, record: Record) -> Horizon:
    """The legacy side at all values, from its warm state; the variables that no optimizer holds are moved apart."""
    states = record.trajectory.states
    still = record.stills[1]
    loose = [each.name for each in record.variables if not each.optimizers]
    base = session.store.keep(probe_state(still.state, loose, session.order.seed))
    tracks = {}
    for name in record.initial:
        if _counts(name):
            track = Track({step: np.asarray(states[step][name]) for step in sorted(states)})
            if track.counts:
                tracks[name] = track
    found = Horizon(base, tracks)
    batch = session.batches(side.program)[still.step]
    if not _finite(_look(session.store, side, found, 0, batch, still.step)):
        found.base = still.state
    found.unseen = _in_python(side) or ("" if tracks else "the legacy side has no counter that can be set")
    if found.unseen:
        found.at[0] = _look(session.store, side, found, 0, batch, still.step)
        found.constant = True
        return found
    size = sum(array.nbytes for array in base.values())

    def look(count: int) -> None:
        if count not in found.at and count <= side.program.furthest:
            found.at[count] = _look(session.store, side, found, count, batch, still.step)

    first, rest = values(session.order.steps)
    for count in first:
        look(count)
    found.loose = _assigned(side, found, still.step)
    found.constant = _constant(found.at)
    if not found.constant:
        for count in rest if len(rest) * size <= KEPT else rest[1::4]:
            look(count)
        if size <= SEARCHED:
            for count in _changes(found, lambda count: _numbers(side, found, count, still.step)):
                look(count)
    return found


def held(session: Session, side: Side, record: Record, names: Names, unstable: set[str]) -> Horizon:
    """The modern side at the values at which the legacy side was looked at; see where they part."""
    legacy = record.horizon
    assert legacy is not None
    found = Horizon(legacy.base, legacy.tracks, unseen=legacy.unseen)
    still = record.stills[1]
    batch = session.batches(side.program)[still.step]
    first, rest = values(session.order.steps)
    counts = [count for count in (*first, *rest) if count <= side.program.furthest]
    if not legacy.constant:
        counts = [count for count in sorted(legacy.at) if count <= side.program.furthest]
    for count in counts:
        found.at[count] = _look(session.store, side, found, count, batch, still.step)
        if legacy.constant and count == first[-1] and _constant(found.at):
            break
    found.loose = _assigned(side, found, still.step)
    settable = [own for own in side.state_names if side.shared(own) in legacy.tracks or _moves(names, own)]
    found.unseen = found.unseen or _in_python(side)
    if not settable and not legacy.constant:
        found.unseen = found.unseen or "the modern side has no counter that can be set"
    if found.unseen:
        return found
    compare = _Comparison(legacy, found, session.order.steps, unstable, record.sampled)
    agreed = 0
    for count in sorted(found.at):
        if compare.apart(count) is not None:
            if count > session.order.steps:
                found.parts = agreed, count
            break
        agreed = found.reach = count
    if side.program.furthest < FURTHEST and found.parts is None:
        found.unseen = f"a scheduler of the modern side is followed up to step {found.reach:,} only"
    return found


def _in_python(side: Side) -> str:
    """Why counters cannot be set where the code counts in Python; empty where it does not."""
    counted = side.program.counted_in_python()
    return f"the {side.role} side counts in Python ({some(counted)}), which nothing can set" if counted else ""


def _moves(names: Names, own: str) -> bool:
    track = names.tracks.get(own)
    return track is not None and track.counts


def _counts(name: str) -> bool:
    return name.startswith(COUNTER) or name.endswith("/iterations")


def _look(store: Store, side: Side, horizon: Horizon, count: int, batch: Batch, step: int) -> Far:
    """One value: the numbers, and one step with the draws of `step`."""
    numbers = _numbers(side, horizon, count, step)
    side.step(batch)
    arrays = side.state().arrays
    return Far(numbers, store.keep({name: arrays[name] for name in arrays if not _counts(name)}))


def _numbers(side: Side, horizon: Horizon, count: int, step: int) -> dict[str, float]:
    side.at(count)  # by which counters without a partner are set
    side.load(_At(horizon.base, horizon.tracks, count, side.program.precision))
    side.at(step)
    return {f"{each.name}/{name}": value for each in side.optimizers() for name, value in each.hyperparameters.items()}


def _assigned(side: Side, horizon: Horizon, step: int) -> set[str]:
    """Numbers that are not what they were at the first value, now that steps have been made at others."""
    again = _numbers(side, horizon, min(horizon.at), step)
    before = horizon.at[min(horizon.at)].numbers
    return {name for name in again if again[name] != before.get(name)}


def _finite(far: Far) -> bool:
    return all(np.isfinite(array).all() for array in far.after.values() if array.dtype.kind == "f")


def _constant(at: Mapping[int, Far]) -> bool:
    one, *others = at.values()
    return all(each.numbers == one.numbers and not each.after.changed(one.after) for each in others)


def _changes(horizon: Horizon, numbers: Callable[[int], dict[str, float]]) -> list[int]:
    """Where the numbers first change between two values, with the steps beside it, unless every step changes them."""
    found: list[int] = []
    counts = sorted(horizon.at)
    for low, high in pairwise(counts):
        begin = horizon.at[low].numbers
        if high - low < 2 or horizon.at[high].numbers == begin:
            continue
        if numbers(low + 1) != begin:
            continue
        one, other = low + 1, high
        while other - one > 1:
            middle = (one + other) // 2
            one, other = (middle, other) if numbers(middle) == begin else (one, middle)
        found += [one, other, other + 1]
    return found


class _Comparison:
    """Both sides at the values that both were looked at."""

    def __init__(
        self, legacy: Horizon, modern: Horizon, steps: int, unstable: set[str], sampled: set[str] | None
    ) -> None:
        self.legacy, self.modern = legacy, modern
        self.unstable, self.sampled = unstable, sampled
        base = legacy.base
        self.scale = max(
            (
                float(np.abs(base[name]).max(initial=0))
                for name in base
                if is_variable(name) and base[name].dtype.kind == "f"
            ),
            default=0.0,
        )
        self.rates = {
            name: max(abs(each.numbers.get(name, 0.0)) for each in legacy.at.values())
            for name in next(iter(legacy.at.values())).numbers
        }
        early = [count for count in modern.at if count <= steps]
        loose = legacy.loose | modern.loose
        self.known = {
            name for name in self.rates.keys() - loose if all(self._rate(name, count) is None for count in early)
        }
        self.early: dict[str, float] = {}
        for count in early:
            for name, share in self._shares(count):
                self.early[name] = max(self.early.get(name, 0.0), share)

    def _sides(self, count: int) -> tuple[Far, Far]:
        legacy = self.legacy.at[0] if self.legacy.constant else self.legacy.at[count]
        return legacy, self.modern.at[count]

    def _rate(self, name: str, count: int, floor: float = RATE_FLOOR) -> tuple[float, float] | None:
        """A number's two values where they differ by more than rounding; None where they do not."""
        one, other = (each.numbers.get(name) for each in self._sides(count))
        if one is None or other is None:
            return None
        largest = max(abs(one), abs(other))
        apart = abs(one - other)
        return (one, other) if apart > RATE * largest + floor * self.rates[name] or math.isnan(apart) else None

    def _shares(self, count: int) -> list[tuple[str, float]]:
        """Tensors that are farther apart than their floor, by how much more as a share of what the step adds."""
        left, right = (each.after for each in self._sides(count))
        found = []
        for name in left:
            if name not in right or not paired(name) or name in self.unstable or left.same(name, right):
                continue
            if self.sampled is not None and name not in self.sampled:
                continue
            one, other = left[name], right[name]
            if one.dtype.kind != "f" or one.shape != other.shape or not np.isfinite(one).all():
                continue
            before = self.legacy.base[name]
            with np.errstate(invalid="ignore", over="ignore"):
                apart, added = farthest(one, other), farthest(one, before)
            floor = STEP_FLOOR * max(magnitude(one), magnitude(before))
            floor = max(floor, STEP_FLOOR / 4 * self.scale if is_variable(name) else 0.0)
            if not apart <= floor:
                found.append((name, (apart - floor) / added if added else math.inf))
        return found

    def apart(self, count: int) -> tuple[str, float, float] | str | None:
        """What differs there: a number with both values, else a tensor; None where nothing does."""
        for name in self.known:
            both = self._rate(name, count)
            if both is not None:
                return name, *both
        worst = [
            (share, name)
            for name, share in self._shares(count)
            if not share <= max(STEP, EARLY * self.early.get(name, 0.0))
        ]
        return max(worst, key=lambda each: (is_variable(each[1]), each[0]))[1] if worst else None

    def agrees(self, what: tuple[str, float, float] | str, count: int) -> bool:
        """Whether it is one number, or one step, there, and not only too small to be told apart, or nothing."""
        if not isinstance(what, str):
            return self._sides(count)[0].numbers[what[0]] != 0 and self._rate(what[0], count, 0.0) is None
        left, right = (each.after[what].astype(np.float64) for each in self._sides(count))
        added = float(np.abs(left - self.legacy.base[what]).max(initial=0))
        return bool(added and np.abs(left - right).max(initial=0) <= STEP * added)

    def gap(self, what: tuple[str, float, float] | str, count: int) -> float:
        """How far apart it is there."""
        left, right = self._sides(count)
        if not isinstance(what, str):
            return abs(left.numbers[what[0]] - right.numbers[what[0]])
        return farthest(left.after[what], right.after[what])

    def same(self, what: tuple[str, float, float] | str, count: int) -> bool:
        """Whether it is one number, or one tensor after a step, to the bit."""
        left, right = self._sides(count)
        if not isinstance(what, str):
            return left.numbers[what[0]] == right.numbers[what[0]]
        return left.after.same(what, right.after)


def widely(session: Session, record: Record) -> Horizon | None:
    """The legacy side in float64 at the values that it was looked at in float32; None where it has no float64."""
    seen, still = record.horizon, record.stills[1]
    assert seen is not None
    found = Horizon(seen.base, seen.tracks, constant=seen.constant)
    try:
        with session.timed("horizon"), session.opened("legacy", "float64") as program:
            side = session.side(program, "legacy")
            batch = session.batches(program)[still.step]
            for count in sorted(seen.at):
                found.at[count] = _look(session.store, side, found, count, batch, still.step)
    except Exception:  # whatever stops float64, float32 has been looked at
        return None
    return found


def settled(
    session: Session,
    record: Record,
    seen: Horizon,
    names: Names,
    unstable: set[str],
    known: Mapping[str, Horizon | None] | None,
) -> Parting | None:
    """The first value at which the sides part, and how; None where float64 shows that it was rounding.

    Args:
      session: the check.
      record: of the legacy side, in float32.
      seen: of the modern side, with the values between which it parts.
      names: of the modern side.
      unstable: state names that do not repeat.
      known: precision -> what is recorded of the legacy side; None where it can be run.
    """
    assert record.horizon is not None and seen.parts is not None
    loose = record.horizon.loose | seen.loose
    with _Both(session, record, names, "float32", unstable, loose, known) as both:
        try:
            first, last = _between(both, seen, *seen.parts)
            clear = first if both.apart(first) is not None else min(last, seen.parts[1])
            parting = Parting(*both.told(first, last, clear), first - 1)
        except Unrecorded:
            clear = seen.parts[1]
            parting = Parting(*both.told(clear, FURTHEST, clear, seen.parts[0]), seen.parts[0])
    try:
        with _Both(session, record, names, "float64", unstable, loose, known) as both:
            return parting if both.apart(clear) is not None else None
    except Exception:  # whatever stops float64, float32 has shown it
        return parting


def _between(both: _Both, seen: Horizon, low: int, high: int) -> tuple[int, int]:
    """The first value at which the sides part, and the last one from there on; FURTHEST where that has no end."""
    first = _bisected(low, high, lambda count: both.apart(count) is not None)
    what = both.apart(first)
    assert what is not None
    if both.comparison(low).same(what, low):
        bits = _bisected(low, first, lambda count: not both.comparison(count).same(what, count))
        first = bits if bits >= NEAR * first else first
    later = [count for count in sorted({*seen.at, high, FURTHEST}) if count >= high]
    agree = next((each for each in (first + 1, *later) if each > first and both.comparison(each).agrees(what, each)), 0)
    if not agree:
        return first, FURTHEST
    known = max((count for count in (first, *later) if first <= count < agree), default=first)
    again = _bisected(known, agree, lambda count: both.comparison(count).agrees(what, count))
    beyond = [*(again + more for more in (1, 11, 101, 1_009)), *(count for count in _FAR if count > again), FURTHEST]
    lasting = all(both.comparison(count).agrees(what, count) for count in beyond if count <= FURTHEST)
    return first, again - 1 if lasting else FURTHEST


def _bisected(low: int, high: int, there: Callable[[int], bool]) -> int:
    """The first value above `low` at which something holds, that does at `high` and not at `low`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if there(middle) else (middle, high)
    return high


class Unrecorded(Exception):
    """The legacy side is a record, which holds nothing of a value."""


class _Both:
    """Both sides open at once, in one precision; a legacy side that is a record at the values that it holds."""

    def __init__(
        self,
        session: Session,
        record: Record,
        names: Names,
        precision: str,
        unstable: set[str],
        loose: set[str],
        known: Mapping[str, Horizon | None] | None,
    ) -> None:
        self.session, self.record, self.names, self.precision = session, record, names, precision
        self.unstable, self.loose, self.known = unstable, loose, known

    def __enter__(self) -> _Both:
        session, record = self.session, self.record
        assert record.horizon is not None
        base = record.horizon.base
        self.horizons = [Horizon(base, record.horizon.tracks, loose=self.loose) for _ in ("legacy", "modern")]
        self._stack = ExitStack()
        try:
            self._stack.enter_context(session.timed("horizon"))
            self.sides: list[Side | None] = []
            for role in ("legacy", "modern"):
                if role == "legacy" and self.known is not None:
                    self.sides.append(None)
                    self.horizons[0] = self._recorded(self.known)
                    continue
                program = self._stack.enter_context(session.opened(role, self.precision))
                self.sides.append(session.side(program, role, self.names if role == "modern" else None))
        except BaseException:
            self._stack.close()
            raise
        early = {0, 1, 2, 3, session.order.steps}
        if self.known is not None and not self.horizons[0].constant:
            early &= self.horizons[0].at.keys()
        for count in sorted(early):
            self._look(count)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()

    def _recorded(self, known: Mapping[str, Horizon | None]) -> Horizon:
        horizon = known[self.precision]
        if horizon is None:
            raise Unrecorded
        return replace(horizon, at=dict(horizon.at), loose=self.loose)

    def _look(self, count: int) -> None:
        still = self.record.stills[1]
        for side, horizon in zip(self.sides, self.horizons, strict=True):
            if side is None:
                self._stand_in(horizon, count)
            elif count not in horizon.at:
                batch = self.session.batches(side.program)[still.step]
                horizon.at[count] = _look(self.session.store, side, horizon, count, batch, still.step)

    def _stand_in(self, horizon: Horizon, count: int) -> None:
        """Takes for a value that no record holds what the nearest ones on both sides of it both show."""
        if horizon.constant:
            horizon.at[count] = horizon.at[0]
        if count in horizon.at:
            return
        low = max((each for each in horizon.at if each < count), default=count)
        high = min((each for each in horizon.at if each > count), default=count)
        if count in (low, high) or not _constant({each: horizon.at[each] for each in (low, high)}):
            raise Unrecorded
        horizon.at[count] = horizon.at[low]

    def comparison(self, count: int) -> _Comparison:
        """Both sides where they were looked at so far, and at one more value."""
        self._look(count)
        legacy, modern = self.horizons
        return _Comparison(legacy, modern, self.session.order.steps, self.unstable, self.record.sampled)

    def apart(self, count: int) -> tuple[str, float, float] | str | None:
        """What differs at a value."""
        return self.comparison(count).apart(count)

    def sharp(self, what: tuple[str, float, float] | str, first: int) -> bool:
        """Whether the sides part right there, and not little by little."""
        before, there = (self.comparison(count).gap(what, count) for count in (first - 1, first))
        return there > 2 * before

    def told(self, first: int, last: int, clear: int, agreed: int | None = None) -> tuple[str, Divergence, Location]:
        """What differs from a value on, in a sentence, as a divergence and as a place.

        Args:
          first: the first value at which the sides differ.
          last: the last one from there on; FURTHEST where that has no end.
          clear: one at which the difference is plain.
          agreed: the last value at which they are known to agree, where nothing is known of those behind it.
        """
        found = self.comparison(clear).apart(clear)
        assert found is not None
        about = "" if agreed is not None or (clear == first and self.sharp(found, first)) else "about "
        when = f"from {about}step {first:,} on" if last >= FURTHEST else f"at step {first:,}"
        if first < last < FURTHEST:
            when = f"from {about}step {first:,} to step {last:,}"
        if agreed is not None:
            when = f"from a step between {agreed:,} and {first:,} on"
        there = f", at step {clear:,}" if clear != first else ""
        beyond = f"The {self.session.order.steps:,} steps that were made do not reach it"
        self._look(first)
        legacy, modern = self.horizons
        if not isinstance(found, str):
            name = found[0]
            optimizer, _, number = name.rpartition("/")
            one, other = (each.at[clear].numbers[name] for each in self.horizons)
            text = f"the {number.replace('_', ' ')} differs {when}: {one:.7g} against {other:.7g}{there}"
            divergence = _divergence(first, name, *(each.at[first].numbers[name] for each in self.horizons))
            said = f"Step {first:,}: {text}. {beyond}."
            differing = ((number, f"{one:.9g}", f"{other:.9g}"),)
            nodes = optimizer, "update", optimizer, "update"
            return text, divergence, Location(first, "", *nodes, (), (), (), said, differing=differing)
        before = legacy.base[found]
        moved = [float(np.abs(each.at[clear].after[found].astype(np.float64) - before).max()) for each in self.horizons]
        text = f"what a step adds to {found} differs {when}: up to {moved[0]:.6g} against {moved[1]:.6g}{there}"
        left, right = legacy.at[first].after[found], modern.at[first].after[found]
        divergence = _divergence(first, found, left, right)
        said = (
            f"Step {first:,}: {text}. Look at what depends on a count of steps: a decay, a warm-up, a rate that is "
            f"written out. {beyond}."
        )
        return text, divergence, Location(first, "", found, "update", found, "update", (), ((found, found),), (), said)


def _divergence(step: int, name: str, legacy: Any, modern: Any) -> Divergence:
    """Two numbers, or two tensors, as the divergence of rung 7."""
    measured = RungMeasurement("forced_trajectory")
    measured.add(name, legacy, modern, step, None, {}, "float32")
    assert measured.first is not None
    return measured.first
