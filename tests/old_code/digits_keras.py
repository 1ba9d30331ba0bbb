"""The port of digits_slim to Keras 3."""

import keras

from cases.float32_only import Corrected


def model(momentum=0.9):
    decay = keras.regularizers.L2(0.005)
    net = keras.Sequential(
        [
            keras.Input([8, 8, 1], name="images"),
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer=decay, name="conv"),
            Corrected(momentum=momentum, epsilon=1e-3, scale=False, name="norm"),
            keras.layers.ReLU(),
            keras.layers.MaxPool2D(2),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, kernel_regularizer=decay, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return net


def default_momentum():
    return model(0.99)
