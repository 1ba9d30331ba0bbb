"""Layouts: cells of recurrent networks, joined and split kernels, images flattened in another order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import tfport.adapters
from cases.common import Case

Factory = Callable[..., Any]
STEPS, INPUTS, UNITS = 4, 4, 3
ops, layers = keras.ops, keras.layers


def uniform(limit: float = 0.5) -> Any:
    return keras.initializers.RandomUniform(-limit, limit)


def _drawn(name: str, shape: list[int], dtype: str) -> Any:
    return tf1.get_variable(name, shape, dtype, initializer=tf1.random_uniform_initializer(-0.5, 0.5, dtype=dtype))


def _zeros(name: str, shape: list[int], dtype: str, value: float = 0.0) -> Any:
    return tf1.get_variable(name, shape, dtype, initializer=tf1.constant_initializer(value))


def graph(shape: list[int], network: Callable[[Any, str], Any]) -> Factory:
    """A TF1 graph of a network and a dense layer, trained by Adam."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        x = tf1.placeholder(dtype, [None, *shape], name="x")
        y = tf1.placeholder(dtype, [None, 1], name="y")
        hidden = network(x, dtype)
        kernel = _drawn("out/kernel", [int(hidden.shape[-1]), 1], dtype)
        outputs = tf1.matmul(hidden, kernel) + _zeros("out/bias", [1], dtype)
        loss = tf1.reduce_mean(tf1.square(outputs - y))
        return {"outputs": {"out": outputs}, "loss": loss, "train_op": tf1.train.AdamOptimizer(0.01).minimize(loss)}

    return build


def model(shape: list[int], make: Callable[[], list[Any]]) -> Factory:
    """The port in Keras."""

    def build() -> Any:
        found = keras.Sequential(
            [keras.Input(shape, name="x"), *make(), layers.Dense(1, kernel_initializer=uniform(), name="out")]
        )
        found.compile(keras.optimizers.Adam(0.01, epsilon=1e-8), "mse")
        return found

    return build


def batches(*shape: int) -> Callable[[int], dict[str, Any]]:
    def batch(step: int) -> dict[str, Any]:
        generator = np.random.default_rng(step)
        return {
            "x": generator.normal(size=(8, *shape)).astype("float32"),
            "y": generator.normal(size=(8, 1)).astype("float32"),
        }

    return batch


# --- Cells ------------------------------------------------------------------------------------------------------------
def lstm(forget_bias: float = 1.0, name: str = "cell") -> Callable[[Any, str], Any]:
    """TF1's LSTM cell: one kernel, gates i, c, f, o, and the forget gate's bias added at run time."""

    def network(x: Any, dtype: str) -> Any:
        kernel = _drawn(f"{name}/kernel", [INPUTS + UNITS, 4 * UNITS], dtype)
        bias = _zeros(f"{name}/bias", [4 * UNITS], dtype)
        h = c = tf1.zeros([tf1.shape(x)[0], UNITS], dtype)
        for t in range(STEPS):
            i, j, f, o = tf1.split(tf1.matmul(tf1.concat([x[:, t], h], 1), kernel) + bias, 4, axis=1)
            c = tf1.sigmoid(f + forget_bias) * c + tf1.sigmoid(i) * tf1.tanh(j)
            h = tf1.sigmoid(o) * tf1.tanh(c)
        return h

    return network


def gru(x: Any, dtype: str) -> Any:
    """TF1's GRU cell: the gates r and u apart from the candidate."""
    gates = _drawn("gates/kernel", [INPUTS + UNITS, 2 * UNITS], dtype), _zeros("gates/bias", [2 * UNITS], dtype)
    candidate = _drawn("candidate/kernel", [INPUTS + UNITS, UNITS], dtype), _zeros("candidate/bias", [UNITS], dtype)
    h = tf1.zeros([tf1.shape(x)[0], UNITS], dtype)
    for t in range(STEPS):
        r, u = tf1.split(tf1.sigmoid(tf1.matmul(tf1.concat([x[:, t], h], 1), gates[0]) + gates[1]), 2, axis=1)
        c = tf1.tanh(tf1.matmul(tf1.concat([x[:, t], r * h], 1), candidate[0]) + candidate[1])
        h = u * h + (1 - u) * c
    return h


def both_ways(x: Any, dtype: str) -> Any:
    """Two LSTM cells, one of which reads from the end."""
    return tf1.concat([lstm(name="fw")(x, dtype), lstm(name="bw")(tf1.reverse(x, [1]), dtype)], 1)


