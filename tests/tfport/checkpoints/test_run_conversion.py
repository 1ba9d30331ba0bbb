"""Runs of `tfport train` carried to another paradigm: they go on to the state of one that never left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport import paradigms, state
from tfport.checkpoints import run_conversion
from tfport.errors import CheckpointError, RunError, UserError
from tfport.state import State
from tfport.subject import Subject
from tfport.training import checkpoint
from tfport.training.config import RunConfig, defaults
from tfport.training.loop import train

HALF, WHOLE = 4, 6


def config(run_dir: Path, paradigm: str = "tf1_graph", **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "steps": HALF,
        "batch_size": 20,
        "seed": 3,
        "log_every": 1,
        "sample_every": 3,
        "checkpoint_every": 2,
        "run_dir": str(run_dir),
    }
    return defaults("vanilla_gan", paradigm, **{**settings, **changes})


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps in tf1_graph, with checkpoints of two and four; not to be written into."""
    path = tmp_path_factory.mktemp("half") / "run"
    train(config(path))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with six steps in one piece."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(config(path, steps=WHOLE))
    return path


@pytest.fixture
def copy(half: Path, tmp_path: Path) -> Path:
    """A copy of `half`, to damage."""
    return Path(shutil.copytree(half, tmp_path / "copy"))


def gone_on(run: Path, paradigm: str) -> State:
    """The state after the remaining steps."""
    outcome = train(config(run, paradigm, steps=WHOLE), resume=True)
    assert outcome.step == WHOLE
    return state.read(run / "state.npz")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- What goes on -----------------------------------------------------------------------------------------------------
