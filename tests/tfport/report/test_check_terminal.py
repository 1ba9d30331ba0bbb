"""A check in the terminal and in an assertion: every ending in words, 80 columns enough, nothing hidden in a name."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from tfport.checking.report import CheckReport, Finding, Movement, PhasePair
from tfport.equivalence.result import RUNGS, RungResult, Verdict
from tfport.report import check_words, words
from tfport.report.check_terminal import assertion_text, print_check

from . import check_reports as reports


def printed(report: CheckReport, width: int = 80, color: bool = False) -> str:
    file = io.StringIO()
    print_check(report, Console(file=file, width=width, force_terminal=color, color_system="256" if color else None))
    return file.getvalue()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("identical", "new_train:build computes what old_train:build computes, bit for bit"),
        ("rounding", "new_train:build computes what old_train:build computes, up to rounding"),
        ("envelope", "new_train:build computes what old_train:build computes, up to rounding"),
        (
            "different",
            "new_train:build differs from old_train:build: first at rung 6 update, step 0, phase train_d, "
            "at adam/update/truediv",
        ),
        (
            "not_comparable",
            "new_train:build cannot be compared with old_train:build: 2 variables of the legacy side and 1 variable of "
            "the modern side have no partner",
        ),
        ("alone", "new_train:build breaks 2 contracts: who trained (phase g_step), ranges"),
    ],
)
def test_the_headline_comes_first_and_names_the_place(name: str, sentence: str) -> None:
    report = reports.ALL[name]()
    assert check_words.headline(report) == sentence
    assert flat(printed(report)).startswith(sentence)
    assert assertion_text(report).startswith(f"{sentence}.") and str(report) == assertion_text(report)


def test_headlines_of_rarer_endings() -> None:
    base = reports.identical()
    assert base.pair is not None
    broken = Finding("modern", "noise", "", "z is drawn once.")
    both = replace(base, findings=(broken, replace(broken, side="legacy")))
    assert not both.equal
    assert check_words.headline(both) == (
        "new_train:build computes what old_train:build computes, bit for bit; but it does not pass: "
        "2 contracts broken: noise on the modern side, noise on the legacy side"
    )
    lone = replace(reports.alone(), findings=())
    assert check_words.headline(lone) == "new_train:build, checked alone, breaks no contract"
    bare = replace(base, pair=replace(base.pair, rungs=base.pair.rungs[:3]))
    assert check_words.headline(bare) == "new_train:build agrees with old_train:build on what was compared"
    empty = replace(base, pair=replace(base.pair, rungs=(), verdict=Verdict.NOT_COMPARABLE))
    assert check_words.headline(empty).endswith("cannot be compared with old_train:build: no rung was compared")
    shaky = (RungResult("repeat", Verdict.DIFFERENT), *base.pair.rungs[1:])
    unsteady = replace(base, pair=replace(base.pair, rungs=shaky, verdict=Verdict.DIFFERENT))
    assert "is not proven: old_train:build does not repeat its own run" in check_words.headline(unsteady)


def test_one_line_a_rung_in_80_columns() -> None:
    lines = printed(reports.rounding()).splitlines()
    for number, rung in enumerate(RUNGS):
        (line,) = [each for each in lines if each.startswith(f"{number} {rung} ")]
        assert words.QUESTIONS[rung] in line
    assert "8 free_trajectory   same training?        rounding          4.6e-03, f64 9.1e-15" in lines


@pytest.mark.parametrize("name", reports.ALL)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_but_the_command_is_wider_than_the_console(name: str, width: int) -> None:
    report = reports.ALL[name]()
    commands = {f"  {line}" for line in check_words.readable(report).command.splitlines()}
    lines = set(printed(report, width).splitlines()) - commands
    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("name", ["different", "alone", "not_comparable"])
def test_colour_adds_nothing_but_colour(name: str) -> None:
    coloured = printed(reports.ALL[name](), color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(reports.ALL[name]())


def test_a_different_port_is_told_whole() -> None:
    report = reports.different()
    text = printed(report, 200)
    divergence = check_words.first_divergence(report)
    assert divergence is not None and report.location is not None
    assert check_words.divergence_text(report, divergence) in text
    assert check_words.divergence_text(report, divergence).startswith("legacy against modern  rung 6 update")
    for part in (
        "adam/update/truediv (RealDiv)",
        "d_adam/update_dense_2/kernel/ResourceApplyAdam (ResourceApplyAdam)",
        "gradients/dense_2/MatMul_grad → gradient_tape/dense/MatMul, lr",
        "- rung 1 structure: the d_adam optimizer's epsilon",
        "reports loss -9.86294484e-01, recomputed -1.38629445e+00: 4.0e-01 apart, bound 4.0e-07",
        "- BROKEN  who trained, phase d_step: dis.layers.1.bias is trainable and never moves.",
        "- note  noise: augment/flip draws the same numbers at each step.",
        "legacy: no finding on who trained, reported loss, ranges, noise, gradients, statistics",
        "-> gen.layers.0.weight (128, 64)  [transposed (1, 0); forward pass: 1 of 6 candidates agrees]",
        "or dis.layers.3.bias, gen.layers.0.bias: the outputs cannot tell",
        "moved on this side alone: discriminator/dense_3/bias",
        "modern, augment/flip (RandomShuffle) is not controlled: drawn in Python",
        "rung 8 free trajectory: 60 steps were asked for and --sample runs 5",
        "The smallest relative tolerance under which every compared tensor passes: 2.1e-01.",
    ):
        assert part in text, part
    assert re.search(r"\[17, 3\] +-3.09999974e-04 +≠ +-3.86999986e-04 +7.7e-05", text)
    assert re.search(r"\[17, 2\] +1.50000000e-03 +=", text)
    assert text.endswith(f"Repeat with:\n  {report.command}\n")


def test_how_rounding_was_shown_is_said() -> None:
    assert "shown in float64" in flat(printed(reports.rounding()))
    assert "shown by an envelope" in flat(printed(reports.rounding("envelope")))
    assert "shown" not in printed(reports.identical())


def test_what_has_no_partner_is_listed() -> None:
    text = printed(reports.not_comparable())
    assert "2 variables of the legacy side without a partner:\n- generator/bn/gamma\n- generator/bn/beta" in text
    assert "1 variable of the modern side without a partner:\n- gen.norm.weight" in text
    assert "8 of 10 variables of the legacy side have a partner" in text


def test_alone_shows_contracts_and_no_ladder() -> None:
    text = printed(reports.alone())
    assert "0 repeat" not in text and "Mapping" not in text and "legacy" not in text.replace("--legacy", "")
    assert "- BROKEN  ranges: images lie in [-1, 1] and x in [0, 1]." in text
    assert "4 moved, 4 left alone" in text


def test_many_variables_are_counted_and_not_listed() -> None:
    text = flat(printed(reports.many()))
    assert "500 of 500 variables of the legacy side have a partner. 5 partners could as well be another." in text
    assert "paired by: same name (333), forward pass (167)" in text
    assert "and 494 more" in text
    assert "Of these could as well have another partner: resnet/block_7/conv/kernel" in text
    assert len(printed(reports.many()).splitlines()) < 100


@pytest.mark.parametrize("name", ["hostile", "sneaky", "unicode", "long"])
def test_names_stay_text_and_hide_nothing(name: str) -> None:
    text = printed(reports.ALL[name](), 400) + assertion_text(reports.ALL[name]())
    assert all(each.isprintable() or each == "\n" for each in text)
    text.encode()
    if name == "sneaky":
        assert r"a\x00b\x1b[31mred\u202egnp\ud800\ufffe newline" in text
    if name in ("hostile", "unicode"):
        assert getattr(reports, name.upper()) in text


def test_markup_is_text() -> None:
    text = printed(reports.nasty("[bold]x[/bold][/]"), 200)
    assert "[bold]x[/bold][/]" in text


def test_values_that_are_not_finite_are_told() -> None:
    text = printed(reports.broken_numbers(), 200)
    assert "not finite, so no distance; no tolerance would pass" in text
    assert "No relative tolerance would have passed." in text
    assert re.search(r"\[0\] +inf +≠ +-inf +inf", text)
    assert "reports loss nan, recomputed -inf" in text


@pytest.mark.parametrize("name", reports.ALL)
def test_an_assertion_has_at_most_25_lines_and_no_markup(name: str) -> None:
    lines = assertion_text(reports.ALL[name]()).splitlines()
    assert len(lines) <= 25
    assert "\x1b" not in "".join(lines)


def test_an_assertion_says_what_fails_and_no_more() -> None:
    report = reports.different()
    text = assertion_text(report)
    divergence = check_words.first_divergence(report)
    assert divergence is not None
    assert check_words.divergence_text(report, divergence) in text
    assert "Location: The first node whose inputs agree and whose output does not is adam/update/truediv" in text
    assert "- modern, who trained, phase d_step: dis.layers.1.bias is trainable and never moves." in text
    assert "the same numbers at each step" not in text, "a note is no reason to fail"
    assert text.endswith("passes: 2.1e-01.")
    crowd = replace(report, findings=tuple(Finding("modern", "ranges", f"p{n}", "far") for n in range(50)))
    assert "and 45 more" in assertion_text(crowd)
    assert len(assertion_text(crowd).splitlines()) <= 25


def test_tolerances() -> None:
    base = reports.different()
    assert check_words.tolerance_text(replace(base, tolerance=None)) == "No relative tolerance would have passed."
    assert check_words.tolerance_text(replace(base, tolerance=math.nan)) == "No relative tolerance would have passed."
    assert "tolerance of 0" in check_words.tolerance_text(reports.identical())
    assert check_words.tolerance_text(reports.not_comparable()) == ""
    assert check_words.tolerance_text(reports.alone()) == ""


def test_phases_are_paired_by_the_mapping_and_names_by_their_partners() -> None:
    rows = check_words.phase_rows(reports.identical())
    assert [(row.phase, row.alike, len(row.movements)) for row in rows] == [
        ("train_d / d_step", True, 2),
        ("train_g / g_step", True, 2),
    ]
    report = reports.different()
    (first, second) = check_words.phase_rows(report)
    assert first.only == (("discriminator/dense_3/bias",), ())
    assert second.alike
    assert first.movements[1].moved == ("dis.layers.0.weight", "dis.layers.0.bias", "dis.layers.1.weight")
    swapped = replace(report, phases=(PhasePair("train_d", "g_step"), PhasePair("train_g", "d_step")))
    assert not any(row.alike for row in check_words.phase_rows(swapped))
    single = replace(report, movements=(Movement("modern", "extra", ("a",), ()),))
    assert [(row.phase, row.alike) for row in check_words.phase_rows(single)] == [("extra", True)]
    assert check_words.trained_text(single) == ""


def test_movements_under_shared_names_are_shown_under_each_sides_own() -> None:
    report = reports.different()
    to_legacy = {each.modern: each.legacy for each in report.mapping}
    shared = tuple(
        each
        if each.side == "legacy"
        else Movement(
            "modern",
            {"d_step": "train_d", "g_step": "train_g"}[each.phase],
            tuple(to_legacy[name] for name in each.moved),
            tuple(to_legacy[name] for name in each.stayed),
        )
        for each in report.movements
    )
    under_shared, under_own = (check_words.phase_rows(each) for each in (replace(report, movements=shared), report))
    for one, other in zip(under_shared, under_own, strict=True):
        assert (one.phase, one.only, one.alike) == (other.phase, other.only, other.alike)
        assert [each.moved for each in one.movements] == [each.moved for each in other.movements]
        assert [each.stayed for each in one.movements] == [each.stayed for each in other.movements]


def test_a_phase_that_the_text_names_is_not_named_twice() -> None:
    finding = Finding("modern", "noise", "d_step", "phase d_step: z is drawn once.")
    assert check_words.finding_text(finding) == "modern, noise: phase d_step: z is drawn once."
    assert check_words.finding_text(replace(finding, text="drawn once", side="m"), side=False) == (
        "noise, phase d_step: drawn once"
    )


def test_float64_in_vain_is_not_called_rounding() -> None:
    report = replace(reports.different(), rounding_by="float64")
    assert check_words.rounding_text(report) == "The rungs were run in float64 as well."
    assert "held against an envelope" in check_words.rounding_text(replace(report, rounding_by="envelope"))
    assert check_words.rounding_text(replace(reports.not_comparable(), rounding_by="float64")) == ""


def test_a_name_is_shortened_in_its_middle() -> None:
    assert check_words.shortened("abcdefghij", 10) == "abcdefghij"
    assert check_words.shortened("abcdefghijk", 10) == "abcd…ghijk"


def test_the_check_reports_import_neither_tensorflow_nor_pyplot() -> None:
    code = (
        "import sys; import tfport.report.check_terminal, tfport.report.check_html, tfport.report.junit; "
        "bad = {'tensorflow', 'keras', 'matplotlib', 'jinja2'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
