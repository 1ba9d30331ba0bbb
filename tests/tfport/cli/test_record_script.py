"""tfport record-script: the file that it writes is the one of the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from tfport.cli import main


def written(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["record-script", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_script_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert written() == 0
    assert capfd.readouterr().out == "Script: record_original.py\n"
    own = resources.files("tfport.record_script") / "record_original.py"
    assert (tmp_path / "record_original.py").read_text() == own.read_text()
    assert written() == 2
    assert "record_original.py exists; name a file that does not." in capfd.readouterr().err
    assert written("another.py") == 0
    (tmp_path / "folder").mkdir()
    assert written("folder") == 0
    assert (tmp_path / "another.py").is_file() and (tmp_path / "folder" / "record_original.py").is_file()
