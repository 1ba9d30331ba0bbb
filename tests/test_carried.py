"""The proof of docs/carried.md fails where a conversion does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proof import carried
from tfport.checkpoints import reference
from tfport.equivalence.measurement import PairMeasurement
from tfport.equivalence.result import RungResult, Verdict

EXACT = ("tf1_graph", "gradient_tape")
MOMENT = "optimizer/generator/m/generator/output/bias"
GOOD = carried.Row("vae", *EXACT, True, 3, (), 0, 0, True, RungResult(carried.RUNG, Verdict.IDENTICAL))


# --- The whole, small -------------------------------------------------------------------------------------------------
def measured(folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    spec = carried.spec_of("vanilla_gan")
    small = dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=10))
    carrier = carried.Carrier(small, "float32", folder, before=2, steps=4, names=EXACT)
    try:
        found = carrier.run()
    finally:
        carrier.close()
    return dict(json.loads(json.dumps(found)))


def rows(found: dict[str, Any]) -> list[carried.Row]:
    return carried.rows_of("vanilla_gan", {"float32": found, "float64": found})


def test_two_paradigms_carry_each_other_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path / "sound")
    assert [(row.source, row.target) for row in rows(found)] == [EXACT, EXACT[::-1]]
    assert [row.failures for row in rows(found)] == [[], []]
    assert all(row.same_state and row.same_end and row.tensors == 28 for row in rows(found))

    def spoilt(source: Path, left: str, target: Path, right: str, *rest: Any) -> Any:
        """As it should be, but for one moment, which begins at 0."""
        target.mkdir()
        with reference.planned(source, left, right, *rest) as (_, made):
            moves = [
                dataclasses.replace(move, produce=lambda: iter([bytes(4 * 784)])) if move.entry.name == MOMENT else move
                for move in made.moves
            ]
            reference.write_parts(dataclasses.replace(made, moves=tuple(moves)), target)
            return made

    monkeypatch.setattr(reference, "convert_folder", spoilt)
    for row in rows(measured(tmp_path / "broken")):
        said = " ".join(row.failures)
        assert "the state after the conversion is another" in said
        assert "and back: 2 tensors differ" in said  # in either precision
        assert "is different after the conversion" in said


# --- Its parts --------------------------------------------------------------------------------------------------------
def test_what_came_back(tmp_path: Path) -> None:
    arrays = {"w": np.ones(3), "m": np.zeros(3), "mom": np.ones(3), "note": np.array("text")}
    again = {**arrays, "m": np.array([0, -0.0, 0]), "mom": np.zeros(3), "note": np.array("more")}
    for name, held in (("one", arrays), ("same", arrays), ("again", again), ("less", {"w": arrays["w"]})):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "model.npz", **held)  # type: ignore[arg-type]
    one, state = tmp_path / "one", {"w", "m"}
    assert carried.returned(one, tmp_path / "same", state) == carried.Returned(3, [], [])
    assert carried.returned(one, tmp_path / "again", state) == carried.Returned(3, ["m"], ["mom"])
    assert carried.returned(one, tmp_path / "less", state) == carried.Returned(3, ["m", "mom"], [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"own": 10, "powers": 4}, ""),
        ({"same_state": False}, "the state after the conversion is another"),
        ({"differing": ("w", "b")}, "and back: 2 tensors differ, first w"),
        ({"same_end": False}, "is not the same bits"),
        ({"rung": RungResult(carried.RUNG, Verdict.ROUNDING)}, "is not the same bits"),
        ({"rung": RungResult(carried.RUNG, Verdict.ROUNDING), "target": "keras2", "same_end": False}, ""),
        ({"rung": RungResult(carried.RUNG, Verdict.DIFFERENT), "target": "keras2"}, "is different after the"),
        ({"rung": RungResult(carried.RUNG, Verdict.NOT_COMPARABLE), "target": "keras2"}, "is not_comparable after"),
    ],
)
def test_what_a_row_says(changes: dict[str, Any], said: str) -> None:
    found = " ".join(dataclasses.replace(GOOD, **changes).failures)
    assert (said in found) if said else not found


def pair(difference: float, precision: str) -> str:
    """One tensor, so far apart."""
    found = PairMeasurement("tf1_graph", "keras2")
    legacy = np.ones(2, precision)
    found.rung(carried.RUNG).add("w", legacy, legacy + np.asarray(difference, precision), 3, None, {}, precision)
    return found.to_json()


@pytest.mark.parametrize(
    ("single", "double", "verdict"),
    [
        (0.0, 0.0, Verdict.IDENTICAL),
        (1e-3, 1e-12, Verdict.ROUNDING),
        (1e-3, 1e-3, Verdict.DIFFERENT),
        (0.0, 1e-3, Verdict.DIFFERENT),
    ],
)
def test_both_precisions_judge(single: float, double: float, verdict: Verdict) -> None:
    rung = carried.judged(pair(single, "float32"), pair(double, "float64")).rung(carried.RUNG)
    assert rung.verdict == verdict


def test_a_control_that_passes_is_a_failure() -> None:
    sides = {
        precision: {"pairs": [], "control": pair(difference, precision)}
        for precision, difference in (("float32", 1e-3), ("float64", 1e-12))
    }
    assert carried.failures({"vae": sides}) == ["vae without its moments is rounding, and has to show"]
    sides["float64"]["control"] = pair(1e-3, "float64")
    assert carried.failures({"vae": sides}) == []


def test_the_page_names_what_was_not_run() -> None:
    text = carried.text({})
    assert text.count("`") > 24
    assert "Not run: `vanilla_gan`" in text
