"""A Witness finds nothing false in a report, and finds whatever is made false in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import fake_program as fake
from fake_program import Layer
from statements import Witness
from tfport.checking.check import check
from tfport.checking.report import CheckReport, Location

pytestmark = pytest.mark.usefixtures("no_frameworks")
OTHER = (Layer("hidden", 4, 6, "sigmoid"), Layer("output", 6, 2))


def witnessed(**changes: Any) -> tuple[CheckReport, Witness]:
    with Witness() as witness:
        report = check(fake.factory(), fake.factory(**changes), fake.batches, steps=3)
    assert report.location is not None
    return report, witness


def tampered(report: CheckReport, **facts: Any) -> CheckReport:
    assert report.location is not None
    return dataclasses.replace(report, location=dataclasses.replace(report.location, **facts))


@pytest.mark.parametrize(
    "changes",
    [{"layers": OTHER}, {"constant": 1.5}, {"loss_factor": 1.5}, {"rate_factor": 2.0}],
    ids=["activation", "constant", "loss", "rate"],
)
def test_nothing_is_false_in_a_report(changes: dict[str, Any]) -> None:
    report, witness = witnessed(**changes)
    assert not witness.false_statements(report)


def test_a_false_pair_of_inputs_is_found() -> None:
    report, witness = witnessed(layers=OTHER)
    place = report.location
    assert place is not None and place.agreeing
    wrong = tampered(report, agreeing=((place.legacy_node, place.modern_node),))
    assert "are said to agree, and do not" in witness.false_statements(wrong)[0]
    unknown = tampered(report, agreeing=(("nothing", "at/all"),))
    assert "are said to agree, and do not" in witness.false_statements(unknown)[0]


def test_inputs_that_are_apart_do_not_agree() -> None:
    report, witness = witnessed(layers=OTHER)
    wrong = tampered(
        report, modern_node="output/MatMul", text="Step 0: what goes into output/MatMul agrees, and so on."
    )
    assert any("what goes into output/MatMul is said to agree" in each for each in witness.false_statements(wrong))


def test_a_false_pair_of_nodes_is_found() -> None:
    report, witness = witnessed(layers=OTHER)
    one, other = report.location.agreeing[0] if report.location else ("", "")
    wrong = tampered(report, legacy_node=one, modern_node=other, neighbours=())
    assert "are said to differ, and do not" in witness.false_statements(wrong)[0]


def test_a_node_that_both_sides_have_is_not_only_on_one() -> None:
    report, witness = witnessed(layers=OTHER)
    wrong = tampered(report, only_modern=(report.location.agreeing[0][1],) if report.location else ())
    assert "is said to be only on the modern side" in witness.false_statements(wrong)[0]


def test_false_attributes_are_found() -> None:
    report, witness = witnessed(layers=OTHER)
    wrong = tampered(report, differing=(("alpha", "0.2", "0.3"),))
    assert "alpha is said to be '0.2' against '0.3'" in witness.false_statements(wrong)[0]


def test_false_elements_are_found() -> None:
    report, witness = witnessed(layers=OTHER)
    place: Location | None = report.location
    assert place is not None and place.neighbours
    wrong = dataclasses.replace(place.neighbours[0], legacy=place.neighbours[0].legacy + 1e-3)
    found = witness.false_statements(tampered(report, neighbours=(wrong, *place.neighbours[1:])))
    assert "are no elements of" in found[0]


def test_a_rung_that_fails_does_not_agree() -> None:
    report, witness = witnessed(layers=OTHER)
    wrong = tampered(report, text="Step 0, phase train: outputs, losses agree, and the gradient of x does not.")
    assert [text.split(",")[0] for text in witness.false_statements(wrong)] == [
        "outputs are said to agree",
        "losses are said to agree",
    ]


def test_a_false_divergence_is_found() -> None:
    report, witness = witnessed(layers=OTHER)
    assert report.pair is not None
    rungs = []
    for rung in report.pair.rungs:
        first = rung.first_divergence
        wrong = dataclasses.replace(first, modern=first.modern + 1.0) if first else None
        rungs.append(dataclasses.replace(rung, first_divergence=wrong))
    pair = dataclasses.replace(report.pair, rungs=tuple(rungs))
    assert "and is not" in witness.false_statements(dataclasses.replace(report, pair=pair))[0]
