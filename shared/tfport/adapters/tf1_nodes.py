"""The intermediates of a TF1 graph that are worth comparing: what was computed from data, noise and variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfport.adapters import op_facts
from tfport.adapters.tf1_float64 import written
from tfport.adapters.tf1_graph_draws import draws
from tfport.adapters.tf1_reading import ABOUT_SHAPES, PASSING, VARIABLE_TYPES, Reading, element_name

_SKIPPED = ("Const", "PreventGradient", "EnsureShape", *PASSING, *ABOUT_SHAPES, *VARIABLE_TYPES)
_SOURCES = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "IteratorGetNext", *VARIABLE_TYPES)


@dataclass(frozen=True)
class GraphNode:
    """One tensor to fetch, with the nodes that it was computed from."""

    name: str
    tensor: Any
    inputs: tuple[str, ...]
    variables: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


class NodeReading:
    """Finds the nodes of some tensors."""

    def __init__(self, reading: Reading, inputs: Mapping[str, Any]) -> None:
        self._reading = reading
        self._names = {tensor: name for name, tensor in inputs.items()}
        self._known: dict[tuple[str, ...], list[GraphNode]] = {}

    def of(self, ends: Sequence[Any]) -> list[GraphNode]:
        """What `ends` are computed from, and they themselves, in the order of computation."""
        key = tuple(tensor.name for tensor in ends)
        if key not in self._known:
            self._known[key] = self._find(ends)
        return self._known[key]

    def _find(self, ends: Sequence[Any]) -> list[GraphNode]:
        reading = self._reading
        ops = reading.ancestors(ends, self._names)
        fed = {tensor.op for tensor in self._names}
        moving = reading.descendants(
            (op for op in {*ops, *fed} if op in fed or op.type in _SOURCES or draws(op.type)),
            lambda op: op not in fed and ((op not in ops and op.type not in _SOURCES) or op.type in ABOUT_SHAPES),
        )
        read = {tensor for op in ops for tensor in op.inputs}
        found = []
        for op in reading.in_order(ops & moving):
            for tensor in op.outputs:
                if tensor in ends or (tensor in read and self._is_node(tensor)):
                    found.append(tensor)
        chosen = set(found)
        computed = {op.name for op in moving}
        return [
            GraphNode(
                element_name(tensor),
                tensor,
                tuple(dict.fromkeys(self._inputs_of(tensor.op, chosen, moving))),
                tuple(
                    dict.fromkeys(name for each in tensor.op.inputs if (name := reading.variable_of(each)) is not None)
                ),
                op_facts.attributes(
                    written(tensor.op), lambda each: None if each.op.name in computed else op_facts.constant_value(each)
                ),
                op_facts.where(written(tensor.op)),
            )
            for tensor in found
        ]

    def _is_node(self, tensor: Any) -> bool:
        op = tensor.op
        return bool(
            (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)
            and not tensor.dtype._is_ref_dtype
            and op.type not in _SKIPPED
            and op.type not in _SOURCES
            and tensor not in self._names
            and op not in self._reading.looped
            and op not in self._reading.guarded
            and not self._reading.is_flow(tensor)
            and self._reading.graph.is_fetchable(tensor)
        )

    def _inputs_of(self, op: Any, chosen: set[Any], moving: set[Any]) -> list[str]:
        """The nodes and inputs that an op reads, those behind what is no node included, in the order of its inputs."""
        found: list[str] = []
        seen: set[Any] = set()
        pending = list(reversed(op.inputs))
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            if tensor in self._names:
                found.append(self._names[tensor])
            elif tensor in chosen:
                found.append(element_name(tensor))
            elif tensor.op.type.startswith("Placeholder"):
                found.append(tensor.op.name)
            elif tensor.op in moving:
                pending += reversed(tensor.op.inputs)
        return found
