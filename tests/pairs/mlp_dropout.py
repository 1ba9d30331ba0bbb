"""A classifier of two hidden layers with dropout: a TF1 graph in the style of slim, and its port to Keras 3.

What the port has to know: `keep_prob` is one minus Keras's rate, slim's L2 counts one half of the squares, TF1's Adam
has another epsilon, and the leaky slope is not Keras's.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow.compat.v1 as tf

from pairs_common import Broken

FEATURES, HIDDEN, CLASSES = 12, 8, 4
BATCH = 16


# --- The original -----------------------------------------------------------------------------------------------------
def fully_connected(inputs: Any, units: int, scope: str, activation: Any = None, l2: float = 0.0) -> Any:
    """What slim's layer of that name does, with its names of variables."""
    with tf.variable_scope(scope):
        weights = tf.get_variable(
            "weights",
            [inputs.shape[-1], units],
            inputs.dtype,
            initializer=tf.glorot_uniform_initializer(),
            regularizer=(lambda kernel: l2 * tf.nn.l2_loss(kernel)) if l2 else None,
        )
        biases = tf.get_variable("biases", [units], inputs.dtype, initializer=tf.zeros_initializer())
        outputs = tf.nn.bias_add(tf.matmul(inputs, weights), biases)
        return outputs if activation is None else activation(outputs)


def legacy(dtype: str = "float32") -> dict[str, Any]:
    x = tf.placeholder(dtype, [None, FEATURES], name="x")
    labels = tf.placeholder(tf.int64, [None], name="labels")
    keep_prob = tf.placeholder(dtype, [], name="keep_prob")
    with tf.variable_scope("mlp"):
        net = fully_connected(x, HIDDEN, "fc1", lambda each: tf.nn.leaky_relu(each, alpha=0.2), l2=5e-3)
        net = tf.nn.dropout(net, keep_prob=keep_prob)
        net = fully_connected(net, HIDDEN, "fc2", tf.nn.tanh, l2=5e-3)
        net = tf.nn.dropout(net, keep_prob=keep_prob)
        logits = fully_connected(net, CLASSES, "logits")
    xent = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(xent) + tf.add_n(tf.losses.get_regularization_losses())
    train_op = tf.train.AdamOptimizer(0.001).minimize(loss, global_step=tf.train.get_or_create_global_step())
    return {
        "outputs": {"logits": logits},
        "loss": loss,
        "train_op": train_op,
        "training": {keep_prob: 0.7},
        "inference": {keep_prob: 1.0},
    }


# --- The port ---------------------------------------------------------------------------------------------------------
def build(
    *,
    rate: float = 0.3,
    slope: float = 0.2,
    l2: float = 2.5e-3,
    second: str | None = "tanh",
    last: str | None = None,
    epsilon: float = 1e-8,
    learning_rate: float = 0.001,
    loss: Any = None,
) -> keras.Model:
    decay = keras.regularizers.L2(l2)
    model = keras.Sequential(
        [
            keras.Input([FEATURES], name="x"),
            keras.layers.Dense(HIDDEN, kernel_regularizer=decay, name="hidden1"),
            keras.layers.LeakyReLU(negative_slope=slope, name="leaky"),
            keras.layers.Dropout(rate, name="drop1"),
            keras.layers.Dense(HIDDEN, activation=second, kernel_regularizer=decay, name="hidden2"),
            keras.layers.Dropout(rate, name="drop2"),
            keras.layers.Dense(CLASSES, activation=last, name="logits"),
        ],
        name="classifier",
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, epsilon=epsilon),
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def modern() -> keras.Model:
    return build()


# --- Ports with one mistake -------------------------------------------------------------------------------------------
def keep_prob_as_rate() -> keras.Model:
    return build(rate=0.7)


def default_slope() -> keras.Model:
    return build(slope=0.3)


def no_activation() -> keras.Model:
    return build(second=None)


def double_softmax() -> keras.Model:
    return build(last="softmax")


def whole_l2() -> keras.Model:
    return build(l2=5e-3)


def summed_loss() -> keras.Model:
    return build(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"))


def default_epsilon() -> keras.Model:
    return build(epsilon=1e-7)


def tenfold_rate() -> keras.Model:
    return build(learning_rate=0.01)


BROKEN = (
    Broken("keep_prob_as_rate", "Dropout(0.7) for keep_prob=0.7", "forward", None, "training/logits", beside="Sub"),
    Broken(
        "default_slope",
        "Keras 3's LeakyReLU has slope 0.3, TF1's 0.2",
        "forward",
        None,
        "logits",
        node="LeakyRelu",
        slow=True,
    ),
    Broken("no_activation", "the second layer lost its tanh", "forward", None, "logits", beside="Tanh", slow=True),
    Broken(
        "double_softmax",
        "a softmax in the last layer, which Keras's loss of logits sees through",
        "forward",
        None,
        "logits",
        node="Softmax",
        slow=True,
    ),
    Broken("whole_l2", "Keras's L2 lacks the factor 1/2 of tf.nn.l2_loss", "loss", "train", "train/", beside="L2Loss"),
    Broken("summed_loss", "the sum over the batch, not the mean", "loss", "train", "train/", node="Sum", slow=True),
    Broken("default_epsilon", "Keras's Adam has epsilon 1e-7, TF1's 1e-8", "update", "train", "mlp/"),
    Broken("tenfold_rate", "0.01 for 0.001", "update", "train", "mlp/", slow=True),
)


def batches(step: int) -> dict[str, Any]:
    draw = np.random.default_rng([7, step])
    x = draw.normal(size=(BATCH, FEATURES)).astype(np.float32)
    return {"x": x, "labels": x[:, :CLASSES].argmax(axis=1).astype(np.int64)}
