"""A check of a user's own port as a terminal shows it, and as a failed assertion does."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfport.checking.report import CheckReport
from tfport.equivalence.result import RUNGS, PairResult, RungResult
from tfport.layouts import MappedVariable, by_variables, in_words
from tfport.report import check_words, words
from tfport.report.check_words import assertion_text
from tfport.report.terminal import STYLES, print_line

__all__ = ["assertion_text", "print_check", "print_summary"]

_FEW = 12
"""Rows that a terminal shows of a long list."""


def print_summary(reports: Sequence[CheckReport], console: Console | None = None) -> None:
    """Prints how many of several ports pass, and the headline of each.

    Args:
      reports: one for each port.
      console: where to print; standard output when None.
    """
    console = console or Console()
    passed = all(report.equal for report in reports)
    console.print()
    print_line(console, check_words.several(reports), style="bold green" if passed else "bold red")
    for report in map(check_words.readable, reports):
        print_line(console, f"  {check_words.headline(report)}", style="green" if report.equal else "red")


def print_check(report: CheckReport, console: Console | None = None) -> None:
    """Prints the headline, the verdicts, where it diverges, and what a person needs to judge and repeat the check.

    Readable at 80 columns and without colour: no meaning hangs on colour alone.

    Args:
      report: what the check found.
      console: where to print; standard output when None.
    """
    console = console or Console()
    report = check_words.readable(report)
    print_line(console, check_words.headline(report), style="bold green" if report.equal else "bold red")
    _print_sides(report, console)
    if report.pair is not None:
        console.print()
        console.print(_verdict_table(report.pair))
        _print_rungs(report.pair, console)
    _print_divergence(report, console)
    _print_unmatched(report, console)
    _print_contracts(report, console)
    _print_mapping(report, console)
    _print_trained(report, console)
    _print_draws(report, console)
    _print_list(console, "What this covers:", report.covers)
    _print_list(console, "Notes:", tuple(check_words.notes(report)[1]))
    if report.command:
        _heading(console, "Repeat with:")
        for line in report.command.splitlines():
            console.print(Text(f"  {line}"), soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print()
    print_line(console, text, style="bold")


def _item(console: Console, text: str) -> None:
    print_line(console, f"- {text}", indent=2)


def _print_list(console: Console, heading: str, texts: tuple[str, ...]) -> None:
    if texts:
        _heading(console, heading)
        for text in texts[:_FEW]:
            _item(console, text)
        if len(texts) > _FEW:
            _item(console, f"and {len(texts) - _FEW:,} more")


def _print_sides(report: CheckReport, console: Console) -> None:
    for label, name, kind in (
        ("legacy", report.legacy, report.legacy_kind),
        ("modern", report.modern, report.modern_kind),
    ):
        if name or kind:
            print_line(console, f"{label}  {name}{f' ({kind})' if kind else ''}", indent=8)
    print_line(
        console,
        f"{report.precision}, {words.counted(report.steps, 'step')}, seed {report.seed}"
        + (f"; batches: {report.batches}" if report.batches else ""),
    )
    for note in check_words.notes(report)[0]:
        _item(console, note)
    for sentence in (check_words.rounding_text(report), check_words.tolerance_text(report)):
        if sentence:
            print_line(console, sentence)


def _verdict_table(pair: PairResult) -> Table:
    """One line a rung in 80 columns; the figures are those of `words.key_figure`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    for name in ("rung", "question", "verdict", "difference"):
        table.add_column(name, overflow="fold")
    found = {rung.rung: rung for rung in pair.rungs}
    for name in RUNGS:
        table.add_row(words.rung_label(name), Text(words.QUESTIONS[name], "dim"), *_cells(found.get(name)))
    table.add_section()
    only = "at the start alone" if words.differs_at_the_start_alone(pair) else ""
    table.add_row("verdict", "", Text(words.LABELS[pair.verdict], STYLES[pair.verdict]), only)
    return table


def _cells(rung: RungResult | None) -> tuple[Text, Text]:
    if rung is None:
        return Text("not run", "dim"), Text("")
    return Text(words.LABELS[rung.verdict], STYLES[rung.verdict]), Text(words.key_figure(rung).replace(" / ", ", "))


def _print_rungs(pair: PairResult, console: Console) -> None:
    findings = [(rung.rung, finding) for rung in pair.rungs for finding in rung.findings]
    if findings:
        console.print()
    for rung, finding in findings[:_FEW]:
        _item(console, f"rung {words.rung_label(rung)}: {finding}")
    if len(findings) > _FEW:
        _item(console, f"and {words.counted(len(findings) - _FEW, 'finding')} more")
    wrong = [check for check in pair.loss_checks if not check.agrees]
    for check in wrong:
        apart = words.figure(abs(check.reported - check.recomputed))
        _item(
            console,
            f"{check.side}, phase {check.phase}: reports {check.loss} {words.exact(check.reported, 'float32')}, "
            f"recomputed {words.exact(check.recomputed, 'float32')}: {apart} apart, bound {words.figure(check.bound)}",
        )


