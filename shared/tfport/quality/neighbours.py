"""The training image nearest to each generated one: does a generator repeat what it was shown?

A distance alone does not tell: thin strokes lie near to each other, and blurred images near to everything. So an image
counts as a near-copy when its nearest training image is less than half as far as its second nearest: it lies upon one
image of a region, not just in that region. Of MNIST's and of the embedded digits' real test images none does. What this
misses is a copy of an image that the training set has twice, unless it is an exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfport.quality.distances import squared_distances

Array = np.ndarray[Any, Any]

COPY_RATIO = 0.5  # of the distances of the nearest and the second nearest training image


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each of N images its nearest training image, by Euclidean distance."""

    indices: Array
    """int64 [N]: which training image."""
    distances: Array
    """float64 [N]."""
    ratios: Array
    """float64 [N]: the distance of the nearest / that of the second nearest, 0 to 1; 0 for an exact copy."""

    @property
    def copies(self) -> Array:
        """bool [N]: which are near-copies."""
        near: Array = self.ratios < COPY_RATIO
        return near


@dataclass(frozen=True)
class Neighbours:
    """`Nearest` in a few figures."""

    images: int
    """How many images were looked up."""
    training: int
    """Among how many."""
    median: float
    """Of the distances."""
    fifth_percentile: float
    """Of the distances."""
    near_copies: int
    """How many images are near-copies."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """The images that look most like copies, most suspicious first, with their neighbours: what a picture shows."""

    images: Array
    """[K, 784]."""
    neighbours: Array
    """[K, 784], the nearest training images."""
    image_indices: Array
    """int64 [K]: which of the images that were looked up."""
    training_indices: Array
    """int64 [K]."""
    distances: Array
    """float64 [K]."""
    ratios: Array
    """float64 [K], in rising order."""


def nearest(images: Array, training: Array, description: str = "neighbours", progress: bool = False) -> Nearest:
    """Finds the nearest training image of each image; where two are as near, the first.

    The two candidates of an image come from the matrix product, their distances from differences, pixel by pixel: that
    of an exact copy is zero.

    Args:
      images: [N, D].
      training: [M, D], M at least 2.
      description: what the progress bar says.
      progress: whether to show a bar on standard error.

    Raises:
      ValueError: there are fewer than two training images.
    """
    if len(training) < 2:
        raise ValueError(f"a second neighbour needs at least 2 training images, found {len(training)}")
    indices = np.empty(len(images), np.int64)
    distances, seconds = np.empty(len(images)), np.empty(len(images))
    for where, squared in squared_distances(images, training, description, progress):
        pair = np.sort(np.argpartition(squared, 1, axis=1)[:, :2], axis=1)
        gaps = np.asarray(images[where], np.float64)[:, None] - np.asarray(training[pair], np.float64)
        exact = np.sqrt((gaps**2).sum(axis=2))
        first = exact.argmin(axis=1)[:, None]
        indices[where] = np.take_along_axis(pair, first, axis=1)[:, 0]
        distances[where], seconds[where] = exact.min(axis=1), exact.max(axis=1)
    ratios = np.divide(distances, seconds, out=np.zeros_like(distances), where=distances > 0)
    return Nearest(indices, distances, ratios)


def summary(found: Nearest, training: int) -> Neighbours:
    """The figures of `found` among `training` images."""
    return Neighbours(
        images=len(found.distances),
        training=training,
        median=float(np.median(found.distances)),
        fifth_percentile=float(np.percentile(found.distances, 5)),
        near_copies=int(found.copies.sum()),
    )


def suspects(images: Array, training: Array, found: Nearest, count: int) -> Suspects:
    """The `count` images of the smallest ratio, or all where there are fewer, with their neighbours.

    Args:
      images: [N, D], what `found` is of.
      training: [M, D], what `found` is among.
      found: the neighbours.
      count: how many to give.
    """
    worst = np.argsort(found.ratios, kind="stable")[:count]
    theirs = found.indices[worst]
    return Suspects(images[worst], training[theirs], worst, theirs, found.distances[worst], found.ratios[worst])
