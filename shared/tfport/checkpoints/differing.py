"""How two checkpoints of any formats differ: which names, shapes and dtypes, and how far apart the values are.

Tensors are paired by canonical name and read side by side, block by block; memory does not grow with their size.

What counts as a difference:

* a name that one side lacks, unless it is bookkeeping (object graphs, save counters), a hyperparameter that is kept as
  a tensor, or a beta power that agrees with the other side's count;
* another shape, or another dtype; not another dtype of a count of updates of the same value;
* values that differ by more than the tolerance, which is in units in the last place (ulp) and holds for floats only;
  NaN and infinity are within no tolerance;
* optimizers whose algorithm or recorded hyperparameters differ, and counts that cannot be held against each other.
"""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tfport import adam
from tfport.checkpoints import inspecting
from tfport.checkpoints.contents import STRING, Array, Contents, Entry, OptimizerEntry, Role, Source, numpy_dtype
from tfport.checkpoints.inspecting import Number, Progress, blocks, shortest
from tfport.checkpoints.opening import FORMATS
from tfport.equivalence.distance import ulps
from tfport.equivalence.result import plain
from tfport.errors import UserError

SCHEMA = 1
"""Of the JSON that `Difference.as_json` makes."""

MOMENTUM_ULP = 2
"""Units in the last place that one product and one quotient by a learning rate may move a value."""

_WIDE = 2.0**1022
"""From here on the difference of two float64 may overflow."""
_OF_OPTIMIZERS = (Role.SLOT, Role.COUNT, Role.POWER, Role.HYPERPARAMETER)


class Status(enum.StrEnum):
    """What became of a pair of tensors."""

    IDENTICAL = "identical"
    CLOSE = "close"
    """They differ, and it does not count."""
    DIFFERENT = "different"


@dataclass(frozen=True)
class Place:
    """A distance, and the element at which it is."""

    distance: Number
    index: tuple[int, ...]
    left: Number | str
    right: Number | str


@dataclass(frozen=True)
class TensorDifference:
    """One pair of tensors of a name."""

    name: str
    role: Role
    left_key: str
    right_key: str
    left_shape: tuple[int, ...]
    right_shape: tuple[int, ...]
    left_dtype: str
    right_dtype: str
    status: Status
    elements: int
    differing: int = 0
    """Elements that are not the same bits; of two dtypes, not the same value."""
    absolute: Place | None = None
    """The largest |left - right|, of elements that are finite on both sides."""
    relative: Place | None = None
    """The largest |left - right| / max(|left|, |right|), of the same."""
    ulp: Place | None = None
    """The largest distance in units in the last place: of the dtype, or of the one with the fewer digits where they
    differ; None where either is no float."""
    broken: Place | None = None
    """The first element that is NaN or infinite on one side, or NaN on both with other bits."""
    nan: int = 0
    """Elements that are NaN on one side only."""
    nan_bits: int = 0
    """Elements that are NaN on both sides, with other bits."""
    infinite: int = 0
    """Elements that are infinite on one side, or on both with another sign."""
    zero_signs: int = 0
    """Elements that are zero on both sides, with another sign."""
    notes: tuple[str, ...] = ()

    @property
    def shapes_differ(self) -> bool:
        """Whether the values cannot be laid side by side."""
        return self.left_shape != self.right_shape


@dataclass(frozen=True)
class OnlyOne:
    """A tensor that one side lacks."""

    name: str
    key: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    counts: bool
    """Whether it is a difference."""
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Something about a side or an optimizer, as one sentence."""

    text: str
    counts: bool
    """Whether it is a difference."""


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints."""

    path: str
    format: str
    format_name: str
    tensors: int
    """Stored in it, whether or not they were looked at."""


