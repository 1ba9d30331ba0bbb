"""Telling formats by their bytes, and saying what is wrong with what is none."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfport.checkpoints.contents import Contents, Entry, Role, Stored, pieces
from tfport.checkpoints.convert import sink_for
from tfport.checkpoints.opening import FORMATS, open_source
from tfport.errors import CheckpointError

W = np.arange(6, dtype="float32").reshape(2, 3)


def written(path: Path, format: str) -> Path:  # noqa: A002 - it is the format
    sink = sink_for(format)(
        path, [Stored("a/w", (2, 3), "float32")], Contents((Entry("a/w", Role.WEIGHT, "a/w"),)), None
    )
    sink.write("a/w", pieces(W))
    sink.finish()
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as told:
        open_source(path).close()
    return str(told.value)


@pytest.mark.parametrize("format", ["tf1-v2", "tf1-v1", "keras-h5", "torch", "npz", "safetensors"])
def test_the_format_is_told_by_the_bytes_and_not_by_the_name(tmp_path: Path, format: str) -> None:  # noqa: A002
    with open_source(written(tmp_path / "any.name", format)) as source:
        assert source.format == format
        assert format in FORMATS
        np.testing.assert_array_equal(source.read(next(iter(source.tensors))), W)


@pytest.mark.parametrize("name", ["m.ckpt", "m.ckpt.index", "m.ckpt.data-00000-of-00001", "m.ckpt.meta", "."])
def test_every_file_of_a_tensorflow_checkpoint_and_its_folder_lead_to_it(tmp_path: Path, name: str) -> None:
    written(tmp_path / "m.ckpt", "tf1-v2")
    (tmp_path / "m.ckpt.meta").write_bytes(b"")
    with open_source(tmp_path / name) as source:
        assert source.path == tmp_path / "m.ckpt"


def test_a_sharded_v1_checkpoint_is_opened_by_its_shared_name(tmp_path: Path) -> None:
    written(tmp_path / "m.ckpt-00000-of-00001", "tf1-v1")
    with open_source(tmp_path / "m.ckpt") as source:
        assert source.format == "tf1-v1"


def test_a_folder_with_several_checkpoints_names_them(tmp_path: Path) -> None:
    written(tmp_path / "a.npz", "npz")
    written(tmp_path / "b.ckpt", "tf1-v2")
    said = refused(tmp_path)
    assert "holds 2 checkpoints; give one of them" in said
    assert str(tmp_path / "a.npz") in said and str(tmp_path / "b.ckpt") in said


def test_a_folder_of_runs_checkpoints_names_them(tmp_path: Path) -> None:
    for step in ("step-0000000050", "step-0000000100"):
        (tmp_path / step).mkdir()
        (tmp_path / step / "manifest.json").write_text("{}")
    assert f"holds 2 checkpoints; give one of them: {tmp_path / 'step-0000000050'}" in refused(tmp_path)


def test_a_folder_without_one_says_what_is_in_it(tmp_path: Path) -> None:
    assert "it is empty" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "it holds notes.txt" in refused(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "does not exist: expected a checkpoint's file" in refused(tmp_path / "nothing")
    assert "does not exist" in refused(tmp_path / "no" / "nothing")
    (tmp_path / "x.npz").write_text("")
    assert f"did you mean {tmp_path / 'x.npz'}?" in refused(tmp_path / "x")


def test_a_missing_index_and_a_missing_shard(tmp_path: Path) -> None:
    written(tmp_path / "m.ckpt", "tf1-v2")
    data, index = (tmp_path / f"m.ckpt.{each}" for each in ("data-00000-of-00001", "index"))
    kept = data.read_bytes()
    data.unlink()
    assert f"{data} is missing" in refused(tmp_path / "m.ckpt")
    data.write_bytes(kept)
    index.unlink()
    assert "m.ckpt.index does not exist" in refused(tmp_path / "m.ckpt")
    assert "its .index is missing" in refused(data)


def test_a_pickle_is_refused_and_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    assert "is a pickle, and loading one runs whatever code it holds" in refused(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is empty"), (b"hello, this is text", "is of no format that is read"), (b"PK\x03\x04junk", "damaged zip")],
)
def test_files_that_are_none(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    assert message in refused(tmp_path / "x")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "zip archive of no kind that is read: it holds readme.txt" in refused(tmp_path / "x.zip")
