"""Checkpoint folders of runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_mutations import FEW, MANY, check_reader
from tfport import state
from tfport.checkpoints.contents import Array, Role
from tfport.checkpoints.opening import open_source
from tfport.checkpoints.runs import RunSource
from tfport.errors import CheckpointError
from tfport.files import sha256

ARRAYS: dict[str, Array] = {
    "net/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer/g/m/net/kernel": np.ones((2, 3), np.float32),
    "optimizer/g/iterations": np.array(5, np.int64),
}


def run(root: Path, *names: str, **changed: Any) -> Path:
    """A checkpoint folder with state files in it, which any run could have."""
    folder = root / "step-0000000005"
    folder.mkdir()
    for name in names:
        state.write(folder / name, state.State("dcgan", ARRAYS))
    manifest: dict[str, Any] = {
        "format": 1,
        "model": "dcgan",
        "paradigm": "keras3",
        "precision": "float32",
        "seed": 0,
        "step": 5,
        "batch_size": 4,
        "learning_rates": {"g": 0.1},
        "state_digest": "",
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names},
        "versions": {"python": "3.11.7", "tfport": "0.1.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changed))
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_source(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_of_one_file_keeps_its_keys(tmp_path: Path) -> None:
    folder = run(tmp_path, "state.npz")
    with open_source(folder) as source:
        assert isinstance(source, RunSource)
        assert list(source.tensors) == list(ARRAYS)
        np.testing.assert_array_equal(source.read("net/kernel"), ARRAYS["net/kernel"])
        assert b"".join(map(bytes, source.chunks("net/kernel"))) == ARRAYS["net/kernel"].tobytes()
        assert (source.model, source.paradigm, source.precision, source.step) == ("dcgan", "keras3", "float32", 5)
        assert source.learning_rates == {"g": 0.1}
        assert source.written_by == {"python": "3.11.7", "tfport": "0.1.0"}
        contents = source.contents()
        assert [entry.role for entry in contents.entries] == [Role.WEIGHT, Role.SLOT, Role.COUNT]
        assert contents.notes[0] == "Step 5 of a run of the model dcgan in keras3, float32."


def test_keys_of_several_files_have_the_files_name_before_them(tmp_path: Path) -> None:
    folder = run(tmp_path, "d.npz", "g.npz")
    with open_source(folder) as source:
        assert list(source.tensors) == [f"{name}:{key}" for name in ("d.npz", "g.npz") for key in ARRAYS]
        assert all(stored.key == key for key, stored in source.tensors.items())
        np.testing.assert_array_equal(source.read("g.npz:net/kernel"), ARRAYS["net/kernel"])
        contents = source.contents()
        assert [entry.key for entry in contents.entries] == list(source.tensors)
        assert contents.entries[4].name == "optimizer/g.g/m/g/net/kernel"
        assert {"d/net/kernel", "g/net/kernel"} <= contents.by_name().keys()
        assert [each.name for each in contents.optimizers] == ["d.g", "g.g"]


def test_files_that_were_changed_cut_or_lost_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path, "state.npz")
    file = folder / "state.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "its SHA-256 differs" in refused(folder)
    file.write_bytes(whole[:-1])
    assert f"has {len(whole) - 1:,} bytes, not {len(whole):,}" in refused(folder)
    file.unlink()
    assert "state.npz is missing" in refused(folder)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"format": 2}, "checkpoint format 2"),
        ({"format": True}, "checkpoint format True"),
        ({"format": 10**4000}, "more than 64 bits"),
        ({"files": []}, "its files are no object"),
        ({"files": {}}, "lists no files"),
        ({"files": {"../state.npz": {"bytes": 1, "sha256": ""}}}, "'../state.npz', which is refused"),
        ({"files": {"state.npz": {"bytes": "1", "sha256": ""}}}, "neither size nor digest"),
        ({"files": {"state.npz": 3}}, "neither size nor digest"),
        ({"files": {"x" * 5000: {"bytes": 1, "sha256": ""}}}, "cannot be read"),
        ({"model": 3}, "its model is of type int"),
        ({"step": -1}, "its step is no count"),
        ({"step": 6}, "it is of step 6, and the folder is step-0000000005"),
        ({"learning_rates": {"g": "0.1"}}, "learning_rates are no numbers"),
        ({"versions": {"python": 3}}, "versions are no texts"),
    ],
)
def test_manifests_that_do_not_make_sense_are_refused(tmp_path: Path, changed: dict[str, Any], found: str) -> None:
    assert found in refused(run(tmp_path, "state.npz", **changed))


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path, "state.npz")
    for text, found in (("{", "not JSON"), ("[]", "expected an object"), ("{}", "lacks 'format' or 'files'")):
        (folder / "manifest.json").write_text(text)
        assert found in refused(folder)
    (folder / "manifest.json").write_bytes(b" " * ((16 << 20) + 1))
    assert "more than 16,777,216" in refused(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        RunSource(folder)


def test_a_run_without_a_checkpoint_among_its_files_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path, "state.npz")
    text = (folder / "manifest.json").read_text().replace("state.npz", "state.txt")
    shutil.move(folder / "state.npz", folder / "state.txt")
    (folder / "manifest.json").write_text(text)
    assert "no checkpoint among them" in refused(folder)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", ["manifest.json", "state.npz"])
def test_mutated_files(tmp_path: Path, target: str, count: int) -> None:
    folder = run(tmp_path, "state.npz")
    assert check_reader(folder, target, folder, range(count))["refused"]
