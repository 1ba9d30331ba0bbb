"""What can be asked of one side without any reference: contracts that training code breaks in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfport.checking.losses import agrees, multiples
from tfport.checking.measure import some
from tfport.checking.observe import KeptNode, Still
from tfport.checking.report import Finding, Movement
from tfport.program import Batch
from tfport.subject import VariableInfo

Array = np.ndarray[Any, Any]

_STATISTICS = re.compile(r"(moving|running|pop)[_-]?(mean|var|variance)\w*$", re.IGNORECASE)
_BOUNDED = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
_BEYOND = 1e-3
"""How far beyond the bounds of its activation real data may lie."""
_LEAST_SIZE = 4
"""Elements of an example below which a bounded output is no picture of the data."""


def movements(side: str, still: Still, variables: Sequence[VariableInfo], phases: Sequence[str]) -> list[Movement]:
    """What each phase moves, and what it leaves alone of all that any optimizer holds."""
    trained = [each.name for each in variables if each.optimizers]
    found = []
    for phase in phases:
        moved = still.moved(phase)
        found.append(Movement(side, phase, tuple(moved), tuple(name for name in trained if name not in moved)))
    return found


def findings(
    side: str,
    stills: Sequence[Still],
    variables: Sequence[VariableInfo],
    phases: Sequence[str],
    batch: Batch,
    drawn: Mapping[str, Sequence[Mapping[str, str]]],
) -> list[Finding]:
    """Every contract that the side breaks.

    Args:
      side: "legacy" or "modern".
      stills: what it showed at some states, the last one telling most.
      variables: its variables.
      phases: their names.
      batch: the batch of the last still.
      drawn: phase -> what its draws looked like in calls that nobody fed, one mapping a call.
    """
    return [
        *_who_trained(side, stills, variables, phases),
        *_reported(side, stills, phases),
        *_ranges(side, stills[-1], batch),
        *_noise(side, drawn),
        *_gradients(side, stills, variables, phases),
        *_statistics(side, stills, variables, phases),
    ]


def unasked(
    stills: Sequence[Still],
    variables: Sequence[VariableInfo],
    drawn: Mapping[str, Sequence[Mapping[str, str]]],
) -> list[str]:
    """The contracts of which the side shows nothing."""
    found = []
    if not any(still.objectives for still in stills):
        found.append("reported loss")
    if not any(node.kind.lower() in _BOUNDED for still in stills for nodes in still.nodes.values() for node in nodes):
        found.append("ranges")
    if not any(call for calls in drawn.values() for call in calls):
        found.append("noise")
    if not any(still.gradients for still in stills):
        found.append("gradients")
    if not any(_STATISTICS.search(each.name) and not each.optimizers for each in variables):
        found.append("statistics")
    return found


def _who_trained(
    side: str, stills: Sequence[Still], variables: Sequence[VariableInfo], phases: Sequence[str]
) -> list[Finding]:
    found = []
    moved = {phase: {name for still in stills for name in still.moved(phase)} for phase in phases}
    trained = {each.name for each in variables if each.optimizers}
    shapes = {each.shape for each in variables if each.optimizers}
    beside = {each.name for each in variables if each.shape in shapes and not _STATISTICS.search(each.name)} - trained
    for phase in phases:
        if moved[phase] & beside and not moved[phase] & trained:
            continue  # it copies to a target network, or adds gradients up
        if not moved[phase] & (trained or moved[phase]):
            held = " that an optimizer holds" if moved[phase] else ""
            found.append(
                Finding(
                    side,
                    "who trained",
                    phase,
                    f"phase {phase} trains nothing: none of {len(trained if held else variables)} variables{held} "
                    "moved. Look for trainable=False when it was compiled or first called, an empty var_list, or a "
                    "gradient that is cut.",
                )
            )
    never = [
        each.name for each in variables if each.optimizers and not any(each.name in moved[phase] for phase in phases)
    ]
    if never and any(moved.values()):
        found.append(
            Finding(
                side,
                "who trained",
                "",
                f"{some(never)} {'is' if len(never) == 1 else 'are'} held by an optimizer and never moved.",
            )
        )
    return found


def _reported(side: str, stills: Sequence[Still], phases: Sequence[str]) -> list[Finding]:
    found = []
    unstable = {name for still in stills for name in still.unstable}
    known = multiples(stills, phases, "float32")
    for phase in phases:
        if (phase, "loss") in known:
            continue
        if any(unstable & set(still.after[phase].changed(still.state)) for still in stills):
            continue  # the loss that is computed has drawn other numbers than the one that is reported
        for still in stills:
            objective, reported = still.objectives.get(phase), still.reports[phase].get("loss")
            if objective is None or reported is None:
                continue
            if not agrees(reported, objective):
                found.append(
                    Finding(
                        side,
                        "reported loss",
                        phase,
                        f"phase {phase} reports a loss of {reported:.6g}, and the loss there is {objective:.6g}. "
                        "Look for a running mean over steps, or a loss that is read after the update.",
                    )
                )
                break
    return found


def _ranges(side: str, still: Still, batch: Batch) -> list[Finding]:
    """Real data outside what the activation that imitates it can reach."""
    found = []
    seen: set[tuple[str, str]] = set()
    for nodes in still.nodes.values():
        for node in nodes:
            bounds = _BOUNDED.get(node.kind.lower())
            if bounds is None:
                continue
            value = node.value
            for name, array in batch.items():
                if array.dtype.kind not in "fiu" or array.ndim < 2 or array[0].size < _LEAST_SIZE:
                    continue
                alike = value.ndim >= 2 and value[0].size == array[0].size
                if not alike or not _meet(node, name, nodes, still):
                    continue
                low, high = float(array.min()), float(array.max())
                if (low < bounds[0] - _BEYOND or high > bounds[1] + _BEYOND) and (node.name, name) not in seen:
                    seen.add((node.name, name))
                    found.append(
                        Finding(
                            side,
                            "ranges",
                            "",
                            f"{name} lies in [{low:.4g}, {high:.4g}], and what is generated beside it by {node.name} "
                            f"({node.kind}) can only lie in [{bounds[0]:g}, {bounds[1]:g}]. Look at how the data is "
                            "scaled.",
                        )
                    )
    return found


def _meet(node: KeptNode, name: str, nodes: Sequence[KeptNode], still: Still) -> bool:
    """Whether a node stands for an input: it is an output of the program, or the same variables read both."""
    if any(
        kept.shape == node.value.shape and np.array_equal(kept, node.value)
        for outputs in still.outputs.values()
        for kept in outputs.values()
    ):
        return True
    reads = [
        {variable for each in nodes if source in each.inputs for variable in each.variables}
        for source in (node.name, name)
    ]
    return bool(reads[0] & reads[1])


def _noise(side: str, drawn: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Finding]:
    found = []
    for phase, calls in drawn.items():
        traced = sorted({name for call in calls for name in call if name.endswith(" (traced)")})
        for name in traced:
            found.append(
                Finding(
                    side,
                    "noise",
                    phase,
                    f"phase {phase}: {name.removesuffix(' (traced)')} draws once, while the function is traced, and "
                    "gives the same numbers at every step. Draw outside of the function, or with TensorFlow's own ops.",
                )
            )
        if len(calls) < 2:
            continue
        for name in calls[0]:
            if name not in traced and calls[0][name] == calls[1].get(name):
                found.append(
                    Finding(
                        side,
                        "noise",
                        phase,
                        f"phase {phase}: {name} draws the same numbers at two steps in a row. Look for a fixed seed in "
                        "a stateless generator, or one that is made anew in each step.",
                    )
                )
    return found


def _gradients(
    side: str, stills: Sequence[Still], variables: Sequence[VariableInfo], phases: Sequence[str]
) -> list[Finding]:
    held = {each.name: each.optimizers for each in variables}
    found = []
    for phase in phases:
        missing = sorted({name for still in stills for name in still.without.get(phase, ()) if held.get(name)})
        if missing:
            found.append(
                Finding(
                    side,
                    "gradients",
                    phase,
                    f"phase {phase}: the loss gives no gradient for {some(missing)}. It is not computed from "
                    f"{'it' if len(missing) == 1 else 'them'}, or something in between has no gradient.",
                )
            )
        looked = [still.gradients[phase] for still in stills if phase in still.gradients]
        zero = [name for name in (looked[0] if looked else ()) if all(_zero(each, name) for each in looked)]
        if zero:
            found.append(
                Finding(
                    side,
                    "gradients",
                    phase,
                    f"phase {phase}: the gradient of {some(zero)} is zero everywhere. Look for a saturated or dead "
                    "activation, or a loss that is clipped.",
                )
            )
    return found


def _zero(gradients: Mapping[str, Array], name: str) -> bool:
    return name in gradients and not np.any(gradients[name])


def _statistics(
    side: str, stills: Sequence[Still], variables: Sequence[VariableInfo], phases: Sequence[str]
) -> list[Finding]:
    names = [each.name for each in variables if _STATISTICS.search(each.name) and not each.optimizers]
    moved = {name for still in stills for phase in phases for name in still.moved(phase)}
    still_standing = [name for name in names if name not in moved]
    if not still_standing:
        return []
    return [
        Finding(
            side,
            "statistics",
            "",
            f"{some(still_standing)} never {'moves' if len(still_standing) == 1 else 'move'} in training. Look for "
            "UPDATE_OPS that nothing runs, training=False in the step, or a layer with trainable=False.",
        )
    ]
