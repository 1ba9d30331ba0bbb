"""Which variable is which: by names, shapes and order, and then by what the forward pass computes from them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_program as fake
from fake_program import Layer, Plan
from tfport.checking.check import check
from tfport.checking.matching import first_guess, settle, ways
from tfport.checking.report import CheckReport
from tfport.equivalence.result import Verdict
from tfport.errors import UserError
from tfport.layouts import MappedVariable
from tfport.subject import VariableInfo

pytestmark = pytest.mark.usefixtures("no_frameworks")
SQUARE = (Layer("first", 4, 4, "tanh"), Layer("second", 4, 4, "tanh"), Layer("third", 4, 2))
PHASE = (fake.Phase("train", "sgd", ("first", "second", "third")),)
DEEP = Plan(layers=SQUARE, optimizers=(fake.SGD,), phases=PHASE, bias=0.1)
VARIABLES = [f"{layer.name}/{role}" for layer in SQUARE for role in ("kernel", "bias")]
NEUTRAL = dict(zip(VARIABLES, ("p0", "p1", "p2", "p3", "p4", "p5"), strict=True))


def info(name: str, *shape: int, dtype: str = "float32", held: bool = True) -> VariableInfo:
    return VariableInfo(name, name, shape, dtype, held, ("sgd",) if held else ())


def pairs(report: CheckReport) -> dict[str, str]:
    return {pair.legacy: pair.modern for pair in report.mapping}


def by_legacy(report: CheckReport, name: str) -> MappedVariable:
    return next(pair for pair in report.mapping if pair.legacy == name)


@cache
def _checked(changes: tuple[tuple[str, Any], ...]) -> CheckReport:
    whole = {name: dict(value) if name == "names" else value for name, value in changes}
    return check(fake.factory(DEEP), fake.factory(DEEP, **whole), fake.batches, steps=2)


def checked(**changes: Any) -> CheckReport:
    """The plan against itself written otherwise."""
    hashable = {name: tuple(value.items()) if name == "names" else value for name, value in changes.items()}
    return _checked(tuple(hashable.items()))


# --- The first guess --------------------------------------------------------------------------------------------------
def test_every_layout_of_a_shape_is_a_way() -> None:
    found = ways([info("a", 3, 3), info("b", 3, 4), info("c", 9)], info("m", 3, 3))
    assert [(way.legacy, way.transpose, way.reshape) for way in found] == [("a", (), False), ("a", (1, 0), False)]
    found = ways([info("b", 2, 3, 4, 5)], info("m", 5, 4, 3, 2))
    assert [way.transpose for way in found] == [(3, 2, 1, 0)]
    found = ways([info("b", 4), info("i", 1, 4, dtype="int32")], info("m", 1, 4))
    assert [(way.legacy, way.reshape) for way in found] == [("b", True)]
    assert ways([info("b", 4)], info("m", 2, 2)) == []


def test_the_same_names_go_together_whatever_the_order() -> None:
    legacy = [info("a", 3), info("b", 3), info("c", 3)]
    found = first_guess(legacy, [info("c", 3), info("a", 3), info("b", 3)])
    assert [(pair.legacy, pair.modern, pair.reason) for pair in found] == [
        (name, name, "same name") for name in ("a", "b", "c")
    ]


def test_roles_have_many_names() -> None:
    legacy = [
        info("d/w", 4),
        info("d/b", 4),
        info("bn/scale", 4),
        info("bn/offset", 4),
        info("bn/pop_mean", 4, held=False),
    ]
    modern = [
        info("bn/moving_mean", 4, held=False),
        info("bn/beta", 4),
        info("bn/gamma", 4),
        info("d/bias", 4),
        info("d/kernel", 4),
    ]
    assert {pair.legacy: pair.modern for pair in first_guess(legacy, modern)} == {
        "d/w": "d/kernel",
        "d/b": "d/bias",
        "bn/scale": "bn/gamma",
        "bn/offset": "bn/beta",
        "bn/pop_mean": "bn/moving_mean",
    }


def test_a_unique_shape_needs_no_name_and_order_is_the_last_resort() -> None:
    legacy = [info("x", 3, 4), info("y", 7), info("z", 7)]
    found = first_guess(legacy, [info("p", 4, 3), info("q", 7), info("r", 7)])
    assert [(pair.modern, pair.transpose, pair.reason) for pair in found] == [
        ("p", (1, 0), "the only one of its shape"),
        ("q", (), "the order of the variables"),
        ("r", (), "the order of the variables"),
    ]


def test_who_trains_a_variable_counts() -> None:
    legacy = [info("x", 7, held=False), info("y", 7), info("a", 3), info("b", 3)]
    found = first_guess(legacy, [info("p", 7), info("q", 7, held=False), info("a", 3), info("b", 3)])
    assert {pair.legacy: pair.modern for pair in found} == {"x": "q", "y": "p", "a": "a", "b": "b"}


def test_what_fits_nothing_is_left() -> None:
    assert [pair.legacy for pair in first_guess([info("x", 3), info("y", 4)], [info("p", 4), info("q", 5)])] == ["y"]
    assert first_guess([], [info("p", 4)]) == [] == first_guess([info("x", 4)], [])


# --- The forward pass -------------------------------------------------------------------------------------------------
def test_other_names_in_another_order_find_their_partners() -> None:
    report = checked(names=NEUTRAL, order=tuple(reversed(VARIABLES)))
    assert report.equal and pairs(report) == NEUTRAL
    assert not any(pair.ambiguous for pair in report.mapping)
    assert by_legacy(report, "third/kernel").reason == "the only one of its shape"


@pytest.mark.parametrize("turned", [("second/kernel",), ("first/kernel", "second/kernel")])
def test_a_square_kernel_that_is_transposed_is_settled_by_the_forward_pass(turned: tuple[str, ...]) -> None:
    report = checked(transposed=turned)
    assert report.equal
    for name in ("first/kernel", "second/kernel"):
        assert by_legacy(report, name).transpose == ((1, 0) if name in turned else ())
    assert "forward pass" in by_legacy(report, turned[0]).reason


def test_a_kernel_that_is_not_square_is_transposed_by_its_shape() -> None:
    report = checked(transposed=("third/kernel",), wide=("third/bias",))
    assert report.equal
    assert by_legacy(report, "third/kernel").transpose == (1, 0)
    assert by_legacy(report, "third/bias").reshape


def test_names_that_are_exchanged_do_not_deceive() -> None:
    exchanged = dict(zip(VARIABLES, ("second/kernel", "second/bias", "first/kernel", "first/bias"), strict=False))
    report = checked(names=exchanged)
    assert report.equal
    assert pairs(report) == {**{name: name for name in VARIABLES[4:]}, **exchanged}
    assert "forward pass" in by_legacy(report, "first/kernel").reason


def test_exchanged_and_transposed_at_once_is_settled_too() -> None:
    report = checked(names={**NEUTRAL, "first/kernel": "p2", "second/kernel": "p0"}, transposed=("second/kernel",))
    assert report.equal
    assert pairs(report)["first/kernel"] == "p2"
    assert by_legacy(report, "second/kernel").transpose == (1, 0)


TWINS = Plan(
    layers=(Layer("hidden", 4, 4, "tanh", twin=True), Layer("output", 4, 2)),
    optimizers=(fake.SGD,),
    phases=(fake.Phase("train", "sgd", ("hidden", "output")),),
)


def test_what_no_output_can_tell_apart_is_told() -> None:
    names = {"hidden/kernel": "p", "hidden/twin": "q"}
    report = check(fake.factory(TWINS), fake.factory(TWINS, names=names), fake.batches, steps=2)
    assert report.equal
    assert by_legacy(report, "hidden/kernel").ambiguous == ("hidden/twin",)
    assert by_legacy(report, "hidden/twin").ambiguous == ("hidden/kernel",)
    assert not by_legacy(report, "output/kernel").ambiguous
    same = check(fake.factory(TWINS), fake.factory(TWINS), fake.batches, steps=2)
    assert not any(pair.ambiguous for pair in same.mapping)


def test_a_fault_in_the_code_is_not_hidden_by_another_mapping() -> None:
    wrong = (Layer("first", 4, 4, "sigmoid"), *SQUARE[1:])
    report = checked(layers=wrong, names=NEUTRAL)
    assert not report.equal
    assert pairs(report) == NEUTRAL
    assert report.pair is not None and report.pair.located == "forward"
    assert "not settled" in by_legacy(report, "second/kernel").reason
    assert "not settled" not in by_legacy(report, "first/kernel").reason


def test_a_variable_without_a_partner_cannot_be_compared() -> None:
    report = check(fake.factory(DEEP, normalised=True), fake.factory(DEEP), fake.batches, steps=2)
    assert report.unmatched_legacy == ("norm/moving_mean",) and report.unmatched_modern == ()
    assert not report.equal and report.pair is not None
    assert report.pair.verdict is Verdict.NOT_COMPARABLE
    assert any("norm/moving_mean" in each for each in report.pair.rung("structure").findings)
    report = check(fake.factory(DEEP), fake.factory(DEEP, normalised=True), fake.batches, steps=2)
    assert report.unmatched_modern == ("norm/moving_mean",) and report.unmatched_legacy == ()
    assert report.pair is not None and report.pair.verdict is Verdict.NOT_COMPARABLE


# --- The mapping file -------------------------------------------------------------------------------------------------
def written(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"schema": 1, "variables": list(entries)}))
    return path


def test_a_mapping_file_settles_what_is_ambiguous(tmp_path: Path) -> None:
    names = {"hidden/kernel": "p", "hidden/twin": "q"}
    entry = {"legacy": "hidden/kernel", "modern": "q"}
    report = check(
        fake.factory(TWINS),
        fake.factory(TWINS, names=names),
        fake.batches,
        steps=2,
        mapping=written(tmp_path / "m.json", entry),
    )
    assert report.equal
    assert pairs(report)["hidden/kernel"] == "q" and pairs(report)["hidden/twin"] == "p"
    assert by_legacy(report, "hidden/kernel").reason == "mapping file"


@pytest.mark.parametrize(
    "entry",
    [
        {"legacy": "first/kernel", "modern": "second/kernel"},
        {"legacy": "first/kernel", "modern": "first/kernel", "transpose": [1, 0]},
    ],
)
def test_a_mapping_file_is_believed_even_where_it_is_wrong(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = written(tmp_path / "m.json", entry)
    report = check(fake.factory(DEEP), fake.factory(DEEP), fake.batches, steps=2, mapping=path)
    assert not report.equal
    found = by_legacy(report, "first/kernel")
    assert (found.modern, list(found.transpose), found.reason) == (
        entry["modern"],
        entry.get("transpose", []),
        "mapping file",
    )


def test_the_mapping_that_was_found_is_written_and_can_be_given_again(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    modern = fake.factory(DEEP, names=NEUTRAL, transposed=("second/kernel",))
    first = check(fake.factory(DEEP), modern, fake.batches, steps=2, write_mapping=path)
    again = check(fake.factory(DEEP), modern, fake.batches, steps=2, mapping=path)
    assert again.equal and pairs(again) == pairs(first) == NEUTRAL
    assert {pair.reason for pair in again.mapping} == {"mapping file"}
    assert [pair.transpose for pair in again.mapping] == [pair.transpose for pair in first.mapping]


def test_a_mapping_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", {"legacy": "first/kernel", "modern": "nothing"})
    with pytest.raises(UserError, match="unknown modern variable 'nothing'"):
        check(fake.factory(DEEP), fake.factory(DEEP), fake.batches, steps=2, mapping=path)


def test_a_wide_network_of_one_shape_is_matched_within_the_tries() -> None:
    layers = (*(Layer(f"l{number}", 4, 4, "tanh") for number in range(7)), Layer("last", 4, 2))
    plan = Plan(
        layers=layers, optimizers=(fake.SGD,), phases=(fake.Phase("train", "sgd", tuple(each.name for each in layers)),)
    )
    variables = [f"{layer.name}/{role}" for layer in layers for role in ("kernel", "bias")]
    shuffled = dict(zip(variables, (f"v{(number * 5) % 16}" for number in itertools.count()), strict=False))
    modern = fake.factory(plan, names=shuffled, order=tuple(sorted(variables, key=lambda name: shuffled[name])))
    report = check(fake.factory(plan), modern, fake.batches, steps=1, rungs=("structure", "forward"))
    assert pairs(report) == shuffled, report.notes
    assert report.equal


# --- Several at once --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Node:
    """An intermediate."""

    name: str
    value: Any
    inputs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    kind: str = ""


def test_a_scale_and_an_offset_that_show_only_together_are_tried_together() -> None:
    draws = np.random.default_rng(0)
    x, z = draws.standard_normal((2, 5, 3))
    values = {f"fc_{layer}/{role}": draws.standard_normal(3) for layer in (1, 2) for role in ("scale", "offset")}
    legacy = [Node("x", x)]
    for layer, into in ((1, x), (2, z)):
        scaled = into * values[f"fc_{layer}/scale"]
        shift = values[f"fc_{layer}/offset"] - values[f"fc_{layer}/scale"]
        legacy += [Node(f"mul{layer}", scaled), Node(f"shift{layer}", shift), Node(f"out{layer}", scaled + shift)]

    def trial(mapping: Sequence[MappedVariable]) -> list[Node]:
        held = {pair.modern: values[pair.legacy] for pair in mapping}
        nodes = [Node("x", x), Node("z", z)]
        for layer, source, into in ((1, "x", x), (2, "z", z)):
            gamma, beta = f"dense{layer}/gamma", f"dense{layer}/beta"
            centred, product = into - 1, (into - 1) * held[gamma]
            nodes += [
                Node(f"sub{layer}", centred, (source,)),
                Node(f"mul{layer}", product, (f"sub{layer}",), (gamma,)),
                Node(f"add{layer}", product + held[beta], (f"mul{layer}",), (beta,)),
            ]
        return nodes

    left = [info(name, 3) for name in values]
    right = [info(f"dense{layer}/{role}", 3) for layer in (1, 2) for role in ("gamma", "beta")]
    crossed = [
        MappedVariable(f"fc_{3 - layer}/{one}", f"dense{layer}/{other}", (3,), (3,), reason="the likest name")
        for layer in (1, 2)
        for one, other in (("scale", "gamma"), ("offset", "beta"))
    ]
    found, _ = settle(crossed, left, right, [*legacy, Node("z", z)], trial)
    assert {pair.legacy: pair.modern for pair in found} == {
        f"fc_{layer}/{one}": f"dense{layer}/{other}"
        for layer in (1, 2)
        for one, other in (("scale", "gamma"), ("offset", "beta"))
    }
