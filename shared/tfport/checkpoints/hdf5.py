"""HDF5 files of Keras: whole models and weights of Keras 2 (`.h5`), weights of Keras 3 (`.weights.h5`).

Reading: a child process (`tfport.checkpoints.isolated`) walks the file. The bytes of a tensor that lies in one plain
run, as all that Keras writes do, are read from the file itself, others (chunked, compressed, big-endian) by the child.

Writing: the file is laid out by h5py with room for every tensor, then closed; each tensor's bytes are put in their
place.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfport.checkpoints import isolated
from tfport.checkpoints.contents import (
    CHUNK,
    STRING,
    Bytes,
    Contents,
    Role,
    Sink,
    Source,
    Stored,
    check_names,
    damaged,
    numpy_dtype,
)
from tfport.errors import CheckpointError, RunError
from tfport.files import explained

KERAS2, KERAS3 = "keras-h5", "keras3-weights"
_CONFIG_BYTES = 128 << 20
_KERAS_2 = "2.15.0"
"""The version that files of the Keras 2 layout are written as, where no template says another."""
_ATTRIBUTE_BYTES = 64_512
"""The most that one attribute holds: HDF5's limit of an object's header, as Keras takes it."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of a group or a dataset."""

    kind: str
    """ "text", "number", "empty", or "other" for what Keras writes none of."""
    value: list[Any] = field(default_factory=list)
    """Its elements, in C order."""
    shape: tuple[int, ...] = ()
    length: int | None = None
    """Bytes of a text of fixed length."""
    utf8: bool = True
    dtype: str = ""


Attributes = dict[str, Attribute]


def texts(attributes: Mapping[str, Attribute], name: str) -> list[str] | None:
    """A list of texts, which Keras splits over `name0`, `name1`, ... where it is long; None where there is none."""
    if name in attributes:
        return [str(each) for each in attributes[name].value]
    found: list[str] = []
    number = 0
    while f"{name}{number}" in attributes:
        found.extend(str(each) for each in attributes[f"{name}{number}"].value)
        number += 1
    return found if number else None


def text(attributes: Mapping[str, Attribute], name: str) -> str | None:
    """A single text; None where there is none."""
    held = attributes.get(name)
    return str(held.value[0]) if held is not None and held.kind == "text" and len(held.value) == 1 else None


def config_of(path: Path, data: str | bytes, what: str) -> Any:
    """JSON out of a model file; nothing in it is built or run.

    Raises:
      CheckpointError: it is too large, nested too deep, or no JSON.
    """
    if len(data) > _CONFIG_BYTES:
        raise CheckpointError(f"{path}: {what} has {len(data):,} bytes; at most {_CONFIG_BYTES:,} are read.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{what} is not JSON ({type(error).__name__})") from None


def shown(value: str) -> str:
    """A text out of a file, fit to be printed."""
    return "".join(each if each.isprintable() else "?" for each in value[:200])


