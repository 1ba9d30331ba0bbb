"""V1 checkpoints of tf.train.Saver: one table, or one for each device, that holds the tensors themselves.

The empty key holds what tensors there are, in which slices; each slice has its key (`wire.slice_key`) and its elements
as a TensorProto, integers as varints. A tensor that is not partitioned is one slice. Source:
tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_writer.h and saved_tensor_slice_util.h.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfport.checkpoints import wire
from tfport.checkpoints.bundle import (
    check_cover,
    check_sinkable,
    cut,
    decoded_texts,
    encoded_lengths,
)
from tfport.checkpoints.contents import (
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
from tfport.checkpoints.table import PIECE, Table, TableWriter, Value
from tfport.checkpoints.wire import BYTES, FIXED32, FIXED64, VARINT, Field, Slice, Window, WireError
from tfport.errors import CheckpointError
from tfport.files import explained

_INT, _HALF, _STRING = 7, 13, 8

_FIELDS: dict[str, tuple[int, int]] = {
    "float32": (5, FIXED32),
    "float64": (6, FIXED64),
    "complex64": (9, FIXED32),
    "complex128": (12, FIXED64),
    "int32": (_INT, VARINT),
    "int16": (_INT, VARINT),
    "int8": (_INT, VARINT),
    "uint16": (_INT, VARINT),
    "uint8": (_INT, VARINT),
    "qint32": (_INT, VARINT),
    "qint8": (_INT, VARINT),
    "quint8": (_INT, VARINT),
    "int64": (10, VARINT),
    "bool": (11, VARINT),
    "float16": (_HALF, VARINT),
    STRING: (_STRING, BYTES),
}
"""What V1 holds: dtype -> TensorProto's field and its wire type. TensorFlow's Saver refuses every other dtype."""

_CONTENT = 4
"""TensorProto's field for bytes in memory's order; TensorFlow writes none here."""

_LIMIT = (1 << 31) - 1
"""Bytes that a message may have."""

_VARINTS = 256 << 10
"""Bytes of varints that are decoded at once, and integers that are encoded at once."""

_SHARD = re.compile(r"(.*)-(\d{5}|\?{5})-of-(\d{5}|\?{5})")


@dataclass(frozen=True, slots=True)
class _Piece:
    """One slice of a tensor, and the file that has it."""

    table: int
    extents: Slice
    """As it is stored, whole dimensions as such."""
    resolved: Slice

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(length for _, length in self.resolved)


@dataclass
class _Tensor:
    """What the meta entries tell of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    pieces: list[_Piece] = field(default_factory=list)
    axis: int | None = 0


def _files(path: Path) -> list[Path]:
    """The files of a checkpoint: the path, or all that it is one of.

    Raises:
      CheckpointError: there is none, or one is missing.
    """
    matched = _SHARD.fullmatch(path.name)
    found = [] if matched else [path] if path.is_file() else sorted(path.parent.glob(f"{path.name}-?????-of-?????"))
    if matched:
        stem, _, count = matched.groups()
        found = [path] if path.is_file() else sorted(path.parent.glob(f"{stem}-?????-of-{count}"))
    found = [each for each in found if _SHARD.fullmatch(each.name) or each == path]
    if not found:
        raise CheckpointError(f"{path} does not exist: expected a V1 checkpoint's file, or the name its files share.")
    matched = _SHARD.fullmatch(found[0].name)
    if not matched or "?" in matched[3]:
        return found
    stem, count = matched[1], int(matched[3])
    files = []
    for which in range(count):
        each = path.with_name(f"{stem}-{which:05d}-of-{count:05d}")
        if not each.is_file():
            raise CheckpointError(
                f"{each} is missing: the checkpoint has {count} files. Put it beside {found[0].name}, or take another "
                "copy of the checkpoint."
            )
        files.append(each)
    return files


