"""What a checkpoint holds: every tensor with what it is, the optimizers, totals; on demand statistics of the values.

Without values only headers are read, and tensors of one element (counts, beta powers, rates). With values each tensor
is read once, block by block: memory does not grow with the checkpoint, nor with its largest tensor.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfport import adam
from tfport.checkpoints.contents import STRING, Array, Contents, Entry, Role, Source, Stored, numpy_dtype
from tfport.checkpoints.opening import FORMATS
from tfport.equivalence.result import plain
from tfport.errors import CheckpointError

SCHEMA = 1
"""Of the JSON that `Inspection.as_json` makes."""

BLOCK = 1 << 13
"""Elements that are looked at together: 64 KiB in float64, which processors keep near and numpy need not map anew."""

WEIGHTS, STATISTICS, AVERAGES, OPTIMIZER, OTHER = (
    "weights",
    "moving statistics",
    "moving averages",
    "optimizer ",
    "other",
)
"""Groups of tensors; an optimizer's is OPTIMIZER and its name."""

DENORMALS = 0.01
"""Share of denormal elements from which on a tensor is odd."""

_GROUPS = {Role.WEIGHT: WEIGHTS, Role.STATISTIC: STATISTICS, Role.AVERAGE: AVERAGES}
_SMALL = (Role.COUNT, Role.POWER, Role.HYPERPARAMETER)
_BIASES = frozenset({"bias", "biases", "b", "beta", "offset"})
_SCALES = frozenset({"gamma", "scale", "weight"})
_VARIANCES = frozenset({"moving_variance", "moving_var", "running_var", "variance"})
_SQUARES = frozenset({"v", "rms", "accumulator_update"})
"""Slots that are made of squares or magnitudes, whatever the algorithm."""
_SUMS_OF_SQUARES = frozenset({"Adagrad", "Adadelta", "Ftrl"})
"""Algorithms whose accumulator is made of squares."""

Progress = Callable[[int], Any]
"""Called with the number of bytes that have been looked at since the last call."""


@contextlib.contextmanager
def progress(description: str) -> Iterator[Callable[[int], Progress]]:
    """A bar on standard error for work of more than a second; gone when the work is done.

    Yields:
      What starts it: called with the bytes that there are to read.
    """
    bars: list[Any] = []

    def start(total: int) -> Progress:
        from tqdm import tqdm

        bars.append(
            tqdm(
                total=total,
                desc=description,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                leave=False,
                dynamic_ncols=True,
                delay=1.0,
                mininterval=0.2 if sys.stderr.isatty() else 10.0,
                file=sys.stderr,
            )
        )
        told: Progress = bars[-1].update
        return told

    try:
        yield start
    finally:
        for bar in bars:
            bar.close()


# --- Reading in blocks ------------------------------------------------------------------------------------------------
def blocks(source: Source, key: str, elements: int = BLOCK) -> Iterator[Array]:
    """A tensor's elements in C order, one flat array of `elements` after another, the last one shorter.

    The arrays share one buffer: each is good until the next is asked for. Whatever the pieces in which a source gives
    its bytes, two tensors of one shape come in the same blocks.

    Raises:
      CheckpointError: the data is damaged, or more or less than the shape tells of; or the dtype has no numbers.
    """
    stored = source.tensors[key]
    dtype = numpy_dtype(stored.dtype)
    total, seen, filled = stored.nbytes, 0, 0
    buffer: Array = np.empty(min(elements * dtype.itemsize, total), np.uint8)
    for chunk in source.chunks(key):
        view = np.frombuffer(chunk, np.uint8)
        seen += len(view)
        if seen > total:
            raise CheckpointError(f"{source.path}: {key} holds more bytes than its shape {stored.shape} tells of.")
        while len(view):
            taken = min(len(view), len(buffer) - filled)
            buffer[filled : filled + taken] = view[:taken]
            filled, view = filled + taken, view[taken:]
            if filled == len(buffer):
                yield buffer.view(dtype)
                filled = 0
    if seen != total:
        raise CheckpointError(f"{source.path}: {key} ends after {seen:,} of {total:,} bytes.")
    if filled:
        yield buffer[:filled].view(dtype)


