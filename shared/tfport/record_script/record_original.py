#!/usr/bin/env python3
"""Records an original where TensorFlow 1.4 to 1.15 runs, so that a port can be held against it elsewhere.

    python record_original.py --legacy=train_tf1:build --batches=data:batch --steps=20 --record=original

Then copy the folder to where tfport is installed:

    tfport check --legacy=original --modern=train_keras:model

This file needs numpy and TensorFlow alone, and Python 3.5 or later. --legacy names a function that builds the graph and
returns a mapping: "loss" and "train_op", or "losses" and "train_ops" by phase (an OrderedDict where there are several
and Python is older than 3.6), and optionally "outputs", "inputs", "training" and "inference" (feeds of each mode),
"updates" and "initial". --batches names a function of the step's number that returns a mapping of placeholders' names
to arrays; or of nothing, that returns one such mapping or a list of them.

It records in float32: states, outputs, losses, gradients, intermediates, what each phase and each step does, and how
far rounding takes it. Random ops are fed numbers that are recorded too, and the port is fed the same.
"""

import argparse
import collections
import hashlib
import importlib
import inspect
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple  # noqa: F401

import numpy as np

try:
    import tensorflow.compat.v1 as tf  # 1.13 and later
except ImportError:
    import tensorflow as tf
from tensorflow.python.framework import tensor_util

VERSION = 1
WARM_STEPS, REPEAT_STEPS = 10, 10
DISTURBANCES, LOOKS = 3, 8
LEVELS = (0.125, 1.0)
SLACK, FLOOR = 16.0, 2.0**-20
BUILDS, FIRST_BUILD, DRAWN = 2, 1000, 100000
SYMMETRIC = 2.0**-16
MODES = ("training", "inference")

VARIABLES = ("VariableV2", "Variable", "VarHandleOp", "AutoReloadVariable")
PASSING = ("Identity", "ReadVariableOp", "Enter", "RefEnter", "RefIdentity", "StopGradient", "Switch", "RefSwitch")
ABOUT_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "VariableShape", "BroadcastGradientArgs")
PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
SOURCES = PLACEHOLDERS + ("IteratorGetNext",) + VARIABLES
SKIPPED = ("Const", "PreventGradient", "EnsureShape", "NextIteration", "LoopCond") + PASSING + ABOUT_SHAPES + VARIABLES
KINDS = {
    "RandomUniform": "uniform",
    "RandomStandardNormal": "normal",
    "TruncatedNormal": "truncated_normal",
    "RandomUniformInt": "integers",
    "RandomShuffle": "shuffle",
    "Multinomial": "multinomial",
    "LogUniformCandidateSampler": "log_uniform_candidates",
    "UniformCandidateSampler": "uniform_candidates",
}
BY_VALUE = ("RandomShuffle", "Multinomial", "LogUniformCandidateSampler", "UniformCandidateSampler")
DRAWING = re.compile(
    r"Random(Uniform|StandardNormal|UniformInt|Shuffle|Gamma|Poisson)\w*|ParameterizedTruncatedNormal"
    r"|TruncatedNormal|Multinomial|\w*CandidateSampler|Stateless(Random|Trunc|Multi)\w*|StatefulUniform\w*|Stateful\w*Normal\w*"
)
WRITES = re.compile(
    r"Assign\w*|(Resource)?(Sparse)?Apply\w+|(Resource)?Scatter(?!Nd$)\w*|Resource(?!Gather)\w+|CountUpTo"
)
APPLY = re.compile(r"(?:Resource)?(?:Sparse)?Apply([A-Z]\w+?)(?:V2)?$")
ALGORITHMS = {"GradientDescent": "SGD", "AdaMax": "Adamax"}
SLOTS = {
    "accum": "accumulator",
    "accum_update": "accumulator_update",
    "ms": "rms",
    "mg": "mean",
    "mom": "momentum",
    "linear": "linear",
}
NUMBERS = {
    "lr": "learning_rate",
    "alpha": "learning_rate",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "lr_power": "learning_rate_power",
}
POWERS = {"beta1_power": "beta_1", "beta2_power": "beta_2"}
COMMUTATIVE = {"Mul": "factor", "Add": "term", "AddV2": "term", "Maximum": "bound", "Minimum": "bound"}
NOT_SAID = (
    "N", "container", "explicit_paddings", "incompatible_shape_error", "message", "num_split", "parallel_iterations",
    "seed", "seed2", "shared_name", "use_cudnn_on_gpu", "validate_indices",
)  # fmt: skip
MAPPING_KEYS = ("inputs", "outputs", "losses", "train_ops", "training", "inference", "updates", "initial")


class Refused(Exception):
    """Something given cannot be used; says what was expected."""


# --- Files ------------------------------------------------------------------------------------------------------------
class Arrays(object):
    """A file of arrays, each content once."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "wb")
        self.known = {}  # type: Dict[bytes, int]
        self.size = 0

    def put(self, value: Any) -> List[Any]:
        """Keeps an array; returns its place: offset, dtype, shape and SHA-256."""
        value = np.asarray(value)
        if value.dtype.kind == "O":
            value = value.astype(str)
        whole = np.ascontiguousarray(value)
        data = whole.tobytes()
        digest = hashlib.sha256(data)
        if digest.digest() not in self.known:
            self.known[digest.digest()] = self.size
            self.file.seek(self.size)
            self.file.write(data)
            self.size += -(-len(data) // 64) * 64
        return [self.known[digest.digest()], value.dtype.str, list(value.shape), digest.hexdigest()]

    def keep(self, arrays: Any) -> Any:
        """Keeps a mapping of arrays."""
        return ordered((name, self.put(value)) for name, value in arrays.items())


def ordered(pairs: Iterable[Tuple[Any, Any]] = ()) -> Any:
    """An OrderedDict: older Pythons do not keep the order of a dict."""
    return collections.OrderedDict(pairs)


def plain(value: Any) -> Any:
    """The same tree with numbers that are not finite as text."""
    if isinstance(value, dict):
        return ordered((name, plain(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def checksum(path: str) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


# --- Graphs -----------------------------------------------------------------------------------------------------------
def before(op: Any) -> List[Any]:
    """What an op waits for."""
    return [tensor.op for tensor in op.inputs] + list(op.control_inputs)


def ancestors(things: Iterable[Any], fed: Iterable[Any] = ()) -> Set[Any]:
    """The ops of some tensors or ops and all that they need, but nothing behind tensors that are fed."""
    cut = {tensor.name for tensor in fed}
    found = set()  # type: Set[Any]
    pending = [each if hasattr(each, "outputs") else each.op for each in things if each.name not in cut]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += [tensor.op for tensor in op.inputs if tensor.name not in cut] + list(op.control_inputs)
    return found


def element_name(tensor: Any) -> str:
    """A tensor's name, without ":0"."""
    return str(tensor.name[:-2] if tensor.name.endswith(":0") else tensor.name)


def variable_of(tensor: Any) -> Optional[str]:
    """The name of the variable that a tensor is the handle, the reference or the bare value of."""
    while tensor is not None:
        op = tensor.op
        if op.type in VARIABLES:
            return str(op.name)
        passes = op.type in PASSING or tensor.dtype.name.endswith("_ref")
        tensor = op.inputs[0] if passes and len(op.inputs) else None
    return None


def root(tensor: Any) -> Any:
    """The tensor behind casts and copies."""
    while tensor.op.type in PASSING + ("Cast",) and len(tensor.op.inputs):
        tensor = tensor.op.inputs[0]
    return tensor


class Update(object):
    """How one op of an optimizer moves one variable."""

    def __init__(self, op: Any, variable: str, algorithm: str, gradient: Any) -> None:
        self.op, self.variable, self.algorithm, self.gradient = op, variable, algorithm, gradient
        self.indices = None  # type: Any
        self.slots, self.numbers, self.powers = ordered(), ordered(), ordered()


def update_of(op: Any) -> Optional[Update]:
    """The update that an op makes, if it is one of an optimizer's."""
    match = APPLY.match(op.type)
    if match:
        return by_arguments(op, match.group(1))
    if op.type in ("ScatterSub", "ResourceScatterSub", "ScatterAdd", "ResourceScatterAdd"):
        return scattered_descent(op)
    if op.type in ("AssignSub", "AssignSubVariableOp"):
        try:
            return sparse_adam(op)
        except (LookupError, StopIteration, ValueError):
            return None
    return None


