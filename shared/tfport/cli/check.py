"""Proves a port of your own equal to its original, or finds the first divergence and where in the code it arises.

A side is a function that builds it, written module:function; or a script, which is run up to its first training call;
the legacy side may be a TF1 graph's .meta file with its checkpoint, or a SavedModel's folder. A function returns a
compiled Keras model, builds a TF1 graph, or returns a mapping such as {"module": module, "step": function}. Where it
takes dtype, rounding is shown in float64.

Examples:
  tfport check --legacy=train_tf1:build --modern=train_keras:model --batches=data:batch --html=report.html
  tfport check --legacy=model.ckpt-1000.meta --modern=train_keras:model --batches=data:batch --steps=50
  tfport check --legacy=train.py --modern=train_keras:model --batches=data:batch
  tfport check --modern=train_keras:model --batches=data:batch
  tfport check --legacy=train_tf1:build --batches=data:batch --record=original
  tfport check --legacy=original --modern=train_keras:model,train_torch:model --html=report.html

Without --legacy the modern side is held against contracts that need no reference: who trains in each phase, whether the
reported loss is the loss, ranges, noise that repeats, gradients that are zero, statistics that never move.

--record keeps what the legacy side showed in a folder, and --legacy=FOLDER holds ports against it without the original.
Of several ports, the original is run once and recorded; --html writes a page that leads to a page for each.

Exit codes: 0 equal, or no contract broken; 1 different or not comparable; 2 bad input. Of several ports, the worst.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from absl import flags

from tfport.checking import bounds
from tfport.cli import app, say
from tfport.cli.outputs import output_file
from tfport.errors import UserError

if TYPE_CHECKING:
    from tfport.checking.report import CheckReport

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "legacy", None, "The original: module:function, a script, a .meta file, or a SavedModel's or a record's folder."
)
flags.DEFINE_list("modern", [], "The port: module:function; or several, with commas between.")
flags.DEFINE_string(
    "batches",
    None,
    "module:function, of the step's number or of nothing, that gives a batch (input name -> array), or several.",
)
flags.DEFINE_string("record", None, "Folder to record the legacy side in; without --modern, nothing else is done.")
flags.DEFINE_integer("steps", None, "Steps of the trajectories; 20 by default, or those of a record.")
flags.DEFINE_string("precision", "float32", "float32 or float64: what is shown; rounding is shown by the other too.")
flags.DEFINE_integer("seed", None, "Seed of everything that is drawn; 0 by default, or a record's.")
flags.DEFINE_string("mapping", None, "File that settles which variable is which; the rest is matched.")
flags.DEFINE_string("write_mapping", None, "File to write the found mapping to, for editing.")
flags.DEFINE_string("sample", None, "Bounds for large models: steps:N, tensors:N or both.")
flags.DEFINE_list("rungs", [], "Rungs to ask, by number or name, with ranges: 1,3-6. All by default.")
flags.DEFINE_list("ignore", [], "Variables that take no part, by name or pattern, such as avg_loss,metrics/*.")
flags.DEFINE_list("inputs", [], "Of a legacy TF1 graph: its placeholders by name.")
flags.DEFINE_list(
    "outputs", [], "Of a legacy TF1 graph: its outputs by name; training=NAME,inference=NAME where they are two."
)
flags.DEFINE_list("losses", [], "Of a legacy TF1 graph: its loss by name, or phase=name for each phase.")
flags.DEFINE_list("train_ops", [], "Of a legacy TF1 graph: its train op by name, or phase=name in the order they run.")
flags.DEFINE_string("json", None, "File to write the report to as JSON.")
flags.DEFINE_string("junit", None, "File to write the report to as JUnit XML, for a build server.")
flags.DEFINE_string("html", None, "File to write the report to as one self-contained page.")


def names() -> dict[str, Any]:
    """What the flags name of a TF1 graph."""
    found: dict[str, Any] = {}
    for flag in ("inputs", "outputs"):
        if FLAGS[flag].value:
            found[flag] = list(FLAGS[flag].value or [])
    modes = [word.partition("=") for word in found.get("outputs", ())]
    if modes and all(mode in ("training", "inference") for mode, _, _ in modes):
        found["outputs"] = {mode: [name for own, _, name in modes if own == mode] for mode in ("training", "inference")}
    for flag in ("losses", "train_ops"):
        words = FLAGS[flag].value
        if not words:
            continue
        pairs = [word.partition("=") for word in words]
        if len(words) == 1 and not pairs[0][1]:
            found[flag] = words[0]
        elif all(phase and tensor for phase, _, tensor in pairs):
            found[flag] = {phase: tensor for phase, _, tensor in pairs}
        else:
            raise UserError(f"--{flag}={','.join(words)}: expected one name, or phase=name for each phase.")
    return found


def main() -> int:
    """Checks as the flags say; returns the exit code."""
    places = {flag: output_file(flag) for flag in ("json", "junit", "html", "write_mapping")}
    given = [path for path in places.values() if path is not None]
    twice = next((path for path in given if given.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"two outputs name {twice}; give each a file of its own.")
    if not FLAGS.modern and FLAGS.record is None:
        raise UserError("--modern is missing: name the function that builds the port, as module:function.")
    asked = bounds.rungs(",".join(FLAGS.rungs))
    if FLAGS.legacy is None:
        useless = next((flag for flag in _OF_TWO_SIDES if FLAGS[flag].present), None)
        if useless is not None:
            raise UserError(f"--{useless} is of no use without --legacy: name the original too, or leave it out.")
    of_one = [flag for flag in ("mapping", "write_mapping") if FLAGS[flag].present and len(FLAGS.modern) > 1]
    if of_one:
        raise UserError(f"--{of_one[0]} is of one port, and --modern names {len(FLAGS.modern)}: check that one alone.")
    mapping = Path(FLAGS.mapping) if FLAGS.mapping is not None else None
    if mapping is not None and not mapping.is_file():
        raise UserError(f"--mapping={FLAGS.mapping}: there is no such file.")
    named = names()
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _ended)
    legacy: dict[str, Any] = {
        "steps": FLAGS.steps,
        "seed": FLAGS.seed,
        "sample": FLAGS.sample,
        "ignore": FLAGS.ignore,
        "names": named,
        "isolated": True,
        "progress": sys.stderr is not None,
    }
    compared = {
        "precision": FLAGS.precision,
        "mapping": mapping,
        "write_mapping": places["write_mapping"],
        "rungs": asked,
        "command": shlex.join(["tfport", "check", *app.words]),
    }
    try:
        reports = _reports(legacy, compared)
    except UserError as error:
        flag = next((flag for flag in ("train_ops", "losses", "outputs", "inputs") if f"{flag}=" in str(error)), None)
        if flag is None or f"--{flag}=" in str(error):
            raise
        raise type(error)(f"{error} On the command line: --{flag}={_HOW[flag]}.") from error
    if reports:
        _write(reports, places)  # before anything is printed: a reader such as `head` may be gone by then
        from tfport.report import check_terminal

        with contextlib.suppress(SystemExit):  # rich's answer to a reader that has gone
            for report in reports:
                check_terminal.print_check(report)
            if len(reports) > 1:
                check_terminal.print_summary(reports)
        say("".join(f"{_WRITTEN[flag]}: {path}\n" for flag, path in places.items() if path is not None))
    if FLAGS.record is not None:
        say(f"Record: {FLAGS.record}\n")
    return 0 if all(report.equal for report in reports) else 1


def _reports(legacy: dict[str, Any], compared: dict[str, Any]) -> list[CheckReport]:
    """The report of each port; several ports share one record of the legacy side.

    Args:
      legacy: options of a check that say something of the legacy side's record.
      compared: the other options.
    """
    from tfport.checking.check import check, record
    from tfport.checking.records import is_record

    original, batches = FLAGS.legacy, FLAGS.batches
    with contextlib.ExitStack() as stack:
        folder = FLAGS.record
        if folder is None and len(FLAGS.modern) > 1 and original is not None and not is_record(original):
            folder = f"{stack.enter_context(tempfile.TemporaryDirectory(prefix='tfport-'))}/record"
        if folder is not None:
            record(folder, original, batches, **legacy)
            original, batches = folder, None
            legacy = {**legacy, "names": {}, "sample": None}
        found = [check(original, port, batches, **legacy, **compared) for port in FLAGS.modern]
    if folder is not None and FLAGS.record is None:  # it is gone, and was nobody's choice
        kept = [tuple(note for note in report.notes if folder not in note) for report in found]
        found = [dataclasses.replace(report, notes=notes) for report, notes in zip(found, kept, strict=True)]
    return found


def _ended(number: int, _: object) -> NoReturn:
    """Ends as Ctrl-C does: the sides' processes and the temporary files go too."""
    sys.exit(128 + number)


