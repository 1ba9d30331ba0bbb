"""Originals and ports that take no dtype: rewritten or called again in float64, or judged by the envelope."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

import tfport.adapters
from cases.common import Case

BATCH = 16


# --- Batch normalisation by an op that has float32 kernels alone ------------------------------------------------------
def fused() -> dict[str, Any]:
    """A convolution and tf.nn.fused_batch_norm, moving statistics written out."""
    x, y = tf1.placeholder(tf1.float32, [None, 6, 6, 2], name="images"), tf1.placeholder(tf1.int64, [None], name="y")
    training = tf1.placeholder(tf1.bool, [], name="is_training")
    h = tf1.nn.conv2d(x, tf1.get_variable("conv/kernel", [3, 3, 2, 4]), 1, "SAME")
    zeros, ones = tf1.zeros_initializer(), tf1.ones_initializer()
    gamma, beta = tf1.get_variable("bn/gamma", [4], None, ones), tf1.get_variable("bn/beta", [4], None, zeros)
    mean = tf1.get_variable("bn/moving_mean", [4], None, zeros, trainable=False)
    variance = tf1.get_variable("bn/moving_variance", [4], None, ones, trainable=False)
    normal, batch_mean, batch_variance = tf1.nn.fused_batch_norm(h, gamma, beta, epsilon=1e-3)
    looked, _, _ = tf1.nn.fused_batch_norm(h, gamma, beta, mean, variance, epsilon=1e-3, is_training=False)
    h = tf1.nn.relu(tf1.cond(training, lambda: normal, lambda: looked))
    moved = [tf1.assign(mean, 0.9 * mean + 0.1 * batch_mean)]
    moved += [tf1.assign(variance, 0.9 * variance + 0.1 * batch_variance)]
    logits = tf1.matmul(tf1.reshape(h, [-1, 144]), tf1.get_variable("fc/kernel", [144, 3]))
    loss = tf1.losses.sparse_softmax_cross_entropy(y, logits)
    with tf1.control_dependencies(moved):
        train = tf1.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    feeds = {"training": {training: True}, "inference": {training: False}}
    return {"outputs": {"logits": logits}, "loss": loss, "train_op": train, **feeds}


def _normalised(momentum: float, epsilon: float = 1e-3) -> Any:
    model = keras.Sequential(
        [
            keras.Input([6, 6, 2], name="images"),
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv"),
            Corrected(momentum=momentum, epsilon=epsilon, name="bn"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, use_bias=False, name="fc"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


class Corrected(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Moves its variance by n / (n - 1) times that of the batch, as the fused op does."""

    def _moments(self, inputs: Any, mask: Any) -> Any:
        mean, variance = super()._moments(inputs, mask)
        self._count = keras.ops.cast(keras.ops.size(inputs) / inputs.shape[-1], variance.dtype)
        return mean, variance

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        before = self.moving_variance * self.momentum
        result = super().call(inputs, training=training, mask=mask)
        if training:
            added = self.moving_variance - before
            self.moving_variance.assign(before + added * self._count / (self._count - 1))
        return result


def fused_right() -> Any:
    return _normalised(0.9)


def fused_keras2() -> Any:
    """A stock layer of Keras 2, which is the fused op in float32 and another algorithm in float64."""
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer([6, 6, 2], name="images"),
            layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name="norm"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, use_bias=False, name="fc"),
        ]
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


def fused_wrong() -> Any:
    return _normalised(0.9, 1.02e-3)


def images(step: int) -> dict[str, Any]:
    draw = np.random.default_rng(step)
    return {"images": draw.normal(size=(BATCH, 6, 6, 2)).astype("float32"), "y": draw.integers(0, 3, BATCH)}


# --- A loop over TensorArrays, a rate that decays, a moving average ---------------------------------------------------
def recurrent() -> dict[str, Any]:
    x, y = tf1.placeholder(tf1.float32, [None, 4, 3], name="x"), tf1.placeholder(tf1.float32, [None, 1], name="y")
    w = tf1.get_variable("w", [7, 4])
    inputs = tf1.TensorArray(tf1.float32, 4).unstack(tf1.transpose(x, [1, 0, 2]))

    def body(step: Any, h: Any, kept: Any) -> Any:
        h = tf1.tanh(tf1.matmul(tf1.concat([inputs.read(step), h], 1), w))
        return step + 1, h, kept.write(step, h)

    start = (0, tf1.zeros([tf1.shape(x)[0], 4]), tf1.TensorArray(tf1.float32, 4))
    _, h, kept = tf1.while_loop(lambda step, *_: step < 4, body, start)
    out = tf1.matmul(h, tf1.get_variable("o", [4, 1])) + 0.3 * tf1.reduce_mean(kept.stack())
    loss = tf1.reduce_mean(tf1.square(out - y))
    step = tf1.train.get_or_create_global_step()
    rate = tf1.train.exponential_decay(0.01, step, 3, 0.9)
    train = tf1.train.AdamOptimizer(rate).minimize(loss, global_step=step)
    return {"outputs": {"out": out}, "loss": loss, "train_op": train}


class Recurrent(tf.Module):  # type: ignore[misc]
    """The port, unrolled."""

    def __init__(self, dtype: str, factor: float) -> None:
        super().__init__()
        self.factor = factor
        glorot = keras.initializers.GlorotUniform()
        self.w = tf.Variable(glorot([7, 4], dtype), name="w")
        self.o = tf.Variable(glorot([4, 1], dtype), name="o")
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.9)
        self.adam = keras.optimizers.Adam(rate, epsilon=1e-8)
        self.adam.build([self.w, self.o])

    @tf.function
    def __call__(self, x: Any) -> Any:
        h, kept = tf.zeros_like(x[:, 0, :1]) * tf.zeros([4], x.dtype), []
        for step in range(4):
            h = tf.tanh(tf.concat([x[:, step], h], 1) @ self.w)
            kept.append(h)
        return h @ self.o + self.factor * tf.reduce_mean(tf.stack(kept))

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.adam.apply(tape.gradient(loss, [self.w, self.o]), [self.w, self.o])
        return loss


