"""Which phase, variable, optimizer and output of the modern side is which of the legacy side."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking import aside, counters, mapping_file, matching
from tfport.checking.batches import BatchSource
from tfport.checking.measure import some
from tfport.checking.observe import KeptNode, probed_outputs
from tfport.checking.record import Record, all_nodes
from tfport.checking.report import PhasePair
from tfport.checking.session import Session
from tfport.checking.sides import COUNTER, UNPAIRED, Names, Side, by_modern, is_variable
from tfport.checking.values import agree
from tfport.layouts import MappedVariable
from tfport.state import State
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]
_WATCHED = 2
"""Steps over which a variable that only the modern side has is watched."""


@dataclasses.dataclass
class Pairing:
    """How the modern side's names become the legacy side's."""

    names: Names
    phases: tuple[PhasePair, ...]
    variables: tuple[MappedVariable, ...]
    unmatched_legacy: tuple[str, ...]
    unmatched_modern: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    """Legacy and modern names."""
    order: tuple[str, ...] = ()
    """Shared names of the phases, in the order in which the modern side runs them."""
    numbers: frozenset[str] = frozenset()
    """Shared names of single numbers that one side keeps in a variable and no step moves, such as a learning rate."""

    @property
    def shared_phases(self) -> tuple[str, ...]:
        """The phases that both sides have, by their shared names."""
        return tuple(pair.legacy for pair in self.phases)


def paired_with(session: Session, record: Record, side: Side) -> Pairing:
    """Finds phases, variables, optimizers and outputs of the modern side.

    The side ends in the state that it began in, under the names that were found.
    """
    order, batches = session.order, session.batches(side.program)
    legacy, modern = record.variables, side.own_variables
    phases, phase_pairs = _phases(session, record, side)
    fixed = mapping_file.read(order.mapping, legacy, modern) if order.mapping else []
    held = {pair.legacy for pair in fixed}, {pair.modern for pair in fixed}
    present = session.store.keep(side.program.state().arrays)
    unread = [names - taken for names, taken in zip(_unread(session, record, side), held, strict=True)]
    read = [
        [each for each in infos if each.name not in names]
        for infos, names in zip((legacy, modern), unread, strict=True)
    ]
    guess = matching.first_guess(
        *([each for each in infos if each.name not in taken] for infos, taken in zip(read, held, strict=True))
    )
    assert record.probe is not None
    probe = {name: record.probe[name] for name in record.probe if is_variable(name)}

    def trial(mapping: Sequence[MappedVariable]) -> Sequence[KeptNode]:
        side.program.load(State("", present))
        side.rename(Names(by_modern(mapping), phases=phases))
        side.at(0)
        side.load(probe)
        return all_nodes(session, side, batches, own=True)

    initial, inputs = (record.initial, present), [np.shape(array) for array in batches[0].values()]
    mapping, notes = matching.settle(guess, read[0], read[1], record.probe_nodes, trial, fixed, initial, inputs)
    for laid_out, pairs in (
        (
            "transposed: a checkpoint must be transposed",
            [pair for pair in mapping if pair.transpose and not pair.in_part],
        ),
        ("in another layout: a checkpoint must be converted by this mapping", [p for p in mapping if p.in_part]),
    ):
        names = list(dict.fromkeys(pair.legacy for pair in pairs if pair not in fixed))
        if names:
            notes.append(f"the modern side holds {some(names)} {laid_out} to be carried over")
    session.notes += notes + _sums(mapping)
    variables = by_modern(mapping)
    trial(mapping)
    side.rename(Names(variables, _optimizers(record, side, variables, phase_pairs), phases))
    side.rename(dataclasses.replace(side.names, **_counters(session, record, side)))
    outputs = _outputs(session, record, side, batches)
    mapping += _with_slots(session, record, side, present, unread)
    places = {each.name: number for number, each in enumerate(legacy)}
    mapping.sort(key=lambda pair: places[pair.legacy])
    left = {pair.legacy for pair in mapping} | {slot.shared for slot in side.names.slots.values()}
    taken = side.names.variables.keys() | side.names.slots.keys()
    side.program.load(State("", present))
    last = record.trajectory.states[max(record.trajectory.states)]
    alone = [each for each in legacy if each.name not in left]
    numbers = _numbers(session, "legacy", alone, record.initial, last)
    lone = [each for each in modern if each.name not in taken]
    if any(not each.shape for each in lone):
        for step in range(min(_WATCHED, order.steps)):
            side.at(step)
            side.step(batches[step])
        moved = session.store.keep(side.program.state().arrays)
        side.program.load(State("", present))
        side.at(0)
        numbers += [UNPAIRED + name for name in _numbers(session, "modern", lone, present, moved)]
    found = Pairing(
        side.names,
        phase_pairs,
        tuple(mapping),
        tuple(each.name for each in alone if each.name not in numbers),
        tuple(each.name for each in lone if UNPAIRED + each.name not in numbers),
        outputs,
        tuple(each.legacy for own in side.program.phases for each in phase_pairs if each.modern == own),
        frozenset(numbers),
    )
    if order.write_mapping:
        mapping_file.write(order.write_mapping, found.variables, found.unmatched_legacy, found.unmatched_modern)
    return found


def _sums(mapping: Sequence[MappedVariable]) -> list[str]:
    """What a person should know of variables that are added up on one side only."""
    legacy = dict.fromkeys(pair.legacy for pair in mapping if pair.summed)
    modern = dict.fromkeys(pair.modern for pair in mapping if pair.summed)
    if not legacy:
        return []
    return [
        f"{some(list(legacy))} of the original and {some(list(modern))} of the port are sums of different numbers of "
        "variables. Each summand gets the whole gradient and moves as far as a single variable would: a sum of two "
        "trains twice as fast as one bias does, unless the port accounts for it"
    ]


def _unread(session: Session, record: Record, side: Side) -> tuple[set[str], set[str]]:
    """What no output or loss reads on each side; nothing where both sides read all that they have."""
    trained = {name for each in record.stills[0].gradients.values() for name in each}
    legacy = aside.aside(record.variables, record.probe_nodes, trained)
    if not legacy and len(record.variables) == len(side.own_variables):
        return set(), set()
    side.at(0)
    batches = session.batches(side.program)
    mine: set[str] = set()
    for phase in side.program.phases:
        with contextlib.suppress(NotImplementedError):
            gradients = side.program.gradients(phase, side.feed(batches[0]))
            mine |= {name for name, gradient in gradients.items() if gradient is not None}
    return legacy, aside.aside(side.own_variables, all_nodes(session, side, batches, own=True), mine)


def _with_slots(
    session: Session, record: Record, side: Side, present: Mapping[str, Any], unread: Sequence[set[str]]
) -> list[MappedVariable]:
    """Pairs what no output reads, and slots that have no partner by name, by their values; renames the side.

    Returns:
      The further pairs of variables.
    """
    held = {shared for own in side.state_names for shared in side.shared_names(own)}
    theirs = [name for name in record.initial if name in unread[0]]
    theirs += [name for name in record.initial if _is_slot(name) and name not in held]
    mine = [own for own in side.state_names if own in unread[1]]
    mine += [own for own in side.state_names if _is_slot(own) and side.shared(own) not in record.initial]
    states = record.trajectory.states
    steps = [step for step in range(1, aside.WATCHED + 1) if step in states]
    found: list[aside.Partner] = []
    if theirs and mine and steps:
        seen = _stepped(session, record, side, present, mine, steps)
        values = {step: {name: states[step][name] for name in theirs} for step in steps}
        found = aside.partners(values, seen, side.names.variables)
    mapping, slots = aside.as_names(found, side)
    session.notes += aside.told(slots, {each.modern for each in found if not each.proven})
    alone = unread[0] - {each.legacy for each in found}, unread[1] - {each.modern for each in found}
    guess = matching.first_guess(
        [each for each in record.variables if each.name in alone[0]],
        [each for each in side.own_variables if each.name in alone[1]],
    )
    mapping += [pair for pair in guess if matching.alike(pair.legacy, pair.modern)]
    variables = {**side.names.variables, **by_modern(mapping)}
    side.rename(dataclasses.replace(side.names, variables=variables, slots=slots))
    return mapping


def _stepped(
    session: Session, record: Record, side: Side, present: Mapping[str, Any], own: Sequence[str], steps: Sequence[int]
) -> dict[int, Mapping[str, Any]]:
    """Own state names -> their values after so many steps from the legacy side's initial state."""
    source = session.batches(side.program)
    side.program.load(State("", present))
    side.at(0)
    side.load(record.initial)
    found: dict[int, Mapping[str, Any]] = {}
    for step in range(max(steps)):
        side.at(step)
        side.step(source[step])
        if step + 1 in steps:
            arrays = side.program.state().arrays
            found[step + 1] = session.store.keep({name: arrays[name] for name in own})
    return found


