"""Random numbers drawn inside while loops, branches of conds and functions of a TF1 graph, fed like all others.

Such an op runs any number of times, or not at all, so its output cannot be fed beforehand. The graph is made again with
a Python function in the op's place, which is told in which iteration it runs. Where a call needs such draws, what holds
them is run once to see which draws are made; their numbers are then recorded in the order in which a program makes them
that runs one iteration after the other, and looked up while the call runs. So neither parallel iterations nor a loop
that is run twice make a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.framework import node_def_pb2, tensor_shape_pb2, types_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops import script_ops

from tfport.adapters.graph_rewriting import rewritten
from tfport.adapters.tf1_random_ops import RECORDED, Prepared, arguments, is_fed, kind_of, prepared, type_of
from tfport.adapters.tf1_reading import Reading
from tfport.checking.draws import DrawSource
from tfport.program import Array

_ITERATION = "tfport_iteration"
_INT32 = types_pb2.DT_INT32
Place = tuple[int | None, ...]
"""Where a draw stands in the order of a program that runs one iteration after the other; None is an iteration."""


@dataclass
class InnerDraw:
    """One random op that runs any number of times."""

    name: str
    kind: str
    top: str
    """The op of the graph that it is, or that calls the function which holds it."""
    ends: tuple[str, ...]
    """The ops of the graph that must run for it: a loop's Exits, the end of a branch, else `top`."""
    place: Place
    node: Any
    """The NodeDef of the op that it was."""


@dataclass
class InnerDraws:
    """All of one graph, and the numbers that are recorded for them."""

    draws: list[InnerDraw] = field(default_factory=list)
    source: DrawSource | None = None
    """What numbers that are not recorded are functions of; None where nobody feeds the call."""
    seen: dict[tuple[int, tuple[int, ...]], Sequence[Array]] = field(default_factory=dict)
    """Draw and iterations -> the arguments, as far as nothing was recorded for them."""
    _recorded: dict[tuple[int, tuple[int, ...]], Prepared] = field(default_factory=dict)
    _functions: list[Callable[..., Any]] = field(default_factory=list)
    """What stands in the ops' places; TensorFlow keeps no hold of it."""

    def begin(self, source: DrawSource | None) -> None:
        """Starts a call, of which nothing is recorded."""
        self.source = source
        self.seen.clear()
        self._recorded.clear()

    def record(self, source: DrawSource) -> None:
        """Records numbers for what was seen to be drawn, in the order of the program."""

        def place(key: tuple[int, tuple[int, ...]]) -> tuple[int, ...]:
            iterations = iter(key[1])
            return tuple(next(iterations) if each is None else each for each in self.draws[key[0]].place)

        for key in sorted(self.seen, key=place):
            self._recorded[key] = prepared(self.draws[key[0]].node, source, self.seen[key])
        self.seen.clear()

    def add(self, draw: InnerDraw) -> str:
        """Takes a draw; returns the token by which a PyFunc calls what stands in its place."""
        number = len(self.draws)
        self.draws.append(draw)

        def drawn(*given: Any) -> list[Array]:
            count = draw.place.count(None)
            own = [np.asarray(each) for each in given[: len(given) - count]]
            key = number, tuple(int(each) for each in given[len(own) :])
            known = self._recorded.get(key)
            if known is None:
                self.seen[key] = own
                known = prepared(draw.node, self._unrecorded(key), own)
            return known(own)

        self._functions.append(drawn)
        return str(script_ops._py_funcs.insert(drawn))

    def _unrecorded(self, key: tuple[int, tuple[int, ...]]) -> DrawSource:
        if self.source is None:
            return DrawSource(int(np.random.default_rng().integers(2**31)))
        found = DrawSource(self.source.seed, self.source.step)
        found.begin(f"{self.source._phase} {key}")
        return found


def holds_inner_draws(reading: Reading) -> bool:
    """Whether a graph has draws inside loops, branches or functions that can be fed there."""
    inner, _, calls = _inner(reading, InnerDraws())
    return bool(inner or calls)


