"""Candidate sampling, as TensorFlow's kernels compute it, on a generator of our own.

A sampled softmax or an NCE loss draws classes to tell the true ones from. What it draws is three arrays: the classes,
and how often the true and the drawn ones are expected among them. The latter depend on the number of tries where the
classes must be unique, so all three come from one call. Expected counts are float32, whatever the model's precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Candidates = tuple[Array, Array, Array]
"""Sampled classes [num_sampled] int64, expected counts of the true classes and of the sampled ones, float32."""


def kind(sampler: str, range_max: int, unique: bool) -> str:
    """What `DrawSource.number` keys the draw by, its shape being (num_sampled,): `kind("log_uniform", 50, True)`."""
    return f"{sampler}_candidates {range_max} {unique}"


def log_uniform(
    generator: np.random.Generator, true_classes: Array, num_sampled: int, unique: bool, range_max: int
) -> Candidates:
    """What `LogUniformCandidateSampler` gives: classes in [0, range_max), low ones more often.

    Args:
      generator: where the numbers come from.
      true_classes: the true classes, of any shape.
      num_sampled: how many classes are drawn; at most range_max where they are unique.
      unique: whether no class is drawn twice.
      range_max: the number of classes.
    """
    log_range = math.log1p(range_max)

    def probability(classes: Array) -> Array:
        return (np.log((classes + 2.0) / (classes + 1.0)) / log_range).astype(np.float32)

    def draw(number: float) -> int:
        return (int(math.exp(number * log_range)) - 1) % range_max

    return _sample(generator, true_classes, num_sampled, unique, range_max, draw, probability)


def uniform(
    generator: np.random.Generator, true_classes: Array, num_sampled: int, unique: bool, range_max: int
) -> Candidates:
    """What `UniformCandidateSampler` gives: classes in [0, range_max), all alike; see `log_uniform`."""

    def probability(classes: Array) -> Array:
        return np.full(classes.shape, 1 / range_max, np.float32)

    return _sample(
        generator,
        true_classes,
        num_sampled,
        unique,
        range_max,
        lambda number: min(int(number * range_max), range_max - 1),
        probability,
    )


def _sample(
    generator: np.random.Generator,
    true_classes: Array,
    num_sampled: int,
    unique: bool,
    range_max: int,
    draw: Callable[[float], int],
    probability: Callable[[Array], Array],
) -> Candidates:
    if unique and num_sampled > range_max:
        raise ValueError(f"{num_sampled} unique classes cannot be drawn out of {range_max}")
    picked: list[int] = []
    used: set[int] = set()
    tries = 0
    while len(picked) < num_sampled:
        tries += 1
        value = draw(float(generator.random()))
        if not (unique and value in used):
            used.add(value)
            picked.append(value)
    sampled = np.array(picked, np.int64)

    def expected(classes: Array) -> Array:
        each = probability(classes)
        if tries == num_sampled:
            return each * np.float32(num_sampled)
        return -np.expm1(np.float32(tries) * np.log1p(-each))

    return sampled, expected(np.asarray(true_classes, np.int64)), expected(sampled)
