"""One side of a check under the names that both sides share: the legacy side's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfport.checking import batches as batch_names
from tfport.checking.counters import Counted, Track, as_count, is_floating
from tfport.checking.lazy import Lazy, located
from tfport.checking.store import Place
from tfport.layouts import MappedVariable, further_terms, share, to_legacy, to_modern
from tfport.program import Batch, Node, Program
from tfport.state import State, slot_name
from tfport.subject import OptimizerInfo, VariableInfo

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Slot:
    """A slot that one side keeps in a variable of its own, or in other units."""

    shared: str
    """The legacy side's name of the variable or the slot."""
    blocks: tuple[MappedVariable, ...]
    """How it lies on the modern side: as the variable that it belongs to."""
    factor: float = 1.0
    """The legacy values, divided by the modern ones."""


@dataclass(frozen=True)
class Names:
    """How one side's own names become the shared ones."""

    variables: Mapping[str, tuple[MappedVariable, ...]] = field(default_factory=dict)
    """Own name -> its blocks; a variable without any keeps its own name behind `UNPAIRED`."""
    optimizers: Mapping[str, str] = field(default_factory=dict)
    """Own name -> shared name."""
    phases: Mapping[str, str] = field(default_factory=dict)
    """Shared name -> own name, in the shared order."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Own name -> shared name."""
    counters: Mapping[str, Counted] = field(default_factory=dict)
    """Own name of a counter, or of an optimizer's count -> its partner; for those that do not follow from `optimizers`.
    """
    slots: Mapping[str, Slot] = field(default_factory=dict)
    """Own name of a variable or a slot -> its partner, where that does not follow from `variables`."""
    tracks: Mapping[str, Track] = field(default_factory=dict)
    """Own name of a counter without a partner -> its values, by which a state of some step is completed."""


COUNTER = "counter/"
"""Stands before the shared name of a counter that is no optimizer's count."""
UNPAIRED = "(modern side only) "
"""Stands before the name of what has no partner."""


def is_variable(shared: str) -> bool:
    """Whether a shared state name is a variable's: no slot, no count, no counter."""
    return not shared.startswith(("optimizer/", COUNTER, UNPAIRED + COUNTER))


def by_modern(mapping: Iterable[MappedVariable]) -> dict[str, tuple[MappedVariable, ...]]:
    """A mapping as `Names` holds it: modern name -> its blocks."""
    found: dict[str, tuple[MappedVariable, ...]] = {}
    for pair in mapping:
        found[pair.modern] = (*found.get(pair.modern, ()), pair)
    return found


class _Translated(Lazy):
    """A state under shared names, one tensor at a time; counters as whole numbers."""

    def __init__(self, side: Side, own: Mapping[str, Array]) -> None:
        self._own = own
        self._side = side
        self._keys: dict[str, list[str]] = {}
        for name in own:
            for shared in side.shared_names(name) if name not in side.ignored else ():
                self._keys.setdefault(shared, []).append(name)
        super().__init__(self._keys)

    def __getitem__(self, name: str) -> Array:
        own = self._keys[name][0]
        array = self._own[own]
        if own in self._side.names.counters:
            return np.asarray(as_count(array) - self._side.names.counters[own].offset)
        if own in self._side.counted:
            return as_count(array)
        return self._side.assembled(name, {own: np.asarray(self._own[own]) for own in self._keys[name]})

    def located(self, name: str) -> Place | None:
        """Its own place, unless it has another layout or is a count."""
        own, *more = self._keys[name]
        return located(self._own, own) if not more and self._side.alike(own) else None


