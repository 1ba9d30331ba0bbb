"""Reads IDX, the file format of MNIST, and refuses whatever is not a whole file of it."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from tfport.errors import DataError

LABELS_MAGIC = 0x0801  # unsigned bytes, one dimension
IMAGES_MAGIC = 0x0803  # unsigned bytes, three dimensions
SIDE = 28  # pixels
CLASSES = 10

_KINDS = {LABELS_MAGIC: "labels", IMAGES_MAGIC: "images"}
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST = 1 << 28  # bytes a header may announce: five times MNIST's 47,040,000
_CHUNK = 1 << 20
_REMEDY = "Delete it and download it again, or point --data_dir at a folder with whole files."


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array in one IDX file, plain or gzipped: what the content says decides, not the name.

    Memory grows with the bytes that are in the file, never with what its header announces.

    Args:
      path: a file of labels (magic 0x0801) or of images (magic 0x0803).

    Returns:
      uint8, [N] for labels and [N, rows, columns] for images; N may be 0.

    Raises:
      DataError: the file is missing, unreadable, cut, corrupt, of another format, or shorter or longer than its
        header says.

    Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _parse(raw, path)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(cast(BinaryIO, stream), path)
    except EOFError:
        raise _refusal(path, "found a gzip stream that is cut short", "a whole one") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _refusal(path, f"found a corrupt gzip stream ({error})", "an intact one") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{path}: cannot be read ({reason}); expected an IDX file. "
            "Check the name and its permissions, or point --data_dir at a folder with whole files."
        ) from None


def read_images(path: Path) -> npt.NDArray[np.uint8]:
    """The images in one IDX file: uint8 [N, 28, 28], 0 (background) to 255 (ink).

    Raises:
      DataError: as `read_idx`, and for labels in the place of images or for another image size.
    """
    images = read_idx(path)
    if images.ndim != 3:
        raise _refusal(path, f"found labels (magic {LABELS_MAGIC:#06x})", f"images (magic {IMAGES_MAGIC:#06x})")
    if images.shape[1:] != (SIDE, SIDE):
        rows, columns = images.shape[1:]
        raise _refusal(path, f"found images of {rows}x{columns} pixels", f"{SIDE}x{SIDE}")
    return images


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """The labels in one IDX file: uint8 [N], each 0 to 9.

    Raises:
      DataError: as `read_idx`, and for images in the place of labels or for a label above 9.
    """
    labels = read_idx(path)
    if labels.ndim != 1:
        raise _refusal(path, f"found images (magic {IMAGES_MAGIC:#06x})", f"labels (magic {LABELS_MAGIC:#06x})")
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        first = int(wrong[0])
        found = f"found label {labels[first]} at index {first} ({wrong.size:,} of {labels.size:,} are above 9)"
        raise _refusal(path, found, "labels in 0..9")
    return labels


def _parse(stream: BinaryIO, path: Path) -> npt.NDArray[np.uint8]:
    head = _read(stream, 4)
    if len(head) < 4:
        raise _refusal(path, f"found {len(head)} bytes", "an IDX header of at least 8")
    magic = int.from_bytes(head, "big")
    if magic not in _KINDS:
        known = " or ".join(f"{number:#06x} ({kind})" for number, kind in _KINDS.items())
        raise _refusal(path, f"found magic {magic:#010x} (first bytes {bytes(head)!r})", f"magic {known}")

    rank = magic & 0xFF
    dims = _read(stream, 4 * rank)
    if len(dims) < 4 * rank:
        raise _refusal(path, f"found {4 + len(dims)} bytes", f"an IDX header of {4 + 4 * rank}")
    shape = tuple(int.from_bytes(dims[at : at + 4], "big") for at in range(0, 4 * rank, 4))
    announced = math.prod(shape)
    text = " x ".join(f"{size:,}" for size in shape)
    if announced > _LARGEST:
        raise _refusal(path, f"found a header that announces {text} bytes", f"{_LARGEST:,} bytes or fewer")

    # One byte more than announced: it shows a file that is too long, and makes gzip check its own checksum.
    data = _read(stream, announced + 1)
    if len(data) != announced:
        found = f"found {len(data):,} bytes of data" if len(data) < announced else "found more bytes"
        raise _refusal(path, found, f"{announced:,}, as its header announces ({text} {_KINDS[magic]})")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read(stream: BinaryIO, count: int) -> bytearray:
    """Up to `count` bytes, fewer only at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        chunk = stream.read(min(_CHUNK, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def _refusal(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path}: {found}, expected {expected}. {_REMEDY}")
