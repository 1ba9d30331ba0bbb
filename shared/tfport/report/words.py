"""The words and figures every report shares, so that terminal and page never tell two stories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, Divergence, PairResult, Report, RungResult, Verdict

QUESTIONS: dict[str, str] = {
    "repeat": "legacy equals itself?",
    "structure": "same parameters?",
    "initialisation": "same distribution?",
    "forward": "same function?",
    "loss": "same objective?",
    "gradient": "same slope?",
    "update": "same step?",
    "forced_trajectory": "same step everywhere?",
    "free_trajectory": "same training?",
    "resume": "state carried over?",
}
"""What each rung asks, in at most 21 characters."""

LABELS: dict[Verdict, str] = {verdict: verdict.value.replace("_", " ") for verdict in Verdict}

SIGNS: dict[Verdict, str] = {
    Verdict.IDENTICAL: "=",
    Verdict.SAME_DISTRIBUTION: "∼",
    Verdict.ROUNDING: "≈",
    Verdict.DIFFERENT: "≠",
    Verdict.NOT_COMPARABLE: "?",
}

MEANINGS: dict[Verdict, str] = {
    Verdict.IDENTICAL: "The same bits on both sides. Passes.",
    Verdict.SAME_DISTRIBUTION: "Both sides' own initialisers draw from one distribution; the draws differ. Passes.",
    Verdict.ROUNDING: "The bits differ, but only as floating point makes them differ: in float64 the difference "
    "shrinks by about 2²⁹, which keeps “shrink” near 1 or below. Passes.",
    Verdict.DIFFERENT: "The difference does not shrink in float64, so it is another computation. Fails, and the first "
    "divergence is named.",
    Verdict.NOT_COMPARABLE: "A name, shape or count has no partner on the other side. Fails.",
}

_SIGNIFICANT = {"float64": 17, "float32": 9, "float16": 5, "bfloat16": 4}


def figure(value: float | None) -> str:
    """A magnitude in two significant digits ("4.6e-03"), "0" for exactly zero, "-" for none."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def exact(value: float, dtype: str) -> str:
    """A value with as many digits as tell any two values of `dtype` apart; integers and booleans in full."""
    if math.isfinite(value) and value == int(value) and dtype.startswith(("int", "uint", "bool")):
        return f"{int(value):,}"
    return f"{value:.{_SIGNIFICANT.get(dtype, 17) - 1}e}"


def ulps(value: int | None) -> str:
    """A distance in units in the last place; "-" for none, "not finite" for result.py's -1."""
    if value is None:
        return "-"
    return f"{value:,}" if value >= 0 else "not finite"


