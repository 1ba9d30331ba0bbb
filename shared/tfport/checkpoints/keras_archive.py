"""`.keras` archives: a zip of config.json, metadata.json and model.weights.h5, read in place and written anew."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tfport.checkpoints import keras_names
from tfport.checkpoints.contents import CHUNK, Bytes, Contents, Sink, Source, Stored, check_names, damaged
from tfport.checkpoints.hdf5 import H5File, Layout, check_template, config_of, no_template, open_window, shown
from tfport.errors import CheckpointError
from tfport.files import explained

_WEIGHTS = "model.weights.h5"
_JSON_BYTES = 128 << 20
_EXPANSION = 200
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, EOFError, RuntimeError)


class KerasArchiveSource(Source):
    """A `.keras` file. Weights that are stored as they are, as Keras stores them, are read where they lie; compressed
    ones are unpacked to a temporary file first. Their checksum is verified at the first tensor that is read.
    """

    format = "keras3"

    def __init__(self, path: Path) -> None:
        """Reads the headers; raises CheckpointError for what is damaged, refused, or no model."""
        self.path = path
        self._verified = False
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as error:
            raise damaged(path, f"the zip archive cannot be read ({error})") from None
        try:
            names = self._zip.namelist()
            check_names(path, [name for name in names if not name.endswith("/")])
            if len(set(names)) != len(names):
                raise damaged(path, "two members have one name")
            if _WEIGHTS not in names:
                raise CheckpointError(_no_weights(path, names))
            self.config = self._json("config.json")
            self.metadata = self._json("metadata.json")
            self._info = self._zip.getinfo(_WEIGHTS)
            self.file = self._weights()
        except BaseException:
            self._zip.close()
            raise
        try:
            if self.file.layout() != "keras3-weights":
                raise CheckpointError(f"{path}: its {_WEIGHTS} is not of Keras 3's layout.")
            self.tensors = self.file.tensors
            self.written_by = self._versions()
        except BaseException:
            self.close()
            raise

    def _json(self, name: str) -> Any:
        if name not in self._zip.namelist():
            raise CheckpointError(
                f"{self.path} has no {name}, which every .keras file has; it is damaged or something else."
            )
        if self._zip.getinfo(name).file_size > _JSON_BYTES:
            raise CheckpointError(f"{self.path}: {name} is larger than the {_JSON_BYTES:,} bytes that are read.")
        with self._unpacking(name), self._zip.open(name) as member:
            # In pieces: zipfile makes room for all that is asked for, whatever there is.
            data = b"".join(iter(lambda: member.read(CHUNK), b""))
        found = config_of(self.path, data, name)
        if not isinstance(found, dict):
            raise damaged(self.path, f"{name} holds no object")
        return found

    @contextlib.contextmanager
    def _unpacking(self, name: str) -> Iterator[None]:
        try:
            yield
        except _ZIP_ERRORS as error:
            raise damaged(self.path, f"{name} cannot be unpacked ({error})") from None

    def _weights(self) -> H5File:
        """The weights, in place where they are stored, else unpacked."""
        info = self._info
        if info.flag_bits & 1:
            raise CheckpointError(f"{self.path}: {_WEIGHTS} is encrypted; write the model again without a password.")
        if info.compress_type == zipfile.ZIP_STORED:
            return open_window(self.path, self._start(), info.file_size)
        if info.file_size > _EXPANSION * info.compress_size + CHUNK:
            raise damaged(self.path, f"{_WEIGHTS} is said to unpack to {info.file_size:,} bytes, too many for it")
        with self._unpacking(_WEIGHTS):
            unpacked = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            try:
                with self._zip.open(info) as member:
                    done = 0
                    while piece := member.read(CHUNK):
                        done += unpacked.write(piece)
                        if done > info.file_size:
                            raise zipfile.BadZipFile("more bytes than it is said to have")
                if done != info.file_size:
                    raise zipfile.BadZipFile("fewer bytes than it is said to have")
            except BaseException:
                unpacked.close()
                raise
        self._verified = True
        return H5File(self.path, unpacked, 0, info.file_size)  # type: ignore[arg-type]

    def _start(self) -> int:
        """Where the weights' bytes begin in the archive."""
        info = self._info
        if info.compress_size != info.file_size:
            raise damaged(self.path, f"{_WEIGHTS} has two sizes")
        with self._unpacking(_WEIGHTS), self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            with self._zip.open(info):
                pass
            file.seek(info.header_offset)
            header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise damaged(self.path, f"{_WEIGHTS} has no header in the archive")
        name, extra = struct.unpack_from("<HH", header, 26)
        start: int = info.header_offset + 30 + name + extra
        if start + info.file_size > size:
            raise damaged(self.path, f"{_WEIGHTS} ends beyond the end of the archive")
        return start

    def _versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for field, program in (("keras_version", "keras"), ("date_saved", "date")):
            value = self.metadata.get(field)
            if isinstance(value, str):
                found[program] = shown(value)
        return found

    def verify(self) -> None:
        """Checks the weights' checksum, once.

        Raises:
          CheckpointError: it is wrong, or the archive ends too soon.
        """
        if self._verified:
            return
        with self._unpacking(_WEIGHTS), self._zip.open(self._info) as member:
            while member.read(CHUNK >> 2):
                pass
        self._verified = True

    def chunks(self, key: str) -> Iterator[Bytes]:
        """The tensor's bytes; the checksum of all weights is verified before the first piece of the first tensor."""
        self.verify()
        yield from self.file.chunks(key)

    def contents(self) -> Contents:
        """Roles and names, from config.json and the file's groups."""
        version = self.written_by.get("keras", "")
        return keras_names.keras3(self.file, self.tensors, self._small, self.config, version)

    def _small(self, key: str) -> Any:
        """A small tensor, without a pass over all of the weights for their checksum."""
        stored = self.tensors[key]
        before, self._verified = self._verified, True
        try:
            return self.read(stored.key)
        finally:
            self._verified = before

    def members(self) -> list[zipfile.ZipInfo]:
        """The archive's members beside the weights, in its order."""
        return [each for each in self._zip.infolist() if each.filename != _WEIGHTS]

    def member(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """One of them, open for reading; raises CheckpointError when it cannot be unpacked."""
        with self._unpacking(info.filename):
            return self._zip.open(info)

    def order(self) -> list[str]:
        """All members' names, in the archive's order."""
        return self._zip.namelist()

    def close(self) -> None:
        """Ends the child process and closes the archive."""
        if hasattr(self, "file"):
            self.file.close()
        self._zip.close()


def _no_weights(path: Path, names: Sequence[str]) -> str:
    sharded = [name for name in names if name.startswith("model") and name.endswith((".weights.json", ".weights.npz"))]
    if sharded or "model.json" in names:
        return (
            f"{path} keeps its weights in {(sharded or ['model.json'])[0]!r}: in shards, or as .npz. Only a single "
            f"{_WEIGHTS} is read; load the model with Keras and save it without these options."
        )
    held = ", ".join(shown(name) for name in names[:5])
    return f"{path} has no {_WEIGHTS}; it holds {held}. It is no whole .keras file."


class KerasArchiveSink(Sink):
    """A `.keras` file that is being written: the template's members with new weights."""

    def __init__(
        self, path: Path, tensors: Sequence[Stored], contents: Contents, template: Source | None = None
    ) -> None:
        """Lays the weights out beside the archive.

        Raises:
          CheckpointError: there is no template, or the tensors are not the template's.
          RunError: the disk refused.
        """
        del contents
        if template is None:
            raise no_template(path)
        if not isinstance(template, KerasArchiveSource):
            raise CheckpointError(f"{template.path} is no .keras file, and cannot be the template of {path}.")
        check_template(template, template.file, tensors)
        self.path = path
        self._template = template
        with explained(path):
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.weights.")
            os.close(descriptor)
        self._weights = Path(name)
        try:
            held = template.file
            self._layout = Layout(
                self._weights, {each.key: each for each in tensors}, held.groups, held.attributes, held.tracked
            )
        except BaseException:
            self._weights.unlink(missing_ok=True)
            raise

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """Writes the next tensor."""
        self._layout.write(key, chunks)

    def finish(self) -> None:
        """Stores the weights in the archive, in the template's order of members, and makes it durable."""
        self._layout.finish()
        others = {each.filename: each for each in self._template.members()}
        try:
            with explained(self.path):
                with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                    for name in self._template.order():
                        if name == _WEIGHTS:
                            with self._weights.open("rb") as file:
                                _store(archive, zipfile.ZipInfo(name), file, self._weights.stat().st_size)
                        else:
                            info = others[name]
                            fresh = zipfile.ZipInfo(name, info.date_time)
                            fresh.compress_type, fresh.external_attr = info.compress_type, info.external_attr
                            with self._template.member(info) as member:
                                _store(archive, fresh, member, info.file_size)
                with self.path.open("rb") as written:
                    os.fsync(written.fileno())
        finally:
            self._weights.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Removes the weights that were laid out."""
        self._layout.abandon()
        self._weights.unlink(missing_ok=True)


def _store(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes], size: int) -> None:
    with archive.open(info, "w", force_zip64=size >= 1 << 31) as member:
        while piece := file.read(CHUNK):
            member.write(piece)
