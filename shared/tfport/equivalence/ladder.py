"""Rungs 1 to 9: drives two or more Subjects side by side and measures how far apart they are.

The legacy side is run once and each modern side is held against it. All rungs run, whatever an earlier one said.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfport.data.batches import Batches
from tfport.equivalence import cancelled, losses
from tfport.equivalence.initialisation import compare_initialisation, draws
from tfport.equivalence.measurement import PairMeasurement, Tolerances
from tfport.equivalence.result import LossCheck, Mover
from tfport.equivalence.resume import Carry, Halfway, by_state, carried, resume_step, taken_over
from tfport.equivalence.structure import compare_structure
from tfport.state import State
from tfport.subject import Batch, Subject

WARM_STEPS = 10
"""Rungs 3 to 6 look at two states: the initial one, and the one the legacy side reaches after this many steps."""

Tick = Callable[[], None]
"""Called once for each unit of work."""


@dataclass
class Ladder:
    """One legacy side against some modern sides, in one precision, in this process."""

    legacy: Subject
    moderns: Sequence[Subject]
    names: Sequence[str]
    """What the sides are called, the legacy side first."""
    batches: Batches
    initial: State
    steps: int
    tolerances: Sequence[Tolerances]
    """For each modern side, what rounding explains; a first divergence is taken down only beyond it."""
    tick: Tick = lambda: None
    carry: Callable[[str, str], Carry | None] = by_state
    """Names of two sides -> what makes files of the one's checkpoint into the other's; None where that is not known."""
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pairs = [PairMeasurement(self.names[0], name) for name in self.names[1:]]
        self.owner = _owners(self.legacy)
        legacy = _shapes(self.initial)
        self.fits = [_shapes(modern.state()) == legacy for modern in self.moderns]

    def run(self) -> list[PairMeasurement]:
        """Runs rungs 1 to 9 for every modern side; each ends in the state that its free trajectory led to."""
        self._structure()
        self._initialisation()
        self._still(self.initial, 0)
        self._still(self._warm(), WARM_STEPS)
        self._forced()
        with tempfile.TemporaryDirectory(prefix="tfport-") as folder:
            self._resume(self._free(Path(folder)), Path(folder))
        return self.pairs

    @property
    def work(self) -> int:
        """How many ticks `run` makes."""
        return 2 + 2 + 2 * self.steps + self.steps - resume_step(self.steps)

    # --- Rungs 1 and 2 ------------------------------------------------------------------------------------------------
    def _structure(self) -> None:
        for modern, pair in zip(self.moderns, self.pairs, strict=True):
            compare_structure(pair.rung("structure"), self.legacy, modern)
        self.tick()

    def _initialisation(self) -> None:
        drawn = draws(self.legacy)
        for modern, pair in zip(self.moderns, self.pairs, strict=True):
            compare_initialisation(pair.rung("initialisation"), drawn, draws(modern))
        self.tick()

    # --- Rungs 3 to 6: one state, nothing carried from one measurement to the next ------------------------------------
    def _warm(self) -> State:
        """The state the legacy side reaches after some steps: biases have left zero, slots are filled.

        Biases that a normalisation takes away would still be near zero, and hide what leaves them out: they are moved.
        """
        self.legacy.load(self.initial)
        for step in range(WARM_STEPS):
            self.legacy.step(self.batches[step])
        return cancelled.disturbed(self.legacy.spec, self.legacy.state())

    def _still(self, state: State, step: int) -> None:
        spec, batch = self.legacy.spec, self.batches[step]
        legacy = _Still(self.legacy, state, batch)
        for modern, pair, tolerances in zip(self.moderns, self.pairs, self.tolerances, strict=True):
            other = _Still(modern, carried(state, modern), batch)
            for mode in ("training", "inference"):
                prefix = f"{mode}/"
                pair.rung("forward").add_all(legacy.outputs[mode], other.outputs[mode], step, None, tolerances, prefix)
            for phase in self.legacy.phases:
                if phase not in other.after:
                    for rung in ("loss", "gradient", "update"):
                        pair.rung(rung).lack(f"phase {phase} is missing on the modern side")
                    continue
                self._loss(pair, tolerances, legacy, other, phase, step)
                left, right = legacy.gradients[phase], other.gradients[phase]
                scales = cancelled.of_gradients(spec, left)
                pair.rung("gradient").add_all(left, right, step, phase, tolerances, f"{phase}/", None, scales)
                before, after = legacy.after[phase].arrays, other.after[phase].arrays
                scales = cancelled.of_state(spec, before, 1)
                pair.rung("update").add_all(before, after, step, phase, tolerances, f"{phase}/", None, scales)
                self._movers(pair, legacy, other, phase)
            before, after = legacy.after_step.arrays, other.after_step.arrays
            scales = cancelled.of_state(spec, before, 1)
            pair.rung("update").add_all(before, after, step, "step", tolerances, "step/", self.owner, scales)
            for name, side in ((pair.legacy, legacy), (pair.modern, other)):
                for text in side.broken_contract:
                    pair.rung("update").fault(f"{name}: {text}")
        self.tick()

    def _loss(
        self, pair: PairMeasurement, tolerances: Tolerances, legacy: _Still, other: _Still, phase: str, step: int
    ) -> None:
        self._reports(pair, "loss", tolerances, legacy.reports[phase], other.reports[phase], step, (phase,))
        for name in self.legacy.spec.phase(phase).reports:
            self._recomputed(pair, legacy, other, phase, name, step)

    def _recomputed(
        self, pair: PairMeasurement, legacy: _Still, other: _Still, phase: str, name: str, step: int
    ) -> None:
        rung = pair.rung("loss")
        for side, still in ((pair.legacy, legacy), (pair.modern, other)):
            if name not in still.reports[phase]:
                continue
            try:
                value, bound = losses.recomputed(self.legacy.spec, name, still.outputs, self.batches[step])
            except KeyError as error:
                rung.lack(f"{side}: {name} cannot be recomputed, there is no output {error}")
                continue
            check = LossCheck(side, phase, name, still.reports[phase][name], value, bound)
            pair.loss_checks.append(check)
            if not check.agrees:
                rung.fault(
                    f"{side}: the {phase} phase reports {name} {check.reported:.7g}, "
                    f"and its outputs give {check.recomputed:.7g} (rounding explains {bound:.1e})"
                )

    def _movers(self, pair: PairMeasurement, legacy: _Still, other: _Still, phase: str) -> None:
        # Whether rounding alone moves a cancelled bias is chance: nothing is said of it.
        chance = self.legacy.spec.cancelled().keys()
        moved = [tuple(name for name in side.moved(phase) if name not in chance) for side in (legacy, other)]
        mover = Mover(phase, *moved)
        stayed = sorted(set(mover.legacy) - set(mover.modern))
        extra = sorted(set(mover.modern) - set(mover.legacy))
        if stayed:
            pair.rung("update").fault(f"phase {phase}: {_some(stayed)} did not move on the modern side")
        if extra:
            pair.rung("update").fault(f"phase {phase}: {_some(extra)} moved on the modern side alone")
        pair.movers = [each for each in pair.movers if each.phase != phase] + [mover]

    # --- Rungs 7 to 9 ------------------------------------------------------------------------------------------------
    def _forced(self) -> None:
        """Every step begins at the legacy side's state."""
        self.legacy.load(self.initial)
        state = self.initial
        for step in range(self.steps):
            batch = self.batches[step]
            left = self.legacy.step(batch)
            after = self.legacy.state()
            for modern, fits, pair, tolerances in zip(
                self.moderns, self.fits, self.pairs, self.tolerances, strict=True
            ):
                modern.load(state if fits else carried(state, modern))
                self._compare_step(pair, "forced_trajectory", tolerances, left, modern.step(batch), step)
                rung = pair.rung("forced_trajectory")
                scales = cancelled.of_state(self.legacy.spec, after.arrays, 1)
                rung.add_all(after.arrays, modern.state().arrays, step, "step", tolerances, "", self.owner, scales)
            state = after
            self.tick()

    def _free(self, folder: Path) -> Halfway:
        """All sides go on by themselves; states are compared every step until they part, then now and then.

        Args:
          folder: takes the legacy side's checkpoint of the step from which rung 9 goes on.

        Returns:
          What rung 9 needs of the legacy side.
        """
        kept = Halfway(resume_step(self.steps), folder / "legacy")
        files = any(self.carry(self.names[0], name) for name in self.names[1:])
        self.legacy.load(self.initial)
        for modern in self.moderns:
            modern.load(carried(self.initial, modern))
        stride = max(1, self.steps // 20)
        kept.reach.seen(self.initial.arrays)
        for step in range(self.steps):
            if step == kept.step:
                kept.take(self.legacy, files)
            batch = self.batches[step]
            left = self.legacy.step(batch)
            if step >= kept.step:
                kept.reports.append(left)
            self._curve(self.names[0], left)
            after: State | None = None
            for modern, pair, tolerances in zip(self.moderns, self.pairs, self.tolerances, strict=True):
                right = modern.step(batch)
                self._curve(pair.modern, right)
                self._compare_step(pair, "free_trajectory", tolerances, left, right, step)
                rung = pair.rung("free_trajectory")
                if rung.first is None or (step + 1) % stride == 0 or step + 1 == self.steps:
                    after = after or self.legacy.state()
                    own = modern.state().arrays
                    scales = cancelled.of_state(self.legacy.spec, after.arrays, step + 1)
                    scales = kept.reach.seen(after.arrays).least(scales)
                    rung.add_all(after.arrays, own, step, "step", tolerances, "", self.owner, scales)
            self.tick()
        kept.last = self.legacy.state()
        return kept

    def _resume(self, kept: Halfway, folder: Path) -> None:
        """The modern sides take over the legacy side's checkpoint and go on to where its free trajectory ended."""
        assert kept.last is not None
        ends = [modern.state() for modern in self.moderns]
        going = []
        sides = zip(self.moderns, self.pairs, self.tolerances, strict=True)
        for number, (modern, pair, tolerances) in enumerate(sides):
            ways = self.carry(pair.legacy, pair.modern), self.carry(pair.modern, pair.legacy)
            own = folder / f"modern-{number}"
            if taken_over(kept, self.legacy, modern, *ways, pair.rung("resume"), tolerances, own):
                going.append((modern, pair, tolerances))
        for step in range(kept.step, self.steps):
            batch = self.batches[step]
            for modern, pair, tolerances in going:
                reported = modern.step(batch)
                self._compare_step(pair, "resume", tolerances, kept.reports[step - kept.step], reported, step)
            self.tick()
        scales = cancelled.of_state(self.legacy.spec, kept.last.arrays, self.steps - kept.step)
        scales = kept.reach.seen(kept.last.arrays).least(scales)
        for modern, pair, tolerances in going:
            rung, arrays = pair.rung("resume"), modern.state().arrays
            rung.add_all(kept.last.arrays, arrays, self.steps - 1, "step", tolerances, "", self.owner, scales)
        for side, end in ((self.legacy, kept.last), *zip(self.moderns, ends, strict=True)):
            side.load(end)

    def _compare_step(
        self,
        pair: PairMeasurement,
        rung: str,
        tolerances: Tolerances,
        left: Mapping[str, float],
        right: Mapping[str, float],
        step: int,
    ) -> None:
        self._reports(pair, rung, tolerances, left, right, step, self.legacy.phases)

    def _reports(
        self,
        pair: PairMeasurement,
        rung: str,
        tolerances: Tolerances,
        left: Mapping[str, float],
        right: Mapping[str, float],
        step: int,
        phases: Sequence[str],
    ) -> None:
        """Compares what some phases report; a report that one side lacks is taken down as missing."""
        expected: set[str] = set()
        for phase in phases:
            for name in self.legacy.spec.phase(phase).reports:
                expected.add(name)
                for side, reported in (("legacy", left), ("modern", right)):
                    if name not in reported:
                        pair.rung(rung).lack(f"{name} is not reported on the {side} side")
                if name in left and name in right:
                    pair.rung(rung).add(name, left[name], right[name], step, phase, tolerances, self.legacy.precision)
        for name in sorted(right.keys() - expected):
            pair.rung(rung).lack(f"{name} is reported on the modern side only")

    def _curve(self, name: str, reported: Mapping[str, float]) -> None:
        curve = self.curves.setdefault(name, {})
        for phase in self.legacy.spec.phases:
            if phase.loss in reported:
                curve.setdefault(phase.loss, []).append(float(reported[phase.loss]))


class _Still:
    """All that one side shows at one state: outputs, losses, gradients, and the state after each phase and a step."""

    def __init__(self, subject: Subject, state: State, batch: Batch) -> None:
        self.before = state
        subject.load(state)
        self.outputs = {
            "training": subject.forward(batch, training=True),
            "inference": subject.forward(batch, training=False),
        }
        self.gradients = {phase: subject.gradients(phase, batch) for phase in subject.phases}
        self.broken_contract: list[str] = []
        untouched = subject.state()
        if untouched.digest() != state.digest():
            self.broken_contract.append("forward or gradients changed the state")
        self.reports: dict[str, dict[str, float]] = {}
        self.after: dict[str, State] = {}
        for phase in subject.phases:
            subject.load(state)
            self.reports[phase] = _floats(subject.run_phase(phase, batch))
            self.after[phase] = subject.state()
        subject.load(state)
        reported: dict[str, float] = {}
        for phase in subject.phases:
            reported |= _floats(subject.run_phase(phase, batch))
        in_order = subject.state()
        subject.load(state)
        of_step = _floats(subject.step(batch))
        self.after_step = subject.state()
        if of_step != reported:
            self.broken_contract.append(f"a step reports {of_step}, and its phases in order {reported}")
        if in_order.digest() != self.after_step.digest():
            self.broken_contract.append(f"a step is not its phases in order ({', '.join(subject.phases)})")

    def moved(self, phase: str) -> tuple[str, ...]:
        """The variables (not slots) whose bits the phase changed."""
        return tuple(
            name
            for name, array in self.after[phase].arrays.items()
            if not name.startswith("optimizer/") and array.tobytes() != self.before.arrays[name].tobytes()
        )


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state.arrays.items()}


def _floats(reports: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in reports.items()}


def _owners(subject: Subject) -> dict[str, str]:
    """State name -> the optimizer, or optimizers, that move it; moving statistics have the phases that do."""
    owners: dict[str, str] = {
        variable.name: " and ".join(variable.optimizers) for variable in subject.variables() if variable.optimizers
    }
    for variable in subject.variables():
        network = variable.name.split("/")[0]
        moving = [phase.name for phase in subject.spec.phases if network in phase.statistics]
        if moving and not variable.optimizers:
            owners[variable.name] = " and ".join(moving)
    for name in subject.state().arrays:
        if name.startswith("optimizer/"):
            owners[name] = name.split("/")[1]
    return owners


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
