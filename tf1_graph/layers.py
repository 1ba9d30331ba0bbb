"""Variables, batch normalisation and optimizers as TF1 code writes them: what the models here have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from tfport.models.spec import (
    Adam,
    BatchNorm,
    Constant,
    Initialiser,
    Layer,
    Normal,
    Optimizer,
    RMSProp,
    Shape,
    Uniform,
)


# --- Variables --------------------------------------------------------------------------------------------------------
def initial(initialiser: Initialiser, shape: Shape, precision: str) -> Any:
    """The tensor from which a variable takes its first value."""
    if isinstance(initialiser, Normal):
        return tf.random_normal(shape, stddev=initialiser.stddev, dtype=precision)
    if isinstance(initialiser, Uniform):
        return tf.random_uniform(shape, -initialiser.limit, initialiser.limit, dtype=precision)
    if isinstance(initialiser, Constant):
        return tf.constant(initialiser.value, precision, shape)
    return tf.glorot_uniform_initializer()(shape, dtype=precision)


def variable(layer: Layer, kind: str, precision: str) -> Any:
    """One variable of a layer, named `<layer>/<kind>` in the scope around it: a reference variable, as in TF 1.15."""
    about = layer.variables()[kind]
    return tf.Variable(
        initial(about.initialiser, about.shape, precision),
        trainable=about.trainable,
        name=f"{layer.name}/{kind}",
        use_resource=False,
    )


class Weights(NamedTuple):
    """The variables of a dense or convolutional layer."""

    kernel: Any
    bias: Any


def weights(layer: Layer, precision: str) -> Weights:
    """kernel [inputs, units], or [size, size, ...] of a convolution, and bias [units]."""
    return Weights(*(variable(layer, kind, precision) for kind in Weights._fields))


class Norm(NamedTuple):
    """The variables of a batch normalisation, each [channels]."""

    gamma: Any
    beta: Any
    moving_mean: Any
    moving_variance: Any


def norm(layer: Layer, precision: str) -> Norm:
    """gamma and beta, which are trained, and the moving statistics, which are not."""
    return Norm(*(variable(layer, kind, precision) for kind in Norm._fields))


# --- Batch normalisation ----------------------------------------------------------------------------------------------
def normalise(x: Any, norm: Norm, layer: Layer, training: bool, after: Sequence[Any] = ()) -> Any:
    """Normalises over all axes but the last: by the batch's moments in training, else by the moving statistics.

    In training the updates of the moving statistics are put into UPDATE_OPS. Nothing runs them by itself: the train op
    must be made to depend on them. `after` names ops that must have run before, where one step makes two passes:
    without it the two updates would race. They read the variable anew, since a reference variable's cached value may
    be older than `after`.
    """
    assert isinstance(layer, BatchNorm)
    if not training:
        mean, variance = norm.moving_mean, norm.moving_variance
    else:
        mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        fed = variance
        if layer.unbiased:
            count = tf.cast(tf.size(x) // layer.units, x.dtype)
            fed = variance * (count / (count - 1))
        with tf.control_dependencies(after):
            for moving, value in ((norm.moving_mean, mean), (norm.moving_variance, fed)):
                step = (moving.read_value() - value) * (1 - layer.momentum)
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, step))
    return tf.nn.batch_normalization(x, mean, variance, norm.beta, norm.gamma, layer.epsilon)


# --- Optimizers -------------------------------------------------------------------------------------------------------
def adam(numbers: Optimizer, precision: str, name: str) -> Any:
    """TF1's Adam with its numbers as tensors of the run's dtype: given as floats they would be float32 always."""
    assert isinstance(numbers, Adam)
    with tf.name_scope(name):
        rate, beta_1, beta_2, epsilon = (
            tf.constant(number, precision)
            for number in (numbers.learning_rate, numbers.beta_1, numbers.beta_2, numbers.epsilon)
        )

    def corrected_epsilon() -> Any:
        """PyTorch adds epsilon after the bias correction of sqrt(v): here it shrinks with that correction."""
        _, beta_2_power = optimizer._get_beta_accumulators()
        with tf.control_dependencies(None):  # it can be read without what the train op waits for
            return epsilon * tf.sqrt(1 - beta_2_power)

    given = corrected_epsilon if numbers.epsilon_after_correction else epsilon
    optimizer = tf.train.AdamOptimizer(rate, beta_1, beta_2, given, name=name)
    return optimizer


def rmsprop(numbers: Optimizer, precision: str, name: str) -> Any:
    """TF1's RMSProp with its numbers as tensors of the run's dtype."""
    assert isinstance(numbers, RMSProp)
    with tf.name_scope(name):
        rate, rho, epsilon = (
            tf.constant(number, precision) for number in (numbers.learning_rate, numbers.rho, numbers.epsilon)
        )
    return tf.train.RMSPropOptimizer(rate, rho, 0.0, epsilon, name=name)


def minimise(optimizer: Any, loss: Any, variables: Sequence[Any], updates: Sequence[Any] = (), **options: Any) -> Any:
    """The op that moves `variables` against the gradient of `loss`, once `updates` have run."""
    gradients = optimizer.compute_gradients(loss, list(variables))
    with tf.control_dependencies(list(updates)):
        return optimizer.apply_gradients(gradients, **options)
