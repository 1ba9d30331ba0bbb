"""Five worked pairs of users' code: the equal port passes, and each mistake is found where it was made."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from pairs_common import Broken
from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, Verdict

PAIRS = {
    "mlp_dropout": "float64",
    "convnet_batchnorm": "float64",
    "lstm": "float64",
    "word2vec": "envelope",
    "decayed_rmsprop": "float64",
}
"""Pair -> how its rounding must be shown."""
STEPS = 6


def checked(pair: str, factory: str, legacy: str = "legacy") -> CheckReport:
    module: Any = importlib.import_module(f"pairs.{pair}")
    return check(getattr(module, legacy), getattr(module, factory), module.batches, steps=STEPS)


def broken() -> list[Any]:
    found = []
    for pair in PAIRS:
        for each in importlib.import_module(f"pairs.{pair}").BROKEN:
            found.append(pytest.param(pair, each, id=f"{pair}-{each.factory}"))
    return found


def said(report: CheckReport) -> str:
    """What is wrong with a report, for a failing test."""
    assert report.pair is not None
    rungs = [(rung.rung, str(rung.verdict), rung.findings, rung.first_divergence) for rung in report.pair.rungs]
    failed = [each for each in rungs if each[1] not in ("identical", "rounding", "same_distribution")]
    return f"{report.pair.located} {failed} {report.findings} {report.location}"


@pytest.mark.parametrize("pair", PAIRS)
def test_equal_port_passes(pair: str) -> None:
    report = checked(pair, "modern")
    assert report.equal, said(report)
    assert report.rounding_by in (PAIRS[pair], ""), said(report)
    assert report.pair is not None
    assert not report.unmatched_legacy and not report.unmatched_modern
    assert not any(each.ambiguous for each in report.mapping)
    for rung in RUNGS:
        assert report.pair.rung(rung).compared


@pytest.mark.parametrize(("pair", "mistake"), broken())
def test_mistake_is_found(pair: str, mistake: Broken) -> None:
    report = checked(pair, mistake.factory, mistake.legacy)
    assert not report.equal
    assert report.pair is not None
    rung = report.pair.rung(mistake.rung)
    assert not rung.verdict.equal, said(report)
    if RUNGS.index(mistake.rung) < FIRST_NUMERICAL:
        assert report.pair.located is None, said(report)
        assert any(mistake.tensor in finding for finding in rung.findings), said(report)
        return
    assert report.pair.located == mistake.rung, said(report)
    assert all(report.pair.rung(name).verdict.equal for name in RUNGS[FIRST_NUMERICAL : RUNGS.index(mistake.rung)])
    first = rung.first_divergence
    if first is None:  # what is missing altogether has no element that differs
        assert rung.verdict is Verdict.NOT_COMPARABLE or any(mistake.tensor in each for each in rung.findings)
        return
    assert first.phase == mistake.phase, said(report)
    assert mistake.tensor in first.tensor, said(report)
    assert report.location is not None
    assert mistake.node.lower() in report.location.modern_kind.lower(), report.location
