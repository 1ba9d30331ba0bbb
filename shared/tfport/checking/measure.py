"""The numbers of one pass: what the modern side showed against what is kept of the legacy side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfport.checking.explained import OneSided
from tfport.checking.lazy import located
from tfport.checking.losses import REPORT_BOUND, Losses, factor_text
from tfport.checking.observe import MODES, Still
from tfport.checking.sides import UNPAIRED
from tfport.equivalence.distance import Distance, distance, farthest, magnitude, pieces
from tfport.equivalence.measurement import PairMeasurement, RungMeasurement
from tfport.equivalence.result import RUNGS, Divergence, LossCheck, Mover
from tfport.equivalence.verdicts import FLOOR

Array = np.ndarray[Any, Any]
Key = tuple[str, str, int]
"""Rung, tensor, step."""

ENVELOPE_SLACK = 16.0
"""How many times further than one unit in the last place of the legacy state takes it a correct port may be."""
ENVELOPE_FLOOR = 2.0**-20
"""Relative difference (8 units in the last place of float32) that rounding may show whatever the envelope is."""
CONSTANT = 2.0**-22
"""Relative float64 difference (4 units in the last place of float32) that a number leaves which one side rounds to
float32 on its way, as frameworks do with scalars in a float64 program. It is no difference of a float32 program if that
stays inside the envelope."""
MOVED = 2.0**-20
"""A change that one side alone makes counts when it exceeds this share of the variable's largest magnitude."""


_POOLED = ("gradient", "update", "forced_trajectory")
"""Rungs whose steps each begin at a state of the legacy side, so that rounding is as large at one as at another."""


@dataclass
class Envelope:
    """How far the legacy side goes when it is disturbed by rounding."""

    apart: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    """Rung and tensor -> step -> how far it went there, absolutely."""
    measured: dict[Key, float] = field(default_factory=dict)
    """The tensor's own magnitude."""
    scales: Mapping[Key, float] = field(default_factory=dict)
    """The scale on which the modern side's difference is measured, where that is larger than the tensor's own."""
    extra: dict[Key, float] = field(default_factory=dict)
    """What may come on top, which no disturbance of a state shows: moving averages are fed by 1 - beta, and an Adam is
    corrected by 1 - beta**t. Both lose digits to cancellation, and frameworks come to them by different ways: TF1's
    1 - .999 is 1.3e-5 larger than Keras's."""

    def add(self, key: Key, base: Array, disturbed: Array) -> None:
        """Widens the span of one tensor at one step."""
        if base.dtype.kind != "f" or base.shape != disturbed.shape or not base.size:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            size, apart = magnitude(base), farthest(base, disturbed)
        if math.isfinite(apart):
            self.take(key, apart, size)

    def take(self, key: Key, apart: float, size: float) -> None:
        """Widens the span of one tensor of this magnitude at one step."""
        self.measured[key] = size
        steps = self.apart.setdefault(key[:2], {})
        steps[key[2]] = max(steps.get(key[2], 0.0), apart)

    def allows(self, key: Key) -> float:
        """The relative difference that a correct port may show there.

        A tensor of few numbers may by chance come out the same in every disturbed run of one step. It may go as far
        there as it goes at other steps on average.
        """
        span, scale = 0.0, self._scale(key)
        if scale:
            steps = self.apart[key[:2]]
            span = steps[key[2]] / scale
            if key[0] in _POOLED:
                known = [apart for step, apart in steps.items() if self._scale((*key[:2], step))]
                span = max(span, sum(known) / len(known) / scale)
        return ENVELOPE_SLACK * span + self.extra.get(key, 0.0) + ENVELOPE_FLOOR

    def _scale(self, key: Key) -> float:
        """What a span is a share of; 0 where nothing is known of one."""
        return max(self.measured[key], self.scales.get(key, 0.0)) if key in self.measured else 0.0

    def complement(self, key: Key, before: Array, after: Array, beta: float) -> None:
        """Allows for the rounding of 1 - beta, by which an average is fed: a share of what the step added.

        Args:
          key: rung, tensor and step.
          before: the variable before the step.
          after: the variable after it.
          beta: the decay of the average.
        """
        scale = max(float(np.abs(after).max(initial=0.0)), self.scales.get(key, 0.0))
        added = float(np.abs(after - before).max(initial=0.0))
        if scale and np.isfinite(added):
            share = 2.0**-23 / max(1.0 - beta, 2.0**-23)
            self.extra[key] = max(self.extra.get(key, 0.0), share * added / scale)


