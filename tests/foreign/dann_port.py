"""Domain adversarial net in Keras 3, with tf.custom_gradient for the reversal."""

import keras
import tensorflow as tf


class GradientReversal(keras.layers.Layer):
    def __init__(self, strength, **options):
        super().__init__(**options)
        self.strength = strength

    def call(self, x):
        @tf.custom_gradient
        def reverse(x):
            return tf.identity(x), lambda upstream: -self.strength * upstream

        return reverse(x)


class Dann(keras.Model):
    def __init__(self, strength):
        super().__init__(name="dann")
        start = {
            "kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.3),
            "bias_initializer": keras.initializers.Constant(0.1),
        }
        self.feature = keras.layers.Dense(8, "relu", name="feature", **start)
        self.label = keras.layers.Dense(3, name="label", **start)
        self.domain = keras.layers.Dense(2, name="domain", **start)
        self.reversal = GradientReversal(strength)

    def call(self, x):
        return keras.ops.softmax(self.label(self.feature(x)))

    def train_step(self, data):
        x, (y, domain), _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            features = self.feature(x)
            source = self.label(features[:4])
            label_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y[:4], source)
            verdict = self.domain(self.reversal(features))
            domain_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(domain, verdict)
            loss = tf.reduce_mean(label_loss) + tf.reduce_mean(domain_loss)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def build(strength):
    model = Dann(strength)
    x = keras.Input([6], name="X")
    model(x)
    model.domain.build([None, 8])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def program(strength):
    model = build(strength)
    # tfport >
    return {
        "model": model,
        "phases": {"train": lambda batch: model.train_on_batch(batch["X"], (batch["y"], batch["domain"]))},
        "outputs": lambda batch, training: {"pred": model(batch["X"])},
    }
    # < tfport


def right():
    return program(0.7)


def wrong():
    return program(1.0)
