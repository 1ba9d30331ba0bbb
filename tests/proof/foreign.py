"""docs/foreign.md: `tfport.check` on the pairs of tests/foreign, which are in the manner of real legacy code.

`python -m proof.foreign vae wrong` checks one port and prints its row.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreign_pairs import PAIRS, Foreign
from proof.optimizers import TORCH_PYTHON
from proof.stages import FOLDER, Result, digest, stage, table
from statements import Witness
from tfport.equivalence.result import FIRST_NUMERICAL, RUNGS
from tfport.errors import UserError
from tfport.files import write_json

KINDS = ("right", "wrong")
PATIENCE = 1200
"""Seconds after which a check is taken for stuck."""
TOOL = (
    "tests/foreign_pairs.py",
    "tests/statements.py",
    "tests/proof/foreign.py",
    "shared/tfport/checking",
    "shared/tfport/adapters",
    "shared/tfport/equivalence",
    "shared/tfport/program.py",
)
OPENED, CLOSED = "# tfport >", "# < tfport"
"""What stands around the lines of a program that only the check needs."""
COMMAND = "python tests/prove.py foreign"
ORIGINALS = Path(__file__).parent.parent / "foreign"
LONGEST = 400
"""Characters of a cell."""


# --- One port ---------------------------------------------------------------------------------------------------------
def named(name: str) -> Foreign:
    """The pair of that name."""
    return next(pair for pair in PAIRS if pair.name == name)


def checked(pair: Foreign, kind: str) -> tuple[Any, list[str]]:
    """The report of one port, each side in a process of its own, and what of it is false."""
    import tfport

    own = f"foreign.{pair.name}"
    batches = f"foreign.data:{pair.batches}" if pair.batches else f"{own}:next_batch"
    with Witness() as witness:
        report = tfport.check(f"{own}:graph", f"{own}_port:{kind}", batches, steps=pair.steps)
    return report, witness.false_statements(report)


def text_of(report: Any) -> str:
    """The report as a terminal shows it, on one line."""
    from rich.console import Console

    from tfport.report.check_terminal import print_check

    console = Console(width=10_000, force_terminal=False, color_system=None)
    with console.capture() as captured:
        print_check(report, console)
    return " ".join(captured.get().split())


def located(report: Any) -> str:
    """The rung that the report is located at; where the numerical ones hold, the first below them that fails."""
    if report.pair.located:
        return str(report.pair.located)
    return next((name for name in RUNGS[:FIRST_NUMERICAL] if not report.pair.rung(name).verdict.equal), "contracts")


def place_of(report: Any) -> str:
    """Where the report says that the two part: the location, the first tensor and what is found on that rung."""
    at = located(report)
    said = [report.location.text] if report.location is not None else []
    if at in RUNGS:
        rung = report.pair.rung(at)
        said += [rung.first_divergence.tensor] if rung.first_divergence is not None else []
        said += rung.findings
    else:
        said += [each.text for each in report.findings if each.fails]
    return "; ".join(said)


def one(name: str, kind: str) -> Result:
    """What `tfport.check` says of one port, as a row."""
    pair = named(name)
    row: Result = {"name": name, "kind": kind}
    began = time.monotonic()
    try:
        report, false = checked(pair, kind)
    except UserError as error:
        return {**row, "equal": None, "error": str(error)}
    except Exception:  # a check that ends in an error is a result too
        return {**row, "equal": None, "error": traceback.format_exc(limit=-6)}
    row |= {
        "equal": report.equal,
        "verdicts": {rung.rung: str(rung.verdict) for rung in report.pair.rungs},
        "false": false,
        "rounding_by": report.rounding_by,
        "variables": f"{len(report.mapping)} of {len(report.mapping) + len(report.unmatched_legacy)}",
        "found": [note.removeprefix("found by itself: ") for note in report.notes if "found by itself" in note],
        "seconds": round(time.monotonic() - began, 1),
    }
    if report.equal:
        return row
    said, place = text_of(report), place_of(report)
    return row | {
        "rung": located(report),
        "place": place,
        "there": re.search(pair.place, place) is not None,
        "unsaid": [pattern for pattern in pair.says if not re.search(pattern, said)],
        "said": [pattern for pattern in pair.never if re.search(pattern, said)],
    }


def glue(name: str) -> int:
    """Lines that only the check needs, of the original and of its port."""
    files = (ORIGINALS / f"{name}.py", ORIGINALS / f"{name}_port.py")
    return sum(glue_lines(file.read_text().splitlines()) for file in files)


def glue_lines(lines: Sequence[str]) -> int:
    """Lines between the markers; neither blank ones nor comments."""
    found, within = 0, False
    for line in map(str.strip, lines):
        within = line == OPENED or (within and line != CLOSED)
        found += within and bool(line) and not line.startswith("#")
    return found


def elsewhere(pair: Foreign, kind: str, folder: Path = FOLDER) -> Result:
    """As `one`, in a process of its own, which the original may change, and in the interpreter that the pair needs."""
    python = sys.executable
    if pair.torch and importlib.util.find_spec("torch") is None:
        if not TORCH_PYTHON.exists():
            return {"name": pair.name, "kind": kind, "skipped": "PyTorch is not installed"}
        python = str(TORCH_PYTHON)
    path = folder / f"foreign-{pair.name}-{kind}.row.json"
    path.unlink(missing_ok=True)
    root = Path(__file__).parents[2]
    places = os.pathsep.join(map(str, (root, root / "shared", root / "tests")))
    words = [python, "-m", "proof.foreign", pair.name, kind, str(path)]
    try:
        done = subprocess.run(
            words, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"name": pair.name, "kind": kind, "equal": None, "error": f"it did not end within {PATIENCE} s"}
    if not path.exists():
        said = " ".join(done.stderr.split())[-600:]
        return {"name": pair.name, "kind": kind, "equal": None, "error": f"exit code {done.returncode}; {said}"}
    found: Result = json.loads(path.read_text())
    path.unlink()
    return found


def result() -> list[Result]:
    """Every port, each a stage of its own: what stands is not run again."""
    found = []
    for pair in PAIRS:
        own = (f"tests/foreign/{pair.name}.py", f"tests/foreign/{pair.name}_port.py")
        now = digest((*TOOL, *own))
        for kind in KINDS:
            found.append(stage(f"foreign-{pair.name}-{kind}", now, functools.partial(elsewhere, pair, kind)))
    return found


# --- Text -------------------------------------------------------------------------------------------------------------
def text(rows: Sequence[Result]) -> str:
    """docs/foreign.md."""
    run = [row for row in rows if "skipped" not in row]
    right, wrong = ([row for row in run if row["kind"] == kind] for kind in KINDS)
    passed, found = sum(row["equal"] is True for row in right), sum(row["equal"] is False for row in wrong)
    there = sum(bool(row.get("there")) for row in wrong)
    false = sum(len(row.get("false", ())) for row in run)
    skipped = sorted({row["name"] for row in rows if "skipped" in row})
    left = f"Left out, since PyTorch is not installed: {', '.join(skipped)}.\n\n" if skipped else ""
    counts = table(
        ["", "", ""],
        [
            ["correct ports", str(len(right)), f"{passed} pass"],
            ["changed ports", str(len(wrong)), f"{found} found, {there} at the changed place"],
            ["reports", str(sum(row["equal"] is not None for row in run)), f"{false} false statements"],
        ],
    )
    return f"""# Foreign code

