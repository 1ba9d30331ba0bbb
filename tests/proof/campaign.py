"""docs/campaign.md: `tfport.check` on random ports, correct ones and ones with a planted change.

`python -m proof.campaign port 3` checks the one port of seed 3 and shows the report (`broken 3`: the broken one).
"""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

import random_ports
from proof.stages import FOLDER, Result, digest, figure, stage, table
from random_ports import HORIZON, RandomPort
from statements import Witness
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS, plain
from tfport.files import write_atomically
from tfport.remote import child_environment

COUNT = 200
"""Ports of each kind."""
FIRST = 10_000
"""The first seed."""
STEPS = 8
CHUNK = 20
"""Seeds that one process checks: a leak or a crash costs no more."""
WORKERS = 2
PATIENCE = 1200
"""Seconds after which a process is taken for stuck."""
KINDS = ("port", "broken")
PLACES = (
    "tests/random_ports",
    "tests/statements.py",
    "tests/proof/campaign.py",
    "shared/tfport/checking",
    "shared/tfport/adapters",
    "shared/tfport/equivalence",
    "shared/tfport/program.py",
)
COMMAND = "python tests/prove.py campaign"


# --- One seed ---------------------------------------------------------------------------------------------------------
def checked(kind: str, seed: int) -> tuple[Any, list[str]]:
    """The report of one port, both sides in this process, and what of it is false."""
    import tfport

    about: RandomPort = getattr(random_ports, kind)(seed)
    with Witness() as witness:
        report = tfport.check(about.legacy, about.modern, about.batches, steps=STEPS, seed=seed)
    return report, [
        *witness.false_statements(report),
        *false_numbers(about, report),
        *false_factors(about, report),
        *false_steps(about, report),
    ]


def begun(kind: str, seed: int) -> Result:
    """What is known of a port before its check."""
    about: RandomPort = getattr(random_ports, kind)(seed)
    return {
        "seed": seed,
        "paradigm": about.paradigm,
        "description": about.description,
        "change": about.change.kind if about.change else "",
        "where": about.where,
        "expected": about.change.rung if about.change else "",
    }


def one(kind: str, seed: int) -> Result:
    """What `tfport.check` says of one port, as a row."""
    about: RandomPort = getattr(random_ports, kind)(seed)
    row = begun(kind, seed)
    began = time.monotonic()
    try:
        report, false = checked(kind, seed)
    except Exception:  # a check that ends in an error is a result too
        return {**row, "equal": None, "error": traceback.format_exc(limit=-6)}
    return {**row, **summary(about, report), "false": false, "seconds": round(time.monotonic() - began, 1)}


def summary(about: RandomPort, report: Any) -> Result:
    """What the tables need of a report."""
    pair = report.pair
    first = pair.rung(pair.located).first_divergence if pair.located else None
    place = report.location
    shrinks = [float(rung.shrink) for rung in pair.rungs if rung.shrink is not None]
    return {
        "equal": report.equal,
        "verdict": str(pair.verdict),
        "located": pair.located or "",
        "tensor": first.tensor if first else "",
        "node": place.modern_node if place else "",
        "location": place.text if place else "",
        "exact": about.change is not None and at_rung(report, about.change.rung),
        "place": placed(about, report),
        "findings": [
            *(f"{rung.rung}: {text}" for rung in pair.rungs if not rung.verdict.equal for text in rung.findings[:2]),
            *(f"{each.contract}: {each.text}" for each in report.findings if each.fails),
        ][:6],
        "rungs": {rung.rung: str(rung.verdict) for rung in pair.rungs},
        "rounding_by": report.rounding_by,
        "shrink": max(shrinks, default=None),
        "float64_relative": max((float(rung.float64_relative or 0) for rung in pair.rungs), default=0.0),
    }


