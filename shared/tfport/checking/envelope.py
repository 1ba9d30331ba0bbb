"""How far rounding alone can take the legacy side: what shows rounding where there is no float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfport.checking.batches import BatchSource
from tfport.checking.bounds import resume_step
from tfport.checking.measure import Envelope, Meter
from tfport.checking.observe import Still, disturbed, observe, outputs_of
from tfport.checking.record import Record
from tfport.checking.session import Session
from tfport.checking.sides import Side
from tfport.program import Batch

Array = np.ndarray[Any, Any]

DISTURBANCES = 3
"""Runs of the legacy side that span the envelope."""
LOOKS = 8
"""Disturbed looks at each state that gradients are compared at."""
SYMMETRIC = 2.0**-16
"""The order of a batch does not matter where outputs and losses agree so well, relatively, in another order."""


Amplitudes = Callable[[int], Mapping[str, float]]
"""Step -> how far each tensor of a free run is moved after it."""
LEVELS = (0.125, 1.0)
"""Shares of what rounding may do in a step by which a record's free runs are disturbed."""
Span = tuple[str, str, int, float, float]
"""Rung, tensor, step, how far it went, and its own magnitude."""


@dataclass
class Spans:
    """What disturbed runs of the legacy side showed, whatever it is compared with."""

    each: list[Span]
    free: list[list[Span]]
    """The free runs, one list for each of LEVELS."""


def spanned(
    session: Session, record: Record, first: Meter, phases: Sequence[str], outputs: Sequence[tuple[str, str]]
) -> Envelope:
    """How far the legacy side goes when its state, and its batch, is disturbed by one unit in the last place.

    Where the order of a batch's examples does not matter, each run has another one: sums over the batch are then
    rounded otherwise, which a disturbed state shows only in part. A gradient that cancels, as of a discriminator's bias
    between real and generated images, is rounding of that kind for the most part, and Adam divides by its size.

    The free trajectory, and rung 9 from its middle on, are disturbed after every step, by what the modern side's own
    steps were apart.

    Args:
      session: the check.
      record: the legacy side in float32.
      first: what the modern side's first pass measured.
      phases: the shared names of those that are compared.
      outputs: legacy and modern names of those that are compared.
    """
    found = Envelope(scales=first.scales)
    _complement(found, record, phases)
    order = session.order
    runs = _free_runs(session)
    work = DISTURBANCES * (len(record.forced) + sum(order.steps - begin for _, begin in runs))
    with (
        session.timed("envelope"),
        session.opened("legacy", "float32") as program,
        session.bar("envelope", work) as tick,
    ):
        side = session.side(program, "legacy")
        batches = session.batches(program)
        mixed = _looked_at(found, session, side, record, batches, phases, {one for one, _ in outputs})
        _forced(found, side, record, batches, mixed, tick)
        _free(found, side, record, batches, mixed, runs, lambda step: _steps_apart(found, first, step), tick)
    _last_steps(found, runs)
    return found


def recorded_spans(session: Session, record: Record) -> Spans:
    """What a record keeps, so that `spanned_again` can tell later what `spanned` would have told."""
    found = Envelope()
    _complement(found, record, record.phases)
    runs = _free_runs(session)
    with session.timed("envelope"), session.opened("legacy", "float32") as program:
        side = session.side(program, "legacy")
        batches = session.batches(program)
        mixed = _looked_at(found, session, side, record, batches, record.phases, None)
        _forced(found, side, record, batches, mixed, lambda: None)
        free = []
        for level in LEVELS:
            span = Envelope()
            _free(span, side, record, batches, mixed, runs, _share_of(found, level), lambda: None)
            free.append(_told(span))
    return Spans(_told(found), free)


def spanned_again(session: Session, record: Record, spans: Spans, first: Meter, phases: Sequence[str]) -> Envelope:
    """What `spanned` tells, by the disturbed runs that a record holds.

    Its free runs were disturbed by a share of what rounding may do in a step: the smallest that is no less than what
    the modern side's own steps were apart.
    """
    found = Envelope(scales=first.scales)
    _complement(found, record, phases)
    _take(found, spans.each)
    shares = [
        min(relative / found.allows(key), 1.0)
        for key, relative in first.largest.items()
        if key[0] == "forced_trajectory"
    ]
    level = next(number for number, level in enumerate(LEVELS) if level >= max(shares, default=0.0))
    _take(found, spans.free[level])
    _last_steps(found, _free_runs(session))
    return found


def _free_runs(session: Session) -> list[tuple[str, int]]:
    """The rungs of free runs, and the step at which each begins."""
    runs = [("free_trajectory", 0)]
    if "resume" in session.order.measured:
        runs.append(("resume", resume_step(session.order.steps)))
    return runs


def _last_steps(envelope: Envelope, runs: Sequence[tuple[str, int]]) -> None:
    """The last step of a free run is one as forced ones are."""
    for forced, name, step in [key for key in envelope.measured if key[0] == "forced_trajectory"]:
        for rung, _ in runs:
            envelope.extra[rung, name, step] = envelope.allows((forced, name, step))


def _told(envelope: Envelope) -> list[Span]:
    return [(*key, envelope.apart[key[:2]][key[2]], size) for key, size in envelope.measured.items()]


def _take(envelope: Envelope, spans: Sequence[Span]) -> None:
    for rung, name, step, apart, size in spans:
        envelope.take((rung, name, step), apart, size)