@dataclass(frozen=True)
class Difference:
    """Everything that `tfport diff` tells."""

    left: Side
    right: Side
    tolerance_ulp: int
    tensors: tuple[TensorDifference, ...]
    """Every pair, the worst first, identical ones last."""
    only_left: tuple[OnlyOne, ...]
    only_right: tuple[OnlyOne, ...]
    copies: tuple[Finding, ...]
    """Names that one file holds several times, with values that are not the same."""
    optimizers: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    """Patterns of the names that were looked at; all names where there are none."""
    ignore_optimizers: bool = False

    @property
    def same(self) -> bool:
        """Whether nothing that counts differs."""
        return not (
            any(each.status is Status.DIFFERENT for each in self.tensors)
            or any(each.counts for each in (*self.only_left, *self.only_right))
            or any(each.counts for each in (*self.copies, *self.optimizers))
        )

    @property
    def identical(self) -> int:
        """Pairs of the same bits."""
        return sum(each.status is Status.IDENTICAL for each in self.tensors)

    def as_json(self) -> dict[str, Any]:
        """A tree of JSON values, schema 1; numbers that are not finite become strings ("nan", "inf")."""
        return {"schema": SCHEMA, "same": self.same, **plain(asdict(self))}


@dataclass(frozen=True)
class Options:
    """What is looked at, and what counts."""

    only: tuple[str, ...] = ()
    """Patterns of canonical names, with *, ? and [...]; all names where there are none."""
    tolerance_ulp: int = 0
    ignore_optimizers: bool = False

    def takes(self, entry: Entry) -> bool:
        """Whether a tensor is looked at."""
        if self.ignore_optimizers and entry.optimizer and entry.role in _OF_OPTIMIZERS:
            return False
        return not self.only or any(fnmatch.fnmatchcase(entry.name, each) for each in self.only)

    def takes_optimizer(self, name: str, seen: Iterable[Entry]) -> bool:
        """Whether an optimizer is looked at: some tensor of it is, or its own name is among those asked for."""
        if self.ignore_optimizers:
            return False
        held = any(entry.optimizer == name for entry in seen)
        return not self.only or held or any(fnmatch.fnmatchcase(f"optimizer/{name}", each) for each in self.only)


# --- The two sides ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Opened:
    """One side with what its tensors are."""

    label: str
    source: Source
    contents: Contents
    every: tuple[Entry, ...]
    names: dict[str, list[Entry]]
    """Of the tensors that are looked at."""

    def entries(self) -> Iterator[Entry]:
        """The tensors that are looked at."""
        for held in self.names.values():
            yield from held

    def optimizer(self, name: str) -> OptimizerEntry | None:
        """The optimizer of that name, where the contents tell of it."""
        return next((each for each in self.contents.optimizers if each.name == name), None)

    def counts(self, optimizer: str) -> list[Number]:
        """The optimizer's counts of updates, as tensors record them."""
        held = [each for each in self.every if each.role is Role.COUNT and each.optimizer == optimizer]
        found = [inspecting.scalar(self.source, each.key) for each in held]
        return [each for each in found if each is not None]

    def side(self) -> Side:
        source = self.source
        name = FORMATS.get(source.format, source.format)
        return Side(str(source.path), source.format, name, len(source.tensors))


def diff(
    left: Source,
    right: Source,
    options: Options | None = None,
    progress: Callable[[int], Progress] | None = None,
) -> Difference:
    """Compares two open checkpoints.

    Args:
      left: called A in what is told.
      right: called B.
      options: what is looked at; everything, to the bit, when None.
      progress: called once with the number of bytes that will be read; what it returns is told of the bytes as they
        are compared.

    Raises:
      CheckpointError: the data of one is damaged.
      UserError: a pattern fits no name of either.
    """
    options = options or Options()
    a, b = _opened("A", left, options), _opened("B", right, options)
    _check_only(options, a, b)
    pairs = list(_pairs(a, b))
    total = sum(left.tensors[one.key].nbytes + right.tensors[other.key].nbytes for one, other in pairs)
    told = progress(total) if progress is not None else None
    tensors = [_compared(a, b, one, other, options.tolerance_ulp, told) for one, other in pairs]
    settled, of_counts = _held_against(a, b)
    settled_too, of_counts_too = _held_against(b, a)
    settled |= settled_too | _shared_counts(a, b) | _shared_counts(b, a)
    only_left = tuple(_only(a, each, settled) for each in a.entries() if each.name not in b.names)
    only_right = tuple(_only(b, each, settled) for each in b.entries() if each.name not in a.names)
    return Difference(
        left=a.side(),
        right=b.side(),
        tolerance_ulp=options.tolerance_ulp,
        tensors=tuple(sorted(tensors, key=_badness)),
        only_left=only_left,
        only_right=only_right,
        copies=(*_copies(a), *_copies(b)),
        optimizers=(*_optimizers(a, b, options), *of_counts, *of_counts_too),
        notes=tuple(f"{side.label}: {note}" for side in (a, b) for note in side.contents.notes),
        hints=tuple(_hints(only_left, only_right)),
        only=options.only,
        ignore_optimizers=options.ignore_optimizers,
    )


