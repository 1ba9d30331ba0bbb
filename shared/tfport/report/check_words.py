"""The sentences that every form of a check's report shares: terminal, page, assertion and JUnit XML."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from tfport.checking.report import CheckReport, Finding, Location, Movement
from tfport.equivalence.result import Divergence, PairResult, Verdict
from tfport.layouts import MappedVariable, by_variables
from tfport.report import words

CONTRACTS: dict[str, str] = {
    "who trained": "does each phase train its own?",
    "reported loss": "is what it reports its loss?",
    "ranges": "do the values lie where they may?",
    "noise": "is noise drawn anew each time?",
    "gradients": "does a gradient reach each one?",
    "statistics": "do statistics move in training?",
}
"""What each contract asks of a side by itself."""

ROUNDING_BY: dict[str, str] = {
    "float64": "That the differences are rounding was shown in float64, where they shrink as rounding does.",
    "envelope": "That the differences are rounding was shown by an envelope: they are of the size that the legacy side "
    "itself makes of a disturbance by one unit in the last place.",
}
"""How rounding was shown, in a sentence."""

_ASKED: dict[str, str] = {
    "float64": "The rungs were run in float64 as well.",
    "envelope": "The differences were held against an envelope: what the legacy side itself makes of a disturbance "
    "by one unit in the last place.",
}
"""The same where the port failed all the same."""

ENVELOPE_MEANING = (
    "The bits differ, but only by what the legacy side itself makes of a disturbance by one unit in the last place "
    "(the envelope). Passes."
)
"""What the verdict "rounding" means where an envelope showed it."""

_LONGEST = 80
"""Characters of a name in a headline."""

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class ContractRow:
    """One contract of one side, with what was found against it."""

    side: str
    contract: str
    findings: tuple[Finding, ...]
    asked: bool = True
    """False where the code gives no way to ask it, or nothing that it concerns."""

    @property
    def fails(self) -> bool:
        """Whether one of its findings is a reason to fail."""
        return any(finding.fails for finding in self.findings)

    @property
    def verdict(self) -> str:
        """ "broken", "noted", "no finding" or "not asked"."""
        if self.fails:
            return "broken"
        if not self.asked:
            return "not asked"
        return "noted" if self.findings else "no finding"


@dataclass(frozen=True)
class PhaseRow:
    """Who trained in one phase, on both sides where there are two."""

    phase: str
    """ "train_d", or "train_d / d_step" where the sides call it differently."""
    movements: tuple[Movement, ...]
    only: tuple[tuple[str, ...], ...]
    """For each movement the variables that moved on that side alone, by that side's names."""

    @property
    def alike(self) -> bool:
        """Whether the same variables moved on every side."""
        return not any(self.only)


# --- Names ------------------------------------------------------------------------------------------------------------
def visible(text: str) -> str:
    """Text with every character that cannot be seen written as an escape; line breaks become spaces.

    Control characters, lone surrogates and those that turn the direction of writing would let a name hide what it is.
    """
    if text.isprintable():
        return text
    spaced = " ".join(text.splitlines())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in spaced)


def readable(tree: _Tree) -> _Tree:
    """The same report with every text in it made `visible`; a command keeps its line breaks."""
    found: Any = _readable(tree)
    if isinstance(tree, CheckReport):
        found = replace(found, command="\n".join(visible(line) for line in tree.command.splitlines()))
    return found  # type: ignore[no-any-return]


def _readable(tree: Any) -> Any:
    if type(tree) is str:
        return visible(tree)
    if isinstance(tree, tuple | list):
        return type(tree)(_readable(each) for each in tree)
    if isinstance(tree, dict):
        return {_readable(key): _readable(value) for key, value in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{each.name: _readable(getattr(tree, each.name)) for each in fields(tree)})
    return tree