# --- Statistics -------------------------------------------------------------------------------------------------------
Number = int | float


@dataclass(frozen=True)
class Statistics:
    """What the values of one tensor are like. Least, largest, mean and deviation are those of the finite values, and
    None where there are none, or where numbers have no order (complex ones).
    """

    elements: int
    nan: int
    infinite: int
    zeros: int
    denormals: int
    """Values that are not zero and nearer to it than the dtype's least normal number."""
    minimum: Number | None
    maximum: Number | None
    mean: float | None
    deviation: float | None
    """Standard deviation of the elements as a population: divided by their number."""

    @property
    def finite(self) -> int:
        """Elements that are neither NaN nor infinite."""
        return self.elements - self.nan - self.infinite

    @property
    def constant(self) -> bool:
        """Whether all elements are one finite value."""
        return self.minimum is not None and self.minimum == self.maximum and self.finite == self.elements


def statistics(parts: Iterable[Array], told: Progress | None = None) -> Statistics:
    """Statistics of a tensor that comes in flat blocks of one dtype; sums are float64, whatever the dtype."""
    running = _Running()
    for part in parts:
        running.add(part)
        if told is not None:
            told(part.nbytes)
    return running.found()


@dataclass
class _Running:
    """Counts and moments so far. Deviations are merged as deviations, never as sums of squares, which could overflow
    or cancel.
    """

    elements: int = 0
    nan: int = 0
    infinite: int = 0
    zeros: int = 0
    denormals: int = 0
    weighed: int = 0
    minimum: Number | None = None
    maximum: Number | None = None
    mean: float = 0.0
    lost: float = 0.0
    """What rounding has taken from the mean so far."""
    deviation: float = 0.0

    def add(self, part: Array) -> None:
        self.elements += part.size
        if not part.size:
            return
        kind = part.dtype.kind
        if kind in "biu":
            self.zeros += part.size - int(np.count_nonzero(part))
            self._moments(part.astype(np.float64), int(part.min()), int(part.max()))
        elif kind == "c":
            nan = np.isnan(part)
            self.nan += int(np.count_nonzero(nan))
            self.infinite += int(np.count_nonzero(np.isinf(part) & ~nan))
            self.zeros += part.size - int(np.count_nonzero(part))
        else:
            self._floats(part)

    def _floats(self, part: Array) -> None:
        wide = part.astype(np.float64)
        finite = np.isfinite(wide)
        good = wide if finite.all() else wide[finite]
        if good.size < wide.size:
            nan = int(np.count_nonzero(np.isnan(wide)))
            self.nan += nan
            self.infinite += wide.size - good.size - nan
        if not good.size:
            return
        zeros = good.size - int(np.count_nonzero(good))
        self.zeros += zeros
        self.denormals += int(np.count_nonzero(np.abs(good) < least_normal(part.dtype))) - zeros
        self._moments(good, float(good.min()), float(good.max()))

    def _moments(self, wide: Array, low: Number, high: Number) -> None:
        """Takes in finite values; `low` and `high` are their least and largest, exact."""
        top = max(abs(float(low)), abs(float(high)))
        # Squares of very large or very small numbers leave float64: such values are scaled by a power of two.
        power = math.frexp(top)[1] if top and not 1e-140 < top < 1e140 else 0
        scaled = np.ldexp(wide, -power) if power else wide
        if low == high:
            mean, deviation = float(low), 0.0
        else:
            centre = float(scaled.mean())
            mean = min(max(math.ldexp(centre, power), float(low)), float(high))
            deviation = math.ldexp(math.sqrt(float(np.square(scaled - centre).mean())), power)
        before, added = self.weighed, wide.size
        self.weighed = before + added
        if not before:
            self.mean, self.deviation = mean, deviation
        else:
            old, new = before / self.weighed, added / self.weighed
            between = math.sqrt(old) * math.sqrt(new)
            self.deviation = math.hypot(
                self.deviation * math.sqrt(old), deviation * math.sqrt(new), mean * between - self.mean * between
            )
            apart = mean - self.mean
            if math.isfinite(apart):
                step = apart * new - self.lost
                moved = self.mean + step
                self.lost = (moved - self.mean) - step
                self.mean = moved
            else:
                self.mean, self.lost = self.mean * old + mean * new, 0.0
        self.minimum = low if self.minimum is None else min(self.minimum, low)
        self.maximum = high if self.maximum is None else max(self.maximum, high)

    def found(self) -> Statistics:
        return Statistics(
            self.elements,
            self.nan,
            self.infinite,
            self.zeros,
            self.denormals,
            self.minimum,
            self.maximum,
            self.mean if self.weighed else None,
            self.deviation if self.weighed else None,
        )


