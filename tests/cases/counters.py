"""Steps written out by hand that keep a counter of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case


class Slowing(tf.Module):  # type: ignore[misc]
    """A linear model whose rate is divided by its count of steps."""

    def __init__(self, dtype: str, counter: str, name: str, begin: int, stride: int = 1) -> None:
        super().__init__()
        self.first = begin
        self.stride = stride
        self.weight = tf.Variable(tf.constant(np.linspace(-1, 1, 5).reshape(5, 1), dtype), name="weight")
        self.counter = tf.Variable(tf.cast(begin, counter), trainable=False, name=name)
        self.begun = tf.Variable(False, trainable=False, name="begun")

    @tf.function
    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.counter.assign_add(tf.cast(self.stride, self.counter.dtype))
        done = tf.cast(self.counter, self.weight.dtype) - self.first
        rate = tf.where(self.begun, 0.1, 0.05)
        self.begun.assign(True)
        self.weight.assign_sub(tape.gradient(loss, self.weight) * tf.cast(rate, done.dtype) / (done / self.stride))
        return {"loss": loss}


def module(counter: str = "int64", name: str = "iterations", begin: int = 0, stride: int = 1) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Slowing(dtype, dtype if counter == "float" else counter, name, begin, stride)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


def graph(dtype: str = "float32") -> dict[str, Any]:
    """The same as a TF1 graph, with a global step and the rate as a tensor."""
    x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
    weight = tf1.get_variable("w", initializer=tf1.constant(np.linspace(-1, 1, 5).reshape(5, 1), dtype))
    out = tf1.matmul(x, weight)
    loss = tf1.reduce_mean(tf1.square(out - y))
    step = tf1.train.get_or_create_global_step()
    done = tf1.cast(step + 1, dtype)
    rate = tf1.where(tf1.equal(step, 0), tf1.constant(0.05, dtype), tf1.constant(0.1, dtype)) / done
    tf1.get_variable("local_step", initializer=0, trainable=False)
    train = tf1.train.GradientDescentOptimizer(rate).minimize(loss, step)
    return {"outputs": {"out": out}, "loss": loss, "train_op": train}


class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """The same rate as a schedule of Keras's."""

    def __call__(self, step: Any) -> Any:
        done = tf.cast(step + 1, keras.config.floatx())
        return tf.where(step == 0, tf.cast(0.05, done.dtype), tf.cast(0.1, done.dtype)) / done

    def get_config(self) -> dict[str, Any]:
        return {}


def model() -> Any:
    start = keras.initializers.Constant(np.linspace(-1, 1, 5).reshape(5, 1))
    layers = [keras.Input([5], name="x"), keras.layers.Dense(1, use_bias=False, kernel_initializer=start)]
    found = keras.Sequential(layers)
    found.compile(keras.optimizers.SGD(Schedule()), "mse")
    return found


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


CASES = [
    Case("itself", module(), module(), batches, equal=True),
    Case("floating", module("float"), module(), batches, equal=True, never=("random numbers",)),
    Case("ahead", module("int32"), module("int64", "ticks", begin=1), batches, equal=True),
    Case("stride", module(), module(stride=2), batches, equal=False, says=("count",)),
    Case("graph-module", graph, module("int64", "ticks"), batches, equal=True, says=("legacy side alone.*local_step",)),
    Case("module-graph", module("float"), graph, batches, equal=True),
    Case("keras-module", model, module("float", "ticks"), batches, equal=True),
]