def _opened(label: str, source: Source, options: Options) -> _Opened:
    contents = source.contents()
    every = tuple(inspecting.entries(source, contents).values())
    names: dict[str, list[Entry]] = {}
    for entry in every:
        if options.takes(entry):
            names.setdefault(entry.name, []).append(entry)
    return _Opened(label, source, contents, every, names)


def _check_only(options: Options, a: _Opened, b: _Opened) -> None:
    """Raises UserError for a pattern that fits nothing: a typing error would pass for "the same"."""
    names = {entry.name for side in (a, b) for entry in side.every}
    names |= {f"optimizer/{each.name}" for side in (a, b) for each in side.contents.optimizers}
    for pattern in options.only:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(sorted(names)[:3])
            raise UserError(f"the pattern {pattern!r} fits no name of either checkpoint; names are like {shown}.")


def _pairs(a: _Opened, b: _Opened) -> Iterator[tuple[Entry, Entry]]:
    """Tensors of one name; of a name that several keys hold, every key is in some pair."""
    for name, left in a.names.items():
        right = b.names.get(name, [])
        if not right:
            continue
        by_key = {each.key: each for each in right}
        if len(left) > 1 and {each.key for each in left} == by_key.keys():
            yield from ((each, by_key[each.key]) for each in left)
        else:
            yield from ((each, right[0]) for each in left)
            yield from ((left[0], each) for each in right[1:])


def _only(side: _Opened, entry: Entry, settled: set[tuple[str, str]]) -> OnlyOne:
    stored = side.source.tensors[entry.key]
    note = ""
    if (side.label, entry.key) in settled:
        against = "count" if entry.role is Role.POWER else "beta powers" if entry.optimizer else "optimizers' counts"
        note = f"held against the other side's {against}"
    elif entry.role is Role.OTHER:
        note = "bookkeeping"
    elif entry.role is Role.HYPERPARAMETER:
        note = "a hyperparameter kept as a tensor"
    return OnlyOne(entry.name, entry.key, entry.role, stored.shape, stored.dtype, not note, note)


def _copies(side: _Opened) -> Iterator[Finding]:
    """Names whose copies within one file are not the same bits."""
    for name, held in side.names.items():
        if len(held) > 1 and len({_digest(side.source, each.key) for each in held}) > 1:
            keys = _listed([each.key for each in held])
            yield Finding(f"{side.label} holds {name} {len(held)} times, and not the same each time: {keys}.", False)


def _digest(source: Source, key: str) -> str:
    """SHA-256 over dtype, shape and bytes; one tensor after another, since a source need not serve two at once."""
    stored = source.tensors[key]
    digest = hashlib.sha256(f"{stored.dtype} {stored.shape}\n".encode())
    for chunk in source.chunks(key):
        digest.update(chunk)
    return digest.hexdigest()


# --- Optimizers -------------------------------------------------------------------------------------------------------
def _optimizers(a: _Opened, b: _Opened, options: Options) -> Iterator[Finding]:
    """Algorithms and hyperparameters, as far as both sides record them."""
    seen = [*a.entries(), *b.entries()]
    for name in dict.fromkeys(each.name for side in (a, b) for each in side.contents.optimizers):
        if not options.takes_optimizer(name, seen):
            continue
        left, right = a.optimizer(name), b.optimizer(name)
        title = f"optimizer/{name}"
        if left is not None and right is not None:
            yield from _two_optimizers(title, left, right)
        else:
            holder, held = (a.label, left) if left is not None else (b.label, right)
            algorithm = held.algorithm if held is not None and held.algorithm else "algorithm not told"
            yield Finding(f"{title} is in {holder} only ({algorithm}).", False)