def least_normal(dtype: np.dtype[Any]) -> float:
    """The least positive normal number of a floating dtype, ml_dtypes's among them."""
    if dtype.name in ("float16", "float32", "float64"):
        return float(np.finfo(dtype).tiny)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).tiny)


# --- What is found ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Total:
    """How much there is of something."""

    tensors: int = 0
    parameters: int = 0
    bytes: int = 0

    def plus(self, stored: Stored) -> Total:
        """One tensor more."""
        return Total(self.tensors + 1, self.parameters + stored.parameters, self.bytes + stored.nbytes)


@dataclass(frozen=True)
class TensorRow:
    """One stored tensor with what it is; the fields are those of `Stored` and `Entry`."""

    name: str
    key: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int
    variable: str
    optimizer: str
    slot: str
    group: str
    """WEIGHTS, STATISTICS, AVERAGES, OTHER, or OPTIMIZER with its name."""
    value: Number | None = None
    """Of counts, beta powers and hyperparameters that are one number; a whole number is an int."""
    statistics: Statistics | None = None


@dataclass(frozen=True)
class CountRow:
    """A count of updates that an optimizer has."""

    key: str
    value: Number | None


@dataclass(frozen=True)
class PowerRow:
    """A beta power, and the count that it tells of."""

    key: str
    beta_name: str
    """ "beta_1" or "beta_2"."""
    power: float | None
    beta: float | None
    """As the checkpoint records it; None where it does not."""
    iterations: int | None
    """The count that gives this power; None where beta is not recorded, or no count does."""


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer with what it keeps."""

    name: str
    algorithm: str | None
    convention: str
    hyperparameters: dict[str, float]
    varying: tuple[str, ...]
    variables: tuple[str, ...]
    parameters: int | None
    """Elements of the variables that it trains; None where some of them are not in the checkpoint."""
    slots: dict[str, Total]
    counts: tuple[CountRow, ...]
    powers: tuple[PowerRow, ...]

    @property
    def count(self) -> Number | None:
        """Updates so far, as counts or else powers tell; None where neither does."""
        known = [each.value for each in self.counts if each.value is not None]
        known += [each.iterations for each in self.powers if each.iterations is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Oddity:
    """Something that a person should look at, as one sentence."""

    kind: str
    """nan, infinite, zero, constant, dead slot, negative, untrained, denormal, count, power."""
    name: str
    key: str
    text: str
    mild: bool = False
    """Usual in a sound checkpoint: biases that are zero, scales that are one."""


@dataclass(frozen=True)
class Inspection:
    """Everything that `tfport inspect` tells of a checkpoint."""

    path: str
    format: str
    format_name: str
    written_by: dict[str, str]
    files: dict[str, int]
    """Name, relative to the folder that holds them -> bytes."""
    tensors: tuple[TensorRow, ...]
    optimizers: tuple[OptimizerRow, ...]
    totals: dict[str, Total]
    """Role -> how much."""
    total: Total
    repeated: int
    """Tensors that hold what another one of the same canonical name holds too."""
    notes: tuple[str, ...] = ()
    values: bool = False
    """Whether the values were read."""
    odd: tuple[Oddity, ...] = field(default=())

    @property
    def bytes_on_disk(self) -> int:
        """Size of all files."""
        return sum(self.files.values())

    def as_json(self) -> dict[str, Any]:
        """A tree of JSON values, schema 1; numbers that are not finite become strings ("nan", "inf")."""
        tree: dict[str, Any] = plain(asdict(self))
        if not self.values:
            tree["odd"] = None
        for row, found in zip(tree["optimizers"], self.optimizers, strict=True):
            row["count"] = plain(found.count)
        return {"schema": SCHEMA, "kind": "checkpoint", "bytes_on_disk": self.bytes_on_disk, **tree}


def inspect(source: Source, values: bool = False, start: Callable[[int], Progress] | None = None) -> Inspection:
    """Looks at an open checkpoint.

    Args:
      source: what to look at.
      values: whether to read the tensors' values too.
      start: called with the bytes of all values before they are read, as `progress` gives it; what it returns is told
        of the bytes that were read.

    Raises:
      CheckpointError: the data is damaged.
    """
    contents = source.contents()
    of_key = entries(source, contents)
    rows = tuple(_row(source, stored, of_key[key]) for key, stored in source.tensors.items())
    totals: dict[str, Total] = {}
    total = Total()
    for row in rows:
        stored = source.tensors[row.key]
        totals[row.role] = totals.get(row.role, Total()).plus(stored)
        total = total.plus(stored)
    found = Inspection(
        path=str(source.path),
        format=source.format,
        format_name=FORMATS.get(source.format, source.format),
        written_by=dict(source.written_by),
        files=files_of(source.path),
        tensors=rows,
        optimizers=optimizers(source, contents, rows),
        totals={role: totals[role] for role in Role if role in totals},
        total=total,
        repeated=len(rows) - len({(row.role, row.name) for row in rows}),
        notes=contents.notes,
    )
    if not values:
        return found
    told = start(total.bytes) if start is not None else None
    measured = tuple(replace(row, statistics=_statistics(source, row, told)) for row in rows)
    found = replace(found, tensors=measured, values=True)
    return replace(found, odd=tuple(_odd(found)))


def entries(source: Source, contents: Contents) -> dict[str, Entry]:
    """Key -> what it is, for every stored tensor; one that the contents leave out is bookkeeping under its key."""
    found = {entry.key: entry for entry in contents.entries}
    return {key: found.get(key) or Entry(key, Role.OTHER, key) for key in source.tensors}


def files_of(path: Path) -> dict[str, int]:
    """The files of a checkpoint, by name relative to its folder -> bytes; `path` is a file, a folder or a prefix."""
    if path.is_dir():
        found, base = sorted(each for each in path.rglob("*") if each.is_file()), path
    elif path.with_name(f"{path.name}.index").is_file():
        base = path.parent
        found = sorted(
            each
            for each in base.iterdir()
            if each.name in (f"{path.name}.index", f"{path.name}.meta") or each.name.startswith(f"{path.name}.data-")
        )
    else:
        found, base = [path] if path.is_file() else [], path.parent
    return {str(each.relative_to(base)): each.stat().st_size for each in found}


def _row(source: Source, stored: Stored, entry: Entry) -> TensorRow:
    group = _GROUPS.get(entry.role) or (f"{OPTIMIZER}{entry.optimizer}" if entry.optimizer else OTHER)
    return TensorRow(
        name=entry.name,
        key=entry.key,
        role=entry.role,
        shape=stored.shape,
        dtype=stored.dtype,
        parameters=stored.parameters,
        bytes=stored.nbytes,
        variable=entry.variable,
        optimizer=entry.optimizer,
        slot=entry.slot,
        group=group,
        value=scalar(source, entry.key) if entry.role in _SMALL else None,
    )


def scalar(source: Source, key: str) -> Number | None:
    """The value of a tensor of one element; None for a larger one, for texts and for complex numbers."""
    stored = source.tensors[key]
    if stored.parameters != 1 or stored.dtype == STRING or numpy_dtype(stored.dtype).kind == "c":
        return None
    value = source.read(key).reshape(-1)[0]
    if value.dtype.kind in "biu":
        return int(value)
    number = float(value)
    return int(number) if number.is_integer() else number


# --- Optimizers -------------------------------------------------------------------------------------------------------
def optimizers(source: Source, contents: Contents, rows: Iterable[TensorRow]) -> tuple[OptimizerRow, ...]:
    """The checkpoint's optimizers with what each keeps; one that only its tensors tell of is among them."""
    of_optimizer: dict[str, list[TensorRow]] = {each.name: [] for each in contents.optimizers}
    sizes: dict[str, int] = {}
    for row in rows:
        if row.optimizer:
            of_optimizer.setdefault(row.optimizer, []).append(row)
        elif row.role in (Role.WEIGHT, Role.STATISTIC):
            sizes[row.name] = row.parameters
    known = {each.name: each for each in contents.optimizers}
    found = []
    for name, held in of_optimizer.items():
        entry = known.get(name)
        numbers = dict(entry.hyperparameters) if entry else {}
        trained = tuple(dict.fromkeys(row.variable for row in held if row.role is Role.SLOT))
        trained = (entry.variables if entry else ()) or trained
        slots: dict[str, Total] = {}
        for row in held:
            if row.role is Role.SLOT:
                slots[row.slot] = slots.get(row.slot, Total()).plus(source.tensors[row.key])
        found.append(
            OptimizerRow(
                name=name,
                algorithm=entry.algorithm if entry else None,
                convention=entry.convention if entry else "",
                hyperparameters={each: float(value) for each, value in numbers.items()},
                varying=entry.varying if entry else (),
                variables=trained,
                parameters=sum(sizes[each] for each in trained) if all(each in sizes for each in trained) else None,
                slots=slots,
                counts=tuple(CountRow(row.key, row.value) for row in held if row.role is Role.COUNT),
                powers=tuple(_power(source, row, numbers) for row in held if row.role is Role.POWER),
            )
        )
    return tuple(found)


