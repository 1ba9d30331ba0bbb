"""A regression that is pulled to slow weights, which follow every 100 steps: a TF1 graph, and its port to a tf.Module.

The original asks its global step whether the slow weights follow. A port that counts in Python does the same for as
long as it runs, and begins to count anew where it is resumed: the slow weights follow at once.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfport
from pairs_common import Broken

FEATURES = 6
BATCH = 8
PERIOD = 100
PULL = 0.125


# --- The original -----------------------------------------------------------------------------------------------------
def legacy(dtype: str = "float32") -> None:
    v1 = tf.compat.v1
    x = v1.placeholder(dtype, [None, FEATURES], name="x")
    target = v1.placeholder(dtype, [None, 1], name="target")
    start = v1.constant_initializer(0.125)
    weights = v1.get_variable("weights", [FEATURES, 1], dtype, initializer=start)
    slow = v1.get_variable("slow", [FEATURES, 1], dtype, initializer=start, trainable=False)
    prediction = tf.identity(tf.matmul(x, weights), name="prediction")
    step = v1.train.get_or_create_global_step()
    follow = tf.cond(tf.equal(step % PERIOD, 0), lambda: v1.assign(slow, weights), lambda: tf.identity(slow))
    with tf.control_dependencies([follow]):
        pull = PULL * tf.reduce_mean(tf.square(weights - slow.read_value()))
    loss = tf.identity(tf.reduce_mean(tf.square(prediction - target)) + pull, name="loss")
    v1.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step, name="train")


# --- The port ---------------------------------------------------------------------------------------------------------
class Regression(tf.Module):  # type: ignore[misc]
    """`train` runs as it stands, call by call."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        start = tf.fill([FEATURES, 1], tf.constant(0.125, dtype))
        self.weights = tf.Variable(start, name="weights")
        self.slow = tf.Variable(start, trainable=False, name="slow")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.optimizer.build([self.weights])

    def __call__(self, x: Any) -> Any:
        return tf.matmul(x, self.weights)

    def follow(self) -> None:
        due = tf.equal(tf.convert_to_tensor(self.optimizer.iterations) % PERIOD, 0)
        self.slow.assign(tf.where(due, self.weights, self.slow))

    def train(self, x: Any, target: Any) -> Any:
        self.follow()
        with tf.GradientTape() as tape:
            pull = PULL * tf.reduce_mean(tf.square(self.weights - self.slow))
            loss = tf.reduce_mean(tf.square(self(x) - target)) + pull
        self.optimizer.apply(tape.gradient(loss, [self.weights]), [self.weights])
        return loss


def program(net: Regression) -> Any:
    return tfport.adapters.tf_module(net, phases={"train": net.train}, forward=net)


def modern(dtype: str = "float32") -> Any:
    return program(Regression(dtype))


# --- Ports with one mistake -------------------------------------------------------------------------------------------
class CountsInPython(Regression):
    made = 0

    @tf.autograph.experimental.do_not_convert
    def follow(self) -> None:
        if self.made % PERIOD == 0:
            self.slow.assign(self.weights)
        self.made += 1


def counts_in_python(dtype: str = "float32") -> Any:
    return program(CountsInPython(dtype))


BROKEN = (
    Broken("counts_in_python", "a number in Python says whether the slow weights follow", "resume", "train", "weights"),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([17, step])
    x = draw.normal(size=(BATCH, FEATURES)).astype(np.float32)
    return {"x": x, "target": np.sin(x.sum(axis=1, keepdims=True)).astype(np.float32)}
