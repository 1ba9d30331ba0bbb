"""The terminal report: the exact shape of a divergence, every cell of the table, 80 columns enough."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from tfport.equivalence.result import RUNGS, Divergence, Mover, PairResult, Report, RungResult, Verdict
from tfport.report import words
from tfport.report.terminal import divergence_text, print_report

EXAMPLE = Divergence(
    rung="gradient",
    step=0,
    phase="generator",
    tensor="generator/hidden/kernel",
    index=(17, 3),
    shape=(128, 256),
    dtype="float32",
    legacy=-3.0999997397884727e-04,
    modern=-3.869999863673002e-04,
    absolute=7.7e-05,
    relative=0.2,
    ulp=2_031_616,
    atol=9.1e-05,
    differing=1_204,
    elements=32_768,
    held_before=("structure", "initialisation", "forward", "loss"),
)
PAIR = PairResult("tf1_graph", "gradient_tape", Verdict.DIFFERENT, ())


def printed(report: Report, width: int = 80, color: bool = False) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width, force_terminal=color, color_system="256" if color else None))
    return file.getvalue()


def test_a_divergence_has_the_shape_of_the_style_guide() -> None:
    assert divergence_text("vanilla_gan", PAIR, EXAMPLE) == (
        "vanilla_gan  tf1_graph against gradient_tape  rung 5 gradient, step 0, phase generator\n"
        "first mismatch: generator/hidden/kernel[17, 3]  float32 (128, 256)\n"
        "  tf1_graph      -3.09999974e-04\n"
        "  gradient_tape  -3.86999986e-04    7.7e-05 absolute, 2.0e-01 relative, 2,031,616 ulp; "
        "would pass at atol 9.1e-05\n"
        "1,204 of 32,768 elements differ. Held before: structure, initialisation, forward, loss."
    )


def test_two_float64_neighbours_print_differently() -> None:
    nearby = replace(EXAMPLE, dtype="float64", legacy=0.1, modern=math.nextafter(0.1, 1.0))
    lines = divergence_text("m", PAIR, nearby).splitlines()
    assert lines[2].split()[1] == "1.0000000000000001e-01"
    assert lines[3].split()[1] == "1.0000000000000002e-01"


def test_a_scalar_that_is_nan_needs_no_index_and_no_tolerance() -> None:
    broken = replace(
        EXAMPLE, phase=None, index=(), shape=(), modern=math.nan, ulp=-1, atol=math.nan, elements=1, differing=1
    )
    text = divergence_text("m", PAIR, replace(broken, held_before=()))
    assert "rung 5 gradient, step 0\n" in text
    assert "first mismatch: generator/hidden/kernel  float32 ()" in text
    assert "nan    not finite, so no distance; no tolerance would pass" in text
    assert text.endswith("1 of 1 element differs. Held before: nothing.")


@pytest.mark.parametrize(("value", "dtype", "text"), [(12_345.0, "int64", "12,345"), (1.0, "bool", "1")])
def test_counts_are_printed_in_full(value: float, dtype: str, text: str) -> None:
    assert words.exact(value, dtype) == text


def test_every_rung_and_verdict_stands_in_the_table(equal_report: Report, failing_report: Report) -> None:
    text = printed(equal_report) + printed(failing_report)
    for number, rung in enumerate(RUNGS):
        assert f"{number} {rung}" in text
        assert words.QUESTIONS[rung] in text
    for verdict in Verdict:
        assert words.LABELS[verdict] in text
    assert "rounding 4.6e-03" in text
    assert "/ f64 9.1e-15" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_but_the_command_is_wider_than_the_console(failing_report: Report, width: int) -> None:
    lines = printed(failing_report, width).splitlines()
    assert [line for line in lines if len(line) > width and failing_report.command not in line] == []


def test_pairs_that_do_not_fit_get_their_own_table(failing_report: Report) -> None:
    assert printed(failing_report, 80).count("0 repeat") == 1
    assert printed(failing_report, 60).count("0 repeat") == 3 - 1
    assert printed(failing_report, 45).count("0 repeat") == 3


def test_colour_adds_nothing_but_colour(failing_report: Report) -> None:
    import re

    coloured = printed(failing_report, color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(failing_report)


def test_a_different_pair_shows_divergence_findings_movers_and_losses(failing_report: Report) -> None:
    text = printed(failing_report, 200)
    assert "keras3 is different: first at rung 6 update, step 0, phase discriminator. It already shows at" in text
    divergence = failing_report.pairs[2].rung("update").first_divergence
    assert divergence is not None
    assert divergence_text("vanilla_gan", failing_report.pairs[2], divergence) in text
    assert "- rung 1 structure: discriminator/epsilon: tf1_graph 9.99999993922529e-09" in text
    assert "only tf1_graph moved: discriminator/hidden/kernel, discriminator/hidden/bias" in text
    assert "only keras3 moved: discriminator/output/bias" in text
    assert "reported -9.86294484e-01, recomputed -1.38629448e+00: 4.0e-01 apart, bound 4.0e-07" in text
    assert "reported nan, recomputed -6.93147242e-01" in text
    assert "keras2 cannot be compared with tf1_graph: first at rung 1 structure." in text


def test_an_equal_pair_says_so_in_one_line_each(equal_report: Report) -> None:
    text = printed(equal_report, 200)
    assert "gradient_tape computes what tf1_graph computes, bit for bit, on all 7 numerical rungs." in text
    assert "is 4.6e-03 of its tensor's magnitude in float32 and 9.1e-15 in float64." in text
    assert (
        text.count("The same variables moved on both sides in every phase (4 in discriminator, 4 in generator).") == 3
    )
    assert text.count("Every reported loss is the loss recomputed from the outputs (4 checks).") == 3
    assert "first mismatch" not in text


def test_markup_in_a_name_is_text(failing_report: Report) -> None:
    pair = replace(failing_report.pairs[2], modern="[bold]x[/bold]", movers=(Mover("[/]", ("a[0]",), ()),))
    text = printed(replace(failing_report, pairs=(pair,), model="[red]m"), 200)
    assert "[bold]x[/bold]" in text
    assert "[red]m" in text
    assert "only tf1_graph moved: a[0]" in text


def test_rungs_that_did_not_run_are_not_called_equal(equal_report: Report) -> None:
    pairs = tuple(replace(pair, rungs=pair.rungs[:3]) for pair in equal_report.pairs)
    text = printed(replace(equal_report, pairs=pairs))
    assert text.startswith("All 3 ports agree with tf1_graph on rungs 0, 1, 2\n")
    assert text.count("not run") == 3 * 7
    assert "no numerical rung was run" in text


def test_headlines(equal_report: Report, failing_report: Report) -> None:
    one, two = equal_report.pairs[1:]
    assert words.headline(equal_report) == "All 3 ports compute what tf1_graph computes"
    assert words.headline(replace(equal_report, pairs=(one, two))) == "Both ports compute what tf1_graph computes"
    assert words.headline(replace(equal_report, pairs=(one,))) == "keras2 computes what tf1_graph computes"
    assert words.headline(failing_report) == "2 of 3 ports fail: keras2 cannot be compared, keras3 is different"
    assert words.headline(replace(failing_report, pairs=(one, failing_report.pairs[2]))) == (
        "keras3 is different: first at rung 6 update, step 0, phase discriminator"
    )
    assert words.headline(replace(equal_report, pairs=())) == "Nothing was compared"
    other = replace(two, legacy="keras2")
    assert words.headline(replace(equal_report, pairs=(one, other))) == "All 2 pairs are equal"


def test_a_legacy_side_that_does_not_repeat_is_not_blamed_on_the_port(equal_report: Report) -> None:
    pair = equal_report.pairs[1]
    rungs = (RungResult("repeat", Verdict.DIFFERENT), *pair.rungs[1:])
    broken = replace(pair, verdict=Verdict.DIFFERENT, rungs=rungs)
    assert words.headline(replace(equal_report, pairs=(broken,))) == (
        "keras2 is not proven: tf1_graph does not repeat its own run (rung 0 repeat)"
    )


def test_a_pair_without_rungs_fails_in_words(equal_report: Report) -> None:
    empty = PairResult("tf1_graph", "keras2", Verdict.NOT_COMPARABLE, ())
    assert "keras2 cannot be compared with tf1_graph: no rung was compared" in printed(
        replace(equal_report, pairs=(empty,))
    )


def test_the_report_package_imports_neither_tensorflow_nor_pyplot() -> None:
    code = (
        "import sys; import tfport.report.terminal, tfport.report.plots, tfport.report.html; "
        "bad = {'tensorflow', 'keras', 'matplotlib', 'jinja2'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