def by_gate(order: str, biases: int) -> Callable[[Any, str], Any]:
    """An LSTM with matrices of its own for each gate, and one bias a gate or two."""

    def network(x: Any, dtype: str) -> Any:
        gates: dict[str, list[Any]] = {}
        for gate in order:
            gates[gate] = [_drawn(f"W{gate}", [INPUTS, UNITS], dtype), _drawn(f"U{gate}", [UNITS, UNITS], dtype)]
            value = 1.0 / biases if gate == "f" else 0.0
            gates[gate] += [_zeros(f"b{gate}{n}", [UNITS], dtype, value) for n in range(biases)]
        h = c = tf1.zeros([tf1.shape(x)[0], UNITS], dtype)
        for t in range(STEPS):
            z = {
                gate: tf1.matmul(x[:, t], w) + tf1.matmul(h, u) + sum(bias[1:], bias[0])
                for gate, (w, u, *bias) in gates.items()
            }
            c = tf1.sigmoid(z["f"]) * c + tf1.sigmoid(z["i"]) * tf1.tanh(z["c"])
            h = tf1.sigmoid(z["o"]) * tf1.tanh(c)
        return h

    return network


def keras_lstm(**more: Any) -> Any:
    return layers.LSTM(UNITS, kernel_initializer=uniform(), recurrent_initializer=uniform(), **more)


def keras_gru(**more: Any) -> Any:
    return layers.GRU(UNITS, kernel_initializer=uniform(), recurrent_initializer=uniform(), **more)


def torch_gru(dtype: str = "float32") -> Any:
    """PyTorch's GRU, written out: kernels [3 units, in], gates r, z, n, two biases."""
    return tfport.adapters.tf_module(module := TorchGru(dtype), step=module.step, forward=module)


class TorchGru(tf.Module):  # type: ignore[misc]
    """See `torch_gru`."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        shapes = {"weight_ih": [3 * UNITS, INPUTS], "weight_hh": [3 * UNITS, UNITS], "weight": [1, UNITS]}
        self.held = {name: tf.Variable(uniform()(shape, dtype=dtype), name=name) for name, shape in shapes.items()}
        for name, size in (("bias_ih", 3 * UNITS), ("bias_hh", 3 * UNITS), ("bias", 1)):
            self.held[name] = tf.Variable(tf.zeros([size], dtype), name=name)
        self.optimizer = keras.optimizers.Adam(0.01, epsilon=1e-8)
        self.optimizer.build(list(self.held.values()))

    @tf.function
    def __call__(self, x: Any) -> Any:
        v = self.held
        h = tf.zeros([tf.shape(x)[0], UNITS], x.dtype)
        for t in range(STEPS):
            from_x = tf.split(tf.matmul(x[:, t], v["weight_ih"], transpose_b=True) + v["bias_ih"], 3, axis=1)
            from_h = tf.split(tf.matmul(h, v["weight_hh"], transpose_b=True) + v["bias_hh"], 3, axis=1)
            r, z = tf.sigmoid(from_x[0] + from_h[0]), tf.sigmoid(from_x[1] + from_h[1])
            h = (1 - z) * tf.tanh(from_x[2] + r * from_h[2]) + z * h
        return tf.matmul(h, v["weight"], transpose_b=True) + v["bias"]

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        held = list(self.held.values())
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.apply(tape.gradient(loss, held), held)
        return loss


# --- Other kernels ----------------------------------------------------------------------------------------------------
def grouped(x: Any, dtype: str) -> Any:
    """A convolution in two groups, each with a kernel of its own."""
    parts = [
        tf1.nn.conv2d(part, _drawn(f"group{n}/kernel", [2, 2, 2, 3], dtype), 1, "VALID")
        for n, part in enumerate(tf1.split(x, 2, axis=3))
    ]
    return tf1.reduce_mean(tf1.concat(parts, 3) + _zeros("group_bias", [6], dtype), [1, 2])


def separable(x: Any, dtype: str) -> Any:
    """A depthwise convolution [2, 2, 4, 2] and a pointwise one."""
    return tf1.reduce_mean(
        tf1.nn.separable_conv2d(
            x, _drawn("depthwise", [2, 2, 4, 2], dtype), _drawn("pointwise", [1, 1, 8, 5], dtype), [1, 1, 1, 1], "VALID"
        ),
        [1, 2],
    )


def flattened(x: Any, dtype: str) -> Any:
    """A dense layer behind an image, channels last."""
    return tf1.tanh(tf1.matmul(tf1.reshape(x, [-1, 3 * 5 * 4]), _drawn("dense/kernel", [3 * 5 * 4, 6], dtype)))


def queries(x: Any, dtype: str) -> Any:
    """Attention whose queries, keys and values are one kernel."""
    q, k, v = tf1.split(tf1.tensordot(x, _drawn("qkv", [INPUTS, 3 * UNITS], dtype), 1), 3, axis=2)
    return tf1.reduce_mean(tf1.matmul(tf1.nn.softmax(tf1.matmul(q, k, transpose_b=True)), v), 1)


class Attention(keras.layers.Layer):  # type: ignore[misc]
    """The same with three kernels, the values' first."""

    def build(self, shape: Any) -> None:
        for name in ("value", "query", "key"):
            kernel = self.add_weight(shape=[shape[-1], UNITS], initializer=uniform(), name=name)
            setattr(self, name, kernel)

    def call(self, x: Any) -> Any:
        q, k, v = (ops.tensordot(x, kernel, 1) for kernel in (self.query, self.key, self.value))
        return ops.mean(ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1)))), v), 1)