def by_arguments(op: Any, kind: str) -> Optional[Update]:
    """The update of an op whose arguments have names."""
    variable = variable_of(op.inputs[0])
    found = Update(op, variable or "", ALGORITHMS.get(kind, kind), None)
    for argument, tensor in zip(op.op_def.input_arg, op.inputs):
        name = argument.name
        if name in POWERS:
            found.powers[POWERS[name]] = tensor
        elif name in ("grad", "delta"):
            found.gradient = tensor
        elif name == "indices":
            found.indices = tensor
        elif name != "var":
            held = variable_of(tensor) if argument.is_ref or tensor.dtype.name == "resource" else None
            if held is not None:
                found.slots[SLOTS.get(name, name)] = held
            else:
                found.numbers[NUMBERS.get(name, name)] = tensor
    if kind in ("Momentum", "Adam") and op.get_attr("use_nesterov"):
        found.algorithm = {"Momentum": "Nesterov", "Adam": "Nadam"}[kind]
    return found if variable is not None and found.gradient is not None else None


def scattered_descent(op: Any) -> Optional[Update]:
    """Gradient descent on rows: var[indices] -= values * rate, or += -values * rate."""
    rows, variable = op.inputs[2].op, variable_of(op.inputs[0])
    if rows.type != "Mul" or variable is None or rows.inputs[1].shape.ndims != 0:
        return None
    values = rows.inputs[0]
    if op.type.endswith("Add"):
        if values.op.type != "Neg":
            return None
        values = values.op.inputs[0]
    found = Update(op, variable, "SGD", values)
    found.indices, found.numbers["learning_rate"] = op.inputs[1], rows.inputs[1]
    return found


def typed(tensor: Any, *types: str) -> Any:
    """The op of a tensor, if it is of one of these types; else ValueError."""
    if tensor.op.type not in types:
        raise ValueError(tensor.op.type)
    return tensor.op


def scatter_behind(tensor: Any) -> Any:
    """The scatter-add whose result a tensor is."""
    if tensor.op.type == "ScatterAdd":
        return tensor.op
    read = typed(tensor, "ReadVariableOp")
    return next(op for op in read.control_inputs if op.type == "ResourceScatterAdd")


def sparse_adam(op: Any) -> Optional[Update]:
    """Adam on rows: var -= rate * sqrt(1 - beta2_power) / (1 - beta1_power) * m / (sqrt(v) + epsilon)."""
    quotient = typed(op.inputs[1], "RealDiv")
    scaled, below = typed(quotient.inputs[0], "Mul"), typed(quotient.inputs[1], "AddV2", "Add")
    corrected = typed(scaled.inputs[0], "RealDiv")
    numerator = typed(corrected.inputs[0], "Mul")
    power_2 = typed(typed(numerator.inputs[1], "Sqrt").inputs[0], "Sub").inputs[1]
    power_1 = typed(corrected.inputs[1], "Sub").inputs[1]
    m, v = scatter_behind(scaled.inputs[1]), scatter_behind(typed(below.inputs[0], "Sqrt").inputs[0])
    m_rows, v_rows = typed(m.inputs[2], "Mul"), typed(v.inputs[2], "Mul")
    names = [variable_of(each.inputs[0]) for each in (op, m, v)]
    if None in names:
        return None
    found = Update(op, str(names[0]), "Adam", m_rows.inputs[0])
    found.indices = m.inputs[1]
    found.slots = ordered([("m", names[1]), ("v", names[2])])
    found.numbers = ordered(
        [
            ("learning_rate", numerator.inputs[0]),
            ("beta_1", typed(m_rows.inputs[1], "Sub").inputs[1]),
            ("beta_2", typed(v_rows.inputs[1], "Sub").inputs[1]),
            ("epsilon", below.inputs[1]),
        ]
    )
    found.powers = ordered([("beta_1", power_1), ("beta_2", power_2)])
    return found


def gradient_scopes(graph: Any) -> List[str]:
    """The name scopes of the calls of tf.gradients, each with its slash."""
    found = [re.match(r"^(.*?)/?grad_ys_\d+$", op.name) for op in graph.get_operations()]
    return sorted({each.group(1) + "/" for each in found if each and each.group(1)}, key=len)


def derivative(tensor: Any, scopes: List[str]) -> Any:
    """The tensor of tf.gradients' own that becomes another when it is clipped, scaled and the like; None if unclear."""
    seen = set()  # type: Set[str]
    pending = [tensor]
    while pending:
        nearest = {each.name: each for each in pending if any(each.op.name.startswith(scope) for scope in scopes)}
        if nearest:
            return next(iter(nearest.values())) if len(nearest) == 1 else None
        seen |= {each.name for each in pending}
        pending = [
            each
            for here in pending
            for each in here.op.inputs
            if each.name not in seen
            and each.dtype.is_floating
            and each.op.type not in ABOUT_SHAPES
            and each.shape.as_list() == tensor.shape.as_list()
        ]
    return None


class Optimizer(object):
    """Updates of one algorithm with the same hyperparameters."""

    def __init__(self, name: str, algorithm: str, updates: List[Update], phases: List[str]) -> None:
        self.name, self.algorithm, self.updates, self.phases = name, algorithm, updates, phases

    def kept(self) -> Set[str]:
        """The variables that are its slots or powers."""
        first = self.updates[0]
        powers = {variable_of(root(tensor)) for tensor in first.powers.values()}
        return {name for update in self.updates for name in update.slots.values()} | {each for each in powers if each}


def optimizers_of(phases: Any) -> List[Optimizer]:
    """The optimizers behind the updates of each phase; two phases may share one."""
    found = []  # type: List[Optimizer]
    for phase in phases.values():
        groups = ordered()
        for update in phase.updates:
            key = [update.algorithm]
            for tensors in (update.numbers, update.powers):
                key += sorted(name + " " + root(tensor).name for name, tensor in tensors.items())
            groups.setdefault(tuple(key), []).append(update)
        for key, members in groups.items():
            scope, inside, _ = members[0].op.name.partition("/update_")
            new = Optimizer(scope if inside else phase.name, key[0], members, [phase.name])
            same = [each for each in found if each.algorithm == key[0] and each.kept() & new.kept()]
            if same:
                known = {update.variable for update in same[0].updates}
                same[0].updates += [update for update in members if update.variable not in known]
                same[0].phases += [phase.name] * (phase.name not in same[0].phases)
            else:
                found.append(new)
    short = [each.name.rpartition("/")[2] for each in found]
    taken = set()  # type: Set[str]
    for optimizer, name in zip(found, short):
        name = name if short.count(name) == 1 else optimizer.name.replace("/", "_")
        unique, count = name, 1
        while unique in taken:
            unique, count = "%s_%d" % (name, count), count + 1
        taken.add(unique)
        optimizer.name = unique
    return found


def handed_through(tensor: Any) -> bool:
    """Whether a branch hands on what goes into it, and computes nothing."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return bool(tensor.op.type == "Switch")


# --- What is said of an op --------------------------------------------------------------------------------------------
def shown(value: Any) -> str:
    """A number, a word or a small array as text, to the digits that float32 has."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return ""
    if array.size > 12:
        return "%s, sum %.7g" % (array.shape, float(array.astype(np.float64).sum()))
    if array.ndim:
        return "[%s]" % ", ".join(map(shown, array))
    return "%.7g" % float(array) if array.dtype.kind == "f" else str(array.item())


def constant_value(tensor: Any) -> Any:
    """The value of a tensor that is computed from constants alone, as far as it can be folded; else None."""
    while tensor.op.type in ("Identity", "Enter", "StopGradient", "Switch") and len(tensor.op.inputs):
        tensor = tensor.op.inputs[0]
    if tensor.dtype.name in ("resource", "variant", "string"):
        return None
    try:
        return tensor_util.constant_value(tensor)
    except (TypeError, ValueError, NotImplementedError):
        return None


def attributes(op: Any, moving: Set[Any]) -> Any:
    """Attributes and constant operands by name, as text."""
    found = ordered()
    for name in sorted(op.node_def.attr):
        value = op.node_def.attr[name]
        if name.startswith("_") or (name in NOT_SAID and not (name == "explicit_paddings" and list(value.list.i))):
            continue
        kind = value.WhichOneof("value")
        if kind == "s":
            found[name] = value.s.decode("utf-8", "replace")
        elif kind in ("i", "f", "b"):
            found[name] = shown(getattr(value, kind))
        elif kind == "list" and (list(value.list.i) or list(value.list.f)):
            found[name] = shown(list(value.list.i) or list(value.list.f))
        elif kind == "list" and value.list.s:
            found[name] = ", ".join(each.decode("utf-8", "replace") for each in value.list.s)
    index = 0
    constants = ordered()
    for argument in op.op_def.input_arg:
        count = 1
        if argument.number_attr:
            count = int(op.get_attr(argument.number_attr))
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        for number, tensor in enumerate(list(op.inputs)[index : index + count]):
            value = None if tensor.op in moving else constant_value(tensor)
            if value is not None:
                constants[argument.name if count == 1 else "%s[%d]" % (argument.name, number)] = shown(value)
        index += count
    if len(constants) == 1 and op.type in COMMUTATIVE:
        constants = {COMMUTATIVE[op.type]: next(iter(constants.values()))}
    found.update(constants)
    return ordered((name, text) for name, text in found.items() if text)


