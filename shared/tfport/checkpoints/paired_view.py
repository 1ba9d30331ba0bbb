"""One checkpoint under the names, and in the layout, of another: what a comparison of the two needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tfport.checkpoints import algebra, pairing
from tfport.checkpoints.contents import Bytes, Contents, Entry, OptimizerEntry, Role, Source, Stored
from tfport.checkpoints.convert import layout_of
from tfport.checkpoints.pairing import MappingFile
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
        partners = {pair.legacy: pair for pair in pairs.values()}
        names = {name: pair.modern for name, pair in partners.items()}
        optimizers = (
            pairing.pair_optimizers(contents, wanted, partners, mapping)
            if contents.optimizers and wanted.optimizers
            else {}
        )
        self._contents = Contents(
            tuple(_renamed(entry, names, optimizers) for entry in contents.entries),
            tuple(_optimizer(each, names, optimizers) for each in contents.optimizers),
            contents.notes,
        )
        self._orders: dict[str, tuple[int, ...]] = {}
        self.tensors = dict(source.tensors)
        for entry in contents.entries:
            pair = partners.get(entry.variable or entry.name)
            stored = source.tensors[entry.key]
            if pair is not None and pair.transpose and len(pair.transpose) == len(stored.shape):
                self._orders[entry.key] = pair.transpose
                shape = tuple(stored.shape[axis] for axis in pair.transpose)
                self.tensors[entry.key] = Stored(entry.key, shape, stored.dtype)

    def chunks(self, key: str) -> Iterator[Bytes]:
        """See `Source.chunks`."""
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


def _optimizer(each: OptimizerEntry, names: Mapping[str, str], optimizers: Mapping[str, str]) -> OptimizerEntry:
    return replace(
        each,
        name=optimizers.get(each.name, each.name),
        variables=tuple(names.get(variable, variable) for variable in each.variables),
    )
