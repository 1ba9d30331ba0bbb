"""Where in the code two sides part: the first node whose inputs agree and whose output does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tfport.checking.alignment import Intermediate, Parting, parting
from tfport.checking.observe import Still
from tfport.checking.report import Location, Neighbour
from tfport.checking.values import CLOSE
from tfport.equivalence.distance import first_mismatch
from tfport.equivalence.result import Divergence
from tfport.program import shown

Array = np.ndarray[Any, Any]
SINGLE = CLOSE / 4
"""How far apart, as a share of the largest magnitude, is one value in float32."""
DOUBLE = 2.0**-40
"""The same in float64."""
SUMMED = (
    "It is one of several variables that are added up, or stands for several: each summand gets the whole gradient, so "
    "that a sum of two moves twice as far as one variable."
)
"""Said of an update where the mapping has a sum."""
_AROUND = 2
"""Elements that are shown before and behind the first one that differs."""
_NAMED = 3
"""Nodes and inputs that a sentence names."""


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
            found = parting(legacy.nodes[key], modern.nodes[key], close, legacy.inputs, modern.inputs)
            if found is not None:
                return _described(found, legacy.step, "" if key == "inference" else key, close)
    return None


def _described(found: Parting, step: int, phase: str, close: float) -> Location:
    one, other = found.legacy, found.modern
    read = [each for each in (other, one, *(found.beside or ())) if each is not None]
    neighbours: tuple[Neighbour, ...] = ()
    if one is not None and other is not None and one.value.size == other.value.size:
        neighbours = _neighbours(one.value, other.value.reshape(one.value.shape), close)
    where = f"phase {phase}" if phase else "the outputs in inference mode"
    return Location(
        step,
        phase,
        other.name if other else "",
        other.kind if other else "",
        one.name if one else "",
        one.kind if one else "",
        found.agreeing,
        tuple((name, name) for name in dict.fromkeys(name for each in read for name in each.variables)),
        neighbours,
        f"Step {step}, {where}: {' '.join(_sentences(found))}",
        other.where if other else "",
        one.where if one else "",
        found.differing,
        tuple(node.name for node in found.only_legacy),
        tuple(node.name for node in found.only_modern),
    )


def _sentences(found: Parting) -> list[str]:
    """What is known of the place, a sentence each."""
    one, other = found.legacy, found.modern
    both = _listed(f"{name} with axes exchanged" if name in found.exchanged else name for _, name in found.agreeing)
    if one is None or other is None:
        only = other or one
        assert only is not None
        nodes = found.only_modern if one is None else found.only_legacy
        names = _listed(told(node, constants=True) for node in nodes)
        verb = "is" if len(nodes) == 1 else "are"
        if found.beside is None and nodes:
            mine, others = ("port", "original") if one is None else ("original", "port")
            values = "its value" if len(nodes) == 1 else "their values"
            return [f"{names} {verb} only in the {mine}: nothing in the {others} has {values}."]
        if found.beside is None:
            goes_in = f"what goes into {told(only)} agrees ({both}), and " if both and other is not None else ""
            side = "original" if other is not None else "port"
            subject = "nothing" if goes_in else f"{told(only)} comes first of what differs: nothing"
            return [f"{goes_in}{subject} in the {side} has its value; no counterpart was found."]
        into = f"{told(found.beside[1])}, whose counterpart is {told(found.beside[0])}"
        return [
            f"{names} {verb} only in the {'port' if one is None else 'original'}. What goes into {into} in the "
            "original, differs by that.",
            *_reading(found),
        ]
    if found.opaque:
        return [
            f"{told(other)} differs from its counterpart in the original, {told(one)}. What differs may lie in "
            f"{_listed(map(told, found.opaque))}, which cannot be looked into."
        ]
    whole = not (found.only_legacy or found.only_modern or found.reads_legacy or found.reads_modern)
    if found.replaced:
        goes_in = f"both read {both}" if both else "both read the same"
        sentences = [f"the port has {told(other)} where the original has {told(one)}; {goes_in}."]
    elif whole and (both or one.variables):
        goes_in = f" ({both})" if both else ""
        sentences = [
            f"what goes into {told(other)} agrees{goes_in}, and what comes out does not. Its counterpart in the "
            f"original is {told(one)}."
        ]
    else:
        sentences = [f"{told(other)} differs from its counterpart in the original, {told(one)}."]
    for name, left, right in found.differing:
        if left and right:
            sentences.append(f"{name} is {left} in the original and {right} in the port.")
        else:
            sentences.append(f"Only in the {'original' if left else 'port'} is {name} a constant: {left or right}.")
    for nodes, side in ((found.only_legacy, "original"), (found.only_modern, "port")):
        if nodes:
            sentences.append(f"Only in the {side} before it: {_listed(told(node, constants=True) for node in nodes)}.")
    return [*sentences, *_reading(found)]


def _reading(found: Parting) -> list[str]:
    """What only one of the two is computed from; something on each side may be one thing that went apart."""
    if found.reads_legacy and found.reads_modern:
        one, other = _listed(found.reads_legacy), _listed(found.reads_modern)
        return [f"It is computed directly from {one} in the original and from {other} in the port."]
    return [
        f"Only in the {side} is it computed directly from {_listed(names)}."
        for names, side in ((found.reads_legacy, "original"), (found.reads_modern, "port"))
        if names
    ]


def told(node: Intermediate, constants: bool = False) -> str:
    """A node with its kind, the variables that it reads and its line: "fc/MatMul (MatMul reading fc/kernel, a.py:3)".

    Args:
      node: the node.
      constants: whether its attributes and constant operands are named too.
    """
    reads = f" reading {_listed(node.variables)}" if node.variables else ""
    given = [f"{name} {text}" for name, text in node.attributes.items() if text != "False"] if constants else []
    return f"{node.name} ({', '.join(part for part in (node.kind + reads, *given[:_NAMED], node.where) if part)})"


def _listed(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


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


def of_gradient(
    legacy: Still, modern: Still, phase: str, names: Sequence[str], close: float, agree: str
) -> Location | None:
    """Where gradients do not agree: the variable nearest to the loss whose gradient differs.

    Args:
      legacy: the legacy side at a state.
      modern: the modern side at it.
      phase: shared name.
      names: variables in the order of computation.
      close: how far apart is still one value.
      agree: what was compared and agrees ("outputs, loss"); empty where nothing was.
    """
    if phase not in legacy.gradients or phase not in modern.gradients:
        return None
    left, right = legacy.gradients[phase], modern.gradients[phase]
    shared = [name for name in names if name in left and name in right]
    apart = [name for name in shared if _differ(left[name], right[name], close)]
    if not apart:
        return None
    same = [name for name in shared if name not in apart]
    name = apart[-1]
    text = f"Step {legacy.step}, phase {phase}: {_so_far(agree)}the gradient of {name} does not agree" + (
        f" (that of {_listed(same)} does)."
        if same
        else f", nor do those of {len(apart) - 1} other variables: look at clipping, scaling or a penalty on the "
        "gradients."
        if len(apart) > 1
        else "."
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
    legacy: Still, modern: Still, phase: str, tensor: str, optimizers: tuple[str, str], close: float, agree: str
) -> Location:
    """Where the state after the phase does not agree: the optimizer, or what moves beside it.

    Args:
      legacy: the legacy side at a state.
      modern: the modern side at it.
      phase: shared name.
      tensor: what differs, as the rung calls it.
      optimizers: of both sides, as each calls it; empty where none holds the tensor.
      close: how far apart is still one value.
      agree: what was compared and agrees; empty where nothing was.
    """
    name = tensor.removeprefix(f"{phase}/").removeprefix("step/")
    left, right = legacy.after.get(phase), modern.after.get(phase)
    neighbours: tuple[Neighbour, ...] = ()
    if left is not None and right is not None and name in left and name in right:
        neighbours = _neighbours(left[name], right[name], close)
    differing: tuple[tuple[str, str, str], ...] = ()
    if optimizers[0]:
        update, differing = _numbers(legacy, modern, optimizers[0])
    else:
        update = (
            "No optimizer holds it: look at what else moves it (a moving statistic or average), its momentum or decay."
        )
    text = f"Step {legacy.step}, phase {phase}: {_so_far(agree)}{name} after the phase does not agree. {update}"
    return Location(
        legacy.step,
        phase,
        optimizers[1],
        "update",
        optimizers[0],
        "update",
        (),
        ((name, name),),
        neighbours,
        text,
        differing=differing,
    )


def of_step(step: int, tensor: str, legacy: Sequence[str], modern: Sequence[str], agree: str) -> Location:
    """Where every phase by itself leaves the same state and the whole step does not.

    Args:
      step: of the state that both were looked at in.
      tensor: what differs.
      legacy: the phases in the order in which the legacy side runs them.
      modern: the same of the modern side, under shared names.
      agree: what was compared and agrees; empty where nothing was.
    """
    text = (
        f"Step {step}: {_so_far(agree)}each phase leaves the same from this state, and {tensor} after the whole step "
        "does not agree. "
    )
    if tuple(legacy) != tuple(modern):
        text += f"The original runs {', then '.join(legacy)}, and the port {', then '.join(modern)}."
    else:
        text += "Look at what one phase hands the next, and at what the step does beside its phases."
    return Location(step, "", "", "update", "", "update", (), ((tensor, tensor),), text=text)


def _so_far(agree: str) -> str:
    return f"{agree} agree, and " if agree else ""


def _numbers(legacy: Still, modern: Still, name: str) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """What both optimizers of a shared name used for this update, in sentences, and what differs."""
    left = next((each for each in legacy.optimizers if each.name == name), None)
    right = next((each for each in modern.optimizers if each.name == name), None)
    if left is None or right is None:
        return f"What {name} used for this update is not known on {'both sides' if left is right else 'one side'}.", ()
    differing, alike, unknown = [], [], []
    if left.algorithm != right.algorithm:
        differing.append(("algorithm", left.algorithm, right.algorithm))
    one, other = left.hyperparameters, right.hyperparameters
    for number in dict.fromkeys([*one, *other]):
        if number in one and number in other:
            if one[number] == other[number]:
                alike.append(f"{number} {shown(one[number])}")
            else:
                differing.append((number, _told(one[number]), _told(other[number])))
        elif one.get(number, other.get(number)):
            text = _told(one[number] if number in one else other[number])
            unknown.append(f"{number} {text} in the {'original' if number in one else 'port'}, not known in the other")
    sentences = [
        f"{number} is {first} in the original and {second} in the port." for number, first, second in differing
    ]
    if unknown:
        sentences.append(f"{'; '.join(unknown)}.")
    if alike:
        sentences.append(f"Both used {', '.join(alike)}.")
    if not differing:
        sentences.append("What else in the update differs is not known.")
    return " ".join(sentences), tuple(differing)


def _told(number: float) -> str:
    return str(np.float32(number))


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
