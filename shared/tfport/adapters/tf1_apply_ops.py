"""Which optimizers a TF1 graph has: read off the ops that update variables, by the names of the ops' arguments.

TF1's optimizers are mostly one op a variable (`ApplyAdam`, `ResourceSparseApplyMomentum`). Two are not where the
gradient is sparse: gradient descent scatters, and Adam assigns. These are known by their arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfport.adapters.tf1_reading import PASSING, Reading

_APPLY = re.compile(r"(?:Resource)?(?:Sparse)?Apply([A-Z]\w+?)(?:V2)?")
_ALGORITHMS = {"GradientDescent": "SGD", "AdaMax": "Adamax"}
"""The op's name for an algorithm -> ours, where they differ."""
_SLOTS = {
    "accum": "accumulator",
    "accum_update": "accumulator_update",
    "ms": "rms",
    "mg": "mean",
    "mom": "momentum",
    "linear": "linear",
}
_NUMBERS = {
    "lr": "learning_rate",
    "alpha": "learning_rate",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "lr_power": "learning_rate_power",
}
_POWERS = {"beta1_power": "beta_1", "beta2_power": "beta_2"}


@dataclass(frozen=True)
class Update:
    """How one op of an optimizer moves one variable."""

    op: Any
    variable: str
    algorithm: str
    gradient: Any
    """A tensor of the variable's shape, or the rows at `indices`."""
    indices: Any = None
    slots: dict[str, str] = field(default_factory=dict)
    """Canonical slot -> the variable that holds it."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Canonical hyperparameter -> scalar tensor."""
    powers: dict[str, Any] = field(default_factory=dict)
    """`beta_1`, `beta_2` -> the tensor of that beta's power."""


@dataclass
class Optimizer:
    """One optimizer: updates of one algorithm with the same hyperparameters."""

    name: str
    algorithm: str
    updates: list[Update]
    phases: list[str]

    @property
    def power_tensors(self) -> dict[str, Any]:
        """`beta_1`, `beta_2` -> the tensor of that beta's power; empty for what keeps none."""
        return self.updates[0].powers

    def holds(self) -> set[str]:
        """Names of the variables that are its slots."""
        return {name for update in self.updates for name in update.slots.values()}


def root(tensor: Any) -> Any:
    """The tensor behind casts and copies."""
    while tensor.op.type in (*PASSING, "Cast") and len(tensor.op.inputs):
        tensor = tensor.op.inputs[0]
    return tensor


def updates_among(reading: Reading, ops: Iterable[Any]) -> list[Update]:
    """The optimizers' updates among `ops`, by creation."""
    found = (_update(reading, op) for op in reading.in_order(ops))
    return [update for update in found if update is not None]


def _update(reading: Reading, op: Any) -> Update | None:
    if match := _APPLY.fullmatch(op.type):
        return _by_arguments(reading, op, match[1])
    if op.type in ("ScatterSub", "ResourceScatterSub", "ResourceScatterAdd", "ScatterAdd"):
        return _scattered_descent(reading, op)
    if op.type in ("AssignSub", "AssignSubVariableOp"):
        return _assigned_adam(reading, op) or _assigned_descent(reading, op, op.inputs[1])
    if op.type in ("Assign", "AssignVariableOp") and op.inputs[1].op.type == "Sub":
        minuend, subtrahend = op.inputs[1].op.inputs
        if reading.variable_of(minuend) == reading.variable_of(op.inputs[0]) is not None:
            return _assigned_descent(reading, op, subtrahend)
    return None


def _by_arguments(reading: Reading, op: Any, kind: str) -> Update | None:
    slots, numbers, powers = {}, {}, {}
    gradient = indices = None
    for argument, tensor in zip(op.op_def.input_arg, op.inputs, strict=True):
        name = argument.name
        if name in _POWERS:
            powers[_POWERS[name]] = tensor
        elif name in ("grad", "delta"):
            gradient = tensor
        elif name == "indices":
            indices = tensor
        elif name != "var":
            held = reading.variable_of(tensor) if argument.is_ref or tensor.dtype.name == "resource" else None
            if held is not None:
                slots[_SLOTS.get(name, name)] = held
            else:
                numbers[_NUMBERS.get(name, name)] = tensor
    variable = reading.variable_of(op.inputs[0])
    if variable is None or gradient is None:
        return None
    algorithm = _ALGORITHMS.get(kind, kind)
    if kind == "Momentum" and op.get_attr("use_nesterov"):
        algorithm = "Nesterov"
    if kind == "Adam" and op.get_attr("use_nesterov"):
        algorithm = "Nadam"
    return Update(op, variable, algorithm, gradient, indices, slots, numbers, powers)


def _scattered_descent(reading: Reading, op: Any) -> Update | None:
    """Gradient descent on rows: `var[indices] -= values * rate`, or `+= -values * rate`."""
    rows = op.inputs[2].op
    if rows.type != "Mul":
        return None
    values, rate = rows.inputs
    if op.type.endswith("Add"):
        if values.op.type != "Neg":
            return None
        values = values.op.inputs[0]
    variable = reading.variable_of(op.inputs[0])
    if variable is None or rate.shape.rank != 0 or not _is_gradient(reading, values):
        return None
    return Update(op, variable, "SGD", values, op.inputs[1], numbers={"learning_rate": rate})