def at_rung(report: Any, rung: str) -> bool:
    """Whether that rung is where the report locates the difference; HORIZON is rung 7, beyond the last step."""
    if rung == HORIZON:
        forced = report.pair.rung("forced_trajectory")
        first = forced.first_divergence
        return bool(report.pair.located == forced.rung and first is not None and first.step >= STEPS)
    if rung in RUNGS[FIRST_NUMERICAL:]:
        return bool(report.pair.located == rung)
    return not report.pair.located and not report.pair.rung(rung).verdict.equal


NUMBERS = (
    r"^the \S+ optimizer's (\w+) is (\S+) against (\S+)$",
    r"(\w+) is (\S+) in the original and (\S+) in the port\b",
)


def false_numbers(about: RandomPort, report: Any) -> list[str]:
    """What a report says of the numbers that optimizers use, held against the recipes."""
    place = report.location
    step = place.step if place else 0
    said = {found for text in _failing_findings(report) for found in re.findall(NUMBERS[0], text)}
    if place and place.modern_kind == "update":
        said |= set(re.findall(NUMBERS[1], place.text))
        for listed in re.findall(r"Both used (.*?)\.(?: |$)", place.text):
            said |= {(name, number, number) for name, number in re.findall(r"(\w+) ([^\s,]+)", listed)}
    found = []
    for name, *numbers in sorted(said):
        for side, number, recipe in zip(("original", "port"), numbers, (about.recipe, about.ported), strict=True):
            true = recipe.optimizer.number(name, step)
            if true is not None and not math.isclose(float(number), true, rel_tol=1e-5, abs_tol=1e-12):
                found.append(f"{name} is said to be {number} in the {side}, and is {true}")
    return found


def false_factors(about: RandomPort, report: Any) -> list[str]:
    """What a report says of the factors between objectives and what is reported, held against the recipes."""
    own_step = about.paradigm in ("tf_module", "subclass")
    factors = {"legacy": about.recipe.loss.named, "modern": about.forms.reports if own_step else 1.0}
    found = []
    for note in report.notes:
        said = re.match(r"(legacy|modern|both sides): the loss that phase \S+ reports is (maximised:|\S+ times)", note)
        for side in factors if said and said[1] == "both sides" else [said[1]] if said else []:
            factor = -1.0 if said and said[2] == "maximised:" else float(said[2].split()[0]) if said else 0.0
            if not math.isclose(factor, factors[side], rel_tol=1e-4):
                found.append(f"{note!r} is said, and the factor of the {side} side is {factors[side]:g}")
    for text in _failing_findings(report):
        times = re.search(r"the port's objective is (\S+) times the original's", text)
        factor = about.ported.loss.weight
        known = not about.recipe.l2 and not about.ported.loss.summed
        if times and known and not math.isclose(float(times[1]), factor, rel_tol=1e-4):
            found.append(f"{text!r} is said, and the factor is {factor:g}")
    return found


def false_steps(about: RandomPort, report: Any) -> list[str]:
    """What a report says of the first step at which rates part, and of the rates there, held against the recipes."""
    optimizers = about.recipe.optimizer, about.ported.optimizer
    found = []
    for text in _failing_findings(report):
        said = re.search(r"the learning rate differs (?:from|at) (about )?step ([\d,]+)(.*)", text)
        if said is None:
            continue
        first = int(said[2].replace(",", ""))
        apart = next((step for step in range(2 * first + 2) if _rates_differ(about, step)), None)
        if apart is None or abs(apart - first) > (0.05 * apart if said[1] else 0):
            found.append(f"{text!r} is said, and the rates part at step {apart}")
        values = re.search(r": (\S+) against ([^\s,;]+)(?:, at step ([\d,]+))?", said[3])
        step = int(values[3].replace(",", "")) if values and values[3] else first
        for number, optimizer in zip(values.groups()[:2] if values else (), optimizers, strict=False):
            true = optimizer.number("learning_rate", step) or 0.0
            if not math.isclose(float(number), true, rel_tol=1e-4, abs_tol=1e-9):
                found.append(f"{text!r} is said, and a rate at step {step} is {true:.7g}")
    return found


