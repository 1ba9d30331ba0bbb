"""Writing files so that nothing is ever half written, and naming what the disk refused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfport.errors import RunError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or choose a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose a folder on another disk",
    errno.EROFS: "the disk is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: choose a folder that you may write",
    errno.EPERM: "permission denied: choose a folder that you may write",
    errno.ENOENT: "there is no such place, and none can be made there: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another place",
    errno.EISDIR: "it is a folder, and a file was expected: choose another name",
    errno.EEXIST: "a file of that name is in the way: choose another name",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError met while writing to `path` into a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        # Not error.strerror: h5py puts a page of its own there.
        text = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        reason = _REMEDIES.get(error.errno or 0, text)
        raise RunError(f"cannot write {path}: {reason}. What was written before is untouched.") from error


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a whole file: a reader, or a crash, sees the old content or the new and nothing between.

    Raises:
      RunError: the disk refused; the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
      RunError: the disk refused; an older folder at `path` is replaced only by a whole new one.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
                else:
                    sync_folder(file)
            sync_folder(temporary)
            temporary.chmod(0o755)
            _put_in_place(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.parent)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Renames a folder to `path`; what lay there before is removed after that, or put back when it fails."""
    if not path.exists():
        temporary.rename(path)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    try:
        path.rename(aside / path.name)
        try:
            temporary.rename(path)
        except BaseException:
            (aside / path.name).rename(path)
            raise
    except BaseException:
        with contextlib.suppress(OSError):
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
