"""What happens inside a while loop, iteration by iteration.

An op inside a loop can be neither fed nor fetched. So the loop is copied beside the original, into the same graph, with
one more op in its body that is given every value of the iteration and writes them down in Python. In a loop of TF1's
kind (Enter, Merge, Switch, NextIteration, Exit) that op hands on a loop variable, so that the next iteration waits for
it; a loop of TF2's kind (an op While with functions for its condition and its body) is built again around its body.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import script_ops, while_v2

from tfport.adapters.graph_rewriting import COPIES
from tfport.adapters.tf1_random_ops import is_recorded
from tfport.adapters.tf1_reading import ABOUT_SHAPES

WHILES = ("While", "StatelessWhile")
ENTERS, EXITS = ("Enter", "RefEnter"), ("Exit", "RefExit")
_CHANGING = ("Assign", "ResourceScatter", "ResourceApply", "Apply", "Scatter")
"""Beginnings of op types that change a variable: a loop that has one is not run a second time."""
After = Callable[[Any], Iterable[Any]]


@dataclass
class Loop:
    """One while loop that can be entered."""

    name: str
    enters: list[Any]
    exits: list[Any]
    body: set[Any]
    """All ops between them."""
    guarded: set[Any]
    """Ops in a branch inside of it, which may not run."""

    def carried(self, merge: Any) -> tuple[Any, Any]:
        """The Enter and the NextIteration of a loop variable."""
        first, second = (tensor.op for tensor in merge.inputs)
        return (first, second) if second.type == "NextIteration" else (second, first)

    def variable(self, tensor: Any) -> Any:
        """The Merge of the loop variable that a tensor in the body, or an Exit, is; None where it is none."""
        op = tensor.op
        if op.type in EXITS or (op.type == "Switch" and op.inputs[1].op.type == "LoopCond"):
            op = op.inputs[0].op
            return self.variable(op.outputs[0]) if op.type != "Merge" else op
        return op if op.type == "Merge" and any(each.op.type == "NextIteration" for each in op.inputs) else None


def loops(ops: set[Any], following: After) -> list[Loop]:
    """The loops among `ops` that can be entered: they hold no other loop and change no variable.

    Args:
      ops: what some tensors are computed from; gradients add more to a loop, which is not looked at.
      following: what waits for an op.
    """

    def after(op: Any) -> list[Any]:
        return [each for each in following(op) if each in ops]

    frames: dict[str, list[Any]] = {}
    for op in ops:
        if op.type in ENTERS:
            frames.setdefault(op.get_attr("frame_name").decode(), []).append(op)
    found = []
    reached = {name: _reached(enters, after, EXITS) for name, enters in frames.items()}
    for name, enters in frames.items():
        inside = reached[name] - set(enters)
        exits = [op for op in inside if op.type in EXITS]
        body = inside - set(exits)
        branches = [op for op in body if op.type == "Switch" and op.inputs[1].op.type != "LoopCond"]
        guarded = {op for op in _reached(branches, after, ("Merge",)) if op.type != "Merge"} & body
        closed = any(
            op.type in ENTERS or op.type.startswith(_CHANGING) or op.type.startswith("Ref") for op in [*body, *exits]
        )
        closed |= any(enters[0] in others for other, others in reached.items() if other != name)
        references = any(tensor.dtype._is_ref_dtype for op in enters for tensor in op.inputs)
        if not closed and not references:
            found.append(Loop(name, enters, exits, body, guarded))
    return found


def _reached(ops: Iterable[Any], after: After, stop: Sequence[str]) -> set[Any]:
    """The ops and all behind them, up to and with those of the types `stop`."""
    found: set[Any] = set()
    pending = list(ops)
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            if op.type not in stop:
                pending += after(op)
    return found


@dataclass
class TappedLoop:
    """A loop's copy that writes down what happens in it."""

    loop: Loop
    tensors: list[Any]
    """The original's tensors that are written down."""
    fetches: list[Any]
    """What makes the copy run."""
    iterations: list[list[Any]] = field(default_factory=list)
    """One list of values an iteration."""
    tap: Any = None
    """The Python function that writes; TensorFlow keeps no hold of it."""

    def begin(self) -> None:
        """Forgets the last run."""
        self.iterations.clear()

    @property
    def variables(self) -> list[Any]:
        """The loop variables, as the body gets them."""
        return [op.outputs[0] for op in self.loop.body if op.outputs and self.loop.variable(op.outputs[0]) is op]

    def origin(self, tensor: Any) -> tuple[Any, Any] | None:
        """What a loop variable is at first, outside, and what it is next, inside; None for what is no loop variable."""
        if tensor.op in self.loop.enters:
            return tensor.op.inputs[0], None
        merge = self.loop.variable(tensor)
        if merge is None:
            return None if tensor.op in self.loop.body else (tensor, None)
        first, following = self.loop.carried(merge)
        return first.inputs[0], following.inputs[0]

    def left(self, tensor: Any) -> tuple[Any, Any] | None:
        """The same of an output of the loop."""
        return self.origin(tensor)