@dataclass
class Meter:
    """Takes down distances; what it forgives depends on what is known by then."""

    pair: PairMeasurement
    precision: str
    by_tensor: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Rung -> tensor -> what rounding explains, in a float64 pass."""
    envelope: Envelope | None = None
    least: Mapping[Key, float] = field(default_factory=dict)
    """The scale on which a float64 difference is measured at least: that of the same tensor in float32. What is zero in
    exact arithmetic is noise of another size in each precision, and no share of itself says anything."""
    unstable: set[str] = field(default_factory=set)
    scales: dict[Key, float] = field(default_factory=dict)
    """The scale on which a tensor was measured: its own, or that of what it has been."""
    been: dict[tuple[str, str], float] = field(default_factory=dict)
    """Rung and tensor -> its largest magnitude so far, along a trajectory."""
    largest: dict[Key, float] = field(default_factory=dict)
    """Relative differences of this pass; the largest that rounding must explain."""
    moves: dict[tuple[str, str], float] = field(default_factory=dict)
    """Rung and tensor -> the largest difference of what a step added, as a share of what it added; float64 only."""
    added: dict[tuple[str, str], float] = field(default_factory=dict)
    """Rung and tensor -> the most that a step added so far. An average that gets what it holds and loses as much hardly
    moves, and a rate that falls to nothing by 1 + cos keeps the rounding of the 1."""
    second: dict[str, Divergence] = field(default_factory=dict)
    """Rung -> the first difference that is no larger than a rounded constant leaves; float64 only."""
    losses: Losses = field(default_factory=Losses)
    """How what both sides report belongs to what they minimise."""
    silent: frozenset[str] = frozenset()
    """Reports that are compared on rung 4 alone."""
    one_sided: list[OneSided] = field(default_factory=list)
    """Numbers that one side's optimizers alone have."""
    beyond: dict[str, set[str]] = field(default_factory=dict)
    """Rung -> the tensors that differ by more than is forgiven in this pass."""
    sampled: set[str] | None = None
    """The tensors that --sample kept; None where it kept all."""
    skipped: set[str] = field(default_factory=set)
    counters: set[str] = field(default_factory=set)
    """Counters that were paired by what they do: of these a whole step tells, and no single phase."""

    def add(
        self,
        rung: str,
        tensor: str,
        legacy: Any,
        modern: Any,
        step: int,
        phase: str | None,
        name: str = "",
        before: Array | None = None,
    ) -> None:
        """Compares one tensor.

        Args:
          rung: where it is taken down.
          tensor: what the report calls it.
          legacy: the legacy side's value.
          modern: the modern side's.
          step: of the trajectory, or of the state that is looked at.
          phase: that ran, if one did.
          name: the variable's or output's bare name, by which what does not repeat is known.
          before: the value that both sides' steps began at.
        """
        measured = self.pair.rung(rung)
        if self.sampled is not None and name and rung != "forward" and name not in self.sampled:
            self.skipped.add(name)
            return
        if name in self.unstable:
            measured.lack(f"{tensor} depends on random numbers that cannot be fed")
            return
        key = rung, tensor, step
        left = legacy if isinstance(legacy, np.ndarray) else np.asarray(legacy, self.precision)
        right = modern if isinstance(modern, np.ndarray) else np.asarray(modern, self.precision)
        least = self._scale(key, left, right, before)
        apart = distance(left, right, least)
        allowed = self.by_tensor.get(rung, {}).get(tensor, 0.0)
        if self.envelope is not None:
            allowed = self.envelope.allows(key)
        if self.precision == "float64" and left.dtype.kind == "f":
            allowed = self._forgiven(key, left, right, apart, phase, allowed, before, least)
        found = measured.add(tensor, left, right, step, phase, {rung: {tensor: allowed}}, self.precision, least, apart)
        self.largest[key] = max(self.largest.get(key, 0.0), found.relative)
        if not found.same_bits and not found.relative <= allowed:
            self.beyond.setdefault(rung, set()).add(tensor)

    def _scale(self, key: Key, left: Array, right: Array, before: Array | None) -> float:
        """The scale on which a difference is measured at least.

        A step may take a variable to zero, or close to it: what it came with from before is no rounding of nothing.
        """
        least = self.least.get(key, 0.0)
        if left.dtype.kind != "f" or not left.size:
            return least
        with np.errstate(invalid="ignore"):
            sizes = [magnitude(left), least]
            if before is not None and before.shape == left.shape:
                sizes.append(magnitude(before))
            scale = max((size for size in sizes if math.isfinite(size)), default=0.0)
            if key[0] in RUNGS[-2:]:
                scale = self.been[key[:2]] = max(scale, self.been.get(key[:2], 0.0))
            own = scale or (magnitude(right) if right.dtype.kind == "f" else 0.0)
        self.scales[key] = max(self.scales.get(key, 0.0), own if math.isfinite(own) else 0.0)
        return scale

    def _forgiven(
        self,
        key: Key,
        left: Array,
        right: Array,
        apart: Distance,
        phase: str | None,
        allowed: float,
        before: Array | None,
        least: float,
    ) -> float:
        """The tolerance for a first divergence: what a rounded constant leaves comes second to anything larger."""
        rung, tensor, step = key
        if apart.same_bits:
            return allowed
        figure = apart.relative
        if before is not None and before.shape == left.shape and apart.relative > FLOOR:
            added = max(magnitude(one - other) for one, other in pieces(left, before)) if left.size else 0.0
            added = self.added[rung, tensor] = max(added, self.added.get((rung, tensor), 0.0))
            share = apart.absolute / added if added else math.inf
            self.moves[rung, tensor] = max(self.moves.get((rung, tensor), 0.0), share)
            figure = max(figure, share)
        if apart.relative <= allowed or figure > CONSTANT:
            return allowed
        if rung not in self.second:
            scratch = RungMeasurement(rung)
            scratch.add(tensor, left, right, step, phase, {rung: {tensor: allowed}}, self.precision, least)
            if scratch.first is not None:
                self.second[rung] = scratch.first
        return apart.relative

    def finish(self) -> None:
        """Where nothing larger was found, what a rounded constant left is the first divergence."""
        for rung, divergence in self.second.items():
            measured = self.pair.rung(rung)
            measured.first = measured.first or divergence

    def add_all(
        self,
        rung: str,
        legacy: Mapping[str, Array],
        modern: Mapping[str, Array],
        step: int,
        phase: str | None,
        prefix: str = "",
        owners: Mapping[str, str] | None = None,
        before: Mapping[str, Array] | None = None,
    ) -> None:
        """Compares every name that has a partner; those without are the structure rung's to tell."""
        for name in legacy:
            if name in modern:
                where = (owners or {}).get(name, phase)
                began = before[name] if before is not None else None
                left, one, other = legacy[name], located(legacy, name), located(modern, name)
                same = one is not None and other is not None and one.holds_the_same(other)
                self.add(rung, prefix + name, left, left if same else modern[name], step, where, name, began)


