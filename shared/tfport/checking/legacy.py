"""What a check asks of the legacy side beside its record: the side itself answers, or what was recorded of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from tfport.checking import contracts, ignored
from tfport.checking.batches import BatchSource
from tfport.checking.bounds import resume_step
from tfport.checking.draws import Drawn, write_recorded
from tfport.checking.envelope import Spans, spanned, spanned_again
from tfport.checking.factories import NoSuchPrecision, named
from tfport.checking.horizon import Horizon
from tfport.checking.measure import Envelope, Meter
from tfport.checking.observe import KeptNode, Still, Trajectory, observe
from tfport.checking.record import Record, forced_steps, recorded, sample
from tfport.checking.session import Session
from tfport.checking.sides import COUNTER
from tfport.checking.store import Kept
from tfport.errors import UserError
from tfport.versions import versions


class Legacy(Protocol):
    """The legacy side of one check."""

    name: str
    """What a report calls it."""
    horizons: Mapping[str, Horizon | None] | None
    """Precision -> what is known of it beyond the last step; None where it can be asked."""
    own_resume: str | None
    """Where it leaves its own trajectory when it resumes (see `resume.own_resume`); None where it can be asked."""

    def single(self) -> Record:
        """Its record in float32."""

    def wide(self, single: Record) -> Record:
        """Its record in float64.

        Raises:
          NoSuchPrecision: there is none.
        """

    def look(self, record: Record, step: int) -> Still | None:
        """All that it shows at the state before a step of the trajectory; None where that is not known."""

    def spanned(
        self, single: Record, first: Meter, phases: Sequence[str], outputs: Sequence[tuple[str, str]]
    ) -> Envelope:
        """How far rounding can take it; see `envelope.spanned`."""

    def idle(self, names: Sequence[str]) -> list[str]:
        """Those of some variables that take no part."""


class Live:
    """A legacy side that is run."""

    horizons: Mapping[str, Horizon | None] | None = None
    own_resume: str | None = None

    def __init__(self, session: Session) -> None:
        self.session = session
        self.name = named(session.order.legacy)

    def single(self) -> Record:
        """Runs it in float32."""
        return recorded(self.session, "float32")

    def wide(self, single: Record) -> Record:
        """Runs it in float64."""
        return recorded(self.session, "float64", single)

    def look(self, record: Record, step: int) -> Still | None:
        """Looks at it once more."""
        session, states = self.session, record.trajectory.states
        if step not in states:
            return None
        with session.opened("legacy", record.precision) as program:
            batch = session.batches(program)[step]
            return observe(session.side(program, "legacy"), session.store, states[step], batch, step)

    def spanned(
        self, single: Record, first: Meter, phases: Sequence[str], outputs: Sequence[tuple[str, str]]
    ) -> Envelope:
        """Disturbs it."""
        return spanned(self.session, single, first, phases, outputs)

    def idle(self, names: Sequence[str]) -> list[str]:
        """Tries it out."""
        return idle(self.session, "legacy", names)


def idle(session: Session, role: str, names: Sequence[str]) -> list[str]:
    """Those of some variables of a side that take no part; see `ignored.proposals`."""
    if not names:
        return []
    with session.opened(role, "float32") as program:
        side = session.side(program, role)
        return ignored.proposals(side.program, names, session.first_batches(side.program, role))


@dataclasses.dataclass(frozen=True)
class Original:
    """All that a record keeps of a legacy side."""

    name: str
    made: str
    """When, in UTC."""
    versions: dict[str, str]
    seed: int
    batches_name: str
    batches: list[Kept]
    """One for each step, and one more."""
    inputs: str
    """The side's inputs, as a message names them."""
    spare: tuple[str, ...]
    """The entries of a batch that feed nothing there."""
    single: Record
    wide: Record | None
    no_float64: str
    """Why there is no float64."""
    looks: dict[str, dict[int, Still]]
    """Precision -> step -> all that it shows at the state before it."""
    spans: Spans
    own_resume: str
    idle: tuple[str, ...]
    """Its variables that take no part, of those that are recorded."""
    ignored: tuple[str, ...]
    """Its variables that --ignore left out."""
    wide_horizon: Horizon | None
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    draws: list[Drawn]
    """What it drew, where the numbers do not follow from the seed."""
    unfed: dict[str, list[dict[str, str]]] | None
    """Phase -> what its draws look like in calls that nobody feeds; None where the record has been held against the
    contracts already."""

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return len(self.single.trajectory.reports)


