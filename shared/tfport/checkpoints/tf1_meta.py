"""What each tensor of a TF1 checkpoint is, by the graph that was saved with it.

The MetaGraphDef is read as bytes (`tensorflow/core/protobuf/meta_graph.proto`) and never imported: no op of it is
looked up, none runs, and one that TensorFlow does not know does no harm. An optimizer is found by the ops that it makes
(`ApplyAdam`, `ResourceSparseApplyMomentum`), whose inputs are known by place; optimizers are told apart and named as by
`tfport.adapters.tf1_apply_ops`. Which variable a key stands for is what the Saver's op says: `Saver({"w": variable})`
renames, and the parts of a partitioned variable share one key.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfport.checkpoints import wire
from tfport.checkpoints.contents import Array, Contents, Entry, OptimizerEntry, Role, Stored
from tfport.checkpoints.object_graph import Message, walk
from tfport.checkpoints.tf1_names import AVERAGE, by_names, inferred_betas
from tfport.errors import CheckpointError
from tfport.state import slot_name

Read = Callable[[str], Array]


class GraphError(CheckpointError):
    """A graph that cannot be read, or that is another checkpoint's."""


_VARIABLES = ("VariableV2", "Variable", "VarHandleOp", "AutoReloadVariable")
_PASSING = ("Identity", "ReadVariableOp", "Enter", "RefEnter", "RefIdentity", "StopGradient", "Switch", "RefSwitch")
_REFERENCES = re.compile(r"Assign(Add|Sub)?|Scatter\w+|(Sparse)?Apply\w+|CountUpTo")
"""Ops that hand on the variable they changed, their first input."""
_APPLY = re.compile(r"(Resource)?(Sparse)?Apply([A-Z]\w+?)(V2)?")
_CHANGES = re.compile(r"Assign\w*|(Resource)?(Sparse)?Apply\w+|(Resource)?Scatter\w+|Resource\w+Assign")

_ARGUMENTS: dict[str, tuple[str, str]] = {
    "GradientDescent": ("", "learning_rate grad"),
    "ProximalGradientDescent": ("", "learning_rate l1 l2 grad"),
    "Momentum": ("accumulator", "learning_rate grad momentum"),
    "KerasMomentum": ("accumulator", "learning_rate grad momentum"),
    "Adagrad": ("accumulator", "learning_rate grad"),
    "AdagradV2": ("accumulator", "learning_rate epsilon grad"),
    "ProximalAdagrad": ("accumulator", "learning_rate l1 l2 grad"),
    "AdagradDA": ("gradient_accumulator gradient_squared_accumulator", "grad learning_rate l1 l2 global_step"),
    "Adadelta": ("accumulator accumulator_update", "learning_rate rho epsilon grad"),
    "RMSProp": ("rms momentum", "learning_rate rho momentum epsilon grad"),
    "CenteredRMSProp": ("mean rms momentum", "learning_rate rho momentum epsilon grad"),
    "Adam": ("m v", "beta_1_power beta_2_power learning_rate beta_1 beta_2 epsilon grad"),
    "AdaMax": ("m v", "beta_1_power learning_rate beta_1 beta_2 epsilon grad"),
    "AdamWithAmsgrad": ("m v vhat", "beta_1_power beta_2_power learning_rate beta_1 beta_2 epsilon grad"),
    "Ftrl": ("accumulator linear", "grad learning_rate l1 l2 learning_rate_power"),
    "FtrlV2": ("accumulator linear", "grad learning_rate l1 l2 l2_shrinkage learning_rate_power"),
    "AddSign": ("m", "learning_rate alpha sign_decay beta grad"),
    "PowerSign": ("m", "learning_rate logbase sign_decay beta grad"),
}
"""An op's name for its algorithm -> its slots and its other inputs; in sparse ops "indices" follows "grad"."""
_ALGORITHMS = {
    "GradientDescent": "SGD",
    "AdaMax": "Adamax",
    "AdagradV2": "Adagrad",
    "FtrlV2": "Ftrl",
    "AdamWithAmsgrad": "AMSGrad Adam",
}
_FOLDED = ("Mul", "Add", "AddV2", "Sub", "RealDiv", "Maximum", "Minimum", "Neg")
_LONGEST = 100
"""Copies between a value and who uses it; a graph with more runs in a circle."""
_BOOKKEEPING = ("current_loss_scale", "good_steps", "loss_scale")


