"""Tables of TensorFlow's: sorted keys with values, the container of V1 checkpoints and of a V2 checkpoint's index.

The format is leveldb's: blocks of entries whose keys leave out what they share with the key before, each block followed
by a byte for its compression and a masked CRC-32C; an index block with the place of each; at the end a footer of 48
bytes. A value may be larger than memory: a block above WHOLE_BLOCK is checked piece by piece, and its values are
fetched from the file.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cramjam
import google_crc32c

from tfport.checkpoints.contents import damaged
from tfport.checkpoints.wire import Window, WireError, varint
from tfport.errors import CheckpointError

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5
"""Bytes behind each block: how it is compressed, and its checksum."""

PIECE = 256 << 10
"""Bytes that are read at once: few enough to stay in the processor's cache until they are checked and written."""

WHOLE_BLOCK = 1 << 20
"""Bytes of the largest block that is held in memory; TensorFlow fills blocks to 256 KiB unless one value is larger."""
_HELD_BLOCKS = 4
_MAX_KEY = 1 << 20
_MAX_UNPACKED = 256 << 20
"""Bytes of the largest compressed block that is read; TensorFlow compresses none of a checkpoint's."""
_SNAPPY_RATIO = 22
"""Snappy makes 64 bytes of three at most."""
_RESTART_INTERVAL = 16
_BLOCK_SIZE = 256 << 10


