"""Files that a verb is asked to write, checked before any work is done."""

from __future__ import annotations

import tempfile
from pathlib import Path

from absl import flags

from tfport.errors import UserError
from tfport.files import explained

FLAGS = flags.FLAGS


def output_file(name: str) -> Path | None:
    """The file of an output flag; refuses a folder and a place that cannot be."""
    value: str | None = FLAGS[name].value
    if value is None:
        return None
    path = Path(value)
    if not value or path.is_dir():
        raise UserError(f"--{name}={value} names no file; expected the name of a file to write.")
    if not path.absolute().parent.exists():
        raise UserError(f"--{name}={value}: the folder {path.parent} does not exist; make it first.")
    with explained(path), tempfile.TemporaryFile(dir=path.absolute().parent):
        pass  # a place that cannot be written is refused now and not after the work
    return path
