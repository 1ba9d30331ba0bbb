"""What every reader and writer of checkpoints speaks: stored tensors, what each one is, and by which canonical name.

A `Source` knows a checkpoint's headers once it is open and gives a tensor's bytes only when asked, piece by piece. A
`Sink` takes tensors in the order that was announced. Neither runs any code that a file holds.

Canonical names are those of `tfport.state`, slots those of `tfport.checking.slots`:

| what | role | name |
| --- | --- | --- |
| a weight | WEIGHT | the variable's own name, without ":0" |
| a statistic that training moves and no optimizer does | STATISTIC | the variable's own name |
| a moving average of a weight (TF1's ExponentialMovingAverage) | AVERAGE | `average/<variable>` |
| an optimizer's slot | SLOT | `optimizer/<optimizer>/<slot>/<variable>` |
| an optimizer's count of updates | COUNT | `optimizer/<optimizer>/iterations` |
| a count that belongs to no optimizer | COUNT | the variable's own name, e.g. `global_step` |
| beta1_power, beta2_power of Adam | POWER | `optimizer/<optimizer>/beta_1_power`, `.../beta_2_power` |
| a number of an optimizer that is kept as a tensor | HYPERPARAMETER | `optimizer/<optimizer>/<number>` |
| anything else: object graphs, save counters, seeds | OTHER | the key |
"""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tfport.errors import CheckpointError

Array = np.ndarray[Any, Any]
Bytes = bytes | bytearray | memoryview

CHUNK = 1 << 20
"""Bytes that a reader holds at most of a tensor that it streams."""

STRING = "string"
"""The dtype of tensors of texts: their bytes are in the form of the format, of no use to another."""

_ML_DTYPES = frozenset(
    {"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3"}
)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's dtype of a stored dtype's name, little endian; ml_dtypes's where numpy has none.

    Raises:
      CheckpointError: there is none: texts, resources, quantised numbers.
    """
    if name in _ML_DTYPES:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    try:
        found = np.dtype(name)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "biufc":
        raise CheckpointError(f"tensors of dtype {name} have no numbers to read.")
    ordered: np.dtype[Any] = found.newbyteorder("<")
    return ordered


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in a file, header only."""

    key: str
    """The file's own name for it, unique in the file."""
    shape: tuple[int, ...]
    dtype: str
    """numpy's name ("float32"), ml_dtypes's ("bfloat16"), or STRING."""

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements; 0 for what numpy has no dtype for, such as texts."""
        try:
            return self.parameters * numpy_dtype(self.dtype).itemsize
        except CheckpointError:
            return 0


class Role(enum.StrEnum):
    """What a stored tensor is for."""

    WEIGHT = "weight"
    STATISTIC = "statistic"
    AVERAGE = "average"
    SLOT = "slot"
    COUNT = "count"
    POWER = "beta power"
    HYPERPARAMETER = "hyperparameter"
    OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """What one stored tensor is."""

    key: str
    role: Role
    name: str
    """Canonical; two keys may share it where a file holds one variable twice (a layer that two models share)."""
    variable: str = ""
    """The canonical name of the variable that a slot or an average belongs to."""
    optimizer: str = ""
    """The optimizer's canonical name, for slots, counts, powers and hyperparameters."""
    slot: str = ""
    """The canonical slot: "m", "v", "accumulator", ..."""


@dataclass(frozen=True)
class OptimizerEntry:
    """One optimizer as far as the checkpoint tells of it."""

    name: str
    algorithm: str | None
    """As `tfport.checking.slots` names it; None where the file does not tell and its slots fit several."""
    convention: str
    """Whose arithmetic the slots are in: "tf1" (TF1's kernels, also used by canonical files), "keras" (Keras 2 and 3:
    velocity = -rate * accumulator), "torch"."""
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    """Canonical name -> value, only what is recorded: in the graph, in a config, as a tensor that was read."""
    variables: tuple[str, ...] = ()
    """Canonical names of what it trains, in its own order, as far as slots or the graph tell."""
    varying: tuple[str, ...] = ()
    """Hyperparameters that are no constants: fed, scheduled, decayed."""


