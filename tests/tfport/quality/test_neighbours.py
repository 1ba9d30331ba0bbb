"""neighbours: a planted copy is found, and what is merely near is not called one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from tfport.quality import neighbours
from tfport.quality.neighbours import Array


def test_as_another_library_finds_them(training: Array, test_images: Array) -> None:
    found = neighbours.nearest(test_images, training)
    known = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(training)
    distances, indices = known.kneighbors(test_images)
    np.testing.assert_array_equal(found.indices, indices[:, 0])
    np.testing.assert_allclose(found.distances, distances[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.ratios, distances[:, 0] / distances[:, 1], rtol=1e-9)


def test_planted_copies_are_found(training: Array, test_images: Array, generator: np.random.Generator) -> None:
    """An exact one, a noisy one and one through float32; the rest are real test images."""
    samples = test_images.copy()
    samples[[5, 50, 200]] = training[[700, 1400, 3]]
    samples[50] = np.clip(samples[50] + generator.normal(0, 0.02, 784), 0, 1)
    samples[200] = samples[200].astype(np.float32)
    found = neighbours.nearest(samples, training)
    assert np.flatnonzero(found.copies).tolist() == [5, 50, 200]
    assert found.indices[[5, 50, 200]].tolist() == [700, 1400, 3]
    assert found.distances[5] == 0, "exactly, in spite of the matrix product"
    assert neighbours.summary(found, 1500).near_copies == 3
    shown = neighbours.suspects(samples, training, found, 3)
    assert sorted(shown.image_indices.tolist()) == [5, 50, 200]
    assert shown.image_indices[-1] == 50, "the noisy one is the least suspicious of the three"
    np.testing.assert_array_equal(shown.images, samples[shown.image_indices])
    np.testing.assert_array_equal(shown.neighbours, training[shown.training_indices])


def test_real_test_images_are_no_copies(training: Array, test_images: Array) -> None:
    found = neighbours.summary(neighbours.nearest(test_images, training), len(training))
    assert found.near_copies == 0
    assert (found.images, found.training) == (297, 1500)
    assert 0 < found.fifth_percentile < found.median


def test_blurred_and_blank_images_are_near_and_no_copies(training: Array) -> None:
    """The distance alone would have called them so: they are nearer than real images are."""
    blurred = np.repeat(training.mean(axis=0, keepdims=True), 3, axis=0) * [[1.0], [0.5], [0.0]]
    found = neighbours.nearest(blurred, training)
    assert not found.copies.any()


def test_an_exact_copy_of_an_image_that_is_there_twice() -> None:
    training = np.array([[0.0, 0], [1, 1], [1, 1], [3, 0]])
    found = neighbours.nearest(np.array([[1.0, 1], [1, 0.5]]), training)
    assert found.indices.tolist() == [1, 1]
    assert found.distances.tolist() == [0, 0.5]
    assert found.ratios.tolist() == [0, 1]
    assert found.copies.tolist() == [True, False]


def test_summary_figures() -> None:
    training = np.array([[0.0], [100.0]])
    found = neighbours.nearest(np.arange(21.0)[:, None], training)
    assert neighbours.summary(found, 2) == neighbours.Neighbours(21, 2, median=10, fifth_percentile=1, near_copies=21)


def test_fewer_suspects_where_there_are_fewer_images() -> None:
    training = np.array([[0.0], [9.0]])
    images = np.array([[4.0], [1.0]])
    shown = neighbours.suspects(images, training, neighbours.nearest(images, training), 10)
    assert shown.image_indices.tolist() == [1, 0]
    assert shown.ratios.tolist() == [1 / 8, 4 / 5]


def test_suspects_are_those_of_the_smallest_ratio_and_not_of_the_smallest_distance() -> None:
    training = np.array([[0.0, 0], [0, 0.1], [50, 0]])
    images = np.array([[0.0, 0.05], [48, 0]])
    shown = neighbours.suspects(images, training, neighbours.nearest(images, training), 1)
    assert shown.image_indices.tolist() == [1]
    assert shown.distances.tolist() == [2]


def test_one_training_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        neighbours.nearest(np.zeros((3, 2)), np.zeros((1, 2)))