class H5File:
    """The headers and the data of one HDF5 file, which may lie inside another file."""

    def __init__(self, path: Path, file: IO[bytes], offset: int, size: int) -> None:
        """Reads the headers.

        Args:
          path: what messages name.
          file: open for reading, unbuffered; this object closes it.
          offset: where in it the HDF5 file begins.
          size: its bytes.

        Raises:
          CheckpointError: it is damaged, or holds what is refused: links, data in other files.
        """
        self.path = path
        self._file, self._offset = file, offset
        try:
            self._reader = isolated.Reader(file.fileno(), offset, size, CHUNK)
        except isolated.ChildFailed as error:
            file.close()
            if isinstance(error, isolated.NoChild):
                raise CheckpointError(f"{path} cannot be read: {error}") from None
            raise damaged(path, str(error)) from None
        try:
            self._take(self._reader.headers)
        except BaseException:
            self.close()
            raise

    def _take(self, headers: dict[str, Any]) -> None:
        self.groups: dict[str, Attributes] = {
            each["path"]: _attributes(each["attributes"]) for each in headers["groups"]
        }
        """Path ("" for the root) -> attributes, parents first."""
        self.tracked = {each["path"] for each in headers["groups"] if each["tracked"]}
        """Groups that keep the order in which their members were made."""
        self.tensors: dict[str, Stored] = {}
        self.attributes: dict[str, Attributes] = {}
        """Of the datasets that have any, by path."""
        self._places: dict[str, tuple[int, int | None]] = {}
        check_names(self.path, [each["path"] for each in headers["datasets"]])
        for each in sorted(headers["datasets"], key=lambda each: _natural(each["path"])):
            key = each["path"]
            stored = Stored(key, tuple(each["shape"]), each["dtype"])
            if stored.dtype != STRING:
                numpy_dtype(stored.dtype)
            self.tensors[key] = stored
            if each["attributes"]:
                self.attributes[key] = _attributes(each["attributes"])
            self._places[key] = (each["index"], each.get("offset"))

    def chunks(self, key: str) -> Iterator[Bytes]:
        """A dataset's bytes, as `Source.chunks`."""
        stored = self.tensors[key]
        index, offset = self._places[key]
        if stored.dtype != STRING and not stored.nbytes:
            return
        if offset is None:
            try:
                yield from self._reader.pieces(index)
            except isolated.ChildFailed as error:
                raise damaged(self.path, f"{key}: {error}") from None
            return
        place, left = self._offset + offset, stored.nbytes
        while left:
            try:
                piece = os.pread(self._file.fileno(), min(left, CHUNK), place)
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}.") from None
            if not piece:
                raise damaged(self.path, f"it ends {left:,} bytes before {key} does")
            yield piece
            place += len(piece)
            left -= len(piece)

    def close(self) -> None:
        """Ends the child and closes the file."""
        self._reader.close()
        self._file.close()

    def layout(self) -> str:
        """KERAS2 or KERAS3, by the groups.

        Raises:
          CheckpointError: it is neither.
        """
        if texts(self.groups[self.prefix.rstrip("/")], "layer_names") is not None:
            return KERAS2
        if self.tensors and all(len(parts := key.split("/")) > 1 and parts[-2] == "vars" for key in self.tensors):
            return KERAS3
        top = [path for path in self.groups if path and "/" not in path] + [
            key for key in self.tensors if "/" not in key
        ]
        raise CheckpointError(
            f"{self.path} is an HDF5 file, but not one of Keras's: its root has no layer_names and no model_weights "
            f"(Keras 2), and its datasets do not lie in groups named vars (Keras 3). It holds "
            f"{', '.join(map(repr, sorted(top)[:8])) or 'nothing'}."
        )

    @property
    def prefix(self) -> str:
        """What the layers' groups of the Keras 2 layout lie under: "model_weights/" in a whole model, else ""."""
        whole = self.groups.get("model_weights")
        return "model_weights/" if whole is not None and texts(whole, "layer_names") is not None else ""


def _attributes(records: list[dict[str, Any]]) -> Attributes:
    return {
        each["name"]: Attribute(
            each["kind"],
            each.get("value", []),
            tuple(each.get("shape", ())),
            each.get("length"),
            each.get("utf8", True),
            each.get("dtype", ""),
        )
        for each in records
    }


def _natural(path: str) -> list[tuple[str, int]]:
    """A key that sorts "dense_2" before "dense_10"."""
    return [(word, int(number) if 0 < len(number) < 12 else 0) for word, number in re.findall(r"(\D*)(\d*)", path)]


def open_window(path: Path, offset: int = 0, size: int | None = None) -> H5File:
    """An HDF5 file on disk, or one that lies in a range of a file's bytes.

    Raises:
      CheckpointError: it cannot be read, is damaged or refused.
    """
    try:
        file = path.open("rb", buffering=0)
        found = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
    return H5File(path, file, offset, found - offset if size is None else size)


class H5Source(Source):
    """An `.h5` or `.weights.h5` of Keras."""

    def __init__(self, path: Path) -> None:
        """Reads the headers; raises CheckpointError for what is damaged, refused, or not of Keras."""
        self.path = path
        self.file = open_window(path)
        try:
            self.format = self.file.layout()
            self.tensors = self._ordered() if self.format == KERAS2 else self.file.tensors
            self.written_by = self._versions()
        except BaseException:
            self.file.close()
            raise

    def _ordered(self) -> dict[str, Stored]:
        """The tensors in Keras's order: layer by layer, then the optimizer's.

        Raises:
          CheckpointError: a weight that is listed is not there.
        """
        found: dict[str, Stored] = {}
        for group, names in weight_lists(self.file):
            for name in names:
                key = f"{group}/{name}"
                if key not in self.file.tensors:
                    raise damaged(
                        self.path, f"{group!r} lists the weight {shown(name)!r}, and the file has no {shown(key)!r}"
                    )
                found[key] = self.file.tensors[key]
        for key, stored in self.file.tensors.items():
            found.setdefault(key, stored)
        return found

    def _versions(self) -> dict[str, str]:
        places = [self.file.groups[""], self.file.groups[self.file.prefix.rstrip("/")]]
        found: dict[str, str] = {}
        for attribute, program in (("keras_version", "keras"), ("backend", "backend")):
            for place in places:
                value = text(place, attribute)
                if value is not None:
                    found.setdefault(program, shown(value))
        return found

    def chunks(self, key: str) -> Iterator[Bytes]:
        """The tensor's bytes; HDF5 files of Keras's hold no checksums."""
        return self.file.chunks(key)

    def contents(self) -> Contents:
        """Roles and names, from the attributes and configs in the file."""
        from tfport.checkpoints import keras_names

        if self.format == KERAS2:
            return keras_names.keras2(self)
        return keras_names.keras3(self.file, self.tensors, self.read)

    def close(self) -> None:
        """Ends the child process and closes the file."""
        self.file.close()


