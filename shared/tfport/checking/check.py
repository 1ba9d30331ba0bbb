"""A whole check: the legacy side is recorded, then the modern side is held against the record."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfport.checking import explained, factories, horizon, location, losses, records, resume
from tfport.checking.against import Opponent
from tfport.checking.ahead import Ahead
from tfport.checking.bounds import Sample
from tfport.checking.coverage import coverage
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.legacy import Legacy, Live, Recorded, idle
from tfport.checking.measure import CONSTANT, Meter
from tfport.checking.observe import Still, Trajectory, observe, run
from tfport.checking.pairing import Pairing
from tfport.checking.quoting import said
from tfport.checking.record import REPEAT_STEPS, WARM_STEPS, Record, contracts_of, draw_rows, finite
from tfport.checking.report import CheckReport, Finding, Location
from tfport.checking.session import DEFAULT_STEPS, Order, Session
from tfport.checking.store import Store
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, Divergence, PairResult, RungResult, Verdict
from tfport.equivalence.verdicts import FLOOR, assembled, excess, judge, needs_float64, tolerances
from tfport.errors import UserError
from tfport.versions import versions

SMALL = 64 << 20
"""Bytes of state up to which both sides may run side by side."""


def check(
    legacy: Any,
    modern: Any = None,
    batches: Any = None,
    *,
    steps: int | None = None,
    precision: str = "float32",
    seed: int | None = None,
    mapping: str | Path | None = None,
    write_mapping: str | Path | None = None,
    sample: str | Sample | None = None,
    rungs: Sequence[str] = RUNGS,
    ignore: str | Sequence[str] = (),
    names: Mapping[str, Any] | None = None,
    isolated: bool | None = None,
    progress: bool = False,
    command: str = "",
    record: str | Path | None = None,
) -> CheckReport:
    """Holds a port against its original, or one program against its own contracts.

    Args:
      legacy: the original: a factory, `module:factory`, a `.meta` file, a SavedModel's folder, a record's folder, or a
        Program; None to check the modern side alone.
      modern: the port, given alike.
      batches: a batch (a mapping of input names to arrays), a sequence of them, a function of the step, or
        `module:function`; None makes standard normal ones up where every input is floating.
      steps: how long the trajectories are; by default 20, or what a record holds.
      precision: "float32" or "float64": of what is shown; rounding is shown by the other one too.
      seed: of draws, of made-up batches and of what the factories' own initialisers draw; by default 0, or a record's.
      mapping: a file that settles pairs of variables.
      write_mapping: where to write the mapping that was found.
      sample: bounds such as "steps:5,tensors:20".
      rungs: the rungs that are asked for, by name.
      ignore: patterns such as "avg_*" of variables that take no part, by their own names on either side: averages of
        losses, metrics, summaries.
      names: `inputs`, `outputs`, `losses`, `train_ops` of a legacy TF1 graph where they must be named.
      isolated: whether each side lives in a process of its own; by default those that are given as text.
      progress: whether to show a bar on standard error.
      command: what repeats the check, for the report.
      record: a folder to record the legacy side in; the port is then held against the record.

    Returns:
      The report; `report.equal` is the answer.

    Raises:
      UserError: something given cannot be used; the message names it and the remedy.
    """
    if modern is None:
        raise UserError("there is nothing to check: give --modern, and --legacy to hold it against.")
    if record is not None:
        _record(
            record,
            legacy,
            batches,
            steps=steps,
            seed=seed,
            sample=sample,
            ignore=ignore,
            names=names,
            isolated=isolated,
            progress=progress,
        )
        legacy, names, batches, sample = Path(record), None, None, None
    original, notes = None, []
    if records.is_record(legacy):
        if names:
            raise UserError(
                f"--{next(iter(names))} names a part of a TF1 graph, and {legacy} is a record: leave it out."
            )
        original = records.read(Path(legacy))
        notes.append(records.note(Path(legacy), original))
        steps, seed = records.numbers(Path(legacy), original, steps, seed)
    order = Order(
        legacy,
        modern,
        batches,
        DEFAULT_STEPS if steps is None else steps,
        precision,
        seed or 0,
        Path(mapping) if mapping else None,
        Path(write_mapping) if write_mapping else None,
        _bounds(sample),
        tuple(rungs),
        _patterns(ignore),
        names or {},
        isolated,
        progress,
        command,
    ).check()
    roles = ("legacy", "modern") if original is None else ("modern",)
    with Store() as store, Session(order, store, roles) as session:
        session.notes += notes
        try:
            if order.legacy is None:
                return alone(session)
            return _Check(session, Live(session) if original is None else Recorded(session, original)).run()
        except NoSuchPrecision as reason:
            if order.legacy is not None:
                raise UserError(f"a check begins in float32, and {reason}. Let both factories take dtype.") from None
            raise UserError(
                f"--precision={precision} is not available: {reason}. Let the factory take dtype, or ask for the other."
            ) from None


def record(
    folder: str | Path,
    legacy: Any,
    batches: Any = None,
    *,
    steps: int | None = None,
    seed: int | None = None,
    sample: str | Sample | None = None,
    ignore: str | Sequence[str] = (),
    names: Mapping[str, Any] | None = None,
    isolated: bool | None = None,
    progress: bool = False,
) -> None:
    """Records a legacy side, so that ports can be held against it without it: `check(folder, port)`.

    Args:
      folder: where the record goes; an older record there is replaced.
      legacy: as for `check`.
      batches: as for `check`; they are recorded.
      steps: how many are recorded; 20 by default.
      seed: as for `check`.
      sample: as for `check`.
      ignore: as for `check`.
      names: as for `check`.
      isolated: as for `check`.
      progress: as for `check`.

    Raises:
      UserError: something given cannot be used.
      RunError: the disk refused.
    """
    if legacy is None or records.is_record(legacy):
        what = f"{legacy} is a record already" if legacy is not None else "there is nothing to record"
        raise UserError(f"--record={folder}: {what}; name the original with --legacy.")
    order = Order(
        legacy,
        None,
        batches,
        steps=DEFAULT_STEPS if steps is None else steps,
        seed=seed or 0,
        sample=_bounds(sample),
        ignore=_patterns(ignore),
        names=names or {},
        isolated=isolated,
        progress=progress,
    ).check()
    try:
        records.make(Path(folder), order)
    except NoSuchPrecision as reason:
        raise UserError(f"a record begins in float32, and {reason}. Let the factory take dtype.") from None


_record = record
"""By a name that no parameter of `check` has."""


def _patterns(ignore: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(ignore.split(",")) if isinstance(ignore, str) else tuple(ignore)


def _bounds(sample: str | Sample | None) -> Sample:
    return Sample.parse(sample) if isinstance(sample, str) else sample or Sample()


class _Check:
    """Both sides of one check."""

    def __init__(self, session: Session, legacy: Legacy) -> None:
        self.session = session
        self.legacy = legacy
        self.opponent = Opponent(session)
        self.wide: Ahead[Record] | None = None
        """The legacy side in float64, where that was begun before it was asked for."""

    @property
    def pairing(self) -> Pairing:
        """How the modern side's names become the legacy side's; found in its first pass."""
        assert self.opponent.pairing is not None
        return self.opponent.pairing

    def run(self) -> CheckReport:
        """The legacy side, then the modern side, in as many precisions as it takes."""
        began = time.perf_counter()
        session, order = self.session, self.session.order
        session.build_ahead("modern", "float32")
        session.import_ahead()
        single = self.legacy.single()
        self._begin_float64(single)
        first, stills = self.opponent.held_against(single)
        asked, double, rounding_by, enveloped, no_float64 = first, None, "", False, ""
        looked = [(single, stills, False)]
        if needs_float64(first.pair) or order.precision == "float64":
            try:
                wide, double, wide_stills = self._in_float64(single, first)
            except Exception as error:  # whatever stops float64, float32 was compared
                if order.precision == "float64" and isinstance(error, NoSuchPrecision):
                    raise UserError(
                        f"--precision=float64 is not available: {error}. Let both factories take dtype, or ask for "
                        "float32."
                    ) from None
                if order.precision == "float64":
                    raise
                no_float64 = str(error) if isinstance(error, NoSuchPrecision | UserError) else said(error)
                asked = first = self._enveloped(single, first)
                rounding_by, enveloped = "envelope", True
            else:
                looked.append((wide, wide_stills, True))
                rounding_by = "float64"
                asked = double if order.precision == "float64" else first
        record, modern, _ = looked[-1]
        both = list(zip(record.stills, modern, strict=True))
        explained.take_down(first.pair.rung("structure"), first.one_sided, both, self.pairing.shared_phases)
        pair = self._judged(asked, first, double, single, enveloped)
        small = _constants_alone(pair, first, double, self._complement(single)) if double is not None else {}
        if small:
            pair = self._second_opinion(pair, asked, first, single, small)
            rounding_by = "envelope" if pair.verdict.equal else rounding_by
        pair = self._explained(pair, asked, first, double, both)
        why = resume.explained(session, single, pair, first, self.legacy.own_resume)
        if why:
            told = [
                dataclasses.replace(rung, findings=(*rung.findings, why)) if rung.rung == "resume" else rung
                for rung in pair.rungs
            ]
            pair = assembled(asked.pair, told)
        wanted = ("repeat", *order.rungs)
        pair = assembled(asked.pair, [rung for rung in pair.rungs if rung.rung in wanted])
        if pair.verdict is Verdict.IDENTICAL:
            rounding_by = ""
        place = None if pair.verdict.equal else self._located(pair, looked, bool(small), why)
        beyond, parted = self.opponent.horizon, None
        if pair.verdict.equal and "forced_trajectory" in wanted and beyond is not None and beyond.parts:
            parting = horizon.settled(session, single, beyond, self.pairing.names, first.unstable, self.legacy.horizons)
            if parting is not None:
                pair, place, parted = _parted(pair, asked, parting), parting.location, parting.agreed + 1
        self._propose()
        session.seconds["total"] = round(time.perf_counter() - began, 2)
        return self._report(single, pair, asked, rounding_by, no_float64, place, parted)

    def _complement(self, single: Record) -> float:
        """By how much 1 - beta shows the rounding of beta, where one side writes its optimizer out by hand.

        An optimizer's numbers are rounded to float32, since TF1 keeps them so; those of a person's own code are not.
        """
        numbers = [each.hyperparameters for each in (*single.optimizers, *self.session.numbers["modern"])]
        betas = [each[name] for each in numbers for name in ("beta_1", "beta_2", "rho", "momentum") if name in each]
        decays = [beta for beta in betas if 0.0 < beta < 1.0]
        return 1.0 / (1.0 - max(decays, default=0.0)) if self.pairing.names.slots else 1.0

    def _propose(self) -> None:
        """Notes which of the variables without a partner take no part."""
        found = {
            "legacy": self.legacy.idle(self.pairing.unmatched_legacy),
            "modern": idle(self.session, "modern", self.pairing.unmatched_modern),
        }
        for role, names in found.items():
            if names:
                self.session.notes.append(
                    f"nothing else on the {role} side reads {', '.join(names)}: --ignore={','.join(names)} leaves "
                    f"{'it' if len(names) == 1 else 'them'} out"
                )

    def _begin_float64(self, single: Record) -> None:
        """Begins the legacy side's float64 while the modern side's float32 runs: few checks do without.

        A large model's waits its turn, so that one side at a time is in memory.
        """
        size = sum(array.nbytes for array in single.initial.values())
        if size > SMALL:
            return
        if self.session.apart:
            self.wide = self.session.begin(lambda: self.legacy.wide(single))
        if self.session.apart or isinstance(self.legacy, Recorded):
            self.session.build_ahead("modern", "float64")

    def _in_float64(self, single: Record, first: Meter) -> tuple[Record, Meter, list[Still]]:
        """Both sides once more, in float64, from the float32 record's states."""
        wide = self.wide.result() if self.wide else self.legacy.wide(single)
        _wholly_double(wide.stills, "legacy")
        allowed = tolerances(first.pair)
        double, stills = self.opponent.held_against(wide, allowed, least=first.scales)
        _wholly_double(stills, "modern")
        return wide, double, stills

    def _enveloped(self, single: Record, first: Meter) -> Meter:
        """The float32 pass once more, now that it is known how far rounding takes the legacy side."""
        span = self.legacy.spanned(single, first, self.pairing.shared_phases, self.pairing.outputs)
        second = self.opponent.held_against(single, envelope=span)[0]
        for fault in first.pair.rung("resume").faults:  # what a side keeps for itself it may have kept from that pass
            second.pair.rung("resume").fault(fault)
        return second

    def _second_opinion(
        self, pair: PairResult, asked: Meter, first: Meter, single: Record, small: Mapping[str, float]
    ) -> PairResult:
        """The pair with those rungs judged by the envelope that float64 keeps apart by no more than a rounded constant.

        Args:
          pair: as float64 has it.
          asked: what was measured in the precision that was asked for.
          first: what was measured in float32.
          single: the legacy side in float32.
          small: rung -> the largest float64 difference.
        """
        second = self._enveloped(single, first)
        opinion = self._judged(second, second, None, single, True)
        held = {rung.rung: rung for rung in opinion.rungs if rung.verdict.equal and rung.rung in small}
        if not held:
            return pair
        most = max(small[name] for name in held)
        self.session.notes.append(
            f"float64 keeps a difference of up to {most:.1e} on {', '.join(held)}, as a number leaves that one side "
            "rounds to float32; in float32 it lies inside the envelope"
        )
        return assembled(asked.pair, [held.get(rung.rung, rung) for rung in pair.rungs])

    def _explained(
        self, pair: PairResult, asked: Meter, first: Meter, double: Meter | None, both: explained.Stills
    ) -> PairResult:
        """The pair without rungs 4 and 5 where what differs there is made up for before the update; notes instead."""
        failing: dict[str, set[str]] = {}
        for name in ("loss", "gradient"):
            single, wide = first.pair.rung(name), double.pair.rung(name) if double is not None else None
            beyond = set(excess(single, wide)[0]) if wide is not None else first.beyond.get(name, set())
            failing[name] = set() if single.faults or (wide is not None and wide.faults) else beyond
        phases = self.pairing.shared_phases
        nothing = explained.deciding_nothing(pair, failing, both, phases, first.losses)
        self.session.notes[:0] = nothing.values()
        rungs = []
        for rung in pair.rungs:
            if rung.rung == "gradient" and rung.verdict.equal:
                notes = explained.gradient_notes(both, phases)
                rung = dataclasses.replace(rung, findings=(*rung.findings, *notes))
            if rung.rung not in nothing:
                rungs.append(rung)
        return assembled(asked.pair, rungs)

    def _report(
        self,
        single: Record,
        pair: PairResult,
        asked: Meter,
        rounding_by: str,
        no_float64: str,
        place: Location | None,
        parted: int | None,
    ) -> CheckReport:
        session, order, pairing, opponent = self.session, self.session.order, self.pairing, self.opponent
        if asked.skipped and not any("--sample" in each for each in session.left_out):
            session.left_out.append(f"{len(asked.skipped)} tensors")
        draws = (*single.draws, *opponent.draws)
        beyond = opponent.horizon if "forced_trajectory" in order.rungs else None
        return CheckReport(
            legacy=self.legacy.name,
            modern=factories.named(order.modern),
            legacy_kind=single.kind,
            modern_kind=opponent.kind,
            precision=order.precision,
            steps=order.steps,
            seed=order.seed,
            batches=session.batches_described(),
            pair=pair,
            rounding_by=rounding_by,
            no_float64=no_float64,
            mapping=pairing.variables,
            unmatched_legacy=pairing.unmatched_legacy,
            unmatched_modern=pairing.unmatched_modern,
            phases=pairing.phases,
            outputs=pairing.outputs,
            draws=draws,
            movements=(*single.movements, *opponent.movements),
            findings=tuple(_shared_findings(single.findings, opponent.findings)),
            unasked=(
                *(("legacy", contract) for contract in single.unasked),
                *(("modern", contract) for contract in opponent.unasked),
            ),
            location=place,
            tolerance=_tolerance(asked, pair),
            left_out=tuple(session.left_out),
            covers=coverage(order.steps, order.rungs, beyond, parted, draws, session.left_out),
            notes=tuple(dict.fromkeys([*session.notes, *single.notes, *opponent.notes])),
            curves={"legacy": _losses(single.trajectory), "modern": opponent.curves},
            seconds=session.seconds,
            versions=versions(),
            command=order.command,
        )

    def _judged(self, asked: Meter, first: Meter, double: Meter | None, single: Record, enveloped: bool) -> PairResult:
        if double is not None:
            for name in ("structure", "initialisation"):
                double.pair.rungs[name] = first.pair.rung(name)
        ran = [name for name in RUNGS[1:] if name in self.session.order.measured]
        drawn = first.pair.rung("initialisation")
        if "initialisation" in ran and not (drawn.compared or drawn.missing):
            drawn.notes.append("rung 2 was not run: a side's initialisers cannot be run again")
        for name in ("initialisation", "forward", "gradient"):
            rung = first.pair.rung(name)
            if name in ran and rung.notes and not (rung.compared or rung.missing or rung.faults):
                if self._asked_by_name(name):  # then nothing else answers for it
                    continue
                ran.remove(name)
                self.session.notes += rung.notes
        repeat = RungResult(
            rung="repeat",
            verdict=_repeat_verdict(single.repeat),
            max_abs=single.repeat.max_abs,
            max_ulp=single.repeat.max_ulp,
            first_divergence=single.repeat.first,
            compared=single.repeat.compared,
            findings=(
                f"{min(self.session.order.steps, REPEAT_STEPS)} steps of the legacy side, brought back and run again",
                *single.repeat.faults,
            ),
        )
        return judge(asked.pair, first.pair, double.pair if double else None, repeat, ran, enveloped)

    def _asked_by_name(self, rung: str) -> bool:
        """Whether a rung is one of some that were asked for, and not of all."""
        rungs = self.session.order.rungs
        return rung in rungs and len(set(rungs)) < len(RUNGS)

    def _located(
        self, pair: PairResult, looked: Sequence[tuple[Record, list[Still], bool]], constants: bool, why: str
    ) -> Location | None:
        """The node, gradient or update at which the first divergence arises.

        Args:
          pair: the verdicts.
          looked: the passes, the most precise one last, with what the modern side showed.
          constants: whether a number that one side rounds to float32 keeps them apart in float64 as well.
          why: what is known of rung 9, where it alone fails.
        """
        rung = next((each for each in pair.rungs if each.rung == pair.located), None)
        if rung is None or rung.first_divergence is None:
            return None
        first = rung.first_divergence
        record, stills, double = looked[-1]
        close = location.SINGLE if not double else CONSTANT if constants else location.DOUBLE
        resumed = rung.rung == "resume"
        trajectory = rung.rung in ("forced_trajectory", "free_trajectory") or resumed
        if resumed and first.tensor.startswith(resume.CARRIED):
            return location.of_resume(first, why, None)
        if trajectory:
            record, stills = self._looked_again(record, first.step)
        names = [each.name for each in record.variables]
        phases = self.pairing.shared_phases
        held = ", ".join(
            what
            for name, what in (("forward", "outputs"), ("loss", "losses"), ("gradient", "gradients"))
            if not trajectory and any(each.rung == name and each.verdict.equal for each in pair.rungs)
        )
        passes = [(record, stills, close)]
        if close == location.DOUBLE and first.relative > _FAR * CONSTANT:  # then no rounded number is what it is
            passes.insert(0, (record, stills, CONSTANT))
        if double and not trajectory:  # what shrinks more than a rounded constant shows in float32 alone
            passes.append((looked[0][0], looked[0][1], location.SINGLE))
        for record, stills, close in passes:
            for legacy, modern in zip(record.stills, stills, strict=False):
                if legacy.step != first.step:
                    continue
                found = None
                if trajectory or rung.rung in ("forward", "loss"):
                    inference = rung.rung == "forward" and first.tensor.startswith("inference/")
                    found = location.locate(legacy, modern, phases, close, inference)
                agree = held
                if found is None and trajectory and legacy.nodes.keys() & modern.nodes.keys() & set(phases):
                    agree = "every intermediate that leads to the loss"
                if trajectory or rung.rung == "gradient":
                    for phase in phases:
                        found = found or location.of_gradient(legacy, modern, phase, names, close, agree)
                    if found is None and all(each in still.gradients for each in phases for still in (legacy, modern)):
                        agree = f"{agree + ' and ' if agree else ''}the gradients"
                if resumed:
                    return location.of_resume(first, why, found)
                if found is None and (trajectory or rung.rung == "update"):
                    found = self._of_update(record, legacy, modern, first, close, agree)
                if found is not None:
                    return found
        return location.of_resume(first, why, None) if resumed else None

    def _of_update(
        self, record: Record, legacy: Still, modern: Still, first: Divergence, close: float, agree: str
    ) -> Location:
        pairs = {pair.legacy: pair for pair in self.pairing.phases}
        phase = first.phase if first.phase in pairs else self.pairing.shared_phases[0]
        name = first.tensor.removeprefix(f"{phase}/").removeprefix("step/")
        if len(pairs) > 1 and first.tensor.startswith("step/"):
            return location.of_step(legacy.step, name, self.pairing.shared_phases, self.pairing.order, agree)
        held = pairs[phase]
        optimizers = ", ".join(held.legacy_optimizers), ", ".join(held.modern_optimizers)
        if any(each.name == name and not each.optimizers for each in record.variables):
            optimizers = "", ""
        found = location.of_update(legacy, modern, phase, first.tensor, optimizers, close, agree)
        if any(pair.summed and pair.legacy == name for pair in self.pairing.variables):
            found = dataclasses.replace(found, text=f"{found.text} {location.SUMMED}")
        return found

    def _looked_again(self, record: Record, step: int) -> tuple[Record, list[Still]]:
        """Both sides once more at the state before a step of the trajectory, with all intermediates."""
        legacy = self.legacy.look(record, step)
        if legacy is None:
            return record, []
        with self.session.opened("modern", record.precision) as program:
            side = self.session.side(program, "modern", self.pairing.names)
            batch = self.session.batches(program)[step]
            modern = observe(side, self.session.store, record.trajectory.states[step], batch, step)
        return dataclasses.replace(record, stills=[legacy]), [modern]