def counted(number: int, noun: str) -> str:
    """ "1 finding", "2 findings"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rung_label(name: str) -> str:
    """ "6 update"; a rung without a number keeps its bare name."""
    return f"{RUNGS.index(name)} {name}" if name in RUNGS else name


def key_figure(rung: RungResult) -> str:
    """The one figure beside a verdict: "4.6e-03 / f64 9.1e-15", "2 findings", or nothing."""
    if rung.verdict in (Verdict.IDENTICAL, Verdict.SAME_DISTRIBUTION):
        return ""
    single = rung.float32_relative if rung.float32_relative is not None else rung.max_abs
    if single is not None:
        return figure(single) + (f" / f64 {figure(rung.float64_relative)}" if rung.float64_relative is not None else "")
    return counted(len(rung.findings), "finding") if rung.findings else ""


def deciding_rung(pair: PairResult) -> RungResult | None:
    """Where a pair fails: the lowest rung without partners, or the located one if that is lower.

    Else the lowest failing rung; None where no rung failed.
    """
    failing = [rung for rung in pair.rungs if not rung.verdict.equal]
    telling = (rung for rung in failing if rung.verdict is Verdict.NOT_COMPARABLE or rung.rung == pair.located)
    return next(telling, failing[0] if failing else None)


def differs_at_the_start_alone(pair: PairResult) -> bool:
    """Whether rung 2 is all that fails: other initial weights, and the same computed from the same ones."""
    failing = [rung for rung in pair.rungs if not rung.verdict.equal]
    return [(rung.rung, rung.verdict) for rung in failing] == [("initialisation", Verdict.DIFFERENT)]


def other_start(pair: PairResult, legacy: str) -> str:
    """What the headline says of a pair that `differs_at_the_start_alone`, without its subject."""
    numerical = [rung for rung in pair.rungs if _numerical(rung)]
    if not numerical:
        return f"starts from another distribution than {legacy} (rung 2 initialisation); what it computes was not asked"
    degree = "up to rounding" if any(rung.verdict is Verdict.ROUNDING for rung in numerical) else "bit for bit"
    findings = [each for rung in pair.rungs if rung.rung == "initialisation" for each in rung.findings]
    if all(each.startswith("optimizer/") for each in findings if " starts as " in each):
        start, same = "starts its optimizers with other slots", "slots"
    else:
        start, same = "starts from another distribution", "weights"
    return f"{start} than {legacy} (rung 2 initialisation), and computes the same from the same {same}, {degree}"


def first_divergence(pair: PairResult) -> Divergence | None:
    """The divergence that decided against a pair: the deciding rung's, else the lowest failing rung's that has one."""
    decided = deciding_rung(pair)
    candidates = [decided, *(rung for rung in pair.rungs if not rung.verdict.equal)]
    return next((rung.first_divergence for rung in candidates if rung and rung.first_divergence), None)


def place(rung: str, divergence: Divergence | None) -> str:
    """ "rung 6 update, step 0, phase discriminator"."""
    words = f"rung {rung_label(rung)}"
    if divergence is not None and divergence.rung == rung:
        words += f", step {divergence.step}" + (f", phase {divergence.phase}" if divergence.phase else "")
    return words


def divergence_text(model: str, pair: PairResult, divergence: Divergence) -> str:
    """The first divergence as plain text: place, element, both values, tolerance, and what held before.

    Args:
      model: the model's name.
      pair: whose sides diverged.
      divergence: where; values are printed with enough digits to tell them apart.
    """
    index = f"[{', '.join(map(str, divergence.index))}]" if divergence.index else ""
    legacy, modern = (exact(value, divergence.dtype) for value in (divergence.legacy, divergence.modern))
    names, values = max(len(pair.legacy), len(pair.modern)), max(len(legacy), len(modern))
    if divergence.ulp < 0:
        measures = "not finite, so no distance"
    else:
        measures = (
            f"{figure(divergence.absolute)} absolute, {figure(divergence.relative)} relative, {divergence.ulp:,} ulp"
        )
    finite = math.isfinite(divergence.atol)
    passes = f"would pass at atol {figure(divergence.atol)}" if finite else "no tolerance would pass"
    nouns = f"element{'' if divergence.elements == 1 else 's'} differ{'s' if divergence.differing == 1 else ''}"
    return (
        f"{model}  {pair.legacy} against {pair.modern}  {place(divergence.rung, divergence)}\n"
        f"first mismatch: {divergence.tensor}{index}  {divergence.dtype} {divergence.shape}\n"
        f"  {pair.legacy:<{names}}  {legacy:>{values}}\n"
        f"  {pair.modern:<{names}}  {modern:>{values}}    {measures}; {passes}\n"
        f"{divergence.differing:,} of {divergence.elements:,} {nouns}. "
        f"Held before: {', '.join(divergence.held_before) or 'nothing'}."
    )


def headline(report: Report) -> str:
    """The whole comparison in one sentence without a full stop."""
    if not report.pairs:
        return "Nothing was compared"
    failing = [pair for pair in report.pairs if not pair.verdict.equal]
    total = len(report.pairs)
    if len(failing) == 1:
        return _failure(failing[0], _name(report, failing[0]))
    if failing:
        return f"{_all(len(failing), total)} fail: " + ", ".join(
            f"{_name(report, pair)} {_short_failure(pair)}" for pair in failing
        )
    legacies = {pair.legacy for pair in report.pairs}
    which = f" on {_rungs_run(report)}" if _rungs_run(report) else ""
    if len(legacies) > 1:
        return f"All {total} pairs are equal{which}"
    numerical = all(any(_numerical(rung) for rung in pair.rungs) for pair in report.pairs)
    subject, ending = (report.pairs[0].modern, "s") if total == 1 else (_all(total, total), "")
    verb = f"compute{ending} what {report.pairs[0].legacy} computes"
    return f"{subject} {verb if numerical else f'agree{ending} with {report.pairs[0].legacy}'}{which}"


def pair_summary(pair: PairResult) -> str:
    """One pair in one sentence or two, with its largest figure or its first failing place."""
    if not pair.verdict.equal:
        decided = deciding_rung(pair)
        earlier = [rung for rung in pair.rungs if not rung.verdict.equal and decided and _before(rung, decided)]
        hint = f" It already shows at {', '.join(place(rung.rung, None) for rung in earlier)}." if earlier else ""
        return _failure(pair, pair.modern) + "." + hint
    numerical = [rung for rung in pair.rungs if _numerical(rung)]
    if not numerical:
        return f"{pair.modern} agrees with {pair.legacy}; no numerical rung was run."
    rounded = [rung for rung in numerical if rung.verdict is Verdict.ROUNDING]
    if not rounded:
        whole = len(numerical) == len(RUNGS) - FIRST_NUMERICAL
        many = f"all {len(numerical)} numerical rungs" if whole else counted(len(numerical), "numerical rung")
        return f"{pair.modern} computes what {pair.legacy} computes, bit for bit, on {many}."
    largest = max(rounded, key=lambda rung: rung.float32_relative or 0.0)
    sentence = f"{pair.modern} computes what {pair.legacy} computes, up to rounding."
    if largest.float32_relative is not None:
        sentence += (
            f" The largest difference, at rung {rung_label(largest.rung)}, is {figure(largest.float32_relative)}"
        )
        sentence += " of its tensor's magnitude in float32"
        if largest.float64_relative is not None:
            sentence += f" and {figure(largest.float64_relative)} in float64"
        sentence += "."
    return sentence


def cell_figure(pair: PairResult) -> str:
    """A pair's largest rounding, "4.6e-03 / f64 9.1e-15", or where it first fails; nothing where all bits agree."""
    if not pair.verdict.equal:
        decided = deciding_rung(pair)
        return place(decided.rung, decided.first_divergence) if decided else "nothing was compared"
    rounded = [rung for rung in pair.rungs if _numerical(rung) and rung.verdict is Verdict.ROUNDING]
    return key_figure(max(rounded, key=lambda rung: rung.float64_relative or 0.0)) if rounded else ""


