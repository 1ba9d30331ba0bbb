"""Layers and optimizers with every number given: what the Keras 3 models here have in common."""

from __future__ import annotations

from typing import Any

import keras

from tfport.models.spec import (
    ActivationName,
    Adam,
    BatchNorm,
    Constant,
    Conv,
    Dense,
    Initialiser,
    Layer,
    Normal,
    Optimizer,
    RMSProp,
    Uniform,
)


# --- Layers -----------------------------------------------------------------------------------------------------------
def initial(initialiser: Initialiser) -> Any:
    """Keras's initialiser of that distribution."""
    if isinstance(initialiser, Normal):
        return keras.initializers.RandomNormal(stddev=initialiser.stddev)
    if isinstance(initialiser, Uniform):
        return keras.initializers.RandomUniform(-initialiser.limit, initialiser.limit)
    if isinstance(initialiser, Constant):
        return keras.initializers.Constant(initialiser.value)
    return keras.initializers.GlorotUniform()


def built_in(activation: ActivationName) -> str:
    """The activation by Keras's name; a leaky one, whose slope must be given, is a layer after this one."""
    return "linear" if activation == "leaky_relu" else activation


def dense(layer: Layer) -> Any:
    """A Dense layer: kernel [inputs, units], bias [units]."""
    assert isinstance(layer, Dense)
    return keras.layers.Dense(
        layer.units,
        activation=built_in(layer.activation),
        kernel_initializer=initial(layer.kernel),
        bias_initializer=initial(layer.bias),
        name=layer.name,
    )


def conv(layer: Layer) -> Any:
    """A Conv2D or Conv2DTranspose layer with 'same' padding."""
    assert isinstance(layer, Conv)
    kind = keras.layers.Conv2DTranspose if layer.transposed else keras.layers.Conv2D
    return kind(
        layer.units,
        layer.size,
        strides=layer.stride,
        padding="same",
        activation=built_in(layer.activation),
        kernel_initializer=initial(layer.kernel),
        name=layer.name,
    )


def batch_norm(layer: Layer) -> Any:
    """Batch normalisation; Keras 3 knows no fused kernel, and its moving variance is the biased one."""
    assert isinstance(layer, BatchNorm)
    return keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon, name=layer.name)


def leaky_relu(layer: Layer) -> Any:
    """The LeakyReLU that follows `layer`; its output is that layer's, as others name it."""
    return keras.layers.LeakyReLU(negative_slope=layer.slope, name=f"{layer.name}{ACTIVATION}")


ACTIVATION = "_activation"
"""What the name of a layer's activation ends in."""


# --- Optimizers -------------------------------------------------------------------------------------------------------
def adam(numbers: Optimizer) -> Any:
    """Keras's Adam with every number given: its own defaults are another rate and epsilon 1e-7."""
    assert isinstance(numbers, Adam)
    return keras.optimizers.Adam(
        learning_rate=numbers.learning_rate,
        beta_1=numbers.beta_1,
        beta_2=numbers.beta_2,
        epsilon=numbers.epsilon,
    )


def rmsprop(numbers: Optimizer) -> Any:
    """Keras's RMSprop, whose mean square starts at zero."""
    assert isinstance(numbers, RMSProp)
    return keras.optimizers.RMSprop(learning_rate=numbers.learning_rate, rho=numbers.rho, epsilon=numbers.epsilon)
