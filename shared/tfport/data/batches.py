"""What each training step is fed, and what samples are made of, as pure functions of (seed, step)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfport import randomness
from tfport.data import Dataset, scaled
from tfport.errors import UserError

if TYPE_CHECKING:
    from tfport.models.spec import Input, ModelSpec
    from tfport.subject import Batch

Array = np.ndarray[Any, Any]

CLASSES = 10


class Batches:
    """The batches of a run: `batches[step]` is the same arrays whenever and wherever it is asked for."""

    def __init__(self, spec: ModelSpec, dataset: Dataset, seed: int, precision: str = "float32") -> None:
        """Scales the training images to the range that the spec asks.

        Raises:
          UserError: the data set has fewer images than a batch.
        """
        first = spec.batching.held_out if len(dataset.images) == 60_000 else 0
        images, labels = dataset.images[first:], dataset.labels[first:]
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
        self.labels = labels
        whole, rest = divmod(len(images), self.batch_size)
        kept = spec.batching.draw == "permutation" and spec.batching.last_batch == "keep"
        self.steps_per_epoch = whole + (1 if rest and kept else 0)
        self._order: tuple[int, Array] | None = None

    def epoch(self, step: int) -> int:
        """The epoch to which a step belongs, from 0; with replacement, that many steps as would see the set once."""
        return step // self.steps_per_epoch

    def chosen(self, step: int) -> Array:
        """Which training images step 0, 1, ... sees: int64 [B]."""
        if self.spec.batching.draw == "replacement":
            return randomness.with_replacement(self.seed, step, len(self.images), self.batch_size)
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, randomness.permutation(self.seed, epoch, len(self.images))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def __getitem__(self, step: int) -> Batch:
        """One array [B, width] for each of the spec's inputs, for step 0, 1, ..."""
        chosen = self.chosen(step)
        found: dict[str, Array] = {}
        for each in self.spec.inputs:
            if each.kind == "images":
                found[each.name] = self.images[chosen]
            elif each.kind == "labels":
                found[each.name] = np.eye(each.width, dtype=self.precision)[self.labels[chosen]]
            else:
                found[each.name] = drawn(each, self.seed, each.name, step, len(chosen), self.precision)
        return found


def drawn(each: Input, seed: int, stream: str, step: int, count: int, precision: str) -> Array:
    """The rows [count, width] of one drawn input for one step of one stream."""
    shape = (count, each.width)
    if each.kind in ("category", "labels"):
        return randomness.one_hot(seed, stream, step, shape, precision)
    values = (randomness.normal if each.kind == "normal" else randomness.uniform)(seed, stream, step, shape)
    scale = np.float32(each.scale)
    return (values if scale == 1 else values * scale).astype(precision)


def generated_inputs(spec: ModelSpec, seed: int, stream: str, count: int, precision: str = "float32") -> Batch:
    """What `generate` is given for `count` samples drawn as training draws them, for one stream.

    Raises:
      UserError: the model makes images of images and draws nothing.
    """
    if spec.samples.inputs == ("images",):
        raise UserError(f"{spec.name} makes images of images: it has no samples of its own to draw.")
    if spec.samples.inputs == ("code",):
        width = spec.network("decoder").inputs
        return {"code": randomness.normal(seed, stream, 0, (count, width), precision)}
    inputs = {each.name: each for each in spec.inputs}
    return {
        name: drawn(inputs[name], seed, stream if name == "latent" else f"{stream}/{name}", 0, count, precision)
        for name in spec.samples.inputs
    }
