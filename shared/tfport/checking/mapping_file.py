"""The mapping of variables as a file to read and edit: JSON, one entry a variable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfport.checking.report import MappedVariable
from tfport.errors import UserError, unknown
from tfport.files import write_json
from tfport.subject import VariableInfo

SCHEMA = 1


def write(path: Path, mapping: Sequence[MappedVariable], legacy: Sequence[str], modern: Sequence[str]) -> None:
    """Writes a mapping, atomically.

    Args:
      path: the file.
      mapping: the pairs.
      legacy: legacy names without a partner.
      modern: modern names without a partner.

    Raises:
      RunError: the disk refused.
    """
    entries = []
    for pair in mapping:
        entry: dict[str, Any] = {"legacy": pair.legacy, "modern": pair.modern}
        if pair.transpose:
            entry["transpose"] = list(pair.transpose)
        if pair.reshape:
            entry["reshape"] = True
        entry["reason"] = pair.reason
        if pair.ambiguous:
            entry["ambiguous"] = list(pair.ambiguous)
        entries.append(entry)
    write_json(path, {"schema": SCHEMA, "variables": entries, "legacy_only": list(legacy), "modern_only": list(modern)})


def load(path: Path) -> Any:
    """The JSON of a mapping file, of whatever form.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"--mapping={path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--mapping={path} cannot be read: {error}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"--mapping={path} is not JSON: {error}") from None


def read(path: Path, legacy: Sequence[VariableInfo], modern: Sequence[VariableInfo]) -> list[MappedVariable]:
    """The pairs of a file; what it does not name is left to be matched.

    Raises:
      UserError: it cannot be read, names something twice or that is not there, or shapes do not fit.
    """
    tree = load(path)
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA or not isinstance(tree.get("variables"), list):
        raise UserError(
            f'--mapping={path} is no mapping: expected {{"schema": {SCHEMA}, "variables": [{{"legacy": ..., "modern": '
            "...}, ...]}; --write_mapping writes one to edit."
        )
    left, right = ({each.name: each for each in side} for side in (legacy, modern))
    found: list[MappedVariable] = []
    for number, entry in enumerate(tree["variables"]):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("legacy", "modern")):
            raise UserError(f"--mapping={path}: entry {number} needs the texts legacy and modern.")
        for side, names in (("legacy", left), ("modern", right)):
            if entry[side] not in names:
                raise UserError(f"--mapping={path}: {unknown(f'{side} variable', entry[side], names)}")
            if entry[side] in (getattr(pair, side) for pair in found):
                raise UserError(f"--mapping={path} names the {side} variable {entry[side]} twice.")
        one, other = left[entry["legacy"]], right[entry["modern"]]
        found.append(_pair(path, entry, one, other))
    return found


def _pair(path: Path, entry: dict[str, Any], one: VariableInfo, other: VariableInfo) -> MappedVariable:
    given = entry.get("transpose", [])
    if not isinstance(given, list) or (given and sorted(given, key=str) != list(range(len(one.shape)))):
        raise UserError(
            f"--mapping={path}: transpose of {one.name} is {given!r}, expected an order of the axes 0 to "
            f"{len(one.shape) - 1}."
        )
    transpose = () if given == list(range(len(given))) else tuple(given)
    shape = tuple(one.shape[axis] for axis in transpose) or one.shape
    reshape = bool(entry.get("reshape", False))
    fits = shape == other.shape or (reshape and one.parameters == other.parameters)
    if not fits:
        raise UserError(
            f"--mapping={path}: {one.name} has shape {shape}{' once transposed' if transpose else ''}, and "
            f"{other.name} has {other.shape}; give another partner, a transpose, or reshape."
        )
    return MappedVariable(
        one.name, other.name, one.shape, other.shape, transpose, reshape and shape != other.shape, "mapping file"
    )
