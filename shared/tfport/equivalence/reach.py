"""How large each tensor of a trajectory has been, the scale on which its differences are measured there.

A moment of one number passes zero now and then. Both sides' differences come from the steps before, in which it was as
large as ever; as a share of what it happens to be at that step they would be huge, and in float32 and float64, whose
trajectories part, at different steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfport.state import Array


class Reach:
    """The largest magnitudes so far, by name; counts have none."""

    def __init__(self) -> None:
        self._found: dict[str, float] = {}

    def seen(self, arrays: Mapping[str, Array]) -> Reach:
        """Takes down one more state of the trajectory; returns itself."""
        for name, array in arrays.items():
            if array.dtype.kind == "f" and array.size:
                largest = float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))
                self._found[name] = max(self._found.get(name, 0.0), largest)
        return self

    def least(self, others: Mapping[str, float]) -> dict[str, float]:
        """The least scale of each tensor: its reach, or what `others` asks for where that is more."""
        return {
            name: max(self._found.get(name, 0.0), others.get(name, 0.0)) for name in self._found.keys() | others.keys()
        }