def where(op: Any) -> str:
    """The line of the user's code that made an op, as "gan.py:41"; empty where that is not known."""
    own = os.path.abspath(__file__)
    for frame in reversed(list(op.traceback or [])):
        path = os.path.abspath(frame[0])
        if "site-packages" in path or "dist-packages" in path or path == own or not os.path.exists(path):
            continue
        if not path.startswith(os.path.dirname(os.path.abspath(os.__file__))):
            return "%s:%d" % (os.path.basename(path), frame[1])
    return ""


# --- The original -----------------------------------------------------------------------------------------------------
class Phase(object):
    """One part of the step."""

    def __init__(self, name: str, fetches: List[Any], loss: Any) -> None:
        self.name, self.fetches, self.loss = name, fetches, loss
        self.ops = ancestors(fetches + ([loss] if loss is not None else []))
        moved = [update_of(op) for op in in_order(ancestors(fetches))]
        self.updates = [each for each in moved if each is not None]
        self.slopes = ordered()


def in_order(ops: Iterable[Any]) -> List[Any]:
    """By creation, which is an order of computation."""
    ops = list(ops)
    places = {op: place for place, op in enumerate(ops[0].graph.get_operations())} if ops else {}
    return sorted(ops, key=lambda op: places[op])


class State(object):
    """The values of all variables, and how often each optimizer has updated."""

    def __init__(self, raw: Any, counts: Any) -> None:
        self.raw, self.counts = raw, counts


