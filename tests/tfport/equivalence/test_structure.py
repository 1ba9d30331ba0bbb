"""Rung 1: every way in which two sides can be built differently is found before a number is looked at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fakes import FakeSubject, Faults, small_spec
from tfport.equivalence.measurement import RungMeasurement
from tfport.equivalence.structure import compare_structure
from tfport.state import State
from tfport.subject import OptimizerInfo, Subject, VariableInfo

KERNEL = "generator/hidden/kernel"


def compared(modern: Subject, legacy: Subject | None = None) -> RungMeasurement:
    rung = RungMeasurement("structure")
    compare_structure(rung, legacy or FakeSubject(small_spec()), modern)
    return rung


def told(**of_kernel: Any) -> FakeSubject:
    return FakeSubject(small_spec(), faults=Faults(variables={KERNEL: of_kernel}))


def test_equal_sides_leave_no_finding() -> None:
    rung = compared(FakeSubject(small_spec(), seed=1))
    assert not (rung.missing or rung.faults)
    assert rung.notes == ["160 parameters in 8 variables on both sides"]
    assert rung.compared == 8 + 2 + 26


@pytest.mark.parametrize(
    ("modern", "fault"),
    [
        (told(dtype="float64"), f"variable {KERNEL} is float32 against float64"),
        (told(trainable=False), f"variable {KERNEL} is trainable=True against trainable=False"),
        (
            told(optimizers=("discriminator",)),
            f"variable {KERNEL} is held by the generator optimizer against the discr",
        ),
        (told(optimizers=()), f"variable {KERNEL} is held by the generator optimizer against the no one"),
        (
            told(optimizers=("generator", "discriminator")),
            f"variable {KERNEL} is held by the generator optimizer against the discriminator and generator one",
        ),
        (told(shape=(4, 7)), "160 parameters against 164"),
        (
            FakeSubject(small_spec(), faults=Faults(hyperparameters={"epsilon": 1e-7})),
            r"the generator optimizer's epsilon is 9.99999994e-09 against 1.00000001e-07",
        ),
        (
            FakeSubject(
                small_spec(), faults=Faults(hyperparameters={"learning_rate": float(np.float32(2e-4)) * (1 + 2e-7)})
            ),
            "the discriminator optimizer's learning_rate is",
        ),
        (
            FakeSubject(small_spec(), faults=Faults(hyperparameters={"beta_1": float("nan")})),
            "the generator optimizer's beta_1 is",
        ),
    ],
)
def test_a_difference_is_a_fault(modern: Subject, fault: str) -> None:
    assert any(re.search(fault, found) for found in compared(modern).faults)


def test_another_shape_of_as_many_parameters_is_not_comparable() -> None:
    rung = compared(told(shape=(6, 4)))
    assert rung.missing == [f"variable {KERNEL} has shape (4, 6) against (6, 4)"]
    assert not rung.faults


def test_a_missing_variable_is_named_on_either_side_with_its_slots() -> None:
    whole, less = FakeSubject(small_spec()), FakeSubject(small_spec(), faults=Faults(lacks=("generator/output/bias",)))
    slots = [f"optimizer/generator/{slot}/generator/output/bias is part of one side's state only" for slot in "mv"]
    for legacy, modern, text in ((whole, less, "is missing on"), (less, whole, "is only on")):
        rung = compared(modern, legacy)
        assert rung.missing == [f"variable generator/output/bias (9,) {text} the modern side", *slots]
        assert any("parameters against" in fault for fault in rung.faults)


@pytest.mark.parametrize("order", ["fewer", "turned"])
def test_other_phases_are_found(order: str) -> None:
    spec = small_spec()
    phases = spec.phases[:1] if order == "fewer" else spec.phases[::-1]
    rung = compared(FakeSubject(dataclasses.replace(spec, phases=phases)))
    assert any(fault.startswith("the phases are discriminator, generator against") for fault in rung.faults)
    assert ("the generator optimizer is there on one side only" in rung.missing) == (order == "fewer")


def test_half_steps_against_a_joint_step_are_other_phases_under_the_same_optimizers() -> None:
    rung = compared(FakeSubject(small_spec("leaky_gan")))
    assert (
        "the phases are discriminator, generator against discriminator_real, discriminator_fake, generator"
        in rung.faults
    )
    assert not rung.missing


def test_the_order_in_which_a_variables_optimizers_are_told_is_nothing() -> None:
    names = ("generator", "discriminator")
    assert not compared(told(optimizers=names), told(optimizers=names[::-1])).faults


class _Told(FakeSubject):
    """A subject that tells of other variables, optimizers or state than it has."""

    def __init__(
        self,
        variables: tuple[VariableInfo, ...] = (),
        optimizers: tuple[OptimizerInfo, ...] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(small_spec())
        self.more, self.others, self.more_arrays = variables, optimizers, arrays or {}

    def variables(self) -> tuple[VariableInfo, ...]:
        return super().variables() + self.more

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        return super().optimizers() if self.others is None else self.others

    def state(self) -> State:
        found = super().state()
        return State(found.model, {**found.arrays, **self.more_arrays}) if hasattr(self, "more_arrays") else found


def test_two_variables_of_one_name_are_not_taken_for_one() -> None:
    twin = VariableInfo(KERNEL, "kernel_1", (4, 6), "float32", True, ("generator",))
    assert f"{KERNEL} names more than one variable of the modern side" in compared(_Told((twin,))).faults


def test_two_optimizers_of_one_name_are_not_taken_for_one() -> None:
    both = FakeSubject(small_spec()).optimizers()
    rung = compared(_Told(optimizers=(*both, both[0])))
    assert rung.faults == ["discriminator names more than one optimizer of the modern side"]


def test_another_algorithm_and_a_number_only_one_side_knows() -> None:
    first, second = FakeSubject(small_spec()).optimizers()
    more = {**second.hyperparameters, "weight_decay": 0.0}
    rung = compared(
        _Told(optimizers=(dataclasses.replace(first, algorithm="AdamW"), OptimizerInfo("generator", "Adam", more)))
    )
    assert rung.faults == ["the discriminator optimizer is Adam against AdamW"]
    assert rung.missing == ["the generator optimizer's weight_decay is known on one side only"]


def test_slots_and_numbers_that_come_with_another_algorithm_are_not_missing() -> None:
    first, second = FakeSubject(small_spec()).optimizers()
    rate = first.hyperparameters["learning_rate"]
    other = OptimizerInfo("discriminator", "Lion", {"learning_rate": rate, "rho": 0.5})
    arrays = {"optimizer/discriminator/lion/x": np.zeros(2), "optimizer/generator/vhat/x": np.zeros(2)}
    rung = compared(_Told(optimizers=(other, second), arrays=arrays))
    assert rung.faults == ["the discriminator optimizer is Adam against Lion"]
    assert rung.missing == ["optimizer/generator/vhat/x is part of one side's state only"]


@pytest.mark.parametrize("name", ["optimizer/generator/vhat/x", "dropout/seed"])
def test_state_that_only_one_side_has_is_named(name: str) -> None:
    more = _Told(arrays={name: np.zeros(2, np.float32)})
    for legacy, modern in ((None, more), (more, FakeSubject(small_spec()))):
        assert compared(modern, legacy).missing == [f"{name} is part of one side's state only"]


def test_slots_of_another_shape_or_dtype_are_found() -> None:
    slot = f"optimizer/generator/m/{KERNEL}"
    wide = compared(_Told(arrays={slot: np.zeros((4, 6)), "optimizer/generator/iterations": np.array(0, np.int32)}))
    assert wide.faults == [
        "optimizer/generator/iterations is int64 against int32 in the state",
        f"{slot} is float32 against float64 in the state",
    ]
    turned = compared(_Told(arrays={slot: np.zeros((6, 4), np.float32)}))
    assert turned.missing == [f"{slot} has shape (4, 6) against (6, 4) in the state"]
