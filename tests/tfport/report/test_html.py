"""The page: complete, escaped, self-contained, readable on a phone; opened in a real browser where there is one."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfport.equivalence.result import RUNGS, Mover, Report, Verdict
from tfport.report import words
from tfport.report.html import render_html, write_html
from tfport.report.plots import sample_grid

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=\"alert('2')\">{{ 7 * 7 }}&amp;"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page is not opened in a browser")


def samples() -> dict[str, Image.Image]:
    images = np.random.Generator(np.random.Philox(0)).random((10, 784))
    return {name: sample_grid(images, 1, 10, (0.0, 1.0)) for name in ("tf1_graph", "keras3")}


class Page(HTMLParser):
    """Ids, links, sources and tags of a page, and whether its elements nest."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""


def test_the_page_says_everything(failing_report: Report) -> None:
    page = Page(render_html(failing_report, samples()))
    text = re.sub(r"\s+", " ", page.text)
    assert words.headline(failing_report) in text
    for verdict in Verdict:
        assert words.LABELS[verdict] in text
        assert words.MEANINGS[verdict] in text
    for number, rung in enumerate(RUNGS):
        assert f"{number} {rung.replace('_', ' ')}" in text
    for pair in failing_report.pairs:
        assert words.pair_summary(pair) in text
    divergence = failing_report.pairs[2].rung("update").first_divergence
    assert divergence is not None
    assert words.divergence_text("vanilla_gan", failing_report.pairs[2], divergence) in page.text
    for detail in ("9.4e-01", "5.4e+08", "2,031,616", "discriminator/output/bias", "-9.86294484e-01", "nan", "inf"):
        assert detail in text
    for name, version in failing_report.versions.items():
        assert name in text and version in text
    assert failing_report.command in text
    assert "Took tf1_graph float32 3.2 s, keras3 float32 8.4 s." in text


def test_every_cell_links_to_its_pair_and_rung(failing_report: Report) -> None:
    page = Page(render_html(failing_report, samples()))
    assert len(page.ids) == len(set(page.ids))
    links = [value for _, name, value in page.attributes if name in ("href", "xlink:href") and value.startswith("#")]
    assert {f"#pair-{pair}-rung-{rung}" for pair in (1, 2, 3) for rung in range(9)} <= set(links)
    assert {link[1:] for link in links} <= set(page.ids)
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert labels <= set(page.ids)


def test_a_rung_that_did_not_run_is_said_and_not_linked(equal_report: Report) -> None:
    pairs = tuple(replace(pair, rungs=pair.rungs[:3]) for pair in equal_report.pairs)
    page = Page(render_html(replace(equal_report, pairs=pairs), {}))
    assert page.text.count("not run") == 3 * 7
    assert ("a", "href", "#pair-1-rung-8") not in page.attributes


def test_tables_have_headers_with_a_scope(failing_report: Report) -> None:
    text = render_html(failing_report, samples())
    assert text.count("<th ") == len(re.findall(r'<th scope="(?:col|row)"', text)) > 0
    assert "<th>" not in text
    assert text.count("<table") == text.count("<thead>")


def test_only_what_matters_is_open(equal_report: Report, failing_report: Report) -> None:
    equal, failing = render_html(equal_report, {}), render_html(failing_report, {})
    assert 'class="first"' not in equal
    assert "First place where bits differ, rung by rung (5)" in equal
    assert failing.count('class="first"') == 1
    assert "First place where bits differ, on the other rungs (4)" in failing
    assert "<details open" not in equal + failing


def test_pictures_are_inside_and_described(equal_report: Report) -> None:
    page = Page(render_html(equal_report, samples()))
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(sources) == len(alts) == 2
    assert all(name in alt for name, alt in zip(samples(), alts, strict=True))
    with Image.open(io.BytesIO(base64.b64decode(sources[0].removeprefix("data:image/png;base64,")))) as image:
        assert image.size == samples()["tf1_graph"].size
    assert page.tags.count("svg") == 1


def test_nothing_is_loaded_from_elsewhere(failing_report: Report) -> None:
    text = render_html(failing_report, samples())
    assert "http://" not in text and "https://" not in text
    assert "@import" not in text and "<script" not in text
    for tag, name, value in Page(text).attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)'\"]*)", text))