def _rates_differ(about: RandomPort, step: int) -> bool:
    one, other = (recipe.optimizer.number("learning_rate", step) or 0.0 for recipe in (about.recipe, about.ported))
    return not math.isclose(one, other, rel_tol=1e-6)


def placed(about: RandomPort, report: Any) -> bool | None:
    """Whether the report names the place that the change was planted in; None where there is none to name."""
    if about.change is None or not about.change.place:
        return None
    return {"layer": _in_layer, "variable": _in_variable, "optimizer": _in_optimizer}[about.change.place](about, report)


def _in_layer(about: RandomPort, report: Any) -> bool:
    """Whether the location is in the changed part: a node of its name, or one that reads its variables."""
    place = report.location
    if place is None:
        return False
    held = [about.pairs.get(name, name) for pair_of_names in place.variables for name in pair_of_names]
    return any(
        part in place.modern_node or part in place.legacy_node or any(part in name for name in held)
        for part in about.where.split(", ")
    )


def _in_variable(about: RandomPort, report: Any) -> bool:
    """Whether one of the changed variables is what diverges first."""
    assert about.change is not None
    wanted = [
        legacy
        for legacy, name in about.pairs.items()
        if name.split("/")[0].removesuffix("_norm") in about.where.split(", ")
        and name.split("/")[1].startswith(about.change.variable)
    ]
    first = report.pair.rung(report.pair.located).first_divergence if report.pair.located else None
    said = first.tensor if first is not None else " ".join(_failing_findings(report))
    return any(name in said for name in wanted)


def _in_optimizer(about: RandomPort, report: Any) -> bool:
    """Whether the location, or a rung that fails, says what of the optimizer is another."""
    assert about.change is not None
    said = " ".join([report.location.text if report.location else "", *_failing_findings(report)]).lower()
    return any(word in said for word in about.change.says)


def _failing_findings(report: Any) -> list[str]:
    return [text for rung in report.pair.rungs if not rung.verdict.equal for text in rung.findings]


def forget() -> None:
    """Drops the graphs and traces that checks leave behind, so that the next one is as fast as the first."""
    import keras
    import tensorflow as tf
    import tf_keras

    keras.backend.clear_session()
    tf_keras.backend.clear_session()
    tf.compat.v1.reset_default_graph()


# --- All of them ------------------------------------------------------------------------------------------------------
def rows(kind: str, count: int = COUNT) -> list[Result]:
    """The rows of all seeds; goes on where an earlier call was stopped."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"campaign-{kind}-{digest(PLACES)}.jsonl"
    mend(path)
    with tqdm(total=count, desc=f"campaign {kind}", unit="port") as bar, ThreadPoolExecutor(WORKERS) as workers:
        while missing := [seed for seed in range(FIRST, FIRST + count) if seed not in read(path)]:
            bar.update(count - len(missing) - bar.n)
            chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
            pending = {workers.submit(_chunk, kind, chunk, path) for chunk in chunks}
            while pending:
                done, pending = wait(pending, timeout=2)
                bar.update(len(read(path)) - bar.n)
                for each in done:
                    each.result()
    found = read(path)
    return [found[seed] for seed in range(FIRST, FIRST + count)]


def _chunk(kind: str, seeds: Sequence[int], path: Path) -> None:
    """Checks some seeds in a process of its own; the one at which it ended before its time is a row too."""
    command = [sys.executable, "-m", "proof.campaign", kind, *map(str, seeds), "--into", str(path)]
    log = path.with_suffix(f".{seeds[0]}.log")
    with log.open("w") as file:
        try:
            code: object = subprocess.run(
                command, env=child_environment(), stdout=file, stderr=file, timeout=PATIENCE, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"none within {PATIENCE} s"
    said = " ".join(log.read_text(errors="replace").split())[-600:]
    log.unlink()
    if lost := [seed for seed in seeds if seed not in read(path)]:
        append(path, {**begun(kind, lost[0]), "equal": None, "error": f"exit code {code}; {said}"})


def read(path: Path) -> dict[int, Result]:
    """Seed -> row, of the whole lines of a file."""
    if not path.exists():
        return {}
    lines = path.read_text().split("\n")[:-1]
    return {row["seed"]: row for row in map(json.loads, filter(None, lines))}


def mend(path: Path) -> None:
    """Takes away a last line that was cut off."""
    if path.exists():
        text = path.read_text()
        write_atomically(path, text[: text.rfind("\n") + 1])


def append(path: Path, row: Result) -> None:
    """Adds one line, in one write: several processes add to a file."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(plain(row)).encode() + b"\n")


