"""The data sets: 28x28 grey images with labels 0 to 9, as bytes, from the package, a folder or a download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfport import errors
from tfport.data import idx
from tfport.errors import DataError

DATASETS: tuple[str, ...] = ("digits", "fashion_mnist", "kmnist", "mnist")

_LARGEST = 60_000  # images in a split
_STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_SHOWN = 12  # names of a folder's content in a message


@dataclass(frozen=True)
class Dataset:
    """A data set in memory; its arrays are read-only, so that no subject of a comparison can change them for the other.

    Attributes:
      name: one of `DATASETS`.
      images: uint8 [N, 28, 28], 0 (background) to 255 (ink).
      labels: uint8 [N], 0 to 9.
      test_images: uint8 [M, 28, 28].
      test_labels: uint8 [M].
      source: for a person to read: "embedded", the folder given, or the folder in the cache.
      digest: sha256 in hex of the train images and labels, bytes and shapes: identifies the data in a run directory.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]
    source: str
    digest: str


def load(name: str, data_dir: str | Path | None = None, cache_dir: Path | None = None) -> Dataset:
    """Loads a data set: `digits` from the package, the others from `data_dir`, else from the cache or the network.

    Args:
      name: one of `DATASETS`.
      data_dir: a folder with the four IDX files, each plain or gzipped (the plain one is read where both are there);
        `train-images.idx3-ubyte` does for `train-images-idx3-ubyte`. No network is used, no digest is expected: any
        1 to 60,000 images of 28x28 a split will do.
      cache_dir: in the place of the user's cache, see `download.cache_folder`. Of no effect beside `data_dir`.

    Raises:
      UserError: there is no data set of that name.
      DataError: a file is missing, damaged, or does not fit its partner; or the download fails.
    """
    if name not in DATASETS:
        raise errors.unknown("dataset", name, DATASETS)
    if name == "digits":
        if data_dir is not None:
            raise DataError(
                f"digits is embedded and takes no data_dir, found --data_dir={data_dir}. "
                "Leave --data_dir out, or name the data set in that folder, such as --dataset=mnist."
            )
        from tfport.data import digits  # lazy: scikit-learn

        return _dataset(name, digits.load(), "embedded")
    if data_dir is not None:
        folder = _expanded(data_dir)
        paths = _four_files(name, folder)
    else:
        from tfport.data import download  # lazy: urllib and tqdm

        folder = download.fetch(name, cache_dir)
        paths = [folder / f"{stem}.gz" for stem in _STEMS]  # those whose digest was checked, and no others
    train_images, train_labels, test_images, test_labels = paths
    train = _split(train_images, train_labels)
    test = _split(test_images, test_labels)
    return _dataset(name, (*train, *test), str(folder))


def scaled(images: npt.NDArray[np.uint8], low: float, high: float, dtype: str) -> npt.NDArray[np.floating]:
    """Images as the rows of a design matrix: 0 becomes `low`, 255 becomes `high`.

    Each value, (low * (255 - pixel) + high * pixel) / 255, is computed in float64 and rounded once, to float32. For
    "float64" those float32 values are widened, exactly: both precisions see the same numbers, so that what differs
    between their runs is arithmetic and never the data.

    Args:
      images: uint8 [N, 28, 28].
      low: the value of the background.
      high: the value of full ink; not below `low`.
      dtype: "float32" or "float64".

    Returns:
      [N, 784] of `dtype`, rows of an image one after another; a new array.

    Raises:
      UserError: another dtype.
      ValueError: images of another dtype or shape, or a range that is empty or not finite.
    """
    if dtype not in ("float32", "float64"):
        raise errors.unknown("dtype", dtype, ("float32", "float64"))
    if images.dtype != np.uint8 or images.shape[1:] != (idx.SIDE, idx.SIDE):
        raise ValueError(f"images: found {images.dtype} {list(images.shape)}, expected uint8 [N, 28, 28]")
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"range: found [{low}, {high}], expected finite low < high")
    pixel = np.arange(256, dtype=np.float64)
    table = ((low * (255 - pixel) + high * pixel) / 255).astype(np.float32).astype(dtype)
    return np.asarray(table[images.reshape(len(images), idx.SIDE * idx.SIDE)])


def _expanded(data_dir: str | Path) -> Path:
    if not str(data_dir):
        raise DataError("--data_dir is empty, expected a folder. Give one, or leave --data_dir out to download.")
    try:
        return Path(data_dir).expanduser()
    except RuntimeError:  # no such user, no home: a folder may still be called so
        return Path(data_dir)


def _four_files(name: str, folder: Path) -> list[Path]:
    """The files of `_STEMS` in `folder`, in that order."""
    expected = f"expected a folder with the four files {', '.join(_STEMS)}, each plain or .gz"
    remedy = f"Put them there, or leave --data_dir out to download {name}."
    try:
        names = {path.name + "/" * path.is_dir() for path in folder.iterdir()}
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder, {expected}. {remedy}") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file, {expected}. {remedy}") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}), {expected}. {remedy}") from None
    found = [next((folder / each for each in _spellings(stem) if each in names), None) for stem in _STEMS]
    missing = [stem for stem, path in zip(_STEMS, found, strict=True) if path is None]
    if missing:
        shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise DataError(f"{folder}: missing {', '.join(missing)}; found {shown or 'nothing'}; {expected}. {remedy}")
    return [path for path in found if path is not None]


def _spellings(stem: str) -> list[str]:
    dotted = stem.replace("-idx", ".idx")
    return [stem, f"{stem}.gz", dotted, f"{dotted}.gz"]


def _split(images_path: Path, labels_path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images, labels = idx.read_images(images_path), idx.read_labels(labels_path)
    remedy = "Point --data_dir at a folder with whole files of one data set."
    if len(images) != len(labels):
        counts = f"{images_path} holds {len(images):,} images and {labels_path} {len(labels):,} labels"
        raise DataError(f"{counts}, expected as many of one as of the other. {remedy}")
    if not 0 < len(images) <= _LARGEST:
        raise DataError(f"{images_path}: found {len(images):,} images, expected 1 to {_LARGEST:,}. {remedy}")
    return images, labels


def _dataset(name: str, arrays: tuple[npt.NDArray[np.uint8], ...], source: str) -> Dataset:
    images, labels, test_images, test_labels = (np.ascontiguousarray(array) for array in arrays)
    sha256 = hashlib.sha256()
    for array in (images, labels):
        sha256.update(f"{list(array.shape)}".encode())
        sha256.update(array.tobytes())
    for array in (images, labels, test_images, test_labels):
        array.setflags(write=False)
    return Dataset(name, images, labels, test_images, test_labels, source, sha256.hexdigest())
