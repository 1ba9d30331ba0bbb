"""Downloads a data set once into the user's cache, and checks every byte before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from tfport import errors
from tfport.data.sources import SOURCES, RemoteFile
from tfport.errors import DataError

TIMEOUT = 30.0  # seconds that a server may stay silent

_CHUNK = 1 << 16
_AGENT = "tfport (python urllib)"


class _MirrorError(Exception):
    """Why one mirror did not give the file, in a few words."""


def cache_folder(dataset: str, cache_dir: Path | None = None) -> Path:
    """Where the files of `dataset` are kept: `cache_dir`/<dataset>, which need not exist.

    `cache_dir` defaults to $XDG_CACHE_HOME/tfport, else ~/.cache/tfport (XDG base directory specification, by which a
    relative $XDG_CACHE_HOME does not count).

    Raises:
      DataError: there is no home folder to put a cache in.
    """
    if cache_dir is None:
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        try:
            cache_dir = (xdg if xdg.is_absolute() else Path.home() / ".cache") / "tfport"
        except RuntimeError as error:
            remedy = "Set XDG_CACHE_HOME to a folder that can be written, or use --data_dir=FOLDER."
            raise DataError(f"no cache folder for {dataset}: found no home folder ({error}). {remedy}") from None
    return cache_dir / dataset


def fetch(dataset: str, cache_dir: Path | None = None) -> Path:
    """The folder with the four files of `dataset`, each of the right digest; downloads those that are not there.

    A file in the cache is used after its digest is checked, and fetched again where it is damaged. A download that was
    cut goes on where it stopped. Of several processes at a time, one downloads and the others wait (POSIX only).

    Args:
      dataset: a key of `sources.SOURCES`.
      cache_dir: in the place of the user's cache, see `cache_folder`.

    Raises:
      UserError: `dataset` is not one that can be downloaded.
      DataError: no mirror gives a file, or the cache folder cannot be written.
    """
    if dataset not in SOURCES:
        raise errors.unknown("dataset to download", dataset, SOURCES)
    folder = cache_folder(dataset, cache_dir)
    source = SOURCES[dataset]
    if all(_problem(folder / file.name, file) is None for file in source.files):
        return folder  # without a lock or a write: a whole cache may be read-only
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            for file in source.files:
                _fetch_file(dataset, file, source.mirrors, folder)
    except OSError as error:  # never of the network: those became _MirrorError
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); expected a folder for the {dataset} files. "
            "Free space or mend its permissions, set XDG_CACHE_HOME to another folder, or use --data_dir=FOLDER "
            "or --dataset=digits, which needs no network."
        ) from None
    return folder


def _fetch_file(dataset: str, file: RemoteFile, mirrors: tuple[str, ...], folder: Path) -> None:
    target = folder / file.name
    problem = _problem(target, file)
    if problem is None:
        return
    damage = f" The copy in the cache, {target}, is damaged: {problem}." if target.exists() else ""
    reasons = []
    for mirror in mirrors:
        try:
            part = _from_mirror(mirror + file.name, file, folder)
        except _MirrorError as error:
            reasons.append(f"\n  {mirror}{file.name}: {error}")
            continue
        part.replace(target)
        return
    names = ", ".join(each.name for each in SOURCES[dataset].files)
    raise DataError(
        f"{dataset}: no mirror gave {file.name}.{damage}{''.join(reasons)}\n"
        f"Without a network, put {names} into a folder and use --data_dir=FOLDER, "
        "or use --dataset=digits, which needs no network. What was downloaded so far is kept."
    )


def _from_mirror(url: str, file: RemoteFile, folder: Path) -> Path:
    """The whole file, checked, under its temporary name in `folder`."""
    part = folder / f"{file.name}.part"
    problem = _problem(part, file)
    if problem is None:
        return part
    if file.size is not None and part.exists() and part.stat().st_size >= file.size:
        part.unlink()  # nothing to go on with
    begun = part.exists()
    _transfer(url, file, part)
    problem = _problem(part, file)
    if problem is not None and begun:
        # The beginning may be another file's, which is no fault of this mirror.
        part.unlink()
        _transfer(url, file, part)
        problem = _problem(part, file)
    if problem is not None:
        part.unlink()
        raise _MirrorError(problem)
    return part


def _transfer(url: str, file: RemoteFile, part: Path) -> None:
    """Brings `part` to its full length from `url`: goes on with a Range request, or starts again."""
    start = part.stat().st_size if part.exists() else 0
    with _network(), contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(_open(url, start))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
                raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
            start = 0
            response = stack.enter_context(_open(url, start))
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if response.status == http.HTTPStatus.PARTIAL_CONTENT and resumed else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else file.size
        if total is not None and file.size not in (None, total):
            raise _MirrorError(f"serves {total:,} bytes, expected {file.size:,}")
        with _writing(part, start) as out, _progress(file.name, start, total) as bar:
            done = start
            while chunk := response.read(_CHUNK):
                done += len(chunk)
                if total is not None and done > total:
                    break
                _write(out, chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise _MirrorError(f"connection lost after {done:,} of {total:,} bytes")
    if total is not None and done > total:
        part.unlink()
        raise _MirrorError(f"serves more than the expected {total:,} bytes")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    assert isinstance(response, http.client.HTTPResponse)  # every mirror is http or https
    return response


class _DiskError(Exception):
    """Carries an OSError of the disk past `_network`, which takes every bare one for the network's."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


@contextlib.contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except _DiskError as error:
        raise error.cause from None
    except urllib.error.HTTPError as error:
        error.close()
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except TimeoutError:
        raise _MirrorError(f"no answer within {TIMEOUT:g} s") from None
    except urllib.error.URLError as error:
        cause = error.reason
        late = isinstance(cause, TimeoutError)
        text = f"no answer within {TIMEOUT:g} s" if late else getattr(cause, "strerror", None) or str(cause)
        raise _MirrorError(text) from None
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorError(f"connection lost ({error or type(error).__name__})") from None


@contextlib.contextmanager
def _writing(part: Path, start: int) -> Iterator[BinaryIO]:
    """`part` open behind its first `start` bytes; what was written is on the disk at the end, error or not."""
    try:
        out = part.open("ab" if start else "wb")
    except OSError as error:
        raise _DiskError(error) from None
    try:
        yield out
    except _DiskError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            out.close()
        raise
    finally:
        try:
            if not out.closed:
                with out:
                    out.flush()
                    os.fsync(out.fileno())
        except OSError as error:
            raise _DiskError(error) from None


def _write(out: BinaryIO, chunk: bytes) -> None:
    try:
        out.write(chunk)
    except OSError as error:
        raise _DiskError(error) from None


def _progress(name: str, start: int, total: int | None) -> tqdm[None]:
    return tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, file=sys.stderr)


def _problem(path: Path, file: RemoteFile) -> str | None:
    """What makes the file at `path` not the one in the table, or None."""
    try:
        size = path.stat().st_size
        if file.size is not None and size != file.size:
            return f"{size:,} bytes, expected {file.size:,}"
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return error.strerror or str(error)
    return None if sha256 == file.sha256 else f"wrong digest: sha256 {sha256[:12]}..., expected {file.sha256[:12]}..."


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing the same part file; without effect where there is no flock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as lock:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
