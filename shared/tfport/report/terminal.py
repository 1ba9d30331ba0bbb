"""The comparison as a terminal shows it: one verdict table, then what a person needs of each pair."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfport.equivalence.result import RUNGS, PairResult, Report, RungResult, Verdict
from tfport.report.words import (
    LABELS,
    QUESTIONS,
    cell_figure,
    counted,
    divergence_text,
    exact,
    figure,
    first_divergence,
    headline,
    key_figure,
    matrix_headline,
    only,
    pair_summary,
    rung_label,
)

__all__ = ["divergence_text", "print_matrix", "print_report"]

STYLES: dict[Verdict, str] = {
    Verdict.IDENTICAL: "green",
    Verdict.SAME_DISTRIBUTION: "green",
    Verdict.ROUNDING: "cyan",
    Verdict.DIFFERENT: "bold red",
    Verdict.NOT_COMPARABLE: "bold yellow",
}
_RUNG_WIDTH, _CELL_WIDTH = 21, 17
"""Characters: the longest question, and the longest verdict ("same distribution")."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints the verdict table, and for each pair its findings, first divergence, movers and losses.

    Readable at 80 columns and without colour: no meaning hangs on colour alone, and pairs that do not fit side by
    side get a table below.

    Args:
      report: what the comparison found.
      console: where to print; standard output when None.
    """
    console = console or Console()
    per_table = max(1, (console.width - _RUNG_WIDTH - 1) // (_CELL_WIDTH + 2))
    print_line(console, headline(report), style="bold green" if report.equal else "bold red")
    print_line(
        console,
        f"{report.model}  {report.precision}, {counted(report.steps, 'step')}, batch {report.batch_size} of "
        f"{report.dataset}, seed {report.seed}",
    )
    for start in range(0, len(report.pairs), per_table):
        console.print()
        console.print(_verdict_table(report.pairs[start : start + per_table]))
    for pair in report.pairs:
        _print_pair(report.model, pair, console)
    if report.command:
        console.print()
        print_line(console, "Repeat with:")
        console.print(Text(f"  {report.command}"), soft_wrap=True)


def print_matrix(reports: Sequence[Report], console: Console | None = None) -> None:
    """Prints the verdicts of many models: a row a model, a column a paradigm; readable at 80 columns."""
    console = console or Console()
    equal = bool(reports) and all(report.equal for report in reports)
    console.print()
    print_line(console, matrix_headline(reports), style="bold green" if equal else "bold red")
    console.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("steps", justify="right")
    pairs = [pair for report in reports for pair in report.pairs]
    for name in dict.fromkeys(pair.modern for pair in pairs):
        table.add_column(f"{pairs[0].legacy} -> {name}", overflow="fold")
    for report in reports:
        cells = [
            Text(f"{LABELS[pair.verdict]}\n{cell_figure(pair)}".rstrip(), STYLES[pair.verdict]) for pair in report.pairs
        ]
        table.add_row(report.model, str(report.steps), *cells)
    console.print(table)


def _verdict_table(pairs: tuple[PairResult, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("rung", min_width=_RUNG_WIDTH, no_wrap=True)
    for pair in pairs:
        table.add_column(Text(f"{pair.legacy} -> {pair.modern}"), min_width=_CELL_WIDTH, overflow="fold")
    for name in RUNGS:
        label = Text.assemble(rung_label(name), "\n", (f"  {QUESTIONS[name]}", "dim"))
        table.add_row(label, *(_cell(_find(pair, name)) for pair in pairs))
    table.add_section()
    table.add_row("verdict", *(Text(LABELS[pair.verdict], STYLES[pair.verdict]) for pair in pairs))
    return table


def _find(pair: PairResult, name: str) -> RungResult | None:
    return next((rung for rung in pair.rungs if rung.rung == name), None)


def _cell(rung: RungResult | None) -> Text:
    if rung is None:
        return Text("not run", "dim")
    figures = key_figure(rung).replace(" / ", "\n/ ") if "/" in key_figure(rung) else f"\n{key_figure(rung)}"
    return Text(f"{LABELS[rung.verdict]} {figures}".rstrip(), STYLES[rung.verdict])


def _print_pair(model: str, pair: PairResult, console: Console) -> None:
    console.print()
    print_line(console, f"{pair.legacy} -> {pair.modern}", style="bold")
    print_line(console, pair_summary(pair))
    divergence = None if pair.verdict.equal else first_divergence(pair)
    if divergence is not None:
        console.print()
        for line in divergence_text(model, pair, divergence).splitlines():
            print_line(console, line, indent=4)
        console.print()
    for rung in pair.rungs:
        for finding in rung.findings:
            print_line(console, f"- rung {rung_label(rung.rung)}: {finding}", indent=2)
    _print_movers(pair, console)
    _print_losses(pair, console)


def _print_movers(pair: PairResult, console: Console) -> None:
    if not pair.movers:
        return
    unequal = [mover for mover in pair.movers if set(mover.legacy) != set(mover.modern)]
    if not unequal:
        phases = ", ".join(f"{len(mover.legacy)} in {mover.phase}" for mover in pair.movers)
        print_line(console, f"The same variables moved on both sides in every phase ({phases}).", indent=2)
    for mover in unequal:
        print_line(console, f"Phase {mover.phase} does not move the same variables:")
        for side, names in (
            (pair.legacy, only(mover.legacy, mover.modern)),
            (pair.modern, only(mover.modern, mover.legacy)),
        ):
            print_line(console, f"  only {side} moved: {', '.join(names) or 'none'}", indent=4)


def _print_losses(pair: PairResult, console: Console) -> None:
    if not pair.loss_checks:
        return
    wrong = [check for check in pair.loss_checks if not check.agrees]
    if not wrong:
        count = counted(len(pair.loss_checks), "check")
        print_line(console, f"Every reported loss is the loss recomputed from the outputs ({count}).", indent=2)
        return
    print_line(console, "A reported loss is not the loss recomputed from the outputs:")
    for check in wrong:
        print_line(console, f"  {check.side}, phase {check.phase}, {check.loss}", indent=4)
        difference = figure(abs(check.reported - check.recomputed))
        print_line(
            console,
            f"    reported {exact(check.reported, 'float32')}, recomputed {exact(check.recomputed, 'float32')}: "
            f"{difference} apart, bound {figure(check.bound)}",
            indent=6,
        )


def print_line(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Prints text as it stands (no markup), long lines continued under a hanging indent."""
    for line in text.splitlines():
        wrapped = textwrap.wrap(
            line, max(console.width, 20), subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True
        )
        for part in wrapped or [""]:
            console.print(Text(part, style), soft_wrap=True)
