"""Loops: what differs inside of one is named, iteration by iteration, however each side writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

from cases.common import Case

Factory = Callable[..., Any]
WORDS, STEPS, UNITS = 12, 5, 6


def _trained(outputs: Any, loss: Any) -> dict[str, Any]:
    optimizer = tf1.train.GradientDescentOptimizer(0.1)
    return {"outputs": {"out": outputs}, "loss": loss, "train_op": optimizer.minimize(loss)}


# --- Loops against loops that are unrolled ----------------------------------------------------------------------------
def legacy(way: str) -> Factory:
    """A recurrent network over one-hot words: "while", "while of TF1's kind" or "scan of TF1's kind"."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        words = tf1.placeholder(tf1.int32, [None, STEPS], name="words")
        y = tf1.placeholder(dtype, [None, 1], name="y")
        glorot = tf1.glorot_uniform_initializer()
        kernel = tf1.get_variable("kernel", [WORDS, WORDS], dtype, initializer=glorot)
        out = tf1.get_variable("out", [WORDS, 1], dtype, initializer=glorot)
        x = tf1.one_hot(words, WORDS, dtype=dtype)
        first = tf1.zeros_like(x[:, 0])

        def once(t: Any, h: Any) -> tuple[Any, Any]:
            return t + 1, tf1.tanh(tf1.matmul(h + x[:, t], kernel))

        before = tf1.control_flow_v2_enabled()
        try:
            if way != "while":
                tf1.disable_control_flow_v2()
            if way == "scan of TF1's kind":
                by_step = tf1.transpose(x, [1, 0, 2])
                h = tf1.scan(lambda h, x: tf1.tanh(tf1.matmul(h + x, kernel)), by_step, first)[-1]
            else:
                h = tf1.while_loop(lambda t, h: t < STEPS, once, (0, first))[1]
            outputs = tf1.matmul(h, out)
            return _trained(outputs, tf1.reduce_mean(tf1.square(outputs - y)))
        finally:
            if before:
                tf1.enable_control_flow_v2()

    return build


class Recurrent(tf.Module):  # type: ignore[misc]
    """The port, unrolled or in a loop, with an activation of its own."""

    def __init__(self, dtype: str, activation: Any, looped: bool) -> None:
        super().__init__()
        self.activation, self.dtype, self.looped = activation, dtype, looped
        glorot = keras.initializers.GlorotUniform()
        self.kernel = tf.Variable(glorot([WORDS, WORDS], dtype=dtype), name="kernel")
        self.out = tf.Variable(glorot([WORDS, 1], dtype=dtype), name="out")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.optimizer.build([self.kernel, self.out])

    @tf.function
    def __call__(self, words: Any) -> Any:
        x = tf.one_hot(words, WORDS, dtype=self.dtype)
        h = tf.zeros_like(x[:, 0])
        if self.looped:
            for t in tf.range(STEPS):
                h = self.activation((h + x[:, t]) @ self.kernel)
        else:
            for t in range(STEPS):
                h = self.activation((h + x[:, t]) @ self.kernel)
        return h @ self.out

    @tf.function
    def step(self, words: Any, y: Any) -> Any:
        variables = [self.kernel, self.out]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(words) - y))
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def port(activation: Any, looped: bool) -> Factory:
    def build(dtype: str = "float32") -> Any:
        module = Recurrent(dtype, activation, looped)
        return {"module": module, "step": module.step}

    return build


def words(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {
        "words": generator.integers(1, WORDS, size=(8, STEPS)).astype("int32"),
        "y": generator.normal(size=(8, 1)).astype("float32"),
    }


# --- An LSTM, unrolled, against a layer of Keras's --------------------------------------------------------------------
def lstm(dtype: str = "float32") -> dict[str, Any]:
    x = tf1.placeholder(dtype, [None, STEPS, 4], name="x")
    y = tf1.placeholder(dtype, [None, 1], name="y")
    glorot, zeros = tf1.glorot_uniform_initializer(), tf1.zeros_initializer()
    kernel = tf1.get_variable("cell/kernel", [4 + UNITS, 4 * UNITS], dtype, initializer=glorot)
    bias = tf1.get_variable("cell/bias", [4 * UNITS], dtype, initializer=zeros)
    h = c = tf1.zeros([tf1.shape(x)[0], UNITS], dtype)
    for t in range(STEPS):
        i, j, f, o = tf1.split(tf1.matmul(tf1.concat([x[:, t], h], 1), kernel) + bias, 4, axis=1)
        c = tf1.sigmoid(f + 1.0) * c + tf1.sigmoid(i) * tf1.tanh(j)
        h = tf1.sigmoid(o) * tf1.tanh(c)
    out = tf1.get_variable("o/kernel", [UNITS, 1], dtype, initializer=glorot)
    outputs = tf1.matmul(h, out)
    return _trained(outputs, tf1.reduce_mean(tf1.square(outputs - y)))


class Cell(keras.layers.Layer):  # type: ignore[misc]
    """TF1's LSTM cell."""

    def __init__(self, forget_bias: float, **more: Any) -> None:
        super().__init__(**more)
        self.state_size, self.forget_bias = [UNITS, UNITS], forget_bias

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=[shape[-1] + UNITS, 4 * UNITS], initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=[4 * UNITS], initializer="zeros", name="bias")

    def call(self, x: Any, states: Any, training: Any = None) -> Any:
        del training
        ops = keras.ops
        h, c = states
        gates = ops.matmul(ops.concatenate([x, h], 1), self.kernel) + self.bias
        i, j, f, o = ops.split(gates, 4, axis=1)
        c = ops.sigmoid(f + self.forget_bias) * c + ops.sigmoid(i) * ops.tanh(j)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]


def lstm_port(forget_bias: float) -> Factory:
    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input([STEPS, 4], name="x"),
                keras.layers.RNN(Cell(forget_bias, name="cell"), name="rnn"),
                keras.layers.Dense(1, use_bias=False, name="o"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    return build


def sequences(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {
        "x": generator.normal(size=(8, STEPS, 4)).astype("float32"),
        "y": generator.normal(size=(8, 1)).astype("float32"),
    }


SIGMOID = r"the port has \S*Sigmoid\S* (\[iteration 0\] )?\(Sigmoid, loops.py:\d+\) where the original has "
TANH = r"\S*while\S*/Tanh \[iteration 0\] \(Tanh, loops.py:\d+\)"
CASES = [
    Case("right", legacy("while of TF1's kind"), port(tf.tanh, False), words, equal=True),
    *(
        Case(
            f"{way}, {'in a loop' if looped else 'unrolled'}",
            legacy(way),
            port(tf.sigmoid, looped),
            words,
            equal=False,
            rung="forward",
            says=(SIGMOID + (TANH if way != "scan of TF1's kind" else r"\S*Tanh \[iteration 0\] \(Tanh"),),
        )
        for way, looped in (
            ("while of TF1's kind", False),
            ("while", True),
            ("scan of TF1's kind", False),
        )
    ),
    Case("lstm", lstm, lstm_port(1.0), sequences, equal=True),
    Case(
        "forget bias",
        lstm,
        lstm_port(0.0),
        sequences,
        equal=False,
        rung="forward",
        says=(r"term is 1 in the original and 0 in the port", r"cell\S*/add_1 \[iteration 1\] \(AddV2, loops.py:\d+\)"),
        never=(r"Transpose",),
    ),
]
