"""A short run of every model: its log's columns, its pictures, and the batches its source draws."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tfport import models
from tfport.training.config import defaults
from tfport.training.loop import train

SIDE, SCALE = 28, 3


def expected_size(model: str) -> tuple[int, int]:
    """Width and height of the sample picture: cells of 28 pixels and gaps of one, threefold, panels side by side."""
    samples = models.get(model).samples
    width, height = (SCALE * (count * (SIDE + 1) - 1) for count in (samples.columns, samples.rows))
    panels = 3 if samples.kind == "by_code" else 1
    return panels * width + (panels - 1) * 12, height


@pytest.mark.parametrize("model", models.MODELS)
def test_a_run_leaves_what_its_model_has(model: str, tmp_path: Path) -> None:
    spec = models.get(model)
    outcome = train(defaults(model, "gradient_tape", steps=2, batch_size=16, run_dir=str(tmp_path / "run")))
    assert list(outcome.losses) == [column.name for column in spec.logged]
    header, *rows = (outcome.directory / "metrics.csv").read_text().splitlines()
    assert header.split(",") == ["step", "epoch", *(column.name for column in spec.logged)]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    for step in (0, 1, 2):
        with Image.open(outcome.directory / "samples" / f"step-{step:010d}.png") as picture:
            assert picture.size == expected_size(model)
    there = {path.name for path in outcome.directory.iterdir()}
    assert ("accuracy.png" in there) == any(column.percent for column in spec.logged)
    assert ("latent.png" in there) == (model == "vae")
    assert {"losses.png", "samples.gif", "state.npz"} <= there


def test_the_log_is_the_sources_weighted_sum(tmp_path: Path) -> None:
    from tfport import data, paradigms
    from tfport.data.batches import Batches
    from tfport.initial import initial_state

    config = defaults("leaky_gan", "gradient_tape", steps=1, run_dir=str(tmp_path / "run"))
    outcome = train(config)
    spec = config.spec()
    side = paradigms.build("gradient_tape", spec)
    side.load(initial_state(spec, 0, "float32"))
    reports = side.step(Batches(spec, data.load("digits"), 0)[0])
    assert outcome.losses == {
        "loss_D": 0.5 * reports["loss_D_real"] + 0.5 * reports["loss_D_fake"],
        "accuracy_D": 50 * reports["accuracy_D_real"] + 50 * reports["accuracy_D_fake"],
        "loss_G": reports["loss_G"],
    }
