"""What each tensor of a Keras file is: canonical names, roles and optimizers, out of attributes and JSON configs.

Configs are read as JSON and nothing in them is built or run; code that a Lambda layer keeps in one stays text.

Keras 2 records every weight's name. Keras 3 records only layers' names and numbers the variables of each, an
optimizer's too: the kinds follow from the layers' classes and from shapes, the variable that a slot belongs to from the
order of the model's layers. Where that order is not recorded, shapes must leave one answer only; else the slots stay
unresolved, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tfport.checking.slots import KERAS_ANY, KERAS_NUMBERS
from tfport.checkpoints.contents import STRING, Contents, Entry, OptimizerEntry, Role, Stored
from tfport.checkpoints.hdf5 import H5File, config_of, shown, text, weight_lists
from tfport.state import iterations_name, slot_name
from tfport.subject import CORRECTED

if TYPE_CHECKING:
    from tfport.checkpoints.hdf5 import H5Source

Read = Callable[[str], np.ndarray[Any, Any]]

_STATISTICS = frozenset({"moving_mean", "moving_variance"})
_NORMALIZATION = ("mean", "variance", "count")
_COUNTS = frozenset({"iteration", "iter", "iterations"})
_RATES = frozenset({"learning_rate", "current_learning_rate"})
_DEPTH = 64

# --- Optimizers -------------------------------------------------------------------------------------------------------
_SLOTS: dict[str, dict[str, str]] = {
    "SGD": {"m": "accumulator", "momentum": "accumulator"},
    "RMSprop": {
        "velocity": "rms",
        "rms": "rms",
        "momentum": "momentum",
        "average_gradient": "mean",
        "mg": "mean",
    },
    "Adam": {"m": "m", "momentum": "m", "v": "v", "velocity": "v", "velocity_hat": "velocity_hats"},
    "AdamW": {"m": "m", "momentum": "m", "v": "v", "velocity": "v", "velocity_hat": "velocity_hats"},
    "Adamax": {"m": "m", "momentum": "m", "u": "v", "norm": "v", "v": "v"},
    "Adagrad": {"accumulator": "accumulator"},
    "Adadelta": {
        "accumulated_grad": "accumulator",
        "accum_grad": "accumulator",
        "accumulated_delta_var": "accumulator_update",
        "accum_var": "accumulator_update",
    },
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
    "Nadam": {"momentum": "momentums", "velocity": "velocities"},
    "Lion": {"m": "momentums", "momentum": "momentums"},
    "Lamb": {"momentum": "momentums", "velocity": "velocities"},
}
"""Keras's class -> a slot's name in a file (Keras 2's, its legacy optimizers', Keras 3's) -> the canonical slot."""

_SLOT_WORDS = frozenset({"average", *(name for each in _SLOTS.values() for name in each)})

_EXTRAS = {"momentum_cache": "m_cache", "variable": "u_product", "product": "u_product"}
_AVERAGE, _ACCUMULATED = "average", "gradient_accumulator"

_HINTS = {
    "sgd": "SGD",
    "rm_sprop": "RMSprop",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adam_w": "AdamW",
    "adamw": "AdamW",
    "adamax": "Adamax",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "ftrl": "Ftrl",
    "nadam": "Nadam",
    "lion": "Lion",
    "lamb": "Lamb",
}
"""An optimizer's default name, without a number -> its class."""


@dataclass(frozen=True)
class _Optimizer:
    """An optimizer's config, as far as there is one."""

    kind: str
    """Keras's class; "" where it is not known."""
    config: Mapping[str, Any] | None
    """None where the file records none."""
    keras3: bool
    legacy: bool = False

    def number(self, name: str) -> float | None:
        value = (self.config or {}).get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def flag(self, name: str) -> bool:
        return bool((self.config or {}).get(name))

    @property
    def algorithm(self) -> str | None:
        """As `tfport.checking.slots` names it; None where no config tells."""
        if self.config is None or not self.kind:
            return None
        name = self.kind
        if name == "SGD":
            return ("Nesterov" if self.flag("nesterov") else "Momentum") if self.number("momentum") else "SGD"
        if name == "RMSprop":
            name = "CenteredRMSProp" if self.flag("centered") else "RMSProp"
            return name + (CORRECTED if self.legacy and not self.number("momentum") else "")
        if name in ("Adam", "AdamW"):
            if self.flag("amsgrad"):
                return f"AMSGrad {name}"
            return "AdamW" if self.number("weight_decay") else name
        return name + (CORRECTED if name == "Adagrad" and self.legacy else "")

    @property
    def hyperparameters(self) -> dict[str, float]:
        found: dict[str, float] = {}
        rate = self.number("learning_rate")
        if rate is not None and not self.varying:
            found["learning_rate"] = rate
        for attribute, name in KERAS_NUMBERS.get(self.kind, {}).items():
            value = self.number(attribute)
            if value is not None and not (name == "momentum" and self.algorithm == "SGD"):
                found[name] = value
        for attribute, name in KERAS_ANY.items():
            value = self.number(attribute)
            if value:
                found[name] = value
        if self.config is not None and self.kind not in KERAS_NUMBERS:
            for name, value in self.config.items():
                if isinstance(value, float) and name not in ("learning_rate", "ema_momentum", "decay"):
                    found.setdefault(str(name), value)
        return found

    @property
    def varying(self) -> tuple[str, ...]:
        rate = (self.config or {}).get("learning_rate")
        scheduled = isinstance(rate, dict | str) or (self.legacy and bool(self.number("decay")))
        return ("learning_rate",) if scheduled else ()

    def slot(self, name: str) -> str:
        """The canonical slot of a name in a file."""
        known = _SLOTS.get(self.kind, {})
        if self.legacy and self.kind == "Nadam":
            return name
        if name == "vhat" and not self.legacy:
            name = "velocity_hat"
        if self.kind == "Nadam" and name in ("m", "v"):
            return {"m": "momentums", "v": "velocities"}[name]
        if name in (_ACCUMULATED, "accumulated_gradients"):
            return "accumulated_gradients"
        return known.get(name, name)


def _class_name(config: Mapping[str, Any]) -> str:
    """A serialised object's class without its package: "Custom>Adam" is Adam."""
    return str(config.get("class_name", "")).rpartition(">")[2]


def _optimizer_config(found: Any, keras3: bool) -> _Optimizer | None:
    """Out of a serialised optimizer; the inner one where it is wrapped in a loss scale."""
    for _ in range(4):
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            return None
        inner = found["config"].get("inner_optimizer")
        if inner is None:
            break
        found = inner
    config = found["config"]
    legacy = not keras3 and "is_legacy_optimizer" not in config
    return _Optimizer(_class_name(found), config, keras3, legacy)


def _own_name(config: Mapping[str, Any] | None, default: str) -> str:
    name = (config or {}).get("name")
    return shown(name) if isinstance(name, str) and name else default


def lambdas(config: Any) -> list[str]:
    """Names of the layers, and of functions without a name, that are Python code in a config."""
    found: list[str] = []
    stack: list[Any] = [config]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            kind = each.get("class_name")
            if kind in ("Lambda", "__lambda__"):
                inner = each.get("config")
                name = inner.get("name") if isinstance(inner, dict) else None
                found.append(shown(str(name)) if name else "a function without a name")
                if kind == "Lambda":
                    continue
            stack.extend(reversed(list(each.values())))
        elif isinstance(each, list):
            stack.extend(reversed(each))
    return list(dict.fromkeys(found))


def _lambda_notes(config: Any) -> list[str]:
    return [
        f"the model holds Python code in a Lambda ({name}): it was neither decoded nor run, here only tensors are read"
        for name in lambdas(config)
    ]


def _layer_classes(config: Any) -> dict[str, str]:
    """Layer's name -> class, of a Keras 2 config, nested models included."""
    found: dict[str, str] = {}
    stack = [config]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            inner = each.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                found[inner["name"]] = _class_name(each)
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)
    return found


