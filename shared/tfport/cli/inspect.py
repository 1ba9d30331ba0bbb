"""Shows what a checkpoint holds, or a model as one paradigm has built it.

A checkpoint of any format: who wrote it, every tensor by its canonical name, its optimizers, and totals. Headers are
read; with --values the values too: their range, mean and deviation, and whatever is odd about them.

A model: layers, output shapes, parameters, and what each optimizer trains.

Examples:
  tfport inspect model.ckpt-1000
  tfport inspect model.keras --values --json=model.json
  tfport inspect --model=batchnorm_gan --paradigm=keras3

Exit codes: 0 done; 2 bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from tfport.cli import app, say
from tfport.cli.outputs import output_file
from tfport.errors import UserError
from tfport.files import write_json

FLAGS = flags.FLAGS
POSITIONAL = ("[PATH]",)

flags.DEFINE_string("model", "vanilla_gan", "Model, by name; of no use with PATH.")
flags.DEFINE_string(
    "paradigm",
    "gradient_tape",
    "Paradigm to build it in: tf1_graph, gradient_tape, keras2, keras3, or a module:function factory.",
)
flags.DEFINE_boolean("values", False, "Whether to read a checkpoint's values too, and to tell what is odd about them.")
flags.DEFINE_string("json", None, "File to write what is found to as JSON; - for standard output, and nothing else.")


def main() -> int:
    """Prints what the arguments ask for; returns the exit code."""
    json_path = None if FLAGS.json == "-" else output_file("json")
    if app.positionals:
        useless = next((flag for flag in ("model", "paradigm") if FLAGS[flag].present), None)
        if useless is not None:
            raise UserError(
                f"{app.positionals[0]} is a checkpoint to show, and --{useless} tells of a model to build: give PATH "
                "for the one, or --model and --paradigm for the other."
            )
        return _checkpoint(Path(app.positionals[0]), json_path)
    if FLAGS["values"].present:
        raise UserError("--values is about a checkpoint: give its path (tfport inspect PATH --values).")
    return _model(json_path)


def _checkpoint(path: Path, json_path: Path | None) -> int:
    from tfport.checkpoints.inspecting import inspect, progress
    from tfport.checkpoints.opening import open_source

    with open_source(path) as source, progress("reading") as start:
        found = inspect(source, bool(FLAGS["values"].value), start)
    if _printed(found.as_json()):
        return 0
    from rich.console import Console

    from tfport.report.checkpoint_tables import print_inspection

    console = Console()
    with console.capture() as captured:
        print_inspection(found, console)
    say(captured.get())
    _write(json_path, found.as_json())
    return 0


def _model(json_path: Path | None) -> int:
    from tfport import inspection, models, paradigms
    from tfport.quiet import load_tensorflow

    spec = models.get(FLAGS.model)
    paradigms.check(FLAGS.paradigm)
    load_tensorflow()
    subject = paradigms.build(FLAGS.paradigm, spec)
    table = inspection.layer_table(subject)
    subject.close()
    if _printed(table.as_json()):
        return 0
    inspection.print_table(table)
    _write(json_path, table.as_json())
    return 0


def _printed(tree: dict[str, Any]) -> bool:
    """Whether --json=- asked for the JSON alone, which is then printed."""
    if FLAGS.json == "-":
        say(json.dumps(tree, indent=2, allow_nan=False) + "\n")
        return True
    return False


def _write(json_path: Path | None, tree: dict[str, Any]) -> None:
    if json_path is not None:
        write_json(json_path, tree)
        say(f"JSON: {json_path}\n")
