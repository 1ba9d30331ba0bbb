"""Arrays kept on disk, each content once, so that a check holds one tensor at a time and no copy of a model.

The two sides of a check run one after another: what the legacy side showed is kept here until the modern side shows
its own. A state that a step left unchanged, or that two rungs look at, takes no further room.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfport.checking.lazy import Lazy, located
from tfport.files import explained

Array = np.ndarray[Any, Any]

_SMALL = 1 << 16
"""Bytes up to which an array is read into memory; above it is mapped."""


@dataclass(frozen=True)
class Place:
    """Where an array lies."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    digest: bytes = b""
    """Of its bytes; empty where nobody asked."""

    def read(self) -> Array:
        """The array, in memory of its own."""
        count = int(np.prod(self.shape, dtype=np.int64))
        return np.fromfile(self.path, np.dtype(self.dtype), count, offset=self.offset).reshape(self.shape)

    def shown(self) -> Array:
        """The array, mapped where it is large; it must not be written to."""
        dtype = np.dtype(self.dtype)
        if int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize > _SMALL:
            return np.memmap(self.path, dtype, "r", self.offset, self.shape)
        array = self.read()
        array.flags.writeable = False
        return array

    def holds_the_same(self, other: Place) -> bool:
        """Whether both hold the same bytes, dtype and shape; nothing is read."""
        return bool(self.digest) and ((self.digest, self.dtype, self.shape) == (other.digest, other.dtype, other.shape))

    def to_json(self) -> list[Any]:
        """What JSON can hold of it."""
        return [str(self.path), self.offset, self.dtype, self.shape, self.digest.hex()]

    @staticmethod
    def from_json(told: Sequence[Any]) -> Place:
        """The inverse of `to_json`."""
        path, offset, dtype, shape, digest = told
        return Place(Path(path), offset, dtype, tuple(shape), bytes.fromhex(digest))


class ArrayFile:
    """A file to which arrays are added, one after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self.size = 0

    def add(self, array: Array, digest: bytes = b"") -> Place:
        """Writes one array; returns its place."""
        whole = np.ascontiguousarray(array)
        offset = self.size
        self._file.seek(offset)
        self._file.write(_bytes_of(whole))
        self._file.flush()
        self.size += -(-whole.nbytes // 64) * 64  # aligned for any dtype
        return Place(self.path, offset, whole.dtype.str, array.shape, digest)

    def add_known(self, array: Array) -> Place:
        """Writes one array and takes down its digest."""
        array = np.asarray(array)
        return self.add(array, digest_of(array))

    def close(self) -> None:
        """Ends the writing."""
        self._file.close()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def digest_of(array: Array) -> bytes:
    """The SHA-256 of the array's bytes."""
    return hashlib.sha256(_bytes_of(np.ascontiguousarray(array))).digest()


def _bytes_of(whole: Array) -> memoryview:
    return memoryview(whole.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


class Kept(Lazy):
    """Arrays in a store by name, read when asked."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        super().__init__(places)
        self.places = places

    def __getitem__(self, name: str) -> Array:
        return self.places[name].shown()

    def located(self, name: str) -> Place | None:
        """Its place in the store."""
        return self.places.get(name)

    def same(self, name: str, other: Kept) -> bool:
        """Whether both hold the same bytes, dtype and shape under that name; nothing is read."""
        one, two = self.places.get(name), other.places.get(name)
        return one is not None and two is not None and one.holds_the_same(two)

    def changed(self, other: Kept) -> list[str]:
        """The names whose contents differ from `other`'s, in order; a name that one side lacks is among them."""
        names = dict.fromkeys([*self.places, *other.places])
        return [name for name in names if not self.same(name, other)]


class Store:
    """A file of arrays, gone when it is closed; it may be filled from several threads."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tfport-")
        self._file = ArrayFile(Path(self._folder.name, "arrays.bin"))
        self._known: dict[bytes, int] = {}
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._file.size

    def put(self, array: Array, known: Place | None = None) -> Place:
        """Keeps one array.

        Args:
          array: what to keep.
          known: its place in another file, where it has one with a digest.

        Raises:
          RunError: the disk refused.
        """
        if known is None or not known.digest:
            array = np.asarray(array)
            known = Place(self.path, 0, array.dtype.str, array.shape, digest_of(array))
        with self._lock, explained(self.path):
            offset = self._known.get(known.digest)
            if offset is None:
                offset = self._known[known.digest] = self._file.add(array).offset
        return dataclasses.replace(known, path=self.path, offset=offset)

    def keep(self, arrays: Mapping[str, Array]) -> Kept:
        """Keeps a whole mapping, one array at a time; those that are known from their file's digests are not read."""
        return Kept({name: self._kept(arrays, name) for name in arrays})

    def _kept(self, arrays: Mapping[str, Array], name: str) -> Place:
        known = located(arrays, name)
        if known is None or known.digest not in self._known:
            return self.put(np.asarray(arrays[name]), known)
        return dataclasses.replace(known, path=self.path, offset=self._known[known.digest])

    def get(self, place: Place) -> Array:
        """Reads one array, or maps it where it is large; it must not be written to."""
        return place.shown()

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
        self._folder.cleanup()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