# --- Keras 2 ----------------------------------------------------------------------------------------------------------
def keras2(source: H5Source) -> Contents:
    """Contents of a file of the Keras 2 layout, by whichever Keras it was written.

    Raises:
      CheckpointError: a config in it is no JSON.
    """
    file, path = source.file, source.path
    notes: list[str] = []
    root = file.groups[""]
    model_config, training = text(root, "model_config"), text(root, "training_config")
    config = config_of(path, model_config, "its model_config") if model_config else None
    notes.extend(_lambda_notes(config))
    keras3 = source.written_by.get("keras", "2").startswith("3")
    if keras3:
        notes.append("Keras 3 wrote this file in the layout of Keras 2")
    entries: dict[str, Entry] = {}
    raw = _keras2_weights(file, config, entries)
    optimizers: list[OptimizerEntry] = []
    names = dict(weight_lists(file)).get("optimizer_weights")
    if names:
        recorded = config_of(path, training, "its training_config") if training else {}
        given = _optimizer_config(recorded.get("optimizer_config") if isinstance(recorded, dict) else None, keras3)
        optimizers.append(_keras2_optimizer(source, names, given, raw, entries, notes, keras3))
    unlisted = [key for key in source.tensors if key not in entries]
    for key in unlisted:
        entries[key] = Entry(key, Role.OTHER, key)
    if unlisted:
        notes.append(f"{len(unlisted)} dataset(s) are listed by no layer, first {unlisted[0]!r}")
    return Contents(tuple(entries[key] for key in source.tensors), tuple(optimizers), tuple(notes))


def _keras2_weights(file: H5File, config: Any, entries: dict[str, Entry]) -> dict[str, list[str]]:
    """Fills in the weights' entries; gives each weight's name in the file -> canonical names."""
    classes = _layer_classes(config)
    inner = config.get("config") if isinstance(config, dict) else None
    model = inner.get("name") if isinstance(inner, dict) else None
    rows = [
        (group, name, _plain(name))
        for group, names in weight_lists(file)
        if group != "optimizer_weights"
        for name in names
    ]
    holders: dict[str, set[str]] = {}
    for group, _, name in rows:
        holders.setdefault(name, set()).add(group)
    raw: dict[str, list[str]] = {}
    for group, listed, name in rows:
        layer = group.removeprefix(file.prefix)
        canonical = name
        if len(holders[name]) > 1 and not name.startswith(f"{layer}/"):
            canonical = f"{layer}/{name}"
        elif name.startswith(f"{model}/{layer}/"):
            canonical = name.removeprefix(f"{model}/")
        key = f"{group}/{listed}"
        if key in entries:
            continue
        stored = file.tensors[key]
        role = _weight_role(canonical, stored, classes)
        entries[key] = Entry(key, role, key if role is Role.OTHER else canonical)
        if role is not Role.OTHER:
            raw.setdefault(name, []).append(canonical)
    return raw


