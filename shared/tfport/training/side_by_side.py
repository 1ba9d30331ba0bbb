"""Reads finished runs of several paradigms so that a report can lay them over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tfport import models
from tfport.errors import RunError
from tfport.training import metrics
from tfport.training.pictures import read_picture
from tfport.training.run_directory import RunDirectory

_ALIKE = ("model", "dataset", "seed", "batch_size", "learning_rate", "precision", "log_every")


@dataclass(frozen=True)
class SideBySide:
    """Runs of several paradigms that differ in the paradigm alone."""

    steps: tuple[int, ...]
    """The training steps at which losses were logged, the same for all."""
    curves: dict[str, dict[str, list[float]]]
    """Paradigm -> loss name -> value at each of `steps`."""
    samples: dict[str, Image.Image]
    """Paradigm -> its last sample grid."""
    trained: int
    """Steps each run has done."""


def read(paths: Sequence[Path], model: str, paradigms: Sequence[str]) -> SideBySide:
    """Reads one complete run a paradigm.

    Args:
      paths: run directories, in the order of `paradigms`.
      model: the model that they must be of.
      paradigms: the paradigms that they must be of.

    Raises:
      RunError: there are more or fewer runs than paradigms, one is not complete, or they differ in more than paradigm.
    """
    if len(paths) != len(paradigms):
        raise RunError(f"--run_dirs names {len(paths)} runs for {len(paradigms)} paradigms; give one each, in order.")
    directories = [RunDirectory(path) for path in paths]
    records = [directory.read() for directory in directories]
    configs = [directory.config() for directory in directories]
    for directory, record, config, paradigm in zip(directories, records, configs, paradigms, strict=True):
        if (config.model, config.paradigm) != (model, paradigm):
            raise RunError(
                f"{directory.path} is a run of {config.model} in {config.paradigm}, not {model} in {paradigm}."
            )
        if record["status"] != "complete":
            raise RunError(f"{directory.path} is {record['status']}: finish it with tfport train --resume first.")
        for name in _ALIKE:
            first, here = getattr(configs[0], name), getattr(config, name)
            if first != here:
                raise RunError(f"{directory.path} was run with --{name}={here}, and {paths[0]} with {first}.")
        if (record["step"], record["dataset"]["digest"]) != (records[0]["step"], records[0]["dataset"]["digest"]):
            raise RunError(
                f"{directory.path} was trained on other data or for another number of steps than {paths[0]}."
            )
    tables = [metrics.read(directory.metrics) for directory in directories]
    steps = tuple(int(row[0]) for row in tables[0])
    if any([int(row[0]) for row in table] != list(steps) for table in tables):
        raise RunError(f"the runs {', '.join(map(str, paths))} logged at different steps; use one --log_every.")
    logged = models.get(model).logged
    curves = {
        paradigm: {
            column.name: [row[2 + index] for row in table] for index, column in enumerate(logged) if not column.percent
        }
        for paradigm, table in zip(paradigms, tables, strict=True)
    }
    samples = {}
    for paradigm, directory, record in zip(paradigms, directories, records, strict=True):
        samples[paradigm] = read_picture(directory.sample_path(record["step"]))
    return SideBySide(steps, curves, samples, int(records[0]["step"]))


def described(runs: SideBySide, paths: Sequence[Path]) -> str:
    """One sentence on where the curves and samples come from."""
    return (
        f"Training runs of {runs.trained:,} steps, one a paradigm, from one seed: {', '.join(map(str, paths))}. "
        "Every run starts from the same state and sees the same batches and noise."
    )
