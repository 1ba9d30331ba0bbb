"""Samples of a trained run, in any number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfport import data, paradigms
from tfport.data.batches import generated_inputs
from tfport.data.samples import sample_inputs
from tfport.errors import RunError
from tfport.models.spec import ModelSpec
from tfport.quiet import load_tensorflow
from tfport.subject import Subject
from tfport.training import checkpoint
from tfport.training.run_directory import RunDirectory

Array = np.ndarray[Any, Any]

STREAM = "quality"
_AT_ONCE = 500


class TrainedRun:
    """A run as its newest checkpoint left it, built anew and ready to generate."""

    def __init__(self, path: Path) -> None:
        """Builds the run's model and restores its newest checkpoint.

        Raises:
          RunError: there is no run, or no checkpoint yet.
          CheckpointError: the newest checkpoint cannot be used.
          DataError: the run's data set is not where it was.
        """
        self.directory = RunDirectory(path)
        self.config = self.directory.config()
        latest = self.directory.latest()
        if latest is None:
            raise RunError(f"{path} has no checkpoint yet: train on with tfport train --resume --run_dir={path}.")
        checkpoint.read_manifest(latest)
        self.dataset = data.load(self.config.dataset, self.config.data_dir)
        self.step = latest.step
        self.spec: ModelSpec = self.config.spec()
        load_tensorflow()
        self.subject: Subject = paradigms.build(
            self.config.paradigm, self.spec, self.config.precision, self.config.seed
        )
        checkpoint.restore(latest, self.subject, self.config.seed)

    def images(self, count: int, seed: int, progress: bool = False) -> Array:
        """`count` images of the run's model; see `images_of`."""
        return images_of(self.subject, count, seed, progress)

    def picture_inputs(self) -> Any:
        """What the run's own sample picture is made from."""
        return sample_inputs(self.spec, self.config.seed, self.dataset, self.config.precision)

    def close(self) -> None:
        """Frees what the framework holds."""
        self.subject.close()


def images_of(subject: Subject, count: int, seed: int, progress: bool = False) -> Array:
    """`count` images [N, pixels] in [0, 1], black to white, drawn as training draws; beyond the range is clipped.

    Raises:
      UserError: the model makes images of images.
    """
    low, high = subject.spec.data_range
    found = []
    bar = tqdm(total=count, desc="samples", unit="image", disable=not progress, dynamic_ncols=True)
    with bar:
        for number, start in enumerate(range(0, count, _AT_ONCE)):
            size = min(_AT_ONCE, count - start)
            inputs = generated_inputs(subject.spec, seed, f"{STREAM}/{number}", size, subject.precision)
            made = np.asarray(subject.generate(inputs), np.float64)
            found.append(np.clip((made - low) / (high - low), 0, 1))
            bar.update(size)
    return np.concatenate(found)
