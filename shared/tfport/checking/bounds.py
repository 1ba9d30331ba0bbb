"""What of a check is asked for, as a person writes it: rungs by number, bounds on the work. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from tfport.equivalence.result import RUNGS
from tfport.errors import UserError


def rungs(text: str) -> tuple[str, ...]:
    """The rungs that words such as "1", "3-6" or "update" name, in order; all where there is no word.

    Args:
      text: words, separated by commas or spaces.

    Raises:
      UserError: a word names none.
    """
    found: set[str] = set()
    for word in text.replace(",", " ").split():
        low, dash, high = word.partition("-")
        if word in RUNGS:
            found.add(word)
        elif low.isdecimal() and (not dash or high.isdecimal()) and int(low) <= int(high or low) < len(RUNGS):
            found.update(RUNGS[int(low) : int(high or low) + 1])
        else:
            valid = ", ".join(f"{number} {name}" for number, name in enumerate(RUNGS))
            raise UserError(f"--rungs={text}: {word!r} is no rung. Valid: {valid}, and ranges such as 3-6.")
    return tuple(name for name in RUNGS if name in found) or RUNGS


def resume_step(steps: int) -> int:
    """From which step of a trajectory of `steps` rung 9 goes on: the largest odd one up to half of them.

    An odd one, so that what happens at every second step falls on other steps where a count of them begins anew.
    """
    half = steps // 2
    return half - 1 if half and not half % 2 else half


@dataclass(frozen=True)
class Sample:
    """Bounds on the work."""

    steps: int | None = None
    """At how many steps of the trajectory states are compared."""
    tensors: int | None = None
    """How many variables are compared, with their slots and gradients."""

    @staticmethod
    def parse(text: str) -> Sample:
        """Reads `steps:5,tensors:20`.

        Raises:
          UserError: it is written otherwise.
        """
        found: dict[str, int] = {}
        for part in text.split(","):
            name, _, number = part.partition(":")
            if name not in ("steps", "tensors") or not number.isdecimal() or int(number) < 1 or name in found:
                raise UserError(f"--sample={text}: expected steps:N, tensors:N or both, as in steps:5,tensors:20.")
            found[name] = int(number)
        return Sample(**found)
