"""The regressor in TensorFlow 2: the cell by hand, dropout on what leaves it, step by step."""

import keras
import tensorflow as tf


class Regressor(tf.Module):
    def __init__(self, rate):
        super().__init__(name="regressor")
        self.rate = rate
        self.w_in = tf.Variable(tf.random.normal([2, 5]), name="w_in")
        self.b_in = tf.Variable(tf.fill([5], 0.1), name="b_in")
        limit = (6 / (10 + 20)) ** 0.5
        self.kernel = tf.Variable(tf.random.uniform([10, 20], -limit, limit), name="kernel")
        self.bias = tf.Variable(tf.zeros([20]), name="bias")
        self.w_out = tf.Variable(tf.random.normal([5, 1]), name="w_out")
        self.b_out = tf.Variable(tf.fill([1], 0.1), name="b_out")
        self.optimizer = keras.optimizers.Adam(0.006, epsilon=1e-8)

    def __call__(self, X, training=False):
        inputs = tf.tensordot(X, self.w_in, 1) + self.b_in
        h = c = tf.zeros([tf.shape(X)[0], 5])
        for step in range(4):
            i, j, f, o = tf.split(tf.concat([inputs[:, step], h], 1) @ self.kernel + self.bias, 4, axis=1)
            c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
            h = tf.sigmoid(o) * tf.tanh(c)
            output = tf.nn.dropout(h, self.rate) if training else h
        return output @ self.w_out + self.b_out

    @tf.function
    def train_step(self, X, Y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(X, training=True) - Y) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def program(rate):
    model = Regressor(rate)
    # tfport >
    return {
        "module": model,
        "step": model.train_step,
        "outputs": lambda X, training: {"pred": model(X, training)},
    }
    # < tfport


def right():
    return program(0.5)


def wrong():
    return program(0.4)
