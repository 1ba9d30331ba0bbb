"""The port of estimated to Keras 3."""

import keras


def model():
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.4), keras.layers.Dense(3, name="logits")]
    net = keras.Sequential([keras.Input([64], name="images"), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.01, epsilon=1e-8), loss)
    return net