def _assigned_descent(reading: Reading, op: Any, change: Any) -> Update | None:
    """Gradient descent written by hand: `var -= rate * gradient`."""
    variable = reading.variable_of(op.inputs[0])
    if variable is None or change.op.type != "Mul":
        return None
    for rate, gradient in (change.op.inputs, reversed(list(change.op.inputs))):
        if rate.shape.rank == 0 and _is_gradient(reading, gradient):
            return Update(op, variable, "SGD", gradient, numbers={"learning_rate": rate})
    return None


def _is_gradient(reading: Reading, tensor: Any) -> bool:
    """Whether a tensor comes from tf.gradients, as it is or clipped."""
    pending: list[Any] = [tensor.op]
    seen: set[Any] = set()
    while pending and len(seen) < 200:
        op = pending.pop()
        if op in seen:
            continue
        seen.add(op)
        if reading.scope_of(op) is not None:
            return True
        pending += [each.op for each in op.inputs]
    return False


def _assigned_adam(reading: Reading, op: Any) -> Update | None:
    """TF1's Adam on rows: `var -= rate * sqrt(1 - beta2_power) / (1 - beta1_power) * m / (sqrt(v) + epsilon)`."""
    try:
        quotient = _of_type(op.inputs[1], "RealDiv")
        scaled, below = _of_type(quotient.inputs[0], "Mul"), _of_type(quotient.inputs[1], "AddV2", "Add")
        corrected = _of_type(scaled.inputs[0], "RealDiv")
        numerator = _of_type(corrected.inputs[0], "Mul")
        power_2 = _of_type(_of_type(numerator.inputs[1], "Sqrt").inputs[0], "Sub").inputs[1]
        power_1 = _of_type(corrected.inputs[1], "Sub").inputs[1]
        m_scatter = _scatter_behind(scaled.inputs[1])
        v_scatter = _scatter_behind(_of_type(below.inputs[0], "Sqrt").inputs[0])
        m_rows, v_rows = _of_type(m_scatter.inputs[2], "Mul"), _of_type(v_scatter.inputs[2], "Mul")
        beta_1 = _of_type(m_rows.inputs[1], "Sub").inputs[1]
        beta_2 = _of_type(v_rows.inputs[1], "Sub").inputs[1]
    except (LookupError, ValueError):
        return None
    names = [reading.variable_of(each.inputs[0]) for each in (op, m_scatter, v_scatter)]
    variable, m, v = names
    if variable is None or m is None or v is None:
        return None
    return Update(
        op,
        variable,
        "Adam",
        m_rows.inputs[0],
        m_scatter.inputs[1],
        {"m": m, "v": v},
        {"learning_rate": numerator.inputs[0], "beta_1": beta_1, "beta_2": beta_2, "epsilon": below.inputs[1]},
        {"beta_1": power_1, "beta_2": power_2},
    )


def _of_type(tensor: Any, *types: str) -> Any:
    """The op of a tensor, if it is of one of these types; else ValueError."""
    if tensor.op.type not in types:
        raise ValueError(tensor.op.type)
    return tensor.op


def _scatter_behind(tensor: Any) -> Any:
    """The scatter-add whose result a tensor is: a reference, or a read that waits for it."""
    if tensor.op.type == "ScatterAdd":
        return tensor.op
    read = _of_type(tensor, "ReadVariableOp")
    for op in read.control_inputs:
        if op.type == "ResourceScatterAdd" and op.inputs[0] is read.inputs[0]:
            return op
    raise ValueError(tensor.name)


def group(reading: Reading, phases: dict[str, Sequence[Update]]) -> list[Optimizer]:
    """The optimizers behind the updates of each phase, in order.

    Updates of a phase belong together where algorithm and hyperparameters' tensors are the same; optimizers of two
    phases are one where they share a slot or a beta power.
    """
    found: list[Optimizer] = []
    for phase, updates in phases.items():
        groups: dict[Any, list[Update]] = {}
        for update in updates:
            numbers = sorted((name, root(tensor).name) for name, tensor in update.numbers.items())
            powers = sorted((name, root(tensor).name) for name, tensor in update.powers.items())
            groups.setdefault((update.algorithm, *numbers, *powers), []).append(update)
        for (algorithm, *_), members in groups.items():
            new = Optimizer(_scope_name(members[0].op.name) or phase, algorithm, members, [phase])
            same = next((each for each in found if algorithm == each.algorithm and _shared(reading, each, new)), None)
            if same is None:
                found.append(new)
            else:
                known = {update.variable for update in same.updates}
                same.updates += [update for update in members if update.variable not in known]
                same.phases += [phase] * (phase not in same.phases)
    _name_uniquely(found)
    return found


def _shared(reading: Reading, one: Optimizer, other: Optimizer) -> bool:
    kept = [
        each.holds() | {str(reading.variable_of(root(tensor))) for tensor in each.power_tensors.values()} - {"None"}
        for each in (one, other)
    ]
    return bool(kept[0] & kept[1])


def _scope_name(op: str) -> str:
    """The optimizer's name scope: "d/Adam" for "d/Adam/update_w/ApplyAdam"."""
    head, found, _ = op.partition("/update_")
    return head if found else ""


def _name_uniquely(optimizers: list[Optimizer]) -> None:
    """Names an optimizer by the last part of its scope, or by all of it where that is not unique."""
    short = [each.name.rpartition("/")[2] for each in optimizers]
    taken: set[str] = set()
    for optimizer, name in zip(optimizers, short, strict=True):
        name = name if short.count(name) == 1 else optimizer.name.replace("/", "_")
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        optimizer.name = unique
