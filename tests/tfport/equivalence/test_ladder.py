"""The ladder on fakes: a correct port passes every rung, and every planted fault fails the rung it belongs to."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest

from fakes import FakeBatches, FakeSubject, Faults, initial_state, small_spec
from tfport.equivalence.ladder import Ladder
from tfport.equivalence.measurement import PairMeasurement
from tfport.equivalence.result import RUNGS, PairResult, RungResult, Verdict
from tfport.equivalence.resume import carried
from tfport.equivalence.verdicts import judge, tolerances
from tfport.models.spec import BatchNorm, ModelSpec
from tfport.subject import Batch, Subject

STEPS = 3
REPEAT = RungResult("repeat", Verdict.IDENTICAL, compared=1)
BIAS = "generator/output/bias"


def ladder(
    *moderns: Subject,
    precision: str = "float32",
    allowed: Sequence[PairMeasurement] = (),
    legacy: Subject | None = None,
    spec: ModelSpec | None = None,
) -> Ladder:
    spec = spec or small_spec()
    names = ["legacy", *(f"modern{each or ''}" for each in range(len(moderns)))]
    explained = [tolerances(each) for each in allowed] or [{} for _ in moderns]
    return Ladder(
        legacy or FakeSubject(spec, precision, 1),
        moderns,
        names,
        FakeBatches(spec, precision),  # type: ignore[arg-type]
        initial_state(spec, precision),
        STEPS,
        explained,
    )


def judged(
    faults: Faults, kind: type[FakeSubject] = FakeSubject, spec: ModelSpec | None = None, model: str = "vanilla_gan"
) -> PairResult:
    """The verdicts of a modern side with `faults`, or of another spec, measured in both precisions."""
    found: list[PairMeasurement] = []
    for precision in ("float32", "float64"):
        modern = kind(spec or small_spec(model), precision, 2, faults)
        found += ladder(modern, precision=precision, allowed=found, spec=small_spec(model)).run()
        assert PairMeasurement.from_json(found[-1].to_json()).to_json() == found[-1].to_json()
    return judge(found[0], found[0], found[1], REPEAT)


def failed(result: PairResult) -> list[str]:
    return [rung.rung for rung in result.rungs if not rung.verdict.equal]


def findings(result: PairResult, rung: str) -> str:
    return "\n".join(result.rung(rung).findings)


# --- What passes ------------------------------------------------------------------------------------------------------
def test_the_same_computation_is_identical() -> None:
    result = judged(Faults())
    assert result.verdict is Verdict.IDENTICAL
    assert [rung.rung for rung in result.rungs] == list(RUNGS)
    assert all(rung.compared for rung in result.rungs)
    assert [(mover.phase, mover.legacy == mover.modern, len(mover.legacy)) for mover in result.movers] == [
        ("discriminator", True, 4),
        ("generator", True, 4),
    ]
    assert len(result.loss_checks) == 8
    assert all(check.agrees for check in result.loss_checks)


def test_half_steps_under_one_optimizer_are_identical_too() -> None:
    result = judged(Faults(), model="leaky_gan")
    assert result.verdict is Verdict.IDENTICAL
    assert all(rung.compared for rung in result.rungs)
    assert [(mover.phase, mover.legacy == mover.modern, len(mover.legacy)) for mover in result.movers] == [
        ("discriminator_real", True, 4),
        ("discriminator_fake", True, 4),
        ("generator", True, 4),
    ]
    assert sorted({check.loss for check in result.loss_checks}) == [
        *("accuracy_D_fake", "accuracy_D_real", "loss_D_fake", "loss_D_real", "loss_G"),
    ]
    assert len(result.loss_checks) == 5 * 2 * 2, "each report of each side, at two states"
    assert all(check.agrees for check in result.loss_checks)


@pytest.mark.parametrize("model", ["vanilla_gan", "leaky_gan"])
def test_another_order_of_summation_is_rounding(model: str) -> None:
    result = judged(Faults(reordered=True), model=model)
    assert result.verdict is Verdict.ROUNDING
    assert {rung.verdict for rung in result.rungs[3:]} == {Verdict.ROUNDING}
    assert result.located is None


# --- What fails, and where --------------------------------------------------------------------------------------------
UPDATES = ["update", "forced_trajectory", "free_trajectory", "resume"]
LOSSES = ["loss", *UPDATES[1:]]


@pytest.mark.parametrize(
    ("faults", "rungs", "finding"),
    [
        (Faults(hidden_epsilon=1e-7), UPDATES, ""),
        (Faults(hyperparameters={"epsilon": 1e-7}), ["structure", *UPDATES], ""),
        (Faults(hyperparameters={"learning_rate": 2.0001e-4}), ["structure", *UPDATES], ""),
        (
            Faults(frozen=("discriminator/output/bias",)),
            UPDATES,
            "phase discriminator: discriminator/output/bias did not",
        ),
        (
            Faults(leak=("generator/hidden/kernel",)),
            UPDATES,
            "phase discriminator: generator/hidden/kernel moved on the",
        ),
        (Faults(simultaneous=True), UPDATES, "modern: a step is not its phases in order"),
        (
            Faults(dirty_forward=BIAS),
            ["forward", "gradient", "update"],
            "modern: forward or gradients changed the state",
        ),
        (Faults(no_gradient=(BIAS,)), ["gradient"], "generator/generator/output/bias is missing on the modern side"),
        (Faults(unreported=("loss_G",)), UPDATES, "loss_G is not reported on the modern side"),
        (Faults(extra_report=True), UPDATES, "loss_C is reported on the modern side only"),
        (Faults(reports="half"), LOSSES, "modern: the generator phase reports loss_G"),
        (Faults(reports="negated"), LOSSES, "modern: the discriminator phase reports loss_D"),
        (Faults(reports="running_mean"), [LOSSES[0], *UPDATES], "modern: the generator phase reports loss_G"),
        (Faults(reports="nan"), [LOSSES[0], *UPDATES], "modern: the generator phase reports loss_G nan"),
        (Faults(reports="float32_scalar"), LOSSES, "modern: the generator phase reports loss_G"),
        (Faults(nan_in="float32"), ["forward"], "training/generator/hidden is the first without a finite distance"),
        (Faults(nan_in="float64"), ["forward"], "training/generator/hidden is the first without a finite distance"),
        (Faults(float64_outputs=True), ["forward", "loss"], "training/generator/hidden: dtype float32 against float64"),
        (Faults(miscount_in="float32"), UPDATES, "optimizer/generator/iterations is a count, and first differs"),
        (Faults(miscount_in="float64"), UPDATES, "optimizer/generator/iterations is a count, and first differs"),
        (Faults(stddev=20.0), ["initialisation"], "generator/hidden/kernel starts as mean"),
        (Faults(variables={BIAS: {"trainable": False}}), ["structure"], "trainable=True against trainable=False"),
    ],
)
def test_a_fault_fails_the_rungs_it_belongs_to_and_no_other(faults: Faults, rungs: list[str], finding: str) -> None:
    result = judged(faults)
    assert failed(result) == rungs
    assert not result.verdict.equal
    numerical = [rung for rung in rungs if rung not in ("structure", "initialisation")]
    assert result.located == (numerical[0] if numerical else None)
    assert finding in "\n".join(findings(result, rung) for rung in rungs)


@pytest.mark.parametrize(
    ("faults", "rungs", "finding"),
    [
        (Faults(reports="misses"), LOSSES, "modern: the discriminator_real phase reports accuracy_D_real"),
        (Faults(reports="negated"), LOSSES, "modern: the discriminator_fake phase reports loss_D_fake"),
        (Faults(reports="by_phase"), LOSSES, "discriminator_fake is reported on the modern side only"),
        (Faults(unreported=("accuracy_D_fake",)), UPDATES, "accuracy_D_fake is not reported on the modern side"),
        (Faults(simultaneous=True), UPDATES, "modern: a step is not its phases in order (discriminator_real, "),
        (
            Faults(frozen=("discriminator/hidden/bias",)),
            UPDATES,
            "phase discriminator_fake: discriminator/hidden/bias did not",
        ),
        (Faults(miscount_in="float32"), UPDATES, "optimizer/discriminator/iterations is a count, and first differs"),
    ],
)
def test_a_fault_of_half_steps_fails_the_rungs_it_belongs_to(faults: Faults, rungs: list[str], finding: str) -> None:
    result = judged(faults, model="leaky_gan")
    assert failed(result) == rungs
    assert result.located == rungs[0]
    assert finding in "\n".join(findings(result, rung) for rung in rungs)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_report_under_another_name_is_missing_on_its_side(mirrored: bool) -> None:
    """The phase's name is no report: nothing may be taken for loss_G but loss_G."""
    faults = Faults(reports="by_phase")
    sides = [FakeSubject(small_spec(), seed=seed, faults=faults) for seed in (1, 2)]
    (pair,) = ladder(sides[1], legacy=sides[0] if mirrored else None).run()
    missing = {text for rung in ("loss", "forced_trajectory") for text in pair.rung(rung).missing}
    assert {f"{loss} is not reported on the modern side" for loss in ("loss_D", "loss_G")} <= missing
    assert ("loss_G is not reported on the legacy side" in missing) == mirrored
    assert not judge(pair, pair, None, REPEAT).verdict.equal
    assert not [check for check in pair.loss_checks if check.side == "modern"]


