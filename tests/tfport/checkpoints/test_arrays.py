"""npz and safetensors files: numpy and the safetensors library are the oracles, in both directions."""

from __future__ import annotations

import io
import json
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import checkpoint_mutations
from checkpoint_mutations import FEW, MANY, check_reader, mutated
from tfport import state
from tfport.checkpoints.arrays import NpzSink, NpzSource, SafetensorsSink, SafetensorsSource
from tfport.checkpoints.contents import (
    STRING,
    Array,
    Bytes,
    Contents,
    Entry,
    OptimizerEntry,
    Role,
    Source,
    Stored,
    pieces,
)
from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError

ARRAYS: dict[str, Array] = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "dense/bias": np.array([1.5, -2], np.float64),
    "flag": np.array(True),
    "count": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "wave": np.array([1 + 2j], np.complex64),
    "odd": np.array([1, 2, 3], np.uint8),
}


def stored(arrays: dict[str, Array]) -> dict[str, Stored]:
    return {key: Stored(key, array.shape, array.dtype.name) for key, array in arrays.items()}


def plain(arrays: dict[str, Array]) -> Contents:
    return Contents(tuple(Entry(key, Role.WEIGHT, f"own/{key}") for key in arrays))


def canonical(arrays: dict[str, Array], optimizers: tuple[OptimizerEntry, ...] = ()) -> Contents:
    return Contents(tuple(Entry(key, Role.WEIGHT, key) for key in arrays), optimizers)


def write(sink: Any, path: Path, arrays: dict[str, Array], contents: Contents, template: Source | None = None) -> Path:
    opened = sink(path, list(stored(arrays).values()), contents, template)
    for key, array in arrays.items():
        opened.write(key, pieces(array))
    opened.finish()
    return path


def same(source: Source, arrays: dict[str, Array]) -> None:
    assert source.tensors == stored(arrays)
    for key, array in arrays.items():
        found = source.read(key)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught, open_source(path) as source:
        for key in source.tensors:
            for _ in source.chunks(key):
                pass
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- npz --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpys_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)
    with open_source(path) as source:
        assert isinstance(source, NpzSource)
        same(source, ARRAYS)
        assert source.written_by == {}


def test_npz_in_fortrans_order_and_big_endian(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(5, 6, 7)).astype(np.float32)
    path = tmp_path / "a.npz"
    np.savez(
        path,
        f=np.asfortranarray(array),
        b=array.astype(">f4"),
        fb=np.asfortranarray(array.astype(">f4")),
        c=array.astype(">c8"),
        vector=np.asfortranarray(array[0, 0]),
    )
    with NpzSource(path) as source:
        expected = {"f": array, "b": array, "fb": array, "c": array.astype("c8"), "vector": array[0, 0]}
        same(source, expected)


def test_npz_large_tensors_in_fortrans_order_come_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    array = np.arange(3 << 20, dtype=np.float64).reshape(2, -1)
    np.savez(path, array=np.asfortranarray(array))
    with NpzSource(path) as source:
        assert b"".join(map(bytes, source.chunks("array"))) == array.tobytes()
        assert max(map(len, source.chunks("array"))) <= 8 << 20


def test_npz_is_written_as_numpy_reads_it(tmp_path: Path) -> None:
    path = write(NpzSink, tmp_path / "a.npz", ARRAYS, plain(ARRAYS))
    with np.load(path, allow_pickle=False) as found:
        assert found.files == list(ARRAYS)
        for key, array in ARRAYS.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_array_equal(found[key], array)
    with NpzSource(path) as source:
        same(source, ARRAYS)
        assert not source.is_state


def test_npz_texts_are_kept_between_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, name=np.array(["one", "größer"]), raw=np.array(b"xy"))
    with NpzSource(path) as source:
        assert {each.dtype for each in source.tensors.values()} == {STRING}
        assert source.tensors["name"].shape == (2,)
        copy = NpzSink(
            tmp_path / "b.npz", list(source.tensors.values()), plain(dict.fromkeys(source.tensors, np.zeros(0))), source
        )
        for key in source.tensors:
            copy.write(key, source.chunks(key))
        copy.finish()
        with pytest.raises(CheckpointError, match="texts"):
            source.read("name")
        with pytest.raises(CheckpointError, match=r"c\.npz: name holds texts"):
            NpzSink(tmp_path / "c.npz", list(source.tensors.values()), plain({}), None)
    with np.load(tmp_path / "b.npz") as found:
        assert list(found["name"]) == ["one", "größer"]


