"""Zip archives whose members are tensors: read in pieces, checksums verified, nothing unpacked to the disk."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tfport.checkpoints.contents import damaged
from tfport.errors import CheckpointError

PIECE = 1 << 20
"""Bytes that are read at a time."""
_DEFLATE_RATIO = 1_040
"""Deflate packs at most 258 bytes into two bits: no member can be larger than this times its packed size."""
_LOCAL_HEADER = 30
"""Bytes of a member's local header before its name."""


def shown(text: object, most: int = 120) -> str:
    """A name out of a file as a message can hold it: quoted, and cut where it is long."""
    found = repr(text[: most + 1] if isinstance(text, str) else text)
    return found if len(found) <= most + 2 else f"{found[:most]}..."


def told(value: object) -> str:
    """A value out of a file for a message; a number may have more digits than Python prints."""
    if isinstance(value, int) and not -(1 << 64) < value < 1 << 64:
        return "of more than 64 bits"
    return shown(value) if isinstance(value, (int, str, float)) else f"of type {type(value).__name__}"


class Archive:
    """An open zip archive of stored and deflated members.

    Raises:
      CheckpointError: it is missing, damaged, encrypted, packed in another way, names a member twice, or announces
        more bytes than its members can hold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist.") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._zip = self._opened()
            self.members = self._checked()
        except BaseException:
            self._file.close()
            raise
        self._verified: set[str] = set()

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._file)
        except Exception as error:  # zipfile raises whatever the damaged bytes lead it to
            raise damaged(self.path, f"it cannot be read as a zip archive ({_brief(error)})") from None

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        packed = 0
        for info in self._zip.infolist():
            name = shown(info.filename)
            if info.filename in found:
                raise damaged(self.path, f"it has two members {name}")
            if info.flag_bits & 1:
                raise CheckpointError(f"{self.path}: the member {name} is encrypted; save the file without a password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(
                    f"{self.path}: the member {name} is packed by method {info.compress_type}; stored and deflated "
                    "members are read. Save it again with np.savez or torch.save."
                )
            stored = info.compress_type == zipfile.ZIP_STORED
            most = info.compress_size if stored else info.compress_size * _DEFLATE_RATIO
            if info.file_size > most or (stored and info.file_size != most):
                raise damaged(
                    self.path,
                    f"the member {name} announces {info.file_size:,} bytes and lies in {info.compress_size:,}",
                )
            packed += info.compress_size
            if info.header_offset < 0 or info.header_offset + info.compress_size > self.size or packed > self.size:
                raise damaged(self.path, f"the member {name} reaches beyond the file's {self.size:,} bytes")
            found[info.filename] = info
        return found

    def without_checksums(self) -> bool:
        """Whether the file was written without checksums, as torch.save can be told to: all of them are 0."""
        return all(not info.CRC for info in self.members.values() if info.file_size) and bool(self.members)

    def ignore_checksums(self) -> None:
        """Verifies none from here on."""
        for info in self.members.values():
            info.CRC = None  # type: ignore[assignment]  # what zipfile takes for "not known"

    def stream(self, name: str) -> Iterator[bytes]:
        """A member's bytes, PIECE at a time; the checksum is verified by the last.

        Raises:
          CheckpointError: it is damaged, or ends too soon.
        """
        info = self.members[name]
        opened = None
        left = info.file_size
        try:
            while True:
                try:
                    if opened is None:
                        opened = self._zip.open(info)
                    data = opened.read(min(PIECE, left) or 1)
                except Exception as error:  # zipfile and zlib raise whatever the damaged bytes lead them to
                    raise damaged(self.path, f"the member {shown(name)} cannot be read ({_brief(error)})") from None
                left -= len(data)
                if left < 0 or (left > 0 and not data):
                    raise damaged(
                        self.path,
                        f"the member {shown(name)} has {info.file_size - left:,} bytes, not {info.file_size:,}",
                    )
                if not data:
                    break
                yield data
        finally:
            if opened is not None:
                opened.close()
        self._verified.add(name)

    def whole(self, name: str, most: int) -> bytes:
        """A small member's bytes.

        Raises:
          CheckpointError: it is damaged, or larger than `most`.
        """
        size = self.members[name].file_size
        if size > most:
            raise CheckpointError(
                f"{self.path}: the member {shown(name)} has {size:,} bytes, expected at most {most:,}; "
                "the file is damaged or made to do harm."
            )
        return b"".join(self.stream(name))

    def head(self, name: str, most: int) -> bytes:
        """A member's first bytes, checksum unverified.

        Raises:
          CheckpointError: they cannot be read.
        """
        try:
            with self._zip.open(self.members[name]) as opened:
                return opened.read(most)
        except Exception as error:  # as in stream
            raise damaged(self.path, f"the member {shown(name)} cannot be read ({_brief(error)})") from None

    def part(self, name: str, start: int, length: int) -> Iterator[bytes]:
        """`length` bytes of a member from `start` on.

        The member's checksum is verified once, by reading all of it, before the first part of it is given.

        Raises:
          CheckpointError: it is damaged, or ends too soon.
        """
        info = self.members[name]
        if not 0 <= start <= start + length <= info.file_size:
            raise damaged(
                self.path,
                f"bytes {start:,} to {start + length:,} of the member {shown(name)} are used, and it has "
                f"{info.file_size:,}",
            )
        if start == 0 and length == info.file_size:
            yield from self.stream(name)
            return
        if name not in self._verified:
            for _ in self.stream(name):
                pass
        if info.compress_type == zipfile.ZIP_STORED:
            yield from self._raw(info, start, length)
            return
        place = 0
        for data in self.stream(name):
            cut = data[max(0, start - place) : max(0, start + length - place)]
            place += len(data)
            if cut:
                yield cut
            if place >= start + length:
                return

    def _raw(self, info: zipfile.ZipInfo, start: int, length: int) -> Iterator[bytes]:
        """A part of a stored member, straight from its place in the file."""
        header = self._at(_LOCAL_HEADER, info.header_offset)
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        place = info.header_offset + _LOCAL_HEADER + names + start
        end = place + length
        while place < end:
            data = self._at(min(PIECE, end - place), place)
            place += len(data)
            yield data

    def _at(self, length: int, place: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, place)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}.") from None
        if len(data) != length:
            raise damaged(self.path, f"it ends at byte {place + len(data):,}, before its members do")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}" if str(error) else type(error).__name__
