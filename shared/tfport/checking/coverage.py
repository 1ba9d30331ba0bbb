"""What a check speaks of and what it does not, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfport.checking.report import DrawRow
from tfport.equivalence.result import RUNGS

if TYPE_CHECKING:
    from tfport.checking.horizon import Horizon


def coverage(
    steps: int,
    asked: Sequence[str],
    horizon: Horizon | None,
    parted: int | None,
    draws: Sequence[DrawRow],
    left_out: Sequence[str],
) -> tuple[str, ...]:
    """Up to which step a check speaks, and what it did not cover.

    Args:
      steps: how many were made.
      asked: the rungs that were asked for.
      horizon: what was seen beyond the last step; None where nobody looked.
      parted: the step beyond the last one from which on the sides differ; None where they do not.
      draws: where both sides draw random numbers.
      left_out: what bounds on the work left out.
    """
    found = [f"{steps:,} {'step was' if steps == 1 else 'steps were'} made on each side."]
    if horizon is None:
        found.append(f"Nothing beyond step {steps:,} was looked at.")
    elif parted is not None:
        found.append(f"With counters set farther, the sides agree up to step {parted - 1:,}.")
    elif horizon.unseen and horizon.reach <= steps:
        found.append(f"Nothing beyond step {steps:,} was seen: {horizon.unseen}.")
    else:
        found.append(
            f"What depends on a count of steps was followed up to step {horizon.reach:,}, at {len(horizon.at)} counts"
            + (f": {horizon.unseen}." if horizon.unseen else ".")
        )
    missing = [f"{number} {name}" for number, name in enumerate(RUNGS) if name not in asked and number]
    if missing:
        found.append(f"Not asked for: rung{'' if len(missing) == 1 else 's'} {', '.join(missing)}.")
    found += [f"Not compared: {text}." for text in left_out]
    loose = [each for each in draws if not each.controlled]
    if loose:
        sides = " and ".join(dict.fromkeys(each.side for each in loose))
        found.append(
            f"Not controlled: random numbers at {len(loose):,} place{'' if len(loose) == 1 else 's'} of the {sides} "
            "side; what depends on them is not compared."
        )
    return tuple(found)
