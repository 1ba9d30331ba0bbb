"""All figures of a set of generated images, each beside its floor: what real images give in the place of the generated.

How the images are divided, for any size of a data set:

* A fifth of the training images, at most 1,000 and drawn by the seed, is held out: it chooses the Parzen sigma, for
  generated and real samples alike. Of the 1,500 embedded digits that is 300, of MNIST 1,000.
* Test images are only ever what is compared with. They choose nothing and train nothing.
* The rest of the training images is the floor: a generator that draws training images would get it. Parzen, Fréchet
  and class figures grow or shrink with the number of samples, so as many generated images as real ones are compared:
  the lesser of the two numbers, of the more numerous some drawn by the seed. With the embedded digits, at most 1,200.
* Neighbours are looked up for every generated image among all training images, since all were there to be copied. The
  floor is that of the test images.
* The classifier learns from all training images, those of the floor among them. A generated image is in the position of
  a test image there, a floor image is not. So confidence is given for the test images too. The Fréchet floor hardly
  moves: with a classifier of half of the training images, that half is 18% further from the embedded digits' test
  images than the other half, and of MNIST's 5% nearer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfport import errors, randomness
from tfport.data import Dataset, scaled
from tfport.errors import UserError
from tfport.quality import classifier, frechet, histogram, neighbours, parzen
from tfport.quality.histogram import Histogram
from tfport.quality.neighbours import Neighbours, Suspects
from tfport.quality.parzen import Parzen

Array = np.ndarray[Any, Any]

FEWEST = 100  # generated images, and images in either split of the data set
PIXELS = 784
ROUNDING = 1e-5  # how far outside of [0, 1] a value may lie; it is then moved to the edge
SUSPECTS = 10

_HELD_OUT = 1000
_SPLIT, _CHOICE = -1, -2  # epochs that no training has, for orders of their own


@dataclass(frozen=True)
class Reader:
    """The classifier that some of the figures rest on."""

    accuracy: float
    """The share of test images that it reads right."""
    tested: int
    """How many test images there are."""
    digest: str
    """SHA-256 of its weights: figures compare only between equal ones."""


@dataclass(frozen=True)
class Quality:
    """The quality of a set of generated images; every `..._floor` is of real images."""

    dataset: str
    digest: str
    """Of the training data, as `Dataset.digest`."""
    seed: int
    given: int
    """How many generated images there were."""
    compared: int
    """How many of them, and as many real ones, went into the Parzen, Fréchet and class figures."""
    reader: Reader
    parzen: Parzen
    parzen_floor: Parzen
    """Of real training images as samples."""
    frechet: float
    """Squared Fréchet distance of the generated images from the test images."""
    frechet_floor: float
    """That of real training images."""
    histogram: Histogram
    histogram_floor: Histogram
    """Of real training images."""
    histogram_test: Histogram
    """Of the test images; its total variation is the classifier's own error."""
    neighbours: Neighbours
    neighbours_floor: Neighbours
    """Of the test images."""
    suspects: Suspects = dataclasses.field(compare=False)
    """The generated images that look most like copies."""
    notes: tuple[str, ...]
    """What a reader of the figures should know."""

    def as_json(self) -> dict[str, Any]:
        """Everything but the suspects' pixels, as JSON values; figures that rest on the classifier lie within it."""
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "seed": self.seed,
            "given": self.given,
            "compared": self.compared,
            "parzen": {
                "generated": dataclasses.asdict(self.parzen),
                "floor": dataclasses.asdict(self.parzen_floor),
            },
            "classifier": {
                **dataclasses.asdict(self.reader),
                "frechet": {"generated": self.frechet, "floor": self.frechet_floor},
                "histogram": {
                    "generated": _listed(self.histogram),
                    "floor": _listed(self.histogram_floor),
                    "test": _listed(self.histogram_test),
                },
            },
            "neighbours": {
                "generated": dataclasses.asdict(self.neighbours),
                "floor": dataclasses.asdict(self.neighbours_floor),
                "suspects": {
                    name: getattr(self.suspects, name).tolist()
                    for name in ("image_indices", "training_indices", "distances", "ratios")
                },
            },
            "notes": list(self.notes),
        }


