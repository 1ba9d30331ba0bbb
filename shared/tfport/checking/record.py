"""What is kept of the legacy side: it runs first, and alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking import contracts, horizon
from tfport.checking.batches import BatchSource
from tfport.checking.bounds import resume_step
from tfport.checking.horizon import Horizon
from tfport.checking.lazy import Lazy
from tfport.checking.observe import KeptNode, Still, Trajectory, keep_nodes, observe, probe_state, probed_outputs, run
from tfport.checking.report import DrawRow, Finding, Movement
from tfport.checking.session import Session
from tfport.checking.sides import COUNTER, Side, is_variable
from tfport.checking.store import Kept
from tfport.equivalence.initialisation import BUILDS
from tfport.equivalence.measurement import RungMeasurement
from tfport.errors import UserError
from tfport.program import Node, Program
from tfport.subject import OptimizerInfo, VariableInfo

Array = np.ndarray[Any, Any]

WARM_STEPS = 10
"""The second state that is looked at is the legacy side's after so many steps, or after all where there are fewer."""
REPEAT_STEPS = 10
BUDGET = 2 << 30
"""Bytes of states that a check keeps on disk where --sample says nothing; beyond it steps are left out, and told."""
FIRST_BUILD = 1_000
"""The seed of the first of the builds whose initial values are compared."""
DRAWN = 100_000
"""Elements of a variable whose initial values are compared as draws."""


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
    forced: tuple[int, ...]
    """The steps at which states are compared."""
    sampled: set[str] | None
    """The state and gradient names that --sample keeps; None where it keeps all."""
    draws: tuple[DrawRow, ...] = ()
    notes: tuple[str, ...] = ()
    probe: Kept | None = None
    probe_nodes: list[KeptNode] = dataclasses.field(default_factory=list)
    probe_outputs: Kept | None = None
    initialised: dict[str, Array] | None = None
    findings: list[Finding] = dataclasses.field(default_factory=list)
    movements: list[Movement] = dataclasses.field(default_factory=list)
    unasked: list[str] = dataclasses.field(default_factory=list)
    """Contracts of which the side shows nothing."""
    horizon: Horizon | None = None
    """What it does beyond the last step; in float32 only."""


def recorded(session: Session, precision: str, earlier: Record | None = None) -> Record:
    """Everything that is asked of the legacy side, in one precision.

    Args:
      session: the check.
      precision: of the side.
      earlier: the float32 record, whose states a float64 one is looked at in.
    """
    order = session.order
    with session.timed(f"legacy {precision}"), session.opened("legacy", precision) as program:
        side = session.side(program, "legacy")
        batches = session.batches(program)
        initial = session.store.keep(side.state().arrays if earlier is None else widened(earlier.initial))
        if earlier is None:
            finite(initial, "legacy")
        sampled = sample(session, side.own_variables, side.state().arrays) if earlier is None else earlier.sampled
        forced = forced_steps(session, initial) if earlier is None else earlier.forced
        optimizers = side.optimizers(session.numbers["legacy"])  # a rate that decays is compared at the first step
        warm = min(WARM_STEPS, order.steps)
        kept = {step for each in forced for step in (each, each + 1)} | {0, warm, order.steps}
        kept |= {resume_step(order.steps)} if "resume" in order.measured else set()
        if order.sample.steps is None and len(forced) == order.steps:
            kept = set(range(order.steps + 1))
        first = observe(side, session.store, initial, batches[0], 0, twice=earlier is None)
        with session.bar(f"legacy {precision}", order.steps) as tick:
            trajectory = run(side, session.store, initial, batches, order.steps, lambda step: step in kept, tick)
        start = trajectory.states[warm] if earlier is None else widened(earlier.stills[1].state, _powers(session, warm))
        second = observe(side, session.store, start, batches[warm], warm)
        repeat = _repeat(session, side, initial, batches, trajectory, first)
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
            forced,
            sampled,
            draw_rows("legacy", program),
            program.notes(),
        )
        if earlier is None:
            names = [each.name for each in record.variables]
            record.probe = session.store.keep(probe_state(initial, names, order.seed))
            side.at(0)
            side.load(record.probe)
            record.probe_outputs = session.store.keep(probed_outputs(side, batches[0]))
            record.probe_nodes = all_nodes(session, side, batches)
            record.initialised = initialised(session, side)
            record.findings, record.movements, record.unasked = contracts_of(session, side, record.stills, initial)
            if "forced_trajectory" in order.measured:
                with session.timed("horizon"):
                    record.horizon = horizon.recorded(session, side, record)
        return record


def all_nodes(session: Session, side: Side, batches: BatchSource, own: bool = False) -> list[KeptNode]:
    """Intermediates of outputs and of every phase at the present state, names made unique by phase."""
    found = keep_nodes(session.store, _nodes(side, batches, None, own))
    for phase in side.phases:
        nodes = keep_nodes(session.store, _nodes(side, batches, phase, own))
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


def _nodes(side: Side, batches: BatchSource, phase: str | None, own: bool) -> Sequence[Node]:
    """Intermediates, under the side's own names or the shared ones; none where the code shows none."""
    try:
        if not own:
            return side.nodes(batches[0], phase=phase)
        return side.program.nodes(side.feed(batches[0]), False, side.own_phase(phase) if phase else None)
    except NotImplementedError:
        return ()


