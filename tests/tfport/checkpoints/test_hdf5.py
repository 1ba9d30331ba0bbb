"""Keras's HDF5 files, made by h5py in Keras's layouts; what Keras itself writes is in test_keras_names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from checkpoint_mutations import FEW, MANY, check_reader
from tfport.checkpoints import hdf5, isolated
from tfport.checkpoints.contents import CHUNK, STRING, Contents, Entry, Role, Stored, pieces
from tfport.checkpoints.hdf5 import H5Sink, H5Source, text_list, texts
from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError, RunError

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
KERNEL = RNG.normal(size=(3, 4)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)


def keras2(path: Path, layers: dict[str, dict[str, Array]] | None = None, **attributes: str) -> Path:
    """A weights file in the layout of Keras 2."""
    layers = {"hidden": {"kernel": KERNEL, "bias": BIAS}, "out": {"kernel": KERNEL.T}} if layers is None else layers
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(layers)
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = "2.15.0"
        for attribute, text in attributes.items():
            file.attrs[attribute] = text
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{kind}:0" for kind in weights]
            for kind, value in weights.items():
                group[f"{layer}/{kind}:0"] = value
    return path


def keras3(path: Path) -> Path:
    """A weights file in the layout of Keras 3, with an Adam."""
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = "main"
        for number, (name, values) in enumerate((("hidden", [KERNEL, BIAS]), ("out", [KERNEL.T]))):
            group = file.create_group(f"layers/dense{f'_{number}' if number else ''}/vars")
            group.attrs["name"] = name
            for place, value in enumerate(values):
                group[str(place)] = value
        group = file.create_group("optimizer/vars")
        group.attrs["name"] = "adam"
        group["0"], group["1"] = np.int64(7), np.float32(0.25)
        for place, value in enumerate([KERNEL, KERNEL, BIAS, BIAS, KERNEL.T, KERNEL.T]):
            group[str(place + 2)] = value + place
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused, when it is opened or read."""
    with pytest.raises(CheckpointError) as caught, open_source(path) as source:
        source.contents()
        for key in source.tensors:
            source.read(key)
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


# --- Reading ----------------------------------------------------------------------------------------------------------
def test_weights_of_keras_2_come_in_the_models_order(tmp_path: Path) -> None:
    layers = {"z": {"kernel": KERNEL, "bias": BIAS}, "a": {"moving_mean": BIAS}}
    with open_source(keras2(tmp_path / "w.h5", layers)) as source:
        assert source.format == "keras-h5"
        assert source.written_by == {"keras": "2.15.0", "backend": "tensorflow"}
        assert list(source.tensors) == ["z/z/kernel:0", "z/z/bias:0", "a/a/moving_mean:0"]
        np.testing.assert_array_equal(source.read("z/z/kernel:0"), KERNEL)
        entries = {each.name: each.role for each in source.contents().entries}
    assert entries == {"z/kernel": Role.WEIGHT, "z/bias": Role.WEIGHT, "a/moving_mean": Role.STATISTIC}


def test_weights_of_keras_3(tmp_path: Path) -> None:
    with open_source(keras3(tmp_path / "w.weights.h5")) as source:
        assert source.format == "keras3-weights"
        contents = source.contents()
        by_name = contents.by_name()
        assert {"hidden/kernel", "hidden/bias", "out/kernel", "optimizer/adam/iterations"} <= by_name.keys()
        [slot] = by_name["optimizer/adam/v/hidden/bias"]
        np.testing.assert_array_equal(source.read(slot.key), BIAS + 3)
    [optimizer] = contents.optimizers
    assert optimizer.algorithm == "Adam"
    assert optimizer.hyperparameters == {"learning_rate": 0.25}


def kinds_of_data() -> dict[str, Array]:
    large = RNG.normal(size=(700, 3000)).astype(np.float64)
    return {
        "float16": KERNEL.astype(np.float16),
        "float64": KERNEL.astype(np.float64),
        "big": KERNEL.astype(">f4"),
        "int8": np.arange(5, dtype=np.int8),
        "uint32": np.arange(5, dtype=np.uint32),
        "bool": np.array([True, False]),
        "complex": KERNEL.astype(np.complex64),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3, np.int64),
        "large": large,
        "square": large[:600, :600],
    }


