"""Cells of tf.nn.rnn_cell against Keras's layers: the layout is found, and gradients and slots agree, in float64."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.equivalence.result import Verdict
from tfport.layouts import by_variables, in_words


def checked(legacy: str, modern: str, **more: object) -> CheckReport:
    sides = f"recurrent_sides:{legacy}", f"recurrent_sides:{modern}", "recurrent_sides:batches"
    return check(*sides, steps=4, **more)  # type: ignore[arg-type]


def layouts(report: CheckReport) -> dict[tuple[str, str], str]:
    """Last parts of both names -> the layout in words."""
    return {
        (pairs[0].legacy, re.sub(r"^.*/", "", pairs[0].modern)): in_words(pairs)
        for pairs in by_variables(report.mapping)
    }


def proven(report: CheckReport) -> bool:
    """Whether all rungs hold, those in float64 by as little as its own rounding."""
    assert report.pair is not None
    numbers = [rung.float64_relative for rung in report.pair.rungs if rung.float64_relative is not None]
    return report.equal and report.rounding_by == "float64" and len(numbers) > 5 and max(numbers) < 1e-12


def test_an_lstm_cell_is_split_its_gates_change_places_and_the_forget_bias_is_added() -> None:
    report = checked("lstm", "keras_lstm")
    assert proven(report)
    assert layouts(report) == {
        ("rnn/lstm_cell/kernel", "kernel"): "columns 0 to 2, 6 to 8, 3 to 5, 9 to 11 of rows 0 to 3",
        ("rnn/lstm_cell/kernel", "recurrent_kernel"): "columns 0 to 2, 6 to 8, 3 to 5, 9 to 11 of rows 4 to 6",
        ("rnn/lstm_cell/bias", "bias"): "elements 0 to 2, 6 to 8, 3 to 5, 9 to 11; 1 added to elements 6 to 8",
        ("o/kernel", "kernel"): "",
        ("o/bias", "bias"): "",
    }


@pytest.mark.slow
def test_a_mapping_that_was_found_is_taken_back_and_its_offset_matters(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    assert checked("lstm", "keras_lstm", write_mapping=path, rungs=("forward",)).equal
    again = checked("lstm", "keras_lstm", mapping=path)
    assert again.equal and {pair.reason for pair in again.mapping} == {"mapping file"}
    tree = json.loads(path.read_text())
    for entry in tree["variables"]:
        entry.pop("offset", None)
    path.write_text(json.dumps(tree))
    without = checked("lstm", "keras_lstm", mapping=path, rungs=("forward",))
    assert without.pair is not None and without.pair.verdict is Verdict.DIFFERENT


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "simple", "stacked", "both_ways", "projected"])
def test_other_cells_find_their_layouts(cell: str) -> None:
    report = checked(cell, f"keras_{cell}")
    assert proven(report), (
        [(rung.rung, rung.verdict, rung.findings) for rung in report.pair.rungs] if report.pair else ""
    )
    assert not any(pair.ambiguous for pair in report.mapping)
