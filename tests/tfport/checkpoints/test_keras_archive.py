"""`.keras` archives, made by hand; what Keras itself writes is in test_keras_names."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from checkpoint_mutations import FEW, MANY, check_reader
from tfport.checkpoints.contents import Role, Stored
from tfport.checkpoints.keras_archive import KerasArchiveSink, KerasArchiveSource
from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError

RNG = np.random.default_rng(6)
KERNELS = [RNG.normal(size=shape).astype(np.float32) for shape in ((4, 4), (4, 4))]
BIASES = [RNG.normal(size=4).astype(np.float32) for _ in range(2)]


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def model() -> dict[str, Any]:
    """Two Dense layers of one shape, the first called "b", with an Adam."""
    layers = [layer("InputLayer", "in"), layer("Dense", "b"), layer("Dense", "a")]
    optimizer = {
        "class_name": "Adam",
        "config": {"name": "adam", "learning_rate": 0.5, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    }
    return {
        "class_name": "Functional",
        "config": {"name": "main", "layers": layers},
        "compile_config": {"optimizer": optimizer},
    }


def weights(scale: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars").attrs["name"] = "main"
        for number, name in enumerate("ba"):
            group = file.create_group(f"layers/dense{f'_{number}' if number else ''}/vars")
            group.attrs["name"] = name
            group["0"], group["1"] = KERNELS[number] * scale, BIASES[number] * scale
        group = file.create_group("optimizer/vars")
        group.attrs["name"] = "adam"
        group["0"], group["1"] = np.int64(7), np.float32(0.25)
        place = 2
        for number in range(2):
            for value in (KERNELS[number], BIASES[number]):
                for slot in (10, 20):
                    group[str(place)] = value + slot
                    place += 1
    return buffer.getvalue()


def archive(
    path: Path,
    config: Any = None,
    data: bytes | None = None,
    compression: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2024-01-02@03:04:05"}))
        file.writestr("config.json", json.dumps(model() if config is None else config))
        file.writestr("model.weights.h5", weights() if data is None else data)
        for name, value in (more or {}).items():
            file.writestr(name, value)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught, KerasArchiveSource(path) as source:
        source.contents()
        for key in source.tensors:
            source.read(key)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_with_the_order_of_its_config(tmp_path: Path, compression: int) -> None:
    with open_source(archive(tmp_path / "m.keras", compression=compression)) as source:
        assert source.format == "keras3"
        assert source.written_by == {"keras": "3.15.1", "date": "2024-01-02@03:04:05"}
        contents = source.contents()
        assert not contents.notes
        for number, name in enumerate("ba"):
            for kind, value in (("kernel", KERNELS[number]), ("bias", BIASES[number])):
                for canonical, wanted in (
                    (f"{name}/{kind}", value),
                    (f"optimizer/adam/m/{name}/{kind}", value + 10),
                    (f"optimizer/adam/v/{name}/{kind}", value + 20),
                ):
                    [entry] = contents.by_name()[canonical]
                    np.testing.assert_array_equal(source.read(entry.key), wanted)
        [optimizer] = contents.optimizers
    assert (optimizer.algorithm, optimizer.variables) == ("Adam", ("b/kernel", "b/bias", "a/kernel", "a/bias"))
    assert optimizer.hyperparameters["learning_rate"] == 0.25


def test_a_flipped_bit_in_the_weights_is_found_when_they_are_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras")
    data = bytearray(path.read_bytes())
    data[data.index(KERNELS[0].tobytes()) + 2] ^= 1
    path.write_bytes(data)
    with open_source(path) as source:
        source.contents()
        with pytest.raises(CheckpointError, match="CRC"):
            source.read("layers/dense_1/vars/0")


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    assert "model.weights.h5" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.json", "{}")
    assert "shards" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model.weights.h5", weights())
    assert "config.json" in refusal(path)
    assert "no object" in refusal(archive(path, config=[1]))
    assert "damaged" in refusal(archive(path, data=b"\x89HDF\r\n\x1a\n" + bytes(500)))
    assert "'..'" in refusal(archive(path, more={"../evil": b""}))
    with pytest.warns(UserWarning), zipfile.ZipFile(archive(path), "a") as file:
        file.writestr("config.json", "{}")
    assert "one name" in refusal(path)
    deep = b"[" * 200_000
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (("config.json", deep), ("metadata.json", b"{}"), ("model.weights.h5", weights())):
            file.writestr(name, data)
    assert "config.json is not JSON" in refusal(path)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as other:
        other["x"] = np.zeros(3)
    assert "'x'" in refusal(archive(path, data=buffer.getvalue()))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as other:
        other.attrs["layer_names"] = ["x"]
        other.create_group("x")
    assert "layout" in refusal(archive(path, data=buffer.getvalue()))
    bomb = weights() + bytes(64 << 20)
    assert "too many" in refusal(archive(path, data=bomb, compression=zipfile.ZIP_DEFLATED))


def test_weights_that_are_said_to_be_longer_than_the_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras")
    size = len(weights())
    data = path.read_bytes().replace(size.to_bytes(4, "little"), (size + 100_000).to_bytes(4, "little"))
    path.write_bytes(data)
    assert "end of the archive" in refusal(path)


def test_a_lambda_and_a_function_without_a_name_are_named(tmp_path: Path) -> None:
    config = model()
    config["config"]["layers"].append(layer("Lambda", "evil", function={"class_name": "__lambda__", "config": {}}))
    config["config"]["layers"][1]["config"]["activation"] = {"class_name": "__lambda__", "config": {"value": "4wE="}}
    with open_source(archive(tmp_path / "m.keras", config=config)) as source:
        notes = " ".join(source.contents().notes)
    assert "Lambda (evil)" in notes
    assert "a function without a name" in notes


@pytest.mark.parametrize("broken", ["gone", "renamed", "no layers", "no list", "frozen"])
def test_a_config_that_does_not_fit_leads_to_no_guess(tmp_path: Path, broken: str) -> None:
    config = model()
    layers = config["config"]["layers"]
    if broken == "gone":
        layers.pop()
    elif broken == "renamed":
        layers[1], layers[2] = layers[2], layers[1]
    elif broken == "no layers":
        config["config"] = {}
    elif broken == "no list":
        config["config"]["layers"] = {"a": 1}
    else:
        layers[1]["config"]["trainable"] = False
    with open_source(archive(tmp_path / "m.keras", config=config)) as source:
        contents = source.contents()
        slots = [each for each in contents.entries if each.role is Role.SLOT]
        for each in slots:
            scale = 10 if each.slot == "m" else 20
            [held] = contents.by_name()[each.variable]
            np.testing.assert_array_equal(source.read(each.key), source.read(held.key) + scale)
    if broken == "frozen":
        assert not slots
        assert "unresolved" in " ".join(contents.notes)


def test_written_like_a_template(tmp_path: Path) -> None:
    path = archive(tmp_path / "like.keras", more={"assets/words.txt": b"one\ntwo"})
    target = tmp_path / "new.keras"
    with KerasArchiveSource(path) as like:
        sink = KerasArchiveSink(target, list(like.tensors.values()), like.contents(), like)
        for key in like.tensors:
            value = like.read(key)
            sink.write(key, [np.asarray(value * 2).astype(value.dtype).tobytes()])
        sink.finish()
        with KerasArchiveSource(target) as new:
            assert new.tensors == like.tensors
            assert new.config == like.config
            for key in like.tensors:
                np.testing.assert_array_equal(new.read(key), like.read(key) * 2)
    with zipfile.ZipFile(target) as written, zipfile.ZipFile(path) as before:
        assert written.namelist() == before.namelist()
        assert written.read("assets/words.txt") == b"one\ntwo"
        assert written.testzip() is None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["like.keras", "new.keras"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "new.keras"
    with KerasArchiveSource(archive(tmp_path / "like.keras")) as like:
        tensors, contents = list(like.tensors.values()), like.contents()
        with pytest.raises(CheckpointError, match="--like"):
            KerasArchiveSink(path, tensors, contents)
        with pytest.raises(CheckpointError, match="nothing was given"):
            KerasArchiveSink(path, tensors[1:], contents, like)
        with pytest.raises(CheckpointError, match="has no more"):
            KerasArchiveSink(path, [*tensors, Stored("more", (), "float32")], contents, like)
        sink = KerasArchiveSink(path, tensors, contents, like)
        sink.abandon()
    assert [each.name for each in tmp_path.iterdir()] == ["like.keras"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_mutated_files(tmp_path: Path, compression: int) -> None:
    path = archive(tmp_path / "m.keras", compression=compression)
    assert check_reader(tmp_path, path.name, path, range(FEW // 2))["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_many_mutated_files(tmp_path: Path, compression: int) -> None:
    path = archive(tmp_path / "m.keras", compression=compression)
    check_reader(tmp_path, path.name, path, range(FEW, FEW + MANY))