def _recurrent(dtype: str, factor: float) -> Any:
    module = Recurrent(dtype, factor)
    return tfport.adapters.tf_module(module, step=module.step, forward=module)


def recurrent_right(dtype: str = "float32") -> Any:
    return _recurrent(dtype, 0.3)


def recurrent_wrong(dtype: str = "float32") -> Any:
    """A number that is off by 1e-4 of itself."""
    return _recurrent(dtype, 0.3 * (1 + 1e-4))


def sequences(step: int) -> dict[str, Any]:
    draw = np.random.default_rng(step)
    x = draw.normal(size=(BATCH, 4, 3)).astype("float32")
    return {"x": x, "y": draw.normal(size=(BATCH, 1)).astype("float32")}


# --- A GAN whose gradients cancel, both sides modules in float32 ------------------------------------------------------
LATENT, HIDDEN, PIXELS, PAIRS = 16, 24, 48, 100


class Gan(tf.Module):  # type: ignore[misc]
    """Biases start at zero, and D takes real and generated images for equally likely: their gradients cancel."""

    def __init__(self, together: bool, epsilon: float = 1e-8, rate: float = 2e-4) -> None:
        super().__init__()
        self.together = together
        self.g = self.weights("g", LATENT, PIXELS)
        self.d = self.weights("d", PIXELS, 1)
        self.adam_d = keras.optimizers.Adam(rate, beta_1=0.5, epsilon=epsilon)
        self.adam_g = keras.optimizers.Adam(rate, beta_1=0.5, epsilon=epsilon)
        self.adam_d.build(self.d)
        self.adam_g.build(self.g)

    @staticmethod
    def weights(name: str, inputs: int, outputs: int) -> list[Any]:
        return [
            tf.Variable(tf.random.normal([inputs, HIDDEN], stddev=0.02), name=f"{name}_w1"),
            tf.Variable(tf.zeros([HIDDEN]), name=f"{name}_b1"),
            tf.Variable(tf.random.normal([HIDDEN, outputs], stddev=0.02), name=f"{name}_w2"),
            tf.Variable(tf.zeros([outputs]), name=f"{name}_b2"),
        ]

    def network(self, x: Any, weights: list[Any]) -> Any:
        return tf.nn.leaky_relu(x @ weights[0] + weights[1]) @ weights[2] + weights[3]

    def loss_d(self, images: Any, latent: Any) -> Any:
        fake = tf.tanh(self.network(latent, self.g))
        if self.together:
            logits = self.network(tf.concat([images, fake], 0), self.d)
            labels = tf.concat([tf.ones([PAIRS, 1]), tf.zeros([PAIRS, 1])], 0)
            return 2 * tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        real, fake = self.network(images, self.d), self.network(fake, self.d)
        return tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake))

    @tf.function
    def train_d(self, images: Any, latent: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.loss_d(images, latent)
        self.adam_d.apply(tape.gradient(loss, self.d), self.d)
        return loss

    @tf.function
    def train_g(self, latent: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softplus(-self.network(tf.tanh(self.network(latent, self.g)), self.d)))
        self.adam_g.apply(tape.gradient(loss, self.g), self.g)
        return loss

    @tf.function
    def outputs(self, images: Any, latent: Any) -> Any:
        return {"fake": tf.tanh(self.network(latent, self.g)), "real": self.network(images, self.d)}


def _gan(*args: Any, **more: Any) -> Any:
    gan = Gan(*args, **more)
    return tfport.adapters.tf_module(gan, phases={"D": gan.train_d, "G": gan.train_g}, forward=gan.outputs)


def gan() -> Any:
    return _gan(together=False)


def gan_right() -> Any:
    return _gan(together=True)


def gan_rate() -> Any:
    return _gan(together=True, rate=2.02e-4)


def gan_epsilon() -> Any:
    return _gan(together=True, epsilon=1e-7)


def pairs(step: int) -> dict[str, Any]:
    draw = np.random.default_rng(step)
    images = np.tanh(draw.normal(size=(PAIRS, PIXELS))).astype("float32")
    return {"images": images, "latent": draw.normal(size=(PAIRS, LATENT)).astype("float32")}


FLOAT64, ENVELOPE = r"shown in float64", r"float64 is not available: .* takes no dtype.*envelope"

CASES = [
    Case("fused", fused, fused_right, images, equal=True, says=(FLOAT64,)),
    Case("fused_epsilon", fused, fused_wrong, images, equal=False, rung="forward", says=(r"BatchNorm|bn",)),
    Case(
        "fused in Keras 2",
        fused,
        fused_keras2,
        images,
        equal=True,
        says=(r"float64 is not available: .* fused op in float32 alone.*envelope", r"n / \(n - 1\)"),
    ),
    Case("recurrent", recurrent, recurrent_right, sequences, equal=True, says=(FLOAT64,)),
    Case("recurrent_factor", recurrent, recurrent_wrong, sequences, equal=False, rung="forward"),
    Case("cancelling", gan, gan_right, pairs, equal=True, says=(ENVELOPE,)),
    Case("cancelling_rate", gan, gan_rate, pairs, equal=False, rung="update"),
    Case("cancelling_epsilon", gan, gan_epsilon, pairs, equal=False, rung="update"),
]
