"""Files of torch.save (since PyTorch 1.6), read and written without PyTorch.

The file is a zip: `<root>/data.pkl` holds dicts and the tensors' headers (`torch_pickle`), `<root>/data/<n>` each
storage's bytes, `<root>/byteorder` and `<root>/version` what they say. A tensor's key is the path to it through the
dicts and lists, joined by "/": a flat state_dict keeps its own dotted names.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfport.checkpoints import torch_names
from tfport.checkpoints.arrays import Announced, check_shape, filled, strided_pieces, swapped
from tfport.checkpoints.contents import Bytes, Contents, Sink, Source, Stored, check_names, damaged, numpy_dtype
from tfport.checkpoints.torch_pickle import Ordered, Path_, Storage, Tensor, Writer, leaves, load, written_dtypes
from tfport.checkpoints.zips import Archive, shown
from tfport.errors import CheckpointError
from tfport.files import explained

_PICKLE = "data.pkl"
_PICKLE_SIZE = 512 << 20
_BARE = "tensor"
"""The key of a tensor that was saved by itself."""
_ALIGNMENT = 64
"""torch.save begins every storage at a multiple of it."""
_REPEATS = 64
"""How often over the tensors may name the file's bytes: storages are shared, but not without end."""
_STEPS = ("step", "global_step", "epoch", "iteration", "iterations", "global_iteration", "n_iter", "num_steps", "iters")
"""Whole numbers by these names in dicts are exposed as int64 scalars."""


