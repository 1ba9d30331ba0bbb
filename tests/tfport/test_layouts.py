"""Blocks carry arrays there and back, tile variables, and are told in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfport.layouts import (
    MappedVariable,
    by_variables,
    fault,
    in_words,
    laid_back,
    laid_out,
    merged,
    share,
    to_legacy,
    to_modern,
)

Array = np.ndarray[Any, Any]
UNITS = 3


def gate(origin: int, place: int, **changes: Any) -> MappedVariable:
    """One gate of a bias."""
    span = ((origin * UNITS, (origin + 1) * UNITS),)
    there = ((place * UNITS, (place + 1) * UNITS),)
    return MappedVariable("b", "bias", (12,), (12,), legacy_block=span, modern_block=there, **changes)


LSTM = [gate(0, 0), gate(2, 1, offset=1.0), gate(1, 2), gate(3, 3)]
"""i, c, f, o as i, f, c, o, and 1 added to the forget gate."""
DENSE = MappedVariable(
    "w", "kernel", (24, 5), (24, 5), (2, 0, 1, 3), True, view=(2, 3, 4, 5)
)  # rows of an image, channels last, as channels first
KERNEL = [
    MappedVariable("k", "kernel", (7, 12), (12, 4), (1, 0), legacy_block=((0, 4), (0, 12))),
    MappedVariable("k", "recurrent", (7, 12), (3, 12), legacy_block=((4, 7), (0, 12))),
]


def test_gates_change_places_and_the_offset_is_of_weights_alone() -> None:
    bias = np.arange(12.0)
    i, c, f, o = bias.reshape(4, UNITS)
    weights = to_modern([(pair, bias) for pair in LSTM], weights=True)
    assert np.array_equal(weights, np.concatenate([i, f + 1, c, o]))
    assert np.array_equal(to_legacy([(pair, weights) for pair in LSTM], weights=True), bias)
    slot = to_modern([(pair, bias) for pair in LSTM], weights=False)
    assert np.array_equal(slot, np.concatenate([i, f, c, o]))
    assert np.array_equal(to_legacy([(pair, slot) for pair in LSTM], weights=False), bias)


def test_one_variable_is_split_and_joined_again() -> None:
    array = np.random.default_rng(0).normal(size=(7, 12))
    parts = [(pair, to_modern([(pair, array)], weights=True)) for pair in KERNEL]
    assert np.array_equal(parts[0][1], array[:4].T) and np.array_equal(parts[1][1], array[4:])
    assert np.array_equal(to_legacy(parts, weights=True), array)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (DENSE, lambda a: a.reshape(2, 3, 4, 5).transpose(2, 0, 1, 3).reshape(24, 5)),
        (MappedVariable("a", "b", (3, 4), (4, 3), (1, 0), flip=(0,)), lambda a: a.T[::-1]),
        (MappedVariable("a", "b", (3, 4), (3, 4), flip=(0, 1)), lambda a: a[::-1, ::-1]),
        (
            MappedVariable("a", "b", (3, 3, 4, 2), (8, 1, 3, 3), (2, 3, 0, 1), True),
            lambda a: a.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3),
        ),
    ],
)
def test_a_layout_is_what_numpy_says_and_is_undone(pair: MappedVariable, expected: Any) -> None:
    array = np.random.default_rng(1).normal(size=pair.legacy_shape)
    out = laid_out(array, pair)
    assert np.array_equal(out, expected(array))
    assert np.array_equal(laid_back(out, pair), array)


def test_what_has_no_block_stays() -> None:
    base = np.full(12, 7.0)
    found = to_modern([(gate(1, 0), np.arange(12.0))], weights=True, base=base)
    assert found.tolist() == [3, 4, 5, *[7] * 9]


# --- Sums -------------------------------------------------------------------------------------------------------------
TWO = [MappedVariable(name, "bias", (4,), (4,), summed=True) for name in ("ih", "hh")]


def test_a_sum_is_loaded_as_a_sum_and_its_movement_is_shared() -> None:
    one, other = np.arange(4.0), np.full(4, 10.0)
    total = to_modern([(TWO[0], one), (TWO[1], other)], weights=True)
    assert np.array_equal(total, one + other)
    moved = total - 0.5
    for pair, legacy in zip(TWO, (one, other), strict=True):
        back = to_legacy([(pair, share(moved, pair, TWO, (legacy, total)))], weights=True)
        assert np.array_equal(back, legacy - 0.25)


def test_a_sum_that_was_not_loaded_is_shared_out_alike() -> None:
    assert share(np.full(4, 3.0), TWO[0], TWO, None).tolist() == [1.5] * 4


def test_gradients_of_summands_are_the_sums() -> None:
    gradient = np.arange(4.0)
    assert np.array_equal(to_legacy([(TWO[0], gradient)], weights=False), gradient)
    assert np.array_equal(to_modern([(TWO[0], gradient), (TWO[1], gradient)], weights=False), gradient)


def test_two_modern_summands_add_up() -> None:
    pairs = [MappedVariable("b", name, (4,), (4,), summed=True) for name in ("ih", "hh")]
    arrays = [np.arange(4.0), np.ones(4)]
    assert to_legacy(list(zip(pairs, arrays, strict=True)), weights=True).tolist() == [1, 2, 3, 4]
    assert to_legacy(list(zip(pairs, arrays, strict=True)), weights=False).tolist() == [0.5, 1, 1.5, 2]


# --- Tiles ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pairs", [LSTM, KERNEL, [DENSE], TWO, []])
def test_a_mapping_that_tiles_its_variables_has_no_fault(pairs: list[MappedVariable]) -> None:
    assert fault(pairs) == ""


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (LSTM[:3], "the blocks of the legacy variable b (12,) leave a gap: nothing maps [9:12]; add a block for it."),
        ([*LSTM, gate(3, 3)], "legacy variable b (12,) overlap: [9:12] and [9:12]; each element belongs to one"),
        ([*LSTM[:3], gate(3, 2)], "modern variable bias (12,) overlap: [6:9] and [6:9]"),
        ([*LSTM[:3], gate(3, 4)], "modern variable bias (12,) exceed it: [12:15]; give one [start, stop] for each"),
        ([TWO[0], MappedVariable("hh", "bias", (4,), (4,))], "modern variable bias (4,) overlap"),
        (KERNEL[:1], "legacy variable k (7, 12) leave a gap: nothing maps [4:7, 0:12]"),
    ],
)
def test_a_mapping_that_does_not_is_told(pairs: list[MappedVariable], message: str) -> None:
    assert message in fault(pairs)


# --- Making and telling -----------------------------------------------------------------------------------------------
def test_neighbours_are_one_block() -> None:
    assert merged([gate(place, place) for place in (2, 0, 3, 1)]) == [MappedVariable("b", "bias", (12,), (12,))]
    turned = [
        MappedVariable(
            "k",
            "kernel",
            (4, 6),
            (6, 4),
            (1, 0),
            legacy_block=((0, 4), (start, start + 3)),
            modern_block=((start, start + 3), (0, 4)),
        )
        for start in (0, 3)
    ]
    assert merged(turned) == [MappedVariable("k", "kernel", (4, 6), (6, 4), (1, 0))]
    assert len(merged([gate(0, 1), gate(1, 0)])) == 2
    assert len(merged(LSTM)) == 4


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (LSTM, "elements 0 to 2, 6 to 8, 3 to 5, 9 to 11; 1 added to elements 6 to 8"),
        (KERNEL[:1], "rows 0 to 3; transposed (1, 0)"),
        ([DENSE], "seen as (2, 3, 4, 5); transposed (2, 0, 1, 3); reshaped"),
        ([MappedVariable("a", "b", (4,), (4,))], ""),
        (TWO[:1], "added up with others"),
        ([MappedVariable("a", "b", (3,), (2, 3), (), True, modern_block=((1, 2), (0, 3)))], "reshaped; as rows 1 to 1"),
    ],
)
def test_a_layout_is_told_in_words(pairs: list[MappedVariable], text: str) -> None:
    (group,) = by_variables(pairs)
    assert in_words(group) == text