def _power(source: Source, row: TensorRow, numbers: dict[str, float]) -> PowerRow:
    name = row.name.rpartition("/")[2].removesuffix("_power")
    beta = numbers.get(name)
    value = None if row.value is None else float(row.value)
    return PowerRow(row.key, name, value, beta, iterations(beta, value, source.tensors[row.key].dtype))


def iterations(beta: float | None, power: float | None, dtype: str) -> int | None:
    """The count of steps that gives a beta power of that dtype; None where nothing does, or a number is missing."""
    if beta is None or power is None or dtype not in ("float32", "float64"):
        return None
    kind = np.dtype(dtype).type
    for tried in dict.fromkeys((beta, float(np.float32(beta)))):  # TF1 keeps the beta in float32, whatever the power
        if not 0.0 < tried < 1.0:
            continue
        try:
            return adam.iterations(tried, kind(power))
        except CheckpointError:
            continue
    return None


# --- Values -----------------------------------------------------------------------------------------------------------
def _statistics(source: Source, row: TensorRow, told: Progress | None) -> Statistics | None:
    """None for texts; they are read all the same, so that damage shows."""
    if row.dtype == STRING:
        for _ in source.chunks(row.key):
            pass
        return None
    return statistics(blocks(source, row.key), told)


def _odd(found: Inspection) -> Iterator[Oddity]:
    """Everything odd, what is usual in sound checkpoints last."""
    counts = {each.name: each.count for each in found.optimizers}
    algorithms = {each.name: each.algorithm for each in found.optimizers}
    trained = [each for each in counts.values() if each is not None]
    trained += [row.value for row in found.tensors if row.role is Role.COUNT and row.value is not None]
    steps = max(trained, default=None)
    every = [
        oddity
        for row in found.tensors
        if row.statistics is not None and row.statistics.elements
        for oddity in _odd_tensor(row, row.statistics, counts.get(row.optimizer), algorithms.get(row.optimizer), steps)
    ]
    every += [oddity for each in found.optimizers for oddity in _odd_optimizer(each)]
    yield from (each for each in every if not each.mild)
    yield from (each for each in every if each.mild)


