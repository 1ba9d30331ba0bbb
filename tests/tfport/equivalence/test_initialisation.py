"""Rung 2: another distribution is found, and equal ones are not told apart by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fakes import FakeSubject, Faults, small_spec
from tfport.equivalence import initialisation
from tfport.equivalence.initialisation import BUILDS, LEVEL, compare_initialisation, draws
from tfport.equivalence.measurement import RungMeasurement

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, int], Array]
HIDDEN = BUILDS * 128 * 256
"""How many numbers of the smaller of vanilla_gan's large kernels a side draws."""
OUTPUT = BUILDS * 256
"""The same of its smallest kernel."""


def normal(stddev: float = 0.01, mean: float = 0.0) -> Draw:
    return lambda random, size: random.normal(mean, stddev, size).astype(np.float32)


def uniform(random: np.random.Generator, size: int) -> Array:
    """Of the same deviation as `normal()`."""
    return random.uniform(-0.01 * math.sqrt(3), 0.01 * math.sqrt(3), size).astype(np.float32)


def truncated(stddev: float) -> Draw:
    """A normal distribution cut at two deviations, as Keras's truncated_normal."""

    def draw(random: np.random.Generator, size: int) -> Array:
        from scipy import stats

        return np.asarray(stats.truncnorm.rvs(-2, 2, scale=stddev, size=size, random_state=random), np.float32)

    return draw


def compared(legacy: dict[str, Array], modern: dict[str, Array]) -> RungMeasurement:
    rung = RungMeasurement("initialisation")
    compare_initialisation(rung, legacy, modern)
    return rung


def faults(modern: Draw, size: int = HIDDEN, seed: int = 0) -> list[str]:
    """What is found of one kernel that should be `normal()`."""
    left, right = (np.random.default_rng((seed, side)) for side in range(2))
    return compared({"kernel": normal()(left, size)}, {"kernel": modern(right, size)}).faults


@pytest.mark.parametrize(
    "modern",
    [
        normal(0.0105),
        normal(0.0095),
        normal(0.02),
        normal(mean=0.001),
        uniform,
        truncated(0.01),
        truncated(0.01 / 0.87962566103423978),
        lambda random, size: np.abs(normal()(random, size)),
    ],
    ids=["5% wider", "5% narrower", "double", "mean", "uniform", "truncated", "truncated, same deviation", "folded"],
)
def test_another_distribution_of_a_large_kernel_is_found(modern: Draw) -> None:
    for seed in range(5):
        found = faults(modern, seed=seed)
        assert len(found) == 1, seed
        assert "starts as mean" in found[0]


@pytest.mark.parametrize(
    "modern", [normal(0.02), normal(0.005), normal(math.sqrt(2 / 257))], ids=["2x", "half", "glorot"]
)
def test_another_deviation_of_the_smallest_kernel_is_found(modern: Draw) -> None:
    assert all(faults(modern, OUTPUT, seed) for seed in range(20))


def test_a_bias_that_does_not_start_at_zero_is_found() -> None:
    zeros = np.zeros(10, np.float32)
    rung = compared({"bias": zeros}, {"bias": zeros + np.float32(0.01)})
    assert rung.faults == ["bias starts as the constant 0 against the constant 0.01"]
    assert not compared({"bias": zeros}, {"bias": zeros}).faults


def test_a_constant_against_draws_is_found_either_way() -> None:
    zeros, drawn = np.zeros(50, np.float32), normal()(np.random.default_rng(0), 50)
    for legacy, modern in ((zeros, drawn), (drawn, zeros)):
        found = compared({"x": legacy}, {"x": modern}).faults
        assert len(found) == 1
        assert "the constant 0" in found[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["legacy", "modern", "both"])
@pytest.mark.parametrize("of", ["draws", "constants"])
def test_a_start_that_is_not_finite_is_found(bad: float, where: str, of: str) -> None:
    good = normal()(np.random.default_rng(0), 100) if of == "draws" else np.zeros(100, np.float32)
    spoilt = good.copy()
    spoilt[7] = bad
    legacy, modern = (spoilt if where in (side, "both") else good for side in ("legacy", "modern"))
    assert compared({"x": legacy}, {"x": modern}).faults == ["x is initialised with NaN or infinity"]


def test_nan_alone_is_found() -> None:
    nothing = np.full(10, math.nan, np.float32)
    assert compared({"x": nothing}, {"x": nothing}).faults


def test_names_without_a_partner_and_empty_arrays_are_not_comparable() -> None:
    one, empty = np.zeros(3, np.float32), np.zeros(0, np.float32)
    rung = compared({"a": one, "c": empty}, {"b": one, "c": empty})
    assert rung.missing == ["a is initialised on one side only", "b is initialised on one side only", "c is empty"]
    assert not rung.notes


def test_equal_distributions_pass() -> None:
    """What a false alarm costs is trust: none in 300 comparisons of four kernels."""
    for seed in range(300):
        random = np.random.default_rng(seed)
        legacy, modern = (
            {str(each): normal()(random, size) for each, size in enumerate((2000, 500, 48, 12))} for _ in range(2)
        )
        assert not compared(legacy, modern).faults


def test_the_level_is_that_of_all_tests_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LEVEL <= 1e-6
    monkeypatch.setattr(initialisation, "LEVEL", 0.05)
    alarms = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        legacy, modern = ({str(each): normal()(random, 300) for each in range(4)} for _ in range(2))
        alarms += bool(compared(legacy, modern).faults)
    assert 0 < alarms <= 400 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 400))


def test_draws_pools_builds_that_differ_and_puts_the_state_back() -> None:
    subject = FakeSubject(small_spec())
    before = subject.state().digest()
    found = draws(subject)
    assert subject.state().digest() == before
    assert found["generator/hidden/kernel"].shape == (BUILDS * 24,)
    assert len(np.unique(found["generator/hidden/kernel"])) == BUILDS * 24
    assert found["optimizer/generator/iterations"].tolist() == [0] * BUILDS


def test_own_initialisers_are_compared() -> None:
    legacy = draws(FakeSubject(small_spec(), seed=1))
    assert not compared(legacy, draws(FakeSubject(small_spec(), seed=2))).faults
    wide = compared(legacy, draws(FakeSubject(small_spec(), seed=2, faults=Faults(stddev=20.0))))
    assert any(fault.startswith("generator/hidden/kernel starts as mean") for fault in wide.faults)


@pytest.mark.parametrize("side", ["legacy", "modern", "legacy and the modern"])
def test_weights_that_ignore_the_seed_are_one_draw(side: str) -> None:
    one, other, third = (np.random.default_rng(seed).normal(size=500) for seed in (1, 2, 3))
    drawn, fixed = np.concatenate([one, other]), np.concatenate([third, third])
    left, right = (fixed if "legacy" in side else drawn), (fixed if "modern" in side else drawn)
    if side == "legacy and the modern":
        right = np.concatenate([one, one])
    rung = compared({"kernel": left}, {"kernel": right})
    assert not rung.faults
    assert any(note.startswith(f"kernel: the same on every build of the {side} side") for note in rung.notes)
    wide = compared({"kernel": 2 * left}, {"kernel": right})
    assert len(wide.faults) == 1
    assert "starts as mean" in wide.faults[0]
    assert not wide.notes


def test_a_small_kernel_of_a_fixed_seed_is_no_fault() -> None:
    for seed in range(50):
        draws = np.random.default_rng(seed)
        fixed = np.tile(draws.normal(size=6), BUILDS)
        assert not compared({"kernel": fixed}, {"kernel": draws.normal(size=6 * BUILDS)}).faults
