"""The programs that stand for users' own in these tests keep the contract of `tfport.program`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, HeavyProgram, Layer, Plan
from tfport.errors import CheckpointError
from tfport.program import Program
from tfport.state import State

BATCH: dict[str, Any] = {name: array.astype(np.float64) for name, array in fake.batches(0).items()}
PLANS = {
    "adam": Plan(dropout=0.5, noise=0.1, normalised=True),
    "two phases": Plan(optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES, reordered=True),
    "momentum": Plan(optimizers=(fake.MOMENTUM,), phases=(fake.Phase("train", "momentum", ("hidden", "output")),)),
    "laid out": Plan(transposed=("hidden/kernel",), wide=("output/bias",), names={"hidden/kernel": "w"}, constant=0.1),
    **{
        name: Plan(layers=(Layer("hidden", 4, 6, name, twin=True), Layer("output", 6, 2, name)))
        for name in ("tanh", "sigmoid", "leaky")
    },
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_gradients_are_those_of_the_loss(plan: Plan) -> None:
    program, state = FakeProgram(plan, "float64", 1), FakeProgram(plan, "float64", 1).state()
    for phase in program.phases:
        for name, gradient in program.gradients(phase, BATCH).items():
            assert gradient is not None
            losses = []
            for sign in (1, -1):
                moved = dict(state.arrays)
                moved[name] = moved[name].copy()
                moved[name].flat[1] += sign * 1e-5
                program.load(State("", moved))
                losses.append(program.loss(phase, BATCH))
            program.load(state)
            assert gradient.flat[1] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_looking_leaves_the_state_and_a_step_is_its_phases(plan: Plan) -> None:
    one, other = FakeProgram(plan, "float64", 1), FakeProgram(plan, "float64", 1)
    before = one.state().digest()
    for phase in one.phases:
        outputs = one.forward(BATCH, True), one.forward(BATCH, True)
        assert np.array_equal(outputs[0]["prediction"], outputs[1]["prediction"])
        assert one.nodes(BATCH, True, phase)[-1].value == one.loss(phase, BATCH)
        one.gradients(phase, BATCH)
    assert one.state().digest() == before
    reports = one.step(BATCH)
    assert reports == {f"{phase}/loss": other.run_phase(phase, BATCH)["loss"] for phase in other.phases}
    assert one.state().digest() == other.state().digest() != before


def test_names_of_nodes_are_unique_and_what_they_read_is_there() -> None:
    for plan in PLANS.values():
        program = FakeProgram(plan, "float64")
        nodes = program.nodes(BATCH, True, program.phases[0])
        names = [node.name for node in nodes]
        assert len(set(names)) == len(names)
        assert {name for node in nodes for name in node.inputs} <= {*names, "x", "y"}
        own = {each.name for each in program.variables()}
        assert {name for node in nodes for name in node.variables} <= own


@pytest.mark.parametrize("program", [FakeProgram(), HeavyProgram(10, 2)], ids=["small", "heavy"])
def test_a_state_can_be_loaded_again(program: Program) -> None:
    state = program.state()
    kept = State(state.model, {name: np.array(state.arrays[name]) for name in state.arrays})
    assert {each.name: each.shape for each in program.variables()} == {
        name: array.shape for name, array in kept.arrays.items() if not name.startswith("optimizer/")
    }
    sizes = {each.name: (2, each.shape[1] or 1) for each in program.inputs() if each.shape}
    program.step({name: np.ones(size, np.float32) for name, size in sizes.items()})
    assert program.state().digest() != kept.digest()
    program.load(kept)
    assert program.state().digest() == kept.digest()


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    program = FakeProgram()
    before = program.state()
    for arrays in ({}, {**before.arrays, "more": np.ones(1)}, {**before.arrays, "output/bias": np.ones(3)}):
        with pytest.raises(CheckpointError):
            program.load(State("", arrays))
    assert program.state().digest() == before.digest()
