"""load: any source gives the same kind of data set, or says what is wrong with it; scaled: the numbers models see."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tfport import data
from tfport.data import download
from tfport.errors import DataError, UserError

WriteIdx = Callable[..., Path]

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_random = np.random.default_rng(0)
IMAGES = _random.integers(0, 256, size=(7, 28, 28), dtype=np.uint8)
LABELS = _random.integers(0, 10, size=7, dtype=np.uint8)
ARRAYS = dict(zip(STEMS, (IMAGES[:5], LABELS[:5], IMAGES[5:], LABELS[5:]), strict=True))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> Path:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(download, "fetch", refuse)


@pytest.fixture
def folder(write_idx: WriteIdx, tmp_path: Path) -> Path:
    """A folder with five images to train and two to test, all plain."""
    for stem, array in ARRAYS.items():
        write_idx(stem, array)
    return tmp_path


def assert_is_the_small_one(found: data.Dataset) -> None:
    np.testing.assert_array_equal(found.images, IMAGES[:5])
    np.testing.assert_array_equal(found.labels, LABELS[:5])
    np.testing.assert_array_equal(found.test_images, IMAGES[5:])
    np.testing.assert_array_equal(found.test_labels, LABELS[5:])


SPELLINGS = {
    "plain": lambda stem: stem,
    "gz": lambda stem: f"{stem}.gz",
    "dotted": lambda stem: stem.replace("-idx", ".idx"),
    "dotted gz": lambda stem: stem.replace("-idx", ".idx") + ".gz",
    "mixed": lambda stem: stem.replace("-idx", ".idx") if "labels" in stem else f"{stem}.gz",
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_folder_by_any_spelling(write_idx: WriteIdx, tmp_path: Path, spell: Callable[[str], str]) -> None:
    for stem, array in ARRAYS.items():
        write_idx(spell(stem), array)
    found = data.load("mnist", data_dir=str(tmp_path))
    assert_is_the_small_one(found)
    assert found.name == "mnist"
    assert found.source == str(tmp_path)


def test_the_plain_file_goes_before_the_zipped(folder: Path) -> None:
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(b"never read")
    assert_is_the_small_one(data.load("kmnist", folder))


def test_a_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert_is_the_small_one(data.load("mnist", f"~/{folder.name}"))


def test_without_a_folder_the_cache_is_read(
    write_idx: WriteIdx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, cache_dir: Path | None) -> Path:
        asked.append((name, cache_dir))
        return tmp_path

    monkeypatch.setattr(download, "fetch", fetch)
    for stem, array in ARRAYS.items():
        write_idx(f"{stem}.gz", array)
    (tmp_path / TRAIN_IMAGES).write_bytes(b"whose digest nobody checked")
    found = data.load("fashion_mnist", cache_dir=tmp_path)
    assert_is_the_small_one(found)
    assert asked == [("fashion_mnist", tmp_path)]
    assert (found.name, found.source) == ("fashion_mnist", str(tmp_path))


def test_digits() -> None:
    found = data.load("digits")
    assert found.name == "digits"
    assert found.source == "embedded"
    assert found.images.shape == (1500, 28, 28)
    assert found.test_labels.shape == (297,)
    # Runs that were recorded carry it: a change here makes them another data set's.
    assert found.digest == "548f98af669ef8362b6a448be897e2c519348ac818fbde0198f07e4aee883b26"


def test_digest_is_of_the_train_split(folder: Path, write_idx: WriteIdx) -> None:
    sha256 = hashlib.sha256(b"[5, 28, 28]" + IMAGES[:5].tobytes() + b"[5]" + LABELS[:5].tobytes())
    first = data.load("mnist", folder).digest
    assert first == sha256.hexdigest()

    write_idx(TEST_LABELS, (LABELS[5:] + 1) % 10)
    assert data.load("mnist", folder).digest == first
    write_idx(TRAIN_LABELS, (LABELS[:5] + 1) % 10)
    second = data.load("mnist", folder).digest
    changed = IMAGES[:5].copy()
    changed[4, 27, 27] ^= 1
    write_idx(TRAIN_IMAGES, changed)
    assert len({first, second, data.load("mnist", folder).digest}) == 3


def test_the_arrays_are_read_only(folder: Path) -> None:
    for found in (data.load("mnist", folder), data.load("digits")):
        for array in (found.images, found.labels, found.test_images, found.test_labels):
            assert array.dtype == np.uint8
            assert array.flags.c_contiguous
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_an_unknown_name() -> None:
    message = r"unknown dataset 'mnits'\. Did you mean mnist.*Valid: digits, fashion_mnist, kmnist, mnist\."
    with pytest.raises(UserError, match=message):
        data.load("mnits")


def test_digits_take_no_folder(folder: Path) -> None:
    message = rf"digits is embedded and takes no data_dir, found --data_dir={re.escape(str(folder))}.*--dataset=mnist"
    with pytest.raises(DataError, match=message):
        data.load("digits", folder)


def test_an_empty_data_dir_is_not_a_download() -> None:
    with pytest.raises(DataError, match=r"--data_dir is empty, expected a folder"):
        data.load("mnist", "")


def test_a_missing_folder(tmp_path: Path) -> None:
    where = tmp_path / "nowhere"
    message = rf"{re.escape(str(where))}: no such folder, expected a folder with the four files {', '.join(STEMS)}"
    with pytest.raises(DataError, match=message + r".*leave --data_dir out to download mnist"):
        data.load("mnist", where)


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    with pytest.raises(DataError, match=rf"{TRAIN_IMAGES}: is a file, expected a folder with the four files"):
        data.load("mnist", folder / TRAIN_IMAGES)


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\), expected a folder"):
        data.load("mnist", folder)


def test_half_of_the_files(folder: Path) -> None:
    (folder / TRAIN_LABELS).unlink()
    (folder / TEST_IMAGES).unlink()
    (folder / "raw").mkdir()
    message = rf"missing {TRAIN_LABELS}, {TEST_IMAGES}; found raw/, {TEST_LABELS}, {TRAIN_IMAGES}; expected a folder"
    with pytest.raises(DataError, match=message):
        data.load("mnist", folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"missing {', '.join(STEMS)}; found nothing; expected"):
        data.load("mnist", tmp_path)


def test_a_folder_of_much_else_is_not_listed_whole(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.txt").touch()
    with pytest.raises(DataError, match=r"found 00\.txt, .*, 11\.txt, \.\.\.; expected"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("split", [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)], ids=["train", "test"])
def test_images_and_labels_that_do_not_fit(folder: Path, write_idx: WriteIdx, split: tuple[str, str]) -> None:
    count = len(ARRAYS[split[0]])
    write_idx(split[1], np.zeros(count + 1, np.uint8))
    with pytest.raises(DataError, match=rf"{split[0]} holds {count} images and \S+{split[1]} {count + 1} labels"):
        data.load("mnist", folder)


@pytest.mark.parametrize("split", [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)], ids=["train", "test"])
@pytest.mark.parametrize("count", [0, 60_001])
def test_none_or_too_many(folder: Path, write_idx: WriteIdx, split: tuple[str, str], count: int) -> None:
    write_idx(split[0], np.zeros((count, 28, 28), np.uint8))
    write_idx(split[1], np.zeros(count, np.uint8))
    with pytest.raises(DataError, match=rf"{split[0]}: found {count:,} images, expected 1 to 60,000"):
        data.load("mnist", folder)


def test_a_damaged_file_is_named(folder: Path) -> None:
    whole = (folder / TEST_LABELS).read_bytes()
    (folder / TEST_LABELS).write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{TEST_LABELS}: found 1 bytes of data, expected 2"):
        data.load("mnist", folder)


def test_swapped_files_are_named(folder: Path) -> None:
    shutil.copy(folder / TRAIN_LABELS, folder / TRAIN_IMAGES)
    with pytest.raises(DataError, match=rf"{TRAIN_IMAGES}: found labels .* expected images"):
        data.load("mnist", folder)


ALL_BYTES = np.resize(np.arange(256, dtype=np.uint8), (2, 28, 28))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_scaled_is_the_exact_value_rounded_once(low: float, high: float) -> None:
    rows = data.scaled(ALL_BYTES, low, high, "float32")
    assert rows.shape == (2, 784)
    assert rows.dtype == np.float32
    exact = [Fraction(low) + Fraction(int(pixel), 255) * Fraction(high - low) for pixel in ALL_BYTES.reshape(-1)]
    np.testing.assert_array_equal(rows.reshape(-1), np.array([float(value) for value in exact]).astype(np.float32))
    assert (rows.min(), rows.max()) == (low, high)


def test_scaled_is_what_the_notes_write() -> None:
    pixel = ALL_BYTES.reshape(2, 784).astype(np.float64)
    np.testing.assert_allclose(data.scaled(ALL_BYTES, -1, 1, "float32"), pixel / 127.5 - 1, atol=6e-8, rtol=0)
    np.testing.assert_array_equal(data.scaled(ALL_BYTES, 0, 1, "float32"), (pixel / 255).astype(np.float32))


def test_both_precisions_see_the_same_numbers() -> None:
    narrow, wide = (data.scaled(ALL_BYTES, -1.0, 1.0, dtype) for dtype in ("float32", "float64"))
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, narrow.astype(np.float64))


def test_scaled_keeps_rows_of_an_image_in_order() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 2, 3] = 255
    assert data.scaled(image, 0.0, 1.0, "float32")[0].argmax() == 2 * 28 + 3


def test_scaled_of_nothing_and_of_read_only_images() -> None:
    assert data.scaled(ALL_BYTES[:0], 0.0, 1.0, "float64").shape == (0, 784)
    rows = data.scaled(data.load("digits").images, 0.0, 1.0, "float32")
    assert rows.flags.writeable


def test_scaled_refuses() -> None:
    with pytest.raises(UserError, match=r"unknown dtype 'float16'.*Valid: float32, float64"):
        data.scaled(ALL_BYTES, 0.0, 1.0, "float16")
    with pytest.raises(ValueError, match=r"found uint8 \[2, 784\], expected uint8 \[N, 28, 28\]"):
        data.scaled(ALL_BYTES.reshape(2, 784), 0.0, 1.0, "float32")
    with pytest.raises(ValueError, match=r"found int64"):
        data.scaled(ALL_BYTES.astype(np.int64), 0.0, 1.0, "float32")  # type: ignore[arg-type]
    for low, high in ((1.0, 1.0), (1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"expected finite low < high"):
            data.scaled(ALL_BYTES, low, high, "float32")


def test_the_import_is_light() -> None:
    heavy = "{'tensorflow', 'sklearn', 'scipy', 'urllib.request', 'tqdm'}"
    code = f"import sys, tfport.data; found = {heavy} & set(sys.modules); assert not found, found"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_real_mnist() -> None:
    where = os.environ.get("TFPORT_DATA_DIR")
    if not where:
        pytest.skip("TFPORT_DATA_DIR is not set: name a folder with MNIST's four files in it")
    found = data.load("mnist", where)
    assert len(found.images) in (10_000, 60_000), "the whole of MNIST, or its first 10,000"
    assert found.test_images.shape == (10_000, 28, 28)
    assert found.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert found.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert found.images[:10_000].mean() / 255 == pytest.approx(0.13, abs=0.005)
    assert not found.images[:, 0].any(), "MNIST's first row of pixels is background"