_REFUSED = (ValueError, TypeError, KeyError, NotImplementedError, tf.errors.OpError)
"""What TensorFlow raises for a loop that cannot be built a second time: it is left closed then."""


def tapped(loop: Loop, tensors: Sequence[Any], prefix: str) -> TappedLoop | None:
    """Copies a loop into its graph, so that `tensors` of its body are written down; None where it cannot be."""
    try:
        return _tapped(loop, tensors, prefix)
    except _REFUSED:
        return None


def _tapped(loop: Loop, tensors: Sequence[Any], prefix: str) -> TappedLoop | None:
    merges = [op for op in loop.body if op.type == "Merge" and loop.variable(op.outputs[0]) is op]
    counted = [op for op in merges if op.outputs[0].dtype.is_integer or op.outputs[0].dtype.is_floating]
    counted = [op for op in counted if not _is_flow(loop.carried(op)[0].inputs[0])]
    if not counted or not tensors:
        return None
    found = TappedLoop(loop, list(tensors), [])
    chosen = counted[0]
    handed_on = loop.carried(chosen)[1].inputs[0]

    def tap(last: Any, *values: Any) -> list[Any]:
        found.iterations.append([np.array(value) for value in values[1:]])
        return [np.asarray(last)]

    found.tap = tap
    copied = _with_arrays([*loop.enters, *loop.exits, *loop.body])
    names = {op.name for op in copied}
    definition = tf.GraphDef()
    outside: dict[str, tuple[str, Any]] = {}
    definition.versions.CopyFrom(loop.enters[0].graph.as_graph_def(add_shapes=False).versions)

    def said(tensor: Any) -> str:
        if tensor.op.name in names:
            return str(tensor.name)
        if tensor.name not in outside:
            outside[tensor.name] = (f"tfport_outside_{len(outside)}", tensor)
        return outside[tensor.name][0]

    for op in copied:
        node = definition.node.add()
        node.CopyFrom(op.node_def)
        del node.input[:]
        node.attr.pop("_class", None)
        if op in loop.enters:
            node.attr["frame_name"].s = f"{prefix}/{loop.name}".encode()
        node.input.extend(said(tensor) for tensor in op.inputs)
        node.input.extend(f"^{each.name}" for each in op.control_inputs if each.name in names)
        if op is loop.carried(chosen)[1]:
            node.input[0] = "tfport_tap"
    given = [handed_on, _entering(loop, chosen), *tensors]
    node = definition.node.add(name="tfport_tap", op="PyFunc")
    node.attr["token"].s = script_ops._py_funcs.insert(tap).encode()
    node.attr["Tin"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in given)
    node.attr["Tout"].list.type.append(handed_on.dtype.as_datatype_enum)
    node.input.extend(said(tensor) for tensor in given)
    for name, tensor in outside.values():
        node = definition.node.add(name=name, op="Placeholder")
        node.attr["dtype"].type = tensor.dtype.as_datatype_enum
    wanted = [f"{op.name}:0" for op in loop.exits if op.outputs[0].dtype in _FETCHED]
    with loop.enters[0].graph.as_default():
        found.fetches = tf.import_graph_def(
            definition,
            input_map={f"{name}:0": tensor for name, tensor in outside.values()},
            return_elements=wanted,
            name=prefix,
        )
    return found if found.fetches else None


_FETCHED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64, tf.bool)


def _entering(loop: Loop, merge: Any) -> Any:
    """A loop variable as the body gets it."""
    for op in loop.body:
        if op.type == "Switch" and op.inputs[0].op is merge:
            return op.outputs[1]
    return merge.outputs[0]


def _is_flow(tensor: Any) -> bool:
    return str(tensor.op.type).startswith("TensorArray")


def _with_arrays(ops: Sequence[Any]) -> list[Any]:
    """The ops, and those outside that make or fill a TensorArray which they use: it can be written to only once."""
    found = dict.fromkeys(ops)
    pending = list(ops)
    while pending:
        op = pending.pop()
        for tensor in op.inputs:
            if tensor.op not in found and _is_flow(tensor) and tensor.dtype in (tf.resource, tf.float32):
                found[tensor.op] = None
                pending.append(tensor.op)
    return sorted(found, key=lambda op: op._id)


