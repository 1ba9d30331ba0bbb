"""Telling a checkpoint's format from its bytes, and opening it."""

from __future__ import annotations

import glob
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tfport.checkpoints.contents import Source
from tfport.errors import CheckpointError

FORMATS: Mapping[str, str] = {
    "tf1-v2": "TensorFlow checkpoint of tf.train.Saver, V2 format (<prefix>.index and data files)",
    "tf1-v1": "TensorFlow checkpoint of tf.train.Saver, V1 format (one table file)",
    "tf2": "TensorFlow checkpoint of tf.train.Checkpoint (object-based)",
    "saved-model": "SavedModel",
    "keras-h5": "Keras 2 HDF5 file, weights or whole model",
    "keras3-weights": "Keras 3 weights (.weights.h5)",
    "keras3": "Keras 3 model (.keras)",
    "torch": "PyTorch file of torch.save",
    "npz": "numpy archive",
    "safetensors": "safetensors",
    "tfport-run": "checkpoint folder of a tfport run",
}
"""Format -> what a person calls it."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_MARKS = ("saved_model.pb", "saved_model.pbtxt", "manifest.json")
"""Files that make a folder a checkpoint."""
_TABLE = bytes.fromhex("57fb808b247547db")
"""The last eight bytes of a table of TensorFlow's, a V1 checkpoint or a V2 index."""


def open_source(path: Path) -> Source:
    """Opens a checkpoint of any format; the headers are read, the data is not.

    Args:
      path: a file, a folder (SavedModel, a run's checkpoint, or one that holds a single checkpoint), or the prefix of
        a TensorFlow checkpoint; its `.index`, `.meta` and data files name it too.

    Raises:
      CheckpointError: there is none, it is damaged, it is of no format that is read, or the folder holds several.
    """
    if path.is_dir():
        return _folder(path)
    prefix = _prefix(path)
    if prefix is not None:
        from tfport.checkpoints.bundle import BundleSource

        return BundleSource(prefix)
    if not path.is_file():
        if path.name and path.parent.is_dir() and any(path.parent.glob(f"{glob.escape(path.name)}-?????-of-?????")):
            from tfport.checkpoints.saver_v1 import V1Source

            return V1Source(path)
        raise CheckpointError(_missing(path))
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            tail = file.read(8)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if head.startswith(_HDF5):
        from tfport.checkpoints.hdf5 import H5Source

        return H5Source(path)
    if head.startswith(_ZIP):
        return _zip(path)
    if tail == _TABLE:
        from tfport.checkpoints.saver_v1 import V1Source

        return V1Source(path)
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= max(size, 100 << 20):
        from tfport.checkpoints.arrays import SafetensorsSource

        return SafetensorsSource(path)
    raise CheckpointError(_not_one(path, head, size))


def _prefix(path: Path) -> Path | None:
    """The prefix that a path means: itself, or the checkpoint that one of its files belongs to."""
    if not path.is_file():
        return path if path.with_name(f"{path.name}.index").is_file() else None
    name = path.name
    for stem, found in (
        (name.removesuffix(".index"), name.endswith(".index")),
        (name.removesuffix(".meta"), name.endswith(".meta")),
        (name.rpartition(".data-")[0], ".data-" in name),
    ):
        if found and path.with_name(f"{stem}.index").is_file():
            return path.with_name(stem)
    return None


def _folder(path: Path) -> Source:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        from tfport.checkpoints.saved_model import SavedModelSource

        return SavedModelSource(path)
    if (path / "manifest.json").is_file():
        from tfport.checkpoints.runs import RunSource

        return RunSource(path)
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    prefixes = [name.removesuffix(".index") for name in names if name.endswith(".index")]
    others = [name for name in names if name.endswith((".h5", ".keras", ".npz", ".safetensors", ".pt", ".pth"))]
    folders = [name for name in names if any((path / name / mark).is_file() for mark in _MARKS)]
    found = [*prefixes, *others] or folders
    if len(found) == 1:
        return open_source(path / found[0])
    if not found:
        inside = f"it holds {', '.join(names[:5])}" if names else "it is empty"
        raise CheckpointError(
            f"{path} is a folder without a checkpoint in it ({inside}); give the checkpoint's prefix or file."
        )
    shown = ", ".join(str(path / name) for name in found[:6])
    raise CheckpointError(f"{path} holds {len(found)} checkpoints; give one of them: {shown}.")


def _zip(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{path} is a damaged zip archive ({error}); take another copy of it.") from None
    if "config.json" in names or "model.weights.h5" in names:
        from tfport.checkpoints.keras_archive import KerasArchiveSource

        return KerasArchiveSource(path)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        from tfport.checkpoints.torch_file import TorchSource

        return TorchSource(path)
    if names and all(name.endswith(".npy") for name in names):
        from tfport.checkpoints.arrays import NpzSource

        return NpzSource(path)
    raise CheckpointError(
        f"{path} is a zip archive of no kind that is read: it holds {', '.join(names[:4]) or 'nothing'}. Expected "
        "a .keras model, an .npz, or a file of torch.save."
    )


def _missing(path: Path) -> str:
    shards = (
        sorted(each.name for each in path.parent.glob(f"{glob.escape(path.name)}.*")) if path.parent.is_dir() else []
    )
    if any(".data-" in name for name in shards):
        return (
            f"{path}.index does not exist, and a checkpoint cannot be read without it; "
            f"beside it lie {', '.join(shards[:4])}."
        )
    if shards:
        return f"{path} does not exist; did you mean {' or '.join(str(path.with_name(name)) for name in shards[:3])}?"
    return f"{path} does not exist: expected a checkpoint's file, its folder, or a TensorFlow checkpoint's prefix."


def _not_one(path: Path, head: bytes, size: int) -> str:
    if not size:
        return f"{path} is empty."
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return (
            f"{path} is a pickle, and loading one runs whatever code it holds: it is not read. Load it where you trust "
            "it and save its arrays with np.savez, or PyTorch's with torch.save of version 1.6 or later."
        )
    if path.name.endswith(".index") or ".data-" in path.name:
        return f"{path} is one file of a TensorFlow checkpoint that is not whole: its .index is missing or damaged."
    known = ", ".join(FORMATS)
    return f"{path} is of no format that is read ({known}): it begins with {head[:8]!r}. Is it cut, or something else?"


def load_json(path: Path, data: bytes, what: str) -> dict[str, object]:
    """A JSON object out of a checkpoint's file.

    Raises:
      CheckpointError: it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {what} is not JSON ({type(error).__name__}); the file is damaged.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: {what} holds {type(found).__name__}, expected an object; the file is damaged.")
    return found
