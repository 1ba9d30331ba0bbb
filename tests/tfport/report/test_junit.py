"""JUnit XML: one case a rung and a contract, a failure exactly where the port fails, and always well formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from tfport.checking.report import CheckReport, Finding
from tfport.equivalence.result import RUNGS, Verdict
from tfport.report import check_words
from tfport.report.junit import render_junit, write_junit

from . import check_reports as reports


def parsed(report: CheckReport) -> ET.Element:
    return ET.fromstring(render_junit(report).encode())


def case(root: ET.Element, suite: str, name: str) -> ET.Element:
    found = root.find(f"testsuite[@name='{suite}']/testcase[@name='{name}']")
    assert found is not None
    return found


@pytest.mark.parametrize("name", reports.ALL)
def test_it_fails_exactly_where_the_port_does_and_counts_right(name: str) -> None:
    report = reports.ALL[name]()
    root = parsed(report)
    assert (root.get("failures") == "0") == report.equal
    for suite in (root, *root.findall("testsuite")):
        assert suite.get("tests") == str(len(list(suite.iter("testcase"))))
        assert suite.get("failures") == str(len(list(suite.iter("failure"))))
        assert suite.get("skipped") == str(len(list(suite.iter("skipped"))))
    names = [(each.get("classname"), each.get("name")) for each in root.iter("testcase")]
    assert len(names) == len(set(names))


def test_every_rung_and_contract_has_a_case() -> None:
    root = parsed(reports.different())
    assert [each.get("name") for each in root.findall("testsuite[@name='rungs']/testcase")] == [
        *(f"{number} {rung}" for number, rung in enumerate(RUNGS)),
        "verdict",
    ]
    for side in ("legacy", "modern"):
        cases = root.findall(f"testsuite[@name='contracts of {side}']/testcase")
        assert [each.get("name") for each in cases] == list(check_words.CONTRACTS)


def test_a_failure_carries_its_text() -> None:
    report = reports.different()
    root = parsed(report)
    divergence = check_words.first_divergence(report)
    assert divergence is not None
    failure = case(root, "rungs", "6 update").find("failure")
    assert failure is not None
    assert failure.get("type") == "different"
    assert failure.get("message") == "different: rung 6 update, step 0, phase train_d"
    assert failure.text == (
        check_words.divergence_text(report, divergence) + "\nphase train_d moves 4 variables in legacy and 3 in modern"
    )
    verdict = case(root, "rungs", "verdict").find("failure")
    assert verdict is not None and verdict.text is not None
    assert check_words.headline(report) in verdict.text and "Location: " in verdict.text
    contract = case(root, "contracts of modern", "who trained").find("failure")
    assert contract is not None and contract.text is not None
    assert contract.text.endswith("dis.layers.1.bias is trainable and never moves.")
    note = case(root, "contracts of modern", "noise")
    assert note.find("failure") is None and "augment/flip" in note.findtext("system-out", "")


def test_a_rung_that_was_not_run_is_skipped_with_the_reason() -> None:
    report = reports.different()
    skipped = case(parsed(report), "rungs", "8 free_trajectory").find("skipped")
    assert skipped is not None
    assert skipped.get("message") == f"not run: {report.left_out[0]}"
    unsaid = case(parsed(replace(report, left_out=())), "rungs", "8 free_trajectory").find("skipped")
    assert unsaid is not None and unsaid.get("message") == "not run"
    root = parsed(reports.alone())
    assert root.get("skipped") == str(len(RUNGS))
    assert root.find("testsuite/testcase[@name='verdict']") is None
    assert {each.get("message") for each in root.iter("skipped")} == {
        "not run: the modern side was checked alone, against no reference"
    }
    assert [each.get("name") for each in root.findall("testsuite")] == ["rungs", "contracts of modern"]


def test_a_comparison_without_any_rung_does_not_pass() -> None:
    report = reports.identical()
    assert report.pair is not None
    empty = replace(report, pair=replace(report.pair, rungs=(), verdict=Verdict.NOT_COMPARABLE))
    assert parsed(empty).get("failures") == "1"


def test_what_has_no_partner_is_named() -> None:
    failure = case(parsed(reports.not_comparable()), "rungs", "verdict").find("failure")
    assert failure is not None and failure.text is not None
    assert "Without a partner on the legacy side: generator/bn/gamma, generator/bn/beta" in failure.text


def test_a_contract_of_another_name_has_a_case_too() -> None:
    report = replace(reports.identical(), findings=(Finding("modern", "speed", "", "too slow"),))
    assert case(parsed(report), "contracts of modern", "speed").find("failure") is not None


@pytest.mark.parametrize("name", ["hostile", "unicode", "long"])
def test_names_come_back_as_they_were(name: str) -> None:
    text = getattr(reports, name.upper())
    root = parsed(reports.nasty(text))
    assert text in {each.get("value") for each in root.iter("property")}
    assert any(text in (each.text or "") for each in root.iter("failure"))


def test_what_xml_cannot_write_is_replaced() -> None:
    text = render_junit(reports.nasty(reports.SNEAKY))
    assert not set("\x00\x1b\ufffe\x85\u202e") & set(text)
    assert r"a\x00b\x1b[31mred" in text
    ET.fromstring(text.encode())


def test_what_was_run_is_in_the_properties_and_it_is_written_whole(tmp_path: Path) -> None:
    report = reports.identical()
    write_junit(tmp_path / "new" / "check.xml", report)
    assert (tmp_path / "new" / "check.xml").read_text(encoding="utf-8") == render_junit(report)
    root = ET.parse(tmp_path / "new" / "check.xml").getroot()
    found = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert found["command"] == report.command and found["version keras"] == "3.15.1"
    assert root.get("time") == "12.000"