class TorchSource(Source):
    """An open file of torch.save.

    Whole numbers that count (`step`, `epoch`, ...) are tensors of dtype int64 and shape (); other numbers and texts are
    in `facts`.

    Raises:
      CheckpointError: it is missing, damaged, of another kind (TorchScript, or from before PyTorch 1.6), or its pickle
        names something that a state_dict does not need; nothing is run.
    """

    format = "torch"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = {}
        self.written_by = {}
        self.tree: Any = None
        """What `torch_pickle.load` gave."""
        self.facts: dict[Path_, Any] = {}
        """What is no tensor, by the keys that lead to it."""
        self.places: dict[str, Path_] = {}
        """A tensor's key -> the keys that lead to it."""
        self.views: dict[str, Tensor] = {}
        """A tensor's key -> where it lies, but for whole numbers."""
        self._numbers: dict[str, int] = {}
        self._notes: list[str] = []
        _check_zip(path)
        self._archive = Archive(path)
        try:
            self._read_headers()
        except BaseException:
            self._archive.close()
            raise

    def _read_headers(self) -> None:
        members = self._archive.members
        pickles = [name for name in members if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
        roots = [name.removesuffix(_PICKLE) for name in pickles]
        if len(roots) != 1 or roots[0].count("/") > 1:
            raise CheckpointError(
                f"{self.path} holds {len(roots)} members {_PICKLE}; a file of torch.save has one, in its one folder."
            )
        self._root = roots[0]
        if f"{self._root}constants.pkl" in members or any(name.startswith(f"{self._root}code/") for name in members):
            raise CheckpointError(
                f"{self.path} is a TorchScript program (torch.jit.save), and reading it would take its code: refused. "
                "Load it where you trust it and save its state_dict() with torch.save."
            )
        if self._archive.without_checksums():
            self._archive.ignore_checksums()
            self._notes.append("The file was written without checksums: damage to its data cannot be seen.")
        self._big = self._order() == "big"
        version = self._text("version", "")
        if version:
            self.written_by = {"torch.save": f"file format {version}"}
        self.tree = load(self.path, self._archive.whole(pickles[0], _PICKLE_SIZE))
        total = 0
        for place, leaf in leaves(self.tree):
            counts = isinstance(leaf, int) and not isinstance(leaf, bool) and bool(place) and place[-1] in _STEPS
            if not isinstance(leaf, Tensor) and not (counts and abs(leaf) < 1 << 63):
                self.facts[place] = leaf
                continue
            key = "/".join(place) if place else _BARE
            if key in self.tensors:
                raise CheckpointError(
                    f"{self.path} holds two tensors at {shown(key)}: a name with '/' or a number as a key makes them "
                    "alike. Save it with other keys."
                )
            self.places[key] = place
            if isinstance(leaf, Tensor):
                self.tensors[key] = self._header(key, leaf)
                self.views[key] = leaf
                total += self.tensors[key].nbytes
            else:
                self.tensors[key] = Stored(key, (), "int64")
                self._numbers[key] = leaf
        check_names(self.path, self.tensors)
        size = sum(info.file_size for name, info in members.items() if name.startswith(f"{self._root}data/"))
        if total > _REPEATS * max(size, 1 << 20):
            raise CheckpointError(
                f"{self.path}: its tensors tell of {total:,} bytes, and its storages hold {size:,}: refused. "
                "The file is damaged or made to do harm."
            )

    def _order(self) -> str:
        order = self._text("byteorder", "little")
        if order not in ("little", "big"):
            raise damaged(self.path, f"its byteorder is {shown(order)}, expected 'little' or 'big'")
        return order

    def _text(self, name: str, default: str) -> str:
        if self._root + name not in self._archive.members:
            return default
        data = self._archive.whole(self._root + name, 4_096)
        return data.decode("ascii", "replace").strip()

    def _header(self, key: str, view: Tensor) -> Stored:
        """Checks that the tensor lies within its storage, and the storage within the file."""
        size = numpy_dtype(view.dtype).itemsize
        shape = check_shape(self.path, key, view.shape, size)
        name = f"{self._root}data/{view.storage.key}"
        if name not in self._archive.members:
            raise damaged(self.path, f"{shown(key)} lies in the storage {shown(view.storage.key)}, which is not there")
        held = self._archive.members[name].file_size
        told = view.storage.numel * (numpy_dtype(view.storage.dtype).itemsize if view.storage.dtype else 1)
        if held != told:
            raise damaged(self.path, f"the storage {shown(view.storage.key)} has {held:,} bytes, expected {told:,}")
        elements = math.prod(shape)
        if not elements:
            return Stored(key, shape, view.dtype)
        last = view.offset + sum((one - 1) * step for one, step in zip(shape, view.strides, strict=True))
        if (last + 1) * size > held:
            raise damaged(
                self.path,
                f"{shown(key)} of shape {shape} reaches beyond its storage {shown(view.storage.key)} of {held:,} bytes",
            )
        if elements > last - view.offset + 1:
            raise CheckpointError(
                f"{self.path}: {shown(key)} is an expanded view: shape {shape} over {last - view.offset + 1:,} stored "
                "elements, which is not read. Save it with .contiguous()."
            )
        return Stored(key, shape, view.dtype)

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See Source. A tensor that is not contiguous in its storage is held in memory once."""
        if key in self._numbers:
            yield self._numbers[key].to_bytes(8, "little", signed=True)
            return
        view, stored = self.views[key], self.tensors[key]
        if not stored.nbytes:
            return
        dtype = numpy_dtype(stored.dtype)
        name = f"{self._root}data/{view.storage.key}"
        start = view.offset * dtype.itemsize
        if _contiguous(view):
            data: Iterable[Bytes] = self._archive.part(name, start, stored.nbytes)
            yield from self._ordered(data, dtype)
            return
        span = 1 + sum((one - 1) * step for one, step in zip(view.shape, view.strides, strict=True))
        length = span * dtype.itemsize
        data = self._ordered(self._archive.part(name, start, length), dtype)
        flat = filled(self.path, key, data, length).view(dtype)
        steps = tuple(step * dtype.itemsize for step in view.strides)
        yield from strided_pieces(np.lib.stride_tricks.as_strided(flat, view.shape, steps, writeable=False))

    def _ordered(self, data: Iterable[Bytes], dtype: np.dtype[Any]) -> Iterable[Bytes]:
        if not self._big or dtype.itemsize == 1:
            return data
        # ml_dtypes's dtypes have no other byte order: their bytes are swapped as whole numbers of the same size.
        if dtype.kind == "V":
            return swapped(data, np.dtype(f"u{dtype.itemsize}"))
        return swapped(data, dtype)

    def contents(self) -> Contents:
        """What each tensor is, by where it is and what it is called; optimizers' numbers are read."""
        return torch_names.nested(self, tuple(self._notes))

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()


def _check_zip(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    if head != b"PK\x03\x04":
        raise CheckpointError(
            f"{path} begins with {head!r} and is no zip: torch.save has written zips since PyTorch 1.6, and what came "
            "before is a pickle, which runs whatever code it holds and is not read. Load it where you trust it and "
            "save it again with a newer PyTorch."
        )


def _contiguous(view: Tensor) -> bool:
    expected = 1
    for size, step in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


class TorchSink(Sink):
    """A file of torch.save that is being written; `torch.load(path, weights_only=True)` reads it.

    Without a template it holds one OrderedDict, the tensors' keys to the tensors. A template, an open TorchSource,
    gives its dicts and lists and all in them that is no tensor; the tensors must then be those of the template.

    Raises:
      CheckpointError: PyTorch has no such dtype, or the tensors are not those of the template.
      RunError: the disk refused.
    """

    def __init__(self, path: Path, headers: Sequence[Stored], contents: Contents, template: Source | None) -> None:  # noqa: ARG002
        self.path = path
        tensors = self._tensors = {each.key: each for each in headers}
        self._announced = Announced(headers)
        self._template = template if isinstance(template, TorchSource) else None
        for key, stored in tensors.items():
            if stored.dtype not in written_dtypes():
                raise CheckpointError(
                    f"{path}: {key} has dtype {stored.dtype}, which PyTorch has not; cast it, or leave it out."
                )
        if self._template is not None:
            self._check_template(self._template)
        self._storages = {key: str(number) for number, key in enumerate(tensors)}
        self._numbers: dict[str, int] = {}
        with explained(path):
            self._file = path.open("wb")
            self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def _check_template(self, template: TorchSource) -> None:
        for kind, keys in (
            ("lacks", template.tensors.keys() - self._tensors.keys()),
            ("has", self._tensors.keys() - template.tensors.keys()),
        ):
            if keys:
                what = (
                    "is in the template and not among what is written" if kind == "lacks" else "is not in the template"
                )
                raise CheckpointError(
                    f"{self.path}: {len(keys)} tensor(s) do not fit the template {template.path}: {min(keys)} {what}."
                )

    def _number_key(self, key: str) -> bool:
        """Whether the template keeps a whole number there."""
        template = self._template
        return template is not None and key not in template.views and self._tensors[key].parameters == 1

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """See Sink."""
        data = self._announced.counted(key, chunks)
        stored = self._tensors[key]
        if self._number_key(key) and numpy_dtype(stored.dtype).kind in "iu":
            flat = filled(self.path, key, data, stored.nbytes).view(numpy_dtype(stored.dtype))
            self._numbers[key] = int(flat[0])
            return
        with explained(self.path):
            self._member(f"data/{self._storages[key]}", data, stored.nbytes)

    def _member(self, name: str, chunks: Iterable[Bytes], size: int) -> None:
        info = zipfile.ZipInfo(f"archive/{name}")
        large = size > 1 << 30
        # The local header: 30 bytes, the name, the filling, and 20 bytes for the size of what is large.
        start = self._file.tell() + 30 + len(info.filename) + 4 + (20 if large else 0)
        filling = -start % _ALIGNMENT
        info.extra = b"FB" + filling.to_bytes(2, "little") + b"Z" * filling
        with self._zip.open(info, "w", force_zip64=large) as member:
            for chunk in chunks:
                member.write(chunk)

    def finish(self) -> None:
        """See Sink."""
        self._announced.end()
        places: dict[Path_, str]
        if self._template is None:
            tree: Any = Ordered((key, Tensor(Storage(None, "", 0), "uint8", 0, (), ())) for key in self._tensors)
            places = {(key,): key for key in self._tensors}
            old: Mapping[str, Tensor] = {}
        else:
            tree, old = self._template.tree, self._template.views
            places = {place: key for key, place in self._template.places.items()}

        def tensor(place: Path_) -> Tensor | int | None:
            key = places.get(place)
            if key is None:
                return None
            return self._numbers[key] if key in self._numbers else self._view(key, old.get(key))

        data = Writer(tensor).done(tree)
        with explained(self.path):
            for name, content in ((_PICKLE, data), ("byteorder", b"little"), ("version", b"3\n")):
                self._member(name, [content], len(content))
            self._zip.close()
            self._file.close()

    def _view(self, key: str, old: Tensor | None) -> Tensor:
        stored = self._tensors[key]
        strides = tuple(math.prod(stored.shape[axis + 1 :]) for axis in range(len(stored.shape)))
        storage = Storage(stored.dtype, self._storages[key], stored.parameters)
        if stored.dtype.startswith(("float8", "uint")) and stored.dtype != "uint8":
            storage = replace(storage, dtype=None, numel=stored.nbytes)
        new = Tensor(storage, stored.dtype, 0, stored.shape, strides)
        return new if old is None else replace(new, requires_grad=old.requires_grad, parameter=old.parameter)

    def abandon(self) -> None:
        """See Sink."""
        with explained(self.path):
            self._zip.close()
            self._file.close()