class Original(object):
    """The user's graph with its Session."""

    def __init__(self, function: Callable[[], Any], seed: int) -> None:
        self.seed = seed
        self.drawn = ordered()  # (step, phase, kind, shape, nth) -> array
        self.shapes = {}  # type: Dict[Any, Any]
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(seed)
            np.random.seed(seed)
            self.told = self.mapping(function())
            self.variables = ordered((each.op.name, each) for each in tf.global_variables())
            self.fed = ordered(
                (name, tf.placeholder(each.dtype.base_dtype, each.get_shape())) for name, each in self.variables.items()
            )
            self.assigns = ordered((name, tf.assign(self.variables[name], fed)) for name, fed in self.fed.items())
            self.read_phases()
            starts = [tf.global_variables_initializer(), tf.local_variables_initializer(), tf.tables_initializer()]
        config = tf.ConfigProto(graph_options=tf.GraphOptions(optimizer_options=tf.OptimizerOptions(opt_level=-1)))
        rewriting = getattr(config.graph_options, "rewrite_options", None)  # type: Any
        if hasattr(rewriting, "disable_meta_optimizer"):
            rewriting.disable_meta_optimizer = True
        self.session = tf.Session(graph=self.graph, config=config)
        self.session.run(starts)
        self.read_graph()
        self.begin()

    def mapping(self, told: Any) -> Any:
        """What the function returned, by its plural names."""
        if not isinstance(told, dict):
            raise Refused("--legacy's function returned %s; expected a mapping with loss and train_op." % type(told))
        plural = {"loss": "losses", "train_op": "train_ops"}
        found = {plural.get(key, key): value for key, value in told.items()}
        strange = sorted(str(key) for key in set(found) - set(MAPPING_KEYS))
        if strange:
            raise Refused("--legacy's mapping has %r; expected some of %s." % (strange[0], ", ".join(MAPPING_KEYS)))
        if found.get("train_ops") is None:
            raise Refused("--legacy's mapping has no train_op; name the op that trains.")
        return found

    def tensor(self, thing: Any) -> Any:
        """The tensor that a thing is or names."""
        found = self.graph.as_graph_element(thing, allow_tensor=True, allow_operation=True)
        return found.outputs[0] if hasattr(found, "outputs") else found

    def feeds(self, named: Any) -> Any:
        """Tensor -> value, of a mode."""
        return ordered((self.tensor(name), value) for name, value in (named or {}).items())

    def named(self, named: Any) -> Any:
        """Name -> tensor, of a mapping or a list."""
        if isinstance(named, dict):
            return ordered((str(name), self.tensor(thing)) for name, thing in named.items())
        things = list(named) if isinstance(named, (list, tuple)) else [named]
        return ordered((element_name(self.tensor(thing)), self.tensor(thing)) for thing in things)

    def read_phases(self) -> None:
        """Finds the phases and the derivatives of what they report; adds ops, so it comes before the Session."""
        told = self.told
        ops, losses = told["train_ops"], told.get("losses")
        if not isinstance(ops, dict):
            ops = {next(iter(losses)) if isinstance(losses, dict) and len(losses) == 1 else "train": ops}
        if len(ops) > 1 and sys.version_info < (3, 6) and not isinstance(ops, collections.OrderedDict):
            raise Refused("train_ops has several phases, and this Python forgets their order; give an OrderedDict.")
        if not isinstance(losses, dict):
            if losses is not None and len(ops) > 1:
                raise Refused("one loss for %d train ops; expected a mapping with %s." % (len(ops), ", ".join(ops)))
            losses = {next(iter(ops)): losses}
        updates = told.get("updates")
        self.mode = {mode: self.feeds(told.get(mode)) for mode in MODES}
        self.phases = ordered()
        for name, op in ops.items():
            more = updates.get(name) if isinstance(updates, dict) else updates
            things = list(op) if isinstance(op, (list, tuple)) else [op]
            things += list(more) if isinstance(more, (list, tuple)) else [more] if more is not None else []
            fetches = [self.graph.as_graph_element(thing, allow_tensor=True, allow_operation=True) for thing in things]
            loss = losses.get(name)
            self.phases[str(name)] = Phase(str(name), fetches, None if loss is None else self.tensor(loss))
        self.scopes = gradient_scopes(self.graph)
        for phase in self.phases.values():
            if phase.loss is not None and phase.updates:
                try:
                    found = tf.gradients(phase.loss, [self.variables[each.variable] for each in phase.updates])
                except Exception:  # whatever stops it, the objective is then not known
                    continue
                pairs = [(each, slope) for each, slope in zip(phase.updates, found) if slope is not None]
                phase.slopes = ordered((each.variable, tf.convert_to_tensor(slope)) for each, slope in pairs)

    def read_graph(self) -> None:
        """Finds inputs, outputs, optimizers and draws."""
        told = self.told
        outputs = told.get("outputs") or {}
        by_mode = isinstance(outputs, dict) and outputs and set(outputs) <= set(MODES)
        self.outputs = {mode: self.named(outputs.get(mode, {}) if by_mode else outputs) for mode in MODES}
        needed = ancestors(tensor for each in self.outputs.values() for tensor in each.values())
        needed = needed.union(*(phase.ops for phase in self.phases.values()))
        modes = {tensor.name for each in self.mode.values() for tensor in each}
        if told.get("inputs") is not None:
            self.inputs = self.named(told["inputs"])
        else:
            held = [op.outputs[0] for op in in_order(needed) if op.type in PLACEHOLDERS[:2]]
            self.inputs = ordered((element_name(each), each) for each in held if each.name not in modes)
        self.optimizers = optimizers_of(self.phases)
        self.guarded = self.in_branches()
        self.draws = ordered((op, self.why_not(op)) for op in in_order(needed) if DRAWING.match(op.type))
        self.number_names = self.number_tensors()
        self.find_state()

    def in_branches(self) -> Set[Any]:
        """Ops inside while loops and branches: they can be neither fed nor fetched."""
        inside = set()  # type: Set[Any]
        for op in self.graph.get_operations():
            if op.type in ("Enter", "RefEnter", "Switch", "RefSwitch"):
                inside.add(op)
            elif op.type not in ("Exit", "RefExit", "Merge", "RefMerge") or any(
                each in inside and each.type in ("Enter", "RefEnter") for each in before(op)
            ):
                if any(each in inside for each in before(op)):
                    inside.add(op)
        return inside

    def why_not(self, op: Any) -> str:
        """Why a draw cannot be fed; empty where it can."""
        if op in self.guarded:
            return "drawn inside a while loop or a branch"
        return "" if op.type in KINDS else "there are no recorded numbers for %s" % op.type

    def number_tensors(self) -> Any:
        """Optimizer -> name -> number, or the tensor of one that needs no batch."""
        found = ordered()
        for optimizer in self.optimizers:
            free = ordered()
            for name, tensor in optimizer.updates[0].numbers.items():
                value = constant_value(tensor)
                behind = ancestors([tensor], self.mode["training"]) if value is None else set()
                if value is not None:
                    free[name] = float(value)
                elif not any(
                    op.type in PLACEHOLDERS[:2] + ("IteratorGetNext",) or WRITES.match(op.type) for op in behind
                ):
                    free[name] = tensor
            found[optimizer.name] = free
        return found

    def find_state(self) -> None:
        """Which variables are slots, powers and counts, and which are weights."""
        self.slots, self.powers, hidden = ordered(), ordered(), set()
        for optimizer in self.optimizers:
            numbers = self.numbers()[optimizer.name]
            for update in optimizer.updates:
                for slot, held in update.slots.items():
                    if not (slot == "momentum" and "rms" in update.slots and numbers.get("momentum") == 0):
                        self.slots["optimizer/%s/%s/%s" % (optimizer.name, slot, update.variable)] = held
            hidden |= optimizer.kept()
            first = optimizer.updates[0]
            powers = ordered((beta, variable_of(root(tensor))) for beta, tensor in first.powers.items())
            self.powers[optimizer.name] = ordered((beta, name) for beta, name in powers.items() if name is not None)
        for op in self.graph.get_operations():
            unapplied = update_of(op)  # of an optimizer that no phase applies too
            if unapplied is not None:
                powers = [variable_of(root(each)) for each in unapplied.powers.values()]
                held = list(unapplied.slots.values()) + powers
                hidden |= {name for name in held if name is not None}
        counted = ordered()
        for phase in self.phases.values():
            for op in in_order(each for each in phase.ops if each.type in ("AssignAdd", "AssignAddVariableOp")):
                name = variable_of(op.inputs[0])
                value = constant_value(op.inputs[1])
                if name in self.variables and value is not None and np.ndim(value) == 0 and int(value) == 1:
                    if np.dtype(self.variables[name].dtype.base_dtype.as_numpy_dtype).kind in "iu":
                        counted.setdefault(name, []).append(phase.name)
        self.counter = ordered()  # optimizer -> the variable that counts its updates
        for optimizer in self.optimizers:
            for name, phases in counted.items():
                if phases == optimizer.phases and len(phases) == 1 and name not in self.counter.values():
                    self.counter.setdefault(optimizer.name, name)
        hidden |= set(self.counter.values())
        self.weights = [name for name in self.variables if name not in hidden]

    def kind(self, name: str) -> str:
        """The kind of a variable's dtype."""
        return str(np.dtype(self.variables[name].dtype.base_dtype.as_numpy_dtype).kind)

    def begin(self) -> None:
        """Runs or assigns what was given as "initial", and takes down the counts."""
        initial = self.told.get("initial")
        if isinstance(initial, dict):
            for name, value in initial.items():
                own = str(getattr(getattr(name, "op", None), "name", name)).replace(":0", "")
                self.session.run(self.assigns[own], {self.fed[own]: value})
        elif initial is not None:
            self.session.run(initial)
        self.counts = ordered()
        for optimizer in self.optimizers:
            count = 0
            if optimizer.name in self.counter:
                count = int(self.session.run(self.variables[self.counter[optimizer.name]]))
            elif self.powers[optimizer.name]:
                beta = "beta_2" if "beta_2" in self.powers[optimizer.name] else "beta_1"
                power = self.session.run(self.variables[self.powers[optimizer.name][beta]])
                factor = np.asarray(self.numbers()[optimizer.name][beta], power.dtype)
                product = factor
                while power < product and count < 100000:
                    product, count = product * factor, count + 1
            self.counts[optimizer.name] = count

    # --- State --------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        """The present state."""
        values = self.session.run(list(self.variables.values())) if self.variables else []
        return State(ordered(zip(self.variables, map(np.array, values))), ordered(self.counts))

    def load(self, state: State) -> None:
        """Takes over a state."""
        if state.raw:
            self.session.run(
                [getattr(self.assigns[name], "op", self.assigns[name]) for name in state.raw],
                ordered((self.fed[name], value) for name, value in state.raw.items()),
            )
        self.counts = ordered(state.counts)

    def canonical(self, state: State) -> Any:
        """A state by canonical names."""
        found = ordered()
        for name in self.weights:
            value = state.raw[name]
            if self.kind(name) == "f":
                found[name] = value
            else:
                found["counter/" + name] = value.astype(np.int64)
        for name, held in self.slots.items():
            found[name] = state.raw[held]
        for optimizer in self.optimizers:
            found["optimizer/%s/iterations" % optimizer.name] = np.array(state.counts[optimizer.name], np.int64)
        return found

    def numbers(self) -> Any:
        """Optimizer -> its numbers at the present state."""
        found = ordered()
        for optimizer in self.optimizers:
            known = self.number_names[optimizer.name]
            tensors = [each for each in known.values() if not isinstance(each, float)]
            values = iter(self.session.run(tensors, self.mode["training"]) if tensors else [])
            found[optimizer.name] = ordered(
                (name, float(np.float32(each if isinstance(each, float) else next(values))))
                for name, each in known.items()
            )
            if optimizer.algorithm == "Adagrad":
                found[optimizer.name].setdefault("epsilon", 0.0)
        return found

    def infos(self) -> List[Any]:
        """The optimizers as a record tells them."""
        numbers = self.numbers()
        return [
            ordered([("name", o.name), ("algorithm", o.algorithm), ("hyperparameters", numbers[o.name])])
            for o in self.optimizers
        ]

    # --- Computation --------------------------------------------------------------------------------------------------
    def batch_feed(self, batch: Any) -> Any:
        """Input name -> array, as the placeholder takes it."""
        lacking = [name for name in self.inputs if name not in batch]
        if lacking:
            raise Refused(
                "the batch has nothing for %s; it has %s. Name its entries as the placeholders are named."
                % (lacking[0], ", ".join(batch) or "nothing")
            )
        return ordered(
            (name, np.asarray(batch[name], tensor.dtype.base_dtype.as_numpy_dtype))
            for name, tensor in self.inputs.items()
        )

    def run(
        self, fetches: List[Any], batch: Any, step: int, training: bool, phase: str = "forward", keep: bool = True,
        feed_draws: bool = True,
    ) -> List[Any]:  # fmt: skip
        """One session.run with the batch, the mode's feeds and recorded draws.

        Args:
          fetches: tensors and ops.
          batch: input name -> value.
          step: what draws are keyed by.
          training: which mode's feeds.
          phase: what draws are keyed by.
          keep: whether variables that are written to are put back.
          feed_draws: whether draws are fed.
        """
        feed = ordered(self.mode["training" if training else "inference"])
        feed.update((self.inputs[name], value) for name, value in self.batch_feed(batch).items())
        ops = ancestors(fetches, feed)
        if feed_draws:
            feed.update(self.draw_feed(self.phases[phase].ops if phase in self.phases else ops, feed, step, phase))
        used = ordered(
            (tensor, value)
            for tensor, value in feed.items()
            if any(tensor is each for each in fetches) or any(op in ops for op in tensor.consumers())
        )
        writes = keep and any(WRITES.match(op.type) for op in ops)
        state = self.state() if writes else None
        values = self.session.run(fetches, used)
        if state is not None:
            self.load(state)
        return list(values)

    def draw_feed(self, ops: Set[Any], feed: Any, step: int, phase: str) -> Any:
        """Numbers in place of the draws among some ops."""
        found = ordered()
        counts = {}  # type: Dict[Any, int]
        for op, reason in self.draws.items():
            if op not in ops or reason:
                continue
            inputs = list(op.inputs)
            key = (op.name, tuple(np.shape(value) for value in feed.values()))
            if key not in self.shapes or op.type in BY_VALUE:
                given = ordered(list(feed.items()) + list(found.items()))
                behind = ancestors(inputs, given)
                fed = ordered((t, v) for t, v in given.items() if any(each in behind for each in t.consumers()))
                fed.update((t, v) for t, v in given.items() if any(t is each for each in inputs))
                self.shapes[key] = self.session.run(inputs, fed)
            told = self.shapes[key]
            kind, shape = drawn_by(op, told)
            nth = counts.get((kind, shape), 0)
            counts[kind, shape] = nth + 1
            numbers = self.draw(step, phase, kind, shape, nth)
            for output, values in zip(op.outputs, outputs_of(op, numbers, told, shape)):
                found[output] = np.asarray(values, output.dtype.base_dtype.as_numpy_dtype)
        return found

    def draw(self, step: int, phase: str, kind: str, shape: Tuple[int, ...], nth: int) -> Any:
        """The numbers of one draw, the same whenever they are asked for."""
        key = (step, phase, kind, shape, nth)
        if key not in self.drawn:
            random = seeded("draw", self.seed, *key)
            if kind == "uniform":
                values = (random.randint(0, 1 << 24, shape) / float(1 << 24)).astype(np.float32)
            elif kind == "shuffle":
                values = random.permutation(shape[0])
            elif kind == "multinomial":
                values = random.gumbel(size=shape)
            elif "_candidates" in kind:
                values = random.random_sample(1024 + 64 * shape[0])
            elif kind.startswith("integers"):
                values = random.randint(int(kind.split()[1]), int(kind.split()[2]), shape)
            else:
                values = random.standard_normal(shape)
                while kind == "truncated_normal" and (np.abs(values) > 2).any():
                    values = np.where(np.abs(values) > 2, random.standard_normal(shape), values)
                values = np.asarray(values, np.float32)
            self.drawn[key] = np.asarray(values)
        return self.drawn[key]

    def forward(self, batch: Any, step: int, training: bool) -> Any:
        """The outputs by name."""
        outputs = self.outputs["training" if training else "inference"]
        values = self.run(list(outputs.values()), batch, step, training) if outputs else []
        return ordered((name, np.asarray(value)) for name, value in zip(outputs, values))

    def run_phase(self, phase: str, batch: Any, step: int) -> Any:
        """One session.run of the train op and the loss."""
        own = self.phases[phase]
        fetches = list(own.fetches) + ([own.loss] if own.loss is not None else [])
        values = self.run(fetches, batch, step, True, phase, keep=False)
        for optimizer in self.optimizers:
            if phase in optimizer.phases:
                self.counts[optimizer.name] += 1
        return ordered([("loss", float(values[-1]))]) if own.loss is not None else ordered()

    def step(self, batch: Any, step: int) -> Any:
        """The whole step; what the phases report, as "<phase>/loss"."""
        found = ordered()
        for phase in self.phases:
            for name, value in self.run_phase(phase, batch, step).items():
                found["%s/%s" % (phase, name)] = value
        return found

    def gradients(self, phase: str, batch: Any, step: int) -> Any:
        """What the phase's optimizers take, by variable; None where nothing can be read."""
        own = self.phases[phase]
        if not own.updates:
            return None
        fetches = [tensor for each in own.updates for tensor in (each.gradient, each.indices) if tensor is not None]
        values = iter(self.run(fetches, batch, step, True, phase))
        found = ordered()
        for each in own.updates:
            value = np.asarray(next(values))
            if each.indices is not None:
                rows = np.asarray(next(values))
                shape = tuple(self.variables[each.variable].get_shape().as_list())
                dense = np.zeros(shape, value.dtype)
                np.add.at(dense, rows, value.reshape((len(rows),) + shape[1:]))
                value = dense
            found[each.variable] = value
        return found

    def derivatives(self, phase: str, batch: Any, step: int) -> Tuple[Any, Any, bool]:
        """What an objective's derivatives are, those of the reported loss, and whether they are applied as they are.

        Returns:
          Variable -> what tf.gradients gave, None where that is not plain; variable -> tf.gradients of the reported
          loss; and whether nothing is done to the former.
        """
        own = self.phases[phase]
        slopes = ordered(zip(own.slopes, self.run(list(own.slopes.values()), batch, step, True, phase)))
        if all(any(each.gradient.op.name.startswith(scope) for scope in self.scopes) for each in own.updates):
            return self.gradients(phase, batch, step), slopes, True
        behind = [derivative(each.gradient, self.scopes) if each.indices is None else None for each in own.updates]
        if any(each is None for each in behind):
            return None, slopes, False
        values = self.run(behind, batch, step, True, phase)
        return ordered(zip((each.variable for each in own.updates), values)), slopes, False

    def unfed(self, phase: str, batch: Any, step: int) -> Any:
        """Draw -> digest of what one run of the phase draws when nobody feeds it."""
        state = self.state()
        own = self.phases[phase]
        draws = [op for op in self.draws if op in own.ops and op not in self.guarded]
        values = self.run(
            [op.outputs[0] for op in draws] + list(own.fetches), batch, step, True, phase, keep=False, feed_draws=False
        )
        self.load(state)
        return ordered(
            (op.name, hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest()) for op, v in zip(draws, values)
        )

    # --- Intermediates ------------------------------------------------------------------------------------------------
    def node_plan(self, ends: List[Any]) -> Any:
        """The tensors that are worth comparing, and the ops that depend on inputs, variables or draws."""
        ops = ancestors(ends, self.inputs.values())
        known = {tensor.name for tensor in self.inputs.values()}
        moving = set()  # type: Set[Any]
        every = in_order(ops | {tensor.op for tensor in self.inputs.values()})
        for op in every:
            source = op.type in SOURCES or DRAWING.match(op.type)
            if source or (op.type not in ABOUT_SHAPES and any(each in moving for each in before(op))):
                moving.add(op)
        read = {tensor.name for op in ops for tensor in op.inputs}
        names = {tensor.name for tensor in ends}
        tensors = []
        for op in every:
            for tensor in op.outputs if op in moving and op in ops else ():
                if tensor.name in names or (tensor.name in read and tensor.name not in known and self.is_node(tensor)):
                    tensors.append(tensor)
        return tensors, moving

    def is_node(self, tensor: Any) -> bool:
        """Whether a tensor is a number or a bool that an op computed, and can be fetched."""
        op, dtype = tensor.op, tensor.dtype
        plain = (dtype.is_floating or dtype.is_integer or dtype.is_bool) and not dtype.name.endswith("_ref")
        skipped = op.type in SKIPPED + SOURCES or op.type.startswith("TensorArray")
        return bool(plain and not skipped and op not in self.guarded and self.graph.is_fetchable(tensor))

    def nodes(self, arrays: Arrays, batch: Any, step: int, phase: str) -> Any:
        """Every intermediate of the outputs ("inference") or of a phase's loss; None where there is nothing to fetch.

        Returns:
          What a record holds of them, and their values.
        """
        if phase == "inference":
            ends = list(self.outputs["inference"].values())
        else:
            loss = self.phases[phase].loss
            ends = [loss] if loss is not None else []
        if not ends:
            return None, {}
        tensors, moving = self.node_plan(ends)
        merges = [each.op for each in tensors if each.op.type == "Merge" and each.value_index == 0]
        fetches = tensors + [op.outputs[1] for op in merges]
        values = self.run(fetches, batch, step, phase != "inference", "forward" if phase == "inference" else phase)
        taken = {op: [op.inputs[int(index)]] for op, index in zip(merges, values[len(tensors) :])}
        chosen = {tensor.name for tensor in tensors}
        names = {tensor.name: name for name, tensor in self.inputs.items()}
        told, plain = [], ordered()
        for tensor, value in zip(tensors, values):
            sources = taken.get(tensor.op, list(tensor.op.inputs))
            inputs, variables = self.behind(sources, chosen, moving, names)
            plain[element_name(tensor)] = np.asarray(value)
            told.append(
                ordered(
                    [
                        ("name", element_name(tensor)),
                        ("kind", "Identity" if tensor.op in taken and handed_through(sources[0]) else tensor.op.type),
                        ("inputs", inputs),
                        ("variables", variables),
                        ("place", arrays.put(value)),
                        ("attributes", attributes(tensor.op, moving)),
                        ("where", where(tensor.op)),
                    ]
                )
            )
        return told, plain

    def behind(
        self, tensors: List[Any], chosen: Set[str], moving: Set[Any], inputs: Any
    ) -> Tuple[List[str], List[str]]:
        """The nodes, inputs and variables that tensors are or are computed from; branches are looked through."""
        found = ordered()
        variables = ordered((name, 0) for name in map(variable_of, tensors) if name is not None)
        seen = set()  # type: Set[str]
        pending = list(reversed(tensors))
        while pending:
            tensor = pending.pop()
            if tensor.name in seen:
                continue
            seen.add(tensor.name)
            if tensor.name in inputs:
                found[inputs[tensor.name]] = 0
            elif tensor.name in chosen:
                found[element_name(tensor)] = 0
            elif tensor.op.type in PLACEHOLDERS:
                found[tensor.op.name] = 0
            elif tensor.op in moving:
                pending += reversed(tensor.op.inputs)
                held = map(variable_of, [tensor] + list(tensor.op.inputs))
                variables.update((name, 0) for name in held if name is not None)
        return list(found), list(variables)