@dataclass(frozen=True)
class Contents:
    """A checkpoint's tensors with what each one is; one entry for each stored tensor, in the file's order."""

    entries: tuple[Entry, ...]
    optimizers: tuple[OptimizerEntry, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of how roles and names were found."""

    def by_name(self) -> dict[str, list[Entry]]:
        """Canonical name -> the entries that hold it."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.name, []).append(entry)
        return found

    def optimizer(self, name: str) -> OptimizerEntry:
        """The optimizer of that name; KeyError when there is none."""
        return {each.name: each for each in self.optimizers}[name]


class Source(abc.ABC):
    """An open checkpoint: headers are in memory, data is not.

    Constructors raise CheckpointError for anything that is missing, damaged or not of the format; the message names the
    file, what was found, what was expected and what to do. So do `chunks` and `read`, for what only the data shows.
    """

    format: str
    """What a person calls it: one of `opening.FORMATS`."""
    path: Path
    tensors: dict[str, Stored]
    """Key -> header, in the file's order."""
    written_by: dict[str, str]
    """Program -> version, as far as the files record it."""

    @abc.abstractmethod
    def chunks(self, key: str) -> Iterator[Bytes]:
        """The tensor's elements in C order, little endian, in pieces of at most CHUNK bytes.

        A checksum that the format has is verified by the last piece. Texts (dtype STRING) come in the format's own
        form, which only a Sink of the same format takes.

        Raises:
          CheckpointError: the data is damaged or ends too soon.
        """

    @abc.abstractmethod
    def contents(self) -> Contents:
        """What each tensor is. May read small tensors (counts, rates); never large ones."""

    def read(self, key: str) -> Array:
        """One whole tensor, in memory once.

        Raises:
          CheckpointError: as `chunks`, and for texts.
        """
        stored = self.tensors[key]
        try:
            dtype = numpy_dtype(stored.dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {key} cannot be read: {error}") from None
        flat = np.empty(stored.nbytes, np.uint8)
        place = 0
        for chunk in self.chunks(key):
            view = np.frombuffer(chunk, np.uint8)
            if place + len(view) > len(flat):
                raise CheckpointError(f"{self.path}: {key} holds more bytes than its shape {stored.shape} tells of.")
            flat[place : place + len(view)] = view
            place += len(view)
        if place != len(flat):
            raise CheckpointError(f"{self.path}: {key} ends after {place:,} of {len(flat):,} bytes.")
        return flat.view(dtype).reshape(stored.shape)

    def close(self) -> None:
        """Closes files and ends helpers; the Source is of no use afterwards."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sink(abc.ABC):
    """A checkpoint that is being written under a temporary name; `tfport.checkpoints.convert` puts it in place.

    Subclasses are constructed as `Sink(path, tensors, contents, template)`:

      path: where to write; nothing is there yet. A file, a folder, or for the Saver's formats a prefix.
      tensors: headers of all that will be written, in the order in which it will come.
      contents: what each of them is.
      template: an open Source of this same format whose structure (object graph, groups and attributes, config) the
        new checkpoint takes; None to lay it out by the format's own conventions.
    """

    path: Path

    @abc.abstractmethod
    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes the next tensor, in C order and little endian.

        Raises:
          RunError, OSError: the disk refused.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Writes what comes last; only then is the checkpoint whole. Closes the files."""

    def abandon(self) -> None:
        """Closes the files of a checkpoint that will not be finished; the caller removes them."""
        return


def pieces(array: Array) -> Iterator[memoryview]:
    """An array's bytes as a Sink takes them: C order, little endian, at most CHUNK at a time, without a second copy of
    an array that is already so.
    """
    ordered = np.ascontiguousarray(array)
    if ordered.dtype.byteorder == ">":
        ordered = ordered.astype(ordered.dtype.newbyteorder("<"))
    flat: Any = ordered.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK):
        yield memoryview(flat[start : start + CHUNK])


def check_names(path: Path, keys: Iterable[str]) -> None:
    """Raises CheckpointError for a key that could leave the folder it is unpacked to, or that no file writes.

    Every Source calls it: absolute names, "..", "\\\\", NUL and empty names are refused, by name.
    """
    for key in keys:
        if not key or "\0" in key or "\\" in key or key.startswith("/") or ".." in key.split("/"):
            raise CheckpointError(
                f"{path} names a tensor {key!r}, which is refused: names must be relative, without '..', backslashes "
                "or NUL. The file is damaged or made to do harm."
            )


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a file whose bytes do not make sense."""
    return CheckpointError(f"{path} is damaged: {what}. Take another copy of it, or have it written again.")