def shortened(name: str, longest: int = _LONGEST) -> str:
    """A name of at most `longest` characters, its middle left out where it has more."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def sides(report: CheckReport) -> tuple[str, ...]:
    """The sides as findings and movements name them, legacy first; "legacy" and "modern" where nothing names them."""
    named = [
        *(movement.side for movement in report.movements),
        *(finding.side for finding in report.findings),
        *(draw.side for draw in report.draws),
        *report.curves,
    ]
    found = list(dict.fromkeys(named))
    if not any(is_legacy(report, side) for side in found) and not alone(report):
        found.append("legacy")
    if all(is_legacy(report, side) for side in found):
        found.append("modern")
    return tuple(sorted(found, key=lambda side: not is_legacy(report, side)))


def is_legacy(report: CheckReport, side: str) -> bool:
    """Whether this is the name of the legacy side."""
    return side == "legacy" or side in {report.legacy, report.pair.legacy if report.pair else ""} - {""}


def alone(report: CheckReport) -> bool:
    """Whether the modern side was checked without any reference."""
    return report.pair is None


def listed(names: Iterable[str], most: int) -> str:
    """ "a, b and 3 more"; "none" where there are none."""
    every = list(names)
    if not every:
        return "none"
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest:,} more" if rest > 0 else "")


# --- The whole --------------------------------------------------------------------------------------------------------
def headline(report: CheckReport) -> str:
    """The whole check in one sentence without a full stop."""
    modern, legacy = shortened(report.modern or "the port"), shortened(report.legacy or "the original")
    broken = _broken(report)
    pair = report.pair
    if pair is None:
        return f"{modern} breaks {broken}" if broken else f"{modern}, checked alone, breaks no contract"
    if not pair.verdict.equal:
        return _failure(report, pair, modern, legacy)
    numerical = any(rung.max_abs is not None or rung.verdict is Verdict.ROUNDING for rung in pair.rungs)
    if not numerical:
        sentence = f"{modern} agrees with {legacy} on what was compared"
    else:
        degree = "up to rounding" if pair.verdict is Verdict.ROUNDING else "bit for bit"
        sentence = f"{modern} computes what {legacy} computes, {degree}"
    return f"{sentence}; but it does not pass: {broken}" if broken else sentence


def several(reports: Sequence[CheckReport]) -> str:
    """How many of several ports pass, in one sentence without a full stop."""
    passed = sum(report.equal for report in reports)
    return f"{passed} of {len(reports)} ports pass"


def _failure(report: CheckReport, pair: PairResult, modern: str, legacy: str) -> str:
    if words.differs_at_the_start_alone(pair):
        return f"{modern} {words.other_start(pair, legacy)}"
    decided = words.deciding_rung(pair)
    divergence = words.first_divergence(pair)
    if divergence is not None and divergence.phase:
        divergence = replace(divergence, phase=shortened(divergence.phase, 40))
    where = words.place(decided.rung, divergence) if decided else "no rung was compared"
    if decided is not None and decided.rung == "repeat":
        return f"{modern} is not proven: {legacy} does not repeat its own run ({where})"
    if (decided or pair).verdict is Verdict.NOT_COMPARABLE:
        without = unmatched_text(report)
        reason = without[0].lower() + without[1:].rstrip(".") if without else ""
        return f"{modern} cannot be compared with {legacy}: {reason or ('first at ' if decided else '') + where}"
    tensor = ""
    if divergence is not None and decided is not None and divergence.rung == decided.rung:
        tensor = f", {place_text(report.location)}" if report.location else f", in {shortened(divergence.tensor)}"
    return f"{modern} differs from {legacy}: {'first at ' if decided else ''}{where}{tensor}"


def _broken(report: CheckReport) -> str:
    """ "2 contracts: who trained (phase d_step), reported loss"; empty where none is broken.

    Sides are named where the legacy one breaks something too.
    """
    failing = [finding for finding in report.findings if finding.fails]
    name_sides = any(is_legacy(report, finding.side) for finding in failing)
    kinds = list(
        dict.fromkeys(
            finding.contract
            + (f" on the {shortened(finding.side, 40)} side" if name_sides else "")
            + (f" (phase {shortened(finding.phase, 40)})" if finding.phase else "")
            for finding in failing
        )
    )
    if not kinds:
        return ""
    count = len({(finding.side, finding.contract) for finding in failing})
    return f"{words.counted(count, 'contract')}{' broken' if report.pair else ''}: {listed(kinds, 3)}"


def summary(report: CheckReport) -> list[str]:
    """What is below the headline, a sentence each: decisive notes, how it was shown, tolerance, mapping, contracts."""
    found = [
        *notes(report)[0],
        rounding_text(report),
        tolerance_text(report),
        mapping_text(report),
        contracts_text(report),
    ]
    return [sentence for sentence in found if sentence]


def rounding_text(report: CheckReport) -> str:
    """How rounding was shown, or asked for in vain, in a sentence; empty where it needed no showing."""
    if report.pair is None or not report.rounding_by or report.pair.verdict is Verdict.NOT_COMPARABLE:
        return ""
    known = ROUNDING_BY if report.pair.verdict.equal else _ASKED
    sentence = known.get(report.rounding_by, f"Rounding was judged by: {report.rounding_by}.")
    if report.no_float64:
        return f"float64 is not available: {report.no_float64.removesuffix('.')}. {sentence}"
    return sentence


def tolerance_text(report: CheckReport) -> str:
    """The smallest relative tolerance that would have passed, in a sentence; empty where nothing was compared."""
    if report.pair is None or report.pair.verdict is Verdict.NOT_COMPARABLE:
        return ""
    if report.tolerance is None or not math.isfinite(report.tolerance):
        return "" if report.pair.verdict.equal else "No relative tolerance would have passed."
    if report.tolerance == 0:
        return "Every compared tensor passes at a relative tolerance of 0."
    return (
        f"The smallest relative tolerance under which every compared tensor passes: {words.figure(report.tolerance)}."
    )


def first_divergence(report: CheckReport) -> Divergence | None:
    """The divergence that decided against the port; None where it holds, or was checked alone."""
    if report.pair is None or report.pair.verdict.equal:
        return None
    return words.first_divergence(report.pair)


def divergence_text(report: CheckReport, divergence: Divergence) -> str:
    """A divergence as plain text, without a model's name before it."""
    assert report.pair is not None
    text = words.divergence_text("", report.pair, divergence).lstrip()
    if report.location is not None and divergence == first_divergence(report):
        text += f"\nIt arises {place_text(report.location)}."
    return text


