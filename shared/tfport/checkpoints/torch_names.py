"""What the tensors of a PyTorch file are, by their names and by the dicts that they are in.

A module's tensors go by their own names with "/" for "."; values stay laid out as PyTorch has them. An optimizer's
state_dict, `{"state": {index: {slot: tensor}}, "param_groups": [...]}`, names the parameters by number: a number means
a parameter where the parameters of one module fit it in number and shapes, or where the groups record names
(`param_names`); else the slots keep the number and a note says so.

Algorithms, slots and numbers are called as `tfport.adapters.torch_program` calls those of a live optimizer.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tfport.checkpoints.contents import Array, Contents, Entry, OptimizerEntry, Role, Stored
from tfport.checkpoints.torch_pickle import Path_, Tensor
from tfport.checkpoints.zips import shown
from tfport.state import iterations_name, slot_name
from tfport.subject import CORRECTED

WITHIN = ", epsilon within the norm"
"""Of PyTorch's Adamax, as in `tfport.adapters.torch_program`."""

_STATISTICS = ("running_mean", "running_var")
_COUNTS = ("num_batches_tracked",)
_WRAPPERS = ("modules", "models", "networks", "nets", "module", "model", "network", "state", "weights", "params")
"""Dicts' names that say nothing of which module is in them."""
_SWITCHES = ("foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay", "params")
"""What a parameter group says that is no number of the algorithm."""
_STEPS_READ = 20_000
_FACTS_SHOWN = 12
_TOGETHER = 4
"""Modules whose orders are tried where one optimizer trains several."""

_Slots = Mapping[str, str]
_ADAM: _Slots = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "vhat"}


class Nested(Protocol):
    """What is used of a TorchSource."""

    path: Path
    tensors: dict[str, Stored]
    tree: Any
    facts: dict[Path_, Any]
    places: dict[str, Path_]
    views: dict[str, Tensor]

    def read(self, key: str) -> Array:
        """One tensor."""


# --- Flat files -------------------------------------------------------------------------------------------------------
def flat(tensors: Mapping[str, Stored], notes: tuple[str, ...] = ()) -> Contents:
    """What the tensors of one state_dict are, in a file that holds nothing else."""
    entries = tuple(_entry(key, key.replace(".", "/"), key.rpartition(".")[2], each) for key, each in tensors.items())
    return Contents(entries, (), notes)


def _entry(key: str, name: str, last: str, stored: Stored) -> Entry:
    if last in _STATISTICS:
        return Entry(key, Role.STATISTIC, name)
    if last in _COUNTS or (stored.dtype == "int64" and not stored.shape):
        return Entry(key, Role.COUNT, name)
    if stored.dtype.startswith(("int", "uint", "bool")):
        return Entry(key, Role.OTHER, key)
    return Entry(key, Role.WEIGHT, name)


# --- Nested files -----------------------------------------------------------------------------------------------------
def nested(source: Nested, notes: tuple[str, ...] = ()) -> Contents:
    """What the tensors of a file of torch.save are; steps and rates that are kept as tensors are read.

    Raises:
      CheckpointError: one of those cannot be read.
    """
    return _Reader(source, notes).contents()


@dataclass
class _Module:
    """A dict with tensors in it."""

    place: Path_
    keys: list[str]
    prefix: str = ""
    """What stands before its variables' names."""


@dataclass
class _Optimizer:
    """An optimizer's state_dict."""

    place: Path_
    name: str
    state: Mapping[Any, Any]
    groups: list[dict[Any, Any]]

    @property
    def indices(self) -> list[Any]:
        """The parameters' numbers, in the optimizer's order."""
        return [index for group in self.groups for index in group["params"]]