def weight_lists(file: H5File) -> list[tuple[str, list[str]]]:
    """(group, the weights that it lists, relative to it) in Keras 2's order: layers, the model's own, the optimizer's.

    Raises:
      CheckpointError: a layer is listed that has no group.
    """
    layers = texts(file.groups[file.prefix.rstrip("/")], "layer_names") or []
    groups = [f"{file.prefix}{layer}" for layer in layers]
    for extra in (f"{file.prefix}top_level_model_weights", "optimizer_weights"):
        if extra in file.groups and extra not in groups:
            groups.append(extra)
    found = []
    for group in dict.fromkeys(groups):
        if group not in file.groups:
            raise damaged(file.path, f"it lists the layer {shown(group)!r} and has no group of that name")
        found.append((group, texts(file.groups[group], "weight_names") or []))
    return found


# --- Writing ----------------------------------------------------------------------------------------------------------
class Layout:
    """An HDF5 file that was laid out: every tensor has its place, and its bytes are written there."""

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Stored],
        groups: Mapping[str, Attributes],
        attributes: Mapping[str, Attributes],
        tracked: Iterable[str] = (),
    ) -> None:
        """Lays it out.

        Args:
          path: where; nothing is there yet.
          tensors: what it will hold, by the dataset's path.
          groups: path ("" for the root) -> attributes.
          attributes: of datasets, by path.
          tracked: groups that keep the order of their members.

        Raises:
          RunError: the disk refused.
        """
        self.path = path
        self._places: dict[str, int] = {}
        self._tensors = dict(tensors)
        self._texts: dict[str, bytes] = {}
        with explained(path):
            self._lay_out(groups, attributes, set(tracked))
            self._file = path.open("r+b", buffering=0)

    def _lay_out(
        self, groups: Mapping[str, Attributes], attributes: Mapping[str, Attributes], tracked: set[str]
    ) -> None:
        import h5py

        large = any(
            _attribute_bytes(each) > _ATTRIBUTE_BYTES
            for held in (*groups.values(), *attributes.values())
            for each in held.values()
        )
        with h5py.File(self.path, "w", libver=("v110", "latest") if large else None, track_order="" in tracked) as file:
            for path, held in groups.items():
                group = file.create_group(path, track_order=path in tracked) if path else file
                for name, attribute in held.items():
                    _set_attribute(group, name, attribute)
            for key, stored in self._tensors.items():
                if stored.dtype == STRING:
                    continue
                found = _make_dataset(file, stored)
                given = attributes.get(key, {})
                if stored.dtype in _OPAQUE and "dtype" not in given:
                    given = {**given, "dtype": Attribute("text", [stored.dtype])}
                for name, attribute in given.items():
                    if name != "dtype" or stored.dtype in _OPAQUE:
                        _set_attribute(found, name, attribute)
            file.flush()
            for key, stored in self._tensors.items():
                if stored.nbytes:
                    self._places[key] = int(file[key].id.get_offset())

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes one tensor's bytes.

        Raises:
          RunError: the disk refused, or they are not as many as were announced.
        """
        stored = self._tensors[key]
        if stored.dtype == STRING:
            self._texts[key] = b"".join(bytes(each) for each in chunks)
            return
        place = self._places.get(key, 0)
        done = 0
        with explained(self.path):
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                if done + len(view) > stored.nbytes:
                    raise RunError(f"cannot write {self.path}: {key} came with more than {stored.nbytes:,} bytes.")
                while view:
                    count = os.pwrite(self._file.fileno(), view, place + done)
                    done += count
                    view = view[count:]
        if done != stored.nbytes:
            raise RunError(f"cannot write {self.path}: {key} came with {done:,} of {stored.nbytes:,} bytes.")

    def finish(self) -> None:
        """Writes what is left and makes the file durable."""
        with explained(self.path):
            os.fsync(self._file.fileno())
            self._file.close()
            if self._texts:
                self._write_texts()

    def _write_texts(self) -> None:
        import h5py

        with h5py.File(self.path, "r+") as file:
            for key, data in self._texts.items():
                values: list[bytes] = []
                place = 0
                while place < len(data):
                    size = int.from_bytes(data[place : place + 4], "little")
                    values.append(data[place + 4 : place + 4 + size])
                    place += 4 + size
                array = np.array(values, dtype=object).reshape(self._tensors[key].shape)
                file.create_dataset(key, data=array, dtype=h5py.string_dtype())

    def abandon(self) -> None:
        """Closes the file as it is."""
        with contextlib.suppress(OSError):
            self._file.close()


_OPAQUE = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})
"""What HDF5 has no type for; Keras keeps it as opaque bytes and names it in the attribute `dtype`."""


def _make_dataset(file: Any, stored: Stored) -> Any:
    """A dataset whose bytes have their place in the file at once, and are not written."""
    import h5py

    dtype = numpy_dtype(stored.dtype)
    if stored.dtype in _OPAQUE:
        dtype = np.dtype(f"V{dtype.itemsize}")
    elif dtype.kind not in "biufc":
        raise CheckpointError(f"{stored.key} is of dtype {stored.dtype}, for which Keras's HDF5 files have no form.")
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    parent, _, name = stored.key.rpartition("/")
    group = file.require_group(parent) if parent else file
    space = h5py.h5s.create_simple(stored.shape) if stored.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    made = h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, plist)
    return h5py.Dataset(made)


def _attribute_bytes(attribute: Attribute) -> int:
    if attribute.kind == "text":
        return math.prod(attribute.shape) * (attribute.length or 16)
    return math.prod(attribute.shape) * 8


def _set_attribute(found: Any, name: str, attribute: Attribute) -> None:
    import h5py

    if attribute.kind == "empty":
        found.attrs[name] = h5py.Empty("f")
    elif attribute.kind == "text":
        dtype = h5py.string_dtype("utf-8" if attribute.utf8 else "ascii", attribute.length)
        values: list[Any] = [str(each).encode("utf-8", "surrogateescape") for each in attribute.value]
        array = np.empty(len(values), dtype=object if attribute.length is None else dtype)
        array[:] = values
        found.attrs.create(name, array.reshape(attribute.shape), shape=attribute.shape, dtype=dtype)
    elif attribute.kind == "number":
        found.attrs.create(name, np.array(attribute.value, attribute.dtype).reshape(attribute.shape))


def text_list(name: str, values: Sequence[str]) -> Attributes:
    """A list of texts as Keras 2 keeps it: over several attributes where one could not hold it."""
    parts = 1
    while parts < len(values) and 16 * -(-len(values) // parts) > _ATTRIBUTE_BYTES:
        parts += 1
    if parts == 1:
        return {name: _texts_attribute(list(values))}
    size = -(-len(values) // parts)
    return {
        f"{name}{number}": _texts_attribute(list(values[number * size : (number + 1) * size]))
        for number in range(parts)
    }


def _texts_attribute(values: list[str]) -> Attribute:
    if not values:
        return Attribute("number", [], (0,), dtype="float64")
    return Attribute("text", values, (len(values),))


class H5Sink(Sink):
    """A Keras HDF5 file that is being written.

    With a template its groups, attributes and configs are taken over, and tensors have the template's paths. Without
    one the layout is that of Keras 2's `save_weights`: a group for each layer, the layer being all of a canonical name
    before its last "/"; it holds weights and statistics only.
    """

    def __init__(
        self, path: Path, tensors: Sequence[Stored], contents: Contents, template: Source | None = None
    ) -> None:
        """Lays the file out.

        Raises:
          CheckpointError: a tensor has no place in the template, or in a file of weights.
          RunError: the disk refused.
        """
        self.path = path
        if template is None and path.name.endswith(".weights.h5"):
            raise no_template(path)
        if template is None:
            placed_weights = keras2_places(path, tensors, contents)
            self._keys = {key: f"{group}/{name}" for key, (group, name) in placed_weights.items()}
            groups = keras2_groups(list(placed_weights.values()))
            attributes: Mapping[str, Attributes] = {}
            tracked: Iterable[str] = ()
        else:
            if not isinstance(template, H5Source):
                raise CheckpointError(f"{template.path} is no Keras HDF5 file, and cannot be the template of {path}.")
            check_template(template, template.file, tensors)
            self._keys = {each.key: each.key for each in tensors}
            groups, attributes, tracked = template.file.groups, template.file.attributes, template.file.tracked
        placed = {self._keys[each.key]: Stored(self._keys[each.key], each.shape, each.dtype) for each in tensors}
        self._layout = Layout(path, placed, groups, attributes, tracked)

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes the next tensor."""
        self._layout.write(self._keys[key], chunks)

    def finish(self) -> None:
        """Makes the file durable."""
        self._layout.finish()

    def abandon(self) -> None:
        """Closes the file."""
        self._layout.abandon()


