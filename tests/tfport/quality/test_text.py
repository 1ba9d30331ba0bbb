"""text: within 80 columns, each figure has its floor beside it, and what rests on the classifier says so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tfport.data import Dataset
from tfport.quality.measure import Array, Quality, measure
from tfport.quality.text import WIDTH, table

ROWS = (
    "Log-likelihood",
    "sigma",
    "Fréchet distance (",
    "total variation",
    "confidence",
    "median",
    "5th",
    "near-copies",
)


@pytest.fixture(scope="module")
def quality(digits: Dataset, training: Array, cache: Path) -> Quality:
    return measure(training[:200] * 0.8, digits, 0, cache)


def row(quality: Quality, label: str) -> list[str]:
    """The cells of the first line with that label."""
    line = next(line for line in table(quality).splitlines() if label in line)
    return re.split(r"  +", line.strip())[1:]


@pytest.mark.parametrize("label", ROWS)
def test_every_figure_has_its_floor_beside_it(quality: Quality, label: str) -> None:
    cells = row(quality, label)
    assert len(cells) == 2
    assert all(re.match(r"-?\d", cell) for cell in cells)


def test_the_figures_are_the_qualitys(quality: Quality) -> None:
    assert row(quality, "Fréchet distance (") == [f"{quality.frechet:.3f}", f"{quality.frechet_floor:.3f}"]
    assert row(quality, "median") == [f"{quality.neighbours.median:.3f}", f"{quality.neighbours_floor.median:.3f}"]
    parzen, floor = quality.parzen, quality.parzen_floor
    assert row(quality, "Log-likelihood") == [
        f"{each.mean:.1f} ± {each.standard_error:.1f}" for each in (parzen, floor)
    ]
    assert row(quality, "near-copies")[1] == "0 of 297"


def test_classes_stand_below_each_other(quality: Quality) -> None:
    lines = [line for line in table(quality).splitlines() if re.match(r"(class|generated|real t)\S*.*\d$", line)]
    assert [line.split("  ")[0] for line in lines] == [
        "class",
        "generated",
        "generated, %",
        "real training, %",
        "real test, %",
    ]
    assert lines[0].split()[1:] == [str(each) for each in range(10)]
    assert [int(each) for each in lines[1].split()[1:]] == list(quality.histogram.counts)
    assert {len(line) for line in lines} == {WIDTH}


def test_it_says_what_the_figures_rest_on(quality: Quality) -> None:
    text = " ".join(table(quality).split())
    right = f"{quality.reader.accuracy:.2%}"
    assert f"By a classifier that reads {right} of the 297 test images right:" in text
    assert "Fréchet distances (squared) compare only within one classifier" in text
    assert f"weights {quality.reader.digest[:12]}, {right} right" in text
    assert "sigma is chosen on 300 training images that are held out" in text


def test_it_fits_whatever_the_figures_are(quality: Quality) -> None:
    """The largest figures there are: MNIST's numbers, one class only, distances of noise."""
    huge = dataclasses.replace(
        quality,
        given=60_000,
        compared=59_000,
        frechet=1234567.891,
        parzen=dataclasses.replace(quality.parzen, mean=-38_765.4, standard_error=1234.5, samples=59_000),
        histogram=dataclasses.replace(quality.histogram, counts=(59_000,) * 10, shares=(1.0,) * 10),
        neighbours=dataclasses.replace(quality.neighbours, images=60_000, near_copies=60_000),
        notes=("a long note that goes on and on " * 5,),
    )
    for each in (quality, huge):
        lines = table(each).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert all(line == line.rstrip() for line in lines)
    assert "60,000 of 60,000" in row(huge, "near-copies")
    assert row(huge, "Log-likelihood")[0] == "-38765.4 ± 1234.5"


def test_notes_are_printed(quality: Quality) -> None:
    assert "Note: the cache was damaged." in table(dataclasses.replace(quality, notes=("the cache was damaged.",)))
    assert "Note:" not in table(dataclasses.replace(quality, notes=()))


def test_no_figure_is_taken_for_its_floor(quality: Quality) -> None:
    assert quality.frechet != pytest.approx(quality.frechet_floor)
    assert not np.isclose(quality.parzen.mean, quality.parzen_floor.mean)
    assert all(len(set(row(quality, label))) == 2 for label in ("Log-likelihood", "Fréchet distance (", "median"))