def _share_of(allowed: Envelope, level: float) -> Amplitudes:
    """A share of what rounding may do in one forced step, on the tensor's own scale."""
    found: dict[int, dict[str, float]] = {}
    for (rung, name, step), size in allowed.measured.items():
        if rung == "forced_trajectory":
            found.setdefault(step, {})[name] = level * allowed.allows((rung, name, step)) * size
    return lambda step: found.get(step, {})


def _looked_at(
    found: Envelope,
    session: Session,
    side: Side,
    record: Record,
    batches: BatchSource,
    phases: Sequence[str],
    wanted: set[str] | None,
) -> bool:
    """Disturbed looks at both states; returns whether the order of a batch's examples makes no difference.

    Args:
      found: the envelope, which is widened.
      session: the check.
      side: the legacy side.
      record: of it.
      batches: of the check.
      phases: those that are compared.
      wanted: the intermediates that are compared as outputs; None for all.
    """
    mixed = all(_symmetric(side, still, batches[still.step]) for still in record.stills)
    for number in range(1, LOOKS + 1):
        outer = number <= DISTURBANCES
        for still in record.stills:
            batch = dict(disturbed(batches[still.step], number))
            if mixed and not outer:
                batch = _reordered(batch, number)
            state = disturbed(still.state, number)
            mine = observe(side, session.store, state, batch, still.step, nodes=outer)
            if outer:
                _widen_outputs(found, still, mine, wanted)
            _widen_stills(found, still, mine, phases)
    return mixed


def _forced(
    found: Envelope, side: Side, record: Record, batches: BatchSource, mixed: bool, tick: Callable[[], None]
) -> None:
    """One disturbed step from each state of the trajectory."""
    states, reports = record.trajectory.states, record.trajectory.reports
    for number in range(1, DISTURBANCES + 1):
        for step in record.forced:
            side.at(step)
            side.load(disturbed(states[step], number))
            batch = dict(disturbed(batches[step], number))
            mine_reports = side.step(_reordered(batch, number) if mixed else batch)
            _widen(found, "forced_trajectory", step, reports[step], mine_reports)
            _widen(found, "forced_trajectory", step, states[step + 1], side.state().arrays)
            tick()


def _free(
    found: Envelope,
    side: Side,
    record: Record,
    batches: BatchSource,
    mixed: bool,
    runs: Sequence[tuple[str, int]],
    amplitudes: Amplitudes,
    tick: Callable[[], None],
) -> None:
    """Whole trajectories, disturbed after every step."""
    states, reports = record.trajectory.states, record.trajectory.reports
    steps = len(reports)
    for number in range(1, DISTURBANCES + 1):
        for rung, begin in runs:
            side.load(disturbed(states[begin], number))
            for step in range(begin, steps):
                side.at(step)
                reordered = _reordered(batches[step], number) if mixed else batches[step]
                _widen(found, rung, step, reports[step], side.step(reordered))
                present = side.state().arrays
                if step + 1 in states:
                    _widen(found, rung, step, states[step + 1], present)
                # From here on as far as one step of the modern side was seen to go, and may go, by rounding.
                side.load(disturbed(present, number * steps + step, amplitudes(step)))
                tick()


def _widen(envelope: Envelope, rung: str, step: int, base: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    for name in base:
        if name in mine:
            envelope.add((rung, name, step), np.asarray(base[name], _dtype(base[name])), np.asarray(mine[name]))


def _dtype(value: Any) -> Any:
    return value.dtype if isinstance(value, np.ndarray) else np.float64


def _reordered(batch: Batch, seed: int) -> dict[str, Array]:
    """The batch with its examples in another order, that of the first axis of what has one."""
    arrays = {name: np.asarray(value) for name, value in batch.items()}
    order = _order(arrays, seed)
    return {name: array[order] if array.ndim and len(array) == len(order) else array for name, array in arrays.items()}


def _order(arrays: Mapping[str, Array], seed: int) -> Array:
    sizes = [len(array) for array in arrays.values() if array.ndim]
    return np.random.default_rng(seed).permutation(max(sizes, key=sizes.count) if sizes else 0)


def _symmetric(side: Side, still: Still, batch: Batch) -> bool:
    """Whether the order of a batch's examples makes no difference but to the order of outputs, up to rounding."""
    side.at(still.step)
    side.load(still.state)
    other = _reordered(batch, 0)
    order = _order({name: np.asarray(value) for name, value in batch.items()}, 0)
    for mode, outputs in still.outputs.items():
        shown = outputs_of(side, other, mode == "training")
        for name in outputs:
            left, right = np.asarray(outputs[name]), np.asarray(shown[name])
            same_length = left.ndim and len(left) == len(order)
            if not (_close(left, right) or (same_length and _close(left[order], right))):
                return False
    for phase, reports in still.reports.items():
        side.load(still.state)
        mine = side.run_phase(phase, other)
        if "loss" not in reports or not _close(np.asarray(reports["loss"]), np.asarray(mine["loss"])):
            return False
    return True


def _close(left: Array, right: Array) -> bool:
    if left.shape != right.shape or left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    return bool(np.abs(left - right).max(initial=0.0) <= SYMMETRIC * np.abs(left).max(initial=0.0))


def _widen_outputs(envelope: Envelope, base: Still, mine: Still, wanted: set[str] | None) -> None:
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
    nodes = [node for node in mine.nodes.get("inference", ()) if wanted is None or node.name in wanted]
    others = {node.name: node.value for node in nodes}
    for node in base.nodes.get("inference", ()):
        if node.name in others:
            envelope.add(("forward", f"inference/{node.name}", step), node.value, others[node.name])


def _widen_stills(envelope: Envelope, base: Still, mine: Still, phases: Sequence[str]) -> None:
    step = base.step
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
