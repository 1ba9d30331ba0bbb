"""What one side does inside its optimizer and the other outside decides nothing; what nobody makes up for does."""

from __future__ import annotations

from typing import Any

import pytest

import fake_program as fake
from fake_program import MOMENTUM, Phase, Plan
from tfport.checking.check import check
from tfport.checking.explained import alike
from tfport.checking.report import CheckReport
from tfport.subject import OptimizerInfo

DESCENT = Plan(optimizers=(fake.SGD,), phases=(Phase("train", "sgd", ("hidden", "output")),), shows_derivatives=True)
HEAVY = Plan(optimizers=(MOMENTUM,), phases=(Phase("train", "momentum", ("hidden", "output")),), shows_derivatives=True)


def checked(
    legacy: dict[str, Any], modern: dict[str, Any], plan: Plan = DESCENT, made: Any = fake.factory
) -> CheckReport:
    return check(made(plan, **legacy), made(plan, reordered=True, **modern), fake.batches, steps=4)


def told(report: CheckReport, rung: str) -> str:
    assert report.pair is not None
    return " ".join(report.pair.rung(rung).findings)


# --- Objectives -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plan", [DESCENT, HEAVY], ids=["descent", "momentum"])
@pytest.mark.parametrize("made", [fake.factory, fake.single], ids=["float64", "envelope"])
def test_a_loss_that_is_scaled_and_unscaled_again_is_a_note(plan: Plan, made: Any) -> None:
    report = checked({}, {"loss_factor": 128.0, "gradient_factor": 1 / 128}, plan, made)
    assert report.equal and report.pair is not None, report.pair
    assert "loss" not in {rung.rung for rung in report.pair.rungs}
    assert report.notes[0].startswith("rung 4 decides nothing: in phase train")
    assert report.notes[0].endswith("the port's objective is 128 times the original's")
    assert "the derivatives differ, and what is applied agrees" in told(report, "gradient")


@pytest.mark.parametrize(
    "modern",
    [
        {"loss_factor": 0.5},
        {"loss_factor": 128.0, "gradient_factor": 1 / 100},
        {"loss_factor": 2.0, "rate_factor": 0.5},
        {"loss_factor": 2.0, "gradient_factor": 0.5, "shows_derivatives": False},
    ],
    ids=["nothing", "not wholly", "in the rate", "not shown"],
)
@pytest.mark.parametrize("made", [fake.factory, fake.single], ids=["float64", "envelope"])
def test_an_objective_that_nobody_brings_back_is_a_difference(modern: dict[str, Any], made: Any) -> None:
    report = checked({}, modern, DESCENT, made)
    assert not report.equal and report.pair is not None and report.pair.located == "loss"


def test_two_optimizers_that_make_up_for_it_are_a_note() -> None:
    report = checked({}, {"gradient_factor": 2.0, "rate_factor": 0.5})
    assert report.equal and "rung 5 decides nothing" in report.notes[0], report.pair


def test_what_slots_keep_is_not_made_up_for() -> None:
    report = checked({}, {"gradient_factor": 2.0, "rate_factor": 0.5}, HEAVY)
    assert not report.equal and report.pair is not None and report.pair.located == "gradient"


# --- Numbers that one side alone has ----------------------------------------------------------------------------------
def clipping(number: str, value: float) -> dict[str, Any]:
    return {"numbers_told": {**fake.SGD[2], number: value}}


@pytest.mark.parametrize(
    ("legacy", "modern", "equal", "text"),
    [
        (
            {"gradient_factor": 0.5},
            {"gradient_factor": 0.5, **clipping("clipnorm", 1.0)},
            True,
            "rungs 5 and 6 compare",
        ),
        ({"shows_derivatives": False}, clipping("clipnorm", 1.0), True, "how it clips was not seen"),
        ({}, clipping("clipnorm", 1.0), False, "and the legacy side applies its gradients as they are"),
        ({}, clipping("l2", 1.0), True, "rungs 5 and 6 compare"),
        ({}, {**clipping("weight_decay", 0.1), "rate_factor": 1.001}, False, "nothing that does the same is seen"),
    ],
    ids=["clips", "never clips", "clips alone", "l2", "decay"],
)
def test_a_number_of_one_side_is_explained(
    legacy: dict[str, Any], modern: dict[str, Any], equal: bool, text: str
) -> None:
    report = checked(legacy, modern)
    assert report.equal is equal and text in told(report, "structure"), report.pair


def test_an_adam_whose_weights_decay_elsewhere_is_an_adam() -> None:
    left = [OptimizerInfo("a", "AdamW, epsilon corrected", {"learning_rate": 0.1, "weight_decay": 0.2})]
    right = [OptimizerInfo("a", "Adam, epsilon corrected", {"learning_rate": 0.1})]
    one, other, notes, found = alike(left, right)
    assert one == other == tuple(right) and notes == []
    assert [(each.role, each.number, each.value, each.rate) for each in found] == [("legacy", "weight_decay", 0.2, 0.1)]
    one, other, _, found = alike(left, left)
    assert one == other == tuple(left) and found == []
