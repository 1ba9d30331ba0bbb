"""Errors that are the user's to mend: one clear message, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message names the thing, what was found, what was expected and what to do next.
    The command line prints it alone and exits with 2.
    """


class DataError(UserError):
    """A data set file is missing, damaged or not what its name says."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to something else."""


class LegacyKerasNeeded(UserError):
    """The code of a side needs Keras 2 behind TensorFlow's names, and was imported with Keras 3 there."""


class StandInsNeeded(UserError):
    """The code of a side is of TensorFlow 1, and was imported without `tfport.legacy`."""


class RunError(UserError):
    """A run directory cannot be used for what was asked."""


class TrainingDiverged(Exception):
    """A loss became NaN or infinite; carries what a person needs to know (exit code 1)."""


def unknown(kind: str, value: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`, with the nearest ones first.

    Args:
      kind: what the name is of, as a person calls it: "model", "paradigm", "dataset".
      value: the name that was given.
      valid: every name that would have done.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(value, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"unknown {kind} {value!r}.{hint} Valid: {', '.join(names)}.")


def whole(name: str, value: int, low: int, high: int) -> int:
    """`value` when low <= value <= high.

    Raises:
      UserError: it is not; the message names the flag and its range.
    """
    if not low <= value <= high:
        raise UserError(f"--{name}={value} is out of range: expected a whole number from {low:,} to {high:,}.")
    return value