def test_the_same_bits_in_gradient_tape(half: Path, whole: Path, tmp_path: Path) -> None:
    before = files(half)
    told: list[int] = []
    made, step = run_conversion.convert_run(half, tmp_path / "tape", "gradient_tape", tick=told.append)
    assert step == HALF
    assert sum(told) == made.nbytes > 0
    assert not made.left_out
    assert files(half) == before
    assert gone_on(tmp_path / "tape", "gradient_tape").digest() == state.read(whole / "state.npz").digest()
    assert (tmp_path / "tape" / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_an_earlier_checkpoint_of_a_run(half: Path, whole: Path, tmp_path: Path) -> None:
    early = half / "checkpoints" / "step-0000000002"
    _, step = run_conversion.convert_run(early, tmp_path / "tape", "gradient_tape")
    assert step == 2
    assert gone_on(tmp_path / "tape", "gradient_tape").digest() == state.read(whole / "state.npz").digest()
    assert (tmp_path / "tape" / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_keras_goes_on_close_by(half: Path, whole: Path, tmp_path: Path) -> None:
    """Another order of sums, so other bits; docs/carried.md holds them against float64."""
    run_conversion.convert_run(half, tmp_path / "keras", "keras3")
    found, expected = gone_on(tmp_path / "keras", "keras3"), state.read(whole / "state.npz")
    expected.check_fits(found)
    for name, array in expected.arrays.items():
        if not name.startswith("optimizer/"):
            np.testing.assert_allclose(found.arrays[name], array, rtol=0, atol=1e-4, err_msg=name)


def test_the_record_of_the_new_run(half: Path, tmp_path: Path) -> None:
    run_conversion.convert_run(half, tmp_path / "tape", "gradient_tape")
    old, new = (json.loads((run / "run.json").read_text()) for run in (half, tmp_path / "tape"))
    assert new["config"] == {**old["config"], "paradigm": "gradient_tape", "run_dir": str(tmp_path / "tape")}
    assert (new["status"], new["step"]) == ("interrupted", HALF)
    (found,) = checkpoint.checkpoints(tmp_path / "tape" / "checkpoints")
    (*_, original) = checkpoint.checkpoints(half / "checkpoints")
    manifest, was = checkpoint.read_manifest(found), checkpoint.read_manifest(original)
    assert manifest["state_digest"] == was["state_digest"]
    assert (manifest["paradigm"], was["paradigm"]) == ("gradient_tape", "tf1_graph")


def test_a_dry_run_writes_nothing(half: Path, tmp_path: Path) -> None:
    made, step = run_conversion.convert_run(half, tmp_path / "tape", "gradient_tape", dry_run=True)
    assert (step, bool(made.moves)) == (HALF, True)
    assert not list(tmp_path.iterdir())


# --- What is refused --------------------------------------------------------------------------------------------------
def refused(source: Path, target: Path, match: str, paradigm: str = "gradient_tape", force: bool = False) -> None:
    there = set(target.parent.iterdir()) if target.parent.is_dir() else set()
    with pytest.raises(UserError, match=match) as raised:
        run_conversion.convert_run(source, target, paradigm, force)
    assert "\n" not in str(raised.value)
    assert (set(target.parent.iterdir()) if target.parent.is_dir() else set()) == there


def test_the_target_is_there(half: Path, copy: Path, tmp_path: Path) -> None:
    before = files(copy)
    refused(half, copy, "copy is there already; give another name, or --force")
    assert files(copy) == before
    run_conversion.convert_run(half, copy, "gradient_tape", force=True)
    assert json.loads((copy / "run.json").read_text())["config"]["paradigm"] == "gradient_tape"


def test_what_is_no_run_is_not_replaced(half: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        refused(half, tmp_path / name, "is there and is no run; it is not replaced", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    refused(half, tmp_path / "no" / "run", "the folder .* does not exist")
    assert not (tmp_path / "no").exists()


def test_a_run_is_not_its_own_target(copy: Path) -> None:
    before = files(copy)
    refused(copy, copy, "is the run that is converted", force=True)
    refused(copy / "checkpoints" / "step-0000000002", copy, "is the run that is converted", force=True)
    assert files(copy) == before


def test_what_is_no_run_is_not_converted(half: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "nowhere", tmp_path, half / "checkpoints", half / "run.json"):
        with pytest.raises(RunError, match="is neither a run directory nor one of its checkpoints"):
            run_conversion.convert_run(source, tmp_path / "tape", "gradient_tape")


def test_a_run_without_a_checkpoint(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    refused(copy, tmp_path / "tape", "has no checkpoint yet")


def test_a_checkpoint_without_its_run(copy: Path, tmp_path: Path) -> None:
    (copy / "run.json").unlink()
    refused(copy / "checkpoints" / f"step-{HALF:010d}", tmp_path / "tape", r"the run that it is of is not there \(no ")


def test_an_unknown_paradigm(half: Path, tmp_path: Path) -> None:
    refused(half, tmp_path / "tape", "unknown paradigm 'keras_3'. Did you mean keras3", "keras_3")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "manifest"])
def test_a_damaged_checkpoint(damage: str, copy: Path, tmp_path: Path) -> None:
    folder = copy / "checkpoints" / f"step-{HALF:010d}"
    file = next(folder.glob("*.data-*"))
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "flipped":
            data = bytearray(file.read_bytes())
            data[1000] ^= 4
            file.write_bytes(data)
        case "gone":
            file.unlink()
        case "manifest":
            (folder / "manifest.json").write_text("{")
    refused(copy, tmp_path / "tape", "|".join([file.name.replace(".", r"\."), "manifest"]))


def test_a_target_that_reads_another_state(half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read back by the target itself; one bit is enough."""
    build: Callable[..., Subject] = paradigms.build

    def built(*arguments: Any) -> Subject:
        subject = build(*arguments)
        restore = subject.restore

        def astray(folder: Path) -> None:
            restore(folder)
            arrays = dict(subject.state().arrays)
            bias = arrays["generator/output/bias"]
            arrays["generator/output/bias"] = np.nextafter(bias, np.float32(1))
            subject.load(State(subject.spec.name, arrays))

        monkeypatch.setattr(subject, "restore", astray)
        return subject

    monkeypatch.setattr(paradigms, "build", built)
    with pytest.raises(CheckpointError, match="the state is not the one that was saved; nothing is put in place"):
        run_conversion.convert_run(half, tmp_path / "tape", "gradient_tape")
    assert not list(tmp_path.iterdir())