def test_npz_objects_and_records_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, good=np.zeros(2), evil=np.array([print], object), allow_pickle=True)
    assert "'evil' holds Python objects" in refused(path)
    np.savez(path, record=np.zeros(2, [("a", "<f4")]))
    assert "'record' holds" in refused(path)
    np.savez(path, day=np.array(["2020-01-01"], "M8[D]"))
    assert "'day' holds" in refused(path)


def member(path: Path, data: bytes, name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, data)
    return path


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little") + text + data


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", "4,000,000,000,000 bytes"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "dimension -1"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}", "dimension True"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387903)}", "more elements"),
        (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1,' * 65})}}", "more than 64"),
        (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},)}}", "no readable"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "holds 4"),
        ("{'descr': '<f4', 'fortran_order': False}", "no readable"),
        ("(" * 3000, "no readable"),
        ("__import__('os').system('true')", "no readable"),
    ],
)
def test_npz_headers_that_lie_are_refused(tmp_path: Path, header: str, found: str) -> None:
    message = refused(member(tmp_path / "a.npz", npy(header, b"\0" * 4)))
    assert found in message
    assert "'x'" in message


def test_npz_of_another_npy_version_is_refused(tmp_path: Path) -> None:
    assert "version 3.0" in refused(member(tmp_path / "a.npz", npy("{}", version=b"\x03\x00")))


def test_npz_warns_of_nothing(tmp_path: Path) -> None:
    path = member(tmp_path / "a.npz", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L,)}", b"\0" * 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with NpzSource(path) as source:
            assert source.tensors["x"].shape == (1,)


def test_npz_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    good = io.BytesIO()
    np.save(good, np.zeros(1))
    for name in ("../x.npy", "/x.npy", "a/../../x.npy", ".npy"):
        assert "which is refused" in refused(member(tmp_path / "a.npz", good.getvalue(), name))


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'x\.txt', which is no \.npy"):
        NpzSource(member(tmp_path / "a.npz", b"", "x.txt"))
    with pytest.raises(CheckpointError, match="does not exist"):
        NpzSource(tmp_path / "none.npz")
    with pytest.raises(CheckpointError, match="cannot be read"):
        NpzSource(tmp_path)


def test_npz_twice_the_same_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b"\0" * 4))
        archive.writestr("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b"\1" * 4))
    assert "two members" in refused(path)


def test_npz_packed_or_locked_in_another_way_is_refused(tmp_path: Path) -> None:
    path = member(tmp_path / "a.npz", npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", b"\0" * 4))
    with zipfile.ZipFile(path) as archive:
        central = archive.start_dir
    data = bytearray(path.read_bytes())
    data[central + 10] = 14
    path.write_bytes(data)
    assert "packed by method 14" in refused(path)
    data[central + 10], data[central + 8] = 0, 1
    path.write_bytes(data)
    assert "encrypted" in refused(path)


def test_npz_bombs_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(1000))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        central = archive.start_dir
    data[central + 24 : central + 28] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    assert "announces 2,147,483,648 bytes" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_npz_that_is_really_large_when_unpacked_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(6 << 20))
    tracemalloc.start()
    with NpzSource(path) as source:
        assert sum(map(len, source.chunks("x"))) == 48 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_a_flipped_bit_of_the_data_is_seen(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, x=np.random.default_rng(0).normal(size=1000))
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    assert "is damaged: the member 'x.npy' cannot be read" in refused(path)


# --- State files ------------------------------------------------------------------------------------------------------
STATE: dict[str, Array] = {
    "generator/hidden/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "generator/norm/moving_mean": np.zeros(3, np.float32),
    "optimizer/g/m/generator/hidden/kernel": np.ones((2, 3), np.float32),
    "optimizer/g/v/generator/hidden/kernel": np.ones((2, 3), np.float32),
    "optimizer/g/iterations": np.array(5, np.int64),
    "optimizer/g/beta_1_power": np.array(0.5, np.float32),
    "optimizer/g/learning_rate": np.array(0.1, np.float32),
    "average/generator/hidden/kernel": np.ones((2, 3), np.float32),
    "global_step": np.array(5, np.int64),
    "dropout/seed_generator_state": np.zeros(2, np.uint32),
}
G = OptimizerEntry(
    "g", "Adam", "tf1", {"learning_rate": 0.1, "beta_1": 0.9}, ("generator/hidden/kernel",), ("learning_rate",)
)


