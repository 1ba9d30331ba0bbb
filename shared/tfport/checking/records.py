"""A record: a folder with all that a check asks of a legacy side, so that ports can be held against it without it.

`manifest.json` has the format's version and the checksum of `record.json`, which is `legacy.Original` as `tree` writes
it; `arrays.bin` holds its arrays, each with its checksum. Nothing in the folder is executed, and it is checked whole
before anything of it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tfport.checking import horizon, resume, tree
from tfport.checking.envelope import recorded_spans
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.legacy import Live, Original, idle
from tfport.checking.observe import Still, observe
from tfport.checking.quoting import said
from tfport.checking.record import Record
from tfport.checking.session import Order, Session
from tfport.checking.store import ArrayFile, Place, Store, digest_of
from tfport.errors import UserError
from tfport.files import atomic_folder, explained, sha256
from tfport.versions import versions

VERSION = 1
FORMAT = "tfport record"
MANIFEST, RECORD, ARRAYS = "manifest.json", "record.json", "arrays.bin"
LOOKED_AT = 1 << 30
"""Bytes that intermediates at the states of the trajectory may take in a record; those of later steps are left out."""


def is_record(given: Any) -> bool:
    """Whether a side is given as a record's folder, be it whole or not."""
    if not isinstance(given, str | Path) or not Path(given).is_dir():
        return False
    return any(Path(given, name).is_file() for name in (MANIFEST, RECORD, ARRAYS))


# --- Writing ----------------------------------------------------------------------------------------------------------
def make(folder: Path, order: Order) -> None:
    """Records the legacy side of an order.

    Raises:
      UserError: the side cannot be used, or the folder holds other things than a record.
      RunError: the disk refused; an older record is untouched.
    """
    refuse(folder)
    with Store() as store, Session(order, store) as session, explained(folder):
        original = _original(session)
        with atomic_folder(folder) as temporary:
            write(temporary, original)


