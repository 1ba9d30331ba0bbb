"""The state of a TF1 graph: its variables read and written through the ops that it has, and its counts of steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport import adam
from tfport.adapters.tf1_apply_ops import Optimizer, root
from tfport.adapters.tf1_reading import GraphVariable, Reading
from tfport.checking.slots import SLOTS
from tfport.program import Array
from tfport.state import State, iterations_name, slot_name

_ADDS = ("AssignAdd", "AssignAddVariableOp")
_ASSIGNS = ("Assign", "AssignVariableOp")


class Values:
    """A graph's variables in a Session, by name.

    A variable is written by running its initialiser with its value fed, so writing adds no op. Ops are added, once,
    for variables that have no initialiser or that nothing reads.
    """

    def __init__(self, reading: Reading, session: Any) -> None:
        self._reading = reading
        self._session = session
        self._variables = reading.variables
        self._reads: dict[str, Any] = {}
        self._writes: dict[str, tuple[Any, Any]] = {}
        with reading.graph.as_default(), tf.control_dependencies(None):
            for name, variable in self._variables.items():
                self._reads[name] = variable.read if variable.read is not None else _added_read(variable)
                self._writes[name] = self._writing(variable)

    def _writing(self, variable: GraphVariable) -> tuple[Any, Any]:
        assign = variable.assign
        feedable = assign is not None and self._reading.graph.is_feedable(assign.inputs[1])
        if not feedable or assign in self._reading.guarded | self._reading.looped:
            return _added_write(variable)
        return assign, assign.inputs[1]

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def shape(self, name: str) -> tuple[int, ...]:
        """The variable's shape; read off its value where the graph leaves it open."""
        shape = self._variables[name].shape
        return shape if shape is not None else self.read(name).shape

    def dtype(self, name: str) -> str:
        """The variable's dtype, numpy's name."""
        return self._variables[name].dtype

    def read(self, name: str) -> Array:
        """A copy of one variable's value."""
        return np.array(self._session.run(self._reads[name]))

    def read_all(self, names: Sequence[str]) -> dict[str, Array]:
        """Copies of several."""
        values = self._session.run([self._reads[name] for name in names])
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}

    def write(self, name: str, value: Any) -> None:
        """Assigns one variable; the value is cast to its dtype."""
        assign, fed = self._writes[name]
        self._session.run(assign, feed_dict={fed: np.asarray(value, fed.dtype.base_dtype.as_numpy_dtype)})

    def copy(self, other: Values) -> None:
        """Assigns every variable the value that another graph's variable of that name has."""
        for name in self._variables:
            with contextlib.suppress(tf.errors.FailedPreconditionError):  # what was never initialised stays so
                self.write(name, other.read(name))

    def initialise(self, names: Sequence[str]) -> None:
        """Runs the initialisers of these variables, all at once as TF1 does."""
        self._session.run([self._variables[name].assign for name in names])

    def without_initialiser(self) -> list[str]:
        """Variables that the graph gives no initial value."""
        return [name for name, variable in self._variables.items() if variable.assign is None]


def _added_read(variable: GraphVariable) -> Any:
    return tf.raw_ops.ReadVariableOp(
        resource=variable.op.outputs[0], dtype=tf.as_dtype(variable.dtype), name=f"tfport/{variable.name}/read"
    )


def _added_write(variable: GraphVariable) -> tuple[Any, Any]:
    value = tf.placeholder(tf.as_dtype(variable.dtype), variable.shape, name=f"tfport/{variable.name}/value")
    if variable.op.type == "VarHandleOp":
        assign = tf.raw_ops.AssignVariableOp(resource=variable.op.outputs[0], value=value)
        return assign, value
    return tf.raw_ops.Assign(ref=variable.op.outputs[0], value=value).op, value


