"""A divergence is named by the place in the code where it arises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import Layer, Plan
from tfport.checking.check import check
from tfport.checking.report import Location

pytestmark = pytest.mark.usefixtures("no_frameworks")
DEEP = Plan(
    layers=(Layer("a", 4, 5, "tanh"), Layer("b", 5, 6, "tanh"), Layer("c", 6, 2)),
    phases=(fake.Phase("train", "adam", ("a", "b", "c")),),
    bias=0.1,
)
TWO = Plan(optimizers=(fake.SGD, fake.ADAM), phases=fake.TWO_PHASES)


def place(plan: Plan, both: bool = True, steps: int = 3, **changes: Any) -> Location:
    kind = fake.factory if both else fake.single
    report = check(kind(plan), kind(plan, reordered=True, **changes), fake.batches, steps=steps)
    assert not report.equal and report.location is not None
    return report.location


@pytest.mark.parametrize("both", [True, False], ids=["float64", "envelope"])
def test_a_wrong_activation_is_named_with_its_counterpart_and_inputs(both: bool) -> None:
    wrong = (DEEP.layers[0], Layer("b", 5, 6, "sigmoid"), DEEP.layers[2])
    found = place(DEEP, both, layers=wrong, scope="net/")
    assert (found.step, found.phase) == (0, "train")
    assert (found.modern_node, found.modern_kind) == ("net/b/Sigmoid", "Sigmoid")
    assert (found.legacy_node, found.legacy_kind) == ("b/Tanh", "Tanh")
    assert found.agreeing == (("b/BiasAdd", "net/b/BiasAdd"),)
    assert "net/b/Sigmoid" in found.text and "b/Tanh" in found.text


def test_a_wrong_sum_is_named_with_the_variables_that_it_reads() -> None:
    found = place(DEEP, half_precision="b")
    assert found.modern_node == "b/MatMul" and found.modern_kind == "MatMul"
    assert [name for name, _ in found.variables] == ["b/kernel"]
    assert found.agreeing == (("a/Tanh", "a/Tanh"),)


def test_what_reads_the_inputs_names_them() -> None:
    found = place(DEEP, constant=1.5)
    assert found.modern_node == "scale/Mul" and found.agreeing == (("x", "x"),)


def test_a_wrong_loss_is_named_at_the_loss() -> None:
    found = place(DEEP, loss_factor=1.5)
    assert found.modern_node == "loss/Mean" and found.agreeing == (("loss/Sub", "loss/Sub"),)


def test_neighbours_of_the_first_element_are_shown_from_both_sides() -> None:
    wrong = (DEEP.layers[0], Layer("b", 5, 6, "relu"), DEEP.layers[2])
    found = place(DEEP, layers=wrong)
    assert found.neighbours and found.neighbours[0].index == (0, 0)
    assert len(found.neighbours) == 3
    for neighbour in found.neighbours:
        assert np.tanh(neighbour.modern) == pytest.approx(neighbour.legacy) or neighbour.modern == 0 > neighbour.legacy


@pytest.mark.parametrize("both", [True, False], ids=["float64", "envelope"])
def test_a_wrong_gradient_is_named_by_variable(both: bool) -> None:
    found = place(DEEP, both, gradient_factor=1.01)
    assert (found.modern_kind, found.modern_node, found.phase) == ("gradient", "c/bias", "train")
    assert "gradient of c/bias" in found.text
    found = place(DEEP, both, no_slope=("b/kernel",))
    assert (found.modern_kind, found.modern_node) == ("gradient", "b/kernel")
    assert all(neighbour.modern == 0 for neighbour in found.neighbours)


@pytest.mark.parametrize("both", [True, False], ids=["float64", "envelope"])
def test_a_wrong_update_is_named_by_its_optimizers(both: bool) -> None:
    found = place(DEEP, both, rate_factor=1.01)
    assert (found.modern_kind, found.modern_node, found.legacy_node) == ("update", "adam", "adam")
    assert found.variables == (("a/kernel", "a/kernel"),)
    assert found.neighbours


def test_the_numbers_of_an_update_are_given_and_what_differs_in_them_is_said() -> None:
    name, algorithm, numbers = fake.ADAM
    slower = (name, algorithm, {**numbers, "learning_rate": numbers["learning_rate"] / 2})
    found = place(DEEP, optimizers=(slower,))
    assert found.differing == (("learning_rate", "0.01", "0.005"),)
    assert "learning_rate is 0.01 in the original and 0.005 in the port." in found.text
    assert "Both used beta_1 0.9, beta_2 0.999, epsilon 1e-07." in found.text
    found = place(DEEP, rate_factor=1.01)
    assert not found.differing and "What else in the update differs is not known." in found.text


def test_a_wrong_update_is_named_in_its_own_phase() -> None:
    found = place(TWO, power_offset=1)
    assert (found.phase, found.modern_node) == ("second", "adam")
    assert found.variables == (("output/kernel", "output/kernel"),)


def test_a_slip_on_the_way_is_named_at_its_step() -> None:
    found = place(DEEP, slips_at=2, steps=4)
    assert (found.step, found.modern_kind) == (1, "update")


def test_a_port_that_is_equal_has_no_location() -> None:
    report = check(fake.factory(DEEP), fake.factory(DEEP, reordered=True), fake.batches, steps=3)
    assert report.equal and report.location is None
