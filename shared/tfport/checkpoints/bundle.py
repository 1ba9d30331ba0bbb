"""V2 checkpoints of TensorFlow's, of tf.train.Saver and of tf.train.Checkpoint: `<prefix>.index` and its data files.

The index is a table (`table.py`). Its first entry, with the empty key, tells how many data files there are; each other
one tells where a tensor lies and what the checksum of its bytes is. A partitioned tensor has an entry with the slices,
and one entry for each of them. Source: tensorflow/core/protobuf/tensor_bundle.proto and
tensorflow/core/util/tensor_bundle.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from tfport.checkpoints import wire
from tfport.checkpoints.contents import (
    CHUNK,
    STRING,
    Array,
    Bytes,
    Contents,
    Sink,
    Source,
    Stored,
    check_names,
    damaged,
)
from tfport.checkpoints.table import PIECE, FileReader, Table, TableWriter, extended, masked
from tfport.checkpoints.wire import Slice, WireError
from tfport.errors import CheckpointError
from tfport.files import explained

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key under which tf.train.Checkpoint keeps what belongs to what."""

_OPEN_SHARDS = 32
_MAX_PIECES = 10_000
"""Pieces of a tensor that is partitioned along several axes; along one there may be any number."""


class Texts:
    """Follows the bytes of a tensor of texts as they pass, and computes their checksum.

    The form of such a tensor: each text's length as a varint, the checksum of the lengths in four bytes, the texts. The
    tensor's checksum is over the lengths as fixed32 (fixed64 above 4 GiB), those four bytes, and the texts.
    """

    def __init__(self, count: int) -> None:
        """For `count` texts."""
        self.lengths: list[int] = []
        self.checksum = 0
        self._left = count
        self._value = self._shift = 0
        self._mark = b""
        self._marked = False
        self._missing = 0

    def pass_by(self, chunk: bytes) -> None:
        """The next bytes.

        Raises:
          WireError: they are not in the form, or more than the lengths tell.
        """
        place = 0
        fixed = bytearray()
        while self._left and place < len(chunk):
            byte = chunk[place]
            place += 1
            self._value |= (byte & 127) << self._shift
            self._shift += 7
            if byte < 128:
                if self._value >> 48:
                    raise WireError(f"a text of {self._value:,} bytes is announced")
                fixed += self._value.to_bytes(4 if self._value < 1 << 32 else 8, "little")
                self.lengths.append(self._value)
                self._missing += self._value
                self._value = self._shift = 0
                self._left -= 1
            elif self._shift > 63:
                raise WireError("a text's length does not end")
        self.checksum = extended(self.checksum, bytes(fixed))
        if not self._left and not self._marked:
            taken = chunk[place : place + 4 - len(self._mark)]
            self._mark += taken
            place += len(taken)
            if len(self._mark) == 4:
                self._marked = True
                if struct.unpack("<I", self._mark)[0] != masked(self.checksum):
                    raise WireError("the lengths of its texts do not fit their checksum")
                self.checksum = extended(self.checksum, self._mark)
        if place < len(chunk):
            self._missing -= len(chunk) - place
            if self._missing < 0:
                raise WireError("it holds more bytes than the lengths of its texts tell")
            self.checksum = extended(self.checksum, chunk[place:] if place else chunk)

    def end(self) -> None:
        """Raises WireError unless all of it passed by."""
        if self._left or not self._marked or self._missing:
            raise WireError("it ends before its texts do")


def encoded_lengths(lengths: Iterable[int]) -> bytes:
    """What stands before the texts of a tensor: their lengths, and the checksum of those."""
    encoded, fixed = bytearray(), bytearray()
    for length in lengths:
        encoded += wire.varint(length)
        fixed += length.to_bytes(4 if length < 1 << 32 else 8, "little")
    return bytes(encoded) + struct.pack("<I", masked(extended(0, bytes(fixed))))


def decoded_texts(raw: bytes, count: int) -> list[bytes]:
    """The texts of a tensor of `count`.

    Raises:
      WireError: the bytes are not in the form.
    """
    texts = Texts(count)
    texts.pass_by(raw)
    texts.end()
    place = len(raw) - sum(texts.lengths)
    found = []
    for length in texts.lengths:
        found.append(raw[place : place + length])
        place += length
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a tensor's bytes, or those of one slice of it, lie."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[Slice, ...]


