"""The pictures a run leaves: sample grids, their progress as a GIF, and the loss curves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfport.data import Dataset, scaled
from tfport.data.samples import sample_inputs
from tfport.errors import RunError
from tfport.files import write_atomically
from tfport.report import plots, samples
from tfport.training import metrics
from tfport.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec
    from tfport.subject import Subject


def sample_picture(subject: Subject, seed: int, dataset: Dataset) -> Image.Image:
    """The samples as the source shows them, from inputs that stay the same through the run."""
    inputs = sample_inputs(subject.spec, seed, dataset, subject.precision)
    return samples.picture(subject.spec, inputs, subject.generate(inputs))


def write_sample(directory: RunDirectory, subject: Subject, seed: int, dataset: Dataset, step: int) -> Image.Image:
    """Draws and writes the sample picture after `step` steps."""
    picture = sample_picture(subject, seed, dataset)
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


def write_curves(directory: RunDirectory, spec: ModelSpec) -> None:
    """Writes losses.png from metrics.csv, and accuracy.png where the source logs one."""
    rows = metrics.read(directory.metrics)
    if not rows:
        return
    table = np.array(rows)
    senses = sorted({phase.sense for phase in spec.phases})
    for percent, name, unit in ((False, "losses", f"loss ({spec.loss_unit})"), (True, "accuracy", "accuracy (%)")):
        curves = {
            column.name: (table[:, 0], table[:, 2 + index])
            for index, column in enumerate(spec.logged)
            if column.percent == percent
        }
        if curves:
            title = f"{spec.name}: {name} as reported" + ("" if percent else f" ({', '.join(senses)})")
            write_atomically(directory.path / f"{name}.png", plots.loss_curves(curves, title, ylabel=unit))


def write_latent_plane(directory: RunDirectory, subject: Subject, dataset: Dataset) -> None:
    """Writes latent.png where the model has a latent plane: the test images' codes, coloured by digit."""
    spec = subject.spec
    if spec.samples.kind != "manifold":
        return
    images = scaled(dataset.test_images, *spec.data_range, dtype=subject.precision)
    zeros = np.zeros((len(images), spec.width("epsilon")), subject.precision)
    size = spec.batching.batch_size
    codes = [
        subject.forward({"images": images[at : at + size], "epsilon": zeros[at : at + size]}, training=False)
        for at in range(0, len(images), size)
    ]
    title = f"{spec.name}: where the encoder puts {len(images):,} test images"
    picture = samples.latent_scatter(
        np.concatenate([each["encoder/mean"] for each in codes]), dataset.test_labels, title
    )
    write_atomically(directory.path / "latent.png", picture)
