"""What stands between an objective and an update, where the two sides have it in different places.

One side clips, unscales, averages or decays inside its optimizer and the other before it, or puts in its loss what the
other adds to its gradients. Where the update agrees, and is seen finely enough to show what was done on the way, the
difference before it decides nothing: it is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfport.checking.losses import REPORT_BOUND, Losses, agrees, factor_text
from tfport.checking.observe import Still
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.result import PairResult, RungResult, Verdict
from tfport.subject import OptimizerInfo

Array = np.ndarray[Any, Any]
Stills = Sequence[tuple[Still, Still]]
"""The legacy and the modern side at the same states."""

FINER = 16.0
"""How many times smaller than a difference what is left of it must be, for it to have been made up for."""
_SAME = 2.0**-20
"""Relative difference up to which two gradients are one in any precision: one that is scaled by 1 may be rounded."""
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
_ON_THE_WAY = (*_CLIPS, "l2", "gradient_accumulation_steps", "weight_decay")
"""Numbers of an optimizer that stand for what the other side's code may do outside of its optimizer."""


# --- Numbers that one side's optimizer alone has ----------------------------------------------------------------------
@dataclass(frozen=True)
class OneSided:
    """A number that stands for something which the other side must do elsewhere."""

    role: str
    optimizer: str
    number: str
    value: float
    rate: float | None
    """The learning rate of the same optimizer, where it is known."""


def alike(
    left: Sequence[OptimizerInfo], right: Sequence[OptimizerInfo]
) -> tuple[tuple[OptimizerInfo, ...], tuple[OptimizerInfo, ...], list[str], list[OneSided]]:
    """Both sides' optimizers with the numbers that both can have, and those that one has alone.

    What one lacks and is 0 on the other is 0. A rate that is not known, and what may be done outside of the optimizer,
    is left out; an Adam whose weights decay elsewhere is an Adam.

    Returns:
      The legacy side's, the modern side's, notes, and the numbers that were left out.
    """
    notes: list[str] = []
    found: list[OneSided] = []
    one = {each.name: dict(each.hyperparameters) for each in left}
    other = {each.name: dict(each.hyperparameters) for each in right}
    algorithms = [{each.name: each.algorithm for each in side} for side in (left, right)]
    for name in one.keys() & other.keys():
        for number in sorted(one[name].keys() ^ other[name].keys()):
            role, has, lacks = ("legacy", one, other) if number in one[name] else ("modern", other, one)
            if number == "learning_rate":
                del has[name][number]
                notes.append(
                    f"the {name} optimizer's learning rate is fed or unknown on one side: rung 6 holds what it does"
                )
            elif has[name][number] == 0:
                lacks[name][number] = 0.0
            elif number in _ON_THE_WAY:
                found.append(OneSided(role, name, number, has[name].pop(number), has[name].get("learning_rate")))
                mine = algorithms[0 if role == "legacy" else 1]
                if number == "weight_decay":
                    mine[name] = mine[name].replace("AdamW", "Adam", 1)
    return (
        tuple(OptimizerInfo(each.name, algorithms[0][each.name], one[each.name]) for each in left),
        tuple(OptimizerInfo(each.name, algorithms[1][each.name], other[each.name]) for each in right),
        notes,
        found,
    )


def take_down(rung: RungMeasurement, numbers: Sequence[OneSided], stills: Stills, phases: Sequence[str]) -> None:
    """Says of each number that one side has alone what was seen of it, and what was not; without that it is a fault.

    Args:
      rung: the structure rung.
      numbers: of `alike`.
      stills: of both sides, in the most precise pass.
      phases: shared names.
    """
    for each in numbers:
        own, others = (0, 1) if each.role == "legacy" else (1, 0)
        other = "modern" if each.role == "legacy" else "legacy"
        what = f"the {each.optimizer} optimizer of the {each.role} side has {each.number} {each.value:.6g}"
        if each.number in _CLIPS and not _acts([pair[own] for pair in stills], phases):
            if all(phase in pair[others].untouched for pair in stills for phase in phases):
                rung.fault(f"{what}, and the {other} side applies its gradients as they are")
            else:
                rung.notes.append(f"{what}, which clipped nothing at the states looked at: how it clips was not seen")
        elif each.number == "weight_decay" and not _decay_seen(each, stills, phases):
            rung.fault(f"{what}, and nothing that does the same is seen on the {other} side")
        else:
            rung.notes.append(f"{what}, and the {other} side's has not: rungs 5 and 6 compare what comes of it")


