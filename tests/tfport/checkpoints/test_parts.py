"""Several checkpoints in one folder, read and written as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tfport.checkpoints import convert, opening
from tfport.checkpoints.contents import Array, Contents, Entry, Role, Sink, Stored, pieces
from tfport.checkpoints.parts import PartsSink, PartsSource, names_in
from tfport.errors import CheckpointError

A = {"w": np.arange(6, dtype="float32").reshape(2, 3), "b": np.ones(3, "float32")}
B = {"w": np.full(4, 2.5), "count": np.array(7, np.int64)}


def folder(path: Path, **parts: dict[str, Array]) -> Path:
    path.mkdir()
    for name, arrays in parts.items():
        np.savez(path / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    return path


def written(source: PartsSource, target: Path, values: dict[str, Array]) -> None:
    """A folder laid out as `source` is, with other values."""
    contents = Contents(tuple(Entry(key, Role.WEIGHT, key) for key in source.tensors))
    sink = PartsSink(target, list(source.tensors.values()), contents, source)
    for key in source.tensors:
        sink.write(key, pieces(values[key]))
    sink.finish()


# --- Reading ----------------------------------------------------------------------------------------------------------
def test_one_part_keeps_its_keys(tmp_path: Path) -> None:
    with PartsSource(folder(tmp_path / "run", model=A)) as source:
        assert source.tensors == {"w": Stored("w", (2, 3), "float32"), "b": Stored("b", (3,), "float32")}
        assert source.read("w").tobytes() == A["w"].tobytes()
        assert {entry.key for entry in source.contents().entries} == {"w", "b"}


def test_two_parts_are_told_apart_by_their_files(tmp_path: Path) -> None:
    with PartsSource(folder(tmp_path / "run", two=B, one=A)) as source:
        assert list(source.tensors) == ["one.npz:w", "one.npz:b", "two.npz:w", "two.npz:count"]
        assert source.read("one.npz:w").shape == (2, 3)
        assert source.read("two.npz:w").tobytes() == B["w"].tobytes()
        assert [entry.key for entry in source.contents().entries] == list(source.tensors)
        assert source.part_of("two.npz:a:b") == ("two.npz", "a:b")


def test_what_else_lies_there_is_passed_by(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", model=A)
    for name in ("manifest.json", "checkpoint", "model.ckpt.data-00000-of-00001", "notes.txt"):
        (path / name).write_text("{}")
    (path / "model.ckpt.index").write_bytes(b"")
    assert names_in(path) == ["model.ckpt", "model.npz"]


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        PartsSource(tmp_path)
    for path in (tmp_path / "nowhere", tmp_path / "notes.txt"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            PartsSource(path)


def test_one_damaged_part_closes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "run", one=A, two=B)
    (path / "two.npz").write_bytes((path / "two.npz").read_bytes()[:-30])
    closed: list[str] = []
    source = type(opening.open_source(path / "one.npz"))
    monkeypatch.setattr(source, "close", lambda self: closed.append(self.path.name))
    with pytest.raises(CheckpointError, match=r"two\.npz"):
        PartsSource(path)
    assert closed == ["one.npz"]


# --- Writing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [{"model": A}, {"one": A, "two": B}])
def test_a_folder_is_laid_out_as_its_template(parts: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    with PartsSource(folder(tmp_path / "like", **parts)) as like:
        values = {key: like.read(key) + 1 for key in like.tensors}
        written(like, tmp_path / "new", values)
        with PartsSource(tmp_path / "new") as new:
            assert new.tensors == like.tensors
            assert all(new.read(key).tobytes() == values[key].tobytes() for key in values)
        assert names_in(tmp_path / "new") == names_in(tmp_path / "like")


def test_no_template(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="layout of another one"):
        PartsSink(tmp_path / "new", [], Contents(()), None)
    folder(tmp_path / "like", model=A)
    with (
        opening.open_source(tmp_path / "like" / "model.npz") as alone,
        pytest.raises(CheckpointError, match="layout of another one"),
    ):
        PartsSink(tmp_path / "new", [], Contents(()), alone)
    assert not (tmp_path / "new").exists()


class Refusing(Sink):
    """Counts those that are open; the second is refused."""

    open: ClassVar[list[str]] = []

    def __init__(self, path: Path, *rest: Any) -> None:
        if self.open:
            raise CheckpointError("no second one")
        self.open.append(path.name)

    def write(self, key: str, chunks: Any) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        self.open.remove("one.npz")


def test_a_part_that_cannot_be_begun_gives_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "sink_for", lambda _: Refusing)
    with PartsSource(folder(tmp_path / "like", one=A, two=B)) as like:
        contents = Contents(tuple(Entry(key, Role.WEIGHT, key) for key in like.tensors))
        with pytest.raises(CheckpointError, match="no second one"):
            PartsSink(tmp_path / "new", list(like.tensors.values()), contents, like)
    assert Refusing.open == []


def test_an_abandoned_folder_closes_its_files(tmp_path: Path) -> None:
    with PartsSource(folder(tmp_path / "like", one=A, two=B)) as like:
        contents = Contents(tuple(Entry(key, Role.WEIGHT, key) for key in like.tensors))
        sink = PartsSink(tmp_path / "new", list(like.tensors.values()), contents, like)

        def broken() -> Any:
            yield memoryview(b"\0" * 4)
            raise CheckpointError("the source ends here")

        chunks: Any = broken()
        with pytest.raises(CheckpointError, match="the source ends here"):
            sink.write("one.npz:w", chunks)
        sink.abandon()
