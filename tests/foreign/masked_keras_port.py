"""The model with masks in Keras 3."""

import keras
from keras import layers, ops


class MeanOfWords(layers.Layer):
    def __init__(self, masked, **options):
        super().__init__(**options)
        self.masked = masked
        self.supports_masking = True

    def call(self, x, mask=None):
        if mask is None or not self.masked:
            return ops.mean(x, axis=1)
        weights = ops.cast(mask, x.dtype)[..., None]
        return ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)

    def compute_mask(self, inputs, mask=None):
        return None


def focal(y_true, y_pred):
    y_pred = ops.clip(y_pred, 1e-6, 1 - 1e-6)
    right = y_true * y_pred + (1 - y_true) * (1 - y_pred)
    return ops.mean(-ops.square(1 - right) * ops.log(right), axis=-1)


def build(masked):
    words = keras.Input([7], dtype="int32", name="words")
    meta = keras.Input([2], name="meta")
    x = layers.Embedding(12, 5, mask_zero=True, name="embedding")(words)
    x = layers.Dense(6, "tanh", name="tokens")(x)
    x = layers.Concatenate()([MeanOfWords(masked, name="mean")(x), layers.Rescaling(0.1)(meta)])
    model = keras.Model([words, meta], layers.Dense(1, "sigmoid", name="score")(x))
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True), focal)
    return model


def right():
    return build(True)


def wrong():
    return build(False)