class Counts:
    """How often each optimizer has updated.

    Adam's count is its beta power. Others have the integer variable that their train op increments, mostly the global
    step. Where there is none, or several train ops share it, the count is kept here.
    """

    def __init__(
        self,
        reading: Reading,
        values: Values,
        optimizers: Sequence[Optimizer],
        phase_ops: Mapping[str, set[Any]],
        numbers: Callable[[Optimizer], Mapping[str, float]],
    ) -> None:
        self._values = values
        self._optimizers = optimizers
        self._numbers = numbers
        self.own: dict[str, int] = {}
        """Optimizer -> count, for those that the graph keeps none for."""
        self.powers: dict[str, dict[str, str]] = {}
        """Optimizer -> beta -> the variable with its power."""
        for each in optimizers:
            found = {beta: reading.variable_of(root(tensor)) for beta, tensor in each.power_tensors.items()}
            self.powers[each.name] = {beta: name for beta, name in found.items() if name is not None}
        counted: dict[str, list[str]] = {}
        for phase, ops in phase_ops.items():
            for name in _incremented(reading, values, ops):
                counted.setdefault(name, []).append(phase)
        self._ahead: dict[str, int] = {}
        """Counter -> how far it is ahead of its optimizer's beta power, as found when it is first written."""
        self._counter: dict[str, str] = {}
        for each in optimizers:
            sole = [name for name, phases in counted.items() if phases == each.phases and len(phases) == 1]
            sole = [name for name in sole if name not in self._counter.values()]
            if sole:
                self._counter[each.name] = sole[0]
            elif not self.powers[each.name]:
                self.own[each.name] = 0

    def variables(self) -> set[str]:
        """The graph's variables that are an optimizer's count: counters and beta powers."""
        return {*self._counter.values(), *(name for powers in self.powers.values() for name in powers.values())}

    def ran(self, phase: str) -> None:
        """Notes that a phase has run."""
        for each in self._optimizers:
            if each.name in self.own and phase in each.phases:
                self.own[each.name] += 1

    def read(self, optimizer: Optimizer) -> int:
        """How often it has updated.

        Raises:
          CheckpointError: its beta power is not a power of its beta.
        """
        name = optimizer.name
        counter = self._counter.get(name)
        powers = self.powers[name]
        if not powers:
            return int(self._values.read(counter)) if counter is not None else self.own[name]
        beta = "beta_2" if "beta_2" in powers else "beta_1"
        value = self._numbers(optimizer)[beta]
        power = self._values.read(powers[beta])
        count = adam.iterations(value, power)
        if counter is not None:  # tells more where the power has underflowed
            counted = int(self._values.read(counter))
            if counted > count and adam.beta_power(value, counted, power.dtype.name) == power:
                return counted
        return count

    def write(self, counts: Mapping[str, int]) -> None:
        """Sets every optimizer's count, by name, with all the variables that follow from them."""
        for each in self._optimizers:
            if each.name in self._counter:
                counter = self._counter[each.name]
                if counter not in self._ahead:
                    self._ahead[counter] = int(self._values.read(counter)) - self.read(each)
                self._values.write(counter, counts[each.name] + self._ahead[counter])
            numbers = self._numbers(each)
            for beta, power in self.powers[each.name].items():
                dtype = self._values.dtype(power)
                self._values.write(power, adam.beta_power(numbers[beta], counts[each.name], dtype))
            if each.name in self.own:
                self.own[each.name] = counts[each.name]


def _incremented(reading: Reading, values: Values, ops: set[Any]) -> list[str]:
    """Integer variables that one of `ops` adds 1 to."""
    found = []
    for op in reading.in_order(each for each in ops if each.type in (*_ADDS, *_ASSIGNS)):
        name = reading.variable_of(op.inputs[0])
        if name is None or np.dtype(values.dtype(name)).kind != "i" or values.shape(name) != ():
            continue
        added = [op.inputs[1]]
        if op.type in _ASSIGNS:
            if op.inputs[1].op.type not in ("Add", "AddV2"):
                continue
            terms = list(op.inputs[1].op.inputs)
            added = [each for each in terms if reading.variable_of(each) != name]
            if len(added) != 1:
                continue
        if tf.get_static_value(added[0]) == 1:
            found.append(name)
    return list(dict.fromkeys(found))


class GraphState:
    """State by canonical name, over Values and Counts."""

    def __init__(
        self, values: Values, counts: Counts, optimizers: Sequence[Optimizer], variables: Sequence[str]
    ) -> None:
        self._values = values
        self._counts = counts
        self._optimizers = {iterations_name(each.name): each for each in optimizers}
        self.held: dict[str, str] = {name: name for name in variables}
        """Canonical name -> the graph's variable."""
        for optimizer in optimizers:
            for update in optimizer.updates:
                for slot, held in update.slots.items():
                    self.held[slot_name(optimizer.name, slot, update.variable)] = held

    def leave_out(self, name: str) -> None:
        """Leaves a variable out of the state, by canonical name."""
        self.held.pop(name, None)

    def names(self) -> list[str]:
        """Canonical names, in order."""
        return [*self.held, *self._optimizers]

    def read(self, name: str) -> Array:
        """One tensor of the state."""
        if name in self._optimizers:
            return np.array(self._counts.read(self._optimizers[name]), np.int64)
        return self._values.read(self.held[name])

    def shapes(self, model: str) -> State:
        """The state's names and shapes, its values zeros that take no memory."""
        zero = np.zeros((), np.int8)
        shapes = {name: self._values.shape(held) for name, held in self.held.items()}
        return State(model, {name: np.broadcast_to(zero, shapes.get(name, ())) for name in self.names()})

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Takes over a whole state whose names and shapes fit."""
        for name, held in self.held.items():
            self._values.write(held, arrays[name])
        counts = {each.name: int(arrays[name]) for name, each in self._optimizers.items()}
        if counts:
            self._counts.write(counts)


class Arrays(Mapping[str, Array]):
    """A state's arrays, each read from the Session when it is asked for: valid until the next change."""

    def __init__(self, state: GraphState) -> None:
        self._state = state
        self._names = dict.fromkeys(state.names())

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        return self._state.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def state_slots(algorithm: str, numbers: Mapping[str, float]) -> tuple[str, ...] | None:
    """The slots of an algorithm that belong in a state; None where all do."""
    slots = SLOTS.get(algorithm)
    if slots is not None and numbers.get("momentum") == 0 and "rms" in slots:
        return tuple(slot for slot in slots if slot != "momentum")
    return slots