def _parted(pair: PairResult, asked: Meter, parting: horizon.Parting) -> PairResult:
    """The pair with rung 7 failed by what lies beyond the last step."""
    rungs = []
    for rung in pair.rungs:
        if rung.rung == "forced_trajectory":
            apart = parting.divergence
            rung = dataclasses.replace(
                rung,
                verdict=Verdict.DIFFERENT,
                first_divergence=apart,
                max_abs=max(rung.max_abs or 0.0, apart.absolute),
                max_ulp=max(rung.max_ulp or 0, apart.ulp),
                float32_relative=max(rung.float32_relative or 0.0, apart.relative),
                findings=(parting.text, *rung.findings),
            )
        rungs.append(rung)
    return assembled(asked.pair, rungs)


def alone(session: Session) -> CheckReport:
    """The contracts of the modern side by itself."""
    began = time.perf_counter()
    with session.timed("modern float32"), session.opened("modern", session.order.precision) as program:
        side = session.side(program, "modern")
        side.role = "legacy"  # its names are its own
        batches = session.batches(program)
        initial = session.store.keep(side.state().arrays)
        finite(initial, "modern")
        warm = min(WARM_STEPS, session.order.steps)
        first = observe(side, session.store, initial, batches[0], 0, twice=True)
        with session.bar("modern", session.order.steps) as tick:
            trajectory = run(side, session.store, initial, batches, session.order.steps, lambda n: n == warm, tick)
        second = observe(side, session.store, trajectory.states[warm], batches[warm], warm)
        findings, movements, unasked = contracts_of(session, side, [first, second], initial)
        session.notes += [
            losses.told(*key, factor)
            for key, factor in losses.multiples([first, second], side.phases, program.precision).items()
            if factor != 1.0
        ]
        if first.unstable:
            session.notes.append(
                f"two runs from one state differ in {', '.join(sorted(first.unstable)[:3])}: random numbers that "
                "cannot be fed"
            )
        report = CheckReport(
            legacy="",
            modern=factories.named(session.order.modern),
            legacy_kind="",
            modern_kind=program.kind,
            precision=session.order.precision,
            steps=session.order.steps,
            seed=session.order.seed,
            batches=session.batches_described(),
            draws=draw_rows("modern", program),
            movements=tuple(dataclasses.replace(each, side="modern") for each in movements),
            findings=tuple(dataclasses.replace(each, side="modern") for each in findings),
            unasked=tuple(("modern", contract) for contract in unasked),
            notes=tuple(dict.fromkeys([*session.notes, *program.notes()])),
            curves={"modern": _losses(trajectory)},
            versions=versions(),
            command=session.order.command,
        )
    session.seconds["total"] = round(time.perf_counter() - began, 2)
    return dataclasses.replace(report, seconds=session.seconds)


