"""How far rounding alone can take the legacy side: what shows rounding where there is no float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    runs = [("free_trajectory", 0)]
    if "resume" in order.measured:
        runs.append(("resume", resume_step(order.steps)))
    work = DISTURBANCES * (len(record.forced) + sum(order.steps - begin for _, begin in runs))
    with (
        session.timed("envelope"),
        session.opened("legacy", "float32") as program,
        session.bar("envelope", work) as tick,
    ):
        side = session.side(program, "legacy")
        batches = session.batches(program)
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
                    _widen_outputs(found, still, mine, outputs)
                _widen_stills(found, still, mine, phases)
        for number in range(1, DISTURBANCES + 1):
            states, reports = record.trajectory.states, record.trajectory.reports
            for step in record.forced:
                side.at(step)
                side.load(disturbed(states[step], number))
                batch = dict(disturbed(batches[step], number))
                mine_reports = side.step(_reordered(batch, number) if mixed else batch)
                _widen(found, "forced_trajectory", step, reports[step], mine_reports)
                _widen(found, "forced_trajectory", step, states[step + 1], side.state().arrays)
                tick()
            for rung, begin in runs:
                side.load(disturbed(states[begin], number))
                for step in range(begin, order.steps):
                    side.at(step)
                    reordered = _reordered(batches[step], number) if mixed else batches[step]
                    _widen(found, rung, step, reports[step], side.step(reordered))
                    present = side.state().arrays
                    if step + 1 in states:
                        _widen(found, rung, step, states[step + 1], present)
                    # From here on as far as one step of the modern side was seen to go, and may go, by rounding.
                    side.load(disturbed(present, number * order.steps + step, _steps_apart(found, first, step)))
                    tick()
    for forced, name, step in [key for key in found.spans if key[0] == "forced_trajectory"]:
        for rung, _ in runs:  # its last step is one of those
            found.extra[rung, name, step] = found.allows((forced, name, step))
    return found


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


def _widen_outputs(envelope: Envelope, base: Still, mine: Still, outputs: Sequence[tuple[str, str]]) -> None:
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