def no_template(path: Path) -> CheckpointError:
    """The error for a format of Keras 3's, whose structure cannot be made up."""
    return CheckpointError(
        f"{path} cannot be written from nothing: Keras 3 numbers its variables by a model's structure. Build the "
        "model, save it with Keras in this format, and give that file as the template (--like)."
    )


def check_template(template: Source, file: H5File, tensors: Sequence[Stored]) -> None:
    """Raises CheckpointError unless the tensors are the template's, each of its shape and dtype."""
    given = {each.key for each in tensors}
    for each in tensors:
        wanted = file.tensors.get(each.key)
        if wanted is None:
            raise CheckpointError(f"{template.path}, the template, has no {each.key}; it cannot be written like it.")
        if (wanted.shape, wanted.dtype) != (each.shape, each.dtype):
            raise CheckpointError(
                f"{each.key} is {each.dtype} {each.shape}, and in {template.path}, the template, it is {wanted.dtype} "
                f"{wanted.shape}."
            )
    for key in file.tensors:
        if key not in given:
            raise CheckpointError(f"{template.path}, the template, has {key}, for which nothing was given.")


_KINDS = (
    "depthwise_kernel",
    "pointwise_kernel",
    "kernel",
    "recurrent_kernel",
    "embeddings",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
)
"""Weights in the order in which Keras's layers make them."""


