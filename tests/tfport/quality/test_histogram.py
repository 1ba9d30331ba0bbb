"""histogram: classes are counted, and a collapse shows."""

from __future__ import annotations

import numpy as np
import pytest

from tfport.data import Dataset
from tfport.quality import histogram
from tfport.quality.classifier import Classifier
from tfport.quality.histogram import Array

EVEN = np.full(10, 0.1)


def certain(classes: Array, probability: float = 1.0) -> Array:
    """Probabilities that say these classes."""
    rest = (1 - probability) / 9
    return np.asarray(np.eye(10)[classes] * (probability - rest) + rest)


def test_counts_shares_and_confidence() -> None:
    found = histogram.histogram(certain(np.array([0, 0, 3, 9]), 0.7), EVEN)
    assert found.counts == (2, 0, 0, 1, 0, 0, 0, 0, 0, 1)
    assert found.shares == (0.5, 0, 0, 0.25, 0, 0, 0, 0, 0, 0.25)
    assert found.confidence == pytest.approx(0.7)
    assert found.total_variation == pytest.approx((0.4 + 7 * 0.1 + 2 * 0.15) / 2)


def test_total_variation_is_zero_when_alike_and_one_when_disjoint() -> None:
    assert histogram.histogram(certain(np.arange(10)), EVEN).total_variation == pytest.approx(0)
    only = np.eye(10)[4]
    assert histogram.histogram(certain(np.full(7, 5)), only).total_variation == pytest.approx(1)
    assert histogram.total_variation(EVEN, only) == pytest.approx(0.9)


def test_label_shares_have_the_classes_that_are_missing() -> None:
    np.testing.assert_allclose(histogram.label_shares(np.array([1, 1, 2, 2], np.uint8)), [0, 0.5, 0.5] + [0] * 7)


def test_a_collapse_shows(reader: Classifier, digits: Dataset, training: Array, test_images: Array) -> None:
    """Real images have all classes; one image over and over has one, and half the classes are half a collapse."""
    reference = histogram.label_shares(digits.test_labels)

    def found(images: Array) -> histogram.Histogram:
        return histogram.histogram(reader.outputs(images).probabilities, reference)

    real = found(test_images)
    assert real.total_variation < 0.03
    assert min(real.counts) > 20
    assert real.confidence > 0.95
    constant = found(np.repeat(training[:1], 297, axis=0))
    assert sorted(constant.counts) == [0] * 9 + [297]
    assert constant.total_variation > 0.85
    half = found(training[digits.labels < 5])
    assert half.total_variation == pytest.approx(0.5, abs=0.05)
    assert found((training[:297] + training[297:594]) / 2).confidence < real.confidence - 0.05
