"""Layers and optimizers with every number given: what the Keras 2 models here have in common."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

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
from tfport.subject import CORRECTED


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


class UnbiasedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """PyTorch's: normalises by the batch's biased variance, and feeds the unbiased one to its moving variance."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalises [B, ..., channels] by the batch's moments in training, else by the moving statistics."""
        if not training:
            mean, variance = self.moving_mean, self.moving_variance
        else:
            mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
            unbiased = variance * (count / (count - 1))
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
                moving.assign(moving - (moving - value) * (1 - self.momentum))
        return tf.nn.batch_normalization(inputs, mean, variance, self.beta, self.gamma, self.epsilon)


def batch_norm(layer: Layer) -> Any:
    """Unfused batch normalisation: Keras 2's fused kernel has no float64 and stores an unbiased moving variance."""
    assert isinstance(layer, BatchNorm)
    kind = UnbiasedBatchNormalization if layer.unbiased else keras.layers.BatchNormalization
    return kind(momentum=layer.momentum, epsilon=layer.epsilon, fused=False, name=layer.name)


def leaky_relu(layer: Layer) -> Any:
    """The LeakyReLU that follows `layer`; its output is that layer's, as others name it."""
    return keras.layers.LeakyReLU(alpha=layer.slope, name=f"{layer.name}{ACTIVATION}")


def activation(layer: Layer) -> Any:
    """The activation that follows `layer` as a layer of its own; its output is that layer's, as others name it."""
    assert isinstance(layer, BatchNorm)
    return keras.layers.Activation(layer.activation, name=f"{layer.name}{ACTIVATION}")


ACTIVATION = "_activation"
"""What the name of a layer's activation ends in."""


# --- Optimizers -------------------------------------------------------------------------------------------------------
class CorrectedAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """PyTorch's Adam: epsilon is added to sqrt(v) after its bias correction, where Keras adds it before."""

    algorithm_suffix = CORRECTED

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Moves one variable against its gradient."""
        rate, beta_1, beta_2, epsilon, count = (
            tf.cast(number, variable.dtype)
            for number in (self.learning_rate, self.beta_1, self.beta_2, self.epsilon, self.iterations + 1)
        )
        position = self._index_dict[self._var_key(variable)]
        m, v = self._momentums[position], self._velocities[position]
        m.assign(m + (gradient - m) * (1 - beta_1))
        v.assign(v + (tf.square(gradient) - v) * (1 - beta_2))
        corrected = tf.sqrt(v / (1 - tf.pow(beta_2, count)))
        variable.assign(variable - rate / (1 - tf.pow(beta_1, count)) * m / (corrected + epsilon))


def adam(numbers: Optimizer) -> Any:
    """Keras's Adam with every number given: its own defaults are another rate and epsilon 1e-7."""
    assert isinstance(numbers, Adam)
    kind = CorrectedAdam if numbers.epsilon_after_correction else keras.optimizers.Adam
    return kind(
        learning_rate=numbers.learning_rate,
        beta_1=numbers.beta_1,
        beta_2=numbers.beta_2,
        epsilon=numbers.epsilon,
    )


def rmsprop(numbers: Optimizer) -> Any:
    """Keras's RMSprop, whose mean square starts at zero."""
    assert isinstance(numbers, RMSProp)
    return keras.optimizers.RMSprop(learning_rate=numbers.learning_rate, rho=numbers.rho, epsilon=numbers.epsilon)
