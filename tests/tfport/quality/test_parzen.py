"""parzen: the density of Gaussian windows, the choice of their width, and a figure that is known."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from tfport import data
from tfport.quality import parzen
from tfport.quality.parzen import SIGMAS, Array


def test_one_sample_is_one_gaussian(generator: np.random.Generator) -> None:
    centre, images = generator.random((1, 5)), generator.random((8, 5))
    found = parzen.log_likelihoods(centre, images, [0.1, 0.7])
    for row, sigma in zip(found, (0.1, 0.7), strict=True):
        np.testing.assert_allclose(row, multivariate_normal(centre[0], sigma**2).logpdf(images), rtol=1e-12)


def test_many_samples_are_their_mean_density(generator: np.random.Generator) -> None:
    samples, images = generator.random((150, 5)), generator.random((230, 5))
    densities = [multivariate_normal(each, 0.3**2).logpdf(images) for each in samples]
    expected = logsumexp(densities, axis=0) - np.log(150)
    np.testing.assert_allclose(parzen.log_likelihoods(samples, images, [0.3])[0], expected, rtol=1e-11)


def test_the_density_integrates_to_one() -> None:
    """A wrong constant, of the count, of the width or of the dimension, would show here."""
    axis = np.linspace(-4, 5, 181)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for sigma in (0.2, 0.5):
        densities = np.exp(parzen.log_likelihoods(np.array([[0.0, 0.0], [1.0, 0.5], [1, 1]]), grid, [sigma])[0])
        assert densities.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_far_away_is_very_unlikely_and_not_infinitely() -> None:
    found = parzen.log_likelihoods(np.zeros((10, 784)), np.ones((1, 784)), [0.1])
    assert found[0, 0] == pytest.approx(-784 / 0.02 - 392 * np.log(2 * np.pi * 0.01))


@pytest.mark.parametrize("sigma", [SIGMAS[2], SIGMAS[5]])
def test_sigma_is_the_one_the_data_have(generator: np.random.Generator, sigma: float) -> None:
    """Around one centre, the likeliest width is the data's own deviation."""
    centre = np.full((1, 50), 0.5)
    validation, test = (centre + generator.normal(0, sigma, (400, 50)) for _ in range(2))
    found = parzen.estimate(centre, validation, test)
    assert found.sigma == sigma
    assert not found.at_edge
    assert found.mean == pytest.approx(-25 * np.log(2 * np.pi * np.e * sigma**2), abs=4 * found.standard_error)


def test_sigma_is_chosen_on_the_validation_images_and_not_on_the_test_images(generator: np.random.Generator) -> None:
    centre = np.full((1, 50), 0.5)
    narrow, wide = (centre + generator.normal(0, sigma, (200, 50)) for sigma in (SIGMAS[1], SIGMAS[7]))
    assert parzen.estimate(centre, narrow, wide).sigma == SIGMAS[1]
    assert parzen.estimate(centre, wide, narrow).sigma == SIGMAS[7]


def test_sigma_at_the_end_of_its_range_is_told(generator: np.random.Generator) -> None:
    centre = np.full((1, 50), 0.5)
    images = centre + generator.normal(0, 0.01, (50, 50))
    assert parzen.estimate(centre, images, images).at_edge


def test_mean_and_standard_error(generator: np.random.Generator) -> None:
    samples, validation, test = (generator.random((count, 6)) for count in (40, 20, 130))
    found = parzen.estimate(samples, validation, test, [0.2])
    likelihoods = parzen.log_likelihoods(samples, test, [0.2])[0]
    assert found.mean == pytest.approx(likelihoods.mean())
    assert found.standard_error == pytest.approx(likelihoods.std() / np.sqrt(130))
    assert (found.sigma, found.samples, found.validated, found.tested) == (0.2, 40, 20, 130)


def test_sigmas_are_the_protocols() -> None:
    np.testing.assert_array_equal(SIGMAS, np.logspace(-1, 0, 10))


def test_worse_samples_are_less_likely(training: Array, test_images: Array, generator: np.random.Generator) -> None:
    """Blur, noise, one digit for all: each falls far below real images."""
    real, validation = training[:600], training[1200:]
    means = [
        parzen.estimate(samples, validation, test_images).mean
        for samples in (
            real,
            np.clip(real + generator.normal(0, 0.1, real.shape), 0, 1),
            np.clip(real + generator.normal(0, 0.3, real.shape), 0, 1),
            generator.random(real.shape),
        )
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[1] > 50
    collapsed = parzen.estimate(np.repeat(real[:1], 600, axis=0), validation, test_images)
    assert collapsed.mean < means[0] - 500


def test_real_mnist_has_the_known_figure() -> None:
    """9,000 training digits as samples, 1,000 for sigma, 10,000 test digits: 234.8 ± 2.2 at sigma 0.167."""
    where = os.environ.get("TFPORT_DATA_DIR")
    if not where:
        pytest.skip("TFPORT_DATA_DIR is not set: name a folder with MNIST's four files in it")
    mnist = data.load("mnist", where)
    images, test = (data.scaled(each, 0, 1, "float64") for each in (mnist.images, mnist.test_images))
    found = parzen.estimate(images[:9000], images[9000:10_000], test)
    assert found.sigma == SIGMAS[2]
    assert found.mean == pytest.approx(234.8, abs=0.05)
    assert found.standard_error == pytest.approx(2.16, abs=0.05)
