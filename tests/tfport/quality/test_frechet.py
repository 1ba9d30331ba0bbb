"""frechet: the distance of Gaussians that are known, singular ones among them, and of images that went wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from tfport.quality import frechet
from tfport.quality.classifier import Classifier
from tfport.quality.frechet import Array, Gaussian


def spread(generator: np.random.Generator, rank: int, size: int = 6) -> Array:
    """A covariance of that rank."""
    factor = generator.normal(size=(size, rank))
    return np.asarray(factor @ factor.T)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 2.0), (3.0, 1.0), (-1.5, 0.25), (4.0, 0.0)])
def test_one_dimension(mean: float, deviation: float) -> None:
    one = Gaussian(np.zeros(1), np.eye(1))
    other = Gaussian(np.array([mean]), np.array([[deviation**2]]))
    assert frechet.distance(one, other) == pytest.approx(mean**2 + (1 - deviation) ** 2)


def test_covariances_that_commute() -> None:
    """Then it is the squared difference of the deviations along each axis."""
    one = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    other = Gaussian(np.array([1.0, 0.0, -2.0]), np.diag([4.0, 4.0, 1.0]))
    assert frechet.distance(one, other) == pytest.approx(5 + 1 + 0 + 4)


def test_covariances_that_do_not_commute(generator: np.random.Generator) -> None:
    one = Gaussian(generator.normal(size=6), spread(generator, 6))
    other = Gaussian(generator.normal(size=6), spread(generator, 6))
    root = np.trace(sqrtm(one.covariance @ other.covariance)).real
    expected = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance + other.covariance) - 2 * root
    assert frechet.distance(one, other) == pytest.approx(expected)
    assert frechet.distance(other, one) == pytest.approx(expected)
    diagonal = Gaussian(other.mean, np.diag(np.diag(other.covariance)))
    assert frechet.distance(one, diagonal) != pytest.approx(expected, rel=0.01), "what is off the diagonal counts"


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_singular_covariances(generator: np.random.Generator, rank: int) -> None:
    """A Gaussian is at no distance from itself, and from one that is moved or widened at the known one."""
    singular = Gaussian(np.zeros(6), spread(generator, rank))
    total = np.trace(singular.covariance)
    assert frechet.distance(singular, singular) == pytest.approx(0, abs=1e-9)
    assert frechet.distance(singular, Gaussian(np.ones(6), 4 * singular.covariance)) == pytest.approx(6 + total)
    point = Gaussian(np.zeros(6), np.zeros((6, 6)))
    assert frechet.distance(singular, point) == pytest.approx(total)


def test_fitted_is_mean_and_unbiased_covariance(generator: np.random.Generator) -> None:
    features = generator.normal(size=(50, 4)).astype(np.float32)
    found = frechet.fitted(features)
    np.testing.assert_allclose(found.mean, features.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(features.astype(np.float64), rowvar=False))
    with pytest.raises(ValueError, match="at least 2"):
        frechet.fitted(features[:1])


def test_samples_of_two_gaussians_are_as_far_as_these(generator: np.random.Generator) -> None:
    one, other = generator.normal(0, 1, (20_000, 3)), generator.normal([1, 0, 0], [2, 1, 1], (20_000, 3))
    assert frechet.between(one, other) == pytest.approx(2, abs=0.1)
    assert frechet.between(one[:10_000], one[10_000:]) < 0.01


def test_fewer_images_than_features(generator: np.random.Generator) -> None:
    few, others = generator.normal(size=(5, 64)), generator.normal(size=(7, 64))
    assert np.isfinite(frechet.between(few, others))
    assert frechet.between(few, few) == pytest.approx(0, abs=1e-9)


def test_what_is_wrong_with_images_shows(
    reader: Classifier, training: Array, test_images: Array, generator: np.random.Generator
) -> None:
    """Real images are nearest; noise, a class left out, and one image over and over are further."""
    real = training[:297]
    reference = reader.outputs(test_images).features

    def found(images: Array) -> float:
        return frechet.between(reader.outputs(images).features, reference)

    floor = found(real)
    assert found(np.clip(real + generator.normal(0, 0.3, real.shape), 0, 1)) > 2 * floor
    assert found(np.repeat(real[:1], 297, axis=0)) > 10 * floor
    assert found(np.zeros_like(real)) > 10 * floor
    seen = reader.outputs(training).probabilities.argmax(axis=1)
    assert found(training[seen == 3]) > 5 * floor
    assert found(training[seen < 5][:297]) > 2 * floor
