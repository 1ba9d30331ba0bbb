"""V2 checkpoints: what TensorFlow writes is read, what is written TensorFlow reads, and what is damaged is refused."""

from __future__ import annotations

import shutil
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_mutations import FEW, MANY, check_reader, copied
from tfport.checkpoints import wire
from tfport.checkpoints.bundle import (
    OBJECT_GRAPH,
    BundleSink,
    BundleSource,
    Texts,
    check_cover,
    decoded_texts,
    encoded_lengths,
)
from tfport.checkpoints.contents import CHUNK, Stored, pieces
from tfport.checkpoints.table import Table, TableWriter, extended, masked
from tfport.checkpoints.wire import Slice, WireError
from tfport.errors import CheckpointError

NUMPY_DTYPES = [
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]
TEXTS = [b"one", b"", b"x" * 300, "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n".encode()]


def arrays() -> dict[str, Any]:
    """Tensors of every dtype that TensorFlow saves and numpy has, scalars and empty ones among them."""
    import ml_dtypes

    rng = np.random.default_rng(1)
    numbers = rng.integers(-100, 100, (3, 5))
    found: dict[str, Any] = {f"of/{dtype}": numbers.astype(dtype) for dtype in NUMPY_DTYPES}
    found["of/bfloat16"] = numbers.astype(ml_dtypes.bfloat16)
    found["of/float8_e5m2"] = numbers.astype(ml_dtypes.float8_e5m2)
    found["of/float8_e4m3fn"] = numbers.astype(ml_dtypes.float8_e4m3fn)
    found["global_step"] = np.array(1 << 40, np.int64)
    found["scalar"] = np.array(2.5, np.float32)
    found["empty"] = np.empty((0, 3), np.float32)
    found["many/dims"] = rng.random((1, 2, 3, 4, 5)).astype(np.float32)
    return found


def save(prefix: Path, named: dict[str, Any], slices: list[str] | None = None) -> Path:
    """Has TensorFlow write a V2 checkpoint."""
    import tensorflow as tf

    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(named),
        shape_and_slices=slices or [""] * len(named),
        tensors=[tf.convert_to_tensor(value) for value in named.values()],
    )
    return prefix


def joined(source: BundleSource, key: str) -> bytes:
    chunks = list(source.chunks(key))
    assert all(len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks)


