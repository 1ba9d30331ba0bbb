"""Noise and dropout inside loops and branches of a TF1 graph, against a port that draws step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

KERNEL = np.linspace(-1, 1, 35).reshape(7, 5)
OUT = np.linspace(1, -1, 5).reshape(5, 1)


def graph(v2: bool) -> Callable[..., Any]:
    """A recurrent net as tf.while_loop, a dropout on what each step hands on and one behind the last."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        was_v2 = tf1.control_flow_v2_enabled()
        (tf1.enable_control_flow_v2 if v2 else tf1.disable_control_flow_v2)()
        x, y = tf1.placeholder(dtype, [None, 4, 2], name="x"), tf1.placeholder(dtype, [None, 1], name="y")
        training = tf1.placeholder_with_default(False, [], name="training")
        kernel = tf1.get_variable("kernel", initializer=tf1.constant(KERNEL, dtype))
        out = tf1.get_variable("out", initializer=tf1.constant(OUT, dtype))

        def dropped(value: Any) -> Any:
            return tf1.cond(training, lambda: tf1.nn.dropout(value, rate=0.4), lambda: value)

        def body(step: Any, state: Any) -> Any:
            return step + 1, dropped(tf1.tanh(tf1.matmul(tf1.concat([x[:, step], state], 1), kernel)))

        _, state = tf1.while_loop(lambda step, _: step < 4, body, (0, tf1.zeros([tf1.shape(x)[0], 5], dtype)))
        predicted = tf1.matmul(dropped(state), out)
        loss = tf1.reduce_mean(tf1.square(predicted - y))
        train = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        (tf1.enable_control_flow_v2 if was_v2 else tf1.disable_control_flow_v2)()
        modes = {"training": {training: True}, "inference": {training: False}}
        return {"outputs": {"out": predicted}, "loss": loss, "train_op": train, "inputs": [x, y], **modes}

    return build


class Net(tf.Module):  # type: ignore[misc]
    """The same, written out."""

    def __init__(self, dtype: str, rate: float) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.constant(KERNEL, dtype), name="kernel")
        self.out = tf.Variable(tf.constant(OUT, dtype), name="out")
        self.rate = rate

    @tf.function
    def __call__(self, x: Any, training: bool = False) -> Any:
        state = tf.zeros([tf.shape(x)[0], 5], x.dtype)
        for step in range(4):
            state = tf.tanh(tf.concat([x[:, step], state], 1) @ self.kernel)
            state = tf.nn.dropout(state, self.rate) if training else state
        return (tf.nn.dropout(state, 0.4) if training else state) @ self.out

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        for each, slope in zip([self.kernel, self.out], tape.gradient(loss, [self.kernel, self.out]), strict=True):
            each.assign_sub(0.1 * slope)
        return {"loss": loss}


def module(rate: float = 0.4) -> Callable[..., Any]:
    def build(dtype: str = "float32") -> Any:
        held = Net(dtype, rate)
        return tfport.adapters.tf_module(held, step=held.step, forward=held)

    return build


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 4, 2)).astype("float32")
    return {"x": x, "y": x[:, 1, :1] - x[:, 3, 1:]}


NOT_FED = ("Not controlled", "random numbers that cannot be fed")
CASES = [
    Case("v1", graph(False), module(), batches, equal=True, never=NOT_FED),
    Case("v2", graph(True), module(), batches, equal=True, never=NOT_FED),
    Case("reversed", module(), graph(True), batches, equal=True, never=NOT_FED),
    Case("v1-rate", graph(False), module(0.3), batches, equal=False, rung="forward", never=NOT_FED),
    Case("v2-rate", graph(True), module(0.3), batches, equal=False, rung="forward", never=NOT_FED),
]
