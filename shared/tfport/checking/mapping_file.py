"""The mapping of variables as a file to read and edit: JSON, one entry per block (see `tfport.layouts`).

| key | what it says |
| --- | --- |
| legacy, modern | the two variables |
| legacy_block, modern_block | which part of them: one [start, stop] for each axis; without it, the whole |
| view | the shape in which the legacy block is looked at |
| transpose | the order of its axes then |
| flip | the axes that are reversed then |
| reshape | true: it is then reshaped to the modern block |
| offset | a number that the modern weights have added |
| sum | true: one of several blocks that are added up, such as two biases for one |
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfport.errors import UserError, unknown
from tfport.files import write_json
from tfport.layouts import Block, MappedVariable, fault
from tfport.subject import VariableInfo

SCHEMA = 2
READ = (1, 2)
"""The schemas that are read; the first knew transpose and reshape alone."""


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
    entries = [entry(pair) for pair in mapping]
    write_json(path, {"schema": SCHEMA, "variables": entries, "legacy_only": list(legacy), "modern_only": list(modern)})


def entry(pair: MappedVariable) -> dict[str, Any]:
    """One block as JSON values, without what says nothing."""
    told = {
        "legacy_block": [list(each) for each in pair.legacy_block],
        "modern_block": [list(each) for each in pair.modern_block],
        "view": list(pair.view),
        "transpose": list(pair.transpose),
        "flip": list(pair.flip),
        "reshape": pair.reshape,
        "offset": pair.offset,
        "sum": pair.summed,
        "reason": pair.reason,
        "ambiguous": list(pair.ambiguous),
    }
    return {"legacy": pair.legacy, "modern": pair.modern, **{key: value for key, value in told.items() if value}}


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
      UserError: it cannot be read, names what is not there, shapes do not fit, or blocks do not tile a variable.
    """
    tree = load(path)
    if not isinstance(tree, dict) or tree.get("schema") not in READ or not isinstance(tree.get("variables"), list):
        raise UserError(
            f'--mapping={path} is no mapping: expected {{"schema": {SCHEMA}, "variables": [{{"legacy": ..., "modern": '
            "...}, ...]}; --write_mapping writes one to edit."
        )
    left, right = ({each.name: each for each in side} for side in (legacy, modern))
    found: list[MappedVariable] = []
    for number, told in enumerate(tree["variables"]):
        if not isinstance(told, dict) or not all(isinstance(told.get(key), str) for key in ("legacy", "modern")):
            raise UserError(f"--mapping={path}: entry {number} needs the texts legacy and modern.")
        for side, names in (("legacy", left), ("modern", right)):
            if told[side] not in names:
                raise UserError(f"--mapping={path}: {unknown(f'{side} variable', told[side], names)}")
        found.append(block(path, told, left[told["legacy"]].shape, right[told["modern"]].shape))
    check_tiles(path, found)
    return found


def check_tiles(path: Path, pairs: Sequence[MappedVariable]) -> None:
    """Raises UserError where the blocks of a variable overlap, leave a gap or exceed it."""
    wrong = fault(pairs)
    if wrong:
        raise UserError(f"--mapping={path}: {wrong}")


def block(path: Path, told: Mapping[str, Any], legacy: tuple[int, ...], modern: tuple[int, ...]) -> MappedVariable:
    """One entry of a file.

    Args:
      path: the file.
      told: the entry, with the texts legacy and modern.
      legacy: the shape of the legacy variable, and `modern` that of the modern one.
      modern: see `legacy`.

    Raises:
      UserError: a key holds something else than it should, or the shapes do not fit.
    """
    one, other = told["legacy"], told["modern"]
    left, right = _block(path, told, "legacy", legacy), _block(path, told, "modern", modern)
    pair = MappedVariable(one, other, legacy, modern, (), False, "mapping file", (), left, right)
    view = tuple(_numbers(path, told, "view"))
    if view and math.prod(view) != math.prod(pair.legacy_size):
        raise UserError(
            f"--mapping={path}: view of {one} is {list(view)}, and what it shows has shape {pair.legacy_size}; "
            "expected a shape of as many elements."
        )
    shape = view or pair.legacy_size
    given = told.get("transpose", [])
    if not isinstance(given, list) or (given and sorted(given, key=str) != list(range(len(shape)))):
        raise UserError(
            f"--mapping={path}: transpose of {one} is {given!r}, expected an order of the axes 0 to {len(shape) - 1}."
        )
    transpose = () if given == list(range(len(given))) else tuple(given)
    flip = tuple(_numbers(path, told, "flip"))
    if len(set(flip)) < len(flip) or any(axis >= len(shape) for axis in flip):
        raise UserError(
            f"--mapping={path}: flip of {one} is {list(flip)}, expected some of the axes 0 to {len(shape) - 1}."
        )
    offset = told.get("offset", 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise UserError(f"--mapping={path}: offset of {one} is {offset!r}, expected a number.")
    reshape = bool(told.get("reshape", False))
    pair = replace(
        pair, view=view, transpose=transpose, flip=flip, offset=float(offset), summed=bool(told.get("sum", False))
    )
    if pair.viewed != pair.modern_size and not (reshape and math.prod(pair.viewed) == math.prod(pair.modern_size)):
        what = "the block" if pair.legacy_block or pair.modern_block else "the variable"
        raise UserError(
            f"--mapping={path}: {one} has shape {pair.viewed}{' once transposed' if transpose else ''}, and {other} "
            f"has {pair.modern_size}; give {what} another partner, a transpose, or reshape."
        )
    return replace(pair, reshape=reshape and pair.viewed != pair.modern_size)


def _block(path: Path, told: Mapping[str, Any], side: str, shape: tuple[int, ...]) -> Block:
    """A block of a file; empty where it is the whole variable."""
    given = told.get(f"{side}_block", [])
    form = isinstance(given, list) and all(
        isinstance(each, list) and len(each) == 2 and all(type(edge) is int for edge in each) for each in given
    )
    found: Block = tuple((start, stop) for start, stop in given) if form else ()
    if not form or (found and len(found) != len(shape)):
        raise UserError(
            f"--mapping={path}: {side}_block of {told[side]} is {given!r}, expected one [start, stop] for each of its "
            f"{len(shape)} axes."
        )
    for (start, stop), size in zip(found, shape, strict=False):
        if not 0 <= start < stop <= size:
            raise UserError(
                f"--mapping={path}: {side}_block of {told[side]} is {given!r}, which exceeds its shape {shape}: "
                "expected 0 <= start < stop <= size on each axis."
            )
    return () if found == tuple((0, size) for size in shape) else found


def _numbers(path: Path, told: Mapping[str, Any], key: str) -> list[int]:
    given = told.get(key, [])
    if not isinstance(given, list) or not all(type(each) is int and each >= 0 for each in given):
        raise UserError(f"--mapping={path}: {key} of {told['legacy']} is {given!r}, expected a list of whole numbers.")
    return given