_HOW = {
    "train_ops": "NAME, or PHASE=NAME,PHASE=NAME in the order they run",
    "losses": "NAME, or PHASE=NAME,PHASE=NAME",
    "outputs": "NAME,NAME",
    "inputs": "NAME,NAME",
}
"""How a flag is written that the adapters' messages speak of as an argument."""
_OF_TWO_SIDES = (
    "record",
    "mapping",
    "write_mapping",
    "sample",
    "rungs",
    "ignore",
    "inputs",
    "outputs",
    "losses",
    "train_ops",
)
"""Flags that say something of a legacy side, or of what is compared with it."""
_WRITTEN = {"json": "JSON", "junit": "JUnit", "html": "Report", "write_mapping": "Mapping"}


def _write(reports: Sequence[CheckReport], places: dict[str, Path | None]) -> None:
    """Writes the files that were asked for; the mapping has been written by the check itself."""
    from tfport.files import write_json
    from tfport.report.check_html import write_check, write_checks
    from tfport.report.junit import write_junit

    if places["json"] is not None:
        trees = [report.as_json() for report in reports]
        write_json(places["json"], trees if len(trees) > 1 else trees[0])
    if places["junit"] is not None:
        write_junit(places["junit"], *reports)
    if places["html"] is not None and len(reports) > 1:
        write_checks(places["html"], reports)
    elif places["html"] is not None:
        write_check(places["html"], reports[0])