def test_state_files_are_read_and_their_schema_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    state.write(path, state.State("dcgan", STATE))
    with open_source(path) as source:
        assert isinstance(source, NpzSource)
        same(source, STATE)
        assert (source.model, source.written_by) == ("dcgan", {"tfport": "state schema 1"})
        contents = source.contents()
    roles = [entry.role for entry in contents.entries]
    assert roles == [
        Role.WEIGHT,
        Role.STATISTIC,
        Role.SLOT,
        Role.SLOT,
        Role.COUNT,
        Role.POWER,
        Role.HYPERPARAMETER,
        Role.AVERAGE,
        Role.COUNT,
        Role.OTHER,
    ]
    slot = contents.entries[3]
    assert (slot.name, slot.variable, slot.optimizer, slot.slot) == (
        "optimizer/g/v/generator/hidden/kernel",
        "generator/hidden/kernel",
        "g",
        "v",
    )
    assert contents.entries[7].variable == "generator/hidden/kernel"
    (optimizer,) = contents.optimizers
    assert (optimizer.name, optimizer.algorithm, optimizer.convention) == ("g", None, "tf1")
    assert optimizer.variables == ("generator/hidden/kernel",)
    assert any("dcgan" in note for note in contents.notes)


@pytest.mark.parametrize("sink", [NpzSink, SafetensorsSink])
def test_canonical_files_keep_what_is_known_of_optimizers(tmp_path: Path, sink: type) -> None:
    idle = OptimizerEntry("idle", "SGD", "keras", {"learning_rate": float("nan")}, ("global_step", "gone"))
    contents = Contents(canonical(STATE).entries, (G, idle), ("The state of the model dcgan",))
    path = write(sink, tmp_path / "a", STATE, contents)
    with open_source(path) as source:
        found = source.contents()
        assert source.written_by == {"tfport": "0.1.0"}
        for key, array in STATE.items():
            np.testing.assert_array_equal(source.read(key), array)
    assert found.optimizers == (G, OptimizerEntry("idle", "SGD", "tf1", {}, ("global_step",)))
    assert "The state of the model dcgan" in found.notes
    if sink is NpzSink:
        read = state.read(path)
        assert read.model == "dcgan"
        assert read.digest() == state.State("dcgan", STATE).digest()


def test_a_template_gives_a_state_file_its_model(tmp_path: Path) -> None:
    state.write(tmp_path / "a.npz", state.State("dcgan", STATE))
    with NpzSource(tmp_path / "a.npz") as template:
        path = write(NpzSink, tmp_path / "b.npz", STATE, canonical(STATE), template)
    assert state.read(path).model == "dcgan"
    np.savez(tmp_path / "c.npz", allow_pickle=False, **STATE)
    with NpzSource(tmp_path / "c.npz") as template:
        path = write(NpzSink, tmp_path / "d.npz", STATE, canonical(STATE), template)
    with NpzSource(path) as source:
        assert not source.is_state


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"schema": 2, "names": []}, "state schema 2"),
        ({"schema": 1, "names": ["x", "y"]}, "lists 2 arrays, and 1 are there"),
        ({"schema": 1, "names": "x"}, "no list of texts"),
        ({"schema": 1, "names": ["x"], "dtypes": {"x": "object"}}, "none that are known"),
        ({"schema": 1, "names": ["x"], "dtypes": {"x": "bfloat16"}}, "says bfloat16"),
        ({"schema": 1, "names": ["x"], "dtypes": {"y": "bfloat16"}}, "'y', which is not there"),
        ({"schema": 1, "names": ["x"], "optimizers": 3}, "no list of them"),
        ({"schema": 1, "names": ["x"], "optimizers": [{"name": "a"}, {"name": "a"}]}, "no list of them"),
        ({"schema": 1, "names": ["x"], "optimizers": [{"name": "a", "algorithm": 3}]}, "no algorithm with numbers"),
        ({"schema": 1, "names": ["x"], "optimizers": [{"name": "a", "hyperparameters": {"b": True}}]}, "with numbers"),
        (
            {"schema": 1, "names": ["x"], "optimizers": [{"name": "a", "hyperparameters": {"b": 10**400}}]},
            "with numbers",
        ),
        ({"schema": 1, "names": ["x"], "optimizers": [{"name": "a", "varying": [3]}]}, "no list of names"),
    ],
)
def test_state_files_that_do_not_make_sense_are_refused(tmp_path: Path, facts: dict[str, Any], found: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, __schema__=np.array(json.dumps(facts)), x=np.zeros(3, np.float32))
    assert found in refused(path)


