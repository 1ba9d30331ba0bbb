"""Rung 9 on fakes, with a conversion that can lose each thing there is to lose, and of the reference models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeBatches, FakeSubject, Faults, initial_state, small_spec
from tfport import state
from tfport.equivalence.ladder import Ladder
from tfport.equivalence.measurement import PairMeasurement
from tfport.equivalence.result import RUNGS, PairResult, RungResult, Verdict
from tfport.equivalence.resume import Carry, carry_between, resume_step
from tfport.equivalence.verdicts import judge, tolerances
from tfport.errors import CheckpointError
from tfport.state import State
from tfport.subject import Array, Batch

STEPS = 5
K = resume_step(STEPS)
REPEAT = RungResult("repeat", Verdict.IDENTICAL, compared=1)
KERNEL, SLOT = "generator/hidden/kernel", "optimizer/generator/m/generator/hidden/kernel"
COUNT = "optimizer/discriminator/iterations"
Change = Callable[[dict[str, Array]], None]


def through_files(change: Change | None = None, back: Change | None = None) -> Callable[[str, str], Carry]:
    """A conversion as a user's: what one side saved is read, changed, and written as the other side restores it."""

    def between(source: str, target: str) -> Carry:
        def carry(folder: Path, into: Path) -> None:
            read = state.read(folder / "state.npz")
            arrays = dict(read.arrays)
            told = change if source == "legacy" else back
            if told is not None:
                told(arrays)
            state.write(into / "state.npz", State(read.model, arrays))

        return carry

    return between


def climbed(
    carry: Callable[[str, str], Carry | None] | None,
    modern: FakeSubject,
    precision: str = "float32",
    allowed: PairMeasurement | None = None,
    legacy: FakeSubject | None = None,
) -> PairMeasurement:
    spec = small_spec()
    initial = initial_state(spec, precision)
    told = [tolerances(allowed) if allowed else {}]
    sides = legacy or FakeSubject(spec, precision, 1), [modern], ["legacy", "modern"]
    ladder = Ladder(*sides, FakeBatches(spec, precision), initial, STEPS, told)  # type: ignore[arg-type]
    if carry is not None:
        ladder.carry = carry
    (found,) = ladder.run()
    return found


def judged(
    carry: Callable[[str, str], Carry | None] | None, kind: type[FakeSubject] = FakeSubject, **faults: Any
) -> PairResult:
    found: list[PairMeasurement] = []
    for precision in ("float32", "float64"):
        modern = kind(small_spec(), precision, 2, Faults(**faults))
        found.append(climbed(carry, modern, precision, found[0] if found else None))
    return judge(found[0], found[0], found[1], REPEAT)


def failed(result: PairResult) -> list[str]:
    return [rung.rung for rung in result.rungs if not rung.verdict.equal]


# --- What passes ------------------------------------------------------------------------------------------------------
def test_the_middle_is_rounded_down() -> None:
    assert [resume_step(steps) for steps in (1, 2, 3, 20, 100)] == [0, 1, 1, 10, 50]


def test_what_comes_over_whole_is_identical() -> None:
    result = judged(through_files())
    assert result.verdict is Verdict.IDENTICAL
    rung = result.rung("resume")
    names, reports = len(initial_state(small_spec()).arrays), 2
    assert rung.compared == 3 * names + (STEPS - K) * reports, "there, back again, and at the end"
    assert rung.findings == ()


def test_another_order_of_summation_is_rounding_and_so_is_a_digit_that_the_conversion_costs() -> None:
    assert judged(through_files(), reordered=True).rung("resume").verdict is Verdict.ROUNDING

    def scaled(arrays: dict[str, Array]) -> None:
        third = arrays[SLOT].dtype.type(3)
        arrays[SLOT] = arrays[SLOT] / third * third

    result = judged(through_files(scaled))
    assert result.rung("resume").verdict is Verdict.ROUNDING and failed(result) == []


def test_without_files_the_state_is_handed_over_and_the_report_says_so() -> None:
    rung = judged(None).rung("resume")
    assert rung.verdict is Verdict.IDENTICAL
    (told,) = rung.findings
    assert told.startswith(f"the state of step {K} was carried over by names and arrays")


def test_both_sides_end_where_the_free_trajectory_led_them() -> None:
    legacy, modern = (FakeSubject(small_spec(), seed=seed) for seed in (1, 2))
    climbed(through_files(_lose(SLOT)), modern, legacy=legacy)
    alone = FakeSubject(small_spec(), seed=3)
    alone.load(initial_state(small_spec()))
    for step in range(STEPS):
        alone.step(FakeBatches(small_spec())[step])
    assert legacy.state().digest() == modern.state().digest() == alone.state().digest()


# --- What is lost on the way ------------------------------------------------------------------------------------------
def _lose(name: str) -> Change:
    def change(arrays: dict[str, Array]) -> None:
        arrays[name] = np.zeros_like(arrays[name])

    return change