def result() -> Result:
    """The whole campaign."""
    return stage("campaign", digest(PLACES), lambda: {kind: rows(kind) for kind in KINDS})


# --- Text -------------------------------------------------------------------------------------------------------------
def alarms(found: Result) -> list[Result]:
    """Correct ports that did not pass."""
    return [row for row in found["port"] if not row["equal"]]


def missed(found: Result) -> list[Result]:
    """Broken ports that were not found: passed, or ended in an error that says nothing."""
    return [row for row in found["broken"] if row["equal"] is not False]


def false(found: Result) -> list[Result]:
    """Ports of whose reports something is false."""
    return [row for kind in KINDS for row in found[kind] if row.get("false")]


def text(found: Result) -> str:
    """docs/campaign.md."""
    correct, broken = found["port"], found["broken"]
    ported = [row for row in broken if row["equal"] is False]
    exact = sum(bool(row.get("exact")) for row in ported)
    about_places = [row for row in ported if row.get("place") is not None]
    there = sum(bool(row["place"]) for row in about_places)
    seconds = [row["seconds"] for row in (*correct, *broken) if "seconds" in row]
    counts = table(
        ["", "ports", ""],
        [
            ["correct", str(len(correct)), f"{len(alarms(found))} false alarms"],
            ["broken", str(len(broken)), f"{len(missed(found))} missed"],
            ["located at the expected rung", f"{exact} of {len(ported)}", _share(exact, len(ported))],
            ["located at the changed place", f"{there} of {len(about_places)}", _share(there, len(about_places))],
            ["reports", str(len(seconds)), f"{sum(len(row['false']) for row in false(found))} false statements"],
        ],
    )
    short = min(len(correct), len(broken)) < COUNT
    stopped = f"This run was stopped before its {COUNT} and {COUNT} ports; the command goes on.\n\n" if short else ""
    return f"""# Campaign

Written by `make prove`; this page alone: `{COMMAND}`. Nothing here is typed in.

`tfport.check` on random training programs: TF1 graphs of one to four layers, some with ids or a loop before them, and
ports of them to Keras 3 and tf_keras (compiled, or a keras.Model with a step and an optimizer of its own) or to
a tf.Module with a tape (`tests/random_ports`), {STEPS} steps each. A correct port must pass, and one with a
single planted change must not. A check took {statistics.median(seconds) if seconds else 0:.1f} s in the median.

{stopped}{counts}
## Kinds of change

The rung is the first that shows it, but for the structure: an optimizer's changed number is told there before.
The place is the layer, its variable or the optimizer's number, where there is one to name.

Every report's statements are held against the arrays that both sides showed (`tests/statements.py`) and against what
the ports were made of: which tensors agree, which differ and by what elements, which nodes only one side has, whose
attributes are which, and what numbers an optimizer used.

{_by_kind(broken)}
## By paradigm

{_by_paradigm(correct, broken)}
## Rounding

{_ratios(correct, ported)}
## What failed

{_failures(found)}"""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _by_kind(broken: Sequence[Result]) -> str:
    lines = []
    for kind, (change, _) in random_ports.CHANGES.items():
        rows_of = [row for row in broken if row["change"] == kind]
        ported = [row for row in rows_of if row["equal"] is False]
        about_places = [row["place"] for row in ported if row.get("place") is not None]
        elsewhere = sorted({row["located"] or "none" for row in ported if not row.get("exact")})
        lines.append(
            [
                kind,
                change.rung,
                str(len(rows_of)),
                str(len(ported)),
                str(sum(bool(row.get("exact")) for row in ported)),
                f"{sum(about_places)} of {len(about_places)}" if about_places else "–",
                ", ".join(elsewhere) or "–",
            ]
        )
    header = ["change", "expected rung", "planted", "found", "at that rung", "at that place", "other rungs"]
    return table(header, lines)


