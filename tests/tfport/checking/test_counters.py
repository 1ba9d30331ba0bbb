"""Counters are paired by what they do, then by name."""

from __future__ import annotations

import numpy as np
import pytest

from tfport.checking.counters import Counted, Track, as_count, pair


def track(*values: int) -> Track:
    return Track({step: np.array(value) for step, value in enumerate(values)})


def test_by_what_they_do_whatever_the_name() -> None:
    legacy = {"counter/global_step": track(0, 1, 2), "counter/pairs": track(0, 2, 4)}
    modern = {"n": track(0, 2, 4), "ticks": track(0, 1, 2)}
    assert pair(legacy, modern) == {"n": Counted("counter/pairs"), "ticks": Counted("counter/global_step")}


def test_a_name_decides_between_those_that_do_the_same() -> None:
    legacy = {"counter/a": track(0, 1), "counter/b": track(0, 1)}
    assert pair(legacy, {"b": track(0, 1)}) == {"b": Counted("counter/b")}


def test_one_that_begins_elsewhere_is_ahead() -> None:
    assert pair({"counter/n": track(0, 1, 2)}, {"t": track(1, 2, 3)}) == {"t": Counted("counter/n", 1)}


def test_one_name_pairs_what_counts_otherwise() -> None:
    assert pair({"counter/n": track(0, 1, 2)}, {"n": track(0, 2, 4)}) == {"n": Counted("counter/n")}


def test_what_stands_still_is_paired_by_name_alone() -> None:
    assert pair({"counter/n": track(0, 0)}, {"m": track(0, 0), "ticks": track(0, 1)}) == {}


def test_a_flag_and_another_shape_have_no_slope() -> None:
    assert track(0, 1, 1).slope is None
    assert pair({"counter/n": track(0, 1)}, {"m": Track({0: np.zeros(2, int), 1: np.ones(2, int)})}) == {}


@pytest.mark.parametrize(("values", "step", "expected"), [((3, 5, 7), 10, 23), ((0, 1, 1), 10, 1), ((0, 1, 1), 0, 0)])
def test_where_it_is_at_a_step(values: tuple[int, ...], step: int, expected: int) -> None:
    assert track(*values).at(step) == expected


def test_as_whole_numbers() -> None:
    assert as_count(np.float32(3)).dtype == np.int64
    assert as_count(np.array(True)) == 1
    assert as_count(np.float32(0.5)).dtype == np.float32


def test_what_every_step_multiplies_is_counted() -> None:
    powers = Track({step: np.array(0.999, "f") ** step for step in range(5)})
    assert powers.counts and powers.ratio == 0.999
    assert powers.at(1_000) == pytest.approx(0.999**1_000, rel=1e-12)
    for values in ((1.0, 0.5), (1.0, 0.9, 0.85), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 2.0, 4.0)):
        assert Track({step: np.array(value, "f") for step, value in enumerate(values)}).ratio is None, values