def _odd_tensor(
    row: TensorRow, seen: Statistics, count: Number | None, algorithm: str | None, steps: Number | None
) -> Iterator[Oddity]:
    def odd(kind: str, text: str, mild: bool = False) -> Oddity:
        return Oddity(kind, row.name, row.key, f"{row.name} {text}.", mild)

    of = f"of {seen.elements:,} value{'' if seen.elements == 1 else 's'}"
    if seen.nan:
        yield odd("nan", f"holds {seen.nan:,} NaN {of}")
    if seen.infinite:
        yield odd("infinite", f"holds {seen.infinite:,} infinite {of}")
    if seen.denormals >= DENORMALS * seen.elements and seen.denormals:
        yield odd("denormal", f"holds {seen.denormals:,} denormal {of}: nearer to zero than {row.dtype} keeps in full")
    if row.role in (Role.WEIGHT, Role.AVERAGE):
        yield from _odd_weight(row, seen, odd)
    elif row.role is Role.STATISTIC:
        if _last(row.name) in _VARIANCES and seen.minimum is not None and seen.minimum < 0:
            yield odd("negative", f"is a variance and as low as {seen.minimum:.3g}")
        if _last(row.name) in _VARIANCES and seen.constant and seen.minimum == 1:
            after = f" after {steps:,} updates: it was never moved" if steps else ", as before any training"
            yield odd("untrained", f"is 1 everywhere{after}", mild=not steps)
    elif row.role is Role.SLOT:
        squares = row.slot in _SQUARES or (row.slot == "accumulator" and (algorithm or "") in _SUMS_OF_SQUARES)
        if squares and seen.minimum is not None and seen.minimum < 0:
            yield odd("negative", f"is made of squares and as low as {seen.minimum:.3g}")
        if seen.constant and seen.minimum == 0 and count:
            yield odd("dead slot", f"is all zero after {count:,} updates: no gradient has reached it")


