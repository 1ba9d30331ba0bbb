"""Cells are read off shapes alone: every layout of a framework meets every other, and every choice tiles both sides."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tfport.checking import cells
from tfport.checking.cells import Cell, Choice
from tfport.layouts import MappedVariable, fault, to_modern
from tfport.subject import VariableInfo

pytestmark = pytest.mark.usefixtures("no_frameworks")
INPUTS, UNITS = 4, 3
Array = np.ndarray[Any, Any]


def infos(**shapes: tuple[int, ...]) -> list[VariableInfo]:
    return [VariableInfo(name, name, shape, "float32", True, ("sgd",)) for name, shape in shapes.items()]


def forms(gates: int) -> dict[str, list[VariableInfo]]:
    """How frameworks, and people, hold a cell's variables."""
    whole = gates * UNITS
    letters = "abcd"[:gates]
    return {
        "tf1": infos(kernel=(INPUTS + UNITS, whole), bias=(whole,)),
        "tf1 gru": infos(
            gates_kernel=(INPUTS + UNITS, whole - UNITS),
            gates_bias=(whole - UNITS,),
            candidate_kernel=(INPUTS + UNITS, UNITS),
            candidate_bias=(UNITS,),
        ),
        "keras": infos(kernel=(INPUTS, whole), recurrent_kernel=(UNITS, whole), bias=(whole,)),
        "keras gru": infos(kernel=(INPUTS, whole), recurrent_kernel=(UNITS, whole), bias=(2, whole)),
        "cudnn": infos(kernel=(INPUTS, whole), recurrent_kernel=(UNITS, whole), bias=(2 * whole,)),
        "torch": infos(weight_ih=(whole, INPUTS), weight_hh=(whole, UNITS), bias_ih=(whole,), bias_hh=(whole,)),
        "a matrix a gate": infos(
            **{
                f"{kind}{gate}": shape
                for gate in letters
                for kind, shape in (("W", (INPUTS + UNITS, UNITS)), ("b", (UNITS,)))
            }
        ),
        "two matrices a gate": infos(
            **{
                f"{kind}{gate}": shape
                for gate in letters
                for kind, shape in (("W", (INPUTS, UNITS)), ("U", (UNITS, UNITS)), ("b", (UNITS,)))
            }
        ),
    }


JOINED = {"tf1", "tf1 gru", "a matrix a gate"}
"""The forms whose kernels read inputs and state at once."""


def found(legacy: list[VariableInfo], modern: list[VariableInfo], whole: bool = False) -> list[Cell]:
    wanted = {("legacy", each.name) for each in legacy} | {("modern", each.name) for each in modern}
    return cells.find(legacy, modern, wanted, lambda one, other: float(one == other), whole)


def zeros(variables: list[VariableInfo]) -> dict[str, Array]:
    return {each.name: np.zeros(each.shape, "float32") for each in variables}


@pytest.mark.parametrize("gates", [3, 4])
@pytest.mark.parametrize("pair", list(permutations(forms(4), 2)), ids=" and ".join)
def test_every_form_meets_every_other_and_every_choice_tiles_both(pair: tuple[str, str], gates: int) -> None:
    legacy, modern = (forms(gates)[name] for name in pair)
    cell, *more = found(legacy, modern)
    choices = list(cell.choices())
    if not set(pair) <= JOINED:  # else the shapes do not tell a recurrent cell, and what is not joined stays a variable
        assert not more
        assert cell.legacy == {each.name for each in legacy} and cell.modern == {each.name for each in modern}
        orders = {choice.order for choice in choices if choice.gates == gates}
        assert orders == set(permutations(range(gates)))
    for choice in choices:
        blocks = cell.mapped(choice, zeros(legacy), zeros(modern))
        assert fault(blocks) == "", choice
        assert bool(blocks) is (choice.offset == 0)


def test_a_choice_moves_what_it_says() -> None:
    legacy, modern = forms(4)["tf1"], forms(4)["torch"]
    (cell,) = found(legacy, modern)
    blocks = cell.mapped(Choice(4, (0, 2, 1, 3)), zeros(legacy), zeros(modern))
    kernel = np.random.default_rng(0).normal(size=(INPUTS + UNITS, 4 * UNITS))
    i, c, f, o = np.split(kernel, 4, axis=1)
    expected = np.concatenate([i, f, c, o], axis=1).T

    def made(name: str) -> Array:
        return to_modern([(pair, kernel) for pair in blocks if pair.modern == name], weights=True)

    assert np.array_equal(made("weight_ih"), expected[:, :INPUTS])
    assert np.array_equal(made("weight_hh"), expected[:, INPUTS:])
    assert {pair.modern for pair in blocks if pair.summed} == {"bias_ih", "bias_hh"}