def versions(meta_path: Path) -> dict[str, str]:
    """{"tensorflow": version} as a `.meta` file records it, empty where it does not.

    Raises:
      GraphError: it is damaged.
    """
    return meta_versions(_parsed(meta_path))


def meta_versions(meta: Message) -> dict[str, str]:
    """As `versions`, of a MetaGraphDef; raises ValueError for a damaged one."""
    found = {}
    for info in meta.messages(1):
        if version := info.text(5):
            found["tensorflow"] = version
    return found


def contents(meta_path: Path, tensors: Mapping[str, Stored], read: Read) -> Contents:
    """What each tensor of a checkpoint is, by the graph in a `.meta` file.

    Args:
      meta_path: a MetaGraphDef, as tf.train.Saver writes it.
      tensors: what the checkpoint holds.
      read: reads one tensor; called for scalars only.

    Raises:
      GraphError: the file cannot be read, or its graph is not this checkpoint's.
    """
    return graph_contents(meta_path, _parsed(meta_path), tensors, read)


def graph_contents(path: Path, meta: Message, tensors: Mapping[str, Stored], read: Read) -> Contents:
    """As `contents`, of a MetaGraphDef that lies in another file; `path` is named in errors."""
    try:
        graph = _Graph(meta)
        return _Finding(path, graph, tensors, read).contents()
    except (ValueError, RecursionError) as error:
        raise GraphError(f"The graph in {path} is damaged ({error}).") from None


def _parsed(path: Path) -> Message:
    try:
        return Message(path.read_bytes())
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise GraphError(f"{path} is damaged or no MetaGraphDef ({error}).") from None


# --- The graph --------------------------------------------------------------------------------------------------------
class _Op:
    """One node: its data inputs by node and output."""

    __slots__ = ("_data", "after", "inputs", "name", "order", "type")

    def __init__(self, data: memoryview, order: int) -> None:
        self.name = self.type = ""
        self.inputs: list[str] = []
        self.order = order
        self.after: list[_Op] = []
        self._data = data
        for number, value in walk(data):
            if number > 3:
                continue
            if isinstance(value, int):
                raise ValueError("a node's name is a number")
            text = sys.intern(str(value, "utf-8"))
            if number == 1:
                self.name = text
            elif number == 2:
                self.type = text
            elif not text.startswith("^"):
                self.inputs.append(text)
        if not self.name or not self.type:
            raise ValueError("a node has no name or no type")

    def attribute(self, name: str) -> Message | None:
        """An AttrValue."""
        for entry in Message(self._data).messages(5):
            if entry.text(1) == name:
                return next(entry.messages(2), None)
        return None

    def flag(self, name: str) -> bool:
        """A bool attribute."""
        value = self.attribute(name)
        return value is not None and bool(value.integer(5))


@dataclass(frozen=True)
class _Variable:
    """A variable of the graph."""

    op: _Op
    shape: tuple[int, ...] | None
    dtype: str


