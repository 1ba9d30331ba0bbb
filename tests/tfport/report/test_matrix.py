"""The matrix: one row a model, one column a paradigm, each cell a link to its pair."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tfport.equivalence.result import Report
from tfport.report import words
from tfport.report.html import render_html, render_matrix, write_matrix
from tfport.report.terminal import print_matrix

from .test_html import CHROMIUM, HOSTILE, Page, needs_chromium

PAGES = {"vanilla_gan": "matrix-models/vanilla_gan.html", "dcgan": "matrix-models/dcgan.html"}


@pytest.fixture
def reports(equal_report: Report, failing_report: Report) -> list[Report]:
    return [replace(equal_report, model="vanilla_gan"), replace(failing_report, model="dcgan", steps=20)]


def test_every_cell_leads_to_its_pair(reports: list[Report]) -> None:
    page = Page(render_matrix(reports, PAGES, "tfport compare --model=all"))
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    for report in reports:
        ids = Page(render_html(report, {})).ids
        for number, pair in enumerate(report.pairs, 1):
            assert f"{PAGES[report.model]}#pair-{number}" in links
            assert f"pair-{number}" in ids, "the link must lead somewhere on that page"
            assert words.LABELS[pair.verdict] in page.text
            assert words.cell_figure(pair) in page.text
    assert links.count(PAGES["dcgan"]) == 2, "the model's name, and its repeat"
    assert "20 steps" in page.text and "tfport compare --model=all" in page.text


def test_the_headline_counts_what_fails(reports: list[Report]) -> None:
    assert words.matrix_headline(reports[:1]) == "All 3 ports of 1 model compute what tf1_graph computes"
    failing = [f"dcgan in {pair.modern}" for pair in reports[1].pairs if not pair.verdict.equal]
    assert failing
    assert words.matrix_headline(reports) == f"{len(failing)} of 6 ports fail: {', '.join(failing)}"
    assert words.matrix_headline([]) == "Nothing was compared"
    assert "and" in words.matrix_headline([reports[1]] * 3)


def test_a_cell_shows_its_largest_rounding_or_its_place(reports: list[Report]) -> None:
    shown = {pair.modern: words.cell_figure(pair) for pair in reports[0].pairs}
    assert shown["gradient_tape"] == "" and shown["keras2"] == "4.6e-03 / f64 9.1e-15"
    failing = next(pair for pair in reports[1].pairs if not pair.verdict.equal)
    assert words.cell_figure(failing).startswith("rung ")


def test_the_page_fails_in_colour_and_words(reports: list[Report]) -> None:
    assert 'class="verdictline"' in render_matrix(reports[:1], PAGES, "")
    assert 'class="verdictline fails"' in render_matrix(reports, PAGES, "")
    assert "Nothing was compared" in render_matrix([], {}, "")


def test_nothing_in_it_is_markup(reports: list[Report]) -> None:
    hostile = [replace(reports[0], model=HOSTILE)]
    page = Page(render_matrix(hostile, {HOSTILE: f"x/{HOSTILE}"}, HOSTILE))
    assert "script" not in page.tags and "img" not in page.tags


def test_the_terminal_shows_the_same_in_80_columns(reports: list[Report]) -> None:
    console = Console(width=80, record=True, force_terminal=False)
    print_matrix(reports, console)
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert words.matrix_headline(reports) in re.sub(r"\s+", " ", text)
    for report in reports:
        assert report.model in text


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_it_opens_in_a_browser(reports: list[Report], tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    path = tmp_path / "matrix.html"
    write_matrix(path, reports, PAGES, "tfport compare --model=all")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, f"--screenshot={tmp_path / 'page.png'}", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert (tmp_path / "page.png").stat().st_size > 10_000, done.stderr