def test_the_first_divergence_of_a_fault_names_the_place() -> None:
    first = judged(Faults(hidden_epsilon=1e-7)).rung("update").first_divergence
    assert first is not None
    assert (first.step, first.phase, first.dtype) == (0, "discriminator", "float64")
    assert first.tensor.startswith("discriminator/discriminator/")
    assert first.held_before == ("repeat", "structure", "initialisation", "forward", "loss", "gradient")
    assert 0 < first.absolute <= first.atol


# --- What is missing on the modern side -------------------------------------------------------------------------------
def test_a_side_that_lacks_a_variable_still_gets_every_rung() -> None:
    result = judged(Faults(lacks=(BIAS,)))
    assert result.verdict is Verdict.NOT_COMPARABLE
    assert all(rung.compared for rung in result.rungs)
    for rung in ("structure", "initialisation", "gradient", *UPDATES):
        assert result.rung(rung).verdict is Verdict.NOT_COMPARABLE
        assert f"{BIAS}" in findings(result, rung)
    assert "phase generator: generator/output/bias did not move" in findings(result, "update")


@pytest.mark.parametrize("kept", [0, 1])
def test_a_side_that_lacks_a_phase_still_gets_every_rung(kept: int) -> None:
    spec = small_spec()
    result = judged(Faults(), spec=dataclasses.replace(spec, phases=spec.phases[kept : kept + 1]))
    lost = spec.phases[1 - kept]
    assert result.verdict is Verdict.NOT_COMPARABLE
    for rung in ("loss", "gradient", "update"):
        assert f"phase {lost.name} is missing on the modern side" in result.rung(rung).findings
    for rung in ("forced_trajectory", "free_trajectory", "resume"):
        assert f"{lost.loss} is not reported on the modern side" in result.rung(rung).findings
    assert result.rung("forward").verdict is Verdict.IDENTICAL


