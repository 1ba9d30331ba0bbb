"""Distances between many images and many others, a bounded block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfport.quality.progress import bar

Array = np.ndarray[Any, Any]

BLOCK = 100  # rows at a time: 100 against 60,000 images are 48 MB


def squared_distances(
    rows: Array, against: Array, description: str = "", progress: bool = False
) -> Iterator[tuple[slice, Array]]:
    """The squared Euclidean distances of `rows` from `against`, `BLOCK` rows at a time.

    By the matrix product, |a|² + |b|² - 2ab, in float64. Rounding may leave some 1e-13 where the distance is zero, and
    never less than zero.

    Args:
      rows: [N, D].
      against: [M, D].
      description: what the progress bar says.
      progress: whether to show a bar on standard error.

    Yields:
      Which rows, and their distances: float64 [rows of the block, M], a new array.
    """
    against = np.asarray(against, np.float64)
    norms = (against**2).sum(axis=1)
    with bar(len(rows), description, "image", progress) as shown:
        for start in range(0, len(rows), BLOCK):
            where = slice(start, min(start + BLOCK, len(rows)))
            block = np.asarray(rows[where], np.float64)
            squared = block @ against.T
            squared *= -2
            squared += norms
            squared += (block**2).sum(axis=1)[:, None]
            yield where, np.maximum(squared, 0, out=squared)
            shown.update(len(block))
