"""What does not take part: variables that `--ignore` leaves out, and those that it could.

A variable takes part if an optimizer holds it, or if an output, an objective, a gradient, a report or the next value of
another variable is computed from it. A TF1 graph tells. Of other code it is tried out: the variable is set to other
values, small and large, of both signs, and everything that the program shows is compared bit for bit.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking.draws import DrawSource
from tfport.errors import UserError
from tfport.program import Batch, Program
from tfport.state import State

Array = np.ndarray[Any, Any]
_SCALES = (0.0, 1e-4, -1e-4, 1.0, -1.0, 1e4, -1e4)
"""What a variable is set to: normal numbers around each of these, as large as it."""
MOST = 20
"""Variables of one side that are tried out as a proposal."""


def matching(patterns: Sequence[str], names: Collection[str]) -> dict[str, list[str]]:
    """Pattern -> the names that it is, or matches as the shell does; case matters."""
    return {
        pattern: [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        for pattern in patterns
    }


def proof(program: Program) -> str:
    """How it is known of variables that they take no part."""
    if program.reaches() is not None:
        return "no output, no objective and no other variable is computed from it"
    return "with other values in it, nothing else that was looked at changes"


def proposals(program: Program, names: Sequence[str], batches: Sequence[Batch]) -> list[str]:
    """Those of some variables without a partner that take no part; of many the first `MOST` are tried out."""
    held = {each.name for each in program.variables() if each.optimizers}
    tried = [name for name in names if name not in held][:MOST]
    found = readers(program, tried, batches)
    return [name for name in tried if name not in found]


def check_takes_no_part(
    program: Program, role: str, matches: Mapping[str, Sequence[str]], batches: Sequence[Batch]
) -> None:
    """Raises UserError where a variable that a pattern matches takes part.

    Args:
      program: ends in the state that it began in.
      role: "legacy" or "modern".
      matches: pattern -> names of the program's variables.
      batches: one for each of the first steps, as the program is fed.
    """
    trained = {each.name: each.optimizers for each in program.variables() if each.optimizers}
    for pattern, names in matches.items():
        for name in names:
            if name in trained:
                raise _takes_part(pattern, role, name, f"the optimizer {', '.join(trained[name])} trains it")
    names = [name for each in matches.values() for name in each]
    for name, reader in readers(program, names, batches).items():
        pattern = next(pattern for pattern, each in matches.items() if name in each)
        raise _takes_part(pattern, role, name, reader)


def _takes_part(pattern: str, role: str, name: str, why: str) -> UserError:
    return UserError(
        f"--ignore={pattern}: {name} of the {role} side takes part: {why}. Give a pattern that leaves it in; "
        "--mapping settles which variable is its partner."
    )


def readers(program: Program, names: Sequence[str], batches: Sequence[Batch]) -> dict[str, str]:
    """Those of some variables that take part -> how that shows; what only reads one another takes none.

    Args:
      program: ends in the state that it began in.
      names: variables, or counters.
      batches: one for each of the first steps, as the program is fed.
    """
    if not names:
        return {}
    if (reached := program.reaches()) is not None:
        return _reaching(reached, names)
    began, step_before = program.state(), program.draws.step
    kept = {name: np.array(began.arrays[name]) for name in began.arrays}
    for step, batch in enumerate(batches[:-1]):
        program.draws.step = step
        program.step(batch)
    program.draws.step = len(batches) - 1
    present = program.state().arrays
    state = {name: np.array(present[name]) for name in present}
    try:
        return _readers(program, names, state, batches[-1])
    finally:
        program.draws.step = step_before
        program.load(State(began.model, kept))


def _reaching(reached: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    while True:
        hidden = {f"the next value of {name}" for name in names if name not in found}
        more = {
            name: f"{ends[0]} is computed from it"
            for name in names
            if name not in found and (ends := [each for each in reached.get(name, ()) if each not in hidden])
        }
        if not more:
            return found
        found |= more


def _readers(program: Program, names: Sequence[str], state: Mapping[str, Array], batch: Batch) -> dict[str, str]:
    plain, again = (_shown(program, state, batch) for _ in range(2))
    steady = {what: array for what, array in plain.items() if _same(array, again[what])}
    found: dict[str, str] = {}
    while True:
        open_ones = [name for name in names if name not in found]
        hidden = {f"the next value of {name}" for name in open_ones}
        before = len(found)
        for name in open_ones:
            for number, scale in enumerate(_SCALES):
                shown = _shown(program, {**state, name: _other(state[name], scale, f"{name} {number}")}, batch)
                changed = [
                    what for what, array in steady.items() if what not in hidden and not _same(array, shown[what])
                ]
                if changed:
                    found[name] = f"with another value in it, {changed[0]} changes"
                    break
        if len(found) == before:
            return found


def _other(array: Array, scale: float, key: str) -> Array:
    """Another value of a variable's dtype and shape."""
    if array.dtype.kind == "b":
        return np.logical_not(array)
    noise = DrawSource().number(f"ignored {key}", array.shape).standard_normal(array.shape)
    other = scale * (1.0 + 0.1 * noise) * max(1.0, float(np.abs(array).max(initial=0.0)))
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        other = np.clip(np.rint(other if abs(scale) >= 1.0 else array + np.sign(scale)), limits.min, limits.max)
    return np.asarray(other).astype(array.dtype)


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _shown(program: Program, state: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
    """All that the program shows at a state, by what a person calls it."""
    found: dict[str, Array] = {}
    program.load(State("", state))
    for training in (True, False):
        mode = "training" if training else "inference"
        with contextlib.suppress(NotImplementedError):
            found |= {f"output {name} in {mode}": value for name, value in program.forward(batch, training).items()}
    for phase in program.phases:
        with contextlib.suppress(NotImplementedError):
            found[f"the objective of {phase}"] = np.asarray(program.loss(phase, batch))
        with contextlib.suppress(NotImplementedError):
            gradients = program.gradients(phase, batch)
            found |= {f"the gradient of {name}": value for name, value in gradients.items() if value is not None}
        program.load(State("", state))
        reports = program.run_phase(phase, batch)
        found |= {f"what {phase} reports as {name}": np.asarray(value) for name, value in reports.items()}
        after = program.state().arrays
        found |= {f"the next value of {name}": np.array(after[name]) for name in after}
    return found