def test_phases_in_another_order_are_different() -> None:
    spec = small_spec()
    result = judged(Faults(), spec=dataclasses.replace(spec, phases=spec.phases[::-1]))
    assert failed(result) == ["structure", *UPDATES]


def test_carried_takes_what_fits_and_keeps_the_rest() -> None:
    whole, subject = initial_state(small_spec()), FakeSubject(small_spec(), faults=Faults(lacks=(BIAS,)), seed=5)
    found = carried(whole, subject)
    assert found.arrays.keys() == subject.state().arrays.keys()
    assert all(found.arrays[name] is whole.arrays[name] for name in found.arrays)
    less = dataclasses.replace(whole, arrays={BIAS: whole.arrays[BIAS]})
    own = FakeSubject(small_spec(), seed=5)
    kept = carried(less, own)
    assert kept.arrays.keys() == own.state().arrays.keys()
    assert (kept.arrays["generator/hidden/kernel"] == own.state().arrays["generator/hidden/kernel"]).all()


# --- Faults that only some rungs can see ------------------------------------------------------------------------------
class _StaleAfterLoad(FakeSubject):
    """Forgets nothing on `load`: a number that is no part of the state goes on counting."""

    taken = 0

    def step(self, batch: Batch) -> dict[str, float]:
        self.taken += 1
        reported = super().step(batch)
        if self.taken > 3:
            self.arrays[BIAS] += self.arrays[BIAS].dtype.type(1e-3)
        return reported