def _plain(name: str) -> str:
    """A weight's name without ":0"."""
    stem, _, output = name.rpartition(":")
    return stem if stem and output.isdigit() else name


def _weight_role(name: str, stored: Stored, classes: Mapping[str, str]) -> Role:
    parts = name.split("/")
    if parts[-1] in _STATISTICS:
        return Role.STATISTIC
    layer = parts[-2] if len(parts) > 1 else ""
    kind = classes.get(layer, "Normalization" if re.fullmatch(r"normalization(_\d+)?", layer) else "")
    if kind == "Normalization" and parts[-1] in _NORMALIZATION:
        return Role.STATISTIC
    whole = stored.dtype == STRING or np.dtype(np.bool_).name == stored.dtype or "int" in stored.dtype
    return Role.OTHER if whole or "seed_generator" in parts[-1] else Role.WEIGHT


def _keras2_optimizer(
    source: H5Source,
    names: Sequence[str],
    given: _Optimizer | None,
    raw: Mapping[str, list[str]],
    entries: dict[str, Entry],
    notes: list[str],
    keras3: bool,
) -> OptimizerEntry:
    """Entries of an `optimizer_weights` group, and its optimizer."""
    optimizer = given or _Optimizer("", None, keras3)
    label = _own_name(optimizer.config, "optimizer")
    flat: dict[str, str] = {}
    for name in raw:
        flat.setdefault(name.replace("/", "_"), name)
    variables: dict[str, None] = {}
    hyperparameters = optimizer.hyperparameters
    unused, unresolved = 0, []
    for listed in names:
        key = f"optimizer_weights/{listed}"
        if key in entries:
            continue
        parts = _plain(listed).split("/")
        entry = Entry(key, Role.OTHER, key)
        stored = source.tensors[key]
        if parts[-1] in _COUNTS and not stored.shape:
            entry = Entry(key, Role.COUNT, iterations_name(label), optimizer=label)
        elif parts[-1] in _RATES and not stored.shape:
            entry = _number_entry(key, label, "learning_rate")
            if "learning_rate" not in optimizer.varying:
                hyperparameters["learning_rate"] = _scalar(source.read, key)
        elif parts[-1] in _EXTRAS and not stored.shape:
            entry = _number_entry(key, label, _EXTRAS[parts[-1]])
        else:
            found = _slot_of(parts, raw, flat)
            if found is None or len(raw[found[1]]) != 1:
                unresolved.append(key)
            elif optimizer.algorithm == "SGD":
                unused += 1
            else:
                variable = raw[found[1]][0]
                variables[variable] = None
                entry = _slot_entry(key, label, optimizer.slot(found[0]), found[0], variable)
        entries[key] = entry
    if unused:
        notes.append(f"{label} keeps {unused} slot(s) that plain SGD never uses, since its momentum is 0")
    if unresolved:
        notes.append(
            f"{len(unresolved)} weight(s) of {label} belong to no known variable and are left as they are, first "
            f"{unresolved[0]!r}"
        )
    return OptimizerEntry(label, optimizer.algorithm, "keras", hyperparameters, tuple(variables), optimizer.varying)


def _number_entry(key: str, label: str, name: str) -> Entry:
    return Entry(key, Role.HYPERPARAMETER, f"optimizer/{label}/{name}", optimizer=label)


def _slot_entry(key: str, label: str, slot: str, native: str, variable: str) -> Entry:
    if native == _AVERAGE:
        return Entry(key, Role.AVERAGE, f"average/{variable}", variable, label)
    return Entry(key, Role.SLOT, slot_name(label, slot, variable), variable, label, slot)


def _scalar(read: Read, key: str) -> float:
    return float(np.asarray(read(key)).astype(np.float64).reshape(()))


def _slot_of(parts: Sequence[str], raw: Mapping[str, Any], flat: Mapping[str, str]) -> tuple[str, str] | None:
    """(slot, the weight's name) out of a slot's name: `Adam/m/<variable>`, `Adam/<variable>/m`, or with "_" for
    "/"; also `m/<variable>`, where the optimizer was built before the first step.
    """
    if parts[0] in _SLOT_WORDS and "/".join(parts[1:]) in raw:
        return parts[0], "/".join(parts[1:])
    for start in range(1, len(parts)):
        if start > 1 and "/".join(parts[start:]) in raw:
            return parts[start - 1], "/".join(parts[start:])
        if "/".join(parts[start:-1]) in raw:
            return parts[-1], "/".join(parts[start:-1])
    joined = "_".join(parts[1:])
    for end in range(len(joined) - 1, 0, -1):
        if joined[end] == "_" and joined[:end] in flat:
            return joined[end + 1 :], flat[joined[:end]]
    return None