def keras2_places(path: Path, tensors: Sequence[Stored], contents: Contents) -> dict[str, tuple[str, str]]:
    """Key -> (group, the weight's name in it) in a weights file of Keras 2's: layers in the order of their first
    tensor, a layer's weights in the order in which Keras's own layers make them, others as they come. A key that is of
    the layout already, `<group>/<name>:0`, says itself which group it is in.

    Raises:
      CheckpointError: a tensor is no weight and no statistic, or two have one name.
    """
    entries = {each.key: each for each in contents.entries}
    groups: dict[str, list[tuple[str, str]]] = {}
    for each in tensors:
        entry = entries[each.key]
        if entry.role not in (Role.WEIGHT, Role.STATISTIC):
            raise CheckpointError(
                f"{path}: {entry.name} ({entry.role.value}) has no place in a Keras 2 weights file, which holds "
                "weights and statistics only. Leave it out, or give a whole model as the template (--like)."
            )
        given, name = each.key.removesuffix(f"/{entry.name}:0"), f"{entry.name}:0"
        group = given if given != each.key else entry.name.rpartition("/")[0] or _TOP
        groups.setdefault(group, []).append((each.key, name))
    found: dict[str, tuple[str, str]] = {}
    order = {kind: place for place, kind in enumerate(_KINDS)}
    for group, members in groups.items():
        for key, name in sorted(members, key=lambda member: order.get(_plain_kind(member[1]), len(order))):
            found[key] = (group, name)
    if len(set(found.values())) != len(found):
        twice = next(each for each in found.values() if list(found.values()).count(each) > 1)
        raise CheckpointError(f"{path}: two tensors would both be {'/'.join(twice)}; rename one of them.")
    check_names(path, [f"{group}/{name}" for group, name in found.values()])
    return found


def _plain_kind(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(":0")


_TOP = "top_level_model_weights"


def keras2_groups(places: Sequence[tuple[str, str]]) -> dict[str, Attributes]:
    """The groups of a Keras 2 weights file with these weights (group, name), in the order of layers and weights."""
    layers: dict[str, list[str]] = {}
    for group, name in places:
        layers.setdefault(group, []).append(name)
    top = layers.pop(_TOP, [])
    root: Attributes = {
        **text_list("layer_names", list(layers)),
        "backend": Attribute("text", ["tensorflow"]),
        "keras_version": Attribute("text", [_KERAS_2]),
    }
    found = {"": root}
    for layer in sorted(layers):
        parts = layer.split("/")
        for depth in range(1, len(parts)):
            found.setdefault("/".join(parts[:depth]), {})
        found[layer] = {**found.get(layer, {}), **text_list("weight_names", layers[layer])}
    found[_TOP] = text_list("weight_names", top)
    return found
