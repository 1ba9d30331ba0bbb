"""A whole check: the legacy side is recorded, then the modern side is held against the record."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfport.checking import contracts, factories, location, mapping_file, matching
from tfport.checking.batches import BatchSource, made_up
from tfport.checking.factories import NoSuchPrecision
from tfport.checking.measure import CONSTANT, Envelope, Meter, compare_reports, compare_stills, paired
from tfport.checking.observe import (
    KeptNode,
    Still,
    Trajectory,
    disturbed,
    keep_nodes,
    observe,
    probe_state,
    run,
)
from tfport.checking.report import CheckReport, DrawRow, Finding, Location, MappedVariable, Movement, PhasePair
from tfport.checking.sides import UNPAIRED, Names, Side
from tfport.checking.store import Kept, Store
from tfport.equivalence.initialisation import BUILDS, compare_initialisation
from tfport.equivalence.measurement import PairMeasurement, RungMeasurement
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, PairResult, RungResult, Verdict
from tfport.equivalence.structure import compare_structure
from tfport.equivalence.verdicts import excess, judge, needs_float64, tolerances
from tfport.errors import UserError, whole
from tfport.program import Program
from tfport.state import State
from tfport.subject import OptimizerInfo, VariableInfo
from tfport.versions import versions

Array = np.ndarray[Any, Any]

DEFAULT_STEPS = 20
WARM_STEPS = 10
"""The second state that is looked at is the legacy side's after so many steps, or after all where there are fewer."""
REPEAT_STEPS = 10
DISTURBANCES = 3
"""Runs of the legacy side that span the envelope."""
BUDGET = 2 << 30
"""Bytes of states that a check keeps on disk where --sample says nothing; beyond it steps are left out, and told."""
DRAWN = 100_000
"""Elements of a variable whose initial values are compared as draws."""


@dataclasses.dataclass(frozen=True)
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
            if name not in ("steps", "tensors") or not number.isdigit() or int(number) < 1 or name in found:
                raise UserError(f"--sample={text}: expected steps:N, tensors:N or both, as in steps:5,tensors:20.")
            found[name] = int(number)
        return Sample(**found)