def _piece(data: bytes) -> _Piece:
    """A BundleEntryProto."""
    dtype, shard, offset, size, checksum = "", 0, 0, 0, 0
    sizes: tuple[int, ...] = ()
    slices: list[Slice] = []
    for which, value in wire.fields(data):
        if which == 1:
            dtype = wire.dtype(value)
        elif which == 2:
            sizes = wire.shape(wire.message(value))
        elif which == 3:
            shard = wire.number(value)
        elif which == 4:
            offset = wire.number(value)
        elif which == 5:
            size = wire.number(value)
        elif which == 6:
            checksum = wire.number(value)
        elif which == 7:
            slices.append(wire.tensor_slice(wire.message(value)))
    if not dtype:
        raise WireError("it has no dtype")
    if min(shard, offset, size) < 0:
        raise WireError("it lies at a negative place")
    return _Piece(dtype, sizes, shard, offset, size, checksum, tuple(slices))


def check_cover(extents: list[Slice], shape: tuple[int, ...]) -> int | None:
    """Makes sure that slices cover a tensor exactly, each element once.

    Args:
      extents: the slices, resolved: every length told.
      shape: the tensor's.

    Returns: the one axis along which they divide it, 0 when there is only one slice; None when there are several axes.

    Raises:
      WireError: they leave something out, overlap, or are more than are read.
    """
    extents = [each for each in extents if all(length for _, length in each)]
    if sum(math.prod(length for _, length in each) for each in extents) != math.prod(shape):
        raise WireError("its slices do not cover it exactly")
    divided = [axis for axis, size in enumerate(shape) if any(each[axis] != (0, size) for each in extents)]
    if len(divided) <= 1:
        place = 0
        for start, length in sorted(each[divided[0]] for each in extents) if divided else ():
            if start != place:
                raise WireError("its slices overlap")
            place += length
        return divided[0] if divided else 0
    if len(extents) > _MAX_PIECES:
        raise WireError(f"it is cut into {len(extents):,} slices along several axes; at most {_MAX_PIECES:,} are read")
    starts = np.array([[start for start, _ in each] for each in extents])
    ends = starts + np.array([[length for _, length in each] for each in extents])
    for which in range(len(extents)):
        low = np.maximum(starts[which], starts[which + 1 :])
        high = np.minimum(ends[which], ends[which + 1 :])
        if np.any(np.all(low < high, axis=1)):
            raise WireError("its slices overlap")
    return None


