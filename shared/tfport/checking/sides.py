"""One side of a check under the names that both sides share: the legacy side's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfport.checking import batches as batch_names
from tfport.checking.counters import Counted, Track, as_count, is_floating
from tfport.checking.lazy import Lazy, located
from tfport.checking.report import MappedVariable
from tfport.checking.store import Place
from tfport.program import Batch, Node, Program
from tfport.state import State, slot_name
from tfport.subject import OptimizerInfo, VariableInfo

Array = np.ndarray[Any, Any]


def laid_out(array: Array, pair: MappedVariable) -> Array:
    """A legacy array in the modern side's layout."""
    if pair.transpose:
        array = array.transpose(pair.transpose)
    return array.reshape(pair.modern_shape) if pair.reshape else array


def laid_back(array: Array, pair: MappedVariable) -> Array:
    """A modern array in the legacy side's layout."""
    if pair.reshape:
        array = array.reshape([pair.legacy_shape[axis] for axis in pair.transpose] or pair.legacy_shape)
    return array.transpose(np.argsort(pair.transpose)) if pair.transpose else array


@dataclass(frozen=True)
class Names:
    """How one side's own names become the shared ones."""

    variables: Mapping[str, MappedVariable] = field(default_factory=dict)
    """Own name -> its pair; a variable without a pair keeps its own name behind `unpaired`."""
    optimizers: Mapping[str, str] = field(default_factory=dict)
    """Own name -> shared name."""
    phases: Mapping[str, str] = field(default_factory=dict)
    """Shared name -> own name, in the shared order."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Own name -> shared name."""
    counters: Mapping[str, Counted] = field(default_factory=dict)
    """Own name of a counter, or of an optimizer's count -> its partner; for those that do not follow from `optimizers`.
    """
    tracks: Mapping[str, Track] = field(default_factory=dict)
    """Own name of a counter without a partner -> its values, by which a state of some step is completed."""


COUNTER = "counter/"
"""Stands before the shared name of a counter that is no optimizer's count."""
UNPAIRED = "(modern side only) "
"""Stands before the name of what has no partner."""


def is_variable(shared: str) -> bool:
    """Whether a shared state name is a variable's: no slot, no count, no counter."""
    return not shared.startswith(("optimizer/", COUNTER, UNPAIRED + COUNTER))


class _Translated(Lazy):
    """A state under shared names, one tensor at a time; counters as whole numbers."""

    def __init__(self, side: Side, own: Mapping[str, Array]) -> None:
        self._own = own
        self._side = side
        self._keys = {side.shared(name): name for name in own if name not in side.ignored}
        super().__init__(self._keys)

    def __getitem__(self, name: str) -> Array:
        own = self._keys[name]
        array = self._own[own]
        if own in self._side.names.counters:
            return np.asarray(as_count(array) - self._side.names.counters[own].offset)
        if own in self._side.counted:
            return as_count(array)
        pair = self._side.pair_of(own)
        return array if pair is None or array.shape != pair.modern_shape else laid_back(array, pair)

    def located(self, name: str) -> Place | None:
        """Its own place, unless it has another layout or is a count."""
        own = self._keys[name]
        return located(self._own, own) if self._side.alike(own) else None


class _Own(Lazy):
    """A shared state under one side's own names, one tensor at a time."""

    def __init__(self, side: Side, shared: Mapping[str, Array], present: Mapping[str, Array]) -> None:
        """Takes what is shared, and the side's own present values of what the shared state has nothing for."""
        super().__init__(side.state_names)
        self._side, self._shared, self._present = side, shared, present

    def __getitem__(self, own: str) -> Array:
        if own in self._present:
            return np.array(self._present[own])
        array = np.asarray(self._shared[self._side.shared(own)])
        if own in self._side.names.counters:
            return np.asarray(array + self._side.names.counters[own].offset)
        pair = self._side.pair_of(own)
        if pair is not None and array.shape == pair.legacy_shape:
            array = laid_out(array, pair)
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
        self.phases = tuple(names.phases) or self.program.phases
        self.program.draws.aliases = {own: shared for shared, own in names.phases.items()}

    # --- Names --------------------------------------------------------------------------------------------------------
    def pair_of(self, own: str) -> MappedVariable | None:
        """The pair that a variable, or a slot by the variable it belongs to, has."""
        variable = _variable_of(own)
        return self.names.variables.get(variable) if variable else None

    def alike(self, own: str) -> bool:
        """Whether a state's array is the same under the shared name, bit for bit."""
        pair = self.pair_of(own)
        counts = own in self.names.counters or own in self.counted
        return not counts and (pair is None or not (pair.transpose or pair.reshape))

    def shared(self, own: str) -> str:
        """The shared name of one of the side's own state names."""
        if own in self.names.counters:
            return self.names.counters[own].shared
        if own in self.counted:
            return COUNTER + own if self.role == "legacy" else UNPAIRED + COUNTER + own
        variable = _variable_of(own)
        if not own.startswith("optimizer/"):
            return self._shared_variable(own)
        _, optimizer, slot, *_ = own.split("/", 3)
        optimizer = self.names.optimizers.get(optimizer, optimizer)
        if not variable:
            return f"optimizer/{optimizer}/{slot}"
        return slot_name(optimizer, slot, self._shared_variable(variable))

    def _shared_variable(self, own: str) -> str:
        if self.role == "legacy":
            return own
        pair = self.names.variables.get(own)
        return pair.legacy if pair else UNPAIRED + own

    def own_phase(self, phase: str) -> str:
        """The side's own name of a phase."""
        return self.names.phases.get(phase, phase)

    # --- What it is ---------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """The variables under shared names; trainable means that an optimizer holds it."""
        found = []
        for each in self.own_variables:
            pair = self.names.variables.get(each.name)
            holders = tuple(self.names.optimizers.get(name, name) for name in each.optimizers)
            found.append(
                replace(
                    each,
                    name=self._shared_variable(each.name),
                    shape=pair.legacy_shape if pair else each.shape,
                    trainable=bool(holders),
                    optimizers=holders,
                )
            )
        return tuple(found)

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
        missing = [own for own in self.state_names if self.shared(own) not in shared]
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
        return [replace(node, variables=tuple(map(self._shared_variable, node.variables))) for node in nodes]

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
        found: dict[str, Array | None] = {}
        for own, gradient in gradients.items():
            pair = self.names.variables.get(own)
            back = gradient is not None and pair is not None and self.role != "legacy"
            found[self._shared_variable(own)] = laid_back(gradient, pair) if back else gradient  # type: ignore[arg-type]
        return found

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


def _variable_of(own: str) -> str:
    """The variable that a state name belongs to; empty for a count of steps."""
    if not own.startswith("optimizer/"):
        return own
    parts = own.split("/", 3)
    return parts[3] if len(parts) == 4 else ""