class _Graph:
    """The nodes of a MetaGraphDef, and its collections of variables. ValueError where the bytes make no sense."""

    def __init__(self, meta: Message) -> None:
        self.ops: dict[str, _Op] = {}
        self.applies_in_functions = False
        self._constants: dict[str, float | None] = {}
        for graph in meta.raw(2):
            for number, value in walk(graph):
                if isinstance(value, int) or number not in (1, 2):
                    continue
                if number == 1:
                    op = _Op(value, len(self.ops))
                    if self.ops.setdefault(op.name, op) is not op:
                        raise ValueError(f"two nodes are called {op.name!r}")
                else:
                    self.applies_in_functions |= _holds_optimizers(value)
        if not self.ops:
            raise ValueError("it holds no nodes")
        for op in self.ops.values():
            for name in op.inputs:
                before = self.ops.get(_node(name))
                if before is not None:
                    before.after.append(op)
        self.variables = {op.name: self._variable(op) for op in self.ops.values() if op.type in _VARIABLES}
        self.collections, self.slices = self._collections(meta)
        self.saver_file = next((_node(each.text(1)) for each in meta.messages(3)), "")

    def _variable(self, op: _Op) -> _Variable:
        shape: tuple[int, ...] | None = None
        value = op.attribute("shape")
        for each in value.messages(7) if value is not None else ():
            sizes = tuple(dim.integer(1) for dim in each.messages(2))
            shape = None if each.integer(3) or any(size < 0 for size in sizes) else sizes
        dtype = op.attribute("dtype")
        return _Variable(op, shape, wire.DTYPES.get(dtype.integer(6), "") if dtype is not None else "")

    @staticmethod
    def _collections(meta: Message) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Collection -> names of its variables, and a part's name -> the whole partitioned variable's."""
        found: dict[str, list[str]] = {}
        slices: dict[str, str] = {}
        for entry in meta.messages(4):
            name = entry.text(1)
            if "variables" not in name and name != "global_step":
                continue
            names = found.setdefault(name, [])
            for collection in entry.messages(2):
                for values in collection.messages(2):
                    for variable in values.messages(1):
                        own = _node(variable.text(1))
                        names.append(own)
                        for info in variable.messages(4):
                            slices[own] = info.text(1)
                for values in collection.messages(1):
                    names += (_node(each) for each in values.texts(1))
        return found, slices

    def input(self, op: _Op, place: int) -> _Op | None:
        """The op of one data input."""
        return self.ops.get(_node(op.inputs[place])) if place < len(op.inputs) else None

    def root(self, op: _Op | None) -> _Op | None:
        """The op behind casts and copies."""
        for _ in range(_LONGEST):
            if op is None or op.type not in (*_PASSING, "Cast") or not op.inputs:
                return op
            op = self.input(op, 0)
        raise ValueError("its copies run in a circle")

    def variable_of(self, op: _Op | None) -> str | None:
        """The variable that an op is the handle, the reference or the bare value of."""
        for _ in range(_LONGEST):
            if op is None:
                return None
            if op.type in _VARIABLES:
                return op.name
            op = self.input(op, 0) if op.type in _PASSING or _REFERENCES.fullmatch(op.type) else None
        raise ValueError("its references run in a circle")

    def ancestors(self, op: _Op | None) -> set[str]:
        """The names of an op and all whose output it needs."""
        found: set[str] = set()
        pending = [op]
        while pending:
            each = pending.pop()
            if each is not None and each.name not in found:
                found.add(each.name)
                pending += (self.ops.get(_node(name)) for name in each.inputs)
        return found

    # --- Numbers ------------------------------------------------------------------------------------------------------
    def constant(self, op: _Op | None, depth: int = 0) -> float | None:
        """A scalar that follows from constants alone; None for any other."""
        op = self.root(op)
        if op is None or depth > 20:
            return None
        if op.name not in self._constants:
            self._constants[op.name] = self._constant(op, depth)
        return self._constants[op.name]

    def _constant(self, op: _Op, depth: int) -> float | None:
        if op.type == "Const":
            return _scalar(op)
        if not 1 <= len(op.inputs) <= 2 or op.type not in _FOLDED:
            return None
        values = [self.constant(self.ops.get(_node(name)), depth + 1) for name in op.inputs]
        if len(values) == 1:
            return -values[0] if op.type == "Neg" and values[0] is not None else None
        if values[0] is None or values[1] is None:
            return None
        return _folded(op.type, values[0], values[1])

    def text_constant(self, op: _Op | None) -> list[str]:
        """A constant of texts."""
        value = op.attribute("value") if op is not None and op.type == "Const" else None
        return [text for each in value.messages(8) for text in each.texts(8)] if value is not None else []


def _holds_optimizers(library: memoryview) -> bool:
    """Whether a function of a library has an optimizer's op."""
    return any(
        _APPLY.fullmatch(node.text(2)) for function in Message(library).messages(1) for node in function.messages(3)
    )


def _node(name: str) -> str:
    return name.removeprefix("^").split(":")[0]


def _folded(kind: str, first: float, second: float) -> float | None:
    single = np.float32
    with np.errstate(all="ignore"):
        if kind == "Mul":
            found = single(first) * single(second)
        elif kind in ("Add", "AddV2"):
            found = single(first) + single(second)
        elif kind == "Sub":
            found = single(first) - single(second)
        elif kind == "RealDiv":
            found = single(first) / single(second)
        elif kind in ("Maximum", "Minimum"):
            found = (max if kind == "Maximum" else min)(single(first), single(second))
        else:
            return None
    return float(found) if math.isfinite(found) else None