def test_every_kind_of_data_comes_as_it_was_written(tmp_path: Path) -> None:
    data = kinds_of_data()
    path = keras2(tmp_path / "w.h5", {"layer": data})

    def more(file: Any) -> None:
        file.create_dataset("zipped", data=data["large"], compression="gzip", compression_opts=1, chunks=(64, 1000))
        file.create_dataset("compact", data=np.arange(4.0))
        file["half"] = KERNEL.astype(ml_dtypes.bfloat16)
        file["half"].attrs["dtype"] = "bfloat16"

    changed(path, more)
    with open_source(path) as source:
        for name, value in data.items():
            read = source.read(f"layer/layer/{name}:0")
            assert read.dtype == value.dtype.newbyteorder("<")
            np.testing.assert_array_equal(read, value)
        np.testing.assert_array_equal(source.read("zipped"), data["large"])
        np.testing.assert_array_equal(source.read("half").astype(np.float32), KERNEL.astype(ml_dtypes.bfloat16))
        assert all(len(piece) <= CHUNK for key in source.tensors for piece in source.chunks(key))
        assert source.contents().entries[-1].role is Role.OTHER


def test_a_dataset_of_texts_is_listed_and_has_no_numbers(tmp_path: Path) -> None:
    path = changed(keras2(tmp_path / "w.h5"), lambda file: file.create_dataset("words", data=["one", "twø"]))
    with open_source(path) as source:
        assert source.tensors["words"].dtype == STRING
        assert b"".join(bytes(each) for each in source.chunks("words")) == b"\3\0\0\0one\4\0\0\0tw\xc3\xb8"
        with pytest.raises(CheckpointError):
            source.read("words")


def test_two_tensors_may_be_read_in_turn(tmp_path: Path) -> None:
    value = np.arange(3 * max(CHUNK, 1 << 16) // 8, dtype=np.float64)
    path = keras2(tmp_path / "w.h5", {"a": {}, "b": {}})

    def add(file: Any) -> None:
        for name in "xy":
            file.create_dataset(name, data=value, chunks=(1 << 16,), compression="lzf")

    changed(path, add)
    with open_source(path) as source:
        both = list(zip(source.chunks("x"), source.chunks("y"), strict=True))
        assert len(both) >= 3
        assert all(bytes(one) == bytes(other) for one, other in both)
        assert b"".join(bytes(one) for one, _ in both) == value.tobytes()


def test_layer_names_may_be_split_over_attributes(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5")

    def split(file: Any) -> None:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = ["hidden"]
        file.attrs["layer_names1"] = ["out"]

    with open_source(changed(path, split)) as source:
        assert list(source.tensors) == ["hidden/hidden/kernel:0", "hidden/hidden/bias:0", "out/out/kernel:0"]


def test_headers_are_read_without_tensorflow_and_without_libhdf5_in_the_process(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5")
    code = (
        "import sys; from pathlib import Path; from tfport.checkpoints.opening import open_source\n"
        f"s = open_source(Path({str(path)!r})); s.contents(); s.read('hidden/hidden/bias:0'); s.close()\n"
        "assert not {'tensorflow', 'keras', 'h5py'} & set(sys.modules)"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(each for each in sys.path if each))
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


# --- What is refused --------------------------------------------------------------------------------------------------
def soft(file: Any) -> None:
    file["hidden/other"] = h5py.SoftLink("/out/out/kernel:0")


def external(file: Any) -> None:
    file["hidden/other"] = h5py.ExternalLink("/etc/passwd", "x")


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("hidden/other", layout)


def kept_elsewhere(file: Any) -> None:
    file.create_dataset("hidden/other", (4,), "f4", external=[("other.bin", 0, 16)])


def loop(file: Any) -> None:
    file["hidden/again"] = file["hidden"]


def deep(file: Any) -> None:
    file.create_group("/".join("a" * 80))


def without_data(file: Any) -> None:
    file.create_dataset("hidden/other", (1000,), "f4")


def huge(file: Any) -> None:
    file.create_dataset("hidden/other", (1 << 40,), "f4", chunks=(1 << 16,), compression="gzip")


def chunky(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1 << 28,))
    made = h5py.h5d.create(
        file.id, b"other", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1 << 10,), (h5py.h5s.UNLIMITED,)), plist
    )
    made.write_direct_chunk((0,), b"\0" * 4096)


def compound(file: Any) -> None:
    file["hidden/other"] = np.zeros(2, [("a", "f4"), ("b", "i4")])


