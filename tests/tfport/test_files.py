"""files: a reader sees the old content or the new, and an error says what the disk refused and what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tfport import files
from tfport.errors import RunError

REFUSALS = {
    errno.ENOSPC: "disk is full.*free some space",
    errno.EDQUOT: "quota.*free some space",
    errno.EROFS: "read-only.*choose a folder",
    errno.EACCES: "permission denied.*choose a folder",
}


def refusing(number: int) -> Any:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_write_atomically_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.write_atomically(path, "one")
    files.write_atomically(path, b"two")
    assert contents(tmp_path) == {"a/b/file": b"two"}
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_refused_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, "old")
    if call == "fsync":
        monkeypatch.setattr(os, "fsync", refusing(number))
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", refusing(number))
    else:
        monkeypatch.setattr(tempfile, "mkstemp", refusing(number))
    with pytest.raises(RunError, match=f"cannot write .*file: .*{REFUSALS[number]}.*untouched"):
        files.write_atomically(path, "new")
    assert contents(tmp_path) == {"file": b"old"}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    files.write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, "new")
    assert contents(tmp_path) == {"file": b"old"}


def test_the_data_is_synced_before_the_name_and_the_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", fsync))
    monkeypatch.setattr(Path, "replace", noted("replace", replace))
    files.write_atomically(tmp_path / "file", "new")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"cannot write .*(part of the path is a file|in the way)"):
        files.write_atomically(tmp_path / "file" / "inside", "new")
    with pytest.raises(RunError, match=r"cannot write .*a file was expected"):
        files.write_atomically(tmp_path, "new")
    assert contents(tmp_path) == {"file": b"mine"}


def test_write_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert contents(tmp_path) == {"file.json": b'{\n  "a": 1\n}\n'}


def test_atomic_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder"
    with files.atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("content")
        assert not path.exists()
    assert contents(tmp_path) == {"a/folder/inner/file": b"content"}
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("older", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("failure", ["block", "fsync", "interrupt", "put_in_place"])
def test_atomic_folder_leaves_nothing_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, older: bool
) -> None:
    path = tmp_path / "folder"
    if older:
        path.mkdir()
        (path / "file").write_text("old")
    rename = Path.rename

    def fail_last(self: Path, target: Path) -> Path:
        if target == path and not (self / "file").read_text() == "old":
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    if failure == "fsync":
        monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    elif failure == "put_in_place":
        monkeypatch.setattr(Path, "rename", fail_last)
    error = KeyboardInterrupt if failure == "interrupt" else RunError
    with pytest.raises(error), files.atomic_folder(path) as temporary:
        (temporary / "file").write_text("new")
        if failure == "block":
            raise OSError(errno.ENOSPC, "full")
        if failure == "interrupt":
            raise KeyboardInterrupt
    assert contents(tmp_path) == ({"folder/file": b"old"} if older else {})
    assert [each.name for each in tmp_path.iterdir()] == (["folder"] if older else [])


def test_atomic_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "of the old alone").write_text("old")
    with files.atomic_folder(path) as temporary:
        (temporary / "file").write_text("new")
    assert contents(tmp_path) == {"folder/file": b"new"}
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_errors_that_are_not_the_disks_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "folder"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EFBIG, "unable to write\n(time = Fri Nov 20,\nerrno = 27)"), os.strerror(errno.EFBIG)),
        (OSError("unable to\n write"), "unable to write"),
    ],
)
def test_a_librarys_page_of_text_is_one_line(error: OSError, reason: str, tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=f"cannot write .*file: {reason}. What") as caught,
        files.explained(tmp_path / "file"),
    ):
        raise error
    assert "\n" not in str(caught.value)