def compare_stills(
    meter: Meter,
    legacy: Still,
    modern: Still,
    phases: Sequence[str],
    outputs: Sequence[tuple[str, str]],
    owners: Mapping[str, str],
) -> None:
    """Rungs 3 to 6 at one state."""
    step = legacy.step
    _forward(meter, legacy, modern, outputs)
    for phase in phases:
        _loss(meter, legacy, modern, phase)
        _gradients(meter, legacy, modern, phase)
        after, before = legacy.after[phase], legacy.state
        theirs: Mapping[str, Array] = modern.after[phase]
        if len(phases) > 1 and meter.counters:
            theirs = {name: theirs[name] for name in theirs if name not in meter.counters}
        meter.add_all("update", after, theirs, step, phase, f"{phase}/", before=before)
        _movers(meter, legacy, modern, phase)
    if len(phases) > 1 and legacy.after_step is not None and modern.after_step is not None:
        after, before = legacy.after_step, legacy.state
        meter.add_all("update", after, modern.after_step, step, "step", "step/", owners, before)
    for role, still in (("legacy", legacy), ("modern", modern)):
        for fault in still.faults:
            meter.pair.rung("update").fault(f"{role}: {fault}")


def _forward(meter: Meter, legacy: Still, modern: Still, outputs: Sequence[tuple[str, str]]) -> None:
    rung, compared = meter.pair.rung("forward"), set()
    for mode in MODES:
        for one, other in outputs:
            left, right = _output(legacy, mode, one), _output(modern, mode, other)
            if left is None or right is None:
                if one in legacy.outputs["training"] and other in modern.outputs["training"]:
                    note = f"output {one} is compared in training alone: not both sides have it in inference"
                    rung.notes += [note] if note not in rung.notes else []
                elif mode == "inference":
                    rung.lack(f"output {one if left is None else other} was not computed")
                continue
            if left.size == right.size and left.shape != right.shape:
                right = right.reshape(left.shape)
            meter.add("forward", f"{mode}/{one}", left, right, legacy.step, None, one)
            compared.add(mode)
    seen = {
        role: still.outputs["training"] or still.outputs["inference"]
        for role, still in (("legacy", legacy), ("modern", modern))
    }
    silent = [role for role, shown in seen.items() if not shown]
    if silent:
        note = f"rung 3 was not run: the {' and the '.join(silent)} side shows no outputs; name them with outputs="
        rung.notes += [note] if note not in rung.notes else []
    elif not outputs:
        rung.lack("no output of the modern side has a partner on the legacy side")
    elif legacy.outputs["inference"] and "inference" not in compared:
        rung.lack("no output was compared in inference")


