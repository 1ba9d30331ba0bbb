"""The sequence classifier as a compiled Keras 3 model."""

import keras
from keras import layers


def uniform(fan_in):
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)


def build(reduction):
    half = {"kernel_initializer": uniform(4), "recurrent_initializer": uniform(4), "bias_initializer": uniform(4)}
    model = keras.Sequential(
        [
            keras.Input([5], dtype="int32", name="text"),
            layers.Embedding(10, 5, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0)),
            layers.GRU(4, return_sequences=True, name="gru1", **half),
            layers.GRU(4, name="gru2", **half),
            layers.Dense(3, kernel_initializer=uniform(4), bias_initializer=uniform(4), name="fc"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), loss)
    return model


def right():
    return build("sum")


def wrong():
    return build("sum_over_batch_size")
