"""Proves paradigms equal, rung by rung, or finds the first divergence. The first paradigm is the legacy side.

Examples:
  tfport compare --model=vanilla_gan --paradigms=tf1_graph,gradient_tape,keras2,keras3 --steps=200 --html=report.html
  tfport compare --model=all --html=matrix.html

Exit codes: 0 every pair is equal; 1 one is different or not comparable; 2 bad input.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tfport.cli import app, common
from tfport.cli.outputs import output_file
from tfport.errors import UserError
from tfport.files import explained

if TYPE_CHECKING:
    from PIL.Image import Image

    from tfport.equivalence.compare import Request
    from tfport.equivalence.result import Report
    from tfport.training.side_by_side import SideBySide

FLAGS = flags.FLAGS
ALL = "all"
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


def _runs(request: Request) -> SideBySide | None:
    """The training runs that --run_dirs names; None when it names none."""
    if not FLAGS.run_dirs:
        return None
    from tfport.training import side_by_side

    return side_by_side.read([Path(path) for path in FLAGS.run_dirs], request.model, request.paradigms)


def _request(model: str) -> Request:
    """The comparison that the flags ask for, of one model."""
    from tfport import models
    from tfport.equivalence.compare import Request, default_steps

    return Request(
        model=model,
        paradigms=tuple(FLAGS.paradigms),
        steps=default_steps(models.get(model)) if FLAGS.steps is None else FLAGS.steps,
        precision=FLAGS.precision,
        seed=FLAGS.seed,
        dataset=FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        batch_size=FLAGS.batch_size,
    ).check()


def _compared(request: Request, runs: SideBySide | None = None) -> tuple[Report, dict[str, Image]]:
    """The report of one model, and each side's picture for its page."""
    from tfport import data
    from tfport.data.samples import sample_inputs
    from tfport.equivalence.compare import compare
    from tfport.report import samples as pictures
    from tfport.report import terminal

    report, samples = compare(request, shlex.join(["tfport", "compare", *_words(request.model)]))
    spec = request.spec()
    inputs = sample_inputs(spec, request.seed, data.load(request.dataset, request.data_dir), request.precision)
    grids = {name: pictures.picture(spec, inputs, images) for name, images in samples.items()}
    if runs is not None:
        from tfport.training import side_by_side

        origin = side_by_side.described(runs, [Path(path) for path in FLAGS.run_dirs])
        report = dataclasses.replace(report, curves=runs.curves, curve_steps=runs.steps, curve_origin=origin)
        grids = runs.samples
    terminal.print_report(report)
    return report, grids


def _words(model: str) -> list[str]:
    """The arguments as they were given; for one model where all were asked for, its name last, which is what counts."""
    if FLAGS.model != ALL:
        return list(app.words)
    given = [word for word in app.words if word.lstrip("-") != f"model={ALL}"]
    return [*given, f"--model={model}"]


def _all(json_path: Path | None, html_path: Path | None) -> int:
    """Compares every model; writes one page with a table that leads to a page a model."""
    from tfport import models
    from tfport.files import write_json
    from tfport.report import html, terminal

    if FLAGS.run_dirs:
        raise UserError(f"--run_dirs are runs of one model; with --model={ALL} leave them out.")
    requests = [_request(model) for model in models.MODELS]
    folder = html_path.with_name(f"{html_path.stem}-models") if html_path else None
    if folder is not None:
        with explained(folder):
            folder.mkdir(exist_ok=True)
    reports: list[Report] = []
    for number, request in enumerate(requests, 1):
        print(f"\n[{number}/{len(requests)}] {request.model}", flush=True)
        report, grids = _compared(request)
        reports.append(report)
        if folder is not None:
            html.write_html(folder / f"{request.model}.html", report, grids)
        if json_path is not None:  # what is done is kept, whatever becomes of the rest
            write_json(json_path, {"schema": 1, "reports": [each.as_json() for each in reports]})
    terminal.print_matrix(reports)
    if json_path is not None:
        print(f"JSON: {json_path}")
    if html_path is not None and folder is not None:
        pages = {report.model: f"{folder.name}/{report.model}.html" for report in reports}
        html.write_matrix(html_path, reports, pages, shlex.join(["tfport", "compare", *app.words]))
        print(f"Report: {html_path}")
    return 0 if all(report.equal for report in reports) else 1


def main() -> int:
    """Compares as the flags say; returns the exit code."""
    from tfport.files import write_json

    json_path, html_path = output_file("json"), output_file("html")
    if json_path is not None and json_path == html_path:
        raise UserError(f"--json and --html both name {json_path}; give each a file of its own.")
    if FLAGS.model == ALL:
        return _all(json_path, html_path)
    request = _request(FLAGS.model)
    report, grids = _compared(request, _runs(request))
    if json_path is not None:
        write_json(json_path, report.as_json())
        print(f"JSON: {json_path}")
    if html_path is not None:
        from tfport.report.html import write_html

        write_html(html_path, report, grids)
        print(f"Report: {html_path}")
    return 0 if report.equal else 1
