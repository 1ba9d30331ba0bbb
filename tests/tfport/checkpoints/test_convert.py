"""A conversion as files: whole or not at all, nothing overwritten, what was written read back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport.checkpoints import convert, plan
from tfport.checkpoints.arrays import NpzSink
from tfport.checkpoints.bundle import BundleSink
from tfport.checkpoints.contents import Bytes
from tfport.checkpoints.convert import Order
from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError, RunError, UserError

W = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "from.npz"
    saved(
        path,
        {
            "net/w": W,
            "optimizer/Adam/m/net/w": W + 1,
            "optimizer/Adam/v/net/w": W + 2,
            "optimizer/Adam/iterations": np.int64(50),
        },
    )
    return path


def saved(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def run(source: Path, target: Path, verify: bool = False, **order: Any) -> list[Path]:
    asked = Order(source, target, options=plan.Options(betas={"beta_1": 0.9, "beta_2": 0.999}), **order)
    with convert.planned(asked) as (_, made):
        return convert.write(made, target, asked.force, verify)


def values(path: Path) -> dict[str, Any]:
    with open_source(path) as opened:
        return {key: opened.read(key) for key, stored in opened.tensors.items() if stored.dtype != "string"}


@pytest.mark.parametrize("name", ["to.npz", "to.safetensors", "to.ckpt", "to.pt", "to.h5"])
def test_weights_come_through_every_format(source: Path, tmp_path: Path, name: str) -> None:
    run(source, tmp_path / name, verify=True)
    found = values(tmp_path / name)
    assert any(array.tobytes() == W.tobytes() for array in found.values())


@pytest.mark.parametrize("written", ["tf1-v1", "tf1-v2", "tf2", "safetensors"])
def test_there_and_back_is_the_same(source: Path, tmp_path: Path, written: str) -> None:
    run(source, tmp_path / "there", format=written)
    run(tmp_path / "there", tmp_path / "back.npz")
    before, after = values(source), values(tmp_path / "back.npz")
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)


def test_nothing_is_overwritten_without_force(source: Path, tmp_path: Path) -> None:
    for name in ("to.npz", "to.ckpt"):
        run(source, tmp_path / name)
        before = {each.name: each.read_bytes() for each in tmp_path.glob("to*")}
        with pytest.raises(UserError, match="is there already; give another name, or --force"):
            run(source, tmp_path / name)
        assert {each.name: each.read_bytes() for each in tmp_path.glob("to*")} == before
        run(source, tmp_path / name, force=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "from.npz",
        "to.ckpt.data-00000-of-00001",
        "to.ckpt.index",
        "to.npz",
    ]


def test_the_source_is_never_written_over(source: Path) -> None:
    with pytest.raises(UserError, match="written over while it is read"):
        run(source, source, force=True)


def test_a_damaged_source_leaves_nothing_and_the_old_target_stays(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "first.ckpt")
    run(source, tmp_path / "to.npz")
    old = (tmp_path / "to.npz").read_bytes()
    data = tmp_path / "first.ckpt.data-00000-of-00001"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    with pytest.raises(CheckpointError, match="damaged"):
        run(tmp_path / "first.ckpt", tmp_path / "to.npz", force=True)
    assert (tmp_path / "to.npz").read_bytes() == old
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: NpzSink, key: str, chunks: Iterable[Bytes]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NpzSink, "write", write)
    with pytest.raises(RunError, match="the disk is full"):
        run(source, tmp_path / "to.npz")
    assert [each.name for each in tmp_path.iterdir()] == ["from.npz"]


def test_what_is_read_back_must_be_what_was_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = BundleSink.write

    def write(self: BundleSink, key: str, chunks: Iterable[Bytes]) -> None:
        data = b"".join(bytes(each) for each in chunks)
        honest(self, key, [bytes([data[0] ^ 1]) + data[1:]] if key == "net/w/Adam" else [data])

    monkeypatch.setattr(BundleSink, "write", write)
    with pytest.raises(CheckpointError, match="net/w/Adam was read back with other bytes"):
        run(source, tmp_path / "to.ckpt", verify=True)
    assert [each.name for each in tmp_path.iterdir()] == ["from.npz"]
    run(source, tmp_path / "to.ckpt")  # without --verify nobody looks


def test_an_interrupted_conversion_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "to.npz"
    with convert.planned(Order(source, target)) as (_, made), pytest.raises(KeyboardInterrupt):
        convert.write(made, target, tick=interrupt)
    assert [each.name for each in tmp_path.iterdir()] == ["from.npz"]


def test_progress_tells_every_byte(source: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with convert.planned(Order(source, tmp_path / "to.npz")) as (_, made):
        convert.write(made, tmp_path / "to.npz", tick=told.append)
        assert sum(told) == made.nbytes


def test_a_template_gives_names_and_format(source: Path, tmp_path: Path) -> None:
    saved(tmp_path / "like.npz", {"net/w": W * 0})
    run(source, tmp_path / "to", like=tmp_path / "like.npz")
    assert list(values(tmp_path / "to")) == ["net/w"]
    with pytest.raises(UserError, match="template of the format that is to be written"):
        run(source, tmp_path / "to2", like=tmp_path / "like.npz", format="safetensors")


@pytest.mark.parametrize(
    ("name", "order", "message"),
    [
        ("to", {}, "does not tell which format to write"),
        ("to", {"format": "keras4"}, "unknown format 'keras4'"),
        ("nowhere/to.npz", {}, "does not exist; make it first"),
        ("to.keras", {}, "--like=FILE"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything(
    source: Path, tmp_path: Path, name: str, order: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(source, tmp_path / name, **order)
    assert [each.name for each in tmp_path.iterdir()] == ["from.npz"]


def test_a_folder_in_the_way_is_not_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "to.npz").mkdir()
    (tmp_path / "to.npz" / "mine").write_text("x")
    with pytest.raises(UserError, match="is a folder"):
        run(source, tmp_path / "to.npz", force=True)
    assert (tmp_path / "to.npz" / "mine").read_text() == "x"


def test_the_plan_is_json(source: Path, tmp_path: Path) -> None:
    with convert.planned(Order(source, tmp_path / "to.npz")) as (opened, made):
        tree = json.loads(json.dumps(convert.as_json(opened, made)))
    assert tree["schema"] == 1
    assert tree["tensors"][0] == {
        "key": "net/w",
        "name": "net/w",
        "role": "weight",
        "shape": [2, 3],
        "dtype": "float32",
        "how": "copied",
        "origins": ["net/w"],
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([b"abc", b"d"], [b"a", b"bcd"], True),
        ([b"abc"], [b"abd"], False),
        ([b"abc"], [b"ab"], False),
        ([b"ab"], [b"abc"], False),
        ([], [b""], True),
    ],
)
def test_same_bytes(one: list[bytes], other: list[bytes], same: bool) -> None:
    assert convert.same_bytes(iter(one), iter(other)) is same
