"""Draws are functions of what is drawn and when, the same for both sides and in both precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfport.checking.draws import DrawSource

Array = np.ndarray[Any, Any]
Draw = Callable[[DrawSource], Any]
KINDS: dict[str, Draw] = {
    "uniform": lambda source: source.uniform((50,)),
    "normal": lambda source: source.normal((50,)),
    "truncated_normal": lambda source: source.truncated_normal((50,)),
    "integers": lambda source: source.integers((50,), 0, 1_000),
    "shuffle": lambda source: source.shuffle(50),
    "bits": lambda source: np.array(source.bits()),
}


def begun(seed: int = 0, step: int = 0, phase: str = "train", **rest: Any) -> DrawSource:
    source = DrawSource(seed, step, **rest)
    source.begin(phase)
    return source


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_a_draw_is_a_function_of_seed_step_phase_and_place(draw: Draw) -> None:
    first = draw(begun())
    assert same(first, draw(begun()))
    for other in (begun(seed=1), begun(step=1), begun(phase="other")):
        assert not same(first, draw(other))
    source = begun()
    once, twice = draw(source), draw(source)
    assert same(once, first) and not same(twice, first)
    source.begin("train")
    assert same(draw(source), first)


def test_draws_of_another_kind_or_shape_in_between_change_nothing() -> None:
    plain, busy = begun(), begun()
    busy.normal((3,))
    busy.uniform((2, 3))
    busy.integers((3,), 0, 9)
    assert same(plain.uniform((3,)), busy.uniform((3,)))
    assert not same(begun().uniform((6,)), begun().uniform((2, 3)).reshape(6))
    assert not same(begun().integers((9,), 0, 90), begun().integers((9,), 0, 91))


def test_an_alias_gives_a_phase_the_draws_of_the_shared_name() -> None:
    one, other = begun(phase="train"), begun(phase="d_step", aliases={"d_step": "train"})
    assert same(one.normal((9,)), other.normal((9,)))
    assert not same(begun(phase="train").normal((9,)), begun(phase="d_step").normal((9,)))


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
def test_float64_sees_the_numbers_of_float32(kind: str) -> None:
    single, double = (getattr(begun(), kind)((500,), dtype) for dtype in ("float32", "float64"))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert np.array_equal(single.astype(np.float64), double)


def test_each_kind_is_what_its_name_says() -> None:
    source = begun()
    uniform = source.uniform((20_000,))
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    normal = source.normal((20_000,))
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03 and np.abs(normal).max() > 3
    truncated = source.truncated_normal((100, 200))
    assert truncated.shape == (100, 200)
    assert 1.9 < np.abs(truncated).max() <= 2 and abs(truncated.std() - 0.88) < 0.02
    integers = source.integers((20_000,), -2, 3)
    assert integers.dtype == np.int32 and set(integers.tolist()) == {-2, -1, 0, 1, 2}
    assert source.integers((3,), 0, 9, "int64").dtype == np.int64
    shuffled = source.shuffle(100)
    assert sorted(shuffled.tolist()) == list(range(100)) != shuffled.tolist()
    assert 0 <= source.bits() < 2**32


@pytest.mark.parametrize("draw", [lambda s: s.uniform(()), lambda s: s.normal(()), lambda s: s.truncated_normal(())])
def test_a_single_number_has_no_axes(draw: Draw) -> None:
    drawn = draw(begun())
    assert np.shape(drawn) == () and np.isfinite(drawn) and drawn.dtype == np.float32


def test_nothing_can_be_drawn_as_well() -> None:
    assert begun().uniform((0, 3)).shape == (0, 3)
    assert begun().truncated_normal((0,)).shape == (0,)