def _print_divergence(report: CheckReport, console: Console) -> None:
    divergence = check_words.first_divergence(report)
    if divergence is not None:
        _heading(console, "First divergence")
        for line in check_words.divergence_text(report, divergence).splitlines():
            print_line(console, line, indent=4)
    location = report.location
    if location is None:
        return
    _heading(console, "Location")
    print_line(console, check_words.location_text(location))
    facts = check_words.location_facts(location)
    width = max(len(label) for label, _ in facts)
    for label, text in facts:
        print_line(console, f"  {label.lower():<{width}}  {text}", indent=width + 4)
    rows = check_words.neighbour_rows(report, location)
    if rows:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("  neighbours", overflow="fold")
        for name in ("legacy", "", "modern", "apart"):
            table.add_column(name, justify="right", overflow="fold")
        for index, legacy, modern, apart, sign in rows:
            table.add_row(Text(f"  {index}"), legacy, sign, modern, apart)
        console.print(table)


def _print_unmatched(report: CheckReport, console: Console) -> None:
    for side, names in (("legacy", report.unmatched_legacy), ("modern", report.unmatched_modern)):
        _print_list(console, f"{words.counted(len(names), 'variable')} of the {side} side without a partner:", names)


def _print_contracts(report: CheckReport, console: Console) -> None:
    _heading(console, "Contracts of each side by itself")
    rows = check_words.contract_rows(report)
    for side in check_words.sides(report):
        clean = [row.contract for row in rows if row.side == side and not row.findings and row.asked]
        unasked = [row.contract for row in rows if row.side == side and not row.asked]
        findings = [finding for row in rows if row.side == side for finding in row.findings]
        told = f"no finding on {', '.join(clean)}" if clean else "findings on every contract"
        told += f"; nothing to ask on {', '.join(unasked)}" if unasked else ""
        print_line(console, f"{side}: {told}", indent=2)
        for finding in sorted(findings, key=lambda each: not each.fails)[:_FEW]:
            mark = "BROKEN" if finding.fails else "note"
            print_line(
                console,
                f"- {mark}  {check_words.finding_text(finding, side=False)}",
                style="bold red" if finding.fails else "",
                indent=2,
            )
        if len(findings) > _FEW:
            _item(console, f"and {len(findings) - _FEW:,} more")


def _print_mapping(report: CheckReport, console: Console) -> None:
    if not report.mapping:
        return
    _heading(console, "Mapping")
    print_line(console, check_words.mapping_text(report))
    reasons = [f"{reason} ({count:,})" for reason, count in check_words.reason_counts(report.mapping)]
    print_line(console, f"paired by: {', '.join(reasons)}", indent=2)
    variables = by_variables(report.mapping)
    few = len(variables) <= _FEW
    unsure = [each for each in variables if each[0].ambiguous]
    shown = variables if few else variables[: _FEW // 2]
    for mapped in shown:
        _print_mapped(mapped, console)
    if not few:
        print_line(console, f"  and {len(variables) - len(shown):,} more")
        hidden = [each for each in unsure if each not in shown]
        if hidden:
            names = check_words.listed((each[0].legacy for each in hidden), 3)
            print_line(console, f"Of these could as well have another partner: {names}.", indent=2)
    pairs = [(each.legacy, each.modern) for each in report.phases]
    for label, both in (("phases", pairs), ("outputs", list(report.outputs))):
        if both:
            text = ", ".join(one if one == other else f"{one} -> {other}" for one, other in both[:_FEW])
            more = f" and {len(both) - _FEW:,} more" if len(both) > _FEW else ""
            print_line(console, f"{label}: {text}{more}", indent=2)


def _print_mapped(pairs: Sequence[MappedVariable], console: Console) -> None:
    mapped, done = pairs[0], in_words(pairs)
    told = "; ".join(part for part in (done, mapped.reason) if part)
    same = mapped.legacy == mapped.modern and mapped.legacy_shape == mapped.modern_shape
    if same:
        print_line(console, f"  {mapped.legacy} {mapped.legacy_shape}{f'  [{told}]' if told else ''}", indent=6)
    else:
        print_line(console, f"  {mapped.legacy} {mapped.legacy_shape}", indent=6)
        told = f"  [{told}]" if told else ""
        print_line(console, f"    -> {mapped.modern} {mapped.modern_shape}{told}", indent=7)
    if mapped.ambiguous:
        print_line(console, f"    or {check_words.listed(mapped.ambiguous, 3)}: the outputs cannot tell", indent=7)


def _print_trained(report: CheckReport, console: Console) -> None:
    rows = check_words.phase_rows(report)
    if not rows:
        return
    _heading(console, "Who trained in each phase")
    if check_words.trained_text(report):
        print_line(console, check_words.trained_text(report))
    for row in rows:
        print_line(console, f"phase {row.phase}", indent=2)
        for movement, only in zip(row.movements, row.only, strict=True):
            moved, stayed = len(movement.moved), len(movement.stayed)
            names = f": {check_words.listed(movement.moved, 4)}" if movement.moved else ""
            print_line(console, f"  {movement.side}: {moved:,} moved, {stayed:,} left alone{names}", indent=4)
            if only:
                print_line(console, f"    moved on this side alone: {check_words.listed(only, 6)}", indent=6)


def _print_draws(report: CheckReport, console: Console) -> None:
    if not report.draws:
        return
    _heading(console, "Random draws")
    print_line(console, check_words.draws_text(report))
    loose = [draw for draw in report.draws if not draw.controlled]
    for draw in loose[:_FEW]:
        reason = f": {draw.reason}" if draw.reason else ""
        _item(console, f"{draw.side}, {draw.name} ({draw.kind}) is not controlled{reason}")
    if len(loose) > _FEW:
        _item(console, f"and {len(loose) - _FEW:,} more")