class V1Source(Source):
    """An open V1 checkpoint: what tensors there are is in memory, and where their blocks lie."""

    def __init__(self, path: Path) -> None:
        """Reads each file's index and its first entry.

        Args:
          path: the file; of a sharded checkpoint any of its files, or the name with or without "-?????-of-00002".

        Raises:
          CheckpointError: a file is missing or damaged.
        """
        matched = _SHARD.fullmatch(path.name)
        self.path = path.with_name(matched[1]) if matched else path
        self.format = "tf1-v1"
        self.tensors = {}
        self.written_by = {}
        self._tables: list[Table] = []
        self._found: dict[str, _Tensor] = {}
        try:
            for each in _files(path):
                self._tables.append(Table(each))
                self._meta(len(self._tables) - 1)
            for key, tensor in self._found.items():
                try:
                    tensor.axis = check_cover([piece.resolved for piece in tensor.pieces], tensor.shape)
                except WireError as error:
                    raise damaged(path, f"{key}: {error}") from None
                tensor.pieces.sort(key=lambda piece: piece.resolved)
                self.tensors[key] = Stored(key, tensor.shape, tensor.dtype)
            check_names(path, self.tensors)
        except BaseException:
            self.close()
            raise

    def _meta(self, which: int) -> None:
        """Reads what tensors one of the files has."""
        table = self._tables[which]
        value = table.find(b"")
        if value is None:
            raise damaged(table.path, "it is a table of TensorFlow's without the entry that tells what tensors it has")
        try:
            for number, data in wire.fields(value.read()):
                if number != 1:
                    continue
                for inner, each in wire.fields(wire.message(data)):
                    if inner == 1:
                        self._add(which, wire.message(each))
                    elif inner == 2:
                        self.written_by["checkpoint producer"] = str(wire.producer(wire.message(each)))
        except WireError as error:
            raise damaged(table.path, f"what it tells of its tensors makes no sense: {error}") from None

    def _add(self, which: int, data: bytes) -> None:
        """Takes up a SavedSliceMeta."""
        name, dtype = "", ""
        shape: tuple[int, ...] = ()
        slices: list[Slice] = []
        for number, value in wire.fields(data):
            if number == 1:
                name = wire.text(value)
            elif number == 2:
                shape = wire.shape(wire.message(value))
            elif number == 3:
                dtype = wire.dtype(value)
            elif number == 4:
                slices.append(wire.tensor_slice(wire.message(value)))
        if dtype not in _FIELDS:
            raise WireError(f"{name!r} is of {dtype or 'no dtype'}, which a V1 checkpoint does not hold")
        if not slices:
            raise WireError(f"{name!r} has no slices")
        known = self._found.setdefault(name, _Tensor(shape, dtype))
        if (known.shape, known.dtype) != (shape, dtype):
            raise WireError(f"{name!r} has two shapes or dtypes")
        known.pieces += [_Piece(which, each, wire.resolved(each, shape)) for each in slices]

    def chunks(self, key: str) -> Iterator[Bytes]:
        """As `Source.chunks`; texts in the form that `bundle.Texts` describes. A tensor that is partitioned along
        another axis than its first is put together in memory.
        """
        tensor = self._found[key]
        if tensor.dtype == STRING and len(tensor.pieces) > 1:
            texts = self.strings(key)
            yield from cut(encoded_lengths(len(each) for each in texts) + b"".join(texts))
        elif tensor.axis == 0:
            for piece in tensor.pieces:
                yield from self._stream(key, piece)
        else:
            width = wire.element_size(tensor.dtype) or 1
            whole = np.empty((*tensor.shape, width), np.uint8)
            for piece in tensor.pieces:
                raw = b"".join(self._stream(key, piece))
                where = tuple(slice(start, start + length) for start, length in piece.resolved)
                whole[where] = np.frombuffer(raw, np.uint8).reshape(*piece.shape, width)
            yield from cut(whole)

    def strings(self, key: str) -> list[bytes]:
        """The texts of a tensor, in C order.

        Raises:
          CheckpointError: it is damaged, or not of texts.
        """
        tensor = self._found[key]
        if tensor.dtype != STRING:
            raise CheckpointError(f"{self.path}: {key} is of {tensor.dtype}, not of texts.")
        whole = np.empty(tensor.shape, object)
        for piece in tensor.pieces:
            texts = decoded_texts(b"".join(self._stream(key, piece)), math.prod(piece.shape))
            part = np.empty(len(texts), object)
            part[:] = texts
            where = tuple(slice(start, start + length) for start, length in piece.resolved)
            whole[where] = part.reshape(piece.shape)
        return list(whole.reshape(-1))

    def _stream(self, key: str, piece: _Piece) -> Iterator[bytes]:
        """The elements of one slice."""
        table = self._tables[piece.table]
        dtype = self._found[key].dtype
        try:
            value = table.find(wire.slice_key(key, piece.extents))
            if value is None:
                raise WireError("it is announced and has no entry")
            count = math.prod(piece.shape)
            number, kind = _FIELDS[dtype]
            runs = self._runs(key, value, number)
            if dtype == STRING:
                yield from self._texts(value, runs, count)
                return
            expected = count * (wire.element_size(dtype) or 1)
            written = 0
            for chunk in _numbers(value, runs, kind, dtype):
                written += len(chunk)
                if written > expected:
                    break
                yield chunk
            if written != expected:
                raise WireError(
                    f"it holds {'more' if written > expected else f'{written:,}'} bytes of elements, where its shape "
                    f"{list(piece.shape)} of {dtype} has {expected:,}"
                )
        except WireError as error:
            raise damaged(table.path, f"{key}: {error}") from None

    def _runs(self, key: str, value: Value, number: int) -> list[Field]:
        """Where a slice's elements lie in its entry, a SavedTensorSlices; their bytes are not read.

        A tensor may have its elements as bytes (`tensor_content`) instead of in the field of its dtype.
        """
        found: list[Field] = []
        content: list[Field] = []
        for outer in wire.scan(Window(value.fetch, 0, value.size)):
            if outer.number != 2 or outer.kind != BYTES:
                continue
            for inner in wire.scan(Window(value.fetch, outer.start, outer.end)):
                if (
                    inner.number == 1
                    and value.fetch(inner.start, min(inner.end - inner.start, 1 << 20)) != key.encode()
                ):
                    raise WireError("its entry belongs to another tensor")
                if inner.number != 3 or inner.kind != BYTES:
                    continue
                for each in wire.scan(Window(value.fetch, inner.start, inner.end)):
                    if each.number == number:
                        found.append(each)
                    elif each.number == _CONTENT and each.kind == BYTES and number != _STRING:
                        content.append(each)
        return found or content[-1:]

    def _texts(self, value: Value, runs: list[Field], count: int) -> Iterator[bytes]:
        if len(runs) != count or any(each.kind != BYTES for each in runs):
            raise WireError(f"it holds {len(runs):,} texts, where its shape has {count:,}")
        yield from cut(encoded_lengths(each.end - each.start for each in runs))
        for each in runs:
            for place in range(each.start, each.end, PIECE):
                yield value.fetch(place, min(PIECE, each.end - place))

    def contents(self) -> Contents:
        """What each tensor is, by the conventions of TF1's names."""
        from tfport.checkpoints import tf1_names

        return tf1_names.contents(self)

    def close(self) -> None:
        """Closes the files."""
        for table in self._tables:
            table.close()


