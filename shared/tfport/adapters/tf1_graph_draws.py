"""A TF1 graph's random numbers: found by the types of its ops, and replaced by feeding the ops' outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from tfport.adapters.tf1_reading import PASSING, Reading
from tfport.checking import candidates
from tfport.checking.draws import DrawSource
from tfport.program import Array

Evaluate = Callable[[Sequence[Any], dict[Any, Array]], list[Array]]
"""Values of tensors with the call's own feeds and those given, the state left as it is."""

_KINDS = {
    "RandomUniform": "uniform",
    "StatelessRandomUniform": "uniform",
    "StatelessRandomUniformV2": "uniform",
    "StatefulUniform": "uniform",
    "RandomStandardNormal": "normal",
    "StatelessRandomNormal": "normal",
    "StatelessRandomNormalV2": "normal",
    "StatefulStandardNormalV2": "normal",
    "TruncatedNormal": "truncated_normal",
    "StatelessTruncatedNormal": "truncated_normal",
    "StatelessTruncatedNormalV2": "truncated_normal",
    "StatefulTruncatedNormal": "truncated_normal",
    "RandomUniformInt": "integers",
    "StatelessRandomUniformInt": "integers",
    "StatelessRandomUniformIntV2": "integers",
    "StatefulUniformInt": "integers",
    "RandomShuffle": "shuffle",
}
_SAMPLERS = {"LogUniformCandidateSampler": candidates.log_uniform, "UniformCandidateSampler": candidates.uniform}
_SAMPLER_NAMES = {"LogUniformCandidateSampler": "log_uniform", "UniformCandidateSampler": "uniform"}
_DRAWING = re.compile(
    r"\w*Random(?!ShuffleQueue|Dataset|IndexShuffle|GammaGrad|GetKey|GetAlg|Seed)\w*|Stateful(Uniform|Standard|Trunc)\w+"
    r"|\w*TruncatedNormal\w*|(?!All|Compute)\w*CandidateSampler|\w*Multinomial|SampleDistortedBoundingBox\w*"
)


def draws(op_type: str) -> bool:
    """Whether an op of this type gives random numbers."""
    return op_type in _KINDS or bool(_DRAWING.fullmatch(op_type))


@dataclass(frozen=True)
class Draw:
    """One random op, or one inside a function that an op calls."""

    name: str
    kind: str
    op: Any
    """The op; for a draw inside a function, the op that calls it."""
    reason: str
    """Why it is not controlled; empty where it is."""


