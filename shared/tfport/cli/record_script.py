"""Writes the script that records an original where TensorFlow 1.4 to 1.15 still runs.

The script is a single file that needs numpy, TensorFlow and Python 3.5 or later, and nothing of tfport. Copy it to that
machine, run it there, and copy the folder that it writes back.

Example:
  tfport record-script record_original.py
  python record_original.py --legacy=train_tf1:build --batches=data:batch --record=original
  tfport check --legacy=original --modern=train_keras:model

Exit codes: 0 written; 2 bad input.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tfport.cli import app, say
from tfport.errors import UserError
from tfport.files import write_atomically

POSITIONAL = ("[FILE]",)
NAME = "record_original.py"


def main() -> int:
    """Writes the script; returns the exit code."""
    path = Path(app.positionals[0] if app.positionals else NAME)
    if path.is_dir():
        path /= NAME
    if path.exists():
        raise UserError(f"{path} exists; name a file that does not.")
    write_atomically(path, (resources.files("tfport.record_script") / NAME).read_text(encoding="utf-8"))
    say(f"Script: {path}\n")
    return 0