def _numbers(value: Value, runs: list[Field], kind: int, dtype: str) -> Iterator[bytes]:
    """The elements that lie in runs of a value, as they lie in memory."""
    for run in runs:
        if run.kind == BYTES and (run.number == _CONTENT or kind != VARINT):
            for place in range(run.start, run.end, PIECE):
                yield value.fetch(place, min(PIECE, run.end - place))
        elif run.kind == BYTES:
            yield from _varints(value, run, dtype)
        elif run.kind != kind:
            raise WireError("its elements are of another wire type than its dtype has")
        elif kind == VARINT:
            yield _narrowed(np.array([run.value], np.uint64), dtype)
        else:
            yield run.value.to_bytes(8 if kind == FIXED64 else 4, "little")


def _narrowed(values: Array, dtype: str) -> bytes:
    """Varints as elements of a dtype: integers keep their low bits, as protobuf has it."""
    if dtype == "bool":
        return bytes((values != 0).data)
    return bytes(values.astype(f"<u{wire.element_size(dtype)}").data)


def _varints(value: Value, run: Field, dtype: str) -> Iterator[bytes]:
    """The elements of a packed run of varints."""
    left = b""
    for place in range(run.start, run.end, _VARINTS):
        data = left + value.fetch(place, min(_VARINTS, run.end - place))
        values, used = decoded(np.frombuffer(data, np.uint8))
        left = data[used:]
        if len(left) > 10:
            raise WireError("a number is longer than ten bytes")
        yield _narrowed(values, dtype)
    if left:
        raise WireError("a number does not end")