# --- Keras 3: the tree of layers --------------------------------------------------------------------------------------
@dataclass
class _Node:
    """A layer, a model, an optimizer: a group that has `vars`, or the attribute or list that leads to some."""

    path: str
    name: str = ""
    """As the file records it; "" where it does not."""
    vars: list[Stored] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)
    container: bool = True
    """A list or dict of things, with no variables of its own."""
    kind: str = ""
    """The class in snake case; "" where it is not known."""
    config: Mapping[str, Any] | None = None
    compiled: Any = None
    """The serialised optimizer, where the config has it."""
    order: tuple[str, ...] | None = None
    """The children of `layers`, in the model's order, where the config tells."""
    trainable: bool = True
    canonical: str = ""


def _snake(name: str) -> str:
    """A class's name as Keras names groups: BatchNormalization is batch_normalization."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _tree(file: H5File, tensors: Mapping[str, Stored]) -> tuple[_Node, list[str]]:
    """The file's groups as a tree, and the keys that lie in no `vars`."""
    root = _Node("", container=False)
    stray: list[str] = []

    def node_at(path: str) -> _Node:
        node = root
        for part in path.split("/") if path else []:
            inside = f"{node.path}/{part}" if node.path else part
            node = node.children.setdefault(part, _Node(inside))
        return node

    for path, attributes in file.groups.items():
        if path == "vars" or path.endswith("/vars"):
            node = node_at(path.removesuffix("vars").rstrip("/"))
            node.container = False
            node.name = shown(text(attributes, "name") or "")
    for key, stored in tensors.items():
        parent, _, _ = key.rpartition("/")
        if parent == "vars" or parent.endswith("/vars"):
            node = node_at(parent.removesuffix("vars").rstrip("/"))
            node.container = False
            node.vars.append(stored)
        else:
            stray.append(key)
    return root, stray


def _walk(node: _Node) -> Iterator[_Node]:
    stack = [node]
    while stack:
        each = stack.pop()
        yield each
        stack.extend(reversed(list(each.children.values())))


def _configure(node: _Node, config: Any, depth: int = 0) -> None:
    """Gives a node and the layers below it what the config says of them."""
    if depth > _DEPTH or not isinstance(config, dict):
        return
    inner = config.get("config")
    node.kind = _snake(_class_name(config))
    node.config = inner if isinstance(inner, dict) else None
    compiled = config.get("compile_config")
    node.compiled = compiled.get("optimizer") if isinstance(compiled, dict) else None
    if node.config is None:
        return
    if node.config.get("trainable") is False:
        node.trainable = False
    layers = node.config.get("layers")
    held = node.children.get("layers")
    if not isinstance(layers, list) or held is None:
        return
    used: dict[str, int] = {}
    order: list[str] = []
    for place, each in enumerate(layers):
        if not isinstance(each, dict):
            return
        kind = _snake(_class_name(each))
        if place == 0 and kind == "input_layer" and node.kind == "sequential":
            continue
        used[kind] = used.get(kind, -1) + 1
        group = f"{kind}_{used[kind]}" if used[kind] else kind
        child = held.children.get(group)
        if child is None:
            continue
        own = each.get("config")
        recorded = own.get("name") if isinstance(own, dict) else None
        if child.name and recorded != child.name:
            return
        if not child.name and isinstance(recorded, str):
            child.name = shown(recorded)
        order.append(group)
        _configure(child, each, depth + 1)
    if set(order) == set(held.children):
        node.order = tuple(order)


def _numbered(name: str) -> tuple[str, int]:
    """ "dense_2" -> ("dense", 2)."""
    found = re.fullmatch(r"(.+?)_(\d{1,9})", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _guess_kinds(root: _Node) -> None:
    """The classes of what lies in lists, which Keras names by class, and of what has its class's default name."""
    for node in _walk(root):
        for name, child in node.children.items():
            if child.kind:
                continue
            if node.kind == "multi_head_attention" and name.endswith("_dense"):
                child.kind = "einsum_dense"
            elif node.container and node.path:
                child.kind = _numbered(name)[0]
            elif child.name and _numbered(child.name)[0] in _KINDS:
                child.kind = _numbered(child.name)[0]
            elif name.startswith("seed_generator"):
                child.kind = "seed_generator"


def _name_nodes(root: _Node) -> None:
    stack = [(root, "")]
    while stack:
        node, prefix = stack.pop()
        node.canonical = prefix
        for part, child in node.children.items():
            if child.container:
                stack.append((child, prefix))
            else:
                own = child.name or part
                stack.append((child, f"{prefix}/{own}" if prefix else own))
    seen: dict[str, _Node] = {}
    for node in _walk(root):
        if node.vars and seen.setdefault(node.canonical, node) is not node:
            node.canonical = node.path


# --- Keras 3: kinds ---------------------------------------------------------------------------------------------------
_KERNEL_BIAS = ("kernel", "bias")
_CELL = ("kernel", "recurrent_kernel", "bias")
_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "dense",
            "einsum_dense",
            *(f"conv{each}d" for each in (1, 2, 3)),
            *(f"conv{each}d_transpose" for each in (1, 2, 3)),
            *(f"depthwise_conv{each}d" for each in (1, 2)),
        ),
        _KERNEL_BIAS,
    ),
    **dict.fromkeys((f"separable_conv{each}d" for each in (1, 2)), ("depthwise_kernel", "pointwise_kernel", "bias")),
    **dict.fromkeys(("lstm_cell", "gru_cell", "simple_rnn_cell", "conv_lstm_cell"), _CELL),
    "embedding": ("embeddings",),
    "p_re_lu": ("alpha",),
    "normalization": _NORMALIZATION,
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "group_normalization": ("gamma", "beta"),
    "rms_normalization": ("scale",),
}
"""Class in snake case -> its variables in Keras 3's order; of each the first that its config asks for."""


