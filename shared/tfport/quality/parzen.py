"""The Parzen-window log-likelihood, by the protocol of Goodfellow et al. 2014 (arXiv:1406.2661, section 5).

An isotropic Gaussian window is put on each generated sample. Its width sigma is the one of ten under which a
validation set is likeliest. What is reported is the mean log-likelihood of a test set, in nats an image, and its
standard error.

The figure grows with the number of samples, and it is a poor judge of pictures (Theis et al. 2016, arXiv:1511.01844):
it is here because the paper reports it. It compares only between equal numbers of samples on equal data. 9,000 real
MNIST training digits as samples give 234.8 ± 2.2 on the 10,000 test digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfport.quality.distances import squared_distances

Array = np.ndarray[Any, Any]

SIGMAS: tuple[float, ...] = tuple(float(sigma) for sigma in np.logspace(-1, 0, 10))


@dataclass(frozen=True)
class Parzen:
    """A log-likelihood and how it came about."""

    mean: float
    """Mean log-likelihood of the test images, in nats an image."""
    standard_error: float
    """Standard deviation over the test images / square root of their number."""
    sigma: float
    """The width of the window, chosen on the validation images."""
    samples: int
    """How many windows there are."""
    validated: int
    """How many images chose sigma."""
    tested: int
    """How many images the mean is over."""

    @property
    def at_edge(self) -> bool:
        """Whether sigma is the narrowest or the widest of `SIGMAS`: a better one may lie outside of them."""
        return self.sigma in (SIGMAS[0], SIGMAS[-1])


def log_likelihoods(
    samples: Array, images: Array, sigmas: Sequence[float], description: str = "Parzen", progress: bool = False
) -> Array:
    """The log of the windows' density at each image, under each width.

    Distances are computed once for all widths, and the sum over windows never leaves the logarithm: an image far from
    every sample gets a very negative number, not minus infinity.

    Args:
      samples: [N, D], the windows' centres.
      images: [M, D].
      sigmas: standard deviations of a window, each above zero.
      description: what the progress bar says.
      progress: whether to show a bar on standard error.

    Returns:
      float64 [len(sigmas), M].
    """
    count, dimensions = samples.shape
    found = np.empty((len(sigmas), len(images)))
    for where, squared in squared_distances(images, samples, description, progress):
        nearest = squared.min(axis=1)
        beyond = nearest[:, None] - squared
        for row, sigma in enumerate(sigmas):
            doubled = 2 * sigma**2
            found[row, where] = np.log(np.exp(beyond / doubled).sum(axis=1)) - nearest / doubled
    constants = [np.log(count) + dimensions / 2 * np.log(2 * np.pi * sigma**2) for sigma in sigmas]
    found -= np.array(constants)[:, None]
    return found


def estimate(
    samples: Array, validation: Array, test: Array, sigmas: Sequence[float] = SIGMAS, progress: bool = False
) -> Parzen:
    """The mean log-likelihood of `test` under windows on `samples`, of the width under which `validation` is likeliest.

    Args:
      samples: [N, D], generated images.
      validation: [V, D], real images that are neither among the test images nor, where `samples` are real, among those.
      test: [T, D], real images.
      sigmas: the widths to choose from.
      progress: whether to show bars on standard error.
    """
    chosen = float(sigmas[int(log_likelihoods(samples, validation, sigmas, "sigma", progress).mean(axis=1).argmax())])
    likelihoods = log_likelihoods(samples, test, [chosen], "Parzen", progress)[0]
    return Parzen(
        mean=float(likelihoods.mean()),
        standard_error=float(likelihoods.std() / np.sqrt(len(test))),
        sigma=chosen,
        samples=len(samples),
        validated=len(validation),
        tested=len(test),
    )