def test_what_goes_wrong_only_after_some_steps_is_found_by_the_forced_trajectory() -> None:
    result = judged(Faults(), _StaleAfterLoad)
    assert failed(result) == ["forced_trajectory", "free_trajectory", "resume"]
    first = result.rung("forced_trajectory").first_divergence
    assert first is not None
    assert (first.step, first.tensor, first.phase) == (1, BIAS, "generator")


class _OtherInference(FakeSubject):
    """Behaves otherwise in inference mode, as dropout or BatchNorm with other statistics."""

    def forward(self, batch: Batch, training: bool) -> dict[str, object]:  # type: ignore[override]
        found = super().forward(batch, training)
        return dict(found) if training else {name: array * 2 for name, array in found.items()}


def test_inference_mode_is_compared_too() -> None:
    result = judged(Faults(), _OtherInference)
    assert failed(result) == ["forward"]
    first = result.rung("forward").first_divergence
    assert first is not None
    assert first.tensor == "inference/generator/hidden"


class _OneLater(FakeSubject):
    """Wrong in the last step of the free trajectory only."""

    steps = 0

    def step(self, batch: Batch) -> dict[str, float]:
        self.steps += 1
        reported = super().step(batch)
        if self.steps == 2 + 2 * STEPS:
            self.arrays[BIAS][0] += 1
        return reported


def test_the_last_step_of_the_free_trajectory_is_compared() -> None:
    assert failed(judged(Faults(), _OneLater)) == ["free_trajectory"]


# --- Moving statistics ------------------------------------------------------------------------------------------------
MOVING = "generator/norm/moving_mean"


def normed_spec() -> ModelSpec:
    """The small model with a batch normalisation after the generator, whose statistics its own phase moves."""
    spec = small_spec()
    norm = BatchNorm("norm", (9,), momentum=0.9, epsilon=1e-3)
    generator, discriminator = spec.networks
    layers = (*generator.layers, norm)
    return dataclasses.replace(
        spec,
        networks=(dataclasses.replace(generator, layers=layers), discriminator),
        phases=(spec.phases[0], dataclasses.replace(spec.phases[1], statistics=("generator",))),
    )


class _Normed(FakeSubject):
    """Keeps a moving mean of the images, and uses it nowhere."""

    moved_in: tuple[str, ...] = ("generator",)

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        images = self.generate(batch)
        reports = super().run_phase(phase, batch)
        if phase in self.moved_in:
            self.arrays[MOVING] += (images.mean(0) - self.arrays[MOVING]) * np.dtype(self.precision).type(0.1)
        return reports


