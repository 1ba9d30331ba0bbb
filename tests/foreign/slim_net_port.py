"""The slim net in Keras 3, with a step of its own."""

import keras
import tensorflow as tf
from keras import layers


def half_l2(kernel):
    return 0.004 * keras.ops.sum(keras.ops.square(kernel)) / 2


class FusedNorm(layers.Layer):
    """Batch normalisation as slim's: it moves its variance by n / (n - 1) times that of the batch, and has no scale."""

    def __init__(self, momentum, **options):
        super().__init__(**options)
        self.momentum = momentum

    def build(self, shape):
        self.beta = self.add_weight(name="beta", shape=shape[-1:], initializer="zeros")
        self.mean = self.add_weight(name="moving_mean", shape=shape[-1:], initializer="zeros", trainable=False)
        self.variance = self.add_weight(name="moving_variance", shape=shape[-1:], initializer="ones", trainable=False)

    def call(self, x, training=False):
        if not training:
            return tf.nn.batch_normalization(x, self.mean, self.variance, self.beta, None, 1e-3)
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        for moving, now in ((self.mean, mean), (self.variance, variance * count / (count - 1))):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, None, 1e-3)


def build(momentum):
    start = {"kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.1), "kernel_regularizer": half_l2}
    images = keras.Input([8, 8, 2], name="images")

    def conv(x, filters, padding, name):
        x = layers.Conv2D(filters, 3, padding=padding, use_bias=False, name=name, **start)(x)
        return layers.ReLU()(FusedNorm(momentum, name=f"{name}_norm")(x))

    x = layers.MaxPooling2D(2)(conv(images, 4, "same", "conv1"))
    x = layers.Flatten()(conv(x, 6, "valid", "conv2"))
    x = layers.Dense(8, "relu", name="fc3", **start)(x)
    return keras.Model(images, layers.Dense(4, name="logits", **start)(x))


class Trainer(tf.Module):
    def __init__(self, momentum):
        super().__init__(name="trainer")
        self.net = build(momentum)
        self.weights = self.net.trainable_variables
        self.optimizer = keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.9, epsilon=1.0)
        self.optimizer.build(self.weights)
        for slot in self.optimizer.variables[2 : 2 + len(self.weights)]:  # TF1's mean squares begin at one
            slot.assign(tf.ones_like(slot))

    @tf.function
    def step(self, images, labels):
        with tf.GradientTape() as tape:
            logits = self.net(images, training=True)
            smooth = labels * 0.9 + 0.1 / 4
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(smooth, logits))
            loss += tf.add_n(self.net.losses)
        self.optimizer.apply(tape.gradient(loss, self.weights), self.weights)
        return loss


def program(momentum):
    trainer = Trainer(momentum)
    # tfport >
    return {
        "module": trainer,
        "step": trainer.step,
        "outputs": lambda images, training: {"predictions": tf.nn.softmax(trainer.net(images, training=training))},
    }
    # < tfport


def right():
    return program(0.9)


def wrong():
    return program(0.999)
