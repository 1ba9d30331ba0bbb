"""Every case of tests/cases: equal ports pass, others are found, and the report says why and nothing false."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

import pytest
from rich.console import Console

import cases
from cases.common import Case
from statements import Witness
from tfport.checking.check import check
from tfport.checking.report import CheckReport
from tfport.report.check_terminal import print_check


def all_cases() -> list[Any]:
    modules = sorted(each.name for each in pkgutil.iter_modules(cases.__path__) if each.name != "common")
    found = [(name, case) for name in modules for case in importlib.import_module(f"cases.{name}").CASES]
    return [pytest.param(case, id=f"{name}-{case.name}") for name, case in found]


def text_of(report: CheckReport) -> str:
    """The report as a terminal shows it, on one line."""
    console = Console(width=10_000, force_terminal=False, color_system=None)
    with console.capture() as captured:
        print_check(report, console)
    return " ".join(captured.get().split())


@pytest.mark.parametrize("case", all_cases())
def test_case(case: Case) -> None:
    with Witness() as witness:
        report = check(case.legacy, case.modern, case.batches, **{"steps": 6, **case.options})
    text = text_of(report)
    assert report.equal is case.equal, text
    assert not witness.false_statements(report), text
    if case.rung:
        assert report.pair is not None and report.pair.located == case.rung, text
    for pattern in case.says:
        assert re.search(pattern, text), f"{pattern!r} is not said: {text}"
    for pattern in case.never:
        assert not re.search(pattern, text), f"{pattern!r} is said: {text}"
