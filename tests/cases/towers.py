"""Twin towers: a graph whose training and inference each have outputs of their own, as an estimator's model_fn has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

START = np.linspace(-1, 1, 15).reshape(5, 3)
KEEP = 0.8


def tower(x: Any, training: bool) -> tuple[Any, Any, list[Any]]:
    """Logits and hidden values; a dropout and batch statistics in training, moving ones in inference."""
    dtype = x.dtype
    with tf1.variable_scope("net", reuse=tf1.AUTO_REUSE):
        kernel = tf1.get_variable("kernel", initializer=tf1.constant(START, dtype))
        mean = tf1.get_variable("mean", [3], dtype, tf1.zeros_initializer(), trainable=False)
        out = tf1.get_variable("out", initializer=tf1.constant(START[:3, :1], dtype))
    hidden = tf1.matmul(x, kernel)
    updates = []
    if training:
        batch_mean = tf1.reduce_mean(hidden, 0)
        updates = [tf1.assign(mean, 0.9 * mean + 0.1 * batch_mean)]
        hidden = tf1.nn.dropout(tf1.tanh(hidden - batch_mean), rate=1 - KEEP)
    else:
        hidden = tf1.tanh(hidden - mean)
    return tf1.matmul(hidden, out), hidden, updates


def graph(named: bool = True) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> dict[str, Any]:
        x, y = tf1.placeholder(dtype, [None, 5], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        logits, hidden, updates = tower(x, True)
        predicted, _, _ = tower(x, False)
        loss = tf1.reduce_mean(tf1.square(logits - y))
        train = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        outputs: dict[str, Any] = {"training": logits, "inference": predicted}
        if named:
            outputs = {"training": {"out": logits, "hidden": hidden}, "inference": {"out": predicted}}
        return {"outputs": outputs, "loss": loss, "train_op": train, "updates": updates}

    return build


class Net(tf.Module):  # type: ignore[misc]
    """The same with one function and a flag."""

    def __init__(self, dtype: str, forgets: bool) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.constant(START, dtype), name="kernel")
        self.mean = tf.Variable(tf.zeros([3], dtype), trainable=False, name="mean")
        self.out = tf.Variable(tf.constant(START[:3, :1], dtype), name="out")
        self.forgets = forgets

    @tf.function
    def __call__(self, x: Any, training: bool = False) -> Any:
        hidden = x @ self.kernel
        if training:
            batch_mean = tf.reduce_mean(hidden, 0)
            self.mean.assign(0.9 * self.mean + 0.1 * batch_mean)
            hidden = tf.nn.dropout(tf.tanh(hidden - batch_mean), rate=1 - KEEP)
        else:
            hidden = tf.tanh(hidden if self.forgets else hidden - self.mean)
        return {"out": hidden @ self.out, "hidden": hidden}

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True)["out"] - y))
        for each, slope in zip([self.kernel, self.out], tape.gradient(loss, [self.kernel, self.out]), strict=True):
            each.assign_sub(0.1 * slope)
        return {"loss": loss}


def module(forgets: bool = False, shown: bool = True) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Net(dtype, forgets)

        def in_training(x: Any, training: bool = False) -> Any:
            return held(x, training=True) if training else {}

        return tfport.adapters.tf_module(held, step=held.step, forward=held if shown else in_training)

    return build


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


CASES = [
    Case("named", graph(), module(), batches, equal=True, says=("output hidden is compared in training alone",)),
    Case("reversed", module(), graph(), batches, equal=True),
    Case("unnamed", graph(named=False), module(), batches, equal=True),
    Case("forgets", graph(), module(forgets=True), batches, equal=False, rung="forward", says=("inference/out",)),
    Case("hidden", graph(), module(forgets=True, shown=False), batches, equal=False, says=("in inference",)),
]
