"""The embedded digits: real, all there, enlarged the same way everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfport.data import digits


def test_shapes_and_types() -> None:
    images, labels, test_images, test_labels = digits.load()
    assert images.shape == (1500, 28, 28)
    assert labels.shape == (1500,)
    assert test_images.shape == (297, 28, 28)
    assert test_labels.shape == (297,)
    assert {array.dtype for array in (images, labels, test_images, test_labels)} == {np.dtype(np.uint8)}
    assert (images.min(), images.max()) == (0, 255)


def test_the_split_is_the_order_of_load_digits() -> None:
    images, labels, test_images, test_labels = digits.load()
    original = load_digits()
    np.testing.assert_array_equal(np.concatenate([labels, test_labels]), original.target)
    np.testing.assert_array_equal(
        np.concatenate([images, test_images]), digits.enlarge(original.images.astype(np.int64))
    )


def test_every_digit_is_in_both_splits() -> None:
    _, labels, _, test_labels = digits.load()
    assert np.bincount(labels, minlength=10).min() >= 140
    assert np.bincount(test_labels, minlength=10).min() >= 25


def test_the_same_bytes_on_every_platform() -> None:
    sha256 = hashlib.sha256()
    for array in digits.load():
        sha256.update(array.tobytes())
    assert sha256.hexdigest() == "6c66d8ba704e9db2259f5278c01bdd667393edaef4cd33ebca8319adb590d863"


def test_enlarge_is_bilinear() -> None:
    """Against the plain formula in float64, outside of ties."""
    small = np.random.default_rng(0).integers(0, 17, size=(5, 8, 8))
    padded = np.pad(small, ((0, 0), (4, 4), (4, 4))).astype(np.float64)
    where = (np.arange(28) - 4 + 0.5) * 8 / 20 - 0.5 + 4
    low = np.floor(where).astype(int)
    part = where - low
    rows = padded[:, low] * (1 - part)[:, None] + padded[:, low + 1] * part[:, None]
    both = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    np.testing.assert_allclose(digits.enlarge(small), both / 16 * 255, atol=0.5 + 1e-9)


def test_full_ink_stays_full_and_background_stays_background() -> None:
    large = digits.enlarge(np.full((1, 8, 8), 16))
    assert (large[0, 5:23, 5:23] == 255).all()
    assert (large[0, [0, 1, 2, 25, 26, 27]] == 0).all()
    assert not digits.enlarge(np.zeros((1, 8, 8), np.int64)).any()


def test_a_digit_is_centred_and_upright() -> None:
    corner = np.zeros((1, 8, 8), np.int64)
    corner[0, 0, 0] = 16
    large = digits.enlarge(corner)[0]
    mirrored = digits.enlarge(corner[:, ::-1, ::-1])[0]
    assert large[:14, :14].sum() == large.sum() > 0
    np.testing.assert_array_equal(large, mirrored[::-1, ::-1])


@pytest.mark.parametrize("side", ["train", "test"])
def test_the_enlarged_digits_can_be_told_apart(side: str) -> None:
    """Nearest neighbour in 784 dimensions reads the digits: they are digits still, under their own labels."""
    images, labels, test_images, test_labels = digits.load()
    asked, answers = (test_images, test_labels) if side == "test" else (images[-300:], labels[-300:])
    known, names = images[:1200].reshape(1200, 784).astype(np.float64), labels[:1200]
    rows = asked.reshape(len(asked), 784).astype(np.float64)
    distances = (rows**2).sum(1)[:, None] - 2 * rows @ known.T + (known**2).sum(1)
    assert (names[distances.argmin(1)] == answers).mean() > 0.93
