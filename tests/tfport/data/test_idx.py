"""The IDX reader: what is whole is read to the byte, what is not is refused by name."""

from __future__ import annotations

import gzip
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tfport.data import idx
from tfport.errors import DataError, UserError

WriteIdx = Callable[..., Path]

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint64).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([3, 0, 9], dtype=np.uint8)
HEADER = struct.pack(">4I", 0x0803, 3, 28, 28)
WHOLE = HEADER + IMAGES.tobytes()


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_images_are_read_to_the_byte(write_idx: WriteIdx, name: str) -> None:
    images = idx.read_images(write_idx(name, IMAGES))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize("name", ["labels", "labels.gz"])
def test_labels_are_read_to_the_byte(write_idx: WriteIdx, name: str) -> None:
    labels = idx.read_labels(write_idx(name, LABELS))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "plain.gz", tmp_path / "zipped"
    plain.write_bytes(WHOLE)
    zipped.write_bytes(gzip.compress(WHOLE))
    np.testing.assert_array_equal(idx.read_images(plain), IMAGES)
    np.testing.assert_array_equal(idx.read_images(zipped), IMAGES)


def test_a_file_of_no_items_is_read(write_idx: WriteIdx) -> None:
    assert idx.read_images(write_idx("images", IMAGES[:0])).shape == (0, 28, 28)
    assert idx.read_labels(write_idx("labels", LABELS[:0])).shape == (0,)


ZIPPED = gzip.compress(WHOLE, mtime=0)
FLIPPED = bytearray(ZIPPED)
FLIPPED[-6] ^= 0xFF  # within the checksum that ends a gzip stream
BROKEN = bytearray(ZIPPED)
BROKEN[10] = 0x07  # a block type that deflate does not have

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"found 0 bytes, expected an IDX header of at least 8"),
    "half a magic": (WHOLE[:3], r"found 3 bytes, expected an IDX header of at least 8"),
    "half a header": (WHOLE[:10], r"found 10 bytes, expected an IDX header of 16"),
    "a web page": (b"<html>", r"found magic 0x3c68746d \(first bytes b'<htm'\), expected magic 0x0801 .*0x0803"),
    "another type": (b"\0\0\x0d\x03" + WHOLE[4:], r"found magic 0x00000d03"),
    "little endian": (struct.pack("<I", 0x0803) + WHOLE[4:], r"found magic 0x03080000"),
    "too short": (WHOLE[:-1], r"found 2,351 bytes of data, expected 2,352, .*\(3 x 28 x 28 images\)"),
    "too long": (WHOLE + b"\0", r"found more bytes, expected 2,352, as its header announces"),
    "zipped, too short": (gzip.compress(WHOLE[:-1]), r"found 2,351 bytes of data, expected 2,352"),
    "zipped, too long": (gzip.compress(WHOLE + b"\0"), r"found more bytes, expected 2,352"),
    "zipped, cut": (ZIPPED[: len(ZIPPED) // 2], r"found a gzip stream that is cut short, expected a whole one"),
    "zipped, checksum cut": (ZIPPED[:-4], r"found a gzip stream that is cut short"),
    "zipped, wrong checksum": (
        bytes(FLIPPED),
        r"found a corrupt gzip stream \(CRC check failed.*\), expected an intact",
    ),
    "zipped, wrong deflate": (bytes(BROKEN), r"found a corrupt gzip stream \(Error -3.*\), expected an intact"),
    "zipped, then rubbish": (ZIPPED + b"rubbish", r"found a corrupt gzip stream \(Not a gzipped file"),
    "huge": (struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1), r"announces .* bytes, expected 268,435,456"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_whole_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as refused:
        idx.read_images(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: found ")
    assert text.endswith("Delete it and download it again, or point --data_dir at a folder with whole files.")
    assert refused.value.__cause__ is None  # one message, no chain behind it


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "zipped"])
def test_memory_follows_the_file_not_its_header(tmp_path: Path, zipped: bool) -> None:
    announced = struct.pack(">4I", 0x0803, 300_000, 28, 28) + bytes(1000)  # 235 MB announced, under the limit
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(announced) if zipped else announced)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"found 1,000 bytes of data, expected 235,200,000"):
            idx.read_images(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_gzip_bomb_is_read_no_further_than_announced(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(HEADER + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"found more bytes, expected 2,352"):
            idx.read_images(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_labels_in_the_place_of_images(write_idx: WriteIdx) -> None:
    path = write_idx("train-images-idx3-ubyte", LABELS)
    with pytest.raises(DataError, match=r"found labels \(magic 0x0801\), expected images \(magic 0x0803\)"):
        idx.read_images(path)


def test_images_in_the_place_of_labels(write_idx: WriteIdx) -> None:
    path = write_idx("train-labels-idx1-ubyte", IMAGES)
    with pytest.raises(DataError, match=r"found images \(magic 0x0803\), expected labels \(magic 0x0801\)"):
        idx.read_labels(path)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 28, 27), (2, 0, 28)])
def test_images_of_another_size(write_idx: WriteIdx, shape: tuple[int, ...]) -> None:
    path = write_idx("images", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=rf"found images of {shape[1]}x{shape[2]} pixels, expected 28x28"):
        idx.read_images(path)


def test_a_label_that_is_no_digit(write_idx: WriteIdx) -> None:
    labels: npt.NDArray[np.uint8] = np.array([0, 9, 10, 255], dtype=np.uint8)
    with pytest.raises(DataError, match=r"found label 10 at index 2 \(2 of 4 are above 9\), expected labels in 0\.\.9"):
        idx.read_labels(write_idx("labels", labels))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: cannot be read \(No such file or directory\)"):
        idx.read_idx(path)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); expected an IDX file"):
        idx.read_idx(tmp_path)
