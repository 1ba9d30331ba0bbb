"""The MNIST of the tutorials: read from a folder, handed out in shuffled batches that run over epochs."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tfport.errors import DataError
from tfport.legacy.input_data import DataSet, read_data_sets

LABELS = np.arange(30) % 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files, of images whose every pixel is their number."""
    for stem, count in (("train", 30), ("t10k", 20)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 784).tobytes()
        images = struct.pack(">4i", 0x803, count, 28, 28) + pixels
        labels = struct.pack(">2i", 0x801, count) + LABELS[:count].astype(np.uint8).tobytes()
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return tmp_path


def test_sets_are_split_and_scaled(folder: Path) -> None:
    train, validation, test = held = read_data_sets(str(folder), one_hot=True, validation_size=5)
    assert (train.num_examples, held.validation.num_examples, held.test.num_examples) == (25, 5, 20)
    assert train.images.shape == (25, 784) and train.images.dtype == np.float32
    assert train.images[0, 0] == np.float32(5 / 255) and validation.images[4, 0] == np.float32(4 / 255)
    np.testing.assert_array_equal(test.labels, np.eye(10)[LABELS[:20]])
    raw = read_data_sets(str(folder), dtype=np.uint8, reshape=False, validation_size=0).train
    assert raw.images.shape == (30, 28, 28, 1) and raw.images[7, 0, 0, 0] == 7 and raw.labels[7] == 7


def test_batches_run_over_epochs_each_shuffled_anew() -> None:
    data = DataSet(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), LABELS[:10], seed=3)
    first = [data.next_batch(4) for _ in range(5)]
    images = np.concatenate([batch[0][:, 0] for batch in first]) * 255
    labels = np.concatenate([batch[1] for batch in first])
    np.testing.assert_allclose(images, labels, atol=1e-4)
    assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))
    assert list(labels[:10]) != list(labels[10:]) and data.epochs_completed == 1
    again = DataSet(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), LABELS[:10], seed=3)
    np.testing.assert_array_equal(again.next_batch(4)[1], first[0][1])


def test_unshuffled_batches_keep_their_order() -> None:
    data = DataSet(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), LABELS[:6])
    assert [list(data.next_batch(4, shuffle=False)[1]) for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_what_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="validation_size=31: expected 0 to 30"):
        read_data_sets(str(folder), validation_size=31)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bcut")
    with pytest.raises(DataError, match="finds damaged files"):
        read_data_sets(str(folder))

    def offline(name: str, data_dir: str | None = None) -> None:
        assert data_dir is None
        raise DataError("there is no network")

    monkeypatch.setattr("tfport.data.load", offline)
    with pytest.raises(DataError, match=r"read_data_sets\('nowhere'\) finds no MNIST.* there is no network"):
        read_data_sets("nowhere")