def _inner(reading: Reading, found: InnerDraws) -> tuple[list[Any], _Threading, list[Any]]:
    """The random ops inside loops and branches of TF1's kind, and the calls of functions that draw."""
    library = reading.graph.as_graph_def(add_shapes=False).library.function
    threading = _Threading({each.signature.name: each for each in library}, found)
    inner = [op for op in reading.ops if is_fed(op.type) and op in reading.looped | reading.guarded]
    return (
        inner,
        threading,
        [
            op
            for op in reading.ops
            if threading.may_call(op.type) and op not in reading.looped and threading.calls(op.node_def)
        ],
    )


def fed_inside(graph: Any) -> tuple[Any, InnerDraws]:
    """A graph whose inner draws are fed, and these; the same graph where it has none that can be.

    Raises:
      Exception: TensorFlow cannot export the graph, or cannot import what was made of it.
    """
    found, reading = InnerDraws(), Reading(graph)
    if not holds_inner_draws(reading):
        return graph, found
    inner, threading, calls = _inner(reading, found)
    frames = _Frames(reading)

    def change(definition: Any) -> None:
        nodes = {node.name: node for node in definition.node}
        added: list[Any] = []
        for op in inner:
            chain = reading.frames.get(op, ())
            place: list[int | None] = []
            for frame in chain:
                place += [reading.order[frames.first[frame]], None]
            ends = frames.exits(chain[0]) if chain else _merges(reading, op)
            draw = InnerDraw(op.name, kind_of(op.node_def), op.name, ends, (*place, reading.order[op]), op.node_def)
            counts = [frames.counter(frame, chain[-1], added) for frame in chain]
            _stand_in(nodes[op.name], found.add(draw), counts)
        for op in calls:
            threading.call(nodes[op.name], [], _Path(op.name, op.name, (reading.order[op],)))
        definition.node.extend(added)
        definition.library.function.extend(threading.added)

    return rewritten(graph, change), found


def _merges(reading: Reading, op: Any) -> tuple[str, ...]:
    """The ends of the branch that an op is in."""
    after = reading.descendants([op], lambda each: any(before.type == "Merge" for before in reading.before(each)))
    return tuple(each.name for each in reading.in_order(after) if each.type == "Merge")


def _stand_in(node: Any, token: str, counts: Sequence[str]) -> None:
    """Makes a PyFunc of a random op's node, in place; it is given the op's own arguments and the iterations."""
    definition = op_def_registry.get(node.op)
    own = [node.input[index] for index in arguments(node)]
    types = [type_of(definition.input_arg[index], node) for index in arguments(node)]
    waits = [f"^{each.removeprefix('^').partition(':')[0]}" for each in node.input if each not in own]
    outputs = [type_of(each, node) for each in definition.output_arg]
    node.op = "PyFunc"
    del node.input[:]
    node.input.extend([*own, *counts, *dict.fromkeys(waits)])
    node.attr.clear()
    node.attr["token"].s = token.encode()
    node.attr["Tin"].list.type.extend([*types, *[_INT32] * len(counts)])
    node.attr["Tout"].list.type.extend(outputs)
    node.attr[RECORDED].b = True


