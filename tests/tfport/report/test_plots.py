"""Plots: pixels where they belong, the same bytes each time, and nothing that NaN, infinity or one step can break."""

from __future__ import annotations

import io
import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tfport.equivalence.result import Report
from tfport.errors import RunError
from tfport.report import canvas
from tfport.report.plots import comparison_curves, loss_curves, moving_mean, png_bytes, sample_grid, save_png

STEPS = np.arange(300)
LOSS = np.exp(-STEPS / 100) + 0.1 * np.sin(STEPS * 1.7)


@pytest.fixture(autouse=True)
def _no_warning_and_no_pyplot() -> Iterator[None]:
    before = "matplotlib.pyplot" in sys.modules  # another test's framework may have loaded it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert before or "matplotlib.pyplot" not in sys.modules


def text_of(svg: str) -> str:
    return " ".join(ElementTree.fromstring(re.sub(r"xlink:href", "href", svg)).itertext())


def test_a_grid_shows_each_image_in_its_cell() -> None:
    images = np.zeros((3, 4))
    images[0] = [0.0, 1.0, 0.5, 2.0]
    grid = np.asarray(sample_grid(images, rows=2, columns=2, data_range=(0.0, 1.0), scale=1, gap=1))
    assert grid.shape == (5, 5)
    assert grid[:2, :2].tolist() == [[0, 255], [128, 255]]
    assert set(grid[2]) == set(grid[:, 2]) == {64}
    assert not grid[3:, 3:].any()


def test_a_grid_scales_by_nearest_neighbour_and_centres_its_range() -> None:
    grid = sample_grid(np.array([[-1.0, 1.0, 0.0, -3.0]]), 1, 1, (-1.0, 1.0))
    assert grid.size == (6, 6)
    assert grid.mode == "L"
    assert np.asarray(grid)[::3, ::3].tolist() == [[0, 255], [128, 0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_pixel_that_is_not_finite_is_red(value: float) -> None:
    grid = sample_grid(np.array([[0.0, value, 1.0, 0.5]]), 1, 1, (0.0, 1.0), scale=1)
    assert grid.mode == "RGB"
    assert np.asarray(grid)[0].tolist() == [[0, 0, 0], [214, 40, 40]]


@pytest.mark.parametrize(
    ("shape", "data_range", "message"),
    [
        ((1, 5), (0.0, 1.0), "5 pixels are not square"),
        ((3, 4), (0.0, 1.0), "3 images do not fit a grid of 1 x 2"),
        ((1, 4), (1.0, 1.0), "is empty"),
    ],
)
def test_a_grid_that_cannot_be_drawn_says_why(
    shape: tuple[int, int], data_range: tuple[float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_grid(np.zeros(shape), 1, 2, data_range)


def test_save_png_writes_the_pixels(tmp_path: Path) -> None:
    grid = sample_grid(np.random.Generator(np.random.Philox(0)).random((10, 784)), 1, 10, (0.0, 1.0))
    save_png(grid, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as read:
        assert read.tobytes() == grid.tobytes()
    assert png_bytes(grid) == (tmp_path / "new" / "grid.png").read_bytes()


def test_save_png_names_the_path_that_the_disk_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=re.escape("grid.png")):
        save_png(sample_grid(np.zeros((1, 4)), 1, 1, (0.0, 1.0)), tmp_path / "file" / "grid.png")


def test_loss_curves_name_their_series_units_and_window() -> None:
    svg = loss_curves({"loss_D": (STEPS, LOSS), "loss_G": (STEPS, -LOSS)}, "a run", kind="svg").decode()
    for words in ("a run", "loss_D", "loss_G", "training step", "loss (nats)", "strong: mean over 7 of them"):
        assert words in svg


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_loss_curves_are_the_same_bytes_each_time(kind: str) -> None:
    once, again = (loss_curves({"loss": (STEPS, LOSS)}, "t", kind=kind) for _ in range(2))  # type: ignore[arg-type]
    assert once == again
    assert b"Date" not in once and b"date>" not in once
    if kind == "png":
        with Image.open(io.BytesIO(once)) as image:
            assert image.size == (1350, 750)
            assert image.text == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="none"),
        pytest.param([0.3], id="one"),
        pytest.param([math.nan], id="nan"),
        pytest.param([math.inf, -math.inf], id="inf"),
        pytest.param([0.1, math.nan, 0.2, math.inf, 0.3], id="gaps"),
        pytest.param([1e308, -1e308, 1e300], id="huge"),
        pytest.param([0.5] * 100, id="flat"),
    ],
)
def test_loss_curves_survive(values: list[float]) -> None:
    svg = loss_curves({"loss": (list(range(len(values))), values)}, "t", kind="svg").decode()
    missing = sum(not math.isfinite(value) for value in values)
    assert missing == 0 or f"({missing} of {len(values)} not finite)" in svg
    finite = any(abs(value) < 1e300 for value in values)
    assert ("no finite value was logged" in svg) is not finite


def test_loss_curves_refuse_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="'loss' has 2 steps and 1 values"):
        loss_curves({"loss": ([0, 1], [0.5])}, "t")