Written by `make prove`; this page alone: `{COMMAND}`. Nothing here is typed in.

`tfport.check` on {len(PAIRS)} originals in the manner of real legacy code (`tests/foreign`), each with a correct port
and with one that has a single change. Glue lines are those that only the check needs, of both sides together; the
function that gives batches is not counted. What the check of the correct port finds by itself: the partners of how
many of the original's variables, and what else its notes name.

{left}{counts}
## Correct ports

{_right(right)}
## Changed ports

The rung and the place are what the report says first. Each report's statements are held against the arrays of both
sides (`tests/statements.py`).

{_wrong(wrong)}"""


def _right(rows: Sequence[Result]) -> str:
    lines = []
    for row in rows:
        pair = named(row["name"])
        found = "; ".join([f"{row.get('variables', 'none')} variables", *row.get("found", ())])
        verdict = "equal" if row["equal"] else "not equal" if row["equal"] is False else "error"
        by = f", by {row['rounding_by']}" if row.get("rounding_by") else ""
        lines.append([pair.name, pair.original, pair.port, str(glue(pair.name)), _plain(found), verdict + by])
    return table(["pair", "original", "port", "glue lines", "found by itself", "verdict"], lines)


def _wrong(rows: Sequence[Result]) -> str:
    lines = []
    for row in rows:
        pair = named(row["name"])
        detected = "yes" if row["equal"] is False else "no" if row["equal"] else "error"
        words = row.get("place") or row.get("error", "")
        where = "yes" if row.get("there") else "no"
        lines.append([pair.name, pair.change, detected, row.get("rung", "–"), where, _plain(words)])
    return table(["pair", "change", "found", "rung", "at the place", "words"], lines)


def _plain(words: str) -> str:
    """Words that break no table."""
    words = " ".join(words.split()).replace("|", "\\|")
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def failures(rows: Sequence[Result]) -> list[str]:
    """What the pairs did not prove, in words."""
    found = []
    for row in rows:
        about = f"{row['name']}, {row['kind']}"
        if "skipped" in row:
            continue
        if row["equal"] is not (row["kind"] == "right"):
            found.append(f"{about}: {row.get('error') or ('not equal' if row['kind'] == 'right' else 'not found')}")
        found += [f"{about}: says what is not so: {each}" for each in (*row.get("false", ()), *row.get("said", ()))]
        found += [f"{about}: {each!r} is not said" for each in row.get("unsaid", ())]
    return found


def main(words: Sequence[str]) -> None:
    """Checks one port: into a file, or, without one, to be read."""
    name, kind, *into = words
    row = one(name, kind)
    if into:
        write_json(Path(into[0]), row)
    else:
        print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