def _is_slot(name: str) -> bool:
    return name.startswith("optimizer/") and len(name.split("/", 3)) == 4


def _numbers(
    session: Session, role: str, alone: Sequence[VariableInfo], before: Mapping[str, Array], after: Mapping[str, Array]
) -> list[str]:
    """Those of one side's variables without a partner that are one number, which no optimizer and no step moves."""
    found = [
        each.name
        for each in alone
        if not each.shape and not each.optimizers and np.array_equal(before[each.name], after[each.name])
    ]
    if found:
        session.notes.append(
            f"a number that no step moves, kept in a variable on the {role} side alone, and compared only in what "
            f"depends on it: {some(found)}"
        )
    return found


def _phases(session: Session, record: Record, side: Side) -> tuple[dict[str, str], tuple[PhasePair, ...]]:
    own = side.program.phases
    if set(own) == set(record.phases):
        pairs = {phase: phase for phase in record.phases}
    else:
        pairs = dict(zip(record.phases, own, strict=False))
        if pairs and len(own) == len(record.phases):
            told = ", ".join(f"{one} is {other}" for one, other in pairs.items() if one != other)
            session.notes.append(f"phases were paired in their order: {told}")
    held = dict(side.program.phase_optimizers())
    if len(own) == 1:
        held.setdefault(own[0], tuple(side.own_optimizers))
    shown = tuple(
        PhasePair(one, other, record.phase_optimizers.get(one, ()), held.get(other, ())) for one, other in pairs.items()
    )
    return pairs, shown