class BundleSource(Source):
    """An open V2 checkpoint: its index is in memory."""

    def __init__(self, prefix: Path) -> None:
        """Reads the index and the sizes of the data files.

        Args:
          prefix: the checkpoint's name as TensorFlow takes it, without ".index".

        Raises:
          CheckpointError: a file is missing or damaged, or the index tells of what the data files do not hold.
        """
        self.path = prefix
        self.index = prefix.with_name(f"{prefix.name}.index")
        self.tensors = {}
        self.written_by = {}
        self._pieces: dict[str, list[tuple[Slice, _Piece]]] = {}
        self._axes: dict[str, int | None] = {}
        self._shards: OrderedDict[int, FileReader] = OrderedDict()
        self._count = 0
        table = Table(self.index)
        try:
            self._read(table)
        finally:
            table.close()
        self.format = "tf2" if OBJECT_GRAPH in self.tensors else "tf1-v2"

    def _read(self, table: Table) -> None:
        entries = iter(table)
        key, value = next(entries, (None, None))
        if key != b"" or value is None:
            raise damaged(self.index, "it does not begin with the header of a checkpoint")
        what = "its header"
        whole: dict[str, _Piece] = {}
        parts: dict[bytes, _Piece] = {}
        try:
            self._header(value.read())
            for key, value in entries:
                what = f"its entry {key[:80]!r}"
                entry = _piece(value.read())
                if key.startswith(b"\0"):
                    parts[key] = entry
                else:
                    name = wire.text(key)
                    whole[name] = entry
                    self.tensors[name] = Stored(name, entry.shape, entry.dtype)
            for name, entry in whole.items():
                what = name
                self._resolve(name, entry, parts)
        except WireError as error:
            raise damaged(self.index, f"{what} makes no sense: {error}") from None
        if parts:
            raise damaged(self.index, f"it holds {len(parts)} slice(s) of no tensor, first {min(parts)[:80]!r}")
        check_names(self.index, self.tensors)
        self._check_places()

    def _header(self, data: bytes) -> None:
        """A BundleHeaderProto."""
        made = 0
        for which, value in wire.fields(data):
            if which == 1:
                self._count = wire.number(value)
            elif which == 2 and wire.number(value):
                raise CheckpointError(
                    f"{self.index} was written on a big-endian machine, and those checkpoints are not read: load it "
                    "with TensorFlow on such a machine and save it on a little-endian one."
                )
            elif which == 3:
                made = wire.producer(wire.message(value))
        if self._count < 1:
            raise WireError(f"it tells of {self._count} data files")
        self.written_by["bundle producer"] = str(made)

    def _resolve(self, name: str, entry: _Piece, parts: dict[bytes, _Piece]) -> None:
        """Finds a tensor's pieces, in C order of their places where that is their order in the tensor."""
        if not entry.slices:
            self._pieces[name] = [(tuple((0, size) for size in entry.shape), entry)]
            self._axes[name] = 0
            return
        pieces = []
        for each in entry.slices:
            found = parts.pop(wire.slice_key(name, each), None)
            if found is None:
                raise WireError(f"its slice {list(each)} has no entry")
            extents = wire.resolved(each, entry.shape)
            if found.dtype != entry.dtype or found.shape != tuple(length for _, length in extents) or found.slices:
                raise WireError(f"its slice {list(each)} has the shape {list(found.shape)} and dtype {found.dtype}")
            pieces.append((extents, found))
        if len(pieces) == 1 and pieces[0][1].shape != entry.shape:
            # TF1 names the slots of a partitioned variable's parts one by one when its optimizer stands in a scope.
            part = pieces[0][1]
            self.tensors[name] = Stored(name, part.shape, part.dtype)
            self._pieces[name] = [(tuple((0, size) for size in part.shape), part)]
            self._axes[name] = 0
            return
        self._axes[name] = check_cover([extents for extents, _ in pieces], entry.shape)
        pieces.sort(key=lambda piece: (piece[0], piece[1].offset))
        spans = sorted((piece.shard, piece.offset, piece.offset + piece.size) for _, piece in pieces)
        for one, two in pairwise(spans):
            if one[0] == two[0] and one[2] > two[1]:
                raise WireError("two of its slices lie in the same bytes")
        self._pieces[name] = pieces

    def shard(self, which: int) -> Path:
        """The path of a data file."""
        return self.path.with_name(f"{self.path.name}.data-{which:05d}-of-{self._count:05d}")

    def _check_places(self) -> None:
        """Compares what the index tells with the sizes of the data files."""
        sizes: dict[int, int] = {}
        for name, pieces in self._pieces.items():
            for _, piece in pieces:
                if piece.shard >= self._count:
                    raise damaged(
                        self.index, f"{name} lies in data file {piece.shard}, and there are {self._count} of them"
                    )
                if piece.shard not in sizes:
                    path = self.shard(piece.shard)
                    try:
                        sizes[piece.shard] = path.stat().st_size
                    except FileNotFoundError:
                        raise CheckpointError(
                            f"{path} is missing: {self.index.name} has {name} and perhaps more in it. Put it beside "
                            f"the other files of the checkpoint ({self._count} data file(s) in all)."
                        ) from None
                    except OSError as error:
                        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
                if piece.offset + piece.size > sizes[piece.shard]:
                    raise CheckpointError(
                        f"{self.shard(piece.shard)} has {sizes[piece.shard]:,} bytes, and {self.index.name} has {name} "
                        f"at bytes {piece.offset:,} to {piece.offset + piece.size:,}: one of them is cut, damaged or "
                        "of another checkpoint. Take another copy of both."
                    )
                count = math.prod(piece.shape)
                size = wire.element_size(piece.dtype)
                if (size is not None and count * size != piece.size) or (
                    piece.dtype == STRING and piece.size < count + 4
                ):
                    raise damaged(
                        self.index,
                        f"{name} has {piece.size:,} bytes, which its shape {list(piece.shape)} of {piece.dtype} "
                        "does not fit",
                    )

    def _reader(self, which: int) -> FileReader:
        """An open data file; only some stay open."""
        found = self._shards.get(which)
        if found is None:
            found = self._shards[which] = FileReader(self.shard(which))
            while len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)[1].close()
        else:
            self._shards.move_to_end(which)
        return found

    def _stream(self, key: str, piece: _Piece) -> Iterator[bytes]:
        """The bytes of one piece as they lie in the file, its checksum verified before the last of them is given."""
        texts = Texts(math.prod(piece.shape)) if piece.dtype == STRING else None
        checksum = 0
        for place in range(0, piece.size, PIECE):
            chunk = self._reader(piece.shard).read(piece.offset + place, min(PIECE, piece.size - place))
            last = place + len(chunk) == piece.size
            if texts is None:
                checksum = extended(checksum, chunk)
            else:
                try:
                    texts.pass_by(chunk)
                    if last:
                        texts.end()
                except WireError as error:
                    raise damaged(self.shard(piece.shard), f"the texts of {key}: {error}") from None
                checksum = texts.checksum
            if last:
                self._verify(key, piece, checksum)
            yield chunk
        if not piece.size:
            self._verify(key, piece, 0)

    def _verify(self, key: str, piece: _Piece, checksum: int) -> None:
        if masked(checksum) != piece.checksum:
            raise damaged(
                self.shard(piece.shard),
                f"{key}, at bytes {piece.offset:,} to {piece.offset + piece.size:,}, does not fit its checksum",
            )

    def chunks(self, key: str) -> Iterator[Bytes]:
        """As `Source.chunks`; texts in the form that `Texts` describes. A tensor that is partitioned along another axis
        than its first is put together in memory.
        """
        stored, pieces = self.tensors[key], self._pieces[key]
        if stored.dtype in ("variant", "resource"):
            raise CheckpointError(
                f"{self.path}: {key} is a {stored.dtype}, whose bytes only the program that wrote it can read."
            )
        if len(pieces) == 1:
            yield from self._stream(key, pieces[0][1])
        elif stored.dtype == STRING:
            texts = self.strings(key)
            yield from cut(encoded_lengths(len(each) for each in texts) + b"".join(texts))
        elif self._axes[key] == 0:
            for _, piece in pieces:
                yield from self._stream(key, piece)
        else:
            yield from cut(self._assembled(key))

    def _assembled(self, key: str) -> Array:
        """The elements of a partitioned tensor, as bytes along a last axis."""
        stored = self.tensors[key]
        width = wire.element_size(stored.dtype) or 1
        whole = np.empty((*stored.shape, width), np.uint8)
        for extents, piece in self._pieces[key]:
            flat = np.empty(piece.size, np.uint8)
            place = 0
            for chunk in self._stream(key, piece):
                flat[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
                place += len(chunk)
            where = tuple(slice(start, start + length) for start, length in extents)
            whole[where] = flat.reshape(*piece.shape, width)
        return whole

    def strings(self, key: str) -> list[bytes]:
        """The texts of a tensor, in C order.

        Raises:
          CheckpointError: it is damaged, or not of texts.
        """
        stored, pieces = self.tensors[key], self._pieces[key]
        if stored.dtype != STRING:
            raise CheckpointError(f"{self.path}: {key} is of {stored.dtype}, not of texts.")
        found: list[list[bytes]] = []
        for _, piece in pieces:
            raw = b"".join(self._stream(key, piece))
            found.append(decoded_texts(raw, math.prod(piece.shape)))
        if len(found) == 1:
            return found[0]
        whole = np.empty(stored.shape, object)
        for (extents, piece), texts in zip(pieces, found, strict=True):
            part = np.empty(len(texts), object)
            part[:] = texts
            where = tuple(slice(start, start + length) for start, length in extents)
            whole[where] = part.reshape(piece.shape)
        return list(whole.reshape(-1))

    def contents(self) -> Contents:
        """What each tensor is: by the object graph where there is one, else by the conventions of TF1's names."""
        if self.format == "tf2":
            from tfport.checkpoints import object_graph

            return object_graph.contents(self)
        from tfport.checkpoints import tf1_names

        return tf1_names.contents(self)

    def close(self) -> None:
        """Closes the data files."""
        while self._shards:
            self._shards.popitem()[1].close()


def cut(data: bytes | Array) -> Iterator[bytes]:
    """Bytes, or an array of them, in pieces of at most CHUNK."""
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1)
    for place in range(0, len(flat), CHUNK):
        yield flat[place : place + CHUNK].tobytes()


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Writes to a file without a buffer, which may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def check_sinkable(path: Path, tensors: Iterable[Stored], dtypes: Iterable[str], what: str) -> dict[str, Stored]:
    """Headers by key.

    Raises:
      CheckpointError: a key occurs twice or is refused, or a dtype is not among those that the format has.
    """
    valid = frozenset(dtypes)
    found: dict[str, Stored] = {}
    for stored in tensors:
        if stored.key in found:
            raise CheckpointError(f"{path} cannot be written: two tensors have the name {stored.key!r}.")
        if stored.dtype not in valid:
            raise CheckpointError(
                f"{path} cannot be written: {stored.key} is of {stored.dtype}, which {what} does not hold."
            )
        found[stored.key] = stored
    check_names(path, found)
    return found


