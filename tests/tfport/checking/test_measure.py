"""What is taken down of two sides, and what rounding is allowed by the envelope."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, Plan
from tfport.checking.measure import (
    ENVELOPE_FLOOR,
    ENVELOPE_SLACK,
    Envelope,
    Meter,
    compare_reports,
    compare_stills,
    some,
)
from tfport.checking.observe import Still, observe
from tfport.checking.sides import Side
from tfport.checking.store import Store
from tfport.equivalence.measurement import PairMeasurement

Array = np.ndarray[Any, Any]
KEY = "update", "a", 3
ONES = np.ones(4, np.float32)


def meter(**given: Any) -> Meter:
    return Meter(PairMeasurement("legacy", "modern"), given.pop("precision", "float32"), **given)


# --- The envelope -----------------------------------------------------------------------------------------------------
def test_an_envelope_is_as_wide_as_its_widest_disturbance() -> None:
    envelope = Envelope()
    assert envelope.allows(KEY) == ENVELOPE_FLOOR
    base = np.array([0.0, -4.0], np.float32)
    for apart in (0.25, 1.0, 0.5):
        envelope.add(KEY, base, base + np.float32(apart))
    assert envelope.allows(KEY) == ENVELOPE_SLACK * 0.25 + ENVELOPE_FLOOR
    assert envelope.allows(("update", "a", 4)) == ENVELOPE_FLOOR


@pytest.mark.parametrize(
    "other", [np.array([1.0, np.nan]), np.array([np.inf, 1.0]), np.ones(3), np.zeros(0)], ids=["nan", "inf", "3", "0"]
)
def test_what_cannot_be_measured_widens_nothing(other: Array) -> None:
    envelope = Envelope()
    envelope.add(KEY, np.ones(2), other)
    envelope.add(KEY, np.zeros(2), np.ones(2))
    envelope.add(KEY, np.array([1, 2]), np.array([3, 4]))
    assert envelope.allows(KEY) == ENVELOPE_FLOOR


def test_an_average_may_differ_by_the_rounding_of_what_feeds_it() -> None:
    envelope = Envelope()
    before, after = np.full(3, 8.0, np.float32), np.full(3, 10.0, np.float32)
    envelope.complement(KEY, before, after, 0.999)
    assert envelope.allows(KEY) - ENVELOPE_FLOOR == pytest.approx(2.0**-23 / 0.001 * 2 / 10)
    envelope.complement(KEY, before, before, 0.999)
    assert envelope.allows(KEY) > ENVELOPE_FLOOR
    still = Envelope()
    still.complement(KEY, before, before, 0.999)
    still.complement(KEY, before, np.zeros(3, np.float32), 0.999)
    assert still.allows(KEY) == ENVELOPE_FLOOR


# --- One tensor -------------------------------------------------------------------------------------------------------
def test_a_difference_beyond_what_is_allowed_is_the_first() -> None:
    for allowed, expected in ((0.5, None), (0.05, "a")):
        found = meter(by_tensor={"update": {"a": allowed}})
        found.add("update", "a", ONES, ONES * np.float32(1.1), 3, "train")
        first = found.pair.rung("update").first
        assert (first.tensor if first else None) == expected
    assert found.largest[KEY] == pytest.approx(0.1) and found.scales[KEY] == 1


def test_an_envelope_is_asked_by_step() -> None:
    envelope = Envelope()
    envelope.take(KEY, 1.0, 1.0)
    found = meter(envelope=envelope)
    found.add("update", "a", ONES, ONES * 2, 3, "train")
    assert found.pair.rung("update").first is None
    found.add("update", "a", ONES, ONES * 2, 4, "train")
    first = found.pair.rung("update").first
    assert first is not None and first.step == 4


def test_what_does_not_repeat_is_lacking_and_not_compared() -> None:
    found = meter(unstable={"a"})
    found.add("update", "train/a", ONES, ONES * 2, 3, "train", "a")
    rung = found.pair.rung("update")
    assert rung.compared == 0 and rung.missing == ["train/a depends on random numbers that cannot be fed"]


def test_what_the_sample_leaves_out_is_counted() -> None:
    found = meter(sampled={"a"})
    for name in ("a", "b", "b"):
        found.add("update", f"train/{name}", ONES, ONES, 3, "train", name)
    assert found.pair.rung("update").compared == 1 and found.skipped == {"b"}


def test_float64_is_measured_on_the_scale_that_float32_had() -> None:
    tiny = np.full(3, 1e-20)
    for least, relative in (({}, 1.0), ({KEY: 1e-10}, 1e-10)):
        found = meter(precision="float64", least=least)
        found.add("update", "a", tiny, 2 * tiny, 3, "train")
        assert found.largest[KEY] == pytest.approx(relative)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_a_step_takes_to_zero_is_measured_on_the_scale_that_it_had(precision: str) -> None:
    nothing, noise, before = (np.full(3, value, precision) for value in (0.0, 1e-10, 0.01))
    found = meter(precision=precision)
    found.add("forced_trajectory", "a", nothing, noise, 3, "train", "a", before)
    assert found.largest["forced_trajectory", "a", 3] == pytest.approx(1e-8)
    found.add("free_trajectory", "a", before, before, 2, "step", "a")
    found.add("free_trajectory", "a", nothing, noise, 3, "step", "a")
    assert found.largest["free_trajectory", "a", 3] == pytest.approx(1e-8)


def test_noise_beside_a_zero_is_the_scale_of_float64() -> None:
    single, double = meter(), meter(precision="float64")
    single.add("gradient", "a", np.zeros(3, np.float32), np.full(3, 1e-9, np.float32), 3, "train")
    double.least = single.scales
    double.add("gradient", "a", np.zeros(3), np.full(3, 1e-18), 3, "train")
    assert single.largest["gradient", "a", 3] == 1
    assert double.largest["gradient", "a", 3] == pytest.approx(1e-9)


def test_what_a_step_adds_is_measured_beside_what_is_there() -> None:
    found = meter(precision="float64")
    before = np.full(3, 100.0)
    found.add("update", "a", before + 1, before + 1.5, 3, "train", "a", before)
    assert found.moves["update", "a"] == pytest.approx(0.5)
    assert found.largest[KEY] == pytest.approx(0.5 / 101)


def test_what_rounds_off_a_step_that_adds_nothing_is_no_share_of_it() -> None:
    found = meter(precision="float64")
    before = np.full(3, 1.0)
    found.add("update", "a", np.nextafter(before, 2), before, 3, "train", "a", before)
    assert ("update", "a") not in found.moves


def test_a_step_that_adds_little_is_measured_on_what_steps_have_added() -> None:
    found = meter(precision="float64")
    empty, full = np.zeros(3), np.ones(3)
    found.add("forced_trajectory", "a", full, full * (1 + 1e-8), 0, "step", "a", empty)
    found.add("forced_trajectory", "a", full + 1e-3, full + 1e-3 + 1e-8, 1, "step", "a", full)
    assert found.moves["forced_trajectory", "a"] == pytest.approx(1e-8)
    found.add("forced_trajectory", "a", full + 1e-3, full + 2e-3, 2, "step", "a", full)
    assert found.moves["forced_trajectory", "a"] == pytest.approx(1e-3)


def test_only_what_both_report_is_compared() -> None:
    found = meter()
    compare_reports(found, "loss", {"loss": 1.0, "accuracy": 0.5}, {"loss": 1.0, "other": 2.0}, 0, "train")
    assert found.pair.rung("loss").compared == 1 and found.pair.rung("loss").same_bits
    compare_reports(found, "loss", {"train/loss": 1.0}, {"train/loss": 1.5}, 0, None)
    first = found.pair.rung("loss").first
    assert first is not None and (first.tensor, first.phase) == ("train/loss", "train")


# --- Two stills -------------------------------------------------------------------------------------------------------
def compared(legacy: Plan, modern: Plan) -> Meter:
    """Both at the legacy side's state."""
    found = meter()
    with Store() as store:
        state = FakeProgram(legacy).state().arrays

        def still(role: str, plan: Plan) -> Still:
            side = Side(FakeProgram(plan), role)
            side.role = "legacy"  # its names are its own
            return observe(side, store, state, fake.batches(0), 0)

        one, other = still("legacy", legacy), still("modern", modern)
        compare_stills(found, one, other, ("train",), (("prediction", "prediction"),), {})
    return found