def _odd_weight(row: TensorRow, seen: Statistics, odd: Callable[..., Oddity]) -> Iterator[Oddity]:
    value = seen.minimum
    if value is None or not seen.constant:
        return
    last = _last(row.variable or row.name)
    if value == 0:
        if last in _BIASES:
            yield odd("zero", "is a bias and all zero", mild=True)
        else:
            yield odd("zero", "is all zero")
    elif seen.elements > 1:
        scale = last in _SCALES and value == 1 and len(row.shape) == 1
        told = value if isinstance(value, int) else shortest(value)
        yield odd("constant", f"is {told} everywhere", mild=scale)


def _odd_optimizer(found: OptimizerRow) -> Iterator[Oddity]:
    name = f"optimizer/{found.name}"
    for power in found.powers:
        value = "no number" if power.power is None else shortest(power.power)
        if power.power is None or not 0 <= power.power <= 1:
            yield Oddity("power", name, power.key, f"{power.key} is {value}, which is no power of any beta.")
        elif power.beta is not None and power.iterations is None and 0 < power.beta < 1:
            text = f"{power.key} is {value}, which is no power of {power.beta_name} {shortest(power.beta)}."
            yield Oddity("power", name, power.key, text)
    said = [(each.key, each.value) for each in found.counts if each.value is not None]
    # A power that has underflowed tells only the least that the count can be.
    said += [(each.key, each.iterations) for each in found.powers if each.iterations is not None and not _worn(each)]
    if len({value for _, value in said}) > 1:
        told = _listed([f"{key} tells of {value:,}" for key, value in said])
        yield Oddity("count", name, said[0][0], f"The counts of updates of {name} differ: {told}.")
    for key, number in said:
        if not isinstance(number, int) or number < 0:
            yield Oddity("count", name, key, f"{key} is {number}, which is no count of updates.")


def _worn(power: PowerRow) -> bool:
    """Whether the power no longer changes, so that many counts give it."""
    if power.power is None or power.beta is None or power.iterations is None:
        return False
    return power.power < float(np.finfo(np.float32).tiny) or power.power * power.beta == power.power


def shortest(value: float) -> str:
    """The fewest digits that give the number back: as a float32 where it is one."""
    single = np.float32(value) if abs(value) < 3e38 else np.float32("inf")
    return str(single) if float(single) == value else repr(value)


def _listed(texts: list[str], most: int = 4) -> str:
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _last(name: str) -> str:
    """The last part of a name, by which its kind is told."""
    return name.replace(".", "/").rpartition("/")[2]
