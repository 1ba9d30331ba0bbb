"""What tensors are that go by canonical names, in files that hold nothing but names and numbers: npz and safetensors.

A safetensors file with PyTorch's names goes to `torch_names`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from tfport.checking.slots import SLOTS
from tfport.checkpoints.contents import Contents, Entry, OptimizerEntry, Role, Stored, damaged
from tfport.checkpoints.zips import shown

EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3")
"""Dtypes of ml_dtypes that numpy has no name for."""
MODEL_NOTE = "The state of the model "
"""How the note begins that names the model of a state file."""

_STATISTICS = ("moving_mean", "moving_variance", "moving_var", "running_mean", "running_var", "running_std")
_COUNTS = ("global_step", "num_batches_tracked", "iterations", "step", "epoch")
_OTHERS = ("save_counter", "seed_generator_state", "rng_state")
_POWERS = ("beta_1_power", "beta_2_power")
_TORCH_ENDINGS = (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")


class Named(Protocol):
    """A Source of named tensors and of what its file says beside them."""

    path: Path
    tensors: dict[str, Stored]
    notes: tuple[str, ...]
    recorded: tuple[OptimizerEntry, ...] | None

    @property
    def framework(self) -> str:
        """ "pt", "np", "tf" or ""."""


def contents(source: Named) -> Contents:
    """What each tensor is, by its name alone, with what the file records of its optimizers."""
    if _is_torch(source):
        from tfport.checkpoints import torch_names

        return torch_names.flat(source.tensors, source.notes)
    entries = tuple(entry_of(stored) for stored in source.tensors.values())
    return Contents(entries, optimizers_of(entries, source.recorded or ()), source.notes)


def _is_torch(source: Named) -> bool:
    if any(key.startswith(("optimizer/", "average/")) for key in source.tensors) or source.recorded:
        return False
    return (
        source.framework == "pt"
        or (source.framework == "" and any(key.endswith(_TORCH_ENDINGS) for key in source.tensors))
        or any(key.endswith(_TORCH_ENDINGS[2:]) for key in source.tensors)
    )


def entry_of(stored: Stored) -> Entry:
    """What a tensor is whose key is its canonical name."""
    key = stored.key
    name = key.removesuffix(":0")
    parts = name.split("/")
    if parts[0] == "optimizer" and len(parts) >= 3 and all(parts):
        if len(parts) == 3:
            if parts[2] == "iterations":
                return Entry(key, Role.COUNT, name, optimizer=parts[1])
            role = Role.POWER if parts[2] in _POWERS else Role.HYPERPARAMETER
            return Entry(key, role, name, optimizer=parts[1])
        return Entry(key, Role.SLOT, name, "/".join(parts[3:]), parts[1], parts[2])
    if parts[0] == "average" and len(parts) > 1:
        return Entry(key, Role.AVERAGE, name, "/".join(parts[1:]))
    last = parts[-1].rpartition(".")[2]
    if last in _STATISTICS:
        return Entry(key, Role.STATISTIC, name)
    if last in _OTHERS:
        return Entry(key, Role.OTHER, key)
    if last in _COUNTS and stored.parameters == 1:
        return Entry(key, Role.COUNT, name)
    return Entry(key, Role.WEIGHT, name)


def algorithm_of(slots: Iterable[str]) -> str | None:
    """The one algorithm that keeps exactly these slots; None where several do, or none."""
    found = set(slots)
    if not found:
        return None
    fitting = [
        name
        for name, known in SLOTS.items()
        if found == set(known) or ("rms" in known and found == set(known) - {"momentum"})
    ]
    return fitting[0] if len(fitting) == 1 else None


def optimizers_of(entries: tuple[Entry, ...], recorded: tuple[OptimizerEntry, ...] = ()) -> tuple[OptimizerEntry, ...]:
    """The optimizers that entries tell of, with what is recorded of them."""
    slots: dict[str, dict[str, None]] = {}
    variables: dict[str, dict[str, None]] = {}
    for entry in entries:
        if entry.optimizer:
            slots.setdefault(entry.optimizer, {})
            variables.setdefault(entry.optimizer, {})
            if entry.role is Role.SLOT:
                slots[entry.optimizer][entry.slot] = None
                variables[entry.optimizer][entry.variable] = None
    known = {each.name: each for each in recorded}
    names = {entry.name for entry in entries}
    found = []
    for name in dict.fromkeys([*slots, *known]):
        record = known.get(name, OptimizerEntry(name, None, "tf1"))
        trained = tuple(variables.get(name, ())) or tuple(each for each in record.variables if each in names)
        algorithm = record.algorithm or algorithm_of(slots.get(name, ()))
        found.append(OptimizerEntry(name, algorithm, "tf1", record.hyperparameters, trained, record.varying))
    return tuple(found)


# --- What a file records of optimizers --------------------------------------------------------------------------------
def record(optimizers: Iterable[OptimizerEntry]) -> list[dict[str, Any]]:
    """What is known of optimizers, as JSON takes it; numbers that are not finite are left out."""
    return [
        {
            "name": each.name,
            "algorithm": each.algorithm,
            "hyperparameters": {
                name: float(value) for name, value in each.hyperparameters.items() if math.isfinite(value)
            },
            "variables": list(each.variables),
            "varying": list(each.varying),
        }
        for each in optimizers
    ]


def recorded(path: Path, facts: object) -> tuple[OptimizerEntry, ...]:
    """The inverse of `record`, of JSON out of a file.

    Raises:
      CheckpointError: it is not what `record` gives.
    """
    found: dict[str, OptimizerEntry] = {}
    for each in facts if isinstance(facts, list) else [None]:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(each, dict) or not isinstance(name, str) or not name or name in found:
            raise damaged(path, "what it records of its optimizers is no list of them, each with a name of its own")
        algorithm, numbers = each.get("algorithm"), each.get("hyperparameters", {})
        if not (algorithm is None or isinstance(algorithm, str)) or not _are_numbers(numbers):
            raise damaged(path, f"what it records of the optimizer {shown(name)} is no algorithm with numbers")
        variables, varying = each.get("variables", []), each.get("varying", [])
        if not _are_texts(variables) or not _are_texts(varying):
            raise damaged(path, f"what it records of the optimizer {shown(name)} is no list of names")
        numbers = {key: float(value) for key, value in numbers.items()}
        found[name] = OptimizerEntry(name, algorithm, "tf1", numbers, tuple(variables), tuple(varying))
    return tuple(found.values())


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_numbers(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    for each in value.values():
        if isinstance(each, bool) or not isinstance(each, (int, float)):
            return False
        if isinstance(each, int) and abs(each) >= 1 << 1_000:
            return False
        if not math.isfinite(each):
            return False
    return True


def model_of(contents: Contents) -> str:
    """The model that the notes name, or ""."""
    return next((each.removeprefix(MODEL_NOTE) for each in contents.notes if each.startswith(MODEL_NOTE)), "")
