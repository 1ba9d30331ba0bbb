"""What a side reports as its loss, beside what it minimises: the same, or the same times a constant.

A TF1 program that maximises a likelihood reports it and minimises its negative; another reports the sum over the pixels
and minimises their mean. Both are right. Such a factor is recognised at the states that are looked at, and reports are
compared after it; what is minimised is compared as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfport.checking.observe import Still

REPORT_BOUND = 2.0**-14
"""How far, relatively, a reported loss may lie from the loss: two ways to one number differ by far less."""
_LEAST = 1e-6
"""Below this an objective is as good as zero, and nothing is a multiple of it."""
_SHARE = 0.25
"""Of what the objective changed by between two states, how much a multiple of it may miss."""
_PLAIN = 10_000
"""Factors are whole numbers or one over them up to this, where they are that close."""
_CLOSE = {"float32": 2.0**-20, "float64": 2.0**-44}


def agrees(one: float, other: float) -> bool:
    """Whether two losses are one number, computed in two ways."""
    return abs(one - other) <= REPORT_BOUND * max(abs(other), _LEAST)


def constant_factor(pairs: Sequence[tuple[float, float]], precision: str, sure: bool = False) -> float | None:
    """What the second number of each pair is multiplied by to give the first; None where it is no one number.

    Args:
      pairs: of numbers that belong together, at several states.
      precision: that they were computed in.
      sure: whether the second must have changed between the states: else a constant could be taken for a multiple.
    """
    usable = [(one, other) for one, other in pairs if abs(other) > _LEAST and math.isfinite(one)]
    nothing = [one for one, other in pairs if abs(other) <= _LEAST]
    if not usable or len(usable) + len(nothing) < len(pairs):
        return None
    if all(agrees(one, other) for one, other in pairs):
        return 1.0
    one, other = max(usable, key=lambda pair: abs(pair[1]))
    factor = _plain(one / other, precision)
    if any(abs(each) > _LEAST * max(abs(factor), 1.0) for each in nothing):
        return None
    if not factor or not all(abs(a - factor * b) <= REPORT_BOUND * abs(a) for a, b in usable):
        return None
    away = max((pair for pair in usable), key=lambda pair: abs(pair[1] - other))
    changed = factor * (away[1] - other)
    noise = _CLOSE[precision] * abs(one)
    if abs(changed) > noise and abs(away[0] - one - changed) > _SHARE * abs(changed) + noise:
        return None
    return None if sure and abs(changed) <= noise else factor


def _plain(factor: float, precision: str) -> float:
    """The whole number, or one over it, that a measured factor is up to rounding; else the factor."""
    if not factor or not math.isfinite(factor):
        return 0.0
    size = abs(factor)
    whole = round(size) if size >= 1 else round(1 / size)
    plain = float(whole) if size >= 1 else 1 / whole
    return math.copysign(plain if whole <= _PLAIN and abs(plain - size) <= _CLOSE[precision] * size else size, factor)


def multiples(stills: Sequence[Still], phases: Sequence[str], precision: str) -> dict[tuple[str, str], float]:
    """(phase, report) -> what one side's objective is multiplied by to give that report, where it is one number."""
    found = {}
    for phase in phases:
        objectives = [still.objectives[phase] for still in stills if phase in still.objectives]
        if len(objectives) < len(stills):
            continue
        for name in stills[0].reports.get(phase, {}):
            reported = [still.reports[phase].get(name, math.nan) for still in stills]
            factor = constant_factor(list(zip(reported, objectives, strict=True)), precision, sure=name != "loss")
            if factor is not None:
                found[phase, name] = factor
    return found


