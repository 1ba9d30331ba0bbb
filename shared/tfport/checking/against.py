"""The modern side, held against what is kept of the legacy side."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tfport.checking import explained, horizon, losses, resume
from tfport.checking.bounds import resume_step
from tfport.checking.measure import Envelope, Meter, compare_reports, compare_stills, paired
from tfport.checking.observe import Still, observe
from tfport.checking.pairing import Pairing, paired_with
from tfport.checking.record import Record, contracts_of, draw_rows, finite, initialised
from tfport.checking.report import DrawRow, Finding, Movement
from tfport.checking.session import Session
from tfport.checking.sides import COUNTER, Side
from tfport.equivalence.initialisation import compare_initialisation
from tfport.equivalence.measurement import PairMeasurement
from tfport.equivalence.structure import compare_structure
from tfport.state import State
from tfport.subject import OptimizerInfo, VariableInfo

Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class _Facade:
    """What the structure rung asks of a side."""

    phases: tuple[str, ...]
    held_variables: tuple[VariableInfo, ...]
    held_optimizers: tuple[OptimizerInfo, ...]
    arrays: Mapping[str, Array]

    def variables(self) -> tuple[VariableInfo, ...]:
        return self.held_variables

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return self.held_optimizers

    def state(self) -> State:
        return State("", self.arrays)


class Opponent:
    """The modern side over all its passes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pairing: Pairing | None = None
        """Found in the first pass."""
        self.kind = ""
        self.draws: tuple[DrawRow, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.findings: list[Finding] = []
        self.movements: list[Movement] = []
        self.unasked: list[str] = []
        self.curves: dict[str, list[float]] = {}
        self.silent: frozenset[str] = frozenset()
        """Reports that the first pass found to differ where the updates do not."""
        self.horizon: horizon.Horizon | None = None
        """What lies beyond the last step; of the first pass."""
        self._initial_values: dict[str, Array] | None = None

    def held_against(
        self,
        record: Record,
        by_tensor: Mapping[str, Mapping[str, float]] | None = None,
        envelope: Envelope | None = None,
        least: Mapping[Any, float] | None = None,
    ) -> tuple[Meter, list[Still]]:
        """One pass against the record, in its precision.

        Args:
          record: of the legacy side.
          by_tensor: rung -> tensor -> what rounding explains, where float32 has been measured.
          envelope: what rounding explains, where there is no float64.
          least: on which scale a float64 difference is measured at least.

        Returns:
          What was measured, and what the modern side showed at the record's states.
        """
        session, precision = self.session, record.precision
        meter = Meter(
            PairMeasurement("legacy", "modern"),
            precision,
            by_tensor or {},
            envelope,
            least or {},
            sampled=record.sampled,
        )
        meter.unstable = set(record.stills[0].unstable)
        with session.timed(f"modern {precision}"), session.opened("modern", precision) as program:
            side = session.side(program, "modern", self.pairing.names if self.pairing else None)
            first_time = self.pairing is None
            own = session.store.keep(program.state().arrays)
            if self.pairing is None:
                finite(own, "modern")
                with session.timed("matching variables"):
                    self.pairing = paired_with(session, record, side)
            pairing, batches = self.pairing, session.batches(program)
            meter.counters = {each.shared for each in pairing.names.counters.values()}
            self._structure(meter, record, side, session.numbers["modern"])
            owners = _owners(record)
            resumed: list[dict[str, float]] = []
            if "resume" in session.order.measured:
                resumed = self._resume(meter, record, side, first_time, owners)
            stills = []
            for still in record.stills:
                batch = batches[still.step]
                mine = observe(side, session.store, still.state, batch, still.step, twice=still.step == 0)
                meter.unstable |= mine.unstable
                stills.append(mine)
            meter.losses = losses.paired(record.stills, stills, pairing.shared_phases, precision)
            both = list(zip(record.stills, stills, strict=True))
            if first_time:
                self.silent = explained.silent_reports(meter.losses, both, pairing.shared_phases)
            meter.silent = self.silent
            for still, mine in both:
                compare_stills(meter, still, mine, pairing.shared_phases, pairing.outputs, owners)
            if "resume" in session.order.measured:
                _unfed(meter, record)
                for step, reports in enumerate(resumed, len(record.trajectory.reports) - len(resumed)):
                    compare_reports(meter, "resume", record.trajectory.reports[step], reports, step, None)
            self._trajectories(meter, record, side, owners)
            resume.same_step_twice(meter, record)
            meter.finish()
            if first_time:
                if record.horizon is not None:
                    with session.timed("horizon"):
                        self.horizon = horizon.held(session, side, record, pairing.names, meter.unstable)
                self.findings, self.movements, self.unasked = contracts_of(session, side, stills, record.initial)
                program.load(State("", own))
                self.kind, self.draws = program.kind, draw_rows("modern", program)
                self.notes = (*meter.losses.notes, *program.notes())
                self._initial_values = initialised(session, side)
            self._initialisation(meter, record)
        return meter, stills

    def _structure(self, meter: Meter, record: Record, side: Side, numbers: Sequence[OptimizerInfo]) -> None:
        rung, pairing = meter.pair.rung("structure"), self.pairing
        assert pairing is not None
        left, right, notes, meter.one_sided = explained.alike(record.optimizers, side.optimizers(numbers))
        rung.notes += notes
        kept_by_hand = {slot.shared for slot in pairing.names.slots.values()}
        missing = {*pairing.unmatched_legacy, *pairing.numbers, *kept_by_hand}
        mine = side.state().arrays
        by_hand, told = _by_hand(left, right)
        rung.notes += told
        left, right = (tuple(each for each in infos if each.name not in by_hand) for infos in (left, right))
        alone = {name for name in record.initial if name.endswith("/iterations") and name not in mine}
        held = _without(record.initial, missing, by_hand)
        theirs = _without({name: mine[name] for name in mine if paired(name)}, kept_by_hand, by_hand)
        compare_structure(
            rung,
            _Facade(
                record.phases,
                _trainable(_others(record.variables, pairing.numbers | kept_by_hand), by_hand),
                left,
                {name: held[name] for name in held if name not in alone},
            ),  # type: ignore[arg-type]
            _Facade(
                tuple(
                    {own: shared for shared, own in pairing.names.phases.items()}.get(own, own)
                    for own in side.program.phases
                ),
                _trainable(_others(side.variables(), pairing.numbers), by_hand),
                right,
                {name: theirs[name] for name in theirs if name in record.initial or not name.endswith("/iterations")},
            ),  # type: ignore[arg-type]
        )

    def _resume(
        self, meter: Meter, record: Record, side: Side, looked_at: bool, owners: Mapping[str, str]
    ) -> list[dict[str, float]]:
        """Rung 9, by a side of which no step has run; a side that was looked at has traced its steps, or made some."""
        session, steps = self.session, self.session.order.steps
        with (
            session.afresh(side.program, "modern") if looked_at else nullcontext(side.program) as program,
            session.bar(f"modern {record.precision}, resumed", steps - resume_step(steps)) as tick,
        ):
            fresh = session.side(program, "modern", side.names) if looked_at else side
            return resume.go_on(meter, record, fresh, session.batches(program), owners, tick)

    def _initialisation(self, meter: Meter, record: Record) -> None:
        rung = meter.pair.rung("initialisation")
        mine, theirs = self._initial_values, record.initialised
        if mine is None or theirs is None:
            return
        known = [name for name in theirs if name in mine]
        compare_initialisation(rung, {name: theirs[name] for name in known}, {name: mine[name] for name in known})

    def _trajectories(self, meter: Meter, record: Record, side: Side, owners: Mapping[str, str]) -> None:
        batches = self.session.batches(side.program)
        states, reports = record.trajectory.states, record.trajectory.reports
        with self.session.bar(
            f"modern {side.program.precision}", len(record.forced) + self.session.order.steps
        ) as tick:
            if "forced_trajectory" in self.session.order.measured:
                for step in record.forced:
                    side.at(step)
                    side.load(states[step])
                    compare_reports(meter, "forced_trajectory", reports[step], side.step(batches[step]), step, None)
                    after = side.state().arrays
                    rung, before = "forced_trajectory", states[step]
                    meter.add_all(rung, states[step + 1], after, step, "step", "", owners, before)
                    tick()
            if "free_trajectory" in self.session.order.measured:
                side.at(0)
                side.load(record.initial)
                curves: dict[str, list[float]] = {}
                for step in range(self.session.order.steps):
                    side.at(step)
                    mine = side.step(batches[step])
                    for name, value in mine.items():
                        if name.endswith("/loss"):
                            value *= meter.losses.scales.get(name, 1.0)
                            curves.setdefault(name.removesuffix("/loss"), []).append(value)
                    compare_reports(meter, "free_trajectory", reports[step], mine, step, None)
                    if step + 1 in states:
                        after = side.state().arrays
                        meter.add_all("free_trajectory", states[step + 1], after, step, "step", "", owners)
                    tick()
                self.curves = self.curves or curves


def _unfed(meter: Meter, record: Record) -> None:
    """Rung 9 runs before it is known what of the modern side does not repeat."""
    for name in record.initial:
        if name in meter.unstable:
            meter.pair.rung("resume").lack(f"{name} depends on random numbers that cannot be fed")


def _others(variables: Sequence[VariableInfo], names: Collection[str]) -> tuple[VariableInfo, ...]:
    return tuple(each for each in variables if each.name not in names)


def _trainable(variables: Sequence[VariableInfo], by_hand: set[str]) -> tuple[VariableInfo, ...]:
    """The variables with their optimizers, but for those that one side writes by hand; trainable is what one holds."""
    found = []
    for each in variables:
        holders = tuple(name for name in each.optimizers if name not in by_hand)
        found.append(dataclasses.replace(each, trainable=bool(holders), optimizers=holders))
    return tuple(found)


def _without(arrays: Mapping[str, Array], missing: set[str], by_hand: set[str]) -> dict[str, Array]:
    """A state without counters, variables that have no partner, their slots, and what one side keeps by hand."""
    return {
        name: arrays[name]
        for name in arrays
        if not _belongs(name, missing)
        and not name.startswith(COUNTER)
        and not (name.startswith("optimizer/") and name.split("/")[1] in by_hand)
    }


def _by_hand(left: Sequence[OptimizerInfo], right: Sequence[OptimizerInfo]) -> tuple[set[str], list[str]]:
    """The optimizers that one side writes out by hand, so that they have no name there, and what is said of it."""
    one, other = ([each for each in infos if each.algorithm != "none"] for infos in (left, right))
    if bool(one) == bool(other):
        return {each.name for each in (*left, *right) if each.algorithm == "none" and not one and not other}, []
    whole, role = (one, "modern") if one else (other, "legacy")
    told = ", ".join(f"{each.name} ({each.algorithm})" for each in whole)
    note = f"the {role} side updates by hand what {told} updates on the other: rung 6 holds what it does"
    return {each.name for each in (*left, *right)}, [note]


def _belongs(name: str, variables: set[str]) -> bool:
    parts = name.split("/", 3)
    return name in variables or (name.startswith("optimizer/") and len(parts) == 4 and parts[3] in variables)


def _owners(record: Record) -> dict[str, str]:
    """State name -> the phases that move it."""
    phases: dict[str, list[str]] = {}
    for phase, optimizers in record.phase_optimizers.items():
        for optimizer in optimizers:
            phases.setdefault(optimizer, []).append(phase)
    found = {}
    for each in record.variables:
        owners = [phase for optimizer in each.optimizers for phase in phases.get(optimizer, [])]
        if owners:
            found[each.name] = " and ".join(dict.fromkeys(owners))
    for name in record.initial:
        if name.startswith("optimizer/"):
            owners = phases.get(name.split("/")[1], [])
            if owners:
                found[name] = " and ".join(owners)
    return found
