"""TensorFlow's tables: what is written comes back, and what is damaged or made to do harm is refused."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import pytest

from tfport.checkpoints import table as tables
from tfport.checkpoints import wire
from tfport.checkpoints.table import FOOTER, MAGIC, TRAILER, Table, TableWriter, extended, masked
from tfport.checkpoints.wire import Window, WireError, varint
from tfport.errors import CheckpointError


def written(path: Path, entries: dict[bytes, bytes]) -> Path:
    with path.open("wb") as file:
        writer = TableWriter(file)
        for key in sorted(entries):
            writer.add(key, entries[key])
        writer.finish()
    return path


def read(path: Path) -> dict[bytes, bytes]:
    table = Table(path)
    try:
        return {key: value.read() for key, value in table}
    finally:
        table.close()


def raw_table(path: Path, block: bytes, kind: int = 0, separator: bytes = b"\xff", handle: bytes | None = None) -> Path:
    """A table of one data block, its checksums right whatever the block holds."""

    def closed(data: bytes, how: int = 0) -> bytes:
        body = data + bytes([how])
        return body + struct.pack("<I", masked(extended(0, body)))

    def packed(entries: list[tuple[bytes, bytes]]) -> bytes:
        body = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
        return body + struct.pack("<II", 0, 1)

    data = closed(block, kind)
    places = []
    for each in (packed([]), packed([(separator, handle or varint(0) + varint(len(block)))])):
        places.append(varint(len(data)) + varint(len(each)))
        data += closed(each)
    path.write_bytes(data + b"".join(places).ljust(FOOTER - 8, b"\0") + MAGIC)
    return path


def entry(shared: int, key: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    rng = random.Random(1)
    entries = {f"layer/{rng.randrange(10**6)}/kernel".encode(): rng.randbytes(rng.randrange(300)) for _ in range(6000)}
    entries[b""] = b"header"
    table = Table(written(tmp_path / "t", entries))
    found = {key: value.read() for key, value in table}
    assert list(found) == sorted(entries)
    assert found == entries
    for key in rng.sample(sorted(entries), 50):
        value = table.find(key)
        assert value is not None
        assert value.read() == entries[key]
    assert table.find(b"layer/none") is None
    assert table.find(b"z") is None
    table.close()
    assert read(written(tmp_path / "empty", {})) == {}


def test_large_values_stay_in_the_file_and_may_come_in_any_order(tmp_path: Path) -> None:
    rng = random.Random(2)
    large = {f"{name}".encode(): rng.randbytes(3 << 20) for name in "cab"}
    with (tmp_path / "t").open("wb") as file:
        writer = TableWriter(file)
        for key, value in large.items():
            writer.add_alone(key, len(value), [value[:1000], value[1000:]])
        writer.add_alone(b"", 2, [b"hi"])
        writer.finish()
    tracemalloc.start()
    table = Table(tmp_path / "t")
    values = dict(table)
    assert list(values) == [b"", b"a", b"b", b"c"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    for key, value in large.items():
        assert values[key].fetch(2 << 20, 100) == value[2 << 20 :][:100]
        assert values[key].read() == value
    table.close()
    data = bytearray((tmp_path / "t").read_bytes())
    data[4 << 20] ^= 1
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"t is damaged.*checksum"):
        read(tmp_path / "t")


def test_a_writer_refuses_what_would_not_be_a_table(tmp_path: Path) -> None:
    with (tmp_path / "t").open("wb") as file:
        writer = TableWriter(file)
        writer.add(b"b", b"")
        with pytest.raises(ValueError, match="comes behind"):
            writer.add(b"a", b"")
        with pytest.raises(ValueError, match="3 bytes instead of 4"):
            writer.add_alone(b"c", 4, [b"abc"])


def test_every_cut_and_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t", {b"": b"header", b"one": b"1" * 40, b"other": b"2" * 30})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="t is damaged"):
            read(path)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match="t is damaged"):
            read(path)
    with pytest.raises(CheckpointError, match="none does not exist"):
        Table(tmp_path / "none")


def test_snappy_blocks_are_read(tmp_path: Path) -> None:
    block = entry(0, b"key", b"value" * 1000) + struct.pack("<II", 0, 1)
    packed = bytes(cramjam.snappy.compress_raw(block))
    assert len(packed) < len(block) // 4
    assert read(raw_table(tmp_path / "t", packed, kind=1)) == {b"key": b"value" * 1000}


@pytest.mark.parametrize(
    ("block", "kind", "message"),
    [
        (b"\xff\xff\xff\xff\x0f" + b"\x00" * 20, 1, "announce 4,294,967,295"),
        (b"\x20" + b"\xff" * 20, 1, "cannot be decompressed"),
        (b"", 1, "cannot be decompressed"),
        (entry(0, b"k", b"v") + struct.pack("<II", 0, 1), 2, "unknown way 2"),
        (b"abc", 0, "too short"),
        (entry(0, b"k", b"v") + struct.pack("<II", 0, 1 << 30), 0, "restarts"),
        (entry(0, b"k", b"v") + struct.pack("<II", 0, 0), 0, "restarts"),
        (entry(0, b"k", b"v") + struct.pack("<II", 1, 1), 0, "no whole key"),
        (entry(0, b"k", b"v") + struct.pack("<III", 0, 0, 2), 0, "no whole key"),
        (entry(3, b"k", b"v") + struct.pack("<II", 0, 1), 0, "longer than it can be"),
        (varint(0) + varint(1 << 40) + varint(1) + b"kv" + struct.pack("<II", 0, 1), 0, "longer than it can be"),
        (varint(0) + varint(1) + varint(1 << 40) + b"kv" + struct.pack("<II", 0, 1), 0, "are announced"),
        (entry(0, b"k", b"v") + entry(0, b"a", b"v") + struct.pack("<II", 0, 1), 0, "out of order"),
        (entry(0, b"k", b"v") + entry(0, b"k", b"v") + struct.pack("<II", 0, 1), 0, "out of order"),
        (b"\x80" * 11 + struct.pack("<II", 0, 1), 0, "ten bytes"),
        (b"\x80" * 9 + b"\x7f" + struct.pack("<II", 0, 1), 0, "64 bits"),
        (b"\x80" * 3 + struct.pack("<II", 0, 1), 0, "does not end"),
    ],
)
def test_blocks_with_right_checksums_that_make_no_sense_are_refused(
    tmp_path: Path, block: bytes, kind: int, message: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"t is damaged.*{message}"):
        read(raw_table(tmp_path / "t", block, kind))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handle": varint(0) + varint(1 << 50)}, "outside the file"),
        ({"handle": varint(1 << 63) + varint(4)}, "outside the file"),
        ({"handle": varint(0)}, "index makes no sense"),
        ({"handle": varint(3) + varint(20)}, "checksum"),
        ({"separator": b"a"}, "its index has elsewhere"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    block = entry(0, b"key", b"value" * 10) + struct.pack("<II", 0, 1)
    with pytest.raises(CheckpointError, match=rf"t is damaged.*{message}"):
        read(raw_table(tmp_path / "t", block, **options))


def test_keys_that_share_much_cannot_fill_the_memory(tmp_path: Path) -> None:
    long = b"k" * (1 << 18)
    block = entry(0, long, b"") + b"".join(entry(len(long), struct.pack(">H", each), b"") for each in range(1 << 14))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="keys are longer"):
        read(raw_table(tmp_path / "t", block + struct.pack("<II", 0, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t", {b"key": b"v" * 100})
    table = Table(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="t is damaged: it ends at byte 0"):
        table.find(b"key")
    table.close()
    with pytest.raises(CheckpointError, match="closed"):
        table.find(b"key")


def test_masked_checksums_are_tensorflows() -> None:
    # An empty tensor's checksum in a checkpoint that TensorFlow wrote.
    assert masked(extended(0, b"")) == 0xA282EAD8


class TestWire:
    @pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 63) - 1, (1 << 64) - 1])
    def test_varints(self, value: int) -> None:
        data = varint(value)
        assert Window(lambda start, length: data[start : start + length], 0, len(data)).varint() == value

    def test_numbers_are_signed(self) -> None:
        (field,) = wire.fields(wire.number_field(4, -2))
        assert wire.number(field[1]) == -2
        assert wire.number_field(4, 0) == b""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\x00", "field number 0"),
            (b"\x0b", "wire type 3"),
            (b"\x0a\x05abc", "5 bytes are announced where 3"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "announced where 0"),
            (b"\x09abc", "8 bytes are announced"),
            (b"\x0d", "4 bytes are announced"),
            (b"\x08", "does not end"),
        ],
    )
    def test_what_is_no_message_is_refused(self, data: bytes, message: str) -> None:
        with pytest.raises(WireError, match=message):
            list(wire.fields(data))

    def test_fields_of_another_kind_are_refused(self) -> None:
        with pytest.raises(WireError, match="a number stands"):
            wire.message(3)
        with pytest.raises(WireError, match="bytes stand"):
            wire.number(b"3")
        with pytest.raises(WireError, match="no text"):
            wire.text(b"\xff\xfe")
        with pytest.raises(WireError, match="number of no dtype"):
            wire.dtype(101)

    @pytest.mark.parametrize("sizes", [(), (0,), (3, 0, 5), (2, 3, 4)])
    def test_shapes(self, sizes: tuple[int, ...]) -> None:
        assert wire.shape(wire.shape_message(sizes)) == sizes

    @pytest.mark.parametrize("sizes", [(-1,), (1 << 40, 1 << 40), (0, 1 << 40, 1 << 40), (1,) * 33])
    def test_shapes_that_no_tensor_has_are_refused(self, sizes: tuple[int, ...]) -> None:
        with pytest.raises(WireError, match="shape"):
            wire.shape(wire.shape_message(sizes))
        with pytest.raises(WireError, match="rank"):
            wire.shape(wire.number_field(3, 1))

    @pytest.mark.parametrize("extents", [(), ((0, -1),), ((4, 3), (0, -1)), ((0, 4), (100, 70000))])
    def test_slices(self, extents: wire.Slice) -> None:
        assert wire.tensor_slice(wire.slice_message(extents)) == extents

    def test_slices_outside_their_tensor_are_refused(self) -> None:
        assert wire.resolved(((0, -1), (2, 3)), (4, 5)) == ((0, 4), (2, 3))
        for bad in (((0, 4),), ((0, -1), (3, 3)), ((-1, 2), (0, -1))):
            with pytest.raises(WireError, match="slice"):
                wire.resolved(bad, (4, 5))
        with pytest.raises(WireError, match="length -1"):
            wire.tensor_slice(wire.bytes_field(1, wire.number_field(2, -1)))

    def test_slice_keys_are_tensorflows(self) -> None:
        # Taken from a checkpoint that TensorFlow wrote.
        assert wire.slice_key("emb", ((4, 3), (0, 4))) == b"\x00emb\x00\x01\x01\x02\x84\x83\x80\x84"
        assert wire.slice_key("x", ((0, -1),)) == b"\x00x\x00\x01\x01\x01\x80\x7f"

    def test_slice_keys_escape_what_ends_a_name(self) -> None:
        assert wire.slice_key("a\0\N{LATIN SMALL LETTER Y WITH DIAERESIS}", ()) == b"\x00a\x00\xff\xc3\xbf\x00\x01\x00"

    @pytest.mark.parametrize("first", [0, 1, 63, 64, 8191, 8192, 1 << 20, (1 << 62) + 5])
    def test_slice_keys_keep_the_order_of_numbers(self, first: int) -> None:
        keys = [wire.slice_key("x", ((start, 1),)) for start in (-(first + 2), -1, first, first + 1)]
        assert keys == sorted(keys)
        assert len(set(keys)) == len({-(first + 2), -1, first, first + 1})

    def test_versions(self) -> None:
        assert wire.producer(wire.number_field(1, 7)) == 7
        with pytest.raises(WireError, match="format 2 or newer"):
            wire.producer(wire.number_field(2, 2))
        with pytest.raises(WireError, match="newer"):
            wire.producer(wire.bytes_field(3, b"\x05\x01"))


def test_a_window_reads_across_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "WINDOW", 16)
    data = b"".join(wire.number_field(1, each * 1000) + wire.bytes_field(2, bytes(each)) for each in range(1, 60))
    asked: list[int] = []

    def fetch(start: int, length: int) -> bytes:
        asked.append(length)
        return data[start : start + length]

    found = list(wire.scan(Window(fetch, 0, len(data))))
    assert [each.value for each in found if each.number == 1] == [each * 1000 for each in range(1, 60)]
    assert [each.end - each.start for each in found if each.number == 2] == list(range(1, 60))
    assert max(asked) == 16


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(tables, "WHOLE_BLOCK", 64)


def test_blocks_in_the_file_are_as_blocks_in_memory(tmp_path: Path, small_blocks: Callable[[], None]) -> None:
    entries = {f"k{each:05d}".encode(): bytes([each % 256]) * (each % 50) for each in range(3000)}
    path = written(tmp_path / "t", entries)
    small_blocks()
    assert read(path) == entries
    block = bytes(
        cramjam.snappy.compress_raw(entry(0, b"key", random.Random(1).randbytes(100)) + struct.pack("<II", 0, 1))
    )
    assert len(block) > 64 + TRAILER
    assert list(read(raw_table(tmp_path / "s", block, kind=1))) == [b"key"]
