"""docs/optimizers.md: which optimizers' slots carry over from which framework's files to which.

Every kind of file of a small model (`tests/checkpoint_programs.py`) is converted to every other with every optimizer,
and training goes on from it. What has PyTorch in it runs in .venv-torch, where the interpreter here has no PyTorch.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import checkpoint_programs as programs
from checkpoint_programs import BROKEN, CUT, FORMS, FRAMEWORKS, OPTIMIZERS, STEPS, Bench, Outcome, framework
from proof.stages import FOLDER, Result, digest, figure, stage, table
from tfport.checkpoints.opening import FORMATS
from tfport.checkpoints.plan import Options

PLACES = (
    "tests/proof/optimizers.py",
    "tests/checkpoint_programs.py",
    "shared/tfport/checkpoints",
    "shared/tfport/adam.py",
)
COMMAND = "python tests/prove.py optimizers"
TORCH_PYTHON = Path(".venv-torch/bin/python")
TITLES = {"tf1": "TF1", "keras2": "Keras 2", "keras3": "Keras 3", "torch": "PyTorch"}
_TEMPLATE = "template's slots"


# --- Measuring --------------------------------------------------------------------------------------------------------
def measured(name: str, torch: bool) -> Result:
    """One optimizer in this process: every kind of file to every other; with `torch`, those with PyTorch's in them."""
    from tfport.quiet import load_tensorflow

    load_tensorflow()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for source in FORMS:
            for target in FORMS:
                if ("torch" in (source, target)) == torch:
                    rows.append(_row(bench, source, target, name))
        mistakes = {} if torch else _mistakes(bench, name)
    return {"name": name, "rows": rows, "mistakes": mistakes}


def _row(bench: Bench, source: str, target: str, name: str) -> Result:
    outcome = bench.carried(source, target, name)
    double = bench.carried(source, target, name, "float64") if outcome.difference else outcome
    return {
        "source": source,
        "target": target,
        "kind": outcome.kind if outcome.kind != "rounding" else double.kind if double.kind == "differs" else "rounding",
        "difference": outcome.difference,
        "float64": double.difference,
        "message": outcome.message.replace(str(bench.folder), ""),
        "told": outcome.told,
        "flag": programs.said(source, target, name)[1],
    }


def _mistakes(bench: Bench, name: str) -> dict[str, float]:
    """How far off a run from TF1 to Keras 3 ends when the conversion is wrong; 0 where it does not matter."""
    found: dict[str, Outcome] = {}
    for mistake, (shown_by, _) in BROKEN.items():
        if shown_by == name:
            with programs.broken(mistake):
                found[mistake] = bench.carried("tf1-v2", "keras3", name)
    found[_TEMPLATE] = bench.carried("tf1-v2", "keras3", name, options=Options(keep=("optimizer/*",)))
    return {mistake: min(each.difference, 1e30) for mistake, each in found.items() if each.kind != "refused"}


def _elsewhere(name: str) -> Result:
    """As `measured` with PyTorch, in the interpreter that has it."""
    if importlib.util.find_spec("torch") is not None:
        return measured(name, True)
    path = FOLDER / "optimizers-measured.json"
    path.unlink(missing_ok=True)
    words = [str(TORCH_PYTHON), "-m", "proof.optimizers", name, str(path)]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # Not this interpreter's packages, which are another's.
    places = os.pathsep.join([*map(os.path.abspath, (".", "shared", "tests")), *(each for each in given if each)])
    if code := subprocess.run(words, env={**os.environ, "PYTHONPATH": places}, check=False).returncode:
        raise RuntimeError(f"{name} with PyTorch ended with exit code {code}; what it said stands above")
    found: Result = json.loads(path.read_text())
    return found