# --- Draws ------------------------------------------------------------------------------------------------------------
def drawn_by(op: Any, told: Any) -> Tuple[str, Tuple[int, ...]]:
    """The kind and the shape of what an op draws, given the values of its inputs."""
    kind = KINDS[op.type]
    if op.type == "RandomShuffle":
        return kind, (len(told[0]),)
    if op.type == "Multinomial":
        return kind, (told[0].shape[0], int(told[1]), told[0].shape[1])
    if op.type in BY_VALUE:
        name = "%s %d %s" % (kind, op.get_attr("range_max"), bool(op.get_attr("unique")))
        return name, (int(op.get_attr("num_sampled")),)
    if kind == "integers":
        kind = "integers %d %d" % (int(told[1]), int(told[2]))
    return kind, tuple(int(size) for size in np.ravel(told[0]))


def outputs_of(op: Any, numbers: Any, told: Any, shape: Tuple[int, ...]) -> List[Any]:
    """What an op gives whose draw is these numbers."""
    if op.type == "RandomShuffle":
        return [told[0][numbers]]
    if op.type == "Multinomial":
        return [np.argmax(told[0][:, None, :] + numbers, axis=-1)]
    if op.type not in BY_VALUE:
        return [numbers]
    most, unique, log = int(op.get_attr("range_max")), op.get_attr("unique"), op.type.startswith("Log")
    span = math.log1p(most)
    picked, tries = [], 0  # type: List[int], int
    while len(picked) < shape[0]:
        number = float(numbers[tries])
        tries += 1
        value = (int(math.exp(number * span)) - 1) % most if log else min(int(number * most), most - 1)
        if not (unique and value in picked):
            picked.append(value)

    def expected(classes: Any) -> Any:
        share = np.full(classes.shape, 1.0 / most, np.float32)
        if log:
            share = (np.log((classes + 2.0) / (classes + 1.0)) / span).astype(np.float32)
        return share * np.float32(shape[0]) if tries == shape[0] else -np.expm1(np.float32(tries) * np.log1p(-share))

    sampled = np.array(picked, np.int64)
    return [sampled, expected(np.asarray(told[0], np.int64)), expected(sampled)]


