"""scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to MNIST's 28x28: real data without a network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TRAIN = 1500  # the first 1,500 in the order of load_digits train, the last 297 test
TOTAL = 1797

_SMALL = 8  # pixels a side in scikit-learn's images
_BOX = 20  # pixels a side that they are enlarged to, centred as MNIST's digits are
_SIDE = 28
_INK = 16  # the largest value in scikit-learn's images

_Images = npt.NDArray[np.uint8]
_Labels = npt.NDArray[np.uint8]


def load() -> tuple[_Images, _Labels, _Images, _Labels]:
    """The digits as (train images, train labels, test images, test labels).

    The split is fixed: the first 1,500 digits in the order of `load_digits` train, the last 297 test. No shuffle, so
    that no random generator is part of what the data are.

    Returns:
      uint8 [1500, 28, 28], uint8 [1500], uint8 [297, 28, 28], uint8 [297]; images 0 to 255, labels 0 to 9.

    Source: sklearn.datasets.load_digits (the test part of the UCI set "Optical Recognition of Handwritten Digits").
    """
    from sklearn.datasets import load_digits  # lazy: half a second that a run on MNIST need not pay

    bunch = load_digits()
    images = enlarge(bunch.images.astype(np.int64))
    labels = bunch.target.astype(np.uint8)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def enlarge(small: npt.NDArray[np.int64]) -> _Images:
    """Bilinear enlargement of 8x8 images to a 20x20 box, centred in 28x28.

    Pure integer numpy: a pixel of the box lies at a tenth of a small pixel, so that every weight is a whole number of
    tenths, and the one rounding (half up, by an integer division) is the same on every platform. What lies outside the
    8x8 image counts as background, so that strokes which touch its edge fade out over one further pixel.

    Args:
      small: int64 [N, 8, 8], 0 (background) to 16 (ink).

    Returns:
      uint8 [N, 28, 28], 0 to 255.
    """
    weights = _weights()  # [28, 8], in tenths
    sums = weights @ small @ weights.T  # [N, 28, 28], in hundredths of 0..16
    whole = 100 * _INK
    return ((sums * 255 + whole // 2) // whole).astype(np.uint8)


def _weights() -> npt.NDArray[np.int64]:
    """[28, 8]: how many tenths of each small pixel go into each large one, along one axis."""
    weights = np.zeros((_SIDE, _SMALL), dtype=np.int64)
    margin = (_SIDE - _BOX) // 2
    for large in range(_SIDE):
        # The centre of large pixel i of the box, (i + 1/2) * 8/20 - 1/2, is (4 i - 3) / 10.
        left, tenths = divmod(4 * (large - margin) - 3, 10)
        for small, weight in ((left, 10 - tenths), (left + 1, tenths)):
            if 0 <= small < _SMALL:
                weights[large, small] = weight
    return weights
