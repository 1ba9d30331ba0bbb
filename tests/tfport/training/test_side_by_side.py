"""Runs laid over each other differ in the paradigm alone, or are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tfport.errors import RunError
from tfport.training import side_by_side
from tfport.training.config import RunConfig
from tfport.training.loop import train

Configure = Callable[..., RunConfig]
PAIR = ("tf1_graph", "gradient_tape")


@pytest.fixture
def paths(unbroken: Callable[[str], Path]) -> list[Path]:
    return [unbroken(paradigm) for paradigm in PAIR]


def test_curves_and_last_samples_of_each(paths: list[Path]) -> None:
    runs = side_by_side.read(paths, "vanilla_gan", PAIR)
    assert (runs.trained, runs.steps) == (6, (1, 2, 3, 4, 5, 6))
    assert list(runs.curves) == list(runs.samples) == list(PAIR)
    rows = (paths[1] / "metrics.csv").read_text().splitlines()[1:]
    assert runs.curves["gradient_tape"]["loss_G"] == [float(row.split(",")[3]) for row in rows]
    assert runs.samples["tf1_graph"].size == runs.samples["gradient_tape"].size
    assert str(paths[0]) in side_by_side.described(runs, paths)


def test_accuracies_are_no_losses_and_have_no_curve(half_stub: object, configure: Configure, tmp_path: Path) -> None:
    paths = [tmp_path / paradigm for paradigm in PAIR]
    for path, paradigm in zip(paths, PAIR, strict=True):
        train(configure(path, paradigm, model="leaky_gan", steps=3))
    runs = side_by_side.read(paths, "leaky_gan", PAIR)
    assert runs.curves == {name: {"loss_D": [0.75] * 3, "loss_G": [2.5] * 3} for name in PAIR}


def test_a_run_of_another_paradigm_is_refused(paths: list[Path]) -> None:
    with pytest.raises(RunError, match="is a run of vanilla_gan in gradient_tape, not vanilla_gan in tf1_graph"):
        side_by_side.read(paths[::-1], "vanilla_gan", PAIR)


def test_one_run_for_two_paradigms_is_refused(paths: list[Path]) -> None:
    with pytest.raises(RunError, match="names 1 runs for 2 paradigms"):
        side_by_side.read(paths[:1], "vanilla_gan", PAIR)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "was run with --seed=4, and .* with 3"),
        ({"log_every": 2}, "was run with --log_every=2, and .* with 1"),
        ({"steps": 4}, "for another number of steps"),
    ],
)
def test_runs_that_differ_in_more_than_the_paradigm_are_refused(
    change: dict[str, int], message: str, paths: list[Path], configure: Configure, tmp_path: Path
) -> None:
    train(configure(tmp_path / "other", **change))
    with pytest.raises(RunError, match=message):
        side_by_side.read([paths[0], tmp_path / "other"], "vanilla_gan", PAIR)


def test_a_run_that_is_not_complete_is_refused(paths: list[Path], copy_of: Callable[[], Path]) -> None:
    run = copy_of()
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    with pytest.raises(RunError, match="is interrupted: finish it with tfport train --resume"):
        side_by_side.read([paths[0], run], "vanilla_gan", PAIR)


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
def test_a_last_sample_that_cannot_be_read_is_named(
    damage: str, paths: list[Path], copy_of: Callable[[], Path]
) -> None:
    run = copy_of()
    picture = run / "samples" / "step-0000000006.png"
    picture.unlink() if damage == "missing" else picture.write_text("x")
    with pytest.raises(RunError, match=r"step-0000000006\.png cannot be read as a picture .*delete it and resume"):
        side_by_side.read([paths[0], run], "vanilla_gan", PAIR)