def refuse(folder: Path) -> None:
    """Raises UserError where a folder to write a record to holds other things."""
    if folder.exists() and not is_record(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--record={folder} holds other things than a record; name a folder that does not exist.")


def _original(session: Session) -> Original:
    live, order = Live(session), session.order
    single = live.single()
    wide, no_float64 = None, ""
    try:
        wide = live.wide(single)
    except Exception as error:  # whatever stops float64, float32 is recorded
        no_float64 = str(error) if isinstance(error, NoSuchPrecision | UserError) else said(error)
    spans = recorded_spans(session, single)
    looks = {record.precision: _looks(session, record) for record in (single, wide) if record is not None}
    with session.opened("legacy", "float32") as program:
        batches = session.batches(program)
        kept = [session.store.keep(batches[step]) for step in range(order.steps + 1)]
    return Original(
        name=live.name,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions=versions(),
        seed=order.seed,
        batches_name=batches.name,
        batches=kept,
        inputs=session.inputs["legacy"],
        spare=session.spare["legacy"],
        single=single,
        wide=wide,
        no_float64=no_float64,
        looks=looks,
        spans=spans,
        idle=tuple(idle(session, "legacy", [each.name for each in single.variables if not each.optimizers])),
        ignored=tuple(sorted(session.ignored["legacy"])),
        own_resume=resume.own_resume(session, single),
        wide_horizon=horizon.widely(session, single) if wide is not None else None,
        notes=tuple(session.notes),
        left_out=tuple(session.left_out),
        draws=[],
        unfed=None,
    )


def _looks(session: Session, record: Record) -> dict[int, Still]:
    """All that the side shows at the states of the trajectory, as far as there is room."""
    found: dict[int, Still] = {}
    room = session.store.size + LOOKED_AT
    with session.timed("looks"), session.opened("legacy", record.precision) as program:
        side, batches = session.side(program, "legacy"), session.batches(program)
        for step in record.forced:
            if session.store.size < room:
                found[step] = observe(side, session.store, record.trajectory.states[step], batches[step], step)
    return found


def write(folder: Path, original: Original) -> None:
    """Writes a record's files into a folder that exists."""
    places: dict[bytes, Place] = {}
    with ArrayFile(folder / ARRAYS) as file:

        def put(value: Any) -> Place:
            if not isinstance(value, Place):
                value = np.asarray(value)
                digest = digest_of(value)
                found = places.get(digest) or places.setdefault(digest, file.add(value, digest))
                return Place(found.path, found.offset, value.dtype.str, value.shape, digest)
            if value.digest not in places:
                places[value.digest] = file.add(value.shown(), value.digest)
            return Place(file.path, places[value.digest].offset, value.dtype, value.shape, value.digest)

        text = json.dumps(tree.plain(original, put), allow_nan=False)
    (folder / RECORD).write_text(text, encoding="utf-8")
    manifest = {"format": FORMAT, "version": VERSION, RECORD: sha256(folder / RECORD)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


# --- Reading ----------------------------------------------------------------------------------------------------------
def read(folder: Path) -> Original:
    """A record, checked whole.

    Raises:
      UserError: it is of another version, incomplete, or was changed.
    """
    manifest = _json(folder, MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(folder, f"{MANIFEST} is not that of a record")
    if manifest.get("version") != VERSION:
        raise UserError(
            f"{folder} is a record of version {manifest.get('version')!r}; this tfport reads version {VERSION}. Use "
            "the tfport that wrote it, or record the original again."
        )
    if not (folder / RECORD).is_file() or manifest.get(RECORD) != sha256(folder / RECORD):
        raise _damaged(folder, f"{RECORD} does not match its checksum")
    arrays = _Arrays(folder)
    try:
        original: Original = tree.read(Original, _json(folder, RECORD), arrays.place)
    except tree.Malformed as error:
        raise _damaged(folder, f"{RECORD}: {error}") from None
    arrays.check()
    return original


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _damaged(folder, f"{name} is missing") from None
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{name} cannot be read ({' '.join(str(error).split())})") from None


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder} is not a whole record: {why}. Copy the folder again, or record the original again.")


class _Arrays:
    """The arrays of a record."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ARRAYS
        if not self.path.is_file():
            raise _damaged(folder, f"{ARRAYS} is missing")
        self.size = self.path.stat().st_size
        self.found: dict[Place, None] = {}

    def place(self, told: Sequence[Any]) -> Place:
        """The place that an entry tells.

        Raises:
          Malformed: it tells none, or one of something else than numbers and text.
          UserError: it lies beyond the file's end.
        """
        try:
            offset, dtype, shape, digest = told
            kind = np.dtype(dtype)
            place = Place(self.path, offset, dtype, tuple(shape), bytes.fromhex(digest))
            whole = all(type(each) is int and each >= 0 for each in (offset, *shape))
        except (TypeError, ValueError):
            whole = False
        if not whole or kind.kind not in tree.KINDS or kind.hasobject:
            raise tree.Malformed(f"{str(told)[:60]} is no array's place")
        if offset + math.prod(shape) * kind.itemsize > self.size:
            raise _damaged(self.folder, f"{ARRAYS} has {self.size:,} bytes and ends too early")
        self.found[place] = None
        return place

    def check(self) -> None:
        """Raises UserError where an array is not what was written."""
        for place in self.found:
            size = math.prod(place.shape) * np.dtype(place.dtype).itemsize
            if digest_of(Place(place.path, place.offset, "|u1", (size,)).shown()) != place.digest:
                raise _damaged(
                    self.folder, f"the array at byte {place.offset:,} of {ARRAYS} does not match its checksum"
                )


# --- Asking -----------------------------------------------------------------------------------------------------------
def numbers(folder: Path, original: Original, steps: int | None, seed: int | None) -> tuple[int, int]:
    """How many steps a check against a record makes, and the seed of its draws; None is what was recorded.

    Raises:
      UserError: the record cannot give what is asked.
    """
    if steps is not None and steps > original.steps:
        raise UserError(
            f"--steps={steps}: the record {folder} holds {original.steps} steps. Ask for at most as many, or record "
            f"the original again with --steps={steps}."
        )
    if seed not in (None, original.seed):
        raise UserError(
            f"--seed={seed}: the record {folder} was made with --seed={original.seed}, and its numbers were drawn by "
            "that. Leave --seed out, or record the original again."
        )
    return original.steps if steps is None else steps, original.seed


def note(folder: Path, original: Original) -> str:
    """What a report says of where the legacy side comes from."""
    made = ", ".join(f"{name} {version}" for name, version in original.versions.items() if name != "python")
    return f"the legacy side is the record {folder}, made on {original.made} with {made}"
