"""The reference models' own checkpoints, converted file by file between paradigms.

Where a paradigm keeps each tensor is learned and not written down: a state in which every tensor is another one is
loaded into the model, saved by the framework's own writer, and found again in the files. So a layout is right by
construction, for any Subject.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfport import adam, paradigms
from tfport.checkpoints import plan
from tfport.checkpoints.contents import STRING, Array, Contents, Entry, OptimizerEntry, Role, Source
from tfport.checkpoints.convert import Tick
from tfport.checkpoints.parts import PartsSink, PartsSource
from tfport.errors import CheckpointError, UserError
from tfport.files import atomic_folder, explained
from tfport.models.spec import ModelSpec
from tfport.state import State
from tfport.subject import OptimizerInfo, Subject


@dataclass(frozen=True)
class Layout:
    """Where a paradigm keeps a model's state."""

    contents: Contents
    template: tempfile.TemporaryDirectory[str]
    """A checkpoint in that layout; the folder goes when nothing holds it."""
    turned: bool
    """Whether kernels lie transposed, as PyTorch's do."""

    @property
    def folder(self) -> Path:
        """The template."""
        return Path(self.template.name) / "checkpoint"


_LAYOUTS: dict[tuple[str, str, str, str], Layout] = {}


def layout(paradigm: str, spec: ModelSpec, precision: str = "float32") -> Layout:
    """The layout of a paradigm's checkpoints of a model; learned once in a process.

    Args:
      paradigm: a paradigm's name, or a factory `module:function`.
      spec: the model.
      precision: "float32" or "float64".

    Raises:
      CheckpointError: a tensor of the state was not found in the files.
      UserError: see `paradigms.build`.
    """
    key = (paradigm, spec.name, repr(spec), precision)
    if key not in _LAYOUTS:
        subject = paradigms.build(paradigm, spec, precision)
        try:
            _LAYOUTS[key] = learn(subject)
        finally:
            subject.close()
    return _LAYOUTS[key]


def learn(subject: Subject) -> Layout:
    """Learns the layout of a Subject's checkpoints; its state is planted over."""
    own = subject.state()
    planted = _planted(own)
    subject.load(planted)
    holder = tempfile.TemporaryDirectory(prefix="tfport-layout-")
    folder = Path(holder.name) / "checkpoint"
    folder.mkdir()
    subject.save(folder)
    with PartsSource(folder) as source:
        contents, turned = _found(subject, planted, source)
    return Layout(contents, holder, turned)


def _planted(state: State) -> State:
    """The same names and shapes, no two tensors alike; counts are small, or beta powers would underflow."""
    rng = np.random.default_rng(20261121)
    counts = itertools.count(3)
    arrays: dict[str, Array] = {}
    for name, array in state.arrays.items():
        if array.dtype.kind in "iu":
            arrays[name] = np.full(array.shape, next(counts), array.dtype)
        else:
            arrays[name] = np.asarray(rng.uniform(0.1, 1.0, array.shape), array.dtype)
    return State(state.model, arrays)


def _found(subject: Subject, planted: State, source: Source) -> tuple[Contents, bool]:
    """What each stored tensor is, by its bytes."""
    by_bytes: dict[tuple[str, bytes], str] = {}
    for planted_name, array in planted.arrays.items():
        if array.dtype.kind not in "iu":
            by_bytes[(array.dtype.name, np.ascontiguousarray(array).tobytes())] = planted_name
    counts = {int(array): name for name, array in planted.arrays.items() if array.dtype.kind in "iu"}
    optimizers = subject.optimizers()
    turned = False
    entries: list[Entry] = []
    for key, stored in source.tensors.items():
        if stored.dtype == STRING:
            entries.append(Entry(key, Role.OTHER, key))
            continue
        array = source.read(key)
        name = by_bytes.get((array.dtype.name, array.tobytes()))
        if name is None and array.ndim == 2:
            name = by_bytes.get((array.dtype.name, np.ascontiguousarray(array.T).tobytes()))
            turned = turned or name is not None
        if name is None and array.size == 1:
            value = array.reshape(-1)[0]
            whole = float(value) == int(value) if np.isfinite(value) else False
            name = counts.get(int(value)) if whole else _power(value, optimizers, planted)
        entries.append(_entry(key, name, subject))
    missing = set(planted.arrays) - {entry.name for entry in entries} - _implied(entries)
    if missing:
        raise CheckpointError(
            f"{subject.paradigm}'s checkpoint of {subject.spec.name} was looked through, and {len(missing)} tensor(s) "
            f"of its state are not in it, first {min(missing)}: what is not saved cannot be carried."
        )
    return (
        Contents(
            tuple(entries),
            tuple(
                OptimizerEntry(
                    each.name,
                    each.algorithm,
                    "tf1",
                    dict(each.hyperparameters),
                    tuple(info.name for info in subject.variables() if each.name in info.optimizers),
                )
                for each in optimizers
            ),
        ),
        turned,
    )


