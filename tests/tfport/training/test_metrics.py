"""metrics.csv: full precision, and whatever a crash left at its end is gone after a resume."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tfport.errors import RunError
from tfport.training import metrics
from tfport.training.metrics import MetricsFile

HEAD = "step,epoch,loss_D,loss_G\n"


@pytest.fixture
def file(tmp_path: Path) -> MetricsFile:
    """A metrics file with three rows."""
    file = MetricsFile(tmp_path / "metrics.csv", ["loss_D", "loss_G"])
    file.start(0)
    for step in (1, 2, 3):
        file.append(step, 0, [-step / 3, -1e-300])
    return file


def test_numbers_come_back_to_the_bit(file: MetricsFile) -> None:
    assert metrics.read(file.path) == [[step, 0, -step / 3, -1e-300] for step in (1, 2, 3)]
    assert file.path.read_text().startswith(HEAD + "1,0,-0.3333333333333333,-1e-300\n")


@pytest.mark.parametrize("torn", ["4", "4,0", "4,0,-1.", "4,0,-1.3333333333333333,-1e-300"])
def test_a_torn_last_line_is_left_out(file: MetricsFile, torn: str) -> None:
    whole = file.path.read_text()
    file.path.write_text(whole + torn)
    assert len(metrics.read(file.path)) == 3
    file.start(3)
    assert file.path.read_text() == whole
    file.append(4, 0, [1.0, 2.0])
    assert metrics.read(file.path)[-1] == [4, 0, 1, 2]


def test_start_keeps_the_rows_up_to_its_step(file: MetricsFile) -> None:
    whole = file.path.read_text().splitlines(keepends=True)
    file.start(2)
    assert file.path.read_text() == "".join(whole[:3])
    file.start(0)
    assert file.path.read_text() == HEAD


def test_a_torn_header_is_written_again(file: MetricsFile) -> None:
    for text in ("", "step,epo"):
        file.path.write_text(text)
        file.start(5)
        assert file.path.read_text() == HEAD


@pytest.mark.parametrize("row", ["\n", "4,0\n", "4,0,1,2,3\n", "four,0,1,2\n", "\0\0\0\n", '"4,0,1,2\n'])
def test_a_row_that_is_none_is_refused_and_kept(file: MetricsFile, row: str) -> None:
    text = file.path.read_text() + row + "5,0,1.0,2.0\n"
    file.path.write_text(text)
    with pytest.raises(RunError, match=r"metrics\.csv is not a metrics file .*move it away and resume"):
        file.start(5)
    assert file.path.read_text() == text


def test_bytes_that_are_no_text_are_refused(file: MetricsFile) -> None:
    file.path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(RunError, match="not a metrics file"):
        metrics.read(file.path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a metrics file"):
        metrics.read(tmp_path / "metrics.csv")
    file = MetricsFile(tmp_path / "metrics.csv", ["loss_D", "loss_G"])
    file.start(7)
    assert file.path.read_text() == HEAD


def test_a_disk_that_refuses_is_explained(file: MetricsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RunError, match="read-only: choose a folder"):
        file.append(4, 0, [1.0, 2.0])


def test_other_columns_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,2.0\n")
    with pytest.raises(RunError, match=r"has other columns than step, epoch, loss_D.*move it away"):
        MetricsFile(path, ["loss_D"]).start(1)
    assert path.read_text() == "step,loss\n1,2.0\n"
