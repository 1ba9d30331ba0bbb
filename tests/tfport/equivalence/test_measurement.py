"""Gathering: nothing without a partner is skipped, and what was gathered survives the way between processes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tfport.equivalence.measurement import PairMeasurement, RungMeasurement, held_before
from tfport.equivalence.result import Divergence, LossCheck, Mover

Array = np.ndarray[Any, Any]


def added(*pairs: tuple[Any, Any], tolerance: float = 0.0, rung: str = "forward") -> RungMeasurement:
    """A rung to which the pairs were given as one tensor, one step each."""
    found = RungMeasurement(rung)
    for step, (legacy, modern) in enumerate(pairs):
        found.add("x", legacy, modern, step, "generator", {rung: {"x": tolerance}}, "float32")
    return found


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def test_equal_tensors_leave_no_mark() -> None:
    rung = added((floats(1, 2), floats(1, 2)), (1.5, 1.5))
    assert rung.same_bits
    assert (rung.compared, rung.max_abs, rung.max_ulp, rung.relative) == (2, 0.0, 0, {"x": 0.0})
    assert not (rung.missing or rung.faults or rung.first)


def test_the_largest_difference_of_all_steps_is_kept_and_the_first_place() -> None:
    rung = added((floats(1), floats(1)), (floats(1), floats(1.25)), (floats(1), floats(1.5)), (floats(1), floats(1)))
    assert not rung.same_bits
    assert (rung.max_abs, rung.relative) == (0.5, {"x": 0.5})
    assert rung.first is not None
    assert (rung.first.step, rung.first.tensor, rung.first.phase, rung.first.modern) == (1, "x", "generator", 1.25)


def test_a_tolerance_moves_the_first_place_and_hides_no_difference() -> None:
    rung = added((floats(1), floats(1.25)), (floats(1), floats(1.5)), tolerance=0.3)
    assert rung.first is not None
    assert rung.first.step == 1
    assert not rung.same_bits
    assert rung.relative == {"x": 0.5}
    within = added((floats(1), floats(1.25)), tolerance=0.3)
    assert within.first is None
    assert not within.same_bits


@pytest.mark.parametrize(
    ("legacy", "modern"), [(math.nan, math.nan), (math.inf, math.inf), (1.0, math.nan), (-math.inf, 1.0)]
)
def test_a_value_that_is_not_finite_is_a_fault(legacy: float, modern: float) -> None:
    for tolerance in (0.0, 1.0):
        rung = added((1.0, 1.0), (legacy, modern), tolerance=tolerance)
        assert not rung.same_bits
        assert rung.faults == ["x is the first without a finite distance, at step 1"]
        assert rung.first is not None
        assert (rung.first.step, rung.first.ulp) == (1, -1)


def test_only_the_first_that_is_not_finite_is_named_and_a_later_number_does_not_hide_it() -> None:
    rung = added((math.nan, 1.0), (math.nan, 1.0), (1.0, 1.0), (1.0, 2.0))
    assert rung.faults == ["x is the first without a finite distance, at step 0"]
    assert (rung.max_ulp, rung.max_abs, rung.relative) == (-1, math.inf, {"x": math.inf})


def test_a_count_that_differs_is_a_fault_whatever_the_tolerance() -> None:
    rung = added(
        (np.array(1000), np.array(1000)), (np.array(1000), np.array(1001)), (np.array(2), np.array(3)), tolerance=1
    )
    assert rung.faults == ["x is a count, and first differs at step 1"]
    assert rung.first is not None
    assert (rung.first.step, rung.first.absolute) == (1, 1.0)


@pytest.mark.parametrize(
    ("legacy", "modern", "text"),
    [
        (floats(1, 2), floats(1, 2, 3), "x: shape (2,) against (3,)"),
        (floats(1, 2), floats(1, 2).reshape(1, 2), "x: shape (2,) against (1, 2)"),
        (floats(1, 2), np.array([1.0, 2.0]), "x: dtype float32 against float64"),
        (np.array([1], np.int32), np.array([1], np.int64), "x: dtype int32 against int64"),
        (floats(), floats(), "x is empty on both sides"),
    ],
)
def test_what_cannot_be_compared_is_taken_down_as_missing(legacy: Array, modern: Array, text: str) -> None:
    rung = added((legacy, modern), (legacy, modern))
    assert rung.missing == [text]
    assert not rung.same_bits


def test_names_without_a_partner_are_taken_down_once_and_in_order() -> None:
    rung = RungMeasurement("forward")
    for step in range(2):
        rung.add_all(
            {"b": floats(1), "a": floats(1), "c": floats(1)},
            {"c": floats(1), "z": floats(1)},
            step,
            None,
            {},
            "training/",
        )
    assert rung.missing == [
        "training/a is missing on the modern side",
        "training/b is missing on the modern side",
        "training/z is only on the modern side",
    ]
    assert rung.compared == 2


def test_nothing_against_nothing_compares_nothing() -> None:
    rung = RungMeasurement("forward")
    rung.add_all({}, {}, 0, None, {})
    assert rung.compared == 0


def test_the_owner_of_a_tensor_is_its_phase() -> None:
    rung = RungMeasurement("update")
    rung.add_all({"a": floats(1)}, {"a": floats(2)}, 0, "step", {}, owner={"a": "discriminator"})
    assert rung.first is not None
    assert rung.first.phase == "discriminator"
    other = RungMeasurement("update")
    other.add_all({"a": floats(1)}, {"a": floats(2)}, 0, "step", {}, owner={"b": "discriminator"})
    assert other.first is not None
    assert other.first.phase == "step"


def test_a_pair_survives_the_way_through_json_with_nan_and_infinity() -> None:
    pair = PairMeasurement("tf1_graph", "keras3")
    pair.rung("structure").lack("a")
    pair.rung("structure").notes.append("b")
    rung = pair.rung("forward")
    rung.add("x", floats(1, math.inf), floats(1, 2), 3, None, {}, "float32")
    rung.add("y", np.array(2), np.array(3), 4, "generator", {}, "float32")
    rung.add("z", floats(0, 0.1), floats(0, 0.3), 4, "generator", {}, "float32")
    pair.movers.append(Mover("generator", ("a", "b"), ()))
    pair.loss_checks.append(LossCheck("keras3", "generator", "loss_G", -math.inf, 0.1, 1e-300))
    text = pair.to_json()
    assert "\n" not in text
    assert PairMeasurement.from_json(text) == pair
    assert PairMeasurement.from_json(text).to_json() == text


def test_a_nan_survives_the_way_through_json() -> None:
    pair = PairMeasurement("a", "b")
    pair.rung("loss").add("x", math.nan, math.nan, 0, None, {}, "float32")
    pair.loss_checks.append(LossCheck("b", "generator", "loss_G", math.nan, math.nan, math.nan))
    found = PairMeasurement.from_json(pair.to_json())
    first = found.rung("loss").first
    assert first is not None
    assert math.isnan(first.legacy)
    assert math.isnan(first.modern)
    assert not found.loss_checks[0].agrees
    assert json.loads(found.to_json())["rungs"]["loss"]["same_bits"] is False


def test_held_before_changes_nothing_else() -> None:
    one = Divergence("loss", 1, None, "x", (0,), (1,), "float32", 1.0, 2.0, 1.0, 1.0, 5, 1.0, 1, 1)
    held = held_before(one, ("repeat", "structure"))
    assert held.held_before == ("repeat", "structure")
    assert held_before(held, ()) == one