def _kinds(node: _Node) -> list[str]:
    """What a layer's variables are, by class where it is known and fits, else by shape, else by number."""
    shapes = [each.shape for each in node.vars]
    numbers = [each.key.rpartition("/")[2] for each in node.vars]
    ranks = [len(shape) for shape in shapes]
    if not all(each.isdigit() for each in numbers):
        return numbers
    kinds = _KINDS.get(node.kind)
    if node.kind == "batch_normalization":
        config = node.config or {}
        affine = [
            kind for kind, switch in (("gamma", "scale"), ("beta", "center")) if config.get(switch, True) is not False
        ]
        wanted = [*affine, "moving_mean", "moving_variance"]
        if len(numbers) == 2:
            wanted = ["moving_mean", "moving_variance"]
        if len(wanted) == len(numbers):
            return wanted
        if len(numbers) == 3:
            return ["0", "moving_mean", "moving_variance"]
        return numbers
    if kinds == ("gamma", "beta") and len(numbers) == 1 and node.config is not None:
        return ["gamma"] if node.config.get("scale", True) is not False else ["beta"]
    if kinds == ("gamma", "beta") and len(numbers) == 1:
        return numbers
    if kinds is not None and len(numbers) <= len(kinds):
        return list(kinds[: len(numbers)])
    if kinds is not None:
        return numbers
    if len(ranks) == 2 and ranks[0] >= 2 and 1 <= ranks[1] < ranks[0] and _fits(shapes[0], shapes[1]):
        return list(_KERNEL_BIAS)
    if ranks == [1, 1, 1, 1] and len(set(shapes)) == 1:
        return ["gamma", "beta", "moving_mean", "moving_variance"]
    if ranks[:2] == [2, 2] and len(ranks) <= 3 and shapes[0][1] == shapes[1][1] and shapes[1][1] % shapes[1][0] == 0:
        return list(_CELL[: len(ranks)])
    if len(ranks) == 1 and ranks[0] >= 2:
        return ["kernel"]
    return numbers


def _fits(kernel: tuple[int, ...], bias: tuple[int, ...]) -> bool:
    """Whether a bias fits a kernel: its last dimensions, or a transposed convolution's last but one."""
    return kernel[-len(bias) :] == bias or (len(kernel) > 2 and (kernel[-2],) == bias)


@dataclass(frozen=True)
class _Variable:
    key: str
    name: str
    shape: tuple[int, ...]
    role: Role
    trainable: bool


def _variables(node: _Node) -> list[_Variable]:
    found = []
    for stored, kind in zip(node.vars, _kinds(node), strict=True):
        name = f"{node.canonical}/{kind}" if node.canonical else kind
        number = stored.dtype.startswith(("float", "bfloat", "complex"))
        if kind in _STATISTICS or node.kind == "normalization":
            role = Role.STATISTIC
        elif not number or node.kind == "seed_generator":
            role = Role.OTHER
        else:
            role = Role.WEIGHT
        found.append(
            _Variable(
                stored.key,
                stored.key if role is Role.OTHER else name,
                stored.shape,
                role,
                role is Role.WEIGHT and node.trainable,
            )
        )
    return found


# --- Keras 3: which slot belongs to which variable --------------------------------------------------------------------
@dataclass
class _Block:
    """A layer's trainable variables in an order that is only partly known: its own come first, then what the chains
    hold, each chain in its order, a block's variables always together.
    """

    own: list[_Variable]
    chains: list[list[_Block]]
    size: int = 0
    keys: list[str] = field(default_factory=list)


def _block(node: _Node, variables: Mapping[str, list[_Variable]], skip: set[str], trainable: bool = True) -> _Block:
    """The block of a node; `skip` holds the paths of what is no layer."""
    trainable = trainable and node.trainable
    own = [each for each in variables.get(node.path, []) if each.trainable] if trainable else []
    chains: list[list[_Block]] = []
    pending: list[tuple[_Node, tuple[str, ...] | None]] = [(node, None)]
    while pending:
        holder, order = pending.pop()
        grouped: dict[str, list[tuple[int, _Node]]] = {}
        for name, child in holder.children.items():
            if child.path in skip:
                continue
            if child.container:
                pending.append((child, node.order if holder is node and name == "layers" else None))
            elif order is not None:
                grouped.setdefault("", []).append((order.index(name), child))
            elif name.strip("_") in _CHILDREN.get(holder.kind, ()):
                grouped.setdefault("", []).append((_CHILDREN[holder.kind].index(name.strip("_")), child))
            else:
                base, number = _numbered(name) if holder.container and holder.path else (name, 0)
                grouped.setdefault(base, []).append((number, child))
        for rows in grouped.values():
            blocks = [_block(child, variables, skip, trainable) for _, child in sorted(rows, key=lambda row: row[0])]
            blocks = [each for each in blocks if each.size]
            if blocks:
                chains.append(blocks)
    made = _Block(own, chains)
    made.size = len(own) + sum(each.size for chain in chains for each in chain)
    return made


