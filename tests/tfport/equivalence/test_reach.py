"""The scale on which a trajectory's differences are measured."""

from __future__ import annotations

import numpy as np

from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.reach import Reach


def test_it_is_the_largest_so_far() -> None:
    reach = Reach().seen({"m": np.array([3.0, -5.0]), "n": np.array(7)}).seen({"m": np.array([1.0, 0.5])})
    assert reach.least({}) == {"m": 5.0}
    assert reach.least({"m": 9.0, "other": 2.0}) == {"m": 9.0, "other": 2.0}


def test_what_is_not_finite_has_no_reach() -> None:
    assert Reach().seen({"m": np.array([np.nan, np.inf, 2.0]), "empty": np.zeros(0)}).least({}) == {"m": 2.0}


def test_a_moment_that_passes_zero_is_measured_on_what_it_was() -> None:
    before, left, right = ({"m": np.array([value])} for value in (1.0, 1e-9, 1e-9 + 1e-13))
    momentary, reached = RungMeasurement("resume"), RungMeasurement("resume")
    momentary.add_all(left, right, 0, None, {})
    reached.add_all(left, right, 0, None, {}, least=Reach().seen(before).seen(left).least({}))
    assert momentary.relative["m"] > 9e-5
    assert 0 < reached.relative["m"] < 2e-13


def test_a_difference_as_large_as_the_tensor_was_is_seen_all_the_same() -> None:
    before, left, right = ({"m": np.array([value])} for value in (1.0, 1e-9, 0.5))
    rung = RungMeasurement("resume")
    rung.add_all(left, right, 0, None, {}, least=Reach().seen(before).seen(left).least({}))
    assert rung.relative["m"] > 0.4