def _scalar(op: _Op) -> float | None:
    value = op.attribute("value")
    for tensor in value.messages(8) if value is not None else ():
        if any(True for shape in tensor.messages(2) for _ in shape.raw(2)):
            return None
        form = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 19: "<e"}.get(tensor.integer(1))
        if form is None:
            return None
        raw = b"".join(tensor.raw(4))
        if raw:
            return float(struct.unpack(form, raw)[0]) if len(raw) == struct.calcsize(form) else None
        if 13 in tensor:
            return float(np.array(tensor.integers(13)[:1], np.uint16).view(np.float16)[0])
        numbers = [*tensor.floats(5), *tensor.floats(6, "d"), *tensor.integers(7), *tensor.integers(10)]
        return float(numbers[0]) if len(numbers) == 1 else 0.0 if not numbers else None
    return None


# --- Optimizers -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Update:
    """How one op of an optimizer moves one variable."""

    op: _Op
    variable: str
    algorithm: str
    slots: dict[str, str]
    """Canonical slot -> variable."""
    numbers: dict[str, _Op]
    powers: dict[str, _Op]


@dataclass
class _Optimizer:
    name: str
    algorithm: str
    updates: list[_Update] = field(default_factory=list)


def _updates(graph: _Graph) -> list[_Update]:
    found = (_update(graph, op) for op in graph.ops.values())
    return [each for each in found if each is not None]


def _update(graph: _Graph, op: _Op) -> _Update | None:
    if op.type in ("AssignSub", "AssignSubVariableOp"):
        return _assigned_adam(graph, op)
    if op.type in ("ScatterSub", "ResourceScatterSub", "ResourceScatterAdd", "ScatterAdd"):
        return _scattered_descent(graph, op)
    match = _APPLY.fullmatch(op.type)
    kind = f"{match[3]}{match[4] or ''}" if match else ""
    if match is None or kind not in _ARGUMENTS:
        return None
    slot_names, others = (each.split() for each in _ARGUMENTS[kind])
    if match[2]:
        others.insert(others.index("grad") + 1, "indices")
    variable = graph.variable_of(graph.input(op, 0))
    if variable is None or len(op.inputs) != 1 + len(slot_names) + len(others):
        return None
    slots = {}
    for place, name in enumerate(slot_names, 1):
        held = graph.variable_of(graph.input(op, place))
        if held is None:
            return None
        slots[name] = held
    numbers: dict[str, _Op] = {}
    powers: dict[str, _Op] = {}
    for place, name in enumerate(others, 1 + len(slot_names)):
        value = graph.input(op, place)
        if value is None or name in ("grad", "indices", "global_step"):
            continue
        (powers if name.endswith("_power") and name.startswith("beta") else numbers)[name] = value
    algorithm = _ALGORITHMS.get(kind, kind)
    if kind in ("Momentum", "KerasMomentum"):
        algorithm = "Nesterov" if op.flag("use_nesterov") else "Momentum"
    if kind == "Adam" and op.flag("use_nesterov"):
        algorithm = "Nadam"
    return _Update(op, variable, algorithm, slots, numbers, powers)


class _Otherwise(Exception):
    """An op is not of the type that a pattern has in its place."""


