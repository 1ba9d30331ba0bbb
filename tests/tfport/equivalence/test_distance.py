"""Distances: what is not the same is never at distance nothing, and every number is exact."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tfport.equivalence.distance import FAILED, IDENTICAL, distance, first_mismatch, same_bits, ulps

Array = np.ndarray[Any, Any]
FLOATS = ["float16", "float32", "float64"]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def array(*values: Any, dtype: str = "float32") -> Array:
    return np.array(values, dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "int64", "uint64", "bool"])
def test_same_bits_are_identical(dtype: str) -> None:
    values = array(0, 1, 3, dtype=dtype)
    assert distance(values, values.copy()) == IDENTICAL
    assert first_mismatch(values, values.copy()) is None


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("other", ["itself", "a number"])
def test_what_is_not_finite_equals_nothing_not_even_itself(dtype: str, bad: float, other: str) -> None:
    left = array(1, bad, 2, dtype=dtype)
    right = left.copy() if other == "itself" else array(1, 1, 2, dtype=dtype)
    for a, b in ((left, right), (right, left)):
        assert not same_bits(a, b)
        assert distance(a, b) == FAILED
        for tolerance in (0.0, 1.0, 1e30):
            found = first_mismatch(a, b, tolerance)
            assert found is not None
            assert (found.index, found.absolute, found.relative, found.ulp, found.atol) == (
                (1,),
                math.inf,
                math.inf,
                -1,
                math.inf,
            )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(0, np.float32), np.zeros(0, np.float32)),
        (np.zeros((3, 0), np.int64), np.zeros((3, 0), np.int64)),
        (np.zeros(3, np.float32), np.zeros((3, 1), np.float32)),
        (np.zeros((1, 3), np.float32), np.zeros(3, np.float32)),
        (np.float32(1).reshape(()), np.ones(1, np.float32)),
        (np.ones(3, np.float32), np.ones(3, np.float64)),
        (np.ones(3, np.int32), np.ones(3, np.int64)),
        (np.ones(3, np.int32), np.ones(3, np.float32)),
    ],
)
def test_empty_arrays_other_shapes_and_other_dtypes_are_infinitely_far(left: Array, right: Array) -> None:
    assert not same_bits(left, right)
    assert distance(left, right) == FAILED


@pytest.mark.parametrize(
    "values",
    [
        np.array([1 + 2j, 3]),
        np.array(["a", "b"]),
        np.array([1, 2], object),
        np.array([b"\1\2", b"\3\4"], "V2"),
        np.array([1, 2], "datetime64[s]"),
    ],
)
def test_a_dtype_nobody_knows_is_never_the_same(values: Array) -> None:
    assert not same_bits(values, values.copy())
    assert distance(values, values.copy()) == FAILED


def test_an_imaginary_part_is_not_dropped() -> None:
    assert distance(np.array([1 + 2j]), np.array([1 + 3j])) == FAILED


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_two_zeros_are_not_the_same_bits_and_no_distance_apart(dtype: str) -> None:
    found = distance(array(0.0, 1, dtype=dtype), array(-0.0, 1, dtype=dtype))
    assert not found.same_bits
    assert (found.absolute, found.relative, found.ulp) == (0.0, 0.0, 0)
    mismatch = first_mismatch(array(1, 0.0, dtype=dtype), array(1, -0.0, dtype=dtype))
    assert mismatch is not None
    assert (mismatch.index, mismatch.absolute, mismatch.relative, mismatch.ulp, mismatch.differing) == (
        (1,),
        0,
        0,
        0,
        1,
    )


def test_relative_is_a_share_of_the_legacy_arrays_largest_magnitude() -> None:
    found = distance(array(-4, 1, dtype="float64"), array(-4, 3, dtype="float64"))
    assert (found.absolute, found.relative) == (2.0, 0.5)


def test_relative_is_a_share_of_the_modern_magnitude_where_legacy_is_all_zero() -> None:
    found = distance(array(0, 0), array(0, 1e-30))
    assert found.relative == 1.0
    assert found.absolute == pytest.approx(1e-30)
    assert found.ulp > 0
    mismatch = first_mismatch(array(0, 0), array(0, 1e-30), 0.5)
    assert mismatch is not None
    assert (mismatch.index, mismatch.relative) == ((1,), 1.0)


# --- Units in the last place ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [1.0, -1.0, 1000.0, 0.0])
def test_neighbours_are_one_ulp_apart(dtype: str, value: float) -> None:
    one = array(value, dtype=dtype)
    for direction in (-np.inf, np.inf):
        other = np.nextafter(one, np.array(direction, dtype))
        assert distance(one, other).ulp == distance(other, one).ulp == 1
        mismatch = first_mismatch(one, other)
        assert mismatch is not None
        assert mismatch.ulp == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_ulps_are_counted_across_zero_and_through_denormals(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    assert distance(array(-tiny, dtype=dtype), array(tiny, dtype=dtype)).ulp == 2
    assert distance(array(-3 * tiny, dtype=dtype), array(4 * tiny, dtype=dtype)).ulp == 7
    smallest_normal = np.finfo(dtype).smallest_normal
    assert distance(array(0, dtype=dtype), array(smallest_normal, dtype=dtype)).ulp == 2 ** np.finfo(dtype).nmant
    assert distance(array(-0.0, dtype=dtype), array(tiny, dtype=dtype)).ulp == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_ulps_from_end_to_end_do_not_overflow(dtype: str) -> None:
    info = np.finfo(dtype)
    count = int(np.array(info.max, dtype).view(f"int{info.bits}"))
    for one, other in ((info.min, info.max), (info.max, info.min)):
        assert int(ulps(np.array(one, dtype), np.array(other, dtype))) == 2 * count
    found = ulps(array(info.min, dtype=dtype), array(info.max, dtype=dtype))
    assert int(found[0]) == 2 * count
    mismatch = first_mismatch(array(info.min, dtype=dtype), array(info.max, dtype=dtype))
    assert mismatch is not None
    assert mismatch.ulp == 2 * count


def test_a_difference_that_overflows_is_infinite_and_not_none() -> None:
    for dtype in FLOATS:
        info = np.finfo(dtype)
        assert distance(array(info.min, dtype=dtype), array(info.max, dtype=dtype)) == FAILED


@pytest.mark.parametrize("apart", [1, 2, 3, 1023])
def test_float64_ulps_are_exact_at_ordinary_values(apart: int) -> None:
    """float64 as an integer is past 2**53, so the distance may not be taken between floats."""
    one = array(0.7, dtype="float64")
    other = (one.view(np.int64) + apart).view(np.float64)
    assert distance(one, other).ulp == apart


def test_ulps_agree_with_a_count_by_hand() -> None:
    random = np.random.default_rng(0)
    left, right = (random.integers(0, 2**32, 500, np.uint32).view(np.float32) for _ in range(2))
    whole = np.isfinite(left) & np.isfinite(right)
    left, right = left[whole], right[whole]

    def rank(value: Any) -> int:
        bits = int(value.view(np.uint32))
        return bits if bits < 2**31 else 2**31 - bits

    expected = [abs(rank(a) - rank(b)) for a, b in zip(left, right, strict=True)]
    assert [int(each) for each in ulps(left, right)] == expected


# --- Integers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "left", "right", "gap"),
    [
        ("int64", 2**53, 2**53 + 1, 1),
        ("int64", -(2**63), 2**63 - 1, 2**64 - 1),
        ("uint64", 2**64 - 1, 2**64 - 2, 1),
        ("uint8", 1, 3, 2),
        ("int8", -128, 127, 255),
        ("bool", True, False, 1),
    ],
)
def test_integers_are_told_apart_exactly(dtype: str, left: int, right: int, gap: int) -> None:
    a, b = np.array([0, left], dtype), np.array([0, right], dtype)
    for found in (distance(a, b), distance(b, a)):
        assert not found.same_bits
        assert (found.ulp, found.absolute) == (gap, float(gap))
        assert found.relative > 0
    mismatch = first_mismatch(a, b)
    assert mismatch is not None
    assert (mismatch.index, mismatch.ulp, mismatch.differing) == ((1,), gap, 1)


# --- First mismatch ---------------------------------------------------------------------------------------------------
def test_first_mismatch_is_the_first_by_row_and_counts_them_all() -> None:
    left = np.arange(12, dtype=np.float32).reshape(3, 4)
    right = left.copy()
    right[1, 2] += 0.5
    right[2, 0] += 2
    found = first_mismatch(left, right)
    assert found is not None
    assert (found.index, found.legacy, found.modern) == ((1, 2), 6.0, 6.5)
    assert (found.absolute, found.relative, found.atol) == (0.5, 0.5 / 6, 2.0)
    assert (found.differing, found.elements) == (2, 12)


def test_first_mismatch_beyond_a_tolerance_passes_smaller_ones_over() -> None:
    left = np.array([10, 1, 1, 1], np.float64)
    right = left + np.array([0, 0.5, 1.5, 3.0])
    found = first_mismatch(left, right, 0.1)
    assert found is not None
    assert (found.index, found.differing, found.atol) == ((2,), 2, 3.0)
    assert first_mismatch(left, right, 0.3) is None
    assert first_mismatch(left, right, np.nextafter(0.3, 0)) is not None


def test_atol_is_the_smallest_tolerance_that_passes() -> None:
    random = np.random.default_rng(1)
    left = random.standard_normal((4, 5)).astype(np.float32)
    right = (left * np.float32(1 + 1e-6)).astype(np.float32)
    found = first_mismatch(left, right)
    assert found is not None
    gap = np.abs(left.astype(np.float64) - right.astype(np.float64))
    assert (gap <= found.atol).all()
    assert not (gap <= np.nextafter(found.atol, 0)).all()


def test_a_nan_counts_as_a_mismatch_where_it_stands() -> None:
    left, right = array(5, 5, math.nan, 5), array(5, 5, math.nan, 6)
    for tolerance in (0.0, 0.5):
        found = first_mismatch(left, right, tolerance)
        assert found is not None
        assert found.index == (2,)
        assert math.isnan(found.legacy)
    both = first_mismatch(left, right)
    assert both is not None
    assert both.differing == 2


def test_a_nan_does_not_widen_the_tolerance_of_the_rest() -> None:
    found = first_mismatch(array(1, math.inf), array(1.5, math.inf), 0.1)
    assert found is not None
    assert found.index == (0,)


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
def test_first_mismatch_of_scalars_has_an_empty_index(dtype: str) -> None:
    found = first_mismatch(np.array(2, dtype), np.array(3, dtype))
    assert found is not None
    assert (found.index, found.legacy, found.modern, found.elements, found.differing) == ((), 2.0, 3.0, 1, 1)
    assert first_mismatch(np.array(2, dtype), np.array(2, dtype)) is None


def test_first_mismatch_of_views_that_are_not_contiguous() -> None:
    whole = np.arange(24, dtype=np.float64).reshape(4, 6)
    other = whole.copy()
    other[2, 4] = -1
    found = first_mismatch(whole.T[::2], other.T[::2])
    assert found is not None
    assert (found.index, found.legacy, found.modern) == ((2, 2), 16.0, -1.0)
    assert distance(whole.T[::2], other.T[::2]).absolute == 17.0


def test_first_mismatch_across_dtypes_compares_values_and_claims_no_ulp() -> None:
    found = first_mismatch(array(1, 2), array(1, 2.5, dtype="float64"))
    assert found is not None
    assert (found.index, found.absolute, found.ulp) == ((1,), 0.5, -1)
    assert first_mismatch(array(1, 2), array(1, 2, dtype="float64")) is None


def test_nothing_can_be_laid_side_by_side_of_other_shapes_or_of_nothing() -> None:
    assert first_mismatch(array(1, 2), array(1, 2, 3)) is None
    assert first_mismatch(array(), array()) is None


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_give_what_the_whole_gives(dtype: type, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    left: Array = generator.standard_normal((9, 11)).astype(dtype)
    right = left.copy()
    right[4, 5:] += generator.standard_normal(6).astype(dtype) * dtype(1e-5)
    cases = [(left, right), (left.T, right.T), (left, np.asfortranarray(right)), (left[::2, ::3], right[::2, ::3])]
    whole = [(distance(*pair), first_mismatch(*pair, tolerance)) for pair in cases]
    assert all(mismatch is not None for _, mismatch in whole)
    monkeypatch.setattr("tfport.equivalence.distance._PIECE", 7)
    assert [(distance(*pair), first_mismatch(*pair, tolerance)) for pair in cases] == whole
    right[8, 10] = np.nan
    assert distance(left, right) == FAILED
    assert distance(right, right) == FAILED
