"""Where in the code two sides part: the first node whose inputs agree and whose output does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tfport.checking.observe import KeptNode, Still
from tfport.checking.report import Location, Neighbour
from tfport.checking.values import CLOSE, first_apart, matched
from tfport.equivalence.distance import first_mismatch
from tfport.equivalence.result import Divergence

Array = np.ndarray[Any, Any]
SINGLE = CLOSE / 4
"""How far apart, as a share of the largest magnitude, is one value in float32."""
DOUBLE = 2.0**-40
"""The same in float64."""
_AROUND = 2
"""Elements that are shown before and behind the first one that differs."""


def locate(legacy: Still, modern: Still, phases: Sequence[str], close: float, inference_first: bool) -> Location | None:
    """The place at one state that both sides were looked at in.

    Args:
      legacy: what the legacy side showed, nodes with it.
      modern: what the modern side showed from the same state.
      phases: shared names, in order.
      close: how far apart, as a share of the largest magnitude, is still one value.
      inference_first: whether outputs in inference mode are looked at before the phases.

    Returns:
      None where every intermediate that both compute agrees.
    """
    order = ["inference", *phases] if inference_first else [*phases, "inference"]
    for key in order:
        if key in legacy.nodes and key in modern.nodes:
            found = _apart(legacy.nodes[key], modern.nodes[key], close)
            if found is not None:
                phase = "" if key == "inference" else key
                return _described(*found, modern.nodes[key], legacy.step, phase, close)
    return None


def _apart(
    legacy: Sequence[KeptNode], modern: Sequence[KeptNode], close: float
) -> tuple[KeptNode | None, KeptNode, dict[str, str]] | None:
    left, right = _leading_to_last(legacy), _leading_to_last(modern)
    partners = matched(left, right, close)
    apart = first_apart(right, partners)
    if apart is None:
        return None
    counterpart = first_apart(left, set(partners.values()))
    return _as_node(left, counterpart), _as_node(right, apart) or right[-1], partners


def _as_node(nodes: Sequence[KeptNode], found: Any) -> KeptNode | None:
    return next((node for node in nodes if found is not None and node.name == found.name), None)


def _leading_to_last(nodes: Sequence[KeptNode]) -> list[KeptNode]:
    """The nodes from which the last one, the loss or the last output, is computed; and outputs that stand alone."""
    if not nodes:
        return []
    by_name = {node.name: node for node in nodes}
    wanted: set[str] = set()
    pending = [nodes[-1].name]
    while pending:
        name = pending.pop()
        if name in by_name and name not in wanted:
            wanted.add(name)
            pending += by_name[name].inputs
    return [node for node in nodes if node.name in wanted]


def _described(
    counterpart: KeptNode | None,
    apart: KeptNode,
    partners: Mapping[str, str],
    modern: Sequence[KeptNode],
    step: int,
    phase: str,
    close: float,
) -> Location:
    agreeing = _agreeing(apart, partners, modern)
    variables = tuple(
        (name, name) for name in dict.fromkeys([*apart.variables, *(counterpart.variables if counterpart else ())])
    )
    neighbours: tuple[Neighbour, ...] = ()
    if counterpart is not None and counterpart.value.size == apart.value.size:
        neighbours = _neighbours(counterpart.value, apart.value.reshape(counterpart.value.shape), close)
    where = f"phase {phase}" if phase else "the outputs in inference mode"
    inputs = ", ".join(dict.fromkeys(other for _, other in agreeing)) or "the program's inputs"
    partner = (
        f"beside {counterpart.name} ({counterpart.kind}) on the legacy side" if counterpart else "without a counterpart"
    )
    reads = f", reading {', '.join(apart.variables)}" if apart.variables else ""
    text = (
        f"Step {step}, {where}: what goes into {apart.name} ({apart.kind}{reads}) agrees ({inputs}), and what comes "
        f"out does not; it stands {partner}."
    )
    return Location(
        step,
        phase,
        apart.name,
        apart.kind,
        counterpart.name if counterpart else "",
        counterpart.kind if counterpart else "",
        agreeing,
        variables,
        neighbours,
        text,
    )


def _agreeing(apart: KeptNode, partners: Mapping[str, str], nodes: Sequence[KeptNode]) -> tuple[tuple[str, str], ...]:
    """Legacy and modern names of the nearest inputs that agree, looking through what has no partner of itself."""
    by_name = {node.name: node for node in nodes}
    found: dict[str, str] = {}
    pending, seen = list(apart.inputs), set()
    while pending:
        name = pending.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if name in partners:
            found[name] = partners[name]
        elif name in by_name:
            pending += by_name[name].inputs
        else:
            found[name] = name  # an input of the program: both are fed the same
    return tuple((one, other) for other, one in found.items())


def _neighbours(legacy: Array, modern: Array, close: float) -> tuple[Neighbour, ...]:
    mismatch = first_mismatch(legacy, modern, close)
    if mismatch is None:
        return ()
    flat = int(np.ravel_multi_index(mismatch.index, legacy.shape)) if legacy.shape else 0
    places = range(max(0, flat - _AROUND), min(legacy.size, flat + _AROUND + 1))
    one, other = legacy.reshape(-1), modern.reshape(-1)
    return tuple(
        Neighbour(
            tuple(int(each) for each in np.unravel_index(place, legacy.shape)) if legacy.shape else (),
            float(one[place]),
            float(other[place]),
        )
        for place in places
    )


def of_gradient(legacy: Still, modern: Still, phase: str, names: Sequence[str], close: float) -> Location | None:
    """Where the loss agrees and gradients do not: the variable nearest to the loss whose gradient differs.

    Args:
      legacy: the legacy side at a state.
      modern: the modern side at it.
      phase: shared name.
      names: variables in the order of computation.
      close: how far apart is still one value.
    """
    if phase not in legacy.gradients or phase not in modern.gradients:
        return None
    left, right = legacy.gradients[phase], modern.gradients[phase]
    apart = [name for name in names if name in left and name in right and _differ(left[name], right[name], close)]
    if not apart:
        return None
    same = [name for name in names if name in left and name in right and name not in apart]
    name = apart[-1]
    text = (
        f"Step {legacy.step}, phase {phase}: the loss and every intermediate agree, and the gradient of {name} does not"
        + (
            f" (it does for {', '.join(same[:3])})."
            if same
            else f", like {len(apart) - 1} others: look at clipping, scaling or a penalty on the gradients."
        )
    )
    return Location(
        legacy.step,
        phase,
        name,
        "gradient",
        name,
        "gradient",
        (),
        ((name, name),),
        _neighbours(left[name], right[name], close),
        text,
    )


def of_update(
    legacy: Still, modern: Still, phase: str, tensor: str, optimizers: tuple[str, str], close: float
) -> Location:
    """Where gradients agree and the state after the phase does not: the optimizer, or what moves beside it.

    Args:
      legacy: the legacy side at a state.
      modern: the modern side at it.
      phase: shared name.
      tensor: what differs, as the rung calls it.
      optimizers: of both sides; empty where none holds the tensor.
      close: how far apart is still one value.
    """
    name = tensor.removeprefix(f"{phase}/").removeprefix("step/")
    left, right = legacy.after.get(phase), modern.after.get(phase)
    neighbours: tuple[Neighbour, ...] = ()
    if left is not None and right is not None and name in left and name in right:
        neighbours = _neighbours(left[name], right[name], close)
    update = f"the update itself differs (optimizers {optimizers[0]} and {optimizers[1] or 'none'})"
    if not optimizers[0]:
        update = "no optimizer holds it, so what moves it beside the optimizers differs (a moving statistic or average)"
    text = (
        f"Step {legacy.step}, phase {phase}: outputs, loss and gradients agree, and {name} after the phase does not: "
        f"{update}."
    )
    return Location(
        legacy.step, phase, optimizers[1], "update", optimizers[0], "update", (), ((name, name),), neighbours, text
    )


def of_resume(first: Divergence, why: str, found: Location | None) -> Location:
    """Where the modern side, from the legacy side's state in the middle, leaves the legacy side's trajectory.

    Args:
      first: where the rung first differs.
      why: what that means; empty where rungs below it were not asked or failed.
      found: the place at the state before that step, where both were looked at there and one was found.
    """
    text = f"Step {first.step}: {why}." if why else f"Step {first.step}: the modern side, resumed, goes another way."
    if found is None:
        return Location(first.step, first.phase or "", "", "", "", "", (), text=text)
    return replace(found, text=f"{text} {found.text}")


def _differ(one: Array, other: Array, close: float) -> bool:
    scale = max(float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)))
    return one.shape != other.shape or not float(np.abs(one - other).max(initial=0.0)) <= close * scale
