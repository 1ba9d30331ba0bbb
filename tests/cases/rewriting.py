"""Graphs that TensorFlow's rewriting fuses: a leaky ReLU written as a maximum, behind a convolution with a bias."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case


def legacy(dtype: str = "float32") -> dict[str, Any]:
    """A TF1 graph."""
    images = tf1.placeholder(dtype, [None, 6, 6, 2], name="images")
    labels = tf1.placeholder(tf1.int64, [None], name="labels")
    glorot, zeros = tf1.glorot_uniform_initializer(), tf1.zeros_initializer()
    kernel = tf1.get_variable("conv/w", [3, 3, 2, 4], dtype, initializer=glorot)
    bias = tf1.get_variable("conv/biases", [4], dtype, initializer=zeros)
    hidden = tf1.nn.bias_add(tf1.nn.conv2d(images, kernel, 1, "SAME"), bias)
    hidden = tf1.maximum(hidden, 0.2 * hidden)
    last = tf1.get_variable("fc/w", [144, 3], dtype, initializer=glorot)
    logits = tf1.matmul(tf1.reshape(hidden, [-1, 144]), last)
    loss = tf1.reduce_mean(tf1.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    train_op = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train_op}


class Module(tf.Module):  # type: ignore[misc]
    """The same on a tape."""

    def __init__(self, dtype: str, slope: float) -> None:
        super().__init__()
        glorot = keras.initializers.GlorotUniform()
        self.slope = slope
        self.kernel = tf.Variable(glorot([3, 3, 2, 4], dtype=dtype), name="conv_w")
        self.bias = tf.Variable(tf.zeros([4], dtype), name="conv_b")
        self.last = tf.Variable(glorot([144, 3], dtype=dtype), name="fc_w")
        self.optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def __call__(self, images: Any) -> Any:
        hidden = tf.nn.bias_add(tf.nn.conv2d(images, self.kernel, 1, "SAME"), self.bias)
        hidden = tf.maximum(hidden, self.slope * hidden)
        return tf.reshape(hidden, [-1, 144]) @ self.last

    @tf.function
    def step(self, images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(images)))
        variables = [self.kernel, self.bias, self.last]
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def _program(dtype: str, slope: float) -> Any:
    module = Module(dtype, slope)
    return tfport.adapters.tf_module(module, step=module.step, forward=module)


def tape(dtype: str = "float32") -> Any:
    return _program(dtype, 0.2)


def steeper(dtype: str = "float32") -> Any:
    return _program(dtype, 0.25)


def keras_model() -> Any:
    model = keras.Sequential(
        [
            keras.Input([6, 6, 2], name="images"),
            keras.layers.Conv2D(4, 3, padding="same", name="conv"),
            keras.layers.LeakyReLU(negative_slope=0.2),
            keras.layers.Flatten(),
            keras.layers.Dense(3, use_bias=False, name="fc"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {"images": generator.normal(size=(8, 6, 6, 2)).astype("float32"), "labels": generator.integers(3, size=8)}


CASES = [
    Case("tape", legacy, tape, batches, equal=True),
    Case("tape against tape", tape, tape, batches, equal=True, says=("bit for bit",)),
    Case("steeper", legacy, steeper, batches, equal=False, rung="forward"),
    Case("keras", legacy, keras_model, batches, equal=True),
]