def _two_optimizers(title: str, left: OptimizerEntry, right: OptimizerEntry) -> Iterator[Finding]:
    same: list[str] = []
    if left.algorithm is not None and left.algorithm == right.algorithm:
        same.append(left.algorithm)
    elif left.algorithm is not None and right.algorithm is not None:
        yield Finding(f"{title} is {left.algorithm} in A and {right.algorithm} in B.", True)
    elif left.algorithm or right.algorithm:
        teller, silent = ("A", "B") if left.algorithm else ("B", "A")
        yield Finding(f"{title} is {left.algorithm or right.algorithm} in {teller}; {silent} does not tell.", False)
    for number in dict.fromkeys([*left.hyperparameters, *right.hyperparameters]):
        one, other = left.hyperparameters.get(number), right.hyperparameters.get(number)
        varies = number in left.varying or number in right.varying
        if one is None or other is None:
            continue
        if np.float32(one) == np.float32(other):  # TF1 keeps them in float32, Keras as they were written
            same.append(f"{number} {shortest(one)}")
        else:
            note = ", and varies" if varies else ""
            yield Finding(f"{title}: {number} is {shortest(one)} in A and {shortest(other)} in B{note}.", not varies)
    if same:
        yield Finding(f"{title}: {', '.join(same)} on both sides.", False)
    for label, mine, others in (("A", left, right), ("B", right, left)):
        alone = [each for each in mine.hyperparameters if each not in others.hyperparameters]
        if alone:
            told = ", ".join(f"{each} {shortest(mine.hyperparameters[each])}" for each in alone)
            yield Finding(f"{title}: {label} alone records {told}.", False)
    if left.variables and right.variables and set(left.variables) != set(right.variables):
        for label, here, there in (("A", left.variables, right.variables), ("B", right.variables, left.variables)):
            alone = [each for each in here if each not in set(there)]
            if alone:
                yield Finding(f"{title} trains in {label} alone: {_listed(alone)}.", False)


def _held_against(powered: _Opened, counted: _Opened) -> tuple[set[tuple[str, str]], list[Finding]]:
    """Beta powers of one side against the count of the other, where the other has no powers.

    Returns:
      (label, key) of the tensors that this settles, and what is told.
    """
    settled: set[tuple[str, str]] = set()
    told: list[Finding] = []
    held = [each for each in powered.entries() if each.role is Role.POWER and each.name not in counted.names]
    for optimizer in dict.fromkeys(each.optimizer for each in held):
        powers = [each for each in held if each.optimizer == optimizer]
        counts = counted.counts(optimizer)
        if not counts:
            continue
        settled |= {(powered.label, each.key) for each in powers}
        settled |= {
            (counted.label, each.key)
            for each in counted.entries()
            if each.role is Role.COUNT and each.optimizer == optimizer and each.name not in powered.names
        }
        told += [_power_finding(powered, counted, each, counts[0]) for each in powers]
    return settled, told


def _shared_counts(alone: _Opened, other: _Opened) -> set[tuple[str, str]]:
    """(label, key) of counts of no optimizer (global_step) that every optimizer of the other side agrees with."""
    counted = [other.counts(each.name) for each in other.contents.optimizers]
    numbers = {number for counts in counted for number in counts}
    if not counted or not all(counted) or len(numbers) != 1:
        return set()
    (number,) = numbers
    return {
        (alone.label, each.key)
        for each in alone.entries()
        if each.role is Role.COUNT
        and not each.optimizer
        and each.name not in other.names
        and inspecting.scalar(alone.source, each.key) == number
    }


