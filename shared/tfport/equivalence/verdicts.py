"""From what was measured in two precisions to a verdict.

A difference is rounding when it shrinks from float32 to float64 as rounding does: by 2**29, the ratio of the two
machine epsilons, give or take SLACK. FLOOR is what float64 itself may show where float32 happened to agree. Both were
chosen from measured correct and broken ports; docs/proof.md, which `make prove` writes, has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tfport.equivalence.measurement import PairMeasurement, RungMeasurement, held_before
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, PairResult, RungResult, Verdict, worst

EPSILON_RATIO = 2.0**-29
SLACK = 2.0**6
"""How many times more than 2**-29 of the float32 difference may remain in float64."""
FLOOR = 2.0**-42
"""Relative float64 difference (1,024 units in the last place) that rounding may show whatever float32 showed."""

CEILING = {"forward": 2.0**-14, "loss": 2.0**-14}
"""Rung -> the relative float32 difference that rounding may show there at all.

A mistake that scales with the precision, such as products in float16, shrinks as rounding does. On these two rungs both
sides compute from one state and nothing amplifies: correct ports differ by a few units in the last place (2**-23),
float16 by 2**-11.
"""


def tolerances(float32: PairMeasurement) -> dict[str, dict[str, float]]:
    """What rounding explains in float64, rung by rung and tensor by tensor, given what float32 showed.

    A float32 difference that is as large as the tensor itself says nothing about rounding, so no share above 1 counts.
    """
    return {
        name: {tensor: _allowed(relative) for tensor, relative in rung.relative.items()}
        for name, rung in float32.rungs.items()
    }


def _allowed(float32_relative: float) -> float:
    finite = min(float32_relative, 1.0) if math.isfinite(float32_relative) else 1.0
    return max(SLACK * EPSILON_RATIO * finite, FLOOR)


def needs_float64(float32: PairMeasurement) -> bool:
    """Whether a numerical rung has a difference that float64 must explain."""
    return any(not rung.same_bits for rung in float32.rungs.values())


def judge(
    asked: PairMeasurement,
    float32: PairMeasurement,
    float64: PairMeasurement | None,
    repeat: RungResult,
    names: Sequence[str] = RUNGS[1:],
    enveloped: bool = False,
) -> PairResult:
    """The verdicts of a pair.

    Args:
      asked: the measurement in the precision that was asked for: one of the other two.
      float32: the measurement in float32.
      float64: the measurement in float64; None when float32 has nothing to explain.
      repeat: rung 0, which concerns the legacy side alone.
      names: the rungs that were run beside it.
      enveloped: whether a first divergence of float32 was taken down only beyond the envelope of the legacy side, which
        shows rounding where there is no float64.
    """
    rungs = [repeat]
    for name in names:
        rungs.append(_judge_rung(name, asked, float32, float64, enveloped))
    return assembled(asked, rungs)


def assembled(asked: PairMeasurement, rungs: Sequence[RungResult]) -> PairResult:
    """The pair of these rungs: the worst verdict, the first numerical rung that failed, what held before each."""
    held: list[str] = []
    finished = []
    for rung in rungs:
        if rung.first_divergence is not None:
            divergence = held_before(rung.first_divergence, tuple(held))
            rung = RungResult(**{**rung.__dict__, "first_divergence": divergence})
        finished.append(rung)
        if rung.verdict.equal:
            held.append(rung.rung)
    numerical = [each for each in finished if each.rung in RUNGS[FIRST_NUMERICAL:]]
    located = next((each.rung for each in numerical if not each.verdict.equal), None)
    return PairResult(
        asked.legacy,
        asked.modern,
        worst([rung.verdict for rung in finished]),
        tuple(finished),
        located,
        tuple(asked.movers),
        tuple(asked.loss_checks),
    )


def _judge_rung(
    name: str,
    asked: PairMeasurement,
    float32: PairMeasurement,
    float64: PairMeasurement | None,
    enveloped: bool = False,
) -> RungResult:
    single, double = float32.rung(name), float64.rung(name) if float64 else None
    shown = asked.rung(name)
    sides = [each for each in (single, double) if each is not None]
    missing = _united([*(each.missing for each in sides), _unpaired(single, double)])
    faults = _united(each.faults for each in sides)
    beyond, shrink = excess(single, double)
    first = shown.first
    if missing or not all(each.compared for each in (shown, *sides)):
        verdict = Verdict.NOT_COMPARABLE
    elif faults:
        verdict = Verdict.DIFFERENT
    elif name == "initialisation":
        verdict = Verdict.SAME_DISTRIBUTION
    elif single.same_bits and (double is None or double.same_bits):
        verdict = Verdict.IDENTICAL
    elif (double is not None and not beyond) or (double is None and enveloped and first is None):
        verdict = Verdict.ROUNDING
    else:
        verdict = Verdict.DIFFERENT
    if not verdict.equal and double is not None:
        first = double.first  # taken down only beyond what rounding explains; None where names alone fail
    compared_numbers = RUNGS.index(name) >= FIRST_NUMERICAL
    return RungResult(
        rung=name,
        verdict=verdict,
        max_abs=shown.max_abs if compared_numbers else None,
        max_ulp=shown.max_ulp if compared_numbers else None,
        first_divergence=first,
        compared=shown.compared,
        float32_relative=_largest(single.relative) if compared_numbers else None,
        float64_relative=_largest(double.relative) if double and compared_numbers else None,
        shrink=shrink,
        findings=(*missing, *faults, *shown.notes),
    )


def excess(single: RungMeasurement, double: RungMeasurement | None) -> tuple[list[str], float | None]:
    """The tensors whose float64 difference rounding does not explain, and the largest shrink ratio of the rung."""
    if double is None:
        return [], None
    beyond, ratios = [], []
    for tensor, relative in double.relative.items():
        before = single.relative.get(tensor, 0.0)
        if not before <= CEILING.get(single.rung, math.inf) or not relative <= _allowed(before):
            beyond.append(tensor)
        if relative > FLOOR:
            ratios.append(relative / (before * EPSILON_RATIO) if 0 < before < math.inf else math.inf)
    return beyond, max(ratios, default=None)


def _unpaired(single: RungMeasurement, double: RungMeasurement | None) -> list[str]:
    """Tensors that were compared in one precision only: what is not measured twice is not shown to shrink."""
    if double is None:
        return []
    return [
        f"{tensor} was compared in {'float32' if tensor in single.relative else 'float64'} only"
        for tensor in sorted(single.relative.keys() ^ double.relative.keys())
    ]


def _largest(relative: Mapping[str, float]) -> float:
    return max(relative.values(), default=0.0)


def _united(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for each in lists:
        found.update(dict.fromkeys(each))
    return tuple(found)
