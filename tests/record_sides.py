"""What record_original.py is run on in tests: originals as TF1 code writes them, and their ports.

`gan` has two phases that share no optimizer, noise, a learning rate that decays, and ops of several kinds that write.
`embedding` has an Adam on rows, a shuffle and integers. Each port is right or has one mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

BATCH, WIDTH, LATENT = 8, 5, 3


# --- Originals --------------------------------------------------------------------------------------------------------
def gan() -> dict[str, Any]:
    real = tf1.placeholder(tf.float32, [None, WIDTH], name="real")
    noise = tf1.random_normal([BATCH, LATENT])
    step = tf1.get_variable("step", [], tf.int64, tf1.zeros_initializer(), trainable=False)
    w_g = tf1.get_variable("g/w", [LATENT, WIDTH])
    w_d, b_d = tf1.get_variable("d/w", [WIDTH, 1]), tf1.get_variable("d/b", [1], initializer=tf1.zeros_initializer())
    fake = tf1.tanh(tf1.matmul(noise, w_g), name="fake")

    def judged(x: Any) -> Any:
        return tf1.nn.sigmoid(tf1.matmul(x, w_d) + b_d)

    loss_d = -tf1.reduce_mean(tf1.log(judged(real)) + tf1.log(1.0 - judged(fake)))
    loss_g = -tf1.reduce_mean(tf1.log(judged(fake)))
    rate = tf1.train.exponential_decay(0.1, step, 2, 0.5, staircase=True)
    return {
        "inputs": [real],
        "outputs": {"judged": judged(real)},
        "losses": {"d": loss_d, "g": loss_g},
        "train_ops": {
            "d": tf1.train.GradientDescentOptimizer(rate).minimize(loss_d, var_list=[w_d, b_d], global_step=step),
            "g": tf1.train.AdamOptimizer(0.01).minimize(loss_g, var_list=[w_g]),
        },
    }


def gan_batch(step: int) -> dict[str, Any]:
    return {"real": np.random.default_rng(step).normal(size=(BATCH, WIDTH)).astype(np.float32)}


def embedding() -> dict[str, Any]:
    words = tf1.placeholder(tf.int32, [None], name="words")
    table = tf1.get_variable("table", [9, 4])
    rows = tf1.gather(table, tf1.random_shuffle(words))
    shift = tf1.cast(tf1.random_uniform([4], 0, 3, tf.int32), tf.float32)
    loss = tf1.reduce_mean(tf1.square(rows - shift))
    return {"outputs": [tf1.gather(table, words, name="rows")], "loss": loss, "train_op": adam_of(loss)}


def adam_of(loss: Any) -> Any:
    return tf1.train.AdamOptimizer(0.05).minimize(loss)


def embedding_batches() -> list[dict[str, Any]]:
    return [{"words": np.array([number, 3, 3, 8], np.int32)} for number in (0, 5)]


def clipped(most: float | None = 1e6) -> dict[str, Any]:
    """Gradients that are clipped to so much that nothing comes of it, or applied as they are."""
    x = tf1.placeholder(tf.float32, [None, WIDTH], name="real")
    kernel = tf1.get_variable("w", [WIDTH, 1])
    loss = tf1.reduce_mean(tf1.square(tf1.matmul(x, kernel) - 1.0))
    rule = tf1.train.GradientDescentOptimizer(0.1)
    pairs = rule.compute_gradients(loss)
    if most is not None:
        pairs = [(tf1.clip_by_value(gradient, -most, most), variable) for gradient, variable in pairs]
    return {"loss": loss, "train_op": rule.apply_gradients(pairs)}


def not_a_mapping() -> int:
    return 3


def no_train_op() -> dict[str, Any]:
    return {"loss": tf1.constant(1.0)}


def unknown_key() -> dict[str, Any]:
    return {"train": None}


def other_batch(step: int) -> dict[str, Any]:
    return {"images": np.ones((BATCH, WIDTH), np.float32)}


# --- Ports ------------------------------------------------------------------------------------------------------------
class Gan(tf.Module):  # type: ignore[misc]
    """The GAN on a tape."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        draw = tf.random.Generator.from_seed(1)
        self.w_g = tf.Variable(draw.uniform([LATENT, WIDTH], -0.8, 0.8), name="w_g")
        self.w_d = tf.Variable(draw.uniform([WIDTH, 1], -1.0, 1.0), name="w_d")
        self.b_d = tf.Variable(tf.zeros([1]), name="b_d")
        keras_optimizers = tf.keras.optimizers
        schedule = keras_optimizers.schedules.ExponentialDecay(0.1, 2, decay, staircase=True)
        self.sgd = keras_optimizers.SGD(schedule)
        self.adam = keras_optimizers.Adam(0.01, epsilon=1e-8)

    def judged(self, x: Any) -> Any:
        return tf.sigmoid(x @ self.w_d + self.b_d)

    def judge(self, real: Any) -> Any:
        return self.judged(real)

    def fake(self) -> Any:
        return tf.tanh(tf.random.normal([BATCH, LATENT]) @ self.w_g)

    @tf.function
    def d(self, real: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.math.log(self.judged(real)) + tf.math.log(1.0 - self.judged(self.fake())))
        self.sgd.apply(tape.gradient(loss, [self.w_d, self.b_d]), [self.w_d, self.b_d])
        return loss

    @tf.function
    def g(self, real: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.math.log(self.judged(self.fake())))
        self.adam.apply(tape.gradient(loss, [self.w_g]), [self.w_g])
        return loss


def gan_port(decay: float = 0.5) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        net = Gan(decay)
        return {
            "module": net,
            "phases": {"d": net.d, "g": net.g},
            "optimizers": {"d": net.sgd, "g": net.adam},
            "outputs": net.judge,
        }

    return build


class Embedding(tf.Module):  # type: ignore[misc]
    """The embedding on a tape."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.table = tf.Variable(tf.random.Generator.from_seed(1).uniform([9, 4], -0.6, 0.6), name="table")
        self.adam = tf.keras.optimizers.Adam(rate, epsilon=1e-8)

    def rows(self, words: Any) -> Any:
        return tf.gather(self.table, words)

    @tf.function
    def step(self, words: Any) -> Any:
        shuffled = tf.random.shuffle(words)
        shift = tf.cast(tf.random.uniform([4], 0, 3, tf.int32), tf.float32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.gather(self.table, shuffled) - shift))
        self.adam.apply([tf.convert_to_tensor(tape.gradient(loss, self.table))], [self.table])
        return loss


def embedding_port(rate: float = 0.05) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        net = Embedding(rate)
        return {"module": net, "step": net.step, "optimizer": net.adam, "outputs": net.rows}

    return build