_CHILDREN = {
    "bidirectional": ("forward_layer", "backward_layer"),
    "multi_head_attention": ("query_dense", "key_dense", "value_dense", "output_dense"),
}
"""Class -> its layers' attributes in the order of its variables, which is not the file's."""
_STATES = 100_000


class _TooMany(Exception):
    """More orders than are worth trying."""


class _Placing:
    """Where each trainable variable can stand among an optimizer's, given their shapes in its order."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.states = 0
        self.known: dict[tuple[int, int], bool] = {}

    def fits(self, block: _Block, start: int) -> bool:
        key = (id(block), start)
        if key not in self.known:
            self.known[key] = self._own_fits(block, start) and bool(self._paths(block, start))
        return self.known[key]

    def _own_fits(self, block: _Block, start: int) -> bool:
        if start + block.size > len(self.shapes):
            return False
        return all(self.shapes[start + place] == each.shape for place, each in enumerate(block.own))

    def _paths(self, block: _Block, start: int) -> set[tuple[int, ...]]:
        """States (how far each chain is) that lie on a way from none placed to all placed; empty when there is none."""
        first = tuple(0 for _ in block.chains)
        last = tuple(len(chain) for chain in block.chains)
        before: dict[tuple[int, ...], list[tuple[int, ...]]] = {first: []}
        level = [first]
        while level:
            following: list[tuple[int, ...]] = []
            for state in level:
                place = self._place(block, start, state)
                for number, chain in enumerate(block.chains):
                    if state[number] == len(chain) or not self.fits(chain[state[number]], place):
                        continue
                    after = (*state[:number], state[number] + 1, *state[number + 1 :])
                    if after not in before:
                        self.states += 1
                        if self.states > _STATES:
                            raise _TooMany
                        before[after] = []
                        following.append(after)
                    before[after].append(state)
            level = following
        if last not in before:
            return set()
        on_way = {last}
        stack = [last]
        while stack:
            for state in before[stack.pop()]:
                if state not in on_way:
                    on_way.add(state)
                    stack.append(state)
        return on_way

    @staticmethod
    def _place(block: _Block, start: int, state: tuple[int, ...]) -> int:
        return (
            start
            + len(block.own)
            + sum(each.size for chain, done in zip(block.chains, state, strict=True) for each in chain[:done])
        )

    def places(self, block: _Block, starts: set[int], found: dict[str, set[int]]) -> None:
        """Adds each variable's possible places, given where its block may start."""
        for start in starts:
            for place, each in enumerate(block.own):
                found.setdefault(each.name, set()).add(start + place)
        inside: dict[int, tuple[_Block, set[int]]] = {}
        for start in starts:
            on_way = self._paths(block, start)
            for state in on_way:
                place = self._place(block, start, state)
                for number, chain in enumerate(block.chains):
                    if state[number] == len(chain):
                        continue
                    after = (*state[:number], state[number] + 1, *state[number + 1 :])
                    child = chain[state[number]]
                    if after in on_way and self.fits(child, place):
                        inside.setdefault(id(child), (child, set()))[1].add(place)
        for child, places in inside.values():
            self.places(child, places, found)


def _layout(optimizer: _Optimizer, slots: float) -> list[tuple[str, ...]] | None:
    """An optimizer's slots in the order in which it keeps them: lists one after the other, in each of them one slot of
    every name for each variable. None where it is not known.

    Args:
      optimizer: class, and config where there is one.
      slots: how many it keeps for each variable.
    """
    base = _base_layout(optimizer, round(slots))
    if base is None:
        return None
    before: list[tuple[str, ...]] = []
    if optimizer.flag("use_ema"):
        before.append((_AVERAGE,))
    if optimizer.keras3 and optimizer.number("gradient_accumulation_steps"):
        before.append((_ACCUMULATED,))
    return [*before, *base]


def _base_layout(optimizer: _Optimizer, slots: int) -> list[tuple[str, ...]] | None:
    kind, known = optimizer.kind, optimizer.config is not None
    one: dict[int, list[tuple[str, ...]]] = {
        1: [("velocity",)],
        3: [("velocity",), ("momentum",), ("average_gradient",)],
    }
    others: dict[str, list[tuple[str, ...]]] = {
        "Adamax": [("momentum", "norm")],
        "Adagrad": [("accumulator",)],
        "Adadelta": [("accumulated_grad", "accumulated_delta_var")],
        "Ftrl": [("accumulator", "linear")],
        "Nadam": [("momentum", "velocity")],
        "Lion": [("momentum",)],
        "Lamb": [("momentum", "velocity")],
    }
    if kind == "SGD":
        kept = (not optimizer.keras3 or bool(optimizer.number("momentum"))) if known else slots == 1
        return [("momentum",)] if kept else []
    if kind == "RMSprop":
        if known:
            return [
                ("velocity",),
                *([("momentum",)] if optimizer.number("momentum") else []),
                *([("average_gradient",)] if optimizer.flag("centered") else []),
            ]
        return one.get(slots)
    if kind in ("Adam", "AdamW"):
        hats = optimizer.flag("amsgrad") if known else slots == 3
        return [("momentum", "velocity"), *([("velocity_hat",)] if hats else [])]
    return others.get(kind)


