"""The Program of a TF1 graph in an explicit tf.Graph with its Session.

What a graph does not say in so many words is read off its ops; what was found by itself is in `notes()`. Random ops
are controlled by feeding their outputs, gradients are the tensors that the optimizers' ops take, and a training step
is the one session.run of each train op and its loss that TF1 code makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport.adapters import tf1_float64
from tfport.adapters.rewriting import unrewritten_config
from tfport.adapters.tf1_apply_ops import Optimizer, Update, group, updates_among
from tfport.adapters.tf1_calls import Calls
from tfport.adapters.tf1_finding import Finding, Given, Phase
from tfport.adapters.tf1_graph_state import Arrays, Counts, GraphState, Values, state_slots
from tfport.adapters.tf1_inner_draws import InnerDraws, fed_inside, holds_inner_draws
from tfport.adapters.tf1_nodes import NodeReading
from tfport.adapters.tf1_random_ops import draws
from tfport.adapters.tf1_reading import Reading
from tfport.checking.draws import DrawSource
from tfport.errors import UserError, unknown
from tfport.program import Array, Batch, DrawInfo, InputInfo, Node, Program, precision_of
from tfport.state import State, slot_name
from tfport.subject import CORRECTED, OptimizerInfo, VariableInfo


class GraphProgram(Program):
    """A Program on a finished graph; see the module's text."""

    kind = "TF1 graph"

    def __init__(
        self,
        graph: Any,
        session: Any,
        given: Given,
        *,
        again: Callable[[int], GraphProgram] | None = None,
        owns_session: bool = True,
        start: Callable[[GraphProgram], None] | None = None,
        called: dict[str, str] | None = None,
        inner: InnerDraws | None = None,
        plain: Any = None,
    ) -> None:
        """Reads the graph and starts the Session.

        Args:
          graph: the tf.Graph.
          session: its tf.compat.v1.Session.
          given: what the user named.
          again: builds the same program anew with a seed.
          owns_session: whether `close` closes the Session.
          start: gives the variables their first values; None where they have them.
          called: input name -> tensor name, for inputs that go by another name than their placeholder's.
          inner: the draws of the graph that `fed_inside` made to be fed.
          plain: the graph that it made this one of; None where it is this one.
        """
        self.graph, self.session, self._plain = graph, session, plain or graph
        self._given, self._called = given, called or {}
        self._again, self._owns_session = again, owns_session
        self.draws = DrawSource()
        self.reading = Reading(graph)
        found = Finding(self.reading, given, self._called)
        self._notes = found.notes
        self._phases: dict[str, Phase] = {each.name: each for each in found.phases}
        self.phases = tuple(self._phases)
        self._inputs, self._outputs, self._mode = found.inputs, found.outputs, found.mode
        self.values = Values(self.reading, session)
        self._fixed: dict[str, float] = {}
        self.calls = Calls(self.reading, session, self.values, found, inner or InnerDraws())
        self._nodes = NodeReading(self.reading, self._inputs)
        self._optimizers = group(self.reading, {each.name: each.updates for each in found.phases})
        if start is not None:
            start(self)
        self._initial(found.initial)
        self._counts = Counts(
            self.reading,
            self.values,
            self._optimizers,
            {each.name: each.ops for each in found.phases},
            lambda optimizer: self._betas(optimizer),
        )
        self._names = self._variable_names()
        self._state = GraphState(self.values, self._counts, self._optimizers, self._names)
        for optimizer in self._optimizers:
            self._leave_out_idle_slots(optimizer)
        self.precision = precision_of([self.values.dtype(name) for name in self._names])

    # --- What it is ---------------------------------------------------------------------------------------------------
    def _variable_names(self) -> list[str]:
        """The graph's variables without optimizers' and counts, by creation."""
        reading = self.reading
        slots = {name for update in updates_among(reading, reading.ops) for name in update.slots.values()}
        wanted = {
            *reading.collected(tf.GraphKeys.GLOBAL_VARIABLES),
            *reading.collected(tf.GraphKeys.TRAINABLE_VARIABLES),
            *reading.changed(set().union(*(each.ops for each in self._phases.values()))),
        }
        local = {*reading.collected(tf.GraphKeys.LOCAL_VARIABLES), *reading.collected(tf.GraphKeys.METRIC_VARIABLES)}
        if not reading.collected(tf.GraphKeys.GLOBAL_VARIABLES):
            wanted |= set(reading.variables) - local
        left_out = slots | self._counts.variables() | self._unused_powers()
        return [name for name in reading.variables if name in wanted and name not in left_out]

    def _unused_powers(self) -> set[str]:
        """Beta powers of optimizers that no phase applies."""
        reading = self.reading
        found = {
            reading.variable_of(tensor)
            for update in updates_among(reading, reading.ops)
            for tensor in update.powers.values()
        }
        return {name for name in found if name is not None}

    def inputs(self) -> tuple[InputInfo, ...]:
        """The placeholders that a phase or an output needs, by creation, without those that the mode sets."""
        return tuple(
            InputInfo(
                name,
                tuple(tensor.shape.as_list()) if tensor.shape.rank is not None else None,
                None if tensor.dtype == tf.string else tensor.dtype.base_dtype.name,
            )
            for name, tensor in self._inputs.items()
        )

    def may_take(self, name: str) -> bool:
        """Whether it is another placeholder of the graph."""
        return self.calls.is_placeholder(name)

    def variables(self) -> tuple[VariableInfo, ...]:
        """The graph's variables by creation, owners read off the optimizers' ops."""
        trainable = set(self.reading.collected(tf.GraphKeys.TRAINABLE_VARIABLES))
        trainable |= {update.variable for each in self._optimizers for update in each.updates}
        return tuple(
            VariableInfo(
                name,
                name,
                self.values.shape(name),
                self.values.dtype(name),
                name in trainable,
                tuple(
                    each.name for each in self._optimizers if any(update.variable == name for update in each.updates)
                ),
            )
            for name in self._names
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers' ops read them at the current state."""
        infos = []
        for each in self._optimizers:
            numbers, algorithm = self._numbers(each), each.algorithm
            if self._is_corrected(each):
                algorithm += CORRECTED
            if algorithm == "Adagrad":
                numbers.setdefault("epsilon", 0.0)
            infos.append(OptimizerInfo(each.name, algorithm, numbers))
        return tuple(infos)

    def phase_optimizers(self) -> dict[str, tuple[str, ...]]:
        """Phase -> its optimizers."""
        return {phase: tuple(each.name for each in self._optimizers if phase in each.phases) for phase in self.phases}

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """The random ops that phases and outputs need, by creation."""
        phases = {each.name: {draw.name for draw in self.calls.phase_draws(each)} for each in self._phases.values()}
        return tuple(
            DrawInfo(
                draw.name,
                draw.kind,
                not draw.reason,
                draw.reason,
                tuple(phase for phase, names in phases.items() if draw.name in names),
            )
            for draw in self.calls.draws_among(self.calls.everything())
        )

    def notes(self) -> tuple[str, ...]:
        """What was found by itself."""
        return tuple(self._notes)

    def reaches(self) -> dict[str, list[str]]:
        """By the edges of the graph along which values go; what a call of functions may write counts as written."""
        ops = self.calls.everything()
        ends = {tensor.op: f"output {name}" for named in self._outputs.values() for name, tensor in named.items()} | {
            tensor.op: f"the objective of {each.name}" for each in self._phases.values() for tensor, _ in each.objective
        }
        held = {update.variable for each in self._optimizers for update in each.updates}
        found: dict[str, list[str]] = {}
        for name in self._names:
            if name in held:
                continue
            reached: dict[str, None] = {}
            pending, seen = [self.graph.get_operation_by_name(name)], set()
            while pending:
                op = pending.pop()
                if op in seen:
                    continue
                seen.add(op)
                written = [each for each in self.reading.changed_by(op) if each != name]
                reached |= dict.fromkeys(f"the next value of {each}" for each in written)
                reached |= dict.fromkeys([ends[op]] if op in ends else [])
                values = set(op.outputs)  # also of what writes: a branch that may assign has outputs of its own
                pending += [
                    each for each in self.reading.after(op) if each in ops and any(t in values for t in each.inputs)
                ]
            found[name] = list(reached)
        return found

    def note(self, text: str) -> None:
        """Adds a note."""
        self._notes.append(text)

    # --- Hyperparameters ----------------------------------------------------------------------------------------------
    def _numbers(self, optimizer: Optimizer) -> dict[str, float]:
        """Those that can be evaluated without a batch."""
        found = {}
        for name, tensor in optimizer.updates[0].numbers.items():
            value = self._number(tensor, self._power_feed(optimizer) if name == "epsilon" else {})
            if value is not None:
                found[name] = value
        return found

    def _betas(self, optimizer: Optimizer) -> dict[str, float]:
        numbers = optimizer.updates[0].numbers
        values = {name: self._number(numbers[name], {}) for name in optimizer.power_tensors if name in numbers}
        if lacking := [name for name, value in values.items() if value is None]:
            raise UserError(
                f"{lacking[0]} of optimizer {optimizer.name!r} depends on the batch, so its count of updates cannot be "
                "read; give it as a number."
            )
        return {name: value for name, value in values.items() if value is not None}

    def _number(self, tensor: Any, feed: dict[Any, Any]) -> float | None:
        if tensor.name not in self._fixed:
            known = tf.get_static_value(tensor)
            if known is None:
                feed = {**self._mode[True], **feed}
                plan = self.calls.plan([tensor], frozenset(feed))
                if plan.missing or plan.changed:
                    return None
                return float(
                    self.session.run(tensor, {each: feed[each] for each in self.calls.used(feed, plan, [tensor])})
                )
            self._fixed[tensor.name] = float(known)
        return self._fixed[tensor.name]

    def _is_corrected(self, optimizer: Optimizer) -> bool:
        """Whether its epsilon is scaled by Adam's bias correction, which makes it PyTorch's."""
        epsilon = optimizer.updates[0].numbers.get("epsilon")
        powers = self._counts.powers[optimizer.name]
        if optimizer.algorithm != "Adam" or epsilon is None or not powers:
            return False
        return any(self.reading.variables[name].op in self.reading.ancestors([epsilon]) for name in powers.values())

    def _power_feed(self, optimizer: Optimizer) -> dict[Any, Any]:
        """An epsilon that follows the bias correction is read where there is nothing left to correct."""
        if not self._is_corrected(optimizer):
            return {}
        power = optimizer.power_tensors["beta_2"]
        return {power: np.zeros((), power.dtype.base_dtype.as_numpy_dtype)}

    def _leave_out_idle_slots(self, optimizer: Optimizer) -> None:
        kept = state_slots(optimizer.algorithm, self._numbers(optimizer))
        for update in optimizer.updates:
            for slot in update.slots:
                if kept is not None and slot not in kept:
                    self._state.leave_out(slot_name(optimizer.name, slot, update.variable))

    # --- State --------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        """The whole state; a tensor is read from the Session when it is asked for."""
        return State(self.kind, Arrays(self._state))

    def load(self, state: State) -> None:
        """Takes over a whole state, tensor by tensor."""
        self._state.shapes(self.kind).check_fits(state)
        self._state.write(state.arrays)

    def initialise(self, seed: int) -> None:
        """Builds the graph again with the seed and takes over its values; a graph from a file runs its initialisers."""
        if self._again is not None:
            fresh = self._again(seed)
            try:
                for name in self.reading.variables:
                    if name in fresh.values:
                        self.values.write(name, fresh.values.read(name))
                self._counts.own.update(fresh._counts.own)
            finally:
                fresh.close()
            return
        if lacking := self.values.without_initialiser():
            raise NotImplementedError(f"the graph has no initialiser for {lacking[0]}")
        self.values.initialise(list(self.reading.variables))
        self._counts.own.update(dict.fromkeys(self._counts.own, 0))

    def in_float64(self) -> GraphProgram:
        """The same program with its graph rewritten to float64 and the same values; itself where nothing is float32.

        Raises:
          Exception: TensorFlow cannot export the graph, or cannot import what was made of it.
        """
        if not tf1_float64.is_float32(self.graph):
            return self
        return self._on(tf1_float64.in_float64(self._plain))

    def fed_inside(self) -> GraphProgram:
        """The same program with what is drawn inside loops, branches and functions fed; itself where that is nothing.

        Raises:
          Exception: TensorFlow cannot export the graph, or cannot import what was made of it.
        """
        return self._on(self._plain) if holds_inner_draws(self.reading) else self

    def _on(self, plain: Any) -> GraphProgram:
        """The same program on another version of its graph, with the same values, and with its inner draws fed."""
        graph, inner = fed_inside(plain)

        def start(fresh: GraphProgram) -> None:
            fresh.values.copy(self.values)
            fresh.session.run(graph.get_collection(tf.GraphKeys.TABLE_INITIALIZERS))

        given = Given(**{each.name: self._found_in(graph, getattr(self._given, each.name)) for each in fields(Given)})
        session = tf.Session(graph=graph, config=unrewritten_config())
        try:
            fresh = GraphProgram(
                graph, session, given, again=self._again, start=start, called=self._called, inner=inner, plain=plain
            )
            fresh.values.copy(self.values)  # once more: what `initial` runs may draw
        except BaseException:
            session.close()
            raise
        fresh._counts.own.update(self._counts.own)
        return fresh

    def _found_in(self, graph: Any, thing: Any) -> Any:
        """What the user named, as it is in the rewritten graph."""
        if isinstance(thing, Mapping):
            return {self._found_in(graph, key): self._found_in(graph, value) for key, value in thing.items()}
        if isinstance(thing, list | tuple):
            return [self._found_in(graph, each) for each in thing]
        if isinstance(thing, tf.Operation):
            return graph.get_operation_by_name(thing.name)
        if isinstance(thing, tf.Tensor | tf.Variable):
            return tf1_float64.counterpart(graph, self.reading.tensor(thing, "what was named"))
        return thing

    def _initial(self, initial: Any) -> None:
        """Runs or assigns what the build function gave as "initial"."""
        if initial is None:
            return
        if isinstance(initial, dict):
            for name, value in initial.items():
                name = str(getattr(getattr(name, "op", None), "name", name)).removesuffix(":0")
                if name not in self.values:
                    raise unknown("variable in initial", name, self.reading.variables)
                self.values.write(name, value)
            return
        for thing in initial if isinstance(initial, (list, tuple)) else [initial]:
            self.session.run(self.reading.fetch(thing, "initial"))

    def _phase(self, name: str) -> Phase:
        if name not in self._phases:
            raise unknown("phase", name, self._phases)
        return self._phases[name]

    # --- Computation --------------------------------------------------------------------------------------------------
    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """The outputs by name."""
        outputs = self._outputs[training]
        if not any(self._outputs.values()):
            raise UserError("the graph's outputs are not known; name them with outputs=[...].")
        values = self.calls.run(list(outputs.values()), batch, training, self.draws)
        return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> list[Node]:
        """Every intermediate that can be fetched, in one session.run."""
        if phase is None:
            ends = list(self._outputs[training].values())
        else:
            ends, training = [tensor for tensor, _ in self._phase(phase).objective], True
            if not ends:
                raise NotImplementedError(f"phase {phase!r} has no loss")
        plan = self._nodes.of(ends)
        values = self.calls.run(plan.fetches, batch, training, self.draws, phase=phase or "forward", beside=plan.beside)
        return self._nodes.nodes(plan, values)

    def loss(self, phase: str, batch: Batch) -> float:
        """What the phase's gradients are taken of, which need not be the loss that it reports."""
        objective = self._phase(phase).objective
        if not objective:
            raise NotImplementedError(f"phase {phase!r} has no loss")
        fetches = [each for pair in objective for each in pair if each is not None]
        values = iter(self.calls.run(fetches, batch, True, self.draws, phase=phase))
        found = [next(values) if weights is None else next(values) * next(values) for _, weights in objective]
        return float(found[0]) if found[0].ndim == 0 else float(np.sum(found[0], dtype=np.float64))

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """The tensors that the phase's optimizers take; rows of a sparse one are added up."""
        return self._read_gradients(phase, batch, [each.gradient for each in self._updates(phase)])

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """What tf.gradients gave, as far as it is plain which tensor of its becomes an update's."""
        updates = self._updates(phase)
        found = [self.reading.derivative(each.gradient, each.indices is not None) for each in updates]
        if all(tensor is each.gradient for tensor, each in zip(found, updates, strict=True)):
            return None
        return self._read_gradients(phase, batch, found)

    def _updates(self, phase: str) -> list[Update]:
        updates = self._phase(phase).updates
        if not updates:
            raise NotImplementedError(f"phase {phase!r} has no optimizer's op to read gradients off")
        return updates

    def _read_gradients(self, phase: str, batch: Batch, tensors: list[Any]) -> dict[str, Array | None]:
        """The values of one tensor an update, None where there is none to read."""
        pairs = [pair for pair in zip(self._updates(phase), tensors, strict=True) if pair[1] is not None]
        if not pairs:
            return {}
        fetches = [tensor for each, own in pairs for tensor in (own, each.indices) if tensor is not None]
        values = iter(self.calls.run(fetches, batch, True, self.draws, phase=phase))
        gradients: dict[str, Array | None] = {}
        for each, _ in pairs:
            value = np.asarray(next(values))
            if each.indices is not None:
                rows = np.asarray(next(values))
                dense = np.zeros(self.values.shape(each.variable), value.dtype)
                np.add.at(dense, rows, value.reshape((len(rows), *dense.shape[1:])))
                value = dense
            gradients[each.variable] = value
        return gradients

    # --- Training -----------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One session.run of the train op and the loss."""
        own = self._phase(phase)
        fetches = own.fetches if own.loss is None else [own.loss, *own.fetches]
        values = self.calls.run(fetches, batch, True, self.draws, phase=phase, keep=False)
        self._counts.ran(phase)
        return {} if own.loss is None else {"loss": float(values[0])}

    def drawn(self, phase: str, batch: Batch) -> dict[str, str]:
        """Digests of what the phase's random ops give when nobody feeds them."""
        own = self._phase(phase)
        found = [
            draw.op
            for draw in self.calls.phase_draws(own)
            if draws(draw.op.type) and draw.op not in self.reading.looped | self.reading.guarded
        ]
        fetches = [*(op.outputs[0] for op in found), *own.fetches]
        values = self.calls.run(fetches, batch, True, None, phase=phase)
        return {
            op.name: hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
            for op, value in zip(found, values, strict=False)
        }

    def close(self) -> None:
        """Closes the Session, unless it is the user's own."""
        if self._owns_session:
            self.session.close()