def _by_paradigm(correct: Sequence[Result], broken: Sequence[Result]) -> str:
    lines = []
    for paradigm in random_ports.PARADIGMS:
        fine = [row for row in correct if row["paradigm"] == paradigm]
        bad = [row for row in broken if row["paradigm"] == paradigm]
        found = [row for row in bad if row["equal"] is False]
        lines.append(
            [
                paradigm,
                str(len(fine)),
                str(sum(not row["equal"] for row in fine)),
                str(len(bad)),
                str(len(found)),
                str(sum(bool(row.get("exact")) for row in found)),
            ]
        )
    return table(["port", "correct", "false alarms", "broken", "found", "at the expected rung"], lines)


def _ratios(correct: Sequence[Result], ported: Sequence[Result]) -> str:
    """How far apart correct and broken ports lie on the scale by which rounding is told."""
    fine = [float(row["shrink"]) for row in correct if row.get("shrink") is not None]
    bad = [float(row["shrink"]) for row in ported if row.get("shrink") is not None]
    by = Counter(row["rounding_by"] or "the same bits" for row in correct if row.get("verdict"))
    lines = [
        ["correct", str(len(fine)), figure(max(fine, default=None))],
        ["broken", str(len(bad)), figure(min(bad, default=None))],
    ]
    return (
        "What let the correct ports pass: " + ", ".join(f"{name} {count}" for name, count in by.most_common()) + ".\n"
        "The ratio is the largest of a port's rungs: the float64 difference over 2⁻²⁹ of the float32 one.\n\n"
        + table(["ports", "with a ratio", "largest of correct, smallest of broken"], lines)
    )


def _failures(found: Result) -> str:
    failed = [("port", row, "false alarm") for row in alarms(found)]
    failed += [("broken", row, "missed") for row in missed(found)]
    failed += [("broken" if row["change"] else "port", row, "false statement") for row in false(found)]
    failed += [("broken", row, "other place") for row in found["broken"] if row.get("place") is False]
    if not failed:
        return "Nothing.\n"
    lines = []
    for kind, row, what in failed:
        said = row.get("error") or "; ".join([row.get("located", ""), row.get("tensor", ""), *row.get("findings", [])])
        said = {"false statement": "; ".join(row.get("false", ())), "other place": row.get("location", "")}.get(
            what, said
        )
        lines.append(
            f"* {what}, seed {row['seed']}: {row['description']}\n  `{repeat(kind, row['seed'])}`\n  "
            f"{' '.join(str(said).split())[-400:]}"
        )
    return "\n".join(lines) + "\n"


def repeat(kind: str, seed: int) -> str:
    """The command that checks one port again."""
    return f"PYTHONPATH=.:shared:tests python -m proof.campaign {kind} {seed}"


def failures(found: Result) -> list[str]:
    """What the campaign did not prove, in words."""
    return [
        *(f"the correct random port {row['seed']} did not pass" for row in alarms(found)),
        *(f"the broken random port {row['seed']} was not found" for row in missed(found)),
        *(f"the report of random port {row['seed']} says what is not so" for row in false(found)),
    ]


def main(words: Sequence[str]) -> None:
    """Checks seeds: into a file, or, without one, to be read."""
    from tfport.quiet import load_tensorflow

    load_tensorflow()
    kind, *rest = words
    if "--into" in rest:
        at = rest.index("--into")
        for seed in map(int, rest[:at]):
            append(Path(rest[at + 1]), one(kind, seed))
            forget()
        return
    for seed in map(int, rest):
        print(json.dumps(one(kind, seed), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