def _power(value: Any, optimizers: Sequence[OptimizerInfo], planted: State) -> str | None:
    """The canonical name of a beta power."""
    for each in optimizers:
        count = planted.arrays.get(f"optimizer/{each.name}/iterations")
        for beta in ("beta_1", "beta_2"):
            if count is None or beta not in each.hyperparameters:
                continue
            number = each.hyperparameters[beta]
            if adam.beta_power(number, int(count), value.dtype.name) == value:
                return f"optimizer/{each.name}/{beta}_power"
    return None


def _entry(key: str, name: str | None, subject: Subject) -> Entry:
    if name is None:
        return Entry(key, Role.OTHER, key)
    if not name.startswith("optimizer/"):
        trained = {info.name for info in subject.variables() if info.trainable}
        return Entry(key, Role.WEIGHT if name in trained else Role.STATISTIC, name)
    _, optimizer, kind, *rest = name.split("/")
    if kind == "iterations":
        return Entry(key, Role.COUNT, name, optimizer=optimizer)
    if kind.endswith("_power"):
        return Entry(key, Role.POWER, name, optimizer=optimizer)
    return Entry(key, Role.SLOT, name, "/".join(rest), optimizer, kind)


def _implied(entries: list[Entry]) -> set[str]:
    """Counts that beta powers tell."""
    return {f"optimizer/{entry.optimizer}/iterations" for entry in entries if entry.role is Role.POWER}


@contextlib.contextmanager
def planned(
    source: Path, source_paradigm: str, target_paradigm: str, spec: ModelSpec, precision: str = "float32"
) -> Iterator[tuple[PartsSource, plan.Plan]]:
    """Plans the conversion of one paradigm's checkpoint folder into another's layout.

    Raises:
      CheckpointError: the folder is damaged, or is not that paradigm's checkpoint of that model.
    """
    left = layout(source_paradigm, spec, precision)
    right = layout(target_paradigm, spec, precision)
    with PartsSource(source) as opened, PartsSource(left.folder) as own, PartsSource(right.folder) as template:
        wanted = {entry.key for entry in left.contents.entries}
        for kind, keys in (("lacks", wanted - opened.tensors.keys()), ("also holds", opened.tensors.keys() - wanted)):
            if keys:
                raise CheckpointError(
                    f"{source} is no checkpoint of {spec.name} in {source_paradigm}: it {kind} {min(keys)}"
                    + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
                    + ". Which paradigm wrote it?"
                )
        for entry in left.contents.entries:
            found, expected = opened.tensors[entry.key], own.tensors[entry.key]
            if entry.role is not Role.OTHER and found != expected:
                raise CheckpointError(
                    f"{source} is no checkpoint of {spec.name} in {source_paradigm}, {precision}: {entry.key} is "
                    f"{found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}."
                )
        target = plan.Target(
            "tfport-run", template.tensors, right.contents, template, "torch" if right.turned else "tf"
        )
        yield opened, plan.make(opened, left.contents, target, layout="torch" if left.turned else "tf")


def convert_folder(
    source: Path,
    source_paradigm: str,
    target: Path,
    target_paradigm: str,
    spec: ModelSpec,
    precision: str = "float32",
    tick: Tick = lambda _: None,
) -> plan.Plan:
    """Converts one paradigm's checkpoint folder of a model into another paradigm's, file by file.

    Args:
      source: what the source's `Subject.save` wrote.
      source_paradigm: which wrote it.
      target: the folder to write, for the target's `Subject.restore`; made, or filled where it is there and empty.
      target_paradigm: which will read it.
      spec: the model.
      precision: "float32" or "float64".
      tick: told of progress, in bytes.

    Raises:
      CheckpointError: the source is damaged or does not fit.
      UserError: something lies at the target.
      RunError: the disk refused.
    """
    with explained(target):
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise UserError(f"{target} is there already; give another name, or an empty folder.")
    with (
        planned(source, source_paradigm, target_paradigm, spec, precision) as (_, made),
        atomic_folder(target) as place,
    ):
        write_parts(made, place, tick)
        return made


def write_parts(made: plan.Plan, folder: Path, tick: Tick = lambda _: None) -> None:
    """Writes a planned conversion's parts into an existing, empty folder."""
    inner = folder / "parts"
    stored = [move.stored for move in made.moves]
    contents = Contents(tuple(move.entry for move in made.moves), made.target.contents.optimizers)
    sink = PartsSink(inner, stored, contents, made.target.template)
    try:
        for move in made.moves:
            sink.write(move.stored.key, move.produce())
            tick(move.stored.nbytes)
        sink.finish()
    except BaseException:
        sink.abandon()
        raise
    for each in inner.iterdir():
        each.rename(folder / each.name)
    inner.rmdir()
