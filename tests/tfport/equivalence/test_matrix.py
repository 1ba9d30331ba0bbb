"""Every model in every paradigm climbs the ladder, and no cell of the matrix is left out unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest

import subjects
from tfport import models
from tfport.equivalence.compare import Request, compare, default_steps, max_steps
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, Report, Verdict
from tfport.errors import UserError
from tfport.paradigms import PARADIGMS

STEPS = 4
VARIANT = "a variant of {family}, which runs here; its own ladder is run by `make prove` (docs/proof.md)"
EXEMPT: dict[str, str] = {
    model: VARIANT.format(family=family) for model, (family, _) in models.MODELS.items() if model != family
}
"""Models that this file leaves out, each with the reason."""
RUN = [model for model in models.MODELS if model not in EXEMPT]

LONG = ("dcgan", "torch_gan", "infogan")
"""Models whose comparison takes most of a minute: `make prove` runs them, and every test asks the others by default."""
PARAMETERS = [pytest.param(model, marks=pytest.mark.slow) if model in LONG else model for model in RUN]

Cell = tuple[str, str, str]
"""(model, paradigm, rung)"""


@cache
def report(model: str) -> Report:
    """The comparison of one model, a few steps long."""
    batch_size = subjects.BATCH_SIZES.get(model)
    return compare(Request(model, tuple(PARADIGMS), steps=STEPS, batch_size=batch_size))[0]


def cells(reports: Mapping[str, Report]) -> set[Cell]:
    """What these reports speak of, where something was compared: rung 0 is of the legacy side alone."""
    found: set[Cell] = set()
    for model, each in reports.items():
        for pair in each.pairs:
            for rung in pair.rungs:
                if rung.compared:
                    found.add((model, pair.legacy, rung.rung))
                    found |= {(model, pair.modern, rung.rung)} - {(model, pair.modern, "repeat")}
    return found


def uncovered(found: set[Cell], exempt: Mapping[str, str]) -> list[Cell]:
    """The cells of the whole matrix that are neither among `found` nor have a written reason."""
    whole = {(model, paradigm, rung) for model in models.MODELS for paradigm in PARADIGMS for rung in RUNGS}
    return sorted(cell for cell in whole - found if not (exempt.get(cell[0], "").strip() or excused(cell)))


def excused(cell: Cell) -> str:
    """The reason why one cell of every model is not tested; empty where there is none."""
    _, paradigm, rung = cell
    if rung == "repeat" and paradigm != "tf1_graph":
        return "rung 0 is asked of the legacy side; tests/tfport/training/test_resume.py repeats runs of the others"
    return ""


@pytest.mark.parametrize("model", PARAMETERS)
def test_gradient_tape_is_the_same_bits(model: str) -> None:
    pair = next(each for each in report(model).pairs if each.modern == "gradient_tape")
    verdicts = {rung.rung: rung.verdict for rung in pair.rungs[FIRST_NUMERICAL:]}
    assert verdicts == dict.fromkeys(RUNGS[FIRST_NUMERICAL:], Verdict.IDENTICAL)


@pytest.mark.parametrize("model", PARAMETERS)
def test_both_kerases_differ_by_rounding_alone(model: str) -> None:
    for pair in report(model).pairs:
        failing = [(rung.rung, rung.verdict, rung.findings) for rung in pair.rungs if not rung.verdict.equal]
        assert failing == [], pair.modern
        assert pair.verdict in (Verdict.IDENTICAL, Verdict.ROUNDING)
    assert {pair.modern for pair in report(model).pairs} == set(PARADIGMS) - {"tf1_graph"}


@pytest.mark.parametrize("model", PARAMETERS)
def test_the_legacy_side_repeats_itself(model: str) -> None:
    for pair in report(model).pairs:
        rung = pair.rung("repeat")
        assert rung.verdict is Verdict.IDENTICAL and rung.compared


@pytest.mark.parametrize("model", PARAMETERS)
def test_no_cell_is_left_out(model: str) -> None:
    others = {each: "another parameter of this test" for each in models.MODELS if each != model}
    assert uncovered(cells({model: report(model)}), others) == []


def test_every_model_is_run_or_has_a_reason() -> None:
    for model in models.MODELS:
        assert (model in RUN) != (model in EXEMPT)
        assert model in RUN or len(EXEMPT[model]) > 20
    assert set(RUN) == set(models.FAMILIES)


def test_a_cell_without_a_reason_is_found() -> None:
    whole = {(model, paradigm, rung) for model in models.MODELS for paradigm in PARADIGMS for rung in RUNGS}
    assert uncovered(whole, {}) == []
    lost = ("dcgan", "keras2", "gradient")
    assert uncovered(whole - {lost}, {}) == [lost]
    assert uncovered(whole - {lost}, {"dcgan": "  "}) == [lost]
    assert uncovered(whole - {lost}, {"dcgan": "a reason"}) == []
    assert len(uncovered(set(), EXEMPT)) == len(RUN) * (len(PARADIGMS) * len(RUNGS) - len(PARADIGMS) + 1)


def test_a_rung_that_compared_nothing_is_not_covered() -> None:
    whole = report("vae")
    (first, *others) = whole.pairs
    emptied = tuple(replace(rung, compared=0) if rung.rung == "gradient" else rung for rung in first.rungs)
    found = cells({"vae": replace(whole, pairs=(replace(first, rungs=emptied), *others))})
    assert ("vae", first.modern, "gradient") not in found
    assert ("vae", others[0].modern, "gradient") in found
    assert ("vae", others[0].modern, "repeat") not in found


def test_half_steps_count_twice_against_the_longest_comparison() -> None:
    longest = {model: max_steps(models.get(model)) for model in models.MODELS}
    assert longest["vanilla_gan"] == longest["infogan"] == longest["vae"] == 80_000
    assert longest["leaky_gan"] == longest["dcgan"] == 40_000
    with pytest.raises(UserError, match="--steps=40001 is out of range: expected a whole number from 1 to 40,000"):
        Request("leaky_gan", tuple(PARADIGMS), steps=40_001).check()


def test_convolutions_are_compared_over_fewer_steps() -> None:
    assert {model: default_steps(models.get(model)) for model in models.MODELS} == {
        model: 20 if model == "dcgan" else 200 for model in models.MODELS
    }
