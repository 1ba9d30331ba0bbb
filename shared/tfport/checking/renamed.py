"""A program that was built again, under the names of its first build.

Frameworks number layers as they are made, so the second build of one function in a process has other names than the
first. The order in which things are made is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tfport.checking.lazy import Lazy
from tfport.errors import UserError
from tfport.program import Batch, DrawInfo, InputInfo, Node, Program
from tfport.state import State
from tfport.subject import Array, OptimizerInfo, VariableInfo


@dataclasses.dataclass(frozen=True)
class BuiltNames:
    """What a build called its things, in order."""

    variables: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape."""
    optimizers: tuple[str, ...]

    @staticmethod
    def of(program: Program) -> BuiltNames:
        """The names of a program."""
        return BuiltNames(
            tuple((each.name, each.shape) for each in program.variables()),
            tuple(each.name for each in program.optimizers()),
        )


def under(names: BuiltNames, program: Program) -> Program:
    """The program under the names of an earlier build; itself where they are the same.

    Raises:
      UserError: this build made other things than the earlier one.
    """
    present = BuiltNames.of(program)
    if present == names:
        return program
    one, other = ([shape for _, shape in each.variables] for each in (names, present))
    if one != other or len(names.optimizers) != len(present.optimizers):
        raise UserError(
            f"the factory made {len(one)} variables at first and {len(other)} when it was called again, or others: it "
            "must build the same model at every call."
        )
    return _Renamed(program, names, present)


class _Keys(Lazy):
    """Arrays under other names."""

    def __init__(self, arrays: Mapping[str, Array], names: Mapping[str, str]) -> None:
        super().__init__(names)
        self._arrays, self._names = arrays, names

    def __getitem__(self, name: str) -> Array:
        return self._arrays[self._names[name]]


class _Renamed(Program):
    """Speaks the first build's names, and asks the present build by its own."""

    def __init__(self, program: Program, names: BuiltNames, present: BuiltNames) -> None:
        self._program = program
        self.kind, self.precision, self.phases = program.kind, program.precision, program.phases
        self.draws, self.furthest = program.draws, program.furthest
        first, now = ([name for name, _ in each.variables] for each in (names, present))
        self._variables = dict(zip(now, first, strict=True))
        self._optimizers = dict(zip(present.optimizers, names.optimizers, strict=True))

    def _shown(self, own: str) -> str:
        """A present state name as the first build has it."""
        if not own.startswith("optimizer/"):
            return self._variables.get(own, own)
        _, optimizer, slot, *rest = own.split("/", 3)
        optimizer = self._optimizers.get(optimizer, optimizer)
        return "/".join(["optimizer", optimizer, slot, *(self._variables.get(each, each) for each in rest)])

    def inputs(self) -> tuple[InputInfo, ...]:
        """The present build's."""
        return self._program.inputs()

    def may_take(self, name: str) -> bool:
        """As the program says."""
        return self._program.may_take(name)

    def variables(self) -> tuple[VariableInfo, ...]:
        """Under the first build's names."""
        return tuple(
            dataclasses.replace(
                each,
                name=self._variables[each.name],
                optimizers=tuple(self._optimizers.get(name, name) for name in each.optimizers),
            )
            for each in self._program.variables()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Under the first build's names."""
        return tuple(
            dataclasses.replace(each, name=self._optimizers.get(each.name, each.name))
            for each in self._program.optimizers()
        )

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """Under the first build's names."""
        return {
            phase: tuple(self._optimizers.get(name, name) for name in names)
            for phase, names in self._program.phase_optimizers().items()
        }

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """The present build's."""
        return self._program.random_draws()

    def notes(self) -> tuple[str, ...]:
        """The present build's."""
        return self._program.notes()

    def counted_in_python(self) -> tuple[str, ...]:
        """The present build's."""
        return self._program.counted_in_python()

    def reaches(self) -> Mapping[str, Sequence[str]] | None:
        """Under the first build's names; what is computed is named after the present build's."""
        found = self._program.reaches()
        return None if found is None else {self._variables.get(name, name): each for name, each in found.items()}

    def prepare(self, batch: Batch) -> None:
        """The present build's."""
        self._program.prepare(batch)

    def state(self) -> State:
        """Under the first build's names, as lazy as the present build's."""
        state = self._program.state()
        return State(state.model, _Keys(state.arrays, {self._shown(own): own for own in state.arrays}))

    def load(self, state: State) -> None:
        """From the first build's names."""
        own = self._program.state().arrays
        self._program.load(State(state.model, _Keys(state.arrays, {name: self._shown(name) for name in own})))

    def initialise(self, seed: int) -> None:
        """The present build's."""
        self._program.initialise(seed)

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """The present build's."""
        return self._program.forward(batch, training)

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """Variables under the first build's names."""
        return [
            dataclasses.replace(node, variables=tuple(self._variables.get(name, name) for name in node.variables))
            for node in self._program.nodes(batch, training, phase)
        ]

    def loss(self, phase: str, batch: Batch) -> float:
        """The present build's."""
        return self._program.loss(phase, batch)

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """Under the first build's names."""
        return self._under_first(self._program.gradients(phase, batch))

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """Under the first build's names."""
        found = self._program.derivatives(phase, batch)
        return None if found is None else self._under_first(found)

    def _under_first(self, gradients: Mapping[str, Array | None]) -> dict[str, Array | None]:
        return {self._variables.get(name, name): value for name, value in gradients.items()}

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """The present build's."""
        return self._program.run_phase(phase, batch)

    def step(self, batch: Batch) -> dict[str, float]:
        """The present build's."""
        return self._program.step(batch)

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """The present build's."""
        return self._program.drawn(phase, batch)

    def close(self) -> None:
        """Frees the present build."""
        self._program.close()