def rewritten(source: BundleSource, prefix: Path) -> Path:
    """All of a checkpoint through the Sink, last tensor first."""
    headers = list(source.tensors.values())[::-1]
    sink = BundleSink(prefix, headers, source.contents(), source)
    for header in headers:
        sink.write(header.key, source.chunks(header.key))
    sink.finish()
    return prefix


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of everything that is not partitioned, by TensorFlow."""
    named = dict(arrays())
    named["texts"] = np.array(TEXTS, object).reshape(2, 2)
    named["text"] = np.array(b"alone", object)
    named["no/texts"] = np.empty((0,), object)
    return save(tmp_path_factory.mktemp("saved") / "model.ckpt-7", named)


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of pieces in two data files: along the first axis, another, and both; texts too."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("partitioned")
    rng = np.random.default_rng(2)
    whole: dict[str, Any] = {
        "rows": rng.random((20_000, 2)).astype(np.float32),
        "columns": rng.random((4, 200)).astype(np.float64),
        "grid": rng.integers(0, 100, (4, 6)),
        "texts": np.array([f"text {each}".encode() for each in range(12)], object).reshape(4, 3),
    }
    cuts: dict[str, list[tuple[slice, slice]]] = {
        "rows": [(slice(0, 70), slice(0, 2)), (slice(70, 9000), slice(0, 2)), (slice(9000, 20_000), slice(0, 2))],
        "columns": [(slice(0, 4), slice(0, 50)), (slice(0, 4), slice(50, 130)), (slice(0, 4), slice(130, 200))],
        "grid": [(slice(a, a + 2), slice(b, b + 3)) for a in (0, 2) for b in (0, 3)],
        "texts": [(slice(0, 4), slice(0, 1)), (slice(0, 4), slice(1, 3))],
    }
    parts: list[Path] = []
    for which in range(2):
        names, values, specs = [], [], []
        for name, places in cuts.items():
            for rows, columns in places[which::2]:
                shape = whole[name].shape
                names.append(name)
                values.append(tf.constant(whole[name][rows, columns]))
                specs.append(
                    f"{shape[0]} {shape[1]} {rows.start},{rows.stop - rows.start}:"
                    f"{columns.start},{columns.stop - columns.start}"
                )
        if which:
            whole["plain"] = np.arange(7, dtype=np.int32)
            names.append("plain")
            values.append(tf.constant(whole["plain"]))
            specs.append("")
        part = folder / f"part-{which}"
        tf.raw_ops.SaveV2(prefix=str(part), tensor_names=names, shape_and_slices=specs, tensors=values)
        parts.append(part)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(each) for each in parts],
        destination_prefix=str(folder / "model"),
        delete_old_dirs=False,
    )
    return folder / "model", whole


class TestReading:
    def test_every_dtype_comes_back_with_its_bytes(self, saved: Path) -> None:
        with BundleSource(saved) as source:
            assert source.format == "tf1-v2"
            assert source.path == saved
            assert source.written_by == {"bundle producer": "1"}
            wanted = arrays()
            assert source.tensors.keys() == wanted.keys() | {"texts", "text", "no/texts"}
            assert list(source.tensors) == sorted(source.tensors)
            for key, array in wanted.items():
                stored = source.tensors[key]
                assert (stored.shape, stored.dtype) == (array.shape, str(array.dtype))
                assert joined(source, key) == array.tobytes()
                read = source.read(key)
                assert read.dtype == array.dtype
                assert read.tobytes() == array.tobytes()

    def test_texts(self, saved: Path) -> None:
        with BundleSource(saved) as source:
            assert source.tensors["texts"] == Stored("texts", (2, 2), "string")
            assert source.strings("texts") == TEXTS
            assert source.strings("text") == [b"alone"]
            assert source.strings("no/texts") == []
            assert decoded_texts(joined(source, "texts"), 4) == TEXTS
            with pytest.raises(CheckpointError, match=r"model\.ckpt-7: texts cannot be read: .*string"):
                source.read("texts")
            with pytest.raises(CheckpointError, match="scalar is of float32, not of texts"):
                source.strings("scalar")

    def test_partitioned_tensors_are_one(self, partitioned: tuple[Path, dict[str, Any]]) -> None:
        prefix, whole = partitioned
        with BundleSource(prefix) as source:
            assert source.tensors.keys() == whole.keys()
            for key, array in whole.items():
                assert source.tensors[key].shape == array.shape
                if key == "texts":
                    assert source.strings(key) == list(array.reshape(-1))
                    assert decoded_texts(joined(source, key), 12) == list(array.reshape(-1))
                else:
                    assert joined(source, key) == array.tobytes()
                    np.testing.assert_array_equal(source.read(key), array)

    def test_quantised_numbers_pass_through_and_variants_are_listed(self, tmp_path: Path) -> None:
        import tensorflow as tf

        quantised = tf.bitcast(tf.constant([1, 2, 250], tf.uint8), tf.quint8)
        variant = tf.raw_ops.TensorListFromTensor(
            tensor=tf.constant([1.0, 2.0]), element_shape=tf.constant([], tf.int32)
        )
        prefix = save(tmp_path / "model", {"quantised": quantised, "variant": variant})
        with BundleSource(prefix) as source:
            assert source.tensors["variant"].dtype == "variant"
            assert source.tensors["variant"].nbytes == 0
            with pytest.raises(CheckpointError, match=r"model: variant is a variant"):
                list(source.chunks("variant"))
            with pytest.raises(CheckpointError, match=r"model: variant cannot be read"):
                source.read("variant")
            assert joined(source, "quantised") == b"\x01\x02\xfa"

    def test_a_large_tensor_is_streamed(self, tmp_path: Path) -> None:
        array = np.arange(5 << 20, dtype=np.float64)
        prefix = save(tmp_path / "model", {"large": array})
        with BundleSource(prefix) as source:
            tracemalloc.start()
            place = 0
            raw = array.view(np.uint8)
            for chunk in source.chunks("large"):
                assert len(chunk) <= CHUNK
                assert bytes(raw[place : place + len(chunk)].data) == chunk
                place += len(chunk)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert place == array.nbytes
        assert peak < 4 * CHUNK

    def test_an_object_based_checkpoint(self, tmp_path: Path) -> None:
        import tensorflow as tf

        checkpoint = tf.train.Checkpoint(weight=tf.Variable([1.0, 2.0]), step=tf.Variable(3, dtype=tf.int64))
        prefix = Path(checkpoint.write(str(tmp_path / "ck")))
        with BundleSource(prefix) as source:
            assert source.format == "tf2"
            (graph,) = source.strings(OBJECT_GRAPH)
            assert graph == tf.train.load_checkpoint(str(prefix)).get_tensor(OBJECT_GRAPH)
            assert source.read("step/.ATTRIBUTES/VARIABLE_VALUE") == 3
            rewritten(source, tmp_path / "again" / "ck")
        weight, step = tf.Variable([0.0, 0.0]), tf.Variable(0, dtype=tf.int64)
        again = tf.train.Checkpoint(weight=weight, step=step)
        again.read(str(tmp_path / "again" / "ck")).assert_consumed()
        assert weight.numpy().tolist() == [1.0, 2.0]
        assert step.numpy() == 3


class TestWriting:
    def test_tensorflow_reads_what_was_written(self, saved: Path, tmp_path: Path) -> None:
        import tensorflow as tf

        with BundleSource(saved) as source:
            prefix = rewritten(source, tmp_path / "new" / "model")
            with BundleSource(prefix) as again:
                assert again.tensors == source.tensors
                for key in source.tensors:
                    assert joined(again, key) == joined(source, key)
        assert sorted(each.name for each in prefix.parent.iterdir()) == [
            "model.data-00000-of-00001",
            "model.index",
        ]
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        for key, array in arrays().items():
            assert tuple(shapes[key]) == array.shape
            if "float8" not in key:
                assert reader.get_tensor(key).tobytes() == array.tobytes()
        assert reader.get_tensor("texts").tolist() == [TEXTS[:2], TEXTS[2:]]
        assert reader.get_tensor("no/texts").shape == (0,)

    def test_the_saver_restores_pieces_out_of_a_whole(
        self, partitioned: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        prefix, whole = partitioned
        with BundleSource(prefix) as source:
            rewritten(source, tmp_path / "model")
        with tf.Graph().as_default(), v1.Session() as session, v1.variable_scope("", use_resource=False):
            rows = v1.get_variable(
                "rows", whole["rows"].shape, partitioner=v1.fixed_size_partitioner(3), dtype=tf.float32
            )
            columns = v1.get_variable(
                "columns", whole["columns"].shape, partitioner=v1.fixed_size_partitioner(7, axis=1), dtype=tf.float64
            )
            plain = v1.get_variable("plain", whole["plain"].shape, dtype=tf.int32)
            v1.train.Saver().restore(session, str(tmp_path / "model"))
            found = session.run([tf.convert_to_tensor(rows), tf.convert_to_tensor(columns), plain])
        for key, array in zip(("rows", "columns", "plain"), found, strict=True):
            np.testing.assert_array_equal(array, whole[key])

    def test_thousands_of_tensors(self, tmp_path: Path) -> None:
        import tensorflow as tf

        headers = [Stored(f"layer_{each}/a_long_name_of_a_kernel", (1,), "int32") for each in range(6000)]
        sink = BundleSink(tmp_path / "model", headers)
        for each, header in enumerate(headers):
            sink.write(header.key, [struct.pack("<i", each)])
        sink.finish()
        assert (tmp_path / "model.index").stat().st_size > 256 << 10
        reader = tf.train.load_checkpoint(str(tmp_path / "model"))
        assert [reader.get_tensor(header.key)[0] for header in headers[::500]] == list(range(0, 6000, 500))
        with BundleSource(tmp_path / "model") as source:
            assert [source.read(header.key)[0] for header in headers] == list(range(6000))

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ([Stored("a", (), "float32"), Stored("a", (), "float32")], "two tensors have the name 'a'"),
            ([Stored("a", (), "float128")], "a is of float128"),
            ([Stored("a", (), "variant")], "a is of variant"),
            ([Stored("a/../../b", (), "float32")], "refused"),
            ([Stored("", (), "float32")], "refused"),
        ],
    )
    def test_headers_that_cannot_be_written_are_refused(
        self, tmp_path: Path, headers: list[Stored], message: str
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            BundleSink(tmp_path / "model", headers)
        assert not list(tmp_path.iterdir())

    def test_what_was_not_announced_is_refused(self, tmp_path: Path) -> None:
        sink = BundleSink(
            tmp_path / "model", [Stored("a", (2,), "float32"), Stored("t", (1,), "string"), Stored("b", (), "int8")]
        )
        with pytest.raises(CheckpointError, match="a came with 4 bytes"):
            sink.write("a", [bytes(4)])
        with pytest.raises(CheckpointError, match="the texts of t"):
            sink.write("t", [b"abcde"])
        sink.write("a", pieces(np.array([1, 2], ">f4")))
        with pytest.raises(CheckpointError, match="t was announced and did not come"):
            sink.finish()
        sink.abandon()


class Evil:
    """A checkpoint whose index holds what no program writes, with right checksums."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "evil"
        self.header = wire.number_field(1, 1) + wire.bytes_field(3, wire.number_field(1, 1))
        self.entries: dict[bytes, bytes] = {}
        self.data = bytes(range(64))

    def entry(
        self,
        key: str | bytes,
        *,
        dtype: int = 1,
        shape: tuple[int, ...] = (4,),
        shard: int = 0,
        offset: int = 0,
        size: int = 16,
        slices: tuple[Slice, ...] = (),
    ) -> None:
        data = self.data[offset : offset + size] if offset >= 0 and size >= 0 else b""
        self.entries[key if isinstance(key, bytes) else key.encode()] = (
            wire.number_field(1, dtype)
            + wire.bytes_field(2, wire.shape_message(shape))
            + wire.number_field(3, shard)
            + wire.number_field(4, offset)
            + wire.number_field(5, size)
            + wire.fixed32_field(6, masked(extended(0, data)))
            + b"".join(wire.bytes_field(7, wire.slice_message(each)) for each in slices)
        )

    def written(self) -> Path:
        with self.prefix.with_name("evil.index").open("wb") as file:
            writer = TableWriter(file)
            writer.add(b"", self.header)
            for key in sorted(self.entries):
                writer.add(key, self.entries[key])
            writer.finish()
        self.prefix.with_name("evil.data-00000-of-00001").write_bytes(self.data)
        return self.prefix


