"""Sibling files stay siblings: the same sections in the same order, and no number that belongs to the spec."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tf1_graph
import tf2_eager
from tfport import models

TF2 = Path(next(iter(tf2_eager.__path__)))
FOLDERS = {
    "tf1_graph": Path(next(iter(tf1_graph.__path__))),
    "gradient_tape": TF2 / "gradient_tape",
    "keras2": TF2 / "keras2",
    "keras3": TF2 / "keras3",
}
FAMILIES = [pytest.param(family, id=family) for family in models.FAMILIES]
SECTIONS = ("Variables", "Optimizers", "Networks", "Losses", "Train ops", "Training step", "Outputs", "Convolutions")
PLAIN = {0.0, 0.5, 1.0, 2.0, 3.0, -1.0}
"""Numbers that code needs of itself: a half as a threshold, axes, one minus something."""


def file(family: str, paradigm: str) -> Path:
    return FOLDERS[paradigm] / f"{family}.py"


def code(path: Path) -> list[str]:
    """The lines without docstrings and comments."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    return [line.split("#")[0].rstrip() for line in text.splitlines() if line.split("#")[0].strip()]


def numbers_of(value: Any) -> Iterator[float]:
    """Every number that stands somewhere in a spec."""
    if isinstance(value, bool | str) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, tuple):
        for each in value:
            yield from numbers_of(each)
    else:
        for field in dataclasses.fields(value):
            yield from numbers_of(getattr(value, field.name))


def spec_numbers(family: str) -> set[float]:
    """The numbers of all specs of a family, as they are written and not as float32 has them."""
    found = {
        number for name in models.MODELS if models.get(name).family == family for number in numbers_of(models.get(name))
    }
    return {float(f"{number:.6g}") for number in found} - PLAIN


def written(line: str) -> set[float]:
    """The numbers in a line of code that are part of no name or text."""
    without_text = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
    return {
        float(each.replace("_", ""))
        for each in re.findall(r"(?<![\w.])\d[\d_]*\.?\d*(?:e-?\d+)?(?![\w.])", without_text)
    }


@pytest.mark.parametrize("paradigm", FOLDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_number_of_the_spec_stands_in_a_paradigm_file(family: str, paradigm: str) -> None:
    forbidden = spec_numbers(family)
    assert [line for line in code(file(family, paradigm)) if written(line) & forbidden] == []


def test_the_search_for_numbers_finds_them() -> None:
    assert {128, 256, 784, 0.01, 2e-4, 0.9, 0.999, 1e-8, 100, 55_000} <= spec_numbers("vanilla_gan")
    assert {0.02, 0.99, 1e-3, 1e-7, 64} <= spec_numbers("batchnorm_gan")
    assert {0.1, 0.01, 512, 1e-5} <= spec_numbers("torch_gan")
    for line, found in {
        "Dense(256)": {256},
        "f(stddev=0.01, x=2e-4)": {0.01, 2e-4},
        "z = x[:, 1_000]": {1_000},
        'name="hidden128"': set(),
        "norm1 = h2 - 1": {1},
    }.items():
        assert written(line) == found


IMPORTS = re.compile(r"import keras|import tf_keras|from tf2_eager\.keras[23]\.")
FLAG = re.compile(
    r"self\.discriminator\.trainable = |def run_phase\(self, phase: str, batch: Batch\) -> dict\[str, float\]:$|"
    r"reports = super\(\)\.run_phase\(phase, batch\)$|return reports$"
)


WITHOUT_FLAG = {"torch_gan", "autoencoder"}
"""Families with no compiled model in which another is frozen."""


@pytest.mark.parametrize("family", [family for family in models.FAMILIES if family != "vae"])
def test_keras_siblings_differ_where_keras_differs_and_nowhere_else(family: str) -> None:
    """In the frameworks' names, and in Keras 3's flag, which must be set before every trace.

    vae differs in more: Keras 3 adds no symbolic tensor to a model's loss.
    """
    changed = [
        (line[0], line[2:].strip())
        for line in difflib.ndiff(code(file(family, "keras2")), code(file(family, "keras3")))
        if line.startswith(("- ", "+ "))
    ]
    assert [line for side, line in changed if side == "-" and not IMPORTS.match(line)] == []
    more = [line for side, line in changed if side == "+" and not IMPORTS.match(line)]
    assert [line for line in more if not FLAG.match(line)] == []
    assert bool(more) is (family not in WITHOUT_FLAG)


def sections(path: Path) -> list[str]:
    return [
        next((each for each in SECTIONS if title.startswith(each)), title)
        for title in re.findall(r"# --- ([^-]+?) -", path.read_text())
    ]


@pytest.mark.parametrize("paradigm", FOLDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_section_comments_come_in_one_order(family: str, paradigm: str) -> None:
    found = sections(file(family, paradigm))
    assert found == [each for each in SECTIONS if each in found], "each once, and none of another name"
    assert {"Networks", "Losses"} <= set(found)
    common = [each for each in found if each != "Convolutions"]
    assert common == sections(file("vanilla_gan", paradigm)), "as in the paradigm's first file"
