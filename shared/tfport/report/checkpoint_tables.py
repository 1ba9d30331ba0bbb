"""What a checkpoint holds, and how two differ, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from tfport.checkpoints.contents import STRING, Role
from tfport.checkpoints.differing import Difference, OnlyOne, Place, Status, TensorDifference
from tfport.checkpoints.inspecting import (
    AVERAGES,
    OPTIMIZER,
    OTHER,
    STATISTICS,
    WEIGHTS,
    Inspection,
    Number,
    OptimizerRow,
    Statistics,
    TensorRow,
    shortest,
)
from tfport.report.check_words import listed, visible
from tfport.report.terminal import print_line
from tfport.report.words import counted, exact, figure

CONVENTIONS = {
    "tf1": "slots as TF1 keeps them",
    "keras": "slots as Keras keeps them",
    "torch": "slots as PyTorch keeps them",
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """Bytes in three digits: "140 B", "1.53 MiB"."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count:,} B" if not unit else f"{value:.3g} {_UNITS[unit]}"


def shape_text(shape: Sequence[int]) -> str:
    """ "[784, 128]"; "scalar" for no axes."""
    return f"[{', '.join(map(str, shape))}]" if shape else "scalar"


# --- Lists of tensors -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Line:
    """One tensor of a list: its name, what else there is to say of it, and a cell for each column."""

    name: str
    cells: Sequence[str]
    below: Sequence[str] = ()


def _listing(console: Console, first: str, columns: Sequence[tuple[str, bool]], lines: Sequence[_Line]) -> None:
    """Prints a list whole. A name that has no room beside its figures stands on a line of its own above them.

    Args:
      console: where to print.
      first: heading of the names.
      columns: heading, and whether the cells are figures that stand to the right.
      lines: what to list.
    """
    widths = [max(len(name), *(len(line.cells[index]) for line in lines)) for index, (name, _) in enumerate(columns)]
    room = console.width - sum(widths) - 2 * len(widths)
    names = max([len(first), *(len(line.name) for line in lines if len(line.name) <= room)])
    indent = max(min(names, room), 4) if room >= len(first) else 4

    def aligned(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, (_, right) in zip(cells, widths, columns, strict=True)
        ]
        return "  ".join(placed).rstrip()

    heading = aligned([name for name, _ in columns])
    if room >= len(first):
        print_line(console, f"{first:<{indent}}  {heading}", "dim", indent=indent)
    else:
        print_line(console, first, "dim")
        print_line(console, f"{'':<{indent}}  {heading}", "dim", indent=indent)
    for line in lines:
        figures = aligned(line.cells)
        if len(line.name) <= indent:
            print_line(console, f"{line.name:<{indent}}  {figures}", indent=indent)
        else:
            print_line(console, line.name, indent=2)
            if figures:
                print_line(console, f"{'':<{indent}}  {figures}", indent=indent)
        for more in line.below:
            print_line(console, f"    {more}", "dim", indent=6)


def _heading(console: Console, text: str) -> None:
    console.print()
    print_line(console, text, style="bold", indent=2)


def _sentences(console: Console, heading: str, texts: Iterable[str]) -> None:
    found = list(texts)
    if found:
        _heading(console, heading)
        for text in found:
            print_line(console, f"- {visible(text)}", indent=2)


# --- tfport inspect ---------------------------------------------------------------------------------------------------
_TITLES = {
    WEIGHTS: "Weights",
    STATISTICS: "Moving statistics",
    AVERAGES: "Moving averages of weights",
    OTHER: "Other",
}


def print_inspection(found: Inspection, console: Console | None = None) -> None:
    """Prints everything that was found of a checkpoint; every tensor is listed.

    Readable at 80 columns and without colour; in a narrower terminal figures go below names.

    Args:
      found: what to print.
      console: where to print; standard output when None.
    """
    console = console or Console()
    _print_head(found, console)
    for group in (WEIGHTS, STATISTICS, AVERAGES):
        rows = [row for row in found.tensors if row.group == group]
        if rows:
            _heading(console, _TITLES[group])
            _print_rows(rows, console)
    for optimizer in found.optimizers:
        rows = [row for row in found.tensors if row.group == f"{OPTIMIZER}{optimizer.name}"]
        _print_optimizer(optimizer, rows, console)
    rows = [row for row in found.tensors if row.group == OTHER]
    if rows:
        _heading(console, _TITLES[OTHER])
        _print_rows(rows, console, roles=True)
    if found.values:
        _print_values(found, console)
        _print_odd(found, console)
    _print_totals(found, console)
    _sentences(console, "Notes", found.notes)