def _acts(stills: Sequence[Still], phases: Sequence[str]) -> bool:
    """Whether a side was seen to change derivatives before it applies them."""
    return any(
        _furthest(still.derivatives[phase], still.gradients[phase]) > _SAME
        for still in stills
        for phase in phases
        if phase in still.derivatives and phase in still.gradients
    )


def _decay_seen(each: OneSided, stills: Stills, phases: Sequence[str]) -> bool:
    """Whether the updates agree more finely than the decay moves the variables."""
    seen = False
    for legacy, modern in stills:
        for phase in phases:
            for name in legacy.gradients.get(phase, ()):
                if each.rate is None or name not in modern.after[phase] or name not in modern.state:
                    continue
                effect = each.rate * each.value * float(np.abs(legacy.state[name]).max(initial=0.0))
                apart = _added(legacy, phase, name) - _added(modern, phase, name)
                if effect and float(np.abs(apart).max(initial=0.0)) > effect / FINER:
                    return False
                seen = seen or bool(effect)
    return seen


# --- Rungs that decide nothing ----------------------------------------------------------------------------------------
def silent_reports(losses: Losses, stills: Stills, phases: Sequence[str]) -> frozenset[str]:
    """Reports of losses that differ where the updates do not: a trajectory's are not compared.

    Whether they may differ is rung 4's to judge; if it fails, the pair does.
    """
    found = set()
    for phase in phases:
        apart = any(
            not agrees(other.objectives[phase], one.objectives[phase])
            for one, other in stills
            if phase in one.objectives and phase in other.objectives
        )
        derived = _derivatives_apart(stills, phase) > REPORT_BOUND
        if apart and derived and all(_furthest(a.after[phase], b.after[phase]) <= REPORT_BOUND for a, b in stills):
            found |= {f"{phase}/{name}" for own, name in losses.legacy if own == phase and (own, name) in losses.modern}
    return frozenset(found)


def deciding_nothing(
    pair: PairResult, failing: Mapping[str, Set[str]], stills: Stills, phases: Sequence[str], losses: Losses
) -> dict[str, str]:
    """Rungs 4 and 5, where they fail by what is made up for before the update -> what to say instead.

    Args:
      pair: the verdicts.
      failing: rung -> the tensors that differ by more than rounding.
      stills: of both sides, in the most precise pass.
      phases: shared names.
      losses: how what both sides report belongs together.
    """
    rungs = {rung.rung: rung for rung in pair.rungs}
    found: dict[str, str] = {}
    if "update" not in rungs or not rungs["update"].verdict.equal:
        return found
    apart = _phases_of(rungs.get("gradient"), failing["gradient"], phases)
    constant = any(phase in losses.objectives for phase in apart)
    if apart and not constant and all(_made_up(one, other, phase) for one, other in stills for phase in apart):
        found["gradient"] = (
            f"rung 5 decides nothing: in phase {' and '.join(apart)} the optimizers take other gradients, "
            "and what becomes of the variables and of the slots agrees. One side does inside its optimizer what the "
            "other does before it; rungs 6 to 9 hold the result"
        )
    settled = "gradient" in found or "gradient" not in rungs or rungs["gradient"].verdict.equal
    known = {f"{phase}/{name}" for phase, name in losses.legacy if (phase, name) in losses.modern}
    known |= {f"{phase}/objective" for phase in phases}
    apart = _phases_of(rungs.get("loss"), failing["loss"], phases) if settled and failing["loss"] <= known else []
    if apart and all(_brought_back(stills, phase, "gradient" in found) for phase in apart):
        one, other = (side.objectives.get(apart[0], float("nan")) for side in stills[0])
        factors = [factor_text(phase, losses.objectives[phase]) for phase in apart if phase in losses.objectives]
        found["loss"] = ". ".join(
            [
                f"rung 4 decides nothing: in phase {' and '.join(apart)} the objectives differ ({one:.6g} against "
                f"{other:.6g}) and so do their derivatives, and the updates agree. One side puts in its loss what the "
                "other does on the way to the update (weight decay, loss scaling, averaging)",
                *factors,
            ]
        )
    return found


