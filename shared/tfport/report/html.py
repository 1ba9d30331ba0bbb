"""The comparison as one self-contained page: no network, no script, light and dark, phone and desk."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfport.equivalence.result import RUNGS, Divergence, PairResult, Report, RungResult, Verdict
from tfport.files import write_atomically
from tfport.report import plots, words
from tfport.report.pages import template

if TYPE_CHECKING:
    from PIL.Image import Image


def render_html(report: Report, samples: Mapping[str, Image]) -> str:
    """The whole report as one HTML page.

    Args:
      report: what the comparison found.
      samples: paradigm -> its sample grid, all drawn from the same z; an empty mapping leaves the section out.

    Returns:
      The page's text. Everything in it, pictures included, is inside it; a content security policy forbids the rest.
    """
    legacy = report.pairs[0].legacy if report.pairs else next(iter(report.curves), "")
    return template("compare.html").render(
        report=report,
        equal=report.equal,
        headline=words.headline(report),
        pairs=[_pair_view(report.model, number, pair) for number, pair in enumerate(report.pairs, 1)],
        ladder=[(number, name, words.QUESTIONS[name]) for number, name in enumerate(RUNGS)],
        chart=plots.comparison_curves(report.curves, legacy, report.loss_unit, report.curve_steps)
        if report.curves
        else "",
        legacy=legacy,
        samples=[_sample_view(name, image) for name, image in samples.items()],
        verdicts=[(verdict, words.LABELS[verdict], words.MEANINGS[verdict]) for verdict in Verdict],
        labels=words.LABELS,
        signs=words.SIGNS,
    )


def write_html(path: Path, report: Report, samples: Mapping[str, Image]) -> None:
    """Writes the page, atomically.

    Raises:
      RunError: the disk refused; an older page is untouched.
    """
    write_atomically(path, render_html(report, samples))


def render_matrix(reports: Sequence[Report], pages: Mapping[str, str], command: str) -> str:
    """The verdicts of many models as one page: a row a model, a column a paradigm, each cell a link to its pair.

    Args:
      reports: one a model, all of the same paradigms.
      pages: model -> address of its own page, from this page.
      command: what repeats the whole.
    """
    pairs = [pair for report in reports for pair in report.pairs]
    legacy = pairs[0].legacy if pairs else ""
    return template("matrix.html").render(
        reports=reports,
        headline=words.matrix_headline(reports),
        equal=bool(pairs) and all(report.equal for report in reports),
        legacy=legacy,
        moderns=list(dict.fromkeys(pair.modern for pair in pairs)),
        rows=[_matrix_row(report, pages[report.model]) for report in reports],
        verdicts=[(verdict, words.LABELS[verdict], words.MEANINGS[verdict]) for verdict in Verdict],
        labels=words.LABELS,
        signs=words.SIGNS,
        command=command,
        versions=reports[0].versions if reports else {},
        seconds=sum(report.seconds.get("total", 0.0) for report in reports),
    )


def write_matrix(path: Path, reports: Sequence[Report], pages: Mapping[str, str], command: str) -> None:
    """Writes the matrix page, atomically.

    Raises:
      RunError: the disk refused; an older page is untouched.
    """
    write_atomically(path, render_matrix(reports, pages, command))


def _matrix_row(report: Report, page: str) -> dict[str, Any]:
    return {
        "report": report,
        "page": page,
        "repeat": report.pairs[0].rung("repeat").verdict if report.pairs else Verdict.NOT_COMPARABLE,
        "cells": {
            pair.modern: {
                "verdict": pair.verdict,
                "key": words.cell_figure(pair),
                "link": f"{page}#pair-{number}",
            }
            for number, pair in enumerate(report.pairs, 1)
        },
    }


def _pair_view(model: str, number: int, pair: PairResult) -> dict[str, Any]:
    """What the template needs of a pair; ids are made of numbers alone, so that no name can break a link."""
    decided = None if pair.verdict.equal else words.first_divergence(pair)
    return {
        "id": f"pair-{number}",
        "result": pair,
        "summary": words.pair_summary(pair),
        "rungs": {rung.rung: _rung_view(f"pair-{number}", rung) for rung in pair.rungs},
        "findings": [(rung, finding) for rung in pair.rungs for finding in rung.findings],
        "decided": _divergence_view(model, pair, decided) if decided else None,
        "elsewhere": [
            _divergence_view(model, pair, rung.first_divergence)
            for rung in pair.rungs
            if rung.first_divergence is not None and rung.first_divergence != decided
        ],
        "movers": [
            {
                "phase": mover.phase,
                "both": [name for name in mover.legacy if name in mover.modern],
                "legacy_only": words.only(mover.legacy, mover.modern),
                "modern_only": words.only(mover.modern, mover.legacy),
            }
            for mover in pair.movers
        ],
        "moves_alike": all(set(mover.legacy) == set(mover.modern) for mover in pair.movers),
    }


def _rung_view(pair_id: str, rung: RungResult) -> dict[str, Any]:
    number = RUNGS.index(rung.rung) if rung.rung in RUNGS else rung.rung
    return {"id": f"{pair_id}-rung-{number}", "number": number, "result": rung, "key": words.key_figure(rung)}


def _divergence_view(model: str, pair: PairResult, divergence: Divergence) -> dict[str, str]:
    return {"place": words.place(divergence.rung, divergence), "text": words.divergence_text(model, pair, divergence)}


def _sample_view(name: str, image: Image) -> dict[str, Any]:
    encoded = base64.b64encode(plots.png_bytes(image)).decode()
    width, height = image.size
    return {"name": name, "uri": f"data:image/png;base64,{encoded}", "width": width, "height": height}