def result() -> list[Result]:
    """Every optimizer, each a stage of its own, and one more with PyTorch where that is installed."""
    now = digest(PLACES)
    found = []
    torch = importlib.util.find_spec("torch") is not None or TORCH_PYTHON.exists()
    for place, name in enumerate(OPTIMIZERS):
        found.append(stage(f"optimizers-{place}", now, functools.partial(measured, name, False)))
        if torch:
            found.append(stage(f"optimizers-{place}-torch", now, functools.partial(_elsewhere, name)))
    return found


# --- Text -------------------------------------------------------------------------------------------------------------
class _Notes:
    """Refusals and notes by number, each once."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[int, list[str]]] = {}

    def number(self, text: str, where: str) -> int:
        number, places = self.texts.setdefault(text, (len(self.texts) + 1, []))
        if where not in places:
            places.append(where)
        return number

    def lines(self) -> str:
        return "".join(
            f"{number}. {text} ({'; '.join(places[:3])}{f'; and {len(places) - 3} more' if len(places) > 3 else ''})\n"
            for text, (number, places) in self.texts.items()
        )


def _plain(message: str) -> str:
    """A refusal without the paths and names of one run, its reasons in one line; of notes, what says the difference."""
    lines = [line.removeprefix("  - ") for line in message.splitlines()]
    if lines[0].endswith("cannot be converted:"):
        found = "; ".join(_NAMED.sub(_called, line) for line in lines[1:])
    else:
        found = "; ".join(each for each in message.split("; ") if Outcome("differs", 0.0, each).told)
    found = re.sub(r"\b(sgd|adagrad|adadelta|rm_sprop|adam|ftrl)_\d+\b", r"\1", found)
    found = re.sub(
        r"keeps (.+?) and \w+ wants (.+?): they are not of one kind \([^)]*\)", r"keeps \1, and \2 are wanted", found
    )
    found = re.sub(r"optimizer/vars/\d+(, optimizer/vars/\d+)*( and \d+ more)?", "optimizer/vars/...", found)
    found = re.sub(r"optimizer/[^/ ]+/(\w+)/[\w/]+(, optimizer/[^/ ]+/\w+/[\w/]+)*( and \d+ more)?", r"\1/...", found)
    return found.replace("|", "\\|").replace("*", "\\*")


_NAMED = re.compile(
    r"^\w+ is (?P<one>.+?) and \w+ is (?P<other>.+?): (?=they|slots)|^\w+ and \w+ are Adagrad: "
    r"|(?<=optimizer )\w+ (?=keeps|has)"
)


def _called(match: re.Match[str]) -> str:
    """Optimizers by their algorithms, not by the names that they have in one run."""
    if match["one"]:
        return " and ".join(sorted((match["one"], match["other"]))) + ": "
    return "Adagrad and Adagrad: " if "Adagrad" in match[0] and match[0].endswith(": ") else ""


def _cell(rows: Sequence[Result], name: str, notes: _Notes) -> str:
    """One optimizer from one framework to another, over all kinds of their files."""
    parts: dict[str, None] = {}
    rounded = [row for row in rows if row["kind"] == "rounding"]
    if any(row["kind"] == "same bits" for row in rows):
        parts["same bits"] = None
    if rounded:
        largest = [figure(max(row[key] for row in rounded)) for key in ("difference", "float64")]
        parts[f"{largest[0]} → {largest[1]}"] = None
    for row in rows:
        where = f"{name}, {row['source']} → {row['target']}"
        if row["kind"] == "refused":
            parts[f"refused [{notes.number(_plain(row['message']), where)}]"] = None
        elif row["kind"] == "differs":
            said = f", as it says [{notes.number(_plain(row['message']), where)}]" if row["told"] else ", **silently**"
            parts[f"differs by {figure(row['difference'])}{said}"] = None
        elif row["kind"] == "no equal optimizer":
            parts["no such optimizer"] = None
    return "; ".join(parts) or "–"


def _by_framework(rows: Sequence[Result], source: str, target: str) -> list[Result]:
    return [row for row in rows if (framework(row["source"]), framework(row["target"])) == (source, target)]


def _matrix(rows: dict[str, list[Result]], pairs: Sequence[tuple[str, str]], notes: _Notes) -> str:
    header = ["optimizer", *(f"{TITLES[one]} → {TITLES[other]}" for one, other in pairs)]
    return table(
        header,
        [[name, *(_cell(_by_framework(found, *pair), name, notes) for pair in pairs)] for name, found in rows.items()],
    )


def text(found: Sequence[Result]) -> str:
    """docs/optimizers.md."""
    rows: dict[str, list[Result]] = {name: [] for name in OPTIMIZERS}
    for each in found:
        rows[each["name"]] += each["rows"]
    notes = _Notes()
    own = ("tf1", "keras2", "keras3")
    sections = [(f"From {TITLES[one]}", [(one, other) for other in own]) for one in own]
    parts = [f"## {title}\n\n{_matrix(rows, pairs, notes)}" for title, pairs in sections]
    if any("torch" in (row["source"], row["target"]) for each in rows.values() for row in each):
        there = [("torch", other) for other in (*own, "torch")]
        parts.append(f"## From PyTorch\n\n{_matrix(rows, there, notes)}")
        parts.append(f"## To PyTorch\n\n{_matrix(rows, [(other, 'torch') for other in own], notes)}")
    else:
        parts.append("## PyTorch\n\nLeft out: there was no PyTorch; `make test-torch` installs it.\n")
    flags = sorted({(row["flag"], name, row["source"]) for name, each in rows.items() for row in each if row["flag"]})
    mistakes = [
        [each["name"], mistake, figure(value) if value < 1e30 else "not a number"]
        for each in found
        for mistake, value in each["mistakes"].items()
        if mistake != _TEMPLATE or value
    ]
    kinds = table(
        ["framework", "kind of file", "what it is"],
        [[TITLES[FRAMEWORKS[kind]], form, FORMATS[form.partition(",")[0]]] for form, kind in FORMS.items()],
    )
    return f"""# Optimizers from framework to framework