# --- Loops of TF1's kind ----------------------------------------------------------------------------------------------
class _Frames:
    """The loops of a graph, and counters of their iterations."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.first: dict[str, Any] = {}
        """Frame -> its first Enter."""
        for op in reading.ops:
            if op.type in ("Enter", "RefEnter"):
                self.first.setdefault(reading.frames[op][-1], op)
        self._counters: dict[str, str] = {}
        self._entered: dict[tuple[str, str], str] = {}

    def exits(self, frame: str) -> tuple[str, ...]:
        """What leaves a loop."""
        return tuple(
            op.name
            for op in self._reading.ops
            if op.type in ("Exit", "RefExit") and self._reading.frames[op.inputs[0].op][-1:] == (frame,)
        )

    def counter(self, frame: str, within: str, added: list[Any]) -> str:
        """The name of a count of a frame's iterations, as it is in a frame inside of it, or in itself.

        Args:
          frame: whose iterations.
          within: where the count is read.
          added: takes nodes that the graph needs for it.
        """
        if frame not in self._counters:
            self._counters[frame] = self._counted(frame, added)
        if frame == within:
            return self._counters[frame]
        if (frame, within) not in self._entered:
            chain = self._reading.frames[self.first[within]]
            outer = self.counter(frame, chain[chain.index(within) - 1], added)
            name = f"{_ITERATION}/entered/{len(self._entered)}"
            added.append(
                _node(name, "Enter", [outer], T=_INT32, frame_name=within, is_constant=True, **self._parallel(within))
            )
            self._entered[frame, within] = name
        return self._entered[frame, within]

    def _parallel(self, frame: str) -> dict[str, Any]:
        return {"parallel_iterations": int(self.first[frame].get_attr("parallel_iterations"))}

    def _counted(self, frame: str, added: list[Any]) -> str:
        scope = f"{_ITERATION}/{list(self.first).index(frame)}"
        conditions = [op for op in self._reading.ops if op.type == "LoopCond" and self._reading.frames[op][-1] == frame]
        outer = self._reading.frames[self.first[frame]][:-1]
        waits = [f"^{self.counter(outer[-1], outer[-1], added)}"] if outer else []
        added += [
            _node(f"{scope}/zero", "Const", waits, dtype=_INT32, value=np.int32(0)),
            _node(f"{scope}/Enter", "Enter", [f"{scope}/zero"], T=_INT32, frame_name=frame, **self._parallel(frame)),
            _node(f"{scope}/Merge", "Merge", [f"{scope}/Enter", f"{scope}/NextIteration"], T=_INT32, N=2),
            _node(f"{scope}/Switch", "Switch", [f"{scope}/Merge", conditions[0].name], T=_INT32),
            _node(f"{scope}/Identity", "Identity", [f"{scope}/Switch:1"], T=_INT32),
            _node(f"{scope}/one", "Const", [f"^{scope}/Identity"], dtype=_INT32, value=np.int32(1)),
            _node(f"{scope}/Add", "AddV2", [f"{scope}/Identity", f"{scope}/one"], T=_INT32),
            _node(f"{scope}/NextIteration", "NextIteration", [f"{scope}/Add"], T=_INT32),
        ]
        return f"{scope}/Identity"


def _node(name: str, op: str, inputs: Sequence[str], **attributes: Any) -> Any:
    node = node_def_pb2.NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        attribute = node.attr[key]
        if key in ("T", "dtype"):
            attribute.type = value
        elif key == "value":
            attribute.tensor.CopyFrom(tf.make_tensor_proto(value))
        elif isinstance(value, str):
            attribute.s = value.encode()
        elif isinstance(value, bool):
            attribute.b = value
        else:
            attribute.i = value
    return node


# --- Functions --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Path:
    """Where a call stands."""

    top: str
    name: str
    place: Place


_WHILES = ("While", "StatelessWhile")
_TYPES = {
    **dict.fromkeys(
        ("If", "StatelessIf", "Case", "StatelessCase", "PartitionedCall", "StatefulPartitionedCall"), "Tin"
    ),
    **dict.fromkeys(_WHILES, "T"),
}
"""Op that calls functions -> its attribute that lists the types of what it hands on to them."""


class _Threading:
    """Hands iterations on to the functions in which something is drawn; each call gets functions of its own."""

    def __init__(self, bodies: Mapping[str, Any], found: InnerDraws) -> None:
        self._bodies, self._found = bodies, found
        self._holding: dict[str, bool] = {}
        self.added: list[Any] = []
        """The new functions."""

    def may_call(self, op_type: str) -> bool:
        """Whether an op of this type calls functions to which iterations can be handed on."""
        return op_type in _TYPES or op_type in self._bodies

    def calls(self, node: Any) -> bool:
        """Whether a node calls a function in which something is drawn that can be fed."""
        if node.op in _WHILES and (self._holds(node.attr["cond"].func.name) or not self._counts(node)):
            return False
        return self.may_call(node.op) and any(self._holds(each.name) for each in self._called(node))

    def _holds(self, name: str) -> bool:
        if name not in self._holding:
            self._holding[name] = False  # while it is looked at: a function may call itself
            nodes = self._bodies[name].node_def if name in self._bodies else ()
            self._holding[name] = any(is_fed(node.op) or self.calls(node) for node in nodes)
        return self._holding[name]

    def _called(self, node: Any) -> list[Any]:
        """The functions of a node, which can be replaced by their `name`."""
        found = [value.func for value in node.attr.values() if value.HasField("func")]
        found += [function for value in node.attr.values() for function in value.list.func]
        return [*found, *([_Direct(node)] if node.op in self._bodies else [])]

    def _counts(self, node: Any) -> bool:
        """Whether a loop's first variable counts its iterations, as `tf.while_loop` has it."""
        body = self._bodies.get(node.attr["body"].func.name)
        if body is None or not body.signature.input_arg or body.signature.input_arg[0].type != _INT32:
            return False
        first, last = body.signature.input_arg[0].name, body.ret[body.signature.output_arg[0].name]
        nodes = {each.name: each for each in body.node_def}
        made = nodes.get(last.partition(":")[0])
        while made is not None and made.op == "Identity":
            made = nodes.get(made.input[0].partition(":")[0])
        if made is None or made.op not in ("Add", "AddV2") or first not in made.input:
            return False
        one = nodes.get(next((each for each in made.input if each != first), first).partition(":")[0])
        return one is not None and one.op == "Const" and int(tf.make_ndarray(one.attr["value"].tensor)) == 1

    def call(self, node: Any, counts: Sequence[str], path: _Path) -> None:
        """Makes a node, in place, hand iterations on to functions that are made for it."""
        loop = node.op in _WHILES
        node.op = node.op.removeprefix("Stateless")  # a Python function has a state
        for function in self._called(node):
            if loop or self._holds(function.name) or counts:
                body = loop and function.name == node.attr["body"].func.name
                function.name = self._function(function.name, len(counts), path, body)
        data = [each for each in node.input if not each.startswith("^")]
        waits = [each for each in node.input if each.startswith("^")]
        del node.input[:]
        node.input.extend([*data, *counts, *waits])
        if node.op in _TYPES:
            node.attr[_TYPES[node.op]].list.type.extend([_INT32] * len(counts))
        if loop and node.attr["output_shapes"].list.shape:
            node.attr["output_shapes"].list.shape.extend([tensor_shape_pb2.TensorShapeProto()] * len(counts))

    def _function(self, name: str, count: int, path: _Path, body: bool) -> str:
        """A function that takes `count` iterations more; of a loop, the body hands them on."""
        new = type(self._bodies[name])()
        new.CopyFrom(self._bodies[name])
        new.signature.name = f"{name}_fed_{len(self.added)}"
        self.added.append(new)
        counts = [f"{_ITERATION}_{number}" for number in range(count)]
        for each in counts:
            new.signature.input_arg.add(name=each, type=_INT32)
            if body:
                new.signature.output_arg.add(name=each, type=_INT32)
                new.ret[each] = each
        place = path.place
        if body:
            counts.append(new.signature.input_arg[0].name)
            place = (*place, None)
        for number, node in enumerate(new.node_def):
            here = _Path(path.top, f"{path.name}/{node.name}", (*place, number))
            if is_fed(node.op):
                kept = node_def_pb2.NodeDef()
                kept.CopyFrom(node)
                draw = InnerDraw(here.name, kind_of(node), path.top, (path.top,), here.place, kept)
                outputs = [each.name for each in op_def_registry.get(node.op).output_arg]
                _stand_in(node, self._found.add(draw), counts)
                _rename(new, {f"{node.name}:{each}:0": f"{node.name}:output:{at}" for at, each in enumerate(outputs)})
            elif self.calls(node):
                self.call(node, counts, here)
        return str(new.signature.name)


class _Direct:
    """A function that a node calls by its own type."""

    def __init__(self, node: Any) -> None:
        self._node = node

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self._node.op)

    @name.setter
    def name(self, name: str) -> None:
        self._node.op = name


def _rename(function: Any, names: Mapping[str, str]) -> None:
    """Calls results of a function's nodes by other names."""
    for node in function.node_def:
        changed = [names.get(each, each) for each in node.input]
        if changed != list(node.input):
            del node.input[:]
            node.input.extend(changed)
    for result, source in list(function.ret.items()):
        function.ret[result] = names.get(source, source)
