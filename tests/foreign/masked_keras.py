"""A Keras 2 functional model: padded tokens, a mask through the layers, a masked mean, sample weights."""

import numpy as np
import tf_keras
from tf_keras import backend as K
from tf_keras.layers import Dense, Embedding, Input, Lambda, Layer, concatenate
from tf_keras.models import Model

MAXLEN, VOCAB = 7, 12


class MaskedMean(Layer):
    def __init__(self, **kwargs):
        self.supports_masking = True
        super(MaskedMean, self).__init__(**kwargs)

    def compute_mask(self, inputs, mask=None):
        return None

    def call(self, x, mask=None):
        if mask is None:
            return K.mean(x, axis=1)
        mask = K.cast(mask, K.floatx())
        summed = K.sum(x * K.expand_dims(mask, -1), axis=1)
        return summed / K.maximum(K.sum(mask, axis=1, keepdims=True), 1.0)


def focal_like(y_true, y_pred):
    y_pred = K.clip(y_pred, 1e-6, 1 - 1e-6)
    pt = y_true * y_pred + (1 - y_true) * (1 - y_pred)
    return K.mean(-K.pow(1.0 - pt, 2.0) * K.log(pt), axis=-1)


def get_model():
    words = Input(shape=(MAXLEN,), dtype="int32", name="words")
    meta = Input(shape=(2,), name="meta")
    x = Embedding(VOCAB, 5, mask_zero=True, name="emb")(words)
    x = Dense(6, activation="tanh", name="per_word")(x)
    pooled = MaskedMean(name="pool")(x)
    merged = concatenate([pooled, Lambda(lambda t: t * 0.1)(meta)])
    out = Dense(1, activation="sigmoid", name="out")(merged)
    model = Model(inputs=[words, meta], outputs=out)
    model.compile(optimizer=tf_keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True), loss=focal_like)
    return model


def next_batch(step):
    rng = np.random.RandomState(step)
    words = rng.randint(1, VOCAB, size=[6, MAXLEN])
    words *= np.arange(MAXLEN) < rng.randint(2, MAXLEN, size=[6, 1])
    return {
        "words": words.astype("int32"),
        "meta": rng.normal(size=[6, 2]).astype("float32"),
        "y": (rng.uniform(size=[6, 1]) > 0.5).astype("float32"),
    }


# tfport >
def graph():
    return get_model()


# < tfport