def _repeat_verdict(repeat: RungMeasurement) -> Verdict:
    if not repeat.compared:
        return Verdict.NOT_COMPARABLE
    return Verdict.IDENTICAL if repeat.same_bits and not repeat.faults else Verdict.DIFFERENT


_FAR = 1024
"""How many times more than a number's rounding to float32 a difference is that such a number is not looked for in."""
GROWTH = 16
"""How many times larger than the difference of two numbers that round differently in the loss an update may show it."""


def _constants_alone(pair: PairResult, first: Meter, double: Meter, complement: float = 1.0) -> dict[str, float]:
    """Rung -> its largest float64 difference, for failing rungs that a number's rounding to float32 would explain.

    A free trajectory shows what the others let through, grown, from the start or from its middle: it is one of them
    where all that fail below it are. What clipping and Adam's division make of such a number in the loss is larger than
    it is there.

    Args:
      pair: the verdicts.
      first: what was measured in float32.
      double: what was measured in float64.
      complement: how much larger such a number's rounding is in what an update makes of it.
    """
    found: dict[str, float] = {}
    before = [*double.pair.rung("forward").relative.values(), *double.pair.rung("loss").relative.values()]
    grows = max(double.pair.rung("loss").relative.values(), default=0.0) > FLOOR and max(before) <= CONSTANT
    for rung in pair.rungs:
        if rung.verdict.equal:
            continue
        name = rung.rung
        if name not in RUNGS[FIRST_NUMERICAL:] or rung.verdict is not Verdict.DIFFERENT:
            continue
        one, other = first.pair.rung(name), double.pair.rung(name)
        figures = [
            max(other.relative[tensor], double.moves.get((name, tensor), 0.0)) for tensor in excess(one, other)[0]
        ]
        most = CONSTANT * (1 if name in ("forward", "loss") else max(complement, GROWTH if grows else 1))
        below = [each.rung for each in pair.rungs if not each.verdict.equal and each.rung in RUNGS[FIRST_NUMERICAL:-2]]
        grown = name in RUNGS[-2:] and all(each in found for each in below)
        if not one.faults and not other.faults and (grown or max(figures, default=0.0) <= most):
            found[name] = max(figures, default=0.0)
    return found