def sample(session: Session, infos: Sequence[VariableInfo], names: Iterable[str]) -> set[str] | None:
    """The state and gradient names that --sample keeps; None where it keeps all.

    Args:
      session: the check.
      infos: the legacy side's variables.
      names: of its state.
    """
    most = session.order.sample.tensors
    variables = [each.name for each in infos]
    if most is None or most >= len(variables):
        return None
    places = np.linspace(0, len(variables) - 1, most).round().astype(int)
    chosen = {variables[place] for place in places}
    session.left_out.append(
        f"{len(variables) - len(chosen)} of {len(variables)} variables, with their slots and gradients (--sample)"
    )
    names = set(names)
    counts = {name for name in names if not is_variable(name) and len(name.split("/", 3)) < 4}
    counts |= {name for name in names if name.startswith(COUNTER)}
    slots = {name for name in names - counts if not is_variable(name) and name.split("/", 3)[3] in chosen}
    return chosen | slots | counts


def forced_steps(session: Session, initial: Kept) -> tuple[int, ...]:
    """The steps at which states are forced and compared."""
    steps, asked = session.order.steps, session.order.sample.steps
    size = sum(array.nbytes for array in initial.values())
    affordable = max(2, int(BUDGET // max(size, 1)) // 2)
    most = min(asked or steps, steps)
    if asked is None and affordable < steps:
        most = affordable
    if most >= steps:
        return tuple(range(steps))
    chosen = tuple(sorted({int(each) for each in np.linspace(0, steps - 1, most).round()}))
    why = (
        "--sample" if asked else f"their states would take more than {BUDGET >> 30} GB; --sample=steps:N asks for more"
    )
    session.left_out.append(f"the states of {steps - len(chosen)} of {steps} steps ({why})")
    return chosen


def _repeat(
    session: Session, side: Side, initial: Kept, batches: BatchSource, trajectory: Trajectory, first: Still
) -> RungMeasurement:
    """Rung 0: brought back to where it began, the side does the same again."""
    rung = RungMeasurement("repeat")
    steps = min(session.order.steps, REPEAT_STEPS)
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


def initialised(session: Session, side: Side) -> dict[str, Array] | None:
    """Rung 2: what the side's own initialisers draw, under shared names; None where they cannot be run again."""
    if "initialisation" not in session.order.rungs:
        return None
    pooled: dict[str, list[Array]] = {}
    names = [name for name in side.state().arrays if not name.endswith("/iterations") and COUNTER not in name]
    for build in range(BUILDS):
        with session.built_again(side, FIRST_BUILD + build) as fresh:
            if fresh is None:
                return None
            for name in names:
                if name in fresh:
                    pooled.setdefault(name, []).append(np.array(fresh[name]).reshape(-1)[:DRAWN])
    return {name: np.concatenate(parts) for name, parts in pooled.items()}


def contracts_of(
    session: Session, side: Side, stills: Sequence[Still], initial: Mapping[str, Array]
) -> tuple[list[Finding], list[Movement], list[str]]:
    """What the side breaks by itself, what each of its phases trains, and which contracts it has nothing for."""
    source = session.batches(side.program)
    variables = side.variables()
    drawn = {}
    for phase in side.phases:
        side.load(initial)
        drawn[phase] = [side.drawn(phase, source[step]) for step in range(2)]
    batch = side.feed(source[stills[-1].step])
    return (
        contracts.findings(side.role, stills, variables, side.phases, batch, drawn),
        contracts.movements(side.role, stills[-1], variables, side.phases),
        contracts.unasked(stills, variables, drawn),
    )


def _powers(session: Session, step: int) -> dict[str, Array]:
    """What the legacy side multiplies up at every step, by its shared name, exactly."""
    tracks = session.tracks["legacy"]
    return {COUNTER + name: track.at(step) for name, track in tracks.items() if track.ratio is not None}


def widened(state: Mapping[str, Array], exact: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
    """A float32 state as float64, tensor by tensor; counts stay.

    Args:
      state: the state.
      exact: what is known to more digits.
    """
    return _Widened(state, exact or {})


class _Widened(Lazy):
    def __init__(self, state: Mapping[str, Array], exact: Mapping[str, Array]) -> None:
        super().__init__(state)
        self._state, self._exact = state, exact

    def __getitem__(self, name: str) -> Array:
        array = np.asarray(self._exact.get(name, self._state[name]))
        return array.astype(np.float64) if array.dtype.kind == "f" else array


def finite(arrays: Mapping[str, Array], role: str) -> None:
    """Raises UserError where a state holds NaN or infinity."""
    for name in arrays:
        array = np.asarray(arrays[name])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(
                f"the {role} side's {name} holds NaN or infinity before any step; mend the checkpoint or the "
                "initialiser."
            )


def draw_rows(role: str, program: Program) -> tuple[DrawRow, ...]:
    """Where the program draws, for the report."""
    return tuple(DrawRow(role, each.name, each.kind, each.controlled, each.reason) for each in program.random_draws())