def committed(file: Any) -> None:
    file["hidden/type"] = np.dtype("f4")


def null(file: Any) -> None:
    file["hidden/other"] = h5py.Empty("f4")


def dots(file: Any) -> None:
    file.create_group("hidden/..").create_dataset("x", data=1.0)


def control(file: Any) -> None:
    file["hidden/\x1b[31m"] = 1.0


def no_such_weight(file: Any) -> None:
    file["hidden"].attrs["weight_names"] = ["hidden/kernel:0", "hidden/gone:0"]


def no_such_layer(file: Any) -> None:
    file.attrs["layer_names"] = ["hidden", "gone"]


def unknown_opaque(file: Any) -> None:
    file["hidden/other"] = np.zeros(2, "V3")


REFUSED: dict[Callable[[Any], None], str] = {
    soft: "soft link",
    external: "link to another file",
    virtual: "virtual dataset",
    kept_elsewhere: "another file",
    loop: "inside itself or twice",
    deep: "deeper than 64",
    without_data: "no data",
    huge: "needs",
    chunky: "chunks",
    compound: "no numbers",
    committed: "neither a group nor a dataset",
    null: "without a shape",
    dots: "'..'",
    control: "no text",
    no_such_weight: "hidden/gone:0",
    no_such_layer: "gone",
    unknown_opaque: "no numbers that are known",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda each: each.__name__)
def test_is_refused_by_name(tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = keras2(tmp_path / "w.h5")
    with open_source(path) as source:
        source.contents()
    assert REFUSED[change] in refusal(changed(path, change))


def test_an_hdf5_file_that_is_not_keras_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels/train"] = np.zeros(3), np.zeros(3)
    assert "'images', 'labels'" in refusal(path)


def test_data_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5", {"a": {"kernel": np.zeros(100_000, np.float32)}})
    data = path.read_bytes()
    at = data.index(h5py.File(path)["a/a/kernel:0"].id.get_offset().to_bytes(8, "little"))
    path.write_bytes(data[:at] + (len(data) - 1000).to_bytes(8, "little") + data[at + 8 :])
    message = refusal(path)
    assert "beyond the end" in message or "invalid dataset size" in message
    path.write_bytes(data[:-5])
    assert "truncated" in refusal(path)


def test_data_that_goes_away_after_the_headers_were_read(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5", {"a": {"kernel": np.zeros(100_000, np.float32)}})
    with open_source(path) as source:
        os.truncate(path, 5000)
        with pytest.raises(CheckpointError, match="ends"):
            source.read("a/a/kernel:0")


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    assert "model_config" in refusal(keras2(tmp_path / "bad.h5", model_config="{no"))
    assert "model_config" in refusal(keras2(tmp_path / "deep.h5", model_config="[" * 200_000))


def test_a_lambda_is_named_and_not_run(tmp_path: Path) -> None:
    layers = [{"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEAAAA=", None, None]}}]
    config = {"class_name": "Sequential", "config": {"name": "main", "layers": layers}}
    with open_source(keras2(tmp_path / "w.h5", model_config=json.dumps(config))) as source:
        [note] = source.contents().notes
    assert "evil" in note
    assert "nor run" in note


# --- The child --------------------------------------------------------------------------------------------------------
def children() -> list[int]:
    server = isolated._SERVER.process
    assert server is not None
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(each) for each in text.split()]


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@linux
def test_a_child_that_dies_is_an_error_and_the_next_file_is_read(tmp_path: Path) -> None:
    path = changed(
        keras2(tmp_path / "w.h5"), lambda file: file.create_dataset("x", data=KERNEL, chunks=True, compression="gzip")
    )
    with open_source(path) as source:
        for child in children():
            os.kill(child, signal.SIGKILL)
        with pytest.raises(CheckpointError, match=r"w\.h5 is damaged: x: the HDF5 library crashed"):
            source.read("x")
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read("x"), KERNEL)


@linux
def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5")
    H5Source(path).close()
    server = isolated._SERVER.process
    assert server is not None
    server.kill()
    server.wait()
    with open_source(path) as source:
        assert len(source.tensors) == 3


@linux
def test_closing_ends_the_child(tmp_path: Path) -> None:
    source = H5Source(keras2(tmp_path / "w.h5"))
    [child] = children()
    source.close()
    assert gone(child)