class _Reader:
    def __init__(self, source: Nested, notes: tuple[str, ...]) -> None:
        self.source = source
        self.notes = list(notes)
        self.optimizers = self._name(list(_state_dicts(source.tree, ())))
        self.inside: dict[Path_, list[str]] = {each.place: [] for each in self.optimizers}
        for key, place in source.places.items():
            holder = self._holder(place)
            if holder is not None:
                self.inside[holder].append(key)
        self.modules = self._find_modules()
        self.names = {key: self._variable(module, key) for module in self.modules for key in module.keys}
        self.entries: dict[str, Entry] = {}

    def contents(self) -> Contents:
        for key, name in self.names.items():
            last = self.source.places[key][-1:] or ("",)
            self.entries[key] = _entry(key, name, last[0].rpartition(".")[2], self.source.tensors[key])
        found = tuple(self._optimizer(each) for each in self.optimizers)
        for key in self.source.tensors:
            self.entries.setdefault(key, Entry(key, Role.OTHER, key))
        self._tell_facts()
        return Contents(tuple(self.entries[key] for key in self.source.tensors), found, tuple(self.notes))

    def _holder(self, place: Path_) -> Path_ | None:
        """The optimizer that something is in."""
        return next((place[:end] for end in range(len(place)) if place[:end] in self.inside), None)

    # --- Modules ------------------------------------------------------------------------------------------------------
    def _find_modules(self) -> list[_Module]:
        found: dict[Path_, _Module] = {}
        for key, place in self.source.places.items():
            if self._holder(place) is not None:
                continue
            holder = place[:-1]
            found.setdefault(holder, _Module(holder, [])).keys.append(key)
        modules = list(found.values())
        prefixes = [_prefix(each.place) for each in modules]
        counts = collections.Counter(prefixes)
        several = sum(any(key in self.source.views for key in each.keys) for each in modules) > 1
        for module, prefix in zip(modules, prefixes, strict=True):
            module.prefix = prefix if several else ""
            if counts[prefix] > 1 and several:
                module.prefix = "/".join(module.place)
        return modules

    def _variable(self, module: _Module, key: str) -> str:
        place = self.source.places[key]
        own = place[-1].replace(".", "/") if place else key
        return f"{module.prefix}/{own}" if module.prefix else own

    def _parameters(self, module: _Module) -> list[str]:
        """Keys of what an optimizer may train, in the module's order; what is shared counts once, as it does there."""
        found: dict[object, str] = {}
        for key in module.keys:
            stored, view = self.source.tensors[key], self.source.views.get(key)
            if view is None or _entry(key, key, key.rpartition(".")[2], stored).role is not Role.WEIGHT:
                continue
            found.setdefault((view.storage.key, view.offset, view.shape, view.strides), key)
        return list(found.values())

    # --- Optimizers ---------------------------------------------------------------------------------------------------
    def _name(self, found: list[_Optimizer]) -> list[_Optimizer]:
        for each in found:
            each.name = _optimizer_name(each.place, len(found))
        counts = collections.Counter(each.name for each in found)
        for each in found:
            if counts[each.name] > 1:
                each.name = "_".join(each.place).replace("/", "_") or each.name
        return found

    def _optimizer(self, found: _Optimizer) -> OptimizerEntry:
        slots = {
            slot
            for kept in found.state.values()
            if isinstance(kept, dict)
            for slot, value in kept.items()
            if isinstance(slot, str) and isinstance(value, Tensor)
        }
        group = found.groups[0] if found.groups else {}
        algorithm, names, renamed = _algorithm(group, slots)
        variables = self._trained(found)
        steps = self._steps(found)
        same = len(set(steps.values())) <= 1
        if not same:
            self.notes.append(
                f"The optimizer {found.name} counts its updates for every parameter by itself, from "
                f"{min(steps.values()):,} to {max(steps.values()):,}."
            )
        for key in self.inside[found.place]:
            rest = self.source.places[key][len(found.place) :]
            self.entries[key] = self._entry_of(found, key, rest, names, renamed, variables, same)
        count = max(steps.values(), default=0)
        numbers = self._numbers(found, renamed)
        algorithm, numbers, varying = _settled(algorithm, group, numbers, count)
        if algorithm is None and group:
            self.notes.append(f"Which algorithm the optimizer {found.name} has, its numbers do not tell.")
        trained = tuple(dict.fromkeys(variables.values()))
        return OptimizerEntry(found.name, algorithm, "torch", numbers, trained, varying)

    def _entry_of(
        self,
        found: _Optimizer,
        key: str,
        rest: Path_,
        names: _Slots,
        renamed: Mapping[str, str],
        variables: Mapping[str, str],
        same: bool,
    ) -> Entry:
        name = found.name
        if len(rest) == 3 and rest[0] == "state":
            variable = variables.get(rest[1], "")
            if rest[2] == "step":
                called = iterations_name(name) if same else slot_name(name, "step", variable or rest[1])
                return Entry(key, Role.COUNT, called, variable, name)
            slot = names.get(rest[2], rest[2])
            return Entry(key, Role.SLOT, slot_name(name, slot, variable or rest[1]), variable, name, slot)
        if len(rest) >= 3 and rest[0] == "param_groups":
            number = renamed.get(rest[2], rest[2]) if len(rest) == 3 else f"{rest[2]}_{int(rest[3]) + 1}"
            number = number.replace("betas_", "beta_")
            return Entry(key, Role.HYPERPARAMETER, f"optimizer/{name}/{number}", optimizer=name)
        return Entry(key, Role.OTHER, key)

    def _steps(self, found: _Optimizer) -> dict[str, int]:
        """Key -> count of updates, of the first _STEPS_READ parameters."""
        counted: dict[str, int] = {}
        for key in self.inside[found.place]:
            rest = self.source.places[key][len(found.place) :]
            if len(rest) != 3 or (rest[0], rest[2]) != ("state", "step"):
                continue
            if self.source.tensors[key].parameters == 1 and len(counted) < _STEPS_READ:
                value = self._scalar(key)
                counted[key] = int(value) if math.isfinite(value) else -1
        return counted

    def _scalar(self, key: str) -> float:
        return float(self.source.read(key).reshape(()).astype("float64"))

    def _trained(self, found: _Optimizer) -> dict[str, str]:
        """The parameters' numbers, as texts, -> canonical names; empty where that is not known."""
        indices = [str(index) for index in found.indices]
        if len(set(indices)) != len(indices):
            self.notes.append(f"The optimizer {found.name} names a parameter twice: its slots keep their numbers.")
            return {}
        recorded = [name for group in found.groups for name in _texts(group.get("param_names"))]
        if len(recorded) == len(indices) and indices:
            fitting = self._by_recorded(recorded)
            if fitting is not None and self._fits(found, indices, fitting):
                return dict(zip(indices, (self.names[key] for key in fitting), strict=True))
        if not indices:
            return {}
        candidates = [keys for module in self.modules if (keys := self._parameters(module))]
        fits = [keys for keys in candidates if self._fits(found, indices, keys)]
        if len(fits) > 1:
            named = [keys for keys in fits if self._last(keys[0]) == found.name]
            if len(named) == 1:
                self.notes.append(
                    f"The parameters of several modules fit the optimizer {found.name}; it is taken for that of the "
                    "module of its name."
                )
                fits = named
        if not fits and 1 < len(candidates) <= _TOGETHER:
            for count in range(2, len(candidates) + 1):
                for several in itertools.permutations(candidates, count):
                    keys = [key for each in several for key in each]
                    if self._fits(found, indices, keys):
                        fits.append(keys)
        if len(fits) == 1:
            return dict(zip(indices, (self.names[key] for key in fits[0]), strict=True))
        reason = f"those of {len(fits)} modules or orders of them fit" if fits else "those of no module here fit"
        self.notes.append(
            f"Which variables the optimizer {found.name} trains is not known: it has {len(indices)} parameters, and "
            f"{reason}. Its slots keep the parameters' numbers."
        )
        return {}

    def _last(self, key: str) -> str:
        place = self.source.places[key]
        return _stripped(place[-2]) if len(place) > 1 else ""

    def _by_recorded(self, recorded: Sequence[str]) -> list[str] | None:
        """The keys of the one module that has all of these names."""
        fitting = []
        for module in self.modules:
            own = {self.source.places[key][-1]: key for key in module.keys if self.source.places[key]}
            if all(name in own for name in recorded):
                fitting.append([own[name] for name in recorded])
        return fitting[0] if len(fitting) == 1 else None

    def _fits(self, found: _Optimizer, indices: Sequence[str], keys: Sequence[str]) -> bool:
        """Whether the parameters have the number and the shapes of the optimizer's."""
        if len(indices) != len(keys):
            return False
        kept = {str(index): each for index, each in found.state.items() if isinstance(each, dict)}
        for index, key in zip(indices, keys, strict=True):
            shape = self.source.tensors[key].shape
            for value in kept.get(index, {}).values():
                if isinstance(value, Tensor) and value.shape not in (shape, ()):  # (): counts, NAdam's mu_product
                    return False
        return True

    def _numbers(self, found: _Optimizer, renamed: Mapping[str, str]) -> dict[str, float]:
        """Canonical name -> number, of what all groups agree on."""
        groups = [
            self._of_group(group, (*found.place, "param_groups", str(index)), renamed)
            for index, group in enumerate(found.groups)
        ]
        if not groups:
            return {}
        agreed = {
            name: value for name, value in groups[0].items() if all(each.get(name) == value for each in groups[1:])
        }
        differing = sorted({name for each in groups for name in each} - agreed.keys())
        if differing:
            self.notes.append(
                f"The optimizer {found.name} has {len(groups)} groups of parameters with numbers of their own: "
                f"{', '.join(differing)} differ."
            )
        return agreed

    def _of_group(self, group: Mapping[Any, Any], place: Path_, renamed: Mapping[str, str]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, value in group.items():
            if not isinstance(name, str) or name in _SWITCHES or name == "initial_lr":
                continue
            if name == "betas" and isinstance(value, (tuple, list)) and len(value) == 2:
                parts = {f"beta_{at + 1}": (each, (*place, name, str(at))) for at, each in enumerate(value)}
            else:
                parts = {renamed.get(name, name): (value, (*place, name))}
            for called, (each, where) in parts.items():
                number = self._number(each, where)
                if number is not None and math.isfinite(number):
                    numbers[called] = number
        return numbers

    def _number(self, value: Any, place: Path_) -> float | None:
        if isinstance(value, Tensor):
            key = "/".join(place)
            return self._scalar(key) if math.prod(value.shape) == 1 and key in self.source.tensors else None
        if isinstance(value, int):
            return float(value) if abs(value) < 1 << 63 else None
        return value if isinstance(value, float) else None

    # --- What is no tensor --------------------------------------------------------------------------------------------
    def _tell_facts(self) -> None:
        found = []
        for place, value in self.source.facts.items():
            if len(place) > 2 or self._holder(place) is not None:
                continue
            if isinstance(value, (str, float, bool)) or (isinstance(value, int) and abs(value) < 1 << 63):
                found.append(f"{'/'.join(place)} = {shown(value, 60)}")
        if found:
            more = f", and {len(found) - _FACTS_SHOWN} more" if len(found) > _FACTS_SHOWN else ""
            self.notes.append(f"Beside tensors the file holds {', '.join(found[:_FACTS_SHOWN])}{more}.")


def _state_dicts(value: Any, at: Path_) -> Iterator[_Optimizer]:
    """The optimizers' state_dicts within a tree."""
    if isinstance(value, dict):
        state, groups = value.get("state"), value.get("param_groups")
        if isinstance(state, dict) and isinstance(groups, list):
            known = all(isinstance(each, dict) and isinstance(each.get("params"), (list, tuple)) for each in groups)
            if known and all(isinstance(index, (int, str)) for each in groups for index in each["params"]):
                yield _Optimizer(at, "", state, groups)
                return
        for key, each in value.items():
            yield from _state_dicts(each, (*at, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _state_dicts(each, (*at, str(index)))


def _stripped(part: str) -> str:
    for ending in ("_state_dict", "_states", "_state"):
        part = part.removesuffix(ending)
    return "" if part == "state_dict" else part


def _prefix(place: Path_) -> str:
    parts = [_stripped(part) for part in place]
    return "/".join(part.replace(".", "/") for part in parts if part and part not in _WRAPPERS)


def _optimizer_name(place: Path_, count: int) -> str:
    parts = [part for part in map(_stripped, place) if part]
    if not parts or parts[-1] in ("optim", "opt", "optimizers"):
        return "optimizer"
    if parts[-1].isdigit():
        return f"optimizer_{parts[-1]}" if count > 1 else "optimizer"
    return parts[-1].replace("/", "_")


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, (list, tuple)) else []


# --- Algorithms -------------------------------------------------------------------------------------------------------
def _algorithm(group: Mapping[Any, Any], slots: set[str]) -> tuple[str | None, _Slots, Mapping[str, str]]:
    """The algorithm that a group's numbers are of, PyTorch's slot -> ours, PyTorch's number -> ours."""
    epsilon = {"lr": "learning_rate", "eps": "epsilon"}
    if "momentum_decay" in group:
        return "NAdam", {}, epsilon
    if "betas" in group:
        if "amsgrad" in group:
            return "Adam" + CORRECTED, _ADAM, epsilon
        if "exp_inf" in slots:
            return "Adamax" + WITHIN, {"exp_avg": "m", "exp_inf": "v"}, epsilon
        if "decoupled_weight_decay" in group:
            return "RAdam", {}, epsilon
        return None, {}, epsilon
    if {"momentum", "dampening", "nesterov"} <= group.keys():
        return "SGD", {"momentum_buffer": "accumulator"}, epsilon
    if {"alpha", "centered"} <= group.keys():
        return "RMSProp" + CORRECTED, {"square_avg": "rms", "grad_avg": "mean"}, {**epsilon, "alpha": "rho"}
    if {"lr_decay", "initial_accumulator_value"} <= group.keys():
        return "Adagrad" + CORRECTED, {"sum": "accumulator"}, epsilon
    if {"rho", "eps"} <= group.keys():
        return "Adadelta", {"square_avg": "accumulator", "acc_delta": "accumulator_update"}, epsilon
    return None, {}, epsilon


def _settled(
    algorithm: str | None, group: Mapping[Any, Any], numbers: dict[str, float], count: int
) -> tuple[str | None, dict[str, float], tuple[str, ...]]:
    """The algorithm's name where numbers change it, the numbers that then say something, and which of them vary."""
    varying = ("learning_rate",) if "initial_lr" in group else ()
    decoupled = bool(group.get("decoupled_weight_decay"))
    if algorithm is None:
        return None, numbers, varying
    kind = algorithm.partition(",")[0]
    if kind == "SGD":
        nesterov, dampening = numbers.pop("nesterov", 0), numbers.pop("dampening", 0)
        if numbers.get("momentum"):
            algorithm = "Nesterov" if nesterov else "Momentum"
            if dampening:
                algorithm, numbers["dampening"] = algorithm + ", dampened", dampening
        else:
            numbers.pop("momentum", None)
    if kind == "RMSProp" and numbers.pop("centered", 0):
        algorithm = "Centered" + algorithm
    untold = kind == "Adam" and "decoupled_weight_decay" not in group and bool(numbers.get("weight_decay"))
    if kind == "Adam" and decoupled:
        algorithm = "AdamW" + algorithm.removeprefix("Adam")
    if numbers.pop("amsgrad", 0):
        algorithm += ", amsgrad"
    if kind == "Adagrad":
        decay = numbers.pop("lr_decay", 0)
        if not numbers.get("initial_accumulator_value"):
            numbers.pop("initial_accumulator_value", None)
        else:
            numbers["initial_accumulator"] = numbers.pop("initial_accumulator_value")
        if decay and "learning_rate" in numbers:
            numbers["learning_rate"] /= 1 + count * decay
            varying = ("learning_rate",)
    if kind not in ("NAdam", "RAdam") and not decoupled and not untold and "weight_decay" in numbers:
        weight_decay = numbers.pop("weight_decay")
        if weight_decay:
            numbers["l2"] = weight_decay
    if group.get("maximize"):
        algorithm += ", maximising"
    return None if untold else algorithm, numbers, varying
