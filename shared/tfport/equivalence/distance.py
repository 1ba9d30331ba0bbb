"""How far two arrays are apart: in bits, in value, in units in the last place, and as a share of their scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_PIECE = 1 << 16
"""Elements that are looked at together."""
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}
"""Size in bytes -> the integer that a float of that size is read as."""


@dataclass(frozen=True)
class Distance:
    """The distance of one pair of arrays; infinite where a value is not finite on either side."""

    same_bits: bool
    absolute: float
    """Largest absolute difference."""
    relative: float
    """Largest absolute difference, as a share of the legacy array's largest magnitude; of the modern one's where the
    legacy array is zero everywhere."""
    ulp: int
    """Largest distance in units in the last place; -1 where a value is not finite."""


IDENTICAL = Distance(True, 0.0, 0.0, 0)
FAILED = Distance(False, math.inf, math.inf, -1)


def counted(array: Array) -> bool:
    """Whether the array holds integers or truth values, between which rounding explains nothing."""
    return array.dtype.kind in "iub"


def _floating(array: Array) -> bool:
    """Whether the array holds floats whose bits can be counted."""
    return array.dtype.kind == "f" and array.dtype.itemsize in _INTEGERS


def _gap(left: Array, right: Array) -> Array:
    """Elementwise |left - right| of integers as uint64, which holds the distance of any two 64 bit integers."""
    high, low = np.maximum(left, right), np.minimum(left, right)
    with np.errstate(over="ignore"):  # the difference is right modulo 2**64, and it is less than that
        gap: Array = high.astype(np.uint64) - low.astype(np.uint64)
    return gap


def _ordered(array: Array) -> Array:
    """Floats as integers that count representable numbers in order, with both zeros at 0."""
    bits = array.view(_INTEGERS[array.dtype.itemsize])
    lowest = np.iinfo(bits.dtype).min
    return np.where(bits < 0, lowest - bits, bits)


def ulps(legacy: Array, modern: Array) -> Array:
    """Elementwise distance in units in the last place, uint64; arrays of one floating dtype and shape."""
    return _gap(_ordered(legacy), _ordered(modern))


def same_bits(legacy: Array, modern: Array) -> bool:
    """Whether dtype, shape and every bit agree and every value is finite: NaN is never equal, not even to itself.

    Nor is anything in a dtype that is neither float16, float32, float64, an integer nor bool.
    """
    if legacy.dtype != modern.dtype or legacy.shape != modern.shape or not legacy.size:
        return False
    if counted(legacy):
        return bool(np.array_equal(legacy, modern))
    if not _floating(legacy):
        return False
    kind = _INTEGERS[legacy.dtype.itemsize]
    if legacy is modern:
        return bool(np.isfinite(legacy).all())
    return all(
        np.array_equal(left.view(kind), right.view(kind)) and np.isfinite(left).all()
        for left, right in pieces(legacy, modern)
    )


def pieces(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape side by side, row by row, in flat pieces that stay in the processor's cache."""
    if all(array.flags.c_contiguous for array in arrays):
        flat = [array.reshape(-1) for array in arrays]
        for begin in range(0, arrays[0].size, _PIECE):
            yield tuple(array[begin : begin + _PIECE] for array in flat)
        return
    iterator = np.nditer(arrays, ["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=_PIECE)
    for found in iterator:
        yield found if isinstance(found, tuple) else (found,)


def magnitude(array: Array) -> float:
    """The largest magnitude in an array of floats; NaN where it holds one."""
    return float(np.maximum(array.max(), -array.min())) if array.size else 0.0


def farthest(one: Array, other: Array) -> float:
    """The largest difference of two arrays of floats, taken in float64; NaN where one holds NaN."""
    gaps = [magnitude(left.astype(np.float64) - right) for left, right in pieces(one, other)]
    return float(np.max(gaps, initial=0.0))


def distance(legacy: Array, modern: Array, least: float = 0.0) -> Distance:
    """Compares two arrays; another shape or dtype, an empty array, NaN or infinity count as infinitely far.

    `least` is the scale to take where the legacy array's own is smaller.
    """
    if same_bits(legacy, modern):
        return IDENTICAL
    if legacy.shape != modern.shape or legacy.dtype != modern.dtype or not legacy.size:
        return FAILED
    if counted(legacy):
        gap = int(_gap(legacy, modern).max())
        return Distance(False, float(gap), gap / max(float(np.abs(legacy.astype(np.float64)).max()), 1.0), gap)
    if not _floating(legacy):
        return FAILED
    absolute, scale, ulp = 0.0, least, 0
    for left, right in pieces(legacy, modern):
        with np.errstate(invalid="ignore", over="ignore"):
            apart = magnitude(left - right)
        if not math.isfinite(apart):
            return FAILED
        absolute, scale = max(absolute, apart), max(scale, magnitude(left))
        ulp = max(ulp, int(ulps(left, right).max()))
    scale = scale or absolute
    return Distance(False, absolute, absolute / scale if scale else 0.0, ulp)


@dataclass(frozen=True)
class Mismatch:
    """The first element at which two arrays differ by more than a tolerance, and how many do."""

    index: tuple[int, ...]
    legacy: float
    modern: float
    absolute: float
    relative: float
    ulp: int
    atol: float
    differing: int
    elements: int


def first_mismatch(legacy: Array, modern: Array, tolerance: float = 0.0, least: float = 0.0) -> Mismatch | None:
    """The first element, row by row, whose difference exceeds `tolerance` times the legacy array's largest magnitude.

    `least` is the scale to take where that magnitude is smaller.

    None where the arrays cannot be laid side by side (another shape) or no element differs so much.
    """
    if legacy.shape != modern.shape or not legacy.size:
        return None
    scale = least
    for (piece,) in pieces(legacy):
        left = piece.astype(np.float64)
        scale = float(np.abs(left[np.isfinite(left)]).max(initial=scale))
    first, seen, differing, atol = -1, 0, 0, 0.0
    for one, other in pieces(legacy, modern):
        left, right = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.abs(left - right)
        finite = np.isfinite(left) & np.isfinite(right)
        if tolerance:
            beyond = ~finite | (gap > tolerance * scale)
        elif one.dtype == other.dtype:
            beyond = ~finite | (_bytes(one) != _bytes(other)).any(axis=-1)
        else:
            beyond = ~finite | (left != right)
        if first < 0 and beyond.any():
            first = seen + int(np.argmax(beyond))
        seen, differing = seen + one.size, differing + int(beyond.sum())
        atol = max(atol, float(gap.max())) if finite.all() else math.inf
    if first < 0:
        return None
    index = tuple(int(each) for each in np.unravel_index(first, legacy.shape))
    a, b = float(legacy[index]), float(modern[index])
    whole = math.isfinite(a) and math.isfinite(b)
    absolute = abs(a - b) if whole else math.inf
    ulp = -1
    if whole and legacy.dtype == modern.dtype and (counted(legacy) or _floating(legacy)):
        ulp = int((_gap if counted(legacy) else ulps)(legacy[index].reshape(1), modern[index].reshape(1))[0])
    return Mismatch(
        index,
        a,
        b,
        absolute,
        absolute / (abs(a) or absolute or 1.0) if whole else math.inf,
        ulp,
        atol,
        differing,
        int(legacy.size),
    )


def _bytes(flat: Array) -> Array:
    """Each element's bytes, in a row."""
    return np.ascontiguousarray(flat).view(np.uint8).reshape(flat.size, -1)
