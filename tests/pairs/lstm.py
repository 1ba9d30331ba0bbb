"""A recurrent classifier of short sequences: Keras 2 (tf_keras), and its port to Keras 3.

The two Kerases have the same gates in the same order; what a port gets wrong is the activation of the gates (the hard
sigmoid, as Keras 1 had it), their order (TF1's cells have i, j, f, o), and what compile was given beside the loss.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tf_keras

from pairs_common import Broken

STEPS, FEATURES, UNITS = 5, 3, 6
BATCH = 8


# --- The original -----------------------------------------------------------------------------------------------------
def legacy(dtype: str = "float32") -> tf_keras.Model:
    inputs = tf_keras.Input([STEPS, FEATURES], name="sequence")
    x = tf_keras.layers.LSTM(UNITS, name="lstm")(inputs)
    outputs = tf_keras.layers.Dense(1, name="score")(x)
    model = tf_keras.Model(inputs, outputs, name="scorer")
    model.compile(optimizer=tf_keras.optimizers.Adam(0.01), loss=tf_keras.losses.BinaryCrossentropy(from_logits=True))
    return model


# --- The port ---------------------------------------------------------------------------------------------------------
class SwappedCell(keras.layers.LSTMCell):  # type: ignore[misc]
    """A cell that reads its kernels in the order of TF1's BasicLSTMCell: input, candidate, forget, output."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, c = states
        z = keras.ops.matmul(inputs, self.kernel) + keras.ops.matmul(h, self.recurrent_kernel) + self.bias
        i, candidate, f, o = keras.ops.split(z, 4, axis=1)
        c = keras.ops.sigmoid(f) * c + keras.ops.sigmoid(i) * keras.ops.tanh(candidate)
        h = keras.ops.sigmoid(o) * keras.ops.tanh(c)
        return h, [h, c]


def build(*, recurrent: Any = None, loss: Any = None, optimizer: Any = None, **lstm: Any) -> keras.Model:
    inputs = keras.Input([STEPS, FEATURES], name="sequence")
    x = (recurrent or keras.layers.LSTM(UNITS, name="lstm", **lstm))(inputs)
    outputs = keras.layers.Dense(1, name="score")(x)
    model = keras.Model(inputs, outputs, name="scorer")
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(0.01),
        loss=loss or keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def modern() -> keras.Model:
    return build()


# --- Ports with one mistake -------------------------------------------------------------------------------------------
def hard_sigmoid() -> keras.Model:
    return build(recurrent_activation="hard_sigmoid")


def relu_state() -> keras.Model:
    return build(activation="relu")


def gate_order() -> keras.Model:
    return build(recurrent=keras.layers.RNN(SwappedCell(UNITS), name="lstm"))


def backwards() -> keras.Model:
    return build(go_backwards=True)


def smoothed_labels() -> keras.Model:
    return build(loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1))


def clipped() -> keras.Model:
    return build(optimizer=keras.optimizers.Adam(0.01, clipnorm=0.05))


def forget_bias_zero() -> keras.Model:
    return build(unit_forget_bias=False)


BROKEN = (
    Broken("hard_sigmoid", "the gates are hard sigmoids, as Keras 1 had them", "forward", None, "score", slow=True),
    Broken("relu_state", "the candidate goes through relu, not tanh", "forward", None, "score", slow=True),
    Broken("gate_order", "the gates are read in the order of TF1's cells", "forward", None, "score", slow=True),
    Broken("backwards", "the sequence is read from its end", "forward", None, "score", node="Reverse", slow=True),
    Broken("smoothed_labels", "the labels are smoothed", "loss", "train", "train/", slow=True),
    Broken("clipped", "each gradient is clipped by its norm", "gradient", "train", "lstm", slow=True),
    Broken("forget_bias_zero", "the forget gates' biases start at 0, not 1", "initialisation", None, "bias"),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([11, step])
    sequence = draw.normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    return {"sequence": sequence, "label": (sequence.sum(axis=(1, 2)) > 0).astype(np.float32)[:, None]}
