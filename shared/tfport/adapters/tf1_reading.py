"""What a TF1 graph says of itself: its variables, what depends on what, its train ops and its losses.

Nothing here runs anything or adds an op.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow.compat.v1 as tf

from tfport.adapters.graph_rewriting import in_original_order
from tfport.errors import UserError

VARIABLE_TYPES = ("VariableV2", "Variable", "VarHandleOp", "AutoReloadVariable")
PASSING = ("Identity", "ReadVariableOp", "Enter", "RefEnter", "RefIdentity", "StopGradient", "Switch", "RefSwitch")
"""Ops whose output is what they were given, as far as anyone who looks for a variable is concerned."""
ABOUT_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "VariableShape", "BroadcastGradientArgs")
_READS_REFS = ("IsVariableInitialized", "CountUpTo", *PASSING)
_RESOURCE_CHANGES = re.compile(r"Assign\w*VariableOp|Resource(Sparse)?Apply\w+|ResourceScatter\w+|Resource\w+Assign")
_CALLS = ("StatefulPartitionedCall", "PartitionedCall", "If", "While", "Case")
_GRADIENT_SEED = re.compile(r"^(.*?)/?grad_ys_\d+$")
_CARRYING = (*PASSING, "Exit", "NextIteration", "Merge", "AddN")
"""Ops that give on a TensorArray's flow."""
_ENTERS, _EXITS = ("Enter", "RefEnter"), ("Exit", "RefExit")
_SUMS = ("AddN", "Add", "AddV2", "Identity")


@dataclass(frozen=True)
class GraphVariable:
    """A variable's op, what reads it, and the assignment that initialises it."""

    name: str
    op: Any
    shape: tuple[int, ...] | None
    dtype: str
    read: Any
    """A tensor that reads it; None where the graph has none."""
    assign: Any
    """Its initialiser, an assignment whose value can be fed; None where the graph has none."""