class TestHarm:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"offset": 60}, r"evil\.data-00000-of-00001 has 64 bytes.*a at bytes 60 to 76"),
            ({"shape": (1 << 50,), "size": 1 << 52}, "has 64 bytes"),
            ({"shape": (1 << 50,)}, r"evil\.index is damaged: a has 16 bytes, which its shape"),
            ({"shape": (-4,)}, r"evil\.index is damaged.*shape"),
            ({"shape": (1 << 40, 1 << 40)}, "shape"),
            ({"shape": (1,) * 100}, "100 dimensions"),
            ({"size": 8}, "which its shape"),
            ({"size": -16}, "negative place"),
            ({"offset": -16}, "negative place"),
            ({"shard": -1}, "negative place"),
            ({"shard": 1}, "data file 1, and there are 1"),
            ({"dtype": 99}, "number of no dtype"),
            ({"dtype": 0}, "no dtype"),
            ({"dtype": 7, "shape": (13,)}, "which its shape"),
            ({"slices": (((0, 4),),)}, "has no entry"),
        ],
    )
    def test_entries_that_cannot_be(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        evil = Evil(tmp_path)
        evil.entry("a", **options)
        with pytest.raises(CheckpointError, match=message):
            BundleSource(evil.written())

    @pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a\\b", "a\0b"])
    def test_names_that_could_leave_a_folder(self, tmp_path: Path, name: str) -> None:
        evil = Evil(tmp_path)
        evil.entry(name)
        with pytest.raises(CheckpointError, match=r"evil\.index names a tensor .*, which is refused"):
            BundleSource(evil.written())

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        evil = Evil(tmp_path)
        evil.entry(b"\xff\xfe")
        with pytest.raises(CheckpointError, match=r"evil\.index is damaged.*no text"):
            BundleSource(evil.written())

    @pytest.mark.parametrize(
        ("slices", "options", "message"),
        [
            ([((0, 4),), ((4, 4),)], [{}, {"offset": 8}], "same bytes"),
            ([((0, 4),), ((3, 4),)], [{}, {"offset": 16}], "overlap"),
            ([((0, 4),), ((5, 2),)], [{}, {"offset": 16, "shape": (2,), "size": 8}], "do not cover"),
            ([((0, 4),), ((6, 4),)], [{}, {"offset": 16}], "outside the shape"),
            ([((0, 4),), ((4, 4),)], [{}, {"offset": 16, "dtype": 3}], "dtype int32"),
            ([((0, 4),), ((4, 4),)], [{}, {"offset": 16, "shape": (2, 2)}], r"shape \[2, 2\]"),
            ([((0, 4), (0, -1)), ((4, 4), (0, -1))], [{}, {"offset": 16}], "dimensions"),
        ],
    )
    def test_slices_that_do_not_fit(
        self, tmp_path: Path, slices: list[Slice], options: list[dict[str, Any]], message: str
    ) -> None:
        evil = Evil(tmp_path)
        evil.entry("a", shape=(8,), size=0, slices=tuple(slices))
        for each, option in zip(slices, options, strict=True):
            evil.entry(wire.slice_key("a", each), **option)
        with pytest.raises(CheckpointError, match=rf"evil\.index is damaged.*{message}"):
            BundleSource(evil.written())

    def test_a_lone_part_is_a_tensor_of_its_own(self, tmp_path: Path) -> None:
        """So TF1 writes the slots of partitioned variables whose optimizer stands in a scope."""
        evil = Evil(tmp_path)
        evil.entry("d/w/part_0/Adam", shape=(8,), size=0, slices=(((4, 4),),))
        evil.entry(wire.slice_key("d/w/part_0/Adam", ((4, 4),)))
        with BundleSource(evil.written()) as source:
            assert source.tensors["d/w/part_0/Adam"].shape == (4,)
            assert source.read("d/w/part_0/Adam").shape == (4,)

    def test_a_slice_of_nothing(self, tmp_path: Path) -> None:
        evil = Evil(tmp_path)
        evil.entry(wire.slice_key("a", ((0, 4),)))
        with pytest.raises(CheckpointError, match=r"slice.* of no tensor"):
            BundleSource(evil.written())

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (wire.number_field(1, 1) + wire.number_field(2, 1), r"evil\.index was written on a big-endian machine"),
            (b"", "0 data files"),
            (wire.number_field(1, -3), "-3 data files"),
            (wire.number_field(1, 1) + wire.bytes_field(3, wire.number_field(2, 9)), "format 9 or newer"),
            (b"\xff", "its header makes no sense"),
            (wire.bytes_field(1, b"abc"), "bytes stand"),
        ],
    )
    def test_headers_that_cannot_be(self, tmp_path: Path, header: bytes, message: str) -> None:
        evil = Evil(tmp_path)
        evil.header = header
        with pytest.raises(CheckpointError, match=message):
            BundleSource(evil.written())

    def test_a_table_that_is_no_index(self, tmp_path: Path) -> None:
        with (tmp_path / "evil.index").open("wb") as file:
            writer = TableWriter(file)
            writer.add(b"key", b"value")
            writer.finish()
        with pytest.raises(CheckpointError, match=r"evil\.index is damaged: it does not begin with the header"):
            BundleSource(tmp_path / "evil")

    def test_texts_whose_lengths_lie(self, tmp_path: Path) -> None:
        for raw, message in (
            (encoded_lengths([3, 3]) + b"abc", "ends before"),
            (encoded_lengths([1, 1]) + b"abc", "more bytes than"),
            (b"\x01\x01\0\0\0\0ab", "do not fit their checksum"),
            (b"\xff" * 20, "does not end|is announced"),
            (b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(12), "bytes is announced"),
            (b"\x01\x80\x80\x80\x80", "ends before"),
        ):
            with pytest.raises(WireError, match=message):
                decoded_texts(raw, 2)
            evil = Evil(tmp_path)
            evil.data = raw.ljust(6, b"\0") if len(raw) < 6 else raw
            evil.entry("a", dtype=7, shape=(2,), size=len(evil.data))
            with BundleSource(evil.written()) as source:
                with pytest.raises(CheckpointError, match=r"evil\.data-00000-of-00001 is damaged: the texts of a"):
                    source.strings("a")
                with pytest.raises(CheckpointError, match="the texts of a"):
                    list(source.chunks("a"))

    def test_texts_in_pieces_have_the_checksum_of_the_whole(self) -> None:
        raw = encoded_lengths(map(len, TEXTS)) + b"".join(TEXTS)
        whole = Texts(4)
        whole.pass_by(raw)
        whole.end()
        for size in (1, 2, 3, 7):
            texts = Texts(4)
            for place in range(0, len(raw), size):
                texts.pass_by(raw[place : place + size])
            texts.end()
            assert texts.checksum == whole.checksum

    def test_a_missing_shard_is_named(self, partitioned: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        folder = copied(partitioned[0].parent, tmp_path / "copy")
        (folder / "model.data-00001-of-00002").unlink()
        with pytest.raises(CheckpointError, match=r"model\.data-00001-of-00002 is missing"):
            BundleSource(folder / "model")

    def test_flipped_bits_in_the_data_are_refused(self, saved: Path, tmp_path: Path) -> None:
        folder = copied(saved.parent, tmp_path / "copy")
        path = folder / f"{saved.name}.data-00000-of-00001"
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            data = bytearray(whole)
            data[place] ^= 1 << place % 8
            path.write_bytes(data)
            with BundleSource(folder / saved.name) as source, pytest.raises(CheckpointError) as caught:
                for key in source.tensors:
                    list(source.chunks(key))
            assert str(path) in str(caught.value)

    def test_an_index_cut_at_any_byte_is_refused(self, saved: Path, tmp_path: Path) -> None:
        folder = copied(saved.parent, tmp_path / "copy")
        path = folder / f"{saved.name}.index"
        whole = path.read_bytes()
        for cut in range(len(whole)):
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointError, match=rf"{path.name} is damaged"):
                BundleSource(folder / saved.name)

    def test_cut_data_is_refused(self, saved: Path, tmp_path: Path) -> None:
        folder = copied(saved.parent, tmp_path / "copy")
        path = folder / f"{saved.name}.data-00000-of-00001"
        whole = path.read_bytes()
        for cut in range(0, len(whole), 9):
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointError, match=rf"{path.name} has {cut:,} bytes"):
                BundleSource(folder / saved.name)

    def test_data_that_shrinks_after_opening_is_named(self, saved: Path, tmp_path: Path) -> None:
        folder = copied(saved.parent, tmp_path / "copy")
        with BundleSource(folder / saved.name) as source:
            (folder / f"{saved.name}.data-00000-of-00001").write_bytes(b"")
            with pytest.raises(CheckpointError, match="data-00000-of-00001 is damaged: it ends"):
                source.read("scalar")