def test_hostile_names_stay_text(failing_report: Report) -> None:
    pair = failing_report.pairs[2]
    rungs = tuple(
        replace(
            rung,
            findings=(HOSTILE,),
            first_divergence=rung.first_divergence
            and replace(rung.first_divergence, tensor=HOSTILE, phase=HOSTILE, dtype=HOSTILE),
        )
        for rung in pair.rungs
    )
    checks = tuple(replace(check, side=HOSTILE, phase=HOSTILE, loss=HOSTILE) for check in pair.loss_checks)
    hostile = replace(
        pair, legacy=HOSTILE, modern=HOSTILE, rungs=rungs, movers=(Mover(HOSTILE, (HOSTILE,), ()),), loss_checks=checks
    )
    report = replace(
        failing_report,
        model=HOSTILE, precision=HOSTILE, dataset=HOSTILE, command=HOSTILE, pairs=(hostile,),
        curves={HOSTILE: {HOSTILE: [1.0]}}, versions={HOSTILE: HOSTILE}, seconds={HOSTILE: 1.0},
    )  # fmt: skip
    text = render_html(report, {HOSTILE: next(iter(samples().values()))})
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert text.count("</style>") == text.count("<style")
    assert "{{ 7 * 7 }}" in page.text


def test_an_empty_comparison_is_a_page_that_says_so() -> None:
    report = Report("m", "float32", 0, 0, "digits", 100, ())
    page = Page(render_html(report, {}))
    assert "Nothing was compared" in page.text
    assert "table" not in page.tags and "svg" not in page.tags


def test_the_same_report_is_the_same_page_and_is_written_whole(equal_report: Report, tmp_path: Path) -> None:
    write_html(tmp_path / "new" / "compare.html", equal_report, samples())
    assert (tmp_path / "new" / "compare.html").read_text() == render_html(equal_report, samples())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_lies_behind_them(equal_report: Report, scheme: str) -> None:
    text = render_html(equal_report, {})
    light, dark = text.split("@media (prefers-color-scheme: dark)", 1)
    found = re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark.split("\n}\n", 1)[0])
    colours = dict(found)
    pairs = [("ink", "page"), ("soft", "page"), ("soft", "card"), ("link", "page"), ("bad", "card"), ("good", "card")]
    pairs += [(name, f"{name}-back") for name in ("good", "near", "bad", "lost")]
    pairs += [("ink", "near-back"), ("plot-ink", "card")]
    for words_colour, behind in pairs:
        assert contrast(colours[words_colour], colours[behind]) >= 4.5, (words_colour, behind)
    for number in range(1, 6):
        assert contrast(colours[f"plot-{number}"], colours["card"]) >= 3.0, number


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


PROBE = """<script>
addEventListener("securitypolicyviolation", event => console.error("blocked " + event.blockedURI));
addEventListener("load", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));
addEventListener("load", () => parent.postMessage([
  document.documentElement.scrollWidth, innerWidth,
  performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:")).length,
  document.querySelectorAll("svg path").length,
].join(" "), "*"));
</script>"""


def opened(page: str, folder: Path, width: int) -> tuple[list[str], list[str]]:
    """Opens a page in an iframe of `width` px; returns what the probe measured and the console's lines.

    An iframe, because Chromium's own window is never narrower than about 500 px.
    """
    assert CHROMIUM is not None
    allowed = page.replace("style-src 'unsafe-inline'", "script-src 'unsafe-inline'; style-src 'unsafe-inline'", 1)
    (folder / "page.html").write_text(allowed.replace("<head>", f"<head>{PROBE}", 1))
    (folder / "frame.html").write_text(
        "<!doctype html><title>waiting</title><script>addEventListener('message', event => {"
        "document.title = event.data})</script>"
        f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --enable-logging=stderr --hide-scrollbars"
    options += " --virtual-time-budget=4000"
    result = subprocess.run(
        [CHROMIUM, *options.split(), f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 600)},1000",
         "--dump-dom", (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title is not None, result.stderr
    return title[1].split(), [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_a_browser_opens_it_without_overflow_network_or_error(
    failing_report: Report, tmp_path: Path, width: int
) -> None:
    measured, console = opened(render_html(failing_report, samples()), tmp_path, width)
    assert console == []
    scroll_width, inner_width, resources, paths = measured
    assert (int(inner_width), int(scroll_width)) == (width, width)
    assert int(resources) == 0
    assert int(paths) > 20


@needs_chromium
def test_the_browser_test_sees_overflow_network_and_errors(equal_report: Report, tmp_path: Path) -> None:
    wide = (
        '<div style="width:900px">wide</div><script>console.error("told")</script><img src="http://127.0.0.1:9/x.png">'
    )
    page = render_html(equal_report, {}).replace("<main>", f"<main>{wide}", 1)
    measured, console = opened(page.replace("img-src data:", "img-src data: http:"), tmp_path, 360)
    assert int(measured[0]) > 360
    assert any("told" in line for line in console)
    assert int(measured[2]) > 0


@needs_chromium
def test_the_policy_blocks_what_would_be_loaded(equal_report: Report, tmp_path: Path) -> None:
    page = render_html(equal_report, {}).replace("<main>", '<main><img src="missing.png" alt="">', 1)
    _, console = opened(page, tmp_path, 360)
    assert any("Content Security Policy" in line or "blocked" in line for line in console)
