"""What user code draws by Python's and numpy's generators: recorded numbers, wherever the generators lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfport.adapters import python_draws
from tfport.adapters.python_draws import Holders
from tfport.checking.draws import DrawSource

HELD = np.random.default_rng(3)
STATE = np.random.RandomState(4)
PYTHON = random.Random(5)


def drawn(call: Callable[[], Any], *generators: Any) -> Any:
    """What a call draws that is fed, twice alike."""
    found = []
    for _ in range(2):
        draws = DrawSource(7)
        draws.begin("step")
        with python_draws.fed(draws, Holders(list(generators))):
            found.append(call())
    np.testing.assert_array_equal(*found)
    return found[0]


def expected(call: Callable[[DrawSource], Any]) -> Any:
    draws = DrawSource(7)
    draws.begin("step")
    return call(draws)


@pytest.mark.parametrize(
    ("calls", "numbers"),
    [
        (
            [
                lambda: np.random.randn(2, 3),  # noqa: NPY002
                lambda: np.random.normal(size=(2, 3)),  # noqa: NPY002
                lambda: np.random.default_rng().normal(size=(2, 3)),
                lambda: HELD.standard_normal((2, 3)),
                lambda: STATE.normal(0, 1, (2, 3)),
            ],
            lambda draws: draws.normal((2, 3)),
        ),
        (
            [lambda: HELD.normal(1.0, [2.0, 3.0], (4, 2)), lambda: STATE.normal(1.0, [2.0, 3.0], (4, 2))],
            lambda draws: 1.0 + np.array([2.0, 3.0]) * draws.normal((4, 2)),
        ),
        (
            [
                lambda: np.random.rand(),  # noqa: NPY002
                lambda: random.random(),
                lambda: HELD.random(),
                lambda: HELD.uniform(0.0, 1.0),
                lambda: PYTHON.uniform(0.0, 1.0),
            ],
            lambda draws: draws.uniform(()),
        ),
        (
            [
                lambda: np.random.randint(2, 9, 4),  # noqa: NPY002
                lambda: HELD.integers(2, 9, 4),
                lambda: HELD.integers(2, 8, 4, endpoint=True),
            ],
            lambda draws: draws.integers((4,), 2, 9),
        ),
        (
            [
                lambda: random.randint(2, 8),
                lambda: random.randrange(2, 9),
                lambda: PYTHON.randint(2, 8),
                lambda: STATE.randint(2, 9),
            ],
            lambda draws: draws.integers((), 2, 9),
        ),
        (
            [
                lambda: np.random.permutation(5),  # noqa: NPY002
                lambda: HELD.permutation(np.arange(5)),
                lambda: HELD.choice(5, 5, replace=False),
                lambda: shuffled(np.random.shuffle, np.arange(5)),
                lambda: shuffled(PYTHON.shuffle, list(range(5))),
                lambda: PYTHON.sample(range(5), 5),
            ],
            lambda draws: draws.shuffle(5),
        ),
        (
            [lambda: HELD.beta(1.0, 2.0, 3), lambda: np.random.beta(1.0, 2.0, 3)],  # noqa: NPY002
            lambda draws: draws.number("numpy beta", (3,)).beta(1.0, 2.0, 3),
        ),
        (
            [lambda: HELD.choice(3, 4, p=[0.1, 0.2, 0.7]), lambda: STATE.choice(3, 4, p=[0.1, 0.2, 0.7])],
            lambda draws: draws.number("numpy choice", (4,)).choice(3, 4, p=[0.1, 0.2, 0.7]),
        ),
    ],
)
def test_numbers_are_keyed_by_what_is_drawn(calls: list[Callable[[], Any]], numbers: Callable[[Any], Any]) -> None:
    for call in calls:
        np.testing.assert_allclose(drawn(call, HELD, STATE, PYTHON), expected(numbers), rtol=1e-6)


def shuffled(shuffle: Callable[[Any], None], things: Any) -> Any:
    shuffle(things)
    return things


def test_generators_are_found_where_they_lie_and_put_back() -> None:
    class Noise:
        def __init__(self) -> None:
            self.own = np.random.default_rng(1)
            self.listed = [np.random.default_rng(2)]

    noise, inner = Noise(), np.random.default_rng(3)
    places: list[Callable[[], Any]] = [lambda: noise.own, lambda: noise.listed[0], lambda: inner, lambda: HELD]
    before = [place() for place in places]
    states = [str(each.bit_generator.state) for each in before]
    found = drawn(lambda: [place().normal() for place in places], *before)
    np.testing.assert_allclose(found, expected(lambda draws: [draws.normal(()) for _ in places]), rtol=1e-6)
    assert [place() for place in places] == before
    assert [str(each.bit_generator.state) for each in before] == states
    assert type(PYTHON) is random.Random
    assert isinstance(np.random.rand.__self__, np.random.RandomState)  # type: ignore[attr-defined]


def test_what_is_given_a_seed_in_the_call_draws_its_own() -> None:
    found = drawn(lambda: np.random.default_rng(3).normal(size=2))
    np.testing.assert_array_equal(found, np.random.default_rng(3).normal(size=2))


def test_dtypes_and_errors_are_the_originals() -> None:
    assert drawn(lambda: HELD.standard_normal(2, dtype=np.float32), HELD).dtype == np.float32
    assert drawn(lambda: HELD.integers(0, 3, 2, dtype=np.uint8), HELD).dtype == np.uint8
    assert isinstance(drawn(lambda: np.random.normal()), float)  # noqa: NPY002
    into = np.zeros(2)
    drawn(lambda: HELD.random(2, out=into), HELD)
    assert into.all()
    with pytest.raises(ValueError, match="low >= high"):
        drawn(lambda: HELD.integers(3, 0), HELD)


def test_a_generator_that_was_made_in_a_call_is_its_own_afterwards() -> None:
    kept: list[Any] = []

    def made() -> float:
        kept.append(np.random.default_rng())
        return float(kept[-1].random())

    drawn(made)
    first, second = kept
    assert first.random() != second.random()
