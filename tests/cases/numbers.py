"""A TF1 graph that keeps its learning rate in a variable, against ports that write it into the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

from cases.common import Case


def legacy(in_variable: bool = True) -> dict[str, Any]:
    x, y = tf1.placeholder(tf.float32, [None, 3], name="x"), tf1.placeholder(tf.float32, [None, 1], name="y")
    kernel = tf1.get_variable("kernel", [3, 1], initializer=tf1.glorot_uniform_initializer(), use_resource=False)
    rate = tf1.Variable(0.1, trainable=False, name="learning_rate", use_resource=False) if in_variable else 0.1
    outputs = tf1.matmul(x, kernel)
    loss = tf1.reduce_mean(tf1.square(outputs - y))
    return {
        "outputs": {"y": outputs},
        "loss": loss,
        "train_op": tf1.train.GradientDescentOptimizer(rate).minimize(loss),
    }


def without() -> dict[str, Any]:
    return legacy(False)


def port(rate: float) -> Callable[[], Any]:
    def build() -> Any:
        model = keras.Sequential([keras.Input([3], name="x"), keras.layers.Dense(1, use_bias=False, name="y")])
        model.compile(keras.optimizers.SGD(rate), "mean_squared_error")
        return model

    return build


def kept(dtype: str = "float32") -> dict[str, Any]:
    """A port that keeps a number of its own, of which the original knows nothing."""
    module = tf.Module()
    module.kernel = tf.Variable(keras.initializers.GlorotUniform()([3, 1], dtype=dtype), name="kernel")
    module.halves = tf.Variable(tf.constant(0.2, dtype), trainable=False, name="halves")

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((x @ module.kernel - y) ** 2)
        module.kernel.assign_sub(module.halves / 2 * tape.gradient(loss, module.kernel))
        return loss

    return {"module": module, "step": step, "outputs": lambda x: {"y": x @ module.kernel}}


def batches(step: int) -> dict[str, Any]:
    x = np.random.default_rng(step).normal(size=(8, 3)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


CASES = [
    Case(
        "rate in a variable", legacy, port(0.1), batches, equal=True, says=(r"number that no step moves.* legacy side",)
    ),
    Case("another rate", legacy, port(0.2), batches, equal=False, rung="update", says=(r"learning_rate is 0\.1",)),
    Case(
        "a number of the port", without, kept, batches, equal=True, says=(r"number that no step moves.* modern side",)
    ),
]
