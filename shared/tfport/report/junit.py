"""A check as JUnit XML, which continuous integration shows: one test case a rung, one a contract of each side."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from tfport.checking.report import CheckReport
from tfport.equivalence.result import RUNGS, PairResult, RungResult
from tfport.files import write_atomically
from tfport.report import check_words, words

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(*reports: CheckReport) -> str:
    """Checks as one XML document; it has a failure exactly where a report is not equal.

    A rung that was not run is skipped, with the reason. Characters that XML 1.0 knows no way to write are replaced.

    Args:
      *reports: one, or those of several ports: then each suite is named after its port.
    """
    root = ET.Element("testsuites", name="tfport check")
    for report in map(check_words.readable, reports):
        port = f"{report.modern}: " if len(reports) > 1 else ""
        rungs = _suite(root, f"{port}rungs")
        _properties(rungs, report)
        found = {rung.rung: rung for rung in report.pair.rungs} if report.pair else {}
        for name in RUNGS:
            _rung_case(rungs, report, name, found.get(name))
        if report.pair is not None:
            _verdict_case(rungs, report, report.pair)
        for side in check_words.sides(report):
            suite = _suite(root, f"{port}contracts of {side}")
            for row in (row for row in check_words.contract_rows(report) if row.side == side):
                _contract_case(suite, row)
    for each in (root, *root):
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            each.set(key, str(len(list(each.iter(tag)))))
        each.set("errors", "0")
    root.set("time", f"{sum(map(_total, reports)):.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def write_junit(path: Path, *reports: CheckReport) -> None:
    """Writes the document, atomically.

    Raises:
      RunError: the disk refused; an older file is untouched.
    """
    write_atomically(path, render_junit(*reports))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("�", text)


def _suite(root: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(root, "testsuite", name=_legal(name))


def _properties(suite: ET.Element, report: CheckReport) -> None:
    known = {
        "legacy": report.legacy,
        "modern": report.modern,
        "precision": report.precision,
        "steps": str(report.steps),
        "seed": str(report.seed),
        "command": report.command,
        **{f"version {name}": version for name, version in report.versions.items()},
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in known.items():
        if value:
            ET.SubElement(properties, "property", name=_legal(name), value=_legal(value))


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=_legal(f"tfport.check.{group}"), name=_legal(name))


def _fail(case: ET.Element, kind: str, message: str, lines: Iterable[str]) -> None:
    failure = ET.SubElement(case, "failure", type=_legal(kind), message=_legal(message))
    failure.text = _legal("\n".join(lines))


def _say(case: ET.Element, lines: Iterable[str]) -> None:
    text = "\n".join(lines)
    if text:
        ET.SubElement(case, "system-out").text = _legal(text)


def _rung_case(suite: ET.Element, report: CheckReport, name: str, rung: RungResult | None) -> None:
    case = _case(suite, "rungs", words.rung_label(name))
    if rung is None:
        ET.SubElement(case, "skipped", message=_legal(_why_not_run(report, name)))
        return
    told = list(rung.findings)
    if rung.verdict.equal:
        figure = words.key_figure(rung)
        _say(case, [f"{words.LABELS[rung.verdict]}{f', {figure}' if figure else ''}", *told])
        return
    if rung.first_divergence is not None:
        told = [*check_words.divergence_text(report, rung.first_divergence).splitlines(), *told]
    message = f"{words.LABELS[rung.verdict]}: {words.place(name, rung.first_divergence)}"
    _fail(case, rung.verdict.value, message, told or [message])


def _why_not_run(report: CheckReport, name: str) -> str:
    if report.pair is None:
        return "not run: the modern side was checked alone, against no reference"
    wanted = re.compile(rf"\brung {RUNGS.index(name)}\b|\brung {name}\b|\b{name} rung\b")
    reason = next((text for text in (*report.left_out, *report.notes) if wanted.search(text)), "")
    return f"not run: {reason}" if reason else "not run"


def _verdict_case(suite: ET.Element, report: CheckReport, pair: PairResult) -> None:
    case = _case(suite, "rungs", "verdict")
    if pair.verdict.equal:
        _say(case, [words.LABELS[pair.verdict], *check_words.summary(report)])
        return
    lines = [check_words.headline(report) + "."]
    if report.location is not None:
        lines.append(f"Location: {check_words.location_text(report.location)}")
    for side, names in (("legacy", report.unmatched_legacy), ("modern", report.unmatched_modern)):
        lines += [f"Without a partner on the {side} side: {check_words.listed(names, 20)}"] if names else []
    lines += [text for text in (check_words.tolerance_text(report),) if text]
    _fail(case, pair.verdict.value, lines[0], lines)


def _contract_case(suite: ET.Element, row: check_words.ContractRow) -> None:
    case = _case(suite, row.side, row.contract)
    broken = [check_words.finding_text(each) for each in row.findings if each.fails]
    if broken:
        _fail(case, "contract", broken[0], broken)
    elif not row.asked:
        ET.SubElement(case, "skipped", message="nothing to ask: the code shows none of it")
    _say(case, [check_words.finding_text(each) for each in row.findings if not each.fails])


def _total(report: CheckReport) -> float:
    return report.seconds.get("total", sum(report.seconds.values()))
