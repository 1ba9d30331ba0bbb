"""What each tensor of a TF1 checkpoint is: by the graph beside it, else by the names alone.

tf.compat.v1's optimizers name a slot `<variable>/<optimizer>`, the second `<variable>/<optimizer>_1` and so on. Made
inside a variable scope, that comes before: `<scope>/<variable>/<optimizer>`. Two optimizers of one name that share a
variable count on (`w/Adam_2`, `w/Adam_3`); where they share none, the names are those of one. A user's name for an
optimizer takes the place of its class's. Beta powers are `beta1_power`, `beta1_power_1`, ... in the optimizer's scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfport.checkpoints import algebra
from tfport.checkpoints.contents import Array, Contents, Entry, OptimizerEntry, Role, Source, Stored
from tfport.checkpoints.object_graph import COUNTERS, STATISTICS
from tfport.errors import CheckpointError
from tfport.state import slot_name

Read = Callable[[str], Array]

_FAMILIES: dict[str, tuple[str | None, tuple[str, ...], str]] = {
    "Adam": ("Adam", ("m", "v"), ""),
    "LazyAdam": ("Adam", ("m", "v"), ""),
    "AdamW": ("AdamW", ("m", "v"), ""),
    "AdaMax": ("Adamax", ("m", "v"), ""),
    "Momentum": (None, ("accumulator",), "Momentum or Nesterov"),
    "Adagrad": ("Adagrad", ("accumulator",), ""),
    "Adadelta": ("Adadelta", ("accumulator", "accumulator_update"), ""),
    "Ftrl": ("Ftrl", ("accumulator", "linear"), ""),
    "AdagradDA": ("AdagradDA", ("gradient_accumulator", "gradient_squared_accumulator"), ""),
    "ProximalAdagrad": ("ProximalAdagrad", ("accumulator",), ""),
}
"""An optimizer's default name -> algorithm, slots, and the readings where there are several."""
_RMSPROP = {2: ("RMSProp", ("rms", "momentum")), 3: ("CenteredRMSProp", ("rms", "mean", "momentum"))}
_WITH_POWERS = ("Adam", "AdamW", "Adamax")

_POWER = re.compile(r"(.*/)?beta([12])_power(?:_(\d+))?")
AVERAGE = re.compile(r"(.+)/ExponentialMovingAverage(?:_(\d+))?")
"""A key of a moving average."""
_STEP = re.compile(r"(.*/)?(biased|local_step)")
_BERT = {"adam_m": "m", "adam_v": "v"}
_NO_OPTIMIZERS = frozenset(
    {"kernel", "bias", "weight", "weights", "biases", "gamma", "beta", "scale", "offset", "embedding", "embeddings"}
    | {"w", "b", "u", "W"}
)
"""What lies below a variable and has such a name is a variable too."""
_SCALING = ("current_loss_scale", "good_steps", "loss_scale")

_FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Betas:
    """An Adam's betas and count, as its two powers tell."""

    beta_1: float | None
    """None where its power has underflowed and several betas would have come to that."""
    beta_2: float
    count: int


def betas_of(power_1: Array, power_2: Array) -> Betas | None:
    """The betas among the usual ones, and the one count of updates, that give both stored powers exactly.

    TF1 multiplies each power up step by step in its own precision (`tfport.adam`), so both are exact. A power that has
    underflowed to 0 (126 updates for .5) fits any later count: then beta_2's alone tells.

    Args:
      power_1: scalar, beta_1's power as it is stored.
      power_2: scalar, beta_2's.

    Returns:
      None where nothing or several fit.
    """
    powers = {"beta_1": np.asarray(power_1), "beta_2": np.asarray(power_2)}
    if any(each.shape or each.dtype.name not in _FLOATS or not np.isfinite(each) for each in powers.values()):
        return None
    try:
        count, betas, _ = algebra.count_of_powers(powers, {})
    except CheckpointError:
        return None
    return Betas(betas.get("beta_1"), betas["beta_2"], count) if "beta_2" in betas else None


def inferred_betas(optimizer: str, power_1: Array, power_2: Array, notes: list[str]) -> dict[str, float]:
    """`beta_1` and `beta_2` as far as the powers tell; what was inferred is added to `notes`."""
    found = betas_of(power_1, power_2)
    if found is None:
        notes.append(f"{optimizer}: its beta powers are those of no usual betas, or of several")
        return {}
    betas = {"beta_2": found.beta_2}
    if found.beta_1 is not None:
        betas = {"beta_1": found.beta_1, **betas}
    told = ", ".join(f"{name} {value}" for name, value in betas.items())
    notes.append(f"{optimizer}: {told} and {found.count:,} updates, inferred from its beta powers")
    return betas