class Recorded:
    """A legacy side of which there is a record."""

    def __init__(self, session: Session, original: Original) -> None:
        """Puts what is recorded in the place of a legacy side.

        Raises:
          UserError: other batches were given than those that were recorded.
        """
        if original.unfed is not None and original.versions.get("tensorflow") != versions()["tensorflow"]:
            original = _brought_up(original)
        self.session, self.original = session, original
        given = session.given_batches()
        if given is not None:
            _refuse_other_batches(given, original)
        batches = BatchSource([dict(each) for each in original.batches], original.batches_name)
        counters = [name.removeprefix(COUNTER) for name in original.single.initial if name.startswith(COUNTER)]
        names = [*(each.name for each in original.single.variables), *counters]
        session.feed_recorded(batches, original.inputs, original.spare, names, original.ignored)
        if original.draws:
            session.drawn = session.store.path.with_name("draws.json")
            write_recorded(session.drawn, original.draws)
        session.notes += original.notes
        session.left_out += original.left_out
        self.name = original.name
        self.own_resume: str | None = original.own_resume
        self.horizons: Mapping[str, Horizon | None] | None = {
            "float32": original.single.horizon,
            "float64": original.wide_horizon,
        }

    def single(self) -> Record:
        """As far as it is asked for."""
        record, unfed = self.original.single, self.original.unfed
        if unfed is not None:
            last, variables, phases = record.stills[-1], record.variables, record.phases
            record = dataclasses.replace(
                record,
                findings=contracts.findings("legacy", record.stills, variables, phases, last.inputs, unfed),
                movements=contracts.movements("legacy", last, variables, phases),
                unasked=contracts.unasked(record.stills, variables, unfed),
            )
        return _bounded(self.session, record)

    def wide(self, single: Record) -> Record:
        """As far as it is asked for."""
        del single
        if self.original.wide is None:
            raise NoSuchPrecision(self.original.no_float64)
        return _bounded(self.session, self.original.wide)

    def look(self, record: Record, step: int) -> Still | None:
        """What is kept of that step."""
        found = self.original.looks.get(record.precision, {}).get(step)
        if found is None:
            self.session.notes.append(f"the record holds no intermediates of step {step}: the place was not looked for")
        return found

    def spanned(
        self, single: Record, first: Meter, phases: Sequence[str], outputs: Sequence[tuple[str, str]]
    ) -> Envelope:
        """By the disturbed runs that are kept."""
        del outputs
        return spanned_again(self.session, single, self.original.spans, first, phases)

    def idle(self, names: Sequence[str]) -> list[str]:
        """Those that are known to take none."""
        return [name for name in names if name in self.original.idle]


def _bounded(session: Session, record: Record) -> Record:
    """A record as far as the check's steps and --sample go.

    Raises:
      UserError: it lacks a state that is needed for that.
    """
    order, steps = session.order, session.order.steps
    forced = tuple(step for step in record.forced if step < steps)
    if order.sample.steps is not None:
        asked = forced_steps(session, record.initial)
        forced = tuple(step for step in asked if step in forced)
    sampled = record.sampled
    if order.sample.tensors is not None:
        asked_names = sample(session, record.variables, record.initial)
        sampled = asked_names if sampled is None or asked_names is None else sampled & asked_names
    begin = resume_step(steps)
    if not forced or ("resume" in order.measured and begin not in record.trajectory.states):
        raise UserError(
            f"--steps={steps}: the record keeps the states of some steps only, and not of step "
            f"{begin if forced else 0}. Leave --steps and --sample out, or record the original again without --sample."
        )
    trajectory = Trajectory(
        record.trajectory.reports[:steps],
        {step: state for step, state in record.trajectory.states.items() if step <= steps},
    )
    return dataclasses.replace(record, trajectory=trajectory, forced=forced, sampled=sampled)


def _refuse_other_batches(given: BatchSource, original: Original) -> None:
    """Raises UserError where batches are not those that were recorded."""
    for step, kept in enumerate(original.batches):
        batch = given[step]
        if batch.keys() != kept.keys() or not all(np.array_equal(batch[name], kept[name]) for name in kept):
            raise UserError(
                f"{given.name}: batch {step} is not the one that the record was made with. Leave --batches out: a "
                "record holds its batches."
            )


def _brought_up(original: Original) -> Original:
    """A record of an older TensorFlow, whose ops lack attributes that later versions added, with these as they were."""
    from tfport.adapters.op_facts import defaults

    def nodes(given: Sequence[KeptNode]) -> list[KeptNode]:
        return [dataclasses.replace(each, attributes={**defaults(each.kind), **each.attributes}) for each in given]

    def still(given: Still) -> Still:
        return dataclasses.replace(given, nodes={key: nodes(each) for key, each in given.nodes.items()})

    single, looks = original.single, original.looks
    stills = list(map(still, single.stills))
    return dataclasses.replace(
        original,
        single=dataclasses.replace(single, stills=stills, probe_nodes=nodes(single.probe_nodes)),
        looks={key: {step: still(each) for step, each in looks[key].items()} for key in looks},
    )
