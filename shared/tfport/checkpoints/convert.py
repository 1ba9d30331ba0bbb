"""Carrying a checkpoint from one format, framework and program to another, and putting it in place whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfport.checkpoints import conventions, pairing, plan
from tfport.checkpoints.contents import Bytes, Contents, Role, Sink, Source
from tfport.checkpoints.opening import FORMATS, open_source
from tfport.checkpoints.plan import Options, Plan, Target
from tfport.errors import CheckpointError, UserError, unknown
from tfport.files import explained, sync_folder

Tick = Callable[[int], None]
"""Called with the bytes that were written since the last call."""

_SUFFIXES = {
    ".weights.h5": "keras3-weights",
    ".keras": "keras3",
    ".h5": "keras-h5",
    ".hdf5": "keras-h5",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
}
_FLUSH_SECONDS = 0.15
_PREFIXES = frozenset({"tf1-v2", "tf2"})


@dataclass
class Order:
    """One conversion as it is asked for."""

    source: Path
    target: Path
    format: str | None = None
    """One of FORMATS; None to go by the template, else by the target's name."""
    like: Path | None = None
    """A checkpoint of the target's program, whose layout and structure the new one takes."""
    mapping: Path | None = None
    options: Options = field(default_factory=Options)
    force: bool = False
    """Whether something that is there may be replaced."""


def format_of(order_format: str | None, target: Path, template: Source | None) -> str:
    """The format to write: the one that is asked for, the template's, or that of the target's name.

    Raises:
      UserError: none of them tells, or the template is of another format.
    """
    if order_format is not None and order_format not in FORMATS:
        raise unknown("format", order_format, FORMATS)
    if template is not None:
        if order_format not in (None, template.format):
            raise UserError(
                f"--like={template.path} is of format {template.format}, and --to={order_format} asks for another; "
                "give a template of the format that is to be written, or leave --to out."
            )
        return template.format
    if order_format is not None:
        return order_format
    for suffix, found in _SUFFIXES.items():
        if target.name.endswith(suffix):
            return found
    if target.name.endswith(".ckpt"):
        return "tf1-v2"
    raise UserError(
        f"{target}: its name does not tell which format to write; give --to=FORMAT ({', '.join(FORMATS)}) or a "
        "template with --like=FILE."
    )


def layout_of(source: Source, contents: Contents) -> str:
    """Whose kernels a checkpoint has: "torch" where variables are called weight and none kernel, else "tf"."""
    last = {
        entry.name.replace(".", "/").rpartition("/")[2]
        for entry in contents.entries
        if entry.role in (Role.WEIGHT, Role.STATISTIC)
    }
    torch = source.format == "torch" or any(each.convention == "torch" for each in contents.optimizers)
    return "torch" if "kernel" not in last and (torch or {"weight", "running_mean"} & last) else "tf"


