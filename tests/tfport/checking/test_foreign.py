"""Pairs in the manner of real legacy code: correct ports pass, changes are found, and nothing false is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreign_pairs import PAIRS, Foreign
from proof import foreign


def pairs() -> list[Any]:
    return [pytest.param(pair, id=pair.name, marks=[] if pair.quick else [pytest.mark.slow]) for pair in PAIRS]


@pytest.mark.parametrize("kind", foreign.KINDS)
@pytest.mark.parametrize("pair", pairs())
def test_pair(pair: Foreign, kind: str, tmp_path: Path) -> None:
    row = foreign.elsewhere(pair, kind, tmp_path)
    if "skipped" in row:
        pytest.skip(row["skipped"])
    assert not foreign.failures([row]), row
    assert kind == "right" or (row["rung"], row["there"]) == (pair.rung, not pair.elsewhere), row


def test_lines_between_the_markers_are_glue_and_others_are_not() -> None:
    assert {foreign.glue(pair.name) > 0 for pair in PAIRS} == {True}
    lines = ["a = 1", "    # tfport >", "", "# a comment", "b = 2", "# < tfport", "c = 3"]
    assert foreign.glue_lines(lines) == 1


def test_what_a_row_does_not_prove_is_named() -> None:
    passed = {"name": "vae", "kind": "right", "equal": True}
    assert foreign.failures([passed, {"name": "vae", "kind": "wrong", "equal": False}]) == []
    wrong = {"name": "vae", "kind": "wrong", "equal": True, "false": ["a is b"], "unsaid": ["c"], "said": ["d"]}
    alarm, error = {**passed, "equal": False}, {**passed, "equal": None, "error": "it stopped"}
    assert [each.split(": ", 1)[1] for each in foreign.failures([wrong, alarm, error])] == [
        "not found",
        "says what is not so: a is b",
        "says what is not so: d",
        "'c' is not said",
        "not equal",
        "it stopped",
    ]
    assert foreign.failures([{"name": "torch_gru", "kind": "right", "skipped": "PyTorch is not installed"}]) == []


def test_the_page_counts_what_was_found() -> None:
    rows = [
        {"name": "vae", "kind": "right", "equal": True, "variables": "10 of 10", "rounding_by": "envelope"},
        {"name": "vae", "kind": "wrong", "equal": False, "rung": "loss", "there": True, "place": "a | b", "false": []},
    ]
    text = foreign.text(rows)
    assert (
        "| correct ports | 1 | 1 pass |" in text and "| changed ports | 1 | 1 found, 1 at the changed place |" in text
    )
    assert "10 of 10 variables" in text and "a \\| b" in text
