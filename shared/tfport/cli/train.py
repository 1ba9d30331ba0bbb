"""Trains one model in one paradigm, and goes on with a run that was stopped, to the same bits.

Example:
  tfport train --model=vanilla_gan --paradigm=tf1_graph --dataset=digits --steps=2000
  tfport train --resume --run_dir=runs/vanilla_gan-tf1_graph-digits-seed0
"""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from absl import flags

from tfport.cli import common
from tfport.errors import UserError

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(common)

flags.DEFINE_string(
    "paradigm",
    "gradient_tape",
    "Paradigm to train it in: tf1_graph, gradient_tape, keras2, keras3; torch with the extra.",
)
flags.DEFINE_integer("epochs", None, "Training length in epochs of the data set, in place of --steps.")
flags.DEFINE_float("learning_rate", None, "Learning rate of every optimizer; by default the source's.")
flags.DEFINE_string("run_dir", None, "Run directory; by default runs/<model>-<paradigm>-<dataset>-seed<seed>.")
flags.DEFINE_bool("resume", False, "Go on with the run in --run_dir from its newest checkpoint.")
flags.DEFINE_integer(
    "log_every", None, "Steps between rows of metrics.csv and TensorBoard scalars; by default the source's cadence."
)
flags.DEFINE_integer("sample_every", None, "Steps between sample grids; by default the source's cadence.")
flags.DEFINE_integer("checkpoint_every", None, "Steps between checkpoints (1000).")

_SHARED = (
    "model",
    "paradigm",
    "dataset",
    "data_dir",
    "steps",
    "batch_size",
    "learning_rate",
    "seed",
    "precision",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "run_dir",
)


def _steps_of_epochs(settings: dict[str, Any], epochs: int) -> int:
    """Steps in so many epochs of the data set, as the spec draws its batches."""
    from tfport import data
    from tfport.data.batches import Batches
    from tfport.errors import whole
    from tfport.training.config import defaults

    whole("epochs", epochs, 1, 1_000_000)
    config = defaults(**{**settings, "steps": 1})
    batches = Batches(config.spec(), data.load(config.dataset, config.data_dir), config.seed)
    return epochs * batches.steps_per_epoch


def _config() -> Any:
    """The run's configuration from the flags and, on --resume, from the run that is there."""
    from tfport.training.config import defaults
    from tfport.training.run_directory import RunDirectory

    if FLAGS.epochs is not None and FLAGS.steps is not None:
        raise UserError("--steps and --epochs both set the length of the run; give one of them.")
    settings: dict[str, Any] = {name: FLAGS[name].value for name in _SHARED}
    if FLAGS.resume:
        begun = RunDirectory(Path(defaults(**settings).run_dir)).config()
        given = {name: value for name, value in settings.items() if FLAGS[name].present}
        settings = {**dataclasses.asdict(begun), **given}
    if FLAGS.epochs is not None:
        settings["steps"] = _steps_of_epochs(settings, FLAGS.epochs)
    return defaults(**settings)


def main() -> int:
    """Trains as the flags say; returns the exit code."""
    config = _config()
    from tfport.training.loop import train

    outcome = train(config, resume=FLAGS.resume)
    losses = ", ".join(f"{name} {value:.4f}" for name, value in outcome.losses.items())
    if outcome.interrupted_by is not None:
        name = signal.Signals(outcome.interrupted_by).name
        print(
            f"stopped by {name} after {outcome.step:,} of {config.steps:,} steps; a checkpoint is saved. Go on with:\n"
            f"  tfport train --resume --run_dir={shlex.quote(str(outcome.directory))}",
            file=sys.stderr,
        )
        return 128 + outcome.interrupted_by
    print(f"{config.model} in {config.paradigm}: {outcome.step:,} steps{', ' + losses if losses else ''}.")
    print(f"Run directory: {outcome.directory}")
    return 0