@linux
def test_server_and_child_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    path = keras2(tmp_path / "w.h5")
    code = (
        "import os, signal; from pathlib import Path; from tfport.checkpoints import isolated\n"
        "from tfport.checkpoints.hdf5 import H5Source\n"
        f"s = H5Source(Path({str(path)!r})); p = isolated._SERVER.process.pid\n"
        "print(p, Path(f'/proc/{p}/task/{p}/children').read_text(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(each for each in sys.path if each))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    pids = [int(each) for each in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    assert all(gone(pid) for pid in pids)


def test_a_file_that_takes_too_much_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras2(tmp_path / "w.h5", {f"layer_{number}": {} for number in range(3000)})
    monkeypatch.setattr(isolated, "CPU", 0.02)
    assert "too much time" in refusal(path)
    monkeypatch.setattr(isolated, "CPU", 30.0)
    monkeypatch.setattr(isolated, "WALL", 0.05)
    assert "too much time" in refusal(path)


@linux
def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras2(tmp_path / "w.h5", {})
    ones = np.ones(1 << 22)
    changed(path, lambda file: file.create_dataset("x", data=ones, chunks=(1 << 14,), compression="gzip"))
    with open_source(path) as source:
        assert source.read("x").all()
    monkeypatch.setattr(isolated, "MEMORY", 4 << 20)
    assert "memory" in refusal(path)


def test_no_child_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras2(tmp_path / "w.h5")
    isolated._SERVER.stop()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    message = refusal(path)
    assert "could not be started" in message
    assert "damaged" not in message


# --- Writing ----------------------------------------------------------------------------------------------------------
def contents_of(names: list[str], role: Role = Role.WEIGHT) -> Contents:
    return Contents(tuple(Entry(name, role, name) for name in names))


def write(sink: H5Sink, values: dict[str, Array]) -> None:
    for key, value in values.items():
        sink.write(key, pieces(value))
    sink.finish()


def stored(values: dict[str, Array]) -> list[Stored]:
    return [Stored(key, value.shape, value.dtype.name) for key, value in values.items()]


def test_written_without_a_template(tmp_path: Path) -> None:
    values = {"hidden/bias": BIAS, "hidden/kernel": KERNEL, "net/bn/gamma": BIAS, "scale": np.array(2, np.float32)}
    path = tmp_path / "w.h5"
    write(H5Sink(path, stored(values), contents_of(list(values))), values)
    with open_source(path) as source:
        assert source.format == "keras-h5"
        assert list(source.tensors) == [
            "hidden/hidden/kernel:0",
            "hidden/hidden/bias:0",
            "net/bn/net/bn/gamma:0",
            "top_level_model_weights/scale:0",
        ]
        for entry in source.contents().entries:
            np.testing.assert_array_equal(source.read(entry.key), values[entry.name])
    with h5py.File(path) as file:
        assert list(file.attrs["layer_names"]) == ["hidden", "net/bn"]
        assert list(file["hidden"].attrs["weight_names"]) == ["hidden/kernel:0", "hidden/bias:0"]


def test_keys_that_are_of_the_layout_say_their_group(tmp_path: Path) -> None:
    contents = Contents(tuple(Entry(f"{group}/{name}:0", Role.WEIGHT, name) for group, name in PLACES))
    path = tmp_path / "w.h5"
    values = {each.key: KERNEL for each in contents.entries}
    write(H5Sink(path, stored(values), contents), values)
    with open_source(path) as source:
        assert set(source.tensors) == set(values)
        assert [each.name for each in source.contents().entries] == ["a/kernel", "a/bias", "scale"]


PLACES = [("a", "a/bias"), ("a", "a/kernel"), ("scale", "scale")]


def test_written_like_a_template(tmp_path: Path) -> None:
    path = keras2(tmp_path / "like.h5", {"z": kinds_of_data(), "a": {"bias": BIAS}}, model_config='{"text": "ä"}')

    def more(file: Any) -> None:
        file["half"] = KERNEL.astype(ml_dtypes.bfloat16)
        file["half"].attrs["dtype"] = "bfloat16"
        file["words"] = ["one", "two"]
        file.attrs["bytes"] = np.array([b"ab", b"c"], "S3")
        file.attrs["nothing"] = h5py.Empty("f4")
        file.attrs["numbers"] = np.arange(3, dtype=np.int16)
        file.create_group("tracked", track_order=True)

    changed(path, more)
    target = tmp_path / "new.h5"
    with H5Source(path) as like:
        sink = H5Sink(target, list(like.tensors.values()), like.contents(), like)
        for key in like.tensors:
            sink.write(key, like.chunks(key))
        sink.finish()
        with H5Source(target) as new:
            assert new.tensors == like.tensors
            assert new.file.groups == like.file.groups
            assert new.file.attributes == like.file.attributes
            assert new.file.tracked == like.file.tracked == {"tracked"}
            for key in like.tensors:
                assert b"".join(map(bytes, new.chunks(key))) == b"".join(map(bytes, like.chunks(key)))


def test_many_layers_are_split_over_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_ATTRIBUTE_BYTES", 16 * 40)
    values = {f"layer_{number}/kernel": np.full(1, number, np.float32) for number in range(100)}
    path = tmp_path / "w.h5"
    write(H5Sink(path, stored(values), contents_of(list(values))), values)
    with h5py.File(path) as file:
        assert "layer_names" not in file.attrs
        assert file.attrs["layer_names2"][-1] == "layer_99"
    with H5Source(path) as source:
        assert len(source.tensors) == 100
        assert texts(source.file.groups[""], "layer_names") == [f"layer_{number}" for number in range(100)]


def test_an_attribute_larger_than_an_object_header_is_taken_over(tmp_path: Path) -> None:
    names = [f"layer_{number}" for number in range(5000)]
    path = tmp_path / "like.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = ["hidden"]
        file.attrs["others"] = names
        file.create_group("hidden").attrs["weight_names"] = ["kernel:0"]
        file["hidden/kernel:0"] = KERNEL
    with H5Source(path) as like:
        sink = H5Sink(tmp_path / "new.h5", list(like.tensors.values()), like.contents(), like)
        write(sink, {"hidden/kernel:0": KERNEL})
        with H5Source(tmp_path / "new.h5") as new:
            assert new.file.groups == like.file.groups
    assert list(text_list("x", ["a"])) == ["x"]
    assert list(text_list("x", names)) == ["x0", "x1"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    values = {"hidden/kernel": KERNEL}
    path = tmp_path / "w.h5"
    with pytest.raises(CheckpointError, match="--like"):
        H5Sink(tmp_path / "w.weights.h5", stored(values), contents_of(["hidden/kernel"]))
    with pytest.raises(CheckpointError, match="no place in a Keras 2 weights file"):
        H5Sink(path, stored(values), contents_of(["hidden/kernel"], Role.SLOT))
    with pytest.raises(CheckpointError, match="no numbers"):
        H5Sink(path, [Stored("a/b", (1,), "float8_e4m3b11")], contents_of(["a/b"]))
    twice = Contents((Entry("a", Role.WEIGHT, "x/kernel"), Entry("b", Role.WEIGHT, "x/kernel")))
    with pytest.raises(CheckpointError, match="two tensors"):
        H5Sink(path, [Stored("a", (1,), "float32"), Stored("b", (1,), "float32")], twice)
    with H5Source(keras2(tmp_path / "like.h5")) as like:
        tensors = list(like.tensors.values())
        for given, message in (
            ([*tensors, Stored("more", (1,), "float32")], "has no more"),
            (tensors[1:], "nothing was given"),
            ([Stored(tensors[0].key, (2,), "float32"), *tensors[1:]], r"\(3, 4\)"),
        ):
            with pytest.raises(CheckpointError, match=message):
                H5Sink(path, given, like.contents(), like)
    sink = H5Sink(path, stored(values), contents_of(["hidden/kernel"]))
    with pytest.raises(RunError, match="of 48 bytes"):
        sink.write("hidden/kernel", [b"\0" * 8])
    with pytest.raises(RunError, match="more than 48 bytes"):
        sink.write("hidden/kernel", [b"\0" * 800])
    sink.abandon()
    with pytest.raises(RunError, match="cannot write"):
        H5Sink(tmp_path / "no" / "w.h5", stored(values), contents_of(["hidden/kernel"]))


# --- Mutations --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [keras2, keras3])
def test_mutated_files(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "w.h5")
    outcome = check_reader(tmp_path, path.name, path, range(FEW))
    assert outcome["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras2, keras3])
def test_many_mutated_files(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "w.h5")
    check_reader(tmp_path, path.name, path, range(FEW, FEW + MANY))
