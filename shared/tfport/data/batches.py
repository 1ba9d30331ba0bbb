"""What each training step is fed, as a pure function of (seed, step)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfport import randomness
from tfport.data import Dataset, scaled
from tfport.errors import UserError

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec
    from tfport.subject import Batch

Array = np.ndarray[Any, Any]


class Batches:
    """The batches of a run: `batches[step]` is the same arrays whenever and wherever it is asked for."""

    def __init__(self, spec: ModelSpec, dataset: Dataset, seed: int, precision: str = "float32") -> None:
        """Scales the training images to the range that the spec asks.

        Raises:
          UserError: the data set has fewer images than a batch.
        """
        images = dataset.images
        if len(images) == 60_000:
            images = images[spec.batching.held_out :]
        self.batch_size = spec.batching.batch_size
        if self.batch_size > len(images):
            raise UserError(
                f"batch size {self.batch_size} is more than the {len(images)} training images of {dataset.name}; "
                f"give --batch_size={len(images)} or less."
            )
        self.spec = spec
        self.seed = seed
        self.precision = precision
        self.images = scaled(images, *spec.data_range, dtype=precision)
        whole, rest = divmod(len(images), self.batch_size)
        self.steps_per_epoch = whole + (1 if rest and spec.batching.last_batch == "keep" else 0)
        self._order: tuple[int, Array] | None = None

    def epoch(self, step: int) -> int:
        """The epoch to which a step belongs, from 0."""
        return step // self.steps_per_epoch

    def __getitem__(self, step: int) -> Batch:
        """`images` [B, pixels] and `latent` [B, latent] of step 0, 1, ..."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, randomness.permutation(self.seed, epoch, len(self.images))
        chosen = self._order[1][position * self.batch_size : (position + 1) * self.batch_size]
        return {
            "images": self.images[chosen],
            "latent": randomness.normal(self.seed, "latent", step, (len(chosen), self.spec.latent), self.precision),
        }


def sample_latent(spec: ModelSpec, seed: int, precision: str = "float32") -> Array:
    """The noise of the sample pictures, the same through a run and in every paradigm: [rows * columns, latent]."""
    count = spec.samples.rows * spec.samples.columns
    return randomness.normal(seed, "samples", 0, (count, spec.latent), precision)
