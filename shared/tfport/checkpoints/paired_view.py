"""One checkpoint under the names, and in the layout, of another: what a comparison of the two needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tfport.checkpoints import algebra, pairing
from tfport.checkpoints.contents import (
    Bytes,
    Contents,
    Entry,
    OptimizerEntry,
    Role,
    Source,
    Stored,
    numpy_dtype,
    pieces,
)
from tfport.checkpoints.convert import layout_of
from tfport.checkpoints.pairing import MappingFile
from tfport.layouts import MappedVariable, further_terms, to_modern
from tfport.state import slot_name


class PairedSource(Source):
    """`source` as `other` would hold it: variables and optimizers by the other's names, kernels turned.

    What has no partner keeps its name.

    Args:
      source: an open checkpoint.
      other: the one whose names are taken.
      mapping: which is which, where names do not tell.

    Raises:
      UserError: the mapping does not fit.
      CheckpointError: optimizers cannot be told apart.
    """

    def __init__(self, source: Source, other: Source, mapping: MappingFile | None = None) -> None:
        self._source = source
        self.path, self.format, self.written_by = source.path, source.format, source.written_by
        contents, wanted = source.contents(), other.contents()
        pairs = pairing.pair_variables(
            pairing.variables_of(contents, source.tensors),
            pairing.variables_of(wanted, other.tensors),
            mapping,
            layouts=(layout_of(source, contents), layout_of(other, wanted)),
        )
        every = [pair for blocks in pairs.values() for pair in blocks]
        optimizers = (
            pairing.pair_optimizers(contents, wanted, every, mapping)
            if contents.optimizers and wanted.optimizers
            else {}
        )
        partners = {pair.legacy: pair for pair in every if not pair.in_part}
        names = {name: pair.modern for name, pair in partners.items()}
        split = {pair.legacy for pair in every if pair.in_part}
        self._empty = further_terms(every)
        self._orders: dict[str, tuple[int, ...]] = {}
        self._made: dict[str, list[tuple[MappedVariable, str]]] = {}
        """Key -> its blocks, each with the key of its legacy variable, or of that one's slot."""
        self.tensors = dict(source.tensors)
        entries = []
        for entry in contents.entries:
            if entry.variable in split or (not entry.variable and entry.name in split):
                continue
            entries.append(_renamed(entry, names, optimizers))
            pair = partners.get(entry.variable or entry.name)
            stored = source.tensors[entry.key]
            if pair is not None and pair.transpose and len(pair.transpose) == len(stored.shape):
                self._orders[entry.key] = pair.transpose
                shape = tuple(stored.shape[axis] for axis in pair.transpose)
                self.tensors[entry.key] = Stored(entry.key, shape, stored.dtype)
        for modern, blocks in pairs.items():
            if blocks[0].in_part:
                entries += [_renamed(entry, {}, optimizers) for entry in self._joined(modern, blocks, contents)]
        self._contents = Contents(
            tuple(entries),
            tuple(_optimizer(each, every, optimizers) for each in contents.optimizers),
            contents.notes,
        )

    def _joined(self, modern: str, blocks: Sequence[MappedVariable], contents: Contents) -> Iterator[Entry]:
        """The entries of a variable that is made of blocks, and of its slots."""
        legacy = blocks[0].legacy
        for entry in contents.entries:
            if entry.name != legacy and not (entry.role is Role.SLOT and entry.variable == legacy):
                continue
            slot = entry.role is Role.SLOT
            kept = {
                each.variable if slot else each.name: each.key
                for each in contents.entries
                if each.role is entry.role and (each.optimizer, each.slot) == (entry.optimizer, entry.slot)
            }
            if any(pair.legacy not in kept for pair in blocks):
                continue
            parts = [(pair, kept[pair.legacy]) for pair in blocks]
            if any(self._source.tensors[key].shape != pair.legacy_shape for pair, key in parts):
                continue
            key = " and ".join(dict.fromkeys(key for _, key in parts)) + f" as {modern}"
            self._made[key] = parts
            self.tensors[key] = Stored(key, blocks[0].modern_shape, self._source.tensors[entry.key].dtype)
            name = slot_name(entry.optimizer, entry.slot, modern) if slot else modern
            yield replace(entry, key=key, name=name, variable=modern if slot else "")

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See `Source.chunks`."""
        if key in self._made:
            weights = not any(entry.role is Role.SLOT for entry in self._contents.entries if entry.key == key)
            parts = [
                (pair, self._source.read(own) * (not weights or pair not in self._empty))
                for pair, own in self._made[key]
            ]
            return pieces(to_modern(parts, weights).astype(numpy_dtype(self.tensors[key].dtype)))
        if key in self._orders:
            return algebra.transposed(self._source.read(key), self._orders[key])
        return self._source.chunks(key)

    def contents(self) -> Contents:
        """See `Source.contents`."""
        return self._contents


def _renamed(entry: Entry, names: Mapping[str, str], optimizers: Mapping[str, str]) -> Entry:
    optimizer = optimizers.get(entry.optimizer, entry.optimizer)
    variable = names.get(entry.variable, entry.variable)
    name = names.get(entry.name, entry.name)
    if entry.role is Role.SLOT:
        name = slot_name(optimizer, entry.slot, variable)
    elif entry.optimizer and entry.name.startswith(f"optimizer/{entry.optimizer}/"):
        name = f"optimizer/{optimizer}/" + entry.name.removeprefix(f"optimizer/{entry.optimizer}/")
    elif entry.role is Role.AVERAGE:
        name = f"average/{variable}"
    return replace(entry, name=name, optimizer=optimizer, variable=variable)


def _optimizer(each: OptimizerEntry, pairs: Sequence[MappedVariable], optimizers: Mapping[str, str]) -> OptimizerEntry:
    held = {
        name: [pair.modern for pair in pairs if pair.legacy == name] or [name] for name in dict.fromkeys(each.variables)
    }
    moderns = dict.fromkeys(modern for variable in each.variables for modern in held[variable])
    return replace(each, name=optimizers.get(each.name, each.name), variables=tuple(moderns))