_DECISIVE = re.compile(
    r"no optimizer|float64|not run|none found|cannot|could not|is not available|no batches|left out: |no output|"
    r"trains nothing|fed or unknown|beyond step|--ignore="
)
"""What a note says that a reader must know before the verdicts."""


def notes(report: CheckReport) -> tuple[list[str], list[str]]:
    """The notes that decide how the verdicts are to be read, and the others."""
    first = [note for note in report.notes if _DECISIVE.search(note)]
    return first, [note for note in report.notes if note not in first]


# --- Where ------------------------------------------------------------------------------------------------------------
def place_text(location: Location) -> str:
    """The place in a few words: "at conv/Conv2D (gan.py:41)", "in the gradient of fc/kernel"."""
    tensor = location.variables[0][0] if location.variables else ""
    if location.modern_kind in ("gradient", "update"):
        return f"in the {location.modern_kind} " + (
            f"of {shortened(tensor)}" if tensor else f"by {location.modern_node}"
        )
    node, where = location.modern_node, location.modern_where
    if not node:
        node, where = location.legacy_node, location.legacy_where
    if not node:
        return f"in {shortened(tensor)}" if tensor else f"at step {location.step}"
    return f"at {shortened(node)}" + (f" ({where})" if where else "")


def location_text(location: Location) -> str:
    """Where the divergence arises, in a sentence or two."""
    if location.text:
        return location.text
    kind = f" ({location.modern_kind})" if location.modern_kind else ""
    partner = (
        f"its counterpart is {location.legacy_node}" + (f" ({location.legacy_kind})" if location.legacy_kind else "")
        if location.legacy_node
        else "no counterpart of it was found"
    )
    return f"The first node whose inputs agree and whose output does not is {location.modern_node}{kind}; {partner}."


def location_facts(location: Location) -> list[tuple[str, str]]:
    """What is known of the node, as (label, text)."""

    def pairs(both: Iterable[tuple[str, str]]) -> str:
        return ", ".join(one if one == other else f"{one} → {other}" for one, other in both) or "none"

    def node(name: str, kind: str, where: str) -> str:
        if not name:
            return "none"
        return f"{name} ({', '.join(part for part in (kind, where) if part)})"

    found = [
        ("When", f"step {location.step}" + (f", phase {location.phase}" if location.phase else "")),
        ("Modern node", node(location.modern_node, location.modern_kind, location.modern_where)),
        ("Legacy node", node(location.legacy_node, location.legacy_kind, location.legacy_where)),
        ("Inputs that agree", pairs(location.agreeing)),
        ("Variables it reads", pairs(location.variables)),
    ]
    for name, legacy, modern in location.differing:
        found.append((f"Differs: {name}", f"legacy {legacy or 'not constant'}, modern {modern or 'not constant'}"))
    return found