def _power_finding(powered: _Opened, counted: _Opened, entry: Entry, count: Number) -> Finding:
    number = entry.name.rpartition("/")[2].removesuffix("_power")
    recorded = [
        (side.label, each.hyperparameters[number])
        for side in (powered, counted)
        if (each := side.optimizer(entry.optimizer)) is not None and number in each.hyperparameters
    ]
    title = f"optimizer/{entry.optimizer}"
    power = inspecting.scalar(powered.source, entry.key)
    dtype = powered.source.tensors[entry.key].dtype
    if not recorded or power is None or dtype not in ("float32", "float64"):
        why = f"neither records {number}" if not recorded else f"{entry.key} is no power"
        text = f"{powered.label} keeps {entry.key} and {counted.label} a count of {_whole(count)}, and {why}"
        return Finding(f"{title}: {text}: whether they agree cannot be told.", True)
    teller, beta = recorded[0]
    by = f"{number} {shortest(beta)}" + (f", as {teller} records it" if teller != powered.label else "")
    if _is_power(beta, float(power), count, dtype):
        text = f"{entry.key} of {powered.label} fits the count of {counted.label}, {_whole(count)} updates ({by})"
        return Finding(f"{title}: {text}.", False)
    found = inspecting.iterations(beta, float(power), dtype)
    gives = (
        f"gives {found:,} updates" if found is not None else f"is {shortest(power)}, which no count of updates gives"
    )
    text = f"{entry.key} of {powered.label} {gives} ({by}); {counted.label} counts {_whole(count)}"
    return Finding(f"{title}: {text}.", True)


def _is_power(beta: float, power: float, count: Number, dtype: str) -> bool:
    """Whether TF1 holds this power after so many updates."""
    if not isinstance(count, int) or count < 0 or not 0 <= beta < 1:
        return False
    kind = np.dtype(dtype)
    held = power if abs(power) >= float(np.finfo(kind).tiny) else 0.0
    if beta == 0.0:
        return held == 0.0
    # TF1 keeps the beta in float32, whatever the dtype of the power.
    return any(float(adam.beta_power(each, count, dtype)) == held for each in (beta, float(np.float32(beta))))


def _whole(count: Number) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:g}"


# --- Values -----------------------------------------------------------------------------------------------------------
def _compared(
    a: _Opened, b: _Opened, one: Entry, other: Entry, tolerance: int, progress: Progress | None
) -> TensorDifference:
    left, right = a.source.tensors[one.key], b.source.tensors[other.key]
    found = TensorDifference(
        name=one.name,
        role=one.role,
        left_key=one.key,
        right_key=other.key,
        left_shape=left.shape,
        right_shape=right.shape,
        left_dtype=left.dtype,
        right_dtype=right.dtype,
        status=Status.DIFFERENT,
        elements=left.parameters,
    )
    if left.shape != right.shape:
        return found
    if STRING in (left.dtype, right.dtype):
        return _texts(a, b, found)
    over, notes = _velocity(a, b, one, other)
    if over is None:
        return replace(found, notes=notes)
    apart = _Apart(left.shape, numpy_dtype(left.dtype), numpy_dtype(right.dtype))
    for mine, others in zip(blocks(a.source, one.key), blocks(b.source, other.key), strict=True):
        apart.add(_divided(mine, over[0]), _divided(others, over[1]))
        if progress is not None:
            progress(mine.nbytes + others.nbytes)
    allowed = max(tolerance, MOMENTUM_ULP) if over != (1.0, 1.0) else tolerance
    return apart.tell(replace(found, notes=notes), allowed)


def _texts(a: _Opened, b: _Opened, found: TensorDifference) -> TensorDifference:
    if found.left_dtype != found.right_dtype:
        return found
    if _digest(a.source, found.left_key) == _digest(b.source, found.right_key):
        return replace(found, status=Status.IDENTICAL)
    if a.source.format == b.source.format:
        return replace(found, notes=("the texts differ",))
    return replace(found, status=Status.CLOSE, notes=("texts that two formats keep in forms of their own",))


