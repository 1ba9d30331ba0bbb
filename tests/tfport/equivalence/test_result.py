"""Results: the worst verdict counts, and the report is strict JSON whatever it holds."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from tfport.equivalence.result import (
    RUNGS,
    SCHEMA,
    Divergence,
    LossCheck,
    Mover,
    PairResult,
    Report,
    RungResult,
    Verdict,
    worst,
)

EQUAL = (Verdict.IDENTICAL, Verdict.SAME_DISTRIBUTION, Verdict.ROUNDING)


def report(*pairs: PairResult, **more: Any) -> Report:
    return Report("vanilla_gan", "float32", 10, 0, "digits", 100, pairs, **more)


def test_only_three_verdicts_are_equal() -> None:
    assert {verdict for verdict in Verdict if verdict.equal} == set(EQUAL)


def test_nothing_compared_is_not_comparable() -> None:
    assert worst([]) is Verdict.NOT_COMPARABLE


def test_the_worst_of_several_passes_only_if_all_do() -> None:
    for length in (1, 2, 3):
        for verdicts in itertools.product(Verdict, repeat=length):
            found = worst(list(verdicts))
            assert found in verdicts
            assert found.equal == all(verdict.equal for verdict in verdicts)


def test_same_distribution_does_not_speak_for_the_whole() -> None:
    assert worst([Verdict.IDENTICAL, Verdict.SAME_DISTRIBUTION]) is Verdict.IDENTICAL
    assert worst([Verdict.SAME_DISTRIBUTION]) is Verdict.SAME_DISTRIBUTION


def test_a_report_without_pairs_or_with_one_that_failed_is_not_equal() -> None:
    good, bad = (PairResult("a", "b", verdict, ()) for verdict in (Verdict.ROUNDING, Verdict.DIFFERENT))
    assert report(good).equal
    assert not report().equal
    assert not report(good, bad).equal


def test_a_report_is_strict_json_with_what_is_not_finite_as_words() -> None:
    first = Divergence(
        "loss", 3, None, "x", (1, 2), (3, 4), "float32", math.nan, -math.inf, math.inf, math.inf, -1, math.inf, 1, 12
    )
    rungs = tuple(
        RungResult(name, Verdict.DIFFERENT, math.inf, 2**64 - 1, first, 1, math.inf, math.nan) for name in RUNGS
    )
    checks = (
        LossCheck("b", "generator", "loss_G", math.nan, 1.0, 0.1),
        LossCheck("b", "generator", "loss_G", 1.0, 1.0, 0.1),
    )
    pair = PairResult("a", "b", Verdict.DIFFERENT, rungs, "loss", (Mover("generator", ("x",), ()),), checks)
    tree = report(pair, curves={"a": {"loss_G": [1.0, math.nan]}}, seconds={"total": 1.5}).as_json()
    read = json.loads(json.dumps(tree, allow_nan=False))
    assert read == tree
    assert read["schema"] == SCHEMA
    assert read["curves"] == {"a": {"loss_G": [1.0, "nan"]}}
    found = read["pairs"][0]
    assert found["verdict"] == "different"
    assert [check["agrees"] for check in found["loss_checks"]] == [False, True]
    told = found["rungs"][4]["first_divergence"]
    assert (told["legacy"], told["modern"], told["index"], told["phase"]) == ("nan", "-inf", [1, 2], None)


def test_a_rung_is_found_by_name() -> None:
    pair = PairResult("a", "b", Verdict.IDENTICAL, (RungResult("loss", Verdict.IDENTICAL),))
    assert pair.rung("loss").verdict is Verdict.IDENTICAL
    with pytest.raises(KeyError):
        pair.rung("update")
