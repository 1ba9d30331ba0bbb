"""A whole check of programs in numpy: every rung can fail and can hold, and what is given is left as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, HeavyProgram, Layer, Phase, Plan
from tfport.checking.bounds import Sample
from tfport.checking.check import _constants_alone, _wholly_double, check
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.measure import Meter
from tfport.checking.observe import Still, keep_nodes
from tfport.checking.report import CheckReport
from tfport.checking.store import Store
from tfport.equivalence.measurement import PairMeasurement
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, PairResult, RungResult, Verdict
from tfport.errors import UserError
from tfport.program import Node
from tfport.state import State

pytestmark = pytest.mark.usefixtures("no_frameworks")
STEPS = 4
TWO = Plan(optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES)
WRITTEN: dict[str, Any] = {"reordered": True, "powers": "pow"}
"""Another way to write the same."""
RULES = {"sgd": fake.SGD, "momentum": fake.MOMENTUM, "adam": fake.ADAM}


def trained_by(rule: str) -> Plan:
    return Plan(optimizers=(RULES[rule],), phases=(Phase("train", rule, ("hidden", "output")),))


def checked(legacy: Any, modern: Any, **how: Any) -> CheckReport:
    return check(legacy, modern, how.pop("batches", fake.batches), **{"steps": STEPS, **how})


def pair(report: CheckReport) -> PairResult:
    assert report.pair is not None
    return report.pair


def failing(report: CheckReport) -> dict[str, str]:
    return {rung.rung: str(rung.verdict) for rung in pair(report).rungs if not rung.verdict.equal}


def told(report: CheckReport, rung: str) -> str:
    return " | ".join(pair(report).rung(rung).findings)


@cache
def sound(both: bool = True) -> CheckReport:
    """A port that is written otherwise, from sides that have both precisions or one."""
    kind = fake.factory if both else fake.single
    return checked(kind(), kind(**WRITTEN))


# --- Rungs ------------------------------------------------------------------------------------------------------------
def test_every_rung_holds_for_the_same_program() -> None:
    report = checked(fake.factory(), fake.factory())
    assert report.equal and report.rounding_by == "" and report.notes == ()
    verdicts = {rung.rung: rung.verdict for rung in pair(report).rungs}
    assert verdicts == {**dict.fromkeys(RUNGS, Verdict.IDENTICAL), "initialisation": Verdict.SAME_DISTRIBUTION}
    assert all(rung.compared for rung in pair(report).rungs)
    assert told(report, "initialisation").startswith("2 drawn and ")


def test_every_rung_holds_for_the_same_written_otherwise() -> None:
    report = sound()
    assert report.equal and report.rounding_by == "float64"
    assert {rung.verdict for rung in pair(report).rungs[FIRST_NUMERICAL:]} <= {Verdict.IDENTICAL, Verdict.ROUNDING}
    assert pair(report).verdict is Verdict.ROUNDING


def test_every_rung_holds_for_two_phases() -> None:
    report = checked(fake.factory(TWO), fake.factory(TWO, **WRITTEN))
    assert report.equal, failing(report)
    assert [(one.legacy, one.modern, one.legacy_optimizers) for one in report.phases] == [
        ("first", "first", ("sgd",)),
        ("second", "second", ("adam",)),
    ]


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "another algorithm": ("structure", {"algorithm_told": "AdamW"}),
    "another dtype": ("structure", {"told": {"output/bias": {"dtype": "float16"}}}),
    "another deviation": ("initialisation", {"stddev": 25.0}),
    "another constant": ("initialisation", {"bias": 0.25}),
    "another activation": ("forward", {"layers": (Layer("hidden", 4, 6, "sigmoid"), fake.LAYERS[1])}),
    "half the digits": ("forward", {"half_precision": "output"}),
    "another loss": ("loss", {"loss_factor": 1.5, "gradient_factor": 1 / 1.5}),
    "no loss reported": ("loss", {"reports": "nan"}),
    "the loss after the update": ("loss", {"reports": "after"}),
    "another gradient": ("gradient", {"gradient_factor": 1.001}),
    "no gradient": ("gradient", {"no_gradient": ("hidden/bias",)}),
    "another rate": ("update", {"rate_factor": 1.01}),
    "another count": ("update", {"miscount": 1}),
    "a frozen variable": ("update", {"frozen": ("output/bias",)}),
    "a leaking variable": ("update", {"leak": ("hidden/kernel",)}),
    "a slip in a step": ("forced_trajectory", {"slips_at": 3}),
    "memory beside the state": ("free_trajectory", {"remembers": True}),
}


@pytest.mark.parametrize(("rung", "changes"), FAULTS.values(), ids=FAULTS)
def test_a_fault_fails_its_rung_and_none_below(rung: str, changes: dict[str, Any]) -> None:
    report = checked(fake.factory(), fake.factory(**WRITTEN, **changes))
    assert not report.equal
    assert next(iter(failing(report))) == rung, failing(report)
    if RUNGS.index(rung) >= FIRST_NUMERICAL:
        assert pair(report).located == rung
        first = pair(report).rung(rung).first_divergence
        assert first is None or set(first.held_before) == set(RUNGS[: RUNGS.index(rung)])


ASKED_ALONE: dict[str, tuple[Any, dict[str, Any]]] = {
    "equal, by float64": (fake.factory, {}),
    "equal, by the envelope": (fake.single, {}),
    "another rate": (fake.factory, {"rate_factor": 1.01}),
    "another rate, by the envelope": (fake.single, {"rate_factor": 1.01}),
    "a constant in float32": (fake.factory, {"constant": 0.1, "rounded_constant": True}),
    "memory beside the state": (fake.factory, {"remembers": True}),
}


@pytest.mark.parametrize(("made", "changes"), ASKED_ALONE.values(), ids=ASKED_ALONE)
def test_a_rung_that_is_asked_alone_ends_as_in_the_whole(made: Any, changes: dict[str, Any]) -> None:
    legacy = {"constant": 0.1} if "constant" in changes else {}
    sides = made(**legacy), made(**WRITTEN, **changes)
    whole = {rung.rung: (rung.verdict, rung.float64_relative) for rung in pair(checked(*sides)).rungs}
    for name in RUNGS[1:]:
        alone = pair(checked(*sides, rungs=(name,)))
        assert {rung.rung for rung in alone.rungs} == {"repeat", name}
        assert (alone.rung(name).verdict, alone.rung(name).float64_relative) == whole[name], name


def test_a_legacy_side_that_does_not_repeat_itself_fails_rung_0() -> None:
    wild: dict[str, Any] = {"dropout": 0.5, "uncontrolled": True}
    report = checked(fake.factory(**wild), fake.factory())
    assert failing(report)["repeat"] == "different" and "two runs from one state differ" in told(report, "repeat")


def test_a_step_that_is_not_its_phases_in_order_fails() -> None:
    report = checked(fake.factory(TWO), fake.factory(TWO, simultaneous=True))
    assert "update" in failing(report)
    first = pair(report).rung("update").first_divergence
    assert first is not None and first.tensor.startswith("step/")
    assert report.location is not None and "each phase leaves the same" in report.location.text
    assert "what one phase hands the next" in report.location.text


def test_phases_in_another_order_are_the_place() -> None:
    turned = dataclasses.replace(TWO, phases=TWO.phases[::-1])
    report = checked(fake.factory(TWO), fake.factory(turned))
    assert report.location is not None and pair(report).located == "update"
    assert "The original runs first, then second, and the port second, then first." in report.location.text


def test_a_forward_pass_that_changes_the_state_fails_rung_6() -> None:
    report = checked(fake.factory(), fake.factory(dirty="output/bias"))
    assert "changed output/bias" in told(report, "update")


def test_the_first_divergence_is_a_place_with_both_values() -> None:
    report = checked(fake.factory(), fake.factory(leak=("output/bias",), bias=0.25))
    assert failing(report)["initialisation"] == "different"
    first = pair(checked(fake.factory(bias=0.25), fake.factory(leak=("output/bias",), bias=0.25))).rung("update")
    assert first.first_divergence is not None
    assert (first.first_divergence.tensor, first.first_divergence.step) == ("train/output/bias", 0)
    assert first.first_divergence.modern == pytest.approx(0.99 * first.first_divergence.legacy)


# --- Rounding ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
def test_without_float64_the_envelope_lets_an_equal_port_pass(rule: str) -> None:
    report = checked(fake.single(trained_by(rule)), fake.single(trained_by(rule), **WRITTEN), steps=12)
    assert report.equal, failing(report)
    assert report.rounding_by == "envelope"
    assert "is built in float32" in report.no_float64


BROKEN: dict[str, dict[str, Any]] = {
    "a rate 1% larger": {"rate_factor": 1.01},
    "a rate 0.1% smaller": {"rate_factor": 0.999},
    "a gradient 0.1% larger": {"gradient_factor": 1.001},
    "a variable that shrinks": {"leak": ("hidden/kernel",)},
    "another activation": {"layers": (Layer("hidden", 4, 6, "sigmoid"), fake.LAYERS[1])},
    "inputs 0.01% larger": {"constant": 1.0001},
    "half the digits": {"half_precision": "hidden"},
    "a slip in a step": {"slips_at": 3},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_without_float64_the_envelope_lets_no_broken_port_pass(rule: str, changes: dict[str, Any]) -> None:
    report = checked(fake.single(trained_by(rule)), fake.single(trained_by(rule), **WRITTEN, **changes))
    assert not report.equal and report.rounding_by == "envelope"


def test_a_beta_power_that_is_a_step_ahead_fails_with_and_without_float64() -> None:
    for kind in (fake.factory, fake.single):
        report = checked(kind(), kind(power_offset=1))
        assert next(iter(failing(report))) == "update"


@pytest.mark.parametrize("kind", [fake.factory, fake.single])
def test_beta_powers_by_multiplication_and_by_pow_are_one(kind: Any) -> None:
    report = checked(kind(), kind(powers="pow"), steps=15)
    assert report.equal, failing(report)


def test_one_side_without_float64_is_enough_for_the_envelope() -> None:
    for legacy, modern in ((fake.factory(), fake.single(**WRITTEN)), (fake.single(), fake.factory(**WRITTEN))):
        report = checked(legacy, modern)
        assert report.equal and report.rounding_by == "envelope"


def test_a_side_that_computes_a_part_in_float32_is_no_float64() -> None:
    report = checked(fake.factory(), fake.factory(**WRITTEN, single_node="hidden"))
    assert report.equal and report.rounding_by == "envelope"
    assert "the modern side computes hidden/BiasAdd (BiasAdd) in float32" in report.no_float64
    report = checked(fake.factory(single_node="hidden"), fake.factory(**WRITTEN))
    assert "the legacy side computes hidden/BiasAdd" in report.no_float64


def test_rounding_shrinks_in_float64_and_a_fault_does_not() -> None:
    rungs = pair(sound()).rungs[FIRST_NUMERICAL:]
    assert all(rung.float32_relative for rung in rungs if rung.rung != "loss")
    assert all((rung.float64_relative or 0) < 1e-12 for rung in rungs)
    broken = pair(checked(fake.factory(), fake.factory(rate_factor=1 + 1e-5))).rung("update")
    assert broken.verdict is Verdict.DIFFERENT
    assert broken.float64_relative == pytest.approx(broken.float32_relative or 0, rel=0.2)
    assert (broken.shrink or 0) > 2**20


def test_a_constant_that_one_side_rounds_to_float32_is_no_difference() -> None:
    report = checked(fake.factory(constant=0.1), fake.factory(constant=0.1, rounded_constant=True, **WRITTEN))
    assert report.equal, failing(report)
    assert report.rounding_by == "envelope"
    assert any("rounds to float32" in note for note in report.notes)


@pytest.mark.parametrize(("objective", "explained"), [(2e-9, True), (0.0, False), (1e-6, False)])
def test_what_an_update_makes_of_a_rounded_constant_in_the_loss_may_be_larger(
    objective: float, explained: bool
) -> None:
    single, double = (Meter(PairMeasurement("legacy", "modern"), dtype) for dtype in ("float32", "float64"))
    double.add("loss", "train/objective", 1.0, 1.0 + objective, 0, "train")
    double.add("gradient", "train/w", np.ones(3), np.full(3, 1 + 3e-7), 0, "train")
    failed = RungResult("gradient", Verdict.DIFFERENT)
    found = _constants_alone(PairResult("legacy", "modern", Verdict.DIFFERENT, (failed,)), single, double)
    assert bool(found) == explained


def test_float64_can_be_asked_for() -> None:
    report = checked(fake.factory(), fake.factory(**WRITTEN), precision="float64")
    assert report.equal and report.precision == "float64" and report.rounding_by == "float64"
    assert (pair(report).rung("forward").max_abs or 0) < 1e-12
    assert not checked(fake.factory(), fake.factory(rate_factor=1.01), precision="float64").equal
    with pytest.raises(UserError, match=r"--precision=float64 is not available: .* is built in float32"):
        checked(fake.factory(), fake.single(), precision="float64")


# --- Phases, names, shapes --------------------------------------------------------------------------------------------
def renamed(plan: Plan, *names: str) -> Plan:
    return replace(plan, phases=tuple(replace(one, name=name) for one, name in zip(plan.phases, names, strict=True)))


def test_phases_are_paired_by_name_whatever_the_order_they_are_listed_in() -> None:
    report = checked(fake.factory(TWO), fake.factory(TWO, **WRITTEN))
    assert [(one.legacy, one.modern) for one in report.phases] == [("first", "first"), ("second", "second")]
    swapped = replace(TWO, phases=tuple(reversed(TWO.phases)))
    report = checked(fake.factory(TWO), fake.factory(swapped))
    assert [(one.legacy, one.modern) for one in report.phases] == [("first", "first"), ("second", "second")]
    assert not report.equal and "the phases are" in told(report, "structure")


def test_phases_with_other_names_are_paired_in_order_and_told() -> None:
    report = checked(fake.factory(TWO), fake.factory(renamed(TWO, "d_step", "g_step"), **WRITTEN))
    assert report.equal, failing(report)
    assert any("first is d_step, second is g_step" in note for note in report.notes)
    assert set(report.curves["modern"]) == {"first", "second"}


@pytest.mark.parametrize("more", ["legacy", "modern"])
def test_another_number_of_phases_fails(more: str) -> None:
    one = replace(TWO, phases=TWO.phases[:1])
    sides = (TWO, one) if more == "legacy" else (one, TWO)
    report = checked(*(fake.factory(side) for side in sides))
    assert not report.equal
    assert "the phases are first" in told(report, "structure")


def test_other_names_for_everything_change_nothing() -> None:
    names = {"hidden/kernel": "Variable", "hidden/bias": "Variable_1", "output/kernel": "w", "output/bias": "b"}
    optimizers = ("opt", *fake.ADAM[1:])
    plan = Plan(
        names=names,
        optimizers=(optimizers,),
        phases=(Phase("fit", "opt", ("hidden", "output")),),
        output="y_hat",
        inputs=("inputs", "targets"),
        scope="model/",
        phase_optimizers_told=False,
    )
    report = checked(fake.factory(), fake.factory(plan, **WRITTEN))
    assert report.equal, (failing(report), told(report, "structure"))
    assert report.outputs == (("prediction", "y_hat"),)


def test_outputs_are_paired_by_what_they_hold() -> None:
    plan = Plan(layers=(Layer("hidden", 4, 2, "tanh"), Layer("output", 2, 2)))
    legacy = fake.factory(plan, shows={"logits": "output", "features": "hidden"})
    for names in (("a", "b"), ("logits", "features")):
        report = checked(legacy, fake.factory(plan, shows={names[0]: "hidden", names[1]: "output"}))
        assert report.outputs == (("features", names[0]), ("logits", names[1]))
        assert report.equal
    report = checked(legacy, fake.factory(plan, shows={"logits": "output"}))
    assert report.outputs == (("logits", "logits"),)
    report = checked(fake.factory(plan), fake.factory(plan, shows={"prediction": "output", "features": "hidden"}))
    assert ("hidden/Tanh", "features") in report.outputs and report.equal


def test_a_layer_of_another_width_cannot_be_compared() -> None:
    wider = Plan(layers=(Layer("hidden", 4, 7, "tanh"), Layer("output", 7, 2)))
    report = checked(fake.factory(), fake.factory(wider))
    assert not report.equal and pair(report).verdict is Verdict.NOT_COMPARABLE
    assert set(report.unmatched_legacy) == {"hidden/kernel", "hidden/bias", "output/kernel"}
    assert "hidden/kernel (4, 6) is missing on the modern side" in told(report, "structure")


def test_another_optimizer_fails_rung_1_and_is_no_crash() -> None:
    report = checked(fake.factory(trained_by("momentum")), fake.factory(trained_by("sgd")))
    assert not report.equal and "structure" in failing(report)


def test_hyperparameters_are_compared_as_float32() -> None:
    close = ("adam", "Adam", {**fake.ADAM[2], "beta_2": float(np.float32(0.999))})
    assert checked(fake.factory(), fake.factory(optimizers=(close,))).equal
    other = ("adam", "Adam", {**fake.ADAM[2], "epsilon": 1e-8})
    report = checked(fake.factory(), fake.factory(optimizers=(other,)))
    assert "epsilon is 1" in told(report, "structure") and failing(report)["structure"] == "different"


def test_a_number_that_one_side_lacks_is_zero_or_not_comparable() -> None:
    plan, numbers = trained_by("sgd"), fake.SGD[2]
    assert checked(fake.factory(plan), fake.factory(plan, numbers_told={**numbers, "weight_decay": 0.0})).equal
    report = checked(fake.factory(plan, numbers_told={**numbers, "beta": 0.1}), fake.factory(plan))
    assert failing(report) == {"structure": "not_comparable"}
    assert "beta is known on one side only" in told(report, "structure")


def test_a_rate_that_one_side_does_not_tell_is_left_to_rung_6() -> None:
    plan = trained_by("sgd")
    report = checked(fake.factory(plan), fake.factory(plan, numbers_told={}))
    assert report.equal and "learning rate is fed or unknown on one side" in told(report, "structure")
    report = checked(fake.factory(plan), fake.factory(plan, numbers_told={}, rate_factor=1.01))
    assert next(iter(failing(report))) == "update"


# --- Random numbers ---------------------------------------------------------------------------------------------------
def test_both_sides_are_fed_the_same_random_numbers() -> None:
    plan = Plan(dropout=0.5, noise=0.1)
    report = checked(fake.factory(plan), fake.factory(renamed(plan, "fit"), **WRITTEN))
    assert report.equal, failing(report)
    assert {(row.side, row.name, row.controlled) for row in report.draws} == {
        (side, name, True) for side in ("legacy", "modern") for name in ("noise/normal", "dropout/uniform")
    }


def test_programs_with_seeds_of_their_own_are_fed_the_same_numbers_too() -> None:
    sides = [FakeProgram(Plan(dropout=0.5)), FakeProgram(Plan(dropout=0.5))]
    for number, program in enumerate(sides):
        program.draws.seed = number
    assert checked(*sides).equal
    assert [program.draws.seed for program in sides] == [0, 1]


def test_another_rate_of_dropout_fails_in_training_alone() -> None:
    report = checked(fake.factory(dropout=0.5), fake.factory(dropout=0.4))
    first = pair(report).rung("forward").first_divergence
    assert first is not None and first.tensor == "training/prediction"


def test_random_numbers_that_cannot_be_fed_make_the_rest_not_comparable_and_are_named() -> None:
    wild: dict[str, Any] = {"dropout": 0.5, "uncontrolled": True}
    report = checked(fake.factory(dropout=0.5), fake.factory(**wild))
    assert not report.equal and pair(report).verdict is Verdict.NOT_COMPARABLE
    assert {name for name, verdict in failing(report).items() if verdict == "not_comparable"} >= {
        "forward",
        "loss",
        "gradient",
        "update",
    }
    assert "hidden/kernel depends on random numbers that cannot be fed" in told(report, "update")
    row = next(row for row in report.draws if not row.controlled)
    assert (row.side, row.name, row.kind, row.reason) == (
        "modern",
        "dropout/uniform",
        "uniform",
        "its generator is its own",
    )


# --- Bounds -----------------------------------------------------------------------------------------------------------
def test_bounds_are_read() -> None:
    assert Sample.parse("steps:5") == Sample(5) and Sample.parse("tensors:20,steps:5") == Sample(5, 20)


@pytest.mark.parametrize(
    "text", ["", "5", "steps", "steps:", "steps:0", "steps:-1", "steps:x", "steps:1,steps:2", "a:1"]
)
def test_bounds_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--sample=.*expected steps:N, tensors:N or both"):
        Sample.parse(text)
    if text:
        with pytest.raises(UserError, match="--sample="):
            checked(fake.factory(), fake.factory(), sample=text)


def test_a_bound_on_steps_leaves_states_out_and_says_so() -> None:
    report = checked(fake.factory(), fake.factory(slips_at=3), steps=5, sample="steps:2")
    assert report.left_out == ("the states of 3 of 5 steps (--sample)",)
    assert "forced_trajectory" not in failing(report)  # step 2 was not looked at
    assert failing(report) == {"free_trajectory": "different", "resume": "different"}
    assert "forced_trajectory" in failing(checked(fake.factory(), fake.factory(slips_at=3), steps=5, sample="steps:5"))


def test_a_bound_on_tensors_leaves_variables_out_and_says_so() -> None:
    report = checked(fake.factory(), fake.factory(**WRITTEN), sample=Sample(tensors=2))
    assert report.equal, failing(report)
    assert report.left_out == ("2 of 4 variables, with their slots and gradients (--sample)",)
    whole = pair(sound())
    for rung, kept in (("gradient", 0.5), ("forward", 1.0)):
        assert pair(report).rung(rung).compared == kept * whole.rung(rung).compared


def test_what_is_broken_in_the_sample_is_found() -> None:
    report = checked(fake.factory(), fake.factory(leak=("output/bias",)), sample="tensors:2")
    assert "update" in failing(report)
    report = checked(fake.factory(), fake.factory(layers=FAULTS["another activation"][1]["layers"]), sample="tensors:1")
    assert failing(report)["forward"] == "different"


def test_rungs_can_be_chosen() -> None:
    asked = ("structure", "forward", "update")
    report = checked(fake.factory(), fake.factory(), rungs=asked)
    assert report.equal and [rung.rung for rung in pair(report).rungs] == ["repeat", *asked]
    broken = fake.factory(rate_factor=1.01)
    assert checked(fake.factory(), broken, rungs=("structure", "forward", "gradient")).equal
    assert not checked(fake.factory(), broken, rungs=("update",)).equal
    assert checked(fake.factory(), fake.factory(remembers=True), rungs=RUNGS[:8]).equal
    assert not checked(fake.factory(), fake.factory(remembers=True), rungs=("free_trajectory",)).equal


@pytest.mark.parametrize("rungs", [("everything",), ("forward", "updates"), ()])
def test_rungs_that_are_none_are_refused(rungs: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="rung"):
        checked(fake.factory(), fake.factory(), rungs=rungs)


# --- What cannot be used ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", ["legacy", "modern"])
def test_weights_that_are_not_numbers_are_refused(side: str) -> None:
    sides = {"legacy": fake.factory(), "modern": fake.factory(), side: fake.factory(not_a_number="output/kernel")}
    with pytest.raises(UserError, match=f"the {side} side's output/kernel holds NaN or infinity before any step"):
        checked(sides["legacy"], sides["modern"])
    with pytest.raises(UserError, match="the modern side's output/kernel holds NaN"):
        checked(None, fake.factory(not_a_number="output/kernel"))


def test_batches_that_are_not_numbers_are_refused() -> None:
    bad = {**fake.batches(0), "x": np.full((5, 4), np.nan, np.float32)}
    with pytest.raises(UserError, match="x holds NaN or infinity"):
        checked(fake.factory(), fake.factory(), batches=bad)
    with pytest.raises(UserError, match=r"batch 3 of .*x holds NaN"):
        checked(fake.factory(), fake.factory(), batches=lambda step: bad if step == 3 else fake.batches(step))


def test_an_entry_of_a_batch_that_feeds_nothing_is_refused_and_the_inputs_are_named() -> None:
    def spare(step: int) -> dict[str, Any]:
        return {**fake.batches(step), "weights": np.ones(5, np.float32)}

    with pytest.raises(UserError, match=r"batch's weights feeds no input; the inputs are legacy: x, y; modern: x, y"):
        check(fake.plain, fake.plain, spare, steps=2)
    with pytest.raises(UserError, match=r"batch's weights feeds no input; the inputs are modern: x, y"):
        check(None, fake.plain, spare, steps=2)


class _Weighted(FakeProgram):
    """Has a use for weights where there are some."""

    def may_take(self, name: str) -> bool:
        return name == "weights"


def test_an_entry_that_feeds_one_side_alone_is_told() -> None:
    report = check(
        fake.plain, lambda: _Weighted(), lambda n: {**fake.batches(n), "weights": np.ones(5, np.float32)}, steps=2
    )
    assert report.equal
    assert "the batch's weights feeds no input of the legacy side" in report.notes


def test_a_batch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"legacy side's input"):
        checked(fake.factory(), fake.factory(), batches={"x": fake.batches(0)["x"]})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"steps": 0}, "--steps=0 is out of range"),
        ({"seed": -1}, "--seed=-1 is out of range"),
        ({"precision": "float16"}, "--precision=float16 is neither"),
    ],
)
def test_numbers_out_of_range_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(fake.factory(), fake.factory(), **how)


def test_a_factory_that_raises_or_gives_something_else_is_told() -> None:
    def raising() -> FakeProgram:
        raise ZeroDivisionError("no such layer")

    with pytest.raises(UserError, match=r"the modern factory .*raising raised ZeroDivisionError: no such layer"):
        checked(fake.factory(), raising)
    with pytest.raises(UserError, match=r"the legacy factory .* returned int"):
        checked(lambda: 3, fake.factory())
    with pytest.raises(UserError, match="nothing to check"):
        check(fake.factory(), None, fake.batches)


# --- Ways to give a side ----------------------------------------------------------------------------------------------
def test_programs_are_put_back_as_they_were() -> None:
    legacy, modern = FakeProgram(seed=1), FakeProgram(Plan(**WRITTEN), seed=2)
    for program in (legacy, modern):
        program.step(fake.batches(9))
        program.draws.seed, program.draws.step, program.draws.aliases = 77, 5, {"train": "x"}
    before = [program.state().digest() for program in (legacy, modern)]
    assert checked(legacy, modern).equal
    assert [program.state().digest() for program in (legacy, modern)] == before
    for program in (legacy, modern):
        assert (program.draws.seed, program.draws.step, program.draws.aliases) == (77, 5, {"train": "x"})
        assert program.plan.close_calls == []


class _Unbuilt(FakeProgram):
    """Has its slots once it has been prepared, as a Keras model has."""

    built = False

    def prepare(self, batch: Any) -> None:
        self.built = True

    def state(self) -> State:
        state = super().state()
        slots = self.built or not hasattr(self, "counts")
        return State("", {name: each for name, each in state.arrays.items() if slots or "/m/" not in name})


def test_a_program_that_is_whole_once_it_has_seen_a_batch_is_put_back_too() -> None:
    program = _Unbuilt(seed=1)
    weights = FakeProgram(seed=1).state().digest()
    assert checked(fake.factory(), program).equal
    assert State("fake", program.state().arrays).digest() == weights


def test_a_program_is_put_back_even_when_the_check_raises() -> None:
    program = FakeProgram()
    before = program.state().digest()
    with pytest.raises(UserError, match="NaN"):
        checked(program, fake.factory(not_a_number="output/bias"))
    assert program.state().digest() == before
    with pytest.raises(UserError, match="NaN"):
        checked(None, program, batches=lambda step: {**fake.batches(0), "x": np.full((5, 4), [np.nan, 1][step < 2])})
    assert program.state().digest() == before


def test_one_program_can_be_both_sides() -> None:
    program = FakeProgram(seed=3)
    before = program.state().digest()
    report = checked(program, program)
    assert report.equal and pair(report).verdict is Verdict.IDENTICAL
    assert program.state().digest() == before


def test_what_a_factory_builds_is_closed() -> None:
    calls: list[str] = []
    built: list[FakeProgram] = []

    def build(dtype: str = "float32", seed: int = 0) -> FakeProgram:
        built.append(FakeProgram(Plan(close_calls=calls), dtype, seed))
        return built[-1]

    assert checked(build, build).equal
    assert len(built) >= 2 and len(calls) == len(built)


def test_a_program_that_cannot_draw_its_weights_again_is_not_asked_rung_2() -> None:
    report = checked(FakeProgram(Plan(reinitialised=False)), FakeProgram())
    assert report.equal and "initialisation" not in {rung.rung for rung in pair(report).rungs}
    assert any("rung 2 was not run" in note for note in report.notes)


def test_what_the_code_does_not_show_is_left_to_other_rungs() -> None:
    hidden = ("loss", "gradients")
    report = checked(fake.factory(hides=hidden), fake.factory(hides=hidden, **WRITTEN))
    assert report.equal, failing(report)
    assert "gradient" not in {rung.rung for rung in pair(report).rungs}
    assert any("shows no gradients" in note for note in report.notes)
    broken = checked(fake.factory(hides=hidden), fake.factory(hides=hidden, rate_factor=1.01))
    assert "update" in failing(broken)


@pytest.mark.parametrize(
    ("rung", "plan", "why"),
    [
        ("initialisation", Plan(reinitialised=False), "cannot be run again"),
        ("gradient", Plan(hides=("loss", "gradients")), "shows no gradients"),
    ],
)
def test_a_rung_that_is_asked_by_name_and_compares_nothing_does_not_hold(rung: str, plan: Plan, why: str) -> None:
    report = checked(FakeProgram(plan), FakeProgram(plan), rungs=(rung,))
    assert failing(report) == {rung: "not_comparable"}
    assert why in told(report, rung)
    assert not report.equal


@pytest.mark.parametrize(
    "how",
    [
        {"steps": 1},
        {"steps": 1, "rungs": ("free_trajectory", "resume")},
        {"batches": fake.batches(0)},
        {"batches": [fake.batches(0)]},
        {"rungs": ("repeat",)},
        {"rungs": ("structure",)},
        {"rungs": ("update",), "sample": "steps:1,tensors:1"},
        {"rungs": ("forced_trajectory", "loss"), "sample": "tensors:2"},
        {"rungs": ("resume",), "sample": "steps:1"},
    ],
    ids=str,
)
def test_small_questions_have_answers(how: dict[str, Any]) -> None:
    how = dict(how)
    asked = {"repeat", *how.get("rungs", RUNGS)}
    sound = checked(fake.factory(), fake.factory(**WRITTEN), **how)
    assert sound.equal, failing(sound)
    assert {rung.rung for rung in pair(sound).rungs} == asked
    assert all(rung.compared for rung in pair(sound).rungs)
    broken = checked(fake.factory(), fake.factory(**WRITTEN, rate_factor=1.5, bias=0.25), **how)
    assert broken.equal is (asked <= {"repeat", "structure", "initialisation", "forward", "loss", "gradient"})


def test_outputs_that_are_not_numbers_are_equal_to_nothing() -> None:
    report = checked(fake.factory(constant=float("nan")), fake.factory(constant=float("nan")))
    assert "forward" in failing(report)


def test_a_program_that_trains_nothing_is_compared_in_the_rest() -> None:
    still: dict[str, Any] = {"frozen": ("hidden/kernel", "hidden/bias", "output/kernel", "output/bias")}
    assert checked(fake.factory(**still), fake.factory(**still, **WRITTEN)).equal
    report = checked(fake.factory(**still), fake.factory(**WRITTEN))
    assert "update" in failing(report)


def test_sides_and_batches_can_be_named_in_text() -> None:
    report = check("fake_program:plain", "fake_program:plain", "fake_program:batches", steps=2, isolated=False)
    assert report.equal
    assert (report.legacy, report.modern) == ("fake_program:plain", "fake_program:plain")
    assert report.batches == "fake_program:batches: x (5, 4) float32, y (5, 2) float32"


def test_a_side_that_needs_keras_2_is_started_with_it() -> None:
    given = "check_sides:of_keras2", "check_sides:modern", "check_sides:batches"
    report = check(*given, steps=2)
    assert report.equal
    assert "the legacy side needs Keras 2 and was started with TF_USE_LEGACY_KERAS=1" in report.notes
    with pytest.raises(UserError, match="Set TF_USE_LEGACY_KERAS=1 before Python starts"):
        check(*given, steps=2, isolated=False)


def test_batches_are_made_up_where_none_are_given() -> None:
    report = checked(fake.factory(), fake.factory(), batches=None)
    assert report.equal and any("made up" in note for note in report.notes)


# --- The report -------------------------------------------------------------------------------------------------------
def test_a_report_is_json_and_says_what_was_done() -> None:
    for report in (
        sound(),
        checked(fake.factory(), fake.factory(reports="nan")),
        check(None, fake.factory(), fake.batches),
    ):
        tree = json.loads(json.dumps(report.as_json(), allow_nan=False))
        assert tree["equal"] is report.equal and tree["schema"] == 1
    report = sound()
    assert {side: {phase: len(curve) for phase, curve in curves.items()} for side, curves in report.curves.items()} == {
        "legacy": {"train": STEPS},
        "modern": {"train": STEPS},
    }
    assert (report.steps, report.seed, report.legacy_kind) == (STEPS, 0, "numpy program")
    assert report.tolerance is not None and 0 < report.tolerance < 1e-4
    assert report.seconds["total"] > 0 and "numpy" in report.versions
    assert [row.phase for row in report.movements] == ["train", "train"]


def test_the_same_check_gives_the_same_report() -> None:
    one, other = (checked(fake.single(), fake.single(**WRITTEN), steps=2).as_json() for _ in range(2))
    for tree in (one, other):
        del tree["seconds"]
    assert one == other


# --- Memory -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reordered", [False, True], ids=["the same", "by the envelope"])
def test_a_check_holds_about_one_copy_of_a_large_model(reordered: bool) -> None:
    assert sound(False).equal  # what is imported on the way is no copy
    legacy, modern = HeavyProgram(400), HeavyProgram(400, reordered=reordered)
    batch = {"x": np.random.default_rng(0).standard_normal((2, legacy.width), np.float32)}
    gc.collect()
    tracemalloc.start()
    try:
        report = check(legacy, modern, batch, steps=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    measured = f"a check of {legacy.bytes / 1e6:.1f} MB of weights held {peak / 1e6:.1f} MB at its peak"
    assert report.equal, failing(report)
    assert report.rounding_by == ("envelope" if reordered else "")
    assert peak < 1.35 * legacy.bytes, measured


# --- What may be float32 in a float64 run -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "source", "shown", "fits"),
    [
        ("Cast", np.array([0, 2, 1]), np.array([0, 2, 1], np.float32), True),
        ("Cast", np.array([True, False]), np.array([1, 0], np.float32), True),
        ("Cast", np.array([0.1, 2.0]), np.array([0.1, 2.0], np.float32), False),
        ("Cast", np.array([1 - 1e-12, 2.0]), np.array([1.0, 2.0], np.float32), False),
        ("Tanh", np.array([40.0]), np.array([1.0], np.float32), False),
        ("Tanh", np.array([40.0]), np.array([1.0]), True),
    ],
)
def test_whole_numbers_may_be_float32(kind: str, source: Any, shown: Any, fits: bool) -> None:
    with Store() as store:
        nodes = [Node("source", "Placeholder", (), (), source), Node("shown", kind, ("source",), (), shown)]
        still = Still(0, store.keep({}), inputs=store.keep({}), nodes={"inference": keep_nodes(store, nodes)})
        with contextlib.nullcontext() if fits else pytest.raises(NoSuchPrecision, match="computes shown"):
            _wholly_double([still], "modern")