def masked(checksum: int) -> int:
    """The form in which TensorFlow stores a CRC-32C."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def extended(checksum: int, data: bytes) -> int:
    """The CRC-32C of what gave `checksum` and of `data` behind it."""
    found: int = google_crc32c.extend(checksum, data)
    return found


class FileReader:
    """Reads at places of one file; names it when it is not as long as it was."""

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises:
          CheckpointError: it is not there or cannot be read.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist.") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int, length: int) -> bytes:
        """Exactly the bytes from `start` on.

        Raises:
          CheckpointError: the file ends before, or the disk fails.
        """
        if self._descriptor < 0:
            raise CheckpointError(f"{self.path} was closed.")
        parts: list[bytes] = []
        missing = length
        while missing:
            try:
                part = os.pread(self._descriptor, missing, start + length - missing)
            except (OSError, OverflowError) as error:
                raise CheckpointError(f"{self.path} cannot be read: {error}.") from None
            if not part:
                raise damaged(self.path, f"it ends at byte {start + length - missing:,}, where {missing:,} more follow")
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Closes the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


@dataclass(frozen=True)
class _Block:
    """A block whose checksum was right: its keys, and where their values lie."""

    keys: list[bytes]
    places: list[tuple[int, int]]
    """(start, length) of each value, in `data` or in the file."""
    data: bytes | None


class Value:
    """The value of one key, in memory or in the file."""

    def __init__(self, file: FileReader, block: _Block, which: int) -> None:
        self._file = file
        self._data = block.data
        self._start, self.size = block.places[which]

    def fetch(self, start: int, length: int) -> bytes:
        """Bytes of the value from `start` on."""
        place = self._start + start
        return self._file.read(place, length) if self._data is None else self._data[place : place + length]

    def read(self) -> bytes:
        """All of it."""
        return self.fetch(0, self.size)


class Table:
    """An open table: its index is in memory, its values are not."""

    def __init__(self, path: Path) -> None:
        """Reads footer and index.

        Raises:
          CheckpointError: it is not there, is no table, or is damaged.
        """
        self.path = path
        self._file = FileReader(path)
        self._held: OrderedDict[int, _Block] = OrderedDict()
        self._large: dict[int, _Block] = {}
        try:
            self._read_index()
        except BaseException:
            self._file.close()
            raise

    def _read_index(self) -> None:
        size = self._file.size
        if size < FOOTER:
            raise damaged(self.path, f"it has {size} bytes, and a table's footer alone has {FOOTER}; it is cut")
        footer = self._file.read(size - FOOTER, FOOTER)
        if footer[-8:] != MAGIC:
            raise damaged(self.path, "it does not end as a table of TensorFlow's does; it is cut or something else")
        try:
            window = Window(lambda start, length: footer[start : start + length], 0, FOOTER - 8)
            handles = [(window.varint(), window.varint()) for _ in range(2)]
            if any(footer[window.place : FOOTER - 8]):
                raise WireError("there is something where nothing belongs")
        except WireError as error:
            raise damaged(self.path, f"its footer makes no sense ({error})") from None
        self._load(*handles[0], "its block of filters")
        index = self._load(*handles[1], "its index")
        self._separators = index.keys
        self._handles: list[tuple[int, int]] = []
        for which in range(len(index.keys)):
            value = Value(self._file, index, which)
            try:
                window = Window(value.fetch, 0, value.size)
                handle = (window.varint(), window.varint())
            except WireError as error:
                raise damaged(self.path, f"its index makes no sense ({error})") from None
            self._check_inside(*handle, "its index names a block that")
            self._handles.append(handle)

    def _check_inside(self, offset: int, size: int, what: str) -> None:
        if offset + size + TRAILER > self._file.size - FOOTER:
            raise damaged(
                self.path,
                f"{what} lies at bytes {offset:,} to {offset + size + TRAILER:,}, outside the file of "
                f"{self._file.size:,} bytes",
            )

    def _load(self, offset: int, size: int, what: str) -> _Block:
        """A block, its checksum verified."""
        self._check_inside(offset, size, what)
        if size <= WHOLE_BLOCK:
            raw = self._file.read(offset, size + TRAILER)
            checksum, trailer = extended(0, raw[: size + 1]), raw[size:]
            data: bytes | None = raw[:size]
        else:
            checksum = 0
            for place in range(0, size, PIECE):
                checksum = extended(checksum, self._file.read(offset + place, min(PIECE, size - place)))
            trailer = self._file.read(offset + size, TRAILER)
            checksum = extended(checksum, trailer[:1])
            data = None
        if masked(checksum) != struct.unpack("<I", trailer[1:])[0]:
            raise damaged(self.path, f"{what}, at byte {offset:,}, does not fit its checksum")
        if trailer[0] == 1:
            data = self._unpacked(self._file.read(offset, size) if data is None else data, what)
        elif trailer[0] != 0:
            raise damaged(self.path, f"{what} is compressed in the unknown way {trailer[0]}")
        try:
            if data is None:
                return self._entries(None, offset, size)
            return self._entries(data, 0, len(data))
        except WireError as error:
            raise damaged(self.path, f"{what}, at byte {offset:,}, makes no sense ({error})") from None

    def _unpacked(self, data: bytes, what: str) -> bytes:
        """What snappy made smaller, its announced size checked before anything of that size is made."""
        try:
            announced = Window(lambda start, length: data[start : start + length], 0, len(data)).varint()
            if announced > min(_SNAPPY_RATIO * len(data) + 64, _MAX_UNPACKED):
                raise WireError(f"{len(data):,} compressed bytes announce {announced:,}")
            unpacked = bytes(cramjam.snappy.decompress_raw(data))
        except (WireError, cramjam.DecompressionError) as error:
            raise damaged(self.path, f"{what} cannot be decompressed ({error})") from None
        if len(unpacked) != announced:
            raise damaged(self.path, f"{what} announces {announced:,} bytes and holds {len(unpacked):,}")
        return unpacked

    def _entries(self, data: bytes | None, offset: int, size: int) -> _Block:
        """The entries of a block at `offset` of the data, or of the file."""

        def fetch(start: int, length: int) -> bytes:
            return self._file.read(start, length) if data is None else data[start : start + length]

        if size < 4:
            raise WireError("it is too short for a block")
        end = offset + size
        restarts = int.from_bytes(fetch(end - 4, 4), "little")
        if not 1 <= restarts <= size // 4 - 1:
            raise WireError(f"it tells of {restarts:,} restarts in {size:,} bytes")
        end -= 4 * (restarts + 1)
        window = Window(fetch, offset, end)
        keys: list[bytes] = []
        places: list[tuple[int, int]] = []
        full = {0}
        key = b""
        budget = 64 * size + _MAX_KEY
        while window.place < end:
            start = window.place
            shared, own, length = window.varint(), window.varint(), window.varint()
            if shared > len(key) or shared + own > _MAX_KEY:
                raise WireError("a key is longer than it can be")
            if not shared:
                full.add(start - offset)
            before, key = key, key[:shared] + window.take(own)
            if keys and key <= before:
                raise WireError(f"its keys are out of order at {key[:80]!r}")
            budget -= len(key)
            if budget < 0:
                raise WireError("its keys are longer than such a block can hold")
            keys.append(key)
            places.append((window.place, length))
            window.skip(length)
        window = Window(fetch, end, end + 4 * restarts)
        last = -1
        for _ in range(restarts):
            place = int.from_bytes(window.take(4), "little")
            if place <= last or place not in full:
                raise WireError(f"a restart points to byte {place:,}, where no whole key is")
            last = place
        return _Block(keys, places, data)

    def _block(self, which: int) -> _Block:
        """A block of data, the last few small ones from memory."""
        found = self._large.get(which) or self._held.get(which)
        if found is not None:
            return found
        found = self._load(*self._handles[which], f"block {which}")
        low = self._separators[which - 1] if which else None
        if found.keys and (found.keys[-1] > self._separators[which] or (low is not None and found.keys[0] <= low)):
            raise damaged(self.path, f"block {which} holds keys that its index has elsewhere")
        if found.data is None:
            self._large[which] = found
        else:
            self._held[which] = found
            while len(self._held) > _HELD_BLOCKS:
                self._held.popitem(last=False)
        return found

    def find(self, key: bytes) -> Value | None:
        """The value of a key; None when there is none.

        Raises:
          CheckpointError: the block in which it would be is damaged.
        """
        which = bisect.bisect_left(self._separators, key)
        if which == len(self._separators):
            return None
        block = self._block(which)
        place = bisect.bisect_left(block.keys, key)
        if place == len(block.keys) or block.keys[place] != key:
            return None
        return Value(self._file, block, place)

    def __iter__(self) -> Iterator[tuple[bytes, Value]]:
        """Every key with its value, in order.

        Raises:
          CheckpointError: a block is damaged.
        """
        for which in range(len(self._handles)):
            block = self._block(which)
            for place, key in enumerate(block.keys):
                yield key, Value(self._file, block, place)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _shared(one: bytes, two: bytes) -> int:
    """How many bytes two keys begin with alike."""
    if two.startswith(one):
        return len(one)
    return next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _packed(entries: Iterable[tuple[bytes, bytes]], interval: int) -> bytes:
    """A block of entries, with a whole key every `interval` of them."""
    data = bytearray()
    restarts: list[int] = []
    before = b""
    for which, (key, value) in enumerate(entries):
        shared = 0
        if which % interval:
            shared = _shared(before, key)
        else:
            restarts.append(len(data))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return bytes(data) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


class TableWriter:
    """Writes a table, uncompressed.

    `add` takes entries in order and gathers them to blocks; `add_alone` streams one value into a block of its own, at
    any time and in any order, for the index is sorted at the end. No key may lie between two that share a block.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0
        self._index: list[tuple[bytes, bytes]] = []
        self._gathered: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        """The next entry; keys ascend."""
        if self._gathered and key <= self._gathered[-1][0]:
            raise ValueError(f"{key!r} comes behind {self._gathered[-1][0]!r}")
        self._gathered.append((key, value))
        self._bytes += len(key) + len(value)
        if self._bytes >= _BLOCK_SIZE:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._index.append((self._gathered[-1][0], self._write(_packed(self._gathered, _RESTART_INTERVAL))))
            self._gathered, self._bytes = [], 0

    def _write(self, block: bytes) -> bytes:
        """Writes a block; returns its handle."""
        handle = varint(self._place) + varint(len(block))
        trailer = b"\0" + struct.pack("<I", masked(extended(0, block + b"\0")))
        self._file.write(block)
        self._file.write(trailer)
        self._place += len(block) + TRAILER
        return handle

    def add_alone(self, key: bytes, size: int, chunks: Iterable[bytes]) -> None:
        """One entry in a block of its own, its value streamed.

        Args:
          key: unique in the table.
          size: bytes of the value.
          chunks: the value's bytes.

        Raises:
          ValueError: the chunks have another size in all.
        """
        head = varint(0) + varint(len(key)) + varint(size) + key
        self._file.write(head)
        checksum = extended(0, head)
        written = 0
        for chunk in chunks:
            self._file.write(chunk)
            checksum = extended(checksum, chunk)
            written += len(chunk)
        if written != size:
            raise ValueError(f"{key!r} came with {written:,} bytes instead of {size:,}")
        tail = struct.pack("<II", 0, 1) + b"\0"
        self._file.write(tail + struct.pack("<I", masked(extended(checksum, tail))))
        length = len(head) + size + len(tail) - 1
        self._index.append((key, varint(self._place) + varint(length)))
        self._place += length + TRAILER

    def finish(self) -> None:
        """Writes the index and the footer; the file is left open."""
        self._flush()
        self._index.sort()
        handles = self._write(_packed([], 1)) + self._write(_packed(self._index, 1))
        self._file.write(handles.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)
