"""Rung 9: the legacy side's checkpoint after k steps, made into the modern side's, as one who changes over has it.

The way leads through files: the legacy side saves, the files are converted, and the modern side restores. Where it
cannot be found out how a user's own Subject lays its files out, it is handed the state itself, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfport.equivalence.measurement import RungMeasurement, Tolerances
from tfport.equivalence.reach import Reach
from tfport.errors import UserError
from tfport.models.spec import ModelSpec
from tfport.state import State
from tfport.subject import Subject

Carry = Callable[[Path, Path], None]
"""Makes one side's checkpoint, a folder, into the other's, an empty folder; raises CheckpointError where it cannot."""

FRESH = 9
"""The seed of the weights that a side has before it restores: what the checkpoint does not bring keeps them."""


def resume_step(steps: int) -> int:
    """How many steps the legacy side makes before it is left: half of them, rounded down."""
    return steps // 2


def by_state(source: str, target: str) -> Carry | None:
    """No way through files: a side is handed the state itself."""
    del source, target
    return None


def carry_between(source: str, target: str, spec: ModelSpec, precision: str) -> Carry | None:
    """What makes a checkpoint of one side into one of another.

    Args:
      source: what the side that saves is called: a paradigm's name, or a factory.
      target: the same of the side that restores.
      spec: the model's facts.
      precision: of both sides.

    Returns:
      None where a factory's Subject saves files of which nothing can be found out.
    """
    if not (_laid_out(source, spec, precision) and _laid_out(target, spec, precision)):
        return None

    def carry(folder: Path, into: Path) -> None:
        from tfport.checkpoints import reference

        reference.convert_folder(folder, source, into, target, spec, precision)

    return carry


_FOUND: dict[tuple[str, str, str], bool] = {}
"""Factory, spec and precision -> whether it is known where its files keep what."""


def _laid_out(name: str, spec: ModelSpec, precision: str) -> bool:
    """Whether it is known, or can be found out, where a side's files keep what."""
    if ":" not in name:
        return True
    from tfport.checkpoints import reference

    key = name, repr(spec), precision
    if key not in _FOUND:
        try:
            reference.layout(name, spec, precision)
            _FOUND[key] = True
        except Exception:  # what a user's own `save` raises, or writes, is not this rung's to judge
            _FOUND[key] = False
    return _FOUND[key]


@dataclass
class Halfway:
    """What rung 9 needs of the legacy side's free trajectory."""

    step: int
    """How many steps were made when it was left."""
    folder: Path
    """Where its checkpoint of that step lies."""
    state: State | None = None
    """Its state then."""
    reports: list[dict[str, float]] = field(default_factory=list)
    """What it reported from then on."""
    last: State | None = None
    """The state it ended in."""
    reach: Reach = field(default_factory=Reach)
    """How large its tensors have been."""

    def take(self, legacy: Subject, files: bool) -> None:
        """Keeps the present state, and a checkpoint of it where somebody asks for files."""
        self.state = legacy.state()
        if files:
            self.folder.mkdir()
            legacy.save(self.folder)


def taken_over(
    halfway: Halfway,
    legacy: Subject,
    modern: Subject,
    carry: Carry | None,
    back: Carry | None,
    rung: RungMeasurement,
    tolerances: Tolerances,
    folder: Path,
) -> bool:
    """Brings the modern side to where the legacy side was left, and compares what came over with what was left.

    Args:
      halfway: where the legacy side was left.
      legacy: the legacy side; where there is a way back, it ends in some other state.
      modern: the modern side.
      carry: from the legacy side's files to the modern side's; None where they are not known.
      back: the other way; None likewise. What the modern side saves again then has to be what the legacy side left.
      rung: takes down distances, and what could not be carried over.
      tolerances: what rounding explains.
      folder: where files may be written; it is not there yet.

    Returns:
      Whether the modern side can go on from there.
    """
    assert halfway.state is not None
    step, left = halfway.step, halfway.state.arrays
    modern.initialise(FRESH)
    if carry is None:
        modern.load(carried(halfway.state, modern))
        rung.notes.append(
            f"the state of step {step} was carried over by names and arrays: it could not be found out how a side lays "
            "its files out"
        )
        rung.add_all(left, modern.state().arrays, step, None, tolerances, "carried/")
        return True
    folder.mkdir()
    forth, again, returned = (folder / name for name in ("converted", "saved", "returned"))
    try:
        forth.mkdir()
        carry(halfway.folder, forth)
        modern.restore(forth)
    except UserError as refused:
        rung.lack(f"the checkpoint of step {step} cannot be carried over: {refused}")
        return False
    rung.add_all(left, modern.state().arrays, step, None, tolerances, "carried/")
    if back is not None:
        try:
            again.mkdir()
            modern.save(again)
            returned.mkdir()
            back(again, returned)
            legacy.restore(returned)
        except UserError as refused:
            rung.lack(f"the checkpoint of step {step} cannot be carried back: {refused}")
        else:
            rung.add_all(left, legacy.state().arrays, step, None, tolerances, "returned/")
    return True


def carried(state: State, subject: Subject) -> State:
    """The state as `subject` can take it: what it has no place for is left out, what is missing keeps its own value."""
    own = subject.state().arrays
    arrays: dict[str, Any] = {
        name: state.arrays[name] if name in state.arrays and state.arrays[name].shape == array.shape else array
        for name, array in own.items()
    }
    return State(state.model, arrays)