def _print_head(found: Inspection, console: Console) -> None:
    print_line(console, visible(found.path), "bold")
    print_line(console, f"format      {found.format_name}", indent=12)
    if found.written_by:
        told = ", ".join(f"{program} {version}".rstrip() for program, version in found.written_by.items())
        print_line(console, f"written by  {visible(told)}", indent=12)
    files = [f"{visible(name)} ({size(count)})" for name, count in found.files.items()]
    if files:
        total = f"{size(found.bytes_on_disk)} in {counted(len(files), 'file')}"
        print_line(console, f"on disk     {total}: {', '.join(files)}", indent=12)
    total = f"{counted(found.total.tensors, 'tensor')}, {counted(found.total.parameters, 'parameter')}"
    print_line(console, f"holds       {total}, {size(found.total.bytes)}", indent=12)


_COLUMNS = (("shape", False), ("dtype", False), ("parameters", True), ("bytes", True))


def _print_rows(rows: Sequence[TensorRow], console: Console, roles: bool = False) -> None:
    lines = []
    for row in rows:
        below = [f"key {visible(row.key)}"] if row.key != row.name else []
        if row.value is not None:
            below.append(f"value {_value(row.value, row.dtype)}")
        if roles and row.role is not Role.OTHER:
            below.append(f"a {row.role}")
        lines.append(_Line(visible(row.name), _cells(row), below))
    _listing(console, "name", _COLUMNS, lines)


def _cells(row: TensorRow) -> list[str]:
    if row.dtype == STRING:
        return [shape_text(row.shape), row.dtype, "", ""]
    return [shape_text(row.shape), row.dtype, f"{row.parameters:,}", size(row.bytes)]


def _value(value: Number, dtype: str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return repr(value) if dtype == "float64" else shortest(value)


def _print_optimizer(found: OptimizerRow, rows: Sequence[TensorRow], console: Console) -> None:
    algorithm = found.algorithm or "algorithm not recorded"
    _heading(console, f"Optimizer {visible(found.name)}: {visible(algorithm)}")
    numbers = [
        f"{visible(name)} {shortest(value)}{' (varies)' if name in found.varying else ''}"
        for name, value in found.hyperparameters.items()
    ]
    numbers += [f"{visible(name)} varies" for name in found.varying if name not in found.hyperparameters]
    print_line(console, ", ".join(numbers) or "no hyperparameters are recorded", indent=2)
    count = found.count
    counts = [each for each in found.counts if each.value is not None]
    origin = "" if counts or not found.powers else ", by its beta powers"
    print_line(console, f"{_whole(count)} updates{origin}" if count is not None else "no count of updates is recorded")
    parameters = f", {found.parameters:,} parameters" if found.parameters is not None else ""
    if found.variables:
        names = listed(map(visible, found.variables), 4)
        print_line(console, f"trains {counted(len(found.variables), 'variable')}{parameters}: {names}", indent=2)
    else:
        print_line(console, "what it trains is not recorded")
    if found.slots:
        told = [
            f"{visible(slot)} ({counted(each.tensors, 'tensor')}, {size(each.bytes)})"
            for slot, each in found.slots.items()
        ]
        kept = f"; {CONVENTIONS[found.convention]}" if found.convention in CONVENTIONS else ""
        print_line(console, f"slots: {', '.join(told)}{kept}", indent=2)
    if rows:
        _print_rows(rows, console)


def _whole(count: Number) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:g}"


_FIGURES: tuple[tuple[str, Callable[[Statistics], str]], ...] = (
    ("min", lambda seen: _short(seen.minimum)),
    ("max", lambda seen: _short(seen.maximum)),
    ("mean", lambda seen: _short(seen.mean)),
    ("deviation", lambda seen: _short(seen.deviation)),
    ("zeros", lambda seen: f"{seen.zeros:,}"),
    ("NaN", lambda seen: f"{seen.nan:,}"),
    ("inf", lambda seen: f"{seen.infinite:,}"),
)


def _short(value: Number | None) -> str:
    """A number in three digits and at most nine characters; whole numbers whole as long as they are short."""
    if value is None:
        return "-"
    if isinstance(value, int) and abs(value) < 10**8:
        return str(value)
    return f"{value:.3g}"


