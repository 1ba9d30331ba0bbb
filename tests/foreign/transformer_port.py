"""The encoder block in Keras 3."""

import keras
import numpy as np
from keras import layers, ops


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        step = ops.cast(step, "float32") + 1.0
        return 0.05 * 3.0**0.5 * ops.minimum(step * 3.0**-1.5, step**-0.5)


class Attention(layers.Layer):
    def __init__(self, key_dim, **options):
        super().__init__(**options)
        self.q, self.k, self.v = (layers.Dense(8, name=name) for name in "qkv")
        self.key_dim = key_dim

    def call(self, x, padding):
        def heads(y):
            return ops.transpose(ops.reshape(y, [-1, 6, 2, 4]), [0, 2, 1, 3])

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = ops.matmul(q, ops.transpose(k, [0, 1, 3, 2])) / self.key_dim**0.5
        scores += ops.cast(padding, scores.dtype)[:, None, None, :] * (-(2.0**32) + 1)
        mixed = ops.matmul(ops.softmax(scores, axis=-1), v)
        return ops.reshape(ops.transpose(mixed, [0, 2, 1, 3]), [-1, 6, 8])


class Encoder(keras.Model):
    def __init__(self, key_dim):
        super().__init__(name="encoder")
        self.embedding = layers.Embedding(11, 8, embeddings_initializer="glorot_uniform", name="embedding")
        self.attention = Attention(key_dim, name="attention")
        self.norm1 = layers.LayerNormalization(epsilon=1e-8, name="norm1")
        self.inner, self.outer = layers.Dense(16, "relu", name="inner"), layers.Dense(8, name="outer")
        self.norm2 = layers.LayerNormalization(epsilon=1e-8, name="norm2")
        angles = np.arange(6)[:, None] / 10000 ** ((np.arange(8) - np.arange(8) % 2) / 8)
        self.positions = np.where(np.arange(8) % 2 == 0, np.sin(angles), np.cos(angles))

    def call(self, x):
        h = self.embedding(x) * 8**0.5
        h = h + ops.cast(self.positions, h.dtype)
        h = self.norm1(self.attention(h, ops.equal(x, 0)) + h)
        h = self.norm2(self.outer(self.inner(h)) + h)
        return ops.matmul(h, ops.transpose(self.embedding.embeddings))


class Smoothed(keras.losses.Loss):
    def call(self, y_true, y_pred):
        y_true = ops.cast(y_true, "int32")
        labels = ops.one_hot(y_true, 11, dtype=y_pred.dtype) * 0.9 + 0.1 / 11
        losses = -ops.sum(labels * ops.log_softmax(y_pred), axis=-1)
        counted = ops.cast(ops.not_equal(y_true, 0), losses.dtype)
        return ops.sum(losses * counted) / (ops.sum(counted) + 1e-7)


def build(key_dim):
    model = Encoder(key_dim)
    model(np.zeros([1, 6], "int32"))
    model.compile(keras.optimizers.Adam(Schedule(), epsilon=1e-8), Smoothed(reduction=None))
    return model


def right():
    return build(4)


def wrong():
    return build(8)
