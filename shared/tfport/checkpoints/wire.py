"""Messages in protobuf's wire format, read without generated code, and the few of TensorFlow's that checkpoints hold.

Nothing here trusts a length: each is compared with what is there before anything of that size is made. Field numbers
are those of TensorFlow's types.proto, tensor_shape.proto, tensor_slice.proto and versions.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

WINDOW = 64 << 10
"""Bytes that a `Window` fetches at once."""

MAX_RANK = 32
"""Dimensions of a tensor: numpy's limit before version 2; TensorFlow's own is 254."""

MAX_VERSION = 1
"""The newest format of checkpoints that is known here, V1 and V2 alike."""

DTYPES: dict[int, str] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}
"""TensorFlow's number of a dtype -> its name, numpy's where numpy has one."""

DTYPE_NUMBERS: dict[str, int] = {name: number for number, name in DTYPES.items()}

_SIZES = {
    "float32": 4,
    "float64": 8,
    "int32": 4,
    "int16": 2,
    "complex64": 8,
    "int64": 8,
    "qint32": 4,
    "bfloat16": 2,
    "qint16": 2,
    "quint16": 2,
    "uint16": 2,
    "complex128": 16,
    "float16": 2,
    "uint32": 4,
    "uint64": 8,
}
_UNSIZED = frozenset({"string", "resource", "variant"})


def element_size(dtype: str) -> int | None:
    """Bytes of one stored element; None for texts, resources and variants."""
    return None if dtype in _UNSIZED else _SIZES.get(dtype, 1)


class WireError(ValueError):
    """Bytes that are no message of the kind that was expected; the text says what is wrong, without a full stop."""


Fetch = Callable[[int, int], bytes]
"""(start, length) -> exactly so many bytes; raises what its maker chose when they are not there."""


class Window:
    """A cursor over bytes that are fetched piece by piece."""

    def __init__(self, fetch: Fetch, start: int, end: int) -> None:
        self.place = start
        self.end = end
        self._fetch = fetch
        self._base = start
        self._held = b""

    def _need(self, count: int) -> int:
        """Has `count` bytes from the place on in memory, or as many as are left; returns where they begin."""
        at = self.place - self._base
        if at + count > len(self._held) and self._base + len(self._held) < self.end:
            self._base = self.place
            self._held = self._fetch(self.place, max(0, min(max(count, WINDOW), self.end - self.place)))
            at = 0
        return at

    def varint(self) -> int:
        """The next varint, unsigned and below 2**64."""
        at = self._need(10)
        held = self._held
        limit = min(len(held), at + 10)
        value = shift = 0
        for place in range(at, limit):
            byte = held[place]
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    raise WireError("a number has more than 64 bits")
                self.place += place - at + 1
                return value
            shift += 7
        raise WireError("a number does not end" if limit - at < 10 else "a number is longer than ten bytes")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._check(count)
        if count > WINDOW:
            taken = self._fetch(self.place, count)
        else:
            at = self._need(count)
            taken = self._held[at : at + count]
        self.place += count
        return taken

    def skip(self, count: int) -> None:
        """Passes over `count` bytes."""
        self._check(count)
        self.place += count

    def _check(self, count: int) -> None:
        if count > self.end - self.place:
            raise WireError(f"{count:,} bytes are announced where {self.end - self.place:,} are left")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; where its bytes lie when it is of kind BYTES, else its number."""

    number: int
    kind: int
    value: int
    """The number of a VARINT, FIXED64 or FIXED32, unsigned; 0 of BYTES."""
    start: int
    end: int


def scan(window: Window) -> Iterator[Field]:
    """The fields of the message that a window spans, in their order.

    Raises:
      WireError: the bytes are no message.
    """
    while window.place < window.end:
        tag = window.varint()
        number, kind = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise WireError(f"field number {number} is none")
        value = 0
        if kind == VARINT:
            start = window.place
            value = window.varint()
        elif kind == BYTES:
            size = window.varint()
            start = window.place
            window.skip(size)
        elif kind == FIXED64:
            start = window.place
            value = int.from_bytes(window.take(8), "little")
        elif kind == FIXED32:
            start = window.place
            value = int.from_bytes(window.take(4), "little")
        else:
            raise WireError(f"wire type {kind} is none that is used")
        yield Field(number, kind, value, start, window.place)


def _held(data: bytes) -> Fetch:
    return lambda start, length: data[start : start + length]


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in memory: number and value, bytes or an unsigned number.

    Raises:
      WireError: the bytes are no message.
    """
    for field in scan(Window(_held(data), 0, len(data))):
        yield field.number, data[field.start : field.end] if field.kind == BYTES else field.value


def number(value: int | bytes) -> int:
    """A field's value as the int64 that it is.

    Raises:
      WireError: the field holds bytes.
    """
    if isinstance(value, bytes):
        raise WireError("bytes stand where a number is expected")
    return value - (1 << 64) if value >> 63 else value


def message(value: int | bytes) -> bytes:
    """A field's value as the bytes that it is.

    Raises:
      WireError: the field holds a number.
    """
    if not isinstance(value, bytes):
        raise WireError("a number stands where bytes are expected")
    return value


def text(value: int | bytes) -> str:
    """A field's value as UTF-8.

    Raises:
      WireError: it is none.
    """
    try:
        return message(value).decode()
    except UnicodeDecodeError:
        raise WireError(f"{message(value)[:40]!r} is no text") from None


def varint(value: int) -> bytes:
    """The shortest varint of an int64 or uint64; ten bytes for a negative one."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number_field(which: int, value: int) -> bytes:
    """A varint field; nothing for 0, as protobuf 3 has it."""
    return varint(which << 3 | VARINT) + varint(value) if value else b""


