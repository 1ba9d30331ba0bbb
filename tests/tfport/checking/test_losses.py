"""Reports that are the loss, a multiple of it, or neither; and two sides that report it differently."""

from __future__ import annotations

from typing import Any

import pytest

import fake_program as fake
from fake_program import FakeProgram, Plan
from tfport.checking.check import check
from tfport.checking.losses import constant_factor, paired
from tfport.checking.observe import Still, observe
from tfport.checking.report import CheckReport
from tfport.checking.sides import Side
from tfport.checking.store import Store


# --- One number to another --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pairs", "factor"),
    [
        ([(1.5, 1.5), (0.7, 0.7)], 1.0),
        ([(-1.5, 1.5), (-0.7, 0.7)], -1.0),
        ([(784 * 1.5 * (1 + 1e-7), 1.5), (784 * 0.7, 0.7)], 784.0),
        ([(1.5 / 3, 1.5), (0.7 / 3, 0.7)], 1 / 3),
        ([(1.5 * 1.4427, 1.5), (0.7 * 1.4427, 0.7)], 1.4427),
        ([(1.5, 1.5), (-0.7, 0.7)], None),
        ([(3.0, 1.5), (0.7, 0.7)], None),
        ([(1.5, 0.0), (0.7, 0.7)], None),
        ([(1.5, 0.0), (-0.7, 0.7)], None),
        ([(-0.0, 0.0), (-0.7, 0.7)], -1.0),
        ([(0.0, 0.0)], None),
        ([(float("nan"), 1.5), (0.7, 0.7)], None),
        ([(0.0, 1.5), (0.0, 0.7)], None),
        ([(0.5, 1.0), (0.5, 1.0001)], None),
        ([(2.0, 1.0), (2.0002, 1.0001)], 2.0),
        ([], None),
    ],
)
def test_a_factor_is_one_number_at_all_states(pairs: list[tuple[float, float]], factor: float | None) -> None:
    found = constant_factor(pairs, "float32")
    assert found == (factor if factor is None else pytest.approx(factor, rel=1e-6))


def test_what_never_changes_is_surely_no_multiple() -> None:
    pairs = [(0.5, 1.0), (0.5, 1.0)]
    assert constant_factor(pairs, "float32") == 0.5
    assert constant_factor(pairs, "float32", sure=True) is None


# --- Two sides --------------------------------------------------------------------------------------------------------
def stills(store: Store, plan: Plan) -> list[Still]:
    side = Side(FakeProgram(plan), "legacy")
    state = side.state().arrays
    return [observe(side, store, state, fake.batches(step), step) for step in (0, 1)]


@pytest.mark.parametrize(
    ("legacy", "modern", "scale"),
    [
        ({}, {}, 1.0),
        ({"reports": "negative"}, {}, -1.0),
        ({}, {"reports": "half"}, 2.0),
        ({"reports": "negative"}, {"reports": "half"}, -2.0),
        ({"reports": "half"}, {"reports": "half"}, 1.0),
        ({"reports": "negative"}, {"hides": ("loss",)}, -1.0),
        ({"hides": ("loss",)}, {"reports": "half"}, 2.0),
        ({}, {"reports": "after"}, 1.0),
        ({"loss_factor": 2.0}, {"loss_factor": 1.0, "reports": "half"}, 2.0),
    ],
)
def test_a_report_is_brought_to_the_legacy_scale(legacy: dict[str, Any], modern: dict[str, Any], scale: float) -> None:
    with Store() as store:
        found = paired(stills(store, Plan(**legacy)), stills(store, Plan(**modern)), ("train",), "float32")
    assert found.scales.get("train/loss", 1.0) == scale


def checked(legacy: dict[str, Any], modern: dict[str, Any]) -> CheckReport:
    return check(fake.factory(**legacy), fake.factory(reordered=True, powers="pow", **modern), fake.batches, steps=4)


@pytest.mark.parametrize("modern", [{}, {"reports": "half"}, {"reports": "negative"}, {"hides": ("loss",)}])
def test_multiples_of_one_objective_are_equal_on_every_rung(modern: dict[str, Any]) -> None:
    report = checked({"reports": "negative"}, modern)
    assert report.equal, report.pair
    assert "is maximised: what is minimised is its negative" in report.notes[0]
    assert report.curves["legacy"]["train"] == pytest.approx(report.curves["modern"]["train"])


@pytest.mark.parametrize(("factor", "text"), [(0.5, "0.5 times"), (-1.0, "-1 times the original's: one minimises")])
def test_a_factor_between_objectives_is_a_difference_and_is_named(factor: float, text: str) -> None:
    report = checked({}, {"loss_factor": factor})
    assert not report.equal and report.pair is not None and report.pair.located == "loss"
    assert f"the port's objective is {text}" in " ".join(report.pair.rung("loss").findings)
