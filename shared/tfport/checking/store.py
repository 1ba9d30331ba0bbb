"""Arrays kept on disk, each content once, so that a check holds one tensor at a time and no copy of a model.

The two sides of a check run one after another: what the legacy side showed is kept here until the modern side shows
its own. A state that a step left unchanged, or that two rungs look at, takes no further room.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfport.checking.lazy import Lazy
from tfport.files import explained

Array = np.ndarray[Any, Any]

_SMALL = 1 << 16
"""Bytes up to which an array is read into memory; above it is mapped."""


@dataclass(frozen=True)
class Place:
    """Where an array lies."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    digest: bytes


class Kept(Lazy):
    """Arrays in a store by name, read when asked."""

    def __init__(self, store: Store, places: Mapping[str, Place]) -> None:
        super().__init__(places)
        self._store = store
        self.places = places

    def __getitem__(self, name: str) -> Array:
        return self._store.get(self.places[name])

    def same(self, name: str, other: Kept) -> bool:
        """Whether both hold the same bytes, dtype and shape under that name; nothing is read."""
        one, two = self.places.get(name), other.places.get(name)
        return (
            one is not None
            and two is not None
            and (one.digest, one.dtype, one.shape)
            == (
                two.digest,
                two.dtype,
                two.shape,
            )
        )

    def changed(self, other: Kept) -> list[str]:
        """The names whose contents differ from `other`'s, in order; a name that one side lacks is among them."""
        names = dict.fromkeys([*self.places, *other.places])
        return [name for name in names if not self.same(name, other)]


class Store:
    """A file of arrays, gone when it is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tfport-")
        self.path = Path(self._folder.name, "arrays.bin")
        self._file = self.path.open("w+b")
        self._known: dict[bytes, int] = {}
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._end

    def put(self, array: Array) -> Place:
        """Keeps one array.

        Raises:
          RunError: the disk refused.
        """
        whole = np.ascontiguousarray(array)
        data = memoryview(whole.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        digest = hashlib.blake2b(data, digest_size=16).digest()
        offset = self._known.get(digest)
        if offset is None:
            with explained(self.path):
                self._file.seek(self._end)
                self._file.write(data)
                self._file.flush()
            offset = self._known[digest] = self._end
            self._end += -(-data.nbytes // 64) * 64  # aligned for any dtype
        return Place(offset, whole.dtype.str, array.shape, digest)

    def keep(self, arrays: Mapping[str, Array]) -> Kept:
        """Keeps a whole mapping, one array at a time."""
        return Kept(self, {name: self.put(np.asarray(arrays[name])) for name in arrays})

    def get(self, place: Place) -> Array:
        """Reads one array, or maps it where it is large; it must not be written to."""
        dtype = np.dtype(place.dtype)
        count = int(np.prod(place.shape, dtype=np.int64))
        if count * dtype.itemsize <= _SMALL:
            self._file.seek(place.offset)
            return np.frombuffer(self._file.read(count * dtype.itemsize), dtype).reshape(place.shape)
        return np.memmap(self.path, dtype, "r", place.offset, place.shape)

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
