"""Clipping, loss scaling, averaging and weight decay, inside of one side's optimizer and outside of the other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

import tfport.adapters
from cases.common import Case

RATE, DECAY, LARGE = 0.1, 0.1, 1e6


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    x = generator.normal(size=(16, 5)).astype("float32")
    return {"x": x, "y": (3 * x[:, :1] - x[:, 1:2]).astype("float32")}


# --- TF1 graphs -------------------------------------------------------------------------------------------------------
def graph(optimizer: Callable[[], Any], change: Callable[[list[Any]], list[Any]] = list, l2: float = 0.0) -> Any:
    """A regression whose gradients are changed before they are applied."""

    def build(dtype: str = "float32") -> dict[str, Any]:
        x = tf1.placeholder(dtype, [None, 5], name="x")
        y = tf1.placeholder(dtype, [None, 1], name="y")
        glorot, zeros = tf1.glorot_uniform_initializer(), tf1.zeros_initializer()
        kernel = tf1.get_variable("h/kernel", [5, 4], dtype, glorot)
        bias = tf1.get_variable("h/bias", [4], dtype, zeros)
        last_kernel = tf1.get_variable("o/kernel", [4, 1], dtype, glorot)
        last_bias = tf1.get_variable("o/bias", [1], dtype, zeros)
        output = tf1.matmul(tf1.tanh(tf1.matmul(x, kernel) + bias), last_kernel) + last_bias
        loss = tf1.reduce_mean(tf1.square(output - y))
        if l2:
            loss += l2 * tf1.add_n([tf1.nn.l2_loss(each) for each in tf1.trainable_variables()])
        rule = optimizer()
        pairs = rule.compute_gradients(loss)
        changed = change([gradient for gradient, _ in pairs])
        train = rule.apply_gradients(list(zip(changed, [variable for _, variable in pairs], strict=True)))
        return {"outputs": {"out": output}, "loss": loss, "train_op": train}

    return build


def descent() -> Any:
    return tf1.train.GradientDescentOptimizer(RATE)


def adam() -> Any:
    return tf1.train.AdamOptimizer(0.01)


def by_global_norm(norm: float) -> Callable[[list[Any]], list[Any]]:
    return lambda gradients: list(tf1.clip_by_global_norm(gradients, norm)[0])


def by_norm(norm: float) -> Callable[[list[Any]], list[Any]]:
    return lambda gradients: [tf1.clip_by_norm(each, norm) for each in gradients]


def by_value(bound: float) -> Callable[[list[Any]], list[Any]]:
    return lambda gradients: [tf1.clip_by_value(each, -bound, bound) for each in gradients]


# --- Compiled models --------------------------------------------------------------------------------------------------
def model(package: Any, optimizer: Callable[[], Any], regularizer: Callable[[], Any] | None = None) -> Any:
    """The port, with whatever its optimizer does inside."""

    def build() -> Any:
        more = {} if regularizer is None else {"kernel_regularizer": regularizer(), "bias_regularizer": regularizer()}
        layers = package.layers
        first = package.Input([5], name="x") if package is keras else layers.InputLayer([5], name="x")
        dense = [layers.Dense(4, activation="tanh", name="h", **more), layers.Dense(1, name="o", **more)]
        made = package.Sequential([first, *dense])
        made.compile(optimizer(), "mse")
        return made

    return build


def sgd(**numbers: Any) -> Any:
    return model(keras, lambda: keras.optimizers.SGD(RATE, **numbers))


def scaled() -> Any:
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=1024.0)


# --- Loops of one's own -----------------------------------------------------------------------------------------------
class Regression(tf.Module):  # type: ignore[misc]
    """The port with a tape."""

    def __init__(self, optimizer: Any, dtype: str) -> None:
        super().__init__()
        glorot = keras.initializers.GlorotUniform()
        self.weights = [
            tf.Variable(glorot([5, 4], dtype), name="h_kernel"),
            tf.Variable(tf.zeros([4], dtype), name="h_bias"),
            tf.Variable(glorot([4, 1], dtype), name="o_kernel"),
            tf.Variable(tf.zeros([1], dtype), name="o_bias"),
        ]
        self.optimizer = optimizer
        self.optimizer.build(self.weights)

    @tf.function
    def __call__(self, x: Any) -> Any:
        kernel, bias, last_kernel, last_bias = self.weights
        return tf.tanh(x @ kernel + bias) @ last_kernel + last_bias

    def loss(self, x: Any, y: Any) -> Any:
        return tf.reduce_mean(tf.square(self(x) - y))


def halves(dtype: str = "float32") -> Any:
    """The gradients of two halves of the batch are averaged."""
    port = Regression(keras.optimizers.SGD(RATE), dtype)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        found = []
        for part in (slice(0, 8), slice(8, 16)):
            with tf.GradientTape() as tape:
                loss = port.loss(x[part], y[part])
            found.append((loss, tape.gradient(loss, port.weights)))
        (one, left), (other, right) = found
        port.optimizer.apply([(a + b) / 2 for a, b in zip(left, right, strict=True)], port.weights)
        return (one + other) / 2

    return tfport.adapters.tf_module(port, step=step, forward=port)


def unscaled(dtype: str = "float32") -> Any:
    """The loss is scaled up and its gradients down again."""
    port = Regression(keras.optimizers.SGD(RATE), dtype)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = port.loss(x, y)
            larger = 1024.0 * loss
        port.optimizer.apply([each / 1024.0 for each in tape.gradient(larger, port.weights)], port.weights)
        return loss

    return tfport.adapters.tf_module(port, step=step, forward=port)


def penalised(dtype: str = "float32") -> Any:
    """What the graph has in its loss is added to the gradients."""
    port = Regression(keras.optimizers.Adam(0.01, epsilon=1e-8), dtype)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = port.loss(x, y)
        gradients = tape.gradient(loss, port.weights)
        decayed = [each + DECAY * weight for each, weight in zip(gradients, port.weights, strict=True)]
        port.optimizer.apply(decayed, port.weights)
        return loss

    return tfport.adapters.tf_module(port, step=step, forward=port)


def decayed_by_hand(dtype: str = "float32") -> Any:
    """AdamW, of which the decay is written out."""
    port = Regression(keras.optimizers.Adam(0.01, epsilon=1e-8), dtype)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = port.loss(x, y)
        gradients = tape.gradient(loss, port.weights)
        for weight in port.weights:
            weight.assign_sub(weight * (0.01 * DECAY))
        port.optimizer.apply(gradients, port.weights)
        return loss

    return tfport.adapters.tf_module(port, step=step, forward=port)


def adamw() -> Any:
    return keras.optimizers.AdamW(0.01, weight_decay=DECAY, epsilon=1e-8)


def l2() -> Any:
    return keras.regularizers.L2(DECAY / 2)


DIFFERENT = r"differs from"
NOT_SEEN = r"was not seen"
CASES = [
    Case(
        "global norm", graph(descent, by_global_norm(1.0)), sgd(global_clipnorm=1.0), batches, True, never=(NOT_SEEN,)
    ),
    Case("norm", graph(descent, by_norm(0.5)), sgd(clipnorm=0.5), batches, True, never=(NOT_SEEN,)),
    Case("value", graph(descent, by_value(0.1)), sgd(clipvalue=0.1), batches, True, never=(r"\binf\b", NOT_SEEN)),
    Case("another norm", graph(descent, by_global_norm(1.0)), sgd(clipnorm=1.0), batches, False, "gradient"),
    Case("never clipped", graph(descent, by_value(LARGE)), sgd(clipvalue=LARGE), batches, True, says=(NOT_SEEN,)),
    Case("clips alone", graph(descent), sgd(clipnorm=LARGE), batches, False, says=(DIFFERENT, r"clipnorm 1e\+06")),
    Case(
        "inside of both",
        model(tf_keras, lambda: tf_keras.optimizers.SGD(RATE, global_clipnorm=1.0)),
        sgd(global_clipnorm=1.0),
        batches,
        True,
    ),
    Case(
        "inside of a legacy optimizer",
        model(tf_keras, lambda: tf_keras.optimizers.legacy.SGD(RATE, clipvalue=0.1)),
        sgd(clipvalue=0.1),
        batches,
        True,
    ),
    Case("loss scaled inside", graph(descent), model(keras, scaled), batches, True),
    Case("loss scaled outside", graph(descent), unscaled, batches, True, says=(r"1024 times", r"decides nothing")),
    Case("averaged outside", graph(descent), halves, batches, True, says=(r"2 times", r"decides nothing")),
    Case("L2 outside of the loss", graph(adam, l2=DECAY), penalised, batches, True, says=(r"decides nothing",)),
    Case(
        "L2", graph(adam, l2=DECAY), model(keras, lambda: keras.optimizers.Adam(0.01, epsilon=1e-8), l2), batches, True
    ),
    Case("decay for L2", graph(adam, l2=DECAY), model(keras, adamw), batches, False, says=(DIFFERENT,)),
    Case("decay by hand", decayed_by_hand, model(keras, adamw), batches, True),
    Case("no decay", graph(adam), model(keras, adamw), batches, False, says=(r"weight_decay 0\.1",)),
]
