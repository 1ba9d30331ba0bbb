"""Contracts that a side breaks by itself: each is told where it is broken, and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import Layer, Plan
from tfport.checking.check import check
from tfport.checking.contracts import _who_trained
from tfport.checking.report import CheckReport, Finding
from tfport.subject import VariableInfo

pytestmark = pytest.mark.usefixtures("no_frameworks")
TWO = Plan(optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES)


def alone(plan: Plan | None = None, batches: Any = fake.batches, **changes: Any) -> CheckReport:
    return check(None, fake.factory(plan, **changes), batches, steps=3)


def only(report: CheckReport, contract: str) -> Finding:
    """The one finding of a report, which is of that contract."""
    assert [each.contract for each in report.findings] == [contract], report.findings
    assert report.findings[0].side == "modern" and not report.equal
    return report.findings[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizers": (fake.SGD, fake.MOMENTUM), "phases": (TWO.phases[0], fake.Phase("b", "momentum", ("output",)))},
        {"dropout": 0.5, "noise": 0.1},
        {"normalised": True},
        {"hides": ("loss", "gradients")},
        {"layers": (fake.LAYERS[0], Layer("output", 6, 2, "tanh"))},
    ],
    ids=lambda changes: ", ".join(changes) or "plain",
)
def test_a_sound_program_breaks_none(changes: dict[str, Any]) -> None:
    report = alone(**changes)
    assert report.equal and report.findings == ()
    assert report.pair is None and report.legacy == "" and report.modern_kind == "numpy program"


# --- Who trained ------------------------------------------------------------------------------------------------------
def test_what_each_phase_moves_and_leaves_is_told() -> None:
    first, second = alone(TWO).movements
    assert (first.side, first.phase, first.moved) == ("modern", "first", ("hidden/kernel", "hidden/bias"))
    assert first.stayed == second.moved == ("output/kernel", "output/bias")


def test_a_phase_that_trains_nothing_is_told() -> None:
    found = alone(TWO, frozen=("hidden/kernel", "hidden/bias")).findings
    assert {(each.contract, each.phase) for each in found} == {("who trained", "first"), ("who trained", "")}
    assert "trains nothing" in found[0].text and "hidden/kernel, hidden/bias are held" in found[1].text


def test_moving_statistics_alone_is_no_training() -> None:
    report = alone(normalised=True, frozen=("hidden/kernel", "hidden/bias", "output/kernel", "output/bias"))
    assert ("who trained", "train") in {(each.contract, each.phase) for each in report.findings}


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (["target"], ""),
        (["moving_mean"], "none of 1 variables that an optimizer holds moved"),
        ([], "none of 3 variables moved"),
    ],
)
def test_a_phase_may_copy_weights_and_move_none_that_an_optimizer_holds(moved: list[str], said: str) -> None:
    still: Any = SimpleNamespace(moved=lambda phase: moved if phase == "copy" else ["kernel"])
    variables = [
        VariableInfo(name, name, (2,), "float32", True, ("adam",) if name == "kernel" else ())
        for name in ("kernel", "target", "moving_mean")
    ]
    found = _who_trained("legacy", [still], variables, ["copy", "train"])
    assert [each.phase for each in found] == (["copy"] if said else [])
    assert all(said in each.text for each in found)


def test_a_variable_that_no_phase_moves_is_told() -> None:
    assert (
        "hidden/bias is held by an optimizer and never moved"
        in only(alone(frozen=("hidden/bias",)), "who trained").text
    )


# --- The reported loss ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reports", ["after", "running", "nan"])
def test_a_report_that_is_not_the_loss_is_told(reports: str) -> None:
    assert only(alone(reports=reports), "reported loss").phase == "train"


@pytest.mark.parametrize(("reports", "text"), [("half", "0.5 times its objective"), ("negative", "is maximised")])
def test_a_report_that_is_a_multiple_of_the_loss_is_explained(reports: str, text: str) -> None:
    report = alone(reports=reports)
    assert report.equal and not report.findings and text in report.notes[0]


def test_a_loss_that_cannot_be_told_is_not_held_against_the_report() -> None:
    assert alone(reports="after", hides=("loss",)).equal


def test_noise_that_nobody_can_feed_makes_no_report_wrong() -> None:
    report = alone(dropout=0.5, uncontrolled=True)
    assert report.findings == (), report.findings
    assert any("cannot be fed" in note for note in report.notes)
    assert [(row.name, row.controlled) for row in report.draws] == [("dropout/uniform", False)]


# --- Ranges -----------------------------------------------------------------------------------------------------------
def pictures(low: float, high: float) -> Any:
    def batch(step: int) -> dict[str, np.ndarray[Any, Any]]:
        random = np.random.default_rng(step)
        values = np.linspace(low, high, fake.EXAMPLES * 8, dtype=np.float32).reshape(fake.EXAMPLES, 8)
        return {"x": random.standard_normal((fake.EXAMPLES, 4), np.float32), "y": values}

    return batch


@pytest.mark.parametrize(
    ("activation", "low", "high", "fires"),
    [
        ("tanh", -1, 1, False),
        ("tanh", 0, 255, True),
        ("tanh", -1.1, 0, True),
        ("tanh", 0, 1, False),
        ("sigmoid", 0, 1, False),
        ("sigmoid", -1, 1, True),
        ("none", 0, 255, False),
        ("relu", 0, 255, False),
    ],
)
def test_data_that_the_activation_beside_it_cannot_reach_is_told(
    activation: str, low: float, high: float, fires: bool
) -> None:
    plan = Plan(layers=(fake.LAYERS[0], Layer("output", 6, 8, activation)))
    report = alone(plan, pictures(low, high))
    told = [each for each in report.findings if each.contract == "ranges"]
    assert len(told) == fires
    if fires:
        assert told[0].text.startswith(f"y lies in [{low:.4g}, {high:.4g}]") and "output/" in told[0].text


def test_an_activation_that_imitates_no_input_may_be_as_wide_as_one() -> None:
    plan = Plan(layers=(Layer("hidden", 4, 4, "tanh"), Layer("output", 4, 2)))
    assert alone(plan, lambda step: {**fake.batches(step), "x": 9 * fake.batches(step)["x"]}).findings == ()


def test_few_numbers_an_example_are_no_picture() -> None:
    plan = Plan(layers=(fake.LAYERS[0], Layer("output", 6, 2, "tanh")))
    report = alone(plan, lambda step: {**fake.batches(step), "y": 9 * fake.batches(step)["y"]})
    assert not [each for each in report.findings if each.contract == "ranges"]


# --- Noise ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seen", "words"), [("same", "the same numbers at two steps"), ("traced", "draws once, while")]
)
def test_noise_that_repeats_is_told(seen: str, words: str) -> None:
    found = only(alone(dropout=0.5, noise_seen=seen), "noise")
    assert words in found.text and "dropout/uniform" in found.text and "(traced)" not in found.text


# --- Gradients --------------------------------------------------------------------------------------------------------
def test_a_variable_without_a_gradient_is_told() -> None:
    found = alone(no_gradient=("hidden/kernel",)).findings
    assert {each.contract for each in found} == {"gradients", "who trained"}
    assert any("gives no gradient for hidden/kernel" in each.text for each in found)


def test_a_gradient_that_is_zero_everywhere_is_told() -> None:
    found = alone(no_slope=("hidden/kernel",)).findings
    assert any("the gradient of hidden/kernel is zero everywhere" in each.text for each in found)
    assert not any("output" in each.text for each in found)


# --- Statistics -------------------------------------------------------------------------------------------------------
def test_statistics_that_never_move_are_told() -> None:
    found = only(alone(normalised=True, still_statistics=True), "statistics")
    assert "norm/moving_mean never moves" in found.text


def test_what_is_trained_is_no_statistic_whatever_it_is_called() -> None:
    report = alone(names={"hidden/bias": "hidden/moving_mean"}, frozen=("hidden/bias",))
    assert only(report, "who trained")


# --- Beside a legacy side ---------------------------------------------------------------------------------------------
def test_what_the_legacy_side_breaks_too_does_not_fail() -> None:
    report = check(fake.factory(reports="after"), fake.factory(reports="after"), fake.batches, steps=2)
    assert [(each.side, each.fails) for each in report.findings] == [("legacy", False), ("modern", False)]
    assert report.findings[1].text.endswith("The legacy side does the same.")
    assert report.equal, [(rung.rung, rung.findings) for rung in report.pair.rungs] if report.pair else None


def test_what_the_modern_side_alone_breaks_fails() -> None:
    report = check(fake.factory(dropout=0.5), fake.factory(dropout=0.5, noise_seen="same"), fake.batches, steps=2)
    assert report.pair is not None and report.pair.verdict.equal and not report.equal
    assert [(each.side, each.contract, each.fails) for each in report.findings] == [("modern", "noise", True)]


def test_what_the_legacy_side_alone_breaks_is_worth_reading_and_does_not_fail() -> None:
    report = check(fake.factory(dropout=0.5, noise_seen="same"), fake.factory(dropout=0.5), fake.batches, steps=2)
    assert report.equal
    assert [(each.side, each.contract, each.fails) for each in report.findings] == [("legacy", "noise", False)]