def matrix_headline(reports: Sequence[Report]) -> str:
    """Many models' comparisons in one sentence without a full stop."""
    pairs = [(report.model, pair) for report in reports for pair in report.pairs]
    if not pairs:
        return "Nothing was compared"
    failing = [f"{model} in {pair.modern}" for model, pair in pairs if not pair.verdict.equal]
    if not failing:
        return f"All {len(pairs)} ports of {counted(len(reports), 'model')} compute what {pairs[0][1].legacy} computes"
    named = ", ".join(failing[:3]) + (f" and {len(failing) - 3} more" if len(failing) > 3 else "")
    return f"{len(failing)} of {counted(len(pairs), 'port')} fail: {named}"


def only(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """The names that the others lack, in order."""
    lacking = set(others)
    return tuple(name for name in names if name not in lacking)


def _failure(pair: PairResult, name: str) -> str:
    if differs_at_the_start_alone(pair):
        return f"{name} {other_start(pair, pair.legacy)}"
    decided = deciding_rung(pair)
    where = place(decided.rung, decided.first_divergence) if decided else "no rung was compared"
    if decided is not None and decided.rung == "repeat":
        return f"{name} is not proven: {pair.legacy} does not repeat its own run ({where})"
    if (decided or pair).verdict is Verdict.NOT_COMPARABLE:
        return f"{name} cannot be compared with {pair.legacy}: {'first at ' if decided else ''}{where}"
    return f"{name} is different: {'first at ' if decided else ''}{where}"


def _short_failure(pair: PairResult) -> str:
    decided = deciding_rung(pair)
    if decided is not None and decided.rung == "repeat":
        return "is not proven"
    if differs_at_the_start_alone(pair):
        return "starts from another distribution"
    return "cannot be compared" if (decided or pair).verdict is Verdict.NOT_COMPARABLE else "is different"


def _name(report: Report, pair: PairResult) -> str:
    one_legacy = len({each.legacy for each in report.pairs}) == 1
    return pair.modern if one_legacy else f"{pair.legacy} -> {pair.modern}"


def _all(number: int, total: int) -> str:
    if number == total:
        return "Both ports" if total == 2 else f"All {total} ports"
    return f"{number} of {total} ports"


def _numerical(rung: RungResult) -> bool:
    return rung.rung in RUNGS[FIRST_NUMERICAL:]


def _before(rung: RungResult, other: RungResult) -> bool:
    return rung.rung in RUNGS and other.rung in RUNGS and RUNGS.index(rung.rung) < RUNGS.index(other.rung)


def _rungs_run(report: Report) -> str:
    """ "rungs 1, 3" where some were left out; empty where every pair ran them all."""
    ran = [{rung.rung for rung in pair.rungs} for pair in report.pairs]
    common = [str(number) for number, name in enumerate(RUNGS) if all(name in each for each in ran)]
    if len(common) == len(RUNGS):
        return ""
    return f"rung{'' if len(common) == 1 else 's'} {', '.join(common)}" if common else "no common rung"
