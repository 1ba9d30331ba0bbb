"""The intermediates of a TF1 graph that are worth comparing: what was computed from data, noise and variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfport.adapters import graph_loops, op_facts
from tfport.adapters.graph_rewriting import COPIES
from tfport.adapters.tf1_float64 import written
from tfport.adapters.tf1_random_ops import draws, gives_numbers
from tfport.adapters.tf1_reading import ABOUT_SHAPES, PASSING, VARIABLE_TYPES, Reading, element_name
from tfport.program import Node

_SKIPPED = (
    *("Const", "PreventGradient", "EnsureShape", "NextIteration", "LoopCond"),
    *(*PASSING, *ABOUT_SHAPES, *VARIABLE_TYPES),
)
_SOURCES = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "IteratorGetNext", *VARIABLE_TYPES)


@dataclass
class NodePlan:
    """What to fetch for the nodes of some tensors."""

    tensors: list[Any]
    """One a node that can be fetched, in the order of computation."""
    loops: list[graph_loops.TappedLoop | graph_loops.TappedWhile]
    """Loops that are entered."""
    moving: set[Any]
    """Ops that depend on inputs, variables or draws."""

    @property
    def merges(self) -> list[Any]:
        """The ends of branches among the tensors' ops."""
        return [tensor.op for tensor in self.tensors if tensor.op.type == "Merge" and tensor.value_index == 0]

    @property
    def fetches(self) -> list[Any]:
        """The tensors, and for each of `merges` which of its inputs was computed."""
        return [*self.tensors, *(op.outputs[1] for op in self.merges)]

    @property
    def beside(self) -> list[Any]:
        """What makes the loops write down what happens in them."""
        return [each for loop in self.loops for each in loop.fetches]


def _numeric(tensor: Any) -> bool:
    """Whether a tensor that varies is a node: it is a number or a bool, and no op that only hands it on made it."""
    kind = tensor.op.type
    return bool(
        (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)
        and not tensor.dtype._is_ref_dtype
        and kind not in (*_SKIPPED, *_SOURCES)
        and not Reading.is_flow(tensor)
    )