@pytest.mark.parametrize(
    ("moved_in", "finding"),
    [
        ((), f"phase generator: {MOVING} did not move on the modern side"),
        (("discriminator", "generator"), f"phase discriminator: {MOVING} moved on the modern side alone"),
    ],
    ids=["never", "in both phases"],
)
def test_statistics_are_compared_and_belong_to_the_phase_that_moves_them(
    moved_in: tuple[str, ...], finding: str
) -> None:
    spec = normed_spec()
    legacy, right, wrong = (_Normed(spec, seed=seed) for seed in (1, 2, 3))
    wrong.moved_in = moved_in
    good, bad = ladder(right, wrong, legacy=legacy, spec=spec).run()
    assert all(rung.same_bits and not rung.faults and not rung.missing for rung in good.rungs.values())
    assert {mover.phase: MOVING in mover.legacy for mover in good.movers} == {"discriminator": False, "generator": True}
    assert finding in bad.rung("update").faults
    assert [name for name, rung in bad.rungs.items() if not rung.same_bits and rung.compared] == UPDATES
    first = bad.rung("forced_trajectory").first
    assert first is not None
    assert (first.tensor, first.phase) == (MOVING, "generator")


def test_what_two_optimizers_hold_is_moved_by_both() -> None:
    shared = FakeSubject(small_spec(), faults=Faults(variables={BIAS: {"optimizers": ("generator", "information")}}))
    owner = ladder(FakeSubject(small_spec()), legacy=shared).owner
    assert owner[BIAS] == "generator and information"
    assert owner["generator/hidden/bias"] == "generator"
    assert owner[f"optimizer/generator/m/{BIAS}"] == "generator"


# --- Several sides ----------------------------------------------------------------------------------------------------
def test_one_modern_side_does_not_touch_another() -> None:
    spec = small_spec()
    both = ladder(FakeSubject(spec, faults=Faults(hidden_epsilon=1e-7)), FakeSubject(spec), FakeSubject(spec))
    wrong, right, other = both.run()
    assert not wrong.rung("update").same_bits
    for each in (right, other):
        assert all(rung.same_bits and not rung.faults and not rung.missing for rung in each.rungs.values())
    assert [pair.modern for pair in both.pairs] == ["modern", "modern1", "modern2"]


def test_a_legacy_side_whose_report_is_not_its_loss_fails_too() -> None:
    legacy = FakeSubject(small_spec(), seed=1, faults=Faults(reports="half"))
    (pair,) = ladder(FakeSubject(small_spec(), faults=Faults(reports="half")), legacy=legacy).run()
    faults = pair.rung("loss").faults
    assert len([fault for fault in faults if fault.startswith("legacy:")]) == 4
    assert not judge(pair, pair, None, REPEAT).verdict.equal


def test_a_legacy_side_that_says_nothing_of_a_loss_is_not_comparable() -> None:
    legacy = FakeSubject(small_spec(), seed=1, faults=Faults(unreported=("loss_G",)))
    (pair,) = ladder(FakeSubject(small_spec(), faults=Faults(unreported=("loss_G",))), legacy=legacy).run()
    assert "loss_G is not reported on the legacy side" in pair.rung("forced_trajectory").missing


def test_curves_hold_every_reported_loss_as_a_plain_number() -> None:
    climbed = ladder(FakeSubject(small_spec(), faults=Faults(reports="float32_scalar", extra_report=True)))
    climbed.run()
    assert {name: {loss: len(values) for loss, values in curve.items()} for name, curve in climbed.curves.items()} == {
        side: {"loss_D": STEPS, "loss_G": STEPS} for side in ("legacy", "modern")
    }
    assert json.loads(json.dumps(climbed.curves)) == climbed.curves
    assert all(math.isfinite(value) for value in climbed.curves["modern"]["loss_G"])


def test_work_is_the_number_of_ticks() -> None:
    ticks: list[None] = []
    climbed = ladder(FakeSubject(small_spec()))
    climbed.tick = lambda: ticks.append(None)
    climbed.run()
    assert len(ticks) == climbed.work
