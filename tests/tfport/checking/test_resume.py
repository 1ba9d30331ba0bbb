"""Rung 9 of a check: what a port keeps outside its variables is found, and told from what other rungs find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, Phase, Plan
from tfport.checking.bounds import resume_step
from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.equivalence.result import RUNGS, RungResult, Verdict
from tfport.state import State, iterations_name

pytestmark = pytest.mark.usefixtures("no_frameworks")
STEPS = 6
RULES = {"momentum": fake.MOMENTUM, "adam": fake.ADAM}
WRITTEN: dict[str, Any] = {"reordered": True, "powers": "pow"}
OUTSIDE = "the modern side keeps something outside its variables (a counter in Python"


@pytest.fixture(autouse=True)
def _nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "_SHARED", {})


def trained_by(rule: str, **changes: Any) -> Plan:
    return Plan(optimizers=(RULES[rule],), phases=(Phase("train", rule, ("hidden", "output")),), **changes)


def checked(legacy: Any, modern: Any, **how: Any) -> CheckReport:
    return check(legacy, modern, fake.batches, **{"steps": STEPS, **how})


def failing(report: CheckReport) -> dict[str, str]:
    assert report.pair is not None
    return {rung.rung: str(rung.verdict) for rung in report.pair.rungs if not rung.verdict.equal}


def resumed(report: CheckReport) -> RungResult:
    assert report.pair is not None
    return report.pair.rung("resume")


def test_the_step_is_odd_and_at_or_below_the_middle() -> None:
    assert [resume_step(steps) for steps in range(1, 13)] == [0, 1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5]
    assert resume_step(20) == 9 and resume_step(100) == 49


# --- What passes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", [fake.factory, fake.single], ids=["float64", "envelope"])
def test_a_correct_port_resumes(kind: Callable[..., Any], steps: int) -> None:
    report = checked(kind(restarts="count"), kind(restarts="count", **WRITTEN), steps=steps)
    assert report.equal, failing(report)
    rung = resumed(report)
    assert rung.verdict is Verdict.ROUNDING and rung.compared and not rung.findings
    same = resumed(checked(kind(), kind(), steps=steps))
    assert same.verdict is Verdict.IDENTICAL
    begin, names = resume_step(steps), len(FakeProgram().state().arrays)
    assert same.compared == names + (steps - begin) * (names + 1), "the state, then a report and the state a step"


def test_another_layout_resumes() -> None:
    laid: dict[str, Any] = {"transposed": ("hidden/kernel",), "wide": ("output/bias",), "names": {"hidden/kernel": "w"}}
    assert checked(fake.factory(), fake.factory(**laid)).equal


class _Scales(FakeProgram):
    """Keeps what its optimizer averages times three, as Keras keeps momentum times the rate."""

    def load(self, state: State) -> None:
        super().load(state)
        three = np.dtype(self.precision).type(3)
        self.slots = {key: array * three / three * three / three for key, array in self.slots.items()}
        self.slots = {key: array / three * three for key, array in self.slots.items()}


@pytest.mark.parametrize("both", [True, False], ids=["float64", "envelope"])
def test_a_last_digit_that_loading_costs_is_rounding(both: bool) -> None:
    def scales(dtype: str = "float32", seed: int = 0) -> FakeProgram:
        return _Scales(None, dtype, seed)

    def single(seed: int = 0) -> FakeProgram:
        return _Scales(None, seed=seed)

    def rounded(dtype: str = "float32", seed: int = 0) -> FakeProgram:
        return _Scales(Plan(constant=0.1, rounded_constant=True), dtype, seed)

    report = checked(fake.factory(), scales if both else single)
    assert report.equal and report.rounding_by == ("float64" if both else "envelope"), failing(report)
    assert resumed(report).verdict is Verdict.ROUNDING
    report = checked(fake.factory(constant=0.1), rounded)
    assert report.equal and report.rounding_by == "envelope", failing(report)


# --- What only this rung finds ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [fake.factory, fake.single], ids=["float64", "envelope"])
@pytest.mark.parametrize("written", [{}, WRITTEN], ids=["alike", "written otherwise"])
def test_a_counter_that_lives_in_python_is_found_by_this_rung_alone(
    kind: Callable[..., Any], rule: str, written: dict[str, Any]
) -> None:
    legacy = kind(trained_by(rule, restarts="count"))
    report = checked(legacy, kind(trained_by(rule, restarts="python", **written)))
    assert failing(report) == {"resume": "different"}
    assert report.pair is not None and report.pair.located == "resume"
    first = resumed(report).first_divergence
    assert first is not None and first.step == resume_step(STEPS)
    assert set(first.held_before) == set(RUNGS[:-1])
    told = " | ".join(resumed(report).findings)
    assert (
        OUTSIDE in told and "although the trajectory from the start agrees" in told and "legacy side does" not in told
    )
    assert report.location is not None
    assert report.location.text.startswith(f"Step {first.step}: from the legacy side's state of step {first.step} the")
    assert OUTSIDE in report.location.text
    assert checked(legacy, kind(trained_by(rule, restarts="count", **written))).equal


@pytest.mark.parametrize("kind", [fake.factory, fake.single], ids=["float64", "envelope"])
def test_a_legacy_side_that_keeps_it_outside_too_is_told(kind: Callable[..., Any]) -> None:
    report = checked(kind(restarts="python"), kind(restarts="python", **WRITTEN))
    assert failing(report) == {"resume": "different"}
    told = " | ".join(resumed(report).findings)
    assert (
        "The legacy side does not go on from its own state of that step either (first in hidden/kernel at step 3)"
        in told
    )
    assert "both keep something outside their variables" in told and OUTSIDE not in told


def test_a_counter_of_the_module_is_found_in_one_process_too() -> None:
    """The second precision, and the second pass, find it where the first left it: rung 7 of the first tells."""
    for kind in (fake.factory, fake.single):
        fake._SHARED.clear()
        report = checked(kind(restarts="count"), _begun_by_nobody(kind(restarts="shared", **WRITTEN)))
        assert failing(report) == {"resume": "different"}
        assert "step 3 does not repeat from one state" in " | ".join(resumed(report).findings)
        assert OUTSIDE in " | ".join(resumed(report).findings)


def _begun_by_nobody(build: Callable[..., FakeProgram]) -> Callable[..., FakeProgram]:
    """The factory in a process in which no program of it has run: the legacy side, run first, counts as well."""
    begun: list[bool] = []

    def factory(dtype: str = "float32", seed: int = 0) -> FakeProgram:
        if not begun:
            begun.append(True)
            fake._SHARED.clear()
        return build(dtype, seed) if dtype == "float64" else build(seed=seed)

    def single(seed: int = 0) -> FakeProgram:
        return factory("float32", seed)

    return single if "dtype" not in build.__annotations__ else factory


def test_a_program_given_as_it_is_cannot_be_built_anew_and_is_found_all_the_same() -> None:
    modern = FakeProgram(Plan(restarts="python", **WRITTEN))
    before = modern.state().digest()
    report = checked(fake.factory(restarts="count"), modern)
    assert failing(report) == {"resume": "different"}
    assert "step 3 does not repeat from one state" in " | ".join(resumed(report).findings)
    assert modern.state().digest() == before


class _Forgets(FakeProgram):
    """Takes over all but the count of steps, where it is no first one."""

    def load(self, state: State) -> None:
        name = iterations_name("adam")
        kept = min(int(state.arrays[name]), 2)
        super().load(State("", {**{each: state.arrays[each] for each in state.arrays}, name: np.array(kept, np.int64)}))


def test_what_is_lost_on_the_way_in_is_named() -> None:
    report = checked(fake.factory(), lambda: _Forgets(), steps=6, rungs=("resume",))
    assert failing(report) == {"resume": "different"}
    first = resumed(report).first_divergence
    assert first is not None
    assert (first.step, first.tensor, first.phase) == (3, "carried/optimizer/adam/iterations", None)
    assert (first.legacy, first.modern) == (3.0, 2.0)
    told = " | ".join(resumed(report).findings)
    assert "does not hold the state of step 3 once it is loaded: optimizer/adam/iterations is lost or changed" in told
    assert OUTSIDE not in told
    assert report.location is not None and "optimizer/adam/iterations is lost" in report.location.text


class _Rounds(FakeProgram):
    """Keeps what it takes over in fewer digits."""

    def load(self, state: State) -> None:
        super().load(state)
        if int(self.counts["adam"]) > 2:
            self.values["hidden/kernel"] = self.values["hidden/kernel"].astype(np.float16).astype(np.float32)


def test_what_is_rounded_on_the_way_in_is_no_rounding_of_a_computation() -> None:
    report = checked(fake.single(), lambda: _Rounds(), rungs=("resume",))
    assert failing(report) == {"resume": "different"}
    first = resumed(report).first_divergence
    assert first is not None and first.tensor == "carried/hidden/kernel"


# --- What other rungs find as well ------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{"rate_factor": 1.01}, {"slips_at": 5}, {"remembers": True}])
def test_a_fault_of_another_rung_is_not_taken_for_something_kept_outside(changes: dict[str, Any]) -> None:
    report = checked(fake.factory(), fake.factory(**WRITTEN, **changes))
    assert "resume" in failing(report)
    assert next(iter(failing(report))) != "resume"
    assert "outside" not in " | ".join(resumed(report).findings)


@pytest.mark.parametrize("kind", [fake.factory, fake.single], ids=["float64", "envelope"])
@pytest.mark.parametrize("changes", [{"rate_factor": 1.01}, {"power_offset": 1}, {"leak": ("hidden/bias",)}])
def test_asked_alone_it_finds_what_a_step_does_otherwise(kind: Callable[..., Any], changes: dict[str, Any]) -> None:
    report = checked(kind(), kind(**WRITTEN, **changes), rungs=("resume",))
    assert failing(report) == {"resume": "different"}
    assert report.location is not None and report.location.text
    assert "outside" not in report.location.text


def test_it_is_not_run_where_it_is_not_asked() -> None:
    calls: list[int] = []

    class Counted(FakeProgram):
        def step(self, batch: Any) -> dict[str, float]:
            calls.append(self.draws.step)
            return super().step(batch)

    def steps(*rungs: str) -> int:
        calls.clear()
        report = checked(fake.factory(), lambda: Counted(), rungs=rungs)
        assert report.equal and report.pair is not None
        assert ("resume" in {rung.rung for rung in report.pair.rungs}) == ("resume" in rungs)
        return len(calls)

    assert steps("free_trajectory", "resume") - steps("free_trajectory") == STEPS - resume_step(STEPS)


def test_a_bound_on_steps_leaves_the_step_it_goes_on_from() -> None:
    legacy, sample = fake.factory(restarts="count"), "steps:2"
    report = checked(legacy, fake.factory(restarts="python"), steps=12, sample=sample)
    assert failing(report) == {"resume": "different"}
    assert checked(legacy, fake.factory(restarts="count", **WRITTEN), steps=12, sample=sample).equal
    report = checked(legacy, fake.factory(restarts="python"), steps=12, sample="steps:2,tensors:1")
    assert failing(report) == {"resume": "different"}


def test_random_numbers_that_cannot_be_fed_make_it_not_comparable() -> None:
    report = checked(fake.factory(dropout=0.5), fake.factory(dropout=0.5, uncontrolled=True))
    assert failing(report)["resume"] == "not_comparable"
    assert "hidden/kernel depends on random numbers that cannot be fed" in " | ".join(resumed(report).findings)
