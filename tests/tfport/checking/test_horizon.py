"""At which values of a counter two sides are held against each other beyond the last step."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tfport.checking.horizon import values
from tfport.program import FURTHEST


@pytest.mark.parametrize("steps", [1, 6, 20, 2_000])
def test_values_begin_at_the_first_steps_and_reach_ten_million(steps: int) -> None:
    first, rest = values(steps)
    every = sorted({*first, *rest})
    assert every[:4] == [0, 1, 2, 3] and steps in every and every[-1] == FURTHEST >= 10**7
    assert not set(first) & set(rest)
    far = [value for value in every if value > 3]
    assert all(high <= 4 * low for low, high in pairwise(far))


@pytest.mark.parametrize("period", [10, 50, 64, 100, 390, 468, 500, 600, 1_000, 5_000])
def test_values_are_no_multiples_of_a_schedules_period(period: int) -> None:
    first, rest = values(7)
    assert all(value % period for value in (*first, *rest) if value > 3)
    assert all(math.gcd(value, period) == 1 for value in (*first, *rest) if value > 3)