def test_a_moving_mean_keeps_gaps_and_ignores_them() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    np.testing.assert_allclose(moving_mean(values, 3), [2.0, 2.0, np.nan, 6.0, 6.0])
    np.testing.assert_array_equal(moving_mean(values, 1), values)
    assert moving_mean(values, 99).shape == (5,)


def test_thinning_keeps_every_spike() -> None:
    values = np.zeros(50_000)
    values[[123, 40_001]] = [9.0, -9.0]
    values[30_000:31_000] = np.nan
    steps, kept = canvas.thin(np.arange(50_000.0), values)
    assert len(kept) <= 1200
    assert {9.0, -9.0} <= set(kept.tolist())
    assert np.isnan(kept).any()
    assert (np.diff(steps) > 0).all()


def test_comparison_curves_tell_paradigms_and_identity(equal_report: Report) -> None:
    svg = comparison_curves(equal_report.curves, "tf1_graph")
    text = text_of(svg)
    for name in equal_report.curves:
        assert name in text
    assert text.count("identical (0 everywhere)") == 2
    assert "keras3 loss_G" in text
    assert svg.startswith("<svg viewBox=") and svg.endswith("</svg>")
    assert "var(--plot-1, " in svg
    assert "http" not in svg and "metadata" not in svg


def test_comparison_curves_are_the_same_text_each_time(equal_report: Report) -> None:
    assert len({comparison_curves(equal_report.curves, "tf1_graph") for _ in range(2)}) == 1


def test_comparison_curves_count_what_a_log_axis_hides() -> None:
    legacy = {"loss": [1.0, 2.0, 3.0, 4.0]}
    text = text_of(
        comparison_curves(
            {
                "old": legacy,
                "gaps": {"loss": [1.0, math.nan, math.inf, 4.5]},
                "short": {"loss": [1.0, 2.5]},
                "other": {"loss": legacy["loss"], "extra": [1.0]},
            },
            "old",
        )
    )
    assert "gaps loss: not finite at 2 of 4 steps, 0 at 1 of 4 steps" in text
    assert "short loss: 2 steps against 4, 0 at 1 of 2 steps" in text
    assert "other loss: identical (0 everywhere)" in text
    assert "other extra: old has no such loss" in text


def test_nan_on_both_sides_is_not_identical() -> None:
    text = text_of(comparison_curves({"old": {"loss": [math.nan]}, "new": {"loss": [math.nan]}}, "old"))
    assert "identical" not in text
    assert "new loss: not finite at 1 of 1 steps" in text


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_comparison_curves_survive_short_runs(steps: int) -> None:
    curves = {"old": {"loss": [0.5] * steps}, "new": {"loss": [0.5] * steps}}
    text = text_of(comparison_curves(curves, "old"))
    assert ("no difference at any step" in text) is (steps > 0)


def test_a_hostile_name_stays_text() -> None:
    svg = comparison_curves({'a"><script>': {"$x_{": [1.0]}, "$b$": {"$x_{": [2.0]}}, 'a"><script>')
    assert "<script" not in svg
    assert "$b$ $x_{" in text_of(svg)