# --- Numbers ----------------------------------------------------------------------------------------------------------
def seeded(*key: Any) -> Any:
    """A generator that a key alone decides."""
    words = "/".join(str(each) for each in key).encode()
    return np.random.RandomState(np.frombuffer(hashlib.sha256(words).digest(), np.uint32))


def disturbed(arrays: Any, seed: int, amounts: Any = None) -> Any:
    """The same arrays, each floating number moved to its neighbour above or below, and further by some amounts."""
    found = ordered()
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind == "f":
            random = seeded("disturbance", seed, name)
            towards = np.where(random.random_sample(array.shape) < 0.5, np.inf, -np.inf).astype(array.dtype)
            moved = np.where(array == 0, array, np.nextafter(array, towards)).astype(array.dtype)
            amount = (amounts or {}).get(name, 0.0)
            if amount:
                noise = random.uniform(-amount, amount, array.shape).astype(array.dtype)
                moved = moved + (noise if array.size and array.min() < 0 else np.abs(noise))
            array = moved
        found[name] = array
    return found


def same_bits(one: Any, other: Any) -> bool:
    """Whether two values hold the same bytes."""
    one, other = np.asarray(one), np.asarray(other)
    return bool(one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes())


def changed(one: Any, other: Any) -> List[str]:
    """The names whose contents differ."""
    return [name for name in one if name not in other or not same_bits(one[name], other[name])]


def reordered(batch: Any, seed: int) -> Any:
    """The batch with its examples in another order."""
    order = order_of(batch, seed)
    found = ordered()
    for name, value in batch.items():
        array = np.asarray(value)
        found[name] = array[order] if array.ndim and len(array) == len(order) else array
    return found


def order_of(batch: Any, seed: int) -> Any:
    """Another order of a batch's examples."""
    sizes = [len(value) for value in batch.values() if np.ndim(value)]
    return seeded("order", seed).permutation(max(sizes, key=sizes.count) if sizes else 0)


def close(left: Any, right: Any) -> bool:
    """Whether two values agree up to rounding."""
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    if not left.size:
        return True
    return bool(np.abs(left - right).max() <= SYMMETRIC * np.abs(left).max())


class Spans(object):
    """How far disturbed runs go: (rung, tensor, step) -> how far, and the tensor's own magnitude."""

    def __init__(self) -> None:
        self.found = ordered()

    def add(self, rung: str, name: str, step: int, base: Any, mine: Any) -> None:
        """Widens one span."""
        left, right = np.asarray(base), np.asarray(mine)
        if left.dtype.kind != "f" or left.shape != right.shape or not left.size:
            return
        apart = float(np.abs(left.astype(np.float64) - right).max())
        if np.isfinite(apart):
            size = float(np.abs(left.astype(np.float64)).max())
            self.found[rung, name, step] = (max(apart, self.found.get((rung, name, step), (0.0,))[0]), size)

    def add_all(self, rung: str, step: int, base: Any, mine: Any, prefix: str = "") -> None:
        """Widens the spans of a mapping."""
        for name in base:
            if name in mine:
                self.add(rung, prefix + name, step, base[name], mine[name])

    def told(self) -> List[Any]:
        """As a record holds them."""
        return [[rung, name, step, apart, size] for (rung, name, step), (apart, size) in self.found.items()]

    def amounts(self, level: float) -> Any:
        """Step -> tensor -> a share of what rounding may do in one forced step."""
        pooled = {}  # type: Dict[str, List[float]]
        for (rung, name, _), (apart, _) in self.found.items():
            if rung == "forced_trajectory":
                pooled.setdefault(name, []).append(apart)
        found = {}  # type: Dict[int, Dict[str, float]]
        for (rung, name, step), (apart, size) in self.found.items():
            if rung == "forced_trajectory" and size:
                most = max(apart, sum(pooled[name]) / len(pooled[name]))
                found.setdefault(step, {})[name] = level * (SLACK * most + FLOOR * size)
        return found


# --- Recording --------------------------------------------------------------------------------------------------------
class Still(object):
    """All that the original shows at one state."""

    def __init__(self) -> None:
        self.told = ordered()
        self.outputs, self.reports, self.objectives, self.gradients, self.after = (ordered() for _ in range(5))
        self.after_step, self.step_reports, self.values = ordered(), ordered(), ordered()


