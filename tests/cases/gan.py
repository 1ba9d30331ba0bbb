"""A GAN whose TF1 graph maximises log likelihoods, against a port on a tape that minimises their negatives."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

from cases.common import Case

LATENT, HIDDEN, PIXELS = 32, 24, 64
BATCH, RATE = 20, 2e-4


def legacy(dtype: str = "float32") -> dict[str, Any]:
    """Both losses are maximised: their negatives are handed to the optimizers."""
    x = tf1.placeholder(dtype, [None, PIXELS], name="images")
    z = tf1.placeholder(dtype, [None, LATENT], name="latent")

    def weight(name: str, *shape: int) -> Any:
        return tf1.Variable(tf1.random_normal(shape, stddev=0.1, dtype=dtype), name=name, use_resource=False)

    def bias(name: str, size: int) -> Any:
        return tf1.Variable(tf1.zeros([size], dtype), name=name, use_resource=False)

    g = [weight("G_W1", LATENT, HIDDEN), bias("G_b1", HIDDEN), weight("G_W2", HIDDEN, PIXELS), bias("G_b2", PIXELS)]
    d = [weight("D_W1", PIXELS, HIDDEN), bias("D_b1", HIDDEN), weight("D_W2", HIDDEN, 1), bias("D_b2", 1)]

    def network(x: Any, weights: list[Any]) -> Any:
        hidden = tf1.nn.relu(tf1.matmul(x, weights[0]) + weights[1])
        return tf1.nn.sigmoid(tf1.matmul(hidden, weights[2]) + weights[3])

    fake = network(z, g)
    d_real, d_fake = network(x, d), network(fake, d)
    loss_d = tf1.reduce_mean(tf1.log(d_real) + tf1.log(1 - d_fake))
    loss_g = tf1.reduce_mean(tf1.log(d_fake))
    return {
        "outputs": {"fake": fake, "d_real": d_real, "d_fake": d_fake},
        "losses": {"D": loss_d, "G": loss_g},
        "train_ops": {
            "D": tf1.train.AdamOptimizer(RATE).minimize(-loss_d, var_list=d),
            "G": tf1.train.AdamOptimizer(RATE).minimize(-loss_g, var_list=g),
        },
    }


class Gan(tf.Module):  # type: ignore[misc]
    """The port."""

    def __init__(self, dtype: str, factor: float) -> None:
        super().__init__()
        self.factor = factor

        def weight(name: str, *shape: int) -> Any:
            return tf.Variable(tf.random.normal(shape, stddev=0.1, dtype=dtype), name=name)

        def bias(name: str, size: int) -> Any:
            return tf.Variable(tf.zeros([size], dtype), name=name)

        self.g = [weight("G_W1", LATENT, HIDDEN), bias("G_b1", HIDDEN)]
        self.g += [weight("G_W2", HIDDEN, PIXELS), bias("G_b2", PIXELS)]
        self.d = [weight("D_W1", PIXELS, HIDDEN), bias("D_b1", HIDDEN), weight("D_W2", HIDDEN, 1), bias("D_b2", 1)]
        self.adam_d = keras.optimizers.Adam(RATE, epsilon=1e-8)
        self.adam_g = keras.optimizers.Adam(RATE, epsilon=1e-8)
        self.adam_d.build(self.d)
        self.adam_g.build(self.g)

    def network(self, x: Any, weights: list[Any]) -> Any:
        return tf.sigmoid(tf.nn.relu(x @ weights[0] + weights[1]) @ weights[2] + weights[3])

    @tf.function
    def train_d(self, images: Any, latent: Any) -> Any:
        with tf.GradientTape() as tape:
            fake = self.network(self.network(latent, self.g), self.d)
            likelihood = tf.reduce_mean(tf.math.log(self.network(images, self.d)) + tf.math.log(1 - fake))
            loss = -self.factor * likelihood
        self.adam_d.apply(tape.gradient(loss, self.d), self.d)
        return loss

    @tf.function
    def train_g(self, latent: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.math.log(self.network(self.network(latent, self.g), self.d)))
        self.adam_g.apply(tape.gradient(loss, self.g), self.g)
        return loss

    @tf.function
    def outputs(self, images: Any, latent: Any) -> Any:
        fake = self.network(latent, self.g)
        return {"fake": fake, "d_real": self.network(images, self.d), "d_fake": self.network(fake, self.d)}


def _program(dtype: str, factor: float) -> Any:
    gan = Gan(dtype, factor)
    return {"module": gan, "phases": {"D": gan.train_d, "G": gan.train_g}, "outputs": gan.outputs}


def right(dtype: str = "float32") -> Any:
    return _program(dtype, 1.0)


def halved(dtype: str = "float32") -> Any:
    return _program(dtype, 0.5)


def compiled(package: Any, weight: float = 2.0) -> Any:
    """Three compiled models; one joint batch is the mean of two halves, so the discriminator's loss weighs twice."""

    def build() -> Any:
        layers: Any = package.layers
        adam: Any = functools.partial(package.optimizers.Adam, RATE, epsilon=1e-8)
        start: Any = package.initializers.RandomNormal

        def network(name: str, units: tuple[int, int, int]) -> Any:
            first = package.Input([units[0]]) if package is keras else layers.InputLayer([units[0]])
            dense = [
                layers.Dense(size, activation, kernel_initializer=start(stddev=0.1), name=f"{name}{number}")
                for number, size, activation in ((1, units[1], "relu"), (2, units[2], "sigmoid"))
            ]
            return package.Sequential([first, *dense], name=name)

        generator = network("G", (LATENT, HIDDEN, PIXELS))
        discriminator = network("D", (PIXELS, HIDDEN, 1))
        discriminator.compile(adam(), "binary_crossentropy", loss_weights=[weight])
        discriminator.optimizer.build(discriminator.trainable_variables)
        discriminator.trainable = False
        first = package.Input([LATENT]) if package is keras else layers.InputLayer([LATENT])
        joined = package.Sequential([first, generator, discriminator], name="joined")
        joined.compile(adam(), "binary_crossentropy")
        joined.optimizer.build(joined.trainable_variables)

        def train_d(batch: Any) -> Any:
            discriminator.trainable = True
            images = np.concatenate([batch["images"], generator.predict_on_batch(batch["latent"])])
            labels = np.concatenate([np.ones([BATCH, 1]), np.zeros([BATCH, 1])])
            loss = discriminator.train_on_batch(images, labels)
            discriminator.trainable = False
            return loss

        def train_g(batch: Any) -> Any:
            return joined.train_on_batch(batch["latent"], np.ones([BATCH, 1]))

        def outputs(batch: Any, training: bool) -> Any:
            fake = generator(batch["latent"], training=training)
            verdicts = discriminator(batch["images"], training=training), discriminator(fake, training=training)
            return {"fake": fake, "d_real": verdicts[0], "d_fake": verdicts[1]}

        models = {"generator": generator, "discriminator": discriminator, "joined": joined}
        return {"models": models, "phases": {"D": train_d, "G": train_g}, "outputs": outputs}

    return build


def batches(step: int) -> dict[str, Any]:
    generator = np.random.default_rng(step)
    images = generator.uniform(size=(BATCH, PIXELS)).astype("float32")
    return {"images": images, "latent": generator.standard_normal((BATCH, LATENT)).astype("float32")}


CASES = [
    Case("maximised", legacy, right, batches, equal=True, says=(r"maximi[sz]ed",)),
    Case("compiled", legacy, compiled(keras), batches, equal=True, says=(r"maximi[sz]ed",)),
    Case("compiled by tf_keras", legacy, compiled(tf_keras), batches, equal=True, says=(r"maximi[sz]ed",)),
    Case("not weighted", legacy, compiled(keras, 1.0), batches, equal=False, rung="loss", says=(r"0\.5 times",)),
    Case("halved", legacy, halved, batches, equal=False, rung="loss", says=(r"0\.5",)),
]
