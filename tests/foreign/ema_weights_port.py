"""The metric net as a tf.Module; what is evaluated are the averages, as before."""

import keras
import tensorflow as tf


class Embedder(tf.Module):
    def __init__(self, decay, dtype):
        super().__init__(name="embedder")

        def orthogonal(shape):
            return keras.initializers.Orthogonal()(shape, dtype=dtype)

        self.w1, self.b1 = tf.Variable(orthogonal([6, 8]), name="w1"), tf.Variable(tf.zeros([8], dtype), name="b1")
        self.w2 = tf.Variable(orthogonal([8, 3]), name="w2")
        self.weights = [self.w1, self.b1, self.w2]
        self.averages = [tf.Variable(each, trainable=False, name="average") for each in self.weights]
        self.optimizer = keras.optimizers.SGD(0.2)
        self.decay = decay

    def embed(self, x, w1, b1, w2):
        return tf.math.l2_normalize(tf.math.softplus(x @ w1 + b1) @ w2, axis=1, epsilon=1e-10)

    @tf.function
    def averaged(self, x):
        return {"averaged": self.embed(x, *self.averages)}

    @tf.function
    def train_step(self, x):
        with tf.GradientTape() as tape:
            vectors = tf.reshape(self.embed(x, *self.weights), [-1, 3, 3])
            anchor, positive, negative = vectors[:, 0], vectors[:, 1], vectors[:, 2]
            near = tf.reduce_sum((anchor - positive) ** 2, axis=1)
            far = tf.reduce_sum((anchor - negative) ** 2, axis=1)
            loss = tf.reduce_mean(tf.nn.relu(near - far + 0.3))
        self.optimizer.apply(tape.gradient(loss, self.weights), self.weights)
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign(self.decay * average + (1 - self.decay) * weight)
        return loss


def program(decay, dtype):
    embedder = Embedder(decay, dtype)
    # tfport >
    return {"module": embedder, "step": embedder.train_step, "outputs": embedder.averaged}
    # < tfport


def right(dtype="float32"):
    return program(0.99, dtype)


def wrong(dtype="float32"):
    return program(0.999, dtype)
