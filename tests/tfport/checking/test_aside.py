"""Which slot, average or hand-written variable is which, by values over a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfport.checking.aside import Partner, aside, partners
from tfport.layouts import MappedVariable
from tfport.program import Node
from tfport.subject import VariableInfo

GENERATOR = np.random.default_rng(0)
SLOPES = [GENERATOR.normal(size=(3, 2)) for _ in range(3)]
TURNED = {"dense/kernel": (MappedVariable("w", "dense/kernel", (3, 2), (2, 3), transpose=(1, 0)),)}


def average(decay: float, of: Any = lambda slope: slope) -> dict[int, Any]:
    """Moving averages of what each step gives."""
    kept, found = np.zeros((3, 2)), {}
    for step, slope in enumerate(SLOPES, 1):
        kept = decay * kept + (1 - decay) * of(slope)
        found[step] = kept
    return found


def by_step(**tracks: dict[int, Any]) -> dict[int, dict[str, Any]]:
    return {step: {name.replace("__", "/"): track[step] for name, track in tracks.items()} for step in (1, 2, 3)}


def turned(track: dict[int, Any], factor: float = 1.0) -> dict[int, Any]:
    return {step: factor * value.T for step, value in track.items()}


FIRST, SECOND = average(0.9), average(0.999, np.square)


def named(found: list[Partner]) -> dict[str, tuple[str, float, bool]]:
    return {each.legacy: (each.modern, each.factor, each.proven) for each in found}


@pytest.mark.parametrize("factor", [1.0, -0.01, 1 / 0.003])
def test_slots_are_told_apart_and_scaled_by_what_somebody_wrote(factor: float) -> None:
    modern = by_step(
        optimizer__adam__v__dense__kernel=turned(SECOND), optimizer__adam__m__dense__kernel=turned(FIRST, 1 / factor)
    )
    found = named(partners(by_step(m0=FIRST, v0=SECOND), modern, TURNED))
    assert found == {
        "m0": ("optimizer/adam/m/dense/kernel", pytest.approx(factor, rel=1e-12), True),
        "v0": ("optimizer/adam/v/dense/kernel", 1.0, True),
    }


def test_another_decay_is_a_likely_partner_and_no_factor() -> None:
    modern = by_step(optimizer__adam__m__dense__kernel=turned(average(0.8)))
    assert named(partners(by_step(m0=FIRST), modern, TURNED)) == {"m0": ("optimizer/adam/m/dense/kernel", 1.0, False)}


def test_what_is_not_alike_has_no_partner() -> None:
    noise = {step: GENERATOR.normal(size=(2, 3)) for step in (1, 2, 3)}
    assert not partners(by_step(m0=FIRST), by_step(optimizer__adam__m__dense__kernel=noise), TURNED)
    assert not partners(by_step(m0=FIRST), by_step(optimizer__adam__m__other=turned(FIRST)), TURNED)


def test_slots_of_two_optimizers_go_by_their_names() -> None:
    legacy, modern = by_step(optimizer__a__m__w=FIRST), by_step(optimizer__b__rms__dense__kernel=turned(FIRST))
    assert not partners(legacy, modern, TURNED)


def test_what_no_intermediate_reads_is_aside_unless_it_trains() -> None:
    def info(name: str, *optimizers: str) -> VariableInfo:
        return VariableInfo(name, name, (2,), "float32", True, optimizers)

    node = Node("out", "MatMul", (), ("w",), np.zeros(2))
    variables = [info("w"), info("held", "adam"), info("by_hand"), info("average")]
    assert aside(variables, [node], {"by_hand"}) == {"average"}
    assert aside(variables, [], set()) == set()