def neighbour_rows(report: CheckReport, location: Location) -> list[tuple[str, str, str, str, str]]:
    """Neighbouring elements: index, legacy value, modern value, how far apart, and "=" or "≠"."""
    divergence = first_divergence(report)
    dtype = divergence.dtype if divergence else report.precision
    return [
        (
            f"[{', '.join(map(str, each.index))}]",
            words.exact(each.legacy, dtype),
            words.exact(each.modern, dtype),
            words.figure(abs(each.legacy - each.modern)),
            "=" if each.legacy == each.modern else "≠",
        )
        for each in location.neighbours
    ]


# --- Mapping ----------------------------------------------------------------------------------------------------------
def mapping_text(report: CheckReport) -> str:
    """How many variables have a partner, and how many could have had another, in a sentence or two."""
    if report.pair is None:
        return ""
    paired = {each.legacy for each in report.mapping}
    total = len(paired) + len(report.unmatched_legacy)
    sentence = f"{len(paired):,} of {words.counted(total, 'variable')} of the legacy side have a partner."
    if report.unmatched_modern:
        number = len(report.unmatched_modern)
        sentence += f" {words.counted(number, 'variable')} of the modern side {_has(number)} none."
    unsure = sum(any(each.ambiguous for each in pairs) for pairs in by_variables(report.mapping))
    if unsure:
        sentence += f" {words.counted(unsure, 'partner')} could as well be another."
    return sentence


def unmatched_text(report: CheckReport) -> str:
    """Which side lacks partners, in a sentence; empty where none does."""
    counts = [(len(report.unmatched_legacy), "legacy"), (len(report.unmatched_modern), "modern")]
    parts = [f"{words.counted(number, 'variable')} of the {side} side" for number, side in counts if number]
    return f"{' and '.join(parts)} {_has(sum(number for number, _ in counts))} no partner." if parts else ""


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def reason_counts(mapping: Iterable[MappedVariable]) -> list[tuple[str, int]]:
    """Reasons without their details, and how many variables each has paired, the commonest first."""
    reasons = (pairs[0].reason for pairs in by_variables(mapping))
    return Counter(reason.split(":", 1)[0].strip() or "no reason given" for reason in reasons).most_common()


# --- Contracts --------------------------------------------------------------------------------------------------------
def contract_rows(report: CheckReport) -> list[ContractRow]:
    """Every contract of every side, legacy first, in the order of CONTRACTS; unknown ones behind."""
    known = dict.fromkeys([*CONTRACTS, *(finding.contract for finding in report.findings)])
    return [
        ContractRow(
            side,
            contract,
            tuple(each for each in report.findings if each.side == side and each.contract == contract),
            (side, contract) not in report.unasked,
        )
        for side in sides(report)
        for contract in known
    ]


def contracts_text(report: CheckReport) -> str:
    """How many contracts are broken and how much is only noted, in a sentence."""
    rows = contract_rows(report)
    broken = [f"{shortened(row.contract, 40)} ({shortened(row.side, 40)})" for row in rows if row.fails]
    noted = sum(not finding.fails for finding in report.findings)
    sentence = f"{words.counted(len(broken), 'contract')} broken: {', '.join(broken)}." if broken else ""
    if not broken:
        sentence = "No contract is broken."
    return sentence + (f" {words.counted(noted, 'note')} besides." if noted else "")


def finding_text(finding: Finding, side: bool = True) -> str:
    """ "modern, who trained, phase d_step: ..."; the phase is left out where the text names it first.

    Args:
      finding: what to tell.
      side: whether to name the side.
    """
    named = finding.text.startswith(f"phase {finding.phase}")
    phase = f"phase {finding.phase}" if finding.phase and not named else ""
    head = ", ".join(part for part in (finding.side if side else "", finding.contract, phase) if part)
    return f"{head}: {finding.text}" if finding.text else head


