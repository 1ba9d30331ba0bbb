"""Rung 9: from the legacy side's state at step k the modern side goes on, as if it had been built to resume there.

It is made by a program that has just been built and of which nothing else has run: what it keeps outside its variables,
such as a counter in Python, is then as it is where training is resumed, and a checkpoint brings none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfport.checking.batches import BatchSource
from tfport.checking.bounds import resume_step
from tfport.checking.measure import ENVELOPE_FLOOR, ENVELOPE_SLACK, Meter, some
from tfport.checking.sides import Side
from tfport.equivalence.distance import distance
from tfport.equivalence.result import PairResult, RungResult, Verdict

if TYPE_CHECKING:
    from tfport.checking.record import Record
    from tfport.checking.session import Session

CARRIED = "carried/"
"""Stands before what the modern side holds right after it has taken over the state."""


def go_on(
    meter: Meter,
    record: Record,
    side: Side,
    batches: BatchSource,
    owners: Mapping[str, str],
    tick: Callable[[], None],
) -> list[dict[str, float]]:
    """Holds the modern side, from the middle of the legacy side's free trajectory on, against what came of that.

    Args:
      meter: takes down distances.
      record: of the legacy side.
      side: the modern side, which ends in some other state.
      batches: of both sides.
      owners: state name -> the phases that move it.
      tick: called once a step.

    Returns:
      What the modern side reports from there on, which is compared once both sides have been looked at.
    """
    states, reports = record.trajectory.states, record.trajectory.reports
    begin = resume_step(len(reports))
    reported = []
    side.at(begin)
    side.load(states[begin])
    meter.add_all("resume", states[begin], side.state().arrays, begin, None, CARRIED)
    for step in range(begin, len(reports)):
        side.at(step)
        reported.append(side.step(batches[step]))
        if step + 1 in states:
            before = states[begin] if step == begin else None  # as rung 7 measures this step
            meter.add_all("resume", states[step + 1], side.state().arrays, step, "step", "", owners, before)
        tick()
    return reported


def same_step_twice(meter: Meter, record: Record) -> None:
    """Rung 7 has made the first resumed step as well, from the same state: what differs is in no state.

    This shows in one precision, and where a side cannot be built anew what shows once may not show again.
    """
    begin = resume_step(len(record.trajectory.reports))
    apart = []
    for (rung, tensor, step), relative in meter.largest.items():
        if rung == "resume" and step == begin and not tensor.startswith(CARRIED):
            forced = meter.largest.get(("forced_trajectory", tensor, step))
            if forced is not None and not relative <= ENVELOPE_SLACK * forced + ENVELOPE_FLOOR:
                apart.append(tensor)
    if apart:
        meter.pair.rung("resume").fault(
            f"step {begin} does not repeat from one state: made before any other step, it leaves {some(apart)} farther "
            "from the legacy side's than rung 7 finds it"
        )


def explained(session: Session, record: Record, pair: PairResult, meter: Meter, known: str | None = None) -> str:
    """Why the modern side cannot go on where the legacy side was left, though it goes the same way from the start.

    Args:
      session: the check.
      record: of the legacy side, in float32.
      pair: the verdicts.
      meter: what was measured of the modern side.
      known: what is recorded of the legacy side's own way on; None where it can be run.

    Returns:
      A sentence or two; empty where rung 9 holds, where it cannot be compared, or where rungs below it say more.
    """
    found = {rung.rung: rung for rung in pair.rungs}
    rung = found.get("resume")
    if rung is None or rung.verdict is not Verdict.DIFFERENT:
        return ""
    begin = resume_step(session.order.steps)
    lost = [
        name.removeprefix(CARRIED)
        for name, relative in meter.pair.rung("resume").relative.items()
        if name.startswith(CARRIED) and not relative <= ENVELOPE_FLOOR
    ]
    if lost:
        return (
            f"the modern side does not hold the state of step {begin} once it is loaded: {some(lost)} is lost or "
            "changed on the way in"
        )
    if not _from_the_start(found):
        return ""
    left = f"from the legacy side's state of step {begin} the modern side goes another way"
    where = own_resume(session, record) if known is None else known
    if where:
        return (
            f"{left}, although the trajectory from the start agrees. The legacy side does not go on from its own state "
            f"of that step either ({where}): both keep something outside their variables, so no checkpoint resumes them"
        )
    return (
        f"{left}, although the trajectory from the start agrees: the modern side keeps something outside its variables "
        "(a counter in Python, a schedule's step, a flag that it has begun), which no checkpoint carries over. Make it "
        "a variable, or work it out from the optimizer's count"
    )


def _from_the_start(rungs: Mapping[str, RungResult]) -> bool:
    """Whether the free trajectory was run and agrees, and the forced one too where it was run."""
    ran = [rungs[name] for name in ("forced_trajectory", "free_trajectory") if name in rungs]
    return "free_trajectory" in rungs and all(rung.verdict.equal for rung in ran)


def own_resume(session: Session, record: Record) -> str:
    """Where the legacy side, built again, leaves its own trajectory when it resumes; empty where it does not."""
    states, reports = record.trajectory.states, record.trajectory.reports
    begin = resume_step(len(reports))
    with session.timed("legacy resumed"), session.opened("legacy", record.precision) as program:
        side = session.side(program, "legacy")
        batches = session.batches(program)
        side.load(states[begin])
        for step in range(begin, len(reports)):
            side.at(step)
            again = side.step(batches[step])
            for name, value in reports[step].items():
                if not distance(np.asarray(value), np.asarray(again[name])).same_bits:
                    return f"first in {name} at step {step}"
            kept, present = states.get(step + 1), side.state().arrays
            for name in kept or ():
                if kept is not None and not distance(kept[name], np.asarray(present[name])).same_bits:
                    return f"first in {name} at step {step}"
    return ""
