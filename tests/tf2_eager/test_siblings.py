"""Sibling files stay siblings: the same names in the same order, and no number that belongs to the spec."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

import tf1_graph
import tf2_eager

TF2 = Path(next(iter(tf2_eager.__path__)))
FILES = {
    "tf1_graph": Path(next(iter(tf1_graph.__path__))) / "vanilla_gan.py",
    "gradient_tape": TF2 / "gradient_tape" / "vanilla_gan.py",
    "keras2": TF2 / "keras2" / "vanilla_gan.py",
    "keras3": TF2 / "keras3" / "vanilla_gan.py",
}
SPEC_NUMBERS = re.compile(r"(?<![\w.])(128|256|784|0\.01|2e-4|0\.9|0\.999|1e-8|100)(?![\w.])")


def code(path: Path) -> list[str]:
    """The lines without docstrings and comments."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    return [line.split("#")[0].rstrip() for line in text.splitlines() if line.split("#")[0].strip()]


@pytest.mark.parametrize("paradigm", FILES)
def test_no_number_of_the_spec_stands_in_a_paradigm_file(paradigm: str) -> None:
    assert [line for line in code(FILES[paradigm]) if SPEC_NUMBERS.search(line)] == []


def test_the_search_for_numbers_finds_one() -> None:
    assert SPEC_NUMBERS.search("Dense(256)")
    assert SPEC_NUMBERS.search("stddev=0.01")


def test_keras_siblings_differ_where_keras_differs_and_nowhere_else() -> None:
    changed = [
        line[2:].strip()
        for line in difflib.ndiff(code(FILES["keras2"]), code(FILES["keras3"]))
        if line.startswith(("- ", "+ "))
    ]
    allowed = re.compile(r"import keras|import tf_keras|from tf2_eager\.keras|paradigm = |\.trainable = ")
    assert changed
    assert [line for line in changed if not allowed.search(line)] == []


@pytest.mark.parametrize("paradigm", FILES)
def test_section_comments_come_in_one_order(paradigm: str) -> None:
    wanted = ["Variables", "Networks", "Losses", "Training step"]
    found = re.findall(r"# --- ([A-Z][a-z]+(?: step)?)", FILES[paradigm].read_text())
    assert [name for name in found if name in wanted] == wanted
