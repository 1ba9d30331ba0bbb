"""npz and safetensors files, read and written in pieces.

npz, after numpy's own description of the format: a zip of `.npy` members, each a header (magic, version, a Python
literal of dtype, order and shape) and the elements. Nothing is unpickled: arrays of objects are refused by name. A
state file of tfport (`tfport.state`) is an npz whose member `__schema__` holds JSON; here its facts are read and it is
no tensor. numpy has no dtype for bfloat16 and the float8s: they are kept as raw bytes, and `__schema__` says what they
are under "dtypes".

safetensors, after the description in its README: 8 bytes with the length of a JSON header, the header, the elements.
The format has no checksums, so a flipped bit among the elements cannot be seen.
"""

from __future__ import annotations

import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

import tfport
from tfport.checkpoints import canonical_names
from tfport.checkpoints.contents import (
    CHUNK,
    STRING,
    Array,
    Bytes,
    Contents,
    OptimizerEntry,
    Sink,
    Source,
    Stored,
    check_names,
    damaged,
    numpy_dtype,
)
from tfport.checkpoints.zips import PIECE, Archive, shown, told
from tfport.errors import CheckpointError
from tfport.files import explained
from tfport.state import SCHEMA

SCHEMA_MEMBER = "__schema__"
_NPY = ".npy"
_NPY_HEADER = 10_600
"""Bytes that hold any header that numpy reads: it refuses those of more than 10,000 characters."""
_SCHEMA_SIZE = 64 << 20
_HEADER_SIZE = 100_000_000
"""Bytes of the largest safetensors header that the reference implementation reads."""
_RANK = 64
"""numpy's largest number of dimensions."""


# --- Shapes and pieces ------------------------------------------------------------------------------------------------
def check_shape(path: Path, key: str, shape: Iterable[object], itemsize: int) -> tuple[int, ...]:
    """A shape out of a file.

    Raises:
      CheckpointError: it is no tuple of sizes that an array can have.
    """
    sizes = []
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
            raise damaged(path, f"{shown(key)} has a dimension {told(size)}")
        sizes.append(size)
        if len(sizes) > _RANK:
            raise damaged(path, f"{shown(key)} has more than {_RANK} dimensions")
    if math.prod(max(size, 1) for size in sizes) * itemsize >= 1 << 63:
        raise damaged(path, f"{shown(key)} has more elements than any array can")
    return tuple(sizes)


def strided_pieces(array: Array) -> Iterator[bytes]:
    """The elements of an array that may be laid out in any way, in C order, at most CHUNK bytes at a time."""
    if array.nbytes <= CHUNK:
        if array.size:
            yield array.tobytes()
        return
    row = array.nbytes // len(array)
    if row > CHUNK:
        for each in array:
            yield from strided_pieces(each)
        return
    step = CHUNK // row
    for start in range(0, len(array), step):
        yield array[start : start + step].tobytes()


def filled(path: Path, key: str, chunks: Iterable[Bytes], size: int) -> Array:
    """`size` bytes, put together.

    Raises:
      CheckpointError: there are more, or fewer.
    """
    flat = np.empty(size, np.uint8)
    place = 0
    for chunk in chunks:
        if place + len(chunk) > size:
            raise damaged(path, f"{shown(key)} holds more than the {size:,} bytes that its shape tells of")
        flat[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
        place += len(chunk)
    if place != size:
        raise damaged(path, f"{shown(key)} ends after {place:,} of {size:,} bytes")
    return flat


def swapped(chunks: Iterable[Bytes], dtype: np.dtype[Any]) -> Iterator[bytes]:
    """The bytes of big-endian elements in little-endian order."""
    kept = b""
    for chunk in chunks:
        data = kept + bytes(chunk)
        whole = len(data) - len(data) % dtype.itemsize
        kept = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], dtype.newbyteorder(">")).astype(dtype.newbyteorder("<")).tobytes()
    if kept:
        yield kept


