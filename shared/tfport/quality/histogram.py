"""Which classes a classifier sees in a set of images, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CLASSES = 10


@dataclass(frozen=True)
class Histogram:
    """The classes of a set of images, as a classifier reads them."""

    counts: tuple[int, ...]
    """How many images of each class, 0 to 9."""
    shares: tuple[float, ...]
    """The same as shares of all."""
    total_variation: float
    """Half the sum of the shares' differences from those of the real test labels: 0 when alike, 1 when disjoint."""
    confidence: float
    """Mean over the images of the largest class probability."""


def label_shares(labels: Array) -> Array:
    """The share of each class, float64 [10], among labels 0 to 9."""
    shares: Array = np.bincount(labels, minlength=CLASSES) / len(labels)
    return shares


def total_variation(shares: Array, others: Array) -> float:
    """Half the sum of the absolute differences of two distributions."""
    return float(np.abs(shares - others).sum() / 2)


def histogram(probabilities: Array, reference: Array) -> Histogram:
    """Counts the classes that `probabilities` [N, 10] say, and compares them with the shares `reference` [10]."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=CLASSES)
    shares = counts / len(probabilities)
    return Histogram(
        counts=tuple(int(count) for count in counts),
        shares=tuple(float(share) for share in shares),
        total_variation=total_variation(shares, reference),
        confidence=float(probabilities.max(axis=1).mean(dtype=np.float64)),
    )