# --- Keras 3: the whole -----------------------------------------------------------------------------------------------
def keras3(
    file: H5File,
    tensors: Mapping[str, Stored],
    read: Read,
    config: Any = None,
    version: str = "",
) -> Contents:
    """Contents of a file of the Keras 3 layout.

    Args:
      file: the weights.
      tensors: its tensors.
      read: reads one small tensor.
      config: the model's config as JSON, where there is one.
      version: of the Keras that wrote it, "" where that is not recorded.
    """
    notes = _lambda_notes(config)
    root, stray = _tree(file, tensors)
    for node in _walk(root):
        node.vars.sort(key=lambda each: _number_key(each.key))
    if config is not None:
        _configure(root, config)
    _guess_kinds(root)
    _name_nodes(root)
    named = any(node.name for node in _walk(root)) or not version.startswith("2")
    optimizers = {node.path: node for node in _walk(root) if _is_optimizer(node)}
    skip = set(optimizers)
    entries: dict[str, Entry] = {key: Entry(key, Role.OTHER, key) for key in stray}
    variables: dict[str, list[_Variable]] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.path in skip:
            continue
        if _is_metric(node):
            skip.add(node.path)
            for each in _walk(node):
                entries.update({stored.key: Entry(stored.key, Role.OTHER, stored.key) for stored in each.vars})
            continue
        variables[node.path] = _variables(node)
        for variable in variables[node.path]:
            entries[variable.key] = Entry(variable.key, variable.role, variable.name)
        stack.extend(node.children.values())
    found: list[OptimizerEntry] = []
    taken: set[str] = set()
    for node in optimizers.values():
        inner = node.children.get("inner_optimizer")
        if any(node.path.startswith(f"{each}/") for each in optimizers):
            continue
        found.append(_keras3_optimizer(root, node, inner, variables, skip, entries, notes, read, taken, named))
    for key in tensors:
        entries.setdefault(key, Entry(key, Role.OTHER, key))
    return Contents(tuple(entries[key] for key in tensors), tuple(found), tuple(notes))


def _number_key(key: str) -> tuple[int, str]:
    last = key.rpartition("/")[2]
    return (int(last), "") if last.isdigit() and len(last) < 12 else (1 << 60, last)


def _is_optimizer(node: _Node) -> bool:
    if not node.vars or node.vars[0].shape or not node.vars[0].dtype.startswith(("int", "uint")):
        return False
    last = node.path.rpartition("/")[2]
    return "optim" in last or last.endswith("_opt") or last == "opt" or _numbered(node.name)[0] in _HINTS


def _is_metric(node: _Node) -> bool:
    """Metrics keep their totals and counts in files of some versions."""
    last = node.path.rpartition("/")[2]
    if last in ("metrics", "_metrics", "compile_metrics", "_compile_metrics", "_compile_loss", "compile_loss"):
        return True
    inside = "layers" in node.path.split("/")
    return (
        bool(node.path)
        and not inside
        and len(node.vars) == 2
        and all(not each.shape for each in node.vars)
        and not node.children
    )


def _keras3_optimizer(
    root: _Node,
    node: _Node,
    inner: _Node | None,
    variables: Mapping[str, list[_Variable]],
    skip: set[str],
    entries: dict[str, Entry],
    notes: list[str],
    read: Read,
    taken: set[str],
    named: bool,
) -> OptimizerEntry:
    """Fills in an optimizer's entries; `inner` is the one that it wraps, whose variables it keeps again."""
    kept = inner or node
    owner = _at(root, node.path.rpartition("/")[0])
    given = _optimizer_config(owner.compiled, named) if node.path.rpartition("/")[2] == "optimizer" and owner else None
    if given is not None and not named:
        given = replace(given, legacy=False)
    optimizer = given or _Optimizer(_HINTS.get(_numbered(kept.name)[0], ""), None, named)
    label = _own_name({"name": kept.name} if kept.name else optimizer.config, "optimizer")
    number = 1
    while label in taken:
        number += 1
        label = f"{_numbered(label)[0]}_{number}"
    taken.add(label)
    hyperparameters = optimizer.hyperparameters
    rows = list(kept.vars)
    place = 1
    entries[rows[0].key] = Entry(rows[0].key, Role.COUNT, iterations_name(label), optimizer=label)
    if len(rows) > 1 and not rows[1].shape and not optimizer.varying and named:
        entries[rows[1].key] = _number_entry(rows[1].key, label, "learning_rate")
        hyperparameters["learning_rate"] = _scalar(read, rows[1].key)
        place = 2
    slots = rows[place:]
    if optimizer.kind == "Nadam" and slots and not slots[-1].shape and named:
        last = slots.pop()
        entries[last.key] = _number_entry(last.key, label, "u_product")
    for each in slots:
        entries[each.key] = Entry(each.key, Role.OTHER, each.key)
    trained, algorithm = _assign_slots(owner or root, label, optimizer, slots, variables, skip, entries, notes)
    if inner is not None:
        _repeat(node, inner, label, entries)
    return OptimizerEntry(label, algorithm, "keras", hyperparameters, trained, optimizer.varying)


def _at(root: _Node, path: str) -> _Node | None:
    node: _Node | None = root
    for part in path.split("/") if path else []:
        node = node.children.get(part) if node else None
    return node