class Reading:
    """An index of a finished tf.Graph."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.ops: list[Any] = in_original_order(graph)
        self.order = {op: index for index, op in enumerate(self.ops)}
        self._after: dict[Any, list[Any]] = {op: [] for op in self.ops}
        for op in self.ops:
            for before in self.before(op):
                self._after[before].append(op)

    # --- Names --------------------------------------------------------------------------------------------------------
    def tensor(self, thing: Any, what: str) -> Any:
        """The tensor that `thing` is or names; "w" is "w:0".

        Raises:
          UserError: the graph has none of that name, or `thing` is of another graph.
        """
        if isinstance(thing, str):
            found = self._named(thing, what)
            if not hasattr(found, "outputs"):
                return found
            if found.outputs:
                return found.outputs[0]
            raise UserError(f"{what}: {thing!r} is an operation without an output; name a tensor.")
        if isinstance(thing, tf.Operation) and thing.outputs:
            thing = thing.outputs[0]
        if hasattr(thing, "handle") and hasattr(thing, "read_value"):
            thing = thing._as_graph_element()  # of what tf.assign returns, a read behind the assignment
        thing = getattr(thing, "_variable", thing)
        if not isinstance(thing, tf.Tensor) or thing.graph is not self.graph:
            raise UserError(f"{what} is {thing!r}; expected a tensor of this graph, or its name.")
        return thing

    def fetch(self, thing: Any, what: str) -> Any:
        """The operation or tensor that `thing` is or names; see `tensor`."""
        if isinstance(thing, str):
            return self._named(thing, what)
        if isinstance(thing, tf.Operation):
            if thing.graph is not self.graph:
                raise UserError(f"{what} is {thing.name!r} of another graph; expected one of this graph.")
            return thing
        return self.tensor(thing, what)

    def _named(self, name: str, what: str) -> Any:
        try:
            return self.graph.as_graph_element(name, allow_tensor=True, allow_operation=True)
        except (KeyError, ValueError):
            near = difflib.get_close_matches(name.split(":")[0], [op.name for op in self.ops], n=3, cutoff=0.5)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise UserError(
                f"{what}: the graph has no {name!r}.{hint} Give the name of one of its {len(self.ops)} operations."
            ) from None

    # --- What depends on what -----------------------------------------------------------------------------------------
    @staticmethod
    def before(op: Any) -> Iterator[Any]:
        """What an op waits for."""
        yield from (tensor.op for tensor in op.inputs)
        yield from op.control_inputs

    def after(self, op: Any) -> list[Any]:
        """What waits for an op."""
        return self._after[op]

    def ancestors(self, things: Iterable[Any], fed: Iterable[Any] = ()) -> set[Any]:
        """The ops of `things` (tensors or ops) and all that they need, but nothing behind tensors that are fed."""
        cut = {tensor.ref() for tensor in fed}
        found: set[Any] = set()
        pending = [
            each if isinstance(each, tf.Operation) else each.op
            for each in things
            if isinstance(each, tf.Operation) or each.ref() not in cut
        ]
        while pending:
            op = pending.pop()
            if op not in found:
                found.add(op)
                pending += [tensor.op for tensor in op.inputs if tensor.ref() not in cut]
                pending += op.control_inputs
        return found

    def descendants(self, ops: Iterable[Any], stop: Callable[[Any], bool] = lambda _: False) -> set[Any]:
        """The ops and all that waits for them; nothing is looked for behind an op at which `stop` is true."""
        found: set[Any] = set()
        pending = list(ops)
        while pending:
            op = pending.pop()
            if op not in found and not stop(op):
                found.add(op)
                pending += self._after[op]
        return found

    def in_order(self, ops: Iterable[Any]) -> list[Any]:
        """By creation, which is an order of computation."""
        return sorted(ops, key=self.order.__getitem__)

    @cached_property
    def frames(self) -> dict[Any, tuple[str, ...]]:
        """The ops inside while loops of TF1's -> the frames that their outputs are in, the outermost first."""
        found: dict[Any, tuple[str, ...]] = {}
        pending = [op for op in self.ops if op.type in _ENTERS]
        while pending:
            op = pending.pop()
            inside = max((found.get(each, ()) for each in self.before(op)), key=len, default=())
            if op.type in _ENTERS:
                inside = (*inside, op.get_attr("frame_name").decode())
            elif op.type in _EXITS:
                inside = inside[:-1]
            if len(inside) > len(found.get(op, ())):
                found[op] = inside
                pending += self._after[op]
        return found

    @cached_property
    def looped(self) -> set[Any]:
        """Ops inside a while loop of TF1's: they run any number of times, so they can be neither fed nor fetched."""
        return set(self.frames)

    @cached_property
    def guarded(self) -> set[Any]:
        """Ops inside a branch of a TF1 cond: they may not run, so they cannot be fetched."""
        return self.descendants(
            (op for op in self.ops if op.type in ("Switch", "RefSwitch") and op not in self.looped),
            lambda op: op.type in ("Merge", "RefMerge"),
        )

    @staticmethod
    def is_flow(tensor: Any) -> bool:
        """Whether a tensor is the flow of a TensorArray, which orders its reads and writes and is no value."""
        seen: set[Any] = set()
        pending = [tensor]
        while pending:
            each = pending.pop()
            op = each.op
            if op in seen:
                continue
            seen.add(op)
            if op.type.startswith("TensorArray"):
                return bool(op.op_def.output_arg[each.value_index].name in ("flow", "flow_out"))
            if op.type in _CARRYING:
                pending.append(op.inputs[0])
        return False

    # --- Variables ----------------------------------------------------------------------------------------------------
    def variable_of(self, tensor: Any) -> str | None:
        """The name of the variable that a tensor is the handle, the reference or the bare value of."""
        while tensor is not None:
            op = tensor.op
            if op.type in VARIABLE_TYPES:
                return str(op.name)
            passes = op.type in PASSING or tensor.dtype._is_ref_dtype
            tensor = op.inputs[0] if passes and len(op.inputs) else None
        return None

    def changed_by(self, op: Any) -> list[str]:
        """The variables that an op writes to."""
        if op.type in VARIABLE_TYPES or op.type in _READS_REFS:
            return []
        writes = op.type in _CALLS or _RESOURCE_CHANGES.fullmatch(op.type)
        arguments = op.op_def.input_arg
        by_reference = [each.is_ref for each in arguments] if len(arguments) == len(op.inputs) else []
        names = [
            self.variable_of(tensor)
            for index, tensor in enumerate(op.inputs)
            if (tensor.dtype == tf.resource and writes) or (by_reference and by_reference[index])
        ]
        return [name for name in names if name is not None]

    def changed(self, ops: Iterable[Any]) -> list[str]:
        """The variables that any of `ops` writes to, in order."""
        return list(dict.fromkeys(name for op in self.in_order(ops) for name in self.changed_by(op)))

    @cached_property
    def variables(self) -> dict[str, GraphVariable]:
        """Every variable of the graph by the name of its op, in the order of creation."""
        return {op.name: self._variable(op) for op in self.ops if op.type in VARIABLE_TYPES}

    def _variable(self, op: Any) -> GraphVariable:
        resource = op.type == "VarHandleOp"
        assigns = [
            each
            for each in self._after[op]
            if each.type == ("AssignVariableOp" if resource else "Assign") and each.inputs[0] is op.outputs[0]
        ]
        own = [each for each in assigns if each.name == f"{op.name}/Assign"] or [
            each for each in assigns if each.name.startswith(f"{op.name}/") and not self._is_update(each)
        ]
        read = op.outputs[0]
        if resource:
            reads = [
                each
                for each in self._after[op]
                if each.type == "ReadVariableOp"
                and not each.control_inputs
                and each not in self.looped
                and each not in self.guarded
            ]
            read = reads[0].outputs[0] if reads else None
        shape = tf.TensorShape(op.get_attr("shape"))
        return GraphVariable(
            op.name,
            op,
            tuple(shape.as_list()) if shape.is_fully_defined() else None,
            tf.as_dtype(op.get_attr("dtype")).base_dtype.name,
            read,
            own[0] if own else None,
        )

    def _is_update(self, assign: Any) -> bool:
        return bool(self._after[assign]) and assign.inputs[0].op in self.ancestors([assign.inputs[1]])

    def collected(self, collection: str) -> list[str]:
        """Names of the variables in one of the graph's collections, in its order."""
        found = (getattr(each, "op", None) for each in self.graph.get_collection(collection))
        return list(dict.fromkeys(op.name for op in found if op is not None and op.type in VARIABLE_TYPES))

    # --- Gradients ----------------------------------------------------------------------------------------------------
    @cached_property
    def scopes(self) -> list[str]:
        """The name scopes of the calls of tf.gradients, each with its slash: "gradients/", the longest first."""
        found = {match[1] + "/" for op in self.ops if (match := _GRADIENT_SEED.match(op.name)) and match[1]}
        return sorted(found, key=len, reverse=True)

    def scope_of(self, op: Any) -> str | None:
        """The outermost gradient scope that an op is in."""
        inside = [scope for scope in self.scopes if op.name.startswith(scope)]
        return inside[-1] if inside else None

    def weights_of(self, scope: str) -> list[Any]:
        """What a call of tf.gradients was given as grad_ys; empty where its gradients begin with ones."""
        seeds = (op for op in self.ops if op.name.startswith(scope) and _GRADIENT_SEED.match(op.name))
        return [op.outputs[0] for op in seeds if op.type == "Identity" and self.scope_of(op) == scope]

    def gradients_behind(self, tensor: Any) -> list[Any]:
        """The ops of tf.gradients' own that a tensor is computed from, the nearest ones: itself, if it is one."""
        found, seen, pending = [], set(), [tensor.op]
        while pending:
            op = pending.pop()
            if op in seen:
                continue
            seen.add(op)
            if self.scope_of(op) is not None:
                found.append(op)
            else:
                pending += [each.op for each in op.inputs]
        return found

    def derivative(self, tensor: Any, sparse: bool) -> Any:
        """The tensor of tf.gradients' own that becomes `tensor` when it is clipped, scaled and the like.

        Args:
          tensor: what an optimizer's op takes.
          sparse: whether it is rows of a gradient.

        Returns:
          None where none is plain: sums of several, rows that were clipped before they were added up.
        """
        seen: set[Any] = set()
        nearest: dict[Any, Any] = {}
        pending = [(tensor, tensor)]
        while pending and not nearest:
            further = []
            for here, rows in pending:
                if self.scope_of(here.op) is not None:
                    nearest[here.ref()] = rows
                elif here.ref() not in seen:
                    seen.add(here.ref())
                    summed = sparse and here.op.type == "UnsortedSegmentSum"
                    if summed and self.scope_of(here.op.inputs[0].op) is None:
                        return None
                    further += [
                        (each, here if summed else each)
                        for each in (here.op.inputs[:1] if summed else here.op.inputs)
                        if each.dtype.is_floating
                        and each.op.type not in ABOUT_SHAPES
                        and self._alike(each, tensor)
                        and self.gradients_behind(each)
                    ]
            pending = further
        return next(iter(nearest.values())) if len(nearest) == 1 and not pending else None

    @staticmethod
    def _alike(one: Any, other: Any) -> bool:
        return one.shape.rank == other.shape.rank and bool(one.shape.is_compatible_with(other.shape))

    def differentiated(self, gradients: Sequence[Any]) -> list[Any]:
        """The tensors that `gradients` are the gradients of, as far as they can be told: normally one, the loss.

        Walks back inside the gradient's own scope, where ops are named after the ops that they differentiate. The
        loss is where no other of these needs it; several that are only added up after that are their sum.
        """
        forward: set[Any] = set()
        seen: set[Any] = set()
        pending: list[tuple[Any, str | None]] = [(tensor.op, None) for tensor in gradients]
        while pending:
            op, within = pending.pop()
            own = self.scope_of(op)
            if op in seen or (within is not None and own != within):
                continue
            seen.add(op)
            if own is not None:
                forward |= self._forward_ops(op.name.removeprefix(own))
            pending += [(tensor.op, own or within) for tensor in op.inputs]
        needed = self.ancestors(before for op in forward for before in self.before(op))
        ends = self.in_order(forward - needed)
        if len(ends) > 1 and (total := self._sum_of(ends)) is not None:
            ends = [total]
        return [op.outputs[0] for op in ends if op.outputs]

    def _forward_ops(self, name: str) -> set[Any]:
        for match in reversed(list(re.finditer("_grad/", name))):
            try:
                return {self.graph.get_operation_by_name(name[: match.start()])}
            except (KeyError, ValueError):
                continue
        return set()

    def _sum_of(self, ends: list[Any]) -> Any:
        """The first op that all of `ends` come together in by mere additions."""
        reached = [
            self.descendants([end], lambda op, end=end: op is not end and op.type not in _SUMS)  # type: ignore[misc]
            for end in ends
        ]
        common = self.in_order(set.intersection(*reached))
        return common[0] if common else None

    def scalars(self, among: Iterable[Any]) -> list[Any]:
        """The float scalars that a person might mean by "loss", among the outputs of `among`; the likely ones first."""
        found = [
            tensor
            for op in self.in_order(among)
            if self.scope_of(op) is None and op.type not in ("Const", "ReadVariableOp", *VARIABLE_TYPES)
            for tensor in op.outputs
            if is_float_scalar(tensor) and self.variable_of(tensor) is None and op not in self.looped | self.guarded
        ]
        return sorted(found, key=lambda tensor: not re.search("loss|cost|objective", tensor.op.name, re.IGNORECASE))

    # --- Train ops ----------------------------------------------------------------------------------------------------
    def ends_of(self, updates: Iterable[Any]) -> list[Any]:
        """The ops that make `updates` run and that nothing else waits for, by creation."""
        return self.in_order(
            op for op in self.descendants(updates) if not self._after[op] and not self._is_read_alone(op)
        )

    def _is_read_alone(self, op: Any) -> bool:
        """Whether an op only reads a variable: assignments leave such reads behind."""
        return op.type in ("ReadVariableOp", "Identity") and self.variable_of(op.outputs[0]) is not None


def is_float_scalar(tensor: Any) -> bool:
    """Whether a tensor can be a loss; one of an unknown rank can."""
    return bool(tensor.dtype.is_floating) and not tensor.dtype._is_ref_dtype and tensor.shape.rank in (0, None)


def element_name(tensor: Any) -> str:
    """A tensor's name as people say it: "loss" for "loss:0"."""
    return str(tensor.name).removesuffix(":0")
