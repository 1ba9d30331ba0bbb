"""What a side shows at a state and along a trajectory, and how states are disturbed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import FakeProgram, Plan
from tfport.checking.batches import BatchSource
from tfport.checking.observe import Still, Trajectory, disturbed, observe, probe_state, run
from tfport.checking.sides import Side
from tfport.checking.store import Store
from tfport.program import Batch, OptimizerInfo

Array = np.ndarray[Any, Any]
TWO = Plan(optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES)


def seen(store: Store, plan: Plan, **how: Any) -> Still:
    side = Side(FakeProgram(plan), "legacy")
    return observe(side, store, side.state().arrays, fake.batches(0), 0, **how)


def test_a_still_holds_what_the_program_does_from_that_state() -> None:
    batch = fake.batches(0)
    with Store() as store:
        still = seen(store, TWO)
        program = FakeProgram(TWO)
        assert not still.faults and not still.unstable
        assert still.objectives == {phase: program.loss(phase, batch) for phase in ("first", "second")}
        for mode in ("training", "inference"):
            assert np.array_equal(still.outputs[mode]["prediction"], program.forward(batch, False)["prediction"])
        assert list(still.gradients["first"]) == ["hidden/kernel", "hidden/bias"]
        assert still.moved("first") == ["hidden/kernel", "hidden/bias"]
        assert still.moved("second") == ["output/kernel", "output/bias"]
        assert set(still.nodes) == {"inference", "first", "second"}
        assert still.nodes["first"][-1].value == np.float32(still.objectives["first"])
        program.run_phase("second", batch)  # alone, from the state
        after = program.state().arrays
        assert all(np.array_equal(still.after["second"][name], after[name]) for name in after)
        program = FakeProgram(TWO)
        assert still.step_reports == program.step(batch)
        assert still.after_step is not None
        assert np.array_equal(still.after_step["output/kernel"], program.state().arrays["output/kernel"])


def test_what_the_code_does_not_show_is_left_out() -> None:
    with Store() as store:
        still = seen(store, Plan(hides=("loss", "gradients")), nodes=False)
        assert not still.objectives and not still.gradients and not still.nodes
        assert still.reports["train"]["loss"] > 0
        still = seen(store, Plan(no_gradient=("output/bias",)))
        assert still.without == {"train": ("output/bias",)}
        assert "output/bias" not in still.gradients["train"]


def test_looking_that_changes_the_state_is_a_fault() -> None:
    with Store() as store:
        assert seen(store, Plan(dirty="output/bias")).faults == ["looking at outputs and gradients changed output/bias"]


def test_what_two_runs_do_not_repeat_is_unstable() -> None:
    with Store() as store:
        wild = Plan(dropout=0.5, uncontrolled=True, optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES)
        found = seen(store, wild, twice=True).unstable
        assert {"prediction", "hidden/kernel", "output/kernel", "optimizer/adam/m/output/bias"} <= found
        assert "optimizer/adam/iterations" not in found
        assert not seen(store, wild).unstable  # nobody looked
        assert not seen(store, Plan(dropout=0.5), twice=True).unstable


def trajectory(store: Store, keep: Any, steps: int = 4) -> tuple[Trajectory, int]:
    program, ticks = FakeProgram(), []
    found = run(
        Side(program, "legacy"),
        store,
        FakeProgram(seed=3).state().arrays,
        BatchSource(fake.batches),
        steps,
        keep,
        lambda: ticks.append(1),
    )
    return found, len(ticks)


def test_a_trajectory_is_so_many_steps_from_a_state() -> None:
    with Store() as store:
        found, ticks = trajectory(store, lambda step: step in (0, 3, 4))
        program = FakeProgram(seed=3)
        reports = []
        for step in range(4):
            program.draws.step = step
            if step == 3:
                before = program.state().arrays["hidden/kernel"]
            reports.append(program.step(fake.batches(step)))
        assert found.reports == reports and ticks == 4
        assert sorted(found.states) == [0, 3, 4]
        assert np.array_equal(found.states[3]["hidden/kernel"], before)
        assert np.array_equal(found.states[4]["hidden/kernel"], program.state().arrays["hidden/kernel"])


# --- Disturbances -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_disturbed_state_is_one_unit_away_in_both_directions(dtype: str) -> None:
    array = np.random.default_rng(0).standard_normal(500).astype(dtype)
    moved = disturbed({"a": array, "n": np.array(3)}, 1)
    assert list(moved) == ["a", "n"] and len(moved) == 2 and moved["n"] == 3
    assert moved["a"].dtype == array.dtype
    up, down = (np.nextafter(array, array.dtype.type(towards)) for towards in (np.inf, -np.inf))
    assert np.array_equal(np.where(moved["a"] > array, up, down), moved["a"])
    assert 150 < (moved["a"] > array).sum() < 350
    assert np.array_equal(moved["a"], disturbed({"a": array}, 1)["a"])
    assert not np.array_equal(moved["a"], disturbed({"a": array}, 2)["a"])


def test_zeros_stay_and_an_amplitude_moves_further_without_a_change_of_sign() -> None:
    positive = np.array([0.0, 1.0, 2.0], np.float32)
    assert disturbed({"a": positive}, 1)["a"][0] == 0
    wide = np.zeros(1_000, np.float32)
    moved = disturbed({"v": wide, "w": wide - np.float32(1)}, 1, {"v": 0.1, "w": 0.1})
    assert moved["v"].min() >= 0 and 0.08 < moved["v"].max() <= 0.1
    gap = moved["w"] + 1
    assert -0.11 < gap.min() < -0.08 and 0.08 < gap.max() < 0.11


def test_a_probe_state_tells_every_variable_from_every_other() -> None:
    state: dict[str, Array] = {
        "zeros": np.zeros(300, np.float32),
        "ones": np.ones(300, np.float64),
        "small": np.full(300, 0.01, np.float32),
        "wide": np.linspace(-30, 30, 300).astype(np.float32),
        "count": np.arange(3),
        "empty": np.zeros(0, np.float32),
        "optimizer/adam/m/zeros": np.zeros(300, np.float32),
    }
    found = probe_state(state, ["zeros", "ones", "small", "wide", "count", "empty"], 0)
    assert list(found) == list(state)
    assert 0.08 < found["zeros"].std() < 0.12 and len(set(found["zeros"].tolist())) > 290
    assert found["ones"].min() > 0 and found["ones"].dtype == np.float64 and found["ones"].std() > 0.08
    assert found["small"].min() > 0 and found["small"].std() > 0.04  # a variance stays one
    assert 1 < (found["wide"] - state["wide"]).std() < 3
    assert not np.any(found["optimizer/adam/m/zeros"]) and found["count"].tolist() == [0, 1, 2]
    assert not np.array_equal(found["zeros"], probe_state(state, ["zeros"], 1)["zeros"])


class Assigning(FakeProgram):
    """Its step assigns the rate, and nothing but a step does."""

    assigned = 0.1

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return tuple(
            replace(each, hyperparameters={**each.hyperparameters, "learning_rate": self.assigned})
            for each in super().optimizers()
        )

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        self.assigned = 0.05
        return super().run_phase(phase, batch)


def test_a_rate_that_the_step_assigns_is_not_known_from_before_it() -> None:
    side = Side(Assigning(), "legacy")
    with Store() as store:
        still = observe(side, store, side.state().arrays, fake.batches(0), 0)
        assert "learning_rate" not in still.optimizers[0].hyperparameters
        assert "beta_1" in still.optimizers[0].hyperparameters
        again = observe(side, store, side.state().arrays, fake.batches(0), 0)
        assert again.optimizers[0].hyperparameters["learning_rate"] == np.float32(0.05)