def _velocity(a: _Opened, b: _Opened, one: Entry, other: Entry) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """What each side's values are to be divided by so that they mean the same, and what a person should know of it.

    Keras keeps momentum as `velocity = -rate * accumulator`; None where the rate is not known.
    """
    if one.role is not Role.SLOT or one.slot != "accumulator":
        return (1.0, 1.0), ()
    left, right = a.optimizer(one.optimizer), b.optimizer(other.optimizer)
    keras = [_keeps_velocity(left), _keeps_velocity(right)]
    if keras[0] == keras[1]:
        return (1.0, 1.0), ()
    entries = (left, right) if keras[0] else (right, left)
    rates = [each.hyperparameters.get("learning_rate") for each in entries if each is not None]
    rate = next((each for each in rates if each), None)
    label = "A" if keras[0] else "B"
    if not rate:
        return None, (f"{label} keeps -learning_rate * accumulator, and no rate is recorded: it cannot be told",)
    note = (
        f"{label} keeps -learning_rate * accumulator: compared after division by {shortest(-rate)}, which may move "
        f"values by {MOMENTUM_ULP} ulp"
    )
    return (-rate, 1.0) if keras[0] else (1.0, -rate), (note,)


def _keeps_velocity(optimizer: OptimizerEntry | None) -> bool:
    return optimizer is not None and optimizer.convention == "keras" and optimizer.algorithm in ("Momentum", "Nesterov")


def _divided(block: Array, over: float) -> Array:
    """In float64, rounded once; + 0.0 since nothing over a negative number would be a negative nothing."""
    if over == 1.0:
        return block
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = (block.astype(np.float64) / over + 0.0).astype(block.dtype)
    return found


class _Apart:
    """How far two tensors are apart, as far as their blocks have come in."""

    def __init__(self, shape: tuple[int, ...], left: np.dtype[Any], right: np.dtype[Any]) -> None:
        self.shape, self.same_dtype = shape, left == right
        self.whole = left.kind in "biu" and right.kind in "biu"
        self.complex = "c" in (left.kind, right.kind)
        self.floats = not self.complex and left.kind not in "biu" and right.kind not in "biu"
        self.narrow = min((left, right), key=_digits) if self.floats else left
        self.seen = self.differing = self.nan = self.nan_bits = self.infinite = self.zero_signs = 0
        self.absolute: Place | None = None
        self.relative: Place | None = None
        self.ulp: Place | None = None
        self.broken: Place | None = None

    def add(self, left: Array, right: Array) -> None:
        """Takes in the next block of each side; they have one length."""
        offset, self.seen = self.seen, self.seen + left.size
        if self.same_dtype:
            where = np.flatnonzero(_bits_differ(left, right))
        elif self.whole:
            where = np.flatnonzero(_integers(left) != _integers(right))
        else:
            wide, others = self._wide(left), self._wide(right)
            where = np.flatnonzero((wide != others) & ~(np.isnan(wide) & np.isnan(others)))
        if not where.size:
            return
        self.differing += where.size
        left, right, where = left[where], right[where], where + offset
        if self.whole:
            self._integers(left, right, where)
        else:
            self._numbers(left, right, where)

    def _integers(self, left: Array, right: Array, where: Array) -> None:
        one, other = _integers(left), _integers(right)
        high, low = np.maximum(one, other), np.minimum(one, other)
        if one.dtype == other.dtype == np.int64:
            with np.errstate(over="ignore"):  # right modulo 2**64, and less than that
                gap = high.astype(np.uint64) - low.astype(np.uint64)
        else:
            gap = high - low
        top = np.maximum(abs(one.astype(np.float64)), abs(other.astype(np.float64)))
        self.absolute = self._further(self.absolute, gap, left, right, where)
        self.relative = self._further(self.relative, gap.astype(np.float64) / top, left, right, where)

    def _numbers(self, left: Array, right: Array, where: Array) -> None:
        wide, others = self._wide(left), self._wide(right)
        good = np.isfinite(wide) & np.isfinite(others)
        if not good.all():
            nan, nans = np.isnan(wide), np.isnan(others)
            self.nan += int(np.count_nonzero(nan != nans))
            self.nan_bits += int(np.count_nonzero(nan & nans))
            self.infinite += int(np.count_nonzero(~good & ~nan & ~nans))
            if self.broken is None:
                first = int(np.argmin(good))
                self.broken = self._place(float("nan"), left[first], right[first], int(where[first]))
            left, right, where, wide, others = left[good], right[good], where[good], wide[good], others[good]
        if not left.size:
            return
        with np.errstate(over="ignore"):
            gap = np.abs(wide - others)
            top = np.maximum(np.abs(wide), np.abs(others))
        nothing = top == 0
        self.zero_signs += int(np.count_nonzero(nothing))
        top[nothing] = 1
        # Half of each where it matters, so that what is too far apart for float64 still has a relative distance.
        share = gap / top if top.max() < _WIDE else np.abs(wide / 2 - others / 2) / (top / 2)
        self.absolute = self._further(self.absolute, gap, left, right, where)
        self.relative = self._further(self.relative, share, left, right, where)
        if self.floats:
            with np.errstate(over="ignore"):
                steps = _steps(left.astype(self.narrow), right.astype(self.narrow))
            self.ulp = self._further(self.ulp, steps, left, right, where)

    def _wide(self, values: Array) -> Array:
        return values.astype(np.complex128 if self.complex else np.float64)

    def _further(self, known: Place | None, gaps: Array, left: Array, right: Array, where: Array) -> Place:
        """The place of the largest distance so far."""
        at = int(np.argmax(gaps))
        gap: Number = gaps[at] if isinstance(gaps[at], int) else gaps[at].item()
        if known is not None and known.distance >= gap:
            return known
        return self._place(gap, left[at], right[at], int(where[at]))

    def _place(self, gap: Number, left: Any, right: Any, flat: int) -> Place:
        index = tuple(int(each) for each in np.unravel_index(flat, self.shape)) if self.shape else ()
        return Place(gap, index, _number(left), _number(right))

    def tell(self, found: TensorDifference, tolerance: int) -> TensorDifference:
        """The pair with what was found."""
        notes = list(found.notes)
        near = self.broken is None and self.ulp is not None and self.ulp.distance <= tolerance
        if self.same_dtype:
            status = Status.IDENTICAL if not self.differing else Status.CLOSE if near else Status.DIFFERENT
        elif found.role is Role.COUNT and not self.differing:
            status = Status.CLOSE
        else:
            status = Status.CLOSE if self.floats and tolerance and (near or not self.differing) else Status.DIFFERENT
        if not self.same_dtype and not self.differing:
            notes.append("the same values")
        return replace(
            found,
            status=status,
            differing=self.differing,
            absolute=self.absolute,
            relative=self.relative,
            ulp=self.ulp,
            broken=self.broken,
            nan=self.nan,
            nan_bits=self.nan_bits,
            infinite=self.infinite,
            zero_signs=self.zero_signs,
            notes=tuple(notes),
        )


