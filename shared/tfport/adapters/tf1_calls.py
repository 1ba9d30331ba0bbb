"""Running a TF1 graph: what a call needs, what it is fed, and what it must put back."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow.compat.v1 as tf

from tfport.adapters.tf1_finding import Finding, Phase, feedable
from tfport.adapters.tf1_graph_draws import Draw, GraphDraws
from tfport.adapters.tf1_graph_state import Values
from tfport.adapters.tf1_inner_draws import InnerDraws
from tfport.adapters.tf1_reading import Reading
from tfport.checking.draws import DrawSource
from tfport.checking.quoting import said
from tfport.errors import UserError, unknown
from tfport.program import Array, Batch


@dataclass(frozen=True)
class Plan:
    """What fetching some things needs."""

    ops: set[Any]
    missing: tuple[str, ...]
    """Placeholders that must be fed and are not."""
    changed: tuple[str, ...]
    """Variables that it writes to."""


class Calls:
    """Calls of session.run."""

    def __init__(self, reading: Reading, session: Any, values: Values, found: Finding, inner: InnerDraws) -> None:
        self._reading, self._session, self._values = reading, session, values
        self._inputs, self._outputs, self._mode = found.inputs, found.outputs, found.mode
        self._phases: Mapping[str, Phase] = {each.name: each for each in found.phases}
        self._plans: dict[Hashable, Plan] = {}
        self._inner = inner
        self._draws = GraphDraws(reading, inner)

    def plan(self, fetches: Sequence[Any], fed: frozenset[Any]) -> Plan:
        """What fetching these needs when `fed` is fed."""
        key = (tuple(each.name for each in fetches), fed)
        if key not in self._plans:
            ops = self._reading.ancestors(fetches, fed)
            known = {tensor.op: name for name, tensor in self._inputs.items()}
            given = {tensor.op for tensor in fed}
            missing = [
                known.get(op, op.name)
                for op in self._reading.in_order(ops)
                if op not in given and (op.type in ("Placeholder", "PlaceholderV2") or _is_demanded(op, known))
            ]
            self._plans[key] = Plan(ops, tuple(missing), tuple(self._reading.changed(ops)))
        return self._plans[key]

    def _feed(self, batch: Batch, training: bool) -> dict[Any, Array]:
        feed: dict[Any, Array] = dict(self._mode[training])
        for name, value in batch.items():
            tensor = self._inputs.get(name)
            if tensor is None:
                tensor = self._placeholder(name)
            feed[tensor] = feedable(name, tensor, value)
        return feed

    def is_placeholder(self, name: str) -> bool:
        """Whether the graph has a placeholder of this name."""
        try:
            return bool(self._reading.graph.get_operation_by_name(name).type.startswith("Placeholder"))
        except (KeyError, ValueError):
            return False

    def _placeholder(self, name: str) -> Any:
        if not self.is_placeholder(name):
            raise unknown("input", name, self._inputs)
        return self._reading.graph.get_operation_by_name(name).outputs[0]

    def run(
        self,
        fetches: Sequence[Any],
        batch: Batch,
        training: bool,
        source: DrawSource | None,
        *,
        phase: str = "forward",
        keep: bool = True,
        beside: Sequence[Any] = (),
    ) -> list[Any]:
        """One session.run with the batch, the mode's feeds and recorded draws.

        Args:
          fetches: tensors and ops.
          batch: input name -> value.
          training: which mode's feeds.
          source: where draws come from; None lets the graph draw.
          phase: what the draws are keyed by.
          keep: whether variables that the fetches write to are put back.
          beside: what is run as well, and needs nothing else than the fetches do; its values are not returned.

        Raises:
          UserError: an input is missing or does not fit, or the graph fails.
        """
        feed = self._feed(batch, training)
        plan = self.plan(fetches, frozenset(feed))
        if plan.missing:
            raise UserError(
                f"the batch has no {plan.missing[0]!r}; it has {', '.join(batch) or 'nothing'}, and needs "
                f"{', '.join(self._inputs)}. Feed it, or give its value with training= or inference=."
            )
        self._inner.begin(source)
        if source is not None:
            source.begin(phase)
            feed |= self._draw_feeds(plan, phase, feed, source)
        fed = {each: feed[each] for each in self.used(feed, plan, fetches)}
        return self._run([*fetches, *beside], fed, plan, keep)[: len(fetches)]

    def used(self, feed: Iterable[Any], plan: Plan, fetches: Sequence[Any]) -> list[Any]:
        """What must be fed: the rest would be copied into the Session for nothing."""
        return [
            each for each in feed if any(each is f for f in fetches) or any(op in plan.ops for op in each.consumers())
        ]

    def _run(self, fetches: Sequence[Any], feed: dict[Any, Any], plan: Plan, keep: bool) -> list[Any]:
        changed = plan.changed if keep else ()
        before = self._values.read_all(changed) if changed else {}
        try:
            return list(self._session.run(list(fetches), feed_dict=feed))
        except tf.errors.OpError as error:
            raise UserError(f"the graph failed on this batch: {said(error)}") from None
        finally:
            for name, value in before.items():
                self._values.write(name, value)

    def _draw_feeds(self, plan: Plan, phase: str, feed: dict[Any, Array], source: DrawSource) -> dict[Any, Array]:
        """Recorded arrays: a phase's calls draw all that its update draws, so that they see the same numbers."""
        ops = self.phase_ops(self._phases[phase]) if phase in self._phases else plan.ops
        found = self._draws.among(ops)
        if not found:
            return {}
        shapes = tuple((tensor.name, value.shape) for tensor, value in feed.items())
        sizes = tuple((t.name, v.tobytes()) for t, v in feed.items() if v.ndim == 0 and v.dtype.kind in "iub")

        def evaluate(tensors: Sequence[Any], more: dict[Any, Array]) -> list[Array]:
            fed = {**feed, **more}
            own = self.plan(tensors, frozenset(fed))
            if own.missing:
                raise UserError(f"the batch has no {own.missing[0]!r}, which the shape of a random draw depends on.")
            return self._run(tensors, {each: fed[each] for each in self.used(fed, own, tensors)}, own, True)

        return self._draws.feeds(found, ops, source, evaluate, (shapes, sizes))

    def phase_ops(self, phase: Phase) -> set[Any]:
        """The ops of a phase's update and its loss."""
        fed = [*self._inputs.values(), *self._mode[True]]
        fetches = phase.fetches if phase.loss is None else [*phase.fetches, phase.loss]
        found: set[Any] = self.plan(fetches, frozenset(fed)).ops
        return found

    def everything(self) -> set[Any]:
        """The ops that any of its calls runs, but for initialisers."""
        outputs = [tensor for named in self._outputs.values() for tensor in named.values()]
        found = self._reading.ancestors(outputs, self._inputs.values())
        return found.union(*(self.phase_ops(each) for each in self._phases.values()))

    def draws_among(self, ops: Iterable[Any]) -> list[Draw]:
        """The draws among `ops`, by creation."""
        return self._draws.among(ops)

    def phase_draws(self, phase: Phase) -> list[Draw]:
        """The draws of a phase's update and its loss."""
        return self._draws.among(self.phase_ops(phase))


def _is_demanded(op: Any, inputs: dict[Any, str]) -> bool:
    """Whether an op that a person named as an input must be fed: it is no placeholder with a default."""
    return op in inputs and op.type != "PlaceholderWithDefault"