def _assigned_adam(graph: _Graph, op: _Op) -> _Update | None:
    """TF1's Adam on rows: `var -= rate * sqrt(1 - beta2_power) / (1 - beta1_power) * m / (sqrt(v) + epsilon)`."""

    def step(of: _Op, place: int, *types: str) -> _Op:
        found = graph.input(of, place)
        if found is None or (types and found.type not in types):
            raise _Otherwise
        return found

    def scatter(read: _Op) -> _Op:
        if read.type == "ScatterAdd":
            return read
        if read.type != "ReadVariableOp":
            raise _Otherwise
        handle = graph.variable_of(read)
        candidates = graph.variables[handle].op.after if handle is not None else ()
        for each in candidates:
            inside = each.name.rpartition("/")[0] == read.name.rpartition("/")[0]
            if each.type == "ResourceScatterAdd" and inside:
                return each
        raise _Otherwise

    try:
        quotient = step(op, 1, "RealDiv")
        scaled, below = step(quotient, 0, "Mul"), step(quotient, 1, "AddV2", "Add")
        corrected = step(scaled, 0, "RealDiv")
        numerator = step(corrected, 0, "Mul")
        power_2 = step(step(step(numerator, 1, "Sqrt"), 0, "Sub"), 1)
        power_1 = step(step(corrected, 1, "Sub"), 1)
        m_scatter, v_scatter = scatter(step(scaled, 1)), scatter(step(step(below, 0, "Sqrt"), 0))
        m_rows, v_rows = step(m_scatter, 2, "Mul"), step(v_scatter, 2, "Mul")
        beta_1, beta_2 = step(step(m_rows, 1, "Sub"), 1), step(step(v_rows, 1, "Sub"), 1)
        rate, epsilon = step(numerator, 0), step(below, 1)
    except _Otherwise:
        return None
    variable, m, v = (graph.variable_of(graph.input(each, 0)) for each in (op, m_scatter, v_scatter))
    if variable is None or m is None or v is None:
        return None
    numbers = {"learning_rate": rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    powers = {"beta_1_power": power_1, "beta_2_power": power_2}
    return _Update(op, variable, "Adam", {"m": m, "v": v}, numbers, powers)


def _scattered_descent(graph: _Graph, op: _Op) -> _Update | None:
    """Gradient descent on rows, in an optimizer's scope: `var[indices] -= values * rate`, or `+= -values * rate`."""
    rows = graph.input(op, 2)
    variable = graph.variable_of(graph.input(op, 0))
    if variable is None or rows is None or rows.type != "Mul" or "/update_" not in op.name:
        return None
    values = graph.input(rows, 0)
    if op.type.endswith("Add") and (values is None or values.type != "Neg"):
        return None
    rate = graph.input(rows, 1)
    return _Update(op, variable, "SGD", {}, {"learning_rate": rate} if rate is not None else {}, {})


def _grouped(graph: _Graph, updates: Iterable[_Update]) -> list[_Optimizer]:
    """The optimizers behind updates: those of one algorithm with the same tensors as hyperparameters."""
    found: dict[tuple[object, ...], _Optimizer] = {}
    for update in updates:
        tensors = sorted(
            (name, root.name)
            for name, op in (*update.numbers.items(), *update.powers.items())
            if (root := graph.root(op)) is not None
        )
        head, inside, _ = update.op.name.partition("/update_")
        key = (update.algorithm, *tensors)
        group = found.setdefault(key, _Optimizer(head if inside else "train", update.algorithm))
        group.updates.append(update)
    optimizers = list(found.values())
    short = [each.name.rpartition("/")[2] for each in optimizers]
    taken: set[str] = set()
    for each, name in zip(optimizers, short, strict=True):
        name = name if short.count(name) == 1 else each.name.replace("/", "_")
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        each.name = unique
    return optimizers


# --- What is what -----------------------------------------------------------------------------------------------------
class _Finding:
    def __init__(self, path: Path, graph: _Graph, tensors: Mapping[str, Stored], read: Read) -> None:
        self.path = path
        self.graph = graph
        self.tensors = tensors
        self.read = read
        self.notes: list[str] = []
        self.optimizers = _grouped(graph, _updates(graph))
        self.parts: dict[str, list[str]] = self._saved()
        """Key -> the variables that it holds: one, or the parts of a partitioned one."""
        self._check_shapes()
        self.key = {variable: key for key, parts in self.parts.items() for variable in parts}
        self.entries: dict[str, Entry] = {}
        self.averaged: set[str] = set()
        self.collected = {name for names in graph.collections.values() for name in names}
        self.trainable = set(graph.collections.get("trainable_variables", ()))

    def _saved(self) -> dict[str, list[str]]:
        """Key -> variables, as the Saver's ops say; a key that they do not name is the variable of that name."""
        graph = self.graph
        saves = [op for op in graph.ops.values() if op.type in ("SaveV2", "Save", "SaveSlices")]
        if len(saves) > 1 and graph.saver_file in graph.ops:
            own = [op for op in saves if graph.saver_file in graph.ancestors(graph.input(op, 0))]
            saves = own or saves
        found: dict[str, list[str]] = {}
        for op in saves:
            names = graph.text_constant(graph.input(op, 1))
            for name, tensor in zip(names, op.inputs[2 if op.type == "Save" else 3 :], strict=False):
                variable = graph.variable_of(graph.ops.get(_node(tensor)))
                if variable is not None and name in self.tensors and variable not in found.get(name, ()):
                    found.setdefault(name, []).append(variable)
        for key in self.tensors:
            if key in graph.variables:
                found.setdefault(key, [key])
        return found

    def _check_shapes(self) -> None:
        if self.tensors and not self.parts:
            raise GraphError(f"The graph in {self.path} has none of the checkpoint's tensors: it is another's.")
        for key, parts in self.parts.items():
            shape, held = self.graph.variables[parts[0]].shape, self.tensors[key].shape
            if len(parts) == 1 and parts[0] not in self.graph.slices and shape is not None and shape != held:
                raise GraphError(
                    f"The graph in {self.path} is another checkpoint's: {key} has shape {held}, {shape} in the graph."
                )

    def _own_name(self, variable: str) -> str:
        """A variable's own name; of a part, the whole variable's."""
        if variable in self.graph.slices:
            return self.graph.slices[variable] or variable
        key = self.key.get(variable)
        if key is not None and len(self.parts[key]) > 1:
            return key
        return variable

    def contents(self) -> Contents:
        found = [self._optimizer(each) for each in self.optimizers]
        trained = {self.key.get(update.variable) for each in self.optimizers for update in each.updates}
        moving = self._averages()
        open_keys: list[str] = []
        for key in self.tensors:
            if key in self.entries:
                continue
            if key not in self.parts:
                open_keys.append(key)
                continue
            entry = self._variable(key, key in trained, moving)
            if entry is None:
                open_keys.append(key)
            else:
                self.entries[key] = entry
        if open_keys:
            found += self._by_names(open_keys)
        if self.graph.applies_in_functions:
            self.notes.append(f"{self.path.name} has optimizers inside functions, which are told by names alone")
        entries = tuple(self.entries[key] for key in self.tensors)
        return Contents(entries, tuple(found), tuple(dict.fromkeys(self.notes)))

    def _optimizer(self, each: _Optimizer) -> OptimizerEntry:
        numbers: dict[str, float] = {}
        varying: list[str] = []
        variables: list[str] = []
        powers: dict[str, str] = {}
        for update in each.updates:
            variable = self._own_name(update.variable)
            variables.append(variable)
            for slot, held in update.slots.items():
                self._add(held, Role.SLOT, slot_name(each.name, slot, variable), variable, each.name, slot)
            for power, op in update.powers.items():
                held_power = self.graph.variable_of(self.graph.root(op))
                if held_power is not None:
                    name = f"optimizer/{each.name}/{power}"
                    self._add(held_power, Role.POWER, name, optimizer=each.name)
                    if held_power in self.key:
                        powers[power] = self.key[held_power]
        for name, op in each.updates[0].numbers.items():
            self._number(each.name, name, op, numbers, varying)
        if len(powers) == 2 and not {"beta_1", "beta_2"} <= numbers.keys():
            values = [self.read(powers[name]) for name in ("beta_1_power", "beta_2_power")]
            for name, value in inferred_betas(each.name, values[0], values[1], self.notes).items():
                numbers.setdefault(name, value)
        return OptimizerEntry(
            each.name, each.algorithm, "tf1", numbers, tuple(dict.fromkeys(variables)), tuple(varying)
        )

    def _number(self, optimizer: str, name: str, op: _Op, numbers: dict[str, float], varying: list[str]) -> None:
        value = self.graph.constant(op)
        if value is not None:
            numbers[name] = value
            return
        held = self.graph.variable_of(self.graph.root(op))
        key = self.key.get(held) if held is not None else None
        if held is not None and key is not None and not self.tensors[key].shape:
            self._add(held, Role.HYPERPARAMETER, f"optimizer/{optimizer}/{name}", optimizer=optimizer)
            numbers[name] = float(self.read(key))
            return
        varying.append(name)

    def _add(self, variable: str, role: Role, name: str, of: str = "", optimizer: str = "", slot: str = "") -> None:
        key = self.key.get(variable)
        if key is not None:
            self.entries.setdefault(key, Entry(key, role, name, of, optimizer, slot))

    def _averages(self) -> dict[str, str | None]:
        """A variable that a moving average is kept in -> the variable it is of, None where that is no variable.

        Known by `var -= (var - value) * (1 - decay)`.
        """
        graph = self.graph
        found: dict[str, str | None] = {}
        for op in graph.ops.values():
            if op.type not in ("AssignSub", "AssignSubVariableOp"):
                continue
            variable, change = graph.variable_of(graph.input(op, 0)), graph.input(op, 1)
            if variable is None or change is None or change.type != "Mul":
                continue
            difference = graph.input(change, 0)
            if difference is None or difference.type != "Sub":
                continue
            if graph.variable_of(graph.input(difference, 0)) == variable:
                found[variable] = graph.variable_of(graph.input(difference, 1))
        return found

    def _variable(self, key: str, trained: bool, moving: Mapping[str, str | None]) -> Entry | None:
        """What a variable that is no optimizer's is; None where only its name may tell."""
        parts = self.parts[key]
        name = self._own_name(parts[0])
        stored = self.tensors[key]
        floating = "float" in stored.dtype or "complex" in stored.dtype
        if trained:
            return Entry(key, Role.WEIGHT, name)
        if not floating:
            counts = stored.dtype in ("int32", "int64") and not stored.shape
            is_step = parts[0] in self.graph.collections.get("global_step", ())
            if counts and (is_step or self._is_counted(parts[0])) and parts[0].rpartition("/")[2] not in _BOOKKEEPING:
                return Entry(key, Role.COUNT, name)
            return Entry(key, Role.OTHER, key)
        if parts[0] in moving:
            average_of = moving[parts[0]]
            if average_of is None or not AVERAGE.fullmatch(parts[0]):
                return Entry(key, Role.STATISTIC, name)
            variable = self._own_name(average_of)
            canonical = f"average/{variable}"
            if canonical in self.averaged:
                self.notes.append(f"{variable} has several moving averages: {key} goes by its own name")
                canonical = f"average/{key}"
            self.averaged.add(canonical)
            return Entry(key, Role.AVERAGE, canonical, variable)
        if parts[0] in self.trainable:
            return Entry(key, Role.WEIGHT, name)
        if parts[0].rpartition("/")[2] in _BOOKKEEPING:
            return Entry(key, Role.OTHER, key)
        if parts[0] in self.collected and self._changes(parts[0]) and not self.graph.applies_in_functions:
            return Entry(key, Role.STATISTIC, name)
        return None

    def _is_counted(self, variable: str) -> bool:
        after = self.graph.variables[variable].op.after
        return any(op.type in ("AssignAdd", "AssignAddVariableOp") for op in after)

    def _changes(self, variable: str) -> bool:
        """Whether anything but its initialiser and a Saver writes to a variable."""
        for op in self.graph.variables[variable].op.after:
            if _CHANGES.fullmatch(op.type) and self.graph.variable_of(self.graph.input(op, 0)) == variable:
                if op.name == f"{variable}/Assign":
                    continue
                value = self.graph.root(self.graph.input(op, 1))
                if value is None or not value.type.startswith("Restore"):
                    return True
        return False

    def _by_names(self, keys: list[str]) -> list[OptimizerEntry]:
        """What the graph leaves open, by names; the optimizers that only names tell of."""
        named = by_names(self.tensors, self.read)
        entries = {entry.key: entry for entry in named.entries}
        taken = {each.name for each in self.optimizers}
        used: set[str] = set()
        for key in keys:
            entry = entries[key]
            own = self._own_name(self.parts[key][0]) if key in self.parts else entry.name
            if entry.role in (Role.WEIGHT, Role.STATISTIC):
                entry = Entry(key, entry.role, own)
            elif entry.optimizer in taken:
                entry = Entry(key, Role.WEIGHT, own)
                self.notes.append(f"{key} has the name of a slot and is none of the graph's optimizers'")
            elif entry.optimizer:
                used.add(entry.optimizer)
            self.entries[key] = entry
        self.notes += [note for note in named.notes if any(name in note for name in used)]
        return [each for each in named.optimizers if each.name in used]