def _phases_of(rung: RungResult | None, failing: Set[str], phases: Sequence[str]) -> list[str]:
    """The phases in which a rung fails."""
    if rung is None or rung.verdict is not Verdict.DIFFERENT:
        return []
    return [phase for phase in phases if any(name.startswith(f"{phase}/") for name in failing)]


def _made_up(legacy: Still, modern: Still, phase: str) -> bool:
    """Whether what a phase adds to variables and slots is much nearer together than the gradients are."""
    left, right = legacy.gradients[phase], modern.gradients[phase]
    for name in left:
        apart = _apart(left[name], right[name]) if name in right else 0.0
        if apart <= _SAME:
            continue
        for kept in _kept_of(name, legacy):
            if kept not in modern.after[phase] or kept not in modern.state:
                return False
            if _apart(_added(legacy, phase, kept), _added(modern, phase, kept)) > apart / FINER:
                return False
    return True


def _brought_back(stills: Stills, phase: str, by_update: bool) -> bool:
    """Whether derivatives that differ become gradients that are much nearer together."""
    for legacy, modern in stills:
        apart = _derivatives_apart([(legacy, modern)], phase)
        if apart <= _SAME:
            return False
        if not by_update and _furthest(legacy.gradients[phase], modern.gradients[phase]) > apart / FINER:
            return False
    return True


# --- Notes ------------------------------------------------------------------------------------------------------------
def gradient_notes(stills: Stills, phases: Sequence[str]) -> list[str]:
    """What rung 5 should say where what is applied agrees: derivatives that differ, and what was not seen to act."""
    found = []
    for phase in phases:
        if _derivatives_apart(stills, phase) > REPORT_BOUND:
            found.append(
                f"phase {phase}: the derivatives differ, and what is applied agrees: one side clips, scales, averages "
                "or decays where the other does not show it"
            )
        for role, side in (("legacy", 0), ("modern", 1)):
            own = [pair[side] for pair in stills]
            shown = all(phase in still.derivatives and phase not in still.untouched for still in own)
            if shown and not _acts(own, [phase]):
                found.append(
                    f"phase {phase}: what the {role} side does to derivatives before it applies them (clipping, "
                    "scaling) changed nothing at the states looked at, so it was not seen"
                )
    return found


# --- Distances --------------------------------------------------------------------------------------------------------
def _derivatives_apart(stills: Stills, phase: str) -> float:
    """How far apart the derivatives are at most; 0 where one side does not show them."""
    return max(
        (
            _furthest(one.derivatives[phase], other.derivatives[phase])
            for one, other in stills
            if phase in one.derivatives and phase in other.derivatives
        ),
        default=0.0,
    )


def _furthest(left: Mapping[str, Array], right: Mapping[str, Array]) -> float:
    return max((_apart(left[name], right[name]) for name in left if name in right), default=0.0)


def _apart(left: Array, right: Array) -> float:
    """The largest difference, as a share of the largest magnitude on either side."""
    if left.shape != right.shape:
        return float("inf")
    one, other = np.asarray(left, np.float64), np.asarray(right, np.float64)
    scale = max(float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return float(np.abs(one - other).max(initial=0.0)) / scale if scale else 0.0


def _kept_of(name: str, still: Still) -> Iterator[str]:
    """A variable and its slots."""
    for kept in still.state:
        if kept == name or (kept.startswith("optimizer/") and kept.split("/", 3)[3:] == [name]):
            yield kept


def _added(still: Still, phase: str, name: str) -> Array:
    before, after = (np.asarray(arrays[name], np.float64) for arrays in (still.state, still.after[phase]))
    added: Array = after - before
    return added