def _optimizers(
    record: Record, side: Side, pairs: Mapping[str, Sequence[MappedVariable]], phases: Sequence[PhasePair]
) -> dict[str, str]:
    """Own optimizer -> shared: by the phase that applies it, else by what it holds, else by order."""
    held = side.program.phase_optimizers()
    found: dict[str, str] = {}
    for pair in phases:
        mine, theirs = held.get(pair.modern, ()), record.phase_optimizers.get(pair.legacy, ())
        for own, shared in zip(mine, theirs, strict=False):
            if shared not in found.values():
                found.setdefault(own, shared)
    free = [each.name for each in record.optimizers if each.name not in found.values()]
    for own in side.own_optimizers:
        if own in found or not free:
            continue
        holds = {
            pair.legacy for each in side.own_variables if own in each.optimizers for pair in pairs.get(each.name, ())
        }
        overlap = {
            name: len(holds & {each.name for each in record.variables if name in each.optimizers}) for name in free
        }
        best = max(free, key=lambda name: overlap[name])
        found[own] = best
        free.remove(best)
    return found


def _counters(session: Session, record: Record, side: Side) -> dict[str, Any]:
    """The partners of the modern side's counters, and what those without one do, as fields of Names."""
    states = record.trajectory.states
    mine = {side.shared(own): own for own in side.state_names}
    legacy = {
        name: counters.Track({step: np.asarray(states[step][name]) for step in sorted(states)})
        for name in record.initial
        if name.startswith(COUNTER) or (name.endswith("/iterations") and name not in mine)
    }
    if legacy and not session.tracks["modern"]:
        session.watch(side.program, "modern", counts=True)
    tracks = session.tracks["modern"]
    free = {
        own: track for own, track in tracks.items() if own in side.counted or side.shared(own) not in record.initial
    }
    pairs = counters.pair(legacy, free)
    alone = {
        "legacy": [name.removeprefix(COUNTER) for name in legacy if name not in {e.shared for e in pairs.values()}],
        "modern": [own for own in free if own not in pairs],
    }
    for role, names in alone.items():
        if names:
            session.notes.append(
                f"counted on the {role} side alone, and compared only in what depends on it: {some(names)}"
            )
    return {"counters": pairs, "tracks": {own: track for own, track in free.items() if own not in pairs}}