def decoded(data: Array) -> tuple[Array, int]:
    """The whole varints that bytes begin with.

    Args:
      data: uint8, shape (n,).

    Returns: uint64, shape (m,), and how many bytes they take.

    Raises:
      WireError: one is longer than ten bytes.
    """
    ends = np.flatnonzero(data < 128)
    if not len(ends):
        return np.empty(0, np.uint64), 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise WireError("a number is longer than ten bytes")
    values = (data[starts] & 127).astype(np.uint64)
    for place in range(1, longest):
        which = np.flatnonzero(lengths > place)
        values[which] |= (data[starts[which] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values, int(ends[-1]) + 1


def encoded(values: Array) -> bytes:
    """Integers of shape (n,) as varints; negative ones take ten bytes."""
    wide = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values.astype(np.uint64)
    lengths = np.ones(len(wide), np.int64)
    for place in range(1, 10):
        lengths += wide >> np.uint64(7 * place) != 0
    starts = np.cumsum(lengths) - lengths
    data = np.empty(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=0))):
        which = np.flatnonzero(lengths > place)
        bits = (wide[which] >> np.uint64(7 * place)).astype(np.uint8) & 127
        data[starts[which] + place] = bits | np.where(lengths[which] > place + 1, 128, 0).astype(np.uint8)
    return data.tobytes()


