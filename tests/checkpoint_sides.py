"""Checkpoints that lie in memory, for tests of what reads any Source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfport.checkpoints.contents import (
    STRING,
    Bytes,
    Contents,
    Entry,
    OptimizerEntry,
    Role,
    Source,
    Stored,
    pieces,
)
from tfport.errors import CheckpointError

Array = np.ndarray[Any, Any]


class FakeSource(Source):
    """Arrays as an open checkpoint; `bytes` stand for a tensor of texts.

    Args:
      arrays: key -> array or bytes.
      contents: what they are; told by their names, which are canonical, when None.
      format: one of `opening.FORMATS`.
      path: its path; no file need be there.
      piece: bytes of a piece; pieces may end within an element. One piece a tensor when None.
      readable: elements of the largest tensor that may be read; all when None.
      optimizers: what the contents tell of them, when they are not given.
      cut: a key whose last byte is missing.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        contents: Contents | None = None,
        format: str = "npz",  # noqa: A002
        *,
        path: Path = Path("fake.npz"),
        piece: int | None = None,
        readable: int | None = None,
        optimizers: Sequence[OptimizerEntry] = (),
        cut: str | None = None,
    ) -> None:
        self.format, self.path, self.written_by = format, path, {"numpy": "2.4.6"}
        self.arrays = {key: each if isinstance(each, bytes) else np.asarray(each) for key, each in arrays.items()}
        self.tensors = {
            key: Stored(key, (), STRING) if isinstance(each, bytes) else Stored(key, each.shape, each.dtype.name)
            for key, each in self.arrays.items()
        }
        self._contents = contents or Contents(tuple(map(entry, self.arrays)), tuple(optimizers))
        self.piece, self.readable, self.cut = piece, readable, cut
        self.reads: list[str] = []
        """Keys in the order in which they were asked for."""
        self.closed = False

    def chunks(self, key: str) -> Iterator[Bytes]:
        if self.readable is not None and self.tensors[key].parameters > self.readable:
            raise AssertionError(f"{key} is read, and only headers should be")
        self.reads.append(key)
        array = self.arrays[key]
        data = array if isinstance(array, bytes) else b"".join(pieces(array))
        if key == self.cut:
            data = data[:-1]
        for start in range(0, len(data), self.piece or max(len(data), 1)):
            yield data[start : start + (self.piece or len(data))]
        if key == "damaged":
            raise CheckpointError(f"{self.path} is damaged: the checksum of {key} is wrong.")

    def contents(self) -> Contents:
        return self._contents

    def close(self) -> None:
        self.closed = True


_STATISTICS = ("moving_mean", "moving_variance")


def entry(key: str, name: str | None = None) -> Entry:
    """What the tensor of a canonical name is; a key of its own when `name` is given."""
    name = name or key
    parts = name.split("/")
    if parts[0] == "average" and len(parts) > 1:
        return Entry(key, Role.AVERAGE, name, variable="/".join(parts[1:]))
    if parts[0] == "optimizer" and len(parts) == 3:
        roles = {"iterations": Role.COUNT, "beta_1_power": Role.POWER, "beta_2_power": Role.POWER}
        return Entry(key, roles.get(parts[2], Role.HYPERPARAMETER), name, optimizer=parts[1])
    if parts[0] == "optimizer" and len(parts) > 3:
        return Entry(key, Role.SLOT, name, variable="/".join(parts[3:]), optimizer=parts[1], slot=parts[2])
    if parts[-1] in _STATISTICS:
        return Entry(key, Role.STATISTIC, name)
    if name == "global_step":
        return Entry(key, Role.COUNT, name)
    if name.startswith("_") or name == "save_counter":
        return Entry(key, Role.OTHER, name)
    return Entry(key, Role.WEIGHT, name)


ADAM = OptimizerEntry(
    "gan",
    "Adam",
    "tf1",
    {"learning_rate": 0.0002, "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-8},
    ("generator/hidden/kernel", "generator/hidden/bias"),
    ("learning_rate",),
)
"""What trains the variables of `gan_arrays`."""


def gan_arrays(seed: int = 0, count: int = 200) -> dict[str, Array]:
    """Arrays of a small trained network with Adam: weights, a statistic, slots and a count, by canonical names."""
    rng = np.random.default_rng(seed)
    weights = {
        "generator/hidden/kernel": rng.normal(0, 0.05, (7, 5)).astype(np.float32),
        "generator/hidden/bias": rng.normal(0, 0.01, 5).astype(np.float32),
        "generator/norm/moving_variance": rng.uniform(0.5, 2, 5).astype(np.float32),
    }
    slots = {}
    for name in ("generator/hidden/kernel", "generator/hidden/bias"):
        shape = weights[name].shape
        slots[f"optimizer/gan/m/{name}"] = rng.normal(0, 0.01, shape).astype(np.float32)
        slots[f"optimizer/gan/v/{name}"] = rng.uniform(1e-4, 1e-3, shape).astype(np.float32)
    return {**weights, **slots, "optimizer/gan/iterations": np.array(count, np.int64)}
