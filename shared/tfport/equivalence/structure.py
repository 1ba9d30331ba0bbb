"""Rung 1: are these the same parameters, in the same hands, under the same optimizers?"""

from __future__ import annotations

from tfport.equivalence.measurement import RungMeasurement
from tfport.subject import Subject


def compare_structure(rung: RungMeasurement, legacy: Subject, modern: Subject) -> None:
    """Compares names, counts, shapes, dtypes, flags, owners, optimizers and their hyperparameters, and state names."""
    _compare_variables(rung, legacy, modern)
    _compare_optimizers(rung, legacy, modern)
    _compare_state(rung, legacy, modern)
    if legacy.phases != modern.phases:
        rung.fault(f"the phases are {', '.join(legacy.phases)} against {', '.join(modern.phases)}")


def _compare_variables(rung: RungMeasurement, legacy: Subject, modern: Subject) -> None:
    left = {variable.name: variable for variable in legacy.variables()}
    right = {variable.name: variable for variable in modern.variables()}
    for side, subject in (("legacy", legacy), ("modern", modern)):
        _no_repetition(rung, f"variable of the {side} side", [variable.name for variable in subject.variables()])
        _no_repetition(rung, f"optimizer of the {side} side", [each.name for each in subject.optimizers()])
    for name in sorted(left.keys() - right.keys()):
        rung.lack(f"variable {name} {left[name].shape} is missing on the modern side")
    for name in sorted(right.keys() - left.keys()):
        rung.lack(f"variable {name} {right[name].shape} is only on the modern side")
    for name in sorted(left.keys() & right.keys()):
        a, b = left[name], right[name]
        rung.compared += 1
        if a.shape != b.shape:
            rung.lack(f"variable {name} has shape {a.shape} against {b.shape}")
        if a.dtype != b.dtype:
            rung.fault(f"variable {name} is {a.dtype} against {b.dtype}")
        if a.trainable != b.trainable:
            rung.fault(f"variable {name} is trainable={a.trainable} against trainable={b.trainable}")
        if sorted(a.optimizers) != sorted(b.optimizers):
            holders = [" and ".join(sorted(each.optimizers)) or "no" for each in (a, b)]
            rung.fault(f"variable {name} is held by the {holders[0]} optimizer against the {holders[1]} one")
    counts = [sum(variable.parameters for variable in side.values()) for side in (left, right)]
    if counts[0] != counts[1]:
        rung.fault(f"{counts[0]:,} parameters against {counts[1]:,}")
    else:
        rung.notes.append(f"{counts[0]:,} parameters in {len(left)} variables on both sides")


def _compare_optimizers(rung: RungMeasurement, legacy: Subject, modern: Subject) -> None:
    left = {optimizer.name: optimizer for optimizer in legacy.optimizers()}
    right = {optimizer.name: optimizer for optimizer in modern.optimizers()}
    for which in sorted(left.keys() ^ right.keys()):
        rung.lack(f"the {which} optimizer is there on one side only")
    for which in sorted(left.keys() & right.keys()):
        a, b = left[which], right[which]
        rung.compared += 1
        if a.algorithm != b.algorithm:
            rung.fault(f"the {which} optimizer is {a.algorithm} against {b.algorithm}")
        for name in sorted(a.hyperparameters.keys() | b.hyperparameters.keys()):
            x, y = a.hyperparameters.get(name), b.hyperparameters.get(name)
            if x is None or y is None:
                if a.algorithm == b.algorithm:
                    rung.lack(f"the {which} optimizer's {name} is known on one side only")
            elif x != y:
                rung.fault(f"the {which} optimizer's {name} is {x:.9g} against {y:.9g}")


def _compare_state(rung: RungMeasurement, legacy: Subject, modern: Subject) -> None:
    left, right = (side.state().arrays for side in (legacy, modern))
    algorithms = [{optimizer.name: optimizer.algorithm for optimizer in side.optimizers()} for side in (legacy, modern)]
    others = tuple(
        f"optimizer/{which}/"
        for which in algorithms[0].keys() & algorithms[1].keys()
        if algorithms[0][which] != algorithms[1][which]
    )
    named = [{variable.name for variable in side.variables()} for side in (legacy, modern)]
    for name in sorted(left.keys() ^ right.keys()):
        # What follows from a variable that one side lacks, or from another algorithm, has been taken down with that.
        if name not in named[0] ^ named[1] and not name.startswith(others):
            rung.lack(f"{name} is part of one side's state only")
    for name in sorted((left.keys() & right.keys()) - (named[0] & named[1])):
        a, b = left[name], right[name]
        if a.shape != b.shape:
            rung.lack(f"{name} has shape {a.shape} against {b.shape} in the state")
        if a.dtype != b.dtype:
            rung.fault(f"{name} is {a.dtype} against {b.dtype} in the state")
    rung.compared += len(left.keys() & right.keys())


def _no_repetition(rung: RungMeasurement, kind: str, names: list[str]) -> None:
    for name in sorted({name for name in names if names.count(name) > 1}):
        rung.fault(f"{name} names more than one {kind}")
