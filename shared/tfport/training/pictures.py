"""The pictures a run leaves: sample grids, their progress as a GIF, and the loss curves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfport.data.batches import sample_latent
from tfport.errors import RunError
from tfport.files import write_atomically
from tfport.report import plots
from tfport.training import metrics
from tfport.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec
    from tfport.subject import Subject


def sample_picture(subject: Subject, seed: int) -> Image.Image:
    """The grid of samples that the source shows, from the run's own fixed noise."""
    spec = subject.spec
    images = subject.generate(sample_latent(spec, seed, subject.precision))
    return plots.sample_grid(images, spec.samples.rows, spec.samples.columns, spec.data_range)


def write_sample(directory: RunDirectory, subject: Subject, seed: int, step: int) -> Image.Image:
    """Draws and writes the sample grid after `step` steps."""
    picture = sample_picture(subject, seed)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(directory.sample_path(step), buffer.getvalue())
    return picture


def read_picture(path: Path) -> Image.Image:
    """A picture that an earlier part of a run wrote.

    Raises:
      RunError: it is missing, or no picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.copy()
    except OSError as error:
        raise RunError(f"{path} cannot be read as a picture ({type(error).__name__}); delete it and resume.") from None


def write_gif(directory: RunDirectory) -> None:
    """Writes samples.gif from every sample grid there is; the last one stays longer."""
    paths = sorted(directory.samples.glob("step-*.png"))
    if not paths:
        return
    frames = []
    for path in paths:
        frames.append(read_picture(path).convert("L"))
    buffer = io.BytesIO()
    durations = [400] * (len(frames) - 1) + [2_000]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_atomically(directory.path / "samples.gif", buffer.getvalue())


def write_losses(directory: RunDirectory, spec: ModelSpec) -> None:
    """Writes losses.png from metrics.csv."""
    rows = metrics.read(directory.metrics)
    if not rows:
        return
    table = np.array(rows)
    curves = {phase.loss: (table[:, 0], table[:, 2 + index]) for index, phase in enumerate(spec.phases)}
    senses = sorted({phase.sense for phase in spec.phases})
    title = f"{spec.name}: losses as reported ({', '.join(senses)})"
    write_atomically(directory.path / "losses.png", plots.loss_curves(curves, title))