def _output(still: Still, mode: str, name: str) -> Array | None:
    """An output; in inference mode an intermediate will do."""
    if name in still.outputs[mode]:
        return still.outputs[mode][name]
    if mode == "inference":
        return next((node.value for node in still.nodes.get("inference", ()) if node.name == name), None)
    return None


def _loss(meter: Meter, legacy: Still, modern: Still, phase: str) -> None:
    rung = meter.pair.rung("loss")
    if meter.unstable & set(legacy.after[phase].changed(legacy.state)):
        rung.lack(f"the loss of phase {phase} depends on random numbers that cannot be fed")
        return
    one, other = legacy.objectives.get(phase), modern.objectives.get(phase)
    if one is not None and other is not None:
        meter.add("loss", f"{phase}/objective", one, other, legacy.step, phase)
    factor = meter.losses.objectives.get(phase)
    if factor is not None and factor_text(phase, factor) not in rung.notes:
        rung.notes.append(factor_text(phase, factor))
    compare_reports(meter, "loss", legacy.reports[phase], modern.reports[phase], legacy.step, phase)
    sound = True
    for role, still, own in (("legacy", legacy, meter.losses.legacy), ("modern", modern, meter.losses.modern)):
        objective = still.objectives.get(phase)
        reported = still.reports[phase].get("loss")
        if objective is None or reported is None:
            continue
        objective *= own.get((phase, "loss"), 1.0)
        bound = REPORT_BOUND * max(abs(objective), 1e-6)
        check = LossCheck(role, phase, "loss", reported, objective, bound)
        meter.pair.loss_checks.append(check)
        if role == "legacy":
            sound = check.agrees
        elif sound and not check.agrees:  # what the legacy side reports wrongly is compared as a number alone
            rung.fault(
                f"{role}: phase {phase} reports a loss of {reported:.7g}, and the loss is {objective:.7g} at that state"
            )


