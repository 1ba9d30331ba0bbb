"""A check of a user's own port as one self-contained page: no network, light and dark, phone and desk.

The page is whole without a script. The one inside it, allowed by its hash alone, sorts and filters tables.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tfport.checking.report import CheckReport
from tfport.equivalence.result import RUNGS, RungResult, Verdict
from tfport.files import write_atomically
from tfport.layouts import by_variables, in_words
from tfport.report import check_words, plots, words
from tfport.report.pages import template

_LONGEST = 28
"""Characters of a name in a chart."""


def render_check(report: CheckReport) -> str:
    """The whole report as one HTML page.

    Returns:
      The page's text. A content security policy forbids all that is not inside it, and every script but its own.
    """
    report = check_words.readable(report)
    pair = report.pair
    decided = check_words.first_divergence(report)
    rungs = {rung.rung: rung for rung in pair.rungs} if pair else {}
    script = script_text()
    view: dict[str, Any] = {
        "report": report,
        "equal": report.equal,
        "headline": check_words.headline(report),
        "summary": check_words.summary(report),
        "notes": check_words.notes(report)[1],
        "pair": pair,
        "rungs": [_rung_view(number, name, rungs.get(name)) for number, name in enumerate(RUNGS)] if pair else [],
        "findings": [(rung.rung, text) for rung in rungs.values() for text in rung.findings],
        "decided": {
            "place": words.place(decided.rung, decided),
            "text": check_words.divergence_text(report, decided),
        }
        if decided
        else None,
        "elsewhere": [
            (words.place(rung.rung, each), check_words.divergence_text(report, each))
            for rung in rungs.values()
            if (each := rung.first_divergence) is not None and each != decided
        ],
        "location": _location_view(report),
        "sides": check_words.sides(report),
        "contracts": _contract_view(report),
        "contracts_text": check_words.contracts_text(report),
        "questions": check_words.CONTRACTS,
        "mapping_text": check_words.mapping_text(report),
        "unmatched_text": check_words.unmatched_text(report),
        "reasons": check_words.reason_counts(report.mapping),
        "mapping": [(pairs[0], in_words(pairs)) for pairs in by_variables(report.mapping)],
        "trained": [
            (row.phase, movement, only)
            for row in check_words.phase_rows(report)
            for movement, only in zip(row.movements, row.only, strict=True)
        ],
        "trained_text": check_words.trained_text(report),
        "draws_text": check_words.draws_text(report),
        "chart": _chart(report) if pair else "",
        "picture": "" if pair else _picture(report),
        "verdicts": [(verdict, words.LABELS[verdict], _meaning(report, verdict)) for verdict in Verdict],
        "labels": words.LABELS,
        "signs": words.SIGNS,
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    view["sections"] = _sections(view)
    return template("check.html").render(view)


def write_check(path: Path, report: CheckReport) -> None:
    """Writes the page, atomically.

    Raises:
      RunError: the disk refused; an older page is untouched.
    """
    write_atomically(path, render_check(report))


def render_checks(reports: Sequence[CheckReport], pages: Sequence[str]) -> str:
    """The verdicts of several ports of one original as one page.

    Args:
      reports: one for each port.
      pages: the address of each one's own page, from this page.
    """
    rows = [(page, report, check_words.headline(report)) for page, report in zip(pages, reports, strict=True)]
    return template("checks.html").render(
        headline=check_words.several(reports),
        equal=all(report.equal for report in reports),
        legacy=reports[0].legacy,
        rows=rows,
        labels=words.LABELS,
        signs=words.SIGNS,
        verdicts=[(verdict, words.LABELS[verdict], words.MEANINGS[verdict]) for verdict in Verdict],
        command=reports[0].command,
        versions=reports[0].versions,
    )


def write_checks(path: Path, reports: Sequence[CheckReport]) -> None:
    """Writes a page of verdicts, and beside it a page for each port: report-1.html, report-2.html.

    Raises:
      RunError: the disk refused.
    """
    reports = [check_words.readable(report) for report in reports]
    pages = [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, len(reports) + 1)]
    for page, report in zip(pages, reports, strict=True):
        write_check(page, report)
    write_atomically(path, render_checks(reports, [page.name for page in pages]))


@cache
def script_text() -> str:
    """The script that sorts and filters, as it stands in every page."""
    return (resources.files("tfport.report") / "templates" / "check.js").read_text(encoding="utf-8").strip()


def _sections(view: dict[str, Any]) -> dict[str, str]:
    """Id -> heading of each section that the page has, in order."""
    report: CheckReport = view["report"]
    titles: list[tuple[str, str, Any]] = [
        ("verdicts", "Rung by rung", view["pair"]),
        ("where", "Where it diverges", view["decided"] or view["location"]),
        ("unmatched", "Without a partner", view["unmatched_text"]),
        ("contracts", "Contracts of each side", True),
        ("mapping", "Mapping", view["mapping"] or report.phases or report.outputs),
        ("trained", "Who trained in each phase", view["trained"]),
        ("draws", "Random draws", report.draws),
        ("curves", "Losses", view["chart"] or view["picture"]),
        ("losses", "Reported against recomputed losses", view["pair"] and view["pair"].loss_checks),
        ("covers", "What this covers, and notes", report.covers or check_words.notes(report)[1]),
        ("meaning", "What the verdicts mean", view["pair"]),
    ]
    return {name: title for name, title, shown in titles if shown}


def _rung_view(number: int, name: str, rung: RungResult | None) -> dict[str, Any]:
    return {"number": number, "name": name, "question": words.QUESTIONS[name], "result": rung}


def _location_view(report: CheckReport) -> dict[str, Any] | None:
    location = report.location
    if location is None:
        return None
    return {
        "text": check_words.location_text(location),
        "facts": check_words.location_facts(location),
        "neighbours": check_words.neighbour_rows(report, location),
    }


def _contract_view(report: CheckReport) -> list[tuple[str, list[check_words.ContractRow]]]:
    rows = check_words.contract_rows(report)
    return [
        (each, [row for row in rows if row.contract == each]) for each in dict.fromkeys(row.contract for row in rows)
    ]


def _meaning(report: CheckReport, verdict: Verdict) -> str:
    if verdict is Verdict.ROUNDING and report.rounding_by == "envelope":
        return check_words.ENVELOPE_MEANING
    return words.MEANINGS[verdict]


def _chart(report: CheckReport) -> str:
    """Both sides' losses over each other, phases by the legacy side's names; empty where there are none."""
    names: dict[str, str] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    first = ""
    for side in sorted(report.curves, key=lambda each: not check_words.is_legacy(report, each)):
        shown = _drawn(side, names)
        first = first or shown
        curves[shown] = {
            _drawn(check_words.shared_phase(report, phase), names): values
            for phase, values in report.curves[side].items()
        }
    if not any(values for phases in curves.values() for values in phases.values()):
        return ""
    with _any_script():
        return plots.comparison_curves(curves, first, "as reported", title="Losses as each side reports them")


def _picture(report: CheckReport) -> str:
    """The losses of a side checked alone, as a data address; empty where it reports none."""
    names: dict[str, str] = {}
    curves: dict[str, plots.Curve] = {
        _drawn(phase, names): (range(1, len(values) + 1), values)
        for phases in report.curves.values()
        for phase, values in phases.items()
        if values
    }
    if not curves:
        return ""
    with _any_script():
        png = plots.loss_curves(curves, "Losses as the program reports them", ylabel="loss (as reported)")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
    """Names may hold characters that matplotlib's font lacks: the page's own fonts draw them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _drawn(name: str, names: dict[str, str]) -> str:
    """A name as a chart can draw it: short, no formula, and not hidden from the legend by a leading underscore.

    Args:
      name: the name.
      names: what was drawn before, name -> as drawn; two names are never drawn alike.
    """
    if name not in names:
        short = check_words.shortened(name, _LONGEST).replace("$", r"\$")
        short = f" {short}" if short.startswith("_") else short
        again = list(names.values()).count(short)
        names[name] = f"{short} ({len(names)})" if again else short
    return names[name]