def _repeat(outer: _Node, inner: _Node, label: str, entries: dict[str, Entry]) -> None:
    """Entries of an optimizer that scales losses: its own numbers, then what the inner one keeps once more."""
    own = len(outer.vars) - len(inner.vars)
    for place, each in enumerate(outer.vars):
        if place >= own >= 0:
            entries[each.key] = replace(entries[inner.vars[place - own].key], key=each.key)
            if entries[each.key].role is Role.OTHER:
                entries[each.key] = Entry(each.key, Role.OTHER, each.key)
        elif own == 4 and place in (2, 3):
            entries[each.key] = _number_entry(each.key, label, ("step_counter", "dynamic_scale")[place - 2])
        else:
            entries[each.key] = Entry(each.key, Role.OTHER, each.key)


def _assign_slots(
    owner: _Node,
    label: str,
    optimizer: _Optimizer,
    slots: Sequence[Stored],
    variables: Mapping[str, list[_Variable]],
    skip: set[str],
    entries: dict[str, Entry],
    notes: list[str],
) -> tuple[tuple[str, ...], str | None]:
    """Finds the variable of each slot; gives what the optimizer trains, in its order, and its algorithm."""
    if not slots:
        plain = "SGD" if optimizer.kind == "SGD" else None
        return (), optimizer.algorithm if optimizer.config is not None else plain
    tried = [owner, *(each for each in _walk(owner) if each is not owner and each.path in variables)]
    fitting: list[tuple[list[tuple[str, ...]], dict[str, set[int]], int]] = []
    for node in tried:
        block = _block(node, variables, skip)
        if not block.size or len(slots) % block.size:
            continue
        layout = _layout(optimizer, len(slots) / block.size)
        if layout is None or sum(map(len, layout)) * block.size != len(slots):
            continue
        shapes = _shapes(layout, slots, block.size)
        if shapes is None:
            continue
        placing = _Placing(shapes)
        try:
            if placing.fits(block, 0):
                places: dict[str, set[int]] = {}
                placing.places(block, {0}, places)
                fitting.append((layout, places, block.size))
        except _TooMany:
            notes.append(f"{label}: the file leaves too many orders of the variables to tell whose its slots are")
            return (), optimizer.algorithm
        except RecursionError:
            return (), optimizer.algorithm
        if node is owner and fitting:
            break
    fitting = [each for number, each in enumerate(fitting) if each[1] not in [other[1] for other in fitting[:number]]]
    if len(fitting) != 1:
        if optimizer.algorithm == "SGD":
            notes.append(f"{label} keeps {len(slots)} slot(s) that plain SGD never uses, since its momentum is 0")
            return (), "SGD"
        reason = (
            "they fit several of the nested models"
            if fitting
            else "the file does not tell its class"
            if not optimizer.kind
            else "they do not fit the model's variables in an order that is known"
        )
        notes.append(f"{label}: {len(slots)} slot(s) are left unresolved, since {reason}")
        return (), optimizer.algorithm
    layout, places, count = fitting[0]
    algorithm = optimizer.algorithm
    if optimizer.config is None:
        algorithm = _algorithm_of(optimizer.kind, sum(map(len, layout)))
        notes.append(
            f"{label}: {algorithm or optimizer.kind} by its name and its number of slots; the file has no config of it"
        )
    order: list[str | None] = [None] * count
    for name, possible in places.items():
        if len(possible) == 1:
            order[next(iter(possible))] = name
    unknown = order.count(None)
    if optimizer.algorithm == "SGD":
        notes.append(f"{label} keeps {len(slots)} slot(s) that plain SGD never uses, since its momentum is 0")
        return tuple(each for each in order if each), "SGD"
    if unknown:
        notes.append(
            f"{label}: the slots of {unknown} of {count} variables are left unresolved, since the file does not record "
            "the order of the layers, and variables of one shape could stand for each other; a .keras file records it"
        )
    for place, stored in enumerate(slots):
        native, index = _native(layout, place, count)
        variable = order[index]
        if variable is not None:
            entries[stored.key] = _slot_entry(stored.key, label, optimizer.slot(native), native, variable)
    return tuple(each for each in order if each), algorithm


def _native(layout: Sequence[tuple[str, ...]], place: int, count: int) -> tuple[str, int]:
    """The slot's name and the variable's number of the slot at a place."""
    for names in layout:
        if place < count * len(names):
            return names[place % len(names)], place // len(names)
        place -= count * len(names)
    raise IndexError(place)


def _shapes(layout: Sequence[tuple[str, ...]], slots: Sequence[Stored], count: int) -> list[tuple[int, ...]] | None:
    """Each variable's shape as its slots have it; None where they disagree."""
    found: list[tuple[int, ...] | None] = [None] * count
    for place, stored in enumerate(slots):
        _, index = _native(layout, place, count)
        if found[index] is not None and found[index] != stored.shape:
            return None
        found[index] = stored.shape
    return [each for each in found if each is not None]


def _algorithm_of(kind: str, slots: int) -> str | None:
    """The algorithm of an optimizer of which only the class is known; None where that does not settle it."""
    if kind == "SGD":
        return None if slots else "SGD"
    if kind == "RMSprop":
        return {1: "RMSProp", 3: "CenteredRMSProp"}.get(slots)
    if kind in ("Adam", "AdamW"):
        return f"AMSGrad {kind}" if slots == 3 else kind
    return kind or None
