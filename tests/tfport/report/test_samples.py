"""Sample pictures: each image in the cell that the source gives it, and the latent plane with its legend."""

from __future__ import annotations

import dataclasses
import io
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfport import models
from tfport.models.spec import ModelSpec
from tfport.report.plots import sample_grid
from tfport.report.samples import latent_scatter, picture

Array = np.ndarray[Any, Any]
SIDE, SCALE = 28, 3
PITCH = (SIDE + 1) * SCALE
"""Pixels from one image of a grid to the next."""


@pytest.fixture(autouse=True)
def _no_warning_and_no_pyplot() -> Iterator[None]:
    before = "matplotlib.pyplot" in sys.modules
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert before or "matplotlib.pyplot" not in sys.modules


def shades(spec: ModelSpec, count: int) -> Array:
    """`count` images, each of one shade of its own."""
    low, high = spec.data_range
    return np.repeat(low + (high - low) * np.arange(count)[:, None] / 255, SIDE * SIDE, axis=1)


def cells(image: Image.Image, rows: int, columns: int, left: int = 0) -> Array:
    """The shade in the middle of each cell of a grid that begins `left` pixels from the edge."""
    pixels = np.asarray(image)
    middle = SIDE * SCALE // 2
    found: Array = pixels[middle : rows * PITCH : PITCH, left + middle : left + columns * PITCH : PITCH]
    return found


@pytest.mark.parametrize("model", ["vanilla_gan", "batchnorm_gan", "leaky_gan", "torch_gan", "vae", "conditional_gan"])
def test_a_grid_has_each_image_in_its_cell_row_by_row(model: str) -> None:
    spec = models.get(model)
    rows, columns = spec.samples.rows, spec.samples.columns
    images = shades(spec, rows * columns)
    found = picture(spec, {}, images)
    assert found.size == (columns * PITCH - SCALE, rows * PITCH - SCALE)
    assert cells(found, rows, columns).ravel().tolist() == list(range(rows * columns))
    assert found.tobytes() == sample_grid(images, rows, columns, spec.data_range).tobytes()


@pytest.mark.parametrize("count", [10, 3])
def test_reconstructions_stand_below_their_images_however_few_there_are(count: int) -> None:
    spec = models.get("autoencoder")
    images = shades(spec, 2 * count)
    found = picture(spec, {"images": images[:count]}, images[count:])
    assert found.size == (count * PITCH - SCALE, 2 * PITCH - SCALE)
    assert cells(found, 2, count).tolist() == [list(range(count)), list(range(count, 2 * count))]


def test_codes_have_three_panels_side_by_side() -> None:
    spec = models.get("infogan")
    images = shades(spec, 300) % 1
    found = picture(spec, {}, images)
    width = 10 * PITCH - SCALE
    assert (found.mode, found.size) == ("L", (3 * width + 2 * 12, width))
    for panel in range(3):
        expected = sample_grid(images[100 * panel : 100 * panel + 100], 10, 10, spec.data_range)
        left = panel * (width + 12)
        assert found.crop((left, 0, left + width, width)).tobytes() == expected.tobytes()
        if panel:
            assert found.crop((left - 12, 0, left, width)).getextrema() == (255, 255)


@pytest.mark.parametrize("model", ["vanilla_gan", "infogan"])
def test_what_is_not_finite_is_red_in_whatever_panel_it_stands(model: str) -> None:
    spec = models.get(model)
    images = shades(spec, 10 if model == "vanilla_gan" else 300) % 1
    images[9] = math.nan
    found = picture(spec, {}, images)
    assert found.mode == "RGB"
    assert cells(found, 1, 10)[0, 9].tolist() == [214, 40, 40]
    assert cells(found, 1, 10)[0, 1].tolist() == [1, 1, 1]
    if model == "infogan":
        assert cells(found, 10, 10, 10 * PITCH - SCALE + 12)[0, 1].tolist() == [101, 101, 101]


def test_images_that_do_not_fit_are_refused() -> None:
    spec = models.get("vanilla_gan")
    with pytest.raises(ValueError, match="11 images do not fit a grid of 1 x 10"):
        picture(spec, {}, shades(spec, 11))
    three = dataclasses.replace(spec, samples=dataclasses.replace(spec.samples, rows=2, columns=2))
    assert picture(three, {}, shades(spec, 3)).size == (2 * PITCH - SCALE, 2 * PITCH - SCALE)


def test_the_scatter_is_the_same_bytes_each_time_and_another_for_other_codes() -> None:
    codes = np.random.Generator(np.random.Philox(0)).normal(size=(200, 2))
    labels = np.arange(200) % 10
    once, again = (latent_scatter(codes, labels, "a plane") for _ in range(2))
    assert once == again
    assert latent_scatter(-codes, labels, "a plane") != once
    assert latent_scatter(codes, labels[::-1], "a plane") != once, "colours are the digits'"
    assert latent_scatter(codes, labels, "another") != once
    with Image.open(io.BytesIO(once)) as image:
        assert image.format == "PNG"
        assert image.size == (1050, 900)
        assert image.text == {}  # type: ignore[attr-defined]


def test_points_lie_where_their_codes_are_in_their_digits_colour() -> None:
    """Only digits 0 and 3, far apart: blue to the left and below, red to the right and above."""
    codes = np.array([[-5.0, -5.0]] * 50 + [[5.0, 5.0]] * 50)
    shown = latent_scatter(codes, np.array([0] * 50 + [3] * 50), "t")
    with Image.open(io.BytesIO(shown)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)  # fifty dots on one place are solid, a legend's is not
    blue = np.argwhere(abs(pixels - (31, 119, 180)).sum(-1) < 30)
    red = np.argwhere(abs(pixels - (214, 39, 40)).sum(-1) < 30)
    assert len(blue) and len(red)
    assert blue[:, 0].min() > red[:, 0].max()
    assert blue[:, 1].max() < red[:, 1].min()


@pytest.mark.parametrize(
    "codes", [np.zeros((1, 2)), np.full((3, 2), np.nan), np.full((3, 2), 1e30)], ids=["one", "nan", "far"]
)
def test_the_scatter_survives(codes: Array) -> None:
    assert latent_scatter(codes, np.arange(len(codes)), "t").startswith(b"\x89PNG")