@dataclass(frozen=True)
class Losses:
    """How the losses of two sides, and what they report, belong together."""

    scales: Mapping[str, float] = field(default_factory=dict)
    """"<phase>/<report>" -> what the modern side's report is multiplied by before it is compared; 1 where missing."""
    legacy: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(phase, report) -> what its objective is multiplied by to give it."""
    modern: Mapping[tuple[str, str], float] = field(default_factory=dict)
    objectives: Mapping[str, float] = field(default_factory=dict)
    """Phase -> what the legacy side's objective is multiplied by to give the modern side's, where that is not 1."""
    notes: tuple[str, ...] = ()


def paired(legacy: Sequence[Still], modern: Sequence[Still], phases: Sequence[str], precision: str) -> Losses:
    """What both sides' stills at the same states say of their losses.

    Args:
      legacy: the legacy side at some states.
      modern: the modern side at them.
      phases: shared names.
      precision: of both.
    """
    left, right = multiples(legacy, phases, precision), multiples(modern, phases, precision)
    scales: dict[str, float] = {}
    objectives: dict[str, float] = {}
    for phase in phases:
        both = [
            (other.objectives[phase], one.objectives[phase])
            for one, other in zip(legacy, modern, strict=True)
            if phase in one.objectives and phase in other.objectives
        ]
        factor = constant_factor(both, precision)
        if factor is not None and factor != 1.0:
            objectives[phase] = factor
        for name in legacy[0].reports.get(phase, {}):
            scale = _scale(legacy, modern, phase, name, left, right)
            if scale != 1.0:
                scales[f"{phase}/{name}"] = scale
    return Losses(scales, left, right, objectives, tuple(_notes(left, right)))


def _scale(
    legacy: Sequence[Still],
    modern: Sequence[Still],
    phase: str,
    name: str,
    left: dict[tuple[str, str], float],
    right: dict[tuple[str, str], float],
) -> float:
    """What brings the modern side's report to the legacy side's scale.

    Where one side does not show its objective, its report is taken for it if it is the other side's objective.
    """
    if any(name not in still.reports.get(phase, {}) for still in (*legacy, *modern)):
        return 1.0
    if all(agrees(b.reports[phase][name], a.reports[phase][name]) for a, b in zip(legacy, modern, strict=True)):
        return 1.0
    key = phase, name
    for own, others, known, stills in ((left, right, modern, legacy), (right, left, legacy, modern)):
        hidden = key in others and not any(phase in still.objectives for still in stills)
        pairs = zip(stills, known, strict=True)
        if hidden and all(agrees(one.reports[phase][name], other.objectives[phase]) for one, other in pairs):
            own[key] = 1.0
    return left[key] / right[key] if key in left and key in right else 1.0


def _notes(left: Mapping[tuple[str, str], float], right: Mapping[tuple[str, str], float]) -> list[str]:
    found = []
    for key in dict.fromkeys([*left, *right]):
        one, other = left.get(key, 1.0), right.get(key, 1.0)
        if one == other != 1.0:
            found.append(f"both sides: {told(*key, one)}")
            continue
        found += [f"{role}: {told(*key, each)}" for role, each in (("legacy", one), ("modern", other)) if each != 1.0]
    return found


def told(phase: str, name: str, factor: float) -> str:
    """How a report that is a multiple of the objective is explained."""
    what = "the loss" if name == "loss" else name
    if factor == -1.0:
        return f"{what} that phase {phase} reports is maximised: what is minimised is its negative"
    if factor < 0:
        return f"{what} that phase {phase} reports is {times(factor)} its objective: it is maximised"
    return f"{what} that phase {phase} reports is {times(factor)} its objective"


def factor_text(phase: str, factor: float) -> str:
    """What is said where one side minimises a multiple of what the other minimises."""
    text = f"phase {phase}: the port's objective is {times(factor)} the original's"
    return f"{text}: one minimises what the other maximises" if factor < 0 else text


def times(factor: float) -> str:
    """ "784 times", "1/784 times"."""
    below = round(1 / factor)
    return f"1/{below} times" if abs(below) > 10 and abs(below * factor - 1) < 1e-9 else f"{factor:.6g} times"