@dataclass
class TappedWhile:
    """A While op's copy that writes down what happens in it."""

    op: Any
    body: Any
    """The graph of its body."""
    tensors: list[Any]
    """The body's tensors that are written down."""
    live: set[Any] = field(default_factory=set)
    """References to the body's tensors that depend on what varies."""
    fetches: list[Any] = field(default_factory=list)
    _kept: list[int] = field(default_factory=list)
    rows: list[tuple[int, list[Any]]] = field(default_factory=list)
    """Number of the iteration and its values."""
    tap: Any = None

    @property
    def iterations(self) -> list[list[Any]]:
        """One list of values an iteration."""
        return [[row[index] for index in self._kept] for _, row in sorted(self.rows, key=lambda each: each[0])]

    def settle(self, live: Sequence[bool]) -> None:
        """Leaves out what depends on nothing that varies.

        Args:
          live: for each input of the op whether it depends on what varies.
        """
        self.live = _live(self.body, live)
        self._kept = [index for index, tensor in enumerate(self.tensors) if tensor.ref() in self.live]
        self.tensors = [self.tensors[index] for index in self._kept]

    def begin(self) -> None:
        """Forgets the last run."""
        self.rows.clear()

    @property
    def variables(self) -> list[Any]:
        """The loop variables, as the body gets them."""
        return list(self.body.inputs)

    def origin(self, tensor: Any) -> tuple[Any, Any] | None:
        """What a loop variable is at first, outside, and what it is next, inside; None for what is no loop variable."""
        for index, each in enumerate(self.body.inputs):
            if each is tensor:
                return self.op.inputs[index], self.body.outputs[index]
        return None

    def left(self, tensor: Any) -> tuple[Any, Any] | None:
        """The same of an output of the loop."""
        return self.op.inputs[tensor.value_index], self.body.outputs[tensor.value_index]


