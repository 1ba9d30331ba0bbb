"""Cells of tf.nn.rnn_cell in dynamic_rnn, and ports of them to Keras's own layers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STEPS, INPUTS, UNITS = 5, 4, 3


# --- TF1; these need Keras 2 behind TensorFlow's names ----------------------------------------------------------------
def _graph(dtype: str, network: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """A graph of `network` and a dense layer; it takes TensorFlow and what is read from the end of time."""
    import tensorflow.compat.v1 as tf

    x = tf.placeholder(dtype, [None, STEPS, INPUTS], name="x")
    y = tf.placeholder(dtype, [None, 1], name="y")
    tf.get_variable_scope().set_initializer(tf.random_uniform_initializer(-0.5, 0.5, dtype=dtype))
    outputs = tf.layers.dense(network(tf, x), 1, name="o", kernel_initializer=None)
    loss = tf.reduce_mean(tf.square(outputs - y))
    return {"outputs": {"out": outputs}, "loss": loss, "train_op": tf.train.AdamOptimizer(0.01).minimize(loss)}


def _last(tf: Any, cell: Any, x: Any) -> Any:
    outputs, _ = tf.nn.dynamic_rnn(cell, x, dtype=x.dtype)
    return outputs[:, -1]


def lstm(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, lambda tf, x: _last(tf, tf.nn.rnn_cell.LSTMCell(UNITS, dtype=dtype), x))


def gru(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, lambda tf, x: _last(tf, tf.nn.rnn_cell.GRUCell(UNITS, dtype=dtype), x))


def simple(dtype: str = "float32") -> dict[str, Any]:
    return _graph(dtype, lambda tf, x: _last(tf, tf.nn.rnn_cell.BasicRNNCell(UNITS, dtype=dtype), x))


def stacked(dtype: str = "float32") -> dict[str, Any]:
    def network(tf: Any, x: Any) -> Any:
        cells = [tf.nn.rnn_cell.BasicLSTMCell(UNITS, dtype=dtype) for _ in range(2)]
        return _last(tf, tf.nn.rnn_cell.MultiRNNCell(cells), x)

    return _graph(dtype, network)


def both_ways(dtype: str = "float32") -> dict[str, Any]:
    def network(tf: Any, x: Any) -> Any:
        cells = [tf.nn.rnn_cell.LSTMCell(UNITS, dtype=dtype) for _ in range(2)]
        (forth, back), _ = tf.nn.bidirectional_dynamic_rnn(*cells, x, dtype=x.dtype)
        return tf.concat([forth[:, -1], back[:, 0]], 1)

    return _graph(dtype, network)


def projected(dtype: str = "float32") -> dict[str, Any]:
    def network(tf: Any, x: Any) -> Any:
        return _last(tf, tf.nn.rnn_cell.LSTMCell(5, use_peepholes=True, num_proj=2, dtype=dtype), x)

    return _graph(dtype, network)


# --- Keras 3 ----------------------------------------------------------------------------------------------------------
def _uniform() -> Any:
    import keras

    return keras.initializers.RandomUniform(-0.5, 0.5)


def _model(*layers: Any) -> Any:
    import keras

    last = keras.layers.Dense(1, name="o", kernel_initializer=_uniform())
    model = keras.Sequential([keras.Input([STEPS, INPUTS], name="x"), *layers, last])
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-8), "mse")
    return model


def _layer(name: str, **more: Any) -> Any:
    import keras

    return getattr(keras.layers, name)(UNITS, kernel_initializer=_uniform(), recurrent_initializer=_uniform(), **more)


def keras_lstm() -> Any:
    return _model(_layer("LSTM"))


def keras_gru() -> Any:
    return _model(_layer("GRU", reset_after=False, bias_initializer=GatesAtOne()))


def keras_simple() -> Any:
    return _model(_layer("SimpleRNN"))


def keras_stacked() -> Any:
    return _model(_layer("LSTM", return_sequences=True), _layer("LSTM"))


def keras_both_ways() -> Any:
    import keras

    return _model(keras.layers.Bidirectional(_layer("LSTM")))


class GatesAtOne:
    """TF1 begins the biases of a GRU's gates at 1 and the candidate's at 0; in Keras's order z, r, h."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        bias = np.zeros(shape, dtype or "float32")
        bias[: 2 * UNITS] = 1
        return bias


def keras_projected() -> Any:
    """Peepholes and a projection, which no layer of Keras has, in a cell with matrices of its own for each gate."""
    import keras

    ops, units, width = keras.ops, 5, 2

    class Cell(keras.layers.Layer):  # type: ignore[misc]
        state_size = (width, units)

        def build(self, shape: Any) -> None:
            def add(name: str, *sizes: int, start: Any = None) -> Any:
                return self.add_weight(shape=sizes, initializer=start or _uniform(), name=name)

            self.of_x = {gate: add(f"W{gate}", shape[-1], units) for gate in "figo"}
            self.of_h = {gate: add(f"U{gate}", width, units) for gate in "figo"}
            self.bias = {gate: add(f"b{gate}", units, start="ones" if gate == "f" else "zeros") for gate in "figo"}
            self.peephole = {gate: add(f"peephole_{gate}", units) for gate in "fio"}
            self.projection = add("projection", units, width)

        def call(self, x: Any, states: Any, training: Any = None) -> Any:
            del training
            h, c = states
            z = {
                gate: ops.matmul(x, self.of_x[gate]) + ops.matmul(h, self.of_h[gate]) + self.bias[gate]
                for gate in "figo"
            }
            forget = ops.sigmoid(z["f"] + self.peephole["f"] * c)
            c = forget * c + ops.sigmoid(z["i"] + self.peephole["i"] * c) * ops.tanh(z["g"])
            h = ops.matmul(ops.sigmoid(z["o"] + self.peephole["o"] * c) * ops.tanh(c), self.projection)
            return h, [h, c]

    return _model(keras.layers.RNN(Cell(name="cell")))


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    return {
        "x": generator.normal(size=(8, STEPS, INPUTS)).astype("float32"),
        "y": generator.normal(size=(8, 1)).astype("float32"),
    }