class Recorder(object):
    """Records one original."""

    def __init__(self, build: Callable[[], Any], batch: Callable[[int], Any], steps: int, seed: int) -> None:
        self.build, self.batch, self.steps, self.seed = build, batch, steps, seed
        self.original = Original(build, seed)
        self.warm = min(WARM_STEPS, steps)
        half = steps // 2
        self.middle = half - 1 if half and not half % 2 else half

    def observe(self, arrays: Arrays, state: State, batch: Any, step: int, nodes: bool, twice: bool = False) -> Still:
        """Everything at a state; ends in the state after one whole step."""
        original, still = self.original, Still()
        original.load(state)
        began = original.canonical(original.state())
        infos, unstable, faults = original.infos(), set(), []  # type: Any, Set[str], List[str]
        for mode in MODES:
            still.outputs[mode] = original.forward(batch, step, mode == "training")
        if twice:
            unstable |= set(changed(still.outputs["training"], original.forward(batch, step, True)))
        kept_nodes, derivatives, untouched, without = ordered(), ordered(), [], ordered()
        if nodes:
            told, still.values = original.nodes(arrays, batch, step, "inference")
            if told is not None:
                kept_nodes["inference"] = told
        for phase, own in original.phases.items():
            if nodes:
                told, _ = original.nodes(arrays, batch, step, phase)
                if told is not None:
                    kept_nodes[phase] = told
            gradients = original.gradients(phase, batch, step)
            if gradients is None:
                continue
            still.gradients[phase], without[phase] = gradients, []
            if own.loss is None:
                continue
            found, slopes, plain = original.derivatives(phase, batch, step)
            if found is None:
                continue
            derivatives[phase] = arrays.keep(found)
            untouched += [phase] if plain else []
            loss = float(original.run([own.loss], batch, step, True, phase)[0])
            for sign in (1.0, -1.0):
                turned = ordered((name, sign * value) for name, value in slopes.items())
                if set(turned) == set(found) and all(close(found[name], turned[name]) for name in turned):
                    still.objectives[phase] = sign * loss
                    break
        present = original.canonical(original.state())
        if changed(began, present):
            faults.append("looking at outputs and gradients changed %s" % changed(began, present)[0])
        for phase in original.phases:
            original.load(state)
            still.reports[phase] = original.run_phase(phase, batch, step)
            still.after[phase] = original.canonical(original.state())
            if twice:
                original.load(state)
                original.run_phase(phase, batch, step)
                unstable |= set(changed(original.canonical(original.state()), still.after[phase]))
        original.load(state)
        still.step_reports = original.step(batch, step)
        still.after_step = original.canonical(original.state())
        still.told = ordered(
            [
                ("step", step),
                ("state", arrays.keep(began)),
                ("inputs", arrays.keep(original.batch_feed(batch))),
                ("optimizers", infos),
                ("outputs", ordered((mode, arrays.keep(each)) for mode, each in still.outputs.items())),
                ("objectives", still.objectives),
                ("gradients", ordered((phase, arrays.keep(each)) for phase, each in still.gradients.items())),
                ("derivatives", derivatives),
                ("untouched", untouched),
                ("without", without),
                ("reports", still.reports),
                ("after", ordered((phase, arrays.keep(each)) for phase, each in still.after.items())),
                ("after_step", arrays.keep(still.after_step)),
                ("step_reports", still.step_reports),
                ("nodes", kept_nodes),
                ("faults", faults),
                ("unstable", sorted(unstable)),
            ]
        )
        return still

    def trajectory(self, original: Original, state: State, begin: int = 0) -> Tuple[List[Any], Any]:
        """What the steps report, and the states: how many steps were made -> the state then."""
        original.load(state)
        reports, states = [], ordered([(begin, original.state())])
        for step in range(begin, self.steps):
            reports.append(original.step(self.batch(step), step))
            states[step + 1] = original.state()
        return reports, states

    def symmetric(self, still: Still, state: State, step: int) -> bool:
        """Whether the order of a batch's examples makes no difference but to the order of outputs."""
        original, batch = self.original, self.batch(step)
        other, order = reordered(batch, 0), order_of(batch, 0)
        original.load(state)
        for mode in MODES:
            mine = original.forward(other, step, mode == "training")
            for name, value in still.outputs[mode].items():
                moved = value[order] if value.ndim and len(value) == len(order) else value
                if not (close(value, mine[name]) or close(moved, mine[name])):
                    return False
        for phase, reports in still.reports.items():
            original.load(state)
            mine = original.run_phase(phase, other, step)
            if "loss" not in reports or not close(np.float32(reports["loss"]), np.float32(mine["loss"])):
                return False
        return True

    def shaken(self, state: State, seed: int, amounts: Any = None) -> State:
        """A state disturbed; amounts go by canonical names."""
        original = self.original
        held = {name: name for name in original.weights}
        held.update(original.slots)
        raw = ordered((held[name], state.raw[held[name]]) for name in held if original.kind(held[name]) == "f")
        amounts = {held[name]: amount for name, amount in (amounts or {}).items() if name in held}
        return State(ordered(list(state.raw.items()) + list(disturbed(raw, seed, amounts).items())), state.counts)

    def envelope(self, stills: Sequence[Still], states: Sequence[State], reports: List[Any], kept: Any) -> Any:
        """How far rounding takes the original."""
        original, spans, scratch = self.original, Spans(), Scratch()
        mixed = all(self.symmetric(still, state, still.told["step"]) for still, state in zip(stills, states))
        for number in range(1, LOOKS + 1):
            outer = number <= DISTURBANCES
            for base, state in zip(stills, states):
                step = base.told["step"]
                batch = disturbed(self.batch(step), number)
                if mixed and not outer:
                    batch = reordered(batch, number)
                mine = self.observe(scratch, self.shaken(state, number), batch, step, nodes=outer)  # type: ignore[arg-type]
                if outer:
                    for mode in MODES:
                        spans.add_all("forward", step, base.outputs[mode], mine.outputs[mode], mode + "/")
                    spans.add_all("forward", step, base.values, mine.values, "inference/")
                self.widen(spans, step, base, mine)
        canonical = ordered((step, original.canonical(state)) for step, state in kept.items())
        for number in range(1, DISTURBANCES + 1):
            for step in range(self.steps):
                original.load(self.shaken(kept[step], number))
                batch = disturbed(self.batch(step), number)
                told = original.step(reordered(batch, number) if mixed else batch, step)
                spans.add_all("forced_trajectory", step, reports[step], told)
                present = original.canonical(original.state())
                spans.add_all("forced_trajectory", step, canonical[step + 1], present)
        free = []
        for level in LEVELS:
            amounts, own = spans.amounts(level), Spans()
            for number in range(1, DISTURBANCES + 1):
                for rung, begin in (("free_trajectory", 0), ("resume", self.middle)):
                    original.load(self.shaken(kept[begin], number))
                    for step in range(begin, self.steps):
                        batch = reordered(self.batch(step), number) if mixed else self.batch(step)
                        own.add_all(rung, step, reports[step], original.step(batch, step))
                        present = original.state()
                        own.add_all(rung, step, canonical[step + 1], original.canonical(present))
                        seed = number * self.steps + step
                        original.load(self.shaken(present, seed, amounts.get(step)))
            free.append(own.told())
        return ordered([("each", spans.told()), ("free", free)])

    def widen(self, spans: Spans, step: int, base: Still, mine: Still) -> None:
        """Losses, gradients and updates at one state."""
        for phase in base.reports:
            spans.add_all("loss", step, base.reports[phase], mine.reports[phase], phase + "/")
            if phase in base.objectives and phase in mine.objectives:
                spans.add("loss", phase + "/objective", step, base.objectives[phase], mine.objectives[phase])
            if phase in base.gradients:
                spans.add_all("gradient", step, base.gradients[phase], mine.gradients[phase], phase + "/")
            spans.add_all("update", step, base.after[phase], mine.after[phase], phase + "/")
        if len(base.reports) > 1:
            spans.add_all("update", step, base.after_step, mine.after_step, "step/")

    def repeated(self, initial: State, reports: List[Any], kept: Any, unstable: List[str]) -> Any:
        """Whether the original, brought back to where it began, does the same again."""
        original, steps = self.original, min(self.steps, REPEAT_STEPS)
        original.load(initial)
        apart, compared = [], 0
        for step in range(steps):
            again = original.step(self.batch(step), step)
            compared += len(again)
            apart += [name for name, value in again.items() if value != reports[step][name]]
        left, right = original.canonical(original.state()), original.canonical(kept[steps])
        apart += changed(left, right)
        faults = ["two runs from one state differ in " + ", ".join(unstable[:3])] if unstable else []
        if apart and not faults:
            faults = ["brought back and run again it differs in " + ", ".join(apart[:3])]
        return ordered(
            [
                ("rung", "repeat"),
                ("compared", compared + len(left)),
                ("same_bits", not apart),
                ("max_abs", 0.0),
                ("max_ulp", 0),
                ("relative", ordered()),
                ("missing", []),
                ("faults", faults),
                ("notes", []),
                ("first", None),
            ]
        )

    def probe(self, state: State) -> State:
        """A state in which no two variables can be taken for each other."""
        raw = ordered(state.raw)
        for name in self.original.weights:
            array = raw[name]
            if array.dtype.kind == "f" and array.size:
                spread = max(0.1, 0.1 * float(array.std()))
                noise = seeded("probe", self.seed, name).standard_normal(array.shape)
                moved = array + (noise * spread).astype(array.dtype)
                if array.min() >= 0 and array.max() > 0:
                    moved = np.abs(moved) + np.asarray(1e-3, array.dtype)
                raw[name] = moved.astype(array.dtype)
        return State(raw, state.counts)

    def initialised(self) -> Any:
        """What the initialisers draw, in some builds."""
        pooled = ordered()
        for build in range(BUILDS):
            fresh = Original(self.build, FIRST_BUILD + build)
            for name, value in fresh.canonical(fresh.state()).items():
                if not name.endswith("/iterations") and not name.startswith("counter/"):
                    pooled.setdefault(name, []).append(np.ravel(value)[:DRAWN])
            fresh.session.close()
        return ordered((name, np.concatenate(parts)) for name, parts in pooled.items())

    def own_resume(self, reports: List[Any], kept: Any) -> str:
        """Where the original, built again, leaves its own trajectory when it resumes; empty where it does not."""
        fresh = Original(self.build, self.seed)
        fresh.load(kept[self.middle])
        found = ""
        for step in range(self.middle, self.steps):
            told = fresh.step(self.batch(step), step)
            left, right = fresh.canonical(fresh.state()), fresh.canonical(kept[step + 1])
            apart = [name for name in told if told[name] != reports[step][name]] + changed(left, right)
            if apart:
                found = "first in %s at step %d" % (apart[0], step)
                break
        fresh.session.close()
        return found

    def recorded(self, arrays: Arrays, name: str, batches_name: str) -> Any:
        """The whole record."""
        original = self.original
        initial = original.state()
        for key, value in original.canonical(initial).items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise Refused("%s holds NaN or infinity before any step." % key)
        say("looking at the first state")
        first = self.observe(arrays, initial, self.batch(0), 0, nodes=True, twice=True)
        say("running %d steps" % self.steps)
        reports, kept = self.trajectory(original, initial)
        second = self.observe(arrays, kept[self.warm], self.batch(self.warm), self.warm, nodes=True)
        repeat = self.repeated(initial, reports, kept, first.told["unstable"])
        probe = self.probe(initial)
        original.load(probe)
        probe_outputs = original.forward(self.batch(0), 0, True)
        probe_outputs.update(original.forward(self.batch(0), 0, False))
        probe_nodes = self.all_nodes(arrays)
        drawn = ordered()
        for phase in original.phases:
            original.load(initial)
            drawn[phase] = [original.unfed(phase, self.batch(step), step) for step in range(2)]
        say("looking at every state")
        looks = []
        for step in range(self.steps):
            looks.append([step, self.observe(arrays, kept[step], self.batch(step), step, nodes=True).told])
        say("measuring how far rounding takes it")
        spans = self.envelope((first, second), (initial, kept[self.warm]), reports, kept)
        single = ordered(
            [
                ("precision", "float32"),
                ("kind", "TF1 graph"),
                ("variables", self.variables()),
                ("optimizers", first.told["optimizers"]),
                ("phases", list(original.phases)),
                ("phase_optimizers", self.phase_optimizers()),
                ("initial", arrays.keep(original.canonical(initial))),
                ("stills", [first.told, second.told]),
                (
                    "trajectory",
                    ordered(
                        [
                            ("reports", reports),
                            ("states", [[n, arrays.keep(original.canonical(each))] for n, each in kept.items()]),
                        ]
                    ),
                ),
                ("repeat", repeat),
                ("forced", list(range(self.steps))),
                ("sampled", None),
                ("draws", self.draw_rows()),
                ("notes", []),
                ("probe", arrays.keep(original.canonical(probe))),
                ("probe_nodes", probe_nodes),
                ("probe_outputs", arrays.keep(probe_outputs)),
                ("initialised", arrays.keep(self.initialised())),
                ("findings", []),
                ("movements", []),
                ("unasked", []),
                ("horizon", None),
            ]
        )
        return ordered(
            [
                ("name", name),
                ("made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
                ("versions", ordered([("python", sys.version.split()[0]), ("tensorflow", str(tf.VERSION))])),
                ("seed", self.seed),
                ("batches_name", batches_name),
                ("batches", [arrays.keep(self.batch(step)) for step in range(self.steps + 1)]),
                ("inputs", "legacy: " + (", ".join(original.inputs) or "none")),
                ("spare", [each for each in self.batch(0) if each not in original.inputs]),
                ("single", single),
                ("wide", None),
                ("no_float64", "the original was recorded in float32 by record_original.py"),
                ("looks", {"float32": looks}),
                ("spans", spans),
                ("own_resume", self.own_resume(reports, kept)),
                ("idle", []),
                ("ignored", []),
                ("wide_horizon", None),
                ("notes", []),
                ("left_out", []),
                (
                    "draws",
                    [
                        [step, phase, kind, list(shape), nth, arrays.put(value)]
                        for (step, phase, kind, shape, nth), value in original.drawn.items()
                    ],
                ),
                ("unfed", drawn),
            ]
        )

    def all_nodes(self, arrays: Arrays) -> List[Any]:
        """Intermediates of outputs and of every phase at the present state, names made unique by phase."""
        found = list(self.original.nodes(arrays, self.batch(0), 0, "inference")[0] or [])
        for phase in self.original.phases:
            nodes = self.original.nodes(arrays, self.batch(0), 0, phase)[0] or []
            names = {node["name"] for node in nodes}
            for node in nodes:
                node["inputs"] = ["%s: %s" % (phase, each) if each in names else each for each in node["inputs"]]
                node["name"] = "%s: %s" % (phase, node["name"])
            found += nodes
        return found

    def variables(self) -> List[Any]:
        """The variables, without counters."""
        original, found = self.original, []
        for name in original.weights:
            if original.kind(name) != "f":
                continue
            holders = [o.name for o in original.optimizers if any(each.variable == name for each in o.updates)]
            variable = original.variables[name]
            found.append(
                ordered(
                    [
                        ("name", name),
                        ("native_name", name),
                        ("shape", variable.get_shape().as_list()),
                        ("dtype", variable.dtype.base_dtype.name),
                        ("trainable", bool(holders)),
                        ("optimizers", holders),
                    ]
                )
            )
        return found

    def phase_optimizers(self) -> Any:
        """Phase -> its optimizers."""
        return ordered(
            (phase, [each.name for each in self.original.optimizers if phase in each.phases])
            for phase in self.original.phases
        )

    def draw_rows(self) -> List[Any]:
        """Where the original draws."""
        return [
            ordered(
                [
                    ("side", "legacy"),
                    ("name", op.name),
                    ("kind", KINDS.get(op.type, op.type)),
                    ("controlled", not reason),
                    ("reason", reason),
                ]
            )
            for op, reason in self.original.draws.items()
        ]


class Scratch(Arrays):
    """Keeps nothing."""

    def __init__(self) -> None:
        pass

    def put(self, value: Any) -> List[Any]:  # noqa: ARG002
        """Keeps nothing."""
        return []


# --- The command ------------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    """Tells what is being done."""
    sys.stderr.write("record_original.py: %s\n" % text)
    sys.stderr.flush()


def find(name: str, flag: str) -> Any:
    """The function that module:function names."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise Refused("--%s=%s: expected module:function." % (flag, name))
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise Refused("--%s=%s cannot be imported: %s. Run where it stands." % (flag, name, error))
    except AttributeError:
        raise Refused("--%s=%s: %s has no %s." % (flag, name, module, function))


def batch_source(function: Callable[..., Any]) -> Callable[[int], Any]:
    """Step -> batch, each asked for once."""
    takes = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
    given = None if takes else function()
    known = {}  # type: Dict[int, Any]

    def batch(step: int) -> Any:
        if step not in known:
            made = function(step) if takes else given[step % len(given)] if isinstance(given, (list, tuple)) else given
            if not isinstance(made, dict):
                raise Refused("--batches gave %s; expected a mapping of inputs to arrays." % type(made))
            names = list(made) if sys.version_info >= (3, 6) else sorted(made)
            known[step] = ordered((str(name), np.asarray(made[name])) for name in names)
        return known[step]

    return batch


def main(words: Optional[Sequence[str]] = None) -> int:
    """Records as the flags say; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--legacy", required=True, help="function that builds the graph, as module:function")
    parser.add_argument("--batches", required=True, help="function that gives batches, as module:function")
    parser.add_argument("--record", required=True, help="folder to write; must not exist")
    parser.add_argument("--steps", type=int, default=20, help="steps of the trajectory")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    given = parser.parse_args(words)
    temporary = None
    try:
        if os.path.exists(given.record):
            raise Refused("--record=%s exists; name a new folder." % given.record)
        if given.steps < 1:
            raise Refused("--steps=%d: expected 1 or more." % given.steps)
        build, batch = find(given.legacy, "legacy"), batch_source(find(given.batches, "batches"))
        where_to = os.path.dirname(os.path.abspath(given.record))
        temporary = tempfile.mkdtemp(dir=where_to)
        arrays = Arrays(os.path.join(temporary, "arrays.bin"))
        told = Recorder(build, batch, given.steps, given.seed).recorded(arrays, given.legacy, given.batches)
        arrays.file.close()
        path = os.path.join(temporary, "record.json")
        with open(path, "w") as file:
            json.dump(plain(told), file, allow_nan=False)
        with open(os.path.join(temporary, "manifest.json"), "w") as file:
            json.dump({"format": "tfport record", "version": VERSION, "record.json": checksum(path)}, file)
        os.chmod(temporary, 0o755)
        os.rename(temporary, given.record)
    except Refused as refused:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        sys.stderr.write("record_original.py: %s\n" % refused)
        return 2
    say("recorded %d steps in %s" % (given.steps, given.record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
