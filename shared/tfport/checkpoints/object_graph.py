"""What each tensor of an object-based checkpoint is (tf.train.Checkpoint, TF2's SavedModels), by its object graph.

The graph is a protobuf in the string tensor `OBJECT_GRAPH`: TensorFlow's
`tensorflow/core/protobuf/trackable_object_graph.proto`. It is parsed here, without TensorFlow.

Optimizers are known by how they keep their variables:

* slot variables (`.OPTIMIZER_SLOT` in the keys): tf_keras's legacy optimizers and tf.compat.v1's;
* lists of slots beside `_iterations`: Keras 3's, which also list what they train, and tf_keras's, whose slots tell by
  their names;
* lists `m`, `v` and the like beside a list of variables of the same shapes: a user's own.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfport.checkpoints import canonical_names
from tfport.checkpoints.contents import (
    STRING,
    Array,
    Bytes,
    Contents,
    Entry,
    OptimizerEntry,
    Role,
    Source,
    Stored,
    damaged,
)
from tfport.errors import CheckpointError
from tfport.state import iterations_name, slot_name
from tfport.subject import CORRECTED

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key of the string tensor that holds the graph."""

Read = Callable[[str], Array]

_VALUE = "VARIABLE_VALUE"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_ITERATIONS = re.compile(r"optimizer/[^/]+/iterations")


class Message:
    """One protobuf message, its fields by number; nothing nested is looked at until asked.

    Every method raises ValueError for bytes that are no such message.
    """

    __slots__ = ("_fields",)

    def __init__(self, data: Bytes) -> None:
        found: dict[int, list[int | memoryview]] = {}
        for number, value in walk(data):
            found.setdefault(number, []).append(value)
        self._fields = found

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def raw(self, number: int) -> list[memoryview]:
        """A field's values that are bytes, texts, messages, or numbers of a fixed size."""
        values = self._fields.get(number, ())
        found = [value for value in values if not isinstance(value, int)]
        if len(found) != len(values):
            raise ValueError(f"field {number} is a number, expected bytes")
        return found

    def messages(self, number: int) -> Iterator[Message]:
        """A field's values as messages."""
        return (Message(value) for value in self.raw(number))

    def texts(self, number: int) -> list[str]:
        """A field's values as texts."""
        return [str(value, "utf-8") for value in self.raw(number)]

    def text(self, number: int) -> str:
        """The field's last value as text, "" where there is none."""
        return (self.texts(number) or [""])[-1]

    def integers(self, number: int) -> list[int]:
        """A field's whole numbers, packed or not, negative ones as int64."""
        found: list[int] = []
        for value in self._fields.get(number, ()):
            if isinstance(value, int):
                found.append(value)
                continue
            place = 0
            while place < len(value):
                each, place = _varint(value, place, len(value))
                found.append(each)
        return [each - (1 << 64) if each >> 63 else each for each in found]

    def integer(self, number: int) -> int:
        """The field's last whole number, 0 where there is none."""
        return (self.integers(number) or [0])[-1]

    def floats(self, number: int, form: str = "f") -> list[float]:
        """A field's floats ("f") or doubles ("d"), packed or not."""
        found: list[float] = []
        for value in self.raw(number):
            try:
                found += (each[0] for each in struct.iter_unpack(f"<{form}", value))
            except struct.error:
                raise ValueError(f"field {number} holds {len(value)} bytes of floats") from None
        return found