@pytest.mark.parametrize(
    ("extents", "shape", "axis"),
    [
        ([()], (), 0),
        ([((0, 4), (0, 2)), ((4, 1), (0, 2))], (5, 2), 0),
        ([((4, 1), (0, 2)), ((0, 4), (0, 2)), ((2, 0), (0, 2))], (5, 2), 0),
        ([((0, 5), (0, 1)), ((0, 5), (1, 1))], (5, 2), 1),
        ([((0, 2), (0, 2)), ((2, 1), (0, 1)), ((2, 1), (1, 1))], (3, 2), None),
        ([((0, 0), (0, 2)), ((0, 0), (1, 1))], (0, 2), 0),
    ],
)
def test_slices_that_cover(extents: list[Slice], shape: tuple[int, ...], axis: int | None) -> None:
    assert check_cover(extents, shape) == axis


@pytest.mark.parametrize(
    ("extents", "shape"),
    [
        ([(), ()], ()),
        ([((0, 4),), ((3, 1),)], (5,)),
        ([((0, 4),)], (5,)),
        ([((0, 2), (0, 2)), ((1, 2), (0, 1)), ((0, 1), (1, 1)), ((2, 1), (1, 1))], (4, 2)),
    ],
)
def test_slices_that_do_not_cover(extents: list[Slice], shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError, match="slices"):
        check_cover(extents, shape)