class Announced:
    """Holds a Sink to what was announced: each tensor once, in order, with as many bytes as its header tells."""

    def __init__(self, tensors: Iterable[Stored]) -> None:
        self._left = list(tensors)[::-1]

    def counted(self, key: str, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """The chunks of the next tensor.

        Raises:
          ValueError: it is not the next, or has another number of bytes.
        """
        stored = self._left.pop() if self._left else None
        if stored is None or stored.key != key:
            raise ValueError(f"{key} was written where {stored.key if stored else 'nothing'} was announced")
        count = 0
        for chunk in chunks:
            count += len(chunk)
            yield chunk
        if stored.dtype != STRING and count != stored.nbytes:
            raise ValueError(f"{key} has {count:,} bytes where {stored.nbytes:,} were announced")

    def end(self) -> None:
        """Raises ValueError when something that was announced was not written."""
        if self._left:
            raise ValueError(f"{self._left[-1].key} was announced and not written")


# --- npz --------------------------------------------------------------------------------------------------------------
class NpzSource(Source):
    """An open npz file.

    Texts have dtype STRING, and come as their whole `.npy` member.

    Raises:
      CheckpointError: it is missing or damaged, or a member is no array of numbers or texts: objects, records.
    """

    format = "npz"
    framework = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = {}
        self.written_by = {}
        self.notes: tuple[str, ...] = ()
        self.recorded: tuple[OptimizerEntry, ...] | None = None
        """What the file records of its optimizers; None where it records nothing."""
        self.model = ""
        """The model that a state file of tfport names."""
        self.is_state = False
        """Whether it is a state file of tfport."""
        self._layout: dict[str, tuple[int, bool, np.dtype[Any]]] = {}
        self._archive = Archive(path)
        try:
            self._read_headers()
        except BaseException:
            self._archive.close()
            raise

    def _read_headers(self) -> None:
        names = list(self._archive.members)
        other = next((name for name in names if not name.endswith(_NPY)), None)
        if other is not None:
            raise CheckpointError(
                f"{self.path} holds {shown(other)}, which is no .npy member: it is no .npz of numpy's."
            )
        keys = [name.removesuffix(_NPY) for name in names]
        check_names(self.path, keys)
        raw = self._schema() if SCHEMA_MEMBER in keys else {}
        for key in keys:
            if not (self.is_state and key == SCHEMA_MEMBER):
                self.tensors[key] = self._header(key, raw)
        if self.is_state and raw.keys() - self.tensors.keys():
            raise damaged(
                self.path,
                f"{SCHEMA_MEMBER} tells the dtype of {shown(min(raw.keys() - self.tensors.keys()))}, "
                "which is not there",
            )

    def _npy(self, key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Shape, whether it is in Fortran's order, dtype, and the header's length."""
        file = io.BytesIO(self._archive.head(key + _NPY, _NPY_HEADER))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                version = np.lib.format.read_magic(file)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                found = None if read is None else read(file)
        except Exception as error:  # numpy reads the header as a Python literal, which may fail in many ways
            reason = f"{type(error).__name__}: {shown(str(error))}"
            raise damaged(self.path, f"{shown(key)} has no readable .npy header ({reason})") from None
        if found is None:
            raise CheckpointError(
                f"{self.path}: {shown(key)} is in version {version[0]}.{version[1]} of the .npy format; versions 1.0 "
                "and 2.0 are read, which hold all arrays of numbers. Save it again as numbers."
            )
        shape, fortran, dtype = found
        return check_shape(self.path, key, shape, max(dtype.itemsize, 1)), bool(fortran), dtype, file.tell()

    def _header(self, key: str, raw: Mapping[str, str]) -> Stored:
        shape, fortran, dtype, start = self._npy(key)
        if dtype.hasobject:
            raise CheckpointError(
                f"{self.path}: {shown(key)} holds Python objects, which only unpickling reads, and that runs whatever "
                "code is in them: refused. Load the file where you trust it and save its numbers with np.savez."
            )
        known = raw.get(key)
        if known is not None:
            if dtype.kind != "V" or dtype.itemsize != numpy_dtype(known).itemsize:
                raise damaged(self.path, f"{shown(key)} holds {dtype}, and {SCHEMA_MEMBER} says {known}")
            dtype = numpy_dtype(known)
        elif dtype.kind not in "biufcSU":
            raise CheckpointError(
                f"{self.path}: {shown(key)} holds {shown(str(dtype))}, which is no number; save it as numbers or leave "
                "it out."
            )
        size = self._archive.members[key + _NPY].file_size
        nbytes = math.prod(shape) * dtype.itemsize
        if size != start + nbytes:
            raise damaged(
                self.path,
                f"{shown(key)} tells of shape {shape} and dtype {dtype}, {nbytes:,} bytes, and holds {size - start:,}",
            )
        self._layout[key] = start, fortran and len(shape) > 1, dtype
        return Stored(key, shape, STRING if dtype.kind in "SU" else known or dtype.newbyteorder("=").name)

    def _schema(self) -> dict[str, str]:
        """Reads the facts of a state file, where it is one; returns the dtypes that numpy has no name for."""
        shape, _, dtype, start = self._npy(SCHEMA_MEMBER)
        if dtype.kind != "U" or shape:
            return {}
        data = self._archive.whole(SCHEMA_MEMBER + _NPY, _SCHEMA_SIZE)[start:]
        try:
            facts = json.loads(data.decode("utf-32-le" if dtype.byteorder != ">" else "utf-32-be").rstrip("\0"))
        except (ValueError, RecursionError):
            return {}
        if not isinstance(facts, dict) or "schema" not in facts or "names" not in facts:
            return {}
        if facts["schema"] != SCHEMA or isinstance(facts["schema"], bool):
            raise CheckpointError(
                f"{self.path} has state schema {told(facts['schema'])}; this tfport reads schema {SCHEMA}. "
                "Use the tfport version that wrote it."
            )
        names, model, dtypes = facts["names"], facts.get("model", ""), facts.get("dtypes", {})
        held = sorted(set(self._archive.members) - {SCHEMA_MEMBER + _NPY})
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise damaged(self.path, f"the names in {SCHEMA_MEMBER} are no list of texts")
        if sorted(name + _NPY for name in names) != held:
            raise damaged(self.path, f"{SCHEMA_MEMBER} lists {len(names):,} arrays, and {len(held):,} are there")
        if not isinstance(dtypes, dict) or not all(each in canonical_names.EXTENDED for each in dtypes.values()):
            raise damaged(self.path, f"the dtypes in {SCHEMA_MEMBER} are none that are known")
        self.is_state = True
        self.model = model if isinstance(model, str) else ""
        version = facts.get("tfport")
        self.written_by = {"tfport": version if isinstance(version, str) else f"state schema {SCHEMA}"}
        self.notes = (f"A state file of tfport, schema {SCHEMA}.",)
        if self.model:
            self.notes += (canonical_names.MODEL_NOTE + self.model,)
        if "optimizers" in facts:
            self.recorded = canonical_names.recorded(self.path, facts["optimizers"])
        return dtypes

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See Source. A tensor in Fortran's order is held in memory once."""
        start, fortran, dtype = self._layout[key]
        stored = self.tensors[key]
        member = self._archive.stream(key + _NPY)
        if stored.dtype == STRING:
            yield from member
            return
        data: Iterable[Bytes] = _after(member, start)
        if dtype.byteorder == ">":
            data = swapped(data, dtype)
        if fortran:
            flat = filled(self.path, key, data, stored.nbytes).view(numpy_dtype(stored.dtype))
            yield from strided_pieces(flat.reshape(stored.shape[::-1]).T)
            return
        yield from data

    def contents(self) -> Contents:
        """What each tensor is, by its name."""
        return canonical_names.contents(self)

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()


def _after(chunks: Iterable[bytes], start: int) -> Iterator[bytes]:
    """The bytes from `start` on."""
    for chunk in chunks:
        if start >= len(chunk):
            start -= len(chunk)
            continue
        yield chunk[start:] if start else chunk
        start = 0


class NpzSink(Sink):
    """An npz that is being written, its members stored as they are.

    Where every tensor goes by its canonical name it is a state file, which `tfport.state.read` reads; what is known of
    the optimizers is in `__schema__` too.

    Raises:
      CheckpointError: a dtype that an npz cannot tell.
      RunError: the disk refused.
    """

    def __init__(self, path: Path, headers: Sequence[Stored], contents: Contents, template: Source | None) -> None:
        self.path = path
        tensors = self._tensors = {each.key: each for each in headers}
        self._announced = Announced(headers)
        names = {entry.key: entry.name for entry in contents.entries}
        state = all(names.get(key) == key for key in tensors) and SCHEMA_MEMBER not in tensors
        if template is not None:
            state = state and getattr(template, "is_state", False)
        extended = {key: stored.dtype for key, stored in tensors.items() if stored.dtype in canonical_names.EXTENDED}
        if extended and not state:
            key, dtype = next(iter(extended.items()))
            raise CheckpointError(
                f"{path}: {key} has dtype {dtype}, which an npz cannot tell; write safetensors, or cast it to float32."
            )
        for key, stored in tensors.items():
            if stored.dtype == STRING and not isinstance(template, NpzSource):
                raise CheckpointError(f"{path}: {key} holds texts, which are not carried to an npz; leave it out.")
        check_names(path, tensors)
        self._schema = self._header(contents, template, extended) if state else None
        with explained(path):
            self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def _header(self, contents: Contents, template: Source | None, dtypes: Mapping[str, str]) -> str:
        facts: dict[str, object] = {
            "schema": SCHEMA,
            "model": getattr(template, "model", "") or canonical_names.model_of(contents),
            "names": sorted(self._tensors),
            "tfport": tfport.__version__,
        }
        if contents.optimizers:
            facts["optimizers"] = canonical_names.record(contents.optimizers)
        if dtypes:
            facts["dtypes"] = dict(dtypes)
        return json.dumps(facts)

    def _member(self, key: str) -> IO[bytes]:
        return self._zip.open(zipfile.ZipInfo(key + _NPY), "w", force_zip64=True)

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """See Sink."""
        stored = self._tensors[key]
        data = self._announced.counted(key, chunks)
        with explained(self.path), self._member(key) as member:
            if stored.dtype in canonical_names.EXTENDED:
                _npy_header(member, f"|V{numpy_dtype(stored.dtype).itemsize}", stored.shape)
            elif stored.dtype != STRING:
                _npy_header(member, numpy_dtype(stored.dtype).str, stored.shape)
            for chunk in data:
                member.write(chunk)

    def finish(self) -> None:
        """See Sink."""
        self._announced.end()
        with explained(self.path):
            if self._schema is not None:
                array = np.array(self._schema)
                with self._member(SCHEMA_MEMBER) as member:
                    _npy_header(member, array.dtype.newbyteorder("<").str, ())
                    member.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
            self._zip.close()

    def abandon(self) -> None:
        """See Sink."""
        with explained(self.path):
            self._zip.close()


def _npy_header(file: IO[bytes], descr: str, shape: tuple[int, ...]) -> None:
    facts = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)  # type: ignore[no-untyped-call]


# --- safetensors ------------------------------------------------------------------------------------------------------
_SAFE_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""In the order by which the reference implementation sorts data, from the last to the first."""
_SAFE_NAMES = {ours: theirs for theirs, ours in _SAFE_DTYPES.items()}
_FRAMEWORKS = {"pt": "PyTorch", "np": "numpy", "tf": "TensorFlow", "flax": "Flax", "mlx": "MLX"}


class SafetensorsSource(Source):
    """An open safetensors file; its tensors are in the order of their data.

    Raises:
      CheckpointError: it is missing or damaged, its tensors overlap or leave holes, or a dtype is not known.
    """

    format = "safetensors"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = {}
        self.written_by = {}
        self.notes: tuple[str, ...] = ()
        self.recorded: tuple[OptimizerEntry, ...] | None = None
        """What the file records of its optimizers; None where it records nothing."""
        self.metadata: dict[str, str] = {}
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist.") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        try:
            self._start = 0
            self._offsets: dict[str, int] = {}
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    @property
    def framework(self) -> str:
        """Whose tensors they are, as the file says it: "pt", "np", "tf", or "" where it does not."""
        return self.metadata.get("format", "")

    def _read_header(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._at(8, 0), "little") if size >= 8 else size
        if length > size - 8:
            raise damaged(self.path, f"it has {size:,} bytes, and the first 8 tell of a header of {length:,}")
        if length > _HEADER_SIZE:
            raise damaged(self.path, f"its header has {length:,} bytes, and at most {_HEADER_SIZE:,} are allowed")
        self._start = 8 + length
        try:
            header = json.loads(self._at(length, 8), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"its header is no JSON ({type(error).__name__}: {shown(str(error))})") from None
        if not isinstance(header, dict):
            raise damaged(self.path, f"its header holds {type(header).__name__}, expected an object")
        self._read_metadata(header.pop("__metadata__", {}))
        check_names(self.path, header)
        found = [self._tensor(key, facts) for key, facts in header.items()]
        end = 0
        for start, stop, stored in sorted(found, key=lambda each: each[:2]):
            if start != end:
                kind = "overlaps with the tensor before it" if start < end else "leaves a hole before it"
                raise damaged(
                    self.path, f"{shown(stored.key)} begins at byte {start:,} and {kind}, which ends at {end:,}"
                )
            end = stop
            self.tensors[stored.key] = stored
            self._offsets[stored.key] = start
        if self._start + end != size:
            raise damaged(self.path, f"it has {size:,} bytes, and its tensors end at {self._start + end:,}")

    def _tensor(self, key: str, facts: object) -> tuple[int, int, Stored]:
        if not isinstance(facts, dict) or facts.keys() != {"dtype", "shape", "data_offsets"}:
            raise damaged(self.path, f"the header of {shown(key)} has not dtype, shape and data_offsets")
        dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
        if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
            raise damaged(self.path, f"the header of {shown(key)} has a dtype, shape or data_offsets of another type")
        if dtype not in _SAFE_DTYPES:
            raise CheckpointError(
                f"{self.path}: {shown(key)} has dtype {shown(dtype)}; known are {', '.join(_SAFE_DTYPES)}. "
                "Is the file damaged? Else save it in one of those."
            )
        name = _SAFE_DTYPES[dtype]
        if len(offsets) != 2 or not all(isinstance(each, int) and not isinstance(each, bool) for each in offsets):
            raise damaged(self.path, f"the data_offsets of {shown(key)} are no two whole numbers")
        start, stop = offsets
        stored = Stored(key, check_shape(self.path, key, shape, numpy_dtype(name).itemsize), name)
        if not 0 <= start <= stop < 1 << 63 or stop - start != stored.nbytes:
            raise damaged(
                self.path,
                f"{shown(key)} has shape {stored.shape} and dtype {name}, {stored.nbytes:,} bytes, and its "
                "data_offsets tell of another number",
            )
        return start, stop, stored

    def _read_metadata(self, metadata: object) -> None:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise damaged(self.path, "its __metadata__ is no object of texts")
        self.metadata = metadata
        notes = []
        if self.framework:
            notes.append(f"Written for {_FRAMEWORKS.get(self.framework, shown(self.framework))}.")
        if "tfport" in metadata:
            self.written_by = {"tfport": metadata["tfport"]}
            if "model" in metadata:
                notes.append(canonical_names.MODEL_NOTE + metadata["model"])
            if "optimizers" in metadata:
                try:
                    facts = json.loads(metadata["optimizers"])
                except (ValueError, RecursionError):
                    raise damaged(self.path, "the optimizers in its __metadata__ are no JSON") from None
                self.recorded = canonical_names.recorded(self.path, facts)
        else:
            others = [key for key in metadata if key != "format"]
            notes += [f"The file says {shown(key, 40)}: {shown(metadata[key], 80)}." for key in others[:8]]
        self.notes = tuple(notes)

    def _at(self, length: int, place: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, place)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}.") from None
        if len(data) != length:
            raise damaged(self.path, f"it ends at byte {place + len(data):,}, before its tensors do")
        return data

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See Source."""
        place = self._start + self._offsets[key]
        end = place + self.tensors[key].nbytes
        while place < end:
            data = self._at(min(PIECE, end - place), place)
            place += len(data)
            yield data

    def contents(self) -> Contents:
        """What each tensor is, by its name."""
        return canonical_names.contents(self)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


class SafetensorsSink(Sink):
    """A safetensors file that is being written.

    Data lies by dtype, wide ones first, and then by name, as the reference implementation has it, so that every tensor
    is aligned; tensors may come in any order that was announced. A template gives its metadata.

    Raises:
      CheckpointError: the format has no such dtype.
      RunError: the disk refused.
    """

    def __init__(self, path: Path, headers: Sequence[Stored], contents: Contents, template: Source | None) -> None:
        self.path = path
        tensors = {each.key: each for each in headers}
        self._announced = Announced(headers)
        check_names(path, tensors)
        for key, stored in tensors.items():
            if stored.dtype not in _SAFE_NAMES:
                raise CheckpointError(
                    f"{path}: {key} has dtype {stored.dtype}, which safetensors has not; cast it, or leave it out."
                )
            if key == "__metadata__":
                raise CheckpointError(f"{path}: no tensor of a safetensors file can be named {key}; rename it.")
        header: dict[str, object] = {"__metadata__": self._metadata(contents, template)}
        self._places: dict[str, int] = {}
        order = list(_SAFE_NAMES)
        end = 0
        for stored in sorted(tensors.values(), key=lambda each: (-order.index(each.dtype), each.key)):
            self._places[stored.key] = end
            end += stored.nbytes
            header[stored.key] = {
                "dtype": _SAFE_NAMES[stored.dtype],
                "shape": list(stored.shape),
                "data_offsets": [self._places[stored.key], end],
            }
        data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        data += b" " * (-len(data) % 8)
        if len(data) > _HEADER_SIZE:
            raise CheckpointError(f"{path}: the header of {len(tensors):,} tensors is longer than safetensors allows.")
        self._start = 8 + len(data)
        with explained(path):
            self._file = path.open("wb")
            self._file.write(len(data).to_bytes(8, "little") + data)

    def _metadata(self, contents: Contents, template: Source | None) -> dict[str, str]:
        found = {"format": "np"}
        if isinstance(template, SafetensorsSource):
            found |= template.metadata
        found |= {"tfport": tfport.__version__, "schema": str(SCHEMA)}
        model = canonical_names.model_of(contents)
        if model:
            found["model"] = model
        if contents.optimizers:
            found["optimizers"] = json.dumps(canonical_names.record(contents.optimizers))
        return found

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """See Sink."""
        data = self._announced.counted(key, chunks)
        with explained(self.path):
            self._file.seek(self._start + self._places[key])
            for chunk in data:
                self._file.write(chunk)

    def finish(self) -> None:
        """See Sink."""
        self._announced.end()
        with explained(self.path):
            self._file.close()

    def abandon(self) -> None:
        """See Sink."""
        with explained(self.path):
            self._file.close()
