"""What one pass over the ladder measured, in one precision; it travels between processes as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tfport.equivalence.distance import Distance, counted, distance, first_mismatch
from tfport.equivalence.result import Divergence, LossCheck, Mover

Array = np.ndarray[Any, Any]
Tolerances = Mapping[str, Mapping[str, float]]
"""Rung -> tensor -> the relative difference that rounding explains; anything missing is 0."""


@dataclass
class RungMeasurement:
    """One rung of one pair, gathered tensor by tensor."""

    rung: str
    compared: int = 0
    same_bits: bool = True
    max_abs: float = 0.0
    max_ulp: int = 0
    relative: dict[str, float] = field(default_factory=dict)
    """Tensor -> largest relative difference over all steps."""
    missing: list[str] = field(default_factory=list)
    """Names that only one side has, are empty, or differ in shape or dtype: nothing can be compared there."""
    faults: list[str] = field(default_factory=list)
    """Findings that make the rung fail whatever the numbers say."""
    notes: list[str] = field(default_factory=list)
    first: Divergence | None = None

    def add(
        self,
        tensor: str,
        legacy: Array | float,
        modern: Array | float,
        step: int,
        phase: str | None,
        tolerances: Tolerances,
        dtype: str,
        least: float = 0.0,
        found: Distance | None = None,
    ) -> Distance:
        """Compares one tensor and takes down how far apart it is; keeps the first place that exceeds its tolerance.

        `found` is how far they are apart, where that is known already.

        A value that is not finite, and a count that differs, are faults: the other precision cannot explain them away.
        """
        left, right = (value if isinstance(value, np.ndarray) else np.array(value, dtype) for value in (legacy, modern))
        self.compared += 1
        found = found or distance(left, right, least)
        if found.same_bits:
            self.relative.setdefault(tensor, 0.0)
            return found
        self.same_bits = False
        self.max_abs = max(self.max_abs, found.absolute)
        before = self.max_ulp, self.relative.get(tensor, 0.0)
        self.max_ulp = -1 if -1 in (self.max_ulp, found.ulp) else max(self.max_ulp, found.ulp)
        self.relative[tensor] = max(self.relative.get(tensor, 0.0), found.relative)
        if left.shape != right.shape:
            self.lack(f"{tensor}: shape {left.shape} against {right.shape}")
            return found
        tolerance = tolerances.get(self.rung, {}).get(tensor, 0.0)
        if left.dtype != right.dtype:
            self.lack(f"{tensor}: dtype {left.dtype} against {right.dtype}")
        elif not left.size:
            self.lack(f"{tensor} is empty on both sides")
        elif found.ulp == -1 and before[0] != -1:
            self.fault(f"{tensor} is the first without a finite distance, at step {step}")
        elif counted(left) and not before[1]:
            self.fault(f"{tensor} is a count, and first differs at step {step}")
        if counted(left):
            tolerance = 0.0
        earliest = self.first is None or step < self.first.step
        if earliest and (not tolerance or found.relative > tolerance):
            self._note_first(tensor, left, right, step, phase, tolerance, least)
        return found

    def _note_first(
        self, tensor: str, left: Array, right: Array, step: int, phase: str | None, tolerance: float, least: float
    ) -> None:
        mismatch = first_mismatch(left, right, tolerance, least)
        if mismatch is not None:
            self.first = Divergence(
                rung=self.rung,
                step=step,
                phase=phase,
                tensor=tensor,
                shape=left.shape,
                dtype=left.dtype.name if left.dtype == right.dtype else f"{left.dtype.name}/{right.dtype.name}",
                **asdict(mismatch),
            )

    def add_all(
        self,
        legacy: Mapping[str, Array],
        modern: Mapping[str, Array],
        step: int,
        phase: str | None,
        tolerances: Tolerances,
        prefix: str = "",
        owner: Mapping[str, str] | None = None,
        least: Mapping[str, float] | None = None,
    ) -> None:
        """Compares every name of either side; a name without a partner is taken down as missing.

        `least` gives names whose own scale may be that of rounding the least scale to measure them on.
        """
        for name in sorted(legacy.keys() - modern.keys()):
            self.lack(f"{prefix}{name} is missing on the modern side")
        for name in sorted(modern.keys() - legacy.keys()):
            self.lack(f"{prefix}{name} is only on the modern side")
        for name in legacy:
            if name in modern:
                which = owner.get(name, phase) if owner else phase
                self.add(
                    f"{prefix}{name}",
                    legacy[name],
                    modern[name],
                    step,
                    which,
                    tolerances,
                    legacy[name].dtype.name,
                    (least or {}).get(name, 0.0),
                )

    def lack(self, text: str) -> None:
        """Takes down that something has no partner, once."""
        if text not in self.missing:
            self.missing.append(text)

    def fault(self, text: str) -> None:
        """Takes down a finding that makes the rung fail, once."""
        if text not in self.faults:
            self.faults.append(text)


@dataclass
class PairMeasurement:
    """All rungs of one pair."""

    legacy: str
    modern: str
    rungs: dict[str, RungMeasurement] = field(default_factory=dict)
    movers: list[Mover] = field(default_factory=list)
    loss_checks: list[LossCheck] = field(default_factory=list)

    def rung(self, name: str) -> RungMeasurement:
        """The measurement of that rung, begun where there is none yet."""
        return self.rungs.setdefault(name, RungMeasurement(name))

    def to_json(self) -> str:
        """One line of JSON; NaN and infinity are written as Python's json writes them."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> PairMeasurement:
        """The inverse of `to_json`."""
        tree = json.loads(text)
        rungs = {}
        for name, rung in tree["rungs"].items():
            first = rung.pop("first")
            if first is not None:
                tuples = {key: tuple(first[key]) for key in ("index", "shape", "held_before")}
                first = Divergence(**{**first, **tuples})
            rungs[name] = RungMeasurement(**rung, first=first)
        movers = [Mover(each["phase"], tuple(each["legacy"]), tuple(each["modern"])) for each in tree["movers"]]
        checks = [LossCheck(**each) for each in tree["loss_checks"]]
        return PairMeasurement(tree["legacy"], tree["modern"], rungs, movers, checks)


def held_before(divergence: Divergence, held: tuple[str, ...]) -> Divergence:
    """The divergence with the rungs that held below it."""
    return replace(divergence, held_before=held)
