"""Six worked pairs of users' code: the equal port passes, and each mistake is found where it was made."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from pairs_common import Broken
from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS

MODELS = {
    "mlp_dropout": "envelope",  # Keras rounds the factor of an L2 to float32, in float64 too
    "convnet_batchnorm": "float64",
    "lstm": "float64",
    "word2vec": "envelope",  # tf.nn.nce_loss takes float32 only
    "decayed_rmsprop": "float64",
    "slow_weights": "float64",
}
"""Module of tests/pairs -> how its rounding must be shown."""
STEPS = 4


def checked(model: str, factory: str, legacy: str = "legacy") -> CheckReport:
    module: Any = importlib.import_module(f"pairs.{model}")
    return check(getattr(module, legacy), getattr(module, factory), module.batches, steps=STEPS)


def mistakes() -> list[Any]:
    return [
        pytest.param(model, each, id=f"{model}-{each.factory}", marks=[pytest.mark.slow] if each.slow else [])
        for model in MODELS
        for each in importlib.import_module(f"pairs.{model}").BROKEN
    ]


def said(report: CheckReport) -> str:
    """What was found, for a failing test."""
    assert report.pair is not None
    rungs = [(rung.rung, rung.first_divergence, rung.findings) for rung in report.pair.rungs if not rung.verdict.equal]
    return f"located {report.pair.located}: {rungs} {report.findings} {report.location} {report.notes}"


@pytest.mark.parametrize("model", MODELS)
def test_equal_port_passes(model: str) -> None:
    report = checked(model, "modern")
    assert report.equal, said(report)
    assert report.rounding_by in (MODELS[model], ""), said(report)
    assert report.pair is not None
    assert not report.unmatched_legacy and not report.unmatched_modern
    assert not any(each.ambiguous for each in report.mapping)
    assert [rung.rung for rung in report.pair.rungs if rung.compared] == list(RUNGS)
    assert all(each.controlled for each in report.draws)


@pytest.mark.parametrize(("model", "mistake"), mistakes())
def test_mistake_is_found(model: str, mistake: Broken) -> None:
    report = checked(model, mistake.factory, mistake.legacy)
    assert not report.equal
    assert report.pair is not None
    rung = report.pair.rung(mistake.rung)
    assert not rung.verdict.equal, said(report)
    if RUNGS.index(mistake.rung) < FIRST_NUMERICAL:
        assert report.pair.located is None, said(report)
        assert any(mistake.tensor in finding for finding in rung.findings), said(report)
        return
    assert report.pair.located == mistake.rung, said(report)
    first = rung.first_divergence
    if first is None:  # a fact, such as a gradient that is not there, has no first element
        assert any(mistake.tensor in finding for finding in rung.findings), said(report)
        return
    assert first.phase == mistake.phase, said(report)
    assert mistake.tensor in first.tensor, said(report)
    assert report.location is not None, said(report)
    assert mistake.node.lower() in report.location.modern_kind.lower(), report.location
    assert mistake.beside.lower() in report.location.legacy_kind.lower(), report.location
