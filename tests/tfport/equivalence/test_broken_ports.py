"""Each planted mistake is found on the rung, in the phase and with the structural finding that this table states."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from broken_ports import MISTAKES
from tfport.equivalence.compare import Request, compare
from tfport.equivalence.result import PairResult, Report, Verdict


@dataclass(frozen=True)
class Expected:
    """What the comparison must say of a broken port."""

    verdict: Verdict
    structure: str | None
    """A regular expression that a finding of the rungs repeat to initialisation matches; None where they hold."""
    located: str | None
    """The first numerical rung that fails."""
    phase: str | None
    """The phase of the divergence there."""


DIFFERENT, NOT_COMPARABLE = Verdict.DIFFERENT, Verdict.NOT_COMPARABLE

TABLE: dict[str, Expected] = {
    "epsilon_1e_7": Expected(
        DIFFERENT, r"optimizer's epsilon is 9\.9\d+e-09 against 1\.0?\d*e-07|1e-07", "update", "discriminator"
    ),
    "frozen_discriminator": Expected(
        NOT_COMPARABLE,
        r"discriminator/hidden/kernel is held by the discriminator optimizer against the no one",
        "gradient",
        "discriminator",
    ),
    "half_steps": Expected(DIFFERENT, None, "loss", "discriminator"),
    "no_bias": Expected(NOT_COMPARABLE, r"variable generator/output/bias \(784,\) is missing", "forward", None),
    "swapped_slots": Expected(DIFFERENT, None, "update", "discriminator"),
    "frozen_noise": Expected(DIFFERENT, None, "loss", "discriminator"),
    "simultaneous": Expected(DIFFERENT, None, "update", "generator"),
    "half_reported": Expected(DIFFERENT, None, "loss", "discriminator"),
    "wide_weights": Expected(
        DIFFERENT, r"generator/hidden/kernel starts as .*deviation 0\.01, .* against .*0\.05", None, None
    ),
}


@pytest.fixture(scope="module")
def report() -> Report:
    """All broken ports against one legacy side, at once: a process a precision."""
    sides = ("tf1_graph", *(f"broken_ports:{name}" for name in TABLE))
    return compare(Request("vanilla_gan", sides, steps=6))[0]


def test_the_table_is_whole() -> None:
    assert tuple(TABLE) == MISTAKES


def pair(report: Report, name: str) -> PairResult:
    return next(each for each in report.pairs if each.modern == f"broken_ports:{name}")


@pytest.mark.parametrize("name", TABLE)
def test_verdict(report: Report, name: str) -> None:
    assert pair(report, name).verdict is TABLE[name].verdict


@pytest.mark.parametrize("name", TABLE)
def test_structural_finding(report: Report, name: str) -> None:
    found = pair(report, name)
    expected = TABLE[name].structure
    static = [found.rung("structure"), found.rung("initialisation")]
    if expected is None:
        assert all(rung.verdict.equal for rung in static)
    else:
        assert any(re.search(expected, text) for rung in static for text in rung.findings), static


@pytest.mark.parametrize("name", TABLE)
def test_located_at_the_first_numerical_rung(report: Report, name: str) -> None:
    assert pair(report, name).located == TABLE[name].located


@pytest.mark.parametrize("name", [name for name, expected in TABLE.items() if expected.phase])
def test_phase_of_the_first_divergence(report: Report, name: str) -> None:
    found = pair(report, name)
    assert found.located is not None
    rung = found.rung(found.located)
    phase = rung.first_divergence.phase if rung.first_divergence else None
    if phase is None:
        assert any(f"{TABLE[name].phase}/" in text for text in rung.findings), rung
    else:
        assert phase == TABLE[name].phase


def test_who_did_not_move(report: Report) -> None:
    mover = {each.phase: each for each in pair(report, "frozen_discriminator").movers}["discriminator"]
    assert len(mover.legacy) == 4
    assert mover.modern == ()
    findings = pair(report, "frozen_discriminator").rung("update").findings
    assert any("did not move on the modern side" in text for text in findings)


def test_a_step_that_is_not_its_phases_is_said(report: Report) -> None:
    findings = pair(report, "simultaneous").rung("update").findings
    assert any("a step is not its phases in order" in text for text in findings)


def test_a_report_with_a_broken_port_is_not_equal(report: Report) -> None:
    assert not report.equal
    assert not any(each.verdict.equal for each in report.pairs)