SEQUENCE, IMAGE = [STEPS, INPUTS], [3, 5, 4]
ORDER = r"forward pass: gates taken in the order "
CASES = [
    Case(
        "TF1's LSTM in Keras",
        graph(SEQUENCE, lstm()),
        model(SEQUENCE, lambda: [keras_lstm()]),
        batches(*SEQUENCE),
        equal=True,
        says=(
            r"cell/kernel \(7, 12\) -> \S*/kernel \(4, 12\) \[columns 0 to 2, 6 to 8, 3 to 5, 9 to 11 of rows 0 to 3",
            r"1 added to elements 6 to 8",
            ORDER + "1, 3, 2, 4",
            r"4 of 4 variables",
        ),
    ),
    Case(
        "the forget bias is not taken over",
        graph(SEQUENCE, lstm()),
        model(SEQUENCE, lambda: [keras_lstm(unit_forget_bias=False)]),
        batches(*SEQUENCE),
        equal=False,
        rung="forward",
        says=(
            "gates taken in the order 1, 3, 2, 4; not settled",
            r"\(AddV2, term 1, layouts.py:\d+\) is only in the original",
        ),
        never=("added to elements",),
    ),
    Case(
        "TF1's GRU in Keras",
        graph(SEQUENCE, gru),
        model(SEQUENCE, lambda: [keras_gru(reset_after=False)]),
        batches(*SEQUENCE),
        equal=True,
        says=(ORDER + "2, 1, 3",),
    ),
    Case(
        "a GRU that resets behind its kernel",
        graph(SEQUENCE, gru),
        model(SEQUENCE, lambda: [keras_gru(reset_after=True)]),
        batches(*SEQUENCE),
        equal=False,
        rung="forward",
    ),
    Case(
        "PyTorch's GRU in Keras",
        torch_gru,
        model(SEQUENCE, lambda: [keras_gru()]),
        batches(*SEQUENCE),
        equal=True,
        says=(ORDER + "2, 1, 3", r"bias_hh \(9,\) -> \S*/bias \(2, 9\)"),
    ),
    Case(
        "both ways",
        graph(SEQUENCE, both_ways),
        model(SEQUENCE, lambda: [layers.Bidirectional(keras_lstm())]),
        batches(*SEQUENCE),
        equal=True,
        says=(r"fw/bias \(12,\) -> \S*forward\S*/bias",),
    ),
    Case(
        "matrices of their own for each gate",
        graph(SEQUENCE, by_gate("ofic", 1)),
        model(SEQUENCE, lambda: [keras_lstm()]),
        batches(*SEQUENCE),
        equal=True,
        says=(ORDER + "3, 2, 4, 1",),
    ),
    Case(
        "two biases for one",
        graph(SEQUENCE, by_gate("ifco", 2)),
        model(SEQUENCE, lambda: [keras_lstm()]),
        batches(*SEQUENCE),
        equal=False,
        rung="update",
        says=("added up with others", "a sum of two moves twice as far as one variable"),
    ),
    Case(
        "groups of a convolution",
        graph(IMAGE, grouped),
        model(
            IMAGE,
            lambda: [
                layers.Conv2D(6, 2, groups=2, kernel_initializer=uniform()),
                layers.GlobalAveragePooling2D(),
            ],
        ),
        batches(*IMAGE),
        equal=True,
    ),
    Case(
        "a separable convolution as two",
        graph(IMAGE, separable),
        model(
            IMAGE,
            lambda: [
                layers.Conv2D(8, 2, groups=4, use_bias=False, kernel_initializer=uniform()),
                layers.Conv2D(5, 1, use_bias=False, kernel_initializer=uniform()),
                layers.GlobalAveragePooling2D(),
            ],
        ),
        batches(*IMAGE),
        equal=True,
    ),
    Case(
        "a dense layer behind channels first",
        graph(IMAGE, flattened),
        model(
            IMAGE,
            lambda: [
                layers.Permute((3, 1, 2)),
                layers.Flatten(),
                layers.Dense(6, "tanh", use_bias=False, kernel_initializer=uniform()),
            ],
        ),
        batches(*IMAGE),
        equal=True,
        says=(r"seen as \(3, 5, 4, 6\); transposed \(2, 0, 1, 3\); reshaped",),
    ),
    Case(
        "queries, keys and values",
        graph(SEQUENCE, queries),
        model(SEQUENCE, lambda: [Attention()]),
        batches(*SEQUENCE),
        equal=True,
    ),
]