def _halve(arrays: dict[str, Array]) -> None:
    arrays[KERNEL] = arrays[KERNEL].astype(np.float16).astype(arrays[KERNEL].dtype)


def _swap(arrays: dict[str, Array]) -> None:
    other = SLOT.replace("/m/", "/v/")
    arrays[SLOT], arrays[other] = arrays[other], np.abs(arrays[SLOT])


@pytest.mark.parametrize(
    ("change", "tensor"),
    [(_lose(SLOT), SLOT), (_lose(COUNT), COUNT), (_lose(KERNEL), KERNEL), (_halve, KERNEL), (_swap, SLOT)],
    ids=["a slot", "a count", "a weight", "half the digits", "slots in each other's place"],
)
def test_what_a_conversion_loses_is_named_at_the_step_it_is_lost(change: Change, tensor: str) -> None:
    result = judged(through_files(change))
    assert failed(result) == ["resume"] and result.located == "resume"
    first = result.rung("resume").first_divergence
    assert first is not None
    assert (first.step, first.phase, first.tensor) == (K, None, f"carried/{tensor}")
    assert set(first.held_before) == set(RUNGS[:-1])


def test_what_only_the_way_back_loses_is_named() -> None:
    result = judged(through_files(back=_lose(SLOT)))
    assert failed(result) == ["resume"]
    first = result.rung("resume").first_divergence
    assert first is not None and first.tensor == f"returned/{SLOT}"


class _RestoresTooLittle(FakeSubject):
    """Does not read its slots back."""

    def restore(self, folder: Path) -> None:
        own = {name: array for name, array in self.arrays.items() if name.startswith("optimizer/")}
        super().restore(folder)
        self.arrays |= own


def test_a_side_that_does_not_restore_all_of_its_own_files_is_found() -> None:
    result = judged(through_files(), _RestoresTooLittle)
    assert failed(result) == ["resume"]
    first = result.rung("resume").first_divergence
    assert first is not None and first.tensor.startswith("carried/optimizer/")


class _CountsForItself(FakeSubject):
    """A number that no checkpoint holds is begun anew by `restore`, and moves a bias in the next step but one."""

    since = 9

    def restore(self, folder: Path) -> None:
        super().restore(folder)
        self.since = 0

    def step(self, batch: Batch) -> dict[str, float]:
        self.since += 1
        reported = super().step(batch)
        if self.since == 2:
            self.arrays["generator/output/bias"] += self.arrays["generator/output/bias"].dtype.type(1e-3)
        return reported


def test_what_no_checkpoint_holds_is_found_where_it_acts() -> None:
    result = judged(through_files(), _CountsForItself)
    assert failed(result) == ["resume"]
    first = result.rung("resume").first_divergence
    assert first is not None
    assert first.step > K and not first.tensor.startswith("carried/")


def test_what_cannot_be_carried_is_not_comparable_and_says_why() -> None:
    def refusing(arrays: dict[str, Array]) -> None:
        raise CheckpointError("optimizer/generator/m has no place")

    for carry, way in ((through_files(refusing), "over"), (through_files(back=refusing), "back")):
        result = judged(carry)
        assert failed(result) == ["resume"] and result.verdict is Verdict.NOT_COMPARABLE
        (told,) = result.rung("resume").findings
        assert told == f"the checkpoint of step {K} cannot be carried {way}: optimizer/generator/m has no place"


def test_one_side_that_cannot_take_over_does_not_stop_another() -> None:
    def between(source: str, target: str) -> Carry:
        def carry(folder: Path, into: Path) -> None:
            if target == "one":
                raise CheckpointError("no")
            through_files()(source, target)(folder, into)

        return carry

    spec = small_spec()
    sides = [FakeSubject(spec, seed=seed) for seed in range(4)]
    names = ["legacy", "one", "two", "three"]
    batches: Any = FakeBatches(spec)
    ladder = Ladder(sides[0], sides[1:], names, batches, initial_state(spec), STEPS, [{}] * 3, carry=between)
    found = [pair.rung("resume") for pair in ladder.run()]
    assert [bool(rung.missing) for rung in found] == [True, False, False]
    assert [rung.same_bits and rung.compared > 0 for rung in found] == [False, True, True]


# --- The reference models' files --------------------------------------------------------------------------------------
class _Unreadable(FakeSubject):
    def save(self, folder: Path) -> None:
        raise NotImplementedError


def unreadable(spec: Any, precision: str, seed: int) -> FakeSubject:
    """A factory whose Subject saves nothing."""
    return _Unreadable(small_spec(), precision, seed)


def test_a_factory_that_saves_what_nobody_knows_is_handed_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nobody_knows", sys.modules[__name__])
    assert carry_between("tf1_graph", "nobody_knows:unreadable", small_spec(), "float32") is None
    assert carry_between("nobody_knows:unreadable", "tf1_graph", small_spec(), "float32") is None
    assert carry_between("tf1_graph", "keras3", small_spec(), "float32") is not None
