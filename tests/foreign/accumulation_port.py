"""Gradient accumulation in TensorFlow 2."""

import keras
import tensorflow as tf


class Trainer(tf.Module):
    def __init__(self, divide, dtype):
        super().__init__(name="trainer")
        self.divide = divide

        def normal(shape, name):
            return tf.Variable(tf.random.normal(shape, stddev=0.5, dtype=dtype), name=name)

        self.w1, self.w2 = normal([5, 8], "w1"), normal([8, 1], "w2")
        self.b1, self.b2 = normal([8], "b1"), normal([1], "b2")
        self.weights = [self.w1, self.w2, self.b1, self.b2]
        self.sums = [tf.Variable(tf.zeros_like(each), trainable=False, name="sum") for each in self.weights]
        self.optimizer = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)
        self.optimizer.build(self.weights)

    @tf.function
    def predict(self, x):
        return tf.nn.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2

    @tf.function
    def zero(self):
        for each in self.sums:
            each.assign(tf.zeros_like(each))

    @tf.function
    def accumulate(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.predict(x) - y) ** 2)
        for total, gradient in zip(self.sums, tape.gradient(loss, self.weights), strict=True):
            total.assign_add(gradient)
        return loss

    @tf.function
    def apply(self):
        count = 3.0 if self.divide else 1.0
        self.optimizer.apply([each / tf.cast(count, each.dtype) for each in self.sums], self.weights)


def program(divide, dtype):
    trainer = Trainer(divide, dtype)
    # tfport >
    return {
        "module": trainer,
        "phases": {
            "zero": lambda x: trainer.zero(),
            "one": trainer.accumulate,
            "two": trainer.accumulate,
            "apply": lambda x: trainer.apply(),
        },
        "outputs": lambda x: {"pred": trainer.predict(x)},
    }
    # < tfport


def right(dtype="float32"):
    return program(True, dtype)


def wrong(dtype="float32"):
    return program(False, dtype)