def _print_values(found: Inspection, console: Console) -> None:
    """Names on lines of their own, the figures below them in columns."""
    rows = [(row, row.statistics) for row in found.tensors if row.statistics is not None]
    if not rows:
        return
    _heading(console, "Values")
    cells = [[text(seen) for _, text in _FIGURES] for _, seen in rows]
    widths = [max(len(name), *(len(each[index]) for each in cells)) for index, (name, _) in enumerate(_FIGURES)]
    aligned = [" ".join(name.rjust(width) for (name, _), width in zip(_FIGURES, widths, strict=True))]
    aligned += [" ".join(cell.rjust(width) for cell, width in zip(each, widths, strict=True)) for each in cells]
    print_line(console, f"  {aligned[0]}", "dim", indent=4)
    for (row, _), figures in zip(rows, aligned[1:], strict=True):
        print_line(console, visible(row.name), indent=2)
        print_line(console, f"  {figures}", indent=4)


def _print_odd(found: Inspection, console: Console) -> None:
    serious = [each.text for each in found.odd if not each.mild]
    mild = [each.text for each in found.odd if each.mild]
    if not serious:
        _heading(console, "Odd: nothing")
    _sentences(console, "Odd", serious)
    _sentences(console, "Usual, and good to know", mild)


def _print_totals(found: Inspection, console: Console) -> None:
    _heading(console, "Totals")
    rows = [*found.totals.items(), ("all", found.total)]
    lines = [_Line(role, [f"{each.tensors:,}", f"{each.parameters:,}", size(each.bytes)]) for role, each in rows]
    _listing(console, "role", [(name, True) for name in ("tensors", "parameters", "bytes")], lines)
    if found.repeated:
        print_line(console, f"{counted(found.repeated, 'tensor')} repeat a name that the checkpoint holds already.")


# --- tfport diff ------------------------------------------------------------------------------------------------------
def headline(found: Difference) -> str:
    """The answer in one line."""
    pairs = len(found.tensors)
    close = sum(each.status is Status.CLOSE for each in found.tensors)
    different = sum(each.status is Status.DIFFERENT for each in found.tensors)
    alone = sum(each.counts for each in (*found.only_left, *found.only_right))
    others = sum(each.counts for each in (*found.copies, *found.optimizers))
    if found.same:
        more = f", {close:,} differ{'s' if close == 1 else ''} in a way that does not count" if close else ""
        if not pairs:
            return "NOTHING DIFFERS: the two have no tensor in common that was looked at."
        return f"THE SAME: {found.identical:,} of {counted(pairs, 'tensor')} identical{more}."
    told = []
    if different:
        told.append(f"{different:,} of {counted(pairs, 'common tensor')} differ{'s' if different == 1 else ''}")
    if alone:
        told.append(f"{counted(alone, 'tensor')} on one side only")
    if others:
        told.append(f"{counted(others, 'finding')} on optimizers")
    worst = ""
    if different:
        first = found.tensors[0]
        worst = f"; the worst is {visible(first.name)} ({distance_text(first)})"
    return f"DIFFERENT: {', '.join(told)}{worst}."


def distance_text(found: TensorDifference) -> str:
    """The distance of one pair in a few words."""
    if found.shapes_differ:
        return f"{shape_text(found.left_shape)} in A, {shape_text(found.right_shape)} in B"
    if found.broken is not None:
        return f"NaN or infinite at {_index(found.broken)}"
    if found.ulp is not None:
        return f"{found.ulp.distance:,} ulp"
    if found.absolute is not None:
        return f"{_gap(found.absolute)} apart"
    if found.left_dtype != found.right_dtype:
        return f"{found.left_dtype} in A, {found.right_dtype} in B"
    return found.notes[0] if found.notes else found.status


def print_difference(found: Difference, console: Console | None = None) -> None:
    """Prints how two checkpoints differ, the worst first; identical tensors are counted, not listed.

    Readable at 80 columns and without colour; in a narrower terminal figures go below names.

    Args:
      found: what to print.
      console: where to print; standard output when None.
    """
    console = console or Console()
    print_line(console, headline(found), style="bold green" if found.same else "bold red", indent=2)
    for label, side in (("A", found.left), ("B", found.right)):
        print_line(
            console, f"{label}  {visible(side.path)}: {side.format_name}, {counted(side.tensors, 'tensor')}", indent=3
        )
    limits = [f"names that fit {' or '.join(visible(each) for each in found.only)}"] if found.only else []
    limits += ["no optimizers"] if found.ignore_optimizers else []
    if limits:
        print_line(console, f"Looked at: {', '.join(limits)}.", indent=2)
    _print_pairs(console, "Different", [each for each in found.tensors if each.status is Status.DIFFERENT])
    within = f" (tolerance {found.tolerance_ulp:,} ulp)" if found.tolerance_ulp else ""
    close = [each for each in found.tensors if each.status is Status.CLOSE]
    _print_pairs(console, f"Differ in a way that does not count{within}", close)
    for label, rows in (("A", found.only_left), ("B", found.only_right)):
        _print_only(console, f"Only in {label}", [each for each in rows if each.counts])
        _print_only(console, f"Only in {label}, which does not count", [each for each in rows if not each.counts])
    _sentences(console, "Several copies in one file", (each.text for each in found.copies))
    for heading, counts in (("Optimizers differ", True), ("Optimizers", False)):
        _sentences(console, heading, (each.text for each in found.optimizers if each.counts is counts))
    same = [each for each in found.tensors if each.status is Status.IDENTICAL]
    if same:
        console.print()
        numbers = sum(each.elements for each in same)
        print_line(console, f"Identical: {counted(len(same), 'tensor')}, {counted(numbers, 'parameter')}.")
    _sentences(console, "Hints", found.hints)
    _sentences(console, "Notes", found.notes)