def _outputs(session: Session, record: Record, side: Side, batches: BatchSource) -> tuple[tuple[str, str], ...]:
    """Pairs outputs by value at the probe state, then by name, then where there is one on each side."""
    assert record.probe is not None and record.probe_outputs is not None
    left, right = dict(record.probe_outputs), probed_outputs(side, batches[0])
    pairs: dict[str, str] = {}  # modern -> legacy
    for other, value in right.items():
        close = [name for name in left if name not in pairs.values() and _one_value(left[name], np.asarray(value))]
        if close:
            pairs[other] = other if other in close else close[0]
    for other, value in right.items():
        free = other not in pairs and other in left and other not in pairs.values()
        if free and np.size(left[other]) == np.size(value):
            pairs[other] = other
    nodes = [each for each in record.probe_nodes if not any(each.name.startswith(f"{p}: ") for p in record.phases)]
    for other, value in right.items():
        if other not in pairs:
            found = _inside(nodes, left, np.asarray(value), len(pairs) < len(left))
            if found:
                pairs[other] = found
    for other, value in right.items():
        sized = [name for name in left if name not in pairs.values() and np.size(left[name]) == np.size(value)]
        if other not in pairs and sized:
            pairs[other] = sized[-1]
        elif other not in pairs:
            session.notes.append(f"output {other} of the modern side has no partner: no output is of its size")
    return tuple((one, other) for other, one in pairs.items())


def _inside(nodes: Sequence[KeptNode], outputs: Mapping[str, Any], value: Any, instead: bool) -> str:
    """A legacy intermediate with this value, such as the logits of an output of probabilities; empty where none is.

    Args:
      nodes: the legacy side's, in the order of computation.
      outputs: the legacy side's.
      value: the modern side's output.
      instead: whether it would stand for an output that has no other partner. Then no variable may be read between the
        two: else what is computed there is what the modern side lacks.
    """
    by_name = {node.name: node for node in nodes}
    last = [node for node in nodes if any(_one_value(node.value, np.asarray(each)) for each in outputs.values())]
    for node in reversed(nodes):
        if node.name in outputs or not _one_value(node.value, value):
            continue
        if not instead:
            return node.name
        for end in last:
            seen: set[str] = set()
            pending = [end.name]
            while pending:
                name = pending.pop()
                if name in by_name and name not in seen and name != node.name:
                    seen.add(name)
                    pending += by_name[name].inputs
            reached = any(node.name in by_name[name].inputs for name in seen)
            behind = {name for name in seen if _reads(by_name, name, node.name)}
            if reached and not any(by_name[name].variables for name in behind):
                return node.name
    return ""


def _reads(nodes: Mapping[str, KeptNode], name: str, source: str) -> bool:
    """Whether a node is computed from another."""
    pending, seen = [name], set()
    while pending:
        each = pending.pop()
        if each == source:
            return True
        if each in nodes and each not in seen:
            seen.add(each)
            pending += nodes[each].inputs
    return False


def _one_value(one: Any, other: Any) -> bool:
    """Whether two outputs are one at the probe state."""
    left, right = np.asarray(one), np.asarray(other)
    return left.dtype.kind == "f" and right.dtype.kind == "f" and agree(left, right)
