"""Proves paradigms equal, rung by rung, or finds the first divergence. The first paradigm is the legacy side.

Example:
  tfport compare --model=vanilla_gan --paradigms=tf1_graph,gradient_tape,keras2,keras3 --steps=200 --html=report.html

Exit codes: 0 every pair is equal; 1 one is different or not comparable; 2 bad input.
"""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tfport.cli import app, common
from tfport.errors import UserError
from tfport.files import explained

if TYPE_CHECKING:
    from tfport.equivalence.compare import Request
    from tfport.training.side_by_side import SideBySide

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(common)

flags.DEFINE_list(
    "paradigms",
    ["tf1_graph", "gradient_tape", "keras2", "keras3"],
    "Legacy side, then one or more others: paradigms by name, or module:function factories.",
)
flags.DEFINE_string("json", None, "File to write the report to as JSON.")
flags.DEFINE_list(
    "run_dirs", [], "Complete training runs, one a paradigm in the order of --paradigms: the page shows their curves."
)
flags.DEFINE_string("html", None, "File to write the report to as one self-contained page.")


def _output(name: str) -> Path | None:
    """The file of an output flag; refuses a folder and a place that cannot be."""
    value: str | None = FLAGS[name].value
    if value is None:
        return None
    path = Path(value)
    if not value or path.is_dir():
        raise UserError(f"--{name}={value} names no file; expected the name of a file to write.")
    if not path.absolute().parent.exists():
        raise UserError(f"--{name}={value}: the folder {path.parent} does not exist; make it first.")
    with explained(path), tempfile.TemporaryFile(dir=path.absolute().parent):
        pass  # a place that cannot be written is refused now and not after the work
    return path


def _runs(request: Request) -> SideBySide | None:
    """The training runs that --run_dirs names; None when it names none."""
    if not FLAGS.run_dirs:
        return None
    from tfport.training import side_by_side

    return side_by_side.read([Path(path) for path in FLAGS.run_dirs], request.model, request.paradigms)


def main() -> int:
    """Compares as the flags say; returns the exit code."""
    from tfport.equivalence.compare import Request, compare
    from tfport.files import write_json

    json_path, html_path = _output("json"), _output("html")
    if json_path is not None and json_path == html_path:
        raise UserError(f"--json and --html both name {json_path}; give each a file of its own.")
    request = Request(
        model=FLAGS.model,
        paradigms=tuple(FLAGS.paradigms),
        steps=200 if FLAGS.steps is None else FLAGS.steps,
        precision=FLAGS.precision,
        seed=FLAGS.seed,
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        batch_size=FLAGS.batch_size,
    ).check()
    runs = _runs(request)
    report, samples = compare(request, shlex.join(["tfport", "compare", *app.words]))

    from tfport import data
    from tfport.data.samples import sample_inputs
    from tfport.report import samples as pictures
    from tfport.report import terminal

    spec = request.spec()
    inputs = sample_inputs(spec, request.seed, data.load(request.dataset, request.data_dir), request.precision)
    grids = {name: pictures.picture(spec, inputs, images) for name, images in samples.items()}
    if runs is not None:
        from tfport.training import side_by_side

        origin = side_by_side.described(runs, [Path(path) for path in FLAGS.run_dirs])
        report = dataclasses.replace(report, curves=runs.curves, curve_steps=runs.steps, curve_origin=origin)
        grids = runs.samples
    terminal.print_report(report)
    if json_path is not None:
        write_json(json_path, report.as_json())
        print(f"JSON: {json_path}")
    if html_path is not None:
        from tfport.report.html import write_html

        write_html(html_path, report, grids)
        print(f"Report: {html_path}")
    return 0 if report.equal else 1