def compare_reports(
    meter: Meter, rung: str, legacy: Mapping[str, float], modern: Mapping[str, float], step: int, phase: str | None
) -> None:
    """What both sides report under one name, the modern side's on the legacy side's scale."""
    for name in legacy:
        if name in modern:
            tensor = name if phase is None or "/" in name else f"{phase}/{name}"
            if tensor in meter.silent and rung != "loss":
                continue
            value = float(modern[name]) * meter.losses.scales.get(tensor, 1.0)
            meter.add(rung, tensor, float(legacy[name]), value, step, phase or name.rpartition("/")[0])


def _gradients(meter: Meter, legacy: Still, modern: Still, phase: str) -> None:
    rung = meter.pair.rung("gradient")
    if phase not in legacy.gradients or phase not in modern.gradients:
        which = "legacy" if phase not in legacy.gradients else "modern"
        note = f"phase {phase}: the {which} side's code shows no gradients; rung 6 holds what they do"
        if note not in rung.notes:
            rung.notes.append(note)
        return
    left, right = legacy.gradients[phase], modern.gradients[phase]
    for role, still in (("legacy", legacy), ("modern", modern)):
        if not still.gradients[phase] and still.derivatives.get(phase):
            note = f"phase {phase}: the {role} side applies nothing at step {still.step} and keeps it for later"
            rung.notes += [note] if note not in rung.notes else []
            return
    for name in left:
        if name in right:
            meter.add("gradient", f"{phase}/{name}", left[name], right[name], legacy.step, phase, name)
        elif name in modern.state:
            rung.fault(f"phase {phase}: {_handed(name, modern, phase)} on the modern side, and one on the legacy side")
    for name in right:
        if name not in left and name in legacy.state:
            rung.fault(f"phase {phase}: {_handed(name, legacy, phase)} on the legacy side, and one on the modern side")


def _handed(name: str, still: Still, phase: str) -> str:
    """What there is in the place of a gradient."""
    none = name in still.without[phase]
    return f"{name} gets {'None for a gradient' if none else 'no gradient handed to an optimizer'}"


def _movers(meter: Meter, legacy: Still, modern: Still, phase: str) -> None:
    known = {name for name in legacy.state if name in modern.state}
    moved = [[name for name in still.moved(phase) if name in known] for still in (legacy, modern)]
    rung = meter.pair.rung("update")
    mover = Mover(phase, tuple(moved[0]), tuple(moved[1]))
    stayed = [name for name in moved[0] if name not in moved[1] and _much(legacy, phase, name)]
    extra = [name for name in moved[1] if name not in moved[0] and _much(modern, phase, name)]
    if stayed:
        rung.fault(f"phase {phase}: {some(stayed)} did not move on the modern side")
    if extra:
        rung.fault(f"phase {phase}: {some(extra)} moved on the modern side alone")
    meter.pair.movers = [each for each in meter.pair.movers if each.phase != phase] + [mover]


def _much(still: Still, phase: str, name: str) -> bool:
    before, after = still.state[name], still.after[phase][name]
    if before.dtype.kind != "f":
        return True
    return bool(np.abs(after - before).max() > MOVED * max(float(np.abs(before).max()), float(np.abs(after).max())))


def paired(name: str) -> bool:
    """Whether a shared state name has a partner."""
    return UNPAIRED not in name


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    listed = list(names)
    shown = ", ".join(listed[:3])
    return shown if len(listed) <= 3 else f"{shown} and {len(listed) - 3} more"
