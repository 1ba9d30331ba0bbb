"""A TF1 graph's random numbers: found by the types of its ops, and replaced by feeding the ops' outputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport.adapters.tf1_inner_draws import InnerDraws
from tfport.adapters.tf1_random_ops import arguments, draws, is_fed, kind_of, prepared
from tfport.adapters.tf1_reading import Reading
from tfport.checking.draws import DrawSource
from tfport.program import Array

Evaluate = Callable[[Sequence[Any], dict[Any, Array]], list[Array]]
"""Values of tensors with the call's own feeds and those given, the state left as it is."""


@dataclass(frozen=True)
class Draw:
    """One random op, or one inside a function that an op calls."""

    name: str
    kind: str
    op: Any
    """The op; for a draw inside a function, the op that calls it."""
    reason: str
    """Why it is not controlled; empty where it is."""
    ends: tuple[str, ...] = ()
    """The ops that must run for the draw to be made, any number of times; none where the op's own output is fed."""


class GraphDraws:
    """The draws of one graph."""

    def __init__(self, reading: Reading, inner: InnerDraws) -> None:
        self._reading, self._inner = reading, inner
        self._inner_draws: dict[str, list[Draw]] = {}
        for each in inner.draws:
            op = reading.graph.get_operation_by_name(each.top)
            self._inner_draws.setdefault(op.name, []).append(Draw(each.name, each.kind, op, "", each.ends))
        self._shapes: dict[Hashable, Array] = {}
        self._bodies = {
            function.signature.name: function
            for function in reading.graph.as_graph_def(add_shapes=False).library.function
        }
        self._found: dict[Any, list[Draw]] = {}

    def among(self, ops: Iterable[Any]) -> list[Draw]:
        """The draws among `ops`, by creation."""
        return [draw for op in self._reading.in_order(ops) for draw in self._of(op)]

    def _of(self, op: Any) -> list[Draw]:
        if op not in self._found:
            own = [Draw(op.name, kind_of(op.node_def), op, self._why_not(op))] if draws(op.type) else []
            own += self._inner_draws.get(op.name, [])
            self._found[op] = own + [
                Draw(f"{op.name}/{name}", kind, op, f"drawn inside the function that {op.name} ({op.type}) calls")
                for name, kind in self._inside(op)
            ]
        return self._found[op]

    def _inside(self, op: Any) -> list[tuple[str, str]]:
        if not self._bodies:
            return []
        found: list[tuple[str, str]] = []
        pending, seen = _functions(op.node_def), set()
        while pending:
            name = pending.pop(0)
            if name in seen or name not in self._bodies:
                continue
            seen.add(name)
            for node in self._bodies[name].node_def:
                if draws(node.op):
                    found.append((f"{name}/{node.name}", kind_of(node)))
                pending += _functions(node)
        return found

    def _why_not(self, op: Any) -> str:
        if op in self._reading.looped:
            return f"drawn inside a while loop, and there are no recorded numbers for {op.type}"
        return "" if is_fed(op.type) else f"there are no recorded numbers for {op.type}"

    def feeds(
        self, found: Sequence[Draw], ops: set[Any], source: DrawSource, evaluate: Evaluate, shapes_of: Hashable
    ) -> dict[Any, Array]:
        """What to feed in place of the controlled draws in `found`, drawn from `source` in their order.

        Numbers for inner draws are recorded on the way.

        Args:
          found: what `among` gave.
          ops: those among which they are.
          source: the numbers; its call has been begun.
          evaluate: runs the graph.
          shapes_of: what the shapes of draws depend on: they are asked for once for each.
        """
        controlled = [draw for draw in found if not draw.reason]
        self._learn_shapes([draw for draw in controlled if not draw.ends], evaluate, shapes_of)
        feeds: dict[Any, Array] = {}
        ran: set[tuple[str, ...]] = set()
        for draw in controlled:
            if not draw.ends:
                feeds.update(self._feed(draw, source, evaluate, feeds, shapes_of))
            elif draw.ends not in ran:
                ran.add(draw.ends)
                self._inner.seen.clear()
                ends = [self._reading.graph.get_operation_by_name(name) for name in draw.ends]
                evaluate([op for op in ends if op in ops], feeds)
                self._inner.record(source)
        return feeds

    def _learn_shapes(self, found: Sequence[Draw], evaluate: Evaluate, shapes_of: Hashable) -> None:
        asked = [each for each in found if _takes_shape(each) and (each.name, shapes_of) not in self._shapes]
        if asked:
            values = _values([each.op.inputs[arguments(each.op.node_def)[0]] for each in asked], evaluate, {})
            for draw, value in zip(asked, values, strict=True):
                self._shapes[draw.name, shapes_of] = value

    def _feed(
        self, draw: Draw, source: DrawSource, evaluate: Evaluate, feeds: dict[Any, Array], shapes_of: Hashable
    ) -> dict[Any, Array]:
        node = draw.op.node_def
        places = arguments(node)
        known = [self._shapes[draw.name, shapes_of]] if _takes_shape(draw) else []
        given = known + _values([draw.op.inputs[place] for place in places[len(known) :]], evaluate, feeds)
        return dict(zip(draw.op.outputs, prepared(node, source, given)(given), strict=True))


def _takes_shape(draw: Draw) -> bool:
    first = draw.op.op_def.input_arg[arguments(draw.op.node_def)[0]]
    return bool(first.name == "shape")


def _values(tensors: Sequence[Any], evaluate: Evaluate, feeds: dict[Any, Array]) -> list[Array]:
    """Values of tensors, those that are constant without running anything."""
    known = [tf.get_static_value(tensor) for tensor in tensors]
    open_ones = [tensor for tensor, value in zip(tensors, known, strict=True) if value is None]
    fetched = iter(evaluate(open_ones, feeds) if open_ones else [])
    return [np.asarray(next(fetched) if value is None else value) for value in known]


def _functions(node: Any) -> list[str]:
    """Names of the functions that a node calls."""
    called = [str(node.op)]
    for value in node.attr.values():
        if value.HasField("func"):
            called.append(value.func.name)
        called += [function.name for function in value.list.func]
    return called