def test_a_users_own_array_of_that_name_is_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for own in (np.zeros(3), np.array("no json"), np.array("{}"), np.array(["{}"])):
        np.savez(path, __schema__=own, x=np.zeros(3, np.float32))
        with NpzSource(path) as source:
            assert list(source.tensors) == ["__schema__", "x"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dtypes_that_numpy_has_not(tmp_path: Path, dtype: str) -> None:
    arrays: dict[str, Array] = {"w": np.array([[1, -2.5], [0, 3]], getattr(ml_dtypes, dtype)), "x": np.ones(1)}
    for sink in (NpzSink, SafetensorsSink):
        path = write(sink, tmp_path / sink.__name__, arrays, canonical(arrays))
        with open_source(path) as source:
            same(source, arrays)
    with pytest.raises(CheckpointError, match=f"w has dtype {dtype}, which an npz cannot tell"):
        write(NpzSink, tmp_path / "b.npz", arrays, plain(arrays))


def test_algorithms_are_named_where_the_slots_tell(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {"w": np.zeros(2), "v": np.zeros(2)}
    for optimizer, slots in {
        "a": ("rms",),
        "b": ("rms", "momentum"),
        "c": ("rms", "mean"),
        "d": ("accumulator",),
        "e": ("accumulator", "linear"),
        "f": ("strange",),
    }.items():
        arrays |= {f"optimizer/{optimizer}/{slot}/w": np.zeros(2) for slot in slots}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **arrays)
    with NpzSource(tmp_path / "a.npz") as source:
        found = {each.name: each.algorithm for each in source.contents().optimizers}
    assert found == {"a": "RMSProp", "b": "RMSProp", "c": "CenteredRMSProp", "d": None, "e": "Ftrl", "f": None}


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_safetensors_of_the_library_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {"format": "np", "title": "mine"})
    with open_source(path) as source:
        assert isinstance(source, SafetensorsSource)
        assert source.tensors.keys() == ARRAYS.keys()
        for key, array in ARRAYS.items():
            found = source.read(key)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)
        assert source.contents().notes == ("Written for numpy.", "The file says 'title': 'mine'.")


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = write(SafetensorsSink, tmp_path / "a.safetensors", ARRAYS, canonical(ARRAYS))
    found = safetensors.numpy.load_file(path)
    assert found.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)
    with safetensors.safe_open(path, "np") as opened:
        assert opened.metadata() == {"format": "np", "tfport": "0.1.0", "schema": "1"}
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    for key, array in ARRAYS.items():
        assert header[key]["data_offsets"][0] % array.dtype.itemsize == 0


def test_the_data_lies_as_the_library_lays_it(tmp_path: Path) -> None:
    data = write(SafetensorsSink, tmp_path / "a.safetensors", ARRAYS, canonical(ARRAYS)).read_bytes()
    theirs = safetensors.numpy.save(ARRAYS, {"format": "np"})
    assert data[8 + int.from_bytes(data[:8], "little") :] == theirs[8 + int.from_bytes(theirs[:8], "little") :]


def test_a_template_gives_its_metadata(tmp_path: Path) -> None:
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.safetensors", {"format": "pt", "title": "mine"})
    with SafetensorsSource(tmp_path / "a.safetensors") as template:
        path = write(SafetensorsSink, tmp_path / "b.safetensors", ARRAYS, canonical(ARRAYS), template)
    with SafetensorsSource(path) as source:
        assert source.metadata == {"format": "pt", "title": "mine", "tfport": "0.1.0", "schema": "1"}