@dataclasses.dataclass(frozen=True)
class Order:
    """What to check, and how."""

    legacy: Any
    modern: Any
    batches: Any = None
    steps: int = DEFAULT_STEPS
    precision: str = "float32"
    seed: int = 0
    mapping: Path | None = None
    write_mapping: Path | None = None
    sample: Sample = Sample()
    rungs: tuple[str, ...] = RUNGS
    names: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Inputs, outputs, losses and train_ops of a legacy TF1 graph, where they must be named."""
    isolated: bool | None = None
    """Whether sides live in processes of their own; None: those that are given as text do."""
    progress: bool = False
    command: str = ""

    def check(self) -> Order:
        """The order, when it can be carried out.

        Raises:
          UserError: a number out of range, an unknown precision, or no modern side.
        """
        if self.modern is None:
            raise UserError("there is nothing to check: give --modern, and --legacy to hold it against.")
        if self.precision not in ("float32", "float64"):
            raise UserError(f"--precision={self.precision} is neither float32 nor float64.")
        whole("steps", self.steps, 1, 40_000)
        whole("seed", self.seed, 0, 2**31 - 1)
        return self


@dataclasses.dataclass
class Record:
    """What is kept of the legacy side in one precision."""

    precision: str
    kind: str
    variables: tuple[VariableInfo, ...]
    optimizers: tuple[OptimizerInfo, ...]
    phases: tuple[str, ...]
    phase_optimizers: dict[str, tuple[str, ...]]
    initial: Kept
    stills: list[Still]
    trajectory: Trajectory
    repeat: RungMeasurement
    draws: tuple[DrawRow, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: tuple[Any, ...] = ()
    probe: Kept | None = None
    probe_nodes: list[KeptNode] = dataclasses.field(default_factory=list)
    probe_outputs: Kept | None = None
    initialised: dict[str, Array] | None = None
    findings: list[Finding] = dataclasses.field(default_factory=list)
    movements: list[Movement] = dataclasses.field(default_factory=list)
    forced: tuple[int, ...] = ()


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


def check(
    legacy: Any,
    modern: Any = None,
    batches: Any = None,
    *,
    steps: int = DEFAULT_STEPS,
    precision: str = "float32",
    seed: int = 0,
    mapping: str | Path | None = None,
    write_mapping: str | Path | None = None,
    sample: str | Sample | None = None,
    rungs: Sequence[str] = RUNGS,
    names: Mapping[str, Any] | None = None,
    isolated: bool | None = None,
    progress: bool = False,
    command: str = "",
) -> CheckReport:
    """Holds a port against its original, or one program against its own contracts.

    Args:
      legacy: the original: a factory, `module:factory`, a `.meta` file, a SavedModel's folder, or a Program; None to
        check the modern side alone.
      modern: the port, given alike.
      batches: a batch (a mapping of input names to arrays), a sequence of them, a function of the step, or
        `module:function`; None makes standard normal ones up where every input is floating.
      steps: how long the trajectories are.
      precision: "float32" or "float64": of what is shown; rounding is shown by the other one too.
      seed: of draws, of made-up batches and of what the factories' own initialisers draw.
      mapping: a file that settles pairs of variables.
      write_mapping: where to write the mapping that was found.
      sample: bounds such as "steps:5,tensors:20".
      rungs: the rungs that are asked for, by name.
      names: `inputs`, `outputs`, `losses`, `train_ops` of a legacy TF1 graph where they must be named.
      isolated: whether each side lives in a process of its own; by default those that are given as text.
      progress: whether to show a bar on standard error.
      command: what repeats the check, for the report.

    Returns:
      The report; `report.equal` is the answer.

    Raises:
      UserError: something given cannot be used; the message names it and the remedy.
    """
    if isinstance(sample, str):
        sample = Sample.parse(sample)
    order = Order(
        legacy,
        modern,
        batches,
        steps,
        precision,
        seed,
        Path(mapping) if mapping else None,
        Path(write_mapping) if write_mapping else None,
        sample or Sample(),
        tuple(rungs),
        names or {},
        isolated,
        progress,
        command,
    ).check()
    with Store() as store:
        whole_check = _Check(order, store)
        return whole_check.alone() if order.legacy is None else whole_check.run()


class _Check:
    """One check while it runs."""

    def __init__(self, order: Order, store: Store) -> None:
        self.order, self.store = order, store
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.left_out: list[str] = []
        self.names = Names()
        self.outputs: tuple[tuple[str, str], ...] = ()
        self.mapping: list[MappedVariable] = []
        self.unmatched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.phases: tuple[str, ...] = ()
        self.phase_pairs: tuple[PhasePair, ...] = ()
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.modern_info: dict[str, Any] = {}
        self.sampled: set[str] | None = None
        self.skipped: set[str] = set()
        self._batches: BatchSource | None = None
        self._bar: Any = None

    # --- Opening sides ------------------------------------------------------------------------------------------------
    @contextmanager
    def opened(self, role: str, precision: str, seed: int | None = None) -> Iterator[Program]:
        """One side, built for the block; a Program that the user gave is put back as it was."""
        given = self.order.legacy if role == "legacy" else self.order.modern
        names = self.order.names if role == "legacy" else {}
        seed = self.order.seed if seed is None else seed
        own = isinstance(given, Program)
        isolated = self.order.isolated if self.order.isolated is not None else isinstance(given, str)
        if isolated and not own:
            from tfport.checking.remote import RemoteProgram

            program: Program = RemoteProgram(given, role, precision, seed, names)
            program.draws.seed = self.order.seed
            try:
                yield program
            finally:
                program.close()
            return
        with factories.Floatx(precision):
            program = factories.build(given, role, precision, seed, names)
            program.draws.seed = self.order.seed
            before = {name: np.array(array) for name, array in program.state().arrays.items()} if own else {}
            try:
                yield program
            finally:
                if own:
                    program.load(State("", before))
                else:
                    program.close()

    def batches(self, program: Program) -> BatchSource:
        """The batches; found once."""
        if self._batches is None:
            given = self.order.batches
            if given is None:
                self._batches = made_up(program.inputs(), self.order.seed)
                self.notes.append("no batches were given: standard normal ones were made up")
            elif isinstance(given, str):
                self._batches = BatchSource(factories.find(given, "batches"), given)
            else:
                self._batches = given if isinstance(given, BatchSource) else BatchSource(given)
        return self._batches

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the block's seconds to the report's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + time.perf_counter() - began, 2)

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar, or nothing."""
        if not self.order.progress:
            yield lambda: None
            return
        slow = 0.2 if sys.stderr.isatty() else 10.0
        with tqdm(total=total, desc=text, unit="step", dynamic_ncols=True, mininterval=slow) as bar:
            yield lambda: bar.update() and None

    # --- Recording the legacy side ------------------------------------------------------------------------------------
    def record(self, precision: str, earlier: Record | None = None) -> Record:
        """Everything that is asked of the legacy side, in one precision.

        Args:
          precision: of the side.
          earlier: the float32 record, whose states a float64 one is looked at in.
        """
        order = self.order
        with self.timed(f"legacy {precision}"), self.opened("legacy", precision) as program:
            side = Side(program, "legacy")
            batches = self.batches(program)
            side.feed(batches[0])
            initial = self.store.keep(side.state().arrays if earlier is None else widened(earlier.initial))
            if earlier is None:
                _finite(initial, "legacy")
                self.sampled = self._sample(side)
                self.forced_steps = self._forced_steps(initial)
            forced = self.forced_steps
            optimizers = side.optimizers()  # now: a rate that decays is compared at the first step
            warm = min(WARM_STEPS, order.steps)
            kept = {step for each in forced for step in (each, each + 1)} | {0, warm, order.steps}
            if order.sample.steps is None and len(forced) == order.steps:
                kept = set(range(order.steps + 1))
            first = observe(side, self.store, initial, batches[0], 0, twice=earlier is None)
            with self.bar(f"legacy {precision}", order.steps) as tick:
                trajectory = run(side, self.store, initial, batches, order.steps, lambda step: step in kept, tick)
            start = trajectory.states[warm] if earlier is None else widened(earlier.stills[1].state)
            second = observe(side, self.store, start, batches[warm], warm)
            repeat = self._repeat(side, initial, batches, trajectory, first)
            record = Record(
                precision,
                program.kind,
                side.variables(),
                optimizers,
                side.phases,
                dict(program.phase_optimizers()),
                initial,
                [first, second],
                trajectory,
                repeat,
                _draw_rows("legacy", program),
                program.notes(),
                program.inputs(),
                forced=forced,
            )
            if earlier is None:
                names = [each.name for each in record.variables]
                record.probe = self.store.keep(probe_state(initial, names, order.seed))
                side.load(record.probe)
                side.at(0)
                record.probe_outputs = self.store.keep(side.forward(batches[0], False))
                record.probe_nodes = self.all_nodes(side, batches)
                record.initialised = self._initialised(side, "legacy")
                self._contracts(side, record.stills, batches, record.findings, record.movements, initial)
            return record

    def all_nodes(self, side: Side, batches: BatchSource, own: bool = False) -> list[KeptNode]:
        """Intermediates of outputs and of every phase at the present state, names made unique by phase."""
        found = keep_nodes(self.store, self._nodes(side, batches, None, own))
        for phase in side.phases:
            nodes = keep_nodes(self.store, self._nodes(side, batches, phase, own))
            names = {node.name for node in nodes}
            found += [
                dataclasses.replace(
                    node,
                    name=f"{phase}: {node.name}",
                    inputs=tuple(f"{phase}: {name}" if name in names else name for name in node.inputs),
                )
                for node in nodes
            ]
        return found

    def _nodes(self, side: Side, batches: BatchSource, phase: str | None, own: bool) -> Sequence[Any]:
        if not own:
            return side.nodes(batches[0], phase=phase)
        return side.program.nodes(side.feed(batches[0]), False, side.own_phase(phase) if phase else None)

    def _sample(self, side: Side) -> set[str] | None:
        """The state and gradient names that --sample keeps; None where it keeps all."""
        most = self.order.sample.tensors
        variables = [each.name for each in side.own_variables]
        if most is None or most >= len(variables):
            return None
        places = np.linspace(0, len(variables) - 1, most).round().astype(int)
        chosen = {variables[place] for place in places}
        self.left_out.append(
            f"{len(variables) - len(chosen)} of {len(variables)} variables, with their slots and gradients (--sample)"
        )
        names = set(side.state().arrays)
        slots = {
            name
            for name in names
            if name.startswith("optimizer/") and (len(name.split("/", 3)) < 4 or name.split("/", 3)[3] in chosen)
        }
        return chosen | slots

    def _forced_steps(self, initial: Kept) -> tuple[int, ...]:
        """The steps at which states are forced and compared."""
        steps, asked = self.order.steps, self.order.sample.steps
        size = sum(array.nbytes for array in initial.values())
        affordable = max(2, int(BUDGET // max(size, 1)) // 2)
        most = min(asked or steps, steps)
        if asked is None and affordable < steps:
            most = affordable
        if most >= steps:
            return tuple(range(steps))
        chosen = tuple(sorted({int(each) for each in np.linspace(0, steps - 1, most).round()}))
        why = (
            "--sample"
            if asked
            else f"their states would take more than {BUDGET >> 30} GB; --sample=steps:N asks for more"
        )
        self.left_out.append(f"the states of {steps - len(chosen)} of {steps} steps ({why})")
        return chosen

    def _repeat(
        self, side: Side, initial: Kept, batches: BatchSource, trajectory: Trajectory, first: Still
    ) -> RungMeasurement:
        """Rung 0: brought back to where it began, the side does the same again."""
        rung = RungMeasurement("repeat")
        steps = min(self.order.steps, REPEAT_STEPS)
        side.load(initial)
        for step in range(steps):
            side.at(step)
            reports = side.step(batches[step])
            for name, value in trajectory.reports[step].items():
                rung.add(name, value, reports[name], step, name.rpartition("/")[0], {}, side.program.precision)
        if steps in trajectory.states:
            rung.add_all(trajectory.states[steps], side.state().arrays, steps - 1, None, {})
        if first.unstable:
            rung.fault(f"two runs from one state differ in {', '.join(sorted(first.unstable)[:3])}")
        return rung

    def _initialised(self, side: Side, role: str) -> dict[str, Array] | None:
        """Rung 2: what the side's own initialisers draw, under shared names; None where they cannot be run again."""
        if "initialisation" not in self.order.rungs:
            return None
        given = self.order.legacy if role == "legacy" else self.order.modern
        pooled: dict[str, list[Array]] = {}
        names = {name for name in side.state().arrays if not name.endswith("/iterations")}
        for build in range(BUILDS):
            if callable(given) or (isinstance(given, str) and not factories.is_file(given)):
                with self.opened(role, side.program.precision, 1_000 + build) as fresh:
                    other = Side(fresh, role, side.names)
                    arrays = other.state().arrays
                    for name in arrays:
                        if name in names:
                            pooled.setdefault(name, []).append(np.array(arrays[name]).reshape(-1)[:DRAWN])
                continue
            try:
                side.program.initialise(1_000 + build)
            except NotImplementedError:
                return None
            arrays = side.state().arrays
            for name in arrays:
                if name in names:
                    pooled.setdefault(name, []).append(np.array(arrays[name]).reshape(-1)[:DRAWN])
        return {name: np.concatenate(parts) for name, parts in pooled.items()}

    def _contracts(
        self,
        side: Side,
        stills: Sequence[Still],
        batches: BatchSource,
        findings: list[Finding],
        movements: list[Movement],
        initial: Mapping[str, Array],
    ) -> None:
        variables = side.variables()
        drawn = {}
        for phase in side.phases:
            side.load(initial)
            drawn[phase] = [side.drawn(phase, batches[step]) for step in range(2)]
        batch = side.feed(batches[stills[-1].step])
        findings += contracts.findings(side.role, stills, variables, side.phases, batch, drawn)
        movements += contracts.movements(side.role, stills[-1], variables, side.phases)

    # --- The modern side ----------------------------------------------------------------------------------------------
    def match(self, record: Record, side: Side, batches: BatchSource) -> None:
        """Finds phases, variables, optimizers and outputs of the modern side; sets its names."""
        order = self.order
        legacy, modern = record.variables, side.own_variables
        phases, self.phase_pairs = self._match_phases(record, side)
        side.rename(Names(phases=phases))
        fixed = mapping_file.read(order.mapping, legacy, modern) if order.mapping else []
        held = {pair.legacy for pair in fixed}, {pair.modern for pair in fixed}
        guess = fixed + matching.first_guess(
            [each for each in legacy if each.name not in held[0]],
            [each for each in modern if each.name not in held[1]],
        )
        present = {name: np.array(array) for name, array in side.program.state().arrays.items()}

        def trial(mapping: Sequence[MappedVariable]) -> Sequence[KeptNode]:
            assert record.probe is not None
            side.program.load(State("", present))
            side.rename(Names({pair.modern: pair for pair in mapping}, phases=phases))
            probe = record.probe
            side.load({name: probe[name] for name in probe if not name.startswith("optimizer/")})
            side.at(0)
            return self.all_nodes(side, batches, own=True)

        self.mapping, notes = matching.settle(guess, legacy, modern, record.probe_nodes, trial, held[1])
        self.notes += notes
        variables = {pair.modern: pair for pair in self.mapping}
        left = {pair.legacy for pair in self.mapping}
        self.unmatched = (
            tuple(each.name for each in legacy if each.name not in left),
            tuple(each.name for each in modern if each.name not in variables),
        )
        trial(self.mapping)
        optimizers = self._match_optimizers(record, side, variables)
        side.rename(Names(variables, optimizers, phases))
        self._match_outputs(record, side, batches)
        side.program.load(State("", present))
        if order.write_mapping:
            mapping_file.write(order.write_mapping, self.mapping, *self.unmatched)

    def _match_phases(self, record: Record, side: Side) -> tuple[dict[str, str], tuple[PhasePair, ...]]:
        own = side.program.phases
        if set(own) == set(record.phases):
            pairs = {phase: phase for phase in record.phases}
        else:
            pairs = dict(zip(record.phases, own, strict=False))
            if pairs and len(own) == len(record.phases):
                told = ", ".join(f"{one} is {other}" for one, other in pairs.items() if one != other)
                self.notes.append(f"phases were paired in their order: {told}")
        held = side.program.phase_optimizers()
        self.phases = tuple(pairs)
        shown = tuple(
            PhasePair(one, other, record.phase_optimizers.get(one, ()), held.get(other, ()))
            for one, other in pairs.items()
        )
        return pairs, shown

    def _match_optimizers(self, record: Record, side: Side, pairs: Mapping[str, MappedVariable]) -> dict[str, str]:
        """Own optimizer -> shared: by the phase that applies it, else by what it holds, else by order."""
        held = side.program.phase_optimizers()
        found: dict[str, str] = {}
        for pair in self.phase_pairs:
            mine, theirs = held.get(pair.modern, ()), record.phase_optimizers.get(pair.legacy, ())
            for own, shared in zip(mine, theirs, strict=False):
                if shared not in found.values():
                    found.setdefault(own, shared)
        free = [each.name for each in record.optimizers if each.name not in found.values()]
        for own in side.own_optimizers:
            if own in found or not free:
                continue
            holds = {
                pairs[each.name].legacy for each in side.own_variables if own in each.optimizers and each.name in pairs
            }
            overlap = {
                name: len(holds & {each.name for each in record.variables if name in each.optimizers}) for name in free
            }
            best = max(free, key=lambda name: overlap[name])
            found[own] = best
            free.remove(best)
        return found

    def _match_outputs(self, record: Record, side: Side, batches: BatchSource) -> None:
        """Pairs outputs by value at the probe state, then by name, then where there is one on each side."""
        assert record.probe is not None and record.probe_outputs is not None
        left, right = dict(record.probe_outputs), side.forward(batches[0], False)
        nodes = [each for each in record.probe_nodes if not any(each.name.startswith(f"{p}: ") for p in record.phases)]
        pairs: list[tuple[str, str]] = []
        for other, value in right.items():
            array = np.asarray(value)
            close = [name for name, kept in left.items() if matching_values(kept, array)]
            close += [node.name for node in nodes if node.name not in left and matching_values(node.value, array)]
            if close:
                pairs.append((other if other in close else close[0], other))
            elif other in left:
                pairs.append((other, other))
        free_left = [name for name in left if name not in (one for one, _ in pairs)]
        free_right = [name for name in right if name not in (other for _, other in pairs)]
        for other in free_right:
            alike = [name for name in free_left if np.size(left[name]) == np.size(right[other])]
            if alike:
                pairs.append((alike[-1], other))
                free_left.remove(alike[-1])
            else:
                self.notes.append(f"output {other} of the modern side has no partner: nothing of its size is an output")
        self.outputs = tuple(pairs)

    def held_against(
        self,
        record: Record,
        precision: str,
        by_tensor: Mapping[str, Mapping[str, float]] | None = None,
        envelope: Envelope | None = None,
        least: Mapping[Any, float] | None = None,
    ) -> tuple[Meter, list[Still]]:
        """One pass of the modern side, in one precision, against the record in that precision."""
        first_time = not self.modern_info
        pair = PairMeasurement("legacy", "modern")
        meter = Meter(pair, precision, by_tensor or {}, envelope, least or {}, sampled=self.sampled)
        meter.unstable = set(record.stills[0].unstable)
        with self.timed(f"modern {precision}"), self.opened("modern", precision) as program:
            side = Side(program, "modern")
            batches = self.batches(program)
            side.feed(batches[0])
            if first_time:
                _finite(side.state().arrays, "modern")
                own = {name: np.array(array) for name, array in program.state().arrays.items()}
                with self.timed("matching variables"):
                    self.match(record, side, batches)
                self.names = side.names
            else:
                side.rename(self.names)
            self._structure(meter, record, side)
            owners = _owners(record)
            stills = []
            for still in record.stills:
                mine = observe(side, self.store, still.state, batches[still.step], still.step, twice=still.step == 0)
                meter.unstable |= mine.unstable
                compare_stills(meter, still, mine, self.phases, self.outputs, owners)
                stills.append(mine)
            self._trajectories(meter, record, side, batches, owners)
            self.skipped |= meter.skipped
            if first_time:
                findings: list[Finding] = []
                movements: list[Movement] = []
                self._contracts(side, stills, batches, findings, movements, record.initial)
                program.load(State("", own))
                self.modern_info = {
                    "kind": program.kind,
                    "draws": _draw_rows("modern", program),
                    "notes": program.notes(),
                    "findings": findings,
                    "movements": movements,
                    "initialised": self._initialised(side, "modern"),
                }
            self._initialisation(meter, record)
        return meter, stills

    def _structure(self, meter: Meter, record: Record, side: Side) -> None:
        rung = meter.pair.rung("structure")
        left, right, notes = _alike_hyperparameters(record.optimizers, side.optimizers())
        rung.notes += notes
        missing = set(self.unmatched[0])
        mine = side.state().arrays
        compare_structure(
            rung,
            _Facade(record.phases, _trainable(record.variables), left, _without(record.initial, missing)),  # type: ignore[arg-type]
            _Facade(
                tuple(
                    {own: shared for shared, own in self.names.phases.items()}.get(own, own)
                    for own in side.program.phases
                ),
                side.variables(),
                right,
                {name: mine[name] for name in mine if paired(name)},
            ),  # type: ignore[arg-type]
        )

    def _initialisation(self, meter: Meter, record: Record) -> None:
        rung = meter.pair.rung("initialisation")
        mine, theirs = self.modern_info["initialised"], record.initialised
        if mine is None or theirs is None:
            return
        known = [name for name in theirs if name in mine]
        compare_initialisation(rung, {name: theirs[name] for name in known}, {name: mine[name] for name in known})

    def _trajectories(
        self, meter: Meter, record: Record, side: Side, batches: BatchSource, owners: Mapping[str, str]
    ) -> None:
        states, reports = record.trajectory.states, record.trajectory.reports
        with self.bar(f"modern {side.program.precision}", len(record.forced) + self.order.steps) as tick:
            if "forced_trajectory" in self.order.rungs:
                for step in record.forced:
                    side.load(states[step])
                    side.at(step)
                    compare_reports(meter, "forced_trajectory", reports[step], side.step(batches[step]), step, None)
                    after = side.state().arrays
                    rung, before = "forced_trajectory", states[step]
                    meter.add_all(rung, states[step + 1], after, step, "step", "", owners, before)
                    tick()
            if "free_trajectory" in self.order.rungs:
                side.load(record.initial)
                curves: dict[str, list[float]] = {}
                for step in range(self.order.steps):
                    side.at(step)
                    mine = side.step(batches[step])
                    for name, value in mine.items():
                        if name.endswith("/loss"):
                            curves.setdefault(name.removesuffix("/loss"), []).append(value)
                    compare_reports(meter, "free_trajectory", reports[step], mine, step, None)
                    if step + 1 in states:
                        after = side.state().arrays
                        meter.add_all("free_trajectory", states[step + 1], after, step, "step", "", owners)
                    tick()
                self.curves.setdefault("modern", curves)

    # --- The envelope -------------------------------------------------------------------------------------------------
    def envelope(self, record: Record, first: Meter) -> Envelope:
        """How far the legacy side goes when its state, and its batch, is disturbed by one unit in the last place.

        The free trajectory is disturbed after every step, by what the modern side's own steps were apart.

        Args:
          record: the legacy side in float32.
          first: what the modern side's first pass measured.
        """
        found = Envelope()
        _complement(found, record, self.phases)
        order = self.order
        work = DISTURBANCES * (len(record.forced) + order.steps)
        with (
            self.timed("envelope"),
            self.opened("legacy", "float32") as program,
            self.bar("envelope", work) as tick,
        ):
            side = Side(program, "legacy")
            batches = self.batches(program)
            for number in range(1, DISTURBANCES + 1):
                for still in record.stills:
                    batch = dict(disturbed(batches[still.step], number))
                    state = disturbed(still.state, number)
                    mine = observe(side, self.store, state, batch, still.step)
                    _widen_stills(found, still, mine, self.phases, self.outputs)
                states, reports = record.trajectory.states, record.trajectory.reports
                for step in record.forced:
                    side.load(disturbed(states[step], number))
                    side.at(step)
                    mine_reports = side.step(dict(disturbed(batches[step], number)))
                    _widen(found, "forced_trajectory", step, reports[step], mine_reports)
                    _widen(found, "forced_trajectory", step, states[step + 1], side.state().arrays)
                    tick()
                side.load(disturbed(record.initial, number))
                for step in range(order.steps):
                    side.at(step)
                    _widen(found, "free_trajectory", step, reports[step], side.step(batches[step]))
                    present = side.state().arrays
                    if step + 1 in states:
                        _widen(found, "free_trajectory", step, states[step + 1], present)
                    # From here on as far as one step of the modern side was seen to go, and may go, by rounding.
                    side.load(disturbed(present, number * order.steps + step, _steps_apart(found, first, step)))
                    tick()
        for rung, name, step in [key for key in found.spans if key[0] == "forced_trajectory"]:
            free = "free_trajectory", name, step  # its last step is one of those
            found.extra[free] = found.allows((rung, name, step))
        return found

    # --- The whole ----------------------------------------------------------------------------------------------------
    def run(self) -> CheckReport:
        """Both sides, in as many precisions as it takes."""
        began = time.perf_counter()
        single = self.record("float32")
        first, stills = self.held_against(single, "float32")
        asked, double, rounding_by, enveloped = first, None, "", False
        looked = [(single, stills, False)]
        wanted = self.order.precision == "float64"
        if needs_float64(first.pair) or wanted:
            try:
                wide = self.record("float64", single)
                allowed = tolerances(first.pair)
                _wholly_double(wide.stills, "legacy")
                double, wide_stills = self.held_against(wide, "float64", allowed, least=first.scales)
                _wholly_double(wide_stills, "modern")
                looked.append((wide, wide_stills, True))
                rounding_by = "float64"
                asked = double if wanted else first
            except NoSuchPrecision as reason:
                if wanted:
                    raise UserError(
                        f"--precision=float64 cannot be had: {reason}. Let both factories take dtype, or ask for "
                        "float32."
                    ) from None
                self.notes.append(f"float64 could not be had ({reason}), so rounding is shown by the envelope")
                double = None
                asked = first = self.held_against(single, "float32", envelope=self.envelope(single, first))[0]
                rounding_by, enveloped = "envelope", True
        pair = self._judged(asked, first, double, single, enveloped)
        if double is not None and not pair.verdict.equal and _rounded_constants(pair, first, double):
            second = self.held_against(single, "float32", envelope=self.envelope(single, first))[0]
            opinion = self._judged(second, second, None, single, True)
            if opinion.verdict.equal:
                most = max(_excess_figures(first, double), default=0.0)
                self.notes.append(
                    f"float64 keeps a difference of up to {most:.1e}, as a number leaves that one side rounds to float32; in "
                    "float32 it lies inside the envelope"
                )
                pair, asked, rounding_by = opinion, second, "envelope"
        if pair.verdict is Verdict.IDENTICAL:
            rounding_by = ""
        place = None if pair.verdict.equal else self._located(pair, looked)
        findings = _shared_findings(single.findings, self.modern_info["findings"])
        self.curves["legacy"] = _losses(single.trajectory)
        self.seconds["total"] = round(time.perf_counter() - began, 2)
        if self.skipped and not any("--sample" in each for each in self.left_out):
            self.left_out.append(f"{len(self.skipped)} tensors")
        return CheckReport(
            legacy=factories.named(self.order.legacy),
            modern=factories.named(self.order.modern),
            legacy_kind=single.kind,
            modern_kind=self.modern_info["kind"],
            precision=self.order.precision,
            steps=self.order.steps,
            seed=self.order.seed,
            batches=self._batches_described(),
            pair=pair,
            rounding_by=rounding_by,
            mapping=tuple(self.mapping),
            unmatched_legacy=self.unmatched[0],
            unmatched_modern=self.unmatched[1],
            phases=self.phase_pairs,
            outputs=self.outputs,
            draws=(*single.draws, *self.modern_info["draws"]),
            movements=(*single.movements, *self.modern_info["movements"]),
            findings=tuple(findings),
            location=place,
            tolerance=_tolerance(asked),
            left_out=tuple(self.left_out),
            notes=tuple(dict.fromkeys([*self.notes, *single.notes, *self.modern_info["notes"]])),
            curves={side: self.curves[side] for side in ("legacy", "modern") if side in self.curves},
            seconds=self.seconds,
            versions=versions(),
            command=self.order.command,
        )

    def _judged(self, asked: Meter, first: Meter, double: Meter | None, single: Record, enveloped: bool) -> PairResult:
        if double is not None:
            for name in ("structure", "initialisation"):
                double.pair.rungs[name] = first.pair.rung(name)
        ran = [name for name in RUNGS[1:] if name in self.order.rungs]
        if not first.pair.rung("initialisation").compared and "initialisation" in ran:
            ran.remove("initialisation")
            self.notes.append("rung 2 was not run: a side's initialisers cannot be run again")
        for name in ("gradient",):
            if name in ran and not first.pair.rung(name).compared and first.pair.rung(name).notes:
                ran.remove(name)
                self.notes += first.pair.rung(name).notes
        repeat = RungResult(
            rung="repeat",
            verdict=Verdict.IDENTICAL if single.repeat.same_bits and not single.repeat.faults else Verdict.DIFFERENT,
            max_abs=single.repeat.max_abs,
            max_ulp=single.repeat.max_ulp,
            first_divergence=single.repeat.first,
            compared=single.repeat.compared,
            findings=(
                f"{min(self.order.steps, REPEAT_STEPS)} steps of the legacy side, brought back and run again",
                *single.repeat.faults,
            ),
        )
        return judge(asked.pair, first.pair, double.pair if double else None, repeat, ran, enveloped)

    def _located(self, pair: PairResult, looked: Sequence[tuple[Record, list[Still], bool]]) -> Location | None:
        """The node, gradient or update at which the first divergence arises."""
        rung = next((each for each in pair.rungs if each.rung == pair.located), None)
        first = rung.first_divergence if rung is not None else None
        if rung is None:
            return None
        record, stills, double = looked[-1]
        names = [each.name for each in record.variables]
        if rung.rung in ("forced_trajectory", "free_trajectory") and first is not None:
            record, stills = self._looked_again(record, first.step)
        for legacy, modern in zip(record.stills if stills is not None else (), stills, strict=False):
            if (
                first is not None
                and rung.rung not in ("forced_trajectory", "free_trajectory")
                and legacy.step != first.step
            ):
                continue
            inference = rung.rung == "forward" and first is not None and first.tensor.startswith("inference/")
            found = location.locate(legacy, modern, self.phases, double, inference)
            if found is not None:
                return found
            for phase in self.phases:
                found = location.of_gradient(legacy, modern, phase, names, double)
                if found is not None:
                    return found
            if first is not None:
                return self._of_update(legacy, modern, first, double)
        return None

    def _of_update(self, legacy: Still, modern: Still, first: Any, double: bool) -> Location:
        pairs = {pair.legacy: pair for pair in self.phase_pairs}
        phase = first.phase if first.phase in pairs else self.phases[0]
        held = pairs[phase]
        return location.of_update(
            legacy,
            modern,
            phase,
            first.tensor,
            (", ".join(held.legacy_optimizers), ", ".join(held.modern_optimizers)),
            double,
        )

    def _looked_again(self, record: Record, step: int) -> tuple[Record, list[Still]]:
        """Both sides once more at the state before a step of the trajectory, with all intermediates."""
        states = record.trajectory.states
        if step not in states:
            return record, []
        found = []
        for role in ("legacy", "modern"):
            with self.opened(role, record.precision) as program:
                side = Side(program, role, self.names if role == "modern" else None)
                batches = self.batches(program)
                found.append(observe(side, self.store, states[step], batches[step], step))
        return dataclasses.replace(record, stills=[found[0]]), [found[1]]

    def alone(self) -> CheckReport:
        """The contracts of the modern side by itself."""
        began = time.perf_counter()
        findings: list[Finding] = []
        movements: list[Movement] = []
        with self.timed("modern float32"), self.opened("modern", self.order.precision) as program:
            side = Side(program, "modern")
            side.role = "legacy"  # its names are its own
            batches = self.batches(program)
            side.feed(batches[0])
            initial = self.store.keep(side.state().arrays)
            _finite(initial, "modern")
            warm = min(WARM_STEPS, self.order.steps)
            first = observe(side, self.store, initial, batches[0], 0, twice=True)
            with self.bar("modern", self.order.steps) as tick:
                trajectory = run(side, self.store, initial, batches, self.order.steps, lambda n: n == warm, tick)
            second = observe(side, self.store, trajectory.states[warm], batches[warm], warm)
            self._contracts(side, [first, second], batches, findings, movements, initial)
            if first.unstable:
                self.notes.append(
                    f"two runs from one state differ in {', '.join(sorted(first.unstable)[:3])}: random numbers that "
                    "cannot be fed"
                )
            report = CheckReport(
                legacy="",
                modern=factories.named(self.order.modern),
                legacy_kind="",
                modern_kind=program.kind,
                precision=self.order.precision,
                steps=self.order.steps,
                seed=self.order.seed,
                batches=self._batches_described(),
                draws=_draw_rows("modern", program),
                movements=tuple(dataclasses.replace(each, side="modern") for each in movements),
                findings=tuple(dataclasses.replace(each, side="modern") for each in findings),
                notes=tuple(dict.fromkeys([*self.notes, *program.notes()])),
                curves={"modern": _losses(trajectory)},
                versions=versions(),
                command=self.order.command,
            )
        self.seconds["total"] = round(time.perf_counter() - began, 2)
        return dataclasses.replace(report, seconds=self.seconds)

    def _batches_described(self) -> str:
        assert self._batches is not None
        batch = self._batches[0]
        held = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in batch.items())
        return f"{self._batches.name}: {held}"


def matching_values(one: Any, other: Any) -> bool:
    """Whether two outputs are one at the probe state."""
    from tfport.checking.values import agree

    left, right = np.asarray(one), np.asarray(other)
    return left.dtype.kind == "f" and right.dtype.kind == "f" and agree(left, right)


def widened(state: Mapping[str, Array]) -> Mapping[str, Array]:
    """A float32 state as float64, tensor by tensor; counts stay."""
    return _Widened(state)


class _Widened(Mapping[str, Array]):
    def __init__(self, state: Mapping[str, Array]) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Array:
        array = np.asarray(self._state[name])
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def _finite(arrays: Mapping[str, Array], role: str) -> None:
    for name in arrays:
        array = np.asarray(arrays[name])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(
                f"the {role} side's {name} holds NaN or infinity before any step; mend the checkpoint or the initialiser."
            )


def _excess_figures(first: Meter, double: Meter) -> list[float]:
    """The float64 differences below rung 8 that do not shrink, as shares of the tensor and of what a step adds to it."""
    found = []
    for name, rung in double.pair.rungs.items():
        if name == "free_trajectory":  # what it shows is what the others let through, grown
            continue
        for tensor in excess(first.pair.rung(name), rung)[0]:
            found.append(rung.relative[tensor])
            if (name, tensor) in double.moves:
                found.append(double.moves[name, tensor])
    return found


def _rounded_constants(pair: PairResult, first: Meter, double: Meter) -> bool:
    """Whether all that keeps two sides apart in float64 is as small as a number's rounding to float32."""
    failing = [rung for rung in pair.rungs if not rung.verdict.equal]
    numbers_alone = all(
        rung.verdict is Verdict.DIFFERENT
        and rung.rung in RUNGS[FIRST_NUMERICAL:]
        and not first.pair.rung(rung.rung).faults
        and not double.pair.rung(rung.rung).faults
        for rung in failing
    )
    return numbers_alone and all(figure <= CONSTANT for figure in _excess_figures(first, double))


def _wholly_double(stills: Sequence[Still], role: str) -> None:
    """Raises NoSuchPrecision where a side that was built in float64 computes something in less."""
    for still in stills:
        for nodes in still.nodes.values():
            for node in nodes:
                if np.dtype(node.place.dtype).itemsize < 8:
                    dtype = np.dtype(node.place.dtype).name
                    raise NoSuchPrecision(f"the {role} side computes {node.name} ({node.kind}) in {dtype}")


def _trainable(variables: Sequence[VariableInfo]) -> tuple[VariableInfo, ...]:
    return tuple(dataclasses.replace(each, trainable=bool(each.optimizers)) for each in variables)


def _without(arrays: Mapping[str, Array], missing: set[str]) -> dict[str, Array]:
    """A state without variables that have no partner, and without their slots."""
    return {name: arrays[name] for name in arrays if not _belongs(name, missing)}


def _belongs(name: str, variables: set[str]) -> bool:
    parts = name.split("/", 3)
    return name in variables or (name.startswith("optimizer/") and len(parts) == 4 and parts[3] in variables)


def _alike_hyperparameters(
    left: Sequence[OptimizerInfo], right: Sequence[OptimizerInfo]
) -> tuple[tuple[OptimizerInfo, ...], tuple[OptimizerInfo, ...], list[str]]:
    """Both sides' optimizers with the numbers that both can have: what one lacks and is 0 on the other is 0."""
    notes = []
    by_name = {each.name: each for each in right}
    one = {each.name: dict(each.hyperparameters) for each in left}
    other = {each.name: dict(each.hyperparameters) for each in right}
    for name in one.keys() & other.keys():
        for number in sorted(one[name].keys() ^ other[name].keys()):
            has, lacks = (one, other) if number in one[name] else (other, one)
            if number == "learning_rate":
                del has[name][number]
                notes.append(
                    f"the {name} optimizer's learning rate is fed or unknown on one side: rung 6 holds what it does"
                )
            elif has[name][number] == 0:
                lacks[name][number] = 0.0
    del by_name
    return (
        tuple(OptimizerInfo(each.name, each.algorithm, one[each.name]) for each in left),
        tuple(OptimizerInfo(each.name, each.algorithm, other[each.name]) for each in right),
        notes,
    )


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


def _draw_rows(role: str, program: Program) -> tuple[DrawRow, ...]:
    return tuple(DrawRow(role, each.name, each.kind, each.controlled, each.reason) for each in program.random_draws())


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


def _tolerance(meter: Meter) -> float | None:
    largest = max(meter.largest.values(), default=0.0)
    return float(largest) if np.isfinite(largest) else None


def _widen(envelope: Envelope, rung: str, step: int, base: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    for name in base:
        if name in mine:
            envelope.add((rung, name, step), np.asarray(base[name], _dtype(base[name])), np.asarray(mine[name]))


def _dtype(value: Any) -> Any:
    return value.dtype if isinstance(value, np.ndarray) else np.float64


def _widen_stills(
    envelope: Envelope, base: Still, mine: Still, phases: Sequence[str], outputs: Sequence[tuple[str, str]]
) -> None:
    step = base.step
    for mode in base.outputs:
        names = {f"{mode}/{name}": base.outputs[mode][name] for name in base.outputs[mode]}
        _widen(
            envelope,
            "forward",
            step,
            names,
            {f"{mode}/{name}": mine.outputs[mode][name] for name in mine.outputs[mode]},
        )
    wanted = {one for one, _ in outputs}
    others = {node.name: node.value for node in mine.nodes.get("inference", ()) if node.name in wanted}
    for node in base.nodes.get("inference", ()):
        if node.name in others:
            envelope.add(("forward", f"inference/{node.name}", step), node.value, others[node.name])
    for phase in phases:
        left = {f"{phase}/{name}": value for name, value in base.reports[phase].items()}
        right = {f"{phase}/{name}": value for name, value in mine.reports[phase].items()}
        if phase in base.objectives and phase in mine.objectives:
            left[f"{phase}/objective"], right[f"{phase}/objective"] = base.objectives[phase], mine.objectives[phase]
        _widen(envelope, "loss", step, left, right)
        if phase in base.gradients and phase in mine.gradients:
            _widen(
                envelope,
                "gradient",
                step,
                _prefixed(base.gradients[phase], phase),
                _prefixed(mine.gradients[phase], phase),
            )
        _widen(envelope, "update", step, _prefixed(base.after[phase], phase), _prefixed(mine.after[phase], phase))
    if len(phases) > 1 and base.after_step is not None and mine.after_step is not None:
        _widen(envelope, "update", step, _prefixed(base.after_step, "step"), _prefixed(mine.after_step, "step"))


def _steps_apart(envelope: Envelope, first: Meter, step: int) -> dict[str, float]:
    """State name -> how far the modern side was from the legacy side after that one forced step, absolutely."""
    found = {}
    for (rung, name, at), relative in first.largest.items():
        key = (rung, name, at)
        if rung == "forced_trajectory" and at == step and relative:
            found[name] = min(relative, envelope.allows(key)) * first.scales.get(key, 0.0)
    return found


_DECAYS = {"m": "beta_1", "v": "beta_2", "rms": "rho", "mean": "rho", "accumulator": "rho", "accumulator_update": "rho"}
"""Slot -> the hyperparameter that it decays by, where it is a moving average."""
_STATISTICS = 0.999
"""The decay that is allowed for a moving statistic, whose own is not known."""


def _decays(record: Record) -> dict[str, float]:
    """State name -> the decay of the moving average that feeds it, or that its update is divided by."""
    numbers = {each.name: each.hyperparameters for each in record.optimizers}
    found: dict[str, float] = {}
    for variable in record.variables:
        known = [
            numbers[name][beta]
            for name in variable.optimizers
            for beta in ("beta_1", "beta_2", "rho")
            if beta in numbers.get(name, {})
        ]
        if known:
            found[variable.name] = max(known)
        elif not variable.optimizers:
            found[variable.name] = _STATISTICS
    for name in record.initial:
        _, optimizer, slot, *_ = [*name.split("/", 3), "", ""] if name.startswith("optimizer/") else ("", "", "", "")
        if _DECAYS.get(slot) in numbers.get(optimizer, {}):
            found[name] = numbers[optimizer][_DECAYS[slot]]
    return found


def _complement(envelope: Envelope, record: Record, phases: Sequence[str]) -> None:
    """Allows for the rounding of 1 - beta in everything that a moving average feeds."""
    states = record.trajectory.states
    for name, beta in _decays(record).items():
        for still in record.stills:
            before = still.state[name]
            for phase in phases:
                envelope.complement(("update", f"{phase}/{name}", still.step), before, still.after[phase][name], beta)
            if still.after_step is not None:
                envelope.complement(("update", f"step/{name}", still.step), before, still.after_step[name], beta)
        for step in record.forced:
            key = "forced_trajectory", name, step
            envelope.complement(key, states[step][name], states[step + 1][name], beta)


def _prefixed(arrays: Mapping[str, Array], phase: str) -> dict[str, Array]:
    return {f"{phase}/{name}": arrays[name] for name in arrays}


__all__ = ["UNPAIRED", "Order", "Sample", "check"]