def test_the_offset_is_what_the_initial_biases_differ_by() -> None:
    legacy, modern = forms(4)["tf1"], forms(4)["keras"]
    (cell,) = found(legacy, modern)
    start = zeros(modern)
    start["bias"][UNITS : 2 * UNITS] = 1
    blocks = cell.mapped(Choice(4, (0, 2, 1, 3), offset=1), zeros(legacy), start)
    assert {pair.legacy_block: pair.offset for pair in blocks if pair.offset} == {((6, 9),): 1.0}
    drawn = {name: array + np.arange(array.size).reshape(array.shape) for name, array in start.items()}
    assert cell.mapped(Choice(4, (0, 2, 1, 3), offset=1), zeros(legacy), drawn) == []
    blocks = cell.mapped(Choice(4, (0, 2, 1, 3), offset=3), zeros(legacy), drawn)
    assert {pair.modern_block: pair.offset for pair in blocks if pair.offset} == {((3, 6),): 1.0}


def test_a_sum_has_its_offset_once() -> None:
    legacy, modern = forms(4)["tf1"], forms(4)["torch"]
    (cell,) = found(legacy, modern)
    drawn = {name: array + np.arange(array.size).reshape(array.shape) for name, array in zeros(modern).items()}
    blocks = cell.mapped(Choice(4, (0, 2, 1, 3), offset=3), zeros(legacy), drawn)
    assert [(pair.modern, pair.legacy_block) for pair in blocks if pair.offset] == [("bias_ih", ((6, 9),))]
    assert fault(blocks) == ""


def test_two_cells_are_two_and_each_keeps_its_bias() -> None:
    def both(form: str, *parts: str) -> list[VariableInfo]:
        return [
            VariableInfo(f"{part}/{each.name}", "", each.shape, "float32", True, ("sgd",))
            for part in parts
            for each in forms(4)[form]
        ]

    legacy, modern = both("tf1", "fw", "bw"), both("keras", "forward", "backward")
    kernels = {("legacy", "fw/kernel"), ("legacy", "bw/kernel")}
    kernels |= {("modern", each.name) for each in modern if "kernel" in each.name}
    one, other = cells.find(legacy, modern, kernels, lambda *_: 0.0)
    assert one.legacy == {"fw/kernel", "fw/bias"} and other.legacy == {"bw/kernel", "bw/bias"}
    assert {name.split("/")[0] for name in one.modern} == {"forward"}


def test_layers_of_a_missing_partner_are_no_cell() -> None:
    legacy = infos(a=(6, 5), ab=(5,), b=(6, 5), bb=(5,))
    assert found(legacy, infos(m=(6, 5), mb=(5,))) == []
    assert found(infos(a=(6, 5), ab=(5,)), infos(m=(6, 5), mb=(5,), extra=(5,))) == []
    square = {f"{layer}/{kind}": shape for layer in "abc" for kind, shape in (("kernel", (5, 5)), ("bias", (5,)))}
    assert found(infos(**square), infos(**dict(list(square.items())[:-2]))) == []


def test_a_bias_that_is_not_trained_belongs_to_no_trained_kernel() -> None:
    legacy, (kernel, bias) = forms(4)["keras"], forms(4)["tf1"]
    frozen = VariableInfo("bias", "bias", bias.shape, "float32", False)
    (cell,) = found(legacy, [kernel, frozen])
    assert cell.modern == {"kernel"} and "bias" not in cell.legacy


def test_a_kernel_of_a_convolution_is_split_along_its_channels() -> None:
    legacy = infos(one=(3, 3, 2, 4), other=(3, 3, 2, 4))
    (cell,) = found(legacy, infos(kernel=(3, 3, 2, 8)))
    blocks = cell.mapped(next(cell.choices()), zeros(legacy), zeros(legacy))
    whole: tuple[tuple[int, int], ...] = ((0, 3), (0, 3), (0, 2))
    assert blocks == [
        MappedVariable(name, "kernel", (3, 3, 2, 4), (3, 3, 2, 8), modern_block=(*whole, (start, start + 4)))
        for name, start in (("one", 0), ("other", 4))
    ]
