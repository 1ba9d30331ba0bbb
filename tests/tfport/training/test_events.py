"""TensorBoard's own reader finds the losses and pictures of every paradigm, each step once, resumed or not."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tfport.errors import RunError
from tfport.training import metrics
from tfport.training.config import RunConfig
from tfport.training.events import EventWriter
from tfport.training.loop import train

pytest.importorskip("tensorboard")

PARADIGMS = ("tf1_graph", "gradient_tape", "keras2", "keras3")
Configure = Callable[..., RunConfig]


def read(run: Path) -> Any:
    """What TensorBoard's reader makes of the run directory."""
    from tensorboard.backend.event_processing import event_accumulator

    found = event_accumulator.EventAccumulator(str(run), {"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


VANILLA, HALF_STEPS = ("losses/loss_D", "losses/loss_G"), ("losses/loss_D", "accuracy/accuracy_D", "losses/loss_G")


def agrees(run: Path, steps: int, tags: tuple[str, ...] = VANILLA) -> None:
    """Every row of metrics.csv and every picture of the run is there once, and nothing else."""
    found = read(run)
    rows = metrics.read(run / "metrics.csv")
    assert [int(row[0]) for row in rows] == list(range(1, steps + 1))
    assert sorted(found.Tags()["scalars"]) == sorted(tags)
    assert found.Tags()["images"] == ["samples"]
    for column, tag in enumerate(tags, 2):
        assert [(each.step, each.value) for each in found.Scalars(tag)] == [
            (int(row[0]), pytest.approx(row[column], rel=1e-6)) for row in rows
        ]
    pictures = {each.step: each.encoded_image_string for each in found.Images("samples")}
    assert [each.step for each in found.Images("samples")] == list(range(0, steps + 1, 2))
    for step, encoded in pictures.items():
        assert encoded == (run / "samples" / f"step-{step:010d}.png").read_bytes()
        with Image.open(io.BytesIO(encoded)) as picture:
            assert picture.width > 28


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_losses_and_pictures_are_there(paradigm: str, unbroken: Callable[[str], Path]) -> None:
    agrees(unbroken(paradigm), 6)


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_after_a_resume_each_step_is_there_once(
    paradigm: str, copy_of: Callable[[str], Path], configure: Configure
) -> None:
    """The run had gone to step 6 and goes on from 4, as after a kill: 5 and 6 are written again, 4 is not."""
    run = copy_of(paradigm)
    shutil.rmtree(run / "checkpoints" / f"step-{6:010d}")
    train(configure(run, paradigm), resume=True)
    assert len(list(run.glob("events.out.tfevents.*"))) == 2
    agrees(run, 6)


def test_accuracies_stand_apart_from_losses(half_stub: Any, configure: Configure, tmp_path: Path) -> None:
    half_stub.losses[2] = (0.5, 0.75, 1.5, 0.125, 2.25)
    train(configure(tmp_path / "run", model="leaky_gan"))
    agrees(tmp_path / "run", 6, HALF_STEPS)
    assert {each.value for each in read(tmp_path / "run").Scalars("accuracy/accuracy_D")} == {68.75, 43.75}


def test_after_many_resumes_each_step_is_there_once(stub: Any, configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(run, steps=2))
    for steps in (4, 4, 8):
        train(configure(run, steps=steps), resume=True)
    shutil.rmtree(run / "checkpoints" / f"step-{8:010d}")
    train(configure(run, steps=8), resume=True)
    agrees(run, 8)


def test_a_run_that_begins_again_from_nothing_is_there_once(stub: Any, configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(run, steps=4))
    shutil.rmtree(run / "checkpoints")
    train(configure(run, steps=4), resume=True)
    agrees(run, 4)


def test_a_torn_event_file_does_not_hide_what_follows(stub: Any, configure: Configure, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(run, steps=4))
    (torn,) = run.glob("events.out.tfevents.*")
    torn.write_bytes(torn.read_bytes()[:-9])
    shutil.rmtree(run / "checkpoints" / f"step-{4:010d}")
    train(configure(run, steps=4), resume=True)
    agrees(run, 4)


def test_a_folder_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        EventWriter(tmp_path / "file" / "inside", 0)


def test_a_disk_that_is_full_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(Path, "touch", lambda self: self.symlink_to("/dev/full"))
    with pytest.raises(RunError, match="cannot write TensorBoard events"):
        EventWriter(tmp_path, 0)