def test_what_safetensors_cannot_hold_is_refused(tmp_path: Path) -> None:
    for wrong in (Stored("w", (1,), STRING), Stored("w", (1,), "complex128")):
        with pytest.raises(CheckpointError, match=f"w has dtype {wrong.dtype}"):
            SafetensorsSink(tmp_path / "a", [wrong], plain({}), None)
    with pytest.raises(CheckpointError, match="__metadata__"):
        SafetensorsSink(tmp_path / "a", [Stored("__metadata__", (), "int8")], plain({}), None)


def safe(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def one(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({"x": one(), "y": one(offsets=(4, 8))}, "its tensors end at"),
        ({"x": one(), "y": one(offsets=(2, 6))}, "overlaps"),
        ({"x": one(), "y": one(offsets=(0, 4))}, "overlaps"),
        ({"x": one(offsets=(1, 5))}, "hole"),
        ({"x": one(shape=(2,))}, "8 bytes, and its data_offsets"),
        ({"x": one(shape=(2**61, 4))}, "more elements"),
        ({"x": one(shape=(-1,))}, "dimension -1"),
        ({"x": one(shape=(1.0,))}, "dimension 1.0"),
        ({"x": one(shape=(10**4000,))}, "more than 64 bits"),
        ({"x": one(shape=[1] * 65)}, "more than 64 dimensions"),
        ({"x": one(shape=3)}, "another type"),
        ({"x": one(dtype="F7")}, "dtype 'F7'"),
        ({"x": one(dtype=["F32"])}, "another type"),
        ({"x": one(offsets=(0, True))}, "no two whole numbers"),
        ({"x": one(offsets=(0, 4, 8))}, "no two whole numbers"),
        ({"x": one(offsets=(4, 0))}, "another number"),
        ({"x": {"dtype": "F32"}}, "has not dtype"),
        ({"x": 3}, "has not dtype"),
        ({"../x": one()}, "'../x', which is refused"),
        ({"__metadata__": {"a": 1}, "x": one()}, "no object of texts"),
        ({"__metadata__": [], "x": one()}, "no object of texts"),
        ({"__metadata__": {"tfport": "1", "optimizers": "["}, "x": one()}, "no JSON"),
        ({"__metadata__": {"tfport": "1", "optimizers": "[3]"}, "x": one()}, "no list of them"),
        ('{"x": ' + json.dumps(one()) + ', "x": ' + json.dumps(one()) + "}", "there twice"),
        ('{"x": ' + "[" * 100_000, "no JSON"),
        ('{"x"', "no JSON"),
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path: Path, header: object, found: str) -> None:
    assert found in refused(safe(tmp_path / "a.safetensors", header, b"\0" * 4))


def test_safetensors_that_are_cut_are_refused(tmp_path: Path) -> None:
    path = safe(tmp_path / "a.safetensors", {"x": one()}, b"\0" * 4)
    whole = path.read_bytes()
    assert SafetensorsSource(path).read("x") == 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            SafetensorsSource(path)
    path.write_bytes(whole + b"\0")
    assert "its tensors end at" in refused(path)
    with pytest.raises(CheckpointError, match="tell of a header of 1,000"):
        SafetensorsSource(safe(path, "{}", length=1000))
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little") + b"{")
        file.truncate(200_000_008)
    with pytest.raises(CheckpointError, match="at most 100,000,000"):
        SafetensorsSource(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        SafetensorsSource(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read"):
        SafetensorsSource(tmp_path)


def test_a_file_that_is_cut_while_it_is_open_is_refused(tmp_path: Path) -> None:
    path = safe(tmp_path / "a.safetensors", {"x": one()}, b"\0" * 4)
    with SafetensorsSource(path) as source:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match="before its tensors do"):
            source.read("x")


def test_safetensors_with_pytorchs_names(tmp_path: Path) -> None:
    arrays = {
        "net.0.weight": np.zeros((2, 3), np.float32),
        "net.1.running_mean": np.zeros(2, np.float32),
        "net.1.num_batches_tracked": np.array(3, np.int64),
        "embed.position_ids": np.zeros(4, np.int64),
    }
    for metadata in ({"format": "pt"}, None):
        safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors", metadata)
        with SafetensorsSource(tmp_path / "a.safetensors") as source:
            found = {entry.key: (entry.role, entry.name) for entry in source.contents().entries}
        assert found == {
            "net.0.weight": (Role.WEIGHT, "net/0/weight"),
            "net.1.running_mean": (Role.STATISTIC, "net/1/running_mean"),
            "net.1.num_batches_tracked": (Role.COUNT, "net/1/num_batches_tracked"),
            "embed.position_ids": (Role.OTHER, "embed.position_ids"),
        }


# --- Sinks ------------------------------------------------------------------------------------------------------------
def parts(size: int) -> Iterator[Bytes]:
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        yield piece


@pytest.mark.parametrize("sink", [NpzSink, SafetensorsSink])
def test_large_tensors_are_written_and_read_in_pieces(tmp_path: Path, sink: Any) -> None:
    large = Stored("w", (48 << 20,), "uint8")
    tracemalloc.start()
    opened = sink(tmp_path / "a", [large], Contents((Entry("w", Role.WEIGHT, "w"),)), None)
    opened.write("w", parts(48 << 20))
    opened.finish()
    with open_source(tmp_path / "a") as source:
        assert sum(map(len, source.chunks("w"))) == 48 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("sink", [NpzSink, SafetensorsSink])
def test_sinks_hold_to_what_was_announced(tmp_path: Path, sink: Any) -> None:
    tensors = {name: Stored(name, (2,), "uint8") for name in "ab"}
    opened = sink(tmp_path / "a", list(tensors.values()), plain({}), None)
    with pytest.raises(ValueError, match="b was written where a was announced"):
        opened.write("b", [b"xx"])
    opened.abandon()
    opened = sink(tmp_path / "a", list(tensors.values()), plain({}), None)
    with pytest.raises(ValueError, match="a has 3 bytes where 2"):
        opened.write("a", [b"xxx"])
    with pytest.raises(ValueError, match="b was announced and not written"):
        opened.finish()
    opened.abandon()


# --- Mutations --------------------------------------------------------------------------------------------------------
def small() -> dict[str, Array]:
    return {**STATE, "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.arange(9).astype(">i4")}


def npz_stored(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **small())


def npz_deflated(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **small())


def npz_state(path: Path) -> None:
    write(NpzSink, path, STATE, canonical(STATE, (G,)))


def safetensors_file(path: Path) -> None:
    write(SafetensorsSink, path, STATE, canonical(STATE, (G,)))


FILES = [npz_stored, npz_deflated, npz_state, safetensors_file]


@pytest.mark.parametrize("make", FILES)
def test_mutated_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model")
    assert check_reader(tmp_path, "model", tmp_path / "model", range(FEW))["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("make", FILES)
def test_many_mutated_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model")
    assert check_reader(tmp_path, "model", tmp_path / "model", range(MANY))["refused"]


def mutate_members(path: Path, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the members mutated, and the zip around them whole."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def rebuilt(data: bytes, seed: int) -> bytes:
        names = sorted(name for name in members if chosen in name)
        name = names[seed % len(names)]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for each, content in members.items():
                # Whole numbers apart, so that every kind of mutation meets every member.
                archive.writestr(each, mutated(content, seed // len(names)) if each == name else content)
        return buffer.getvalue()

    monkeypatch.setattr(checkpoint_mutations, "mutated", rebuilt)


@pytest.mark.parametrize("make", [npz_stored, npz_state])
@pytest.mark.parametrize("count", [pytest.param(2 * FEW), pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutated_members_with_the_right_checksum(
    tmp_path: Path, make: Callable[[Path], None], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    make(path)
    mutate_members(path, ".npy", monkeypatch)
    found = check_reader(tmp_path, "model", path, range(count))
    assert found["refused"]
    assert found["read"]


@pytest.mark.slow
def test_npz_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    tensors = {"a": Stored("a", ((4 << 30) + (1 << 20),), "uint8"), "b": Stored("b", (1 << 20,), "uint8")}
    sink = NpzSink(tmp_path / "a.npz", list(tensors.values()), plain({}), None)
    for key, each in tensors.items():
        sink.write(key, parts(each.nbytes))
    sink.finish()
    with NpzSource(tmp_path / "a.npz") as source:
        assert source.tensors == tensors
        for key, each in tensors.items():
            assert sum(map(len, source.chunks(key))) == each.nbytes
