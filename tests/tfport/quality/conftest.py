"""What the tests of quality share: the embedded digits as rows, and one classifier of them, trained once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfport import data
from tfport.data import Dataset
from tfport.quality import classifier
from tfport.quality.classifier import Array, Classifier


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def training(digits: Dataset) -> Array:
    """[1500, 784] in [0, 1]."""
    return data.scaled(digits.images, 0, 1, "float64")


@pytest.fixture(scope="session")
def test_images(digits: Dataset) -> Array:
    """[297, 784] in [0, 1]."""
    return data.scaled(digits.test_images, 0, 1, "float64")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the classifier of the digits with seed 0 is soon in."""
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="session")
def reader(digits: Dataset, cache: Path) -> Classifier:
    """The classifier of the digits with seed 0."""
    return classifier.load_or_train(digits, 0, cache)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)
