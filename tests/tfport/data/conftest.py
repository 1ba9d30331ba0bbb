"""Small IDX files, written byte by byte and not by the code under test."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

WriteIdx = Callable[..., Path]


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    magic = {1: 0x0801, 3: 0x0803}[array.ndim]
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture
def write_idx(tmp_path: Path) -> WriteIdx:
    """write_idx(name, array): writes the array as IDX, gzipped if the name ends in .gz."""

    def write(name: str, array: npt.NDArray[np.uint8], folder: Path | None = None) -> Path:
        path = (folder or tmp_path) / name
        data = idx_bytes(array)
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        return path

    return write