def fixed32_field(which: int, value: int) -> bytes:
    """A fixed32 field; nothing for 0."""
    return varint(which << 3 | FIXED32) + struct.pack("<I", value) if value else b""


def bytes_field(which: int, value: bytes) -> bytes:
    """A field of bytes, text or a message; written when empty too."""
    return varint(which << 3 | BYTES) + varint(len(value)) + value


def dtype(value: int | bytes) -> str:
    """The name of a dtype's number.

    Raises:
      WireError: it is none of TensorFlow's.
    """
    found = DTYPES.get(number(value))
    if found is None:
        raise WireError(f"{number(value)} is the number of no dtype")
    return found


def shape(data: bytes) -> tuple[int, ...]:
    """A TensorShapeProto that is fully known.

    Raises:
      WireError: it is unknown, negative, of more than MAX_RANK dimensions, or of more elements than can be counted.
    """
    sizes = []
    for which, value in fields(data):
        if which == 2:
            size = 0
            for inner, found in fields(message(value)):
                if inner == 1:
                    size = number(found)
            sizes.append(size)
        elif which == 3 and number(value):
            raise WireError("a shape has no known rank")
    if len(sizes) > MAX_RANK:
        raise WireError(f"a shape has {len(sizes)} dimensions, at most {MAX_RANK} are read")
    if any(size < 0 for size in sizes) or math.prod(max(size, 1) for size in sizes) >= 1 << 58:
        raise WireError(f"the shape {sizes} is none that a tensor can have")
    return tuple(sizes)


def shape_message(sizes: tuple[int, ...]) -> bytes:
    """The TensorShapeProto of a shape."""
    return b"".join(bytes_field(2, number_field(1, size)) for size in sizes)


WHOLE = -1
"""The length of an extent that takes a whole dimension."""

Slice = tuple[tuple[int, int], ...]
"""(start, length) of each dimension; length WHOLE, with start 0, takes all of it."""


def tensor_slice(data: bytes) -> Slice:
    """A TensorSliceProto."""
    extents = []
    for which, value in fields(data):
        if which == 1:
            start, length = 0, WHOLE
            for inner, found in fields(message(value)):
                if inner == 1:
                    start = number(found)
                elif inner == 2:
                    length = number(found)
                    if length < 0:
                        raise WireError(f"a slice has the length {length}")
            extents.append((0, WHOLE) if length == WHOLE else (start, length))
    return tuple(extents)


def slice_message(extents: Slice) -> bytes:
    """The TensorSliceProto of a slice."""
    encoded = b""
    for start, length in extents:
        inner = b"" if length == WHOLE else number_field(1, start) + varint(2 << 3 | VARINT) + varint(length)
        encoded += bytes_field(1, inner)
    return encoded


def resolved(extents: Slice, sizes: tuple[int, ...]) -> Slice:
    """A slice with every length told.

    Raises:
      WireError: it does not lie in a tensor of that shape.
    """
    if len(extents) != len(sizes):
        raise WireError(f"a slice has {len(extents)} dimensions where the tensor has {len(sizes)}")
    found = tuple(
        (start, size if length == WHOLE else length) for (start, length), size in zip(extents, sizes, strict=True)
    )
    if any(
        start < 0 or length < 0 or start + length > size for (start, length), size in zip(found, sizes, strict=True)
    ):
        raise WireError(f"the slice {list(found)} lies outside the shape {list(sizes)}")
    return found


def producer(data: bytes) -> int:
    """The producer of a VersionDef.

    Raises:
      WireError: only a newer reader may read what it stands in.
    """
    made, least = 0, 0
    refused = set()
    for which, value in fields(data):
        if which == 1:
            made = number(value)
        elif which == 2:
            least = number(value)
        elif which == 3:
            refused.update([number(value)] if isinstance(value, int) else [number(each) for each in packed(value)])
    if least > MAX_VERSION or MAX_VERSION in refused:
        raise WireError(
            f"it was written for readers of format {least} or newer, and this one knows format {MAX_VERSION}"
        )
    return made


def packed(data: bytes) -> Iterator[int]:
    """The varints of a packed field."""
    window = Window(_held(data), 0, len(data))
    while window.place < window.end:
        yield window.varint()


# The ordered code in which a piece of a partitioned tensor is named: tensorflow/core/lib/strings/ordered_code.h.


def slice_key(name: str, extents: Slice) -> bytes:
    """The key of a tensor's slice, in an order that bytes keep."""
    escaped = name.encode().replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff")
    parts = [_ordered(0), escaped, b"\x00\x01", _ordered(len(extents))]
    for start, length in extents:
        parts += [_ordered_signed(start), _ordered_signed(length)]
    return b"".join(parts)


def _ordered(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _ordered_signed(value: int) -> bytes:
    """Sign, then as many ones as there are bytes beside the first, then the number; all inverted when negative."""
    magnitude = ~value if value < 0 else value
    length = magnitude.bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & ((1 << 8 * length) - 1)) ^ header).to_bytes(length, "big")
