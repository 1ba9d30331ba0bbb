"""tensorflow.examples.tutorials.mnist.input_data: MNIST in batches.

Source: TensorFlow 1.15, tensorflow/contrib/learn/python/learn/datasets/mnist.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfport import data
from tfport.errors import DataError

Array = np.ndarray[Any, Any]


class DataSet:
    """Images and labels that are handed out in batches, shuffled anew in each epoch by np.random."""

    def __init__(
        self,
        images: Array,
        labels: Array,
        fake_data: bool = False,
        one_hot: bool = False,
        dtype: Any = np.float32,
        reshape: bool = True,
        seed: int | None = None,
    ) -> None:
        """Takes images [N, height, width, 1] of uint8.

        Args:
          images: see above.
          labels: [N], or [N, classes] where they are one-hot.
          fake_data: must be False.
          one_hot: of use with fake data alone.
          dtype: uint8, or float32 for images from 0 to 1.
          reshape: whether images become [N, height * width].
          seed: of the order; None leaves np.random as it is.

        Raises:
          ValueError: fake data are asked for, or another dtype.
        """
        del one_hot
        if fake_data:
            raise ValueError("fake_data=True has no stand-in in tfport.legacy; give images and labels")
        kind = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
        if kind not in (np.uint8, np.float32):
            raise ValueError(f"Invalid image dtype {kind}, expected uint8 or float32")
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002  the original's generator
        if reshape:
            images = images.reshape(len(images), -1)
        self.images = np.multiply(images, 1 / 255, dtype=np.float32) if kind == np.float32 else images
        self.labels = labels
        self.epochs_completed = 0
        self._next = 0

    @property
    def num_examples(self) -> int:
        """How many there are."""
        return len(self.images)

    def next_batch(self, batch_size: int, fake_data: bool = False, shuffle: bool = True) -> tuple[Array, Array]:
        """The next examples; one that begins in an epoch and ends in the next has the rest of the first in front."""
        del fake_data
        begin = self._next
        if begin == 0 and self.epochs_completed == 0:
            self._shuffle(shuffle)
        end = begin + batch_size
        parts = [(self.images[begin:end], self.labels[begin:end])]
        if end > self.num_examples:
            self.epochs_completed += 1
            end -= self.num_examples
            self._shuffle(shuffle)
            parts.append((self.images[:end], self.labels[:end]))
        self._next = end
        images, labels = zip(*parts, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def _shuffle(self, wanted: bool) -> None:
        if wanted:
            order = np.arange(self.num_examples)
            np.random.shuffle(order)  # noqa: NPY002
            self.images, self.labels = self.images[order], self.labels[order]


class Datasets(NamedTuple):
    """What `read_data_sets` gives."""

    train: DataSet
    validation: DataSet
    test: DataSet


def read_data_sets(
    train_dir: str,
    fake_data: bool = False,
    one_hot: bool = False,
    dtype: Any = np.float32,
    reshape: bool = True,
    validation_size: int = 5000,
    seed: int | None = None,
    source_url: str | None = None,
) -> Datasets:
    """MNIST: of the four files in `train_dir`, else downloaded once as `tfport train --dataset=mnist` does.

    Raises:
      DataError: a file is damaged, or is not there and cannot be downloaded.
      ValueError: `validation_size` is out of range, or fake data are asked for.
    """
    del source_url
    here = any(Path(train_dir).glob("*ubyte*"))
    try:
        held = data.load("mnist", train_dir if here else None)
    except DataError as error:
        found = "finds damaged files" if here else "finds no MNIST in that folder"
        remedy = "Put the four files of MNIST, such as train-images-idx3-ubyte.gz, into it."
        raise DataError(f"read_data_sets({train_dir!r}) {found}. {error} {remedy}") from None
    if not 0 <= validation_size <= len(held.images):
        raise ValueError(f"validation_size={validation_size}: expected 0 to {len(held.images)}")

    def part(images: Array, labels: Array) -> DataSet:
        labels = np.eye(10)[labels] if one_hot else labels
        return DataSet(images[..., np.newaxis], labels, fake_data, one_hot, dtype, reshape, seed)

    images, labels = held.images, held.labels
    return Datasets(
        part(images[validation_size:], labels[validation_size:]),
        part(images[:validation_size], labels[:validation_size]),
        part(held.test_images, held.test_labels),
    )
