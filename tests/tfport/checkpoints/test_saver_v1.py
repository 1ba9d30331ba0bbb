"""V1 checkpoints: what TensorFlow writes is read, what is written it restores, and what is damaged is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_mutations import FEW, MANY, check_reader, copied, mutated
from tfport.checkpoints import saver_v1, wire
from tfport.checkpoints.bundle import BundleSink, decoded_texts, encoded_lengths
from tfport.checkpoints.contents import CHUNK, Stored, pieces
from tfport.checkpoints.saver_v1 import V1Sink, V1Source, decoded, encoded
from tfport.checkpoints.table import Table, TableWriter
from tfport.checkpoints.wire import Slice, WireError
from tfport.errors import CheckpointError

DTYPES = [
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16"),
]
TEXTS = [b"one", b"", b"x" * 300, b"\xff\x00"]


def arrays() -> dict[str, Any]:
    """Tensors of every dtype that V1 and numpy have, scalars and empty ones among them."""
    rng = np.random.default_rng(1)
    numbers = rng.integers(-100, 100, (3, 5))
    found: dict[str, Any] = {f"of/{dtype}": numbers.astype(dtype) for dtype in DTYPES}
    found["global_step"] = np.array(1 << 40, np.int64)
    found["ends"] = np.array([-(1 << 63), -1, 0, (1 << 63) - 1], np.int64)
    found["scalar"] = np.array(2.5, np.float32)
    found["empty"] = np.empty((0, 3), np.float32)
    found["no/integers"] = np.empty((2, 0), np.int32)
    found["dims"] = rng.random((1, 2, 3, 4)).astype(np.float32)
    return found


def save(path: Path, named: dict[str, Any]) -> Path:
    """Has TensorFlow write a V1 checkpoint."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(
            tf.raw_ops.Save(
                filename=str(path),
                tensor_names=list(named),
                data=[tf.convert_to_tensor(value) for value in named.values()],
            )
        )
    return path


def restored(path: Path, dtypes: dict[str, Any]) -> list[Any]:
    """Has TensorFlow read tensors of a V1 checkpoint."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensors = [
            tf.raw_ops.Restore(file_pattern=str(path), tensor_name=name, dt=dtype) for name, dtype in dtypes.items()
        ]
        found: list[Any] = session.run(tensors)
        return found


def joined(source: V1Source, key: str) -> bytes:
    chunks = list(source.chunks(key))
    assert all(len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks)


def rewritten(source: V1Source, path: Path) -> Path:
    """All of a checkpoint through the Sink, last tensor first."""
    headers = list(source.tensors.values())[::-1]
    sink = V1Sink(path, headers, source.contents(), source)
    for header in headers:
        sink.write(header.key, source.chunks(header.key))
    sink.finish()
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = dict(arrays())
    named["texts"] = np.array(TEXTS, object).reshape(2, 2)
    return save(tmp_path_factory.mktemp("saved") / "model.ckpt-7", named)


Program = tuple[Path, dict[str, Any]]


def variables(v1: Any) -> dict[str, Any]:
    """A TF1 program's variables, partitioned ones among them."""
    import tensorflow as tf

    with v1.variable_scope("", use_resource=False, initializer=v1.random_normal_initializer(seed=3)):
        return {
            "rows": v1.get_variable("rows", (20_000, 2), partitioner=v1.fixed_size_partitioner(3)),
            "columns": v1.get_variable(
                "columns", (4, 200), tf.float64, partitioner=v1.fixed_size_partitioner(3, axis=1)
            ),
            "half": v1.get_variable("half", (3,), tf.float16),
            "global_step": v1.get_variable("global_step", initializer=np.int64(1234)),
            "name": v1.get_variable("name", initializer=tf.constant([b"a", b"bc"])),
        }