def contents(source: Source) -> Contents:
    """What each tensor is, by `<prefix>.meta` where that lies beside the checkpoint and can be read, else by names.

    Args:
      source: a checkpoint of a tf.train.Saver; `source.path` is its prefix.
    """
    meta = source.path.with_name(f"{source.path.name}.meta")
    if not meta.is_file():
        found = by_names(source.tensors, source.read)
        return _noted(found, f"there is no {meta.name}: what each tensor is was told by its name alone")
    from tfport.checkpoints import tf1_meta

    try:
        return tf1_meta.contents(meta, source.tensors, source.read)
    except tf1_meta.GraphError as error:
        found = by_names(source.tensors, source.read)
        return _noted(found, f"{error} What each tensor is was told by its name alone")


def _noted(found: Contents, note: str) -> Contents:
    return Contents(found.entries, found.optimizers, (note, *found.notes))


# --- By names ---------------------------------------------------------------------------------------------------------
@dataclass
class _Group:
    """Slots of one name and scope: mostly one optimizer's."""

    scope: str
    base: str
    slots: dict[str, dict[int, str]] = field(default_factory=dict)
    """Variable -> number behind the name (0 for none) -> key."""

    @property
    def counts(self) -> set[int]:
        """How many slots its variables have."""
        return {len(numbers) for numbers in self.slots.values()}


