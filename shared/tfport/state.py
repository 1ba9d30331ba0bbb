"""Canonical state: weights, statistics, optimizer slots and step counters by name, and its form on disk.

Schema 1 of the names:

* a model's variable, moving statistics with them: `<network>/<layer>/<kind>`, e.g. `generator/hidden/kernel`;
* an optimizer's slot: `optimizer/<optimizer>/<slot>/<variable>`, the slots being `m` and `v` for Adam and `rms` for
  RMSProp; the optimizer has the name that the spec's `optimizers` gives it;
* an optimizer's count of steps: `optimizer/<optimizer>/iterations`, int64 scalar.

On disk it is an uncompressed `.npz` whose entry `__schema__` holds JSON; no pickle is ever read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfport.errors import CheckpointError
from tfport.files import write_atomically

Array = np.ndarray[Any, Any]

SCHEMA = 1
_HEADER = "__schema__"


def slot_name(optimizer: str, slot: str, variable: str) -> str:
    """Canonical name of an optimizer slot."""
    return f"optimizer/{optimizer}/{slot}/{variable}"


def iterations_name(optimizer: str) -> str:
    """Canonical name of an optimizer's count of steps."""
    return f"optimizer/{optimizer}/iterations"


@dataclass(frozen=True)
class State:
    """One model's whole state; `arrays` maps canonical names to arrays."""

    model: str
    arrays: Mapping[str, Array]

    def digest(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes: equal exactly when the states are the same bits."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def check_fits(self, other: State) -> None:
        """Raises CheckpointError unless `other` has this state's names and shapes."""
        for kind, names in (
            ("missing", self.arrays.keys() - other.arrays.keys()),
            ("unknown", other.arrays.keys() - self.arrays.keys()),
        ):
            if names:
                raise CheckpointError(
                    f"the state does not fit {self.model}: {len(names)} {kind} name(s), first {min(names)!r}."
                )
        for name, array in self.arrays.items():
            if array.shape != other.arrays[name].shape:
                raise CheckpointError(
                    f"the state does not fit {self.model}: {name} has shape {other.arrays[name].shape}, "
                    f"expected {array.shape}."
                )

    def astype(self, precision: str) -> State:
        """The same state with every floating array in `precision`; counters stay integers."""
        return State(
            self.model,
            {
                name: array.astype(precision) if np.issubdtype(array.dtype, np.floating) else array
                for name, array in self.arrays.items()
            },
        )


def write(path: Path, state: State) -> None:
    """Writes a state file atomically.

    Raises:
      RunError: the disk refused.
    """
    header = json.dumps({"schema": SCHEMA, "model": state.model, "names": sorted(state.arrays)})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_HEADER: np.array(header)}, **dict(state.arrays))
    write_atomically(path, buffer.getvalue())


def read(path: Path) -> State:
    """Reads a state file.

    Raises:
      CheckpointError: it is missing, damaged, not a state file, or of another schema version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if _HEADER not in file.files:
                raise CheckpointError(f"{path} is an .npz but not a tfport state: it has no {_HEADER} entry.")
            header = dict(json.loads(str(file[_HEADER])))
            arrays = {name: file[name] for name in file.files if name != _HEADER}
        schema = header["schema"]
        model, names = str(header.get("model")), list(header.get("names", ()))
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except Exception as error:  # the readers of zip and of arrays raise whatever the damaged bytes lead them to
        raise CheckpointError(
            f"{path} is not a whole tfport state file ({type(error).__name__}: {error}); write it again."
        ) from None
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path} has state schema {schema!r}; this tfport reads schema {SCHEMA}. "
            "Use the tfport version that wrote it."
        )
    if sorted(arrays) != names:
        raise CheckpointError(f"{path} is damaged: it lists {len(names)} arrays and holds {len(arrays)}.")
    return State(model, arrays)


def fresh(
    model: str, weights: Mapping[str, Array], held: Mapping[str, Sequence[str]], slots: Mapping[str, Sequence[str]]
) -> State:
    """The state before the first step: `weights`, zero slots and zero counters.

    Args:
      model: the model's name.
      weights: canonical name -> initial value.
      held: optimizer -> the variables that it holds.
      slots: optimizer -> the names of its slots.
    """
    arrays: dict[str, Array] = dict(weights)
    for optimizer, variables in held.items():
        for variable in variables:
            for slot in slots[optimizer]:
                arrays[slot_name(optimizer, slot, variable)] = np.zeros_like(weights[variable])
        arrays[iterations_name(optimizer)] = np.array(0, np.int64)
    return State(model, arrays)