@pytest.fixture(scope="module", params=[False, True], ids=["one", "sharded"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A checkpoint of TF1's Saver, and the values of its variables; sharded over two devices or one file."""
    import tensorflow as tf

    v1 = tf.compat.v1
    path = tmp_path_factory.mktemp("program") / "model"
    config = v1.ConfigProto(device_count={"CPU": 2}, allow_soft_placement=True)
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        count = iter(range(1000))

        def device(op: Any) -> str:
            return f"/cpu:{next(count) % 2}" if op.type == "VariableV2" else ""

        with v1.device(device):
            made = variables(v1)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=request.param)
        saver.save(session, str(path), write_state=False)
        values = session.run({key: tf.convert_to_tensor(each) for key, each in made.items()})
    return path, values


class TestReading:
    def test_every_dtype_comes_back_with_its_bytes(self, saved: Path) -> None:
        with V1Source(saved) as source:
            assert source.format == "tf1-v1"
            assert source.written_by == {"checkpoint producer": "1"}
            wanted = arrays()
            assert source.tensors.keys() == {*wanted, "texts"}
            for key, array in wanted.items():
                stored = source.tensors[key]
                assert (stored.shape, stored.dtype) == (array.shape, str(array.dtype))
                assert joined(source, key) == array.tobytes()
                assert source.read(key).tobytes() == array.tobytes()
            assert source.strings("texts") == TEXTS
            assert decoded_texts(joined(source, "texts"), 4) == TEXTS
            with pytest.raises(CheckpointError, match="scalar is of float32, not of texts"):
                source.strings("scalar")

    def test_programs(self, program: Program) -> None:
        path, values = program
        files = sorted(each for each in path.parent.iterdir() if not each.name.endswith(".meta"))
        assert len(files) in (1, 2)
        for each in {path, *files, path.with_name("model-?????-of-00002") if len(files) == 2 else path}:
            with V1Source(each) as source:
                assert source.path == path
                assert source.tensors.keys() == values.keys()
                for key, value in values.items():
                    if key == "name":
                        assert source.strings(key) == [b"a", b"bc"]
                    else:
                        assert source.tensors[key].shape == value.shape
                        assert joined(source, key) == value.tobytes()
                assert set(source.contents().by_name()) >= {"rows", "columns", "half", "global_step"}

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        for which in (0, 2):
            save(tmp_path / f"model-0000{which}-of-00003", {f"x{which}": np.float32(1)})
        with pytest.raises(CheckpointError, match="model-00001-of-00003 is missing"):
            V1Source(tmp_path / "model-00000-of-00003")
        with pytest.raises(CheckpointError, match="none does not exist"):
            V1Source(tmp_path / "none")

    def test_data_is_read_only_when_it_is_asked_for(self, tmp_path: Path) -> None:
        path = save(
            tmp_path / "model",
            {"first": np.arange(6 << 20, dtype=np.float32), "second": np.arange(3 << 20, dtype=np.int32)},
        )
        data = bytearray(path.read_bytes())
        data[-(4 << 20)] ^= 1
        path.write_bytes(data)
        tracemalloc.start()
        with V1Source(path) as source:
            assert sum(map(len, source.chunks("first"))) == 24 << 20
            with pytest.raises(CheckpointError, match=r"model is damaged.*checksum"):
                list(source.chunks("second"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * CHUNK

    def test_blocks_in_the_file(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tfport.checkpoints.table.WHOLE_BLOCK", 64)
        monkeypatch.setattr(saver_v1, "_VARINTS", 7)
        with V1Source(saved) as source:
            for key, array in arrays().items():
                assert joined(source, key) == array.tobytes()


class TestWriting:
    def test_tensorflow_reads_what_was_written(self, saved: Path, tmp_path: Path) -> None:
        with V1Source(saved) as source:
            path = rewritten(source, tmp_path / "model")
            with V1Source(path) as again:
                assert again.tensors == source.tensors
                for key in source.tensors:
                    assert joined(again, key) == joined(source, key)
        wanted = arrays()
        found = restored(path, {key: array.dtype for key, array in wanted.items()})
        for array, value in zip(wanted.values(), found, strict=True):
            assert value.shape == array.shape
            assert value.tobytes() == array.tobytes()
        (texts,) = restored(path, {"texts": "string"})
        assert texts.tolist() == [TEXTS[:2], TEXTS[2:]]

    def test_the_saver_restores_what_was_written(self, program: Program, tmp_path: Path) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        path, values = program
        with V1Source(path) as source:
            rewritten(source, tmp_path / "v1")
            sink = BundleSink(tmp_path / "v2", source.tensors.values())
            for key in source.tensors:
                sink.write(key, source.chunks(key))
            sink.finish()
        with tf.Graph().as_default(), v1.Session() as session:
            made = variables(v1)
            for version, name in ((v1.train.SaverDef.V1, "v1"), (v1.train.SaverDef.V2, "v2")):
                session.run(v1.global_variables_initializer())
                v1.train.Saver(write_version=version).restore(session, str(tmp_path / name))
                found = session.run({key: tf.convert_to_tensor(each) for key, each in made.items()})
                for key, value in values.items():
                    np.testing.assert_array_equal(found[key], value)
        reader = v1.train.NewCheckpointReader(str(tmp_path / "v1"))
        assert reader.get_tensor("global_step") == 1234

    def test_large_tensors_are_streamed(self, tmp_path: Path) -> None:
        array = np.arange(6 << 20, dtype=np.float64)
        tracemalloc.start()
        sink = V1Sink(tmp_path / "model", [Stored("large", array.shape, "float64")])
        sink.write("large", pieces(array))
        sink.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * CHUNK
        (found,) = restored(tmp_path / "model", {"large": "float64"})
        np.testing.assert_array_equal(found, array)

    def test_elements_across_chunks(self, tmp_path: Path) -> None:
        array = np.array([1, -2, 3], np.int64)
        raw = array.tobytes()
        sink = V1Sink(tmp_path / "model", [Stored("a", (3,), "int64")])
        sink.write("a", [raw[:3], raw[3:17], memoryview(raw)[17:]])
        sink.finish()
        with V1Source(tmp_path / "model") as source:
            np.testing.assert_array_equal(source.read("a"), array)

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ([Stored("a", (), "bfloat16")], "a is of bfloat16, which a V1 checkpoint"),
            ([Stored("a", (), "uint32")], "a is of uint32"),
            ([Stored("a", (1 << 29,), "float32")], r"a, of shape \[536870912\], is beyond the 2 GB"),
            ([Stored("a", (1 << 31,), "bool")], "beyond the 2 GB"),
            ([Stored("a", (), "float32"), Stored("a", (), "int8")], "two tensors"),
            ([Stored("../a", (), "float32")], "refused"),
        ],
    )
    def test_headers_that_cannot_be_written_are_refused(
        self, tmp_path: Path, headers: list[Stored], message: str
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            V1Sink(tmp_path / "model", headers)
        assert not list(tmp_path.iterdir())

    def test_integers_that_grow_beyond_the_limit_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(saver_v1, "_LIMIT", 8192)
        sink = V1Sink(tmp_path / "model", [Stored("a", (1000,), "int32"), Stored("b", (1000,), "int32")])
        sink.write("b", pieces(np.ones(1000, np.int32)))
        with pytest.raises(CheckpointError, match=r"a, of shape \[1000\], is beyond the 2 GB"):
            sink.write("a", pieces(-np.ones(1000, np.int32)))
        sink.abandon()

    def test_what_was_not_announced_is_refused(self, tmp_path: Path) -> None:
        headers = [Stored("a", (2,), "float32"), Stored("i", (2,), "int32"), Stored("t", (1,), "string")]
        sink = V1Sink(tmp_path / "model", headers)
        for key, data in (("a", bytes(4)), ("i", bytes(4)), ("i", bytes(9)), ("i", bytes(12))):
            with pytest.raises(CheckpointError, match=rf"{key} did not come with the 2 element"):
                sink.write(key, [data])
        with pytest.raises(CheckpointError, match="the texts of t"):
            sink.write("t", [b"abcdef"])
        with pytest.raises(CheckpointError, match="a was announced"):
            sink.finish()
        sink.abandon()


def evil(
    path: Path,
    value: bytes | None,
    *,
    name: str = "a",
    shape: tuple[int, ...] = (4,),
    dtype: int = 1,
    slices: tuple[Slice, ...] = (((0, -1),),),
    extra: bytes = b"",
) -> Path:
    """A V1 checkpoint of one tensor that holds what it is told to, its checksums right."""
    meta = (
        wire.bytes_field(1, name.encode())
        + wire.bytes_field(2, wire.shape_message(shape))
        + wire.number_field(3, dtype)
        + b"".join(wire.bytes_field(4, wire.slice_message(each)) for each in slices)
    )
    with path.open("wb") as file:
        writer = TableWriter(file)
        writer.add(b"", wire.bytes_field(1, wire.bytes_field(1, meta) + extra))
        if value is not None:
            for each in sorted({wire.slice_key(name, each) for each in slices}):
                writer.add(each, value)
        writer.finish()
    return path


def data_of(tensor: bytes, name: bytes = b"a") -> bytes:
    """A slice's entry."""
    return wire.bytes_field(2, wire.bytes_field(1, name) + wire.bytes_field(3, tensor))


FOUR = np.arange(4, dtype=np.float32).tobytes()


class TestHarm:
    @pytest.mark.parametrize(
        ("value", "options"),
        [
            (data_of(wire.bytes_field(5, FOUR)), {}),
            (data_of(wire.bytes_field(5, FOUR[:8]) + wire.bytes_field(5, FOUR[8:])), {}),
            (data_of(b"".join(wire.varint(5 << 3 | 5) + FOUR[each : each + 4] for each in (0, 4, 8, 12))), {}),
            (data_of(wire.bytes_field(4, FOUR)), {}),
            (data_of(b"".join(wire.varint(7 << 3) + wire.varint(each) for each in (0, -1, 2, 3))), {"dtype": 3}),
        ],
    )
    def test_other_ways_to_hold_elements(self, tmp_path: Path, value: bytes, options: dict[str, Any]) -> None:
        with V1Source(evil(tmp_path / "evil", value, **options)) as source:
            wanted = np.array([0, -1, 2, 3], np.int32).tobytes() if options else FOUR
            assert joined(source, "a") == wanted

    @pytest.mark.parametrize(
        ("value", "options", "message"),
        [
            (None, {}, "has no entry"),
            (data_of(wire.bytes_field(5, FOUR[:12])), {}, "12 bytes of elements.*has 16"),
            (data_of(wire.bytes_field(5, FOUR * 2)), {}, "more bytes of elements"),
            (data_of(b""), {}, "0 bytes of elements"),
            (data_of(wire.bytes_field(5, FOUR), b"b"), {}, "another tensor"),
            (data_of(wire.number_field(5, 3)), {}, "another wire type"),
            (data_of(wire.bytes_field(7, b"\x80" * 4)), {"dtype": 3}, "does not end"),
            (data_of(wire.bytes_field(7, b"\x80" * 30)), {"dtype": 3}, "ten bytes"),
            (data_of(wire.bytes_field(7, b"\x80" * 11 + b"\x00")), {"dtype": 3}, "ten bytes"),
            (data_of(wire.bytes_field(8, b"text")), {"dtype": 7}, "holds 1 texts, where its shape has 4"),
            (b"\x12\x7fabc", {}, "are announced"),
        ],
    )
    def test_entries_that_cannot_be(
        self, tmp_path: Path, value: bytes | None, options: dict[str, Any], message: str
    ) -> None:
        with (
            V1Source(evil(tmp_path / "evil", value, **options)) as source,
            pytest.raises(CheckpointError, match=rf"evil is damaged: a: .*{message}"),
        ):
            list(source.chunks("a"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shape": (-4,)}, "shape"),
            ({"dtype": 99}, "number of no dtype"),
            ({"dtype": 0}, "number of no dtype|no dtype"),
            ({"dtype": 14}, "bfloat16, which a V1"),
            ({"slices": ()}, "no slices"),
            ({"slices": (((0, 3),),)}, "do not cover"),
            ({"slices": (((0, 3),), ((2, 1),))}, "overlap"),
            ({"slices": (((0, 2),), ((2, 9),))}, "outside the shape"),
            ({"extra": wire.bytes_field(2, wire.number_field(2, 3))}, "format 3 or newer"),
            ({"extra": wire.bytes_field(1, wire.bytes_field(1, b"a") + wire.number_field(3, 1))}, "no slices"),
            (
                {
                    "extra": wire.bytes_field(
                        1, wire.bytes_field(1, b"a") + wire.number_field(3, 1) + wire.bytes_field(4, b"")
                    )
                },
                "two shapes",
            ),
            ({"name": "../a"}, "refused"),
            ({"extra": b"\xff"}, "makes no sense"),
        ],
    )
    def test_metas_that_cannot_be(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises(CheckpointError, match=rf"evil (is damaged|names).*({message})"):
            V1Source(evil(tmp_path / "evil", data_of(b""), **options))

    def test_a_table_of_something_else(self, tmp_path: Path) -> None:
        with (tmp_path / "evil").open("wb") as file:
            writer = TableWriter(file)
            writer.add(b"key", b"value")
            writer.finish()
        with pytest.raises(CheckpointError, match="without the entry"):
            V1Source(tmp_path / "evil")

    def test_flipped_bits_are_refused(self, saved: Path, tmp_path: Path) -> None:
        path = copied(saved.parent, tmp_path / "copy") / saved.name
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            data = bytearray(whole)
            data[place] ^= 1 << place % 8
            path.write_bytes(data)
            with pytest.raises(CheckpointError) as caught, V1Source(path) as source:
                for key in source.tensors:
                    list(source.chunks(key))
            assert str(path) in str(caught.value)

    def test_cuts_are_refused(self, saved: Path, tmp_path: Path) -> None:
        path = copied(saved.parent, tmp_path / "copy") / saved.name
        whole = path.read_bytes()
        for cut in range(0, len(whole), 3):
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointError, match=rf"{path.name} is damaged"):
                V1Source(path)


@pytest.mark.parametrize(
    "values",
    [
        np.array([], np.int64),
        np.array([0, 1, 127, 128, 16383, 16384, (1 << 63) - 1, -1, -(1 << 63)], np.int64),
        np.array([0, 255], np.uint8),
        np.array([-128, 127], np.int8),
    ],
)
def test_varints_are_protobufs(values: Any) -> None:
    data = encoded(values)
    assert data == b"".join(wire.varint(int(each)) for each in values)
    back, used = decoded(np.frombuffer(data, np.uint8))
    assert used == len(data)
    assert back.astype(values.dtype).tolist() == values.tolist()
    with pytest.raises(WireError, match="ten bytes"):
        decoded(np.frombuffer(b"\x80" * 10 + b"\x01", np.uint8))


def test_texts_have_one_form() -> None:
    assert decoded_texts(encoded_lengths(map(len, TEXTS)) + b"".join(TEXTS), 4) == TEXTS


@pytest.mark.parametrize("seeds", [range(FEW), pytest.param(range(MANY), marks=pytest.mark.slow)])
def test_mutations(saved: Path, tmp_path: Path, seeds: range) -> None:
    folder = copied(saved.parent, tmp_path / "copy")
    outcome = check_reader(folder, saved.name, folder / saved.name, seeds)
    assert outcome["refused"] > len(seeds) // 2


@pytest.mark.parametrize("seeds", [range(FEW), pytest.param(range(MANY), marks=pytest.mark.slow)])
def test_mutations_under_right_checksums(saved: Path, tmp_path: Path, seeds: range) -> None:
    path = copied(saved.parent, tmp_path / "copy") / saved.name
    table = Table(path)
    entries = {key: value.read() for key, value in table}
    table.close()
    keys = sorted(entries)
    for seed in seeds:
        key = keys[seed % len(keys)] if seed % 3 else b""
        with path.open("wb") as file:
            writer = TableWriter(file)
            for each in keys:
                writer.add(each, mutated(entries[each], seed) if each == key else entries[each])
            writer.finish()
        tracemalloc.start()
        try:
            with V1Source(path) as source:
                for name in source.tensors:
                    for _ in source.chunks(name):
                        pass
        except CheckpointError as error:
            assert str(path) in str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 24 << 20, seed