class GraphDraws:
    """The draws of one graph."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._shapes: dict[Hashable, tuple[int, ...]] = {}
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
            own = [Draw(op.name, _kind(op), op, self._why_not(op))] if draws(op.type) else []
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
                    found.append((f"{name}/{node.name}", _KINDS.get(node.op, node.op)))
                pending += _functions(node)
        return found

    def _why_not(self, op: Any) -> str:
        if op in self._reading.looped:
            return "drawn inside a while loop, any number of times"
        if op.type not in _KINDS and op.type not in _SAMPLERS and op.type != "Multinomial":
            return f"there are no recorded numbers for {op.type}"
        if any(self._source(tensor) is None for tensor in _needed(op)):
            return "drawn inside a branch of a cond, where its shape cannot be read"
        return ""

    def _source(self, tensor: Any) -> tuple[str, Any] | None:
        """How to learn a value: ("is", array), ("fetch", tensor), ("shape of", tensor); None where there is no way."""
        known = tf.get_static_value(tensor)
        if known is not None:
            return "is", known
        if tensor.op not in self._reading.guarded:
            return "fetch", tensor
        if tensor.op.type == "Shape":
            inner = tensor.op.inputs[0]
            while inner.op in self._reading.guarded and inner.op.type in PASSING:
                inner = inner.op.inputs[0]
            if inner.op not in self._reading.guarded:
                return "shape of", inner
        return None

    def feeds(
        self, found: Sequence[Draw], source: DrawSource, evaluate: Evaluate, shapes_of: Hashable
    ) -> dict[Any, Array]:
        """What to feed in place of the controlled draws in `found`, drawn from `source` in their order.

        Args:
          found: what `among` gave.
          source: the numbers; its call has been begun.
          evaluate: runs the graph.
          shapes_of: what the shapes of draws depend on: they are asked for once for each.
        """
        controlled = [draw for draw in found if not draw.reason]
        self._learn_shapes(controlled, evaluate, shapes_of)
        feeds: dict[Any, Array] = {}

        def values(tensors: Sequence[Any]) -> list[Array]:
            return self._values(tensors, evaluate, feeds)

        for draw in controlled:
            feeds.update(self._feed(draw, source, values, shapes_of))
        return feeds

    def _learn_shapes(self, found: Sequence[Draw], evaluate: Evaluate, shapes_of: Hashable) -> None:
        asked = [each for each in found if _takes_shape(each.op) and (each.name, shapes_of) not in self._shapes]
        if asked:
            values = self._values([_argument(each.op, "shape") for each in asked], evaluate, {})
            for draw, value in zip(asked, values, strict=True):
                self._shapes[draw.name, shapes_of] = tuple(int(size) for size in np.ravel(value))

    def _values(self, tensors: Sequence[Any], evaluate: Evaluate, feeds: dict[Any, Array]) -> list[Array]:
        sources = [self._source(tensor) for tensor in tensors]
        open_ones = [each[1] for each in sources if each is not None and each[0] != "is"]
        fetched = iter(evaluate(open_ones, feeds) if open_ones else [])
        values: list[Array] = []
        for each in sources:
            assert each is not None  # a draw with no way to learn its arguments is not controlled
            if each[0] == "is":
                values.append(np.asarray(each[1]))
            else:
                value = next(fetched)
                values.append(np.asarray(np.shape(value), np.int64) if each[0] == "shape of" else np.asarray(value))
        return values

    def _feed(
        self, draw: Draw, source: DrawSource, values: Callable[[Sequence[Any]], list[Array]], shapes_of: Hashable
    ) -> dict[Any, Array]:
        op, output = draw.op, draw.op.outputs[0]
        dtype = np.dtype(output.dtype.as_numpy_dtype)
        if op.type in _SAMPLERS:
            count, unique, limit = (op.get_attr(name) for name in ("num_sampled", "unique", "range_max"))
            (true,) = values([op.inputs[0]])
            generator = source.number(candidates.kind(_SAMPLER_NAMES[op.type], limit, unique), (count,))
            return dict(zip(op.outputs, _SAMPLERS[op.type](generator, true, count, unique, limit), strict=True))
        if draw.kind == "shuffle":
            (value,) = values([op.inputs[0]])
            return {output: value[source.shuffle(len(value))] if value.ndim else value}
        if op.type == "Multinomial":
            logits, count = values(op.inputs)
            sizes = (logits.shape[0], int(count), logits.shape[1])
            noise = source.number("multinomial", sizes).gumbel(size=sizes)
            return {output: np.argmax(logits[:, None, :] + noise, axis=-1).astype(dtype)}
        shape = self._shapes[draw.name, shapes_of]
        if draw.kind == "integers":
            low, high = values([_argument(op, "minval"), _argument(op, "maxval")])
            return {output: source.integers(shape, int(low), int(high), dtype.name)}
        return {output: getattr(source, draw.kind)(shape, dtype.name)}


def _kind(op: Any) -> str:
    if op.type in _SAMPLERS:
        return candidates.kind(_SAMPLER_NAMES[op.type], op.get_attr("range_max"), op.get_attr("unique"))
    return _KINDS.get(op.type, str(op.type))


def _takes_shape(op: Any) -> bool:
    return _KINDS.get(op.type, "shuffle") != "shuffle"


def _argument(op: Any, name: str) -> Any:
    names = [argument.name for argument in op.op_def.input_arg]
    return op.inputs[names.index(name)]


def _needed(op: Any) -> list[Any]:
    """The tensors that must be known to draw in an op's place."""
    if not _takes_shape(op):
        return list(op.inputs)[: 2 if op.type == "Multinomial" else 1]
    return [_argument(op, name) for name in ("shape", *(["minval", "maxval"] if _KINDS[op.type] == "integers" else []))]


def _functions(node: Any) -> list[str]:
    """Names of the functions that a node calls."""
    called = [str(node.op)]
    for value in node.attr.values():
        if value.HasField("func"):
            called.append(value.func.name)
        called += [function.name for function in value.list.func]
    return called
