"""Intermediates find their partners by value, whatever their layout and name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tfport.checking.values import CLOSE, Index, agree, first_apart, matched, telling

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Valued:
    name: str
    value: Array
    inputs: tuple[str, ...] = ()
    kind: str = ""


def drawn(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


# --- Two arrays -------------------------------------------------------------------------------------------------------
def test_rounding_agrees_and_more_does_not() -> None:
    array = drawn(4, 5)
    scale = np.abs(array).max()
    assert agree(array, array + np.float32(0.5 * CLOSE) * scale)
    assert not agree(array, array + np.float32(2 * CLOSE) * scale)
    assert agree(array, array + np.float32(2 * CLOSE) * scale, 4 * CLOSE)


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3)])
def test_axes_may_be_exchanged(order: tuple[int, ...]) -> None:
    array = drawn(2, 3, 4, 5)
    assert agree(array, array.transpose(order))
    assert not agree(array, array.transpose(order)[::-1])


def test_a_reshape_agrees_and_another_size_does_not() -> None:
    array = drawn(4, 6)
    assert agree(array, array.reshape(2, 12))
    assert not agree(array, array[:, :5])
    assert not agree(np.zeros(0), np.zeros(0))


def test_heads_may_be_an_axis_or_part_of_one() -> None:
    heads = drawn(2, 3, 4, 4)  # [B, H, T, T]
    merged = heads.transpose(1, 0, 2, 3).reshape(6, 4, 4)
    assert agree(merged, heads) and agree(heads, merged)
    assert not agree(merged, heads[:, ::-1])
    assert not agree(drawn(6, 4, 4), heads)


def test_what_one_side_tiles_is_the_partner_of_what_the_other_does_not() -> None:
    mask = drawn(3, 1, 5)
    tiled = Valued("tiled", np.tile(mask, [2, 1, 1]))
    for legacy, modern in (([tiled], Valued("mask", mask[:, None])), ([Valued("mask", mask)], tiled)):
        assert list(matched(legacy, [modern])) == [modern.name]
    assert not matched([tiled], [Valued("other", mask[::-1])])
    assert not matched([Valued("repeated", np.repeat(mask, 2, axis=0))], [Valued("mask", mask)])


@pytest.mark.parametrize("mask", [-1e9, -3.4e38])
def test_what_masks_a_part_hides_no_difference_of_the_rest(mask: float) -> None:
    scores = np.where([True, False, True, True], drawn(3, 4), np.float32(mask)).astype(np.float32)
    other = scores * np.array([1.1, 1, 1.1, 1.1], np.float32)
    assert agree(scores, scores * np.float32(1 + CLOSE / 8)) and not agree(scores, other)
    assert not agree(scores, scores[:, ::-1].copy())


def test_single_numbers_agree_by_value() -> None:
    assert agree(np.array(2.0), np.array([2.0]))
    assert not agree(np.array(2.0), np.array(2.1))
    assert agree(np.zeros(3), np.zeros(3))


def test_what_is_not_finite_agrees_with_the_same_alone() -> None:
    infinite = np.array([1.0, np.inf])
    assert agree(infinite, infinite.copy())
    assert not agree(infinite, np.array([1.0, 2.0]))
    assert not agree(np.array([1.0, np.nan]), np.array([1.0, np.nan]))


def test_a_constant_tells_nothing() -> None:
    assert telling(np.array([1.0, 2.0]))
    assert not telling(np.ones(3)) and not telling(np.array(1.0)) and not telling(np.zeros(0))


# --- Many -------------------------------------------------------------------------------------------------------------
def test_an_index_finds_all_of_a_value_in_order_and_nothing_else() -> None:
    a, b = drawn(3, 4), drawn(3, 4)
    index = Index([Valued("b", b), Valued("a", a), Valued("turned", a.T), Valued("int", np.arange(12))])
    assert index.find(a) == ["a", "turned"]
    assert index.find(a.astype(np.float64) * (1 + 2.0**-20)) == ["a", "turned"]
    assert index.find(a * np.float32(1.001)) == []
    assert index.find(np.arange(12)) == index.find(np.arange(12, dtype=np.int32).reshape(3, 4)) == ["int"]
    assert index.find(np.arange(12) + (np.arange(12) == 11)) == [] and index.find(np.arange(12.0)) == []
    assert index.find(np.full(12, np.nan)) == []
    assert index.find(np.zeros(0)) == []


def test_nodes_are_matched_in_order_of_computation() -> None:
    a, b = drawn(3), drawn(3)
    legacy = [Valued("one", a), Valued("two", a), Valued("three", b)]
    modern = [Valued("x", a), Valued("y", a), Valued("z", b), Valued("other", drawn(3))]
    assert matched(legacy, modern) == {"x": "one", "y": "two", "z": "three"}


def test_a_constant_array_is_no_partner_and_a_single_number_is() -> None:
    legacy = [Valued("ones", np.ones(3)), Valued("loss", np.array(0.5))]
    modern = [Valued("other", np.ones(3)), Valued("objective", np.array([0.5]))]
    assert matched(legacy, modern) == {"objective": "loss"}


def test_the_first_node_from_which_nothing_with_a_partner_comes_is_where_sides_part() -> None:
    a, b, c, d = (drawn(3) for _ in range(4))
    nodes = [Valued("in", a), Valued("rsqrt", b, ("in",)), Valued("out", c, ("rsqrt",)), Valued("loss", d, ("out",))]
    assert first_apart(nodes, {"in": "i", "out": "o", "loss": "l"}) is None
    found = first_apart(nodes, {"in": "i"})
    assert found is not None and found.name == "rsqrt"
    found = first_apart(nodes, {"in": "i", "out": "o"})
    assert found is not None and found.name == "loss"
    found = first_apart(nodes, {"in", "out"})
    assert found is not None and found.name == "loss"
    scaled = [
        Valued("in", a),
        Valued("mul", b, ("in",)),
        Valued("positive", b > 0, ("mul",)),
        Valued("loss", c, ("mul",)),
    ]
    found = first_apart(scaled, {"in": "i", "positive": "p"})
    assert found is not None and found.name == "mul"
    kept = [Valued("in", a), Valued("draw", b), Valued("all", b > -9, ("draw",)), Valued("out", a, ("in", "all"))]
    assert first_apart(kept, {"in": "i", "out": "i"}) is None
    ids = [Valued("x", np.arange(3)), Valued("add", np.arange(1, 4), ("x",)), Valued("taken", np.arange(3), ("add",))]
    assert first_apart(ids, {"x": "x", "taken": "x"}) is None
    labels = [
        Valued("y", np.arange(3)),
        Valued("cast", np.arange(3.0), ("y",)),
        Valued("back", np.arange(3), ("cast",)),
    ]
    assert first_apart(labels, {"y": "y", "back": "y"}) is None
    assert first_apart([Valued("count", np.array(3))], {}) is None
    found = first_apart([Valued("ids", np.arange(3))], {})
    assert found is not None and found.name == "ids"


def test_different_iterations_of_two_loops_are_no_partners() -> None:
    sequence = [drawn(4, 3) for _ in range(3)]
    one = [Valued(f"a [iteration {t}]", value) for t, value in enumerate(sequence)]
    other = [Valued(f"b [iteration {t}]", value) for t, value in enumerate(reversed(sequence))]
    assert matched(one, other) == {"b [iteration 1]": "a [iteration 1]"}
    unrolled = [Valued(f"b_{t}", value) for t, value in enumerate(sequence)]
    assert len(matched(one, unrolled)) == 3


@pytest.mark.parametrize(("known", "place"), [(("p0", "p1"), None), (("p1",), "whole")])
def test_one_part_says_nothing_of_the_whole_where_another_has_no_partner(known: tuple[str, ...], place: Any) -> None:
    whole = Valued("whole", drawn(2, 4))
    parts = [Valued(f"p{n}", drawn(4), ("whole",), "Split") for n in range(2)]
    found = first_apart([whole, *parts], set(known))
    assert (found.name if found else None) == place


def test_a_part_of_nothing_says_nothing() -> None:
    whole, known = Valued("whole", drawn(8)), Valued("known", drawn(4), ("part",))
    parts = [Valued("part", drawn(4), ("whole",), "StridedSlice"), Valued("rest", drawn(0), ("whole",), "StridedSlice")]
    assert first_apart([whole, *parts, known], {"known"}) is None


def test_a_part_that_heals_by_what_follows_leaves_the_whole_healed() -> None:
    whole = Valued("whole", drawn(2, 4))
    parts = [Valued(f"p{n}", drawn(4), ("whole",), "Split") for n in range(2)]
    after = Valued("after", drawn(4), ("p0",))
    assert first_apart([whole, *parts, after], {"p1", "after"}) is None


@pytest.mark.parametrize(("others", "place"), [((), None), (("other",), "scores")])
def test_a_product_says_nothing_of_what_its_zeros_hide_where_something_else_reads_it(
    others: tuple[str, ...], place: Any
) -> None:
    scores, mask = Valued("scores", drawn(4)), np.array([1, 0, 1, 0], np.float32)
    nodes = [scores, Valued("product", scores.value * mask, ("scores",), "Mul")]
    nodes += [Valued(name, drawn(4), ("scores",)) for name in others]
    found = first_apart(nodes, {"product"})
    assert (found.name if found else None) == place
    whole = Valued("product", scores.value * 2, ("scores",), "Mul")
    found = first_apart([scores, whole, *nodes[2:]], {"product"})
    assert (found.name if found else None) == (others[0] if others else None)