@contextlib.contextmanager
def planned(order: Order) -> Iterator[tuple[Source, Plan]]:
    """Opens what an order names and plans it; the files stay open within the block.

    Raises:
      CheckpointError, UserError: see `plan.make`, `open_source` and `format_of`.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(order.source))
        template = stack.enter_context(open_source(order.like)) if order.like is not None else None
        written = format_of(order.format, order.target, template)
        check_free(order.target, written, order.force, (order.source, order.like))
        mapping = pairing.read_mapping(order.mapping) if order.mapping is not None else None
        contents = source.contents()
        if template is None:
            target = conventions.lay_out(source, contents, written)
            layout = "tf"
        else:
            own = template.contents()
            target = Target(written, template.tensors, own, template, layout_of(template, own))
            layout = layout_of(source, contents)
        yield source, plan.make(source, contents, target, mapping, order.options, layout)


def check_free(target: Path, written: str, force: bool, read: Iterable[Path | None] = ()) -> None:
    """Raises UserError where something lies at the target that may not be replaced."""
    there = _occupied(target, written)
    for path in read:
        if path is not None and there and (path == target or path.resolve() == target.resolve()):
            raise UserError(f"{target} would be written over while it is read; give another place.")
    if there and not force:
        raise UserError(f"{there[0]} is there already; give another name, or --force to replace it.")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target}: the folder {target.parent} does not exist; make it first.")
    if written not in _PREFIXES and written not in ("saved-model", "tfport-run") and target.is_dir():
        raise UserError(f"{target} is a folder; {FORMATS[written]} is a file: give a file's name.")


def _occupied(target: Path, written: str) -> list[Path]:
    """What a finished conversion would replace."""
    if written in _PREFIXES:
        found = [target.with_name(f"{target.name}.index")] if target.with_name(f"{target.name}.index").exists() else []
        if target.parent.is_dir():
            found += sorted(each for each in target.parent.iterdir() if each.name.startswith(f"{target.name}.data-"))
        return found
    return [target] if target.exists() or target.is_symlink() else []


def sink_for(written: str) -> Callable[..., Sink]:
    """The class that writes a format."""
    import importlib

    module, name = {
        "tf1-v2": ("bundle", "BundleSink"),
        "tf2": ("bundle", "BundleSink"),
        "tf1-v1": ("saver_v1", "V1Sink"),
        "saved-model": ("saved_model", "SavedModelSink"),
        "keras-h5": ("hdf5", "H5Sink"),
        "keras3-weights": ("hdf5", "H5Sink"),
        "keras3": ("keras_archive", "KerasArchiveSink"),
        "torch": ("torch_file", "TorchSink"),
        "npz": ("arrays", "NpzSink"),
        "safetensors": ("arrays", "SafetensorsSink"),
        "tfport-run": ("runs", "RunSink"),
    }[written]
    found: Callable[..., Sink] = getattr(importlib.import_module(f"tfport.checkpoints.{module}"), name)
    return found


def write(
    made: Plan, target: Path, force: bool = False, verify: bool = False, tick: Tick = lambda _: None
) -> list[Path]:
    """Writes a planned conversion under a temporary name, checks it if asked, and puts it in place whole.

    Args:
      made: the plan; its files are still open.
      target: where the checkpoint will lie.
      force: whether what is there may be replaced.
      verify: whether every tensor is read back and compared, bit for bit, before it is put in place.
      tick: told of progress, in bytes.

    Returns:
      The files or the folder that were put in place.

    Raises:
      CheckpointError: the source is damaged, or what was read back is not what was written; nothing is put in place.
      RunError: the disk refused; nothing is put in place.
    """
    written = made.target.format
    check_free(target, written, force)
    with explained(target):
        temporary = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}."))
        try:
            place = temporary / target.name
            with _flushing(temporary):
                _write_at(made, place, tick)
            if verify:
                _verify(made, place, tick)
            _sync(temporary)
            return _put(temporary, target, written)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_at(made: Plan, place: Path, tick: Tick) -> None:
    target = made.target
    stored = [move.stored for move in made.moves]
    entries = tuple(move.entry for move in made.moves)
    contents = Contents(entries, target.contents.optimizers, target.contents.notes)
    sink = sink_for(target.format)(place, stored, contents, target.template)
    try:
        for move in made.moves:
            sink.write(move.stored.key, _counting(move.produce(), tick))
        sink.finish()
    except BaseException:
        sink.abandon()
        raise


@contextlib.contextmanager
def _flushing(folder: Path) -> Iterator[None]:
    """Has the files of a folder written to the disk while they grow, so that the end need not wait for all of it."""
    ended = threading.Event()

    def flush() -> None:
        while not ended.wait(_FLUSH_SECONDS):
            for file in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    descriptor = os.open(file, os.O_RDONLY)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _counting(chunks: Iterator[Bytes], tick: Tick) -> Iterator[Bytes]:
    for chunk in chunks:
        yield chunk
        tick(len(chunk))


def _verify(made: Plan, place: Path, tick: Tick) -> None:
    """Reads all of a written checkpoint back and holds it against the source once more."""
    with open_source(place) as back:
        wanted = {move.stored.key for move in made.moves}
        for key in back.tensors.keys() - wanted:
            raise CheckpointError(f"the checkpoint that was written holds {key}, which was not planned; it is removed.")
        for move in made.moves:
            header = back.tensors.get(move.stored.key)
            if header is None or header != move.stored:
                raise CheckpointError(
                    f"{move.stored.key} was written as {move.stored} and read back as {header}; nothing is put in "
                    "place."
                )
            if not same_bytes(move.produce(), back.chunks(header.key), tick):
                raise CheckpointError(
                    f"{move.stored.key} was read back with other bytes than were written; nothing is put in place. Is "
                    "the disk sound?"
                )


def same_bytes(one: Iterator[Bytes], other: Iterator[Bytes], tick: Tick = lambda _: None) -> bool:
    """Whether two streams hold the same bytes, however they are cut."""
    left, right = memoryview(b""), memoryview(b"")
    while True:
        left = left or _next(one)
        right = right or _next(other)
        if not left or not right:
            return not left and not right
        size = min(len(left), len(right))
        if left[:size] != right[:size]:
            return False
        left, right = left[size:], right[size:]
        tick(size)


def _next(chunks: Iterator[Bytes]) -> memoryview:
    for chunk in chunks:
        if len(chunk):
            return memoryview(chunk).cast("B")
    return memoryview(b"")


def _sync(folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        else:
            sync_folder(file)
    sync_folder(folder)


def _put(temporary: Path, target: Path, written: str) -> list[Path]:
    """Moves what was written to its place; what lay there goes aside first and comes back when that fails."""
    made = sorted(temporary.iterdir(), key=lambda each: each.name.endswith(".index"))  # the index makes it a checkpoint
    old = sorted(_occupied(target, written), key=lambda each: not each.name.endswith(".index"))
    parent = target.absolute().parent
    aside = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}.old.")) if old else None
    moved: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for each in old:
            assert aside is not None
            each.rename(aside / each.name)
            moved.append((aside / each.name, each))
        for each in made:
            final = parent / each.name
            mask = os.umask(0)
            os.umask(mask)
            each.chmod((0o777 if each.is_dir() else 0o666) & ~mask)
            each.rename(final)
            placed.append(final)
        sync_folder(parent)
    except BaseException:
        for final in placed:
            with contextlib.suppress(OSError):
                shutil.rmtree(final) if final.is_dir() else final.unlink()
        for there, back in moved:
            there.rename(back)
        if aside is not None:
            aside.rmdir()
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    return [target.parent / each.name for each in placed]


def as_json(source: Source, made: Plan) -> dict[str, Any]:
    """A plan as JSON values, schema 1, with where it comes from."""
    written = {"path": str(source.path), "format": source.format, "written_by": source.written_by}
    return {**plan_as_json(made), "source": written}


def plan_as_json(made: Plan) -> dict[str, Any]:
    """A plan as JSON values, schema 1."""
    return {
        "schema": 1,
        "target": {
            "format": made.target.format,
            "like": str(made.target.template.path) if made.target.template is not None else None,
        },
        "tensors": [
            {
                "key": move.stored.key,
                "name": move.entry.name,
                "role": move.entry.role.value,
                "shape": list(move.stored.shape),
                "dtype": move.stored.dtype,
                "how": move.how,
                "origins": list(move.origins),
            }
            for move in made.moves
        ],
        "left_out": [{"key": each.key, "name": each.name, "reason": each.reason} for each in made.left_out],
        "notes": list(made.notes),
        "bytes": made.nbytes,
    }
