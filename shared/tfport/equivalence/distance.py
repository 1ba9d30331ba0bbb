"""How far two arrays are apart: in bits, in value, in units in the last place, and as a share of their scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

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
    left, right = np.ascontiguousarray(legacy), np.ascontiguousarray(modern)
    return bool(np.array_equal(left.view(kind), right.view(kind))) and bool(np.isfinite(left).all())


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
    with np.errstate(invalid="ignore", over="ignore"):
        absolute = float(np.abs(legacy - modern).max())
    if not math.isfinite(absolute):
        return FAILED
    scale = max(float(np.abs(legacy).max()), least) or absolute
    return Distance(False, absolute, absolute / scale if scale else 0.0, int(ulps(legacy, modern).max()))


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
    left, right = legacy.astype(np.float64), modern.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(left - right)
    finite = np.isfinite(left) & np.isfinite(right)
    scale = float(np.abs(left[np.isfinite(left)]).max(initial=least))
    if tolerance:
        beyond = ~finite | (gap > tolerance * scale)
    elif legacy.dtype == modern.dtype:
        beyond = ~finite | (
            np.ascontiguousarray(legacy).view(np.uint8) != np.ascontiguousarray(modern).view(np.uint8)
        ).reshape(*legacy.shape, -1).any(axis=-1)
    else:
        beyond = ~finite | (left != right)
    if not beyond.any():
        return None
    index = tuple(int(each) for each in np.unravel_index(int(np.argmax(beyond)), legacy.shape))
    a, b = float(left[index]), float(right[index])
    whole = bool(finite[index])
    absolute = abs(a - b) if whole else math.inf
    one, other = legacy[index].reshape(1), modern[index].reshape(1)
    ulp = -1
    if whole and legacy.dtype == modern.dtype and (counted(legacy) or _floating(legacy)):
        ulp = int((_gap if counted(legacy) else ulps)(one, other)[0])
    return Mismatch(
        index,
        a,
        b,
        absolute,
        absolute / (abs(a) or absolute or 1.0) if whole else math.inf,
        ulp,
        float(gap.max()) if finite.all() else math.inf,
        int(beyond.sum()),
        int(legacy.size),
    )
