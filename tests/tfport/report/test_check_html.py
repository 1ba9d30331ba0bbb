"""The page of a check: complete, escaped, self-contained; sorted and filtered in a real browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tfport.equivalence.result import RUNGS, Verdict
from tfport.report import check_words, words
from tfport.report.check_html import render_check, script_text, write_check

from . import check_reports as reports
from .test_html import CHROMIUM, needs_chromium
from .test_html import Page as PlainPage


class Page(PlainPage):
    """A page in which names may break and a script stands."""

    VOID = PlainPage.VOID | {"wbr"}

    def handle_data(self, data: str) -> None:
        if "script" not in self.open:
            super().handle_data(data)


@cache
def page_of(name: str) -> str:
    return render_check(reports.ALL[name]())


def all_pages() -> dict[str, str]:
    return {name: page_of(name) for name in reports.ALL}


def flat(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


def test_the_page_says_everything() -> None:
    report = reports.different()
    page = Page(page_of("different"))
    text = flat(page)
    assert report.pair is not None and report.location is not None
    divergence = check_words.first_divergence(report)
    assert divergence is not None
    assert check_words.divergence_text(report, divergence) in page.text
    told = [
        check_words.headline(report),
        *check_words.summary(report),
        check_words.location_text(report.location),
        *(text for fact in check_words.location_facts(report.location) for text in fact),
        *(text for row in check_words.neighbour_rows(report, report.location) for text in row),
        *(f"{number} {rung.replace('_', ' ')}" for number, rung in enumerate(RUNGS)),
        *(words.MEANINGS[verdict] for verdict in Verdict),
        *(text for each in report.mapping for text in (each.legacy, each.modern, str(each.legacy_shape), each.reason)),
        *(finding.text for finding in report.findings),
        *(finding for rung in report.pair.rungs for finding in rung.findings),
        *(draw.name for draw in report.draws),
        "transposed (1, 0)",
        "reshaped",
        "could as well be dis.layers.3.bias, gen.layers.0.bias",
        "Paired by: forward pass (4), same layer (3), the only one of its shape (1).",
        check_words.trained_text(report),
        "drawn in Python",
        *report.covers,
        *report.notes,
        "not run",
        "-9.86294484e-01",
        report.batches,
        report.command,
        *report.versions.values(),
        "Took legacy 3.2 s, modern 8.4 s, total 12.0 s.",
    ]
    assert [each for each in told if re.sub(r"\s+", " ", each) not in text] == []
    assert page.tags.count("svg") == 1
    assert "has no such loss" not in text, "phases are paired in the chart"


def test_each_ending_has_its_own_sections() -> None:
    ids = {name: set(Page(text).ids) for name, text in all_pages().items()}
    assert {"verdicts", "contracts", "mapping", "trained", "curves", "meaning", "repeat"} <= ids["identical"]
    assert not {"where", "unmatched", "covers"} & ids["identical"]
    assert {"where", "covers"} <= ids["different"]
    assert "unmatched" in ids["not_comparable"] and "curves" not in ids["not_comparable"]
    assert not {"verdicts", "where", "mapping", "meaning"} & ids["alone"]
    assert "against no reference" in Page(page_of("alone")).text
    assert check_words.ENVELOPE_MEANING in flat(Page(page_of("envelope")))
    assert words.MEANINGS[Verdict.ROUNDING] in flat(Page(page_of("rounding")))


@pytest.mark.parametrize("name", reports.ALL)
def test_links_lead_somewhere_and_tables_have_headers(name: str) -> None:
    text = page_of(name)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    links = [value for tag, key, value in page.attributes if (tag, key) == ("a", "href")]
    assert links and {link[1:] for link in links} <= set(page.ids)
    labels = {value for _, key, value in page.attributes if key == "aria-labelledby"}
    assert labels <= set(page.ids)
    assert text.count("<th ") == len(re.findall(r'<th scope="(?:col|row)"', text)) > 0
    assert text.count("<table") == text.count("<thead>")


@pytest.mark.parametrize("name", reports.ALL)
def test_nothing_is_loaded_and_no_script_but_its_own_is_allowed(name: str) -> None:
    text = page_of(name)
    page = Page(text)
    for tag, key, value in page.attributes:
        if key in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            assert value.startswith(("#", "data:")), (tag, key, value)
        assert not key.startswith("on")
    assert page.tags.count("script") == 1
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)'\"]*)", text))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(script_text().encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "style-src 'unsafe-inline'; img-src data:"
    )
    assert f"<script>{script_text()}</script>" in text


def test_the_script_is_short() -> None:
    assert len(script_text().splitlines()) < 100


def test_the_page_is_whole_without_script() -> None:
    page = Page(page_of("many"))
    assert not {"button", "input", "output"} & set(page.tags)
    assert page_of("many").count("resnet/<wbr>block_<wbr>499/<wbr>conv/<wbr>kernel") == 2
    assert all(f"blocks.{number}.conv.weight" in page.text for number in range(500))


@pytest.mark.parametrize("name", ["hostile", "sneaky", "long", "unicode"])
def test_nasty_names_stay_text(name: str) -> None:
    text = page_of(name)
    page = Page(text)
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert text.count("</style>") == text.count("<style")
    assert text.count("</script>") == 1
    assert all(each.isprintable() or each == "\n" for each in text)
    shown = check_words.visible(getattr(reports, name.upper()))
    assert shown in page.text
    if name == "hostile":
        assert "{{ 7 * 7 }}" in page.text and "alert(1)" in page.text


def test_values_that_are_not_finite_are_drawn_and_told() -> None:
    text = flat(Page(page_of("broken_numbers")))
    assert "no tolerance would pass" in text and "No relative tolerance would have passed." in text
    assert "not finite" in text and "nan" in text and "-inf" in text


def test_a_side_alone_shows_its_losses_as_a_picture() -> None:
    page = Page(page_of("alone"))
    assert "svg" not in page.tags and page.tags.count("img") == 1
    silent = replace(reports.alone(), curves={"modern": {"d_step": []}})
    assert "img" not in Page(render_check(silent)).tags


def test_curves_of_phases_that_are_drawn_alike_stay_apart() -> None:
    first, second = "a" * 40 + "1" + "b" * 40, "a" * 40 + "2" + "b" * 40
    values = [1.0, 2.0]
    report = replace(
        reports.identical(),
        phases=(),
        curves={side: {first: values, second: values} for side in ("legacy", "modern")},
    )
    assert "modern aaaaaaaaaaaaa…bbbbbbbbbbbbbb (" in Page(render_check(report)).text


def test_the_same_report_is_the_same_page_and_is_written_whole(tmp_path: Path) -> None:
    write_check(tmp_path / "new" / "check.html", reports.different())
    assert (tmp_path / "new" / "check.html").read_text(encoding="utf-8") == page_of("different")


# --- In a browser -----------------------------------------------------------------------------------------------------
def with_script(page: str, script: str) -> str:
    """The page with a script of a test behind its own, allowed by its hash as well."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = page.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    return allowed.replace("</body>", f"<script>{script}</script></body>", 1)