Written by `make prove`; this page alone: `{COMMAND}`. Nothing here is typed in.

A small model of a user's own ({len(programs.SHAPES)} variables in two dense layers, `tests/checkpoint_programs.py`) is
trained {CUT} steps in one framework and saved by its own writer. `tfport convert FROM TO --like=TEMPLATE` makes files
of the other framework, whose own reader restores them, and training goes on to step {STEPS}. The weights are then
compared with those of {STEPS} steps in the first framework: "same bits", or the largest difference as a share of the
largest weight, in float32 → in float64. What float64 shrinks is rounding. A template is what the target's program
saved before training, for PyTorch after one step.

Cells sum up all kinds of files of two frameworks; numbers in brackets are the refusals and notes below.

{kinds}
{"".join(f"{each}{chr(10)}" for each in parts)}
## Refusals and notes

{notes.lines()}
## What must be said

{table(["flag", "optimizer", "from"], [[f"`{flag}`", *where] for flag, *where in flags])}
## Conversions that are wrong on purpose

TF1 → Keras 3, one mistake each, and the same comparison; "{_TEMPLATE}" carries the weights alone.

{table(["optimizer", "mistake", "largest difference"], mistakes)}"""


def failures(found: Sequence[Result]) -> list[str]:
    """Conversions after which training went on otherwise and nothing said so, and mistakes that were not seen."""
    failed = [
        f"{each['name']} from {row['source']} to {row['target']} differs by {row['difference']:.1e} and nothing says so"
        for each in found
        for row in each["rows"]
        if row["kind"] == "differs" and not row["told"]
    ]
    return failed + [
        f"{mistake} in {each['name']} was not seen"
        for each in found
        for mistake, value in each["mistakes"].items()
        if value < 1e-4 and not (mistake == _TEMPLATE and each["name"] == "SGD")
    ]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measured(sys.argv[1], True)))
