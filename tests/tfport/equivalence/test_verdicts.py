"""Verdicts: only what was measured twice and shrank as rounding does is called rounding."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from tfport.equivalence.measurement import PairMeasurement, RungMeasurement
from tfport.equivalence.result import RUNGS, Divergence, PairResult, RungResult, Verdict
from tfport.equivalence.verdicts import CEILING, EPSILON_RATIO, FLOOR, SLACK, judge, needs_float64, tolerances

REPEAT = RungResult("repeat", Verdict.IDENTICAL, compared=3)
BEFORE = 1e-3
"""A float32 difference large enough that SLACK and not FLOOR decides."""
ALLOWED = SLACK * EPSILON_RATIO * BEFORE


def pair(same: bool = True, **relative: Any) -> PairMeasurement:
    """A measurement with all rungs compared; `relative`: rung -> tensor -> distance."""
    found = PairMeasurement("legacy", "modern")
    for name in RUNGS[1:]:
        distances = relative.get(name, {"x": 0.0})
        found.rungs[name] = RungMeasurement(
            name, 2, all(each == 0 for each in distances.values()) and same, relative=dict(distances)
        )
    return found


def divergence(rung: str, tensor: str = "x") -> Divergence:
    return Divergence(rung, 0, None, tensor, (0,), (1,), "float32", 1.0, 2.0, 1.0, 1.0, 5, 1.0, 1, 1)


def update(single: Any, double: Any) -> Verdict:
    """The verdict of the update rung from the relative distances in the two precisions."""
    one, two = (pair(update=each if isinstance(each, dict) else {"x": each}) for each in (single, double))
    return judge(one, one, two, REPEAT).rung("update").verdict


def test_no_difference_is_identical_and_needs_no_float64() -> None:
    one = pair()
    assert not needs_float64(one)
    result = judge(one, one, None, REPEAT)
    assert (result.verdict, result.located) == (Verdict.IDENTICAL, None)
    assert [rung.rung for rung in result.rungs] == list(RUNGS)
    assert result.rung("initialisation").verdict is Verdict.SAME_DISTRIBUTION


def test_a_difference_that_float64_did_not_explain_is_different() -> None:
    one = pair(update={"x": 1e-12})
    assert needs_float64(one)
    assert judge(one, one, None, REPEAT).rung("update").verdict is Verdict.DIFFERENT


def test_zeros_of_two_signs_are_not_identical() -> None:
    one = pair(same=False)
    assert needs_float64(one)
    assert judge(one, one, None, REPEAT).verdict is Verdict.DIFFERENT
    assert judge(one, one, pair(), REPEAT).verdict is Verdict.ROUNDING


@pytest.mark.parametrize(
    ("single", "double", "verdict"),
    [
        (BEFORE, 0.0, Verdict.ROUNDING),
        (BEFORE, BEFORE * EPSILON_RATIO, Verdict.ROUNDING),
        (BEFORE, ALLOWED, Verdict.ROUNDING),
        (BEFORE, math.nextafter(ALLOWED, 1), Verdict.DIFFERENT),
        (BEFORE, BEFORE, Verdict.DIFFERENT),
        (1e-30, FLOOR, Verdict.ROUNDING),
        (1e-30, math.nextafter(FLOOR, 1), Verdict.DIFFERENT),
        (0.0, FLOOR, Verdict.ROUNDING),
        (0.0, math.nextafter(FLOOR, 1), Verdict.DIFFERENT),
        (0.0, 0.0, Verdict.IDENTICAL),
        (1.0, SLACK * EPSILON_RATIO, Verdict.ROUNDING),
        (1e6, SLACK * EPSILON_RATIO, Verdict.ROUNDING),
        (1e6, math.nextafter(SLACK * EPSILON_RATIO, 1), Verdict.DIFFERENT),
        (math.inf, math.nextafter(SLACK * EPSILON_RATIO, 1), Verdict.DIFFERENT),
        (0.0, math.inf, Verdict.DIFFERENT),
        (BEFORE, math.inf, Verdict.DIFFERENT),
        (math.inf, math.inf, Verdict.DIFFERENT),
        (BEFORE, math.nan, Verdict.DIFFERENT),
        (math.nan, math.nan, Verdict.DIFFERENT),
        (math.nan, 0.0, Verdict.DIFFERENT),
    ],
)
def test_rounding_only_where_float64_shrinks(single: float, double: float, verdict: Verdict) -> None:
    assert update(single, double) is verdict


def test_every_tensor_must_shrink_for_itself() -> None:
    small, large = BEFORE * EPSILON_RATIO, 1.0
    assert update({"x": BEFORE, "y": large}, {"x": small, "y": small}) is Verdict.ROUNDING
    assert update({"x": BEFORE, "y": large}, {"x": 100 * small, "y": small}) is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("single", "double"),
    [
        ({"x": 0.0}, {"x": 0.0, "y": 0.0}),
        ({"x": BEFORE}, {"x": 0.0, "y": FLOOR}),
        ({"x": BEFORE, "y": BEFORE}, {"x": 0.0}),
        ({"x": BEFORE}, {}),
        ({}, {"x": 0.0}),
    ],
)
def test_a_tensor_of_one_precision_only_is_not_comparable(single: dict[str, float], double: dict[str, float]) -> None:
    assert update(single, double) is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize("rung", RUNGS[1:])
@pytest.mark.parametrize("which", ["float32", "float64", "both"])
@pytest.mark.parametrize("how", ["missing", "empty"])
@pytest.mark.parametrize("differs", [True, False])
def test_a_rung_that_is_missing_or_empty_in_one_precision_does_not_pass(
    rung: str, which: str, how: str, differs: bool
) -> None:
    one, two = (pair(update={"x": each}) for each in ((BEFORE, 0.0) if differs else (0.0, 0.0)))
    for name, side in (("float32", one), ("float64", two)):
        if which in (name, "both"):
            del side.rungs[rung]
            if how == "empty":
                side.rung(rung)
    for asked in (one, two):
        result = judge(asked, one, two, REPEAT)
        assert result.rung(rung).verdict is Verdict.NOT_COMPARABLE
        assert not result.verdict.equal


@pytest.mark.parametrize("rung", RUNGS[1:])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "verdict"), [("fault", Verdict.DIFFERENT), ("lack", Verdict.NOT_COMPARABLE)])
def test_a_finding_in_either_precision_fails_its_rung(rung: str, precision: str, kind: str, verdict: Verdict) -> None:
    one, two = pair(), pair()
    getattr((one if precision == "float32" else two).rung(rung), kind)("the finding")
    for asked in (one, two):
        result = judge(asked, one, two, REPEAT)
        assert (result.rung(rung).verdict, result.verdict) == (verdict, verdict)
        assert "the finding" in result.rung(rung).findings
        assert result.located == (None if rung in ("structure", "initialisation") else rung)


def test_a_fault_fails_equal_numbers_without_float64() -> None:
    one = pair()
    one.rung("update").fault("who moved")
    assert judge(one, one, None, REPEAT).verdict is Verdict.DIFFERENT


def test_float32_identical_and_float64_not() -> None:
    one, two = pair(), pair(forward={"x": 1e-9})
    result = judge(two, one, two, REPEAT)
    assert (result.verdict, result.located) == (Verdict.DIFFERENT, "forward")
    assert result.rung("forward").shrink == math.inf


def test_a_value_that_is_nan_in_float32_is_not_rounding_because_float64_is_whole() -> None:
    def measured(value: float, dtype: str) -> PairMeasurement:
        found = pair()
        found.rungs["loss"] = RungMeasurement("loss")
        found.rung("loss").add("x", 1.0, value, 0, None, {}, dtype)
        return found

    for bad in (math.nan, math.inf):
        one, two = measured(bad, "float32"), measured(1.0, "float64")
        assert judge(one, one, two, REPEAT).rung("loss").verdict is Verdict.DIFFERENT


def test_a_dtype_that_is_wrong_in_float32_only_is_not_rounding() -> None:
    one, two = pair(), pair()
    for side, dtype in ((one, np.float32), (two, np.float64)):
        side.rungs["forward"] = RungMeasurement("forward")
        side.rung("forward").add_all({"x": np.ones(3, dtype)}, {"x": np.ones(3)}, 0, None, {})
    assert judge(one, one, two, REPEAT).rung("forward").verdict is Verdict.NOT_COMPARABLE


def test_a_count_that_is_wrong_in_float32_only_is_not_rounding() -> None:
    one, two = pair(), pair()
    for side, count in ((one, 4), (two, 3)):
        side.rungs["update"] = RungMeasurement("update")
        side.rung("update").add_all({"x": np.array(3)}, {"x": np.array(count)}, 0, None, {})
    assert judge(one, one, two, REPEAT).rung("update").verdict is Verdict.DIFFERENT


# --- The pair ---------------------------------------------------------------------------------------------------------
def test_a_free_trajectory_never_clears_a_forced_one_that_failed() -> None:
    one = pair(forced_trajectory={"x": 1e-5}, free_trajectory={"x": 1.0})
    two = pair(forced_trajectory={"x": 1e-5}, free_trajectory={"x": 1e-9})
    result = judge(one, one, two, REPEAT)
    assert result.rung("free_trajectory").verdict is Verdict.ROUNDING
    assert (result.verdict, result.located) == (Verdict.DIFFERENT, "forced_trajectory")


@pytest.mark.parametrize("rung", RUNGS[3:])
def test_located_is_the_first_numerical_rung_that_failed(rung: str) -> None:
    later = RUNGS[RUNGS.index(rung) :]
    relative: dict[str, Any] = {name: {"x": 0.5} for name in later}
    one, two = pair(**relative), pair(**relative)
    one.rung("structure").fault("epsilon")
    result = judge(one, one, two, REPEAT)
    assert (result.located, result.verdict) == (rung, Verdict.DIFFERENT)


def test_a_structural_finding_alone_fails_the_pair_and_locates_nothing() -> None:
    one = pair()
    one.rung("structure").fault("epsilon")
    result = judge(one, one, None, REPEAT)
    assert (result.located, result.verdict) == (None, Verdict.DIFFERENT)


def test_a_legacy_side_that_does_not_equal_itself_fails_the_pair() -> None:
    one = pair()
    result = judge(one, one, None, dataclasses.replace(REPEAT, verdict=Verdict.DIFFERENT))
    assert result.verdict is Verdict.DIFFERENT


def test_the_first_divergence_knows_which_rungs_held_before_it() -> None:
    one, two = (pair(loss={"x": 0.5}, update={"x": 0.5}) for _ in range(2))
    one.rung("structure").fault("epsilon")
    for name in ("loss", "update"):
        one.rung(name).first = two.rung(name).first = divergence(name)
    result = judge(one, one, two, REPEAT)

    def held(found: PairResult, rung: str) -> tuple[str, ...]:
        first = found.rung(rung).first_divergence
        assert first is not None
        return first.held_before

    assert held(result, "loss") == ("repeat", "initialisation", "forward")
    assert held(result, "update") == ("repeat", "initialisation", "forward", "gradient")


def test_a_divergence_is_told_from_float64_where_rounding_does_not_explain_it() -> None:
    one, two = pair(update={"x": 0.5, "y": 0.5}), pair(update={"x": 0.0, "y": 0.5})
    one.rung("update").first, two.rung("update").first = divergence("update", "x"), divergence("update", "y")
    first = judge(one, one, two, REPEAT).rung("update").first_divergence
    assert first is not None
    assert first.tensor == "y"


def test_judging_in_float64_shows_the_float64_numbers() -> None:
    one, two = pair(update={"x": BEFORE}), pair(update={"x": BEFORE * EPSILON_RATIO * 3})
    one.rung("update").max_abs, two.rung("update").max_abs = 1.0, 2.0
    found = judge(two, one, two, REPEAT).rung("update")
    assert (found.verdict, found.max_abs, found.float32_relative) == (Verdict.ROUNDING, 2.0, BEFORE)
    assert found.shrink == pytest.approx(3.0)


# --- Tolerances -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("relative", "allowed"),
    [
        (0.0, FLOOR),
        (BEFORE, ALLOWED),
        (1.0, SLACK * EPSILON_RATIO),
        (7.0, SLACK * EPSILON_RATIO),
        (math.inf, None),
        (math.nan, None),
    ],
)
def test_tolerances_are_never_zero_and_never_above_a_share_of_one(relative: float, allowed: float | None) -> None:
    found = tolerances(pair(update={"x": relative}))["update"]["x"]
    assert found == (SLACK * EPSILON_RATIO if allowed is None else allowed)


def test_the_published_numbers_are_small() -> None:
    """SLACK * 2**-29 of a float32 difference of one float32 ulp is no more than float64's own rounding allows for."""
    assert np.finfo(np.float64).eps / np.finfo(np.float32).eps == EPSILON_RATIO
    assert SLACK * EPSILON_RATIO < 1e-6
    assert FLOOR < 1e-12


@pytest.mark.parametrize("rung", sorted(CEILING))
@pytest.mark.parametrize(("share", "verdict"), [(1.0, Verdict.ROUNDING), (1.001, Verdict.DIFFERENT)])
def test_where_nothing_amplifies_float32_has_a_ceiling(rung: str, share: float, verdict: Verdict) -> None:
    single = share * CEILING[rung]
    measured: list[dict[str, Any]] = [{rung: {"x": value}} for value in (single, EPSILON_RATIO * single)]
    one, two = (pair(**each) for each in measured)
    assert judge(one, one, two, REPEAT).rung(rung).verdict is verdict


def test_products_in_float16_lie_above_the_ceiling() -> None:
    draws = np.random.default_rng(0)
    left, right = draws.normal(size=(50, 256)).astype(np.float32), draws.normal(size=(256, 20)).astype(np.float32)
    exact = left.astype(np.float64) @ right.astype(np.float64)

    def relative(dtype: str) -> float:
        return float(np.abs(left.astype(dtype) @ right.astype(dtype) - exact).max() / np.abs(exact).max())

    assert relative("float16") > 4 * CEILING["forward"]
    assert relative("float32") < CEILING["forward"] / 4