def fuzz_folders(saved: Path, partitioned: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    for prefix in (saved, partitioned):
        folder = copied(prefix.parent, tmp_path / prefix.name)
        for part in folder.glob("part-*"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        for target in (f"{prefix.name}.index", next(folder.glob("*.data-00000*")).name):
            yield folder / prefix.name, target


def test_few_mutations(saved: Path, partitioned: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for prefix, target in fuzz_folders(saved, partitioned[0], tmp_path):
        outcome = check_reader(prefix.parent, target, prefix, range(FEW))
        assert outcome["refused"] > FEW // 2


@pytest.mark.slow
def test_many_mutations(saved: Path, partitioned: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for prefix, target in fuzz_folders(saved, partitioned[0], tmp_path):
        outcome = check_reader(prefix.parent, target, prefix, range(MANY))
        assert outcome["refused"] > MANY // 2


def resealed(path: Path, seed: int) -> None:
    """Mutates one value of an index and writes the table anew, its checksums right."""
    from checkpoint_mutations import mutated

    table = Table(path)
    entries = {key: value.read() for key, value in table}
    table.close()
    keys = sorted(entries)
    key = keys[seed * 7919 % len(keys)]
    if entries[key]:
        entries[key] = mutated(entries[key], seed)
    with path.open("wb") as file:
        writer = TableWriter(file)
        for each in keys:
            writer.add(each, entries[each])
        writer.finish()


@pytest.mark.parametrize("seeds", [range(FEW), pytest.param(range(MANY), marks=pytest.mark.slow)])
def test_mutations_under_right_checksums(
    saved: Path, partitioned: tuple[Path, dict[str, Any]], tmp_path: Path, seeds: range
) -> None:
    for prefix, target in list(fuzz_folders(saved, partitioned[0], tmp_path))[::2]:
        path = prefix.parent / target
        whole = path.read_bytes()
        size = sum(each.stat().st_size for each in prefix.parent.iterdir())
        for seed in seeds:
            path.write_bytes(whole)
            resealed(path, seed)
            tracemalloc.start()
            try:
                with BundleSource(prefix) as source:
                    for key in source.tensors:
                        for _ in source.chunks(key):
                            pass
            except CheckpointError as error:
                assert str(prefix.parent) in str(error)
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            assert peak < 2 * size + (24 << 20), seed