class _Own(Lazy):
    """A shared state under one side's own names, one tensor at a time."""

    def __init__(self, side: Side, shared: Mapping[str, Array], present: Mapping[str, Array]) -> None:
        """Takes what is shared, and the side's own present values of what the shared state has nothing for."""
        super().__init__(side.state_names)
        self._side, self._shared, self._present = side, shared, present

    def __getitem__(self, own: str) -> Array:
        names = [name for name in self._side.shared_names(own) if name in self._shared]
        if not names:
            return np.array(self._present[own])
        arrays = {name: np.asarray(self._shared[name]) for name in names}
        array = arrays[names[0]]
        if own in self._side.names.counters:
            return np.asarray(array + self._side.names.counters[own].offset)
        array = self._side.taken(own, arrays, self._present.get(own))
        if array.dtype.kind == "f":
            array = array.astype(self._side.program.precision, copy=False)
        return array

    def located(self, own: str) -> Place | None:
        """Its shared place, unless it has another layout or precision, or is a count."""
        if own in self._present or not self._side.alike(own):
            return None
        place = located(self._shared, self._side.shared(own))
        kind = np.dtype(place.dtype) if place else None
        return None if kind is None or (kind.kind == "f" and kind != self._side.program.precision) else place


class Side:
    """A Program under shared names; the legacy side's are its own."""

    def __init__(
        self,
        program: Program,
        role: str,
        names: Names | None = None,
        counters: frozenset[str] = frozenset(),
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        """Takes a program, and the own names of its floating variables that are counters and of those left out."""
        self.program = program
        self.role = role
        self.ignored = ignored
        every = [each for each in program.variables() if each.name not in ignored]
        self.counted = {each.name for each in every if each.name in counters or not is_floating(each)}
        """Own names of its counters."""
        self.own_variables = tuple(each for each in every if each.name not in self.counted)
        self.own_optimizers = {each.name: each for each in program.optimizers()}
        self.names = names or Names()
        self.rename(self.names)
        self.state_names = tuple(program.state().arrays)
        self._assigned: dict[str, str] | None = None

    def rename(self, names: Names) -> None:
        """Takes other names."""
        self.names = names
        self.loaded: dict[str, tuple[dict[str, Array], Array]] = {}
        """Own name of a variable that holds sums -> the legacy arrays it was last loaded with, and what they made."""
        self._empty = further_terms(pair for blocks in names.variables.values() for pair in blocks)
        self.phases = tuple(names.phases) or self.program.phases
        self.program.draws.aliases = {own: shared for shared, own in names.phases.items()}

    # --- Names --------------------------------------------------------------------------------------------------------
    def blocks_of(self, own: str) -> tuple[MappedVariable, ...]:
        """The blocks of a variable, or of a slot by the variable it belongs to; none where it has no partner."""
        return self.names.variables.get(variable_of(own), ())

    def alike(self, own: str) -> bool:
        """Whether a state's array is the same under the shared name, bit for bit."""
        other = own in self.names.counters or own in self.counted or own in self.names.slots
        return not other and not any(pair.changes for pair in self.blocks_of(own))

    def shared(self, own: str) -> str:
        """The shared name of one of the side's own state names; the first where it is made of several."""
        return self.shared_names(own)[0]

    def shared_names(self, own: str) -> tuple[str, ...]:
        """The shared names of what one of the side's own state names is made of."""
        if own in self.names.counters:
            return (self.names.counters[own].shared,)
        if own in self.counted:
            return (COUNTER + own if self.role == "legacy" else UNPAIRED + COUNTER + own,)
        if own in self.names.slots:
            return (self.names.slots[own].shared,)
        variable = variable_of(own)
        if not own.startswith("optimizer/"):
            return self._shared_variables(own)
        _, optimizer, slot, *_ = own.split("/", 3)
        optimizer = self.names.optimizers.get(optimizer, optimizer)
        if not variable:
            return (f"optimizer/{optimizer}/{slot}",)
        return tuple(slot_name(optimizer, slot, name) for name in self._shared_variables(variable))

    def _shared_variables(self, own: str) -> tuple[str, ...]:
        if self.role == "legacy":
            return (own,)
        return tuple(dict.fromkeys(pair.legacy for pair in self.blocks_of(own))) or (UNPAIRED + own,)

    def assembled(self, shared: str, arrays: Mapping[str, Array]) -> Array:
        """A state's array in the shared layout, from the own arrays that its blocks lie in."""
        first = next(iter(arrays))
        if first in self.names.slots:
            slot = self.names.slots[first]
            found = to_legacy([(pair, arrays[first]) for pair in slot.blocks], weights=False)
            return found if slot.factor == 1 else found * np.asarray(slot.factor, found.dtype)
        legacy, weights = variable_of(shared), is_variable(shared)
        parts = [
            (pair, self._summand(pair, array) if weights else array)
            for own, array in arrays.items()
            for pair in self.blocks_of(own)
            if pair.legacy == legacy and array.shape == pair.modern_shape
        ]
        return to_legacy(parts, weights) if parts else next(iter(arrays.values()))

    def _summand(self, pair: MappedVariable, array: Array) -> Array:
        """An own array with one summand where it holds a sum."""
        summands = [each for each in self.blocks_of(pair.modern) if each.modern_block == pair.modern_block]
        if len(summands) == 1:
            return array
        legacy, modern = self.loaded.get(pair.modern, ({}, array))
        return share(array, pair, summands, (legacy[pair.legacy], modern) if pair.legacy in legacy else None)

    def taken(self, own: str, arrays: Mapping[str, Array], present: Array | None) -> Array:
        """One of the side's own arrays, from the shared ones that its blocks are of; see `layouts.to_modern`."""
        if own in self.names.slots:
            slot = self.names.slots[own]
            found = to_modern([(pair, arrays[slot.shared]) for pair in slot.blocks], weights=False)
            return found if slot.factor == 1 else found / np.asarray(slot.factor, found.dtype)
        legacy, weights = {variable_of(name): array for name, array in arrays.items()}, is_variable(own)
        parts = [
            (pair, legacy[pair.legacy])
            for pair in self.blocks_of(own)
            if pair.legacy in legacy and legacy[pair.legacy].shape == pair.legacy_shape
        ]
        if not parts:
            return next(iter(arrays.values()))
        if weights:
            parts = [(pair, array * 0 if pair in self._empty else array) for pair, array in parts]
        found = to_modern(parts, weights, present)
        if weights and any(pair.summed for pair, _ in parts):
            self.loaded[own] = legacy, found
        return found

    def own_phase(self, phase: str) -> str:
        """The side's own name of a phase."""
        return self.names.phases.get(phase, phase)

    # --- What it is ---------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """The variables under shared names; trainable means that an optimizer holds it."""
        found: dict[str, VariableInfo] = {}
        for each in self.own_variables:
            if each.name in self.names.slots:
                continue
            blocks = self.names.variables.get(each.name, ())
            holders = tuple(self.names.optimizers.get(name, name) for name in each.optimizers)
            for name in self._shared_variables(each.name):
                shape = next((pair.legacy_shape for pair in blocks if pair.legacy == name), each.shape)
                every = tuple(dict.fromkeys((*(found[name].optimizers if name in found else ()), *holders)))
                found[name] = replace(each, name=name, shape=shape, trainable=bool(every), optimizers=every)
        return tuple(found.values())

    def optimizers(self, told: Sequence[OptimizerInfo] | None = None) -> tuple[OptimizerInfo, ...]:
        """The optimizers, as they are or as they were told, under shared names; numbers are rounded to float32."""
        return tuple(
            OptimizerInfo(
                self.names.optimizers.get(each.name, each.name),
                each.algorithm,
                {name: float(np.float32(number)) for name, number in each.hyperparameters.items()},
            )
            for each in (self.program.optimizers() if told is None else told)
        )

    # --- State --------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        """The present state under shared names, read tensor by tensor."""
        state = self.program.state()
        translated = self.role != "legacy" or self.counted or self.ignored
        return State(state.model, _Translated(self, state.arrays) if translated else state.arrays)

    def load(self, shared: Mapping[str, Array]) -> None:
        """Takes over what it has a place for; of the rest a counter is set to what it is at the present step (`at`)."""
        missing = [own for own in self.state_names if any(name not in shared for name in self.shared_names(own))]
        tracks = self.names.tracks
        present = {own: tracks[own].at(self.program.draws.step) for own in missing if own in tracks}
        if len(present) < len(missing):
            held = self.program.state().arrays
            present |= {own: held[own] for own in missing if own not in tracks}
        self.program.load(State("", _Own(self, shared, present)))

    # --- Computation --------------------------------------------------------------------------------------------------
    def feed(self, batch: Batch) -> Batch:
        """The batch under the names of the side's inputs; floats in its precision."""
        if self._assigned is None:
            self._assigned = batch_names.feeding(batch, self.program, self.role)
        return batch_names.fed(batch, self._assigned, self.program.precision)

    def at(self, step: int) -> None:
        """Draws from now on are those of this step."""
        self.program.draws.step = step

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Outputs; those that have a partner under shared names, the others under their own."""
        found = self.program.forward(self.feed(batch), training)
        return {self.names.outputs.get(name, name): value for name, value in found.items()}

    def nodes(self, batch: Batch, training: bool = False, phase: str | None = None) -> Sequence[Node]:
        """Intermediates, variables under shared names."""
        nodes = self.program.nodes(self.feed(batch), training, self.own_phase(phase) if phase else None)
        if self.role == "legacy":
            return nodes
        return [
            replace(
                node,
                variables=tuple(dict.fromkeys(name for own in node.variables for name in self._shared_variables(own))),
            )
            for node in nodes
        ]

    def loss(self, phase: str, batch: Batch) -> float:
        """The phase's objective."""
        return self.program.loss(self.own_phase(phase), self.feed(batch))

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """What the phase's optimizer goes by, in the shared layout."""
        return self._laid_back(self.program.gradients(self.own_phase(phase), self.feed(batch)))

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """The derivatives of the objective, in the shared layout; None where they are the gradients."""
        found = self.program.derivatives(self.own_phase(phase), self.feed(batch))
        return None if found is None else self._laid_back(found)

    def _laid_back(self, gradients: Mapping[str, Array | None]) -> dict[str, Array | None]:
        if self.role == "legacy":
            return dict(gradients)
        held: dict[str, dict[str, Array | None]] = {}
        for own, gradient in gradients.items():
            for name in self._shared_variables(own):
                held.setdefault(name, {})[own] = gradient
        return {name: self._gradient(name, parts) for name, parts in held.items()}

    def _gradient(self, shared: str, gradients: Mapping[str, Array | None]) -> Array | None:
        """One gradient in the shared layout; zeros where the code gives None for a part of it, None for the whole."""
        found = {own: gradient for own, gradient in gradients.items() if gradient is not None}
        parts = [(pair, array) for own, array in found.items() for pair in self.blocks_of(own) if pair.legacy == shared]
        return to_legacy(parts, weights=False) if parts else next(iter(found.values()), None)

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """Runs one phase."""
        reports = self.program.run_phase(self.own_phase(phase), self.feed(batch))
        return {name: float(value) for name, value in reports.items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """Runs the whole step; reports as "<shared phase>/<name>"."""
        back = {own: shared for shared, own in self.names.phases.items()}
        found = {}
        for name, value in self.program.step(self.feed(batch)).items():
            phase, _, report = name.rpartition("/")
            found[f"{back.get(phase, phase)}/{report}"] = float(value)
        return found

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """What one run of the phase draws when nobody feeds it."""
        return self.program.drawn(self.own_phase(phase), self.feed(batch))

    def close(self) -> None:
        """Frees the program."""
        self.program.close()


def variable_of(own: str) -> str:
    """The variable that a state name belongs to; empty for a count of steps."""
    if not own.startswith("optimizer/"):
        return own
    parts = own.split("/", 3)
    return parts[3] if len(parts) == 4 else ""