@dataclass
class _Optimizer:
    name: str
    scope: str
    algorithm: str | None
    slots: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Key -> slot, variable."""
    powers: dict[str, str] = field(default_factory=dict)
    """`beta_1_power`, `beta_2_power` -> key."""
    open: str = ""
    """The readings, where there are several."""


def by_names(tensors: Mapping[str, Stored], read: Read) -> Contents:
    """What each tensor is as far as names, shapes and dtypes tell; reads beta powers only."""
    return _Names(tensors, read).contents()


class _Names:
    def __init__(self, tensors: Mapping[str, Stored], read: Read) -> None:
        self.tensors = tensors
        self.read = read
        self.notes: list[str] = []
        self.powers = self._powers()
        self.bert: dict[str, tuple[str, str]] = {}
        self.groups = self._groups()
        self.optimizers = self._optimizers()
        self._assign_powers()

    def _is_floating(self, key: str) -> bool:
        dtype = self.tensors[key].dtype
        return "float" in dtype or "complex" in dtype

    def _powers(self) -> dict[tuple[str, int], dict[str, str]]:
        """(scope, number) -> `beta_1_power`, `beta_2_power` -> key."""
        found: dict[tuple[str, int], dict[str, str]] = {}
        for key, stored in self.tensors.items():
            match = _POWER.fullmatch(key)
            if match and not stored.shape and self._is_floating(key):
                place = (match[1] or "", int(match[3] or 0))
                found.setdefault(place, {})[f"beta_{match[2]}_power"] = key
        return found

    # --- Slots --------------------------------------------------------------------------------------------------------
    def _variable_of(self, key: str) -> tuple[str, str] | None:
        """The scope and the variable that a key may be a slot of."""
        parent = key.rpartition("/")[0]
        parts = parent.split("/")
        for start in range(len(parts)):
            variable = "/".join(parts[start:])
            stored = self.tensors.get(variable)
            if stored is not None and variable != key:
                if (stored.shape, stored.dtype) != (self.tensors[key].shape, self.tensors[key].dtype):
                    return None
                return "/".join(parts[:start]), variable
        return None

    def _groups(self) -> list[_Group]:
        found: dict[tuple[str, str], _Group] = {}
        for key in self.tensors:
            if "/" not in key or not self._is_floating(key) or AVERAGE.fullmatch(key) or _STEP.fullmatch(key):
                continue
            last = key.rpartition("/")[2]
            owner = self._variable_of(key)
            if owner is None or STATISTICS.fullmatch(last) or AVERAGE.fullmatch(owner[1]):
                continue
            scope, variable = owner
            if last in _BERT:
                self.bert[key] = (_BERT[last], variable)
                continue
            match = re.fullmatch(r"(.+?)(?:_(\d+))?", last)
            assert match is not None
            base, number = match[1], int(match[2] or 0)
            if match[2] is not None and (number == 0 or match[2].startswith("0") or len(match[2]) > 4):
                base, number = last, 0
            found.setdefault((scope, base), _Group(scope, base)).slots.setdefault(variable, {})[number] = key
        owned = {key for group in found.values() for numbers in group.slots.values() for key in numbers.values()}
        kept = []
        for group in found.values():
            # A slot has no slots, and its numbers are 0, 1, ... without a hole.
            for variable in [*group.slots]:
                numbers = group.slots[variable]
                if variable in owned or sorted(numbers) != list(range(len(numbers))):
                    del group.slots[variable]
            if group.slots and (group.base in _FAMILIES or group.base == "RMSProp" or self._is_user_name(group)):
                kept.append(group)
        return kept

    def _is_user_name(self, group: _Group) -> bool:
        """Whether a name that is no optimizer's default may be one's: its variables have 1 to 3 slots each, alike."""
        return len(group.counts) == 1 and max(group.counts) <= 3 and group.base not in _NO_OPTIMIZERS

    # --- Optimizers ---------------------------------------------------------------------------------------------------
    def _optimizers(self) -> list[_Optimizer]:
        found: list[_Optimizer] = []
        for group in self.groups:
            if group.base in _FAMILIES:
                algorithm, slots, readings = _FAMILIES[group.base]
                found += self._known(group, algorithm, slots, readings)
            elif group.base == "RMSProp":
                found += self._rmsprop(group)
            else:
                found.append(self._users(group))
        if self.bert:
            found.append(_Optimizer("adam", "", None, self.bert, open="an Adam without beta powers, as BERT's"))
        names = [each.name for each in found]
        taken: set[str] = set()
        for each in found:
            name = each.name
            if names.count(name) > 1:
                name = f"{each.scope}/{name}".strip("/").replace("/", "_")
            unique, count = name, 1
            while unique in taken:
                unique, count = f"{name}_{count}", count + 1
            taken.add(unique)
            each.name = unique
        return found

    def _known(
        self, group: _Group, algorithm: str | None, slots: Sequence[str], readings: str = ""
    ) -> list[_Optimizer]:
        """The optimizers behind a default name: several where a variable has several times the slots."""
        size = len(slots)
        if any(count % size for count in group.counts):
            return [self._unclear(group, f"{group.base}, with a number of slots that is not {size}")]
        several = max(group.counts) // size
        found = [
            _Optimizer(group.base if not place else f"{group.base}_{place}", group.scope, algorithm, open=readings)
            for place in range(several)
        ]
        for variable, numbers in group.slots.items():
            for number, key in numbers.items():
                found[number // size].slots[key] = slots[number % size], variable
        if len(group.counts) > 1:
            self.notes.append(
                f"{several} optimizers named {group.base} share variables; a variable with the slots of one of them is "
                f"shown as {group.base}'s, and may be another's: only the graph tells"
            )
        return found

    def _rmsprop(self, group: _Group) -> list[_Optimizer]:
        sizes = [size for size in (2, 3) if all(count % size == 0 for count in group.counts)]
        if len(sizes) != 1:
            return [self._unclear(group, "RMSProp, centered or not, several times")]
        algorithm, slots = _RMSPROP[sizes[0]]
        return self._known(group, algorithm, slots)

    def _unclear(self, group: _Group, readings: str) -> _Optimizer:
        found = _Optimizer(group.base, group.scope, None, open=readings)
        for variable, numbers in group.slots.items():
            for number, key in numbers.items():
                found.slots[key] = f"slot_{number}" if number else "slot", variable
        return found

    def _users(self, group: _Group) -> _Optimizer:
        """An optimizer whose name is the user's own; Adam where the beta powers leave nothing else."""
        [count] = group.counts
        if count == 2 and self._all_are_adams():
            return self._known(group, "Adam", ("m", "v"))[0]
        readings = {
            1: "Momentum, Nesterov, Adagrad or another of one slot",
            2: "Adam, RMSProp, Adadelta, Ftrl or another of two slots",
            3: "centered RMSProp, or another of three slots",
        }
        return self._unclear(group, readings[count])

    def _all_are_adams(self) -> bool:
        """Whether there are as many pairs of beta powers as optimizers that could have one."""
        pairs = sum(len(powers) == 2 for powers in self.powers.values())
        candidates = 0
        for group in self.groups:
            if group.base in _FAMILIES:
                algorithm, slots, _ = _FAMILIES[group.base]
                candidates += max(group.counts) // len(slots) if algorithm in _WITH_POWERS else 0
            elif group.base != "RMSProp" and group.counts == {2}:
                candidates += 1
        return pairs == candidates

    # --- Beta powers --------------------------------------------------------------------------------------------------
    def _assign_powers(self) -> None:
        takers = [each for each in self.optimizers if each.algorithm in _WITH_POWERS]
        if len(takers) == 1 and len(self.powers) == 1:
            takers[0].powers = next(iter(self.powers.values()))
            return
        scopes = [f"{each.scope}/" if each.scope else "" for each in takers]
        places = [scope for scope, _ in self.powers]
        alike = sorted(scopes) == sorted(places) and len(set(scopes)) == len(scopes)
        if takers and alike:
            for each, scope in zip(takers, scopes, strict=True):
                number = next(number for place, number in self.powers if place == scope)
                each.powers = self.powers[scope, number]
            return
        if self.powers:
            self.notes.append(
                f"{len(self.powers)} set(s) of beta powers and {len(takers)} optimizer(s) that may have them: which "
                "belong together cannot be told by names"
            )
            if len(self.powers) > len(takers) > 0:
                self.notes.append(
                    f"there are more optimizers than names: {takers[0].name} may be several that share no variable"
                )

    # --- Contents -----------------------------------------------------------------------------------------------------
    def contents(self) -> Contents:
        entries: dict[str, Entry] = {}
        found = []
        for each in self.optimizers:
            for key, (slot, variable) in each.slots.items():
                name = slot_name(each.name, slot, variable)
                entries[key] = Entry(key, Role.SLOT, name, variable, each.name, slot)
            for power, key in each.powers.items():
                entries[key] = Entry(key, Role.POWER, f"optimizer/{each.name}/{power}", optimizer=each.name)
            if each.open:
                self.notes.append(f"the optimizer named {each.name} is {each.open}: names do not tell")
            numbers = {}
            if len(each.powers) == 2 and each.algorithm in ("Adam", "AdamW"):
                values = [self.read(each.powers[name]) for name in ("beta_1_power", "beta_2_power")]
                numbers = inferred_betas(each.name, values[0], values[1], self.notes)
            variables = tuple(dict.fromkeys(variable for _, variable in each.slots.values()))
            found.append(OptimizerEntry(each.name, each.algorithm, "tf1", numbers, variables))
        for powers in self.powers.values():
            for key in powers.values():
                entries.setdefault(key, Entry(key, Role.POWER, key))
        averaged: set[str] = set()
        for key in self.tensors:
            if key not in entries:
                entries[key] = self._variable(key, averaged)
        return Contents(tuple(entries[key] for key in self.tensors), tuple(found), tuple(dict.fromkeys(self.notes)))

    def _variable(self, key: str, averaged: set[str]) -> Entry:
        stored = self.tensors[key]
        last = key.rpartition("/")[2]
        if not self._is_floating(key):
            whole = stored.dtype in ("int32", "int64") and not stored.shape
            return Entry(key, Role.COUNT if whole and last in COUNTERS else Role.OTHER, key)
        if not stored.shape and last in _SCALING:
            return Entry(key, Role.OTHER, key)
        if match := AVERAGE.fullmatch(key):
            return self._average(key, match, averaged)
        if STATISTICS.fullmatch(last):
            return Entry(key, Role.STATISTIC, key)
        if _STEP.fullmatch(key) and (averages := key.rpartition("/")[0]) and self._is_statistic(averages):
            return Entry(key, Role.STATISTIC if last == "biased" else Role.OTHER, key)
        return Entry(key, Role.WEIGHT, key)

    def _is_statistic(self, key: str) -> bool:
        return bool(STATISTICS.fullmatch(key.rpartition("/")[2]) or AVERAGE.fullmatch(key))

    def _average(self, key: str, match: re.Match[str], averaged: set[str]) -> Entry:
        owner = self._variable_of(key)
        if owner is None and "moments" in match[1]:
            self.notes.append(f"{key} is taken as a moving statistic of a batch: no variable has that name")
            return Entry(key, Role.STATISTIC, key)
        variable = owner[1] if owner is not None else match[1]
        if owner is None:
            self.notes.append(f"{key} is taken as the average of {variable}, which the checkpoint does not hold")
        name = f"average/{variable}"
        if name in averaged:
            self.notes.append(f"{variable} has several moving averages: {key} goes by its own name")
            name = f"average/{key}"
        averaged.add(name)
        return Entry(key, Role.AVERAGE, name, variable)