def _handed_through(tensor: Any) -> bool:
    """Whether a branch hands on what goes into it, and computes nothing."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return bool(tensor.op.type == "Switch")


class NodeReading:
    """Finds the nodes of some tensors."""

    def __init__(self, reading: Reading, inputs: Mapping[str, Any]) -> None:
        self._reading = reading
        self._names = {tensor: name for name, tensor in inputs.items()}
        self._known: dict[tuple[str, ...], NodePlan] = {}
        self._facts: dict[Any, tuple[dict[str, str], str]] = {}

    def of(self, ends: Sequence[Any]) -> NodePlan:
        """What to fetch of what `ends` are computed from, and they themselves."""
        key = tuple(tensor.name for tensor in ends)
        if key not in self._known:
            self._known[key] = self._find(ends)
        for loop in self._known[key].loops:
            loop.begin()
        return self._known[key]

    def _find(self, ends: Sequence[Any]) -> NodePlan:
        reading = self._reading
        ops = reading.ancestors(ends, self._names)
        fed = {tensor.op for tensor in self._names}
        moving = reading.descendants(
            (op for op in {*ops, *fed} if op in fed or op.type in _SOURCES or gives_numbers(op)),
            lambda op: op not in fed and ((op not in ops and op.type not in _SOURCES) or op.type in ABOUT_SHAPES),
        )
        read = {tensor for op in ops for tensor in op.inputs}
        tensors = [
            tensor
            for op in reading.in_order(ops & moving)
            for tensor in op.outputs
            if tensor in ends or (tensor in read and self._is_node(tensor) and self._can_be_fetched(tensor))
        ]
        tapped: list[graph_loops.TappedLoop | graph_loops.TappedWhile] = []
        for op in reading.in_order(each for each in ops if each.type in graph_loops.WHILES):
            live = [each.op in moving or each in self._names for each in op.inputs]
            entered = graph_loops.tapped_while(op, _numeric)
            if entered is not None:
                entered.settle(live)
                tapped.append(entered)
        for number, loop in enumerate(graph_loops.loops(ops, reading.after)):
            inside = [
                tensor
                for op in reading.in_order(loop.body & moving & ops - loop.guarded)
                for tensor in op.outputs
                if tensor in read and self._is_node(tensor) and loop.variable(tensor) is None
            ]
            prefix = f"{COPIES}_{len(self._known)}_{number}"
            drawn = any(draws(op.type) for op in loop.body)
            found = None if drawn else graph_loops.tapped(loop, inside, prefix)
            if found is not None:
                tapped.append(found)
        return NodePlan(tensors, tapped, moving)

    def nodes(self, plan: NodePlan, values: Sequence[Any]) -> list[Node]:
        """The nodes, with the values of the plan's fetches and those that were written down in loops."""
        taken = {op: op.inputs[int(index)] for op, index in zip(plan.merges, values[len(plan.tensors) :], strict=True)}
        chosen = set(plan.tensors)
        leaving: dict[Any, graph_loops.Behind] = {}

        def outside(tensor: Any) -> graph_loops.Behind:
            return self._behind([tensor], chosen, plan.moving, leaving)

        def varies(tensor: Any) -> bool:
            return tensor.op.name in computed

        computed = {op.name for op in plan.moving}
        found: list[tuple[float, int, Node]] = []
        order = self._reading.order
        for entered in plan.loops:
            if isinstance(entered, graph_loops.TappedWhile):
                live, ends = entered.live, list(entered.op.outputs)
            else:
                live, ends = None, [op.outputs[0] for op in entered.loop.exits]

            def moving(tensor: Any, live: Any = live) -> bool:
                return varies(tensor) if live is None else tensor.ref() in live

            sources = graph_loops.Sources(entered, outside, moving, element_name)
            leaving |= {end: sources.leaving(end) for end in ends}
            place = min(order[end.op] for end in ends) - 0.5
            for number, row in enumerate(entered.iterations):
                for tensor, value in zip(entered.tensors, row, strict=True):
                    name, read = sources.called(tensor, number), sources.read(tensor, number)
                    found.append((place, number, self._node(tensor, name, read, value, moving)))

        for tensor, value in zip(plan.tensors, values[: len(plan.tensors)], strict=True):
            handed = leaving.get(tensor)
            branch = taken.get(tensor.op)
            inputs = list(tensor.op.inputs) if branch is None else [branch]
            read = self._behind(inputs, chosen, plan.moving, leaving) if handed is None else handed
            node = self._node(tensor, element_name(tensor), read, value, varies)
            if handed is not None or (branch is not None and _handed_through(branch)):
                node = replace(node, kind="Identity")
            found.append((order[tensor.op], 0, node))
        return [node for _, _, node in sorted(found, key=lambda each: each[:2])]

    def _node(
        self, tensor: Any, name: str, read: graph_loops.Behind, value: Any, varies: Callable[[Any], bool]
    ) -> Node:
        op = graph_loops.written_in_body(tensor.op, written)
        if op not in self._facts:
            attributes = op_facts.attributes(op, lambda each: None if varies(each) else op_facts.constant_value(each))
            self._facts[op] = attributes, op_facts.where(op)
        return Node(name, op.type, *read, np.asarray(value), *self._facts[op])

    def _is_node(self, tensor: Any) -> bool:
        return _numeric(tensor) and tensor not in self._names

    def _can_be_fetched(self, tensor: Any) -> bool:
        reading = self._reading
        inside = tensor.op in reading.looped or tensor.op in reading.guarded
        return not inside and bool(reading.graph.is_fetchable(tensor))

    def _behind(
        self, tensors: Sequence[Any], chosen: set[Any], moving: set[Any], leaving: Mapping[Any, graph_loops.Behind]
    ) -> graph_loops.Behind:
        """The nodes and inputs, and the variables, that tensors are or are computed from.

        What is no node, such as a branch, is looked through for nodes and for the variables that it reads.
        """
        found: list[str] = []
        variables = [name for each in tensors if (name := self._reading.variable_of(each)) is not None]
        seen: set[Any] = set()
        pending = list(reversed(tensors))
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            if tensor in self._names:
                found.append(self._names[tensor])
            elif tensor in chosen:
                found.append(element_name(tensor))
            elif tensor in leaving:
                found += leaving[tensor][0]
                variables += leaving[tensor][1]
            elif tensor.op.type.startswith("Placeholder"):
                found.append(tensor.op.name)
            elif tensor.op in moving:
                pending += reversed(tensor.op.inputs)
                held = map(self._reading.variable_of, [tensor, *tensor.op.inputs])
                variables += [name for name in held if name is not None]
        return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(variables))