def walk(data: Bytes) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, one at a time: number, and an integer or the bytes of anything else.

    Raises:
      ValueError: the bytes are no message.
    """
    view = memoryview(data)
    end = len(view)
    place = 0
    while place < end:
        tag, place = _varint(view, place, end)
        kind = tag & 7
        if tag >> 3 == 0:
            raise ValueError("a field numbered 0")
        if kind == 0:
            number, place = _varint(view, place, end)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, place = _varint(view, place, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - place:
            raise ValueError(f"it is cut: a field of {size:,} bytes where {end - place:,} are left")
        yield tag >> 3, view[place : place + size]
        place += size


def _varint(view: memoryview, place: int, end: int) -> tuple[int, int]:
    if place < end and view[place] < 0x80:
        return view[place], place + 1
    result = shift = 0
    while place < end:
        byte = view[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >> 64:
                raise ValueError("a number of more than 64 bits")
            return result, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
    raise ValueError("it ends within a number")


@dataclass(slots=True)
class Node:
    """One object: its children, its variable if it is one, and slot variables if it is an optimizer."""

    children: dict[str, int] = field(default_factory=dict)
    """Local name -> node."""
    full_name: str = ""
    key: str = ""
    """Key of its VARIABLE_VALUE; "" for what is no variable."""
    others: tuple[str, ...] = ()
    """Keys of its other attributes."""
    slots: tuple[tuple[int, str, int], ...] = ()
    """(variable's node, slot's name, slot's node)."""


def parse(data: Bytes) -> list[Node]:
    """The nodes of a TrackableObjectGraph, the root first.

    Raises:
      ValueError: the bytes are none.
    """
    empty = Node()
    nodes = [_node(Message(each)) if len(each) else empty for each in Message(data).raw(1)]
    if not nodes:
        raise ValueError("it holds no objects")
    for node in nodes:
        pointed = [*node.children.values(), *(each for slot in node.slots for each in (slot[0], slot[2]))]
        if any(not 0 <= each < len(nodes) for each in pointed):
            raise ValueError(f"an object refers to one that is not among its {len(nodes):,}")
    return nodes


def _node(message: Message) -> Node:
    node = Node()
    for child in message.messages(1):
        node.children.setdefault(child.text(2), child.integer(1))
    others = []
    for attribute in message.messages(2):
        if attribute.text(1) == _VALUE and not node.key:
            node.full_name, node.key = attribute.text(2).removesuffix(":0"), attribute.text(3)
        else:
            others.append(attribute.text(3))
    node.others = tuple(others)
    node.slots = tuple((each.integer(1), each.text(2), each.integer(3)) for each in message.messages(3))
    return node


def contents(source: Source) -> Contents:
    """What each tensor of an object-based checkpoint is. Reads scalars and the object graph only.

    Args:
      source: has a method `strings(key)`, as BundleSource.

    Raises:
      CheckpointError: the object graph is missing or damaged.
    """
    strings = getattr(source, "strings", None)
    if strings is None or OBJECT_GRAPH not in source.tensors:
        raise CheckpointError(
            f"{source.path} holds no object graph ({OBJECT_GRAPH}); expected a checkpoint of tf.train.Checkpoint."
        )
    graphs = strings(OBJECT_GRAPH)
    if len(graphs) != 1:
        raise damaged(source.path, f"{OBJECT_GRAPH} holds {len(graphs)} texts, expected 1")
    return contents_of(source.path, graphs[0], source.tensors, source.read)


def contents_of(path: Path, graph: Bytes, tensors: Mapping[str, Stored], read: Read) -> Contents:
    """As `contents`, of an object graph's bytes.

    Args:
      path: named in errors.
      graph: a serialized TrackableObjectGraph.
      tensors: what the checkpoint holds.
      read: reads one tensor; called for scalars only.

    Raises:
      CheckpointError: the object graph is damaged.
    """
    try:
        nodes = parse(graph)
    except ValueError as error:
        raise damaged(path, f"its object graph cannot be read ({error})") from None
    return _of_a_tree(nodes, tensors) or _Finding(nodes, tensors, read).contents()


def _of_a_tree(nodes: list[Node], tensors: Mapping[str, Stored]) -> Contents | None:
    """What a tree of canonical names holds, as `tree_graph` makes it; None where this is none."""
    named = {node.key: node.full_name for node in nodes if node.key}
    if any(key != f"{name}{_SUFFIX}" for key, name in named.items()) or any(node.slots for node in nodes):
        return None
    if not any(_ITERATIONS.fullmatch(name) for name in named.values()):
        return None
    entries = []
    for key, stored in tensors.items():
        if key in named:
            known = canonical_names.entry_of(Stored(named[key], stored.shape, stored.dtype))
            entries.append(replace(known, key=key))
        else:
            entries.append(Entry(key, Role.OTHER, key))
    return Contents(tuple(entries), canonical_names.optimizers_of(tuple(entries)))


# --- Optimizers -------------------------------------------------------------------------------------------------------
@dataclass
class _Kept:
    """A slot's variable, and whose it is."""

    slot: str
    variable: int | None
    """Node of the variable, None where it is not in the checkpoint."""
    name: str = ""
    """The variable's name, where it is not in the checkpoint."""


@dataclass
class _Optimizer:
    node: int
    convention: str
    algorithm: str | None
    name: str = ""
    slots: dict[int, _Kept] = field(default_factory=dict)
    """Node of the slot's variable -> what it is."""
    averages: dict[int, _Kept] = field(default_factory=dict)
    count: int | None = None
    powers: dict[str, int] = field(default_factory=dict)
    """`beta_1_power`, `beta_2_power` -> node."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Canonical hyperparameter -> node."""
    varying: list[str] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


_LISTS: tuple[tuple[str, str | None, Mapping[str, str]], ...] = (
    ("momentums", None, {"momentums": "accumulator"}),
    (
        "_average_gradients",
        "RMSProp",
        {"_velocities": "rms", "_average_gradients": "mean", "_momentums": "momentum"},
    ),
    (
        "_accumulated_grads",
        "Adadelta",
        {"_accumulated_grads": "accumulator", "_accumulated_delta_vars": "accumulator_update"},
    ),
    ("_linears", "Ftrl", {"_accumulators": "accumulator", "_linears": "linear"}),
    ("_accumulators", "Adagrad", {"_accumulators": "accumulator"}),
    ("_u", "Adamax", {"_m": "m", "_u": "v"}),
    ("_u_product", "Nadam", {"_momentums": "m", "_velocities": "v"}),
    ("_velocities", None, {"_momentums": "m", "_velocities": "v"}),
)
"""For Keras's optimizers but the legacy ones: a list that tells the algorithm, the algorithm, list -> canonical slot.
The first that fits counts."""

_WORDS = {
    "momentums": ("m",),
    "_momentums": ("m", "momentum"),
    "_velocities": ("v", "velocity"),
    "_velocity_hats": ("vhat",),
    "_average_gradients": ("average_gradient",),
    "_accumulated_grads": ("accumulated_grad",),
    "_accumulated_delta_vars": ("accumulated_delta_var",),
    "_accumulators": ("accumulator",),
    "_linears": ("linear",),
    "_m": ("m",),
    "_u": ("u",),
    "_model_variables_moving_average": ("average",),
}
"""tf_keras's list -> the word before the variable's name in a slot's name."""

_NO_SLOTS = ("_variables", "_trainable_variables", "_trainable_variables_indices", "_model_variables_moving_average")
_CLASSES = {
    "adam": "Adam",
    "adam_w": "AdamW",
    "adamw": "AdamW",
    "lamb": "Lamb",
    "adamax": "Adamax",
    "nadam": "Nadam",
    "lion": "Lion",
}
"""A default name of Keras's optimizers -> the class."""

_LEGACY: Mapping[str, str] = {
    "m": "m",
    "v": "v",
    "rms": "rms",
    "mg": "mean",
    "accum_grad": "accumulator",
    "accum_var": "accumulator_update",
    "accum": "accumulator",
    "accum_update": "accumulator_update",
    "accumulator": "accumulator",
    "linear": "linear",
}
"""A slot variable's name -> the canonical slot; "momentum" is Momentum's accumulator unless there is an rms."""

_NUMBERS = {
    "learning_rate": "learning_rate",
    "_learning_rate": "learning_rate",
    "_current_learning_rate": "learning_rate",
    "lr": "learning_rate",
    "decay": "decay",
    "beta_1": "beta_1",
    "beta_2": "beta_2",
    "rho": "rho",
    "momentum": "momentum",
    "epsilon": "epsilon",
    "beta": "beta",
    "weight_decay": "weight_decay",
    "l1_regularization_strength": "l1",
    "l2_regularization_strength": "l2",
    "learning_rate_power": "learning_rate_power",
}
"""An optimizer's child that is a float scalar -> the canonical hyperparameter."""

_OWN_SLOTS = {
    "m": "m",
    "v": "v",
    "rms": "rms",
    "ms": "rms",
    "mg": "mean",
    "mean": "mean",
    "momentum": "momentum",
    "accumulator": "accumulator",
    "accumulators": "accumulator",
    "accumulator_update": "accumulator_update",
    "linear": "linear",
}
"""A list of a user's own optimizer -> the canonical slot."""

_POWER = re.compile(r"_?beta_?([12])_power")
_COUNTS = ("_iterations", "iterations", "iter", "iteration", "step", "steps", "count")
_DEFAULT_NAME = re.compile(r"(.*/)?[Vv]ariable(_\d+)?")
_AVERAGE = re.compile(r"(.+)/ExponentialMovingAverage(_\d+)?")
STATISTICS = re.compile(
    r"(moving|running|pop|population)_(mean|variance|var|avg|std|stddev)|renorm_(mean|stddev)(_weight)?"
    r"|mov(ing)?_(mean|var)(iance)?"
)
"""The last part of the names of moving statistics."""
_DEEPEST = 100
"""Steps from the root within which objects are looked for."""
_METRICS = ("metrics", "_metrics", "compiled_metrics", "_compile_metrics", "compile_metrics")
COUNTERS = ("global_step", "step", "steps", "epoch", "global_epoch", "iterations", "iteration")
"""The last part of the names of integer scalars that count something."""


class _Paths(Mapping[int, tuple[str, ...]]):
    """The shortest path to each node, made when it is asked for; nodes deeper than `_DEEPEST` are left out."""

    def __init__(self, nodes: Sequence[Node], closed: set[int]) -> None:
        self._before: dict[int, tuple[int, str]] = {}
        if 0 in closed:
            return
        self._before[0] = (-1, "")
        level = [0]
        for _ in range(_DEEPEST):
            below = []
            for here in level:
                for name, child in nodes[here].children.items():
                    if child not in self._before and child not in closed:
                        self._before[child] = (here, name)
                        below.append(child)
            level = below

    def __getitem__(self, node: int) -> tuple[str, ...]:
        found: list[str] = []
        before, name = self._before[node]
        while before >= 0:
            found.append(name)
            before, name = self._before[before]
        return tuple(reversed(found))

    def __iter__(self) -> Iterator[int]:
        return iter(self._before)

    def __len__(self) -> int:
        return len(self._before)

    def __contains__(self, node: object) -> bool:
        return node in self._before


class _Finding:
    def __init__(self, nodes: list[Node], tensors: Mapping[str, Stored], read: Read) -> None:
        self.nodes = nodes
        self.tensors = tensors
        self.read = read
        self.notes: list[str] = []
        self._known_lists: dict[int, dict[int, int]] = {}
        self.paths = self._paths(set())
        self.optimizers = self._optimizers()
        inside = {each.node for each in self.optimizers}
        kept = {node for each in self.optimizers for node in (*each.slots, *each.averages)}
        self.trained = {node for each in self.optimizers for node in each.trained}
        self.outside = self._paths(inside | kept)
        self.names = self._names(kept)

    # --- Structure ----------------------------------------------------------------------------------------------------
    def _paths(self, closed: set[int]) -> _Paths:
        """The shortest path to each node that can be reached without passing a node in `closed`."""
        return _Paths(self.nodes, closed)

    def _stored(self, node: int) -> Stored | None:
        """The variable's tensor, if the node is a variable that the checkpoint holds."""
        return self.tensors.get(self.nodes[node].key)

    def _list(self, node: int) -> dict[int, int]:
        """Place -> node, of a list of variables; empty for anything else."""
        if node not in self._known_lists:
            self._known_lists[node] = self._read_list(node)
        return self._known_lists[node]

    def _read_list(self, node: int) -> dict[int, int]:
        children = self.nodes[node].children
        if not all(name.isdecimal() and name.isascii() and len(name) < 10 for name in children):
            return {}
        found = {int(name): child for name, child in children.items()}
        return {place: found[place] for place in sorted(found) if self._stored(found[place]) is not None}

    def _is_scalar(self, node: int, kinds: str) -> bool:
        stored = self._stored(node)
        if stored is None or stored.shape or stored.dtype == STRING:
            return False
        return ("f" if "float" in stored.dtype else "i") in kinds and stored.dtype != "bool"

    # --- Finding optimizers -------------------------------------------------------------------------------------------
    def _optimizers(self) -> list[_Optimizer]:
        found = []
        for index in self.paths:
            children = self.nodes[index].children
            if self.nodes[index].slots or ("iter" in children and "decay" in children):
                found.append(self._legacy(index))
            elif "_iterations" in children and "_variables" in children:
                if "inner_optimizer" not in children:
                    found.append(self._modern(index))
            elif (own := self._own(index)) is not None:
                found.append(own)
        short = [self._short_name(each.node) for each in found]
        taken: set[str] = set()
        for optimizer, name in zip(found, short, strict=True):
            if short.count(name) > 1:
                name = "_".join(self.paths[optimizer.node]) or name
            unique, count = name, 1
            while unique in taken:
                unique, count = f"{name}_{count}", count + 1
            taken.add(unique)
            optimizer.name = unique
        return found

    def _short_name(self, node: int) -> str:
        path = [each for each in self.paths[node] if each != "inner_optimizer"]
        name = path[-1] if path else "optimizer"
        return f"optimizer_{name}" if name.isdecimal() else name.replace("/", "_") or "optimizer"

    def _scalars(self, found: _Optimizer) -> None:
        """An optimizer's count, beta powers and numbers, among its children."""
        for name, child in self.nodes[found.node].children.items():
            if found.count is None and name in _COUNTS and self._is_scalar(child, "i"):
                found.count = child
            elif self._is_scalar(child, "f"):
                if match := _POWER.fullmatch(name):
                    found.powers.setdefault(f"beta_{match[1]}_power", child)
                elif name in _NUMBERS:
                    found.numbers.setdefault(_NUMBERS[name], child)
        if "_current_learning_rate" in self.nodes[found.node].children:
            found.varying.append("learning_rate")

    def _legacy(self, index: int) -> _Optimizer:
        node = self.nodes[index]
        keras = "iter" in node.children
        found = _Optimizer(index, "keras" if keras else "tf1", None)
        self._scalars(found)
        kinds = {slot for _, slot, _ in node.slots}
        for variable, slot, kept in node.slots:
            canonical = _LEGACY.get(slot, slot)
            if slot == "momentum":
                canonical = "momentum" if "rms" in kinds else "accumulator"
            found.slots[kept] = _Kept(canonical, variable)
        found.trained = list(dict.fromkeys(variable for variable, _, _ in node.slots))
        found.algorithm = self._legacy_algorithm(found, kinds) if keras else self._tf1_algorithm(found, kinds)
        if keras and (decay := found.numbers.get("decay")) is not None:
            if self._value(decay):
                found.varying.append("learning_rate")
            else:
                del found.numbers["decay"]
        return found

    def _legacy_algorithm(self, found: _Optimizer, kinds: set[str]) -> str | None:
        children = self.nodes[found.node].children
        if "rho" in children:
            if "accum_grad" in kinds or "momentum" not in children:
                return "Adadelta"
            name = "CenteredRMSProp" if "mg" in kinds else "RMSProp"
            return name if "momentum" in kinds else name + CORRECTED
        if "l1_regularization_strength" in children:
            return "Ftrl"
        if "momentum_cache" in children:
            return "Nadam"
        if "beta_1" in children:
            if "vhat" in kinds:
                return "AMSGrad Adam"
            return self._by_class(found, ("Adam", "Adamax"))
        if "momentum" in children:
            if not self._value(children["momentum"]):
                return "SGD"
            return self._open(found, "Momentum or Nesterov")
        if "accumulator" in kinds:
            return "Adagrad" + CORRECTED
        return self._open(found, "of a class that is not known")

    def _tf1_algorithm(self, found: _Optimizer, kinds: set[str]) -> str | None:
        if {"m", "v"} <= kinds and len(found.powers) == 2:
            return "Adam"
        if {"m", "v"} <= kinds and "beta_1_power" in found.powers:
            return "Adamax"
        if "rms" in kinds:
            return "CenteredRMSProp" if "mg" in kinds else "RMSProp"
        for names, algorithm in (({"accum", "accum_update"}, "Adadelta"), ({"accum", "linear"}, "Ftrl")):
            if names <= kinds:
                return algorithm
        if kinds == {"momentum"}:
            return self._open(found, "Momentum or Nesterov")
        if kinds == {"accumulator"}:
            return self._open(found, "Adagrad or proximal Adagrad")
        return self._open(found, "of a class that is not known")

    def _modern(self, index: int) -> _Optimizer:
        """An optimizer of Keras 3's, or one of tf_keras's that is not legacy."""
        node = self.nodes[index]
        keras3 = "_trainable_variables" in node.children
        found = _Optimizer(index, "keras", None)
        self._scalars(found)
        if keras3 and "_learning_rate" not in node.children:
            found.varying.append("learning_rate")
        rows = next((each for each in _LISTS if each[0] in node.children), ("", None, {}))
        marker, algorithm, known = rows
        lists = {
            name: self._list(child)
            for name, child in node.children.items()
            if name not in _NO_SLOTS and self.nodes[child].children
        }
        if keras3:
            trained = self._list(node.children["_trainable_variables"])
            found.trained = list(trained.values())
        for name, kept in lists.items():
            slot = known.get(name, name.strip("_"))
            for place, variable in kept.items():
                owner = self._owner(name, variable, trained.get(place) if keras3 else None, keras3)
                if owner is not None:
                    found.slots[variable] = _Kept(slot, *owner)
        averages = node.children.get("_model_variables_moving_average")
        for place, variable in self._list(averages).items() if averages is not None else ():
            words = "_model_variables_moving_average"
            owner = self._owner(words, variable, trained.get(place) if keras3 else None, keras3)
            if owner is not None:
                found.averages[variable] = _Kept("average", *owner)
        if not keras3:
            owners = [each.variable for each in found.slots.values() if each.variable is not None]
            found.trained = list(dict.fromkeys(owners))
        if marker == "momentums":
            filled = bool(lists.get("momentums"))
            if keras3:
                algorithm = self._open(found, "Momentum or Nesterov") if filled else "SGD"
            else:
                algorithm = self._open(found, "SGD, Momentum or Nesterov")
        elif algorithm == "RMSProp" and lists.get("_average_gradients"):
            algorithm = "CenteredRMSProp"
        elif algorithm is None:
            algorithm = self._by_class(found, ("Adam", "AdamW", "Lamb", "Lion"))
            if algorithm in ("Adam", "AdamW") and lists.get("_velocity_hats"):
                algorithm = f"AMSGrad {algorithm}"
        found.algorithm = algorithm
        return found

    def _owner(self, words: str, kept: int, listed: int | None, keras3: bool) -> tuple[int | None, str] | None:
        """Whose a slot is: the variable's node, or its name where the checkpoint has it not; None where unknown."""
        shape = self.tensors[self.nodes[kept].key].shape
        if keras3:
            stored = self._stored(listed) if listed is not None else None
            if stored is not None and stored.shape == shape:
                return listed, ""
            self._unknown_slot(kept)
            return None
        parts = self.nodes[kept].full_name.split("/")
        candidates = _WORDS.get(words, (words.strip("_"),))
        rests = ["/".join(parts[at + 1 :]) for at, part in enumerate(parts[:-1]) if part in candidates]
        for rest in rests:
            named = [each for each in self._by_full_name().get(rest, ()) if each != kept]
            fitting = [each for each in named if self.tensors[self.nodes[each].key].shape == shape]
            if len(fitting) == 1:
                return fitting[0], ""
            if named:
                self._unknown_slot(kept)
                return None
        if rests and not _DEFAULT_NAME.fullmatch(rests[0]):
            return None, rests[0]
        self._unknown_slot(kept)
        return None

    def _unknown_slot(self, kept: int) -> None:
        self.notes.append(f"{self.nodes[kept].key}: which variable this slot belongs to cannot be told")

    _full_names: dict[str, list[int]] | None = None

    def _by_full_name(self) -> dict[str, list[int]]:
        if self._full_names is None:
            self._full_names = {}
            for index in self.paths:
                if self._stored(index) is not None:
                    self._full_names.setdefault(self.nodes[index].full_name, []).append(index)
        return self._full_names

    def _own(self, index: int) -> _Optimizer | None:
        """A user's own optimizer: lists of slots, beside a list of variables of the same shapes."""
        lists = {name: self._list(child) for name, child in self.nodes[index].children.items()}
        slots = {name: kept for name, kept in lists.items() if name in _OWN_SLOTS and kept}
        if not slots:
            return None
        shapes = {
            name: [self.tensors[self.nodes[each].key].shape for each in kept.values()] for name, kept in lists.items()
        }
        for name, held in lists.items():
            if name not in slots and held and all(shapes[each] == shapes[name] for each in slots):
                break
        else:
            self.notes.append(
                f"{'/'.join(self.paths[index]) or 'the root'} has {', '.join(slots)} like an optimizer's slots, and no "
                "list of variables of the same shapes: they are taken as variables"
            )
            return None
        found = _Optimizer(index, "tf1", None, trained=list(held.values()))
        self._scalars(found)
        for name, kept in slots.items():
            for variable, each in zip(held.values(), kept.values(), strict=True):
                found.slots[each] = _Kept(_OWN_SLOTS[name], variable)
        if set(slots) == {"m", "v"} and len(found.powers) == 2:
            found.algorithm = "Adam"
        elif set(slots) == {"rms", "momentum"}:
            found.algorithm = "RMSProp"
        else:
            self._open(found, "of a class of the user's own")
        return found

    def _by_class(self, found: _Optimizer, among: Sequence[str]) -> str | None:
        """The algorithm by the optimizer's own name, which by default is its class's."""
        names = [self.nodes[each].full_name for each in found.slots]
        if found.count is not None:
            names.append(self.nodes[found.count].full_name)
        for name in names:
            head = re.sub(r"_\d+$", "", name.split("/")[0]).lower()
            if "/" in name and _CLASSES.get(head) in among:
                return _CLASSES[head]
        return self._open(found, " or ".join(among))

    def _open(self, found: _Optimizer, readings: str) -> str | None:
        """Notes that the algorithm is one of several; it is None then."""
        path = "/".join(self.paths[found.node]) or "the root"
        self.notes.append(f"the optimizer at {path} is {readings}: the checkpoint does not tell")
        return None

    def _value(self, node: int) -> float:
        if not self._is_scalar(node, "fi"):
            return 0.0
        return float(self.read(self.nodes[node].key))

    # --- Names --------------------------------------------------------------------------------------------------------
    def _names(self, kept: set[int]) -> dict[int, str]:
        """A name for every variable that is no slot: its own, or its path where that is not unique."""
        variables = [index for index in self.paths if index not in kept and self._stored(index) is not None]
        full = {index: self.nodes[index].full_name for index in variables}
        counted = Counter(full.values())
        found = {}
        for index in variables:
            name = full[index]
            if not name or counted[name] > 1 or _DEFAULT_NAME.fullmatch(name) or _is_unsafe(name):
                name = self._path_name(index)
            found[index] = name
        for _ in range(2):
            counted = Counter(found.values())
            clashing = [index for index, name in found.items() if counted[name] > 1]
            for index in clashing:
                found[index] = self.nodes[index].key.removesuffix(_SUFFIX)
        return found

    def _path_name(self, index: int) -> str:
        path = "/".join(self.outside.get(index, ()))
        return path if path and not _is_unsafe(path) else self.nodes[index].key.removesuffix(_SUFFIX)

    # --- Contents -----------------------------------------------------------------------------------------------------
    def contents(self) -> Contents:
        entries: dict[str, Entry] = {}
        found = []
        for optimizer in self.optimizers:
            entries |= self._entries(optimizer)
            found.append(self._optimizer_entry(optimizer))
        within = self._inside_optimizers()
        for index, name in self.names.items():
            key = self.nodes[index].key
            if key not in entries:
                entries[key] = self._variable(index, name, index in within)
        for key in self.tensors:
            entries.setdefault(key, Entry(key, Role.OTHER, key))
        notes = tuple(dict.fromkeys(self.notes))
        return Contents(tuple(entries[key] for key in self.tensors), tuple(found), notes)

    def _inside_optimizers(self) -> set[int]:
        """Variables that are reached through an optimizer only."""
        return {index for index in self.names if index not in self.outside}

    def _variable_name(self, kept: _Kept) -> str:
        return self.names.get(kept.variable, kept.name) if kept.variable is not None else kept.name

    def _entries(self, each: _Optimizer) -> dict[str, Entry]:
        found: dict[str, Entry] = {}

        def add(node: int, role: Role, name: str, variable: str = "", slot: str = "") -> None:
            key = self.nodes[node].key
            if key in self.tensors:
                found.setdefault(key, Entry(key, role, name, variable, each.name, slot))

        for node, kept in each.slots.items():
            if variable := self._variable_name(kept):
                add(node, Role.SLOT, slot_name(each.name, kept.slot, variable), variable, kept.slot)
        for node, kept in each.averages.items():
            if variable := self._variable_name(kept):
                add(node, Role.AVERAGE, f"average/{variable}", variable)
        if each.count is not None:
            add(each.count, Role.COUNT, iterations_name(each.name))
        for name, node in each.powers.items():
            add(node, Role.POWER, f"optimizer/{each.name}/{name}")
        for name, node in each.numbers.items():
            add(node, Role.HYPERPARAMETER, f"optimizer/{each.name}/{name}")
        return found

    def _optimizer_entry(self, each: _Optimizer) -> OptimizerEntry:
        numbers = {name: self._value(node) for name, node in each.numbers.items()}
        if {"beta_1_power", "beta_2_power"} <= each.powers.keys():
            from tfport.checkpoints.tf1_names import inferred_betas

            powers = [self.read(self.nodes[each.powers[name]].key) for name in ("beta_1_power", "beta_2_power")]
            numbers |= inferred_betas(each.name, powers[0], powers[1], self.notes)
        if each.algorithm == "SGD" and numbers.get("momentum") == 0:
            del numbers["momentum"]
        slots = [kept for kept in each.slots.values() if kept.variable is None and kept.name]
        names = [self.names[node] for node in each.trained if node in self.names]
        names += dict.fromkeys(kept.name for kept in slots)
        return OptimizerEntry(
            each.name, each.algorithm, each.convention, numbers, tuple(names), tuple(dict.fromkeys(each.varying))
        )

    def _variable(self, index: int, name: str, within: bool) -> Entry:
        key = self.nodes[index].key
        stored = self.tensors[key]
        path = self.paths[index]
        last = path[-1] if path else ""
        floating = "float" in stored.dtype or "complex" in stored.dtype
        if index in self.trained:
            return Entry(key, Role.WEIGHT, name)
        if any(part in _METRICS for part in path) or within or path == ("save_counter",):
            return Entry(key, Role.OTHER, key)
        if not floating:
            counter = not stored.shape and (last in COUNTERS or name.rpartition("/")[2] in COUNTERS)
            if counter and stored.dtype in ("int32", "int64"):
                return Entry(key, Role.COUNT, name)
            return Entry(key, Role.OTHER, key)
        if match := _AVERAGE.fullmatch(self.nodes[index].full_name):
            return Entry(key, Role.AVERAGE, f"average/{match[1]}", match[1])
        if STATISTICS.fullmatch(last) or STATISTICS.fullmatch(name.rpartition("/")[2]):
            return Entry(key, Role.STATISTIC, name)
        return Entry(key, Role.WEIGHT, name)


def _is_unsafe(name: str) -> bool:
    return "\0" in name or "\\" in name or name.startswith("/") or ".." in name.split("/")
