"""Variables and batch normalisation with tf.Module: what the models here have in common."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfport.models.spec import BatchNorm, Constant, Initialiser, Layer, Normal, Shape, Uniform

Statistics = list[tuple["Norm", Any, Any]]
"""Batch moments that a pass in training mode has seen: (normalisation, mean, variance), in the order of computation."""


# --- Variables --------------------------------------------------------------------------------------------------------
def initial(initialiser: Initialiser, shape: Shape, precision: str) -> Any:
    """The tensor from which a variable takes its first value."""
    if isinstance(initialiser, Normal):
        return tf.random.normal(shape, stddev=initialiser.stddev, dtype=precision)
    if isinstance(initialiser, Uniform):
        return tf.random.uniform(shape, -initialiser.limit, initialiser.limit, dtype=precision)
    if isinstance(initialiser, Constant):
        return tf.constant(initialiser.value, precision, shape)
    limit = initialiser.limit(shape)
    return tf.random.uniform(shape, -limit, limit, dtype=precision)


def variable(layer: Layer, kind: str, precision: str, network: str) -> Any:
    """One variable of a layer, named `<network>/<layer>/<kind>`."""
    about = layer.variables()[kind]
    return tf.Variable(
        initial(about.initialiser, about.shape, precision),
        trainable=about.trainable,
        name=f"{network}/{layer.name}/{kind}",
    )


class Weights(tf.Module):  # type: ignore[misc]
    """The variables of a dense or convolutional layer."""

    def __init__(self, layer: Layer, precision: str, network: str) -> None:
        super().__init__()
        self.kernel = variable(layer, "kernel", precision, network)
        self.bias = variable(layer, "bias", precision, network)


# --- Batch normalisation ----------------------------------------------------------------------------------------------
class Norm(tf.Module):  # type: ignore[misc]
    """Batch normalisation over all axes but the last, by unfused moments."""

    def __init__(self, layer: Layer, precision: str, network: str) -> None:
        super().__init__()
        assert isinstance(layer, BatchNorm)
        self.layer = layer
        self.gamma = variable(layer, "gamma", precision, network)
        self.beta = variable(layer, "beta", precision, network)
        self.moving_mean = variable(layer, "moving_mean", precision, network)
        self.moving_variance = variable(layer, "moving_variance", precision, network)

    def __call__(self, x: Any, statistics: Statistics | None) -> Any:
        """Normalises by the batch's moments in training, else (`statistics` is None) by the moving statistics.

        In training nothing is updated here: the moments are appended to `statistics`, so that a gradient can be looked
        at without a trace; `update` takes them.
        """
        if statistics is None:
            mean, variance = self.moving_mean, self.moving_variance
        else:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
            fed = variance
            if self.layer.unbiased:
                count = tf.cast(tf.size(x) // self.layer.units, x.dtype)
                fed = variance * (count / (count - 1))
            statistics.append((self, mean, fed))
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.layer.epsilon)

    def update(self, mean: Any, variance: Any) -> None:
        """Moves the moving statistics towards a batch's."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_sub((moving - value) * (1 - self.layer.momentum))


def module(layer: Layer, precision: str, network: str) -> Weights | Norm:
    """The variables of one layer of a network."""
    if isinstance(layer, BatchNorm):
        return Norm(layer, precision, network)
    return Weights(layer, precision, network)
