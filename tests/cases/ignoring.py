"""Variables that take no part: an average of the loss, a metric, what a summary shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

START = np.linspace(-1, 1, 5).reshape(5, 1)


def graph(read: bool = False, after: int = -1) -> Callable[..., Any]:
    """A linear model with an average of its loss, which slows the rate where it is read: after so many examples."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        out = tf1.matmul(x, tf1.get_variable("w", initializer=tf1.constant(START, dtype)))
        loss = tf1.reduce_mean(tf1.square(out - y), name="loss")
        average = tf1.train.ExponentialMovingAverage(0.9)
        followed = average.apply([loss])
        seen = tf1.get_variable("metrics/seen", initializer=tf1.constant(0, tf1.int64), trainable=False)
        slowed = tf1.where(seen > after, average.average(loss), tf1.zeros_like(loss))
        rate = 0.1 / (1.0 + slowed) if read else 0.1
        train = tf1.train.GradientDescentOptimizer(rate).minimize(loss)
        counted = tf1.assign_add(seen, tf1.cast(tf1.shape(x)[0], tf1.int64))
        return {"outputs": {"out": out}, "loss": loss, "train_op": tf1.group(train, followed, counted)}

    return build


class Linear(tf.Module):  # type: ignore[misc]
    """The same with a running mean of its own, and one of that."""

    def __init__(self, dtype: str, reads: bool = False) -> None:
        super().__init__()
        self.reads = reads
        self.weight = tf.Variable(tf.constant(START, dtype), name="weight")
        self.mean = tf.Variable(tf.zeros([], dtype), trainable=False, name="mean")
        self.mean_of_means = tf.Variable(tf.zeros([], dtype), trainable=False, name="mean_of_means")

    @tf.function
    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        rate = 0.1 / (1.0 + self.mean_of_means) if self.reads else 0.1
        self.weight.assign_sub(rate * tape.gradient(loss, self.weight))
        self.mean.assign(0.5 * self.mean + 0.5 * loss)
        self.mean_of_means.assign(0.5 * self.mean_of_means + 0.5 * self.mean)
        return {"loss": loss}


def module(dtype: str = "float32") -> Any:
    held = Linear(dtype)
    return tfport.adapters.tf_module(held, step=held.step, forward=held)


def module_that_reads(dtype: str = "float32") -> Any:
    held = Linear(dtype, reads=True)
    return tfport.adapters.tf_module(held, step=held.step, forward=held)


def model() -> Any:
    layers = [keras.Input([5], name="x"), keras.layers.Dense(1, use_bias=False, name="dense")]
    found = keras.Sequential(layers)
    found.layers[0].kernel.assign(START)
    found.compile(keras.optimizers.SGD(0.1), "mse")
    return found


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


CASES = [
    Case(
        "asked", graph(), model, batches, equal=False, says=(r"--ignore=loss/ExponentialMovingAverage leaves it out",)
    ),
    Case(
        "left-out",
        graph(),
        model,
        batches,
        equal=True,
        says=(r"Not compared: loss/ExponentialMovingAverage, metrics/seen of the legacy side \(--ignore\)",),
        never=("without a partner", "counted on the legacy side"),
        options={"ignore": "loss/*,metrics/*"},
    ),
    Case(
        "both",
        graph(),
        module,
        batches,
        equal=True,
        says=("Not compared: mean, mean_of_means of the modern side",),
        options={"ignore": ["*/ExponentialMovingAverage", "mean*", "metrics/seen"]},
    ),
    Case("chain", model, module, batches, equal=False, says=("--ignore=mean,mean_of_means leaves them out",)),
    Case(
        "two-averages",
        graph(),
        module,
        batches,
        equal=False,
        says=("--ignore=loss/ExponentialMovingAverage leaves it out", "--ignore=mean,mean_of_means leaves them out"),
    ),
    Case("read", graph(read=True), model, batches, equal=False, never=("--ignore=",)),
]
