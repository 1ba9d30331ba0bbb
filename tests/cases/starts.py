"""Where weights start: a fixed seed or a table on one side is one draw; another start is no other function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

INPUTS, UNITS = 5, 40
TABLE = np.random.default_rng(3).uniform(-0.3, 0.3, (INPUTS, UNITS))


def _graph(dtype: str, kernel: Any, bias: float = 0.0) -> dict[str, Any]:
    x = tf1.placeholder(dtype, [None, INPUTS], name="x")
    y = tf1.placeholder(dtype, [None, UNITS], name="y")
    weight = tf1.get_variable("dense/kernel", [INPUTS, UNITS], dtype, initializer=kernel)
    offset = tf1.get_variable("dense/bias", [UNITS], dtype, initializer=tf1.constant_initializer(bias))
    predictions = tf1.matmul(x, weight) + offset
    loss = tf1.reduce_mean(tf1.square(predictions - y))
    train_op = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
    return {"outputs": {"predictions": predictions}, "loss": loss, "train_op": train_op}


def drawn(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, tf1.random_uniform_initializer(-0.3, 0.3, dtype=dtype))


def table(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, tf1.constant_initializer(TABLE))


def normal(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, tf1.random_normal_initializer(stddev=0.02, dtype=dtype))


def biased(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, tf1.random_uniform_initializer(-0.3, 0.3, dtype=dtype), 0.1)


def _keras(initialiser: Any) -> Any:
    model = keras.Sequential(
        [keras.Input([INPUTS], name="x"), keras.layers.Dense(UNITS, kernel_initializer=initialiser)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def keras_drawn() -> Any:
    return _keras(keras.initializers.RandomUniform(-0.3, 0.3))


def keras_seeded() -> Any:
    return _keras(keras.initializers.RandomUniform(-0.3, 0.3, seed=1))


class Module(tf.Module):  # type: ignore[misc]
    """The same on a tape, its initialiser seeded."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        draw = keras.initializers.RandomUniform(-0.3, 0.3, seed=1)
        self.kernel = tf.Variable(draw([INPUTS, UNITS], dtype=dtype), name="kernel")
        self.bias = tf.Variable(tf.zeros([UNITS], dtype), name="bias")
        self.optimizer = keras.optimizers.SGD(0.1)

    @tf.function
    def __call__(self, x: Any) -> Any:
        return x @ self.kernel + self.bias

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        variables = [self.kernel, self.bias]
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def tape_seeded(dtype: str = "float32") -> Any:
    module = Module(dtype)
    return tfport.adapters.tf_module(module, step=module.step, forward=module)


def batches(step: int) -> dict[str, Any]:
    draws = np.random.default_rng(step)
    return {name: draws.normal(size=(8, size)).astype("float32") for name, size in (("x", INPUTS), ("y", UNITS))}


FIXED = r"the same on every build of the {} side"
ELSEWHERE = r"starts from another distribution than .*, and computes the same from the same weights"
CASES = [
    Case("seeded port", drawn, keras_seeded, batches, equal=True, says=(FIXED.format("modern"),)),
    Case("seeded tape", tape_seeded, keras_drawn, batches, equal=True, says=(FIXED.format("legacy"),)),
    Case("table", table, keras_drawn, batches, equal=True, says=(FIXED.format("legacy"),)),
    Case("normal", normal, keras_drawn, batches, equal=False, says=(ELSEWHERE, "dense/kernel starts as mean")),
    Case("biased", biased, keras_drawn, batches, equal=False, says=(ELSEWHERE, "the constant 0.1 against")),
    Case("seeded normal", normal, tape_seeded, batches, equal=False, says=(ELSEWHERE, "dense/kernel starts as mean")),
]