class V1Sink(Sink):
    """A V1 checkpoint that is being written, one file; each tensor is one slice in a block of its own.

    Integers, texts and booleans are held in memory in their encoded form, one tensor at a time. Tensors of texts
    come in the form that `V1Source.chunks` and `BundleSource.chunks` give.
    """

    def __init__(
        self,
        path: Path,
        tensors: Iterable[Stored],
        contents: Contents | None = None,  # noqa: ARG002
        template: Source | None = None,  # noqa: ARG002
    ) -> None:
        """Opens the file.

        Args:
          path: the file.
          tensors: headers of all that will be written, in any order.
          contents: not used.
          template: not used.

        Raises:
          CheckpointError: a tensor is of a dtype that V1 does not have or beyond its 2 GB, or a name occurs twice.
          RunError: the disk refused.
        """
        self.path = path
        self.tensors = check_sinkable(path, tensors, _FIELDS, "a V1 checkpoint of TensorFlow's")
        for stored in self.tensors.values():
            width = wire.element_size(stored.dtype) or 1
            if stored.parameters * (1 if _FIELDS[stored.dtype][1] == VARINT else width) > _LIMIT - 4096:
                raise self._too_large(stored.key)
        self._written: dict[str, bytes] = {}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("wb", buffering=64 << 10)
        self._table = TableWriter(self._file)

    def _too_large(self, key: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be written: {key}, of shape {list(self.tensors[key].shape)}, is beyond the 2 GB that "
            "one tensor may have in a V1 checkpoint; write a V2 checkpoint."
        )

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes a tensor.

        Raises:
          RunError: the disk refused.
          CheckpointError: what came is not what was announced, or is beyond 2 GB once it is encoded.
        """
        stored = self.tensors[key]
        number, kind = _FIELDS[stored.dtype]
        elements: Iterable[bytes]
        if kind == VARINT:
            elements = _as_varints(chunks, stored.dtype)
        elif kind == BYTES:
            elements = self._as_texts(key, chunks)
        else:
            elements = (each if isinstance(each, bytes) else bytes(each) for each in chunks)
        if kind in (VARINT, BYTES):
            try:
                elements = list(elements)
            except ValueError:
                raise self._misfit(stored) from None
            size = sum(map(len, elements))
            if kind == VARINT and sum(map(_count, elements)) != stored.parameters:
                raise self._misfit(stored)
        else:
            size = stored.nbytes
        head = b"" if kind == BYTES or not size else wire.varint(number << 3 | BYTES) + wire.varint(size)
        head = wire.varint(3 << 3 | BYTES) + wire.varint(len(head) + size) + head
        whole: Slice = ((0, wire.WHOLE),) * len(stored.shape)
        head = wire.bytes_field(1, key.encode()) + wire.bytes_field(2, wire.slice_message(whole)) + head
        head = wire.varint(2 << 3 | BYTES) + wire.varint(len(head) + size) + head
        if len(head) + size > _LIMIT:
            raise self._too_large(key)
        try:
            with explained(self.path):
                self._table.add_alone(wire.slice_key(key, whole), len(head) + size, _chained(head, elements))
        except ValueError:
            raise self._misfit(stored) from None
        self._written[key] = (
            wire.bytes_field(1, key.encode())
            + wire.bytes_field(2, wire.shape_message(stored.shape))
            + wire.number_field(3, wire.DTYPE_NUMBERS[stored.dtype])
            + wire.bytes_field(4, wire.slice_message(whole))
        )

    def _misfit(self, stored: Stored) -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be written: {stored.key} did not come with the {stored.parameters:,} element(s) of "
            f"its shape {list(stored.shape)} of {stored.dtype}."
        )

    def _as_texts(self, key: str, chunks: Iterable[Bytes]) -> Iterator[bytes]:
        """Each text as a field of TensorProto's."""
        raw = b"".join(chunks)
        try:
            texts = decoded_texts(raw, self.tensors[key].parameters)
        except WireError as error:
            raise CheckpointError(f"{self.path} cannot be written: the texts of {key}: {error}.") from None
        for each in texts:
            yield wire.varint(_STRING << 3 | BYTES) + wire.varint(len(each)) + each

    def finish(self) -> None:
        """Writes what tensors there are, and the table's index; closes the file.

        Raises:
          CheckpointError: a tensor that was announced did not come.
          RunError: the disk refused.
        """
        missing = [key for key in self.tensors if key not in self._written]
        if missing:
            raise CheckpointError(f"{self.path} cannot be written: {missing[0]} was announced and did not come.")
        metas = [wire.bytes_field(1, self._written[key]) for key in self.tensors]
        versions = wire.bytes_field(2, wire.number_field(1, wire.MAX_VERSION))
        meta = wire.bytes_field(1, b"".join([*metas, versions]))
        with explained(self.path):
            self._table.add_alone(b"", len(meta), [meta])
            self._table.finish()
            self._file.close()

    def abandon(self) -> None:
        """Closes the file."""
        with explained(self.path):
            self._file.close()


def _chained(head: bytes, elements: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from elements


def _count(varints: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(varints, np.uint8) < 128))


def _as_varints(chunks: Iterable[Bytes], dtype: str) -> Iterator[bytes]:
    """Elements as varints; one that lies across two chunks too."""
    width = wire.element_size(dtype) or 1
    signed = dtype.startswith(("int", "qint"))
    element: np.dtype[Any] = np.dtype(f"<{'i' if signed else 'u'}{width}")
    left = b""
    for chunk in chunks:
        data = left + bytes(chunk) if left else bytes(chunk)
        used = len(data) - len(data) % width
        left = data[used:]
        values = np.frombuffer(data, element, used // width)
        for place in range(0, len(values), _VARINTS):
            yield encoded(values[place : place + _VARINTS])
    if left:
        raise ValueError("an element is cut")