def _bits_differ(left: Array, right: Array) -> Array:
    """Elementwise, for flat arrays of one dtype."""
    size = left.dtype.itemsize
    if size in (1, 2, 4, 8):
        kind = np.dtype(f"u{size}")
        found: Array = left.view(kind) != right.view(kind)
        return found
    wide: Array = (left.view(np.uint8) != right.view(np.uint8)).reshape(-1, size).any(axis=1)
    return wide


def _integers(values: Array) -> Array:
    """As int64, or as Python's where they do not fit."""
    return values.astype(object) if values.dtype == np.uint64 else values.astype(np.int64)


def _digits(dtype: np.dtype[Any]) -> int:
    """Binary digits of a float's mantissa."""
    if dtype.kind == "f" and dtype.itemsize > 1:
        return int(np.finfo(dtype).nmant)
    import ml_dtypes

    return int(ml_dtypes.finfo(dtype).nmant)


def _steps(left: Array, right: Array) -> Array:
    """Elementwise distance of floats of one dtype in units in the last place, uint64."""
    if left.dtype.itemsize > 1:
        return ulps(left, right)
    counts = []
    for values in (left, right):
        bits = values.view(np.int8).astype(np.int64)
        counts.append(np.where(bits < 0, -128 - bits, bits))
    gap: Array = np.abs(counts[0] - counts[1]).astype(np.uint64)
    return gap


def _number(value: Any) -> Number | str:
    if value.dtype.kind in "biu":
        return int(value)
    return str(value) if value.dtype.kind == "c" else float(value)


def _badness(found: TensorDifference) -> tuple[Any, ...]:
    """Sorts the worst first."""
    far = [-float(each.distance) if each is not None else 0.0 for each in (found.ulp, found.relative, found.absolute)]
    rank = list(Status).index(found.status)
    return (-rank, not found.shapes_differ, found.broken is None, *far, found.name, found.left_key)


