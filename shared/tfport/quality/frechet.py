"""The Fréchet distance between two sets of images, by Gaussians fitted to a classifier's features of them.

|mu1 - mu2|² + tr(S1 + S2 - 2 (S1 S2)^(1/2)), as the Fréchet Inception Distance takes it (Heusel et al. 2017,
arXiv:1706.08500): the square of a distance. It depends on the classifier and on the number of images, fewer of which
give a larger figure. So it compares only within one classifier and between equal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian in feature space."""

    mean: Array
    """float64 [F]."""
    covariance: Array
    """float64 [F, F], symmetric; it may be singular."""


def fitted(features: Array) -> Gaussian:
    """The Gaussian of the features' mean and (unbiased) covariance.

    Args:
      features: [N, F], N at least 2.

    Raises:
      ValueError: there are fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 rows, found {len(features)}")
    wide = np.asarray(features, np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    return Gaussian(mean, centred.T @ centred / (len(wide) - 1))


def distance(one: Gaussian, other: Gaussian) -> float:
    """The Fréchet distance, squared, of two Gaussians.

    The trace of (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2). So no root of a matrix that is
    not symmetric is taken, and singular covariances, those of fewer images than features or of one image over and over,
    are like any other.
    """
    shared = np.linalg.svd(_root(one.covariance) @ _root(other.covariance), compute_uv=False).sum()
    spread = np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared
    return max(float(((one.mean - other.mean) ** 2).sum() + spread), 0.0)


def between(features: Array, others: Array) -> float:
    """The Fréchet distance, squared, of the Gaussians fitted to two sets of features, [N, F] and [M, F]."""
    return distance(fitted(features), fitted(others))


def _root(covariance: Array) -> Array:
    """The symmetric square root of a covariance; eigenvalues that rounding left below zero count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    root: Array = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root