class BundleSink(Sink):
    """A V2 checkpoint that is being written: one data file, and the index at the end.

    Tensors of texts come in the form that `BundleSource.chunks` and `V1Source.chunks` give. A tensor that was
    partitioned is written whole; TensorFlow restores pieces out of it.
    """

    def __init__(
        self,
        path: Path,
        tensors: Iterable[Stored],
        contents: Contents | None = None,  # noqa: ARG002
        template: Source | None = None,  # noqa: ARG002
    ) -> None:
        """Opens the data file.

        Args:
          path: the prefix.
          tensors: headers of all that will be written, in any order.
          contents: not used: an object graph comes as the tensor that it is.
          template: not used, for the same reason.

        Raises:
          CheckpointError: a tensor is of a dtype that TensorFlow does not have, or a name occurs twice.
          RunError: the disk refused.
        """
        self.path = path
        self.tensors = check_sinkable(
            path, tensors, wire.DTYPE_NUMBERS.keys() - {"variant", "resource"}, "a checkpoint of TensorFlow's"
        )
        self._data = path.with_name(f"{path.name}.data-00000-of-00001")
        self._entries: dict[bytes, bytes] = {}
        self._place = 0
        with explained(self._data):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self._data.open("wb", buffering=0)
            # Its length beforehand: flushing a file that grows waits for the file system's journal each time.
            self._file.truncate(sum(each.nbytes for each in self.tensors.values()))

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes a tensor.

        Raises:
          RunError: the disk refused.
          CheckpointError: what came is not what was announced.
        """
        stored = self.tensors[key]
        texts = Texts(stored.parameters) if stored.dtype == STRING else None
        checksum = size = 0
        try:
            for chunk in chunks:
                data = chunk if isinstance(chunk, bytes) else bytes(chunk)
                if texts is None:
                    checksum = extended(checksum, data)
                else:
                    texts.pass_by(data)
                size += len(data)
                with explained(self._data):
                    _write_all(self._file, data)
            if texts is not None:
                texts.end()
                checksum = texts.checksum
        except WireError as error:
            raise CheckpointError(f"{self.path} cannot be written: the texts of {key}: {error}.") from None
        width = wire.element_size(stored.dtype)
        if width is not None and size != width * stored.parameters:
            raise CheckpointError(
                f"{self.path} cannot be written: {key} came with {size:,} bytes, and its shape {list(stored.shape)} of "
                f"{stored.dtype} has {width * stored.parameters:,}."
            )
        self._entries[key.encode()] = (
            wire.number_field(1, wire.DTYPE_NUMBERS[stored.dtype])
            + wire.bytes_field(2, wire.shape_message(stored.shape))
            + wire.number_field(4, self._place)
            + wire.number_field(5, size)
            + wire.fixed32_field(6, masked(checksum))
        )
        self._place += size

    def finish(self) -> None:
        """Closes the data file and writes the index.

        Raises:
          CheckpointError: a tensor that was announced did not come.
          RunError: the disk refused.
        """
        missing = [key for key in self.tensors if key.encode() not in self._entries]
        if missing:
            raise CheckpointError(f"{self.path} cannot be written: {missing[0]} was announced and did not come.")
        with explained(self._data):
            self._file.truncate(self._place)
            self._file.close()
        index = self.path.with_name(f"{self.path.name}.index")
        with explained(index), index.open("wb") as file:
            writer = TableWriter(file)
            versions = wire.bytes_field(3, wire.number_field(1, wire.MAX_VERSION))
            writer.add(b"", wire.number_field(1, 1) + versions)
            for key in sorted(self._entries):
                writer.add(key, self._entries[key])
            writer.finish()

    def abandon(self) -> None:
        """Closes the data file."""
        with explained(self._data):
            self._file.close()
