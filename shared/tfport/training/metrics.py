"""The metrics of a run as CSV: step, epoch and each loss, at full precision and without times.

Because no time stands in it, a run that was stopped and resumed writes the same bytes as one that was not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tfport.errors import RunError
from tfport.files import explained, write_atomically


class MetricsFile:
    """An append-only CSV; each row is on disk when `append` returns."""

    def __init__(self, path: Path, losses: Sequence[str]) -> None:
        self.path = path
        self.header = ["step", "epoch", *losses]

    def start(self, step: int, every: int = 1) -> None:
        """Makes the file hold the rows up to `step` and no later ones, whatever it held before.

        A row at `step` itself goes too when `step` is no multiple of `every`: it closed a run that now goes on.
        """
        rows = read(self.path) if self.path.exists() else []
        if rows and self.path.read_text().splitlines()[0] != ",".join(self.header):
            raise RunError(f"{self.path} has other columns than {', '.join(self.header)}; move it away and resume.")
        rows = [row for row in rows if row[0] < step or (row[0] == step and step % every == 0)]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([int(row[0]), int(row[1]), *(repr(value) for value in row[2:])] for row in rows)
        write_atomically(self.path, buffer.getvalue())

    def append(self, step: int, epoch: int, losses: Sequence[float]) -> None:
        """Adds the losses of training step number `step`, counted from 1."""
        with explained(self.path), self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([step, epoch, *(repr(value) for value in losses)])


def read(path: Path) -> list[list[float]]:
    """The rows as numbers; a last row that a crash cut short is left out.

    Raises:
      RunError: the file cannot be read, or a row is not numbers.
    """
    try:
        text = path.read_text()
        lines = text.splitlines()
        whole = lines if text.endswith("\n") else lines[:-1]
        rows = list(csv.reader(whole))
        if any(len(row) != len(rows[0]) for row in rows):
            raise ValueError(f"its rows have not all {len(rows[0])} columns")
        return [[float(value) for value in row] for row in rows[1:]]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is not a metrics file ({error}); move it away and resume.") from None