def _print_pairs(console: Console, heading: str, pairs: Sequence[TensorDifference]) -> None:
    if not pairs:
        return
    _heading(console, heading)
    columns = (("absolute", True), ("relative", True), ("ulp", True), ("at", False))
    lines = [_Line(visible(each.name), _distances(each), [visible(text) for text in _facts(each)]) for each in pairs]
    _listing(console, "name", columns, lines)


def _distances(pair: TensorDifference) -> list[str]:
    worst = pair.ulp or pair.absolute or pair.broken
    return [
        _gap(pair.absolute) if pair.absolute else "-",
        figure(float(pair.relative.distance)) if pair.relative else "-",
        f"{pair.ulp.distance:,}" if pair.ulp else "-",
        _index(worst) if worst else "-",
    ]


def _gap(place: Place) -> str:
    return f"{place.distance:,}" if isinstance(place.distance, int) else figure(place.distance)


def _index(place: Place) -> str:
    return f"[{', '.join(map(str, place.index))}]" if place.index else "scalar"


def _facts(pair: TensorDifference) -> list[str]:
    """What there is to say of a pair beside its distances."""
    told = []
    if pair.left_key == pair.right_key != pair.name:
        told.append(f"key {pair.left_key}")
    elif pair.left_key != pair.right_key:
        told.append(f"key {pair.left_key} in A, {pair.right_key} in B")
    if pair.shapes_differ:
        told.append(f"shape {shape_text(pair.left_shape)} in A, {shape_text(pair.right_shape)} in B")
    what = f"{shape_text(pair.left_shape)}, " if not pair.shapes_differ else ""
    what += (
        pair.left_dtype if pair.left_dtype == pair.right_dtype else f"{pair.left_dtype} in A, {pair.right_dtype} in B"
    )
    if pair.differing:
        what += f": {pair.differing:,} of {counted(pair.elements, 'value')} differ{'s' if pair.differing == 1 else ''}"
    told.append(what)
    worst = pair.ulp or pair.absolute
    if worst is not None:
        told.append(_both(pair, worst))
        elsewhere = [
            f"{word} at {_index(place)}"
            for place, word in ((pair.absolute, "absolute"), (pair.relative, "relative"))
            if place is not None and place.index != worst.index
        ]
        if elsewhere:
            told.append(f"the largest {', '.join(elsewhere)}")
    broken = [
        f"{number:,} {text}"
        for number, text in (
            (pair.nan, "NaN on one side only"),
            (pair.nan_bits, "NaN on both sides with other bits"),
            (pair.infinite, "infinite"),
        )
        if number
    ]
    if pair.broken is not None:
        told.append(f"{', '.join(broken)}, the first at {_index(pair.broken)}: {_both(pair, pair.broken)}")
    if pair.zero_signs:
        told.append(f"{pair.zero_signs:,} zero with another sign")
    return [*told, *pair.notes]


def _both(pair: TensorDifference, place: Place) -> str:
    return f"A {_held(place.left, pair.left_dtype)}, B {_held(place.right, pair.right_dtype)}"


def _held(value: Number | str, dtype: str) -> str:
    return value if isinstance(value, str) else exact(value, dtype)


def _print_only(console: Console, heading: str, rows: Sequence[OnlyOne]) -> None:
    if not rows:
        return
    _heading(console, heading)
    lines = []
    for row in rows:
        below = [f"key {visible(row.key)}"] if row.key != row.name else []
        below += [row.note] if row.note else []
        lines.append(_Line(visible(row.name), [shape_text(row.shape), row.dtype, row.role], below))
    _listing(console, "name", (("shape", False), ("dtype", False), ("role", False)), lines)