_EXACT = ("Cast", "OneHot", "Identity", "Reshape", "ExpandDims", "Squeeze", "Pack", "ConcatV2", "GatherV2", "Transpose")
"""Ops that round no whole number."""


def _wholly_double(stills: Sequence[Still], role: str) -> None:
    """Raises NoSuchPrecision where a side that was built in float64 computes something in less.

    Labels, masks and counts that are float32 for a while are whole numbers, and lose nothing by it.
    """
    for still in stills:
        for nodes in still.nodes.values():
            by_name = {node.name: node for node in nodes}
            for node in nodes:
                dtype = np.dtype(node.place.dtype)
                if dtype.kind != "f" or dtype.itemsize == 8:
                    continue
                sources = [by_name[name].value for name in node.inputs if name in by_name]
                if node.kind not in _EXACT or not all(map(_whole, [node.value, *sources])):
                    raise NoSuchPrecision(f"the {role} side computes {node.name} ({node.kind}) in {dtype}")


def _whole(value: np.ndarray[Any, Any]) -> bool:
    """Whether float32 holds every number exactly as the whole number that it is."""
    return value.dtype.kind in "iub" or bool((np.abs(value) <= 2**24).all() and (value == np.rint(value)).all())


def _shared_findings(legacy: Sequence[Finding], modern: Sequence[Finding]) -> list[Finding]:
    """All findings; those that the legacy side breaks too do not fail, nor do the legacy side's own."""
    broken = {(each.contract, each.phase) for each in legacy}
    found = [dataclasses.replace(each, side="legacy", fails=False) for each in legacy]
    for each in modern:
        shared = (each.contract, each.phase) in broken
        text = each.text + (" The legacy side does the same." if shared else "")
        found.append(dataclasses.replace(each, text=text, fails=each.fails and not shared))
    return found


def _losses(trajectory: Trajectory) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for reports in trajectory.reports:
        for name, value in reports.items():
            if name.endswith("/loss"):
                found.setdefault(name.removesuffix("/loss"), []).append(value)
    return found


def _tolerance(meter: Meter, pair: PairResult) -> float | None:
    judged = {rung.rung for rung in pair.rungs}
    largest = max((relative for (rung, *_), relative in meter.largest.items() if rung in judged), default=0.0)
    return float(largest) if np.isfinite(largest) else None