@contextlib.contextmanager
def copied(graph: Any, wanted: Callable[[Any], bool]) -> Iterator[list[TappedWhile]]:
    """Inside, every loop that is built in the graph of a function is copied at once: before anything else is updated.

    Args:
      graph: the function's.
      wanted: whether a tensor of a body is a node.
    """
    found: list[TappedWhile] = []
    original = while_v2.while_loop

    def while_loop(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if tf.get_default_graph() is graph:
            built = [op for op in graph.get_operations() if op.type in WHILES]
            while_v2.while_loop = original
            try:
                loop = tapped_while(built[-1], wanted) if built else None
            finally:
                while_v2.while_loop = while_loop
            found.extend([loop] if loop is not None else [])
        return result

    while_v2.while_loop = while_loop
    try:
        yield found
    finally:
        while_v2.while_loop = original


def tapped_while(op: Any, wanted: Callable[[Any], bool]) -> TappedWhile | None:
    """Copies a While op into its graph, so that its body's values are written down; None where it cannot be.

    Args:
      op: a While or StatelessWhile.
      wanted: whether a tensor of the body is a node, given that it varies.
    """
    try:
        return _tapped_while(op, wanted)
    except _REFUSED:
        return None


def _tapped_while(op: Any, wanted: Callable[[Any], bool]) -> TappedWhile | None:
    body = while_v2._get_graph(op, "body", "_body_graph")
    condition = while_v2._get_graph(op, "cond", "_cond_graph")
    kinds = [each.type for each in body.get_operations() if not is_recorded(each)]
    if any(each.startswith(_CHANGING) or each.startswith(("PyFunc", "EagerPyFunc", *_DRAWING)) for each in kinds):
        return None
    found = TappedWhile(op, body, [])
    found.tensors = [
        tensor
        for each in body.get_operations()
        for tensor in each.outputs
        if wanted(tensor) and not any(tensor is given for given in body.inputs)
    ]
    carried = [index for index, given in enumerate(op.inputs) if given.dtype != tf.resource]
    if not found.tensors or op.inputs[0].dtype != tf.int32:
        return None

    def tap(count: Any, *values: Any) -> Any:
        found.rows.append((int(count), [np.array(value) for value in values]))
        return np.asarray(count)

    found.tap = tap

    def within(graph: Any, variables: Sequence[Any], elements: Sequence[Any]) -> list[Any]:
        given = list(op.inputs)
        for index, value in zip(carried, variables, strict=True):
            given[index] = value
        here = tf.get_default_graph()
        given = [each if each.graph is here else here.capture(each) for each in given]
        names = {each.name: value for each, value in zip(graph.inputs, given, strict=True)}
        made = tf.import_graph_def(
            graph.as_graph_def(),
            input_map={name: value for name, value in names.items() if graph.get_tensor_by_name(name).consumers()},
            return_elements=[each.name for each in elements if each.name not in names],
            name="",
        )
        rest = iter(made)
        return [names[each.name] if each.name in names else next(rest) for each in elements]

    def again(*variables: Any) -> Any:
        return within(condition, variables, condition.outputs)[0]

    def once(*variables: Any) -> Any:
        made = within(body, variables, [*body.outputs, *found.tensors])
        following, values = made[: len(body.outputs)], made[len(body.outputs) :]
        count = tf.numpy_function(tap, [variables[0], *values], tf.int32)
        with tf.control_dependencies([count]):
            return [tf.identity(following[index]) for index in carried]

    with op.graph.as_default(), tf.name_scope(COPIES):
        found.fetches = tf.while_loop(
            again,
            once,
            [op.inputs[index] for index in carried],
            shape_invariants=[tf.TensorShape(None)] * len(carried),
            parallel_iterations=1,
        )[:1]
    return found


_DRAWING = ("Random", "Stateless", "Multinomial", "TruncatedNormal", "ParameterizedTruncatedNormal", "Stateful")


def _live(body: Any, given: Sequence[bool]) -> set[Any]:
    """References to the tensors of a body that depend on inputs which vary, in some iteration."""
    live = {tensor.ref() for tensor, varies in zip(body.inputs, given, strict=True) if varies}
    live |= {each.ref() for op in body.get_operations() if is_recorded(op) for each in op.outputs}
    while True:
        before = len(live)
        for op in body.get_operations():
            if op.type not in ABOUT_SHAPES and any(each.ref() in live for each in op.inputs):
                live.update(each.ref() for each in op.outputs)
        live.update(one.ref() for one, last in zip(body.inputs, body.outputs, strict=False) if last.ref() in live)
        if len(live) == before:
            return live


def written_in_body(op: Any, written: Callable[[Any], Any]) -> Any:
    """The op of the user's own graph that an op stands for, which may be in the body of a loop.

    Args:
      op: of a graph, or of a While op's body.
      written: gives the op of the user's own graph for one of a rewritten graph.
    """
    loop = getattr(op.graph, "_while", None)
    if loop is None:
        return written(op)
    body = while_v2._get_graph(written(loop), "body", "_body_graph")
    try:
        return body.get_operation_by_name(op.name)
    except KeyError:
        return op


Behind = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the nodes and inputs, and of the variables, that a tensor is or is computed from."""


class Sources:
    """What stands behind the tensors of a loop, iteration by iteration."""

    def __init__(
        self,
        tapped_loop: TappedLoop | TappedWhile,
        outside: Callable[[Any], Behind],
        moving: Callable[[Any], bool],
        name: Callable[[Any], str],
    ) -> None:
        """What is needed to say it.

        Args:
          tapped_loop: the loop, once it has run.
          outside: what is behind a tensor outside of the loop.
          moving: whether a tensor depends on anything that varies.
          name: of a tensor.
        """
        self._loop, self._outside, self._moving, self._name = tapped_loop, outside, moving, name
        self._nodes = {tensor.ref() for tensor in tapped_loop.tensors}
        self._known: dict[tuple[Any, int], Behind] = {}
        for number in range(len(tapped_loop.iterations)):  # in order, so that nothing recurs through all iterations
            for variable in tapped_loop.variables:
                self._behind(variable, number)

    def called(self, tensor: Any, number: int) -> str:
        """A node's name in an iteration."""
        name, loop = self._name(tensor), self._loop
        if isinstance(loop, TappedWhile) and not name.startswith(f"{loop.op.name}/"):
            name = f"{loop.op.name}/{name}"
        return f"{name} [iteration {number}]"

    def read(self, tensor: Any, number: int) -> Behind:
        """What a node of an iteration reads."""
        return _joined(self._behind(each, number) for each in tensor.op.inputs)

    def leaving(self, tensor: Any) -> Behind:
        """What an output of the loop hands on."""
        first, last = self._loop.left(tensor) or (None, None)
        if last is None:
            return (), ()
        count = len(self._loop.iterations)
        return self._behind(last, count - 1) if count else self._outside(first)

    def _behind(self, tensor: Any, number: int) -> Behind:
        if tensor.ref() in self._nodes:
            return (self.called(tensor, number),), ()
        key = (tensor.ref(), number)
        if key not in self._known:
            self._known[key] = (), ()
            origin = self._loop.origin(tensor)
            if origin is None:
                self._known[key] = _joined(
                    self._behind(each, number) for each in tensor.op.inputs if self._moving(each)
                )
            elif number == 0 or origin[1] is None or origin[1] is tensor:
                self._known[key] = self._outside(origin[0])
            else:
                self._known[key] = self._behind(origin[1], number - 1)
        return self._known[key]


def _joined(every: Iterable[Behind]) -> Behind:
    found = list(every)
    return (
        tuple(dict.fromkeys(name for nodes, _ in found for name in nodes)),
        tuple(dict.fromkeys(name for _, variables in found for name in variables)),
    )