def measure(
    samples: Array, dataset: Dataset, seed: int, cache_dir: Path | None = None, progress: bool = False
) -> Quality:
    """Measures generated images against the data that their generator was trained on.

    Args:
      samples: float [N, 784] in [0, 1], N at least 100.
      dataset: at least 100 training and 100 test images.
      seed: of the classifier, the images held out and those drawn; 0 to 2**31 - 1.
      cache_dir: where the classifier is kept; see `classifier.load_or_train`.
      progress: whether to show bars on standard error.

    Raises:
      UserError: the samples or the data set are not of that kind.
    """
    errors.whole("seed", seed, 0, randomness.MAX_SEED)
    samples = checked(np.asarray(samples))
    for split, count in (("training", len(dataset.images)), ("test", len(dataset.test_images))):
        if count < FEWEST:
            raise UserError(
                f"{dataset.name} has {count:,} {split} images, expected at least {FEWEST}. Use a larger data set."
            )
    training, test = (scaled(images, 0, 1, "float64") for images in (dataset.images, dataset.test_images))
    held_out, rest = split_training(len(training), seed)
    compared = min(len(samples), len(rest))
    chosen = samples[np.sort(randomness.permutation(seed, _CHOICE, len(samples))[:compared])]
    real, validation = training[rest[:compared]], training[held_out]

    read = classifier.load_or_train(dataset, seed, cache_dir, progress)
    on_chosen, on_real, on_test = (read.outputs(images) for images in (chosen, real, test))
    reference = histogram.label_shares(dataset.test_labels)
    windows, windows_floor = (parzen.estimate(images, validation, test, progress=progress) for images in (chosen, real))
    near = neighbours.nearest(samples, training, "neighbours", progress)
    near_floor = neighbours.nearest(test, training, "neighbours of test images", progress)
    return Quality(
        dataset=dataset.name,
        digest=dataset.digest,
        seed=seed,
        given=len(samples),
        compared=compared,
        reader=Reader(classifier.accuracy(on_test.probabilities, dataset.test_labels), len(test), read.digest),
        parzen=windows,
        parzen_floor=windows_floor,
        frechet=frechet.between(on_chosen.features, on_test.features),
        frechet_floor=frechet.between(on_real.features, on_test.features),
        histogram=histogram.histogram(on_chosen.probabilities, reference),
        histogram_floor=histogram.histogram(on_real.probabilities, reference),
        histogram_test=histogram.histogram(on_test.probabilities, reference),
        neighbours=neighbours.summary(near, len(training)),
        neighbours_floor=neighbours.summary(near_floor, len(training)),
        suspects=neighbours.suspects(samples, training, near, SUSPECTS),
        notes=(*read.notes, *_edges(windows, windows_floor)),
    )


def parzen_of(samples: Array, dataset: Dataset, seed: int, progress: bool = False) -> Parzen:
    """The Parzen figure alone, as `measure` gives it.

    Raises:
      UserError: the samples are not of that kind.
    """
    samples = checked(np.asarray(samples))
    held_out, rest = split_training(len(dataset.images), seed)
    compared = min(len(samples), len(rest))
    chosen = samples[np.sort(randomness.permutation(seed, _CHOICE, len(samples))[:compared])]
    training, test = (scaled(images, 0, 1, "float64") for images in (dataset.images, dataset.test_images))
    return parzen.estimate(chosen, training[held_out], test, progress=progress)


def parzen_floor_of(dataset: Dataset, count: int, seed: int, progress: bool = False) -> Parzen:
    """What at most `count` real training images get in the place of samples, as `measure` gives it."""
    held_out, rest = split_training(len(dataset.images), seed)
    training, test = (scaled(images, 0, 1, "float64") for images in (dataset.images, dataset.test_images))
    return parzen.estimate(training[rest[:count]], training[held_out], test, progress=progress)


def checked(samples: Array) -> Array:
    """The samples as float64 within [0, 1]: what rounding left outside is moved to the edge.

    Raises:
      UserError: they are not float [N, 784], fewer than 100, not finite, or not in [0, 1].
    """
    expected = f"expected floats [N, {PIXELS}] from 0 (background) to 1 (ink), N at least {FEWEST}"
    if samples.ndim != 2 or samples.shape[1] != PIXELS:
        raise UserError(f"generated images: found shape {list(samples.shape)}, {expected}. Reshape them to rows.")
    if samples.dtype.kind != "f":
        raise UserError(f"generated images: found {samples.dtype} values, {expected}. Divide bytes by 255.")
    if len(samples) < FEWEST:
        raise UserError(f"generated images: found {len(samples)}, {expected}. Generate more.")
    wide = samples.astype(np.float64)
    broken = int((~np.isfinite(wide).all(axis=1)).sum())
    if broken:
        raise UserError(
            f"generated images: {broken:,} of {len(wide):,} have NaN or infinite values, {expected}. "
            "The generator has diverged: take an earlier checkpoint."
        )
    low, high = float(wide.min()), float(wide.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UserError(
            f"generated images: found values from {low:g} to {high:g}, {expected}. Rescale them: (x + 1) / 2 for tanh."
        )
    return np.clip(wide, 0, 1, out=wide)


def split_training(count: int, seed: int) -> tuple[Array, Array]:
    """Which of `count` training images are held out to choose sigma, and which are left, in the order to draw them.

    Held out is a fifth, at most 1,000.
    """
    order = randomness.permutation(seed, _SPLIT, count)
    held_out = min(_HELD_OUT, count // 5)
    return order[:held_out], order[held_out:]


def _listed(found: Histogram) -> dict[str, Any]:
    """The histogram as JSON values."""
    return {**dataclasses.asdict(found), "counts": list(found.counts), "shares": list(found.shares)}


def _edges(windows: Parzen, floor: Parzen) -> list[str]:
    """A note where sigma lies at the end of its range."""
    sides = [side for side, each in (("generated", windows), ("real", floor)) if each.at_edge]
    if not sides:
        return []
    return [
        f"The Parzen sigma of the {' and the '.join(sides)} images is at the end of its range, {parzen.SIGMAS[0]:g} to "
        f"{parzen.SIGMAS[-1]:g}: one outside of it may fit better."
    ]
