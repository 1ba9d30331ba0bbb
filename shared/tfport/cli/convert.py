"""Carries a checkpoint to another format, framework or program: weights, statistics, optimizer slots and counts.

Examples:
  tfport convert model.ckpt-5000 weights.npz
  tfport convert model.ckpt-5000 port.weights.h5 --like=fresh.weights.h5 --mapping=mapping.json
  tfport convert model.ckpt-5000 port.weights.h5 --like=fresh.weights.h5 --write_mapping=mapping.json
  tfport convert runs/vanilla_gan-tf1_graph-digits-seed0 runs/port --paradigm=keras3

FROM is a file, a folder or a TensorFlow prefix of any format that `tfport inspect` reads. TO is what is written; its
format is that of --like, --to, or its suffix. --like is a checkpoint of the new program, saved once before training:
the new one takes its names, its structure and its numbers that the old one does not tell.

With --paradigm, FROM is a run of `tfport train` and TO the run directory that goes on in that paradigm.

Every tensor of FROM is carried, or listed as left out with the reason; every tensor of TO is filled, or it is an error.
Nothing is overwritten without --force, and nothing appears at TO before it is whole.

Exit codes: 0 done; 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfport.cli import app
from tfport.cli.outputs import output_file
from tfport.errors import UserError
from tfport.files import write_json

if TYPE_CHECKING:
    from tfport.checkpoints.plan import Options, Plan

FLAGS = flags.FLAGS
POSITIONAL = ("FROM", "TO")

flags.DEFINE_string("to", None, "Format to write; by default that of --like, else by TO's suffix.")
flags.DEFINE_string("like", None, "A checkpoint of the new program, whose layout the new one takes.")
flags.DEFINE_string(
    "mapping", None, "File that says which variable is which, as `tfport check --write_mapping` writes it."
)
flags.DEFINE_string("write_mapping", None, "File to write a draft of the mapping to; nothing is converted then.")
flags.DEFINE_string("paradigm", None, "Convert a run of tfport train to this paradigm.")
flags.DEFINE_string(
    "model", None, "With --paradigm: the reference model that FROM must be of; the run says it by itself."
)
flags.DEFINE_multi_string("leave_out", [], "Glob of FROM's names that may stay behind; may be given again.")
flags.DEFINE_multi_string("keep", [], "Glob of TO's names that keep the value they have in --like; may be given again.")
flags.DEFINE_integer("iterations", None, "The optimizers' count of updates, where FROM does not record it.")
flags.DEFINE_float("learning_rate", None, "The optimizers' rate, where a file does not record it.")
flags.DEFINE_float("beta_1", None, "Adam's beta_1, where no file records it.")
flags.DEFINE_float("beta_2", None, "Adam's beta_2, where no file records it.")
flags.DEFINE_bool("cast", False, "Allow numbers to be rounded to a narrower dtype.")
flags.DEFINE_bool("other_update", False, "Carry slots to an optimizer that adds epsilon in another place.")
flags.DEFINE_bool("dry_run", False, "Say what would be done and write nothing.")
flags.DEFINE_bool("verify", False, "Read everything back and compare it bit for bit before it is put in place.")
flags.DEFINE_bool("force", False, "Replace what is there.")
flags.DEFINE_string("json", None, "File to write the plan to as JSON.")


_NOT_OF_RUNS = (
    "to",
    "like",
    "mapping",
    "write_mapping",
    "leave_out",
    "keep",
    "iterations",
    "learning_rate",
    "beta_1",
    "beta_2",
    "cast",
    "other_update",
    "verify",
)
"""Flags that --paradigm leaves nothing to say for."""


def _options() -> Options:
    from tfport.checkpoints.plan import Options
    from tfport.errors import whole

    if FLAGS.iterations is not None:
        whole("iterations", FLAGS.iterations, 0, 1 << 53)
    betas: dict[str, float] = {}
    for name in ("beta_1", "beta_2"):
        value: float | None = FLAGS[name].value
        if value is None:
            continue
        if not 0 <= value < 1:
            raise UserError(f"--{name}={value} is out of range: expected a number from 0 to below 1.")
        betas[name] = value
    rate = FLAGS.learning_rate
    if rate is not None and not 0 < rate < float("inf"):
        raise UserError(f"--learning_rate={rate} is out of range: expected a number above 0.")
    return Options(
        tuple(FLAGS.leave_out), tuple(FLAGS.keep), FLAGS.iterations, rate, betas, FLAGS.cast, FLAGS.other_update
    )


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(
        total=total, unit="B", unit_scale=True, desc="converting", file=sys.stderr, delay=1.0, dynamic_ncols=True
    ) as bar:
        yield bar.update


def main() -> int:
    """Converts what the flags say; returns the exit code."""
    source, target = map(Path, app.positionals)
    json_path = output_file("json")
    if FLAGS.paradigm is not None:
        return _run(source, target, json_path)
    if FLAGS.model is not None:
        raise UserError(
            "--model goes with --paradigm, which names the paradigm that is to go on; or leave it out, and give --like "
            "or --mapping for a program of your own."
        )
    if FLAGS.write_mapping is not None:
        return _draft(source)
    from tfport.checkpoints import convert

    order = convert.Order(
        source,
        target,
        FLAGS.to,
        Path(FLAGS.like) if FLAGS.like is not None else None,
        Path(FLAGS.mapping) if FLAGS.mapping is not None else None,
        _options(),
        FLAGS.force,
    )
    with convert.planned(order) as (opened, made):
        _print(made)
        if json_path is not None:
            write_json(json_path, convert.as_json(opened, made))
            print(f"JSON: {json_path}")
        if FLAGS.dry_run:
            print("Nothing was written (--dry_run).")
            return 0
        with _bar(made.nbytes * (2 if FLAGS.verify else 1)) as tick:
            written = convert.write(made, target, FLAGS.force, FLAGS.verify, tick)
    if FLAGS.verify:
        print("Read back and compared: every tensor is the same bits.")
    print(f"Written: {', '.join(map(str, written))}")
    return 0


def _run(source: Path, target: Path, json_path: Path | None) -> int:
    """Converts a run of a reference model."""
    for name in _NOT_OF_RUNS:
        if FLAGS[name].present:
            raise UserError(
                f"--{name} has no meaning with --paradigm: a run's layout and its optimizers' numbers are known, and "
                "what is written is always read back."
            )
    from tfport import models, paradigms
    from tfport.checkpoints import convert, run_conversion

    run, found = run_conversion.newest(source)
    config = run.config()
    if FLAGS.model is not None and models.get(FLAGS.model).name != config.model:
        raise UserError(f"{source} is a run of {config.model}, and --model={FLAGS.model} asks for another.")
    paradigms.check(FLAGS.paradigm, config.spec())
    run_conversion.check_target(target, FLAGS.force)
    from tfport.quiet import load_tensorflow

    load_tensorflow()
    made, step = run_conversion.convert_run(source, target, FLAGS.paradigm, FLAGS.force, dry_run=FLAGS.dry_run)
    _print(made)
    if json_path is not None:
        write_json(json_path, convert.plan_as_json(made))
        print(f"JSON: {json_path}")
    if FLAGS.dry_run:
        print("Nothing was written (--dry_run).")
        return 0
    print(f"{FLAGS.paradigm} read it back: the state is that of {found.folder}, to the bit.")
    print(f"Written: {target}. Go on from step {step:,} with:\n  tfport train --resume --run_dir={target}")
    return 0


def _draft(source: Path) -> int:
    """Writes a mapping to look through."""
    path = output_file("write_mapping")
    assert path is not None
    if FLAGS.like is None:
        raise UserError("--write_mapping needs --like=FILE, the checkpoint whose variables are to be filled.")
    from tfport.checkpoints import convert, pairing
    from tfport.checkpoints.opening import open_source

    with open_source(source) as left, open_source(Path(FLAGS.like)) as right:
        ours, theirs = left.contents(), right.contents()
        layouts = convert.layout_of(left, ours), convert.layout_of(right, theirs)
        guesses = pairing.write_draft(
            path, pairing.variables_of(ours, left.tensors), pairing.variables_of(theirs, right.tensors), layouts
        )
    print(
        f"Mapping: {path}" + (f", {guesses} pairs of it guessed by shape and order: look at them." if guesses else "")
    )
    return 0


def _print(made: Plan) -> None:
    """What is carried how, and what stays behind why."""
    from collections import Counter

    from tfport.checkpoints.opening import FORMATS

    print(f"To: {FORMATS[made.target.format]}, {len(made.moves):,} tensors, {made.nbytes:,} bytes")
    for how, count in Counter(move.how for move in made.moves).most_common():
        print(f"  {count:6,} {how}")
    if made.left_out:
        print(f"Left out: {len(made.left_out):,}")
        for reason, count in Counter(each.reason for each in made.left_out).most_common():
            names = [each.name for each in made.left_out if each.reason == reason]
            shown = ", ".join(names[:4]) + (", ..." if count > 4 else "")
            print(f"  {count:6,} {reason}: {shown}")
    for note in made.notes:
        print(f"Note: {note}")