def test_two_sides_that_are_one_agree_in_everything() -> None:
    found = compared(Plan(), Plan())
    assert {name: rung.same_bits for name, rung in found.pair.rungs.items()} == dict.fromkeys(
        ("forward", "loss", "gradient", "update"), True
    )
    assert not any(rung.faults or rung.missing for rung in found.pair.rungs.values())
    assert found.pair.rung("forward").compared == 2 and found.pair.rung("gradient").compared == 4
    (mover,) = found.pair.movers
    assert mover.legacy == mover.modern == ("hidden/kernel", "hidden/bias", "output/kernel", "output/bias")
    assert all(check.agrees for check in found.pair.loss_checks) and len(found.pair.loss_checks) == 2


@pytest.mark.parametrize(
    ("legacy", "modern", "rung", "fault"),
    [
        (Plan(), Plan(frozen=("output/bias",)), "update", "phase train: output/bias did not move on the modern side"),
        (Plan(frozen=("output/bias",)), Plan(), "update", "phase train: output/bias moved on the modern side alone"),
        (Plan(), Plan(dirty="output/bias"), "update", "modern: looking at outputs and gradients changed output/bias"),
        (
            Plan(),
            Plan(no_gradient=("output/bias",)),
            "gradient",
            "output/bias gets None for a gradient on the modern",
        ),
        (Plan(no_gradient=("output/bias",)), Plan(), "gradient", "output/bias gets None for a gradient on the legacy"),
        (Plan(), Plan(reports="after"), "loss", "modern: phase train reports a loss of"),
    ],
)
def test_what_one_side_alone_does_is_a_fault(legacy: Plan, modern: Plan, rung: str, fault: str) -> None:
    assert fault in " ".join(compared(legacy, modern).pair.rung(rung).faults)


def test_a_gradient_that_the_code_does_not_show_is_noted() -> None:
    found = compared(Plan(hides=("gradients",)), Plan())
    assert found.pair.rung("gradient").notes == [
        "phase train: the legacy side's code shows no gradients; rung 6 holds what they do"
    ]


def test_an_output_without_a_partner_is_lacking() -> None:
    found = meter()
    with Store() as store:
        side = Side(FakeProgram(), "legacy")
        still = observe(side, store, side.state().arrays, fake.batches(0), 0)
        compare_stills(found, still, still, ("train",), (), {})
        assert "no output of the modern side has a partner" in found.pair.rung("forward").missing[0]
        compare_stills(found, still, still, ("train",), (("prediction", "logits"),), {})
        assert "output logits was not computed" in found.pair.rung("forward").missing
        other = meter()
        compare_stills(other, still, still, ("train",), (("output/BiasAdd", "prediction"),), {})
        assert other.pair.rung("forward").compared == 1 and not other.pair.rung("forward").missing


def test_long_lists_are_cut() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(iter("abcde")) == "a, b, c and 2 more"