# --- Who trained ------------------------------------------------------------------------------------------------------
def phase_rows(report: CheckReport) -> list[PhaseRow]:
    """Who trained in each phase, partners side by side, each side under its own names.

    The modern side's names may be its own or, as a check keeps them, the legacy side's.
    """
    partners = {pair.legacy: pair.modern for pair in report.phases}
    to_modern: dict[str, str] = {}
    for pair, *_ in by_variables(report.mapping):
        to_modern[pair.legacy] = ", ".join(filter(None, (to_modern.get(pair.legacy), pair.modern)))
    to_legacy = {each.modern: each.legacy for each in report.mapping}
    grouped: dict[str, dict[bool, Movement]] = {}
    for movement in report.movements:
        grouped.setdefault(shared_phase(report, movement.phase), {})[is_legacy(report, movement.side)] = movement
    rows = []
    for phase, both in grouped.items():
        moved = {
            legacy: {
                to_legacy.get(name, name) if not legacy and name not in to_modern else name: name
                for name in movement.moved
            }
            for legacy, movement in both.items()
        }
        shown, only = [], []
        for legacy in sorted(both, reverse=True):
            own = {} if legacy else to_modern
            movement = both[legacy]
            shown.append(
                replace(
                    movement,
                    moved=tuple(own.get(name, name) for name in movement.moved),
                    stayed=tuple(own.get(name, name) for name in movement.stayed),
                )
            )
            other = moved.get(not legacy, moved[legacy])
            only.append(tuple(own.get(name, name) for shared, name in moved[legacy].items() if shared not in other))
        partner = partners.get(phase, phase)
        rows.append(PhaseRow(phase if partner == phase else f"{phase} / {partner}", tuple(shown), tuple(only)))
    return rows


def shared_phase(report: CheckReport, phase: str) -> str:
    """The legacy side's name of a phase that goes by either side's name."""
    if any(pair.legacy == phase for pair in report.phases):
        return phase
    return next((pair.legacy for pair in report.phases if pair.modern == phase), phase)


def trained_text(report: CheckReport) -> str:
    """Whether both sides train the same, in a sentence; empty where there is nothing to hold against each other."""
    rows = [row for row in phase_rows(report) if len(row.movements) == 2]
    if not rows:
        return ""
    unequal = [row.phase for row in rows if not row.alike]
    if not unequal:
        return "The same variables trained on both sides in every phase."
    return f"The two sides do not train the same variables in {listed((f'phase {each}' for each in unequal), 5)}."


# --- Random draws -----------------------------------------------------------------------------------------------------
def draws_text(report: CheckReport) -> str:
    """How many draws are fed with recorded numbers and how many are not; empty where nothing is drawn."""
    if not report.draws:
        return ""
    loose = sum(not draw.controlled for draw in report.draws)
    total = words.counted(len(report.draws), "place")
    if not loose:
        return f"Random numbers are drawn at {total}, {'which is' if len(report.draws) == 1 else 'all'} controlled."
    return f"Random numbers are drawn at {total}; {loose:,} of them {'is' if loose == 1 else 'are'} not controlled."


# --- An assertion -----------------------------------------------------------------------------------------------------
def assertion_text(report: CheckReport) -> str:
    """What a failed pytest assertion shows: at most 25 lines of plain text, the place first."""
    report = readable(report)
    lines = [headline(report) + ".", *notes(report)[0][:3]]
    divergence = first_divergence(report)
    if divergence is not None:
        lines += ["", *divergence_text(report, divergence).splitlines()]
    if report.location is not None:
        lines += ["", f"Location: {location_text(report.location)}"]
        rows = neighbour_rows(report, report.location)[:4]
        lines += [f"  {index}  legacy {legacy}  {sign}  modern {modern}" for index, legacy, modern, _, sign in rows]
    for side, names in (("legacy", report.unmatched_legacy), ("modern", report.unmatched_modern)):
        if names:
            lines.append(f"Without a partner on the {side} side: {listed(names, 5)}")
    lines += _failing_lines(report)
    if tolerance_text(report):
        lines.append(tolerance_text(report))
    return "\n".join(lines)


def _failing_lines(report: CheckReport) -> list[str]:
    failing = [finding for finding in report.findings if finding.fails]
    if not failing:
        return []
    most = 5
    rest = [f"  and {len(failing) - most:,} more"] if len(failing) > most else []
    return ["Contracts broken:", *(f"- {finding_text(finding)}" for finding in failing[:most]), *rest]
