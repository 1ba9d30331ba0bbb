"""Several checkpoints that belong together, as one: Keras 3 writes a file for each compiled model of a GAN."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tfport.checkpoints.contents import Bytes, Contents, Entry, OptimizerEntry, Role, Sink, Source, Stored
from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError
from tfport.state import slot_name

SEPARATOR = ":"
"""Between a file's name and the key in it; keys of a folder's only checkpoint stand alone."""

_SUFFIXES = (".index", ".h5", ".keras", ".npz", ".safetensors", ".pt", ".pth")


def names_in(folder: Path) -> list[str]:
    """The checkpoints that a folder holds, by file or prefix, sorted.

    Raises:
      CheckpointError: it cannot be read.
    """
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}.") from None
    return sorted(name.removesuffix(".index") for name in names if name.endswith(_SUFFIXES))


class PartsSource(Source):
    """The checkpoints in one folder, read as one.

    Where there are several, each key has `<file>:` before it, and canonical names the file's stem: two models of a GAN
    call their layers and optimizers alike.

    Args:
      folder: where they lie.
      names: files, or prefixes, in it; all that are checkpoints when None.

    Raises:
      CheckpointError: there is none, or one of them cannot be read.
    """

    format = "tfport-run"

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        self.path = folder
        self.parts: dict[str, Source] = {}
        """File's or prefix's name -> the checkpoint."""
        self.tensors = {}
        self.written_by = {}
        names = names_in(folder) if names is None else names
        if not names:
            raise CheckpointError(f"{folder} holds no checkpoint.")
        try:
            for name in names:
                part = self.parts[name] = open_source(folder / name)
                self.written_by.update(part.written_by)
                for key, stored in part.tensors.items():
                    full = self._full(name, key, len(names))
                    self.tensors[full] = Stored(full, stored.shape, stored.dtype)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _full(part: str, key: str, parts: int) -> str:
        return key if parts == 1 else f"{part}{SEPARATOR}{key}"

    def part_of(self, key: str) -> tuple[str, str]:
        """The checkpoint that a key is in, and the key there."""
        if len(self.parts) == 1:
            return next(iter(self.parts)), key
        part, _, inner = key.partition(SEPARATOR)
        return part, inner

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See `Source.chunks`."""
        part, inner = self.part_of(key)
        return self.parts[part].chunks(inner)

    def contents(self) -> Contents:
        """See `Source.contents`."""
        entries: list[Entry] = []
        optimizers: list[OptimizerEntry] = []
        notes: list[str] = []
        for name, part in self.parts.items():
            own = part.contents()
            if len(self.parts) > 1:
                own = _of_part(own, name.partition(".")[0])
            entries += [replace(each, key=self._full(name, each.key, len(self.parts))) for each in own.entries]
            optimizers += own.optimizers
            notes += own.notes
        return Contents(tuple(entries), tuple(optimizers), tuple(notes))

    def close(self) -> None:
        """Closes all parts."""
        for part in self.parts.values():
            part.close()


def _of_part(contents: Contents, stem: str) -> Contents:
    """The contents of one part, its canonical names with the part's before them."""

    def entry(each: Entry) -> Entry:
        optimizer = f"{stem}.{each.optimizer}" if each.optimizer else ""
        variable = f"{stem}/{each.variable}" if each.variable else ""
        if each.role is Role.SLOT:
            name = slot_name(optimizer, each.slot, variable)
        elif each.optimizer:
            name = f"optimizer/{optimizer}/" + each.name.removeprefix(f"optimizer/{each.optimizer}/")
        elif each.role is Role.AVERAGE:
            name = f"average/{variable}"
        else:
            name = f"{stem}/{each.name}"
        return replace(each, name=name, optimizer=optimizer, variable=variable)

    return Contents(
        tuple(map(entry, contents.entries)),
        tuple(
            replace(each, name=f"{stem}.{each.name}", variables=tuple(f"{stem}/{name}" for name in each.variables))
            for each in contents.optimizers
        ),
        tuple(f"{stem}: {note}" for note in contents.notes),
    )


class PartsSink(Sink):
    """Writes a folder with the parts that a template has.

    Args:
      path: the folder; made here.
      tensors: see `Sink`; those of one part stand together.
      contents: see `Sink`.
      template: an open PartsSource.
    """

    def __init__(self, path: Path, tensors: Sequence[Stored], contents: Contents, template: Source | None) -> None:
        from tfport.checkpoints.convert import sink_for

        if not isinstance(template, PartsSource):
            raise CheckpointError("a run's checkpoint is written by the layout of another one, and none is given.")
        self.path = path
        self._template = template
        path.mkdir()
        entries = {entry.key: entry for entry in contents.entries}
        self._sinks: dict[str, Sink] = {}
        try:
            for name, part in template.parts.items():
                inner = {key: short for key in entries for own, short in [template.part_of(key)] if own == name}
                stored = [Stored(inner[each.key], each.shape, each.dtype) for each in tensors if each.key in inner]
                held = tuple(replace(entries[key], key=short) for key, short in inner.items())
                own_contents = Contents(held, contents.optimizers)
                self._sinks[name] = sink_for(part.format)(path / name, stored, own_contents, part)
        except BaseException:
            self.abandon()
            raise

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """See `Sink.write`."""
        part, inner = self._template.part_of(key)
        self._sinks[part].write(inner, chunks)

    def finish(self) -> None:
        """See `Sink.finish`."""
        for sink in self._sinks.values():
            sink.finish()

    def abandon(self) -> None:
        """See `Sink.abandon`."""
        for sink in self._sinks.values():
            sink.abandon()
