"""Optimizers and batch normalisation by their papers' recurrences, in numpy and float64: what implementations meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfport.models.spec import Adam, BatchNorm, RMSProp

Array = np.ndarray[Any, Any]


def adam(value: Array, gradients: Sequence[Array], numbers: Adam) -> Array:
    """Kingma and Ba 2015; epsilon beside the corrected root, or beside the root as it is, as TF1 and Keras have it."""
    m, v = np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, 1):
        m = numbers.beta_1 * m + (1 - numbers.beta_1) * gradient
        v = numbers.beta_2 * v + (1 - numbers.beta_2) * gradient**2
        corrected_m, correction = m / (1 - numbers.beta_1**step), np.sqrt(1 - numbers.beta_2**step)
        if numbers.epsilon_after_correction:
            value = value - numbers.learning_rate * corrected_m / (np.sqrt(v) / correction + numbers.epsilon)
        else:
            value = value - numbers.learning_rate * correction * corrected_m / (np.sqrt(v) + numbers.epsilon)
    return value


def rmsprop(value: Array, gradients: Sequence[Array], numbers: RMSProp, start: float = 0.0) -> Array:
    """Tieleman and Hinton 2012, its mean square starting at `start`, epsilon under the root."""
    square = np.full_like(value, start)
    for gradient in gradients:
        square = numbers.rho * square + (1 - numbers.rho) * gradient**2
        value = value - numbers.learning_rate * gradient / np.sqrt(square + numbers.epsilon)
    return value


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance over all axes but the last."""
    flat = x.reshape(-1, x.shape[-1])
    return flat.mean(0), ((flat - flat.mean(0)) ** 2).mean(0)


def normalised(x: Array, statistics: tuple[Array, Array], gamma: Array, beta: Array, epsilon: float) -> Array:
    """Ioffe and Szegedy 2015, by a mean and a variance."""
    mean, variance = statistics
    found: Array = gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
    return found


def moved(layer: BatchNorm, moving: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
    """The moving statistics after one batch."""
    mean, variance = moments(x)
    if layer.unbiased:
        count = x.size // x.shape[-1]
        variance = variance * count / (count - 1)
    return (
        layer.momentum * moving[0] + (1 - layer.momentum) * mean,
        layer.momentum * moving[1] + (1 - layer.momentum) * variance,
    )