# --- Hints ------------------------------------------------------------------------------------------------------------
def _hints(left: Sequence[OnlyOne], right: Sequence[OnlyOne]) -> Iterator[str]:
    """What names without a partner look like, when those of the two sides look alike; no pair is made of it."""
    kinds = (Role.WEIGHT, Role.STATISTIC)
    here = {each.name: each.shape for each in left if each.role in kinds}
    there = {each.name: each.shape for each in right if each.role in kinds}
    if not here or not there:
        yield from _renamed_optimizers(left, right)
        return
    spelt = list(_same_spelling(here, there))
    if spelt:
        one, other = spelt[0]
        yield (
            f"{_names(len(spelt), here)} of A and of B differ only in separators or capitals, with the same shapes: "
            f"{one} and {other}."
        )
    else:
        yield from _renamed(here, there)
    yield from _renamed_optimizers(left, right)


def _names(count: int, names: dict[str, Any]) -> str:
    return f"{count:,} of the {len(names):,} names" if len(names) > 1 else "The name"


def _same_spelling(here: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, str]]:
    plain_names: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, shape in there.items():
        plain_names.setdefault((_spelling(name), shape), name)
    for name, shape in here.items():
        other = plain_names.get((_spelling(name), shape))
        if other is not None:
            yield name, other


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _renamed(here: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """The most common change of a prefix, and of a suffix, that makes names of one side names of the other."""
    found = False
    for backwards, word in ((False, "in front"), (True, "at the end")):
        votes = Counter[tuple[str, str]]()
        example: dict[tuple[str, str], tuple[str, str]] = {}
        rests: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
        for name, shape in there.items():
            for rest, changed in _splits(name, backwards):
                rests.setdefault((rest, shape), []).append((changed, name))
        for name, shape in here.items():
            for rest, changed in _splits(name, backwards):  # the longest rest first
                fits = rests.get((rest, shape), [])
                if len(fits) == 1:  # several would be a guess
                    change = (changed, fits[0][0])
                    votes[change] += 1
                    example.setdefault(change, (name, fits[0][1]))
                if fits:
                    break
        for change, count in votes.most_common(1):
            if count >= 2 or len(here) == 1:
                found = True
                one, other = example[change]
                yield (
                    f"{_names(count, here)} only in A would be names of B, with the same shapes, "
                    f"with {change[1] or 'nothing'!r} {word} for {change[0] or 'nothing'!r}: {one} and {other}."
                )
    if not found and Counter(here.values()) == Counter(there.values()):
        yield (
            f"The {len(here):,} names only in A have the same shapes as the {len(there):,} only in B, in another "
            "wording."
        )


def _splits(name: str, backwards: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """The parts of a name that stay and the text that is exchanged: a prefix, or a suffix when `backwards`."""
    parts = re.split(r"([/.])", name)
    for cut in range(0, len(parts), 2):
        if backwards:
            end = len(parts) - cut
            yield tuple(parts[:end:2]), "".join(parts[end:])
        else:
            yield tuple(parts[cut::2]), "".join(parts[:cut])


def _renamed_optimizers(left: Sequence[OnlyOne], right: Sequence[OnlyOne]) -> Iterator[str]:
    """One optimizer on each side that the other lacks, with the same slots."""
    shapes = []
    for names in (left, right):
        held: dict[str, Counter[tuple[str, tuple[int, ...]]]] = {}
        for each in names:
            if each.role is Role.SLOT and each.name.count("/") >= 3:
                _, optimizer, slot, _ = each.name.split("/", 3)
                held.setdefault(optimizer, Counter())[slot, each.shape] += 1
        shapes.append(held)
    here, there = shapes
    if len(here) == 1 and len(there) == 1 and here.keys() != there.keys() and [*here.values()] == [*there.values()]:
        one, other = next(iter(here)), next(iter(there))
        yield f"The optimizer {one} of A and {other} of B have slots of the same names and shapes."


def _listed(texts: Sequence[str], most: int = 4) -> str:
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