def browse(pages: dict[str, str], expression: str, folder: Path, width: int = 1280) -> tuple[dict[str, Any], list[str]]:
    """Opens pages in iframes of `width` px; returns what `expression` is in each, by name, and the console's lines.

    Iframes, because Chromium's own window is never narrower than about 500 px.
    """
    assert CHROMIUM is not None
    frames = ""
    for number, (name, page) in enumerate(pages.items()):
        script = (
            f'addEventListener("load", () => parent.postMessage({{name: {json.dumps(name)}, '
            f'value: (() => {{ {expression} }})()}}, "*"));'
        )
        (folder / f"{number}.html").write_text(with_script(page, script), encoding="utf-8")
        frames += f'<iframe src="{number}.html" style="width:{width}px;height:900px;border:0"></iframe>'
    (folder / "frame.html").write_text(
        "<!doctype html><title>waiting</title><pre id=told></pre><script>const told = {};"
        "addEventListener('message', event => { told[event.data.name] = event.data.value;"
        f"document.getElementById('told').textContent = JSON.stringify(told) }})</script>{frames}"
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --enable-logging=stderr --hide-scrollbars"
    options += " --virtual-time-budget=8000"
    result = subprocess.run(
        [CHROMIUM, *options.split(), f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 600)},1000",
         "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    found = re.search(r'<pre id="told">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found is not None and found[1], result.stderr
    return json.loads(html.unescape(found[1])), [line for line in result.stderr.splitlines() if "CONSOLE" in line]


MEASURE = """
  document.querySelectorAll("details").forEach(each => { each.open = true; });
  return [document.documentElement.scrollWidth, innerWidth,
    performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:")).length,
    document.querySelectorAll("thead button").length];
"""


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_every_page_opens_without_overflow_network_or_error(tmp_path: Path, width: int) -> None:
    measured, console = browse(all_pages(), MEASURE, tmp_path, width)
    assert console == []
    assert set(measured) == set(reports.ALL)
    for name, (scroll_width, inner_width, resources, buttons) in measured.items():
        assert (inner_width, scroll_width, resources) == (width, width, 0), name
        assert buttons > 4, "the page's own script ran"


@needs_chromium
def test_another_script_or_address_is_blocked(tmp_path: Path) -> None:
    page = page_of("identical").replace(
        "<main>", '<main><script>document.title = "broken in"</script><img src="missing.png" alt="">', 1
    )
    found, console = browse({"page": page}, "return document.title;", tmp_path)
    assert "broken in" not in found["page"]
    assert sum("Content Security Policy" in line for line in console) >= 2


SORT = """
  const table = document.getElementById("mapping-table");
  const column = (number) => [...table.tBodies[0].rows].map(row => row.cells[number].textContent);
  const buttons = [...table.tHead.querySelectorAll("button")];
  const state = () => [...table.tHead.rows[0].cells].map(cell => cell.getAttribute("aria-sort"));
  const told = { before: column(0), focus: buttons.every(each => each.tabIndex === 0 && each.type === "button") };
  buttons[0].click(); told.ascending = column(0); told.first = state();
  buttons[0].click(); told.descending = column(0); told.second = state();
  buttons[0].click(); told.after = column(0); told.third = state();
  buttons[0].click(); buttons[2].click(); told.modern = column(2); told.other = state();
  return told;
"""


@needs_chromium
def test_headers_sort_up_down_and_back(tmp_path: Path) -> None:
    found, console = browse({"many": page_of("many")}, SORT, tmp_path)
    told = found["many"]
    assert console == []
    names = [f"resnet/block_{number}/conv/kernel" for number in range(500)]
    assert told["before"] == told["ascending"] == told["after"] == names, "numbers in names sort as numbers"
    assert told["descending"] == names[::-1]
    assert told["modern"] == [f"blocks.{number}.conv.weight" for number in range(500)]
    assert told["focus"] is True
    assert told["first"] == ["ascending"] + [None] * 5
    assert told["second"] == ["descending"] + [None] * 5
    assert told["third"] == [None] * 6
    assert told["other"] == [None, None, "ascending", None, None, None]


NUMBERS = """
  const table = document.querySelector("table.rungs");
  const column = (number) => [...table.tBodies[0].rows].map(row => row.cells[number].textContent);
  const button = table.tHead.rows[0].cells[2].querySelector("button");
  button.click(); const up = column(2);
  button.click();
  return [up, column(2)];
"""


@needs_chromium
def test_numbers_sort_by_value_and_what_is_none_stands_last(tmp_path: Path) -> None:
    found, _ = browse({"page": page_of("broken_numbers")}, NUMBERS, tmp_path)
    up, down = found["page"]
    assert up == ["0", *["4.0e-07"] * 5, "inf", "–", "–", "–"]
    assert down == ["inf", *["4.0e-07"] * 5, "0", "–", "–", "–"]


FILTER = """
  const table = document.getElementById("mapping-table");
  const bar = table.closest(".scroll").previousElementSibling;
  const input = bar.querySelector("label input[type=search]"), output = bar.querySelector("output");
  const shown = () => [...table.tBodies[0].rows].filter(row => row.getClientRects().length).length;
  const told = [];
  for (const text of ["", "block_49", "WEIGHT block_49 forward", "candidates <agrees>", "  "]) {
    input.value = text;
    input.dispatchEvent(new Event("input"));
    told.push([output.textContent, shown()]);
  }
  input.value = "block_49"; input.dispatchEvent(new Event("input"));
  table.tHead.querySelector("button").click();
  told.push([output.textContent, shown()]);
  told.push([output.getAttribute("aria-live"), document.querySelectorAll(".filter").length]);
  return told;
"""


@needs_chromium
def test_a_long_table_filters_by_every_word_with_a_live_count(tmp_path: Path) -> None:
    both = {name: page_of(name) for name in ("many", "identical")}
    found, console = browse(both, "return document.querySelectorAll('.filter').length;", tmp_path)
    assert found == {"many": 2, "identical": 0}, "only tables of more than ten rows get a search box"
    found, console = browse({"many": page_of("many")}, FILTER, tmp_path)
    assert console == []
    assert found["many"] == [
        ["500 rows", 500],
        ["11 of 500 rows", 11],
        ["3 of 500 rows", 3],
        ["0 of 500 rows", 0],
        ["500 rows", 500],
        ["11 of 500 rows", 11],
        ["polite", 2],
    ]


@needs_chromium
def test_the_browser_test_sees_overflow_and_errors(tmp_path: Path) -> None:
    wide = page_of("identical").replace("<main>", '<main><div style="width:900px">wide</div>', 1)
    found, console = browse({"page": wide}, "console.error('told');" + MEASURE, tmp_path, 360)
    assert found["page"][0] > 360
    assert any("told" in line for line in console)
