"""Downloads from a server on the loopback interface which misbehaves as real ones do."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tfport.data import download, sources
from tfport.data.sources import RemoteFile, Source
from tfport.errors import DataError, UserError

NAMES = [file.name for file in sources.SOURCES["mnist"].files]
FIRST = NAMES[0]
CONTENT = {name: bytes((7 * at + salt) % 251 for at in range(200_000)) for salt, name in enumerate(NAMES)}
CUT = 70_000  # bytes that get through before a connection is cut


@dataclass
class Server:
    """Mirrors "a" and "b" on one server: what each does to a file, and what it was asked."""

    url: str
    behaviour: dict[tuple[str, str], str] = field(default_factory=dict)  # (mirror, file name) -> see `_Handler`
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # (mirror, file name, Range)

    def requests(self, name: str) -> list[tuple[str, str | None]]:
        return [(mirror, wanted) for mirror, asked_for, wanted in self.asked if asked_for == name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        _, mirror, name = self.path.split("/")
        wanted = self.headers.get("Range")
        self.state.asked.append((mirror, name, wanted))
        how = self.state.behaviour.get((mirror, name), "well")
        body = CONTENT[name]
        self.close_connection = True
        if how.startswith("HTTP "):
            self.send_error(int(how.removeprefix("HTTP ")))
            return
        if how == "hang up":
            return
        if how == "silent":
            threading.Event().wait(5.0)
            return
        if how == "wrong digest":
            body = bytes(len(body))
        elif how in ("short", "short, no length"):
            body = b"<html>Please log in</html>"
        elif how in ("long", "long, no length"):
            body += b"!"
        start = 0
        if wanted and how != "no Range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if not how.endswith("no length"):
            self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[start : start + CUT] if how == "cut" else body[start:])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in http.server)
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server in the place of MNIST's mirrors."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(urllib.request, "_opener", None)
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state = Server(f"http://127.0.0.1:{http.server_port}")
    handler.state = state  # type: ignore[attr-defined]
    files = tuple(RemoteFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items())
    monkeypatch.setitem(sources.SOURCES, "mnist", Source((f"{state.url}/a/", f"{state.url}/b/"), files))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def assert_whole(folder: Path) -> None:
    for name, data in CONTENT.items():
        assert (folder / name).read_bytes() == data, name
    assert not list(folder.glob("*.part"))


def without_size(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.SOURCES["mnist"]
    files = tuple(RemoteFile(file.name, None, file.sha256) for file in source.files)
    monkeypatch.setitem(sources.SOURCES, "mnist", Source(source.mirrors, files))


def test_four_files_from_the_first_mirror_then_none(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = download.fetch("mnist", tmp_path / "cache")
    assert folder == tmp_path / "cache" / "mnist"
    assert_whole(folder)
    assert server.asked == [("a", name, None) for name in NAMES]
    out, err = capsys.readouterr()
    assert not out
    assert re.search(rf"{FIRST}: 100%.*200k/200k", err)

    assert download.fetch("mnist", tmp_path / "cache") == folder
    assert len(server.asked) == len(NAMES), "a whole cache needs no network"


def test_a_size_that_is_not_known_is_not_needed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_size(monkeypatch)
    server.behaviour["a", FIRST] = "well, no length"
    assert_whole(download.fetch("mnist", tmp_path))


BAD_MIRRORS = {
    "HTTP 404": r"HTTP 404 Not Found",
    "HTTP 503": r"HTTP 503 Service Unavailable",
    "hang up": r"connection lost \(Remote end closed connection without response\)",
    "silent": r"no answer within 0\.5 s",
    "wrong digest": r"wrong digest: sha256 [0-9a-f]{12}\.\.\., expected [0-9a-f]{12}\.\.\.",
    "short": r"serves 26 bytes, expected 200,000",
    "short, no length": r"connection lost after 26 of 200,000 bytes",
    "long": r"serves 200,001 bytes, expected 200,000",
    "long, no length": r"serves more than the expected 200,000 bytes",
    "cut": r"connection lost after 70,000 of 200,000 bytes",
}


@pytest.mark.parametrize("how", BAD_MIRRORS)
def test_the_second_mirror_mends_the_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.5 if how == "silent" else 5.0)
    server.behaviour["a", FIRST] = how
    assert_whole(download.fetch("mnist", tmp_path))
    asked = [mirror for mirror, _ in server.requests(FIRST)]
    assert asked[0] == "a"
    assert "b" in asked
    assert [mirror for mirror, _ in server.requests(NAMES[1])] == ["a"], "the next file starts at the first mirror"


@pytest.mark.parametrize(("how", "reason"), BAD_MIRRORS.items(), ids=BAD_MIRRORS.keys())
def test_when_all_mirrors_fail_one_error_says_all(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.5 if how == "silent" else 5.0)
    server.behaviour["a", FIRST] = how
    server.behaviour["b", FIRST] = "HTTP 500"
    with pytest.raises(DataError) as refused:
        download.fetch("mnist", tmp_path)
    first, one, two, remedy = str(refused.value).splitlines()
    assert first == f"mnist: no mirror gave {FIRST}."
    assert re.fullmatch(rf"  {server.url}/a/{FIRST}: {reason}", one)
    assert two == f"  {server.url}/b/{FIRST}: HTTP 500 Internal Server Error"
    assert re.match(rf"Without a network, put {', '.join(NAMES)} into a folder and use --data_dir=FOLDER", remedy)
    assert re.search(r"or use --dataset=digits, which needs no network", remedy)
    assert not (tmp_path / "mnist" / FIRST).exists()
    kept = {"cut": CUT, "short, no length": 26}
    part = tmp_path / "mnist" / f"{FIRST}.part"
    assert (part.stat().st_size if part.exists() else None) == kept.get(how)


def test_a_file_of_the_wrong_digest_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.behaviour.update({("a", FIRST): "wrong digest", ("b", FIRST): "wrong digest"})
    with pytest.raises(DataError, match=r"(?s)(wrong digest: .*){2}"):
        download.fetch("mnist", tmp_path)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == [".lock"]


def test_no_server_at_all(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    url = f"http://127.0.0.1:{closed.server_port}/"
    closed.server_close()
    files = sources.SOURCES["mnist"].files
    monkeypatch.setitem(sources.SOURCES, "mnist", Source((url,), files))
    with pytest.raises(DataError, match=rf"{url}{FIRST}: Connection refused\n"):
        download.fetch("mnist", tmp_path)


def test_a_part_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.behaviour.update({("a", FIRST): "cut", ("b", FIRST): "HTTP 404"})
    with pytest.raises(DataError, match=r"connection lost after 70,000 of 200,000 bytes"):
        download.fetch("mnist", tmp_path)
    server.behaviour.clear()
    server.asked.clear()
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == [("a", f"bytes={CUT}-")]


def test_the_second_mirror_goes_on_with_the_part_of_the_first(server: Server, tmp_path: Path) -> None:
    server.behaviour["a", FIRST] = "cut"
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == [("a", None), ("b", f"bytes={CUT}-")]


def test_a_server_without_range_starts_again(server: Server, tmp_path: Path) -> None:
    server.behaviour.update({("a", FIRST): "cut", ("b", FIRST): "no Range"})
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == [("a", None), ("b", f"bytes={CUT}-")]


def put_part(tmp_path: Path, data: bytes) -> Path:
    part = tmp_path / "mnist" / f"{FIRST}.part"
    part.parent.mkdir()
    part.write_bytes(data)
    return part


def test_a_part_of_another_file_is_dropped(server: Server, tmp_path: Path) -> None:
    put_part(tmp_path, bytes(CUT))
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == [("a", f"bytes={CUT}-"), ("a", None)]


@pytest.mark.parametrize("size", [200_000, 300_000])
def test_a_part_that_is_full_of_something_else_is_dropped(server: Server, tmp_path: Path, size: int) -> None:
    part = put_part(tmp_path, bytes(size))
    server.behaviour.update({("a", FIRST): "HTTP 404", ("b", FIRST): "HTTP 404"})
    with pytest.raises(DataError, match="HTTP 404"):
        download.fetch("mnist", tmp_path)
    assert not part.exists()


def test_a_part_that_is_whole_needs_no_request(server: Server, tmp_path: Path) -> None:
    put_part(tmp_path, CONTENT[FIRST])
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == []


def test_a_range_that_cannot_be_satisfied_starts_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_size(monkeypatch)
    put_part(tmp_path, bytes(300_000))
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.requests(FIRST) == [("a", "bytes=300000-"), ("a", None)]


@pytest.mark.parametrize("damage", [CONTENT[FIRST][:-1], bytes(200_000)], ids=["cut", "changed"])
def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path, damage: bytes) -> None:
    folder = download.fetch("mnist", tmp_path)
    (folder / FIRST).write_bytes(damage)
    server.asked.clear()
    assert_whole(download.fetch("mnist", tmp_path))
    assert server.asked == [("a", FIRST, None)]


def test_a_damaged_file_that_cannot_be_fetched_is_named(server: Server, tmp_path: Path) -> None:
    folder = download.fetch("mnist", tmp_path)
    (folder / FIRST).write_bytes(b"damaged")
    server.behaviour.update({("a", FIRST): "HTTP 404", ("b", FIRST): "HTTP 404"})
    message = rf"The copy in the cache, {re.escape(str(folder / FIRST))}, is damaged: 7 bytes, expected 200,000\.\n"
    with pytest.raises(DataError, match=message):
        download.fetch("mnist", tmp_path)


def assert_names_the_folder(refused: pytest.ExceptionInfo[DataError], folder: Path, reason: str) -> None:
    text = str(refused.value)
    assert re.match(rf"{re.escape(str(folder))}: cannot be written \({reason}\)", text)
    assert re.search(r"set XDG_CACHE_HOME to another folder, or use --data_dir=FOLDER or --dataset=digits", text)


@pytest.mark.parametrize("method", ["mkdir", "open", "replace"])
def test_a_cache_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original = getattr(Path, method)

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if method == "open" and args == ("rb",):
            return original(self, *args, **kwargs)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, method, refuse)
    with pytest.raises(DataError) as refused:
        download.fetch("mnist", tmp_path)
    assert_names_the_folder(refused, tmp_path / "mnist", "Read-only file system")


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_is_not_taken_for_a_bad_mirror(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        opened = Path.open

        def open_full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            full = self.suffix == ".part" and mode != "rb"
            return opened(Path("/dev/full") if full else self, mode, *args, **kwargs)

        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full on this platform")
        monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(DataError) as refused:
        download.fetch("mnist", tmp_path)
    assert_names_the_folder(refused, tmp_path / "mnist", "No space left on device")
    assert server.asked == [("a", FIRST, None)], "a second mirror cannot help"


def test_a_file_where_the_folder_should_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mnist").write_text("in the way")
    with pytest.raises(DataError) as refused:
        download.fetch("mnist", tmp_path)
    assert_names_the_folder(refused, tmp_path / "mnist", "File exists")


def test_a_whole_cache_may_be_read_only(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download.fetch("mnist", tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_whole(download.fetch("mnist", tmp_path))


def test_two_at_a_time_download_once(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="locks are POSIX only")
    threads = [threading.Thread(target=download.fetch, args=("mnist", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(tmp_path / "mnist")
    assert sorted(name for _, name, _ in server.asked) == sorted(NAMES)


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_folder("kmnist") == tmp_path / "xdg" / "tfport" / "kmnist"
    assert download.cache_folder("kmnist", tmp_path) == tmp_path / "kmnist"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert download.cache_folder("kmnist") == tmp_path / "home" / ".cache" / "tfport" / "kmnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert download.cache_folder("kmnist") == tmp_path / "home" / ".cache" / "tfport" / "kmnist"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match=r"no cache folder for mnist: .*Set XDG_CACHE_HOME .*--data_dir=FOLDER"):
        download.cache_folder("mnist")


def test_digits_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown dataset to download 'digits'.*Valid: fashion_mnist, kmnist, mnist"):
        download.fetch("digits", tmp_path)


def test_the_table() -> None:
    assert sorted(sources.SOURCES) == ["fashion_mnist", "kmnist", "mnist"]
    digests = [file.sha256 for source in sources.SOURCES.values() for file in source.files]
    assert len(set(digests)) == len(digests) == 12
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    for source in sources.SOURCES.values():
        assert [file.name for file in source.files] == NAMES
        assert len(source.mirrors) == 2
        assert all(re.fullmatch(r"https?://.+/", mirror) for mirror in source.mirrors)
